//! The messages that went between two moments, each as it last was.
//!
//! The log tells of every message that went, and when; so one is found, too, that no point ever had. What is gone at the
//! second moment is a set of its own: a view of nothing but these messages, that is listed and restored as any other.
//!
//! Where the log is not kept any more, points are compared, each with the next.

use super::difference::side_by_side;
use super::event::{self, Event, Happened, Sources, State, content_of, folder_of};
use super::kept::{self, Known, Log};
use super::label::PointLabel;
use super::layout::{Repository, RepositoryError};
use super::manifest::key;
use super::record::{Record, What};
use super::view::{Span, View};
use crate::id::{Digest, Position};
use crate::maildir::entry::Time;
use crate::maildir::{folder, name};
use crate::path::TreePath;
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Result<T> = std::result::Result<T, RepositoryError>;

/// Messages that are gone.
pub struct Gone {
    /// They alone, and the directories above them.
    pub view: View,
    /// What a person should know of how they were found.
    pub notes: Vec<String>,
    /// When each of them went.
    pub graves: Graves,
}

/// When messages went, by the paths at which they last were.
pub struct Graves(BTreeMap<Vec<u8>, Went>);

/// When a message went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Went {
    /// When the slave wrote the batch; where points were compared, when the first was made that has it no more.
    pub moment: Time,
    /// The batch; `None` where points were compared, or it was found gone from the mirror itself.
    pub position: Option<Position>,
    /// Where points were compared: the last that has it, and the first that does not.
    pub between: Option<(PointLabel, PointLabel)>,
}

impl Graves {
    /// When the message at this path went; `None` where none went from there.
    pub fn went(&self, path: &TreePath) -> Option<&Went> {
        self.0.get(&key(path))
    }

    /// Whether it is one of these messages, or a directory that a mail server wants in the folder of one.
    pub fn has(&self, record: &Record) -> bool {
        let is_part = matches!(record.state, Some((_, What::Directory))) && folder::is_part(record.path.name());
        is_part || self.went(&record.path).is_some()
    }

    /// Tells these messages from any others.
    pub fn identity(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for (key, went) in &self.0 {
            hasher.update(key).update(&went.moment.seconds.to_le_bytes()).update(&went.moment.nanos.to_le_bytes());
        }
        hasher.finalize().into()
    }
}

/// The messages that were there at `from`, or came later, and are gone at `to`.
///
/// A message is known by its mailbox, folder and base name. One that was moved to another folder of its mailbox is not
/// gone: one that came there meanwhile under the same base name and with the same content stands for it.
///
/// # Errors
/// Where nothing is known of `from`, or a point or the log cannot be read.
pub fn between(repository: &Repository, from: Time, to: Time) -> Result<Gone> {
    let (points, mut problems) = kept::points(repository)?;
    let start = points
        .iter()
        .rposition(|point| point.moment <= from)
        .ok_or_else(|| kept::before_the_first(points.first().map(|point| point.label)))?;
    let log = Log::of(repository)?;
    let is_end = |point: &Known| log.has_all_behind(point.reached, None) || point.moment >= to;
    let end = points[start..].iter().position(is_end).map_or(points.len() - 1, |further| start + further);
    let mut graves = Search::default();
    let mut notes = Vec::new();
    let mut view = View::of_point(repository, &points[end].label)?;
    for pair in points[start..=end].windows(2) {
        graves.compare(repository, &mut view, &pair[0].label, &pair[1].label, &mut problems)?;
    }
    if end > start {
        notes.push(format!(
            "the log from {} to {} is not kept: restore points are compared there, and what came and went between two \
             of them is not found",
            points[start].label, points[end].label
        ));
    }
    if points[end].moment < to {
        let since = (end == start).then_some(from);
        let span = Span { since, until: Some(to), through: None };
        let mut told = Vec::new();
        view.watch(repository, span, |happened| told.push(happened))?;
        told.into_iter().try_for_each(|happened| graves.take(&view, happened))?;
    }
    let (records, graves) = graves.dug();
    let mut view = view.of_graves(records)?;
    view.problems.extend(problems);
    Ok(Gone { view, notes, graves })
}

