//! `mailtwin restore`: a set, or part of one, as it was.

use super::deleted::Deleted;
use super::error::{print, say, tell};
use super::find::Filters;
use super::standby::{Failure, Moment, Standby, bytes, run as running};
use crate::path::Name;
use crate::repository::gone::Gone;
use crate::repository::record::Record;
use crate::repository::view::View;
use crate::restore::{self, Report, RestoreError};
use std::ffi::{OsStr, OsString};
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

    /// What is gone
    #[command(flatten)]
    pub deleted: Deleted,

    /// What
    #[command(flatten)]
    pub filters: Filters,

    /// Restore into this empty directory
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

    /// Print one object on standard output at the end
    #[arg(long)]
    pub json: bool,
}

/// Restores, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        let at = arguments.moment.parse()?;
        let filter = arguments.filters.compile()?;
        let repository = arguments.standby.open()?;
        let (view, graves) = match arguments.deleted.find(&repository)? {
            Some(Gone { view, graves, .. }) => (view, Some(graves)),
            None => (View::open(&repository, &at)?, None),
        };
        let is_meant = |record: &Record| graves.as_ref().is_none_or(|graves| graves.has(record));
        let wanted = |record: &Record| is_meant(record) && filter.wants(record);
        let failed = |error: RestoreError| Failure(error.to_string(), error.exit_code());
        let report = match (&arguments.to, &arguments.in_place) {
            (Some(_), _) if arguments.dry_run => restore::plan(&view, &wanted)?,
            (Some(to), _) => {
                let which = graves.as_ref().map_or_else(String::new, |graves| format!(" {:?}", graves.identity()));
                let what = format!("{} {:?}{which}", view.position, arguments.filters);
                let standby = Path::new(&arguments.standby.standby);
                restore::to_directory(&view, &what, &wanted, standby, Path::new(to)).map_err(failed)?
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
