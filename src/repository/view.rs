//! A set as it was at a moment: the records of a full, and over them what changed since.
//!
//! What changed is held in memory: it is what a differential costs. It comes from a differential's manifest, and from
//! the log behind the point, batch by batch, up to the moment that is wanted.

use super::contents::{ContentError, Contents};
use super::cut::in_log;
use super::envelope::Envelope;
use super::kept::before_the_first;
use super::label::{PointKind, PointLabel};
use super::layout::{Repository, RepositoryError};
use super::manifest::{Header, Manifest, SegmentRef, key};
use super::record::{Place, Record, What};
use crate::delta;
use crate::disk::Root;
use crate::id::{Digest, Epoch, Position, SetId};
use crate::log::history::History;
use crate::log::segment::Batch;
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{File, Meta, Time};
use crate::path::TreePath;
use crate::wire::block::Block;
use std::collections::{BTreeMap, HashMap};

mod merged;

use merged::implied;
pub use merged::{Children, Merged};

mod follow;
mod watch;

pub use watch::Span;

type Result<T> = std::result::Result<T, RepositoryError>;

/// Longest file that is put together out of a base and differences in memory.
const PATCHED_MAX: u64 = 256 << 20;

/// Which moment is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// That of a point.
    Point(PointLabel),
    /// The last batch that was not after it.
    Moment(Time),
    /// The newest.
    Newest,
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Regular files, messages among them.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes in files.
    pub bytes: u64,
}

/// A content that is a base and differences.
#[derive(Clone, Debug)]
struct Patched {
    deltas: Vec<Place>,
    /// Of the result.
    digest: Digest,
}

/// Where the pieces of a batch's contents begin, and what the messages among them are known by.
type Shipped = HashMap<u64, (Place, Option<Box<Envelope>>)>;

/// A set at a moment.
pub struct View {
    base: Option<Manifest>,
    over: BTreeMap<Vec<u8>, Record>,
    patched: HashMap<Vec<u8>, Patched>,
    /// The contents that records lead to.
    pub contents: Contents,
    /// What the segments of `contents` are, in their order.
    pub segments: Vec<SegmentRef>,
    /// Where each of them lies: with a point, or in the log.
    origins: Vec<Option<PointLabel>>,
    /// The point that it begins with.
    pub label: Option<PointLabel>,
    /// The set.
    pub set: SetId,
    /// The epoch of the position.
    pub epoch: Epoch,
    /// The last batch in it.
    pub position: Position,
    /// When that was written, or the point cut.
    pub moment: Time,
    /// How much there is.
    pub counts: Counts,
    /// The last segment of the log that is in it.
    pub reached: u64,
    /// What of the log could not be read.
    pub problems: Vec<String>,
    /// Somebody wants to be told what happens to messages.
    watch: Option<watch::Watch>,
}

impl View {
    /// The set as it was.
    ///
    /// # Errors
    /// Where there is no point that it could begin with, or that one cannot be read.
    pub fn open(repository: &Repository, at: &At) -> Result<Self> {
        let label = match at {
            At::Point(label) => *label,
            At::Newest => last(repository, |_| true)?.ok_or_else(|| before_the_first(None))?,
            At::Moment(time) => match last(repository, |header| header.moment <= *time)? {
                Some(label) => label,
                None => return Err(before_the_first(repository.labels()?.first().copied())),
            },
        };
        let mut view = Self::of_point(repository, &label)?;
        match at {
            At::Point(_) => {}
            At::Newest => view.follow(repository, None, None, |_| {})?,
            At::Moment(time) => view.follow(repository, Some(*time), None, |_| {})?,
        }
        Ok(view)
    }

    /// The set as a point has it.
    ///
    /// # Errors
    /// Where it, or the full that it needs, cannot be read.
    pub fn of_point(repository: &Repository, label: &PointLabel) -> Result<Self> {
        let manifest = repository.manifest(label)?;
        let header = manifest.header().clone();
        let mut view = Self {
            base: None,
            over: BTreeMap::new(),
            patched: HashMap::new(),
            contents: Contents::default(),
            segments: Vec::new(),
            label: Some(*label),
            set: header.set,
            epoch: header.epoch,
            position: header.position,
            moment: header.moment,
            counts: counts(&header),
            reached: header.reached,
            origins: Vec::new(),
            problems: Vec::new(),
            watch: None,
        };
        let own = match label.kind() {
            PointKind::Full => {
                view.base = Some(manifest);
                0
            }
            PointKind::Differential => {
                let full = label.full_label();
                let base = repository.manifest(&full).map_err(|error| {
                    RepositoryError::Failed(format!("{label} cannot be read without its full: {error}"))
                })?;
                let segments = &base.header().segments;
                view.add(repository, &full, segments);
                let renumbering = Renumbering::of(&header.segments, segments);
                for record in manifest.records(&[]) {
                    let mut record = record?;
                    renumbering.renumber(&mut record);
                    view.over.insert(key(&record.path), record);
                }
                let own = renumbering.shared as usize;
                view.base = Some(base);
                own
            }
        };
        view.add(repository, label, header.segments.get(own..).unwrap_or_default());
        Ok(view)
    }

