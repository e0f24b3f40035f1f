//! Messages as mbox files (mboxrd), for the programs that read nothing else.
//!
//! A folder at a time: its messages are put in the order of their delivery, so the list of one folder's messages is in
//! memory, and the content of one message. Flags and keywords, which are in a message's file name, become headers.

use super::output::Destination;
use super::{Report, Result, Wanted, content, folder_of, is_message};
use crate::disk::Root;
use crate::maildir::entry::Time;
use crate::maildir::{control, folder, name};
use crate::path::{Name, TreePath};
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use form::Head;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

mod form;

/// What would be exported.
#[derive(Debug, Default)]
pub struct Plan {
    /// Each folder, the file that it has in a directory of mbox files, and the keywords of its messages.
    pub folders: Vec<Planned>,
    /// How much there is of it.
    pub report: Report,
}

/// A folder that would be exported.
#[derive(Debug)]
pub struct Planned {
    /// Its directory in the set.
    pub folder: TreePath,
    /// How many of its messages.
    pub messages: u64,
    keywords: BTreeSet<Vec<u8>>,
}

impl Planned {
    /// Its file, in a directory of mbox files: the path of the mailbox, then the name of the folder as IMAP has it on
    /// disk, without the dot in front. Dovecot, and others, look for the inbox in `inbox`.
    pub fn file(&self) -> TreePath {
        file_of(&self.folder)
    }
}

/// The name of the inbox.
const INBOX: &str = "inbox";

fn file_of(folder: &TreePath) -> TreePath {
    let Some((mailbox, own)) = folder.split().filter(|(_, own)| own.as_bytes().starts_with(b".")) else {
        return folder.child(INBOX);
    };
    // A folder that is called like the inbox keeps its dot, and so does one of two dots: no two share a file.
    let rest = &own.as_bytes()[1..];
    let is_own = !rest.starts_with(b".") && !rest.eq_ignore_ascii_case(INBOX.as_bytes());
    let name = Name::new(rest).ok().filter(|_| is_own);
    mailbox.join(name.as_ref().unwrap_or(&own))
}

/// Counts what is wanted of a view, folder by folder.
///
/// # Errors
/// Where it cannot be read at all; what is damaged is in the report.
pub fn plan(view: &View, wanted: Wanted<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    let problems = folders(view, wanted, &mut |folder| {
        let known = known_keywords(view, &folder.path).unwrap_or_default();
        let keywords = folder.messages.iter().flat_map(|message| keywords_of(message, &known));
        let keywords = keywords.map(<[u8]>::to_vec).collect();
        plan.report.exported += folder.messages.len() as u64;
        plan.report.bytes += folder.messages.iter().map(size_of).sum::<u64>();
        plan.folders.push(Planned { messages: folder.messages.len() as u64, folder: folder.path, keywords });
        Ok(())
    })?;
    problems.into_iter().for_each(|reason| plan.report.problem(String::new(), reason));
    Ok(plan)
}

fn size_of(record: &Record) -> u64 {
    match &record.state {
        Some((_, What::File { size, .. })) => *size,
        _ => 0,
    }
}

/// Writes all that is wanted as one mbox: mailbox by mailbox, folder by folder.
///
/// # Errors
/// Where the output does not take it. What is damaged is in [`Report::problems`].
pub fn write(view: &View, wanted: Wanted<'_>, plan: &Plan, output: &mut dyn Write) -> Result<Report> {
    let mut report = Report::default();
    let keywords = plan.folders.iter().flat_map(|planned| planned.keywords.iter().cloned()).collect();
    let mut mbox = Mbox { view, output, base: Some(keywords), report: &mut report };
    let problems = folders(view, wanted, &mut |folder| mbox.folder(&folder))?;
    mbox.output.flush()?;
    problems.into_iter().for_each(|reason| report.problem(String::new(), reason));
    Ok(report)
}

/// Looks whether each file of a plan may be written into a directory, which need not be there.
///
/// # Errors
/// Where one is there already, without `force`, or the directory lies in the standby.
pub fn look(plan: &Plan, standby: &Path, directory: &Path, force: bool) -> Result<()> {
    super::output::apart(standby, &Root::open_above(directory)?, directory)?;
    match Root::open(directory) {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => plan.folders.iter().try_for_each(|planned| {
            Destination::beneath(directory, planned.file(), force)?;
            Ok(())
        }),
    }
}

/// Writes an mbox file for each folder into a directory, made where its last name is missing.
///
/// # Errors
/// Where the disk refuses, or a file is there already. What is damaged is in [`Report::problems`].
pub fn write_each(view: &View, wanted: Wanted<'_>, plan: &Plan, directory: &Path, force: bool) -> Result<Report> {
    let mut report = Report::default();
    Root::open_or_make(directory)?;
    let keywords: BTreeMap<&TreePath, &BTreeSet<Vec<u8>>> =
        plan.folders.iter().map(|planned| (&planned.folder, &planned.keywords)).collect();
    let problems = folders(view, wanted, &mut |folder| {
        let mut output = Destination::beneath(directory, file_of(&folder.path), force)?.begin()?;
        let base = keywords.get(&folder.path).map(|keywords| (*keywords).clone()).unwrap_or_default();
        Mbox { view, output: &mut output, base: Some(base), report: &mut report }.folder(&folder)?;
        output.finish()
    })?;
    problems.into_iter().for_each(|reason| report.problem(String::new(), reason));
    Ok(report)
}

