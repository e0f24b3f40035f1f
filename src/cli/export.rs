//! `mailtwin export`: what there was, for other programs.

use super::error::{print, say, tell};
use super::find::{Filter, Filters};
use super::standby::{Failure, Moment, Standby, bytes, run as running};
use crate::export::maildir::Plain;
use crate::export::mbox::Plan;
use crate::export::output::Destination;
use crate::export::{ExportError, Report, mbox, tar};
use crate::repository::record::Record;
use crate::repository::view::View;
use crate::restore::{self, RestoreError};
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Options of `export`.
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

    /// As what
    #[command(flatten)]
    pub form: Form,

    /// Replace a file that is there
    #[arg(long, conflicts_with = "maildir")]
    pub force: bool,

    /// Count what would be exported, and write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Print one object at the end; on standard error where the export goes to standard output
    #[arg(long)]
    pub json: bool,
}

/// The form of an export.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Form {
    /// A tar archive of everything as it was; - is standard output
    #[arg(long, value_name = "FILE")]
    pub tar: Option<OsString>,

    /// The messages as an mbox file, - for standard output; with a slash at the end a directory, one file for each folder
    #[arg(long, value_name = "FILE")]
    pub mbox: Option<OsString>,

    /// The messages as a plain Maildir, in this empty directory
    #[arg(long, value_name = "DIR")]
    pub maildir: Option<OsString>,
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self(error.to_string(), error.exit_code())
    }
}

/// What is counted, and what it is called.
struct Done {
    report: Report,
    what: &'static str,
    warnings: Vec<String>,
}

impl Done {
    fn of(what: &'static str, report: Report) -> Self {
        Self { report, what, warnings: Vec::new() }
    }
}

/// Exports, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        let at = arguments.moment.parse()?;
        let filter = arguments.filters.compile()?;
        if arguments.streams() && std::io::stdout().is_terminal() {
            let sentence = "standard output is a terminal: send it to a program or a file, or name a file instead of -";
            return Err(Failure(sentence.to_owned(), 2));
        }
        let repository = arguments.standby.open()?;
        let view = View::open(&repository, &at)?;
        let wanted = |record: &Record| filter.wants(record);
        let done = match &arguments.form {
            Form { tar: Some(path), .. } => Done::of("files", arguments.tar(&view, &wanted, path)?),
            Form { mbox: Some(path), .. } => Done::of("messages", arguments.mbox(&view, &filter, path)?),
            form => arguments.maildir(&view, &wanted, form.maildir.as_deref().unwrap_or_default())?,
        };
        Ok(arguments.conclude(&view, &done))
    })
}

fn is_stdout(path: &OsStr) -> bool {
    path == "-"
}

/// Whether a path means a directory.
fn is_directory(path: &OsStr) -> bool {
    path.as_bytes().ends_with(b"/") || Path::new(path).is_dir()
}

impl Arguments {
    /// Whether contents go to standard output.
    fn streams(&self) -> bool {
        let Form { tar, mbox, .. } = &self.form;
        !self.dry_run && [tar, mbox].into_iter().flatten().any(|path| is_stdout(path))
    }

    /// The file that is written, where it may be; `None` for standard output.
    fn destination(&self, path: &OsStr) -> Result<Option<Destination>, Failure> {
        let standby = Path::new(&self.standby.standby);
        let file = || Destination::new(standby, Path::new(path), self.force);
        Ok(if is_stdout(path) { None } else { Some(file()?) })
    }

    fn tar(&self, view: &View, wanted: &dyn Fn(&Record) -> bool, path: &OsStr) -> Result<Report, Failure> {
        let destination = self.destination(path)?;
        match self.dry_run {
            true => Ok(counted(restore::plan(view, wanted)?)),
            false => written(destination, &mut |output| tar::write(view, wanted, output)),
        }
    }

