//! What one cycle leaves out, what it says, and how its options change what it does.

#[path = "support/mailbox.rs"]
mod mailbox;
#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mailbox::*;
use tree::*;

fn edit(path: &Path, edits: &[(u64, &[u8])]) {
    use std::os::unix::fs::FileExt;
    let opened = fs::File::options().write(true).open(path).expect("the file opens");
    for (at, bytes) in edits {
        opened.write_all_at(bytes, *at).expect("the edit is written");
    }
}

// ---- what is left out, and how that is changed

const LEFT_OUT_FILES: [&str; 12] = [
    "dovecot-uidlist.lock",
    "dovecot.index.log.newlock",
    "dovecot-uidlist.tmp",
    "temp.mx.1.abc",
    "mailboxes.lock",
    "dovecot.index",
    "dovecot.index.log",
    "dovecot.index.cache",
    "dovecot.list.index",
    "dovecot.list.index.log",
    "dovecot.mailbox.log",
    "tmp/1700000000.M1P1.mx",
];

#[test]
fn locks_drafts_and_indexes_are_left_out_by_default() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    for name in LEFT_OUT_FILES {
        fs::write(pair.source.join(name), name).expect("a file");
        fs::write(pair.source.join(".Sent").join(name), name).expect("a file");
    }
    pair.sync(&[]);
    assert_mirrored(&pair);
    assert!(pair.mirror.join(".Sent/tmp").is_dir());
    for name in LEFT_OUT_FILES {
        assert!(!pair.mirror.join(name).exists(), "{name}");
    }
    assert_rsync_agrees(&pair);
}

#[test]
fn include_brings_in_what_is_left_out_by_default() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    fs::write(pair.source.join("dovecot.index.log"), "log").expect("a file");
    fs::write(pair.source.join("dovecot.index.cache"), "cache").expect("a file");
    pair.sync(&["--include", "dovecot.index*", "--exclude", "dovecot.index.cache"]);
    assert!(pair.mirror.join("dovecot.index.log").exists());
    assert!(!pair.mirror.join("dovecot.index.cache").exists(), "the last match wins");
}

#[test]
fn exclude_leaves_out_and_the_last_match_wins() {
    let pair = Pair::of_files();
    for name in ["keep.txt", "a.bak", "b.bak", "cache/x", "deep/cache/y", "deep/z"] {
        let path = pair.source.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, name).expect("a file");
    }
    pair.sync(&["--exclude", "*.bak", "--include", "b.bak", "--exclude", "/cache/"]);
    let there: Vec<&str> = ["keep.txt", "a.bak", "b.bak", "cache/x", "deep/cache/y", "deep/z"]
        .into_iter()
        .filter(|name| pair.mirror.join(name).exists())
        .collect();
    assert_eq!(there, ["keep.txt", "b.bak", "deep/cache/y", "deep/z"]);
}

#[test]
fn a_folder_can_be_left_out() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let report = pair.sync(&["--exclude", "/.Archive.2024/"]);
    assert!(!pair.mirror.join(".Archive.2024").exists());
    assert!(pair.mirror.join(".Archive").exists());
    assert_eq!(
        report.count("messages_added") as usize,
        messages_beneath(&pair.source) - folder(&pair, ".Archive.2024").messages().len()
    );
}

#[test]
fn a_bad_pattern_is_wrong_usage() {
    let pair = Pair::new();
    pair.try_sync(&["--exclude", "a["]).refused(&[2], "a[");
}

// ---- what it prints

