//! Directories followed one by one: by inotify where it goes, by looking ([`super::poll`]) where it does not.
//!
//! * A watch is known by the number that the kernel gives for a directory, wherever that is: asked to watch a directory
//!   again it gives the same. So after a rename the kernel says which of the watched directories stands there now; names
//!   in events, which may be older than what is on disk, are never believed for that.
//! * A directory that appears is watched first and then listed, and so are those in it, since what was made in it before
//!   its watch stood is never told; then it is dirty with everything below it.
//! * A folder's `tmp` is not watched, nor are `cur` and `new` ever listed. What a set leaves out makes no folder dirty: so
//!   reading mail, which makes a mail server write its indexes and locks, does not.
//! * When the queue ran over all directories but those of messages are listed, what is not watched is, and everything is
//!   dirty.
//! * Watches exhausted: the directories that got none are looked at in turn, those of file systems that tell nothing, too.
//!
//! Watches are rustix's, which is here anyway, and not those of notify: notify 8.2, its last stable version, asks for every
//! opening of a file too, so that mail being read, and a first copy by this program, run its queue over; it takes absolute
//! paths, which a tree may be too deep for; it keeps a renamed directory under its old path, and does not give the number
//! that tells which directory it was.

use super::WatchKind;
use super::gather::Cause;
use super::poll::Rota;
use super::scope::{Heard, Known, Scope, Source, Tally};
use super::tree::{Eye, Id, ROOT, Tree};
use crate::disk::{Event, Events, FileKind, Root, Stat, Tells, WatchId, is_exhausted};
use crate::path::{Name, TreePath};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the other half of a rename may take to arrive.
const LIMBO: Duration = Duration::from_secs(2);

/// Between the halves of a rename those of others may come.
const DEPARTED: usize = 64;

/// Buffers read in one go, before what was heard is handed on.
const READS: usize = 4;

/// The events of a tree, directory by directory.
pub struct Watches {
    pub(super) root: Root,
    pub(super) scope: Arc<Scope>,
    pub(super) tree: Tree,
    pub(super) rota: Rota,
    events: Option<Events>,
    /// The watch of the directory that the root is in.
    above: Option<WatchId>,
    /// Most watches to take.
    most: usize,
    /// Directories that got none.
    refused: usize,
    is_said: bool,
    /// Directories whose place is not known, and until when they are kept.
    limbo: BTreeMap<Id, Instant>,
    /// Which devices tell nothing.
    shared: HashMap<u64, bool>,
    /// Renames of messages of which the second half may come.
    departed: VecDeque<u32>,
}

/// A directory to be followed, and what is known of it.
struct Place {
    parent: Option<Id>,
    name: Option<Name>,
    /// It is a folder's `cur`, `new` or `tmp`.
    is_part: bool,
}

impl Watches {
    /// By inotify, with at most so many watches.
    ///
    /// # Errors
    /// Where the kernel gives no queue.
    pub fn inotify(root: Root, scope: Arc<Scope>, most: Option<usize>) -> std::io::Result<Self> {
        let events = Events::new()?;
        Ok(Self { events: Some(events), most: most.unwrap_or(usize::MAX), ..Self::poll(root, scope) })
    }

    /// By looking only.
    pub fn poll(root: Root, scope: Arc<Scope>) -> Self {
        Self {
            root,
            scope,
            tree: Tree::default(),
            rota: Rota::default(),
            events: None,
            above: None,
            most: 0,
            refused: 0,
            is_said: false,
            limbo: BTreeMap::new(),
            shared: HashMap::new(),
            departed: VecDeque::new(),
        }
    }

    /// Whether a directory is a Maildir folder.
    pub(super) fn is_folder(&self, id: Id) -> bool {
        let has = |name: &[u8]| self.scope.holds_messages(name) && self.tree.child(id, name).is_some();
        has(b"cur") && has(b"new")
    }

    /// The folder that a directory is a part of.
    pub(super) fn folder_of(&self, id: Id) -> Option<Id> {
        let node = self.tree.get(id)?;
        let parent = node.parent.filter(|_| self.scope.is_part(node.name()))?;
        self.is_folder(parent).then_some(parent)
    }

    /// What the scan looks at to see what changed in a directory.
    pub(super) fn unit_of(&self, id: Id) -> Option<TreePath> {
        self.tree.path(self.folder_of(id).unwrap_or(id))
    }

