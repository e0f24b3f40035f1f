//! What belongs to a set and what is left out; which directories hold messages.

use crate::path::TreePath;
use serde::{Deserialize, Serialize};

/// What kind of tree a set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetKind {
    /// Maildirs: message files are immutable, folders are consistent as a whole.
    Maildir,
    /// Plain files: each is examined.
    Files,
}

/// The three directories of a Maildir folder, in the order in which they are listed: a message moves
/// from `new` to `cur`, so this order sees it at least once.
pub const PARTS: [&str; 3] = ["new", "cur", "tmp"];

/// The directory of messages that a mail program has seen.
pub const CUR: &str = "cur";

/// Whether a directory of this name, in a Maildir folder, holds messages.
pub fn holds_messages(name: &[u8]) -> bool {
    name == b"cur" || name == b"new"
}

/// Whether a name is one of a folder's own three directories.
pub fn is_part(name: &[u8]) -> bool {
    holds_messages(name) || name == b"tmp"
}

/// Whether a path is that of a message, in a Maildir set: a file in `cur/` or `new/`.
pub fn is_message(kind: SetKind, path: &TreePath) -> bool {
    kind == SetKind::Maildir && path.split().is_some_and(|(parent, _)| holds_messages(parent.name()))
}

/// Whether a name is of a file that Dovecot makes as soon as it uses a folder, or a user's list of folders.
pub fn is_server_log(name: &[u8]) -> bool {
    matches!(name, b"dovecot.index.log" | b"dovecot.list.index.log")
}

/// Files that Dovecot rebuilds, and files that must never be copied (DOVECOT.md section 1), as
/// gitignore-like globs. `--include` brings them in.
///
/// What is in a folder's `tmp/` is left out too, by the scan: it is a delivery in progress, while the
/// directory itself must exist on the standby.
pub const LEFT_OUT: [&str; 9] = [
    "*.lock",
    "*.newlock",
    "*.tmp",
    "temp.*",
    "mailboxes.lock*",
    "dovecot.index*",
    "dovecot.list.index*",
    "dovecot.mailbox.log*",
    "..DOVECOT-TRASHED",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_files_in_cur_and_new_of_a_maildir_set() {
        let path = |text: &str| TreePath::new(text.as_bytes()).expect("a good path");
        assert!(is_message(SetKind::Maildir, &path("u/cur/1:2,S")));
        assert!(is_message(SetKind::Maildir, &path("new/1")));
        assert!(!is_message(SetKind::Maildir, &path("u/dovecot-uidlist")));
        assert!(!is_message(SetKind::Files, &path("u/cur/1")));
    }
}
