//! The first copy of real mail: what each tool takes, and whether the copy would survive a power cut.

use std::path::Path;
use std::time::Instant;

use super::Wishes;
use super::changes;
use super::pair::Costs;
use crate::support::compare;
use crate::support::ground::{self, Ground};
use crate::support::table::{Report, Series, Table, Unit, grouped};
use crate::support::tools::{Link, Run, Tools};
use crate::support::{Outcome, say};

enum Copier {
    Cp,
    Rsync(&'static [&'static str]),
    Mailtwin(Link),
}

struct Variant {
    name: &'static str,
    copier: Copier,
    /// On the disk when it ends.
    durable: bool,
    goal: &'static str,
}

const VARIANTS: [Variant; 6] = [
    Variant { name: "cp -a", copier: Copier::Cp, durable: false, goal: "" },
    Variant { name: "rsync -aH", copier: Copier::Rsync(&["-aH"]), durable: false, goal: "" },
    Variant { name: "rsync -aH --fsync", copier: Copier::Rsync(&["-aH", "--fsync"]), durable: true, goal: "" },
    Variant {
        name: "rsync -aHz --compress-choice=zstd",
        copier: Copier::Rsync(&["-aHz", "--compress-choice=zstd"]),
        durable: false,
        goal: "",
    },
    Variant {
        name: "mailtwin, DEST a directory",
        copier: Copier::Mailtwin(Link::Local),
        durable: true,
        goal: "no longer than rsync -aH",
    },
    Variant {
        name: "mailtwin through a pipe",
        copier: Copier::Mailtwin(Link::Pipe),
        durable: true,
        goal: "under 700 MB sent",
    },
];
const BASE: usize = 1;
const ZSTD: usize = 3;

#[derive(Default)]
struct Outlay {
    costs: Costs,
    /// sync(1) right after the run: what was not on the disk yet.
    flush: Series,
}

pub fn run(wishes: &Wishes, ground: &mut Ground, tools: &Tools, report: &mut Report) -> Outcome<()> {
    let options = &wishes.options;
    let shape = changes::shape(options);
    let source = ground.tree("real", &shape)?;
    let bytes = ground::warm(&source)?;
    let work = format!("First copy of {} messages, {}", grouped(shape.messages()), Unit::Bytes.show(bytes as f64));
    let chosen: Vec<usize> = (0..VARIANTS.len()).filter(|at| !wishes.rsync_only || !VARIANTS[*at].is_ours()).collect();
    let mut outlays: Vec<Outlay> = VARIANTS.iter().map(|_| Outlay::default()).collect();
    for round in 0..options.runs(3) {
        for turn in 0..chosen.len() {
            let at = chosen[(turn + round) % chosen.len()];
            let variant = &VARIANTS[at];
            let run = variant.copy(&source, shape.room(), ground, tools, &mut outlays[at], report)?;
            say(format_args!("first copy, {}: {:.1} s", variant.name, run.seconds()));
        }
    }
    report.tables.push(tabulate(&work, &chosen, &outlays));
    report.notes.push(compressibility(bytes, &outlays[ZSTD].costs.wire));
    Ok(())
}

impl Variant {
    fn is_ours(&self) -> bool {
        matches!(self.copier, Copier::Mailtwin(_))
    }

    fn copy(
        &self,
        source: &Path,
        room: u64,
        ground: &mut Ground,
        tools: &Tools,
        outlay: &mut Outlay,
        report: &mut Report,
    ) -> Outcome<Run> {
        let mirror = ground.destination(room)?;
        ground::warm(source)?;
        ground::sync();
        let run = match self.copier {
            Copier::Cp => tools.cp("-a", source, &mirror)?,
            Copier::Rsync(flags) => tools.rsync(flags, Link::Local, source, &mirror, &[0])?,
            Copier::Mailtwin(link) => tools.mailtwin(link, source, &mirror, &[0])?,
        };
        let ended = Instant::now();
        ground::sync();
        outlay.flush.push(ended.elapsed().as_secs_f64());
        outlay.costs.push(&run);
        if let Err(difference) = compare::same(source, &mirror) {
            report.complain(self.name, difference);
        }
        ground.retire(mirror, room);
        Ok(run)
    }
}

fn tabulate(work: &str, chosen: &[usize], outlays: &[Outlay]) -> Table {
    let head = [
        "tool",
        "time",
        "to rsync -aH",
        "sent",
        "user + system",
        "sync(1) afterwards",
        "on the disk when it ends",
        "goal",
    ];
    let mut table = Table::new(work, &head);
    for at in chosen {
        let (variant, Outlay { costs, flush }) = (&VARIANTS[*at], &outlays[*at]);
        table.row(vec![
            variant.name.to_owned(),
            costs.wall.cell(Unit::Seconds),
            costs.wall.ratio(&outlays[BASE].costs.wall),
            if matches!(variant.copier, Copier::Cp) { "-".to_owned() } else { costs.wire.cell(Unit::Bytes) },
            costs.cpu.cell(Unit::Seconds),
            flush.cell(Unit::Seconds),
            if variant.durable { "yes" } else { "no" }.to_owned(),
            variant.goal.to_owned(),
        ]);
    }
    table
}

/// How hard the mail is to compress, in the terms of a tool that everybody has.
fn compressibility(bytes: u64, wire: &Series) -> String {
    let ratio = bytes as f64 / wire.median().unwrap_or(f64::NAN);
    format!(
        "The mail is made from a seed: texts and attachments. rsync's zstd (one stream, level 3) makes {ratio:.2}:1 of it."
    )
}
