//! `mailtwin verify`: reads restore points as a restore would. `mailtwin expire`: removes those that need not be kept.

use super::error::{print, say, tell};
use super::points::busy;
use super::standby::{Failure, Standby, bytes, label_of, run as running};
use crate::disk::now;
use crate::moment;
use crate::path::escape;
use crate::repository::expire;
use crate::repository::label::PointLabel;
use crate::repository::layout::{About, Repository};
use crate::repository::retention::Policy;
use crate::repository::verify::{self, Report, Sample};

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

/// Verifies, and gives the exit code.
pub fn verify(arguments: &Verify) -> u8 {
    running(|| {
        let sample = arguments.sample.as_deref().map(sample_of).transpose()?;
        let repository = arguments.standby.open()?;
        let labels = labels(arguments, &repository)?;
        let mut damaged = false;
        let mut objects = Vec::new();
        for label in labels {
            let report = verify::run(&repository, &label, sample)?;
            let is_whole = report.damage.is_empty() && report.hit.is_empty();
            damaged |= !is_whole;
            objects.push(json(&label, &report));
            if !arguments.json {
                print(&line(&label, &report));
            }
            report.damage.iter().for_each(|what| say(&format!("{label}: {what}")));
            report.hit.iter().for_each(|path| say(&format!("{label}: {path} cannot be restored as it was")));
            if is_whole {
                note(arguments, &repository, &label)?;
            }
        }
        if arguments.json {
            print(&serde_json::Value::from(objects).to_string());
        }
        Ok(match damaged {
            true => tell("what is named above is damaged; the rest can be restored", 23),
            false => 0,
        })
    })
}

/// Notes that a point was found whole. Who may not write here can verify all the same.
fn note(arguments: &Verify, repository: &Repository, label: &PointLabel) -> Result<(), Failure> {
    let _lock = match repository.lock() {
        Err(error) if error.is_denied() => {
            say(&format!("{label} is whole, and that cannot be noted: {error}"));
            return Ok(());
        }
        locked => locked?.ok_or_else(busy)?,
    };
    let how = arguments.sample.as_ref().map_or_else(|| "all of it".to_owned(), |part| format!("part {part}"));
    let about = repository.about(label)?;
    Ok(repository.set_about(label, &About { verified: Some(now()), verified_how: how, ..about })?)
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

fn line(label: &PointLabel, report: &Report) -> String {
    let verdict = match (report.damage.len(), report.hit.len()) {
        (0, 0) => "whole".to_owned(),
        (damage, hit) => format!("{damage} damaged places, {hit} files hit"),
    };
    format!("{label}: {} contents, {}, {verdict}", report.contents, bytes(report.bytes))
}

fn json(label: &PointLabel, report: &Report) -> serde_json::Value {
    let hit: Vec<String> = report.hit.iter().map(|path| escape(path.as_bytes())).collect();
    serde_json::json!({
        "label": label.to_string(),
        "contents": report.contents,
        "bytes": report.bytes,
        "damage": report.damage,
        "hit": hit,
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
