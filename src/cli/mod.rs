//! The command line: one file per command. Nothing imports this but `main.rs` and tests of the documentation.
//!
//! Layer 8. `error` turns a failure into a sentence and an exit code, `terminal` shows progress.

pub mod error;
pub mod serve;
pub mod sync;
pub mod terminal;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// What a person types.
#[derive(Debug, Parser)]
#[command(
    name = "mailtwin",
    version,
    about = "Keeps a second mail server ready",
    long_about = "Keeps a second mail server ready: replicates Maildir trees, and the files beside them, to a \
                  standby on which a mail server can be started.",
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make DEST the mirror of SRC.
    Sync(Box<sync::Arguments>),
    /// Be the far end of a session; started by `mailtwin sync` through ssh.
    Serve(serve::Arguments),
}

/// The command line's description, for the man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses, runs, and gives the exit code.
pub fn main() -> u8 {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return 2;
        }
    };
    error::watch_panics();
    let code = match (cli.command, matches.subcommand()) {
        (Command::Sync(arguments), Some((_, matches))) => sync::run(&arguments, matches),
        (Command::Serve(arguments), _) => serve::run(&arguments),
        (Command::Sync(_), None) => 2,
    };
    crate::disk::report_steps();
    code
}
