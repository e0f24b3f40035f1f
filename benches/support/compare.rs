//! Whether a mirror holds what its source holds: a fast wrong answer does not count.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::{Doing, Outcome};

/// Names, kinds, sizes and whether messages share an inode, in lock step; the first difference is the error.
pub fn same(source: &Path, mirror: &Path) -> Outcome<()> {
    let (mut left, mut right) = (entries(source), entries(mirror));
    loop {
        match (left.next().transpose()?, right.next().transpose()?) {
            (None, None) => return Ok(()),
            (Some(ours), Some(theirs)) if alike(&ours, &theirs) => {}
            (ours, theirs) => {
                let name = |fact: Option<Fact>| fact.map_or("nothing".to_owned(), |fact| fact.to_string());
                return Err(format!("source has {}, mirror has {}", name(ours), name(theirs)).into());
            }
        }
    }
}

struct Fact {
    name: PathBuf,
    directory: bool,
    size: u64,
    links: u64,
}

impl Fact {
    fn of(name: PathBuf, metadata: &Metadata) -> Self {
        let directory = metadata.is_dir();
        Self { name, directory, size: if directory { 0 } else { metadata.len() }, links: metadata.nlink() }
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes, {} links)", self.name.display(), self.size, self.links)
    }
}

fn alike(ours: &Fact, theirs: &Fact) -> bool {
    // A mirror may itself be linked elsewhere; but a source's hard link must be one there too.
    let links = ours.directory || ours.links == 1 || theirs.links > 1;
    ours.name == theirs.name && ours.directory == theirs.directory && ours.size == theirs.size && links
}

fn entries(root: &Path) -> impl Iterator<Item = Outcome<Fact>> + use<'_> {
    // The slave's state is not part of the mirror.
    let part = |entry: &DirEntry| entry.depth() != 1 || entry.file_name() != ".mailtwin";
    WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter().filter_entry(part).map(move |entry| {
        let entry = entry.doing(root.display())?;
        let metadata = entry.metadata().doing(entry.path().display())?;
        Ok(Fact::of(entry.path().strip_prefix(root)?.to_owned(), &metadata))
    })
}
