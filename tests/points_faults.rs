//! Restore points under faults: backups and restores that are killed or fail at every disk step, and repositories with a
//! spoiled file. Older points stay whole, the next run works, and no wrong byte comes back without a word.
//! A few dozen points of each sweep every day; `MAILTWIN_FULL_SWEEP=1` tries all.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use points::*;
use tree::*;

/// Points of a sweep on an everyday run.
const POINTS: u64 = 10;

/// The last steps of a restore, in which it takes its own state away.
const TIDYING: u64 = 7;

/// A standby, its points and moments so far, and what it is now.
struct Kept {
    pair: Pair,
    made: Vec<(String, Tree)>,
    moments: Vec<Remembered>,
}

impl Kept {
    /// Synced, and without a point.
    fn without_points() -> Self {
        let pair = Pair::new();
        make_scenario(&pair.source);
        let moments = vec![sync_and_remember(&pair)];
        Self { pair, made: Vec::new(), moments }
    }

    /// A full, and a differential after each of two rounds of changes; a third round is in the log only.
    fn with_points() -> Self {
        let mut kept = Self::without_points();
        kept.made.push((backup(&kept.pair, &[]), kept.moments[0].tree.clone()));
        kept.moments.clear();
        for round in 0..3 {
            change_scenario(&kept.pair.source, round);
            append(&kept.pair.source.join(".Sent/dovecot-uidlist"), b"999 :x\n");
            kept.moments.push(sync_and_remember(&kept.pair));
            if round < 2 {
                kept.made.push((backup(&kept.pair, &["--diff"]), kept.moments[round as usize].tree.clone()));
            }
        }
        kept
    }

    fn now(&self) -> &Tree {
        &self.moments.last().expect("a moment").tree
    }

    fn confirm_points(&self, standby: &Path) {
        for (label, tree) in &self.made {
            assert_point(standby, label, tree);
        }
    }

    fn confirm(&self, standby: &Path) {
        self.confirm_points(standby);
        for remembered in self.moments.iter().filter(|_| !self.made.is_empty()) {
            assert_moment(standby, remembered);
        }
    }
}

/// What is listed is what lies there: nothing unfinished is left.
fn assert_nothing_unfinished(standby: &Path) {
    let there = names_in(&points_of(standby));
    assert_eq!(there, labels(standby).iter().map(Into::into).collect::<Vec<std::ffi::OsString>>());
}

/// Strikes a backup at the points of a sweep, each on a copy of the standby.
fn survives_strikes_of_a_backup(kept: &Kept, options: &[&str], kind: &str, most: u64) {
    let standby = &kept.pair.mirror;
    let steps = steps_taken("backup", &copy_of(standby, "counted"), options);
    assert!(steps > 5, "a backup of {steps} steps");
    for step in tree::points(steps, most) {
        let fault = kind.replace('@', &format!("@{step}"));
        let copy = copy_of(standby, "struck");
        let run = struck_at("backup", &copy, options, &fault);
        let story = format!("{fault} of {steps}: {}", run.story());
        say_if_wrong(&story, || {
            kept.confirm_points(&copy);
            match run.code() {
                None | Some(0) => {}
                Some(_) => assert!(run.said().contains(copy.to_str().expect("ours")), "no place is named"),
            }
            if run.code() == Some(0) {
                let label = run.printed().split(':').next().expect("a label").to_owned();
                assert_point(&copy, &label, kept.now());
            }
            let next = backup_of(&copy, options);
            assert_point(&copy, &next, kept.now());
            assert_nothing_unfinished(&copy);
            kept.confirm(&copy);
        });
    }
}

/// Runs the checks; when one fails, says first after what.
fn say_if_wrong(story: &str, checks: impl FnOnce()) {
    if let Err(wrong) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(checks)) {
        say(&format!("after {story}"));
        std::panic::resume_unwind(wrong);
    }
}

#[test]
fn a_first_full_killed_anywhere_is_made_by_the_next_run() {
    survives_strikes_of_a_backup(&Kept::without_points(), &["--full"], "kill@", POINTS);
}

