//! What a slave keeps of a set, in figures: restore points, when they were last verified and tried, and how full the disk is.

use crate::config::file::Set;
use crate::disk::{Fullness, Root};
use crate::repository::layout::{Drilled, Point, Repository};
use serde_json::json;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// How many restore points there are.
    pub points: usize,
    /// When the first was made, in seconds since 1970.
    pub first: Option<i64>,
    /// The label of the newest, and when it was made.
    pub last: Option<(String, i64)>,
    /// When one was last found whole.
    pub verified: Option<i64>,
    /// The last drill.
    pub drilled: Option<Drilled>,
    /// What is wrong with points that cannot be read.
    pub wrong: Vec<String>,
    /// The fuller of the file systems of mirror and state.
    pub disk: Fullness,
}

/// Looks at what is kept of a set on this host.
///
/// # Errors
/// A sentence where it cannot be looked at.
pub fn look(set: &Set) -> Result<Kept, String> {
    let repository = Repository::open(&set.path, set.state.as_deref()).map_err(|error| error.to_string())?;
    let (points, wrong) = repository.points().map_err(|error| error.to_string())?;
    let fullness = |root: &Root| root.fullness().map_err(|error| error.to_string());
    let state = fullness(&repository.state)?;
    let mirror = Root::open(&set.path).map_err(|error| error.to_string()).and_then(|root| fullness(&root))?;
    let wrong = wrong.iter().map(ToString::to_string).collect();
    Ok(Kept { wrong, disk: fuller(state, mirror), ..of(&points) })
}

fn fuller(one: Fullness, other: Fullness) -> Fullness {
    Fullness { bytes: one.bytes.max(other.bytes), inodes: one.inodes.max(other.inodes) }
}

fn of(points: &[Point]) -> Kept {
    let moment = |point: &Point| point.header.moment.seconds;
    let newest = points.iter().max_by_key(|point| point.header.moment);
    let drills = points.iter().filter_map(|point| point.about.drilled.as_ref());
    Kept {
        points: points.len(),
        first: points.iter().map(moment).min(),
        last: newest.map(|point| (point.label.to_string(), moment(point))),
        verified: points.iter().filter_map(|point| point.about.verified).map(|time| time.seconds).max(),
        drilled: drills.max_by_key(|drilled| drilled.when).cloned(),
        ..Kept::default()
    }
}

impl Kept {
    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        let drilled = self.drilled.as_ref();
        json!({
            "count": self.points,
            "first": self.first,
            "last": self.last.as_ref().map(|(_, moment)| moment),
            "last_label": self.last.as_ref().map(|(label, _)| label),
            "verified": self.verified,
            "drilled": drilled.map(|drilled| drilled.when.seconds),
            "drill_was_whole": drilled.map(|drilled| drilled.is_whole),
            "wrong": self.wrong,
            "disk_percent": self.disk.bytes,
            "inodes_percent": self.disk.inodes,
        })
    }
}
