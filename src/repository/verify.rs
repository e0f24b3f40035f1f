//! Reading a point as a restore would, and comparing: every segment against what it was, every content against its
//! digest. What is found damaged is for `mend` to put right.

use super::cut::check;
use super::label::PointLabel;
use super::layout::{Repository, RepositoryError};
use super::mailbox;
use super::manifest::SegmentRef;
use super::record::{Place, Record, What};
use super::view::{At, View};
use crate::path::TreePath;
use std::collections::BTreeSet;

type Result<T> = std::result::Result<T, RepositoryError>;

/// Which part of the contents is read: the `number`-th of `parts`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which.
    pub number: u64,
    /// Of how many.
    pub parts: u64,
}

/// What was found of one point.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Contents that were read and are right.
    pub contents: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What is wrong, by segment or manifest.
    pub damage: Vec<String>,
    /// The files that cannot be restored as they were.
    pub hit: Vec<TreePath>,
    /// The mailboxes that these are in.
    pub mailboxes: Vec<TreePath>,
    /// Contents that are not right.
    pub bad: BTreeSet<Wanted>,
    /// Segments that are not what they were, by their number in the view.
    pub broken: BTreeSet<u32>,
    /// The same, as manifests name them.
    pub segments: Vec<SegmentRef>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.hit.is_empty()
    }
}

/// A content of a point: where it begins, its length, and the first bytes of its digest.
pub type Wanted = (Place, u64, [u8; 8]);

/// Reads a point. Contents that many files share are read once, each segment in order. A segment in which nothing lies
/// that the point needs is not looked at.
///
/// # Errors
/// Where there is no such point, or its manifest cannot be opened.
pub fn run(repository: &Repository, label: &PointLabel, sample: Option<Sample>) -> Result<Report> {
    let view = View::open(repository, &At::Point(*label))?;
    let mut report = Report::default();
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut used = BTreeSet::new();
    for record in view.beneath(&TreePath::root()) {
        match record {
            Ok(record) => {
                let content = content(&record);
                used.extend(content.map(|(place, ..)| place.segment));
                wanted.extend(content.filter(|wanted| is_sampled(wanted, sample)));
            }
            Err(error) => report.damage.push(error.to_string()),
        }
    }
    segments(repository, &view, &used, sample, &mut report);
    wanted.sort_unstable();
    wanted.dedup();
    for wanted in wanted {
        match right(&view, wanted) {
            Ok(()) => {
                report.contents += 1;
                report.bytes += wanted.1;
            }
            Err(what) => {
                if report.damage.last() != Some(&what) {
                    report.damage.push(what);
                }
                report.bad.insert(wanted);
                report.broken.insert(wanted.0.segment);
            }
        }
    }
    for record in view.beneath(&TreePath::root()).flatten() {
        let is_hit = match &record.state {
            Some((_, What::File { place: None, .. })) => true,
            _ => content(&record).is_some_and(|wanted| report.bad.contains(&wanted)),
        };
        if is_hit {
            report.hit.push(record.path);
        }
    }
    if !report.hit.is_empty() {
        report.mailboxes = mailbox::all(&view).0;
        report.mailboxes.retain(|mailbox| report.hit.iter().any(|path| path.is_within(mailbox)));
    }
    report.segments = report.broken.iter().filter_map(|index| view.segments.get(*index as usize)).copied().collect();
    Ok(report)
}

/// The other points that need one of these segments.
///
/// # Errors
/// Where the disk refuses. Points that cannot be read are in no list.
pub fn sharing(repository: &Repository, segments: &[SegmentRef]) -> Result<Vec<PointLabel>> {
    let needs = |label: &PointLabel| {
        let manifest = repository.manifest(label);
        manifest.is_ok_and(|manifest| manifest.header().segments.iter().any(|segment| segments.contains(segment)))
    };
    Ok(repository.labels()?.into_iter().filter(needs).collect())
}

fn segments(repository: &Repository, view: &View, used: &BTreeSet<u32>, sample: Option<Sample>, report: &mut Report) {
    for (segment, index) in view.segments.iter().zip(0_u32..) {
        let is_left_out =
            sample.is_some_and(|sample| u64::from(index) % sample.parts.max(1) != sample.number.saturating_sub(1));
        if is_left_out || !used.contains(&index) {
            continue;
        }
        let checked = view.place(repository, index).and_then(|(root, path)| {
            let file = root.open_file(&path)?;
            check(&root.show(&path), segment, &file)
        });
        if let Err(error) = checked {
            report.damage.push(error.to_string());
            report.broken.insert(index);
        }
    }
}

/// The content of a record.
pub(super) fn content(record: &Record) -> Option<Wanted> {
    match &record.state {
        Some((_, What::File { place: Some(place), size, check, .. })) => Some((*place, *size, *check)),
        _ => None,
    }
}

fn is_sampled((place, ..): &Wanted, sample: Option<Sample>) -> bool {
    // Whole blocks: one that is read is decoded once.
    sample.is_none_or(|sample| {
        let spread = (place.offset ^ u64::from(place.segment)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread % sample.parts.max(1) == sample.number.saturating_sub(1)
    })
}

/// Reads a content and tells what is wrong with it.
pub(super) fn right(view: &View, (place, size, check): Wanted) -> std::result::Result<(), String> {
    let mut length = 0;
    let read = view.contents.read(place, |_, bytes| {
        length += bytes.len() as u64;
        Ok::<_, super::contents::ContentError>(())
    });
    match read {
        Ok(digest) if digest.0[..8] == check && length == size => Ok(()),
        Ok(_) => Err(format!("segment {} has another content at byte {}", place.segment, place.offset)),
        Err(error) => Err(error.to_string()),
    }
}
