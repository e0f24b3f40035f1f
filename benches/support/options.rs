//! What was typed after `cargo bench --bench versus_rsync --`.

use std::path::PathBuf;
use std::time::Duration;

use super::{Doing, Outcome};

pub const USAGE: &str = "\
cargo bench --bench versus_rsync -- [FILTER]... [OPTIONS]

FILTER       rows whose name contains it: idle flags seen rename move link uidlist first-copy live
--quick      everything 20 times smaller, two runs: a smoke test, not a measurement
--runs N     measured runs of each row (5; first-copy 3; live 20)
--dir DIR    make the trees in DIR and leave them there for the next time (14 GB must be free)
--rsync-only leave mailtwin out
--verify     also count, with strace, the messages that a flag change makes mailtwin open
--settle S   seconds to wait after a mass deletion where caches cannot be dropped (370)
--space GB   largest room to take on the disk (12)";

/// Validated options.
pub struct Options {
    pub filters: Vec<String>,
    pub quick: bool,
    pub runs: Option<usize>,
    pub dir: Option<PathBuf>,
    pub rsync_only: bool,
    pub verify: bool,
    pub settle: Duration,
    pub space: u64,
}

impl Options {
    pub fn parse(arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                // Cargo itself adds this one.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--rsync-only" => options.rsync_only = true,
                "--verify" => options.verify = true,
                "--runs" => options.runs = Some(value()?.parse().doing("--runs")?),
                "--dir" => options.dir = Some(value()?.into()),
                "--settle" => options.settle = Duration::from_secs(value()?.parse().doing("--settle")?),
                "--space" => options.space = value()?.parse::<u64>().doing("--space")? * 1_000_000_000,
                flag if flag.starts_with('-') => {
                    return Err(format!("unknown option {flag}\n{USAGE}").into());
                }
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    pub fn wants(&self, row: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| row.contains(filter.as_str()))
    }

    pub fn runs(&self, usual: usize) -> usize {
        self.runs.unwrap_or(if self.quick { 2 } else { usual }).max(1)
    }

    /// A number of users or messages, 20 times smaller in a smoke test.
    pub fn scaled(&self, number: u64) -> u64 {
        if self.quick { number.div_ceil(20) } else { number }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filters: Vec::new(),
            quick: false,
            runs: None,
            dir: None,
            rsync_only: false,
            verify: false,
            settle: Duration::from_secs(370),
            space: 12_000_000_000,
        }
    }
}
