//! The log that is kept: closed segments, numbered in the order in which they were written.
//!
//! History is on where the state has a directory `log`; the first `backup` makes it. A segment that would be removed
//! is moved there instead. The newest one stays whatever is expired: its number tells the next one's.

use super::segment;
use crate::disk::{DiskError, Root};
use crate::path::TreePath;

/// The directory of closed segments.
pub struct History {
    root: Root,
}

type Result<T> = std::result::Result<T, DiskError>;

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

    /// Moves the segment of a state directory here; gives its number. It must be durable.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn keep(&self, state: &Root) -> Result<u64> {
        let number = self.segments()?.last().map_or(1, |last| last + 1);
        state.rename_into(&segment::path(), &self.root, &Self::path(number))?;
        self.root.sync_directory(&TreePath::root())?;
        state.sync_directory(&TreePath::root())?;
        Ok(number)
    }

    /// Removes a closed segment; points that need it have links of their own.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove(&self, number: u64) -> Result<()> {
        self.root.remove(&Self::path(number))
    }
}
