//! `backup`: a full, or a differential.
//!
//! Layer 5. The first one turns history on: it reads the mirror, which no sync changes meanwhile. Every later one is
//! cut from the log, by `repository::cut`, while syncs go on.

use crate::catalogue::scan::Found;
use crate::disk::DiskError;
use crate::log::history::History;
use crate::maildir::entry::{Entry, File, Kind, Meta, Time};
use crate::maildir::folder;
use crate::path::TreePath;
use crate::repository::cut::{self, Stand};
use crate::repository::envelope::Envelope;
use crate::repository::label::{PointKind, PointLabel};
use crate::repository::layout::{About, Making, Repository, RepositoryError};
use crate::repository::manifest::{Header, ManifestError, SegmentRef, Writer};
use crate::repository::own::OwnSegment;
use crate::repository::record::{Place, Record, What};
use crate::repository::view::{At, Counts, View};
use crate::sync::SyncError;
use crate::sync::read::{Answer, Outcome, Output, Pool, Request as Read};
use crate::sync::receiver::frozen::{Frozen, Standing};
use crate::wire::block::{self, Block};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no point.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The mirror.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// Another command is at work on the points.
    #[error("another command is changing the restore points of {0}: wait until it has ended")]
    Locked(String),
}

impl BackupError {
    /// The exit code that belongs to it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked(_) => 10,
            Self::Sync(error) => error.exit_code(),
            Self::Repository(_) => 1,
        }
    }

    /// Whether it is for want of room on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Repository(error) => error.is_full(),
            Self::Sync(SyncError::Disk(error)) => error.is_full(),
            _ => false,
        }
    }
}

impl From<DiskError> for BackupError {
    fn from(error: DiskError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<ManifestError> for BackupError {
    fn from(error: ManifestError) -> Self {
        Self::Repository(error.into())
    }
}

type Result<T> = std::result::Result<T, BackupError>;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The standby.
    pub standby: PathBuf,
    /// Its state, where that is elsewhere.
    pub state: Option<PathBuf>,
    /// The kind; `None`: a full where the newest is older than `full_every`, else a differential.
    pub kind: Option<PointKind>,
    /// A full that takes nothing from earlier points or the log: everything is read from the mirror.
    pub fresh: bool,
    /// See `kind`.
    pub full_every: Duration,
    /// A person's words for it.
    pub note: String,
    /// The slave's own clock.
    pub now: Time,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its label.
    pub label: PointLabel,
    /// What its manifest says.
    pub header: Header,
    /// What could not be put into it.
    pub problems: Vec<String>,
    /// Something a person should know that is wrong with no point.
    pub warnings: Vec<String>,
}

/// Makes a restore point.
///
/// # Errors
/// Where there is none in the end.
pub fn run(request: &Request) -> Result<Report> {
    let repository = Repository::open(&request.standby, request.state.as_deref())?;
    let show = repository.state.show(&TreePath::root());
    let _lock = repository.lock()?.ok_or(BackupError::Locked(show))?;
    repository.clear()?;
    // One that is damaged is no beginning; where there is no other, everything is read from the mirror again.
    let is_full = |label: &PointLabel| label.kind() == PointKind::Full && repository.manifest(label).is_ok();
    let full = repository.labels()?.into_iter().rfind(is_full);
    let mut report = match (full, &repository.history) {
        (Some(full), Some(_)) if !request.fresh => later(request, &repository, &full)?,
        _ => first(request, &repository)?,
    };
    report.warnings.extend(repository.hold_back());
    if !request.note.is_empty() {
        let about = About { note: request.note.clone(), ..repository.about(&report.label)? };
        repository.set_about(&report.label, &about)?;
    }
    Ok(report)
}

/// Makes a restore point of what is on the mirror now, whoever made it so: what a mail server changed there since the last
/// run is found first.
///
/// # Errors
/// As [`run`], and where another run holds the mirror.
pub fn of_the_mirror(request: &Request) -> Result<Report> {
    drop(Frozen::open(&request.standby, request.state.as_deref())?);
    run(request)
}

/// A point from the log.
fn later(request: &Request, repository: &Repository, full: &PointLabel) -> Result<Report> {
    let age = full.moment().until(request.now);
    let is_due = age > request.full_every.as_nanos() as i128;
    let kind = request.kind.unwrap_or(if is_due { PointKind::Full } else { PointKind::Differential });
    let view = View::open(repository, &At::Newest)?;
    // The full that the view begins with: where the newest one is damaged, an older one.
    let full = view.label.map(|label| label.full_label()).filter(|_| kind == PointKind::Differential);
    let label = cut::label(repository, full.as_ref(), request.now)?;
    let (header, mut problems) = cut::cut(repository, &view, &label, request.now)?;
    problems.extend(view.problems);
    Ok(Report { label, header, problems, warnings: Vec::new() })
}

/// The first full: everything is read from the mirror, and the log is kept from here on.
fn first(request: &Request, repository: &Repository) -> Result<Report> {
    let frozen = Frozen::open(&request.standby, request.state.as_deref())?;
    // Where the log lost its last segment the next one has a number behind that.
    let reached = History::begin(&repository.state)?.next().map_err(RepositoryError::from)?.number - 1;
    // While there is room; what is wrong with it shows at the end.
    let _ = repository.hold_back();
    let label = cut::label(repository, None, request.now)?;
    let making = repository.begin(&label)?;
    let mut full = FirstFull::new(&frozen, &making)?;
    frozen.walk(|path, standing| full.take(path, standing))?;
    full.drain()?;
    let FirstFull { own, mut segments, manifest, counts, problems, .. } = full;
    segments.push(own.finish()?.0);
    let (set, epoch, position, moment) = (frozen.set, frozen.epoch, frozen.position, request.now);
    let stand = Stand { set, epoch, position, counts, reached, moment };
    let header = stand.header(&label, segments);
    manifest.finish(header.clone())?;
    making.finish()?;
    Ok(Report { label, header, problems, warnings: Vec::new() })
}

/// Length from which a segment is closed, in bytes.
///
/// What is the same in two messages stands once in a segment, so that it is long; and what of it may have to be written
/// again is as much.
const SEGMENT: u64 = 1 << 30;

/// Jobs that are being read, or wait for those before them.
const JOBS: usize = 4;

/// Records that share a job at most.
const RECORDS: usize = 2048;

/// What is read comes as it is: the segment packs it.
const RAW: i32 = 0;

/// A record on its way into the manifest.
enum Waiting {
    Ready(Record),
    /// Its content is being read under this number.
    Content(TreePath, Meta, File, u64),
    /// It has the content of a file before it, of which it is a hard link.
    Linked(TreePath, Meta, u64),
}

/// Where contents begin, by their numbers: in which block of the segment, with which piece; and the envelope.
type Beginnings = HashMap<u64, (u32, u32, Envelope)>;

/// Records whose contents were read, and are not all written.
struct Packing {
    waiting: Vec<Waiting>,
    read: HashMap<u64, File>,
    places: Beginnings,
    /// The last block of theirs.
    last: Option<u32>,
}

/// The first full, while it is made.
struct FirstFull<'a> {
    frozen: &'a Frozen,
    making: &'a Making<'a>,
    readers: Pool,
    gathered: Vec<Waiting>,
    requests: Vec<Read>,
    bytes: u64,
    jobs: VecDeque<(Vec<Waiting>, Answer)>,
    packing: VecDeque<Packing>,
    next_number: u64,
    /// What the first file of each group of hard links is.
    groups: HashMap<u64, Option<What>>,
    own: OwnSegment,
    segments: Vec<SegmentRef>,
    manifest: Writer,
    counts: Counts,
    problems: Vec<String>,
}

