//! Writing a manifest: records come in order, and go out range by range.

use super::pack::Columns;
use super::range::{FULL, MOST, RECORD_MAX};
use super::trailer::{INDEX_MAX, INDEX_PART, RANGE_REF, RangeRef, Trailer};
use super::{HEADER, Header, INDEX, ManifestError, RANGE, VERSION, key};
use crate::disk;
use crate::path::TreePath;
use crate::repository::record::{Record, What};
use crate::wire::frame::{Frame, MAX_PAYLOAD};
use serde::Serialize;

type Result<T> = std::result::Result<T, ManifestError>;

/// A manifest that is being written. What is not finished is no manifest.
pub struct Writer {
    out: disk::Writer,
    offset: u64,
    index: Vec<RangeRef>,
    index_bytes: usize,
    range: Columns,
    first: TreePath,
    weight: usize,
    last: Option<Vec<u8>>,
    segments: u64,
}

impl Writer {
    /// Begins a manifest in an empty file.
    pub fn new(out: disk::Writer) -> Self {
        Self {
            out,
            offset: 0,
            index: Vec::new(),
            index_bytes: 0,
            range: Columns::default(),
            first: TreePath::root(),
            weight: 0,
            last: None,
            segments: 0,
        }
    }

    /// Takes the next record: its key is above that of the one before.
    ///
    /// # Errors
    /// [`ManifestError::Order`] where it is not, [`ManifestError::Record`] where the record cannot be written (both leave
    /// the manifest as it was), or the disk's.
    pub fn push(&mut self, record: &Record) -> Result<()> {
        let key = key(&record.path);
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(ManifestError::Order { file: self.file(), path: record.path.clone() });
        }
        let weight = record.weight();
        if let Some(what) = objection(record, weight) {
            return Err(ManifestError::Record { file: self.file(), path: record.path.clone(), what });
        }
        if self.range.len() == MOST || self.range.len() > 0 && self.weight + weight > FULL {
            self.close_range()?;
        }
        if self.range.len() == 0 {
            self.first = record.path.clone();
        }
        if let Some((_, What::File { place: Some(place), .. })) = &record.state {
            self.segments = self.segments.max(u64::from(place.segment) + 1);
        }
        self.range.push(record);
        self.weight += weight;
        self.last = Some(key);
        Ok(())
    }

    /// Ends the manifest with its index and header, makes it durable and gives its length in bytes. The file's name is
    /// made durable by syncing its directory.
    ///
    /// # Errors
    /// The disk's, or [`ManifestError::Whole`] where the header does not name all segments that places mean.
    pub fn finish(mut self, header: Header) -> Result<u64> {
        if self.segments > header.segments.len() as u64 {
            return Err(self.whole("a record lies in a segment that the header does not name"));
        }
        if self.range.len() > 0 {
            self.close_range()?;
        }
        let index = self.offset;
        self.write_index()?;
        let trailer = Trailer::new(index, self.offset);
        self.append(&self.packed(HEADER, &Header { version: VERSION, minimum_reader: VERSION, ..header })?)?;
        self.append(&trailer.frame())?;
        self.out.sync()?;
        Ok(self.offset)
    }

    fn close_range(&mut self) -> Result<()> {
        let range = std::mem::take(&mut self.range);
        let payload = range.encode().map_err(|error| self.whole(error))?;
        let first = std::mem::take(&mut self.first);
        self.index_bytes += RANGE_REF + first.as_bytes().len();
        if self.index_bytes > INDEX_MAX {
            return Err(self.whole("it has too many records"));
        }
        self.index.push(RangeRef { first, offset: self.offset, count: range.len() as u32 });
        self.weight = 0;
        self.append(&Frame::plain(RANGE, payload))
    }

    fn write_index(&mut self) -> Result<()> {
        let index = std::mem::take(&mut self.index);
        let mut rest = &index[..];
        while !rest.is_empty() {
            let mut bytes = RANGE_REF;
            let fits = |range: &&RangeRef| {
                bytes += RANGE_REF + range.first.as_bytes().len();
                bytes < INDEX_PART
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (part, behind) = rest.split_at(count);
            self.append(&self.packed(INDEX, &part)?)?;
            rest = behind;
        }
        Ok(())
    }

    fn packed(&self, kind: u8, value: &impl Serialize) -> Result<Frame> {
        let payload = postcard::to_stdvec(value).map_err(|error| self.whole(error))?;
        Ok(Frame::compressed(kind, payload))
    }

    fn append(&mut self, frame: &Frame) -> Result<()> {
        let (header, payload) = frame.parts();
        if payload.len() > MAX_PAYLOAD {
            return Err(self.whole("a part of it is too long"));
        }
        self.offset += frame.length();
        Ok(self.out.write(&[&header[..], payload].concat())?)
    }

    fn file(&self) -> String {
        self.out.path().to_owned()
    }

    fn whole(&self, what: impl ToString) -> ManifestError {
        ManifestError::Whole { file: self.file(), what: what.to_string() }
    }
}

/// Why a record cannot be in a manifest.
fn objection(record: &Record, weight: usize) -> Option<&'static str> {
    let mtime = record.state.as_ref().and_then(|(meta, _)| meta.mtime);
    if weight > RECORD_MAX {
        return Some("its extended attributes are too long");
    }
    mtime.filter(|mtime| !mtime.is_valid()).map(|_| "its modification time is none")
}
