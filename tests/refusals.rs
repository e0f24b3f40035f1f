//! Bad input: each gives one clear sentence that names the thing, the right exit code, and loses nothing
//! that was there.

#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tree::*;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;
const LOCKED: i32 = 10;
const INCOMPLETE: i32 = 23;
const GUARDED: i32 = 26;

fn synced_mailbox() -> Pair {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.sync(&[]);
    pair
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Whatever `harm` does to the source, the run after it ends with one of `codes`, names `naming`,
/// and leaves the mirror as it was.
fn is_refused_and_harmless(pair: &Pair, codes: &[i32], naming: &str, harm: impl FnOnce()) {
    let before = but_for_its_own_time(actual_mirror(pair));
    harm();
    pair.try_sync(&[]).refused(codes, naming);
    assert_same("the mirror", &before, &but_for_its_own_time(actual_mirror(pair)));
}

/// The slave may have made its state in the mirror's directory before it knew what it would be asked to do.
fn but_for_its_own_time(mut mirror: Tree) -> Tree {
    mirror.entry(Vec::new()).and_modify(|root| root.modified = None);
    mirror
}

// ---- the source

#[test]
fn a_missing_source_is_named() {
    let pair = Pair::new();
    fs::remove_dir(&pair.source).expect("removed");
    pair.try_sync(&[]).refused(&[FAILED], &text(&pair.source));
    assert!(!pair.mirror.exists(), "a mirror of nothing was made");
}

#[test]
fn a_source_that_went_away_leaves_the_mirror() {
    let pair = synced_mailbox();
    is_refused_and_harmless(&pair, &[FAILED, GUARDED], &text(&pair.source), || {
        rename(&pair.source, &pair.path("elsewhere"));
    });
}

#[test]
fn a_source_that_is_a_file_is_named() {
    let pair = Pair::new();
    fs::remove_dir(&pair.source).expect("removed");
    fs::write(&pair.source, "a file").expect("a file");
    pair.try_sync(&[]).refused(&[FAILED, WRONG_USAGE], &text(&pair.source));
}

#[test]
fn an_emptied_source_is_stopped_by_the_guard() {
    let pair = synced_mailbox();
    is_refused_and_harmless(&pair, &[GUARDED], &text(&pair.source), || {
        fs::remove_dir_all(&pair.source).expect("removed");
        // What an unmounted disk leaves: the empty mount point.
        fs::create_dir(&pair.source).expect("the mount point");
    });
    // Asked again without a confirmation, it is stopped again.
    pair.try_sync(&[]).ended_with(GUARDED);
}

#[test]
fn an_emptied_source_is_mirrored_once_it_is_confirmed() {
    let pair = synced_mailbox();
    fs::remove_dir_all(&pair.source).expect("removed");
    fs::create_dir(&pair.source).expect("the source");
    pair.try_sync(&[]).ended_with(GUARDED);
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
    // Nothing is emptied by a later run: it is empty as it was.
    pair.sync(&[]).shipped_nothing();
}

#[test]
fn after_the_guard_a_source_that_is_back_is_in_sync_again() {
    let pair = synced_mailbox();
    rename(&pair.source, &pair.path("unmounted"));
    fs::create_dir(&pair.source).expect("the mount point");
    pair.try_sync(&[]).ended_with(GUARDED);
    fs::remove_dir(&pair.source).expect("removed");
    rename(&pair.path("unmounted"), &pair.source);
    pair.sync(&[]).shipped_nothing();
    assert_mirrored(&pair);
}

#[test]
fn an_emptied_source_is_stopped_without_a_state_of_the_master_too() {
    let pair = synced_mailbox();
    is_refused_and_harmless(&pair, &[GUARDED], &text(&pair.source), || {
        fs::remove_dir_all(&pair.source).expect("removed");
        fs::create_dir(&pair.source).expect("the source");
        fs::remove_dir_all(&pair.state).expect("removed");
    });
}

#[test]
fn an_empty_source_and_a_directory_that_holds_files_are_stopped() {
    let pair = Pair::new();
    fs::create_dir(&pair.mirror).expect("DEST");
    for number in 0..100 {
        fs::write(pair.mirror.join(format!("precious{number}")), "x").expect("a file");
    }
    is_refused_and_harmless(&pair, &[GUARDED], &text(&pair.mirror), || ());
}

#[test]
fn another_tree_in_the_place_of_the_source_is_stopped() {
    let pair = synced_mailbox();
    is_refused_and_harmless(&pair, &[GUARDED], &text(&pair.source), || {
        fs::remove_dir_all(&pair.source).expect("removed");
        make_mailbox(&pair.source, 77);
    });
}

#[test]
fn the_guard_stops_through_a_pipe_too() {
    let pair = Pair::through_a_pipe();
    make_mailbox(&pair.source, 1);
    pair.sync(&[]);
    is_refused_and_harmless(&pair, &[GUARDED], &text(&pair.source), || {
        fs::remove_dir_all(&pair.source).expect("removed");
        fs::create_dir(&pair.source).expect("the source");
    });
}

/// A folder of a hundred messages and its mirror, `gone` of them expunged since.
fn a_hundred_less(gone: usize) -> Pair {
    let pair = Pair::new();
    let folder = Folder::create(&pair.source);
    for number in 0..100 {
        folder.file(number, "S", &letter(number, 300));
    }
    pair.sync(&[]);
    for message in &folder.messages()[..gone] {
        fs::remove_file(message).expect("expunged");
    }
    pair
}

#[test]
fn max_delete_is_the_most_that_may_go() {
    for (option, gone, code) in [
        ("10", 10, DONE),
        ("10", 11, GUARDED),
        ("40%", 39, DONE),
        ("40%", 60, GUARDED),
        ("0", 1, GUARDED),
        ("100%", 100, DONE),
    ] {
        let pair = a_hundred_less(gone);
        let before = actual_mirror(&pair);
        let run = pair.try_sync(&["--max-delete", option]).ended_with(code);
        if code == GUARDED {
            assert_same("the mirror", &before, &actual_mirror(&pair));
            run.spoke_clearly(&gone.to_string());
        } else {
            assert_mirrored(&pair);
        }
    }
}

#[test]
fn a_mass_delete_is_stopped_unless_it_is_confirmed() {
    let pair = a_hundred_less(95);
    is_refused_and_harmless(&pair, &[GUARDED], "95", || ());
    pair.sync(&["--max-delete", "100%"]);
    assert_mirrored(&pair);
}

#[test]
fn the_guard_says_what_to_do() {
    let run = a_hundred_less(95).try_sync(&[]).ended_with(GUARDED);
    run.spoke_clearly("--max-delete");
}

#[test]
fn messages_that_move_are_not_a_mass_delete() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    let archive = Folder::create(&pair.source.join(".Archive"));
    for number in 0..100 {
        inbox.file(number, "S", &letter(number, 300));
    }
    pair.sync(&[]);
    for message in inbox.messages() {
        archive.move_in(&message);
    }
    pair.sync(&[]);
    rename(&archive.0, &pair.source.join(".Old"));
    pair.sync(&[]);
    assert_mirrored(&pair);
}

