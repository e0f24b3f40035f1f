//! `mailtwin status`: how things stand, for a person.

use super::configured::Configured;
use super::error::print;
use super::standby::{Failure, run as running, shown};
use crate::config::file::{Role, Set};
use crate::disk::now;
use crate::maildir::entry::Time;
use crate::node::health::{self, Behind, span};
use crate::node::kept::{self, Kept};
use crate::node::status::{self, PeerStatus, SetStatus, Status};
use crate::path::escape;
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Between two looks of `--watch`.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Moves to the upper left, and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The set [default: all of the configuration]
    #[arg(value_name = "SET")]
    pub set: Option<OsString>,

    /// Print one object on standard output
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,

    /// Show it anew each second, on a terminal
    #[arg(long)]
    pub watch: bool,
}

/// How things stand.
pub struct Standing<'a> {
    /// What the daemon wrote, or why it does not run.
    pub running: Result<Status, String>,
    /// What it wrote, though it may not run any more.
    pub written: Option<Status>,
    /// The sets that are meant.
    pub sets: Vec<SetStanding<'a>>,
    /// When that was, in seconds since 1970.
    pub now: i64,
}

/// How a set stands.
pub struct SetStanding<'a> {
    /// By the configuration.
    pub set: &'a Set,
    /// By the daemon.
    pub status: Option<SetStatus>,
    /// What is kept, where this host is the slave.
    pub kept: Option<Result<Kept, String>>,
}

impl<'a> Standing<'a> {
    /// Looks at the set of this name, or at all.
    ///
    /// # Errors
    /// Where there is no such set, or no configuration.
    pub fn look(configured: &'a Configured, typed: Option<&OsStr>) -> Result<Self, Failure> {
        let sets = configured.sets(typed)?;
        let file = &configured.needed()?.host.status;
        let now = now().seconds;
        let (written, failed) = match status::read(file) {
            Ok(written) => (written, None),
            Err(sentence) => (None, Some(sentence)),
        };
        let running = match (failed, &written) {
            (Some(sentence), _) => Err(sentence),
            (None, None) => Err(format!("there is no {}", escape(file.as_os_str().as_bytes()))),
            (None, written) => health::running(written.as_ref(), lives, now).cloned(),
        };
        let stand = |set: &'a Set| {
            let status = written.as_ref().and_then(|written| written.sets.get(&set.name)).cloned();
            let is_slave = status.as_ref().map_or(set.role == Role::Slave, |status| status.role == "slave");
            SetStanding { set, status, kept: is_slave.then(|| kept::look(set)) }
        };
        let sets = sets.into_iter().map(stand).collect();
        Ok(Self { running, written, sets, now })
    }
}

/// Whether a process lives; that it is another user's does not matter.
fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let asked = pid.map(rustix::process::test_kill_process);
    matches!(asked, Some(Ok(()) | Err(rustix::io::Errno::PERM)))
}

