//! Looking, and changing nothing: what a name is, what is in a directory, which directory this is.

use super::{CALL_MAX, Result, Root, open_beneath, read_xattrs};
use crate::maildir::entry::{Look, Time, Xattr};
use crate::path::{Name, TreePath};
use rustix::fs::{self as sys, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What kind of thing a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A socket, FIFO or device.
    Special,
}

/// What `statx` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// The twelve permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
    /// Inode number.
    pub ino: u64,
    /// When it was made; zero where the file system does not say.
    pub born: Time,
    /// Device number, as one figure.
    pub device: u64,
    /// Number of names.
    pub links: u32,
    /// Blocks of 512 bytes on disk.
    pub blocks: u64,
}

impl Stat {
    /// Whether fewer blocks are on disk than the length needs.
    pub fn is_sparse(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// The observation of a directory, not yet known to be racy.
    pub fn look(&self) -> Look {
        Look { ino: self.ino, born: self.born, mtime: self.mtime, ctime: self.ctime, racy: false }
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirent {
    /// The name.
    pub name: Name,
    /// Inode number.
    pub ino: u64,
    /// What it is, where the file system says so in listings.
    pub kind: Option<FileKind>,
}

/// The names in a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of their names.
    pub entries: Vec<Dirent>,
    /// One system call saw them all. The kernel holds the directory while such a call runs, so on a local
    /// file system the names are those of one instant.
    pub at_once: bool,
}

/// How full a file system is, in percent of what may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fullness {
    /// Of its bytes.
    pub bytes: f64,
    /// Of its inodes; zero where they are not counted.
    pub inodes: f64,
}

fn percent(used: u64, free: u64) -> f64 {
    match used.saturating_add(free) {
        0 => 0.0,
        all => used as f64 * 100.0 / all as f64,
    }
}

/// This host's clock, by which file systems stamp files and the slave its batches.
pub fn now() -> Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() }
}

impl Root {
    /// Looks at a path; a symbolic link itself, not where it points.
    ///
    /// # Errors
    /// Where it is not there or not to be looked at.
    pub fn stat(&self, path: &TreePath) -> Result<Stat> {
        let quick = || -> io::Result<Stat> {
            if path.is_root() {
                return stat_at(self.fd.as_fd(), b"");
            }
            if path.as_bytes().len() < CALL_MAX {
                return stat_at(self.fd.as_fd(), path.as_bytes());
            }
            let (directory, name) = self.at(path)?;
            stat_at(directory.as_fd(), name.as_bytes())
        };
        quick().map_err(self.error("cannot look at", path))
    }

    /// As [`Root::stat`], asking the host that keeps the file where that is another one: what this host remembers of it
    /// may be old.
    ///
    /// # Errors
    /// As [`Root::stat`].
    pub fn stat_fresh(&self, path: &TreePath) -> Result<Stat> {
        let look = || -> io::Result<Stat> {
            if path.is_root() {
                return stat_how(self.fd.as_fd(), b"", AtFlags::STATX_FORCE_SYNC);
            }
            if path.as_bytes().len() < CALL_MAX {
                return stat_how(self.fd.as_fd(), path.as_bytes(), AtFlags::STATX_FORCE_SYNC);
            }
            let (directory, name) = self.at(path)?;
            stat_how(directory.as_fd(), name.as_bytes(), AtFlags::STATX_FORCE_SYNC)
        };
        look().map_err(self.error("cannot look at", path))
    }

