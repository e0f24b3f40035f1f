//! A file that is being written: every write, sync and cut of it is a step.

use super::{DiskError, Result, step};
use rustix::fs as sys;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};

/// A file that is being written.
#[derive(Debug)]
pub struct Writer {
    pub(super) file: File,
    pub(super) path: String,
}

impl Writer {
    fn error(&self, operation: &'static str) -> impl FnOnce(io::Error) -> DiskError + '_ {
        move |source| DiskError { operation, path: self.path.clone(), source }
    }

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Where the disk refuses; some of them may have been written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (file, path) = (&mut self.file, &self.path);
        let mut faulty = Faulty(file);
        faulty.write_all(bytes).map_err(|source| DiskError { operation: "cannot write", path: path.clone(), source })
    }

    /// Makes the content durable.
    ///
    /// # Errors
    /// Where the disk refuses: the file must then be written anew, under a new name.
    pub fn sync(&self) -> Result<()> {
        let sync = || -> io::Result<()> {
            step()?;
            self.file.sync_data()
        };
        sync().map_err(self.error("cannot sync"))
    }

    /// Cuts or extends the file; new bytes are a hole.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_length(&self, length: u64) -> Result<()> {
        let set = || -> io::Result<()> {
            step()?;
            self.file.set_len(length)
        };
        set().map_err(self.error("cannot set the length of"))
    }

    /// Gives an empty file blocks for so many bytes; what they hold means nothing.
    ///
    /// # Errors
    /// Where the disk refuses, or has not so many.
    pub fn allocate(&mut self, length: u64) -> Result<()> {
        let allocated = loop {
            step().map_err(self.error("cannot allocate room for"))?;
            match sys::fallocate(&self.file, sys::FallocateFlags::empty(), 0, length) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        match allocated {
            // Some file systems give room only to what is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill(length),
            other => other.map_err(|errno| self.error("cannot allocate room for")(errno.into())),
        }
    }

    /// Writes bytes of which no file system makes fewer.
    fn fill(&mut self, length: u64) -> Result<()> {
        let mut noise = blake3::Hasher::new().finalize_xof();
        let mut window = vec![0; 1 << 16];
        let mut left = length;
        while left > 0 {
            let part = left.min(window.len() as u64);
            noise.fill(&mut window);
            self.write(&window[..part as usize])?;
            left -= part;
        }
        Ok(())
    }

    /// Goes on `bytes` further without writing: a hole.
    ///
    /// # Errors
    /// Where the file cannot be that long.
    pub fn skip(&mut self, bytes: u64) -> Result<()> {
        use io::{Seek, SeekFrom};
        let distance = i64::try_from(bytes).unwrap_or(i64::MAX);
        let skipped = self.file.seek(SeekFrom::Current(distance)).map(drop);
        skipped.map_err(self.error("cannot write"))
    }

    /// Writes at an offset, for the catalogue's database.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        while !bytes.is_empty() {
            let allowed = step()?.allowed(bytes.len());
            let written = self.file.write_at(&bytes[..allowed], offset)?;
            offset += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A file whose writes are steps.
struct Faulty<'a>(&'a mut File);

impl Write for Faulty<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = step()?.allowed(bytes.len());
        self.0.write(&bytes[..allowed])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
