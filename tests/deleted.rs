//! `--deleted-between`: every message that is gone is found, when it went is told, and it comes back as it last was; one
//! that was moved or flagged is not taken for gone.

#[path = "support/history.rs"]
mod history;
#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use history::{Event, World, event};
use points::*;
use proptest::prelude::*;
use serde_json::Value;
use tree::*;

fn mailbox_with_a_full() -> Pair {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    pair
}

fn inbox(pair: &Pair) -> Folder {
    Folder(pair.source.clone())
}

fn archive(pair: &Pair) -> Folder {
    Folder(pair.source.join(".Archive"))
}

/// A sync, and a time after it.
fn synced(pair: &Pair) -> String {
    pair.sync(&UNGUARDED);
    now()
}

/// What is found deleted, as `find --json` has it.
fn deleted(standby: &Path, from: &str, to: &str, options: &[&str]) -> Vec<Value> {
    let run = run("find", standby, &[&["--json", "--deleted-between", from, to], options].concat()).ended_with(0);
    serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("no list: {}", run.story()))
}

fn paths(found: &[Value]) -> Vec<String> {
    found.iter().map(|one| one["path"].as_str().expect("a path").to_owned()).collect()
}

fn deleted_paths(pair: &Pair, from: &str, to: &str) -> Vec<String> {
    paths(&deleted(&pair.mirror, from, to, &[]))
}

/// A path of the source as it is printed.
fn below(pair: &Pair, path: &Path) -> String {
    path.strip_prefix(&pair.source).expect("below the source").to_str().expect("a path of ours").to_owned()
}

/// A folder's first message, by its part of the path and its content.
fn first(folder: &Folder) -> (PathBuf, Vec<u8>) {
    let path = folder.messages().into_iter().next().expect("a message");
    let content = fs::read(&path).expect("its content");
    (path, content)
}

/// Restores what is gone into a new directory: each file by its path.
fn restored(pair: &Pair, from: &str, to: &str, options: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let (run, place) = try_restore(&pair.mirror, &[&["--deleted-between", from, to], options].concat());
    run.ended_with(0);
    let all = walkdir::WalkDir::new(&place).into_iter().map(|entry| entry.expect("readable"));
    let files = all.filter(|entry| entry.file_type().is_file());
    let read = |entry: walkdir::DirEntry| {
        let path = entry.path().strip_prefix(&place).expect("below").to_str().expect("a path of ours").to_owned();
        (path, fs::read(entry.path()).expect("its content"))
    };
    files.map(read).collect()
}

// ---- what is found ----

#[test]
fn a_message_that_was_deleted_is_found_with_the_moment_and_the_batch_and_comes_back() {
    let pair = mailbox_with_a_full();
    let before = now();
    let (gone, content) = first(&archive(&pair));
    let name = below(&pair, &gone);
    fs::remove_file(&gone).expect("expunged");
    let earliest = now();
    let report = pair.sync(&UNGUARDED);
    let latest = now();
    let found = deleted(&pair.mirror, &before, &latest, &[]);
    assert!(paths(&found) == [name.as_str()], "{found:?}");
    let went = found[0]["went"].as_str().expect("a moment");
    let moment = |text: &str| text.parse::<jiff::Timestamp>().expect("RFC 3339");
    assert!((moment(&earliest)..=moment(&latest)).contains(&moment(went)), "{earliest} {went} {latest}");
    assert_eq!(found[0]["position"], report.0["position"]);
    assert_eq!(found[0]["between"], Value::Null);
    assert_eq!(found[0]["kind"], "message");
    let printed = run("find", &pair.mirror, &["--deleted-between", &before, &latest]).ended_with(0).printed();
    assert!(printed.starts_with("went ") && printed.contains(&name), "{printed}");
    assert_eq!(restored(&pair, &before, &latest, &[]), BTreeMap::from([(name, content)]));
    assert!(deleted_paths(&pair, &latest, &now()).is_empty());
}

#[test]
fn a_message_that_came_and_went_between_two_points_is_found_and_comes_back() {
    let pair = mailbox_with_a_full();
    let before = now();
    let body = letter(60_000, 3_000);
    let path = inbox(&pair).deliver(60_000, &body);
    let there = synced(&pair);
    fs::remove_file(&path).expect("expunged");
    let after = synced(&pair);
    backup(&pair, &["--diff"]);
    backup(&pair, &["--full"]);
    assert_eq!(deleted_paths(&pair, &before, &after), [below(&pair, &path)]);
    assert_eq!(deleted_paths(&pair, &there, "now"), [below(&pair, &path)]);
    assert!(deleted_paths(&pair, &before, &there).is_empty(), "it was there yet");
    assert_eq!(restored(&pair, &before, &after, &[]), BTreeMap::from([(below(&pair, &path), body)]));
}

