//! A view comes forward by the log: segment after segment, each of which must be the one that belongs there.

use super::{Result, View};
use crate::id::Digest;
use crate::log::history::{End, History};
use crate::log::segment::{Closed, Replay};
use crate::maildir::entry::Time;
use crate::path::TreePath;
use crate::repository::layout::Repository;
use crate::repository::manifest::SegmentRef;

/// How far the log was followed.
struct Reached {
    /// The segment before the next one; its chain is zero where it is not known.
    last: Closed,
    /// That one says where it stands in the log.
    is_linked: bool,
}

impl View {
    /// Brings a view forward by what the log has got since.
    ///
    /// # Errors
    /// Where the log cannot be read; the view is of no use then.
    pub fn catch_up(&mut self, repository: &Repository) -> Result<()> {
        self.follow(repository, None, None, |_| {})
    }

    /// Brings the view forward by the log, to its end, to the last batch that was not after `until`, or to the end of the
    /// segment `through`; tells of each segment.
    ///
    /// # Errors
    /// Where the log cannot be read. What is not as it should be is in [`View::problems`].
    pub(super) fn follow(
        &mut self,
        repository: &Repository,
        until: Option<Time>,
        through: Option<u64>,
        mut each: impl FnMut(&mut Self),
    ) -> Result<()> {
        let Some(history) = &repository.history else { return Ok(()) };
        // Before the listing: what is closed meanwhile is one more, and none is missing.
        let end = history.end()?;
        let number = self.reached;
        let known = self.segments.iter().find(|segment| segment.number == number);
        let chain = known.map_or(Digest::default(), |segment| segment.chain);
        let mut reached = Reached { last: Closed { number, chain }, is_linked: false };
        for next in history.segments()?.into_iter().filter(|next| *next > number) {
            if through.is_some_and(|through| next > through) {
                return Ok(());
            }
            let is_followed = self.replay(history, next, until, &mut reached)?;
            each(self);
            if !is_followed {
                return Ok(());
            }
            self.reached = next;
        }
        if through.is_none_or(|through| through > reached.last.number) {
            self.problems.extend(at_end(history, end, &reached));
        }
        Ok(())
    }

    /// `false` where the moment was passed.
    fn replay(&mut self, history: &History, number: u64, until: Option<Time>, reached: &mut Reached) -> Result<bool> {
        self.watch.iter_mut().for_each(|watch| watch.segment = number);
        let path = History::path(number);
        let show = history.root().show(&path);
        let Some(mut replay) = Replay::open_at(history.root(), &path, true)? else {
            self.problems.push(format!("{show} cannot be read: what it held is missing"));
            reached.last = Closed { number, chain: Digest::default() };
            return Ok(true);
        };
        let segment = self.contents.add(history.root(), &path);
        self.problems.extend(self.misplaced(&replay, number, &reached.last).map(|what| format!("{show}: {what}")));
        reached.is_linked = replay.link.is_some_and(|link| link.number > 0);
        let mut passed = false;
        while let Some(batch) = replay.next_batch()? {
            let is_later = |until| batch.moment.is_some_and(|moment| moment > until);
            if until.is_some_and(is_later) {
                passed = true;
                break;
            }
            self.batch(&batch, segment)?;
            self.epoch = replay.header.epoch;
        }
        // A closed segment ends with its last batch.
        if !passed && replay.whole < replay.length {
            self.problems.push(format!("{show} is damaged: what stood behind is missing"));
        }
        reached.last = Closed { number, chain: replay.chain() };
        self.segments.push(SegmentRef { number, length: replay.whole, chain: replay.chain() });
        self.origins.push(None);
        Ok(!passed)
    }

    /// Why a segment is not the one that belongs behind the last.
    fn misplaced(&self, replay: &Replay, number: u64, last: &Closed) -> Option<String> {
        if number != last.number + 1 && last.number > 0 || replay.header.after > self.position {
            return Some("the log has a gap before it".to_owned());
        }
        if replay.header.set != self.set {
            return Some("it is of another set".to_owned());
        }
        let link = replay.link.filter(|link| link.number > 0)?;
        if link.number != number {
            return Some(format!("it is another segment of the log, number {}", link.number));
        }
        let is_other = last.chain != Digest::default() && link.before != last.chain;
        is_other.then(|| "the segment before it is not the one that the log had there".to_owned())
    }
}

/// What is wrong with the end of the log.
fn at_end(history: &History, end: End, reached: &Reached) -> Option<String> {
    let show = |number| history.root().show(&History::path(number));
    let file = || history.root().show(&TreePath::root().child("end"));
    let last = &reached.last;
    match end {
        End::At(end) if end.number > last.number => {
            Some(format!("{} is missing: the log ended with it, and what it held is missing", show(end.number)))
        }
        End::At(end) if end.number == last.number && reached.is_linked && end.chain != last.chain => {
            Some(format!("{} is not the segment with which the log ended", show(end.number)))
        }
        End::Damaged => Some(format!("{} is damaged: whether the log is whole cannot be told", file())),
        // A crash may have come before the first one was written.
        End::Unknown if reached.is_linked && last.number > 1 => {
            Some(format!("{} is missing: whether the log is whole cannot be told", file()))
        }
        _ => None,
    }
}
