//! What is due, and when to look again.
//!
//! Pure: no clock, no sleeping, no disk. The process that keeps running asks for the [`agenda`], begins what is due, says so
//! to the [`Memory`] ([`Memory::begin`], [`Memory::end`]), writes that down, and sleeps until [`Agenda::wake`] or until
//! something has ended.
//!
//! # The rules
//!
//! * A slot is a moment at which a job's cron expression fires. A job is done once for its newest slot, however many
//!   were missed.
//! * Never two at once for one set; of those that are due together the first of [`Job::ALL`] is done. A full is a
//!   differential's, too.
//! * Slots that pass while a job is being done are its own: it is not begun again for them at its end.
//! * In quiet hours only restore points are begun; the rest waits until they are over.
//! * What was being done when the process died is done once more.
//!
//! # A clock that is not to be trusted
//!
//! What is remembered are the moments of slots that were done, not one moment up to which all is done; a slot is due where
//! it is younger than the newest *of those that are not ahead of the clock*. So a clock that goes back does not make a slot
//! come twice, and one that had gone ten years ahead does not make a job wait for ten years.

use crate::config::file::{Cron, Job, Role, Schedule};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// Slots that are remembered of a job. More than a clock that is put right needs; few enough to be written each time.
const REMEMBERED: usize = 64;

/// How often quiet hours may follow one another before it is looked again.
const QUIET_EDGES: usize = 32;

/// A set as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Scheduled<'a> {
    /// Its name.
    pub set: &'a str,
    /// What this host is for it at present.
    pub role: Role,
    /// When what is done.
    pub schedule: &'a Schedule,
}

/// What was done for which slots. To be kept through restarts: it is plain data for serde.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    sets: BTreeMap<String, BTreeMap<Job, Remembered>>,
}

/// Of one job of one set; seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Remembered {
    /// Slots that were done, and moments before which nothing was to be done; in the order in which they were noted.
    done: Vec<i64>,
    /// It is being done, for this slot.
    begun: Option<i64>,
    /// It was interrupted, and is done once more.
    interrupted: bool,
}

/// A job that is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of this set.
    pub set: String,
    /// What.
    pub job: Job,
    /// The moment that it is for.
    pub slot: Timestamp,
    /// A differential's slot that a full is for, too.
    with: Option<Timestamp>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agenda {
    /// At most one for each set.
    pub due: Vec<Due>,
    /// When to look again, where nothing ends before; `None` where nothing will ever come.
    pub wake: Option<Timestamp>,
}

/// How fast may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second; `None` as many as go.
    pub rate: Option<u64>,
    /// When it may be another.
    pub until: Option<Timestamp>,
}

/// What is due at `now`, and when to look again. `running` are the sets of which something is being done.
///
/// A job that was never seen before is due from its next slot on: that, too, is remembered.
pub fn agenda(sets: &[Scheduled<'_>], memory: &mut Memory, running: &BTreeSet<String>, now: Timestamp) -> Agenda {
    let mut agenda = Agenda::default();
    for set in sets {
        let mut due = Vec::new();
        for (job, cron) in jobs(set) {
            let clock = Clock { set: set.set, job, cron, schedule: set.schedule };
            let remembered = memory.of(set.set, job);
            let since = remembered.since(now);
            let slot = clock.newest_due(since, now);
            match (slot, quiet_until(set.schedule, now)) {
                (Some(_), Some(end)) if job.may_wait() => agenda.wake_at(end),
                (Some(slot), _) => due.push(Due { set: set.set.to_owned(), job, slot, with: None }),
                (None, _) => agenda.wake_at_or_never(clock.next_due(since, now, &remembered.done)),
            }
        }
        if !running.contains(set.set) {
            let covered = due.iter().find(|due| due.job == Job::Differential).map(|due| due.slot);
            agenda.due.extend(due.into_iter().next().map(|due| match due.job {
                Job::Full => Due { with: covered, ..due },
                _ => due,
            }));
        }
    }
    agenda
}

/// How fast may be sent at `now`, where `limit` counts when no hours of the schedule do.
pub fn pace(schedule: &Schedule, limit: Option<u64>, now: Timestamp) -> Pace {
    let at = now.to_zoned(schedule.timezone.clone());
    let within = schedule.bandwidth.iter().find(|rate| rate.window.holds(&at));
    let until = schedule.bandwidth.iter().filter_map(|rate| rate.window.edge(&at)).min();
    Pace { rate: within.map_or(limit, |rate| rate.rate), until }
}

/// The jobs that are a set's in its role, the most important first.
fn jobs<'a>(set: &Scheduled<'a>) -> impl Iterator<Item = (Job, &'a Cron)> {
    let (role, schedule) = (set.role, set.schedule);
    let own = Job::ALL.into_iter().filter(move |job| job.role() == role);
    own.filter_map(move |job| Some((job, schedule.jobs.get(&job)?)))
}

/// When the quiet hours are over in which `now` lies; `None` where it lies in none.
fn quiet_until(schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    let mut end = None;
    for _ in 0..QUIET_EDGES {
        let at = end.unwrap_or(now).to_zoned(schedule.timezone.clone());
        let edges = schedule.quiet.iter().filter(|window| window.holds(&at)).map(|window| window.edge(&at));
        match edges.min() {
            Some(edge) => end = Some(edge?),
            None => return end,
        }
    }
    end
}

impl Agenda {
    fn wake_at(&mut self, moment: Timestamp) {
        self.wake = Some(self.wake.map_or(moment, |wake| wake.min(moment)));
    }

