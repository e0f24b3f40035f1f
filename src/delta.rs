//! What changed in a file, as an rdiff delta against a version that the other side has.
//!
//! ```text
//! old version --SignatureBuilder--> signature --Signature::index--> Indexed
//!                                                                      |
//! new version, in windows ----------------------------> Differ --> delta --apply--> new version
//!                                                                            ^
//! old version, random access ------------------------------------------------+
//! ```
//!
//! fast_rsync does the matching. This module adds what it leaves open: signatures and deltas of
//! files that never are in memory as a whole, an applier that streams, and the checks without which
//! bytes from a peer could make it panic.
//!
//! **A result is believed only after its BLAKE3 matches, and that is the caller's act.** Blocks are
//! matched by eight bytes of MD4, which anyone can make collide; a damaged delta usually applies
//! without an error; and the old version may have changed since it was signed. So `Ok` from
//! [`apply`] says that the delta was well formed, never that the bytes are the right ones. Where
//! the digest differs, the file is sent whole.
//!
//! # Formats
//!
//! Both are librsync's, all numbers big-endian.
//!
//! ```text
//! signature   u32 0x72730136, u32 block size, u32 hash length,
//!             then for each block, of which the last may be short: u32 rolling sum, cut MD4
//! delta       u32 0x72730236, then commands:
//!   0x00         END, and nothing follows
//!   0x01..=0x40  LITERAL of that many bytes, which follow
//!   0x41..=0x44  LITERAL; its length is a number of 1, 2, 4 or 8 bytes
//!   0x45..=0x54  COPY; offset and length, each a number of 1, 2, 4 or 8 bytes:
//!                0x45 + 4 * class of the offset + class of the length
//! ```
//!
//! An empty LITERAL or COPY is refused, as librsync refuses it: each command then adds to the
//! result, so the limit on the result ends every delta, an endless one too.
//!
//! Layer L1: imports nothing of the crate, and opens no file.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::mem;
use std::os::unix::fs::FileExt;

/// Files shorter than this many bytes are sent whole (8 KiB): signature, index and delta of so
/// little cost more than they save.
pub const WHOLE_BELOW: u64 = 8 << 10;

/// How many bytes of a large file to read at a time (4 MiB), for [`SignatureBuilder::update`] and
/// [`Differ::window`]. Every size that [`block_size_for`] returns divides it.
pub const WINDOW: usize = 4 << 20;

const SMALLEST_BLOCK: u32 = 512;
const LARGEST_BLOCK: u32 = 32 << 10;

/// The largest block that a signature may state. Nobody gains from larger ones, and a differ keeps
/// up to one block of bytes from one window to the next.
const BLOCK_LIMIT: u32 = 1 << 20;

/// Bytes of MD4 for each block in the signatures that we make. Beside the rolling sum they make a
/// chance match in 100 MB against 100 MB less likely than one in a billion, and BLAKE3 would tell.
/// All 16 bytes would not stop a forger either, and make each signature two thirds longer.
const HASH_LENGTH: u32 = 8;

/// The whole of an MD4 hash; a signature that claims more is not one.
const HASH_LIMIT: u32 = 16;

const SIGNATURE_MAGIC: u32 = 0x7273_0136;
const SIGNATURE_HEADER: usize = 12;
const ROLLING_SUM: usize = 4;

const DELTA_MAGIC: [u8; 4] = 0x7273_0236_u32.to_be_bytes();

const END: u8 = 0x00;
const LITERAL_1: u8 = 0x01;
const LITERAL_64: u8 = 0x40;
const LITERAL_N1: u8 = 0x41;
const LITERAL_N8: u8 = 0x44;
const COPY_N1_N1: u8 = 0x45;
const COPY_N8_N8: u8 = 0x54;

/// What the applier holds at once, of the delta and of the result: its memory does not depend on
/// what the delta claims.
const PIECE: usize = 64 << 10;

