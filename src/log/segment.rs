//! Appending to the segment, and reading it again after a crash.

use crate::disk::{DiskError, Root, Writer};
use crate::id::{Digest, Epoch, Position, SetId};
use crate::maildir::change::Change;
use crate::maildir::entry::Time;
use crate::path::TreePath;
use crate::wire::frame::{self, Frame, FrameError};
use crate::wire::message::{BLOCK, Message, MessageError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

/// Kinds of frames that only the log has; kinds below 64 are messages.
const HEADER: u8 = 64;
const MOMENT: u8 = 65;
const FOUND: u8 = 66;

/// The version of the format that this program writes.
const VERSION: u16 = 3;

/// The oldest program format that reads it: what is new stands behind what it knows.
const MINIMUM_READER: u16 = 2;

/// Changes in one frame.
const CHANGES: usize = 1000;

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

/// Where a segment stands in the log that is kept: what tells that it is the one behind its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Link {
    /// Its number; 0 where history is off.
    pub number: u64,
    /// [`Replay::chain`] of the whole segment before it; zero for the first.
    pub before: Digest,
}

/// A segment that is closed: its number, 0 where it was begun without history, and what tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// See [`Link::number`].
    pub number: u64,
    /// See [`Replay::chain`].
    pub chain: Digest,
}

/// The segment that is being written.
pub struct Segment {
    writer: Writer,
    unsynced: bool,
    /// Bytes appended.
    pub length: u64,
}

/// Where the segment is, in the slave's state directory.
pub(super) fn path() -> TreePath {
    TreePath::root().child("segment")
}

impl Segment {
    /// Begins a segment. There must be none. Its name is not durable yet: who acknowledges syncs the directory, too.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn create(state: &Root, set: SetId, epoch: Epoch, after: Position, link: Link) -> Result<Self, DiskError> {
        let writer = state.create(&path(), 0o600)?;
        let mut segment = Self { writer, unsynced: true, length: 0 };
        let header = Header { version: VERSION, minimum_reader: MINIMUM_READER, set, epoch, after };
        let payload = postcard::to_stdvec(&(header, link)).unwrap_or_default();
        segment.append(&Frame::plain(HEADER, payload))?;
        Ok(segment)
    }

    /// Appends a frame; it counts when [`Segment::sync`] has returned.
    ///
    /// # Errors
    /// Where the disk refuses: nothing may be acknowledged then.
    pub fn append(&mut self, frame: &Frame) -> Result<(), DiskError> {
        let (header, payload) = frame.parts();
        self.unsynced = true;
        self.writer.write(&[&header[..], payload].concat())?;
        self.length += frame.length();
        Ok(())
    }

    /// Appends a batch, behind the blocks of its contents. `position` is `None` for what was found changed on the
    /// mirror itself: it is history, and no batch of the master's.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn batch(&mut self, moment: Time, position: Option<Position>, changes: &[Change]) -> Result<(), SegmentError> {
        for part in changes.chunks(CHANGES) {
            self.append(&Message::Changes(part.to_vec()).frame()?)?;
        }
        let encode = |value: &Time| postcard::to_stdvec(value).unwrap_or_default();
        self.append(&Frame::plain(MOMENT, encode(&moment)))?;
        let count = changes.len() as u64;
        let end = match position {
            Some(position) => Message::Commit(position, count).frame()?,
            None => Frame::plain(FOUND, postcard::to_stdvec(&count).unwrap_or_default()),
        };
        Ok(self.append(&end)?)
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

    /// Closes the segment of a state directory: what stands behind its last whole batch is cut off. `None` where it
    /// has no batch.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn close(state: &Root) -> Result<Option<Closed>, SegmentError> {
        let Some(mut replay) = Replay::open_at(state, &path(), true)? else { return Ok(None) };
        let mut chain = replay.chain();
        while replay.next_batch()?.is_some() {
            chain = replay.chain();
        }
        if replay.whole == 0 {
            return Ok(None);
        }
        let writer = state.open_or_create(&path())?;
        if replay.whole < replay.length {
            writer.set_length(replay.whole)?;
        }
        writer.sync()?;
        Ok(Some(Closed { number: replay.link.map_or(0, |link| link.number), chain }))
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
    /// Its position; `None` where it tells what was found changed on the mirror itself.
    pub position: Option<Position>,
    /// When the slave wrote it, by its own clock; `None` in segments of format 1.
    pub moment: Option<Time>,
    /// What it does.
    pub changes: Vec<Change>,
    /// Where the blocks stand that came before it, for [`Replay::block`].
    pub blocks: Vec<u64>,
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
    /// For what is read out of turn.
    file: File,
    at: u64,
    /// Of the file, in bytes.
    pub length: u64,
    /// Blocks are passed over unread.
    skips: bool,
    chain: blake3::Hasher,
    /// Where the last whole batch ends.
    pub whole: u64,
    /// A frame in the middle does not match its check: what comes behind it is not replayed.
    pub is_damaged: bool,
    /// The segment's header.
    pub header: Header,
    /// Where it stands in the log; `None` in segments of a format before 3.
    pub link: Option<Link>,
}

