//! `mailtwin export --tar`, and how a file is written: what GNU tar and bsdtar unpack is what `mailtwin restore` brings,
//! and what has the wanted name is whole. mbox and Maildir are in `export_mail`.

#[path = "support/export.rs"]
mod exported;
#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use exported::*;
use points::*;
use tree::*;

/// GNU tar as whoever wants everything calls it.
const GNU: [&str; 6] = ["tar", "--same-permissions", "--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner"];

/// The other one.
const BSD: [&str; 5] = ["bsdtar", "--same-permissions", "--acls", "--xattrs", "--numeric-owner"];

/// Unpacks an archive into a new directory, without a word of complaint.
fn unpacked(archive: &Path, program: &[&str], place: PathBuf) -> PathBuf {
    fs::create_dir(&place).expect("a directory");
    let mut words: Vec<&OsStr> = program[1..].iter().map(OsStr::new).collect();
    words.extend([OsStr::new("-xf"), archive.as_os_str(), OsStr::new("-C"), place.as_os_str()]);
    let package = if program[0] == "tar" { "tar" } else { "libarchive-tools" };
    tool(package, program[0], &words);
    place
}

/// What a restore brings.
fn restored(standby: &Path, options: &[&str]) -> PathBuf {
    let (run, place) = try_restore(standby, options);
    run.ended_with(0);
    place
}

/// The root's time is left out where it is somebody else's: bsdtar does not set that of the directory it unpacks into.
fn without_the_time_of_the_root(mut tree: Tree) -> Tree {
    tree.get_mut(&b""[..]).expect("the root").modified = None;
    tree
}

#[test]
fn what_gnu_tar_unpacks_is_what_a_restore_brings() {
    let (pair, full) = vmail();
    change_scenario_of_users(&pair);
    pair.sync(&UNGUARDED);
    for (number, options) in [vec!["--point", full.as_str()], vec![]].into_iter().enumerate() {
        let archive = place(&pair, &format!("{number}.tar"));
        let run = export(&pair.mirror, &[&options[..], &["--json", "--tar", typed(&archive)]].concat()).ended_with(0);
        let expected = restored_tree(&restored(&pair.mirror, &options), true);
        let actual = restored_tree(&unpacked(&archive, &GNU, place(&pair, &format!("gnu{number}"))), true);
        assert_same("unpacked", &expected, &actual);
        let files = expected.values().filter(|entry| !matches!(entry.kind, Kind::Directory)).count();
        assert_eq!(run.report().count("exported"), files as u64);
        assert!(expected.values().any(|entry| entry.link_of.is_some()) == (number == 1), "a hard link in the second");
    }
}

fn change_scenario_of_users(pair: &Pair) {
    let inbox = Folder(pair.source.join("example.org/user0/Maildir"));
    let archive = Folder(inbox.0.join(".Archive"));
    let message = inbox.messages()[0].clone();
    archive.link_in(&message);
    inbox.set_flags(&message, "FRS");
    fs::remove_file(archive.messages().last().expect("messages")).expect("expunged");
}

#[test]
fn what_bsdtar_unpacks_is_what_a_restore_brings() {
    let (pair, _) = vmail();
    let archive = place(&pair, "set.tar");
    export(&pair.mirror, &["--tar", typed(&archive)]).ended_with(0);
    let expected = restored_tree(&restored(&pair.mirror, &[]), true);
    let actual = restored_tree(&unpacked(&archive, &BSD, place(&pair, "bsd")), true);
    assert_same("unpacked", &without_the_time_of_the_root(expected), &without_the_time_of_the_root(actual));
}

