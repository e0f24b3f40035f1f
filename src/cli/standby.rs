//! What the commands about restore points have in common: the standby, and which moment is meant.

use super::configured::Configured;
use crate::config::file::Role;
use crate::maildir::entry::Time;
use crate::moment;
use crate::repository::label::PointLabel;
use crate::repository::layout::{Repository, RepositoryError};
use crate::repository::view::At;
use std::ffi::OsString;
use std::path::Path;

/// Where the restore points are.
#[derive(Debug, clap::Args)]
pub struct Standby {
    /// The directory that mailtwin sync made, or the name of a set
    #[arg(value_name = "STANDBY")]
    pub standby: OsString,

    /// Where the standby keeps its state [default: STANDBY/.mailtwin]
    #[arg(long, value_name = "DIR")]
    pub state: Option<OsString>,
}

/// Which moment is meant.
#[derive(Debug, clap::Args)]
pub struct Moment {
    /// As the restore point with this label has it
    #[arg(long, value_name = "LABEL", conflicts_with = "at")]
    pub point: Option<String>,

    /// As it was at this time: "2026-11-21 14:05", "yesterday 9am", "2h ago", RFC 3339 [default: the newest]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// A sentence, and the exit code that goes with it.
#[derive(Debug)]
pub struct Failure(pub String, pub u8);

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        Self(error.to_string(), 1)
    }
}

impl Standby {
    /// A name of a set becomes the directories that the configuration has for it.
    ///
    /// # Errors
    /// Where it is the name of no set, and no directory; or of one whose restore points are elsewhere.
    pub fn resolve(&mut self, configured: &Configured) -> Result<(), Failure> {
        let Some(set) = configured.set(&self.standby)? else { return Ok(()) };
        if set.role == Role::Master {
            let (name, peers) = (&set.name, set.peers.join(", "));
            return Err(Failure(
                format!("of the set {name} this host is the master: its restore points are on {peers}"),
                2,
            ));
        }
        self.standby = set.path.clone().into_os_string();
        self.state = self.state.take().or_else(|| set.state.clone().map(Into::into));
        Ok(())
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(&self) -> Result<Repository, Failure> {
        Ok(Repository::open(Path::new(&self.standby), self.state.as_deref().map(Path::new))?)
    }
}

impl Moment {
    /// The moment that was typed.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(&self) -> Result<At, Failure> {
        match (&self.point, &self.at) {
            (Some(label), _) => Ok(At::Point(label_of(label)?)),
            (None, Some(typed)) => time_of(typed).map(At::Moment),
            (None, None) => Ok(At::Newest),
        }
    }
}

/// A label that was typed.
///
/// # Errors
/// Where it is none.
pub fn label_of(typed: &str) -> Result<PointLabel, Failure> {
    typed.parse().map_err(|error: crate::repository::label::LabelError| Failure(error.to_string(), 2))
}

/// A time that was typed.
///
/// # Errors
/// Where it is none.
pub fn time_of(typed: &str) -> Result<Time, Failure> {
    moment::parse(typed, &jiff::Zoned::now()).map_err(|error| Failure(error.to_string(), 2))
}

/// A time as people of this host read it.
pub fn shown(time: Time) -> String {
    moment::show(time, &jiff::tz::TimeZone::system())
}

/// Bytes as people read them.
pub fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// Runs a command; its failure becomes a sentence and an exit code.
pub fn run(command: impl FnOnce() -> Result<u8, Failure>) -> u8 {
    command().unwrap_or_else(|Failure(sentence, code)| super::error::tell(&sentence, code))
}
