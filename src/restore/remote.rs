//! Restoring to another host: the walk is made here, and the hand that puts things in place is there.
//!
//! Two ways were weighed. The records of the view could travel, and the far end could run the restore of `super` with
//! contents from the wire; it would then need words of its own for records, and a second engine. Here the near end speaks as
//! a master does instead: blocks of contents, changes, and the end of a batch, in the protocol that there is. So the far
//! end is replication's receiver without a log, and what it may be asked to do is what a master may ask it, and less.
//!
//! The walk is cut into windows. What the far end has of a window, from an earlier run that was cut, is found out first;
//! then its contents go, in blocks as they are stored where that is worth it (`pack`), then its changes. Nothing outlasts a
//! window but the names of directories and the first names of hard links.

use super::walk::{Step, Walk, Wish};
use super::{BATCH_BYTES, BATCH_CHANGES, Report, Result, Travelled, Wanted, mtime_of_root};
use crate::disk::Root;
use crate::id::{Digest, Epoch, Position};
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::File;
use crate::maildir::folder::{self, SetKind};
use crate::monitor::{Event, Monitor, Phase, Problem};
use crate::path::{TreePath, escape};
use crate::repository::record::What;
use crate::repository::view::View;
use crate::sync::cycle::Sink;
use crate::sync::sender::wire::{self, Wire};
use crate::sync::{SyncError, boot_id, receiver};
use crate::transport::Connection;
use crate::wire::message::{Done, Hello, Message, Restoring, Welcome};
use pack::Packer;
use std::collections::HashSet;
use std::path::Path;
use there::There;

mod pack;
mod there;

/// Steps that a window may have, though all its contents stand in one block.
const MOST_STEPS: usize = 8 * BATCH_CHANGES;

/// Where to, and how.
pub struct Request<'a> {
    /// The directory on the other host.
    pub destination: &'a [u8],
    /// What is restored: the same words mean the same restore.
    pub what: &'a str,
    /// The standby: nothing is restored into it.
    pub standby: &'a Path,
    /// zstd level of blocks that are packed anew.
    pub level: i32,
    /// Somebody wants to know beforehand how much there is.
    pub counts: bool,
}

/// Writes what is wanted of a view into an empty directory of another host.
///
/// # Errors
/// Where the other end does not take it. What is damaged here, or could not be done there, is in [`Report::problems`].
pub fn to_host(
    view: &View,
    request: &Request<'_>,
    wanted: Wanted<'_>,
    monitor: &dyn Monitor,
    connect: impl FnOnce() -> std::result::Result<Connection, SyncError>,
) -> Result<Report> {
    let hello = hello(view, request)?;
    monitor.event(Event::Phase(Phase::Connect));
    let mut connection = connect()?;
    let position = greet(&mut connection, hello, monitor)?;
    if request.counts {
        monitor.event(planned(view, wanted));
    }
    let mut report = {
        let mut session = Session::new(view, request, wanted, monitor, Wire::new(&mut connection, position, 1));
        if position != Position::default() {
            monitor.event(Event::Phase(Phase::Compare));
            session.there = There::ask(&mut session.wire)?;
        }
        monitor.event(Event::Phase(Phase::Send));
        session.run()?;
        session.report()
    };
    monitor.event(Event::Phase(Phase::Finish));
    let mut done = wire::finish(&mut connection, &Message::Finish)?;
    report.failures(&mut done.problems);
    report.warnings.append(&mut done.warnings);
    let mut released = release(&mut connection, request)?;
    report.failed += released.problems.len() as u64;
    report.problems.append(&mut released.problems);
    report.travelled.bytes_sent = connection.sender.sent();
    report.travelled.bytes_received = connection.receiver.received();
    Ok(report)
}

fn hello(view: &View, request: &Request<'_>) -> Result<Hello> {
    Ok(Hello {
        program: receiver::program(),
        set: None,
        epoch: Epoch::default(),
        position: Position::default(),
        root: Digest::default(),
        kind: SetKind::Maildir,
        destination: request.destination.to_vec(),
        state: None,
        dry_run: false,
        checksum: false,
        filters: Vec::new(),
        boot: boot_id(),
        ancestry: Root::open(request.standby)?.ancestry()?,
        restore: Some(Restoring { what: request.what.to_owned(), mtime: mtime_of_root(view) }),
    })
}

