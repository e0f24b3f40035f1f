//! Reading a manifest: what is asked for, and nothing else.

use super::trailer::{INDEX_MAX, INDEX_PART, LENGTH, RangeRef, Trailer};
use super::{HEADER, Header, INDEX, ManifestError, RANGE, VERSION, key, range};
use crate::disk::{DiskError, Root, stat_file};
use crate::path::TreePath;
use crate::repository::record::{Record, What};
use crate::wire::frame::{self, Frame, FrameError};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

type Result<T> = std::result::Result<T, ManifestError>;

/// Unpacked ranges that are kept for [`Manifest::get`] and [`Manifest::look`]: who asks for single paths, or for one
/// directory after the other, asks for several of one folder.
const KEPT: usize = 4;

/// Ranges that are read one after the other before threads read ahead: who asks for a folder does not want more.
const PATIENCE: usize = 3;

/// Threads that read ahead, and ranges that each of them has ready.
const THREADS: usize = 2;
const READY: usize = 2;

/// A manifest that was opened. It is only read, and can be shared by threads.
#[derive(Clone)]
pub struct Manifest(Arc<Opened>);

struct Opened {
    input: Input,
    header: Header,
    ranges: Vec<Range>,
    kept: Mutex<VecDeque<(usize, Arc<Vec<Record>>)>>,
    unpacked: AtomicU64,
}

/// Where a range is, and what is in it.
struct Range {
    first: TreePath,
    key: Vec<u8>,
    begin: u64,
    end: u64,
    count: u64,
}

/// An open file, and what it is called.
struct Input {
    file: File,
    path: String,
}

/// Why a part cannot be read.
enum Fault {
    Disk(DiskError),
    Damaged(String),
}

impl Manifest {
    /// Opens a manifest and reads its trailer, header and index.
    ///
    /// # Errors
    /// [`ManifestError`]: the file is not there, no manifest, too new or damaged where all hangs on it.
    pub fn open(root: &Root, path: &TreePath) -> Result<Self> {
        let input = Input { file: root.open_file(path)?, path: root.show(path) };
        let length = stat_file(&input.file).map_err(|source| input.disk(source))?.size;
        let trailer = input.trailer(length)?;
        if trailer.minimum_reader > VERSION {
            return Err(ManifestError::Version { file: input.path, format: trailer.minimum_reader });
        }
        let header = input.header(&trailer, length - LENGTH as u64).map_err(|fault| input.whole(fault))?;
        if (header.version, header.minimum_reader) != (trailer.version, trailer.minimum_reader) {
            return Err(input.damaged("header and trailer do not belong together"));
        }
        let ranges = input.ranges(&trailer).map_err(|fault| input.whole(fault))?;
        Ok(Self(Arc::new(Opened { input, header, ranges, kept: Mutex::default(), unpacked: AtomicU64::default() })))
    }

    /// What the restore point is.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// How many records there are.
    pub fn len(&self) -> u64 {
        self.0.ranges.iter().map(|range| range.count).sum()
    }

    /// How many ranges there are.
    pub fn ranges(&self) -> u64 {
        self.0.ranges.len() as u64
    }

    /// How many ranges were unpacked so far: what was paid for.
    pub fn unpacked(&self) -> u64 {
        self.0.unpacked.load(Ordering::Relaxed)
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.0.ranges.is_empty()
    }