#[test]
fn a_dry_run_changes_not_one_byte_and_prints_the_plan() {
    let pair = synced_mailbox();
    inbox(&pair).set_flags(&read_message(&inbox(&pair)), "FRS");
    let delivered = inbox(&pair).deliver(950, &letter(950, 700));
    append(&inbox(&pair).control("dovecot-uidlist"), b"99 :x\n");
    fs::remove_file(pair.source.join("subscriptions")).expect("removed");
    let before = [&pair.source, &pair.mirror, &pair.state].map(|root| fingerprint(root));
    let run = pair.sync_plainly(&["--dry-run"]).ended_with(0);
    let after = [&pair.source, &pair.mirror, &pair.state].map(|root| fingerprint(root));
    assert!(before == after, "the dry run wrote something: {}", run.story());
    let name = delivered.file_name().expect("a name").to_string_lossy();
    for word in [&*name, "dovecot-uidlist", "subscriptions"] {
        assert!(run.printed().contains(word), "{word} is not in the plan: {}", run.story());
    }
    // And what was planned is then done.
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_dry_run_before_the_first_run_makes_nothing() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let before = fingerprint(pair.home());
    let report = pair.sync_dry();
    assert!(before == fingerprint(pair.home()), "the dry run wrote something");
    assert_eq!(report.count("messages_added") as usize, messages_beneath(&pair.source));
    assert!(!pair.mirror.exists() && !pair.state.exists());
}

#[test]
fn a_dry_run_through_a_pipe_makes_nothing() {
    let pair = Pair::through_a_pipe();
    make_mailbox(&pair.source, 1);
    let before = fingerprint(pair.home());
    pair.sync_dry();
    assert!(before == fingerprint(pair.home()), "the dry run wrote something");
}

trait DryRun {
    fn sync_dry(&self) -> Report;
}

impl DryRun for Pair {
    /// What would be done; the trees are not equal after it, and it must not say so.
    fn sync_dry(&self) -> Report {
        let run = self.try_sync(&["--dry-run"]).ended_with(0);
        let report = run.report();
        assert!(!report.in_sync(), "a dry run brings nothing in sync: {}", run.story());
        report
    }
}

#[test]
fn itemize_changes_prints_a_line_for_each_change() {
    let pair = synced_mailbox();
    let flagged = inbox(&pair).set_flags(&read_message(&inbox(&pair)), "FRS");
    let delivered = inbox(&pair).deliver(951, &letter(951, 700));
    let run = pair.sync_plainly(&["--itemize-changes"]).ended_with(0);
    for path in [flagged, delivered] {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let lines = run.printed().lines().filter(|line| line.contains(&name)).count();
        assert_eq!(lines, 1, "{name}: {}", run.story());
    }
    let quiet = pair.sync_plainly(&["-i"]).ended_with(0);
    assert!(!quiet.printed().contains("cur/"), "nothing changed, yet: {}", quiet.story());
}

#[test]
fn stats_print_what_was_counted() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let run = pair.sync_plainly(&["--stats"]).ended_with(0);
    let messages = messages_beneath(&pair.source).to_string();
    assert!(run.printed().contains(&messages), "{messages} messages: {}", run.story());
    let lines = run.printed().lines().count();
    assert!(lines >= 4, "{lines} lines: {}", run.story());
}

#[test]
fn quiet_prints_nothing_when_all_is_well() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let run = pair.sync_plainly(&["-q"]).ended_with(0);
    assert_eq!((run.printed(), run.said()), (String::new(), String::new()));
}

#[test]
fn verbose_says_more_than_the_default_and_quiet_still_names_a_failure() {
    let told = |options: &[&str]| {
        let pair = Pair::new();
        make_mailbox(&pair.source, 1);
        let run = pair.sync_plainly(options).ended_with(0);
        run.stdout.len() + run.stderr.len()
    };
    assert!(told(&["-v", "--no-progress"]) > told(&["--no-progress"]));
    let pair = Pair::new();
    fs::remove_dir(&pair.source).expect("removed");
    let run = pair.sync_plainly(&["-q"]);
    assert!(!run.stderr.is_empty(), "{}", run.story());
}

#[test]
fn json_is_the_only_thing_on_standard_output() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let run = finish(&mut pair.plain_command(&["--json", "-v", "-v", "-i", "--stats", "--progress"]));
    let report = run.done();
    for name in CHANGES {
        report.count(name);
    }
    for name in ["directories_read", "bytes_sent", "bytes_received", "bytes_content"] {
        report.count(name);
    }
    assert!(report.0["position"].is_string());
    assert!(report.0["elapsed_seconds"].is_number());
    let quiet = finish(&mut pair.plain_command(&["--json", "-q"]));
    quiet.done();
}

