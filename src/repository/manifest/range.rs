//! A range: up to some thousand records, column by column.
//!
//! What is alike stands together: directories, shapes of names and owners are in dictionaries, numbers are written as
//! differences to what they follow, and what is random stands apart from what is not. The order of the columns is that
//! of [`Columns::encode`]; mailtwin-repository(7) says it in words.

use super::column::Malformed;
use super::pack::Columns;
use super::unpack;
use crate::repository::record::{Place, Record};
use std::io;

/// Most records of a range: what is read to get at one of them.
pub const MOST: usize = 2048;

/// Most that one record may weigh ([`Record::weight`]): its extended attributes, for the rest is short.
pub const RECORD_MAX: usize = 1 << 20;

/// A range that weighs this much is closed, however few its records are.
pub(super) const FULL: usize = 2 << 20;

/// Most that the records of a range weigh together: one that was almost full, and a record. What has that weight fits
/// into a frame even where nothing of it can be compressed.
pub(super) const WEIGHT_MAX: usize = FULL + RECORD_MAX;

/// The forms of a record: the lower two bits are what it is, the others what it has.
pub(super) mod form {
    pub const WHAT: u8 = 3;
    pub const GONE: u8 = 0;
    pub const DIRECTORY: u8 = 1;
    pub const SYMLINK: u8 = 2;
    pub const FILE: u8 = 3;
    pub const MTIME: u8 = 4;
    pub const GROUP: u8 = 8;
    pub const PLACE: u8 = 16;
    pub const ENVELOPE: u8 = 32;
    pub const DATE: u8 = 64;

    /// Whether a record can be of this form.
    pub fn is_known(form: u8) -> bool {
        let has = form & !WHAT;
        match form & WHAT {
            GONE => has == 0,
            FILE => has & 128 == 0 && (has & ENVELOPE != 0 || has & DATE == 0),
            _ => has & !MTIME == 0,
        }
    }
}

/// Packs records into the payload of a range.
///
/// # Errors
/// When zstd fails, which means no memory.
pub fn encode(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut columns = Columns::default();
    records.iter().for_each(|record| columns.push(record));
    columns.encode()
}

/// Unpacks the payload of a range: at least one record, in the order of their keys, and none that could not have been
/// packed.
///
/// # Errors
/// [`Malformed`] says what is wrong. Whatever the bytes are, not much more memory is taken than records of
/// that weight take.
pub fn decode(payload: &[u8]) -> Result<Vec<Record>, Malformed> {
    unpack::records(payload)
}

/// The piece that a content most likely is: contents lie one behind the other in a block, and are mostly asked for in
/// that order.
pub(super) fn expected_piece(last: Option<Place>, segment: u32, offset: u64) -> u64 {
    match last {
        Some(last) if last.segment == segment && last.offset == offset => u64::from(last.piece) + 1,
        _ => 0,
    }
}
