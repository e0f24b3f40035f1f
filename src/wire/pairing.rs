//! What two hosts say to one another while they are paired. The first bytes that a stranger may send us in a format of ours,
//! so each message is small, and validated before anything is done with it.
//!
//! ```text
//! asks                                   shows the code
//!   Offer  ------------------------------>        its half of the key exchange
//!          <------------------------------ Offer
//!   Proof  ------------------------------>        name, address, public key; and that it knows the code
//!          <------------------------------ Proof
//!   Agreed ------------------------------>        noted
//!          <------------------------------ Agreed
//! ```
//!
//! Either may say `Refused` instead.

use super::frame::{self, Frame, FrameError, HEADER};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of pairing that this program speaks; both ends must speak the same.
pub const VERSION: u16 = 1;

/// Longest payload.
pub const MAX_PAYLOAD: usize = 1024;

/// Longest name of a host.
pub const MAX_NAME: usize = 64;

/// Longest address: a name in the DNS, a colon and a port.
pub const MAX_ADDRESS: usize = 260;

/// Longest sentence of a refusal.
const MAX_SENTENCE: usize = 512;

/// Bytes of one half of the key exchange: a letter for the side, and a point of the curve.
pub const ELEMENT: usize = 33;

/// What a host says of itself, and the proof that it knows the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What it calls itself.
    pub name: String,
    /// Where it can be reached, if it wants that to be written down.
    pub address: Option<String>,
    /// Its public key's SHA-256.
    pub key: [u8; 32],
    /// A keyed hash over all of the above, under the key that was exchanged.
    pub mac: [u8; 32],
}

/// A message of pairing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Half of the key exchange.
    Offer([u8; ELEMENT]),
    /// Who I am, and that I know the code.
    Proof(Proof),
    /// The other one is noted.
    Agreed,
    /// Nothing comes of it; a sentence for a person.
    Refused(String),
}

/// Why bytes are no message of pairing.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The frame itself.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Longer than any message of pairing.
    #[error("a message of {0} bytes is longer than allowed")]
    TooLong(usize),
    /// A kind that there is not.
    #[error("a message of the unknown kind {0}")]
    Kind(u8),
    /// The payload does not decode, or breaks a rule.
    #[error("a malformed message of kind {0}")]
    Malformed(u8),
    /// The other end's program is another.
    #[error("the other end pairs by version {0}, this one by {VERSION}: install the same mailtwin on both hosts")]
    Version(u16),
}

impl Pairing {
    /// Packs the message.
    ///
    /// # Errors
    /// Only when memory ends.
    pub fn frame(&self) -> Result<Frame, PairingError> {
        Ok(match self {
            Self::Offer(element) => Frame::plain(32, [&VERSION.to_le_bytes()[..], element].concat()),
            Self::Proof(proof) => Frame::plain(33, encode(33, proof)?),
            Self::Agreed => Frame::plain(34, Vec::new()),
            Self::Refused(sentence) => Frame::plain(35, encode(35, sentence)?),
        })
    }

    /// Unpacks and validates a frame.
    ///
    /// # Errors
    /// [`PairingError`]; nothing of a malformed message is used.
    pub fn parse(frame: &Frame) -> Result<Self, PairingError> {
        if frame.length() > (HEADER + MAX_PAYLOAD) as u64 {
            return Err(PairingError::TooLong(frame.length() as usize));
        }
        let (kind, (header, payload)) = (frame.kind, frame.parts());
        // Nothing here is worth compressing, and what a stranger sends is not decompressed.
        let message = match (kind, header[5]) {
            (_, flags) if flags != 0 => return Err(FrameError::Form.into()),
            (32, _) => Self::Offer(element(payload)?),
            (33, _) => Self::Proof(decode(kind, payload)?),
            (34, _) if payload.is_empty() => Self::Agreed,
            (35, _) => Self::Refused(decode(kind, payload)?),
            (34, _) => return Err(PairingError::Malformed(kind)),
            _ => return Err(PairingError::Kind(kind)),
        };
        match message.is_valid() {
            true => Ok(message),
            false => Err(PairingError::Malformed(kind)),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Proof(proof) => is_name(&proof.name) && proof.address.as_deref().is_none_or(is_address),
            Self::Refused(sentence) => sentence.len() <= MAX_SENTENCE && !sentence.contains(char::is_control),
            Self::Offer(_) | Self::Agreed => true,
        }
    }
}

