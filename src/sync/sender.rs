//! The master's end of a session: greet, compare where the ends differ, walk, ship, hear that it is done.

use super::SyncError;
use super::cycle::{Cycle, Elsewhere, Glance, NoSink, Options, Sink, Unit};
use super::guard::Limit;
use super::receiver::{new_identity, program};
use crate::catalogue::edit::Edit;
use crate::catalogue::filter::Filter;
use crate::catalogue::scan::Rules;
use crate::catalogue::store::Catalogue;
use crate::disk::{Root, Writer};
use crate::id::{Digest, Epoch, Position, hex};
use crate::maildir::folder::SetKind;
use crate::monitor::{Counters, Event, Monitor, Phase, Problem};
use crate::path::TreePath;
use crate::transport::Connection;
use crate::wire::message::{Done, Hello, Message, Welcome};
use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often one run ships, compares and ships again before it says that the ends differ.
const ROUNDS: u32 = 3;

type Result<T> = std::result::Result<T, SyncError>;

mod compare;
pub mod follow;
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
    /// Contents of one session have numbers of their own.
    next_number: Cell<u64>,
    _lock: Option<Writer>,
}

/// Opens the source and the master's state, so that what is wrong with them is said before anybody is called.
///
/// # Errors
/// Where the source cannot be read, or another run holds the lock.
pub fn run(request: &Request, monitor: &dyn Monitor, connect: impl FnOnce() -> Result<Connection>) -> Result<Report> {
    with_master(request, monitor, connect, |master, connection| master.session(connection, None))
}

