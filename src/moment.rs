//! Times as people type them and read them: `yesterday 9am`, `2h ago`, `2026-11-21 14:05`.
//!
//! Layer 1. Pure: the clock and the time zone are handed in, as the `now` of whoever types. Where nothing else is said
//! a time is one of that zone. A time that a change to or from daylight saving skips or repeats is taken as RFC 5545
//! takes it (jiff's `compatible`): later by what was skipped, or the first of the two.
//!
//! The rest of the crate knows [`Time`] only; calendars stay in here.

use crate::maildir::entry::Time;
use crate::path::escape;
use jiff::civil::{self, Date, DateTime, Weekday};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp, ToSpan, Zoned};
use std::fmt;
use std::time::Duration;

/// What was typed is no time, or no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// No time that there is.
    #[error(
        "\"{0}\" is no time: write \"2026-11-21 14:05\", \"yesterday 9am\", \"monday 14:05\", \"2h ago\", 14:05, \
         2026-11-21T14:05:00Z or now"
    )]
    Moment(String),
    /// No length of time.
    #[error("\"{0}\" is no length of time: write 60s, 90m, 26h, 7d or 2w")]
    Duration(String),
}

/// Reads a moment, however a person writes it:
///
/// * `2026-11-21 14:05`, with seconds or without; `2026-11-21`: its midnight;
/// * `14:05`, `9am`, `9:30pm`: the latest that is not after `now`;
/// * `today`, `yesterday` and a weekday's name (`monday`, `mon`), alone for midnight or before a time of day. Of a
///   weekday the latest that is not after `now` is meant; `today 23:00` may lie ahead;
/// * `2h ago`, `90m ago`, `3 days ago`, `2 weeks ago`: days and weeks are the calendar's, so the time of day stays
///   whatever daylight saving does; hours, minutes and seconds are the clock's;
/// * RFC 3339, as `2026-11-21T14:05:00+01:00`; `@1795269900`, seconds since 1970-01-01 UTC; `now`.
///
/// Capitals and repeated spaces do not matter. Whether a moment that lies ahead is any use is the caller's to say.
///
/// # Errors
/// [`MomentError::Moment`] where `typed` is none of these, or no calendar has it.
pub fn parse(typed: &str, now: &Zoned) -> Result<Time, MomentError> {
    let lower = typed.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let found = match words.as_slice() {
        ["now"] => Some(now.timestamp()),
        [rest @ .., "ago"] => Length::parse(rest).and_then(|length| length.before(now)),
        [word] => single(word, now),
        [day, clock] => clock_of(clock).and_then(|clock| on_day(day, clock, now)),
        _ => None,
    };
    // What names its zone, or its offset from UTC, needs none of the above.
    let found = found.or_else(|| typed.trim().parse().ok());
    found.map(from_timestamp).ok_or_else(|| MomentError::Moment(escape(typed.as_bytes())))
}

/// Reads a length of time: `60s`, `90m`, `26h`, `7d`, `2w`, and the words that [`parse`] takes before `ago`.
/// A day is 24 hours here, and a week seven of them.
///
/// # Errors
/// [`MomentError::Duration`] where `typed` is none, or more seconds than 64 bits hold.
pub fn duration(typed: &str) -> Result<Duration, MomentError> {
    let lower = typed.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let length = Length::parse(&words).and_then(Length::duration);
    length.ok_or_else(|| MomentError::Duration(escape(typed.as_bytes())))
}

/// A moment as a clock on the wall of `zone` shows it: `2026-11-21 14:05:00`. One that no calendar has is written
/// `@seconds`.
pub fn show(time: Time, zone: &TimeZone) -> String {
    let Some(timestamp) = to_timestamp(time) else { return format!("@{}", time.seconds) };
    let at = zone.to_datetime(timestamp);
    format!("{} {:02}:{:02}:{:02}", at.date(), at.hour(), at.minute(), at.second())
}

/// A moment in UTC for programs, by RFC 3339: `2026-11-21T14:05:00Z`, with as many decimals of the second as there
/// are. One that no calendar has is written `@seconds`.
pub fn rfc3339(time: Time) -> String {
    to_timestamp(time).map_or_else(|| format!("@{}", time.seconds), |timestamp| timestamp.to_string())
}

