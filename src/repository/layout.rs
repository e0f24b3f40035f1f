//! Where a repository keeps what: `points/LABEL/` in the state of a standby, beside its `log/`.
//!
//! A point is a directory with a manifest and the segments that it needs, under their numbers: hard links. It appears
//! by a rename, whole or not at all. `about` beside the manifest is what a person, or a check, says of it later.

use super::label::PointLabel;
use super::manifest::{Header, Manifest, ManifestError};
use crate::disk::{DiskError, Root, Writer};
use crate::log::history::History;
use crate::log::segment::SegmentError;
use crate::maildir::entry::Time;
use crate::path::{Name, TreePath};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The log.
    #[error(transparent)]
    Log(#[from] SegmentError),
    /// A content.
    #[error(transparent)]
    Content(#[from] super::contents::ContentError),
    /// What was asked for is not there, or cannot be done.
    #[error("{0}")]
    Failed(String),
}

type Result<T> = std::result::Result<T, RepositoryError>;

impl RepositoryError {
    /// Whether it is for want of room on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk(error) | Self::Manifest(ManifestError::Disk(error)) | Self::Log(SegmentError::Disk(error)) => {
                error.is_full()
            }
            _ => false,
        }
    }

    /// Whether it is for want of the right to write.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_denied())
    }
}

/// What is said of a point after it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct About {
    /// It never expires.
    #[serde(default)]
    pub pinned: bool,
    /// A person's words.
    #[serde(default)]
    pub note: String,
    /// When it was last found whole.
    #[serde(default)]
    pub verified: Option<Time>,
    /// How it was verified.
    #[serde(default)]
    pub verified_how: String,
    /// The last drill: what of it was restored, and how that went.
    #[serde(default)]
    pub drilled: Option<Drilled>,
}

/// What is remembered of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// When it began.
    pub when: Time,
    /// The moment that was restored: the point's, or a later one of the log behind it.
    pub moment: Time,
    /// Mailboxes that were restored.
    pub mailboxes: u64,
    /// Messages in them that came back and were right.
    pub messages: u64,
    /// Bytes in files that came back and were right.
    pub bytes: u64,
    /// How long the restore took, without the comparison.
    pub milliseconds: u64,
    /// Everything was as it should be.
    pub is_whole: bool,
}

/// A restore point.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its label.
    pub label: PointLabel,
    /// What its manifest says of it.
    pub header: Header,
    /// What was said of it later.
    pub about: About,
    /// Bytes on disk that go with it when it expires: files that nothing else links to.
    pub own_bytes: u64,
    /// Bytes on disk of what is in its directory; a differential needs those of its full as well.
    pub bytes_on_disk: u64,
}

/// The repository of one standby.
pub struct Repository {
    /// The standby's state.
    pub state: Root,
    /// The log, where history is on.
    pub history: Option<History>,
}

const POINTS: &str = "points";
const MANIFEST: &str = "manifest";
const ABOUT: &str = "about";

/// Names that begin so are points in the making.
const MAKING: &str = ".making-";

impl Repository {
    /// Opens the repository in the state of a standby. Nothing is made: who may only read can look.
    ///
    /// # Errors
    /// Where there is no such state.
    pub fn open(standby: &Path, state: Option<&Path>) -> Result<Self> {
        let opened = match state {
            Some(state) => Root::open(state),
            None => Root::open(standby).and_then(|root| root.open_own(".mailtwin")),
        };
        let state = opened.map_err(|error| match error.is_not_found() {
            true => RepositoryError::Failed(format!(
                "{} is not a standby: it has no .mailtwin; name the directory that mailtwin sync made",
                crate::path::escape(std::os::unix::ffi::OsStrExt::as_bytes(standby.as_os_str()))
            )),
            false => error.into(),
        })?;
        let history = History::open(&state)?;
        Ok(Self { state, history })
    }

    /// Only one command at a time changes the points.
    ///
    /// # Errors
    /// Where the disk refuses. `None` where another command holds the lock.
    pub fn lock(&self) -> Result<Option<Writer>> {
        Ok(self.state.lock("repository.lock")?)
    }

    /// Holds back the room by which [`super::expire`] can work on a full disk. Gives why not, for a person.
    pub fn hold_back(&self) -> Option<String> {
        let error = super::reserve::hold(&self.state).err()?;
        Some(format!("no room is held back by which mailtwin expire could run on a full disk: {error}"))
    }

