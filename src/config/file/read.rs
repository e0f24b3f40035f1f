//! The text into a [`Configuration`], table by table. What is missing gets its default; what is wrong is noted, and read
//! on.

use super::table::{Notes, Table, Wrong};
use super::{
    Act, Configuration, Cron, Finding, Hooks, Host, Job, Limits, Log, LogFormat, LogLevel, Metrics, Peer, Policy, Role,
    Schedule, Set, Severity, Transport, check, value,
};
use crate::config::owners;
use crate::maildir::folder::SetKind;
use crate::peer::host_key;
use crate::sync::guard::Limit;
use crate::transport::tls as transport;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeTable;

/// When no one writes when: the design's policy, a weekly full and a daily differential, and a look at both.
const SCHEDULE: [(Job, &str); 6] = [
    (Job::Full, "0 3 * * 0"),
    (Job::Differential, "0 3 * * *"),
    (Job::Expire, "0 5 * * *"),
    (Job::Verify, "30 5 * * *"),
    (Job::Drill, "0 7 * * 6"),
    (Job::Compare, "0 1 * * 6"),
];

/// A job is put off by no more than this: a slot a day must stay one of its day.
const JITTER_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// Changes are kept waiting no longer than this.
const GATHER_MAX: Duration = Duration::from_secs(60 * 60);

/// How long a peer may say nothing, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Longest that anything may be told to take or to be kept: a hundred years.
const LONG: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// What this host is where the file does not say it.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The system's name.
    pub host: String,
    /// Where state is kept.
    pub state: PathBuf,
    /// The system's time zone.
    pub timezone: TimeZone,
}

/// What a text says, and what is wrong with it.
pub struct Reading {
    /// What it says; of use only where no finding is an error.
    pub configuration: Configuration,
    /// Everything that is wrong, by line.
    pub findings: Vec<Finding>,
    /// The line of each key.
    pub lines: BTreeMap<String, usize>,
    /// Every key that there is, written or not: `set.NAME.path` with the names that were written.
    pub keys: BTreeSet<String>,
}

/// Reads a text. Looks at nothing but the lists of users, groups and time zones.
pub fn read(text: &str, defaults: &Defaults) -> Reading {
    let notes = Notes::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut configuration = whole(&mut Table::whole(&notes, &DeTable::new()), defaults);
    if errors.is_empty() {
        let mut table = Table::whole(&notes, table.get_ref());
        configuration = whole(&mut table, defaults);
        table.finish();
        check::whole(&configuration, &notes);
    }
    let mut findings = notes.findings.take();
    // One slip makes the parser stumble several times: a line is named once.
    let mut named = BTreeSet::new();
    for error in &errors {
        let line = error.span().map(|span| notes.line_of(span.start));
        if named.insert(line) {
            let what = format!("it is no TOML: {}", error.message());
            let hint = "look for a quote, bracket or = that is missing, on this line or before it".to_owned();
            findings.push(Finding { severity: Severity::Error, line, key: String::new(), what, hint });
        }
    }
    findings.sort_by_key(|finding| (finding.line, finding.severity));
    findings.dedup();
    Reading { configuration, findings, lines: notes.lines.take(), keys: notes.asked.take() }
}

fn whole(table: &mut Table<'_>, defaults: &Defaults) -> Configuration {
    let schedule = schedule(table.table("schedule"), &default_schedule(defaults));
    let policy = policy(table.table("policy"), &DEFAULT_POLICY);
    let hooks = hooks(table.table("hooks"), &DEFAULT_HOOKS);
    let host = host(table.table("host"), defaults);
    let peers = table.named("peer").into_iter().filter_map(|(name, table)| Some((name.clone(), peer(name, table)?)));
    let peers = peers.collect();
    let all = Shared { schedule, policy, hooks };
    let sets = table.named("set").into_iter().filter_map(|(name, table)| Some((name.clone(), set(name, table, &all)?)));
    let sets = sets.collect();
    Configuration {
        host,
        peers,
        sets,
        limits: limits(table.table("limits")),
        log: log(table.table("log")),
        metrics: metrics(table.table("metrics")),
    }
}

