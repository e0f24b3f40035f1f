//! The kill sweep: the process is ended right before each of its disk steps, on either end, then run again.
//! What both sides had is on the mirror at every moment, the next run ends well, the mirror is then the source,
//! and the source was never written to. A few dozen points of each sweep every day; `MAILTWIN_FULL_SWEEP=1` tries all.

#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use tree::*;

/// Points of a sweep on an everyday run.
const POINTS: u64 = 40;

/// A scenario that was never mirrored, and the steps that its first copy takes.
fn before_a_first_copy(end: End) -> (Pair, u64) {
    let pair = end.pair();
    make_scenario(&pair.source);
    let steps = steps_of(&pair, end);
    assert!(steps > 20, "a first copy of {steps} steps");
    forget_the_mirror(&pair);
    (pair, steps)
}

/// A scenario that is in sync after its first round of changes, and the steps that this round took.
fn before_a_round_of_changes(end: End) -> (Pair, u64) {
    let pair = end.pair();
    make_scenario(&pair.source);
    settle(&pair, "the first copy");
    change_scenario(&pair.source, 0);
    let steps = steps_of(&pair, end);
    assert!(steps > 10, "a round of changes of {steps} steps");
    (pair, steps)
}

/// One run that is killed before a step, and what must hold between it and the next.
fn kill(pair: &Pair, end: End, step: u64, after: &str) -> Run {
    let witness = Witness::of(pair);
    let run = struck(pair, end, &format!("kill@{step}"));
    witness.confirm(pair, after);
    assert_no_boast(pair, &run, after);
    match end {
        // A run may take a step less than the one that was counted; then it ends well.
        End::Both | End::Near => {
            assert!(run.was_killed() || run.code() == Some(0), "{}", run.story())
        }
        End::Far => assert!(matches!(run.code(), Some(0 | 1)), "{}", run.story()),
    }
    run
}

fn survives_kills_of_a_first_copy(end: End) {
    let (pair, steps) = before_a_first_copy(end);
    for (index, step) in points(steps, POINTS).into_iter().enumerate() {
        let after = format!("a kill of {end:?} before step {step} of {steps} of a first copy");
        kill(&pair, end, step, &after);
        settle(&pair, &after);
        if index % 8 == 0 {
            pair.sync(&UNGUARDED).shipped_nothing();
        }
        forget_the_mirror(&pair);
    }
}

fn survives_kills_of_a_round_of_changes(end: End) {
    let (pair, steps) = before_a_round_of_changes(end);
    for (index, step) in points(steps, POINTS).into_iter().enumerate() {
        change_scenario(&pair.source, index as u64 + 1);
        let after = format!("a kill of {end:?} before step {step} of {steps} of a round of changes");
        kill(&pair, end, step, &after);
        settle(&pair, &after);
        if index % 8 == 0 {
            pair.sync(&UNGUARDED).shipped_nothing();
        }
    }
}

#[test]
fn a_first_copy_killed_anywhere_is_finished_by_the_next_run() {
    survives_kills_of_a_first_copy(End::Both);
}

#[test]
fn a_first_copy_whose_far_end_is_killed_anywhere_is_finished_by_the_next_run() {
    survives_kills_of_a_first_copy(End::Far);
}

#[test]
fn a_first_copy_whose_near_end_is_killed_anywhere_is_finished_by_the_next_run() {
    survives_kills_of_a_first_copy(End::Near);
}

#[test]
fn changes_killed_anywhere_are_finished_by_the_next_run() {
    survives_kills_of_a_round_of_changes(End::Both);
}

#[test]
fn changes_whose_far_end_is_killed_anywhere_are_finished_by_the_next_run() {
    survives_kills_of_a_round_of_changes(End::Far);
}

#[test]
fn changes_whose_near_end_is_killed_anywhere_are_finished_by_the_next_run() {
    survives_kills_of_a_round_of_changes(End::Near);
}

#[test]
fn a_far_end_that_is_killed_is_named_by_its_host() {
    let (pair, steps) = before_a_round_of_changes(End::Far);
    change_scenario(&pair.source, 1);
    let run = struck(&pair, End::Far, &format!("kill@{}", steps / 2));
    run.refused(&[1], HOST);
}

/// Recovery is itself killed, and that of the recovery: the steps are tried in leaps that become longer.
fn survives_kills_of_the_recovery(end: End, depth: usize) {
    let (pair, steps) = before_a_round_of_changes(end);
    let mut round = 1;
    for first in points(steps, 8) {
        for second in [1, 2, 3, 5, 8, 13, 21, 34, 55] {
            change_scenario(&pair.source, round);
            round += 1;
            let after = format!("kills of {end:?} before step {first}, then {second} of the recovery");
            kill(&pair, end, first, &after);
            let mut killed = true;
            for level in 1..depth as u64 {
                killed &= kill(&pair, end, second + level - 1, &after).code() != Some(0);
            }
            settle(&pair, &after);
            if !killed && !full_sweep() {
                // The recovery has fewer steps than this leap.
                break;
            }
        }
    }
}

