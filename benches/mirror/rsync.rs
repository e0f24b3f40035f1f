//! Runs rsync and cp.

use std::path::Path;

use crate::support::tools::{Job, Link, Need, Run, Tools};
use crate::support::{Doing, Outcome};

pub const NEED: Need = Need { program: "rsync", argument: "--version", package: "rsync" };

impl Tools {
    /// `rsync` with `flags`; any of `accepted` is a good exit code.
    pub fn rsync(&self, flags: &[&str], link: Link, source: &Path, mirror: &Path, accepted: &[i32]) -> Outcome<Run> {
        let mut command = vec!["rsync".to_owned(), "--stats".to_owned()];
        command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut slashed = mirror.display().to_string();
        if link == Link::Pipe {
            command.extend(["-e".to_owned(), self.rsh().display().to_string()]);
            slashed.insert_str(0, "mirror:");
        }
        command.extend([format!("{}/", source.display()), slashed + "/"]);
        let (mut run, output) = self.run(&Job { command, accepted, ..Job::default() })?;
        run.wire = statistic(&output, "Total bytes sent: ")? + statistic(&output, "Total bytes received: ")?;
        Ok(run)
    }

    pub fn cp(&self, flags: &str, source: &Path, mirror: &Path) -> Outcome<Run> {
        let command = ["cp", flags].map(str::to_owned).into_iter();
        let command = command.chain([source, mirror].map(|path| path.display().to_string())).collect();
        Ok(self.run(&Job { command, ..Job::default() })?.0)
    }
}

fn statistic(output: &str, name: &str) -> Outcome<u64> {
    let line = output.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("rsync said no {name:?}"))?;
    line.replace(',', "").trim().parse().doing(name)
}
