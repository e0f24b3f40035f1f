//! mailtwin through a real ssh: the far end is started by an sshd of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use walkdir::WalkDir;

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/sshd.rs"]
mod sshd;

use sshd::{Sshd, own_user};

const MAILTWIN: &str = env!("CARGO_BIN_EXE_mailtwin");

/// The most that a run may send and receive when nothing changed.
const NOTHING_CHANGED: u64 = 4096;

#[test]
fn a_tree_is_copied_over_ssh_and_then_nothing_more_is_shipped() {
    let (sshd, trees) = (Sshd::start(), Trees::new());
    let first = trees.sync(&sshd, "localhost");
    assert_eq!(first["messages_added"], 2 * MESSAGES as u64, "{first:#}");
    trees.assert_equal();

    let second = trees.sync(&sshd, "localhost");
    assert_eq!(second["bytes_content"], 0, "{second:#}");
    let wire = number(&second, "bytes_sent") + number(&second, "bytes_received");
    assert!(wire < NOTHING_CHANGED, "{second:#}");
    trees.assert_equal();
}

#[test]
fn changes_reach_the_mirror_over_ssh_as_user_at_host() {
    let (sshd, trees) = (Sshd::start(), Trees::new());
    let host = format!("{}@localhost", own_user());
    trees.sync(&sshd, &host);

    let cur = trees.master.join("example.org/alice/Maildir/cur");
    fs::rename(cur.join(name(0)), cur.join(format!("{}FS", name(0)))).expect("a flag changes");
    fs::remove_file(cur.join(name(1))).expect("a message is expunged");
    let folder = trees.master.join("example.org/alice/Maildir/.Archive/cur");
    fs::rename(cur.join(name(2)), folder.join(format!("{}S", name(2)))).expect("a message moves");
    fs::hard_link(cur.join(name(3)), folder.join(format!("copy{}", name(3)))).expect("a message is copied");

    let report = trees.sync(&sshd, &host);
    assert_eq!(report["messages_added"], 0, "{report:#}");
    assert_eq!(report["messages_removed"], 1, "{report:#}");
    assert_eq!(report["messages_linked"], 1, "{report:#}");
    assert_eq!(report["messages_renamed"], 2, "{report:#}");
    assert_eq!(report["bytes_content"], 0, "{report:#}");
    trees.assert_equal();
}

#[test]
fn an_unreachable_host_is_named_and_nothing_is_changed() {
    let (sshd, trees) = (Sshd::start(), Trees::new());
    let output = trees.run(&sshd.rsh_to_nobody(), MAILTWIN, "localhost");
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert!(own_sentence(&output, &["localhost"]), "{}", complaint(&output));
    assert!(contents(&trees.mirror).is_empty());

    trees.sync(&sshd, "localhost");
    trees.assert_equal();
}

#[test]
fn a_remote_path_that_is_not_there_is_named_with_its_host() {
    let (sshd, trees) = (Sshd::start(), Trees::new());
    let output = trees.run(&sshd.rsh(), "/not/there/mailtwin", "localhost");
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert!(own_sentence(&output, &["localhost", "/not/there/mailtwin"]), "{}", complaint(&output));
    assert!(contents(&trees.mirror).is_empty());
}

#[test]
fn a_far_end_that_is_another_program_is_refused() {
    let (sshd, trees) = (Sshd::start(), Trees::new());
    for another in ["/bin/echo", "/bin/true"] {
        let output = trees.run(&sshd.rsh(), another, "localhost");
        assert_eq!(output.status.code(), Some(1), "{another}: {}", complaint(&output));
        assert!(own_sentence(&output, &["localhost"]), "{another}: {}", complaint(&output));
    }
    assert!(contents(&trees.mirror).is_empty());
}

#[test]
fn a_login_that_is_refused_is_a_failure_that_names_the_host() {
    let (sshd, trees) = (Sshd::start(), Trees::new());
    let output = trees.run(&sshd.rsh(), MAILTWIN, "nobody-of-that-name@localhost");
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert!(own_sentence(&output, &["localhost"]), "{}", complaint(&output));
    assert!(contents(&trees.mirror).is_empty());
}

/// Messages in each of the two folders.
const MESSAGES: usize = 40;

/// A tree to copy, and the place for its mirror.
struct Trees {
    root: TempDir,
    master: PathBuf,
    mirror: PathBuf,
}

