//! `mailtwin mount`: restore points as directories.
//!
//! Without `--foreground` the program starts itself once more, in a session of its own, and waits for a byte from there:
//! then it is mounted. Threads do not survive a fork; a new process needs none to.

use super::error::{say, tell};
use super::standby::{Failure, Standby, run as running};
use super::syslog;
use crate::disk;
use crate::monitor::{Event, Monitor};
use crate::mount::tree::Tree;
use crate::mount::views::{Limits, Views};
use crate::mount::{Attached, MountError, Options, Session, mount};
use rustix::process::{Resource, getgid, getrlimit, getuid, setrlimit, setsid};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Between two looks for views that nobody uses any more.
const TIDY: Duration = Duration::from_secs(10);

/// Options of `mount`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// The directory to mount at
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: OsString,

    /// Stay in the foreground until it is unmounted
    #[arg(short = 'f', long)]
    pub foreground: bool,

    /// Let other users look into it, as far as permissions and owners of the moment let them
    #[arg(long)]
    pub allow_other: bool,

    /// Mount options: allow_other, default_permissions, noexec, fsname=NAME
    #[arg(short = 'o', value_name = "OPT", value_delimiter = ',')]
    pub options: Vec<String>,

    /// This is the process that stays
    #[arg(long, hide = true)]
    pub detached: bool,
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self(error.to_string(), 1)
    }
}

/// Mounts, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        // What is wrong with the command line is said at once.
        let options = options(arguments)?;
        match arguments.foreground || arguments.detached {
            true => stay(arguments, &options),
            false => detach(),
        }
    })
}

fn options(arguments: &Arguments) -> Result<Options, Failure> {
    let standby = std::path::absolute(&arguments.standby.standby).map_err(|error| Failure(error.to_string(), 1))?;
    let mut options = Options::new(standby.as_os_str());
    for option in arguments.options.iter().filter(|option| !option.is_empty()) {
        options.set(option).map_err(|why| Failure(why, 2))?;
    }
    options.allow_other |= arguments.allow_other;
    Ok(options)
}

/// Starts the process that stays, and waits until it has mounted or has said why not.
fn detach() -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure(format!("cannot start mailtwin once more: {error}"), 1);
    let mut arguments = std::env::args_os().skip(1);
    let verb = arguments.next();
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(verb).arg("--detached").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut ready = [0];
    let is_ready = child.stdout.take().is_some_and(|mut output| output.read_exact(&mut ready).is_ok());
    if is_ready {
        return Ok(0);
    }
    let status = child.wait().map_err(failed)?;
    match status.code() {
        // It has said why.
        Some(code) => Ok(u8::try_from(code).unwrap_or(1)),
        None => Err(Failure(format!("the process that mounts was ended: {status}"), 1)),
    }
}

/// Says what is damaged: on standard error, and where there is none any more in the system's log.
struct Complaints {
    to_the_log: bool,
}

impl Monitor for Complaints {
    fn event(&self, event: Event) {
        let Event::Problem(problem) = event else { return };
        let line = match problem.subject.is_empty() {
            true => problem.reason,
            false => format!("{}: {}", problem.subject, problem.reason),
        };
        say(&line);
        if self.to_the_log {
            // Where nobody logs, the reader's error has to do.
            let _ = syslog::write(Path::new(syslog::SOCKET), &line);
        }
    }
}

fn stay(arguments: &Arguments, options: &Options) -> Result<u8, Failure> {
    if arguments.detached {
        // A session of its own: no terminal's end is its end. It fails where it is one already.
        let _ = setsid();
    }
    let absolute = |path: &OsString| -> Result<PathBuf, Failure> {
        std::path::absolute(path).map_err(|error| Failure(error.to_string(), 1))
    };
    let standby = absolute(&arguments.standby.standby)?;
    let state = arguments.standby.state.as_ref().map(absolute).transpose()?;
    open_more_files();
    let views = Views::open(standby.clone(), state.clone(), Limits::default())?;
    let complaints = Arc::new(Complaints { to_the_log: arguments.detached });
    let tree = Arc::new(Tree::new(views, (getuid().as_raw(), getgid().as_raw()), complaints));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure(format!("cannot wait for signals: {error}"), 1))?;
    // From here on a signal waits until it can be answered by unmounting.
    let signals = runtime.block_on(async { Signals::new() });
    let signals = signals.map_err(|error| Failure(format!("cannot wait for signals: {error}"), 1))?;
    let places: Vec<&Path> = [Some(&standby), state.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
    let (session, attached) = mount(tree.clone(), &places, Path::new(&arguments.mountpoint), options)?;
    if arguments.detached && leave().is_err() {
        // Whoever wanted it has gone meanwhile.
        attached.detach()?;
        return Ok(1);
    }
    serve(&runtime, signals, session, &attached, &tree)
}

/// A view has each of its segments open, and there may be thousands.
fn open_more_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it may not be raised, views of many segments say which they cannot open.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Tells who waits that it is mounted, and gives up what came from there.
fn leave() -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(b"\n")?;
    output.flush()?;
    let null = disk::open_device(Path::new("/dev/null")).map_err(|error| error.source)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // The directory that it was started in can be unmounted or removed.
    std::env::set_current_dir("/")
}

/// The signals that end it.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Answers until a signal comes, or somebody unmounts.
fn serve(
    runtime: &Runtime,
    mut signals: Signals,
    session: Session,
    attached: &Attached,
    tree: &Tree,
) -> Result<u8, Failure> {
    let (sender, mut ended) = oneshot::channel();
    std::thread::spawn(move || sender.send(session.serve()));
    let ended = runtime.block_on(async {
        let mut tidying = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                () = signals.any() => break None,
                ended = &mut ended => break ended.ok(),
                _ = tidying.tick() => tree.views().tidy(),
            }
        }
    });
    attached.detach()?;
    match ended {
        Some(Err(error)) => Ok(tell(&error.to_string(), 1)),
        _ => Ok(0),
    }
}