#[test]
fn a_differential_killed_anywhere_leaves_all_points_whole() {
    survives_strikes_of_a_backup(&Kept::with_points(), &["--diff"], "kill@", POINTS);
}

#[test]
fn a_full_from_the_log_killed_anywhere_leaves_all_points_whole() {
    survives_strikes_of_a_backup(&Kept::with_points(), &["--full"], "kill@", POINTS);
}

#[test]
fn a_point_with_a_note_killed_anywhere_is_there_or_not() {
    survives_strikes_of_a_backup(&Kept::with_points(), &["--diff", "--note", "words"], "kill@", POINTS);
}

#[test]
fn an_error_at_any_step_of_a_first_full_is_survived() {
    let kept = Kept::without_points();
    for kind in ["eio@", "enospc@+"] {
        survives_strikes_of_a_backup(&kept, &["--full"], kind, POINTS / 2);
    }
}

#[test]
fn an_error_at_any_step_of_a_differential_is_survived() {
    let kept = Kept::with_points();
    for kind in ["eio@", "enospc@+"] {
        survives_strikes_of_a_backup(&kept, &["--diff"], kind, POINTS / 2);
    }
}

#[test]
fn an_error_at_any_step_of_a_full_from_the_log_is_survived() {
    let kept = Kept::with_points();
    for kind in ["eio@", "enospc@+", "short@"] {
        survives_strikes_of_a_backup(&kept, &["--full"], kind, POINTS / 2);
    }
}

#[test]
fn syncs_and_points_go_on_after_a_killed_first_full() {
    let mut kept = Kept::without_points();
    let steps = steps_taken("backup", &copy_of(&kept.pair.mirror, "counted"), &[]);
    for (round, step) in (0..).zip(tree::points(steps, 12)) {
        let _ = fs::remove_dir_all(points_of(&kept.pair.mirror));
        let _ = fs::remove_dir_all(log_of(&kept.pair.mirror));
        let run = struck_at("backup", &kept.pair.mirror, &[], &format!("kill@{step}"));
        assert!(run.was_killed() || run.code() == Some(0), "{}", run.story());
        change_scenario(&kept.pair.source, round);
        kept.moments = vec![sync_and_remember(&kept.pair)];
        let label = backup(&kept.pair, &[]);
        assert_point(&kept.pair.mirror, &label, kept.now());
        append(&kept.pair.source.join("subscriptions"), b"x\n");
        kept.moments.push(sync_and_remember(&kept.pair));
        let next = backup(&kept.pair, &["--diff"]);
        assert_point(&kept.pair.mirror, &next, kept.now());
    }
}

fn pinned_or_noted(verb: &str, arguments: &[&str]) {
    let kept = Kept::with_points();
    let label = kept.made[1].0.clone();
    let arguments = [&[label.as_str()], arguments].concat();
    let steps = steps_taken(verb, &copy_of(&kept.pair.mirror, "counted"), &arguments);
    for step in tree::points(steps, POINTS) {
        let copy = copy_of(&kept.pair.mirror, "struck");
        struck_at(verb, &copy, &arguments, &format!("kill@{step}"));
        assert_eq!(labels(&copy).len(), kept.made.len());
        kept.confirm_points(&copy);
        run(verb, &copy, &arguments).ended_with(0);
        kept.confirm_points(&copy);
    }
}

#[test]
fn a_pin_or_a_note_killed_anywhere_leaves_the_point_whole() {
    pinned_or_noted("pin", &[]);
    pinned_or_noted("note", &["words"]);
}

// ---- restores ----

fn restore_into(standby: &Path, label: &str, place: &Path, fault: &str) -> Run {
    struck_at("restore", standby, &["--point", label, "--to", place.to_str().expect("ours")], fault)
}

fn steps_of_a_restore(kept: &Kept, label: &str) -> u64 {
    let place = fresh_place(kept.pair.home());
    let steps = steps_taken("restore", &kept.pair.mirror, &["--point", label, "--to", place.to_str().expect("ours")]);
    fs::remove_dir_all(&place).expect("removed");
    steps
}

