//! A folder whose flags change while it is copied. Every message lives the whole time, so every one of them must be on the
//! mirror after each run, once; and at every moment in between.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::Wishes;
use super::pair::{Costs, Pair, RSYNC};
use crate::support::folder::{self, Folder};
use crate::support::ground::Ground;
use crate::support::options::Options;
use crate::support::random::Random;
use crate::support::table::{Report, Table, Unit, grouped};
use crate::support::tools::{Link, Tools};
use crate::support::tree::{self, Shape, Texture};
use crate::support::{Doing, Outcome};

const CHANGES_A_SECOND: u32 = 100;
/// A directory changed this lately may change again within the same tick of the file system's clock, unnoticed.
const TICK: Duration = Duration::from_millis(12);

pub fn run(wishes: &Wishes, ground: &mut Ground, tools: &Tools, report: &mut Report) -> Outcome<()> {
    let options = &wishes.options;
    let messages = options.scaled(20_000);
    let shape = Shape { users: 1, folders: 1, messages_in_folder: messages, archive: 0, texture: Texture::Small };
    let source = ground.tree("live", &shape)?;
    let pair = Pair::new(ground, source, shape.room(), !wishes.rsync_only)?;
    pair.settle(tools)?;
    let busy = Folder::new(tree::maildir(&pair.source, 0));
    let living: HashSet<String> = busy.names("cur")?.iter().map(|name| folder::base(name).to_owned()).collect();
    let mut records = [Record::new("rsync -aH --delete", &pair.rsync), Record::new("mailtwin", &pair.rsync)];
    if let Some(mirror) = &pair.mailtwin {
        records[1].mirror = tree::maildir(mirror, 0);
    }
    let storm = Storm::default();
    let rate = std::thread::scope(|scope| {
        let storming = scope.spawn(|| storm.blow(&busy).map_err(|error| error.to_string()));
        let runs = all_runs(options, &pair, tools, &living, &mut records).map_err(|error| error.to_string());
        storm.over.store(true, Ordering::Relaxed);
        let rate = storming.join().expect("the storm does not panic");
        runs.and(rate)
    })?;
    report.tables.push(tabulate(messages, rate, &records[..if wishes.rsync_only { 1 } else { 2 }]));
    let ours = &records[1];
    if ours.runs_missing + ours.runs_doubled + ours.moments_missing + ours.moments_doubled > 0 {
        report.complain("live", "a message was missing or doubled on mailtwin's mirror");
    }
    pair.settle(tools)?;
    pair.check("live", report);
    pair.retire(ground);
    Ok(())
}

fn all_runs(
    options: &Options,
    pair: &Pair,
    tools: &Tools,
    living: &HashSet<String>,
    records: &mut [Record; 2],
) -> Outcome<()> {
    for round in 0..options.runs(20) {
        for turn in 0..2 {
            let at = (turn + round) % 2;
            if at == 0 || pair.mailtwin.is_some() {
                one_run(at, pair, tools, living, &mut records[at])?;
            }
        }
    }
    Ok(())
}

/// A run, the mirror looked at again and again while it lasts, and once more when it has ended.
fn one_run(at: usize, pair: &Pair, tools: &Tools, living: &HashSet<String>, record: &mut Record) -> Outcome<()> {
    let over = AtomicBool::new(false);
    let mirror = Folder::new(record.mirror.clone());
    let run = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&mirror, living, &over).map_err(|error| error.to_string()));
        // 24: files vanished under rsync. 23: some could not be read. Both are to be expected here.
        let run = match (at, &pair.mailtwin) {
            (1, Some(mirror)) => tools.mailtwin(Link::Pipe, &pair.source, mirror, &[0, 23]),
            _ => tools.rsync(&RSYNC, Link::Pipe, &pair.source, &pair.rsync, &[0, 23, 24]),
        };
        over.store(true, Ordering::Relaxed);
        record.moments(&watching.join().expect("the watcher does not panic")?);
        run
    })?;
    record.costs.push(&run);
    record.ended_badly += u64::from(!run.status.success());
    record.after(&Look::at(&mirror, living)?);
    Ok(())
}

/// Changes flags until it is told to stop.
#[derive(Default)]
struct Storm {
    over: AtomicBool,
    changes: AtomicU64,
}

