//! `mailtwin sync`: one cycle.

use super::configured::Configured;
use super::error::{print, tell};
use super::link::Way;
use super::standby::Failure;
use super::terminal::{Shown, Terminal};
use crate::config::file::{Configuration, Peer, Role, Set};
use crate::config::{self, Plan, Typed, UsageError};
use crate::maildir::folder::SetKind;
use crate::monitor::Problem;
use crate::node::{schedule, way};
use crate::sync::sender::{self, Report};
use clap::{ArgMatches, ValueEnum};
use std::ffi::OsString;
use std::io::IsTerminal;

/// Kinds of tree.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// Maildirs: one, or a tree of thousands
    Maildir,
    /// Plain files, such as /etc/postfix
    Files,
}

/// Options of `sync`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The tree to replicate; without DEST, the name of a set
    #[arg(value_name = "SRC")]
    pub source: OsString,

    /// The directory that becomes its mirror: a path, or [user@]host:path
    #[arg(value_name = "DEST")]
    pub destination: Option<OsString>,

    /// What SRC is; detected otherwise
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,

    /// Where the slave keeps its state [default: DEST/.mailtwin]
    #[arg(long, value_name = "DIR")]
    pub state: Option<OsString>,

    /// Take in what matches, though it would be left out (repeatable; the last pattern that matches decides)
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,

    /// Leave out what matches; patterns are those of .gitignore
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,

    /// Print what would be done, and write nothing on either side
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Print each change
    #[arg(short = 'i', long)]
    pub itemize_changes: bool,

    /// Read and compare every content on both sides
    #[arg(short = 'c', long)]
    pub checksum: bool,

    /// Stop where more than so many files, or such a share, would be removed [default: half of them, from 32 on]
    #[arg(long, value_name = "N|P%")]
    pub max_delete: Option<String>,

    /// How the other host is reached
    #[command(flatten)]
    pub link: Way,

    /// Owner of everything on the mirror, by name or number
    #[arg(long, value_name = "USER:GROUP")]
    pub chown: Option<String>,

    /// Say more
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Say nothing but what went wrong
    #[arg(short = 'q', long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print what was done in figures
    #[arg(long)]
    pub stats: bool,

    /// Print what was done as one JSON object
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    fn typed(&self, matches: &ArgMatches) -> Typed {
        Typed {
            source: self.source.clone(),
            destination: self.destination.clone().unwrap_or_default(),
            kind: self.kind.map(|kind| match kind {
                Kind::Maildir => SetKind::Maildir,
                Kind::Files => SetKind::Files,
            }),
            slave_state: self.state.clone(),
            filters: filters(matches),
            chown: self.chown.clone(),
            max_delete: self.max_delete.clone(),
            link: self.link.typed(),
            checksum: self.checksum,
            dry_run: self.dry_run,
            itemize: self.itemize_changes || self.dry_run,
        }
    }

    fn shown(&self) -> Shown {
        let progress = self.link.shows_progress(std::io::stderr().is_terminal() && !self.quiet);
        Shown { verbose: self.verbose > 0, quiet: self.quiet, progress, json: self.json }
    }
}

/// `--include` and `--exclude` as lines of one .gitignore, in the order in which they were typed.
fn filters(matches: &ArgMatches) -> Vec<String> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (name, prefix) in [("include", "!"), ("exclude", "")] {
        let places = matches.indices_of(name).into_iter().flatten();
        let patterns = matches.get_many::<String>(name).into_iter().flatten();
        lines.extend(places.zip(patterns.map(|pattern| format!("{prefix}{pattern}"))));
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Runs one cycle, or one with each peer of a set, and gives the exit code: that of the first that is not 0.
pub fn run(arguments: &Arguments, matches: &ArgMatches, configured: &Configured) -> u8 {
    let typed = arguments.typed(matches);
    if arguments.destination.is_some() {
        return cycle(arguments, config::plan(typed), None);
    }
    match of_set(arguments, &typed, configured) {
        Ok(code) => code,
        Err(Failure(sentence, code)) => tell(&sentence, code),
    }
}

/// One cycle with each of a set's peers.
fn of_set(arguments: &Arguments, typed: &Typed, configured: &Configured) -> Result<u8, Failure> {
    let set = configured.set_named(&arguments.source)?;
    let configuration = configured.needed()?;
    if set.role == Role::Slave {
        let (name, peers) = (&set.name, set.peers.join(", "));
        let sentence = format!("of the set {name} this host is a slave: sync runs on its master {peers}");
        return Err(Failure(sentence, 2));
    }
    let rate = schedule::pace(&set.schedule, configuration.limits.bandwidth, jiff::Timestamp::now()).rate;
    let peers = set.peers.iter().filter_map(|name| configuration.peers.get(name));
    let codes: Vec<u8> = peers
        .map(|peer| {
            let plan = config::plan_set(configuration, set, peer, typed.clone(), rate);
            cycle(arguments, plan, Some(Names { configuration, set, peer }))
        })
        .collect();
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
}

/// A set and its peer, where the configuration names them.
#[derive(Clone, Copy)]
struct Names<'a> {
    configuration: &'a Configuration,
    set: &'a Set,
    peer: &'a Peer,
}

