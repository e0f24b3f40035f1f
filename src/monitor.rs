//! One stream of events; terminal, JSON and tests listen to the same one.
//!
//! Layer 0. The library never prints: whoever runs a cycle hands in a [`Monitor`].

use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// Something that could not be done, but did not stop the rest. Each one changes the exit code to 23.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about, mostly a path; escaped for showing.
    pub subject: String,
    /// What happened, and what to do where that is not plain.
    pub reason: String,
}

/// What a listener is told while a cycle runs.
#[derive(Clone, Debug)]
pub enum Event {
    /// A sentence for `-v`.
    Note(String),
    /// Something a person should know that is no failure, said once.
    Warning(String),
    /// One file or directory could not be done.
    Problem(Problem),
    /// A change, as `--itemize-changes` shows it.
    Item(String),
    /// A phase began.
    Phase(Phase),
    /// So much more was planned: messages and bytes of content.
    Planned {
        /// Messages.
        messages: u64,
        /// Bytes of content.
        bytes: u64,
    },
    /// So much more was done: messages and bytes of content.
    Done {
        /// Messages.
        messages: u64,
        /// Bytes of content.
        bytes: u64,
    },
}

/// What a cycle is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reaching the other end.
    Connect,
    /// Finding out where both ends differ.
    Compare,
    /// Looking at the source and sending.
    Send,
    /// Waiting until the slave has applied everything.
    Finish,
}

/// A listener.
pub trait Monitor: Send + Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: Event);
}

/// A listener that keeps problems and drops the rest: the far end's, and for tests.
#[derive(Default)]
pub struct Quiet {
    problems: Mutex<Vec<Problem>>,
}

impl Quiet {
    /// Takes out the problems heard so far.
    pub fn take_problems(&self) -> Vec<Problem> {
        std::mem::take(&mut *self.problems.lock().unwrap_or_else(|poison| poison.into_inner()))
    }
}

impl Monitor for Quiet {
    fn event(&self, event: Event) {
        if let Event::Problem(problem) = event {
            let mut problems = self.problems.lock().unwrap_or_else(|poison| poison.into_inner());
            // One bad disk must not fill the memory with complaints.
            if problems.len() < 10_000 {
                problems.push(problem);
            }
        }
    }
}

/// What a cycle did, as `--json` and `--stats` tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation; mailtwin-sync(1) explains each")]
pub struct Counters {
    pub messages_added: u64,
    pub messages_renamed: u64,
    pub messages_linked: u64,
    pub messages_removed: u64,
    pub files_added: u64,
    pub files_patched: u64,
    pub files_replaced: u64,
    pub files_removed: u64,
    pub symlinks_changed: u64,
    pub metadata_changed: u64,
    pub directories_added: u64,
    pub directories_renamed: u64,
    pub directories_removed: u64,
    pub directories_read: u64,
    pub special_files_left_out: u64,
    pub removals_waiting: u64,
    pub bytes_content: u64,
}

impl Counters {
    /// Adds what another walk of the same run did.
    pub fn add(&mut self, other: &Counters) {
        let Counters {
            messages_added,
            messages_renamed,
            messages_linked,
            messages_removed,
            files_added,
            files_patched,
            files_replaced,
            files_removed,
            symlinks_changed,
            metadata_changed,
            directories_added,
            directories_renamed,
            directories_removed,
            directories_read,
            special_files_left_out,
            removals_waiting,
            bytes_content,
        } = other;
        self.messages_added += messages_added;
        self.messages_renamed += messages_renamed;
        self.messages_linked += messages_linked;
        self.messages_removed += messages_removed;
        self.files_added += files_added;
        self.files_patched += files_patched;
        self.files_replaced += files_replaced;
        self.files_removed += files_removed;
        self.symlinks_changed += symlinks_changed;
        self.metadata_changed += metadata_changed;
        self.directories_added += directories_added;
        self.directories_renamed += directories_renamed;
        self.directories_removed += directories_removed;
        self.directories_read += directories_read;
        self.special_files_left_out += special_files_left_out;
        self.removals_waiting += removals_waiting;
        self.bytes_content += bytes_content;
    }
}
