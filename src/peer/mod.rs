//! Other hosts: this host's key, how two hosts come to know each other's, and what each may ask of the other.
//!
//! Layer 3. `host_key` is the file; `code` and `exchange` are the pairing of two hosts, `listen` and `call` its two ends in
//! the network; `entry` writes down who was paired; `role` (pure) is the table of what a peer may do.

pub mod call;
pub mod code;
pub mod entry;
pub mod exchange;
pub mod host_key;
pub mod listen;
pub mod role;

use crate::disk::{DiskError, Root};
use crate::path::TreePath;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The name of a file beneath its directory, and with a suffix.
fn names(path: &Path) -> Option<(&Path, TreePath, TreePath)> {
    let name = path.file_name()?.as_bytes();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some((directory, TreePath::new(name).ok()?, TreePath::new(&[name, b".new"].concat()).ok()?))
}

/// Takes the draft of a file away again, where what comes next has failed.
fn undo<T>(root: &Root, draft: &TreePath, result: Result<T, DiskError>) -> Result<T, DiskError> {
    result.inspect_err(|_| drop(root.remove(draft)))
}