    /// The records from a key on, in order; all of them from an empty one. One range at a time is in memory.
    ///
    /// A range that cannot be read is one error, and behind it the others follow.
    pub fn records(&self, from: &[u8]) -> Records<'_> {
        Records::new(self, from.to_vec(), None, false)
    }

    /// The record of a path and of all beneath it, in order, out of the ranges that have them; otherwise as
    /// [`Manifest::records`].
    pub fn beneath(&self, path: &TreePath) -> Records<'_> {
        Records::new(self, key(path), Some(path.clone()), false)
    }

    /// As [`Manifest::beneath`], for a look at a few records among them: by way of the ranges that are kept.
    pub fn look(&self, path: &TreePath) -> Records<'_> {
        Records::new(self, key(path), Some(path.clone()), true)
    }

    /// The record of a path, if there is one. The last few ranges are kept in memory.
    ///
    /// # Errors
    /// Where the range cannot be read that would have it.
    pub fn get(&self, path: &TreePath) -> Result<Option<Record>> {
        let wanted = key(path);
        let Some(number) = self.range_of(&wanted) else { return Ok(None) };
        let records = self.kept(number)?;
        let at = records.binary_search_by(|record| key(&record.path).cmp(&wanted)).ok();
        Ok(at.and_then(|at| records.get(at)).cloned())
    }

    /// The range in which a key would be; `None` before the first.
    fn range_of(&self, key: &[u8]) -> Option<usize> {
        self.0.ranges.partition_point(|range| *range.key <= *key).checked_sub(1)
    }

    fn kept(&self, number: usize) -> Result<Arc<Vec<Record>>> {
        let mut kept = self.0.kept.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some((_, records)) = kept.iter().find(|(kept, _)| *kept == number) {
            return Ok(records.clone());
        }
        let records = Arc::new(self.range(number)?);
        kept.truncate(KEPT - 1);
        kept.push_front((number, records.clone()));
        Ok(records)
    }

    /// Reads and unpacks a range.
    fn range(&self, number: usize) -> Result<Vec<Record>> {
        let Some(range) = self.0.ranges.get(number) else { return Ok(Vec::new()) };
        self.0.unpacked.fetch_add(1, Ordering::Relaxed);
        self.unpack(range, self.0.ranges.get(number + 1)).map_err(|fault| match fault {
            Fault::Disk(error) => error.into(),
            Fault::Damaged(what) => ManifestError::Range {
                file: self.0.input.path.clone(),
                first: range.first.clone(),
                count: range.count,
                what,
            },
        })
    }

    fn unpack(&self, range: &Range, next: Option<&Range>) -> std::result::Result<Vec<Record>, Fault> {
        let frame = self.0.input.frame(RANGE, range.begin, range.end)?;
        let payload = frame.payload().map_err(|error| Fault::Damaged(error.to_string()))?;
        let records = range::decode(&payload).map_err(|error| Fault::Damaged(error.to_string()))?;
        let begins = records.first().is_some_and(|record| record.path == range.first);
        let ends = |next: &Range| records.last().is_some_and(|record| key(&record.path) < next.key);
        if !begins || !next.is_none_or(ends) || records.len() as u64 != range.count {
            return Err(Fault::Damaged("it is not the range that the index means".to_owned()));
        }
        match records.iter().all(|record| self.knows_the_segment(record)) {
            true => Ok(records),
            false => Err(Fault::Damaged("a record lies in a segment that the header does not name".to_owned())),
        }
    }

    /// Threads that unpack the ranges from this one on. They end when nobody listens any more.
    fn read_ahead(&self, first: usize) -> Vec<Receiver<Result<Vec<Record>>>> {
        let begin = |remainder: usize| {
            let (ready, ahead) = sync_channel(READY);
            let manifest = self.clone();
            let numbers = (first..self.0.ranges.len()).filter(move |number| number % THREADS == remainder);
            std::thread::spawn(move || {
                numbers.map(|number| manifest.range(number)).try_for_each(|range| ready.send(range))
            });
            ahead
        };
        (0..THREADS).map(begin).collect()
    }

    fn knows_the_segment(&self, record: &Record) -> bool {
        match &record.state {
            Some((_, What::File { place: Some(place), .. })) => {
                u64::from(place.segment) < self.0.header.segments.len() as u64
            }
            _ => true,
        }
    }
}

/// The records of a manifest, or of a part of it.
pub struct Records<'a> {
    manifest: &'a Manifest,
    /// The range that is read next.
    next: usize,
    /// Records before this key are left out.
    from: Vec<u8>,
    /// Only this path and what is beneath it is wanted.
    beneath: Option<TreePath>,
    /// By way of the ranges that are kept.
    keeps: bool,
    records: Unpacked,
    /// Ranges that were read.
    count: usize,
    /// Ranges that are being read, by the rest of their numbers divided by the number of threads.
    ahead: Vec<Receiver<Result<Vec<Record>>>>,
}

/// What is left of a range.
enum Unpacked {
    Own(std::vec::IntoIter<Record>),
    Kept(Arc<Vec<Record>>, usize),
}

impl Unpacked {
    fn rest(&self) -> &[Record] {
        match self {
            Self::Own(records) => records.as_slice(),
            Self::Kept(records, at) => records.get(*at..).unwrap_or_default(),
        }
    }

