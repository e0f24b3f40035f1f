//! The one hand that changes a mirror.
//!
//! Everything it does is durable in the log before, so each change can be done twice: one that finds its
//! result in place has been done. Before anything is replaced or removed it is looked at again; what is not
//! as the catalogue says is left alone, said, and its directory is read again and put right.
//!
//! A folder that a mail server may have open is changed under its `dovecot-uidlist.lock` (DOVECOT.md 8.4).

use super::SyncError;
use super::staging::{self, Staging};
use crate::catalogue::directory::Row;
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::mark;
use crate::disk::{DiskError, FileKind, Root};
use crate::maildir::change::{Change, Source};
use crate::maildir::control;
use crate::maildir::entry::{File, Look, Mark, Meta};
use crate::maildir::folder::{self, SetKind};
use crate::monitor::Problem;
use crate::path::TreePath;
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::sync::Arc;

mod lock;
mod strangers;

use strangers::Whereabouts;

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
    /// A log is done again after a crash: what is not found has been put in place before, and has another name
    /// by now.
    pub does_again: bool,
    /// An owner could not be set.
    pub owners_left: bool,
    next_copy: u64,
    /// Patched files that are durable.
    synced: BTreeSet<u64>,
    /// Files of the mirror whose copies may not be durable: the log says only where they are copied from.
    copied_from: BTreeSet<TreePath>,
    /// Owner and group of the lock's file, where it is written.
    lock_owner: Option<(u32, u32)>,
    /// The inode of the lock's file that an earlier process wrote.
    leftover_lock: Option<u64>,
    /// How this hand left the directories that it changed.
    looks: HashMap<TreePath, Look>,
    /// Folders that are changed whole or not at all, and were not.
    left_out: BTreeSet<TreePath>,
    /// Mailboxes in which something could not be done: nothing is removed in them.
    unfinished: BTreeSet<TreePath>,
    /// The folder that was listed last, while it is locked.
    whereabouts: Option<(TreePath, Whereabouts)>,
}

