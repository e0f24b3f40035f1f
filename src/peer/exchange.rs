//! The pairing of two hosts, over any stream of bytes.
//!
//! SPAKE2 (as in RFC 9382, over Ed25519) makes one key of one short code on both ends. Who does not know the code, though
//! he carries every byte between the two, learns nothing by which he could try codes later: each conversation is one guess.
//! Under that key, and over both halves of the exchange, each end proves what it says of itself: its name, where it can be
//! reached, and its public key.
//!
//! The asking end proves first, so that a stranger who asks hears whether his guess was right, and nothing else. Each end
//! notes the other only then, and says so; where one hears no more of it, it says that the hosts are to be paired again,
//! which harms nothing.

use super::code::Code;
use crate::transport::key::PeerKey;
use crate::wire::frame::{Frame, HEADER};
use crate::wire::pairing::{self, ELEMENT, Pairing, PairingError, Proof};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The longest that the other program may take for one message: nobody is asked anything meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(10);

const ASKS: &[u8] = b"mailtwin pair: the host that asks";
const SHOWS: &[u8] = b"mailtwin pair: the host that shows the code";

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// What it calls itself.
    pub name: String,
    /// Where it wants to be reached, if not where it was met.
    pub address: Option<String>,
    /// Its public key.
    pub key: PeerKey,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The connection.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no pairing.
    #[error("what answers there does not pair hosts: {0}")]
    Message(#[from] PairingError),
    /// Nothing came for too long.
    #[error("it said nothing for {} seconds", PATIENCE.as_secs())]
    Silence,
    /// The codes differ.
    #[error("the code is wrong")]
    Code,
    /// The other end does not go on; its own words.
    #[error("it says: {0}")]
    Refused(String),
    /// Something at the wrong time.
    #[error("it said something at the wrong time")]
    Protocol,
    /// Both ends are one.
    #[error(
        "both hosts have the same key: one of them was copied with it. Remove the file of the key on one of them, and pair again"
    )]
    Same,
    /// Both are called the same.
    #[error("both hosts are called {0}: give one of them another name with --name")]
    SameName(String),
    /// The other one cannot be noted here.
    #[error("{0}")]
    Note(String),
}

type Result<T> = std::result::Result<T, PairError>;

/// Notes the other host; a sentence where it cannot be done.
pub type Note<'a> = &'a mut (dyn FnMut(&Introduction) -> std::result::Result<(), String> + Send);

/// The end on which the code was typed.
///
/// # Errors
/// [`PairError`]; the other host is noted, or nothing is.
pub async fn ask<S>(stream: &mut S, code: &Code, me: &Introduction, note: Note<'_>) -> Result<Introduction>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (spake, mine) =
        Spake2::<Ed25519Group>::start_a(&Password::new(code.bytes()), &Identity::new(ASKS), &Identity::new(SHOWS));
    let mine = element(mine)?;
    send(stream, &Pairing::Offer(mine)).await?;
    let Pairing::Offer(theirs) = receive(stream).await? else { return Err(PairError::Protocol) };
    let keys = Keys::new(spake, &mine, &theirs, &mine, &theirs)?;
    send(stream, &Pairing::Proof(keys.prove(keys.asks, me))).await?;
    let Pairing::Proof(proof) = receive(stream).await? else { return Err(PairError::Protocol) };
    let other = keys.believe(keys.shows, proof)?;
    check(stream, me, &other).await?;
    send(stream, &Pairing::Agreed).await?;
    let Pairing::Agreed = receive(stream).await? else { return Err(PairError::Protocol) };
    note(&other).map_err(PairError::Note)?;
    Ok(other)
}

/// The beginning of the end that shows the code: what can be heard of a stranger before anything of ours is given away.
///
/// # Errors
/// [`PairError`].
pub async fn hear_offer(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; ELEMENT]> {
    match receive(stream).await? {
        Pairing::Offer(theirs) => Ok(theirs),
        _ => Err(PairError::Protocol),
    }
}

