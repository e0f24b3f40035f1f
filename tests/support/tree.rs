//! What the black-box tests share. They know the command line and the file system, nothing of the crate:
//! * `mail`: making Maildir trees and doing to them what a mail server does;
//! * `run`: running the binary, and reading what it says;
//! * `compare`: a whole tree as a value, and rsync as an independent second opinion;
//! * `fault`: both ends of a session with faults, and the points of a sweep;
//! * `scenario`: the mailbox and the changes that the sweeps go through.

#![allow(dead_code, unused_imports, reason = "every test target takes the part that it needs")]

#[path = "tree/compare.rs"]
mod compare;
#[path = "tree/fault.rs"]
mod fault;
#[path = "tree/mail.rs"]
mod mail;
#[path = "tree/run.rs"]
mod run;
#[path = "tree/scenario.rs"]
mod scenario;

pub use compare::*;
pub use fault::*;
pub use mail::*;
pub use run::*;
pub use scenario::*;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Polls until `fact` holds; a test is right because of the fact, never because of the time that went by.
pub fn eventually(what: &str, within: Duration, mut fact: impl FnMut() -> bool) {
    let began = Instant::now();
    while !fact() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A name of any bytes as text that can be read, and told from every other name.
pub fn shown(name: &[u8]) -> String {
    name.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{}", byte.escape_ascii());
        text
    })
}

/// Runs a tool the test cannot do without; its absence is a failure that names the package.
pub fn tool(package: &str, program: &str, arguments: &[&std::ffi::OsStr]) -> Vec<u8> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install the package {package}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Whether this process may do what only root may; each test says what it expects in either case.
pub fn am_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|myself| myself.uid() == 0)
}

/// Says what a test did not try, and why; not by way of the harness, which keeps to itself what a test prints that passes.
pub fn say(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{line}").expect("standard error is open");
}

/// Writes a shell script; `rsh` makes of it what can be given to `--rsh`.
pub fn script(path: &Path, body: &str) {
    std::fs::write(path, format!("{body}\n"))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// The value of `--rsh` that runs a script. The shell reads it: run as a program of its own it could be
/// "text file busy", when another thread forks while the script is still open for writing.
pub fn rsh(script: &Path) -> String {
    format!("sh {}", script.display())
}
