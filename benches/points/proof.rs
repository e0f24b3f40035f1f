//! Whether what was restored is what there was, and how much room something takes.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use walkdir::WalkDir;

use crate::support::{Doing, Outcome, compare};

/// One file of so many is compared byte by byte.
const SAMPLE: usize = 11;

/// Room on the disk, each hard link once; as du(1) has it.
pub fn on_disk(path: &Path) -> Outcome<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    if !path.exists() {
        return Ok(0);
    }
    for entry in WalkDir::new(path) {
        let entry = entry.doing(path.display())?;
        let metadata = entry.metadata().doing(entry.path().display())?;
        if seen.insert((metadata.dev(), metadata.ino())) {
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// Seconds until everything that was written is on the disk.
pub fn flush(path: &Path) -> Outcome<f64> {
    let begun = Instant::now();
    let status = Command::new("sync").arg("-f").arg(path).status().doing("sync -f")?;
    match status.success() {
        true => Ok(begun.elapsed().as_secs_f64()),
        false => Err(format!("sync -f {} ended with {status}", path.display()).into()),
    }
}

/// Names, kinds and sizes of everything; contents, times and permissions of a sample. Of a mailbox, and nothing beside it.
pub fn restored(source: &Path, mailbox: Option<&str>, to: &Path) -> Outcome<()> {
    let Some(mailbox) = mailbox else {
        compare::same(source, to)?;
        return sampled(source, to);
    };
    let entries = fs::read_dir(to).doing(to.display())?.collect::<Result<Vec<_>, _>>().doing(to.display())?;
    if entries.len() != 1 {
        return Err(format!("{} has {} entries in place of one", to.display(), entries.len()).into());
    }
    let (source, to) = (source.join(mailbox), to.join(mailbox));
    compare::same(&source, &to)?;
    sampled(&source, &to)
}

fn sampled(source: &Path, to: &Path) -> Outcome<()> {
    let files = WalkDir::new(source).sort_by_file_name().into_iter().flatten();
    for entry in files.filter(|entry| entry.file_type().is_file()).step_by(SAMPLE) {
        let theirs = to.join(entry.path().strip_prefix(source)?);
        let of = |path: &Path| -> Outcome<(Vec<u8>, i64, i64, u32)> {
            let metadata = path.metadata().doing(path.display())?;
            let contents = fs::read(path).doing(path.display())?;
            Ok((contents, metadata.mtime(), metadata.mtime_nsec(), metadata.mode()))
        };
        if of(entry.path())? != of(&theirs)? {
            return Err(format!("{} is not as it was", theirs.display()).into());
        }
    }
    Ok(())
}
