//! Restoring into a mailbox that is in use: what is gone comes back, and nothing that is there is touched (I8).
//!
//! A message is known by its base name and content. One that is not in its folder any more comes back under a base name
//! of its own: a mail server gives it a new UID, whatever its uidlist still says of the old name (DOVECOT.md 8.11). The
//! name is made from the old one, so that a second restore finds what the first one put there.

use super::{Report, Restore, RestoreError, Result, Wanted, is_same};
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::mark;
use crate::catalogue::store::Catalogue;
use crate::disk::{DiskError, FileKind, Root, Stat};
use crate::id::Digest;
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{File, Mark, Meta};
use crate::maildir::folder::{self, SetKind};
use crate::maildir::{control, name};
use crate::path::{Name, TreePath};
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use crate::sync::SyncError;
use crate::sync::apply::{Arrived, Hand};
use crate::sync::staging::Staging;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

mod flags;
mod surplus;

pub use flags::Flags;
use surplus::Surplus;

/// Longest control file that is looked into.
const CONTROL_MAX: u64 = 64 << 20;

/// How much of a tree is made as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    /// What is gone comes back; nothing that is there is touched.
    #[default]
    Missing,
    /// And what is there with another content gets the one that it had.
    Changed,
    /// And what was not there goes.
    Mirror,
}

/// What to do.
#[derive(Default)]
pub struct Order<'a> {
    /// How much.
    pub mode: Mode,
    /// The flags of messages that are there.
    pub flags: Flags,
    /// The name of a folder's directory: every message is filed into that folder of its mailbox, and nothing but
    /// messages; users see the folder subscribed.
    pub into: Option<Name>,
    /// Count, and write nothing.
    pub dry_run: bool,
    /// What was there was kept as this: nothing else is removed. A mail server asks for no lock, and may have put
    /// something there since.
    pub kept: Option<&'a View>,
}

/// Puts a tree in order. With [`Mode::Missing`] what is gone is added, and nothing else touched.
///
/// # Errors
/// Where the tree is not there, another run writes to it, or the disk refuses.
pub fn restore(view: &View, wanted: Wanted<'_>, target: &Path, order: &Order<'_>) -> Result<Report> {
    let root = Arc::new(Root::open(target)?);
    let _lock = root.lock_directory()?.ok_or_else(|| {
        RestoreError::Sync(SyncError::Locked(format!(
            "another run is writing to {}: wait until it has ended",
            root.show(&TreePath::root())
        )))
    })?;
    let own = TreePath::root().child(super::OWN);
    let was_there = root.stat_if_there(&own)?.is_some();
    let staging = match order.dry_run {
        true => None,
        false => Some(Arc::new(Staging::open(&root.make_own(super::OWN)?)?)),
    };
    let (folders, report) = (BTreeMap::new(), Report::default());
    let mut filing = Filing { view, root: root.clone(), order, folders, claimed: HashSet::new(), report };
    for record in view.beneath(&TreePath::root()) {
        match record {
            Ok(record) if wanted(&record) => filing.take(&record)?,
            Ok(_) => {}
            Err(error) => filing.problem(String::new(), error.to_string()),
        }
    }
    let surplus = match order.mode {
        Mode::Mirror => Surplus::find(&filing, wanted)?,
        _ => Surplus::default(),
    };
    let Filing { folders, mut report, .. } = filing;
    if order.dry_run {
        report.removed += surplus.count();
    }
    if let Some(staging) = staging {
        let filed = put(view, &root, &staging, folders, &surplus, order, &mut report);
        if !was_there {
            root.remove_directory(&own)?;
        }
        filed?;
    }
    Ok(report)
}

/// What is to be put into the folders of a tree.
struct Filing<'a> {
    view: &'a View,
    root: Arc<Root>,
    order: &'a Order<'a>,
    folders: BTreeMap<TreePath, Folder>,
    /// What is there and belongs there.
    claimed: HashSet<TreePath>,
    report: Report,
}

/// A folder as it is, and what is to come into it.
#[derive(Default)]
struct Folder {
    /// It is not there: these directories are made first.
    directories: Vec<(TreePath, Meta)>,
    /// The messages that are there, by base name.
    there: HashMap<Vec<u8>, Vec<TreePath>>,
    /// Base names that mean something already.
    taken: HashSet<Vec<u8>>,
    /// For each keyword letter of the point the letter that it has here.
    letters: HashMap<u8, u8>,
    /// What is to be done to it.
    work: Vec<Work>,
    /// It was there, and is made though nothing comes into it.
    is_wanted: bool,
}

