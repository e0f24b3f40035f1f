//! A mirror at rest: nobody else writes to it, and its catalogue says what is there. The first full is read from it.

use super::open::lock;
use super::{Result, Slave, program};
use crate::catalogue::edit::Edit;
use crate::catalogue::store::{Catalogue, KnownContents};
use crate::disk::Root;
use crate::id::{Digest, Epoch, Position, SetId};
use crate::maildir::change::Change;
use crate::maildir::entry::{Entry, Kind, Meta};
use crate::maildir::folder::{self, SetKind};
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::sync::apply::{Arrived, Hand};
use crate::sync::read::{Pool, Reader};
use crate::sync::sender::{detect_kind, recorded_kind};
use crate::sync::staging::Staging;
use crate::wire::message::Hello;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// A standby that is open and locked for as long as this lives.
pub struct Frozen {
    slave: Slave,
    /// The set.
    pub set: SetId,
    /// The epoch that it follows.
    pub epoch: Epoch,
    /// The last batch in it.
    pub position: Position,
}

/// What stands at a path of a mirror at rest.
pub enum Standing {
    /// A directory.
    Directory(Meta),
    /// Anything else.
    Entry(Entry),
}

impl Frozen {
    /// Opens a standby, brings forward what a crash interrupted, and holds its mirror against its catalogue.
    ///
    /// # Errors
    /// Where another run holds the lock, or what a session's opening meets.
    pub fn open(standby: &Path, state: Option<&Path>) -> Result<Self> {
        let opened = match state {
            Some(state) => Root::open(state),
            None => Root::open(standby).and_then(|root| root.open_own(".mailtwin")),
        }?;
        let (head, kind) = {
            // A run that is under way changes the catalogue as it is read.
            let _lock = lock(&Root::open(standby)?)?;
            let catalogue = Catalogue::open_dry(Some(&opened))?;
            (catalogue.head()?, recorded_kind(&catalogue)?.unwrap_or_else(|| detect_kind(standby)))
        };
        let filters = head.filters.iter().filter(|line| !line.starts_with("kind ")).cloned().collect();
        let hello = Hello {
            program: program(),
            set: head.set,
            epoch: head.epoch,
            position: head.position,
            root: Digest::default(),
            kind,
            destination: standby.as_os_str().as_bytes().to_vec(),
            state: state.map(|state| state.as_os_str().as_bytes().to_vec().into()),
            dry_run: false,
            checksum: false,
            filters,
            boot: Digest::default(),
            ancestry: Vec::new(),
            restore: None,
        };
        let slave = Slave::open(hello)?;
        let head = slave.catalogue.contain(|| slave.look())?;
        Ok(Self { set: head.0, epoch: head.1, position: head.2, slave })
    }

    /// The mirror.
    pub fn mirror(&self) -> &Arc<Root> {
        &self.slave.mirror
    }

    /// What kind of set it is.
    pub fn kind(&self) -> SetKind {
        self.slave.hello.kind
    }

    /// Threads that read the mirror's files and pack them.
    pub fn readers(&self, level: i32) -> Pool {
        Pool::new(Reader { root: self.slave.mirror.clone(), contents: Some(KnownContents::none()), level }, 2)
    }

    /// Puts files of the mirror right that are not what the catalogue says: changes that bring what it has already.
    /// Gives what could not be done.
    ///
    /// # Errors
    /// Where the disk refuses everything.
    pub fn put_back(&self, changes: &[Change], staging: &Arc<Staging>) -> Result<Vec<Problem>> {
        let transaction = self.slave.catalogue.begin()?;
        let problems = {
            let mut edit = Edit::new(&transaction)?;
            let mut hand = Hand::new(self.slave.mirror.clone(), staging.clone(), self.kind());
            for change in changes {
                edit.apply(change)?;
            }
            edit.flush()?;
            hand.batch(changes, &Arrived, &mut edit)?;
            hand.put_lock_away()?;
            self.slave.mirror.sync_file_system()?;
            edit.finish()?;
            hand.problems
        };
        transaction.commit()?;
        Ok(problems)
    }

    /// Hands over everything that the catalogue has, in its own order: a directory before what is in it.
    ///
    /// # Errors
    /// Where the catalogue cannot be read, or `each` fails.
    pub fn walk<E>(
        &self,
        mut each: impl FnMut(TreePath, Standing) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E>
    where
        E: From<crate::sync::SyncError>,
    {
        let failed = |error: crate::catalogue::CatalogueError| E::from(error.into());
        let transaction = self.slave.catalogue.begin().map_err(failed)?;
        {
            let mut edit = Edit::new(&transaction).map_err(failed)?;
            let mut stack = vec![(TreePath::root(), None)];
            while let Some((path, entry)) = stack.pop() {
                if let Some(entry) = entry {
                    each(path, Standing::Entry(entry))?;
                    continue;
                }
                let Some(directory) = edit.directory(&path).map_err(failed)? else { continue };
                let mut below: Vec<(TreePath, Option<Entry>)> = Vec::with_capacity(directory.entries.len());
                for known in directory.entries.values() {
                    let entry = (known.entry.kind != Kind::Directory).then(|| known.entry.clone());
                    below.push((path.join(&known.entry.name), entry));
                }
                let meta = directory.meta.clone();
                // The keys' order: first `cur`, `new` and `tmp`.
                below.sort_by_key(|(path, _)| !folder::is_part(path.name()));
                each(path, Standing::Directory(meta))?;
                stack.extend(below.into_iter().rev());
                if edit.open_directories() > 64 {
                    edit.flush().map_err(failed)?;
                }
            }
        }
        transaction.abort().map_err(failed)
    }
}

impl Slave {
    fn look(&self) -> Result<(SetId, Epoch, Position)> {
        let transaction = self.catalogue.begin()?;
        let (head, learned) = {
            let mut edit = Edit::new(&transaction)?;
            self.look_at_mirror(&mut edit)?;
            let head = (edit.head.set.unwrap_or_default(), edit.head.epoch, edit.head.position);
            (head, edit.finish()?)
        };
        match learned {
            true => transaction.commit()?,
            false => transaction.abort()?,
        }
        if crate::log::segment::Segment::is_there(self.state()?)? {
            self.put_away(self.state()?)?;
        }
        Ok(head)
    }

    fn state(&self) -> Result<&Root> {
        self.state.as_ref().ok_or_else(|| crate::sync::SyncError::Failed("there is no state".to_owned()))
    }
}