impl<'a> FirstFull<'a> {
    fn new(frozen: &'a Frozen, making: &'a Making<'a>) -> Result<Self> {
        Ok(Self {
            frozen,
            making,
            readers: frozen.readers(RAW),
            gathered: Vec::new(),
            requests: Vec::new(),
            bytes: 0,
            jobs: VecDeque::new(),
            packing: VecDeque::new(),
            next_number: 0,
            groups: HashMap::new(),
            own: OwnSegment::create(making)?,
            segments: Vec::new(),
            manifest: Writer::new(making.manifest()?),
            counts: Counts::default(),
            problems: Vec::new(),
        })
    }

    fn take(&mut self, path: TreePath, standing: Standing) -> Result<()> {
        let ready = |path, meta, what| Waiting::Ready(Record { path, state: Some((meta, what)) });
        let waiting = match standing {
            Standing::Directory(meta) => ready(path, meta, What::Directory),
            Standing::Entry(Entry { meta, kind, .. }) => match kind {
                Kind::Directory => ready(path, meta, What::Directory),
                Kind::Symlink(target) => ready(path, meta, What::Symlink(target)),
                Kind::File(file) if file.group != 0 && self.groups.contains_key(&file.group) => {
                    Waiting::Linked(path, meta, file.group)
                }
                Kind::File(file) => self.read(path, meta, file)?,
            },
        };
        self.gathered.push(waiting);
        match self.bytes >= block::TARGET as u64 || self.gathered.len() >= RECORDS {
            true => self.submit(),
            false => Ok(()),
        }
    }

    /// Asks for a file's content.
    fn read(&mut self, path: TreePath, meta: Meta, file: File) -> Result<Waiting> {
        if file.group != 0 {
            self.groups.insert(file.group, None);
        }
        self.next_number += 1;
        let number = self.next_number;
        let stat = match self.frozen.mirror().stat(&path) {
            Ok(stat) => stat,
            Err(error) => {
                self.problems.push(error.to_string());
                return Ok(Waiting::Content(path, meta, file, 0));
            }
        };
        let found =
            Found { path: path.clone(), stat, meta: meta.clone(), known: None, captured: None, target: None, number };
        self.requests.push(Read { found, signature: None, sign: false });
        self.bytes += stat.size;
        Ok(Waiting::Content(path, meta, file, number))
    }

