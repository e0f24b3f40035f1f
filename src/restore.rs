//! `restore`: a set, or part of one, as it was at a moment.
//!
//! Layer 5. A view says what there was; each directory becomes a batch; contents are staged and put in place by the
//! same hand as replication's, `sync::apply`. The target keeps a state of its own while it is written to, so a killed
//! restore is finished by running it again; when it is done the state goes.

use crate::catalogue::edit::Edit;
use crate::catalogue::store::Catalogue;
use crate::disk::{DiskError, FileKind, Root};
use crate::id::Digest;
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{File, Mark, Meta};
use crate::maildir::folder::{self, SetKind};
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::repository::contents::ContentError;
use crate::repository::layout::RepositoryError;
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use crate::sync::SyncError;
use crate::sync::apply::{Arrived, Hand};
use crate::sync::staging::{self, Staging};
use crate::wire::block::{Block, Piece};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

pub mod in_place;
pub mod mirror;

/// Why a restore ended early.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The target.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Failed(String),
}

impl From<DiskError> for RestoreError {
    fn from(error: DiskError) -> Self {
        Self::Sync(error.into())
    }
}

impl From<crate::catalogue::CatalogueError> for RestoreError {
    fn from(error: crate::catalogue::CatalogueError) -> Self {
        Self::Sync(error.into())
    }
}

impl RestoreError {
    /// The exit code that belongs to it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Sync(error) => error.exit_code(),
            _ => 1,
        }
    }
}

type Result<T> = std::result::Result<T, RestoreError>;

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that were made.
    pub created: u64,
    /// Files that were there already, put there by an earlier run.
    pub skipped: u64,
    /// Files that could not be made.
    pub failed: u64,
    /// Bytes in the files that were made.
    pub bytes: u64,
    /// Why.
    pub problems: Vec<Problem>,
    /// Something a person should know that is no failure.
    pub warnings: Vec<String>,
}

impl Report {
    /// What the hand could not do was counted as made before.
    fn failures(&mut self, problems: &mut Vec<Problem>) {
        let count = problems.len() as u64;
        self.created = self.created.saturating_sub(count);
        self.failed += count;
        self.problems.append(problems);
    }
}

/// Which records are wanted.
pub type Wanted<'a> = &'a dyn Fn(&Record) -> bool;

/// Counts what is wanted of a view.
///
/// # Errors
/// Where it cannot be read at all; what is damaged is in [`Report::problems`].
pub fn plan(view: &View, wanted: Wanted<'_>) -> std::result::Result<Report, RepositoryError> {
    let mut report = Report::default();
    let mut groups = HashSet::new();
    for record in view.beneath(&TreePath::root()) {
        match record {
            Ok(record) if wanted(&record) => match &record.state {
                Some((_, What::File { size, group, .. })) => {
                    report.created += 1;
                    // A hard link adds no bytes.
                    report.bytes += if *group == 0 || groups.insert(*group) { *size } else { 0 };
                }
                Some((_, What::Symlink(_))) => report.created += 1,
                _ => {}
            },
            Ok(_) => {}
            Err(error) => {
                report.failed += 1;
                report.problems.push(Problem { subject: String::new(), reason: error.to_string() });
            }
        }
    }
    Ok(report)
}

/// Bytes of contents after which what was written is made durable.
const CHECKPOINT: u64 = 256 << 20;

/// Changes, and bytes of contents, that are put in place together.
const BATCH_CHANGES: usize = 1000;
const BATCH_BYTES: u64 = 32 << 20;

/// The file that tells an unfinished restore from a standby, and which one it is.
const RESTORING: &str = "restoring";

/// Writes what is wanted of a view into an empty directory.
///
/// # Errors
/// Where the target is not empty, or the disk refuses. What is damaged is in [`Report::problems`].
pub fn to_directory(view: &View, what: &str, wanted: Wanted<'_>, standby: &Path, target: &Path) -> Result<Report> {
    apart(standby, target)?;
    let (root, state) = open_target(view, target, what, wanted)?;
    let _lock = root.lock_directory()?.ok_or_else(|| {
        RestoreError::Sync(SyncError::Locked(format!("another run is writing to {}", root.show(&TreePath::root()))))
    })?;
    let mut report = {
        let (catalogue, _) = Catalogue::open(&state)?;
        let staging = Arc::new(Staging::open(&state)?);
        staging.clear()?;
        let mut restore = Restore::new(view, root.clone(), staging);
        restore.run(&catalogue, wanted)?;
        restore.report
    };
    tidy_up(&state)?;
    root.remove_directory(&TreePath::root().child(OWN))?;
    // Everything is there now, and another run would take it for somebody's: what fails from here on is said, no more.
    let time = view.get(&TreePath::root()).ok().flatten().and_then(|(meta, _)| meta.mtime);
    let timed = time.map_or(Ok(()), |time| root.set_directory_time(&TreePath::root(), Some(time)));
    if let Err(error) = timed.and_then(|()| root.sync_directory(&TreePath::root())) {
        report.failed += 1;
        report.problems.push(Problem { subject: error.path, reason: format!("{}: {}", error.operation, error.source) });
    }
    Ok(report)
}

