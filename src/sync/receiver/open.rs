//! Opening a slave: mirror, state and lock, and bringing forward what a crash interrupted.

use super::commit::{apply_to_catalogue, forget_looks};
use super::{Result, Slave};
use crate::catalogue::edit::Edit;
use crate::catalogue::filter::Filter;
use crate::catalogue::scan::Rules;
use crate::catalogue::store::{Catalogue, Head};
use crate::disk::Root;
use crate::id::{Digest, Position, SetId};
use crate::log::history::History;
use crate::log::segment::{Link, Replay, Segment};
use crate::path::TreePath;
use crate::sync::SyncError;
use crate::sync::apply::{Contents, Hand};
use crate::sync::staging::Staging;
use crate::wire::block::Block;
use crate::wire::message::Hello;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Slave {
    /// Opens mirror and state, takes the lock, and brings forward what a crash interrupted.
    pub(super) fn open(hello: Hello) -> Result<Self> {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&hello.destination));
        check_apart(&hello, &path)?;
        let mirror = open_mirror(&path, hello.dry_run)?;
        let rules = Rules {
            kind: hello.kind,
            filter: Filter::new(hello.kind, &hello.filters)?,
            chown: None,
            owners: rustix::process::geteuid().is_root(),
            trust_names: true,
            restat: false,
            checksum: hello.checksum,
        };
        let Some(mirror) = mirror else {
            // A dry run towards a directory that is not there yet: everything would be new.
            let above = Arc::new(Root::open_above(&path)?);
            let catalogue = Catalogue::open_dry(None)?;
            return Ok(Self {
                hello,
                mirror: above,
                is_absent: true,
                staging: None,
                state: None,
                history: None,
                catalogue,
                rules,
                warnings: vec![],
                _lock: None,
            });
        };
        let mirror = Arc::new(mirror);
        match hello.dry_run {
            true => Self::open_dry(hello, mirror, rules),
            false => Self::open_locked(hello, mirror, rules),
        }
    }

    fn open_dry(hello: Hello, mirror: Arc<Root>, rules: Rules) -> Result<Self> {
        let state = match &hello.state {
            Some(state) => Root::open(Path::new(std::ffi::OsStr::from_bytes(state))),
            None => mirror.open_own(".mailtwin"),
        };
        let state = match state {
            Ok(state) => Some(state),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let catalogue = Catalogue::open_dry(state.as_ref())?;
        Ok(Self {
            hello,
            mirror,
            is_absent: false,
            staging: None,
            state,
            history: None,
            catalogue,
            rules,
            warnings: vec![],
            _lock: None,
        })
    }

    fn open_locked(hello: Hello, mirror: Arc<Root>, rules: Rules) -> Result<Self> {
        let lock = lock(&mirror)?;
        let state = match &hello.state {
            Some(state) => open_or_make(Path::new(std::ffi::OsStr::from_bytes(state)))?,
            None => mirror.make_own(".mailtwin")?,
        };
        // A rename puts contents in place, so they wait on the mirror's own file system.
        let device = |root: &Root| root.stat(&TreePath::root()).map(|stat| stat.device);
        let staging = match device(&state)? == device(&mirror)? {
            true => Staging::open(&state)?,
            false => Staging::open(&mirror.make_own(".mailtwin")?)?,
        };
        let staging = Arc::new(staging);
        let mut warnings = Vec::new();
        let (catalogue, anew) = Catalogue::open(&state)?;
        if anew {
            warnings.push("the slave's catalogue was damaged and is made anew from the mirror".to_owned());
        }
        let history = History::open(&state)?;
        let mut slave = Self {
            hello,
            mirror,
            is_absent: false,
            staging: Some(staging),
            state: Some(state),
            history,
            catalogue,
            rules,
            warnings,
            _lock: Some(lock),
        };
        let is_damaged = slave.catalogue.contain(|| slave.recover())?;
        if is_damaged {
            let sentence = "the slave's log was damaged in its middle: what it held is compared with the master anew";
            slave.warnings.push(sentence.to_owned());
        }
        Ok(slave)
    }

    /// Does again what the log holds beyond the catalogue, and begins a new log.
    ///
    /// `true` where the log is damaged: mirror and catalogue then tell what is there, and the master the rest.
    fn recover(&self) -> Result<bool> {
        let (Some(state), Some(staging)) = (&self.state, &self.staging) else { return Ok(false) };
        let mut is_damaged = false;
        if let Some(mut replay) = Replay::open(state)? {
            let transaction = self.catalogue.begin()?;
            let mut edit = Edit::new(&transaction)?;
            self.replay(&mut replay, staging, &mut edit)?;
            is_damaged = replay.is_damaged;
            self.mirror.sync_file_system()?;
            if edit.finish()? {
                transaction.commit()?;
            }
        }
        if Segment::is_there(state)? {
            self.sync_names()?;
            self.put_away(state)?;
        }
        staging.clear()?;
        Ok(is_damaged)
    }

    /// Mirror and catalogue have all of the segment, durably: it goes, or becomes history.
    pub(super) fn put_away(&self, state: &Root) -> Result<()> {
        if let Some(history) = &self.history
            && let Some(closed) = Segment::close(state)?
        {
            history.keep(state, &closed)?;
            return Ok(());
        }
        Ok(Segment::remove(state)?)
    }

    fn replay(&self, replay: &mut Replay, staging: &Arc<Staging>, edit: &mut Edit<'_>) -> Result<()> {
        let mut hand = Hand::new(self.mirror.clone(), staging.clone(), self.hello.kind);
        hand.does_again = true;
        if edit.head.set.is_none() && replay.header.set != SetId::default() {
            (edit.head.set, edit.head.epoch) = (Some(replay.header.set), replay.header.epoch);
        }
        while let Some(batch) = replay.next_batch()? {
            // What was found on the mirror is there, and is found again.
            let Some(position) = batch.position.filter(|position| *position > edit.head.position) else { continue };
            let logged = Logged::new(replay, &batch.blocks);
            apply_to_catalogue(edit, &batch.changes)?;
            hand.batch(&batch.changes, &logged, edit)?;
            edit.head.position = position;
        }
        hand.put_lock_away()?;
        forget_looks(edit, &hand)
    }

    /// Begins the log of what is received, or found on the mirror.
    pub(super) fn begin_log(&self, head: &Head, after: Position) -> Result<Segment> {
        let Some(state) = self.state.as_ref().filter(|_| self.staging.is_some()) else {
            return Err(SyncError::Protocol("a batch in a dry run"));
        };
        let link = self.history.as_ref().map_or(Ok(Link::default()), History::next)?;
        Ok(Segment::create(state, head.set.unwrap_or_default(), head.epoch, after, link)?)
    }

    /// Makes the names durable that lead to what is acknowledged, the segment's own among them.
    pub(super) fn sync_names(&self) -> Result<()> {
        let (Some(state), Some(staging)) = (&self.state, &self.staging) else { return Ok(()) };
        staging.root().sync_directory(&TreePath::root())?;
        for root in [state, &*self.mirror] {
            root.sync_directory(&TreePath::root())?;
            root.sync_above()?;
        }
        Ok(())
    }
}

