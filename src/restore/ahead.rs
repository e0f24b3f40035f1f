//! Contents on their way from the repository into the target, read and staged by threads while the hand is at work on
//! what came before.
//!
//! Contents of one block are one job: a block is read and unpacked once for those that follow each other in it.

use super::{Result, Staged};
use crate::disk::{DiskError, Root};
use crate::id::Digest;
use crate::repository::contents::Contents;
use crate::repository::record::Place;
use crate::sync::SyncError;
use crate::sync::staging::Staging;
use crate::wire::block::{Block, Piece};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Threads that read: unpacking and hashing take about as long as the hand takes to put in place.
const THREADS: usize = 2;

/// A content: its number, and where it begins.
pub type Wanted = (u64, Place);

/// What became of a content.
pub type Outcome = (u64, std::result::Result<Digest, Staged>);

struct Job {
    contents: Vec<Wanted>,
    answer: Sender<Outcome>,
}

/// The threads.
pub struct Readers {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// What will be known of some contents.
pub struct Answer {
    outcomes: Receiver<Outcome>,
    wanted: usize,
}

impl Readers {
    /// Threads that read these contents and stage them.
    pub fn new(contents: &Contents, staging: &Arc<Staging>) -> Self {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..THREADS).map(|_| {
            let (queue, contents, staging) = (queue.clone(), contents.another(), staging.clone());
            std::thread::spawn(move || work(&queue, &contents, &staging))
        });
        Self { jobs: Some(jobs), threads: threads.collect() }
    }

    /// Asks for contents, in the order in which they are wanted.
    pub fn ask(&self, wanted: Vec<Wanted>) -> Answer {
        let (answer, outcomes) = channel();
        let count = wanted.len();
        let is_neighbour = |one: &Wanted, two: &Wanted| (one.1.segment, one.1.offset) == (two.1.segment, two.1.offset);
        for contents in wanted.chunk_by(is_neighbour) {
            let job = Job { contents: contents.to_vec(), answer: answer.clone() };
            // Where the threads are gone the answer says so.
            let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
        }
        Answer { outcomes, wanted: count }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Answer {
    /// Waits for all of it.
    ///
    /// # Errors
    /// Where a thread ended early.
    pub fn wait(self) -> Result<HashMap<u64, std::result::Result<Digest, Staged>>> {
        let outcomes: HashMap<_, _> = self.outcomes.iter().take(self.wanted).collect();
        match outcomes.len() == self.wanted {
            true => Ok(outcomes),
            false => Err(SyncError::Failed("a thread that reads the repository ended early".to_owned()).into()),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, contents: &Contents, staging: &Staging) {
    loop {
        let next = queue.lock().unwrap_or_else(|poison| poison.into_inner()).recv();
        let Ok(Job { contents: wanted, answer }) = next else { return };
        for (number, place) in wanted {
            let staged = stage(contents, staging, number, place);
            if answer.send((number, staged)).is_err() {
                break;
            }
        }
    }
}

/// Stages the content that begins at a place, under this number; gives its digest, which its bytes have.
///
/// # Errors
/// Why not; nothing is staged then.
pub fn stage(contents: &Contents, staging: &Staging, number: u64, place: Place) -> std::result::Result<Digest, Staged> {
    let read = contents.read(place, |piece, bytes| {
        let piece = Piece { number, ..piece.clone() };
        staging.take(&Block { pieces: vec![piece], data: bytes.to_vec() }).map_err(Staged::Failed)
    });
    if let Err(Staged::Content(_)) = &read {
        staging.discard(number).map_err(Staged::Failed)?;
    }
    read
}

/// Has what was written go to the disk while more is written, so that little is left to wait for.
pub struct Writeback {
    kicks: Option<Sender<()>>,
    thread: Option<JoinHandle<std::result::Result<(), DiskError>>>,
}

impl Writeback {
    /// A thread that syncs the file system of this directory when it is told to.
    pub fn new(root: &Arc<Root>) -> Self {
        let (kicks, queue) = channel();
        let root = root.clone();
        let sync = move || queue.iter().try_for_each(|()| root.sync_file_system());
        Self { kicks: Some(kicks), thread: Some(std::thread::spawn(sync)) }
    }

    /// What was written so far is to go to the disk.
    pub fn kick(&self) {
        // A thread that met an error is gone, and tells it at the end.
        let _ = self.kicks.as_ref().map(|kicks| kicks.send(()));
    }

    /// Waits for what was asked for.
    ///
    /// # Errors
    /// Where the disk refused: it says so once, and a later sync would not know.
    pub fn end(mut self) -> Result<()> {
        self.kicks = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(synced)) => Ok(synced?),
            _ => Err(SyncError::Failed("a thread that writes to the disk ended early".to_owned()).into()),
        }
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.kicks = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
