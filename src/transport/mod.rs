//! The ways between two ends: a pipe inside the process, a child's standard input and output (ssh), or TLS between hosts
//! that know each other's key.
//!
//! Layer 2. Each way a session sees a [`Sender`] and a [`Receiver`] of messages; bytes are counted as they
//! would be on a wire, so that what a test measures in one process is true between two hosts.

pub mod address;
pub mod backoff;
pub mod key;
pub mod pipe;
pub mod ssh;
mod stream;
pub mod tls;

use crate::wire::frame::{Frame, FrameError};
use crate::wire::message::{Message, MessageError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What moves the bytes of one connection: one thread, so that a program that talks to one host needs no more.
///
/// # Errors
/// Where the system has no room for it.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Frames that may wait between a thread and the wire.
const QUEUE: usize = 8;

/// Why the way to the other end is closed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The other end closed, or its program ended.
    #[error("the connection to {peer} was closed: {reason}")]
    Closed {
        /// Who.
        peer: String,
        /// What is known of it.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("{peer} said nothing for {seconds} seconds")]
    Timeout {
        /// Who.
        peer: String,
        /// How long was waited.
        seconds: u64,
    },
    /// What came is no frame.
    #[error("{peer} does not speak this protocol: {reason}. Does its shell print something at login?")]
    Nonsense {
        /// Who.
        peer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The program that makes the connection cannot be started.
    #[error("cannot run {command} to reach {peer}: {reason}")]
    Start {
        /// Who was to be reached.
        peer: String,
        /// The program.
        command: String,
        /// Why not.
        reason: String,
    },
    /// The host cannot be reached, or does not speak this protocol.
    #[error("cannot reach {peer} ({place}): {reason}")]
    Unreachable {
        /// Who.
        peer: String,
        /// Host and port.
        place: String,
        /// Why not.
        reason: String,
    },
    /// Somebody answers there whose key is not the one that was pinned.
    #[error(
        "{peer} ({place}) is not the host that was paired: its key is {key}, expected {expected}: if it was reinstalled, \
         pair again with mailtwin pair; if not, somebody else answers in its place"
    )]
    OtherKey {
        /// Who was to be reached.
        peer: String,
        /// Host and port.
        place: String,
        /// The key that was shown.
        key: String,
        /// The key that was pinned.
        expected: String,
    },
    /// The other end knows who we are, or does not, and lets us not in.
    #[error("{peer} does not let this host in: {reason}")]
    Unwelcome {
        /// Who.
        peer: String,
        /// Its own words, or what its alert means.
        reason: String,
    },
    /// This host cannot wait for others there.
    #[error("cannot wait for other hosts at {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        reason: String,
    },
    /// This host's own key is no use for TLS.
    #[error("this host's key cannot be used for TLS: {0}")]
    Unusable(String),
}

/// Why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The way to the other end.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// What came over it.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// What the tasks of a connection know about its end.
#[derive(Default)]
struct Ending(Mutex<Option<String>>);

impl Ending {
    fn set(&self, reason: String) {
        let mut known = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        known.get_or_insert(reason);
    }

    fn get(&self) -> String {
        let known = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        known.clone().unwrap_or_else(|| "the other end hung up".to_owned())
    }
}

/// Bytes a second that may be sent.
struct Throttle {
    rate: u64,
    free_at: Mutex<Instant>,
}

impl Throttle {
    fn wait(&self, bytes: u64) {
        let mut free_at = self.free_at.lock().unwrap_or_else(|poison| poison.into_inner());
        let now = Instant::now();
        let begin = (*free_at).max(now);
        *free_at = begin + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let due = *free_at;
        drop(free_at);
        // A tenth of a second may be sent ahead, so that small messages are not held up.
        std::thread::sleep(due.saturating_duration_since(now + Duration::from_millis(100)));
    }
}

/// The sending half.
#[derive(Clone)]
pub struct Sender {
    peer: String,
    frames: mpsc::Sender<Frame>,
    sent: Arc<AtomicU64>,
    throttle: Option<Arc<Throttle>>,
    ending: Arc<Ending>,
}

impl Sender {
    /// Sends a message; waits while the queue is full.
    ///
    /// # Errors
    /// Where the connection is closed.
    pub fn send(&self, message: &Message) -> Result<(), LinkError> {
        self.send_frame(message.frame()?)
    }

    /// Sends a block's payload without copying it.
    ///
    /// # Errors
    /// Where the connection is closed.
    pub fn send_block(&self, payload: Vec<u8>) -> Result<(), LinkError> {
        self.send_frame(Frame::plain(crate::wire::message::BLOCK, payload))
    }

    fn send_frame(&self, frame: Frame) -> Result<(), LinkError> {
        let length = frame.length();
        if let Some(throttle) = &self.throttle {
            throttle.wait(length);
        }
        let closed = |_| TransportError::Closed { peer: self.peer.clone(), reason: self.ending.get() };
        self.frames.blocking_send(frame).map_err(closed)?;
        self.sent.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Limits what is sent to `rate` bytes a second.
    pub fn limit(&mut self, rate: u64) {
        self.throttle = Some(Arc::new(Throttle { rate: rate.max(1), free_at: Mutex::new(Instant::now()) }));
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Where frames come from.
enum Incoming {
    /// From the other end of a pipe, as they were sent.
    Pipe(mpsc::Receiver<Frame>),
    /// From a task that reads them.
    Wire(mpsc::Receiver<Result<Frame, TransportError>>),
}

impl Incoming {
    fn blocking_recv(&mut self) -> Option<Result<Frame, TransportError>> {
        match self {
            Self::Pipe(frames) => frames.blocking_recv().map(Ok),
            Self::Wire(frames) => frames.blocking_recv(),
        }
    }

    fn try_recv(&mut self) -> Result<Result<Frame, TransportError>, mpsc::error::TryRecvError> {
        match self {
            Self::Pipe(frames) => frames.try_recv().map(Ok),
            Self::Wire(frames) => frames.try_recv(),
        }
    }
}

/// The receiving half.
pub struct Receiver {
    peer: String,
    frames: Incoming,
    received: u64,
    ending: Arc<Ending>,
}

impl Receiver {
    /// Waits for a message.
    ///
    /// # Errors
    /// Where the connection ended or what came is malformed.
    pub fn recv(&mut self) -> Result<Message, LinkError> {
        loop {
            let Some(frame) = self.frames.blocking_recv() else {
                return Err(self.closed().into());
            };
            match self.parse(frame)? {
                Message::Ping => {}
                message => return Ok(message),
            }
        }
    }

    /// A message, if one is there already.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Message>, LinkError> {
        loop {
            match self.frames.try_recv() {
                Ok(frame) => match self.parse(frame)? {
                    Message::Ping => {}
                    message => return Ok(Some(message)),
                },
                Err(mpsc::error::TryRecvError::Empty) => return Ok(None),
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(self.closed().into()),
            }
        }
    }

    fn parse(&mut self, frame: Result<Frame, TransportError>) -> Result<Message, LinkError> {
        let frame = frame?;
        self.received += frame.length();
        Ok(Message::parse(&frame)?)
    }

    fn closed(&self) -> TransportError {
        TransportError::Closed { peer: self.peer.clone(), reason: self.ending.get() }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }
}

/// A connection: both halves.
pub struct Connection {
    /// Towards the other end.
    pub sender: Sender,
    /// From the other end.
    pub receiver: Receiver,
}

fn nonsense(peer: &str, error: &FrameError) -> TransportError {
    TransportError::Nonsense { peer: peer.to_owned(), reason: error.to_string() }
}
