//! The far end as a child process, mostly ssh, and the near end of that pipe in `mailtwin serve --stdio`.

use super::{Connection, Ending, Incoming, QUEUE, Receiver, Sender, TransportError, nonsense};
use crate::wire::frame::{self, Frame, FrameError, HEADER};
use crate::wire::message::Message;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// An end that has nothing to say shows that it lives this often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A connection and what keeps it running.
pub struct Link {
    /// The connection.
    pub connection: Option<Connection>,
    runtime: Option<tokio::runtime::Runtime>,
    writer: Option<tokio::task::JoinHandle<()>>,
    child: Option<Child>,
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Starts `command` and talks to it: `[ssh, host, mailtwin, serve, --stdio]`.
///
/// # Errors
/// Where it cannot be started.
pub fn start(peer: &str, command: &[String], timeout: Option<Duration>) -> Result<Link, TransportError> {
    let failed = |error: std::io::Error| TransportError::Start {
        peer: peer.to_owned(),
        command: command.first().cloned().unwrap_or_default(),
        reason: error.to_string(),
    };
    let runtime = runtime().map_err(failed)?;
    let _inside = runtime.enter();
    let mut child = Command::new(command.first().map_or("", String::as_str))
        .args(command.get(1..).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(std::io::Error::other("it has no standard input and output")));
    };
    drop(_inside);
    let mut link = connect(peer, runtime, output, input, timeout, false);
    link.child = Some(child);
    Ok(link)
}

/// Talks over this process's own standard input and output.
///
/// # Errors
/// Where the runtime cannot be started.
pub fn stdio(peer: &str, timeout: Option<Duration>) -> Result<Link, TransportError> {
    let failed = |error: std::io::Error| TransportError::Start {
        peer: peer.to_owned(),
        command: "the runtime".to_owned(),
        reason: error.to_string(),
    };
    let runtime = runtime().map_err(failed)?;
    Ok(connect(peer, runtime, tokio::io::stdin(), tokio::io::stdout(), timeout, true))
}

fn connect(
    peer: &str,
    runtime: tokio::runtime::Runtime,
    input: impl AsyncRead + Unpin + Send + 'static,
    output: impl AsyncWrite + Unpin + Send + 'static,
    timeout: Option<Duration>,
    first_is_free: bool,
) -> Link {
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let (arrived, incoming) = mpsc::channel(QUEUE);
    let ending = Arc::new(Ending::default());
    let (given_up, gives_up) = tokio::sync::oneshot::channel();
    runtime.spawn(read(peer.to_owned(), input, arrived, timeout, first_is_free, given_up));
    let known = ending.clone();
    let writer = runtime.spawn(async move {
        tokio::select! {
            () = write(output, outgoing, known.clone()) => {}
            // Nobody reads any more what is written: whoever waits to send must hear of it.
            Ok(reason) = gives_up => known.set(reason),
        }
    });
    let sender = Sender { peer: peer.to_owned(), frames, sent: Arc::default(), throttle: None, ending: ending.clone() };
    let receiver = Receiver { peer: peer.to_owned(), frames: Incoming::Wire(incoming), received: 0, ending };
    Link {
        connection: Some(Connection { sender, receiver }),
        runtime: Some(runtime),
        writer: Some(writer),
        child: None,
    }
}

async fn read(
    peer: String,
    mut input: impl AsyncRead + Unpin,
    arrived: mpsc::Sender<Result<Frame, TransportError>>,
    timeout: Option<Duration>,
    first_is_free: bool,
    given_up: tokio::sync::oneshot::Sender<String>,
) {
    let mut limit = if first_is_free { None } else { timeout };
    loop {
        let frame = match limit {
            None => read_frame(&peer, &mut input).await,
            Some(limit) => match tokio::time::timeout(limit, read_frame(&peer, &mut input)).await {
                Ok(frame) => frame,
                Err(_) => Err(TransportError::Timeout { peer: peer.clone(), seconds: limit.as_secs() }),
            },
        };
        limit = timeout;
        if let Err(error @ TransportError::Timeout { .. }) = &frame {
            let _ = given_up.send(error.to_string());
            let _ = arrived.send(frame).await;
            return;
        }
        let is_end = frame.is_err();
        if arrived.send(frame).await.is_err() || is_end {
            return;
        }
    }
}

async fn read_frame(peer: &str, input: &mut (impl AsyncRead + Unpin)) -> Result<Frame, TransportError> {
    let closed = |error: std::io::Error| TransportError::Closed { peer: peer.to_owned(), reason: error.to_string() };
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match input.read(&mut header[filled..]).await.map_err(closed)? {
            0 if filled == 0 => {
                let reason = "the program at the other end ended".to_owned();
                return Err(TransportError::Closed { peer: peer.to_owned(), reason });
            }
            0 => return Err(nonsense(peer, &FrameError::Closed)),
            length => filled += length,
        }
    }
    let length = frame::payload_length(&header).map_err(|error| nonsense(peer, &error))?;
    let mut payload = vec![0; length];
    input.read_exact(&mut payload).await.map_err(closed)?;
    Frame::checked(header, payload).map_err(|error| nonsense(peer, &error))
}

async fn write(mut output: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>, ending: Arc<Ending>) {
    loop {
        let frame = match tokio::time::timeout(HEARTBEAT, frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) => match Message::Ping.frame() {
                Ok(frame) => frame,
                Err(_) => continue,
            },
        };
        if let Err(error) = write_frame(&mut output, &frame).await {
            ending.set(error.to_string());
            return;
        }
        if frames.is_empty()
            && let Err(error) = output.flush().await
        {
            ending.set(error.to_string());
            return;
        }
    }
    let _ = output.shutdown().await;
}

async fn write_frame(output: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> std::io::Result<()> {
    let (header, payload) = frame.parts();
    output.write_all(&header).await?;
    output.write_all(payload).await
}

impl Link {
    /// Waits until everything queued is written, and for a child to end. Every [`Sender`] must be gone.
    pub fn finish(mut self) -> Option<std::process::ExitStatus> {
        self.connection = None;
        let runtime = self.runtime.take()?;
        let (writer, child) = (self.writer.take(), self.child.take());
        let status = runtime.block_on(async {
            if let Some(writer) = writer {
                let _ = tokio::time::timeout(HEARTBEAT, writer).await;
            }
            match child {
                Some(mut child) => tokio::time::timeout(HEARTBEAT, child.wait()).await.ok()?.ok(),
                None => None,
            }
        });
        // A reader may still wait for standard input; nothing it could bring is wanted any more.
        runtime.shutdown_background();
        status
    }
}
