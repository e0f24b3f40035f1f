//! Hours of the day: when it is to be quiet, when how much may be sent.

use jiff::civil::{Date, Time, Weekday};
use jiff::{Timestamp, ToSpan, Zoned};

/// Some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weekdays(u8);

impl Weekdays {
    /// Each of them.
    pub const ALL: Self = Self(0x7f);

    /// None of them.
    pub const NONE: Self = Self(0);

    /// These, and this one.
    pub fn with(self, day: Weekday) -> Self {
        Self(self.0 | 1 << day.to_monday_zero_offset())
    }

    /// Whether it is among them.
    pub fn has(self, day: Weekday) -> bool {
        self.0 & 1 << day.to_monday_zero_offset() != 0
    }
}

/// From one time of day to another, on some days of the week. One that goes past midnight is of the day on which it
/// begins; one that ends when it begins lasts a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub from: Time,
    /// The first moment after it.
    pub to: Time,
    /// The days on which it begins.
    pub days: Weekdays,
}

/// How much a second may be sent in some hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// When.
    pub window: Window,
    /// Bytes a second; `None` as many as go.
    pub rate: Option<u64>,
}

impl Window {
    /// Whether the clock on the wall stands within it.
    pub fn holds(&self, now: &Zoned) -> bool {
        let (date, time) = (now.date(), now.time());
        let begins = |date: Date| self.days.has(date.weekday());
        if self.from < self.to {
            return begins(date) && self.from <= time && time < self.to;
        }
        let since_yesterday = time < self.to && date.yesterday().is_ok_and(begins);
        since_yesterday || (begins(date) && self.from <= time)
    }

    /// The next moment after `now` at which it may begin or end, on whatever day.
    pub fn edge(&self, now: &Zoned) -> Option<Timestamp> {
        let edges = [self.from, self.to].into_iter().filter_map(|time| next_at(time, now));
        edges.min()
    }
}

/// The next moment at which the clock shows this time; what a change to daylight saving leaves out comes behind it.
fn next_at(time: Time, now: &Zoned) -> Option<Timestamp> {
    let days = (0..=2).filter_map(|days| now.date().checked_add(days.days()).ok());
    let moments = days.flat_map(|date| {
        let at = now.time_zone().to_ambiguous_zoned(date.to_datetime(time));
        [at.clone().earlier(), at.later()].into_iter().flatten()
    });
    moments.map(|moment| moment.timestamp()).filter(|moment| *moment > now.timestamp()).min()
}
