//! The end of a pairing on which the code was typed, in the network.

use super::code::Code;
use super::exchange::{Introduction, Note, PATIENCE, PairError, ask};
use std::io;
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Asks a host to be paired: the first of its addresses that answers.
///
/// # Errors
/// [`PairError`].
pub fn call(
    handle: &Handle,
    host: &str,
    port: u16,
    code: &Code,
    me: &Introduction,
    note: Note<'_>,
) -> Result<Introduction, PairError> {
    handle.block_on(async {
        let mut stream = connect(host, port).await?;
        ask(&mut stream, code, me, note).await
    })
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} seconds", PATIENCE.as_secs()));
    let addresses = timeout(PATIENCE, lookup_host((host, port))).await.map_err(|_| late())??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(late())) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = io::Error::new(error.kind(), format!("{}: {error}", address.ip())),
        }
    }
    Err(last)
}
