//! From what was typed to what it means: validated options.
//!
//! Layer 6. What cannot be is said here, in one sentence, before anything is opened or anybody called.

use crate::maildir::folder::SetKind;
use crate::sync::guard::Limit;
use crate::sync::sender::Request;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the slave is.
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
}

/// What was typed is no use; the sentence says why and what to do. Exit code 2, or 1 where the disk says so.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct UsageError {
    /// For a person.
    pub sentence: String,
    /// The exit code.
    pub code: u8,
}

fn wrong(sentence: String) -> UsageError {
    UsageError { sentence, code: 2 }
}

/// What was typed, field by field.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are the options of mailtwin-sync(1)")]
pub struct Typed {
    pub source: OsString,
    pub destination: OsString,
    pub kind: Option<SetKind>,
    pub slave_state: Option<OsString>,
    pub filters: Vec<String>,
    pub chown: Option<String>,
    pub max_delete: Option<String>,
    pub bwlimit: Option<String>,
    pub rsh: Option<String>,
    pub remote_path: Option<String>,
    pub timeout: u64,
    pub checksum: bool,
    pub dry_run: bool,
    pub itemize: bool,
    pub level: Option<i32>,
}

/// What it means.
#[derive(Debug)]
pub struct Plan {
    /// What the session is asked to do.
    pub request: Request,
    /// Where the slave is.
    pub place: Place,
    /// The command that reaches it, where it is on another host.
    pub command: Vec<String>,
    /// mailtwin on that host.
    pub remote_path: String,
    /// How long the other end may say nothing.
    pub timeout: Option<Duration>,
    /// Bytes a second that may be sent.
    pub rate: Option<u64>,
}

/// zstd level over a wire: what the slave stores and what travels. In one host nothing travels.
const DEFAULT_LEVEL: i32 = 4;

/// Validates what was typed.
///
/// # Errors
/// The first thing that cannot be.
pub fn plan(typed: Typed) -> Result<Plan, UsageError> {
    let place = place(&typed.destination)?;
    let limit = typed.max_delete.as_deref().map(Limit::parse).transpose();
    let limit = limit.map_err(|reason| wrong(format!("--max-delete: {reason}")))?.unwrap_or_default();
    let rate = typed.bwlimit.as_deref().map(rate).transpose()?;
    let chown = typed.chown.as_deref().map(owners).transpose()?;
    let source = source(&typed.source)?;
    let (destination, pair) = match &place {
        Place::Here(path) => {
            let path = apart(&source, path)?;
            (path.as_os_str().as_bytes().to_vec(), path.to_string_lossy().into_owned())
        }
        Place::There { host, path } => (path.clone(), format!("{host}:{}", String::from_utf8_lossy(path))),
    };
    let is_here = matches!(place, Place::Here(_));
    let state = state_directory()?;
    if full_path(&state).starts_with(&source) {
        let state = crate::path::escape(state.as_os_str().as_bytes());
        return Err(wrong(format!(
            "the master's state {state} lies inside the source: set MAILTWIN_STATE to another directory"
        )));
    }
    let level = typed.level.unwrap_or(if is_here { 0 } else { DEFAULT_LEVEL });
    let remote_path = typed.remote_path.unwrap_or_else(|| "mailtwin".to_owned());
    let command = command(&place, typed.rsh.as_deref(), &remote_path)?;
    let request = Request {
        source,
        destination,
        pair,
        state,
        slave_state: typed.slave_state.map(|state| state.as_bytes().to_vec()),
        kind: typed.kind,
        filters: typed.filters,
        chown,
        limit,
        checksum: typed.checksum,
        dry_run: typed.dry_run,
        itemize: typed.itemize,
        level,
    };
    let timeout = (typed.timeout > 0).then(|| Duration::from_secs(typed.timeout));
    Ok(Plan { request, place, command, remote_path, timeout, rate })
}

fn source(typed: &OsStr) -> Result<PathBuf, UsageError> {
    let shown = crate::path::escape(typed.as_bytes());
    let failed = |reason: &str| UsageError { sentence: format!("the source {shown} {reason}"), code: 1 };
    let path = std::fs::canonicalize(typed).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("does not exist: check the path, and whether its disk is mounted"),
        _ => failed(&format!("cannot be reached: {error}")),
    })?;
    match path.is_dir() {
        true => Ok(path),
        false => Err(failed("is not a directory: name the Maildir, or the tree that holds it")),
    }
}

/// As rsync reads it: a colon before the first slash makes it remote.
fn place(typed: &OsStr) -> Result<Place, UsageError> {
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
            false => Ok(Place::Here(typed.into())),
        };
    };
    let (host, path) = (&bytes[..colon], &bytes[colon + 1..]);
    let host = std::str::from_utf8(host).unwrap_or_default();
    if host.is_empty() || host.starts_with('-') || host.contains(char::is_control) {
        return Err(wrong(format!("\"{}\" names no host", crate::path::escape(bytes))));
    }
    let path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
    Ok(Place::There { host: host.to_owned(), path })
}

