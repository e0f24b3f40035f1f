//! The connection ends after any byte, in either direction, or goes on in one direction only: the run that it happens
//! to fails by naming the host, the next one converges, and nothing is doubled.
//!
//! The far end stands behind a shell script that lets a number of bytes through, one by one (`dd`), and then
//! either ends that direction or swallows what comes.

#[path = "support/tree.rs"]
mod tree;

use std::fs;

use tree::*;

/// Points of a sweep on an everyday run, for each direction.
const POINTS: u64 = 30;

/// The pipes' ends are held by nobody but the two programs on either side of them: else a direction that has ended
/// would look as if it were still open.
const PROXY: &str = r#"shift
exec 3<&0 4>&1 </dev/null >/dev/null
through() { dd bs="${CUT_BLOCK:-1}" count="$CUT_AT" 2>/dev/null; }
swallow() { through; cat >/dev/null; }
tap() { tee "$TAP.$1" 2>/dev/null; }
case "${CUT:-none}" in
  none)         tap up <&3 3<&- 4>&- | "$@" 3<&- 4>&- | tap down >&4 3<&- 4>&- & ;;
  up)           through <&3 3<&- 4>&- | "$@" >&4 3<&- 4>&- & ;;
  down)         "$@" <&3 3<&- 4>&- | through >&4 3<&- 4>&- & ;;
  swallow-up)   swallow <&3 3<&- 4>&- | "$@" >&4 3<&- 4>&- & ;;
  swallow-down) "$@" <&3 3<&- 4>&- | swallow >&4 3<&- 4>&- & ;;
esac
exec 3<&- 4>&-
wait"#;

#[derive(Clone, Copy, Debug)]
enum Direction {
    Up,
    Down,
}

fn pair_behind_the_proxy() -> Pair {
    let mut pair = Pair::new();
    pair.connect_by(PROXY);
    make_scenario(&pair.source);
    pair
}

/// A run through the proxy that lets everything pass and keeps a copy: the bytes each way.
fn measured(pair: &Pair) -> ([u64; 2], Report) {
    let tap = pair.path("tap");
    let report = finish(pair.command(&UNGUARDED).env("TAP", &tap)).done();
    let length = |way: &str| fs::metadata(tap.with_extension(way)).map_or(0, |metadata| metadata.len());
    ([length("up"), length("down")], report)
}

/// A run whose connection is cut, then one that converges.
fn cut(pair: &Pair, kind: &str, at: u64, options: &[&str]) -> Run {
    let after = format!("a cut ({kind}) at byte {at}");
    let witness = Witness::of(pair);
    let mut command = pair.command(&[&UNGUARDED, options].concat());
    let run = finish(command.env("CUT", kind).env("CUT_AT", at.to_string()));
    witness.confirm(pair, &after);
    assert_no_boast(pair, &run, &after);
    assert!(matches!(run.code(), Some(0 | 1)), "after {after}: {}", run.story());
    if run.code() == Some(1) {
        run.spoke_clearly(HOST);
    }
    converge(pair, &after);
    run
}

fn converge(pair: &Pair, after: &str) {
    let run = finish(pair.command(&UNGUARDED).env("TAP", pair.path("tap")));
    assert_eq!(run.code(), Some(0), "after {after}: {}", run.story());
    assert!(run.report().in_sync(), "after {after}: {}", run.story());
    let differing = differences(&expected_mirror(pair), &actual_mirror(pair));
    assert!(differing.is_empty(), "after {after}:\n{}", differing.join("\n"));
}

fn survives_cuts_of_changes(direction: Direction) {
    let pair = pair_behind_the_proxy();
    measured(&pair);
    change_scenario(&pair.source, 0);
    let (bytes, _) = measured(&pair);
    let (kind, total) = choose(direction, bytes);
    for (index, at) in points(total, POINTS).into_iter().enumerate() {
        change_scenario(&pair.source, index as u64 + 1);
        cut(&pair, kind, at - 1, &[]);
    }
}

fn survives_cuts_of_a_first_copy(direction: Direction) {
    let pair = pair_behind_the_proxy();
    let (bytes, _) = measured(&pair);
    let (kind, total) = choose(direction, bytes);
    for at in points(total, POINTS) {
        forget_the_mirror(&pair);
        cut(&pair, kind, at - 1, &[]);
    }
}

