//! A failure becomes one sentence on standard error, and an exit code.

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
