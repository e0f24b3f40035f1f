//! What is found changed on the mirror itself. Where history is on it goes into the log, contents and all: the log
//! leads to what the mirror has, whoever made it so.

use super::{Result, Slave};
use crate::catalogue::edit::Edit;
use crate::catalogue::store::KnownContents;
use crate::disk::Root;
use crate::id::{Epoch, Position, SetId};
use crate::log::segment::Segment;
use crate::maildir::change::Change;
use crate::maildir::entry::Time;
use crate::monitor::{Counters, Quiet};
use crate::sync::cycle::{Cycle, NoSink, Options, Sink};
use crate::sync::guard::Limit;
use crate::wire::frame::Frame;
use crate::wire::message::BLOCK;

/// zstd level of what is packed on the slave.
pub(super) const LEVEL: i32 = 4;

impl Slave {
    /// Holds the mirror against its catalogue. What differs goes into the catalogue, and where history is on into
    /// `segment`, which is begun where there is none.
    pub(super) fn scan_mirror(
        &self,
        edit: &mut Edit<'_>,
        problems: &Quiet,
        segment: &mut Option<Segment>,
    ) -> Result<Counters> {
        let options = Options {
            root: self.mirror.clone(),
            rules: &self.rules,
            limit: Limit::Percent(100),
            ships: self.history.is_some(),
            plans_only: false,
            settles: false,
            level: LEVEL,
            itemize: false,
            first_number: 1,
            standby: "",
        };
        let (Some(_), Some(state)) = (&self.history, &self.state) else {
            let mut sink = NoSink;
            let mut cycle = Cycle::new(&options, edit, None, &mut sink, problems);
            cycle.run()?;
            return Ok(cycle.counters.clone());
        };
        let (set, epoch, after) = (edit.head.set.unwrap_or_default(), edit.head.epoch, edit.head.position);
        let mut sink = FoundSink { slave: self, state, set, epoch, after, segment };
        let mut cycle = Cycle::new(&options, edit, Some(KnownContents::none()), &mut sink, problems);
        cycle.run()?;
        let counters = cycle.counters.clone();
        drop(cycle);
        if let Some(segment) = segment {
            segment.sync()?;
        }
        Ok(counters)
    }
}

/// The log as the place where batches go.
struct FoundSink<'a> {
    slave: &'a Slave,
    state: &'a Root,
    set: SetId,
    epoch: Epoch,
    after: Position,
    segment: &'a mut Option<Segment>,
}

impl FoundSink<'_> {
    fn segment(&mut self) -> Result<&mut Segment> {
        if self.segment.is_none() {
            self.slave.sync_names()?;
            *self.segment = Some(Segment::create(self.state, self.set, self.epoch, self.after)?);
        }
        self.segment.as_mut().ok_or_else(|| crate::sync::SyncError::Failed("the log is gone".to_owned()))
    }
}

impl Sink for FoundSink<'_> {
    fn block(&mut self, payload: Vec<u8>) -> Result<()> {
        Ok(self.segment()?.append(&Frame::plain(BLOCK, payload))?)
    }

    fn batch(&mut self, changes: &[Change]) -> Result<()> {
        Ok(self.segment()?.batch(now(), None, changes)?)
    }
}

/// The slave's own clock.
pub(super) fn now() -> Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() }
}
