//! What a text of the file means: times of day, lengths of time, rates, addresses, keys.

use super::table::{Table, Wrong};
use super::{Cron, CronError, Rate, Weekdays, Window};
use crate::config::link;
use crate::moment;
use crate::transport::address::Address;
use crate::transport::key::PeerKey;
use crate::transport::tls;
use crate::wire::pairing::is_name;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// The word for no limit to a rate.
pub const UNLIMITED: &str = "unlimited";

type Result<T> = std::result::Result<T, Wrong>;

/// A name of a set or a host: it must stand on a command line, and be no path.
pub fn name(text: &str) -> Result<String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("\"{}\" is no name", text.escape_debug()),
            "letters, digits, and - _ . after the first, at most 64",
        )),
    }
}

/// A path from the root, without `..`.
pub fn path(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Wrong::new(format!("\"{text}\" is not absolute"), "begin it with /"));
    }
    if text.contains('\0') || path.components().any(|part| part == Component::ParentDir) {
        return Err(Wrong::new(format!("\"{}\" has .. in it", text.escape_debug()), "write where it really is"));
    }
    Ok(path.components().collect())
}

/// When, or `None` for `never`.
pub fn cron(text: &str) -> Result<Option<Cron>> {
    if text.trim() == "never" {
        return Ok(None);
    }
    Cron::parse(text).map(Some).map_err(|error| match error {
        CronError::Syntax(..) => Wrong::new(
            error.to_string(),
            "write minute, hour, day of the month, month and day of the week, as \"30 2 * * 1-5\", or \"never\"",
        ),
        CronError::Never(..) => Wrong::new(error.to_string(), "name a day that comes, or write \"never\""),
    })
}

/// A zone of the IANA's database.
pub fn zone(text: &str) -> Result<TimeZone> {
    TimeZone::get(text).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let hint = match super::table::nearest(text, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None if names.is_empty() => "this host has no time zones: install tzdata".to_owned(),
            None => "write it as Europe/Berlin; timedatectl list-timezones has them all".to_owned(),
        };
        Wrong::new(format!("there is no time zone \"{text}\""), hint)
    })
}

/// A length of time, with thousandths of a second as well.
pub fn duration(text: &str) -> Result<Duration> {
    if let Some(number) = text.strip_suffix("ms").and_then(|number| number.trim().parse().ok()) {
        return Ok(Duration::from_millis(number));
    }
    moment::duration(text).map_err(|error| Wrong::new(error.to_string(), ""))
}

/// As [`duration`], from and up to something.
pub fn duration_within(text: &str, least: Duration, most: Duration) -> Result<Duration> {
    let length = duration(text)?;
    match length {
        _ if length < least => {
            Err(Wrong::new(format!("{text} is too short"), format!("write at least {}", shown(least))))
        }
        _ if length > most => Err(Wrong::new(format!("{text} is too long"), format!("write at most {}", shown(most)))),
        _ => Ok(length),
    }
}

fn shown(length: Duration) -> String {
    match (length.as_secs(), length.subsec_millis()) {
        (0, millis) => format!("{millis}ms"),
        (seconds, _) if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (seconds, _) => format!("{seconds}s"),
    }
}

/// Bytes a second, as `--bwlimit` reads them; `None` for `unlimited`.
pub fn rate(text: &str) -> Result<Option<u64>> {
    if text == UNLIMITED {
        return Ok(None);
    }
    link::rate(text).map(Some).map_err(|sentence| Wrong::new(sentence, ""))
}

/// Where to listen; `None` for `none`.
pub fn listen(text: &str) -> Result<Option<SocketAddr>> {
    let hint = "write an address of this host and a port, as \"0.0.0.0:8946\", \"[::]:8946\" or \"10.0.0.2:8946\", or \"none\"";
    if text == "none" {
        return Ok(None);
    }
    let port = text.rsplit_once(':').map(|(_, port)| port);
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) if port.is_none() => Err(Wrong::new(format!("\"{text}\" has no port"), hint)),
        Err(_) => Err(Wrong::new(format!("\"{text}\" is no address to listen on"), hint)),
    }
}

/// Host and port; the port is ours where none is given.
pub fn address(text: &str) -> Result<Address> {
    let address = Address::parse(text, tls::PORT).filter(|address| address.port > 0);
    let hint = "write \"mx2.example.org:8946\" or \"[2001:db8::2]:8946\"";
    address.ok_or_else(|| Wrong::new(format!("\"{}\" is no host and port", text.escape_debug()), hint))
}

/// `[user@]host`, as ssh takes it.
pub fn destination(text: &str) -> Result<String> {
    match text.starts_with('-')
        || text.is_empty()
        || (text.contains(':') && !text.contains(']'))
        || text.contains(|letter: char| letter.is_control() || " /".contains(letter))
    {
        true => Err(Wrong::new(
            format!("\"{}\" names no host", text.escape_debug()),
            "write \"mx2.example.org\" or \"vmail@mx2.example.org\", without a path",
        )),
        false => Ok(text.to_owned()),
    }
}

/// A public key, as `mailtwin pair --show` prints it.
pub fn key(text: &str) -> Result<PeerKey> {
    let hint = "write it as mailtwin pair --show prints it on that host: sha256: and 43 letters and digits";
    text.parse().map_err(|_| Wrong::new(format!("\"{}\" is no public key", text.escape_debug()), hint))
}

/// Hours of a table `{ from, to, days }`.
pub fn window(table: &mut Table<'_>) -> Option<Window> {
    let from = table.value("from", clock);
    let to = table.value("to", clock);
    let days = table.texts("days", weekday);
    for key in ["from", "to"] {
        if !table.has(key) {
            table.wrong(key, Wrong::new("it is missing", "write a time of day, as \"22:00\""));
        }
    }
    let days = days.map_or(Weekdays::ALL, |days| days.into_iter().fold(Weekdays::NONE, Weekdays::with));
    if days == Weekdays::NONE {
        table.wrong("days", Wrong::new("no day is left", "leave it out for every day"));
    }
    Some(Window { from: from?, to: to?, days })
}

/// Hours, and the rate in them.
pub fn rate_window(table: &mut Table<'_>) -> Option<Rate> {
    let limit = table.value("rate", rate);
    if !table.has("rate") {
        table.wrong(
            "rate",
            Wrong::new("it is missing", "write how much may be sent a second, as \"500\" (KiB) or \"2M\""),
        );
    }
    Some(Rate { window: window(table)?, rate: limit? })
}

/// `22:00`; `24:00` is midnight.
fn clock(text: &str) -> Result<Time> {
    let figures = |text: &str| (text.len() == 2).then(|| text.parse::<i8>().ok()).flatten();
    let parts = text.split_once(':').and_then(|(hour, minute)| Some((figures(hour)?, figures(minute)?)));
    let time = match parts {
        Some((24, 0)) => Some(Time::midnight()),
        Some((hour, minute)) => Time::new(hour, minute, 0, 0).ok(),
        None => None,
    };
    time.ok_or_else(|| Wrong::new(format!("\"{text}\" is no time of day"), "write \"08:00\" or \"22:30\""))
}

fn weekday(text: &str) -> Result<Weekday> {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let at = days.iter().position(|day| *day == text.to_ascii_lowercase());
    let day = at.and_then(|at| Weekday::from_monday_zero_offset(i8::try_from(at).ok()?).ok());
    day.ok_or_else(|| {
        Wrong::new(format!("\"{text}\" is no day of the week"), "write mon, tue, wed, thu, fri, sat or sun")
    })
}
