//! What somebody else changed in the mirror since it was looked at: a mail server that runs on it and has
//! clients that write.
//!
//! The mirror is held against its catalogue when a session begins. What a server does later shows in the times
//! of its directories, which are compared again, under the folder's lock, before the first change. A message that
//! the server has renamed meanwhile is found by its base name; a folder whose control files it has written is
//! left as it is, whole, and the directories are read again before the session ends.

use super::{Hand, Result, places};
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::mark;
use crate::disk::DiskError;
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{Look, Mark};
use crate::maildir::folder::{self, SetKind};
use crate::maildir::name;
use crate::monitor::Problem;
use crate::path::TreePath;
use std::collections::{BTreeSet, HashMap};

/// The messages of a folder by base name.
pub(super) type Whereabouts = HashMap<Vec<u8>, Vec<TreePath>>;

impl Hand {
    /// Notes the directories of a group that are not as the catalogue, or an earlier group, left them.
    pub(super) fn meet_strangers(&mut self, changes: &[Change], edit: &Edit<'_>) -> Result<()> {
        let mut met = BTreeSet::new();
        for path in changes.iter().flat_map(places) {
            if !met.insert(path.clone()) {
                continue;
            }
            // What is not there shows when something is to be done in it.
            let Some(stat) = self.mirror.stat_if_there(&path)? else { continue };
            let left = match self.looks.get(&path) {
                Some(look) => Some(*look),
                None => edit.row(&path)?.and_then(|row| row.look),
            };
            let as_left = left.is_some_and(|left| stat.look() == Look { racy: false, ..left });
            if !as_left {
                self.drifted.insert(path);
            }
        }
        Ok(())
    }

    /// Notes how a group leaves its directories, while nobody else changes them.
    pub(super) fn take_leave(&mut self, unit: &TreePath, changes: &[Change]) -> Result<()> {
        // A server that waited for the lock may change the folder within the same tick of the kernel's clock.
        let racy = self.kind == SetKind::Maildir && self.is_served(unit)?;
        let mut places: BTreeSet<TreePath> = changes.iter().flat_map(places).collect();
        places.insert(unit.child("cur"));
        for path in places {
            match self.mirror.stat_if_there(&path)? {
                Some(stat) => drop(self.looks.insert(path, Look { racy, ..stat.look() })),
                None => drop(self.looks.remove(&path)),
            }
        }
        Ok(())
    }

    /// How a directory looked when its folder's lock was given back; a plain one has its own time set after that.
    pub(super) fn look_left(&mut self, path: &TreePath, now: Look) -> Look {
        let left = self.looks.get(path).copied();
        let look = match left {
            Some(left) if folder::is_part(path.name()) => left,
            Some(left) => Look { racy: left.racy, ..now },
            None => now,
        };
        self.looks.insert(path.clone(), look);
        look
    }

    /// Whether a mail server on this host has opened the folder: its index is never copied.
    fn is_served(&self, unit: &TreePath) -> Result<bool> {
        Ok(self.mirror.stat_if_there(&unit.child("dovecot.index.log"))?.is_some())
    }

    /// Where a message is that has another name in its folder by now, one that the catalogue does not know.
    pub(super) fn find_renamed(
        &mut self,
        path: &TreePath,
        wanted: Mark,
        edit: &mut Edit<'_>,
    ) -> Result<Option<TreePath>> {
        if self.does_again {
            return Ok(None);
        }
        for at in self.find_again(path, wanted)? {
            if edit.known(&at)?.is_none() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The messages of a folder that have the base name of `path`, and size and time as wanted.
    pub(super) fn find_again(&mut self, path: &TreePath, wanted: Mark) -> Result<Vec<TreePath>> {
        if !folder::is_message(self.kind, path) {
            return Ok(Vec::new());
        }
        let unit = path.parent().parent();
        if self.whereabouts.as_ref().is_none_or(|(listed, _)| *listed != unit) {
            self.whereabouts = Some((unit.clone(), self.list_folder(&unit)?));
        }
        let names = self.whereabouts.as_ref().and_then(|(_, names)| names.get(name::base(path.name())));
        let mut found = Vec::new();
        for at in names.into_iter().flatten() {
            if self.mirror.stat_if_there(at)?.is_some_and(|stat| mark(&stat) == wanted) {
                found.push(at.clone());
            }
        }
        Ok(found)
    }

    fn list_folder(&self, unit: &TreePath) -> std::result::Result<Whereabouts, DiskError> {
        let mut names = Whereabouts::new();
        for part in [unit.child("new"), unit.child("cur")] {
            let listing = match self.mirror.list(&part, 1024) {
                Err(error) if error.is_not_found() => continue,
                other => other?.0,
            };
            for entry in listing.entries {
                let base = name::base(entry.name.as_bytes()).to_vec();
                names.entry(base).or_default().push(part.join(&entry.name));
            }
        }
        Ok(names)
    }

    /// A folder is changed whole or not at all: without its list of UIDs a server would give messages others.
    /// `false` where a control file is not the one that a delta was made from.
    pub(super) fn can_begin(&mut self, changes: &[Change], contents: &dyn super::Contents) -> Result<bool> {
        // What a log has done before is found further on: there each change stands for itself.
        if self.kind == SetKind::Files || self.does_again {
            return Ok(true);
        }
        for change in changes {
            let Change::Put { path, file, source: Source::Delta(number), .. } = change else { continue };
            if !self.patched(*number, path, file, contents)? && !self.is_in_place(path, file)? {
                let reason = "was written on the standby meanwhile: its folder is sent again".to_owned();
                self.problems.push(Problem { subject: self.mirror.show(path), reason });
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Leaves a folder as it is, to be looked at again.
    pub(super) fn leave_out(&mut self, changes: &[Change], edit: &Edit<'_>) -> Result<()> {
        for change in changes {
            self.drifted.extend(places(change));
        }
        if let Some(first) = changes.first() {
            self.unfinished.insert(edit.mailbox_of(first.path())?);
        }
        Ok(())
    }

    /// Whether a removal must wait: where something of a mailbox could not be done, that may have been the other
    /// half of a move.
    pub(super) fn must_wait(&self, change: &Change, edit: &Edit<'_>) -> Result<bool> {
        let removes = matches!(change, Change::Remove { .. } | Change::RemoveDirectory { .. });
        Ok(removes && !self.unfinished.is_empty() && self.unfinished.contains(&edit.mailbox_of(change.path())?))
    }
}
