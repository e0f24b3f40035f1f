//! `restore --in-place` with `--mode` and `--flags`: how much of a tree that is in use is made as it was.

#[path = "support/mailbox.rs"]
mod mailbox;
#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use mailbox::*;
use mailtwin::backup;
use mailtwin::repository::layout::Repository;
use mailtwin::repository::view::{At, View};
use mailtwin::restore::in_place::{self, Mode, Order};
use points::*;
use tree::*;

/// A standby with a point of a mailbox, and its inbox there.
fn kept() -> (Pair, String, Folder) {
    let pair = synced_mailbox();
    let label = backup(&pair, &[]);
    let inbox = on_mirror(&pair, &inbox(&pair));
    (pair, label, inbox)
}

fn on_mirror(pair: &Pair, folder: &Folder) -> Folder {
    Folder(pair.mirror.join(folder.0.strip_prefix(&pair.source).expect("is beneath")))
}

/// Each message by the folder that it is in and its content: how often it is there with which flags.
fn messages(root: &Path) -> BTreeMap<(PathBuf, Vec<u8>, String), usize> {
    let mut found = BTreeMap::new();
    for folder in folders_beneath(root) {
        for message in folder.messages() {
            let name = message.file_name().and_then(OsStr::to_str).expect("text").to_owned();
            let flags = name.split_once(":2,").map_or(String::new(), |(_, flags)| flags.to_owned());
            let place = folder.0.strip_prefix(root).expect("is beneath").to_owned();
            *found.entry((place, fs::read(&message).expect("reads"), flags)).or_default() += 1;
        }
    }
    found
}

fn restored(pair: &Pair, options: &[&str]) -> Report {
    run("restore", &pair.mirror, &[&["--in-place", "--json"], options].concat()).ended_with(0).report()
}

fn counts(report: &Report) -> [u64; 5] {
    ["created", "merged", "replaced", "removed", "failed"].map(|name| report.count(name))
}

#[test]
fn flags_are_kept_unless_it_is_said_otherwise() {
    let (pair, label, inbox) = kept();
    let message = read_message(&inbox);
    let name = message.file_name().and_then(OsStr::to_str).expect("text");
    let (base, then) = name.split_once(":2,").expect("flags");
    let wanted: [(&str, &str, String); 3] = [
        ("keep", "FT", "FT".to_owned()),
        ("union", "FT", {
            let mut all: Vec<char> = then.chars().chain("FT".chars()).collect();
            all.sort_unstable();
            all.dedup();
            all.into_iter().collect()
        }),
        ("point", "FT", then.to_owned()),
    ];
    let mut last = message.clone();
    for (flags, now, wanted) in wanted {
        inbox.set_flags(&last, now);
        let merged = u64::from(wanted != now);
        assert_eq!(counts(&restored(&pair, &["--point", &label, "--flags", flags])), [0, merged, 0, 0, 0], "{flags}");
        last = inbox.cur().join(format!("{base}:2,{wanted}"));
        assert!(last.exists(), "{flags}: {:?}", inbox.messages());
        assert_eq!(counts(&restored(&pair, &["--point", &label, "--flags", flags])), [0; 5], "{flags}, again");
    }
}

#[test]
fn keyword_letters_are_those_of_the_folder_as_it_is() {
    let pair = synced_mailbox();
    let there = inbox(&pair);
    there.write_keywords(&["$Work", "$Home"]);
    let message = there.set_flags(&read_message(&there), "Sb");
    let name = message.file_name().and_then(OsStr::to_str).expect("text").to_owned();
    pair.sync(&[]);
    let label = backup(&pair, &[]);
    let inbox = on_mirror(&pair, &there);
    inbox.write_keywords(&["$Home", "$Junk"]);
    let at = inbox.set_flags(&inbox.cur().join(&name), "Fb");
    restored(&pair, &["--point", &label, "--flags", "union"]);
    assert!(!at.exists());
    // $Home was b, and is a now; b is $Junk now, and stays.
    let (base, _) = name.split_once(":2,").expect("flags");
    assert!(inbox.cur().join(format!("{base}:2,FSab")).exists(), "{:?}", inbox.messages());
    assert_eq!(fs::read(inbox.control("dovecot-keywords")).expect("reads"), b"0 $Home\n1 $Junk\n");
}

#[test]
fn changed_gives_back_contents_and_touches_nothing_else() {
    let (pair, label, inbox) = kept();
    let subscriptions = inbox.control("subscriptions");
    let before = fs::read(&subscriptions).expect("subscriptions");
    fs::write(&subscriptions, b"V\t2\n\nOther\n").expect("writes");
    let uidlist = inbox.control("dovecot-uidlist");
    append(&uidlist, b"900 :1.later\n");
    let (list, extra) = (fs::read(&uidlist).expect("a uidlist"), inbox.control("extra"));
    fs::write(&extra, b"not there before").expect("writes");
    let later = inbox.deliver(900, b"Subject: later\n\nlater\n");
    // A bit of a message has flipped.
    let rotten = read_message(&inbox);
    let whole = fs::read(&rotten).expect("reads");
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&rotten, bytes).expect("writes");
    let report = restored(&pair, &["--point", &label, "--mode", "changed"]);
    assert_eq!(counts(&report), [0, 0, 2, 0, 0], "{}", report.0);
    assert_eq!(fs::read(&subscriptions).expect("reads"), before);
    assert_eq!(fs::read(&rotten).expect("reads"), whole);
    assert_eq!(fs::read(&uidlist).expect("reads"), list);
    assert!(extra.exists() && later.exists());
    assert_eq!(counts(&restored(&pair, &["--point", &label, "--mode", "changed"])), [0; 5]);
}

