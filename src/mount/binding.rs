//! FUSE: what the kernel asks, and how it is answered.

use super::file::OpenFile;
use super::tree::{Attributes, Entry, Kind, Lasting, Listing, Refusal, Tree};
use crate::maildir::entry::Time;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may believe what never changes.
const ALWAYS: Duration = Duration::from_secs(24 * 3600);

/// What files are counted in; the length of a read that costs least.
const BLOCK: u32 = 4096;

/// A tree as the kernel sees it.
pub struct Binding {
    tree: Arc<Tree>,
    /// Other users have to do with it: access lists count.
    for_others: bool,
    files: Handles<OpenFile>,
    directories: Handles<OpenDirectory>,
}

/// A directory that is being listed.
struct OpenDirectory {
    number: u64,
    /// As it was when its listing began.
    listing: Mutex<Option<Arc<Listing>>>,
}

/// What is open, by the number that the kernel has for it.
struct Handles<T> {
    open: Mutex<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Handles<T> {
    fn new() -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn add(&self, handle: T) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(|poison| poison.into_inner()).insert(number, Arc::new(handle));
        FileHandle(number)
    }

    fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        let open = self.open.lock().unwrap_or_else(|poison| poison.into_inner());
        open.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn remove(&self, handle: FileHandle) {
        let gone = self.open.lock().unwrap_or_else(|poison| poison.into_inner()).remove(&handle.0);
        drop(gone);
    }
}

fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Missing => Errno::ENOENT,
        Refusal::Stale => Errno::ESTALE,
        Refusal::NotADirectory => Errno::ENOTDIR,
        Refusal::IsADirectory => Errno::EISDIR,
        Refusal::NotALink => Errno::EINVAL,
        Refusal::NoAttribute => Errno::NO_XATTR,
        Refusal::Damaged => Errno::EIO,
    }
}

fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
    }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = match time.seconds < 0 {
        true => UNIX_EPOCH.checked_sub(seconds),
        false => UNIX_EPOCH.checked_add(seconds),
    };
    let time = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanos.into())));
    time.unwrap_or(UNIX_EPOCH)
}

