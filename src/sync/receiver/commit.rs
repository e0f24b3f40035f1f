//! The committing thread: batches are made durable, acknowledged, and applied, in this order (I1).

use super::{Looked, Result, Slave, Work, records};
use crate::catalogue::edit::Edit;
use crate::catalogue::store::Transaction;
use crate::disk::now;
use crate::id::{Epoch, Position};
use crate::log::segment::Segment;
use crate::maildir::change::Change;
use crate::monitor::Quiet;
use crate::sync::SyncError;
use crate::sync::apply::{Arrived, Hand};
use crate::transport::Sender;
use crate::wire::frame::Frame;
use crate::wire::message::{BLOCK, Done, Message};
use std::sync::mpsc::Receiver as Queue;
use std::time::Duration;

/// Contents of at most so many bytes go into the log; above, straight into files, and the file system is
/// synced for many batches at once.
const LOGGED_CONTENTS: u64 = 4 << 20;

/// Bytes of contents, or changes, after which what was applied is made durable and the log begins anew.
const CHECKPOINT_BYTES: u64 = 256 << 20;
const CHECKPOINT_CHANGES: u64 = 200_000;

/// Changes, and bytes of contents, that are made durable together.
const GROUP_CHANGES: usize = 8192;
const GROUP_BYTES: u64 = 128 << 20;

/// How long a group waits for one more batch.
const GROUP_WAIT: Duration = Duration::from_millis(10);

