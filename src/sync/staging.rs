//! Contents that have arrived and are not in the mirror yet.
//!
//! Each is a file of its own beside the mirror, on its file system, named by its number: a rename puts it in
//! place. Bytes are believed when their BLAKE3 matches (I4), before anything is acknowledged.

use super::SyncError;
use crate::delta;
use crate::disk::{self, DiskError, Root, Writer};
use crate::id::Digest;
use crate::path::TreePath;
use crate::wire::block::{Block, Piece, UNWANTED};
use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;

/// Permissions of staged files: nobody else reads mail on its way.
pub const MODE: u16 = 0o600;

/// Holes are made of zeros that fill whole pages.
const PAGE: usize = 4096;

/// The directory of staged contents.
pub struct Staging {
    root: Root,
    open: Mutex<HashMap<u64, Partial>>,
    whole: Mutex<HashMap<u64, Digest>>,
}

/// A large content of which a part is here.
struct Partial {
    writer: Writer,
    hasher: blake3::Hasher,
    length: u64,
}

type Result<T> = std::result::Result<T, SyncError>;

impl Staging {
    /// Opens the directory beneath a mirror's own, and clears what an earlier run left if asked.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(own: &Root) -> Result<Self> {
        let root = own.make_own("staging")?;
        Ok(Self { root, open: Mutex::default(), whole: Mutex::default() })
    }

    /// Removes everything staged.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn clear(&self) -> Result<()> {
        lock(&self.open).clear();
        lock(&self.whole).clear();
        Ok(self.root.remove_files()?)
    }

    /// The directory, for renaming out of it.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where the content with this number is.
    pub fn path(number: u64) -> TreePath {
        TreePath::root().child(&number.to_string())
    }

    /// Takes the pieces of a block that are wanted.
    ///
    /// # Errors
    /// Where the disk refuses, or a content does not match its digest.
    pub fn take(&self, block: &Block) -> Result<()> {
        for (piece, bytes) in block.contents().filter(|(piece, _)| piece.number != UNWANTED) {
            match (piece.offset, piece.last) {
                (0, Some(digest)) => self.take_whole(piece, digest, bytes)?,
                _ => self.take_piece(piece, bytes)?,
            }
        }
        Ok(())
    }

    fn take_whole(&self, piece: &Piece, digest: Digest, bytes: &[u8]) -> Result<()> {
        if Digest::of(bytes) != digest {
            return Err(SyncError::Protocol("a content does not match its digest"));
        }
        let mut writer = self.root.create(&Self::path(piece.number), MODE)?;
        write(&mut writer, bytes, piece.sparse)?;
        if piece.sparse {
            writer.set_length(bytes.len() as u64)?;
        }
        lock(&self.whole).insert(piece.number, digest);
        Ok(())
    }

    fn take_piece(&self, piece: &Piece, bytes: &[u8]) -> Result<()> {
        let mut partial = match (piece.offset, lock(&self.open).remove(&piece.number)) {
            (0, None) => Partial {
                writer: self.root.create(&Self::path(piece.number), MODE)?,
                hasher: blake3::Hasher::new(),
                length: 0,
            },
            (offset, Some(partial)) if partial.length == offset => partial,
            _ => return Err(SyncError::Protocol("the pieces of a content are out of order")),
        };
        partial.hasher.update(bytes);
        partial.length += bytes.len() as u64;
        write(&mut partial.writer, bytes, piece.sparse)?;
        match piece.last {
            None => {
                lock(&self.open).insert(piece.number, partial);
                Ok(())
            }
            Some(digest) if digest == Digest::from(partial.hasher.finalize()) => {
                if piece.sparse {
                    partial.writer.set_length(partial.length)?;
                }
                lock(&self.whole).insert(piece.number, digest);
                Ok(())
            }
            Some(_) => Err(SyncError::Protocol("a content does not match its digest")),
        }
    }

    /// The digest of a content that is whole.
    pub fn digest(&self, number: u64) -> Option<Digest> {
        lock(&self.whole).get(&number).copied()
    }

    /// Forgets a content that was put in place.
    pub fn placed(&self, number: u64) {
        lock(&self.whole).remove(&number);
    }

    /// After a crash: whether a file that an earlier process staged holds this content.
    pub fn recover(&self, number: u64, digest: &Digest) -> bool {
        let Ok(mut file) = self.root.open_file(&Self::path(number)) else { return false };
        let matches = hash(&mut file).is_ok_and(|found| found == *digest);
        if matches {
            lock(&self.whole).insert(number, *digest);
        }
        matches
    }

    /// Removes contents of which only the beginning has come: whoever sent it has found that the rest is damaged.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn discard_beginnings(&self) -> Result<()> {
        let begun: Vec<u64> = lock(&self.open).keys().copied().collect();
        begun.into_iter().try_for_each(|number| self.discard(number))
    }

    /// Removes one staged file; one that is not there is fine.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn discard(&self, number: u64) -> Result<()> {
        lock(&self.whole).remove(&number);
        lock(&self.open).remove(&number);
        match self.root.remove(&Self::path(number)) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes a content out of an older version and a staged delta; it takes the delta's place.
    /// `false` where the result is not what it should be: the older version was another.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn patch(&self, number: u64, base: &std::fs::File, size: u64, digest: &Digest) -> Result<bool> {
        let mut delta = self.root.open_file(&Self::path(number))?;
        let result = self.fresh(&TreePath::root().child(&format!("{number}.patched")))?;
        let sparse = disk::stat_file(base).is_ok_and(|stat| stat.is_sparse());
        let mut output =
            Hashing { writer: result, hasher: blake3::Hasher::new(), failed: None, sparse, waiting: Vec::new() };
        let applied = delta::apply(base, &mut delta, &mut output, size);
        let ended = output.end(size);
        if let Some(error) = output.failed.take() {
            return Err(error.into());
        }
        if applied.is_err() || ended.is_err() || Digest::from(output.hasher.finalize()) != *digest {
            return Ok(false);
        }
        self.root.rename(&TreePath::root().child(&format!("{number}.patched")), &Self::path(number))?;
        lock(&self.whole).insert(number, *digest);
        Ok(true)
    }

    /// Makes the content of one staged file durable.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn sync(&self, number: u64) -> Result<()> {
        Ok(self.root.sync_file(&Self::path(number))?)
    }

    /// Copies a file of the mirror; `false` where it is not what it should be.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn copy(&self, number: u64, from: &mut std::fs::File, digest: &Digest) -> Result<bool> {
        let mut writer = self.fresh(&Self::path(number))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = from.read(&mut buffer).map_err(|source| DiskError {
                operation: "cannot read a file to copy it to",
                path: writer.path().to_owned(),
                source,
            })?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            writer.write(&buffer[..read])?;
        }
        Ok(Digest::from(hasher.finalize()) == *digest)
    }

    fn fresh(&self, path: &TreePath) -> Result<Writer> {
        match self.root.create(path, MODE) {
            Err(error) if error.already_exists() => {
                self.root.remove(path)?;
                Ok(self.root.create(path, MODE)?)
            }
            other => Ok(other?),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

fn write(writer: &mut Writer, bytes: &[u8], sparse: bool) -> disk::Result<()> {
    if !sparse {
        return if bytes.is_empty() { Ok(()) } else { writer.write(bytes) };
    }
    for page in bytes.chunks(PAGE) {
        match page.iter().all(|&byte| byte == 0) {
            true => writer.skip(page.len() as u64)?,
            false => writer.write(page)?,
        }
    }
    Ok(())
}

/// BLAKE3 of a file from where it stands.
///
/// # Errors
/// Where it cannot be read.
pub fn hash(file: &mut std::fs::File) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&buffer[..read]),
        };
    }
}

