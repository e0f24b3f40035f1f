//! A mailbox or some files, mirrored, and what is in them.
#![allow(dead_code)]

use super::tree::*;
use std::fs;

/// A mailbox and its mirror.
pub fn synced_mailbox() -> Pair {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.sync_and_settle();
    pair
}

/// Some files and their mirror.
pub fn synced_files(files: &[(&str, &[u8])]) -> Pair {
    let pair = Pair::of_files();
    for (name, content) in files {
        let path = pair.source.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    settle_times(&pair.source);
    pair.sync_and_settle();
    pair
}

pub fn inbox(pair: &Pair) -> Folder {
    Folder(pair.source.clone())
}

pub fn folder(pair: &Pair, name: &str) -> Folder {
    Folder(pair.source.join(name))
}

/// A message of the folder that a reader has seen.
pub fn read_message(folder: &Folder) -> std::path::PathBuf {
    folder.messages().into_iter().find(|path| path.starts_with(folder.cur())).expect("the folder has a message in cur/")
}

pub fn new_message(folder: &Folder) -> std::path::PathBuf {
    folder
        .messages()
        .into_iter()
        .find(|path| path.starts_with(folder.new_dir()))
        .expect("the folder has a message in new/")
}
