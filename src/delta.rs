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
    let root = length.isqrt().clamp(u64::from(SMALLEST_BLOCK), u64::from(LARGEST_BLOCK));
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
        Self { options, partial: Vec::new(), signature: header_only.into_serialized() }
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
            self.signature.extend_from_slice(&signed.serialized()[SIGNATURE_HEADER..]);
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
        let [magic, block_size, hash_length] = [magic, block_size, hash_length].map(u32::from_be_bytes);
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
        Ok(Self { inner, block_size: block_size as usize })
    }

    /// Makes the blocks findable. It costs time and memory in proportion to their number: once for
    /// a file.
    pub fn index(&self) -> Indexed<'_> {
        Indexed { inner: self.inner.index(), block_size: self.block_size }
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
        Self { index, begun: false, undecided: Vec::new(), copy: None, scratch: Vec::new() }
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
        fast_rsync::diff(&self.index.inner, &self.undecided, &mut delta).map_err(DeltaError::Compare)?;
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
                    let (literal, rest) = delta.split_at_checked(length).ok_or(DeltaError::Truncated)?;
                    let kept = if rest == [END] { length.min(self.index.block_size - 1) } else { 0 };
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
            Some(queued) if queued.offset + queued.length == span.offset => queued.length += span.length,
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
pub fn apply(base: &dyn ReadAt, delta: &mut dyn Read, out: &mut dyn Write, limit: u64) -> Result<u64, DeltaError> {
    let mut delta = BufReader::with_capacity(PIECE, delta);
    let mut result = Output { out, written: 0, limit, piece: vec![0; PIECE] };
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
        let beyond = || DeltaError::BeyondBase { offset: span.offset, length: span.length };
        // No file is longer, and pread would call such an offset an invalid argument.
        span.offset.checked_add(span.length).filter(|&end| i64::try_from(end).is_ok()).ok_or_else(beyond)?;
        self.write(
            span.length,
            |piece, done| {
                if fill_at(base, piece, span.offset + done)? { Ok(()) } else { Err(beyond()) }
            },
        )
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
    if magic == DELTA_MAGIC { Ok(()) } else { Err(DeltaError::DeltaMagic(magic)) }
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
        Command::Literal(0) | Command::Copy(Span { length: 0, .. }) => Err(DeltaError::EmptyCommand),
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
    delta.read_exact(buffer).map_err(|error| match error.kind() {
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
mod tests;