/// One cycle; of a set with a peer, where they have names.
fn cycle(arguments: &Arguments, plan: Result<Plan, UsageError>, names: Option<Names<'_>>) -> u8 {
    let plan = match plan {
        Ok(plan) => plan,
        Err(failure) => return tell(&failure.sentence, failure.code),
    };
    let terminal = Terminal::new(arguments.shown());
    let configuration = names.map(|names| names.configuration);
    let ran = way::reach(configuration, &plan, &mut |connect| sender::run(&plan.request, &terminal, connect));
    let mut problems = terminal.finish();
    match ran {
        Ok(report) => {
            for problem in &report.problems {
                super::error::say(&format!("{}: {}", problem.subject, problem.reason));
            }
            problems.extend(report.problems.iter().cloned());
            conclude(arguments, &report, &problems, names)
        }
        Err(failure) => tell(&failure.to_string(), failure.exit_code()),
    }
}

fn conclude(arguments: &Arguments, report: &Report, problems: &[Problem], names: Option<Names<'_>>) -> u8 {
    if arguments.json {
        let mut object = json(report, problems);
        if let Some(Names { set, peer, .. }) = names {
            (object["set"], object["peer"]) = (set.name.as_str().into(), peer.name.as_str().into());
        }
        print(&object.to_string());
    } else if arguments.stats && !arguments.quiet {
        print(&stats(report, problems));
    }
    if let Some(sentence) = &report.stopped {
        return tell(sentence, 26);
    }
    if !problems.is_empty() {
        let count = problems.len();
        return tell(&format!("done, but for {count} named above; run again when they are mended"), 23);
    }
    if !report.in_sync && !arguments.dry_run {
        return tell("the mirror still differs after three rounds: something else is writing to it", 23);
    }
    0
}

fn json(report: &Report, problems: &[Problem]) -> serde_json::Value {
    let mut object = serde_json::to_value(&report.counters).unwrap_or_default();
    object["bytes_sent"] = report.bytes_sent.into();
    object["bytes_received"] = report.bytes_received.into();
    object["position"] = report.position.to_string().into();
    object["in_sync"] = report.in_sync.into();
    object["problems"] = serde_json::to_value(problems).unwrap_or_default();
    object["elapsed_seconds"] = report.elapsed.as_secs_f64().into();
    object
}

fn stats(report: &Report, problems: &[Problem]) -> String {
    let counters = &report.counters;
    [
        format!(
            "messages: {} added, {} renamed, {} linked, {} removed",
            counters.messages_added, counters.messages_renamed, counters.messages_linked, counters.messages_removed
        ),
        format!(
            "files: {} added, {} patched, {} replaced, {} removed",
            counters.files_added, counters.files_patched, counters.files_replaced, counters.files_removed
        ),
        format!(
            "directories: {} added, {} renamed, {} removed, {} read",
            counters.directories_added,
            counters.directories_renamed,
            counters.directories_removed,
            counters.directories_read
        ),
        format!(
            "bytes: {} of content, {} sent, {} received",
            counters.bytes_content, report.bytes_sent, report.bytes_received
        ),
        format!(
            "position {}, {}, {} problems, {:.2} seconds",
            report.position,
            if report.in_sync { "in sync" } else { "not in sync" },
            problems.len(),
            report.elapsed.as_secs_f64()
        ),
    ]
    .join("\n")
}
