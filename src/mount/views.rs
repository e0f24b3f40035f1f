//! Which points there are, and the few of their views that are open.
//!
//! A view is opened when something in it is asked for. It holds its manifests and segments open, so that what was opened
//! stays whole when the point expires meanwhile; but it holds their space on the disk as well: one that is not used for a
//! while, or whose point has gone, is let go ([`Views::tidy`]).

use crate::maildir::entry::Meta;
use crate::path::TreePath;
use crate::repository::label::{PointKind, PointLabel};
use crate::repository::layout::{Repository, RepositoryError};
use crate::repository::manifest::Manifest;
use crate::repository::record::What;
use crate::repository::view::{At, Counts, View, counts};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Which moment of the set a directory at the top is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// That of a point.
    Point(PointLabel),
    /// The newest that the log has.
    Now,
}

impl Which {
    /// What a name at the top means; there need not be such a point.
    pub fn named(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let which = match name {
            "now" => Self::Now,
            _ => Self::Point(name.parse().ok()?),
        };
        // Each has one name.
        (which.to_string() == name).then_some(which)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Point(label) => label.fmt(f),
            Self::Now => f.write_str("now"),
        }
    }
}

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Views that are open: each holds some ranges of its manifests, some blocks of contents, and all that changed since
    /// its full.
    pub views: usize,
    /// How old may be what is known of the log's end.
    pub refresh: Duration,
    /// A view that was not used for so long is closed.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { views: 4, refresh: Duration::from_secs(1), idle: Duration::from_secs(600) }
    }
}

/// What can be told of a point without opening its view.
#[derive(Clone, Debug, Default)]
pub struct Top {
    /// What the root of the set is.
    pub meta: Meta,
    /// How much there is.
    pub counts: Counts,
}

/// A view that is open.
pub struct Opened {
    /// Of which moment.
    pub which: Which,
    /// Told from every other that was opened.
    pub number: u64,
    /// The view.
    pub view: View,
    links: OnceLock<HashMap<u64, u32>>,
}

impl Opened {
    /// How many names the files of a group have. The first to ask pays for one look at every record.
    pub fn links(&self, group: u64) -> u32 {
        if group == 0 {
            return 1;
        }
        let links = self.links.get_or_init(|| {
            let mut links = HashMap::new();
            // What cannot be read is told to whom it concerns; it counts as no name.
            for record in self.view.beneath(&TreePath::root()).flatten() {
                if let Some((_, What::File { group, .. })) = record.state
                    && group != 0
                {
                    *links.entry(group).or_default() += 1;
                }
            }
            links
        });
        links.get(&group).copied().unwrap_or(1)
    }
}

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The point is not there, or not any more.
    #[error("there is no such restore point any more")]
    Gone,
    /// It cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// What shows whether the log has grown: the newest point, and the last segment.
type Stamp = (Option<PointLabel>, Option<u64>);

/// Where one view is kept. Its lock is held while it is opened.
#[derive(Default)]
struct Slot {
    current: Mutex<Option<Current>>,
    used: AtomicU64,
}

struct Current {
    opened: Arc<Opened>,
    stamp: Stamp,
    checked: Instant,
}

/// The points of a repository, and views of some of them.
pub struct Views {
    standby: PathBuf,
    state: Option<PathBuf>,
    repository: Mutex<Arc<Repository>>,
    limits: Limits,
    slots: Mutex<HashMap<Which, Arc<Slot>>>,
    tops: Mutex<HashMap<PointLabel, Top>>,
    began: Instant,
    opened: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Views {
    /// Opens the repository of a standby. Both paths must mean the same wherever the process goes: absolute ones do.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(standby: PathBuf, state: Option<PathBuf>, limits: Limits) -> Result<Self, RepositoryError> {
        let repository = Repository::open(&standby, state.as_deref())?;
        Ok(Self {
            standby,
            state,
            repository: Mutex::new(Arc::new(repository)),
            limits,
            slots: Mutex::default(),
            tops: Mutex::default(),
            began: Instant::now(),
            opened: AtomicU64::default(),
        })
    }

    fn repository(&self) -> Arc<Repository> {
        locked(&self.repository).clone()
    }

    /// How long things may be taken for what they were, that may change.
    pub fn refresh(&self) -> Duration {
        self.limits.refresh
    }

    /// How many views were opened so far: what was paid for.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many views are open.
    pub fn kept(&self) -> usize {
        locked(&self.slots).len()
    }

