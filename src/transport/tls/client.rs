//! Connecting to a host whose key is known.

use super::verify::{OtherKey, Pinned, Welcome};
use super::{ALPN, Found, Link, key_of, link, manner, prepare, provider, tls_error, unusable};
use crate::transport::TransportError;
use crate::transport::key::{HostKey, PeerKey};
use crate::transport::stream::First;
use crate::wire::frame::{self, Frame, HEADER};
use crate::wire::message::Message;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 16;

/// A sign of life, or one sentence.
const LONGEST_FIRST_WORD: usize = 16 << 10;

/// What is expected inside a certificate is its key: the name is never sent, and never looked at.
const NO_NAME: &str = "mailtwin";

/// Whom to call, and how.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// What this host calls the other one.
    pub peer: &'a str,
    /// Its name or address in the network.
    pub host: &'a str,
    /// Its port; mostly [`super::PORT`].
    pub port: u16,
    /// This host's key.
    pub key: &'a HostKey,
    /// The key that the other host must have.
    pub expected: PeerKey,
    /// How long each of its addresses may take to answer and to let us in.
    pub patience: Duration,
    /// How long it may say nothing at all later; two signs of life come in ten seconds.
    pub silence: Option<Duration>,
}

/// Connects: each of the host's addresses in turn, until one has its key and lets us in. Not to be
/// called from a task of the runtime.
///
/// # Errors
/// Where none does; the sentence names host, port and what to do.
pub fn connect(handle: &Handle, dial: &Dial<'_>) -> Result<Link, TransportError> {
    handle.block_on(async {
        let connector = TlsConnector::from(Arc::new(config(dial)?));
        let mut failures = Vec::new();
        for address in addresses(dial).await? {
            match timeout(dial.patience, dial.call(&connector, address)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(failure)) => failures.push((address, failure)),
                Err(_) => {
                    let waited = format!("no answer within {} seconds", dial.patience.as_secs_f32());
                    failures.push((address, dial.unreachable(waited)));
                }
            }
        }
        Err(dial.sum_up(failures))
    })
}

fn config(dial: &Dial<'_>) -> Result<ClientConfig, TransportError> {
    let provider = provider();
    let verifier = Pinned::new(Welcome::One(dial.expected), provider.clone());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![dial.key.certificate()], dial.key.private())
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

async fn addresses(dial: &Dial<'_>) -> Result<Vec<SocketAddr>, TransportError> {
    let host = dial.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(dial.host);
    let found = timeout(dial.patience, lookup_host((host, dial.port))).await;
    let no_address = |reason: String| dial.unreachable(format!("{reason}; is its name right?"));
    let found = found.map_err(|_| no_address("its name could not be looked up in time".to_owned()))?;
    let found: Vec<_> = found.map_err(|error| no_address(error.to_string()))?.take(MOST_ADDRESSES).collect();
    match found.is_empty() {
        true => Err(no_address("its name has no address".to_owned())),
        false => Ok(found),
    }
}

impl Dial<'_> {
    async fn call(&self, connector: &TlsConnector, address: SocketAddr) -> Result<Link, TransportError> {
        let failed = |error: io::Error| self.explain(&error);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        prepare(&stream);
        let name = ServerName::try_from(NO_NAME).map_err(|error| self.unreachable(error.to_string()))?;
        let mut stream = connector.connect(name, stream).await.map_err(failed)?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(ALPN) {
            return Err(self.unreachable("it speaks another protocol".to_owned()));
        }
        let key = key_of(session.peer_certificates()).map_err(|error| self.unreachable(error.to_string()))?;
        self.hear_the_first_word(&mut stream).await?;
        let found = Found { peer: self.peer.to_owned(), key, address };
        Ok(link(stream, found, manner(self.silence, First::Usual), None))
    }

    /// Whether we are let in. Nothing has been sent yet, so that what is said about it is not lost.
    async fn hear_the_first_word(&self, stream: &mut TlsStream<TcpStream>) -> Result<(), TransportError> {
        let failed = |error: io::Error| self.explain(&error);
        let no_mailtwin = || self.unreachable("it does not begin as mailtwin does".to_owned());
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await.map_err(failed)?;
        let length = frame::payload_length(&header).ok().filter(|length| *length <= LONGEST_FIRST_WORD);
        let mut payload = vec![0; length.ok_or_else(no_mailtwin)?];
        stream.read_exact(&mut payload).await.map_err(failed)?;
        let frame = Frame::checked(header, payload).map_err(|_| no_mailtwin())?;
        match Message::parse(&frame) {
            Ok(Message::Ping) => Ok(()),
            Ok(Message::Refuse(refusal)) => {
                Err(TransportError::Unwelcome { peer: self.peer.to_owned(), reason: refusal.sentence })
            }
            _ => Err(no_mailtwin()),
        }
    }

    fn explain(&self, error: &io::Error) -> TransportError {
        match tls_error(error) {
            Some(Error::AlertReceived(AlertDescription::CertificateUnknown)) => TransportError::Unwelcome {
                peer: self.peer.to_owned(),
                reason: format!(
                    "it does not know this host's key, {}: pair the two hosts with mailtwin pair",
                    self.key.public()
                ),
            },
            Some(error) => match OtherKey::of(error) {
                Some(key) => TransportError::OtherKey {
                    peer: self.peer.to_owned(),
                    place: self.place(),
                    key: key.to_string(),
                    expected: self.expected.to_string(),
                },
                None => self.unreachable(format!("TLS fails: {error}")),
            },
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.unreachable("it hung up before it said anything".to_owned())
            }
            None => self.unreachable(error.to_string()),
        }
    }

    fn place(&self) -> String {
        format!("{} port {}", self.host, self.port)
    }

    fn unreachable(&self, reason: String) -> TransportError {
        TransportError::Unreachable { peer: self.peer.to_owned(), place: self.place(), reason }
    }

    /// One error of many: a host that answered tells more than one that did not.
    fn sum_up(&self, mut failures: Vec<(SocketAddr, TransportError)>) -> TransportError {
        let answered = |failure: &TransportError| !matches!(failure, TransportError::Unreachable { .. });
        if let Some(at) = failures.iter().position(|(_, failure)| answered(failure)) {
            return failures.swap_remove(at).1;
        }
        let reasons: Vec<String> = failures
            .into_iter()
            .map(|(address, failure)| match failure {
                TransportError::Unreachable { reason, .. } => format!("{}: {reason}", address.ip()),
                other => other.to_string(),
            })
            .collect();
        self.unreachable(reasons.join("; "))
    }
}
