//! Reading a point as a restore would, and comparing: every segment against what it was, every content against its
//! digest.

use super::cut::check;
use super::label::PointLabel;
use super::layout::{Repository, RepositoryError};
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
}

/// A content of a point: where it begins, and what it must be.
type Wanted = (Place, u64, [u8; 8]);

/// Reads a point. Contents that many files share are read once, each segment in order.
///
/// # Errors
/// Where there is no such point, or its manifest cannot be opened.
pub fn run(repository: &Repository, label: &PointLabel, sample: Option<Sample>) -> Result<Report> {
    let view = View::open(repository, &At::Point(*label))?;
    let mut report = Report::default();
    segments(repository, &view, sample, &mut report);
    let mut wanted: Vec<Wanted> = Vec::new();
    for record in view.beneath(&TreePath::root()) {
        match record {
            Ok(record) => wanted.extend(content(&record).filter(|wanted| is_sampled(wanted, sample))),
            Err(error) => report.damage.push(error.to_string()),
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    let mut bad: BTreeSet<Place> = BTreeSet::new();
    for (place, size, digest) in wanted {
        match right(&view, place, size, digest) {
            Ok(()) => {
                report.contents += 1;
                report.bytes += size;
            }
            Err(what) => {
                if report.damage.last() != Some(&what) {
                    report.damage.push(what);
                }
                bad.insert(place);
            }
        }
    }
    for record in view.beneath(&TreePath::root()).flatten() {
        let is_hit = match &record.state {
            Some((_, What::File { place: Some(place), .. })) => bad.contains(place),
            Some((_, What::File { place: None, .. })) => true,
            _ => false,
        };
        if is_hit {
            report.hit.push(record.path);
        }
    }
    Ok(report)
}

fn segments(repository: &Repository, view: &View, sample: Option<Sample>, report: &mut Report) {
    for (segment, index) in view.segments.iter().zip(0_u32..) {
        if sample.is_some_and(|sample| u64::from(index) % sample.parts.max(1) != sample.number - 1) {
            continue;
        }
        let checked = view.place(repository, index).and_then(|(root, path)| {
            let file = root.open_file(&path)?;
            check(&root.show(&path), segment, &file)
        });
        if let Err(error) = checked {
            report.damage.push(error.to_string());
        }
    }
}

fn content(record: &Record) -> Option<Wanted> {
    match &record.state {
        Some((_, What::File { place: Some(place), size, check, .. })) => Some((*place, *size, *check)),
        _ => None,
    }
}

fn is_sampled((place, ..): &Wanted, sample: Option<Sample>) -> bool {
    // Whole blocks: one that is read is decoded once.
    sample.is_none_or(|sample| {
        let spread = (place.offset ^ u64::from(place.segment)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread % sample.parts.max(1) == sample.number - 1
    })
}

fn right(view: &View, place: Place, size: u64, check: [u8; 8]) -> std::result::Result<(), String> {
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
