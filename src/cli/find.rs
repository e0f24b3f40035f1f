//! `mailtwin find`, `ls` and `cat`: what there was, without restoring it.

use super::deleted::{self, Deleted};
use super::error::{print, say, tell};
use super::standby::{Failure, Moment, Standby, run as running, shown, time_of};
use crate::maildir::entry::Time;
use crate::moment;
use crate::path::{TreePath, escape, unescape};
use crate::repository::gone::{Gone, Graves};
use crate::repository::layout::RepositoryError;
use crate::repository::record::{Record, What};
use crate::repository::view::View;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// Which messages are meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Filters {
    /// Whose From has this text in it
    #[arg(long, value_name = "TEXT")]
    pub from: Option<String>,

    /// Whose To has this text in it
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,

    /// Whose subject has this text in it
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,

    /// With this Message-ID
    #[arg(long, value_name = "ID")]
    pub message_id: Option<String>,

    /// Dated at this time or later
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Dated before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// In this mailbox: a directory of the set, or user@domain where the set has domain/user
    #[arg(long, value_name = "MAILBOX")]
    pub mailbox: Option<OsString>,

    /// In this folder, as users name it: INBOX, Archive/2026
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<OsString>,
}

/// Filters that were understood.
#[derive(Debug, Default)]
pub struct Filter {
    from: Option<String>,
    recipient: Option<String>,
    subject: Option<String>,
    message_id: Option<String>,
    since: Option<Time>,
    until: Option<Time>,
    mailboxes: Option<Vec<Vec<u8>>>,
    folder: Option<Vec<u8>>,
}

impl Filters {
    /// Understands what was typed.
    ///
    /// # Errors
    /// Where a time is none.
    pub fn compile(&self) -> Result<Filter, Failure> {
        let lower = |text: &Option<String>| text.as_ref().map(|text| text.to_lowercase());
        let time = |text: &Option<String>| text.as_deref().map(time_of).transpose();
        let id = self.message_id.as_ref().map(|id| id.trim_matches(['<', '>']).to_owned());
        Ok(Filter {
            from: lower(&self.from),
            recipient: lower(&self.recipient),
            subject: lower(&self.subject),
            message_id: id,
            since: time(&self.since)?,
            until: time(&self.until)?,
            mailboxes: self.mailbox.as_ref().map(|typed| mailboxes(typed.as_bytes())),
            folder: self.folder.as_ref().map(|typed| folder(typed.as_bytes())),
        })
    }
}

/// The directories that a mailbox's name may mean.
fn mailboxes(typed: &[u8]) -> Vec<Vec<u8>> {
    let typed = typed.strip_suffix(b"/").unwrap_or(typed);
    let mut names = vec![typed.to_vec()];
    if let Some(at) = typed.iter().rposition(|&byte| byte == b'@') {
        names.push([&typed[at + 1..], b"/", &typed[..at]].concat());
    }
    names.extend(unescape(typed).filter(|bytes| bytes != typed));
    names
}

/// The name of a folder's directory in its mailbox; empty for the inbox.
pub(super) fn folder(typed: &[u8]) -> Vec<u8> {
    if typed.eq_ignore_ascii_case(b"inbox") || typed.is_empty() {
        return Vec::new();
    }
    let name: Vec<u8> = typed.iter().map(|&byte| if byte == b'/' { b'.' } else { byte }).collect();
    if name.starts_with(b".") { name } else { [b".", name.as_slice()].concat() }
}

impl Filter {
    /// Whether only some of the messages of a folder are meant.
    pub(super) fn picks_messages(&self) -> bool {
        self.from.is_some()
            || self.recipient.is_some()
            || self.subject.is_some()
            || self.message_id.is_some()
            || self.since.is_some()
            || self.until.is_some()
    }

    /// Whether a record is meant. Where messages are picked, nothing but messages is; else all that is in the place.
    pub fn wants(&self, record: &Record) -> bool {
        self.is_in_place(&record.path) && (!self.picks_messages() || self.wants_message(record))
    }

    fn is_in_place(&self, path: &TreePath) -> bool {
        let components: Vec<&[u8]> = path.components().collect();
        if let Some(names) = &self.mailboxes {
            let is_beneath = |name: &Vec<u8>| {
                let wanted: Vec<&[u8]> = name.split(|&byte| byte == b'/').collect();
                components.len() >= wanted.len() && components[..wanted.len()] == wanted[..]
            };
            if !names.iter().any(is_beneath) {
                return false;
            }
        }
        match &self.folder {
            None => true,
            Some(name) => folder_of(&components) == Some(name.as_slice()),
        }
    }

    fn wants_message(&self, record: &Record) -> bool {
        let Some((_, What::File { envelope: Some(envelope), .. })) = &record.state else { return false };
        let has = |wanted: &Option<String>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| text.to_lowercase().contains(wanted.as_str()))
        };
        let date = envelope.date.unwrap_or_default();
        has(&self.from, &envelope.from)
            && has(&self.recipient, &envelope.to)
            && has(&self.subject, &envelope.subject)
            && self.message_id.as_ref().is_none_or(|id| *id == envelope.message_id)
            && self.since.is_none_or(|since| date >= since.seconds)
            && self.until.is_none_or(|until| date < until.seconds)
    }
}