/// What sets have of their own, or in common.
struct Shared {
    schedule: Schedule,
    policy: Policy,
    hooks: Hooks,
}

const DEFAULT_POLICY: Policy =
    Policy { keep_full: None, keep_diff: None, keep_log: None, verify_parts: 1, drill_mailboxes: 3 };

const DEFAULT_HOOKS: Hooks =
    Hooks { before: BTreeMap::new(), after: BTreeMap::new(), timeout: Duration::from_secs(10 * 60), user: None };

fn default_schedule(defaults: &Defaults) -> Schedule {
    let jobs = SCHEDULE.iter().filter_map(|(job, text)| Some((*job, Cron::parse(text).ok()?)));
    Schedule {
        jobs: jobs.collect(),
        timezone: defaults.timezone.clone(),
        jitter: Duration::ZERO,
        quiet: Vec::new(),
        bandwidth: Vec::new(),
    }
}

fn host(mut table: Table<'_>, defaults: &Defaults) -> Host {
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), transport::PORT);
    let host = Host {
        name: table.value("name", value::name).unwrap_or_else(|| defaults.host.clone()),
        state: table.value("state", value::path).unwrap_or_else(|| defaults.state.clone()),
        listen: table.value("listen", value::listen).unwrap_or(Some(everywhere)),
        key: table.value("key", value::path).unwrap_or_else(|| host_key::DEFAULT_FILE.into()),
        status: table.value("status", value::path).unwrap_or_else(|| "/run/mailtwin/status.json".into()),
    };
    table.finish();
    host
}

fn peer(name: String, mut table: Table<'_>) -> Option<Peer> {
    named(&name, &table);
    let is_ssh = table.value("transport", |text| match text {
        "tls" => Ok(false),
        "ssh" => Ok(true),
        _ => Err(Wrong::new(format!("there is no transport \"{text}\""), "write \"tls\" or \"ssh\"")),
    });
    // What was meant is not to be guessed from the rest where it is written and wrong.
    let transport = match is_ssh {
        Some(true) => ssh(&mut table),
        Some(false) => tls(&mut table),
        None if table.has("transport") => {
            let _ = ["address", "key", "rsh", "remote_path"].map(|key| table.value(key, |_| Ok(())));
            None
        }
        None => tls(&mut table),
    };
    let timeout = table.value("timeout", |text| match text {
        "never" => Ok(None),
        _ => value::duration_within(text, Duration::from_secs(1), LONG).map(Some),
    });
    let level = table.number("level", 0..=19, None).flatten().and_then(|level| i32::try_from(level).ok());
    table.finish();
    Some(Peer { name, transport: transport?, timeout: timeout.unwrap_or(Some(TIMEOUT)), level })
}

fn tls(table: &mut Table<'_>) -> Option<Transport> {
    let address = table.value("address", value::address);
    let is_wrong = address.is_none() && table.has("address");
    let key = table.value("key", value::key);
    if !table.has("key") {
        let hint = "pair the two hosts with mailtwin pair, which writes it; or write transport = \"ssh\"";
        table.wrong("key", Wrong::new("it is missing, and with TLS nothing else says who the peer is", hint));
    }
    for option in ["rsh", "remote_path"] {
        if table.value(option, |_| Ok(())).is_some() || table.has(option) {
            table.wrong(option, Wrong::new("it is of no use with TLS", "take it out, or write transport = \"ssh\""));
        }
    }
    (!is_wrong).then_some(Transport::Tls { address, key: key? })
}

