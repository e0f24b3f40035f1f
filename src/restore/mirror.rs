//! `verify --mirror`: the mirror is read, all of it, and held against the newest moment of the repository.
//!
//! A disk that rots changes bytes and no time, so only reading everything finds it. The reading takes no lock: syncs and
//! a mail server go on, and what they change meanwhile looks wrong at first. So what differs is looked at once more at
//! rest: the mirror is held against its catalogue, what a mail server did is in the log then, and whatever still is not
//! what the log says has rotted, or got lost. It is put right by the hand of replication.

use super::{OWN, Report as Restored, Restore, RestoreError, Result, is_same};
use crate::disk::{FileKind, Root};
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{File, Mark, Meta};
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::repository::layout::{Repository, RepositoryError};
use crate::repository::record::{Record, What};
use crate::repository::view::{At, View};
use crate::sync::receiver::frozen::Frozen;
use crate::sync::staging::{self, Staging};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// What was found of a mirror, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Regular files that were read.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What was not what the log says.
    pub found: Vec<Problem>,
    /// How many of these are right again.
    pub mended: u64,
    /// Those that are not, and what of the log could not be read.
    pub damage: Vec<Problem>,
}

/// Files that are put right together.
const TOGETHER: usize = 256;

/// Reads a mirror, and puts right what is not what the log says, unless it is only to be looked at.
///
/// # Errors
/// Where another run is at work, there is no restore point, or the mirror cannot be read at all.
pub fn run(standby: &Path, state: Option<&Path>, mends: bool) -> Result<Report> {
    // What a crash interrupted, and what a mail server did since the last sync, gets into the log first.
    drop(Frozen::open(standby, state)?);
    let repository = Repository::open(standby, state)?;
    let mut report = Report::default();
    let suspects = {
        let view = View::open(&repository, &At::Newest)?;
        if !view.problems.is_empty() {
            let problem = |reason: &String| Problem { subject: String::new(), reason: reason.clone() };
            report.damage = view.problems.iter().map(problem).collect();
            return Ok(report);
        }
        suspects(&view, &Root::open(standby)?, &mut report)?
    };
    if suspects.is_empty() {
        return Ok(report);
    }
    let frozen = Frozen::open(standby, state)?;
    // The log has grown where a mail server changed something meanwhile.
    let repository = Repository::open(standby, state)?;
    let view = View::open(&repository, &At::Newest)?;
    let wrong = confirmed(&view, frozen.mirror(), suspects, &mut report)?;
    if !mends {
        report.damage.clone_from(&report.found);
        return Ok(report);
    }
    for part in wrong.chunks(TOGETHER) {
        put_right(&frozen, &view, part, &mut report)?;
    }
    Ok(report)
}

/// Reads everything.
fn suspects(view: &View, mirror: &Root, report: &mut Report) -> Result<Vec<TreePath>> {
    let mut suspects = Vec::new();
    for record in view.beneath(&TreePath::root()) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                report.damage.push(Problem { subject: String::new(), reason: error.to_string() });
                continue;
            }
        };
        if let Some((_, What::File { size, .. })) = &record.state {
            report.files += 1;
            report.bytes += size;
            if wrong_with(mirror, &record).is_some() {
                suspects.push(record.path);
            }
        }
    }
    Ok(suspects)
}

/// What is not as it should be with a file of the mirror.
fn wrong_with(mirror: &Root, record: &Record) -> Option<String> {
    let Some((_, What::File { size, check, .. })) = &record.state else { return None };
    let path = &record.path;
    match mirror.stat_if_there(path) {
        Ok(None) => return Some("it is missing".to_owned()),
        Ok(Some(stat)) if stat.kind != FileKind::File => return Some("it is no regular file".to_owned()),
        Ok(Some(stat)) if stat.size != *size => {
            return Some(format!("it has {} bytes, and the log says {size}", stat.size));
        }
        Ok(Some(_)) => {}
        Err(error) => return Some(format!("{}: {}", error.operation, error.source)),
    }
    let read = |mut file: std::fs::File| staging::hash(&mut file);
    match mirror.open_file(path).map(read) {
        Ok(Ok(digest)) if digest.0[..8] == *check => None,
        Ok(Ok(_)) => Some("its content is not what the log says".to_owned()),
        Ok(Err(error)) => Some(format!("cannot read: {error}")),
        Err(error) => Some(format!("{}: {}", error.operation, error.source)),
    }
}

