//! Waiting for other hosts: nobody gets further than the handshake whose key is not known.

use super::limits::{Complaints, Limits, Place, Places};
use super::verify::{OtherKey, Pinned, Welcome};
use super::{ALPN, Found, Link, key_of, link, manner, prepare, provider, tls_error, unusable};
use crate::monitor::{Event, Monitor};
use crate::transport::TransportError;
use crate::transport::key::{HostKey, PeerKey};
use crate::transport::stream::{First, write_frame};
use crate::wire::message::{Message, Refusal};
use rustls::{AlertDescription, Error, InvalidMessage, ServerConfig};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Sessions that wait to be taken.
const WAITING: usize = 16;

/// After an error of the listener itself, mostly too many open files, so long nothing is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// The hosts that are known: names by key. A copy is the same list.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<RwLock<HashMap<PeerKey, String>>>);

impl Peers {
    /// A list of names and keys.
    pub fn new(peers: impl IntoIterator<Item = (PeerKey, String)>) -> Self {
        Self(Arc::new(RwLock::new(peers.into_iter().collect())))
    }

    /// Puts another list in its place: it counts from the next connection on.
    pub fn replace(&self, peers: impl IntoIterator<Item = (PeerKey, String)>) {
        *self.0.write().unwrap_or_else(|poison| poison.into_inner()) = peers.into_iter().collect();
    }

    /// What a host with this key is called here.
    pub fn name(&self, key: &PeerKey) -> Option<String> {
        self.0.read().unwrap_or_else(|poison| poison.into_inner()).get(key).cloned()
    }
}

/// A host that waits for others. Dropping it ends the waiting; sessions that were taken go on.
pub struct Server {
    address: SocketAddr,
    sessions: mpsc::Receiver<Link>,
    waiting: AbortHandle,
}

impl Server {
    /// Begins to wait at an address such as `[::]:8946`. Who was not let in, and why, is told to `monitor`.
    ///
    /// Not to be called from a task of the runtime.
    ///
    /// # Errors
    /// Where this host cannot listen there, or the key is no use.
    pub fn start(
        handle: &Handle,
        address: &str,
        key: &HostKey,
        peers: Peers,
        limits: Limits,
        monitor: Arc<dyn Monitor>,
    ) -> Result<Self, TransportError> {
        let failed =
            |error: io::Error| TransportError::Listen { address: address.to_owned(), reason: error.to_string() };
        let acceptor = TlsAcceptor::from(Arc::new(config(key, &peers)?));
        let listener = handle.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (found, sessions) = mpsc::channel(WAITING);
        let door = Door {
            acceptor,
            peers,
            limits,
            monitor,
            places: Places::default(),
            complaints: Mutex::default(),
            found,
            under_way: Mutex::default(),
        };
        let waiting = handle.spawn(Arc::new(door).wait(listener)).abort_handle();
        Ok(Self { address, sessions, waiting })
    }

    /// Where it waits.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next session of a peer. Not to be called from a task of the runtime; in one, see
    /// [`Server::next_link_in_task`].
    pub fn next_link(&mut self) -> Option<Link> {
        self.sessions.blocking_recv()
    }

