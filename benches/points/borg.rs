//! borg: an archive each time, compressed with zstd at level 3, not encrypted.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keeper::{Keeper, Sought, anew};
use super::line::BORG;
use super::proof;
use crate::support::table::Unit;
use crate::support::tools::{Job, Need, Run, Tools};
use crate::support::{Doing, Outcome};

pub const NEED: Need = Need { program: "borg", argument: "--version", package: "borgbackup" };

pub struct Borg {
    place: PathBuf,
    /// Archives that were made and not deleted: their names are numbers.
    archives: Vec<u32>,
}

impl Borg {
    pub fn new(place: PathBuf) -> Outcome<Self> {
        anew(&place, "home")?;
        Ok(Self { place, archives: Vec::new() })
    }

    fn job(&self, words: &[&str]) -> Job<'static> {
        let home = self.place.join("home").display().to_string();
        let environment = vec![
            ("BORG_REPO", self.repository().display().to_string()),
            ("BORG_BASE_DIR", self.place.join("base").display().to_string()),
            ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes".to_owned()),
            ("HOME", home.clone()),
            ("TMPDIR", home),
        ];
        let command = ["borg"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        Job { command, environment, ..Job::default() }
    }

    fn newest(&self) -> String {
        format!("::{}", self.archives.last().copied().unwrap_or_default())
    }
}

impl Keeper for Borg {
    fn column(&self) -> usize {
        BORG
    }

    fn place(&self) -> &Path {
        &self.place
    }

    fn repository(&self) -> PathBuf {
        self.place.join("repository")
    }

    fn begin(&mut self, tools: &Tools, _source: &Path) -> Outcome<()> {
        anew(&self.place, "repository")?;
        anew(&self.place, "base")?;
        self.archives.clear();
        tools.run(&self.job(&["init", "--encryption", "none"]))?;
        Ok(())
    }

    fn full(&mut self, tools: &Tools, source: &Path) -> Outcome<Run> {
        self.differential(tools, source)
    }

    fn differential(&mut self, tools: &Tools, source: &Path) -> Outcome<Run> {
        self.archives.push(self.archives.last().map_or(1, |last| last + 1));
        let job = self.job(&["create", "--compression", "zstd,3", &self.newest(), "."]);
        Ok(tools.run(&Job { directory: Some(source), ..job })?.0)
    }

    fn restore(&self, tools: &Tools, mailbox: Option<&str>, to: &Path) -> Outcome<Run> {
        std::fs::create_dir(to).doing(to.display())?;
        let newest = self.newest();
        let words: Vec<&str> = ["extract", &newest].into_iter().chain(mailbox).collect();
        Ok(tools.run(&Job { directory: Some(to), ..self.job(&words) })?.0)
    }

    fn find(&self, tools: &Tools, sought: &Sought) -> Outcome<(Run, Vec<String>)> {
        let pattern = format!("sh:**/{}", sought.name);
        let (run, output) = tools.run(&self.job(&["list", "--format", "{path}{NL}", &self.newest(), &pattern]))?;
        Ok((run, output.lines().map(str::to_owned).collect()))
    }

    /// Deleting leaves the room taken; compacting frees it.
    fn expire(&mut self, tools: &Tools) -> Outcome<Run> {
        let Some(newest) = self.archives.pop() else { return Err("borg has no archive".into()) };
        let going: Vec<String> = self.archives.drain(..).map(|archive| archive.to_string()).collect();
        self.archives.push(newest);
        let words: Vec<&str> = ["delete", "::"].into_iter().chain(going.iter().map(String::as_str)).collect();
        let (mut run, _) = tools.run(&self.job(&words))?;
        let (compact, _) = tools.run(&self.job(&["compact"]))?;
        (run.wall, run.cpu, run.peak) = (run.wall + compact.wall, run.cpu + compact.cpu, run.peak.max(compact.peak));
        Ok(run)
    }

    fn states(&self, tools: &Tools) -> Outcome<usize> {
        let (_, output) = tools.run(&self.job(&["list", "--json"]))?;
        let list: Value = serde_json::from_str(&output).doing(format_args!("borg's --json, {output:?}"))?;
        Ok(list["archives"].as_array().map_or(0, Vec::len))
    }

    fn remark(&self) -> Outcome<String> {
        let base = proof::on_disk(&self.place.join("base"))?;
        Ok(format!("borg (zstd,3) does not encrypt, and has {} more in its cache", Unit::Bytes.show(base as f64)))
    }
}
