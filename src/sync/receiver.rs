//! The slave's end of a session.
//!
//! Three threads, one behind the other: this one takes messages off the wire; the stager unpacks blocks and
//! writes contents beside the mirror; the committer makes batches durable, acknowledges, and lets the hand
//! apply them. They hand work on in order, so when a batch reaches the committer its contents are there.

use super::SyncError;
use super::apply::{Arrived, Contents, Hand};
use super::cycle::{Cycle, NoSink, Options};
use super::guard::Limit;
use super::staging::Staging;
use crate::catalogue::CatalogueError;
use crate::catalogue::directory;
use crate::catalogue::edit::Edit;
use crate::catalogue::filter::Filter;
use crate::catalogue::scan::Rules;
use crate::catalogue::store::{Catalogue, Transaction};
use crate::disk::Root;
use crate::id::{Digest, Epoch, Position, RandomId, SetId};
use crate::log::segment::{Replay, Segment};
use crate::maildir::change::Change;
use crate::maildir::entry::Entry;
use crate::monitor::{Counters, Quiet};
use crate::path::TreePath;
use crate::transport::{Connection, Sender};
use crate::wire::block::Block;
use crate::wire::frame::Frame;
use crate::wire::message::{BLOCK, Done, Hello, MAX_LIST, Message, Refusal, Row, Welcome};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Queue, SyncSender, sync_channel};
use std::time::Duration;

/// Contents of at most so many bytes go into the log; above, straight into files, and the file system is
/// synced for many batches at once.
const LOGGED_CONTENTS: u64 = 4 << 20;

/// Changes that one batch may hold: the messages of a folder, many times over.
const MAX_CHANGES: usize = 8 << 20;

/// Bytes of contents, or changes, after which what was applied is made durable and the log begins anew.
const CHECKPOINT_BYTES: u64 = 256 << 20;
const CHECKPOINT_CHANGES: u64 = 200_000;

/// Changes, and bytes of contents, that are made durable together.
const GROUP_CHANGES: usize = 8192;
const GROUP_BYTES: u64 = 128 << 20;

/// Blocks and batches that may wait between two threads.
const QUEUE: usize = 4;

/// How long a group waits for one more batch.
const GROUP_WAIT: Duration = Duration::from_millis(10);

/// Entries in one message of a directory's record.
const ROW_ENTRIES: usize = 4096;

type Result<T> = std::result::Result<T, SyncError>;

/// The program's name and version, as greetings carry it.
pub fn program() -> String {
    format!("mailtwin {}", env!("CARGO_PKG_VERSION"))
}