    /// Adds segments that lie with a point.
    fn add(&mut self, repository: &Repository, label: &PointLabel, segments: &[SegmentRef]) {
        let (root, directory) = repository.place(label);
        for segment in segments {
            self.contents.add(root, &directory.child(&History::name(segment.number)));
            self.segments.push(*segment);
            self.origins.push(Some(*label));
        }
    }

    /// How many of the segments are those of the full.
    pub fn of_base(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.header().segments.len())
    }

    /// Where a segment lies.
    ///
    /// # Errors
    /// Where there is no such segment.
    pub fn place<'r>(&self, repository: &'r Repository, index: u32) -> Result<(&'r Root, TreePath)> {
        let missing = || RepositoryError::Failed(format!("there is no segment {index}"));
        let segment = self.segments.get(index as usize).ok_or_else(missing)?;
        match self.origins.get(index as usize) {
            Some(Some(label)) => {
                let (root, directory) = repository.place(label);
                Ok((root, directory.child(&History::name(segment.number))))
            }
            _ => in_log(repository, segment.number),
        }
    }

    fn batch(&mut self, batch: &Batch, segment: u32) -> Result<()> {
        let shipped = self.shipped(batch, segment);
        self.watch.iter_mut().for_each(|watch| watch.begin(batch.moment));
        for change in &batch.changes {
            self.change(change, &shipped)?;
        }
        self.position = batch.position.unwrap_or(self.position).max(self.position);
        self.moment = batch.moment.unwrap_or(self.moment);
        self.watched(batch.position)
    }

    /// Finds the contents of a batch. Messages are looked into once, here.
    fn shipped(&mut self, batch: &Batch, segment: u32) -> Shipped {
        let mut shipped = Shipped::new();
        let is_message = |path: &TreePath| crate::maildir::folder::holds_messages(path.parent().name());
        let messages: HashMap<u64, bool> = batch
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Put { path, source: Source::Shipped(number), .. } => Some((*number, is_message(path))),
                Change::Put { source: Source::Delta(number), .. } => Some((*number, false)),
                _ => None,
            })
            .collect();
        for &offset in batch.blocks.iter().filter(|_| !messages.is_empty()) {
            let block = match self.contents.block(segment, offset) {
                Ok((block, _)) => block,
                Err(error) => {
                    self.problems.push(error.to_string());
                    continue;
                }
            };
            shipped.extend(beginnings(&block).filter_map(|(index, number, bytes)| {
                let is_message = messages.get(&number)?;
                let place = Place { segment, offset, piece: index };
                Some((number, (place, is_message.then(|| Box::new(Envelope::parse(bytes))))))
            }));
        }
        shipped
    }

    // ---- changing ----

    fn change(&mut self, change: &Change, shipped: &Shipped) -> Result<()> {
        match change {
            Change::MakeDirectory { path, meta } => self.set(path, Some((meta.clone(), What::Directory)), None),
            Change::Symlink { path, meta, target } => {
                self.set(path, Some((meta.clone(), What::Symlink(target.clone()))), None)
            }
            Change::Put { path, meta, file, source } => self.put(path, meta, file, source, shipped),
            Change::Link { path, existing, group, .. } => {
                self.came_from(path, existing, false);
                self.regroup(existing, *group)?;
                self.copy(existing, path)
            }
            Change::Rename { from, to, .. } => {
                self.came_from(to, from, false);
                self.copy(from, to)?;
                self.set(from, None, None)
            }
            Change::SetMeta { path, meta, group } => {
                self.regroup(path, *group)?;
                match self.get(path)? {
                    Some((_, what)) => {
                        let patched = self.patched.get(&key(path)).cloned();
                        self.set(path, Some((meta.clone(), what)), patched)
                    }
                    None => Ok(()),
                }
            }
            Change::Remove { path, .. } | Change::Forget { path } => self.set(path, None, None),
            Change::RemoveDirectory { path } => {
                for path in self.paths_beneath(path)? {
                    self.set(&path, None, None)?;
                }
                Ok(())
            }
            Change::RenameDirectory { from, to } => {
                for path in self.paths_beneath(from)? {
                    let moved = if from.is_root() { path.clone() } else { path.moved(from, to) };
                    self.came_from(&moved, &path, true);
                    self.copy(&path, &moved)?;
                    self.set(&path, None, None)?;
                }
                Ok(())
            }
        }
    }

    fn came_from(&mut self, path: &TreePath, from: &TreePath, with_directory: bool) {
        self.watch.iter_mut().for_each(|watch| watch.source(path, from, with_directory));
    }

    fn put(&mut self, path: &TreePath, meta: &Meta, file: &File, source: &Source, shipped: &Shipped) -> Result<()> {
        let (place, envelope, patched) = match source {
            Source::Shipped(number) => {
                let found = shipped.get(number).cloned();
                let (place, envelope) = found.map_or((None, None), |(place, envelope)| (Some(place), envelope));
                (place, envelope, None)
            }
            Source::Copied(from) => match self.get(from)? {
                Some((_, What::File { place, envelope, .. })) => {
                    (place, envelope, self.patched.get(&key(from)).cloned())
                }
                _ => (None, None, None),
            },
            Source::Delta(number) => {
                let before = match self.get(path)? {
                    Some((_, What::File { place, .. })) => place,
                    _ => None,
                };
                let mut deltas = self.patched.get(&key(path)).map_or_else(Vec::new, |patched| patched.deltas.clone());
                let delta = shipped.get(number).map(|(place, _)| *place);
                deltas.extend(delta);
                let place = before.filter(|_| delta.is_some());
                (place, None, Some(Patched { deltas, digest: file.digest }))
            }
        };
        let mut check = [0; 8];
        check.copy_from_slice(&file.digest.0[..8]);
        let what = What::File { size: file.size, group: file.group, check, place, envelope };
        self.set(path, Some((meta.clone(), what)), patched)
    }

    fn regroup(&mut self, path: &TreePath, new: u64) -> Result<()> {
        match self.get(path)? {
            Some((meta, What::File { size, group, check, place, envelope })) if group != new => {
                let patched = self.patched.get(&key(path)).cloned();
                self.set(path, Some((meta, What::File { size, group: new, check, place, envelope })), patched)
            }
            _ => Ok(()),
        }
    }

    fn copy(&mut self, from: &TreePath, to: &TreePath) -> Result<()> {
        match self.get(from)? {
            Some(state) => {
                let patched = self.patched.get(&key(from)).cloned();
                self.set(to, Some(state), patched)
            }
            None => Ok(()),
        }
    }

    fn set(&mut self, path: &TreePath, state: Option<(Meta, What)>, patched: Option<Patched>) -> Result<()> {
        let key = key(path);
        let was_in_base = match &self.base {
            Some(base) => base.get(path)?.and_then(|record| record.state),
            None => None,
        };
        let before = match self.over.get(&key) {
            Some(record) => record.state.clone(),
            None => was_in_base.clone(),
        };
        if let Some(watch) = &mut self.watch {
            watch.note(path, &before, state.is_none(), self.patched.get(&key));
        }
        self.counts.change(before.as_ref(), false);
        self.counts.change(state.as_ref(), true);
        match patched {
            Some(patched) => drop(self.patched.insert(key.clone(), patched)),
            None => drop(self.patched.remove(&key)),
        }
        match state == was_in_base && !self.patched.contains_key(&key) {
            true => drop(self.over.remove(&key)),
            false => drop(self.over.insert(key, Record { path: path.clone(), state })),
        }
        Ok(())
    }

    // ---- looking ----

    /// What is at a path.
    ///
    /// # Errors
    /// Where that part of the manifest cannot be read.
    pub fn get(&self, path: &TreePath) -> Result<Option<(Meta, What)>> {
        if let Some(record) = self.over.get(&key(path)) {
            return Ok(record.state.clone());
        }
        match &self.base {
            Some(base) => Ok(base.get(path)?.and_then(|record| record.state)),
            None => Ok(None),
        }
    }

    /// What is at a path and beneath it, a directory before what is in it. An error is of a part of the manifest, and
    /// the rest follows.
    pub fn beneath(&self, path: &TreePath) -> Merged<'_> {
        Merged::new(self.base.as_ref().map(|base| base.beneath(path)), &self.over, key(path))
    }

    /// What is directly in a directory, in the order of keys; what is beneath is passed over, unread as far as it fills
    /// ranges of its own. An error is of a part of the manifest, and the rest follows.
    pub fn children(&self, directory: &TreePath) -> Children<'_> {
        let base = self.base.as_ref().map(|base| base.look(directory));
        Children::new(Merged::new(base, &self.over, key(directory)), directory.clone())
    }

    /// As [`View::get`]. Where the part of the manifest that would tell is damaged, and something is beneath the path,
    /// it is a directory.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn find(&self, path: &TreePath) -> Result<Option<(Meta, What)>> {
        match self.get(path) {
            Err(_) if self.beneath(path).any(|record| record.is_ok()) => Ok(Some(implied())),
            other => other,
        }
    }

    fn paths_beneath(&self, path: &TreePath) -> Result<Vec<TreePath>> {
        self.beneath(path).map(|record| record.map(|record| record.path)).collect()
    }

    /// What changed since the full: a record without a state where something went.
    pub fn changed(&self) -> impl Iterator<Item = &Record> {
        self.over.values()
    }

    /// Whether the content of a file has to be put together out of differences.
    pub fn is_patched(&self, path: &TreePath) -> bool {
        self.patched.contains_key(&key(path))
    }

    /// A file's content that has to be put together out of differences; its digest is right.
    ///
    /// # Errors
    /// Where a part of it cannot be had, or the result is not what it should be.
    pub fn patch(&self, record: &Record) -> std::result::Result<(Vec<u8>, Digest), ContentError> {
        let Some((_, What::File { place, size, .. })) = &record.state else { return Err(ContentError::Nowhere) };
        let Some(patched) = self.patched.get(&key(&record.path)) else { return Err(ContentError::Nowhere) };
        let place = place.ok_or(ContentError::Nowhere)?;
        if *size > PATCHED_MAX {
            return Err(ContentError::Nowhere);
        }
        let (mut bytes, _) = self.contents.bytes(place)?;
        for delta in &patched.deltas {
            let (delta, _) = self.contents.bytes(*delta)?;
            let mut result = Vec::new();
            delta::apply(&bytes.as_slice(), &mut delta.as_slice(), &mut result, PATCHED_MAX)
                .map_err(|_| ContentError::Nowhere)?;
            bytes = result;
        }
        match Digest::of(&bytes) == patched.digest {
            true => Ok((bytes, patched.digest)),
            false => Err(ContentError::Nowhere),
        }
    }
}

