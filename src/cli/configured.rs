//! The configuration as commands use it: read when a name needs it, and not before.

use super::error::say;
use super::standby::Failure;
use crate::config;
use crate::config::file::{self, Configuration, ConfigurationError, Defaults, Host, Loaded, Set};
use crate::path::escape;
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the configuration is, and what it says once it was read.
pub struct Configured {
    file: PathBuf,
    /// Somebody said where it is: that it is not there is then an error.
    is_named: bool,
    read: OnceCell<Result<Configuration, ConfigurationError>>,
}

impl Configured {
    /// That of `--config`, of the environment, or of its usual place. Nothing is read yet.
    pub fn new(typed: Option<&OsStr>) -> Self {
        let (file, is_named) = config::configuration_file(typed);
        Self { file, is_named, read: OnceCell::new() }
    }

    fn read(&self) -> Result<&Configuration, &ConfigurationError> {
        self.read.get_or_init(|| file::load(&self.file)?.configuration()).as_ref()
    }

    /// What it says, which is needed.
    ///
    /// # Errors
    /// Where it is not there, or wrong.
    pub fn needed(&self) -> Result<&Configuration, Failure> {
        self.read().map_err(|error| Failure(error.to_string(), 1))
    }

    /// Where it is, if it is there.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What this host is: by the file, where there is one.
    ///
    /// # Errors
    /// Where there is one that is wrong.
    pub fn host(&self) -> Result<Host, Failure> {
        match self.read() {
            Ok(configuration) => Ok(configuration.host.clone()),
            Err(error) if error.is_absent() => Ok(Defaults::of_this_host().host()),
            Err(error) => Err(Failure(error.to_string(), 1)),
        }
    }

    /// What it says, with everything that is wrong with it, and where it stands; read now.
    ///
    /// # Errors
    /// Where it is not there, or cannot be read.
    pub fn loaded(&self) -> Result<(PathBuf, Loaded), Failure> {
        let loaded = file::load(&self.file).map_err(|error| Failure(error.to_string(), 1))?;
        Ok((self.file.clone(), loaded))
    }

    /// The set that somebody means who may mean a directory as well: a path, a directory that is there, and any word where
    /// nobody configured anything, are no set.
    ///
    /// # Errors
    /// Where it can only be a set, and there is none of this name, or the configuration is wrong.
    pub fn set(&self, typed: &OsStr) -> Result<Option<&Set>, Failure> {
        if !config::may_be_name(typed) || typed == "." || typed == ".." {
            return Ok(None);
        }
        if Path::new(typed).is_dir() {
            let is_set = |configuration: &Configuration| self.find(configuration, typed).is_some();
            if self.read().is_ok_and(is_set) {
                let name = escape(typed.as_bytes());
                say(&format!("{name} is taken for the directory ./{name}, not for the set of this name"));
            }
            return Ok(None);
        }
        match self.read() {
            Err(error) if error.is_absent() && !self.is_named => Ok(None),
            _ => self.set_named(typed).map(Some),
        }
    }

    /// The set of this name.
    ///
    /// # Errors
    /// Where there is none, or the configuration is not there or wrong.
    pub fn set_named(&self, typed: &OsStr) -> Result<&Set, Failure> {
        let name = escape(typed.as_bytes());
        if !config::may_be_name(typed) {
            let sentence = format!(
                "{name} is no name of a set, and DEST is missing: mailtwin sync SRC DEST, or mailtwin sync SET"
            );
            return Err(Failure(sentence, 2));
        }
        let configuration = match self.read() {
            Err(error) if error.is_absent() && !self.is_named => {
                return Err(Failure(format!("DEST is missing, and {name} is no set: {error}"), 2));
            }
            _ => self.needed()?,
        };
        self.find(configuration, typed).ok_or_else(|| {
            let file = escape(self.file.as_os_str().as_bytes());
            let sets: Vec<&str> = configuration.sets.keys().map(String::as_str).collect();
            let known = if sets.is_empty() { "none".to_owned() } else { sets.join(", ") };
            Failure(format!("there is no set {name} in {file} (sets: {known}), and no directory of this name"), 2)
        })
    }

    /// The set of this name, or all of them.
    ///
    /// # Errors
    /// Where there is none of this name, or the configuration is not there or wrong.
    pub fn sets(&self, typed: Option<&OsStr>) -> Result<Vec<&Set>, Failure> {
        let configuration = self.needed().map_err(|Failure(sentence, _)| Failure(sentence, 2))?;
        let Some(typed) = typed else { return Ok(configuration.sets.values().collect()) };
        self.find(configuration, typed).map(|set| vec![set]).ok_or_else(|| {
            let (name, file) = (escape(typed.as_bytes()), escape(self.file.as_os_str().as_bytes()));
            let sets: Vec<&str> = configuration.sets.keys().map(String::as_str).collect();
            let known = if sets.is_empty() { "none".to_owned() } else { sets.join(", ") };
            Failure(format!("there is no set {name} in {file} (sets: {known})"), 2)
        })
    }

    fn find<'a>(&self, configuration: &'a Configuration, typed: &OsStr) -> Option<&'a Set> {
        configuration.sets.get(typed.to_str()?)
    }
}