// ---- how they lie to each other

fn sync_of(pair: &Pair, source: &Path, destination: &str) -> Run {
    let mut command = Command::new(BINARY);
    command.args(["sync", "--json"]).arg(source).arg(destination).env("MAILTWIN_STATE", &pair.state);
    finish(&mut command)
}

#[test]
fn a_mirror_inside_its_source_is_refused() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let before = fingerprint(&pair.source);
    for inside in ["mirror", "sieve/mirror", "", "sieve/../mirror", ".Sent"] {
        let mirror = text(&pair.source.join(inside));
        sync_of(&pair, &pair.source, &mirror).refused(&[FAILED, WRONG_USAGE], &text(&pair.source));
        assert!(before == fingerprint(&pair.source), "{inside}");
    }
}

#[test]
fn a_source_inside_its_mirror_is_refused() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let before = fingerprint(&pair.source);
    let home = text(pair.home());
    sync_of(&pair, &pair.source, &home).refused(&[FAILED, WRONG_USAGE], &home);
    assert!(before == fingerprint(&pair.source));
    assert!(!pair.path(".mailtwin").exists());
}

#[test]
fn a_link_does_not_hide_that_one_is_inside_the_other() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let link = pair.path("link");
    std::os::unix::fs::symlink(&pair.source, &link).expect("a link");
    let before = fingerprint(&pair.source);
    sync_of(&pair, &pair.source, &text(&link.join("mirror"))).refused(&[FAILED, WRONG_USAGE], "link");
    sync_of(&pair, &pair.source, &text(&link)).refused(&[FAILED, WRONG_USAGE], "link");
    assert!(before == fingerprint(&pair.source));
}

