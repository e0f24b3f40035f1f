//! mailtwin beside rsync, on the same trees, in one run: the table of the README.
//!
//! `cargo bench --bench versus_rsync -- --help` says what can be chosen. Every mirror is compared with its source after the
//! run, by names and sizes; a result that may not be believed is printed as WRONG and makes the exit code 1.

#![allow(clippy::print_stdout, reason = "a benchmark is a program: its table goes to standard output")]

mod mirror;
mod support;

use std::process::ExitCode;

use mirror::{USAGE, Wishes, changes, first_copy, idle, live, rsync};
use support::ground::Ground;
use support::table::Report;
use support::tools::{self, Tools};
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
    let options = &wishes.options;
    let mut ground = Ground::new(options)?;
    let mut tools = Tools::new(ground.work())?;
    tools::need(&[rsync::NEED])?;
    let mut report = Report::default();
    if options.wants("first-copy") {
        first_copy::run(&wishes, &mut ground, &tools, &mut report)?;
    }
    changes::run(&wishes, &mut ground, &mut tools, &mut report)?;
    if options.wants("live") {
        live::run(&wishes, &mut ground, &tools, &mut report)?;
    }
    if options.wants("idle") {
        idle::run(&wishes, &mut ground, &mut tools, &mut report)?;
    }
    let mut versions = vec![machine::version(rsync::NEED.program, rsync::NEED.argument)];
    if !wishes.rsync_only {
        versions.push(machine::version(tools::MAILTWIN, "--version"));
    }
    report.notes.push(machine::describe(ground.work(), &versions));
    println!("{}", report.markdown());
    Ok(report.complaints.is_empty())
}
