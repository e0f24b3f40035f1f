//! `mailtwin restore`: a set, or part of one, as it was.

use super::deleted::Deleted;
use super::error::{print, say, tell};
use super::find::Filters;
use super::link::Way;
use super::standby::{Failure, Moment, Standby, bytes, run as running};
use super::terminal::{Shown, Terminal};
use crate::backup;
use crate::config::{Link, Place, UsageError};
use crate::disk::now;
use crate::node::way::Far;
use crate::path::Name;
use crate::repository::gone::{Gone, Graves};
use crate::repository::label::PointKind;
use crate::repository::record::Record;
use crate::repository::view::{At, View};
use crate::restore::in_place::{self, Flags, Mode, Order};
use crate::restore::{self, Report, RestoreError, Wanted, remote};
use crate::sync::SyncError;
use crate::wire::message::Refusal;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

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

    /// Restore into this empty directory: a path, or [user@]host:path
    #[arg(long, value_name = "DIR", required_unless_present_any = ["in_place", "into"])]
    pub to: Option<OsString>,

    /// Add what is gone from STANDBY, or from this tree of the same set, and touch nothing that is there
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with = "to")]
    pub in_place: Option<Option<OsString>>,

    /// File messages into this folder of their mailbox, which their users find subscribed; with --in-place
    #[arg(long, value_name = "FOLDER", conflicts_with = "to")]
    pub into: Option<OsString>,

    /// With --in-place: add what is gone (missing); also give back the content of what changed (changed); also remove what was not
    /// there (mirror), after what is there has been kept as a restore point
    #[arg(long, value_enum, value_name = "MODE", default_value = "missing", conflicts_with = "to")]
    pub mode: ModeName,

    /// With --in-place, flags of messages that are there: as they are (keep), as they were (point), or both (union) [default: keep;
    /// with --mode mirror: point]
    #[arg(long, value_enum, value_name = "FLAGS", conflicts_with_all = ["to", "into"])]
    pub flags: Option<FlagsName>,

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
        let (view, graves) = match arguments.deleted.find(&repository)? {
            Some(Gone { view, graves, .. }) => (view, Some(graves)),
            None => (View::open(&repository, &at)?, None),
        };
        let is_meant = |record: &Record| graves.as_ref().is_none_or(|graves| graves.has(record));
        let wanted = |record: &Record| is_meant(record) && filter.wants(record);
        let which = what(arguments, &view, graves.as_ref());
        let failed = |error: RestoreError| Failure(error.to_string(), error.exit_code());
        let standby = Path::new(&arguments.standby.standby);
        let report = match (&to, &arguments.in_place) {
            (Some(_), _) if arguments.dry_run => restore::plan(&view, &wanted)?,
            (Some((Place::Here(to), _)), _) => {
                restore::to_directory(&view, &which, &wanted, standby, to).map_err(failed)?
            }
            (Some((Place::There { host, path }, link)), _) => {
                let request = remote::Request {
                    destination: path,
                    what: &which,
                    standby,
                    level: link.level,
                    counts: arguments.shows_progress(),
                };
                there(arguments, &view, &wanted, &request, host, link).map_err(failed)?
            }
            (Some((Place::Paired { .. }, _)), _) => {
                return Err(Failure("--to names a directory, here or on a host that ssh reaches".to_owned(), 2));
            }
            (None, target) => {
                let target = target.as_ref().and_then(Option::as_ref).unwrap_or(&arguments.standby.standby);
                let order = order(arguments)?;
                let kept = keep_what_is_there(arguments, &order, &filter, target)?;
                let order = Order { kept: kept.as_ref(), ..order };
                in_place::restore(&view, &wanted, Path::new(target), &order).map_err(failed)?
            }
        };
        Ok(conclude(arguments, &view, &report))
    })
}

/// What `--mode` is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeName {
    /// What is gone comes back
    Missing,
    /// And what changed is as it was
    Changed,
    /// And what was not there goes
    Mirror,
}

/// What `--flags` is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FlagsName {
    /// As they are
    Keep,
    /// As they were
    Point,
    /// Both
    Union,
}

