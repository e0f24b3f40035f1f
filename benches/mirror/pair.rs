//! One source and two mirrors of it, each kept by its own tool, run one after the other in the same conditions.

use std::path::PathBuf;

use crate::support::compare;
use crate::support::ground::{self, Ground};
use crate::support::table::{Report, Series, Table, Unit};
use crate::support::tools::{Link, Run, Tools};
use crate::support::{Outcome, say};

pub const RSYNC: [&str; 2] = ["-aH", "--delete"];
pub const HEAD: [&str; 6] = ["work", "measured", "rsync -aH --delete", "mailtwin", "rsync / mailtwin", "goal"];

/// The mirrors exist after the first run of each tool.
pub struct Pair {
    pub source: PathBuf,
    pub rsync: PathBuf,
    pub mailtwin: Option<PathBuf>,
    room: u64,
    /// What rsync is told; RSYNC but for a row that says otherwise.
    pub flags: &'static [&'static str],
}

impl Pair {
    /// Names two mirrors of `source` that do not exist yet; each will take about `room` bytes.
    pub fn new(ground: &mut Ground, source: PathBuf, room: u64, with_mailtwin: bool) -> Outcome<Self> {
        let rsync = ground.destination(room)?;
        let mailtwin = if with_mailtwin { Some(ground.destination(room)?) } else { None };
        Ok(Self { source, rsync, mailtwin, room, flags: &RSYNC })
    }

    pub fn retire(self, ground: &mut Ground) {
        for mirror in [Some(self.rsync), self.mailtwin].into_iter().flatten() {
            ground.retire(mirror, self.room);
        }
    }

    pub fn run_rsync(&self, tools: &Tools) -> Outcome<Run> {
        tools.rsync(self.flags, Link::Pipe, &self.source, &self.rsync, &[0])
    }

    pub fn run_mailtwin(&self, tools: &Tools) -> Outcome<Option<Run>> {
        let run = |mirror| tools.mailtwin(Link::Pipe, &self.source, mirror, &[0]);
        self.mailtwin.as_deref().map(run).transpose()
    }

    /// Brings both mirrors up to date, untimed.
    pub fn settle(&self, tools: &Tools) -> Outcome<()> {
        self.run_rsync(tools)?;
        self.run_mailtwin(tools)?;
        ground::sync();
        Ok(())
    }

    /// One measured run of each; who comes first changes from round to round.
    pub fn measure(&self, tools: &Tools, round: usize, measured: &mut Measured) -> Outcome<Option<Run>> {
        let mut ours = None;
        for turn in 0..2 {
            ground::sync();
            if (turn + round).is_multiple_of(2) {
                measured.rsync.push(&self.run_rsync(tools)?);
            } else if let Some(run) = self.run_mailtwin(tools)? {
                measured.mailtwin.push(&run);
                ours = Some(run);
            }
        }
        say(format_args!("{}: round {} done", measured.work, round + 1));
        Ok(ours)
    }

    pub fn check(&self, work: &str, report: &mut Report) {
        let mirrors = [("rsync", Some(&self.rsync)), ("mailtwin", self.mailtwin.as_ref())];
        for (tool, mirror) in mirrors {
            if let Some(Err(difference)) = mirror.map(|mirror| compare::same(&self.source, mirror)) {
                report.complain(work, format_args!("after {tool}: {difference}"));
            }
        }
    }
}

/// What the runs of one tool took.
#[derive(Default)]
pub struct Costs {
    pub wall: Series,
    pub cpu: Series,
    pub wire: Series,
}

impl Costs {
    pub fn push(&mut self, run: &Run) {
        self.wall.push(run.seconds());
        self.cpu.push(run.cpu);
        self.wire.push(run.wire as f64);
    }
}

/// Both tools on one kind of work.
pub struct Measured {
    pub work: String,
    pub rsync: Costs,
    pub mailtwin: Costs,
}

impl Measured {
    pub fn new(work: String) -> Self {
        Self { work, rsync: Costs::default(), mailtwin: Costs::default() }
    }

    /// Three rows: time, bytes, processor.
    pub fn tabulate(&self, goals: [&str; 2], table: &mut Table) {
        let (rsync, mailtwin) = (&self.rsync, &self.mailtwin);
        table.row(line(&self.work, "time", [&rsync.wall, &mailtwin.wall], Unit::Seconds, goals[0]));
        table.row(line("", "on the wire", [&rsync.wire, &mailtwin.wire], Unit::Bytes, goals[1]));
        table.row(line("", "user + system", [&rsync.cpu, &mailtwin.cpu], Unit::Seconds, ""));
    }
}

/// One row of a table with HEAD.
pub fn line(work: &str, measured: &str, [rsync, mailtwin]: [&Series; 2], unit: Unit, goal: &str) -> Vec<String> {
    let cells = [work, measured, &rsync.cell(unit), &mailtwin.cell(unit), &rsync.ratio(mailtwin), goal];
    cells.map(str::to_owned).into()
}
