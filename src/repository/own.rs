//! A segment of a point's own: blocks alone, of contents that no segment of the log has whole.
//!
//! What an attachment has in common with those of earlier blocks is a reference to these. So a segment can be read by
//! itself, and no other one is needed, whatever is expired.

use super::layout::{Making, RepositoryError};
use super::manifest::SegmentRef;
use super::press::{KnownParts, Press};
use crate::disk::{Root, Writer};
use crate::id::{Digest, RandomId};
use crate::log::history::History;
use crate::path::TreePath;
use crate::wire::block::{self, Block, Piece};
use crate::wire::frame::Frame;
use crate::wire::message::BLOCK;
use std::collections::VecDeque;

type Result<T> = std::result::Result<T, RepositoryError>;

/// Raw bytes of one piece of a large content.
const PIECE: usize = 1 << 20;

/// Blocks that are being compressed, or wait for those before them.
const PRESSED: usize = 3;

/// Numbers of segments that are a point's own have this bit; those of the log count from 1.
const OWN: u64 = 1 << 63;

/// Stands for a place until its block is written: the number of the content.
pub type Ticket = usize;

/// A segment that is being written.
pub struct OwnSegment {
    writer: Writer,
    number: u64,
    length: u64,
    chain: blake3::Hasher,
    press: Press,
    known: KnownParts,
    /// The blocks that those refer to which are being compressed.
    sources: VecDeque<Vec<u32>>,
    /// Where each block begins.
    offsets: Vec<u64>,
    block: Block,
    /// Where each content begins: in which block, and with which piece.
    places: Vec<(u32, u32)>,
    /// Bytes of the content that is being put, and how many of it stand in blocks.
    pending: Vec<u8>,
    packed: u64,
}

