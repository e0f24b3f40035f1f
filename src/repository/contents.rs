//! Contents of a repository, by the places at which they begin.

use super::record::Place;
use crate::disk::{DiskError, Root};
use crate::id::Digest;
use crate::log::segment::read_block;
use crate::path::TreePath;
use crate::wire::block::{Block, BlockError, Piece};
use crate::wire::frame;
use crate::wire::share::{Areas, SOURCES};
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Blocks that stay decoded: neighbours in a folder are neighbours in a block, or in the one beside it.
const CACHED: usize = 8;

/// Why a content cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The point has no place for it.
    #[error("its content was not there when the point was made")]
    Nowhere,
    /// The segment is gone, or cannot be opened.
    #[error("{segment} is missing: {reason}")]
    Missing {
        /// The segment's file.
        segment: String,
        /// The system's words.
        reason: String,
    },
    /// What stands there is not what was written.
    #[error("{segment} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The segment's file.
        segment: String,
        /// Where the block begins.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// A place means a content that its block does not have.
pub const FEWER: &str = "the block has fewer contents";

/// A piece is not the one that comes next.
pub const ANOTHER: &str = "another content stands there";

/// All pieces are there, and are not what was written.
pub const MISMATCH: &str = "a content does not match its digest";

/// Segments that stay open: there are as many of them as runs since a full, and a process may open a thousand files.
const OPEN: usize = 40;

/// A segment that contents are read from.
#[derive(Clone)]
struct Source {
    root: Arc<Root>,
    path: TreePath,
    shown: String,
}

/// A decoded block, and where the frame behind it begins.
type Decoded = (Arc<Block>, u64);

/// Blocks by their segments and places in them, the oldest first.
type Cache = VecDeque<((u32, u64), Decoded)>;

/// What stands in blocks that others refer to, the oldest first.
type Referred = VecDeque<((u32, u64), Arc<Areas>)>;

/// A piece of a content, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceRef {
    /// Where it begins in the content.
    pub offset: u64,
    /// Bytes in it.
    pub length: u32,
    /// Where it stands.
    pub place: Place,
}

/// The segments of a view, numbered from 0. They are only read, and can be shared by threads.
#[derive(Default)]
pub struct Contents {
    sources: Vec<Source>,
    /// The last that was used is the last.
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
    /// Segments that somebody holds, see [`Contents::hold`].
    held: Mutex<Vec<(u32, Weak<File>)>>,
    cache: Mutex<Cache>,
    /// What other blocks refer to.
    referred: Mutex<Referred>,
    /// It is one of several, and reads what lies together.
    is_another: bool,
}

impl Contents {
    /// The same segments, for another thread.
    pub fn another(&self) -> Self {
        Self { sources: self.sources.clone(), is_another: true, ..Self::default() }
    }

    /// Adds a segment; gives its number. One that cannot be opened is named when something in it is asked for.
    pub fn add(&mut self, root: &Root, path: &TreePath) -> u32 {
        let is_it = |source: &&Source| source.root.path() == root.path();
        let known = self.sources.iter().rev().find(is_it).map(|source| source.root.clone());
        let shown = root.show(path);
        let root = known.unwrap_or_else(|| Arc::new(root.again()));
        self.sources.push(Source { root, path: path.clone(), shown });
        (self.sources.len() - 1) as u32
    }

    /// Hands over the pieces of a content, in order; gives its digest, which its bytes have.
    ///
    /// # Errors
    /// [`ContentError`] names the segment; pieces that were handed over are of no worth then. `each` may fail, too.
    pub fn read<E: From<ContentError>>(
        &self,
        place: Place,
        mut each: impl FnMut(&Piece, &[u8]) -> Result<(), E>,
    ) -> Result<Digest, E> {
        self.walk(place, |_, piece, bytes| each(piece, bytes))
    }

