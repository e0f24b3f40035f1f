//! What changes a catalogue. Both ends run a batch through [`Edit::apply`], so that equal catalogues stay equal.

use super::digest::Sum;
use super::directory::{self, Directory, Row, is_paged, key, pack, path_of, unpack};
use super::store::{self, CatalogueError, Head, Transaction, database};
use crate::id::Digest;
use crate::maildir::change::Change;
use crate::maildir::entry::{Entry, Kind, Known, Local, Look, Mark, Meta, Time};
use crate::maildir::name::base;
use crate::path::{Name, TreePath};
use redb::{ReadableTable, Table};
use std::collections::{BTreeMap, HashMap};

mod mailbox;

/// Directories that stay unpacked after a batch.
const KEPT_OPEN: usize = 16;

type ByteTable<'t> = Table<'t, &'static [u8], &'static [u8]>;
type NumberTable<'t> = Table<'t, u64, &'static [u8]>;

/// A catalogue that is being changed.
pub struct Edit<'t> {
    transaction: &'t Transaction,
    rows: ByteTable<'t>,
    pages: ByteTable<'t>,
    keys: NumberTable<'t>,
    inodes: ByteTable<'t>,
    contents: ByteTable<'t>,
    signatures: ByteTable<'t>,
    /// What the catalogue says of itself; written by [`Edit::finish`].
    pub head: Head,
    sum: Sum,
    open: HashMap<TreePath, Open>,
    changed: bool,
}

/// An unpacked directory, and what of it is stored.
#[derive(Default)]
struct Open {
    directory: Directory,
    /// Digest of the row as stored; `None` for a directory that is new.
    stored: Option<Digest>,
    /// The stored pages: where each begins, and a digest of its bytes.
    pages: BTreeMap<Vec<u8>, Digest>,
    /// Files counted in the head.
    counted: u64,
    dirty: bool,
    /// Only this host's observations changed: the digest is as it was.
    entries_dirty: bool,
}

/// Result of a change of the catalogue.
pub type Result<T> = std::result::Result<T, CatalogueError>;

const MISFIT: CatalogueError = CatalogueError::Damaged("a change does not fit what the catalogue holds");