/// The next thing in a segment.
enum Part {
    Block(u64),
    Frame(Frame),
}

impl Replay {
    /// Opens the segment in a state directory. `None` where there is none, or its header was never finished.
    ///
    /// # Errors
    /// Where the disk refuses, or a later program wrote it.
    pub fn open(state: &Root) -> Result<Option<Self>, SegmentError> {
        Self::open_at(state, &path(), false)
    }

    /// Opens a segment anywhere; blocks are left unread if `skips`.
    ///
    /// # Errors
    /// Where the disk refuses, or a later program wrote it.
    pub fn open_at(root: &Root, path: &TreePath, skips: bool) -> Result<Option<Self>, SegmentError> {
        let Some(stat) = root.stat_if_there(path)? else { return Ok(None) };
        let (input, file) = (root.open_file(path)?, root.open_file(path)?);
        let header = Header {
            version: 0,
            minimum_reader: 0,
            set: SetId::default(),
            epoch: Epoch::default(),
            after: Position::default(),
        };
        let mut replay = Self {
            input: BufReader::with_capacity(if skips { 1 << 16 } else { 1 << 20 }, input),
            file,
            at: 0,
            length: stat.size,
            skips,
            chain: blake3::Hasher::new(),
            whole: 0,
            is_damaged: false,
            header,
            link: None,
        };
        let Ok(Part::Frame(frame)) = replay.next_part() else { return Ok(None) };
        let Some(payload) = frame.payload().ok().filter(|_| frame.kind == HEADER) else { return Ok(None) };
        match postcard::take_from_bytes::<Header>(&payload) {
            Ok((header, _)) if header.minimum_reader > VERSION => Err(SegmentError::Version(header.minimum_reader)),
            Ok((header, rest)) => {
                let link = if header.version >= 3 { postcard::from_bytes(rest).ok() } else { None };
                Ok(Some(Self { header, link, ..replay }))
            }
            Err(_) => Ok(None),
        }
    }

    /// The next whole batch; `None` at the end.
    ///
    /// # Errors
    /// Where the disk refuses, or a whole frame says something that cannot be.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, SegmentError> {
        let mut batch = Batch { position: None, moment: None, changes: Vec::new(), blocks: Vec::new() };
        loop {
            let frame = match self.next_part() {
                Ok(Part::Frame(frame)) => frame,
                Ok(Part::Block(at)) => {
                    batch.blocks.push(at);
                    continue;
                }
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
            if frame.kind == MOMENT {
                batch.moment = frame.payload().ok().and_then(|payload| postcard::from_bytes(&payload).ok());
                continue;
            }
            let (position, count) = match frame.kind {
                FOUND => (None, frame.payload().ok().and_then(|payload| postcard::from_bytes(&payload).ok())),
                _ => match Message::parse(&frame)? {
                    Message::Changes(mut changes) => {
                        batch.changes.append(&mut changes);
                        continue;
                    }
                    Message::Commit(position, count) => (Some(position), Some(count)),
                    _ => return Ok(None),
                },
            };
            if count != Some(batch.changes.len() as u64) {
                return Ok(None);
            }
            batch.position = position;
            self.whole = self.at;
            return Ok(Some(batch));
        }
    }