#[test]
fn progress_goes_to_standard_error_and_only_when_asked_for_or_on_a_terminal() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let run = pair.sync_plainly(&["--no-progress"]).ended_with(0);
    assert!(!run.stderr.contains(&b'\r') && !run.stderr.contains(&0x1b), "{}", run.story());
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let run = pair.sync_plainly(&[]).ended_with(0);
    assert!(!run.stderr.contains(&b'\r') && !run.stderr.contains(&0x1b), "{}", run.story());
    let shown = on_a_terminal(&pair.plain_command(&["--checksum"]));
    assert!(shown.contains(&b'\r') || shown.contains(&0x1b), "{}", shown.escape_ascii());
}

/// What a command shows when its output is a terminal.
fn on_a_terminal(command: &Command) -> Vec<u8> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]);
    script.env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    finish(&mut script).ended_with(0).stdout
}

// ---- limits, states, repairs

#[test]
fn bwlimit_holds_the_rate_down() {
    let pair = Pair::new();
    let folder = Folder::create(&pair.source);
    for number in 0..15 {
        folder.deliver(number, &noise(number, 100_000));
    }
    let run = pair.try_sync(&["--bwlimit", "500K"]);
    let seconds = run.took.as_secs_f64();
    // 1.5 MB; a first burst of some hundred kilobytes may pass at once.
    assert!((2.0..8.0).contains(&seconds), "{seconds} s: {}", run.story());
    run.done();
    assert_mirrored(&pair);
}

#[test]
fn the_slaves_state_can_lie_elsewhere() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let state = pair.path("slave-state");
    let state = state.to_str().expect("a path");
    pair.sync(&["--state", state]);
    assert!(!pair.mirror.join(".mailtwin").exists());
    assert!(Path::new(state).is_dir());
    assert_mirrored(&pair);
    pair.sync(&["--state", state]).shipped_nothing();
}

#[test]
fn the_slaves_state_is_private() {
    let pair = synced_mailbox();
    for state in [pair.mirror.join(".mailtwin"), pair.state.clone()] {
        let mode = fs::metadata(&state).expect("the state").mode() & 0o077;
        assert_eq!(mode, 0, "{} is open to others", state.display());
    }
}

#[test]
fn a_mirror_that_is_in_sync_holds_the_mail_once() {
    let pair = Pair::new();
    let folder = Folder::create(&pair.source);
    for number in 0..50 {
        folder.deliver(number, &noise(number, 100_000));
    }
    pair.sync(&[]);
    pair.sync(&[]);
    let state: u64 = read_tree(&pair.mirror.join(".mailtwin"))
        .values()
        .map(|entry| match entry.kind {
            Kind::File(length, _) => length,
            _ => 0,
        })
        .sum();
    assert!(state < 3_000_000, "the state takes {state} bytes beside 5,000,000 of mail");
}

fn ships_no_content_and_settles(pair: &Pair) {
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0, "{}", report.0);
    assert_mirrored(pair);
    pair.sync(&[]).shipped_nothing();
}

#[test]
fn a_lost_state_of_the_master_costs_a_comparison() {
    let pair = synced_mailbox();
    fs::remove_dir_all(&pair.state).expect("removed");
    ships_no_content_and_settles(&pair);
}

#[test]
fn a_lost_state_of_the_slave_costs_a_comparison() {
    let pair = synced_mailbox();
    fs::remove_dir_all(pair.mirror.join(".mailtwin")).expect("removed");
    ships_no_content_and_settles(&pair);
}

#[test]
fn both_states_lost_cost_a_comparison() {
    let pair = synced_mailbox();
    fs::remove_dir_all(&pair.state).expect("removed");
    fs::remove_dir_all(pair.mirror.join(".mailtwin")).expect("removed");
    ships_no_content_and_settles(&pair);
}

#[test]
fn a_lost_state_and_changes_since_cost_no_more_than_the_changes() {
    for lost in ["master's", "slave's"] {
        let pair = synced_mailbox();
        let state = if lost == "master's" { pair.state.clone() } else { pair.mirror.join(".mailtwin") };
        fs::remove_dir_all(state).expect("removed");
        inbox(&pair).set_flags(&read_message(&inbox(&pair)), "FRS");
        let body = letter(960, 900);
        folder(&pair, ".Sent").deliver(960, &body);
        let report = pair.sync(&[]);
        assert_eq!(report.count("bytes_content"), body.len() as u64, "{lost}: {}", report.0);
        assert_mirrored(&pair);
    }
}