/// Why a signature or a delta could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The signature is not a header and whole entries.
    #[error("a signature of {0} bytes is cut off")]
    SignatureLength(usize),
    /// The signature is of another kind than MD4, or none at all.
    #[error("not an MD4 signature: it begins with {0:#010x}")]
    SignatureMagic(u32),
    /// fast_rsync would panic on 0; see `BLOCK_LIMIT` for the upper end.
    #[error("a signature with blocks of {0} bytes (1 to {BLOCK_LIMIT} can be used)")]
    BlockSize(u32),
    /// Without a hash every rolling sum would match; more than MD4 has cannot be.
    #[error("a signature with hashes of {0} bytes (1 to {HASH_LIMIT} can be used)")]
    HashLength(u32),
    /// The comparison itself failed. A parsed signature gives no known cause for it.
    #[error("the new version could not be compared with the signature")]
    Compare(#[source] fast_rsync::DiffError),
    /// The delta does not begin as one.
    #[error("not a delta: it begins with {:#010x}", u32::from_be_bytes(*.0))]
    DeltaMagic([u8; 4]),
    /// A command that rdiff does not have.
    #[error("the delta has an unknown command {0:#04x}")]
    UnknownCommand(u8),
    /// A command that adds nothing to the result.
    #[error("the delta has an empty command")]
    EmptyCommand,
    /// The delta ends before its END, or within a command.
    #[error("the delta is cut off")]
    Truncated,
    /// Bytes follow the delta's END.
    #[error("the delta goes on after its end")]
    Trailing,
    /// A COPY of bytes that the old version does not have.
    #[error("the delta copies {length} bytes at {offset}, beyond the end of the old version")]
    BeyondBase {
        /// Where the COPY begins, in bytes.
        offset: u64,
        /// How many bytes it wants.
        length: u64,
    },
    /// The result would be longer than the caller allows.
    #[error("the delta makes more than {limit} bytes")]
    TooLong {
        /// What the caller allowed, in bytes.
        limit: u64,
    },
    /// The old version could not be read.
    #[error("reading the old version failed")]
    ReadBase(#[source] io::Error),
    /// The delta could not be read.
    #[error("reading the delta failed")]
    ReadDelta(#[source] io::Error),
    /// The result could not be written.
    #[error("writing the new version failed")]
    Write(#[source] io::Error),
}

/// The block size, in bytes, for the signature of a file of `length` bytes: 512 below 1 MiB, then
/// the square root of the length rounded down to a power of two, at most 32 KiB (from 1 GiB on).
///
/// The square root is rsync's own balance between the size of a signature and what one changed byte
/// costs. Rounded down, because a file is signed once and may change often; a power of two, so that
/// it divides [`WINDOW`].
pub fn block_size_for(length: u64) -> u32 {
    let root = length
        .isqrt()
        .clamp(u64::from(SMALLEST_BLOCK), u64::from(LARGEST_BLOCK));
    1 << root.ilog2()
}

/// Makes the signature of a file from consecutive pieces of any size.
///
/// The result is, byte for byte, what fast_rsync makes of the whole file at once. Memory: one
/// block, and the signature (12 bytes for each block). It is fastest with pieces of many whole
/// blocks.
#[derive(Debug)]
pub struct SignatureBuilder {
    options: fast_rsync::SignatureOptions,
    /// The beginning of a block that is not whole yet.
    partial: Vec<u8>,
    signature: Vec<u8>,
}

impl SignatureBuilder {
    /// Begins a signature with blocks of `block_size` bytes. A size outside of 1 byte to 1 MiB
    /// becomes the nearest within; the signature states the size that was used.
    pub fn new(block_size: u32) -> Self {
        let options = fast_rsync::SignatureOptions {
            block_size: block_size.clamp(1, BLOCK_LIMIT),
            crypto_hash_size: HASH_LENGTH,
        };
        let header_only = fast_rsync::Signature::calculate(&[], options);
        Self {
            options,
            partial: Vec::new(),
            signature: header_only.into_serialized(),
        }
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        let rest = self.complete_partial(bytes);
        let block_size = self.options.block_size as usize;
        let (blocks, begun) = rest.split_at(rest.len() - rest.len() % block_size);
        self.sign(blocks);
        self.partial.extend_from_slice(begun);
    }

    /// The signature of all bytes that were added.
    pub fn finish(mut self) -> Vec<u8> {
        let last = mem::take(&mut self.partial);
        self.sign(&last);
        self.signature
    }

    /// Fills up a block that was begun, and returns the bytes that were not needed for it: none as
    /// long as that block is not whole.
    fn complete_partial<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.partial.is_empty() {
            return bytes;
        }
        let block_size = self.options.block_size as usize;
        let (needed, rest) = bytes.split_at(bytes.len().min(block_size - self.partial.len()));
        self.partial.extend_from_slice(needed);
        if self.partial.len() == block_size {
            let block = mem::take(&mut self.partial);
            self.sign(&block);
        }
        rest
    }

    fn sign(&mut self, blocks: &[u8]) {
        if !blocks.is_empty() {
            let signed = fast_rsync::Signature::calculate(blocks, self.options);
            self.signature
                .extend_from_slice(&signed.serialized()[SIGNATURE_HEADER..]);
        }
    }
}

/// A signature that fast_rsync can be given without harm.
#[derive(Debug)]
pub struct Signature {
    inner: fast_rsync::Signature,
    block_size: usize,
}

impl Signature {
    /// Takes a signature from a peer or from storage, after checking all that its header states.
    ///
    /// How long it may be is for the caller to limit: the index takes about 70 bytes of memory for
    /// each block.
    ///
    /// # Errors
    /// [`DeltaError::SignatureLength`], [`SignatureMagic`](DeltaError::SignatureMagic),
    /// [`BlockSize`](DeltaError::BlockSize) or [`HashLength`](DeltaError::HashLength).
    pub fn parse(bytes: Vec<u8>) -> Result<Self, DeltaError> {
        let cut_off = DeltaError::SignatureLength(bytes.len());
        let (&[magic, block_size, hash_length, ..], _) = bytes.as_chunks::<4>() else {
            return Err(cut_off);
        };
        let [magic, block_size, hash_length] =
            [magic, block_size, hash_length].map(u32::from_be_bytes);
        if magic != SIGNATURE_MAGIC {
            return Err(DeltaError::SignatureMagic(magic));
        }
        if !(1..=BLOCK_LIMIT).contains(&block_size) {
            return Err(DeltaError::BlockSize(block_size));
        }
        if !(1..=HASH_LIMIT).contains(&hash_length) {
            return Err(DeltaError::HashLength(hash_length));
        }
        let entry = ROLLING_SUM + hash_length as usize;
        if !(bytes.len() - SIGNATURE_HEADER).is_multiple_of(entry) {
            return Err(cut_off);
        }
        let inner = fast_rsync::Signature::deserialize(bytes).map_err(|_| cut_off)?;
        Ok(Self {
            inner,
            block_size: block_size as usize,
        })
    }

    /// Makes the blocks findable. It costs time and memory in proportion to their number: once for
    /// a file.
    pub fn index(&self) -> Indexed<'_> {
        Indexed {
            inner: self.inner.index(),
            block_size: self.block_size,
        }
    }
}

/// A [`Signature`] with its blocks findable; what a [`Differ`] compares with.
#[derive(Debug)]
pub struct Indexed<'a> {
    inner: fast_rsync::IndexedSignature<'a>,
    block_size: usize,
}

/// Makes one delta of a new version that comes in consecutive windows.
///
/// The windows' bounds leave no trace but an additional LITERAL header here and there: what is
/// copied is what fast_rsync would copy had it seen the file at once. Memory: a window or
/// [`WINDOW`], whichever is less, and its delta.
///
/// A delta can be a little longer than the new version, where nothing matches. The caller compares
/// and sends the file whole then.
#[derive(Debug)]
pub struct Differ<'a> {
    index: &'a Indexed<'a>,
    begun: bool,
    /// Bytes that are not in the delta yet. Between calls less than a block: what a block that
    /// reaches into the next window could begin with.
    undecided: Vec<u8>,
    /// A COPY that the next one may extend.
    copy: Option<Span>,
    /// fast_rsync's delta of one window; here to keep its memory.
    scratch: Vec<u8>,
}

