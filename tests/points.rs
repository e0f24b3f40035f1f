//! Restore points: what a standby was at a point, or at any moment since the first, comes back bit by bit; what cannot
//! come back is named. The promises, one by one.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::Path;
use std::time::Duration;

use points::*;
use tree::*;

/// A mailbox that was synced once.
fn mailbox() -> Pair {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    pair
}

/// A mailbox with a full, and what it was then.
fn mailbox_with_a_full() -> (Pair, String, Remembered) {
    let pair = mailbox();
    let label = backup(&pair, &[]);
    let remembered = remember(&pair);
    (pair, label, remembered)
}

fn inbox(pair: &Pair) -> Folder {
    Folder(pair.source.clone())
}

/// Keeps a test that asks for moments clear of the fault that `moments_within_the_second_of_a_point_are_told_apart` has.
fn wait_for_the_next_second() {
    let second = jiff::Timestamp::now().as_second();
    eventually("the next second", Duration::from_secs(3), || jiff::Timestamp::now().as_second() > second);
}

/// A point of each kind of the present says this, and each earlier point and moment still says what it said.
fn assert_all(pair: &Pair, now: &Remembered, before: &[(String, Remembered)]) {
    wait_for_the_next_second();
    for options in [["--diff"], ["--full"]] {
        let label = backup(pair, &options);
        assert_point(&pair.mirror, &label, &now.tree);
    }
    assert_moment(&pair.mirror, now);
    for (label, remembered) in before {
        assert_point(&pair.mirror, label, &remembered.tree);
        assert_moment(&pair.mirror, remembered);
    }
}

fn archive(pair: &Pair) -> Folder {
    Folder(pair.source.join(".Archive"))
}

// ---- making points ----

#[test]
fn the_first_point_is_a_full_and_the_next_a_differential_of_it() {
    let (pair, full, _) = mailbox_with_a_full();
    let differential = backup(&pair, &[]);
    assert_eq!(labels(&pair.mirror), [full.clone(), differential.clone()]);
    assert_eq!(listed_as(&pair.mirror, &full)["kind"], "full");
    assert_eq!(listed_as(&pair.mirror, &differential)["kind"], "differential");
    assert!(differential.starts_with(&format!("{full}_")), "{differential}");
}

#[test]
fn labels_are_times_in_utc_with_a_letter() {
    let (pair, full, _) = mailbox_with_a_full();
    let differential = backup(&pair, &["--diff"]);
    let digits = |text: &str, letter: char| {
        let (day, time) = text.strip_suffix(letter)?.split_once('-')?;
        let whole = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        (whole(day, 8) && whole(time, 6)).then(|| text.to_owned())
    };
    assert!(digits(&full, 'F').is_some(), "{full}");
    let (of, own) = differential.split_once('_').expect("two times");
    assert!(of == full && digits(own, 'D').is_some(), "{differential}");
    let today = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    assert!(full.starts_with(&today), "{full} is not of {today}");
}

#[test]
fn points_within_one_second_have_labels_of_their_own() {
    let (pair, ..) = mailbox_with_a_full();
    for options in [["--full"], ["--diff"], ["--full"], ["--diff"]] {
        backup(&pair, &options);
    }
    let mut all = labels(&pair.mirror);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
}

#[test]
fn a_full_is_due_when_the_newest_is_older_than_full_every() {
    let (pair, full, _) = mailbox_with_a_full();
    wait_for_the_next_second();
    wait_for_the_next_second();
    let differential = backup(&pair, &["--full-every", "1h"]);
    assert!(differential.starts_with(&full), "{differential}");
    assert!(backup(&pair, &["--full-every", "1s"]).ends_with('F'));
    assert!(backup(&pair, &["--full-every", "1s", "--diff"]).ends_with('D'));
}

#[test]
fn wrong_usage_ends_with_2_and_makes_no_point() {
    let pair = mailbox();
    let wrong: [(&str, &[&str]); 10] = [
        ("backup", &["--full", "--diff"]),
        ("backup", &["--full-every", "sometimes"]),
        ("backup", &["--nonsense"]),
        ("pin", &["nonsense"]),
        ("note", &["nonsense", "x"]),
        ("restore", &[]),
        ("restore", &["--to", "x", "--at", "the other day"]),
        ("restore", &["--to", "x", "--point", "nonsense"]),
        ("restore", &["--to", "x", "--at", "now", "--point", "20261122-030000F"]),
        ("find", &["--since", "never"]),
    ];
    for (verb, arguments) in wrong {
        let run = run(verb, &pair.mirror, arguments).ended_with(2);
        assert!(!run.said().trim().is_empty(), "{}", run.story());
    }
    assert!(labels(&pair.mirror).is_empty());
}

#[test]
fn what_is_no_standby_is_named_and_nothing_is_made_in_it() {
    let pair = Pair::new();
    let plain = pair.path("plain");
    fs::create_dir(&plain).expect("a directory");
    for verb in ["backup", "points", "ls", "find"] {
        run(verb, &plain, &[]).refused(&[1, 2], "plain");
        run(verb, &pair.path("nothing"), &[]).refused(&[1, 2], "nothing");
    }
    assert!(names_in(&plain).is_empty());
    assert!(!pair.path("nothing").exists());
}

