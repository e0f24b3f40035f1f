//! Control files, read so that they belong together with the listing of their folder (DOVECOT.md 8.2),
//! and whether what was read of a unit is all of one time.

use super::{Diff, Found, Scanner, mark};
use crate::disk::{self, DiskError, FileKind};
use crate::maildir::control;
use crate::maildir::entry::Look;
use crate::maildir::name;
use crate::path::TreePath;
use std::io::Read as _;
use std::os::fd::AsFd;

/// Control files up to this many bytes are read together with the listing that they must match.
pub const CAPTURE_MAX: u64 = 8 << 20;

impl Scanner<'_> {
    /// Reads the control files that changed, after the listing that they must match.
    pub(super) fn capture(&self, diff: &mut Diff, is_folder: bool) {
        let mut kept = Vec::with_capacity(diff.files.len());
        for mut found in std::mem::take(&mut diff.files) {
            let small = found.stat.kind == FileKind::File && found.stat.size <= CAPTURE_MAX;
            if !is_folder || !small {
                kept.push(found);
                continue;
            }
            match self.read_captured(&mut found) {
                Ok(Read::Whole) => kept.push(found),
                Ok(Read::Odd) => {
                    diff.odd = true;
                    kept.push(found);
                }
                Ok(Read::Moving) => diff.torn.push(found.path),
                Err(error) if error.is_not_found() => diff.torn.push(found.path),
                Err(error) => diff.failed.push(error),
            }
        }
        diff.files = kept;
    }

    /// Reads a control file, and tells whether it can be taken.
    fn read_captured(&self, found: &mut Found) -> std::result::Result<Read, DiskError> {
        let file = self.root.open_file(&found.path)?;
        let failed = |source| DiskError { operation: "cannot read", path: self.root.show(&found.path), source };
        let mut bytes = Vec::with_capacity(found.stat.size as usize);
        (&file).take(CAPTURE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        let stat = disk::stat_file(&file).map_err(failed)?;
        found.meta.xattrs = disk::read_xattrs(file.as_fd()).map_err(failed)?;
        let whole = found.path.name() != b"dovecot-uidlist" || control::check_uidlist(&bytes).is_ok();
        let same = (stat.ino, mark(&stat)) == (found.stat.ino, mark(&found.stat));
        found.stat = stat;
        found.captured = Some(bytes);
        Ok(match (same, whole) {
            (true, true) => Read::Whole,
            (true, false) => Read::Odd,
            (false, _) => Read::Moving,
        })
    }

    /// Whether nothing moved while the unit was read, and its names use no keyword that is not defined.
    pub(super) fn is_settled(&self, diff: &Diff) -> bool {
        if diff.is_empty() || diff.listed == 0 && diff.files.is_empty() {
            return true;
        }
        let same_look = |(path, look): &(TreePath, Look)| {
            path.name() == b"tmp" || self.root.stat(path).is_ok_and(|stat| stat.look() == Look { racy: false, ..*look })
        };
        let same_file = |found: &Found| {
            found.captured.is_none()
                || self
                    .root
                    .stat(&found.path)
                    .is_ok_and(|stat| (stat.ino, mark(&stat)) == (found.stat.ino, mark(&found.stat)))
        };
        diff.looks.iter().all(same_look) && diff.files.iter().all(same_file) && self.keywords_defined(diff)
    }

    /// A new keyword's letter appears in a name before the file that defines it is written.
    fn keywords_defined(&self, diff: &Diff) -> bool {
        let renamed = diff.renamed.iter().map(|(_, _, path)| path);
        let used = diff
            .messages
            .iter()
            .map(|found| &found.path)
            .chain(renamed)
            .flat_map(|path| name::keywords(path.name()))
            .fold(0_u32, |letters, letter| letters | 1 << (letter - b'a'));
        if used == 0 {
            return true;
        }
        let captured = diff.files.iter().find(|found| found.path.name() == b"dovecot-keywords");
        let defined = match captured.and_then(|found| found.captured.as_deref()) {
            Some(bytes) => control::defined_keywords(bytes),
            None => self.defined_on_disk(&diff.path.child("dovecot-keywords")),
        };
        used & !defined == 0
    }

    fn defined_on_disk(&self, path: &TreePath) -> u32 {
        let mut bytes = Vec::new();
        match self.root.open_file(path) {
            Ok(file) => match file.take(CAPTURE_MAX).read_to_end(&mut bytes) {
                Ok(_) => control::defined_keywords(&bytes),
                Err(_) => u32::MAX,
            },
            // Another server's mail: letters mean what they mean there.
            Err(_) => u32::MAX,
        }
    }
}

/// What reading a control file showed.
enum Read {
    /// It can be taken.
    Whole,
    /// It is a uidlist that breaks the rules.
    Odd,
    /// It changed meanwhile.
    Moving,
}
