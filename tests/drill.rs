//! Drills: what comes back is held against the point with eyes of its own, nothing of it stays, and it is written down.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use mailtwin::drill::{Report as Drill, compare::Comparison};
use mailtwin::path::TreePath;
use mailtwin::repository::layout::Repository;
use mailtwin::repository::view::{At, View};
use mailtwin::restore;
use points::*;
use tree::*;

const USERS: u64 = 5;

/// Some mailboxes beneath one directory, mirrored, and a full.
fn vmail() -> (Pair, String) {
    let pair = Pair::new();
    make_vmail(&pair.source, USERS);
    pair.sync_and_settle();
    let full = backup(&pair, &[]);
    (pair, full)
}

fn drill(standby: &Path, options: &[&str]) -> Run {
    run("drill", standby, &[&["--json"], options].concat())
}

fn texts(report: &Report, field: &str) -> Vec<String> {
    let list = report.0[field].as_array().unwrap_or_else(|| panic!("no list {field}: {}", report.0));
    list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// What a directory holds, and what the standby's state holds.
fn what_lies_about(pair: &Pair) -> (Vec<OsString>, Vec<OsString>) {
    (names_in(pair.home()), names_in(&pair.mirror.join(".mailtwin")))
}

/// The first message of a mailbox of the mirror.
fn a_message(standby: &Path, mailbox: &str) -> PathBuf {
    read_message_of(&Folder(standby.join(mailbox)))
}

fn read_message_of(folder: &Folder) -> PathBuf {
    folder.messages().into_iter().next().expect("a message")
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).expect("the file");
    let at = (bytes.len() as u64 * at / 100) as usize;
    bytes[at] ^= 0x20;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_drill_restores_compares_leaves_nothing_and_is_written_down() {
    let (pair, full) = vmail();
    let mirror = expected_mirror(&pair);
    drill(&pair.mirror, &[]).ended_with(0);
    let before = what_lies_about(&pair);
    let report = drill(&pair.mirror, &["--mailboxes", "2"]).ended_with(0).report();
    assert_eq!(what_lies_about(&pair), before);
    assert_same("the mirror after a drill", &mirror, &actual_mirror(&pair));
    let mailboxes = texts(&report, "mailboxes");
    assert_eq!((mailboxes.len() as u64, report.count("of")), (2, USERS));
    let messages: usize = mailboxes.iter().map(|mailbox| messages_beneath(&pair.source.join(mailbox))).sum();
    assert!(messages > 0 && report.count("messages") == messages as u64, "{}", report.0);
    assert_eq!(report.count("on_mirror"), messages as u64);
    let about = listed_as(&pair.mirror, &full);
    let drilled = &about["drilled"];
    assert_eq!(drilled["mailboxes"], 2, "{about}");
    assert_eq!((&drilled["messages"], &drilled["bytes"]), (&report.0["messages"], &report.0["bytes"]));
    assert_eq!(drilled["result"], "whole");
    let difference = drilled["seconds"].as_f64().expect("seconds") - report.0["seconds"].as_f64().expect("seconds");
    assert!(difference.abs() < 0.002, "{about} {}", report.0);
    let when: jiff::Timestamp = drilled["when"].as_str().expect("a time").parse().expect("a time");
    assert!(jiff::Timestamp::now().duration_since(when).as_secs() < 120, "{about}");
}

#[test]
fn files_and_bytes_are_those_of_the_mailboxes() {
    let (pair, _) = vmail();
    let report = drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(0).report();
    assert_eq!(texts(&report, "mailboxes").len() as u64, USERS);
    let mirror = expected_mirror(&pair);
    let lengths: Vec<u64> = mirror
        .values()
        .filter_map(|entry| match entry.kind {
            Kind::File(length, _) => Some(length),
            _ => None,
        })
        .collect();
    assert_eq!(report.count("files"), lengths.len() as u64);
    assert_eq!(report.count("bytes"), lengths.iter().sum::<u64>());
}

#[test]
fn a_seed_stands_for_its_mailboxes_and_another_for_others() {
    let (pair, _) = vmail();
    let choice = |seed: u32| {
        let seed = seed.to_string();
        texts(&drill(&pair.mirror, &["--mailboxes", "2", "--seed", &seed]).ended_with(0).report(), "mailboxes")
    };
    let choices: Vec<Vec<String>> = (0..6).map(choice).collect();
    assert_eq!(choice(3), choices[3]);
    assert!(choices.iter().any(|other| *other != choices[0]), "{choices:?}");
    let mut met: Vec<&String> = choices.iter().flatten().collect();
    met.sort();
    met.dedup();
    assert!(met.len() > 2, "{choices:?}");
}

#[test]
fn a_set_that_is_one_mailbox_and_one_that_has_none_are_drilled() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.sync_and_settle();
    backup(&pair, &[]);
    let report = drill(&pair.mirror, &[]).ended_with(0).report();
    assert_eq!((texts(&report, "mailboxes"), report.count("of")), (vec![".".to_owned()], 1));
    assert_eq!(report.count("messages"), messages_beneath(&pair.source) as u64);
    let files = Pair::of_files();
    fs::create_dir(files.source.join("maps")).expect("a directory");
    fs::write(files.source.join("maps/virtual"), b"a b\n").expect("a file");
    symlink("maps/virtual", files.source.join("link")).expect("a link");
    files.sync_and_settle();
    backup(&files, &[]);
    let report = drill(&files.mirror, &[]).ended_with(0).report();
    assert_eq!((report.count("files"), report.count("messages")), (1, 0));
}

