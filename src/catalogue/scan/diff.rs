//! What differs between a unit's record and what was seen: values, for whoever decides what to do.

use crate::disk::{DiskError, Stat};
use crate::maildir::entry::{Known, Local, Look, Meta};
use crate::path::TreePath;

/// A file that was seen and has to be read, or known in some other way.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub path: TreePath,
    /// As it was seen.
    pub stat: Stat,
    /// Metadata as it is to be on the slave; attributes are read with the content unless they are here.
    pub meta: Meta,
    /// What is recorded under this name, where something is.
    pub known: Option<Known>,
    /// The content, where it had to be read together with a listing.
    pub captured: Option<Vec<u8>>,
    /// A symbolic link's target.
    pub target: Option<Vec<u8>>,
    /// The content number under which it is shipped; 0 before there is one.
    pub number: u64,
}

/// A file under a new name: what it was called, what is recorded of it, what it is called.
pub type Renamed = (TreePath, Known, TreePath);

/// What differs between a unit's record and what was seen.
#[derive(Debug, Default)]
pub struct Diff {
    /// The unit.
    pub path: TreePath,
    /// Directories to make, or with new metadata, in the order in which they must be made.
    pub directories: Vec<(TreePath, Meta)>,
    /// Of those, the ones that are new.
    pub new_directories: usize,
    /// Control files and other files that appeared or changed.
    pub files: Vec<Found>,
    /// Messages that appeared or changed.
    pub messages: Vec<Found>,
    /// Files whose name changed within the unit: what it was called, what is recorded, what it is called.
    pub renamed: Vec<Renamed>,
    /// Names that are no longer there.
    pub vanished: Vec<(TreePath, Known)>,
    /// Names that the filters now leave out.
    pub forgotten: Vec<TreePath>,
    /// Only the metadata changed.
    pub metadata: Vec<(TreePath, Meta, u64)>,
    /// Observations of files that did not change.
    pub learned: Vec<(TreePath, Local)>,
    /// Observations of the unit's directories.
    pub looks: Vec<(TreePath, Look)>,
    /// Directories in the unit that are scanned on their own, in order.
    pub subdirectories: Vec<TreePath>,
    /// Directories listed.
    pub listed: u64,
    /// Sockets, FIFOs and devices left out.
    pub special: Vec<TreePath>,
    /// Files that could not be looked at, and directories that could not be read.
    pub failed: Vec<DiskError>,
    /// Control files that changed while they were read.
    pub torn: Vec<TreePath>,
    /// A uidlist is not whole: its writer is in the middle of it, unless it stays so.
    pub odd: bool,
    /// The listing may not be whole: what seems to have vanished proves nothing.
    pub uncertain: bool,
}

impl Diff {
    /// Whether there is nothing to do, apart from noting what was observed.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
            && self.files.is_empty()
            && self.messages.is_empty()
            && self.renamed.is_empty()
            && self.vanished.is_empty()
            && self.forgotten.is_empty()
            && self.metadata.is_empty()
    }

    /// The directories alone. Messages go with their control files or not at all (I2), so where one of these cannot
    /// be had the folder waits; what lies beneath it need not.
    pub fn left_for_later(self) -> Self {
        let Self { path, directories, new_directories, subdirectories, listed, special, failed, torn, .. } = self;
        Self { path, directories, new_directories, subdirectories, listed, special, failed, torn, ..Self::default() }
    }
}