#[test]
fn a_label_that_there_is_not_is_named() {
    let (pair, ..) = mailbox_with_a_full();
    let label = "20010203-040506F";
    for verb in ["pin", "unpin", "note"] {
        run(verb, &pair.mirror, &[label]).refused(&[1], label);
    }
    let (run, place) = try_restore(&pair.mirror, &["--point", label]);
    run.refused(&[1], label);
    assert!(!place.exists());
}

#[test]
fn notes_and_pins_are_listed_and_can_be_taken_back() {
    let (pair, full, remembered) = mailbox_with_a_full();
    let differential = backup(&pair, &["--note", "before the move"]);
    assert_eq!(listed_as(&pair.mirror, &differential)["note"], "before the move");
    assert_eq!(listed_as(&pair.mirror, &full)["note"], "");
    run("note", &pair.mirror, &[&full, "the first"]).ended_with(0);
    run("pin", &pair.mirror, &[&full]).ended_with(0);
    let about = listed_as(&pair.mirror, &full);
    assert!(about["note"] == "the first" && about["pinned"] == true, "{about}");
    assert!(run("points", &pair.mirror, &[]).ended_with(0).printed().contains("the first"));
    run("unpin", &pair.mirror, &[&full]).ended_with(0);
    run("note", &pair.mirror, &[&full]).ended_with(0);
    let about = listed_as(&pair.mirror, &full);
    assert!(about["note"] == "" && about["pinned"] == false, "{about}");
    assert_point(&pair.mirror, &full, &remembered.tree);
}

#[test]
fn control_characters_of_a_note_do_not_reach_the_terminal() {
    let (pair, full, _) = mailbox_with_a_full();
    run("note", &pair.mirror, &[&full, "a\u{1b}[31mred\nb"]).ended_with(0);
    let printed = run("points", &pair.mirror, &[]).ended_with(0).stdout;
    assert!(!printed.contains(&0x1b), "{}", shown(&printed));
    assert_eq!(printed.iter().filter(|byte| **byte == b'\n').count(), 1, "{}", shown(&printed));
}

#[test]
fn counts_of_a_point_are_those_of_the_mirror() {
    let (pair, full, remembered) = mailbox_with_a_full();
    change_scenario(&pair.source, 0);
    let later = sync_and_remember(&pair);
    let differential = backup(&pair, &[]);
    for (label, tree) in [(full, remembered.tree), (differential, later.tree)] {
        let about = listed_as(&pair.mirror, &label);
        let lengths = tree.values().filter_map(|entry| match entry.kind {
            Kind::File(length, _) => Some(length),
            _ => None,
        });
        let messages: usize = messages_by_content(&tree).values().map(Vec::len).sum();
        assert_eq!(about["messages"], messages, "{about}");
        assert_eq!(about["files"], lengths.clone().count(), "{about}");
        assert_eq!(about["bytes"], lengths.sum::<u64>(), "{about}");
    }
}

#[test]
fn points_after_the_first_do_not_look_at_the_mirror() {
    let (pair, ..) = mailbox_with_a_full();
    change_scenario(&pair.source, 0);
    let remembered = sync_and_remember(&pair);
    for name in names_in(&pair.mirror).into_iter().filter(|name| name != ".mailtwin") {
        let path = pair.mirror.join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("it is removed");
    }
    for options in [["--diff"], ["--full"]] {
        let label = backup(&pair, &options);
        assert_point(&pair.mirror, &label, &remembered.tree);
    }
}

#[test]
fn a_point_is_made_while_a_sync_is_under_way() {
    let pair = Pair::through_a_pipe();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    for number in 5_000..5_400 {
        archive(&pair).deliver(number, &noise(number, 20_000));
    }
    let expected = expected_mirror(&pair);
    let mut sync = Started::new(&mut pair.command(&["--max-delete", "100%", "--bwlimit", "2M"]));
    let log = log_of(&pair.mirror);
    eventually("the sync writes its log", Duration::from_secs(20), || {
        !sync.is_running() || walked_length(&log) > 1_000_000
    });
    signal(sync.id(), "STOP");
    assert!(sync.is_running(), "it was over before it could be stopped");
    let during = backup(&pair, &[]);
    let (run, place) = try_restore(&pair.mirror, &["--point", &during]);
    run.ended_with(0);
    signal(sync.id(), "CONT");
    sync.end().done();
    for (path, entry) in restored_tree(&place, true).into_iter().filter(|(path, _)| path.starts_with(b".Archive/new/"))
    {
        assert_eq!(expected.get(&path), Some(&entry), "{}", shown(&path));
    }
    let after = backup(&pair, &[]);
    assert_point(&pair.mirror, &after, &expected);
}

