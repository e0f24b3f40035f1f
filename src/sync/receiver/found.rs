//! What is found changed on the mirror itself. Where history is on it goes into the log, contents and all: the log
//! leads to what the mirror has, whoever made it so.

use super::{Result, Slave};
use crate::catalogue::edit::Edit;
use crate::catalogue::store::{Head, KnownContents};
use crate::disk::now;
use crate::log::segment::Segment;
use crate::maildir::change::Change;
use crate::monitor::{Counters, Quiet};
use crate::sync::cycle::{Cycle, Glance, NoSink, Options, Sink};
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
        let head = edit.head.clone();
        let glance = Glance::at(&self.mirror, &self.rules, &self.catalogue, edit)?;
        let counters = match self.history {
            None => run(&options, glance, edit, None, &mut NoSink, problems)?,
            Some(_) => {
                let mut sink = FoundSink { slave: self, head, segment };
                run(&options, glance, edit, Some(KnownContents::none()), &mut sink, problems)?
            }
        };
        if let Some(segment) = segment {
            segment.sync()?;
        }
        Ok(counters)
    }
}

fn run(
    options: &Options<'_>,
    glance: Glance,
    edit: &mut Edit<'_>,
    contents: Option<KnownContents>,
    sink: &mut dyn Sink,
    problems: &Quiet,
) -> Result<Counters> {
    let mut cycle = Cycle::new(options, edit, contents, sink, problems);
    cycle.rely_on(glance);
    cycle.run()?;
    Ok(cycle.counters.clone())
}

/// The log as the place where batches go.
struct FoundSink<'a> {
    slave: &'a Slave,
    head: Head,
    segment: &'a mut Option<Segment>,
}

impl FoundSink<'_> {
    fn segment(&mut self) -> Result<&mut Segment> {
        match &mut *self.segment {
            Some(segment) => Ok(segment),
            none => Ok(none.insert(self.slave.begin_log(&self.head, self.head.position)?)),
        }
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
