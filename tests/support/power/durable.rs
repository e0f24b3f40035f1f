//! Which changes of a file system a power cut may still undo, by the strict reading of POSIX: bytes until their file
//! is synced, a name until its directory is, either until their whole file system is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Call;

/// What of a path is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Bytes of the file, or its length.
    Content,
    /// Owner, permissions, attributes, times.
    Metadata,
    /// That the name is there.
    Name,
    /// That the name is not there any more, or stands for something else by a rename.
    Gone,
}

/// A change that a power cut may undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsynced {
    /// What of it.
    pub what: What,
    /// The path by which the file is known now.
    pub path: PathBuf,
    /// When the change was over: a sync that began earlier did not take it along.
    since: usize,
}

/// The changes of all processes that were traced, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Durability {
    /// Names that are there.
    present: BTreeSet<PathBuf>,
    /// Directories where another file system than that above them begins.
    mounts: Vec<PathBuf>,
    unsynced: Vec<Unsynced>,
    /// How much of a file was there when it was last synced.
    synced_lengths: BTreeMap<PathBuf, u64>,
    lengths: BTreeMap<PathBuf, u64>,
    /// Where a file went that was renamed.
    moved: BTreeMap<PathBuf, PathBuf>,
    /// Lines of earlier traces: time goes on from one to the next.
    earlier: usize,
    /// How many files took the place of another by a rename.
    pub replaced: usize,
}

impl Durability {
    /// Before the first trace: what lies beneath the given directories is durable.
    pub fn before(present: BTreeSet<PathBuf>, mounts: Vec<PathBuf>) -> Self {
        Self { present, mounts, ..Self::default() }
    }

    /// What is not durable of a path and everything beneath it.
    pub fn unsynced_beneath<'a>(&'a self, root: &'a Path) -> impl Iterator<Item = &'a Unsynced> {
        self.unsynced.iter().filter(move |change| change.path.starts_with(root))
    }

    /// Whether an earlier process than the one of this trace did it.
    pub fn is_inherited(&self, change: &Unsynced) -> bool {
        change.since < self.earlier
    }

    /// Whether bytes and length of this one file are durable.
    pub fn has_content(&self, path: &Path) -> bool {
        !self.unsynced.iter().any(|change| change.path == path && change.what == What::Content)
    }

    /// Names of the path itself and of the directories above it that may be lost.
    pub fn names_at_risk(&self, path: &Path) -> Vec<PathBuf> {
        let changes = self.unsynced.iter().filter(|change| change.what == What::Name);
        changes.filter(|change| path.starts_with(&change.path)).map(|change| change.path.clone()).collect()
    }

    /// Where a file is now that had this name when it was made.
    pub fn place_of(&self, path: &Path) -> PathBuf {
        let mut place = path;
        while let Some(next) = self.moved.get(place) {
            place = next;
        }
        place.to_owned()
    }

    /// How long a file that is only appended to was when it was last synced.
    pub fn synced_length(&self, path: &Path) -> u64 {
        self.synced_lengths.get(path).copied().unwrap_or(0)
    }

    /// A trace is over, and with it its process.
    pub fn next_trace(&mut self, lines: usize) {
        self.earlier += lines;
        let over = self.earlier.saturating_sub(1);
        self.unsynced.iter_mut().for_each(|change| change.since = change.since.min(over));
    }

    /// What a call changed, when it is over. Calls are given in the order in which they end.
    pub fn ended(&mut self, call: &Call) {
        let now = self.earlier + call.end.min(usize::MAX / 2);
        if is_sync(&call.name) {
            if call.is_over() {
                self.sync(call);
            }
        } else if call.succeeded() {
            self.change(call, now);
        }
    }

    fn change(&mut self, call: &Call, now: usize) {
        match call.name.as_str() {
            "open" if call.arguments[1].contains("O_CREAT") => self.opened(call.path(0), now),
            "creat" => self.opened(call.path(0), now),
            "openat" | "openat2" if call.arguments[2].contains("O_CREAT") => self.opened(call.path_at(0), now),
            "open" | "openat" | "openat2" => {}
            "mkdir" | "mknod" => self.made(call.path(0), now),
            "mkdirat" | "mknodat" => self.made(call.path_at(0), now),
            "symlink" => self.made(call.path(1), now),
            "symlinkat" => self.made(call.path_at(1), now),
            "link" => self.linked(&call.path(0), call.path(1), now),
            "linkat" => self.linked(&call.path_at(0), call.path_at(2), now),
            "rename" => self.renamed(&call.path(0), &call.path(1), now),
            "renameat" | "renameat2" => self.renamed(&call.path_at(0), &call.path_at(2), now),
            "unlink" | "rmdir" => self.removed(&call.path(0), now),
            "unlinkat" => self.removed(&call.path_at(0), now),
            "write" | "writev" => self.wrote(call.open_path(0), call.returned(), now),
            "pwrite64" | "pwritev" | "pwritev2" | "ftruncate" | "fallocate" => {
                self.mark(What::Content, call.open_path(0), now);
            }
            "truncate" => self.mark(What::Content, call.path(0), now),
            "copy_file_range" | "splice" => self.mark(What::Content, call.open_path(2), now),
            "sendfile" => self.mark(What::Content, call.open_path(0), now),
            "fchmod" | "fchown" | "fsetxattr" | "fremovexattr" => self.mark(What::Metadata, call.open_path(0), now),
            "chmod" | "chown" | "lchown" | "setxattr" | "lsetxattr" | "removexattr" | "lremovexattr" => {
                self.mark(What::Metadata, call.path(0), now);
            }
            "fchmodat" | "fchownat" => self.mark(What::Metadata, call.path_at(0), now),
            "utimensat" => {
                let path = if call.arguments[1].starts_with('"') { call.path_at(0) } else { call.open_path(0) };
                self.mark(What::Metadata, path, now);
            }
            // It starts writing and makes nothing durable.
            "sync_file_range" => {}
            other => panic!("{other} is not known here: {call:?}"),
        }
    }