/// Kills a restore at a step, and once more a little later on; then it is run to its end.
fn assert_finished_after_kills(kept: &Kept, (label, tree): &(String, Tree), step: u64, steps: u64) {
    let place = fresh_place(kept.pair.home());
    let killed = restore_into(&kept.pair.mirror, label, &place, &format!("kill@{step}"));
    assert!(killed.was_killed() || killed.code() == Some(0), "{}", killed.story());
    if killed.code() != Some(0) {
        if steps - step > 3 * TIDYING {
            restore_into(&kept.pair.mirror, label, &place, &format!("kill@{}", step / 2 + 3));
        }
        if !finished(&place) {
            let run = restore_into(&kept.pair.mirror, label, &place, "");
            assert_eq!(run.code(), Some(0), "kill@{step} of {steps}: {}", run.story());
        }
        assert_same(&format!("kill@{step} of {steps}"), tree, &restored_tree(&place, true));
    }
    fs::remove_dir_all(&place).expect("removed");
}

#[test]
fn a_restore_killed_before_it_tidies_up_is_finished_by_running_it_again() {
    let kept = Kept::with_points();
    for made in &kept.made[..2] {
        let steps = steps_of_a_restore(&kept, &made.0);
        for step in tree::points(steps - TIDYING, POINTS) {
            assert_finished_after_kills(&kept, made, step, steps);
        }
    }
}

#[test]
fn a_restore_killed_while_it_tidies_up_is_finished_by_running_it_again() {
    let kept = Kept::with_points();
    for made in &kept.made[..2] {
        let steps = steps_of_a_restore(&kept, &made.0);
        // The last two steps are the time of the directory itself, and its sync.
        for step in steps - TIDYING..steps - 1 {
            assert_finished_after_kills(&kept, made, step, steps);
        }
    }
}

/// Whether the second run went to its end before the kill was due.
fn finished(place: &Path) -> bool {
    let is_state = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b".mailtwin");
    place.is_dir() && !names_in(place).is_empty() && !names_in(place).iter().any(is_state)
}

/// Fails a restore at the points of a sweep: it says so, and what it brought is right. Where it stopped, running it
/// again finishes it.
fn survives_errors_of_a_restore(kind: &str) {
    let steps = |steps| tree::points(steps - TIDYING, POINTS);
    survives_errors_of_a_restore_at(kind, steps);
}

fn survives_errors_of_a_restore_at(kind: &str, meant: impl Fn(u64) -> Vec<u64>) {
    let kept = Kept::with_points();
    let (label, tree) = &kept.made[2];
    let steps = steps_of_a_restore(&kept, label);
    for step in meant(steps) {
        let fault = kind.replace('@', &format!("@{step}"));
        let place = fresh_place(kept.pair.home());
        let run = restore_into(&kept.pair.mirror, label, &place, &fault);
        say_if_wrong(&format!("{fault} of {steps}: {}", run.story()), || match run.code() {
            Some(0) => assert_same(&fault, tree, &restored_tree(&place, true)),
            Some(23) => assert_exact_but_for_what_is_named(&run, &place, tree),
            _ => {
                assert!(run.said().contains(place.to_str().expect("ours")), "no place is named");
                let again = restore_into(&kept.pair.mirror, label, &place, "");
                assert_eq!(again.code(), Some(0), "run again: {}", again.story());
                assert_same(&fault, tree, &restored_tree(&place, true));
            }
        });
        let _ = fs::remove_dir_all(&place);
    }
}

#[test]
fn an_input_output_error_at_any_step_of_a_restore_is_named() {
    survives_errors_of_a_restore("eio@");
}

#[test]
fn a_full_disk_from_any_step_of_a_restore_on_is_named() {
    survives_errors_of_a_restore("enospc@+");
}

#[test]
fn a_short_write_at_any_step_of_a_restore_is_named_or_mended() {
    survives_errors_of_a_restore("short@");
}

