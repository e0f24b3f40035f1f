//! Typed identifiers: content digests, set and epoch ids, positions of the log.
//!
//! Layer 0. Nothing here does I/O, except that fresh ids are drawn from the kernel.

use serde::{Deserialize, Serialize};
use std::fmt;

/// BLAKE3 of a content, of a directory's record, or of a whole catalogue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// A random 128-bit number; the same on both ends for one set or one epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct RandomId(pub [u8; 16]);

impl RandomId {
    /// Draws a new id from the kernel's random source.
    ///
    /// # Errors
    /// When the kernel has no randomness to give.
    pub fn fresh() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }
}

/// Identifies one set on every host that holds it.
pub type SetId = RandomId;

/// One term of one master. A slave takes batches from one epoch only (I6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, Default)]
pub struct Epoch {
    /// Grows by one with every new term.
    pub counter: u64,
    /// Tells apart two terms that were begun by two hosts at once.
    pub id: RandomId,
}

/// Where a batch stands in a set's history: epoch counter, then sequence number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default)]
pub struct Position {
    /// Counter of the epoch in which the batch was made.
    pub epoch: u64,
    /// Number of the batch within the set's history, from 1.
    pub sequence: u64,
}

impl Position {
    /// The position of the batch after this one, in `epoch`.
    pub fn next(self, epoch: u64) -> Self {
        Self { epoch, sequence: self.sequence + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

/// Writes `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! show_as_hex {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &hex(&self.0)[..12])
            }
        }
    )*};
}
show_as_hex!(Digest, RandomId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_order_by_epoch_then_sequence() {
        let at = |epoch, sequence| Position { epoch, sequence };
        assert!(at(1, 9) < at(2, 1));
        assert!(at(2, 1) < at(2, 2));
        assert_eq!(at(1, 9).next(2), at(2, 10));
        assert_eq!(at(2, 10).to_string(), "2-10");
    }

    #[test]
    fn digests_show_as_hex() {
        assert!(Digest::of(b"").to_string().starts_with("af1349b9f5f9a1a6"));
    }
}
