//! What an earlier run looked for, written down at each end: whatever changes after it is found, and whatever is wrong
//! with it costs time and nothing else.

#[path = "support/mailbox.rs"]
mod mailbox;
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mailbox::*;
use tree::*;

/// The master's and the slave's.
fn sketches(pair: &Pair) -> Vec<PathBuf> {
    let states = names_in(&pair.state).into_iter().map(|name| pair.state.join(name));
    states.chain([pair.mirror.join(".mailtwin")]).map(|state| state.join("sketch")).collect()
}

/// A pair in sync whose ends have both written down what they look for, and use it.
fn sketched() -> Pair {
    let pair = synced_mailbox();
    settle_sketches(&pair);
    pair
}

type Change = fn(&Pair);

fn settle_sketches(pair: &Pair) {
    for sketch in sketches(pair).iter().filter(|sketch| sketch.exists()) {
        fs::remove_file(sketch).expect("removes the sketch");
    }
    eventually("both ends write a sketch", Duration::from_secs(30), || {
        pair.sync(&[]).shipped_nothing();
        sketches(pair).iter().all(|sketch| sketch.exists())
    });
    assert_eq!(pair.sync(&[]).count("directories_read"), 0);
}

#[test]
fn every_kind_of_change_is_found_behind_a_sketch() {
    let changes: [(&str, Change); 10] = [
        ("a delivery", |pair| drop(inbox(pair).deliver(900, b"Subject: new\n\nnew\n"))),
        ("a flag", |pair| {
            let sent = folder(pair, ".Sent");
            sent.set_flags(&read_message(&sent), "FRS");
        }),
        ("a removal", |pair| fs::remove_file(read_message(&folder(pair, ".Sent"))).expect("removes")),
        ("a line appended in place", |pair| {
            let inbox = inbox(pair);
            inbox.append_uid(99, &read_message(&inbox));
        }),
        ("a control file replaced", |pair| inbox(pair).write_keywords(&["$Junk", "$Other"])),
        ("the mode of cur", |pair| set_mode(&inbox(pair).cur(), 0o750)),
        ("the mode of tmp", |pair| set_mode(&folder(pair, ".Sent").0.join("tmp"), 0o750)),
        ("the mode of a control file", |pair| set_mode(&inbox(pair).control("dovecot-uidlist"), 0o640)),
        ("a folder", |pair| drop(Folder::create(&inbox(pair).0.join(".Another")))),
        ("a folder renamed", |pair| rename(&folder(pair, ".Sent").0, &inbox(pair).0.join(".Posted"))),
    ];
    let pair = sketched();
    for (what, change) in changes {
        change(&pair);
        pair.sync(&[]);
        let wrong = differences(&expected_mirror(&pair), &actual_mirror(&pair));
        assert!(wrong.is_empty(), "after {what}: {wrong:?}");
        settle_sketches(&pair);
    }
}

#[test]
fn what_is_changed_on_the_mirror_is_found_behind_a_sketch() {
    let pair = sketched();
    let mirrored = Folder(pair.mirror.join(inbox(&pair).0.strip_prefix(&pair.source).expect("is beneath")));
    fs::remove_file(&mirrored.messages()[0]).expect("removes a message of the mirror");
    set_mode(&mirrored.control("dovecot-uidlist"), 0o604);
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_damaged_or_torn_sketch_is_passed_over() {
    let pair = sketched();
    let whole: Vec<(PathBuf, Vec<u8>)> =
        sketches(&pair).into_iter().map(|path| (path.clone(), fs::read(path).expect("reads the sketch"))).collect();
    for turn in 0..40 {
        for (path, bytes) in &whole {
            let mut bytes = bytes.clone();
            let place = bytes.len() * turn / 40;
            match turn % 2 {
                0 => bytes[place] ^= 1 << (turn % 8),
                _ => bytes.truncate(place),
            }
            fs::write(path, bytes).expect("writes the sketch");
        }
        inbox(&pair).deliver(1000 + turn as u64, b"Subject: one more\n\nbody\n");
        pair.sync(&[]);
        assert_mirrored(&pair);
    }
}

#[test]
fn a_sketch_of_another_catalogue_does_not_count() {
    let pair = sketched();
    let paths = sketches(&pair);
    let old: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("reads the sketch")).collect();
    // Both ends are made anew, of a mirror in which a message is missing: a sketch that still counted would say that
    // every folder is as recorded.
    fs::remove_dir_all(&pair.state).expect("removes the master's state");
    fs::remove_dir_all(pair.mirror.join(".mailtwin")).expect("removes the slave's state");
    let mirrored = Folder(pair.mirror.join(inbox(&pair).0.strip_prefix(&pair.source).expect("is beneath")));
    fs::remove_file(&mirrored.messages()[0]).expect("removes a message of the mirror");
    for (path, bytes) in paths.iter().zip(&old) {
        fs::create_dir_all(path.parent().expect("a state")).expect("makes the state");
        fs::write(path, bytes).expect("puts the old sketch back");
    }
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_dry_run_writes_no_sketch() {
    let pair = synced_mailbox();
    eventually("no directory is read", Duration::from_secs(30), || pair.sync(&[]).count("directories_read") == 0);
    for sketch in sketches(&pair).iter().filter(|sketch| sketch.exists()) {
        fs::remove_file(sketch).expect("removes the sketch");
    }
    pair.try_sync(&["--dry-run"]).ended_with(0);
    assert!(sketches(&pair).iter().all(|sketch| !sketch.exists()));
}
