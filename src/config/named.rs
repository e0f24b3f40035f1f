//! A set by its name: what the configuration says of it, and over that what was typed.

use super::file::{Configuration, Peer, Role, Set, Transport};
use super::{Plan, Typed, UsageError, plan, variable, wrong};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Before the name of a set where a directory of the slave could stand: the slave's own file says where it is.
const BY_NAME: &str = "set:";

/// Whether this may be the name of a set: no path, no place on another host.
pub fn may_be_name(typed: &OsStr) -> bool {
    !typed.is_empty() && !typed.as_bytes().iter().any(|byte| b"/:".contains(byte))
}

/// What a run towards one peer of a set is to do. `typed` names no source and no destination; `rate` is what may be sent a
/// second where nothing else was typed.
///
/// # Errors
/// The first thing that cannot be.
pub fn plan_set(
    configuration: &Configuration,
    set: &Set,
    peer: &Peer,
    typed: Typed,
    rate: Option<u64>,
) -> Result<Plan, UsageError> {
    let Transport::Ssh { address, rsh, remote_path } = &peer.transport else {
        let name = &peer.name;
        return Err(wrong(format!(
            "the peer {name} is reached by TLS, and this command reaches others by ssh: write transport = \"ssh\" below \
             [peer.{name}]"
        )));
    };
    let there = match &set.mirror {
        Some(mirror) => mirror.clone().into_os_string(),
        None => OsString::from(format!("{BY_NAME}{}", set.name)),
    };
    let mut destination = OsString::from(format!("{address}:"));
    destination.push(there);
    let mut typed = Typed { source: set.path.clone().into_os_string(), destination, ..typed };
    typed.kind = typed.kind.or(set.kind);
    typed.filters = set.filters.iter().cloned().chain(typed.filters).collect();
    typed.link.rsh = typed.link.rsh.or_else(|| rsh.clone());
    typed.link.remote_path = typed.link.remote_path.or_else(|| remote_path.clone());
    typed.link.level = typed.link.level.or(peer.level);
    typed.link.timeout = typed.link.timeout.or(Some(peer.timeout.map_or(0, |timeout| timeout.as_secs())));
    let (has_owners, has_limit) = (typed.chown.is_some(), typed.max_delete.is_some());
    let mut plan = plan(typed)?;
    if !has_owners {
        plan.request.chown = set.chown;
    }
    if !has_limit {
        plan.request.limit = set.max_delete;
    }
    // What the environment says was said last.
    if variable("MAILTWIN_STATE").is_none() {
        plan.request.state = configuration.host.state.clone();
    }
    plan.link.rate = plan.link.rate.or(rate);
    Ok(plan)
}

/// Where a master that names a set means, on the slave: the mirror and its state. `None` where it names a directory.
///
/// # Errors
/// A sentence for the master, where this host's configuration has no such set, or is not its slave.
pub fn meant<'a>(
    destination: &[u8],
    configuration: impl FnOnce() -> Result<&'a Configuration, String>,
) -> Result<Option<(PathBuf, Option<PathBuf>)>, String> {
    let Some(name) = destination.strip_prefix(BY_NAME.as_bytes()) else { return Ok(None) };
    let name = crate::path::escape(name);
    let set = configuration()?.sets.get(&name);
    match set {
        None => Err(format!(
            "the configuration there has no set {name}: write [set.{name}] with its path and role = \"slave\""
        )),
        Some(set) if set.role == Role::Master => {
            Err(format!("the configuration there says that that host is a master of {name}: only one can be"))
        }
        Some(set) => Ok(Some((set.path.clone(), set.state.clone()))),
    }
}
