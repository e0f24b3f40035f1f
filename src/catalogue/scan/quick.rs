//! The quick look: whether a unit is as it was recorded, or as it was seen a moment ago, without listing it.

use super::{Diff, Scanner, UnitRows, kind_of, mark};
use crate::catalogue::directory::{self, Row, is_paged};
use crate::disk::{FileKind, Stat};
use crate::maildir::entry::{Kind, Known, Look};
use crate::maildir::folder::{self, SetKind};
use crate::path::TreePath;

impl Scanner<'_> {
    /// The quick look, at a unit that nobody touched since it was recorded: the directories in it that are units of
    /// their own. `None` where anything needs a closer look. One that `was_untouched` a moment ago is not looked at
    /// again, unless its record was changed since.
    pub fn as_recorded(&self, path: &TreePath, rows: &UnitRows, was_untouched: bool) -> Option<Vec<TreePath>> {
        if self.rules.restat || self.rules.checksum {
            return None;
        }
        let is_same = |path: &TreePath, row: &Row| {
            let recorded = row.look.filter(|look| !look.racy);
            recorded.is_some_and(|look| was_untouched || self.is_same_directory(path, &look))
        };
        let row = rows.directory.as_ref().filter(|row| !is_paged(path) && is_same(path, row))?;
        if self.is_recorded_folder(row) {
            // In the order in which a message moves.
            for (part, row) in folder::PARTS.iter().zip(&rows.parts) {
                let at = path.child(part);
                let same = match row {
                    Some(row) if *part == "tmp" => was_untouched || self.is_same_tmp(&at, row),
                    Some(row) => is_same(&at, row),
                    None => false,
                };
                if !same {
                    return None;
                }
            }
        }
        let mut files = row.entries.iter().filter(|known| known.entry.kind != Kind::Directory);
        let is_same_file = |known: &Known| {
            let at = path.join(&known.entry.name);
            self.root.stat(&at).is_ok_and(|stat| self.is_same_file(&stat, known))
        };
        (was_untouched || files.all(is_same_file)).then(|| self.recorded_below(path, rows))
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

    fn is_same_directory(&self, path: &TreePath, look: &Look) -> bool {
        self.root.stat(path).is_ok_and(|stat| stat.kind == FileKind::Directory && stat.look() == *look)
    }

    /// What is in `tmp` does not matter; its mode and owner do.
    fn is_same_tmp(&self, path: &TreePath, row: &Row) -> bool {
        !self.rules.filter.takes_from_tmp(path)
            && row.look.is_some_and(|look| {
                self.root.stat(path).is_ok_and(|stat| Look { racy: look.racy, ..stat.look() } == look)
            })
    }

    /// Whether a file, of which not even the change time moved, is as it was.
    fn is_same_file(&self, stat: &Stat, known: &Known) -> bool {
        let (local, entry) = (&known.local, &known.entry);
        let untouched = match local.ino {
            0 => {
                self.rules.trust_names && self.meta(stat, Some(stat.mtime), Vec::new(), Some(&entry.meta)) == entry.meta
            }
            ino => ino == stat.ino && local.ctime == stat.ctime && !local.racy,
        };
        untouched && mark(stat) == entry.mark() && kind_of(entry) == stat.kind
    }

    /// Whether a unit's directories look as they did when `diff` was made.
    pub fn looks_as_in(&self, diff: &Diff) -> bool {
        !diff.looks.is_empty()
            && diff.looks.iter().all(|(path, look)| {
                path.name() == b"tmp" || !look.racy && self.root.stat(path).is_ok_and(|stat| stat.look() == *look)
            })
    }
}