/// One thing to do in a folder.
enum Work {
    /// A record comes back at this path.
    Comes(Record, TreePath),
    /// What is at the path gets the content of the record.
    Replaces(Record, TreePath),
    /// A message gets other flags: its name so far, and its new one.
    Flags(TreePath, TreePath),
    /// A file gets the permissions and owners of the record.
    Meta(TreePath, Meta),
}

impl Filing<'_> {
    fn problem(&mut self, subject: String, reason: String) {
        self.report.failed += 1;
        self.report.problems.push(crate::monitor::Problem { subject, reason });
    }

    fn take(&mut self, record: &Record) -> Result<()> {
        let Some((_, what)) = &record.state else { return Ok(()) };
        let path = &record.path;
        if *what == What::Directory {
            return self.directory(path);
        }
        let is_message = matches!(what, What::File { .. }) && folder::holds_messages(path.parent().name());
        let then = if is_message { path.parent().parent() } else { path.parent() };
        let home = match &self.order.into {
            None => then.clone(),
            Some(name) if is_message => mailbox_of(&then).join(name),
            Some(_) => return Ok(()),
        };
        self.open(&home, &then)?;
        match is_message {
            true => self.message(record, &home),
            false => self.other(record, &home),
        }
    }

    /// A directory that is gone comes back, though nothing may have been in it.
    fn directory(&mut self, path: &TreePath) -> Result<()> {
        if self.order.into.is_some() || path.is_root() || self.root.stat_if_there(path)?.is_some() {
            return Ok(());
        }
        let home = if folder::is_part(path.name()) { path.parent() } else { path.clone() };
        self.open(&home, &home)?;
        if let Some(folder) = self.folders.get_mut(&home) {
            folder.is_wanted = true;
        }
        Ok(())
    }

    /// Looks at a folder, once. Where it is not there it becomes like what `then` was.
    fn open(&mut self, home: &TreePath, then: &TreePath) -> Result<()> {
        if self.folders.contains_key(home) {
            return Ok(());
        }
        let mut folder = Folder::default();
        let mut above = Some(home.clone());
        while let Some(path) = above {
            if self.root.stat_if_there(&path)?.is_some() {
                break;
            }
            let like = if path == *home { then } else { &path };
            let meta = match self.view.get(like)? {
                Some((meta, What::Directory)) => meta,
                _ => Meta { mode: 0o700, ..Meta::default() },
            };
            above = (!path.is_root()).then(|| path.parent());
            folder.directories.push((path, meta));
        }
        folder.directories.reverse();
        if self.view.get(&then.child("cur"))?.is_some() {
            self.look(home, then, &mut folder)?;
        }
        self.folders.insert(home.clone(), folder);
        Ok(())
    }

    fn look(&self, home: &TreePath, then: &TreePath, folder: &mut Folder) -> Result<()> {
        for name in folder::PARTS {
            let part = home.child(name);
            match self.root.stat_if_there(&part)? {
                None => {
                    let meta = self.view.get(&then.child(name))?.map_or_else(Meta::default, |(meta, _)| meta);
                    folder.directories.push((part, Meta { mtime: None, ..meta }));
                }
                Some(_) if folder::holds_messages(part.name()) => {
                    let (listing, _) = self.root.list(&part, 1024)?;
                    for entry in &listing.entries {
                        let base = name::base(entry.name.as_bytes()).to_vec();
                        folder.taken.insert(base.clone());
                        folder.there.entry(base).or_default().push(part.join(&entry.name));
                    }
                }
                Some(_) => {}
            }
        }
        let uidlist = self.read(&home.child("dovecot-uidlist"))?.unwrap_or_default();
        folder.taken.extend(listed(&uidlist));
        let then = self.then(&then.child("dovecot-keywords"))?;
        let now = match self.read(&home.child("dovecot-keywords"))? {
            Some(now) => now,
            // It comes back as it was, and the letters with it.
            None if self.order.into.is_none() => then.clone(),
            None => Vec::new(),
        };
        let (then, now) = (control::keyword_names(&then), control::keyword_names(&now));
        for (letter, keyword) in then {
            if let Some((here, _)) = now.iter().find(|(_, other)| *other == keyword) {
                folder.letters.insert(letter, *here);
            }
        }
        Ok(())
    }

    /// A control file as it is.
    fn read(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match self.root.open_file(path) {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
            Ok(file) => {
                // What cannot be read whole is asked less of.
                let _ = file.take(CONTROL_MAX).read_to_end(&mut bytes);
                Ok(Some(bytes))
            }
        }
    }

    /// A control file as it was.
    fn then(&self, path: &TreePath) -> Result<Vec<u8>> {
        let Some(state) = self.view.get(path)? else { return Ok(Vec::new()) };
        let record = Record { path: path.clone(), state: Some(state) };
        let read = match &record.state {
            _ if self.view.is_patched(path) => self.view.patch(&record),
            Some((_, What::File { place: Some(place), .. })) => self.view.contents.bytes(*place),
            _ => return Ok(Vec::new()),
        };
        Ok(read.map(|(bytes, _)| bytes).unwrap_or_default())
    }

    fn message(&mut self, record: &Record, home: &TreePath) -> Result<()> {
        let Some((_, What::File { size, check, .. })) = &record.state else { return Ok(()) };
        let old = record.path.name();
        let (base, info) = old.split_at(name::base(old).len());
        let Some(folder) = self.folders.get(home) else { return Ok(()) };
        let mut fresh = None;
        for number in 0.. {
            let candidate = if number == 0 { base.to_vec() } else { restored(base, number) };
            let there = folder.there.get(&candidate).cloned().unwrap_or_default();
            for path in &there {
                if is_same(&self.root, path, *size, *check)? {
                    let info = translated(info, &folder.letters);
                    self.is_there(home, path, &info);
                    return Ok(());
                }
            }
            // A message never changes: what is there under its very name is not what arrived.
            if let (Some(path), 0, None, true) =
                (there.first(), number, &self.order.into, self.order.mode > Mode::Missing)
            {
                self.replaces(record, home, path.clone());
                return Ok(());
            }
            let Some(folder) = self.folders.get(home) else { return Ok(()) };
            let is_free = !folder.taken.contains(&candidate);
            // In a folder of their own the old names mean nothing yet.
            if is_free && (number > 0 || self.order.into.is_some()) {
                fresh = Some(candidate);
                break;
            }
        }
        let Some(fresh) = fresh.filter(|fresh| fresh.len() + info.len() <= crate::path::NAME_MAX) else {
            self.problem(self.root.show(&record.path), "there is no free name for it".to_owned());
            return Ok(());
        };
        let Some(folder) = self.folders.get_mut(home) else { return Ok(()) };
        let info: Vec<u8> = translated(info, &folder.letters);
        // Read, or flagged in any way: no longer new.
        let part = if info.is_empty() { "new" } else { "cur" };
        folder.taken.insert(fresh.clone());
        let full = [fresh, info].concat();
        let full = Name::new(&full).map_err(|error| RestoreError::Failed(error.to_string()))?;
        folder.work.push(Work::Comes(record.clone(), home.child(part).join(&full)));
        self.count(*size);
        Ok(())
    }

    fn count(&mut self, size: u64) {
        if self.order.dry_run {
            self.report.created += 1;
            self.report.bytes += size;
        }
    }

    /// A message that is in its folder: its flags may change, and nothing else.
    fn is_there(&mut self, home: &TreePath, path: &TreePath, then: &[u8]) {
        self.claimed.insert(path.clone());
        let name = match self.order.into {
            None => flags::renamed(path.name(), then, self.order.flags),
            Some(_) => None,
        };
        let to = name.and_then(|name| Name::new(&name).ok()).map(|name| home.child("cur").join(&name));
        match (to, self.folders.get_mut(home)) {
            (Some(to), Some(folder)) => {
                folder.work.push(Work::Flags(path.clone(), to));
                self.report.merged += 1;
            }
            _ => self.report.skipped += 1,
        }
    }

    fn replaces(&mut self, record: &Record, home: &TreePath, path: TreePath) {
        self.claimed.insert(path.clone());
        if let Some(folder) = self.folders.get_mut(home) {
            folder.work.push(Work::Replaces(record.clone(), path));
        }
        if self.order.dry_run {
            self.report.replaced += 1;
        }
    }

    /// Other files come back where nothing has their name. A uidlist does not: it would promise UIDs to a mail server
    /// that has begun another list, or will.
    fn other(&mut self, record: &Record, home: &TreePath) -> Result<()> {
        let is_uid = record.path.name().starts_with(b"dovecot-uid");
        if is_uid {
            return Ok(());
        }
        if let Some(stat) = self.root.stat_if_there(&record.path)? {
            return self.other_is_there(record, home, &stat);
        }
        if let Some(folder) = self.folders.get_mut(home) {
            folder.work.push(Work::Comes(record.clone(), record.path.clone()));
        }
        let size = match &record.state {
            Some((_, What::File { size, .. })) => *size,
            _ => 0,
        };
        self.count(size);
        Ok(())
    }

    fn other_is_there(&mut self, record: &Record, home: &TreePath, stat: &Stat) -> Result<()> {
        let path = record.path.clone();
        self.claimed.insert(path.clone());
        let Some((meta, what)) = &record.state else { return Ok(()) };
        // The letters of the messages that are there mean what this one says, and the quota is theirs.
        let is_of_now = matches!(path.name(), b"dovecot-keywords" | b"maildirsize");
        if self.order.mode == Mode::Missing || is_of_now {
            self.report.skipped += 1;
            return Ok(());
        }
        let is_same = match what {
            What::File { size, check, .. } => is_same(&self.root, &path, *size, *check)?,
            What::Symlink(target) => stat.kind == FileKind::Symlink && self.root.read_link(&path)? == *target,
            What::Directory => true,
        };
        if !is_same {
            self.replaces(record, home, path);
            return Ok(());
        }
        let is_root = rustix::process::geteuid().is_root();
        let is_owned = (stat.uid, stat.gid) == (meta.uid, meta.gid) || !is_root;
        if stat.kind == FileKind::File && !(stat.mode == meta.mode && is_owned) {
            if let Some(folder) = self.folders.get_mut(home) {
                folder.work.push(Work::Meta(path, meta.clone()));
            }
            self.report.replaced += 1;
        } else {
            self.report.skipped += 1;
        }
        Ok(())
    }
}