/// Greets; gives the last batch of an earlier run that the far end has.
fn greet(connection: &mut Connection, hello: Hello, monitor: &dyn Monitor) -> Result<Position> {
    let sent = connection.sender.send(&Message::Hello(hello)).map_err(SyncError::from);
    let Welcome { position, warnings, .. } = match wire::answer(&mut connection.receiver) {
        Ok(Message::Welcome(welcome)) => welcome,
        Ok(_) => return Err(SyncError::Protocol("it did not answer the greeting").into()),
        Err(refused @ SyncError::Refused(_)) => return Err(refused.into()),
        Err(error) => return Err(sent.err().unwrap_or(error).into()),
    };
    for warning in warnings {
        monitor.event(Event::Warning(warning));
    }
    Ok(position)
}

/// Everything is there: the state of the far end goes.
fn release(connection: &mut Connection, request: &Request<'_>) -> Result<Done> {
    wire::finish(connection, &Message::Release).map_err(|error| match error {
        SyncError::Link(error) => {
            let place = escape(request.destination);
            let sentence = format!(
                "everything is in {place}, but {error}: where {place} still has a .mailtwin, give the same command again"
            );
            SyncError::Failed(sentence).into()
        }
        other => other.into(),
    })
}

/// How many messages and bytes are wanted. What cannot be read is told when it is its turn.
fn planned(view: &View, wanted: Wanted<'_>) -> Event {
    let (mut messages, mut bytes, mut groups) = (0, 0, HashSet::new());
    for record in view.beneath(&TreePath::root()).flatten() {
        if let Some((_, What::File { size, group, .. })) = &record.state
            && wanted(&record)
        {
            messages += u64::from(is_message(&record.path));
            // A hard link adds no bytes.
            bytes += if *group == 0 || groups.insert(*group) { *size } else { 0 };
        }
    }
    Event::Planned { messages, bytes }
}

fn is_message(path: &TreePath) -> bool {
    folder::holds_messages(path.parent().name())
}

/// Steps that are done together.
#[derive(Default)]
struct Window {
    steps: Vec<Step>,
    bytes: u64,
    /// The block in which the last content stands.
    block: Option<(u32, u64)>,
}

impl Window {
    fn block_of(step: &Step) -> Option<(u32, u64)> {
        match step {
            Step::Bring(wish) => wish.place.map(|place| (place.segment, place.offset)),
            Step::Do(_) => None,
        }
    }

    /// Whether a step belongs to the next one. A block is not torn, so that it can travel as it is.
    fn ends_before(&self, step: &Step) -> bool {
        let is_full = self.steps.len() >= BATCH_CHANGES || self.bytes >= BATCH_BYTES;
        let goes_on = Self::block_of(step).is_some_and(|block| self.block == Some(block));
        is_full && !goes_on || self.steps.len() >= MOST_STEPS
    }

    fn push(&mut self, step: Step) {
        if let Step::Bring(wish) = &step {
            self.bytes += wish.size;
            self.block = Self::block_of(&step);
        }
        self.steps.push(step);
    }
}

/// What becomes of a step.
enum Fate {
    /// The far end has it, from an earlier run.
    There,
    /// Another name of it is there.
    Linked(Change),
    /// Its content goes under this number.
    Sent(u64, Digest),
    /// It cannot be read.
    Lost(String),
}

/// A restore that is under way.
struct Session<'a> {
    view: &'a View,
    monitor: &'a dyn Monitor,
    /// The directory on the other host, for messages.
    place: String,
    wire: Wire<'a>,
    there: There,
    walk: Walk<'a>,
    packer: Packer<'a>,
    window: Window,
    report: Report,
}

impl<'a> Session<'a> {
    fn new(
        view: &'a View,
        request: &Request<'_>,
        wanted: Wanted<'a>,
        monitor: &'a dyn Monitor,
        wire: Wire<'a>,
    ) -> Self {
        Self {
            view,
            monitor,
            place: escape(request.destination),
            wire,
            there: There::default(),
            walk: Walk::new(wanted),
            packer: Packer::new(view, request.level),
            window: Window::default(),
            report: Report::default(),
        }
    }

