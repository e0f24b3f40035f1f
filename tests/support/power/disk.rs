//! A file system of its own on a loop device, whose power can be cut.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tree::*;

/// A file system that a power cut is tried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Debian's default.
    Ext4,
    /// The other one that mail is often kept on.
    Xfs,
}

impl FileSystem {
    fn make(self, image: &Path) {
        match self {
            Self::Ext4 => tool("e2fsprogs", "mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()]),
            Self::Xfs => tool("xfsprogs", "mkfs.xfs", &["-q".as_ref(), "-f".as_ref(), image.as_ref()]),
        };
    }

    /// The smallest that its mkfs makes without complaint, and room for the mail of these tests.
    fn size(self) -> u64 {
        match self {
            Self::Ext4 => 96 << 20,
            Self::Xfs => 304 << 20,
        }
    }
}

/// The file system, mounted. Dropped, it is unmounted, and with that its loop device is free.
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub place: PathBuf,
}

impl Disk {
    /// Makes and mounts one beside the trees of a pair, whose home must outlive it.
    pub fn new(pair: &Pair, kind: FileSystem) -> Self {
        let disk = Self { image: pair.path("disk.image"), place: pair.path("disk") };
        let file = fs::File::create(&disk.image).expect("an image");
        file.set_len(kind.size()).expect("an image of this size");
        fs::create_dir(&disk.place).expect("a place to mount on");
        kind.make(&disk.image);
        disk.mount();
        disk
    }

    fn mount(&self) {
        let arguments: [&OsStr; 4] = ["-o".as_ref(), "loop".as_ref(), self.image.as_ref(), self.place.as_ref()];
        tool("mount", "mount", &arguments);
    }

    /// Makes all on it durable, so that a cut takes nothing of what was there before: not even that something is gone.
    pub fn sync(&self) {
        tool("coreutils", "sync", &["--file-system".as_ref(), self.place.as_ref()]);
    }

    /// Cuts its power: what no sync has made durable is gone. It stays mounted, and fails every call.
    pub fn cut(&self) {
        tool("xfsprogs", "xfs_io", &["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), self.place.as_ref()]);
    }

    /// The power is back: unmounts it and mounts it again, which recovers its journal.
    pub fn restart(&self) {
        eventually("nobody uses the file system", Duration::from_secs(10), || unmount(&self.place));
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process of a test that failed may need a moment to end; then it is taken off lazily.
        for _ in 0..100 {
            if unmount(&self.place) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

fn unmount(place: &Path) -> bool {
    Command::new("umount").arg(place).output().is_ok_and(|output| output.status.success())
}

/// Holds all threads of a process; `false` where it has ended.
pub fn hold(process: u32) -> bool {
    signal(process, "STOP");
    let mut is_there = true;
    eventually("the process stands still", Duration::from_secs(10), || match states_of(process) {
        Some(states) => states.iter().all(|state| *state == 'T'),
        None => {
            is_there = false;
            true
        }
    });
    is_there
}

/// Ends a process and waits until it is gone.
pub fn end(process: u32) {
    signal(process, "KILL");
    eventually("the process is gone", Duration::from_secs(10), || states_of(process).is_none());
}

fn signal(process: u32, name: &str) {
    // One that has ended by itself is fine.
    let _ = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).output();
}

/// The states of its threads, as proc(5) has them; none when it is gone or only waits for its parent to hear of it.
fn states_of(process: u32) -> Option<Vec<char>> {
    let mut states = Vec::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        // A thread may end while they are listed.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("stat")) else { continue };
        let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        states.extend(state.filter(|state| !matches!(state, 'Z' | 'X')));
    }
    (!states.is_empty()).then_some(states)
}
