//! One directory's record, unpacked, and how it is packed into rows.
//!
//! The entries of `cur/` and `new/` are kept in pages apart from the row, so that a scan in which nothing
//! changed reads no message's entry. Where a page begins is decided by the base names in it: a change
//! rewrites the page that it is in, and no other.

use super::store::CatalogueError;
use crate::id::Digest;
use crate::maildir::entry::{Entry, Kind, Known, Look, Meta};
use crate::maildir::folder;
use crate::maildir::name::base;
use crate::path::{Name, TreePath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of rows and pages; the first byte of each.
const FORMAT: u8 = 1;

/// About how many entries a page holds.
const PAGE_TARGET: u64 = 128;

/// Most entries in a page, whatever their names.
const PAGE_MAX: usize = 1024;

/// A directory and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Directory {
    /// This host's number for the directory; it stays when the directory is renamed.
    pub id: u64,
    /// Its metadata.
    pub meta: Meta,
    /// When it was last listed.
    pub look: Option<Look>,
    /// What is in it. Of a directory only the name.
    pub entries: BTreeMap<Name, Known>,
}

/// The row of a directory: all of it, except the entries of `cur/` and `new/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// See [`Directory::id`].
    pub id: u64,
    /// See [`Directory::meta`].
    pub meta: Meta,
    /// See [`Directory::look`].
    pub look: Option<Look>,
    /// Digest over metadata and entries.
    pub digest: Digest,
    /// Number of entries.
    pub count: u64,
    /// The entries, where they are not in pages.
    pub entries: Vec<Known>,
}

/// Whether the entries of a directory are kept in pages.
pub fn is_paged(path: &TreePath) -> bool {
    folder::holds_messages(path.name())
}

/// The key of a directory's row: a directory is followed by its `cur`, `new` and `tmp`, then by its other
/// directories, each with all beneath it.
pub fn key(path: &TreePath) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.as_bytes().len() + 8);
    for component in path.components() {
        push_key(&mut key, component);
    }
    key
}

/// Makes a directory's key that of a directory in it.
pub fn push_key(key: &mut Vec<u8>, name: &[u8]) {
    key.push(if folder::is_part(name) { 1 } else { 2 });
    key.extend_from_slice(name);
    key.push(0);
}

/// The path that a key stands for.
///
/// # Errors
/// [`CatalogueError::Damaged`] where it stands for none.
pub fn path_of(key: &[u8]) -> Result<TreePath, CatalogueError> {
    let damaged = || CatalogueError::Damaged("a row's key is malformed");
    let Some(body) = key.strip_suffix(&[0]) else {
        return if key.is_empty() { Ok(TreePath::root()) } else { Err(damaged()) };
    };
    let mut path = Vec::with_capacity(body.len());
    for component in body.split(|&byte| byte == 0) {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component.get(1..).ok_or_else(damaged)?);
    }
    TreePath::new(&path).map_err(|_| damaged())
}

/// Packs a row or a page.
///
/// # Errors
/// Only when memory ends.
pub fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, CatalogueError> {
    postcard::to_extend(value, vec![FORMAT]).map_err(|_| CatalogueError::Damaged("a row cannot be written"))
}

/// Unpacks a row or a page.
///
/// # Errors
/// [`CatalogueError::Damaged`] where the version is another or the bytes do not decode.
pub fn unpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CatalogueError> {
    let damaged = CatalogueError::Damaged("a row cannot be read");
    match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|_| damaged),
        _ => Err(damaged),
    }
}

impl Directory {
    /// The digest over what both ends agree on.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.take(&self.meta);
        for known in self.entries.values() {
            hasher.take(&known.entry);
        }
        hasher.finish()
    }

    /// The entry whose name has this base name (in `cur/` and `new/`), or is this name.
    pub fn find(&self, base_name: &[u8], paged: bool) -> Option<&Known> {
        if !paged {
            return self.entries.get(base_name);
        }
        self.entries
            .range::<[u8], _>((std::ops::Bound::Included(base_name), std::ops::Bound::Unbounded))
            .take_while(|(name, _)| name.as_bytes().starts_with(base_name))
            .find(|(name, _)| base(name.as_bytes()) == base_name)
            .map(|(_, known)| known)
    }

    /// Number of regular files.
    pub fn files(&self) -> u64 {
        let is_file = |known: &&Known| matches!(known.entry.kind, Kind::File(_));
        self.entries.values().filter(is_file).count() as u64
    }

    /// Cuts the entries into pages, each with the base name at which it begins; the first begins at nothing.
    pub fn pages(&self) -> Vec<(Vec<u8>, Vec<&Known>)> {
        let mut pages: Vec<(Vec<u8>, Vec<&Known>)> = Vec::new();
        for (name, known) in &self.entries {
            let base = base(name.as_bytes());
            match pages.last_mut() {
                Some((_, page)) if page.len() < PAGE_MAX && !begins_page(base) => page.push(known),
                Some(_) => pages.push((base.to_vec(), vec![known])),
                None => pages.push((Vec::new(), vec![known])),
            }
        }
        pages
    }
}

