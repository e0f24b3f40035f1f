//! Cutting a restore point out of a view: at one position of the log, without a look at any tree.

use super::label::{PointKind, PointLabel};
use super::layout::{Making, Repository, RepositoryError};
use super::manifest::{Header, SegmentRef, Writer};
use super::own::{OwnSegment, Ticket};
use super::record::{Place, Record, What};
use super::view::{Counts, View};
use crate::id::{Digest, Epoch, Position, SetId};
use crate::log::history::History;
use crate::log::segment::chain_of;
use crate::maildir::entry::Time;
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Result<T> = std::result::Result<T, RepositoryError>;

/// What a point's header says beside its label and segments.
pub struct Stand {
    /// The set.
    pub set: SetId,
    /// The epoch of the position.
    pub epoch: Epoch,
    /// The last batch in it.
    pub position: Position,
    /// How much there is.
    pub counts: Counts,
    /// The last segment of the log that it has seen.
    pub reached: u64,
    /// When it is made, exactly; its label has whole seconds.
    pub moment: Time,
}

impl Stand {
    /// The header of a point.
    pub fn header(&self, label: &PointLabel, segments: Vec<SegmentRef>) -> Header {
        let Counts { messages, files, directories, bytes } = self.counts;
        Header {
            label: label.to_string(),
            full: (label.kind() == PointKind::Differential).then(|| label.full_label().to_string()),
            set: self.set,
            epoch: self.epoch,
            position: self.position,
            moment: self.moment,
            messages,
            files,
            directories,
            bytes,
            segments,
            reached: self.reached,
            ..Header::default()
        }
    }
}

/// The label of the point that is made now: the next second that is free.
///
/// # Errors
/// Where the clock shows a time that has no label.
pub fn label(repository: &Repository, full: Option<&PointLabel>, now: Time) -> Result<PointLabel> {
    let newest = repository.labels()?.last().map(PointLabel::after);
    let moment = newest.map_or(now, |free| now.max(free));
    let failed = |error: super::label::LabelError| RepositoryError::Failed(error.to_string());
    match full {
        Some(full) => full.differential(moment).map_err(failed),
        None => PointLabel::full(moment).map_err(failed),
    }
}

/// Cuts a point. What could not be put into it is in the list that comes with its header.
///
/// # Errors
/// Where the disk refuses, or the view cannot be read; there is no point then.
pub fn cut(repository: &Repository, view: &View, label: &PointLabel, now: Time) -> Result<(Header, Vec<String>)> {
    let making = repository.begin(label)?;
    let mut problems = Vec::new();
    let sparse = match label.kind() {
        PointKind::Full => sparse(view)?,
        PointKind::Differential => BTreeSet::new(),
    };
    let patched = put_together(view, &sparse, &making, &mut problems)?;
    let used = used(view, label.kind(), &patched)?;
    let kept = match label.kind() {
        // Its own list begins with that of its full, so that places there are places here.
        PointKind::Differential => view.of_base(),
        PointKind::Full => 0,
    };
    let mut numbers: BTreeMap<u32, u32> = (0..kept as u32).map(|index| (index, index)).collect();
    let mut segments: Vec<SegmentRef> = view.segments.iter().take(kept).copied().collect();
    for index in used.into_iter().filter(|index| *index as usize >= kept) {
        let Some(segment) = view.segments.get(index as usize) else { continue };
        let (root, path) = view.place(repository, index)?;
        if label.kind() == PointKind::Full {
            check(&root.show(&path), segment, &root.open_file(&path)?)?;
        }
        making.link(root, &path, segment.number)?;
        numbers.insert(index, segments.len() as u32);
        segments.push(*segment);
    }
    let own = segments.len() as u32;
    segments.extend(patched.segment);
    let mut writer = Writer::new(making.manifest()?);
    let mut write = |record: &Record| -> Result<()> {
        let mut record = record.clone();
        if let Some((_, What::File { place, .. })) = &mut record.state {
            *place = match patched.places.get(record.path.as_bytes()) {
                Some((offset, piece)) => Some(Place { segment: own, offset: *offset, piece: *piece }),
                None => place.and_then(|place| Some(Place { segment: *numbers.get(&place.segment)?, ..place })),
            };
        }
        Ok(writer.push(&record)?)
    };
    match label.kind() {
        PointKind::Full => view.beneath(&crate::path::TreePath::root()).try_for_each(|record| write(&record?))?,
        PointKind::Differential => view.changed().try_for_each(write)?,
    }
    let stand = Stand {
        set: view.set,
        epoch: view.epoch,
        position: view.position,
        counts: view.counts,
        reached: view.reached,
        // Where the clock went back it is not before what is in it.
        moment: now.max(view.moment),
    };
    let header = stand.header(label, segments);
    writer.finish(header.clone())?;
    making.finish()?;
    Ok((header, problems))
}

