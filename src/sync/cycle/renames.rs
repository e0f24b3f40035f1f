//! Directories that have another name than the one that is recorded: renamed on the slave, not copied.

use super::{Cycle, Result};
use crate::catalogue::directory;
use crate::catalogue::scan::Diff;
use crate::maildir::change::Change;
use crate::maildir::entry::Kind;
use crate::path::TreePath;

impl Cycle<'_, '_> {
    /// Directories of this unit that have another name now. `true` where the catalogue was changed.
    pub(super) fn rename_within(&mut self, diff: &mut Diff) -> Result<bool> {
        let gone: Vec<TreePath> = diff
            .vanished
            .iter()
            .filter(|(_, known)| known.entry.kind == Kind::Directory)
            .map(|(path, _)| path.clone())
            .collect();
        if gone.is_empty() || self.options.plans_only && diff.subdirectories.is_empty() {
            return Ok(false);
        }
        let mut renamed = false;
        for from in gone {
            let recorded = self.edit.row(&from)?.and_then(|row| row.look).map(|look| (look.ino, look.born));
            for to in diff.subdirectories.clone() {
                let there = self.options.root.stat_if_there(&to)?.map(|stat| (stat.ino, stat.born));
                if recorded.is_some() && recorded == there && self.edit.row(&to)?.is_none() {
                    self.ship_directory_rename(from.clone(), to)?;
                    renamed = true;
                    break;
                }
            }
        }
        Ok(renamed)
    }

    /// A directory that is not recorded may be one that is, under another name elsewhere in the tree.
    pub(super) fn rename_directory(&mut self, path: &TreePath) -> Result<bool> {
        if path.is_root() || self.edit.is_empty()? || self.edit.row(&path.parent())?.is_none() {
            return Ok(false);
        }
        let Some(stat) = self.options.root.stat_if_there(path)? else { return Ok(false) };
        if self.directory_inodes.is_none() {
            self.drain()?;
            self.directory_inodes = Some(self.edit.directory_inodes()?);
        }
        let from = self.directory_inodes.as_ref().and_then(|inodes| inodes.get(&(stat.ino, stat.born))).cloned();
        let Some(from) = from.filter(|from| !from.is_root() && !from.is_within(path) && !path.is_within(from)) else {
            return Ok(false);
        };
        // Another directory may have its name by now. Where this walk has passed that one a rename would take it away for
        // good: what was in the old one comes as links then.
        let is_ahead = from.is_within(&self.walked_from) && directory::key(&from) > directory::key(path);
        let in_the_way = match self.options.root.stat_if_there(&from)? {
            Some(old) => !is_ahead || old.ino == stat.ino,
            None => false,
        };
        self.drain()?;
        if in_the_way || self.edit.row(&from)?.is_none() || self.edit.row(path)?.is_some() {
            return Ok(false);
        }
        self.ship_directory_rename(from, path.clone())?;
        Ok(true)
    }

    fn ship_directory_rename(&mut self, from: TreePath, to: TreePath) -> Result<()> {
        self.drain()?;
        self.held.retain(|_, held| !held.diff.path.is_within(&from));
        let change = Change::RenameDirectory { from, to };
        self.edit.apply(&change)?;
        self.edit.flush()?;
        self.cursor.stale = true;
        self.directory_inodes = None;
        self.count(&change, false);
        self.sink.batch(&[change])
    }
}
