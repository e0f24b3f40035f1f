//! fanotify: one mark on the file system, nothing to set up for each directory; where root is allowed to.
//!
//! An event carries the file handle of the directory and the name in it; a rename carries both ends. A handle is turned
//! into a path once and kept, until a directory is renamed anywhere: then all paths are asked for again. It sees the
//! whole file system: what is outside the root is told by one look into a table.
//!
//! * The queue has no limit (`FAN_UNLIMITED_QUEUE`); should events be lost all the same, everything is dirty.
//! * A path that cannot be had of a handle, except that its directory is gone, makes everything dirty.
//! * The records are read by the crate fanotify-fid (no `unsafe` on this side of it); nix and rustix do not parse them, and
//!   fanotify-rs 0.3 knows no names.
//!
//! File systems mounted beneath the root are not seen: where there are any, inotify is used.

use super::WatchKind;
use super::gather::Cause;
use super::scope::{Heard, Known, Scope, Source, Tally};
use crate::disk::{FileKind, Root};
use crate::path::{Name, TreePath};
use fanotify_fid::consts as fan;
use fanotify_fid::{Fanotify, FidEvent, handle};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

/// Most handles whose paths are kept: about 20 MB.
const PLACES: usize = 100_000;

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// Buffers read in one go, before what was heard is handed on.
const READS: usize = 8;

/// How often a handle is opened before its directory counts as unknown.
const TRIES: u32 = 100;

/// What is asked for.
const MASK: u64 = fan::FAN_CREATE
    | fan::FAN_DELETE
    | fan::FAN_RENAME
    | fan::FAN_MODIFY
    | fan::FAN_CLOSE_WRITE
    | fan::FAN_ATTRIB
    | fan::FAN_ONDIR;

/// The events of a file system.
pub struct FileSystem {
    root: Root,
    scope: Arc<Scope>,
    group: Fanotify,
    /// The root's directory, of which handles are opened.
    top: File,
    /// Its absolute path.
    prefix: Vec<u8>,
    places: HashMap<Box<[u8]>, Option<Arc<Place>>>,
    buffer: Vec<u8>,
}

/// A directory beneath the root that belongs to the set.
#[derive(Clone, Debug)]
struct Place {
    path: TreePath,
    /// What the scan looks at to see what changed in it.
    unit: TreePath,
    /// It is a folder's `cur` or `new`.
    holds_messages: bool,
    /// It is a folder's `tmp`: its own mode counts, and nothing in it.
    is_closed: bool,
}

/// Why a handle has no path.
enum NoPath {
    Gone,
    Unknown(io::Error),
}

