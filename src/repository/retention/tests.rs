//! The rules of retention: as a table, and as laws that hold for any points.

use super::*;
use proptest::prelude::*;

const VERIFIED: Option<Time> = Some(Time { seconds: 1, nanos: 0 });

fn at(hours: i64) -> Time {
    Time { seconds: 1_795_316_400 + hours * 3600, nanos: 0 }
}

/// A full that is so many hours young.
fn full(hours: i64) -> Point {
    Point { label: PointLabel::full(at(hours)).expect("a label"), pinned: false, verified: None }
}

/// A differential of that full.
fn diff(of: i64, hours: i64) -> Point {
    Point { label: full(of).label.differential(at(hours)).expect("a label"), ..full(of) }
}

fn pinned(point: Point) -> Point {
    Point { pinned: true, ..point }
}

fn verified(point: Point) -> Point {
    Point { verified: VERIFIED, ..point }
}

fn keep(keep_full: Option<u32>, keep_diff: Option<u32>) -> Policy {
    Policy { keep_full, keep_diff }
}

#[track_caller]
fn assert_decided(policy: Policy, expected: &[(Point, &str)]) {
    let points: Vec<Point> = expected.iter().map(|(point, _)| *point).collect();
    let decided: Vec<(String, String)> = decide(&points, policy)
        .iter()
        .map(|decision| {
            let verb = if decision.reason.goes() { "goes" } else { "stays" };
            (decision.label.to_string(), format!("{verb}: {}", decision.reason))
        })
        .collect();
    let expected: Vec<(String, String)> =
        expected.iter().map(|(point, reason)| (point.label.to_string(), (*reason).to_owned())).collect();
    assert_eq!(decided, expected);
}

#[test]
fn without_a_policy_nothing_goes() {
    assert_decided(keep(None, None), &[(full(0), "stays: no limit is set"), (diff(0, 1), "stays: no limit is set")]);
    assert_eq!(decide(&[], keep(Some(1), Some(1))), []);
}

#[test]
fn a_full_goes_with_its_differentials() {
    assert_decided(
        keep(Some(2), None),
        &[
            (verified(full(0)), "goes: beyond --keep-full 2"),
            (diff(0, 1), "goes: its full is beyond --keep-full 2"),
            (diff(0, 2), "goes: its full is beyond --keep-full 2"),
            (verified(full(3)), "stays: within --keep-full 2"),
            (diff(3, 4), "stays: no limit is set"),
            (full(5), "stays: within --keep-full 2"),
        ],
    );
}

#[test]
fn the_newest_differentials_stay_whichever_full_they_need() {
    assert_decided(
        keep(None, Some(2)),
        &[
            (full(0), "stays: no limit is set"),
            (diff(0, 1), "goes: beyond --keep-diff 2"),
            (pinned(diff(0, 2)), "stays: pinned"),
            (diff(0, 3), "stays: within --keep-diff 2"),
            (full(4), "stays: no limit is set"),
            (diff(4, 5), "stays: within --keep-diff 2"),
        ],
    );
}

#[test]
fn what_is_pinned_stays_with_the_full_that_it_needs_and_nothing_else() {
    let needed = format!("stays: the pinned {} needs it", diff(0, 2).label);
    assert_decided(
        keep(Some(1), Some(9)),
        &[
            (full(0), &needed),
            (diff(0, 1), "goes: its full is beyond --keep-full 1"),
            (pinned(diff(0, 2)), "stays: pinned"),
            (pinned(full(3)), "stays: pinned"),
            (diff(3, 4), "goes: its full is beyond --keep-full 1"),
            (verified(full(5)), "stays: within --keep-full 1"),
            (diff(5, 6), "stays: within --keep-diff 9"),
        ],
    );
}

#[test]
fn the_newest_verified_full_never_goes() {
    assert_decided(
        keep(Some(1), None),
        &[
            (verified(full(0)), "goes: beyond --keep-full 1"),
            (verified(full(1)), "stays: the newest verified full"),
            (diff(1, 2), "goes: its full is beyond --keep-full 1"),
            (full(3), "goes: beyond --keep-full 1"),
            (full(4), "stays: within --keep-full 1"),
        ],
    );
}

#[test]
fn where_none_was_verified_the_newest_full_never_goes() {
    assert_decided(
        keep(Some(0), None),
        &[
            (full(0), "goes: beyond --keep-full 0"),
            (full(1), "stays: the newest full, and none was verified"),
            (verified(diff(1, 2)), "goes: its full is beyond --keep-full 0"),
        ],
    );
}

#[test]
fn a_differential_without_its_full_is_left_alone() {
    assert_decided(
        keep(Some(1), Some(1)),
        &[
            (full(1), "stays: within --keep-full 1"),
            (diff(1, 2), "stays: within --keep-diff 1"),
            (diff(0, 3), "stays: its full is missing"),
        ],
    );
}

