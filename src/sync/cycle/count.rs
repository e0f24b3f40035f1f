//! Counting what is done, and showing it as rsync does.

use super::{Cycle, Result};
use crate::catalogue::directory;
use crate::maildir::change::{Change, Source};
use crate::maildir::folder;
use crate::monitor::Event;
use crate::path::TreePath;

impl Cycle<'_, '_> {
    /// Messages, other files and directories below a directory, itself included.
    pub(super) fn below(&mut self, path: &TreePath) -> Result<(u64, u64, u64)> {
        let (mut messages, mut others, mut directories) = (0, 0, 0);
        for (at, row) in self.rows_below(path)? {
            directories += 1;
            match directory::is_paged(&at) {
                true => messages += row.count,
                false => others += row.entries.iter().filter(|known| known.entry.file().is_some()).count() as u64,
            }
        }
        Ok((messages, others, directories))
    }

    pub(super) fn count_removed_directory(&mut self, path: &TreePath) -> Result<()> {
        let (messages, others, directories) = self.below(path)?;
        // The change itself counts one.
        self.counters.directories_removed += directories.saturating_sub(1);
        let moved = self.moved.iter().filter(|moved| moved.is_within(path)).count() as u64;
        self.counters.messages_renamed += moved;
        self.counters.messages_linked -= moved.min(self.counters.messages_linked);
        self.counters.messages_removed += messages.saturating_sub(moved);
        self.counters.files_removed += others;
        Ok(())
    }

    pub(super) fn count(&mut self, change: &Change, is_new: bool) {
        let counters = &mut self.counters;
        let is_message = folder::is_message(self.options.rules.kind, change.path());
        let counter = match change {
            Change::MakeDirectory { .. } if is_new => &mut counters.directories_added,
            Change::MakeDirectory { .. } | Change::SetMeta { .. } | Change::Forget { .. } => {
                &mut counters.metadata_changed
            }
            Change::RenameDirectory { .. } => &mut counters.directories_renamed,
            Change::RemoveDirectory { .. } => &mut counters.directories_removed,
            Change::Put { .. } if is_message && is_new => &mut counters.messages_added,
            Change::Put { source: Source::Delta(_), .. } => &mut counters.files_patched,
            Change::Symlink { .. } => &mut counters.symlinks_changed,
            Change::Put { .. } if is_new => &mut counters.files_added,
            Change::Put { .. } => &mut counters.files_replaced,
            Change::Link { .. } if is_message => &mut counters.messages_linked,
            Change::Link { .. } => &mut counters.files_added,
            Change::Rename { .. } => &mut counters.messages_renamed,
            Change::Remove { path, .. } if is_message && self.moved.contains(path) => {
                counters.messages_linked = counters.messages_linked.saturating_sub(1);
                &mut counters.messages_renamed
            }
            Change::Remove { .. } if is_message => &mut counters.messages_removed,
            Change::Remove { .. } => &mut counters.files_removed,
        };
        *counter += 1;
        if self.options.itemize {
            self.monitor.event(Event::Item(itemized(change, is_new)));
        }
    }
}

/// A change as rsync's `--itemize-changes` would show it; `r` is a rename, which rsync does not have.
fn itemized(change: &Change, is_new: bool) -> String {
    let plus = if is_new { "+++++++++" } else { "........." };
    match change {
        Change::MakeDirectory { path, .. } if is_new => format!("cd{plus} {path}/"),
        Change::MakeDirectory { path, .. } => format!(".d..tpog.. {path}/"),
        Change::RenameDirectory { from, to } => format!("rd......... {from}/ -> {to}/"),
        Change::RemoveDirectory { path } => format!("*deleting   {path}/"),
        Change::Put { path, source: Source::Copied(from), .. } => format!("cf{plus} {path} <= {from}"),
        Change::Put { path, .. } if is_new => format!(">f{plus} {path}"),
        Change::Put { path, .. } => format!(">f.st...... {path}"),
        Change::Symlink { path, target, .. } => format!("cL{plus} {path} -> {}", crate::path::escape(target)),
        Change::Link { path, existing, .. } => format!("hf{plus} {path} => {existing}"),
        Change::Rename { from, to, .. } => format!("rf......... {from} -> {to}"),
        Change::SetMeta { path, .. } => format!(".f..tpogax. {path}"),
        Change::Remove { path, .. } => format!("*deleting   {path}"),
        Change::Forget { path } => format!("*excluding  {path}"),
    }
}
