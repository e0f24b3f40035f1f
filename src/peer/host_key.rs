//! The file that holds this host's key: made on first use, and readable by its owner only.

use super::{names, undo};
use crate::disk::{DiskError, FileKind, Root, stat_file};
use crate::path::escape;
use crate::transport::key::{HostKey, KeyError};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The file, where nobody names another.
pub const DEFAULT_FILE: &str = "/etc/mailtwin/key";

/// Longest file that is read: a key takes some hundred bytes.
const LONGEST: u64 = 64 << 10;

/// Permission bits by which anybody but the owner could read or change the key.
pub const OTHERS: u16 = 0o077;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is in it.
    #[error("the key {0}: {1}; put it back from a backup, or remove it and pair again")]
    Key(String, KeyError),
    /// It is a key of another program.
    #[error("the key {0} is one of ssh, not of mailtwin: name another file with --key")]
    Ssh(String),
    /// Others may read it.
    #[error(
        "the key {0} may be read by others (mode {1:o}): chmod 600 {0}; where others may have had it, remove it and pair again"
    )]
    Readable(String, u16),
    /// It is another's.
    #[error("the key {0} belongs to user {1}, this is user {2}: chown it, or name another file with --key")]
    Owner(String, u32, u32),
    /// It is no file that can be a key.
    #[error("the key {0} is {1}: name a file with --key")]
    NoFile(String, &'static str),
}

type Result<T> = std::result::Result<T, HostKeyError>;

/// Reads this host's key, making it where there is none.
///
/// # Errors
/// Where it cannot be read or made, or others may read it.
pub fn load_or_make(path: &Path) -> Result<HostKey> {
    match load(path)? {
        Some(key) => Ok(key),
        None => make(path),
    }
}

/// Reads this host's key; `None` where there is none.
///
/// # Errors
/// Where it cannot be read, or others may read it.
pub fn load(path: &Path) -> Result<Option<HostKey>> {
    let show = escape(path.as_os_str().as_bytes());
    let Some((directory, name, _)) = names(path) else { return Err(no_file(path)) };
    let root = match Root::open(directory) {
        Err(error) if error.is_not_found() => return Ok(None),
        root => root?,
    };
    match root.stat_if_there(&name)? {
        None => return Ok(None),
        Some(stat) if stat.kind != FileKind::File => return Err(HostKeyError::NoFile(show, "no regular file")),
        Some(_) => {}
    }
    let file = root.open_file(&name)?;
    let failed = |source| DiskError { operation: "cannot read", path: show.clone(), source };
    let stat = stat_file(&file).map_err(failed)?;
    if stat.mode & OTHERS != 0 {
        return Err(HostKeyError::Readable(show, stat.mode));
    }
    let own = rustix::process::geteuid().as_raw();
    if stat.uid != own {
        return Err(HostKeyError::Owner(show, stat.uid, own));
    }
    let mut pem = String::new();
    file.take(LONGEST).read_to_string(&mut pem).map_err(failed)?;
    if pem.contains("OPENSSH PRIVATE KEY") {
        return Err(HostKeyError::Ssh(show));
    }
    HostKey::from_pem(&pem).map(Some).map_err(|error| HostKeyError::Key(show, error))
}

/// The key has its name only when it is whole, and never takes the place of another.
fn make(path: &Path) -> Result<HostKey> {
    let show = escape(path.as_os_str().as_bytes());
    let Some((directory, name, draft)) = names(path) else { return Err(no_file(path)) };
    let wrong = |error| HostKeyError::Key(show.clone(), error);
    let key = HostKey::fresh().map_err(wrong)?;
    let pem = key.pem().map_err(wrong)?;
    let root = Root::open_or_make(directory)?;
    let busy = HostKeyError::NoFile(show.clone(), "being made by another run of mailtwin: run this again");
    let mut writer = root.draft(&draft)?.ok_or(busy)?;
    let written = writer.write(pem.as_bytes()).and_then(|()| writer.sync());
    undo(&root, &draft, written)?;
    match undo(&root, &draft, root.rename_to_free(&draft, &name)) {
        // Another run was faster: its key is this host's.
        Err(error) if error.already_exists() => load(path)?.ok_or(HostKeyError::Disk(error)),
        renamed => {
            renamed?;
            root.sync_directory(&crate::path::TreePath::root())?;
            Ok(key)
        }
    }
}

fn no_file(path: &Path) -> HostKeyError {
    HostKeyError::NoFile(escape(path.as_os_str().as_bytes()), "no name of a file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("etc").join("key");
        assert!(load(&path).expect("looks").is_none());
        let made = load_or_make(&path).expect("makes");
        assert_eq!(load_or_make(&path).expect("reads").public(), made.public());
        let metadata = std::fs::metadata(&path).expect("is there");
        assert_eq!(metadata.mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(home.path().join("etc")).expect("lists").count(), 1, "no draft is left");
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let error = load_or_make(&path).expect_err("others may read it").to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_never_replaced() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("key");
        std::fs::write(&path, "mail").expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        assert!(matches!(load_or_make(&path), Err(HostKeyError::Key(..))));
        assert_eq!(std::fs::read(&path).expect("reads"), b"mail");
        std::fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----").expect("writes");
        assert!(matches!(load_or_make(&path), Err(HostKeyError::Ssh(_))));
        symlink("key", home.path().join("link")).expect("links");
        assert!(matches!(load_or_make(&home.path().join("link")), Err(HostKeyError::NoFile(..))));
        assert!(matches!(load_or_make(home.path()), Err(HostKeyError::NoFile(..))));
    }

    #[test]
    fn hosts_that_are_started_twice_at_once_have_one_key() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| load_or_make(&path))).collect();
            threads.into_iter().filter_map(|thread| thread.join().expect("no panic").ok()).collect()
        });
        let kept = load(&path).expect("reads").expect("is there").public();
        assert!(!keys.is_empty() && keys.iter().all(|key| key.public() == kept));
    }
}