fn choose(direction: Direction, [up, down]: [u64; 2]) -> (&'static str, u64) {
    match direction {
        Direction::Up => ("up", up),
        Direction::Down => ("down", down),
    }
}

#[test]
fn changes_cut_off_after_any_byte_sent_are_caught_up() {
    survives_cuts_of_changes(Direction::Up);
}

#[test]
fn changes_cut_off_after_any_byte_received_are_caught_up() {
    survives_cuts_of_changes(Direction::Down);
}

#[test]
fn a_first_copy_cut_off_after_any_byte_sent_is_caught_up() {
    survives_cuts_of_a_first_copy(Direction::Up);
}

#[test]
fn a_first_copy_cut_off_after_any_byte_received_is_caught_up() {
    survives_cuts_of_a_first_copy(Direction::Down);
}

/// Half-open connections: nothing closes, one direction is simply lost. Only the timeout ends that.
fn survives_a_direction_that_is_lost(kind: &str, direction: Direction) {
    let pair = pair_behind_the_proxy();
    measured(&pair);
    change_scenario(&pair.source, 0);
    let (bytes, _) = measured(&pair);
    let (_, total) = choose(direction, bytes);
    for (index, at) in points(total, 5).into_iter().enumerate() {
        change_scenario(&pair.source, index as u64 + 1);
        let run = cut(&pair, kind, at - 1, &["--timeout", "1"]);
        assert!(run.took.as_secs() < 30, "{}", run.story());
    }
}

#[test]
fn answers_that_are_lost_from_any_byte_on_are_given_up_and_caught_up() {
    survives_a_direction_that_is_lost("swallow-down", Direction::Down);
}

#[test]
fn what_is_sent_and_lost_from_any_byte_on_is_given_up_and_caught_up() {
    survives_a_direction_that_is_lost("swallow-up", Direction::Up);
}

/// What was acknowledged before a cut does not travel again: else a line that drops often would never bring a large
/// mailbox across.
#[test]
fn a_large_first_copy_that_is_cut_again_and_again_comes_through() {
    let mut pair = Pair::new();
    pair.connect_by(PROXY);
    // Many folders of some 400 KB: what is acknowledged at once is small against what one run brings across.
    for number in 0..120 {
        let folder = Folder::create(&pair.source.join(format!(".F{}", number / 2)));
        folder.deliver(number, &noise(number, 200_000));
    }
    let came_through = (0..4).any(|_| {
        let mut command = pair.command(&UNGUARDED);
        command.env("CUT", "up").env("CUT_BLOCK", "4096");
        finish(command.env("CUT_AT", "3000")).code() == Some(0)
    });
    assert!(came_through, "24 MB did not come through in 4 runs of 12 MB each");
    converge(&pair, "a first copy in pieces");
    let (_, report) = measured(&pair);
    report.shipped_nothing();
}

#[test]
fn the_bytes_that_are_reported_are_the_bytes_on_the_wire() {
    let pair = pair_behind_the_proxy();
    for round in 0..3 {
        let ([up, down], report) = measured(&pair);
        for (name, measured) in [("bytes_sent", up), ("bytes_received", down)] {
            // A goodbye may follow the count.
            let said = report.count(name);
            assert!(measured.abs_diff(said) <= 64, "{name}: {said} said, {measured} on the wire");
        }
        change_scenario(&pair.source, round);
    }
}

/// The proxy itself: it lets through what it says, and then ends.
#[test]
fn the_proxy_lets_through_exactly_what_it_is_told_to() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("proxy.sh");
    script(&path, PROXY);
    let line = format!("printf 0123456789 | sh {} host cat", path.display());
    for (kind, at, expected) in [
        ("none", 0, "0123456789"),
        ("up", 0, ""),
        ("up", 4, "0123"),
        ("down", 7, "0123456"),
        ("swallow-up", 3, "012"),
        ("swallow-down", 9, "012345678"),
    ] {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line]).env("CUT", kind).env("CUT_AT", at.to_string()).env("TAP", home.path().join("tap"));
        let run = finish(&mut command).ended_with(0);
        assert_eq!(run.printed(), expected, "{kind} at {at}");
    }
}