#[test]
fn moves_flags_and_reading_are_no_deletions() {
    let pair = mailbox_with_a_full();
    let before = now();
    let (in_inbox, in_archive) = (inbox(&pair).messages(), archive(&pair).messages());
    let flagged = inbox(&pair).set_flags(&in_inbox[0], "FRS");
    let fresh = in_inbox.iter().find(|path| path.starts_with(inbox(&pair).new_dir())).expect("a new message");
    inbox(&pair).take_in(fresh, "");
    synced(&pair);
    archive(&pair).move_in(&flagged);
    inbox(&pair).move_in(&in_archive[0]);
    rename(&pair.source.join(".Project 0"), &pair.source.join(".Project 1"));
    synced(&pair);
    // As a client does that has no MOVE: first the copy, and the removal in a cycle of its own.
    let copied = archive(&pair).link_in(&in_inbox[1]);
    synced(&pair);
    fs::remove_file(&in_inbox[1]).expect("expunged");
    let after = synced(&pair);
    assert!(copied.exists());
    assert_eq!(deleted_paths(&pair, &before, &after), Vec::<String>::new());
}

#[test]
fn a_message_that_moved_and_then_went_is_found_once_where_it_last_was() {
    let pair = mailbox_with_a_full();
    let before = now();
    let (path, content) = first(&inbox(&pair));
    let moved = archive(&pair).move_in(&path);
    synced(&pair);
    let flagged = archive(&pair).set_flags(&moved, "FST");
    synced(&pair);
    fs::remove_file(&flagged).expect("expunged");
    let after = synced(&pair);
    assert_eq!(deleted_paths(&pair, &before, &after), [below(&pair, &flagged)]);
    assert_eq!(restored(&pair, &before, &after, &[]), BTreeMap::from([(below(&pair, &flagged), content)]));
}

#[test]
fn a_copy_that_was_there_before_does_not_hide_that_a_message_went_from_its_folder() {
    let pair = mailbox_with_a_full();
    let (path, _) = first(&inbox(&pair));
    let copied = archive(&pair).link_in(&path);
    let before = synced(&pair);
    fs::remove_file(&path).expect("expunged");
    let between = synced(&pair);
    fs::remove_file(&copied).expect("expunged");
    let after = synced(&pair);
    assert_eq!(deleted_paths(&pair, &before, &between), [below(&pair, &path)]);
    let mut both = [below(&pair, &path), below(&pair, &copied)];
    both.sort();
    let mut found = deleted_paths(&pair, &before, &after);
    found.sort();
    assert_eq!(found, both);
}

#[test]
fn a_message_that_is_there_again_is_not_gone() {
    let pair = mailbox_with_a_full();
    let before = now();
    let (path, content) = first(&archive(&pair));
    fs::remove_file(&path).expect("expunged");
    let without = synced(&pair);
    fs::write(&path, content).expect("put back");
    let after = synced(&pair);
    assert_eq!(deleted_paths(&pair, &before, &without), [below(&pair, &path)]);
    assert!(deleted_paths(&pair, &before, &after).is_empty());
}

#[test]
fn a_message_that_went_to_another_mailbox_is_gone_from_its_own() {
    let pair = Pair::new();
    make_vmail(&pair.source, 2);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let before = now();
    let of = |user: u32| Folder(pair.source.join(format!("example.org/user{user}/Maildir")));
    let (path, _) = first(&of(0));
    of(1).move_in(&path);
    let after = synced(&pair);
    assert_eq!(deleted_paths(&pair, &before, &after), [below(&pair, &path)]);
    let of_user = |user: &str| paths(&deleted(&pair.mirror, &before, &after, &["--mailbox", user])).len();
    assert_eq!((of_user("user0@example.org"), of_user("user1@example.org")), (1, 0));
    // A mailbox of another name has lost nothing.
    rename(&pair.source.join("example.org/user1"), &pair.source.join("example.org/renamed"));
    let later = synced(&pair);
    assert_eq!(deleted_paths(&pair, &after, &later), Vec::<String>::new());
}