    /// Follows a directory, which may be followed already, and those in it that it does not know.
    pub(super) fn survey(&mut self, parent: Id, name: Name, heard: &mut Heard) -> Option<Id> {
        let is_part = self.scope.is_part(name.as_bytes()) && self.is_folder(parent);
        let (first, _) = self.follow(Place { parent: Some(parent), name: Some(name), is_part }, heard)?;
        self.survey_below(first, heard);
        Some(first)
    }

    /// Lists a directory that is followed, and those in it, and follows what is there.
    fn survey_below(&mut self, from: Id, heard: &mut Heard) {
        let mut stack = vec![from];
        while let Some(id) = stack.pop() {
            if self.folder_of(id).is_some() && self.tree.get(id).is_some_and(|node| node.name() != b"tmp") {
                continue;
            }
            let Some(names) = self.directories_in(id) else { continue };
            let has = |name: &[u8]| names.iter().any(|other| other.as_bytes() == name);
            let is_folder = self.scope.holds_messages(b"cur") && has(b"cur") && has(b"new");
            self.drop_missing(id, &names);
            for name in names {
                let is_part = is_folder && self.scope.is_part(name.as_bytes());
                let listed = !is_part || name.as_bytes() == b"tmp";
                let place = Place { parent: Some(id), name: Some(name), is_part };
                if let (Some((child, _)), true) = (self.follow(place, heard), listed) {
                    stack.push(child);
                }
            }
        }
    }

    /// The names of the directories in one that belong to the set; `None` where it cannot be listed.
    fn directories_in(&self, id: Id) -> Option<Vec<Name>> {
        let path = self.tree.path(id)?;
        let (listing, _) = self.root.list(&path, 64).ok()?;
        let is_directory = |name: &Name, kind: Option<FileKind>| match kind {
            Some(kind) => kind == FileKind::Directory,
            None => self.root.stat(&path.join(name)).is_ok_and(|stat| stat.kind == FileKind::Directory),
        };
        let entries = listing.entries.into_iter().filter(|entry| is_directory(&entry.name, entry.kind));
        Some(entries.map(|entry| entry.name).filter(|name| self.scope.takes_directory(&path.join(name))).collect())
    }

    /// Those that are not where they were may be anywhere.
    fn drop_missing(&mut self, id: Id, names: &[Name]) {
        let Some(node) = self.tree.get(id) else { return };
        let missing: Vec<Id> =
            node.children.iter().filter(|(name, _)| names.binary_search(name).is_err()).map(|(_, id)| *id).collect();
        for id in missing {
            self.set_aside(id);
        }
    }

    /// Follows one directory; `None` where it is not there or does not belong to the set.
    fn follow(&mut self, place: Place, heard: &mut Heard) -> Option<(Id, Stat)> {
        let path = match (&place.parent, &place.name) {
            (Some(parent), Some(name)) => self.tree.path(*parent)?.join(name),
            _ => TreePath::root(),
        };
        if !path.is_root() && !self.scope.takes_directory(&path) {
            return None;
        }
        let name = path.name();
        if place.is_part && name == b"tmp" && !self.scope.takes_tmp(&path) {
            // It was followed before its neighbours made a folder of the directory that it is in.
            if let Some(known) = self.tree.find(&path) {
                self.forget(known);
            }
            return None;
        }
        let tells = match (&place.name, self.scope.holds_messages(name)) {
            (None, _) => Tells::Itself,
            (Some(_), true) => Tells::Names,
            (Some(_), false) => Tells::Changes,
        };
        let (watch, stat) = self.watch(&path, tells, heard)?;
        let id = match watch {
            Some(watch) => self.place_watched(place, watch, &stat),
            None => self.place_polled(place, &stat),
        };
        Some((id?, stat))
    }

