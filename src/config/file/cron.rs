//! A cron expression that fires: five fields, as crontab(5) has them.

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::fmt;

/// When something is done, by the clock on the wall.
///
/// Where a change to daylight saving leaves out an hour, what would have been done in it is done once, behind it; where an
/// hour comes twice, it is done once, in the first. Only expressions with a `*` for minute or hour mean every minute or
/// hour that there is: what is left out is left out, and what comes twice comes twice.
#[derive(Clone)]
pub struct Cron {
    text: String,
    /// The expression; or each of its times of day, since croner knows the rule above for a single one only.
    patterns: Vec<croner::Cron>,
}

/// What was written is no cron expression, or one that never fires.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields, or something in one that does not belong there.
    #[error("\"{0}\" is no cron expression: {1}")]
    Syntax(String, String),
    /// There is no such day.
    #[error("\"{0}\" never comes: no year has that day")]
    Never(String),
}

impl Cron {
    /// Reads one, and makes sure that it comes at all.
    ///
    /// # Errors
    /// Where it is none, or never comes.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let syntax = |error: croner::errors::CronError| CronError::Syntax(text.to_owned(), error.to_string());
        let pattern = parser.parse(text).map_err(syntax)?;
        if next(&pattern, Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_none() {
            return Err(CronError::Never(text.to_owned()));
        }
        let patterns = match times_of_day(&pattern, text) {
            Some(single) => single.iter().map(|text| parser.parse(text)).collect::<Result<_, _>>().map_err(syntax)?,
            None => vec![pattern],
        };
        Ok(Self { text: text.trim().to_owned(), patterns })
    }

    /// The next moment after this one at which it fires.
    pub fn after(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.patterns.iter().filter_map(|pattern| next(pattern, moment, zone)).min()
    }
}

/// An expression for each time of day, where there are several and each is named.
fn times_of_day(pattern: &croner::Cron, text: &str) -> Option<Vec<String>> {
    let (minutes, hours) = (&pattern.pattern.minutes, &pattern.pattern.hours);
    if minutes.from_wildcard || hours.from_wildcard || text.contains('@') {
        return None;
    }
    let days = text.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    let (minutes, hours) = (minutes.values(), hours.values());
    let times = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (minute, hour)));
    Some(times.map(|(minute, hour)| format!("{minute} {hour} {days}")).collect())
}

/// How far croner's search is helped on where a zone leaves out more than it knows how to step over: Samoa once left out
/// a day.
const STEP: SignedDuration = SignedDuration::from_hours(26);

fn next(pattern: &croner::Cron, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let find = |from: Timestamp| pattern.find_next_occurrence(&from.to_zoned(zone.clone()), false).ok();
    let found: Option<Zoned> = find(moment).or_else(|| find(moment.checked_add(STEP).ok()?));
    found.map(|found| found.timestamp())
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?})", self.text)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
