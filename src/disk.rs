//! The only door to files: everything beneath a root, every change a step that a test can fail.
//!
//! * A [`Root`] is an open directory. Paths are resolved beneath it with `openat2` (`RESOLVE_BENEATH`,
//!   `RESOLVE_NO_SYMLINKS`), so that no name and no planted link leads outside (I5).
//! * Every call that changes a disk first passes [`step`]. With `MAILTWIN_FAULT` set, that is where the
//!   process is killed or an error is returned; otherwise it costs one atomic load.
//!
//! Layer 2. Reads and writes here are plain system calls; what they mean is decided above.

use crate::maildir::entry::{Look, Meta, Time, Xattr};
use crate::path::{Name, TreePath, escape};
use rustix::fs::{self as sys, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

mod attributes;
mod fault;
pub use attributes::read_xattrs;
use attributes::{set_fresh_owner, set_owner, set_xattrs};
pub use fault::{Step, report_steps, step};

/// Open directories that a root keeps at hand.
const MAX_OPEN_DIRECTORIES: usize = 128;

/// Longest path handed to one system call; longer ones are walked in pieces.
const CALL_MAX: usize = 4000;

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

    /// Whether the disk, or the share of it that is allowed, is full.
    pub fn is_full(&self) -> bool {
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
        full.iter().any(|errno| self.source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// Result of an operation on a file.
pub type Result<T> = std::result::Result<T, DiskError>;

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

/// An open directory, and everything beneath it.
pub struct Root {
    path: PathBuf,
    fd: Arc<OwnedFd>,
    open: Mutex<HashMap<TreePath, Arc<OwnedFd>>>,
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

impl Root {
    /// Opens a directory that a person named; symbolic links on the way to it are followed.
    ///
    /// # Errors
    /// Where it is not there, no directory, or not to be read.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = sys::open(path, flags, Mode::empty())
            .map_err(|errno| failed("cannot open the directory", shown(path), errno.into()))?;
        Ok(Self::new(path.to_owned(), fd))
    }

    /// Opens a directory beneath this one as a root of its own: the tool's state. The name is not a
    /// [`TreePath`], because the tool's own directory is none.
    ///
    /// # Errors
    /// As [`Root::open`]; a symbolic link is refused.
    pub fn open_own(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let path = self.path.join(name.as_ref());
        let fd = open_beneath(self.fd.as_fd(), name.as_ref().as_bytes(), OFlags::DIRECTORY)
            .map_err(|error| failed("cannot open the directory", shown(&path), error))?;
        Ok(Self::new(path, fd))
    }

    /// As [`Root::open_own`], making the directory (mode 0700) where it is missing.
    ///
    /// # Errors
    /// As [`Root::open_own`].
    pub fn make_own(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        let make = || -> io::Result<()> {
            step()?;
            sys::mkdirat(&*self.fd, name, Mode::RWXU)?;
            // What is acknowledged lies in it: its own name must be durable, too.
            step()?;
            Ok(sys::fsync(&open_beneath(self.fd.as_fd(), b".", OFlags::DIRECTORY)?)?)
        };
        let made = make();
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("cannot make the directory", shown(&self.path.join(name)), error))
            }
            _ => self.open_own(name),
        }
    }

    fn new(path: PathBuf, fd: OwnedFd) -> Self {
        Self { path, fd: Arc::new(fd), open: Mutex::default() }
    }

    /// Where the root is, for showing and for opening it again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something beneath, for messages.
    pub fn show(&self, path: &TreePath) -> String {
        match path.is_root() {
            true => shown(&self.path),
            false => format!("{}/{path}", shown(&self.path)),
        }
    }

    fn error<'a>(&'a self, operation: &'static str, path: &'a TreePath) -> impl FnOnce(io::Error) -> DiskError + 'a {
        move |source| DiskError { operation, path: self.show(path), source }
    }

    /// Opens a directory beneath the root; a few are kept open.
    fn directory(&self, path: &TreePath) -> io::Result<Arc<OwnedFd>> {
        if path.is_root() {
            return Ok(self.fd.clone());
        }
        let mut open = self.open.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(fd) = open.get(path) {
            return Ok(fd.clone());
        }
        let fd = Arc::new(self.walk(path)?);
        if open.len() >= MAX_OPEN_DIRECTORIES {
            open.clear();
        }
        open.insert(path.clone(), fd.clone());
        Ok(fd)
    }

    fn walk(&self, path: &TreePath) -> io::Result<OwnedFd> {
        let mut rest = path.as_bytes();
        let mut at: Option<OwnedFd> = None;
        while !rest.is_empty() {
            let end = match rest.len() <= CALL_MAX {
                true => rest.len(),
                false => rest[..CALL_MAX].iter().rposition(|&byte| byte == b'/').unwrap_or(CALL_MAX),
            };
            let from = at.as_ref().map_or(self.fd.as_fd(), |fd| fd.as_fd());
            at = Some(open_beneath(from, &rest[..end], OFlags::DIRECTORY)?);
            rest = rest.get(end + 1..).unwrap_or(&[]);
        }
        at.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Forgets open directories: after one was renamed or removed, its descriptor means another path.
    pub fn forget_open(&self) {
        self.open.lock().unwrap_or_else(|poison| poison.into_inner()).clear();
    }

    fn at(&self, path: &TreePath) -> io::Result<(Arc<OwnedFd>, Name)> {
        let (parent, name) = path.split().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.directory(&parent)?, name))
    }

    // ---- looking ----

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

    /// Extended attributes of a file or directory, sorted by name.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn xattrs(&self, path: &TreePath) -> Result<Vec<Xattr>> {
        let read = || read_xattrs(self.open_for_meta(path)?.as_fd());
        read().map_err(self.error("cannot read attributes of", path))
    }

    /// Whether the root is on a file system of this machine, where one listing call sees one instant.
    pub fn is_local(&self) -> bool {
        // ext2-4, xfs, btrfs, tmpfs, f2fs, bcachefs, overlayfs (statfs(2), linux/magic.h).
        const LOCAL: [i64; 7] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0xca45_1a4e, 0x794c_7630];
        sys::fstatfs(&*self.fd).is_ok_and(|fs| LOCAL.contains(&fs.f_type))
    }

    // ---- changing ----

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

    /// Sets owner, permissions, attributes and time, in the order in which none undoes another.
    ///
    /// Where the process may not set the owner, the rest is set and `false` returned.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_meta(&self, path: &TreePath, meta: &Meta) -> Result<bool> {
        let set = || -> io::Result<bool> {
            let fd = self.open_for_meta(path)?;
            step()?;
            let now = stat_at(fd.as_fd(), b"")?;
            let owned = set_owner(fd.as_fd(), &now, meta)?;
            sys::fchmod(&fd, mode_bits(meta.mode))?;
            set_xattrs(fd.as_fd(), &meta.xattrs)?;
            if let Some(mtime) = meta.mtime {
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
            step()?;
            let owned = set_fresh_owner(directory.as_fd(), name.as_bytes(), meta)?;
            // A changed owner takes set-id bits away, so the mode comes after it.
            if meta.mode != created {
                sys::chmodat(&*directory, name.as_bytes(), mode_bits(meta.mode), AtFlags::empty())?;
            }
            if let Some(mtime) = meta.mtime {
                let follow = AtFlags::SYMLINK_NOFOLLOW;
                sys::utimensat(&*directory, name.as_bytes(), &timestamps(mtime), follow)?;
            }
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
            step()?;
            let owned = set_fresh_owner(directory.as_fd(), name.as_bytes(), meta)?;
            if let Some(mtime) = meta.mtime {
                let follow = AtFlags::SYMLINK_NOFOLLOW;
                sys::utimensat(&*directory, name.as_bytes(), &timestamps(mtime), follow)?;
            }
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

    /// Takes a lock on the directory itself, for as long as the result lives; `None` where another process
    /// holds it.
    ///
    /// # Errors
    /// Where the directory cannot be opened.
    pub fn lock_directory(&self) -> Result<Option<OwnedFd>> {
        let lock = || -> io::Result<Option<OwnedFd>> {
            let fd = open_beneath(self.fd.as_fd(), b".", OFlags::DIRECTORY)?;
            match sys::flock(&fd, sys::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(fd)),
                Err(Errno::WOULDBLOCK) => Ok(None),
                Err(errno) => Err(errno.into()),
            }
        };
        lock().map_err(self.error("cannot lock", &TreePath::root()))
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

    /// Takes the lock `name` directly in the root, for as long as the result lives; `None` where another
    /// process holds it.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn lock(&self, name: &str) -> Result<Option<Writer>> {
        let path = TreePath::root().child(name);
        let file = self.open_or_create(&path)?;
        match sys::flock(&file.file, sys::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(failed("cannot lock", self.show(&path), errno.into())),
        }
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: String,
}

impl Writer {
    fn error(&self, operation: &'static str) -> impl FnOnce(io::Error) -> DiskError + '_ {
        move |source| DiskError { operation, path: self.path.clone(), source }
    }

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Where the disk refuses; some of them may have been written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (file, path) = (&mut self.file, &self.path);
        let mut faulty = Faulty(file);
        faulty.write_all(bytes).map_err(|source| DiskError { operation: "cannot write", path: path.clone(), source })
    }

    /// Makes the content durable.
    ///
    /// # Errors
    /// Where the disk refuses: the file must then be written anew, under a new name.
    pub fn sync(&self) -> Result<()> {
        let sync = || -> io::Result<()> {
            step()?;
            self.file.sync_data()
        };
        sync().map_err(self.error("cannot sync"))
    }

    /// Cuts or extends the file; new bytes are a hole.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_length(&self, length: u64) -> Result<()> {
        let set = || -> io::Result<()> {
            step()?;
            self.file.set_len(length)
        };
        set().map_err(self.error("cannot set the length of"))
    }

    /// Goes on `bytes` further without writing: a hole.
    ///
    /// # Errors
    /// Where the file cannot be that long.
    pub fn skip(&mut self, bytes: u64) -> Result<()> {
        use io::{Seek, SeekFrom};
        let distance = i64::try_from(bytes).unwrap_or(i64::MAX);
        let skipped = self.file.seek(SeekFrom::Current(distance)).map(drop);
        skipped.map_err(self.error("cannot write"))
    }

    /// Writes at an offset, for the catalogue's database.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        while !bytes.is_empty() {
            let allowed = step()?.allowed(bytes.len());
            let written = self.file.write_at(&bytes[..allowed], offset)?;
            offset += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A file whose writes are steps.
struct Faulty<'a>(&'a mut File);

impl Write for Faulty<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = step()?.allowed(bytes.len());
        self.0.write(&bytes[..allowed])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(operation: &'static str, path: String, source: io::Error) -> DiskError {
    DiskError { operation, path, source }
}

fn mode_bits(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode & 0o7777))
}

fn timestamps(mtime: Time) -> sys::Timestamps {
    let omit = sys::Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT };
    let mtime = sys::Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    sys::Timestamps { last_access: omit, last_modification: mtime }
}

fn open_beneath(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Reading for replication is no access (I12); only the owner and root may ask for that.
    let mut quietly = OFlags::NOATIME;
    loop {
        match sys::openat2(from, path, flags | quietly, Mode::empty(), resolve) {
            // A rename elsewhere on the way: the kernel asks to try again.
            Err(Errno::AGAIN) => {}
            Err(Errno::PERM) if !quietly.is_empty() => quietly = OFlags::empty(),
            other => return Ok(other?),
        }
    }
}

fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
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

fn list(fd: BorrowedFd<'_>, expected: usize) -> io::Result<Listing> {
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

#[cfg(test)]
mod tests;
