//! The end of a pairing that shows the code, in the network.
//!
//! Many may connect, one at a time is answered: those who have said something, in the order in which they did. Who only
//! connects keeps nobody else out.

use super::code::Code;
use super::exchange::{Introduction, PATIENCE, PairError, answer, hear_offer};
use crate::wire::pairing::ELEMENT;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// The port at which a host waits to be paired, where no other is given. Not that of the daemon, which may be running.
pub const PORT: u16 = 8947;

/// Connections that have not said anything yet. Where there are more nobody else is heard until one of them is given up.
const MOST: usize = 64;

/// A host that waits to be paired.
pub struct Listener {
    listener: TcpListener,
    handle: Handle,
    /// Those who have connected, until they have said something.
    strangers: JoinSet<Option<Stranger>>,
}

/// Somebody who has made an offer.
struct Stranger {
    stream: TcpStream,
    address: SocketAddr,
    offer: [u8; ELEMENT],
}

/// What came of one code.
#[derive(Debug)]
pub enum Heard {
    /// The host at this address was paired.
    Paired(SocketAddr, Introduction),
    /// Somebody typed another code: this one is used up.
    WrongCode(SocketAddr),
    /// The codes are equal, but these two make no pair, or it could not be noted.
    Failed(SocketAddr, PairError),
    /// Nobody came in time.
    Nobody,
}

impl Listener {
    /// Begins to wait.
    ///
    /// # Errors
    /// Where this host cannot listen there.
    pub fn bind(handle: &Handle, address: &str) -> io::Result<Self> {
        let listener = handle.block_on(TcpListener::bind(address))?;
        Ok(Self { listener, handle: handle.clone(), strangers: JoinSet::new() })
    }

    /// Where it waits.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits until somebody has used up this code. `note` writes the other host down.
    ///
    /// # Errors
    /// Where connections cannot be accepted any more.
    pub fn wait(
        &mut self,
        code: &Code,
        me: &Introduction,
        patience: Duration,
        note: &mut (dyn FnMut(SocketAddr, &Introduction) -> Result<(), String> + Send),
    ) -> io::Result<Heard> {
        let handle = self.handle.clone();
        handle.block_on(async {
            let deadline = Instant::now() + patience;
            loop {
                let Ok(stranger) = timeout_at(deadline, self.next()).await else { return Ok(Heard::Nobody) };
                let Stranger { mut stream, address, offer } = stranger?;
                let mut note_it = |other: &Introduction| note(address, other);
                let answered = answer(&mut stream, &offer, code, me, &mut note_it);
                match timeout(3 * PATIENCE, answered).await {
                    Ok(Ok(other)) => return Ok(Heard::Paired(address, other)),
                    Ok(Err(PairError::Code)) => return Ok(Heard::WrongCode(address)),
                    Ok(Err(error @ (PairError::Same | PairError::SameName(_) | PairError::Note(_)))) => {
                        return Ok(Heard::Failed(address, error));
                    }
                    // Who gives up before a proof has not guessed.
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        })
    }

    /// The next one who has made an offer.
    async fn next(&mut self) -> io::Result<Stranger> {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if self.strangers.len() < MOST => {
                    let (mut stream, address) = accepted?;
                    self.strangers.spawn(async move {
                        let offer = timeout(PATIENCE, hear_offer(&mut stream)).await.ok()?.ok()?;
                        Some(Stranger { stream, address, offer })
                    });
                }
                Some(heard) = self.strangers.join_next() => {
                    if let Ok(Some(stranger)) = heard {
                        return Ok(stranger);
                    }
                }
            }
        }
    }
}