    fn mark(&mut self, what: What, path: PathBuf, since: usize) {
        // Pipes and terminals are no files.
        if !path.is_absolute() || path.starts_with("/dev/null") {
            return;
        }
        self.unsynced.retain(|change| !(change.what == what && change.path == path));
        self.unsynced.push(Unsynced { what, path, since });
    }

    fn opened(&mut self, path: PathBuf, now: usize) {
        if !self.present.contains(&path) {
            self.made(path, now);
        }
    }

    fn made(&mut self, path: PathBuf, now: usize) {
        self.present.insert(path.clone());
        self.moved.remove(&path);
        self.lengths.remove(&path);
        self.synced_lengths.remove(&path);
        self.mark(What::Name, path, now);
    }

    fn wrote(&mut self, path: PathBuf, bytes: Option<u64>, now: usize) {
        *self.lengths.entry(path.clone()).or_default() += bytes.unwrap_or(0);
        self.mark(What::Content, path, now);
    }

    fn linked(&mut self, existing: &Path, path: PathBuf, now: usize) {
        // Either name leads to the same bytes.
        let inherited: Vec<Unsynced> = self.unsynced_of_file(existing).cloned().collect();
        self.unsynced.extend(inherited.into_iter().map(|change| Unsynced { path: path.clone(), ..change }));
        self.made(path, now);
    }

    fn unsynced_of_file<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Unsynced> {
        self.unsynced
            .iter()
            .filter(move |change| change.path == path && matches!(change.what, What::Content | What::Metadata))
    }

    fn renamed(&mut self, from: &Path, to: &Path, now: usize) {
        self.replaced += usize::from(self.present.contains(to));
        self.forget(to);
        let moved = |path: &PathBuf| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.clone(),
        };
        self.present = self.present.iter().map(moved).collect();
        // A name that was durable is either still there after a cut, or the new one is.
        let never_was = self.unsynced.iter().any(|change| change.what == What::Name && change.path == from);
        self.unsynced.iter_mut().for_each(|change| change.path = moved(&change.path));
        self.mark(if never_was { What::Name } else { What::Gone }, from.to_owned(), now);
        self.mark(What::Name, to.to_owned(), now);
        self.moved.remove(to);
        self.moved.insert(from.to_owned(), to.to_owned());
    }

    fn removed(&mut self, path: &Path, now: usize) {
        self.forget(path);
        self.mark(What::Gone, path.to_owned(), now);
    }

    /// What was at a path is gone, and so is what was to be synced of it.
    fn forget(&mut self, path: &Path) {
        self.present.retain(|present| !present.starts_with(path));
        self.unsynced.retain(|change| !change.path.starts_with(path) || change.what == What::Gone);
    }

    fn sync(&mut self, call: &Call) {
        let began = self.earlier + call.begin;
        let everything = call.name == "sync";
        let place = if everything { PathBuf::from("/") } else { call.open_path(0) };
        let whole = everything || call.name == "syncfs";
        let mount = self.mount_of(&place).to_owned();
        let is_taken_along = |change: &Unsynced| match whole {
            true => everything || self.mount_of(&change.path) == mount,
            false if matches!(change.what, What::Name | What::Gone) => change.path.parent() == Some(&place),
            // fdatasync(2) leaves out the metadata that is not needed to read the bytes.
            false => change.path == place && (change.what == What::Content || call.name == "fsync"),
        };
        let (kept, synced): (Vec<Unsynced>, Vec<Unsynced>) =
            self.unsynced.iter().cloned().partition(|change| change.since >= began || !is_taken_along(change));
        for change in synced.iter().filter(|change| change.what == What::Content) {
            let length = self.lengths.get(&change.path).copied().unwrap_or(0);
            self.synced_lengths.insert(change.path.clone(), length);
        }
        self.unsynced = kept;
    }

    fn mount_of(&self, path: &Path) -> &Path {
        let above = self.mounts.iter().filter(|mount| path.starts_with(mount));
        above.max_by_key(|mount| mount.components().count()).map_or(Path::new("/"), PathBuf::as_path)
    }
}

