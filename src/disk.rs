//! The only door to files: everything beneath a root, every change a step that a test can fail.
//!
//! * A [`Root`] is an open directory. Paths are resolved beneath it with `openat2` (`RESOLVE_BENEATH`,
//!   `RESOLVE_NO_SYMLINKS`), so that no name and no planted link leads outside (I5).
//! * Every call that changes a disk first passes [`step`]. With `MAILTWIN_FAULT` set, that is where the
//!   process is killed or an error is returned; otherwise it costs one atomic load.
//!
//! What can be done beneath a root has a room for each kind: `look`, `change`, `attributes`, `durable`, `events`. A file
//! that is being written is a [`Writer`].
//!
//! Layer 2. Reads and writes here are plain system calls; what they mean is decided above.

use crate::path::{Name, TreePath, escape};
use error::failed;
use rustix::fs::{self as sys, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

mod attributes;
mod change;
mod durable;
mod error;
mod events;
mod fault;
mod look;
mod writer;

pub use attributes::read_xattrs;
pub use error::{DiskError, Result};
pub use events::{Event, Events, Tells, WatchId, is_exhausted};
pub use fault::{Step, report_steps, step};
pub use look::{Dirent, FileKind, Fullness, Listing, Near, Stat, now, stat_file};
pub use writer::Writer;

/// Open directories that a root keeps at hand.
const MAX_OPEN_DIRECTORIES: usize = 128;

/// Longest path handed to one system call; longer ones are walked in pieces.
const CALL_MAX: usize = 4000;

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

    /// As [`Root::open`], making the directory (mode 0700) where only its last name is missing.
    ///
    /// # Errors
    /// As [`Root::open`], or where it cannot be made.
    pub fn open_or_make(path: &Path) -> Result<Self> {
        match (Self::open(path), path.file_name()) {
            (Err(error), Some(name)) if error.is_not_found() => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                Self::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.make_own(name))?;
                Self::open(path)
            }
            (opened, _) => opened,
        }
    }

    /// Opens the directory itself, or the nearest one above it that is there.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn open_above(path: &Path) -> Result<Self> {
        let mut at = path;
        loop {
            match (Self::open(at), at.parent()) {
                (Err(error), Some(above)) if error.is_not_found() => {
                    at = if above.as_os_str().is_empty() { Path::new(".") } else { above };
                }
                (opened, _) => return opened,
            }
        }
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

    /// The same directory once more, for whoever needs it as long as they live.
    pub fn again(&self) -> Self {
        Self { path: self.path.clone(), fd: self.fd.clone(), open: Mutex::default() }
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

    /// Takes the lock `name` directly in the root, for as long as the result lives; `None` where another
    /// process holds it.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn lock(&self, name: &str) -> Result<Option<Writer>> {
        let path = TreePath::root().child(name);
        let file = self.open_or_create(&path)?;
        Ok(self.lock_file(&file)?.then_some(file))
    }

    fn lock_file(&self, file: &Writer) -> Result<bool> {
        match sys::flock(file.file(), sys::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(failed("cannot lock", file.path().to_owned(), errno.into())),
        }
    }

    /// Opens a draft: a private file of this user that no other process writes to, emptied of what a run that was
    /// killed left in it. `None` where another process holds it.
    ///
    /// # Errors
    /// Where something else has its name, or the disk refuses.
    pub fn draft(&self, path: &TreePath) -> Result<Option<Writer>> {
        let (file, is_fresh) = match self.create(path, 0o600) {
            Err(error) if error.already_exists() => (self.open_or_create(path)?, false),
            created => (created?, true),
        };
        if !self.lock_file(&file)? {
            return Ok(None);
        }
        let stat = stat_file(file.file()).map_err(self.error("cannot look at", path))?;
        // Its last writer may have given it its real name between the calls above.
        if self.stat_if_there(path)?.is_none_or(|named| named.ino != stat.ino) {
            return Ok(None);
        }
        // What somebody else has put there, they could read.
        let is_own = stat.kind == FileKind::File && stat.links == 1 && stat.uid == rustix::process::geteuid().as_raw();
        if !is_fresh && !is_own {
            return Err(failed("cannot write", self.show(path), io::Error::other("it is not this user's: remove it")));
        }
        if !is_fresh {
            file.set_length(0)?;
        }
        Ok(Some(file))
    }
}

/// Opens a device of the system's to read and to write: what is said to it is said to the kernel, and changes no file.
///
/// # Errors
/// Where it is not there, or not to be opened.
pub fn open_device(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    sys::open(path, flags, Mode::empty()).map_err(|errno| failed("cannot open", shown(path), errno.into()))
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

#[cfg(test)]
mod tests;