impl<'t> Edit<'t> {
    /// Opens the tables.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn new(transaction: &'t Transaction) -> Result<Self> {
        let head = transaction.head()?;
        let sum = match head.sum.is_empty() {
            true => Sum::default(),
            false => Sum::from_bytes(&head.sum).ok_or(CatalogueError::Damaged("its head is cut"))?,
        };
        let bytes = |table| transaction.writes.open_table(table).map_err(database);
        let numbers = |table| transaction.writes.open_table(table).map_err(database);
        Ok(Self {
            transaction,
            rows: bytes(store::ROWS)?,
            pages: bytes(store::PAGES)?,
            keys: numbers(store::KEYS)?,
            inodes: bytes(store::INODES)?,
            contents: bytes(store::CONTENTS)?,
            signatures: bytes(store::SIGNATURES)?,
            head,
            sum,
            open: HashMap::new(),
            changed: false,
        })
    }

    /// Writes what is open and the head. `true` where anything changed, so that a commit is owed.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn finish(mut self) -> Result<bool> {
        self.flush()?;
        if self.changed || self.transaction.head()? != (Head { sum: self.sum.to_bytes(), ..self.head.clone() }) {
            self.transaction.set_head(&self.head, &self.sum)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The digest over everything that both ends agree on. What is open must have been flushed.
    pub fn root_digest(&self) -> Digest {
        debug_assert!(self.open.values().all(|open| !open.dirty));
        self.sum.digest()
    }

    /// Holds the root digest against the rows. What is open must have been flushed.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`] where they do not add up to it.
    pub fn check_sum(&self) -> Result<()> {
        let mut sum = Sum::default();
        for row in self.rows.iter().map_err(database)? {
            let (key, value) = row.map_err(database)?;
            sum.add(key.value(), &unpack::<Row>(value.value())?.digest);
        }
        match sum == self.sum {
            true => Ok(()),
            false => Err(CatalogueError::Damaged("its rows do not add up to its digest")),
        }
    }

    /// Whether no directory is recorded, not even the root.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.open.is_empty() && self.rows.first().map_err(database)?.is_none())
    }

    /// Directories that are unpacked at the moment.
    pub fn open_directories(&self) -> usize {
        self.open.len()
    }

    // ---- reading ----

    /// A directory's record.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn directory(&mut self, path: &TreePath) -> Result<Option<&Directory>> {
        Ok(self.load(path)?.map(|open| &open.directory))
    }

    /// The record of one name.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn known(&mut self, path: &TreePath) -> Result<Option<Known>> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let directory = self.directory(&parent)?;
        Ok(directory.and_then(|directory| directory.entries.get(&name)).cloned())
    }

    /// Up to `limit` rows in catalogue order, from the directory whose key is `from` on.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn rows_from(&self, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>> {
        debug_assert!(self.open.values().all(|open| !open.dirty));
        let range = self.rows.range::<&[u8]>(from..).map_err(database)?;
        let mut rows = Vec::with_capacity(limit);
        for row in range.take(limit) {
            let (key, value) = row.map_err(database)?;
            rows.push((key.value().to_vec(), unpack(value.value())?));
        }
        Ok(rows)
    }

    /// The row of one directory.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn row(&self, path: &TreePath) -> Result<Option<Row>> {
        debug_assert!(self.open.values().all(|open| !open.dirty));
        match self.rows.get(key(path).as_slice()).map_err(database)? {
            Some(value) => unpack(value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// A file that had this inode number, size and time when it was last looked at, under another name than
    /// `except`. The number alone may be that of a file that is gone.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn find_inode(&mut self, ino: u64, mark: Mark, except: &TreePath) -> Result<Option<(TreePath, Known)>> {
        let places = places(&self.inodes, &ino.to_be_bytes())?;
        self.find_place(places, |path, known| known.local.ino == ino && known.entry.mark() == mark && path != except)
    }

    /// A file with this content.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn find_content(&mut self, digest: &Digest, except: &TreePath) -> Result<Option<(TreePath, Known)>> {
        let places = places(&self.contents, &digest.0[..16])?;
        let has = |known: &Known| known.entry.file().is_some_and(|file| file.digest == *digest);
        self.find_place(places, |path, known| has(known) && path != except)
    }

    fn find_place(
        &mut self,
        places: Vec<Vec<u8>>,
        fits: impl Fn(&TreePath, &Known) -> bool,
    ) -> Result<Option<(TreePath, Known)>> {
        for place in places {
            let Some((id, base)) = place.split_first_chunk::<8>() else { continue };
            let key = self.keys.get(u64::from_le_bytes(*id)).map_err(database)?;
            let Some(directory) = key.map(|key| path_of(key.value())).transpose()? else { continue };
            let paged = is_paged(&directory);
            let Some(known) = self.directory(&directory)?.and_then(|found| found.find(base, paged)).cloned() else {
                continue;
            };
            let path = directory.join(&known.entry.name);
            if fits(&path, &known) {
                return Ok(Some((path, known)));
            }
        }
        Ok(None)
    }

    /// The directories with their inode numbers and times of birth, for knowing one again under another name.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn directory_inodes(&self) -> Result<HashMap<(u64, Time), TreePath>> {
        let mut inodes = HashMap::new();
        for row in self.rows.iter().map_err(database)? {
            let (key, value) = row.map_err(database)?;
            let row: Row = unpack(value.value())?;
            if let Some(look) = row.look {
                inodes.insert((look.ino, look.born), path_of(key.value())?);
            }
        }
        Ok(inodes)
    }

    /// The signature of a file's version, if it is kept.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn signature(&mut self, path: &TreePath, version: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(key) = self.signature_key(path)? else { return Ok(None) };
        let value = self.signatures.get(key.as_slice()).map_err(database)?;
        Ok(value.and_then(|value| value.value().strip_prefix(&version.0[..]).map(<[u8]>::to_vec)))
    }

    fn signature_key(&mut self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let id = self.directory(&parent)?.map(|directory| directory.id);
        Ok(id.map(|id| [&id.to_be_bytes()[..], name.as_bytes()].concat()))
    }

    // ---- this host's observations ----

    /// Notes what this host saw of a file.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn note(&mut self, path: &TreePath, local: Local) -> Result<()> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let paged = is_paged(&parent);
        let Some(open) = self.load(&parent)? else { return Ok(()) };
        let id = open.directory.id;
        let Some(known) = open.directory.entries.get_mut(&name) else { return Ok(()) };
        if known.local == local {
            return Ok(());
        }
        let old = std::mem::replace(&mut known.local, local);
        let is_file = known.entry.file().is_some();
        open.dirty = true;
        open.entries_dirty = true;
        if is_file && old.ino != local.ino {
            let stale = [&old.ino.to_be_bytes()[..], &place(id, &name, paged)].concat();
            self.inodes.remove(stale.as_slice()).map_err(database)?;
            let place = place(id, &name, paged);
            index(&mut self.inodes, &local.ino.to_be_bytes(), &place)?;
        }
        Ok(())
    }

    /// Notes how a directory looked when it was listed.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn looked(&mut self, path: &TreePath, look: Option<Look>) -> Result<()> {
        if let Some(open) = self.open.get_mut(path) {
            open.directory.look = look;
            if open.dirty {
                return Ok(());
            }
        }
        // The row alone has it: no entry needs to be read for that.
        let key = key(path);
        let row = match self.rows.get(key.as_slice()).map_err(database)? {
            Some(value) => unpack::<Row>(value.value())?,
            None => return Ok(()),
        };
        if row.look != look {
            let bytes = pack(&Row { look, ..row })?;
            self.rows.insert(key.as_slice(), bytes.as_slice()).map_err(database)?;
            self.changed = true;
        }
        Ok(())
    }

    /// Keeps the signature of the version of a file that has this digest.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn set_signature(&mut self, path: &TreePath, version: &Digest, signature: &[u8]) -> Result<()> {
        if let Some(key) = self.signature_key(path)? {
            let value = [&version.0[..], signature].concat();
            self.signatures.insert(key.as_slice(), value.as_slice()).map_err(database)?;
            self.changed = true;
        }
        Ok(())
    }

    // ---- changing ----

    /// Does one change to the record.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`] where it does not fit what is recorded.
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::MakeDirectory { path, meta } => self.make_directory(path, meta),
            Change::RenameDirectory { from, to } => self.rename_directory(from, to),
            Change::RemoveDirectory { path } => self.remove_directory(path),
            Change::Put { path, meta, file, .. } => self.put(path, meta, Kind::File(*file)),
            Change::Symlink { path, meta, target } => self.put(path, meta, Kind::Symlink(target.clone())),
            Change::Link { path, existing, group, .. } => self.link(path, existing, *group),
            Change::Rename { from, to, .. } => self.rename(from, to),
            Change::SetMeta { path, meta, group } => self.set_meta(path, meta, *group),
            Change::Remove { path, .. } | Change::Forget { path } => self.take(path).map(drop),
        }
    }

    fn make_directory(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        if self.load(path)?.is_none() {
            self.head.next_id += 1;
            let id = self.head.next_id;
            let directory = Directory { id, ..Directory::default() };
            let open = Open { directory, dirty: true, entries_dirty: true, ..Open::default() };
            self.open.insert(path.clone(), open);
            self.keys.insert(id, key(path).as_slice()).map_err(database)?;
            if let Some((parent, name)) = path.split() {
                let entry = directory::directory_entry(name);
                self.insert(&parent, Known { entry, local: Local::default() })?;
            }
        }
        let open = self.load(path)?.ok_or(MISFIT)?;
        if open.directory.meta != *meta {
            open.directory.meta = meta.clone();
            (open.dirty, open.entries_dirty) = (true, true);
        }
        Ok(())
    }

    fn put(&mut self, path: &TreePath, meta: &Meta, kind: Kind) -> Result<()> {
        let (parent, name) = path.split().ok_or(MISFIT)?;
        if let Some(old) = self.known(path)? {
            if old.entry.kind == Kind::Directory {
                return Err(MISFIT);
            }
            self.take(path)?;
        }
        let entry = Entry { name, meta: meta.clone(), kind };
        self.insert(&parent, Known { entry, local: Local::default() })
    }

    fn link(&mut self, path: &TreePath, existing: &TreePath, group: u64) -> Result<()> {
        let mut known = self.known(existing)?.ok_or(MISFIT)?;
        let Kind::File(file) = &mut known.entry.kind else { return Err(MISFIT) };
        if file.group != group {
            file.group = group;
            let (parent, _) = existing.split().ok_or(MISFIT)?;
            self.insert(&parent, known.clone())?;
        }
        if self.known(path)?.is_some() {
            self.take(path)?;
        }
        let (parent, name) = path.split().ok_or(MISFIT)?;
        known.entry.name = name;
        self.insert(&parent, known)
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<()> {
        if self.rename_in_place(from, to)? {
            return Ok(());
        }
        let mut known = self.take(from)?;
        if self.known(to)?.is_some() {
            self.take(to)?;
        }
        let (parent, name) = to.split().ok_or(MISFIT)?;
        known.entry.name = name;
        self.insert(&parent, known)
    }

    /// A flag change: the indexes lead to the base name, which stays.
    fn rename_in_place(&mut self, from: &TreePath, to: &TreePath) -> Result<bool> {
        let (Some((parent, old)), Some((directory, new))) = (from.split(), to.split()) else { return Ok(false) };
        let same_base = base(old.as_bytes()) == base(new.as_bytes());
        if parent != directory || !is_paged(&parent) || !same_base {
            return Ok(false);
        }
        let entries = match self.load(&parent)? {
            Some(open) if !open.directory.entries.contains_key(&new) => {
                (open.dirty, open.entries_dirty) = (true, true);
                &mut open.directory.entries
            }
            _ => return Ok(false),
        };
        let mut known = entries.remove(&old).ok_or(MISFIT)?;
        known.entry.name = new.clone();
        entries.insert(new, known);
        Ok(true)
    }

    fn set_meta(&mut self, path: &TreePath, meta: &Meta, group: u64) -> Result<()> {
        let mut known = self.known(path)?.ok_or(MISFIT)?;
        known.entry.meta = meta.clone();
        if let Kind::File(file) = &mut known.entry.kind {
            file.group = group;
        }
        let (parent, _) = path.split().ok_or(MISFIT)?;
        self.insert(&parent, known)
    }

    /// Puts an entry into a directory's record and into the indexes.
    fn insert(&mut self, parent: &TreePath, known: Known) -> Result<()> {
        let paged = is_paged(parent);
        let open = self.load(parent)?.ok_or(MISFIT)?;
        (open.dirty, open.entries_dirty) = (true, true);
        let id = open.directory.id;
        let (name, ino) = (known.entry.name.clone(), known.local.ino);
        let digest = known.entry.file().map(|file| file.digest);
        open.directory.entries.insert(name.clone(), known);
        if let Some(digest) = digest {
            let place = place(id, &name, paged);
            index(&mut self.contents, &digest.0[..16], &place)?;
            if ino != 0 {
                index(&mut self.inodes, &ino.to_be_bytes(), &place)?;
            }
        }
        Ok(())
    }

    /// Takes a file or link out of its directory's record and, where they lead to it, out of the indexes.
    fn take(&mut self, path: &TreePath) -> Result<Known> {
        let (parent, name) = path.split().ok_or(MISFIT)?;
        let open = self.load(&parent)?.ok_or(MISFIT)?;
        let is_directory = |known: &Known| known.entry.kind == Kind::Directory;
        if open.directory.entries.get(&name).is_none_or(is_directory) {
            return Err(MISFIT);
        }
        let known = open.directory.entries.remove(&name).ok_or(MISFIT)?;
        (open.dirty, open.entries_dirty) = (true, true);
        let place = place(open.directory.id, &name, is_paged(&parent));
        self.unindex(&known, &place)?;
        Ok(known)
    }

    fn unindex(&mut self, known: &Known, place: &[u8]) -> Result<()> {
        let Some(file) = known.entry.file() else { return Ok(()) };
        let content = [&file.digest.0[..16], place].concat();
        self.contents.remove(content.as_slice()).map_err(database)?;
        let inode = [&known.local.ino.to_be_bytes()[..], place].concat();
        self.inodes.remove(inode.as_slice()).map_err(database)?;
        Ok(())
    }

    /// Keys of a directory and all beneath it.
    fn subtree(&mut self, path: &TreePath) -> Result<Vec<Vec<u8>>> {
        self.flush()?;
        self.open.clear();
        let from = key(path);
        let mut keys = Vec::new();
        for row in self.rows.range::<&[u8]>(from.as_slice()..).map_err(database)? {
            let (key, _) = row.map_err(database)?;
            if !key.value().starts_with(&from) {
                break;
            }
            keys.push(key.value().to_vec());
        }
        Ok(keys)
    }

    fn rename_directory(&mut self, from: &TreePath, to: &TreePath) -> Result<()> {
        let keys = self.subtree(from)?;
        if keys.is_empty() || self.row(to)?.is_some() {
            return Err(MISFIT);
        }
        for old in keys {
            let new = key(&path_of(&old)?.moved(from, to));
            let value = self.rows.remove(old.as_slice()).map_err(database)?;
            let value = value.ok_or(MISFIT)?.value().to_vec();
            let row: Row = unpack(&value)?;
            self.sum.remove(&old, &row.digest);
            self.sum.add(&new, &row.digest);
            self.keys.insert(row.id, new.as_slice()).map_err(database)?;
            self.rows.insert(new.as_slice(), value.as_slice()).map_err(database)?;
        }
        self.changed = true;
        self.move_name(from, to)
    }

    fn move_name(&mut self, from: &TreePath, to: &TreePath) -> Result<()> {
        self.drop_name(from)?;
        let (parent, name) = to.split().ok_or(MISFIT)?;
        let entry = directory::directory_entry(name);
        self.insert(&parent, Known { entry, local: Local::default() })
    }

    fn drop_name(&mut self, path: &TreePath) -> Result<()> {
        if let Some((parent, name)) = path.split()
            && let Some(open) = self.load(&parent)?
        {
            open.directory.entries.remove(&name);
            (open.dirty, open.entries_dirty) = (true, true);
        }
        Ok(())
    }

    fn remove_directory(&mut self, path: &TreePath) -> Result<()> {
        for key in self.subtree(path)? {
            self.remove_row(&key)?;
        }
        self.drop_name(path)
    }

    fn remove_row(&mut self, row_key: &[u8]) -> Result<()> {
        let path = path_of(row_key)?;
        let Some(open) = self.load(&path)? else { return Ok(()) };
        let directory = std::mem::take(&mut open.directory);
        let (counted, stored) = (open.counted, open.stored);
        let pages: Vec<Vec<u8>> = open.pages.keys().cloned().collect();
        self.open.remove(&path);
        for known in directory.entries.values() {
            let place = place(directory.id, &known.entry.name, is_paged(&path));
            self.unindex(known, &place)?;
        }
        for page in pages {
            self.pages.remove(page_key(directory.id, &page).as_slice()).map_err(database)?;
        }
        if let Some(digest) = stored {
            self.sum.remove(row_key, &digest);
        }
        self.count(&path, counted, 0);
        self.keys.remove(directory.id).map_err(database)?;
        self.rows.remove(row_key).map_err(database)?;
        self.changed = true;
        Ok(())
    }

    /// Takes over the other end's record of a directory, keeping this host's observations of what is the same.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn adopt(&mut self, path: &TreePath, meta: Meta, entries: Vec<Entry>) -> Result<()> {
        if self.load(path)?.is_none() {
            self.head.next_id += 1;
            let id = self.head.next_id;
            let directory = Directory { id, ..Directory::default() };
            self.open.insert(path.clone(), Open { directory, ..Open::default() });
            self.keys.insert(id, key(path).as_slice()).map_err(database)?;
        }
        let open = self.load(path)?.ok_or(MISFIT)?;
        (open.dirty, open.entries_dirty) = (true, true);
        open.directory.meta = meta;
        // What is there must be held against the new record, so the directory is listed again; it is still
        // known by its inode number, should it have another name now.
        if let Some(look) = &mut open.directory.look {
            look.racy = true;
        }
        let (id, old) = (open.directory.id, std::mem::take(&mut open.directory.entries));
        for known in old.values() {
            self.unindex(known, &place(id, &known.entry.name, is_paged(path)))?;
        }
        let by_base: HashMap<&[u8], &Known> =
            old.iter().filter(|_| is_paged(path)).map(|(name, known)| (base(name.as_bytes()), known)).collect();
        for entry in entries {
            let digest = |entry: &Entry| entry.file().map(|file| file.digest);
            let is_same = |known: &&Known| known.entry.mark() == entry.mark() && digest(&known.entry) == digest(&entry);
            // The slave may know a message by other flags.
            let by_base = || by_base.get(base(entry.name.as_bytes())).copied();
            let same = old.get(&entry.name).filter(is_same).or_else(|| by_base().filter(is_same));
            let local = same.map_or(Local::default(), |known| known.local);
            self.insert(path, Known { entry, local })?;
        }
        Ok(())
    }

    /// Forgets a directory and all beneath it, and not its name in the directory above.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn disown(&mut self, path: &TreePath) -> Result<()> {
        for key in self.subtree(path)? {
            self.remove_row(&key)?;
        }
        Ok(())
    }

    // ---- packing and unpacking ----

    fn load(&mut self, path: &TreePath) -> Result<Option<&mut Open>> {
        if !self.open.contains_key(path) {
            let Some(open) = self.unpack(path)? else { return Ok(None) };
            self.open.insert(path.clone(), open);
        }
        Ok(self.open.get_mut(path))
    }

    fn unpack(&self, path: &TreePath) -> Result<Option<Open>> {
        let row: Row = match self.rows.get(key(path).as_slice()).map_err(database)? {
            Some(value) => unpack(value.value())?,
            None => return Ok(None),
        };
        let directory = Directory { id: row.id, meta: row.meta, look: row.look, entries: BTreeMap::new() };
        let mut open = Open { directory, stored: Some(row.digest), ..Open::default() };
        let mut entries = row.entries;
        if is_paged(path) {
            let (first, last) = (page_key(row.id, &[]), page_key(row.id + 1, &[]));
            for page in self.pages.range(first.as_slice()..last.as_slice()).map_err(database)? {
                let (key, value) = page.map_err(database)?;
                open.pages.insert(key.value()[8..].to_vec(), Digest::of(value.value()));
                entries.append(&mut unpack(value.value())?);
            }
        }
        // Collected from what is sorted already: no search for each.
        open.directory.entries = entries.into_iter().map(|known| (known.entry.name.clone(), known)).collect();
        open.counted = open.directory.files();
        Ok(Some(open))
    }

    /// Writes every open directory that changed.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn flush(&mut self) -> Result<()> {
        let paths: Vec<TreePath> =
            self.open.iter().filter(|(_, open)| open.dirty).map(|(path, _)| path.clone()).collect();
        for path in paths {
            if let Some(mut open) = self.open.remove(&path) {
                self.store(&path, &mut open)?;
                self.open.insert(path, open);
            }
        }
        if self.open.len() > KEPT_OPEN {
            self.open.clear();
        }
        Ok(())
    }

    fn store(&mut self, path: &TreePath, open: &mut Open) -> Result<()> {
        let key = key(path);
        let digest = match (open.stored, open.entries_dirty) {
            (Some(digest), false) => digest,
            _ => open.directory.digest(),
        };
        if open.stored != Some(digest) {
            if let Some(old) = open.stored {
                self.sum.remove(&key, &old);
            }
            self.sum.add(&key, &digest);
        }
        let mut entries = Vec::new();
        if !is_paged(path) {
            entries = open.directory.entries.values().cloned().collect();
        } else if open.entries_dirty {
            self.store_pages(open)?;
        }
        let row = Row {
            id: open.directory.id,
            meta: open.directory.meta.clone(),
            look: open.directory.look,
            digest,
            count: open.directory.entries.len() as u64,
            entries,
        };
        self.rows.insert(key.as_slice(), pack(&row)?.as_slice()).map_err(database)?;
        let files = open.directory.files();
        self.count(path, open.counted, files);
        open.counted = files;
        open.stored = Some(digest);
        (open.dirty, open.entries_dirty) = (false, false);
        self.changed = true;
        Ok(())
    }

    fn store_pages(&mut self, open: &mut Open) -> Result<()> {
        let id = open.directory.id;
        let mut fresh = BTreeMap::new();
        for (begin, page) in open.directory.pages() {
            let bytes = pack(&page)?;
            let digest = Digest::of(&bytes);
            if open.pages.get(&begin) != Some(&digest) {
                self.pages.insert(page_key(id, &begin).as_slice(), bytes.as_slice()).map_err(database)?;
            }
            fresh.insert(begin, digest);
        }
        for begin in open.pages.keys().filter(|begin| !fresh.contains_key(*begin)) {
            self.pages.remove(page_key(id, begin).as_slice()).map_err(database)?;
        }
        open.pages = fresh;
        Ok(())
    }

    fn count(&mut self, path: &TreePath, before: u64, after: u64) {
        let total = match is_paged(path) {
            true => &mut self.head.messages,
            false => &mut self.head.files,
        };
        *total = (*total + after).saturating_sub(before);
    }
}

/// Where the indexes say that a file is: its directory's number, and the part of its name that stays.
fn place(id: u64, name: &Name, paged: bool) -> Vec<u8> {
    let stays = if paged { base(name.as_bytes()) } else { name.as_bytes() };
    [&id.to_le_bytes()[..], stays].concat()
}

fn page_key(id: u64, begin: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], begin].concat()
}

/// Places looked at for one inode or content: one message in a thousand mailboxes is found soon enough.
const MAX_PLACES: usize = 16;

/// Where an index leads from `key`.
fn places(table: &ByteTable<'_>, key: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut places = Vec::new();
    for entry in table.range::<&[u8]>(key..).map_err(database)?.take(MAX_PLACES) {
        let (entry, _) = entry.map_err(database)?;
        match entry.value().strip_prefix(key) {
            Some(place) => places.push(place.to_vec()),
            None => break,
        }
    }
    Ok(places)
}

fn index(table: &mut ByteTable<'_>, key: &[u8], place: &[u8]) -> Result<()> {
    table.insert([key, place].concat().as_slice(), &[][..]).map_err(database)?;
    Ok(())
}

#[cfg(test)]
mod tests;
