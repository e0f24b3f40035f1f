//! Running the binary, and reading what it says.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use super::{UNGUARDED, am_root, eventually, rsh, script, set_mode, shown, tool};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mailtwin");
/// The host's name in every remote destination; messages about the peer must contain it.
pub const HOST: &str = "standby.example.org";
/// Longer than any run takes; a run that is not over by then hangs, and the test says so instead of hanging too.
const PATIENCE: Duration = Duration::from_secs(120);
/// The user who may do nothing special, on every Debian system.
pub const NOBODY: u32 = 65534;

/// What each counter of the report counts changes with.
pub const CHANGES: [&str; 11] = [
    "messages_added",
    "messages_renamed",
    "messages_linked",
    "messages_removed",
    "files_added",
    "files_patched",
    "files_replaced",
    "files_removed",
    "directories_added",
    "directories_renamed",
    "directories_removed",
];

/// A source, a mirror and a master's state in a temporary directory, and the way between them.
pub struct Pair {
    /// Holds everything; also a place for scripts and other trees.
    home: PathBuf,
    /// Removes it all at the end.
    _guard: TempDir,
    /// SRC. Exists, empty.
    pub source: PathBuf,
    /// DEST. Does not exist yet.
    pub mirror: PathBuf,
    /// The master's state. Does not exist yet.
    pub state: PathBuf,
    /// What `--rsh` is given; a run in one process without it.
    pub rsh: Option<String>,
    /// Whether the trees are mail: decides what a mirror leaves out.
    pub mail: bool,
}

impl Pair {
    /// Mail, mirrored into a directory of the same machine.
    pub fn new() -> Self {
        let guard = tempfile::Builder::new().prefix("mailtwin-").tempdir().expect("a temporary directory");
        let home = guard.path().canonicalize().expect("its path");
        fs::create_dir(home.join("source")).expect("the source");
        Self {
            source: home.join("source"),
            mirror: home.join("mirror"),
            state: home.join("state"),
            home,
            _guard: guard,
            rsh: None,
            mail: true,
        }
    }

    /// Plain files, mirrored into a directory of the same machine.
    pub fn of_files() -> Self {
        Self { mail: false, ..Self::new() }
    }

    /// Mail, mirrored through a far end that is a process of its own.
    pub fn through_a_pipe() -> Self {
        let mut pair = Self::new();
        pair.connect_by("shift; exec \"$@\"");
        pair
    }

    /// The far end is reached by a script; it is given HOST, the remote path, `serve` and `--stdio`.
    pub fn connect_by(&mut self, body: &str) {
        let path = self.path("connect.sh");
        script(&path, body);
        self.rsh = Some(rsh(&path));
    }

    /// The directory that holds them all.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A path beside the source and the mirror.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// DEST as it is typed.
    pub fn destination(&self) -> String {
        let mirror = self.mirror.display();
        match self.rsh {
            Some(_) => format!("{HOST}:{mirror}"),
            None => mirror.to_string(),
        }
    }

    /// `mailtwin sync ... SRC DEST`, with nothing of this process's environment that could sway it.
    pub fn plain_command(&self, options: &[&str]) -> Command {
        self.command_of(Path::new(BINARY), options)
    }

    fn command_of(&self, binary: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.arg("sync").args(options);
        if let Some(rsh) = &self.rsh {
            command.args(["--rsh", rsh]).arg("--remote-path").arg(binary);
        }
        command.arg(&self.source).arg(self.destination());
        command.env("MAILTWIN_STATE", &self.state).env_remove("MAILTWIN_FAULT").env_remove("MAILTWIN_FAULT_COUNT");
        command
    }

    /// The same with `--json`.
    pub fn command(&self, options: &[&str]) -> Command {
        self.plain_command(&[&["--json", "--no-progress"], options].concat())
    }

    /// Runs it to its end, for a person.
    pub fn sync_plainly(&self, options: &[&str]) -> Run {
        finish(&mut self.plain_command(options))
    }

    /// Runs it to its end, for a program.
    pub fn try_sync(&self, options: &[&str]) -> Run {
        finish(&mut self.command(options))
    }

    /// Runs it to its end, which must be a good one.
    pub fn sync(&self, options: &[&str]) -> Report {
        self.try_sync(options).done()
    }

