//! `mailtwin serve --stdio`: the far end of the ssh pipe.

use super::error;
use crate::sync::receiver;
use crate::transport::ssh;
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
pub fn run(_arguments: &Arguments) -> u8 {
    let mut link = match ssh::stdio("the master", Some(SILENCE)) {
        Ok(link) => link,
        Err(failure) => return error::tell(&failure.to_string(), 1),
    };
    let Some(connection) = link.connection.take() else { return 1 };
    // What goes wrong is said to the master, which shows it; here it would stand twice.
    let served = receiver::serve(connection);
    link.finish();
    match served {
        Ok(()) => 0,
        Err(failure) => failure.exit_code(),
    }
}
