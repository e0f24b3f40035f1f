//! A whole tree as a value, and rsync as a second opinion that shares no code with it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::hash::Hasher;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Pair, shown};

/// What one name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Length and hash of a file's content.
    File(u64, u64),
    /// A directory.
    Directory,
    /// Where a symbolic link points, as `shown` shows it.
    Link(String),
    /// A socket, FIFO or device.
    Special,
}

/// Everything about one name that a mirror keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File, directory, link, special.
    pub kind: Kind,
    /// Permission bits; 0 for a link, which has none of its own.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds; none where the time is not kept.
    pub modified: Option<(i64, i64)>,
    /// The first name of the same inode, as `shown` shows it, when it has several beneath the root.
    pub link_of: Option<String>,
}

/// A tree: paths relative to its root, the root itself as the empty path.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// Reads a whole tree as it is, whatever its names and depth.
pub fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut first_names = HashMap::new();
    let metadata = fs::metadata(root).unwrap_or_else(|error| panic!("cannot read {}: {error}", root.display()));
    tree.insert(Vec::new(), entry_of(root, &metadata));
    walk(&open(root), b"", &mut |path, place, metadata| {
        let mut entry = entry_of(place, metadata);
        if metadata.nlink() > 1 && !metadata.is_dir() {
            let inode = (metadata.dev(), metadata.ino());
            let first = first_names.entry(inode).or_insert_with(|| path.to_vec());
            entry.link_of = (first != path).then(|| shown(first));
        }
        tree.insert(path.to_vec(), entry);
    });
    tree
}

/// Visits everything beneath an open directory in the order of the names. Paths go by `/proc/self/fd`,
/// so that they stay short however deep the tree is.
fn walk(directory: &File, at: &[u8], visit: &mut dyn FnMut(&[u8], &Path, &Metadata)) {
    let here = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    for name in super::names_in(&here) {
        let place = here.join(&name);
        let path = joined(at, name.as_bytes());
        let metadata =
            fs::symlink_metadata(&place).unwrap_or_else(|error| panic!("{} went away: {error}", shown(&path)));
        visit(&path, &place, &metadata);
        if metadata.is_dir() {
            walk(&open(&place), &path, visit);
        }
    }
}

fn joined(at: &[u8], name: &[u8]) -> Vec<u8> {
    if at.is_empty() { name.to_vec() } else { [at, b"/", name].concat() }
}

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
}

fn entry_of(place: &Path, metadata: &Metadata) -> Entry {
    Entry {
        kind: kind_of(place, metadata),
        mode: if metadata.is_symlink() { 0 } else { metadata.mode() & 0o7777 },
        owner: (metadata.uid(), metadata.gid()),
        modified: Some((metadata.mtime(), metadata.mtime_nsec())),
        link_of: None,
    }
}

fn kind_of(place: &Path, metadata: &Metadata) -> Kind {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        let target = fs::read_link(place).expect("the link is readable");
        Kind::Link(shown(target.as_os_str().as_bytes()))
    } else if kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
        Kind::Special
    } else {
        Kind::File(metadata.len(), hash_of(open(place)))
    }
}

fn hash_of(mut content: impl Read) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut window = vec![0; 1 << 16];
    loop {
        match content.read(&mut window).expect("the file is readable") {
            0 => return hasher.finish(),
            length => hasher.write(&window[..length]),
        }
    }
}

/// The patterns that a maildir set leaves out, as the manual lists them.
pub const LEFT_OUT: [&str; 8] = [
    "*.lock",
    "*.newlock",
    "*.tmp",
    "temp.*",
    "mailboxes.lock*",
    "dovecot.index*",
    "dovecot.list.index*",
    "dovecot.mailbox.log*",
];

/// Whether a maildir set leaves this path out: what lies in a folder's `tmp/`, and what `LEFT_OUT` says of files
/// that are no messages.
pub fn is_left_out(path: &[u8]) -> bool {
    let mut parts = path.rsplit(|byte| *byte == b'/');
    let name = parts.next().unwrap_or_default();
    match parts.next() {
        Some(b"tmp") => true,
        Some(b"cur" | b"new") => false,
        _ => LEFT_OUT.iter().any(|pattern| matches(name, pattern)),
    }
}

fn matches(name: &[u8], pattern: &str) -> bool {
    let (head, tail) = pattern.split_once('*').expect("each pattern has one star");
    name.len() >= head.len() + tail.len() && name.starts_with(head.as_bytes()) && name.ends_with(tail.as_bytes())
}

fn is_message_directory(path: &[u8]) -> bool {
    matches!(path.rsplit(|byte| *byte == b'/').next(), Some(b"cur" | b"new"))
}

/// The tree that the mirror of a pair must be, derived from the source and the rules alone.
pub fn expected_mirror(pair: &Pair) -> Tree {
    let mut tree = read_tree(&pair.source);
    tree.retain(|path, entry| entry.kind != Kind::Special && !(pair.mail && is_left_out_anywhere(path)));
    if pair.mail {
        forget_times_of_message_directories(&mut tree);
    }
    tree
}

