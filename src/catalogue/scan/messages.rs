//! The messages of one folder: which are new, which only changed their name, which are gone.
//!
//! `new` is listed before `cur`, so that a message on its way is seen at least once. One that is renamed between
//! listing and looking is chased.

use super::sight::Sight;
use super::{Diff, NotRead, Renamed, Scanner, UnitRows, mark, merge};
use crate::catalogue::directory::Row;
use crate::catalogue::edit::Edit;
use crate::disk::{Dirent, DiskError, FileKind, Root};
use crate::maildir::entry::{Kind, Known};
use crate::maildir::folder;
use crate::maildir::name;
use crate::path::TreePath;
use std::collections::{BTreeMap, HashMap};

/// How often a message that is renamed under the eyes is looked for again.
const CHASES: usize = 50;

impl Scanner<'_> {
    /// Looks at the parts of a folder: `new`, then `cur`, then `tmp`; then what is recorded of the messages.
    pub(super) fn parts(
        &self,
        path: &TreePath,
        rows: &UnitRows,
        edit: &mut Edit<'_>,
        diff: &mut Diff,
    ) -> std::result::Result<(), NotRead> {
        let [new, cur, tmp] = folder::PARTS.map(|part| path.child(part));
        let new_sight = self.sight(&new, rows.parts[0].as_ref(), true)?;
        let mut cur_sight = self.sight(&cur, rows.parts[1].as_ref(), true)?;
        if new_sight.listing.is_some() && cur_sight.listing.is_none() {
            // A message may have left `new` since: see both as of one time.
            cur_sight = self.sight(&cur, rows.parts[1].as_ref(), true)?;
        }
        self.directory(&new, &new_sight, rows.parts[0].as_ref(), None, diff);
        self.directory(&cur, &cur_sight, rows.parts[1].as_ref(), None, diff);
        self.tmp(&tmp, rows.parts[2].as_ref(), diff)?;
        diff.uncertain |= !new_sight.at_once || !cur_sight.at_once;
        self.messages([(&new, new_sight), (&cur, cur_sight)], edit, diff)
    }

    fn tmp(&self, tmp: &TreePath, row: Option<&Row>, diff: &mut Diff) -> std::result::Result<(), NotRead> {
        if self.rules.filter.takes_from_tmp(tmp) {
            diff.subdirectories.push(tmp.clone());
            return Ok(());
        }
        // It may go with its folder at any moment.
        match self.root.stat_if_there(tmp).map_err(NotRead::from)? {
            None => Ok(()),
            Some(stat) => {
                let look = stat.look();
                let changed = row.is_none_or(|row| row.look.is_none_or(|old| old.ctime != look.ctime));
                let xattrs = match changed {
                    true => Some(self.root.xattrs(tmp).map_err(NotRead::from)?),
                    false => None,
                };
                let sight = Sight { stat, look, listing: None, at_once: true, xattrs, restat: false };
                self.directory(tmp, &sight, row, Some(stat.mtime), diff);
                Ok(())
            }
        }
    }

    fn messages(
        &self,
        mut parts: [(&TreePath, Sight); 2],
        edit: &mut Edit<'_>,
        diff: &mut Diff,
    ) -> std::result::Result<(), NotRead> {
        if parts.iter().all(|(_, sight)| sight.listing.is_none()) {
            return Ok(());
        }
        drop_seen_twice(&mut parts);
        let mut vanished = Vec::new();
        let mut appeared = Vec::new();
        for (path, sight) in parts {
            let Some(listing) = sight.listing else { continue };
            let every = sight.restat || self.rules.checksum;
            let recorded = edit.directory(path)?.map(|directory| directory.entries.values());
            merge(recorded.into_iter().flatten(), listing, |known, seen| match (known, seen) {
                (Some(known), Some(seen)) if is_another_inode(known, &seen) => {
                    // Another message has this name now; this one may have another name.
                    vanished.push((path.join(&known.entry.name), known.clone()));
                    appeared.push((path.join(&seen.name), seen));
                }
                (Some(known), Some(seen)) => self.known_message(path, known, &seen, every, diff),
                (Some(known), None) => vanished.push((path.join(&known.entry.name), known.clone())),
                (None, Some(seen)) => appeared.push((path.join(&seen.name), seen)),
                (None, None) => {}
            });
        }
        let appeared = self.pair_renames(appeared, &mut vanished, diff);
        let mut vanished: BTreeMap<TreePath, Known> = vanished.into_iter().collect();
        for (path, seen) in appeared {
            let replaced = vanished.remove(&path);
            self.appeared(path, &seen, replaced, diff);
        }
        self.leave(vanished.into_iter().collect(), diff);
        Ok(())
    }

    /// A message whose name is recorded: the same, unless there is a reason to look closer.
    fn known_message(&self, directory: &TreePath, known: &Known, seen: &Dirent, every: bool, diff: &mut Diff) {
        let is_directory = known.entry.kind == Kind::Directory;
        let at = || directory.join(&known.entry.name);
        if is_directory {
            return diff.subdirectories.push(at());
        }
        let unknown = known.local.ino == 0;
        let trusted = known.local.ino == seen.ino || unknown && self.rules.trust_names;
        if trusted && !every {
            return;
        }
        let path = at();
        match self.root.stat(&path) {
            Ok(stat) => self.compare(path, stat, known.clone(), diff),
            // Renamed since it was listed: its directory's times have changed, so it will be looked at again.
            Err(error) if error.is_not_found() => diff.uncertain = true,
            Err(error) => diff.failed.push(error),
        }
    }

    /// Takes the messages that only changed their name out of what appeared and vanished.
    fn pair_renames(
        &self,
        appeared: Vec<(TreePath, Dirent)>,
        vanished: &mut Vec<(TreePath, Known)>,
        diff: &mut Diff,
    ) -> Vec<(TreePath, Dirent)> {
        let mut left: HashMap<(Vec<u8>, u64), (TreePath, Known)> = HashMap::with_capacity(vanished.len());
        for (path, known) in vanished.drain(..) {
            let key = (name::base(known.entry.name.as_bytes()).to_vec(), known.local.ino);
            left.insert(key, (path, known));
        }
        let mut rest = Vec::new();
        for (path, seen) in appeared {
            let base = name::base(seen.name.as_bytes()).to_vec();
            let taken = self.rules.filter.takes_every_message() || self.rules.filter.takes(&path, false);
            // A message that this host has not looked at yet has no inode number on record.
            let key = [(base.clone(), seen.ino), (base, 0)].into_iter().find(|key| taken && left.contains_key(key));
            let pair = key.and_then(|key| {
                // Inode numbers are used again, and a restored tree uses base names again: size and time must agree.
                // One that has been renamed again since it was listed was there when it was listed.
                let stat = self.root.stat_if_there(&path).ok()?;
                let recorded = left.get(&key)?.1.entry.mark();
                stat.is_none_or(|stat| mark(&stat) == recorded).then(|| left.remove(&key))?
            });
            match pair {
                Some((from, mut known)) => {
                    known.local.ino = seen.ino;
                    diff.renamed.push((from, known, path));
                }
                None => rest.push((path, seen)),
            }
        }
        vanished.extend(left.into_values());
        for (from, known, to) in order_renames(&mut diff.renamed) {
            if let Some((_, name)) = to.split() {
                rest.push((to, Dirent { name, ino: known.local.ino, kind: Some(FileKind::File) }));
            }
            vanished.push((from, known));
        }
        vanished.sort_by(|a, b| a.0.cmp(&b.0));
        rest
    }
}