impl<'a> Differ<'a> {
    /// Begins a delta against the version that `index` was made of.
    pub fn new(index: &'a Indexed<'a>) -> Self {
        Self {
            index,
            begun: false,
            undecided: Vec::new(),
            copy: None,
            scratch: Vec::new(),
        }
    }

    /// Compares the next bytes of the new version and appends what is certain by now to `out`,
    /// which the caller may drain between calls. Any size will do; [`WINDOW`] is a good one, and
    /// less than a few blocks wastes time.
    ///
    /// # Errors
    /// None is known for a parsed signature. After one, this differ and what it wrote are to be
    /// thrown away.
    pub fn window(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DeltaError> {
        self.begin(out);
        for part in bytes.chunks(WINDOW) {
            // Exact, or the bytes that are carried over would double the buffer.
            self.undecided.reserve_exact(part.len());
            self.undecided.extend_from_slice(part);
            self.compare(out)?;
        }
        Ok(())
    }

    /// Appends the rest of the delta to `out`. The differ is then as new, ready for another file.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.end_copy(out);
        put_literal(&self.undecided, out);
        self.undecided.clear();
        out.push(END);
        self.begun = false;
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            out.extend_from_slice(&DELTA_MAGIC);
            self.begun = true;
        }
    }

    fn compare(&mut self, out: &mut Vec<u8>) -> Result<(), DeltaError> {
        let mut delta = mem::take(&mut self.scratch);
        delta.clear();
        fast_rsync::diff(&self.index.inner, &self.undecided, &mut delta)
            .map_err(DeltaError::Compare)?;
        let kept = self.translate(&delta, out)?;
        self.undecided.drain(..self.undecided.len() - kept);
        self.scratch = delta;
        Ok(())
    }

    /// Appends the commands of one window's `delta` to `out`, but for the bytes at the very end
    /// where no block was looked for, as none had room; returns how many these are.
    fn translate(&mut self, mut delta: &[u8], out: &mut Vec<u8>) -> Result<usize, DeltaError> {
        read_magic(&mut delta)?;
        loop {
            match read_command(&mut delta)? {
                Command::End => return Ok(0),
                Command::Copy(span) => self.copy(span, out),
                Command::Literal(length) => {
                    let length = usize::try_from(length).map_err(|_| DeltaError::Truncated)?;
                    let (literal, rest) = delta
                        .split_at_checked(length)
                        .ok_or(DeltaError::Truncated)?;
                    let kept = if rest == [END] {
                        length.min(self.index.block_size - 1)
                    } else {
                        0
                    };
                    self.literal(&literal[..length - kept], out);
                    if kept > 0 {
                        return Ok(kept);
                    }
                    delta = rest;
                }
            }
        }
    }

    fn literal(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if !bytes.is_empty() {
            self.end_copy(out);
            put_literal(bytes, out);
        }
    }

    fn copy(&mut self, span: Span, out: &mut Vec<u8>) {
        match &mut self.copy {
            Some(queued) if queued.offset + queued.length == span.offset => {
                queued.length += span.length
            }
            _ => {
                self.end_copy(out);
                self.copy = Some(span);
            }
        }
    }

    fn end_copy(&mut self, out: &mut Vec<u8>) {
        if let Some(span) = self.copy.take() {
            put_copy(span.offset, span.length, out);
        }
    }
}

/// The delta for a file that only grew: COPY all `old_length` bytes, then `tail`.
///
/// It is the cheapest there is, and needs no signature: of use where the old version is known to be
/// a prefix of the new one, as with a `dovecot-uidlist` that was appended to. Either part may be
/// empty.
pub fn append(old_length: u64, tail: &[u8]) -> Vec<u8> {
    let mut delta = DELTA_MAGIC.to_vec();
    if old_length > 0 {
        put_copy(0, old_length, &mut delta);
    }
    put_literal(tail, &mut delta);
    delta.push(END);
    delta
}

/// An old version, readable at any place.
pub trait ReadAt {
    /// Reads at `offset` (in bytes from the beginning) into `buffer` and returns how many bytes, at
    /// most `buffer.len()`: fewer are allowed, 0 means that the file ends at or before `offset`.
    ///
    /// # Errors
    /// Those of the medium. `Interrupted` is tried again.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len()));
        (&self[from..]).read(buffer)
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

/// Makes the new version from the old one (`base`) and a delta, and returns its length in bytes.
///
/// `delta` is read to its end: END must be the last byte that it gives. `out` gets at most `limit`
/// bytes, in pieces of at most 64 KiB, and is not flushed; after an error it holds a beginning of
/// no worth. Memory does not depend on the input.
///
/// `Ok` does not mean that the bytes are right: compare their BLAKE3 before anything is done with
/// them.
///
/// # Errors
/// Each malformed command has its own, as has a COPY beyond the base and a result longer than
/// `limit`; a failure of one of the three streams says which.
pub fn apply(
    base: &dyn ReadAt,
    delta: &mut dyn Read,
    out: &mut dyn Write,
    limit: u64,
) -> Result<u64, DeltaError> {
    let mut delta = BufReader::with_capacity(PIECE, delta);
    let mut result = Output {
        out,
        written: 0,
        limit,
        piece: vec![0; PIECE],
    };
    read_magic(&mut delta)?;
    loop {
        match read_command(&mut delta)? {
            Command::End => break,
            Command::Literal(length) => result.literal(length, &mut delta)?,
            Command::Copy(span) => result.copy(span, base)?,
        }
    }
    match delta.bytes().next() {
        None => Ok(result.written),
        Some(Ok(_)) => Err(DeltaError::Trailing),
        Some(Err(error)) => Err(DeltaError::ReadDelta(error)),
    }
}

/// The result of a delta as it grows: nothing is written but through [`Output::write`].
struct Output<'a> {
    out: &'a mut dyn Write,
    written: u64,
    limit: u64,
    piece: Vec<u8>,
}