fn walked_length(root: &Path) -> u64 {
    let files = walkdir::WalkDir::new(root).into_iter().filter_map(Result::ok);
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn signal(process: u32, name: &str) {
    let process = process.to_string();
    tool("procps", "kill", &["-s".as_ref(), name.as_ref(), process.as_ref()]);
}

#[test]
fn two_backups_at_once_make_their_points_or_say_that_the_other_is_at_work() {
    let (pair, _, remembered) = mailbox_with_a_full();
    let mut started: Vec<Started> =
        (0..6).map(|_| Started::new(&mut command("backup", &pair.mirror, &["--full".as_ref()]))).collect();
    let runs: Vec<Run> = started.drain(..).map(Started::end).collect();
    assert!(runs.iter().any(|run| run.code() == Some(0)));
    for run in &runs {
        match run.code() {
            Some(0) => {}
            _ => assert!(run.code() == Some(10) && !run.said().is_empty(), "{}", run.story()),
        }
    }
    let made = runs.iter().filter(|run| run.code() == Some(0)).count();
    let all = labels(&pair.mirror);
    assert_eq!(all.len(), 1 + made);
    for label in all {
        assert_point(&pair.mirror, &label, &remembered.tree);
    }
}

#[test]
fn a_state_that_lies_elsewhere_has_its_points_there() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    let state = pair.path("elsewhere");
    let state = state.to_str().expect("a path of ours");
    pair.sync(&["--state", state]);
    let expected = expected_mirror(&pair);
    backup(&pair, &["--state", state]);
    let label = backup(&pair, &["--state", state]);
    assert_restores(&pair.mirror, &["--state", state, "--point", &label], &expected, true);
    assert!(!pair.mirror.join(".mailtwin").exists());
}

// ---- what a point depends on ----

#[test]
fn a_differential_needs_its_full_and_itself_and_nothing_else() {
    let (pair, full, _) = mailbox_with_a_full();
    let mut made = Vec::new();
    for round in 0..5 {
        change_scenario(&pair.source, round);
        append_small(&pair, round);
        let remembered = sync_and_remember(&pair);
        made.push((backup(&pair, &["--diff"]), remembered.tree));
    }
    for (label, tree) in &made {
        let copy = copy_of(&pair.mirror, "alone");
        for name in names_in(&points_of(&copy)).into_iter().filter(|name| *name != *full && *name != **label) {
            fs::remove_dir_all(points_of(&copy).join(name)).expect("another point");
        }
        fs::remove_dir_all(log_of(&copy)).expect("the log");
        assert_point(&copy, label, tree);
    }
}

#[test]
fn a_full_needs_itself_and_nothing_else() {
    let (pair, ..) = mailbox_with_a_full();
    change_scenario(&pair.source, 0);
    append_small(&pair, 0);
    sync_and_remember(&pair);
    backup(&pair, &["--diff"]);
    append_small(&pair, 1);
    let remembered = sync_and_remember(&pair);
    let label = backup(&pair, &["--full"]);
    let copy = copy_of(&pair.mirror, "alone");
    for name in names_in(&points_of(&copy)).into_iter().filter(|name| *name != *label) {
        fs::remove_dir_all(points_of(&copy).join(name)).expect("another point");
    }
    fs::remove_dir_all(log_of(&copy)).expect("the log");
    assert_point(&copy, &label, &remembered.tree);
}

/// A line more in control files: they travel as differences.
fn append_small(pair: &Pair, round: u64) {
    let folder = archive(pair);
    for uid in 0..3 {
        folder.append_uid(9_000 + round * 10 + uid, &folder.cur().join("1700000000.M1P1.mx"));
    }
    append(&pair.source.join("subscriptions"), format!("more {round}\n").as_bytes());
}

#[test]
fn a_point_restores_what_it_was_whatever_is_done_to_the_mirror_by_hand() {
    let (pair, full, first) = mailbox_with_a_full();
    let mirrored = Folder(pair.mirror.clone());
    let messages = mirrored.messages();
    fs::remove_file(&messages[0]).expect("removed by hand");
    mirrored.set_flags(&messages[1], "FT");
    fs::write(&messages[2], "overwritten by hand").expect("overwritten");
    mirrored.deliver(77_000, &letter(77_000, 500));
    append(&pair.mirror.join("subscriptions"), b"by hand\n");
    rename(&pair.mirror.join(".Sent"), &pair.mirror.join(".Elsewhere"));
    let during = backup(&pair, &[]);
    assert_point(&pair.mirror, &during, &first.tree);
    change_scenario(&pair.source, 0);
    let run = pair.try_sync(&UNGUARDED);
    assert!(matches!(run.code(), Some(0 | 23)), "{}", run.story());
    let run = pair.try_sync(&["--max-delete", "100%", "--checksum"]);
    assert_eq!(run.code(), Some(0), "{}", run.story());
    assert_mirrored(&pair);
    let remembered = remember(&pair);
    wait_for_the_next_second();
    for options in [["--diff"], ["--full"]] {
        let label = backup(&pair, &options);
        assert_point(&pair.mirror, &label, &remembered.tree);
    }
    assert_point(&pair.mirror, &full, &first.tree);
    assert_moment(&pair.mirror, &first);
}

