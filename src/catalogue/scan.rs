//! Holding the catalogue against a tree: what appeared, changed, was renamed, vanished.
//!
//! The unit is a Maildir folder (its directory, `new`, `cur`, `tmp`), or a single directory elsewhere. An
//! unchanged unit costs one `statx` for each directory and each control file, and lists nothing: a message
//! is immutable, so its directory's times tell of every arrival, rename and removal (DESIGN section 4).
//!
//! A changed folder is read so that what was read belongs together (DOVECOT.md 8.2): `new` before `cur`, so
//! that a message on its way is seen at least once; the control files after both; then all looked at again.
//!
//! A look goes through the rooms in this order: `quick` (is all as recorded? `sketch` tells it of a whole tree), `sight`
//! (a directory), `messages`, `files`, `capture` (control files; does it belong together?). Nothing is decided here about
//! what to do: [`Diff`] is a value.

use super::directory::{self, Directory, Row, is_paged};
use super::edit::Edit;
use super::filter::Filter;
use super::store::CatalogueError;
use crate::disk::{Dirent, DiskError, FileKind, Root, Stat};
use crate::maildir::entry::{Entry, Kind, Known, Mark};
use crate::maildir::folder::{self, SetKind};
use crate::path::{Name, TreePath};
use sight::Sight;

mod capture;
mod diff;
mod files;
mod messages;
mod quick;
mod sight;
pub mod sketch;

pub use capture::CAPTURE_MAX;
pub use diff::{Diff, Found, Renamed};
pub use messages::chase;
pub use quick::{Check, Expected};
pub use sight::is_racy;

/// How often a folder that changes under the eyes is read again before what was seen is taken.
const TRIES: usize = 5;

/// How often it is read again for a control file that is being written: without it the folder has to wait for the next
/// run.
const TORN_TRIES: usize = 40;

/// How long to leave the writer of a uidlist that is not whole.
const WRITING: std::time::Duration = std::time::Duration::from_millis(3);

/// How a tree is to be looked at.
#[derive(Debug)]
pub struct Rules {
    /// What kind of tree it is.
    pub kind: SetKind,
    /// What belongs to it.
    pub filter: Filter,
    /// Owners as they are to be on the slave; `None` leaves each as it is.
    pub chown: Option<(Option<u32>, Option<u32>)>,
    /// Owners count. On a mirror that an ordinary user keeps they cannot be set, so they do not.
    pub owners: bool,
    /// A name that is known is taken for the message that it names: for a mirror, which nobody else writes.
    pub trust_names: bool,
    /// Look at every file, though its directory has not changed: the rules are others than last time.
    pub restat: bool,
    /// Read every content again.
    pub checksum: bool,
}

/// The recorded rows of a unit.
#[derive(Debug, Default)]
pub struct UnitRows {
    /// The directory's own.
    pub directory: Option<Row>,
    /// Those of `new`, `cur` and `tmp`.
    pub parts: [Option<Row>; 3],
}

/// Looks at units of one tree.
pub struct Scanner<'a> {
    /// The tree.
    pub root: &'a Root,
    /// How to look.
    pub rules: &'a Rules,
    /// The tree is on a local file system.
    pub local: bool,
}

type Result<T> = std::result::Result<T, CatalogueError>;

impl<'a> Scanner<'a> {
    /// A scanner of a tree.
    pub fn new(root: &'a Root, rules: &'a Rules) -> Self {
        Self { root, rules, local: root.is_local() }
    }

    /// Looks at one unit. `None` where its directory is gone.
    ///
    /// # Errors
    /// Where the catalogue cannot be read. What cannot be read of the tree is in [`Diff::failed`].
    pub fn unit(&self, path: &TreePath, rows: &UnitRows, edit: &mut Edit<'_>) -> Result<Option<Diff>> {
        for tries in 1.. {
            let mut diff = Diff { path: path.clone(), ..Diff::default() };
            match self.try_unit(path, rows, edit, &mut diff) {
                Ok(()) => {}
                Err(NotRead::Gone) => return Ok(None),
                Err(NotRead::Catalogue(error)) => return Err(error),
                Err(NotRead::Unreadable(error)) => {
                    diff = Diff { path: path.clone(), failed: vec![error], ..Diff::default() };
                    return Ok(Some(diff));
                }
            }
            let settled = self.is_settled(&diff);
            if settled || tries >= TRIES {
                diff.uncertain = diff.uncertain || !settled && !self.local;
                // One that stays as it is, tried again and again, is what the master has; its mail server will
                // see to it.
                let most = if diff.torn.is_empty() { TRIES } else { TORN_TRIES };
                if diff.torn.is_empty() && !diff.odd || tries >= most {
                    return Ok(Some(diff));
                }
            }
            // A control file is not whole for as long as its writer takes: look again, a moment later.
            if diff.odd || !diff.torn.is_empty() {
                std::thread::sleep(WRITING);
            }
        }
        Ok(None)
    }

