//! Walks a tree beside its catalogue and hands what differs to a [`Sink`], batch by batch.
//!
//! The walk goes once through the tree. What has vanished is held back: nothing is removed because a scan
//! missed it (I3). When the walk is done, and something is held, the mailbox is looked at again until there is
//! an instant at which all its folders were as they were seen; then the removals go, each in one batch with the
//! rest of its folder, and after the batch that took the message in elsewhere.

use super::SyncError;
use super::guard::Limit;
use super::plan::{self, Shipment, Step};
use super::read::{self, Answer, Content, Outcome, Output, Pool, Reader, Request, Shipped};
use crate::catalogue::directory::{self};
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::{Diff, Found, Rules, Scanner, mark};
use crate::disk::{self, DiskError, FileKind, Root};
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{File, Kind, Known, Meta, Time};
use crate::maildir::folder;
use crate::monitor::{Counters, Event, Monitor, Problem};
use crate::path::TreePath;
use crate::wire::block::{self, Block, Piece};
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

/// A batch is closed at so many bytes of content, or so many steps.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_STEPS: usize = 512;

/// Bytes of content that may be waiting between reading and sending.
const IN_FLIGHT: u64 = 24 << 20;

/// Batches that may be waiting there.
const PENDING: usize = 12;

/// Unpacked directories that may gather before they are written back.
const OPEN_ROWS: usize = 512;

/// Rows read ahead.
const ROWS_AHEAD: usize = 128;

type Result<T> = std::result::Result<T, SyncError>;

