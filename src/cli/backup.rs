//! `mailtwin backup`: a full, or a differential.

use super::error::{print, say, tell};
use super::standby::{Failure, Standby, bytes, run as running};
use crate::backup::{self, BackupError, Report, Request};
use crate::disk::now;
use crate::moment;
use crate::repository::label::PointKind;

/// Options of `backup`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// Make a full, which depends on nothing but itself
    #[arg(long, conflicts_with = "diff")]
    pub full: bool,

    /// Make a differential: what changed since the last full
    #[arg(long)]
    pub diff: bool,

    /// Make a full that reads everything from the mirror anew, as the first one does, and takes nothing from earlier points or the log
    #[arg(long, conflicts_with = "diff")]
    pub fresh: bool,

    /// With neither --full nor --diff: a full where the newest is older than this, else a differential
    #[arg(long, value_name = "AGE", default_value = "7d")]
    pub full_every: String,

    /// Words to go with it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,

    /// Print one object on standard output at the end
    #[arg(long)]
    pub json: bool,
}

/// Makes a point and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        let request = Request {
            standby: (&arguments.standby.standby).into(),
            state: arguments.standby.state.as_ref().map(Into::into),
            kind: match (arguments.full, arguments.diff) {
                (true, _) => Some(PointKind::Full),
                (_, true) => Some(PointKind::Differential),
                _ => None,
            },
            fresh: arguments.fresh,
            full_every: moment::duration(&arguments.full_every).map_err(|error| Failure(error.to_string(), 2))?,
            note: arguments.note.clone().unwrap_or_default(),
            now: now(),
        };
        Ok(conclude(arguments, &backup::run(&request).map_err(failure)?))
    })
}

fn failure(error: BackupError) -> Failure {
    let hint = if error.is_full() { ": the disk is full; mailtwin expire can run all the same" } else { "" };
    Failure(format!("{error}{hint}"), error.exit_code())
}

fn conclude(arguments: &Arguments, report: &Report) -> u8 {
    let header = &report.header;
    if arguments.json {
        let object = serde_json::json!({
            "label": report.label.to_string(),
            "kind": report.label.kind().to_string(),
            "moment": moment::rfc3339(header.moment),
            "position": header.position.to_string(),
            "messages": header.messages,
            "files": header.files,
            "bytes": header.bytes,
            "problems": report.problems,
        });
        print(&object.to_string());
    } else {
        let what = format!("{} messages, {}", header.messages, bytes(header.bytes));
        print(&format!("{}: {}, {what}, position {}", report.label, report.label.kind(), header.position));
    }
    report.problems.iter().chain(&report.warnings).for_each(|sentence| say(sentence));
    match report.problems.is_empty() {
        true => 0,
        false => tell("the point was made without what is named above", 23),
    }
}