    fn submit(&mut self) -> Result<()> {
        let answer = self.readers.submit(std::mem::take(&mut self.requests));
        self.jobs.push_back((std::mem::take(&mut self.gathered), answer));
        self.bytes = 0;
        while self.jobs.len() > JOBS {
            self.finish_oldest()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.submit()?;
        while !self.jobs.is_empty() {
            self.finish_oldest()?;
        }
        self.own.flush()?;
        self.record_written()
    }

    fn finish_oldest(&mut self) -> Result<()> {
        let Some((waiting, answer)) = self.jobs.pop_front() else { return Ok(()) };
        let (mut places, mut last) = (Beginnings::new(), None);
        let outcomes = loop {
            match answer.recv() {
                Ok(Output::Block(payload)) => last = Some(self.block(&payload, &mut places)?),
                Ok(Output::Outcomes(outcomes)) => break outcomes,
                Err(_) => return Err(SyncError::Failed("a thread that reads files ended early".into()).into()),
            }
        };
        let mut read: HashMap<u64, File> = HashMap::new();
        for (found, outcome) in outcomes {
            match outcome {
                Outcome::Read(content) => {
                    let file = File { size: content.stat.size, digest: content.digest, group: 0 };
                    read.insert(found.number, file);
                }
                Outcome::Gone => self.problem(&found.path, "it went away while the point was made"),
                Outcome::Restless => self.problem(&found.path, "it changed while it was read"),
                Outcome::Failed(error) => self.problems.push(error.to_string()),
            }
        }
        self.packing.push_back(Packing { waiting, read, places, last });
        if self.own.length() > SEGMENT {
            self.own.flush()?;
            self.record_written()?;
            let own = std::mem::replace(&mut self.own, OwnSegment::create(self.making)?);
            self.segments.push(own.finish()?.0);
        }
        self.record_written()
    }

    /// Records what has all its blocks in the segment.
    fn record_written(&mut self) -> Result<()> {
        let is_written =
            |own: &OwnSegment, packing: &Packing| packing.last.is_none_or(|last| own.offset(last).is_some());
        while self.packing.front().is_some_and(|packing| is_written(&self.own, packing)) {
            let Some(Packing { waiting, read, mut places, .. }) = self.packing.pop_front() else { return Ok(()) };
            for waiting in waiting {
                if let Some(record) = self.record(waiting, &mut places, &read) {
                    self.counts.change(record.state.as_ref(), true);
                    self.manifest.push(&record)?;
                }
            }
        }
        Ok(())
    }

    fn problem(&mut self, path: &TreePath, what: &str) {
        self.problems.push(format!("{}: {what}", self.frozen.mirror().show(path)));
    }

    fn block(&mut self, payload: &[u8], places: &mut Beginnings) -> Result<u32> {
        let failed = |error: block::BlockError| SyncError::Failed(error.to_string());
        let block = Block::decode(payload).map_err(failed)?;
        let number = self.own.take(&block)?;
        for ((piece, bytes), index) in block.contents().zip(0..).filter(|((piece, _), _)| piece.offset == 0) {
            places.insert(piece.number, (number, index, Envelope::parse(bytes)));
        }
        Ok(number)
    }

    fn record(&mut self, waiting: Waiting, places: &mut Beginnings, read: &HashMap<u64, File>) -> Option<Record> {
        let (path, meta, file, number) = match waiting {
            Waiting::Ready(record) => return Some(record),
            Waiting::Linked(path, meta, group) => {
                let what = self.groups.get(&group).cloned().flatten()?;
                return Some(Record { path, state: Some((meta, what)) });
            }
            Waiting::Content(path, meta, file, number) => (path, meta, file, number),
        };
        let found = read.get(&number)?;
        if found.digest != file.digest {
            self.problem(&path, "its content is not what was replicated; the point has it as it is on the standby");
        }
        let begun = places.remove(&number).and_then(|(block, piece, envelope)| {
            let place = Place { segment: self.segments.len() as u32, offset: self.own.offset(block)?, piece };
            Some((place, envelope))
        });
        let (place, envelope) = begun.map_or((None, None), |(place, envelope)| (Some(place), Some(envelope)));
        let is_message = folder::is_message(self.frozen.kind(), &path);
        let mut check = [0; 8];
        check.copy_from_slice(&found.digest.0[..8]);
        let envelope = envelope.filter(|_| is_message).map(Box::new);
        let what = What::File { size: found.size, group: file.group, check, place, envelope };
        if file.group != 0 {
            self.groups.insert(file.group, Some(what.clone()));
        }
        Some(Record { path, state: Some((meta, what)) })
    }
}