/// A folder, and what is wanted of it in the order of delivery.
struct Folder {
    path: TreePath,
    messages: Vec<Record>,
}

impl Folder {
    fn is_left(&self, path: &TreePath) -> bool {
        !["cur", "new"].iter().any(|part| path.is_within(&self.path.child(part)))
    }
}

/// Hands over folder by folder; gives what of the view could not be read.
fn folders(view: &View, wanted: Wanted<'_>, each: &mut dyn FnMut(Folder) -> Result<()>) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    // One that lies within another's `cur/` is handed over before that.
    let mut open: Vec<Folder> = Vec::new();
    for record in view.beneath(&TreePath::root()) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let Some(path) = folder_of(&record).filter(|_| wanted(&record)) else { continue };
        while let Some(folder) = open.pop_if(|folder| folder.is_left(&record.path)) {
            each(folder.in_order())?;
        }
        if open.last().is_none_or(|folder| folder.path != path) {
            open.push(Folder { path, messages: Vec::new() });
        }
        if let Some(folder) = open.last_mut().filter(|_| is_message(&record)) {
            folder.messages.push(slim(record));
        }
    }
    while let Some(folder) = open.pop() {
        each(folder.in_order())?;
    }
    Ok(problems)
}

/// The record of a message without what is not needed to export it.
fn slim(mut record: Record) -> Record {
    if let Some((meta, What::File { envelope, .. })) = &mut record.state {
        *envelope = None;
        meta.xattrs = Vec::new();
    }
    record
}

impl Folder {
    fn in_order(mut self) -> Self {
        self.messages.sort_by(|one, other| {
            delivered(one).cmp(&delivered(other)).then_with(|| one.path.name().cmp(other.path.name()))
        });
        self
    }
}

/// When a message was delivered: what IMAP calls its internal date.
fn delivered(record: &Record) -> Time {
    record.state.as_ref().and_then(|(meta, _)| meta.mtime).unwrap_or_default()
}

/// Keyword letters and their names.
type Known = Vec<(u8, Vec<u8>)>;

/// The names that keyword letters have in a folder, at that moment.
///
/// # Errors
/// A sentence where the file that has them is damaged.
fn known_keywords(view: &View, folder: &TreePath) -> std::result::Result<Known, String> {
    let path = folder.child("dovecot-keywords");
    let state = view.get(&path).map_err(|error| error.to_string())?;
    let Some(state) = state.filter(|(_, what)| matches!(what, What::File { .. })) else { return Ok(Vec::new()) };
    let mut names = control::keyword_names(&content::whole(view, &Record { path, state: Some(state) })?);
    // One that could end its word, or its line, is none that a server has made.
    names.retain(|(_, name)| !name.is_empty() && name.iter().all(u8::is_ascii_graphic));
    Ok(names)
}

/// The keywords of a message.
fn keywords_of<'a>(record: &'a Record, known: &'a Known) -> impl Iterator<Item = &'a [u8]> {
    let named = move |letter| known.iter().find(|(known, _)| *known == letter).map(|(_, name)| name.as_slice());
    name::keywords(record.path.name()).filter_map(named)
}

/// An mbox that is being written.
struct Mbox<'a> {
    view: &'a View,
    output: &'a mut dyn Write,
    /// Until the first message is written: the keywords of them all.
    base: Option<BTreeSet<Vec<u8>>>,
    report: &'a mut Report,
}

impl Mbox<'_> {
    fn folder(&mut self, folder: &Folder) -> Result<()> {
        let known = known_keywords(self.view, &folder.path).unwrap_or_else(|reason| {
            let reason = format!("{reason}; messages are exported without their keywords");
            self.report.problem(folder.path.child("dovecot-keywords").to_string(), reason);
            Vec::new()
        });
        folder.messages.iter().try_for_each(|message| self.message(message, &known))
    }

    fn message(&mut self, record: &Record, known: &Known) -> Result<()> {
        let bytes = match content::whole(self.view, record) {
            Ok(bytes) => bytes,
            Err(reason) => {
                self.report.problem(record.path.to_string(), reason);
                return Ok(());
            }
        };
        let base = self.base.take().filter(|keywords| !keywords.is_empty());
        let head = Head {
            delivered: delivered(record),
            is_old: record.path.parent().name() == folder::CUR.as_bytes(),
            letters: name::letters(record.path.name()),
            keywords: keywords_of(record, known).collect(),
            base: base.map(|keywords| (self.view.moment, keywords)),
        };
        form::write(&bytes, &head, self.output)?;
        self.report.exported += 1;
        self.report.bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_has_a_file_of_its_own() {
        let cases = [
            ("", "inbox"),
            (".Archive.2026", "Archive.2026"),
            ("example.org/anna/Maildir", "example.org/anna/Maildir/inbox"),
            ("example.org/anna/Maildir/.Sent", "example.org/anna/Maildir/Sent"),
            ("anna/Work/Offers", "anna/Work/Offers/inbox"),
            ("anna/.INBOX", "anna/.INBOX"),
            ("anna/.INBOX.x", "anna/INBOX.x"),
            ("anna/..INBOX", "anna/..INBOX"),
            ("anna/..x", "anna/..x"),
        ];
        for (folder, file) in cases {
            let folder = TreePath::new(folder.as_bytes()).expect("a path");
            assert_eq!(file_of(&folder).as_bytes(), file.as_bytes(), "{folder}");
        }
    }
}
