//! The disk: where trees and mirrors lie, how much room they take, and when old mirrors may go.
//!
//! Each destination is a fresh directory. ext4 passes over inodes that were deleted lately, one by one, and after a mass
//! deletion that makes creating files ten times slower for six minutes; unless their blocks have left the cache. So mirrors
//! are kept until the room is needed, and then either the cache goes too (as root) or nothing is timed for that long.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::options::Options;
use super::tree::{self, Shape};
use super::{Doing, Outcome, say};

/// Owner of everything that the comparison puts on the disk.
pub struct Ground {
    trees: PathBuf,
    in_use: Vec<PathBuf>,
    work: tempfile::TempDir,
    destinations: usize,
    /// Mirrors that no row needs any more.
    retired: Vec<PathBuf>,
    /// Room of everything made or used in this run, and of the part of it that is retired; estimates, in bytes.
    taken: u64,
    idle: u64,
    space: u64,
    settle: Duration,
    /// Present when nobody asked for the trees to stay.
    _own: Option<tempfile::TempDir>,
}

impl Ground {
    pub fn new(options: &Options) -> Outcome<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (own, trees) = match &options.dir {
            Some(dir) => (None, dir.clone()),
            None => {
                let own = tempfile::tempdir_in(target).doing(target.display())?;
                let path = own.path().to_owned();
                (Some(own), path)
            }
        };
        fs::create_dir_all(&trees).doing(trees.display())?;
        let trees = trees.canonicalize().doing(trees.display())?;
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(&trees).doing(trees.display())?;
        let settle = if options.quick { Duration::ZERO } else { options.settle };
        Ok(Self {
            trees,
            in_use: Vec::new(),
            work,
            destinations: 0,
            retired: Vec::new(),
            taken: 0,
            idle: 0,
            space: options.space,
            settle,
            _own: own,
        })
    }

    /// The tree of that name, made if it is not there.
    pub fn tree(&mut self, name: &str, shape: &Shape) -> Outcome<PathBuf> {
        let root = self.trees.join(format!("{name}-{}", shape.messages()));
        tree::ensure(&root, shape)?;
        sync();
        if !self.in_use.contains(&root) {
            self.in_use.push(root.clone());
            self.taken += shape.room();
        }
        Ok(root)
    }

    /// A path for scripts, state and what a tool writes about itself.
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// A directory that does not exist yet, with room for `bytes`.
    pub fn destination(&mut self, bytes: u64) -> Outcome<PathBuf> {
        if !self.retired.is_empty() && self.taken + bytes > self.space {
            self.clear()?;
        }
        self.taken += bytes;
        self.destinations += 1;
        Ok(self.work.path().join(format!("mirror-{}", self.destinations)))
    }

    /// The mirror may go when its room is needed.
    pub fn retire(&mut self, destination: PathBuf, bytes: u64) {
        self.retired.push(destination);
        self.idle += bytes;
    }

    fn clear(&mut self) -> Outcome<()> {
        say(format_args!("removing {} old mirrors", self.retired.len()));
        for path in self.retired.drain(..) {
            fs::remove_dir_all(&path).doing(path.display())?;
        }
        sync();
        self.taken -= std::mem::take(&mut self.idle);
        if !forget_deleted_inodes() {
            say(format_args!("letting the disk rest for {} s", self.settle.as_secs()));
            std::thread::sleep(self.settle);
        }
        Ok(())
    }
}

/// Empties the kernel's caches where that is allowed; whoever measures warms its source again.
fn forget_deleted_inodes() -> bool {
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// What was written before is on the disk, and does not burden the next run.
pub fn sync() {
    // Its only failure is not being installed, and then the whole comparison fails elsewhere.
    let _ = Command::new("sync").status();
}

/// Reads everything, so that whoever is measured next finds it in memory; the sum of the sizes.
pub fn warm(source: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in walkdir::WalkDir::new(source) {
        let entry = entry.doing(source.display())?;
        if entry.file_type().is_file() {
            bytes += fs::read(entry.path()).doing(entry.path().display())?.len() as u64;
        }
    }
    Ok(bytes)
}