#[test]
fn messages_of_a_folder_that_was_renamed_by_hand_on_the_mirror_come_back() {
    let (pair, ..) = mailbox_with_a_full();
    rename(&pair.mirror.join(".Project 0"), &pair.mirror.join(".Project 9"));
    rename(&pair.source.join(".Project 0"), &pair.source.join(".Project 1"));
    let run = pair.try_sync(&UNGUARDED);
    assert!(matches!(run.code(), Some(0 | 23)), "{}", run.story());
    pair.try_sync(&UNGUARDED);
    pair.sync(&["--max-delete", "100%", "--checksum"]);
    let remembered = remember(&pair);
    for options in [["--diff"], ["--full"]] {
        let label = backup(&pair, &options);
        assert_point(&pair.mirror, &label, &remembered.tree);
    }
}

// ---- restoring ----

#[test]
fn everything_a_file_system_keeps_comes_back() {
    let pair = Pair::of_files();
    make_everything(&pair.source);
    pair.sync(&UNGUARDED);
    let full = backup(&pair, &[]);
    let first = remember(&pair);
    // The same once more, from the log.
    let below = pair.source.join("below");
    fs::create_dir(&below).expect("a directory");
    make_everything(&below);
    pair.sync(&UNGUARDED);
    let second = remember(&pair);
    let attributed = attributes(&pair.source);
    let differential = backup(&pair, &["--diff"]);
    let next = backup(&pair, &["--full"]);
    assert_restores(&pair.mirror, &["--point", &full], &first.tree, false);
    assert_restores(&pair.mirror, &["--at", &first.moment], &first.tree, false);
    for options in [["--point", &differential], ["--point", &next], ["--at", &second.moment]] {
        assert_restores(&pair.mirror, &options, &second.tree, false);
        let (_, place) = try_restore(&pair.mirror, &options);
        assert_eq!(attributes(&place), attributed);
    }
}

#[test]
fn large_contents_come_back() {
    let pair = Pair::of_files();
    let lengths = [1_048_575, 1_048_576, 1_048_577, 1_500_000, 2_097_152, 2_097_153, 3_145_729, 9_000_000];
    let deliver = |letter: &str, first: u64| {
        for (number, length) in (first..).zip(lengths) {
            fs::write(pair.source.join(format!("{letter}{length}")), noise(number, length)).expect("a file");
        }
    };
    deliver("mirror", 0);
    pair.sync(&UNGUARDED);
    let first = remember(&pair);
    let full = backup(&pair, &[]);
    assert_restores(&pair.mirror, &["--point", &full], &first.tree, false);
    deliver("log", 100);
    pair.sync(&UNGUARDED);
    let second = remember(&pair);
    assert_restores(&pair.mirror, &["--at", &second.moment], &second.tree, false);
    for options in [["--diff"], ["--full"]] {
        let label = backup(&pair, &options);
        assert_restores(&pair.mirror, &["--point", &label], &second.tree, false);
    }
}

#[test]
fn a_content_that_takes_its_time_to_arrive_stands_whole_in_the_log() {
    let mut pair = Pair::through_a_pipe();
    pair.mail = false;
    fs::write(pair.source.join("small"), "first").expect("a file");
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    // After 256 MiB the slave would begin another log. Zeros are next to nothing on the way, and slow at this rate.
    let zeros = fs::File::create(pair.source.join("zeros")).expect("a file");
    zeros.set_len(300 << 20).expect("a length");
    pair.sync(&["--bwlimit", "10"]);
    let remembered = remember(&pair);
    assert_restores(&pair.mirror, &["--at", &remembered.moment], &remembered.tree, false);
}

#[test]
fn mailboxes_of_several_users_come_back() {
    let pair = Pair::new();
    make_vmail(&pair.source, 3);
    let remembered = sync_and_remember(&pair);
    let full = backup(&pair, &[]);
    assert_point(&pair.mirror, &full, &remembered.tree);
    let (run, place) = try_restore(&pair.mirror, &["--mailbox", "example.org/user1"]);
    run.ended_with(0);
    let only = |tree: &Tree, prefix: &[u8]| -> Tree {
        let beneath = tree.iter().filter(|(path, _)| path.starts_with(prefix));
        beneath.map(|(path, entry)| (path.clone(), entry.clone())).collect()
    };
    let expected = only(&remembered.tree, b"example.org/user1/");
    assert_same("one mailbox", &expected, &only(&restored_tree(&place, true), b"example.org/user1/"));
    let others = restored_tree(&place, true).keys().any(|path| path.starts_with(b"example.org/user0"));
    assert!(!others, "another mailbox came, too");
    let (run, place) = try_restore(&pair.mirror, &["--mailbox", "user1@example.org"]);
    run.ended_with(0);
    assert_same("by its address", &expected, &only(&restored_tree(&place, true), b"example.org/user1/"));
}

