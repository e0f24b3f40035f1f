//! Disaster, rehearsed: every step that changes a disk can be made to fail or to be the last.
//!
//! `MAILTWIN_FAULT=kind@N` makes the N-th step of the process (from 1) fail: `kill` ends the process
//! before it, `eio` and `enospc` return that error, `short` writes half; `N+` means every step from there on.
//! `MAILTWIN_FAULT_COUNT=FILE` appends the number of steps to a file at a normal end.

use rustix::io::Errno;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static STEPS: AtomicU64 = AtomicU64::new(0);
static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Error(Errno),
    Short,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault {
    kind: Kind,
    at: u64,
    onward: bool,
}

/// How a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// As asked.
    Whole,
    /// A write writes half of its bytes.
    Half,
}

impl Step {
    /// How many of `length` bytes a write may write.
    pub fn allowed(self, length: usize) -> usize {
        match self {
            Self::Whole => length,
            Self::Half => length.div_ceil(2),
        }
    }
}

/// Passed before every change of a disk.
///
/// # Errors
/// The error that a test asked for.
pub fn step() -> io::Result<Step> {
    let number = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    let Some(fault) = FAULT.get_or_init(from_environment) else {
        return Ok(Step::Whole);
    };
    if number != fault.at && !(fault.onward && number > fault.at) {
        return Ok(Step::Whole);
    }
    match fault.kind {
        Kind::Error(errno) => Err(errno.into()),
        Kind::Short => Ok(Step::Half),
        Kind::Kill => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // SIGKILL cannot be held off, but it may arrive on another thread first.
            loop {
                std::thread::park();
            }
        }
    }
}

/// Appends the number of steps to the file that `MAILTWIN_FAULT_COUNT` names, if it names one.
pub fn report_steps() {
    use std::io::Write;
    if let Some(path) = std::env::var_os("MAILTWIN_FAULT_COUNT")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "{}", STEPS.load(Ordering::Relaxed));
    }
}

fn from_environment() -> Option<Fault> {
    parse(&std::env::var("MAILTWIN_FAULT").ok()?)
}

fn parse(text: &str) -> Option<Fault> {
    let (kind, at) = text.split_once('@')?;
    let kind = match kind {
        "kill" => Kind::Kill,
        "eio" => Kind::Error(Errno::IO),
        "enospc" => Kind::Error(Errno::NOSPC),
        "short" => Kind::Short,
        _ => return None,
    };
    let number = at.strip_suffix('+').unwrap_or(at);
    Some(Fault { kind, at: number.parse().ok()?, onward: at.ends_with('+') })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_one_word() {
        let fault = |kind, at, onward| Some(Fault { kind, at, onward });
        assert_eq!(parse("kill@7"), fault(Kind::Kill, 7, false));
        assert_eq!(parse("enospc@12+"), fault(Kind::Error(Errno::NOSPC), 12, true));
        assert_eq!(parse("nonsense@1"), None);
        assert_eq!(parse("kill"), None);
    }

    #[test]
    fn a_short_write_still_gets_on() {
        assert_eq!(Step::Half.allowed(1), 1);
        assert_eq!(Step::Half.allowed(10), 5);
    }
}
