//! A pax tar stream of what was there: everything that `restore` brings back, for `tar x` anywhere.
//!
//! The stream depends on the moment and the choice alone, so that the same export gives the same bytes. A content is
//! written when it was found right; what is damaged is named, and not in the stream.

use super::content::Content;
use super::{Report, Result, Wanted};
use crate::maildir::entry::Meta;
use crate::path::TreePath;
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use header::Kind;
use std::collections::HashMap;
use std::io::Write;

mod acl;
mod header;

/// Writes what is wanted of a view.
///
/// # Errors
/// Where the output does not take it. What is damaged is in [`Report::problems`].
pub fn write(view: &View, wanted: Wanted<'_>, output: &mut dyn Write) -> Result<Report> {
    let (report, groups, above) = (Report::default(), HashMap::new(), Vec::new());
    let mut archive = Archive { view, output, report, groups, above };
    for record in view.beneath(&TreePath::root()) {
        match record {
            Ok(record) => archive.record(&record, wanted)?,
            Err(error) => archive.report.problem(String::new(), error.to_string()),
        }
    }
    archive.output.write_all(&header::END)?;
    archive.output.flush()?;
    Ok(archive.report)
}

/// An archive that is being written.
struct Archive<'a> {
    view: &'a View,
    output: &'a mut dyn Write,
    report: Report,
    /// The first file of each group of hard links that is in the archive.
    groups: HashMap<u64, TreePath>,
    /// Directories above what is wanted that are not in the archive yet.
    above: Vec<(TreePath, Meta)>,
}

impl Archive<'_> {
    fn record(&mut self, record: &Record, wanted: Wanted<'_>) -> Result<()> {
        let Some((meta, what)) = &record.state else { return Ok(()) };
        self.above.retain(|(directory, _)| record.path.is_within(directory));
        match (wanted(record), what) {
            (false, What::Directory) => self.above.push((record.path.clone(), meta.clone())),
            (false, _) => {}
            (true, What::Directory) => {
                self.directories_above()?;
                self.head(&record.path, meta, Kind::Directory)?;
            }
            (true, What::Symlink(target)) => {
                self.directories_above()?;
                self.head(&record.path, meta, Kind::Symlink(target))?;
                self.report.exported += 1;
            }
            (true, What::File { size, group, .. }) => self.file(record, meta, *size, *group)?,
        }
        Ok(())
    }

    fn file(&mut self, record: &Record, meta: &Meta, size: u64, group: u64) -> Result<()> {
        if let Some(first) = self.groups.get(&group).filter(|_| group != 0).cloned() {
            self.directories_above()?;
            self.head(&record.path, meta, Kind::Link(first.as_bytes()))?;
            self.report.exported += 1;
            return Ok(());
        }
        let content = match Content::of(self.view, record) {
            Ok(content) => content,
            Err(reason) => {
                self.report.problem(record.path.to_string(), reason);
                return Ok(());
            }
        };
        self.directories_above()?;
        self.head(&record.path, meta, Kind::File(size))?;
        content.write(self.view, self.output)?;
        self.output.write_all(header::padding(size))?;
        if group != 0 {
            self.groups.insert(group, record.path.clone());
        }
        self.report.exported += 1;
        self.report.bytes += size;
        Ok(())
    }

    fn directories_above(&mut self) -> Result<()> {
        for (path, meta) in std::mem::take(&mut self.above) {
            self.head(&path, &meta, Kind::Directory)?;
        }
        Ok(())
    }

    fn head(&mut self, path: &TreePath, meta: &Meta, kind: Kind<'_>) -> Result<()> {
        // `cur/` and `new/` have no time of their own: that of the moment is none that an index of the master knows.
        let mtime = meta.mtime.unwrap_or(self.view.moment);
        Ok(self.output.write_all(&header::encode(path.as_bytes(), meta, mtime, &kind))?)
    }
}