#[test]
fn a_mirror_inside_its_source_is_refused_through_a_pipe() {
    let mut pair = Pair::through_a_pipe();
    make_mailbox(&pair.source, 1);
    pair.mirror = pair.source.join("mirror");
    let before = fingerprint(&pair.source);
    pair.try_sync(&[]).refused(&[FAILED, WRONG_USAGE], &text(&pair.mirror));
    assert!(before == fingerprint(&pair.source));
}

#[test]
fn a_state_inside_the_source_is_refused() {
    let mut pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.state = pair.source.join("state");
    let before = fingerprint(&pair.source);
    pair.try_sync(&[]).refused(&[FAILED, WRONG_USAGE], &text(&pair.source));
    assert!(before == fingerprint(&pair.source));
}

#[test]
fn a_destination_that_is_a_file_is_named_and_kept() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    fs::write(&pair.mirror, "precious").expect("a file");
    pair.try_sync(&[]).refused(&[FAILED, WRONG_USAGE], &text(&pair.mirror));
    assert_eq!(fs::read(&pair.mirror).expect("it is there"), b"precious");
}

// ---- rights

#[test]
fn a_source_that_may_not_be_read_is_named() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    set_mode(&pair.source, 0o000);
    finish(&mut pair.command_without_rights(&[])).refused(&[FAILED], &text(&pair.source));
    set_mode(&pair.source, 0o755);
}

#[test]
fn a_destination_that_may_not_be_written_is_named() {
    let mut pair = Pair::new();
    make_mailbox(&pair.source, 1);
    open_to_all(&pair.source);
    let closed = pair.path("closed");
    fs::create_dir(&closed).expect("a directory");
    set_mode(&closed, 0o555);
    pair.mirror = closed.join("mirror");
    finish(&mut pair.command_without_rights(&[])).refused(&[FAILED], &text(&pair.mirror));
    set_mode(&closed, 0o755);
}

fn open_to_all(root: &Path) {
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("an entry");
        if !entry.path_is_symlink() {
            set_mode(entry.path(), if entry.file_type().is_dir() { 0o755 } else { 0o644 });
        }
    }
}

/// A mailbox and its mirror that a user without rights made, then `closed` beneath the source.
fn with_something_closed(choose: impl Fn(&Pair) -> PathBuf) -> (Pair, PathBuf) {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    open_to_all(&pair.source);
    finish(&mut pair.command_without_rights(&[])).ended_with(DONE);
    let closed = choose(&pair);
    let delivered = Folder(pair.source.clone()).deliver(990, &letter(990, 200));
    set_mode(&delivered, 0o644);
    set_mode(&closed, 0o000);
    (pair, closed)
}