/// The mailbox of a folder: itself, or the directory above a Maildir++ folder.
fn mailbox_of(folder: &TreePath) -> TreePath {
    if folder.name().starts_with(b".") { folder.parent() } else { folder.clone() }
}

/// A list of subscriptions with one more folder in it; `None` where it is in it. Dovecot's second version has a head,
/// and tabs between the levels of a name.
fn subscribed(list: &[u8], folder: &Name) -> Option<Vec<u8>> {
    let name = folder.as_bytes().strip_prefix(b".").unwrap_or(folder.as_bytes());
    let is_second = list.is_empty() || list.starts_with(b"V\t2");
    let line: Vec<u8> = name.iter().map(|&byte| if is_second && byte == b'.' { b'\t' } else { byte }).collect();
    if list.split(|&byte| byte == b'\n').any(|other| other == line) {
        return None;
    }
    let head: &[u8] = if list.is_empty() { b"V\t2\n\n" } else { b"" };
    let gap: &[u8] = if list.is_empty() || list.ends_with(b"\n") { b"" } else { b"\n" };
    Some([head, list, gap, line.as_slice(), b"\n"].concat())
}

/// The base name under which a message comes back for the `number`-th time: in the part that no mail server looks into.
fn restored(base: &[u8], number: u32) -> Vec<u8> {
    let end = base.iter().position(|&byte| byte == b',').unwrap_or(base.len());
    [&base[..end], format!("-restored{number}").as_bytes(), &base[end..]].concat()
}

