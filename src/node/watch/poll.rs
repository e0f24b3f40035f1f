//! Directories that are looked at in turn: where the kernel tells nothing (a network file system), or watches are exhausted.
//!
//! * A directory of messages costs one `statx`: its times tell. Another costs one for itself and one for each file in it
//!   that belongs to the set, and is listed when its times moved. It is dirty then, though it may have been a lock that came
//!   and went: what a scan saw in between is not known here.
//! * Times that are so young that they may hide a later change are not believed: the next turn looks closer.
//! * A round is followed by a pause of a hundred times what it took, from one second to thirty: a hundredth of a core. What
//!   changed lately is looked at each second meanwhile.
//! * When the first round is over, everything is dirty once more: whatever changed before a directory's first look is
//!   covered by that. A directory that joins later is dirty when it was first looked at.

use super::gather::Cause;
use super::inotify::Watches;
use super::scope::Heard;
use super::tree::{Eye, Id, ROOT};
use crate::catalogue::scan::is_racy;
use crate::disk::{FileKind, Stat};
use crate::maildir::entry::{Look, Time};
use crate::path::{Name, TreePath};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Directories looked at before events are listened to again.
const SLICE: usize = 256;

/// The pause after a round, as a multiple of what it took.
const REST: u32 = 100;

/// The shortest pause, and between looks at what changed lately.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest.
const LONGEST: Duration = Duration::from_secs(30);

/// For how long a directory is looked at more often after it changed.
const LATELY: Duration = Duration::from_secs(60);

/// A directory as it was seen last.
#[derive(Debug)]
pub struct Seen {
    /// `None` where another change may hide behind it.
    look: Option<Look>,
    /// The files in it that count; none of a directory of messages.
    files: Vec<Sighting>,
}

/// A file as it was seen last.
#[derive(Debug, PartialEq, Eq)]
struct Sighting {
    name: Name,
    ino: u64,
    size: u64,
    mtime: Time,
    /// Zero where another change may hide behind it.
    ctime: Time,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Rota {
    /// The last of this round.
    at: Option<Id>,
    /// What the round took so far.
    spent: Duration,
    /// Rounds that are over.
    rounds: u64,
    next_slice: Option<Instant>,
    next_round: Option<Instant>,
    lately: BTreeMap<Id, Instant>,
}

impl Rota {
    /// The first round begins now.
    pub fn begin(&mut self) {
        let now = Instant::now();
        (self.next_slice, self.next_round) = (Some(now), Some(now));
    }

    /// When the next is to be looked at.
    pub fn due(&self) -> Instant {
        self.next_slice.unwrap_or_else(Instant::now)
    }
}

impl Rota {
    /// When to look next, between rounds.
    fn after(&self, now: Instant) -> Option<Instant> {
        match self.lately.is_empty() {
            true => self.next_round,
            false => self.next_round.min(Some(now + SHORTEST)),
        }
    }
}

/// What is in a directory that is not one of messages.
struct Inside {
    directories: Vec<Name>,
    files: Vec<Sighting>,
}

impl Watches {
    /// Looks at those whose turn it is.
    pub(super) fn turn(&mut self, now: Instant, heard: &mut Heard) {
        if self.tree.counts().1 == 0 || self.rota.due() > now {
            return;
        }
        if self.rota.next_round.is_some_and(|next| next > now) {
            let lately: Vec<Id> = self.rota.lately.keys().copied().collect();
            lately.into_iter().for_each(|id| self.visit(id, now, heard));
            self.rota.lately.retain(|_, until| *until > now);
            self.rota.next_slice = self.rota.after(now);
            return;
        }
        let began = Instant::now();
        for _ in 0..SLICE {
            let Some(id) = self.tree.next_polled(self.rota.at) else {
                self.rota.spent += began.elapsed();
                return self.end_round(now, heard);
            };
            self.rota.at = Some(id);
            self.visit(id, now, heard);
        }
        self.rota.spent += began.elapsed();
        self.rota.next_slice = Some(now);
    }

    fn end_round(&mut self, now: Instant, heard: &mut Heard) {
        let rota = &mut self.rota;
        let pause = (rota.spent * REST).clamp(SHORTEST, LONGEST);
        if rota.rounds == 0 {
            heard.everything = Some(Cause::Seen);
        }
        rota.rounds += 1;
        (rota.at, rota.spent) = (None, Duration::ZERO);
        rota.next_round = Some(now + pause);
        rota.next_slice = rota.after(now);
    }