#[test]
fn a_folder_that_was_deleted_comes_back_with_its_messages_out_of_several_moments() {
    let pair = mailbox_with_a_full();
    let before = now();
    let folder = archive(&pair);
    let mut expected = BTreeMap::new();
    for number in [50, 51, 52] {
        let path = folder.file(61_000 + number, "Sa", &letter(number, 900));
        synced(&pair);
        if number == 50 {
            expected.insert(below(&pair, &path), fs::read(&path).expect("its content"));
            fs::remove_file(path).expect("expunged");
            synced(&pair);
        }
    }
    for path in folder.messages() {
        expected.insert(below(&pair, &path), fs::read(&path).expect("its content"));
    }
    fs::remove_dir_all(&folder.0).expect("the folder is deleted");
    let after = synced(&pair);
    assert_eq!(deleted_paths(&pair, &before, &after).len(), expected.len());
    assert_eq!(restored(&pair, &before, &after, &[]), expected);
    let (_, place) = try_restore(&pair.mirror, &["--deleted-between", &before, &after]);
    for part in ["cur", "new", "tmp"] {
        assert!(place.join(".Archive").join(part).is_dir(), "without {part}");
    }
}

#[test]
fn what_is_gone_is_put_back_in_place_once_with_the_flags_and_keywords_that_it_had() {
    let pair = mailbox_with_a_full();
    let before = now();
    let folder = archive(&pair);
    folder.write_keywords(&["a", "b", "c"]);
    let message = folder.file(62_000, "FSb", &letter(62_000, 900));
    synced(&pair);
    fs::remove_file(&message).expect("expunged");
    // `b` has another letter by now.
    folder.write_keywords(&["a", "x", "b"]);
    let after = synced(&pair);
    let served = copy_of(&pair.source, "served");
    let there = messages_beneath(&served);
    let options = ["--deleted-between", &before, &after];
    let in_place = format!("--in-place={}", served.display());
    for _ in 0..2 {
        run("restore", &pair.mirror, &[&options[..], &[&in_place]].concat()).ended_with(0);
        assert_eq!(messages_beneath(&served), there + 1);
    }
    let names = names_in(&served.join(".Archive/cur"));
    let back = names.iter().find(|name| name.to_string_lossy().contains("-restored1")).expect("it came back");
    assert!(back.to_string_lossy().ends_with(":2,FSc"), "{back:?}");
    run("restore", &pair.mirror, &[&options[..], &[&in_place, "--into", "Restored"]].concat()).ended_with(0);
    assert_eq!(names_in(&served.join(".Restored/cur")).len(), 1);
}

#[test]
fn filters_pick_of_what_is_gone() {
    let pair = mailbox_with_a_full();
    let before = now();
    for folder in [inbox(&pair), archive(&pair)] {
        for path in &folder.messages()[..2] {
            fs::remove_file(path).expect("expunged");
        }
    }
    let after = synced(&pair);
    assert_eq!(deleted(&pair.mirror, &before, &after, &[]).len(), 4);
    assert_eq!(deleted(&pair.mirror, &before, &after, &["--folder", "Archive"]).len(), 2);
    assert_eq!(deleted(&pair.mirror, &before, &after, &["--subject", "letter 101"]).len(), 1);
    assert_eq!(restored(&pair, &before, &after, &["--subject", "letter 101"]).len(), 1);
    assert_eq!(restored(&pair, &before, &after, &["--folder", "Archive"]).len(), 2);
    let dry = ["--deleted-between", &before, &after, "--to", "/nowhere", "--dry-run", "--json"];
    assert_eq!(run("restore", &pair.mirror, &dry).ended_with(0).report().count("created"), 4);
}

#[test]
fn a_restore_of_what_is_gone_is_finished_after_a_kill_at_any_step() {
    let pair = mailbox_with_a_full();
    let before = now();
    fs::remove_dir_all(&archive(&pair).0).expect("the folder is deleted");
    let after = synced(&pair);
    let options = ["--deleted-between", &before, &after];
    let expected = restored(&pair, &before, &after, &[]);
    let place = fresh_place(pair.home());
    let to = place.to_str().expect("ours");
    let all = [&options[..], &["--to", to]].concat();
    let steps = steps_taken("restore", &pair.mirror, &all);
    for step in tree::points(steps - 5, 8) {
        let _ = fs::remove_dir_all(&place);
        assert!(struck_at("restore", &pair.mirror, &all, &format!("kill@{step}")).was_killed());
        run("restore", &pair.mirror, &all).ended_with(0);
        let came = messages_beneath(&place);
        assert_eq!(came, expected.len(), "kill@{step} of {steps}");
    }
}

// ---- where the log is not kept ----

