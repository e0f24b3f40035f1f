//! mailtwin's restore points beside restic and borg, on the same trees, in one run: a table of the README.
//!
//! `cargo bench --bench versus_backup -- --help` says what can be chosen. Everything that is restored is compared with its
//! source, by names, sizes and a sample of the contents; a result that may not be believed is printed as WRONG and makes
//! the exit code 1.

#![allow(clippy::print_stdout, reason = "a benchmark is a program: its table goes to standard output")]

mod points;
#[allow(dead_code, reason = "versus_rsync holds what is not used at all against it; this benchmark takes its part")]
mod support;

use std::process::ExitCode;

use points::{USAGE, Wishes, attachment, borg, million, real, restic};
use support::ground::Ground;
use support::table::Report;
use support::tools::{self, Need, Tools};
use support::{Outcome, machine};

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            support::say(error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows that were asked for; the largest tree comes last, because removing it slows the disk down.
fn compare() -> Outcome<bool> {
    let wishes = Wishes::parse(std::env::args().skip(1))?;
    let peers: &[Need] = if wishes.mailtwin_only { &[] } else { &[restic::NEED, borg::NEED] };
    tools::need(peers).map_err(|error| format!("{error}; or leave them out: --mailtwin-only"))?;
    let mut ground = Ground::new(&wishes.options)?;
    let tools = Tools::new(ground.work())?;
    let mut report = Report::default();
    real::run(&wishes, &mut ground, &tools, &mut report)?;
    attachment::run(&wishes, &mut ground, &tools, &mut report)?;
    million::run(&wishes, &mut ground, &tools, &mut report)?;
    let ours = machine::version(tools::MAILTWIN, "--version");
    let versions = peers.iter().map(|need| machine::version(need.program, need.argument)).chain([ours]);
    report.notes.push(machine::describe(ground.work(), &versions.collect::<Vec<_>>()));
    println!("{}", report.markdown());
    Ok(report.complaints.is_empty())
}