    /// Removes what killed commands left half made. The lock must be held.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn clear(&self) -> Result<()> {
        for name in self.names()?.iter().filter(|name| name.as_bytes().starts_with(MAKING.as_bytes())) {
            self.state.remove_directory(&Self::points_directory().join(name))?;
        }
        Ok(())
    }

    /// What is in the directory of points; where there is none, nothing.
    fn names(&self) -> Result<Vec<Name>> {
        match self.state.list(&Self::points_directory(), 64) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
            Ok((listing, _)) => Ok(listing.entries.into_iter().map(|entry| entry.name).collect()),
        }
    }

    /// The labels, oldest first.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn labels(&self) -> Result<Vec<PointLabel>> {
        let label = |name: &Name| std::str::from_utf8(name.as_bytes()).ok()?.parse::<PointLabel>().ok();
        let mut labels: Vec<PointLabel> = self.names()?.iter().filter_map(label).collect();
        labels.sort();
        Ok(labels)
    }

    /// The points, oldest first, and what is wrong with those that cannot be read.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn points(&self) -> Result<(Vec<Point>, Vec<RepositoryError>)> {
        let (mut points, mut wrong) = (Vec::new(), Vec::new());
        for label in self.labels()? {
            match self.point(&label) {
                Ok(point) => points.push(point),
                Err(error) => wrong.push(error),
            }
        }
        Ok((points, wrong))
    }

    /// One point.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn point(&self, label: &PointLabel) -> Result<Point> {
        let header = self.manifest(label)?.header().clone();
        let directory = Self::directory(label);
        let (listing, _) = self.state.list(&directory, 64)?;
        let (mut own_bytes, mut bytes_on_disk) = (0, 0);
        for entry in &listing.entries {
            let stat = self.state.stat(&directory.join(&entry.name))?;
            bytes_on_disk += stat.size;
            own_bytes += if stat.links == 1 { stat.size } else { 0 };
        }
        Ok(Point { label: *label, header, about: self.about(label)?, own_bytes, bytes_on_disk })
    }

    /// Opens a point's manifest.
    ///
    /// # Errors
    /// Where it is damaged, or not there.
    pub fn manifest(&self, label: &PointLabel) -> Result<Manifest> {
        let path = Self::directory(label).child(MANIFEST);
        if self.state.stat_if_there(&path)?.is_none() {
            return Err(RepositoryError::Failed(format!(
                "there is no restore point {label}: mailtwin points lists them"
            )));
        }
        Ok(Manifest::open(&self.state, &path)?)
    }

    /// What was said of a point.
    ///
    /// # Errors
    /// Where the disk refuses. What cannot be understood was never said.
    pub fn about(&self, label: &PointLabel) -> Result<About> {
        let mut text = String::new();
        match self.state.open_file(&Self::directory(label).child(ABOUT)) {
            Err(error) if error.is_not_found() => return Ok(About::default()),
            Err(error) => return Err(error.into()),
            Ok(file) => drop(file.take(1 << 20).read_to_string(&mut text)),
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Says something of a point.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_about(&self, label: &PointLabel, about: &About) -> Result<()> {
        let directory = Self::directory(label);
        let (path, draft) = (directory.child(ABOUT), directory.child("about.new"));
        if self.state.stat_if_there(&draft)?.is_some() {
            self.state.remove(&draft)?;
        }
        let mut writer = self.state.create(&draft, 0o600)?;
        let text = serde_json::to_string(about).unwrap_or_default();
        writer.write(text.as_bytes())?;
        writer.sync()?;
        self.state.rename(&draft, &path)?;
        Ok(self.state.sync_directory(&directory)?)
    }

    /// Where a point's directory is.
    pub fn place(&self, label: &PointLabel) -> (&Root, TreePath) {
        (&self.state, Self::directory(label))
    }

    fn points_directory() -> TreePath {
        TreePath::root().child(POINTS)
    }

    fn directory(label: &PointLabel) -> TreePath {
        Self::points_directory().child(&label.to_string())
    }

    /// The name of a point in the making, or on its way out.
    fn making(label: &PointLabel) -> TreePath {
        Self::points_directory().child(&format!("{MAKING}{label}"))
    }

    /// Begins a point: its directory under another name.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn begin(&self, label: &PointLabel) -> Result<Making<'_>> {
        self.state.make_directory(&Self::points_directory())?;
        self.state.sync_directory(&TreePath::root())?;
        let directory = Self::making(label);
        self.state.make_directory(&directory)?;
        Ok(Making { state: &self.state, directory, label: *label })
    }

    /// Removes a point: first its name, so that no half of it is ever taken for one. Where that failed in its middle it
    /// can be called again.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove(&self, label: &PointLabel) -> Result<()> {
        let going = Self::making(label);
        if self.state.stat_if_there(&going)?.is_none() {
            self.state.rename_directory(&Self::directory(label), &going)?;
        }
        self.state.sync_directory(&Self::points_directory())?;
        Ok(self.state.remove_directory(&going)?)
    }
}

/// A point that is being made.
pub struct Making<'a> {
    state: &'a Root,
    directory: TreePath,
    label: PointLabel,
}

impl Making<'_> {
    /// Creates the manifest's file.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn manifest(&self) -> Result<Writer> {
        Ok(self.state.create(&self.directory.child(MANIFEST), 0o600)?)
    }

    /// Creates a segment of the point's own.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn segment(&self, number: u64) -> Result<Writer> {
        Ok(self.state.create(&self.directory.child(&History::name(number)), 0o600)?)
    }

    /// Links a segment from elsewhere.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn link(&self, root: &Root, path: &TreePath, number: u64) -> Result<()> {
        Ok(root.link_into(path, self.state, &self.directory.child(&History::name(number)))?)
    }

    /// Opens a segment of the point's own, to read it.
    pub fn place(&self, number: u64) -> (&Root, TreePath) {
        (self.state, self.directory.child(&History::name(number)))
    }

    /// Makes the point one: everything in it is durable.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn finish(self) -> Result<()> {
        self.state.sync_directory(&self.directory)?;
        self.state.rename_directory(&self.directory, &Repository::directory(&self.label))?;
        Ok(self.state.sync_directory(&Repository::points_directory())?)
    }
}
