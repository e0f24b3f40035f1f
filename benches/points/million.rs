//! What depends on the number of messages: finding one, the lists themselves, expiring, and memory.

use std::fs;
use std::path::{Path, PathBuf};

use super::Wishes;
use super::keeper::{self, Keeper, Keepers, Sought};
use super::line::{HEAD, MAILTWIN, Outlay, Trio, line, lines_of_room, pick};
use super::mailtwin::Mailtwin;
use super::proof;
use super::turnover::Turnover;
use crate::support::folder::Folder;
use crate::support::ground::{self, Ground};
use crate::support::options::Options;
use crate::support::random::Random;
use crate::support::table::{Report, Table, Unit, grouped};
use crate::support::tools::{Run, Tools};
use crate::support::tree::{self, SEED, Shape};
use crate::support::{Doing, Outcome, say};

pub fn run(wishes: &Wishes, ground: &mut Ground, tools: &Tools, report: &mut Report) -> Outcome<()> {
    if !wishes.any(&["find", "expire", "manifest", "memory"]) {
        return Ok(());
    }
    let options = &wishes.options;
    let shape = Shape::many(options.scaled(500));
    let source = ground.tree("many", &shape)?;
    let with_peers = !wishes.mailtwin_only && !wishes.small_peers && wishes.any(&["find", "expire"]);
    let peers = if with_peers { keeper::peers(ground, shape.room() / 2)? } else { Vec::new() };
    let ours = Mailtwin::new(ground.destination(shape.room())?);
    let turnover = Turnover::new(&source, &shape);
    let title = format!("{} messages of a few hundred bytes", grouped(shape.messages()));
    let (table, ledger) = (Table::new(&title, &HEAD), Vec::new());
    let kept = vec![0; peers.len() + 1];
    let mut stage =
        Stage { source, shape, peers, ours, turnover, changes: 0, kept, tools, ground, report, table, ledger };
    stage.first_fulls()?;
    if options.wants("find") {
        stage.find(options)?;
    }
    if options.wants("manifest") {
        stage.manifest()?;
    }
    if options.wants("expire") {
        stage.expire(options)?;
    }
    stage.prove()?;
    if options.wants("memory") {
        stage.memory(options)?;
    }
    let Stage { peers, ours, table, .. } = stage;
    report.tables.insert(report.tables.len() - usize::from(options.wants("memory")), table);
    keeper::retire(peers, ground, shape.room() / 2);
    keeper::retire(vec![Box::new(ours)], ground, shape.room());
    Ok(())
}

struct Stage<'a> {
    source: PathBuf,
    shape: Shape,
    peers: Keepers,
    ours: Mailtwin,
    turnover: Turnover,
    /// How often the tree has changed.
    changes: usize,
    /// At which change each of them kept it last.
    kept: Vec<usize>,
    tools: &'a Tools,
    ground: &'a mut Ground,
    report: &'a mut Report,
    table: Table,
    /// What mailtwin's commands took, by name.
    ledger: Vec<(&'static str, Outlay)>,
}

