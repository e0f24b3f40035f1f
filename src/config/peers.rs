//! What the configuration says of other hosts: who may come, what each may ask, and how one is called.

use super::file::{Configuration, Peer, Role, Set, Transport};
use super::{UsageError, wrong};
use crate::peer::role;
use crate::sync::receiver::admission::{Admission, Admitted, set_of};
use crate::transport::address::Address;
use crate::transport::key::{HostKey, PeerKey};
use crate::transport::tls::{Dial, Peers};
use std::time::Duration;

/// How long each address of a peer may take to answer and to let us in.
const PATIENCE: Duration = Duration::from_secs(10);

/// The hosts that are let in: all that have a key here, whether or not a set names them. What they may ask is said by
/// [`admission`].
pub fn known(configuration: &Configuration) -> impl Iterator<Item = (PeerKey, String)> {
    configuration.peers.values().filter_map(|peer| match peer.transport {
        Transport::Tls { key, .. } => Some((key, peer.name.clone())),
        Transport::Ssh { .. } => None,
    })
}

/// The same as the list of a server; [`known`] is for [`Peers::replace`], when the configuration has changed.
pub fn peers(configuration: &Configuration) -> Peers {
    Peers::new(known(configuration))
}

/// What a host of this name may ask: of the sets that name it, by what it is to them. One that no set names, or that
/// nobody knows, may ask nothing.
pub fn admission(configuration: &Configuration, peer: &str) -> Admission {
    let sets = configuration.sets.values().filter(|set| set.peers.iter().any(|name| name == peer));
    Admission { peer: peer.to_owned(), sets: sets.map(|set| (set.name.clone(), admitted(set))).collect() }
}

/// A set as its other end meets it here.
fn admitted(set: &Set) -> Admitted {
    let role = match set.role {
        Role::Slave => role::Role::Master,
        Role::Master => role::Role::Slave,
    };
    Admitted { role, mirror: set.path.clone(), state: set.state.clone(), restores_to: None }
}

/// What a master that came by ssh means, where it names a set: its user's account is the limit, and not who it is. `None`
/// where it names a directory.
///
/// # Errors
/// A sentence for the master, where this host's configuration has no such set, or is not its slave.
pub fn meant<'a>(
    destination: &[u8],
    configuration: impl FnOnce() -> Result<&'a Configuration, String>,
) -> Result<Option<Admitted>, String> {
    let Some(name) = set_of(destination) else { return Ok(None) };
    let name = crate::path::escape(name);
    match configuration()?.sets.get(&name).map(admitted) {
        None => Err(format!(
            "the configuration there has no set {name}: write [set.{name}] with its path and role = \"slave\""
        )),
        Some(set) if set.role == role::Role::Slave => {
            Err(format!("the configuration there says that that host is a master of {name}: only one can be"))
        }
        set => Ok(set),
    }
}

/// How a peer is reached by TLS: where it is, and the key that it must have.
///
/// # Errors
/// Where it is reached by ssh, or only calls here.
pub fn reached(peer: &Peer) -> Result<(&Address, PeerKey), UsageError> {
    let name = &peer.name;
    match &peer.transport {
        Transport::Tls { address: Some(address), key } => Ok((address, *key)),
        Transport::Tls { address: None, .. } => {
            Err(wrong(format!("{name} has no address: write address = \"HOST:PORT\" below [peer.{name}]")))
        }
        Transport::Ssh { .. } => Err(wrong(format!("{name} is reached by ssh: pair the two hosts with mailtwin pair"))),
    }
}

/// How a peer is called; `key` is this host's.
///
/// # Errors
/// As [`reached`].
pub fn dial<'a>(peer: &'a Peer, key: &'a HostKey) -> Result<Dial<'a>, UsageError> {
    let (Address { host, port }, expected) = reached(peer)?;
    Ok(Dial { peer: &peer.name, host, port: *port, key, expected, patience: PATIENCE, silence: peer.timeout })
}

#[cfg(test)]
mod tests {
    use super::super::file::{Defaults, Severity, read};
    use super::*;
    use crate::peer::role::Verb;

    fn key(seed: u8) -> PeerKey {
        PeerKey([seed; 32])
    }

