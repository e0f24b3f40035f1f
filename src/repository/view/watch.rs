//! Following the log, and telling what happens to messages meanwhile.

use super::{Patched, Result, View};
use crate::id::Position;
use crate::maildir::entry::Time;
use crate::path::TreePath;
use crate::repository::event::{self, Happened, Sources, State};
use crate::repository::layout::Repository;
use crate::repository::manifest::key;
use crate::repository::record::{Record, What};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// Which part of the log is followed, and told of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Told is what comes behind the first batch that is later than this; `None`: all.
    pub since: Option<Time>,
    /// Followed is up to the last batch that is not after this.
    pub until: Option<Time>,
    /// Followed is up to this segment.
    pub through: Option<u64>,
}

/// What was noted of the batch that is being replayed.
#[derive(Default)]
pub(super) struct Watch {
    since: Option<Time>,
    is_on: bool,
    pub(super) segment: u64,
    /// What stood at each touched path before the batch.
    before: BTreeMap<TreePath, State>,
    sources: Sources,
    happened: Vec<Happened>,
    /// What keywords meant in a folder, where the batch touched that.
    keywords: BTreeMap<TreePath, Kept>,
    /// Directories that went, as they last were; and what keywords meant in a folder when a message went from there.
    lost: BTreeMap<Vec<u8>, Kept>,
}

/// A record, and the differences that its content is made of.
type Kept = (Record, Option<Patched>);

impl Watch {
    pub(super) fn begin(&mut self, moment: Option<Time>) {
        self.is_on = self.is_on || self.since.is_none_or(|since| moment.is_some_and(|moment| moment > since));
    }

    pub(super) fn note(&mut self, path: &TreePath, before: &State, goes: bool, patched: Option<&Patched>) {
        if !self.is_on {
            return;
        }
        let kept = || (Record { path: path.clone(), state: before.clone() }, patched.cloned());
        if event::can_be_message(path) {
            self.before.entry(path.clone()).or_insert_with(|| before.clone());
        } else if path.name() == KEYWORDS.as_bytes() {
            self.keywords.entry(path.clone()).or_insert_with(kept);
        } else if goes && matches!(before, Some((_, What::Directory))) {
            self.lost.insert(key(path), kept());
        }
    }

    /// A name comes from another one.
    pub(super) fn source(&mut self, path: &TreePath, from: &TreePath, with_directory: bool) {
        if self.is_on && event::can_be_message(path) {
            self.sources.insert(path.clone(), (from.clone(), with_directory));
        }
    }
}

/// Tells what the letters among the flags of a folder's messages mean.
const KEYWORDS: &str = "dovecot-keywords";

impl View {
    /// Brings the view forward by the log, and tells what happened to messages. What was noted of directories that went
    /// stays, for [`View::of_graves`].
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn watch(&mut self, repository: &Repository, span: Span, mut tell: impl FnMut(Happened)) -> Result<()> {
        let lost = self.watch.take().map(|watch| watch.lost).unwrap_or_default();
        self.watch = Some(Watch { since: span.since, lost, ..Watch::default() });
        self.follow(repository, span.until, span.through, |view| {
            if let Some(watch) = &mut view.watch {
                std::mem::take(&mut watch.happened).into_iter().for_each(&mut tell);
            }
        })
    }

    /// A batch has been replayed: tells of it.
    pub(super) fn watched(&mut self, position: Option<Position>) -> Result<()> {
        let Some(mut watch) = self.watch.take() else { return Ok(()) };
        let before = std::mem::take(&mut watch.before);
        let mut touched = Vec::with_capacity(before.len());
        for (path, before) in before {
            let after = self.get(&path)?;
            touched.push((path, before, after));
        }
        let (sources, mut keywords) = (std::mem::take(&mut watch.sources), std::mem::take(&mut watch.keywords));
        let moment = self.moment;
        for (event, record) in event::events(touched, &sources) {
            if event == event::Event::Removed {
                let path = event::folder_of(&record.path).child(KEYWORDS);
                let meant = match keywords.entry(path.clone()) {
                    Entry::Occupied(meant) => meant.into_mut(),
                    Entry::Vacant(vacant) => vacant.insert(self.kept(path)?),
                };
                if meant.0.state.is_some() {
                    watch.lost.insert(key(&meant.0.path), meant.clone());
                }
            }
            watch.happened.push(Happened { event, record, moment, position, segment: watch.segment });
        }
        self.watch = Some(watch);
        Ok(())
    }

