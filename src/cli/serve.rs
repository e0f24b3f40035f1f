//! `mailtwin serve --stdio`: the far end of the ssh pipe.

use super::configured::Configured;
use super::error;
use crate::config;
use crate::sync::SyncError;
use crate::sync::receiver;
use crate::transport::ssh;
use crate::wire::message::Hello;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// A master that says nothing for so long, not even that it lives, is gone.
const SILENCE: Duration = Duration::from_secs(120);

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Talk over standard input and output
    #[arg(long, required = true)]
    pub stdio: bool,
}

/// Serves one session and gives the exit code.
pub fn run(_arguments: &Arguments, file: &Option<OsString>) -> u8 {
    let mut link = match ssh::stdio("the master", Some(SILENCE)) {
        Ok(link) => link,
        Err(failure) => return error::tell(&failure.to_string(), 1),
    };
    let Some(connection) = link.connection.take() else { return 1 };
    // What goes wrong is said to the master, which shows it; here it would stand twice.
    let served = receiver::serve_where(connection, |hello| meaning(hello, file));
    link.finish();
    match served {
        Ok(()) => 0,
        Err(failure) => failure.exit_code(),
    }
}

/// A master may name a set, where this host's configuration has it.
fn meaning(mut hello: Hello, file: &Option<OsString>) -> Result<Hello, SyncError> {
    let configured = Configured::new(file.as_deref());
    let configuration = || configured.needed().map_err(|failure| failure.0);
    let meant = config::peers::meant(&hello.destination, configuration).map_err(SyncError::Failed)?;
    if let Some(set) = meant {
        hello.destination = set.mirror.into_os_string().into_vec();
        let bytes = |state: std::path::PathBuf| serde_bytes::ByteBuf::from(state.into_os_string().into_vec());
        hello.state = hello.state.take().or(set.state.map(bytes));
    }
    Ok(hello)
}