/// What cannot be read is named, by this run and by each later one; it stays on the mirror; its neighbours arrive;
/// and once it can be read it is brought up to date, although nothing but its mode has changed.
fn is_named_and_kept(pair: &Pair, closed: &Path) {
    let before = messages_by_content(&actual_mirror(pair));
    for _ in 0..2 {
        is_named(pair, closed);
        let after = messages_by_content(&actual_mirror(pair));
        assert!(before.keys().all(|content| after.contains_key(content)), "something went from the mirror");
        assert_eq!(after.len(), before.len() + 1, "the new message did not arrive");
        pair.wait_until_changes_are_past();
    }
    set_mode(closed, if closed.is_dir() { 0o755 } else { 0o644 });
    finish(&mut pair.command_without_rights(&[])).done();
    assert_eq!(messages_beneath(&pair.mirror), messages_beneath(&pair.source));
}

fn is_named(pair: &Pair, closed: &Path) {
    let run = finish(&mut pair.command_without_rights(&[])).ended_with(INCOMPLETE);
    let name = closed.file_name().expect("a name").to_string_lossy();
    let problems = run.report().problems();
    assert!(problems.iter().any(|(subject, reason)| subject.contains(&*name) && !reason.is_empty()), "{}", run.story());
    assert!(run.said().contains(&*name), "{}", run.story());
    let mirrored = pair.mirror.join(closed.strip_prefix(&pair.source).expect("beneath the source"));
    if mirrored.is_dir() {
        // The mode that closes it is mirrored, too, and this test must be able to look.
        set_mode(&mirrored, 0o755);
    }
}

#[test]
fn a_new_message_that_may_not_be_read_is_named_and_its_neighbours_arrive() {
    let (pair, closed) =
        with_something_closed(|pair| Folder(pair.source.join(".Sent")).file(991, "S", &letter(991, 200)));
    is_named_and_kept(&pair, &closed);
}

#[test]
fn a_folder_that_may_no_longer_be_read_stays_on_the_mirror() {
    let (pair, closed) = with_something_closed(|pair| pair.source.join(".Sent"));
    is_named_and_kept(&pair, &closed);
}

#[test]
fn a_cur_that_may_no_longer_be_read_keeps_its_messages_on_the_mirror() {
    let (pair, closed) = with_something_closed(|pair| {
        let cur = pair.source.join(".Sent/cur");
        // Its times are as they were: it must be looked at for the right reason.
        set_modified(&cur, 1_650_000_000, 0);
        cur
    });
    is_named_and_kept(&pair, &closed);
}

#[test]
fn a_control_file_that_may_no_longer_be_read_stays_on_the_mirror() {
    let (pair, closed) = with_something_closed(|pair| {
        let list = pair.source.join(".Sent/dovecot-uidlist");
        append(&list, b"999 :more\n");
        list
    });
    let mirrored = pair.mirror.join(".Sent/dovecot-uidlist");
    let before = fs::read(&mirrored).expect("it is there");
    let run = finish(&mut pair.command_without_rights(&[])).ended_with(INCOMPLETE);
    assert!(run.said().contains("dovecot-uidlist"), "{}", run.story());
    assert_eq!(fs::read(&mirrored).expect("it is still there"), before);
    set_mode(&closed, 0o644);
}

// ---- links that were planted in the mirror

/// Whoever may write in the mirror, a mail user for one, can put a link where a directory or a file was. What it
/// points at is not the mirror: nothing of it is read as if it were, written or removed.
#[test]
fn a_link_planted_in_the_mirror_is_never_followed() {
    for planted in [
        "cur",
        "new",
        "tmp",
        "sieve",
        ".Sent",
        ".Sent/cur",
        ".Sent/tmp",
        "subscriptions",
        ".Sent/dovecot-uidlist",
        ".mailtwin",
    ] {
        for pair in [Pair::new(), Pair::through_a_pipe()] {
            make_mailbox(&pair.source, 1);
            pair.sync_and_settle();
            let outside = pair.path("outside");
            rename(&pair.mirror.join(planted), &outside);
            std::os::unix::fs::symlink(&outside, pair.mirror.join(planted)).expect("the link is planted");
            let before = content_of(&outside);
            change_everywhere(&pair.source);
            let run = pair.try_sync(&UNGUARDED);
            assert!(before == content_of(&outside), "{planted}: what the link points at was changed: {}", run.story());
            match run.code() {
                Some(DONE) => assert_mirrored(&pair),
                Some(FAILED | INCOMPLETE) => assert!(run.said().contains(planted), "{planted}: {}", run.story()),
                _ => panic!("{planted}: {}", run.story()),
            }
        }
    }
}