/// The payload length that a header announces.
///
/// # Errors
/// [`PairingError::TooLong`] beyond [`MAX_PAYLOAD`].
pub fn payload_length(header: &[u8; HEADER]) -> Result<usize, PairingError> {
    let length = frame::payload_length(header)?;
    match length <= MAX_PAYLOAD {
        true => Ok(length),
        false => Err(PairingError::TooLong(length)),
    }
}

/// Whether a host may be called so: it is written into files and messages.
pub fn is_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with(['-', '.', '_'])
}

/// Whether this can be an address: a host or an IP address, and a port if there is one.
pub fn is_address(address: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]%".contains(&byte);
    (1..=MAX_ADDRESS).contains(&address.len()) && address.bytes().all(fine) && !address.starts_with('-')
}

fn element(payload: &[u8]) -> Result<[u8; ELEMENT], PairingError> {
    let malformed = || PairingError::Malformed(32);
    let (version, element) = payload.split_first_chunk::<2>().ok_or_else(malformed)?;
    match u16::from_le_bytes(*version) {
        VERSION => element.try_into().map_err(|_| malformed()),
        theirs => Err(PairingError::Version(theirs)),
    }
}

fn encode<T: Serialize>(kind: u8, value: &T) -> Result<Vec<u8>, PairingError> {
    postcard::to_stdvec(value).map_err(|_| PairingError::Malformed(kind))
}

fn decode<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, PairingError> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        _ => Err(PairingError::Malformed(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> Proof {
        Proof { name: "mx1".into(), address: Some("[2001:db8::1]:8946".into()), key: [1; 32], mac: [2; 32] }
    }

    fn back(message: &Pairing) -> Result<Pairing, PairingError> {
        Pairing::parse(&message.frame().expect("packs"))
    }

    #[test]
    fn messages_come_back_as_they_were() {
        for message in [
            Pairing::Offer([7; ELEMENT]),
            Pairing::Proof(proof()),
            Pairing::Proof(Proof { address: None, ..proof() }),
            Pairing::Agreed,
            Pairing::Refused("the code is wrong".into()),
        ] {
            assert_eq!(back(&message).expect("parses"), message);
        }
    }

    #[test]
    fn what_could_do_harm_in_a_file_or_on_a_terminal_is_refused() {
        for name in ["", "a\"b", "a\nb", "-x", ".x", "_x", "a b", "\u{1b}[2J", &"x".repeat(MAX_NAME + 1)] {
            assert!(back(&Pairing::Proof(Proof { name: name.into(), ..proof() })).is_err(), "{name:?}");
        }
        for address in ["", "-oProxyCommand=x", "a b", "a\"", "a\n", &"x".repeat(MAX_ADDRESS + 1)] {
            let proof = Proof { address: Some(address.into()), ..proof() };
            assert!(back(&Pairing::Proof(proof)).is_err(), "{address:?}");
        }
        assert!(back(&Pairing::Refused("\u{1b}[2J".into())).is_err());
    }

    #[test]
    fn another_version_is_said_by_number_and_what_is_long_or_compressed_is_refused() {
        let error = Pairing::parse(&Frame::plain(32, vec![9, 0, 1])).expect_err("too new").to_string();
        assert!(error.contains("version 9"), "{error}");
        assert!(matches!(Pairing::parse(&Frame::plain(33, vec![0; MAX_PAYLOAD + 1])), Err(PairingError::TooLong(_))));
        assert!(Pairing::parse(&Frame::compressed(33, vec![0; MAX_PAYLOAD])).is_err());
        assert!(Pairing::parse(&Frame::plain(34, vec![0])).is_err());
        assert!(Pairing::parse(&Frame::plain(32, [1, 0].repeat(20))).is_err());
    }
}