    /// Watches a directory, if a watch can be had; `None` where it is not there.
    fn watch(&mut self, path: &TreePath, tells: Tells, heard: &mut Heard) -> Option<(Option<WatchId>, Stat)> {
        let looked = |stat: Stat| (stat.kind == FileKind::Directory).then_some((None, stat));
        let Some(events) = self.events.as_ref().filter(|_| self.tree.counts().0 < self.most) else {
            // One that has a watch keeps it.
            let stat = self.root.stat_fresh(path).ok()?;
            if self.events.is_some() {
                let known = self.tree.find(path).and_then(|id| self.tree.get(id));
                if let Some((Eye::Watched(watch), inode)) = known.map(|node| (&node.eye, node.inode))
                    && inode == (stat.ino, stat.device)
                {
                    return Some((Some(*watch), stat));
                }
                self.say_exhausted(heard);
            }
            return looked(stat);
        };
        match events.watch(&self.root, path, tells) {
            Ok((watch, stat)) => {
                if self.is_shared(path, stat.device) {
                    events_forget(self.events.as_ref(), watch);
                    return Some((None, stat));
                }
                Some((Some(watch), stat))
            }
            Err(error) if is_exhausted(&error) => {
                self.say_exhausted(heard);
                looked(self.root.stat_fresh(path).ok()?)
            }
            // It may be searched and not read: its times can be seen all the same. What is gone cannot.
            Err(_) => looked(self.root.stat_fresh(path).ok()?),
        }
    }

    fn is_shared(&mut self, path: &TreePath, device: u64) -> bool {
        let root = &self.root;
        *self.shared.entry(device).or_insert_with(|| root.is_shared(path).unwrap_or(false))
    }

    fn say_exhausted(&mut self, heard: &mut Heard) {
        self.refused += 1;
        if std::mem::replace(&mut self.is_said, true) {
            return;
        }
        let allowed = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").unwrap_or_default();
        heard.notices.push(format!(
            "the watches of this user are exhausted after {} directories: the rest is looked at in turn, which takes longer to \
             notice; raise the limit (now {}) with: sysctl fs.inotify.max_user_watches=1048576",
            self.tree.counts().0,
            allowed.trim(),
        ));
    }

    fn place_watched(&mut self, place: Place, watch: WatchId, stat: &Stat) -> Option<Id> {
        let inode = (stat.ino, stat.device);
        let Some(known) = self.tree.watched(watch) else {
            let (parent, name) = (place.parent, place.name);
            let before = parent.zip(name.as_ref()).and_then(|(parent, name)| self.tree.child(parent, name.as_bytes()));
            if let Some(before) = before {
                self.set_aside(before);
            }
            return Some(self.tree.add(parent, name, Eye::Watched(watch), inode));
        };
        self.limbo.remove(&known);
        let (Some(parent), Some(name)) = (place.parent, place.name) else { return Some(known) };
        if self.tree.is_below(parent, known) {
            // The tree is of two times: what comes next in the queue puts it right.
            return None;
        }
        if let Some(before) = self.tree.attach(known, parent, name) {
            self.limbo.insert(before, Instant::now() + LIMBO);
        }
        Some(known)
    }

    fn place_polled(&mut self, place: Place, stat: &Stat) -> Option<Id> {
        let inode = (stat.ino, stat.device);
        let before = match (&place.parent, &place.name) {
            (Some(parent), Some(name)) => self.tree.child(*parent, name.as_bytes()),
            _ => self.tree.get(ROOT).map(|_| ROOT),
        };
        if let Some(before) = before {
            if self.tree.get(before).is_some_and(|node| node.inode == inode && matches!(node.eye, Eye::Polled(_))) {
                return Some(before);
            }
            self.set_aside(before);
        }
        Some(self.tree.add(place.parent, place.name, Eye::Polled(None), inode))
    }

    /// A directory is no more where it was. One that is watched may come to light somewhere else.
    pub(super) fn set_aside(&mut self, id: Id) {
        if id == ROOT {
            return;
        }
        match self.tree.get(id).map(|node| &node.eye) {
            Some(Eye::Watched(_)) => {
                self.tree.detach(id);
                self.limbo.insert(id, Instant::now() + LIMBO);
            }
            _ => self.forget(id),
        }
    }

    /// Follows a directory, and what is below it, no more.
    pub(super) fn forget(&mut self, id: Id) {
        for watch in self.tree.remove(id) {
            events_forget(self.events.as_ref(), watch);
        }
        self.limbo.retain(|id, _| self.tree.get(*id).is_some());
    }

