//! Making, renaming, linking and removing: every call of it passes [`step`] first.

use super::attributes::mode_bits;
use super::look::{list, stat_at};
use super::{FileKind, Result, Root, Writer, open_beneath, step};
use crate::path::TreePath;
use rustix::fs::{self as sys, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

impl Root {
    /// Makes a directory, readable by the owner only until its metadata is set; one that exists is fine.
    ///
    /// # Errors
    /// Where the name is taken by something else, or the disk refuses.
    pub fn make_directory(&self, path: &TreePath) -> Result<bool> {
        let make = || -> io::Result<bool> {
            let (directory, name) = self.at(path)?;
            step()?;
            match sys::mkdirat(&*directory, name.as_bytes(), Mode::RWXU) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => match stat_at(directory.as_fd(), name.as_bytes())?.kind {
                    FileKind::Directory => Ok(false),
                    _ => Err(Errno::EXIST.into()),
                },
                Err(errno) => Err(errno.into()),
            }
        };
        make().map_err(self.error("cannot make the directory", path))
    }

    /// Creates a file for writing; fails where the name is taken.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn create(&self, path: &TreePath, mode: u16) -> Result<Writer> {
        let create = || -> io::Result<File> {
            let (directory, name) = self.at(path)?;
            step()?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = sys::openat(&*directory, name.as_bytes(), flags, mode_bits(mode))?;
            Ok(fd.into())
        };
        let file = create().map_err(self.error("cannot create", path))?;
        Ok(Writer { file, path: self.show(path) })
    }

    /// Opens a file for reading and writing, creating it where it is missing.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open_or_create(&self, path: &TreePath) -> Result<Writer> {
        let open = || -> io::Result<File> {
            let (directory, name) = self.at(path)?;
            step()?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(sys::openat(&*directory, name.as_bytes(), flags, mode_bits(0o600))?.into())
        };
        let file = open().map_err(self.error("cannot open", path))?;
        Ok(Writer { file, path: self.show(path) })
    }

    /// Renames within the root; what has the new name is replaced.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn rename(&self, from: &TreePath, to: &TreePath) -> Result<()> {
        self.rename_into(from, self, to)
    }

    /// Renames into another root on the same file system.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn rename_into(&self, from: &TreePath, root: &Root, to: &TreePath) -> Result<()> {
        let rename = || -> io::Result<()> {
            let (old, new) = (self.at(from)?, root.at(to)?);
            step()?;
            Ok(sys::renameat(&*old.0, old.1.as_bytes(), &*new.0, new.1.as_bytes())?)
        };
        rename().map_err(root.error("cannot rename to", to))
    }

    /// Renames a directory to a free name.
    ///
    /// # Errors
    /// Where the name is taken or the disk refuses.
    pub fn rename_directory(&self, from: &TreePath, to: &TreePath) -> Result<()> {
        let rename = || -> io::Result<()> {
            let (old, new) = (self.at(from)?, self.at(to)?);
            step()?;
            let flags = sys::RenameFlags::NOREPLACE;
            Ok(sys::renameat_with(&*old.0, old.1.as_bytes(), &*new.0, new.1.as_bytes(), flags)?)
        };
        let renamed = rename().map_err(self.error("cannot rename to", to));
        self.forget_open();
        renamed
    }

    /// Renames a file to a free name. Where the file system cannot tell by itself whether it is free, it is looked at
    /// just before.
    ///
    /// # Errors
    /// Where the name is taken or the disk refuses.
    pub fn rename_to_free(&self, from: &TreePath, to: &TreePath) -> Result<()> {
        let rename = || -> io::Result<()> {
            let (old, new) = (self.at(from)?, self.at(to)?);
            step()?;
            let flags = sys::RenameFlags::NOREPLACE;
            match sys::renameat_with(&*old.0, old.1.as_bytes(), &*new.0, new.1.as_bytes(), flags) {
                Err(Errno::INVAL) => match stat_at(new.0.as_fd(), new.1.as_bytes()) {
                    Ok(_) => Err(Errno::EXIST.into()),
                    Err(_) => Ok(sys::renameat(&*old.0, old.1.as_bytes(), &*new.0, new.1.as_bytes())?),
                },
                other => Ok(other?),
            }
        };
        rename().map_err(self.error("cannot rename to", to))
    }

    /// Gives a file one more name; fails where the name is taken.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn link(&self, existing: &TreePath, path: &TreePath) -> Result<()> {
        self.link_into(existing, self, path)
    }

    /// Gives a file one more name in another root on the same file system; fails where the name is taken.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn link_into(&self, existing: &TreePath, root: &Root, path: &TreePath) -> Result<()> {
        let link = || -> io::Result<()> {
            let (old, new) = (self.at(existing)?, root.at(path)?);
            step()?;
            let none = AtFlags::empty();
            Ok(sys::linkat(&*old.0, old.1.as_bytes(), &*new.0, new.1.as_bytes(), none)?)
        };
        link().map_err(root.error("cannot link", path))
    }

    /// Makes a symbolic link; fails where the name is taken.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn symlink(&self, target: &[u8], path: &TreePath) -> Result<()> {
        let link = || -> io::Result<()> {
            let (directory, name) = self.at(path)?;
            step()?;
            Ok(sys::symlinkat(target, &*directory, name.as_bytes())?)
        };
        link().map_err(self.error("cannot make the symbolic link", path))
    }

    /// Removes a file or symbolic link.
    ///
    /// # Errors
    /// Where it is not there or the disk refuses.
    pub fn remove(&self, path: &TreePath) -> Result<()> {
        let remove = || -> io::Result<()> {
            let (directory, name) = self.at(path)?;
            step()?;
            Ok(sys::unlinkat(&*directory, name.as_bytes(), AtFlags::empty())?)
        };
        remove().map_err(self.error("cannot remove", path))
    }

    /// Removes a directory with everything in it, links in it included but never followed.
    ///
    /// # Errors
    /// Where the disk refuses. What is not there is fine.
    pub fn remove_directory(&self, path: &TreePath) -> Result<()> {
        let remove = || -> io::Result<()> {
            let (directory, name) = self.at(path)?;
            remove_tree(directory.as_fd(), name.as_bytes())
        };
        let removed = match remove() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(self.error("cannot remove the directory", path)),
        };
        self.forget_open();
        removed
    }

    /// Removes every file directly in the root: leftovers of an interrupted run.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove_files(&self) -> Result<()> {
        let (listing, _) = self.list(&TreePath::root(), 256)?;
        for entry in listing.entries {
            self.remove(&TreePath::root().join(&entry.name))?;
        }
        Ok(())
    }
}

fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let fd = open_beneath(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
    for entry in list(fd.as_fd(), 1024)?.entries {
        let kind = match entry.kind {
            Some(kind) => kind,
            None => stat_at(fd.as_fd(), entry.name.as_bytes())?.kind,
        };
        if kind == FileKind::Directory {
            remove_tree(fd.as_fd(), entry.name.as_bytes())?;
        } else {
            step()?;
            sys::unlinkat(&fd, entry.name.as_bytes(), AtFlags::empty())?;
        }
    }
    step()?;
    Ok(sys::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}
