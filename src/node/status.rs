//! How things stand, as the daemon writes it down for others to read: `mailtwin status` and `mailtwin check` read it, and
//! so may anybody's own program. One JSON object in a file, replaced whole.
//!
//! Times are seconds since 1970, by this host's clock.

use crate::disk::{DiskError, Root};
use crate::path::TreePath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// The version of the object; what is added does not change it.
pub const VERSION: u32 = 1;

/// How this host stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// See [`VERSION`].
    pub version: u32,
    /// This host's name.
    pub host: String,
    /// The daemon's process.
    pub pid: u32,
    /// When it began.
    pub since: i64,
    /// When this was written; the daemon writes at least every ten seconds.
    pub written: i64,
    /// The sets, by name.
    pub sets: BTreeMap<String, SetStatus>,
}

/// How a set stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetStatus {
    /// `master` or `slave`.
    pub role: String,
    /// Where it is on this host.
    pub path: String,
    /// The other hosts that have to do with it, by name.
    pub peers: BTreeMap<String, PeerStatus>,
    /// The last of each kind of job.
    pub jobs: BTreeMap<String, JobStatus>,
}

/// What is known of a set and one other host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// `connecting`, `catching-up`, `following`, `waiting` (until it is tried again), `serving` (this host is the slave),
    /// `gone` (no session at present; this host is the slave).
    pub state: String,
    /// Since when.
    pub since: i64,
    /// The last batch that is durable on the slave, as `epoch-sequence`.
    pub position: Option<String>,
    /// When everything that had been seen until then was durable on the slave.
    pub durable_at: Option<i64>,
    /// When both ends last compared their digests, and found them equal.
    pub in_sync_at: Option<i64>,
    /// Folders that were touched and are not durable on the slave yet.
    pub folders_waiting: u64,
    /// How long the oldest of them has waited, in seconds.
    pub lag_seconds: f64,
    /// How changes are heard of: `inotify`, `fanotify`, `poll`.
    pub watch: Option<String>,
    /// What a person should know of the watching.
    pub notices: Vec<String>,
    /// Messages that were added, since the daemon began.
    pub messages_added: u64,
    /// Bytes sent in the present session or the last.
    pub bytes_sent: u64,
    /// Sessions that ended early, since the daemon began.
    pub failures: u64,
    /// Why the last one did.
    pub error: Option<String>,
    /// The guard's sentence, where it holds removals back.
    pub stopped: Option<String>,
}

/// The last time that a job was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobStatus {
    /// When it began.
    pub begun: i64,
    /// When it ended; `None` while it is being done.
    pub ended: Option<i64>,
    /// Its exit code.
    pub code: Option<i32>,
    /// What it said last.
    pub said: String,
}

/// The status that all threads write to.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Status>>);

impl Board {
    /// A board with what is known from the beginning.
    pub fn new(status: Status) -> Self {
        Self(Arc::new(Mutex::new(status)))
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Changes what is known of a set and one other host.
    pub fn peer(&self, set: &str, peer: &str, change: impl FnOnce(&mut PeerStatus)) {
        let mut status = self.lock();
        change(status.sets.entry(set.to_owned()).or_default().peers.entry(peer.to_owned()).or_default());
    }

    /// Changes what is known of a job.
    pub fn job(&self, set: &str, job: &str, change: impl FnOnce(&mut JobStatus)) {
        let mut status = self.lock();
        change(status.sets.entry(set.to_owned()).or_default().jobs.entry(job.to_owned()).or_default());
    }

    /// As it is now.
    pub fn get(&self) -> Status {
        self.lock().clone()
    }
}

/// Writes a status file, whole or not at all.
///
/// # Errors
/// Where the disk refuses.
pub fn write(file: &Path, status: &Status) -> Result<(), DiskError> {
    let (directory, name) = (file.parent().unwrap_or(Path::new("/")), file.file_name().unwrap_or_default());
    let root = Root::open(directory)?;
    let name = TreePath::root().child(&name.to_string_lossy());
    let draft = TreePath::root().child(&format!(".{}.new", file.file_name().unwrap_or_default().to_string_lossy()));
    match root.remove(&draft) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let mut writer = root.create(&draft, 0o644)?;
    let text = serde_json::to_string_pretty(status).unwrap_or_default();
    writer.write(text.as_bytes())?;
    writer.write(b"\n")?;
    root.rename(&draft, &name)
}

/// Reads a status file; `None` where there is none.
///
/// # Errors
/// A sentence where it cannot be read, or is none.
pub fn read(file: &Path) -> Result<Option<Status>, String> {
    let show = crate::path::escape(std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str()));
    match std::fs::read(file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("{show} is no status file: {error}"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {show}: {error}")),
    }
}