/// Much happens to a mailbox on the standby.
fn change_much(pair: &Pair, inbox: &Folder) {
    inbox.deliver(900, b"Subject: later\n\nlater\n");
    fs::remove_file(read_message(inbox)).expect("removes a message");
    let read = read_message(inbox);
    inbox.set_flags(&read, "FRST");
    fs::write(inbox.control("subscriptions"), b"V\t2\n\nOther\n").expect("writes");
    fs::write(inbox.control("extra"), b"not there before").expect("writes");
    let sent = on_mirror(pair, &folder(pair, ".Sent"));
    fs::remove_dir_all(&sent.0).expect("a folder goes");
    let another = Folder::create(&inbox.0.join(".Another"));
    another.file(901, "S", b"Subject: in another\n\nanother\n");
    another.rewrite_uidlist();
    let user = Folder::create(&pair.mirror.join("example.net/new/Maildir"));
    user.deliver(902, b"Subject: a new user\n\nhello\n");
}

#[test]
fn mirror_makes_it_as_it_was_and_keeps_what_was_there() {
    let (pair, label, inbox) = kept();
    let then = messages(&pair.mirror);
    let subscriptions = fs::read(inbox.control("subscriptions")).expect("subscriptions");
    change_much(&pair, &inbox);
    let (now, uidlist) = (messages(&pair.mirror), fs::read(inbox.control("dovecot-uidlist")).expect("a uidlist"));
    let planned = restored(&pair, &["--point", &label, "--mode", "mirror", "--dry-run"]);
    assert_eq!(messages(&pair.mirror), now);
    assert_eq!(labels(&pair.mirror).len(), 1, "a dry run makes no point");
    let report = restored(&pair, &["--point", &label, "--mode", "mirror"]);
    assert_eq!(counts(&report), counts(&planned));
    assert_eq!(messages(&pair.mirror), then);
    assert_eq!(fs::read(inbox.control("subscriptions")).expect("reads"), subscriptions);
    assert_eq!(fs::read(inbox.control("dovecot-uidlist")).expect("reads"), uidlist);
    assert!(!inbox.control("extra").exists() && !pair.mirror.join("example.net").exists());
    // What was there is a point.
    let kept = labels(&pair.mirror).pop().expect("a point");
    assert_ne!(kept, label);
    let (_, place) = try_restore(&pair.mirror, &["--point", &kept]);
    assert_eq!(messages(&place), now);
    assert_eq!(
        fs::read(
            place
                .join("example.net")
                .join("new/Maildir/new")
                .join(names_in(&place.join("example.net/new/Maildir/new")).pop().expect("a message"))
        )
        .expect("reads"),
        b"Subject: a new user\n\nhello\n"
    );
    assert_eq!(counts(&restored(&pair, &["--point", &label, "--mode", "mirror"])), [0; 5]);
    // And the way back.
    restored(&pair, &["--point", &kept, "--mode", "mirror"]);
    assert_eq!(messages(&pair.mirror), now);
    // The master's next run makes it a mirror again, without a word of the restore's.
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
}

#[test]
fn mirror_of_one_folder_leaves_the_others() {
    let (pair, label, inbox) = kept();
    let before = messages(&pair.mirror);
    let sent = on_mirror(&pair, &folder(&pair, ".Sent"));
    let extra = sent.deliver(903, b"Subject: not to stay\n\nx\n");
    let other = inbox.deliver(904, b"Subject: to stay\n\nx\n");
    let report = restored(&pair, &["--point", &label, "--mode", "mirror", "--folder", "Sent"]);
    assert_eq!(counts(&report), [0, 0, 0, 1, 0]);
    assert!(!extra.exists() && other.exists());
    fs::remove_file(other).expect("removes");
    assert_eq!(messages(&pair.mirror), before);
}

#[test]
fn nothing_is_removed_where_something_could_not_come() {
    let (pair, label, inbox) = kept();
    fs::remove_file(read_message(&inbox)).expect("removes a message");
    let extra = inbox.deliver(905, b"Subject: extra\n\nx\n");
    for segment in names_in(&points_of(&pair.mirror).join(&label)) {
        let path = points_of(&pair.mirror).join(&label).join(&segment);
        if segment != "manifest" && segment != "about" {
            let length = fs::metadata(&path).expect("a segment").len();
            fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(length / 2)).expect("cuts");
        }
    }
    let run = run("restore", &pair.mirror, &["--in-place", "--point", &label, "--mode", "mirror"]);
    assert_ne!(run.code(), Some(0), "{}", run.story());
    assert!(extra.exists(), "{}", run.story());
}

