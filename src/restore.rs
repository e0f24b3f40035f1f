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
use crate::maildir::entry::{File, Time};
use crate::maildir::folder::SetKind;
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::repository::contents::ContentError;
use crate::repository::layout::RepositoryError;
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use crate::sync::SyncError;
use crate::sync::apply::{Arrived, Hand};
use crate::sync::staging::{self, Staging};
use crate::sync::target::{NOT_ROOT, OWN, Target};
use crate::wire::block::{Block, Piece};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

pub mod in_place;
pub mod remote;
mod walk;

use walk::{Step, Walk, Wish};

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
    /// Messages that were there and got other flags.
    pub merged: u64,
    /// Files that were there and got the content, or the permissions, that they had.
    pub replaced: u64,
    /// Files that were there, had not been, and went.
    pub removed: u64,
    /// Files that could not be made.
    pub failed: u64,
    /// Bytes in the files that were made.
    pub bytes: u64,
    /// Why.
    pub problems: Vec<Problem>,
    /// Something a person should know that is no failure.
    pub warnings: Vec<String>,
    /// What travelled, where it was restored to another host.
    pub travelled: Travelled,
}

/// What travelled to another host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Travelled {
    /// Blocks of contents that went as they are stored.
    pub blocks_as_stored: u64,
    /// Blocks that were packed anew.
    pub blocks_repacked: u64,
    /// Bytes that went there.
    pub bytes_sent: u64,
    /// Bytes that came from there.
    pub bytes_received: u64,
}

impl Report {
    /// Adds what another part of the same restore did.
    fn add(&mut self, other: &Self) {
        self.created += other.created;
        self.skipped += other.skipped;
        self.merged += other.merged;
        self.replaced += other.replaced;
        self.removed += other.removed;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.problems.extend(other.problems.iter().cloned());
        self.warnings.extend(other.warnings.iter().cloned());
    }

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

/// Why a content is not the one that was meant.
const ANOTHER: &str = "the repository has another content in its place";

/// Bytes of contents after which what was written is made durable.
const CHECKPOINT: u64 = 256 << 20;

/// Changes, and bytes of contents, that are put in place together.
const BATCH_CHANGES: usize = 1000;
const BATCH_BYTES: u64 = 32 << 20;

/// Writes what is wanted of a view into an empty directory.
///
/// # Errors
/// Where the target is not empty, or the disk refuses. What is damaged is in [`Report::problems`].
pub fn to_directory(view: &View, what: &str, wanted: Wanted<'_>, standby: &Path, target: &Path) -> Result<Report> {
    let mirror = Root::open(standby)?.ancestry()?.first().copied();
    let target = Target::open(target, what, mirror)?;
    let mut report = {
        let (catalogue, _) = Catalogue::open(target.state())?;
        let staging = Arc::new(Staging::open(target.state())?);
        staging.clear()?;
        let mut restore = Restore::new(view, target.root().clone(), staging);
        restore.run(&catalogue, wanted)?;
        restore.report
    };
    let mut problems = target.end(mtime_of_root(view))?;
    report.failed += problems.len() as u64;
    report.problems.append(&mut problems);
    Ok(report)
}

/// The time that the root of the set had.
fn mtime_of_root(view: &View) -> Option<Time> {
    view.get(&TreePath::root()).ok().flatten().and_then(|(meta, _)| meta.mtime)
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

/// A restore that is under way.
struct Restore<'a> {
    view: &'a View,
    staging: Arc<Staging>,
    root: Arc<Root>,
    report: Report,
    next_number: u64,
    since_checkpoint: u64,
}

/// Changes that are put in place together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    bytes: u64,
}

impl<'a> Restore<'a> {
    fn new(view: &'a View, root: Arc<Root>, staging: Arc<Staging>) -> Self {
        Self { view, staging, root, report: Report::default(), next_number: 0, since_checkpoint: 0 }
    }

    fn run(&mut self, catalogue: &Catalogue, wanted: Wanted<'_>) -> Result<()> {
        let mut records = self.view.beneath(&TreePath::root());
        let mut walk = Walk::new(wanted);
        let mut ended = false;
        while !ended {
            let transaction = catalogue.begin()?;
            let is_clean = {
                let mut edit = Edit::new(&transaction)?;
                let mut hand = Hand::new(self.root.clone(), self.staging.clone(), SetKind::Maildir);
                let mut batch = Batch::default();
                self.since_checkpoint = 0;
                ended = loop {
                    match records.next() {
                        None => break true,
                        Some(Err(error)) => self.problem(String::new(), error.to_string()),
                        Some(Ok(record)) => self.steps(walk.steps(record), &mut walk, &mut batch, &mut edit)?,
                    }
                    if batch.changes.len() >= BATCH_CHANGES || batch.bytes >= BATCH_BYTES {
                        self.put(&mut batch, &mut hand, &mut edit)?;
                    }
                    if self.since_checkpoint >= CHECKPOINT {
                        self.since_checkpoint = 0;
                        self.put(&mut batch, &mut hand, &mut edit)?;
                        // What could not be done is not written down as done: after a kill it is tried again.
                        if hand.problems.is_empty() {
                            break false;
                        }
                    }
                };
                if ended && !self.report.problems.is_empty() {
                    self.steps(walk.complete_folders(), &mut walk, &mut batch, &mut edit)?;
                }
                self.put(&mut batch, &mut hand, &mut edit)?;
                hand.put_lock_away().map_err(RestoreError::Sync)?;
                let is_clean = hand.problems.is_empty() || !ended;
                self.report.failures(&mut hand.problems);
                if hand.owners_left && self.report.warnings.is_empty() {
                    self.report.warnings.push(NOT_ROOT.to_owned());
                }
                self.root.sync_file_system()?;
                edit.finish()?;
                is_clean
            };
            match is_clean {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
        }
        Ok(())
    }

    fn steps(&mut self, steps: Vec<Step>, walk: &mut Walk<'_>, batch: &mut Batch, edit: &mut Edit<'_>) -> Result<()> {
        for step in steps {
            match step {
                Step::Bring(wish) => self.bring(&wish, walk, batch, edit)?,
                Step::Do(change) => {
                    self.report.created += u64::from(matches!(change, Change::Symlink { .. }));
                    batch.changes.push(change);
                }
            }
        }
        Ok(())
    }

    fn bring(&mut self, wish: &Wish, walk: &mut Walk<'_>, batch: &mut Batch, edit: &mut Edit<'_>) -> Result<()> {
        if let Some(link) = walk.link(wish) {
            batch.changes.push(link);
            self.report.created += 1;
            return Ok(());
        }
        let (path, size) = (wish.record.path.clone(), wish.size);
        // An earlier run of this restore put it there, and made it durable.
        if edit.known(&path)?.is_some_and(|known| wish.is(known.entry.mark(), known.entry.file())) {
            self.report.skipped += 1;
        } else {
            let Some((number, digest)) = self.staged(&wish.record, wish.check)? else { return Ok(()) };
            let file = File { size, digest, group: wish.group };
            let source = Source::Shipped(number);
            batch.changes.push(Change::Put { path, meta: wish.meta.clone(), file, source });
            batch.bytes += size;
            self.since_checkpoint += size;
            self.report.created += 1;
            self.report.bytes += size;
        }
        walk.is_there(wish);
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
                self.problem(show, ANOTHER.to_owned());
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