    fn run(&mut self) -> Result<()> {
        for record in self.view.beneath(&TreePath::root()) {
            match record {
                Ok(record) => {
                    let steps = self.walk.steps(record);
                    self.take(steps)?;
                }
                Err(error) => self.problem(String::new(), error.to_string()),
            }
        }
        // What is lost may be the last of a window.
        self.flush()?;
        if !self.report.problems.is_empty() {
            let steps = self.walk.complete_folders();
            self.take(steps)?;
            self.flush()?;
        }
        Ok(())
    }

    fn report(self) -> Report {
        let Packer { as_stored, repacked, .. } = self.packer;
        let travelled = Travelled { blocks_as_stored: as_stored, blocks_repacked: repacked, ..Travelled::default() };
        Report { travelled, ..self.report }
    }

    fn problem(&mut self, subject: String, reason: String) {
        self.report.failed += 1;
        self.report.problems.push(Problem { subject, reason });
    }

    fn take(&mut self, steps: Vec<Step>) -> Result<()> {
        for step in steps {
            if self.window.ends_before(&step) {
                self.flush()?;
            }
            self.window.push(step);
        }
        Ok(())
    }

    /// Sends a window: contents first, then what is done with them.
    fn flush(&mut self) -> Result<()> {
        let Window { steps, .. } = std::mem::take(&mut self.window);
        let fates = self.fates(&steps)?;
        let mut changes = Vec::with_capacity(steps.len());
        let (mut messages, mut bytes) = (0, 0);
        for (step, fate) in steps.into_iter().zip(fates) {
            match (step, fate) {
                (Step::Do(change), _) => {
                    self.report.created += u64::from(matches!(change, Change::Symlink { .. }));
                    changes.push(change);
                }
                (Step::Bring(wish), Some(fate)) => {
                    messages += u64::from(is_message(&wish.record.path));
                    bytes += if matches!(fate, Fate::Linked(_)) { 0 } else { wish.size };
                    changes.extend(self.change(wish, fate));
                }
                (Step::Bring(_), None) => {}
            }
        }
        if !changes.is_empty() {
            self.wire.batch(&changes)?;
        }
        self.monitor.event(Event::Done { messages, bytes });
        Ok(())
    }

    fn change(&mut self, wish: Wish, fate: Fate) -> Option<Change> {
        let Wish { record, meta, size, group, .. } = wish;
        match fate {
            Fate::There => {
                self.report.skipped += 1;
                None
            }
            Fate::Linked(link) => {
                self.report.created += 1;
                Some(link)
            }
            Fate::Sent(number, digest) => {
                self.report.created += 1;
                self.report.bytes += size;
                let (file, source) = (File { size, digest, group }, Source::Shipped(number));
                Some(Change::Put { path: record.path, meta, file, source })
            }
            Fate::Lost(reason) => {
                self.problem(format!("{}/{}", self.place, record.path), reason);
                None
            }
        }
    }

    /// Finds out what becomes of each file of a window, and sends the contents that are needed. Of each hard link one name
    /// is tried after the other, until a content is whole.
    fn fates(&mut self, steps: &[Step]) -> Result<Vec<Option<Fate>>> {
        let mut fates: Vec<Option<Fate>> = steps.iter().map(|_| None).collect();
        loop {
            let (mut asked, mut tried) = (Vec::new(), HashSet::new());
            for (index, step) in steps.iter().enumerate() {
                let (Step::Bring(wish), None) = (step, &fates[index]) else { continue };
                if let Some(link) = self.walk.link(wish) {
                    fates[index] = Some(Fate::Linked(link));
                } else if self.there.has(wish, &mut self.wire)? {
                    self.walk.is_there(wish);
                    fates[index] = Some(Fate::There);
                } else if wish.group == 0 || tried.insert(wish.group) {
                    asked.push((index, wish));
                }
            }
            if asked.is_empty() {
                return Ok(fates);
            }
            let wishes: Vec<&Wish> = asked.iter().map(|(_, wish)| *wish).collect();
            let answers = self.packer.send(&wishes, &mut self.wire)?;
            for ((index, wish), answer) in asked.into_iter().zip(answers) {
                fates[index] = Some(match answer {
                    Ok((number, digest)) => {
                        self.walk.is_there(wish);
                        Fate::Sent(number, digest)
                    }
                    Err(reason) => Fate::Lost(reason),
                });
            }
        }
    }
}
