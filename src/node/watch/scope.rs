//! What belongs to the set, and so what is worth an event; where events come from.

use super::WatchKind;
use super::gather::{Cause, Dirt};
use crate::catalogue::filter::Filter;
use crate::maildir::entry::Look;
use crate::maildir::folder::{self, SetKind};
use crate::path::{Name, RESERVED, TreePath};
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// What is watched for.
#[derive(Debug)]
pub struct Scope {
    /// What kind of tree it is.
    pub kind: SetKind,
    /// What belongs to it.
    pub filter: Filter,
}

impl Scope {
    /// Whether a directory of this name holds messages, where it stands in a folder.
    pub fn holds_messages(&self, name: &[u8]) -> bool {
        self.kind == SetKind::Maildir && folder::holds_messages(name)
    }

    /// Whether a directory of this name belongs to its folder, where it stands in one.
    pub fn is_part(&self, name: &[u8]) -> bool {
        self.kind == SetKind::Maildir && folder::is_part(name)
    }

    /// Whether a directory belongs to the set.
    pub fn takes_directory(&self, path: &TreePath) -> bool {
        path.as_bytes() != RESERVED && self.filter.takes(path, true)
    }

    /// Whether a file belongs to the set.
    pub fn takes_file(&self, directory: &TreePath, is_messages: bool, name: &Name) -> bool {
        if is_messages && self.filter.takes_every_message() {
            return true;
        }
        self.filter.takes(&directory.join(name), false)
    }

    /// Whether what is in a folder's `tmp` belongs to the set: as a rule not.
    pub fn takes_tmp(&self, tmp: &TreePath) -> bool {
        self.filter.takes_from_tmp(tmp)
    }
}

/// A directory that is known from the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its path.
    pub path: TreePath,
    /// How it looked when it was listed last: what was in it then is known, too.
    pub look: Option<Look>,
}

/// What a source of events has to say.
#[derive(Debug, Default)]
pub struct Heard {
    /// Units that are dirty, the latest last.
    pub dirty: Vec<(TreePath, Dirt)>,
    /// What happened is not known.
    pub everything: Option<Cause>,
    /// Said once.
    pub notices: Vec<String>,
    /// The root is no more what it was: nothing more will be heard.
    pub ended: Option<String>,
}

impl Heard {
    /// Notes one event; many of one folder in a row are one note.
    pub fn note(&mut self, unit: TreePath, new_mail: bool, below: bool) {
        match self.dirty.last_mut() {
            Some((last, dirt)) if *last == unit => {
                dirt.events += 1;
                dirt.new_mail |= new_mail;
                dirt.below |= below;
            }
            _ => self.dirty.push((unit, Dirt { new_mail, below, events: 1 })),
        }
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.everything.is_none() && self.notices.is_empty() && self.ended.is_none()
    }
}

/// How many directories are followed, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By events.
    pub watched: usize,
    /// By looking at them again and again.
    pub polled: usize,
}

/// Where events come from. One thread calls it: first [`Source::begin`], then [`Source::listen`] whenever its descriptor
/// has something to read or it is due.
///
/// What it owes: a change in the tree after `begin` has returned is told by a later `listen` (or covered by `everything`),
/// as the unit that the scan would look at; a change that a mail program makes by reading is not told.
pub trait Source: Send {
    /// Which it is.
    fn kind(&self) -> WatchKind;

    /// Sets up. `known` comes parents first.
    ///
    /// # Errors
    /// Where it cannot work here.
    fn begin(&mut self, known: Vec<Known>, heard: &mut Heard) -> Result<(), String>;

    /// Readable when there is something to listen to.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// When it wants to be called though nothing is to be read.
    fn due(&self) -> Option<Instant>;

    /// Tells what happened.
    ///
    /// # Errors
    /// Where it works no more.
    fn listen(&mut self, now: Instant, heard: &mut Heard) -> Result<(), String>;

    /// What it follows.
    fn tally(&self) -> Tally;
}
