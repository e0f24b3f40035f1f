//! The daemon: threads for each slave of each set of which this host is the master, a door for masters, the clock, and the
//! status file. It runs until it is told to end.

use super::control::Control;
use super::follow::Follower;
use super::jobs::{Jobs, Told};
use super::journal::{Journal, Level, Lines};
use super::serve::Door;
use super::sessions::Sessions;
use super::status::{self, Board, SetStatus, Status, VERSION};
use crate::config::file::{self, Configuration, Finding, Role};
use crate::config::peers;
use crate::disk::now;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The status is written at least so often, and looked at so often for news.
const WRITE_EVERY: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the process was told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To end in good order.
    End,
    /// To read its configuration again.
    Reload,
}

/// What a daemon needs.
pub struct Daemon {
    /// What this host is.
    pub configuration: Configuration,
    /// Where that stands.
    pub file: PathBuf,
    /// This program, for what is done by the clock.
    pub program: PathBuf,
    /// What it has to say.
    pub journal: Arc<dyn Journal>,
}

impl Daemon {
    /// Runs until a signal says that it is to end. Sessions of this host's own end in order; of those of others nothing
    /// that was acknowledged is lost.
    ///
    /// # Errors
    /// A sentence, where it cannot begin.
    pub fn run(self, handle: &Handle, signals: &Receiver<Signal>) -> Result<(), String> {
        let Self { configuration, file, program, journal } = self;
        let lines = Lines::new(journal.clone(), None, None);
        let configuration = Arc::new(configuration);
        let board = Board::new(first(&configuration));
        status::write(&configuration.host.status, &board.get()).map_err(|error| error.to_string())?;
        let known = peers::peers(&configuration);
        let sessions = Sessions::default();
        let (served, heard) = (configuration.clone(), journal.clone());
        let door = Door::open(served, board.clone(), heard, handle, known.clone(), sessions.clone())?;
        if let Some(door) = door {
            spawn("door", move || door.run())?;
        }
        let (followers, threads) = follow_all(&configuration, &board, &journal)?;
        let current = Arc::new(Mutex::new(configuration.clone()));
        let jobs = Jobs {
            configuration: current.clone(),
            file: file.clone(),
            program,
            board: board.clone(),
            journal: journal.clone(),
            sessions,
            followers: followers.clone(),
        };
        let (tell, told) = Jobs::channel();
        let (again, clock_lines) = (tell.clone(), Lines::new(journal.clone(), None, None));
        let clock = spawn("clock", move || {
            if let Err(error) = jobs.run(&again, &told) {
                clock_lines.say(Level::Error, &format!("nothing is done by the clock any more: {error}"));
            }
        })?;
        lines.say(Level::Info, &format!("{} sets, process {}", configuration.sets.len(), std::process::id()));
        let file_of_status = configuration.host.status.clone();
        attend(signals, &board, &file_of_status, &lines, || {
            let loaded = reload(&file, &current, &lines)?;
            known.replace(peers::known(&loaded));
            // Where it has ended nothing is done by the clock.
            let _ = tell.send(Told::Changed);
            Some(())
        });
        followers.values().flatten().for_each(|control| control.end());
        let _ = tell.send(Told::End);
        for thread in threads.into_iter().chain([clock]) {
            // A thread that failed has said so.
            let _ = thread.join();
        }
        lines.say(Level::Info, "ended");
        Ok(())
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| format!("cannot begin a thread: {error}"))
}

/// What is known before anything has happened.
fn first(configuration: &Configuration) -> Status {
    let role = |role| match role {
        Role::Master => "master",
        Role::Slave => "slave",
    };
    let sets = configuration.sets.values().map(|set| {
        let path = crate::path::escape(std::os::unix::ffi::OsStrExt::as_bytes(set.path.as_os_str()));
        (set.name.clone(), SetStatus { role: role(set.role).to_owned(), path, ..SetStatus::default() })
    });
    Status {
        version: VERSION,
        host: configuration.host.name.clone(),
        pid: std::process::id(),
        since: now().seconds,
        written: now().seconds,
        sets: sets.collect(),
    }
}

type Followers = BTreeMap<String, Vec<Arc<Control>>>;

fn follow_all(
    configuration: &Arc<Configuration>,
    board: &Board,
    journal: &Arc<dyn Journal>,
) -> Result<(Followers, Vec<JoinHandle<()>>), String> {
    let (mut followers, mut threads) = (Followers::new(), Vec::new());
    for set in configuration.sets.values().filter(|set| set.role == Role::Master) {
        for peer in &set.peers {
            let control = Arc::new(Control::default());
            let follower = Follower {
                configuration: configuration.clone(),
                set: set.name.clone(),
                peer: peer.clone(),
                board: board.clone(),
                control: control.clone(),
                lines: Lines::new(journal.clone(), Some(&set.name), Some(peer)),
            };
            followers.entry(set.name.clone()).or_default().push(control);
            threads.push(spawn(&format!("{} to {peer}", set.name), move || follower.run())?);
        }
    }
    Ok((followers, threads))
}

/// Writes the status, and hears signals, until one says that it is over.
fn attend(
    signals: &Receiver<Signal>,
    board: &Board,
    file: &std::path::Path,
    lines: &Lines,
    mut reload: impl FnMut() -> Option<()>,
) {
    let (mut written, mut last, mut failed) = (Status::default(), Instant::now(), false);
    loop {
        match signals.recv_timeout(LOOK_EVERY) {
            Ok(Signal::End) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Signal::Reload) => drop(reload()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let status = board.get();
        if status == written && last.elapsed() < WRITE_EVERY {
            continue;
        }
        match status::write(file, &Status { written: now().seconds, ..status.clone() }) {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                lines.say(Level::Warning, &format!("the status file cannot be written: {error}"));
                failed = true;
            }
            Err(_) => {}
        }
        (written, last) = (status, Instant::now());
    }
}

/// Reads the configuration again. Schedule, policy and peers' keys count from now on; what a session is made of, from the
/// daemon's next start.
fn reload(file: &std::path::Path, current: &Mutex<Arc<Configuration>>, lines: &Lines) -> Option<Arc<Configuration>> {
    let read = file::load(file).and_then(|loaded| loaded.configuration());
    let new = match read {
        Ok(configuration) => Arc::new(configuration),
        Err(error) => {
            lines.say(Level::Error, &format!("the configuration stays as it was: {error}"));
            return None;
        }
    };
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    let is_other = |name: &String| {
        let keep = |configuration: &Configuration| {
            let set = configuration.sets.get(name)?;
            Some((set.path.clone(), set.role, set.peers.clone(), set.filters.clone()))
        };
        keep(&current) != keep(&new)
    };
    let names = current.sets.keys().chain(new.sets.keys().filter(|name| !current.sets.contains_key(*name)));
    let others: Vec<&String> = names.filter(|name| is_other(name)).collect();
    match others.as_slice() {
        [] => lines.say(Level::Info, "the configuration was read again"),
        others => {
            let list: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
            let sentence =
                format!("restart the daemon: what changed of {} counts from its next start", list.join(", "));
            lines.say(Level::Warning, &sentence);
        }
    }
    *current = new.clone();
    Some(new)
}

/// What is wrong with a configuration, as lines.
pub fn say_findings(findings: &[Finding], lines: &Lines) {
    for finding in findings {
        lines.say(Level::Warning, &finding.to_string());
    }
}