/// The flags of a name, with the letters that keywords have in the folder as it is. A keyword that it does not have is
/// left out.
fn translated(info: &[u8], letters: &HashMap<u8, u8>) -> Vec<u8> {
    let Some(flags) = info.strip_prefix(b":2,") else { return info.to_vec() };
    let kept = flags.iter().filter_map(|flag| match flag {
        b'a'..=b'z' => letters.get(flag).copied(),
        other => Some(*other),
    });
    let mut kept: Vec<u8> = kept.collect();
    kept.sort_unstable();
    kept.dedup();
    [b":2,", kept.as_slice()].concat()
}

/// The base names that a uidlist mentions.
fn listed(uidlist: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    uidlist.split(|&byte| byte == b'\n').skip(1).filter_map(|line| {
        let at = line.windows(2).position(|pair| pair == b" :")?;
        Some(name::base(&line[at + 2..]).to_vec())
    })
}

/// Puts everything in place, folder by folder, each under its lock; what goes, goes last.
fn put(
    view: &View,
    root: &Arc<Root>,
    staging: &Arc<Staging>,
    folders: BTreeMap<TreePath, Folder>,
    surplus: &Surplus,
    order: &Order<'_>,
    report: &mut Report,
) -> Result<()> {
    // The hand asks a catalogue how directories should look; this one forgets it all.
    let catalogue = Catalogue::open_dry(None)?;
    let transaction = catalogue.begin()?;
    {
        let mut edit = Edit::new(&transaction)?;
        let mut hand = Hand::new(root.clone(), staging.clone(), SetKind::Maildir);
        let mut restore = Restore::new(view, root.clone(), staging.clone());
        for (home, folder) in folders.into_iter().filter(|(_, folder)| folder.is_wanted || !folder.work.is_empty()) {
            let mut made: HashSet<TreePath> = HashSet::new();
            let mut changes = Vec::new();
            for (path, meta) in folder.directories {
                if !made.contains(&path.parent()) {
                    know(&mut edit, root, &path.parent())?;
                }
                made.insert(path.clone());
                changes.push(Change::MakeDirectory { path, meta: Meta { mtime: None, ..meta } });
            }
            for work in folder.work {
                changes.extend(restore.work(work, &made, &mut edit)?);
                if changes.len() >= super::BATCH_CHANGES {
                    apply(&mut hand, &mut edit, std::mem::take(&mut changes))?;
                }
            }
            apply(&mut hand, &mut edit, changes)?;
            if let Some(name) = &order.into {
                let change = restore.subscription(&home.parent(), name)?;
                know(&mut edit, root, &home.parent())?;
                apply(&mut hand, &mut edit, change.into_iter().collect())?;
            }
        }
        // Nothing goes where something could not come.
        if restore.report.failed == 0 && hand.problems.is_empty() {
            report.removed += surplus.remove(root, &mut hand, &mut edit)?;
        }
        hand.put_lock_away()?;
        root.sync_file_system()?;
        report.add(&restore.report);
        report.failures(&mut hand.problems);
        if hand.owners_left {
            report.warnings.push("not root: files keep the owner that runs mailtwin".to_owned());
        }
    }
    Ok(transaction.abort()?)
}

