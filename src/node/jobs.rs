//! What is done by the clock. Each job is a run of this program, as a person would give the command: what it needs of memory
//! goes with it, and what it says is what that person would read.

use super::control::Control;
use super::journal::{Journal, Level, Lines};
use super::schedule::{self, Due, Memory, Scheduled};
use super::sessions::Sessions;
use super::status::Board;
use crate::config::file::{Configuration, Job, Policy, Set};
use crate::disk::{DiskError, Root, now};
use crate::path::TreePath;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Looks at the clock at least so often: it may have been set.
const AT_LEAST: Duration = Duration::from_secs(30);

/// The file, in the host's state, that remembers what was done.
const FILE: &str = "schedule.json";

/// The exit code of a program that found another at work.
const LOCKED: i32 = 10;

/// What the scheduler is told.
pub enum Told {
    /// A job has ended: its set, what it was.
    Ended(String, Job),
    /// There is another configuration.
    Changed,
    /// It is to end.
    End,
}

/// Runs jobs.
pub struct Jobs {
    /// What this host is; may be replaced while it runs.
    pub configuration: Arc<Mutex<Arc<Configuration>>>,
    /// Its file, for the programs that are run.
    pub file: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Where it says what was done.
    pub board: Board,
    /// What it has to say.
    pub journal: Arc<dyn Journal>,
    /// Sessions of masters, which some jobs cannot stand beside them.
    pub sessions: Sessions,
    /// Those who follow, by set: they compare.
    pub followers: BTreeMap<String, Vec<Arc<Control>>>,
}

impl Jobs {
    /// The way to tell it something.
    pub fn channel() -> (Sender<Told>, Receiver<Told>) {
        channel()
    }