/// FNV-1a: spreads names well enough to cut pages, and costs next to nothing.
fn begins_page(base: &[u8]) -> bool {
    let hash = base
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32).is_multiple_of(PAGE_TARGET)
}

/// Feeds the encoding of values to BLAKE3, which likes its bytes in larger pieces than a number is.
struct Hasher {
    blake3: blake3::Hasher,
    waiting: Vec<u8>,
}

/// Bytes that BLAKE3 takes at a time.
const HASHED_AT_ONCE: usize = 8 << 10;

impl Hasher {
    fn new() -> Self {
        let blake3 = blake3::Hasher::new_derive_key("mailtwin 2026 catalogue directory");
        Self { blake3, waiting: Vec::with_capacity(2 * HASHED_AT_ONCE) }
    }

    fn take<T: Serialize>(&mut self, value: &T) {
        // Writing into memory does not fail: an entry that cannot be encoded does not exist.
        if let Ok(longer) = postcard::to_extend(value, std::mem::take(&mut self.waiting)) {
            self.waiting = longer;
        }
        if self.waiting.len() >= HASHED_AT_ONCE {
            self.blake3.update(&self.waiting);
            self.waiting.clear();
        }
    }

    fn finish(mut self) -> Digest {
        self.blake3.update(&self.waiting);
        self.blake3.finalize().into()
    }
}

/// An entry of a directory: only the name, since its own row holds the rest.
pub fn directory_entry(name: Name) -> Entry {
    Entry { name, meta: Meta::default(), kind: Kind::Directory }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::entry::{File, Local};

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a good path")
    }

    fn directory(names: impl Iterator<Item = String>) -> Directory {
        let mut directory = Directory::default();
        for text in names {
            let name = Name::new(text.as_bytes()).expect("a name");
            let kind = Kind::File(File { size: 1, digest: Digest::of(text.as_bytes()), group: 0 });
            let entry = Entry { name: name.clone(), meta: Meta::default(), kind };
            directory.entries.insert(name, Known { entry, local: Local::default() });
        }
        directory
    }

    #[test]
    fn a_folder_comes_right_before_its_parts() {
        let mut keys: Vec<Vec<u8>> =
            ["u/.A", "u", "u/tmp", "u/.A/cur", "u/cur", "", "u/new"].map(|text| key(&path(text))).into();
        keys.sort();
        let order: Vec<String> = keys.iter().map(|key| path_of(key).expect("a path").to_string()).collect();
        assert_eq!(order, [".", "u", "u/cur", "u/new", "u/tmp", "u/.A", "u/.A/cur"]);
    }

    #[test]
    fn a_flag_change_rewrites_one_page() {
        let before = directory((0..2000).map(|number| format!("{number:09}.M1P2.host:2,")));
        let after = directory((0..2000).map(|number| match number {
            777 => "000000777.M1P2.host:2,S".to_owned(),
            _ => format!("{number:09}.M1P2.host:2,"),
        }));
        let (before, after) = (before.pages(), after.pages());
        assert!(before.len() > 5 && before.len() == after.len());
        let changed = before.iter().zip(&after).filter(|(old, new)| old != new).count();
        assert_eq!(changed, 1);
        assert!(before.iter().zip(&after).all(|(old, new)| old.0 == new.0));
    }

    #[test]
    fn an_entry_is_found_by_base_name_among_longer_ones() {
        let names = ["1.a,S=1:2,S", "1.a:2,F", "1.ab:2,"].map(String::from);
        let directory = directory(names.into_iter());
        let found = directory.find(b"1.a", true).expect("is there");
        assert_eq!(found.entry.name.as_bytes(), b"1.a:2,F");
        assert!(directory.find(b"1", true).is_none());
    }

    #[test]
    fn the_digest_covers_names_and_not_this_hosts_observations() {
        let one = directory(["a".to_owned()].into_iter());
        let mut two = one.clone();
        two.look = Some(Look::default());
        for known in two.entries.values_mut() {
            known.local.ino = 7;
        }
        assert_eq!(one.digest(), two.digest());
        assert_ne!(one.digest(), directory(["b".to_owned()].into_iter()).digest());
    }
}
