//! From what was typed to what it means: validated options.
//!
//! Layer 6. What cannot be is said here, in one sentence, before anything is opened or anybody called.

use crate::maildir::folder::SetKind;
use crate::sync::guard::Limit;
use crate::sync::receiver::admission::destination_of;
use crate::sync::sender::Request;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub mod file;
mod link;
mod named;
pub mod peers;

pub use link::{Link, Place, TypedLink};
pub use named::{may_be_name, plan_set};

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
    pub link: TypedLink,
    pub checksum: bool,
    pub dry_run: bool,
    pub itemize: bool,
}

/// What it means.
#[derive(Debug)]
pub struct Plan {
    /// What the session is asked to do.
    pub request: Request,
    /// Where the slave is.
    pub place: Place,
    /// How it is reached.
    pub link: Link,
}

/// Validates what was typed.
///
/// # Errors
/// The first thing that cannot be.
pub fn plan(typed: Typed) -> Result<Plan, UsageError> {
    let place = Place::parse(&typed.destination)?;
    plan_to(typed, place)
}

fn plan_to(typed: Typed, place: Place) -> Result<Plan, UsageError> {
    let limit = typed.max_delete.as_deref().map(Limit::parse).transpose();
    let limit = limit.map_err(|reason| wrong(format!("--max-delete: {reason}")))?.unwrap_or_default();
    let link = Link::new(&typed.link, &place)?;
    let chown = typed.chown.as_deref().map(owners).transpose();
    let chown = chown.map_err(|reason| wrong(format!("--chown: {reason}")))?;
    let source = source(&typed.source)?;
    let (destination, pair) = match &place {
        Place::Here(path) => {
            let path = apart(&source, path)?;
            (path.as_os_str().as_bytes().to_vec(), path.to_string_lossy().into_owned())
        }
        Place::There { host, path } => (path.clone(), format!("{host}:{}", String::from_utf8_lossy(path))),
        Place::Paired { peer, set } => {
            let destination = destination_of(set);
            let pair = format!("{peer}:{}", String::from_utf8_lossy(&destination));
            (destination, pair)
        }
    };
    let state = state_directory()?;
    if full_path(&state).starts_with(&source) {
        let state = crate::path::escape(state.as_os_str().as_bytes());
        return Err(wrong(format!(
            "the master's state {state} lies inside the source: set MAILTWIN_STATE to another directory"
        )));
    }
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
        level: link.level,
    };
    Ok(Plan { request, place, link })
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

/// `USER:GROUP`, either part by name or number, either part missing.
fn owners(typed: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = typed.split_once(':').unwrap_or((typed, ""));
    let unknown = |what: &str, name: &str| format!("there is no {what} \"{name}\" on this host; a number works too");
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
        (None, None) => Err("it wants USER:GROUP, USER or :GROUP".to_owned()),
        owners => Ok(owners),
    }
}

/// A path that the environment names.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The configuration's file: what was typed, `$MAILTWIN_CONFIG`, or the place where it is; and whether somebody named it.
pub fn configuration_file(typed: Option<&OsStr>) -> (PathBuf, bool) {
    match typed.map(PathBuf::from).or_else(|| variable("MAILTWIN_CONFIG")) {
        Some(file) => (file, true),
        None => (file::DEFAULT_FILE.into(), false),
    }
}

/// `$MAILTWIN_STATE`; `/var/lib/mailtwin` for root; `$XDG_STATE_HOME/mailtwin` otherwise.
fn state_directory() -> Result<PathBuf, UsageError> {
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
    fn owners_are_names_or_numbers() {
        assert_eq!(owners("5000:5001").expect("owners"), (Some(5000), Some(5001)));
        assert_eq!(owners("root").expect("owners"), (Some(0), None));
        assert_eq!(owners(":0").expect("owners"), (None, Some(0)));
        assert!(owners("no such user").is_err() && owners("").is_err());
    }
}