/// Writes and hashes at once.
struct Hashing {
    writer: Writer,
    hasher: blake3::Hasher,
    failed: Option<DiskError>,
    /// Runs of zeros become holes.
    sparse: bool,
    /// Bytes that do not fill a page yet.
    waiting: Vec<u8>,
}

impl Hashing {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        write(&mut self.writer, bytes, self.sparse).map_err(|error| {
            let kind = error.source.kind();
            self.failed = Some(error);
            kind.into()
        })
    }

    fn end(&mut self, size: u64) -> std::io::Result<()> {
        let rest = std::mem::take(&mut self.waiting);
        self.put(&rest)?;
        if !self.sparse {
            return Ok(());
        }
        self.writer.set_length(size).map_err(|error| {
            let kind = error.source.kind();
            self.failed = Some(error);
            kind.into()
        })
    }
}

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.hasher.update(bytes);
        self.waiting.extend_from_slice(bytes);
        let whole = self.waiting.len() / PAGE * PAGE;
        if whole >= 16 * PAGE {
            let rest = self.waiting.split_off(whole);
            let pages = std::mem::replace(&mut self.waiting, rest);
            self.put(&pages)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staging() -> (tempfile::TempDir, Staging) {
        let directory = tempfile::tempdir().expect("a directory");
        let own = Root::open(directory.path()).expect("opens");
        let staging = Staging::open(&own).expect("opens");
        (directory, staging)
    }

    fn block(number: u64, offset: u64, bytes: &[u8], last: Option<Digest>, sparse: bool) -> Block {
        let piece = Piece { number, offset, length: bytes.len() as u32, last, sparse };
        Block { pieces: vec![piece], data: bytes.to_vec() }
    }

    #[test]
    fn a_content_that_does_not_match_its_digest_is_refused() {
        let (_directory, staging) = staging();
        let wrong = Some(Digest::of(b"other"));
        assert!(staging.take(&block(1, 0, b"bytes", wrong, false)).is_err());
        staging.take(&block(2, 0, b"by", None, false)).expect("takes");
        assert!(staging.take(&block(2, 2, b"tes", wrong, false)).is_err());
        assert_eq!(staging.digest(1), None);
        assert_eq!(staging.digest(2), None);
    }

    #[test]
    fn pieces_out_of_order_are_refused() {
        let (_directory, staging) = staging();
        assert!(staging.take(&block(1, 5, b"bytes", None, false)).is_err());
        staging.take(&block(2, 0, b"by", None, false)).expect("takes");
        assert!(staging.take(&block(2, 3, b"tes", None, false)).is_err());
    }

    #[test]
    fn what_is_not_wanted_is_not_staged_and_a_beginning_is_discarded() {
        let (directory, staging) = staging();
        staging.take(&block(UNWANTED, 0, b"others", Some(Digest::of(b"others")), false)).expect("takes");
        staging.take(&block(1, 0, b"whole", Some(Digest::of(b"whole")), false)).expect("takes");
        staging.take(&block(2, 0, b"begin", None, false)).expect("takes");
        staging.discard_beginnings().expect("discards");
        let there = std::fs::read_dir(directory.path().join("staging")).expect("lists");
        let there: Vec<_> = there.map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(there, ["1"]);
    }

    #[test]
    fn a_sparse_content_keeps_its_length_and_takes_little_room() {
        let (directory, staging) = staging();
        let mut bytes = vec![0; 1 << 20];
        bytes[500_000] = 1;
        let digest = Some(Digest::of(&bytes));
        staging.take(&block(1, 0, &bytes, digest, true)).expect("takes");
        let path = directory.path().join("staging/1");
        assert_eq!(std::fs::read(&path).expect("reads"), bytes);
        let blocks = std::os::unix::fs::MetadataExt::blocks(&path.metadata().expect("is there"));
        assert!(blocks * 512 < 100_000, "{blocks} blocks");
    }

    #[test]
    fn a_patch_of_another_version_is_noticed() {
        let (directory, staging) = staging();
        let delta = delta::append(3, b" and new");
        staging.take(&block(1, 0, &delta, Some(Digest::of(&delta)), false)).expect("takes");
        let base = directory.path().join("base");
        std::fs::write(&base, b"bad").expect("writes");
        let file = std::fs::File::open(&base).expect("opens");
        let wanted = Digest::of(b"old and new");
        assert!(!staging.patch(1, &file, 11, &wanted).expect("patches"));
        std::fs::write(&base, b"old").expect("writes");
        let file = std::fs::File::open(&base).expect("opens");
        assert!(staging.patch(1, &file, 11, &wanted).expect("patches"));
        assert_eq!(staging.digest(1), Some(wanted));
        staging.discard(1).expect("discards");
        staging.discard(1).expect("again does no harm");
    }
}
