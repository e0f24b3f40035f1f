//! A block: pieces of contents, packed solid and compressed once by the sender.
//!
//! The block travels as it is and is stored as it is. Small contents stand in it whole, one after the
//! other, so that similar mail compresses together; a large content is cut into pieces over many blocks.

use super::attachment;
use super::share::{self, Areas, Known, Laid, Source};
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
    /// 0: raw, 1: one zstd frame, 2: one zstd frame of what [`attachment::fold`] makes, 3: what [`share::lay`] makes of
    /// that: the length of a zstd frame of its text, the frame, and what is dense. Behind this table stands then how far
    /// before the block's own frame those of its sources begin, in bytes of the segment.
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
    /// Bytes of it stand in other blocks, and these were not given.
    #[error("a block refers to others, which are not there")]
    Sources,
}

/// A decoded block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What is in it, in the order of the data.
    pub pieces: Vec<Piece>,
    /// The raw bytes, piece after piece.
    pub data: Vec<u8>,
}

/// A block that is ready to be compressed, its attachments laid out.
pub struct Prepared {
    header: Header,
    laid: Laid,
}

/// A block that is compressed, and not told yet where its sources are.
pub struct Packed {
    header: Header,
    data: Vec<u8>,
}

impl Block {
    /// Lays out the block's attachments, for a segment that may share them between blocks: `known` says what stands
    /// elsewhere. A block without long ones is as [`Block::encode`] has it.
    pub fn prepare(&self, known: &mut Known<'_>) -> Prepared {
        let header = |codec| Header { codec, raw: self.data.len() as u32, pieces: self.pieces.clone() };
        let plain = |text| Laid { text, dense: Vec::new() };
        match attachment::parts(&self.data) {
            None => Prepared { header: header(1), laid: plain(self.data.clone()) },
            Some(folded) if !share::is_worth(&folded) => {
                Prepared { header: header(2), laid: plain([folded.text, folded.decoded].concat()) }
            }
            Some(folded) => Prepared { header: header(3), laid: share::lay(folded, known) },
        }
    }

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
    /// [`BlockError`] names what is wrong; [`BlockError::Sources`] where bytes of it stand in other blocks.
    pub fn decode(payload: &[u8]) -> Result<Self, BlockError> {
        Self::decode_with(payload, &[])
    }

    /// As [`Block::decode`], with what stands in its [`Block::sources`], in their order. Where one cannot be had, contents
    /// that have something from there come out with a wrong digest.
    ///
    /// # Errors
    /// As [`Block::decode`].
    pub fn decode_with(payload: &[u8], sources: &[Source]) -> Result<Self, BlockError> {
        let (header, packed) = table(payload)?;
        if header.codec == SHARED && Self::sources(payload)?.len() != sources.len() {
            return Err(BlockError::Sources);
        }
        let raw = header.raw as usize;
        let data = match header.codec {
            0 => packed.to_vec(),
            1 => zstd::bulk::decompress(packed, raw).map_err(|_| BlockError::Data)?,
            2 => {
                let folded = zstd::bulk::decompress(packed, raw).map_err(|_| BlockError::Data)?;
                attachment::unfold(&folded, raw).ok_or(BlockError::Data)?
            }
            SHARED => {
                let (text, dense) = shared(packed)?;
                let folded = share::gather(text, dense, sources, raw).ok_or(BlockError::Data)?;
                attachment::unfold(&folded, raw).ok_or(BlockError::Data)?
            }
            codec => return Err(BlockError::Codec(codec)),
        };
        match data.len() == raw {
            true => Ok(Self { pieces: header.pieces, data }),
            false => Err(BlockError::Data),
        }
    }