/// Serves one session, to its end. An error that the master should know of has been sent to it.
///
/// # Errors
/// Why the session ended early.
pub fn serve(mut connection: Connection) -> Result<()> {
    let sender = connection.sender.clone();
    let served = match connection.receiver.recv() {
        Ok(Message::Hello(hello)) => Slave::open(hello).and_then(|slave| slave.session(&mut connection)),
        Ok(_) => Err(SyncError::Protocol("it did not greet")),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = &served {
        refuse(&sender, error);
    }
    served
}

fn refuse(sender: &Sender, error: &SyncError) {
    // Where the connection itself is gone nobody listens.
    if !matches!(error, SyncError::Link(_)) {
        let refusal = Refusal { code: error.exit_code(), sentence: on_the_slave(error) };
        let _ = sender.send(&Message::Refuse(refusal));
    }
}

fn on_the_slave(error: &SyncError) -> String {
    match error {
        SyncError::Disk(disk) if disk.is_full() => {
            format!("the slave's disk is full ({error}): free space there and run again; nothing acknowledged is lost")
        }
        SyncError::Locked(_) | SyncError::Guard(_) | SyncError::Refused(_) => error.to_string(),
        _ => format!("on the slave: {error}"),
    }
}

/// The slave of one set, open and locked.
struct Slave {
    hello: Hello,
    mirror: Arc<Root>,
    /// In a dry run: the mirror is not there yet, and its place is taken by the directory above.
    is_absent: bool,
    staging: Option<Arc<Staging>>,
    state: Option<Root>,
    catalogue: Catalogue,
    rules: Rules,
    warnings: Vec<String>,
    _lock: Option<OwnedFd>,
}

/// What the stager hands to the committer, in order.
enum Work {
    /// A block whose contents are staged; to be logged.
    Block(Vec<u8>, u64),
    Batch(Position, Vec<Change>),
    Compare,
    Fetch(Vec<TreePath>),
    Finish,
    Failed(SyncError),
}

impl Slave {
    /// Opens mirror and state, takes the lock, and brings forward what a crash interrupted.
    fn open(hello: Hello) -> Result<Self> {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&hello.destination));
        check_apart(&hello, &path)?;
        let mirror = open_mirror(&path, hello.dry_run)?;
        let rules = Rules {
            kind: hello.kind,
            filter: Filter::new(hello.kind, &hello.filters)?,
            chown: None,
            owners: rustix::process::geteuid().is_root(),
            trust_names: true,
            restat: false,
            checksum: hello.checksum,
        };
        let Some(mirror) = mirror else {
            // A dry run towards a directory that is not there yet: everything would be new.
            let above = Arc::new(existing_above(&path)?);
            let catalogue = Catalogue::open_dry(None)?;
            return Ok(Self {
                hello,
                mirror: above,
                is_absent: true,
                staging: None,
                state: None,
                catalogue,
                rules,
                warnings: vec![],
                _lock: None,
            });
        };
        let mirror = Arc::new(mirror);
        match hello.dry_run {
            true => Self::open_dry(hello, mirror, rules),
            false => Self::open_locked(hello, mirror, rules),
        }
    }

    fn open_dry(hello: Hello, mirror: Arc<Root>, rules: Rules) -> Result<Self> {
        let state = match &hello.state {
            Some(state) => Root::open(Path::new(std::ffi::OsStr::from_bytes(state))),
            None => mirror.open_own(".mailtwin"),
        };
        let state = match state {
            Ok(state) => Some(state),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let catalogue = Catalogue::open_dry(state.as_ref())?;
        Ok(Self {
            hello,
            mirror,
            is_absent: false,
            staging: None,
            state,
            catalogue,
            rules,
            warnings: vec![],
            _lock: None,
        })
    }

    fn open_locked(hello: Hello, mirror: Arc<Root>, rules: Rules) -> Result<Self> {
        let lock = mirror.lock_directory()?.ok_or_else(|| {
            SyncError::Locked(format!(
                "another run is writing to {}: wait until it has ended",
                mirror.show(&TreePath::root())
            ))
        })?;
        let state = match &hello.state {
            Some(state) => open_or_make(Path::new(std::ffi::OsStr::from_bytes(state)))?,
            None => mirror.make_own(".mailtwin")?,
        };
        // A rename puts contents in place, so they wait on the mirror's own file system.
        let device = |root: &Root| root.stat(&TreePath::root()).map(|stat| stat.device);
        let staging = match device(&state)? == device(&mirror)? {
            true => Staging::open(&state)?,
            false => Staging::open(&mirror.make_own(".mailtwin")?)?,
        };
        let staging = Arc::new(staging);
        let mut warnings = Vec::new();
        let (catalogue, anew) = Catalogue::open(&state)?;
        if anew {
            warnings.push("the slave's catalogue was damaged and is made anew from the mirror".to_owned());
        }
        let mut slave = Self {
            hello,
            mirror,
            is_absent: false,
            staging: Some(staging),
            state: Some(state),
            catalogue,
            rules,
            warnings,
            _lock: Some(lock),
        };
        let is_damaged = slave.catalogue.contain(|| slave.recover())?;
        if is_damaged {
            let sentence = "the slave's log was damaged in its middle: what it held is compared with the master anew";
            slave.warnings.push(sentence.to_owned());
        }
        Ok(slave)
    }

    /// Does again what the log holds beyond the catalogue, and begins a new log.
    ///
    /// `true` where the log is damaged: mirror and catalogue then tell what is there, and the master the rest.
    fn recover(&self) -> Result<bool> {
        let (Some(state), Some(staging)) = (&self.state, &self.staging) else { return Ok(false) };
        let mut is_damaged = false;
        let replay = Replay::open(state).map_err(|error| SyncError::Failed(error.to_string()))?;
        if let Some(mut replay) = replay {
            let transaction = self.catalogue.begin()?;
            let mut edit = Edit::new(&transaction)?;
            self.replay(&mut replay, staging, &mut edit)?;
            is_damaged = replay.is_damaged;
            self.mirror.sync_file_system()?;
            if edit.finish()? {
                transaction.commit()?;
            }
        }
        if Segment::is_there(state)? {
            self.sync_names()?;
            Segment::remove(state)?;
        }
        staging.clear()?;
        Ok(is_damaged)
    }

    fn replay(&self, replay: &mut Replay, staging: &Arc<Staging>, edit: &mut Edit<'_>) -> Result<()> {
        let mut hand = Hand::new(self.mirror.clone(), staging.clone(), self.hello.kind);
        hand.does_again = true;
        if edit.head.set.is_none() && replay.header.set != SetId::default() {
            (edit.head.set, edit.head.epoch) = (Some(replay.header.set), replay.header.epoch);
        }
        loop {
            let batch = replay.next_batch().map_err(|error| SyncError::Failed(error.to_string()))?;
            let Some(batch) = batch else { break };
            let logged = Logged(batch.blocks.iter().filter_map(|block| Block::decode(block).ok()).collect());
            if batch.position <= edit.head.position {
                continue;
            }
            apply_to_catalogue(edit, &batch.changes)?;
            hand.batch(&batch.changes, &logged, edit)?;
            edit.head.position = batch.position;
        }
        hand.put_lock_away()?;
        forget_looks(edit, &hand)
    }

    /// Makes the names durable that lead to what will be acknowledged: a run that was killed may have made them.
    fn sync_names(&self) -> Result<()> {
        let (Some(state), Some(staging)) = (&self.state, &self.staging) else { return Ok(()) };
        staging.root().sync_directory(&TreePath::root())?;
        for root in [state, &*self.mirror] {
            root.sync_directory(&TreePath::root())?;
            root.sync_above()?;
        }
        Ok(())
    }

    // ---- the session ----

    fn session(self, connection: &mut Connection) -> Result<()> {
        let (transaction, learned) = self.catalogue.contain(|| self.welcome_the_master(connection))?;
        self.converse(connection, transaction, learned)
    }

    /// Looks at the mirror and says where it stands. `true` where the look brought anything.
    fn welcome_the_master(&self, connection: &Connection) -> Result<(Transaction, bool)> {
        let transaction = self.catalogue.begin()?;
        let (welcome, learned) = {
            let mut edit = Edit::new(&transaction)?;
            self.check_identity(&edit)?;
            self.be_somebody(&mut edit)?;
            let read = self.look_at_mirror(&mut edit)?;
            let welcome = self.welcome(&edit, read);
            (welcome, edit.finish()?)
        };
        connection.sender.send(&Message::Welcome(welcome))?;
        Ok((transaction, learned))
    }

    fn converse(self, connection: &mut Connection, transaction: Transaction, learned: bool) -> Result<()> {
        let (to_stager, staged) = sync_channel(QUEUE);
        let (to_committer, work) = sync_channel(QUEUE);
        let staging = self.staging.clone();
        let sender = connection.sender.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || stage(&staged, &to_committer, staging.as_deref()));
            let slave = &self;
            let committer = scope.spawn(move || {
                let commit = || slave.commit_all(transaction, learned, &work, &sender);
                // The master waits for an answer, whatever happens here.
                let ended = catch_unwind(AssertUnwindSafe(|| slave.catalogue.contain(commit)))
                    .unwrap_or_else(|_| Err(SyncError::Failed("mailtwin met a mistake of its own".to_owned())));
                if let Err(error) = &ended {
                    refuse(&sender, error);
                }
                ended
            });
            let received = receive(connection, &to_stager);
            drop(to_stager);
            match committer.join() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => received,
                Err(_) => Err(SyncError::Failed("a thread of the slave ended early".into())),
            }
        })
    }

    /// A set that neither end has a name for gets one here, before anything is written down.
    fn be_somebody(&self, edit: &mut Edit<'_>) -> Result<()> {
        if edit.head.set.is_none() && self.hello.set.is_none() && !self.hello.dry_run {
            let (set, epoch) = new_identity()?;
            (edit.head.set, edit.head.epoch) = (Some(set), epoch);
        }
        Ok(())
    }

    fn check_identity(&self, edit: &Edit<'_>) -> Result<()> {
        let (head, hello) = (&edit.head, &self.hello);
        let show = self.mirror.show(&TreePath::root());
        if let (Some(mine), Some(theirs)) = (head.set, hello.set)
            && mine != theirs
        {
            return Err(SyncError::Failed(format!(
                "{show} is the standby of another set; choose another directory, or remove {show}/.mailtwin to make it this one's"
            )));
        }
        let known = hello.epoch != Epoch::default() && head.epoch != Epoch::default();
        if known && hello.epoch != head.epoch && head.epoch.counter >= hello.epoch.counter {
            return Err(SyncError::Refused(Refusal {
                code: 20,
                sentence: format!(
                    "{show} follows epoch {} and takes no batches of epoch {}: this master is stale",
                    head.epoch.counter, hello.epoch.counter
                ),
            }));
        }
        Ok(())
    }

    /// Holds the mirror against its catalogue: what was changed by hand, or by a mail server, shows here.
    fn look_at_mirror(&self, edit: &mut Edit<'_>) -> Result<u64> {
        if self.is_absent {
            return Ok(0);
        }
        let problems = Quiet::default();
        let counters = scan_mirror(&self.mirror, &self.rules, edit, &problems)?;
        if let Some(problem) = problems.take_problems().into_iter().next() {
            return Err(SyncError::Failed(format!("{}: {}", problem.subject, problem.reason)));
        }
        Ok(counters.directories_read)
    }

    fn welcome(&self, edit: &Edit<'_>, directories_read: u64) -> Welcome {
        Welcome {
            program: program(),
            set: edit.head.set,
            epoch: edit.head.epoch,
            position: edit.head.position,
            root: edit.root_digest(),
            messages: edit.head.messages,
            directories_read,
            warnings: self.warnings.clone(),
        }
    }

    /// The committer: one catalogue transaction after the other until the work ends.
    /// `learned` says that the first of them holds what the look at the mirror brought.
    fn commit_all(
        &self,
        mut transaction: Transaction,
        mut learned: bool,
        work: &Queue<Work>,
        sender: &Sender,
    ) -> Result<()> {
        loop {
            let (ended, has_segment, changed) = {
                let mut term = Term::new(self, &transaction, sender)?;
                let ended = term.run(work)?;
                // The mirror first: the catalogue never claims what a power cut could still take.
                if term.segment.is_some() {
                    self.mirror.sync_file_system()?;
                }
                (ended, term.segment.is_some(), term.edit.finish()? || std::mem::take(&mut learned))
            };
            match changed && !self.hello.dry_run {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
            if has_segment && let Some(state) = &self.state {
                Segment::remove(state)?;
            }
            match ended {
                Ended::Checkpoint => {}
                Ended::Closed => return Ok(()),
                Ended::Finished(done) => sender.send(&Message::Done(done))?,
            }
            transaction = self.catalogue.begin()?;
        }
    }
}

