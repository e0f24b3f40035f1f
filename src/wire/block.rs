//! A block: pieces of contents, packed solid and compressed once by the sender.
//!
//! The block travels as it is and is stored as it is. Small contents stand in it whole, one after the
//! other, so that similar mail compresses together; a large content is cut into pieces over many blocks.

use super::attachment;
use crate::id::Digest;
use serde::{Deserialize, Serialize};

/// How many raw bytes a block gathers before it is closed: enough for 1 MiB of text beside its attachments. On
/// list mail 1 MiB gives 3.8:1, 256 KiB 3.3:1 and messages alone 2.3:1.
pub const TARGET: usize = 2 << 20;

/// Most raw bytes in a block: one that is almost full, and a piece of a large content.
pub const MAX_RAW: usize = 3 << 20;

/// Most pieces in a block: empty messages are legal, a table of millions is not.
const MAX_PIECES: usize = 65_536;

/// The number of a piece that stands in a block and is not wanted: the block travels as it was stored.
pub const UNWANTED: u64 = 0;

/// A part of a content, or all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The content's number within the session; [`UNWANTED`] where nothing asks for it.
    pub number: u64,
    /// Where the piece begins in the content.
    pub offset: u64,
    /// Bytes in this piece.
    pub length: u32,
    /// BLAKE3 of the whole content, on its last piece.
    pub last: Option<Digest>,
    /// Runs of zeros may become holes.
    pub sparse: bool,
}

/// What a block holds, before its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// 0: raw, 1: one zstd frame, 2: one zstd frame of what [`attachment::fold`] makes.
    codec: u8,
    raw: u32,
    pieces: Vec<Piece>,
}

/// Why a payload is not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The table of pieces does not decode, or its sums are wrong.
    #[error("a block's table of contents is malformed")]
    Table,
    /// An encoding that this version does not know.
    #[error("a block uses the unknown encoding {0}")]
    Codec(u8),
    /// The data does not decompress to the announced length.
    #[error("a block's data does not decompress")]
    Data,
}

/// A decoded block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What is in it, in the order of the data.
    pub pieces: Vec<Piece>,
    /// The raw bytes, piece after piece.
    pub data: Vec<u8>,
}

impl Block {
    /// Encodes the block's payload at a zstd level; 0 stores it raw, and so does what would not shrink.
    ///
    /// # Errors
    /// When zstd fails, which means no memory.
    pub fn encode(&self, level: i32) -> std::io::Result<Vec<u8>> {
        let folded = if level == 0 { None } else { attachment::fold(&self.data) };
        let shorter = match level {
            0 => None,
            level => Some(zstd::bulk::compress(folded.as_ref().unwrap_or(&self.data), level)?),
        };
        let packed = shorter.as_ref().filter(|bytes| bytes.len() < self.data.len());
        let codec = match (packed, &folded) {
            (None, _) => 0,
            (Some(_), None) => 1,
            (Some(_), Some(_)) => 2,
        };
        let header = Header { codec, raw: self.data.len() as u32, pieces: self.pieces.clone() };
        joined(&header, packed.unwrap_or(&self.data)).map_err(std::io::Error::other)
    }

    /// Decodes and validates a payload. Digests are not checked here: pieces may lie in several blocks.
    ///
    /// # Errors
    /// [`BlockError`] names what is wrong.
    pub fn decode(payload: &[u8]) -> Result<Self, BlockError> {
        let (header, packed) = table(payload)?;
        let raw = header.raw as usize;
        let data = match header.codec {
            0 => packed.to_vec(),
            1 => zstd::bulk::decompress(packed, raw).map_err(|_| BlockError::Data)?,
            2 => {
                let folded = zstd::bulk::decompress(packed, raw).map_err(|_| BlockError::Data)?;
                attachment::unfold(&folded, raw).ok_or(BlockError::Data)?
            }
            codec => return Err(BlockError::Codec(codec)),
        };
        match data.len() == raw {
            true => Ok(Self { pieces: header.pieces, data }),
            false => Err(BlockError::Data),
        }
    }

    /// The table of a payload alone: what is in it, without the bytes.
    ///
    /// # Errors
    /// [`BlockError`] names what is wrong.
    pub fn pieces(payload: &[u8]) -> Result<Vec<Piece>, BlockError> {
        table(payload).map(|(header, _)| header.pieces)
    }

