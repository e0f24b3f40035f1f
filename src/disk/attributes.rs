//! Owners, permissions, times and extended attributes: read, and set as far as the process may.

use super::look::stat_at;
use super::{Result, Root, Stat, open_beneath, step};
use crate::maildir::entry::{Meta, Time, Xattr};
use crate::path::TreePath;
use rustix::fs::{self as sys, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Root {
    /// Extended attributes of a file or directory, sorted by name.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn xattrs(&self, path: &TreePath) -> Result<Vec<Xattr>> {
        let read = || read_xattrs(self.open_for_meta(path)?.as_fd());
        read().map_err(self.error("cannot read attributes of", path))
    }

    /// Sets owner, permissions, attributes and time, in the order in which none undoes another.
    ///
    /// Where the process may not set the owner, the rest is set and `false` returned.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_meta(&self, path: &TreePath, meta: &Meta) -> Result<bool> {
        let set = || -> io::Result<bool> {
            let fd = self.open_for_meta(path)?;
            let now = stat_at(fd.as_fd(), b"")?;
            let owned = set_owner(fd.as_fd(), &now, meta)?;
            step()?;
            sys::fchmod(&fd, mode_bits(meta.mode))?;
            set_xattrs(fd.as_fd(), &meta.xattrs)?;
            if let Some(mtime) = meta.mtime {
                step()?;
                sys::futimens(&fd, &timestamps(mtime))?;
            }
            Ok(owned)
        };
        set().map_err(self.error("cannot set the metadata of", path))
    }

    /// As [`Root::set_meta`] for a file that this process has just created itself, beneath a directory
    /// that no one else can write: by name, with as few calls as can be.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_fresh_meta(&self, path: &TreePath, meta: &Meta, created: u16) -> Result<bool> {
        let set = || -> io::Result<bool> {
            let (directory, name) = self.at(path)?;
            if !meta.xattrs.is_empty() {
                return self.set_meta(path, meta).map_err(|error| error.source);
            }
            let owned = set_fresh_owner(directory.as_fd(), name.as_bytes(), meta)?;
            // A changed owner takes set-id bits away, so the mode comes after it.
            if meta.mode != created {
                step()?;
                sys::chmodat(&*directory, name.as_bytes(), mode_bits(meta.mode), AtFlags::empty())?;
            }
            set_time(directory.as_fd(), name.as_bytes(), meta.mtime)?;
            Ok(owned)
        };
        set().map_err(self.error("cannot set the metadata of", path))
    }

    /// Sets owner and time of a symbolic link; its permissions mean nothing on Linux.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_link_meta(&self, path: &TreePath, meta: &Meta) -> Result<bool> {
        let set = || -> io::Result<bool> {
            let (directory, name) = self.at(path)?;
            let owned = set_fresh_owner(directory.as_fd(), name.as_bytes(), meta)?;
            set_time(directory.as_fd(), name.as_bytes(), meta.mtime)?;
            Ok(owned)
        };
        set().map_err(self.error("cannot set the metadata of", path))
    }

    /// Lets the owner of a directory that has this mode read, write and enter it.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn allow_owner(&self, path: &TreePath, mode: u16) -> Result<()> {
        let allow = || -> io::Result<()> {
            step()?;
            let mode = mode_bits(mode | 0o700);
            match path.split() {
                Some((parent, name)) => {
                    let directory = self.directory(&parent)?;
                    Ok(sys::chmodat(&*directory, name.as_bytes(), mode, AtFlags::empty())?)
                }
                None => Ok(sys::fchmod(&*self.fd, mode)?),
            }
        };
        allow().map_err(self.error("cannot set the permissions of", path))
    }

    /// Sets a directory's modification time to `mtime`, or to now.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_directory_time(&self, path: &TreePath, mtime: Option<Time>) -> Result<()> {
        let set = || -> io::Result<()> {
            let directory = self.directory(path)?;
            step()?;
            let now = sys::Timespec { tv_sec: 0, tv_nsec: sys::UTIME_NOW };
            let times = mtime.map_or(sys::Timestamps { last_access: now, last_modification: now }, timestamps);
            Ok(sys::futimens(&*directory, &times)?)
        };
        set().map_err(self.error("cannot set the time of", path))
    }

    /// Opens what is to get new metadata: by reading, or where that is not allowed by its path alone.
    fn open_for_meta(&self, path: &TreePath) -> io::Result<OwnedFd> {
        if path.is_root() {
            return open_beneath(self.fd.as_fd(), b".", OFlags::DIRECTORY);
        }
        let (directory, name) = self.at(path)?;
        open_beneath(directory.as_fd(), name.as_bytes(), OFlags::NOFOLLOW | OFlags::NONBLOCK)
    }
}

