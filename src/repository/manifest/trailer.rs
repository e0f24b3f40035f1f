//! The trailer and the index: where the parts of a manifest begin.

use super::{TRAILER, VERSION};
use crate::path::TreePath;
use crate::wire::frame::{self, Frame};
use serde::{Deserialize, Serialize};

/// What a manifest's trailer begins with.
const MAGIC: [u8; 8] = *b"mtwinman";

/// Bytes of the trailer's payload.
const PAYLOAD: usize = 32;

/// Bytes of the trailer.
pub(super) const LENGTH: usize = frame::HEADER + PAYLOAD;

/// Most bytes of the index, unpacked: a billion messages.
pub(super) const INDEX_MAX: usize = 256 << 20;

/// Most bytes of a part of the index, unpacked: what a reader makes of one is some thirty times as much at most.
pub(super) const INDEX_PART: usize = 1 << 20;

/// Most bytes that a range has in the index beside its first path.
pub(super) const RANGE_REF: usize = 18;

/// The last bytes of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) version: u16,
    pub(super) minimum_reader: u16,
    /// Where the index begins.
    pub(super) index: u64,
    /// Where the header begins.
    pub(super) header: u64,
}

/// A range, as the index has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RangeRef {
    /// The path of its first record.
    pub(super) first: TreePath,
    /// Where it begins.
    pub(super) offset: u64,
    /// How many records it has.
    pub(super) count: u32,
}

impl Trailer {
    /// The trailer of this version.
    pub(super) fn new(index: u64, header: u64) -> Self {
        Self { version: VERSION, minimum_reader: VERSION, index, header }
    }

    pub(super) fn frame(&self) -> Frame {
        let mut payload = Vec::with_capacity(PAYLOAD);
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&self.version.to_le_bytes());
        payload.extend_from_slice(&self.minimum_reader.to_le_bytes());
        payload.extend_from_slice(&[0; 4]);
        payload.extend_from_slice(&self.index.to_le_bytes());
        payload.extend_from_slice(&self.header.to_le_bytes());
        Frame::plain(TRAILER, payload)
    }

    /// The trailer in a frame; `None` where it is none.
    pub(super) fn parse(frame: &Frame) -> Option<Self> {
        let payload = frame.payload().ok().filter(|payload| frame.kind == TRAILER && payload.len() == PAYLOAD)?;
        let (magic, rest) = payload.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (minimum_reader, rest) = rest.split_first_chunk()?;
        let (zero, rest) = rest.split_first_chunk::<4>()?;
        let (index, rest) = rest.split_first_chunk()?;
        let header = rest.first_chunk()?;
        (*magic == MAGIC && *zero == [0; 4]).then_some(Self {
            version: u16::from_le_bytes(*version),
            minimum_reader: u16::from_le_bytes(*minimum_reader),
            index: u64::from_le_bytes(*index),
            header: u64::from_le_bytes(*header),
        })
    }
}
