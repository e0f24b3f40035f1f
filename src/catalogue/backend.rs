//! The file beneath the catalogue's database: through the door of `disk.rs`, so that tests can fail every
//! write, or in front of a file that must not change (a dry run).

use crate::disk::Writer;
use redb::StorageBackend;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

/// A database file.
#[derive(Debug)]
pub struct OnDisk(pub Writer);

impl OnDisk {
    /// The database passes errors on; with the file's path in them a person knows where to look.
    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.0.path()))
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.file().metadata().map(|data| data.len()).map_err(|error| self.named(error))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file().read_exact_at(out, offset).map_err(|error| self.named(error))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length).map_err(|error| self.named(error.source))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync().map_err(|error| self.named(error.source))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data).map_err(|error| self.named(error))
    }
}

const PAGE: u64 = 4096;

/// What would be written is kept in memory, over a file that is only read, or over nothing.
#[derive(Debug)]
pub struct Overlay {
    base: Option<File>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// Bytes of the base that still count: what was cut off does not come back.
    base_length: u64,
    pages: HashMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Over `base`, or over an empty file.
    ///
    /// # Errors
    /// Where the file's length cannot be read.
    pub fn new(base: Option<File>) -> io::Result<Self> {
        let length = base.as_ref().map_or(Ok(0), |file| file.metadata().map(|data| data.len()))?;
        let state = State { length, base_length: length, pages: HashMap::new() };
        Ok(Self { base, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn base_page(&self, number: u64, base_length: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE as usize].into_boxed_slice();
        let begin = number * PAGE;
        if let Some(file) = self.base.as_ref().filter(|_| begin < base_length) {
            let end = (base_length - begin).min(PAGE) as usize;
            file.read_exact_at(&mut page[..end], begin)?;
        }
        Ok(page)
    }
}

/// The part of page `number` that lies in `offset .. offset + length`: in the page, and in the buffer.
fn overlap(number: u64, offset: u64, length: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let (first, last) = (number * PAGE, (number + 1) * PAGE);
    let (begin, end) = (offset.max(first), (offset + length as u64).min(last));
    let range = |origin: u64| (begin - origin) as usize..(end - origin) as usize;
    (range(first), range(offset))
}

fn page_numbers(offset: u64, length: usize) -> std::ops::Range<u64> {
    offset / PAGE..(offset + length as u64).div_ceil(PAGE)
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset + out.len() as u64 > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for number in page_numbers(offset, out.len()) {
            let (here, there) = overlap(number, offset, out.len());
            match state.pages.get(&number) {
                Some(page) => out[there].copy_from_slice(&page[here]),
                None => out[there].copy_from_slice(&self.base_page(number, state.base_length)?[here]),
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.length = length;
        state.base_length = state.base_length.min(length);
        state.pages.retain(|number, _| number * PAGE < length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let base_length = state.base_length;
        for number in page_numbers(offset, data.len()) {
            let (here, there) = overlap(number, offset, data.len());
            if let Entry::Vacant(missing) = state.pages.entry(number) {
                missing.insert(self.base_page(number, base_length)?);
            }
            if let Some(page) = state.pages.get_mut(&number) {
                page[here].copy_from_slice(&data[there]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_reads_its_own_writes_and_leaves_the_file_alone() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(path.path(), vec![1; 10_000]).expect("writes");
        let overlay = Overlay::new(Some(File::open(path.path()).expect("opens"))).expect("overlays");
        overlay.set_len(20_000).expect("grows");
        overlay.write(4_090, &[2; 5_000]).expect("writes");
        let mut out = vec![9; 20_000];
        overlay.read(0, &mut out).expect("reads");
        assert_eq!((out[4_089], out[4_090], out[9_089], out[9_090]), (1, 2, 2, 1));
        assert_eq!((out[9_999], out[10_000]), (1, 0));
        assert_eq!(std::fs::read(path.path()).expect("reads"), vec![1; 10_000]);
    }
}