/// The namespaces that travel: all for root but what the kernel computes; the user's own and ACLs otherwise.
fn travels(name: &[u8]) -> bool {
    let acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
    let privileged = name.starts_with(b"security.") || name.starts_with(b"trusted.");
    acl || name.starts_with(b"user.") || privileged && rustix::process::geteuid().is_root()
}

/// Extended attributes of an open file, sorted by name. A file system without any has none.
///
/// # Errors
/// Where they cannot be read.
pub fn read_xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let mut names = [MaybeUninit::uninit(); 1024];
    let listed: Vec<u8> = match sys::flistxattr(fd, &mut names) {
        Ok(([], _)) => return Ok(Vec::new()),
        Ok((names, _)) => names.to_vec(),
        Err(Errno::OPNOTSUPP | Errno::BADF) => return Ok(Vec::new()),
        Err(Errno::RANGE) => all_xattr_names(fd)?,
        Err(errno) => return Err(errno.into()),
    };
    let mut xattrs = Vec::new();
    for name in listed.split(|&byte| byte == 0).filter(|name| travels(name)) {
        let mut value = Vec::with_capacity(65_536);
        match sys::fgetxattr(fd, name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => xattrs.push(Xattr { name: name.to_vec(), value: value.as_slice().to_vec() }),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

fn all_xattr_names(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut names = Vec::with_capacity(65_536);
    sys::flistxattr(fd, rustix::buffer::spare_capacity(&mut names))?;
    Ok(names)
}

fn set_xattrs(fd: BorrowedFd<'_>, wanted: &[Xattr]) -> io::Result<()> {
    let present = read_xattrs(fd)?;
    for xattr in present.iter().filter(|old| !wanted.iter().any(|new| new.name == old.name)) {
        step()?;
        sys::fremovexattr(fd, xattr.name.as_slice())?;
    }
    for xattr in wanted.iter().filter(|new| !present.contains(new)) {
        step()?;
        match sys::fsetxattr(fd, xattr.name.as_slice(), &xattr.value, sys::XattrFlags::empty()) {
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {}
            other => other?,
        }
    }
    Ok(())
}

fn ids(meta: &Meta) -> (Option<sys::Uid>, Option<sys::Gid>) {
    (Some(sys::Uid::from_raw(meta.uid)), Some(sys::Gid::from_raw(meta.gid)))
}

fn set_owner(fd: BorrowedFd<'_>, now: &Stat, meta: &Meta) -> io::Result<bool> {
    if (now.uid, now.gid) == (meta.uid, meta.gid) {
        return Ok(true);
    }
    let (uid, gid) = ids(meta);
    step()?;
    match sys::fchown(fd, uid, gid) {
        Err(Errno::PERM) => {
            // The group may still be one of ours, as rsync tries too.
            let _ = sys::fchown(fd, None, gid);
            Ok(false)
        }
        other => Ok(other.map(|()| true)?),
    }
}

fn set_time(directory: BorrowedFd<'_>, name: &[u8], mtime: Option<Time>) -> io::Result<()> {
    let Some(mtime) = mtime else { return Ok(()) };
    step()?;
    Ok(sys::utimensat(directory, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_fresh_owner(directory: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> io::Result<bool> {
    let (own, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if (own.as_raw(), group.as_raw()) == (meta.uid, meta.gid) {
        return Ok(true);
    }
    let (uid, gid) = ids(meta);
    step()?;
    match sys::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::PERM) => {
            let _ = sys::chownat(directory, name, None, gid, AtFlags::SYMLINK_NOFOLLOW);
            Ok(false)
        }
        other => Ok(other.map(|()| true)?),
    }
}

pub(super) fn mode_bits(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode & 0o7777))
}

fn timestamps(mtime: Time) -> sys::Timestamps {
    let omit = sys::Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT };
    let mtime = sys::Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    sys::Timestamps { last_access: omit, last_modification: mtime }
}