/// A tree, or a file alone, with everything a write would change.
fn content_of(path: &Path) -> String {
    if path.is_dir() { format!("{:?}", fingerprint(path)) } else { format!("{:?}", fs::read(path)) }
}

fn change_everywhere(root: &Path) {
    for folder in [Folder(root.to_owned()), Folder(root.join(".Sent"))] {
        let messages = folder.messages();
        folder.set_flags(&messages[0], "FRS");
        fs::remove_file(&messages[1]).expect("expunged");
        let delivered = folder.deliver(990, &letter(990, 300));
        folder.append_uid(99, &delivered);
    }
    append(&root.join("subscriptions"), b"More\n");
    append(&root.join("sieve/main.sieve"), b"stop;\n");
}

// ---- words on the command line

#[test]
fn wrong_usage_ends_with_2() {
    let cases: [&[&str]; 12] = [
        &[],
        &["sync"],
        &["sync", "only-one"],
        &["sync", "one", "two", "three"],
        &["sync", "--no-such-option", "a", "b"],
        &["no-such-command"],
        &["sync", "--compress-level", "99", "a", "b"],
        &["sync", "--compress-level", "x", "a", "b"],
        &["sync", "--max-delete", "many", "a", "b"],
        &["sync", "--bwlimit", "fast", "a", "b"],
        &["sync", "--kind", "mbox", "a", "b"],
        &["sync", "--timeout", "soon", "a", "b"],
    ];
    let home = tempfile::tempdir().expect("a directory");
    for words in cases {
        let mut command = Command::new(BINARY);
        let run = finish(command.args(words).current_dir(home.path())).ended_with(WRONG_USAGE);
        assert!(run.stdout.is_empty(), "{}", run.story());
        assert!(!run.stderr.is_empty(), "{}", run.story());
    }
}

#[test]
fn an_unknown_user_in_chown_is_named() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.try_sync(&["--chown", "no-such-user:no-such-group"]).refused(&[FAILED, WRONG_USAGE], "no-such-user");
    assert!(!pair.mirror.exists());
}

#[test]
fn help_and_version_end_well() {
    for words in [&["--help"][..], &["--version"], &["sync", "--help"]] {
        let run = finish(Command::new(BINARY).args(words)).ended_with(DONE);
        assert!(!run.stdout.is_empty() && run.stderr.is_empty(), "{}", run.story());
    }
}

#[test]
fn a_serve_that_nobody_talks_to_ends_and_does_nothing() {
    let mut command = Command::new(BINARY);
    let run = finish(command.args(["serve", "--stdio"]));
    assert_ne!(run.code(), None, "{}", run.story());
    assert!(run.took < Duration::from_secs(20), "{}", run.story());
}

// ---- the far end

/// A mailbox, mirrored through a pipe; then the way to the far end becomes `script`.
fn cut_off_by(script: &str) -> Pair {
    let mut pair = Pair::through_a_pipe();
    make_mailbox(&pair.source, 1);
    pair.sync(&[]);
    Folder(pair.source.clone()).deliver(990, &letter(990, 200));
    pair.connect_by(script);
    pair
}

