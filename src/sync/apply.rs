//! The one hand that changes a mirror.
//!
//! Everything it does is durable in the log before, so each change can be done twice: one that finds its
//! result in place has been done. Before anything is replaced or removed it is looked at again; what is not
//! as the catalogue says is left alone, said, and its directory is read again and put right.
//!
//! A folder that a mail server may have open is changed under its `dovecot-uidlist.lock` (DOVECOT.md 8.4).

use super::SyncError;
use super::staging::{self, Staging};
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::mark;
use crate::disk::{DiskError, FileKind, Root};
use crate::maildir::change::{Change, Source};
use crate::maildir::control;
use crate::maildir::entry::{File, Mark, Meta};
use crate::maildir::folder::{self, SetKind};
use crate::monitor::Problem;
use crate::path::TreePath;
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Dovecot overrides a lock that has not been touched for two minutes.
const LOCK_STALE: Duration = Duration::from_secs(120);

/// How long the hand waits for a folder that a mail server holds.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Where contents of a batch come from when it is done again after a crash.
pub trait Contents {
    /// Makes sure that the content with this number and digest is staged. `false` where it is not to be had.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn stage(&self, staging: &Staging, number: u64, digest: &crate::id::Digest) -> Result<bool>;
}

/// Contents as they arrived in this session: staged, and checked, already.
pub struct Arrived;

impl Contents for Arrived {
    fn stage(&self, staging: &Staging, number: u64, _digest: &crate::id::Digest) -> Result<bool> {
        Ok(staging.digest(number).is_some())
    }
}

/// The hand.
pub struct Hand {
    mirror: Arc<Root>,
    staging: Arc<Staging>,
    kind: SetKind,
    /// Directories whose content no longer follows from what was done: they are read again.
    pub drifted: BTreeSet<TreePath>,
    /// What could not be done.
    pub problems: Vec<Problem>,
    /// An owner could not be set.
    pub owners_left: bool,
    next_copy: u64,
}

/// What became of a change.
enum Done {
    /// The mirror has it.
    Yes,
    /// The mirror was not as the catalogue says: what was found.
    Drift(&'static str),
}

type Result<T> = std::result::Result<T, SyncError>;

impl Hand {
    /// A hand on a mirror.
    pub fn new(mirror: Arc<Root>, staging: Arc<Staging>, kind: SetKind) -> Self {
        Self {
            mirror,
            staging,
            kind,
            drifted: BTreeSet::new(),
            problems: Vec::new(),
            owners_left: false,
            // Numbers of copies made here do not meet those of contents shipped.
            next_copy: 1 << 62,
        }
    }

    /// Does a batch. The catalogue has it already: `edit` tells what directories should look like.
    ///
    /// # Errors
    /// Where the disk refuses everything, as a full one does; the batch is then done again by the next run.
    pub fn batch(&mut self, changes: &[Change], contents: &dyn Contents, edit: &mut Edit<'_>) -> Result<()> {
        let mut touched = BTreeSet::new();
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let unit = self.unit_of(first);
            let length = rest.iter().take_while(|change| self.unit_of(change) == unit).count();
            let (group, after) = rest.split_at(length);
            self.group(&unit, group, contents, &mut touched)?;
            rest = after;
        }
        self.finish_directories(touched, edit)
    }

    /// The folder, or plain directory, that a change is in.
    fn unit_of(&self, change: &Change) -> TreePath {
        let path = change.path();
        let directory = match change {
            Change::MakeDirectory { .. } => path.clone(),
            _ => path.parent(),
        };
        match self.kind == SetKind::Maildir && folder::is_part(directory.name()) {
            true => directory.parent(),
            false => directory,
        }
    }

