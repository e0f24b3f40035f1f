//! Runs programs, mailtwin among them, and says what each run took.

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
    /// Sent and received by the near end; 0 where nothing is.
    pub wire: u64,
    /// Largest resident memory of the program, or of one that it started, in bytes.
    #[allow(dead_code, reason = "versus_rsync has two ends, and looks at each")]
    pub peak: u64,
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

/// The binary that is measured.
pub const MAILTWIN: &str = env!("CARGO_BIN_EXE_mailtwin");

/// A program without which nothing can be measured, and the Debian package that has it.
pub struct Need {
    pub program: &'static str,
    pub argument: &'static str,
    pub package: &'static str,
}

/// Names all that are missing, and how to come by them.
pub fn need(needs: &[Need]) -> Outcome<()> {
    let is_there = |need: &&Need| Command::new(need.program).arg(need.argument).output().is_ok();
    let missing: Vec<&Need> = needs.iter().filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let words = |word: fn(&Need) -> &'static str| missing.iter().map(|need| word(need)).collect::<Vec<_>>().join(" ");
    let (programs, packages) = (words(|need| need.program), words(|need| need.package));
    Err(format!("not there: {programs}; on Debian, as root: apt-get install {packages}").into())
}

/// One command, and in what surroundings it runs.
#[derive(Default)]
pub struct Job<'a> {
    pub command: Vec<String>,
    pub directory: Option<&'a Path>,
    pub environment: Vec<(&'static str, String)>,
    /// Exit codes that are good ones; none for 0 alone.
    pub accepted: &'a [i32],
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
        need(&[
            Need { program: "/usr/bin/time", argument: "--version", package: "time" },
            Need { program: "sync", argument: "--version", package: "coreutils" },
        ])?;
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

    /// The wrapper that stands in for ssh.
    pub fn rsh(&self) -> &Path {
        &self.rsh
    }

    /// `mailtwin sync`, with its account read.
    pub fn mailtwin(&self, link: Link, source: &Path, mirror: &Path, accepted: &[i32]) -> Outcome<Run> {
        let mut command: Vec<String> = [MAILTWIN, "sync", "--json", "--no-progress"].map(str::to_owned).into();
        let mut destination = mirror.display().to_string();
        if link == Link::Pipe {
            let rsh = self.rsh.display().to_string();
            command.extend(["-e".to_owned(), rsh, "--remote-path".to_owned(), MAILTWIN.to_owned()]);
            destination.insert_str(0, "mirror:");
        }
        command.extend([source.display().to_string(), destination]);
        let (mut run, output) = self.run(&Job { command, accepted, ..Job::default() })?;
        run.account = serde_json::from_str(&output).doing(format_args!("mailtwin's --json, {output:?}"))?;
        run.wire = run.count("bytes_sent").saturating_add(run.count("bytes_received"));
        Ok(run)
    }

    /// Runs a command to its end; its output comes with it.
    pub fn run(&self, job: &Job) -> Outcome<(Run, String)> {
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["-q", "-f", "%U %S %M", "-o"]).arg(&self.usage).args(&self.under).args(&job.command);
        timed.env("MAILTWIN_STATE", &self.state).env("LC_ALL", "C").stdin(Stdio::null());
        timed.envs(job.environment.iter().map(|(name, value)| (name, value)));
        job.directory.map(|directory| timed.current_dir(directory));
        let (output, errors) = (self.usage.with_extension("out"), self.usage.with_extension("err"));
        timed.stdout(fs::File::create(&output).doing(output.display())?);
        timed.stderr(fs::File::create(&errors).doing(errors.display())?);
        let begun = Instant::now();
        let mut child = timed.spawn().doing("/usr/bin/time")?;
        let (status, peaks) = self.wait(&mut child)?;
        let wall = begun.elapsed();
        let accepted = if job.accepted.is_empty() { &[0] } else { job.accepted };
        if !status.code().is_some_and(|code| accepted.contains(&code)) {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            return Err(format!("`{}` ended with {status}: {said}", job.command.join(" ")).into());
        }
        let output = fs::read_to_string(&output).doing(output.display())?;
        let (cpu, peak) = self.usage()?;
        let run = Run { wall, cpu, wire: 0, peak, peaks, account: Value::Null, status };
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

    /// Seconds of the processor, and bytes of memory.
    fn usage(&self) -> Outcome<(f64, u64)> {
        let usage = fs::read_to_string(&self.usage).doing(self.usage.display())?;
        let numbers: Result<Vec<f64>, _> = usage.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[user, system, kibibytes]) => Ok((user + system, kibibytes as u64 * 1_024)),
            _ => Err(format!("/usr/bin/time wrote {usage:?}").into()),
        }
    }
}