const OWN: &str = ".mailtwin";

/// Removes what the restore kept, the note of what it is last: one that is killed here is known again.
fn tidy_up(state: &Root) -> Result<()> {
    let (listing, _) = state.list(&TreePath::root(), 16)?;
    for entry in listing.entries.iter().filter(|entry| entry.name.as_bytes() != RESTORING.as_bytes()) {
        let path = TreePath::root().join(&entry.name);
        match state.stat(&path)?.kind {
            FileKind::Directory => state.remove_directory(&path)?,
            _ => state.remove(&path)?,
        }
    }
    Ok(state.remove(&TreePath::root().child(RESTORING))?)
}

/// What lies in the standby would become part of its mirror.
fn apart(standby: &Path, target: &Path) -> Result<()> {
    let Some(mirror) = Root::open(standby)?.ancestry()?.first().copied() else { return Ok(()) };
    match Root::open_above(target)?.ancestry()?.contains(&mirror) {
        true => Err(RestoreError::Failed(format!(
            "{} lies in the standby: choose a directory elsewhere, or --in-place",
            crate::path::escape(std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str()))
        ))),
        false => Ok(()),
    }
}

/// Opens the target, made where its last name is missing. It is empty, or holds the beginning of this same restore.
fn open_target(view: &View, target: &Path, what: &str, wanted: Wanted<'_>) -> Result<(Arc<Root>, Root)> {
    let root = Arc::new(Root::open_or_make(target)?);
    let (listing, _) = root.list(&TreePath::root(), 16)?;
    let show = root.show(&TreePath::root());
    let is_own = |name: &[u8]| name == OWN.as_bytes();
    if listing.entries.iter().any(|entry| is_own(entry.name.as_bytes())) {
        let state = root.open_own(OWN)?;
        let (kept, _) = state.list(&TreePath::root(), 16)?;
        // All but this directory was removed at the end of a restore; of this one, if what it put there is there.
        if kept.entries.is_empty() && is_whole(view, wanted, &root)? {
            note(&state, what)?;
            return Ok((root, state));
        }
        let mut before = String::new();
        match state.open_file(&TreePath::root().child(RESTORING)) {
            Ok(file) => drop(file.take(4096).read_to_string(&mut before)),
            Err(error) if error.is_not_found() && listing.entries.len() == 1 => {}
            Err(error) if error.is_not_found() => {
                let reason = "has a .mailtwin, as a standby has, and other things: choose an empty directory";
                return Err(RestoreError::Failed(format!("{show} {reason}")));
            }
            Err(error) => return Err(error.into()),
        }
        if before != what && listing.entries.len() > 1 {
            return Err(RestoreError::Failed(format!(
                "{show} holds the beginning of another restore: give the same command again, or choose an empty directory"
            )));
        }
        note(&state, what)?;
        return Ok((root, state));
    }
    if !listing.entries.is_empty() {
        return Err(RestoreError::Failed(format!("{show} is not empty: choose an empty directory")));
    }
    let state = root.make_own(OWN)?;
    note(&state, what)?;
    Ok((root, state))
}

/// Whether every file that is wanted is in place.
fn is_whole(view: &View, wanted: Wanted<'_>, root: &Root) -> Result<bool> {
    for record in view.beneath(&TreePath::root()) {
        let record = record?;
        if let Some((_, What::File { size, check, .. })) = &record.state
            && wanted(&record)
            && !is_same(root, &record.path, *size, *check)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a file has this content.
fn is_same(root: &Root, path: &TreePath, size: u64, check: [u8; 8]) -> Result<bool> {
    let Some(stat) = root.stat_if_there(path)? else { return Ok(false) };
    if stat.kind != FileKind::File || stat.size != size {
        return Ok(false);
    }
    let digest = root.open_file(path).ok().and_then(|mut file| staging::hash(&mut file).ok());
    Ok(digest.is_some_and(|digest| digest.0[..8] == check))
}

fn note(state: &Root, what: &str) -> Result<()> {
    let path = TreePath::root().child(RESTORING);
    if state.stat_if_there(&path)?.is_some() {
        state.remove(&path)?;
    }
    let mut writer = state.create(&path, 0o600)?;
    writer.write(what.as_bytes())?;
    Ok(writer.sync()?)
}

/// A restore that is under way.
struct Restore<'a> {
    view: &'a View,
    staging: Arc<Staging>,
    root: Arc<Root>,
    report: Report,
    next_number: u64,
    /// The first file of each group of hard links.
    groups: HashMap<u64, (TreePath, Mark)>,
    since_checkpoint: u64,
    /// Directories that are there.
    made: HashSet<TreePath>,
}

/// Changes that are put in place together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    bytes: u64,
}