#[test]
fn an_error_while_a_restore_tidies_up_is_mended_by_running_it_again() {
    for kind in ["eio@", "enospc@+"] {
        survives_errors_of_a_restore_at(kind, |steps| (steps - TIDYING..=steps).collect());
    }
}

/// Of a restore that ended with 23: what is there is right, and what is missing is named.
fn assert_exact_but_for_what_is_named(run: &Run, place: &Path, expected: &Tree) {
    let wrongs = [wrongs_of(place, expected), unnamed(run, place, expected)].concat();
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

fn wrongs_of(place: &Path, expected: &Tree) -> Vec<String> {
    let actual = restored_tree(place, true);
    let mut wrongs = Vec::new();
    for (path, entry) in &actual {
        match expected.get(path) {
            None => wrongs.push(format!("too much: {}", shown(path))),
            Some(right) if right.kind != entry.kind => wrongs.push(format!("wrong content: {}", shown(path))),
            Some(right) if is_file(right) && (right.mode, right.modified) != (entry.mode, entry.modified) => {
                wrongs.push(format!("wrong mode or time: {}: {right:?} {entry:?}", shown(path)));
            }
            Some(_) => {}
        }
    }
    wrongs
}

/// Files that did not come and are not named; without their names, the manifest must be that has them.
fn unnamed(run: &Run, place: &Path, expected: &Tree) -> Vec<String> {
    let actual = if place.exists() { restored_tree(place, true) } else { Tree::new() };
    let said = run.said();
    let mut wrongs = Vec::new();
    let missing = expected.iter().filter(|(path, entry)| is_file(entry) && !actual.contains_key(*path));
    for (path, _) in missing.filter(|(path, _)| !said.contains(&shown(path)) && !said.contains("manifest")) {
        wrongs.push(format!("missing, and not named: {}", shown(path)));
    }
    wrongs
}

fn is_file(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File(..))
}

// ---- limits ----

/// Each run leaves a segment, and a week of runs every five minutes leaves more than a process may open.
#[test]
fn points_can_lie_in_more_segments_than_files_may_be_open() {
    const FILES: u32 = 90;
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    inbox.deliver(0, &letter(0, 300));
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    for number in 1..=u64::from(FILES) + 20 {
        inbox.deliver(number, &letter(number, 300));
        pair.sync(&UNGUARDED);
    }
    assert!(names_in(&log_of(&pair.mirror)).len() > FILES as usize, "the test means to see many segments");
    let remembered = remember(&pair);
    let limited = |verb: &str, words: &[&str]| {
        let mut command = std::process::Command::new("prlimit");
        command.arg(format!("--nofile={FILES}:{FILES}")).args([BINARY, verb]).arg(&pair.mirror).args(words);
        decent(finish(&mut command)).ended_with(0)
    };
    let mut made = Vec::new();
    for kind in ["--diff", "--full"] {
        let report = limited("backup", &[kind, "--json"]).report();
        made.push(report.0["label"].as_str().expect("a label").to_owned());
    }
    limited("verify", &["--all"]);
    for options in [["--point", &made[0]], ["--point", &made[1]], ["--at", &remembered.moment]] {
        let place = fresh_place(pair.home());
        limited("restore", &[&options[..], &["--to", place.to_str().expect("ours")]].concat());
        assert_same("restored", &remembered.tree, &restored_tree(&place, true));
    }
}

// ---- damage ----

/// How a file is spoiled.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize),
    Truncate(usize),
    Remove,
    Swap(PathBuf),
}

fn inflict(damage: &Damage, path: &Path) {
    match damage {
        Damage::Flip(at) => {
            let mut bytes = fs::read(path).expect("the file");
            bytes[*at] ^= 0x10;
            fs::write(path, bytes).expect("written");
        }
        Damage::Truncate(length) => {
            fs::File::options().write(true).open(path).and_then(|file| file.set_len(*length as u64)).expect("truncated")
        }
        Damage::Remove => fs::remove_file(path).expect("removed"),
        Damage::Swap(other) => {
            let third = path.with_file_name("third");
            rename(path, &third);
            rename(other, path);
            rename(&third, other);
        }
    }
}

