//! A frame: sixteen bytes of header, then a payload.
//!
//! ```text
//! 0   4  length of the payload, little endian
//! 4   1  kind
//! 5   1  flags: bit 0, the payload is one zstd frame; other bits must be 0
//! 6   2  zero
//! 8   8  the first eight bytes of BLAKE3 over bytes 0 to 7 and the payload
//! 16  n  payload
//! ```
//!
//! The check is there for disks and for ends that have lost their place; it proves nothing about who wrote it.

use std::io::{self, Read};

/// Bytes before the payload.
pub const HEADER: usize = 16;

/// Longest payload: the largest block, where it does not compress, with its table.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// Longest payload after decompression: a compressed list of changes; ten thousand long paths.
pub const MAX_RAW: usize = 16 << 20;

/// Payloads shorter than this are not worth compressing.
const COMPRESS_FROM: usize = 200;

const COMPRESSED: u8 = 1;

/// A kind byte and a payload, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which message the payload is.
    pub kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The input ended between frames.
    #[error("the other end closed the connection")]
    Closed,
    /// The input ended inside a frame, or could not be read.
    #[error("a frame could not be read: {0}")]
    Io(#[from] io::Error),
    /// A length beyond the limit.
    #[error("a frame of {0} bytes is longer than allowed")]
    TooLong(usize),
    /// Flags or padding that this version does not know.
    #[error("a frame has an unknown form")]
    Form,
    /// The check does not match.
    #[error("a frame is damaged (its checksum does not match)")]
    Check,
    /// The payload does not decompress.
    #[error("a frame's payload does not decompress within its limit")]
    Compression,
}

impl Frame {
    /// Packs a payload as it is: for blocks, which are compressed already.
    pub fn plain(kind: u8, payload: Vec<u8>) -> Self {
        Self { kind, flags: 0, payload }
    }

    /// Packs a payload, compressed where that is shorter.
    pub fn compressed(kind: u8, payload: Vec<u8>) -> Self {
        if payload.len() >= COMPRESS_FROM
            && let Ok(shorter) = zstd::bulk::compress(&payload, 3)
            && shorter.len() < payload.len()
        {
            return Self { kind, flags: COMPRESSED, payload: shorter };
        }
        Self::plain(kind, payload)
    }

    /// The payload, decompressed.
    ///
    /// # Errors
    /// [`FrameError::Compression`] where it does not decompress to at most [`MAX_RAW`] bytes.
    pub fn payload(&self) -> Result<std::borrow::Cow<'_, [u8]>, FrameError> {
        if self.flags & COMPRESSED == 0 {
            return Ok(self.payload.as_slice().into());
        }
        // The declared size is the sender's word: it may only lower the limit.
        let declared = zstd::zstd_safe::get_frame_content_size(&self.payload).ok().flatten();
        let limit = declared.unwrap_or(MAX_RAW as u64).min(MAX_RAW as u64) as usize;
        zstd::bulk::decompress(&self.payload, limit).map(Into::into).map_err(|_| FrameError::Compression)
    }

    /// Bytes that the frame takes on the wire or on disk.
    pub fn length(&self) -> u64 {
        (HEADER + self.payload.len()) as u64
    }

    /// The frame's bytes: header and payload.
    pub fn parts(&self) -> ([u8; HEADER], &[u8]) {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&(self.payload.len() as u32).to_le_bytes());
        header[4] = self.kind;
        header[5] = self.flags;
        let check = check(&header, &self.payload);
        header[8..].copy_from_slice(&check);
        (header, &self.payload)
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// [`FrameError`]; [`FrameError::Closed`] only where the input ends before the first byte.
    pub fn read(input: &mut impl Read) -> Result<Self, FrameError> {
        let mut header = [0; HEADER];
        let first = input.read(&mut header)?;
        if first == 0 {
            return Err(FrameError::Closed);
        }
        input.read_exact(&mut header[first..])?;
        let mut payload = vec![0; payload_length(&header)?];
        input.read_exact(&mut payload)?;
        Self::checked(header, payload)
    }

    /// Makes a frame of a header and the payload that it announced.
    ///
    /// # Errors
    /// [`FrameError`] where form or check are wrong.
    pub fn checked(header: [u8; HEADER], payload: Vec<u8>) -> Result<Self, FrameError> {
        if header[5] & !COMPRESSED != 0 || header[6..8] != [0, 0] {
            return Err(FrameError::Form);
        }
        if payload.len() != payload_length(&header)? || check(&header, &payload) != header[8..] {
            return Err(FrameError::Check);
        }
        Ok(Self { kind: header[4], flags: header[5], payload })
    }
}

/// The payload length that a header announces.
///
/// # Errors
/// [`FrameError::TooLong`] beyond [`MAX_PAYLOAD`].
pub fn payload_length(header: &[u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    match length <= MAX_PAYLOAD {
        true => Ok(length),
        false => Err(FrameError::TooLong(length)),
    }
}

fn check(header: &[u8; HEADER], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[..8]).update(payload);
    let mut check = [0; 8];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(frame: &Frame) -> Vec<u8> {
        let (header, payload) = frame.parts();
        [&header[..], payload].concat()
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        for payload in [vec![], vec![7; 10], vec![7; 100_000]] {
            let frame = Frame::compressed(3, payload.clone());
            let back = Frame::read(&mut &bytes(&frame)[..]).expect("reads");
            assert_eq!(back.payload().expect("decompresses"), payload);
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let good = bytes(&Frame::plain(1, b"some payload".to_vec()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&mut &bad[..]).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_RAW + 1], 3).expect("compresses");
        let frame = Frame { kind: 1, flags: COMPRESSED, payload: bomb };
        assert!(matches!(frame.payload(), Err(FrameError::Compression)));
    }

    #[test]
    fn an_end_between_frames_is_told_from_one_inside() {
        assert!(matches!(Frame::read(&mut &[][..]), Err(FrameError::Closed)));
        assert!(matches!(Frame::read(&mut &[1][..]), Err(FrameError::Io(_))));
    }
}
