//! A failure becomes one sentence on standard error, and an exit code.

use crate::catalogue::damage::{Panic, panicked};
use std::io::Write;

/// Says what went wrong, and gives the exit code back.
pub fn tell(sentence: &str, code: u8) -> u8 {
    say(sentence);
    code
}

/// Writes a line to standard error. One that nobody reads is no reason to fail.
pub fn say(sentence: &str) {
    let _ = writeln!(std::io::stderr().lock(), "mailtwin: {sentence}");
}

/// Writes to standard output; gives up quietly where the reader has gone.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Makes sentences of the panics with which the database meets a damaged catalogue.
pub fn watch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match panicked(panic) {
        Panic::Elsewhere => before(panic),
        Panic::Caught => {}
        Panic::Last(error) => std::process::exit(tell(&error.to_string(), 1).into()),
    }));
}