impl Stage<'_> {
    fn note(&mut self, command: &'static str, run: &Run) {
        say(format_args!("{command}: {:.2} s, {}", run.seconds(), Unit::Bytes.show(run.peak as f64)));
        match self.ledger.iter_mut().find(|(name, _)| *name == command) {
            Some((_, outlay)) => outlay.push(run),
            None => {
                let mut outlay = Outlay::default();
                outlay.push(run);
                self.ledger.push((command, outlay));
            }
        }
    }

    fn has(&self, command: &str) -> bool {
        self.ledger.iter().any(|(name, _)| *name == command)
    }

    fn first_fulls(&mut self) -> Outcome<()> {
        let mut trio = Trio::default();
        for at in 0..=self.peers.len() {
            let keeper: &mut dyn Keeper = self.peers.get_mut(at).map_or(&mut self.ours, |peer| peer.as_mut());
            keeper.begin(self.tools, &self.source)?;
            ground::warm(keeper.reads(&self.source))?;
            ground::sync();
            let run = keeper.full(self.tools, &self.source)?;
            say(format_args!("full, {}: {:.1} s", keeper::name(keeper), run.seconds()));
            let outlay = &mut trio[keeper.column()];
            outlay.push(&run);
            outlay.disk.push(proof::on_disk(&keeper.repository())? as f64);
            outlay.own.push(keeper.own_room()? as f64);
            if keeper.column() == MAILTWIN {
                self.note("backup --full, the first", &run);
            }
        }
        let table = &mut self.table;
        line(table, "the first full", "time", pick(&trio, |outlay| &outlay.wall), Unit::Seconds, "");
        lines_of_room(table, "bytes on the disk", &trio, "");
        line(table, "", "peak memory", pick(&trio, |outlay| &outlay.peak), Unit::Bytes, "");
        let ours: &dyn Keeper = &self.ours;
        let keepers = self.peers.iter().map(|peer| peer.as_ref()).chain([ours]);
        let remarks = keeper::remarks(keepers)?;
        self.report.notes.push(format!("{} messages: {remarks}", grouped(self.shape.messages())));
        Ok(())
    }

    /// A message in the middle of the tree.
    fn sought(&self) -> Outcome<Sought> {
        let folder = Folder::new(tree::maildir(&self.source, self.shape.users / 2).join(".Lists"));
        let names = folder.names("cur")?;
        let name = names.get(names.len() / 2).ok_or("no message to look for")?.clone();
        let path = folder.path.join("cur").join(&name);
        let text = fs::read_to_string(&path).doing(path.display())?;
        let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: "));
        let message_id = id.ok_or(format!("{} has no Message-ID", path.display()))?.to_owned();
        let path = path.strip_prefix(&self.source)?.display().to_string();
        Ok(Sought { message_id, name, path })
    }

    fn find(&mut self, options: &Options) -> Outcome<()> {
        let mut trio = Trio::default();
        let sought = self.sought()?;
        for round in 0..options.runs(5) {
            for at in 0..=self.peers.len() {
                let keeper: &dyn Keeper = self.peers.get(at).map_or(&self.ours, |peer| peer.as_ref());
                if round >= rounds_of(keeper, options, 5) {
                    continue;
                }
                let (run, found) = keeper.find(self.tools, &sought)?;
                let (column, name) = (keeper.column(), keeper::name(keeper));
                if found != [sought.path.as_str()] {
                    self.report.complain("find", format_args!("{name} found {found:?} in place of {}", sought.path));
                }
                trio[column].push(&run);
                if column == MAILTWIN {
                    self.note("find --message-id", &run);
                }
            }
        }
        let table = &mut self.table;
        let work = "one message found: by its Message-ID (restic and borg: by the name of its file)";
        line(table, work, "time", pick(&trio, |outlay| &outlay.wall), Unit::Seconds, "");
        line(table, "", "peak memory", pick(&trio, |outlay| &outlay.peak), Unit::Bytes, "");
        Ok(())
    }

    /// Sizes of the lists: of a full, and of differentials with more and more flag changes.
    fn manifest(&mut self) -> Outcome<()> {
        let full = size(&self.ours.backup(self.tools, "--full")?.manifest)?;
        let many = self.shape.messages().div_ceil(100);
        let mut random = Random::of(&[SEED, 12]);
        let mut messages = self.turnover.messages()?;
        let chosen = random.sample(&mut messages, many as usize).to_vec();
        let log = |stage: &Self| directory_size(&stage.ours.repository().join("log"));
        let before = log(self)?;
        let none = self.list_of_differential()?;
        self.turnover.change_flags(&chosen[..1], &mut random)?;
        let one = self.list_of_differential()?;
        self.turnover.change_flags(&chosen[1..], &mut random)?;
        self.changes += 1;
        let all = self.list_of_differential()?;
        let logged = log(self)? - before;
        let mut table = Table::new("Lists of restore points", &["list", "bytes", "of one message"]);
        let mut row = |what: &str, bytes: u64, count: u64| {
            let share = if count == 0 { "-".to_owned() } else { format!("{:.1} B", bytes as f64 / count as f64) };
            table.row(vec![what.to_owned(), grouped(bytes), share]);
        };
        row(&format!("a full of {} messages", grouped(self.shape.messages())), full, self.shape.messages());
        row("a differential in which nothing changed", none, 0);
        row("one flag change adds to a differential", one.saturating_sub(none), 1);
        row(&format!("{} flag changes add to a differential", grouped(many)), all.saturating_sub(none), many);
        row("they add to the log", logged, many);
        self.report.tables.push(table);
        Ok(())
    }

    fn list_of_differential(&mut self) -> Outcome<u64> {
        self.ours.sync(self.tools, &self.source)?;
        let made = self.ours.backup(self.tools, "--diff")?;
        self.note("backup --diff", &made.run);
        size(&made.manifest)
    }

    /// A second full, and then the first one goes: one message in a hundred is another one.
    fn expire(&mut self, options: &Options) -> Outcome<()> {
        let (mut fulls, mut trio) = (Trio::default(), Trio::default());
        let rounds = options.runs(5);
        for round in 0..rounds {
            self.change()?;
            for at in 0..=self.peers.len() {
                let keeper: &dyn Keeper = self.peers.get(at).map_or(&self.ours, |peer| peer.as_ref());
                // The last rounds are everybody's, so that all have the same state in the end.
                if rounds - round <= rounds_of(keeper, options, 5) {
                    self.expire_by(at, &mut fulls, &mut trio)?;
                }
            }
        }
        let table = &mut self.table;
        let work = "a second full, one message in a hundred changed (restic and borg: the next backup)";
        line(table, work, "time", pick(&fulls, |outlay| &outlay.wall), Unit::Seconds, "");
        line(table, "", "peak memory", pick(&fulls, |outlay| &outlay.peak), Unit::Bytes, "");
        let work = "the older of two fulls removed: `expire` (`forget --prune`, `delete` and `compact`)";
        line(table, work, "time", pick(&trio, |outlay| &outlay.wall), Unit::Seconds, "");
        line(table, "", "peak memory", pick(&trio, |outlay| &outlay.peak), Unit::Bytes, "");
        Ok(())
    }

    fn change(&mut self) -> Outcome<()> {
        self.turnover.one_in_a_hundred(self.changes)?;
        self.changes += 1;
        Ok(())
    }

    fn expire_by(&mut self, at: usize, fulls: &mut Trio, trio: &mut Trio) -> Outcome<()> {
        let keeper: &mut dyn Keeper = self.peers.get_mut(at).map_or(&mut self.ours, |peer| peer.as_mut());
        let (column, name) = (keeper.column(), keeper::name(keeper));
        keeper.bring(self.tools, &self.source)?;
        let full = keeper.full(self.tools, &self.source)?;
        let before = keeper.states(self.tools)?;
        ground::sync();
        let run = keeper.expire(self.tools)?;
        let after = keeper.states(self.tools)?;
        say(format_args!("expire, {name}: {:.2} s, after a full of {:.1} s", run.seconds(), full.seconds()));
        if before < 2 || after != 1 {
            self.report.complain("expire", format_args!("{name} has {after} states, and had {before}"));
        }
        self.kept[at] = self.changes;
        fulls[column].push(&full);
        trio[column].push(&run);
        if column == MAILTWIN {
            self.note("backup --full, from the log", &full);
            self.note("expire", &run);
        }
        Ok(())
    }

    /// Every command that no other row has run.
    fn memory(&mut self, options: &Options) -> Outcome<()> {
        if !self.has("find --message-id") {
            let (run, _) = self.ours.find(self.tools, &self.sought()?)?;
            self.note("find --message-id", &run);
        }
        if !self.has("expire") {
            self.change()?;
            self.expire_by(self.peers.len(), &mut Trio::default(), &mut Trio::default())?;
        }
        self.change()?;
        self.ours.sync(self.tools, &self.source)?;
        let made = self.ours.backup(self.tools, "--diff")?;
        self.note("backup --diff, one message in a hundred changed", &made.run);
        for _ in 0..options.runs(5) {
            self.looks()?;
        }
        let standby = self.ours.standby();
        let (run, verified) = self.ours.run(self.tools, &["verify", "--json", &standby])?;
        let contents = verified[0]["contents"].as_u64().unwrap_or_default();
        if contents < self.shape.messages() {
            self.report.complain("memory", format_args!("verify read {contents} contents only"));
        }
        self.note("verify", &run);
        let title = format!("mailtwin's commands with {} messages", grouped(self.shape.messages()));
        let mut table = Table::new(&title, &["command", "time", "peak memory"]);
        for (name, outlay) in &self.ledger {
            table.row(vec![format!("`{name}`"), outlay.wall.cell(Unit::Seconds), outlay.peak.cell(Unit::Bytes)]);
        }
        self.report.tables.push(table);
        Ok(())
    }

    /// The commands that write nothing, or little.
    fn looks(&mut self) -> Outcome<()> {
        let (standby, user) = (self.ours.standby(), self.shape.users / 2);
        let directory = format!("user{user:04}/Maildir/.Sent/cur");
        let (run, listed) = self.ours.run(self.tools, &["ls", "--json", &standby, &directory])?;
        let there = self.source.join(&directory).read_dir().doing(&directory)?.count();
        if listed.as_array().map(Vec::len) != Some(there) {
            self.report.complain("memory", format_args!("ls of {directory} has not {there} entries"));
        }
        self.note("ls", &run);
        let (run, points) = self.ours.run(self.tools, &["points", "--json", &standby])?;
        if points.as_array().is_none_or(Vec::is_empty) {
            self.report.complain("memory", format_args!("points printed {points}"));
        }
        self.note("points", &run);
        let run = self.restore_one(self.peers.len())?;
        self.note("restore --mailbox", &run);
        Ok(())
    }

    /// One mailbox, restored and compared.
    fn restore_one(&mut self, at: usize) -> Outcome<Run> {
        let mailbox = format!("user{:04}", self.shape.users / 2);
        let room = self.shape.room() / self.shape.users;
        let to = self.ground.destination(room)?;
        let keeper: &dyn Keeper = self.peers.get(at).map_or(&self.ours, |peer| peer.as_ref());
        let run = keeper.restore(self.tools, Some(&mailbox), &to)?;
        if let Err(difference) = proof::restored(&self.source, Some(&mailbox), &to) {
            let work = format!("restore of {mailbox} by {}", keeper::name(keeper));
            self.report.complain(&work, difference);
        }
        self.ground.retire(to, room);
        Ok(run)
    }

    /// What all this worked on can still be brought back.
    fn prove(&mut self) -> Outcome<()> {
        for at in 0..=self.peers.len() {
            let keeper: &mut dyn Keeper = self.peers.get_mut(at).map_or(&mut self.ours, |peer| peer.as_mut());
            if self.kept[at] < self.changes {
                keeper.bring(self.tools, &self.source)?;
                keeper.differential(self.tools, &self.source)?;
            }
            self.restore_one(at)?;
        }
        Ok(())
    }
}

/// restic and borg take minutes with a million messages: one round, unless somebody asks for more.
fn rounds_of(keeper: &dyn Keeper, options: &Options, usual: usize) -> usize {
    match keeper.column() {
        MAILTWIN => options.runs(usual),
        _ => options.runs.unwrap_or(1),
    }
}

fn size(path: &Path) -> Outcome<u64> {
    Ok(path.metadata().doing(path.display())?.len())
}

/// Bytes in the files of a directory.
fn directory_size(path: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path).doing(path.display())? {
        bytes += size(&entry.doing(path.display())?.path())?;
    }
    Ok(bytes)
}