    fn visit(&mut self, id: Id, now: Instant, heard: &mut Heard) {
        let (true, Some(path), Some(unit)) = (self.is_polled(id), self.tree.path(id), self.unit_of(id)) else { return };
        if path.name() == b"tmp" && self.folder_of(id).is_some() && !self.scope.takes_tmp(&path) {
            return self.forget(id);
        }
        let is_root_here = id != ROOT || self.root.is_in_place();
        let stat = match self.root.stat_fresh(&path) {
            Ok(stat) if stat.kind == FileKind::Directory && is_root_here => stat,
            Err(error) if !error.is_not_found() => return,
            _ => return self.is_gone(id, heard),
        };
        let before = match self.tree.get_mut(id) {
            Some(node) => match &mut node.eye {
                Eye::Polled(seen) => seen.take(),
                Eye::Watched(_) => return,
            },
            None => return,
        };
        let is_first = before.is_none();
        // As young as this when it was looked at, not when the looking is done.
        let look = (!is_racy(&stat)).then(|| stat.look());
        let same_look = before.as_ref().is_some_and(|seen| seen.look == Some(stat.look()));
        let is_messages = self.folder_of(id).is_some() && self.scope.holds_messages(path.name());
        let mut changed = if is_first { self.rota.rounds > 0 } else { !same_look };
        let mut files = Vec::new();
        if !is_messages {
            let seen = before.map(|seen| seen.files);
            let inside = match (&seen, same_look) {
                (Some(seen), true) => Inside { directories: Vec::new(), files: self.sight(&path, seen) },
                _ => self.look_inside(&path),
            };
            changed |= seen.is_some_and(|seen| seen != inside.files);
            files = inside.files;
            if !same_look {
                self.meet(id, inside.directories, is_first && self.rota.rounds == 0, heard);
            }
        }
        if let Some(Eye::Polled(seen)) = self.tree.get_mut(id).map(|node| &mut node.eye) {
            *seen = Some(Box::new(Seen { look, files }));
        }
        if changed {
            heard.note(unit, is_messages, false);
            self.rota.lately.insert(id, now + LATELY);
        }
    }

    fn is_gone(&mut self, id: Id, heard: &mut Heard) {
        if id == ROOT {
            heard.ended = Some("the root was renamed or removed".to_owned());
            return;
        }
        let place = self.tree.get(id).and_then(|node| node.parent.zip(node.name.clone()));
        self.forget(id);
        let Some((above, name)) = place else { return };
        if let Some(unit) = self.unit_of(above) {
            heard.note(unit, false, false);
        }
        self.lose_part(above, &name, heard);
    }

    /// Follows the directories that are new in one, and forgets those that are gone.
    fn meet(&mut self, id: Id, names: Vec<Name>, quietly: bool, heard: &mut Heard) {
        let Some(node) = self.tree.get(id) else { return };
        let mut known: BTreeMap<Name, Id> = node.children.clone();
        for name in names {
            if known.remove(&name).is_some() {
                continue;
            }
            let Some(child) = self.survey(id, name, heard) else { continue };
            if let (false, Some(unit)) = (quietly, self.unit_of(child)) {
                heard.note(unit, true, true);
            }
        }
        for (name, gone) in known {
            self.set_aside(gone);
            self.lose_part(id, &name, heard);
        }
    }

    fn look_inside(&self, path: &TreePath) -> Inside {
        let mut inside = Inside { directories: Vec::new(), files: Vec::new() };
        let Ok((listing, _)) = self.root.list(path, 64) else { return inside };
        for entry in listing.entries {
            let stat = match entry.kind {
                Some(FileKind::Directory) => None,
                _ => match self.root.stat_fresh(&path.join(&entry.name)) {
                    Ok(stat) => Some(stat),
                    Err(_) => continue,
                },
            };
            match stat.filter(|stat| stat.kind != FileKind::Directory) {
                None if self.scope.takes_directory(&path.join(&entry.name)) => inside.directories.push(entry.name),
                Some(stat) if self.scope.takes_file(path, false, &entry.name) => {
                    inside.files.push(sighting(entry.name, &stat));
                }
                _ => {}
            }
        }
        inside
    }

    fn sight(&self, path: &TreePath, files: &[Sighting]) -> Vec<Sighting> {
        let look = |file: &Sighting| {
            let stat = self.root.stat_fresh(&path.join(&file.name)).ok()?;
            Some(sighting(file.name.clone(), &stat))
        };
        files.iter().filter_map(look).collect()
    }
}

fn sighting(name: Name, stat: &Stat) -> Sighting {
    let ctime = if is_racy(stat) { Time::default() } else { stat.ctime };
    Sighting { name, ino: stat.ino, size: stat.size, mtime: stat.mtime, ctime }
}