    /// The payload of a block that [`Batch::blocks`] names.
    ///
    /// # Errors
    /// Where it is not there as it was written.
    pub fn block(&self, at: u64) -> Result<Vec<u8>, SegmentError> {
        read_block(&self.file, at).map(|(payload, _)| payload).map_err(|error| SegmentError::Message(error.into()))
    }

    /// What tells this segment, up to here, from every other: the digest of its frames' headers, which hold their checks.
    pub fn chain(&self) -> Digest {
        self.chain.finalize().into()
    }

    fn next_part(&mut self) -> Result<Part, FrameError> {
        let mut header = [0; frame::HEADER];
        if self.at == self.length {
            return Err(FrameError::Closed);
        }
        self.input.read_exact(&mut header)?;
        let (at, length) = (self.at, frame::payload_length(&header)?);
        let end = at + (frame::HEADER + length) as u64;
        let part = match header[4] {
            BLOCK if self.skips => {
                if end > self.length {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
                self.input.seek_relative(length as i64)?;
                Part::Block(at)
            }
            kind => {
                let mut payload = vec![0; length];
                self.input.read_exact(&mut payload)?;
                let frame = Frame::checked(header, payload)?;
                if kind == BLOCK { Part::Block(at) } else { Part::Frame(frame) }
            }
        };
        self.chain.update(&header);
        self.at = end;
        Ok(part)
    }
}

/// Reads the frames of a segment up to `length`, every check, and gives what [`Replay::chain`] gives there.
///
/// # Errors
/// [`FrameError`] where a frame is not whole.
pub fn chain_of(file: &File, length: u64) -> Result<Digest, FrameError> {
    let mut input = BufReader::with_capacity(1 << 20, file).take(length);
    let mut chain = blake3::Hasher::new();
    loop {
        match Frame::read(&mut input) {
            Ok(frame) => chain.update(&frame.parts().0),
            Err(FrameError::Closed) => return Ok(chain.finalize().into()),
            Err(error) => return Err(error),
        };
    }
}

/// Reads the block at this place of a segment: its payload, and where it ends.
///
/// # Errors
/// [`FrameError`] where no whole block stands there.
pub fn read_block(file: &File, at: u64) -> Result<(Vec<u8>, u64), FrameError> {
    let mut header = [0; frame::HEADER];
    file.read_exact_at(&mut header, at)?;
    let length = frame::payload_length(&header)?;
    let mut payload = vec![0; length];
    file.read_exact_at(&mut payload, at + frame::HEADER as u64)?;
    let frame = Frame::checked(header, payload)?;
    match frame.kind {
        BLOCK => Ok((frame.payload()?.into_owned(), at + (frame::HEADER + length) as u64)),
        _ => Err(FrameError::Form),
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
        std::iter::from_fn(|| replay.next_batch().expect("reads"))
            .map(|batch| batch.position.expect("a position").sequence)
            .collect()
    }

    #[test]
    fn damage_in_the_middle_is_told_from_a_torn_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = Root::open(directory.path()).expect("opens");
        let mut segment =
            Segment::create(&state, SetId::default(), Epoch::default(), Position::default(), Link::default())
                .expect("creates");
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
            Segment::create(&state, SetId::default(), Epoch::default(), Position::default(), Link::default())
                .expect("creates");
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