#[test]
fn a_restore_into_an_empty_directory_that_is_there_is_the_same() {
    let (pair, full, remembered) = mailbox_with_a_full();
    let place = fresh_place(pair.home());
    fs::create_dir(&place).expect("a directory");
    set_mode(&place, 0o711);
    run("restore", &pair.mirror, &["--point", &full, "--to", place.to_str().expect("ours")]).ended_with(0);
    assert_same("restored", &remembered.tree, &restored_tree(&place, true));
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_as_it_is() {
    let (pair, full, _) = mailbox_with_a_full();
    let file = pair.path("a file");
    fs::write(&file, "mine").expect("a file");
    run("restore", &pair.mirror, &["--point", &full, "--to", file.to_str().expect("ours")]).refused(&[1, 2], "a file");
    assert_eq!(fs::read(&file).expect("it is there"), b"mine");
    for (name, is_directory) in [("file in it", false), ("directory in it", true)] {
        let place = pair.path(name);
        fs::create_dir(&place).expect("a directory");
        match is_directory {
            true => fs::create_dir(place.join("cur")).expect("a directory"),
            false => fs::write(place.join("x"), "mine").expect("a file"),
        }
        let before = fingerprint(&place);
        let to = place.to_str().expect("ours");
        for options in [&["--point", &full][..], &[], &["--subject", "letter"], &["--folder", "Archive"]] {
            run("restore", &pair.mirror, &[options, &["--to", to]].concat()).refused(&[1, 2], name);
        }
        assert!(before == fingerprint(&place), "{name} was touched");
    }
}

#[test]
fn a_finished_restore_is_not_taken_for_one_to_go_on_with() {
    let (pair, full, _) = mailbox_with_a_full();
    let (run_, place) = try_restore(&pair.mirror, &["--point", &full]);
    run_.ended_with(0);
    let before = fingerprint(&place);
    run("restore", &pair.mirror, &["--point", &full, "--to", place.to_str().expect("ours")])
        .refused(&[1, 2], "restored");
    assert!(before == fingerprint(&place), "it was touched");
}

#[test]
fn a_directory_with_an_empty_state_in_it_is_not_taken_for_a_restore_that_has_ended() {
    let (pair, full, _) = mailbox_with_a_full();
    let place = pair.path("somebodys");
    fs::create_dir_all(place.join(".mailtwin")).expect("directories");
    fs::write(place.join("letter"), "mine").expect("a file");
    let before = fingerprint(&place);
    run("restore", &pair.mirror, &["--point", &full, "--to", place.to_str().expect("ours")])
        .refused(&[1, 2], "somebodys");
    assert!(before == fingerprint(&place), "it was touched");
}

#[test]
fn where_every_full_is_damaged_a_new_one_is_made() {
    let (pair, full, remembered) = mailbox_with_a_full();
    let manifest = pair.mirror.join(".mailtwin/points").join(&full).join("manifest");
    let length = fs::metadata(&manifest).expect("is there").len();
    let opened = fs::OpenOptions::new().write(true).open(&manifest).expect("opens");
    opened.set_len(length - 20).expect("cuts");
    let new = backup(&pair, &[]);
    assert!(new.ends_with('F') && new != full, "{new}");
    assert_point(&pair.mirror, &new, &remembered.tree);
}

#[test]
fn places_in_the_standby_are_no_places_to_restore_into() {
    let (pair, full, _) = mailbox_with_a_full();
    let before = names_in(&pair.mirror);
    let inside = pair.mirror.join("inside");
    for place in [pair.mirror.clone(), inside, pair.mirror.join(".mailtwin/points/inside")] {
        let to = place.to_str().expect("ours");
        run("restore", &pair.mirror, &["--point", &full, "--to", to]).refused(&[1, 2], to);
    }
    assert_eq!(names_in(&pair.mirror), before);
}

#[test]
fn a_dry_run_says_what_would_come_and_writes_nothing() {
    let (pair, full, remembered) = mailbox_with_a_full();
    let (dry, place) = try_restore(&pair.mirror, &["--point", &full, "--dry-run", "--json"]);
    let dry = dry.ended_with(0).report();
    assert!(!place.exists());
    let (wet, _) = try_restore(&pair.mirror, &["--point", &full, "--json"]);
    let wet = wet.ended_with(0).report();
    let files = remembered.tree.values().filter(|entry| matches!(entry.kind, Kind::File(..))).count() as u64;
    assert_eq!((dry.count("created"), wet.count("created")), (files, files));
    assert_eq!(dry.count("bytes"), wet.count("bytes"));
}

#[test]
fn looking_and_restoring_leave_the_standby_as_it_is() {
    let (pair, full, _) = mailbox_with_a_full();
    change_scenario(&pair.source, 0);
    pair.sync(&UNGUARDED);
    let before = fingerprint(&pair.mirror);
    for verb in ["points", "ls", "find"] {
        run(verb, &pair.mirror, &[]).ended_with(0);
    }
    try_restore(&pair.mirror, &[]).0.ended_with(0);
    try_restore(&pair.mirror, &["--point", &full]).0.ended_with(0);
    assert!(before == fingerprint(&pair.mirror), "the standby was written to");
}

#[test]
fn a_moment_before_the_first_point_is_refused() {
    let (pair, ..) = mailbox_with_a_full();
    let (run, place) = try_restore(&pair.mirror, &["--at", "2001-02-03T04:05:06Z"]);
    let run = run.ended_with(1);
    assert!(!run.said().trim().is_empty(), "{}", run.story());
    assert!(!place.exists());
}

#[test]
fn parts_come_back_by_folder_subject_sender_and_id() {
    let (pair, _, remembered) = mailbox_with_a_full();
    let folder = |name: &str| {
        let (run, place) = try_restore(&pair.mirror, &["--folder", name]);
        run.ended_with(0);
        messages_by_content(&restored_tree(&place, true))
    };
    let all = messages_by_content(&remembered.tree);
    let beneath =
        |prefix: &str| -> usize { all.values().flatten().filter(|path| path.starts_with(prefix.as_bytes())).count() };
    assert_eq!(folder("Archive").len(), beneath(".Archive/"));
    assert!(folder("No such folder").is_empty());
    let id = id_of(&letter(101, 10));
    for options in [["--subject", "LETTER 101"], ["--from", "sender101@"], ["--message-id", &id]] {
        let (run, place) = try_restore(&pair.mirror, &options);
        let run = run.ended_with(0);
        let found = messages_by_content(&restored_tree(&place, true));
        let paths: Vec<&Vec<u8>> = found.values().flatten().collect();
        assert_eq!(paths.len(), 1, "{}", run.story());
        assert_eq!(remembered.tree.get(paths[0]), restored_tree(&place, true).get(paths[0]));
    }
}

#[test]
fn the_inbox_of_a_single_maildir_comes_back_by_its_name() {
    let (pair, _, remembered) = mailbox_with_a_full();
    let (run, place) = try_restore(&pair.mirror, &["--folder", "INBOX"]);
    run.ended_with(0);
    let is_in = |path: &Vec<u8>| path.starts_with(b"cur/") || path.starts_with(b"new/");
    let of = |tree: Tree| -> Tree { tree.into_iter().filter(|(path, _)| is_in(path)).collect() };
    assert_same("the inbox", &of(remembered.tree), &of(restored_tree(&place, true)));
}

fn id_of(letter: &[u8]) -> String {
    let text = String::from_utf8_lossy(letter);
    let line = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("an id");
    line.trim_matches(['<', '>']).to_owned()
}

#[test]
fn since_and_until_pick_by_the_date_of_the_message() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    for (number, day) in [(1, "Mon, 02 Nov 2026"), (2, "Tue, 03 Nov 2026"), (3, "Wed, 04 Nov 2026")] {
        let text = format!("From: a@example.org\nSubject: s{number}\nDate: {day} 12:00:00 +0000\n\nbody\n");
        inbox.deliver(number, text.as_bytes());
    }
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let found = |options: &[&str]| find(&pair.mirror, options).len();
    assert_eq!(found(&[]), 3);
    assert_eq!(found(&["--since", "2026-11-03T00:00:00Z"]), 2);
    assert_eq!(found(&["--until", "2026-11-03T12:00:00Z"]), 1);
    assert_eq!(found(&["--since", "2026-11-03T12:00:00Z", "--until", "2026-11-04T12:00:00Z"]), 1);
}

