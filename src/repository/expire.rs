//! Removing points, and segments of the log, that the policy does not keep.
//!
//! A point is first renamed to what is no point's name, then removed: a killed expire leaves every kept point whole, and
//! the next command clears the rest. The kernel counts the links: a segment goes with the last point that needs it.
//!
//! A disk that is full is when this is wanted most: what needs a little room to go has it from `reserve`.

use super::layout::{Repository, RepositoryError};
use super::reserve::with_room;
use super::retention::log::{self, ClosedSegment, Reached};
use super::retention::{self, Decision, Point, Policy};
use crate::disk::Writer;
use crate::id::Position;
use crate::log::history::History;
use crate::log::segment::Replay;
use crate::maildir::entry::Time;
use std::time::Duration;

type Result<T> = std::result::Result<T, RepositoryError>;

/// What becomes of each point and of each segment of the log, and why.
pub struct Plan {
    /// The points, oldest first.
    pub points: Vec<Decision>,
    /// The closed segments by number, in order.
    pub segments: Vec<(u64, log::Reason)>,
}

/// Decides. Points that cannot be read stay, and nothing of the log goes then.
///
/// # Errors
/// Where the disk refuses.
pub fn plan(repository: &Repository, policy: Policy, keep_log: Option<Duration>, now: Time) -> Result<Plan> {
    let (points, wrong) = repository.points()?;
    let known: Vec<Point> = points
        .iter()
        .map(|point| Point { label: point.label, pinned: point.about.pinned, verified: point.about.verified })
        .collect();
    let decisions = retention::decide(&known, policy);
    let goes = |label| decisions.iter().any(|decision| decision.label == label && decision.reason.goes());
    let reached: Vec<Reached> = points
        .iter()
        .filter(|point| !goes(point.label))
        .map(|point| Reached { position: at(point.header.reached), moment: point.header.moment })
        .collect();
    let segments = match (keep_log, &repository.history) {
        (Some(keep), Some(history)) if wrong.is_empty() => segments(history, &reached, keep, now)?,
        _ => Vec::new(),
    };
    Ok(Plan { points: decisions, segments })
}

/// Segments are held in the order of their numbers; what was found on the mirror has no position of its own.
fn at(segment: u64) -> Position {
    Position { epoch: 0, sequence: segment }
}

fn segments(history: &History, reached: &[Reached], keep: Duration, now: Time) -> Result<Vec<(u64, log::Reason)>> {
    let numbers = history.segments()?;
    let mut closed = Vec::with_capacity(numbers.len());
    for &number in &numbers {
        closed.push(ClosedSegment { last: at(number), newest: newest(history, number)?.unwrap_or(now) });
    }
    let reasons = log::keep_log(&closed, reached, keep, now);
    let mut decided: Vec<(u64, log::Reason)> = numbers.into_iter().zip(reasons).collect();
    if let Some((_, reason)) = decided.last_mut().filter(|(_, reason)| reason.goes()) {
        // Its number tells that of the next one.
        *reason = log::Reason::Young;
    }
    Ok(decided)
}

/// The latest moment of a segment's batches.
fn newest(history: &History, number: u64) -> Result<Option<Time>> {
    let Some(mut replay) = Replay::open_at(history.root(), &History::path(number), true)? else { return Ok(None) };
    let mut newest = None;
    while let Some(batch) = replay.next_batch()? {
        newest = newest.max(batch.moment);
    }
    Ok(newest)
}

/// Takes the lock that those hold who change points; `None` where another command has it.
///
/// # Errors
/// Where the disk refuses.
pub fn lock(repository: &Repository) -> Result<Option<Writer>> {
    with_room(&repository.state, || repository.lock())
}

/// Does what was decided, after what a killed command left undone. The repository's lock must be held. On a full disk
/// it takes the room that is held back, and holds it back again at the end; why that could not be is given back.
///
/// # Errors
/// Where the disk refuses; what was done stays done.
pub fn carry_out(repository: &Repository, plan: &Plan) -> Result<Option<String>> {
    let state = &repository.state;
    with_room(state, || repository.clear())?;
    for label in retention::going(&plan.points) {
        with_room(state, || repository.remove(&label))?;
    }
    let Some(history) = &repository.history else { return Ok(None) };
    for (number, _) in plan.segments.iter().filter(|(_, reason)| reason.goes()) {
        with_room(state, || Ok(history.remove(*number)?))?;
    }
    Ok(repository.hold_back())
}
