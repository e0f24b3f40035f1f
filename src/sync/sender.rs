//! The master's end of a session: greet, compare where the ends differ, walk, ship, hear that it is done.

use super::SyncError;
use super::cycle::{Cycle, Glance, NoSink, Options, Sink};
use super::guard::Limit;
use super::receiver::{new_identity, program};
use crate::catalogue::directory;
use crate::catalogue::edit::Edit;
use crate::catalogue::filter::Filter;
use crate::catalogue::scan::Rules;
use crate::catalogue::store::Catalogue;
use crate::disk::{Root, Writer};
use crate::id::{Digest, Epoch, Position, hex};
use crate::maildir::entry::Entry;
use crate::maildir::folder::SetKind;
use crate::monitor::{Counters, Event, Monitor, Phase, Problem};
use crate::path::TreePath;
use crate::transport::Connection;
use crate::wire::message::{Hello, Message, Row, Welcome};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often one run ships, compares and ships again before it says that the ends differ.
const ROUNDS: u32 = 3;

/// Directories asked for in one message.
const FETCH: usize = 512;

type Result<T> = std::result::Result<T, SyncError>;

pub mod wire;

use wire::{Wire, answer};

/// What a run is asked to do: validated.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tree.
    pub source: PathBuf,
    /// The mirror's directory, on the slave's host.
    pub destination: Vec<u8>,
    /// How the pair is told from other pairs of this master.
    pub pair: String,
    /// Where the master keeps its state.
    pub state: PathBuf,
    /// Where the slave keeps its own, if not in the mirror.
    pub slave_state: Option<Vec<u8>>,
    /// What kind of tree it is; `None` for what it was last time, or what it looks like.
    pub kind: Option<SetKind>,
    /// Filter lines.
    pub filters: Vec<String>,
    /// Owners as they are to be.
    pub chown: Option<(Option<u32>, Option<u32>)>,
    /// How much may be removed.
    pub limit: Limit,
    /// Read every content.
    pub checksum: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Tell every change.
    pub itemize: bool,
    /// zstd level.
    pub level: i32,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was done.
    pub counters: Counters,
    /// Bytes that went to the slave.
    pub bytes_sent: u64,
    /// Bytes that came from it.
    pub bytes_received: u64,
    /// The last batch that it has.
    pub position: Position,
    /// Both catalogues have the same root digest.
    pub in_sync: bool,
    /// What could not be done on the slave.
    pub problems: Vec<Problem>,
    /// The guard's sentence, where it stopped the removals.
    pub stopped: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// The master of one set, open and locked.
struct Master<'a> {
    request: &'a Request,
    source: Arc<Root>,
    catalogue: Rc<Catalogue>,
    rules: Rules,
    monitor: &'a dyn Monitor,
    _lock: Option<Writer>,
}

/// Opens the source and the master's state, so that what is wrong with them is said before anybody is called.
///
/// # Errors
/// Where the source cannot be read, or another run holds the lock.
pub fn run(request: &Request, monitor: &dyn Monitor, connect: impl FnOnce() -> Result<Connection>) -> Result<Report> {
    let begin = Instant::now();
    let mut master = Master::open(request, monitor)?;
    let catalogue = master.catalogue.clone();
    monitor.event(Event::Phase(Phase::Connect));
    let mut connection = connect()?;
    let mut report = catalogue.contain(|| master.session(&mut connection))?;
    report.elapsed = begin.elapsed();
    report.bytes_sent = connection.sender.sent();
    report.bytes_received = connection.receiver.received();
    Ok(report)
}

impl<'a> Master<'a> {
    fn open(request: &'a Request, monitor: &'a dyn Monitor) -> Result<Self> {
        let source = Arc::new(Root::open(&request.source)?);
        let (catalogue, lock) = open_state(request, &source, monitor)?;
        let kind = match request.kind {
            Some(kind) => kind,
            None => recorded_kind(&catalogue)?.unwrap_or_else(|| detect_kind(&request.source)),
        };
        let rules = Rules {
            kind,
            filter: Filter::new(kind, &request.filters)?,
            chown: request.chown,
            owners: true,
            trust_names: false,
            restat: false,
            checksum: request.checksum,
        };
        Ok(Self { request, source, catalogue: Rc::new(catalogue), rules, monitor, _lock: lock })
    }

    fn session(&mut self, connection: &mut Connection) -> Result<Report> {
        let transaction = self.catalogue.begin()?;
        let mut edit = Edit::new(&transaction)?;
        self.note_rules(&mut edit)?;
        connection.sender.send(&Message::Hello(self.hello(&edit)))?;
        // The slave looks at its mirror meanwhile.
        let mut glance = Glance::at(&self.source, &self.rules, &self.catalogue, &mut edit)?;
        let welcome = match answer(&mut connection.receiver)? {
            Message::Welcome(welcome) => welcome,
            _ => return Err(SyncError::Protocol("it did not answer the greeting")),
        };
        for warning in &welcome.warnings {
            self.monitor.event(Event::Warning(warning.clone()));
        }
        self.monitor.event(Event::Note(format!("the slave runs {}", welcome.program)));
        self.agree(&mut edit, &welcome)?;
        let mut report = Report::default();
        if welcome.root != edit.root_digest() {
            self.compare(&mut edit, connection, &welcome.root)?;
            glance.all = false;
        }
        if self.request.dry_run {
            let ran = self.cycle(&mut edit, &mut NoSink, &mut report, 1, glance);
            report.position = edit.head.position;
            ran?;
            return Ok(report);
        }
        self.rounds(&mut edit, connection, &mut report, glance)?;
        match edit.finish()? {
            true => transaction.commit()?,
            false => transaction.abort()?,
        }
        Ok(report)
    }

