//! The slave's end of a session.
//!
//! Three threads, one behind the other: this one takes messages off the wire; the stager unpacks blocks and
//! writes contents beside the mirror; the committer makes batches durable, acknowledges, and lets the hand
//! apply them. They hand work on in order, so when a batch reaches the committer its contents are there.
//!
//! Where the greeting says that this is a restore, `restore` is the third thread: it keeps no log.

pub mod admission;
mod commit;
mod found;
pub mod frozen;
mod open;
mod records;
mod restore;

use super::SyncError;
use super::sender::kind_line;
use super::staging::Staging;
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::Rules;
use crate::catalogue::store::{Catalogue, Transaction};
use crate::disk::Root;
use crate::id::{Epoch, Position, RandomId, SetId};
use crate::log::history::History;
use crate::log::segment::Segment;
use crate::maildir::change::Change;
use crate::monitor::Quiet;
use crate::path::TreePath;
use crate::transport::{Connection, Sender};
use crate::wire::block::Block;
use crate::wire::message::{Hello, Message, Refusal, Welcome};
use admission::Admission;
pub(in crate::sync) use open::lock;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Queue, SyncSender, sync_channel};

/// Changes that one batch may hold: the messages of a folder, many times over.
const MAX_CHANGES: usize = 8 << 20;

/// Blocks and batches that may wait between two threads.
const QUEUE: usize = 4;

type Result<T> = std::result::Result<T, SyncError>;

/// The program's name and version, as greetings carry it.
pub fn program() -> String {
    format!("mailtwin {}", env!("CARGO_PKG_VERSION"))
}

/// Serves one session, to its end. An error that the master should know of has been sent to it.
///
/// Whatever directory the greeting names becomes the mirror: for ends whose limit is a user's account.
///
/// # Errors
/// Why the session ended early.
pub fn serve(connection: Connection) -> Result<()> {
    serve_where(connection, Ok)
}

/// As [`serve`], for a host that was paired: it may do what its role for a set allows, and names no paths.
///
/// # Errors
/// As [`serve`].
pub fn serve_peer(connection: Connection, admission: &Admission) -> Result<()> {
    serve_where(connection, |hello| admission.admit(hello))
}

/// As [`serve`], where whoever serves first says what is meant by what the master wrote.
///
/// # Errors
/// As [`serve`], and what `admit` gives.
pub fn serve_where(mut connection: Connection, admit: impl FnOnce(Hello) -> Result<Hello>) -> Result<()> {
    let sender = connection.sender.clone();
    let greeted = match connection.receiver.recv() {
        Ok(Message::Hello(hello)) => admit(hello),
        Ok(_) => Err(SyncError::Protocol("it did not greet")),
        Err(error) => Err(error.into()),
    };
    let served = match greeted {
        Ok(hello) if hello.restore.is_some() => return restore::serve(hello, &mut connection),
        Ok(hello) => Slave::open(hello).and_then(|slave| slave.session(&mut connection)),
        Err(error) => Err(error),
    };
    if let Err(error) = &served {
        refuse(&sender, error, on_the_slave);
    }
    served
}

/// How an error is told to the other end.
type Words = fn(&SyncError) -> String;

fn refuse(sender: &Sender, error: &SyncError, words: Words) {
    // Where the connection itself is gone nobody listens.
    if !matches!(error, SyncError::Link(_)) {
        let refusal = Refusal { code: error.exit_code(), sentence: words(error) };
        let _ = sender.send(&Message::Refuse(refusal));
    }
}

