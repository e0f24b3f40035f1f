//! `drill`: some mailboxes are restored for good measure, held against what the point says, and thrown away.
//!
//! Layer 6: it uses `restore` as a person would. The restored tree is then read again, with eyes of its own: every byte,
//! name, mode and time. It lies in a directory that nobody else can enter, and is removed whatever comes of it; where the
//! process is killed first, the next drill removes it, because where it was going to be was noted before it was made.

use crate::disk::{DiskError, Root, Writer, now};
use crate::id::Position;
use crate::maildir::entry::Time;
use crate::maildir::folder;
use crate::monitor::Problem;
use crate::path::TreePath;
use crate::repository::label::PointLabel;
use crate::repository::layout::{About, Drilled, Repository, RepositoryError};
use crate::repository::mailbox;
use crate::repository::record::Record;
use crate::repository::view::{At, View};
use crate::restore::{self, RestoreError};
use compare::Comparison;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub mod compare;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The restore ended early.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another drill is at work.
    #[error("another drill of {0} is at work: wait until it has ended")]
    Locked(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Failed(String),
}

impl DrillError {
    /// The exit code that belongs to it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked(_) => 10,
            Self::Restore(error) => error.exit_code(),
            _ => 1,
        }
    }
}

type Result<T> = std::result::Result<T, DrillError>;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The standby.
    pub standby: PathBuf,
    /// Which moment is restored.
    pub at: At,
    /// How many mailboxes; all of them where there are fewer.
    pub mailboxes: usize,
    /// In which directory; `None`: beside the standby's state, or beside the standby.
    pub place: Option<PathBuf>,
    /// Decides which mailboxes.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The point that the moment begins with.
    pub label: Option<PointLabel>,
    /// The last batch that was restored.
    pub position: Position,
    /// When that was.
    pub moment: Time,
    /// The mailboxes.
    pub mailboxes: Vec<TreePath>,
    /// Of how many.
    pub of: usize,
    /// Messages that came back and are right.
    pub messages: u64,
    /// Regular files that came back and are right, messages among them.
    pub files: u64,
    /// Bytes in these files.
    pub bytes: u64,
    /// How long the restore took.
    pub took: Duration,
    /// How long it took to hold it against the point.
    pub compared: Duration,
    /// What did not come back as it was.
    pub differing: Vec<Problem>,
    /// Messages that the mirror has, too, and that were held against it.
    pub on_mirror: u64,
    /// Those of them that are another content there.
    pub mirror_differs: Vec<Problem>,
    /// Something a person should know that is no difference.
    pub warnings: Vec<String>,
    /// It stands beside the point; not where another command was changing the points.
    pub is_noted: bool,
}

impl Report {
    /// Whether everything came back as it was.
    pub fn is_whole(&self) -> bool {
        self.differing.is_empty() && self.mirror_differs.is_empty()
    }
}

/// The file in the state that says where the last drill was going to restore to, while it is at work.
const PLACE: &str = "drill";

/// Restores, compares, and removes what was restored.
///
/// # Errors
/// Where nothing could be restored, or what was restored could not be removed.
pub fn run(repository: &Repository, request: &Request) -> Result<Report> {
    let mirror = Root::open(&request.standby)?;
    let show = mirror.show(&TreePath::root());
    let _lock: Writer = repository.state.lock("drill.lock")?.ok_or(DrillError::Locked(show))?;
    let name = format!("mailtwin-drill-{:016x}", mirror.identity()?);
    remove_leftover(repository, &name)?;
    let place = match &request.place {
        Some(place) => std::path::absolute(place).unwrap_or_else(|_| place.clone()),
        None => default_place(repository, &request.standby)?,
    };
    apart(&request.standby, &place)?;
    let view = View::open(repository, &request.at)?;
    let began = now();
    let mut report = Report { position: view.position, moment: view.moment, label: view.label, ..Report::default() };
    choose(&view, request, &mut report);
    let scratch = Scratch::make(repository, &place, name)?;
    let drilled = rehearse(&view, request, &mirror, &scratch, &mut report);
    let removed = scratch.remove(repository);
    drilled?;
    removed?;
    report
        .differing
        .extend(view.problems.iter().map(|problem| Problem { subject: String::new(), reason: problem.clone() }));
    note(repository, began, &mut report)?;
    Ok(report)
}

/// Beside the state; where that lies in the mirror, beside the standby.
fn default_place(repository: &Repository, standby: &Path) -> Result<PathBuf> {
    let state = repository.state.path();
    for beside in [state, standby] {
        let whole = std::fs::canonicalize(beside).map_err(|error| DrillError::Failed(error.to_string()))?;
        if let Some(above) = whole.parent()
            && apart(standby, above).is_ok()
        {
            return Ok(above.to_owned());
        }
    }
    Err(DrillError::Failed("there is no directory beside the standby: name one with --in".to_owned()))
}

/// What lies in the standby would become part of its mirror.
fn apart(standby: &Path, place: &Path) -> Result<()> {
    let Some(mirror) = Root::open(standby)?.ancestry()?.first().copied() else { return Ok(()) };
    match Root::open_above(place)?.ancestry()?.contains(&mirror) {
        true => Err(DrillError::Failed(format!(
            "{} lies in the standby: choose a directory elsewhere",
            crate::path::escape(place.as_os_str().as_bytes())
        ))),
        false => Ok(()),
    }
}