impl Output<'_> {
    fn literal(&mut self, length: u64, delta: &mut impl Read) -> Result<(), DeltaError> {
        self.write(length, |piece, _| fill(delta, piece))
    }

    fn copy(&mut self, span: Span, base: &dyn ReadAt) -> Result<(), DeltaError> {
        let beyond = || DeltaError::BeyondBase {
            offset: span.offset,
            length: span.length,
        };
        // No file is longer, and pread would call such an offset an invalid argument.
        span.offset
            .checked_add(span.length)
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or_else(beyond)?;
        self.write(span.length, |piece, done| {
            if fill_at(base, piece, span.offset + done)? {
                Ok(())
            } else {
                Err(beyond())
            }
        })
    }

    /// Writes `length` bytes, which `source` gives in pieces, told how many it has given before.
    /// The limit is held against the whole length first: a command too long writes nothing.
    fn write(
        &mut self,
        length: u64,
        mut source: impl FnMut(&mut [u8], u64) -> Result<(), DeltaError>,
    ) -> Result<(), DeltaError> {
        if length > self.limit - self.written {
            return Err(DeltaError::TooLong { limit: self.limit });
        }
        let mut done = 0;
        while done < length {
            let size = (length - done).min(PIECE as u64) as usize;
            let piece = &mut self.piece[..size];
            source(piece, done)?;
            self.out.write_all(piece).map_err(DeltaError::Write)?;
            done += size as u64;
        }
        self.written += length;
        Ok(())
    }
}

/// Fills `piece` from `base` at `offset`; false if it ends before.
fn fill_at(base: &dyn ReadAt, piece: &mut [u8], offset: u64) -> Result<bool, DeltaError> {
    let mut filled = 0;
    while filled < piece.len() {
        match base.read_at(&mut piece[filled..], offset + filled as u64) {
            Ok(0) => return Ok(false),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DeltaError::ReadBase(error)),
        }
    }
    Ok(true)
}

/// A part of the old version, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    offset: u64,
    length: u64,
}

/// One command of a delta. The bytes of a LITERAL follow it and are still to be read.
enum Command {
    End,
    Literal(u64),
    Copy(Span),
}

fn read_magic(delta: &mut impl Read) -> Result<(), DeltaError> {
    let mut magic = [0; 4];
    fill(delta, &mut magic)?;
    if magic == DELTA_MAGIC {
        Ok(())
    } else {
        Err(DeltaError::DeltaMagic(magic))
    }
}

fn read_command(delta: &mut impl Read) -> Result<Command, DeltaError> {
    let mut code = [0];
    fill(delta, &mut code)?;
    let [code] = code;
    let command = match code {
        END => Command::End,
        LITERAL_1..=LITERAL_64 => Command::Literal(u64::from(code)),
        LITERAL_N1..=LITERAL_N8 => Command::Literal(read_number(delta, code - LITERAL_N1)?),
        COPY_N1_N1..=COPY_N8_N8 => {
            let classes = code - COPY_N1_N1;
            let offset = read_number(delta, classes / 4)?;
            let length = read_number(delta, classes % 4)?;
            Command::Copy(Span { offset, length })
        }
        _ => return Err(DeltaError::UnknownCommand(code)),
    };
    match command {
        Command::Literal(0) | Command::Copy(Span { length: 0, .. }) => {
            Err(DeltaError::EmptyCommand)
        }
        _ => Ok(command),
    }
}

/// Reads a number of 1, 2, 4 or 8 bytes: class 0, 1, 2 or 3.
fn read_number(delta: &mut impl Read, class: u8) -> Result<u64, DeltaError> {
    let mut number = [0; 8];
    fill(delta, &mut number[8 - (1 << class)..])?;
    Ok(u64::from_be_bytes(number))
}

fn fill(delta: &mut impl Read, buffer: &mut [u8]) -> Result<(), DeltaError> {
    delta
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DeltaError::Truncated,
            _ => DeltaError::ReadDelta(error),
        })
}

fn put_literal(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len() as u64 {
        0 => return,
        length @ 1..=64 => out.push(length as u8),
        length => {
            out.push(LITERAL_N1 + class_of(length));
            put_number(length, out);
        }
    }
    out.extend_from_slice(bytes);
}

fn put_copy(offset: u64, length: u64, out: &mut Vec<u8>) {
    out.push(COPY_N1_N1 + 4 * class_of(offset) + class_of(length));
    put_number(offset, out);
    put_number(length, out);
}

fn put_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes()[8 - (1 << class_of(number))..]);
}

