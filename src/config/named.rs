//! A set by its name: what the configuration says of it, and over that what was typed.

use super::file::{Configuration, Peer, Set, Transport};
use super::{Place, Plan, Typed, UsageError, peers, plan_to, variable, wrong};
use crate::sync::receiver::admission::destination_of;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

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
    let mut typed = Typed { source: set.path.clone().into_os_string(), ..typed };
    let place = match &peer.transport {
        Transport::Ssh { address, rsh, remote_path } => {
            typed.link.rsh = typed.link.rsh.or_else(|| rsh.clone());
            typed.link.remote_path = typed.link.remote_path.or_else(|| remote_path.clone());
            let path = set.mirror.as_ref().map(|mirror| mirror.as_os_str().as_bytes().to_vec());
            let path = path.unwrap_or_else(|| destination_of(&set.name));
            Place::There { host: address.clone(), path }
        }
        Transport::Tls { .. } => paired(set, peer, &typed)?,
    };
    typed.kind = typed.kind.or(set.kind);
    typed.filters = set.filters.iter().cloned().chain(typed.filters).collect();
    typed.link.level = typed.link.level.or(peer.level);
    typed.link.timeout = typed.link.timeout.or(Some(peer.timeout.map_or(0, |timeout| timeout.as_secs())));
    let (has_owners, has_limit) = (typed.chown.is_some(), typed.max_delete.is_some());
    let mut plan = plan_to(typed, place)?;
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

/// By TLS the slave's own configuration says where a set is; what is of ssh would count for nothing.
fn paired(set: &Set, peer: &Peer, typed: &Typed) -> Result<Place, UsageError> {
    peers::reached(peer)?;
    let of_ssh = [
        (typed.link.rsh.is_some(), "--rsh"),
        (typed.link.remote_path.is_some(), "--remote-path"),
        (typed.slave_state.is_some(), "--state"),
    ];
    match of_ssh.iter().find(|(is_typed, _)| *is_typed) {
        Some((_, option)) => {
            let name = &peer.name;
            Err(wrong(format!("{option} is of no use with {name}, which is reached by TLS: leave it out")))
        }
        None => Ok(Place::Paired { peer: peer.name.clone(), set: set.name.clone() }),
    }
}
