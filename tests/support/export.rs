//! Exports from outside, and a standby to export from.

#![allow(dead_code, reason = "every test target takes the part that it needs")]

use std::fs;
use std::path::{Path, PathBuf};

use super::points::*;
use super::tree::*;

/// Exports, whatever comes of it.
pub fn export(standby: &Path, options: &[&str]) -> Run {
    run("export", standby, options)
}

/// A path of ours, as it is typed.
pub fn typed(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// Mailboxes of two users, a full, and the label of it.
pub fn vmail() -> (Pair, String) {
    let pair = Pair::new();
    make_vmail(&pair.source, 2);
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    (pair, label)
}

/// A place beside the standby where nothing is yet.
pub fn place(pair: &Pair, name: &str) -> PathBuf {
    let path = pair.path(name);
    assert!(!path.exists(), "{name} is taken");
    path
}

/// A standby with a full whose contents lie in several blocks, and one of these spoiled.
pub fn damaged() -> (Pair, String) {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    for number in 0..24 {
        let head = format!("From: sender{number}@example.org\nSubject: s{number}\n\n");
        let body: String = noise(number, 60_000).iter().map(|byte| format!("{byte:02x}")).collect();
        inbox.file(number, "S", format!("{head}{body}\n").as_bytes());
    }
    inbox.rewrite_uidlist();
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    spoil(&pair, &label);
    (pair, label)
}

/// Spoils a byte in the middle of a point's largest segment.
pub fn spoil(pair: &Pair, label: &str) {
    let point = points_of(&pair.mirror).join(label);
    let files = names_in(&point).into_iter().map(|name| point.join(name)).filter(|path| path.is_file());
    let largest = files.max_by_key(|path| fs::metadata(path).expect("the file").len()).expect("a segment");
    let mut bytes = fs::read(&largest).expect("the segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&largest, bytes).expect("written");
}
