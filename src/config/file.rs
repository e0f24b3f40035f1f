//! The configuration file: what stands in it, and what it means. mailtwin.toml(5) is its description.
//!
//! The flow: `read` makes a [`Configuration`] of the text, and a [`Finding`] of everything that is wrong with it, not only
//! of the first; `check` adds what only all of it together tells, and what only this host can tell: whether a path is
//! there, who may read a key. A [`Loaded`] has both.
//!
//! Everything here is validated: whoever gets a `Configuration` need not look again.

mod check;
mod cron;
mod difference;
mod example;
mod finding;
mod load;
mod read;
mod table;
mod value;
mod window;

pub use cron::{Cron, CronError};
pub use difference::{Difference, difference};
pub use example::example;
pub use finding::{Finding, Severity};
pub use load::{ConfigurationError, Loaded, load};
pub use read::{Defaults, Reading, read};
pub use window::{Rate, Weekdays, Window};

use crate::maildir::folder::SetKind;
use crate::sync::guard::Limit;
use crate::transport::address::Address;
use crate::transport::key::PeerKey;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where the file is, where nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/mailtwin/mailtwin.toml";

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// `[host]`
    pub host: Host,
    /// `[peer.NAME]`, by name.
    pub peers: BTreeMap<String, Peer>,
    /// `[set.NAME]`, by name.
    pub sets: BTreeMap<String, Set>,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: Log,
    /// `[metrics]`
    pub metrics: Metrics,
}

/// This host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As others know it; the system's name where none is given.
    pub name: String,
    /// Where the master's state is kept, and the scheduler's.
    pub state: PathBuf,
    /// Where masters reach this host by TLS; `None` nowhere.
    pub listen: Option<SocketAddr>,
    /// The file with this host's secret key.
    pub key: PathBuf,
    /// Where the daemon writes down how things stand.
    pub status: PathBuf,
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As sets name it.
    pub name: String,
    /// How it is reached.
    pub transport: Transport,
    /// How long it may say nothing; `None` for ever.
    pub timeout: Option<Duration>,
    /// zstd level of what goes there.
    pub level: Option<i32>,
}

/// The way to another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS, both ends known by their keys.
    Tls {
        /// `None` for one that only calls here.
        address: Option<Address>,
        /// The public key that it must have.
        key: PeerKey,
    },
    /// A program that reaches it, mostly ssh.
    Ssh {
        /// `[user@]host`, as ssh takes it.
        address: String,
        /// The program with its options, where it is not `ssh`.
        rsh: Option<String>,
        /// mailtwin on that host, where it is not `mailtwin`.
        remote_path: Option<String>,
    },
}

/// What a host is for a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It has the truth, and sends.
    Master,
    /// It keeps the mirror and the restore points.
    Slave,
}

/// One tree that is replicated as a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The same on all hosts.
    pub name: String,
    /// Where it is on this host: the tree itself on a master, the mirror on a slave.
    pub path: PathBuf,
    /// What kind of tree it is; `None` for what it looks like.
    pub kind: Option<SetKind>,
    /// What this host is for it, until a change of roles says otherwise.
    pub role: Role,
    /// A master's slaves; a slave's masters. Names of [`Configuration::peers`].
    pub peers: Vec<String>,
    /// Where the slaves keep it, where their own files do not say so.
    pub mirror: Option<PathBuf>,
    /// Where a slave keeps its state; `None` for `.mailtwin` in the mirror.
    pub state: Option<PathBuf>,
    /// Lines of a .gitignore: what is left out, then what is taken in all the same.
    pub filters: Vec<String>,
    /// Owner and group of everything on the mirror.
    pub chown: Option<(Option<u32>, Option<u32>)>,
    /// How much may be removed at once.
    pub max_delete: Limit,
    /// The mirror may lie where this host's own system is.
    pub over_live: bool,
    /// When what is done.
    pub schedule: Schedule,
    /// What is kept.
    pub policy: Policy,
    /// What is run before and after.
    pub hooks: Hooks,
}

/// When what is done: `[schedule]`, and `[set.NAME.schedule]` over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// `None` for a job that is never done.
    pub jobs: BTreeMap<Job, Cron>,
    /// Whose clock is meant.
    pub timezone: TimeZone,
    /// So much later, at most, than the expression says; how much is the same for a set, job and slot.
    pub jitter: Duration,
    /// When no job begins that may wait.
    pub quiet: Vec<Window>,
    /// How much a second may be sent, and when; the first that fits counts.
    pub bandwidth: Vec<Rate>,
}

/// What is done by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// A full restore point.
    Full,
    /// A differential one.
    Differential,
    /// What need not be kept goes.
    Expire,
    /// Restore points are read as a restore would.
    Verify,
    /// A restore for practice.
    Drill,
    /// Every content is read and compared on both sides.
    Compare,
}

/// What is kept and how it is looked after: `[policy]`, and `[set.NAME.policy]` over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many fulls, each with its differentials; `None` all.
    pub keep_full: Option<u32>,
    /// The newest so many differentials; `None` all.
    pub keep_diff: Option<u32>,
    /// Log for any moment within this time; `None` all of it.
    pub keep_log: Option<Duration>,
    /// `verify` reads one part of so many each time.
    pub verify_parts: u32,
    /// `drill` restores so many mailboxes.
    pub drill_mailboxes: u32,
}

/// What is run before and after something is done: `[hooks]`, and `[set.NAME.hooks]` over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments; where it fails, what was to be done is not.
    pub before: BTreeMap<Act, Vec<String>>,
    /// Program and arguments.
    pub after: BTreeMap<Act, Vec<String>>,
    /// How long one may take.
    pub timeout: Duration,
    /// Who runs it; `None` the daemon's user.
    pub user: Option<String>,
}

/// What hooks are run around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the commands of these names")]
pub enum Act {
    Sync,
    Backup,
    Restore,
    Verify,
    Drill,
    Expire,
}

/// `[limits]`: what the daemon may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second that may be sent, where no hour of the day says otherwise; `None` as many as go.
    pub bandwidth: Option<u64>,
    /// Directories that may be watched; `None` as many as the kernel lets.
    pub watches: Option<u64>,
    /// Changes are gathered for so long before they are sent.
    pub gather: Duration,
    /// Everything is looked at once in this time, though no change was heard.
    pub rescan: Duration,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the words of every log")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// `[metrics]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where they are served; `None` nowhere.
    pub listen: Option<SocketAddr>,
}

#[cfg(test)]
mod tests;

impl Job {
    /// All of them, in the order in which those of one set are done that are due together.
    pub const ALL: [Self; 6] = [Self::Full, Self::Differential, Self::Expire, Self::Verify, Self::Drill, Self::Compare];

    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Expire => "expire",
            Self::Verify => "verify",
            Self::Drill => "drill",
            Self::Compare => "compare",
        }
    }

    /// Whose job it is: restore points are the slave's, comparing is the master's.
    pub fn role(self) -> Role {
        if self == Self::Compare { Role::Master } else { Role::Slave }
    }

    /// Whether it waits until quiet hours are over. Restore points do not: their moment is what they are for.
    pub fn may_wait(self) -> bool {
        !matches!(self, Self::Full | Self::Differential)
    }
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sync, Self::Backup, Self::Restore, Self::Verify, Self::Drill, Self::Expire];

    /// As the file has it, after `pre_` or `post_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Drill => "drill",
            Self::Expire => "expire",
        }
    }
}
