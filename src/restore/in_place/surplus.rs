//! What is there and was not: it goes, where the tree is made as it was.
//!
//! What a mail server keeps for itself stays: its lists of UIDs promise numbers to clients, and its indexes follow the
//! messages.

use super::{Filing, Result, apply, know, know_file};
use crate::catalogue::edit::Edit;
use crate::disk::{FileKind, Root};
use crate::maildir::change::Change;
use crate::maildir::entry::Meta;
use crate::maildir::folder;
use crate::path::{RESERVED, TreePath};
use crate::repository::record::{Record, What};
use crate::restore::{BATCH_CHANGES, Wanted};
use crate::sync::apply::Hand;

/// What goes.
#[derive(Default)]
pub(super) struct Surplus {
    files: Vec<TreePath>,
    directories: Vec<TreePath>,
    /// Files in directories that go.
    beneath: u64,
}

impl Surplus {
    /// Looks through the tree for what the view does not have, in the part of it that is meant.
    pub(super) fn find(filing: &Filing<'_>, wanted: Wanted<'_>) -> Result<Self> {
        let mut surplus = Self::default();
        let mut stack = vec![TreePath::root()];
        while let Some(directory) = stack.pop() {
            let (listing, _) = filing.root.list(&directory, 64)?;
            for entry in listing.entries {
                if directory.is_root() && entry.name.as_bytes() == RESERVED {
                    continue;
                }
                let path = directory.join(&entry.name);
                let kind = match entry.kind {
                    Some(kind) => kind,
                    None => match filing.root.stat_if_there(&path)? {
                        Some(stat) => stat.kind,
                        None => continue,
                    },
                };
                match kind {
                    FileKind::Directory if path.name() == b"tmp" && folder::is_part(path.name()) => {}
                    FileKind::Directory => surplus.directory(filing, wanted, path, &mut stack)?,
                    FileKind::File | FileKind::Symlink => surplus.file(filing, wanted, path)?,
                    FileKind::Special => {}
                }
            }
        }
        Ok(surplus)
    }

    fn directory(
        &mut self,
        filing: &Filing<'_>,
        wanted: Wanted<'_>,
        path: TreePath,
        stack: &mut Vec<TreePath>,
    ) -> Result<()> {
        let was_there = filing.view.get(&path)?.is_some();
        if !was_there && wanted(&record(&path, What::Directory)) {
            self.beneath += files_beneath(&filing.root, &path)?;
            self.directories.push(path);
        } else {
            stack.push(path);
        }
        Ok(())
    }

    fn file(&mut self, filing: &Filing<'_>, wanted: Wanted<'_>, path: TreePath) -> Result<()> {
        let what = What::File { size: 0, group: 0, check: [0; 8], place: None, envelope: None };
        if filing.claimed.contains(&path) || !wanted(&record(&path, what)) {
            return Ok(());
        }
        let goes = match folder::holds_messages(path.parent().name()) {
            // Every message that the view has is claimed, under whatever name.
            true => true,
            false => !is_servers(path.name()) && filing.view.get(&path)?.is_none(),
        };
        if goes {
            self.files.push(path);
        }
        Ok(())
    }

    /// How many go.
    pub(super) fn messages_and_files(&self) -> u64 {
        self.files.len() as u64 + self.beneath
    }

    /// Removes it all; gives how many files went.
    pub(super) fn remove(&self, root: &Root, hand: &mut Hand, edit: &mut Edit<'_>) -> Result<u64> {
        for part in self.files.chunks(BATCH_CHANGES) {
            let mut changes = Vec::with_capacity(part.len());
            for path in part {
                let mark = know_file(edit, root, path)?;
                changes.push(Change::Remove { path: path.clone(), mark });
            }
            apply(hand, edit, changes)?;
        }
        for path in &self.directories {
            know(edit, root, path)?;
            apply(hand, edit, vec![Change::RemoveDirectory { path: path.clone() }])?;
        }
        Ok(self.messages_and_files())
    }
}

/// What a filter is asked about: something at this path, of which nothing else is known.
fn record(path: &TreePath, what: What) -> Record {
    Record { path: path.clone(), state: Some((Meta::default(), what)) }
}

/// Files that belong to the server that has them, not to what was kept.
fn is_servers(name: &[u8]) -> bool {
    name.starts_with(b"dovecot") || name.starts_with(b".dovecot.") || name.ends_with(b".lock") || name == b"maildirsize"
}

fn files_beneath(root: &Root, path: &TreePath) -> Result<u64> {
    let mut count = 0;
    for entry in root.list(path, 64)?.0.entries {
        let path = path.join(&entry.name);
        match root.stat_if_there(&path)? {
            Some(stat) if stat.kind == FileKind::Directory => count += files_beneath(root, &path)?,
            Some(_) => count += 1,
            None => {}
        }
    }
    Ok(count)
}
