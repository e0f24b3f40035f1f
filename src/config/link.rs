//! Where the other end is, and how it is reached: the same words in every command.

use super::{UsageError, wrong};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// Where something is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory of this host.
    Here(PathBuf),
    /// A directory of another: `[user@]host`, and the path there.
    There {
        /// As ssh takes it.
        host: String,
        /// As the far end opens it.
        path: Vec<u8>,
    },
    /// A set of a host that was paired, which knows where it is. Nobody can type that but as the name of a set.
    Paired {
        /// As the configuration calls the host.
        peer: String,
        /// As both hosts call the set.
        set: String,
    },
}

/// What was typed of the way to another host.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are the options of mailtwin-sync(1)")]
pub struct TypedLink {
    pub bwlimit: Option<String>,
    pub rsh: Option<String>,
    pub remote_path: Option<String>,
    pub timeout: Option<u64>,
    pub level: Option<i32>,
}

/// What it means.
#[derive(Debug)]
pub struct Link {
    /// The command that reaches the other end, where that is on another host.
    pub command: Vec<String>,
    /// mailtwin on that host.
    pub remote_path: String,
    /// How long the other end may say nothing.
    pub timeout: Option<Duration>,
    /// Bytes a second that may be sent.
    pub rate: Option<u64>,
    /// zstd level.
    pub level: i32,
}

/// zstd level over a wire: what the slave stores and what travels. In one host nothing travels.
const DEFAULT_LEVEL: i32 = 4;

/// Seconds that the other end may say nothing.
const DEFAULT_TIMEOUT: u64 = 60;

impl Link {
    /// The way to a place.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn new(typed: &TypedLink, place: &Place) -> Result<Self, UsageError> {
        let rate = typed.bwlimit.as_deref().map(rate).transpose();
        let rate = rate.map_err(|reason| wrong(format!("--bwlimit: {reason}")))?;
        let level = typed.level.unwrap_or(if matches!(place, Place::Here(_)) { 0 } else { DEFAULT_LEVEL });
        let remote_path = typed.remote_path.clone().unwrap_or_else(|| "mailtwin".to_owned());
        let command = command(place, typed.rsh.as_deref(), &remote_path)?;
        let timeout = typed.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let timeout = (timeout > 0).then(|| Duration::from_secs(timeout));
        Ok(Self { command, remote_path, timeout, rate, level })
    }
}

impl Place {
    /// As rsync reads it: a colon before the first slash makes it remote.
    ///
    /// # Errors
    /// Where it is empty, or names no host.
    pub fn parse(typed: &OsStr) -> Result<Self, UsageError> {
        let bytes = typed.as_bytes();
        let colon = match bytes.first() {
            // An IPv6 address stands in brackets, its user before them.
            _ if bytes.contains(&b']') => bytes.windows(2).position(|pair| pair == b"]:").map(|at| at + 1),
            _ => bytes.iter().position(|&byte| byte == b':'),
        };
        let slash = bytes.iter().position(|&byte| byte == b'/').unwrap_or(bytes.len());
        let Some(colon) = colon.filter(|&colon| colon < slash) else {
            return match bytes.is_empty() {
                true => Err(wrong("the destination is empty".to_owned())),
                false => Ok(Self::Here(typed.into())),
            };
        };
        let (host, path) = (&bytes[..colon], &bytes[colon + 1..]);
        let host = std::str::from_utf8(host).unwrap_or_default();
        if host.is_empty() || host.starts_with('-') || host.contains(char::is_control) {
            return Err(wrong(format!("\"{}\" names no host", crate::path::escape(bytes))));
        }
        let path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        Ok(Self::There { host: host.to_owned(), path })
    }
}

fn command(place: &Place, rsh: Option<&str>, remote_path: &str) -> Result<Vec<String>, UsageError> {
    let Place::There { host, .. } = place else { return Ok(Vec::new()) };
    let mut command: Vec<String> = rsh.unwrap_or("ssh").split_ascii_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        return Err(wrong("--rsh is empty: name the program that reaches the other host".to_owned()));
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    command.extend([host, remote_path, "serve", "--stdio"].map(str::to_owned));
    Ok(command)
}

/// As rsync's: kibibytes a second, or with a suffix K, M or G.
///
/// # Errors
/// A sentence for whoever wrote it.
pub(super) fn rate(typed: &str) -> Result<u64, String> {
    let (number, unit) = match typed.char_indices().last() {
        Some((at, 'k' | 'K')) => (&typed[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&typed[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&typed[..at], 1 << 30),
        _ => (typed, 1 << 10),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * f64::from(unit)).max(1.0) as u64),
        _ => Err(format!("\"{typed}\" is no rate: 500 is 500 KiB a second, 2M is 2 MiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Place {
        Place::parse(OsStr::new(text)).expect("a place")
    }

    #[test]
    fn a_colon_before_the_first_slash_makes_it_remote() {
        let there = |host: &str, path: &str| Place::There { host: host.into(), path: path.as_bytes().to_vec() };
        assert_eq!(at("mx2:/var/vmail"), there("mx2", "/var/vmail"));
        assert_eq!(at("vmail@mx2:mail"), there("vmail@mx2", "mail"));
        assert_eq!(at("[::1]:/srv"), there("[::1]", "/srv"));
        assert_eq!(at("./a:b"), Place::Here("./a:b".into()));
        assert_eq!(at("/srv/x:y"), Place::Here("/srv/x:y".into()));
        assert!(Place::parse(OsStr::new(":/srv")).is_err());
        assert!(Place::parse(OsStr::new("-oProxyCommand=x:/srv")).is_err());
    }

    #[test]
    fn rates_are_read_as_rsync_reads_them() {
        assert_eq!(rate("500").expect("a rate"), 500 << 10);
        assert_eq!(rate("1.5M").expect("a rate"), 3 << 19);
        assert!(rate("fast").is_err() && rate("0").is_err());
    }

    #[test]
    fn the_far_end_is_called_as_rsync_calls_it() {
        let place = at("vmail@mx2:/srv");
        let command = command(&place, Some("ssh -p 2222"), "mailtwin").expect("a command");
        assert_eq!(command, ["ssh", "-p", "2222", "vmail@mx2", "mailtwin", "serve", "--stdio"]);
    }
}
