//! A master's side of one set and one slave: connect, catch up, follow what is touched; connect again when that ends.

use super::control::Control;
use super::journal::{Level, Lines};
use super::schedule;
use super::status::{Board, PeerStatus};
use super::watch::{News, Options, Scope, WatchKind, Watcher};
use super::way;
use crate::catalogue::filter::Filter;
use crate::config::file::{Configuration, Peer, Set};
use crate::config::{self, Plan, Typed};
use crate::disk::{Root, now};
use crate::sync::SyncError;
use crate::sync::cycle::Unit;
use crate::sync::sender::detect_kind;
use crate::sync::sender::follow::{Feed, Standing, Turn, follow};
use crate::transport::backoff::Backoff;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Both ends put away what they have at least so often while something is sent, and so soon when nothing more comes.
const REST_EVERY: Duration = Duration::from_secs(5);
const REST_AFTER: Duration = Duration::from_secs(1);

/// Where messages were on the move everything is looked at again so soon.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A sign of life, where there is nothing else to say.
const PING_EVERY: Duration = Duration::from_secs(10);

/// The shortest and the longest wait before a slave is called again; a session that lasted so long was a good one.
const WAITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];
const LIVED: Duration = Duration::from_secs(30);

/// One set and one slave.
pub struct Follower {
    /// What this host is.
    pub configuration: Arc<Configuration>,
    /// Names in it.
    pub set: String,
    /// See `set`.
    pub peer: String,
    /// Where it says how it stands.
    pub board: Board,
    /// What it is told.
    pub control: Arc<Control>,
    /// What it has to say.
    pub lines: Lines,
}

impl Follower {
    /// Follows until it is told to end.
    pub fn run(&self) {
        let mut backoff = Backoff::new(WAITS[0], WAITS[1], LIVED);
        while !self.control.is_ending() {
            let begin = Instant::now();
            match self.attempt() {
                Ok(()) if self.control.is_ending() => break,
                Ok(()) => {}
                Err(error) => self.failed(&error),
            }
            let mut chance = [0; 8];
            // Without randomness the longest wait is taken.
            let chance = getrandom::fill(&mut chance).map_or(u64::MAX, |()| u64::from_le_bytes(chance));
            self.control.sleep(backoff.after(begin.elapsed(), chance));
        }
    }

    fn note(&self, change: impl FnOnce(&mut PeerStatus)) {
        self.board.peer(&self.set, &self.peer, change);
    }

    fn state(&self, state: &str) {
        self.note(|peer| {
            if peer.state != state {
                (peer.state, peer.since) = (state.to_owned(), now().seconds);
            }
        });
    }

    fn failed(&self, error: &SyncError) {
        let sentence = error.to_string();
        let is_new = self
            .board
            .get()
            .sets
            .get(&self.set)
            .and_then(|set| set.peers.get(&self.peer))
            .is_none_or(|peer| peer.error.as_ref() != Some(&sentence));
        // The same failure again and again is one line, and a number in the status.
        self.lines.say(if is_new { Level::Error } else { Level::Debug }, &sentence);
        self.note(|peer| {
            peer.failures += 1;
            peer.error = Some(sentence);
        });
        self.state("waiting");
    }

    /// One session.
    fn attempt(&self) -> Result<(), SyncError> {
        let missing = || SyncError::Failed(format!("the configuration has no set {} with {}", self.set, self.peer));
        let set = self.configuration.sets.get(&self.set).ok_or_else(missing)?;
        let peer = self.configuration.peers.get(&self.peer).ok_or_else(missing)?;
        self.state("connecting");
        let plan = self.plan(set, peer)?;
        let kind = plan.request.kind.unwrap_or_else(|| detect_kind(&set.path));
        let scope = Scope { kind, filter: Filter::new(kind, &plan.request.filters)? };
        let most = self.configuration.limits.watches.and_then(|most| usize::try_from(most).ok());
        let options = Options { kind: WatchKind::Auto, most_watches: most };
        // It stands before the first look, or tells that it does: nothing falls between.
        let watcher = Watcher::start(Root::open(&set.path)?, scope, Vec::new(), options)
            .map_err(|error| SyncError::Failed(format!("cannot watch {}: {error}", set.path.display())))?;
        self.control.wake_by(Some(watcher.waker()));
        let mut feed = Watched::new(self, watcher);
        let ended = way::reach(Some(&self.configuration), &plan, &mut |connect| {
            follow(&plan.request, &self.lines, connect, &mut feed)
        });
        self.control.wake_by(None);
        let ended_because = feed.ended.take();
        let report = ended?;
        self.note(|peer| peer.bytes_sent = report.bytes_sent);
        ended_because.map_or(Ok(()), |reason| Err(SyncError::Failed(reason)))
    }

