//! Runs rsync, mailtwin and cp, and says what each run took.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::memory::{self, Peaks};
use super::{Doing, Outcome};

/// How the two ends meet.
#[derive(Clone, Copy, PartialEq)]
pub enum Link {
    /// DEST is a directory.
    Local,
    /// DEST is `host:directory`, and a wrapper in place of ssh starts the far end as a process of its own.
    Pipe,
}

/// What one run took.
pub struct Run {
    pub wall: Duration,
    /// User and system time of all its processes, in seconds.
    pub cpu: f64,
    /// Sent and received by the near end; 0 for cp.
    pub wire: u64,
    /// Only where it was asked for: looking costs a little time.
    pub peaks: Option<Peaks>,
    /// mailtwin's own account of the run.
    pub account: Value,
    pub status: ExitStatus,
}

impl Run {
    pub fn seconds(&self) -> f64 {
        self.wall.as_secs_f64()
    }

    /// A number of mailtwin's account.
    pub fn count(&self, name: &str) -> u64 {
        self.account[name].as_u64().unwrap_or(u64::MAX)
    }
}

/// The programs, and where they leave their notes.
pub struct Tools {
    rsh: PathBuf,
    usage: PathBuf,
    state: PathBuf,
    /// Look at the memory of both ends while they run.
    pub watch_memory: bool,
    /// Put before the program: strace.
    pub under: Vec<String>,
}

impl Tools {
    pub fn new(work: &Path) -> Outcome<Self> {
        for (program, argument) in [("rsync", "--version"), ("/usr/bin/time", "--version"), ("sync", "--version")] {
            need(program, argument)?;
        }
        let rsh = work.join("rsh");
        fs::write(&rsh, "#!/bin/sh\n# In place of ssh: leaves the host out and runs the rest.\nshift\nexec \"$@\"\n")
            .doing(rsh.display())?;
        fs::set_permissions(&rsh, PermissionsExt::from_mode(0o755)).doing(rsh.display())?;
        let (usage, state) = (work.join("usage"), work.join("state"));
        Ok(Self { rsh, usage, state, watch_memory: false, under: Vec::new() })
    }

    /// Where runs leave their notes.
    pub fn work(&self) -> &Path {
        self.usage.parent().unwrap_or(Path::new("."))
    }

    /// `rsync` with `flags`; any of `accepted` is a good exit code.
    pub fn rsync(&self, flags: &[&str], link: Link, source: &Path, mirror: &Path, accepted: &[i32]) -> Outcome<Run> {
        let mut command = vec!["rsync".to_owned(), "--stats".to_owned()];
        command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut slashed = mirror.display().to_string();
        if link == Link::Pipe {
            command.extend(["-e".to_owned(), self.rsh.display().to_string()]);
            slashed.insert_str(0, "mirror:");
        }
        command.extend([format!("{}/", source.display()), slashed + "/"]);
        let (mut run, output) = self.run(&command, accepted)?;
        run.wire = statistic(&output, "Total bytes sent: ")? + statistic(&output, "Total bytes received: ")?;
        Ok(run)
    }

    /// `mailtwin sync`, with its account read.
    pub fn mailtwin(&self, link: Link, source: &Path, mirror: &Path, accepted: &[i32]) -> Outcome<Run> {
        let program = env!("CARGO_BIN_EXE_mailtwin");
        let mut command: Vec<String> = [program, "sync", "--json", "--no-progress"].map(str::to_owned).into();
        let mut destination = mirror.display().to_string();
        if link == Link::Pipe {
            let rsh = self.rsh.display().to_string();
            command.extend(["-e".to_owned(), rsh, "--remote-path".to_owned(), program.to_owned()]);
            destination.insert_str(0, "mirror:");
        }
        command.extend([source.display().to_string(), destination]);
        let (mut run, output) = self.run(&command, accepted)?;
        run.account = serde_json::from_str(&output).doing(format_args!("mailtwin's --json, {output:?}"))?;
        run.wire = run.count("bytes_sent").saturating_add(run.count("bytes_received"));
        Ok(run)
    }

    pub fn cp(&self, flags: &str, source: &Path, mirror: &Path) -> Outcome<Run> {
        let command = ["cp".to_owned(), flags.to_owned(), source.display().to_string(), mirror.display().to_string()];
        Ok(self.run(&command, &[0])?.0)
    }

    fn run(&self, command: &[String], accepted: &[i32]) -> Outcome<(Run, String)> {
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["-q", "-f", "%U %S", "-o"]).arg(&self.usage).args(&self.under).args(command);
        timed.env("MAILTWIN_STATE", &self.state).env("LC_ALL", "C").stdin(Stdio::null());
        let (output, errors) = (self.usage.with_extension("out"), self.usage.with_extension("err"));
        timed.stdout(fs::File::create(&output).doing(output.display())?);
        timed.stderr(fs::File::create(&errors).doing(errors.display())?);
        let begun = Instant::now();
        let mut child = timed.spawn().doing("/usr/bin/time")?;
        let (status, peaks) = self.wait(&mut child)?;
        let wall = begun.elapsed();
        if !status.code().is_some_and(|code| accepted.contains(&code)) {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            return Err(format!("`{}` ended with {status}: {said}", command.join(" ")).into());
        }
        let output = fs::read_to_string(&output).doing(output.display())?;
        let run = Run { wall, cpu: self.cpu()?, wire: 0, peaks, account: Value::Null, status };
        Ok((run, output))
    }

    fn wait(&self, child: &mut Child) -> Outcome<(ExitStatus, Option<Peaks>)> {
        if self.watch_memory {
            let (status, peaks) = memory::watch(child).doing("watching memory")?;
            Ok((status, Some(peaks)))
        } else {
            Ok((child.wait().doing("waiting")?, None))
        }
    }

    fn cpu(&self) -> Outcome<f64> {
        let usage = fs::read_to_string(&self.usage).doing(self.usage.display())?;
        let seconds = usage.split_whitespace().map(str::parse::<f64>).sum::<Result<f64, _>>();
        seconds.doing(format_args!("/usr/bin/time wrote {usage:?}"))
    }
}

fn need(program: &str, argument: &str) -> Outcome<()> {
    Command::new(program).arg(argument).output().doing(format_args!("{program} is needed"))?;
    Ok(())
}

fn statistic(output: &str, name: &str) -> Outcome<u64> {
    let line = output.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("rsync said no {name:?}"))?;
    line.replace(',', "").trim().parse().doing(name)
}
