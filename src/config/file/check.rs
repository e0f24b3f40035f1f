//! What only the whole of a configuration tells, and what only this host does.

use super::table::{Notes, Wrong, nearest};
use super::{Configuration, Finding, Job, Role, Schedule, Set, Severity, Transport, Window};
use crate::peer::host_key;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where a host's own system is: a mirror of another host's there would take its place.
const LIVE: [&str; 10] =
    ["/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/root", "/var/lib/dpkg", "/var/spool/postfix"];

/// What may be written by anybody.
const ALL_WRITE: u32 = 0o002;

const MINUTES_A_DAY: i64 = 24 * 60;

/// What must hold between the parts of a configuration.
pub fn whole(configuration: &Configuration, notes: &Notes) {
    if configuration.sets.is_empty() && !notes.has("set") {
        let wrong =
            Wrong::new("there is no set, so nothing is done", "write [set.mail] with path, role and peers below");
        notes.find(Severity::Warning, "", wrong);
    }
    for set in configuration.sets.values() {
        peers(configuration, set, notes);
        role(set, notes);
        times(set, notes);
        live(set, notes);
    }
    overlaps(configuration, notes);
    keys(configuration, notes);
    for name in configuration.peers.keys() {
        if !configuration.sets.values().any(|set| set.peers.contains(name)) {
            let wrong = Wrong::new("no set names this peer", "write its name into the peers of a set, or take it out");
            notes.find(Severity::Warning, &format!("peer.{name}"), wrong);
        }
    }
}

fn peers(configuration: &Configuration, set: &Set, notes: &Notes) {
    let key = format!("set.{}.peers", set.name);
    let error = |what: String, hint: String| notes.find(Severity::Error, &key, Wrong { what, hint });
    if set.role == Role::Master && set.peers.is_empty() {
        error("a master without peers has nobody to send to".into(), "name at least one: peers = [\"mx2\"]".into());
    }
    for (at, name) in set.peers.iter().enumerate() {
        if set.peers[..at].contains(name) {
            error(format!("{name} is named twice"), "once is enough".into());
        }
        let peer = match configuration.peers.get(name) {
            Some(peer) => peer,
            // What is wrong with it was said there.
            None if notes.has(&format!("peer.{name}")) => continue,
            None => {
                let known = configuration.peers.keys().map(String::as_str);
                let hint = match nearest(name, known) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("write [peer.{name}] with how it is reached"),
                };
                error(format!("there is no peer \"{name}\""), hint);
                continue;
            }
        };
        let Transport::Tls { address, .. } = &peer.transport else { continue };
        if set.role == Role::Master && address.is_none() {
            let hint = format!("write address = \"HOST:PORT\" below [peer.{name}]");
            error(format!("a master calls its slaves, and {name} has no address"), hint);
        }
        if set.role == Role::Master && set.mirror.is_some() {
            let what = format!("it is of no use with {name}, which is reached by TLS");
            let hint = "the configuration of that host says where the set is";
            notes.find(Severity::Warning, &format!("set.{}.mirror", set.name), Wrong::new(what, hint));
        }
        if set.role == Role::Slave && configuration.host.listen.is_none() {
            let hint = "write listen = \"[::]:8946\" below [host]".to_owned();
            error(format!("{name} calls here by TLS, and this host does not listen"), hint);
        }
    }
}

/// A host is its key: two names for one would let it do what either may.
fn keys(configuration: &Configuration, notes: &Notes) {
    let mut names = BTreeMap::new();
    for (name, peer) in &configuration.peers {
        let Transport::Tls { key, .. } = &peer.transport else { continue };
        if let Some(other) = names.insert(key, name) {
            let wrong = Wrong::new(format!("it is the key of {other}, too"), "take one of the two out");
            notes.find(Severity::Error, &format!("peer.{name}.key"), wrong);
        }
    }
}

