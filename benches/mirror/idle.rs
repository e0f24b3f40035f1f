//! Nothing has changed: what a run from cron costs on a large tree, in time, bytes and memory.

use std::path::Path;
use std::process::Command;

use super::Wishes;
use super::pair::{self, Measured, Pair};
use crate::support::ground::Ground;
use crate::support::table::{Report, Series, Table, Unit, grouped};
use crate::support::tools::{Link, Run, Tools};
use crate::support::tree::Shape;
use crate::support::{Doing, Outcome, say};

pub fn run(wishes: &Wishes, ground: &mut Ground, tools: &mut Tools, report: &mut Report) -> Outcome<()> {
    let options = &wishes.options;
    let users = options.scaled(500);
    let shape = Shape::many(users);
    let source = ground.tree("many", &shape)?;
    let pair = Pair::new(ground, source, shape.room(), !wishes.rsync_only)?;
    let mut memory = Memory::default();
    tools.watch_memory = true;
    first_copy(&pair, tools, &mut memory)?;
    tools.watch_memory = false;
    pair.settle(tools)?;

    let folders = grouped(shape.folders());
    let work = format!("nothing changed, {} messages in {folders} folders", grouped(shape.messages()));
    let mut measured = Measured::new(work.clone());
    for round in 0..options.runs(5) {
        pair.measure(tools, round, &mut measured)?;
    }
    tools.watch_memory = true;
    memory.idle(&pair, tools)?;
    tools.watch_memory = false;
    pair.check(&work, report);

    let mut table = Table::new("A run that finds nothing to do", &pair::HEAD);
    measured.tabulate(["50 times faster", "under 4 KB"], &mut table);
    memory.tabulate(&mut table);
    report.tables.push(table);
    pair.retire(ground);
    Ok(())
}

/// Both mirrors come into being. Where mailtwin takes part, rsync's is made of hard links to mailtwin's: nothing rsync does
/// with an unchanged mirror depends on the number of links, and a third copy of the tree would take 4 GB more.
fn first_copy(pair: &Pair, tools: &Tools, memory: &mut Memory) -> Outcome<()> {
    if let (Some(mirror), Some(run)) = (&pair.mailtwin, pair.run_mailtwin(tools)?) {
        say(format_args!("mailtwin's first copy took {:.0} s", run.seconds()));
        memory.copy[1].push(&run);
        link_farm(mirror, &pair.rsync)?;
        pair.run_rsync(tools)?;
    } else {
        let run = pair.run_rsync(tools)?;
        say(format_args!("rsync's first copy took {:.0} s", run.seconds()));
        memory.copy[0].push(&run);
    }
    Ok(())
}

fn link_farm(mirror: &Path, farm: &Path) -> Outcome<()> {
    let status = Command::new("cp").arg("-al").args([mirror, farm]).status().doing("cp -al")?;
    if !status.success() {
        return Err(format!("cp -al {} ended with {status}", mirror.display()).into());
    }
    let state = farm.join(".mailtwin");
    std::fs::remove_dir_all(&state).doing(state.display())
}

/// Peaks of the near and the far end, for rsync and for mailtwin.
#[derive(Default)]
struct Memory {
    copy: [Ends; 2],
    idle: [Ends; 2],
    delete_after: Ends,
}

#[derive(Default)]
struct Ends {
    near: Series,
    far: Series,
}

impl Ends {
    fn push(&mut self, run: &Run) {
        if let Some(peaks) = run.peaks {
            self.near.push(peaks.near as f64);
            self.far.push(peaks.far as f64);
        }
    }
}

impl Memory {
    fn idle(&mut self, pair: &Pair, tools: &Tools) -> Outcome<()> {
        self.idle[0].push(&pair.run_rsync(tools)?);
        let flags = ["-aH", "--delete-after"];
        self.delete_after.push(&tools.rsync(&flags, Link::Pipe, &pair.source, &pair.rsync, &[0])?);
        if let Some(run) = pair.run_mailtwin(tools)? {
            self.idle[1].push(&run);
        }
        Ok(())
    }

    fn tabulate(&self, table: &mut Table) {
        let none = Ends::default();
        let cases = [
            ("peak memory, nothing changed", &self.idle[0], &self.idle[1]),
            ("peak memory, nothing changed, rsync with --delete-after", &self.delete_after, &none),
            ("peak memory, first copy of this tree", &self.copy[0], &self.copy[1]),
        ];
        for (work, rsync, mailtwin) in cases {
            let goal = if mailtwin.near.median().is_some() { "under 150 MB" } else { "" };
            table.row(pair::line(work, "sending end", [&rsync.near, &mailtwin.near], Unit::Bytes, goal));
            table.row(pair::line("", "receiving end", [&rsync.far, &mailtwin.far], Unit::Bytes, goal));
        }
    }
}