/// The folder that a path lies in: the directory above its `cur` or `new` where that is a Maildir++ folder's, else the
/// inbox; `None` for what lies in no folder.
fn folder_of<'a>(components: &[&'a [u8]]) -> Option<&'a [u8]> {
    let is_folder = |name: &&[u8]| name.starts_with(b".");
    match components.iter().position(|name| crate::maildir::folder::is_part(name)) {
        Some(part) => Some(components[..part].last().copied().filter(is_folder).unwrap_or_default()),
        None => components.iter().rev().copied().find(is_folder),
    }
}

/// Options of `find`.
#[derive(Debug, clap::Args)]
pub struct Find {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// When
    #[command(flatten)]
    pub moment: Moment,

    /// What is gone
    #[command(flatten)]
    pub deleted: Deleted,

    /// What
    #[command(flatten)]
    pub filters: Filters,

    /// As --recipient
    #[arg(long, value_name = "TEXT", conflicts_with = "recipient")]
    pub to: Option<String>,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of `ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// When
    #[command(flatten)]
    pub moment: Moment,

    /// What to list [default: the whole set's top]
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of `cat`.
#[derive(Debug, clap::Args)]
pub struct Cat {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// The message: its path in the set, or its Message-ID
    #[arg(value_name = "MESSAGE")]
    pub message: OsString,

    /// When
    #[command(flatten)]
    pub moment: Moment,
}

/// Lists messages and gives the exit code.
pub fn find(arguments: &Find) -> u8 {
    running(|| {
        let mut filters = arguments.filters.clone();
        filters.recipient = filters.recipient.or_else(|| arguments.to.clone());
        let filter = filters.compile()?;
        let repository = arguments.standby.open()?;
        let root = TreePath::root();
        if let Some(Gone { view, graves, .. }) = arguments.deleted.find(&repository)? {
            let is_meant = |record: &Record| graves.went(&record.path).is_some() && filter.wants(record);
            return list(&view, &root, arguments.json, is_meant, Some(&graves));
        }
        let view = View::open(&repository, &arguments.moment.parse()?)?;
        let is_message = |record: &Record| matches!(&record.state, Some((_, What::File { envelope: Some(_), .. })));
        list(&view, &root, arguments.json, |record| is_message(record) && filter.wants(record), None)
    })
}

/// Lists a directory and gives the exit code.
pub fn ls(arguments: &Ls) -> u8 {
    running(|| {
        let typed = arguments.path.as_ref().map_or(&b""[..], |typed| typed.as_bytes());
        let typed = typed.strip_suffix(b"/").unwrap_or(typed);
        let paths = paths_of(typed);
        if paths.is_empty() {
            TreePath::new(typed).map_err(|error| Failure(error.to_string(), 2))?;
        }
        let shown = escape(paths.first().map_or(typed, TreePath::as_bytes));
        let repository = arguments.standby.open()?;
        let view = View::open(&repository, &arguments.moment.parse()?)?;
        let Some(Record { path, state }) = first_there(&view, paths)? else {
            return Err(Failure(format!("{shown} was not there at that moment"), 1));
        };
        let is_directory = matches!(state, Some((_, What::Directory)));
        let is_meant = |record: &Record| match is_directory {
            true => record.path != path && record.path.parent() == path,
            false => record.path == path,
        };
        list(&view, &path, arguments.json, is_meant, None)
    })
}

/// Lists what is wanted of a view; with `graves`, when each went.
fn list(
    view: &View,
    beneath: &TreePath,
    as_json: bool,
    wanted: impl Fn(&Record) -> bool,
    graves: Option<&Graves>,
) -> Result<u8, Failure> {
    let mut objects = Vec::new();
    let mut damaged = false;
    for record in view.beneath(beneath) {
        match record {
            Ok(record) if wanted(&record) => {
                let went = graves.and_then(|graves| graves.went(&record.path));
                if as_json {
                    let mut object = json(&record);
                    went.iter().for_each(|went| deleted::add(&mut object, went));
                    objects.push(object);
                } else {
                    let when = went.map_or_else(String::new, |went| format!("{}  ", deleted::line(went)));
                    print(&format!("{when}{}", line(&record)));
                }
            }
            Ok(_) => {}
            Err(error) => {
                say(&error.to_string());
                damaged = true;
            }
        }
    }
    if as_json {
        print(&serde_json::Value::from(objects).to_string());
    }
    for problem in &view.problems {
        say(problem);
    }
    Ok(if damaged || !view.problems.is_empty() { 23 } else { 0 })
}

fn line(record: &Record) -> String {
    let path = escape(record.path.as_bytes());
    match &record.state {
        Some((_, What::File { envelope: Some(envelope), size, .. })) => {
            let date = envelope.date.map_or_else(String::new, |seconds| shown(Time { seconds, nanos: 0 }));
            let text = |text: &str| escape(text.as_bytes());
            format!("{date:<19}  {size:>9}  {}  {}  {path}", text(&envelope.from), text(&envelope.subject))
        }
        Some((_, What::File { size, .. })) => format!("{size:>9}  {path}"),
        Some((_, What::Directory)) => format!("{:>9}  {path}/", "-"),
        Some((_, What::Symlink(target))) => format!("{:>9}  {path} -> {}", "-", escape(target)),
        None => path,
    }
}

fn json(record: &Record) -> serde_json::Value {
    let path = escape(record.path.as_bytes());
    match &record.state {
        Some((meta, What::File { size, envelope, .. })) => {
            let mut object = serde_json::json!({
                "path": path, "kind": "file", "size": size, "modified": meta.mtime.map(moment::rfc3339),
            });
            if let Some(envelope) = envelope {
                object["kind"] = "message".into();
                object["message_id"] = envelope.message_id.clone().into();
                object["from"] = envelope.from.clone().into();
                object["to"] = envelope.to.clone().into();
                object["subject"] = envelope.subject.clone().into();
                object["date"] = envelope.date.map(|seconds| moment::rfc3339(Time { seconds, nanos: 0 })).into();
            }
            object
        }
        Some((_, What::Symlink(target))) => {
            serde_json::json!({ "path": path, "kind": "symlink", "target": escape(target) })
        }
        Some((_, What::Directory)) => serde_json::json!({ "path": path, "kind": "directory" }),
        None => serde_json::json!({ "path": path, "kind": "gone" }),
    }
}

/// Writes a message to standard output and gives the exit code.
pub fn cat(arguments: &Cat) -> u8 {
    running(|| {
        let repository = arguments.standby.open()?;
        let view = View::open(&repository, &arguments.moment.parse()?)?;
        let record = meant(&view, arguments.message.as_bytes())?;
        let Some((_, What::File { place, .. })) = &record.state else {
            return Err(Failure(format!("{} is not a file", escape(record.path.as_bytes())), 1));
        };
        if view.is_patched(&record.path) {
            let (bytes, _) = view.patch(&record).map_err(RepositoryError::from)?;
            return Ok(written(std::io::stdout().lock().write_all(&bytes)));
        }
        let place = place.ok_or(crate::repository::contents::ContentError::Nowhere).map_err(RepositoryError::from)?;
        // Nothing is written of what does not come whole: its digest is known at its end.
        let (bytes, _) = view.contents.bytes(place).map_err(RepositoryError::from)?;
        Ok(written(std::io::stdout().lock().write_all(&bytes)))
    })
}

fn written(result: std::io::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => tell(&format!("cannot write to standard output: {error}"), 1),
    }
}

/// The paths that may be meant: what is printed so, and then what has these very bytes.
fn paths_of(typed: &[u8]) -> Vec<TreePath> {
    let as_printed = unescape(typed).filter(|bytes| bytes != typed);
    let both = as_printed.into_iter().chain([typed.to_vec()]);
    both.filter_map(|bytes| TreePath::new(&bytes).ok()).collect()
}

/// The first of these paths at which something was.
fn first_there(view: &View, paths: Vec<TreePath>) -> Result<Option<Record>, Failure> {
    for path in paths {
        if let Some(state) = view.get(&path)? {
            return Ok(Some(Record { path, state: Some(state) }));
        }
    }
    Ok(None)
}

/// The file that a path or a Message-ID means.
fn meant(view: &View, typed: &[u8]) -> Result<Record, Failure> {
    if let Some(record) = first_there(view, paths_of(typed))? {
        return Ok(record);
    }
    let id = String::from_utf8_lossy(typed);
    let id = id.trim_matches(['<', '>']);
    for record in view.beneath(&TreePath::root()) {
        let record = record?;
        let is_meant = matches!(&record.state, Some((_, What::File { envelope: Some(envelope), .. })) if envelope.message_id == id);
        if is_meant {
            return Ok(record);
        }
    }
    Err(Failure(format!("{} was not there at that moment, neither as a path nor as a Message-ID", escape(typed)), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_the_folder_above_its_cur() {
        let cases: [(&str, Option<&str>); 7] = [
            ("cur/1.x", Some("")),
            (".Work/new/1.x", Some(".Work")),
            ("example.org/anna/Maildir/cur/1.x", Some("")),
            ("example.org/anna/.A.B/cur", Some(".A.B")),
            ("example.org/anna/.A.B/dovecot-uidlist", Some(".A.B")),
            ("example.org/anna/.A.B", Some(".A.B")),
            ("example.org/anna/dovecot-uidlist", None),
        ];
        for (path, wanted) in cases {
            let components: Vec<&[u8]> = path.as_bytes().split(|&byte| byte == b'/').collect();
            assert_eq!(folder_of(&components), wanted.map(str::as_bytes), "{path}");
        }
        assert_eq!(folder(b"Archive/2026"), b".Archive.2026");
        assert_eq!(folder(b"inbox"), b"");
        assert_eq!(mailboxes(b"anna@example.org"), [b"anna@example.org".to_vec(), b"example.org/anna".to_vec()]);
    }
}
