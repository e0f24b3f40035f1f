//! The life of one message: where each restore point has it, and between them every single event that the log tells.

use super::event::{Event, Happened};
use super::kept::{self, Log};
use super::label::PointLabel;
use super::layout::{Repository, RepositoryError};
use super::manifest::key;
use super::record::{Record, What};
use super::view::{Span, View};
use crate::maildir::entry::Time;
use crate::maildir::name::base;
use crate::path::TreePath;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, RepositoryError>;

/// One thing of a message's life.
#[derive(Clone, Debug)]
pub enum Moment {
    /// Where a restore point has it, or the newest state, which has no label.
    Point {
        /// The point.
        label: Option<PointLabel>,
        /// When it was made; of the newest state, when its last batch was written.
        moment: Time,
        /// The paths; none where it is not there.
        paths: Vec<TreePath>,
    },
    /// What the log tells.
    Event(Happened),
    /// Between these two points, or from one to now, the log is not kept.
    Gap(PointLabel, Option<PointLabel>),
}

/// Tells the life of the messages with a Message-ID, oldest first. Gives what could not be read.
///
/// # Errors
/// Where the disk refuses, or the log is damaged beyond reading.
pub fn of(repository: &Repository, id: &str, mut tell: impl FnMut(Moment)) -> Result<Vec<String>> {
    let (points, mut problems) = kept::points(repository)?;
    let log = Log::of(repository)?;
    let mut places = Places { id, full: None, in_full: Vec::new() };
    for (at, point) in points.iter().enumerate() {
        let mut view = View::of_point(repository, &point.label)?;
        let paths = places.of(repository, &view, &mut problems)?;
        tell(Moment::Point { label: Some(point.label), moment: view.moment, paths });
        let next = points.get(at + 1);
        let through = next.map(|next| next.reached);
        if log.has_all_behind(point.reached, through) {
            let mut told = Vec::new();
            let span = Span { through, ..Span::default() };
            view.watch(repository, span, |happened| told.extend(Some(happened).filter(|one| is_it(&one.record, id))))?;
            moves(told).into_iter().map(Moment::Event).for_each(&mut tell);
        } else {
            tell(Moment::Gap(point.label, next.map(|next| next.label)));
        }
        if next.is_none() {
            let paths = places.of(repository, &view, &mut problems)?;
            tell(Moment::Point { label: None, moment: view.moment, paths });
        }
        problems.append(&mut view.problems);
    }
    Ok(problems)
}

/// A move between folders comes in two batches of one run: there, and away from here. That is told as one event, of when
/// the message came to its new folder.
fn moves(events: Vec<Happened>) -> Vec<Happened> {
    let mut paired: Vec<Happened> = Vec::with_capacity(events.len());
    for happened in events {
        let went = &happened.record.path;
        let came = match happened.event {
            Event::Removed => {
                paired.iter_mut().rev().find(|came| came.segment == happened.segment && stands_for(came, went))
            }
            _ => None,
        };
        match came {
            Some(came) => came.event = Event::Renamed { from: went.clone(), with_directory: false },
            None => paired.push(happened),
        }
    }
    paired
}

/// Whether a message that came is the one that went from a path.
fn stands_for(came: &Happened, went: &TreePath) -> bool {
    let has_its_name = || base(came.record.path.name()) == base(went.name());
    match &came.event {
        Event::Copied(from) => from == went,
        Event::Delivered => came.record.path != *went && has_its_name(),
        _ => false,
    }
}

fn is_it(record: &Record, id: &str) -> bool {
    matches!(&record.state, Some((_, What::File { envelope: Some(envelope), .. })) if envelope.message_id == id)
}

/// Where views have a message. A full is looked through once; of what lies over it only that is looked at.
struct Places<'a> {
    id: &'a str,
    full: Option<PointLabel>,
    in_full: Vec<TreePath>,
}

impl Places<'_> {
    fn of(&mut self, repository: &Repository, view: &View, problems: &mut Vec<String>) -> Result<Vec<TreePath>> {
        let full = view.label.map(|label| label.full_label());
        if let Some(label) = full.filter(|_| self.full != full) {
            self.in_full.clear();
            for record in repository.manifest(&label)?.records(&[]) {
                match record {
                    Ok(record) if is_it(&record, self.id) => self.in_full.push(record.path),
                    Ok(_) => {}
                    Err(error) => problems.push(error.to_string()),
                }
            }
            self.full = full;
        }
        let mut found = BTreeMap::new();
        for path in &self.in_full {
            let record = Record { path: path.clone(), state: view.get(path)? };
            if is_it(&record, self.id) {
                found.insert(key(path), record.path);
            }
        }
        found.extend(
            view.changed().filter(|record| is_it(record, self.id)).map(|one| (key(&one.path), one.path.clone())),
        );
        Ok(found.into_values().collect())
    }
}
