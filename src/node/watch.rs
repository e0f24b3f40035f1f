//! Which folders changed, told while it happens.
//!
//! ```text
//!  kernel -> source (its thread)      what changed, as units of the scan; what is left out makes nothing dirty
//!               |
//!            gather                   for a moment, new mail first
//!               |
//!            Watcher::next            folders, or everything where what happened is not known
//! ```
//!
//! A [`Source`] is fanotify where root allows it, else inotify, else looking at directories in turn ([`WatchKind::Auto`]
//! chooses). A thread of its own reads it, so that the kernel's queue is emptied while a cycle runs. First the watches
//! stand, then [`News::Everything`] with [`Cause::Start`] comes: who scans then, and follows what comes later, misses
//! nothing. A change that happens during a cycle comes again after it.
//!
//! The watcher idles without waking up: it waits for the kernel, and [`Watcher::next`] for the watcher.

use crate::catalogue::directory;
use crate::catalogue::{CatalogueError, Edit};
use crate::disk::Root;
use gather::{Due, Gather};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use scope::Heard;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

mod choose;
pub mod fanotify;
pub mod gather;
pub mod inotify;
mod poll;
pub mod scope;
mod tree;

pub use gather::{Cause, Dirty};
pub use scope::{Known, Scope, Source, Tally};

/// Rows of the catalogue read at once.
const ROWS: usize = 1024;

/// Where events are to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WatchKind {
    /// The best that works here.
    #[default]
    Auto,
    /// One watch for each directory.
    Inotify,
    /// One mark on the file system: needs root.
    Fanotify,
    /// Looking at directories in turn: the only way on a network file system.
    Poll,
}

impl WatchKind {
    /// As it is written in a configuration, and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Inotify => "inotify",
            Self::Fanotify => "fanotify",
            Self::Poll => "poll",
        }
    }
}

/// How to watch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Where events are to come from.
    pub kind: WatchKind,
    /// Most watches to take of what this user is allowed; the rest is polled.
    pub most_watches: Option<usize>,
}

/// What [`Watcher::next`] has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// These changed; in the order in which they are best dealt with.
    Folders(Vec<Dirty>),
    /// Anything may have changed since.
    Everything(Cause, Instant),
    /// A [`Waker`] was used.
    Woken,
    /// Nothing changed in the time given.
    Quiet,
    /// The root is no more where it was, for this reason: a new watcher is needed when it is there again.
    Ended(String),
}

/// How the watching goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where events come from; [`WatchKind::Auto`] until that is chosen.
    pub kind: WatchKind,
    /// Since when every change is noticed: all watches stand, and what is polled was looked at once.
    pub standing: Option<Instant>,
    /// How many directories are followed, and how.
    pub tally: Tally,
    /// How often the thread woke up.
    pub wakeups: u64,
    /// How often events were lost.
    pub overflows: u64,
    /// Folders that are dirty and not yet given; one stands for everything.
    pub waiting: usize,
    /// What a person should know, each said once.
    pub notices: Vec<String>,
}

/// Watches a tree.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Interrupts [`Watcher::next`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: OwnedFd,
}

#[derive(Debug)]
struct State {
    gather: Gather,
    is_woken: bool,
    ended: Option<String>,
    status: Status,
}

impl Watcher {
    /// Begins to watch; the watches are set while this has returned. `known` are the directories as [`known`] gives them:
    /// with none of them the tree is listed, except for its directories of messages.
    ///
    /// # Errors
    /// Where the process has no descriptor or thread left.
    pub fn start(root: Root, scope: Scope, known: Vec<Known>, options: Options) -> io::Result<Self> {
        let scope = Arc::new(scope);
        let thread_root = root.again();
        let choose = move |kind| choose::choose(&thread_root, &scope, kind, options.most_watches);
        Self::run(root, known, options.kind, Box::new(choose))
    }

    /// The same with a source of one's own, and polling where that fails.
    ///
    /// # Errors
    /// As [`Watcher::start`].
    pub fn with_source(root: Root, scope: Scope, source: Box<dyn Source>) -> io::Result<Self> {
        let (polled, scope) = (root.again(), Arc::new(scope));
        let mut source = Some(source);
        let choose = move |_| match source.take() {
            Some(source) => choose::Choice { source, notice: None },
            None => choose::choose(&polled, &scope, WatchKind::Poll, None),
        };
        Self::run(root, Vec::new(), WatchKind::Auto, Box::new(choose))
    }

    fn run(root: Root, known: Vec<Known>, kind: WatchKind, choose: Choose) -> io::Result<Self> {
        let status = Status {
            kind: WatchKind::Auto,
            standing: None,
            tally: Tally::default(),
            wakeups: 0,
            overflows: 0,
            waiting: 0,
            notices: Vec::new(),
        };
        let state = State { gather: Gather::default(), is_woken: false, ended: None, status };
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), stop });
        let mounts = choose::mount_changes();
        let beneath = choose::mounts_beneath(&root);
        let listener = Listener { root, shared: shared.clone(), choose, kind, mounts, beneath };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || listener.run(known))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits for what is next: for ever without a `timeout`.
    pub fn next(&self, timeout: Option<Duration>) -> News {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.shared.lock();
        loop {
            if std::mem::take(&mut state.is_woken) {
                return News::Woken;
            }
            let now = Instant::now();
            match state.gather.take(now) {
                Some(Due::Folders(folders)) => return News::Folders(folders),
                Some(Due::Everything(cause, since)) => return News::Everything(cause, since),
                None => {}
            }
            if let Some(reason) = &state.ended {
                return News::Ended(reason.clone());
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return News::Quiet;
            }
            let until = state.gather.due().into_iter().chain(deadline).min();
            state = match until {
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    let waited = self.shared.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(|poison| poison.into_inner()).0
                }
                None => self.shared.changed.wait(state).unwrap_or_else(|poison| poison.into_inner()),
            };
        }
    }

    /// Takes back folders that could not be dealt with; they come again, as old as they were.
    pub fn put_back(&self, folders: Vec<Dirty>) {
        self.shared.lock().gather.put_back(folders);
        self.shared.changed.notify_all();
    }

    /// What other threads interrupt [`Watcher::next`] with.
    pub fn waker(&self) -> Waker {
        Waker(self.shared.clone())
    }

    /// How it goes.
    pub fn status(&self) -> Status {
        let state = self.shared.lock();
        Status { waiting: state.gather.waiting(), ..state.status.clone() }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // An eventfd takes eight bytes; it could only be full, and then it is readable too.
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A thread that failed has said so.
            let _ = thread.join();
        }
    }
}

