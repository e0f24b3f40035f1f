//! `verify --mirror`: bytes that rotted on the mirror, and files that it lost, are named and put right; what a mail
//! server did there is left as it is.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use points::*;
use serde_json::Value;
use tree::*;

/// A mailbox, its mirror with changes behind the newest point, and all times past.
fn mailbox() -> Pair {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.sync_and_settle();
    backup(&pair, &[]);
    Folder(pair.source.clone()).deliver(9_001, &letter(9_001, 3_000));
    append(&pair.source.join("subscriptions"), b"x\n");
    pair.sync_and_settle();
    pair
}

fn verify(pair: &Pair, options: &[&str]) -> Run {
    run("verify", &pair.mirror, &[&["--mirror", "--json"], options].concat())
}

fn object(run: &Run) -> Value {
    let list: Vec<Value> = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", run.story()));
    list.into_iter().next().expect("an object")
}

/// Bytes change and no time that can be set does. In `cur` and `new` nobody looks at a message's change time.
fn rot(path: &Path) {
    let modified = fs::metadata(path).expect("the file").modified().expect("a time");
    let mut bytes = fs::read(path).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).expect("written");
    fs::File::options().write(true).open(path).expect("opens").set_modified(modified).expect("set");
}

fn subjects(object: &Value, field: &str) -> Vec<String> {
    let list = object[field].as_array().unwrap_or_else(|| panic!("no list {field}: {object}"));
    list.iter().map(|problem| problem["subject"].as_str().expect("a path").to_owned()).collect()
}

fn name(path: &Path) -> String {
    shown(path.as_os_str().as_encoded_bytes())
}

fn messages(pair: &Pair) -> Vec<PathBuf> {
    folders_beneath(&pair.mirror).iter().flat_map(Folder::messages).collect()
}

#[test]
fn a_sound_mirror_is_read_whole_and_nothing_is_done_to_it() {
    let pair = mailbox();
    let before = fingerprint(&pair.source);
    let run = verify(&pair, &[]).ended_with(0);
    let found = object(&run);
    let files = actual_mirror(&pair).values().filter(|entry| matches!(entry.kind, Kind::File(..))).count();
    assert_eq!(found["files"], files, "{found}");
    assert_eq!((&found["mended"], subjects(&found, "found").len()), (&Value::from(0), 0));
    assert!(fingerprint(&pair.source) == before);
    assert_mirrored(&pair);
    pair.sync(&UNGUARDED).shipped_nothing();
}

#[test]
fn a_message_that_rotted_is_named_and_comes_back_under_its_name_with_its_time_and_mode() {
    let pair = mailbox();
    // One that the point has, and one that only the log has.
    let of_log = messages(&pair).into_iter().find(|path| fs::read(path).expect("read") == letter(9_001, 3_000));
    let rotten = [messages(&pair)[0].clone(), of_log.expect("it is there")];
    rotten.iter().for_each(|path| rot(path));
    let only_looked = verify(&pair, &["--no-mend"]).ended_with(23);
    let mut wanted: Vec<String> = rotten.iter().map(|path| name(path)).collect();
    wanted.sort();
    for field in ["found", "damage"] {
        let mut found = subjects(&object(&only_looked), field);
        found.sort();
        assert_eq!(found, wanted, "{}", only_looked.story());
    }
    assert!(!is_mirrored(&pair));
    let run = verify(&pair, &[]).ended_with(0);
    assert_eq!(object(&run)["mended"], 2, "{}", run.story());
    assert!(wanted.iter().all(|path| run.said().contains(path.as_str())), "{}", run.story());
    assert_mirrored(&pair);
    verify(&pair, &["--no-mend"]).ended_with(0);
    pair.sync(&UNGUARDED).shipped_nothing();
    assert_mirrored(&pair);
}

#[test]
fn names_of_one_file_that_rotted_are_names_of_one_file_again() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let first = Folder(pair.source.clone()).deliver(9_001, &letter(9_001, 3_000));
    Folder::create(&pair.source.join(".Linked")).link_in(&first);
    pair.sync_and_settle();
    backup(&pair, &[]);
    let links = |path: &PathBuf| fs::metadata(path).expect("there").nlink() == 2;
    let linked: Vec<PathBuf> = messages(&pair).into_iter().filter(links).collect();
    assert_eq!(linked.len(), 2);
    rot(&linked[0]);
    let run = verify(&pair, &[]).ended_with(0);
    assert_eq!(object(&run)["mended"], 2, "{}", run.story());
    assert_mirrored(&pair);
    pair.sync(&UNGUARDED).shipped_nothing();
}

