//! Which restore points stay and which go, and why.
//!
//! Pure: a decision is a value, `--dry-run` prints it, and whoever removes does what it says. The rules are
//! pgBackRest's (`repo-retention-full`, `repo-retention-diff`), and above them three that no policy can weaken: a pinned
//! point stays, the full that it needs stays, and the newest verified full stays.
//!
//! `log` decides the same of the log's segments.

pub mod log;

use super::label::{PointKind, PointLabel};
use crate::maildir::entry::Time;
use std::collections::BTreeSet;
use std::fmt;

/// What is to be known of a restore point to decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its label, unique in the repository; tells its kind.
    pub label: PointLabel,
    /// Somebody said that it stays.
    pub pinned: bool,
    /// When all of it was last read and found to be good.
    pub verified: Option<Time>,
}

/// How many points are kept. `None` sets no limit; 0 leaves only what no policy takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest so many fulls, each with its differentials.
    pub keep_full: Option<u32>,
    /// The newest so many differentials, whichever full they need.
    pub keep_diff: Option<u32>,
}

/// Why a point stays or goes. Where the policy keeps a point anyway, that is the reason; an exception is named only
/// where it saves the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Stays: no limit is set for its kind.
    NoLimit,
    /// Stays: it is among the newest of its kind.
    Within(PointKind, u32),
    /// Stays: it is pinned.
    Pinned,
    /// Stays: this pinned differential needs it.
    NeededBy(PointLabel),
    /// Stays: no younger full was verified.
    NewestVerified,
    /// Stays: no full was ever verified, and this is the newest.
    NewestFull,
    /// Stays: its full is not among the points, and why is not known. It counts for no limit.
    FullMissing,
    /// Goes: there are enough younger ones of its kind.
    Beyond(PointKind, u32),
    /// Goes: its full is older than those that are kept with their differentials.
    FullBeyond(u32),
}

impl Reason {
    /// Whether it is a reason to go.
    pub fn goes(self) -> bool {
        matches!(self, Self::Beyond(..) | Self::FullBeyond(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLimit => f.write_str("no limit is set"),
            Self::Within(kind, keep) => write!(f, "within {} {keep}", option(*kind)),
            Self::Pinned => f.write_str("pinned"),
            Self::NeededBy(label) => write!(f, "the pinned {label} needs it"),
            Self::NewestVerified => f.write_str("the newest verified full"),
            Self::NewestFull => f.write_str("the newest full, and none was verified"),
            Self::FullMissing => f.write_str("its full is missing"),
            Self::Beyond(kind, keep) => write!(f, "beyond {} {keep}", option(*kind)),
            Self::FullBeyond(keep) => write!(f, "its full is beyond {} {keep}", option(PointKind::Full)),
        }
    }
}

/// The option that limits points of this kind.
fn option(kind: PointKind) -> &'static str {
    match kind {
        PointKind::Full => "--keep-full",
        PointKind::Differential => "--keep-diff",
    }
}

/// What becomes of one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The point.
    pub label: PointLabel,
    /// Why it stays or goes.
    pub reason: Reason,
}

/// Decides about every point of a repository; oldest first, whatever the order of `points`.
///
/// * The newest `keep_full` fulls stay. An older full goes, and its differentials with it.
/// * The newest `keep_diff` differentials of all stay, where their fulls do not go. Those whose full goes count too:
///   otherwise a larger `keep_full` could remove a differential.
/// * What is pinned stays, as does the full that a pinned differential needs, and the newest full that was verified
///   (the newest of all where none was). This saves that point alone: the differentials of a full that stays for such
///   a reason go as if it went.
///
/// Deciding again about what stays removes nothing more.
pub fn decide(points: &[Point], policy: Policy) -> Vec<Decision> {
    let rules = Rules::new(points, policy);
    let decision = |point: &Point| Decision { label: point.label, reason: rules.reason(point) };
    let mut decisions: Vec<Decision> = points.iter().map(decision).collect();
    decisions.sort_by_key(|decision| decision.label);
    decisions
}