fn is_left_out_anywhere(path: &[u8]) -> bool {
    let ends = (0..=path.len()).filter(|at| *at == path.len() || path[*at] == b'/');
    ends.into_iter().any(|end| is_left_out(&path[..end]))
}

/// The mirror as it is; only the slave's own state in it is no part of it.
pub fn actual_mirror(pair: &Pair) -> Tree {
    let mut tree = read_tree(&pair.mirror);
    tree.retain(|path, _| path != b".mailtwin" && !path.starts_with(b".mailtwin/"));
    if pair.mail {
        forget_times_of_message_directories(&mut tree);
    }
    tree
}

/// Of mail, the times of `cur/` and `new/` are nobody's promise.
pub fn forget_times_of_message_directories(tree: &mut Tree) {
    for (path, entry) in tree {
        if entry.kind == Kind::Directory && is_message_directory(path) {
            entry.modified = None;
        }
    }
}

/// Asserts that the mirror is what the source says, name by name.
pub fn assert_mirrored(pair: &Pair) {
    assert_same("mirror", &expected_mirror(pair), &actual_mirror(pair));
}

/// Whether the mirror is what the source says.
pub fn is_mirrored(pair: &Pair) -> bool {
    pair.mirror.is_dir() && expected_mirror(pair) == actual_mirror(pair)
}

/// Asserts that two trees are equal, and shows where they are not.
pub fn assert_same(what: &str, expected: &Tree, actual: &Tree) {
    let differing = differences(expected, actual);
    assert!(
        differing.is_empty(),
        "{what}: {} differences\n{}",
        differing.len(),
        differing[..differing.len().min(25)].join("\n")
    );
}

/// Each path that is not the same in both, with what it is in each.
pub fn differences(expected: &Tree, actual: &Tree) -> Vec<String> {
    let paths: BTreeSet<&Vec<u8>> = expected.keys().chain(actual.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| match (expected.get(path), actual.get(path)) {
            (Some(one), Some(other)) if one == other => None,
            (Some(one), None) => Some(format!("missing:   {} {one:?}", shown(path))),
            (None, Some(other)) => Some(format!("too much:  {} {other:?}", shown(path))),
            (one, other) => Some(format!("differs:   {}\n  expected {one:?}\n  actual   {other:?}", shown(path))),
        })
        .collect()
}

/// Everything a write of any kind would change: content, names, inodes, times of content and of metadata.
/// The access time is not in it: reading the tree here moves it.
pub fn fingerprint(root: &Path) -> BTreeMap<Vec<u8>, (Entry, u64, (i64, i64))> {
    let mut all = BTreeMap::new();
    let mut take = |path: &[u8], place: &Path, metadata: &Metadata| {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        all.insert(path.to_vec(), (entry_of(place, metadata), metadata.ino(), changed));
    };
    let metadata = fs::metadata(root).unwrap_or_else(|error| panic!("cannot read {}: {error}", root.display()));
    take(b"", root, &metadata);
    walk(&open(root), b"", &mut take);
    all
}

/// The hashes of all messages beneath a root, each with the paths that hold it.
pub fn messages_by_content(tree: &Tree) -> BTreeMap<(u64, u64), Vec<Vec<u8>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (path, entry) in tree {
        let parent = path.rsplit(|byte| *byte == b'/').nth(1);
        if let (Kind::File(length, hash), Some(b"cur" | b"new")) = (&entry.kind, parent) {
            found.entry((*length, *hash)).or_default().push(path.clone());
        }
    }
    found
}

/// What `rsync` would still do to make the mirror equal, apart from the times of `cur/` and `new/`.
pub fn rsync_would_still_do(pair: &Pair) -> Vec<String> {
    let mut command = Command::new("rsync");
    // Nanoseconds, too: rsync alone compares whole seconds.
    command.args(["-aHAXn", "--modify-window=-1", "--checksum", "--delete"]);
    command.args(["--itemize-changes", "--exclude=/.mailtwin"]);
    if pair.mail {
        command.arg("--exclude=tmp/*");
        // Messages are never left out, whatever they are called.
        command.args(["--include=cur/*", "--include=new/*"]);
        command.args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")));
    }
    let (mut source, mut mirror) = (pair.source.clone(), pair.mirror.clone());
    source.push("");
    mirror.push("");
    let output = command
        .args([source, mirror])
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("rsync: {error}; install the package rsync"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "rsync: {}\n{said}", output.status);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines
        .lines()
        .filter(|line| !is_time_of_message_directory(pair, line) && !is_about_special_file(line))
        .map(str::to_owned)
        .collect()
}

fn is_time_of_message_directory(pair: &Pair, line: &str) -> bool {
    let Some(path) = line.strip_prefix(".d..t...... ") else {
        return false;
    };
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    pair.mail && matches!(parts.last(), Some(&("cur" | "new")))
}

/// `-a` would also make FIFOs, sockets and devices, which a mirror leaves out.
fn is_about_special_file(line: &str) -> bool {
    line.starts_with("cS") || line.starts_with("cD")
}

/// Asserts that rsync finds nothing to do.
pub fn assert_rsync_agrees(pair: &Pair) {
    let left = rsync_would_still_do(pair);
    assert!(left.is_empty(), "rsync would still do:\n{}", left.join("\n"));
}
