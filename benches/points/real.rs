//! Mail of real sizes: a full, a day's differential, and what is brought back from them.

use std::path::PathBuf;

use super::Wishes;
use super::keeper::{self, Keeper, Keepers, turns};
use super::line::{HEAD, MAILTWIN, Trio, line, lines_of_room, pick};
use super::proof;
use super::turnover::Turnover;
use crate::support::ground::{self, Ground};
use crate::support::options::Options;
use crate::support::table::{Report, Series, Table, Unit, grouped};
use crate::support::tools::Tools;
use crate::support::tree::{Shape, Texture};
use crate::support::{Outcome, say};

/// Whose mailbox is brought back alone.
const MAILBOX: &str = "user0000";

/// Eight users with ten folders each, and one who has a third of all mail in one folder.
fn shape(options: &Options) -> Shape {
    let (messages_in_folder, archive) = (options.scaled(500), options.scaled(20_000));
    Shape { users: 8, folders: 10, messages_in_folder, archive, texture: Texture::Real }
}

pub fn run(wishes: &Wishes, ground: &mut Ground, tools: &Tools, report: &mut Report) -> Outcome<()> {
    if !wishes.any(&["full", "differential", "restore-all", "restore-one"]) {
        return Ok(());
    }
    let options = &wishes.options;
    let shape = shape(options);
    let source = ground.tree("kept", &shape)?;
    let bytes = ground::warm(&source)?;
    let keepers = keeper::all(wishes, ground, shape.room())?;
    let turnover = Turnover::new(&source, &shape);
    let title = format!("Restore points of {} messages, {}", grouped(shape.messages()), Unit::Bytes.show(bytes as f64));
    let table = Table::new(&title, &HEAD);
    let mut stage = Stage { source, shape, keepers, turnover, changes: 0, tools, ground, report, table };
    stage.fulls(options)?;
    stage.differentials(options)?;
    stage.restores(options)?;
    let Stage { keepers, table, .. } = stage;
    report.tables.push(table);
    keeper::retire(keepers, ground, shape.room());
    Ok(())
}

struct Stage<'a> {
    source: PathBuf,
    shape: Shape,
    keepers: Keepers,
    turnover: Turnover,
    /// How often the tree has changed.
    changes: usize,
    tools: &'a Tools,
    ground: &'a mut Ground,
    report: &'a mut Report,
    table: Table,
}