fn order(arguments: &Arguments) -> Result<Order<'static>, Failure> {
    let mode = match arguments.mode {
        ModeName::Missing => Mode::Missing,
        ModeName::Changed => Mode::Changed,
        ModeName::Mirror => Mode::Mirror,
    };
    let flags = match (arguments.flags, mode) {
        (Some(FlagsName::Point), _) | (None, Mode::Mirror) => Flags::Point,
        (Some(FlagsName::Union), _) => Flags::Union,
        (Some(FlagsName::Keep) | None, _) => Flags::Keep,
    };
    let into = arguments.into.as_deref().map(folder).transpose()?;
    if into.is_some() && mode != Mode::Missing {
        return Err(Failure("--into files what was there into a folder of its own: it has no --mode".to_owned(), 2));
    }
    Ok(Order { mode, flags, into, dry_run: arguments.dry_run, kept: None })
}

/// Before anything is removed all that is there becomes a restore point; gives what is in it.
fn keep_what_is_there(
    arguments: &Arguments,
    order: &Order<'_>,
    filter: &super::find::Filter,
    target: &OsStr,
) -> Result<Option<View>, Failure> {
    if order.mode != Mode::Mirror {
        return Ok(None);
    }
    if filter.picks_messages() {
        let sentence =
            "--mode mirror makes folders, mailboxes or everything as they were: leave out what picks messages";
        return Err(Failure(sentence.to_owned(), 2));
    }
    if target != arguments.standby.standby {
        let sentence = "--mode mirror removes what was not there, and can keep that as a restore point on the standby alone: \
                        use --in-place without a directory, or restore into an empty one with --to";
        return Err(Failure(sentence.to_owned(), 2));
    }
    if order.dry_run {
        return Ok(None);
    }
    let request = backup::Request {
        standby: target.into(),
        state: arguments.standby.state.as_ref().map(Into::into),
        kind: Some(PointKind::Differential),
        fresh: false,
        full_every: Duration::MAX,
        note: "what was there before a restore with --mode mirror".to_owned(),
        now: now(),
    };
    let report = backup::of_the_mirror(&request).map_err(|error| Failure(error.to_string(), error.exit_code()))?;
    say(&format!("what is there is kept as the restore point {}", report.label));
    match report.problems.first() {
        Some(problem) => {
            Err(Failure(format!("{problem}: what is there could not be kept whole; nothing was restored"), 1))
        }
        None => Ok(Some(View::open(&arguments.standby.open()?, &At::Point(report.label))?)),
    }
}

/// Where to, and how that is reached.
fn place(typed: &OsStr, link: &Way) -> Result<(Place, Link), Failure> {
    let failed = |error: UsageError| Failure(error.sentence, error.code);
    let place = Place::parse(typed).map_err(failed)?;
    let link = Link::new(&link.typed(), &place).map_err(failed)?;
    Ok((place, link))
}

/// What tells one restore from another, for one that is gone on with: where two views are the same, so are these.
fn what(arguments: &Arguments, view: &View, graves: Option<&Graves>) -> String {
    let moment = arguments.moment.at.as_ref().map(|_| view.moment);
    let which = graves.map_or_else(String::new, |graves| format!(" {:?}", graves.identity()));
    format!("{} {} {} {moment:?} {:?}{which}", view.set, view.position, view.reached, arguments.filters)
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
            "merged": report.merged,
            "skipped": report.skipped,
            "replaced": report.replaced,
            "removed": report.removed,
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
        let Report { merged, replaced, removed, failed, .. } = report;
        let other = [(merged, "given other flags"), (replaced, "replaced"), (removed, "removed")];
        let other: String =
            other.iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!(", {count} {what}")).collect();
        print(&format!("{counts}{other}, {failed} failed"));
    }
    for problem in &view.problems {
        say(problem);
    }
    match report.failed > 0 || !view.problems.is_empty() {
        true => tell("done, but for what is named above; the rest is whole", 23),
        false => 0,
    }
}