    /// Leaves out the records before a key.
    fn seek(&mut self, wanted: &[u8]) {
        let before = self.rest().partition_point(|record| *key(&record.path) < *wanted);
        match self {
            Self::Own(records) => drop(before.checked_sub(1).map(|last| records.nth(last))),
            Self::Kept(_, at) => *at += before,
        }
    }

    fn next(&mut self) -> Option<Record> {
        match self {
            Self::Own(records) => records.next(),
            Self::Kept(records, at) => {
                let record = records.get(*at).cloned();
                *at += 1;
                record
            }
        }
    }
}

impl<'a> Records<'a> {
    fn new(manifest: &'a Manifest, from: Vec<u8>, beneath: Option<TreePath>, keeps: bool) -> Self {
        let next = manifest.range_of(&from).unwrap_or_default();
        let records = Unpacked::Own(Vec::new().into_iter());
        Self { manifest, next, from, beneath, keeps, records, count: 0, ahead: Vec::new() }
    }

    /// Leaves out what comes before a key; ranges in which all of it does are not read.
    pub fn seek(&mut self, wanted: &[u8]) {
        self.records.seek(wanted);
        if self.records.rest().is_empty() {
            let next = self.next.max(self.manifest.range_of(wanted).unwrap_or_default());
            if next != self.next {
                // What threads have ready comes before it.
                self.ahead.clear();
                self.count = 0;
            }
            self.next = next;
            self.from = wanted.to_vec();
        }
    }

    /// Whether a path, which is not before the first that is wanted, is wanted.
    fn wants(&self, path: &TreePath) -> bool {
        self.beneath.as_ref().is_none_or(|directory| path.is_within(directory))
    }

    /// Unpacks the next range, or takes it from a thread that did.
    fn range(&mut self) -> Result<Vec<Record>> {
        self.count += 1;
        if self.count == PATIENCE && self.manifest.0.ranges.len() - self.next > THREADS {
            self.ahead = self.manifest.read_ahead(self.next);
        }
        let ready = self.ahead.get(self.next % THREADS).and_then(|ahead| ahead.recv().ok());
        ready.unwrap_or_else(|| self.manifest.range(self.next))
    }

    /// Reads the next range; `None` where no range has more.
    fn read(&mut self) -> Option<Result<()>> {
        let range = self.manifest.0.ranges.get(self.next)?;
        if *range.key > *self.from && !self.wants(&range.first) {
            return None;
        }
        let records = match self.keeps {
            true => self.manifest.kept(self.next).map(|records| Unpacked::Kept(records, 0)),
            false => self.range().map(|records| Unpacked::Own(records.into_iter())),
        };
        self.next += 1;
        Some(records.map(|mut records| {
            records.seek(&self.from);
            self.records = records;
        }))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.records.next() {
                if self.wants(&record.path) {
                    return Some(Ok(record));
                }
                // What follows is not wanted either.
                self.next = self.manifest.0.ranges.len();
                self.ahead.clear();
                self.records = Unpacked::Own(Vec::new().into_iter());
            }
            if let Err(error) = self.read()? {
                return Some(Err(error));
            }
        }
    }
}

impl std::iter::FusedIterator for Records<'_> {}

impl Input {
    fn disk(&self, source: io::Error) -> DiskError {
        DiskError { operation: "cannot read", path: self.path.clone(), source }
    }

    fn damaged(&self, what: impl ToString) -> ManifestError {
        ManifestError::Damaged { file: self.path.clone(), what: what.to_string() }
    }

    fn whole(&self, fault: Fault) -> ManifestError {
        match fault {
            Fault::Disk(error) => error.into(),
            Fault::Damaged(what) => self.damaged(what),
        }
    }

    /// The trailer of a file of this length.
    fn trailer(&self, length: u64) -> Result<Trailer> {
        let foreign = || ManifestError::Foreign { file: self.path.clone() };
        let begin = length.checked_sub(LENGTH as u64).ok_or_else(foreign)?;
        let bytes = self.bytes(begin, LENGTH)?;
        let frame = Frame::read(&mut &bytes[..]).map_err(|_| foreign())?;
        let trailer = Trailer::parse(&frame).ok_or_else(foreign)?;
        match trailer.index <= trailer.header && trailer.header < begin {
            true => Ok(trailer),
            false => Err(self.damaged("its trailer is malformed")),
        }
    }

