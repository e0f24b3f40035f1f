//! `mailtwin diff`: what changed between two moments. `mailtwin timeline`: where a message was, point by point.

use super::error::{print, say};
use super::standby::{Failure, Standby, label_of, run as running, shown, time_of};
use crate::moment;
use crate::path::{TreePath, escape};
use crate::repository::difference::{self, Changed};
use crate::repository::layout::Repository;
use crate::repository::record::What;
use crate::repository::view::{At, View};

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// A restore point's label, or a time
    #[arg(value_name = "A")]
    pub before: String,

    /// A later one [default: the newest state]
    #[arg(value_name = "B")]
    pub after: Option<String>,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of `timeline`.
#[derive(Debug, clap::Args)]
pub struct Timeline {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// The message's Message-ID
    #[arg(value_name = "MESSAGE-ID")]
    pub message_id: String,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// Compares, and gives the exit code.
pub fn diff(arguments: &Diff) -> u8 {
    running(|| {
        let (before, after) = (at(&arguments.before)?, arguments.after.as_deref().map_or(Ok(At::Newest), at)?);
        let repository = arguments.standby.open()?;
        let (before, after) = (View::open(&repository, &before)?, View::open(&repository, &after)?);
        let (changed, problems) = difference::between(&before, &after)?;
        match arguments.json {
            true => {
                let objects = changed.iter().map(|(path, changed)| json(path, changed));
                print(&serde_json::Value::from_iter(objects).to_string());
            }
            false => changed.iter().for_each(|(path, changed)| print(&line(path, changed))),
        }
        let problems: Vec<&String> = problems.iter().chain(&before.problems).chain(&after.problems).collect();
        problems.iter().for_each(|problem| say(problem));
        Ok(if problems.is_empty() { 0 } else { 23 })
    })
}

/// A label or a time that was typed.
fn at(typed: &str) -> Result<At, Failure> {
    let is_label =
        typed.contains(['F', 'D']) && typed.len() >= 16 && typed.as_bytes().first().is_some_and(u8::is_ascii_digit);
    if is_label { label_of(typed).map(At::Point) } else { time_of(typed).map(At::Moment) }
}

fn line(path: &TreePath, changed: &Changed) -> String {
    let counts = [
        (changed.messages_added, "messages added"),
        (changed.messages_removed, "messages removed"),
        (changed.messages_flagged, "messages with other flags"),
        (changed.files_added, "files added"),
        (changed.files_removed, "files removed"),
        (changed.files_changed, "files changed"),
    ];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("{path}: {}", counts.join(", "))
}

fn json(path: &TreePath, changed: &Changed) -> serde_json::Value {
    serde_json::json!({
        "folder": escape(path.as_bytes()),
        "messages_added": changed.messages_added,
        "messages_removed": changed.messages_removed,
        "messages_flagged": changed.messages_flagged,
        "files_added": changed.files_added,
        "files_removed": changed.files_removed,
        "files_changed": changed.files_changed,
    })
}

/// Tells where a message was, and gives the exit code.
pub fn timeline(arguments: &Timeline) -> u8 {
    running(|| {
        let repository = arguments.standby.open()?;
        let id = arguments.message_id.trim_matches(['<', '>']);
        let mut rows: Vec<Row> = Vec::new();
        for label in repository.labels()? {
            rows.push(row(&repository, &At::Point(label), label.to_string(), id)?);
        }
        if !rows.is_empty() {
            rows.push(row(&repository, &At::Newest, "now".to_owned(), id)?);
        }
        if rows.iter().all(|row| row.paths.is_empty()) {
            return Err(Failure(
                format!("no restore point has a message with the Message-ID {}", escape(id.as_bytes())),
                1,
            ));
        }
        match arguments.json {
            true => print(&serde_json::Value::from_iter(rows.iter().map(Row::json)).to_string()),
            false => rows.iter().for_each(|row| row.print()),
        }
        Ok(0)
    })
}

/// Where a message was at one moment.
struct Row {
    label: String,
    moment: crate::maildir::entry::Time,
    paths: Vec<String>,
}

fn row(repository: &Repository, at: &At, label: String, id: &str) -> Result<Row, Failure> {
    let view = View::open(repository, at)?;
    let mut paths = Vec::new();
    for record in view.beneath(&TreePath::root()) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                say(&error.to_string());
                continue;
            }
        };
        let is_meant = matches!(&record.state, Some((_, What::File { envelope: Some(envelope), .. })) if envelope.message_id == id);
        if is_meant {
            paths.push(escape(record.path.as_bytes()));
        }
    }
    Ok(Row { label, moment: view.moment, paths })
}

impl Row {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "point": self.label, "moment": moment::rfc3339(self.moment), "paths": self.paths })
    }

    fn print(&self) {
        let paths = if self.paths.is_empty() { "not there".to_owned() } else { self.paths.join("\n    ") };
        print(&format!("{}  {}\n    {paths}", shown(self.moment), self.label));
    }
}