    fn kept(&self, path: TreePath) -> Result<Kept> {
        let (state, patched) = (self.get(&path)?, self.patched.get(&key(&path)).cloned());
        Ok((Record { path, state }, patched))
    }

    /// Takes over a record of another view, so that its content is found in this one.
    ///
    /// # Errors
    /// Where a segment of the other view is not to be found.
    pub fn adopt(&mut self, repository: &Repository, other: &View, mut record: Record) -> Result<Record> {
        if let Some((_, What::File { place: Some(place), .. })) = &mut record.state {
            place.segment = self.adopted(repository, other, place.segment)?;
        }
        Ok(record)
    }

    fn adopted(&mut self, repository: &Repository, other: &View, index: u32) -> Result<u32> {
        let (root, path) = other.place(repository, index)?;
        let segment = other.segments.get(index as usize).copied();
        let origin = other.origins.get(index as usize).copied().flatten();
        let (Some(segment), Some(label)) = (segment, origin) else { return Ok(index) };
        let is_same = |at: &usize| self.segments.get(*at) == Some(&segment);
        if let Some(at) = (0..self.segments.len()).find(is_same) {
            return Ok(at as u32);
        }
        self.segments.push(segment);
        self.origins.push(Some(label));
        Ok(self.contents.add(root, &path))
    }

    /// Notes of another view, in which a message was that went, how the directories above it were.
    ///
    /// # Errors
    /// Where the other view, or this one, cannot be read.
    pub fn remember(&mut self, repository: &Repository, other: &View, message: &TreePath) -> Result<()> {
        for path in needed_of(message) {
            let is_known = |watch: &Watch| watch.lost.contains_key(&key(&path)) && path.name() != KEYWORDS.as_bytes();
            if self.watch.as_ref().is_some_and(is_known) {
                continue;
            }
            if let Some(state) = other.get(&path)? {
                let record = self.adopt(repository, other, Record { path: path.clone(), state: Some(state) })?;
                self.watch.get_or_insert_default().lost.insert(key(&path), (record, None));
            }
        }
        Ok(())
    }

    /// A set of nothing but these messages, which went and lie in segments of this view, and of what their folders need,
    /// as it is or last was.
    ///
    /// # Errors
    /// Where this view cannot be read.
    pub fn of_graves(mut self, graves: Vec<Record>) -> Result<Self> {
        let lost = self.watch.take().map(|watch| watch.lost).unwrap_or_default();
        let mut over: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
        let mut patched = HashMap::new();
        for path in graves.iter().flat_map(|record| needed_of(&record.path)) {
            let key = key(&path);
            if over.contains_key(&key) {
                continue;
            }
            // Letters mean what they meant when the message went; directories are as they are now.
            let lost = lost.get(&key).cloned();
            let is_then = path.name() == KEYWORDS.as_bytes() && lost.is_some();
            let now = if is_then { None } else { Some(self.kept(path)?).filter(|now| now.0.state.is_some()) };
            let Some((record, differences)) = now.or(lost) else { continue };
            patched.extend(differences.map(|differences| (key.clone(), differences)));
            over.insert(key, record);
        }
        over.extend(regrouped(graves).into_iter().map(|record| (key(&record.path), record)));
        self.counts = super::Counts::default();
        over.values().for_each(|record| self.counts.change(record.state.as_ref(), true));
        Ok(Self { base: None, over, patched, ..self })
    }
}

/// What a message needs to come back: the directories above it, those beside it, and what its keywords mean.
fn needed_of(message: &TreePath) -> Vec<TreePath> {
    let folder = event::folder_of(message);
    let mut needed: Vec<TreePath> = crate::maildir::folder::PARTS.map(|part| folder.child(part)).into();
    needed.push(folder.child(KEYWORDS));
    let mut above = Some(folder);
    while let Some(path) = above {
        above = path.split().map(|(parent, _)| parent);
        needed.push(path);
    }
    needed
}

/// Hard links stay so where their contents are the same: a group's number may have meant other files at another time.
fn regrouped(mut graves: Vec<Record>) -> Vec<Record> {
    let mut numbers: HashMap<(u64, u64, [u8; 8]), u64> = HashMap::new();
    for record in &mut graves {
        if let Some((_, What::File { group, size, check, .. })) = &mut record.state
            && *group != 0
        {
            let next = numbers.len() as u64 + 1;
            *group = *numbers.entry((*group, *size, *check)).or_insert(next);
        }
    }
    graves
}