    fn mbox(&self, view: &View, filter: &Filter, path: &OsStr) -> Result<Report, Failure> {
        let wanted = |record: &Record| filter.wants(record);
        let plan = mbox::plan(view, &wanted)?;
        if !is_stdout(path) && is_directory(path) {
            let directory = Path::new(path);
            mbox::look(&plan, Path::new(&self.standby.standby), directory, self.force)?;
            return match self.dry_run {
                true => Ok(plan.report),
                false => Ok(mbox::write_each(view, &wanted, &plan, directory, self.force)?),
            };
        }
        one_folder(&plan, filter)?;
        let destination = self.destination(path)?;
        match self.dry_run {
            true => Ok(plan.report),
            false => written(destination, &mut |output| mbox::write(view, &wanted, &plan, output)),
        }
    }

    fn maildir(&self, view: &View, wanted: &dyn Fn(&Record) -> bool, path: &OsStr) -> Result<Done, Failure> {
        let plain = Plain::of(view, wanted);
        let wanted = |record: &Record| plain.has(record, wanted);
        let failed = |error: RestoreError| Failure(error.to_string(), error.exit_code());
        let report = match self.dry_run {
            true => restore::plan(view, &wanted)?,
            false => {
                let what = format!("{} maildir {:?}", view.position, self.filters);
                let standby = Path::new(&self.standby.standby);
                restore::to_directory(view, &what, &wanted, standby, Path::new(path)).map_err(failed)?
            }
        };
        let warnings = report.warnings.clone();
        Ok(Done { report: counted(report), what: "files", warnings })
    }

    fn conclude(&self, view: &View, done: &Done) -> u8 {
        let report = &done.report;
        done.warnings.iter().for_each(|warning| say(warning));
        for problem in &report.problems {
            say(&match problem.subject.is_empty() {
                true => problem.reason.clone(),
                false => format!("{}: {}", problem.subject, problem.reason),
            });
        }
        let line = match self.json {
            true => serde_json::json!({
                "position": view.position.to_string(),
                "moment": crate::moment::rfc3339(view.moment),
                "exported": report.exported,
                "failed": report.failed,
                "bytes": report.bytes,
                "problems": report.problems,
            })
            .to_string(),
            false => {
                let would = if self.dry_run { "would export" } else { "exported" };
                let Report { exported, failed, bytes: sum, .. } = report;
                format!("{would} {exported} {} ({}), {failed} failed", done.what, bytes(*sum))
            }
        };
        match (self.streams(), self.json) {
            (false, _) => print(&line),
            (true, false) => say(&line),
            // Without the program's name in front, so that it can be read as JSON.
            (true, true) => drop(writeln!(std::io::stderr().lock(), "{line}")),
        }
        for problem in &view.problems {
            say(problem);
        }
        match report.failed > 0 || !view.problems.is_empty() {
            true => tell("done, but for what is named above; the rest is whole", 23),
            false => 0,
        }
    }
}

/// What a restore counted, in the words of an export.
fn counted(report: restore::Report) -> Report {
    let restore::Report { created, skipped, failed, bytes, problems, .. } = report;
    Report { exported: created + skipped, failed, bytes, problems }
}

/// Whole folders do not become one file: nobody could tell them apart again.
fn one_folder(plan: &Plan, filter: &Filter) -> Result<(), Failure> {
    let folders = plan.folders.iter().filter(|planned| planned.messages > 0).count();
    match folders > 1 && !filter.picks_messages() {
        true => Err(Failure(
            format!(
                "these are {folders} folders, and an mbox file is one: end the path with a slash for a directory of \
                 mbox files, or name one folder with --mailbox and --folder"
            ),
            2,
        )),
        false => Ok(()),
    }
}

/// Writes to a file, or to standard output.
fn written(
    destination: Option<Destination>,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<Report, ExportError>,
) -> Result<Report, Failure> {
    let Some(destination) = destination else {
        let mut output = std::io::BufWriter::with_capacity(1 << 18, std::io::stdout().lock());
        return write(&mut output).map_err(|error| match error {
            ExportError::Write(error) => Failure(format!("cannot write to standard output: {error}"), 1),
            error => error.into(),
        });
    };
    let mut output = destination.begin()?;
    let report = write(&mut output)?;
    output.finish()?;
    Ok(report)
}