/// Names, links, owners and times that a ustar header has no room for.
fn make_awkward_files(root: &Path) {
    let odd = |name: &[u8]| root.join(OsStr::from_bytes(name));
    let deep: PathBuf = (b'a'..b'i').map(|letter| String::from_utf8(vec![letter; 60]).expect("text")).collect();
    fs::create_dir_all(root.join(&deep)).expect("directories");
    fs::write(root.join(&deep).join("file"), "deep").expect("a file");
    fs::hard_link(root.join(&deep).join("file"), root.join("linked")).expect("a link");
    for name in [&b"\xff\xfe\n\x1b name"[..], &[0xe9; 120], &[b'n'; 100], &[b'm'; 101], b"-rf", b" "] {
        fs::write(odd(name), name).expect("a file");
    }
    for (target, name) in
        [(&[0xe9; 150][..], "long link"), (b"./a//b/../", "crooked link"), (b"/etc/passwd", "outside")]
    {
        symlink(OsStr::from_bytes(target), root.join(name)).expect("a link");
    }
    fs::write(root.join("empty"), "").expect("a file");
    fs::write(root.join("block"), vec![7; 512]).expect("a file");
    fs::write(root.join("large"), noise(3, 9_000_000)).expect("a file");
    fs::create_dir_all(odd(b"d\xe9/empty/in it")).expect("directories");
    set_mode(&root.join("empty"), 0o4711);
    set_mode(&odd(b"d\xe9/empty"), 0o2750);
    if am_root() {
        for (name, user, group) in [("empty", 1234, 4321), ("long link", 77, 78), ("block", 3_000_000, 4_000_000)] {
            std::os::unix::fs::lchown(root.join(name), Some(user), Some(group)).expect("chown");
        }
        set_mode(&root.join("empty"), 0o4711);
    }
    settle_times(root);
    set_modified(&root.join("block"), 12_000_000_000, 1);
    set_modified(&root.join("empty"), 1_234_567_890, 0);
}

#[test]
fn what_a_ustar_header_has_no_room_for_is_unpacked_all_the_same() {
    let pair = Pair::of_files();
    make_awkward_files(&pair.source);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let archive = place(&pair, "set.tar");
    export(&pair.mirror, &["--tar", typed(&archive)]).ended_with(0);
    let expected = read_tree(&restored(&pair.mirror, &[]));
    assert_same("restored", &read_tree(&pair.source), &expected);
    let gnu = read_tree(&unpacked(&archive, &GNU, place(&pair, "gnu")));
    assert_same("unpacked by GNU tar", &expected, &gnu);
    let bsd = read_tree(&unpacked(&archive, &BSD, place(&pair, "bsd")));
    let without = without_the_time_of_the_root;
    assert_same("unpacked by bsdtar", &without(expected), &without(bsd));
}

/// Attributes and access control lists of all files, by other programs.
fn attributes(root: &Path) -> String {
    let line = "cd \"$0\" && getfattr -R -h -d -m - . 2>/dev/null | grep -v '^$'; getfacl -R -n . 2>/dev/null";
    let words = ["-c", line, typed(root)].map(OsStr::new);
    String::from_utf8_lossy(&tool("attr and acl", "sh", &words)).into_owned()
}

#[test]
fn attributes_and_access_control_lists_are_unpacked() {
    let pair = Pair::of_files();
    let (file, directory) = (pair.source.join("file"), pair.source.join("directory"));
    fs::write(&file, "x").expect("a file");
    fs::create_dir(&directory).expect("a directory");
    let set = |program: &str, words: &[&str], path: &Path| {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).chain([path.as_os_str()]).collect();
        tool("attr and acl", program, &words);
    };
    for path in [&file, &directory] {
        set("setfattr", &["-n", "user.note", "-v", "0x00ff3d0a25"], path);
        set("setfattr", &["-n", "user.empty"], path);
        set("setfacl", &["-m", "u:1234:rw,g:70000:x"], path);
    }
    set("setfacl", &["-d", "-m", "u:1234:rwx"], &directory);
    if am_root() {
        set("setfattr", &["-n", "trusted.mark", "-v", "kept"], &file);
    }
    settle_times(&pair.source);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let archive = place(&pair, "set.tar");
    export(&pair.mirror, &["--tar", typed(&archive)]).ended_with(0);
    let expected = attributes(&pair.source);
    for word in ["user.note", "user.empty", "user:1234:rw", "default:user:1234:rwx", "group:70000:--x"] {
        assert!(expected.contains(word), "{expected}");
    }
    for (name, program) in [("gnu", &GNU[..]), ("bsd", &BSD)] {
        assert_eq!(attributes(&unpacked(&archive, program, place(&pair, name))), expected, "{name}");
    }
}

#[test]
fn a_pipe_takes_what_a_file_does_and_every_time_the_same() {
    let (pair, full) = vmail();
    let options = ["--point", &full, "--mailbox", "user1@example.org"];
    let archive = place(&pair, "one.tar");
    export(&pair.mirror, &[&options[..], &["--tar", typed(&archive)]].concat()).ended_with(0);
    let bytes = fs::read(&archive).expect("the archive");
    let piped = export(&pair.mirror, &[&options[..], &["--json", "--tar", "-"]].concat()).ended_with(0);
    assert!(bytes == piped.stdout, "another archive");
    let report: serde_json::Value = serde_json::from_slice(&piped.stderr).expect("the object is on standard error");
    assert_eq!(report["bytes"], sum_of_files(&restored(&pair.mirror, &options)));
    let place = place(&pair, "by pipe");
    fs::create_dir(&place).expect("a directory");
    let line = "\"$0\" export \"$1\" --point \"$2\" --tar - | (cd \"$3\" && tar x)";
    tool("tar", "sh", &["-c", line, BINARY, typed(&pair.mirror), &full, typed(&place)].map(OsStr::new));
    assert_same("by a pipe", &contents(&restored(&pair.mirror, &["--point", &full])), &contents(&place));
}