/// From the numbers that segments have in a differential to those that they have in a view of it.
///
/// Mending a full adds segments behind those that a differential knows of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Renumbering {
    /// How many segments, at the beginning of the list, are those of the full.
    shared: u32,
    added: u32,
}

impl Renumbering {
    /// Of a differential with this list, and a full with that one.
    pub fn of(differential: &[SegmentRef], full: &[SegmentRef]) -> Self {
        let shared = differential.iter().zip(full).take_while(|(one, other)| one == other).count();
        Self { shared: shared as u32, added: (full.len() - shared) as u32 }
    }

    /// Gives a record's place the number in the view.
    pub fn renumber(self, record: &mut Record) {
        if let Some((_, What::File { place: Some(place), .. })) = &mut record.state
            && place.segment >= self.shared
        {
            place.segment += self.added;
        }
    }
}

/// Each content that begins in a block: the number of its piece, its own number, and its first bytes.
fn beginnings(block: &Block) -> impl Iterator<Item = (u32, u64, &[u8])> {
    let pieces = block.contents().zip(0..).filter(|((piece, _), _)| piece.offset == 0);
    pieces.map(|((piece, bytes), index)| (index, piece.number, bytes))
}

/// The newest point that is wanted.
fn last(repository: &Repository, wanted: impl Fn(&Header) -> bool) -> Result<Option<PointLabel>> {
    for label in repository.labels()?.into_iter().rev() {
        // One that cannot be read is passed over: an older one serves as well, with more of the log.
        let has_full = label.kind() == PointKind::Full || repository.manifest(&label.full_label()).is_ok();
        if has_full && repository.manifest(&label).is_ok_and(|manifest| wanted(manifest.header())) {
            return Ok(Some(label));
        }
    }
    Ok(None)
}

/// How much a point says that it has.
pub fn counts(header: &Header) -> Counts {
    let Header { messages, files, directories, bytes, .. } = *header;
    Counts { messages, files, directories, bytes }
}

impl Counts {
    /// Counts what came, or what went.
    pub fn change(&mut self, state: Option<&(Meta, What)>, plus: bool) {
        let add = |count: &mut u64, by: u64| {
            *count = if plus { count.saturating_add(by) } else { count.saturating_sub(by) };
        };
        match state {
            None | Some((_, What::Symlink(_))) => {}
            Some((_, What::Directory)) => add(&mut self.directories, 1),
            Some((_, What::File { size, envelope, .. })) => {
                add(&mut self.files, 1);
                add(&mut self.messages, envelope.is_some().into());
                add(&mut self.bytes, *size);
            }
        }
    }
}
