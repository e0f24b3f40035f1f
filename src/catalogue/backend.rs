//! The file beneath the catalogue's database: through the door of `disk.rs`, so that tests can fail every
//! write; not written to before there is something to commit; or not at all (a dry run).

use crate::disk::Writer;
use redb::StorageBackend;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

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

/// Pages that may wait in memory.
const DEFERRED_PAGES: usize = 2048;

/// A database file that is left alone until there is something to commit. The database notes in it that it is open,
/// and that it has been closed: five syncs, for a run in which nothing changed.
#[derive(Debug)]
pub struct Deferred {
    disk: Box<dyn StorageBackend>,
    overlay: Overlay,
    writes: AtomicBool,
}

impl Deferred {
    /// Over a database file.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn new(writer: Writer) -> io::Result<Self> {
        let overlay = Overlay::new(Some(writer.file().try_clone()?))?;
        Ok(Self { disk: Box::new(OnDisk(writer)), overlay, writes: AtomicBool::new(false) })
    }

    /// From here on everything goes to the disk; what waits goes first, and the page that makes it count last.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_through(&self) -> io::Result<()> {
        let mut state = self.overlay.state();
        if self.writes.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.disk.len()? != state.length {
            self.disk.set_len(state.length)?;
        }
        // The pages stay until all are written: where the disk refuses one, nothing that was read is lost.
        let mut waiting: Vec<_> = state.pages.iter().filter(|(number, _)| **number != 0).collect();
        waiting.sort_by_key(|(number, _)| **number);
        for (number, page) in &waiting {
            self.write_page(**number, page, state.length)?;
        }
        if !waiting.is_empty() {
            self.disk.sync_data()?;
        }
        if let Some(head) = state.pages.get(&0) {
            self.write_page(0, head, state.length)?;
            self.disk.sync_data()?;
        }
        // A reader that came to the overlay before finds everything in the file.
        state.pages.clear();
        state.base_length = state.length;
        self.writes.store(true, Ordering::Release);
        Ok(())
    }

    fn write_page(&self, number: u64, page: &[u8], length: u64) -> io::Result<()> {
        let begin = number * PAGE;
        let end = (length - begin).min(PAGE) as usize;
        self.disk.write(begin, &page[..end])
    }

    /// Whether opening the database changed more than its head: it was repaired.
    pub fn was_repaired(&self) -> bool {
        self.overlay.state().pages.keys().any(|number| *number != 0)
    }

    fn to(&self) -> &dyn StorageBackend {
        match self.writes.load(Ordering::Acquire) {
            true => &*self.disk,
            false => &self.overlay,
        }
    }
}

/// The database's handle on a [`Deferred`] file.
#[derive(Debug)]
pub struct Shared(pub Arc<Deferred>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.to().len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.to().read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.to().set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.to().sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.to().write(offset, data)?;
        let waiting = self.0.overlay.state().pages.len();
        match waiting > DEFERRED_PAGES {
            true => self.0.write_through(),
            false => Ok(()),
        }
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
    fn a_deferred_file_is_written_when_it_is_told_and_not_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = Arc::new(Deferred::new(writer(&directory)).expect("is new"));
        let deferred = Shared(file.clone());
        let on_disk = || std::fs::read(directory.path().join("catalogue")).expect("reads");
        deferred.set_len(10_000).expect("grows");
        deferred.write(5_000, &[7; 5_000]).expect("writes");
        deferred.write(0, &[9; 10]).expect("writes");
        deferred.sync_data().expect("syncs");
        assert!(on_disk().is_empty() && file.was_repaired());
        file.write_through().expect("writes");
        let mut wanted = vec![0; 10_000];
        wanted[..10].fill(9);
        wanted[5_000..].fill(7);
        assert_eq!(on_disk(), wanted);
        deferred.write(20, &[8; 2]).expect("writes");
        wanted[20..22].fill(8);
        assert_eq!(on_disk(), wanted);
    }

    /// Refuses its second write, once.
    #[derive(Debug)]
    struct Refusing(redb::backends::InMemoryBackend, std::sync::atomic::AtomicU64);

    impl StorageBackend for Refusing {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.0.set_len(length)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            match self.1.fetch_add(1, Ordering::Relaxed) {
                1 => Err(io::ErrorKind::StorageFull.into()),
                _ => self.0.write(offset, data),
            }
        }
    }

    #[test]
    fn what_waits_is_still_there_when_the_disk_refuses_it() {
        let disk = Box::new(Refusing(redb::backends::InMemoryBackend::new(), 0.into()));
        let overlay = Overlay::new(None).expect("is new");
        let file = Arc::new(Deferred { disk, overlay, writes: AtomicBool::new(false) });
        let database = Shared(file.clone());
        database.set_len(4 * PAGE).expect("grows");
        database.write(0, &[7; 4 * PAGE as usize]).expect("is kept");
        file.write_through().expect_err("the disk is full");
        for _ in 0..2 {
            let mut bytes = vec![0; 4 * PAGE as usize];
            database.read(0, &mut bytes).expect("reads");
            assert!(bytes.iter().all(|&byte| byte == 7));
            file.write_through().expect("there is room again");
        }
    }

    #[test]
    fn more_than_fits_into_memory_is_written() {
        let file = Arc::new(Deferred::new(writer(&tempfile::tempdir().expect("a directory"))).expect("is new"));
        let database = Shared(file.clone());
        let pages = 2 * DEFERRED_PAGES as u64;
        database.set_len(pages * PAGE).expect("grows");
        for number in 0..pages {
            database.write(number * PAGE, &number.to_le_bytes()).expect("writes");
        }
        assert!(file.writes.load(Ordering::Acquire) && file.overlay.state().pages.is_empty());
        for number in 0..pages {
            let mut bytes = [0; 8];
            database.read(number * PAGE, &mut bytes).expect("reads");
            assert_eq!(u64::from_le_bytes(bytes), number);
        }
    }

    fn writer(directory: &tempfile::TempDir) -> Writer {
        let root = crate::disk::Root::open(directory.path()).expect("opens");
        root.open_or_create(&crate::path::TreePath::root().child("catalogue")).expect("is made")
    }

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