#[test]
fn a_recovery_killed_anywhere_is_finished_by_the_next_run() {
    survives_kills_of_the_recovery(End::Both, 2);
}

#[test]
fn a_far_ends_recovery_killed_twice_is_finished_by_the_next_run() {
    survives_kills_of_the_recovery(End::Far, 3);
}

/// A run is killed, its recovery is killed, and the recovery of that: each at a step of its own. What comes of it is told
/// from a mirror that nothing happened to neither by its tree nor by what the slave keeps beside it.
#[test]
fn a_recovery_of_a_recovery_killed_anywhere_leaves_what_an_undisturbed_run_leaves() {
    let (pair, steps) = before_a_round_of_changes(End::Both);
    let undisturbed = kept_by_the_slave(&pair);
    let (stride, leaps): (usize, &[u64]) = match full_sweep() {
        true => (5, &[1, 2, 3, 5, 8, 13, 21, 34, 55]),
        false => (steps as usize / 4, &[1, 6, 18]),
    };
    let (mut round, mut nested) = (1, 0);
    for first in (2..=steps).step_by(stride) {
        for (second, third) in leaps.iter().flat_map(|second| leaps.iter().map(move |third| (*second, *third))) {
            change_scenario(&pair.source, round);
            round += 1;
            let after = format!("kills before step {first} of {steps}, {second} of the recovery, {third} of the next");
            let kills = [first, second, third].map(|step| kill(&pair, End::Both, step, &after).was_killed());
            nested += u64::from(kills == [true; 3]);
            settle(&pair, &after);
            assert_eq!(kept_by_the_slave(&pair), undisturbed, "after {after}");
            pair.sync(&UNGUARDED).shipped_nothing();
        }
    }
    assert!(nested > round / 2, "of {round} attempts {nested} went three deep");
}

/// The names in the slave's state: no log and nothing staged is left over.
fn kept_by_the_slave(pair: &Pair) -> Vec<String> {
    read_tree(&pair.mirror.join(".mailtwin")).into_keys().map(|path| shown(&path)).collect()
}

/// Killed again and again at the same step, a run still comes forward, folder by folder: each leaves less for the next.
#[test]
fn a_first_copy_killed_over_and_over_comes_to_its_end() {
    let pair = Pair::new();
    for number in 0..300 {
        let folder = Folder::create(&pair.source.join(format!(".F{}", number / 6)));
        folder.file(number, "S", &noise(number, 20_000));
    }
    let steps = steps_of(&pair, End::Both);
    forget_the_mirror(&pair);
    let stride = (steps * 6 / 10).max(1);
    for attempt in 0..40 {
        let run = struck(&pair, End::Both, &format!("kill@{stride}"));
        if run.code() == Some(0) {
            assert_mirrored(&pair);
            return;
        }
        assert!(run.was_killed(), "attempt {attempt}: {}", run.story());
    }
    panic!("40 runs, each killed after 6 of 10 steps of a whole copy, did not finish it");
}

/// What happens to bytes on a disk.
type Damage = fn(&[u8]) -> Vec<u8>;

/// What a bad disk or a careless hand does to a file of either state.
const DAMAGES: [(&str, Damage); 5] = [
    ("emptied", |_| Vec::new()),
    ("cut in half", |content| content[..content.len() / 2].to_vec()),
    ("cut by one byte", |content| content[..content.len().saturating_sub(1)].to_vec()),
    ("zeroed", |content| vec![0; content.len()]),
    ("overwritten in its middle", |content| {
        let mut content = content.to_vec();
        let middle = content.len() / 2;
        content.iter_mut().skip(middle).take(64).for_each(|byte| *byte = !*byte);
        content
    }),
];

