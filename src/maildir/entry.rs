//! What is recorded of one file, directory or symbolic link.
//!
//! Two parts: the [`Entry`] is what both ends agree on and what the digests cover; the [`Local`] part
//! is one host's own observation and never travels.

use crate::id::Digest;
use crate::path::Name;
use serde::{Deserialize, Serialize};

/// A point in time as file systems keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl Time {
    /// Whether the value is one that `utimensat` takes.
    pub fn is_valid(&self) -> bool {
        self.nanos < 1_000_000_000
    }

    /// Nanoseconds from `self` to `later`; negative where `later` is earlier.
    pub fn until(&self, later: Time) -> i128 {
        let seconds = i128::from(later.seconds) - i128::from(self.seconds);
        seconds * 1_000_000_000 + i128::from(later.nanos) - i128::from(self.nanos)
    }
}

/// An extended attribute; POSIX ACLs are `system.posix_acl_access` and `_default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    /// Name with its namespace.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Value as the kernel gives it.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// Permissions, owners, time and attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Meta {
    /// The twelve permission bits.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time. `None` for `cur/` and `new/`: Dovecot trusts its index while these times equal
    /// the index's record, so they must differ from the master's (DOVECOT.md 5c).
    pub mtime: Option<Time>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// Content and hard-link group of a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct File {
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// Files of one group are hard links of each other; 0 stands alone.
    pub group: u64,
}

/// What kind of thing an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory; its own record holds its metadata.
    Directory,
    /// A regular file.
    File(File),
    /// A symbolic link and where it points, never followed.
    Symlink(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// One name in a directory, as both ends agree on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its metadata; default for directories.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// The file part, where this is a regular file.
    pub fn file(&self) -> Option<&File> {
        match &self.kind {
            Kind::File(file) => Some(file),
            _ => None,
        }
    }

    /// Size and time, by which a file is known again without reading it, as rsync does.
    pub fn mark(&self) -> Mark {
        Mark { size: self.file().map_or(0, |file| file.size), mtime: self.meta.mtime.unwrap_or_default() }
    }
}

/// Size and modification time: what is looked at again just before something is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Mark {
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
}

/// One host's own observation of an entry. All zero where it has never been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Local {
    /// Inode number; 0 where unknown.
    pub ino: u64,
    /// Change time when it was read; zero for messages, which are immutable.
    pub ctime: Time,
    /// It was changed so shortly before it was read that a later change may not show.
    pub racy: bool,
}

/// One host's own observation of a directory, made before it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Look {
    /// Inode number.
    pub ino: u64,
    /// When it was made, where the file system says so: inode numbers are used again.
    pub born: Time,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
    /// It was changed so shortly before the listing that a later change may not show.
    pub racy: bool,
}

/// An entry and this host's observation of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What both ends agree on.
    pub entry: Entry,
    /// What this host saw.
    pub local: Local,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_differences_have_a_sign() {
        let (a, b) = (Time { seconds: 1, nanos: 999_999_999 }, Time { seconds: 2, nanos: 1 });
        assert_eq!(a.until(b), 2);
        assert_eq!(b.until(a), -2);
    }
}