impl Stage<'_> {
    fn fulls(&mut self, options: &Options) -> Outcome<()> {
        let mut trio = Trio::default();
        let wanted = options.wants("full");
        for round in 0..if wanted { options.runs(3) } else { 1 } {
            for at in turns(self.keepers.len(), round) {
                let keeper = self.keepers[at].as_mut();
                keeper.begin(self.tools, &self.source)?;
                ground::warm(keeper.reads(&self.source))?;
                ground::sync();
                let run = keeper.full(self.tools, &self.source)?;
                let flush = proof::flush(keeper.place())?;
                say(format_args!("full, {}: {:.1} s", keeper::name(keeper), run.seconds()));
                let outlay = &mut trio[keeper.column()];
                outlay.push(&run);
                outlay.durable.push(run.seconds() + flush);
                outlay.disk.push(proof::on_disk(&keeper.repository())? as f64);
                outlay.own.push(keeper.own_room()? as f64);
            }
        }
        if !wanted {
            return Ok(());
        }
        let remarks = keeper::remarks(self.keepers.iter().map(|keeper| keeper.as_ref()))?;
        self.report.notes.push(format!("{} messages: {remarks}", grouped(self.shape.messages())));
        let work = format!("a full of {} messages", grouped(self.shape.messages()));
        let table = &mut self.table;
        line(table, &work, "time", pick(&trio, |outlay| &outlay.wall), Unit::Seconds, "");
        line(table, "", "time with `sync -f`", pick(&trio, |outlay| &outlay.durable), Unit::Seconds, "");
        line(table, "", "user + system", pick(&trio, |outlay| &outlay.cpu), Unit::Seconds, "");
        lines_of_room(table, "bytes on the disk", &trio, "0.75 of the smaller");
        line(table, "", "peak memory", pick(&trio, |outlay| &outlay.peak), Unit::Bytes, "");
        Ok(())
    }

    fn differentials(&mut self, options: &Options) -> Outcome<()> {
        let (mut trio, mut syncs, mut changed) = (Trio::default(), Series::default(), 0);
        let wanted = options.wants("differential");
        for round in 0..if wanted { options.runs(5) } else { 1 } {
            if round > 0 {
                self.keepers.iter_mut().try_for_each(|keeper| keeper.ground_level(self.tools, &self.source))?;
            }
            changed = self.turnover.one_in_a_hundred(self.changes)?;
            self.changes += 1;
            ground::warm(&self.source)?;
            for at in turns(self.keepers.len(), round) {
                self.differential(at, &mut trio, &mut syncs)?;
            }
        }
        if !wanted {
            return Ok(());
        }
        self.report.notes.push(format!(
            "The `mailtwin sync` that brings the changes of a differential: {}.",
            syncs.cell(Unit::Seconds)
        ));
        let work = format!("a differential, {} of {} changed", grouped(changed as u64), grouped(self.shape.messages()));
        let table = &mut self.table;
        line(table, &work, "time", pick(&trio, |outlay| &outlay.wall), Unit::Seconds, "20 times faster");
        let with_sync = pick(&trio, |outlay| &outlay.with_sync);
        line(table, "", "time, mailtwin with the `sync` before it", with_sync, Unit::Seconds, "");
        line(table, "", "user + system", pick(&trio, |outlay| &outlay.cpu), Unit::Seconds, "");
        lines_of_room(table, "bytes more on the disk", &trio, "");
        line(table, "", "peak memory", pick(&trio, |outlay| &outlay.peak), Unit::Bytes, "");
        Ok(())
    }

    fn differential(&mut self, at: usize, trio: &mut Trio, syncs: &mut Series) -> Outcome<()> {
        let keeper = self.keepers[at].as_mut();
        ground::sync();
        let before = (proof::on_disk(&keeper.repository())?, keeper.own_room()?);
        let sync = keeper.bring(self.tools, &self.source)?.map_or(0.0, |run| run.seconds());
        let run = keeper.differential(self.tools, &self.source)?;
        say(format_args!("differential, {}: {:.2} s", keeper::name(keeper), run.seconds()));
        proof::flush(keeper.place())?;
        if keeper.column() == MAILTWIN {
            syncs.push(sync);
        }
        let outlay = &mut trio[keeper.column()];
        outlay.push(&run);
        outlay.with_sync.push(sync + run.seconds());
        outlay.disk.push(proof::on_disk(&keeper.repository())? as f64 - before.0 as f64);
        outlay.own.push(keeper.own_room()? as f64 - before.1 as f64);
        Ok(())
    }

    /// What was kept is also brought back where no row is about that: it proves the others.
    fn restores(&mut self, options: &Options) -> Outcome<()> {
        let all = format!("{} messages restored from a differential", grouped(self.shape.messages()));
        match options.wants("restore-all") {
            true => self.restore(None, options.runs(3), &all)?,
            false => drop(self.restored(None, 1)?),
        }
        if options.wants("restore-one") {
            let messages = self.shape.folders * self.shape.messages_in_folder;
            let one = format!("one mailbox of {} messages restored", grouped(messages));
            self.restore(Some(MAILBOX), options.runs(5), &one)?;
        }
        Ok(())
    }

    fn restore(&mut self, mailbox: Option<&str>, rounds: usize, work: &str) -> Outcome<()> {
        let trio = self.restored(mailbox, rounds)?;
        let table = &mut self.table;
        let ended = "time until it ends (only mailtwin's is on the disk then)";
        line(table, work, ended, pick(&trio, |outlay| &outlay.wall), Unit::Seconds, "");
        let durable = pick(&trio, |outlay| &outlay.durable);
        line(table, "", "time until it is on the disk (`sync -f`)", durable, Unit::Seconds, "");
        line(table, "", "user + system", pick(&trio, |outlay| &outlay.cpu), Unit::Seconds, "");
        line(table, "", "peak memory", pick(&trio, |outlay| &outlay.peak), Unit::Bytes, "");
        Ok(())
    }

    fn restored(&mut self, mailbox: Option<&str>, rounds: usize) -> Outcome<Trio> {
        let mut trio = Trio::default();
        let room = self.shape.room() / if mailbox.is_some() { 8 } else { 1 };
        for round in 0..rounds {
            for at in turns(self.keepers.len(), round) {
                let keeper: &dyn Keeper = self.keepers[at].as_ref();
                let to = self.ground.destination(room)?;
                ground::warm(&keeper.repository())?;
                ground::sync();
                let run = keeper.restore(self.tools, mailbox, &to)?;
                let flush = proof::flush(&to)?;
                let what = mailbox.unwrap_or("everything");
                say(format_args!("restore of {what}, {}: {:.1} s", keeper::name(keeper), run.seconds()));
                let outlay = &mut trio[keeper.column()];
                outlay.push(&run);
                outlay.durable.push(run.seconds() + flush);
                if let Err(difference) = proof::restored(&self.source, mailbox, &to) {
                    let work = format!("restore of {what} by {}", keeper::name(keeper));
                    self.report.complain(&work, difference);
                }
                self.ground.retire(to, room);
            }
        }
        Ok(trio)
    }
}
