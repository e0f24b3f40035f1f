//! What was restored, read again and held against what the point says of it.

use super::{Report, Result, is_message};
use crate::disk::{DiskError, FileKind, Root, Stat};
use crate::maildir::entry::Meta;
use crate::maildir::name;
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use crate::restore;
use crate::sync::staging;
use std::collections::HashMap;

/// A comparison that is under way.
pub struct Comparison<'a> {
    view: &'a View,
    root: &'a Root,
    /// The mirror, where the moment is the newest.
    mirror: Option<&'a Root>,
    /// Owners were kept.
    has_owners: bool,
    /// What the restore said of a file, by the place where it was to be.
    said: HashMap<&'a str, &'a Problem>,
    /// What it said of no file.
    said_of_none: Vec<&'a Problem>,
    /// Inode of each group of hard links.
    groups: HashMap<u64, u64>,
    /// A folder of the mirror: its messages by base name.
    folder: Option<(TreePath, HashMap<Vec<u8>, TreePath>)>,
}

impl<'a> Comparison<'a> {
    /// Begins.
    pub fn new(view: &'a View, root: &'a Root, mirror: Option<&'a Root>, restored: &'a restore::Report) -> Self {
        let (of_none, of_files): (Vec<_>, Vec<_>) = restored.problems.iter().partition(|one| one.subject.is_empty());
        let said = of_files.into_iter().map(|problem| (problem.subject.as_str(), problem)).collect();
        let has_owners = restored.warnings.is_empty();
        Self { view, root, mirror, has_owners, said, said_of_none: of_none, groups: HashMap::new(), folder: None }
    }

    /// Compares everything beneath the chosen mailboxes, and looks for what should not be there.
    ///
    /// # Errors
    /// Where what was restored cannot be read at all.
    pub fn run(mut self, report: &mut Report) -> Result<()> {
        for mailbox in report.mailboxes.clone() {
            for record in self.view.beneath(&mailbox) {
                match record {
                    Ok(record) => self.record(&record, report)?,
                    Err(error) => differs(report, String::new(), error.to_string()),
                }
            }
        }
        self.surplus(&TreePath::root(), report)?;
        // Those that no comparison met.
        let mut left: Vec<Problem> = self.said.into_values().chain(self.said_of_none).cloned().collect();
        left.sort_by(|one, other| (&one.subject, &one.reason).cmp(&(&other.subject, &other.reason)));
        left.retain(|problem| !report.differing.contains(problem));
        report.differing.append(&mut left);
        Ok(())
    }

    fn record(&mut self, record: &Record, report: &mut Report) -> Result<()> {
        let Some((meta, what)) = &record.state else { return Ok(()) };
        let path = &record.path;
        let problem = self.said.remove(self.root.show(path).as_str());
        let found = match self.root.stat_if_there(path)? {
            None => Some(problem.map_or("it did not come back".to_owned(), |problem| problem.reason.clone())),
            Some(stat) => self.difference(path, &stat, meta, what)?.map(str::to_owned),
        };
        let found = found.or_else(|| problem.map(|problem| problem.reason.clone()));
        match (found, what) {
            (Some(reason), _) => differs(report, path.to_string(), reason),
            (None, What::File { size, .. }) => {
                report.files += 1;
                report.bytes += size;
                report.messages += u64::from(is_message(path));
            }
            (None, _) => {}
        }
        match what {
            What::File { size, check, .. } if is_message(path) => self.on_mirror(path, *size, *check, report),
            _ => Ok(()),
        }
    }

