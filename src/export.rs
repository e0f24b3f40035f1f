//! `export`: what there was at a moment, for other programs: a tar stream, mbox files, a plain Maildir.
//!
//! Layer 5, beside `restore`. Nothing here changes a mailbox. A tar stream has everything as it was; an mbox file has
//! the messages, with their flags as headers; of a plain Maildir only the choice is made here, and `restore` writes it.
//! Whatever a content is written to, its digest was found right before its first byte was written: a stream cannot be
//! taken back.

use crate::disk::DiskError;
use crate::maildir::folder;
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::repository::contents::ContentError;
use crate::repository::layout::RepositoryError;
use crate::repository::record::{Record, What};
use std::io;

mod content;
pub mod maildir;
pub mod mbox;
pub mod output;
pub mod tar;

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The disk that is written to.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is written to did not take it.
    #[error("{0}")]
    Write(#[from] io::Error),
    /// Another run writes to the same file.
    #[error("another run is writing to {0}: wait until it has ended")]
    Locked(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Failed(String),
}

impl From<ContentError> for ExportError {
    fn from(error: ContentError) -> Self {
        Self::Repository(error.into())
    }
}

impl ExportError {
    /// The exit code that belongs to it.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Locked(_)) { 10 } else { 1 }
    }
}

type Result<T> = std::result::Result<T, ExportError>;

/// What an export has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files and symbolic links, or messages, that are in it.
    pub exported: u64,
    /// What could not be brought.
    pub failed: u64,
    /// Bytes in those files; those of hard links once where they stay links.
    pub bytes: u64,
    /// Why.
    pub problems: Vec<Problem>,
}

impl Report {
    fn problem(&mut self, subject: String, reason: String) {
        self.failed += 1;
        self.problems.push(Problem { subject, reason });
    }
}

/// Which records are wanted.
pub type Wanted<'a> = &'a dyn Fn(&Record) -> bool;

/// Whether a record is that of a message: of one whose content could not be looked into, too.
fn is_message(record: &Record) -> bool {
    matches!(record.state, Some((_, What::File { .. }))) && folder::holds_messages(record.path.parent().name())
}

/// The folder that a record tells of: that of a message, or of a directory that holds messages.
fn folder_of(record: &Record) -> Option<TreePath> {
    match &record.state {
        Some((_, What::Directory)) if folder::holds_messages(record.path.name()) => Some(record.path.parent()),
        Some((_, What::File { .. })) if is_message(record) => Some(record.path.parent().parent()),
        _ => None,
    }
}
