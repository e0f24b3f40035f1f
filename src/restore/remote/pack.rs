//! Contents on their way: in blocks as they are stored where most of a block is wanted, packed anew otherwise.
//!
//! A block that goes as it is has another table, with the numbers of this session, and the same compressed bytes. The
//! blocks of a window are visited in the order in which they are stored, each once, for all that is wanted of it. Each
//! content is held against its digest before its last piece goes: what is damaged is told here, and of a content over
//! many blocks the far end has a beginning then, which it discards.

use crate::id::Digest;
use crate::repository::contents::{ANOTHER, ContentError, FEWER, MISMATCH};
use crate::repository::record::Place;
use crate::repository::view::View;
use crate::restore::walk::Wish;
use crate::sync::SyncError;
use crate::sync::cycle::Sink;
use crate::wire::block::{self, Block, Piece, UNWANTED};
use std::collections::BTreeMap;

/// Raw bytes of one piece of a content that was put together in memory.
const PIECE: usize = 1 << 20;

/// Pieces of a block that is packed here.
const MOST_PIECES: usize = 4096;

type Result<T> = std::result::Result<T, SyncError>;

/// The number under which a content went and its digest, or why it did not.
pub(super) type Answer = std::result::Result<(u64, Digest), String>;

/// What packs contents, and counts.
pub(super) struct Packer<'a> {
    view: &'a View,
    level: i32,
    next_number: u64,
    /// What is packed anew.
    block: Block,
    /// Blocks that went as they are stored.
    pub as_stored: u64,
    /// Blocks that were packed anew.
    pub repacked: u64,
}

/// What is wanted of a block.
#[derive(Default)]
struct Visit {
    begin: Vec<Content>,
    go_on: Vec<Content>,
}

/// A content that is being read.
struct Content {
    /// Which answer is its.
    index: usize,
    place: Place,
    check: [u8; 8],
    /// Its number in this session.
    number: u64,
    /// Its number where it is stored.
    stored: u64,
    hasher: blake3::Hasher,
    length: u64,
}

/// How far a content has come with a block.
enum Read {
    /// To its end.
    Whole(Digest),
    /// More of it stands in another block.
    Begun,
}

impl Content {
    /// Reads the pieces from this one on; gives how many they are.
    fn read(&mut self, pieces: &[(&Piece, &[u8])]) -> std::result::Result<(usize, Read), &'static str> {
        for (count, (piece, bytes)) in (1..).zip(pieces) {
            if piece.number != self.stored {
                return Ok((count - 1, Read::Begun));
            }
            if piece.offset != self.length {
                return Err(ANOTHER);
            }
            self.hasher.update(bytes);
            self.length += bytes.len() as u64;
            if let Some(digest) = piece.last {
                let is_whole = Digest::from(self.hasher.finalize()) == digest;
                return if is_whole { Ok((count, Read::Whole(digest))) } else { Err(MISMATCH) };
            }
        }
        Ok((pieces.len(), Read::Begun))
    }
}

/// The numbers under which the pieces of a block go.
struct Numbers {
    numbers: Vec<u64>,
    /// Pieces that go under another number, too: of two files of one content that are no links of each other.
    again: Vec<(u64, usize)>,
}

impl Numbers {
    fn give(&mut self, number: u64, pieces: std::ops::Range<usize>) {
        for at in pieces {
            match self.numbers[at] {
                UNWANTED => self.numbers[at] = number,
                _ => self.again.push((number, at)),
            }
        }
    }
}

