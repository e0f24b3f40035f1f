//! Holding the catalogue against a tree: what appeared, changed, was renamed, vanished.
//!
//! The unit is a Maildir folder (its directory, `new`, `cur`, `tmp`), or a single directory elsewhere. An
//! unchanged unit costs one `statx` for each directory and each control file, and lists nothing: a message
//! is immutable, so its directory's times tell of every arrival, rename and removal (DESIGN section 4).
//!
//! A changed folder is read so that what was read belongs together (DOVECOT.md 8.2): `new` before `cur`, so
//! that a message on its way is seen at least once; the control files after both; then all looked at again.
//!
//! This file decides nothing about what to do: [`Diff`] is a value.

use super::directory::{Directory, Row, is_paged};
use super::edit::Edit;
use super::filter::Filter;
use super::store::CatalogueError;
use crate::disk::{self, Dirent, DiskError, FileKind, Root, Stat};
use crate::maildir::control;
use crate::maildir::entry::{Entry, Kind, Known, Local, Look, Mark, Meta, Time, Xattr};
use crate::maildir::folder::{self, SetKind};
use crate::maildir::name;
use crate::path::{Name, TreePath};
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::os::fd::AsFd;

/// How often a folder that changes under the eyes is read again before what was seen is taken.
const TRIES: usize = 5;

/// How long to leave the writer of a uidlist that is not whole.
const WRITING: std::time::Duration = std::time::Duration::from_millis(3);

/// Control files up to this many bytes are read together with the listing that they must match.
pub const CAPTURE_MAX: u64 = 8 << 20;

/// A file of which only the change time moved is read again up to this size; above, size and time decide.
const REREAD_MAX: u64 = 1 << 20;

/// Times this close to now may hide a later change: kernels stamp files with a clock that ticks every 1 to 10 ms.
const RACY_FINE: i128 = 100_000_000;

/// The same where the file system keeps whole seconds.
const RACY_COARSE: i128 = 2_100_000_000;

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

/// A file that was seen and has to be read, or known in some other way.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub path: TreePath,
    /// As it was seen.
    pub stat: Stat,
    /// Metadata as it is to be on the slave; attributes are read with the content unless they are here.
    pub meta: Meta,
    /// What is recorded under this name, where something is.
    pub known: Option<Known>,
    /// The content, where it had to be read together with a listing.
    pub captured: Option<Vec<u8>>,
    /// A symbolic link's target.
    pub target: Option<Vec<u8>>,
    /// The content number under which it is shipped; 0 before there is one.
    pub number: u64,
}

/// A file under a new name: what it was called, what is recorded of it, what it is called.
pub type Renamed = (TreePath, Known, TreePath);

/// What differs between a unit's record and what was seen.
#[derive(Debug, Default)]
pub struct Diff {
    /// The unit.
    pub path: TreePath,
    /// Directories to make, or with new metadata, in the order in which they must be made.
    pub directories: Vec<(TreePath, Meta)>,
    /// Of those, the ones that are new.
    pub new_directories: usize,
    /// Control files and other files that appeared or changed.
    pub files: Vec<Found>,
    /// Messages that appeared or changed.
    pub messages: Vec<Found>,
    /// Files whose name changed within the unit: what it was called, what is recorded, what it is called.
    pub renamed: Vec<Renamed>,
    /// Names that are no longer there.
    pub vanished: Vec<(TreePath, Known)>,
    /// Names that the filters now leave out.
    pub forgotten: Vec<TreePath>,
    /// Only the metadata changed.
    pub metadata: Vec<(TreePath, Meta, u64)>,
    /// Observations of files that did not change.
    pub learned: Vec<(TreePath, Local)>,
    /// Observations of the unit's directories.
    pub looks: Vec<(TreePath, Look)>,
    /// Directories in the unit that are scanned on their own, in order.
    pub subdirectories: Vec<TreePath>,
    /// Directories listed.
    pub listed: u64,
    /// Sockets, FIFOs and devices left out.
    pub special: Vec<TreePath>,
    /// Files that could not be looked at, and directories that could not be read.
    pub failed: Vec<DiskError>,
    /// Control files that changed while they were read.
    pub torn: Vec<TreePath>,
    /// A uidlist is not whole: its writer is in the middle of it, unless it stays so.
    pub odd: bool,
    /// The listing may not be whole: what seems to have vanished proves nothing.
    pub uncertain: bool,
}

