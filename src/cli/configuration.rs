//! `mailtwin init`: a configuration to begin with. `mailtwin check-config`: what is wrong with one.

use super::error::{print, tell};
use super::standby::{Failure, run as running};
use crate::config;
use crate::config::file::{self, Finding, Loaded, Role, Severity, example};
use crate::disk::{DiskError, Root};
use crate::path::{Name, TreePath, escape};
use clap::ValueEnum;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Its owner writes it, its group reads it.
const MODE: u16 = 0o640;

/// Options of `init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// What this host is to be: where the mail is served, or where the mirror is kept
    #[arg(long, value_enum, default_value = "master")]
    pub role: RoleName,

    /// Write it to this file, which must not be there yet, or to standard output (-) [default: the configuration]
    #[arg(long, value_name = "FILE")]
    pub output: Option<OsString>,
}

/// Options of `check-config`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The file [default: the configuration]
    #[arg(value_name = "FILE")]
    pub file: Option<OsString>,

    /// Print one object on standard output
    #[arg(long)]
    pub json: bool,
}

/// What `--role` is called.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleName {
    /// The mail is here, and goes to others
    Master,
    /// The mirror is here, and the restore points
    Slave,
}

/// Writes the configuration and gives the exit code.
pub fn init(arguments: &Init, typed: Option<&OsStr>) -> u8 {
    running(|| {
        let text = example(match arguments.role {
            RoleName::Master => Role::Master,
            RoleName::Slave => Role::Slave,
        });
        if arguments.output.as_deref() == Some(OsStr::new("-")) {
            print(text.trim_end());
            return Ok(0);
        }
        let file = arguments.output.as_ref().map_or_else(|| config::configuration_file(typed).0, Into::into);
        write(&file, &text)?;
        let shown = escape(file.as_os_str().as_bytes());
        print(&format!("{shown}: written; say in it what is here, then look at it with mailtwin check-config"));
        Ok(0)
    })
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let shown = escape(file.as_os_str().as_bytes());
    let failed = |error: DiskError| match error.already_exists() {
        true => Failure(
            format!(
                "{shown} is there already, and stays as it is: --output FILE writes to another, --output - shows it"
            ),
            1,
        ),
        false => Failure(error.to_string(), 1),
    };
    let name = file.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
    let name = name.ok_or_else(|| Failure(format!("{shown} is no name for a file"), 2))?;
    let above = file.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = Root::open_or_make(above).map_err(failed)?;
    let path = TreePath::root().join(&name);
    let mut writer = root.create(&path, MODE).map_err(failed)?;
    let written = writer.write(text.as_bytes()).and_then(|()| writer.sync());
    if let Err(error) = written.and_then(|()| root.sync_directory(&TreePath::root())) {
        // A part of it would be taken for all of it.
        let _ = root.remove(&path);
        return Err(failed(error));
    }
    Ok(())
}

/// Checks the configuration and gives the exit code.
pub fn check(arguments: &Check, typed: Option<&OsStr>) -> u8 {
    running(|| {
        let (file, _) = config::configuration_file(arguments.file.as_deref().or(typed));
        let loaded = file::load(&file).map_err(|error| Failure(error.to_string(), 1))?;
        let shown = escape(file.as_os_str().as_bytes());
        match arguments.json {
            true => print(&object(&shown, &loaded).to_string()),
            false => loaded.findings.iter().for_each(|finding| print(&format!("{shown}:{}{finding}", space(finding)))),
        }
        let count = |severity| loaded.findings.iter().filter(|finding| finding.severity == severity).count();
        let warnings = match count(Severity::Warning) {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            count => format!(", {count} warnings"),
        };
        match count(Severity::Error) {
            0 if arguments.json => {}
            0 => print(&format!("{shown}: fine{warnings}")),
            1 => return Ok(tell(&format!("{shown}: 1 error{warnings}; nothing is started with it"), 1)),
            count => return Ok(tell(&format!("{shown}: {count} errors{warnings}; nothing is started with it"), 1)),
        }
        Ok(0)
    })
}

/// Behind the file's name; a line follows it at once, as editors want it.
fn space(finding: &Finding) -> &'static str {
    if finding.line.is_some() { "" } else { " " }
}

fn object(file: &str, loaded: &Loaded) -> serde_json::Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
            "line": finding.line,
            "key": finding.key,
            "what": finding.what,
            "hint": finding.hint,
        })
    };
    json!({
        "file": file,
        "fine": !loaded.is_wrong(),
        "findings": loaded.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