/// The run ends with 1, names the host, and neither side has lost anything; then the way is open again.
fn fails_by_naming_the_host(mut pair: Pair, options: &[&str]) {
    let before = actual_mirror(&pair);
    let run = pair.try_sync(options).refused(&[FAILED], HOST);
    assert!(run.took < Duration::from_secs(30), "{}", run.story());
    assert_same("the mirror", &before, &actual_mirror(&pair));
    pair.connect_by("shift; exec \"$@\"");
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_host_that_cannot_be_reached_is_named() {
    let words = format!("ssh: connect to host {HOST} port 22: Connection refused");
    fails_by_naming_the_host(cut_off_by(&format!("echo '{words}' >&2; exit 255")), &[]);
}

#[test]
fn a_host_that_says_nothing_about_its_refusal_is_named() {
    fails_by_naming_the_host(cut_off_by("exit 255"), &[]);
}

#[test]
fn a_far_end_that_is_not_installed_is_named() {
    let pair = cut_off_by("shift; exec /nonexistent/mailtwin serve --stdio");
    fails_by_naming_the_host(pair, &[]);
}

#[test]
fn a_far_end_that_closes_at_once_is_named() {
    fails_by_naming_the_host(cut_off_by("exit 0"), &[]);
}

#[test]
fn a_far_end_that_closes_its_output_and_stays_is_named() {
    let pair = cut_off_by("exec >&-; cat > /dev/null");
    fails_by_naming_the_host(pair, &["--timeout", "2"]);
}

#[test]
fn a_far_end_that_prints_garbage_is_named() {
    for garbage in [
        "head -c 100000 /dev/urandom",
        "head -c 100000 /dev/zero",
        "head -c 100000 /dev/zero | tr '\\0' '\\377'",
        "yes | head -c 100000",
        "printf '\\0'",
        "printf 'HTTP/1.1 400 Bad Request\\r\\n\\r\\n'",
    ] {
        let pair = cut_off_by(&format!("{garbage}; cat > /dev/null"));
        fails_by_naming_the_host(pair, &["--timeout", "3"]);
    }
}

#[test]
fn a_far_end_that_echoes_what_it_is_sent_is_named() {
    fails_by_naming_the_host(cut_off_by("exec cat"), &["--timeout", "3"]);
}

#[test]
fn a_login_banner_before_the_far_end_is_named() {
    let pair = cut_off_by("echo 'Welcome to Debian GNU/Linux 12'; echo 'Last login: today'; shift; exec \"$@\"");
    fails_by_naming_the_host(pair, &["--timeout", "3"]);
}

#[test]
fn a_banner_on_standard_error_does_no_harm() {
    let mut pair = cut_off_by("");
    pair.connect_by("echo 'Authorized use only' >&2; shift; exec \"$@\"");
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_far_end_that_never_answers_is_given_up_after_the_timeout() {
    let pair = cut_off_by("cat > /dev/null");
    let run = pair.try_sync(&["--timeout", "2"]).refused(&[FAILED], HOST);
    let waited = run.took.as_secs_f64();
    assert!((1.5..15.0).contains(&waited), "{waited} s: {}", run.story());
}

#[test]
fn a_far_end_that_says_hello_and_then_stops_is_given_up_after_the_timeout() {
    // The pipe stays open; only the first bytes of the far end's answer come through.
    let pair = cut_off_by("shift; \"$@\" | { dd bs=1 count=12 2>/dev/null; cat > /dev/null; }");
    fails_by_naming_the_host(pair, &["--timeout", "2"]);
}

#[test]
fn a_remote_shell_that_does_not_exist_is_named() {
    let mut pair = cut_off_by("");
    pair.rsh = Some("/nonexistent/remote-shell -q".to_owned());
    pair.try_sync(&[]).refused(&[FAILED], "/nonexistent/remote-shell");
}

#[test]
fn a_far_ends_refusal_names_its_directory() {
    let mut pair = Pair::through_a_pipe();
    make_mailbox(&pair.source, 1);
    fs::write(pair.path("a-file"), "x").expect("a file");
    pair.mirror = pair.path("a-file/mirror");
    pair.try_sync(&[]).refused(&[FAILED], &text(&pair.mirror));
}

#[test]
fn garbage_sent_to_the_far_end_ends_it_and_writes_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    for garbage in [
        "head -c 300000 /dev/urandom",
        "head -c 300000 /dev/zero",
        "head -c 300000 /dev/zero | tr '\\0' '\\377'",
        "printf 'GET / HTTP/1.1\\r\\n\\r\\n'",
    ] {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{garbage} | {BINARY} serve --stdio")])
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("MAILTWIN_STATE", home.path().join("state"));
        let run = finish(&mut command).ended_with(FAILED);
        assert!(!run.said().contains("panicked"), "{}", run.story());
        assert!(names_in(home.path()).is_empty(), "{}", run.story());
    }
}

// ---- two at once

/// A pair whose first copy takes some seconds at `SLOWLY`.
fn slow_pair(pair: Pair) -> Pair {
    let folder = Folder::create(&pair.source);
    for number in 0..10 {
        folder.deliver(number, &noise(number, 100_000));
    }
    pair
}

const SLOWLY: [&str; 2] = ["--bwlimit", "250K"];

/// Of two runs that overlap one does the work, the other ends with 10 and says why; which one is which is theirs to settle.
fn one_works_and_one_is_told(pair: &Pair, mut first: Command, mut second: Command) {
    let (first, second) = (Started::new(&mut first), Started::new(&mut second));
    let mut runs = [first.end(), second.end()];
    runs.sort_by_key(Run::code);
    let [worker, told] = runs;
    told.refused(&[LOCKED], "another");
    worker.done();
    assert_mirrored(pair);
    assert_eq!(pair.sync(&[]).count("bytes_content"), 0);
}

#[test]
fn of_two_runs_at_once_one_works_and_the_other_ends_with_10() {
    let pair = slow_pair(Pair::new());
    one_works_and_one_is_told(&pair, pair.command(&SLOWLY), pair.command(&SLOWLY));
}

#[test]
fn of_two_runs_at_once_through_a_pipe_one_works_and_the_other_ends_with_10() {
    let pair = slow_pair(Pair::through_a_pipe());
    one_works_and_one_is_told(&pair, pair.command(&SLOWLY), pair.command(&SLOWLY));
}

#[test]
fn two_masters_of_one_mirror_are_kept_apart_by_the_mirrors_lock() {
    for pair in [Pair::new(), Pair::through_a_pipe()] {
        let pair = slow_pair(pair);
        let mut other = pair.command(&SLOWLY);
        other.env("MAILTWIN_STATE", pair.path("another-state"));
        one_works_and_one_is_told(&pair, pair.command(&SLOWLY), other);
    }
}

#[test]
fn one_source_can_go_to_two_mirrors_at_once() {
    let pair = slow_pair(Pair::new());
    let mut other = pair.command(&SLOWLY);
    let second = pair.path("second");
    let words: Vec<_> = other.get_args().map(std::ffi::OsStr::to_owned).collect();
    let (_, but_destination) = words.split_last().expect("words");
    let mut to_second = Command::new(BINARY);
    to_second.args(but_destination).arg(&second).env("MAILTWIN_STATE", &pair.state);
    let (first, second) = (Started::new(&mut other), Started::new(&mut to_second));
    first.end().done();
    second.end().done();
}

#[test]
fn a_run_that_was_killed_leaves_no_lock() {
    let pair = slow_pair(Pair::new());
    let mut started = Started::new(&mut pair.command(&SLOWLY));
    eventually("the mirror's state is made", Duration::from_secs(20), || {
        assert!(started.is_running(), "it ended before it could be killed");
        pair.mirror.join(".mailtwin").exists()
    });
    drop(started);
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_run_that_is_told_to_stop_leaves_what_the_next_one_finishes() {
    for signal in ["-INT", "-TERM"] {
        let pair = slow_pair(Pair::through_a_pipe());
        let mut started = Started::new(&mut pair.command(&SLOWLY));
        eventually("the mirror's state is made", Duration::from_secs(20), || {
            assert!(started.is_running(), "it ended before it could be stopped");
            pair.mirror.join(".mailtwin").exists()
        });
        tool("procps", "kill", &[signal.as_ref(), started.id().to_string().as_ref()]);
        let run = started.end();
        assert_ne!(run.code(), Some(DONE), "{}", run.story());
        pair.sync(&[]);
        assert_mirrored(&pair);
    }
}