mod count;
mod cursor;
mod glance;
mod settle;

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
        self.settle()?;
        self.drain()
    }

    // ---- the walk ----

    fn walk(&mut self, from: TreePath) -> Result<()> {
        self.cursor = Cursor::default();
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
        if diff.uncertain || !diff.failed.is_empty() || !diff.torn.is_empty() {
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
            if self.warned.insert(path.clone()) {
                let reason = "is being written, or is not whole: the folder is left as it was for this run";
                self.monitor.event(Event::Note(format!("{}: {reason}", self.options.root.show(path))));
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

    // ---- renamed directories ----

    /// Directories of this unit that have another name now. `true` where the catalogue was changed.
    fn rename_within(&mut self, diff: &mut Diff) -> Result<bool> {
        let gone: Vec<TreePath> = diff
            .vanished
            .iter()
            .filter(|(_, known)| known.entry.kind == Kind::Directory)
            .map(|(path, _)| path.clone())
            .collect();
        if gone.is_empty() || self.options.plans_only && diff.subdirectories.is_empty() {
            return Ok(false);
        }
        let mut renamed = false;
        for from in gone {
            let recorded = self.edit.row(&from)?.and_then(|row| row.look).map(|look| (look.ino, look.born));
            for to in diff.subdirectories.clone() {
                let there = self.options.root.stat_if_there(&to)?.map(|stat| (stat.ino, stat.born));
                if recorded.is_some() && recorded == there && self.edit.row(&to)?.is_none() {
                    self.ship_directory_rename(from.clone(), to)?;
                    renamed = true;
                    break;
                }
            }
        }
        Ok(renamed)
    }

    /// A directory that is not recorded may be one that is, under another name elsewhere in the tree.
    fn rename_directory(&mut self, path: &TreePath) -> Result<bool> {
        if path.is_root() || self.edit.is_empty()? || self.edit.row(&path.parent())?.is_none() {
            return Ok(false);
        }
        let Some(stat) = self.options.root.stat_if_there(path)? else { return Ok(false) };
        if self.directory_inodes.is_none() {
            self.drain()?;
            self.directory_inodes = Some(self.edit.directory_inodes()?);
        }
        let from = self.directory_inodes.as_ref().and_then(|inodes| inodes.get(&(stat.ino, stat.born))).cloned();
        let Some(from) = from.filter(|from| !from.is_root() && !from.is_within(path) && !path.is_within(from)) else {
            return Ok(false);
        };
        let still_there = self.options.root.stat_if_there(&from)?.is_some_and(|old| old.ino == stat.ino);
        self.drain()?;
        if still_there || self.edit.row(&from)?.is_none() || self.edit.row(path)?.is_some() {
            return Ok(false);
        }
        self.ship_directory_rename(from, path.clone())?;
        Ok(true)
    }

    fn ship_directory_rename(&mut self, from: TreePath, to: TreePath) -> Result<()> {
        self.drain()?;
        self.held.retain(|_, held| !held.diff.path.is_within(&from));
        let change = Change::RenameDirectory { from, to };
        self.edit.apply(&change)?;
        self.edit.flush()?;
        self.cursor.stale = true;
        self.directory_inodes = None;
        self.count(&change, false);
        self.sink.batch(&[change])
    }

    // ---- gathering and reading ----

    fn gather(&mut self, diff: Diff) -> Result<()> {
        if diff.is_empty() {
            self.gathered.looks.extend(diff.looks);
            self.gathered.learned.extend(diff.learned);
        } else {
            let mut linked = Vec::with_capacity(diff.files.len() + diff.messages.len());
            for found in diff.files.iter().chain(&diff.messages) {
                linked.push(self.is_linked(found)?);
            }
            let by_path: HashSet<TreePath> = diff
                .files
                .iter()
                .chain(&diff.messages)
                .zip(linked)
                .filter(|&(_found, linked)| linked)
                .map(|(found, _linked)| found.path.clone())
                .collect();
            self.gathered.add(diff, |found| by_path.contains(&found.path));
        }
        let notes = self.gathered.looks.len() + self.gathered.learned.len();
        if self.gathered.bytes >= BATCH_BYTES || self.gathered.steps.len() >= BATCH_STEPS || notes >= 4 * BATCH_STEPS {
            self.close()?;
        }
        Ok(())
    }

    /// Whether a file that appeared is one that is recorded, or on its way, under another name.
    fn is_linked(&mut self, found: &Found) -> Result<bool> {
        // A name that is recorded becomes a link only where it leads to another inode than it did.
        let leads_elsewhere =
            found.known.as_ref().is_none_or(|known| known.local.ino != 0 && known.local.ino != found.stat.ino);
        if found.stat.kind != FileKind::File {
            return Ok(false);
        }
        if found.stat.links > 1 && !self.on_the_way.insert(found.stat.ino) {
            return Ok(true);
        }
        Ok(leads_elsewhere && self.original(found)?.is_some())
    }

    fn original(&mut self, found: &Found) -> Result<Option<(TreePath, Known)>> {
        Ok(self.edit.find_inode(found.stat.ino, mark(&found.stat), &found.path)?)
    }

    /// Closes the gathered shipment and has its contents read.
    fn close(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut shipment = std::mem::take(&mut self.gathered);
        let mut steps = std::mem::take(&mut shipment.steps);
        let answers = if self.options.plans_only { Vec::new() } else { self.submit(&mut steps)? };
        self.in_flight += shipment.bytes;
        let messages = steps.iter().filter(|step| self.is_message_content(step)).count() as u64;
        self.monitor.event(Event::Planned { messages, bytes: shipment.bytes });
        self.pending.push_back(Pending { steps, shipment, answers });
        // What waits for no content goes at once, so that the slave is at work meanwhile.
        let is_ready = |oldest: &Pending| oldest.answers.is_empty();
        while self.in_flight > IN_FLIGHT || self.pending.len() > PENDING || self.pending.front().is_some_and(is_ready) {
            self.finish_oldest()?;
        }
        Ok(())
    }

    fn is_message_content(&self, step: &Step) -> bool {
        matches!(step, Step::Content(found) if folder::is_message(self.options.rules.kind, &found.path))
    }

    /// Cuts the contents of a shipment into jobs, each about a block.
    fn submit(&mut self, steps: &mut [Step]) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let (mut job, mut bytes) = (Vec::new(), 0);
        for step in steps {
            let Step::Content(found) = step else { continue };
            if found.target.is_some() {
                continue;
            }
            let size = found.stat.size;
            if bytes > 0 && bytes + size > block::TARGET as u64 {
                answers.push(self.pool.submit(std::mem::take(&mut job)));
                bytes = 0;
            }
            bytes += size.max(1);
            let request = self.request(found)?;
            job.push(request);
        }
        if !job.is_empty() {
            answers.push(self.pool.submit(job));
        }
        Ok(answers)
    }

    fn request(&mut self, found: &mut Found) -> Result<Request> {
        let is_message = folder::is_message(self.options.rules.kind, &found.path);
        let sign = self.options.ships && read::is_worth_signing(&found.path, is_message, found.stat.size);
        let before = found.known.as_ref().and_then(|known| known.entry.file()).map(|file| file.digest);
        let signature = match before {
            Some(digest) if self.options.ships => self.edit.signature(&found.path, &digest)?,
            _ => None,
        };
        self.next_number += 1;
        let mut taken = Found { number: self.next_number, captured: None, ..found.clone() };
        taken.captured = found.captured.take();
        Ok(Request { found: taken, signature, sign })
    }

    // ---- finishing, in order ----

    fn drain(&mut self) -> Result<()> {
        self.close()?;
        while !self.pending.is_empty() {
            self.finish_oldest()?;
        }
        self.edit.flush()?;
        Ok(())
    }

    fn finish_oldest(&mut self) -> Result<()> {
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let Pending { steps, shipment, answers } = pending;
        let mut read = self.take_answers(answers)?;
        let mut changes = Vec::with_capacity(steps.len());
        for step in steps {
            self.finish_step(step, &mut read, &mut changes)?;
        }
        for (path, local) in shipment.learned {
            self.edit.note(&path, local)?;
        }
        for (path, look) in shipment.looks {
            self.edit.looked(&path, Some(look))?;
        }
        for path in std::mem::take(&mut self.unread) {
            // What could not be read now is looked for again, though its directory does not change.
            self.edit.looked(&path.parent(), None)?;
        }
        self.edit.flush()?;
        self.in_flight -= shipment.bytes;
        let messages = changes.iter().filter(|change| self.is_new_message(change)).count() as u64;
        self.monitor.event(Event::Done { messages, bytes: shipment.bytes });
        match changes.is_empty() {
            true => Ok(()),
            false => self.sink.batch(&changes),
        }
    }

    fn is_new_message(&self, change: &Change) -> bool {
        matches!(change, Change::Put { path, .. } if folder::is_message(self.options.rules.kind, path))
    }

    /// Sends the blocks on, and collects what became of each file.
    fn take_answers(&mut self, answers: Vec<Answer>) -> Result<VecDeque<(Found, Outcome)>> {
        let mut read = VecDeque::new();
        for answer in answers {
            loop {
                match answer.recv() {
                    Ok(Output::Block(payload)) => self.sink.block(payload)?,
                    Ok(Output::Outcomes(outcomes)) => {
                        read.extend(outcomes);
                        break;
                    }
                    Err(_) => return Err(SyncError::Failed("a thread that reads files ended early".into())),
                }
            }
        }
        Ok(read)
    }

    fn finish_step(
        &mut self,
        step: Step,
        read: &mut VecDeque<(Found, Outcome)>,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        match step {
            Step::Change(change) => self.settle_change(change, changes),
            Step::Content(found) if found.target.is_some() => self.finish_symlink(found, changes),
            Step::Content(found) if self.options.plans_only => self.finish_planned(found, changes),
            Step::Content(_) => match read.pop_front() {
                Some((found, outcome)) => self.finish_content(found, outcome, changes),
                None => Err(SyncError::Failed("a file was planned and not read".into())),
            },
            Step::Linked(found) => self.finish_linked(found, changes),
            Step::Gone(path, known) => self.finish_gone(path, &known, changes),
        }
    }

    /// Puts a change into the batch, if it fits the catalogue as it is now.
    fn settle_change(&mut self, change: Change, changes: &mut Vec<Change>) -> Result<()> {
        let is_moot = match &change {
            // Its directory has been removed or renamed since; the next cycle sees what became of it.
            Change::Put { path, .. } | Change::Symlink { path, .. } | Change::Link { path, .. }
                if self.edit.directory(&path.parent())?.is_none() =>
            {
                true
            }
            Change::MakeDirectory { path, .. } if !path.is_root() => self.edit.directory(&path.parent())?.is_none(),
            Change::Rename { from, to, .. } => {
                self.edit.known(from)?.is_none() || self.edit.directory(&to.parent())?.is_none()
            }
            Change::SetMeta { path, .. } | Change::Forget { path } | Change::Remove { path, .. } => {
                self.edit.known(path)?.is_none()
            }
            _ => false,
        };
        if is_moot {
            return Ok(());
        }
        let is_new = match &change {
            Change::MakeDirectory { path, .. } => self.edit.directory(path)?.is_none(),
            Change::Put { path, .. } | Change::Symlink { path, .. } => self.edit.known(path)?.is_none(),
            _ => true,
        };
        if let Change::RemoveDirectory { path } = &change {
            self.count_removed_directory(&path.clone())?;
            self.cursor.stale = true;
        }
        self.edit.apply(&change)?;
        self.count(&change, is_new);
        changes.push(change);
        Ok(())
    }

    fn finish_symlink(&mut self, found: Found, changes: &mut Vec<Change>) -> Result<()> {
        let local = self.scanner.local(&found.path, &found.stat);
        let target = found.target.unwrap_or_default();
        let path = found.path;
        let before = found.known.map(|known| known.entry);
        let is_same = before.as_ref().is_some_and(|entry| entry.kind == Kind::Symlink(target.clone()));
        if !is_same {
            self.settle_change(Change::Symlink { path: path.clone(), meta: found.meta, target }, changes)?;
        } else if before.is_some_and(|entry| entry.meta != found.meta) {
            self.settle_change(Change::SetMeta { path: path.clone(), meta: found.meta, group: 0 }, changes)?;
        }
        Ok(self.edit.note(&path, local)?)
    }

    /// A dry run: what a file will become, as far as can be said without reading it all.
    fn finish_planned(&mut self, found: Found, changes: &mut Vec<Change>) -> Result<()> {
        if self.is_unchanged(&found) {
            return Ok(());
        }
        let file = File { size: found.stat.size, ..File::default() };
        let source = Source::Shipped(0);
        self.counters.bytes_content += found.stat.size;
        self.settle_change(Change::Put { path: found.path, meta: found.meta, file, source }, changes)
    }

    /// Whether a file of which only the change time moved has the content that is recorded.
    fn is_unchanged(&self, found: &Found) -> bool {
        let Some(known) = found.known.as_ref().filter(|known| known.entry.mark() == mark(&found.stat)) else {
            return false;
        };
        let digest = match &found.captured {
            Some(bytes) => Some(crate::id::Digest::of(bytes)),
            None => {
                self.options.root.open_file(&found.path).ok().and_then(|mut file| super::staging::hash(&mut file).ok())
            }
        };
        digest.is_some() && known.entry.file().map(|file| file.digest) == digest
    }

    fn finish_content(&mut self, found: Found, outcome: Outcome, changes: &mut Vec<Change>) -> Result<()> {
        match outcome {
            Outcome::Read(content) => self.finish_read(found, *content, changes),
            // Expunged since it was seen: the next cycle finds its folder changed.
            Outcome::Gone => Ok(()),
            Outcome::Restless => {
                self.unread.push(found.path.clone());
                let reason = "it changed while it was read; the next run tries again".to_owned();
                self.problem(self.options.root.show(&found.path), reason);
                Ok(())
            }
            Outcome::Failed(error) => {
                self.unread.push(found.path);
                self.problem(error.path.clone(), format!("{}: {}", error.operation, error.source));
                Ok(())
            }
        }
    }

    fn finish_read(&mut self, found: Found, content: Content, changes: &mut Vec<Change>) -> Result<()> {
        let Content { stat, xattrs, digest, shipped, signature } = content;
        let path = found.path.clone();
        let mut meta = found.meta.clone();
        meta.xattrs = xattrs;
        meta.mtime = Some(stat.mtime);
        let before = found.known.as_ref().and_then(|known| known.entry.file());
        let group = match (stat.links > 1, before) {
            (false, _) => 0,
            // On a mirror the groups are those that the master gave; its inode numbers are its own.
            (true, Some(before)) if self.options.rules.trust_names && before.group != 0 => before.group,
            (true, _) => group_of(&stat),
        };
        let file = File { size: stat.size, digest, group };
        let local = self.scanner.local(&path, &stat);
        if shipped == Shipped::Same {
            let was_linked =
                found.known.as_ref().and_then(|known| known.entry.file()).is_some_and(|file| file.group != 0);
            let is_another =
                found.known.as_ref().is_some_and(|known| known.local.ino != 0 && known.local.ino != stat.ino);
            if was_linked && is_another {
                // The same bytes in a file of its own: what it was a link of must not change with it.
                let source = Source::Copied(path.clone());
                self.settle_change(Change::Put { path: path.clone(), meta, file, source }, changes)?;
                return Ok(self.edit.note(&path, local)?);
            }
            let before = found.known.as_ref().map(|known| (&known.entry.meta, known.entry.file()));
            if before != Some((&meta, Some(&file))) {
                let change = Change::SetMeta { path: path.clone(), meta, group };
                self.settle_change(change, changes)?;
            }
            return Ok(self.edit.note(&path, local)?);
        }
        let source = match shipped {
            Shipped::Delta(bytes) => {
                self.counters.bytes_content += bytes;
                Source::Delta(found.number)
            }
            Shipped::Known => match self.edit.find_content(&digest, &path)? {
                Some((original, _)) => Source::Copied(original),
                None => return self.ship_now(found, meta, group, changes),
            },
            Shipped::Whole(bytes) => {
                self.counters.bytes_content += bytes;
                Source::Shipped(found.number)
            }
            Shipped::Same | Shipped::Nothing => Source::Shipped(0),
        };
        self.settle_change(Change::Put { path: path.clone(), meta, file, source }, changes)?;
        self.edit.note(&path, local)?;
        if let Some(signature) = signature {
            self.edit.set_signature(&path, &digest, &signature)?;
        }
        Ok(())
    }

    /// Reads a small file on this thread and ships it raw: where a shortcut turned out not to lead anywhere.
    fn ship_now(&mut self, mut found: Found, mut meta: Meta, group: u64, changes: &mut Vec<Change>) -> Result<()> {
        use std::io::Read;
        use std::os::fd::AsFd;
        let path = found.path.clone();
        let mut bytes = Vec::new();
        let opened = self.options.root.open_file(&path);
        let read = opened.and_then(|file| {
            let failed = |source| DiskError { operation: "cannot read", path: self.options.root.show(&path), source };
            meta.xattrs = disk::read_xattrs(file.as_fd()).map_err(failed)?;
            file.take(64 << 20).read_to_end(&mut bytes).map_err(failed)
        });
        if let Err(error) = read {
            self.unread.push(path);
            if !error.is_not_found() {
                self.problem(error.path.clone(), format!("{}: {}", error.operation, error.source));
            }
            return Ok(());
        }
        self.next_number += 1;
        found.number = self.next_number;
        let digest = crate::id::Digest::of(&bytes);
        self.ship_pieces(found.number, &bytes, digest)?;
        self.counters.bytes_content += bytes.len() as u64;
        let file = File { size: bytes.len() as u64, digest, group };
        let source = Source::Shipped(found.number);
        let local = self.scanner.local(&path, &found.stat);
        self.settle_change(Change::Put { path: path.clone(), meta, file, source }, changes)?;
        Ok(self.edit.note(&path, local)?)
    }

    fn ship_pieces(&mut self, number: u64, bytes: &[u8], digest: crate::id::Digest) -> Result<()> {
        let mut offset = 0;
        loop {
            let end = (offset + block::TARGET).min(bytes.len());
            let last = (end == bytes.len()).then_some(digest);
            let length = (end - offset) as u32;
            let piece = Piece { number, offset: offset as u64, length, last, sparse: false };
            let block = Block { pieces: vec![piece], data: bytes[offset..end].to_vec() };
            let failed = |error: std::io::Error| SyncError::Failed(format!("a block cannot be packed: {error}"));
            self.sink.block(block.encode(self.options.level).map_err(failed)?)?;
            offset = end;
            if last.is_some() {
                return Ok(());
            }
        }
    }

    fn finish_linked(&mut self, found: Found, changes: &mut Vec<Change>) -> Result<()> {
        let Some((existing, known)) = self.original(&found)? else {
            if let Some(known) = self.edit.known(&found.path)?
                && (known.local.ino, known.entry.mark()) == (found.stat.ino, mark(&found.stat))
            {
                // The inode is known by this name alone, and nothing about it changed.
                return Ok(self.edit.note(&found.path, self.scanner.local(&found.path, &found.stat))?);
            }
            if self.options.plans_only {
                return self.finish_planned(found, changes);
            }
            let group = if found.stat.links > 1 { group_of(&found.stat) } else { 0 };
            let meta = found.meta.clone();
            return self.ship_now(found, meta, group, changes);
        };
        let was = known.entry.file().map_or(0, |file| file.group);
        let before = found.known.as_ref().and_then(|known| known.entry.file());
        if was != 0 && before == known.entry.file() {
            // Both names are links of each other already.
            return Ok(self.edit.note(&found.path, self.scanner.local(&found.path, &found.stat))?);
        }
        let group = if found.stat.links > 1 { group_of(&found.stat) } else { was };
        let path = found.path.clone();
        if found.stat.links == 1 {
            self.moved.insert(existing.clone());
        }
        // The group of the existing name may change, in a directory whose row was read ahead.
        self.cursor.stale = self.cursor.stale || was != group;
        let link = Change::Link { path: path.clone(), existing, group, mark: known.entry.mark() };
        self.settle_change(link, changes)?;
        if found.meta.mode != known.entry.meta.mode
            || (found.meta.uid, found.meta.gid) != (known.entry.meta.uid, known.entry.meta.gid)
        {
            let meta = Meta { xattrs: known.entry.meta.xattrs.clone(), ..found.meta.clone() };
            self.settle_change(Change::SetMeta { path: path.clone(), meta, group }, changes)?;
        }
        Ok(self.edit.note(&path, self.scanner.local(&path, &found.stat))?)
    }

    fn finish_gone(&mut self, path: TreePath, known: &Known, changes: &mut Vec<Change>) -> Result<()> {
        let is_there = match known.entry.kind {
            Kind::Directory => self.edit.directory(&path)?.is_some(),
            _ => self.edit.known(&path)?.is_some_and(|now| now.entry.mark() == known.entry.mark()),
        };
        match is_there {
            true => self.settle_change(plan::removal(path, known), changes),
            false => Ok(()),
        }
    }
}

/// The hard-link group of an inode: never 0, and the same for each of its names.
fn group_of(stat: &crate::disk::Stat) -> u64 {
    let hash = crate::id::Digest::of(&[stat.device.to_le_bytes(), stat.ino.to_le_bytes()].concat());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.0[..8]);
    u64::from_le_bytes(first).max(1)
}
