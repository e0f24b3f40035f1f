//! The quick look: whether a unit is as it was recorded, or as it was seen a moment ago, without listing it.

use super::{Diff, Scanner, UnitRows, kind_of, mark};
use crate::catalogue::directory::{self, Row, is_paged};
use crate::disk::{FileKind, Near};
use crate::maildir::entry::{Kind, Known, Look, Mark, Meta, Time};
use crate::maildir::folder::{self, SetKind};
use crate::path::TreePath;
use serde::{Deserialize, Serialize};

/// What `statx` has to tell of one name in a unit that nobody touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check<'a> {
    /// The name in the unit's directory; empty for the directory itself.
    #[serde(with = "serde_bytes")]
    pub name: &'a [u8],
    /// What is expected.
    pub expected: Expected,
}

/// What a name is to look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// A directory.
    Directory(Look),
    /// The folder's `tmp`.
    Tmp(Look),
    /// A file or link that this host has looked at before.
    Seen(u64, Time, u8, Mark),
    /// One that is taken by its name.
    Named(u16, u32, u32, u8, Mark),
}

impl Scanner<'_> {
    /// The quick look, at a unit that nobody touched since it was recorded: the directories in it that are units of
    /// their own. `None` where anything needs a closer look. One that `was_untouched` a moment ago is not looked at
    /// again, unless its record was changed since.
    pub fn as_recorded(&self, path: &TreePath, rows: &UnitRows, was_untouched: bool) -> Option<Vec<TreePath>> {
        let checks = self.checks(path, rows)?;
        let is_met = was_untouched || self.all_meet(&mut Near::none(self.root), path, &checks);
        is_met.then(|| self.recorded_below(path, rows))
    }

    /// What has to be looked at to know that nobody touched a unit, in the order in which a message moves. `None` where
    /// its record does not tell.
    pub fn checks<'r>(&self, path: &TreePath, rows: &'r UnitRows) -> Option<Vec<Check<'r>>> {
        if self.rules.restat || self.rules.checksum {
            return None;
        }
        let settled = |row: &Row| row.look.filter(|look| !look.racy);
        let row = rows.directory.as_ref().filter(|_| !is_paged(path))?;
        let mut checks = Vec::with_capacity(row.entries.len() + 4);
        checks.push(Check { name: b"", expected: Expected::Directory(settled(row)?) });
        if self.is_recorded_folder(row) {
            for (part, row) in folder::PARTS.iter().zip(&rows.parts) {
                let row = row.as_ref()?;
                let expected = match *part == "tmp" {
                    true if self.rules.filter.takes_from_tmp(&path.child(part)) => return None,
                    true => Expected::Tmp(row.look?),
                    false => Expected::Directory(settled(row)?),
                };
                checks.push(Check { name: part.as_bytes(), expected });
            }
        }
        for known in row.entries.iter().filter(|known| known.entry.kind != Kind::Directory) {
            checks.push(Check { name: known.entry.name.as_bytes(), expected: self.expected(known)? });
        }
        Some(checks)
    }

    /// Whether all is as expected.
    pub fn all_meet(&self, near: &mut Near<'_>, path: &TreePath, checks: &[Check<'_>]) -> bool {
        checks.iter().all(|check| self.meets(near, path, check))
    }

    /// Whether a name in a unit looks as expected.
    pub fn meets(&self, near: &mut Near<'_>, unit: &TreePath, check: &Check<'_>) -> bool {
        let Ok(stat) = near.stat(unit, check.name) else { return false };
        match &check.expected {
            Expected::Directory(look) => stat.kind == FileKind::Directory && stat.look() == *look,
            // What is in it does not matter; its mode and owner do.
            Expected::Tmp(look) => Look { racy: look.racy, ..stat.look() } == *look,
            Expected::Seen(ino, ctime, kind, wanted) => {
                *ino == stat.ino && *ctime == stat.ctime && *kind == stat.kind as u8 && *wanted == mark(&stat)
            }
            Expected::Named(mode, uid, gid, kind, wanted) => {
                let known = Meta { mode: *mode, uid: *uid, gid: *gid, mtime: Some(stat.mtime), xattrs: Vec::new() };
                *kind == stat.kind as u8
                    && *wanted == mark(&stat)
                    && self.meta(&stat, Some(stat.mtime), Vec::new(), Some(&known)) == known
            }
        }
    }

    /// What a file, of which not even the change time moved, looks like.
    fn expected(&self, known: &Known) -> Option<Expected> {
        let (local, entry) = (&known.local, &known.entry);
        let (mark, kind) = (entry.mark(), kind_of(entry) as u8);
        match local.ino {
            0 => {
                let Meta { mode, uid, gid, mtime, xattrs } = &entry.meta;
                let shows = self.rules.trust_names && *mtime == Some(mark.mtime) && xattrs.is_empty();
                shows.then_some(Expected::Named(*mode, *uid, *gid, kind, mark))
            }
            ino => (!local.racy).then_some(Expected::Seen(ino, local.ctime, kind, mark)),
        }
    }

    /// The directories in a unit that are units of their own, as recorded.
    pub fn recorded_below(&self, path: &TreePath, rows: &UnitRows) -> Vec<TreePath> {
        let Some(row) = &rows.directory else { return Vec::new() };
        let is_folder = self.is_recorded_folder(row);
        let is_unit = |known: &&Known| {
            let is_part = is_folder && folder::is_part(known.entry.name.as_bytes());
            known.entry.kind == Kind::Directory && !is_part
        };
        let units = row.entries.iter().filter(is_unit);
        let mut below: Vec<TreePath> = units.map(|known| path.join(&known.entry.name)).collect();
        below.sort_by_cached_key(directory::key);
        below
    }

    fn is_recorded_folder(&self, row: &Row) -> bool {
        let has = |part: &[u8]| {
            let is_it = |known: &Known| known.entry.kind == Kind::Directory && known.entry.name.as_bytes() == part;
            row.entries.iter().any(is_it)
        };
        self.rules.kind == SetKind::Maildir && has(b"cur") && has(b"new")
    }

    /// Whether a unit's directories look as they did when `diff` was made.
    pub fn looks_as_in(&self, diff: &Diff) -> bool {
        !diff.looks.is_empty()
            && diff.looks.iter().all(|(path, look)| {
                path.name() == b"tmp" || !look.racy && self.root.stat(path).is_ok_and(|stat| stat.look() == *look)
            })
    }
}