    fn wake_at_or_never(&mut self, moment: Option<Timestamp>) {
        moment.into_iter().for_each(|moment| self.wake_at(moment));
    }
}

impl Memory {
    fn of(&mut self, set: &str, job: Job) -> &mut Remembered {
        self.sets.entry(set.to_owned()).or_default().entry(job).or_default()
    }

    /// A job was begun.
    pub fn begin(&mut self, due: &Due) {
        let remembered = self.of(&due.set, due.job);
        remembered.begun = Some(due.slot.as_second());
        remembered.note(due.slot);
        if let Some(slot) = due.with {
            self.of(&due.set, Job::Differential).note(slot);
        }
    }

    /// A job has ended, well or not.
    pub fn end(&mut self, set: &Scheduled<'_>, job: Job, now: Timestamp) {
        let remembered = self.of(set.set, job);
        (remembered.begun, remembered.interrupted) = (None, false);
        let with = (job == Job::Full).then_some(Job::Differential);
        for job in std::iter::once(job).chain(with) {
            let Some(cron) = set.schedule.jobs.get(&job) else { continue };
            let remembered = self.of(set.set, job);
            let since = remembered.since(now);
            if let Some(slot) = newest_slot(cron, &set.schedule.timezone, since, now) {
                remembered.note(slot);
            }
        }
    }

    /// The process begins anew: what it was doing when it died becomes due once more, at once. What dies a second time is
    /// left until its next slot: it may be what kills the process.
    pub fn restart(&mut self) {
        for remembered in self.sets.values_mut().flat_map(BTreeMap::values_mut) {
            let Some(slot) = remembered.begun.take() else { continue };
            remembered.interrupted = !remembered.interrupted;
            if remembered.interrupted {
                remembered.done.retain(|done| *done != slot);
            }
        }
    }
}

impl Remembered {
    /// The moment after which slots are due. Where nothing is remembered that is not ahead of the clock, it is now.
    fn since(&mut self, now: Timestamp) -> Timestamp {
        let past = self.done.iter().filter(|done| **done <= now.as_second()).max();
        match past.and_then(|second| Timestamp::from_second(*second).ok()) {
            Some(since) => since,
            None => {
                self.note(now);
                now
            }
        }
    }

    fn note(&mut self, slot: Timestamp) {
        self.done.push(slot.as_second());
        let surplus = self.done.len().saturating_sub(REMEMBERED);
        self.done.drain(..surplus);
    }
}

/// One job's slots, and how far behind each it is done.
struct Clock<'a> {
    set: &'a str,
    job: Job,
    cron: &'a Cron,
    schedule: &'a Schedule,
}

impl Clock<'_> {
    /// When it is done for a slot: a share of the jitter later that only set, job and slot decide.
    fn due(&self, slot: Timestamp) -> Timestamp {
        let jitter = self.schedule.jitter.as_secs();
        // A full and a differential of one slot are due at one moment, so that the full wins.
        let job = if self.job == Job::Differential { Job::Full } else { self.job };
        let mut hasher = blake3::Hasher::new();
        for part in [self.set.as_bytes(), b"\0", job.name().as_bytes(), b"\0", &slot.as_second().to_le_bytes()] {
            hasher.update(part);
        }
        let mut number = [0; 8];
        hasher.finalize_xof().fill(&mut number);
        let late = u64::from_le_bytes(number) % (jitter + 1);
        let late = SignedDuration::from_secs(i64::try_from(late).unwrap_or_default());
        slot.checked_add(late).unwrap_or(slot)
    }

    fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        self.cron.after(moment, &self.schedule.timezone)
    }

    /// The newest slot after `since` that is due.
    fn newest_due(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        // What is younger than this may wait for its share of the jitter.
        let jitter = SignedDuration::try_from(self.schedule.jitter).ok()?;
        let settled = now.checked_sub(jitter).unwrap_or(Timestamp::MIN);
        let young = std::iter::successors(self.after(settled.max(since)), |slot| self.after(*slot));
        let young = young.take_while(|slot| *slot <= now).filter(|slot| self.due(*slot) <= now);
        young.last().or_else(|| newest_slot(self.cron, &self.schedule.timezone, since, settled))
    }

    /// When the next one is due, where none is.
    fn next_due(&self, since: Timestamp, now: Timestamp, done: &[i64]) -> Option<Timestamp> {
        let jitter = SignedDuration::try_from(self.schedule.jitter).ok()?;
        let from = now.checked_sub(jitter).unwrap_or(Timestamp::MIN).max(since);
        let mut best: Option<Timestamp> = None;
        let slots = std::iter::successors(self.after(from), |slot| self.after(*slot));
        for slot in slots.take(REMEMBERED.max(24 * 60)) {
            if best.is_some_and(|best| slot >= best) {
                break;
            }
            if !done.contains(&slot.as_second()) {
                best = Some(best.map_or(self.due(slot), |best| best.min(self.due(slot))));
            }
        }
        best
    }
}

/// The newest slot after `since` and not after `until`. Only looks forward, since that is where the rules of daylight saving
/// are; from ever longer ago, so that years that were missed are not gone through slot by slot.
fn newest_slot(cron: &Cron, zone: &TimeZone, since: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let mut back = SignedDuration::from_mins(2);
    loop {
        let from = until.checked_sub(back).unwrap_or(Timestamp::MIN).max(since);
        let slots = std::iter::successors(cron.after(from, zone), |slot| cron.after(*slot, zone));
        match slots.take_while(|slot| *slot <= until).last() {
            Some(slot) => return Some(slot),
            None if from == since => return None,
            None => back = back.saturating_mul(2),
        }
    }
}
