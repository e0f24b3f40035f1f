//! The records of a view in order: those of its full, and over them what changed since; all of them, or those of one
//! directory.

use super::Result;
use crate::maildir::entry::Meta;
use crate::path::{Name, TreePath};
use crate::repository::manifest::{ManifestError, Records, key};
use crate::repository::record::{Record, What};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;
use std::ops::Bound;

/// The records of a full with what changed over them.
pub struct Merged<'a> {
    base: Option<Records<'a>>,
    /// The next record of the full, and its key.
    ahead: Option<std::result::Result<(Vec<u8>, Record), ManifestError>>,
    changed: &'a BTreeMap<Vec<u8>, Record>,
    over: Peekable<Range<'a, Vec<u8>, Record>>,
    first: Vec<u8>,
}

impl<'a> Merged<'a> {
    /// `base` begins at the key `first`, and ends where keys do not begin with it any more.
    pub(super) fn new(base: Option<Records<'a>>, changed: &'a BTreeMap<Vec<u8>, Record>, first: Vec<u8>) -> Self {
        let over = from(changed, &first);
        Self { base, ahead: None, changed, over, first }
    }

    /// Leaves out what comes before a key.
    fn seek(&mut self, wanted: &[u8]) {
        match &self.ahead {
            Some(Ok((key, _))) if **key >= *wanted => {}
            // Damage is told, wherever it is.
            Some(Err(_)) => {}
            _ => {
                self.ahead = None;
                if let Some(base) = &mut self.base {
                    base.seek(wanted);
                }
            }
        }
        if self.over.peek().is_some_and(|(key, _)| key.as_slice() < wanted) {
            self.over = from(self.changed, wanted);
        }
    }

    fn look_ahead(&mut self) {
        if self.ahead.is_none() {
            let next = self.base.as_mut().and_then(Records::next);
            self.ahead = next.map(|record| record.map(|record| (key(&record.path), record)));
        }
    }
}

fn from<'a>(changed: &'a BTreeMap<Vec<u8>, Record>, key: &[u8]) -> Peekable<Range<'a, Vec<u8>, Record>> {
    changed.range::<[u8], _>((Bound::Included(key), Bound::Unbounded)).peekable()
}

impl Iterator for Merged<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.look_ahead();
            let over = self.over.peek().filter(|(key, _)| key.starts_with(&self.first));
            let order = match (&self.ahead, over) {
                (None, None) => return None,
                (Some(Err(_)), _) => return self.ahead.take()?.err().map(|error| Err(error.into())),
                (Some(Ok(_)), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(Ok((base, _))), Some((over, _))) => base.cmp(over),
            };
            let base = if order.is_le() { self.ahead.take() } else { None };
            let record = match order.is_ge() {
                true => self.over.next()?.1.clone(),
                false => base?.ok()?.1,
            };
            if record.state.is_some() {
                return Some(Ok(record));
            }
        }
    }
}

/// What is directly in a directory.
pub struct Children<'a> {
    records: Merged<'a>,
    directory: TreePath,
}

impl<'a> Children<'a> {
    pub(super) fn new(records: Merged<'a>, directory: TreePath) -> Self {
        Self { records, directory }
    }

    /// The name, in the directory, of what leads to a path beneath it.
    fn name(&self, path: &TreePath) -> Option<Name> {
        let depth = self.directory.components().count();
        path.components().nth(depth).and_then(|name| Name::new(name).ok())
    }
}

impl Iterator for Children<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                damage => return Some(damage),
            };
            // The directory itself has none.
            let Some(name) = self.name(&record.path) else { continue };
            let path = self.directory.join(&name);
            let is_itself = path == record.path;
            if !is_itself || matches!(record.state, Some((_, What::Directory))) {
                self.records.seek(&behind(&path));
            }
            // What is above it could not be read.
            return Some(Ok(if is_itself { record } else { Record { path, state: Some(implied()) } }));
        }
    }
}

/// The first key behind everything beneath a path.
fn behind(path: &TreePath) -> Vec<u8> {
    let mut key = key(path);
    // A key ends in a zero, which no name has.
    if let Some(last) = key.last_mut() {
        *last = 1;
    }
    key
}

/// A directory of which nothing is known but that something is in it.
pub(super) fn implied() -> (Meta, What) {
    (Meta { mode: 0o700, ..Meta::default() }, What::Directory)
}

#[cfg(test)]
mod tests;
