//! mailtwin: a mirror, and restore points beside it. What the mirror is made with is not counted, but said.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keeper::{Keeper, Sought};
use super::line::MAILTWIN;
use super::proof;
use crate::support::table::Unit;
use crate::support::tools::{self, Job, Link, Run, Tools};
use crate::support::{Doing, Outcome, say};

pub struct Mailtwin {
    pub mirror: PathBuf,
    /// Seconds that the mirror took.
    pub first_sync: f64,
}

/// A restore point that was made.
pub struct Made {
    pub run: Run,
    pub account: Value,
    pub manifest: PathBuf,
}

impl Mailtwin {
    pub fn new(mirror: PathBuf) -> Self {
        Self { mirror, first_sync: 0.0 }
    }

    /// `mailtwin` with `words`, and what it printed.
    pub fn run(&self, tools: &Tools, words: &[&str]) -> Outcome<(Run, Value)> {
        let mut command = vec![tools::MAILTWIN.to_owned()];
        command.extend(words.iter().map(|word| (*word).to_owned()));
        let (run, output) = tools.run(&Job { command, ..Job::default() })?;
        let value = serde_json::from_str(&output).doing(format_args!("mailtwin's --json, {output:?}"))?;
        Ok((run, value))
    }

    pub fn sync(&self, tools: &Tools, source: &Path) -> Outcome<Run> {
        tools.mailtwin(Link::Local, source, &self.mirror, &[0])
    }

    pub fn backup(&self, tools: &Tools, kind: &str) -> Outcome<Made> {
        let (run, account) = self.run(tools, &["backup", kind, "--json", &self.standby()])?;
        let label = account["label"].as_str().ok_or(format!("mailtwin made no point: {account}"))?;
        let manifest = self.repository().join("points").join(label).join("manifest");
        Ok(Made { run, account, manifest })
    }

    /// Room of what a standby has without restore points, too.
    fn anyway(&self) -> Outcome<u64> {
        let room = |name: &str| proof::on_disk(&self.repository().join(name));
        Ok(room("catalogue")? + room("staging")?)
    }

    pub fn standby(&self) -> String {
        self.mirror.display().to_string()
    }
}

impl Keeper for Mailtwin {
    fn column(&self) -> usize {
        MAILTWIN
    }

    fn place(&self) -> &Path {
        &self.mirror
    }

    fn repository(&self) -> PathBuf {
        self.mirror.join(".mailtwin")
    }

    /// A hard link may lead from the points to the log: both are counted together.
    fn own_room(&self) -> Outcome<u64> {
        Ok(proof::on_disk(&self.repository())?.saturating_sub(self.anyway()?))
    }

    /// Without its log and its points, a standby is as before the first point.
    fn begin(&mut self, tools: &Tools, source: &Path) -> Outcome<()> {
        if !self.mirror.exists() {
            let run = self.sync(tools, source)?;
            self.first_sync = run.seconds();
            say(format_args!("mailtwin's mirror took {:.1} s", run.seconds()));
        }
        for name in ["points", "log"] {
            let path = self.repository().join(name);
            if path.exists() {
                fs::remove_dir_all(&path).doing(path.display())?;
            }
        }
        Ok(())
    }

    fn reads<'a>(&'a self, _source: &'a Path) -> &'a Path {
        &self.mirror
    }

    fn bring(&self, tools: &Tools, source: &Path) -> Outcome<Option<Run>> {
        self.sync(tools, source).map(Some)
    }

    fn full(&mut self, tools: &Tools, _source: &Path) -> Outcome<Run> {
        Ok(self.backup(tools, "--full")?.run)
    }

    fn ground_level(&mut self, tools: &Tools, source: &Path) -> Outcome<()> {
        self.full(tools, source).map(drop)
    }

    fn differential(&mut self, tools: &Tools, _source: &Path) -> Outcome<Run> {
        let made = self.backup(tools, "--diff")?;
        match made.account["kind"].as_str() {
            Some("differential") => Ok(made.run),
            _ => Err(format!("mailtwin made no differential: {}", made.account).into()),
        }
    }

    fn restore(&self, tools: &Tools, mailbox: Option<&str>, to: &Path) -> Outcome<Run> {
        let (to, standby) = (to.display().to_string(), self.standby());
        let mut words = vec!["restore", "--json", "--to", &to];
        mailbox.into_iter().for_each(|mailbox| words.extend(["--mailbox", mailbox]));
        words.push(&standby);
        Ok(self.run(tools, &words)?.0)
    }

    fn find(&self, tools: &Tools, sought: &Sought) -> Outcome<(Run, Vec<String>)> {
        let (run, found) = self.run(tools, &["find", "--json", "--message-id", &sought.message_id, &self.standby()])?;
        let paths = found.as_array().into_iter().flatten().filter_map(|one| one["path"].as_str());
        Ok((run, paths.map(str::to_owned).collect()))
    }

    /// As the README tells cron to do it: the log is looked at, too.
    fn expire(&mut self, tools: &Tools) -> Outcome<Run> {
        let words = ["expire", "--json", "--keep-full", "1", "--keep-log", "14d", &self.standby()];
        Ok(self.run(tools, &words)?.0)
    }

    fn states(&self, tools: &Tools) -> Outcome<usize> {
        let (_, points) = self.run(tools, &["points", "--json", &self.standby()])?;
        Ok(points.as_array().map_or(0, Vec::len))
    }

    fn remark(&self) -> Outcome<String> {
        Ok(format!(
            "mailtwin's mirror was made by `mailtwin sync` in {}, and the catalogue that this leaves, restore points or \
             not, has {}",
            Unit::Seconds.show(self.first_sync),
            Unit::Bytes.show(self.anyway()? as f64)
        ))
    }
}
