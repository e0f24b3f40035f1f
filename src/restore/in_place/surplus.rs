//! What is there and was not: it goes, where the tree is made as it was.
//!
//! What a mail server keeps for itself stays: its lists of UIDs promise numbers to clients, and its indexes follow the
//! messages.

use super::{Filing, Result, apply, know, know_file};
use crate::catalogue::edit::Edit;
use crate::disk::{FileKind, Root, Stat};
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
    /// Directories in which nothing else is, those that lie in others first.
    directories: Vec<TreePath>,
}

impl Surplus {
    /// Looks through the tree for what the view does not have, in the part of it that is meant.
    pub(super) fn find(filing: &Filing<'_>, wanted: Wanted<'_>) -> Result<Self> {
        let mut surplus = Self::default();
        surplus.look(filing, wanted, &TreePath::root())?;
        Ok(surplus)
    }

    /// Looks into a directory; `true` where nothing in it stays.
    fn look(&mut self, filing: &Filing<'_>, wanted: Wanted<'_>, directory: &TreePath) -> Result<bool> {
        let mut is_bare = true;
        for entry in filing.root.list(directory, 64)?.0.entries {
            if directory.is_root() && entry.name.as_bytes() == RESERVED {
                continue;
            }
            let path = directory.join(&entry.name);
            let Some(stat) = filing.root.stat_if_there(&path)? else { continue };
            is_bare &= match stat.kind {
                FileKind::Directory => self.directory(filing, wanted, path)?,
                FileKind::File | FileKind::Symlink => self.file(filing, wanted, path, &stat)?,
                FileKind::Special => false,
            };
        }
        Ok(is_bare)
    }

    /// `true` where it goes, or nothing in it would stay.
    fn directory(&mut self, filing: &Filing<'_>, wanted: Wanted<'_>, path: TreePath) -> Result<bool> {
        let was_there = filing.view.get(&path)?.is_some();
        // What is on its way into a folder is nobody's yet.
        if path.name() == b"tmp" && was_there {
            return Ok(false);
        }
        let is_bare = self.look(filing, wanted, &path)?;
        let goes = is_bare && !was_there && wanted(&record(&path, What::Directory));
        if goes {
            self.directories.push(path);
        }
        Ok(goes)
    }

    /// `true` where it goes, or would go with the directory that it is in.
    fn file(&mut self, filing: &Filing<'_>, wanted: Wanted<'_>, path: TreePath, stat: &Stat) -> Result<bool> {
        let what = What::File { size: 0, group: 0, check: [0; 8], place: None, envelope: None };
        if filing.claimed.contains(&path) || !wanted(&record(&path, what)) {
            return Ok(false);
        }
        let is_message = folder::holds_messages(path.parent().name());
        if !is_message && is_servers(path.name()) {
            return Ok(true);
        }
        // Every message that the view has is claimed, under whatever name.
        let is_surplus = is_message || filing.view.get(&path)?.is_none();
        let goes = is_surplus && is_kept(filing, &path, stat)?;
        if goes {
            self.files.push(path);
        }
        Ok(goes)
    }

    /// How many files go.
    pub(super) fn count(&self) -> u64 {
        self.files.len() as u64
    }

    /// Removes it all; gives how many files went. A directory that something came into meanwhile stays.
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
            if is_bare(root, path)? {
                know(edit, root, path)?;
                apply(hand, edit, vec![Change::RemoveDirectory { path: path.clone() }])?;
            }
        }
        Ok(self.count())
    }
}

/// Whether what was kept has it. A run that only counts keeps nothing.
fn is_kept(filing: &Filing<'_>, path: &TreePath, stat: &Stat) -> Result<bool> {
    let Some(kept) = filing.order.kept else { return Ok(filing.order.dry_run) };
    Ok(match kept.get(path)? {
        Some((_, What::File { size, .. })) => size == stat.size,
        Some((_, What::Symlink(_))) => stat.kind == FileKind::Symlink,
        _ => false,
    })
}

/// Whether nothing is in a directory but what goes with it.
fn is_bare(root: &Root, directory: &TreePath) -> Result<bool> {
    let entries = root.list(directory, 64)?.0.entries;
    Ok(entries.iter().all(|entry| {
        let name = entry.name.as_bytes();
        is_servers(name) && !folder::holds_messages(directory.name())
    }))
}

/// What a filter is asked about: something at this path, of which nothing else is known.
fn record(path: &TreePath, what: What) -> Record {
    Record { path: path.clone(), state: Some((Meta::default(), what)) }
}

/// Files that belong to the server that has them, not to what was kept.
fn is_servers(name: &[u8]) -> bool {
    name.starts_with(b"dovecot") || name.starts_with(b".dovecot.") || name.ends_with(b".lock") || name == b"maildirsize"
}