impl OwnSegment {
    /// Begins one, under a number that no other has.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn create(making: &Making<'_>) -> Result<Self> {
        Self::create_with(|number| making.segment(number))
    }

    /// As [`OwnSegment::create`], in the directory of a point that is there.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn create_in(root: &Root, directory: &TreePath) -> Result<Self> {
        Self::create_with(|number| Ok(root.create(&directory.child(&History::name(number)), 0o600)?))
    }

    fn create_with(create: impl FnOnce(u64) -> Result<Writer>) -> Result<Self> {
        let id = RandomId::fresh().map_err(|error| RepositoryError::Failed(format!("no random number: {error}")))?;
        let mut first = [0; 8];
        first.copy_from_slice(&id.0[..8]);
        let number = u64::from_le_bytes(first) | OWN;
        Ok(Self {
            writer: create(number)?,
            number,
            length: 0,
            chain: blake3::Hasher::new(),
            press: Press::new(),
            known: KnownParts::default(),
            sources: VecDeque::new(),
            offsets: Vec::new(),
            block: Block { pieces: Vec::new(), data: Vec::new() },
            places: Vec::new(),
            pending: Vec::new(),
            packed: 0,
        })
    }

    /// Whether a number is that of a segment of a point's own.
    pub fn is_own(number: u64) -> bool {
        number & OWN != 0
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes written.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Packs a block; gives its number in the segment, for [`OwnSegment::offset`].
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn take(&mut self, block: &Block) -> Result<u32> {
        let (number, mut sources) = (self.blocks(), Vec::new());
        let known = &mut self.known;
        self.press.put(block.prepare(&mut |bytes, here| known.find(number, &mut sources, bytes, here)));
        self.sources.push_back(sources);
        while self.press.len() > PRESSED {
            self.append()?;
        }
        Ok(number)
    }

    /// Where a block begins; `None` as long as it is not written.
    pub fn offset(&self, block: u32) -> Option<u64> {
        self.offsets.get(block as usize).copied()
    }

    /// Writes all blocks that were taken.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn flush(&mut self) -> Result<()> {
        while self.press.len() > 0 {
            self.append()?;
        }
        Ok(())
    }

    /// Blocks that were taken.
    fn blocks(&self) -> u32 {
        (self.offsets.len() + self.press.len()) as u32
    }

    /// Writes the oldest block that is not written.
    fn append(&mut self) -> Result<()> {
        let failed = |error: std::io::Error| RepositoryError::Failed(format!("a block cannot be packed: {error}"));
        let (Some(packed), Some(sources)) = (self.press.take(), self.sources.pop_front()) else { return Ok(()) };
        let back = sources.iter().filter_map(|block| Some(self.length - self.offset(*block)?));
        let payload = packed.and_then(|packed| packed.payload(&back.collect::<Vec<_>>())).map_err(failed)?;
        let frame = Frame::plain(BLOCK, payload);
        let (header, payload) = frame.parts();
        self.writer.write(&header)?;
        self.writer.write(payload)?;
        self.chain.update(&header);
        self.offsets.push(self.length);
        self.length += frame.length();
        Ok(())
    }

    /// Packs a content. Its ticket is exchanged by [`OwnSegment::finish`].
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn put(&mut self, bytes: &[u8], digest: Digest) -> Result<Ticket> {
        let ticket = self.begin();
        self.feed(ticket, bytes)?;
        self.end(ticket, digest)?;
        Ok(ticket)
    }

    /// Begins a content that comes in parts. One that is not ended, because another was begun, is none.
    pub fn begin(&mut self) -> Ticket {
        self.pending.clear();
        self.packed = 0;
        self.places.push((0, 0));
        self.places.len() - 1
    }

    /// Takes the next bytes of the content that was begun last.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn feed(&mut self, ticket: Ticket, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(PIECE) {
            self.pending.extend_from_slice(part);
            if self.pending.len() > PIECE {
                let rest = self.pending.split_off(PIECE);
                self.pack(ticket, None)?;
                self.pending = rest;
            }
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn end(&mut self, ticket: Ticket, digest: Digest) -> Result<()> {
        self.pack(ticket, Some(digest))
    }

    /// What is pending becomes a piece.
    fn pack(&mut self, ticket: Ticket, last: Option<Digest>) -> Result<()> {
        let bytes = std::mem::take(&mut self.pending);
        if self.packed == 0 {
            let here = (self.blocks(), self.block.pieces.len() as u32);
            self.places.get_mut(ticket).into_iter().for_each(|place| *place = here);
        }
        let (number, offset, length) = (ticket as u64, self.packed, bytes.len() as u32);
        self.block.pieces.push(Piece { number, offset, length, last, sparse: false });
        self.block.data.extend_from_slice(&bytes);
        self.packed += u64::from(length);
        match self.block.data.len() >= block::TARGET || self.block.pieces.len() >= 4096 {
            true => self.close_block(),
            false => Ok(()),
        }
    }

    fn close_block(&mut self) -> Result<()> {
        if self.block.pieces.is_empty() {
            return Ok(());
        }
        let empty = Block { pieces: Vec::new(), data: Vec::new() };
        let block = std::mem::replace(&mut self.block, empty);
        self.take(&block).map(drop)
    }

    /// Makes it durable. Gives what a manifest says of it, and the place of each content by its ticket.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn finish(mut self) -> Result<(SegmentRef, Vec<(u64, u32)>)> {
        self.close_block()?;
        self.flush()?;
        self.writer.sync()?;
        let chain = self.chain.finalize().into();
        // One that was begun and not ended is nobody's.
        let place = |(block, piece): &(u32, u32)| (self.offset(*block).unwrap_or_default(), *piece);
        let places = self.places.iter().map(place).collect();
        Ok((SegmentRef { number: self.number, length: self.length, chain }, places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::entry::Time;
    use crate::repository::contents::{ContentError, Contents};
    use crate::repository::label::PointLabel;
    use crate::repository::layout::Repository;
    use crate::repository::record::Place;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    /// Bytes that do not compress, so that many blocks are needed.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; length];
        reader.fill(&mut bytes);
        bytes
    }

    #[test]
    fn contents_of_every_length_come_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let repository = Repository::open(directory.path(), Some(directory.path())).expect("opens");
        let label = PointLabel::full(Time::default()).expect("a label");
        let making = repository.begin(&label).expect("begins");
        let mut own = OwnSegment::create(&making).expect("creates");
        let lengths = [0, 1, 4096, PIECE - 1, PIECE, PIECE + 1, 3, PIECE * 3 / 2, 5 * PIECE + 7, 0, 12];
        let contents: Vec<Vec<u8>> = lengths.iter().zip(0..).map(|(length, seed)| noise(seed, *length)).collect();
        let put = |content: &Vec<u8>| own.put(content, Digest::of(content)).expect("is put");
        let tickets: Vec<Ticket> = contents.iter().map(put).collect();
        let (segment, places) = own.finish().expect("finishes");
        let mut read = Contents::default();
        let (root, path) = making.place(segment.number);
        read.add(root, &path);
        for (content, ticket) in contents.iter().zip(tickets) {
            let (offset, piece) = places[ticket];
            let (bytes, digest) = read.bytes(Place { segment: 0, offset, piece }).expect("reads");
            assert!(bytes == *content, "{} bytes", content.len());
            assert_eq!(digest, Digest::of(content));
        }
        let beyond = read.bytes(Place { segment: 0, offset: segment.length, piece: 0 });
        assert!(matches!(beyond, Err(ContentError::Damaged { .. })));
    }

    /// A mail with parts of attachments that others have, too: which, where it begins, how long, in lines of which length.
    fn mail(attached: &[(u64, usize, usize, usize)], text: usize) -> Vec<u8> {
        let mut mail = vec![b'x'; text];
        mail.push(b'\n');
        for (seed, from, length, line) in attached {
            let encoded = STANDARD.encode(&noise(*seed, 160_000)[*from..from + length]);
            encoded.as_bytes().chunks(*line).for_each(|line| mail.extend_from_slice(&[line, b"\n"].concat()));
            mail.extend_from_slice(b"--boundary\n");
        }
        mail
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn mails_that_share_attachments_or_parts_of_them_come_back(
            mails in prop::collection::vec(
                (prop::collection::vec((0_u64..3, 0_usize..80_000, 0_usize..80_000, prop::sample::select(vec![60, 64, 76])), 0..4),
                 prop::sample::select(vec![0, 5_000, 900_000, 2_500_000])), 1..8),
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let root = Root::open(directory.path()).expect("opens");
            let mut own = OwnSegment::create_in(&root, &TreePath::root()).expect("creates");
            let mails: Vec<Vec<u8>> = mails.iter().map(|(attached, text)| mail(attached, *text)).collect();
            let put = |mail: &Vec<u8>| own.put(mail, Digest::of(mail)).expect("is put");
            let tickets: Vec<Ticket> = mails.iter().map(put).collect();
            let (segment, places) = own.finish().expect("finishes");
            let mut read = Contents::default();
            read.add(&root, &TreePath::root().child(&History::name(segment.number)));
            for (mail, ticket) in mails.iter().zip(tickets) {
                let (offset, piece) = places[ticket];
                let (bytes, digest) = read.bytes(Place { segment: 0, offset, piece }).expect("reads");
                prop_assert!(bytes == *mail);
                prop_assert_eq!(digest, Digest::of(mail));
            }
        }
    }
}