/// On one host a mirror inside its source would mirror itself, and one around it would remove it.
fn check_apart(hello: &Hello, path: &Path) -> Result<()> {
    let Some(source) = hello.ancestry.first().filter(|_| hello.boot == super::boot_id()) else {
        return Ok(());
    };
    let is_inside = existing_above(path)?.ancestry()?.contains(source);
    let is_around = match Root::open(path) {
        Ok(mirror) => mirror.ancestry()?.first().is_some_and(|mirror| hello.ancestry.contains(mirror)),
        Err(_) => false,
    };
    let relation = match (is_inside, is_around) {
        (true, _) => "lies inside the source",
        (_, true) => "has the source inside it",
        _ => return Ok(()),
    };
    let shown = crate::path::escape(path.as_os_str().as_bytes());
    Err(SyncError::Failed(format!("the destination {shown} {relation}: a mirror needs a directory of its own")))
}

/// The directory itself, or the nearest one above it that is there.
fn existing_above(path: &Path) -> Result<Root> {
    let mut at = path;
    loop {
        match (Root::open(at), at.parent()) {
            (Err(error), Some(above)) if error.is_not_found() => {
                at = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            }
            (opened, _) => return Ok(opened?),
        }
    }
}

fn scan_mirror(mirror: &Arc<Root>, rules: &Rules, edit: &mut Edit<'_>, problems: &Quiet) -> Result<Counters> {
    let options = Options {
        root: mirror.clone(),
        rules,
        limit: Limit::Percent(100),
        ships: false,
        plans_only: false,
        settles: false,
        level: 0,
        itemize: false,
        first_number: 1,
        standby: "",
    };
    let mut sink = NoSink;
    let mut cycle = Cycle::new(&options, edit, None, &mut sink, problems);
    cycle.run()?;
    Ok(cycle.counters.clone())
}