/// Tells how things stand and gives the exit code.
pub fn run(arguments: &Arguments, configured: &Configured) -> u8 {
    running(|| {
        let look = || Standing::look(configured, arguments.set.as_deref());
        if arguments.watch && std::io::stdout().is_terminal() {
            loop {
                print(&format!("{CLEAR}{}", lines(&look()?).join("\n")));
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        let standing = look()?;
        match arguments.json {
            true => print(&object(&standing).to_string()),
            false => print(&lines(&standing).join("\n")),
        }
        Ok(if standing.running.is_ok() { 0 } else { 1 })
    })
}

fn object(standing: &Standing<'_>) -> Value {
    let mut object = json!(standing.written.clone().unwrap_or_default());
    object["running"] = json!(standing.running.is_ok());
    object["why_not"] = json!(standing.running.as_ref().err());
    let sets = standing.sets.iter().map(|standing| {
        let unknown = || SetStatus { role: role(standing).to_owned(), path: path(standing), ..SetStatus::default() };
        let mut object = json!(standing.status.clone().unwrap_or_else(unknown));
        object["points"] = json!(standing.kept.as_ref().and_then(|kept| kept.as_ref().ok()).map(Kept::json));
        object["points_error"] = json!(standing.kept.as_ref().and_then(|kept| kept.as_ref().err()));
        (standing.set.name.clone(), object)
    });
    object["sets"] = Value::Object(sets.collect());
    object
}

fn role<'a>(standing: &'a SetStanding<'_>) -> &'a str {
    match (&standing.status, standing.set.role) {
        (Some(status), _) => &status.role,
        (None, Role::Master) => "master",
        (None, Role::Slave) => "slave",
    }
}

fn path(standing: &SetStanding<'_>) -> String {
    escape(standing.set.path.as_os_str().as_bytes())
}

fn at(seconds: i64) -> String {
    shown(Time { seconds, nanos: 0 })
}

fn item(name: &str, words: &str) -> String {
    format!("  {name:<16}  {}", escape(words.as_bytes()))
}

fn lines(standing: &Standing<'_>) -> Vec<String> {
    let now = standing.now;
    let mut lines = vec![match &standing.running {
        Ok(status) => format!("mailtwin run is running on {}, since {}", status.host, at(status.since)),
        Err(why) => format!("mailtwin run is NOT running: {why}"),
    }];
    if let (Err(_), Some(written)) = (&standing.running, &standing.written) {
        lines.push(format!("what follows is of {}, {} ago", at(written.written), span(now - written.written)));
    }
    for set in &standing.sets {
        lines.push(String::new());
        lines.push(format!("{}: {} of {}", set.set.name, role(set), path(set)));
        match (&standing.written, &set.status) {
            (Some(written), Some(status)) => daemon(&mut lines, status, written, now),
            (Some(_), None) => lines.push(item("unknown", "the daemon was started without this set")),
            (None, _) => {}
        }
        match &set.kept {
            Some(Ok(kept)) => keeping(&mut lines, kept, now),
            Some(Err(sentence)) => lines.push(item("restore points", sentence)),
            None => {}
        }
    }
    lines
}

/// What the daemon knows of a set.
fn daemon(lines: &mut Vec<String>, set: &SetStatus, status: &Status, now: i64) {
    for (name, peer) in &set.peers {
        let state = format!("{}, for {}", peer.state, span(now - peer.since));
        lines.push(item(name, &state));
        if let Some(position) = &peer.position {
            lines.push(item("  position", position));
        }
        if set.role == "master" {
            lag(lines, peer, status, now);
        }
        if let Some(moment) = peer.in_sync_at {
            lines.push(item("  in sync", &format!("{}, {} ago", at(moment), span(now - moment))));
        }
        if let Some(stopped) = &peer.stopped {
            lines.push(item("  STOPPED", stopped));
        }
        if let Some(error) = &peer.error {
            lines.push(item("  last error", &format!("{error} (failures: {})", peer.failures)));
        }
        peer.notices.iter().for_each(|notice| lines.push(item("  watching", notice)));
    }
    if set.role == "slave" {
        let words = match health::silent_since(set, status) {
            None => "what a master has not sent yet: it knows how much that is".to_owned(),
            Some(since) => format!("everything since {}: no master for {}", at(since), span(now - since)),
        };
        lines.push(item("lost if promoted", &words));
    }
    for (name, job) in &set.jobs {
        let words = match (job.ended, job.code) {
            (Some(ended), Some(0)) => format!("done {}", at(ended)),
            (Some(ended), code) => {
                let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
                format!("FAILED {} (exit code {code}): {}", at(ended), job.said)
            }
            (None, _) => format!("is being done, for {}", span(now - job.begun)),
        };
        lines.push(item(&format!("last {name}"), &words));
    }
}

fn lag(lines: &mut Vec<String>, peer: &PeerStatus, status: &Status, now: i64) {
    let behind = health::behind(peer);
    let seconds = span(behind.seconds(status, now) as i64);
    let (lag, lost) = match behind {
        Behind::Nothing => ("0 folders, 0 s".to_owned(), "nothing that was heard of".to_owned()),
        Behind::Folders(folders, _) => (
            format!("{folders} folders, {seconds}"),
            format!("what changed in {folders} folders in the last {seconds}"),
        ),
        Behind::Since(moment) => (format!("up to {seconds}"), format!("what changed since {}", at(moment))),
        Behind::Everything => ("unknown".to_owned(), "it never had everything: do not promote it".to_owned()),
    };
    lines.push(item("  lag", &lag));
    lines.push(item("  lost if promoted", &lost));
}

/// What is kept on a slave.
fn keeping(lines: &mut Vec<String>, kept: &Kept, now: i64) {
    let ago = |moment: i64| format!("{}, {} ago", at(moment), span(now - moment));
    let points = match &kept.last {
        None => "none".to_owned(),
        Some((label, moment)) => format!("{}; the newest {label}, {}", kept.points, ago(*moment)),
    };
    lines.push(item("restore points", &points));
    kept.wrong.iter().for_each(|sentence| lines.push(item("  UNREADABLE", sentence)));
    lines.push(item("last verified", &kept.verified.map_or_else(|| "never".to_owned(), ago)));
    let drilled = kept.drilled.as_ref().map(|drilled| {
        let result = super::points::result(drilled.is_whole);
        format!("{}: {result}", ago(drilled.when.seconds))
    });
    lines.push(item("last drill", &drilled.unwrap_or_else(|| "never".to_owned())));
    lines.push(item("disk", &format!("{:.0}% full, inodes {:.0}%", kept.disk.bytes, kept.disk.inodes)));
}