    /// Where the pieces of a content stand, in order, and its digest, which its bytes have: what is read by them
    /// afterwards can be believed.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn pieces(&self, place: Place) -> Result<(Vec<PieceRef>, Digest), ContentError> {
        let mut pieces = Vec::new();
        let digest = self.walk(place, |place, piece, _| {
            pieces.push(PieceRef { offset: piece.offset, length: piece.length, place });
            Ok::<_, ContentError>(())
        })?;
        Ok((pieces, digest))
    }

    /// The bytes of one piece of a content.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn piece<T>(&self, piece: &PieceRef, take: impl FnOnce(&[u8]) -> T) -> Result<T, ContentError> {
        let (block, _) = self.block(piece.place.segment, piece.place.offset)?;
        let found = block.contents().nth(piece.place.piece as usize);
        match found.filter(|(found, _)| (found.offset, found.length) == (piece.offset, piece.length)) {
            Some((_, bytes)) => Ok(take(bytes)),
            None => Err(self.damaged(piece.place.segment, piece.place.offset, ANOTHER)),
        }
    }

    /// As [`Contents::read`], with the place of each piece.
    fn walk<E: From<ContentError>>(
        &self,
        place: Place,
        mut each: impl FnMut(Place, &Piece, &[u8]) -> Result<(), E>,
    ) -> Result<Digest, E> {
        let damaged = |offset, what: &str| self.damaged(place.segment, offset, what);
        let mut at = place.offset;
        let (mut block, mut next) = self.block(place.segment, at)?;
        let mut index = place.piece as usize;
        let number = block.pieces.get(index).map(|piece| piece.number);
        let number = number.ok_or_else(|| damaged(place.offset, FEWER))?;
        let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
        loop {
            let (piece, bytes) = block.contents().nth(index).ok_or_else(|| damaged(next, "a piece is missing"))?;
            if piece.number != number || piece.offset != length {
                return Err(damaged(place.offset, ANOTHER).into());
            }
            hasher.update(bytes);
            length += bytes.len() as u64;
            // Before the last piece goes: who takes it need not find out.
            if piece.last.is_some_and(|digest| Digest::from(hasher.finalize()) != digest) {
                return Err(damaged(place.offset, MISMATCH).into());
            }
            each(Place { segment: place.segment, offset: at, piece: index as u32 }, piece, bytes)?;
            if let Some(digest) = piece.last {
                return Ok(digest);
            }
            index += 1;
            if block.pieces.get(index).is_none_or(|piece| piece.number != number) {
                (at, index) = self.next_piece(place.segment, next, number)?;
                (block, next) = self.block(place.segment, at)?;
            }
        }
    }

    /// A content in memory.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn bytes(&self, place: Place) -> Result<(Vec<u8>, Digest), ContentError> {
        let mut whole = Vec::new();
        let digest = self.read(place, |_, bytes| {
            whole.extend_from_slice(bytes);
            Ok::<_, ContentError>(())
        })?;
        Ok((whole, digest))
    }

    /// The digest that a content is to have, without its bytes where it is small.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn digest(&self, place: Place) -> Result<Digest, ContentError> {
        let (block, _) = self.block(place.segment, place.offset)?;
        match block.pieces.get(place.piece as usize).and_then(|piece| piece.last) {
            Some(digest) => Ok(digest),
            None => self.bytes(place).map(|(_, digest)| digest),
        }
    }

    /// Where the block is that has the next piece of a content, and which piece it is.
    fn next_piece(&self, segment: u32, mut at: u64, number: u64) -> Result<(u64, usize), ContentError> {
        loop {
            at = self.next_block(segment, at)?;
            let (block, next) = self.block(segment, at)?;
            if let Some(index) = block.pieces.iter().position(|piece| piece.number == number) {
                return Ok((at, index));
            }
            at = next;
        }
    }

    /// Where the first block from a frame on begins.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn next_block(&self, segment: u32, mut at: u64) -> Result<u64, ContentError> {
        while !self.is_block(segment, at)? {
            at = self.behind(segment, at)?;
        }
        Ok(at)
    }

    /// A block as it is stored: its payload.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn stored(&self, segment: u32, at: u64) -> Result<Vec<u8>, ContentError> {
        let file = self.file(segment)?;
        read_block(&file, at).map(|(payload, _)| payload).map_err(|error| self.damaged(segment, at, &error.to_string()))
    }

    fn header(&self, segment: u32, at: u64) -> Result<[u8; frame::HEADER], ContentError> {
        let mut header = [0; frame::HEADER];
        let read = self.file(segment)?.read_exact_at(&mut header, at);
        read.map_err(|error| self.damaged(segment, at, &error.to_string()))?;
        Ok(header)
    }

    fn is_block(&self, segment: u32, at: u64) -> Result<bool, ContentError> {
        Ok(self.header(segment, at)?[4] == crate::wire::message::BLOCK)
    }

    fn behind(&self, segment: u32, at: u64) -> Result<u64, ContentError> {
        let length = frame::payload_length(&self.header(segment, at)?);
        let length = length.map_err(|error| self.damaged(segment, at, &error.to_string()))?;
        Ok(at + (frame::HEADER + length) as u64)
    }

    /// A decoded block, and where the frame behind it begins.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn block(&self, segment: u32, at: u64) -> Result<Decoded, ContentError> {
        if let Some((_, decoded)) = self.cache().iter().find(|(place, _)| *place == (segment, at)) {
            return Ok(decoded.clone());
        }
        // Others may use the cache while this block is unpacked.
        let file = self.file(segment)?;
        let read = read_block(&file, at).map_err(|error| self.damaged(segment, at, &error.to_string()));
        let (payload, next) = read?;
        let damaged = |error: BlockError| self.damaged(segment, at, &error.to_string());
        let mut sources = Vec::new();
        for back in Block::sources(&payload).map_err(damaged)? {
            let source = at.checked_sub(back).ok_or_else(|| damaged(BlockError::Table))?;
            sources.push(match self.areas(segment, source) {
                Ok(areas) => Some(areas),
                // What has nothing from there is right, and told from the rest by its digest.
                Err(ContentError::Damaged { .. }) => None,
                Err(error) => return Err(error),
            });
        }
        let block = Block::decode_with(&payload, &sources).map_err(damaged)?;
        let decoded = (Arc::new(block), next);
        let mut cache = self.cache();
        if cache.iter().all(|(place, _)| *place != (segment, at)) {
            if cache.len() == if self.is_another { 2 } else { CACHED } {
                cache.pop_front();
            }
            cache.push_back(((segment, at), decoded.clone()));
        }
        Ok(decoded)
    }

    /// What stands in a block that another one refers to.
    fn areas(&self, segment: u32, at: u64) -> Result<Arc<Areas>, ContentError> {
        let referred = || self.referred.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some((_, areas)) = referred().iter().find(|(place, _)| *place == (segment, at)) {
            return Ok(areas.clone());
        }
        let payload = self.stored(segment, at)?;
        let areas = Block::areas(&payload).map_err(|error| self.damaged(segment, at, &error.to_string()))?;
        let areas = Arc::new(areas);
        let mut referred = referred();
        if referred.len() == if self.is_another { SOURCES / 2 } else { SOURCES } {
            referred.pop_front();
        }
        referred.push_back(((segment, at), areas.clone()));
        Ok(areas)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Keeps a segment open: what is in it can be read while the file that is given lives, though its name goes.
    ///
    /// # Errors
    /// [`ContentError`] names the segment.
    pub fn hold(&self, segment: u32) -> Result<Arc<File>, ContentError> {
        let file = self.file(segment)?;
        let mut held = self.held.lock().unwrap_or_else(|poison| poison.into_inner());
        held.retain(|(_, file)| file.strong_count() > 0);
        held.push((segment, Arc::downgrade(&file)));
        Ok(file)
    }

    fn held(&self, segment: u32) -> Option<Arc<File>> {
        let held = self.held.lock().unwrap_or_else(|poison| poison.into_inner());
        held.iter().find(|(number, _)| *number == segment).and_then(|(_, file)| file.upgrade())
    }

    fn file(&self, segment: u32) -> Result<Arc<File>, ContentError> {
        if let Some(file) = self.held(segment) {
            return Ok(file);
        }
        let mut open = self.open.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(at) = open.iter().position(|(number, _)| *number == segment)
            && let Some(found) = open.remove(at)
        {
            open.push_back(found.clone());
            return Ok(found.1);
        }
        let source = self.sources.get(segment as usize).ok_or(ContentError::Nowhere)?;
        let missing = |error: DiskError| ContentError::Missing {
            segment: source.shown.clone(),
            reason: error.source.to_string(),
        };
        let file = Arc::new(source.root.open_file(&source.path).map_err(missing)?);
        if open.len() == if self.is_another { 4 } else { OPEN } {
            open.pop_front();
        }
        open.push_back((segment, file.clone()));
        Ok(file)
    }

    /// What stands at this place of a segment is not what was written.
    pub fn damaged(&self, segment: u32, offset: u64, what: &str) -> ContentError {
        let shown = self.sources.get(segment as usize).map_or_else(String::new, |source| source.shown.clone());
        ContentError::Damaged { segment: shown, offset, what: what.to_owned() }
    }
}
