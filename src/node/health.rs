//! Judges how a set stands: what is wrong, how bad it is, and the figures behind it.
//!
//! Pure: status, what is kept and the time go in. How far a slave is behind is told by [`behind`], for a person and for a
//! judgement alike.

use super::kept::Kept;
use super::status::{PeerStatus, SetStatus, Status};
use crate::config::file::{Job, Schedule};
use crate::moment;

#[cfg(test)]
mod tests;

/// A daemon that has written nothing for so many seconds does not run: it writes every ten.
pub const SILENCE: i64 = 60;

/// The exit code of a job that found another at work, which is nothing to tell anybody of.
const BUSY: i32 = 10;

/// How bad it is; the order in which the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Somebody should look, today or tomorrow.
    Warning,
    /// Nobody can tell.
    Unknown,
    /// Somebody should look now.
    Critical,
}

impl Level {
    /// As Nagios names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Critical => "CRITICAL",
        }
    }

    /// As Nagios counts it.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Beyond this it is a warning; nothing warns where there is none.
    pub warning: Option<f64>,
    /// Beyond this it is critical.
    pub critical: f64,
    /// Somebody asked for it: it is judged, whatever the schedule says.
    pub asked: bool,
}

impl Limit {
    /// Reads `CRITICAL`, or `WARNING,CRITICAL`.
    ///
    /// # Errors
    /// A sentence for the person who typed it.
    pub fn parse(typed: &str, read: impl Fn(&str) -> Result<f64, String>) -> Result<Self, String> {
        let Some((warning, critical)) = typed.split_once(',') else {
            return Ok(Self { warning: None, critical: read(typed)?, asked: true });
        };
        let (warning, critical) = (read(warning)?, read(critical)?);
        match warning <= critical {
            true => Ok(Self { warning: Some(warning), critical, asked: true }),
            false => Err(format!("\"{typed}\": the first is the warning, and is not beyond the second")),
        }
    }

    /// How bad a figure is.
    pub fn level(&self, figure: f64) -> Level {
        match self.warning {
            _ if figure > self.critical => Level::Critical,
            Some(warning) if figure > warning => Level::Warning,
            _ => Level::Ok,
        }
    }
}

/// Reads a length of time as seconds.
///
/// # Errors
/// A sentence where it is none.
pub fn seconds(typed: &str) -> Result<f64, String> {
    moment::duration(typed).map(|length| length.as_secs_f64()).map_err(|error| error.to_string())
}

/// Reads a share.
///
/// # Errors
/// A sentence where it is none.
pub fn percent(typed: &str) -> Result<f64, String> {
    let share = typed.strip_suffix('%').unwrap_or(typed).parse::<f64>().ok();
    share.filter(|share| (0.0..=100.0).contains(share)).ok_or_else(|| format!("\"{typed}\" is no share such as 90%"))
}

/// What all figures may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// How far a slave is behind, and how long a slave hears of no master; seconds.
    pub lag: Limit,
    /// Seconds since the newest restore point.
    pub point_age: Limit,
    /// Seconds since points were last verified.
    pub verify_age: Limit,
    /// How full the disk is, in percent.
    pub disk: Limit,
}

/// Of which set, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// When what is done.
    pub schedule: &'a Schedule,
    /// All that the daemon wrote, where it runs.
    pub status: Option<&'a Status>,
    /// What it wrote of the set.
    pub set: Option<&'a SetStatus>,
    /// What is kept, where this host is the slave.
    pub kept: Option<&'a Result<Kept, String>>,
    /// Seconds since 1970.
    pub now: i64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What.
    pub sentence: String,
}

/// A figure, for those who draw them.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Of what; letters, digits, dots.
    pub name: String,
    /// How much.
    pub value: f64,
    /// `s`, `%`, `c` for what only grows, or nothing.
    pub unit: &'static str,
    /// What it may be.
    pub limit: Option<Limit>,
}

/// A judgement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is as it should be, in short.
    pub fine: Vec<String>,
    /// The figures.
    pub measures: Vec<Measure>,
}

impl Judgement {
    /// As bad as the worst.
    pub fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    fn find(&mut self, level: Level, sentence: String) {
        match level {
            Level::Ok => self.fine.push(sentence),
            _ => self.findings.push(Finding { level, sentence }),
        }
    }

