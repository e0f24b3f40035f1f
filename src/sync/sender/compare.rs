//! Where the ends differ: the records of the directories that do, and nothing else.

use super::wire::answer;
use super::{Master, Result};
use crate::catalogue::directory;
use crate::catalogue::edit::Edit;
use crate::id::Digest;
use crate::maildir::entry::Entry;
use crate::monitor::{Event, Phase};
use crate::path::TreePath;
use crate::sync::SyncError;
use crate::transport::Connection;
use crate::wire::message::{Message, Row};
use std::collections::{BTreeMap, VecDeque};

/// Directories asked for in one message.
const FETCH: usize = 512;

impl Master<'_> {
    /// Makes the catalogue say what the slave has, by the records of the directories that differ.
    pub(super) fn compare(&self, edit: &mut Edit<'_>, connection: &mut Connection, theirs: &Digest) -> Result<()> {
        self.monitor.event(Event::Phase(Phase::Compare));
        edit.flush()?;
        edit.check_sum()?;
        connection.sender.send(&Message::Compare)?;
        let mut here: BTreeMap<Vec<u8>, Digest> = BTreeMap::new();
        let mut from = Vec::new();
        loop {
            let rows = edit.rows_from(&from, 4096)?;
            let Some((last, _)) = rows.last() else { break };
            from.clone_from(last);
            from.push(0);
            here.extend(rows.into_iter().map(|(key, row)| (key, row.digest)));
        }
        let mut wanted = VecDeque::new();
        loop {
            let (digests, last) = match answer(&mut connection.receiver)? {
                Message::Digests(digests, last) => (digests, last),
                _ => return Err(SyncError::Protocol("it did not say what it has")),
            };
            for (path, digest) in digests {
                if here.remove(&directory::key(&path)) != Some(digest) {
                    wanted.push_back(path);
                }
            }
            if last {
                break;
            }
        }
        // The deepest first, so that nothing is looked for beneath what is gone.
        for key in here.into_keys().rev() {
            edit.disown(&directory::path_of(&key)?)?;
        }
        self.fetch(edit, connection, wanted)?;
        edit.flush()?;
        match edit.root_digest() == *theirs {
            true => Ok(()),
            false => Err(SyncError::Protocol("its records do not match its own digest")),
        }
    }

    fn fetch(&self, edit: &mut Edit<'_>, connection: &mut Connection, mut wanted: VecDeque<TreePath>) -> Result<()> {
        while !wanted.is_empty() {
            let ask: Vec<TreePath> = wanted.drain(..wanted.len().min(FETCH)).collect();
            connection.sender.send(&Message::Fetch(ask.clone()))?;
            for path in ask {
                let row = self.take_row(connection, &path)?;
                edit.adopt(&path, row.meta, row.entries)?;
                if edit.open_directories() > 64 {
                    edit.flush()?;
                }
            }
        }
        Ok(())
    }

    fn take_row(&self, connection: &mut Connection, path: &TreePath) -> Result<Row> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let mut row = match answer(&mut connection.receiver)? {
                Message::Row(row) if row.path == *path => row,
                _ => return Err(SyncError::Protocol("it sent another record than was asked for")),
            };
            entries.append(&mut row.entries);
            if !row.more {
                return Ok(Row { entries, ..row });
            }
        }
    }
}
