//! Looking into restore points: it takes no right to write and leaves nothing behind, and what is printed can be given back.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use points::*;
use serde_json::Value;
use tree::*;

/// Lets everybody read what is beneath a directory, and nobody write, not even its owner. To root, who may all the same,
/// the runs are `nobody`'s.
fn make_readable_only(root: &Path) {
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("readable");
        match entry.file_type() {
            kind if kind.is_dir() => set_mode(entry.path(), 0o555),
            kind if kind.is_file() => set_mode(entry.path(), 0o444),
            _ => {}
        }
    }
}

/// Takes that back, so that it can be removed.
fn make_writable(root: &Path) {
    let directories = walkdir::WalkDir::new(root).into_iter().filter_map(Result::ok);
    directories.filter(|entry| entry.file_type().is_dir()).for_each(|entry| set_mode(entry.path(), 0o755));
}

/// The program, where a user without rights can run it, and a place where that user may write.
fn ground(pair: &Pair) -> (PathBuf, PathBuf) {
    set_mode(pair.home(), 0o755);
    let (binary, place) = (pair.path("mailtwin-binary"), pair.path("place"));
    tool("coreutils", "cp", &[BINARY.as_ref(), binary.as_os_str()]);
    fs::create_dir(&place).expect("a directory");
    set_mode(&place, 0o777);
    (binary, place)
}

fn as_a_reader(binary: &Path, verb: &str, standby: &Path, words: &[&str]) -> Run {
    let mut command = Command::new(binary);
    command.arg(verb).arg(standby).args(words).current_dir("/").env_remove("MAILTWIN_STATE");
    if am_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    decent(finish(&mut command))
}

#[test]
fn who_may_only_read_can_look_and_restore_and_verify() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    let full = backup(&pair, &[]);
    let began = now();
    let gone = Folder(pair.source.join(".Archive")).messages()[0].clone();
    let body = fs::read(&gone).expect("a message");
    let id =
        String::from_utf8_lossy(&body).lines().find_map(|line| line.strip_prefix("Message-ID: ").map(str::to_owned));
    let id = id.expect("an id");
    fs::remove_file(gone).expect("expunged");
    let remembered = sync_and_remember(&pair);
    let (binary, place) = ground(&pair);
    make_readable_only(&pair.mirror);
    let before = fingerprint(&pair.mirror);
    let restored = place.join("restored");
    let to = restored.to_str().expect("ours");
    let looks: [(&str, &[&str]); 10] = [
        ("points", &[]),
        ("ls", &[]),
        ("find", &["--point", &full]),
        ("find", &["--deleted-between", &began, "now"]),
        ("cat", &["subscriptions"]),
        ("diff", &[&full]),
        ("timeline", &[&id]),
        ("restore", &["--to", to]),
        ("restore", &["--to", to, "--dry-run"]),
        ("expire", &["--dry-run"]),
    ];
    for (verb, words) in looks {
        as_a_reader(&binary, verb, &pair.mirror, words).ended_with(0);
    }
    let mut came = restored_tree(&restored, true);
    let mut expected = remembered.tree;
    for tree in [&mut came, &mut expected] {
        tree.values_mut().for_each(|entry| entry.owner = (0, 0));
    }
    assert_same("restored", &expected, &came);
    let verified = as_a_reader(&binary, "verify", &pair.mirror, &["--all"]).ended_with(0);
    assert!(verified.printed().contains("whole"), "{}", verified.story());
    verified.spoke_clearly("cannot be noted");
    assert!(before == fingerprint(&pair.mirror), "something was written");
    as_a_reader(&binary, "backup", &pair.mirror, &[]).refused(&[1], pair.mirror.to_str().expect("ours"));
    as_a_reader(&binary, "pin", &pair.mirror, &[&full]).refused(&[1], pair.mirror.to_str().expect("ours"));
    make_writable(&pair.mirror);
}

#[test]
fn looking_at_a_standby_without_points_makes_nothing_there() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    let before = fingerprint(&pair.mirror);
    assert!(listed(&pair.mirror).is_empty());
    for (verb, words) in [("ls", &[][..]), ("find", &[]), ("cat", &["x"]), ("verify", &[]), ("diff", &["now"])] {
        run(verb, &pair.mirror, words).refused(&[1], "mailtwin backup");
    }
    run("timeline", &pair.mirror, &["x@example.org"]).refused(&[1], "x@example.org");
    assert!(before == fingerprint(&pair.mirror), "something was made");
}

/// Names that are printed otherwise than they are, and two of which one is printed as the other is.
const ODD: [&[u8]; 8] = [
    b"latin1-\xe9",
    b"new\nline",
    b"back\\slash",
    b"\\x41",
    b"A",
    b"\x1b[31mred\\",
    "\u{202e}reversed \u{e9}".as_bytes(),
    b"back\\\\slash",
];

#[test]
fn every_path_that_is_printed_can_be_given_back() {
    let pair = Pair::of_files();
    for name in ODD {
        let directory = pair.source.join(OsStr::from_bytes(name));
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join(OsStr::from_bytes(name)), name).expect("a file");
    }
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let listed = |words: &[&str]| {
        let run = run("ls", &pair.mirror, &[&["--json"], words].concat()).ended_with(0);
        let list: Vec<Value> = serde_json::from_slice(&run.stdout).expect("a list");
        list.iter().map(|one| one["path"].as_str().expect("a path").to_owned()).collect::<Vec<String>>()
    };
    let mut seen = Vec::new();
    for directory in listed(&[]) {
        for file in listed(&[&directory]) {
            assert!(file.starts_with(&directory), "{directory} has {file}");
            seen.push(run("cat", &pair.mirror, &[&file]).ended_with(0).stdout);
            assert!(listed(&[&file]) == [file.as_str()], "{file}");
        }
    }
    let mut wanted = ODD.map(<[u8]>::to_vec).to_vec();
    wanted.sort();
    seen.sort();
    assert_eq!(seen, wanted);
    // As lines show it, with the slash of a directory.
    let printed = String::from_utf8(run("ls", &pair.mirror, &[]).ended_with(0).stdout).expect("UTF-8");
    let directory =
        printed.lines().find_map(|line| line.split_once("  latin1").map(|(_, rest)| format!("latin1{rest}")));
    assert_eq!(listed(&[&directory.expect("that line")]), ["latin1-\\xe9/latin1-\\xe9"]);
    run("ls", &pair.mirror, &["no\\x0a such"]).refused(&[1], "no\\x0a such");
}

#[test]
fn a_path_can_be_given_by_its_bytes_where_nothing_is_printed_so() {
    let pair = Pair::of_files();
    for name in ODD {
        fs::write(pair.source.join(OsStr::from_bytes(name)), name).expect("a file");
    }
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let cat = |name: &[u8]| {
        decent(finish(&mut command("cat", &pair.mirror, &[OsStr::from_bytes(name)]))).ended_with(0).stdout
    };
    for name in ODD.iter().filter(|name| !matches!(**name, b"\\x41" | b"back\\\\slash")) {
        assert_eq!(cat(name), *name);
    }
    // What is printed goes first.
    assert_eq!((cat(b"\\x41"), cat(b"back\\\\slash")), (b"A".to_vec(), b"back\\slash".to_vec()));
}
