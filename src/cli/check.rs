//! `mailtwin check`: how things stand, judged as a plugin of Nagios judges.

use super::configured::Configured;
use super::error::print;
use super::standby::Failure;
use super::status::Standing;
use crate::node::health::{self, Facts, Finding, Judgement, Level, Limit, Limits, Measure};
use crate::path::escape;
use std::ffi::OsString;

/// The exit code that says that nothing can be said.
pub const UNKNOWN: u8 = 3;

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The set [default: all of the configuration]
    #[arg(value_name = "SET")]
    pub set: Option<OsString>,

    /// How far a slave may be behind, and how long a slave may be without its master [default: 60s]
    #[arg(long, value_name = "[WARN,]CRIT")]
    pub lag: Option<String>,

    /// How old the newest restore point may be [default: 26h]
    #[arg(long, value_name = "[WARN,]CRIT")]
    pub point_age: Option<String>,

    /// How long ago restore points may have been verified [default: 8d]
    #[arg(long, value_name = "[WARN,]CRIT")]
    pub verify_age: Option<String>,

    /// How full the disk of the mirror may be [default: 90%]
    #[arg(long, value_name = "[WARN,]CRIT")]
    pub disk: Option<String>,
}

const LAG: f64 = 60.0;
const POINT_AGE: f64 = 26.0 * 3600.0;
const VERIFY_AGE: f64 = 8.0 * 86_400.0;
const DISK: f64 = 90.0;

impl Arguments {
    fn limits(&self) -> Result<Limits, String> {
        let of = |typed: &Option<String>, critical, read: fn(&str) -> Result<f64, String>| match typed {
            Some(typed) => Limit::parse(typed, read),
            None => Ok(Limit { warning: None, critical, asked: false }),
        };
        Ok(Limits {
            lag: of(&self.lag, LAG, health::seconds)?,
            point_age: of(&self.point_age, POINT_AGE, health::seconds)?,
            verify_age: of(&self.verify_age, VERIFY_AGE, health::seconds)?,
            disk: of(&self.disk, DISK, health::percent)?,
        })
    }
}

/// Prints the judgement and gives the exit code.
pub fn run(arguments: &Arguments, configured: &Configured) -> u8 {
    let (level, line) = judge(arguments, configured).unwrap_or_else(|sentence| (Level::Unknown, sentence));
    print(&format!("MAILTWIN {} - {line}", level.word()));
    level.code()
}

fn judge(arguments: &Arguments, configured: &Configured) -> Result<(Level, String), String> {
    let limits = arguments.limits().map_err(|sentence| plain(&sentence))?;
    let standing = Standing::look(configured, arguments.set.as_deref());
    let standing = standing.map_err(|Failure(sentence, _)| plain(&sentence))?;
    let judged: Vec<(&str, Judgement)> = standing
        .sets
        .iter()
        .map(|set| {
            let facts = Facts {
                schedule: &set.set.schedule,
                status: standing.running.as_ref().ok(),
                set: set.status.as_ref().filter(|_| standing.running.is_ok()),
                kept: set.kept.as_ref(),
                now: standing.now,
            };
            (set.set.name.as_str(), health::judge(&facts, &limits))
        })
        .collect();
    let mut findings: Vec<Finding> = Vec::new();
    if let Err(why) = &standing.running {
        findings.push(Finding { level: Level::Critical, sentence: format!("mailtwin run is not running: {why}") });
    }
    for (name, judgement) in &judged {
        let named =
            |finding: &Finding| Finding { sentence: format!("{name}: {}", finding.sentence), ..finding.clone() };
        findings.extend(judgement.findings.iter().map(named));
    }
    // Sorting keeps the order of equals.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let level = findings.first().map_or(Level::Ok, |finding| finding.level);
    let words: Vec<String> = match findings.is_empty() {
        true if judged.is_empty() => return Err("the configuration has no set".to_owned()),
        true => judged.iter().map(|(name, judgement)| format!("{name}: {}", judgement.fine.join(", "))).collect(),
        false => findings.into_iter().map(|finding| finding.sentence).collect(),
    };
    let measures =
        judged.iter().flat_map(|(name, judgement)| judgement.measures.iter().map(move |one| data(name, one)));
    let measures: Vec<String> = measures.collect();
    let bar = if measures.is_empty() { "" } else { " | " };
    Ok((level, format!("{}{bar}{}", plain(&words.join("; ")), measures.join(" "))))
}

/// One line, without the bar behind which figures stand.
fn plain(sentence: &str) -> String {
    escape(sentence.replace('\n', "; ").as_bytes()).replace('|', "/")
}

/// `'label'=value[unit];warning;critical;minimum;maximum`
fn data(set: &str, measure: &Measure) -> String {
    let Measure { name, value, unit, limit } = measure;
    let value = (value * 10.0).round() / 10.0;
    let warning = limit.and_then(|limit| limit.warning).map_or_else(String::new, |warning| warning.to_string());
    let critical = limit.map_or_else(String::new, |limit| limit.critical.to_string());
    let most = if *unit == "%" { ";100" } else { "" };
    format!("'{set}.{name}'={value}{unit};{warning};{critical};0{most}")
}
