//! The mailbox and the changes that the sweeps go through. Each round of changes leaves the mailbox as large
//! as it was, so that round after round can be struck by faults on one living pair.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Folder, letter, rename, replace};

/// Flags that a message may get; a round uses others than the one before.
const FLAGS: [&str; 5] = ["S", "RS", "FS", "Sab", "DS"];

fn project(root: &Path, round: u64) -> PathBuf {
    root.join(format!(".Project {round}"))
}

/// A mailbox with something to do for every kind of change.
pub fn make_scenario(root: &Path) {
    let inbox = Folder::create(root);
    let archive = Folder::create(&root.join(".Archive"));
    let sent = Folder::create(&root.join(".Sent"));
    let project = Folder::create(&project(root, 0));
    for (folder, first, count) in [(&inbox, 0, 6), (&archive, 100, 6), (&sent, 200, 3), (&project, 300, 3)] {
        for number in first..first + count {
            folder.file(number, "S", &letter(number, 200 + number as usize * 11));
        }
        folder.rewrite_uidlist();
        folder.write_keywords(&["a", "b"]);
    }
    deliver_two(&inbox, 0);
    fs::write(root.join("subscriptions"), "Archive\nSent\n").expect("subscriptions");
}

fn deliver_two(inbox: &Folder, round: u64) {
    for number in [1_000 + round * 2, 1_001 + round * 2] {
        let delivered = inbox.deliver(number, &letter(number, 700));
        inbox.append_uid(number, &delivered);
    }
}

/// Flags, `new/` to `cur/`, moves, a copy, expunges, a folder's rename, deliveries, control files. `round` counts from 0.
pub fn change_scenario(root: &Path, round: u64) {
    let inbox = Folder(root.to_owned());
    let archive = Folder(root.join(".Archive"));
    let sent = Folder(root.join(".Sent"));
    let flags = FLAGS[round as usize % FLAGS.len()];

    expunge_oldest(&archive, 2);
    expunge_oldest(&sent, 1);
    let (read, fresh): (Vec<PathBuf>, Vec<PathBuf>) =
        inbox.messages().into_iter().partition(|path| path.starts_with(inbox.cur()));
    archive.move_in(&read[0]);
    let moved = archive.move_in(&read[1]);
    archive.set_flags(&moved, flags);
    inbox.set_flags(&read[2], flags);
    inbox.set_flags(&read[3], "FRS");
    let seen: Vec<PathBuf> = fresh.iter().map(|message| inbox.take_in(message, flags)).collect();
    sent.link_in(&seen[0]);
    rename(&project(root, round), &project(root, round + 1));
    deliver_two(&inbox, round + 1);
    archive.rewrite_uidlist();
    archive.write_keywords(&["a", "b", flags]);
    replace(&root.join("subscriptions"), format!("Archive\nSent\nround {round}\n").as_bytes());
}

fn expunge_oldest(folder: &Folder, count: usize) {
    for message in &folder.messages()[..count] {
        fs::remove_file(message).expect("expunged");
    }
}
