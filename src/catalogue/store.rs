//! The rows in a database of one file; mailtwin-catalogue(7) describes them.
//!
//! One transaction is open while a cycle runs: a cycle that is broken off leaves the catalogue as it was,
//! behind the slave's, and the next one compares. So nothing in it is ever half true.

use super::backend::{Deferred, Overlay, Shared};
use super::damage::caught;
use super::digest::Sum;
use crate::disk::{DiskError, Root, Stat};
use crate::id::{Epoch, Position, SetId};
use crate::path::TreePath;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version of the format that this program writes.
pub const VERSION: u16 = 1;

/// Memory that the database may use for pages it has read.
const CACHE: usize = 24 << 20;

pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Directory key to row.
pub(super) const ROWS: Bytes = TableDefinition::new("rows");
/// Directory number (big endian) and first base name to entries.
pub(super) const PAGES: Bytes = TableDefinition::new("pages");
/// Directory number to its key.
pub(super) const KEYS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("keys");
/// Inode number, directory number and base name: each name of an inode.
pub(super) const INODES: Bytes = TableDefinition::new("inodes");
/// First bytes of a content's digest, directory number and base name: each file with that content.
pub(super) const CONTENTS: Bytes = TableDefinition::new("contents");
/// Directory number and file name to the signature of the version that both ends have.
pub(super) const SIGNATURES: Bytes = TableDefinition::new("signatures");
const HEAD: Bytes = TableDefinition::new("head");

/// Why the catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The database.
    #[error("the catalogue failed: {0}")]
    Database(#[from] Box<redb::Error>),
    /// What is in it.
    #[error("the catalogue is damaged: {0}")]
    Damaged(&'static str),
    /// What is in it; the file has been removed.
    #[error("{damage} ({file}); it has been removed: run again, and it is made anew by comparing")]
    Removed {
        /// Where it was.
        file: String,
        /// What showed it.
        damage: String,
    },
    /// It was written by a later program.
    #[error("the catalogue has format {0}, and this mailtwin reads up to {VERSION}: install the newer mailtwin again")]
    Version(u16),
}

impl CatalogueError {
    /// Whether the file itself is damaged, and not only out of reach.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Database(error) => is_damage(error),
            _ => false,
        }
    }
}

pub(super) fn database(error: impl Into<redb::Error>) -> CatalogueError {
    CatalogueError::Database(Box::new(error.into()))
}

fn io(error: std::io::Error) -> CatalogueError {
    database(redb::Error::Io(error))
}

/// What the catalogue says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Head {
    /// Oldest format that a program must read to use it.
    pub minimum_reader: u16,
    /// The set; `None` before the first cycle.
    pub set: Option<SetId>,
    /// The epoch that it follows.
    pub epoch: Epoch,
    /// The last batch in it.
    pub position: Position,
    /// The filters with which the tree was read; others mean reading it again.
    pub filters: Vec<String>,
    /// Number of messages.
    pub messages: u64,
    /// Number of other files.
    pub files: u64,
    /// Next free directory number.
    pub next_id: u64,
    /// [`Root::identity`] of the set's root when it was last read.
    pub root_id: u64,
    /// The sum behind the root digest.
    #[serde(with = "serde_bytes")]
    pub(super) sum: Vec<u8>,
}

/// An open catalogue.
pub struct Catalogue {
    database: Database,
    /// The state directory that it is in; `None` in a dry run.
    state: Option<PathBuf>,
    file: Option<Arc<Deferred>>,
}

impl Catalogue {
    /// Opens the catalogue in a state directory, making an empty one where there is none. One that cannot be
    /// read is taken away and made anew: it can be rebuilt (I9). `true` says that this happened.
    ///
    /// # Errors
    /// Where the disk refuses, or the file is a later program's.
    pub fn open(state: &Root) -> Result<(Self, bool), CatalogueError> {
        match caught(Some(state.path()), || Self::open_file(state)) {
            Err(error) if error.is_damage() => {
                state.remove(&file_path())?;
                Ok((Self::open_file(state)?, true))
            }
            other => Ok((other?, false)),
        }
    }

    /// The state directory that the file is in; `None` in a dry run.
    pub(super) fn state(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    /// What tells whether the file was written to: its own times and length. `None` in a dry run, and where it was
    /// written so shortly ago that its times would not tell.
    pub(super) fn stamp(&self) -> Option<Stat> {
        let stat = Root::open(self.state()?).ok()?.stat(&file_path()).ok()?;
        (!super::scan::is_racy(&stat)).then_some(stat)
    }

    fn open_file(state: &Root) -> Result<Self, CatalogueError> {
        let is_new = state.stat_if_there(&file_path())?.is_none_or(|stat| stat.size == 0);
        let file = state.open_or_create(&file_path())?;
        let file = Arc::new(Deferred::new(file).map_err(io)?);
        let opened = Self::with(Shared(file.clone()))?;
        if !is_new && file.was_repaired() {
            file.write_through().map_err(io)?;
        }
        let catalogue = Self { state: Some(state.path().to_owned()), file: Some(file), ..opened };
        if is_new {
            state.sync_directory(&TreePath::root())?;
        }
        Ok(catalogue)
    }

    /// Opens the catalogue for a dry run: what is changed stays in memory.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn open_dry(state: Option<&Root>) -> Result<Self, CatalogueError> {
        let file = match state {
            Some(state) if state.stat_if_there(&file_path())?.is_some() => Some(state.open_file(&file_path())?),
            _ => None,
        };
        let overlay = Overlay::new(file).map_err(io)?;
        Self::with(overlay)
    }

