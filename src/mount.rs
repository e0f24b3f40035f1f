//! `mount`: every restore point as a directory, to be read by whatever reads files.
//!
//! ```text
//!  attach     the kernel's side: /dev/fuse, mounting, unmounting
//!  binding    FUSE requests into operations, and answers out of them
//!  tree       the operations: names, attributes, directories, files
//!  views      which points there are; the few that are open
//!  nodes      inode numbers          file   contents, at any place of them
//! ```
//!
//! Layer 5. From `tree` down nothing knows of FUSE, so that all of it can be tried without a mount. Nothing is written,
//! and nothing is read before somebody looks at it: a point costs its manifest's first range when it is listed, and its
//! index when it is entered; a directory costs the ranges that have its names.

use crate::disk::DiskError;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub mod attach;
mod binding;
pub mod file;
pub mod nodes;
pub mod tree;
pub mod views;

pub use attach::{Attached, Options};

/// Threads that answer: one that opens a point, or reads the log, holds up no other.
const THREADS: usize = 4;

/// Why nothing is mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A directory that was named.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Failed(String),
    /// The conversation with the kernel.
    #[error("the kernel and mailtwin do not understand each other: {0}")]
    Session(io::Error),
}

/// A file system that is mounted, for somebody to answer what is asked of it.
pub struct Session(fuser::Session<binding::Binding>);

/// Mounts a tree, apart from the `places` in which the standby is. What is asked of it waits until [`Session::serve`] is
/// called.
///
/// # Errors
/// [`MountError`] says what is in the way.
pub fn mount(
    tree: Arc<tree::Tree>,
    places: &[&Path],
    mountpoint: &Path,
    options: &Options,
) -> Result<(Session, Attached), MountError> {
    attach::apart(places, mountpoint)?;
    let (device, attached) = attach::attach(mountpoint, options)?;
    let acl = if options.allow_other { fuser::SessionACL::All } else { fuser::SessionACL::Owner };
    let mut config = fuser::Config::default();
    config.n_threads = Some(THREADS);
    let binding = binding::Binding::new(tree, options.allow_other);
    match fuser::Session::from_fd(binding, device, acl, config) {
        Ok(session) => Ok((Session(session), attached)),
        Err(error) => {
            attached.detach()?;
            Err(MountError::Session(error))
        }
    }
}

impl Session {
    /// Answers until it is unmounted.
    ///
    /// # Errors
    /// Where the conversation with the kernel breaks off.
    pub fn serve(self) -> Result<(), MountError> {
        self.0.run().map_err(MountError::Session)
    }
}