/// What only one of the roles has a use for.
fn role(set: &Set, notes: &Notes) {
    let warn = |key: &str, what: &str, hint: &str| {
        let key = format!("set.{}.{key}", set.name);
        if notes.has(&key) {
            notes.find(Severity::Warning, &key, Wrong::new(what, hint));
        }
    };
    match set.role {
        Role::Slave => {
            for key in ["include", "exclude", "chown", "max_delete", "mirror"] {
                let hint = "it counts when this host becomes the master; until then the master's file says it";
                warn(key, "a slave has no use for it", hint);
            }
            if set.policy.keep_full.is_none() && set.policy.keep_log.is_none() {
                let hint = "write keep_full = 4 and keep_log = \"14d\" below [policy], or \"all\" where the disk is large enough";
                let key = format!("set.{}", set.name);
                let said = ["keep_full", "keep_log"]
                    .iter()
                    .any(|word| notes.has(&format!("policy.{word}")) || notes.has(&format!("{key}.policy.{word}")));
                if !said {
                    let what = "no restore point ever goes, and the disk fills";
                    notes.find(Severity::Warning, &key, Wrong::new(what, hint));
                }
            }
        }
        Role::Master => warn("state", "a master keeps its state below [host] state", "take it out: it is the slave's"),
    }
}

/// What is never, or never without what it needs.
fn times(set: &Set, notes: &Notes) {
    let Schedule { jobs, quiet, .. } = &set.schedule;
    let own = format!("set.{}.schedule", set.name);
    let find = |severity, key: &str, what: &str, hint: &str| {
        let at = format!("{own}.{key}");
        let at = if notes.has(&at) { at } else { format!("schedule.{key}") };
        notes.find(severity, &at, Wrong::new(what, hint));
    };
    if jobs.contains_key(&Job::Differential) && !jobs.contains_key(&Job::Full) {
        let hint = "write when a full is made, or differential = \"never\", too";
        find(Severity::Error, "full", "a differential needs a full, and none is ever made", hint);
    }
    if !quiet.is_empty() && is_always(quiet) {
        let hint = "leave some hours of the week for verify, drill, expire and compare";
        find(Severity::Error, "quiet", "it is quiet all the time", hint);
    }
}

/// Whether each minute of the week is in one of them.
fn is_always(windows: &[Window]) -> bool {
    let monday = jiff::civil::date(2024, 1, 1);
    let minutes = (0..7 * MINUTES_A_DAY).map(|minute| {
        let span = jiff::Span::new().minutes(minute);
        monday.at(0, 0, 0, 0).checked_add(span).and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC))
    });
    minutes.flatten().all(|at| windows.iter().any(|window| window.holds(&at)))
}

/// A mirror where this host's own system is, that nobody asked for.
fn live(set: &Set, notes: &Notes) {
    if set.over_live {
        return;
    }
    let is_live = |path: &Path| LIVE.iter().any(|live| path.starts_with(live)) || path.parent().is_none();
    let slave = (set.role == Role::Slave).then_some((&set.path, "path"));
    let master = set.mirror.as_ref().map(|mirror| (mirror, "mirror"));
    for (path, key) in slave.into_iter().chain(master).filter(|(path, _)| is_live(path)) {
        let what =
            format!("the mirror {} lies where the slave's own system is, which it would replace", path.display());
        let hint =
            format!("write another directory, as \"/srv/mailtwin/{}\"; or over_live = true if it is meant", set.name);
        notes.find(Severity::Error, &format!("set.{}.{key}", set.name), Wrong { what, hint });
    }
}

