//! `mailtwin restore`: a set, or part of one, as it was.

use super::error::{print, say, tell};
use super::find::Filters;
use super::link::{Far, Way};
use super::standby::{Failure, Moment, Standby, bytes, run as running};
use super::terminal::{Shown, Terminal};
use crate::config::{Link, Place, UsageError};
use crate::path::Name;
use crate::repository::record::Record;
use crate::repository::view::View;
use crate::restore::{self, Report, RestoreError, Wanted, remote};
use crate::sync::SyncError;
use crate::wire::message::Refusal;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Options of `restore`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// When
    #[command(flatten)]
    pub moment: Moment,

    /// What
    #[command(flatten)]
    pub filters: Filters,

    /// Restore into this empty directory: a path, or [user@]host:path
    #[arg(long, value_name = "DIR", required_unless_present_any = ["in_place", "into"])]
    pub to: Option<OsString>,

    /// Add what is gone from STANDBY, or from this tree of the same set, and touch nothing that is there
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with = "to")]
    pub in_place: Option<Option<OsString>>,

    /// File messages into this folder of their mailbox, which their users find subscribed; with --in-place
    #[arg(long, value_name = "FOLDER", conflicts_with = "to")]
    pub into: Option<OsString>,

    /// Count what would be restored, and write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// How another host is reached
    #[command(flatten)]
    pub link: Way,

    /// Print one object on standard output at the end
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    fn shows_progress(&self) -> bool {
        self.link.shows_progress(std::io::stderr().is_terminal())
    }
}

/// Restores, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        let at = arguments.moment.parse()?;
        let filter = arguments.filters.compile()?;
        let to = arguments.to.as_deref().map(|to| place(to, &arguments.link)).transpose()?;
        let repository = arguments.standby.open()?;
        let view = View::open(&repository, &at)?;
        let wanted = |record: &Record| filter.wants(record);
        let failed = |error: RestoreError| Failure(error.to_string(), error.exit_code());
        let standby = Path::new(&arguments.standby.standby);
        let report = match (&to, &arguments.in_place) {
            (Some(_), _) if arguments.dry_run => restore::plan(&view, &wanted)?,
            (Some((Place::Here(to), _)), _) => {
                restore::to_directory(&view, &what(arguments, &view), &wanted, standby, to).map_err(failed)?
            }
            (Some((Place::There { host, path }, link)), _) => {
                let request = remote::Request {
                    destination: path,
                    what: &what(arguments, &view),
                    standby,
                    level: link.level,
                    counts: arguments.shows_progress(),
                };
                there(arguments, &view, &wanted, &request, host, link).map_err(failed)?
            }
            (None, target) => {
                let target = target.as_ref().and_then(Option::as_ref).unwrap_or(&arguments.standby.standby);
                let into = arguments.into.as_deref().map(folder).transpose()?;
                restore::in_place::missing(&view, &wanted, Path::new(target), into.as_ref(), arguments.dry_run)
                    .map_err(failed)?
            }
        };
        Ok(conclude(arguments, &view, &report))
    })
}

/// Where to, and how that is reached.
fn place(typed: &OsStr, link: &Way) -> Result<(Place, Link), Failure> {
    let failed = |error: UsageError| Failure(error.sentence, error.code);
    let place = Place::parse(typed).map_err(failed)?;
    let link = Link::new(&link.typed(), &place).map_err(failed)?;
    Ok((place, link))
}

/// What tells one restore from another, for one that is gone on with: where two views are the same, so are these.
fn what(arguments: &Arguments, view: &View) -> String {
    let moment = arguments.moment.at.as_ref().map(|_| view.moment);
    format!("{} {} {} {moment:?} {:?}", view.set, view.position, view.reached, arguments.filters)
}

/// The far end is a program on another host.
fn there(
    arguments: &Arguments,
    view: &View,
    wanted: Wanted<'_>,
    request: &remote::Request<'_>,
    host: &str,
    link: &Link,
) -> Result<Report, RestoreError> {
    let progress = arguments.shows_progress();
    let terminal = Terminal::new(Shown { progress, json: arguments.json, ..Shown::default() });
    let mut far = Far::new(host, link);
    let ran = remote::to_host(view, request, wanted, &terminal, || far.connect());
    let ended = far.end();
    terminal.finish();
    ran.map_err(|error| match error {
        RestoreError::Sync(error) => RestoreError::Sync(match ended.explain(error) {
            SyncError::Refused(refusal) => {
                let sentence = format!("{host}: {}", refusal.sentence);
                SyncError::Refused(Refusal { sentence, ..refusal })
            }
            SyncError::Link(error) => SyncError::Failed(format!("{error}; the same command, given again, goes on")),
            other => other,
        }),
        other => other,
    })
}

/// The directory of a folder that a user would call by this name.
fn folder(typed: &OsStr) -> Result<Name, Failure> {
    let name = super::find::folder(typed.as_bytes());
    Name::new(&name).map_err(|_| Failure("--into: name a folder, such as Restored.2026-11-21".to_owned(), 2))
}

fn conclude(arguments: &Arguments, view: &View, report: &Report) -> u8 {
    for warning in &report.warnings {
        say(warning);
    }
    for problem in &report.problems {
        say(&match problem.subject.is_empty() {
            true => problem.reason.clone(),
            false => format!("{}: {}", problem.subject, problem.reason),
        });
    }
    if arguments.json {
        let object = serde_json::json!({
            "position": view.position.to_string(),
            "moment": crate::moment::rfc3339(view.moment),
            "created": report.created,
            "merged": 0,
            "skipped": report.skipped,
            "replaced": 0,
            "failed": report.failed,
            "bytes": report.bytes,
            "blocks_as_stored": report.travelled.blocks_as_stored,
            "blocks_repacked": report.travelled.blocks_repacked,
            "bytes_sent": report.travelled.bytes_sent,
            "bytes_received": report.travelled.bytes_received,
            "problems": report.problems,
        });
        print(&object.to_string());
    } else {
        let would = if arguments.dry_run { "would create" } else { "created" };
        let counts =
            format!("{would} {} files ({}), {} there already", report.created, bytes(report.bytes), report.skipped);
        print(&format!("{counts}, {} failed", report.failed));
    }
    for problem in &view.problems {
        say(problem);
    }
    match report.failed > 0 || !view.problems.is_empty() {
        true => tell("done, but for what is named above; the rest is whole", 23),
        false => 0,
    }
}