#[test]
fn a_mailbox_of_layout_fs_is_one() {
    let pair = Pair::new();
    make_fs_layout(&pair.source, 1);
    pair.sync_and_settle();
    backup(&pair, &[]);
    let report = drill(&pair.mirror, &[]).ended_with(0).report();
    assert_eq!((report.count("of"), report.count("messages")), (1, messages_beneath(&pair.source) as u64));
}

#[test]
fn an_earlier_moment_is_drilled_as_it_was() {
    let (pair, full) = vmail();
    let messages = messages_beneath(&pair.source);
    let then = now();
    for message in Folder(pair.source.join("example.org/user0/Maildir")).messages() {
        fs::remove_file(message).expect("removed");
    }
    pair.sync(&UNGUARDED);
    let later = backup(&pair, &["--diff"]);
    for options in [["--point", full.as_str()], ["--at", then.as_str()]] {
        let report = drill(&pair.mirror, &[&options[..], &["--mailboxes", "99"]].concat()).ended_with(0).report();
        assert_eq!(report.count("messages"), messages as u64, "{options:?}");
        assert_eq!(report.0["label"], full.as_str());
        assert_eq!(report.count("on_mirror"), 0);
    }
    assert!(listed_as(&pair.mirror, &later)["drilled"].is_null());
    let report = drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(0).report();
    assert_eq!(report.0["label"], later.as_str());
    assert!(report.count("messages") < messages as u64);
}

#[test]
fn a_damaged_segment_is_named_with_what_did_not_come_back() {
    let (pair, full) = vmail();
    let directory = points_of(&pair.mirror).join(&full);
    let segment = names_in(&directory).into_iter().find(|name| name.len() == 16).expect("a segment");
    flip(&directory.join(&segment), 50);
    let run = drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(23);
    let report = run.report();
    assert_eq!(report.0["result"], "differs");
    let differing = report.0["differing"].as_array().expect("a list");
    assert!(!differing.is_empty(), "{}", run.story());
    for problem in differing {
        let reason = problem["reason"].as_str().expect("words");
        assert!(reason.contains(segment.to_str().expect("ours")), "{reason}");
        let path = pair.source.join(problem["subject"].as_str().expect("a path"));
        assert!(path.is_file(), "{}", path.display());
    }
    let files = report.count("files") + differing.len() as u64;
    assert_eq!(files, listed_as(&pair.mirror, &full)["files"].as_u64().expect("a number"));
    assert_eq!(listed_as(&pair.mirror, &full)["drilled"]["result"], "differs");
    assert!(!names_in(pair.home()).iter().any(|name| name.to_string_lossy().starts_with("mailtwin-drill")));
}

#[test]
fn a_damaged_range_of_the_manifest_is_named() {
    let (pair, full) = vmail();
    flip(&points_of(&pair.mirror).join(&full).join("manifest"), 30);
    let run = drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(23);
    assert!(run.said().contains("manifest"), "{}", run.story());
}

#[test]
fn a_message_that_rotted_on_the_mirror_is_named() {
    let (pair, _) = vmail();
    let message = a_message(&pair.mirror, "example.org/user1/Maildir");
    flip(&message, 50);
    let run = drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(23);
    let report = run.report();
    assert_eq!(report.0["differing"].as_array().map(Vec::len), Some(0), "{}", run.story());
    let named = report.0["mirror_differs"][0]["subject"].as_str().expect("a path").to_owned();
    assert_eq!(named, shown(message.as_os_str().as_encoded_bytes()));
    assert!(run.said().contains(&named), "{}", run.story());
}

#[test]
fn a_message_that_was_renamed_on_the_mirror_is_found_by_its_base_name() {
    let (pair, _) = vmail();
    let folder = Folder(pair.mirror.join("example.org/user1/Maildir"));
    let message = read_message_of(&folder);
    let renamed = folder.set_flags(&message, "FT");
    let right = drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(0).report();
    assert_eq!(right.count("on_mirror"), messages_beneath(&pair.source) as u64);
    flip(&renamed, 50);
    let run = drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(23);
    run.spoke_clearly(&shown(renamed.as_os_str().as_encoded_bytes()));
}