/// A message by mailbox, base name and folder.
type Grave = (TreePath, Vec<u8>, TreePath);

/// A message that came while the log was followed.
struct Came {
    folder: TreePath,
    content: Option<(u64, [u8; 8])>,
    /// It stands for one that went from another folder.
    is_taken: bool,
}

/// What went so far and did not come again.
#[derive(Default)]
struct Search {
    graves: BTreeMap<Grave, (Record, Went)>,
    came: HashMap<(TreePath, Vec<u8>), Vec<Came>>,
    mailboxes: HashMap<TreePath, TreePath>,
}

impl Search {
    /// Takes what differs between a point and the next one. What went is found in `into` from then on.
    fn compare(
        &mut self,
        repository: &Repository,
        into: &mut View,
        before: &PointLabel,
        after: &PointLabel,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let between = Some((*before, *after));
        let (before, after) = (View::of_point(repository, before)?, View::of_point(repository, after)?);
        let touched = differing(&before, &after, problems)?;
        let went = Went { moment: after.moment, position: None, between };
        for (event, record) in event::events(touched, &Sources::new()) {
            let gone = match &event {
                Event::Removed => Some(record.clone()),
                Event::Renamed { from, .. } if self.is_elsewhere(&after, from, &record.path)? => {
                    Some(Record { path: from.clone(), state: before.get(from)? })
                }
                _ => None,
            };
            if let Some(gone) = gone {
                into.remember(repository, &before, &gone.path)?;
                let gone = into.adopt(repository, &before, gone)?;
                self.go(&after, gone, went.clone())?;
            }
            match event {
                Event::Delivered | Event::Copied(_) => self.come(&after, &record)?,
                Event::Renamed { from, .. } if self.is_elsewhere(&after, &from, &record.path)? => {
                    self.come(&after, &record)?;
                }
                Event::Renamed { from, .. } => self.move_on(&after, &from, &record)?,
                Event::Removed | Event::Replaced => {}
            }
        }
        Ok(())
    }

    /// Takes what the log tells; `view` has followed it.
    fn take(&mut self, view: &View, happened: Happened) -> Result<()> {
        let Happened { event, record, moment, position, .. } = happened;
        let went = Went { moment, position, between: None };
        match event {
            Event::Delivered | Event::Copied(_) => self.come(view, &record),
            Event::Replaced => Ok(()),
            Event::Removed => self.go(view, record, went),
            Event::Renamed { from, with_directory } => {
                if with_directory || !self.is_elsewhere(view, &from, &record.path)? {
                    return self.move_on(view, &from, &record);
                }
                self.come(view, &record)?;
                self.go(view, Record { path: from, ..record }, went)
            }
        }
    }

    /// Whether a message is in another mailbox than it was.
    fn is_elsewhere(&mut self, view: &View, from: &TreePath, to: &TreePath) -> Result<bool> {
        Ok(self.mailbox(view, &folder_of(from))? != self.mailbox(view, &folder_of(to))?)
    }

    /// The topmost directory above a folder, or the folder itself, that is a mailbox: it has messages, or a list of
    /// subscriptions.
    fn mailbox(&mut self, view: &View, folder: &TreePath) -> Result<TreePath> {
        if let Some(mailbox) = self.mailboxes.get(folder) {
            return Ok(mailbox.clone());
        }
        let mut above = vec![folder.clone()];
        while let Some((parent, _)) = above.last().and_then(TreePath::split) {
            above.push(parent);
        }
        let mut mailbox = if folder.name().starts_with(b".") { folder.parent() } else { folder.clone() };
        for at in above.into_iter().rev() {
            if view.get(&at.child("cur"))?.is_some() || view.get(&at.child("subscriptions"))?.is_some() {
                let is_folder = at == *folder && folder.name().starts_with(b".");
                mailbox = if is_folder { mailbox } else { at };
                break;
            }
        }
        self.mailboxes.insert(folder.clone(), mailbox.clone());
        Ok(mailbox)
    }

    fn grave(&mut self, view: &View, path: &TreePath) -> Result<Grave> {
        let folder = folder_of(path);
        Ok((self.mailbox(view, &folder)?, name::base(path.name()).to_vec(), folder))
    }