impl Diff {
    /// Whether there is nothing to do, apart from noting what was observed.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
            && self.files.is_empty()
            && self.messages.is_empty()
            && self.renamed.is_empty()
            && self.vanished.is_empty()
            && self.forgotten.is_empty()
            && self.metadata.is_empty()
    }
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

/// A directory as it was seen: its state, and its names where it was listed.
struct Sight {
    stat: Stat,
    look: Look,
    listing: Option<Vec<Dirent>>,
    at_once: bool,
    xattrs: Option<Vec<Xattr>>,
    /// Permissions or owners of the directory changed: those of its files may have, too.
    restat: bool,
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
            if settled || tries == TRIES {
                diff.uncertain = diff.uncertain || !settled && !self.local;
                // One that stays as it is, tried again and again, is what the master has; its mail server will
                // see to it.
                if diff.torn.is_empty() && !diff.odd || tries == TRIES {
                    return Ok(Some(diff));
                }
            }
            // A uidlist is not whole for as long as its writer takes: look again, a moment later.
            std::thread::sleep(if diff.odd { WRITING } else { std::time::Duration::ZERO });
        }
        Ok(None)
    }

    /// The quick look, at a unit that nobody touched since it was recorded: the directories in it that are units of
    /// their own. `None` where anything needs a closer look. One that `was_untouched` a moment ago is not looked at
    /// again, unless its record was changed since.
    pub fn as_recorded(&self, path: &TreePath, rows: &UnitRows, was_untouched: bool) -> Option<Vec<TreePath>> {
        if self.rules.restat || self.rules.checksum {
            return None;
        }
        let is_same = |path: &TreePath, row: &Row| {
            let recorded = row.look.filter(|look| !look.racy);
            recorded.is_some_and(|look| was_untouched || self.is_same_directory(path, &look))
        };
        let row = rows.directory.as_ref().filter(|row| !is_paged(path) && is_same(path, row))?;
        if self.is_recorded_folder(row) {
            // In the order in which a message moves.
            for (part, row) in folder::PARTS.iter().zip(&rows.parts) {
                let at = path.child(part);
                let same = match row {
                    Some(row) if *part == "tmp" => was_untouched || self.is_same_tmp(&at, row),
                    Some(row) => is_same(&at, row),
                    None => false,
                };
                if !same {
                    return None;
                }
            }
        }
        let mut files = row.entries.iter().filter(|known| known.entry.kind != Kind::Directory);
        let is_same_file = |known: &Known| {
            let at = path.join(&known.entry.name);
            self.root.stat(&at).is_ok_and(|stat| self.is_same_file(&stat, known))
        };
        (was_untouched || files.all(is_same_file)).then(|| self.recorded_below(path, rows))
    }

    /// The directories in a unit that are units of their own, as recorded.
    pub fn recorded_below(&self, path: &TreePath, rows: &UnitRows) -> Vec<TreePath> {
        let Some(row) = &rows.directory else { return Vec::new() };
        let is_folder = self.is_recorded_folder(row);
        let is_unit = |known: &&Known| {
            let is_part = is_folder && folder::is_part(known.entry.name.as_bytes());
            known.entry.kind == Kind::Directory && !is_part
        };
        let units = row.entries.iter().filter(is_unit);
        let mut below: Vec<TreePath> = units.map(|known| path.join(&known.entry.name)).collect();
        below.sort_by_cached_key(super::directory::key);
        below
    }

    fn is_recorded_folder(&self, row: &Row) -> bool {
        let has = |part: &[u8]| {
            let is_it = |known: &Known| known.entry.kind == Kind::Directory && known.entry.name.as_bytes() == part;
            row.entries.iter().any(is_it)
        };
        self.rules.kind == SetKind::Maildir && has(b"cur") && has(b"new")
    }

    fn is_same_directory(&self, path: &TreePath, look: &Look) -> bool {
        self.root.stat(path).is_ok_and(|stat| stat.kind == FileKind::Directory && stat.look() == *look)
    }

    /// What is in `tmp` does not matter; its mode and owner do.
    fn is_same_tmp(&self, path: &TreePath, row: &Row) -> bool {
        !self.rules.filter.takes_from_tmp(path)
            && row.look.is_some_and(|look| {
                self.root.stat(path).is_ok_and(|stat| Look { racy: look.racy, ..stat.look() } == look)
            })
    }

    /// Whether a file, of which not even the change time moved, is as it was.
    fn is_same_file(&self, stat: &Stat, known: &Known) -> bool {
        let (local, entry) = (&known.local, &known.entry);
        let untouched = match local.ino {
            0 => {
                self.rules.trust_names && self.meta(stat, Some(stat.mtime), Vec::new(), Some(&entry.meta)) == entry.meta
            }
            ino => ino == stat.ino && local.ctime == stat.ctime && !local.racy,
        };
        untouched && mark(stat) == entry.mark() && kind_of(entry) == stat.kind
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
        diff.subdirectories.sort_by_cached_key(super::directory::key);
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

    /// Looks at a directory, and lists it where its record does not show what is in it.
    fn sight(&self, path: &TreePath, row: Option<&Row>, checked: bool) -> std::result::Result<Sight, NotRead> {
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
    fn time_of(&self, sight: &Sight, row: Option<&Row>) -> Time {
        let is_server_file = |entry: &Dirent| folder::is_server_log(entry.name.as_bytes());
        let is_served = self.rules.trust_names
            && self.rules.kind == SetKind::Maildir
            && sight.listing.as_ref().is_some_and(|listing| listing.iter().any(is_server_file));
        let recorded = row.and_then(|row| row.meta.mtime).filter(|_| is_served);
        recorded.unwrap_or(sight.stat.mtime)
    }

    /// Notes a directory: its look, and its metadata where that is new.
    fn directory(&self, path: &TreePath, sight: &Sight, row: Option<&Row>, mtime: Option<Time>, diff: &mut Diff) {
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

    fn meta(&self, stat: &Stat, mtime: Option<Time>, xattrs: Vec<Xattr>, known: Option<&Meta>) -> Meta {
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

    // ---- messages ----

    /// Looks at the parts of a folder: `new`, then `cur`, then `tmp`; then what is recorded of the messages.
    fn parts(
        &self,
        path: &TreePath,
        rows: &UnitRows,
        edit: &mut Edit<'_>,
        diff: &mut Diff,
    ) -> std::result::Result<(), NotRead> {
        let [new, cur, tmp] = folder::PARTS.map(|part| path.child(part));
        let new_sight = self.sight(&new, rows.parts[0].as_ref(), true)?;
        let mut cur_sight = self.sight(&cur, rows.parts[1].as_ref(), true)?;
        if new_sight.listing.is_some() && cur_sight.listing.is_none() {
            // A message may have left `new` since: see both as of one time.
            cur_sight = self.sight(&cur, rows.parts[1].as_ref(), true)?;
        }
        self.directory(&new, &new_sight, rows.parts[0].as_ref(), None, diff);
        self.directory(&cur, &cur_sight, rows.parts[1].as_ref(), None, diff);
        self.tmp(&tmp, rows.parts[2].as_ref(), diff)?;
        diff.uncertain |= !new_sight.at_once || !cur_sight.at_once;
        self.messages([(&new, new_sight), (&cur, cur_sight)], edit, diff)
    }

    fn tmp(&self, tmp: &TreePath, row: Option<&Row>, diff: &mut Diff) -> std::result::Result<(), NotRead> {
        if self.rules.filter.takes_from_tmp(tmp) {
            diff.subdirectories.push(tmp.clone());
            return Ok(());
        }
        // It may go with its folder at any moment.
        match self.root.stat_if_there(tmp).map_err(NotRead::from)? {
            None => Ok(()),
            Some(stat) => {
                let look = stat.look();
                let changed = row.is_none_or(|row| row.look.is_none_or(|old| old.ctime != look.ctime));
                let xattrs = match changed {
                    true => Some(self.root.xattrs(tmp).map_err(NotRead::from)?),
                    false => None,
                };
                let sight = Sight { stat, look, listing: None, at_once: true, xattrs, restat: false };
                self.directory(tmp, &sight, row, Some(stat.mtime), diff);
                Ok(())
            }
        }
    }

    fn messages(
        &self,
        mut parts: [(&TreePath, Sight); 2],
        edit: &mut Edit<'_>,
        diff: &mut Diff,
    ) -> std::result::Result<(), NotRead> {
        if parts.iter().all(|(_, sight)| sight.listing.is_none()) {
            return Ok(());
        }
        drop_seen_twice(&mut parts);
        let mut vanished = Vec::new();
        let mut appeared = Vec::new();
        for (path, sight) in parts {
            let Some(listing) = sight.listing else { continue };
            let every = sight.restat || self.rules.checksum;
            let recorded = edit.directory(path)?.map(|directory| directory.entries.values());
            merge(recorded.into_iter().flatten(), listing, |known, seen| match (known, seen) {
                (Some(known), Some(seen)) if is_another_inode(known, &seen) => {
                    // Another message has this name now; this one may have another name.
                    vanished.push((path.join(&known.entry.name), known.clone()));
                    appeared.push((path.join(&seen.name), seen));
                }
                (Some(known), Some(seen)) => self.known_message(path, known, &seen, every, diff),
                (Some(known), None) => vanished.push((path.join(&known.entry.name), known.clone())),
                (None, Some(seen)) => appeared.push((path.join(&seen.name), seen)),
                (None, None) => {}
            });
        }
        let appeared = self.pair_renames(appeared, &mut vanished, diff);
        let mut vanished: BTreeMap<TreePath, Known> = vanished.into_iter().collect();
        for (path, seen) in appeared {
            let replaced = vanished.remove(&path);
            self.appeared(path, &seen, replaced, diff);
        }
        self.leave(vanished.into_iter().collect(), diff);
        Ok(())
    }

    /// A message whose name is recorded: the same, unless there is a reason to look closer.
    fn known_message(&self, directory: &TreePath, known: &Known, seen: &Dirent, every: bool, diff: &mut Diff) {
        let is_directory = known.entry.kind == Kind::Directory;
        let at = || directory.join(&known.entry.name);
        if is_directory {
            return diff.subdirectories.push(at());
        }
        let unknown = known.local.ino == 0;
        let trusted = known.local.ino == seen.ino || unknown && self.rules.trust_names;
        if trusted && !every {
            return;
        }
        let path = at();
        match self.root.stat(&path) {
            Ok(stat) => self.compare(path, stat, known.clone(), diff),
            // Renamed since it was listed: its directory's times have changed, so it will be looked at again.
            Err(error) if error.is_not_found() => diff.uncertain = true,
            Err(error) => diff.failed.push(error),
        }
    }

    /// Takes the messages that only changed their name out of what appeared and vanished.
    fn pair_renames(
        &self,
        appeared: Vec<(TreePath, Dirent)>,
        vanished: &mut Vec<(TreePath, Known)>,
        diff: &mut Diff,
    ) -> Vec<(TreePath, Dirent)> {
        let mut left: HashMap<(Vec<u8>, u64), (TreePath, Known)> = HashMap::with_capacity(vanished.len());
        for (path, known) in vanished.drain(..) {
            let key = (name::base(known.entry.name.as_bytes()).to_vec(), known.local.ino);
            left.insert(key, (path, known));
        }
        let mut rest = Vec::new();
        for (path, seen) in appeared {
            let base = name::base(seen.name.as_bytes()).to_vec();
            let taken = self.rules.filter.takes_every_message() || self.rules.filter.takes(&path, false);
            // A message that this host has not looked at yet has no inode number on record.
            let key = [(base.clone(), seen.ino), (base, 0)].into_iter().find(|key| taken && left.contains_key(key));
            let pair = key.and_then(|key| {
                // Inode numbers are used again, and a restored tree uses base names again: size and time must agree.
                // One that has been renamed again since it was listed was there when it was listed.
                let stat = self.root.stat_if_there(&path).ok()?;
                let recorded = left.get(&key)?.1.entry.mark();
                stat.is_none_or(|stat| mark(&stat) == recorded).then(|| left.remove(&key))?
            });
            match pair {
                Some((from, mut known)) => {
                    known.local.ino = seen.ino;
                    diff.renamed.push((from, known, path));
                }
                None => rest.push((path, seen)),
            }
        }
        vanished.extend(left.into_values());
        for (from, known, to) in order_renames(&mut diff.renamed) {
            if let Some((_, name)) = to.split() {
                rest.push((to, Dirent { name, ino: known.local.ino, kind: Some(FileKind::File) }));
            }
            vanished.push((from, known));
        }
        vanished.sort_by(|a, b| a.0.cmp(&b.0));
        rest
    }

    /// Something has a name that nothing, or something else (`replaced`), had before.
    fn appeared(&self, path: TreePath, seen: &Dirent, replaced: Option<Known>, diff: &mut Diff) {
        let is_directory = seen.kind == Some(FileKind::Directory);
        if !self.rules.filter.takes(&path, is_directory) {
            return;
        }
        let is_message = folder::is_message(self.rules.kind, &path);
        let stat = match self.root.stat(&path) {
            Ok(stat) => stat,
            Err(error) if error.is_not_found() => {
                let again = || chase(self.root, &path, seen.ino, |path| self.root.stat(path));
                match is_message.then(again).flatten() {
                    Some(stat) => stat,
                    // Expunged, or moved to a folder that is yet to be looked at.
                    None => return,
                }
            }
            Err(error) => return diff.failed.push(error),
        };
        match stat.kind {
            FileKind::Directory => diff.subdirectories.push(path),
            FileKind::Special => diff.special.push(path),
            FileKind::File | FileKind::Symlink => self.found(path, stat, replaced, diff),
        }
    }

    /// What is recorded and was not seen: vanished, or left out by the filters from now on.
    fn leave(&self, vanished: Vec<(TreePath, Known)>, diff: &mut Diff) {
        for (path, known) in vanished {
            let is_directory = known.entry.kind == Kind::Directory;
            match self.rules.filter.takes(&path, is_directory) {
                true => diff.vanished.push((path, known)),
                false => diff.forgotten.push(path),
            }
        }
    }

    // ---- other files ----

    /// Looks at each file of a plain directory, whether or not the directory changed.
    fn examine(&self, path: &TreePath, sight: &Sight, known: &[Known], names: &[(Name, FileKind)], diff: &mut Diff) {
        let mut vanished = Vec::new();
        let seen: Vec<(Name, FileKind)> = names.to_vec();
        merge_names(known, seen, |known, seen| match (known, seen) {
            (Some(known), Some((_, kind))) => self.examine_one(path, known, kind, diff),
            (Some(known), None) => vanished.push((path.join(&known.entry.name), known.clone())),
            (None, Some((name, kind))) if kind != FileKind::Directory => {
                let entry = Dirent { name, ino: 0, kind: Some(kind) };
                self.appeared(path.join(&entry.name), &entry, None, diff);
            }
            _ => {}
        });
        if sight.listing.is_some() {
            diff.uncertain |= !sight.at_once && !vanished.is_empty();
            self.leave(vanished, diff);
        }
    }

    fn examine_one(&self, directory: &TreePath, known: &Known, kind: FileKind, diff: &mut Diff) {
        let was_directory = known.entry.kind == Kind::Directory;
        let at = directory.join(&known.entry.name);
        if was_directory && kind == FileKind::Directory {
            return;
        }
        let stat = match self.root.stat(&at) {
            Ok(stat) => stat,
            Err(error) if error.is_not_found() => return diff.vanished.push((at, known.clone())),
            Err(error) => return diff.failed.push(error),
        };
        if was_directory {
            diff.vanished.push((at.clone(), known.clone()));
            return self.found(at, stat, None, diff);
        }
        if stat.kind == FileKind::Directory {
            // Its own row takes the place of the file's entry.
            return;
        }
        self.compare(at, stat, known.clone(), diff);
    }

    /// Holds a file's state against its record.
    fn compare(&self, path: TreePath, stat: Stat, known: Known, diff: &mut Diff) {
        let same_mark = mark(&stat) == known.entry.mark() && kind_of(&known.entry) == stat.kind;
        let unseen = known.local.ino == 0;
        let untouched = unseen
            || known.local.ino == stat.ino
                && !known.local.racy
                && (known.local.ctime == stat.ctime || known.local.ctime == Time::default());
        if same_mark && untouched && !self.rules.checksum {
            return self.compare_meta(path, &stat, &known, diff);
        }
        let large = stat.size > REREAD_MAX && known.local.ino == stat.ino && !known.local.racy;
        if same_mark && large && !self.rules.checksum {
            return self.compare_meta(path, &stat, &known, diff);
        }
        if stat.kind != FileKind::Symlink || !same_mark || self.rules.checksum {
            return self.found(path, stat, Some(known), diff);
        }
        self.compare_meta(path, &stat, &known, diff);
    }

    /// The content is the same: what of the metadata is not?
    fn compare_meta(&self, path: TreePath, stat: &Stat, known: &Known, diff: &mut Diff) {
        let local = self.local(&path, stat);
        let ctime_moved = known.local.ino != 0 && known.local.ctime != stat.ctime;
        let mut xattrs = known.entry.meta.xattrs.clone();
        let may_have_new_xattrs = ctime_moved && known.local.ctime != Time::default() || self.rules.restat;
        if may_have_new_xattrs && stat.kind == FileKind::File {
            match self.root.xattrs(&path) {
                Ok(read) => xattrs = read,
                Err(error) => diff.failed.push(error),
            }
        }
        let meta = self.meta(stat, Some(stat.mtime), xattrs, Some(&known.entry.meta));
        if meta != known.entry.meta {
            let group = known.entry.file().map_or(0, |file| file.group);
            diff.metadata.push((path.clone(), meta, group));
        }
        if local != known.local && !self.rules.trust_names {
            diff.learned.push((path, local));
        }
    }

    /// What to record of a file that was just looked at.
    pub fn local(&self, path: &TreePath, stat: &Stat) -> Local {
        match folder::is_message(self.rules.kind, path) {
            true => Local { ino: stat.ino, ..Local::default() },
            false => Local { ino: stat.ino, ctime: stat.ctime, racy: is_racy(stat) },
        }
    }

    fn found(&self, path: TreePath, stat: Stat, known: Option<Known>, diff: &mut Diff) {
        let before = known.as_ref().map(|known| &known.entry.meta);
        let meta = self.meta(&stat, Some(stat.mtime), Vec::new(), before);
        let target = match stat.kind {
            FileKind::Symlink => match self.root.read_link(&path) {
                Ok(target) => Some(target),
                Err(error) => return diff.failed.push(error),
            },
            _ => None,
        };
        let is_message = folder::is_message(self.rules.kind, &path);
        let found = Found { path, stat, meta, known, captured: None, target, number: 0 };
        match is_message {
            true => diff.messages.push(found),
            false => diff.files.push(found),
        }
    }

    /// Reads the control files that changed, after the listing that they must match.
    fn capture(&self, diff: &mut Diff, is_folder: bool) {
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

    // ---- does it belong together? ----

    /// Whether nothing moved while the unit was read, and its names use no keyword that is not defined.
    fn is_settled(&self, diff: &Diff) -> bool {
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

    /// Whether a unit's directories look as they did when `diff` was made.
    pub fn looks_as_in(&self, diff: &Diff) -> bool {
        !diff.looks.is_empty()
            && diff.looks.iter().all(|(path, look)| {
                path.name() == b"tmp" || !look.racy && self.root.stat(path).is_ok_and(|stat| stat.look() == *look)
            })
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

/// How often a message that is renamed under the eyes is looked for again.
const CHASES: usize = 50;

/// Does something with a message that has another name in its folder by now, because its flags go on changing.
/// `None` where it is in the folder no more.
pub fn chase<T>(
    root: &Root,
    path: &TreePath,
    ino: u64,
    act: impl Fn(&TreePath) -> std::result::Result<T, DiskError>,
) -> Option<T> {
    let (parent, name) = path.split()?;
    let folder = parent.parent();
    let wanted = name::base(name.as_bytes());
    let is_same = |entry: &&Dirent| entry.ino == ino && name::base(entry.name.as_bytes()) == wanted;
    for _ in 0..CHASES {
        // A message goes from `new` to `cur`: in this order it is seen at least once.
        let mut place = None;
        for directory in [folder.child("new"), folder.child("cur")] {
            let Ok((listing, _)) = root.list(&directory, 4096) else { continue };
            if let Some(entry) = listing.entries.iter().find(is_same) {
                place = Some(directory.join(&entry.name));
            }
        }
        if let Ok(done) = act(&place?) {
            return Some(done);
        }
    }
    None
}

fn is_another_inode(known: &Known, seen: &Dirent) -> bool {
    known.local.ino != 0 && known.local.ino != seen.ino && known.entry.kind != Kind::Directory
}

/// Orders renames so that a name is free, or its file has moved on, before another file takes it. Those that
/// go round in a ring are given back: there is no order for them.
fn order_renames(renamed: &mut Vec<Renamed>) -> Vec<Renamed> {
    let mut waiting = std::mem::take(renamed);
    loop {
        let leaving: std::collections::HashSet<TreePath> = waiting.iter().map(|(from, _, _)| from.clone()).collect();
        let before = waiting.len();
        let (free, blocked): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, _, to)| !leaving.contains(to));
        renamed.extend(free);
        waiting = blocked;
        if waiting.is_empty() || waiting.len() == before {
            return waiting;
        }
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

/// Whether a file or directory was changed so lately that another change may not show in its times.
fn is_racy(stat: &Stat) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = Time { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() };
    let coarse = stat.ctime.nanos == 0 && stat.mtime.nanos == 0;
    let margin = if coarse { RACY_COARSE } else { RACY_FINE };
    // A time in the future proves nothing either; but one far ahead would mean listing for ever.
    let age = stat.mtime.max(stat.ctime).until(now);
    age < margin && age > -3_600_000_000_000
}

/// A message that went from `new` to `cur` between the two listings is in both: it is in `cur`.
fn drop_seen_twice(parts: &mut [(&TreePath, Sight); 2]) {
    let [(_, new), (_, cur)] = parts;
    let (Some(new), Some(cur)) = (&mut new.listing, &cur.listing) else { return };
    let in_cur: std::collections::HashSet<(u64, &[u8])> =
        cur.iter().map(|entry| (entry.ino, name::base(entry.name.as_bytes()))).collect();
    new.retain(|entry| !in_cur.contains(&(entry.ino, name::base(entry.name.as_bytes()))));
}

/// Walks two lists in order of name, side by side.
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

fn merge_names(
    known: &[Known],
    mut seen: Vec<(Name, FileKind)>,
    mut each: impl FnMut(Option<&Known>, Option<(Name, FileKind)>),
) {
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut known, mut seen) = (known.iter().peekable(), seen.into_iter().peekable());
    loop {
        let order = match (known.peek(), seen.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(known), Some(seen)) => known.entry.name.cmp(&seen.0),
        };
        match order {
            std::cmp::Ordering::Less => each(known.next(), None),
            std::cmp::Ordering::Equal => each(known.next(), seen.next()),
            std::cmp::Ordering::Greater => each(None, seen.next()),
        }
    }
}
