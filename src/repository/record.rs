//! One path of a restore point: what it is, and where its content begins.

use super::envelope::Envelope;
use crate::maildir::entry::{Meta, Xattr};
use crate::path::TreePath;

/// Where a content begins in a repository: the frame of its first block and its place in that block's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The segment, by its number in the manifest's list, from 0.
    pub segment: u32,
    /// Where the block's frame begins in the segment, in bytes.
    pub offset: u64,
    /// The piece, by its number in the block's table, from 0.
    pub piece: u32,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Files of one group are hard links of each other; 0 stands alone.
        group: u64,
        /// The first bytes of the content's BLAKE3. The whole digest stands in the block; these tell whether it is
        /// the block that was meant.
        check: [u8; 8],
        /// Where its content begins; `None` where the point has none, as for an empty file.
        place: Option<Place>,
        /// What a message is known by; `None` for other files.
        envelope: Option<Box<Envelope>>,
    },
}

/// One path of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The path.
    pub path: TreePath,
    /// What is there. `None`, in a differential only: gone since the full.
    pub state: Option<(Meta, What)>,
}

/// What a record costs beside its texts, in bytes of [`Record::weight`].
const WEIGHT: usize = 64;

impl Record {
    /// About how many bytes of memory the record takes, by which ranges are cut and hostile ones refused.
    pub fn weight(&self) -> usize {
        let state = |(meta, what): &(Meta, What)| meta.xattrs.iter().map(xattr_weight).sum::<usize>() + what.weight();
        WEIGHT + self.path.as_bytes().len() + self.state.as_ref().map_or(0, state)
    }
}

/// Bytes that an extended attribute takes in memory.
pub(super) fn xattr_weight(xattr: &Xattr) -> usize {
    WEIGHT + xattr.name.len() + xattr.value.len()
}

impl What {
    fn weight(&self) -> usize {
        match self {
            Self::Directory | Self::File { envelope: None, .. } => 0,
            Self::Symlink(target) => target.len(),
            Self::File { envelope: Some(envelope), .. } => {
                let texts = [&envelope.message_id, &envelope.from, &envelope.to, &envelope.subject];
                WEIGHT + texts.iter().map(|text| text.len()).sum::<usize>()
            }
        }
    }
}