    /// How far before the frame of this block those begin that it refers to, in bytes of its segment.
    ///
    /// # Errors
    /// [`BlockError`] names what is wrong.
    pub fn sources(payload: &[u8]) -> Result<Vec<u64>, BlockError> {
        let (header, rest) = header(payload)?.0;
        if header.codec != SHARED {
            return Ok(Vec::new());
        }
        let sources: Vec<u64> = postcard::from_bytes(rest).map_err(|_| BlockError::Table)?;
        let is_sound = sources.len() <= share::SOURCES && !sources.contains(&0);
        if is_sound { Ok(sources) } else { Err(BlockError::Table) }
    }

    /// What stands in a block itself, for others that refer to it.
    ///
    /// # Errors
    /// [`BlockError`] names what is wrong; only a block that was made by [`Block::prepare`] can be referred to.
    pub fn areas(payload: &[u8]) -> Result<Areas, BlockError> {
        let (header, packed) = table(payload)?;
        if header.codec != SHARED {
            return Err(BlockError::Sources);
        }
        let (text, dense) = shared(packed)?;
        share::areas(text, dense).ok_or(BlockError::Data)
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
    /// [`BlockError`] where the payload is no block, or has another number of pieces; and where attachments are laid out
    /// in it, which is only known within segments.
    pub fn renumbered(payload: &[u8], numbers: &[u64]) -> Result<Vec<u8>, BlockError> {
        let (mut header, packed) = table(payload)?;
        if header.codec == SHARED {
            return Err(BlockError::Sources);
        }
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

/// The codec of a block whose attachments are laid out.
const SHARED: u8 = 3;

impl Prepared {
    /// Compresses it at a zstd level.
    ///
    /// # Errors
    /// When zstd fails, which means no memory.
    pub fn compress(self, level: i32) -> std::io::Result<Packed> {
        let Self { mut header, laid: Laid { text, dense } } = self;
        let mut frame = zstd::bulk::compress(&text, level)?;
        match header.codec {
            SHARED => {
                let mut data = Vec::with_capacity(4 + frame.len() + dense.len());
                data.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                data.append(&mut frame);
                data.extend_from_slice(&dense);
                Ok(Packed { header, data })
            }
            1 if frame.len() >= text.len() => {
                header.codec = 0;
                Ok(Packed { header, data: text })
            }
            _ => Ok(Packed { header, data: frame }),
        }
    }
}

impl Packed {
    /// The payload of a block whose sources begin so far before it.
    ///
    /// # Errors
    /// Where its table cannot be written, which means no memory.
    pub fn payload(&self, sources: &[u64]) -> std::io::Result<Vec<u8>> {
        let mut table = postcard::to_stdvec(&self.header).map_err(std::io::Error::other)?;
        if self.header.codec == SHARED {
            table = postcard::to_extend(sources, table).map_err(std::io::Error::other)?;
        }
        Ok(behind(&table, &self.data))
    }
}

/// The text and what is dense of a block whose attachments are laid out.
fn shared(packed: &[u8]) -> Result<(Vec<u8>, &[u8]), BlockError> {
    let (length, rest) = packed.split_first_chunk::<4>().ok_or(BlockError::Data)?;
    let (frame, dense) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(BlockError::Data)?;
    let text = zstd::bulk::decompress(frame, MAX_RAW).map_err(|_| BlockError::Data)?;
    Ok((text, dense))
}

/// A table, and the data behind it, as a payload.
fn joined(header: &Header, packed: &[u8]) -> Result<Vec<u8>, postcard::Error> {
    Ok(behind(&postcard::to_stdvec(header)?, packed))
}

fn behind(table: &[u8], packed: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(4 + table.len() + packed.len());
    payload.extend_from_slice(&(table.len() as u32).to_le_bytes());
    payload.extend_from_slice(table);
    payload.extend_from_slice(packed);
    payload
}

/// The table of a payload, and the data behind it.
fn table(payload: &[u8]) -> Result<(Header, &[u8]), BlockError> {
    let ((header, _), packed) = header(payload)?;
    Ok((header, packed))
}

/// The table of a payload with what stands behind it in its room, and the data.
#[expect(clippy::type_complexity, reason = "two callers, each of which takes it apart")]
fn header(payload: &[u8]) -> Result<((Header, &[u8]), &[u8]), BlockError> {
    let (length, rest) = payload.split_first_chunk::<4>().ok_or(BlockError::Table)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (table, packed) = rest.split_at_checked(length).ok_or(BlockError::Table)?;
    let (header, behind): (Header, &[u8]) = postcard::take_from_bytes(table).map_err(|_| BlockError::Table)?;
    let sum: u64 = header.pieces.iter().map(|piece| u64::from(piece.length)).sum();
    let is_sound = header.raw as usize <= MAX_RAW && sum == u64::from(header.raw) && header.pieces.len() <= MAX_PIECES;
    if is_sound { Ok(((header, behind), packed)) } else { Err(BlockError::Table) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use std::collections::HashMap;
    use std::sync::Arc;

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

    fn prepared(block: &Block, sources: &[u64], known: &mut Known<'_>) -> Vec<u8> {
        let packed = block.prepare(known).compress(3).expect("compresses");
        packed.payload(sources).expect("a payload")
    }

    /// A message with an attachment in lines of a length.
    fn mail(attachment: &[u8], line: usize) -> Block {
        let mut data = b"Subject: see attachment\n\n".to_vec();
        for line in STANDARD.encode(attachment).as_bytes().chunks(line) {
            data.extend_from_slice(line);
            data.push(b'\n');
        }
        let last = Some(Digest::of(&data));
        Block { pieces: vec![Piece { number: 1, offset: 0, length: data.len() as u32, last, sparse: false }], data }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn an_attachment_stands_in_the_first_block_alone_however_its_lines_are_cut() {
        let (attachment, mut parts) = (noise(300_000), HashMap::new());
        let one = mail(&attachment, 76);
        let first = prepared(&one, &[], &mut |bytes, here| {
            parts.insert(bytes.to_vec(), here);
            None
        });
        assert_eq!(Block::decode(&first).expect("needs no other"), one);
        let other = mail(&attachment, 64);
        let second = prepared(&other, &[7], &mut |bytes, _| parts.get(bytes).map(|spot| (1, *spot)));
        assert!(second.len() < 1000, "{} bytes", second.len());
        assert_eq!(Block::sources(&second), Ok(vec![7]));
        let areas = Some(Arc::new(Block::areas(&first).expect("was laid out")));
        assert_eq!(Block::decode_with(&second, std::slice::from_ref(&areas)).expect("decodes"), other);
        assert_eq!(Block::decode(&second), Err(BlockError::Sources));
        assert_eq!(Block::renumbered(&second, &[1]), Err(BlockError::Sources));
        let another = Some(Arc::new(Block::areas(&second).expect("was laid out")));
        assert_eq!(Block::decode_with(&second, &[another]), Err(BlockError::Data));
    }

    #[test]
    fn a_block_without_attachments_is_prepared_as_it_is_encoded() {
        let payload = prepared(&block(), &[], &mut |_, _| None);
        assert_eq!(Block::decode(&payload).expect("decodes"), block());
        assert_eq!(Block::areas(&payload), Err(BlockError::Sources));
        let dense = Block { data: noise(5000), pieces: vec![Piece { length: 5000, ..block().pieces[0].clone() }] };
        assert!(Block::is_raw(&prepared(&dense, &[], &mut |_, _| None)));
    }

    #[test]
    fn a_block_that_refers_to_itself_or_to_too_many_is_refused() {
        let mail = mail(&noise(9000), 76);
        for sources in [vec![0], vec![5; share::SOURCES + 1]] {
            let payload = prepared(&mail, &sources, &mut |_, _| None);
            assert_eq!(Block::sources(&payload), Err(BlockError::Table));
            assert_eq!(Block::decode_with(&payload, &[]), Err(BlockError::Table));
        }
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
