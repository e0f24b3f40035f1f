//! What was typed after `cargo bench --bench NAME --`.

use std::path::PathBuf;
use std::time::Duration;

use super::{Doing, Outcome};

const GB: u64 = 1_000_000_000;

/// What was typed, while it is being understood: a benchmark takes out what it alone knows.
pub struct Arguments {
    typed: Vec<String>,
    usage: &'static str,
}

impl Arguments {
    pub fn new(typed: impl Iterator<Item = String>, usage: &'static str) -> Self {
        Self { typed: typed.collect(), usage }
    }

    /// Whether this flag was given.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.typed.len();
        self.typed.retain(|argument| argument != name);
        self.typed.len() < before
    }

    /// Everything else. `rows` are the names that a filter may mean, `space` the room to take where nothing is said, in GB.
    pub fn options(self, rows: &[&str], space: u64) -> Outcome<Options> {
        let Self { typed, usage } = self;
        let mut options = Options::new(space * GB);
        let mut arguments = typed.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value\n{usage}"));
            match argument.as_str() {
                // Cargo itself adds this one.
                "--bench" => {}
                "--quick" => (options.quick, options.scale) = (true, options.scale.max(20)),
                "--scale" => options.scale = value()?.parse::<u64>().doing("--scale")?.max(1),
                "--runs" => options.runs = Some(value()?.parse().doing("--runs")?),
                "--dir" => options.dir = Some(value()?.into()),
                "--settle" => options.settle = Duration::from_secs(value()?.parse().doing("--settle")?),
                "--space" => options.space = value()?.parse::<u64>().doing("--space")? * GB,
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}\n{usage}").into()),
                filter if rows.iter().any(|row| row.contains(filter)) => options.filters.push(filter.to_owned()),
                filter => return Err(format!("there is no row {filter}: {}", rows.join(" ")).into()),
            }
        }
        Ok(options)
    }
}

/// Validated options that all benchmarks have.
pub struct Options {
    pub filters: Vec<String>,
    pub quick: bool,
    /// How many times smaller everything is than what the README tells of.
    pub scale: u64,
    pub runs: Option<usize>,
    pub dir: Option<PathBuf>,
    pub settle: Duration,
    pub space: u64,
}

impl Options {
    fn new(space: u64) -> Self {
        let settle = Duration::from_secs(370);
        Self { filters: Vec::new(), quick: false, scale: 1, runs: None, dir: None, settle, space }
    }

    pub fn wants(&self, row: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| row.contains(filter.as_str()))
    }

    pub fn runs(&self, usual: usize) -> usize {
        self.runs.unwrap_or(if self.quick { 2 } else { usual }).max(1)
    }

    /// A number of users or messages, smaller in a smoke test.
    pub fn scaled(&self, number: u64) -> u64 {
        number.div_ceil(self.scale)
    }
}
