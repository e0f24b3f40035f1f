//! Dirty folders, gathered for a moment: pure, with the time handed in.
//!
//! * A change waits until its window is over: 20 ms where nothing happened lately (a delivery has then written its
//!   uidlist line, too), 50 ms as a rule, up to 1 s as changes come faster, so that a storm of them becomes few cycles.
//! * Folders with new mail come first, and take along what else is due. What has waited for [`AGED`] waits for nobody
//!   who came later: so a busy folder starves none, since it is young again each time it was taken.
//! * One that is dirty with everything below it covers what is below it.

use crate::path::TreePath;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

/// The window where nothing happened lately.
const CALM: Duration = Duration::from_millis(20);

/// The shortest window otherwise.
const SHORTEST: Duration = Duration::from_millis(50);

/// The longest.
const LONGEST: Duration = Duration::from_secs(1);

/// The longest for new mail: somebody waits for it.
const LONGEST_MAIL: Duration = Duration::from_millis(150);

/// What dealing with a change costs, about: a window is as long as it takes to deal with what comes in a second.
const COST: Duration = Duration::from_micros(50);

/// Fewer changes a second are calm.
const CALM_RATE: f64 = 4.0;

/// Over which time the rate of changes is taken, in seconds.
const RATE_OVER: f64 = 0.5;

/// After this long a folder's turn comes before that of new mail which came later.
pub const AGED: Duration = Duration::from_secs(2);

/// Most folders given at once: new mail that comes meanwhile does not wait for all the others.
pub const MOST: usize = 256;

/// Between one look at everything and the next.
const EVERYTHING_APART: Duration = Duration::from_secs(1);

/// A folder, or a single directory outside folders, in which something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// Its directory: a unit of the scan.
    pub path: TreePath,
    /// When the first of the changes was seen that are not dealt with.
    pub since: Instant,
    /// A message may have come.
    pub new_mail: bool,
    /// So may everything below it have changed: it was made, or renamed, a moment ago.
    pub below: bool,
}

/// What happened to a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dirt {
    /// See [`Dirty::new_mail`].
    pub new_mail: bool,
    /// See [`Dirty::below`].
    pub below: bool,
    /// How many events told of it.
    pub events: u32,
}

/// Why everything has to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing was watched before.
    Start,
    /// All directories have been seen once by polling: from now on changes to each are noticed.
    Seen,
    /// More happened than the kernel keeps; the watches were set again.
    Overflow,
    /// File systems were mounted or unmounted beneath the root.
    Mounts,
    /// The source of events failed; another is used from now on.
    Changed,
}

/// What is to be looked at now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// These, in this order.
    Folders(Vec<Dirty>),
    /// All, as what happened is not known.
    Everything(Cause, Instant),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    since: Instant,
    new_mail: bool,
    below: bool,
}

/// Gathers.
#[derive(Debug, Default)]
pub struct Gather {
    folders: BTreeMap<TreePath, Entry>,
    /// Those of them that are dirty with all below them.
    deep: BTreeSet<TreePath>,
    everything: Option<(Cause, Instant)>,
    /// When everything was given last.
    given: Option<Instant>,
    rate: Rate,
    window: Duration,
    /// No folder with new mail came before the first, none without before the second.
    oldest: [Option<Instant>; 2],
}

impl Gather {
    /// Notes that a folder changed.
    pub fn dirty(&mut self, path: TreePath, dirt: Dirt, now: Instant) {
        let rate = self.rate.note(dirt.events.max(1), now);
        let is_calm = self.folders.is_empty() && rate < CALM_RATE;
        self.window = if is_calm { CALM } else { COST.mul_f64(rate).clamp(SHORTEST, LONGEST) };
        self.put(path, Entry { since: now, new_mail: dirt.new_mail, below: dirt.below });
    }

    /// Takes back folders that could not be dealt with: they are as old as they were.
    pub fn put_back(&mut self, folders: Vec<Dirty>) {
        for Dirty { path, since, new_mail, below } in folders {
            self.put(path, Entry { since, new_mail, below });
        }
    }

    /// Notes that everything may have changed.
    pub fn everything(&mut self, cause: Cause, now: Instant) {
        let pending = self.everything.map(|(_, since)| since);
        let oldest = self.oldest.into_iter().flatten().chain(pending).min();
        self.everything = Some((cause, oldest.unwrap_or(now)));
        self.folders.clear();
        self.deep.clear();
        self.oldest = [None; 2];
    }