/// The destination's full path, which is neither in the source nor around it.
fn apart(source: &Path, destination: &Path) -> Result<PathBuf, UsageError> {
    let full = full_path(destination);
    let relation = if full == source {
        "is the source itself"
    } else if full.starts_with(source) {
        "lies inside the source"
    } else if source.starts_with(&full) {
        "has the source inside it"
    } else {
        return Ok(full);
    };
    let shown = crate::path::escape(destination.as_os_str().as_bytes());
    Err(wrong(format!("the destination {shown} {relation}: a mirror needs a directory of its own")))
}

/// As `canonicalize`, for a path of which the end need not exist.
fn full_path(path: &Path) -> PathBuf {
    if let Ok(full) = std::fs::canonicalize(path) {
        return full;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => full_path(parent).join(name),
        _ => absolute,
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

/// `USER:GROUP`, either part by name or number, either part missing.
fn owners(typed: &str) -> Result<(Option<u32>, Option<u32>), UsageError> {
    let (user, group) = typed.split_once(':').unwrap_or((typed, ""));
    let unknown = |what: &str, name: &str| {
        wrong(format!("--chown: there is no {what} \"{name}\" on this host; a number works too"))
    };
    let uid = match (user, user.parse()) {
        ("", _) => None,
        (_, Ok(uid)) => Some(uid),
        _ => Some(uzers::get_user_by_name(user).ok_or_else(|| unknown("user", user))?.uid()),
    };
    let gid = match (group, group.parse()) {
        ("", _) => None,
        (_, Ok(gid)) => Some(gid),
        _ => Some(uzers::get_group_by_name(group).ok_or_else(|| unknown("group", group))?.gid()),
    };
    match (uid, gid) {
        (None, None) => Err(wrong("--chown wants USER:GROUP, USER or :GROUP".to_owned())),
        owners => Ok(owners),
    }
}

/// As rsync's: kibibytes a second, or with a suffix K, M or G.
fn rate(typed: &str) -> Result<u64, UsageError> {
    let (number, unit) = match typed.char_indices().last() {
        Some((at, 'k' | 'K')) => (&typed[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&typed[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&typed[..at], 1 << 30),
        _ => (typed, 1 << 10),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * f64::from(unit)).max(1.0) as u64),
        _ => Err(wrong(format!("--bwlimit: \"{typed}\" is no rate: 500 is 500 KiB a second, 2M is 2 MiB"))),
    }
}

/// `$MAILTWIN_STATE`; `/var/lib/mailtwin` for root; `$XDG_STATE_HOME/mailtwin` otherwise.
fn state_directory() -> Result<PathBuf, UsageError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(state) = variable("MAILTWIN_STATE") {
        return Ok(state);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/mailtwin".into());
    }
    let home = || variable("HOME").map(|home| home.join(".local/state"));
    variable("XDG_STATE_HOME")
        .or_else(home)
        .map(|base| base.join("mailtwin"))
        .ok_or_else(|| wrong("there is no place for the master's state: set MAILTWIN_STATE or HOME".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Place {
        place(OsStr::new(text)).expect("a place")
    }

    #[test]
    fn a_colon_before_the_first_slash_makes_it_remote() {
        let there = |host: &str, path: &str| Place::There { host: host.into(), path: path.as_bytes().to_vec() };
        assert_eq!(at("mx2:/var/vmail"), there("mx2", "/var/vmail"));
        assert_eq!(at("vmail@mx2:mail"), there("vmail@mx2", "mail"));
        assert_eq!(at("[::1]:/srv"), there("[::1]", "/srv"));
        assert_eq!(at("./a:b"), Place::Here("./a:b".into()));
        assert_eq!(at("/srv/x:y"), Place::Here("/srv/x:y".into()));
        assert!(place(OsStr::new(":/srv")).is_err());
        assert!(place(OsStr::new("-oProxyCommand=x:/srv")).is_err());
    }

    #[test]
    fn source_and_destination_must_be_apart() {
        let source = std::fs::canonicalize("/usr").expect("is there");
        let refused = |path: &str| apart(&source, Path::new(path)).expect_err("not apart").sentence;
        assert!(refused("/usr/share/mirror").contains("inside the source"));
        assert!(refused("/").contains("has the source inside it"));
        assert!(refused("/usr/../usr").contains("the source itself"));
        assert!(apart(&source, Path::new("/usr2")).is_ok());
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

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(owners("5000:5001").expect("owners"), (Some(5000), Some(5001)));
        assert_eq!(owners("root").expect("owners"), (Some(0), None));
        assert_eq!(owners(":0").expect("owners"), (None, Some(0)));
        assert!(owners("no such user").is_err() && owners("").is_err());
    }
}