/// A moment in UTC as `asctime` of C writes it, without the end of the line: `Sat Nov 21 14:05:00 2026`. One that no
/// calendar has is the first second of 1970.
pub fn asctime(time: Time) -> String {
    let timestamp = Timestamp::from_second(time.seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    Offset::UTC.to_datetime(timestamp).strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// A whole second of the calendar of UTC, in the years 0 to 9999, written as restore points' labels have it:
/// `20261122-030000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Second(Timestamp);

impl Second {
    /// The second that `time` lies in; `None` outside those years.
    pub fn of(time: Time) -> Option<Self> {
        let second = Timestamp::from_second(time.seconds).ok()?;
        (Offset::UTC.to_datetime(second).year() >= 0).then_some(Self(second))
    }

    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (day, clock) = text.split_once('-')?;
        let (day, clock): (i32, i32) = (figures(day, 8..=8)?, figures(clock, 6..=6)?);
        let year = i16::try_from(day / 10_000).ok()?;
        let date = Date::new(year, two_figures(day / 100), two_figures(day)).ok()?;
        let clock = civil::Time::new(two_figures(clock / 10_000), two_figures(clock / 100), two_figures(clock), 0);
        Offset::UTC.to_timestamp(date.to_datetime(clock.ok()?)).ok().map(Self)
    }

    /// Its beginning.
    pub fn time(self) -> Time {
        from_timestamp(self.0)
    }
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Offset::UTC.to_datetime(self.0);
        write!(f, "{:04}{:02}{:02}-", at.year(), at.month(), at.day())?;
        write!(f, "{:02}{:02}{:02}", at.hour(), at.minute(), at.second())
    }
}

/// The last two decimal figures of a number that is not negative.
fn two_figures(number: i32) -> i8 {
    i8::try_from(number % 100).unwrap_or_default()
}

