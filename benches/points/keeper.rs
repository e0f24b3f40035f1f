//! What is compared: a program that keeps a tree as it was, with a repository of its own on the same disk.

use std::fs;
use std::path::{Path, PathBuf};

use super::line::{BORG, MAILTWIN, RESTIC};
use super::{Wishes, borg::Borg, mailtwin::Mailtwin, proof, restic::Restic};
use crate::support::ground::Ground;
use crate::support::tools::{Run, Tools};
use crate::support::{Doing, Outcome};

/// A message that is looked for.
pub struct Sought {
    pub message_id: String,
    /// The name of its file.
    pub name: String,
    /// Its path in the tree.
    pub path: String,
}

/// Keeps a tree as it was, and brings it back.
pub trait Keeper {
    /// Its column in a table.
    fn column(&self) -> usize;

    /// Its directory: everything that it writes anywhere lies in it.
    fn place(&self) -> &Path;

    /// What takes room on the disk so that something can be restored.
    fn repository(&self) -> PathBuf;

    /// Room on the disk of what is there because something was kept.
    fn own_room(&self) -> Outcome<u64> {
        proof::on_disk(&self.repository())
    }

    /// A repository that has nothing in it.
    fn begin(&mut self, tools: &Tools, source: &Path) -> Outcome<()>;

    /// What it reads to keep all of `source`.
    fn reads<'a>(&'a self, source: &'a Path) -> &'a Path {
        source
    }

    /// What has to be run before it can keep `source` as it is now.
    fn bring(&self, _tools: &Tools, _source: &Path) -> Outcome<Option<Run>> {
        Ok(None)
    }

    /// Keeps everything, and depends on nothing before it.
    fn full(&mut self, tools: &Tools, source: &Path) -> Outcome<Run>;

    /// Makes now what the next differential begins from.
    fn ground_level(&mut self, _tools: &Tools, _source: &Path) -> Outcome<()> {
        Ok(())
    }

    /// Keeps what has changed.
    fn differential(&mut self, tools: &Tools, source: &Path) -> Outcome<Run>;

    /// Brings the newest state back into `to`, or one mailbox of it.
    fn restore(&self, tools: &Tools, mailbox: Option<&str>, to: &Path) -> Outcome<Run>;

    /// Looks for a message in the newest state; the paths that were found.
    fn find(&self, tools: &Tools, sought: &Sought) -> Outcome<(Run, Vec<String>)>;

    /// Removes all but the newest full, and frees their room.
    fn expire(&mut self, tools: &Tools) -> Outcome<Run>;

    /// How many states can be restored.
    fn states(&self, tools: &Tools) -> Outcome<usize>;

    /// What else is to be known of what it has on the disk.
    fn remark(&self) -> Outcome<String>;
}

pub type Keepers = Vec<Box<dyn Keeper>>;

/// restic and borg; each may take `room` bytes.
pub fn peers(ground: &mut Ground, room: u64) -> Outcome<Keepers> {
    let restic = Restic::new(ground.destination(room)?)?;
    let borg = Borg::new(ground.destination(room)?)?;
    Ok(vec![Box::new(restic), Box::new(borg)])
}

/// All who take part.
pub fn all(wishes: &Wishes, ground: &mut Ground, room: u64) -> Outcome<Keepers> {
    let mut keepers = if wishes.mailtwin_only { Vec::new() } else { peers(ground, room)? };
    keepers.push(Box::new(Mailtwin::new(ground.destination(room)?)));
    Ok(keepers)
}

/// Who comes when: another one is first in each round.
pub fn turns(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}

/// What they wrote may go when its room is needed.
pub fn retire(keepers: Keepers, ground: &mut Ground, room: u64) {
    for keeper in keepers {
        ground.retire(keeper.place().to_owned(), room);
    }
}

/// What is to be known of the table.
pub fn remarks<'a>(keepers: impl Iterator<Item = &'a dyn Keeper>) -> Outcome<String> {
    let remarks = keepers.map(Keeper::remark).collect::<Outcome<Vec<_>>>()?;
    Ok(format!("{}.", remarks.join("; ")))
}

pub fn name(keeper: &dyn Keeper) -> &'static str {
    match keeper.column() {
        RESTIC => "restic",
        BORG => "borg",
        MAILTWIN => "mailtwin",
        _ => "nobody",
    }
}

/// An empty directory of that name, whatever was there.
pub fn anew(place: &Path, name: &str) -> Outcome<()> {
    let path = place.join(name);
    if path.exists() {
        fs::remove_dir_all(&path).doing(path.display())?;
    }
    fs::create_dir_all(&path).doing(path.display())
}