    /// Syncs, and once more when the last change of the source is clearly past. A change that comes after this meets
    /// a catalogue that trusts its times; one that comes right after a plain `sync` meets one that does not yet.
    pub fn sync_and_settle(&self) -> Report {
        let first = self.sync(&UNGUARDED);
        self.wait_until_changes_are_past();
        self.sync(&UNGUARDED);
        first
    }

    /// Waits until the clock is clearly beyond the last change of the source.
    pub fn wait_until_changes_are_past(&self) {
        let clearly = Duration::from_millis(150);
        eventually("the last change is past", Duration::from_secs(10), || {
            last_change(&self.source).elapsed().is_ok_and(|age| age > clearly)
        });
    }

    /// As `command`, but as a user without rights. As root that is `nobody`, to whom the home directory is opened;
    /// for anyone else it is who they are.
    pub fn command_without_rights(&self, options: &[&str]) -> Command {
        let options = [&["--json", "--no-progress"], options].concat();
        if !am_root() {
            return self.plain_command(&options);
        }
        set_mode(&self.home, 0o755);
        chown(&self.home, Some(NOBODY), Some(NOBODY)).expect("chown of the home directory");
        // The build's own directory may lie where others cannot go.
        let binary = self.path("mailtwin-binary");
        if !binary.exists() {
            tool("coreutils", "cp", &[BINARY.as_ref(), binary.as_os_str()]);
        }
        let mut command = self.command_of(&binary, &options);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    }
}

/// The newest change of anything in a tree, by the times that no program can set.
fn last_change(root: &Path) -> SystemTime {
    let changed = |path: &Path| {
        let metadata = fs::symlink_metadata(path).expect("the tree holds still");
        SystemTime::UNIX_EPOCH + Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32)
    };
    // What may not be read is passed over: its own entry has been seen.
    let all = walkdir::WalkDir::new(root).into_iter().filter_map(Result::ok);
    all.map(|entry| changed(entry.path())).max().expect("at least the root")
}

/// Starts a command and waits for its end.
pub fn finish(command: &mut Command) -> Run {
    Started::new(command).end()
}