    /// As [`Server::next_link`], in a task.
    pub async fn next_link_in_task(&mut self) -> Option<Link> {
        self.sessions.recv().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

fn config(key: &HostKey, peers: &Peers) -> Result<ServerConfig, TransportError> {
    let provider = provider();
    let verifier = Pinned::new(Welcome::Known(peers.clone()), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![key.certificate()], key.private())
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// What the tasks of a server share.
struct Door {
    acceptor: TlsAcceptor,
    peers: Peers,
    limits: Limits,
    monitor: Arc<dyn Monitor>,
    places: Places,
    complaints: Mutex<Complaints>,
    found: mpsc::Sender<Link>,
    /// Handshakes by the order in which they began.
    under_way: Mutex<BTreeMap<u64, AbortHandle>>,
}

impl Door {
    async fn wait(self: Arc<Self>, listener: TcpListener) {
        for number in 0.. {
            match listener.accept().await {
                Ok((stream, address)) => self.begin(number, stream, address),
                Err(error) => {
                    self.complain(&format!("a connection could not be accepted: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Begins a handshake, and makes room for it.
    fn begin(self: &Arc<Self>, number: u64, stream: TcpStream, address: SocketAddr) {
        let mut under_way = self.under_way.lock().unwrap_or_else(|poison| poison.into_inner());
        while under_way.len() >= self.limits.handshakes.max(1) {
            let Some((_, oldest)) = under_way.pop_first() else { break };
            oldest.abort();
            self.complain("too many connections at once whose handshake does not end: the oldest is dropped");
        }
        let door = self.clone();
        let task = tokio::spawn(async move {
            let let_in = timeout(door.limits.handshake, door.let_in(stream, address)).await;
            door.under_way.lock().unwrap_or_else(|poison| poison.into_inner()).remove(&number);
            match let_in {
                Ok(Ok(link)) => drop(door.found.send(link).await),
                Ok(Err(sentence)) => door.complain(&format!("{address} was not let in: {sentence}")),
                Err(_) => {
                    let limit = door.limits.handshake.as_secs_f32();
                    door.complain(&format!("{address} was not let in: its handshake took more than {limit} seconds"));
                }
            }
        });
        under_way.insert(number, task.abort_handle());
    }

    async fn let_in(&self, stream: TcpStream, address: SocketAddr) -> Result<Link, String> {
        prepare(&stream);
        let mut stream = self.acceptor.accept(stream).await.map_err(|error| explain(&error))?;
        let (_, session) = stream.get_ref();
        let key = key_of(session.peer_certificates()).map_err(|error| error.to_string())?;
        let peer = self.peers.name(&key).ok_or_else(|| unknown(&key))?;
        if session.alpn_protocol() != Some(ALPN) {
            return Err(format!("{peer} speaks another protocol: install the same mailtwin on both hosts"));
        }
        let place = self.take_place(&mut stream, &peer, key).await?;
        let failed = |error: io::Error| format!("{peer}: {error}");
        say(&mut stream, &Message::Ping).await.map_err(failed)?;
        let manner = manner(Some(self.limits.silence), First::Within(self.limits.first_message));
        Ok(link(stream, Found { peer, key, address }, manner, Some(place)))
    }

    /// One more connection of a peer, where it has not too many; else it is told.
    async fn take_place(&self, stream: &mut TlsStream<TcpStream>, peer: &str, key: PeerKey) -> Result<Place, String> {
        let most = self.limits.per_peer;
        if let Some(place) = self.places.take(key, most) {
            return Ok(place);
        }
        let sentence = format!("it has {most} connections already: wait until one of them has ended");
        let _ = say(stream, &Message::Refuse(Refusal { code: 10, sentence: sentence.clone() })).await;
        let _ = stream.shutdown().await;
        Err(format!("{peer}: {sentence}"))
    }

    /// Tells of somebody who was not let in, unless there are too many of them.
    fn complain(&self, sentence: &str) {
        let mut complaints = self.complaints.lock().unwrap_or_else(|poison| poison.into_inner());
        let before = complaints.may_say(Instant::now());
        drop(complaints);
        match before {
            None => {}
            Some(0) => self.monitor.event(Event::Warning(sentence.to_owned())),
            Some(more) => {
                self.monitor
                    .event(Event::Warning(format!("{sentence} ({more} more of the like were not written down)")));
            }
        }
    }
}

async fn say(stream: &mut TlsStream<TcpStream>, message: &Message) -> io::Result<()> {
    let frame = message.frame().map_err(io::Error::other)?;
    write_frame(stream, &frame).await?;
    stream.flush().await
}

fn unknown(key: &PeerKey) -> String {
    format!("its key {key} is not known here: pair the two hosts with mailtwin pair, if it is one of yours")
}

/// Why a handshake failed.
fn explain(error: &io::Error) -> String {
    let Some(error) = tls_error(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "it hung up during the handshake".to_owned(),
            _ => error.to_string(),
        };
    };
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::MessageTooLarge) => {
            "it does not speak TLS".to_owned()
        }
        Error::PeerIncompatible(_) => format!("it does not speak TLS 1.3 as this program does ({error})"),
        Error::NoCertificatesPresented => "it shows no key: only hosts that were paired are let in".to_owned(),
        Error::AlertReceived(AlertDescription::CertificateUnknown) => {
            "it does not know this host's key: pair the two hosts with mailtwin pair".to_owned()
        }
        error => match OtherKey::of(error) {
            Some(key) => unknown(&key),
            None => error.to_string(),
        },
    }
}