/// The smallest class of number that holds `number`.
fn class_of(number: u64) -> u8 {
    match number {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::error::Error;
    use std::{iter, slice};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// Bytes without any pattern, the same in each run.
    fn noise(seed: &str, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new()
            .update(seed.as_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    /// `bytes` cut at the given sizes; what is left is the last piece.
    fn pieces<'b>(mut bytes: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
        let mut pieces = Vec::new();
        for &size in sizes {
            let (piece, rest) = bytes.split_at(size.min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces.push(bytes);
        pieces
    }

    fn signature_of(base: &[u8], block_size: u32) -> Signature {
        let mut builder = SignatureBuilder::new(block_size);
        builder.update(base);
        Signature::parse(builder.finish()).expect("our own signature")
    }

    fn delta_of(signature: &Signature, windows: &[&[u8]]) -> Vec<u8> {
        let index = signature.index();
        let mut differ = Differ::new(&index);
        let mut delta = Vec::new();
        for window in windows {
            differ
                .window(window, &mut delta)
                .expect("a parsed signature");
        }
        differ.finish(&mut delta);
        delta
    }

    fn delta_at_once(signature: &Signature, new: &[u8]) -> Vec<u8> {
        let mut delta = Vec::new();
        fast_rsync::diff(&signature.index().inner, new, &mut delta).expect("a parsed signature");
        delta
    }

    /// What `apply` says, and what it wrote.
    fn applied(base: &[u8], mut delta: &[u8], limit: u64) -> (Result<u64, DeltaError>, Vec<u8>) {
        let mut out = Vec::new();
        (apply(&base, &mut delta, &mut out, limit), out)
    }

    fn result_of(base: &[u8], delta: &[u8]) -> Vec<u8> {
        let (length, out) = applied(base, delta, u64::MAX);
        assert_eq!(length.expect("a valid delta"), out.len() as u64);
        out
    }

    fn refusal_of(delta: &[u8]) -> DeltaError {
        let with_magic = [&DELTA_MAGIC, delta].concat();
        applied(b"0123456789", &with_magic, 100)
            .0
            .expect_err("a malformed delta")
    }

    /// A command with its bytes; LITERALs in a row are one.
    #[derive(Debug, PartialEq)]
    enum Step {
        Literal(Vec<u8>),
        Copy(Span),
    }

    fn steps(mut delta: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        read_magic(&mut delta).expect("a delta");
        loop {
            match (
                read_command(&mut delta).expect("a valid command"),
                steps.last_mut(),
            ) {
                (Command::End, _) => return steps,
                (Command::Copy(span), _) => steps.push(Step::Copy(span)),
                (Command::Literal(length), last) => {
                    let (literal, rest) = delta.split_at(length as usize);
                    delta = rest;
                    match last {
                        Some(Step::Literal(bytes)) => bytes.extend_from_slice(literal),
                        _ => steps.push(Step::Literal(literal.to_vec())),
                    }
                }
            }
        }
    }

    /// A base that never ends and is made of zeros.
    struct Endless;

    impl ReadAt for Endless {
        fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<usize> {
            buffer.fill(0);
            Ok(buffer.len())
        }
    }

    /// A delta of one command, repeated without end.
    struct Over<I>(I);

    impl<'c> Over<iter::Chain<slice::Iter<'c, u8>, iter::Cycle<slice::Iter<'c, u8>>>> {
        fn and_over(command: &'c [u8]) -> Self {
            Self(DELTA_MAGIC.iter().chain(command.iter().cycle()))
        }
    }

    impl<'c, I: Iterator<Item = &'c u8>> Read for Over<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill_with(|| *self.0.next().expect("no end"));
            Ok(buffer.len())
        }
    }

    /// Gives one byte at a time and is interrupted before each.
    struct Trickle<'b> {
        bytes: &'b [u8],
        interrupted: Cell<bool>,
    }

    impl<'b> Trickle<'b> {
        fn new(bytes: &'b [u8]) -> Self {
            Self {
                bytes,
                interrupted: Cell::new(false),
            }
        }

        fn interrupt(&self) -> io::Result<()> {
            let interrupted = !self.interrupted.get();
            self.interrupted.set(interrupted);
            if interrupted {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                Ok(())
            }
        }
    }

    impl ReadAt for Trickle<'_> {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.interrupt()?;
            let size = buffer.len().min(1);
            self.bytes.read_at(&mut buffer[..size], offset)
        }
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupt()?;
            let size = buffer.len().min(1);
            self.bytes.read(&mut buffer[..size])
        }
    }

    /// Fails whatever is asked of it.
    struct Broken(io::ErrorKind);

    impl ReadAt for Broken {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Err(io::Error::new(self.0, "broken"))
        }
    }

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(self.0, "broken"))
        }
    }

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::new(self.0, "broken"))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Counts what is written and remembers the largest piece.
    #[derive(Default)]
    struct Measure {
        written: u64,
        largest: usize,
    }

    impl Write for Measure {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written += bytes.len() as u64;
            self.largest = self.largest.max(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn blocks_grow_as_the_square_root_and_divide_the_window() {
        let sizes = [
            (0, 512),
            (15 << 10, 512),
            (256 << 10, 512),
            ((1 << 20) - 1, 512),
            (1 << 20, 1 << 10),
            (100_000_000, 8 << 10),
            ((1 << 30) - 1, 16 << 10),
            (1 << 30, 32 << 10),
            (u64::MAX, 32 << 10),
        ];
        for (length, block_size) in sizes {
            assert_eq!(block_size_for(length), block_size, "{length}");
            assert!(WINDOW.is_multiple_of(block_size as usize), "{length}");
        }
    }

    #[test]
    fn a_builder_uses_and_states_the_nearest_possible_block_size() {
        for (asked, used) in [
            (0, 1),
            (1, 1),
            (BLOCK_LIMIT, BLOCK_LIMIT),
            (u32::MAX, BLOCK_LIMIT),
        ] {
            assert_eq!(signature_of(b"some bytes", asked).block_size, used as usize);
        }
    }

    #[test]
    fn a_signature_is_refused_for_what_its_header_states() {
        let signature = |magic: u32, block_size: u32, hash_length: u32, entries: usize| {
            let header = [magic, block_size, hash_length]
                .map(u32::to_be_bytes)
                .concat();
            Signature::parse([header, vec![0; entries]].concat())
        };
        for (block_size, hash_length) in [(1, 1), (BLOCK_LIMIT, 16)] {
            let entries = 3 * (4 + hash_length as usize);
            assert!(signature(SIGNATURE_MAGIC, block_size, hash_length, 0).is_ok());
            assert!(signature(SIGNATURE_MAGIC, block_size, hash_length, entries).is_ok());
        }
        let refused = [
            // BLAKE2, which fast_rsync parses but cannot diff against.
            (
                signature(0x7273_0137, 512, 8, 12),
                "not an MD4 signature: it begins with 0x72730137",
            ),
            (
                signature(SIGNATURE_MAGIC, 0, 8, 12),
                "a signature with blocks of 0 bytes (1 to 1048576 can be used)",
            ),
            (
                signature(SIGNATURE_MAGIC, BLOCK_LIMIT + 1, 8, 12),
                "a signature with blocks of 1048577 bytes (1 to 1048576 can be used)",
            ),
            (
                signature(SIGNATURE_MAGIC, 512, 0, 12),
                "a signature with hashes of 0 bytes (1 to 16 can be used)",
            ),
            (
                signature(SIGNATURE_MAGIC, 512, u32::MAX, 12),
                "a signature with hashes of 4294967295 bytes (1 to 16 can be used)",
            ),
            (
                signature(SIGNATURE_MAGIC, 512, 8, 13),
                "a signature of 25 bytes is cut off",
            ),
            (
                Signature::parse(vec![0x72, 0x73, 0x01]),
                "a signature of 3 bytes is cut off",
            ),
            (
                Signature::parse(Vec::new()),
                "a signature of 0 bytes is cut off",
            ),
        ];
        for (refused, wording) in refused {
            assert_eq!(refused.expect_err(wording).to_string(), wording);
        }
    }

    #[test]
    fn copies_that_join_across_windows_are_one_command() {
        let file = noise("unchanged", 3 * WINDOW);
        let signature = signature_of(&file, 4096);
        let delta = delta_of(&signature, &pieces(&file, &[WINDOW, 100_000, 1, 0, 4095]));
        assert_eq!(delta, append(file.len() as u64, b""));
    }

    #[test]
    fn a_window_larger_than_the_limit_is_taken_in_parts() {
        let base = noise("base", 2 * WINDOW);
        let new = [b"inserted", &base[..], &noise("tail", 10_000)].concat();
        let signature = signature_of(&base, 4096);
        let index = signature.index();
        let mut differ = Differ::new(&index);
        let mut delta = Vec::new();
        differ.window(&new, &mut delta).unwrap();
        assert_eq!(differ.undecided.len(), 4095);
        assert!(differ.undecided.capacity() < WINDOW + 4096);
        differ.finish(&mut delta);
        assert_eq!(steps(&delta), steps(&delta_at_once(&signature, &new)));
        assert_eq!(result_of(&base, &delta), new);
    }

    #[test]
    fn a_differ_is_as_new_after_finish() {
        let signature = signature_of(&noise("base", 5000), 512);
        let index = signature.index();
        let mut differ = Differ::new(&index);
        let mut deltas = [Vec::new(), Vec::new()];
        for delta in &mut deltas {
            differ.window(&noise("base", 4321), delta).unwrap();
            differ.finish(delta);
        }
        assert_eq!(deltas[0], deltas[1]);
    }

    #[test]
    fn an_empty_file_has_a_delta_of_five_bytes() {
        let signature = signature_of(b"old", 512);
        let empty = [&DELTA_MAGIC[..], &[END]].concat();
        assert_eq!(delta_of(&signature, &[]), empty);
        assert_eq!(append(0, b""), empty);
        assert_eq!(result_of(b"old", &empty), b"");
    }

    #[test]
    fn an_appended_line_costs_itself_and_ten_bytes() {
        let old = noise("dovecot-uidlist", 15_000);
        let line = b"4711 :1763800000.M1P2.mail,S=1234,W=1260\n";
        let delta = append(old.len() as u64, line);
        assert_eq!(delta.len(), line.len() + 10);
        assert_eq!(result_of(&old, &delta), [&old[..], line].concat());
    }

    #[test]
    fn lengths_at_the_edge_of_each_width_come_back() {
        for length in [1, 64, 65, 255, 256, 65_535, 65_536] {
            let (old, new) = (noise("old", length), noise("new", length));
            let delta = append(length as u64, &new);
            assert_eq!(
                result_of(&old, &delta),
                [&old[..], &new].concat(),
                "{length}"
            );
            let all_literal = delta_at_once(&signature_of(&old, 512), &new);
            assert_eq!(append(0, &new), all_literal, "{length}");
        }
        let mut delta = Vec::new();
        for offset in [
            0,
            0xff,
            0x100,
            0xffff,
            0x1_0000,
            0xffff_ffff,
            0x1_0000_0000,
            u64::MAX,
        ] {
            let span = Span {
                offset,
                length: offset.max(1),
            };
            delta.clear();
            put_copy(span.offset, span.length, &mut delta);
            let Ok(Command::Copy(read)) = read_command(&mut &delta[..]) else {
                panic!("{offset} did not come back as a COPY");
            };
            assert_eq!(read, span);
        }
    }

    #[test]
    fn every_form_of_every_command_is_understood() {
        let base = noise("base", 300);
        let number = |value: u64, class: u8| value.to_be_bytes()[8 - (1 << class)..].to_vec();
        let mut delta = DELTA_MAGIC.to_vec();
        for code in LITERAL_1..=LITERAL_64 {
            delta.push(code);
            delta.extend(noise("literal", code.into()));
        }
        for class in 0..4 {
            delta.push(LITERAL_N1 + class);
            delta.extend(number(200, class));
            delta.extend(noise("literal", 200));
        }
        for (offset_class, length_class) in (0..16).map(|form| (form / 4, form % 4)) {
            delta.push(COPY_N1_N1 + 4 * offset_class + length_class);
            delta.extend(number(77, offset_class));
            delta.extend(number(222, length_class));
        }
        delta.push(END);
        let mut expected = Vec::new();
        fast_rsync::apply_limited(&base, &delta, &mut expected, usize::MAX).unwrap();
        assert_eq!(expected.len(), (1..=64).sum::<usize>() + 4 * 200 + 16 * 222);
        assert_eq!(result_of(&base, &delta), expected);
    }

    #[test]
    fn a_malformed_delta_is_refused_for_what_is_wrong() {
        let refused: [(&[u8], &str); 17] = [
            (&[], "the delta is cut off"),
            (&[0x05, b'a'], "the delta is cut off"),
            (&[0x01, b'a'], "the delta is cut off"),
            (&[0x42, 0], "the delta is cut off"),
            (&[0x45, 0], "the delta is cut off"),
            (&[0x54, 0, 0, 0, 0], "the delta is cut off"),
            (&[0x55], "the delta has an unknown command 0x55"),
            (&[0xff, 0], "the delta has an unknown command 0xff"),
            (&[0x41, 0, 0], "the delta has an empty command"),
            (&[0x45, 0, 0, 0], "the delta has an empty command"),
            (&[0, 0], "the delta goes on after its end"),
            (&[0x41, 101], "the delta makes more than 100 bytes"),
            (
                &[0x44, 255, 255, 255, 255, 255, 255, 255, 255],
                "the delta makes more than 100 bytes",
            ),
            (
                &[0x45, 0, 11, 0],
                "the delta copies 11 bytes at 0, beyond the end of the old version",
            ),
            (
                &[0x45, 11, 1, 0],
                "the delta copies 1 bytes at 11, beyond the end of the old version",
            ),
            (
                &[0x51, 255, 255, 255, 255, 255, 255, 255, 255, 1],
                "the delta copies 1 bytes at 18446744073709551615, beyond the end of the old version",
            ),
            (
                &[0x51, 127, 255, 255, 255, 255, 255, 255, 255, 1],
                "the delta copies 1 bytes at 9223372036854775807, beyond the end of the old version",
            ),
        ];
        for (delta, wording) in refused {
            assert_eq!(refusal_of(delta).to_string(), wording, "{delta:?}");
        }
        for (delta, wording) in [
            (&b"rs\x026"[..3], "the delta is cut off"),
            (b"From", "not a delta: it begins with 0x46726f6d"),
        ] {
            assert_eq!(
                applied(b"", delta, 100).0.expect_err(wording).to_string(),
                wording
            );
        }
    }

    #[test]
    fn an_endless_delta_ends_at_the_limit_or_at_the_first_empty_command() {
        for (command, limit) in [(&[0x01, b'x'][..], 100_000), (&[0x45, 0, 200], 1_000_000)] {
            let mut out = Measure::default();
            let refused = apply(&Endless, &mut Over::and_over(command), &mut out, limit);
            assert!(
                matches!(refused, Err(DeltaError::TooLong { .. })),
                "{refused:?}"
            );
            assert_eq!(out.written, limit);
        }
        let refused = apply(
            &Endless,
            &mut Over::and_over(&[0x41, 0]),
            &mut io::sink(),
            1,
        );
        assert!(
            matches!(refused, Err(DeltaError::EmptyCommand)),
            "{refused:?}"
        );
    }

    #[test]
    fn a_result_may_be_as_long_as_the_limit_and_a_command_too_long_writes_nothing() {
        let delta = append(10, b"abc");
        let (length, out) = applied(b"0123456789", &delta, 13);
        assert_eq!((length.unwrap(), &out[..]), (13, &b"0123456789abc"[..]));
        for (limit, written) in [(12, "0123456789"), (10, "0123456789"), (9, ""), (0, "")] {
            let (refused, out) = applied(b"0123456789", &delta, limit);
            assert_eq!(
                refused.unwrap_err().to_string(),
                format!("the delta makes more than {limit} bytes")
            );
            assert_eq!(out, written.as_bytes());
        }
    }

    #[test]
    fn a_short_delta_for_a_huge_result_is_refused_before_a_byte_of_it() {
        let mut out = Measure::default();
        let refused = apply(
            &Endless,
            &mut &append(1 << 40, b"")[..],
            &mut out,
            (1 << 40) - 1,
        );
        assert!(
            matches!(refused, Err(DeltaError::TooLong { .. })),
            "{refused:?}"
        );
        assert_eq!(out.written, 0);
    }

    #[test]
    fn no_piece_is_larger_than_64_kib() {
        let mut out = Measure::default();
        let tail = noise("tail", 1_000_001);
        let length = apply(
            &Endless,
            &mut &append(10_000_001, &tail)[..],
            &mut out,
            u64::MAX,
        );
        assert_eq!(length.unwrap(), 11_000_002);
        assert_eq!((out.written, out.largest), (11_000_002, 64 << 10));
    }

    #[test]
    fn short_and_interrupted_reads_are_no_errors() {
        let (old, tail) = (noise("old", 3000), noise("tail", 500));
        let delta = append(3000, &tail);
        let mut out = Vec::new();
        apply(
            &Trickle::new(&old),
            &mut Trickle::new(&delta),
            &mut out,
            3500,
        )
        .unwrap();
        assert_eq!(out, [old, tail].concat());
    }

    #[test]
    fn a_file_can_be_the_old_version_and_may_have_shrunk() {
        let old = noise("old", 200_000);
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&old).unwrap();
        let delta = append(200_000, b"tail");
        let mut out = Vec::new();
        apply(&file, &mut &delta[..], &mut out, u64::MAX).unwrap();
        assert_eq!(out, [&old, &b"tail"[..]].concat());

        file.set_len(199_999).unwrap();
        // The second offset is more than the system call takes.
        let far_away = [&DELTA_MAGIC[..], &[0x51], &[0xff; 7], &[0, 1, END]].concat();
        for delta in [delta, far_away] {
            let refused = apply(&file, &mut &delta[..], &mut io::sink(), u64::MAX);
            assert!(
                matches!(refused, Err(DeltaError::BeyondBase { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_failing_stream_is_named_and_its_error_kept() {
        let delta = append(1, b"tail");
        let broken = || Broken(io::ErrorKind::Other);
        // As a decompressor says it whose own input is cut off after our END.
        let mut broken_behind = delta.chain(Broken(io::ErrorKind::UnexpectedEof));
        let nowhere = &mut io::sink();
        let old_version = apply(&broken(), &mut &delta[..], nowhere, 9);
        let the_delta = apply(&Endless, &mut broken(), nowhere, 9);
        let behind_its_end = apply(&Endless, &mut broken_behind, nowhere, 9);
        let new_version = apply(&Endless, &mut &delta[..], &mut broken(), 9);
        for (failed, wording) in [
            (old_version, "reading the old version failed"),
            (the_delta, "reading the delta failed"),
            (behind_its_end, "reading the delta failed"),
            (new_version, "writing the new version failed"),
        ] {
            let failed = failed.expect_err(wording);
            assert_eq!(failed.to_string(), wording);
            let source = failed.source().expect("the stream's own error");
            assert_eq!(source.to_string(), "broken");
        }
    }

    #[test]
    fn a_damaged_delta_may_apply_and_only_its_digest_tells() {
        let old = noise("old", 1000);
        let mut delta = append(1000, b"tail");
        let promised = blake3::hash(&result_of(&old, &delta));
        let last = delta.len() - 2;
        delta[last] ^= 1;
        assert_ne!(blake3::hash(&result_of(&old, &delta)), promised);
    }

    prop_compose! {
        /// Bytes with repetitions, so that blocks match in more than one place.
        fn file()(
            words in vec(vec(0_u8..4, 1..40), 1..8),
            order in vec(any::<Index>(), 0..120),
        ) -> Vec<u8> {
            order.iter().flat_map(|index| index.get(&words).iter().copied()).collect()
        }
    }

    prop_compose! {
        /// An old version, and a new one made of parts of it, some of its own, and some of both.
        fn versions()(
            old in file(),
            other in file(),
            cuts in vec(any::<(Index, u8, bool)>(), 0..12),
        ) -> (Vec<u8>, Vec<u8>) {
            let mut new = Vec::new();
            for (from, length, ours) in cuts {
                let source = if ours { &other } else { &old };
                let from = from.index(source.len() + 1);
                new.extend(source[from..].iter().take(4 * usize::from(length)));
            }
            (old, new)
        }
    }

    prop_compose! {
        fn cuts()(sizes in vec(prop_oneof![0_usize..5, 0_usize..400], 0..12)) -> Vec<usize> {
            sizes
        }
    }

    /// A delta with bytes changed, inserted and removed; the first four are the magic and mostly
    /// stay.
    fn mutated(mut delta: Vec<u8>, changes: &[(Index, u8, u8)]) -> Vec<u8> {
        for (place, kind, value) in changes {
            let place = place.index(delta.len().max(1)).max(4).min(delta.len());
            match kind % 5 {
                0 | 1 if place < delta.len() => delta[place] = *value,
                2 => delta.insert(place, *value),
                3 if place < delta.len() => drop(delta.remove(place)),
                4 if value % 8 == 0 => delta.truncate(place),
                _ => {}
            }
        }
        delta
    }

    proptest! {
        #[test]
        fn a_signature_is_that_of_the_whole_file_however_it_is_cut(
            file in file(), block_size in 1_u32..600, cuts in cuts(),
        ) {
            let mut builder = SignatureBuilder::new(block_size);
            for piece in pieces(&file, &cuts) {
                builder.update(piece);
            }
            let whole = fast_rsync::Signature::calculate(&file, fast_rsync::SignatureOptions {
                block_size,
                crypto_hash_size: HASH_LENGTH,
            });
            prop_assert_eq!(builder.finish(), whole.into_serialized());
        }

        #[test]
        fn a_delta_is_that_of_the_whole_file_however_it_is_cut(
            (old, new) in versions(), block_size in 1_u32..100, cuts in cuts(),
        ) {
            let signature = signature_of(&old, block_size);
            let delta = delta_of(&signature, &pieces(&new, &cuts));
            prop_assert_eq!(steps(&delta), steps(&delta_at_once(&signature, &new)));
        }

        #[test]
        fn a_valid_delta_makes_the_new_version_here_and_in_fast_rsync(
            (old, new) in versions(), block_size in 1_u32..100, cuts in cuts(),
        ) {
            let signature = signature_of(&old, block_size);
            let limit = new.len();
            let in_windows = delta_of(&signature, &pieces(&new, &cuts));
            for delta in [in_windows, delta_at_once(&signature, &new)] {
                let (length, ours) = applied(&old, &delta, limit as u64);
                prop_assert_eq!(length.unwrap(), limit as u64);
                prop_assert_eq!(&ours, &new);
                let mut theirs = Vec::new();
                fast_rsync::apply_limited(&old, &delta, &mut theirs, limit).unwrap();
                prop_assert_eq!(&theirs, &new);
            }
        }

        #[test]
        fn any_signature_is_refused_or_can_be_compared_with(
            magic in prop_oneof![9 => Just(SIGNATURE_MAGIC), 1 => any::<u32>()],
            block_size in prop_oneof![0_u32..20, any::<u32>()],
            hash_length in 0_u32..20,
            entries in vec(any::<u8>(), 0..200),
            new in file(),
        ) {
            let header = [magic, block_size, hash_length].map(u32::to_be_bytes).concat();
            if let Ok(signature) = Signature::parse([header, entries].concat()) {
                let delta = delta_of(&signature, &[&new]);
                let _ = applied(b"", &delta, 10_000);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_mutated_delta_is_judged_as_fast_rsync_judges_it_and_keeps_the_limit(
            (old, new) in versions(),
            block_size in 1_u32..100,
            changes in vec(any::<(Index, u8, u8)>(), 1..6),
            spare in 0_usize..100,
        ) {
            let delta = delta_of(&signature_of(&old, block_size), &[&new]);
            let delta = mutated(delta, &changes);
            let limit = new.len() + spare;
            let (ours, our_bytes) = applied(&old, &delta, limit as u64);
            let mut their_bytes = Vec::new();
            let theirs = fast_rsync::apply_limited(&old, &delta, &mut their_bytes, limit);
            prop_assert!(our_bytes.len() <= limit);
            match (ours, theirs) {
                (Ok(length), Ok(())) => {
                    prop_assert_eq!(length, our_bytes.len() as u64);
                    prop_assert_eq!(our_bytes, their_bytes);
                }
                // fast_rsync lets an empty LITERAL pass.
                (Err(DeltaError::EmptyCommand), _) | (Err(_), Err(_)) => {}
                (ours, theirs) => prop_assert!(false, "we say {ours:?}, fast_rsync {theirs:?}"),
            }
        }

        #[test]
        fn any_bytes_after_the_magic_are_applied_or_refused_within_the_limit(
            old in file(),
            commands in vec(prop_oneof![0_u8..0x60, any::<u8>()], 0..60),
            limit in 0_u64..1000,
        ) {
            let (_, out) = applied(&old, &[&DELTA_MAGIC, &commands[..]].concat(), limit);
            prop_assert!(out.len() as u64 <= limit);
        }
    }
}