/// Notes a directory that is there, and those above it.
fn know(edit: &mut Edit<'_>, root: &Root, path: &TreePath) -> Result<()> {
    if edit.directory(path)?.is_some() {
        return Ok(());
    }
    if !path.is_root() {
        know(edit, root, &path.parent())?;
    }
    let stat = root.stat(path)?;
    let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: None, xattrs: root.xattrs(path)? };
    Ok(edit.apply(&Change::MakeDirectory { path: path.clone(), meta })?)
}

/// Notes a file that is there; gives how it looks.
fn know_file(edit: &mut Edit<'_>, root: &Root, path: &TreePath) -> Result<Mark> {
    know(edit, root, &path.parent())?;
    let stat = root.stat(path)?;
    let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: Some(stat.mtime), xattrs: Vec::new() };
    let mark = mark(&stat);
    let file = File { size: mark.size, digest: Digest::default(), group: 0 };
    edit.apply(&Change::Put { path: path.clone(), meta, file, source: Source::Shipped(0) })?;
    Ok(mark)
}

fn apply(hand: &mut Hand, edit: &mut Edit<'_>, changes: Vec<Change>) -> Result<()> {
    for change in &changes {
        edit.apply(change)?;
    }
    edit.flush()?;
    Ok(hand.batch(&changes, &Arrived, edit)?)
}