    /// A payload with other content numbers, one for each piece in order; what is compressed stays as it is.
    ///
    /// # Errors
    /// [`BlockError`] where the payload is no block, or has another number of pieces.
    pub fn renumbered(payload: &[u8], numbers: &[u64]) -> Result<Vec<u8>, BlockError> {
        let (mut header, packed) = table(payload)?;
        if header.pieces.len() != numbers.len() {
            return Err(BlockError::Table);
        }
        for (piece, number) in header.pieces.iter_mut().zip(numbers) {
            piece.number = *number;
        }
        joined(&header, packed).map_err(|_| BlockError::Table)
    }

    /// Whether a payload is stored raw.
    pub fn is_raw(payload: &[u8]) -> bool {
        table(payload).is_ok_and(|(header, _)| header.codec == 0)
    }

    /// Each piece with its bytes.
    pub fn contents(&self) -> impl Iterator<Item = (&Piece, &[u8])> {
        let mut at = 0;
        self.pieces.iter().map(move |piece| {
            let begin = at;
            at += piece.length as usize;
            (piece, &self.data[begin..at])
        })
    }
}

/// A table, and the data behind it, as a payload.
fn joined(header: &Header, packed: &[u8]) -> Result<Vec<u8>, postcard::Error> {
    let table = postcard::to_stdvec(header)?;
    let mut payload = Vec::with_capacity(4 + table.len() + packed.len());
    payload.extend_from_slice(&(table.len() as u32).to_le_bytes());
    payload.extend_from_slice(&table);
    payload.extend_from_slice(packed);
    Ok(payload)
}

/// The table of a payload, and the data behind it.
fn table(payload: &[u8]) -> Result<(Header, &[u8]), BlockError> {
    let (length, rest) = payload.split_first_chunk::<4>().ok_or(BlockError::Table)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (table, packed) = rest.split_at_checked(length).ok_or(BlockError::Table)?;
    let header: Header = postcard::from_bytes(table).map_err(|_| BlockError::Table)?;
    let sum: u64 = header.pieces.iter().map(|piece| u64::from(piece.length)).sum();
    let is_sound = header.raw as usize <= MAX_RAW && sum == u64::from(header.raw) && header.pieces.len() <= MAX_PIECES;
    if is_sound { Ok((header, packed)) } else { Err(BlockError::Table) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let contents: [&[u8]; 3] = [b"Subject: one\n\nhello hello hello hello", b"", b"three"];
        let pieces = contents.iter().zip(1..).map(|(bytes, number)| Piece {
            number,
            offset: 0,
            length: bytes.len() as u32,
            last: Some(Digest::of(bytes)),
            sparse: false,
        });
        Block { pieces: pieces.collect(), data: contents.concat() }
    }

    #[test]
    fn a_block_comes_back_at_every_level() {
        for level in [0, 1, 3, 19] {
            let payload = block().encode(level).expect("encodes");
            let back = Block::decode(&payload).expect("decodes");
            assert_eq!(back, block());
            for (piece, bytes) in back.contents() {
                assert_eq!(piece.last, Some(Digest::of(bytes)));
            }
        }
    }

    #[test]
    fn a_block_with_other_numbers_has_the_same_bytes() {
        let payload = block().encode(4).expect("encodes");
        let other = Block::renumbered(&payload, &[7, UNWANTED, 1 << 60]).expect("renumbers");
        let back = Block::decode(&other).expect("decodes");
        assert_eq!(back.pieces.iter().map(|piece| piece.number).collect::<Vec<_>>(), [7, UNWANTED, 1 << 60]);
        assert_eq!(back.data, block().data);
        let (_, packed) = table(&payload).expect("a table");
        assert!(other.ends_with(packed), "what is compressed was touched");
        assert_eq!(Block::renumbered(&payload, &[1]), Err(BlockError::Table));
    }

    #[test]
    fn sums_that_do_not_match_are_refused() {
        let mut wrong = block();
        wrong.pieces[0].length += 1;
        let payload = wrong.encode(0).expect("encodes");
        assert_eq!(Block::decode(&payload), Err(BlockError::Table));
        assert_eq!(Block::decode(&[1, 2, 3]), Err(BlockError::Table));
    }
}
