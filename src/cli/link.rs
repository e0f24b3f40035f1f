//! The way to another host: its options, and what is said when it is closed.

use crate::config::file::Peer;
use crate::config::{Link, TypedLink, peers};
use crate::peer::host_key;
use crate::sync::SyncError;
use crate::transport::key::HostKey;
use crate::transport::tls::{self, Dial};
use crate::transport::{Connection, LinkError, runtime, ssh};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitStatus;
use tokio::runtime::Runtime;

/// Options of commands that talk to another host.
#[derive(Clone, Debug, clap::Args)]
pub struct Way {
    /// Send at most so much a second: KiB, or with a suffix K, M or G
    #[arg(long, value_name = "RATE")]
    pub bwlimit: Option<String>,

    /// The program that reaches the other host [default: ssh]
    #[arg(short = 'e', long, value_name = "COMMAND")]
    pub rsh: Option<String>,

    /// mailtwin on the other host [default: mailtwin]
    #[arg(long, value_name = "PROGRAM")]
    pub remote_path: Option<String>,

    /// Give up when the other end says nothing for so many seconds; 0 never [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,

    /// zstd level from 1 to 19, 0 for none [default: 4 to another host, 0 on this one]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(0..=19))]
    pub compress_level: Option<i32>,

    /// Show progress; on by default on a terminal
    #[arg(long, overrides_with = "no_progress")]
    pub progress: bool,

    /// Show no progress
    #[arg(long)]
    pub no_progress: bool,
}

impl Way {
    /// What was typed of the way.
    pub fn typed(&self) -> TypedLink {
        TypedLink {
            bwlimit: self.bwlimit.clone(),
            rsh: self.rsh.clone(),
            remote_path: self.remote_path.clone(),
            timeout: self.timeout,
            level: self.compress_level,
        }
    }

    /// Whether progress is to be shown, where it is or is not by default.
    pub fn shows_progress(&self, default: bool) -> bool {
        (self.progress || default) && !self.no_progress
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