    /// What is not as it was.
    fn difference(&mut self, path: &TreePath, stat: &Stat, meta: &Meta, what: &What) -> Result<Option<&'static str>> {
        let kind = match what {
            What::Directory => FileKind::Directory,
            What::Symlink(_) => FileKind::Symlink,
            What::File { .. } => FileKind::File,
        };
        if stat.kind != kind {
            return Ok(Some("it came back as something else"));
        }
        match what {
            What::File { size, .. } if stat.size != *size => return Ok(Some("its length is another")),
            What::File { size, check, group, .. } => {
                if *group != 0 && *self.groups.entry(*group).or_insert(stat.ino) != stat.ino {
                    return Ok(Some("it is no hard link of the file that it was one of"));
                }
                if !self.is_content(self.root, path, *size, *check)? {
                    return Ok(Some("its content is another"));
                }
            }
            What::Symlink(target) if self.root.read_link(path)? != *target => {
                return Ok(Some("it points elsewhere"));
            }
            _ => {}
        }
        if kind != FileKind::Symlink && stat.mode != meta.mode {
            return Ok(Some("its mode is another"));
        }
        if meta.mtime.is_some_and(|mtime| mtime != stat.mtime) {
            return Ok(Some("its modification time is another"));
        }
        if self.has_owners {
            if (stat.uid, stat.gid) != (meta.uid, meta.gid) {
                return Ok(Some("its owner is another"));
            }
            if kind != FileKind::Symlink && self.root.xattrs(path)? != meta.xattrs {
                return Ok(Some("its extended attributes are others"));
            }
        }
        Ok(None)
    }

    fn is_content(&self, root: &Root, path: &TreePath, size: u64, check: [u8; 8]) -> Result<bool> {
        let mut file = root.open_file(path)?;
        let failed = |source| DiskError { operation: "cannot read", path: root.show(path), source };
        let digest = staging::hash(&mut file).map_err(failed)?;
        let length = crate::disk::stat_file(&file).map_err(failed)?.size;
        Ok(length == size && digest.0[..8] == check)
    }

    /// What is there, and was not.
    fn surplus(&self, directory: &TreePath, report: &mut Report) -> Result<()> {
        let mut below = Vec::new();
        for entry in self.root.list(directory, 1024)?.0.entries {
            let path = directory.join(&entry.name);
            let is_directory = self.root.stat(&path)?.kind == FileKind::Directory;
            let is_chosen = report.mailboxes.iter().any(|mailbox| path.is_within(mailbox));
            let is_above = is_directory && report.mailboxes.iter().any(|mailbox| mailbox.is_within(&path));
            // What cannot be read of the manifest is named already.
            if !(is_above || is_chosen && self.view.get(&path).map_or(true, |state| state.is_some())) {
                differs(report, path.to_string(), "it was not there then".to_owned());
            }
            if is_directory {
                below.push(path);
            }
        }
        below.iter().try_for_each(|path| self.surplus(path, report))
    }

    /// A message does not change: the mirror's file of the same base name is the same.
    fn on_mirror(&mut self, path: &TreePath, size: u64, check: [u8; 8], report: &mut Report) -> Result<()> {
        let Some(mirror) = self.mirror else { return Ok(()) };
        let there = match mirror.stat_if_there(path) {
            Ok(Some(_)) => path.clone(),
            // Where it cannot be looked at it is not compared.
            Err(_) => return Ok(()),
            Ok(None) => match self.elsewhere(mirror, path) {
                Some(there) => there,
                None => return Ok(()),
            },
        };
        let reason = match self.is_content(mirror, &there, size, check) {
            Ok(true) => None,
            Ok(false) => Some("the mirror has another content".to_owned()),
            Err(_) if !matches!(mirror.stat_if_there(&there), Ok(Some(_))) => return Ok(()),
            Err(error) => Some(error.to_string()),
        };
        report.on_mirror += 1;
        if let Some(reason) = reason {
            report.mirror_differs.push(Problem { subject: mirror.show(&there), reason });
        }
        Ok(())
    }

    /// Where the mirror has the message with this base name.
    fn elsewhere(&mut self, mirror: &Root, path: &TreePath) -> Option<TreePath> {
        let folder = path.parent().parent();
        if self.folder.as_ref().is_none_or(|(listed, _)| *listed != folder) {
            self.folder = Some((folder.clone(), messages_of(mirror, &folder)));
        }
        self.folder.as_ref()?.1.get(name::base(path.name())).cloned()
    }
}

/// The messages that a folder has, by base name; of one that cannot be listed, none.
fn messages_of(root: &Root, folder: &TreePath) -> HashMap<Vec<u8>, TreePath> {
    let mut messages = HashMap::new();
    for part in [folder.child("new"), folder.child("cur")] {
        let Ok((listing, _)) = root.list(&part, 1024) else { continue };
        let entries = listing.entries.iter();
        messages.extend(entries.map(|entry| (name::base(entry.name.as_bytes()).to_vec(), part.join(&entry.name))));
    }
    messages
}

fn differs(report: &mut Report, subject: String, reason: String) {
    report.differing.push(Problem { subject, reason });
}
