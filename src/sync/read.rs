//! Reading, hashing and packing contents on other threads, in order.
//!
//! A job is a list of files that share a block. Workers take jobs first in, first out, and each answers
//! through a channel of its own, so that the cycle takes results in the order in which it planned them and
//! a large file never waits in memory.

use crate::catalogue::scan::{Found, chase, mark};
use crate::catalogue::store::KnownContents;
use crate::delta::{self, Differ, Signature, SignatureBuilder};
use crate::disk::{self, DiskError, Root, Stat};
use crate::id::Digest;
use crate::maildir::entry::Xattr;
use crate::path::TreePath;
use crate::wire::block::{self, Block, Piece};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// Files up to this size are read whole; larger ones in windows.
pub const WHOLE_MAX: u64 = 8 << 20;

/// Raw bytes of one piece of a large content.
const PIECE: usize = 1 << 20;

/// Packed blocks that a large file may have waiting.
const WAITING_BLOCKS: usize = 4;

/// A file to be read.
pub struct Request {
    /// What was seen of it.
    pub found: Found,
    /// Signature of the version that the slave has.
    pub signature: Option<Vec<u8>>,
    /// A signature of this version is wanted.
    pub sign: bool,
}

/// How a content gets to the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipped {
    /// It is what is recorded already.
    Same,
    /// It is in the mirror under another name, probably.
    Known,
    /// Whole, under its number; so many bytes.
    Whole(u64),
    /// As a delta, under its number; so many bytes.
    Delta(u64),
    /// Not at all: nothing is shipped in this cycle.
    Nothing,
}

/// A file that was read.
pub struct Content {
    /// Its state while it was read.
    pub stat: Stat,
    /// Its attributes.
    pub xattrs: Vec<Xattr>,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// How it gets to the slave.
    pub shipped: Shipped,
    /// Signature of this version, where it was asked for.
    pub signature: Option<Vec<u8>>,
}

/// What became of a request.
pub enum Outcome {
    /// It was read.
    Read(Box<Content>),
    /// It is not there any more, under no name.
    Gone,
    /// It went on changing while it was read.
    Restless,
    /// It could not be read.
    Failed(DiskError),
}

/// What a job sends back.
pub enum Output {
    /// A packed block.
    Block(Vec<u8>),
    /// What became of each request; nothing follows.
    Outcomes(Vec<(Found, Outcome)>),
}

/// What the workers share.
pub struct Reader {
    /// The tree.
    pub root: Arc<Root>,
    /// What is in the mirror already; `None` where nothing is shipped.
    pub contents: Option<KnownContents>,
    /// zstd level; 0 packs raw.
    pub level: i32,
}

/// A file's bytes, its state while they were read, and its attributes.
type ReadWhole = (Vec<u8>, Stat, Vec<Xattr>);

/// A job's answer, to be taken in order.
pub type Answer = Receiver<Output>;

type Job = (Vec<Request>, SyncSender<Output>);

