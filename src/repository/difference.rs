//! What changed between two moments, folder by folder.

use super::layout::RepositoryError;
use super::manifest::key;
use super::record::{Record, What};
use super::view::View;
use crate::maildir::{folder, name};
use crate::path::TreePath;
use std::collections::{BTreeMap, BTreeSet};

type Result<T> = std::result::Result<T, RepositoryError>;

/// What changed in one directory; `cur` and `new` count as the folder that they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Messages that came.
    pub messages_added: u64,
    /// Messages that went.
    pub messages_removed: u64,
    /// Messages with other flags, or read for the first time.
    pub messages_flagged: u64,
    /// Other files that came.
    pub files_added: u64,
    /// Other files that went.
    pub files_removed: u64,
    /// Files with another content, or other metadata.
    pub files_changed: u64,
}

/// What came and went in a folder, before it is known which of it is the same message.
#[derive(Default)]
struct Folder {
    changed: Changed,
    came: BTreeSet<Vec<u8>>,
    went: BTreeSet<Vec<u8>>,
}

/// Compares two views of one set. What cannot be read of either is in the list beside.
///
/// # Errors
/// Where a view cannot be read at all.
pub fn between(before: &View, after: &View) -> Result<(BTreeMap<TreePath, Changed>, Vec<String>)> {
    let mut folders: BTreeMap<TreePath, Folder> = BTreeMap::new();
    let problems = side_by_side(before, after, |was, is| match (was, is) {
        (Some(was), Some(is)) => note_change(&mut folders, was, is),
        (Some(record), None) => note(&mut folders, record, false),
        (None, Some(record)) => note(&mut folders, record, true),
        (None, None) => {}
    });
    let changed = folders.into_iter().map(|(path, folder)| (path, folder.counted())).collect();
    Ok((changed, problems))
}

/// Walks through two views of one set, path by path: what stood there, and what does. Gives what cannot be read of either.
pub fn side_by_side(
    before: &View,
    after: &View,
    mut each: impl FnMut(Option<&Record>, Option<&Record>),
) -> Vec<String> {
    let mut problems = Vec::new();
    let root = TreePath::root();
    let (mut old, mut new) = (before.beneath(&root), after.beneath(&root));
    let mut next = |records: &mut dyn Iterator<Item = Result<Record>>| loop {
        match records.next()? {
            Ok(record) => return Some(record),
            Err(error) => problems.push(error.to_string()),
        }
    };
    let (mut was, mut is) = (next(&mut old), next(&mut new));
    loop {
        let order = match (&was, &is) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(was), Some(is)) => key(&was.path).cmp(&key(&is.path)),
        };
        each(was.as_ref().filter(|_| order.is_le()), is.as_ref().filter(|_| order.is_ge()));
        if order.is_le() {
            was = next(&mut old);
        }
        if order.is_ge() {
            is = next(&mut new);
        }
    }
    problems
}

/// The folder, or plain directory, that a path is in.
fn place(path: &TreePath) -> TreePath {
    let directory = path.parent();
    if folder::is_part(directory.name()) { directory.parent() } else { directory }
}

fn is_message(record: &Record) -> bool {
    matches!(&record.state, Some((_, What::File { envelope: Some(_), .. })))
}

fn note(folders: &mut BTreeMap<TreePath, Folder>, record: &Record, came: bool) {
    if matches!(&record.state, Some((_, What::Directory))) {
        return;
    }
    let folder = folders.entry(place(&record.path)).or_default();
    match (is_message(record), came) {
        (true, true) => drop(folder.came.insert(name::base(record.path.name()).to_vec())),
        (true, false) => drop(folder.went.insert(name::base(record.path.name()).to_vec())),
        (false, true) => folder.changed.files_added += 1,
        (false, false) => folder.changed.files_removed += 1,
    }
}

fn note_change(folders: &mut BTreeMap<TreePath, Folder>, was: &Record, is: &Record) {
    let same = match (&was.state, &is.state) {
        (Some((then, What::File { size, check, .. })), Some((now, What::File { size: length, check: other, .. }))) => {
            then == now && (size, check) == (length, other)
        }
        (Some((_, What::Directory)), Some((_, What::Directory))) => true,
        (then, now) => then == now,
    };
    if !same {
        folders.entry(place(&is.path)).or_default().changed.files_changed += 1;
    }
}

impl Folder {
    fn counted(self) -> Changed {
        let flagged = self.came.intersection(&self.went).count() as u64;
        Changed {
            messages_added: self.came.len() as u64 - flagged,
            messages_removed: self.went.len() as u64 - flagged,
            messages_flagged: flagged,
            ..self.changed
        }
    }
}