/// The end that shows the code. After [`PairError::Code`] this code must not be used again.
///
/// # Errors
/// [`PairError`]; the other host is noted, or nothing is.
pub async fn answer<S>(
    stream: &mut S,
    theirs: &[u8; ELEMENT],
    code: &Code,
    me: &Introduction,
    note: Note<'_>,
) -> Result<Introduction>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (spake, mine) =
        Spake2::<Ed25519Group>::start_b(&Password::new(code.bytes()), &Identity::new(ASKS), &Identity::new(SHOWS));
    let mine = element(mine)?;
    let keys = Keys::new(spake, &mine, theirs, theirs, &mine)?;
    send(stream, &Pairing::Offer(mine)).await?;
    let Pairing::Proof(proof) = receive(stream).await? else { return Err(PairError::Protocol) };
    let other = match keys.believe(keys.asks, proof) {
        Ok(other) => other,
        Err(error) => {
            refuse(stream, &PairError::Code.to_string()).await;
            return Err(error);
        }
    };
    check(stream, me, &other).await?;
    send(stream, &Pairing::Proof(keys.prove(keys.shows, me))).await?;
    let Pairing::Agreed = receive(stream).await? else { return Err(PairError::Protocol) };
    if let Err(sentence) = note(&other) {
        refuse(stream, &sentence).await;
        return Err(PairError::Note(sentence));
    }
    send(stream, &Pairing::Agreed).await?;
    Ok(other)
}

/// What makes no pair, though the code is right.
async fn check(stream: &mut (impl AsyncWrite + Unpin), me: &Introduction, other: &Introduction) -> Result<()> {
    let error = match () {
        () if other.key == me.key => PairError::Same,
        () if other.name == me.name => PairError::SameName(me.name.clone()),
        () => return Ok(()),
    };
    refuse(stream, &error.to_string()).await;
    Err(error)
}

/// The keys that both ends have, where both know the code.
struct Keys {
    asks: [u8; 32],
    shows: [u8; 32],
}

impl Keys {
    fn new(
        spake: Spake2<Ed25519Group>,
        mine: &[u8; ELEMENT],
        theirs: &[u8; ELEMENT],
        first: &[u8; ELEMENT],
        second: &[u8; ELEMENT],
    ) -> Result<Self> {
        // Who sends our own half back knows nothing.
        if mine[1..] == theirs[1..] {
            return Err(PairError::Protocol);
        }
        let shared = spake.finish(theirs).map_err(|_| PairError::Protocol)?;
        let material = [&shared[..], &pairing::VERSION.to_le_bytes(), first, second].concat();
        Ok(Self {
            asks: blake3::derive_key("mailtwin 2026-11-23 pairing: what the host that asks proves", &material),
            shows: blake3::derive_key(
                "mailtwin 2026-11-23 pairing: what the host that shows the code proves",
                &material,
            ),
        })
    }

    fn prove(&self, key: [u8; 32], me: &Introduction) -> Proof {
        let Introduction { name, address, key: public } = me.clone();
        let mac = *mac(&key, &name, address.as_deref(), &public.0).as_bytes();
        Proof { name, address, key: public.0, mac }
    }

    fn believe(&self, key: [u8; 32], proof: Proof) -> Result<Introduction> {
        let Proof { name, address, key: public, mac: theirs } = proof;
        // This comparison takes as long for a wrong byte at the beginning as for one at the end.
        match mac(&key, &name, address.as_deref(), &public) == blake3::Hash::from_bytes(theirs) {
            true => Ok(Introduction { name, address, key: PeerKey(public) }),
            false => Err(PairError::Code),
        }
    }
}

fn mac(key: &[u8; 32], name: &str, address: Option<&str>, public: &[u8; 32]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [Some(name), address] {
        // Lengths before the parts: no two introductions have the same bytes.
        hasher.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default().as_bytes());
    }
    hasher.update(public).finalize()
}

fn element(made: Vec<u8>) -> Result<[u8; ELEMENT]> {
    made.try_into().map_err(|_| PairError::Protocol)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &Pairing) -> Result<()> {
    let frame = message.frame()?;
    let (header, payload) = frame.parts();
    let bytes = [&header[..], payload].concat();
    let sent = timeout(PATIENCE, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    Ok(sent.await.map_err(|_| PairError::Silence)??)
}

/// Says why nothing comes of it; who does not hear it sees the end of the connection.
async fn refuse(stream: &mut (impl AsyncWrite + Unpin), sentence: &str) {
    let sentence = sentence.chars().filter(|letter| !letter.is_control()).take(120).collect();
    let _ = send(stream, &Pairing::Refused(sentence)).await;
    let _ = stream.shutdown().await;
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Pairing> {
    let read = async {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await?;
        let mut payload = vec![0; pairing::payload_length(&header)?];
        stream.read_exact(&mut payload).await?;
        let frame = Frame::checked(header, payload).map_err(PairingError::from)?;
        Ok::<_, PairError>(Pairing::parse(&frame)?)
    };
    match timeout(PATIENCE, read).await.map_err(|_| PairError::Silence)?? {
        Pairing::Refused(sentence) => Err(PairError::Refused(sentence)),
        message => Ok(message),
    }
}

#[cfg(test)]
mod tests;
