//! Reads the file from the disk, and asks this host about it.

use super::{Configuration, Defaults, Finding, Host, Set, Severity, check, read, table};
use crate::config::state_directory;
use crate::path::escape;
use crate::peer::entry::LONGEST;
use jiff::tz::TimeZone;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It is not there.
    #[error("there is no configuration {0}: mailtwin init writes one; --config FILE and MAILTWIN_CONFIG name another")]
    Absent(String),
    /// Something else is in the way.
    #[error("cannot read the configuration {0}: {1}")]
    Unreadable(String, std::io::Error),
    /// It is no text.
    #[error("the configuration {0} is no text in UTF-8 of at most 1 MiB: is it the right file?")]
    NoText(String),
    /// It was read, and is wrong.
    #[error("{}", sentences(.0, .1))]
    Wrong(PathBuf, Vec<Finding>),
}

fn sentences(file: &Path, findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let lines: Vec<String> =
        errors.map(|finding| format!("{}:{finding}", escape(file.as_os_str().as_bytes()))).collect();
    lines.join("\n")
}

/// A configuration with everything that is wrong with it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where it was read.
    pub file: PathBuf,
    /// What it says: whole only where nothing is an error.
    configuration: Configuration,
    /// What is wrong, by line.
    pub findings: Vec<Finding>,
}

impl Loaded {
    /// Whether something is wrong with it that nobody can live with.
    pub fn is_wrong(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// What it says.
    ///
    /// # Errors
    /// Where something is wrong with it.
    pub fn configuration(self) -> Result<Configuration, ConfigurationError> {
        match self.is_wrong() {
            true => Err(ConfigurationError::Wrong(self.file, self.findings)),
            false => Ok(self.configuration),
        }
    }
}

impl ConfigurationError {
    /// Whether there is simply no file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

impl Defaults {
    /// What this host is.
    pub fn of_this_host() -> Self {
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            state: state_directory().unwrap_or_else(|_| "/var/lib/mailtwin".into()),
            timezone: TimeZone::system(),
        }
    }

    /// The host of a file that says nothing of it.
    pub fn host(&self) -> Host {
        read::read("", self).configuration.host
    }
}

/// Reads a file, and looks at what it names.
///
/// # Errors
/// Where it cannot be read. What is wrong in it is no error here: [`Loaded::findings`] has it.
pub fn load(file: &Path) -> Result<Loaded, ConfigurationError> {
    let shown = || escape(file.as_os_str().as_bytes());
    let opened = std::fs::File::open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigurationError::Absent(shown()),
        _ => ConfigurationError::Unreadable(shown(), error),
    })?;
    let mut bytes = Vec::new();
    let length = opened.take(LONGEST + 1).read_to_end(&mut bytes);
    length.map_err(|error| ConfigurationError::Unreadable(shown(), error))?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= LONGEST);
    let text = text.ok_or_else(|| ConfigurationError::NoText(shown()))?;
    let reading = read::read(&text, &Defaults::of_this_host());
    let line = |key: &str| table::line_of(&reading.lines, key);
    let mut findings = reading.findings;
    findings.extend(check::surroundings(&reading.configuration, file, line));
    findings.sort_by_key(|finding| (finding.line, finding.severity));
    Ok(Loaded { file: file.to_owned(), configuration: reading.configuration, findings })
}

impl Configuration {
    /// The set of this name.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.get(name)
    }
}