impl FileSystem {
    /// Marks the root's file system.
    ///
    /// # Errors
    /// Where this process may not, or the file system has no handles.
    pub fn mark(root: Root, scope: Arc<Scope>) -> io::Result<Self> {
        let flags = fan::FAN_CLASS_NOTIF
            | fan::FAN_CLOEXEC
            | fan::FAN_NONBLOCK
            | fan::FAN_REPORT_DFID_NAME
            | fan::FAN_UNLIMITED_QUEUE;
        let failed = |error: fanotify_fid::FanotifyError| match error.errno() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(error.to_string()),
        };
        let group = Fanotify::new(flags).map_err(failed)?;
        let top = File::open(root.path())?;
        let prefix = std::fs::read_link(format!("/proc/self/fd/{}", top.as_raw_fd()))?;
        // Without the right to open by handle no path can be had.
        handle::open_by_handle_at(&top, &handle::handle_from_fd(&top)?)?;
        group.mark_fd(&top, fan::FAN_MARK_ADD | fan::FAN_MARK_FILESYSTEM, MASK).map_err(failed)?;
        let file_system = Self {
            root,
            scope,
            group,
            top,
            prefix: prefix.as_os_str().as_bytes().to_vec(),
            places: HashMap::new(),
            buffer: Vec::with_capacity(BUFFER),
        };
        let own = file_system.root.stat(&TreePath::root()).map_err(io::Error::other)?.ino;
        match file_system.top.metadata()?.ino() == own {
            true => Ok(file_system),
            false => Err(io::Error::other("the root is another directory by now")),
        }
    }

    /// Where the directory with a handle is; `None` outside the set.
    fn place(&mut self, handle: &[u8]) -> Result<Option<Arc<Place>>, NoPath> {
        if let Some(place) = self.places.get(handle) {
            return Ok(place.clone());
        }
        let place = self.look_up(handle)?.map(Arc::new);
        if self.places.len() >= PLACES {
            self.places.clear();
        }
        self.places.insert(handle.into(), place.clone());
        Ok(place)
    }

    fn look_up(&self, handle: &[u8]) -> Result<Option<Place>, NoPath> {
        let stale = Some(Errno::STALE.raw_os_error());
        let is_gone = |error: io::Error| match error.raw_os_error() == stale {
            true => NoPath::Gone,
            false => NoPath::Unknown(error),
        };
        let fd = self.open(handle).map_err(is_gone)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(NoPath::Unknown)?;
        let path = path.as_os_str().as_bytes();
        if path.ends_with(b" (deleted)") && File::from(fd).metadata().is_ok_and(|stat| stat.nlink() == 0) {
            return Err(NoPath::Gone);
        }
        let below = match path.strip_prefix(&self.prefix[..]) {
            Some(below) if self.prefix == b"/" || below.is_empty() => below,
            Some([b'/', below @ ..]) => below,
            _ => return Ok(None),
        };
        Ok(TreePath::new(below).ok().and_then(|path| self.place_at(path)))
    }

    /// Opens a handle. While its directory is being renamed or removed the kernel (6.18, ext4) at times says that it has no
    /// memory; asked again it opens it, or says that it is gone.
    fn open(&self, handle: &[u8]) -> io::Result<OwnedFd> {
        let mut tries = 1;
        loop {
            match handle::open_by_handle_at(&self.top, handle) {
                Err(error) if tries < TRIES && error.raw_os_error() == Some(Errno::NOMEM.raw_os_error()) => tries += 1,
                other => return other,
            }
            std::thread::yield_now();
        }
    }

    /// What a directory beneath the root is to the set.
    fn place_at(&self, path: TreePath) -> Option<Place> {
        let mut above = TreePath::root();
        for name in path.components() {
            let at = above.join(&Name::new(name).ok()?);
            if !self.scope.takes_directory(&at) || self.is_closed(&above) {
                return None;
            }
            above = at;
        }
        let is_part = self.is_part(&path);
        let unit = if is_part { path.parent() } else { path.clone() };
        let holds_messages = is_part && self.scope.holds_messages(path.name());
        let is_closed = self.is_closed(&path);
        Some(Place { path, unit, holds_messages, is_closed })
    }

    /// Whether a directory is a folder's `tmp`, and what is in it is left out as usual.
    fn is_closed(&self, path: &TreePath) -> bool {
        path.name() == b"tmp" && self.is_part(path) && !self.scope.takes_tmp(path)
    }

    /// Whether a directory belongs to the folder that it is in.
    fn is_part(&self, path: &TreePath) -> bool {
        let folder = path.parent();
        let has = |name: &str| self.root.stat(&folder.child(name)).is_ok_and(|stat| stat.kind == FileKind::Directory);
        !path.is_root() && self.scope.is_part(path.name()) && has("cur") && has("new")
    }

    fn hear(&mut self, event: &FidEvent<'_>, heard: &mut Heard) {
        if event.is_overflow() {
            self.places.clear();
            heard.everything = Some(Cause::Overflow);
            return;
        }
        let heard_all = match (event.rename_source(), event.rename_target()) {
            (Some(from), Some(to)) => {
                let ends = [(from.handle(), from.name().as_bytes()), (to.handle(), to.name().as_bytes())];
                self.hear_rename(event.mask(), ends, heard)
            }
            _ => match (event.dfid_name_handle(), event.dfid_name()) {
                (Some(handle), Some(name)) => self.hear_name(event.mask(), handle, name.as_bytes(), heard),
                _ => Ok(()),
            },
        };
        if let Err(NoPath::Unknown(error)) = heard_all {
            heard
                .notices
                .push(format!("a directory's path cannot be had from fanotify ({error}): everything is looked at"));
            heard.everything = Some(Cause::Overflow);
        }
    }

    fn hear_name(&mut self, mask: u64, handle: &[u8], name: &[u8], heard: &mut Heard) -> Result<(), NoPath> {
        let is_directory = mask & fan::FAN_ONDIR != 0;
        if is_directory && mask & (fan::FAN_CREATE | fan::FAN_DELETE) != 0 && self.scope.is_part(name) {
            // With one of its three a folder becomes one, or is none any more.
            self.places.clear();
        }
        let place = match self.place(handle) {
            Ok(Some(place)) => place,
            // The one above it tells that it is gone.
            Err(NoPath::Gone) => return Ok(()),
            other => {
                if is_directory && mask & fan::FAN_DELETE != 0 && !self.root.is_in_place() {
                    heard.ended = Some("the root was removed".to_owned());
                }
                return other.map(|_| ());
            }
        };
        let Ok(name) = Name::new(name) else {
            heard.note(place.unit.clone(), false, false);
            return Ok(());
        };
        let is_arrival = mask & fan::FAN_CREATE != 0;
        match is_directory {
            true => self.note_directory(&place, &name, is_arrival, heard),
            false => self.note_file(&place, &name, is_arrival, heard),
        }
        Ok(())
    }

    fn hear_rename(&mut self, mask: u64, ends: [(&[u8], &[u8]); 2], heard: &mut Heard) -> Result<(), NoPath> {
        let is_directory = mask & fan::FAN_ONDIR != 0;
        if is_directory {
            self.places.clear();
            if !self.root.is_in_place() {
                heard.ended = Some("the root was renamed".to_owned());
            }
        }
        let mut came_from_messages = false;
        for (number, (handle, name)) in ends.into_iter().enumerate() {
            let place = match self.place(handle) {
                Ok(place) => place,
                Err(NoPath::Gone) => None,
                Err(unknown) => return Err(unknown),
            };
            let (Some(place), Ok(name)) = (place, Name::new(name)) else { continue };
            let is_target = number == 1;
            match is_directory {
                true => self.note_directory(&place, &name, is_target, heard),
                false => self.note_file(&place, &name, is_target && !came_from_messages, heard),
            }
            came_from_messages |= place.holds_messages;
        }
        Ok(())
    }

    fn note_file(&self, place: &Place, name: &Name, comes: bool, heard: &mut Heard) {
        if !place.is_closed && self.scope.takes_file(&place.path, place.holds_messages, name) {
            heard.note(place.unit.clone(), comes && place.holds_messages, false);
        }
    }

    fn note_directory(&self, place: &Place, name: &Name, is_arrival: bool, heard: &mut Heard) {
        let at = place.path.join(name);
        if place.is_closed || !self.scope.takes_directory(&at) {
            return;
        }
        // Without one of its parts a folder is none any more: what is left in it are units of their own.
        heard.note(place.unit.clone(), false, !is_arrival && self.scope.is_part(name.as_bytes()));
        if is_arrival {
            let unit = if self.is_part(&at) { place.path.clone() } else { at };
            heard.note(unit, true, true);
        }
    }
}