fn find(standby: &Path, options: &[&str]) -> Vec<serde_json::Value> {
    let run = run("find", standby, &[&["--json"], options].concat()).ended_with(0);
    serde_json::from_slice::<Vec<serde_json::Value>>(&run.stdout).unwrap_or_else(|_| panic!("no list: {}", run.story()))
}

#[test]
fn cat_writes_a_message_as_it_was() {
    let (pair, _, remembered) = mailbox_with_a_full();
    let body = letter(101, 200 + 101 * 11);
    let id = id_of(&body);
    let gone = archive(&pair).messages();
    fs::remove_dir_all(archive(&pair).cur()).expect("removed");
    fs::create_dir(archive(&pair).cur()).expect("made again");
    pair.sync(&UNGUARDED);
    run("cat", &pair.mirror, &[&id]).refused(&[1], &id);
    let bracketed = format!("<{id}>");
    let path = gone.iter().find(|path| path.to_string_lossy().contains("1700000101")).expect("that message");
    let path = path.strip_prefix(&pair.source).expect("below").to_str().expect("a path of ours");
    for named in [&id, &bracketed, path] {
        assert_eq!(run("cat", &pair.mirror, &[named, "--at", &remembered.moment]).ended_with(0).stdout, body);
    }
}

#[test]
fn cat_writes_a_control_file_that_grew_by_differences() {
    let (pair, ..) = mailbox_with_a_full();
    for round in 0..3 {
        append_small(&pair, round);
        pair.sync_and_settle();
    }
    let expected = fs::read(archive(&pair).control("dovecot-uidlist")).expect("the uidlist");
    assert_eq!(run("cat", &pair.mirror, &[".Archive/dovecot-uidlist"]).ended_with(0).stdout, expected);
    backup(&pair, &[]);
    assert_eq!(run("cat", &pair.mirror, &[".Archive/dovecot-uidlist"]).ended_with(0).stdout, expected);
}

