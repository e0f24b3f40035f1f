//! inotify: what the kernel tells about directories beneath a root while it happens.
//!
//! Watching changes nothing, but it resolves paths, so it goes through this door: a watch is set on a directory that was
//! opened beneath its root, so that no link leads it elsewhere, however long the path is. Which directory a watch is of,
//! [`WatchId`] says for as long as the watch stands, wherever the directory is renamed to.

use super::look::stat_at;
use super::{Root, Stat};
use crate::path::TreePath;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes read at once: some hundred events.
const BUFFER: usize = 64 << 10;

/// A watch that stands. Two of the same directory are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(i32);

/// What is to be told of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Names that come and go, files that were written: of a directory of messages, which are never changed.
    Names,
    /// That, every change to a file in it, and to what `stat` tells of it.
    Changes,
    /// That, and when it is itself renamed or removed: of the root.
    Itself,
}

/// What happened in a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which directory; of no meaning where events were lost.
    pub watch: WatchId,
    /// What happened.
    pub what: ReadFlags,
    /// The same number in both halves of a rename.
    pub cookie: u32,
    /// The name in the directory; empty where the directory itself is meant.
    pub name: Box<[u8]>,
}

impl Event {
    /// Whether the kernel had more to tell than it keeps: what happened is not known.
    pub fn is_overflow(&self) -> bool {
        self.what.contains(ReadFlags::QUEUE_OVERFLOW)
    }

    /// Whether the watch stands no more.
    pub fn is_end(&self) -> bool {
        self.what.contains(ReadFlags::IGNORED)
    }

    /// Whether the file system was taken away.
    pub fn is_unmount(&self) -> bool {
        self.what.contains(ReadFlags::UNMOUNT)
    }

    /// Whether the watched directory itself was renamed.
    pub fn is_own_rename(&self) -> bool {
        self.what.contains(ReadFlags::MOVE_SELF)
    }

    /// Whether a directory is meant.
    pub fn is_directory(&self) -> bool {
        self.what.contains(ReadFlags::ISDIR)
    }

    /// Whether the name was made, or renamed to.
    pub fn is_arrival(&self) -> bool {
        self.what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
    }

    /// Whether the name was removed.
    pub fn is_removal(&self) -> bool {
        self.what.contains(ReadFlags::DELETE)
    }

    /// Whether the name was renamed to another.
    pub fn is_departure(&self) -> bool {
        self.what.contains(ReadFlags::MOVED_FROM)
    }
}

/// A queue of events.
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl Events {
    /// A queue without watches.
    ///
    /// # Errors
    /// Where this user has too many (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd, buffer: vec![MaybeUninit::uninit(); BUFFER].into() })
    }

    /// Watches a directory from now on, and gives its state, which is at least as young as the watch.
    ///
    /// # Errors
    /// Where it is not there, may not be read, or the watches are exhausted ([`is_exhausted`]).
    pub fn watch(&self, root: &Root, path: &TreePath, tells: Tells) -> io::Result<(WatchId, Stat)> {
        let mut flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        if tells != Tells::Names {
            flags |= WatchFlags::MODIFY | WatchFlags::ATTRIB;
        }
        if tells == Tells::Itself {
            flags |= WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        }
        let opened = if path.is_root() { None } else { Some(root.walk(path)?) };
        let directory = opened.as_ref().map_or(root.fd.as_fd(), |fd| fd.as_fd());
        let through = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let watch = WatchId(inotify::add_watch(&self.fd, through, flags)?);
        Ok((watch, stat_at(directory, b"")?))
    }

    /// Watches for the root being removed from the directory that it is in, or renamed there: while it is open it does not
    /// tell of that itself.
    ///
    /// # Errors
    /// As [`Events::watch`].
    pub fn watch_above(&self, root: &Root) -> io::Result<WatchId> {
        let flags = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::ONLYDIR;
        let through = format!("/proc/self/fd/{}/..", root.fd.as_raw_fd());
        Ok(WatchId(inotify::add_watch(&self.fd, through, flags)?))
    }

    /// Watches no more.
    pub fn forget(&self, watch: WatchId) {
        // One that has ended by itself is as good.
        let _ = inotify::remove_watch(&self.fd, watch.0);
    }

    /// Takes what is there, up to a buffer full; tells whether there may be more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn read(&mut self, into: &mut Vec<Event>) -> io::Result<bool> {
        let mut reader = Reader::new(self.fd.as_fd(), &mut self.buffer);
        loop {
            match reader.next() {
                Ok(event) => into.push(Event {
                    watch: WatchId(event.wd()),
                    what: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map(|name| name.to_bytes().into()).unwrap_or_default(),
                }),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if reader.is_buffer_empty() {
                return Ok(true);
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a watch was refused because this user has as many as allowed (`fs.inotify.max_user_watches`).
pub fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOSPC.raw_os_error())
}
