//! `mailtwin drill`: a restore for practice.

use super::error::{print, say, tell};
use super::points::result;
use super::standby::{Failure, Moment, Standby, bytes, run as running};
use crate::drill::{self, DrillError, Report, Request};
use crate::id::RandomId;
use crate::moment;
use crate::monitor::Problem;
use crate::path::TreePath;
use std::ffi::OsString;

/// Options of `drill`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// When
    #[command(flatten)]
    pub moment: Moment,

    /// How many mailboxes, picked at random
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub mailboxes: u32,

    /// Restore to a new directory in this one [default: beside the standby's state, or beside STANDBY]
    #[arg(long = "in", value_name = "DIR")]
    pub place: Option<OsString>,

    /// Pick the mailboxes that this number stands for [default: a random one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Print one object on standard output at the end
    #[arg(long)]
    pub json: bool,
}

/// Drills, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        let at = arguments.moment.parse()?;
        let seed = match arguments.seed {
            Some(seed) => seed,
            None => random()?,
        };
        let repository = arguments.standby.open()?;
        let request = Request {
            standby: (&arguments.standby.standby).into(),
            at,
            mailboxes: arguments.mailboxes as usize,
            place: arguments.place.as_ref().map(Into::into),
            seed,
        };
        let report = drill::run(&repository, &request)
            .map_err(|error: DrillError| Failure(error.to_string(), error.exit_code()))?;
        Ok(conclude(arguments, seed, &report))
    })
}

/// A number that can be typed, and that programs read without rounding it.
fn random() -> Result<u64, Failure> {
    let id = RandomId::fresh().map_err(|error| Failure(format!("no random number: {error}"), 1))?;
    Ok(id.0.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn conclude(arguments: &Arguments, seed: u64, report: &Report) -> u8 {
    report.warnings.iter().for_each(|warning| say(warning));
    let name = |problem: &Problem| match problem.subject.is_empty() {
        true => say(&problem.reason),
        false => say(&format!("{}: {}", problem.subject, problem.reason)),
    };
    report.differing.iter().for_each(name);
    report.mirror_differs.iter().for_each(name);
    match arguments.json {
        true => print(&json(seed, report).to_string()),
        false => print(&line(seed, report)),
    }
    match (report.is_whole(), report.is_noted) {
        (false, _) => tell("what is named above is not as it was; the rest is", 23),
        (true, false) => tell("it is not written down: another command is changing the restore points", 10),
        (true, true) => 0,
    }
}

fn shown(mailbox: &TreePath) -> String {
    if mailbox.is_root() { ".".to_owned() } else { mailbox.to_string() }
}

fn line(seed: u64, report: &Report) -> String {
    let mailboxes: Vec<String> = report.mailboxes.iter().map(shown).collect();
    let label = report.label.map_or_else(String::new, |label| label.to_string());
    let counts = format!("{} messages, {} in {:.3} s", report.messages, bytes(report.bytes), report.took.as_secs_f64());
    let differing = report.differing.len() + report.mirror_differs.len();
    let verdict = if differing == 0 { "whole".to_owned() } else { format!("{differing} differ") };
    let which = format!("{} of {} mailboxes ({})", report.mailboxes.len(), report.of, mailboxes.join(", "));
    format!("{label}: {which}: {counts}, {verdict}; seed {seed}")
}

fn json(seed: u64, report: &Report) -> serde_json::Value {
    serde_json::json!({
        "label": report.label.map(|label| label.to_string()),
        "position": report.position.to_string(),
        "moment": moment::rfc3339(report.moment),
        "seed": seed,
        "mailboxes": report.mailboxes.iter().map(shown).collect::<Vec<_>>(),
        "of": report.of,
        "messages": report.messages,
        "files": report.files,
        "bytes": report.bytes,
        "seconds": report.took.as_secs_f64(),
        "compare_seconds": report.compared.as_secs_f64(),
        "result": result(report.is_whole()),
        "differing": report.differing,
        "on_mirror": report.on_mirror,
        "mirror_differs": report.mirror_differs,
    })
}
