//! `mailtwin points`: the restore points there are; `pin`, `unpin` and `note` say something of one.

use super::error::{print, say};
use super::standby::{Failure, Standby, bytes, label_of, run as running, shown};
use crate::moment;
use crate::path::escape;
use crate::repository::label::PointKind;
use crate::repository::layout::{Drilled, Point, Repository};

/// Options of `points`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of `pin` and `unpin`.
#[derive(Debug, clap::Args)]
pub struct Pin {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// The point's label
    #[arg(value_name = "LABEL")]
    pub label: String,
}

/// Options of `note`.
#[derive(Debug, clap::Args)]
pub struct Note {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// The point's label
    #[arg(value_name = "LABEL")]
    pub label: String,

    /// The words; none takes them away
    #[arg(value_name = "TEXT", default_value = "")]
    pub text: String,
}

/// Lists the points and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        let repository = arguments.standby.open()?;
        let (points, wrong) = repository.points()?;
        match arguments.json {
            true => print(&serde_json::Value::from_iter(points.iter().map(json)).to_string()),
            false => points.iter().for_each(|point| print(&line(point))),
        }
        for error in &wrong {
            say(&error.to_string());
        }
        Ok(if wrong.is_empty() { 0 } else { 23 })
    })
}

fn line(point: &Point) -> String {
    let kind = match point.label.kind() {
        PointKind::Full => "full",
        PointKind::Differential => "diff",
    };
    let pinned = if point.about.pinned { ", pinned" } else { "" };
    let verified = point.about.verified.map_or_else(String::new, |time| format!(", verified {}", shown(time)));
    let note =
        if point.about.note.is_empty() { String::new() } else { format!("  {}", escape(point.about.note.as_bytes())) };
    format!(
        "{:<33}  {kind}  {}  {} messages, {}, {} on disk{verified}{pinned}{note}",
        point.label.to_string(),
        shown(point.header.moment),
        point.header.messages,
        bytes(point.header.bytes),
        bytes(point.bytes_on_disk),
    )
}

fn json(point: &Point) -> serde_json::Value {
    serde_json::json!({
        "label": point.label.to_string(),
        "kind": point.label.kind().to_string(),
        "moment": moment::rfc3339(point.header.moment),
        "position": point.header.position.to_string(),
        "messages": point.header.messages,
        "files": point.header.files,
        "bytes": point.header.bytes,
        "bytes_on_disk": point.bytes_on_disk,
        "bytes_of_its_own": point.own_bytes,
        "verified": point.about.verified.map(moment::rfc3339),
        "verified_how": point.about.verified_how,
        "pinned": point.about.pinned,
        "note": point.about.note,
        "drilled": point.about.drilled.as_ref().map(drilled),
    })
}

/// What is remembered of a drill, for programs.
fn drilled(drilled: &Drilled) -> serde_json::Value {
    serde_json::json!({
        "when": moment::rfc3339(drilled.when),
        "moment": moment::rfc3339(drilled.moment),
        "mailboxes": drilled.mailboxes,
        "messages": drilled.messages,
        "bytes": drilled.bytes,
        "seconds": drilled.milliseconds as f64 / 1000.0,
        "result": result(drilled.is_whole),
    })
}

/// The word for how a drill went.
pub(super) fn result(is_whole: bool) -> &'static str {
    if is_whole { "whole" } else { "differs" }
}

/// Pins a point, or takes the pin out; gives the exit code.
pub fn pin(arguments: &Pin, pinned: bool) -> u8 {
    say_of(&arguments.standby, &arguments.label, |about| about.pinned = pinned)
}

/// Notes something of a point; gives the exit code.
pub fn note(arguments: &Note) -> u8 {
    say_of(&arguments.standby, &arguments.label, |about| about.note.clone_from(&arguments.text))
}

fn say_of(standby: &Standby, label: &str, change: impl FnOnce(&mut crate::repository::layout::About)) -> u8 {
    running(|| {
        let label = label_of(label)?;
        let repository = standby.open()?;
        let _lock = locked(&repository)?;
        repository.manifest(&label)?;
        let mut about = repository.about(&label)?;
        change(&mut about);
        repository.set_about(&label, &about)?;
        Ok(0)
    })
}

/// Takes the lock that those hold who change points.
///
/// # Errors
/// Where another command holds it.
pub fn locked(repository: &Repository) -> Result<crate::disk::Writer, Failure> {
    repository.lock()?.ok_or_else(busy)
}

/// Another command holds the lock.
pub fn busy() -> Failure {
    Failure("another command is changing the restore points: wait until it has ended".to_owned(), 10)
}