    /// With other rules than last time every directory is read again.
    fn note_rules(&mut self, edit: &mut Edit<'_>) -> Result<()> {
        let mut lines = self.request.filters.clone();
        lines.push(kind_line(self.rules.kind).to_owned());
        if let Some(chown) = self.request.chown {
            lines.push(format!("chown {chown:?}"));
        }
        self.rules.restat = edit.head.filters != lines && !edit.is_empty()?;
        edit.head.filters = lines;
        Ok(())
    }

    fn hello(&self, edit: &Edit<'_>) -> Hello {
        Hello {
            program: program(),
            set: edit.head.set,
            epoch: edit.head.epoch,
            position: edit.head.position,
            root: edit.root_digest(),
            kind: self.rules.kind,
            destination: self.request.destination.clone(),
            state: self.request.slave_state.clone().map(Into::into),
            dry_run: self.request.dry_run,
            checksum: self.request.checksum,
            filters: self.request.filters.clone(),
            boot: super::boot_id(),
            ancestry: self.source.ancestry().unwrap_or_default(),
            restore: None,
        }
    }

    /// Who we are, after both have spoken: what one end has forgotten the other remembers.
    fn agree(&self, edit: &mut Edit<'_>, welcome: &Welcome) -> Result<()> {
        let head = &mut edit.head;
        if let Some(set) = welcome.set.filter(|_| head.set.is_none()) {
            (head.set, head.epoch) = (Some(set), welcome.epoch);
        }
        if head.set.is_none() || head.epoch == Epoch::default() {
            let (set, epoch) = new_identity()?;
            (head.set, head.epoch) = (Some(head.set.unwrap_or(set)), epoch);
        }
        head.position = head.position.max(welcome.position);
        Ok(())
    }

    // ---- comparing ----

    /// Makes the catalogue say what the slave has, by the records of the directories that differ.
    fn compare(&self, edit: &mut Edit<'_>, connection: &mut Connection, theirs: &Digest) -> Result<()> {
        self.monitor.event(Event::Phase(Phase::Compare));
        edit.flush()?;
        edit.check_sum()?;
        connection.sender.send(&Message::Compare)?;
        let mut here: BTreeMap<Vec<u8>, Digest> = BTreeMap::new();
        let mut from = Vec::new();
        loop {
            let rows = edit.rows_from(&from, 4096)?;
            let Some((last, _)) = rows.last() else { break };
            from.clone_from(last);
            from.push(0);
            here.extend(rows.into_iter().map(|(key, row)| (key, row.digest)));
        }
        let mut wanted = VecDeque::new();
        loop {
            let (digests, last) = match answer(&mut connection.receiver)? {
                Message::Digests(digests, last) => (digests, last),
                _ => return Err(SyncError::Protocol("it did not say what it has")),
            };
            for (path, digest) in digests {
                if here.remove(&directory::key(&path)) != Some(digest) {
                    wanted.push_back(path);
                }
            }
            if last {
                break;
            }
        }
        // The deepest first, so that nothing is looked for beneath what is gone.
        for key in here.into_keys().rev() {
            edit.disown(&directory::path_of(&key)?)?;
        }
        self.fetch(edit, connection, wanted)?;
        edit.flush()?;
        match edit.root_digest() == *theirs {
            true => Ok(()),
            false => Err(SyncError::Protocol("its records do not match its own digest")),
        }
    }

    fn fetch(&self, edit: &mut Edit<'_>, connection: &mut Connection, mut wanted: VecDeque<TreePath>) -> Result<()> {
        while !wanted.is_empty() {
            let ask: Vec<TreePath> = wanted.drain(..wanted.len().min(FETCH)).collect();
            connection.sender.send(&Message::Fetch(ask.clone()))?;
            for path in ask {
                let row = self.take_row(connection, &path)?;
                edit.adopt(&path, row.meta, row.entries)?;
                if edit.open_directories() > 64 {
                    edit.flush()?;
                }
            }
        }
        Ok(())
    }