/// The files of a repository, relative to the standby.
fn repository_files(standby: &Path) -> Vec<PathBuf> {
    let below = [points_of(standby), log_of(standby)];
    let all = below.iter().flat_map(|root| walkdir::WalkDir::new(root).sort_by_file_name());
    let files = all.filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.path().strip_prefix(standby).expect("below").to_owned()).collect()
}

/// The ways in which each file is spoiled.
fn damages(standby: &Path) -> Vec<(PathBuf, Damage)> {
    let files = repository_files(standby);
    let mut all = Vec::new();
    for file in &files {
        let length = fs::metadata(standby.join(file)).expect("the file").len();
        let flips = if full_sweep() { 60 } else { 3 };
        let spread =
            (0..flips).map(|number| length.saturating_sub(1) * number / (flips - 1)).collect::<BTreeSet<u64>>();
        all.extend(spread.into_iter().map(|at| (file.clone(), Damage::Flip(at as usize))));
        for length in [0, length / 3, length.saturating_sub(1)] {
            all.push((file.clone(), Damage::Truncate(length as usize)));
        }
        all.push((file.clone(), Damage::Remove));
    }
    for (one, other) in files.iter().zip(files.iter().skip(1)).chain(files.iter().zip(files.iter().skip(2))) {
        all.push((one.clone(), Damage::Swap(standby.join(other))));
    }
    all
}

/// Restores a point of a damaged repository: exactly, or not all of it, and that is said.
fn judge_point(standby: &Path, label: &str, expected: &Tree) -> Vec<String> {
    let (run, place) = try_restore(standby, &["--point", label]);
    let mut wrongs = match run.code() {
        Some(0) => differences(expected, &restored_tree(&place, true)),
        _ if place.exists() => wrongs_of(&place, &with_own_state(expected, &place)),
        _ => Vec::new(),
    };
    if run.code() != Some(0) && run.said().trim().is_empty() {
        wrongs.push("says nothing".to_owned());
    }
    let _ = fs::remove_dir_all(&place);
    wrongs.iter().map(|wrong| format!("{label}: {wrong} -- {}", run.said())).collect()
}

/// The same, and what is missing is named, all else came, and the exit code says so.
fn judge_words(standby: &Path, label: &str, expected: &Tree) -> Vec<String> {
    let (run, place) = try_restore(standby, &["--point", label]);
    let said = run.said();
    let mut wrongs = match run.code() {
        Some(0) => Vec::new(),
        Some(23) => unnamed(&run, &place, expected),
        _ if place.exists() => vec!["it stopped in the middle".to_owned()],
        _ => Vec::new(),
    };
    let full = label.split('_').next().expect("a full");
    let places = [standby.to_str().expect("ours"), place.to_str().expect("ours"), full];
    if run.code() != Some(0) && !places.iter().any(|named| said.contains(named)) {
        wrongs.push("names nothing".to_owned());
    }
    let _ = fs::remove_dir_all(&place);
    wrongs.iter().map(|wrong| format!("{label}: {wrong} -- {:?} {said}", run.code())).collect()
}

/// A restore that stopped has its own state in the place; all else must be right.
fn with_own_state(expected: &Tree, place: &Path) -> Tree {
    let mut tree = expected.clone();
    let own = read_tree(place).into_iter().filter(|(path, _)| path.starts_with(b".mailtwin"));
    tree.extend(own);
    tree
}