fn on_the_slave(error: &SyncError) -> String {
    match error {
        SyncError::Disk(disk) if disk.is_full() => {
            let expire = "mailtwin expire, where there are restore points, can run on the full disk";
            format!(
                "the slave's disk is full ({error}): free space there and run again; {expire}; nothing acknowledged is lost"
            )
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
    /// Closed segments, where history is on.
    history: Option<History>,
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
    Release,
    Failed(SyncError),
}

impl Slave {
    fn session(self, connection: &mut Connection) -> Result<()> {
        let (transaction, looked) = self.catalogue.contain(|| self.welcome_the_master(connection))?;
        self.converse(connection, transaction, looked)
    }

    /// Looks at the mirror and says where it stands.
    fn welcome_the_master(&self, connection: &Connection) -> Result<(Transaction, Looked)> {
        let transaction = self.catalogue.begin()?;
        let (welcome, looked) = {
            let mut edit = Edit::new(&transaction)?;
            self.check_identity(&edit)?;
            self.be_somebody(&mut edit)?;
            self.note_rules(&mut edit);
            let (read, segment) = self.look_at_mirror(&mut edit)?;
            let welcome = self.welcome(&edit, read);
            (welcome, Looked { learned: edit.finish()?, segment })
        };
        connection.sender.send(&Message::Welcome(welcome))?;
        Ok((transaction, looked))
    }

    fn converse(self, connection: &mut Connection, transaction: Transaction, looked: Looked) -> Result<()> {
        let staging = Stager { staging: self.staging.clone(), packs: self.history.is_some(), is_restore: false };
        let sender = connection.sender.clone();
        converse(connection, staging, on_the_slave, |work| {
            self.catalogue.contain(|| self.commit_all(transaction, looked, work, &sender))
        })
    }

    /// What belongs to the set is written down: a point is made without a master to ask.
    fn note_rules(&self, edit: &mut Edit<'_>) {
        let mut lines = self.hello.filters.clone();
        lines.push(kind_line(self.hello.kind).to_owned());
        edit.head.filters = lines;
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
    /// Gives the directories read, and the log where something is in it.
    fn look_at_mirror(&self, edit: &mut Edit<'_>) -> Result<(u64, Option<Segment>)> {
        if self.is_absent {
            return Ok((0, None));
        }
        let problems = Quiet::default();
        let mut segment = None;
        let counters = self.scan_mirror(edit, &problems, &mut segment)?;
        if let Some(problem) = problems.take_problems().into_iter().next() {
            return Err(SyncError::Failed(format!("{}: {}", problem.subject, problem.reason)));
        }
        Ok((counters.directories_read, segment))
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
}

/// Receives, stages and commits, each in a thread of its own, until the session is over.
fn converse<T: Send>(
    connection: &mut Connection,
    stager: Stager,
    words: Words,
    commit: impl FnOnce(&Queue<Work>) -> Result<T> + Send,
) -> Result<T> {
    let (to_stager, staged) = sync_channel(QUEUE);
    let (to_committer, work) = sync_channel(QUEUE);
    let sender = connection.sender.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || stager.stage_all(&staged, &to_committer));
        let committer = scope.spawn(move || {
            // The master waits for an answer, whatever happens here.
            let ended = catch_unwind(AssertUnwindSafe(|| commit(&work)))
                .unwrap_or_else(|_| Err(SyncError::Failed("mailtwin met a mistake of its own".to_owned())));
            if let Err(error) = &ended {
                refuse(&sender, error, words);
            }
            ended
        });
        let received = receive(connection, &to_stager);
        drop(to_stager);
        match committer.join() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(committed)) => received.map(|()| committed),
            Err(_) => Err(SyncError::Failed("a thread of the slave ended early".into())),
        }
    })
}

/// What the look at the mirror brought.
struct Looked {
    /// The catalogue has something new.
    learned: bool,
    /// It is in the log.
    segment: Option<Segment>,
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
            Ok(Message::Release) => {
                // Nothing follows.
                let _ = stager.send(Received::Work(Work::Release));
                return Ok(());
            }
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

/// What the second thread works with.
struct Stager {
    staging: Option<Arc<Staging>>,
    /// The blocks are kept, so what came raw is compressed.
    packs: bool,
    /// All contents of a batch come right before it: what is not whole then never will be.
    is_restore: bool,
}

impl Stager {
    fn stage_all(&self, received: &Queue<Received>, committer: &SyncSender<Work>) {
        let staging = self.staging.as_deref();
        while let Ok(received) = received.recv() {
            let work = match received {
                Received::Block(payload) => match stage_block(payload, staging, self.packs) {
                    Ok((payload, raw)) => Work::Block(payload, raw),
                    Err(error) => Work::Failed(error),
                },
                Received::Work(work @ Work::Batch(..)) if self.is_restore => match discard_beginnings(staging) {
                    Ok(()) => work,
                    Err(error) => Work::Failed(error),
                },
                Received::Work(work) => work,
            };
            if committer.send(work).is_err() {
                return;
            }
        }
    }
}

fn discard_beginnings(staging: Option<&Staging>) -> Result<()> {
    staging.map_or(Ok(()), Staging::discard_beginnings)
}

/// Stages the contents of a block. Gives it as the log is to have it, and its raw length.
fn stage_block(payload: Vec<u8>, staging: Option<&Staging>, packs: bool) -> Result<(Vec<u8>, u64)> {
    let Some(staging) = staging else {
        return Err(SyncError::Protocol("contents in a dry run"));
    };
    let block = Block::decode(&payload).map_err(|error| SyncError::Failed(error.to_string()))?;
    staging.take(&block)?;
    let raw = block.data.len() as u64;
    if packs && Block::is_raw(&payload) {
        let failed = |error: std::io::Error| SyncError::Failed(format!("a block cannot be packed: {error}"));
        return Ok((block.encode(found::LEVEL).map_err(failed)?, raw));
    }
    Ok((payload, raw))
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
