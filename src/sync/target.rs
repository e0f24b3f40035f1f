//! A directory that is restored into: it is empty, or holds the beginning of the same restore.
//!
//! While it is written to it has a state of its own, `.mailtwin`, with a note of what is being restored: a restore that was
//! killed is known again by it, and goes on. At the end the state is renamed, in one step, to a name that says the same,
//! and removed under that name: there is no moment at which a tree is not finished and nothing tells whose it is.

use super::SyncError;
use crate::disk::{FileKind, Root};
use crate::id::{Digest, hex};
use crate::maildir::entry::Time;
use crate::monitor::Problem;
use crate::path::{TreePath, escape};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The directory of the state.
pub const OWN: &str = ".mailtwin";

/// What a person should know where files keep the owner that runs this.
pub const NOT_ROOT: &str = "not root: files keep the owner that runs mailtwin";

/// The file that tells an unfinished restore from a standby, and which one it is.
const RESTORING: &str = "restoring";

/// A directory by the numbers of its device and its inode.
pub type DirectoryId = (u64, u64);

type Result<T> = std::result::Result<T, SyncError>;

/// A directory that is restored into, locked for as long as this lives.
pub struct Target {
    root: Arc<Root>,
    state: Root,
    /// Name of the state while it is being removed.
    leaving: String,
    _lock: OwnedFd,
}

impl Target {
    /// Opens the directory, made where only its last name is missing. `what` says what is restored: only the same words go
    /// on with what is unfinished. What lies in `standby` would become part of its mirror, and is refused.
    ///
    /// # Errors
    /// Where it is not empty, another run writes to it, or the disk refuses.
    pub fn open(path: &Path, what: &str, standby: Option<DirectoryId>) -> Result<Self> {
        if let Some(standby) = standby
            && Root::open_above(path)?.ancestry()?.contains(&standby)
        {
            let shown = escape(path.as_os_str().as_bytes());
            return refused(format!("{shown} lies in the standby: choose a directory elsewhere, or --in-place"));
        }
        let root = Arc::new(Root::open_or_make(path)?);
        let lock = super::receiver::lock(&root)?;
        let note = hex(&Digest::of(what.as_bytes()).0);
        let leaving = format!("{OWN}-{}", &note[..16]);
        let state = open_state(&root, &note, &leaving)?;
        // What was made must be known again, whatever becomes of the power.
        state.sync_directory(&TreePath::root())?;
        Ok(Self { root, state, leaving, _lock: lock })
    }

    /// The directory.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Its state, until the end.
    pub fn state(&self) -> &Root {
        &self.state
    }

    /// Everything is there, durably, and nothing uses the state any more: it goes. The directory gets its time. What fails
    /// after the state has gone is said, no more: another run would take the directory for somebody's.
    ///
    /// # Errors
    /// Where the state cannot be removed: another run does that.
    pub fn end(self, mtime: Option<Time>) -> Result<Vec<Problem>> {
        let (root, top) = (&self.root, TreePath::root());
        let leaving = top.child(&self.leaving);
        root.rename_directory(&top.child(OWN), &leaving)?;
        root.remove_directory(&leaving)?;
        let timed = mtime.map_or(Ok(()), |time| root.set_directory_time(&top, Some(time)));
        let failed = timed.and_then(|()| root.sync_directory(&top)).err();
        let problem = |error: crate::disk::DiskError| Problem {
            subject: error.path,
            reason: format!("{}: {}", error.operation, error.source),
        };
        Ok(failed.map(problem).into_iter().collect())
    }
}

fn refused<T>(sentence: String) -> Result<T> {
    Err(SyncError::Failed(sentence))
}

