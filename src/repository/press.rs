//! Compressing the blocks of a point's own segment on threads, in order; and what of them can be referred to.

use crate::id::Digest;
use crate::wire::block::{Packed, Prepared};
use crate::wire::share::{SOURCES, Spot};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// zstd level: these blocks are written once and kept long.
const LEVEL: i32 = 8;

/// Threads that compress.
const THREADS: usize = 2;

/// Parts that are known at once, at most: the newest. Each takes some 50 bytes twice over.
const KNOWN: usize = 1 << 18;

type Job = (Prepared, SyncSender<io::Result<Packed>>);

/// The threads, and what they have not given back yet.
pub(super) struct Press {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    waiting: VecDeque<Receiver<io::Result<Packed>>>,
}

impl Press {
    pub(super) fn new() -> Self {
        let (jobs, queue) = channel();
        let queue: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(queue));
        let threads = (0..THREADS).map(|_| {
            let queue = queue.clone();
            std::thread::spawn(move || work(&queue))
        });
        Self { jobs: Some(jobs), threads: threads.collect(), waiting: VecDeque::new() }
    }

    /// Has a block compressed.
    pub(super) fn put(&mut self, block: Prepared) {
        let (answer, packed) = sync_channel(1);
        // Where the threads are gone the answer says so.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send((block, answer)));
        self.waiting.push_back(packed);
    }

    /// The oldest block that was put and not taken; waits for it.
    pub(super) fn take(&mut self) -> Option<io::Result<Packed>> {
        let packed = self.waiting.pop_front()?;
        let ended = |_| Err(io::Error::other("a thread that compresses ended early"));
        Some(packed.recv().unwrap_or_else(ended))
    }

    /// How many blocks were put and not taken.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Drop for Press {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(|poison| poison.into_inner()).recv();
        let Ok((block, answer)) = job else { return };
        // Nobody waits for it where the point was given up.
        let _ = answer.send(block.compress(LEVEL));
    }
}

/// Where parts of attachments stand in a segment: in which of its blocks, counted from 0, and where there.
///
/// They are told apart by their whole BLAKE3. There are two generations: when the younger one is full it becomes the
/// older one, and what has not been met since goes.
#[derive(Default)]
pub(super) struct KnownParts {
    younger: HashMap<Digest, (u32, Spot)>,
    older: HashMap<Digest, (u32, Spot)>,
}

impl KnownParts {
    /// Where a part of this block stands: the number of the source, and where there. `sources` are the blocks that this
    /// one refers to so far; source 0 is itself. What stands nowhere will stand here.
    pub(super) fn find(
        &mut self,
        block: u32,
        sources: &mut Vec<u32>,
        bytes: &[u8],
        here: Spot,
    ) -> Option<(usize, Spot)> {
        let digest = Digest::of(bytes);
        let found = self.younger.get(&digest).or_else(|| self.older.get(&digest)).copied();
        let known = found.and_then(|(from, spot)| Some((source(block, sources, from)?, spot)));
        let kept = if known.is_some() { found } else { None };
        if self.younger.len() >= KNOWN / 2 {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(digest, kept.unwrap_or((block, here)));
        known
    }
}

fn source(block: u32, sources: &mut Vec<u32>, from: u32) -> Option<usize> {
    if from == block {
        return Some(0);
    }
    if let Some(at) = sources.iter().position(|source| *source == from) {
        return Some(at + 1);
    }
    (sources.len() < SOURCES).then(|| {
        sources.push(from);
        sources.len()
    })
}
