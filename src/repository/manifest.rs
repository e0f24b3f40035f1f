//! The manifest of a restore point: every path of it, in an order in which a mailbox is one stretch.
//!
//! ```text
//!  range  range  range ...  index ...  header  trailer
//! ```
//!
//! Each part is a frame (`wire::frame`), so that every byte is under a check. A range has up to [`range::MOST`] records,
//! column by column. The index says where each range begins, and with which path; so one mailbox is read without the
//! others, and damage of one range takes no record of another. The trailer has a fixed length and form for all times.
//! mailtwin-repository(7) describes it byte by byte.
//!
//! A manifest is written once, by [`Writer`], and never changed.

use crate::catalogue::directory;
use crate::disk::DiskError;
use crate::id::{Digest, Epoch, Position, SetId};
use crate::maildir::entry::Time;
use crate::path::TreePath;
use serde::{Deserialize, Serialize};

mod column;
mod name;
mod pack;
pub mod range;
mod reader;
mod trailer;
mod unpack;
mod writer;

pub use column::Malformed;
pub use reader::{Manifest, Records};
pub use writer::Writer;

/// The version of the format that this program writes.
pub const VERSION: u16 = 1;

/// Kind byte of the frame of a range; kinds below 64 are messages, 64 is a segment's header.
pub const RANGE: u8 = 96;

/// Kind byte of a part of the index.
pub const INDEX: u8 = 97;

/// Kind byte of the header.
pub const HEADER: u8 = 98;

/// Kind byte of the trailer.
pub const TRAILER: u8 = 99;

/// A segment that contents of a restore point lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// Its number in the repository.
    pub number: u64,
    /// Bytes of it that the point needs: from its beginning to behind the last frame.
    pub length: u64,
    /// Digest over the checks of its frames, which tells whether it is the segment that was meant.
    pub chain: Digest,
}

/// What a restore point is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Header {
    /// Format of the manifest. [`Writer::finish`] says which.
    pub version: u16,
    /// Oldest program format that can read it. [`Writer::finish`] says which.
    pub minimum_reader: u16,
    /// The point's label.
    pub label: String,
    /// In a differential: the label of its full.
    pub full: Option<String>,
    /// The set.
    pub set: SetId,
    /// The epoch of the position.
    pub epoch: Epoch,
    /// The last batch that the point has.
    pub position: Position,
    /// When the point was made.
    pub moment: Time,
    /// Messages of the set at that moment.
    pub messages: u64,
    /// Regular files of the set, messages among them.
    pub files: u64,
    /// Directories of the set.
    pub directories: u64,
    /// Bytes in these files.
    pub bytes: u64,
    /// The last segment of the log that the point has seen, whether it needs it or not.
    pub reached: u64,
    /// The segments that places of records mean by their number in this list. That of a differential begins with the
    /// list of its full.
    pub segments: Vec<SegmentRef>,
}

/// Why a manifest cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The end of the file is not that of a manifest.
    #[error("{file} is no manifest, or its end is missing")]
    Foreign {
        /// The file.
        file: String,
    },
    /// It was written by a later program.
    #[error("{file} has format {format}, and this mailtwin reads up to {VERSION}: install a newer mailtwin")]
    Version {
        /// The file.
        file: String,
        /// The oldest format that a program must know to read it.
        format: u16,
    },
    /// What all of it hangs on cannot be believed: nothing can be read.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// A range cannot be read; the others can.
    #[error("{file} is damaged: {count} records from {first} on cannot be read: {what}")]
    Range {
        /// The file.
        file: String,
        /// The path of the first record.
        first: TreePath,
        /// How many records there are in it.
        count: u64,
        /// What is wrong.
        what: String,
    },
    /// A record does not come after the one before it.
    #[error("cannot write {file}: {path} is not in order")]
    Order {
        /// The file.
        file: String,
        /// The path of the record.
        path: TreePath,
    },
    /// A record is larger than the format has room for, or says what cannot be.
    #[error("cannot write {file}: {path}: {what}")]
    Record {
        /// The file.
        file: String,
        /// The path of the record.
        path: TreePath,
        /// What is wrong.
        what: &'static str,
    },
    /// The manifest as a whole cannot be written.
    #[error("cannot write {file}: {what}")]
    Whole {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

/// The key of a path: records stand in the order of their keys.
///
/// A directory is followed by all beneath it: first by its `cur`, `new` and `tmp`, then by the rest in the order of their
/// names. The key of a directory is the beginning of every key beneath it and of no other. It is the order of the
/// catalogue's rows, so that both are walked side by side.
pub fn key(path: &TreePath) -> Vec<u8> {
    directory::key(path)
}

#[cfg(test)]
mod tests;
