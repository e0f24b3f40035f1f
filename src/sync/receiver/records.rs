//! What is recorded here, told to the other end: digests of all directories, and the records that it asks for.

use super::Result;
use crate::catalogue::CatalogueError;
use crate::catalogue::directory;
use crate::catalogue::edit::Edit;
use crate::maildir::entry::Entry;
use crate::path::TreePath;
use crate::sync::SyncError;
use crate::transport::Sender;
use crate::wire::message::{MAX_LIST, Message, Row};

/// Entries in one message of a directory's record.
const ROW_ENTRIES: usize = 4096;

/// Directories that are unpacked at once.
const OPEN: usize = 256;

/// Tells every directory with its digest.
pub(super) fn digests(edit: &mut Edit<'_>, sender: &Sender) -> Result<()> {
    edit.flush()?;
    edit.check_sum()?;
    let mut from = Vec::new();
    loop {
        let rows = edit.rows_from(&from, MAX_LIST)?;
        let last = rows.len() < MAX_LIST;
        if let Some((key, _)) = rows.last() {
            from.clone_from(key);
            from.push(0);
        }
        let mut digests = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            digests.push((directory::path_of(&key)?, row.digest));
        }
        sender.send(&Message::Digests(digests, last))?;
        if last {
            return Ok(());
        }
    }
}

/// Tells the records of directories.
pub(super) fn rows(paths: Vec<TreePath>, edit: &mut Edit<'_>, sender: &Sender) -> Result<()> {
    for path in paths {
        let Some(found) = edit.directory(&path)? else {
            return Err(SyncError::Protocol("it asks for a directory that is not there"));
        };
        let (meta, digest) = (found.meta.clone(), found.digest());
        let mut entries: Vec<Entry> = found.entries.values().map(|known| known.entry.clone()).collect();
        if edit.row(&path)?.is_some_and(|row| row.digest != digest) {
            return Err(CatalogueError::Damaged("a directory's record does not match its digest").into());
        }
        loop {
            let rest = entries.split_off(entries.len().min(ROW_ENTRIES));
            let more = !rest.is_empty();
            let row = Row { path: path.clone(), meta: meta.clone(), entries, more };
            sender.send(&Message::Row(row))?;
            if !more {
                break;
            }
            entries = rest;
        }
        if edit.open_directories() > OPEN {
            edit.flush()?;
        }
    }
    Ok(())
}
