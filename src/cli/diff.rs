//! `mailtwin diff`: what changed between two moments.

use super::error::{print, say};
use super::standby::{Failure, Standby, label_of, run as running, time_of};
use crate::path::{TreePath, escape};
use crate::repository::difference::{self, Changed};
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