/// The states of both ends, by the names under which they are saved.
fn states_of(pair: &Pair) -> [(&'static str, PathBuf); 2] {
    [("near", pair.state.clone()), ("far", pair.mirror.join(".mailtwin"))]
}

/// A pair in sync, and where its states are saved.
fn pair_with_saved_states() -> (Pair, PathBuf) {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync_and_settle();
    let saved = pair.path("saved");
    fs::create_dir(&saved).expect("a directory");
    for (place, state) in states_of(&pair) {
        copy_tree(&state, &saved.join(place));
    }
    (pair, saved)
}

/// Has both ends as they were saved.
fn put_back(pair: &Pair, saved: &Path) {
    forget(&pair.state, &pair.mirror.join(".mailtwin"));
    for (place, state) in states_of(pair) {
        copy_tree(&saved.join(place), &state);
    }
}

/// The states can be rebuilt from the trees: a damaged one is, or the run says which file it cannot read. It loses
/// nothing and boasts of nothing either way, and without both states a comparison brings all in sync.
#[test]
fn a_damaged_state_is_rebuilt_or_named_and_nothing_is_lost() {
    let (pair, saved) = pair_with_saved_states();
    for (place, state) in states_of(&pair) {
        for name in files_in(&saved.join(place)) {
            for (damage, apply) in DAMAGES {
                put_back(&pair, &saved);
                let content = fs::read(state.join(&name)).expect("it is there");
                fs::write(state.join(&name), apply(&content)).expect("damaged");
                a_damage_is_survived(&pair, &format!("{} {damage}", state.join(&name).display()));
            }
        }
    }
}

/// A page of a catalogue, wherever it is: the database finds out in the middle of a run, or not at all.
#[test]
fn a_catalogue_damaged_anywhere_is_rebuilt_or_named_and_nothing_is_lost() {
    let places = if full_sweep() { 2000 } else { 60 };
    let (pair, saved) = pair_with_saved_states();
    for (place, state) in states_of(&pair) {
        let files = files_in(&saved.join(place));
        let name = files.iter().find(|name| name.ends_with("catalogue")).expect("a catalogue");
        let content = fs::read(saved.join(place).join(name)).expect("it is there");
        for number in 0..places {
            put_back(&pair, &saved);
            let at = content.len() * number / places;
            let mut content = content.clone();
            content[at..].iter_mut().take(64).for_each(|byte| *byte = !*byte);
            fs::write(state.join(name), content).expect("damaged");
            a_damage_is_survived(&pair, &format!("{place} catalogue: 64 bytes from {at}"));
        }
    }
}

fn a_damage_is_survived(pair: &Pair, after: &str) {
    let witness = Witness::of(pair);
    let run = pair.try_sync(&UNGUARDED);
    witness.confirm(pair, after);
    assert_no_boast(pair, &run, after);
    assert!(matches!(run.code(), Some(0 | 1)), "after {after}: {}", run.story());
    if run.code() == Some(1) {
        let said = run.said();
        let state = pair.state.display().to_string();
        assert!(said.contains(&state) || said.contains(".mailtwin"), "after {after}: {}", run.story());
        forget(&pair.state, &pair.mirror.join(".mailtwin"));
        let report = pair.sync(&UNGUARDED);
        assert_eq!(report.count("bytes_content"), 0, "after {after}: {}", report.0);
        assert_mirrored(pair);
    }
}

/// The files that hold anything, by their paths beneath the root.
fn files_in(root: &Path) -> Vec<String> {
    let tree = read_tree(root);
    let files = tree.into_iter().filter(|(_, entry)| matches!(entry.kind, Kind::File(1.., _)));
    let names: Vec<String> = files.map(|(path, _)| String::from_utf8(path).expect("a state has plain names")).collect();
    assert!(!names.is_empty(), "{} holds no state", root.display());
    names
}

fn copy_tree(from: &Path, to: &Path) {
    tool("coreutils", "cp", &["-a".as_ref(), from.as_ref(), to.as_ref()]);
}

fn forget(near: &Path, far: &Path) {
    for state in [near, far] {
        if state.exists() {
            fs::remove_dir_all(state).expect("removed");
        }
    }
}

/// The witness itself: it sees a message that is gone, one that is there twice, and a source that was written to.
#[test]
fn the_witness_sees_what_is_lost_doubled_or_written() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&[]);
    let witness = Witness::of(&pair);
    assert_eq!(witness.wrongs(&pair), Vec::<String>::new());
    let mirrored = Folder(pair.mirror.clone());
    let messages = mirrored.messages();
    fs::remove_file(&messages[0]).expect("removed");
    let twin = messages[1].with_file_name("twin");
    fs::copy(&messages[1], &twin).expect("copied");
    mirrored.set_flags(&messages[1], "T");
    let base = base_of(messages[1].file_name().expect("a name"));
    rename(&twin, &mirrored.new_dir().join(base));
    fs::write(pair.source.join("dovecot-uidlist.lock"), "1:host").expect("written");
    let wrongs = witness.wrongs(&pair).join("\n");
    for what in ["no longer on the mirror", "twice on the mirror", "dovecot-uidlist.lock"] {
        assert!(wrongs.contains(what), "{what}: {wrongs}");
    }
}