/// What goes, in the order in which it can be removed: newest first, so that at no moment a differential is without its
/// full.
pub fn going(decisions: &[Decision]) -> Vec<PointLabel> {
    let goes = decisions.iter().filter(|decision| decision.reason.goes());
    let mut labels: Vec<PointLabel> = goes.map(|decision| decision.label).collect();
    labels.sort();
    labels.reverse();
    labels
}

/// What the reasons are drawn from, gathered once.
struct Rules {
    policy: Policy,
    fulls: BTreeSet<PointLabel>,
    /// The fulls that `keep_full` keeps.
    full_within: BTreeSet<PointLabel>,
    /// The differentials that `keep_diff` keeps.
    diff_within: BTreeSet<PointLabel>,
    pinned_diffs: BTreeSet<PointLabel>,
    newest_verified: Option<PointLabel>,
}

impl Rules {
    fn new(points: &[Point], policy: Policy) -> Self {
        let of_kind = |kind| points.iter().filter(move |point| point.label.kind() == kind);
        let fulls: BTreeSet<_> = of_kind(PointKind::Full).map(|point| point.label).collect();
        let diffs: BTreeSet<_> = of_kind(PointKind::Differential).map(|point| point.label).collect();
        let whole = diffs.into_iter().filter(|label| fulls.contains(&label.full_label())).collect();
        let pinned = of_kind(PointKind::Differential).filter(|point| point.pinned);
        let verified = of_kind(PointKind::Full).filter(|point| point.verified.is_some());
        Self {
            policy,
            full_within: newest(&fulls, policy.keep_full),
            diff_within: newest(&whole, policy.keep_diff),
            pinned_diffs: pinned.map(|point| point.label).collect(),
            newest_verified: verified.map(|point| point.label).max(),
            fulls,
        }
    }

    fn reason(&self, point: &Point) -> Reason {
        let by_policy = match point.label.kind() {
            PointKind::Full => self.full_by_policy(point.label),
            PointKind::Differential => self.differential_by_policy(point.label),
        };
        if !by_policy.goes() {
            return by_policy;
        }
        self.exception(point).unwrap_or(by_policy)
    }

    fn full_by_policy(&self, label: PointLabel) -> Reason {
        match self.policy.keep_full {
            None => Reason::NoLimit,
            Some(keep) if self.full_within.contains(&label) => Reason::Within(PointKind::Full, keep),
            Some(keep) => Reason::Beyond(PointKind::Full, keep),
        }
    }

    fn differential_by_policy(&self, label: PointLabel) -> Reason {
        let full = label.full_label();
        if !self.fulls.contains(&full) {
            return Reason::FullMissing;
        }
        match (self.full_by_policy(full), self.policy.keep_diff) {
            (Reason::Beyond(_, keep), _) => Reason::FullBeyond(keep),
            (_, None) => Reason::NoLimit,
            (_, Some(keep)) if self.diff_within.contains(&label) => Reason::Within(PointKind::Differential, keep),
            (_, Some(keep)) => Reason::Beyond(PointKind::Differential, keep),
        }
    }

    /// Why a point stays that the policy would let go.
    fn exception(&self, point: &Point) -> Option<Reason> {
        let label = point.label;
        if point.pinned {
            return Some(Reason::Pinned);
        }
        if let Some(needs) = self.pinned_diffs.iter().find(|needs| needs.full_label() == label) {
            return Some(Reason::NeededBy(*needs));
        }
        match self.newest_verified {
            Some(verified) => (verified == label).then_some(Reason::NewestVerified),
            None => (self.fulls.last() == Some(&label)).then_some(Reason::NewestFull),
        }
    }
}

/// The newest `keep` labels; all without a limit.
fn newest(labels: &BTreeSet<PointLabel>, keep: Option<u32>) -> BTreeSet<PointLabel> {
    let keep = keep.map_or(usize::MAX, |keep| usize::try_from(keep).unwrap_or(usize::MAX));
    labels.iter().rev().take(keep).copied().collect()
}

#[cfg(test)]
mod tests;
