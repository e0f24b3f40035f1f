//! The far end of a restore: the same session and the same hand, without a log.
//!
//! What comes goes into a [`Target`], whose state is a catalogue of what is there durably, so that a restore that was cut
//! goes on from it. Nothing is promised meanwhile: where the session ends early, the near end is told so, or is gone, and
//! the command is given again. When the near end has heard that everything is there it releases the directory, and the
//! state goes.

use super::{Result, Stager, Work, converse, program, records, refuse};
use crate::catalogue::edit::Edit;
use crate::catalogue::store::{Catalogue, Transaction};
use crate::id::{Digest, Position};
use crate::maildir::change::{Change, Source};
use crate::maildir::folder::SetKind;
use crate::monitor::Problem;
use crate::sync::SyncError;
use crate::sync::apply::{Arrived, Hand};
use crate::sync::staging::Staging;
use crate::sync::target::{NOT_ROOT, Target};
use crate::transport::{Connection, Sender};
use crate::wire::message::{Done, Hello, Message, Welcome};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver as Queue;

/// Bytes of contents, or changes, after which what was written is made durable.
const CHECKPOINT_BYTES: u64 = 256 << 20;
const CHECKPOINT_CHANGES: usize = 200_000;

/// Serves one restore, to its end. An error that the near end should know of has been sent to it.
pub(super) fn serve(hello: Hello, connection: &mut Connection) -> Result<()> {
    let sender = connection.sender.clone();
    let opened = Restore::open(&hello).and_then(|(restore, warnings)| {
        restore.welcome(&sender, warnings)?;
        Ok(restore)
    });
    let restore = match opened {
        Ok(restore) => restore,
        Err(error) => {
            refuse(&sender, &error, words);
            return Err(error);
        }
    };
    let stager = Stager { staging: Some(restore.staging.clone()), packs: false, is_restore: true };
    let committed =
        converse(connection, stager, words, |work| restore.catalogue.contain(|| restore.commit_all(work, &sender)))?;
    match committed {
        None => Ok(()),
        Some(position) => restore.release(&hello, position, &sender).inspect_err(|error| refuse(&sender, error, words)),
    }
}

/// An error in words for the near end, which says before them whose they are.
fn words(error: &SyncError) -> String {
    match error {
        SyncError::Disk(disk) if disk.is_full() => {
            format!("the disk is full ({error}): free space there and give the same command again")
        }
        _ => error.to_string(),
    }
}

/// A restore that is under way.
struct Restore {
    target: Target,
    staging: Arc<Staging>,
    catalogue: Catalogue,
}

/// Why a transaction of the catalogue ended.
enum Ended {
    Checkpoint,
    Finished(Done),
    /// The near end has gone.
    Closed,
}

impl Restore {
    /// Opens the directory, and what an earlier run has left there. Gives what a person should know.
    fn open(hello: &Hello) -> Result<(Self, Vec<String>)> {
        let what = hello.restore.as_ref().map_or("", |restore| restore.what.as_str());
        let standby = hello.ancestry.first().filter(|_| hello.boot == crate::sync::boot_id());
        let target = Target::open(Path::new(OsStr::from_bytes(&hello.destination)), what, standby.copied())?;
        let (catalogue, anew) = Catalogue::open(target.state())?;
        let staging = Arc::new(Staging::open(target.state())?);
        staging.clear()?;
        let damaged = "what an earlier run noted of its work was damaged: everything is sent again";
        let warnings = if anew { vec![damaged.to_owned()] } else { Vec::new() };
        Ok((Self { target, staging, catalogue }, warnings))
    }

    /// Says where an earlier run has got to.
    fn welcome(&self, sender: &Sender, warnings: Vec<String>) -> Result<()> {
        let (position, root, messages) = self.catalogue.contain(|| -> Result<(Position, Digest, u64)> {
            let transaction = self.catalogue.begin()?;
            let found = {
                let edit = Edit::new(&transaction)?;
                (edit.head.position, edit.root_digest(), edit.head.messages)
            };
            transaction.abort()?;
            Ok(found)
        })?;
        let (program, set, epoch) = (program(), None, Default::default());
        let welcome = Welcome { program, set, epoch, position, root, messages, directories_read: 0, warnings };
        Ok(sender.send(&Message::Welcome(welcome))?)
    }