fn ssh(table: &mut Table<'_>) -> Option<Transport> {
    let address = table.value("address", value::destination);
    if !table.has("address") {
        table.wrong(
            "address",
            Wrong::new("it is missing", "write the host as ssh takes it, as \"vmail@mx2.example.org\""),
        );
    }
    if table.value("key", |_| Ok(())).is_some() || table.has("key") {
        table.wrong(
            "key",
            Wrong::new("ssh knows the peer by its own means", "take it out, or write transport = \"tls\""),
        );
    }
    let (rsh, remote_path) = (table.text("rsh"), table.text("remote_path"));
    Some(Transport::Ssh { address: address?, rsh, remote_path })
}

/// The name of a table is one that can be typed.
fn named(name: &str, table: &Table<'_>) {
    if let Err(wrong) = value::name(name) {
        table.wrong_itself(wrong);
    }
}

fn set(name: String, mut table: Table<'_>, shared: &Shared) -> Option<Set> {
    named(&name, &table);
    let path = table.value("path", value::path);
    if !table.has("path") {
        table.wrong("path", Wrong::new("it is missing", "write where the set is on this host, as \"/var/vmail\""));
    }
    let role = table.value("role", |text| match text {
        "master" => Ok(Role::Master),
        "slave" => Ok(Role::Slave),
        _ => Err(Wrong::new(format!("there is no role \"{text}\""), "write \"master\" or \"slave\"")),
    });
    if !table.has("role") {
        let hint = "write \"master\" where the mail is served, \"slave\" where the mirror is kept";
        table.wrong("role", Wrong::new("it is missing", hint));
    }
    let kind = table.value("kind", |text| match text {
        "maildir" => Ok(SetKind::Maildir),
        "files" => Ok(SetKind::Files),
        _ => Err(Wrong::new(format!("there is no kind \"{text}\""), "write \"maildir\" or \"files\"")),
    });
    let peers = table.texts("peers", |text| Ok(text.to_owned())).unwrap_or_default();
    let (mirror, state) = (table.value("mirror", value::path), table.value("state", value::path));
    let filters = filters(&mut table);
    let chown = table.value("chown", |text| owners(text).map_err(|sentence| Wrong::new(sentence, "")));
    let max_delete = table.value("max_delete", |text| Limit::parse(text).map_err(|sentence| Wrong::new(sentence, "")));
    let over_live = table.flag("over_live").unwrap_or(false);
    let schedule = schedule(table.table("schedule"), &shared.schedule);
    let policy = policy(table.table("policy"), &shared.policy);
    let hooks = hooks(table.table("hooks"), &shared.hooks);
    table.finish();
    Some(Set {
        name,
        path: path?,
        kind,
        role: role?,
        peers,
        mirror,
        state,
        filters,
        chown,
        max_delete: max_delete.unwrap_or_default(),
        over_live,
        schedule,
        policy,
        hooks,
    })
}

/// The last pattern that matches decides: what is taken in comes after what is left out.
fn filters(table: &mut Table<'_>) -> Vec<String> {
    let pattern = |text: &str| match text.is_empty() || text.contains('\n') {
        true => Err(Wrong::new("a pattern is empty, or has more than one line", "write one as .gitignore has it")),
        false => Ok(text.to_owned()),
    };
    let exclude = table.texts("exclude", pattern).unwrap_or_default();
    let include = table.texts("include", pattern).unwrap_or_default();
    exclude.into_iter().chain(include.into_iter().map(|pattern| format!("!{pattern}"))).collect()
}

fn schedule(mut table: Table<'_>, base: &Schedule) -> Schedule {
    let mut jobs = base.jobs.clone();
    for job in Job::ALL {
        match table.value(job.name(), value::cron) {
            Some(Some(cron)) => drop(jobs.insert(job, cron)),
            Some(None) => drop(jobs.remove(&job)),
            None => {}
        }
    }
    let jitter = table.value("jitter", |text| value::duration_within(text, Duration::ZERO, JITTER_MAX));
    let quiet = table.tables("quiet", "write [{ from = \"08:00\", to = \"18:00\" }]", value::window);
    let hint = "write [{ from = \"08:00\", to = \"18:00\", rate = \"2M\" }]";
    let bandwidth = table.tables("bandwidth", hint, value::rate_window);
    let schedule = Schedule {
        jobs,
        timezone: table.value("timezone", value::zone).unwrap_or_else(|| base.timezone.clone()),
        jitter: jitter.unwrap_or(base.jitter),
        quiet: quiet.unwrap_or_else(|| base.quiet.clone()),
        bandwidth: bandwidth.unwrap_or_else(|| base.bandwidth.clone()),
    };
    table.finish();
    schedule
}