fn with_master(
    request: &Request,
    monitor: &dyn Monitor,
    connect: impl FnOnce() -> Result<Connection>,
    work: impl FnOnce(&mut Master<'_>, &mut Connection) -> Result<Report>,
) -> Result<Report> {
    let begin = Instant::now();
    let mut master = Master::open(request, monitor)?;
    let catalogue = master.catalogue.clone();
    monitor.event(Event::Phase(Phase::Connect));
    let mut connection = connect()?;
    let mut report = catalogue.contain(|| work(&mut master, &mut connection))?;
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
        Ok(Self {
            request,
            source,
            catalogue: Rc::new(catalogue),
            rules,
            monitor,
            next_number: Cell::new(1),
            _lock: lock,
        })
    }

    /// Ships until both ends agree: mostly once; again where the mirror was not what its catalogue said. Begins with the
    /// greeting, or, where that has been, with what the slave said last.
    fn session(&mut self, connection: &mut Connection, mut done: Option<Done>) -> Result<Report> {
        let mut report = Report::default();
        for _ in 0..ROUNDS {
            let transaction = self.catalogue.begin()?;
            let mut edit = Edit::new(&transaction)?;
            let glance = match done.take() {
                None => self.greet(&mut edit, connection)?,
                // Once more: the mirror was not what its catalogue said.
                Some(Done { position, root, .. }) => {
                    edit.head.position = position;
                    self.compare(&mut edit, connection, &root)?;
                    Glance::default()
                }
            };
            if self.request.dry_run {
                let ran = self.cycle(&mut edit, &mut NoSink, &mut report, What::All(glance));
                report.position = edit.head.position;
                ran?;
                return Ok(report);
            }
            self.ship(&mut edit, connection, &mut report, What::All(glance), true)?;
            let here = (edit.root_digest(), edit.head.position);
            // What is acknowledged is durable there: the record of it is made durable while it is put in place.
            match edit.finish()? {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
            let said = self.hear_done(connection, &mut report, here)?;
            if report.in_sync || report.stopped.is_some() {
                break;
            }
            done = Some(said);
        }
        Ok(report)
    }

    /// What the slave says when all is in place: whether it has what is recorded here.
    fn hear_done(&self, connection: &mut Connection, report: &mut Report, here: (Digest, Position)) -> Result<Done> {
        let done = wire::done(connection)?;
        for warning in &done.warnings {
            self.monitor.event(Event::Warning(warning.clone()));
        }
        report.problems.clone_from(&done.problems);
        report.position = done.position;
        report.in_sync = (done.root, done.position) == here;
        Ok(done)
    }

    /// Both ends say where they stand, and the catalogue is made to say what the slave has.
    fn greet(&mut self, edit: &mut Edit<'_>, connection: &mut Connection) -> Result<Glance> {
        self.note_rules(edit)?;
        connection.sender.send(&Message::Hello(self.hello(edit)))?;
        // The slave looks at its mirror meanwhile.
        let mut glance = Glance::at(&self.source, &self.rules, &self.catalogue, edit)?;
        let welcome = match answer(&mut connection.receiver)? {
            Message::Welcome(welcome) => welcome,
            _ => return Err(SyncError::Protocol("it did not answer the greeting")),
        };
        for warning in &welcome.warnings {
            self.monitor.event(Event::Warning(warning.clone()));
        }
        self.monitor.event(Event::Note(format!("the slave runs {}", welcome.program)));
        self.agree(edit, &welcome)?;
        if welcome.root != edit.root_digest() {
            self.compare(edit, connection, &welcome.root)?;
            glance.all = false;
        }
        Ok(glance)
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

    // ---- shipping ----

    /// Ships what differs, says that this is all where it is, and waits until it is durable there.
    fn ship(
        &self,
        edit: &mut Edit<'_>,
        connection: &mut Connection,
        report: &mut Report,
        what: What<'_>,
        is_last: bool,
    ) -> Result<()> {
        let mut wire = Wire::new(connection, edit.head.position, edit.head.epoch.counter);
        self.monitor.event(Event::Phase(Phase::Send));
        let ran = self.cycle(edit, &mut wire, report, what);
        edit.head.position = wire.position;
        match ran {
            Err(SyncError::Guard(sentence)) => report.stopped = Some(sentence),
            other => other?,
        }
        if is_last {
            self.monitor.event(Event::Phase(Phase::Finish));
            wire.send(&Message::Finish)?;
        }
        wire.until_durable()
    }

    fn cycle(&self, edit: &mut Edit<'_>, sink: &mut dyn Sink, report: &mut Report, what: What<'_>) -> Result<()> {
        let options = Options {
            root: self.source.clone(),
            rules: &self.rules,
            limit: self.request.limit,
            ships: !self.request.dry_run,
            plans_only: self.request.dry_run,
            settles: true,
            level: self.request.level,
            itemize: self.request.itemize,
            first_number: self.next_number.get(),
            standby: &self.request.pair,
        };
        let contents = self.catalogue.known_contents()?;
        let mut cycle = Cycle::new(&options, edit, Some(contents), sink, self.monitor);
        let is_all = matches!(what, What::All(_));
        let ran = match what {
            What::All(glance) => {
                cycle.rely_on(glance);
                cycle.run()
            }
            What::Some(units, elsewhere) => cycle.run_some(units, elsewhere),
        };
        let counters = cycle.counters.clone();
        self.next_number.set(cycle.next_number());
        drop(cycle);
        if is_all && report.counters.special_files_left_out == 0 && counters.special_files_left_out > 0 {
            let count = counters.special_files_left_out;
            let sentence = format!("left out: {count} sockets, FIFOs and devices (-v names them)");
            self.monitor.event(Event::Warning(sentence));
        }
        report.counters.add(&counters);
        if ran.is_ok() {
            edit.head.root_id = self.source.identity()?;
        }
        edit.flush()?;
        ran
    }
}

/// What a cycle looks at.
enum What<'a> {
    /// Everything, but for what was just seen untouched.
    All(Glance),
    /// These units, and before anything goes what else has been touched until then.
    Some(&'a [Unit], &'a mut Elsewhere<'a>),
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
pub fn detect_kind(source: &Path) -> SetKind {
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