/// Restores a moment of a damaged repository: exactly, or with words, and then nothing but contents that stood under
/// these names at some moment.
fn judge_moment(standby: &Path, kept: &Kept, remembered: &Remembered) -> Vec<String> {
    let (run, place) = try_restore(standby, &["--at", &remembered.moment]);
    let mut wrongs = Vec::new();
    match run.code() {
        Some(0) => wrongs.extend(differences(&remembered.tree, &restored_tree(&place, true))),
        Some(_) if !place.exists() => {}
        Some(_) => {
            for (path, entry) in restored_tree(&place, true).iter().filter(|(_, entry)| is_file(entry)) {
                let is_known = |tree: &Tree| tree.get(path).is_some_and(|right| right.kind == entry.kind);
                let own = path.starts_with(b".mailtwin/");
                if !own
                    && !kept.made.iter().map(|(_, tree)| tree).any(is_known)
                    && !kept.moments.iter().any(|one| is_known(&one.tree))
                {
                    wrongs.push(format!("never was: {}", shown(path)));
                }
            }
        }
        None => wrongs.push("killed".to_owned()),
    }
    if run.code() != Some(0) && run.said().trim().is_empty() {
        wrongs.push("says nothing".to_owned());
    }
    let _ = fs::remove_dir_all(&place);
    wrongs.iter().map(|wrong| format!("--at: {wrong} -- {:?} {}", run.code(), run.said())).collect()
}

type Judge = fn(&Kept, &Path) -> Vec<String>;

fn bytes_of_points(kept: &Kept, standby: &Path) -> Vec<String> {
    kept.made.iter().flat_map(|(label, tree)| judge_point(standby, label, tree)).collect()
}

fn words_of_points(kept: &Kept, standby: &Path) -> Vec<String> {
    kept.made.iter().flat_map(|(label, tree)| judge_words(standby, label, tree)).collect()
}

fn bytes_of_the_last_moment(kept: &Kept, standby: &Path) -> Vec<String> {
    judge_moment(standby, kept, kept.moments.last().expect("a moment"))
}

/// What looks and lists does not panic, and a new point is right or says that it is not.
fn the_next_point(kept: &Kept, standby: &Path) -> Vec<String> {
    for verb in ["points", "ls", "find"] {
        run(verb, standby, &[]);
    }
    let made = run("backup", standby, &["--json"]);
    match made.code() {
        Some(0) => judge_new(standby, made.report().0["label"].as_str().expect("a label"), kept.now()),
        _ if made.said().trim().is_empty() => vec!["backup says nothing".to_owned()],
        _ => Vec::new(),
    }
}

/// The point brings what is to be, or its restore says what is missing.
fn judge_new(standby: &Path, label: &str, expected: &Tree) -> Vec<String> {
    let found = [judge_point(standby, label, expected), judge_words(standby, label, expected)].concat();
    found.iter().take(2).map(|wrong| format!("backup ended with 0, and {wrong}")).collect()
}

fn survives_damage(judge: Judge, is_meant: impl Fn(&Path, &Damage) -> bool) {
    let kept = Kept::with_points();
    let master = copy_of(&kept.pair.mirror, "damaged");
    let all = damages(&master).into_iter();
    let meant: Vec<(PathBuf, Damage)> = all.filter(|(file, damage)| is_meant(file, damage)).collect();
    assert!(!meant.is_empty(), "nothing to spoil");
    let mut wrongs = Vec::new();
    for (file, damage) in meant {
        let copy = copy_of(&kept.pair.mirror, "damaged");
        inflict(&damage, &copy.join(&file));
        let found = judge(&kept, &copy);
        let what = |wrong: String| format!("{} {damage:?}: {wrong}", file.display());
        wrongs.extend(found.into_iter().take(2).map(what));
    }
    assert!(wrongs.is_empty(), "{} wrongs: {:#?}", wrongs.len(), &wrongs[..wrongs.len().min(20)]);
}

fn is_manifest(path: &Path) -> bool {
    path.ends_with("manifest")
}

fn is_of_the_log(path: &Path) -> bool {
    path.starts_with(".mailtwin/log")
}

fn is_flip(damage: &Damage) -> bool {
    matches!(damage, Damage::Flip(_))
}

#[test]
fn a_flipped_bit_in_a_manifest_brings_no_wrong_byte() {
    survives_damage(bytes_of_points, |path, damage| is_manifest(path) && is_flip(damage));
}