/// Reads a segment to where a point needs it, every check, and compares it with what it was.
///
/// # Errors
/// Where it is damaged, or another one.
pub fn check(shown: &str, segment: &SegmentRef, file: &std::fs::File) -> Result<()> {
    let failed = |what: String| RepositoryError::Failed(format!("{shown} {what}"));
    match chain_of(file, segment.length) {
        Ok(chain) if chain == segment.chain => Ok(()),
        Ok(_) => Err(failed("is not the segment that the point was made with".to_owned())),
        Err(error) => Err(failed(format!("is damaged: {error}"))),
    }
}

/// A full leaves a segment behind when less than this part of it, in bytes of contents to bytes on disk, is alive.
const SPARSE: u64 = 4;

/// Contents longer than this stay where they are.
const MOVED_MAX: u64 = 64 << 20;

/// The segments of which little is alive: a full has those contents written again, so that the rest can go.
fn sparse(view: &View) -> Result<BTreeSet<u32>> {
    let mut alive = vec![0_u64; view.segments.len()];
    let mut kept = BTreeSet::new();
    for record in view.beneath(&crate::path::TreePath::root()) {
        if let Some((_, What::File { place: Some(place), size, .. })) = &record?.state {
            if let Some(alive) = alive.get_mut(place.segment as usize) {
                *alive += size;
            }
            if *size > MOVED_MAX {
                kept.insert(place.segment);
            }
        }
    }
    let is_sparse = |(index, segment): &(u32, &SegmentRef)| {
        let alive = alive.get(*index as usize).copied().unwrap_or_default();
        alive > 0 && alive.saturating_mul(SPARSE) < segment.length && !kept.contains(index)
    };
    Ok((0..).zip(&view.segments).filter(is_sparse).map(|(index, _)| index).collect())
}

/// The segments that contents of the point lie in.
fn used(view: &View, kind: PointKind, moved: &PutTogether) -> Result<BTreeSet<u32>> {
    let mut used = BTreeSet::new();
    let mut note = |record: &Record| {
        if let Some((_, What::File { place: Some(place), .. })) = &record.state
            && !moved.places.contains_key(record.path.as_bytes())
        {
            used.insert(place.segment);
        }
    };
    match kind {
        PointKind::Full => {
            for record in view.beneath(&crate::path::TreePath::root()) {
                note(&record?);
            }
        }
        PointKind::Differential => view.changed().for_each(note),
    }
    Ok(used)
}

/// Contents that were differences, whole, and those of segments that are left behind: where they are in the point's own
/// segment.
#[derive(Default)]
struct PutTogether {
    places: HashMap<Vec<u8>, (u64, u32)>,
    segment: Option<SegmentRef>,
}

fn put_together(
    view: &View,
    sparse: &BTreeSet<u32>,
    making: &Making<'_>,
    problems: &mut Vec<String>,
) -> Result<PutTogether> {
    let mut tickets: Vec<(Vec<u8>, Ticket)> = Vec::new();
    let mut own: Option<OwnSegment> = None;
    let mut put = |record: &Record, bytes: &[u8], digest: Digest| -> Result<()> {
        let segment = match &mut own {
            Some(segment) => segment,
            none => none.insert(OwnSegment::create(making)?),
        };
        tickets.push((record.path.as_bytes().to_vec(), segment.put(bytes, digest)?));
        Ok(())
    };
    for record in view.changed().filter(|record| record.state.is_some() && view.is_patched(&record.path)) {
        match view.patch(record) {
            Ok((bytes, digest)) => put(record, &bytes, digest)?,
            Err(error) => problems.push(format!("{}: {error}", record.path)),
        }
    }
    for record in view.beneath(&crate::path::TreePath::root()).filter(|_| !sparse.is_empty()) {
        let record = record?;
        if let Some((_, What::File { place: Some(place), .. })) = &record.state
            && sparse.contains(&place.segment)
            && !view.is_patched(&record.path)
            // One that is damaged stays where it is, and is named when its segment is checked.
            && let Ok((bytes, digest)) = view.contents.bytes(*place)
        {
            put(&record, &bytes, digest)?;
        }
    }
    let Some(own) = own else { return Ok(PutTogether::default()) };
    let (segment, places) = own.finish()?;
    let places = tickets.into_iter().filter_map(|(path, ticket)| Some((path, *places.get(ticket)?))).collect();
    Ok(PutTogether { places, segment: Some(segment) })
}

/// Where a segment of the log is linked from.
pub(super) fn in_log(repository: &Repository, number: u64) -> Result<(&crate::disk::Root, crate::path::TreePath)> {
    match &repository.history {
        Some(history) => Ok((history.root(), History::path(number))),
        None => Err(RepositoryError::Failed("the standby has no log".to_owned())),
    }
}
