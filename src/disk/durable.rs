//! What makes a change last through a power cut: syncs of directories, files and file systems.

use super::{Result, Root, step};
use crate::path::TreePath;
use rustix::fs::{self as sys, Mode, OFlags};
use rustix::io::Errno;
use std::io;

impl Root {
    /// Makes a directory's names durable.
    ///
    /// # Errors
    /// Where the disk refuses: nothing may then be acknowledged.
    pub fn sync_directory(&self, path: &TreePath) -> Result<()> {
        let sync = || -> io::Result<()> {
            let directory = self.directory(path)?;
            step()?;
            Ok(sys::fsync(&*directory)?)
        };
        sync().map_err(self.error("cannot sync the directory", path))
    }

    /// Makes a file's content durable.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn sync_file(&self, path: &TreePath) -> Result<()> {
        let file = self.open_file(path)?;
        let sync = || -> io::Result<()> {
            step()?;
            file.sync_data()
        };
        sync().map_err(self.error("cannot sync", path))
    }

    /// Makes the root's own name durable. Above it may be nobody's business who runs this: then it is left.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn sync_above(&self) -> Result<()> {
        let sync = || -> io::Result<()> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = match sys::openat(&*self.fd, "..", flags, Mode::empty()) {
                Err(Errno::ACCESS | Errno::PERM) => return Ok(()),
                opened => opened?,
            };
            step()?;
            Ok(sys::fsync(&above)?)
        };
        sync().map_err(self.error("cannot sync the directory above", &TreePath::root()))
    }

    /// Makes everything on the root's file system durable.
    ///
    /// # Errors
    /// Where the disk refuses: nothing may then be acknowledged.
    pub fn sync_file_system(&self) -> Result<()> {
        let sync = || -> io::Result<()> {
            step()?;
            Ok(sys::syncfs(&*self.fd)?)
        };
        sync().map_err(self.error("cannot sync the file system of", &TreePath::root()))
    }
}