/// Nobody else writes to a mirror while this is held.
pub(in crate::sync) fn lock(mirror: &Root) -> Result<OwnedFd> {
    let show = mirror.show(&TreePath::root());
    let busy = || SyncError::Locked(format!("another run is writing to {show}: wait until it has ended"));
    mirror.lock_directory()?.ok_or_else(busy)
}

/// On one host a mirror inside its source would mirror itself, and one around it would remove it.
fn check_apart(hello: &Hello, path: &Path) -> Result<()> {
    let Some(source) = hello.ancestry.first().filter(|_| hello.boot == crate::sync::boot_id()) else {
        return Ok(());
    };
    let is_inside = Root::open_above(path)?.ancestry()?.contains(source);
    let is_around = match Root::open(path) {
        Ok(mirror) => mirror.ancestry()?.first().is_some_and(|mirror| hello.ancestry.contains(mirror)),
        Err(_) => false,
    };
    let relation = match (is_inside, is_around) {
        (true, _) => "lies inside the source",
        (_, true) => "has the source inside it",
        _ => return Ok(()),
    };
    let shown = crate::path::escape(path.as_os_str().as_bytes());
    Err(SyncError::Failed(format!("the destination {shown} {relation}: a mirror needs a directory of its own")))
}

/// The mirror's directory; made where only its last name is missing, as rsync does.
fn open_mirror(path: &Path, dry_run: bool) -> Result<Option<Root>> {
    match Root::open(path) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.is_not_found() && dry_run => Ok(None),
        Err(error) if error.is_not_found() => Ok(Some(open_or_make(path)?)),
        Err(error) => Err(error.into()),
    }
}

fn open_or_make(path: &Path) -> Result<Root> {
    Root::open_or_make(path).map_err(|error| {
        let shown = crate::path::escape(path.as_os_str().as_bytes());
        SyncError::Failed(format!("cannot make the directory {shown}: {error}"))
    })
}

/// Contents from the blocks that the log holds, or from what an earlier process staged.
struct Logged<'r> {
    replay: &'r Replay,
    /// The blocks in which pieces of a content stand.
    places: HashMap<u64, Vec<u64>>,
    /// The block that was read last: the contents of one block are asked for one after the other.
    last: RefCell<Option<(u64, Block)>>,
}

impl<'r> Logged<'r> {
    /// A block that is damaged holds nothing: what it held is missing, and said to be.
    fn new(replay: &'r Replay, blocks: &[u64]) -> Self {
        let mut places: HashMap<u64, Vec<u64>> = HashMap::new();
        for &at in blocks {
            let pieces = replay.block(at).ok().and_then(|payload| Block::pieces(&payload).ok()).unwrap_or_default();
            for piece in pieces {
                let places = places.entry(piece.number).or_default();
                if places.last() != Some(&at) {
                    places.push(at);
                }
            }
        }
        Self { replay, places, last: RefCell::default() }
    }

    fn take(&self, staging: &Staging, number: u64, at: u64) -> Result<()> {
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(place, _)| *place != at) {
            let block = self.replay.block(at)?;
            *last = Block::decode(&block).ok().map(|block| (at, block));
        }
        let Some((_, block)) = &*last else { return Ok(()) };
        let mut part = Block { pieces: Vec::new(), data: Vec::new() };
        for (piece, bytes) in block.contents().filter(|(piece, _)| piece.number == number) {
            part.pieces.push(piece.clone());
            part.data.extend_from_slice(bytes);
        }
        staging.take(&part)
    }
}

impl Contents for Logged<'_> {
    fn stage(&self, staging: &Staging, number: u64, digest: &Digest) -> Result<bool> {
        if staging.digest(number).is_some() || staging.recover(number, digest) {
            return Ok(true);
        }
        let Some(places) = self.places.get(&number) else {
            // A staged delta does not have the result's digest: patching decides.
            return Ok(staging.root().stat_if_there(&Staging::path(number))?.is_some());
        };
        staging.discard(number)?;
        for &at in places {
            self.take(staging, number, at)?;
        }
        Ok(staging.digest(number).is_some())
    }
}