    /// Follows what the catalogue knows; lists where that is not what is there.
    fn follow_known(&mut self, known: Vec<Known>, heard: &mut Heard) {
        let mut parts = Vec::new();
        for Known { path, look } in known {
            let Some((above, name)) = path.split() else { continue };
            let Some(parent) = self.tree.find(&above) else { continue };
            if self.tree.child(parent, name.as_bytes()).is_some() {
                continue;
            }
            let is_part = self.scope.is_part(name.as_bytes()) && self.is_folder(parent);
            let holds_messages = self.scope.holds_messages(name.as_bytes());
            let Some((id, stat)) = self.follow(Place { parent: Some(parent), name: Some(name), is_part }, heard) else {
                continue;
            };
            if self.is_polled(id) || look.is_some_and(|look| !look.racy && look == stat.look()) {
                // What is in it is known, too; or its first turn in the rota lists it.
                continue;
            }
            match holds_messages {
                // Whether it stands in a folder shows when its neighbours are here.
                true => parts.push(id),
                false => self.survey_below(id, heard),
            }
        }
        for id in parts {
            if self.folder_of(id).is_none() {
                self.survey_below(id, heard);
            }
        }
    }

    pub(super) fn is_polled(&self, id: Id) -> bool {
        matches!(self.tree.get(id).map(|node| &node.eye), Some(Eye::Polled(_)))
    }

    fn hear(&mut self, event: &Event, heard: &mut Heard) {
        if self.above == Some(event.watch) && event.is_directory() && !self.root.is_in_place() {
            heard.ended = Some("the root was renamed or removed".to_owned());
        }
        let Some(id) = self.tree.watched(event.watch) else { return };
        if event.is_unmount() {
            heard.everything = Some(Cause::Mounts);
        }
        if event.is_end() {
            return self.end(id, heard);
        }
        if event.is_own_rename() && id == ROOT {
            heard.ended = Some("the root was renamed".to_owned());
        }
        let Ok(name) = Name::new(&event.name) else {
            // The directory itself.
            if let Some(unit) = self.unit_of(id) {
                heard.note(unit, false, false);
            }
            return;
        };
        match event.is_directory() {
            true => self.hear_directory(id, name, event, heard),
            false => self.hear_file(id, &name, event, heard),
        }
    }

    /// A watch ended by itself: its directory is gone.
    fn end(&mut self, id: Id, heard: &mut Heard) {
        if id == ROOT {
            heard.ended = Some("the root was unmounted or removed".to_owned());
            return;
        }
        let place = self.tree.get(id).and_then(|node| node.parent.zip(node.name.clone()));
        self.forget(id);
        if let Some((above, name)) = place {
            self.lose_part(above, &name, heard);
        }
    }

    /// A folder that lost its `cur` or `new` is none any more: what is left in it are units of their own.
    pub(super) fn lose_part(&mut self, id: Id, name: &Name, heard: &mut Heard) {
        let is_there = self.tree.child(id, name.as_bytes()).is_some();
        if is_there || !self.scope.holds_messages(name.as_bytes()) {
            return;
        }
        if let Some(path) = self.tree.path(id) {
            self.survey_below(id, heard);
            heard.note(path, false, true);
        }
    }

    fn hear_file(&mut self, id: Id, name: &Name, event: &Event, heard: &mut Heard) {
        let Some(path) = self.tree.path(id) else { return };
        let folder = self.folder_of(id);
        if folder.is_some() && path.name() == b"tmp" && !self.scope.takes_tmp(&path) {
            return;
        }
        if self.scope.takes_file(&path, folder.is_some(), name)
            && let Some(unit) = folder.map_or(Some(path), |folder| self.tree.path(folder))
        {
            // What comes into `cur` from a directory that is not watched is a delivery, too; from `cur` itself it has
            // new flags.
            let comes = event.is_arrival() && folder.is_some() && !self.departed.contains(&event.cookie);
            heard.note(unit, comes, false);
        }
        if event.is_departure() && folder.is_some() {
            self.departed.truncate(DEPARTED - 1);
            self.departed.push_front(event.cookie);
        }
    }