#[test]
fn what_a_mail_server_did_on_the_mirror_is_left_as_it_is() {
    let pair = mailbox();
    let inbox = Folder(pair.mirror.clone());
    let [flagged, gone, moved] = [0, 1, 2].map(|index| inbox.messages()[index].clone());
    let flagged = inbox.set_flags(&flagged, "FT");
    fs::remove_file(&gone).expect("expunged");
    let moved = Folder::create(&pair.mirror.join(".Here")).move_in(&moved);
    let own = inbox.deliver(9_500, b"Subject: delivered here\n\n.\n");
    let keep = |tree: BTreeMap<Vec<u8>, Entry>| tree.into_iter().map(|(path, entry)| (path, entry.kind)).collect();
    let before: BTreeMap<Vec<u8>, Kind> = keep(actual_mirror(&pair));
    let run = verify(&pair, &[]).ended_with(0);
    assert_eq!(subjects(&object(&run), "found"), Vec::<String>::new());
    let after: BTreeMap<Vec<u8>, Kind> = keep(actual_mirror(&pair));
    assert!(before == after);
    assert!(flagged.is_file() && moved.is_file() && own.is_file() && !gone.exists());
    rot(&flagged);
    let run = verify(&pair, &[]).ended_with(0);
    assert_eq!(subjects(&object(&run), "found"), [name(&flagged)]);
    assert!(keep(actual_mirror(&pair)) == after);
}

#[test]
fn a_sound_set_of_files_is_read_whole_and_left_as_it_is() {
    let pair = Pair::of_files();
    fs::create_dir(pair.source.join("below")).expect("a directory");
    fs::write(pair.source.join("below/large"), noise(1, 3_000_000)).expect("written");
    fs::write(pair.source.join("empty"), b"").expect("written");
    set_mode(&pair.source.join("below/large"), 0o640);
    pair.sync_and_settle();
    backup(&pair, &[]);
    verify(&pair, &[]).ended_with(0);
    assert_mirrored(&pair);
}

#[test]
fn what_the_repository_has_lost_as_well_is_named_and_left() {
    let pair = mailbox();
    let label = labels(&pair.mirror).remove(0);
    let rotten = Folder(pair.mirror.join(".Archive")).messages();
    let rotten = rotten.first().cloned().unwrap_or_else(|| messages(&pair)[0].clone());
    rot(&rotten);
    let bytes = fs::read(&rotten).expect("read");
    let directory = points_of(&pair.mirror).join(&label);
    for segment in names_in(&directory).into_iter().filter(|name| name.len() == 16) {
        fs::remove_file(directory.join(segment)).expect("removed");
    }
    let run = verify(&pair, &[]).ended_with(23);
    assert_eq!(subjects(&object(&run), "damage"), [name(&rotten)], "{}", run.story());
    assert!(fs::read(&rotten).expect("read") == bytes);
}

#[test]
fn without_a_point_there_is_nothing_to_hold_it_against() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.sync_and_settle();
    verify(&pair, &[]).refused(&[1], "mailtwin backup");
    run("verify", &pair.mirror, &["--mirror", "--all"]).ended_with(2);
}

#[test]
fn while_a_run_is_at_work_it_waits_its_turn() {
    let pair = mailbox();
    let mut held = std::process::Command::new("flock");
    held.arg(&pair.mirror).arg(BINARY).args(["verify", "--mirror"]).arg(&pair.mirror);
    finish(&mut held).refused(&[10], "mirror");
}

#[test]
fn killed_or_failed_anywhere_it_is_finished_by_the_next_run() {
    let pair = mailbox();
    for message in messages(&pair).iter().take(3) {
        rot(message);
    }
    let rotten = copy_of(&pair.mirror, "rotten");
    let expected = expected_mirror(&pair);
    let steps = steps_taken("verify", &copy_of(&rotten, "counted"), &["--mirror"]);
    assert!(steps > 10, "{steps} steps");
    for kind in ["kill@", "eio@", "enospc@+"] {
        for step in tree::points(steps, 10) {
            let fault = kind.replace('@', &format!("@{step}"));
            let copy = copy_of(&rotten, "struck");
            let struck = struck_at("verify", &copy, &["--mirror"], &fault);
            assert!(struck.was_killed() || matches!(struck.code(), Some(0 | 1 | 23)), "{fault}: {}", struck.story());
            run("verify", &copy, &["--mirror"]).ended_with(0);
            let mut actual = read_tree(&copy);
            actual.retain(|path, _| path != b".mailtwin" && !path.starts_with(b".mailtwin/"));
            forget_times_of_message_directories(&mut actual);
            assert_same(&fault, &expected, &actual);
        }
    }
}