/// A run that is under way. Dropped, it is killed with all it started.
pub struct Started {
    child: Child,
    line: String,
    began: Instant,
    streams: Receiver<(Stream, Vec<u8>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Started {
    /// Starts it in a process group of its own, so that its children can be ended with it.
    pub fn new(command: &mut Command) -> Self {
        let line = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let (sender, streams) = channel();
        collect(child.stdout.take(), Stream::Out, sender.clone());
        collect(child.stderr.take(), Stream::Err, sender);
        Self { child, line, began: Instant::now(), streams }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still at work.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Waits for its end, and for that of everything that still writes to its output: a far end that outlives the
    /// near end would otherwise be at work during the next run of the test.
    pub fn end(mut self) -> Run {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let left = PATIENCE.saturating_sub(self.began.elapsed());
            match self.streams.recv_timeout(left) {
                Ok((Stream::Out, bytes)) => stdout = bytes,
                Ok((Stream::Err, bytes)) => stderr = bytes,
                Err(_) => panic!("still running after {PATIENCE:?}: {}", self.line),
            }
        }
        Run {
            status: self.child.wait().expect("wait"),
            stdout,
            stderr,
            took: self.began.elapsed(),
            line: self.line.clone(),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

fn collect(from: Option<impl Read + Send + 'static>, stream: Stream, to: Sender<(Stream, Vec<u8>)>) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = to.send((stream, bytes));
    });
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything on standard output.
    pub stdout: Vec<u8>,
    /// Everything on standard error, of both ends.
    pub stderr: Vec<u8>,
    /// Wall time.
    pub took: Duration,
    line: String,
}

impl Run {
    /// The exit code; none when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether SIGKILL ended it, as the fault hook does.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// Standard error as text.
    pub fn said(&self) -> String {
        legible(&self.stderr)
    }

    /// Standard output as text.
    pub fn printed(&self) -> String {
        legible(&self.stdout)
    }

    /// Everything about it, for a failed assertion.
    pub fn story(&self) -> String {
        format!(
            "{}\n{} after {:?}\n-- stdout --\n{}\n-- stderr --\n{}",
            self.line,
            self.status,
            self.took,
            self.printed(),
            self.said()
        )
    }

    /// Asserts the exit code.
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{}", self.story());
        self
    }

    /// Standard output as the one JSON object that it must be.
    pub fn report(&self) -> Report {
        match serde_json::from_slice(&self.stdout) {
            Ok(value @ Value::Object(_)) => Report(value),
            _ => panic!("standard output is not one JSON object: {}", self.story()),
        }
    }

    /// Asserts a good end: exit code 0, both catalogues equal, nothing left undone.
    pub fn done(self) -> Report {
        let run = self.ended_with(0);
        let report = run.report();
        assert!(report.in_sync(), "done, yet not in sync: {}", run.story());
        assert!(report.problems().is_empty(), "{}", run.story());
        report
    }

    /// Asserts a refusal: one of the codes, in few clear words that name the thing.
    pub fn refused(self, codes: &[i32], naming: &str) -> Self {
        let code = self.code().unwrap_or(-1);
        assert!(codes.contains(&code), "expected exit code {codes:?}: {}", self.story());
        self.spoke_clearly(naming);
        self
    }

    /// Asserts words for a person on standard error: the thing named, no trace, no dump.
    pub fn spoke_clearly(&self, naming: &str) {
        let said = String::from_utf8_lossy(&self.stderr);
        assert!(said.contains(naming), "does not name {naming:?}: {}", self.story());
        for internal in ["panicked at", "RUST_BACKTRACE", "unwrap()", "Os {", "Custom {"] {
            assert!(!said.contains(internal), "{internal:?} is not for a person: {}", self.story());
        }
        let lines = said.lines().filter(|line| !line.trim().is_empty()).count();
        assert!((1..=MOST_LINES).contains(&lines), "{lines} lines: {}", self.story());
    }
}

/// Output of any bytes as lines of text.
fn legible(output: &[u8]) -> String {
    let lines: Vec<String> = output.split(|byte| *byte == b'\n').map(shown).collect();
    lines.join("\n")
}

/// A sentence, a hint, what the far end said of it, and the note that owners are not kept without root.
const MOST_LINES: usize = 4;

/// What `--json` printed.
#[derive(Clone, Debug)]
pub struct Report(pub Value);

impl Report {
    /// A number of the report.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {name:?} in {}", self.0))
    }

    /// Whether both catalogues' root digests are equal.
    pub fn in_sync(&self) -> bool {
        self.0.get("in_sync").and_then(Value::as_bool).unwrap_or_else(|| panic!("no in_sync in {}", self.0))
    }

    /// Subject and reason of each problem.
    pub fn problems(&self) -> Vec<(String, String)> {
        let list = self.0.get("problems").and_then(Value::as_array);
        list.unwrap_or_else(|| panic!("no problems in {}", self.0))
            .iter()
            .map(|problem| (text_of(problem, "subject"), text_of(problem, "reason")))
            .collect()
    }

    /// Bytes on the wire, both ways.
    pub fn wire(&self) -> u64 {
        self.count("bytes_sent") + self.count("bytes_received")
    }

    /// Changes of every kind, added up.
    pub fn changes(&self) -> u64 {
        CHANGES.iter().map(|name| self.count(name)).sum()
    }

    /// Asserts that nothing was changed and next to nothing travelled.
    pub fn shipped_nothing(&self) {
        assert_eq!(self.changes(), 0, "{}", self.0);
        assert_eq!(self.count("bytes_content"), 0, "{}", self.0);
        assert!(self.wire() < 4096, "{}", self.0);
    }

    /// Asserts the given counters, and that every other change is 0.
    pub fn changed_only(&self, expected: &[(&str, u64)]) {
        for name in CHANGES {
            let count = expected.iter().find(|(which, _)| *which == name).map_or(0, |(_, count)| *count);
            assert_eq!(self.count(name), count, "{name} in {}", self.0);
        }
    }
}

fn text_of(problem: &Value, name: &str) -> String {
    problem
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {name:?} in the problem {problem}"))
        .to_owned()
}

/// Runs a shell line in a mount namespace of its own, where a file system can be mounted without harm.
pub fn in_a_namespace(line: &str, environment: &[(&str, &OsStr)]) -> Run {
    let mut command = Command::new("unshare");
    command.arg(if am_root() { "-m" } else { "-rm" });
    command.args(["sh", "-c", line]).envs(environment.iter().copied());
    finish(&mut command)
}
