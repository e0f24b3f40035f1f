//! A session that stays: after the first run the master looks at what was touched, as long as it lasts.
//!
//! ```text
//!  a run, as `mailtwin sync` makes it; then, again and again,
//!    units that were touched -> a cycle of these alone -> durable on the slave
//!    now and then, when something was sent: Finish, Done: both ends put away what they have
//! ```
//!
//! One transaction of either catalogue reaches from one Done to the next. Where the master is killed before, its catalogue is
//! behind the slave's, and the next session compares.

use super::{Master, Report, Request, Result, What, wire};
use crate::catalogue::edit::Edit;
use crate::id::Position;
use crate::monitor::Monitor;
use crate::sync::cycle::{Glance, Unit};
use crate::transport::Connection;
use crate::wire::message::Message;

/// What a session that stays does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Looks at these units.
    Some(Vec<Unit>),
    /// Looks at everything.
    Everything,
    /// Says that it lives, and hears whether the other end does.
    Ping,
    /// Both ends put away what they have, and compare their digests.
    Rest,
    /// Does so, and ends.
    End,
}

/// What the last turn came to.
#[derive(Debug)]
pub struct Standing<'a> {
    /// All that was done in this session; `in_sync` is of the last rest.
    pub report: &'a Report,
    /// The last batch that is durable on the slave.
    pub position: Position,
    /// Batches were sent since the last rest.
    pub owes_rest: bool,
}

/// Tells a session what to look at.
pub trait Feed {
    /// What to do next; waits for it. What was given by the turn before is durable on the slave.
    fn next(&mut self, standing: &Standing<'_>) -> Turn;

    /// All units that were touched up to now and were not given; `None` where that is not known.
    fn touched(&mut self) -> Option<Vec<Unit>>;
}

/// As [`super::run`], and then as long as the feed has turns.
///
/// # Errors
/// As [`super::run`]. What was acknowledged before stays.
pub fn follow(
    request: &Request,
    monitor: &dyn Monitor,
    connect: impl FnOnce() -> Result<Connection>,
    feed: &mut dyn Feed,
) -> Result<Report> {
    super::with_master(request, monitor, connect, |master, connection| {
        let mut report = master.session(connection, None)?;
        while master.term(connection, &mut report, feed)? {}
        Ok(report)
    })
}

impl Master<'_> {
    /// Turns up to the next rest; `false` where it was the last.
    fn term(&mut self, connection: &mut Connection, report: &mut Report, feed: &mut dyn Feed) -> Result<bool> {
        self.rules.restat = false;
        let transaction = self.catalogue.begin()?;
        let mut edit = Edit::new(&transaction)?;
        let begin = edit.head.position;
        let goes_on = loop {
            let position = edit.head.position;
            let standing = Standing { report, position, owes_rest: position != begin };
            match feed.next(&standing) {
                Turn::End => break false,
                Turn::Rest => break true,
                Turn::Ping => wire::ping(connection)?,
                Turn::Some(units) => {
                    let mut elsewhere = || feed.touched();
                    self.ship(&mut edit, connection, report, What::Some(&units, &mut elsewhere), false)?;
                }
                Turn::Everything => {
                    let glance = Glance::at(&self.source, &self.rules, &self.catalogue, &mut edit)?;
                    self.ship(&mut edit, connection, report, What::All(glance), false)?;
                }
            }
        };
        let owes_rest = edit.head.position != begin;
        if owes_rest {
            connection.sender.send(&Message::Finish)?;
        }
        let here = (edit.root_digest(), edit.head.position);
        match edit.finish()? {
            true => transaction.commit()?,
            false => transaction.abort()?,
        }
        if owes_rest {
            let done = self.hear_done(connection, report, here)?;
            if !report.in_sync {
                let again = self.session(connection, Some(done))?;
                report.counters.add(&again.counters);
                *report = Report { counters: report.counters.clone(), ..again };
            }
        }
        Ok(goes_on)
    }
}
