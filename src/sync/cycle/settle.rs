//! When a removal may go: at an instant at which the whole mailbox was as it was seen.

use super::{Cursor, Cycle, Held, MAX_LOOKS, ROWS_AHEAD, Result};
use crate::catalogue::directory::{self, Row};
use crate::catalogue::scan::Diff;
use crate::disk::FileKind;
use crate::maildir::entry::{Kind, Known, Look};
use crate::maildir::folder;
use crate::monitor::Event;
use crate::path::TreePath;
use crate::sync::SyncError;
use crate::sync::guard::{self, Removal};
use crate::sync::plan;
use std::collections::{HashMap, HashSet};

impl Cycle<'_, '_> {
    /// What is held goes, mailbox by mailbox. Whatever it could have become elsewhere has been looked at since it was missed.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut ready = Vec::new();
        while let Some(path) = self.held.values().next().map(|held| held.diff.path.clone()) {
            let mailbox = self.edit.mailbox_of(&path)?;
            let is_quiet = self.wait_for_quiet(&mailbox)?;
            let within = |held: &Held| held.diff.path.is_within(&mailbox);
            let (here, elsewhere): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.held).into_iter().partition(|(_, held)| within(held));
            self.held = elsewhere.into_iter().collect();
            for (_, held) in here {
                let all_moved = held.diff.vanished.iter().all(|(path, _)| self.moved.contains(path));
                match is_quiet || all_moved {
                    true => ready.push(held),
                    false => self.say_restless(&held),
                }
            }
        }
        // What is beneath a directory that goes, goes with it.
        let is_directory = |known: &Known| known.entry.kind == Kind::Directory;
        let going: Vec<TreePath> = ready
            .iter()
            .flat_map(|held: &Held| &held.diff.vanished)
            .filter(|(_, known)| is_directory(known))
            .map(|(path, _)| path.clone())
            .collect();
        ready.retain(|held| !going.iter().any(|gone| held.diff.path.is_within(gone)));
        if ready.is_empty() {
            return Ok(());
        }
        self.check_guard(&ready)?;
        self.ship_removals(ready)
    }

    fn say_restless(&mut self, held: &Held) {
        self.counters.removals_waiting += held.diff.vanished.len() as u64;
        let path = self.options.root.show(&held.diff.path);
        self.monitor.event(Event::Note(format!("{path}: messages are on the move; the next run looks again")));
    }

    /// Looks at a mailbox until there is an instant at which all that was seen is true at once: no folder
    /// changed between its listing and that instant. One folder may go on changing: it is listed last, and
    /// its listing is the instant. What was in none of the folders then is gone, and not on its way.
    ///
    /// That nothing seems to have come or gone between two looks would not do: a message can go to and fro.
    fn wait_for_quiet(&mut self, mailbox: &TreePath) -> Result<bool> {
        for _ in 0..MAX_LOOKS {
            self.walk(mailbox.clone())?;
            let restless = self.restless_units(mailbox)?;
            match restless.as_slice() {
                [] => return Ok(true),
                [one] => {
                    self.walk_only(one)?;
                    if self.restless_units(mailbox)?.iter().all(|unit| unit == one) {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Looks at one unit, and at none below it.
    fn walk_only(&mut self, unit: &TreePath) -> Result<()> {
        self.drain()?;
        self.cursor = Cursor::default();
        self.visit(unit)?;
        self.drain()
    }

    /// The units of a mailbox that do not look as they did when they were last read.
    fn restless_units(&mut self, mailbox: &TreePath) -> Result<Vec<TreePath>> {
        let mut seen: HashMap<TreePath, Look> = HashMap::new();
        for held in self.held.values() {
            seen.extend(held.diff.looks.iter().cloned());
        }
        let is_directory = |known: &Known| known.entry.kind == Kind::Directory;
        let vanished = self.held.values().flat_map(|held| &held.diff.vanished);
        let gone: Vec<TreePath> =
            vanished.filter(|(_, known)| is_directory(known)).map(|(path, _)| path.clone()).collect();
        let mut restless: Vec<TreePath> = Vec::new();
        for (path, row) in self.rows_below(mailbox)? {
            let unit = match folder::is_part(path.name()) {
                true => path.parent(),
                false => path.clone(),
            };
            if path.name() == b"tmp" || restless.last() == Some(&unit) {
                continue;
            }
            let recorded = seen.get(&path).copied().or(row.look).map(|look| Look { racy: false, ..look });
            let now = self.options.root.stat_if_there(&path)?;
            // Where a file has the name now, the directory is as gone as without one.
            let now = now.filter(|stat| stat.kind == FileKind::Directory).map(|stat| stat.look());
            let is_gone_as_seen = now.is_none() && gone.iter().any(|gone| path.is_within(gone));
            if now != recorded && !is_gone_as_seen {
                restless.push(unit);
            }
        }
        restless.dedup();
        Ok(restless)
    }

    pub(super) fn rows_below(&mut self, path: &TreePath) -> Result<Vec<(TreePath, Row)>> {
        self.edit.flush()?;
        let (prefix, mut from) = (directory::key(path), directory::key(path));
        let mut below = Vec::new();
        loop {
            let rows = self.edit.rows_from(&from, ROWS_AHEAD)?;
            let is_last = rows.len() < ROWS_AHEAD;
            for (key, row) in rows {
                if !key.starts_with(&prefix) {
                    return Ok(below);
                }
                below.push((directory::path_of(&key)?, row));
                from = key;
                from.push(0);
            }
            if is_last {
                return Ok(below);
            }
        }
    }

    fn check_guard(&mut self, ready: &[Held]) -> Result<()> {
        let mut files = 0;
        for (path, known) in ready.iter().flat_map(|held| &held.diff.vanished) {
            files += match known.entry.kind {
                Kind::Directory => {
                    let (messages, others, _) = self.below(path)?;
                    messages + others
                }
                _ => u64::from(known.entry.file().is_some() && !self.moved.contains(path)),
            };
        }
        let of = self.edit.head.messages + self.edit.head.files;
        let root = self.options.root.identity()?;
        let removal = Removal {
            files,
            of,
            root_is_empty: self.root_is_empty,
            root_is_another: self.edit.head.root_id != 0 && self.edit.head.root_id != root,
        };
        let source = self.options.root.show(&TreePath::root());
        match guard::stop(removal, self.options.limit, &source, self.options.standby) {
            Some(sentence) => Err(SyncError::Guard(sentence)),
            None => Ok(()),
        }
    }

    fn ship_removals(&mut self, ready: Vec<Held>) -> Result<()> {
        let mut sources = HashMap::new();
        for (at, held) in ready.iter().enumerate() {
            for (_, known) in held.diff.vanished.iter().filter(|(_, known)| known.local.ino != 0) {
                sources.insert(known.local.ino, at);
            }
        }
        let mut receives = HashSet::new();
        for (at, held) in ready.iter().enumerate() {
            for found in held.diff.messages.iter().chain(&held.diff.files) {
                if let Some(&from) = sources.get(&found.stat.ino).filter(|&&from| from != at) {
                    receives.insert((at, from));
                }
            }
        }
        let numbered: Vec<(usize, Held)> = ready.into_iter().enumerate().collect();
        let ordered = match receives.is_empty() {
            true => numbered.into_iter().map(|unit| vec![unit]).collect(),
            false => plan::order(numbered, |a, b| receives.contains(&(a.0, b.0))),
        };
        for group in ordered {
            // In a ring of moves nobody can be first: all take in before any gives up.
            let mut leaving = Vec::new();
            let is_ring = group.len() > 1;
            for (_, mut held) in group {
                if is_ring {
                    let vanished = std::mem::take(&mut held.diff.vanished);
                    leaving.push(Diff { path: held.diff.path.clone(), vanished, ..Diff::default() });
                }
                self.gather(held.diff)?;
            }
            for diff in leaving {
                self.gather(diff)?;
            }
            // Each in the order found, so that a link is made before what it leads to goes.
            self.close()?;
        }
        self.drain()
    }
}
