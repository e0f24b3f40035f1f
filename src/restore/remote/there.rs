//! What an earlier run of this restore has put in place, as the far end knows it durably.

use crate::catalogue::directory::key;
use crate::maildir::entry::{Entry, File, Mark};
use crate::path::{Name, TreePath};
use crate::restore::walk::Wish;
use crate::sync::SyncError;
use crate::sync::sender::wire::Wire;
use crate::wire::message::Message;
use std::collections::{BTreeMap, HashMap};

/// Directories that are asked for at once: those that come next.
const AHEAD: usize = 16;

type Result<T> = std::result::Result<T, SyncError>;

/// The files of a directory.
type Files = HashMap<Name, (Mark, File)>;

/// What is there. Records are asked for when the walk comes to them, and only those on the way to where it is are kept.
#[derive(Default)]
pub(super) struct There {
    /// Directories that were not asked for yet, by their keys: in the order of the walk.
    listed: BTreeMap<Vec<u8>, TreePath>,
    known: HashMap<TreePath, Files>,
}

impl There {
    /// Asks which directories there are.
    pub fn ask(wire: &mut Wire<'_>) -> Result<Self> {
        wire.send(&Message::Compare)?;
        let mut there = Self::default();
        loop {
            let Message::Digests(digests, last) = wire.answer()? else {
                return Err(SyncError::Protocol("it did not say what it has"));
            };
            there.listed.extend(digests.into_iter().map(|(path, _)| (key(&path), path)));
            if last {
                return Ok(there);
            }
        }
    }

    /// Whether a file is there, as it is to be.
    pub fn has(&mut self, wish: &Wish, wire: &mut Wire<'_>) -> Result<bool> {
        let Some((directory, name)) = wish.record.path.split() else { return Ok(false) };
        if self.listed.contains_key(&key(&directory)) {
            self.fetch(&directory, wire)?;
        }
        let found = self.known.get(&directory).and_then(|files| files.get(&name));
        Ok(found.is_some_and(|(mark, file)| wish.is(*mark, Some(file))))
    }

    fn fetch(&mut self, directory: &TreePath, wire: &mut Wire<'_>) -> Result<()> {
        self.known.retain(|path, _| directory.is_within(path));
        let next: Vec<TreePath> =
            self.listed.range(key(directory)..).take(AHEAD).map(|(_, path)| path.clone()).collect();
        wire.send(&Message::Fetch(next.clone()))?;
        for path in next {
            self.listed.remove(&key(&path));
            let files = files(&path, wire)?;
            self.known.insert(path, files);
        }
        Ok(())
    }
}

fn files(path: &TreePath, wire: &mut Wire<'_>) -> Result<Files> {
    let mut files = Files::new();
    loop {
        let row = match wire.answer()? {
            Message::Row(row) if row.path == *path => row,
            _ => return Err(SyncError::Protocol("it sent another record than was asked for")),
        };
        let file = |entry: Entry| entry.file().map(|file| (entry.name.clone(), (entry.mark(), *file)));
        files.extend(row.entries.into_iter().filter_map(file));
        if !row.more {
            return Ok(files);
        }
    }
}