#[test]
fn nothing_is_restored_into_the_mirror() {
    let (pair, full) = vmail();
    let inside = pair.mirror.join("example.org");
    let before = names_in(&inside);
    run("drill", &pair.mirror, &["--in", inside.to_str().expect("ours")]).refused(&[1], "lies in the standby");
    assert_eq!(names_in(&inside), before);
    run("drill", &pair.mirror, &["--in", pair.path("nothing").to_str().expect("ours")]).refused(&[1], "nothing");
    assert!(listed_as(&pair.mirror, &full)["drilled"].is_null());
    run("drill", &pair.mirror, &["--mailboxes", "0"]).ended_with(2);
}

#[test]
fn two_drills_of_one_standby_do_not_meet() {
    let (pair, _) = vmail();
    drill(&pair.mirror, &[]).ended_with(0);
    let lock = pair.mirror.join(".mailtwin/drill.lock");
    let mut held = std::process::Command::new("flock");
    held.arg(&lock).arg(BINARY).arg("drill").arg(&pair.mirror);
    finish(&mut held).refused(&[10], "another drill");
    let lock = pair.mirror.join(".mailtwin/repository.lock");
    let mut held = std::process::Command::new("flock");
    held.arg(&lock).arg(BINARY).arg("drill").arg(&pair.mirror);
    finish(&mut held).refused(&[10], "not written down");
}

#[test]
fn with_a_state_elsewhere_it_is_restored_beside_that() {
    let (pair, _) = vmail();
    let elsewhere = pair.path("states");
    fs::create_dir(&elsewhere).expect("a directory");
    let state = elsewhere.join("vmail");
    rename(&pair.mirror.join(".mailtwin"), &state);
    let options = ["--state", state.to_str().expect("ours")];
    let steps = steps_taken("drill", &pair.mirror, &options);
    let run = struck_at("drill", &pair.mirror, &options, &format!("kill@{}", steps / 2));
    assert!(run.was_killed(), "{}", run.story());
    let left = || names_in(&elsewhere).into_iter().filter(|name| name != "vmail").collect::<Vec<_>>();
    assert_eq!(left().len(), 1, "{:?}", left());
    let scratch = elsewhere.join(&left()[0]);
    assert_eq!(fs::metadata(&scratch).expect("it is there").mode() & 0o777, 0o700);
    drill(&pair.mirror, &options).ended_with(0);
    assert!(left().is_empty(), "{:?}", left());
}

#[test]
fn what_a_killed_drill_left_is_removed_by_the_next_one_wherever_that_restores_to() {
    let (pair, _) = vmail();
    let place = pair.path("place");
    fs::create_dir(&place).expect("a directory");
    let there = ["--in", place.to_str().expect("ours")];
    drill(&pair.mirror, &[]).ended_with(0);
    let before = what_lies_about(&pair);
    let steps = steps_taken("drill", &pair.mirror, &there);
    fs::remove_file(pair.path("steps-taken")).expect("removed");
    assert!(steps > 50, "{steps} steps");
    let mut left = 0;
    for step in tree::points(steps, 12) {
        let run = struck_at("drill", &pair.mirror, &there, &format!("kill@{step}"));
        assert!(run.was_killed() || run.code() == Some(0), "{}", run.story());
        left += names_in(&place).len();
        drill(&pair.mirror, &[]).ended_with(0);
        assert!(names_in(&place).is_empty(), "kill@{step}: {:?}", names_in(&place));
        assert_eq!(what_lies_about(&pair), before, "kill@{step}");
    }
    assert!(left > 3, "only {left} kills left anything");
}

#[test]
fn an_error_at_any_step_leaves_nothing_or_the_next_drill_removes_it() {
    let (pair, _) = vmail();
    drill(&pair.mirror, &[]).ended_with(0);
    let before = what_lies_about(&pair);
    let steps = steps_taken("drill", &pair.mirror, &[]);
    fs::remove_file(pair.path("steps-taken")).expect("removed");
    for kind in ["eio@", "enospc@", "short@", "enospc@+"] {
        for step in tree::points(steps, 8) {
            let fault = kind.replace('@', &format!("@{step}"));
            let run = struck_at("drill", &pair.mirror, &[], &fault);
            assert!(matches!(run.code(), Some(0 | 1 | 23)), "{fault}: {}", run.story());
            assert!(run.code() == Some(0) || !run.said().trim().is_empty(), "{fault}: {}", run.story());
            drill(&pair.mirror, &[]).ended_with(0);
            assert_eq!(what_lies_about(&pair), before, "{fault}");
        }
    }
}