#[test]
fn a_flipped_bit_in_a_segment_of_a_point_brings_no_wrong_byte() {
    survives_damage(bytes_of_points, |path, damage| !is_manifest(path) && !is_of_the_log(path) && is_flip(damage));
}

#[test]
fn points_do_not_mind_what_becomes_of_the_log() {
    survives_damage(bytes_of_points, |path, damage| is_of_the_log(path) && matches!(damage, Damage::Remove));
}

#[test]
fn files_of_a_repository_truncated_or_missing_or_in_wrong_places_bring_no_wrong_byte() {
    survives_damage(bytes_of_points, |_, damage| !is_flip(damage));
}

#[test]
fn what_a_damaged_segment_takes_away_is_named() {
    survives_damage(words_of_points, |path, damage| {
        !is_manifest(path) && !is_of_the_log(path) && !matches!(damage, Damage::Swap(_))
    });
}

#[test]
fn what_a_damaged_manifest_takes_away_is_named() {
    survives_damage(words_of_points, |path, damage| is_manifest(path) && !matches!(damage, Damage::Swap(_)));
}

#[test]
fn damage_of_the_log_is_told_by_whoever_reads_it() {
    survives_damage(bytes_of_the_last_moment, |path, _| is_of_the_log(path));
}

#[test]
fn damage_of_a_point_is_told_by_whoever_begins_with_it() {
    survives_damage(bytes_of_the_last_moment, |path, damage| {
        !is_of_the_log(path) && !matches!(damage, Damage::Swap(_))
    });
}

#[test]
fn a_point_from_a_damaged_log_is_right_or_says_that_it_is_not() {
    survives_damage(the_next_point, |path, damage| is_of_the_log(path) && !matches!(damage, Damage::Swap(_)));
}

#[test]
fn a_point_over_a_damaged_point_is_right_or_says_that_it_is_not() {
    survives_damage(the_next_point, |path, damage| !is_of_the_log(path) && !matches!(damage, Damage::Swap(_)));
}

/// A manifest is read by ranges of 2,048 records at most.
#[test]
fn damage_of_one_range_of_a_manifest_takes_no_message_of_another() {
    let pair = Pair::new();
    for (name, first) in [(".A", 0), (".B", 2_000), (".C", 4_000)] {
        let folder = Folder::create(&pair.source.join(name));
        for number in first..first + 1_500 {
            fs::write(folder.cur().join(format!("{number}.M1P1.mx:2,S")), format!("Subject: {number}\n"))
                .expect("a message");
        }
    }
    let remembered = sync_and_remember(&pair);
    let label = backup(&pair, &[]);
    let manifest = points_of(&pair.mirror).join(&label).join("manifest");
    let length = fs::metadata(&manifest).expect("the manifest").len() as usize;
    for part in [1, 3, 5] {
        let copy = copy_of(&pair.mirror, "damaged");
        inflict(&Damage::Flip(length * part / 6), &points_of(&copy).join(&label).join("manifest"));
        let (run, place) = try_restore(&copy, &["--point", &label]);
        let run = run.ended_with(23);
        assert!(run.said().contains("manifest"), "{}", run.story());
        let wrongs = wrongs_of(&place, &remembered.tree);
        assert!(wrongs.is_empty(), "{wrongs:?}");
        let came = messages_beneath(&place);
        assert!(came >= 4_500 - 2_048, "{came} messages of 4500 came: {}", run.story());
        fs::remove_dir_all(&place).expect("removed");
    }
}

#[test]
fn a_point_whose_manifest_is_damaged_is_named_and_the_others_are_listed() {
    let kept = Kept::with_points();
    for (label, _) in &kept.made {
        let copy = copy_of(&kept.pair.mirror, "damaged");
        let manifest = points_of(&copy).join(label).join("manifest");
        inflict(&Damage::Truncate(20), &manifest);
        let listed = run("points", &copy, &[]).ended_with(23);
        listed.spoke_clearly(label);
        for (other, _) in kept.made.iter().filter(|(other, _)| other != label) {
            assert!(listed.printed().contains(other.as_str()), "{}", listed.story());
        }
    }
}
