//! What a peer may ask of this end, and where: over TLS no path from the wire is used.
//!
//! Over ssh the user's account is the limit, and the greeting says which directory is meant. A host that was paired has no
//! account here. Its greeting says `set:` and a name in the place of the directory, and this host's own configuration says
//! what that set is, where it lies, and what the peer is to it. Of the greeting's other words none leads anywhere.

use super::Result;
use crate::peer::role::{Role, Verb};
use crate::sync::SyncError;
use crate::wire::message::Hello;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What stands before a set's name in the place of a directory.
const SET: &[u8] = b"set:";

/// A set, as far as one peer is concerned.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// What the peer is to this set.
    pub role: Role,
    /// The mirror.
    pub mirror: PathBuf,
    /// Where this host keeps its state, if not in the mirror.
    pub state: Option<PathBuf>,
    /// The directory into which the peer may restore; it must be empty then. Without it, it may not.
    pub restores_to: Option<PathBuf>,
}

/// What one peer may ask.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// What the peer is called here.
    pub peer: String,
    /// The sets that it has to do with, by name.
    pub sets: BTreeMap<String, Admitted>,
}

/// The greeting's word for a set.
pub fn destination_of(set: &str) -> Vec<u8> {
    [SET, set.as_bytes()].concat()
}

/// The name of the set, where a greeting's place of a directory has one.
pub fn set_of(destination: &[u8]) -> Option<&[u8]> {
    destination.strip_prefix(SET)
}

/// What a greeting asks for.
pub fn verb(hello: &Hello) -> Verb {
    match hello {
        Hello { restore: Some(_), .. } => Verb::Restore,
        Hello { dry_run: true, .. } => Verb::Compare,
        _ => Verb::Replicate,
    }
}

impl Admission {
    /// The greeting with this host's own paths in the place of the peer's words.
    ///
    /// # Errors
    /// Where the peer may not do that. What else there is on this host is not told.
    pub fn admit(&self, hello: Hello) -> Result<Hello> {
        let verb = verb(&hello);
        let Some(name) = set_of(&hello.destination) else {
            return Err(SyncError::Failed(format!(
                "{} names a directory: a host that was paired names a set, as in set:mail",
                self.peer
            )));
        };
        let shown = crate::path::escape(name);
        let set = std::str::from_utf8(name).ok().and_then(|name| self.sets.get(name));
        let allowed = set.filter(|set| verb.is_allowed(set.role));
        let refused = |reason: &str| {
            let (peer, verb) = (&self.peer, verb.words());
            SyncError::Failed(format!("{peer} may not {verb} the set {shown} here{reason}"))
        };
        let allowed = allowed.ok_or_else(|| refused(": see the configuration of this host"))?;
        let (path, state) = match verb {
            Verb::Restore => {
                (allowed.restores_to.as_ref().ok_or_else(|| refused(": no directory is configured for that"))?, None)
            }
            _ => (&allowed.mirror, allowed.state.as_ref()),
        };
        let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        Ok(Hello { destination: bytes(path), state: state.map(bytes).map(Into::into), ..hello })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, Epoch, Position};
    use crate::maildir::folder::SetKind;
    use crate::wire::message::Restoring;

    fn hello(destination: &[u8]) -> Hello {
        Hello {
            program: "mailtwin".into(),
            set: None,
            epoch: Epoch::default(),
            position: Position::default(),
            root: Digest::default(),
            kind: SetKind::Maildir,
            destination: destination.to_vec(),
            state: Some(b"/etc/passwd".to_vec().into()),
            dry_run: false,
            checksum: false,
            filters: vec![],
            boot: Digest::default(),
            ancestry: vec![],
            restore: None,
        }
    }

    fn greeting(verb: Verb, destination: &[u8]) -> Hello {
        let restore = Restoring { what: "everything".into(), mtime: None };
        match verb {
            Verb::Restore => Hello { restore: Some(restore), ..hello(destination) },
            Verb::Compare => Hello { dry_run: true, ..hello(destination) },
            _ => hello(destination),
        }
    }

    fn admission(role: Role, restores_to: Option<&str>) -> Admission {
        let state = Some("/var/lib/mailtwin/mail".into());
        let set = Admitted { role, mirror: "/var/vmail".into(), state, restores_to: restores_to.map(Into::into) };
        Admission { peer: "mx1".into(), sets: BTreeMap::from([("mail".to_owned(), set)]) }
    }

    /// Whatever a greeting can ask for, by whatever role: the table decides, and the paths are this host's own.
    #[test]
    fn every_greeting_by_every_role_is_decided_by_the_table_and_led_to_our_own_paths() {
        for role in Role::ALL {
            for verb in [Verb::Replicate, Verb::Compare, Verb::Restore] {
                let greeting = greeting(verb, b"set:mail");
                assert_eq!(super::verb(&greeting), verb);
                let admitted = admission(role, Some("/srv/restored")).admit(greeting);
                assert_eq!(admitted.is_ok(), verb.is_allowed(role), "{verb:?} {role:?}");
                let Ok(admitted) = admitted else { continue };
                let (path, state) = match verb {
                    Verb::Restore => (&b"/srv/restored"[..], None),
                    _ => (&b"/var/vmail"[..], Some(b"/var/lib/mailtwin/mail".to_vec().into())),
                };
                assert_eq!((admitted.destination.as_slice(), admitted.state), (path, state), "{verb:?}");
            }
        }
    }

    #[test]
    fn no_path_and_no_other_set_is_taken_and_a_set_that_is_not_there_looks_like_one_that_is_not_the_peers() {
        let admission = admission(Role::Master, None);
        for path in ["/var/vmail", "", ".", "mail", "set:", "set:../mail", "set:/var/vmail", "set:mail/", "set:\0"] {
            assert!(admission.admit(hello(path.as_bytes())).is_err(), "{path:?}");
        }
        assert!(admission.admit(hello(b"set:\xff")).is_err());
        let words = |role: Role, set: &str| {
            let refused = self::admission(role, None).admit(hello(set.as_bytes())).expect_err("refused");
            refused.to_string().replace("mail ", "x ")
        };
        assert_eq!(words(Role::Slave, "set:mail"), words(Role::Master, "set:x"));
        assert!(self::admission(Role::Slave, None).admit(greeting(Verb::Restore, b"set:mail")).is_err());
    }
}