    fn try_unit(
        &self,
        path: &TreePath,
        rows: &UnitRows,
        edit: &mut Edit<'_>,
        diff: &mut Diff,
    ) -> std::result::Result<(), NotRead> {
        let row = rows.directory.as_ref();
        let sight = self.sight(path, row, is_paged(path))?;
        let known = self.recorded(path, row, edit)?;
        let names = self.names(path, &sight, &known, diff);
        let is_folder = self.is_folder(&names);
        self.directory(path, &sight, row, Some(self.time_of(&sight, row)), diff);
        if is_folder {
            self.parts(path, rows, edit, diff)?;
        }
        for (name, kind) in &names {
            if *kind == FileKind::Directory && !(is_folder && folder::is_part(name.as_bytes())) {
                diff.subdirectories.push(path.join(name));
            }
        }
        diff.subdirectories.sort_by_cached_key(directory::key);
        // The control files come after the listings, which they must match.
        self.examine(path, &sight, &known, &names, diff);
        self.capture(diff, is_folder);
        Ok(())
    }

    /// Names and kinds of what is in a plain directory and belongs to the set: as listed, or as recorded.
    fn names(&self, path: &TreePath, sight: &Sight, known: &[Known], diff: &mut Diff) -> Vec<(Name, FileKind)> {
        let Some(listing) = &sight.listing else {
            return known.iter().map(|known| (known.entry.name.clone(), kind_of(&known.entry))).collect();
        };
        let mut names = Vec::with_capacity(listing.len());
        for entry in listing {
            if path.is_root() && entry.name.as_bytes() == crate::path::RESERVED {
                continue;
            }
            let at = path.join(&entry.name);
            let kind = match entry.kind {
                Some(kind) => kind,
                None => match self.root.stat(&at) {
                    Ok(stat) => stat.kind,
                    Err(_) => continue,
                },
            };
            if !self.rules.filter.takes(&at, kind == FileKind::Directory) {
                continue;
            }
            if kind == FileKind::Special {
                diff.special.push(at);
            } else {
                names.push((entry.name.clone(), kind));
            }
        }
        names
    }

    fn is_folder(&self, names: &[(Name, FileKind)]) -> bool {
        let has =
            |part: &[u8]| names.iter().any(|(name, kind)| name.as_bytes() == part && *kind == FileKind::Directory);
        self.rules.kind == SetKind::Maildir && has(b"cur") && has(b"new")
    }

    fn recorded(
        &self,
        path: &TreePath,
        row: Option<&Row>,
        edit: &mut Edit<'_>,
    ) -> std::result::Result<Vec<Known>, NotRead> {
        match row {
            Some(row) if !is_paged(path) => Ok(row.entries.clone()),
            Some(_) => Ok(edit.directory(path)?.map(entries).unwrap_or_default()),
            None => Ok(Vec::new()),
        }
    }
}

/// Why a unit could not be read.
enum NotRead {
    Gone,
    Unreadable(DiskError),
    Catalogue(CatalogueError),
}

impl From<DiskError> for NotRead {
    fn from(error: DiskError) -> Self {
        if error.is_not_found() { Self::Gone } else { Self::Unreadable(error) }
    }
}

impl From<CatalogueError> for NotRead {
    fn from(error: CatalogueError) -> Self {
        Self::Catalogue(error)
    }
}

fn entries(directory: &Directory) -> Vec<Known> {
    directory.entries.values().cloned().collect()
}

fn kind_of(entry: &Entry) -> FileKind {
    match entry.kind {
        Kind::Directory => FileKind::Directory,
        Kind::File(_) => FileKind::File,
        Kind::Symlink(_) => FileKind::Symlink,
    }
}

/// Size and time of what was seen; a link's length says nothing that its target does not.
pub fn mark(stat: &Stat) -> Mark {
    let size = if stat.kind == FileKind::File { stat.size } else { 0 };
    Mark { size, mtime: stat.mtime }
}

/// Walks what is recorded and what was seen, both in order of name, side by side.
fn merge<'a>(
    known: impl Iterator<Item = &'a Known>,
    seen: Vec<Dirent>,
    mut each: impl FnMut(Option<&'a Known>, Option<Dirent>),
) {
    let (mut known, mut seen) = (known.peekable(), seen.into_iter().peekable());
    loop {
        let order = match (known.peek(), seen.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(known), Some(seen)) => known.entry.name.cmp(&seen.name),
        };
        match order {
            std::cmp::Ordering::Less => each(known.next(), None),
            std::cmp::Ordering::Equal => each(known.next(), seen.next()),
            std::cmp::Ordering::Greater => each(None, seen.next()),
        }
    }
}
