//! One file held against its record: new, changed, only its metadata changed, gone.
//!
//! Files of plain directories are looked at one by one, messages only where their folder gives a reason.

use super::sight::{Sight, is_racy};
use super::{Diff, Found, Scanner, chase, kind_of, mark, merge};
use crate::disk::{Dirent, FileKind, Stat};
use crate::maildir::entry::{Kind, Known, Local, Time};
use crate::maildir::folder;
use crate::path::{Name, TreePath};

/// A file of which only the change time moved is read again up to this size; above, size and time decide.
const REREAD_MAX: u64 = 1 << 20;

impl Scanner<'_> {
    /// Looks at each file of a plain directory, whether or not the directory changed.
    pub(super) fn examine(
        &self,
        path: &TreePath,
        sight: &Sight,
        known: &[Known],
        names: &[(Name, FileKind)],
        diff: &mut Diff,
    ) {
        let mut vanished = Vec::new();
        let entry_of = |(name, kind): &(Name, FileKind)| Dirent { name: name.clone(), ino: 0, kind: Some(*kind) };
        let mut seen: Vec<Dirent> = names.iter().map(entry_of).collect();
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        merge(known.iter(), seen, |known, seen| match (known, seen) {
            (Some(known), Some(Dirent { kind: Some(kind), .. })) => self.examine_one(path, known, kind, diff),
            (Some(known), None) => vanished.push((path.join(&known.entry.name), known.clone())),
            (None, Some(seen)) if seen.kind != Some(FileKind::Directory) => {
                self.appeared(path.join(&seen.name), &seen, None, diff);
            }
            _ => {}
        });
        if sight.listing.is_some() {
            diff.uncertain |= !sight.at_once && !vanished.is_empty();
            self.leave(vanished, diff);
        }
    }

    fn examine_one(&self, directory: &TreePath, known: &Known, kind: FileKind, diff: &mut Diff) {
        let was_directory = known.entry.kind == Kind::Directory;
        let at = directory.join(&known.entry.name);
        if was_directory && kind == FileKind::Directory {
            return;
        }
        let stat = match self.root.stat(&at) {
            Ok(stat) => stat,
            Err(error) if error.is_not_found() => return diff.vanished.push((at, known.clone())),
            Err(error) => return diff.failed.push(error),
        };
        if was_directory {
            diff.vanished.push((at.clone(), known.clone()));
            return self.found(at, stat, None, diff);
        }
        if stat.kind == FileKind::Directory {
            // Its own row takes the place of the file's entry.
            return;
        }
        self.compare(at, stat, known.clone(), diff);
    }

    /// Something has a name that nothing, or something else (`replaced`), had before.
    pub(super) fn appeared(&self, path: TreePath, seen: &Dirent, replaced: Option<Known>, diff: &mut Diff) {
        let is_directory = seen.kind == Some(FileKind::Directory);
        if !self.rules.filter.takes(&path, is_directory) {
            return;
        }
        let is_message = folder::is_message(self.rules.kind, &path);
        let stat = match self.root.stat(&path) {
            Ok(stat) => stat,
            Err(error) if error.is_not_found() => {
                let again = || chase(self.root, &path, seen.ino, |path| self.root.stat(path));
                match is_message.then(again).flatten() {
                    Some(stat) => stat,
                    // Expunged, or moved to a folder that is yet to be looked at.
                    None => return,
                }
            }
            Err(error) => return diff.failed.push(error),
        };
        match stat.kind {
            FileKind::Directory => diff.subdirectories.push(path),
            FileKind::Special => diff.special.push(path),
            FileKind::File | FileKind::Symlink => self.found(path, stat, replaced, diff),
        }
    }

    /// Holds a file's state against its record.
    pub(super) fn compare(&self, path: TreePath, stat: Stat, known: Known, diff: &mut Diff) {
        let same_mark = mark(&stat) == known.entry.mark() && kind_of(&known.entry) == stat.kind;
        let unseen = known.local.ino == 0;
        let untouched = unseen
            || known.local.ino == stat.ino
                && !known.local.racy
                && (known.local.ctime == stat.ctime || known.local.ctime == Time::default());
        if same_mark && untouched && !self.rules.checksum {
            return self.compare_meta(path, &stat, &known, diff);
        }
        let large = stat.size > REREAD_MAX && known.local.ino == stat.ino && !known.local.racy;
        if same_mark && large && !self.rules.checksum {
            return self.compare_meta(path, &stat, &known, diff);
        }
        if stat.kind != FileKind::Symlink || !same_mark || self.rules.checksum {
            return self.found(path, stat, Some(known), diff);
        }
        self.compare_meta(path, &stat, &known, diff);
    }

    /// The content is the same: what of the metadata is not?
    fn compare_meta(&self, path: TreePath, stat: &Stat, known: &Known, diff: &mut Diff) {
        let local = self.local(&path, stat);
        let ctime_moved = known.local.ino != 0 && known.local.ctime != stat.ctime;
        let mut xattrs = known.entry.meta.xattrs.clone();
        let may_have_new_xattrs = ctime_moved && known.local.ctime != Time::default() || self.rules.restat;
        if may_have_new_xattrs && stat.kind == FileKind::File {
            match self.root.xattrs(&path) {
                Ok(read) => xattrs = read,
                Err(error) => diff.failed.push(error),
            }
        }
        let meta = self.meta(stat, Some(stat.mtime), xattrs, Some(&known.entry.meta));
        if meta != known.entry.meta {
            let group = known.entry.file().map_or(0, |file| file.group);
            diff.metadata.push((path.clone(), meta, group));
        }
        if local != known.local && !self.rules.trust_names {
            diff.learned.push((path, local));
        }
    }

    /// What to record of a file that was just looked at.
    pub fn local(&self, path: &TreePath, stat: &Stat) -> Local {
        match folder::is_message(self.rules.kind, path) {
            true => Local { ino: stat.ino, ..Local::default() },
            false => Local { ino: stat.ino, ctime: stat.ctime, racy: is_racy(stat) },
        }
    }

    fn found(&self, path: TreePath, stat: Stat, known: Option<Known>, diff: &mut Diff) {
        let before = known.as_ref().map(|known| &known.entry.meta);
        let meta = self.meta(&stat, Some(stat.mtime), Vec::new(), before);
        let target = match stat.kind {
            FileKind::Symlink => match self.root.read_link(&path) {
                Ok(target) => Some(target),
                Err(error) => return diff.failed.push(error),
            },
            _ => None,
        };
        let is_message = folder::is_message(self.rules.kind, &path);
        let found = Found { path, stat, meta, known, captured: None, target, number: 0 };
        match is_message {
            true => diff.messages.push(found),
            false => diff.files.push(found),
        }
    }

    /// What is recorded and was not seen: vanished, or left out by the filters from now on.
    pub(super) fn leave(&self, vanished: Vec<(TreePath, Known)>, diff: &mut Diff) {
        for (path, known) in vanished {
            let is_directory = known.entry.kind == Kind::Directory;
            match self.rules.filter.takes(&path, is_directory) {
                true => diff.vanished.push((path, known)),
                false => diff.forgotten.push(path),
            }
        }
    }
}
