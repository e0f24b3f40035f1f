//! Walks a tree beside its catalogue and hands what differs to a [`Sink`], batch by batch.
//!
//! The walk goes once through the tree. What has vanished is held back: nothing is removed because a scan
//! missed it (I3). When the walk is done, and something is held, the mailbox is looked at again until there is
//! an instant at which all its folders were as they were seen; then the removals go, each in one batch with the
//! rest of its folder, and after the batch that took the message in elsewhere.

use super::SyncError;
use super::guard::{self, Limit, Removal};
use super::plan::{self, Shipment, Step};
use super::read::{self, Answer, Content, Outcome, Output, Pool, Reader, Request, Shipped};
use crate::catalogue::directory::{self, Row};
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::{Diff, Found, Rules, Scanner, UnitRows, mark};
use crate::disk::{self, DiskError, FileKind, Root};
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{File, Kind, Known, Look, Meta};
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
const BATCH_STEPS: usize = 2048;

/// Bytes of content that may be waiting between reading and sending.
const IN_FLIGHT: u64 = 24 << 20;

/// Unpacked directories that may gather before they are written back.
const OPEN_ROWS: usize = 512;

/// Rows read ahead.
const ROWS_AHEAD: usize = 512;

type Result<T> = std::result::Result<T, SyncError>;

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
    held: BTreeMap<Vec<u8>, Held>,
    root_is_empty: bool,
    directory_inodes: Option<HashMap<u64, TreePath>>,
    warned: HashSet<TreePath>,
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
            held: BTreeMap::new(),
            root_is_empty: false,
            directory_inodes: None,
            warned: HashSet::new(),
            counters: Counters::default(),
        }
    }

    /// Walks, and hands over everything that differs.
    ///
    /// # Errors
    /// [`SyncError::Guard`] where the removals look like an accident; everything else has been handed over then.
    pub fn run(&mut self) -> Result<()> {
        self.walk(TreePath::root())?;
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
        if let Some(held) = self.held.get(&directory::key(path))
            && self.scanner.looks_as_in(&held.diff)
        {
            return Ok(held.diff.subdirectories.clone());
        }
        let rows = self.unit_rows(path)?;
        let is_known = rows.directory.is_some();
        if !is_known && self.rename_directory(path)? {
            return self.visit(path);
        }
        if self.edit.open_directories() > OPEN_ROWS {
            self.edit.flush()?;
        }
        match self.scanner.unit(path, &rows, self.edit)? {
            Some(diff) => self.handle(diff),
            None if path.is_root() => Err(SyncError::Failed(format!(
                "{} is not a directory that can be read",
                self.options.root.show(path)
            ))),
            None => {
                self.held.retain(|_, held| !held.diff.path.is_within(path));
                Ok(Vec::new())
            }
        }
    }

    fn unit_rows(&mut self, path: &TreePath) -> Result<UnitRows> {
        let directory = self.cursor.take(path, self.edit)?;
        let mut parts = [None, None, None];
        if directory.is_some() && self.options.rules.kind == folder::SetKind::Maildir {
            // In the catalogue's order the parts stand right behind their folder: cur, new, tmp.
            for (slot, part) in [(1, "cur"), (0, "new"), (2, "tmp")] {
                parts[slot] = self.cursor.take(&path.child(part), self.edit)?;
            }
        }
        Ok(UnitRows { directory, parts })
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
            let ino = self.edit.row(&from)?.and_then(|row| row.look).map(|look| look.ino);
            for to in diff.subdirectories.clone() {
                let there = self.options.root.stat_if_there(&to)?.map(|stat| stat.ino);
                if ino.is_some() && ino == there && self.edit.row(&to)?.is_none() {
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
        let from = self.directory_inodes.as_ref().and_then(|inodes| inodes.get(&stat.ino)).cloned();
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
                .filter_map(|(found, linked)| linked.then(|| found.path.clone()))
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
        let leads_elsewhere = found.known.as_ref().is_none_or(|known| known.local.ino != 0 && known.local.ino != found.stat.ino);
        if found.stat.kind != FileKind::File {
            return Ok(false);
        }
        if found.stat.links > 1 && !self.on_the_way.insert(found.stat.ino) {
            return Ok(true);
        }
        Ok(leads_elsewhere && self.original(found)?.is_some())
    }

    fn original(&mut self, found: &Found) -> Result<Option<(TreePath, Known)>> {
        let original = self.edit.find_inode(found.stat.ino)?;
        Ok(original.filter(|(path, known)| *path != found.path && known.entry.mark() == mark(&found.stat)))
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
        while self.in_flight > IN_FLIGHT || self.pending.len() > 64 {
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
        let same = found.known.as_ref().is_some_and(|known| known.entry.kind == Kind::Symlink(target.clone()));
        let path = found.path;
        let change = match same {
            true => Change::SetMeta { path: path.clone(), meta: found.meta, group: 0 },
            false => Change::Symlink { path: path.clone(), meta: found.meta, target },
        };
        self.settle_change(change, changes)?;
        Ok(self.edit.note(&path, local)?)
    }

    /// A dry run: what a file will become, as far as can be said without reading it.
    fn finish_planned(&mut self, found: Found, changes: &mut Vec<Change>) -> Result<()> {
        let file = File { size: found.stat.size, ..File::default() };
        let source = Source::Shipped(0);
        self.counters.bytes_content += found.stat.size;
        self.settle_change(Change::Put { path: found.path, meta: found.meta, file, source }, changes)
    }

    fn finish_content(&mut self, found: Found, outcome: Outcome, changes: &mut Vec<Change>) -> Result<()> {
        match outcome {
            Outcome::Read(content) => self.finish_read(found, *content, changes),
            // Expunged since it was seen: the next cycle finds its folder changed.
            Outcome::Gone => Ok(()),
            Outcome::Restless => {
                let reason = "it changed while it was read; the next run tries again".to_owned();
                self.problem(self.options.root.show(&found.path), reason);
                Ok(())
            }
            Outcome::Failed(error) => {
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
        let group = if stat.links > 1 { group_of(&stat) } else { 0 };
        let file = File { size: stat.size, digest, group };
        let local = self.scanner.local(&path, &stat);
        if shipped == Shipped::Same {
            let was_linked = found.known.as_ref().and_then(|known| known.entry.file()).is_some_and(|file| file.group != 0);
            let is_another = found.known.as_ref().is_some_and(|known| known.local.ino != 0 && known.local.ino != stat.ino);
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
            Shipped::Known => match self.edit.find_content(&digest)? {
                Some((original, _)) if original != path => Source::Copied(original),
                _ => return self.ship_now(found, meta, group, changes),
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
        if let Some((path, known)) = self.edit.find_inode(found.stat.ino)?
            && path == found.path
            && known.entry.mark() == mark(&found.stat)
        {
            // The name by which the inode is known is this one, and nothing about it changed.
            return Ok(self.edit.note(&path, self.scanner.local(&path, &found.stat))?);
        }
        let Some((existing, known)) = self.original(&found)? else {
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
        if found.meta.mode != known.entry.meta.mode || (found.meta.uid, found.meta.gid) != (known.entry.meta.uid, known.entry.meta.gid) {
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

    // ---- settling removals ----

    fn settle(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        // Once everywhere, for what went from one mailbox to another; then mailbox by mailbox.
        self.walk(TreePath::root())?;
        let mut ready = Vec::new();
        while let Some(path) = self.held.values().next().map(|held| held.diff.path.clone()) {
            let mailbox = self.mailbox_of(&path)?;
            let is_quiet = self.wait_for_quiet(&mailbox)?;
            let within = |held: &Held| held.diff.path.is_within(&mailbox);
            let (here, elsewhere): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held).into_iter().partition(|(_, held)| within(held));
            self.held = elsewhere.into_iter().collect();
            for (_, held) in here {
                let all_moved = held.diff.vanished.iter().all(|(path, _)| self.moved.contains(path));
                match is_quiet || all_moved {
                    true => ready.push(held),
                    false => self.say_restless(&held),
                }
            }
        }
        // What is beneath a directory that goes, goes with it.
        let is_directory = |known: &Known| known.entry.kind == Kind::Directory;
        let going: Vec<TreePath> = ready
            .iter()
            .flat_map(|held: &Held| &held.diff.vanished)
            .filter(|(_, known)| is_directory(known))
            .map(|(path, _)| path.clone())
            .collect();
        ready.retain(|held| !going.iter().any(|gone| held.diff.path.is_within(gone)));
        if ready.is_empty() {
            return Ok(());
        }
        self.check_guard(&ready)?;
        self.ship_removals(ready)
    }

    fn say_restless(&self, held: &Held) {
        let path = self.options.root.show(&held.diff.path);
        self.monitor.event(Event::Note(format!("{path}: messages are on the move; the next run looks again")));
    }

    /// Looks at a mailbox until there is an instant at which all that was seen is true at once: no folder
    /// changed between its listing and that instant. One folder may go on changing: it is listed last, and
    /// its listing is the instant. What was in none of the folders then is gone, and not on its way.
    ///
    /// That nothing seems to have come or gone between two looks would not do: a message can go to and fro.
    fn wait_for_quiet(&mut self, mailbox: &TreePath) -> Result<bool> {
        for _ in 0..MAX_LOOKS {
            self.walk(mailbox.clone())?;
            let restless = self.restless_units(mailbox)?;
            match restless.as_slice() {
                [] => return Ok(true),
                [one] => {
                    self.walk_only(one)?;
                    if self.restless_units(mailbox)?.iter().all(|unit| unit == one) {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Looks at one unit, and at none below it.
    fn walk_only(&mut self, unit: &TreePath) -> Result<()> {
        self.drain()?;
        self.cursor = Cursor::default();
        self.visit(unit)?;
        self.drain()
    }

    /// The units of a mailbox that do not look as they did when they were last read.
    fn restless_units(&mut self, mailbox: &TreePath) -> Result<Vec<TreePath>> {
        let mut seen: HashMap<TreePath, Look> = HashMap::new();
        for held in self.held.values() {
            seen.extend(held.diff.looks.iter().cloned());
        }
        let is_directory = |known: &Known| known.entry.kind == Kind::Directory;
        let vanished = self.held.values().flat_map(|held| &held.diff.vanished);
        let gone: Vec<TreePath> =
            vanished.filter(|(_, known)| is_directory(known)).map(|(path, _)| path.clone()).collect();
        let mut restless: Vec<TreePath> = Vec::new();
        for (path, row) in self.rows_below(mailbox)? {
            let unit = match folder::is_part(path.name()) {
                true => path.parent(),
                false => path.clone(),
            };
            if path.name() == b"tmp" || restless.last() == Some(&unit) {
                continue;
            }
            let recorded = seen.get(&path).copied().or(row.look).map(|look| Look { racy: false, ..look });
            let now = self.options.root.stat_if_there(&path)?.map(|stat| stat.look());
            let is_gone_as_seen = now.is_none() && gone.iter().any(|gone| path.is_within(gone));
            if now != recorded && !is_gone_as_seen {
                restless.push(unit);
            }
        }
        restless.dedup();
        Ok(restless)
    }

    fn rows_below(&mut self, path: &TreePath) -> Result<Vec<(TreePath, Row)>> {
        self.edit.flush()?;
        let (prefix, mut from) = (directory::key(path), directory::key(path));
        let mut below = Vec::new();
        loop {
            let rows = self.edit.rows_from(&from, ROWS_AHEAD)?;
            let is_last = rows.len() < ROWS_AHEAD;
            for (key, row) in rows {
                if !key.starts_with(&prefix) {
                    return Ok(below);
                }
                below.push((directory::path_of(&key)?, row));
                from = key;
                from.push(0);
            }
            if is_last {
                return Ok(below);
            }
        }
    }

    /// The directory within which a user's messages move: the topmost folder above `path`, or, where that has
    /// no folders of its own (layout fs without an INBOX around), the directory that holds it.
    fn mailbox_of(&mut self, path: &TreePath) -> Result<TreePath> {
        let mut above = vec![path.clone()];
        while let Some((parent, _)) = above.last().and_then(TreePath::split) {
            above.push(parent);
        }
        for at in above.into_iter().rev() {
            let Some(row) = self.edit.row(&at)? else { continue };
            let directories = || row.entries.iter().filter(|known| known.entry.kind == Kind::Directory).map(|known| known.entry.name.as_bytes());
            if directories().any(|name| name == b"cur") {
                let has_folders = directories().any(|name| !folder::is_part(name));
                return Ok(if has_folders { at } else { at.parent() });
            }
        }
        Ok(path.clone())
    }

    fn check_guard(&mut self, ready: &[Held]) -> Result<()> {
        let mut files = 0;
        for (path, known) in ready.iter().flat_map(|held| &held.diff.vanished) {
            files += match known.entry.kind {
                Kind::Directory => {
                    let (messages, others, _) = self.below(path)?;
                    messages + others
                }
                _ => u64::from(known.entry.file().is_some() && !self.moved.contains(path)),
            };
        }
        let of = self.edit.head.messages + self.edit.head.files;
        let root = self.options.root.identity()?;
        let removal = Removal {
            files,
            of,
            root_is_empty: self.root_is_empty,
            root_is_another: self.edit.head.root_id != 0 && self.edit.head.root_id != root,
        };
        let source = self.options.root.show(&TreePath::root());
        match guard::stop(removal, self.options.limit, &source, self.options.standby) {
            Some(sentence) => Err(SyncError::Guard(sentence)),
            None => Ok(()),
        }
    }

    fn ship_removals(&mut self, ready: Vec<Held>) -> Result<()> {
        let mut sources = HashMap::new();
        for (at, held) in ready.iter().enumerate() {
            for (_, known) in held.diff.vanished.iter().filter(|(_, known)| known.local.ino != 0) {
                sources.insert(known.local.ino, at);
            }
        }
        let mut receives = HashSet::new();
        for (at, held) in ready.iter().enumerate() {
            for found in held.diff.messages.iter().chain(&held.diff.files) {
                if let Some(&from) = sources.get(&found.stat.ino).filter(|&&from| from != at) {
                    receives.insert((at, from));
                }
            }
        }
        let numbered: Vec<(usize, Held)> = ready.into_iter().enumerate().collect();
        let ordered = match receives.is_empty() {
            true => numbered.into_iter().map(|unit| vec![unit]).collect(),
            false => plan::order(numbered, |a, b| receives.contains(&(a.0, b.0))),
        };
        for group in ordered {
            // In a ring of moves nobody can be first: all take in before any gives up.
            let mut leaving = Vec::new();
            let is_ring = group.len() > 1;
            for (_, mut held) in group {
                if is_ring {
                    let vanished = std::mem::take(&mut held.diff.vanished);
                    leaving.push(Diff { path: held.diff.path.clone(), vanished, ..Diff::default() });
                }
                self.gather(held.diff)?;
            }
            for diff in leaving {
                self.gather(diff)?;
            }
            // Each in the order found, so that a link is made before what it leads to goes.
            self.close()?;
        }
        self.drain()
    }

    // ---- counting ----

    /// Messages, other files and directories below a directory, itself included.
    fn below(&mut self, path: &TreePath) -> Result<(u64, u64, u64)> {
        let (mut messages, mut others, mut directories) = (0, 0, 0);
        for (at, row) in self.rows_below(path)? {
            directories += 1;
            match directory::is_paged(&at) {
                true => messages += row.count,
                false => others += row.entries.iter().filter(|known| known.entry.file().is_some()).count() as u64,
            }
        }
        Ok((messages, others, directories))
    }

    fn count_removed_directory(&mut self, path: &TreePath) -> Result<()> {
        let (messages, others, directories) = self.below(path)?;
        // The change itself counts one.
        self.counters.directories_removed += directories.saturating_sub(1);
        let moved = self.moved.iter().filter(|moved| moved.is_within(path)).count() as u64;
        self.counters.messages_renamed += moved;
        self.counters.messages_linked -= moved.min(self.counters.messages_linked);
        self.counters.messages_removed += messages.saturating_sub(moved);
        self.counters.files_removed += others;
        Ok(())
    }

    fn count(&mut self, change: &Change, is_new: bool) {
        let counters = &mut self.counters;
        let is_message = folder::is_message(self.options.rules.kind, change.path());
        let counter = match change {
            Change::MakeDirectory { .. } if is_new => &mut counters.directories_added,
            Change::MakeDirectory { .. } | Change::SetMeta { .. } | Change::Forget { .. } => &mut counters.metadata_changed,
            Change::RenameDirectory { .. } => &mut counters.directories_renamed,
            Change::RemoveDirectory { .. } => &mut counters.directories_removed,
            Change::Put { .. } if is_message && is_new => &mut counters.messages_added,
            Change::Put { source: Source::Delta(_), .. } => &mut counters.files_patched,
            Change::Symlink { .. } => &mut counters.symlinks_changed,
            Change::Put { .. } if is_new => &mut counters.files_added,
            Change::Put { .. } => &mut counters.files_replaced,
            Change::Link { .. } if is_message => &mut counters.messages_linked,
            Change::Link { .. } => &mut counters.files_added,
            Change::Rename { .. } => &mut counters.messages_renamed,
            Change::Remove { path, .. } if is_message && self.moved.contains(path) => {
                counters.messages_linked = counters.messages_linked.saturating_sub(1);
                &mut counters.messages_renamed
            }
            Change::Remove { .. } if is_message => &mut counters.messages_removed,
            Change::Remove { .. } => &mut counters.files_removed,
        };
        *counter += 1;
        if self.options.itemize {
            self.monitor.event(Event::Item(itemized(change, is_new)));
        }
    }
}

/// A change as rsync's `--itemize-changes` would show it; `r` is a rename, which rsync does not have.
fn itemized(change: &Change, is_new: bool) -> String {
    let plus = if is_new { "+++++++++" } else { "........." };
    match change {
        Change::MakeDirectory { path, .. } if is_new => format!("cd{plus} {path}/"),
        Change::MakeDirectory { path, .. } => format!(".d..tpog.. {path}/"),
        Change::RenameDirectory { from, to } => format!("rd......... {from}/ -> {to}/"),
        Change::RemoveDirectory { path } => format!("*deleting   {path}/"),
        Change::Put { path, source: Source::Copied(from), .. } => format!("cf{plus} {path} <= {from}"),
        Change::Put { path, .. } if is_new => format!(">f{plus} {path}"),
        Change::Put { path, .. } => format!(">f.st...... {path}"),
        Change::Symlink { path, target, .. } => format!("cL{plus} {path} -> {}", crate::path::escape(target)),
        Change::Link { path, existing, .. } => format!("hf{plus} {path} => {existing}"),
        Change::Rename { from, to, .. } => format!("rf......... {from} -> {to}"),
        Change::SetMeta { path, .. } => format!(".f..tpogax. {path}"),
        Change::Remove { path, .. } => format!("*deleting   {path}"),
        Change::Forget { path } => format!("*excluding  {path}"),
    }
}

/// The hard-link group of an inode: never 0, and the same for each of its names.
fn group_of(stat: &crate::disk::Stat) -> u64 {
    let hash = crate::id::Digest::of(&[stat.device.to_le_bytes(), stat.ino.to_le_bytes()].concat());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.0[..8]);
    u64::from_le_bytes(first).max(1)
}

/// Goes through the catalogue's rows in order, some read ahead.
#[derive(Default)]
struct Cursor {
    ahead: VecDeque<(Vec<u8>, Row)>,
    /// The catalogue has no more rows behind those read ahead.
    exhausted: bool,
    /// Rows were renamed or removed: what was read ahead may be wrong.
    stale: bool,
}

impl Cursor {
    /// The row of a directory that comes after all that were asked for before.
    fn take(&mut self, path: &TreePath, edit: &mut Edit<'_>) -> Result<Option<Row>> {
        let key = directory::key(path);
        if self.stale {
            *self = Self::default();
        }
        loop {
            while self.ahead.front().is_some_and(|(front, _)| *front < key) {
                self.ahead.pop_front();
            }
            match self.ahead.front() {
                Some((front, _)) if *front == key => return Ok(self.ahead.pop_front().map(|(_, row)| row)),
                Some(_) => return Ok(None),
                None if self.exhausted => return Ok(None),
                None => self.fill(&key, edit)?,
            }
        }
    }

    fn fill(&mut self, from: &[u8], edit: &mut Edit<'_>) -> Result<()> {
        edit.flush()?;
        let rows = edit.rows_from(from, ROWS_AHEAD)?;
        self.exhausted = rows.len() < ROWS_AHEAD;
        self.ahead = rows.into();
        Ok(())
    }
}
