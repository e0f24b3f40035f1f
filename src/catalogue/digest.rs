//! A digest of a set of rows that is kept up in constant time as rows come and go.
//!
//! LtHash (Bellare and Micciancio 1997; Lewi and others, "Securing Update Propagation with Homomorphic
//! Hashing", 2019): each row is hashed to 1024 numbers of 16 bits, and the set is their sum. Adding and
//! removing a row is adding and subtracting; the order of the rows does not matter. So the root digest of a
//! million messages is known without reading them.

use crate::id::Digest;

const LANES: usize = 1024;

/// Bytes that [`Sum::to_bytes`] gives.
pub const LENGTH: usize = LANES * 2;

/// The sum over a set of rows.
#[derive(Clone, PartialEq, Eq)]
pub struct Sum([u16; LANES]);

impl Default for Sum {
    fn default() -> Self {
        Self([0; LANES])
    }
}

impl Sum {
    /// Takes a row into the set.
    pub fn add(&mut self, key: &[u8], row: &Digest) {
        self.each(key, row, u16::wrapping_add);
    }

    /// Takes a row out of the set; it must be in it.
    pub fn remove(&mut self, key: &[u8], row: &Digest) {
        self.each(key, row, u16::wrapping_sub);
    }

    fn each(&mut self, key: &[u8], row: &Digest, operation: fn(u16, u16) -> u16) {
        let mut wide = [0; LENGTH];
        let mut hasher = blake3::Hasher::new_derive_key("mailtwin 2026 catalogue row in root digest");
        // The key's length is in front, so that no two rows give the same bytes.
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(&row.0);
        hasher.finalize_xof().fill(&mut wide);
        for (lane, bytes) in self.0.iter_mut().zip(wide.chunks_exact(2)) {
            *lane = operation(*lane, u16::from_le_bytes([bytes[0], bytes[1]]));
        }
    }

    /// The root digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// For keeping.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// From what was kept; `None` where the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LENGTH {
            return None;
        }
        let mut sum = Self::default();
        for (lane, bytes) in sum.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_matter_and_removing_undoes() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (mut one, mut two) = (Sum::default(), Sum::default());
        one.add(b"x", &a);
        one.add(b"y", &b);
        two.add(b"y", &b);
        two.add(b"z", &b);
        two.add(b"x", &a);
        assert_ne!(one.digest(), two.digest());
        two.remove(b"z", &b);
        assert_eq!(one.digest(), two.digest());
        assert_eq!(Sum::from_bytes(&one.to_bytes()).expect("fits").digest(), one.digest());
        assert!(Sum::from_bytes(b"short").is_none());
    }
}