#[test]
fn where_the_log_is_not_kept_points_are_compared() {
    let pair = mailbox_with_a_full();
    let before = now();
    let mut expected = BTreeMap::new();
    let mut take = |folder: &Folder| {
        let (path, content) = first(folder);
        fs::remove_file(&path).expect("expunged");
        expected.insert(below(&pair, &path), content);
        below(&pair, &path)
    };
    // Gone between two points of one full; a message that no point has; gone between a point and another full.
    let one = take(&archive(&pair));
    let unseen = inbox(&pair).deliver(63_000, &letter(63_000, 400));
    synced(&pair);
    fs::remove_file(&unseen).expect("expunged");
    let moved = inbox(&pair).messages()[0].clone();
    archive(&pair).move_in(&moved);
    synced(&pair);
    backup(&pair, &["--diff"]);
    let other = take(&Folder(pair.source.join(".Sent")));
    fs::remove_dir_all(pair.source.join(".Project 0")).map_or_else(|error| panic!("{error}"), |()| ());
    synced(&pair);
    backup(&pair, &["--full"]);
    let expired = now();
    let last = take(&inbox(&pair));
    let after = synced(&pair);
    let everything = deleted_paths(&pair, &before, &after);
    assert!(everything.contains(&below(&pair, &unseen)), "{everything:?}");

    run("expire", &pair.mirror, &["--keep-log", "0s"]).ended_with(0);
    let words = ["--json", "--deleted-between", &before, &after];
    let told = run("find", &pair.mirror, &words).ended_with(0);
    told.spoke_clearly("is not kept");
    let found: Vec<Value> = serde_json::from_slice(&told.stdout).expect("a list");
    let wanted: Vec<String> = everything.iter().filter(|path| **path != below(&pair, &unseen)).cloned().collect();
    assert_eq!(paths(&found), wanted);
    let of = |path: &String| found.iter().find(|one| one["path"] == **path).expect("it is found");
    let labels = labels(&pair.mirror);
    for (path, pair_of) in [(&one, &labels[0..2]), (&other, &labels[1..3])] {
        assert_eq!(of(path)["between"], Value::from(pair_of.to_vec()), "{path}");
        assert_eq!(of(path)["went"], listed_as(&pair.mirror, &pair_of[1])["moment"]);
    }
    assert!(of(&last)["between"].is_null() && of(&last)["position"].is_string());
    let back = restored(&pair, &before, &after, &[]);
    assert_eq!(back.len(), wanted.len());
    for (path, content) in &expected {
        assert_eq!(back.get(path), Some(content), "{path}");
    }
    assert!(back.keys().any(|path| path.starts_with(".Project 0/cur/")));
    // Behind the last point that the log leads on from nothing is compared.
    let quiet = run("find", &pair.mirror, &["--json", "--deleted-between", &expired, &after]).ended_with(0);
    assert!(quiet.said().is_empty(), "{}", quiet.story());
    assert_eq!(paths(&serde_json::from_slice::<Vec<Value>>(&quiet.stdout).expect("a list")), [last]);
}

#[test]
fn wrong_times_are_refused() {
    let pair = mailbox_with_a_full();
    let (early, late) = ("2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z");
    for verb in ["find", "restore"] {
        let to = if verb == "restore" { &["--to", "/nowhere"][..] } else { &[] };
        let with = |words: &[&str]| run(verb, &pair.mirror, &[to, words].concat());
        with(&["--deleted-between", late, early]).refused(&[2], "--deleted-between");
        with(&["--deleted-between", "sometimes", late]).refused(&[2], "sometimes");
        with(&["--deleted-between", early]).ended_with(2);
        with(&["--deleted-between", early, late, "--at", "now"]).ended_with(2);
        with(&["--deleted-between", "2001-01-01T00:00:00Z", late]).refused(&[1], &labels(&pair.mirror)[0]);
    }
}

/// What the log does not speak of is not read: a part of the list of the full that is damaged is met by none.
#[test]
fn no_more_of_a_point_is_read_than_the_log_speaks_of() {
    let pair = Pair::new();
    for (name, first) in [(".A", 0), (".B", 2_000), (".C", 4_000)] {
        let folder = Folder::create(&pair.source.join(name));
        for number in first..first + 1_500 {
            fs::write(folder.cur().join(format!("{number}.M1P1.mx:2,S")), format!("Subject: {number}\n"))
                .expect("a message");
        }
    }
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    let before = now();
    let (path, _) = first(&Folder(pair.source.join(".A")));
    fs::remove_file(&path).expect("expunged");
    let after = synced(&pair);
    let manifest = points_of(&pair.mirror).join(label).join("manifest");
    let mut bytes = fs::read(&manifest).expect("the manifest");
    let at = bytes.len() * 5 / 6;
    bytes[at] ^= 0x10;
    fs::write(&manifest, bytes).expect("written");
    run("find", &pair.mirror, &[]).ended_with(23);
    assert_eq!(deleted_paths(&pair, &before, &after), [below(&pair, &path)]);
}