    fn come(&mut self, view: &View, record: &Record) -> Result<()> {
        let (mailbox, base, folder) = self.grave(view, &record.path)?;
        let content = content_of(&record.state);
        self.graves.remove(&(mailbox.clone(), base.clone(), folder.clone()));
        // It may have gone from its old folder before it came here.
        let behind = self.graves.range((mailbox.clone(), base.clone(), TreePath::root())..);
        let mut namesakes = behind.take_while(|(grave, _)| (&grave.0, &grave.1) == (&mailbox, &base));
        let moved = namesakes.find(|(_, (record, _))| content_of(&record.state) == content);
        let moved = moved.map(|(grave, _)| grave.clone());
        if let Some(grave) = &moved {
            self.graves.remove(grave);
        }
        let came = self.came.entry((mailbox, base)).or_default();
        came.retain(|one| one.folder != folder);
        came.push(Came { folder, content, is_taken: moved.is_some() });
        Ok(())
    }

    fn go(&mut self, view: &View, record: Record, went: Went) -> Result<()> {
        let (mailbox, base, folder) = self.grave(view, &record.path)?;
        let content = content_of(&record.state);
        if let Some(came) = self.came.get_mut(&(mailbox.clone(), base.clone())) {
            came.retain(|one| one.folder != folder);
            if let Some(moved) = came.iter_mut().find(|one| !one.is_taken && one.content == content) {
                moved.is_taken = true;
                return Ok(());
            }
        }
        self.graves.insert((mailbox, base, folder), (record, went));
        Ok(())
    }

    /// A message is known by another name from here on.
    fn move_on(&mut self, view: &View, from: &TreePath, record: &Record) -> Result<()> {
        let (mailbox, base, folder) = self.grave(view, from)?;
        let (to_mailbox, to_base, to_folder) = self.grave(view, &record.path)?;
        if (&mailbox, &base, &folder) == (&to_mailbox, &to_base, &to_folder) {
            return Ok(());
        }
        let came = self.came.entry((mailbox, base)).or_default();
        let at = came.iter().position(|one| one.folder == folder);
        let moved = at.map(|at| came.swap_remove(at));
        self.graves.remove(&(to_mailbox.clone(), to_base.clone(), to_folder.clone()));
        if let Some(moved) = moved {
            let came = self.came.entry((to_mailbox, to_base)).or_default();
            came.retain(|one| one.folder != to_folder);
            came.push(Came { folder: to_folder, ..moved });
        }
        Ok(())
    }

    fn dug(self) -> (Vec<Record>, Graves) {
        let (mut records, mut went) = (Vec::new(), BTreeMap::new());
        for (record, when) in self.graves.into_values() {
            went.insert(key(&record.path), when);
            records.push(record);
        }
        (records, Graves(went))
    }
}

/// The messages' paths at which two points differ, and what each has there. Of two differentials of one full no more is
/// read than what they hold.
fn differing(before: &View, after: &View, problems: &mut Vec<String>) -> Result<Vec<(TreePath, State, State)>> {
    let full = |view: &View| view.label.map(|label| label.full_label());
    if full(before) == full(after) {
        let both = before.changed().chain(after.changed()).map(|record| &record.path);
        let paths: BTreeSet<&TreePath> = both.filter(|path| event::can_be_message(path)).collect();
        return paths.into_iter().map(|path| Ok((path.clone(), before.get(path)?, after.get(path)?))).collect();
    }
    let mut found = Vec::new();
    let is_file = |record: &&Record| matches!(record.state, Some((_, What::File { .. })));
    problems.extend(side_by_side(before, after, |was, is| {
        let Some(path) = was.or(is).map(|record| &record.path).filter(|path| event::can_be_message(path)) else {
            return;
        };
        let state = |record: Option<&Record>| record.filter(is_file).and_then(|record| record.state.clone());
        let (was, is) = (state(was), state(is));
        if content_of(&was) != content_of(&is) {
            found.push((path.clone(), was, is));
        }
    }));
    Ok(found)
}
