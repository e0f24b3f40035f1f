//! Room that is held back, so that restore points can be removed from a disk that is full.
//!
//! Removing takes a little room itself: a name in a directory, a record in the file system's journal, blocks that are
//! copied before they are written. So a standby with history keeps a file that has blocks and means nothing. It goes
//! when `expire` meets a full disk, and is made anew at the end.

use super::layout::RepositoryError;
use crate::disk::{DiskError, Root};
use crate::path::TreePath;

/// Bytes that are held back: far more than a few directories and their journal take, and little beside any mail.
pub const LENGTH: u64 = 4 << 20;

fn path() -> TreePath {
    TreePath::root().child("reserve")
}

/// Makes the reserve where it is missing, or has not all of its blocks. The repository's lock must be held.
///
/// # Errors
/// Where the disk refuses; there is no reserve then, and no half of one.
pub fn hold(state: &Root) -> Result<(), DiskError> {
    match state.stat_if_there(&path())? {
        Some(stat) if stat.size >= LENGTH && !stat.is_sparse() => return Ok(()),
        Some(_) => state.remove(&path())?,
        None => {}
    }
    let made = make(state);
    if made.is_err() {
        // Whoever took the last room has a better use for it.
        let _ = state.remove(&path());
    }
    made
}

fn make(state: &Root) -> Result<(), DiskError> {
    let mut writer = state.create(&path(), 0o600)?;
    writer.allocate(LENGTH)?;
    writer.sync()?;
    state.sync_directory(&TreePath::root())
}

/// Does something, and where the disk is full once more without the reserve. What is done must bear to be done again.
///
/// # Errors
/// Those of `act`.
pub fn with_room<T>(state: &Root, mut act: impl FnMut() -> Result<T, RepositoryError>) -> Result<T, RepositoryError> {
    match act() {
        Err(error) if error.is_full() && release(state) => act(),
        other => other,
    }
}

/// Lets the reserve go; `false` where there is none.
fn release(state: &Root) -> bool {
    // Some file systems give blocks back only when it is durable that nobody has them.
    state.remove(&path()).and_then(|()| state.sync_directory(&TreePath::root())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root::open(directory.path()).expect("opens");
        (directory, root)
    }

    #[test]
    fn the_reserve_has_blocks_and_one_without_them_is_made_anew() {
        let (directory, state) = state();
        hold(&state).expect("is made");
        let first = state.stat(&path()).expect("is there");
        assert!(first.size == LENGTH && !first.is_sparse(), "{first:?}");
        hold(&state).expect("is there");
        assert_eq!(state.stat(&path()).expect("is there").ino, first.ino);
        let file = std::fs::File::create(directory.path().join("reserve")).expect("emptied");
        file.set_len(LENGTH).expect("a hole");
        hold(&state).expect("is made anew");
        let again = state.stat(&path()).expect("is there");
        assert!(again.size == LENGTH && !again.is_sparse(), "{again:?}");
    }

    fn full() -> RepositoryError {
        let source = std::io::Error::from(rustix::io::Errno::NOSPC);
        DiskError { operation: "cannot rename", path: "x".to_owned(), source }.into()
    }

    #[test]
    fn the_reserve_goes_when_the_disk_is_full_and_for_nothing_else() {
        let (_directory, state) = state();
        hold(&state).expect("is made");
        let other = with_room(&state, || Err::<(), _>(RepositoryError::Failed("no".to_owned())));
        assert!(other.is_err() && state.stat(&path()).is_ok());
        let mut calls = 0;
        let done = with_room(&state, || {
            calls += 1;
            if calls == 1 { Err(full()) } else { Ok(calls) }
        });
        assert!(matches!(done, Ok(2)) && state.stat(&path()).is_err());
        let without = with_room(&state, || Err::<(), _>(full()));
        assert!(without.is_err_and(|error| error.is_full()));
    }
}