    fn measure(&mut self, name: impl Into<String>, value: f64, unit: &'static str, limit: Option<Limit>) {
        self.measures.push(Measure { name: name.into(), value, unit, limit });
    }
}

/// Why the daemon does not run, where it does not; `lives` says whether its process does.
///
/// # Errors
/// The sentence.
pub fn running(status: Option<&Status>, lives: impl FnOnce(u32) -> bool, now: i64) -> Result<&Status, String> {
    let status = status.ok_or("it has written no status")?;
    let silent = now.saturating_sub(status.written);
    match status.pid {
        pid if !lives(pid) => Err(format!("its process {pid} is gone")),
        pid if silent > SILENCE => Err(format!("its process {pid} has written no status for {}", span(silent))),
        _ => Ok(status),
    }
}

/// How far a slave is behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behind {
    /// Everything that was heard of is durable there.
    Nothing,
    /// So many folders, the oldest for so many seconds.
    Folders(u64, f64),
    /// Everything since this moment may be missing: nobody listens, or not all was looked at yet.
    Since(i64),
    /// Everything: it never had all of it.
    Everything,
}

impl Behind {
    /// In seconds; what was never there is as old as the daemon.
    pub fn seconds(self, status: &Status, now: i64) -> f64 {
        let age = |since: i64| now.saturating_sub(since).max(0) as f64;
        match self {
            Self::Nothing => 0.0,
            Self::Folders(_, lag) => lag + age(status.written),
            Self::Since(moment) => age(moment),
            Self::Everything => age(status.since),
        }
    }
}

/// How far a slave is behind, by what its master knows.
pub fn behind(peer: &PeerStatus) -> Behind {
    let whole = peer.durable_at.max(peer.in_sync_at);
    match (peer.state.as_str(), whole) {
        ("following", _) if peer.folders_waiting == 0 => Behind::Nothing,
        ("following", _) => Behind::Folders(peer.folders_waiting, peer.lag_seconds),
        (_, Some(moment)) => Behind::Since(moment),
        (_, None) => Behind::Everything,
    }
}

/// Since when a slave has heard of no master; `None` while it does.
pub fn silent_since(set: &SetStatus, status: &Status) -> Option<i64> {
    let is_serving = set.peers.values().any(|peer| peer.state == "serving");
    let heard = set.peers.values().map(|peer| peer.since).max();
    (!is_serving).then(|| heard.unwrap_or(status.since))
}

/// Judges a set.
pub fn judge(facts: &Facts<'_>, limits: &Limits) -> Judgement {
    let mut judgement = Judgement::default();
    match (facts.status, facts.set) {
        (Some(status), Some(set)) => {
            match set.role.as_str() {
                "slave" => silence(&mut judgement, status, set, facts.now, limits),
                _ => set.peers.iter().for_each(|(name, peer)| {
                    lag(&mut judgement, name, peer, status, facts.now, limits);
                }),
            }
            jobs(&mut judgement, set);
        }
        (Some(_), None) => {
            let sentence = "mailtwin run knows nothing of this set: start it anew, or have it read its configuration";
            judgement.find(Level::Critical, sentence.to_owned());
        }
        // That it does not run is said once for all sets.
        (None, _) => {}
    }
    match facts.kept {
        Some(Ok(kept)) => points(&mut judgement, facts, kept, limits),
        Some(Err(sentence)) => judgement.find(Level::Unknown, sentence.clone()),
        None => {}
    }
    judgement
}

fn lag(judgement: &mut Judgement, name: &str, peer: &PeerStatus, status: &Status, now: i64, limits: &Limits) {
    let behind = behind(peer);
    let lag = behind.seconds(status, now);
    let why = peer.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    let how = match behind {
        Behind::Nothing => format!("{name} has everything"),
        Behind::Folders(1, _) => format!("{name} is 1 folder behind, for {}", span(lag as i64)),
        Behind::Folders(folders, _) => format!("{name} is {folders} folders behind, for {}", span(lag as i64)),
        Behind::Since(_) => format!("{name} ({}) may lack the last {}{why}", peer.state, span(lag as i64)),
        Behind::Everything => format!("{name} ({}) never had everything{why}", peer.state),
    };
    judgement.find(limits.lag.level(lag), how);
    if let Some(stopped) = &peer.stopped {
        judgement.find(Level::Critical, format!("{name}: {stopped}"));
    }
    judgement.measure(format!("{name}.lag"), lag, "s", Some(limits.lag));
    judgement.measure(format!("{name}.folders"), peer.folders_waiting as f64, "", None);
    judgement.measure(format!("{name}.failures"), peer.failures as f64, "c", None);
}