    fn take_row(&self, connection: &mut Connection, path: &TreePath) -> Result<Row> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let mut row = match answer(&mut connection.receiver)? {
                Message::Row(row) if row.path == *path => row,
                _ => return Err(SyncError::Protocol("it sent another record than was asked for")),
            };
            entries.append(&mut row.entries);
            if !row.more {
                return Ok(Row { entries, ..row });
            }
        }
    }

    // ---- shipping ----

    /// Ships until both ends agree: mostly once; again where the mirror was not what its catalogue said.
    fn rounds(
        &self,
        edit: &mut Edit<'_>,
        connection: &mut Connection,
        report: &mut Report,
        mut glance: Glance,
    ) -> Result<()> {
        for round in 1..=ROUNDS {
            let mut wire = Wire::new(connection, edit.head.position, edit.head.epoch.counter);
            self.monitor.event(Event::Phase(Phase::Send));
            let ran = self.cycle(edit, &mut wire, report, round, std::mem::take(&mut glance));
            edit.head.position = wire.position;
            match ran {
                Err(SyncError::Guard(sentence)) => report.stopped = Some(sentence),
                other => other?,
            }
            self.monitor.event(Event::Phase(Phase::Finish));
            let done = wire::finish(connection, &Message::Finish)?;
            for warning in &done.warnings {
                self.monitor.event(Event::Warning(warning.clone()));
            }
            report.problems = done.problems;
            report.position = done.position;
            report.in_sync = done.root == edit.root_digest() && done.position == edit.head.position;
            if report.in_sync || round == ROUNDS || report.stopped.is_some() {
                break;
            }
            edit.head.position = done.position;
            self.compare(edit, connection, &done.root)?;
        }
        Ok(())
    }

    fn cycle(
        &self,
        edit: &mut Edit<'_>,
        sink: &mut dyn Sink,
        report: &mut Report,
        round: u32,
        glance: Glance,
    ) -> Result<()> {
        let options = Options {
            root: self.source.clone(),
            rules: &self.rules,
            limit: self.request.limit,
            ships: !self.request.dry_run,
            plans_only: self.request.dry_run,
            settles: true,
            level: self.request.level,
            itemize: self.request.itemize,
            first_number: u64::from(round) << 40,
            standby: &self.request.pair,
        };
        let contents = self.catalogue.known_contents()?;
        let mut cycle = Cycle::new(&options, edit, Some(contents), sink, self.monitor);
        cycle.rely_on(glance);
        let ran = cycle.run();
        let counters = cycle.counters.clone();
        drop(cycle);
        report.counters.add(&counters);
        if round == 1 && counters.special_files_left_out > 0 {
            let count = counters.special_files_left_out;
            let sentence = format!("left out: {count} sockets, FIFOs and devices (-v names them)");
            self.monitor.event(Event::Warning(sentence));
        }
        if ran.is_ok() {
            edit.head.root_id = self.source.identity()?;
        }
        edit.flush()?;
        ran
    }
}

/// How the catalogue records a kind, among the rules with which it was read.
pub(super) fn kind_line(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Maildir => "kind maildir",
        SetKind::Files => "kind files",
    }
}

pub(super) fn recorded_kind(catalogue: &Catalogue) -> Result<Option<SetKind>> {
    let lines = catalogue.head()?.filters;
    let kinds = [SetKind::Maildir, SetKind::Files];
    Ok(kinds.into_iter().find(|kind| lines.iter().any(|line| line == kind_line(*kind))))
}

/// A tree with a Maildir folder in it is one of Maildirs. A home directory of ten thousand other files before
/// the first folder is not what this is for; `--kind` says it then.
pub(super) fn detect_kind(source: &Path) -> SetKind {
    let is_folder = |entry: &walkdir::DirEntry| {
        entry.file_type().is_dir() && entry.path().join("cur").is_dir() && entry.path().join("new").is_dir()
    };
    let mut entries = walkdir::WalkDir::new(source).into_iter().flatten().take(10_000);
    match entries.any(|entry| is_folder(&entry)) {
        true => SetKind::Maildir,
        false => SetKind::Files,
    }
}

/// Opens this pair's directory below the master's state, locks it, and opens the catalogue in it.
fn open_state(request: &Request, source: &Root, monitor: &dyn Monitor) -> Result<(Catalogue, Option<Writer>)> {
    let key = Digest::of(format!("{}\0{}", hex(source.path().as_os_str().as_bytes()), request.pair).as_bytes());
    let name = hex(&key.0[..8]);
    if request.dry_run {
        let state = Root::open(&request.state.join(&name)).ok();
        return Ok((Catalogue::open_dry(state.as_ref())?, None));
    }
    let state = make_all(&request.state)?.make_own(&name)?;
    let lock = state.lock("lock")?.ok_or_else(|| {
        SyncError::Locked(format!(
            "another run is replicating {} to {}: wait until it has ended",
            source.show(&TreePath::root()),
            request.pair
        ))
    })?;
    let (catalogue, anew) = Catalogue::open(&state)?;
    if anew {
        let sentence = "the master's catalogue was damaged: it is made anew by comparing with the slave";
        monitor.event(Event::Warning(sentence.to_owned()));
    }
    Ok((catalogue, Some(lock)))
}

/// Opens a directory, making it and what is missing above it.
fn make_all(path: &Path) -> Result<Root> {
    match Root::open(path) {
        Err(error) if error.is_not_found() => {}
        other => return Ok(other?),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Root::open(path)?);
    };
    Ok(make_all(parent)?.make_own(name)?)
}