fn open_state(root: &Root, note: &str, leaving: &str) -> Result<Root> {
    let top = TreePath::root();
    let (listing, _) = root.list(&top, 16)?;
    let show = root.show(&top);
    let has = |name: &str| listing.entries.iter().any(|entry| entry.name.as_bytes() == name.as_bytes());
    if listing.entries.is_empty() {
        let state = root.make_own(OWN)?;
        write_note(&state, note)?;
        return Ok(state);
    }
    if has(leaving) && !has(OWN) {
        // Killed while its state was being removed. What is left of that is gone on with.
        write_note(&root.open_own(leaving)?, note)?;
        root.rename_directory(&top.child(leaving), &top.child(OWN))?;
        return Ok(root.open_own(OWN)?);
    }
    if !has(OWN) {
        return refused(format!("{show} is not empty: choose an empty directory"));
    }
    let state = root.open_own(OWN)?;
    let is_alone = listing.entries.len() == 1;
    match read_note(&state)? {
        // Nothing is there, whatever its catalogue says.
        Some(_) if is_alone => begin_anew(&state, note)?,
        Some(before) if before == note => {}
        Some(_) => {
            return refused(format!(
                "{show} holds the beginning of another restore: give the same command again, or choose an empty directory"
            ));
        }
        None if is_alone && state.list(&top, 16)?.0.entries.is_empty() => write_note(&state, note)?,
        None => {
            let reason = "has a .mailtwin, as a standby has";
            return refused(format!("{show} {reason}: choose an empty directory"));
        }
    }
    Ok(state)
}

/// Removes what another restore has left, its note last.
fn begin_anew(state: &Root, note: &str) -> Result<()> {
    let (listing, _) = state.list(&TreePath::root(), 16)?;
    for entry in listing.entries.iter().filter(|entry| entry.name.as_bytes() != RESTORING.as_bytes()) {
        let path = TreePath::root().join(&entry.name);
        match state.stat(&path)?.kind {
            FileKind::Directory => state.remove_directory(&path)?,
            _ => state.remove(&path)?,
        }
    }
    write_note(state, note)
}

fn read_note(state: &Root) -> Result<Option<String>> {
    let mut note = String::new();
    match state.open_file(&TreePath::root().child(RESTORING)) {
        // One that cannot be read is another's.
        Ok(file) => drop(file.take(4096).read_to_string(&mut note)),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    Ok(Some(note))
}

fn write_note(state: &Root, note: &str) -> Result<()> {
    let path = TreePath::root().child(RESTORING);
    if state.stat_if_there(&path)?.is_some() {
        state.remove(&path)?;
    }
    let mut writer = state.create(&path, 0o600)?;
    writer.write(note.as_bytes())?;
    Ok(writer.sync()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(path).expect("lists").map(|entry| entry.expect("an entry").file_name());
        entries.collect()
    }

    #[test]
    fn an_unfinished_restore_is_known_again_by_its_note_and_another_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let place = home.path().join("place");
        drop(Target::open(&place, "everything", None).expect("opens"));
        // Nothing has been restored yet: any other may begin.
        drop(Target::open(&place, "one mailbox", None).expect("opens"));
        std::fs::write(place.join("letter"), "x").expect("writes");
        drop(Target::open(&place, "one mailbox", None).expect("opens"));
        let refusal = Target::open(&place, "everything", None).err().expect("refused").to_string();
        assert!(refusal.contains("another restore"), "{refusal}");
    }

    #[test]
    fn one_that_was_killed_while_its_state_went_is_known_again() {
        let home = tempfile::tempdir().expect("a directory");
        let place = home.path().join("place");
        let target = Target::open(&place, "everything", None).expect("opens");
        std::fs::write(place.join("letter"), "x").expect("writes");
        let leaving = target.leaving.clone();
        drop(target);
        std::fs::rename(place.join(OWN), place.join(&leaving)).expect("renames");
        std::fs::remove_file(place.join(&leaving).join(RESTORING)).expect("removes");
        let refusal = Target::open(&place, "one mailbox", None).err().expect("refused").to_string();
        assert!(refusal.contains("not empty"), "{refusal}");
        let target = Target::open(&place, "everything", None).expect("opens");
        assert!(target.end(None).expect("ends").is_empty());
        assert_eq!(names(&place), ["letter"]);
    }

    #[test]
    fn two_at_once_are_told_apart() {
        let home = tempfile::tempdir().expect("a directory");
        let first = Target::open(&home.path().join("place"), "everything", None).expect("opens");
        let second = Target::open(&home.path().join("place"), "everything", None).err().expect("locked");
        assert_eq!(second.exit_code(), 10);
        drop(first);
    }
}