#[test]
fn ls_lists_a_directory_as_it_was() {
    let (pair, full, _) = mailbox_with_a_full();
    rename(&pair.source.join(".Sent"), &pair.source.join(".Gone"));
    pair.sync(&UNGUARDED);
    let listed = |options: &[&str]| {
        let run = run("ls", &pair.mirror, &[&["--json"], options].concat()).ended_with(0);
        let list: Vec<serde_json::Value> = serde_json::from_slice(&run.stdout).expect("a list");
        let mut paths: Vec<String> = list.iter().map(|one| one["path"].as_str().expect("a path").to_owned()).collect();
        paths.sort();
        paths
    };
    assert!(listed(&["--point", &full]).contains(&".Sent".to_owned()));
    let now = listed(&[]);
    assert!(now.contains(&".Gone".to_owned()) && !now.contains(&".Sent".to_owned()), "{now:?}");
    let there: Vec<String> = names_in(&pair.source).into_iter().map(|name| name.into_string().expect("text")).collect();
    assert_eq!(now, there);
    run("ls", &pair.mirror, &["no such thing"]).refused(&[1], "no such thing");
    assert_eq!(listed(&["subscriptions"]), ["subscriptions"]);
}

#[test]
fn what_is_listed_cannot_write_to_the_terminal() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    inbox.deliver_as(
        "1.M1P1.\u{1b}[2Jmx".as_ref(),
        b"Subject: =?utf-8?q?=1B[31mred=0Aline?=\nFrom: \x1b]0;x\x07@x\n\nx\n",
    );
    fs::create_dir_all(pair.source.join(".\u{1b}c\u{9b}31m/cur")).expect("a folder");
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    for verb in ["ls", "find"] {
        for options in [&[][..], &["--json"]] {
            let printed = run(verb, &pair.mirror, options).ended_with(0).stdout;
            let text = String::from_utf8(printed).expect("UTF-8");
            let wild = text.chars().any(|letter| letter.is_control() && letter != '\n');
            assert!(!wild, "{text:?}");
        }
    }
}

// ---- between points ----

#[test]
fn a_message_that_came_and_went_between_two_points_comes_back() {
    let (pair, full, first) = mailbox_with_a_full();
    let message = inbox(&pair).deliver(60_000, &letter(60_000, 3_000));
    let between = sync_and_remember(&pair);
    fs::remove_file(message).expect("expunged");
    let last = sync_and_remember(&pair);
    assert_moment(&pair.mirror, &between);
    assert_all(&pair, &last, &[(full, first)]);
    assert_moment(&pair.mirror, &between);
}

#[test]
fn control_files_that_grew_by_small_appends_come_back_at_every_moment() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    let uidlist = archive(&pair).control("dovecot-uidlist");
    append(&uidlist, &noise(1, 300_000));
    pair.sync_and_settle();
    let full = backup(&pair, &[]);
    let mut moments = vec![remember(&pair)];
    let mut made = vec![(full, remember(&pair))];
    for round in 0..8 {
        append_small(&pair, round);
        let report = pair.sync_and_settle();
        assert!(report.count("files_patched") > 0, "the test means to see differences: {}", report.0);
        moments.push(remember(&pair));
        if round % 3 == 1 {
            wait_for_the_next_second();
            let kind = if round == 4 { "--full" } else { "--diff" };
            made.push((backup(&pair, &[kind]), remember(&pair)));
        }
    }
    for remembered in &moments {
        assert_moment(&pair.mirror, remembered);
    }
    let last = moments.last().expect("moments").clone();
    assert_all(&pair, &last, &made);
}

#[test]
fn renamed_folders_come_back_under_the_names_of_the_moment() {
    let (pair, full, first) = mailbox_with_a_full();
    let at = |name: &str| pair.source.join(name);
    let mut moments = Vec::new();
    for (from, to) in [(".Sent", ".Sent.2026"), (".Archive", ".Sent"), (".Sent.2026", ".Archive"), (".Sent", ".x")] {
        rename(&at(from), &at(to));
        moments.push(sync_and_remember(&pair));
    }
    // Two swap their names within one cycle.
    for (from, to) in [(".x", ".y"), (".Archive", ".x"), (".y", ".Archive")] {
        rename(&at(from), &at(to));
    }
    moments.push(sync_and_remember(&pair));
    for remembered in &moments {
        assert_moment(&pair.mirror, remembered);
    }
    assert_all(&pair, &moments[4], &[(full, first)]);
}

#[test]
fn flags_moves_and_copies_come_back_as_they_were() {
    let (pair, full, first) = mailbox_with_a_full();
    let mut moments = Vec::new();
    let message = archive(&pair).messages()[0].clone();
    let flagged = archive(&pair).set_flags(&message, "FRS");
    moments.push(sync_and_remember(&pair));
    let moved = inbox(&pair).move_in(&flagged);
    moments.push(sync_and_remember(&pair));
    let copied = archive(&pair).link_in(&moved);
    moments.push(sync_and_remember(&pair));
    fs::remove_file(&moved).expect("expunged");
    moments.push(sync_and_remember(&pair));
    archive(&pair).set_flags(&copied, "T");
    moments.push(sync_and_remember(&pair));
    let linked = |remembered: &Remembered| remembered.tree.values().filter(|entry| entry.link_of.is_some()).count();
    assert_eq!(linked(&moments[2]), linked(&moments[1]) + 1, "the test means to see a hard link");
    for remembered in &moments {
        assert_moment(&pair.mirror, remembered);
    }
    assert_all(&pair, &moments[4], &[(full, first)]);
}

