//! restic: a snapshot each time, its own compression, always encrypted.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keeper::{Keeper, Sought, anew};
use super::line::RESTIC;
use super::proof;
use crate::support::table::Unit;
use crate::support::tools::{Job, Need, Run, Tools};
use crate::support::{Doing, Outcome};

pub const NEED: Need = Need { program: "restic", argument: "version", package: "restic" };

pub struct Restic {
    place: PathBuf,
}

impl Restic {
    pub fn new(place: PathBuf) -> Outcome<Self> {
        anew(&place, "home")?;
        Ok(Self { place })
    }

    fn job(&self, words: &[&str]) -> Job<'static> {
        let path = |name: &str| self.place.join(name).display().to_string();
        let environment = vec![
            ("RESTIC_REPOSITORY", path("repository")),
            ("RESTIC_PASSWORD", "a benchmark has no secrets".to_owned()),
            ("RESTIC_CACHE_DIR", path("cache")),
            ("HOME", path("home")),
            ("TMPDIR", path("home")),
        ];
        let command = ["restic"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        Job { command, environment, ..Job::default() }
    }

    fn json(&self, tools: &Tools, words: &[&str]) -> Outcome<(Run, Value)> {
        let (run, output) = tools.run(&self.job(words))?;
        let value = serde_json::from_str(&output).doing(format_args!("restic's --json, {output:?}"))?;
        Ok((run, value))
    }
}

impl Keeper for Restic {
    fn column(&self) -> usize {
        RESTIC
    }

    fn place(&self) -> &Path {
        &self.place
    }

    fn repository(&self) -> PathBuf {
        self.place.join("repository")
    }

    fn begin(&mut self, tools: &Tools, _source: &Path) -> Outcome<()> {
        anew(&self.place, "repository")?;
        anew(&self.place, "cache")?;
        tools.run(&self.job(&["init", "--quiet"]))?;
        Ok(())
    }

    fn full(&mut self, tools: &Tools, source: &Path) -> Outcome<Run> {
        self.differential(tools, source)
    }

    fn differential(&mut self, tools: &Tools, source: &Path) -> Outcome<Run> {
        let job = Job { directory: Some(source), ..self.job(&["backup", "--quiet", "."]) };
        Ok(tools.run(&job)?.0)
    }

    fn restore(&self, tools: &Tools, mailbox: Option<&str>, to: &Path) -> Outcome<Run> {
        let (to, part) = (to.display().to_string(), format!("/{}", mailbox.unwrap_or_default()));
        let mut words = vec!["restore", "latest", "--quiet", "--target", &to];
        if mailbox.is_some() {
            words.extend(["--include", &part]);
        }
        Ok(tools.run(&self.job(&words))?.0)
    }

    fn find(&self, tools: &Tools, sought: &Sought) -> Outcome<(Run, Vec<String>)> {
        let (run, found) = self.json(tools, &["find", "--json", "--snapshot", "latest", &sought.name])?;
        let matches = found.as_array().into_iter().flatten().filter_map(|snapshot| snapshot["matches"].as_array());
        let paths = matches.flatten().filter_map(|one| one["path"].as_str());
        Ok((run, paths.map(|path| path.trim_start_matches('/').to_owned()).collect()))
    }

    fn expire(&mut self, tools: &Tools) -> Outcome<Run> {
        Ok(tools.run(&self.job(&["forget", "--quiet", "--keep-last", "1", "--prune"]))?.0)
    }

    fn states(&self, tools: &Tools) -> Outcome<usize> {
        let (_, snapshots) = self.json(tools, &["snapshots", "--json"])?;
        Ok(snapshots.as_array().map_or(0, Vec::len))
    }

    fn remark(&self) -> Outcome<String> {
        let cache = proof::on_disk(&self.place.join("cache"))?;
        Ok(format!("restic encrypts, and has {} more in its cache", Unit::Bytes.show(cache as f64)))
    }
}