/// The mirror's directory; made where only its last name is missing, as rsync does.
fn open_mirror(path: &Path, dry_run: bool) -> Result<Option<Root>> {
    match Root::open(path) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.is_not_found() && dry_run => Ok(None),
        Err(error) if error.is_not_found() => Ok(Some(open_or_make(path)?)),
        Err(error) => Err(error.into()),
    }
}

fn open_or_make(path: &Path) -> Result<Root> {
    if let Ok(root) = Root::open(path) {
        return Ok(root);
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else { return Ok(Root::open(path)?) };
    let made = Root::open(parent).and_then(|parent| parent.make_own(name));
    let made = made.and_then(|_| Root::open(path));
    made.map_err(|error| {
        SyncError::Failed(format!(
            "cannot make the directory {}: {error}",
            crate::path::escape(path.as_os_str().as_bytes())
        ))
    })
}

/// Contents from the blocks that the log holds, or from what an earlier process staged.
struct Logged(Vec<Block>);

impl Logged {
    fn holds(&self, number: u64) -> bool {
        self.0.iter().any(|block| block.pieces.iter().any(|piece| piece.number == number))
    }
}

impl Contents for Logged {
    fn stage(&self, staging: &Staging, number: u64, digest: &Digest) -> Result<bool> {
        if staging.digest(number).is_some() || staging.recover(number, digest) {
            return Ok(true);
        }
        if !self.holds(number) {
            // A staged delta does not have the result's digest: patching decides.
            return Ok(staging.root().stat_if_there(&Staging::path(number))?.is_some());
        }
        staging.discard(number)?;
        for block in &self.0 {
            let mut part = Block { pieces: Vec::new(), data: Vec::new() };
            for (piece, bytes) in block.contents().filter(|(piece, _)| piece.number == number) {
                part.pieces.push(piece.clone());
                part.data.extend_from_slice(bytes);
            }
            staging.take(&part)?;
        }
        Ok(staging.digest(number).is_some())
    }
}

/// A directory of which the hand could not do everything is read again, to the last file.
fn forget_looks(edit: &mut Edit<'_>, hand: &Hand) -> Result<()> {
    for path in &hand.drifted {
        edit.looked(path, None)?;
    }
    Ok(edit.flush()?)
}

fn apply_to_catalogue(edit: &mut Edit<'_>, changes: &[Change]) -> Result<()> {
    for change in changes {
        edit.apply(change)?;
    }
    Ok(edit.flush()?)
}

// ---- the first thread: off the wire ----

fn receive(connection: &mut Connection, stager: &SyncSender<Received>) -> Result<()> {
    let mut changes: Vec<Change> = Vec::new();
    loop {
        let received = match connection.receiver.recv() {
            Ok(Message::Block(payload)) => Received::Block(payload),
            Ok(Message::Changes(mut more)) => {
                changes.append(&mut more);
                match changes.len() > MAX_CHANGES {
                    true => return Err(SyncError::Protocol("a batch has too many changes")),
                    false => continue,
                }
            }
            Ok(Message::Commit(position, count)) => {
                let changes = std::mem::take(&mut changes);
                match changes.len() as u64 == count {
                    true => Received::Work(Work::Batch(position, changes)),
                    false => Received::Work(Work::Failed(SyncError::Protocol("a batch is not whole"))),
                }
            }
            Ok(Message::Compare) => Received::Work(Work::Compare),
            Ok(Message::Fetch(paths)) => Received::Work(Work::Fetch(paths)),
            Ok(Message::Finish) => Received::Work(Work::Finish),
            Ok(_) => Received::Work(Work::Failed(SyncError::Protocol("a message that a master does not send"))),
            // The master has what it wanted, or is gone; either way this session is over.
            Err(crate::transport::LinkError::Transport(_)) => return Ok(()),
            Err(error) => Received::Work(Work::Failed(error.into())),
        };
        if stager.send(received).is_err() {
            // The committer has ended, and says why.
            return Ok(());
        }
    }
}

enum Received {
    Block(Vec<u8>),
    Work(Work),
}

// ---- the second thread: staging ----

fn stage(received: &Queue<Received>, committer: &SyncSender<Work>, staging: Option<&Staging>) {
    while let Ok(received) = received.recv() {
        let work = match received {
            Received::Work(work) => work,
            Received::Block(payload) => match stage_block(&payload, staging) {
                Ok(raw) => Work::Block(payload, raw),
                Err(error) => Work::Failed(error),
            },
        };
        if committer.send(work).is_err() {
            return;
        }
    }
}

fn stage_block(payload: &[u8], staging: Option<&Staging>) -> Result<u64> {
    let Some(staging) = staging else {
        return Err(SyncError::Protocol("contents in a dry run"));
    };
    let block = Block::decode(payload).map_err(|error| SyncError::Failed(error.to_string()))?;
    staging.take(&block)?;
    Ok(block.data.len() as u64)
}

// ---- the third thread: committing ----

/// Why a term ended.
enum Ended {
    Checkpoint,
    Finished(Done),
    Closed,
}

/// Contents that are staged, and of which the batch has not come yet.
#[derive(Default)]
struct Arriving {
    /// The blocks, while they are few enough for the log.
    blocks: Vec<Frame>,
    bytes: u64,
}

/// A batch with the contents that came before it.
struct Incoming {
    position: Position,
    changes: Vec<Change>,
    contents: Arriving,
}

/// One transaction of the catalogue.
struct Term<'s, 't> {
    slave: &'s Slave,
    edit: Edit<'t>,
    sender: &'s Sender,
    hand: Option<Hand>,
    segment: Option<Segment>,
    /// Contents of the batch that comes next.
    arriving: Arriving,
    bytes: u64,
    changes: u64,
    position: Position,
}

impl<'s, 't> Term<'s, 't> {
    fn new(slave: &'s Slave, transaction: &'t Transaction, sender: &'s Sender) -> Result<Self> {
        let edit = Edit::new(transaction)?;
        let position = edit.head.position;
        let hand =
            slave.staging.as_ref().map(|staging| Hand::new(slave.mirror.clone(), staging.clone(), slave.hello.kind));
        Ok(Self {
            slave,
            edit,
            sender,
            hand,
            segment: None,
            arriving: Arriving::default(),
            bytes: 0,
            changes: 0,
            position,
        })
    }

    fn run(&mut self, work: &Queue<Work>) -> Result<Ended> {
        loop {
            let Ok(first) = work.recv() else { return Ok(Ended::Closed) };
            let (mut batches, mut changes, mut bytes) = (Vec::new(), 0, 0);
            let mut next = Some(first);
            let mut after = None;
            while let Some(item) = next.take() {
                match item {
                    Work::Block(payload, raw) => self.take_block(payload, raw),
                    Work::Batch(position, batch) => {
                        let contents = std::mem::take(&mut self.arriving);
                        changes += batch.len();
                        bytes += contents.bytes;
                        batches.push(Incoming { position, changes: batch, contents });
                    }
                    other => after = Some(other),
                }
                let is_full = changes >= GROUP_CHANGES || bytes + self.arriving.bytes >= GROUP_BYTES;
                if after.is_none() && (batches.is_empty() || !is_full) {
                    // Contents in files cost a sync of the whole file system: many batches share it. What fits
                    // into the log is done at once, and what has come meanwhile is done together then.
                    next = match bytes + self.arriving.bytes > LOGGED_CONTENTS {
                        true => work.recv_timeout(GROUP_WAIT).ok(),
                        false => work.try_recv().ok(),
                    };
                }
            }
            self.commit(batches)?;
            match after {
                None => {}
                Some(Work::Compare) => self.compare()?,
                Some(Work::Fetch(paths)) => self.fetch(paths)?,
                Some(Work::Finish) => return self.finish().map(Ended::Finished),
                Some(Work::Failed(error)) => return Err(error),
                Some(Work::Block(..) | Work::Batch(..)) => {}
            }
            if (self.bytes > CHECKPOINT_BYTES || self.changes > CHECKPOINT_CHANGES)
                && self.hand.as_ref().is_some_and(|hand| hand.drifted.is_empty() && hand.problems.is_empty())
            {
                return Ok(Ended::Checkpoint);
            }
        }
    }

    fn take_block(&mut self, payload: Vec<u8>, raw: u64) {
        let arriving = &mut self.arriving;
        arriving.bytes += raw;
        self.bytes += raw;
        match arriving.bytes > LOGGED_CONTENTS {
            true => arriving.blocks.clear(),
            false => arriving.blocks.push(Frame::plain(BLOCK, payload)),
        }
    }

    /// Makes batches durable, acknowledges them, and applies them. In this order (I1).
    fn commit(&mut self, batches: Vec<Incoming>) -> Result<()> {
        let Some(last) = batches.last().map(|batch| batch.position) else { return Ok(()) };
        let Some(state) = &self.slave.state else {
            return Err(SyncError::Protocol("a batch in a dry run"));
        };
        self.take_identity();
        if self.segment.is_none() {
            self.slave.sync_names()?;
            let set = self.edit.head.set.unwrap_or_default();
            self.segment = Some(Segment::create(state, set, self.edit.head.epoch, self.position)?);
        }
        // What is not in the log lies in files. They are durable before the log speaks of them: where this sync
        // fails the log knows nothing, and the contents are sent again.
        let is_logged = batches.iter().map(|batch| batch.contents.bytes).sum::<u64>() <= LOGGED_CONTENTS;
        if !is_logged {
            self.slave.mirror.sync_file_system()?;
        }
        if let Some(segment) = &mut self.segment {
            for batch in &batches {
                if batch.position <= self.position {
                    return Err(SyncError::Protocol("a batch comes again"));
                }
                self.position = batch.position;
                // The contents of a batch stand before it, and it is read back with these alone.
                for block in batch.contents.blocks.iter().filter(|_| is_logged) {
                    segment.append(block)?;
                }
                for part in batch.changes.chunks(1000) {
                    segment.append(&Message::Changes(part.to_vec()).frame()?)?;
                }
                segment.append(&Message::Commit(batch.position, batch.changes.len() as u64).frame()?)?;
            }
            // What does not fit is refused before it counts.
            for batch in &batches {
                apply_to_catalogue(&mut self.edit, &batch.changes)?;
            }
            segment.sync()?;
        }
        self.sender.send(&Message::Ack(last))?;
        self.apply(batches)
    }

    fn apply(&mut self, batches: Vec<Incoming>) -> Result<()> {
        let Some(hand) = &mut self.hand else { return Ok(()) };
        for Incoming { position, changes, .. } in batches {
            hand.batch(&changes, &Arrived, &mut self.edit)?;
            self.edit.head.position = position;
            self.changes += changes.len() as u64;
        }
        Ok(())
    }

    fn take_identity(&mut self) {
        let (head, hello) = (&mut self.edit.head, &self.slave.hello);
        if head.set.is_none() {
            head.set = hello.set;
        }
        if hello.epoch != Epoch::default() {
            head.epoch = hello.epoch;
        }
    }

    /// Everything sent has been applied: say where the slave stands. What the mirror did not have as it
    /// should is looked at again first, so that the digest tells the truth.
    fn finish(&mut self) -> Result<Done> {
        self.take_identity();
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        if let Some(hand) = &mut self.hand {
            hand.put_lock_away()?;
            problems = std::mem::take(&mut hand.problems);
            if std::mem::take(&mut hand.owners_left) {
                warnings.push("not root on the slave: files there keep the owner that runs mailtwin".to_owned());
            }
            if !hand.drifted.is_empty() {
                forget_looks(&mut self.edit, hand)?;
                hand.forget_drift();
                let heard = Quiet::default();
                scan_mirror(&self.slave.mirror, &self.slave.rules, &mut self.edit, &heard)?;
                problems.extend(heard.take_problems());
            }
        }
        self.edit.flush()?;
        Ok(Done { position: self.edit.head.position, root: self.edit.root_digest(), problems, warnings })
    }

    // ---- comparing ----

    fn compare(&mut self) -> Result<()> {
        self.edit.flush()?;
        self.edit.check_sum()?;
        let mut from = Vec::new();
        loop {
            let rows = self.edit.rows_from(&from, MAX_LIST)?;
            let last = rows.len() < MAX_LIST;
            if let Some((key, _)) = rows.last() {
                from.clone_from(key);
                from.push(0);
            }
            let mut digests = Vec::with_capacity(rows.len());
            for (key, row) in rows {
                digests.push((directory::path_of(&key)?, row.digest));
            }
            self.sender.send(&Message::Digests(digests, last))?;
            if last {
                return Ok(());
            }
        }
    }

    fn fetch(&mut self, paths: Vec<TreePath>) -> Result<()> {
        for path in paths {
            let Some(found) = self.edit.directory(&path)? else {
                return Err(SyncError::Protocol("it asks for a directory that is not there"));
            };
            let (meta, digest) = (found.meta.clone(), found.digest());
            let mut entries: Vec<Entry> = found.entries.values().map(|known| known.entry.clone()).collect();
            if self.edit.row(&path)?.is_some_and(|row| row.digest != digest) {
                return Err(CatalogueError::Damaged("a directory's record does not match its digest").into());
            }
            loop {
                let rest = entries.split_off(entries.len().min(ROW_ENTRIES));
                let more = !rest.is_empty();
                let row = Row { path: path.clone(), meta: meta.clone(), entries, more };
                self.sender.send(&Message::Row(row))?;
                if !more {
                    break;
                }
                entries = rest;
            }
            if self.edit.open_directories() > 256 {
                self.edit.flush()?;
            }
        }
        Ok(())
    }
}

/// A new set's identity.
///
/// # Errors
/// Where the kernel has no randomness to give.
pub fn new_identity() -> Result<(SetId, Epoch)> {
    let fresh =
        || RandomId::fresh().map_err(|error| SyncError::Failed(format!("no random number for a new set: {error}")));
    Ok((fresh()?, Epoch { counter: 1, id: fresh()? }))
}
