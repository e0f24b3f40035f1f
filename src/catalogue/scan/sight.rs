//! One directory as it is seen: its state, its names where its record does not show them, its metadata.

use super::{Diff, NotRead, Scanner};
use crate::catalogue::directory::Row;
use crate::disk::{Dirent, FileKind, Stat, now};
use crate::maildir::entry::{Look, Meta, Time, Xattr};
use crate::maildir::folder::{self, SetKind};
use crate::path::TreePath;

/// Times this close to now may hide a later change: kernels stamp files with a clock that ticks every 1 to 10 ms.
const RACY_FINE: i128 = 100_000_000;

/// The same where the file system keeps whole seconds.
const RACY_COARSE: i128 = 2_100_000_000;

/// A directory as it was seen: its state, and its names where it was listed.
pub(super) struct Sight {
    pub(super) stat: Stat,
    pub(super) look: Look,
    pub(super) listing: Option<Vec<Dirent>>,
    pub(super) at_once: bool,
    pub(super) xattrs: Option<Vec<Xattr>>,
    /// Permissions or owners of the directory changed: those of its files may have, too.
    pub(super) restat: bool,
}

impl Scanner<'_> {
    /// Looks at a directory, and lists it where its record does not show what is in it.
    pub(super) fn sight(
        &self,
        path: &TreePath,
        row: Option<&Row>,
        checked: bool,
    ) -> std::result::Result<Sight, NotRead> {
        let stat = self.root.stat(path).map_err(NotRead::from)?;
        if stat.kind != FileKind::Directory {
            return Err(NotRead::Gone);
        }
        let mut look = stat.look();
        look.racy = is_racy(&stat);
        let before = row.and_then(|row| row.look);
        let unchanged = before.is_some_and(|before| !before.racy && before == Look { racy: false, ..look });
        let rules_changed = self.rules.restat || checked && self.rules.checksum;
        if unchanged && !rules_changed {
            return Ok(Sight { stat, look, listing: None, at_once: true, xattrs: None, restat: false });
        }
        let restat = before.is_some_and(|before| before.mtime == look.mtime && before.ctime != look.ctime);
        let expected = row.map_or(64, |row| row.count as usize + 64);
        let (listing, xattrs) = self.root.list(path, expected).map_err(NotRead::from)?;
        Ok(Sight {
            stat,
            look,
            listing: Some(listing.entries),
            at_once: listing.at_once && self.local,
            xattrs: Some(xattrs),
            restat: restat || rules_changed,
        })
    }

    /// A directory's time. Where a mail server uses the mirror it makes and removes its own files beside the
    /// mail all the time: what it does to the directory's time is no difference.
    pub(super) fn time_of(&self, sight: &Sight, row: Option<&Row>) -> Time {
        let is_server_file = |entry: &Dirent| folder::is_server_log(entry.name.as_bytes());
        let is_served = self.rules.trust_names
            && self.rules.kind == SetKind::Maildir
            && sight.listing.as_ref().is_some_and(|listing| listing.iter().any(is_server_file));
        let recorded = row.and_then(|row| row.meta.mtime).filter(|_| is_served);
        recorded.unwrap_or(sight.stat.mtime)
    }

    /// Notes a directory: its look, and its metadata where that is new.
    pub(super) fn directory(
        &self,
        path: &TreePath,
        sight: &Sight,
        row: Option<&Row>,
        mtime: Option<Time>,
        diff: &mut Diff,
    ) {
        diff.listed += u64::from(sight.listing.is_some());
        if row.is_none_or(|row| row.look != Some(sight.look)) {
            diff.looks.push((path.clone(), sight.look));
        }
        let xattrs = match (&sight.xattrs, row) {
            (Some(xattrs), _) => xattrs.clone(),
            (None, Some(row)) => row.meta.xattrs.clone(),
            (None, None) => Vec::new(),
        };
        let known = row.map(|row| &row.meta);
        let meta = self.meta(&sight.stat, mtime, xattrs, known);
        if known != Some(&meta) {
            diff.new_directories += usize::from(known.is_none());
            diff.directories.push((path.clone(), meta));
        }
    }

    pub(super) fn meta(&self, stat: &Stat, mtime: Option<Time>, xattrs: Vec<Xattr>, known: Option<&Meta>) -> Meta {
        let mut meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime, xattrs };
        if let Some((uid, gid)) = self.rules.chown {
            (meta.uid, meta.gid) = (uid.unwrap_or(meta.uid), gid.unwrap_or(meta.gid));
        }
        if let (false, Some(known)) = (self.rules.owners, known) {
            (meta.uid, meta.gid) = (known.uid, known.gid);
        }
        // No mail server needs a program in a mailbox that runs as its owner.
        if self.rules.kind == SetKind::Maildir && stat.kind == FileKind::File {
            meta.mode &= !0o6000;
        }
        meta
    }
}

/// Whether a file or directory was changed so lately that another change may not show in its times.
pub fn is_racy(stat: &Stat) -> bool {
    let coarse = stat.ctime.nanos == 0 && stat.mtime.nanos == 0;
    let margin = if coarse { RACY_COARSE } else { RACY_FINE };
    // A time in the future proves nothing either; but one far ahead would mean listing for ever.
    let age = stat.mtime.max(stat.ctime).until(now());
    age < margin && age > -3_600_000_000_000
}
