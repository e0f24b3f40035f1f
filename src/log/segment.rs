//! Appending to the segment, and reading it again after a crash.

use crate::disk::{DiskError, Root, Writer};
use crate::id::{Epoch, Position, SetId};
use crate::maildir::change::Change;
use crate::path::TreePath;
use crate::wire::frame::{Frame, FrameError};
use crate::wire::message::{Message, MessageError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::BufReader;

/// Kind byte of the header frame; kinds below 64 are messages.
const HEADER: u8 = 64;

/// The version of the format that this program writes.
const VERSION: u16 = 1;

/// The first frame of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Format of the segment.
    pub version: u16,
    /// Oldest program format that can read it.
    pub minimum_reader: u16,
    /// The set.
    pub set: SetId,
    /// The epoch of its batches.
    pub epoch: Epoch,
    /// The position before its first batch.
    pub after: Position,
}

/// The segment that is being written.
pub struct Segment {
    writer: Writer,
    unsynced: bool,
}

/// Where the segment is, in the slave's state directory.
fn path() -> TreePath {
    TreePath::root().child("segment")
}

impl Segment {
    /// Begins a segment. There must be none.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn create(state: &Root, set: SetId, epoch: Epoch, after: Position) -> Result<Self, DiskError> {
        let writer = state.create(&path(), 0o600)?;
        let mut segment = Self { writer, unsynced: true };
        let header = Header { version: VERSION, minimum_reader: VERSION, set, epoch, after };
        let payload = postcard::to_stdvec(&header).unwrap_or_default();
        segment.append(&Frame::plain(HEADER, payload))?;
        state.sync_directory(&TreePath::root())?;
        Ok(segment)
    }

    /// Appends a frame; it counts when [`Segment::sync`] has returned.
    ///
    /// # Errors
    /// Where the disk refuses: nothing may be acknowledged then.
    pub fn append(&mut self, frame: &Frame) -> Result<(), DiskError> {
        let (header, payload) = frame.parts();
        self.unsynced = true;
        self.writer.write(&[&header[..], payload].concat())
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// Where the disk refuses: nothing may be acknowledged then, and this segment is not written any more.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        if std::mem::take(&mut self.unsynced) {
            self.writer.sync()?;
        }
        Ok(())
    }

    /// Whether a run left a segment, however short.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn is_there(state: &Root) -> Result<bool, DiskError> {
        Ok(state.stat_if_there(&path())?.is_some())
    }

    /// Removes the segment: mirror and catalogue have all of it, durably.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove(state: &Root) -> Result<(), DiskError> {
        match state.remove(&path()) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }
}

/// A batch as the segment has it.
#[derive(Debug)]
pub struct Batch {
    /// Its position.
    pub position: Position,
    /// What it does.
    pub changes: Vec<Change>,
    /// Payloads of the blocks that came before it, where they were logged.
    pub blocks: Vec<Vec<u8>>,
}

/// Why a segment cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was written by a later program.
    #[error("the log has format {0}, and this mailtwin reads up to {VERSION}: install the newer mailtwin again")]
    Version(u16),
    /// A frame that is whole says something that cannot be.
    #[error("the log is damaged: {0}")]
    Message(#[from] MessageError),
}

/// Reads a segment from the beginning, batch by batch. A torn end is a clean end: what stands there was never
/// acknowledged.
pub struct Replay {
    input: BufReader<File>,
    /// A frame in the middle does not match its check: what comes behind it is not replayed.
    pub is_damaged: bool,
    /// The segment's header.
    pub header: Header,
}

impl Replay {
    /// Opens the segment in a state directory. `None` where there is none, or its header was never finished.
    ///
    /// # Errors
    /// Where the disk refuses, or a later program wrote it.
    pub fn open(state: &Root) -> Result<Option<Self>, SegmentError> {
        if state.stat_if_there(&path())?.is_none() {
            return Ok(None);
        }
        let mut input = BufReader::with_capacity(1 << 20, state.open_file(&path())?);
        let Ok(frame) = Frame::read(&mut input) else { return Ok(None) };
        let header: Option<Header> = frame.payload().ok().and_then(|payload| postcard::from_bytes(&payload).ok());
        match header {
            Some(header) if frame.kind == HEADER && header.minimum_reader > VERSION => {
                Err(SegmentError::Version(header.minimum_reader))
            }
            Some(header) if frame.kind == HEADER => Ok(Some(Self { input, header, is_damaged: false })),
            _ => Ok(None),
        }
    }

