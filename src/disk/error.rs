//! What failed: which operation, on what, and why.

use rustix::io::Errno;
use std::io;

/// An operation on a file failed: which, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: {source}")]
pub struct DiskError {
    /// What was tried, as in "cannot rename".
    pub operation: &'static str,
    /// On what; escaped for showing.
    pub path: String,
    /// Why not.
    pub source: io::Error,
}

impl DiskError {
    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        let code = self.source.raw_os_error();
        code == Some(Errno::NOENT.raw_os_error()) || code == Some(Errno::NOTDIR.raw_os_error())
    }

    /// Whether the name is taken.
    pub fn already_exists(&self) -> bool {
        self.source.raw_os_error() == Some(Errno::EXIST.raw_os_error())
    }

    /// Whether it may not be done here: another's file, or a file system that is mounted to be read only.
    pub fn is_denied(&self) -> bool {
        let denied = [Errno::ACCESS, Errno::PERM, Errno::ROFS];
        denied.iter().any(|errno| self.source.raw_os_error() == Some(errno.raw_os_error()))
    }

    /// Whether the disk, or the share of it that is allowed, is full.
    pub fn is_full(&self) -> bool {
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
        full.iter().any(|errno| self.source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// Result of an operation on a file.
pub type Result<T> = std::result::Result<T, DiskError>;

pub(super) fn failed(operation: &'static str, path: String, source: io::Error) -> DiskError {
    DiskError { operation, path, source }
}
