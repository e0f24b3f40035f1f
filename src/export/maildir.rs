//! What of a set a plain Maildir has: folders, messages, and what their names need to be understood.

use super::{Wanted, folder_of, is_message};
use crate::maildir::folder;
use crate::path::TreePath;
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use std::collections::HashSet;

/// What stands beside the messages of a folder and is no server's own: the names of the keyword letters, and the mark by
/// which a Maildir++ folder is known.
const BESIDE: [&[u8]; 2] = [b"dovecot-keywords", b"maildirfolder"];

/// A choice of records that makes whole Maildir folders.
pub struct Plain {
    folders: HashSet<TreePath>,
}

impl Plain {
    /// The folders that something is wanted of. What of the view cannot be read is left to whoever reads it next.
    pub fn of(view: &View, wanted: Wanted<'_>) -> Self {
        let records = view.beneath(&TreePath::root()).filter_map(Result::ok);
        let folders = records.filter(|record| wanted(record)).filter_map(|record| folder_of(&record)).collect();
        Self { folders }
    }

    /// Whether a record is one of the choice: a message that is wanted, or what its folder is not a folder without.
    pub fn has(&self, record: &Record, wanted: Wanted<'_>) -> bool {
        let parent = record.path.parent();
        match &record.state {
            Some((_, What::Directory)) => folder::is_part(record.path.name()) && self.folders.contains(&parent),
            Some((_, What::File { .. })) if is_message(record) => wanted(record),
            Some((_, What::File { .. })) => BESIDE.contains(&record.path.name()) && self.folders.contains(&parent),
            _ => false,
        }
    }
}
