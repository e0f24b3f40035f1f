//! The command line: one file per command. Nothing imports this but `main.rs` and tests of the documentation.
//!
//! Layer 8. `error` turns a failure into a sentence and an exit code, `terminal` shows progress.

pub mod backup;
pub mod check;
pub mod configuration;
pub mod configured;
pub mod deleted;
pub mod diff;
pub mod drill;
pub mod error;
pub mod export;
pub mod find;
pub mod link;
pub mod mount;
pub mod pair;
pub mod points;
pub mod restore;
pub mod run;
pub mod serve;
pub mod standby;
pub mod status;
pub mod sync;
pub mod syslog;
pub mod terminal;
pub mod timeline;
pub mod verify;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use configured::Configured;
use standby::{Failure, Standby};
use std::ffi::OsString;

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
    /// The configuration [default: $MAILTWIN_CONFIG, or /etc/mailtwin/mailtwin.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<OsString>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make DEST the mirror of SRC.
    Sync(Box<sync::Arguments>),
    /// Make a restore point: a full, or a differential.
    Backup(backup::Arguments),
    /// List the restore points.
    Points(points::Arguments),
    /// List a directory as it was.
    Ls(find::Ls),
    /// Find messages as they were.
    Find(Box<find::Find>),
    /// Write a message as it was to standard output.
    Cat(find::Cat),
    /// Tell what changed between two moments, by mailbox and folder.
    Diff(diff::Diff),
    /// Tell the life of a message: where it was, and what happened to it.
    Timeline(timeline::Arguments),
    /// Bring back a set, a mailbox, a folder or a message as it was.
    Restore(Box<restore::Arguments>),
    /// Write what there was for other programs: as tar, as mbox, as a plain Maildir.
    Export(Box<export::Arguments>),
    /// Restore some mailboxes for practice, compare, and tell how long it took.
    Drill(drill::Arguments),
    /// Show restore points as directories, read only.
    Mount(mount::Arguments),
    /// Read restore points as a restore would, compare, and mend what is damaged.
    Verify(verify::Verify),
    /// Remove restore points and log that need not be kept.
    Expire(verify::Expire),
    /// Keep a restore point from expiring.
    Pin(points::Pin),
    /// Let a restore point expire again.
    Unpin(points::Pin),
    /// Say something of a restore point.
    Note(points::Note),
    /// Tell how things stand: role, position, lag, what would be lost, restore points.
    Status(status::Arguments),
    /// Judge how things stand, as a plugin of Nagios.
    Check(check::Arguments),
    /// Write a configuration to begin with.
    Init(configuration::Init),
    /// Say what is wrong with the configuration, where, and what to do.
    CheckConfig(configuration::Check),
    /// Keep running: follow changes, let masters in, do what is due.
    Run(run::Arguments),
    /// Pair two hosts: each learns the other's key by a short code.
    Pair(pair::Arguments),
    /// Be the far end of a session; started by `mailtwin sync` and `mailtwin restore` through ssh.
    Serve(serve::Arguments),
}

impl Command {
    /// The standby that it is about, where it is about one.
    fn standby(&mut self) -> Option<&mut Standby> {
        Some(match self {
            Self::Backup(arguments) => &mut arguments.standby,
            Self::Points(arguments) => &mut arguments.standby,
            Self::Ls(arguments) => &mut arguments.standby,
            Self::Find(arguments) => &mut arguments.standby,
            Self::Cat(arguments) => &mut arguments.standby,
            Self::Diff(arguments) => &mut arguments.standby,
            Self::Timeline(arguments) => &mut arguments.standby,
            Self::Restore(arguments) => &mut arguments.standby,
            Self::Export(arguments) => &mut arguments.standby,
            Self::Drill(arguments) => &mut arguments.standby,
            Self::Mount(arguments) => &mut arguments.standby,
            Self::Verify(arguments) => &mut arguments.standby,
            Self::Expire(arguments) => &mut arguments.standby,
            Self::Pin(arguments) | Self::Unpin(arguments) => &mut arguments.standby,
            Self::Note(arguments) => &mut arguments.standby,
            Self::Sync(_) | Self::Init(_) | Self::CheckConfig(_) | Self::Pair(_) | Self::Run(_) | Self::Serve(_) => {
                return None;
            }
            Self::Status(_) | Self::Check(_) => return None,
        })
    }
}

