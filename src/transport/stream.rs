//! Frames over a stream of bytes: what a pipe to a child and a TLS connection have in common.
//!
//! Two tasks: one reads frames, one writes them and shows now and then that this end lives. A limit of time is one of
//! silence, not of speed: however slow a link is, as long as bytes come the other end is there.

use super::{Connection, Ending, Incoming, QUEUE, Receiver, Sender, TransportError, nonsense};
use crate::wire::frame::{self, Frame, FrameError, HEADER};
use crate::wire::message::{Message, PING};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// An end that has nothing to say shows that it lives this often.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long the first message may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum First {
    /// As long as any other.
    Usual,
    /// As long as it likes: whoever started this program is there.
    Free,
    /// So long, whatever else comes meanwhile.
    Within(Duration),
}

/// What is particular to a kind of stream.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// How long nothing at all may come.
    pub silence: Option<Duration>,
    /// The same of the first message.
    pub first: First,
    /// What an orderly end is called.
    pub ended: &'static str,
    /// What an error of the stream is called.
    pub explain: fn(&io::Error) -> String,
    /// What comes when nobody listens any more is read and dropped. A socket that is closed with something unread in it
    /// takes back what it has sent last, and that mostly says why.
    pub drains: bool,
}

/// The two tasks of a connection.
pub(super) struct Tasks {
    pub writer: JoinHandle<()>,
    pub reader: JoinHandle<()>,
}

/// Makes a connection of a stream's two halves.
pub(super) fn connect(
    handle: &Handle,
    peer: &str,
    input: impl AsyncRead + Unpin + Send + 'static,
    output: impl AsyncWrite + Unpin + Send + 'static,
    manner: Manner,
) -> (Connection, Tasks) {
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let (arrived, incoming) = mpsc::channel(QUEUE);
    let ending = Arc::new(Ending::default());
    let (given_up, gives_up) = oneshot::channel();
    let reader = handle.spawn(read(Input::new(peer, input, manner), arrived, given_up));
    let known = ending.clone();
    let writer = handle.spawn(async move {
        tokio::select! {
            () = write(output, outgoing, known.clone(), manner) => {}
            // Nobody reads any more what is written: whoever waits to send must hear of it.
            Ok(reason) = gives_up => known.set(reason),
        }
    });
    let sender = Sender { peer: peer.to_owned(), frames, sent: Arc::default(), throttle: None, ending: ending.clone() };
    let receiver = Receiver { peer: peer.to_owned(), frames: Incoming::Wire(incoming), received: 0, ending };
    (Connection { sender, receiver }, Tasks { writer, reader })
}

/// The reading half, and how long it waits.
pub(super) struct Input<R> {
    peer: String,
    input: R,
    manner: Manner,
    /// The first message has come.
    begun: bool,
    deadline: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(peer: &str, input: R, manner: Manner) -> Self {
        Self { peer: peer.to_owned(), input, manner, begun: false, deadline: None }
    }

    /// One frame.
    pub(super) async fn frame(&mut self) -> Result<Frame, TransportError> {
        let mut header = [0; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            match self.some(&mut header[filled..]).await? {
                0 if filled == 0 => return Err(self.closed(self.manner.ended.to_owned())),
                0 => return Err(nonsense(&self.peer, &FrameError::Closed)),
                length => filled += length,
            }
        }
        let length = frame::payload_length(&header).map_err(|error| nonsense(&self.peer, &error))?;
        let mut payload = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.some(&mut payload[filled..]).await? {
                0 => return Err(self.closed("it ended in the middle of a message".to_owned())),
                more => filled += more,
            }
        }
        let frame = Frame::checked(header, payload).map_err(|error| nonsense(&self.peer, &error))?;
        self.begun |= frame.kind != PING;
        Ok(frame)
    }

    /// Some bytes, before it has been silent for too long.
    async fn some(&mut self, into: &mut [u8]) -> Result<usize, TransportError> {
        let (limit, read) = match (self.begun, self.manner.first) {
            (false, First::Free) => (None, self.input.read(into).await),
            (false, First::Within(limit)) => {
                let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limit);
                match timeout_at(deadline, self.input.read(into)).await {
                    Ok(read) => (None, read),
                    Err(_) => (Some(limit), Ok(0)),
                }
            }
            _ => match self.manner.silence {
                None => (None, self.input.read(into).await),
                Some(limit) => match timeout(limit, self.input.read(into)).await {
                    Ok(read) => (None, read),
                    Err(_) => (Some(limit), Ok(0)),
                },
            },
        };
        match limit {
            Some(limit) => Err(TransportError::Timeout { peer: self.peer.clone(), seconds: limit.as_secs() }),
            None => read.map_err(|error| self.closed((self.manner.explain)(&error))),
        }
    }

    fn closed(&self, reason: String) -> TransportError {
        TransportError::Closed { peer: self.peer.clone(), reason }
    }

    /// Reads and drops what still comes.
    async fn drain(&mut self) {
        let mut buffer = [0; 16 << 10];
        while matches!(self.some(&mut buffer).await, Ok(length) if length > 0) {}
    }
}

async fn read<R: AsyncRead + Unpin>(
    mut input: Input<R>,
    arrived: mpsc::Sender<Result<Frame, TransportError>>,
    given_up: oneshot::Sender<String>,
) {
    loop {
        let frame = tokio::select! {
            frame = input.frame() => frame,
            () = arrived.closed(), if input.manner.drains => break,
        };
        if let Err(error @ TransportError::Timeout { .. }) = &frame {
            let _ = given_up.send(error.to_string());
            let _ = arrived.send(frame).await;
            return;
        }
        let is_end = frame.is_err();
        if arrived.send(frame).await.is_err() {
            break;
        }
        if is_end {
            return;
        }
    }
    if input.manner.drains {
        input.drain().await;
    }
}

async fn write(
    mut output: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Frame>,
    ending: Arc<Ending>,
    manner: Manner,
) {
    loop {
        let frame = match timeout(HEARTBEAT, frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) => match Message::Ping.frame() {
                Ok(frame) => frame,
                Err(_) => continue,
            },
        };
        if let Err(error) = write_frame(&mut output, &frame).await {
            ending.set((manner.explain)(&error));
            return;
        }
        if frames.is_empty()
            && let Err(error) = output.flush().await
        {
            ending.set((manner.explain)(&error));
            return;
        }
    }
    let _ = output.shutdown().await;
}

pub(super) async fn write_frame(output: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let (header, payload) = frame.parts();
    output.write_all(&header).await?;
    output.write_all(payload).await
}