fn sum_of_files(root: &Path) -> u64 {
    read_tree(root).values().map(|entry| if let Kind::File(length, _) = entry.kind { length } else { 0 }).sum()
}

/// A tree without what `tar x` alone does not set.
fn contents(root: &Path) -> Tree {
    let mut tree = restored_tree(root, true);
    tree.retain(|path, _| !path.is_empty());
    tree
}

#[test]
fn a_terminal_is_sent_no_archive() {
    let (pair, _) = vmail();
    for form in ["--tar", "--mbox"] {
        let line = format!("{BINARY} export {} {form} -", pair.mirror.display());
        let run = finish(Command::new("script").args(["-qec", &line, "/dev/null"])).ended_with(2);
        let printed = run.printed();
        assert!(printed.contains("terminal") && printed.lines().count() == 1, "{}", run.story());
    }
}

#[test]
fn a_part_has_the_directories_above_it_and_nothing_else() {
    let (pair, _) = vmail();
    for options in [
        &["--mailbox", "user1@example.org", "--folder", "Archive/2024"][..],
        &["--mailbox", "example.org/user0"],
        &["--subject", "letter 1101"],
    ] {
        let archive = place(&pair, "part.tar");
        export(&pair.mirror, &[options, &["--tar", typed(&archive)]].concat()).ended_with(0);
        let unpacked = unpacked(&archive, &GNU, place(&pair, "part"));
        let expected = restored_tree(&restored(&pair.mirror, options), true);
        assert!(expected.len() > 3, "something is picked by {options:?}");
        assert_same("a part", &expected, &restored_tree(&unpacked, true));
        fs::remove_file(archive).expect("removed");
        fs::remove_dir_all(unpacked).expect("removed");
    }
}

