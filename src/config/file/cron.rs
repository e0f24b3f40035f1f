//! A cron expression that fires: five fields, as crontab(5) has them.

use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use std::fmt;

/// When something is done, by the clock on the wall.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
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
        let cron = Self { text: text.trim().to_owned(), pattern };
        match cron.after(Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never(text.to_owned())),
        }
    }

    /// The next moment after this one at which it fires.
    pub fn after(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let from = moment.to_zoned(zone.clone());
        self.pattern.find_next_occurrence(&from, false).ok().map(|next: Zoned| next.timestamp())
    }

    /// The last moment not after this one at which it fired.
    pub fn until(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let from = moment.to_zoned(zone.clone());
        self.pattern.iter_before(from).next().map(|last: Zoned| last.timestamp())
    }
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
