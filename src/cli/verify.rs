//! `mailtwin verify`: reads restore points as a restore would, and mends what is damaged. `mailtwin expire`: removes those that need not be kept.

use super::error::{print, say, tell};
use super::points::busy;
use super::standby::{Failure, Standby, bytes, label_of, run as running};
use crate::disk::{DiskError, Root, now};
use crate::moment;
use crate::monitor::Problem;
use crate::path::{TreePath, escape};
use crate::repository::expire;
use crate::repository::label::PointLabel;
use crate::repository::layout::{About, Repository};
use crate::repository::mend::{self, Mended};
use crate::repository::retention::Policy;
use crate::repository::verify::{self, Report, Sample};
use crate::restore::{self, RestoreError};
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// The restore point with this label [default: the newest]
    #[arg(long, value_name = "LABEL", conflicts_with = "all")]
    pub point: Option<String>,

    /// Every restore point
    #[arg(long)]
    pub all: bool,

    /// The N-th of T parts of the contents: 1/7 today, 2/7 tomorrow
    #[arg(long, value_name = "N/T")]
    pub sample: Option<String>,

    /// The mirror itself, against the newest moment: all of it is read
    #[arg(long, conflicts_with_all = ["point", "all", "sample"])]
    pub mirror: bool,

    /// Only look: what is damaged stays as it is
    #[arg(long)]
    pub no_mend: bool,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of `expire`.
#[derive(Debug, clap::Args)]
pub struct Expire {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// Keep the newest so many fulls, each with its differentials
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_full: Option<u32>,

    /// Keep the newest so many differentials
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_diff: Option<u32>,

    /// Keep as much of the log as brings back any moment within this time
    #[arg(long, value_name = "AGE")]
    pub keep_log: Option<String>,

