//! Hours of the day: when it is to be quiet, when how much may be sent.

use jiff::Zoned;
use jiff::civil::{Date, Time, Weekday};

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
}