    /// Does what is due until it is told to end.
    ///
    /// # Errors
    /// Where what was done cannot be read or written down: it would be done again and again.
    pub fn run(&self, tell: &Sender<Told>, told: &Receiver<Told>) -> Result<(), DiskError> {
        let state = Root::open(&self.configuration().host.state)?;
        let mut memory = self.read(&state);
        memory.restart();
        let mut running = BTreeSet::new();
        loop {
            let configuration = self.configuration();
            let sets: Vec<Scheduled<'_>> = configuration.sets.values().map(scheduled).collect();
            let before = memory.clone();
            let agenda = schedule::agenda(&sets, &mut memory, &running, jiff::Timestamp::now());
            for due in &agenda.due {
                memory.begin(due);
            }
            if memory != before {
                write(&state, &memory)?;
            }
            for due in agenda.due {
                running.insert(due.set.clone());
                self.begin(&configuration, due, tell.clone());
            }
            let wake = agenda.wake.map(|wake| wake.duration_since(jiff::Timestamp::now()));
            let wait = wake.and_then(|wake| Duration::try_from(wake).ok()).map_or(AT_LEAST, |wake| wake.min(AT_LEAST));
            match told.recv_timeout(wait) {
                Ok(Told::Ended(name, job)) => {
                    running.remove(&name);
                    if let Some(set) = configuration.sets.get(&name) {
                        memory.end(&scheduled(set), job, jiff::Timestamp::now());
                        write(&state, &memory)?;
                    }
                }
                Ok(Told::Changed) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn configuration(&self) -> Arc<Configuration> {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self, state: &Root) -> Memory {
        use std::io::Read;
        let mut text = String::new();
        let path = TreePath::root().child(FILE);
        let Ok(file) = state.open_file(&path) else { return Memory::default() };
        let read = file.take(16 << 20).read_to_string(&mut text).map_err(|error| error.to_string());
        let memory = read.and_then(|_| serde_json::from_str(&text).map_err(|error| error.to_string()));
        memory.unwrap_or_else(|error| {
            let sentence = format!("{} cannot be read ({error}): every job waits for its next time", state.show(&path));
            Lines::new(self.journal.clone(), None, None).say(Level::Warning, &sentence);
            Memory::default()
        })
    }

    fn begin(&self, configuration: &Configuration, due: Due, tell: Sender<Told>) {
        let lines = Lines::new(self.journal.clone(), Some(&due.set), None);
        let Some(set) = configuration.sets.get(&due.set) else { return };
        if due.job == Job::Compare {
            self.followers.get(&due.set).into_iter().flatten().for_each(|control| control.compare());
            // Who listens ends with the process.
            let _ = tell.send(Told::Ended(due.set, due.job));
            return;
        }
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.file).args(words(set, due.job, due.slot.as_second()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (board, name) = (self.board.clone(), job_name(due.job));
        board.job(&due.set, name, |job| (job.begun, job.ended, job.code) = (now().seconds, None, None));
        let sessions = self.sessions.clone();
        let run = move || {
            let (mut code, mut said) = carried_out(&mut command);
            if code == LOCKED {
                // The first restore point is read from the mirror, and nobody may change that meanwhile.
                lines.say(Level::Info, &format!("{name}: sessions wait until it has been done"));
                let alone = sessions.alone(&due.set);
                (code, said) = carried_out(&mut command);
                drop(alone);
            }
            let level = if code == 0 { Level::Info } else { Level::Error };
            lines.say(
                level,
                &format!("{name}: {said}{}", if code == 0 { String::new() } else { format!(" (exit code {code})") }),
            );
            board.job(&due.set, name, |job| (job.ended, job.code, job.said) = (Some(now().seconds), Some(code), said));
            let _ = tell.send(Told::Ended(due.set, due.job));
        };
        std::thread::spawn(run);
    }
}

/// Runs a command; gives its exit code, and what it said last.
fn carried_out(command: &mut Command) -> (i32, String) {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return (-1, format!("cannot be run: {error}")),
    };
    let last = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().lines().last().unwrap_or_default().to_owned();
    let said = Some(last(&output.stderr)).filter(|said| !said.is_empty()).unwrap_or_else(|| last(&output.stdout));
    (output.status.code().unwrap_or(-1), said)
}

fn scheduled(set: &Set) -> Scheduled<'_> {
    Scheduled { set: &set.name, role: set.role, schedule: &set.schedule }
}

fn write(state: &Root, memory: &Memory) -> Result<(), DiskError> {
    let (path, draft) = (TreePath::root().child(FILE), TreePath::root().child(".schedule.json.new"));
    match state.remove(&draft) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let mut writer = state.create(&draft, 0o600)?;
    writer.write(serde_json::to_string(memory).unwrap_or_default().as_bytes())?;
    writer.sync()?;
    state.rename(&draft, &path)?;
    state.sync_directory(&TreePath::root())
}

/// What a job is called in the status.
fn job_name(job: Job) -> &'static str {
    match job {
        Job::Full => "full",
        Job::Differential => "differential",
        Job::Expire => "expire",
        Job::Verify => "verify",
        Job::Drill => "drill",
        Job::Compare => "compare",
    }
}

/// The command of a job.
fn words(set: &Set, job: Job, slot: i64) -> Vec<OsString> {
    let Policy { keep_full, keep_diff, keep_log, verify_parts, drill_mailboxes } = &set.policy;
    let mut words: Vec<String> = match job {
        Job::Full => vec!["backup".into(), "--full".into()],
        // One that has no full yet to differ from is a full.
        Job::Differential => vec!["backup".into(), "--full-every".into(), "36500d".into()],
        Job::Verify => {
            let parts = i64::from((*verify_parts).max(1));
            vec!["verify".into(), "--sample".into(), format!("{}/{parts}", (slot / 86_400).rem_euclid(parts) + 1)]
        }
        Job::Drill => vec!["drill".into(), "--mailboxes".into(), drill_mailboxes.to_string()],
        Job::Expire => vec!["expire".into()],
        Job::Compare => Vec::new(),
    };
    if job == Job::Expire {
        let keeps = [
            ("--keep-full", keep_full.map(|keep| keep.to_string())),
            ("--keep-diff", keep_diff.map(|keep| keep.to_string())),
        ];
        for (option, value) in keeps {
            words.extend(value.into_iter().flat_map(|value| [option.to_owned(), value]));
        }
        words.extend(keep_log.iter().flat_map(|keep| ["--keep-log".to_owned(), format!("{}s", keep.as_secs())]));
    }
    words.push(set.name.clone());
    words.into_iter().map(OsString::from).collect()
}