#[test]
fn what_mirror_cannot_keep_it_does_not_touch() {
    let (pair, label, inbox) = kept();
    inbox.deliver(906, b"Subject: extra\n\nx\n");
    let now = messages(&pair.mirror);
    let elsewhere = format!("--in-place={}", pair.source.display());
    for options in [
        &["--in-place", "--mode", "mirror", "--from", "anna"][..],
        &[elsewhere.as_str(), "--mode", "mirror"],
        &["--in-place", "--mode", "mirror", "--into", "Restored"],
        &["--in-place", "--mode", "changed", "--into", "Restored"],
        &["--to", "/nowhere/at/all", "--mode", "changed"],
    ] {
        run("restore", &pair.mirror, &[options, &["--point", &label]].concat()).ended_with(2);
    }
    assert_eq!(messages(&pair.mirror), now);
    assert_eq!(labels(&pair.mirror).len(), 1);
}

#[test]
fn a_fresh_full_needs_nothing_of_a_log_that_is_damaged() {
    let pair = synced_mailbox();
    backup(&pair, &[]);
    for number in 0..3 {
        inbox(&pair).deliver(920 + number, b"Subject: one more\n\nx\n");
        pair.sync(&[]);
    }
    let newest = names_in(&log_of(&pair.mirror)).into_iter().rfind(|name| name.len() == 16).expect("a segment");
    fs::remove_file(log_of(&pair.mirror).join(newest)).expect("the last segment is lost");
    run("ls", &pair.mirror, &[]).ended_with(23);
    let label = backup(&pair, &["--fresh"]);
    assert!(label.ends_with('F'), "{label}");
    assert_point(&pair.mirror, &label, &expected_mirror(&pair));
    inbox(&pair).deliver(930, b"Subject: after it\n\nx\n");
    let after = sync_and_remember(&pair);
    assert_moment(&pair.mirror, &after);
    let label = backup(&pair, &["--diff"]);
    assert_point(&pair.mirror, &label, &after.tree);
    run("verify", &pair.mirror, &["--point", &label]).ended_with(0);
}

#[test]
fn a_full_leaves_segments_behind_of_which_little_is_alive() {
    let pair = Pair::new();
    let folder = Folder::create(&pair.source);
    let messages: Vec<PathBuf> = (0..12).map(|number| folder.file(number, "S", &noise(number, 400_000))).collect();
    pair.sync(&[]);
    let first = backup(&pair, &["--full"]);
    for message in &messages[1..] {
        fs::remove_file(message).expect("removes");
    }
    let now = sync_and_remember(&pair);
    let second = backup(&pair, &["--full"]);
    assert_point(&pair.mirror, &second, &now.tree);
    let bytes = |label: &str| listed_as(&pair.mirror, label)["bytes_on_disk"].as_u64().expect("bytes");
    assert!(bytes(&first) > 4_000_000 && bytes(&second) < 1_000_000, "{} {}", bytes(&first), bytes(&second));
    run("verify", &pair.mirror, &["--all"]).ended_with(0);
    let third = backup(&pair, &["--diff"]);
    assert_point(&pair.mirror, &third, &now.tree);
}

#[test]
fn what_came_after_it_was_kept_is_not_removed() {
    let (pair, label, inbox) = kept();
    let old = inbox.deliver(940, b"Subject: kept, and removed\n\nx\n");
    let another = Folder::create(&inbox.0.join(".Another"));
    let gone = another.file(941, "S", b"Subject: kept, and removed\n\nx\n");
    let busy = Folder::create(&inbox.0.join(".Busy"));
    busy.file(942, "S", b"Subject: kept, and removed\n\nx\n");
    let repository = Repository::open(&pair.mirror, None).expect("a repository");
    let request = backup::Request {
        standby: pair.mirror.clone(),
        state: None,
        kind: None,
        fresh: false,
        full_every: std::time::Duration::MAX,
        note: String::new(),
        now: mailtwin::disk::now(),
    };
    let point = backup::of_the_mirror(&request).expect("what is there is kept").label;
    // A mail server is quicker than we are.
    let new = inbox.deliver(943, b"Subject: just arrived\n\nx\n");
    let newer = busy.deliver(944, b"Subject: just arrived here\n\nx\n");
    let then = View::open(&repository, &At::Point(label.parse().expect("a label"))).expect("a point");
    let kept = View::open(&repository, &At::Point(point)).expect("a point");
    let order = Order { mode: Mode::Mirror, kept: Some(&kept), ..Order::default() };
    let report = in_place::restore(&then, &|_| true, &pair.mirror, &order).expect("restores");
    assert_eq!((report.removed, report.failed), (3, 0), "{report:?}");
    assert!(!old.exists() && !gone.exists() && !another.0.exists());
    assert!(new.exists() && newer.exists());
}
