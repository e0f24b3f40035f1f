//! The far end as a child process, mostly ssh, and the near end of that pipe in `mailtwin serve --stdio`.

use super::stream::{self, First, HEARTBEAT, Manner};
use super::{Connection, TransportError, runtime};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::{Child, Command};

/// A connection and what keeps it running.
pub struct Link {
    /// The connection.
    pub connection: Option<Connection>,
    runtime: Option<tokio::runtime::Runtime>,
    writer: Option<tokio::task::JoinHandle<()>>,
    child: Option<Child>,
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
    let mut link = connect(peer, runtime, output, input, timeout, First::Usual);
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
    Ok(connect(peer, runtime, tokio::io::stdin(), tokio::io::stdout(), timeout, First::Free))
}

fn connect(
    peer: &str,
    runtime: tokio::runtime::Runtime,
    input: impl AsyncRead + Unpin + Send + 'static,
    output: impl AsyncWrite + Unpin + Send + 'static,
    silence: Option<Duration>,
    first: First,
) -> Link {
    let ended = "the program at the other end ended";
    let manner = Manner { silence, first, ended, explain: |error| error.to_string(), drains: false };
    let (connection, tasks) = stream::connect(runtime.handle(), peer, input, output, manner);
    Link { connection: Some(connection), runtime: Some(runtime), writer: Some(tasks.writer), child: None }
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