    fn with(backend: impl redb::StorageBackend) -> Result<Self, CatalogueError> {
        let database = Database::builder().set_cache_size(CACHE).create_with_backend(backend).map_err(database)?;
        let catalogue = Self { database, state: None, file: None };
        let head = catalogue.head()?;
        match head.minimum_reader <= VERSION {
            true => Ok(catalogue),
            false => Err(CatalogueError::Version(head.minimum_reader)),
        }
    }

    /// The head as last committed.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn head(&self) -> Result<Head, CatalogueError> {
        let read = self.database.begin_read().map_err(database)?;
        match read.open_table(HEAD) {
            Ok(table) => read_head(&table),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(Head::default()),
            Err(error) => Err(database(error)),
        }
    }

    /// Begins a change of the catalogue; nothing counts before [`Transaction::commit`].
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn begin(&self) -> Result<Transaction, CatalogueError> {
        let mut transaction = self.database.begin_write().map_err(database)?;
        // After a kill the file is ready in milliseconds instead of being read through.
        transaction.set_quick_repair(true);
        Ok(Transaction { writes: transaction, file: self.file.clone() })
    }

    /// A view of the contents index as last committed, for other threads.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn known_contents(&self) -> Result<KnownContents, CatalogueError> {
        let read = self.database.begin_read().map_err(database)?;
        match read.open_table(CONTENTS) {
            Ok(table) => Ok(KnownContents(Some(table))),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(KnownContents(None)),
            Err(error) => Err(database(error)),
        }
    }
}

/// Whether a content was in the mirror when the cycle began.
pub struct KnownContents(Option<redb::ReadOnlyTable<&'static [u8], &'static [u8]>>);

impl KnownContents {
    /// None is known: every content is shipped.
    pub fn none() -> Self {
        Self(None)
    }

    /// Probably: whoever acts on it looks again.
    pub fn has(&self, digest: &crate::id::Digest) -> bool {
        let table = self.0.as_ref();
        let first = |table: &redb::ReadOnlyTable<&'static [u8], &'static [u8]>| {
            let mut range = table.range::<&[u8]>(&digest.0[..16]..).ok()?;
            let (key, _) = range.next()?.ok()?;
            Some(key.value().starts_with(&digest.0[..16]))
        };
        let look = || Ok::<_, CatalogueError>(table.is_some_and(|table| first(table) == Some(true)));
        caught(None, look).unwrap_or(false)
    }
}

/// A change of the catalogue in progress.
pub struct Transaction {
    pub(super) writes: WriteTransaction,
    file: Option<Arc<Deferred>>,
}

impl Transaction {
    /// Makes the change durable.
    ///
    /// # Errors
    /// Where the disk refuses: the catalogue is then as it was.
    pub fn commit(self) -> Result<(), CatalogueError> {
        if let Some(file) = &self.file {
            file.write_through().map_err(io)?;
        }
        self.writes.commit().map_err(database)
    }

    /// Drops the change.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn abort(self) -> Result<(), CatalogueError> {
        self.writes.abort().map_err(database)
    }

    pub(super) fn head(&self) -> Result<Head, CatalogueError> {
        read_head(&self.writes.open_table(HEAD).map_err(database)?)
    }

    pub(super) fn set_head(&self, head: &Head, sum: &Sum) -> Result<(), CatalogueError> {
        let head = Head { minimum_reader: VERSION, sum: sum.to_bytes(), ..head.clone() };
        let bytes = super::directory::pack(&head)?;
        let mut table = self.writes.open_table(HEAD).map_err(database)?;
        table.insert(&b"head"[..], bytes.as_slice()).map_err(database)?;
        Ok(())
    }
}

fn read_head(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Head, CatalogueError> {
    match table.get(&b"head"[..]).map_err(database)? {
        Some(bytes) => super::directory::unpack(bytes.value()),
        None => Ok(Head::default()),
    }
}

/// Removes the catalogue of a state directory; its path, for telling.
pub(super) fn remove(state: &Path) -> Result<String, DiskError> {
    match Root::open(state)?.remove(&file_path()) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    Ok(crate::path::escape(state.join("catalogue").as_os_str().as_bytes()))
}

fn file_path() -> TreePath {
    TreePath::root().child("catalogue")
}

fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
        // A file that is cut or is no database at all shows itself as one of these.
        redb::Error::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}