fn silence(judgement: &mut Judgement, status: &Status, set: &SetStatus, now: i64, limits: &Limits) {
    let silent = silent_since(set, status).map(|since| now.saturating_sub(since).max(0));
    let error = set.peers.values().find_map(|peer| peer.error.as_deref());
    let why = error.map_or_else(String::new, |error| format!(": {error}"));
    let sentence = match silent {
        None => "a master is connected".to_owned(),
        Some(silent) => format!("no master has been connected for {}{why}", span(silent)),
    };
    let silent = silent.unwrap_or(0) as f64;
    judgement.find(limits.lag.level(silent), sentence);
    judgement.measure("silent", silent, "s", Some(limits.lag));
    for (name, peer) in &set.peers {
        if let Some(stopped) = &peer.stopped {
            judgement.find(Level::Critical, format!("{name}: {stopped}"));
        }
    }
}

fn jobs(judgement: &mut Judgement, set: &SetStatus) {
    for (name, job) in &set.jobs {
        if let Some(code) = job.code.filter(|code| *code != 0 && *code != BUSY) {
            let said = if job.said.is_empty() { String::new() } else { format!(": {}", job.said) };
            judgement.find(Level::Warning, format!("the last {name} ended with exit code {code}{said}"));
        }
    }
}

fn points(judgement: &mut Judgement, facts: &Facts<'_>, kept: &Kept, limits: &Limits) {
    let has = |job: Job| facts.schedule.jobs.contains_key(&job);
    let age = |since: i64| facts.now.saturating_sub(since).max(0);
    let is_made = limits.point_age.asked || has(Job::Full) || has(Job::Differential);
    match &kept.last {
        None if kept.wrong.is_empty() && !facts.schedule.jobs.is_empty() => {
            judgement.find(Level::Warning, "there is no restore point yet".to_owned());
        }
        None => {}
        Some((_, made)) => {
            let level = if is_made { limits.point_age.level(age(*made) as f64) } else { Level::Ok };
            judgement.find(level, format!("the newest restore point is {} old", span(age(*made))));
            judgement.measure("point_age", age(*made) as f64, "s", is_made.then_some(limits.point_age));
        }
    }
    // What was never verified waits for it since the first point was made.
    if let Some(since) = kept.verified.or(kept.first) {
        let is_judged = limits.verify_age.asked || has(Job::Verify);
        let level = if is_judged { limits.verify_age.level(age(since) as f64) } else { Level::Ok };
        let sentence = match kept.verified {
            Some(_) => format!("restore points were verified {} ago", span(age(since))),
            None => format!("restore points, the first of them {} old, were never verified", span(age(since))),
        };
        judgement.find(level, sentence);
        judgement.measure("verify_age", age(since) as f64, "s", is_judged.then_some(limits.verify_age));
    }
    if !kept.wrong.is_empty() {
        let sentence = format!("{} restore points cannot be read: {}", kept.wrong.len(), kept.wrong.join("; "));
        judgement.find(Level::Critical, sentence);
    }
    if kept.drilled.as_ref().is_some_and(|drilled| !drilled.is_whole) {
        judgement.find(Level::Warning, "the last drill did not bring back everything".to_owned());
    }
    for (name, what, full) in [("disk", "disk", kept.disk.bytes), ("inodes", "table of inodes", kept.disk.inodes)] {
        judgement.find(limits.disk.level(full), format!("the {what} is {full:.0}% full"));
        judgement.measure(name, full, "%", Some(limits.disk));
    }
    judgement.measure("points", kept.points as f64, "", None);
}

/// A length of time as people say it.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0) as u64;
    let two = |large: u64, name, small: u64, other| match small {
        0 => format!("{large} {name}"),
        small => format!("{large} {name} {small} {other}"),
    };
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}