impl Trees {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (master, mirror) = (root.path().join("master"), root.path().join("mirror"));
        fs::create_dir(&mirror).expect("directories can be made");
        let maildir = master.join("example.org/alice/Maildir");
        for folder in [maildir.clone(), maildir.join(".Archive")] {
            fill(&folder);
        }
        fs::write(maildir.join("subscriptions"), "V\t2\n\nArchive\n").expect("the tree can be written");
        symlink("sieve/main.sieve", master.join("example.org/alice/.dovecot.sieve")).expect("links can be made");
        Self { root, master, mirror }
    }

    fn run(&self, rsh: &str, remote_path: &str, host: &str) -> Output {
        Command::new(MAILTWIN)
            .args(["sync", "--json", "-e", rsh, "--remote-path", remote_path])
            .arg(&self.master)
            .arg(format!("{host}:{}", self.mirror.display()))
            .env("MAILTWIN_STATE", self.root.path().join("state"))
            .output()
            .expect("mailtwin starts")
    }

    /// A run that must succeed; what it reported.
    fn sync(&self, sshd: &Sshd, host: &str) -> Value {
        let output = self.run(&sshd.rsh(), MAILTWIN, host);
        assert_eq!(output.status.code(), Some(0), "{}\nsshd said:\n{}", complaint(&output), sshd.said());
        let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints an object");
        assert_eq!(report["in_sync"], true, "{report:#}");
        report
    }

    fn assert_equal(&self) {
        let (master, mirror) = (contents(&self.master), contents(&self.mirror));
        let paths: BTreeSet<&PathBuf> = master.keys().chain(mirror.keys()).collect();
        let differing = paths.into_iter().filter(|path| master.get(*path) != mirror.get(*path));
        let found: Vec<String> = differing
            .map(|path| format!("{path:?}: {:?} on the mirror {:?}", master.get(path), mirror.get(path)))
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

fn fill(folder: &Path) {
    for directory in ["cur", "new", "tmp"] {
        fs::create_dir_all(folder.join(directory)).expect("directories can be made");
    }
    let mut list = format!("3 V1795340985 N{} Gd89da52fb9ba026b1576000083ecc375\n", MESSAGES + 1);
    for number in 0..MESSAGES {
        let text = format!("Subject: {number} in {}\n\n{}", folder.display(), "A line.\n".repeat(20 * number));
        fs::write(folder.join("cur").join(name(number)), text).expect("the tree can be written");
        let base = name(number);
        let base = base.split(':').next().unwrap_or_default();
        list.push_str(&format!("{} :{base}\n", number + 1));
    }
    fs::write(folder.join("dovecot-uidlist"), list).expect("the tree can be written");
}

fn name(number: usize) -> String {
    format!("{}.M1P1.host:2,", 1_795_340_985 + number)
}

/// What a mirror must have in common with its master.
#[derive(PartialEq, Eq)]
struct Entry {
    mode: u32,
    links: u64,
    modified: Option<(i64, i64)>,
    content: Vec<u8>,
}

fn contents(tree: &Path) -> BTreeMap<PathBuf, Entry> {
    let walk = WalkDir::new(tree).min_depth(1).into_iter().filter_entry(|entry| entry.file_name() != ".mailtwin");
    walk.map(|entry| {
        let entry = entry.expect("the tree can be read");
        let path = entry.path().strip_prefix(tree).expect("it is in the tree").to_owned();
        (path, Entry::read(&entry))
    })
    .collect()
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, links, modified, content } = self;
        write!(formatter, "{mode:o}, {links} links, {modified:?}, {} bytes", content.len())
    }
}

impl Entry {
    fn read(entry: &walkdir::DirEntry) -> Self {
        let metadata = entry.metadata().expect("nothing changes now");
        let content = match entry.file_type() {
            kind if kind.is_file() => fs::read(entry.path()).expect("the tree can be read"),
            kind if kind.is_symlink() => {
                let target = fs::read_link(entry.path()).expect("the tree can be read");
                target.into_os_string().into_encoded_bytes()
            }
            _ => Vec::new(),
        };
        // A mail server must notice that these directories changed, so their times are their own.
        let of_its_own =
            entry.file_type().is_dir() && ["cur", "new", "tmp"].iter().any(|name| entry.file_name() == *name);
        let modified = (!of_its_own).then(|| (metadata.mtime(), metadata.mtime_nsec()));
        // What a directory's link count means differs between file systems.
        let links = if entry.file_type().is_dir() { 1 } else { metadata.nlink() };
        Self { mode: metadata.mode(), links, modified, content }
    }
}

/// Whether mailtwin itself (not ssh, not the remote shell) says something with all of these words in one line.
fn own_sentence(output: &Output, words: &[&str]) -> bool {
    let others = ["ssh:", "sh:", "bash:", "zsh:", "-sh:", "-bash:"];
    let said = complaint(output);
    let mut own = said.lines().filter(|line| !others.iter().any(|other| line.starts_with(other)));
    own.any(|line| words.iter().all(|word| line.contains(word)))
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {report:#}"))
}