impl Slave {
    /// The committer: one catalogue transaction after the other until the work ends.
    /// The first of them holds what the look at the mirror brought.
    pub(super) fn commit_all(
        &self,
        mut transaction: Transaction,
        mut looked: Looked,
        work: &Queue<Work>,
        sender: &Sender,
    ) -> Result<()> {
        loop {
            let (ended, has_segment, changed) = {
                let mut term = Term::new(self, &transaction, sender, looked.segment.take())?;
                let ended = term.run(work)?;
                // The mirror first: the catalogue never claims what a power cut could still take.
                if term.segment.is_some() {
                    self.mirror.sync_file_system()?;
                }
                (ended, term.segment.is_some(), term.edit.finish()? || std::mem::take(&mut looked.learned))
            };
            match changed && !self.hello.dry_run {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
            if has_segment && let Some(state) = &self.state {
                self.put_away(state)?;
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
    /// There is a block.
    any: bool,
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
    /// The names that lead to it are durable.
    names_are_durable: bool,
    /// Contents of the batch that comes next.
    arriving: Arriving,
    bytes: u64,
    changes: u64,
    position: Position,
}

impl<'s, 't> Term<'s, 't> {
    fn new(
        slave: &'s Slave,
        transaction: &'t Transaction,
        sender: &'s Sender,
        segment: Option<Segment>,
    ) -> Result<Self> {
        let edit = Edit::new(transaction)?;
        let position = edit.head.position;
        let hand =
            slave.staging.as_ref().map(|staging| Hand::new(slave.mirror.clone(), staging.clone(), slave.hello.kind));
        let arriving = Arriving::default();
        let names_are_durable = false;
        Ok(Self { slave, edit, sender, hand, segment, names_are_durable, arriving, bytes: 0, changes: 0, position })
    }

    fn run(&mut self, work: &Queue<Work>) -> Result<Ended> {
        loop {
            let Ok(first) = work.recv() else { return Ok(Ended::Closed) };
            let (mut batches, mut changes, mut bytes) = (Vec::new(), 0, 0);
            let mut next = Some(first);
            let mut after = None;
            while let Some(item) = next.take() {
                match item {
                    Work::Block(payload, raw) => self.take_block(payload, raw)?,
                    Work::Batch(position, batch) => {
                        let contents = std::mem::take(&mut self.arriving);
                        changes += batch.len();
                        bytes += contents.bytes;
                        let incoming = Incoming { position, changes: batch, contents };
                        if self.slave.history.is_some() {
                            self.log(&incoming)?;
                        }
                        batches.push(incoming);
                    }
                    other => after = Some(other),
                }
                let is_full = changes >= GROUP_CHANGES || bytes + self.arriving.bytes >= GROUP_BYTES;
                let is_full = is_full || self.is_at_checkpoint(changes);
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
                Some(Work::Compare) => records::digests(&mut self.edit, self.sender)?,
                Some(Work::Fetch(paths)) => records::rows(paths, &mut self.edit, self.sender)?,
                Some(Work::Release) => return Err(SyncError::Protocol("it releases what is not restored")),
                Some(Work::Finish) => return self.finish().map(Ended::Finished),
                Some(Work::Failed(error)) => return Err(error),
                Some(Work::Block(..) | Work::Batch(..)) => {}
            }
            if self.is_at_checkpoint(0)
                && self.hand.as_ref().is_some_and(|hand| hand.drifted.is_empty() && hand.problems.is_empty())
            {
                return Ok(Ended::Checkpoint);
            }
        }
    }

    /// Whether a checkpoint is due, and can be: a batch stands in one log with its contents.
    fn is_at_checkpoint(&self, changes: usize) -> bool {
        let is_due = self.bytes > CHECKPOINT_BYTES || self.changes + changes as u64 > CHECKPOINT_CHANGES;
        is_due && !self.arriving.any
    }

    fn take_block(&mut self, payload: Vec<u8>, raw: u64) -> Result<()> {
        let arriving = &mut self.arriving;
        arriving.bytes += raw;
        arriving.any = true;
        self.bytes += raw;
        if self.slave.history.is_some() {
            // History has every content, so none waits in memory.
            return Ok(self.segment()?.append(&Frame::plain(BLOCK, payload))?);
        }
        match arriving.bytes > LOGGED_CONTENTS {
            true => arriving.blocks.clear(),
            false => arriving.blocks.push(Frame::plain(BLOCK, payload)),
        }
        Ok(())
    }

    /// The segment, begun where there is none.
    fn segment(&mut self) -> Result<&mut Segment> {
        if self.segment.is_none() {
            self.take_identity();
            self.segment = Some(self.slave.begin_log(&self.edit.head, self.position)?);
        }
        self.segment.as_mut().ok_or(SyncError::Protocol("a batch in a dry run"))
    }

    /// Writes a batch into the log, behind its contents. What does not fit is refused before that.
    fn log(&mut self, batch: &Incoming) -> Result<()> {
        if batch.position <= self.position {
            return Err(SyncError::Protocol("a batch comes again"));
        }
        // Begun before the position moves on: its header says what it comes after.
        self.segment()?;
        self.position = batch.position;
        apply_to_catalogue(&mut self.edit, &batch.changes)?;
        Ok(self.segment()?.batch(now(), Some(batch.position), &batch.changes)?)
    }

    /// Makes batches durable, acknowledges them, and applies them. In this order (I1).
    fn commit(&mut self, batches: Vec<Incoming>) -> Result<()> {
        let Some(last) = batches.last().map(|batch| batch.position) else { return Ok(()) };
        self.take_identity();
        self.segment()?;
        if self.slave.history.is_none() {
            self.log_all(&batches)?;
        }
        self.segment()?.sync()?;
        if !std::mem::replace(&mut self.names_are_durable, true) {
            // After the segment, so that one commit of the file system's journal has all of it.
            self.slave.sync_names()?;
        }
        self.sender.send(&Message::Ack(last))?;
        self.apply(batches)
    }

    /// Writes batches into the log, and their contents where these are few.
    fn log_all(&mut self, batches: &[Incoming]) -> Result<()> {
        // What is not in the log lies in files. They are durable before the log speaks of them: where this sync
        // fails the log knows nothing, and the contents are sent again.
        let is_logged = batches.iter().map(|batch| batch.contents.bytes).sum::<u64>() <= LOGGED_CONTENTS;
        if !is_logged {
            self.slave.mirror.sync_file_system()?;
        }
        for batch in batches {
            // The contents of a batch stand before it, and it is read back with these alone.
            for block in batch.contents.blocks.iter().filter(|_| is_logged) {
                self.segment()?.append(block)?;
            }
            self.log(batch)?;
        }
        Ok(())
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
                self.slave.scan_mirror(&mut self.edit, &heard, &mut self.segment)?;
                problems.extend(heard.take_problems());
            }
        }
        self.edit.flush()?;
        Ok(Done { position: self.edit.head.position, root: self.edit.root_digest(), problems, warnings })
    }
}

/// A directory of which the hand could not do everything is read again, to the last file.
pub(super) fn forget_looks(edit: &mut Edit<'_>, hand: &Hand) -> Result<()> {
    for path in &hand.drifted {
        edit.looked(path, None)?;
    }
    Ok(edit.flush()?)
}

pub(super) fn apply_to_catalogue(edit: &mut Edit<'_>, changes: &[Change]) -> Result<()> {
    for change in changes {
        edit.apply(change)?;
    }
    Ok(edit.flush()?)
}