    fn bytes(&self, begin: u64, length: usize) -> std::result::Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, begin).map_err(|source| self.disk(source))?;
        Ok(bytes)
    }

    /// The frame between two places, which is all that is there.
    fn frame(&self, kind: u8, begin: u64, end: u64) -> std::result::Result<Frame, Fault> {
        let (frame, length) = self.frame_at(kind, begin, end)?;
        match length == end - begin {
            true => Ok(frame),
            false => Err(Fault::Damaged("a part is longer than its frame".to_owned())),
        }
    }

    /// The frame at a place, and its length; it ends before `end`.
    fn frame_at(&self, kind: u8, begin: u64, end: u64) -> std::result::Result<(Frame, u64), Fault> {
        let header = self.bytes(begin, frame::HEADER).map_err(Fault::Disk)?;
        let header: [u8; frame::HEADER] = header.try_into().unwrap_or_default();
        let damaged = |error: FrameError| Fault::Damaged(error.to_string());
        let payload = frame::payload_length(&header).map_err(damaged)?;
        let length = (frame::HEADER + payload) as u64;
        if length > end.saturating_sub(begin) {
            return Err(Fault::Damaged("a part is shorter than its frame".to_owned()));
        }
        let payload = self.bytes(begin + frame::HEADER as u64, payload).map_err(Fault::Disk)?;
        let frame = Frame::checked(header, payload).map_err(damaged)?;
        match frame.kind == kind {
            true => Ok((frame, length)),
            false => Err(Fault::Damaged(format!("a part has the kind {} in place of {kind}", frame.kind))),
        }
    }

    fn header(&self, trailer: &Trailer, end: u64) -> std::result::Result<Header, Fault> {
        Ok(unpacked(&self.frame(HEADER, trailer.header, end)?, frame::MAX_RAW)?.0)
    }

    /// The index, which fills all between its beginning and the header.
    fn ranges(&self, trailer: &Trailer) -> std::result::Result<Vec<Range>, Fault> {
        let mut listed: Vec<RangeRef> = Vec::new();
        let (mut at, mut allowed) = (trailer.index, INDEX_MAX);
        while at < trailer.header {
            let (frame, length) = self.frame_at(INDEX, at, trailer.header)?;
            let (mut part, unpacked): (Vec<RangeRef>, usize) = unpacked(&frame, allowed.min(INDEX_PART))?;
            listed.append(&mut part);
            if listed.len() as u64 > trailer.index / frame::HEADER as u64 {
                return Err(Fault::Damaged("its index has more ranges than there is room for".to_owned()));
            }
            allowed -= unpacked;
            at += length;
        }
        let ends: Vec<u64> = listed.iter().skip(1).map(|range| range.offset).chain([trailer.index]).collect();
        let begins_at = listed.first().map_or(trailer.index, |range| range.offset);
        let ranges: Vec<Range> = listed.into_iter().zip(ends).map(Range::new).collect();
        let follow = ranges.is_sorted_by(|one, next| one.key < next.key);
        if begins_at != 0 || !follow || !ranges.iter().all(Range::is_possible) {
            return Err(Fault::Damaged("its index is malformed".to_owned()));
        }
        Ok(ranges)
    }
}

impl Range {
    fn new((range, end): (RangeRef, u64)) -> Self {
        let key = key(&range.first);
        Self { first: range.first, key, begin: range.offset, end, count: range.count.into() }
    }

    fn is_possible(&self) -> bool {
        let length = self.end.saturating_sub(self.begin);
        length > frame::HEADER as u64
            && length <= (frame::HEADER + frame::MAX_PAYLOAD) as u64
            && (1..=range::MOST as u64).contains(&self.count)
    }
}

/// Unpacks what a frame has, of at most `allowed` bytes; gives how many there were.
fn unpacked<T: DeserializeOwned>(frame: &Frame, allowed: usize) -> std::result::Result<(T, usize), Fault> {
    let payload = frame.payload().map_err(|error| Fault::Damaged(error.to_string()))?;
    if payload.len() > allowed {
        return Err(Fault::Damaged("its index is too long".to_owned()));
    }
    match postcard::take_from_bytes(&payload) {
        Ok((value, [])) => Ok((value, payload.len())),
        _ => Err(Fault::Damaged("a part of it does not decode".to_owned())),
    }
}
