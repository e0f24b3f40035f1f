//! Restore points from outside: the commands, what they restored, and what is remembered to compare it with.

#![allow(dead_code, reason = "every test target takes the part that it needs")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::tree::*;

/// What a mirror was, and when it was that.
#[derive(Clone)]
pub struct Remembered {
    /// A time after the sync that made it so, as `--at` takes it.
    pub moment: String,
    /// All of it.
    pub tree: Tree,
}

/// Now, as RFC 3339 with nanoseconds.
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// What the mirror must be from here on, and the time.
pub fn remember(pair: &Pair) -> Remembered {
    Remembered { tree: expected_mirror(pair), moment: now() }
}

/// Syncs, and remembers what the mirror is since.
pub fn sync_and_remember(pair: &Pair) -> Remembered {
    pair.sync(&UNGUARDED);
    remember(pair)
}

/// `mailtwin VERB STANDBY ...`.
pub fn command(verb: &str, standby: &Path, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg(verb).arg(standby).args(arguments);
    command.env_remove("MAILTWIN_STATE").env_remove("MAILTWIN_FAULT").env_remove("MAILTWIN_FAULT_COUNT");
    command
}

/// Runs it; it never panics, and ends with a code that the manual has.
pub fn run(verb: &str, standby: &Path, arguments: &[&str]) -> Run {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    decent(finish(&mut command(verb, standby, &arguments)))
}

/// Asserts that a run neither panicked nor ended with a code of its own invention.
pub fn decent(run: Run) -> Run {
    assert!(!run.said().contains("panicked at"), "{}", run.story());
    assert!(run.was_killed() || matches!(run.code(), Some(0 | 1 | 2 | 10 | 23)), "{}", run.story());
    run
}

/// Makes a point, which must go well; gives its label.
pub fn backup(pair: &Pair, options: &[&str]) -> String {
    backup_of(&pair.mirror, options)
}

/// The same of a standby by its directory.
pub fn backup_of(standby: &Path, options: &[&str]) -> String {
    let run = run("backup", standby, &[&["--json"], options].concat()).ended_with(0);
    let report = run.report().0;
    assert_eq!(report["problems"], Value::Array(Vec::new()), "{}", run.story());
    report["label"].as_str().unwrap_or_else(|| panic!("no label: {}", run.story())).to_owned()
}

/// What `points --json` lists, which must be without a fault.
pub fn listed(standby: &Path) -> Vec<Value> {
    let run = run("points", standby, &["--json"]).ended_with(0);
    match serde_json::from_slice(&run.stdout) {
        Ok(Value::Array(points)) => points,
        _ => panic!("no list: {}", run.story()),
    }
}

/// The labels that `points` lists.
pub fn labels(standby: &Path) -> Vec<String> {
    listed(standby).iter().map(|point| point["label"].as_str().expect("a label").to_owned()).collect()
}

/// The one point with this label.
pub fn listed_as(standby: &Path, label: &str) -> Value {
    let found = listed(standby).into_iter().find(|point| point["label"] == label);
    found.unwrap_or_else(|| panic!("{label} is not listed"))
}

/// A directory that nothing was restored into yet.
pub fn fresh_place(home: &Path) -> PathBuf {
    let free = |number: &u32| !home.join(format!("restored{number}")).exists();
    home.join(format!("restored{}", (0..).find(free).expect("a number")))
}

/// Restores into a new directory, whatever comes of it.
pub fn try_restore(standby: &Path, options: &[&str]) -> (Run, PathBuf) {
    let place = fresh_place(standby.parent().expect("a parent"));
    let to = place.to_str().expect("a path of ours");
    (run("restore", standby, &[options, &["--to", to]].concat()), place)
}

/// What a restore brought, as a mirror is compared.
pub fn restored_tree(place: &Path, mail: bool) -> Tree {
    let mut tree = read_tree(place);
    if mail {
        forget_times_of_message_directories(&mut tree);
    }
    tree
}

/// Restores, which must go well and bring exactly this.
pub fn assert_restores(standby: &Path, options: &[&str], expected: &Tree, mail: bool) {
    let (run, place) = try_restore(standby, options);
    let run = run.ended_with(0);
    let actual = restored_tree(&place, mail);
    let differing = differences(expected, &actual);
    assert!(differing.is_empty(), "{}\nis not what it was:\n{}", run.story(), differing.join("\n"));
    fs::remove_dir_all(&place).expect("it is removed");
}

/// A point must bring exactly this.
pub fn assert_point(standby: &Path, label: &str, expected: &Tree) {
    assert_restores(standby, &["--point", label], expected, true);
}

