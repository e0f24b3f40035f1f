//! The ways to another host, as a session needs them: ssh, TLS, or a pipe where both ends are in this process.

use crate::config::file::{Configuration, Peer};
use crate::config::{Link, Place, Plan, peers};
use crate::peer::host_key;
use crate::sync::sender::Report;
use crate::sync::{SyncError, receiver};
use crate::transport::key::HostKey;
use crate::transport::tls::{self, Dial};
use crate::transport::{Connection, LinkError, pipe, runtime, ssh};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitStatus;
use tokio::runtime::Runtime;

/// What makes the connection of a session.
pub type Connect<'a> = &'a mut dyn FnMut() -> Result<Connection, SyncError>;

/// Runs a session over the way that a plan names; what is said of its end has the other host's name.
///
/// # Errors
/// Those of the session, and where the other host cannot be reached.
pub fn reach(
    configuration: Option<&Configuration>,
    plan: &Plan,
    session: &mut dyn FnMut(Connect<'_>) -> Result<Report, SyncError>,
) -> Result<Report, SyncError> {
    match &plan.place {
        Place::Here(_) => std::thread::scope(|scope| {
            session(&mut || {
                let (mut near, far) = pipe::pair("the slave");
                // What goes wrong there is said through the pipe.
                scope.spawn(move || drop(receiver::serve(far)));
                throttle(&mut near, plan.link.rate);
                Ok(near)
            })
        }),
        Place::There { host, .. } => {
            let mut far = Far::new(host, &plan.link);
            let ran = session(&mut || far.connect());
            let ended = far.end();
            ran.map_err(|error| ended.explain(error))
        }
        Place::Paired { peer, .. } => {
            let found = configuration.and_then(|known| Some((known, known.peers.get(peer)?)));
            let unknown = || SyncError::Failed(format!("the configuration has no peer {peer}"));
            let (configuration, peer) = found.ok_or_else(unknown)?;
            let mut far = Paired::new(&configuration.host.key, peer, &plan.link)?;
            let ran = session(&mut || far.connect());
            far.end();
            ran.map_err(|error| named(&peer.name, error))
        }
    }
}

/// A program on another host, while it is talked to.
pub struct Far<'a> {
    host: &'a str,
    link: &'a Link,
    started: Option<ssh::Link>,
}

impl<'a> Far<'a> {
    /// A host that is reached in this way.
    pub fn new(host: &'a str, link: &'a Link) -> Self {
        Self { host, link, started: None }
    }

    /// Starts the program there.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn connect(&mut self) -> Result<Connection, SyncError> {
        let mut started = ssh::start(self.host, &self.link.command, self.link.timeout).map_err(LinkError::from)?;
        let connection = started.connection.take();
        self.started = Some(started);
        let mut near = connection.ok_or(SyncError::Protocol("there is no connection"))?;
        throttle(&mut near, self.link.rate);
        Ok(near)
    }

    /// Waits for the program to end.
    pub fn end(self) -> Ended<'a> {
        let status = self.started.and_then(ssh::Link::finish);
        Ended { host: self.host, link: self.link, status }
    }
}

/// A program on another host that has ended.
pub struct Ended<'a> {
    host: &'a str,
    link: &'a Link,
    status: Option<ExitStatus>,
}

impl Ended<'_> {
    /// An error with what the program's end tells of it. What is wrong with what the other end says needs its name.
    pub fn explain(&self, error: SyncError) -> SyncError {
        let Self { host, link, .. } = self;
        match (error, self.status.and_then(|status| status.code())) {
            (error @ (SyncError::Protocol(_) | SyncError::Link(LinkError::Message(_))), _) => named(host, error),
            (SyncError::Link(error), Some(code @ (126 | 127))) => SyncError::Failed(format!(
                "{host} cannot run {} ({error}; exit code {code}): install mailtwin there, or say with --remote-path where it is",
                crate::path::escape(link.remote_path.as_bytes())
            )),
            (SyncError::Link(error), Some(255)) => SyncError::Failed(format!(
                "cannot reach {host}: {error} (exit code 255): try \"{}\" by hand",
                link.command.join(" ")
            )),
            (error, _) => error,
        }
    }
}

/// An error with its host: what is wrong with what the other end says needs its name.
pub fn named(host: &str, error: SyncError) -> SyncError {
    match error {
        error @ (SyncError::Protocol(_) | SyncError::Link(LinkError::Message(_))) => {
            SyncError::Failed(format!("{host}: {error}"))
        }
        error => error,
    }
}

/// A host that was paired, while it is talked to.
pub struct Paired<'a> {
    peer: &'a Peer,
    link: &'a Link,
    key: HostKey,
    runtime: Runtime,
    begun: Option<tls::Link>,
}

impl<'a> Paired<'a> {
    /// A host of the configuration; `key` is the file of this host's.
    ///
    /// # Errors
    /// Where this host has no key that can be used.
    pub fn new(key: &Path, peer: &'a Peer, link: &'a Link) -> Result<Self, SyncError> {
        let failed = |error: &dyn std::fmt::Display| SyncError::Failed(error.to_string());
        let file = crate::path::escape(key.as_os_str().as_bytes());
        let missing = || {
            let name = &peer.name;
            SyncError::Failed(format!(
                "this host has no key {file}, by which {name} could know it: mailtwin pair makes one"
            ))
        };
        let key = host_key::load(key).map_err(|error| failed(&error))?.ok_or_else(missing)?;
        let runtime = runtime().map_err(|error| failed(&error))?;
        Ok(Self { peer, link, key, runtime, begun: None })
    }

    /// Connects, and makes sure of who answers.
    ///
    /// # Errors
    /// Where it cannot be reached, is another host, or does not let us in.
    pub fn connect(&mut self) -> Result<Connection, SyncError> {
        let dial = peers::dial(self.peer, &self.key).map_err(|error| SyncError::Failed(error.sentence))?;
        let dial = Dial { silence: self.link.timeout, ..dial };
        let mut begun = tls::connect(self.runtime.handle(), &dial).map_err(LinkError::from)?;
        let connection = begun.connection.take();
        self.begun = Some(begun);
        let mut near = connection.ok_or(SyncError::Protocol("there is no connection"))?;
        throttle(&mut near, self.link.rate);
        Ok(near)
    }

    /// Says that this was the end, where anything was begun.
    pub fn end(self) {
        if let Some(begun) = self.begun {
            begun.finish();
        }
    }
}

/// Limits what is sent, where a limit is given.
pub fn throttle(connection: &mut Connection, rate: Option<u64>) {
    if let Some(rate) = rate {
        connection.sender.limit(rate);
    }
}