    /// The committer: one transaction after the other. Gives the last batch where the directory was released.
    fn commit_all(&self, work: &Queue<Work>, sender: &Sender) -> Result<Option<Position>> {
        loop {
            let transaction = self.catalogue.begin()?;
            let (ended, position, is_clean) = self.term(&transaction, work, sender)?;
            // What could not be done is not written down as done: after a cut it is tried again, and told.
            match is_clean {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
            match ended {
                Ended::Checkpoint => sender.send(&Message::Ack(position))?,
                Ended::Closed => return Ok(None),
                Ended::Finished(done) => {
                    sender.send(&Message::Done(done))?;
                    return match work.recv() {
                        Ok(Work::Release) => Ok(Some(position)),
                        Ok(Work::Failed(error)) => Err(error),
                        Ok(_) => Err(SyncError::Protocol("it sends more after the end")),
                        Err(_) => Ok(None),
                    };
                }
            }
        }
    }

    /// One transaction, at whose end everything that it says is on the disk. `true` where all could be done.
    fn term(&self, transaction: &Transaction, work: &Queue<Work>, sender: &Sender) -> Result<(Ended, Position, bool)> {
        let root = self.target.root();
        let mut edit = Edit::new(transaction)?;
        let mut hand = Hand::new(root.clone(), self.staging.clone(), SetKind::Maildir);
        let mut ended = self.take(work, &mut edit, &mut hand, sender)?;
        hand.put_lock_away()?;
        root.sync_file_system()?;
        let is_clean = hand.problems.is_empty();
        edit.flush()?;
        let position = edit.head.position;
        if let Ended::Finished(done) = &mut ended {
            done.position = position;
            done.root = edit.root_digest();
            done.problems = std::mem::take(&mut hand.problems);
            done.warnings = hand.owners_left.then(|| NOT_ROOT.to_owned()).into_iter().collect();
        }
        edit.finish()?;
        Ok((ended, position, is_clean))
    }

    /// Does what comes, until a checkpoint is due or the near end has nothing more.
    fn take(&self, work: &Queue<Work>, edit: &mut Edit<'_>, hand: &mut Hand, sender: &Sender) -> Result<Ended> {
        let (mut bytes, mut count) = (0, 0);
        loop {
            match work.recv() {
                Err(_) => return Ok(Ended::Closed),
                Ok(Work::Block(_, raw)) => bytes += raw,
                Ok(Work::Batch(position, changes)) => {
                    count += changes.len();
                    check(position, &changes, edit)?;
                    for change in &changes {
                        edit.apply(change)?;
                    }
                    edit.flush()?;
                    hand.batch(&changes, &Arrived, edit)?;
                    edit.head.position = position;
                    if (bytes >= CHECKPOINT_BYTES || count >= CHECKPOINT_CHANGES) && hand.problems.is_empty() {
                        return Ok(Ended::Checkpoint);
                    }
                }
                Ok(Work::Compare) => records::digests(edit, sender)?,
                Ok(Work::Fetch(paths)) => records::rows(paths, edit, sender)?,
                Ok(Work::Finish) => return Ok(Ended::Finished(Done::default())),
                Ok(Work::Release) => return Err(SyncError::Protocol("it releases what is not finished")),
                Ok(Work::Failed(error)) => return Err(error),
            }
        }
    }

    /// Takes the state away.
    fn release(self, hello: &Hello, position: Position, sender: &Sender) -> Result<()> {
        let Self { target, staging, catalogue } = self;
        drop((staging, catalogue));
        let mtime = hello.restore.as_ref().and_then(|restore| restore.mtime);
        let problems: Vec<Problem> = target.end(mtime)?;
        Ok(sender.send(&Message::Done(Done { position, problems, ..Done::default() }))?)
    }
}

/// A restore makes things, from contents that it sends, and does nothing else.
fn check(position: Position, changes: &[Change], edit: &Edit<'_>) -> Result<()> {
    if position <= edit.head.position {
        return Err(SyncError::Protocol("a batch comes again"));
    }
    let is_making = |change: &Change| {
        matches!(
            change,
            Change::MakeDirectory { .. }
                | Change::Symlink { .. }
                | Change::Link { .. }
                | Change::Put { source: Source::Shipped(_), .. }
        )
    };
    match changes.iter().all(is_making) {
        true => Ok(()),
        false => Err(SyncError::Protocol("a change that a restore does not make")),
    }
}