/// A moment must bring what was remembered.
pub fn assert_moment(standby: &Path, remembered: &Remembered) {
    assert_restores(standby, &["--at", &remembered.moment], &remembered.tree, true);
}

/// The directory of a standby's points.
pub fn points_of(standby: &Path) -> PathBuf {
    standby.join(".mailtwin/points")
}

/// The log that is kept.
pub fn log_of(standby: &Path) -> PathBuf {
    standby.join(".mailtwin/log")
}

/// A copy of a standby that can be spoiled.
pub fn copy_of(standby: &Path, name: &str) -> PathBuf {
    let copy = standby.with_file_name(name);
    if copy.exists() {
        fs::remove_dir_all(&copy).expect("the last copy is removed");
    }
    tool("coreutils", "cp", &["-a".as_ref(), standby.as_os_str(), copy.as_os_str()]);
    copy
}

/// Runs it with a fault in it.
pub fn struck_at(verb: &str, standby: &Path, arguments: &[&str], fault: &str) -> Run {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    decent(finish(command(verb, standby, &arguments).env("MAILTWIN_FAULT", fault)))
}

/// Runs it without a fault, and well; the number of its disk steps.
pub fn steps_taken(verb: &str, standby: &Path, arguments: &[&str]) -> u64 {
    let counted = standby.with_file_name("steps-taken");
    let _ = fs::remove_file(&counted);
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    finish(command(verb, standby, &arguments).env("MAILTWIN_FAULT_COUNT", &counted)).ended_with(0);
    let text = fs::read_to_string(&counted).expect("MAILTWIN_FAULT_COUNT wrote it");
    text.trim().parse().unwrap_or_else(|_| panic!("not a count of steps: {text:?}"))
}

/// Everything a mirror keeps, in one tree.
pub fn make_everything(root: &Path) {
    let odd = |name: &[u8]| root.join(std::ffi::OsStr::from_bytes(name));
    for (index, name) in
        [&b"latin1-\xe9"[..], b"new\nline", b"tab\t\x1b[31m", b" ", b"-rf", b"\xff\xfe"].iter().enumerate()
    {
        fs::write(odd(name), noise(index as u64, 100 + index)).expect("a file");
    }
    fs::write(root.join("x".repeat(255)), "long").expect("a file");
    fs::write(root.join("empty"), "").expect("a file");
    fs::write(root.join("large"), noise(9, 900_000)).expect("a file");
    fs::write(root.join("sparse"), vec![0; 900_000]).expect("a file");
    fs::create_dir_all(odd(b"d\xe9/empty/in it")).expect("directories");
    fs::hard_link(root.join("large"), odd(b"d\xe9/linked")).expect("a link");
    fs::hard_link(root.join("large"), root.join("a third name")).expect("a link");
    std::os::unix::fs::symlink("nowhere\u{e9}", root.join("dangling")).expect("a link");
    std::os::unix::fs::symlink("/etc/passwd", root.join("outside")).expect("a link");
    for (name, mode) in [("empty", 0o640), ("sparse", 0o404), ("-rf", 0o777)] {
        set_mode(&root.join(name), mode);
    }
    set_mode(&odd(b"d\xe9/empty"), 0o2750);
    if am_root() {
        std::os::unix::fs::chown(root.join("empty"), Some(1234), Some(4321)).expect("chown");
        std::os::unix::fs::lchown(root.join("dangling"), Some(1234), Some(4321)).expect("lchown");
        std::os::unix::fs::chown(odd(b"d\xe9"), Some(5), Some(6)).expect("chown");
    }
    for (name, value) in [("user.note", "text"), ("user.empty", "")] {
        set_attribute(&root.join("large"), name, value);
        set_attribute(&odd(b"d\xe9"), name, value);
    }
    settle_times(root);
}

/// Sets an extended attribute.
pub fn set_attribute(path: &Path, name: &str, value: &str) {
    let words = ["-n", name, "-v", value].map(std::ffi::OsStr::new);
    tool("attr", "setfattr", &[&words[..], &[path.as_ref()]].concat());
}

/// All extended attributes of a tree, as `getfattr` prints them.
pub fn attributes(root: &Path) -> String {
    let words = ["-c", "cd \"$0\" && getfattr -R -h -d . | grep -v '^$'", root.to_str().expect("a path of ours")];
    String::from_utf8_lossy(&tool("attr", "sh", &words.map(std::ffi::OsStr::new))).into_owned()
}