    /// As [`Root::stat`]; `None` where nothing is there.
    ///
    /// # Errors
    /// For any other reason.
    pub fn stat_if_there(&self, path: &TreePath) -> Result<Option<Stat>> {
        match self.stat(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists a directory with a buffer for about `expected` names, and reads its attributes on the way.
    ///
    /// # Errors
    /// Where it is not there or not to be read.
    pub fn list(&self, path: &TreePath, expected: usize) -> Result<(Listing, Vec<Xattr>)> {
        let read = || -> io::Result<(Listing, Vec<Xattr>)> {
            let fd = match path.is_root() {
                true => open_beneath(self.fd.as_fd(), b".", OFlags::DIRECTORY)?,
                false => self.walk(path)?,
            };
            Ok((list(fd.as_fd(), expected)?, read_xattrs(fd.as_fd())?))
        };
        read().map_err(self.error("cannot read the directory", path))
    }

    /// Opens a regular file for reading, without following a link and without waiting on a FIFO.
    ///
    /// # Errors
    /// Where it is not there or not to be read.
    pub fn open_file(&self, path: &TreePath) -> Result<File> {
        let open = || -> io::Result<File> {
            let (directory, name) = self.at(path)?;
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let fd = open_beneath(directory.as_fd(), name.as_bytes(), flags)?;
            // Something else may have the name by now; the file that was meant is not there any more.
            match stat_at(fd.as_fd(), b"")?.kind {
                FileKind::File => Ok(fd.into()),
                _ => Err(Errno::NOENT.into()),
            }
        };
        open().map_err(self.error("cannot open", path))
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// Where it is not there or no link.
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>> {
        let read = || -> io::Result<Vec<u8>> {
            let (directory, name) = self.at(path)?;
            Ok(sys::readlinkat(&*directory, name.as_bytes(), Vec::new())?.into_bytes())
        };
        read().map_err(self.error("cannot read the link", path))
    }

    /// Whether the root is on a file system of this machine, where one listing call sees one instant.
    pub fn is_local(&self) -> bool {
        // ext2-4, xfs, btrfs, tmpfs, f2fs, bcachefs, overlayfs (statfs(2), linux/magic.h).
        const LOCAL: [i64; 7] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0xca45_1a4e, 0x794c_7630];
        sys::fstatfs(&*self.fd).is_ok_and(|fs| LOCAL.contains(&fs.f_type))
    }

    /// Whether other hosts may change what is in a directory without this one being told: a network or cluster file
    /// system, or one whose program might be (FUSE).
    ///
    /// # Errors
    /// Where it is not there.
    pub fn is_shared(&self, path: &TreePath) -> Result<bool> {
        // NFS, CIFS, SMB2, SMB, FUSE (GlusterFS, sshfs), 9p, Ceph, OCFS2, GFS2, Lustre, AFS, Coda, BeeGFS, GPFS, virtiofs'
        // own number is FUSE's (statfs(2), linux/magic.h).
        const SHARED: [u32; 14] = [
            0x6969,
            0xff53_4d42,
            0xfe53_4d42,
            0x517b,
            0x6573_5546,
            0x0102_1997,
            0x00c3_6400,
            0x7461_636f,
            0x0116_1970,
            0x0bd0_0bd0,
            0x5346_414f,
            0x7375_7245,
            0x1983_0326,
            0x4750_4653,
        ];
        let look = || -> io::Result<bool> {
            let kind = match path.is_root() {
                true => sys::fstatfs(&*self.fd)?,
                false => sys::fstatfs(self.walk(path)?)?,
            };
            // The field is wider than the number and its sign is of no meaning.
            Ok(SHARED.contains(&(kind.f_type as u32)))
        };
        look().map_err(self.error("cannot look at", path))
    }

    /// Bytes that may still be written to the file system.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn room(&self) -> Result<u64> {
        let look = || -> io::Result<u64> {
            let stat = sys::fstatvfs(&*self.fd)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        };
        look().map_err(self.error("cannot look at", &TreePath::root()))
    }

    /// How full the file system is.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn fullness(&self) -> Result<Fullness> {
        let look = || -> io::Result<Fullness> {
            let stat = sys::fstatvfs(&*self.fd)?;
            // What is free for root alone is neither used nor free, as df(1) counts.
            let bytes = percent(stat.f_blocks.saturating_sub(stat.f_bfree), stat.f_bavail);
            Ok(Fullness { bytes, inodes: percent(stat.f_files.saturating_sub(stat.f_ffree), stat.f_favail) })
        };
        look().map_err(self.error("cannot look at", &TreePath::root()))
    }

    /// Whether the path of this directory still leads to it.
    pub fn is_in_place(&self) -> bool {
        let (there, own) = (Root::open(&self.path), stat_at(self.fd.as_fd(), b""));
        let there = there.and_then(|there| there.stat(&TreePath::root()));
        matches!((there, own), (Ok(there), Ok(own)) if (there.ino, there.device) == (own.ino, own.device))
    }

    /// Tells this directory from another that is, or was, in its place: made of inode number and time of birth.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn identity(&self) -> Result<u64> {
        let look = || -> io::Result<u64> {
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            let x = sys::statx(&*self.fd, "", flags, sys::StatxFlags::BASIC_STATS | sys::StatxFlags::BTIME)?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&x.stx_ino.to_le_bytes());
            if x.stx_mask & sys::StatxFlags::BTIME.bits() != 0 {
                hasher.update(&x.stx_btime.tv_sec.to_le_bytes()).update(&x.stx_btime.tv_nsec.to_le_bytes());
            }
            let hash = hasher.finalize();
            let mut first = [0; 8];
            first.copy_from_slice(&hash.as_bytes()[..8]);
            Ok(u64::from_le_bytes(first).max(1))
        };
        look().map_err(self.error("cannot look at", &TreePath::root()))
    }

    /// The device and inode numbers of this directory and of all above it.
    ///
    /// # Errors
    /// Where they cannot be looked at.
    pub fn ancestry(&self) -> Result<Vec<(u64, u64)>> {
        let climb = || -> io::Result<Vec<(u64, u64)>> {
            let mut at = open_beneath(self.fd.as_fd(), b".", OFlags::DIRECTORY)?;
            let mut places: Vec<(u64, u64)> = Vec::new();
            loop {
                let stat = stat_at(at.as_fd(), b"")?;
                if places.last() == Some(&(stat.device, stat.ino)) {
                    return Ok(places);
                }
                places.push((stat.device, stat.ino));
                at = sys::openat(&at, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            }
        };
        climb().map_err(self.error("cannot look above", &TreePath::root()))
    }
}