/// Worker threads with a queue.
pub struct Pool {
    jobs: Option<SyncSender<Job>>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Pool {
    /// Starts workers.
    pub fn new(reader: Reader, workers: usize) -> Self {
        let (jobs, queue) = sync_channel::<Job>(1024);
        let (queue, reader) = (Arc::new(Mutex::new(queue)), Arc::new(reader));
        let start = |_| {
            let (queue, reader) = (queue.clone(), reader.clone());
            std::thread::spawn(move || work(&queue, &reader))
        };
        Self { jobs: Some(jobs), workers: (0..workers).map(start).collect() }
    }

    /// Puts a job into the queue. Its answer must be taken, or dropped.
    pub fn submit(&self, requests: Vec<Request>) -> Answer {
        let (answer, outputs) = sync_channel(WAITING_BLOCKS);
        if let Some(jobs) = &self.jobs {
            // A worker that died leaves the answer closed, and whoever takes it says so.
            let _ = jobs.send((requests, answer));
        }
        outputs
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, reader: &Reader) {
    loop {
        let job = queue.lock().unwrap_or_else(|poison| poison.into_inner()).recv();
        let Ok((requests, answer)) = job else { return };
        // A closed answer means that the cycle has ended: the next job will say the same.
        let _ = reader.job(requests, &answer);
    }
}

/// The cycle does not listen any more.
pub struct Closed;

impl Reader {
    /// Does one job.
    ///
    /// # Errors
    /// [`Closed`] where nobody takes the answer.
    pub fn job(&self, requests: Vec<Request>, answer: &SyncSender<Output>) -> Result<(), Closed> {
        let mut packer = Packer { block: Block { pieces: Vec::new(), data: Vec::new() }, level: self.level, answer };
        let mut outcomes = Vec::with_capacity(requests.len());
        for mut request in requests {
            let outcome = match request.found.stat.size > WHOLE_MAX && request.found.captured.is_none() {
                true => self.large(&request, &mut packer)?,
                false => self.whole(&mut request, &mut packer)?,
            };
            outcomes.push((request.found, outcome));
        }
        packer.close()?;
        answer.send(Output::Outcomes(outcomes)).map_err(|_| Closed)
    }

    fn whole(&self, request: &mut Request, packer: &mut Packer<'_>) -> Result<Outcome, Closed> {
        let (bytes, stat, xattrs) = match request.found.captured.take() {
            Some(bytes) => (bytes, request.found.stat, std::mem::take(&mut request.found.meta.xattrs)),
            None => match self.read_whole(&request.found) {
                Ok(Some(read)) => read,
                Ok(None) => return Ok(Outcome::Gone),
                Err(error) => return Ok(Outcome::Failed(error)),
            },
        };
        let digest = Digest::of(&bytes);
        let shipped = self.ship(request, &bytes, digest, stat.is_sparse(), packer)?;
        let signature = request.sign.then(|| sign(&bytes));
        Ok(Outcome::Read(Box::new(Content { stat, xattrs, digest, shipped, signature })))
    }

    fn ship(
        &self,
        request: &Request,
        bytes: &[u8],
        digest: Digest,
        sparse: bool,
        packer: &mut Packer<'_>,
    ) -> Result<Shipped, Closed> {
        let before = request.found.known.as_ref().and_then(|known| known.entry.file());
        if before.is_some_and(|file| file.digest == digest) {
            return Ok(Shipped::Same);
        }
        let Some(contents) = &self.contents else { return Ok(Shipped::Nothing) };
        if !bytes.is_empty() && contents.has(&digest) {
            return Ok(Shipped::Known);
        }
        let number = request.found.number;
        if let Some(delta) = self.delta(request, bytes) {
            packer.content(number, &delta, Digest::of(&delta), false)?;
            return Ok(Shipped::Delta(delta.len() as u64));
        }
        packer.content(number, bytes, digest, sparse)?;
        Ok(Shipped::Whole(bytes.len() as u64))
    }

    /// A delta against the version that the slave has, where that is shorter than the whole.
    fn delta(&self, request: &Request, bytes: &[u8]) -> Option<Vec<u8>> {
        let before = request.found.known.as_ref()?.entry.file()?;
        let length = usize::try_from(before.size).ok()?;
        // An appended file needs no signature: its beginning hashes to the old digest.
        if length > 0 && length <= bytes.len() && Digest::of(&bytes[..length]) == before.digest {
            let appended = delta::append(before.size, &bytes[length..]);
            return (appended.len() < bytes.len()).then_some(appended);
        }
        let signature = Signature::parse(request.signature.clone()?).ok()?;
        let index = signature.index();
        let (mut differ, mut delta) = (Differ::new(&index), Vec::new());
        differ.window(bytes, &mut delta).ok()?;
        differ.finish(&mut delta);
        (delta.len() < bytes.len() / 10 * 9).then_some(delta)
    }

    /// Reads a file as it is now. A message that was renamed since it was seen is read under its new name.
    fn read_whole(&self, found: &Found) -> Result<Option<ReadWhole>, DiskError> {
        let Some(file) = self.open(found)? else { return Ok(None) };
        let failed = |source| DiskError { operation: "cannot read", path: self.root.show(&found.path), source };
        let mut stat = disk::stat_file(&file).map_err(failed)?;
        // One call where the file is as long as it says; a byte more shows one that grew.
        let mut bytes = vec![0; stat.size.min(WHOLE_MAX * 2) as usize + 1];
        let mut length = read_full_once(&file, &mut bytes).map_err(failed)?;
        if length == bytes.len() {
            let mut rest = Vec::new();
            (&file).take(WHOLE_MAX * 2).read_to_end(&mut rest).map_err(failed)?;
            length += rest.len();
            bytes.append(&mut rest);
        }
        bytes.truncate(length);
        let xattrs = disk::read_xattrs(file.as_fd()).map_err(failed)?;
        stat.size = length as u64;
        Ok(Some((bytes, stat, xattrs)))
    }

    fn open(&self, found: &Found) -> Result<Option<File>, DiskError> {
        match self.root.open_file(&found.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.is_not_found() => {
                Ok(chase(&self.root, &found.path, found.stat.ino, |path| self.root.open_file(path)))
            }
            Err(error) => Err(error),
        }
    }

    // ---- large files ----

    /// Reads a file in windows: one pass where the slave has nothing or there is a signature, and one more
    /// before it where only the digest tells whether anything changed.
    fn large(&self, request: &Request, packer: &mut Packer<'_>) -> Result<Outcome, Closed> {
        let read = match self.open(&request.found) {
            Ok(Some(file)) => self.read_large(request, file, packer),
            Ok(None) => return Ok(Outcome::Gone),
            Err(error) => return Ok(Outcome::Failed(error)),
        };
        match read {
            Ok(outcome) => Ok(outcome),
            Err(Interrupted::Closed) => Err(Closed),
            Err(Interrupted::Io(source)) => {
                let path = self.root.show(&request.found.path);
                Ok(Outcome::Failed(DiskError { operation: "cannot read", path, source }))
            }
        }
    }

    fn read_large(&self, request: &Request, mut file: File, packer: &mut Packer<'_>) -> Result<Outcome, Interrupted> {
        let stat = disk::stat_file(&file)?;
        let xattrs = disk::read_xattrs(file.as_fd())?;
        let before = request.found.known.as_ref().and_then(|known| known.entry.file());
        let signature = request.signature.clone().and_then(|bytes| Signature::parse(bytes).ok());
        let only_hash = self.contents.is_none();
        let must_hash_first = before.is_some() && signature.is_none();
        if only_hash || must_hash_first {
            let digest = hash(&mut file)?;
            let same = before.is_some_and(|file| file.digest == digest);
            if same || only_hash {
                let shipped = if same { Shipped::Same } else { Shipped::Nothing };
                let content = Content { stat, xattrs, digest, shipped, signature: None };
                return Ok(Outcome::Read(Box::new(content)));
            }
            std::io::Seek::rewind(&mut file)?;
        }
        packer.close().map_err(|_| Interrupted::Closed)?;
        let mut stream = Stream::new(packer, request.found.number, stat.is_sparse());
        let mut hasher = blake3::Hasher::new();
        let mut signer = SignatureBuilder::new(delta::block_size_for(stat.size));
        let index = signature.as_ref().map(Signature::index);
        let mut differ = index.as_ref().map(Differ::new);
        let mut window = vec![0; delta::WINDOW];
        loop {
            let length = read_full(&mut file, &mut window)?;
            if length == 0 {
                break;
            }
            let bytes = &window[..length];
            hasher.update(bytes);
            signer.update(bytes);
            match &mut differ {
                Some(differ) => differ.window(bytes, &mut stream.bytes).map_err(std::io::Error::other)?,
                None => stream.bytes.extend_from_slice(bytes),
            }
            stream.flush(false)?;
        }
        if let Some(differ) = &mut differ {
            differ.finish(&mut stream.bytes);
        }
        let sent = stream.finish()?;
        let after = disk::stat_file(&file)?;
        if mark(&after) != mark(&stat) {
            return Ok(Outcome::Restless);
        }
        let shipped = if differ.is_some() { Shipped::Delta(sent) } else { Shipped::Whole(sent) };
        let digest = hasher.finalize().into();
        Ok(Outcome::Read(Box::new(Content { stat, xattrs, digest, shipped, signature: Some(signer.finish()) })))
    }
}

/// Why a large file was not read to its end.
enum Interrupted {
    Closed,
    Io(std::io::Error),
}

impl From<std::io::Error> for Interrupted {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn hash(file: &mut File) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut window = vec![0; delta::WINDOW];
    loop {
        match read_full(file, &mut window)? {
            0 => return Ok(hasher.finalize().into()),
            length => hasher.update(&window[..length]),
        };
    }
}

/// Reads until the buffer is full, or a read brings less than was asked for: the end, in a regular file.
fn read_full_once(mut file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn sign(bytes: &[u8]) -> Vec<u8> {
    let mut signer = SignatureBuilder::new(delta::block_size_for(bytes.len() as u64));
    signer.update(bytes);
    signer.finish()
}

/// Whether a signature of a file is worth keeping.
pub fn is_worth_signing(path: &TreePath, is_message: bool, size: u64) -> bool {
    !is_message && size >= delta::WHOLE_BELOW && !path.is_root()
}

/// Gathers small contents into blocks.
struct Packer<'a> {
    block: Block,
    level: i32,
    answer: &'a SyncSender<Output>,
}

impl Packer<'_> {
    /// Packs one content, in pieces where it is longer than a block should be.
    fn content(&mut self, number: u64, bytes: &[u8], digest: Digest, sparse: bool) -> Result<(), Closed> {
        let mut offset = 0;
        loop {
            let end = (offset + PIECE).min(bytes.len());
            let last = (end == bytes.len()).then_some(digest);
            self.piece(number, offset as u64, &bytes[offset..end], last, sparse)?;
            offset = end;
            if last.is_some() {
                return Ok(());
            }
        }
    }

    fn piece(
        &mut self,
        number: u64,
        offset: u64,
        bytes: &[u8],
        last: Option<Digest>,
        sparse: bool,
    ) -> Result<(), Closed> {
        if !self.block.data.is_empty() && self.block.data.len() + bytes.len() > block::MAX_RAW {
            self.close()?;
        }
        let length = bytes.len() as u32;
        self.block.pieces.push(Piece { number, offset, length, last, sparse });
        self.block.data.extend_from_slice(bytes);
        match self.block.data.len() >= block::TARGET || self.block.pieces.len() >= 4096 {
            true => self.close(),
            false => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), Closed> {
        if self.block.pieces.is_empty() {
            return Ok(());
        }
        let payload = self.block.encode(self.level).map_err(|_| Closed)?;
        self.block.pieces.clear();
        self.block.data.clear();
        self.answer.send(Output::Block(payload)).map_err(|_| Closed)
    }
}

/// A large content on its way out.
struct Stream<'a, 'b> {
    packer: &'a mut Packer<'b>,
    number: u64,
    offset: u64,
    sparse: bool,
    bytes: Vec<u8>,
    hasher: blake3::Hasher,
}

impl<'a, 'b> Stream<'a, 'b> {
    fn new(packer: &'a mut Packer<'b>, number: u64, sparse: bool) -> Self {
        Self { packer, number, offset: 0, sparse, bytes: Vec::new(), hasher: blake3::Hasher::new() }
    }

    /// Sends what is there, but for the piece that might be the last.
    fn flush(&mut self, all: bool) -> Result<(), Interrupted> {
        while self.bytes.len() > PIECE || all && !self.bytes.is_empty() {
            let rest = self.bytes.split_off(self.bytes.len().min(PIECE));
            let piece = std::mem::replace(&mut self.bytes, rest);
            let is_last = all && self.bytes.is_empty();
            self.send(&piece, is_last)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64, Interrupted> {
        if self.bytes.is_empty() {
            self.send(&[], true)?;
        }
        self.flush(true)?;
        self.packer.close().map_err(|_| Interrupted::Closed)?;
        Ok(self.offset)
    }

    fn send(&mut self, piece: &[u8], is_last: bool) -> Result<(), Interrupted> {
        self.hasher.update(piece);
        let last = is_last.then(|| self.hasher.finalize().into());
        let sent = self.packer.piece(self.number, self.offset, piece, last, self.sparse);
        self.offset += piece.len() as u64;
        sent.map_err(|Closed| Interrupted::Closed)
    }
}
