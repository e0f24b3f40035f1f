//! Reading files at any place of them.
//!
//! Nothing is handed out before the digest of the whole content was found right. A small content is read whole and kept
//! for a while. Of a large one it is kept where its pieces stand, once all of it was read and found right: from then on
//! a read unpacks the pieces that it wants, and no others.

use super::views::{Opened, Which};
use crate::maildir::entry::Meta;
use crate::path::TreePath;
use crate::repository::contents::{ContentError, PieceRef};
use crate::repository::record::{Place, Record, What};
use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard};

/// Contents up to this are kept whole.
const WHOLE_MAX: u64 = 4 << 20;

/// Bytes of contents that are kept.
const KEPT: usize = 64 << 20;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its content cannot be had.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// What is there is whole, and not what it should be.
    #[error("the repository has another content in its place")]
    Another,
}

/// A content that was found right.
enum Content {
    Whole(Vec<u8>),
    Pieces(Vec<PieceRef>),
}

impl Content {
    fn weight(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Pieces(pieces) => pieces.len() * size_of::<PieceRef>(),
        }
    }
}

/// Which content of which view.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Placed(u64, Place),
    /// Put together out of differences.
    Patched(u64, TreePath),
}

/// Contents that were read last.
#[derive(Default)]
pub struct Cache {
    kept: Mutex<VecDeque<(Key, Arc<Content>)>>,
}

impl Cache {
    fn kept(&self) -> MutexGuard<'_, VecDeque<(Key, Arc<Content>)>> {
        self.kept.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn get(&self, key: &Key) -> Option<Arc<Content>> {
        let mut kept = self.kept();
        let at = kept.iter().position(|(kept, _)| kept == key)?;
        let entry = kept.remove(at)?;
        let content = entry.1.clone();
        kept.push_back(entry);
        Some(content)
    }

    /// Keeps a content; the longest unused ones go. One that is larger than all that may be kept stays alone.
    fn keep(&self, key: Key, content: Arc<Content>) {
        let mut kept = self.kept();
        let mut weight = content.weight() + kept.iter().map(|(_, content)| content.weight()).sum::<usize>();
        while weight > KEPT
            && let Some((_, gone)) = kept.pop_front()
        {
            weight -= gone.weight();
        }
        kept.push_back((key, content));
    }
}

/// An open file. It has its view, and so reads on when the view's point has gone.
pub struct OpenFile {
    opened: Arc<Opened>,
    record: Record,
    /// Where its content is. Who cannot open it now is told when it is read.
    _segment: Option<Arc<File>>,
    /// Held while the content is read: two reads at once read it once.
    reading: Mutex<()>,
}

impl OpenFile {
    /// A file of a view; `None` where it is something else.
    pub fn new(opened: Arc<Opened>, path: TreePath, meta: Meta, what: What) -> Option<Self> {
        let What::File { place, .. } = &what else { return None };
        let segment = place.and_then(|place| opened.view.contents.hold(place.segment).ok());
        let record = Record { path, state: Some((meta, what)) };
        Some(Self { opened, record, _segment: segment, reading: Mutex::default() })
    }

    /// In which moment it is.
    pub fn which(&self) -> Which {
        self.opened.which
    }

    /// Where it is.
    pub fn path(&self) -> &TreePath {
        &self.record.path
    }

    /// Up to `length` bytes from `offset` on; fewer at the end of the file.
    ///
    /// # Errors
    /// [`ReadError`] where the content is not what it was.
    pub fn read(&self, cache: &Cache, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let Some((_, What::File { size, place, check, .. })) = &self.record.state else { return Ok(Vec::new()) };
        if *size == 0 || offset >= *size {
            return Ok(Vec::new());
        }
        let end = size.min(&offset.saturating_add(length as u64)).to_owned();
        match &*self.content(cache, *size, *place, *check)? {
            Content::Whole(bytes) => Ok(bytes.get(offset as usize..end as usize).unwrap_or_default().to_vec()),
            Content::Pieces(pieces) => self.gather(pieces, offset, end),
        }
    }

    fn content(
        &self,
        cache: &Cache,
        size: u64,
        place: Option<Place>,
        check: [u8; 8],
    ) -> Result<Arc<Content>, ReadError> {
        let view = &self.opened.view;
        let is_patched = view.is_patched(&self.record.path);
        let key = match (is_patched, place) {
            (true, _) => Key::Patched(self.opened.number, self.record.path.clone()),
            (false, Some(place)) => Key::Placed(self.opened.number, place),
            (false, None) => return Err(ContentError::Nowhere.into()),
        };
        let _reading = self.reading.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(content) = cache.get(&key) {
            return Ok(content);
        }
        let (content, length, digest) = match &key {
            Key::Patched(..) => {
                let (bytes, digest) = view.patch(&self.record)?;
                let length = bytes.len() as u64;
                (Content::Whole(bytes), length, digest)
            }
            Key::Placed(_, place) if size <= WHOLE_MAX => {
                let (bytes, digest) = view.contents.bytes(*place)?;
                let length = bytes.len() as u64;
                (Content::Whole(bytes), length, digest)
            }
            Key::Placed(_, place) => {
                let (pieces, digest) = view.contents.pieces(*place)?;
                let length = pieces.last().map_or(0, |piece| piece.offset + u64::from(piece.length));
                (Content::Pieces(pieces), length, digest)
            }
        };
        if length != size || digest.0[..8] != check {
            return Err(ReadError::Another);
        }
        let content = Arc::new(content);
        cache.keep(key, content.clone());
        Ok(content)
    }

    /// The bytes between two places, out of the pieces that have them.
    fn gather(&self, pieces: &[PieceRef], offset: u64, end: u64) -> Result<Vec<u8>, ReadError> {
        let mut gathered = Vec::with_capacity((end - offset) as usize);
        let first = pieces.partition_point(|piece| piece.offset + u64::from(piece.length) <= offset);
        for piece in pieces.iter().skip(first).take_while(|piece| piece.offset < end) {
            let begin = offset.saturating_sub(piece.offset) as usize;
            let until = (end - piece.offset).min(u64::from(piece.length)) as usize;
            self.opened.view.contents.piece(piece, |bytes| {
                gathered.extend_from_slice(bytes.get(begin..until).unwrap_or_default());
            })?;
        }
        Ok(gathered)
    }
}
