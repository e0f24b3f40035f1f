//! Walks a tree beside its catalogue and hands what differs to a [`Sink`], batch by batch.
//!
//! The walk goes once through the tree. What has vanished is held back: nothing is removed because a scan
//! missed it (I3). When the walk is done, and something is held, the mailbox is looked at again until there is
//! an instant at which all its folders were as they were seen; then the removals go, each in one batch with the
//! rest of its folder, and after the batch that took the message in elsewhere.
//!
//! Here is the walk. What it finds goes through the rooms `renames` (directories), `gather` (into shipments, whose
//! contents are read), `finish` (into changes, in order), and `settle` (removals); `cursor` reads the catalogue beside
//! it, `count` counts, and `glance` spares it.

use super::SyncError;
use super::guard::Limit;
use super::plan::{Shipment, Step};
use super::read::{Answer, Pool, Reader};
use crate::catalogue::directory;
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::{Diff, Rules, Scanner};
use crate::disk::Root;
use crate::maildir::change::Change;
use crate::maildir::entry::Time;
use crate::monitor::{Counters, Event, Monitor, Problem};
use crate::path::TreePath;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Where batches go.
pub trait Sink {
    /// Takes a packed block of contents.
    ///
    /// # Errors
    /// Where the other end cannot take it.
    fn block(&mut self, payload: Vec<u8>) -> Result<()>;

    /// Takes the changes of one batch, whose contents have gone before.
    ///
    /// # Errors
    /// Where the other end cannot take it.
    fn batch(&mut self, changes: &[Change]) -> Result<()>;
}

/// A sink for looking only: a mirror is held against its catalogue, or a plan is made and not carried out.
pub struct NoSink;

impl Sink for NoSink {
    fn block(&mut self, _payload: Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn batch(&mut self, _changes: &[Change]) -> Result<()> {
        Ok(())
    }
}

/// What a cycle is to do.
pub struct Options<'a> {
    /// The tree.
    pub root: Arc<Root>,
    /// How to look at it.
    pub rules: &'a Rules,
    /// How much may be removed.
    pub limit: Limit,
    /// Contents are shipped; otherwise they are only hashed.
    pub ships: bool,
    /// Contents are not even read: a dry run.
    pub plans_only: bool,
    /// Removals wait for a second look, and for the guard.
    pub settles: bool,
    /// zstd level of blocks.
    pub level: i32,
    /// Each change is told as an event.
    pub itemize: bool,
    /// Content numbers begin here: those of another round of the same session must differ.
    pub first_number: u64,
    /// The standby, for messages.
    pub standby: &'a str,
}

/// Looks at one mailbox that its removals may wait for. Such a look takes about as long as a `stat` of each of
/// its folders, so that a quiet moment is found even in a busy one.
const MAX_LOOKS: u32 = 24;

/// Unpacked directories that may gather before they are written back.
const OPEN_ROWS: usize = 512;

/// Rows read ahead.
const ROWS_AHEAD: usize = 128;

type Result<T> = std::result::Result<T, SyncError>;

/// A unit that somebody says was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its directory.
    pub path: TreePath,
    /// So may everything below it be.
    pub below: bool,
}

/// Tells the units that were touched since it was asked last, before it is asked now; `None` where that is not known.
pub type Elsewhere<'a> = dyn FnMut() -> Option<Vec<Unit>> + 'a;

mod count;
mod cursor;
mod finish;
mod gather;
mod glance;
mod renames;
mod settle;
mod some;

use cursor::Cursor;
pub use glance::Glance;

/// A walk through one tree.
pub struct Cycle<'a, 't> {
    options: &'a Options<'a>,
    scanner: Scanner<'a>,
    edit: &'a mut Edit<'t>,
    sink: &'a mut dyn Sink,
    monitor: &'a dyn Monitor,
    pool: Pool,
    cursor: Cursor,
    gathered: Shipment,
    pending: VecDeque<Pending>,
    in_flight: u64,
    next_number: u64,
    /// Inodes with more than one name that are on their way in this cycle.
    on_the_way: HashSet<u64>,
    /// Names that another folder's link took over: when they go, that was a move.
    moved: HashSet<TreePath>,
    /// What was untouched before the walk began; it does not count for a second one.
    glance: Glance,
    held: BTreeMap<Vec<u8>, Held>,
    /// Where the present walk began.
    walked_from: TreePath,
    root_is_empty: bool,
    directory_inodes: Option<HashMap<(u64, Time), TreePath>>,
    warned: HashSet<TreePath>,
    /// Files of the present batch that could not be read.
    unread: Vec<TreePath>,
    /// What was done.
    pub counters: Counters,
}

/// A unit from which something vanished.
struct Held {
    diff: Diff,
}

/// A shipment whose contents are being read.
struct Pending {
    steps: Vec<Step>,
    shipment: Shipment,
    answers: Vec<Answer>,
}