/// The command line's description, for the man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// SIGXFSZ: a file may not grow any more.
const FILE_SIZE_LIMIT: i32 = 25;

/// A limit to the size of files becomes an error of the write that meets it, instead of the process's silent end.
fn hear_of_limits() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let kind = tokio::signal::unix::SignalKind::from_raw(FILE_SIZE_LIMIT);
    tokio::signal::unix::signal(kind).map(drop)
}

/// Parses, runs, and gives the exit code.
pub fn main() -> u8 {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { usage_code(std::env::args_os().skip(1)) } else { 0 };
        }
    };
    let mut cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return 2;
        }
    };
    error::watch_panics();
    // Without this promise only the last word is lost, not the run.
    let _ = hear_of_limits();
    let configured = Configured::new(cli.config.as_deref());
    let code = match cli.command.standby() {
        Some(standby) => match standby.resolve(&configured) {
            Ok(()) => run(&cli, &matches, &configured),
            Err(Failure(sentence, code)) => error::tell(&sentence, code),
        },
        None => run(&cli, &matches, &configured),
    };
    crate::disk::report_steps();
    code
}

/// The exit code of wrong usage. To whoever runs `check`, 2 says that mail is in danger.
fn usage_code(words: impl Iterator<Item = OsString>) -> u8 {
    let mut words = words.peekable();
    while let Some(word) = words.next_if(|word| word.as_encoded_bytes().starts_with(b"--config")) {
        if word == "--config" {
            words.next();
        }
    }
    if words.next().is_some_and(|word| word == "check") { check::UNKNOWN } else { 2 }
}

fn run(cli: &Cli, matches: &clap::ArgMatches, configured: &Configured) -> u8 {
    match (&cli.command, matches.subcommand()) {
        (Command::Sync(arguments), Some((_, matches))) => sync::run(arguments, matches, configured),
        (Command::Serve(arguments), _) => serve::run(arguments, &cli.config),
        (Command::Run(arguments), _) => run::run(arguments, configured),
        (Command::Pair(arguments), _) => pair::run(arguments, configured),
        (Command::Init(arguments), _) => configuration::init(arguments, cli.config.as_deref()),
        (Command::CheckConfig(arguments), _) => configuration::check(arguments, cli.config.as_deref()),
        (Command::Status(arguments), _) => status::run(arguments, configured),
        (Command::Check(arguments), _) => check::run(arguments, configured),
        (Command::Backup(arguments), _) => backup::run(arguments),
        (Command::Points(arguments), _) => points::run(arguments),
        (Command::Ls(arguments), _) => find::ls(arguments),
        (Command::Find(arguments), _) => find::find(arguments),
        (Command::Cat(arguments), _) => find::cat(arguments),
        (Command::Restore(arguments), _) => restore::run(arguments),
        (Command::Export(arguments), _) => export::run(arguments),
        (Command::Drill(arguments), _) => drill::run(arguments),
        (Command::Mount(arguments), _) => mount::run(arguments),
        (Command::Verify(arguments), _) => verify::verify(arguments),
        (Command::Expire(arguments), _) => verify::expire(arguments),
        (Command::Diff(arguments), _) => diff::diff(arguments),
        (Command::Timeline(arguments), _) => timeline::run(arguments),
        (Command::Pin(arguments), _) => points::pin(arguments, true),
        (Command::Unpin(arguments), _) => points::pin(arguments, false),
        (Command::Note(arguments), _) => points::note(arguments),
        (Command::Sync(_), None) => 2,
    }
}