impl Storm {
    /// The rate that was reached, in changes a second.
    fn blow(&self, folder: &Folder) -> Outcome<f64> {
        let mut random = Random::of(&[8]);
        let mut names = folder.names("cur")?;
        let begun = Instant::now();
        for change in 1.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let at = random.below(names.len());
            names[at] = folder.change_flags(&names[at], &mut random)?;
            self.changes.store(u64::from(change), Ordering::Relaxed);
            let due = Duration::from_secs(1) * change / CHANGES_A_SECOND;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        Ok(self.changes.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
    }
}

/// How many living messages a listing lacks, and how many it has twice.
#[derive(Clone, Copy, Default)]
struct Look {
    missing: u64,
    doubled: u64,
}

impl Look {
    fn at(folder: &Folder, living: &HashSet<String>) -> Outcome<Self> {
        let names = [folder.names("new")?, folder.names("cur")?].concat();
        let mut seen: HashMap<&str, u64> = HashMap::new();
        // rsync's temporary files begin with a dot.
        for name in names.iter().filter(|name| !name.starts_with('.')) {
            *seen.entry(folder::base(name)).or_default() += 1;
        }
        let missing = living.iter().filter(|base| !seen.contains_key(base.as_str())).count() as u64;
        Ok(Self { missing, doubled: seen.values().filter(|count| **count > 1).count() as u64 })
    }
}

/// Looks at the mirror while a tool works on it. A listing counts only if the directories did not change meanwhile: readdir
/// itself may skip a file that is being renamed.
fn watch(mirror: &Folder, living: &HashSet<String>, over: &AtomicBool) -> Outcome<Vec<Look>> {
    let mut looks = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let before = times(mirror)?;
        if before.iter().all(|time| time.elapsed().is_ok_and(|age| age > TICK)) {
            let look = Look::at(mirror, living)?;
            if times(mirror)? == before {
                looks.push(look);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(looks)
}

fn times(folder: &Folder) -> Outcome<[SystemTime; 2]> {
    let time = |sub: &str| -> Outcome<SystemTime> {
        let path = folder.path.join(sub);
        path.metadata().and_then(|metadata| metadata.modified()).doing(path.display())
    };
    Ok([time("new")?, time("cur")?])
}

/// What became of one tool's runs.
struct Record {
    tool: &'static str,
    mirror: PathBuf,
    costs: Costs,
    runs: u64,
    ended_badly: u64,
    runs_missing: u64,
    runs_doubled: u64,
    most_missing: u64,
    looks: u64,
    moments_missing: u64,
    moments_doubled: u64,
}

impl Record {
    fn new(tool: &'static str, mirror: &Path) -> Self {
        Self {
            tool,
            mirror: tree::maildir(mirror, 0),
            costs: Costs::default(),
            runs: 0,
            ended_badly: 0,
            runs_missing: 0,
            runs_doubled: 0,
            most_missing: 0,
            looks: 0,
            moments_missing: 0,
            moments_doubled: 0,
        }
    }

    fn moments(&mut self, looks: &[Look]) {
        self.looks += looks.len() as u64;
        self.moments_missing += looks.iter().filter(|look| look.missing > 0).count() as u64;
        self.moments_doubled += looks.iter().filter(|look| look.doubled > 0).count() as u64;
    }

    fn after(&mut self, look: &Look) {
        self.runs += 1;
        self.runs_missing += u64::from(look.missing > 0);
        self.runs_doubled += u64::from(look.doubled > 0);
        self.most_missing = self.most_missing.max(look.missing);
    }
}

fn tabulate(messages: u64, rate: f64, records: &[Record]) -> Table {
    let title = format!("Live: a folder of {} messages, {rate:.0} flag changes a second", grouped(messages));
    let head = [
        "tool",
        "runs",
        "time",
        "ended with an error",
        "runs that left a message missing",
        "most missing",
        "runs that left one doubled",
        "moments looked at meanwhile",
        "with one missing",
        "with one doubled",
    ];
    let mut table = Table::new(&title, &head);
    for record in records {
        let counts = [
            record.ended_badly,
            record.runs_missing,
            record.most_missing,
            record.runs_doubled,
            record.looks,
            record.moments_missing,
            record.moments_doubled,
        ];
        let mut cells = vec![record.tool.to_owned(), record.runs.to_string(), record.costs.wall.cell(Unit::Seconds)];
        cells.extend(counts.map(grouped));
        table.row(cells);
    }
    table
}