    /// The next whole batch; `None` at the end.
    ///
    /// # Errors
    /// Where the disk refuses, or a whole frame says something that cannot be.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, SegmentError> {
        let mut batch = Batch { position: Position::default(), changes: Vec::new(), blocks: Vec::new() };
        loop {
            let frame = match Frame::read(&mut self.input) {
                Ok(frame) => frame,
                // The tail of an interrupted append.
                Err(FrameError::Io(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                    return Err(SegmentError::Message(FrameError::Io(error).into()));
                }
                Err(_) => {
                    // Behind a torn end there is nothing.
                    self.is_damaged = Frame::read(&mut self.input).is_ok();
                    return Ok(None);
                }
            };
            match Message::parse(&frame)? {
                Message::Block(payload) => batch.blocks.push(payload),
                Message::Changes(mut changes) => batch.changes.append(&mut changes),
                Message::Commit(position, count) if count == batch.changes.len() as u64 => {
                    batch.position = position;
                    return Ok(Some(batch));
                }
                _ => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::entry::Mark;

    fn batch(sequence: u64) -> [Message; 2] {
        let path = TreePath::new(format!("cur/{sequence}").as_bytes()).expect("a path");
        let changes = vec![Change::Remove { path, mark: Mark::default() }];
        [Message::Changes(changes), Message::Commit(Position { epoch: 1, sequence }, 1)]
    }

    fn replayed(state: &Root) -> Vec<u64> {
        let mut replay = Replay::open(state).expect("opens").expect("is there");
        std::iter::from_fn(|| replay.next_batch().expect("reads")).map(|batch| batch.position.sequence).collect()
    }

    #[test]
    fn damage_in_the_middle_is_told_from_a_torn_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = Root::open(directory.path()).expect("opens");
        let mut segment =
            Segment::create(&state, SetId::default(), Epoch::default(), Position::default()).expect("creates");
        let file = directory.path().join("segment");
        let begin = std::fs::metadata(&file).expect("is there").len() as usize;
        for message in [batch(1), batch(2)].concat() {
            segment.append(&message.frame().expect("packs")).expect("appends");
        }
        let mut bytes = std::fs::read(&file).expect("reads");
        bytes[begin + crate::wire::frame::HEADER] ^= 1;
        std::fs::write(&file, &bytes).expect("writes");
        let mut replay = Replay::open(&state).expect("opens").expect("is there");
        assert!(replay.next_batch().expect("reads").is_none());
        assert!(replay.is_damaged);
    }

    #[test]
    fn a_segment_cut_anywhere_gives_its_whole_batches() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = Root::open(directory.path()).expect("opens");
        let none = Replay::open(&state).expect("opens");
        assert!(none.is_none());
        let mut segment =
            Segment::create(&state, SetId::default(), Epoch::default(), Position::default()).expect("creates");
        let mut ends = Vec::new();
        let file = directory.path().join("segment");
        for sequence in 1..=3 {
            for message in batch(sequence) {
                segment.append(&message.frame().expect("packs")).expect("appends");
            }
            segment.sync().expect("syncs");
            ends.push(std::fs::metadata(&file).expect("is there").len());
        }
        let whole = std::fs::read(&file).expect("reads");
        for cut in 0..=whole.len() {
            std::fs::write(&file, &whole[..cut]).expect("writes");
            let expected = ends.iter().filter(|&&end| end <= cut as u64).count();
            match Replay::open(&state).expect("opens") {
                Some(_) => assert_eq!(replayed(&state).len(), expected, "cut at {cut}"),
                None => assert_eq!(expected, 0, "cut at {cut}"),
            }
        }
        Segment::remove(&state).expect("removes");
        Segment::remove(&state).expect("again does no harm");
    }
}
