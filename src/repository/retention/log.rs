//! Which closed segments may leave the log directory, and why.
//!
//! `--keep-log` is a promise: every moment within that time can be restored. Such a moment is restored from the last
//! point before it and the log in between, so what must stay is not only what is younger than `--keep-log`, but also
//! what lies between the window's beginning and the point before it.
//!
//! A point holds hard links to the segments that it needs itself: leaving the log directory takes nothing from a point.

use crate::id::Position;
use crate::maildir::entry::Time;
use std::fmt;
use std::time::Duration;

/// Further than this after the newest segment the clock is not believed.
const BELIEVED: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A segment that is written no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// The position of its last batch.
    pub last: Position,
    /// The latest moment of any of its batches, by the same clock as `now`. Not always the last one's: clocks go back.
    pub newest: Time,
}

/// What of the log a restore point holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The last batch that it holds.
    pub position: Position,
    /// When it was made.
    pub moment: Time,
}

/// Why a segment stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Stays: some batch of it is no older than `--keep-log`.
    Young,
    /// Stays: an earlier segment does, and a log has no holes.
    Behind,
    /// Stays: a moment within `--keep-log` is restored through it.
    Needed,
    /// Stays: there is no restore point.
    NoPoint,
    /// Stays: the clock stands before the newest segment's moment.
    ClockBehind,
    /// Stays: the clock stands more than a year after the newest segment's moment.
    ClockAhead,
    /// Goes: it is older than `--keep-log`, and no moment within that is restored through it.
    Old,
}

impl Reason {
    /// Whether it is a reason to go.
    pub fn goes(self) -> bool {
        self == Self::Old
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Young => "younger than --keep-log",
            Self::Behind => "an older segment stays",
            Self::Needed => "moments within --keep-log are restored through it",
            Self::NoPoint => "there is no restore point",
            Self::ClockBehind => "the clock stands before the newest segment: is it right?",
            Self::ClockAhead => "the clock stands more than a year after the newest segment: is it right?",
            Self::Old => "older than --keep-log",
        })
    }
}

/// Decides about each of the closed `segments`; the answers are in their order.
///
/// A segment goes where all of this is so:
/// * every batch of it is older than `keep`;
/// * the last point that is that old holds it, and every younger point does: where no point is that old, every point.
///   Points hold by position, not by moment, since a label can be ahead of what its point holds;
/// * every segment before it goes;
/// * the clock can be believed: `now` is not before the newest of `segments`, nor more than a year after it.
///
/// A longer `keep` never lets more go.
pub fn keep_log(segments: &[ClosedSegment], points: &[Reached], keep: Duration, now: Time) -> Vec<Reason> {
    if let Some(doubt) = doubt(segments, now).or_else(|| points.is_empty().then_some(Reason::NoPoint)) {
        return vec![doubt; segments.len()];
    }
    let is_young = |segment: &ClosedSegment| !is_older(segment.newest, keep, now);
    let first_young = segments.iter().filter(|segment| is_young(segment)).map(|segment| segment.last).min();
    let held = held_by_all(points, keep, now);
    let reason = |segment: &ClosedSegment| {
        if is_young(segment) {
            Reason::Young
        } else if held.is_none_or(|held| segment.last > held) {
            Reason::Needed
        } else if first_young.is_some_and(|young| segment.last > young) {
            Reason::Behind
        } else {
            Reason::Old
        }
    };
    segments.iter().map(reason).collect()
}

/// Why the clock is not believed, if it is not. One that was wrong while batches arrived shows here too: nothing leaves
/// until it is looked at.
fn doubt(segments: &[ClosedSegment], now: Time) -> Option<Reason> {
    let newest = segments.iter().map(|segment| segment.newest).max()?;
    if now < newest {
        return Some(Reason::ClockBehind);
    }
    is_older(newest, BELIEVED, now).then_some(Reason::ClockAhead)
}

/// The last position that every point holds from which a moment within `keep` may be restored: those that are younger,
/// and the last one before them.
fn held_by_all(points: &[Reached], keep: Duration, now: Time) -> Option<Position> {
    let old = points.iter().filter(|point| !is_younger(point.moment, keep, now));
    let first = old.map(|point| point.moment).max();
    let in_use = points.iter().filter(|point| first.is_none_or(|first| point.moment >= first));
    in_use.map(|point| point.position).min()
}

/// Whether a moment lies more than `length` before `now`.
fn is_older(moment: Time, length: Duration, now: Time) -> bool {
    moment.until(now) > nanos(length)
}

/// Whether a moment lies less than `length` before `now`.
fn is_younger(moment: Time, length: Duration, now: Time) -> bool {
    moment.until(now) < nanos(length)
}