impl Waker {
    /// Lets [`Watcher::next`] return, now or when it is called next.
    pub fn wake(&self) {
        self.0.lock().is_woken = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

type Choose = Box<dyn FnMut(WatchKind) -> choose::Choice + Send>;

/// The thread that listens.
struct Listener {
    root: Root,
    shared: Arc<Shared>,
    choose: Choose,
    kind: WatchKind,
    mounts: Option<File>,
    /// What was mounted beneath the root when the source was chosen.
    beneath: Vec<std::path::PathBuf>,
}

/// What there is to do for the thread.
#[derive(Default)]
struct Ready {
    stop: bool,
    mounts: bool,
}

impl Listener {
    fn run(mut self, known: Vec<Known>) {
        let Some(mut source) = self.begin(known, Cause::Start) else { return };
        loop {
            let ready = match self.wait(source.as_ref()) {
                Ok(ready) => ready,
                Err(error) => return self.end(format!("waiting for events failed: {error}")),
            };
            if ready.stop {
                return;
            }
            let mut heard = Heard::default();
            let listened = source.listen(Instant::now(), &mut heard);
            let mut again = None;
            if let Err(reason) = listened {
                heard.notices.push(reason);
                self.kind = if source.kind() == WatchKind::Fanotify { WatchKind::Inotify } else { WatchKind::Poll };
                again = Some(Cause::Changed);
            }
            if ready.mounts && self.are_mounts_others() {
                again = Some(Cause::Mounts);
            }
            if ready.mounts && !self.root.is_in_place() {
                heard.ended = Some("the root was unmounted, or something else is mounted there".to_owned());
            }
            let is_over = heard.ended.is_some();
            self.tell(heard, source.as_ref());
            if is_over {
                return;
            }
            if let Some(cause) = again {
                drop(source);
                let Some(other) = self.begin(Vec::new(), cause) else { return };
                source = other;
            }
        }
    }

    /// Chooses a source and sets it up.
    fn begin(&mut self, known: Vec<Known>, cause: Cause) -> Option<Box<dyn Source>> {
        let choose::Choice { mut source, notice } = (self.choose)(self.kind);
        let mut heard = Heard { notices: notice.into_iter().collect(), ..Heard::default() };
        if let Err(reason) = source.begin(known, &mut heard) {
            heard.ended = Some(reason);
        }
        if heard.everything == Some(Cause::Start) {
            heard.everything = Some(cause);
        }
        let is_over = heard.ended.is_some();
        self.tell(heard, source.as_ref());
        (!is_over).then_some(source)
    }

    fn wait(&self, source: &dyn Source) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(&self.shared.stop, PollFlags::IN)];
        fds.extend(self.mounts.as_ref().map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)));
        fds.extend(source.descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let left = source.due().map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |number: usize| !fds[number].revents().is_empty();
        Ok(Ready { stop: is_ready(0), mounts: self.mounts.is_some() && is_ready(1) })
    }

    fn are_mounts_others(&mut self) -> bool {
        let beneath = choose::mounts_beneath(&self.root);
        std::mem::replace(&mut self.beneath, beneath) != self.beneath
    }

    /// Hands on what was heard.
    fn tell(&self, heard: Heard, source: &dyn Source) {
        let mut state = self.shared.lock();
        let now = Instant::now();
        let status = &mut state.status;
        status.wakeups += 1;
        (status.kind, status.tally) = (source.kind(), source.tally());
        status.overflows += u64::from(heard.everything == Some(Cause::Overflow));
        if heard.is_empty() {
            return;
        }
        for notice in &heard.notices {
            if !status.notices.contains(notice) {
                status.notices.push(notice.clone());
            }
        }
        if heard.everything == Some(Cause::Seen) || heard.everything.is_some() && status.tally.polled == 0 {
            status.standing.get_or_insert(now);
        }
        for (path, dirt) in heard.dirty {
            state.gather.dirty(path, dirt, now);
        }
        if let Some(cause) = heard.everything {
            state.gather.everything(cause, now);
        }
        state.ended = heard.ended;
        drop(state);
        self.shared.changed.notify_all();
    }

    fn end(&self, reason: String) {
        self.shared.lock().ended = Some(reason);
        self.shared.changed.notify_all();
    }
}

/// The directories that a catalogue knows, parents first, as [`Watcher::start`] takes them.
///
/// # Errors
/// Where it cannot be read.
pub fn known(edit: &Edit<'_>) -> Result<Vec<Known>, CatalogueError> {
    let mut known = Vec::new();
    let mut from = Vec::new();
    loop {
        let rows = edit.rows_from(&from, ROWS)?;
        let is_last = rows.len() < ROWS;
        if let Some((key, _)) = rows.last() {
            from.clone_from(key);
            from.push(0);
        }
        for (key, row) in rows {
            known.push(Known { path: directory::path_of(&key)?, look: row.look });
        }
        if is_last {
            return Ok(known);
        }
    }
}
