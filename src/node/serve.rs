//! A slave's side: peers come by TLS, and each may do what its role for a set allows.

use super::journal::{Journal, Level, Lines};
use super::sessions::Sessions;
use super::status::Board;
use crate::config::file::{Configuration, Role};
use crate::config::peers;
use crate::disk::now;
use crate::peer::host_key;
use crate::sync::SyncError;
use crate::sync::receiver;
use crate::transport::tls::{Limits, Link, Peers, Server};
use crate::wire::message::Hello;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Waits for peers.
pub struct Door {
    configuration: Arc<Configuration>,
    board: Board,
    journal: Arc<dyn Journal>,
    sessions: Sessions,
    server: Server,
}

impl Door {
    /// Opens it; `None` where nobody is to come: this host is no slave, or is not to listen.
    ///
    /// # Errors
    /// A sentence, where the key or the address cannot be used.
    pub fn open(
        configuration: Arc<Configuration>,
        board: Board,
        journal: Arc<dyn Journal>,
        handle: &Handle,
        known: Peers,
        sessions: Sessions,
    ) -> Result<Option<Self>, String> {
        let is_slave = configuration.sets.values().any(|set| set.role == Role::Slave);
        let Some(address) = configuration.host.listen.filter(|_| is_slave) else { return Ok(None) };
        let key = host_key::load_or_make(&configuration.host.key).map_err(|error| error.to_string())?;
        let lines = Arc::new(Lines::new(journal.clone(), None, None));
        let server = Server::start(handle, &address.to_string(), &key, known, Limits::default(), lines);
        let server = server.map_err(|error| format!("cannot listen at {address}: {error}"))?;
        Ok(Some(Self { configuration, board, journal, sessions, server }))
    }

    /// Lets peers in, each in a thread of its own, as long as the process lives.
    pub fn run(mut self) {
        while let Some(link) = self.server.next_link() {
            let (configuration, board, journal) =
                (self.configuration.clone(), self.board.clone(), self.journal.clone());
            let (name, sessions) = (link.peer.clone(), self.sessions.clone());
            let serve = move || session(&configuration, &board, &journal, &sessions, link);
            if let Err(error) = std::thread::Builder::new().name(format!("from {name}")).spawn(serve) {
                let lines = Lines::new(self.journal.clone(), None, Some(&name));
                lines.say(Level::Error, &format!("cannot begin a session: {error}"));
            }
        }
    }
}

fn session(
    configuration: &Configuration,
    board: &Board,
    journal: &Arc<dyn Journal>,
    sessions: &Sessions,
    mut link: Link,
) {
    let peer = link.peer.clone();
    let Some(connection) = link.connection.take() else { return };
    let (mut set, mut place) = (None, None);
    let hang_up = link.hang_up();
    let admission = peers::admission(configuration, &peer);
    let served = receiver::serve_where(connection, |hello: Hello| {
        let name = hello.destination.strip_prefix(b"set:").map(|name| String::from_utf8_lossy(name).into_owned());
        let position = hello.position;
        let hello = admission.admit(hello)?;
        if let Some(name) = &name {
            let busy = || SyncError::Locked(format!("a restore point of {name} is being made there: come again"));
            place = Some(sessions.begin(name, hang_up).ok_or_else(busy)?);
            board.peer(name, &peer, |status| {
                (status.state, status.since, status.error) = ("serving".to_owned(), now().seconds, None);
                status.position = Some(position.to_string());
            });
            Lines::new(journal.clone(), Some(name), Some(&peer)).say(Level::Info, "a session begins");
        }
        set = name;
        Ok(hello)
    });
    drop(place);
    link.finish();
    let lines = Lines::new(journal.clone(), set.as_deref(), Some(&peer));
    let error = served.err();
    match &error {
        None => lines.say(Level::Info, "the session has ended"),
        Some(error) => lines.say(Level::Warning, &format!("the session ended: {error}")),
    }
    if let Some(set) = &set {
        board.peer(set, &peer, |status| {
            (status.state, status.since) = ("gone".to_owned(), now().seconds);
            status.failures += u64::from(error.is_some());
            status.error = error.as_ref().map(SyncError::to_string);
        });
    }
}