    /// Print what would go, and why, and remove nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// What was found of a point, and what became of it.
struct Outcome {
    label: PointLabel,
    /// What was damaged, mended or not.
    found: Vec<String>,
    mended: Mended,
    /// What is so in the end.
    report: Report,
}

/// Verifies, and gives the exit code.
pub fn verify(arguments: &Verify) -> u8 {
    running(|| {
        if arguments.mirror {
            return mirror(arguments);
        }
        let sample = arguments.sample.as_deref().map(sample_of).transpose()?;
        let repository = arguments.standby.open()?;
        let mut waiting: VecDeque<PointLabel> = labels(arguments, &repository)?.into();
        let asked = waiting.len();
        let mut seen: BTreeSet<PointLabel> = waiting.iter().copied().collect();
        let (mut is_whole, mut outcomes): (_, Vec<Outcome>) = (true, Vec::new());
        while let Some(label) = waiting.pop_front() {
            let mut report = match verify::run(&repository, &label, sample) {
                // Nobody asked for this one.
                Err(error) if outcomes.len() >= asked => {
                    say(&error.to_string());
                    is_whole = false;
                    continue;
                }
                other => other?,
            };
            let found = report.damage.clone();
            let mut mended = Mended::default();
            if !report.is_whole() && !arguments.no_mend {
                // Whoever links to the same segment has the same damage.
                let sharing = verify::sharing(&repository, &report.segments)?;
                waiting.extend(sharing.into_iter().filter(|one| seen.insert(*one)));
                (mended, report) = mend(arguments, &repository, &label, report)?;
            }
            outcomes.push(Outcome { label, found, mended, report });
            if let Some(outcome) = outcomes.last().filter(|outcome| outcome.report.is_whole()) {
                conclude(arguments, &repository, outcome)?;
            }
        }
        if !arguments.no_mend {
            mend_again(arguments, &repository, &mut outcomes)?;
        }
        for outcome in outcomes.iter().filter(|outcome| !outcome.report.is_whole()) {
            conclude(arguments, &repository, outcome)?;
            is_whole = false;
        }
        let objects: Vec<serde_json::Value> = outcomes.iter().map(json).collect();
        if arguments.json {
            print(&serde_json::Value::from(objects).to_string());
        }
        Ok(match is_whole {
            true => 0,
            false => tell("what is named above is damaged; the rest can be restored", 23),
        })
    })
}

/// Verifies the mirror.
fn mirror(arguments: &Verify) -> Result<u8, Failure> {
    let Standby { standby, state } = &arguments.standby;
    let report = restore::mirror::run(Path::new(standby), state.as_deref().map(Path::new), !arguments.no_mend)
        .map_err(|error: RestoreError| Failure(error.to_string(), error.exit_code()))?;
    let sentence = |problem: &Problem| match problem.subject.is_empty() {
        true => problem.reason.clone(),
        false => format!("{}: {}", problem.subject, problem.reason),
    };
    let stays = |problem: &&Problem| report.damage.iter().any(|other| other.subject == problem.subject);
    report
        .found
        .iter()
        .filter(|problem| !stays(problem))
        .for_each(|problem| say(&format!("{}: mended", sentence(problem))));
    report.damage.iter().for_each(|problem| say(&sentence(problem)));
    if arguments.json {
        let object = serde_json::json!({
            "files": report.files,
            "bytes": report.bytes,
            "found": report.found,
            "mended": report.mended,
            "damage": report.damage,
        });
        print(&serde_json::Value::from(vec![object]).to_string());
    } else {
        let verdict = if report.damage.is_empty() { "whole" } else { "damaged" };
        let counts = format!("{} files, {}", report.files, bytes(report.bytes));
        print(&format!("mirror: {counts}, {verdict}, mended {} of {}", report.mended, report.found.len()));
    }
    Ok(match report.damage.is_empty() {
        true => 0,
        false => tell("what is named above is not what the log says; the rest is", 23),
    })
}

/// Mends a point, and looks at it again. That it cannot be done is said, and no reason to look at no other.
fn mend(
    arguments: &Verify,
    repository: &Repository,
    label: &PointLabel,
    before: Report,
) -> Result<(Mended, Report), Failure> {
    let _lock = match repository.lock() {
        Err(error) if error.is_denied() => {
            say(&format!("{label}: not mended: {error}"));
            return Ok((Mended::default(), before));
        }
        locked => locked?.ok_or_else(busy)?,
    };
    let failed = |error: DiskError| Failure(error.to_string(), 1);
    let mirror = Root::open(Path::new(&arguments.standby.standby)).map_err(failed)?;
    match mend::run(repository, &mirror, label) {
        Ok(mended) => Ok((mended, verify::run(repository, label, None)?)),
        Err(error) => {
            say(&format!("{label}: not mended: {error}"));
            Ok((Mended::default(), before))
        }
    }
}

/// What one point had lost may have come back with another one.
fn mend_again(arguments: &Verify, repository: &Repository, outcomes: &mut [Outcome]) -> Result<(), Failure> {
    let mut goes_on = outcomes.len() > 1;
    while std::mem::take(&mut goes_on) {
        for outcome in outcomes.iter_mut().filter(|outcome| !outcome.report.is_whole()) {
            let before = outcome.report.hit.len();
            let (mended, report) = mend(arguments, repository, &outcome.label, outcome.report.clone())?;
            outcome.mended.add(mended);
            outcome.report = report;
            goes_on |= outcome.report.hit.len() < before;
            if outcome.report.is_whole() {
                conclude(arguments, repository, outcome)?;
            }
        }
    }
    Ok(())
}

/// Says what came of a point, and notes it of one that is whole.
fn conclude(arguments: &Verify, repository: &Repository, outcome: &Outcome) -> Result<(), Failure> {
    tell_outcome(arguments, outcome);
    match outcome.report.is_whole() {
        true => note(arguments, repository, outcome),
        false => Ok(()),
    }
}

/// Notes that a point was found whole. Who may not write here can verify all the same.
fn note(arguments: &Verify, repository: &Repository, outcome: &Outcome) -> Result<(), Failure> {
    let _lock = match repository.lock() {
        Err(error) if error.is_denied() => {
            say(&format!("{} is whole, and that cannot be noted: {error}", outcome.label));
            return Ok(());
        }
        locked => locked?.ok_or_else(busy)?,
    };
    let part = arguments.sample.as_ref().filter(|_| outcome.found.is_empty());
    let how = part.map_or_else(|| "all of it".to_owned(), |part| format!("part {part}"));
    let about = repository.about(&outcome.label)?;
    let about = About { verified: Some(now()), verified_how: how, ..about };
    Ok(repository.set_about(&outcome.label, &about)?)
}

fn tell_outcome(arguments: &Verify, outcome: &Outcome) {
    let Outcome { label, found, report, .. } = outcome;
    if !arguments.json {
        print(&line(outcome));
    }
    let mended = found.iter().filter(|what| !report.damage.contains(what));
    mended.for_each(|what| say(&format!("{label}: {what}: mended")));
    report.damage.iter().for_each(|what| say(&format!("{label}: {what}")));
    report.hit.iter().for_each(|path| say(&format!("{label}: {path} cannot be restored as it was")));
    let mailboxes = mailboxes(report);
    if !mailboxes.is_empty() {
        say(&format!("{label}: {} mailboxes have lost something: {}", mailboxes.len(), mailboxes.join(", ")));
    }
}

/// The mailboxes of what is hit.
fn mailboxes(report: &Report) -> Vec<String> {
    let shown = |path: &TreePath| if path.is_root() { ".".to_owned() } else { path.to_string() };
    report.mailboxes.iter().map(shown).collect()
}

fn labels(arguments: &Verify, repository: &Repository) -> Result<Vec<PointLabel>, Failure> {
    let labels = repository.labels()?;
    match (&arguments.point, arguments.all) {
        (Some(label), _) => Ok(vec![label_of(label)?]),
        (None, true) => Ok(labels),
        (None, false) => match labels.last() {
            Some(newest) => Ok(vec![*newest]),
            None => Err(Failure("there is no restore point yet: mailtwin backup makes one".to_owned(), 1)),
        },
    }
}

fn sample_of(typed: &str) -> Result<Sample, Failure> {
    let parsed = typed.split_once('/').and_then(|(number, parts)| {
        let sample = Sample { number: number.parse().ok()?, parts: parts.parse().ok()? };
        (1..=sample.parts).contains(&sample.number).then_some(sample)
    });
    parsed
        .ok_or_else(|| Failure(format!("--sample {}: say which part of how many, as 1/7", escape(typed.as_bytes())), 2))
}

fn line(outcome: &Outcome) -> String {
    let Outcome { label, report, mended, .. } = outcome;
    let verdict = match (report.is_whole(), report.damage.len(), report.hit.len()) {
        (true, ..) => "whole".to_owned(),
        (false, damage, hit) => format!("{damage} damaged places, {hit} files hit"),
    };
    let mended = match (mended.contents, outcome.found.is_empty()) {
        (0, true) => String::new(),
        (contents, _) => format!(", mended {contents} contents"),
    };
    format!("{label}: {} contents, {}, {verdict}{mended}", report.contents, bytes(report.bytes))
}

fn json(outcome: &Outcome) -> serde_json::Value {
    let Outcome { label, found, report, mended } = outcome;
    let hit: Vec<String> = report.hit.iter().map(|path| escape(path.as_bytes())).collect();
    serde_json::json!({
        "label": label.to_string(),
        "contents": report.contents,
        "bytes": report.bytes,
        "found": found,
        "mended": mended.contents,
        "mended_bytes": mended.bytes,
        "moved": mended.moved,
        "damage": report.damage,
        "hit": hit,
        "mailboxes": mailboxes(report),
    })
}

/// Expires, and gives the exit code.
pub fn expire(arguments: &Expire) -> u8 {
    running(|| {
        let keep_log = arguments.keep_log.as_deref().map(moment::duration).transpose();
        let keep_log = keep_log.map_err(|error| Failure(error.to_string(), 2))?;
        let repository = arguments.standby.open()?;
        let _lock = match arguments.dry_run {
            true => None,
            false => Some(expire::lock(&repository)?.ok_or_else(busy)?),
        };
        let policy = Policy { keep_full: arguments.keep_full, keep_diff: arguments.keep_diff };
        let plan = expire::plan(&repository, policy, keep_log, now())?;
        if !arguments.dry_run
            && let Some(warning) = expire::carry_out(&repository, &plan)?
        {
            say(&warning);
        }
        tell_plan(arguments, &plan);
        Ok(0)
    })
}

fn tell_plan(arguments: &Expire, plan: &expire::Plan) {
    let points =
        plan.points.iter().map(|point| (point.label.to_string(), point.reason.goes(), point.reason.to_string()));
    let segments = plan.segments.iter();
    let segments = segments.map(|(number, reason)| (format!("log/{number:016x}"), reason.goes(), reason.to_string()));
    let all: Vec<(String, bool, String)> = points.chain(segments).collect();
    if arguments.json {
        let object = |(name, goes, reason): &(String, bool, String)| serde_json::json!({ "name": name, "goes": goes, "reason": reason });
        print(&serde_json::Value::from_iter(all.iter().map(object)).to_string());
        return;
    }
    for (name, goes, reason) in all {
        print(&format!("{name}  {}  {reason}", if goes { "goes" } else { "stays" }));
    }
}