impl<'a> Packer<'a> {
    pub fn new(view: &'a View, level: i32) -> Self {
        let block = Block { pieces: Vec::new(), data: Vec::new() };
        Self { view, level, next_number: 0, block, as_stored: 0, repacked: 0 }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Sends contents; answers in their order.
    pub fn send(&mut self, wishes: &[&Wish], sink: &mut dyn Sink) -> Result<Vec<Answer>> {
        let nowhere = || Err(ContentError::Nowhere.to_string());
        let mut answers: Vec<Answer> = wishes.iter().map(|_| nowhere()).collect();
        let mut visits: BTreeMap<(u32, u64), Visit> = BTreeMap::new();
        for (index, wish) in wishes.iter().enumerate() {
            if self.view.is_patched(&wish.record.path) {
                answers[index] = self.patched(wish, sink)?;
            } else if let Some(place) = wish.place {
                let (number, hasher) = (self.number(), blake3::Hasher::new());
                let content = Content { index, place, check: wish.check, number, stored: 0, hasher, length: 0 };
                visits.entry((place.segment, place.offset)).or_default().begin.push(content);
            }
        }
        while let Some((at, visit)) = visits.pop_first() {
            self.visit(at, visit, &mut visits, &mut answers, sink)?;
        }
        self.close(sink)?;
        Ok(answers)
    }

    /// A content that is put together out of differences.
    fn patched(&mut self, wish: &Wish, sink: &mut dyn Sink) -> Result<Answer> {
        let (bytes, digest) = match self.view.patch(&wish.record) {
            Ok(patched) => patched,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if digest.0[..8] != wish.check {
            return Ok(Err(crate::restore::ANOTHER.to_owned()));
        }
        let number = self.number();
        let mut offset = 0;
        loop {
            let end = (offset + PIECE).min(bytes.len());
            let last = (end == bytes.len()).then_some(digest);
            let length = (end - offset) as u32;
            let piece = Piece { number, offset: offset as u64, length, last, sparse: false };
            self.put(piece, &bytes[offset..end], sink)?;
            offset = end;
            if last.is_some() {
                return Ok(Ok((number, digest)));
            }
        }
    }

    /// Reads a block, and sends what is wanted of it. What stands in others, too, goes on there.
    fn visit(
        &mut self,
        (segment, offset): (u32, u64),
        visit: Visit,
        visits: &mut BTreeMap<(u32, u64), Visit>,
        answers: &mut [Answer],
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let contents = &self.view.contents;
        let (block, next) = match contents.block(segment, offset) {
            Ok(decoded) => decoded,
            Err(error) => {
                fail(visit.begin.iter().chain(&visit.go_on), &error, answers);
                return Ok(());
            }
        };
        let pieces: Vec<(&Piece, &[u8])> = block.contents().collect();
        let mut numbers = Numbers { numbers: vec![UNWANTED; pieces.len()], again: Vec::new() };
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for mut content in visit.begin {
            let at = content.place.piece as usize;
            match pieces.get(at) {
                Some((piece, _)) => content.stored = piece.number,
                None => {
                    fail([&content], &contents.damaged(segment, offset, FEWER), answers);
                    continue;
                }
            }
            here.push((content, at));
        }
        for content in visit.go_on {
            match pieces.iter().position(|(piece, _)| piece.number == content.stored) {
                Some(at) => here.push((content, at)),
                None => elsewhere.push(content),
            }
        }
        for (mut content, at) in here {
            match content.read(&pieces[at..]) {
                Err(what) => {
                    let damage = contents.damaged(content.place.segment, content.place.offset, what);
                    fail([&content], &damage, answers);
                }
                Ok((_, Read::Whole(digest))) if digest.0[..8] != content.check => {
                    answers[content.index] = Err(crate::restore::ANOTHER.to_owned());
                }
                Ok((count, Read::Whole(digest))) => {
                    answers[content.index] = Ok((content.number, digest));
                    numbers.give(content.number, at..at + count);
                }
                Ok((count, Read::Begun)) => {
                    numbers.give(content.number, at..at + count);
                    elsewhere.push(content);
                }
            }
        }
        self.send_block((segment, offset), &pieces, &numbers, sink)?;
        if !elsewhere.is_empty() {
            match contents.next_block(segment, next) {
                Ok(at) => visits.entry((segment, at)).or_default().go_on.append(&mut elsewhere),
                Err(error) => fail(&elsewhere, &error, answers),
            }
        }
        Ok(())
    }

    /// Sends what is wanted of a block: as it is stored, where that is more than half of it. So none goes twice, and what
    /// travels for nothing is less than what does not.
    fn send_block(
        &mut self,
        (segment, offset): (u32, u64),
        pieces: &[(&Piece, &[u8])],
        Numbers { numbers, again }: &Numbers,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let wanted = || numbers.iter().copied().zip(0..).filter(|(number, _)| *number != UNWANTED);
        let length = |at: usize| pieces[at].1.len();
        let bytes: usize = wanted().map(|(_, at)| length(at)).sum();
        let all: usize = (0..pieces.len()).map(length).sum();
        let mut is_sent = false;
        if bytes * 2 > all {
            // The pieces of a content go in their order.
            if self.block.pieces.iter().any(|piece| numbers.contains(&piece.number)) {
                self.close(sink)?;
            }
            let stored = self.view.contents.stored(segment, offset).ok();
            if let Some(payload) = stored.and_then(|payload| Block::renumbered(&payload, numbers).ok()) {
                sink.block(payload)?;
                self.as_stored += 1;
                is_sent = true;
            }
        }
        for (number, at) in wanted().filter(|_| !is_sent).chain(again.iter().copied()) {
            let (piece, bytes) = pieces[at];
            self.put(Piece { number, ..piece.clone() }, bytes, sink)?;
        }
        Ok(())
    }

    /// Packs a piece anew.
    fn put(&mut self, piece: Piece, bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        if !self.block.pieces.is_empty() && self.block.data.len() + bytes.len() > block::MAX_RAW {
            self.close(sink)?;
        }
        self.block.pieces.push(piece);
        self.block.data.extend_from_slice(bytes);
        match self.block.data.len() >= block::TARGET || self.block.pieces.len() >= MOST_PIECES {
            true => self.close(sink),
            false => Ok(()),
        }
    }

    fn close(&mut self, sink: &mut dyn Sink) -> Result<()> {
        if self.block.pieces.is_empty() {
            return Ok(());
        }
        let failed = |error: std::io::Error| SyncError::Failed(format!("a block cannot be packed: {error}"));
        let payload = self.block.encode(self.level).map_err(failed)?;
        self.block.pieces.clear();
        self.block.data.clear();
        self.repacked += 1;
        sink.block(payload)
    }
}

/// None of these can be had.
fn fail<'c>(contents: impl IntoIterator<Item = &'c Content>, error: &ContentError, answers: &mut [Answer]) {
    for content in contents {
        answers[content.index] = Err(error.to_string());
    }
}
