//! `mailtwin run`: the daemon.

use super::configured::Configured;
use super::error::{say, tell};
use crate::config::file::{LogFormat, LogLevel};
use crate::disk::now;
use crate::moment;
use crate::node::journal::{About, Journal, Level};
use crate::node::run::{Daemon, Signal};
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How a line of the log looks [default: as the configuration says]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<Format>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs: an object a line
    Json,
}

/// Lines on standard error, as a journal takes them.
struct Stderr {
    format: Format,
    level: LogLevel,
}

impl Journal for Stderr {
    fn say(&self, level: Level, about: &About, sentence: &str) {
        let (matters, word) = match level {
            Level::Error => (LogLevel::Error, "error"),
            Level::Warning => (LogLevel::Warn, "warn"),
            Level::Info => (LogLevel::Info, "info"),
            Level::Debug => (LogLevel::Debug, "debug"),
        };
        if matters > self.level {
            return;
        }
        let line = match self.format {
            Format::Text => {
                let whose: Vec<&str> = [&about.set, &about.peer].into_iter().flatten().map(String::as_str).collect();
                let whose = if whose.is_empty() { String::new() } else { format!("{}: ", whose.join(", ")) };
                let grave = if level >= Level::Warning { format!("{word}: ") } else { String::new() };
                format!("{grave}{whose}{sentence}")
            }
            Format::Json => serde_json::json!({
                "time": moment::rfc3339(now()),
                "level": word,
                "set": about.set,
                "peer": about.peer,
                "message": sentence,
            })
            .to_string(),
        };
        // A line that nobody reads is no reason to end.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Runs the daemon, and gives the exit code when it has ended.
pub fn run(arguments: &Arguments, configured: &Configured) -> u8 {
    let (file, loaded) = match configured.loaded() {
        Ok(loaded) => loaded,
        Err(failure) => return tell(&failure.0, failure.1),
    };
    loaded.findings.iter().for_each(|finding| say(&finding.to_string()));
    let configuration = match loaded.configuration() {
        Ok(configuration) => configuration,
        Err(error) => return tell(&error.to_string(), 1),
    };
    let format = arguments.log_format.unwrap_or(match configuration.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    });
    let journal = Arc::new(Stderr { format, level: configuration.log.level });
    let begun = Runtime::new().and_then(|runtime| Ok((signals(&runtime)?, runtime, std::env::current_exe()?)));
    let (signals, runtime, program) = match begun {
        Ok(begun) => begun,
        Err(error) => return tell(&format!("cannot begin: {error}"), 1),
    };
    let daemon = Daemon { configuration, file, program, journal };
    let ran = daemon.run(runtime.handle(), &signals);
    // Sessions of others are not waited for: what was acknowledged is durable.
    runtime.shutdown_background();
    match ran {
        Ok(()) => 0,
        Err(sentence) => tell(&sentence, 1),
    }
}

/// The signals that mean something here.
fn signals(runtime: &Runtime) -> std::io::Result<Receiver<Signal>> {
    let (told, signals) = channel();
    let meanings = [
        (SignalKind::terminate(), Signal::End),
        (SignalKind::interrupt(), Signal::End),
        (SignalKind::hangup(), Signal::Reload),
    ];
    let _inside = runtime.enter();
    for (kind, meaning) in meanings {
        let (mut heard, told) = (signal(kind)?, told.clone());
        runtime.spawn(async move { while heard.recv().await.is_some() && told.send(meaning).is_ok() {} });
    }
    Ok(signals)
}