    fn hear_directory(&mut self, id: Id, name: Name, event: &Event, heard: &mut Heard) {
        let (Some(path), Some(unit)) = (self.tree.path(id), self.unit_of(id)) else { return };
        let at = path.join(&name);
        if !self.scope.takes_directory(&at) {
            return;
        }
        let child = self.tree.child(id, name.as_bytes());
        if event.is_arrival() {
            heard.note(unit, false, false);
            self.arrive(id, name, &at, heard);
        } else if event.is_departure() {
            heard.note(unit, false, false);
            if child.is_some() {
                // Another may have its name by now.
                self.arrive(id, name.clone(), &at, heard);
                self.lose_part(id, &name, heard);
            }
        } else if event.is_removal() {
            heard.note(unit, false, false);
            // A watch ends by itself.
            if let Some(child) = child.filter(|child| self.is_polled(*child)) {
                self.forget(child);
                self.lose_part(id, &name, heard);
            }
        } else {
            // Its mode or owner: one that is watched tells it itself, a folder's `tmp` is not.
            let own = child.and_then(|child| self.unit_of(child));
            heard.note(own.unwrap_or(unit), false, false);
        }
    }

    /// Follows what has a name now.
    fn arrive(&mut self, parent: Id, name: Name, at: &TreePath, heard: &mut Heard) {
        let before = self.tree.child(parent, name.as_bytes());
        let Some(id) = self.survey(parent, name, heard) else {
            if let Some(before) = before {
                self.set_aside(before);
            }
            return;
        };
        // With its second half a folder has become one: its `tmp` needs no watch any more.
        if self.folder_of(id).is_some()
            && let Some(tmp) = self.tree.child(parent, b"tmp")
            && self.tree.path(tmp).is_some_and(|path| !self.scope.takes_tmp(&path))
        {
            self.forget(tmp);
        }
        let unit = self.unit_of(id).unwrap_or_else(|| at.clone());
        heard.note(unit, true, true);
    }

    /// Lists what can be listed anew, after events were lost.
    fn resurvey(&mut self, heard: &mut Heard) {
        let root = Place { parent: None, name: None, is_part: false };
        if self.follow(root, heard).is_some() {
            self.survey_below(ROOT, heard);
        }
        heard.everything = Some(Cause::Overflow);
    }

    fn empty_limbo(&mut self, now: Instant) {
        let over: Vec<Id> = self.limbo.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.limbo.remove(&id);
            self.forget(id);
        }
    }

    fn read(&mut self, now: Instant, heard: &mut Heard) -> Result<(), String> {
        let mut happened = Vec::new();
        for _ in 0..READS {
            let Some(events) = &mut self.events else { return Ok(()) };
            happened.clear();
            let has_more = events.read(&mut happened).map_err(|error| format!("inotify failed: {error}"))?;
            if happened.iter().any(Event::is_overflow) {
                self.resurvey(heard);
            }
            for event in &happened {
                self.hear(event, heard);
            }
            if !has_more {
                self.empty_limbo(now);
                break;
            }
        }
        Ok(())
    }
}

impl Source for Watches {
    fn kind(&self) -> WatchKind {
        if self.events.is_some() { WatchKind::Inotify } else { WatchKind::Poll }
    }

    fn begin(&mut self, known: Vec<Known>, heard: &mut Heard) -> Result<(), String> {
        // Where the directory above may not be read, the root tells of its being renamed, and a scan of its being gone.
        self.above = self.events.as_ref().and_then(|events| events.watch_above(&self.root).ok());
        let root = Place { parent: None, name: None, is_part: false };
        let Some((_, stat)) = self.follow(root, heard) else { return Err("the root cannot be watched".to_owned()) };
        let first = known.iter().find(|known| known.path.is_root()).and_then(|known| known.look);
        let is_known = first.is_some_and(|look| !look.racy && look == stat.look());
        self.follow_known(known, heard);
        if !is_known && !self.is_polled(ROOT) {
            self.survey_below(ROOT, heard);
        }
        self.rota.begin();
        heard.everything = Some(Cause::Start);
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    fn due(&self) -> Option<Instant> {
        let polled = if self.tree.counts().1 == 0 { None } else { Some(self.rota.due()) };
        polled.into_iter().chain(self.limbo.values().copied()).min()
    }

    fn listen(&mut self, now: Instant, heard: &mut Heard) -> Result<(), String> {
        self.read(now, heard)?;
        self.turn(now, heard);
        Ok(())
    }

    fn tally(&self) -> Tally {
        let (watched, polled) = self.tree.counts();
        Tally { watched, polled }
    }
}

fn events_forget(events: Option<&Events>, watch: WatchId) {
    if let Some(events) = events {
        events.forget(watch);
    }
}