/// A number of so many decimal figures, and of nothing else.
fn figures<N: std::str::FromStr>(text: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<N> {
    let plain = lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn from_timestamp(timestamp: Timestamp) -> Time {
    let (seconds, nanos) = (timestamp.as_second(), timestamp.subsec_nanosecond());
    // Before 1970 jiff counts both downwards.
    match u32::try_from(nanos) {
        Ok(nanos) => Time { seconds, nanos },
        Err(_) => Time { seconds: seconds - 1, nanos: 1_000_000_000_u32.saturating_sub(nanos.unsigned_abs()) },
    }
}

fn to_timestamp(time: Time) -> Option<Timestamp> {
    Timestamp::new(time.seconds, i32::try_from(time.nanos).ok()?).ok()
}

/// A moment in one word that is not `now`.
fn single(word: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(seconds) = word.strip_prefix('@') {
        return Timestamp::from_second(seconds.parse().ok()?).ok();
    }
    if let Some(clock) = clock_of(word) {
        return latest(now.date(), clock, 1.day(), now);
    }
    if let Some(moment) = on_day(word, civil::Time::midnight(), now) {
        return Some(moment);
    }
    let (date, clock) = word.split_once('t')?;
    local(date_of(date)?.to_datetime(clock_of(clock)?), now)
}

/// That time of day on the day that a word names.
fn on_day(word: &str, clock: civil::Time, now: &Zoned) -> Option<Timestamp> {
    if let Some(weekday) = weekday_of(word) {
        let since = now.date().weekday().since(weekday);
        return latest(now.date().checked_sub(since.days()).ok()?, clock, 1.week(), now);
    }
    let date = match word {
        "today" => now.date(),
        "yesterday" => now.date().yesterday().ok()?,
        _ => date_of(word)?,
    };
    local(date.to_datetime(clock), now)
}

/// How many steps [`latest`] goes back: today's may lie ahead, and what takes its place where a zone left out a whole
/// day (Samoa's 30 December 2011) too.
const STEPS: i64 = 2;

/// That time of day on `date`, or so many steps before it that it is not after `now`.
fn latest(date: Date, clock: civil::Time, step: Span, now: &Zoned) -> Option<Timestamp> {
    let back = |steps| date.checked_sub(step.checked_mul(steps).ok()?).ok();
    let moments = (0..=STEPS).filter_map(|steps| local(back(steps)?.to_datetime(clock), now));
    moments.into_iter().find(|moment| *moment <= now.timestamp())
}

fn local(at: DateTime, now: &Zoned) -> Option<Timestamp> {
    at.to_zoned(now.time_zone().clone()).ok().map(|zoned| zoned.timestamp())
}

/// `2026-11-21`.
fn date_of(word: &str) -> Option<Date> {
    let (year, rest) = word.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    Date::new(figures(year, 4..=4)?, figures(month, 2..=2)?, figures(day, 2..=2)?).ok()
}

/// `14:05`, `14:05:30`, `9am`, `9:30pm`; 12am is midnight.
fn clock_of(word: &str) -> Option<civil::Time> {
    let (time, half) = match (word.strip_suffix("am"), word.strip_suffix("pm")) {
        (Some(time), _) => (time, Some(0)),
        (_, Some(time)) => (time, Some(12)),
        _ => (word, None),
    };
    let parts: Vec<&str> = time.split(':').collect();
    let (hour, minute, second) = match (parts.as_slice(), half) {
        (&[hour], Some(_)) => (hour, "00", "00"),
        (&[hour, minute], _) => (hour, minute, "00"),
        (&[hour, minute, second], _) => (hour, minute, second),
        _ => return None,
    };
    let hour: i8 = match (figures(hour, 1..=2)?, half) {
        (hour, None) => hour,
        (hour @ 1..=12, Some(half)) => hour % 12 + half,
        _ => return None,
    };
    civil::Time::new(hour, figures(minute, 2..=2)?, figures(second, 2..=2)?, 0).ok()
}

/// A weekday's name, whole or its first three letters.
fn weekday_of(word: &str) -> Option<Weekday> {
    Some(match word {
        "monday" | "mon" => Weekday::Monday,
        "tuesday" | "tue" => Weekday::Tuesday,
        "wednesday" | "wed" => Weekday::Wednesday,
        "thursday" | "thu" => Weekday::Thursday,
        "friday" | "fri" => Weekday::Friday,
        "saturday" | "sat" => Weekday::Saturday,
        "sunday" | "sun" => Weekday::Sunday,
        _ => return None,
    })
}

/// A number of units of time.
#[derive(Clone, Copy)]
struct Length {
    number: u64,
    unit: Unit,
}

#[derive(Clone, Copy)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
}

impl Length {
    /// `["2h"]` or `["2", "hours"]`.
    fn parse(words: &[&str]) -> Option<Self> {
        let (number, unit) = match *words {
            [word] => word.split_at_checked(word.find(|letter: char| !letter.is_ascii_digit())?)?,
            [number, unit] => (number, unit),
            _ => return None,
        };
        Some(Self { number: figures(number, 1..=20)?, unit: Unit::parse(unit)? })
    }

    /// The moment that much before `now`.
    fn before(self, now: &Zoned) -> Option<Timestamp> {
        let number = i64::try_from(self.number).ok()?;
        let span = match self.unit {
            Unit::Second => Span::new().try_seconds(number),
            Unit::Minute => Span::new().try_minutes(number),
            Unit::Hour => Span::new().try_hours(number),
            Unit::Day => Span::new().try_days(number),
            Unit::Week => Span::new().try_weeks(number),
        };
        now.checked_sub(span.ok()?).ok().map(|zoned| zoned.timestamp())
    }

    fn duration(self) -> Option<Duration> {
        let seconds = match self.unit {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 60 * 60,
            Unit::Day => 24 * 60 * 60,
            Unit::Week => 7 * 24 * 60 * 60,
        };
        self.number.checked_mul(seconds).map(Duration::from_secs)
    }
}

impl Unit {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "s" | "sec" | "secs" | "second" | "seconds" => Self::Second,
            "m" | "min" | "mins" | "minute" | "minutes" => Self::Minute,
            "h" | "hour" | "hours" => Self::Hour,
            "d" | "day" | "days" => Self::Day,
            "w" | "week" | "weeks" => Self::Week,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