/// Else `--keep-full 2` would remove the second differential, which `--keep-full 1` kept.
#[test]
fn a_differential_whose_full_goes_takes_its_place_all_the_same() {
    let points = [full(0), full(4), diff(4, 5), diff(0, 6)];
    assert_eq!(stays(&points, keep(Some(1), Some(1))), [full(4)]);
    assert_eq!(stays(&points, keep(Some(2), Some(1))), [full(0), full(4), diff(0, 6)]);
}

#[test]
fn differentials_are_removed_before_their_full() {
    let decisions = decide(&[full(0), full(3), diff(0, 2), diff(0, 1), full(4)], keep(Some(1), None));
    assert_eq!(going(&decisions), [full(3), diff(0, 2), diff(0, 1), full(0)].map(|point| point.label));
}

/// Points of some fulls, a few of them missing; differentials may be younger than the next full.
fn some_points() -> impl Strategy<Value = Vec<Point>> {
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.1), prop::bool::weighted(0.3));
    let slots = prop::collection::vec((0..6_i64, 0..30_i64, flags), 0..40);
    slots.prop_map(|slots| {
        let mut points: Vec<Point> = slots
            .into_iter()
            .map(|(of, later, (is_full, pinned, verified))| {
                let point = if is_full { full(of * 5) } else { diff(of * 5, of * 5 + 1 + later) };
                Point { pinned, verified: VERIFIED.filter(|_| verified), ..point }
            })
            .collect();
        points.sort_by_key(|point| point.label);
        points.dedup_by_key(|point| point.label);
        points
    })
}

fn some_limit() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![8 => (0..6_u32).prop_map(Some), 1 => Just(None), 1 => Just(Some(u32::MAX))]
}

fn some_policy() -> impl Strategy<Value = Policy> {
    (some_limit(), some_limit()).prop_map(|(keep_full, keep_diff)| keep(keep_full, keep_diff))
}

fn stays(points: &[Point], policy: Policy) -> Vec<Point> {
    let gone = going(&decide(points, policy));
    points.iter().filter(|point| !gone.contains(&point.label)).copied().collect()
}

/// The same limit, or one that is so much larger.
fn larger(limit: Option<u32>, by: u32) -> Option<u32> {
    limit.map(|limit| limit.saturating_add(by))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn every_point_is_decided_about_once_and_deciding_again_removes_nothing(points in some_points(), policy in some_policy()) {
        let decided: Vec<PointLabel> = decide(&points, policy).iter().map(|decision| decision.label).collect();
        prop_assert_eq!(decided, points.iter().map(|point| point.label).collect::<Vec<_>>());
        let left = stays(&points, policy);
        prop_assert_eq!(stays(&left, policy), left);
    }

    #[test]
    fn what_must_stay_stays(points in some_points(), policy in some_policy()) {
        let left = stays(&points, policy);
        let has = |points: &[Point], label| points.iter().any(|point| point.label == label);
        for point in &left {
            let full = point.label.full_label();
            prop_assert!(has(&left, full) || !has(&points, full), "{} is without its full", point.label);
        }
        let fulls = || points.iter().filter(|point| point.label.kind() == PointKind::Full);
        let verified = fulls().filter(|point| point.verified.is_some()).max_by_key(|point| point.label);
        let newest = verified.or(fulls().max_by_key(|point| point.label));
        for must in points.iter().filter(|point| point.pinned).chain(newest) {
            prop_assert!(has(&left, must.label), "{} is gone", must.label);
        }
    }

    #[test]
    fn no_more_stay_than_the_policy_says_but_for_a_reason(points in some_points(), policy in some_policy()) {
        for (kind, limit) in [(PointKind::Full, policy.keep_full), (PointKind::Differential, policy.keep_diff)] {
            let decisions = decide(&points, policy);
            let within = decisions.iter().filter(|decision| decision.label.kind() == kind);
            let within = within.filter(|decision| matches!(decision.reason, Reason::Within(..)));
            prop_assert!(within.count() <= limit.unwrap_or(0) as usize);
        }
    }

    #[test]
    fn a_larger_limit_never_removes_more(points in some_points(), policy in some_policy(), by in (0..3_u32, 0..3_u32)) {
        let generous = keep(larger(policy.keep_full, by.0), larger(policy.keep_diff, by.1));
        let more = stays(&points, generous);
        prop_assert!(stays(&points, policy).iter().all(|point| more.contains(point)));
        prop_assert_eq!(stays(&points, keep(None, None)), points);
    }

    #[test]
    fn the_order_of_the_points_does_not_matter(
        (points, shuffled) in some_points().prop_flat_map(|points| (Just(points.clone()), Just(points).prop_shuffle())),
        policy in some_policy(),
    ) {
        prop_assert_eq!(decide(&points, policy), decide(&shuffled, policy));
    }
}
