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
use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

mod ahead;
pub mod in_place;
pub mod mirror;
pub mod remote;
mod walk;

use ahead::{Readers, Writeback};
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
    changes: Vec<Planned>,
    wanted: Vec<ahead::Wanted>,
    bytes: u64,
}

/// A change, or one that waits for its content.
enum Planned {
    Change(Change),
    Put(Wish, u64),
}

/// Bytes of contents after which what was written begins to go to the disk.
const WRITEBACK: u64 = 64 << 20;

/// Batches whose contents are read while the one before them is put in place.
const AHEAD: usize = 2;

/// What is under way between two checkpoints.
struct Stretch<'e, 't> {
    edit: &'e mut Edit<'t>,
    hand: Hand,
    batch: Batch,
    /// Batches whose contents are being read, oldest first.
    coming: VecDeque<(Vec<Planned>, ahead::Answer)>,
    writeback: Writeback,
    /// Bytes put in place that are not on their way to the disk.
    written: u64,
}

impl<'a> Restore<'a> {
    fn new(view: &'a View, root: Arc<Root>, staging: Arc<Staging>) -> Self {
        Self { view, staging, root, report: Report::default(), next_number: 0, since_checkpoint: 0 }
    }

    fn run(&mut self, catalogue: &Catalogue, wanted: Wanted<'_>) -> Result<()> {
        let readers = Readers::new(&self.view.contents, &self.staging);
        let mut records = self.view.beneath(&TreePath::root());
        let mut walk = Walk::new(wanted);
        let mut ended = false;
        while !ended {
            let transaction = catalogue.begin()?;
            let is_clean = {
                let mut edit = Edit::new(&transaction)?;
                let hand = Hand::new(self.root.clone(), self.staging.clone(), SetKind::Maildir);
                let (batch, coming) = (Batch::default(), VecDeque::new());
                let writeback = Writeback::new(&self.root);
                let mut stretch = Stretch { edit: &mut edit, hand, batch, coming, writeback, written: 0 };
                self.since_checkpoint = 0;
                ended = loop {
                    match records.next() {
                        None => break true,
                        Some(Err(error)) => self.problem(String::new(), error.to_string()),
                        Some(Ok(record)) => self.steps(walk.steps(record), &mut walk, &mut stretch)?,
                    }
                    if stretch.batch.changes.len() >= BATCH_CHANGES || stretch.batch.bytes >= BATCH_BYTES {
                        self.submit(&readers, &mut stretch, AHEAD)?;
                    }
                    if self.since_checkpoint >= CHECKPOINT {
                        self.since_checkpoint = 0;
                        self.submit(&readers, &mut stretch, 0)?;
                        // What could not be done is not written down as done: after a kill it is tried again.
                        if stretch.hand.problems.is_empty() {
                            break false;
                        }
                    }
                };
                self.submit(&readers, &mut stretch, 0)?;
                if ended && !self.report.problems.is_empty() {
                    self.steps(walk.complete_folders(), &mut walk, &mut stretch)?;
                    self.submit(&readers, &mut stretch, 0)?;
                }
                let Stretch { mut hand, writeback, .. } = stretch;
                writeback.end()?;
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

    fn steps(&mut self, steps: Vec<Step>, walk: &mut Walk<'_>, stretch: &mut Stretch<'_, '_>) -> Result<()> {
        for step in steps {
            match step {
                Step::Bring(wish) => self.bring(wish, walk, stretch)?,
                Step::Do(change) => {
                    self.report.created += u64::from(matches!(change, Change::Symlink { .. }));
                    stretch.batch.changes.push(Planned::Change(change));
                }
            }
        }
        Ok(())
    }

    fn bring(&mut self, wish: Wish, walk: &mut Walk<'_>, stretch: &mut Stretch<'_, '_>) -> Result<()> {
        if let Some(link) = walk.link(&wish) {
            stretch.batch.changes.push(Planned::Change(link));
            self.report.created += 1;
            return Ok(());
        }
        // An earlier run of this restore put it there, and made it durable.
        let known = stretch.edit.known(&wish.record.path)?;
        if known.is_some_and(|known| wish.is(known.entry.mark(), known.entry.file())) {
            self.report.skipped += 1;
            walk.is_there(&wish);
            return Ok(());
        }
        stretch.batch.bytes += wish.size;
        self.since_checkpoint += wish.size;
        // Other names of a file become links of it when it is known that it comes.
        match wish.place.filter(|_| wish.group == 0 && !self.view.is_patched(&wish.record.path)) {
            Some(place) => {
                self.next_number += 1;
                stretch.batch.wanted.push((self.next_number, place));
                stretch.batch.changes.push(Planned::Put(wish, self.next_number));
            }
            None => {
                if let Some((number, digest)) = self.staged(&wish.record, wish.check)? {
                    walk.is_there(&wish);
                    stretch.batch.changes.push(Planned::Change(self.put(wish, number, digest)));
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, wish: Wish, number: u64, digest: Digest) -> Change {
        self.report.created += 1;
        self.report.bytes += wish.size;
        let file = File { size: wish.size, digest, group: wish.group };
        Change::Put { path: wish.record.path, meta: wish.meta, file, source: Source::Shipped(number) }
    }

    /// Has the contents of the batch read, and puts batches in place until no more than `ahead` are on their way.
    fn submit(&mut self, readers: &Readers, stretch: &mut Stretch<'_, '_>, ahead: usize) -> Result<()> {
        let Batch { changes, wanted, .. } = std::mem::take(&mut stretch.batch);
        if !changes.is_empty() {
            stretch.coming.push_back((changes, readers.ask(wanted)));
        }
        while stretch.coming.len() > ahead {
            let Some((planned, answer)) = stretch.coming.pop_front() else { break };
            let changes = self.settle(planned, answer)?;
            for change in &changes {
                stretch.edit.apply(change)?;
            }
            stretch.edit.flush()?;
            stretch.hand.batch(&changes, &Arrived, stretch.edit)?;
            stretch.written += changes.iter().map(brought).sum::<u64>();
            if stretch.written >= WRITEBACK {
                stretch.written = 0;
                stretch.writeback.kick();
            }
        }
        Ok(())
    }

    /// The changes of a batch, without those whose content is damaged, which is noted.
    fn settle(&mut self, planned: Vec<Planned>, answer: ahead::Answer) -> Result<Vec<Change>> {
        let mut outcomes = answer.wait()?;
        let mut changes = Vec::with_capacity(planned.len());
        for planned in planned {
            match planned {
                Planned::Change(change) => changes.push(change),
                Planned::Put(wish, number) => {
                    let staged = outcomes.remove(&number).unwrap_or(Err(Staged::Content(ContentError::Nowhere)));
                    if let Some(digest) = self.right(&wish.record.path, staged, wish.check)? {
                        changes.push(self.put(wish, number, digest));
                    }
                }
            }
        }
        Ok(changes)
    }

    /// The digest of a staged content; `None` where it is damaged, or another than was meant: that is noted, and the rest
    /// goes on.
    fn right(
        &mut self,
        path: &TreePath,
        staged: std::result::Result<Digest, Staged>,
        check: [u8; 8],
    ) -> Result<Option<Digest>> {
        let reason = match staged {
            Ok(digest) if digest.0[..8] == check => return Ok(Some(digest)),
            Ok(_) => ANOTHER.to_owned(),
            Err(Staged::Content(error)) => error.to_string(),
            Err(Staged::Failed(error)) => return Err(error.into()),
        };
        self.problem(self.root.show(path), reason);
        Ok(None)
    }

    fn problem(&mut self, subject: String, reason: String) {
        self.report.failed += 1;
        self.report.problems.push(Problem { subject, reason });
    }

    /// Stages a content here and now; gives its number and digest. One that is damaged is noted, and the rest goes on.
    fn staged(&mut self, record: &Record, check: [u8; 8]) -> Result<Option<(u64, Digest)>> {
        self.next_number += 1;
        let number = self.next_number;
        let staged = self.stage(record, number);
        Ok(self.right(&record.path, staged, check)?.map(|digest| (number, digest)))
    }

    fn stage(&self, record: &Record, number: u64) -> std::result::Result<Digest, Staged> {
        if self.view.is_patched(&record.path) {
            let (bytes, digest) = self.view.patch(record)?;
            self.stage_whole(number, &bytes, digest).map_err(|error| match error {
                RestoreError::Sync(error) => Staged::Failed(error),
                other => Staged::Failed(SyncError::Failed(other.to_string())),
            })?;
            return Ok(digest);
        }
        match &record.state {
            Some((_, What::File { place: Some(place), .. })) => {
                ahead::stage(&self.view.contents, &self.staging, number, *place)
            }
            _ => Err(Staged::Content(ContentError::Nowhere)),
        }
    }

    fn stage_whole(&self, number: u64, bytes: &[u8], digest: Digest) -> Result<()> {
        let length = bytes.len() as u32;
        let piece = Piece { number, offset: 0, length, last: Some(digest), sparse: false };
        Ok(self.staging.take(&Block { pieces: vec![piece], data: bytes.to_vec() })?)
    }
}

/// Bytes that a change writes.
fn brought(change: &Change) -> u64 {
    match change {
        Change::Put { file, .. } => file.size,
        _ => 0,
    }
}

/// Why a content was not staged.
#[derive(Debug)]
enum Staged {
    /// It cannot be had.
    Content(ContentError),
    /// The disk refuses.
    Failed(SyncError),
}

impl From<ContentError> for Staged {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}