#[test]
fn a_large_content_is_not_held_in_memory() {
    let pair = Pair::of_files();
    let large = fs::File::create(pair.source.join("large")).expect("a file");
    large.set_len(200 << 20).expect("long");
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let archive = place(&pair, "large.tar");
    let measured = place(&pair, "kilobytes");
    let words = ["-f", "%M", "-o", typed(&measured), BINARY, "export", typed(&pair.mirror), "--tar", typed(&archive)];
    tool("time", "/usr/bin/time", &words.map(OsStr::new));
    let kilobytes: u64 = fs::read_to_string(&measured).expect("measured").trim().parse().expect("a number");
    assert!(kilobytes < 100 << 10, "{kilobytes} KiB for a content of 200 MiB");
    assert!(fs::metadata(&archive).expect("the archive").len() > 200 << 20);
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_unpacked() {
    let (pair, label) = damaged();
    let archive = place(&pair, "damaged.tar");
    let run = export(&pair.mirror, &["--point", &label, "--json", "--tar", typed(&archive)]).ended_with(23);
    let failed = run.report().count("failed");
    assert!((1..24).contains(&failed), "{}", run.story());
    let named: Vec<String> = run.report().problems().into_iter().map(|(subject, _)| subject).collect();
    let mut expected = restored_tree(&pair.source, true);
    expected.retain(|path, _| !named.contains(&shown(path)));
    let actual = restored_tree(&unpacked(&archive, &GNU, place(&pair, "gnu")), true);
    assert_same("the rest", &expected, &actual);
    assert_eq!(named.len() as u64, failed);
    for name in named {
        assert!(run.said().contains(&name), "{}", run.story());
    }
}

#[test]
fn a_long_content_that_is_damaged_in_its_middle_leaves_the_archive_whole() {
    let pair = Pair::of_files();
    fs::write(pair.source.join("before"), "x").expect("a file");
    fs::write(pair.source.join("long"), noise(1, 20_000_000)).expect("a file");
    fs::write(pair.source.join("then"), noise(2, 2_000)).expect("a file");
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    spoil(&pair, &label);
    let archive = place(&pair, "damaged.tar");
    let run = export(&pair.mirror, &["--point", &label, "--json", "--tar", typed(&archive)]).ended_with(23);
    run.spoke_clearly("long: ");
    assert_eq!((run.report().count("failed"), run.report().count("exported")), (1, 2), "{}", run.story());
    let mut expected = read_tree(&pair.source);
    expected.remove(&b"long"[..]).expect("it was there");
    assert_same("the rest", &expected, &read_tree(&unpacked(&archive, &GNU, place(&pair, "gnu"))));
}

#[test]
fn a_reader_that_goes_away_is_told_of() {
    let (pair, _) = damaged();
    let line = "(\"$0\" export \"$1\" --tar -; echo $? >\"$2\") 2>\"$3\" | head -c 1 >/dev/null";
    let (code, said) = (place(&pair, "code"), place(&pair, "said"));
    tool("coreutils", "sh", &["-c", line, BINARY, typed(&pair.mirror), typed(&code), typed(&said)].map(OsStr::new));
    assert_eq!(fs::read_to_string(&code).expect("a code"), "1\n");
    let said = fs::read_to_string(&said).expect("words");
    assert!(said.contains("standard output") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_dry_run_counts_what_would_be_in_an_archive() {
    let (pair, _) = vmail();
    change_scenario_of_users(&pair);
    pair.sync(&UNGUARDED);
    let archive = place(&pair, "set.tar");
    let options = ["--json", "--tar", typed(&archive)];
    let dry = export(&pair.mirror, &[&options[..], &["--dry-run"]].concat()).ended_with(0).report();
    assert!(!archive.exists());
    let wet = export(&pair.mirror, &options).ended_with(0).report();
    assert_eq!(dry.0, wet.0);
    assert!(wet.count("exported") > 60, "{}", wet.0);
}

// ---- the file ----

#[test]
fn a_file_that_is_there_is_replaced_with_force_only() {
    let (pair, _) = vmail();
    let archive = place(&pair, "set.tar");
    fs::write(&archive, "mine").expect("a file");
    for options in [&["--tar", typed(&archive)][..], &["--tar", typed(&archive), "--dry-run"]] {
        export(&pair.mirror, options).refused(&[1], "set.tar");
    }
    assert_eq!(fs::read(&archive).expect("it is there"), b"mine");
    export(&pair.mirror, &["--tar", typed(&archive), "--force"]).ended_with(0);
    assert_eq!(fs::metadata(&archive).expect("it is there").mode() & 0o777, 0o600, "mail is its owner's");
    unpacked(&archive, &GNU, place(&pair, "gnu"));
    assert_only_ours_is_left(&pair);
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let (pair, _) = vmail();
    let (directory, link, kept) = (pair.path("directory"), pair.path("link"), pair.path("kept"));
    fs::create_dir(&directory).expect("a directory");
    fs::write(&kept, "mine").expect("a file");
    symlink(&kept, &link).expect("a link");
    for path in [&directory, &link, Path::new("/dev/null")] {
        export(&pair.mirror, &["--force", "--tar", typed(path)]).refused(&[1], typed(path));
    }
    assert!(directory.is_dir() && fs::read(&kept).expect("it is there") == b"mine");
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    export(&pair.mirror, &["--tar", typed(&pair.path("nowhere/set.tar"))]).refused(&[1], "nowhere");
}

#[test]
fn places_in_the_standby_are_no_places_to_export_to() {
    let (pair, _) = vmail();
    let before = fingerprint(&pair.mirror);
    for place in ["set.tar", "example.org/user0/set.tar", ".mailtwin/set.tar"] {
        for form in ["--tar", "--mbox", "--maildir"] {
            let path = pair.mirror.join(place);
            let part = ["--folder", "INBOX", "--mailbox", "user0@example.org"];
            export(&pair.mirror, &[&part[..], &[form, typed(&path)]].concat()).refused(&[1], typed(&path));
        }
    }
    export(&pair.mirror, &["--mbox", &format!("{}/new/", pair.mirror.display())]).refused(&[1], "new/");
    assert!(before == fingerprint(&pair.mirror), "the standby was written to");
}

#[test]
fn wrong_usage_ends_with_2() {
    let (pair, _) = vmail();
    for options in [
        &[][..],
        &["--tar", "x", "--mbox", "y"],
        &["--force", "--maildir", "x"],
        &["--tar", "x", "--at", "the other day"],
        &["--tar"],
    ] {
        export(&pair.mirror, options).ended_with(2);
    }
}

/// Nothing unfinished lies beside what was exported.
fn assert_only_ours_is_left(pair: &Pair) {
    let partial = names_in(pair.home()).into_iter().filter(|name| name.as_bytes().ends_with(b".partial"));
    assert_eq!(partial.count(), 0);
}

#[test]
fn one_run_at_a_time_writes_to_a_file() {
    let (pair, _) = vmail();
    let archive = place(&pair, "set.tar");
    let draft = pair.path(".set.tar.partial");
    let other = fs::File::create(&draft).expect("a draft");
    other.lock().expect("locked");
    export(&pair.mirror, &["--tar", typed(&archive)]).refused(&[10], "set.tar");
    assert!(!archive.exists());
    drop(other);
    // What a run that was killed has left is begun anew.
    fs::write(&draft, vec![1; 5_000_000]).expect("a long draft");
    export(&pair.mirror, &["--tar", typed(&archive)]).ended_with(0);
    unpacked(&archive, &GNU, place(&pair, "gnu"));
    assert_only_ours_is_left(&pair);
}

#[test]
fn a_draft_of_somebody_else_is_not_written_to() {
    let (pair, _) = vmail();
    let archive = place(&pair, "set.tar");
    let (draft, kept) = (pair.path(".set.tar.partial"), pair.path("kept"));
    fs::write(&kept, "mine").expect("a file");
    symlink(&kept, &draft).expect("a link");
    export(&pair.mirror, &["--tar", typed(&archive)]).refused(&[1], ".set.tar.partial");
    fs::remove_file(&draft).expect("removed");
    fs::hard_link(&kept, &draft).expect("a link");
    export(&pair.mirror, &["--tar", typed(&archive)]).refused(&[1], ".set.tar.partial");
    if am_root() {
        fs::remove_file(&draft).expect("removed");
        fs::write(&draft, "").expect("a file");
        std::os::unix::fs::chown(&draft, Some(NOBODY), Some(NOBODY)).expect("chown");
        export(&pair.mirror, &["--tar", typed(&archive)]).refused(&[1], ".set.tar.partial");
    }
    assert!(!archive.exists() && fs::read(&kept).expect("it is there") == b"mine");
}

/// Strikes an export at every step; what has the wanted name afterwards is whole, and the next run is a good one.
fn survives(kind: &str, form: &str, target: &str, is_whole: impl Fn(&Path)) {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let path = pair.path(target.trim_end_matches('/'));
    let named = format!("{}{}", path.display(), if target.ends_with('/') { "/" } else { "" });
    let remove = || match path.is_dir() {
        true => fs::remove_dir_all(&path).expect("removed"),
        false => drop(fs::remove_file(&path)),
    };
    let options = [form, named.as_str(), "--force"];
    let steps = steps_taken("export", &pair.mirror, &options);
    remove();
    assert!(steps > 4, "{steps} steps");
    for step in 1..=steps {
        let run = struck_at("export", &pair.mirror, &options, &kind.replace('@', &format!("@{step}")));
        assert!(run.code() != Some(0) || kind.starts_with("short"), "step {step} of {steps}: {}", run.story());
        if path.exists() {
            is_whole(&path);
        }
        if !run.was_killed() {
            assert_only_ours_is_left(&pair);
        }
        export(&pair.mirror, &options).ended_with(0);
        is_whole(&path);
        assert_only_ours_is_left(&pair);
        remove();
    }
}

fn is_whole_archive(path: &Path) {
    let listed = tool("tar", "tar", &["-tf".as_ref(), path.as_os_str()]);
    assert!(listed.ends_with(b"subscriptions\n"), "{}", String::from_utf8_lossy(&listed));
}

#[test]
fn a_killed_export_leaves_no_half_file_under_the_wanted_name() {
    survives("kill@", "--tar", "set.tar", is_whole_archive);
}

#[test]
fn a_failed_export_leaves_nothing() {
    survives("eio@", "--tar", "set.tar", is_whole_archive);
    survives("enospc@", "--tar", "set.tar", is_whole_archive);
}

#[test]
fn a_short_write_is_made_longer() {
    survives("short@", "--tar", "set.tar", is_whole_archive);
}

#[test]
fn a_killed_export_of_folders_leaves_whole_files_only() {
    survives("kill@", "--mbox", "folders/", |path| {
        for name in names_in(path).into_iter().filter(|name| !name.as_bytes().ends_with(b".partial")) {
            let bytes = fs::read(path.join(&name)).expect("a file");
            assert!(bytes.ends_with(b"\n\n"), "{name:?} is not whole");
        }
    });
}