// ---- any history ----

/// Folder and base name of each message, and the content under them.
type Present = BTreeMap<(Vec<u8>, Vec<u8>), BTreeSet<(u64, u64)>>;

fn present(tree: &Tree) -> Present {
    let mut present = Present::new();
    for (content, paths) in messages_by_content(tree) {
        for path in paths {
            present.entry(folder_and_base(&path)).or_default().insert(content);
        }
    }
    present
}

fn folder_and_base(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = parts.last().expect("a name");
    let end = name.iter().position(|byte| *byte == b':').unwrap_or(name.len());
    (parts[..parts.len() - 2].join(&b'/'), name[..end].to_vec())
}

/// What must be found, and what may be, from what was remembered after each sync.
fn confirm(world: &World, moments: &[Remembered], from: usize, to: usize) {
    let at: Vec<Present> = moments[from..=to].iter().map(|one| present(&one.tree)).collect();
    let last = at.last().expect("a moment");
    let standing: BTreeSet<&(u64, u64)> = last.values().flatten().collect();
    let gone: Vec<_> = at.iter().flatten().filter(|(key, _)| !last.contains_key(*key)).collect();
    let (from, to) = (&moments[from].moment, &moments[to].moment);
    let found = deleted_paths(&world.pair, from, to);
    let mut keys = BTreeSet::new();
    for path in &found {
        let key = folder_and_base(path.as_bytes());
        assert!(gone.iter().any(|(one, _)| **one == key), "it is not gone: {path}");
        assert!(keys.insert(key), "twice: {path}");
    }
    // Of a message that stands nowhere any more the last place is found.
    for ((folder, base), contents) in &gone {
        if contents.iter().all(|content| !standing.contains(content)) {
            assert!(keys.iter().any(|(_, one)| one == base), "not found: {} of {}", shown(base), shown(folder));
        }
    }
    // One that was in one folder at any moment, and is there, has moved at most.
    for (_, base) in last.keys() {
        let places = |one: &Present| one.keys().filter(|(_, other)| other == base).count();
        let is_alone = at.iter().all(|one| places(one) <= 1);
        assert!(!is_alone || !keys.iter().any(|(_, one)| one == base), "it is there: {}", shown(base));
    }
    let (run, place) = try_restore(&world.pair.mirror, &["--deleted-between", from, to]);
    run.ended_with(0);
    let back = present(&restored_tree(&place, true));
    assert_eq!(back.keys().collect::<BTreeSet<_>>(), keys.iter().collect::<BTreeSet<_>>());
    for (key, contents) in back {
        let was = |one: &Present| one.get(&key).is_some_and(|were| contents.is_subset(were));
        assert!(at.iter().any(was), "it never was so: {} in {}", shown(&key.1), shown(&key.0));
    }
}

fn live_and_look_for_what_went(mut world: World, history: &[(Event, bool)]) {
    world.is_thrifty = false;
    world.sync();
    backup(&world.pair, &[]);
    let mut moments = vec![remember(&world.pair)];
    for (event, makes_a_point) in history {
        world.happen(event);
        world.sync();
        moments.push(remember(&world.pair));
        if *makes_a_point {
            backup(&world.pair, &[]);
        }
    }
    let last = moments.len() - 1;
    confirm(&world, &moments, 0, last);
    confirm(&world, &moments, last / 3, last);
    confirm(&world, &moments, last / 3, last * 2 / 3);
}

/// `PROPTEST_CASES` and `MAILTWIN_FULL_SWEEP` ask for more.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if asked { default.cases } else { cases * if full_sweep() { 20 } else { 1 } },
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..default
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn after_any_history_what_went_is_found_and_comes_back(
        history in prop::collection::vec((event(), prop::bool::weighted(0.1)), 1..40),
    ) {
        live_and_look_for_what_went(World::new(Pair::new(), false), &history);
    }
}

proptest! {
    #![proptest_config(config(6))]

    #[test]
    fn after_any_history_of_nested_folders_what_went_is_found_and_comes_back(
        history in prop::collection::vec((event(), prop::bool::weighted(0.1)), 1..40),
    ) {
        live_and_look_for_what_went(World::new(Pair::new(), true), &history);
    }
}