impl<'a> Restore<'a> {
    fn new(view: &'a View, root: Arc<Root>, staging: Arc<Staging>) -> Self {
        let report = Report::default();
        Self {
            view,
            staging,
            root,
            report,
            next_number: 0,
            groups: HashMap::new(),
            since_checkpoint: 0,
            made: HashSet::new(),
        }
    }

    fn run(&mut self, catalogue: &Catalogue, wanted: Wanted<'_>) -> Result<()> {
        let mut records = self.view.beneath(&TreePath::root());
        // Directories above what is wanted, not made yet.
        let mut above: Vec<(TreePath, Meta)> = Vec::new();
        let mut ended = false;
        while !ended {
            let transaction = catalogue.begin()?;
            {
                let mut edit = Edit::new(&transaction)?;
                let mut hand = Hand::new(self.root.clone(), self.staging.clone(), SetKind::Maildir);
                let mut batch = Batch::default();
                self.since_checkpoint = 0;
                ended = loop {
                    match records.next() {
                        None => break true,
                        Some(Err(error)) => self.problem(String::new(), error.to_string()),
                        Some(Ok(record)) => self.record(&record, wanted, &mut above, &mut batch, &mut edit)?,
                    }
                    if batch.changes.len() >= BATCH_CHANGES || batch.bytes >= BATCH_BYTES {
                        self.put(&mut batch, &mut hand, &mut edit)?;
                    }
                    if self.since_checkpoint >= CHECKPOINT {
                        break false;
                    }
                };
                if ended && !self.report.problems.is_empty() {
                    self.complete_folders(&mut batch, &mut edit)?;
                }
                self.put(&mut batch, &mut hand, &mut edit)?;
                hand.put_lock_away().map_err(RestoreError::Sync)?;
                self.report.failures(&mut hand.problems);
                if hand.owners_left && self.report.warnings.is_empty() {
                    self.report.warnings.push("not root: files keep the owner that runs mailtwin".to_owned());
                }
                self.root.sync_file_system()?;
                edit.finish()?;
            }
            transaction.commit()?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        record: &Record,
        wanted: Wanted<'_>,
        above: &mut Vec<(TreePath, Meta)>,
        batch: &mut Batch,
        edit: &mut Edit<'_>,
    ) -> Result<()> {
        let Some((meta, what)) = &record.state else { return Ok(()) };
        above.retain(|(directory, _)| record.path.is_within(directory));
        let is_wanted = wanted(record);
        if *what == What::Directory && !is_wanted {
            above.push((record.path.clone(), meta.clone()));
            return Ok(());
        }
        if !is_wanted {
            return Ok(());
        }
        for (path, meta) in above.drain(..) {
            self.make(path, meta, batch);
        }
        self.make_above(&record.path, batch, edit)?;
        match what {
            What::Directory => self.make(record.path.clone(), meta.clone(), batch),
            What::Symlink(target) => {
                let (path, meta, target) = (record.path.clone(), meta.clone(), target.clone());
                batch.changes.push(Change::Symlink { path, meta, target });
                self.report.created += 1;
            }
            What::File { size, group, check, .. } => self.file(record, meta, *size, *group, *check, batch, edit)?,
        }
        Ok(())
    }

    fn make(&mut self, path: TreePath, meta: Meta, batch: &mut Batch) {
        self.made.insert(path.clone());
        batch.changes.push(Change::MakeDirectory { path, meta });
    }

    /// Where the record of a directory is damaged, what is in it still finds its place.
    fn make_above(&mut self, path: &TreePath, batch: &mut Batch, edit: &mut Edit<'_>) -> Result<()> {
        let parent = path.parent();
        if path.is_root() || self.made.contains(&parent) {
            return Ok(());
        }
        self.make_above(&parent, batch, edit)?;
        if edit.directory(&parent)?.is_none() {
            self.make(parent.clone(), Meta { mode: 0o700, ..Meta::default() }, batch);
        }
        self.made.insert(parent);
        Ok(())
    }

    /// A mail server wants all three directories of a folder, though the records of some may be damaged.
    fn complete_folders(&mut self, batch: &mut Batch, edit: &mut Edit<'_>) -> Result<()> {
        let folders = self.made.iter().filter(|path| folder::holds_messages(path.name())).map(TreePath::parent);
        let parts: Vec<TreePath> = folders.flat_map(|folder| folder::PARTS.map(|part| folder.child(part))).collect();
        for part in parts {
            if !self.made.contains(&part) && edit.directory(&part)?.is_none() {
                self.make(part, Meta { mode: 0o700, ..Meta::default() }, batch);
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a file's record, taken apart once")]
    fn file(
        &mut self,
        record: &Record,
        meta: &Meta,
        size: u64,
        group: u64,
        check: [u8; 8],
        batch: &mut Batch,
        edit: &mut Edit<'_>,
    ) -> Result<()> {
        let path = record.path.clone();
        if let Some((existing, mark)) = self.groups.get(&group).filter(|_| group != 0) {
            let (existing, mark) = (existing.clone(), *mark);
            batch.changes.push(Change::Link { path, existing, group, mark });
            self.report.created += 1;
            return Ok(());
        }
        let mark = Mark { size, mtime: meta.mtime.unwrap_or_default() };
        // An earlier run of this restore put it there, and made it durable.
        let is_there = edit.known(&path)?.is_some_and(|known| {
            known.entry.mark() == mark && known.entry.file().is_some_and(|file| file.digest.0[..8] == check)
        });
        if is_there {
            self.report.skipped += 1;
        } else {
            let Some((number, digest)) = self.staged(record, check)? else { return Ok(()) };
            let file = File { size, digest, group };
            let source = Source::Shipped(number);
            batch.changes.push(Change::Put { path: path.clone(), meta: meta.clone(), file, source });
            batch.bytes += size;
            self.since_checkpoint += size;
            self.report.created += 1;
            self.report.bytes += size;
        }
        if group != 0 {
            self.groups.insert(group, (path, mark));
        }
        Ok(())
    }

    fn problem(&mut self, subject: String, reason: String) {
        self.report.failed += 1;
        self.report.problems.push(Problem { subject, reason });
    }

    /// Stages a content; gives its number and digest. One that is damaged is noted, and the rest goes on.
    fn staged(&mut self, record: &Record, check: [u8; 8]) -> Result<Option<(u64, Digest)>> {
        let show = self.root.show(&record.path);
        match self.stage(record) {
            Ok(Some((number, digest))) if digest.0[..8] == check => Ok(Some((number, digest))),
            Ok(_) => {
                self.problem(show, "the repository has another content in its place".to_owned());
                Ok(None)
            }
            Err(RestoreError::Repository(RepositoryError::Content(error))) => {
                self.problem(show, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Stages a content; gives its number and digest.
    fn stage(&mut self, record: &Record) -> Result<Option<(u64, Digest)>> {
        let Some((_, What::File { place, .. })) = &record.state else { return Ok(None) };
        self.next_number += 1;
        let number = self.next_number;
        let missing = |error: ContentError| RestoreError::Repository(error.into());
        if self.view.is_patched(&record.path) {
            let (bytes, digest) = self.view.patch(record).map_err(missing)?;
            self.stage_whole(number, &bytes, digest)?;
            return Ok(Some((number, digest)));
        }
        let place = place.ok_or(ContentError::Nowhere).map_err(missing)?;
        let staging = self.staging.clone();
        let read = self.view.contents.read(place, |piece, bytes| {
            let piece = Piece { number, ..piece.clone() };
            staging.take(&Block { pieces: vec![piece], data: bytes.to_vec() }).map_err(Staged::Failed)
        });
        match read {
            Ok(digest) => Ok(Some((number, digest))),
            Err(Staged::Content(error)) => {
                self.staging.discard(number)?;
                Err(missing(error))
            }
            Err(Staged::Failed(error)) => Err(error.into()),
        }
    }

    fn stage_whole(&self, number: u64, bytes: &[u8], digest: Digest) -> Result<()> {
        let length = bytes.len() as u32;
        let piece = Piece { number, offset: 0, length, last: Some(digest), sparse: false };
        Ok(self.staging.take(&Block { pieces: vec![piece], data: bytes.to_vec() })?)
    }

    fn put(&mut self, batch: &mut Batch, hand: &mut Hand, edit: &mut Edit<'_>) -> Result<()> {
        let Batch { changes, .. } = std::mem::take(batch);
        for change in &changes {
            edit.apply(change)?;
        }
        edit.flush()?;
        Ok(hand.batch(&changes, &Arrived, edit)?)
    }
}

/// Why a content was not staged.
enum Staged {
    Content(ContentError),
    Failed(SyncError),
}

impl From<ContentError> for Staged {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}