fn file_attr(attributes: &Attributes) -> FileAttr {
    let time = system_time(attributes.mtime);
    FileAttr {
        ino: INodeNo(attributes.number),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: kind(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

impl Binding {
    pub(super) fn new(tree: Arc<Tree>, for_others: bool) -> Self {
        Self { tree, for_others, files: Handles::new(), directories: Handles::new() }
    }

    fn valid(&self, lasting: Lasting) -> Duration {
        match lasting {
            Lasting::Always => ALWAYS,
            Lasting::AWhile => self.tree.views().refresh(),
            Lasting::Not => Duration::ZERO,
        }
    }

    /// The listing of an open directory, made at its beginning.
    fn listing(&self, handle: FileHandle, offset: u64) -> Result<Arc<Listing>, Errno> {
        let directory = self.directories.get(handle)?;
        let mut listing = directory.listing.lock().unwrap_or_else(|poison| poison.into_inner());
        match &*listing {
            Some(listing) if offset > 0 => Ok(listing.clone()),
            _ => Ok(listing.insert(Arc::new(self.tree.list(directory.number).map_err(errno)?)).clone()),
        }
    }
}

/// A name on its way into a reply, and the offset of the next one.
struct Found<'a> {
    next: u64,
    name: &'a OsStr,
    attributes: Attributes,
    /// `None` for the directory itself and the one above, of which the kernel makes by itself what it needs.
    entry: Option<&'a Entry>,
}

/// What is in a listing from an offset on.
///
/// # Errors
/// At the end of one that is damaged, so that nobody takes it for all there is.
fn rest(listing: &Listing, number: u64, offset: u64) -> Result<impl Iterator<Item = Found<'_>>, Errno> {
    let of_itself = Attributes {
        number,
        kind: Kind::Directory,
        mode: 0o500,
        uid: 0,
        gid: 0,
        size: 0,
        links: 1,
        mtime: Time::default(),
        lasting: Lasting::Not,
    };
    let dots = [".", ".."].map(|name| (OsStr::new(name), of_itself, None));
    let entries = listing.entries.iter().map(|entry| (OsStr::from_bytes(&entry.name), entry.attributes, Some(entry)));
    if listing.is_damaged && offset as usize >= dots.len() + listing.entries.len() {
        return Err(Errno::EIO);
    }
    let all = dots.into_iter().chain(entries).zip(1..).skip(offset as usize);
    Ok(all.map(|((name, attributes, entry), next)| Found { next, name, attributes, entry }))
}

/// Answers with an attribute's value, or with its length where that is all that was wanted.
fn attribute(value: Result<Vec<u8>, Refusal>, size: u32, reply: ReplyXattr) {
    match value {
        Err(refusal) => reply.error(errno(refusal)),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}

impl Filesystem for Binding {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
        wanted |= InitFlags::FUSE_PARALLEL_DIROPS;
        if self.for_others {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        if let Err(unknown) = config.add_capabilities(wanted) {
            if unknown.contains(InitFlags::FUSE_POSIX_ACL) {
                // Without access lists others would see more than they might have seen then.
                return Err(io::ErrorKind::Unsupported.into());
            }
            let _ = config.add_capabilities(wanted & !unknown);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.look_up(parent.0, name.as_bytes()) {
            Ok(found) => reply.entry(&self.valid(found.lasting), &file_attr(&found), Generation(0)),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.tree.nodes().forget(number.0, lookups);
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.attributes(number.0) {
            Ok(found) => reply.attr(&self.valid(found.lasting), &file_attr(&found)),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.tree.read_link(number.0) {
            Ok(target) => reply.data(&target),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.tree.open(number.0) {
            Ok((file, lasting)) => {
                let keeps = if lasting == Lasting::Always { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
                reply.opened(self.files.add(file), keeps | FopenFlags::FOPEN_NOFLUSH);
            }
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = |file: Arc<OpenFile>| self.tree.read(&file, offset, size as usize).map_err(errno);
        match self.files.get(handle).and_then(read) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(handle);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.tree.attributes(number.0) {
            Ok(found) => {
                let keeps = match found.lasting {
                    Lasting::Always => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
                    _ => FopenFlags::empty(),
                };
                reply
                    .opened(self.directories.add(OpenDirectory { number: number.0, listing: Mutex::default() }), keeps);
            }
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn readdir(&self, _request: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listing = match self.listing(handle, offset) {
            Ok(listing) => listing,
            Err(errno) => return reply.error(errno),
        };
        match rest(&listing, number.0, offset) {
            Ok(mut found) => {
                let is_full = |Found { next, name, attributes, .. }: Found<'_>| {
                    reply.add(INodeNo(attributes.number), next, kind(attributes.kind), name)
                };
                found.any(is_full);
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listing = match self.listing(handle, offset) {
            Ok(listing) => listing,
            Err(errno) => return reply.error(errno),
        };
        let found = match rest(&listing, number.0, offset) {
            Ok(found) => found,
            Err(errno) => return reply.error(errno),
        };
        for Found { next, name, attributes, entry } in found {
            let known = entry.map(|entry| self.tree.enter(&listing, entry));
            let attributes = known.unwrap_or(attributes);
            let valid = self.valid(attributes.lasting);
            if reply.add(INodeNo(attributes.number), next, name, &valid, &file_attr(&attributes), Generation(0)) {
                // It did not find room: the kernel will not hear of it.
                known.iter().for_each(|known| self.tree.nodes().forget(known.number, 1));
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.remove(handle);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, number: INodeNo, reply: ReplyStatfs) {
        let usage = self.tree.usage(number.0);
        let blocks = usage.bytes.div_ceil(BLOCK.into());
        reply.statfs(blocks, 0, 0, usage.files, 0, BLOCK, crate::path::NAME_MAX as u32, BLOCK);
    }

    fn getxattr(&self, _request: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        attribute(self.tree.xattr(number.0, name.as_bytes()), size, reply);
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        attribute(self.tree.xattrs(number.0), size, reply);
    }
}