fn nanos(length: Duration) -> i128 {
    i128::try_from(length.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3600;
    const YEAR: i64 = 365 * 24;

    fn at(hours: i64) -> Time {
        Time { seconds: 1_795_316_400 + hours * HOUR, nanos: 0 }
    }

    fn position(sequence: u64) -> Position {
        Position { epoch: 1, sequence }
    }

    /// A segment for each of the hours in which its newest batch was made.
    fn segments(hours: &[i64]) -> Vec<ClosedSegment> {
        let segment =
            |(sequence, hour): (u64, &i64)| ClosedSegment { last: position(sequence * 10), newest: at(*hour) };
        (1..).zip(hours).map(segment).collect()
    }

    fn point(sequence: u64, hours: i64) -> Reached {
        Reached { position: position(sequence), moment: at(hours) }
    }

    fn decided(hours: &[i64], points: &[Reached], keep: u64, now: i64) -> Vec<Reason> {
        keep_log(&segments(hours), points, Duration::from_secs(keep * 3600), at(now))
    }

    #[test]
    fn what_is_old_and_held_by_a_point_goes() {
        use Reason::{Needed, Old, Young};
        let hours = [1, 2, 3, 4, 5];
        assert_eq!(decided(&hours, &[point(20, 2)], 1, 6), [Old, Old, Needed, Needed, Young]);
        assert_eq!(decided(&hours, &[point(50, 5)], 0, 6), [Old; 5]);
        assert_eq!(decided(&hours, &[point(25, 2)], 0, 6), [Old, Old, Needed, Needed, Needed]);
        assert_eq!(decided(&hours, &[point(50, 5)], 9, 6), [Young; 5]);
    }

    /// Ten hours are kept, and points were made at hours 8 and 16: hour 15 is restored from that of hour 8.
    #[test]
    fn every_moment_within_the_window_can_be_restored() {
        use Reason::{Needed, Old, Young};
        let hours = [6, 8, 10, 12, 14, 16, 18];
        let points = [point(70, 16), point(25, 8)];
        assert_eq!(decided(&hours, &points, 10, 20), [Old, Old, Young, Young, Young, Young, Young]);
        assert_eq!(decided(&hours, &points, 7, 20), [Old, Old, Needed, Needed, Young, Young, Young]);
        assert_eq!(decided(&hours, &points, 4, 20), [Old, Old, Old, Old, Old, Young, Young]);
    }

    #[test]
    fn without_a_point_nothing_goes() {
        assert_eq!(decided(&[1, 2], &[], 0, 6), [Reason::NoPoint; 2]);
        assert_eq!(decided(&[], &[], 0, 6), []);
    }

    #[test]
    fn a_clock_that_jumped_removes_nothing() {
        let points = [point(90, 2)];
        assert_eq!(decided(&[1, 2], &points, 0, 1), [Reason::ClockBehind; 2]);
        assert_eq!(decided(&[1, 2], &points, 0, -10 * YEAR), [Reason::ClockBehind; 2]);
        assert_eq!(decided(&[1, 2], &points, 0, 3 + YEAR), [Reason::ClockAhead; 2]);
        assert_eq!(decided(&[1, 2], &points, 0, 2 + YEAR), [Reason::Old; 2]);
        assert_eq!(decided(&[1, 50 * YEAR], &points, 0, 3), [Reason::ClockBehind; 2]);
    }

    #[test]
    fn a_log_has_no_holes() {
        use Reason::{Behind, Old, Young};
        assert_eq!(decided(&[1, 5, 2, 6], &[point(90, 1)], 2, 6), [Old, Young, Behind, Young]);
    }

    #[test]
    fn reasons_are_short() {
        assert_eq!(Reason::Old.to_string(), "older than --keep-log");
        let doubt = "the clock stands more than a year after the newest segment: is it right?";
        assert_eq!(Reason::ClockAhead.to_string(), doubt);
    }

    /// Clocks that go forth and back, and sometimes far.
    fn some_hour() -> impl Strategy<Value = i64> {
        prop_oneof![20 => 0..60_i64, 1 => -2 * YEAR..2 * YEAR]
    }

    fn some_points() -> impl Strategy<Value = Vec<Reached>> {
        let point = (0..120_u64, some_hour()).prop_map(|(sequence, hour)| point(sequence, hour));
        prop::collection::vec(point, 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn what_goes_is_old_held_and_at_the_beginning(
            hours in prop::collection::vec(some_hour(), 0..10),
            points in some_points(),
            keep in 0..60_u64,
            now in some_hour(),
        ) {
            let segments = segments(&hours);
            let reasons = decided(&hours, &points, keep, now);
            prop_assert_eq!(reasons.len(), segments.len());
            let count = reasons.iter().filter(|reason| reason.goes()).count();
            prop_assert!(reasons.iter().take(count).all(|reason| reason.goes()), "a hole: {:?}", reasons);
            for (segment, hour) in segments.iter().zip(&hours).take(count) {
                prop_assert!(hour + (keep as i64) < now);
                let newest = points.iter().map(|point| point.position).max();
                prop_assert!(newest.is_some_and(|newest| segment.last <= newest));
            }
        }

        /// The promise itself, asked of each hour: where a point was before it, the log from there on is whole.
        #[test]
        fn what_could_be_restored_within_the_window_still_can(
            hours in prop::collection::vec(some_hour(), 0..10),
            points in some_points(),
            keep in 0..60_u64,
            now in some_hour(),
        ) {
            let reasons = decided(&hours, &points, keep, now);
            for wanted in now - (keep as i64)..=now {
                let base = points.iter().filter(|point| point.moment <= at(wanted)).max_by_key(|point| point.moment);
                let Some(base) = base else { continue };
                for (segment, reason) in segments(&hours).iter().zip(&reasons) {
                    prop_assert!(!reason.goes() || segment.last <= base.position, "hour {wanted}: {reasons:?}");
                }
            }
        }

        #[test]
        fn a_longer_window_never_lets_more_go(
            hours in prop::collection::vec(some_hour(), 0..10),
            points in some_points(),
            keep in (0..60_u64, 0..60_u64),
            now in some_hour(),
        ) {
            let shorter = decided(&hours, &points, keep.0.min(keep.1), now);
            let longer = decided(&hours, &points, keep.0.max(keep.1), now);
            prop_assert!(longer.iter().zip(&shorter).all(|(longer, shorter)| !longer.goes() || shorter.goes()));
        }
    }
}
