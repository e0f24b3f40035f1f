//! A folder's lock, as Dovecot takes it (DOVECOT.md 2).

use super::{Hand, Result, is_fatal, is_structure};
use crate::disk::{self, DiskError};
use crate::maildir::change::Change;
use crate::maildir::entry::Meta;
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::sync::staging::Staging;
use std::io::Read;
use std::time::{Duration, Instant};

/// Dovecot overrides a lock that has not been touched for two minutes.
const LOCK_STALE: Duration = Duration::from_secs(120);

/// How long the hand waits for a folder that a mail server holds.
const LOCK_WAIT: Duration = Duration::from_secs(10);

impl Hand {
    /// Takes a folder's lock as Dovecot takes it. `None` where there is nothing to lock, or it cannot be had.
    pub(super) fn lock_folder(&mut self, unit: &TreePath, changes: &[Change]) -> Result<Option<TreePath>> {
        if changes.iter().all(is_structure) {
            return Ok(None);
        }
        // A folder without a uidlist has never been opened, or is being made right now.
        let uidlist = unit.child("dovecot-uidlist");
        let Some(stat) = self.mirror.stat_if_there(&uidlist)? else { return Ok(None) };
        let lock = unit.child("dovecot-uidlist.lock");
        // Written beside the mirror and linked into place, so that nobody sees it empty. It stays there for the next
        // folder; and after a power cut, which may take its content, it tells whose the lock was.
        let temporary = temporary();
        let owner = (stat.uid, stat.gid);
        if self.lock_owner != Some(owner) {
            self.lock_owner = None;
            match self.write_lock(&temporary, &Meta { mode: 0o600, uid: owner.0, gid: owner.1, ..Meta::default() }) {
                Ok(()) => self.lock_owner = Some(owner),
                Err(error) if is_fatal(&error) => return Err(error.into()),
                // No permission in the folder: what is to be done in it will say so.
                Err(_) => return Ok(None),
            }
        }
        let taken = self.link_lock(&temporary, &lock);
        match taken? {
            true => Ok(Some(lock)),
            false => {
                let subject = self.mirror.show(&lock);
                let reason = "a mail server held this lock all the time: the folder was changed without it".to_owned();
                self.problems.push(Problem { subject, reason });
                Ok(None)
            }
        }
    }

    /// Removes the lock's file: no folder is locked any more.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn put_lock_away(&mut self) -> Result<()> {
        if self.lock_owner.take().is_some() {
            self.staging.root().remove(&temporary())?;
        }
        Ok(())
    }

    fn write_lock(&self, temporary: &TreePath, meta: &Meta) -> std::result::Result<(), DiskError> {
        let root = self.staging.root();
        let mut writer = match root.create(temporary, 0o600) {
            Err(error) if error.already_exists() => {
                root.remove(temporary)?;
                root.create(temporary, 0o600)?
            }
            other => other?,
        };
        writer.write(format!("{}:{}", std::process::id(), host_name()).as_bytes())?;
        // Dovecot watches the file, as the mail user.
        root.set_fresh_meta(temporary, meta, 0o600).map(drop)
    }

    fn link_lock(&mut self, temporary: &TreePath, lock: &TreePath) -> Result<bool> {
        let begin = Instant::now();
        loop {
            match self.staging.root().link_into(temporary, &self.mirror, lock) {
                Ok(()) => return Ok(true),
                Err(error) if !error.already_exists() => return Err(error.into()),
                Err(_) if self.is_stale(lock) => {
                    self.leftover_lock = None;
                    match self.mirror.remove(lock) {
                        Err(error) if !error.is_not_found() => return Err(error.into()),
                        _ => {}
                    }
                }
                Err(_) if begin.elapsed() > LOCK_WAIT => return Ok(false),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Whether a lock's owner is gone: same host and no such process, or two minutes without a touch.
    fn is_stale(&self, lock: &TreePath) -> bool {
        let Ok(Some(stat)) = self.mirror.stat_if_there(lock) else { return false };
        if self.leftover_lock == Some(stat.ino) {
            return true;
        }
        if disk::now().seconds - stat.ctime.seconds > LOCK_STALE.as_secs() as i64 {
            return true;
        }
        let mut text = String::new();
        let read = self.mirror.open_file(lock).ok().and_then(|file| file.take(300).read_to_string(&mut text).ok());
        let owner = read.and_then(|_| text.trim().split_once(':'));
        owner.is_some_and(|(pid, host)| host == host_name() && !is_running(pid))
    }
}

/// Where the lock's file is, among what is staged.
fn temporary() -> TreePath {
    TreePath::root().child("uidlist.lock")
}

/// The inode number of the lock that an earlier process may have left in a folder.
pub(super) fn leftover(staging: &Staging) -> Option<u64> {
    let stat = staging.root().stat_if_there(&temporary()).ok().flatten()?;
    // One that has no other name is in no folder, and its number will be another file's.
    (stat.links > 1).then_some(stat.ino)
}

fn is_running(pid: &str) -> bool {
    let number = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    match number {
        Some(pid) => rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH),
        None => true,
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
