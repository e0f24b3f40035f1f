//! mailtwin beside rsync, on the same trees, in one run: the table of the README.
//!
//! `cargo bench --bench versus_rsync -- --help` says what can be chosen. Every mirror is compared with its source after the
//! run, by names and sizes; a result that may not be believed is printed as WRONG and makes the exit code 1.

#![allow(clippy::print_stdout, reason = "a benchmark is a program: its table goes to standard output")]

mod support;

use std::process::ExitCode;

use support::ground::Ground;
use support::options::{Options, USAGE};
use support::table::Report;
use support::tools::Tools;
use support::{Outcome, changes, first_copy, idle, live, machine};

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
    let options = Options::parse(std::env::args().skip(1))?;
    let mut ground = Ground::new(&options)?;
    let mut tools = Tools::new(ground.work())?;
    let mut report = Report::default();
    if options.wants("first-copy") {
        first_copy::run(&options, &mut ground, &tools, &mut report)?;
    }
    changes::run(&options, &mut ground, &mut tools, &mut report)?;
    if options.wants("live") {
        live::run(&options, &mut ground, &tools, &mut report)?;
    }
    if options.wants("idle") {
        idle::run(&options, &mut ground, &mut tools, &mut report)?;
    }
    report.notes.push(machine::describe(ground.work(), !options.rsync_only));
    println!("{}", report.markdown());
    Ok(report.complaints.is_empty())
}