/// Looks again at rest: those that the set still has, and that still are wrong.
fn confirmed(view: &View, mirror: &Root, suspects: Vec<TreePath>, report: &mut Report) -> Result<Vec<Record>> {
    let mut wrong = Vec::new();
    for path in suspects {
        let state = view.get(&path).map_err(RestoreError::Repository)?;
        let record = Record { path, state };
        if let Some(reason) = wrong_with(mirror, &record) {
            report.found.push(Problem { subject: mirror.show(&record.path), reason });
            wrong.push(record);
        }
    }
    Ok(wrong)
}

fn put_right(frozen: &Frozen, view: &View, wrong: &[Record], report: &mut Report) -> Result<()> {
    let mirror = frozen.mirror();
    let own = TreePath::root().child(OWN);
    let was_there = mirror.stat_if_there(&own)?.is_some();
    let staging = Arc::new(Staging::open(&mirror.make_own(OWN)?)?);
    let mut restore = Restore::new(view, mirror.clone(), staging.clone());
    let changes = changes(view, mirror, wrong, &mut restore)?;
    let Restored { problems, .. } = std::mem::take(&mut restore.report);
    let put = frozen.put_back(&changes, &staging);
    if !was_there {
        mirror.remove_directory(&own)?;
    }
    let mut reasons: HashMap<String, String> = HashMap::new();
    for problem in problems.into_iter().chain(put?) {
        reasons.insert(problem.subject, problem.reason);
    }
    for record in wrong {
        let Some((_, What::File { size, check, .. })) = &record.state else { continue };
        match is_same(mirror, &record.path, *size, *check)? {
            true => report.mended += 1,
            false => {
                let subject = mirror.show(&record.path);
                let reason = reasons.remove(&subject).unwrap_or_else(|| "it could not be put right".to_owned());
                report.damage.push(Problem { subject, reason });
            }
        }
    }
    Ok(())
}

/// The changes that put files right; contents are staged. One that is damaged in the repository, too, is noted.
fn changes(view: &View, mirror: &Root, wrong: &[Record], restore: &mut Restore<'_>) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut made = HashSet::new();
    let mut groups: HashMap<u64, (TreePath, Mark)> = HashMap::new();
    for record in wrong {
        let Some((meta, What::File { size, check, group, .. })) = &record.state else { continue };
        let path = record.path.clone();
        let mark = Mark { size: *size, mtime: meta.mtime.unwrap_or_default() };
        if let Some((existing, mark)) = groups.get(group).filter(|_| *group != 0) {
            changes.push(Change::Link { path, existing: existing.clone(), group: *group, mark: *mark });
            continue;
        }
        let Some((number, digest)) = restore.staged(record, *check)? else { continue };
        make_above(view, mirror, &path, &mut made, &mut changes)?;
        if *group != 0 {
            groups.insert(*group, (path.clone(), mark));
        }
        let file = File { size: *size, digest, group: *group };
        changes.push(Change::Put { path, meta: meta.clone(), file, source: Source::Shipped(number) });
    }
    Ok(changes)
}

/// Directories that are missing above a file.
fn make_above(
    view: &View,
    mirror: &Root,
    path: &TreePath,
    made: &mut HashSet<TreePath>,
    changes: &mut Vec<Change>,
) -> std::result::Result<(), RepositoryError> {
    let parent = path.parent();
    if parent.is_root() || mirror.stat_if_there(&parent)?.is_some() || !made.insert(parent.clone()) {
        return Ok(());
    }
    make_above(view, mirror, &parent, made, changes)?;
    let meta = view.get(&parent)?.map_or_else(|| Meta { mode: 0o700, ..Meta::default() }, |(meta, _)| meta);
    changes.push(Change::MakeDirectory { path: parent, meta });
    Ok(())
}