/// A file system that is too small, by bytes or by inodes, and what is on it afterwards.
const ON_A_SMALL_DISK: &str = r#"mkdir "$DISK"
mount -t tmpfs -o "$ROOM" none "$DISK" || exit 90
"$BINARY" drill --mailboxes 99 --in "$DISK" "$STANDBY"
code=$?
ls -A "$DISK" | grep . && exit 91
exit "$code""#;

#[test]
fn a_full_file_system_is_named_and_nothing_stays_on_it() {
    let (pair, full) = vmail();
    let disk = pair.path("disk");
    for room in ["size=64k", "size=50m,nr_inodes=20"] {
        let _ = fs::remove_dir(&disk);
        let run = in_a_namespace(
            ON_A_SMALL_DISK,
            &[
                ("DISK", disk.as_os_str()),
                ("ROOM", room.as_ref()),
                ("BINARY", BINARY.as_ref()),
                ("STANDBY", pair.mirror.as_os_str()),
            ],
        );
        assert_ne!(run.code(), Some(90), "a mount namespace is needed: {}", run.story());
        run.refused(&[1, 23], disk.to_str().expect("ours"));
        assert_ne!(listed_as(&pair.mirror, &full)["drilled"]["result"], "whole");
    }
    drill(&pair.mirror, &["--mailboxes", "99"]).ended_with(0);
}

/// Restores all mailboxes with the crate's own hand, spoils what came, and compares.
fn found_after(pair: &Pair, label: &str, spoil: impl Fn(&Path)) -> Vec<String> {
    let place = fresh_place(pair.home());
    let repository = Repository::open(&pair.mirror, None).expect("opens");
    let view = View::open(&repository, &At::Point(label.parse().expect("a label"))).expect("opens");
    let restored = restore::to_directory(&view, "a test", &|_| true, &pair.mirror, &place).expect("restores");
    spoil(&place);
    let root = mailtwin::disk::Root::open(&place).expect("opens");
    let mut report = Drill { mailboxes: vec![TreePath::root()], ..Drill::default() };
    Comparison::new(&view, &root, None, &restored).run(&mut report).expect("compares");
    fs::remove_dir_all(&place).expect("removed");
    report.differing.iter().map(|problem| format!("{}: {}", problem.subject, problem.reason)).collect()
}

#[test]
fn whatever_is_wrong_with_what_came_back_is_seen() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let folder = Folder(pair.source.clone());
    let linked = folder.link_in(&Folder::create(&pair.source.join(".Linked")).deliver(9_001, b"Subject: a\n\nb\n"));
    pair.sync_and_settle();
    let label = backup(&pair, &[]);
    assert_eq!(found_after(&pair, &label, |_| {}), Vec::<String>::new());
    let message = |place: &Path| read_message_of(&Folder(place.to_owned()));
    let keeping_time = |path: &Path, change: &dyn Fn()| {
        let modified = fs::metadata(path).expect("it is there").modified().expect("a time");
        change();
        fs::File::options().write(true).open(path).expect("opens").set_modified(modified).expect("set");
    };
    type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;
    let spoils: Vec<(&str, Spoil)> = vec![
        ("content", Box::new(|place| keeping_time(&message(place), &|| flip(&message(place), 40)))),
        ("length", Box::new(|place| append(&message(place), b"x"))),
        ("did not come back", Box::new(|place| fs::remove_file(message(place)).expect("removed"))),
        ("was not there", Box::new(|place| fs::write(place.join("surplus"), b"x").expect("written"))),
        ("mode", Box::new(|place| set_mode(&message(place), 0o601))),
        (
            "something else",
            Box::new(|place| {
                let path = message(place);
                fs::remove_file(&path).expect("removed");
                fs::create_dir(&path).expect("made");
            }),
        ),
        (
            "time",
            Box::new(|place| {
                let file = fs::File::options().write(true).open(message(place)).expect("opens");
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
            }),
        ),
        (
            "hard link",
            Box::new(|place| {
                let path = place.join(linked.strip_prefix(&pair.source).expect("below"));
                keeping_time(&path, &|| {
                    let bytes = fs::read(&path).expect("read");
                    let mode = fs::metadata(&path).expect("there").mode();
                    fs::remove_file(&path).expect("removed");
                    fs::write(&path, bytes).expect("written");
                    set_mode(&path, mode & 0o7777);
                });
            }),
        ),
    ];
    for (word, spoil) in spoils {
        let found = found_after(&pair, &label, spoil);
        assert!(found.iter().any(|found| found.contains(word)), "{word}: {found:?}");
    }
}
