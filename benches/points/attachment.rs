//! One attachment in many messages: a circular that everybody got. Its bytes are the same in each, behind other headers.

use std::path::Path;

use super::Wishes;
use super::keeper::{self, turns};
use super::line::{HEAD, Trio, line, lines_of_room, pick};
use super::proof;
use super::turnover::put_new;
use crate::support::attachment::contents;
use crate::support::folder::Folder;
use crate::support::ground::{self, Ground};
use crate::support::mail::{Key, MailMaker};
use crate::support::prose::Prose;
use crate::support::random::Random;
use crate::support::table::{Report, Table, Unit, grouped};
use crate::support::tools::Tools;
use crate::support::tree::{self, SEED, Shape, Texture};
use crate::support::{Outcome, say};

const ATTACHMENTS: u64 = 5;
const BYTES: usize = 2_000_000;
const USERS: u64 = 10;
/// The circulars went out on one day.
const SENT: u64 = 1_794_000_000;

pub fn run(wishes: &Wishes, ground: &mut Ground, tools: &Tools, report: &mut Report) -> Outcome<()> {
    if !wishes.options.wants("attachment") {
        return Ok(());
    }
    let copies = wishes.options.scaled(40);
    let room = ATTACHMENTS * copies * BYTES as u64 * 3 / 2;
    let source = ground.destination(room)?;
    make(&source, copies)?;
    let bytes = ground::warm(&source)?;
    let mut keepers = keeper::all(wishes, ground, room)?;
    let mut trio = Trio::default();
    for round in 0..wishes.options.runs(1) {
        for at in turns(keepers.len(), round) {
            let keeper = keepers[at].as_mut();
            keeper.begin(tools, &source)?;
            ground::warm(keeper.reads(&source))?;
            ground::sync();
            let run = keeper.full(tools, &source)?;
            say(format_args!("attachments, {}: {:.1} s", keeper::name(keeper), run.seconds()));
            proof::flush(keeper.place())?;
            let outlay = &mut trio[keeper.column()];
            outlay.push(&run);
            outlay.disk.push(proof::on_disk(&keeper.repository())? as f64);
            outlay.own.push(keeper.own_room()? as f64);
        }
    }
    for keeper in &keepers {
        let to = ground.destination(room)?;
        keeper.restore(tools, None, &to)?;
        if let Err(difference) = proof::restored(&source, None, &to) {
            report.complain(&format!("attachments by {}", keeper::name(keeper.as_ref())), difference);
        }
        ground.retire(to, room);
    }
    let title = format!(
        "{} messages, {}: each of {ATTACHMENTS} attachments of {} in {copies} of them",
        grouped(ATTACHMENTS * copies),
        Unit::Bytes.show(bytes as f64),
        Unit::Bytes.show(BYTES as f64)
    );
    let mut table = Table::new(&title, &HEAD);
    line(&mut table, "a full of them", "time", pick(&trio, |outlay| &outlay.wall), Unit::Seconds, "");
    lines_of_room(&mut table, "bytes on the disk", &trio, "");
    report.tables.push(table);
    keeper::retire(keepers, ground, room);
    ground.retire(source, room);
    Ok(())
}

/// Mailboxes with an empty inbox, into which the circulars are delivered in turn.
fn make(source: &Path, copies: u64) -> Outcome<()> {
    let shape = Shape { users: USERS, folders: 1, messages_in_folder: 0, archive: 0, texture: Texture::Real };
    tree::ensure(source, &shape)?;
    let (maker, prose) = (MailMaker::new(SEED), Prose::new(SEED));
    let mut names = vec![Vec::new(); USERS as usize];
    for attachment in 0..ATTACHMENTS {
        let attached = contents(&mut Random::of(&[SEED, 11, attachment]), &prose, BYTES);
        for copy in 0..copies {
            let number = attachment * copies + copy;
            let (user, sent) = (number % USERS, SENT + number);
            let key = Key { user, folder: 0, number };
            let mut bytes = Vec::new();
            maker.message(key, sent, Some(&attached), &mut bytes);
            names[user as usize].push(put_new(&tree::maildir(source, user), key, sent, &bytes)?);
        }
    }
    let come = |(user, names): (u64, Vec<String>)| Folder::new(tree::maildir(source, user)).edit_uidlist(&[], &names);
    (0..).zip(names).try_for_each(come)
}
