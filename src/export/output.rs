//! A file that an export is written to: under another name until it is whole and durable.
//!
//! So what has the wanted name was exported to its end, whenever the export or the host was killed. The draft beside it
//! is begun anew by the next run.

use super::{ExportError, Result};
use crate::disk::{FileKind, Root, Writer};
use crate::path::{Name, TreePath};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that are written at a time.
const WRITTEN_AT_ONCE: usize = 1 << 18;

/// A file that may be written.
pub struct Destination {
    root: Root,
    path: TreePath,
    force: bool,
}

impl Destination {
    /// Looks at a path that a person named; nothing is made yet.
    ///
    /// # Errors
    /// Where something has its name (a regular file may, with `force`), the directory above it is not there, or it
    /// would become part of the standby.
    pub fn new(standby: &Path, path: &Path, force: bool) -> Result<Self> {
        let shown = || crate::path::escape(path.as_os_str().as_bytes());
        let name = path.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
        let name = name.ok_or_else(|| ExportError::Failed(format!("{} is no name for a file", shown())))?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = Root::open(above)?;
        apart(standby, &root, path)?;
        let destination = Self { root, path: TreePath::root().join(&name), force };
        destination.is_free()?;
        Ok(destination)
    }

    /// A file beneath a directory, whose own directory need not be there yet.
    ///
    /// # Errors
    /// As [`Destination::new`].
    pub fn beneath(directory: &Path, path: TreePath, force: bool) -> Result<Self> {
        let destination = Self { root: Root::open(directory)?, path, force };
        destination.is_free()?;
        Ok(destination)
    }

    fn is_free(&self) -> Result<()> {
        let taken = |why: &str| Err(ExportError::Failed(format!("{} {why}", self.root.show(&self.path))));
        match self.root.stat_if_there(&self.path)?.map(|stat| stat.kind) {
            None => Ok(()),
            Some(FileKind::File) if self.force => Ok(()),
            Some(FileKind::File) => taken("is there already: choose another name, or replace it with --force"),
            Some(_) => taken("is there already, and no regular file: choose another name, or - for standard output"),
        }
    }

    /// Begins to write.
    ///
    /// # Errors
    /// Where another run writes to it, or the disk refuses.
    pub fn begin(self) -> Result<Output> {
        let long = |_| ExportError::Failed(format!("{}: the name is too long", self.root.show(&self.path)));
        let draft = Name::new(&[b".", self.path.name(), b".partial"].concat()).map_err(long)?;
        let draft = self.path.parent().join(&draft);
        make_above(&self.root, &self.path)?;
        let writer = self.root.draft(&draft)?;
        let writer = writer.ok_or_else(|| ExportError::Locked(self.root.show(&self.path)))?;
        let writer = BufWriter::with_capacity(WRITTEN_AT_ONCE, Drafted(writer));
        Ok(Output { destination: self, draft, writer: Some(writer) })
    }
}

/// Makes the directories above a path, readable by their owner only.
fn make_above(root: &Root, path: &TreePath) -> Result<()> {
    let parent = path.parent();
    if !parent.is_root() && root.stat_if_there(&parent)?.is_none() {
        make_above(root, &parent)?;
        root.make_directory(&parent)?;
        root.sync_directory(&parent.parent())?;
    }
    Ok(())
}

/// What lies in the standby would become part of its mirror.
///
/// # Errors
/// Where the directory that is written into does.
pub fn apart(standby: &Path, directory: &Root, named: &Path) -> Result<()> {
    let mirror = Root::open(standby)?.ancestry()?.first().copied();
    let ancestry = directory.ancestry()?;
    if mirror.is_some_and(|mirror| ancestry.contains(&mirror)) {
        let shown = crate::path::escape(named.as_os_str().as_bytes());
        return Err(ExportError::Failed(format!("{shown} lies in the standby: choose a place elsewhere")));
    }
    Ok(())
}

/// A file that is being written. Dropped before [`Output::finish`] it leaves nothing.
pub struct Output {
    destination: Destination,
    draft: TreePath,
    writer: Option<BufWriter<Drafted>>,
}

/// A draft, as what takes bytes.
struct Drafted(Writer);

impl Write for Drafted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or(Ok(0), |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

impl Output {
    /// Makes what was written durable, and gives it its name.
    ///
    /// # Errors
    /// Where the disk refuses, or somebody has taken the name meanwhile.
    pub fn finish(mut self) -> Result<()> {
        let Destination { root, path, force } = &self.destination;
        if let Some(writer) = &mut self.writer {
            writer.flush()?;
            writer.get_ref().0.sync()?;
        }
        match force {
            true => root.rename(&self.draft, path)?,
            false => root.rename_to_free(&self.draft, path)?,
        }
        self.writer = None;
        Ok(root.sync_directory(&path.parent())?)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // What waits in the buffer is of no use to anybody.
            let (_drafted, _waiting) = writer.into_parts();
            let _ = self.destination.root.remove(&self.draft);
        }
    }
}