    fn put(&mut self, path: TreePath, mut entry: Entry) {
        if self.everything.is_some() {
            return;
        }
        let at = self.deep_above(&path).unwrap_or(path);
        if entry.below && !self.folders.get(&at).is_some_and(|known| known.below) {
            entry = self.swallow(&at, entry);
            self.deep.insert(at.clone());
        }
        let known = self.folders.entry(at).or_insert(entry);
        known.since = known.since.min(entry.since);
        known.new_mail |= entry.new_mail;
        known.below |= entry.below;
        let oldest = &mut self.oldest[usize::from(!known.new_mail)];
        *oldest = Some(oldest.map_or(known.since, |oldest| oldest.min(known.since)));
    }

    /// The directory above this one, or this one, that is dirty with all below it.
    fn deep_above(&self, path: &TreePath) -> Option<TreePath> {
        if self.deep.is_empty() {
            return None;
        }
        let mut at = path.clone();
        loop {
            if self.deep.contains(&at) {
                return Some(at);
            }
            at = at.split()?.0;
        }
    }

    /// Takes the folders below one into it.
    fn swallow(&mut self, path: &TreePath, mut entry: Entry) -> Entry {
        // Between a directory and what is below it stand its siblings whose names begin as its own does.
        let range = (Bound::Included(path), Bound::Unbounded);
        let alike = self.folders.range::<TreePath, _>(range);
        let alike = alike.take_while(|(at, _)| at.as_bytes().starts_with(path.as_bytes()));
        let below = alike.filter(|(at, _)| at.is_within(path)).map(|(at, _)| at.clone());
        for at in below.collect::<Vec<_>>() {
            self.deep.remove(&at);
            if let Some(Entry { since, new_mail, .. }) = self.folders.remove(&at) {
                entry.since = entry.since.min(since);
                entry.new_mail |= new_mail;
            }
        }
        entry
    }

    /// How long a folder waits.
    fn window(&self, new_mail: bool) -> Duration {
        if new_mail { self.window.min(LONGEST_MAIL) } else { self.window }
    }

    /// When there is something to take; `None` while nothing is dirty.
    pub fn due(&self) -> Option<Instant> {
        if let Some((_, since)) = self.everything {
            return Some(self.given.map_or(since, |given| given + EVERYTHING_APART));
        }
        let [mail, other] = self.oldest;
        let due = [mail.map(|since| since + self.window(true)), other.map(|since| since + self.window(false))];
        due.into_iter().flatten().min()
    }

    /// Takes what is due: new mail first, then the others by age, and never more than [`MOST`].
    pub fn take(&mut self, now: Instant) -> Option<Due> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        if let Some((cause, since)) = self.everything.take() {
            self.given = Some(now);
            return Some(Due::Everything(cause, since));
        }
        // One whose turn it is takes all along, so that a storm is few cycles; new mail waits for no flags.
        let all = self.oldest[1].is_some_and(|oldest| now.saturating_duration_since(oldest) >= self.window(false));
        let goes = |entry: &Entry| entry.new_mail || all;
        let mut going: Vec<(bool, Instant, TreePath)> = Vec::new();
        for (path, entry) in self.folders.iter().filter(|(_, entry)| goes(entry)) {
            let waits = !entry.new_mail && now.saturating_duration_since(entry.since) < AGED;
            going.push((waits, entry.since, path.clone()));
        }
        going.sort();
        going.truncate(MOST);
        let taken: Vec<Dirty> = going.into_iter().filter_map(|(_, _, path)| self.remove(path)).collect();
        self.look_for_oldest();
        (!taken.is_empty()).then_some(Due::Folders(taken))
    }

    fn remove(&mut self, path: TreePath) -> Option<Dirty> {
        let Entry { since, new_mail, below } = self.folders.remove(&path)?;
        self.deep.remove(&path);
        Some(Dirty { path, since, new_mail, below })
    }

    fn look_for_oldest(&mut self) {
        self.oldest = [None; 2];
        for entry in self.folders.values() {
            let oldest = &mut self.oldest[usize::from(!entry.new_mail)];
            *oldest = Some(oldest.map_or(entry.since, |oldest| oldest.min(entry.since)));
        }
    }

    /// How many folders wait; one stands for everything.
    pub fn waiting(&self) -> usize {
        self.folders.len() + usize::from(self.everything.is_some())
    }
}

/// How many changes come in a second, those of long ago counting less.
#[derive(Debug, Default)]
struct Rate {
    level: f64,
    last: Option<Instant>,
}

impl Rate {
    fn note(&mut self, events: u32, now: Instant) -> f64 {
        let passed = self.last.map_or(f64::INFINITY, |last| now.saturating_duration_since(last).as_secs_f64());
        self.level = self.level * (-passed / RATE_OVER).exp() + f64::from(events);
        self.last = Some(now);
        self.level / RATE_OVER
    }
}

#[cfg(test)]
mod tests;
