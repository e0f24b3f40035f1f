//! A server process of the test's own: it never outlives the test, nor does anything that it started.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to begin or to end before the test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running server; dropping it ends it and its children.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts `program` in the foreground. Its output goes to the file `output`.
    ///
    /// The kernel ends it (by way of `setpriv`) if the test's thread dies without dropping this value.
    pub fn start(program: &Path, arguments: &[&str], output: &Path) -> Self {
        let log = fs::File::create(output).expect("the server's output file can be created");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("setpriv (package util-linux) does not start: {error}"));
        Self { child }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    fn stop(&mut self) {
        let family = descendants(self.child.id());
        let pids = || family.iter().map(|member| member.pid);
        signal("TERM", std::iter::once(self.child.id()).chain(pids()));
        if !holds_soon(|| matches!(self.child.try_wait(), Ok(Some(_)))) {
            let _already_gone = self.child.kill();
            let _already_gone = self.child.wait();
        }
        if !holds_soon(|| !family.iter().any(Process::lives)) {
            let rest = family.iter().filter(|member| member.lives());
            signal("KILL", rest.map(|member| member.pid));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Looks at `condition` until it holds; false if it does not within [`PATIENCE`].
pub fn holds_soon(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// The user and group that the test runs as.
pub fn own_identity() -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let own = fs::metadata("/proc/self").expect("/proc is mounted");
    (own.uid(), own.gid())
}

/// A process, told apart from a later one with the same number by the moment it began.
struct Process {
    pid: u32,
    began: String,
}

impl Process {
    fn lives(&self) -> bool {
        matches!(parent_and_beginning(self.pid), Ok((_, began)) if began == self.began)
    }
}

fn descendants(ancestor: u32) -> Vec<Process> {
    let everything: Vec<(u32, u32, String)> = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| parent_and_beginning(pid).ok().map(|(parent, began)| (pid, parent, began)))
        .collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(wanted) = parents.pop() {
        for (pid, _, began) in everything.iter().filter(|(_, parent, _)| *parent == wanted) {
            parents.push(*pid);
            found.push(Process { pid: *pid, began: began.clone() });
        }
    }
    found
}

/// Fields 4 and 22 of `/proc/PID/stat`, counted after the command's name, which may hold anything.
///
/// A process that has ended and only waits for its parent to take notice is none any more.
fn parent_and_beginning(pid: u32) -> io::Result<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let state = fields.next();
    let parent = fields.next().and_then(|field| field.parse().ok());
    let began = fields.nth(17);
    match (state, parent, began) {
        (Some("Z" | "X"), ..) => Err(io::ErrorKind::NotFound.into()),
        (_, Some(parent), Some(began)) => Ok((parent, began.to_owned())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn signal(name: &str, pids: impl Iterator<Item = u32>) {
    let _already_gone = Command::new("sh")
        .args(["-c", "kill -s \"$@\"", "sh", name])
        .args(pids.map(|pid| pid.to_string()))
        .stderr(Stdio::null())
        .status();
}