impl Restore<'_> {
    /// The change that makes users of a mailbox see a folder; none where they do.
    fn subscription(&mut self, mailbox: &TreePath, name: &Name) -> Result<Option<Change>> {
        let path = mailbox.child("subscriptions");
        let like = self.root.stat_if_there(&path)?;
        let mut list = Vec::new();
        if like.is_some() {
            let file = self.root.open_file(&path)?;
            let failed = |source| DiskError { operation: "cannot read", path: self.root.show(&path), source };
            file.take(CONTROL_MAX).read_to_end(&mut list).map_err(failed)?;
        }
        let Some(bytes) = subscribed(&list, name) else { return Ok(None) };
        let stat = match like {
            Some(stat) => stat,
            None => self.root.stat(mailbox)?,
        };
        let meta = Meta { mode: stat.mode & 0o666, uid: stat.uid, gid: stat.gid, ..Meta::default() };
        self.next_number += 1;
        let (number, digest) = (self.next_number, Digest::of(&bytes));
        self.stage_whole(number, &bytes, digest)?;
        let file = File { size: bytes.len() as u64, digest, group: 0 };
        Ok(Some(Change::Put { path, meta, file, source: Source::Shipped(number) }))
    }

    /// The change that does a piece of work; none where a content is damaged, which is noted. `made` are directories
    /// that are not there yet.
    fn work(&mut self, work: Work, made: &HashSet<TreePath>, edit: &mut Edit<'_>) -> Result<Option<Change>> {
        match work {
            Work::Comes(record, path) => {
                if !made.contains(&path.parent()) {
                    know(edit, &self.root, &path.parent())?;
                }
                let change = self.coming(&record, &path)?;
                self.report.created += u64::from(change.is_some());
                Ok(change)
            }
            Work::Replaces(record, path) => {
                know(edit, &self.root, &path.parent())?;
                let change = self.coming(&record, &path)?;
                self.report.replaced += u64::from(change.is_some());
                Ok(change)
            }
            Work::Flags(from, to) => {
                let mark = know_file(edit, &self.root, &from)?;
                know(edit, &self.root, &to.parent())?;
                Ok(Some(Change::Rename { from, to, mark }))
            }
            Work::Meta(path, meta) => {
                know_file(edit, &self.root, &path)?;
                Ok(Some(Change::SetMeta { path, meta, group: 0 }))
            }
        }
    }

    /// The change that brings a record back at a path; none where its content is damaged, which is noted.
    fn coming(&mut self, record: &Record, path: &TreePath) -> Result<Option<Change>> {
        let Some((meta, what)) = &record.state else { return Ok(None) };
        let (path, meta) = (path.clone(), meta.clone());
        match what {
            What::Directory => Ok(None),
            What::Symlink(target) => Ok(Some(Change::Symlink { path, meta, target: target.clone() })),
            What::File { size, check, .. } => {
                let Some((number, digest)) = self.staged(record, *check)? else { return Ok(None) };
                self.report.bytes += size;
                let file = File { size: *size, digest, group: 0 };
                Ok(Some(Change::Put { path, meta, file, source: Source::Shipped(number) }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_subscribed_once_in_either_version() {
        let folder = Name::new(b".Restored.2026").expect("a name");
        let cases: [(&[u8], Option<&[u8]>); 5] = [
            (b"", Some(b"V\t2\n\nRestored\t2026\n")),
            (b"V\t2\n\nWork\n", Some(b"V\t2\n\nWork\nRestored\t2026\n")),
            (b"V\t2\n\nRestored\t2026\nWork\n", None),
            (b"Work", Some(b"Work\nRestored.2026\n")),
            (b"Restored.2026\n", None),
        ];
        for (list, wanted) in cases {
            assert_eq!(subscribed(list, &folder).as_deref(), wanted, "{}", list.escape_ascii());
        }
    }

    #[test]
    fn a_name_of_its_own_keeps_what_follows_the_comma() {
        assert_eq!(restored(b"1.M2P3.mx1,S=10,W=12", 2), b"1.M2P3.mx1-restored2,S=10,W=12");
        assert_eq!(restored(b"1.M2P3.mx1", 1), b"1.M2P3.mx1-restored1");
    }

    #[test]
    fn letters_follow_their_keywords() {
        let letters = HashMap::from([(b'a', b'c'), (b'b', b'a')]);
        assert_eq!(translated(b":2,RSabd", &letters), b":2,RSac");
        assert_eq!(translated(b"", &letters), b"");
    }
}
