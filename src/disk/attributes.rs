//! Extended attributes and owners, set as far as the process may.

use super::Stat;
use crate::maildir::entry::{Meta, Xattr};
use rustix::fs::{self as sys, AtFlags};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

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

pub(super) fn set_xattrs(fd: BorrowedFd<'_>, wanted: &[Xattr]) -> io::Result<()> {
    let present = read_xattrs(fd)?;
    for xattr in present.iter().filter(|old| !wanted.iter().any(|new| new.name == old.name)) {
        sys::fremovexattr(fd, xattr.name.as_slice())?;
    }
    for xattr in wanted.iter().filter(|new| !present.contains(new)) {
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

pub(super) fn set_owner(fd: BorrowedFd<'_>, now: &Stat, meta: &Meta) -> io::Result<bool> {
    if (now.uid, now.gid) == (meta.uid, meta.gid) {
        return Ok(true);
    }
    let (uid, gid) = ids(meta);
    match sys::fchown(fd, uid, gid) {
        Err(Errno::PERM) => {
            // The group may still be one of ours, as rsync tries too.
            let _ = sys::fchown(fd, None, gid);
            Ok(false)
        }
        other => Ok(other.map(|()| true)?),
    }
}

pub(super) fn set_fresh_owner(directory: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> io::Result<bool> {
    let (own, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if (own.as_raw(), group.as_raw()) == (meta.uid, meta.gid) {
        return Ok(true);
    }
    let (uid, gid) = ids(meta);
    match sys::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::PERM) => {
            let _ = sys::chownat(directory, name, None, gid, AtFlags::SYMLINK_NOFOLLOW);
            Ok(false)
        }
        other => Ok(other.map(|()| true)?),
    }
}
