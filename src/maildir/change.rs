//! One thing to do to a tree. A batch is a list of these, in the order in which they are done.

use super::entry::{File, Mark, Meta};
use crate::id::Digest;
use crate::path::TreePath;
use serde::{Deserialize, Serialize};

/// Where the slave finds the bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// They were shipped under this content number.
    Shipped(u64),
    /// They are in the mirror already, in another file. Checked against the digest when copied.
    Copied(TreePath),
    /// A rolling-hash delta was shipped under this number; its base is the file that the path names now.
    Delta(u64),
}

/// A change of a tree and of the catalogue that describes it.
///
/// Applying one twice does no harm: each says enough to see that it has been done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Make a directory, or give an existing one this metadata.
    MakeDirectory {
        /// Where.
        path: TreePath,
        /// Its metadata.
        meta: Meta,
    },
    /// Rename a directory with all that is in it.
    RenameDirectory {
        /// Its name so far.
        from: TreePath,
        /// Its new name, which is free.
        to: TreePath,
    },
    /// Remove a directory with all that is in it, what the set leaves out (indexes, locks) included.
    RemoveDirectory {
        /// Which.
        path: TreePath,
    },
    /// Make or replace a regular file.
    Put {
        /// Where.
        path: TreePath,
        /// Its metadata.
        meta: Meta,
        /// Its length, digest and hard-link group.
        file: File,
        /// Where the bytes are.
        source: Source,
    },
    /// Make or replace a symbolic link.
    Symlink {
        /// Where.
        path: TreePath,
        /// Its metadata.
        meta: Meta,
        /// Where it points.
        #[serde(with = "serde_bytes")]
        target: Vec<u8>,
    },
    /// Give an existing file one more name (a hard link).
    Link {
        /// The new name.
        path: TreePath,
        /// The name it has.
        existing: TreePath,
        /// The group that both belong to from now on.
        group: u64,
        /// What the existing file must look like.
        mark: Mark,
    },
    /// Give a file another name, in its directory or in another one.
    Rename {
        /// Its name so far.
        from: TreePath,
        /// Its new name.
        to: TreePath,
        /// What the file must look like.
        mark: Mark,
    },
    /// Set a file's metadata and group; its content stays.
    SetMeta {
        /// Which.
        path: TreePath,
        /// Its metadata from now on.
        meta: Meta,
        /// Its hard-link group from now on.
        group: u64,
    },
    /// Remove a file or symbolic link.
    Remove {
        /// Which.
        path: TreePath,
        /// What it must look like; something else under this name is left alone and said.
        mark: Mark,
    },
    /// It left the set by a filter: forget it, leave it where it is.
    Forget {
        /// Which.
        path: TreePath,
    },
}

impl Change {
    /// The path that the change is about: where its result is, or was.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::MakeDirectory { path, .. }
            | Self::RemoveDirectory { path }
            | Self::Put { path, .. }
            | Self::Symlink { path, .. }
            | Self::Link { path, .. }
            | Self::SetMeta { path, .. }
            | Self::Remove { path, .. }
            | Self::Forget { path } => path,
            Self::RenameDirectory { to, .. } | Self::Rename { to, .. } => to,
        }
    }

    /// The digest of the content that the change brings, if any.
    pub fn content(&self) -> Option<Digest> {
        match self {
            Self::Put { file, .. } => Some(file.digest),
            _ => None,
        }
    }
}