    fn plan(&self, set: &Set, peer: &Peer) -> Result<Plan, SyncError> {
        let rate = schedule::pace(&set.schedule, self.configuration.limits.bandwidth, jiff::Timestamp::now()).rate;
        let typed = Typed { checksum: self.control.take_comparison(), ..Typed::default() };
        let plan = config::plan_set(&self.configuration, set, peer, typed, rate);
        let mut plan = plan.map_err(|error| SyncError::Failed(error.sentence))?;
        plan.request.kind = plan.request.kind.or_else(|| Some(detect_kind(&set.path)));
        Ok(plan)
    }
}

/// A watcher's news as turns.
struct Watched<'a> {
    follower: &'a Follower,
    watcher: Watcher,
    /// When what the present turn looks at was touched first.
    given: Option<Instant>,
    last_rest: Instant,
    last_sent: Instant,
    last_scan: Instant,
    /// Messages that sessions before this one added.
    added_before: Option<u64>,
    ended: Option<String>,
    /// Removals that waited for messages on the move, so far; and when everything is looked at again for them.
    waited: u64,
    again: Option<Instant>,
}

impl<'a> Watched<'a> {
    fn new(follower: &'a Follower, watcher: Watcher) -> Self {
        let begin = Instant::now();
        Self {
            follower,
            watcher,
            given: None,
            last_rest: begin,
            last_sent: begin,
            last_scan: begin,
            added_before: None,
            ended: None,
            waited: 0,
            again: None,
        }
    }

    /// The turn before has been done: what it looked at is durable.
    fn tell(&mut self, standing: &Standing<'_>) {
        let watching = self.watcher.status();
        let given = self.given.take();
        let waited = standing.report.counters.removals_waiting;
        if std::mem::replace(&mut self.waited, waited) < waited {
            self.again = Some(Instant::now() + AGAIN_AFTER);
        }
        let added = standing.report.counters.messages_added;
        let before = &mut self.added_before;
        self.follower.note(|peer| {
            peer.position = Some(standing.position.to_string());
            peer.messages_added = *before.get_or_insert(peer.messages_added) + added;
            if !standing.owes_rest && standing.report.in_sync {
                peer.in_sync_at = Some(now().seconds);
            }
            peer.durable_at = Some(now().seconds);
            peer.lag_seconds = given.map_or(0.0, |since| since.elapsed().as_secs_f64());
            peer.folders_waiting = watching.waiting as u64;
            peer.watch = Some(watching.kind.name().to_owned());
            peer.notices = watching.notices;
            peer.stopped.clone_from(&standing.report.stopped);
            peer.error = None;
        });
        self.follower.state("following");
    }

    /// How long to wait for news.
    fn patience(&self, owes_rest: bool) -> Duration {
        let rescan = self.follower.configuration.limits.rescan.saturating_sub(self.last_scan.elapsed());
        let ping = PING_EVERY.saturating_sub(self.last_sent.elapsed());
        let again = self.again.map_or(Duration::MAX, |again| again.saturating_duration_since(Instant::now()));
        let patience = match owes_rest {
            true => REST_AFTER.min(REST_EVERY.saturating_sub(self.last_rest.elapsed())),
            false => ping.min(rescan),
        };
        patience.min(again)
    }

    fn turn(&mut self, turn: Turn) -> Turn {
        self.follower.lines.say(Level::Debug, &format!("{turn:?}"));
        self.last_sent = Instant::now();
        match turn {
            Turn::Rest => self.last_rest = self.last_sent,
            Turn::Everything => self.last_scan = self.last_sent,
            _ => {}
        }
        turn
    }
}

impl Feed for Watched<'_> {
    fn next(&mut self, standing: &Standing<'_>) -> Turn {
        self.tell(standing);
        let control = &self.follower.control;
        if control.is_ending() || control.wants_comparison() {
            return Turn::End;
        }
        if standing.owes_rest && self.last_rest.elapsed() >= REST_EVERY {
            return self.turn(Turn::Rest);
        }
        match self.watcher.next(Some(self.patience(standing.owes_rest))) {
            News::Folders(folders) => {
                self.given = folders.iter().map(|folder| folder.since).min();
                let unit = |folder: super::watch::Dirty| Unit { path: folder.path, below: folder.below };
                self.turn(Turn::Some(folders.into_iter().map(unit).collect()))
            }
            News::Everything(_, since) => {
                self.given = Some(since);
                self.turn(Turn::Everything)
            }
            News::Ended(reason) => {
                self.ended = Some(reason);
                Turn::End
            }
            News::Woken => Turn::Ping,
            News::Quiet if self.again.is_some_and(|again| again <= Instant::now()) => {
                self.again = None;
                self.turn(Turn::Everything)
            }
            News::Quiet if standing.owes_rest => self.turn(Turn::Rest),
            News::Quiet if self.last_scan.elapsed() >= self.follower.configuration.limits.rescan => {
                self.turn(Turn::Everything)
            }
            News::Quiet => self.turn(Turn::Ping),
        }
    }

    /// The watcher cannot say yet that it has read every event up to now.
    fn touched(&mut self) -> Option<Vec<Unit>> {
        None
    }
}
