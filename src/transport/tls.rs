//! TLS 1.3 between two hosts that know each other's key: no certificate authority, no names, no dates.
//!
//! Both ends show a certificate, and each looks only at the public key in it: it must be the one that was pinned when the
//! hosts were paired. That the other end holds the private half is proved by its signature over the handshake. What else
//! a certificate says, its names and its dates, is the word of its owner alone, so it decides nothing: there is no day on
//! which a standby stops being one.
//!
//! ```text
//! connecting                             accepting
//!   ClientHello ------------------------->
//!               <------------------------- ServerHello ... Certificate, CertificateVerify, Finished
//!   (is it the pinned key?)
//!   Certificate, CertificateVerify, Finished ->
//!                                        (is it a pinned key? is there room for one more?)
//!               <------------------------- Ping, or Refuse and why
//!   Hello ------------------------------->
//! ```
//!
//! Since TLS 1.3 the connecting end has finished its handshake before the accepting one has looked at its key. So the
//! accepting end speaks first, and the connecting one waits for that: who is not let in hears it before sending anything.
//!
//! There are no session tickets (an end that only sends would never read them, and a close would then lose data), no early
//! data (it could be replayed), and no older version of TLS in this program at all. An end that was meant says so
//! (`close_notify`), and is told from a connection that was cut.
//!
//! `verify` compares keys, `client` connects, `server` accepts, within limits (`limits`).

use super::key::{KeyError, PeerKey};
use super::stream::{self, First, HEARTBEAT, Manner, Tasks};
use super::{Connection, TransportError};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

mod client;
mod limits;
mod server;
mod verify;

pub use client::{Dial, connect};
pub use limits::Limits;
pub use server::{Peers, Server};

/// The port at which a host waits for others, where no other is configured.
pub const PORT: u16 = 8946;

/// What the two ends agree to speak inside.
const ALPN: &[u8] = b"mailtwin/1";

/// Bytes of small messages that are sent as one record.
const WRITE_BUFFER: usize = 16 << 10;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A connection to a host whose key is known.
pub struct Link {
    /// The connection. Whoever serves or drives a session takes it out, and drops it before [`Link::finish`].
    pub connection: Option<Connection>,
    /// What this host calls the other one.
    pub peer: String,
    /// Its key.
    pub key: PeerKey,
    /// Where it is.
    pub address: SocketAddr,
    tasks: Tasks,
    handle: Handle,
    _place: Option<limits::Place>,
}

impl Link {
    /// Hangs up, though the session goes on: it hears that the other end has gone.
    pub fn hang_up(&self) -> tokio::task::AbortHandle {
        self.tasks.reader.abort_handle()
    }

    /// Waits until everything queued is sent, and the other end has heard that this was the end. Every sender must be
    /// gone. Not to be called from a task of the runtime.
    pub fn finish(mut self) {
        self.connection = None;
        let Tasks { writer, reader } = &mut self.tasks;
        self.handle.block_on(async {
            let _ = tokio::time::timeout(HEARTBEAT, writer).await;
            let _ = tokio::time::timeout(HEARTBEAT, reader).await;
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.reader.abort();
    }
}

fn link<S>(stream: S, found: Found, manner: Manner, place: Option<limits::Place>) -> Link
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Found { peer, key, address } = found;
    let (input, output) = tokio::io::split(stream);
    let output = BufWriter::with_capacity(WRITE_BUFFER, output);
    let handle = Handle::current();
    let (connection, tasks) = stream::connect(&handle, &peer, input, output, manner);
    Link { connection: Some(connection), peer, key, address, tasks, handle, _place: place }
}

/// Who is at the other end.
struct Found {
    peer: String,
    key: PeerKey,
    address: SocketAddr,
}

fn manner(silence: Option<Duration>, first: First) -> Manner {
    Manner { silence, first, ended: "it ended the session", explain, drains: true }
}

/// What an error of the stream means.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection was cut".to_owned(),
        io::ErrorKind::InvalidData => format!("what came was damaged or forged on the way: {error}"),
        _ => error.to_string(),
    }
}

/// What rustls says is wrong, where it is rustls that says it.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The key that the other end has proved to hold.
fn key_of(certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>) -> Result<PeerKey, KeyError> {
    PeerKey::of_certificate(certificates.and_then(<[_]>::first).ok_or(KeyError::Certificate)?)
}

/// Small messages are not held back until there is more to send.
fn prepare(stream: &TcpStream) {
    // Where the system cannot, it is slower and nothing else.
    let _ = stream.set_nodelay(true);
}

fn unusable(error: &rustls::Error) -> TransportError {
    TransportError::Unusable(error.to_string())
}