/// Picks mailboxes, each as likely as the others.
fn choose(view: &View, request: &Request, report: &mut Report) {
    let (all, unread) = mailbox::all(view);
    report.of = all.len();
    let mut ranked: Vec<(blake3::Hash, TreePath)> = all
        .into_iter()
        .map(|path| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&request.seed.to_le_bytes()).update(path.as_bytes());
            (hasher.finalize(), path)
        })
        .collect();
    ranked.sort_unstable_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
    ranked.truncate(request.mailboxes);
    report.mailboxes = ranked.into_iter().map(|(_, path)| path).collect();
    report.mailboxes.sort_by_key(crate::repository::manifest::key);
    let problem = |error: RepositoryError| Problem { subject: String::new(), reason: error.to_string() };
    report.differing.extend(unread.into_iter().map(problem));
}

fn rehearse(view: &View, request: &Request, mirror: &Root, scratch: &Scratch, report: &mut Report) -> Result<()> {
    let chosen = report.mailboxes.clone();
    let wanted = |record: &Record| chosen.iter().any(|mailbox| record.path.is_within(mailbox));
    let needed = restore::plan(view, &wanted)?.bytes;
    let room = scratch.inside.room()?;
    if room < needed {
        return Err(DrillError::Failed(format!(
            "{} has room for {room} bytes, and what was chosen has {needed}: name a directory with more room with --in",
            scratch.above.show(&TreePath::root())
        )));
    }
    let target = scratch.inside.path().join("restored");
    let began = Instant::now();
    let restored = restore::to_directory(view, "a drill", &wanted, &request.standby, &target)?;
    report.took = began.elapsed();
    report.warnings.extend(restored.warnings.iter().cloned());
    let began = Instant::now();
    let root = Root::open(&target)?;
    let newest = (request.at == At::Newest).then_some(mirror);
    Comparison::new(view, &root, newest, &restored).run(report)?;
    report.compared = began.elapsed();
    Ok(())
}

/// Writes it down beside the point.
fn note(repository: &Repository, began: Time, report: &mut Report) -> Result<()> {
    let Some(label) = report.label else { return Ok(()) };
    let Some(_lock) = repository.lock()? else { return Ok(()) };
    let drilled = Drilled {
        when: began,
        moment: report.moment,
        mailboxes: report.mailboxes.len() as u64,
        messages: report.messages,
        bytes: report.bytes,
        milliseconds: report.took.as_millis() as u64,
        is_whole: report.is_whole(),
    };
    let about = About { drilled: Some(drilled), ..repository.about(&label)? };
    repository.set_about(&label, &about)?;
    report.is_noted = true;
    Ok(())
}

/// Whether a path is that of a message.
fn is_message(path: &TreePath) -> bool {
    folder::holds_messages(path.parent().name())
}

/// The directory in which everything happens. Nobody else can enter it: what is restored there has the modes that it had.
struct Scratch {
    above: Root,
    inside: Root,
    name: String,
}

impl Scratch {
    /// Makes it; its name must be free.
    fn make(repository: &Repository, place: &Path, name: String) -> Result<Self> {
        let above = Root::open(place)?;
        let own = TreePath::root().child(&name);
        // Left by a drill whose note of it is gone.
        above.remove_directory(&own)?;
        let note = TreePath::root().child(PLACE);
        let mut writer = repository.state.create(&note, 0o600)?;
        writer.write(above.path().as_os_str().as_bytes())?;
        writer.sync()?;
        repository.state.sync_directory(&TreePath::root())?;
        let made = above.make_directory(&own).and_then(|is_new| Ok(is_new.then_some(above.open_own(&name)?)));
        match made {
            Ok(Some(inside)) => Ok(Self { above, inside, name }),
            // Somebody who was quicker could read what comes into it.
            Ok(None) => Err(DrillError::Failed(format!("{} is there already", above.show(&own)))),
            Err(error) => {
                above.remove_directory(&own)?;
                repository.state.remove(&note)?;
                Err(error.into())
            }
        }
    }

    fn remove(self, repository: &Repository) -> Result<()> {
        self.above.remove_directory(&TreePath::root().child(&self.name))?;
        Ok(repository.state.remove(&TreePath::root().child(PLACE))?)
    }
}

/// Removes what a killed drill left where it was going to restore to.
fn remove_leftover(repository: &Repository, name: &str) -> Result<()> {
    let note = TreePath::root().child(PLACE);
    let mut place = Vec::new();
    match repository.state.open_file(&note) {
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(file) => {
            let failed = |source| DiskError { operation: "cannot read", path: repository.state.show(&note), source };
            file.take(1 << 16).read_to_end(&mut place).map_err(failed)?;
        }
    }
    match Root::open(Path::new(OsStr::from_bytes(&place))) {
        Ok(above) => above.remove_directory(&TreePath::root().child(name))?,
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(repository.state.remove(&note)?)
}
