//! The log that is kept: closed segments, numbered in the order in which they were written.
//!
//! History is on where the state has a directory `log`; the first `backup` makes it. A segment that would be removed
//! is moved there instead. Each one names the one before it, and `end` names the last: that one is missing, or another, is
//! seen. The newest one stays whatever is expired.

use super::segment::{self, Closed, Link, Replay, SegmentError};
use crate::disk::{DiskError, Root};
use crate::id::Digest;
use crate::path::TreePath;
use crate::wire::frame::Frame;
use std::io::Read;

/// The directory of closed segments.
pub struct History {
    root: Root,
}

type Result<T> = std::result::Result<T, DiskError>;

/// Kind of the frame in `end`.
const END: u8 = 67;

/// What `end` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is none: no segment was ever closed, or by a program that did not write it.
    Unknown,
    /// It cannot be understood.
    Damaged,
    /// The segment that was closed last; after a crash there may be one more.
    At(Closed),
}

impl History {
    /// Opens the log of a slave's state. `None` where history is off.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(state: &Root) -> Result<Option<Self>> {
        match state.open_own("log") {
            Ok(root) => Ok(Some(Self { root })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Turns history on.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn begin(state: &Root) -> Result<Self> {
        Ok(Self { root: state.make_own("log")? })
    }

    /// The directory, for reading segments and for links to them.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The name of a closed segment.
    pub fn name(number: u64) -> String {
        format!("{number:016x}")
    }

    /// Where a closed segment is.
    pub fn path(number: u64) -> TreePath {
        TreePath::root().child(&Self::name(number))
    }

    /// Numbers of the closed segments, in order.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn segments(&self) -> Result<Vec<u64>> {
        let (listing, _) = self.root.list(&TreePath::root(), 64)?;
        let number = |name: &[u8]| {
            let text = std::str::from_utf8(name).ok().filter(|text| text.len() == 16)?;
            u64::from_str_radix(text, 16).ok()
        };
        let mut numbers: Vec<u64> = listing.entries.iter().filter_map(|entry| number(entry.name.as_bytes())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What was closed last.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn end(&self) -> Result<End> {
        let mut file = match self.root.open_file(&end_path()) {
            Ok(file) => file.take(4096),
            Err(error) if error.is_not_found() => return Ok(End::Unknown),
            Err(error) => return Err(error),
        };
        let mut read = || -> Option<Closed> {
            let frame = Frame::read(&mut file).ok().filter(|frame| frame.kind == END)?;
            postcard::from_bytes(&frame.payload().ok()?).ok()
        };
        Ok(read().map_or(End::Damaged, End::At))
    }

    /// Where the next segment will stand.
    ///
    /// # Errors
    /// Where the disk refuses, or a later program wrote the newest segment.
    pub fn next(&self) -> std::result::Result<Link, SegmentError> {
        let newest = self.segments()?.last().copied();
        match (self.end()?, newest) {
            (End::At(end), newest) if newest.is_none_or(|newest| newest <= end.number) => {
                Ok(Link { number: end.number + 1, before: end.chain })
            }
            (_, Some(newest)) => Ok(Link { number: newest + 1, before: self.chain(newest)? }),
            (_, None) => Ok(Link { number: 1, before: Digest::default() }),
        }
    }

    /// [`Replay::chain`] of a whole closed segment; zero where it cannot be read.
    fn chain(&self, number: u64) -> std::result::Result<Digest, SegmentError> {
        let Some(mut replay) = Replay::open_at(&self.root, &Self::path(number), true)? else {
            return Ok(Digest::default());
        };
        while replay.next_batch()?.is_some() {}
        Ok(replay.chain())
    }

    /// Moves the segment of a state directory here, which is closed and durable; gives its number.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn keep(&self, state: &Root, closed: &Closed) -> Result<u64> {
        let newest = self.segments()?.last().copied().unwrap_or(0);
        let number = if closed.number > newest { closed.number } else { newest + 1 };
        state.rename_into(&segment::path(), &self.root, &Self::path(number))?;
        self.root.sync_directory(&TreePath::root())?;
        state.sync_directory(&TreePath::root())?;
        self.set_end(&Closed { number, ..*closed })?;
        Ok(number)
    }

    fn set_end(&self, end: &Closed) -> Result<()> {
        let draft = TreePath::root().child("end.new");
        let frame = Frame::plain(END, postcard::to_stdvec(end).unwrap_or_default());
        let (header, payload) = frame.parts();
        let mut writer = self.root.open_or_create(&draft)?;
        writer.set_length(0)?;
        writer.write(&[&header[..], payload].concat())?;
        writer.sync()?;
        self.root.rename(&draft, &end_path())?;
        self.root.sync_directory(&TreePath::root())
    }

    /// Removes a closed segment; points that need it have links of their own.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove(&self, number: u64) -> Result<()> {
        self.root.remove(&Self::path(number))
    }
}

fn end_path() -> TreePath {
    TreePath::root().child("end")
}