    /// The labels, oldest first, as they are at this instant.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn labels(&self) -> Result<Vec<PointLabel>, RepositoryError> {
        self.repository().labels()
    }

    /// Whether there is a log that shows a newest moment.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn has_now(&self) -> Result<bool, RepositoryError> {
        if self.labels()?.is_empty() {
            return Ok(false);
        }
        let has_log = self.repository().history.is_some();
        if !has_log {
            // The first point turns history on, and may be younger than this process.
            *locked(&self.repository) = Arc::new(Repository::open(&self.standby, self.state.as_deref())?);
        }
        Ok(self.repository().history.is_some())
    }

    /// What can be told of a point without opening its view.
    ///
    /// # Errors
    /// Where the manifests cannot be read that would tell.
    pub fn top(&self, label: &PointLabel) -> Result<Top, ViewError> {
        if let Some(top) = locked(&self.tops).get(label) {
            return Ok(top.clone());
        }
        let top = self.read_top(label).or_else(|error| self.unless_gone(label, error))?;
        locked(&self.tops).insert(*label, top.clone());
        Ok(top)
    }

    fn read_top(&self, label: &PointLabel) -> Result<Top, RepositoryError> {
        let repository = self.repository();
        let root = |manifest: &Manifest| -> Result<Option<Meta>, RepositoryError> {
            Ok(manifest.get(&TreePath::root())?.and_then(|record| record.state).map(|(meta, _)| meta))
        };
        let manifest = repository.manifest(label)?;
        let meta = match root(&manifest)? {
            None if label.kind() == PointKind::Differential => root(&repository.manifest(&label.full_label())?)?,
            own => own,
        };
        // A point of nothing has no root.
        let meta = meta.unwrap_or_else(|| Meta { mode: 0o500, ..Meta::default() });
        Ok(Top { meta, counts: counts(manifest.header()) })
    }

    fn unless_gone<T>(&self, label: &PointLabel, error: RepositoryError) -> Result<T, ViewError> {
        match self.labels()?.contains(label) {
            true => Err(error.into()),
            false => Err(ViewError::Gone),
        }
    }

    /// The view of a moment, opened where it is not open. That of the newest is brought up to date.
    ///
    /// # Errors
    /// Where there is no such point, or it cannot be read.
    pub fn view(&self, which: Which) -> Result<Arc<Opened>, ViewError> {
        let slot = locked(&self.slots).entry(which).or_default().clone();
        slot.used.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        let mut current = locked(&slot.current);
        let found = match which {
            Which::Point(label) => self.point(&mut current, label),
            Which::Now => self.now(&mut current),
        };
        drop(current);
        self.let_go(which, found.is_ok());
        found
    }

    fn point(&self, current: &mut Option<Current>, label: PointLabel) -> Result<Arc<Opened>, ViewError> {
        if let Some(current) = current {
            return Ok(current.opened.clone());
        }
        let opened =
            self.read(Which::Point(label), &At::Point(label)).or_else(|error| self.unless_gone(&label, error))?;
        // Expiring takes the name away first: while it is there, all that is beneath it is, and is open now.
        if !self.labels()?.contains(&label) {
            return Err(ViewError::Gone);
        }
        *current = Some(Current { opened: opened.clone(), stamp: (None, None), checked: Instant::now() });
        Ok(opened)
    }

    fn now(&self, current: &mut Option<Current>) -> Result<Arc<Opened>, ViewError> {
        if let Some(current) = current.as_ref().filter(|current| current.checked.elapsed() < self.limits.refresh) {
            return Ok(current.opened.clone());
        }
        if !self.has_now()? {
            *current = None;
            return Err(ViewError::Gone);
        }
        let repository = self.repository();
        let segments = repository.history.as_ref().map(|history| history.segments()).transpose();
        let last = segments.map_err(RepositoryError::from)?.and_then(|segments| segments.last().copied());
        let stamp = (self.labels()?.last().copied(), last);
        let opened = match current.take() {
            Some(before) if before.stamp == stamp => before.opened,
            Some(before) if before.stamp.0 == stamp.0 => self.caught_up(before.opened, &repository)?,
            _ => self.read(Which::Now, &At::Newest)?,
        };
        *current = Some(Current { opened: opened.clone(), stamp, checked: Instant::now() });
        Ok(opened)
    }

    /// A view that nobody else has in hand goes on from where it is.
    fn caught_up(&self, opened: Arc<Opened>, repository: &Repository) -> Result<Arc<Opened>, RepositoryError> {
        match Arc::try_unwrap(opened) {
            Ok(Opened { which, mut view, .. }) => {
                view.problems.clear();
                view.catch_up(repository)?;
                Ok(self.numbered(which, view))
            }
            Err(_) => self.read(Which::Now, &At::Newest),
        }
    }

    fn read(&self, which: Which, at: &At) -> Result<Arc<Opened>, RepositoryError> {
        Ok(self.numbered(which, View::open(&self.repository(), at)?))
    }

    fn numbered(&self, which: Which, view: View) -> Arc<Opened> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        Arc::new(Opened { which, number, view, links: OnceLock::new() })
    }

    /// Closes what is more than the limit, the longest unused first.
    fn let_go(&self, just_used: Which, is_open: bool) {
        let mut slots = locked(&self.slots);
        if !is_open {
            slots.remove(&just_used);
        }
        while slots.len() > self.limits.views.max(1) {
            let others = slots.iter().filter(|(which, _)| **which != just_used);
            let Some(oldest) = others.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed)) else { return };
            let oldest = *oldest.0;
            slots.remove(&oldest);
        }
    }

    /// Closes views that nobody uses any more, and those of points that have gone: their space on the disk is free then.
    pub fn tidy(&self) {
        let Ok(labels) = self.labels() else { return };
        let now = self.began.elapsed();
        locked(&self.slots).retain(|which, slot| {
            let used = Duration::from_millis(slot.used.load(Ordering::Relaxed));
            let is_there = match which {
                Which::Point(label) => labels.contains(label),
                Which::Now => true,
            };
            is_there && now.saturating_sub(used) < self.limits.idle
        });
        locked(&self.tops).retain(|label, _| labels.contains(label));
        // The directories of points are kept open by their names.
        let repository = self.repository();
        labels.first().iter().for_each(|label| repository.place(label).0.forget_open());
    }
}