/// Two sets never share a directory, and no state lies in a master's tree.
fn overlaps(configuration: &Configuration, notes: &Notes) {
    let sets: Vec<&Set> = configuration.sets.values().collect();
    for (at, set) in sets.iter().enumerate() {
        for other in &sets[..at] {
            let relation = if set.path == other.path {
                "is that of"
            } else if set.path.starts_with(&other.path) {
                "lies inside that of"
            } else if other.path.starts_with(&set.path) {
                "has inside it that of"
            } else {
                continue;
            };
            let what = format!("{} {relation} set.{}", set.path.display(), other.name);
            let hint = "each set needs a directory of its own: change one path".to_owned();
            notes.find(Severity::Error, &format!("set.{}.path", set.name), Wrong { what, hint });
        }
        let places = [(Some(&configuration.host.state), "host.state".to_owned())];
        let own = sets.iter().map(|set| (set.state.as_ref(), format!("set.{}.state", set.name)));
        for (state, key) in places.into_iter().chain(own) {
            if let Some(state) = state.filter(|state| state.starts_with(&set.path)) {
                let what = format!("{} lies inside set.{}, and would be replicated with it", state.display(), set.name);
                let hint = "name a directory outside of every set".to_owned();
                notes.find(Severity::Error, &key, Wrong { what, hint });
            }
        }
    }
}

/// What this host says to a configuration: what is there, and who may read it.
pub fn surroundings(configuration: &Configuration, file: &Path, line: impl Fn(&str) -> Option<usize>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |severity, key: String, what: String, hint: &str| {
        findings.push(Finding { severity, line: line(&key), key, what, hint: hint.to_owned() });
    };
    if mode_of(file).is_some_and(|mode| mode & ALL_WRITE != 0) {
        let what = "anybody on this host may write this file, and so decide what is run".to_owned();
        find(Severity::Error, String::new(), what, &format!("chmod 0640 {}", file.display()));
    }
    let by_tls = configuration.peers.values().any(|peer| matches!(peer.transport, Transport::Tls { .. }));
    let key = &configuration.host.key;
    match std::fs::metadata(key) {
        Ok(there) if there.permissions().mode() & u32::from(host_key::OTHERS) != 0 => {
            let what = format!("others than its owner may read or change the secret key {}", key.display());
            find(Severity::Error, "host.key".to_owned(), what, &format!("chmod 0600 {}", key.display()));
        }
        Err(error) if by_tls && error.kind() == ErrorKind::NotFound => {
            let what = format!("{} is not there, and peers are reached by TLS", key.display());
            find(Severity::Warning, "host.key".to_owned(), what, "mailtwin pair makes it; or name its file");
        }
        _ => {}
    }
    for set in configuration.sets.values() {
        if let Some((severity, what, hint)) = path(set) {
            find(severity, format!("set.{}.path", set.name), what, hint);
        }
        let commands = set.hooks.before.values().chain(set.hooks.after.values());
        for program in commands.filter_map(|command| command.first()).filter(|program| program.starts_with('/')) {
            if mode_of(Path::new(program)).is_none_or(|mode| mode & 0o111 == 0) {
                let key = format!("set.{}.hooks", set.name);
                let what = format!("{program} is not there, or no program");
                find(Severity::Warning, key, what, "install it, or chmod +x it");
            }
        }
    }
    findings
}

fn mode_of(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode())
}

fn path(set: &Set) -> Option<(Severity, String, &'static str)> {
    let shown = set.path.display();
    match (std::fs::metadata(&set.path), set.role) {
        (Ok(there), _) if there.is_dir() => None,
        (Ok(_), _) => Some((Severity::Error, format!("{shown} is not a directory"), "name a directory")),
        (Err(error), Role::Master) if error.kind() == ErrorKind::NotFound => {
            Some((Severity::Error, format!("{shown} is not there"), "check the path, and whether its disk is mounted"))
        }
        (Err(error), Role::Slave) if error.kind() == ErrorKind::NotFound => Some((
            Severity::Warning,
            format!("{shown} is not there yet"),
            "the first run makes it; is its disk mounted?",
        )),
        (Err(error), _) => {
            let hint = "run mailtwin check-config as the user that runs mailtwin";
            Some((Severity::Warning, format!("{shown} cannot be looked at: {error}"), hint))
        }
    }
}