#[test]
fn an_older_state_of_the_master_is_brought_forward() {
    let pair = synced_mailbox();
    let saved = pair.path("saved");
    tool("coreutils", "cp", &["-a".as_ref(), pair.state.as_ref(), saved.as_ref()]);
    inbox(&pair).deliver(970, &letter(970, 800));
    pair.sync(&[]);
    fs::remove_dir_all(&pair.state).expect("removed");
    rename(&saved, &pair.state);
    ships_no_content_and_settles(&pair);
}

#[test]
fn a_mirror_that_rsync_made_is_taken_as_it_is() {
    let pair = Pair::new();
    make_vmail(&pair.source, 2);
    let mut from = pair.source.clone();
    from.push("");
    tool("rsync", "rsync", &["-aHAX".as_ref(), from.as_ref(), pair.mirror.as_ref()]);
    ships_no_content_and_settles(&pair);
}

#[test]
fn a_message_deleted_by_hand_on_the_mirror_comes_back() {
    let pair = synced_mailbox();
    eventually("no directory is read", Duration::from_secs(10), || pair.sync(&[]).count("directories_read") == 0);
    let mirrored = Folder(pair.mirror.clone());
    fs::remove_file(read_message(&mirrored)).expect("removed");
    fs::remove_file(mirrored.control("dovecot-uidlist")).expect("removed");
    let run = pair.try_sync(&[]).ended_with(0);
    assert!(run.report().in_sync(), "{}", run.story());
    assert_mirrored(&pair);
}

#[test]
fn a_folder_deleted_by_hand_on_the_mirror_comes_back() {
    let pair = synced_mailbox();
    fs::remove_dir_all(pair.mirror.join(".Sent")).expect("removed");
    pair.try_sync(&[]).ended_with(0);
    assert_mirrored(&pair);
}

#[test]
fn what_a_hand_changed_on_the_mirror_is_found_by_checksum() {
    let pair = synced_mailbox();
    let mirrored = read_message(&Folder(pair.mirror.clone()));
    for path in [mirrored, pair.mirror.join("subscriptions")] {
        let metadata = fs::metadata(&path).expect("it is there");
        edit(&path, &[(3, b"#")]);
        set_modified(&path, metadata.mtime() as u64, metadata.mtime_nsec() as u32);
    }
    assert!(!is_mirrored(&pair));
    let run = pair.try_sync(&["--checksum"]).ended_with(0);
    assert!(run.report().in_sync(), "{}", run.story());
    assert_mirrored(&pair);
}

#[test]
fn what_changed_on_the_master_without_a_trace_in_its_times_is_found_by_checksum() {
    let content = noise(61, 100_000);
    let pair = synced_files(&[("f", &content)]);
    let path = pair.source.join("f");
    let metadata = fs::metadata(&path).expect("it is there");
    edit(&path, &[(50_000, b"changed")]);
    set_modified(&path, metadata.mtime() as u64, metadata.mtime_nsec() as u32);
    pair.sync(&["--checksum"]);
    assert_mirrored(&pair);
}

#[test]
fn the_source_is_only_read() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let before = fingerprint(&pair.source);
    pair.sync(&[]);
    pair.sync(&["--checksum"]);
    assert!(before == fingerprint(&pair.source), "the source was written to");
}

#[test]
fn reading_the_source_leaves_no_access_times() {
    let pair = Pair::new();
    let folder = Folder::create(&pair.source);
    let message = folder.file(1, "S", &letter(1, 3000));
    let list = folder.control("dovecot-uidlist");
    fs::write(&list, "3 V1 N2 G00000000000000000000000000000001\n").expect("a uidlist");
    let paths = [message, list, folder.cur(), pair.source.clone()];
    let accessed = |path: &Path| {
        let metadata = fs::metadata(path).expect("it is there");
        (metadata.atime(), metadata.atime_nsec())
    };
    for path in &paths {
        // An access time before the modification time is moved by the next read on almost every mount.
        let options = ["-a", "-d", "2001-01-01"].map(OsStr::new);
        tool("coreutils", "touch", &[&options[..], &[path.as_ref()]].concat());
    }
    let before = paths.each_ref().map(|path| accessed(path));
    pair.sync(&[]);
    assert_eq!(paths.each_ref().map(|path| accessed(path)), before);
}