    /// This host is a slave of `mail` for mx1, the master of `etc` for mx3, and of `web` for old, which comes by ssh.
    fn configuration() -> Configuration {
        let text = format!(
            "[host]\nname = \"mx2\"\n\
             [peer.mx1]\naddress = \"[2001:db8::1]\"\nkey = \"{}\"\ntimeout = \"30s\"\n\
             [peer.mx3]\naddress = \"mx3:99\"\nkey = \"{}\"\n[peer.mx4]\nkey = \"{}\"\n\
             [peer.old]\ntransport = \"ssh\"\naddress = \"old\"\n\
             [set.mail]\npath = \"/var/vmail\"\nstate = \"/srv/state\"\nrole = \"slave\"\npeers = [\"mx1\"]\n\
             [set.etc]\npath = \"/etc\"\nrole = \"master\"\npeers = [\"mx3\"]\n\
             [set.web]\npath = \"/srv/web\"\nrole = \"master\"\npeers = [\"old\", \"mx3\"]\n[policy]\nkeep_full = 1\n",
            key(1),
            key(3),
            key(4)
        );
        let defaults =
            Defaults { host: "mx2".into(), state: "/var/lib/mailtwin".into(), timezone: jiff::tz::TimeZone::UTC };
        let reading = read(&text, &defaults);
        let errors: Vec<_> = reading.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{errors:?}");
        reading.configuration
    }

    #[test]
    fn each_peer_may_ask_of_the_sets_that_name_it_what_its_role_allows() {
        let configuration = configuration();
        let of = |peer: &str| admission(&configuration, peer).sets;
        let mail = &of("mx1")["mail"];
        assert_eq!((mail.role, mail.mirror.as_os_str()), (role::Role::Master, "/var/vmail".as_ref()));
        assert_eq!(mail.state.as_deref(), Some("/srv/state".as_ref()));
        assert!(Verb::Replicate.is_allowed(mail.role));
        assert_eq!(of("mx1").len(), 1, "the other sets are none of its business");
        let mx3 = of("mx3");
        assert_eq!(mx3.keys().collect::<Vec<_>>(), ["etc", "web"]);
        assert!(mx3.values().all(|set| set.role == role::Role::Slave && !Verb::Replicate.is_allowed(set.role)));
        for stranger in ["mx4", "mx5", ""] {
            assert!(of(stranger).is_empty(), "{stranger}");
        }
    }

    #[test]
    fn who_has_a_key_here_is_let_in_and_nobody_else() {
        let peers = peers(&configuration());
        let names = [1, 2, 3, 4].map(|seed| peers.name(&key(seed)));
        assert_eq!(names, [Some("mx1".into()), None, Some("mx3".into()), Some("mx4".into())]);
        assert_eq!(known(&configuration()).count(), 3);
    }

    #[test]
    fn a_peer_is_called_where_it_is_and_must_have_its_key() {
        let configuration = configuration();
        let own = HostKey::fresh().expect("a key");
        let mx1 = dial(&configuration.peers["mx1"], &own).expect("has an address");
        assert_eq!((mx1.peer, mx1.host, mx1.port, mx1.expected), ("mx1", "2001:db8::1", 8946, key(1)));
        assert_eq!(mx1.silence, Some(Duration::from_secs(30)));
        assert_eq!(dial(&configuration.peers["mx3"], &own).expect("has an address").port, 99);
        for (peer, words) in [("mx4", "has no address"), ("old", "reached by ssh")] {
            let error = dial(&configuration.peers[peer], &own).expect_err(peer).sentence;
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn by_ssh_a_set_is_found_by_its_name_alone() {
        let configuration = configuration();
        let meant = |destination: &str| super::meant(destination.as_bytes(), || Ok(&configuration));
        assert!(meant("/var/vmail").expect("a directory").is_none());
        let mail = meant("set:mail").expect("is there").expect("a set");
        assert_eq!(mail.mirror.as_os_str(), "/var/vmail");
        assert!(meant("set:etc").expect_err("a master").contains("is a master of etc"));
        assert!(meant("set:none").expect_err("none").contains("has no set none"));
    }
}