/// Patched files that are synced one by one; more share a sync of the file system.
const SYNCED_ALONE: usize = 4;

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
        let leftover_lock = lock::leftover(&staging);
        Self {
            mirror,
            staging,
            kind,
            drifted: BTreeSet::new(),
            problems: Vec::new(),
            does_again: false,
            owners_left: false,
            // Numbers of copies made here do not meet those of contents shipped.
            next_copy: 1 << 62,
            synced: BTreeSet::new(),
            copied_from: BTreeSet::new(),
            lock_owner: None,
            leftover_lock,
            looks: HashMap::new(),
            left_out: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            whereabouts: None,
        }
    }

    /// What has drifted has been looked at again: the hand begins anew.
    pub fn forget_drift(&mut self) {
        self.drifted.clear();
        self.left_out.clear();
        self.unfinished.clear();
    }

    /// Does a batch. The catalogue has it already: `edit` tells what directories should look like.
    ///
    /// # Errors
    /// Where the disk refuses everything, as a full one does; the batch is then done again by the next run.
    pub fn batch(&mut self, changes: &[Change], contents: &dyn Contents, edit: &mut Edit<'_>) -> Result<()> {
        self.patch_ahead(changes, contents)?;
        let mut touched = BTreeSet::new();
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let unit = self.unit_of(first);
            let length = rest.iter().take_while(|change| self.unit_of(change) == unit).count();
            let (group, after) = rest.split_at(length);
            self.group(&unit, group, contents, &mut touched, edit)?;
            rest = after;
        }
        self.finish_directories(touched, edit)
    }

    /// Many files that are patched are made durable together.
    fn patch_ahead(&mut self, changes: &[Change], contents: &dyn Contents) -> Result<()> {
        let mut patched = BTreeSet::new();
        let deltas = changes.iter().filter_map(|change| match change {
            Change::Put { path, file, source: Source::Delta(number), .. } => Some((path, file, *number)),
            _ => None,
        });
        let deltas: Vec<(&TreePath, &File, u64)> = deltas.collect();
        if deltas.len() <= SYNCED_ALONE {
            return Ok(());
        }
        for (path, file, number) in deltas {
            if self.patched(number, path, file, contents)? {
                patched.insert(number);
            }
        }
        self.mirror.sync_file_system()?;
        self.synced.append(&mut patched);
        Ok(())
    }

    /// A file that others were copied from goes: the copies must last by themselves.
    fn let_go(&mut self, change: &Change) -> Result<()> {
        let goes = match change {
            Change::Put { path, .. } | Change::Symlink { path, .. } | Change::Link { path, .. } => path,
            Change::Remove { path, .. } | Change::Rename { from: path, .. } => path,
            Change::RemoveDirectory { path } | Change::RenameDirectory { from: path, .. } => path,
            Change::MakeDirectory { .. } | Change::SetMeta { .. } | Change::Forget { .. } => return Ok(()),
        };
        if self.copied_from.iter().any(|from| from.is_within(goes)) {
            self.mirror.sync_file_system()?;
            self.copied_from.clear();
        }
        Ok(())
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
        edit: &mut Edit<'_>,
    ) -> Result<()> {
        let lock = match self.kind {
            SetKind::Files => None,
            SetKind::Maildir => self.lock_folder(unit, changes)?,
        };
        self.whereabouts = None;
        self.meet_strangers(changes, edit)?;
        let is_left_out = self.left_out.contains(unit) || !self.can_begin(changes, contents)?;
        if is_left_out {
            self.left_out.insert(unit.clone());
            self.leave_out(changes, edit)?;
        }
        for change in changes {
            if is_left_out && !is_structure(change) {
                continue;
            }
            self.open_up(change, touched)?;
            self.change(change, contents, touched, edit)?;
        }
        if lock.is_some() {
            // Dovecot looks at a folder again when its times change.
            let cur = unit.child("cur");
            if self.mirror.stat_if_there(&cur)?.is_some() {
                self.mirror.set_directory_time(&cur, None)?;
                touched.insert(cur);
            }
            touched.insert(unit.clone());
        }
        self.take_leave(unit, changes)?;
        if let Some(lock) = lock {
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

    fn change(
        &mut self,
        change: &Change,
        contents: &dyn Contents,
        touched: &mut BTreeSet<TreePath>,
        edit: &mut Edit<'_>,
    ) -> Result<()> {
        touched.extend(places(change));
        if self.must_wait(change, edit)? {
            self.drifted.extend(places(change));
            return Ok(());
        }
        self.let_go(change)?;
        let reason = match self.attempt(change, contents, edit) {
            Ok(Done::Yes) => return Ok(()),
            Ok(Done::Drift(reason)) => reason.to_owned(),
            Err(SyncError::Disk(error)) if !is_fatal(&error) => format!("{}: {}", error.operation, error.source),
            Err(error) => return Err(error),
        };
        let subject = self.mirror.show(change.path());
        self.problems.push(Problem { subject, reason });
        self.drifted.extend(places(change));
        if !self.does_again {
            self.unfinished.insert(edit.mailbox_of(change.path())?);
        }
        Ok(())
    }

    fn attempt(&mut self, change: &Change, contents: &dyn Contents, edit: &mut Edit<'_>) -> Result<Done> {
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
            Change::Rename { from, to, mark } => self.rename(from, to, *mark, edit),
            Change::SetMeta { path, meta, .. } => self.set_meta(path, meta),
            Change::Remove { path, mark } => self.remove(path, *mark, edit),
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
            let Some(Row { meta, .. }) = edit.row(&path)? else { continue };
            if meta.mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
                self.mirror.set_meta(&path, &meta)?;
            }
            let mtime = meta.mtime;
            let time = match mtime {
                Some(_) => self.mirror.set_directory_time(&path, mtime),
                None => Ok(()),
            };
            let stat = time.and_then(|()| self.mirror.stat(&path));
            match stat {
                Ok(_) if self.drifted.contains(&path) => edit.looked(&path, None)?,
                Ok(stat) => edit.looked(&path, Some(self.look_left(&path, stat.look())))?,
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => {
                    let reason = format!("{}: {}", error.operation, error.source);
                    self.problems.push(Problem { subject: error.path, reason });
                    edit.looked(&path, None)?;
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
                // A file of that number is not enough: a crash may have left less than the content in it.
                let is_staged = contents.stage(&self.staging, *number, &file.digest)?;
                if !is_staged || self.staging.digest(*number) != Some(file.digest) {
                    return self.put_before(path, file);
                }
                *number
            }
            Source::Copied(from) => {
                self.next_copy += 1;
                match self.copy(self.next_copy, from, file)? {
                    true => {
                        self.copied_from.insert(from.clone());
                        self.next_copy
                    }
                    false => return self.put_before(path, file),
                }
            }
            Source::Delta(number) => {
                if !self.patched(*number, path, file, contents)? {
                    return self.put_before(path, file);
                }
                // The log has the difference only, and its base goes now: what replaces it must last.
                if !self.synced.remove(number) {
                    self.staging.sync(*number)?;
                }
                *number
            }
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
        Ok(match self.is_in_place(path, file)? {
            true => Done::Yes,
            false => Done::Drift("the version that it is made from is not on the standby; it is sent again"),
        })
    }

    fn is_in_place(&self, path: &TreePath, file: &File) -> Result<bool> {
        let stat = self.mirror.stat_if_there(path)?;
        Ok(stat.is_some_and(|stat| stat.kind == FileKind::File && stat.size == file.size)
            && self
                .mirror
                .open_file(path)
                .is_ok_and(|mut there| staging::hash(&mut there).is_ok_and(|digest| digest == file.digest)))
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
            _ => match self.find_again(existing, wanted)?.pop() {
                Some(elsewhere) => return self.link(path, &elsewhere, wanted),
                None => {
                    return Ok(Done::Drift("the file that it is a link of is not on the standby; it is sent again"));
                }
            },
        }
        if here.is_some() {
            self.mirror.remove(path)?;
        }
        self.mirror.link(existing, path)?;
        Ok(Done::Yes)
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath, wanted: Mark, edit: &mut Edit<'_>) -> Result<Done> {
        match self.mirror.stat_if_there(from)? {
            Some(stat) if mark(&stat) == wanted => {
                self.mirror.rename(from, to)?;
                Ok(Done::Yes)
            }
            _ => {
                if self.mirror.stat_if_there(to)?.is_some_and(|stat| mark(&stat) == wanted) {
                    return Ok(Done::Yes);
                }
                match self.find_renamed(from, wanted, edit)? {
                    Some(elsewhere) => self.mirror.rename(&elsewhere, to)?,
                    None => {
                        return Ok(Done::Drift("the message is not on the standby as it should be; it is sent again"));
                    }
                }
                Ok(Done::Yes)
            }
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

    fn remove(&mut self, path: &TreePath, wanted: Mark, edit: &mut Edit<'_>) -> Result<Done> {
        match self.mirror.stat_if_there(path)? {
            None => {
                if let Some(elsewhere) = self.find_renamed(path, wanted, edit)? {
                    self.mirror.remove(&elsewhere)?;
                }
                Ok(Done::Yes)
            }
            Some(stat) if stat.kind != FileKind::Directory && mark(&stat) == wanted => {
                self.mirror.remove(path)?;
                Ok(Done::Yes)
            }
            Some(_) => Ok(Done::Drift("it was to be removed, and is not what was expected: left alone for now")),
        }
    }
}

/// Whether a change is one of directories only, which no lock of a folder protects.
fn is_structure(change: &Change) -> bool {
    matches!(
        change,
        Change::RenameDirectory { .. }
            | Change::RemoveDirectory { .. }
            | Change::MakeDirectory { .. }
            | Change::Forget { .. }
    )
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