    fn group(
        &mut self,
        unit: &TreePath,
        changes: &[Change],
        contents: &dyn Contents,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<()> {
        let lock = match self.kind {
            SetKind::Files => None,
            SetKind::Maildir => self.lock_folder(unit, changes)?,
        };
        for change in changes {
            self.open_up(change, touched)?;
            self.change(change, contents, touched)?;
        }
        if let Some(lock) = lock {
            // Dovecot looks at a folder again when its times change.
            let cur = unit.child("cur");
            if self.mirror.stat_if_there(&cur)?.is_some() {
                self.mirror.set_directory_time(&cur, None)?;
                touched.insert(cur);
            }
            touched.insert(unit.clone());
            match self.mirror.remove(&lock) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// A directory that its owner may not write to is no obstacle to root. Anybody else makes it writable for
    /// the time of the batch.
    fn open_up(&self, change: &Change, touched: &BTreeSet<TreePath>) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        for path in places(change).into_iter().filter(|path| !touched.contains(path)) {
            if let Some(stat) = self.mirror.stat_if_there(&path)?
                && stat.kind == FileKind::Directory
                && stat.mode & 0o700 != 0o700
            {
                self.mirror.allow_owner(&path, stat.mode)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, change: &Change, contents: &dyn Contents, touched: &mut BTreeSet<TreePath>) -> Result<()> {
        for path in places(change) {
            touched.insert(path);
        }
        let reason = match self.attempt(change, contents) {
            Ok(Done::Yes) => return Ok(()),
            Ok(Done::Drift(reason)) => reason.to_owned(),
            Err(SyncError::Disk(error)) if !is_fatal(&error) => format!("{}: {}", error.operation, error.source),
            Err(error) => return Err(error),
        };
        let subject = self.mirror.show(change.path());
        self.problems.push(Problem { subject, reason });
        self.drifted.extend(places(change));
        Ok(())
    }

    fn attempt(&mut self, change: &Change, contents: &dyn Contents) -> Result<Done> {
        match change {
            Change::MakeDirectory { path, meta } => self.make_directory(path, meta),
            Change::RenameDirectory { from, to } => self.rename_directory(from, to),
            Change::RemoveDirectory { path } => {
                self.mirror.remove_directory(path)?;
                Ok(Done::Yes)
            }
            Change::Put { path, meta, file, source } => self.put(path, meta, file, source, contents),
            Change::Symlink { path, meta, target } => self.symlink(path, meta, target),
            Change::Link { path, existing, mark, .. } => self.link(path, existing, *mark),
            Change::Rename { from, to, mark } => self.rename(from, to, *mark),
            Change::SetMeta { path, meta, .. } => self.set_meta(path, meta),
            Change::Remove { path, mark } => self.remove(path, *mark),
            Change::Forget { .. } => Ok(Done::Yes),
        }
    }

    // ---- directories ----

    fn make_directory(&mut self, path: &TreePath, meta: &Meta) -> Result<Done> {
        if !path.is_root() {
            match self.mirror.make_directory(path) {
                Err(error) if error.already_exists() => {
                    // Something that is no directory, and not of this set, has the name.
                    self.mirror.remove(path)?;
                    self.mirror.make_directory(path)?;
                }
                other => drop(other?),
            }
        }
        // The time comes last, when everything in it has been done.
        let mut meta = Meta { mtime: None, ..meta.clone() };
        if !rustix::process::geteuid().is_root() {
            meta.mode |= 0o700;
        }
        let owned = self.mirror.set_meta(path, &meta)?;
        self.owners_left |= !owned;
        Ok(Done::Yes)
    }

    fn rename_directory(&mut self, from: &TreePath, to: &TreePath) -> Result<Done> {
        if self.mirror.stat_if_there(from)?.is_none() {
            return Ok(match self.mirror.stat_if_there(to)? {
                Some(_) => Done::Yes,
                None => Done::Drift("the directory is not on the standby"),
            });
        }
        match self.mirror.rename_directory(from, to) {
            Err(error) if error.already_exists() => {
                // The catalogue knows nothing by this name: it was made here, by hand or by a mail server.
                self.mirror.remove_directory(to)?;
                self.mirror.rename_directory(from, to)?;
            }
            other => other?,
        }
        Ok(Done::Yes)
    }

    /// Sets the times of directories that were changed, and notes how they look now.
    fn finish_directories(&mut self, touched: BTreeSet<TreePath>, edit: &mut Edit<'_>) -> Result<()> {
        for path in touched.into_iter().rev() {
            let Some(directory) = edit.directory(&path)? else { continue };
            let (mtime, mode) = (directory.meta.mtime, directory.meta.mode);
            if mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
                let meta = directory.meta.clone();
                self.mirror.set_meta(&path, &meta)?;
            }
            let time = match mtime {
                Some(_) => self.mirror.set_directory_time(&path, mtime),
                None => Ok(()),
            };
            let stat = time.and_then(|()| self.mirror.stat(&path));
            match stat {
                // What this look cannot tell from our own change is a change by somebody else within the same
                // tick of the kernel's clock; --checksum finds that, and nobody else writes to a mirror.
                Ok(stat) => edit.looked(&path, Some(stat.look()))?,
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => {
                    let reason = format!("{}: {}", error.operation, error.source);
                    self.problems.push(Problem { subject: error.path, reason });
                    self.drifted.insert(path);
                }
            }
        }
        Ok(edit.flush()?)
    }

    // ---- files ----

    fn put(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        file: &File,
        source: &Source,
        contents: &dyn Contents,
    ) -> Result<Done> {
        let staged = match source {
            Source::Shipped(number) => {
                if !contents.stage(&self.staging, *number, &file.digest)? {
                    return self.put_before(path, file);
                }
                *number
            }
            Source::Copied(from) => {
                self.next_copy += 1;
                match self.copy(self.next_copy, from, file)? {
                    true => self.next_copy,
                    false => return self.put_before(path, file),
                }
            }
            Source::Delta(number) => match self.patched(*number, path, file, contents)? {
                true => *number,
                false => return self.put_before(path, file),
            },
        };
        if path.name() == b"dovecot-uidlist" {
            self.replace_folder_identity(path, staged)?;
        }
        let at = Staging::path(staged);
        self.owners_left |= !self.staging.root().set_fresh_meta(&at, meta, staging::MODE)?;
        self.staging.root().rename_into(&at, &self.mirror, path)?;
        self.staging.placed(staged);
        Ok(Done::Yes)
    }

    /// The content is not to be had: fine where an earlier run has put it in place.
    fn put_before(&self, path: &TreePath, file: &File) -> Result<Done> {
        let stat = self.mirror.stat_if_there(path)?;
        if stat.is_some_and(|stat| stat.kind == FileKind::File && stat.size == file.size)
            && let Ok(mut there) = self.mirror.open_file(path)
            && staging::hash(&mut there).is_ok_and(|digest| digest == file.digest)
        {
            return Ok(Done::Yes);
        }
        Ok(Done::Drift("the version that it is made from is not on the standby; it is sent again"))
    }

    fn copy(&self, number: u64, from: &TreePath, file: &File) -> Result<bool> {
        match self.mirror.open_file(from) {
            Ok(mut original) => self.staging.copy(number, &mut original, &file.digest),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that the staged file is the result of the delta.
    fn patched(&self, number: u64, path: &TreePath, file: &File, contents: &dyn Contents) -> Result<bool> {
        if self.staging.digest(number) == Some(file.digest) {
            return Ok(true);
        }
        let base = match self.mirror.open_file(path) {
            Ok(base) => base,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !contents.stage(&self.staging, number, &file.digest)? {
            return Ok(false);
        }
        if self.staging.digest(number) == Some(file.digest) {
            return Ok(true);
        }
        self.staging.patch(number, &base, file.size, &file.digest)
    }

    /// A folder whose UIDVALIDITY or GUID is another is another folder: a mail server's index of the old one
    /// would mislead it.
    fn replace_folder_identity(&self, path: &TreePath, staged: u64) -> Result<()> {
        let read = |root: &Root, path: &TreePath| {
            let mut bytes = Vec::new();
            let file = root.open_file(path).ok()?;
            file.take(1024).read_to_end(&mut bytes).ok()?;
            let end = bytes.iter().position(|&byte| byte == b'\n')?;
            control::check_uidlist(&bytes[..=end]).ok()
        };
        let (old, new) = (read(&self.mirror, path), read(self.staging.root(), &Staging::path(staged)));
        if old.is_none() || old == new {
            return Ok(());
        }
        let unit = path.parent();
        for entry in self.mirror.list(&unit, 64)?.0.entries {
            if entry.name.as_bytes().starts_with(b"dovecot.index") {
                self.mirror.remove(&unit.join(&entry.name))?;
            }
        }
        Ok(())
    }

    fn symlink(&mut self, path: &TreePath, meta: &Meta, target: &[u8]) -> Result<Done> {
        self.next_copy += 1;
        let staged = Staging::path(self.next_copy);
        match self.staging.root().symlink(target, &staged) {
            Err(error) if error.already_exists() => {
                self.staging.root().remove(&staged)?;
                self.staging.root().symlink(target, &staged)?;
            }
            other => other?,
        }
        self.owners_left |= !self.staging.root().set_link_meta(&staged, meta)?;
        self.staging.root().rename_into(&staged, &self.mirror, path)?;
        Ok(Done::Yes)
    }

    fn link(&mut self, path: &TreePath, existing: &TreePath, wanted: Mark) -> Result<Done> {
        let (there, here) = (self.mirror.stat_if_there(existing)?, self.mirror.stat_if_there(path)?);
        match (there, here) {
            (Some(there), Some(here)) if there.ino == here.ino => return Ok(Done::Yes),
            (Some(there), _) if mark(&there) == wanted => {}
            (_, Some(here)) if mark(&here) == wanted => return Ok(Done::Yes),
            _ => return Ok(Done::Drift("the file that it is a link of is not on the standby; it is sent again")),
        }
        if here.is_some() {
            self.mirror.remove(path)?;
        }
        self.mirror.link(existing, path)?;
        Ok(Done::Yes)
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath, wanted: Mark) -> Result<Done> {
        match self.mirror.stat_if_there(from)? {
            Some(stat) if mark(&stat) == wanted => {
                self.mirror.rename(from, to)?;
                Ok(Done::Yes)
            }
            _ => match self.mirror.stat_if_there(to)? {
                Some(stat) if mark(&stat) == wanted => Ok(Done::Yes),
                _ => Ok(Done::Drift("the message is not on the standby as it should be; it is sent again")),
            },
        }
    }

    fn set_meta(&mut self, path: &TreePath, meta: &Meta) -> Result<Done> {
        let owned = match self.mirror.stat_if_there(path)?.map(|stat| stat.kind) {
            None => return Ok(Done::Drift("the file is not on the standby; it is sent again")),
            Some(FileKind::Symlink) => self.mirror.set_link_meta(path, meta)?,
            Some(_) => self.mirror.set_meta(path, meta)?,
        };
        self.owners_left |= !owned;
        Ok(Done::Yes)
    }

    fn remove(&mut self, path: &TreePath, wanted: Mark) -> Result<Done> {
        match self.mirror.stat_if_there(path)? {
            None => Ok(Done::Yes),
            Some(stat) if stat.kind != FileKind::Directory && mark(&stat) == wanted => {
                self.mirror.remove(path)?;
                Ok(Done::Yes)
            }
            Some(_) => Ok(Done::Drift("it was to be removed, and is not what was expected: left alone for now")),
        }
    }

    // ---- the folder's lock ----

    /// Takes a folder's lock as Dovecot takes it. `None` where there is nothing to lock, or it cannot be had.
    fn lock_folder(&mut self, unit: &TreePath, changes: &[Change]) -> Result<Option<TreePath>> {
        let only_structure = changes.iter().all(|change| {
            matches!(
                change,
                Change::RenameDirectory { .. }
                    | Change::RemoveDirectory { .. }
                    | Change::MakeDirectory { .. }
                    | Change::Forget { .. }
            )
        });
        if only_structure {
            return Ok(None);
        }
        // A folder without a uidlist has never been opened, or is being made right now.
        let uidlist = unit.child("dovecot-uidlist");
        let Some(stat) = self.mirror.stat_if_there(&uidlist)? else { return Ok(None) };
        let lock = unit.child("dovecot-uidlist.lock");
        // Written beside the mirror and linked into place, so that nobody sees it empty.
        let temporary = TreePath::root().child("uidlist.lock");
        match self.write_lock(&temporary, &Meta { mode: 0o600, uid: stat.uid, gid: stat.gid, ..Meta::default() }) {
            Ok(()) => {}
            Err(error) if is_fatal(&error) => return Err(error.into()),
            // No permission in the folder: what is to be done in it will say so.
            Err(_) => return Ok(None),
        }
        let taken = self.link_lock(&temporary, &lock);
        self.staging.root().remove(&temporary)?;
        match taken? {
            true => Ok(Some(lock)),
            false => {
                let subject = self.mirror.show(&lock);
                let reason = "a mail server held this lock all the time: the folder was changed without it".to_owned();
                self.problems.push(Problem { subject, reason });
                Ok(None)
            }
        }
    }

    fn write_lock(&self, temporary: &TreePath, meta: &Meta) -> std::result::Result<(), DiskError> {
        let root = self.staging.root();
        let mut writer = match root.create(temporary, 0o600) {
            Err(error) if error.already_exists() => {
                root.remove(temporary)?;
                root.create(temporary, 0o600)?
            }
            other => other?,
        };
        writer.write(format!("{}:{}", std::process::id(), host_name()).as_bytes())?;
        // Dovecot watches the file, as the mail user.
        root.set_fresh_meta(temporary, meta, 0o600).map(drop)
    }

    fn link_lock(&self, temporary: &TreePath, lock: &TreePath) -> Result<bool> {
        let begin = Instant::now();
        loop {
            match self.staging.root().link_into(temporary, &self.mirror, lock) {
                Ok(()) => return Ok(true),
                Err(error) if !error.already_exists() => return Err(error.into()),
                Err(_) if self.is_stale(lock) => match self.mirror.remove(lock) {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                },
                Err(_) if begin.elapsed() > LOCK_WAIT => return Ok(false),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Whether a lock's owner is gone: same host and no such process, or two minutes without a touch.
    fn is_stale(&self, lock: &TreePath) -> bool {
        let Ok(Some(stat)) = self.mirror.stat_if_there(lock) else { return false };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        if now.as_secs() as i64 - stat.ctime.seconds > LOCK_STALE.as_secs() as i64 {
            return true;
        }
        let mut text = String::new();
        let read = self.mirror.open_file(lock).ok().and_then(|file| file.take(300).read_to_string(&mut text).ok());
        let owner = read.and_then(|_| text.trim().split_once(':'));
        owner.is_some_and(|(pid, host)| host == host_name() && !is_running(pid))
    }
}

fn is_running(pid: &str) -> bool {
    let number = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    match number {
        Some(pid) => rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH),
        None => true,
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Directories whose times a change moves, or whose metadata it sets.
fn places(change: &Change) -> Vec<TreePath> {
    match change {
        Change::MakeDirectory { path, .. } => vec![path.clone(), path.parent()],
        Change::RenameDirectory { from, to } => vec![from.parent(), to.parent(), to.clone()],
        Change::Rename { from, to, .. } => vec![from.parent(), to.parent()],
        Change::Forget { .. } => Vec::new(),
        other => vec![other.path().parent()],
    }
}

/// Whether the disk as a whole refuses, so that going on would only repeat it.
fn is_fatal(error: &DiskError) -> bool {
    let io = error.source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    let read_only = error.source.raw_os_error() == Some(rustix::io::Errno::ROFS.raw_os_error());
    error.is_full() || io || read_only
}