fn is_sync(name: &str) -> bool {
    matches!(name, "fsync" | "fdatasync" | "syncfs" | "sync")
}

#[cfg(test)]
mod tests {
    use super::super::read_trace;
    use super::*;

    /// What is not durable after these calls.
    fn left(trace: &str) -> Vec<(What, String)> {
        let mut durability =
            Durability::before(["/m/old", "/m/base"].map(PathBuf::from).into(), vec![PathBuf::from("/other")]);
        let mut calls = read_trace(trace);
        calls.sort_by_key(|call| call.end);
        calls.iter().for_each(|call| durability.ended(call));
        let mut left: Vec<_> = durability
            .unsynced_beneath(Path::new("/"))
            .map(|change| (change.what, change.path.display().to_string()))
            .collect();
        left.sort();
        left
    }

    fn name(path: &str) -> (What, String) {
        (What::Name, path.to_owned())
    }

    fn gone(path: &str) -> (What, String) {
        (What::Gone, path.to_owned())
    }

    fn content(path: &str) -> (What, String) {
        (What::Content, path.to_owned())
    }

    #[test]
    fn a_new_file_needs_itself_and_its_directory_synced() {
        let make = "1 openat(3</m>, \"f\", O_RDWR|O_CREAT|O_EXCL, 0600) = 4</m/f>\n1 write(4</m/f>, \"x\", 1) = 1\n";
        assert_eq!(left(make), [content("/m/f"), name("/m/f")]);
        assert_eq!(left(&format!("{make}1 fdatasync(4</m/f>) = 0\n")), [name("/m/f")]);
        assert_eq!(left(&format!("{make}1 fsync(3</m>) = 0\n")), [content("/m/f")]);
        assert_eq!(left(&format!("{make}1 fsync(3</m>) = 0\n1 fdatasync(4</m/f>) = 0\n")), []);
        assert_eq!(left(&format!("{make}1 syncfs(3</m>) = 0\n")), []);
    }

    #[test]
    fn a_sync_that_fails_or_is_of_another_file_system_counts_for_nothing() {
        let write = "1 write(4</m/old>, \"x\", 1) = 1\n";
        assert_eq!(left(&format!("{write}1 syncfs(3</other/d>) = 0\n")), [content("/m/old")]);
        assert_eq!(left(&format!("{write}1 syncfs(3</m>) = -1 EIO (Input/output error)\n")), [content("/m/old")]);
        assert_eq!(left(&format!("{write}1 syncfs(3</m> <unfinished ...>\n")), [content("/m/old")]);
        assert_eq!(left(&format!("{write}1 fsync(3</m>) = 0\n")), [content("/m/old")]);
    }

    #[test]
    fn a_write_during_a_sync_is_not_covered_by_it() {
        let trace = "1 syncfs(3</m> <unfinished ...>\n2 write(4</m/old>, \"x\", 1) = 1\n1 <... syncfs resumed>) = 0\n";
        assert_eq!(left(trace), [content("/m/old")]);
        let begun_before =
            "2 write(4</m/old>, \"x\", 1 <unfinished ...>\n1 fdatasync(4</m/old>) = 0\n2 <... write resumed>) = 1\n";
        assert_eq!(left(begun_before), [content("/m/old")]);
    }

    #[test]
    fn what_is_unsynced_follows_renames_and_links() {
        let trace = "1 write(4</m/old>, \"x\", 1) = 1\n1 renameat(3</m>, \"old\", 3</m>, \"new\") = 0\n\
                     1 linkat(3</m>, \"new\", 3</m>, \"twin\", 0) = 0\n1 fdatasync(4</m/new>) = 0\n";
        assert_eq!(left(trace), [content("/m/twin"), name("/m/new"), name("/m/twin"), gone("/m/old")]);
        let directory = "1 mkdirat(3</m>, \"d\", 0700) = 0\n1 mkdirat(4</m/d>, \"e\", 0700) = 0\n\
                         1 renameat2(3</m>, \"d\", 3</m>, \"f\", RENAME_NOREPLACE) = 0\n1 fsync(3</m>) = 0\n";
        assert_eq!(left(directory), [name("/m/f/e")]);
    }

    #[test]
    fn the_metadata_of_a_file_needs_more_than_fdatasync() {
        let trace = "1 fchmod(4</m/old>, 0644) = 0\n1 fdatasync(4</m/old>) = 0\n";
        assert_eq!(left(trace), [(What::Metadata, "/m/old".to_owned())]);
        assert_eq!(left(&trace.replace("fdatasync", "fsync")), []);
    }

    #[test]
    fn what_is_removed_needs_no_sync_of_its_bytes() {
        let trace = "1 write(4</m/old>, \"x\", 1) = 1\n1 unlinkat(3</m>, \"old\", 0) = 0\n";
        assert_eq!(left(trace), [gone("/m/old")]);
        assert_eq!(left(&format!("{trace}1 fsync(3</m>) = 0\n")), []);
    }
}