#[test]
fn a_source_that_cannot_be_written_is_enough() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let all: Vec<_> = walkdir::WalkDir::new(&pair.source)
        .into_iter()
        .map(|entry| entry.expect("an entry").into_path())
        .filter(|path| !path.is_symlink())
        .collect();
    for path in &all {
        set_mode(path, if path.is_dir() { 0o555 } else { 0o444 });
    }
    let run = finish(&mut pair.command_without_rights(&[])).ended_with(0);
    assert!(run.report().in_sync(), "{}", run.story());
    for path in all.iter().filter(|path| path.is_dir()) {
        set_mode(path, 0o755);
        let beneath = path.strip_prefix(&pair.source).expect("beneath the source");
        set_mode(&pair.mirror.join(beneath), 0o755);
    }
    assert_eq!(messages_beneath(&pair.mirror), messages_beneath(&pair.source));
}

// ---- through a far end of its own

#[test]
fn through_a_pipe_the_mirror_and_the_counts_are_the_same() {
    let counted = |pair: &Pair| {
        make_mailbox(&pair.source, 1);
        let report = pair.sync(&[]);
        assert_mirrored(pair);
        pair.sync(&[]).shipped_nothing();
        CHANGES.map(|name| report.count(name))
    };
    assert_eq!(counted(&Pair::new()), counted(&Pair::through_a_pipe()));
}

#[test]
fn the_far_end_is_called_as_the_manual_says() {
    let mut pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let seen = pair.path("seen");
    pair.connect_by(&format!("echo \"$@\" > {}; shift; exec \"$@\"", seen.display()));
    pair.sync(&[]);
    let told = fs::read_to_string(&seen).expect("the script ran");
    assert_eq!(told, format!("{HOST} {BINARY} serve --stdio\n"));
    let rsh = pair.rsh.clone().expect("a script");
    let mirror = format!("someone@{HOST}:{}", pair.mirror.display());
    let mut command = Command::new(BINARY);
    command
        .args(["sync", "--json", "-e", &rsh, "--remote-path", BINARY])
        .arg(&pair.source)
        .arg(mirror)
        .env("MAILTWIN_STATE", &pair.state);
    finish(&mut command).done();
    let told = fs::read_to_string(&seen).expect("the script ran");
    assert_eq!(told, format!("someone@{HOST} {BINARY} serve --stdio\n"));
}

#[test]
fn a_lost_state_costs_a_comparison_through_a_pipe_too() {
    for lost in ["master's", "slave's"] {
        let pair = Pair::through_a_pipe();
        make_mailbox(&pair.source, 1);
        pair.sync(&[]);
        let state = if lost == "master's" { pair.state.clone() } else { pair.mirror.join(".mailtwin") };
        fs::remove_dir_all(state).expect("removed");
        ships_no_content_and_settles(&pair);
    }
}

#[test]
fn relative_paths_and_trailing_slashes_name_the_same_pair() {
    let pair = synced_mailbox();
    let mut command = Command::new(BINARY);
    command
        .current_dir(pair.home())
        .args(["sync", "--json", "source/", "./mirror/"])
        .env("MAILTWIN_STATE", &pair.state);
    finish(&mut command).done().shipped_nothing();
}

#[test]
fn two_mirrors_of_one_source_do_not_know_of_each_other() {
    let mut pair = synced_mailbox();
    let first = pair.mirror.clone();
    pair.mirror = pair.path("second");
    pair.sync(&[]);
    assert_mirrored(&pair);
    inbox(&pair).deliver(980, &letter(980, 300));
    pair.sync(&[]);
    assert_mirrored(&pair);
    pair.mirror = first;
    let report = pair.sync(&[]);
    report.changed_only(&[("messages_added", 1)]);
    assert_mirrored(&pair);
}