fn policy(mut table: Table<'_>, base: &Policy) -> Policy {
    let all = Some("all");
    let policy = Policy {
        keep_full: table.number("keep_full", 1..=u32::MAX, all).unwrap_or(base.keep_full),
        keep_diff: table.number("keep_diff", 1..=u32::MAX, all).unwrap_or(base.keep_diff),
        keep_log: table
            .value("keep_log", |text| match text {
                "all" => Ok(None),
                _ => value::duration_within(text, Duration::ZERO, LONG).map(Some),
            })
            .unwrap_or(base.keep_log),
        verify_parts: table.number("verify_parts", 1..=1000, None).flatten().unwrap_or(base.verify_parts),
        drill_mailboxes: table.number("drill_mailboxes", 1..=1000, None).flatten().unwrap_or(base.drill_mailboxes),
    };
    table.finish();
    policy
}

/// The keys of hooks, before and after.
const HOOKS: [(Act, &str, &str); 6] = [
    (Act::Sync, "pre_sync", "post_sync"),
    (Act::Backup, "pre_backup", "post_backup"),
    (Act::Restore, "pre_restore", "post_restore"),
    (Act::Verify, "pre_verify", "post_verify"),
    (Act::Drill, "pre_drill", "post_drill"),
    (Act::Expire, "pre_expire", "post_expire"),
];

fn hooks(mut table: Table<'_>, base: &Hooks) -> Hooks {
    let mut hooks = base.clone();
    for (act, pre, post) in HOOKS {
        hooks.before.extend(table.command(pre).map(|command| (act, command)));
        hooks.after.extend(table.command(post).map(|command| (act, command)));
    }
    let timeout = table.value("timeout", |text| value::duration_within(text, Duration::from_secs(1), LONG));
    hooks.timeout = timeout.unwrap_or(base.timeout);
    let user = table.value("user", |text| match uzers::get_user_by_name(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(Wrong::new(format!("there is no user \"{text}\" on this host"), "make one, or name another")),
    });
    hooks.user = user.or(hooks.user);
    table.finish();
    hooks
}

fn limits(mut table: Table<'_>) -> Limits {
    let second = Duration::from_secs(1);
    let limits = Limits {
        bandwidth: table.value("bandwidth", value::rate).flatten(),
        watches: table.number("watches", 1..=u32::MAX, None).flatten().map(u64::from),
        gather: table
            .value("gather", |text| value::duration_within(text, Duration::ZERO, GATHER_MAX))
            .unwrap_or(Duration::from_millis(250)),
        rescan: table
            .value("rescan", |text| value::duration_within(text, second, LONG))
            .unwrap_or(Duration::from_secs(10 * 60)),
    };
    table.finish();
    limits
}

fn log(mut table: Table<'_>) -> Log {
    let format = table.value("format", |text| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new(format!("there is no format \"{text}\""), "write \"text\" or \"json\"")),
    });
    let level = table.value("level", |text| match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        _ => {
            Err(Wrong::new(format!("there is no level \"{text}\""), "write \"error\", \"warn\", \"info\" or \"debug\""))
        }
    });
    table.finish();
    Log { format: format.unwrap_or(LogFormat::Text), level: level.unwrap_or(LogLevel::Info) }
}

fn metrics(mut table: Table<'_>) -> Metrics {
    let listen = table.value("listen", value::listen).flatten();
    table.finish();
    Metrics { listen }
}