impl<'a, 't> Cycle<'a, 't> {
    /// Prepares a walk.
    ///
    /// # Errors
    /// Where the catalogue cannot be read.
    pub fn new(
        options: &'a Options<'a>,
        edit: &'a mut Edit<'t>,
        contents: Option<crate::catalogue::store::KnownContents>,
        sink: &'a mut dyn Sink,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let reader = Reader { root: options.root.clone(), contents, level: options.level };
        Self {
            options,
            scanner: Scanner::new(&options.root, options.rules),
            edit,
            sink,
            monitor,
            pool: Pool::new(reader, if options.plans_only { 0 } else { 2 }),
            cursor: Cursor::default(),
            gathered: Shipment::default(),
            pending: VecDeque::new(),
            in_flight: 0,
            next_number: options.first_number,
            on_the_way: HashSet::new(),
            moved: HashSet::new(),
            glance: Glance::default(),
            held: BTreeMap::new(),
            walked_from: TreePath::root(),
            root_is_empty: false,
            directory_inodes: None,
            warned: HashSet::new(),
            unread: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Lets the walk rely on what was seen before it; the catalogue says the same since.
    pub fn rely_on(&mut self, glance: Glance) {
        self.glance = glance;
    }

    /// Walks, and hands over everything that differs.
    ///
    /// # Errors
    /// [`SyncError::Guard`] where the removals look like an accident; everything else has been handed over then.
    pub fn run(&mut self) -> Result<()> {
        if !self.glance.all {
            self.walk(TreePath::root())?;
        }
        self.glance = Glance::default();
        // Once everywhere, for what went from one mailbox to another.
        if !self.held.is_empty() {
            self.walk(TreePath::root())?;
        }
        self.settle()?;
        self.drain()
    }

    /// Behind the last number that a content of this walk has.
    pub fn next_number(&self) -> u64 {
        self.next_number + 1
    }

    fn walk(&mut self, from: TreePath) -> Result<()> {
        self.cursor = Cursor::default();
        self.walked_from = from.clone();
        let mut stack = vec![from];
        while let Some(path) = stack.pop() {
            let below = self.visit(&path)?;
            stack.extend(below.into_iter().rev());
        }
        self.drain()
    }

    /// Looks at one unit; gives the directories below it that are units of their own.
    fn visit(&mut self, path: &TreePath) -> Result<Vec<TreePath>> {
        if !self.held.is_empty()
            && let Some(held) = self.held.get(&directory::key(path))
            && self.scanner.looks_as_in(&held.diff)
        {
            return Ok(held.diff.subdirectories.clone());
        }
        let key = directory::key(path);
        let rows = self.cursor.unit(&key, self.options.rules.kind, self.edit)?;
        let was_untouched = self.glance.has(&key);
        if let Some(below) = self.scanner.as_recorded(path, &rows, was_untouched) {
            return self.handle(Diff { path: path.clone(), subdirectories: below, ..Diff::default() });
        }
        let is_known = rows.directory.is_some();
        if !is_known && self.rename_directory(path)? {
            return self.visit(path);
        }
        if self.edit.open_directories() > OPEN_ROWS {
            self.edit.flush()?;
        }
        match self.scanner.unit(path, &rows, self.edit)? {
            Some(diff) => self.handle(diff),
            None if path.is_root() => {
                Err(SyncError::Failed(format!("{} is not a directory that can be read", self.options.root.show(path))))
            }
            None => {
                self.held.retain(|_, held| !held.diff.path.is_within(path));
                Ok(Vec::new())
            }
        }
    }

    fn handle(&mut self, mut diff: Diff) -> Result<Vec<TreePath>> {
        self.counters.directories_read += diff.listed;
        self.tell(&diff);
        if self.rename_within(&mut diff)? {
            // The rows below have other names now: look again.
            let path = diff.path.clone();
            return self.visit(&path);
        }
        let below = diff.subdirectories.clone();
        if diff.path.is_root() {
            self.root_is_empty = diff.listed > 0 && !diff.vanished.is_empty() && self.is_bare(&diff)?;
        }
        if !diff.torn.is_empty() {
            diff = diff.left_for_later();
        }
        if diff.uncertain || !diff.failed.is_empty() {
            // Not everything was seen: what is missing proves nothing, and the next cycle looks again.
            diff.vanished.clear();
            diff.looks.clear();
        }
        let key = directory::key(&diff.path);
        if self.options.settles && !diff.vanished.is_empty() {
            self.held.insert(key, Held { diff });
        } else {
            self.held.remove(&key);
            self.gather(diff)?;
        }
        Ok(below)
    }

    /// Whether nothing recorded in the root is there any more.
    fn is_bare(&mut self, diff: &Diff) -> Result<bool> {
        let recorded = self.edit.directory(&diff.path)?.map_or(0, |directory| directory.entries.len());
        Ok(recorded > 0 && diff.vanished.len() == recorded && diff.files.is_empty() && diff.subdirectories.is_empty())
    }

    fn tell(&mut self, diff: &Diff) {
        for error in &diff.failed {
            self.problem(error.path.clone(), format!("{}: {}", error.operation, error.source));
        }
        for path in &diff.torn {
            let reason = "it was being written all the time: its folder is left as it was; the next run tries again";
            let subject = self.options.root.show(path);
            match self.options.rules.trust_names {
                // On a mirror a mail server is at work; what is to be changed there is looked at again, under its lock.
                true => self.monitor.event(Event::Note(format!("{subject}: {reason}"))),
                false => self.problem(subject, reason.to_owned()),
            }
        }
        for path in &diff.special {
            if self.warned.insert(path.clone()) {
                self.counters.special_files_left_out += 1;
                let path = self.options.root.show(path);
                self.monitor.event(Event::Note(format!("left out: {path} is a socket, FIFO or device")));
            }
        }
    }

    fn problem(&self, subject: String, reason: String) {
        self.monitor.event(Event::Problem(Problem { subject, reason }));
    }
}