/// Looks at many names in one walk, in the order of the walk: where the directories of a mailbox follow each other the
/// kernel finds them from the mailbox, and not from the root each time.
pub struct Near<'r> {
    root: &'r Root,
    /// The directory beneath which the last one lay, and a descriptor of it from the second one on.
    above: Option<(Vec<u8>, Option<OwnedFd>)>,
    last: Vec<u8>,
    name: Vec<u8>,
}

impl<'r> Near<'r> {
    /// For a walk that takes a moment: what is renamed meanwhile is seen where it was.
    pub fn new(root: &'r Root) -> Self {
        Self { above: Some((Vec::new(), None)), ..Self::none(root) }
    }

    /// Every look goes by the whole path.
    pub fn none(root: &'r Root) -> Self {
        Self { root, above: None, last: Vec::new(), name: Vec::new() }
    }

    /// As [`Root::stat`], of a name in a directory; of the directory itself where the name is empty.
    ///
    /// # Errors
    /// Where it is not there or not to be looked at.
    pub fn stat(&mut self, directory: &TreePath, name: &[u8]) -> io::Result<Stat> {
        let path = directory.as_bytes();
        if path.len() + name.len() + 1 >= CALL_MAX {
            return stat_at(self.root.walk(directory)?.as_fd(), name);
        }
        let split = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        if self.above.is_some() && self.last != path {
            self.come_near(&path[..split]);
            self.last = path.to_vec();
        }
        let (from, below) = match &self.above {
            Some((_, Some(fd))) => (fd.as_fd(), &path[split..]),
            _ => (self.root.fd.as_fd(), path),
        };
        self.name.clear();
        self.name.extend_from_slice(below);
        if !below.is_empty() && !name.is_empty() {
            self.name.push(b'/');
        }
        self.name.extend_from_slice(name);
        stat_at(from, &self.name)
    }

    fn come_near(&mut self, above: &[u8]) {
        match &mut self.above {
            Some((before, fd)) if before == above => {
                // Where it cannot be opened, or is a link, the whole path tells.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let (None, Some(path)) = (&fd, above.strip_suffix(b"/")) {
                    *fd = sys::openat(&*self.root.fd, path, flags, Mode::empty()).ok();
                }
            }
            other => *other = Some((above.to_vec(), None)),
        }
    }
}

pub(super) fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    stat_how(directory, name, AtFlags::STATX_DONT_SYNC)
}

fn stat_how(directory: BorrowedFd<'_>, name: &[u8], how: AtFlags) -> io::Result<Stat> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | how;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    let x = sys::statx(directory, name, flags, sys::StatxFlags::BASIC_STATS | sys::StatxFlags::BTIME)?;
    let time = |stamp: sys::StatxTimestamp| Time { seconds: stamp.tv_sec, nanos: stamp.tv_nsec };
    Ok(Stat {
        kind: kind_of(sys::FileType::from_raw_mode(u32::from(x.stx_mode))),
        mode: x.stx_mode & 0o7777,
        uid: x.stx_uid,
        gid: x.stx_gid,
        size: x.stx_size,
        mtime: time(x.stx_mtime),
        ctime: time(x.stx_ctime),
        ino: x.stx_ino,
        born: time(x.stx_btime),
        device: u64::from(x.stx_dev_major) << 32 | u64::from(x.stx_dev_minor),
        links: x.stx_nlink,
        blocks: x.stx_blocks,
    })
}

fn kind_of(kind: sys::FileType) -> FileKind {
    match kind {
        sys::FileType::Directory => FileKind::Directory,
        sys::FileType::RegularFile => FileKind::File,
        sys::FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Special,
    }
}

/// Looks at an open file.
///
/// # Errors
/// Where the kernel refuses.
pub fn stat_file(file: &File) -> io::Result<Stat> {
    stat_at(file.as_fd(), b"")
}

pub(super) fn list(fd: BorrowedFd<'_>, expected: usize) -> io::Result<Listing> {
    // A record takes 24 bytes and the name; Dovecot's names have 50 to 90 bytes.
    let capacity = expected.saturating_mul(160).clamp(32 << 10, 64 << 20);
    let mut buffer: Vec<u8> = Vec::with_capacity(capacity);
    let mut entries = Vec::with_capacity(expected);
    let mut calls = 0;
    let mut directory = sys::RawDir::new(fd, buffer.spare_capacity_mut());
    loop {
        if directory.is_buffer_empty() {
            calls += 1;
        }
        let Some(entry) = directory.next() else { break };
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            sys::FileType::Unknown => None,
            known => Some(kind_of(known)),
        };
        let name = Name::new(name).map_err(io::Error::other)?;
        entries.push(Dirent { name, ino: entry.ino(), kind });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    // The last call is the one that says there is no more.
    Ok(Listing { entries, at_once: calls <= 2 })
}