/// Does something with a message that has another name in its folder by now, because its flags go on changing.
/// `None` where it is in the folder no more.
pub fn chase<T>(
    root: &Root,
    path: &TreePath,
    ino: u64,
    act: impl Fn(&TreePath) -> std::result::Result<T, DiskError>,
) -> Option<T> {
    let (parent, name) = path.split()?;
    let folder = parent.parent();
    let wanted = name::base(name.as_bytes());
    let is_same = |entry: &&Dirent| entry.ino == ino && name::base(entry.name.as_bytes()) == wanted;
    for _ in 0..CHASES {
        // A message goes from `new` to `cur`: in this order it is seen at least once.
        let mut place = None;
        for directory in [folder.child("new"), folder.child("cur")] {
            let Ok((listing, _)) = root.list(&directory, 4096) else { continue };
            if let Some(entry) = listing.entries.iter().find(is_same) {
                place = Some(directory.join(&entry.name));
            }
        }
        if let Ok(done) = act(&place?) {
            return Some(done);
        }
    }
    None
}

fn is_another_inode(known: &Known, seen: &Dirent) -> bool {
    known.local.ino != 0 && known.local.ino != seen.ino && known.entry.kind != Kind::Directory
}

/// Orders renames so that a name is free, or its file has moved on, before another file takes it. Those that
/// go round in a ring are given back: there is no order for them.
fn order_renames(renamed: &mut Vec<Renamed>) -> Vec<Renamed> {
    let mut waiting = std::mem::take(renamed);
    loop {
        let leaving: std::collections::HashSet<TreePath> = waiting.iter().map(|(from, _, _)| from.clone()).collect();
        let before = waiting.len();
        let (free, blocked): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, _, to)| !leaving.contains(to));
        renamed.extend(free);
        waiting = blocked;
        if waiting.is_empty() || waiting.len() == before {
            return waiting;
        }
    }
}

/// A message that went from `new` to `cur` between the two listings is in both: it is in `cur`.
fn drop_seen_twice(parts: &mut [(&TreePath, Sight); 2]) {
    let [(_, new), (_, cur)] = parts;
    let (Some(new), Some(cur)) = (&mut new.listing, &cur.listing) else { return };
    let in_cur: std::collections::HashSet<(u64, &[u8])> =
        cur.iter().map(|entry| (entry.ino, name::base(entry.name.as_bytes()))).collect();
    new.retain(|entry| !in_cur.contains(&(entry.ino, name::base(entry.name.as_bytes()))));
}