#[test]
fn folders_deleted_and_made_again_come_back_each_in_its_time() {
    let (pair, full, first) = mailbox_with_a_full();
    fs::remove_dir_all(pair.source.join(".Archive")).expect("removed");
    let without = sync_and_remember(&pair);
    Folder::create(&pair.source.join(".Archive")).deliver(61_000, &letter(61_000, 400));
    let again = sync_and_remember(&pair);
    assert_moment(&pair.mirror, &without);
    assert_all(&pair, &again, &[(full, first)]);
}

#[test]
fn a_path_that_was_a_file_and_a_directory_and_a_link_is_each_in_its_time() {
    let pair = Pair::of_files();
    let (path, other) = (pair.source.join("x"), pair.source.join("keep"));
    fs::write(&path, "a file").expect("a file");
    fs::write(&other, "other").expect("a file");
    let mut moments = vec![sync_and_remember(&pair)];
    backup(&pair, &[]);
    moments[0] = remember(&pair);
    fs::remove_file(&path).expect("removed");
    fs::create_dir_all(path.join("in")).expect("a directory");
    fs::write(path.join("in/y"), "y").expect("a file");
    moments.push(sync_and_remember(&pair));
    fs::remove_dir_all(&path).expect("removed");
    std::os::unix::fs::symlink("keep", &path).expect("a link");
    moments.push(sync_and_remember(&pair));
    fs::remove_file(&path).expect("removed");
    fs::hard_link(&other, &path).expect("a link");
    moments.push(sync_and_remember(&pair));
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "").expect("a file");
    moments.push(sync_and_remember(&pair));
    for remembered in &moments {
        assert_restores(&pair.mirror, &["--at", &remembered.moment], &remembered.tree, false);
    }
    for options in [["--diff"], ["--full"]] {
        let label = backup(&pair, &options);
        assert_restores(&pair.mirror, &["--point", &label], &moments[4].tree, false);
    }
}

#[test]
fn modes_and_times_come_back_as_they_were() {
    let (pair, full, first) = mailbox_with_a_full();
    let subscriptions = pair.source.join("subscriptions");
    set_mode(&subscriptions, 0o604);
    set_mode(&archive(&pair).0, 0o2750);
    let one = sync_and_remember(&pair);
    set_modified(&subscriptions, 1_234_567_890, 123_456_789);
    set_modified(&archive(&pair).0, 1_234_567_891, 987_654_321);
    let two = sync_and_remember(&pair);
    assert_moment(&pair.mirror, &one);
    assert_all(&pair, &two, &[(full, first)]);
}

/// Labels have whole seconds; what they are compared with has more.
#[test]
fn moments_within_the_second_of_a_point_are_told_apart() {
    let (pair, ..) = mailbox_with_a_full();
    for round in 0..6 {
        // Near the beginning of a second, so that all three are of one.
        eventually("a second begins", Duration::from_secs(3), || {
            jiff::Timestamp::now().subsec_nanosecond() < 20_000_000
        });
        let before = {
            inbox(&pair).deliver(62_000 + round, &letter(62_000 + round, 300));
            sync_and_remember(&pair)
        };
        fs::remove_file(&inbox(&pair).messages()[0]).expect("expunged");
        let after = sync_and_remember(&pair);
        let label = backup(&pair, &[if round % 2 == 0 { "--diff" } else { "--full" }]);
        assert_moment(&pair.mirror, &before);
        assert_moment(&pair.mirror, &after);
        assert_point(&pair.mirror, &label, &after.tree);
    }
}

#[test]
fn the_newest_is_what_the_mirror_is_though_the_last_point_is_older() {
    let (pair, ..) = mailbox_with_a_full();
    change_scenario(&pair.source, 0);
    let now = sync_and_remember(&pair);
    assert_restores(&pair.mirror, &[], &now.tree, true);
}

#[test]
fn a_sync_that_was_killed_leaves_points_of_whole_batches() {
    let (pair, full, first) = mailbox_with_a_full();
    change_scenario(&pair.source, 0);
    let steps = {
        let copy = copy_of(&pair.mirror, "counted");
        let twin = pair.path("twin-state");
        tool("coreutils", "cp", &["-a".as_ref(), pair.state.as_os_str(), twin.as_os_str()]);
        let steps = steps_of(&pair, End::Both);
        for (from, to) in [(&copy, &pair.mirror), (&twin, &pair.state)] {
            fs::remove_dir_all(to).expect("removed");
            rename(from, to);
        }
        steps
    };
    for (round, step) in points_of_sweep(steps, 12) {
        struck(&pair, End::Both, &format!("kill@{step}"));
        let torn = backup(&pair, &[]);
        try_restore(&pair.mirror, &["--point", &torn]).0.ended_with(0);
        settle(&pair, "a kill");
        let now = remember(&pair);
        let label = backup(&pair, &[if round % 2 == 0 { "--diff" } else { "--full" }]);
        assert_point(&pair.mirror, &label, &now.tree);
        assert_moment(&pair.mirror, &now);
        change_scenario(&pair.source, round + 1);
    }
    assert_point(&pair.mirror, &full, &first.tree);
}

fn points_of_sweep(steps: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..).zip(tree::points(steps, most))
}