impl Source for FileSystem {
    fn kind(&self) -> WatchKind {
        WatchKind::Fanotify
    }

    fn begin(&mut self, _known: Vec<Known>, heard: &mut Heard) -> Result<(), String> {
        heard.everything = Some(Cause::Start);
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.group.as_fd())
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn listen(&mut self, _now: Instant, heard: &mut Heard) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut failed = None;
        for _ in 0..READS {
            // Not `self.group`'s borrow, which lasts as long as the events.
            match read(&self.group, &mut buffer) {
                Ok(events) if events.is_empty() => break,
                Ok(events) => events.iter().for_each(|event| self.hear(event, heard)),
                Err(reason) => {
                    failed = Some(reason);
                    break;
                }
            }
        }
        self.buffer = buffer;
        failed.map_or(Ok(()), Err)
    }

    fn tally(&self) -> Tally {
        Tally { watched: 1, polled: 0 }
    }
}

/// What is there; nothing where the queue is empty.
fn read<'b>(group: &Fanotify, buffer: &'b mut Vec<u8>) -> Result<Vec<FidEvent<'b>>, String> {
    match group.read_events(buffer) {
        Ok(events) => Ok(events),
        Err(error) if error.is_would_block() => Ok(Vec::new()),
        Err(error) => Err(format!("fanotify failed: {error}")),
    }
}
