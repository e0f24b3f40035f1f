//! What the quick look expects of every unit, in one small file beside the catalogue.
//!
//! The rows of the units lie scattered through a database that is mostly entries of messages: reading them costs more
//! than a thousand reads where the tree has thousands of folders, and as many waits for the disk where its pages are
//! not in memory. A run that finds every unit as recorded writes down what it looked for, and the next one reads that in
//! one stretch. It counts for as long as nobody wrote to the catalogue, whose times and length it carries; a lost or
//! damaged one costs what it saves, and no more.

use super::{Check, Scanner};
use crate::catalogue::edit::Edit;
use crate::catalogue::store::Catalogue;
use crate::disk::{Near, Root};
use crate::id::Digest;
use crate::maildir::entry::Time;
use crate::path::TreePath;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::PathBuf;

/// The version of the form.
const VERSION: u16 = 1;

/// A longer file is not read: a set of so many folders is looked at by its rows.
const LONGEST: u64 = 64 << 20;

/// Bytes of the digest at the end.
const DIGEST: usize = 32;

/// For which catalogue, read by which rules, the file counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u16,
    ino: u64,
    size: u64,
    mtime: Time,
    ctime: Time,
    rules: Digest,
}

/// A unit: how many checks follow.
#[derive(Serialize, Deserialize)]
struct Unit<'a> {
    #[serde(with = "serde_bytes")]
    path: &'a [u8],
    checks: u32,
}

/// What counts now, and where it is kept. `None` where nothing may be written, or the catalogue was written to so
/// shortly ago that its times would not tell.
#[derive(Clone)]
pub struct Shelf {
    head: Head,
    state: PathBuf,
}

impl Shelf {
    /// As the catalogue is now.
    pub fn of(catalogue: &Catalogue, scanner: &Scanner<'_>, edit: &Edit<'_>) -> Option<Self> {
        let stamp = catalogue.stamp()?;
        let rules = scanner.rules;
        let told = format!(
            "{:?} {:?} {} {} {:?}",
            rules.kind, rules.chown, rules.owners, rules.trust_names, edit.head.filters
        );
        let head = Head {
            version: VERSION,
            ino: stamp.ino,
            size: stamp.size,
            mtime: stamp.mtime,
            ctime: stamp.ctime,
            rules: Digest::of(told.as_bytes()),
        };
        Some(Self { head, state: catalogue.state()?.to_owned() })
    }

    /// Reads what an earlier run wrote down, where it still counts.
    pub fn read(&self) -> Option<Sketch> {
        let file = Root::open(&self.state).ok()?.open_file(&path()).ok()?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).ok()?;
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if Digest::of(body).0[..] != *digest {
            return None;
        }
        let (head, rest) = postcard::take_from_bytes::<Head>(body).ok()?;
        let begin = body.len() - rest.len();
        bytes.truncate(bytes.len() - DIGEST);
        (head == self.head).then_some(Sketch { bytes, begin })
    }

    /// Keeps what was looked for. It is no loss where the disk refuses.
    pub fn keep(&self, draft: &Draft) {
        let Ok(mut bytes) = postcard::to_stdvec(&self.head) else { return };
        bytes.extend_from_slice(&draft.bytes);
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);
        let written = Root::open(&self.state).and_then(|state| {
            let mut writer = state.open_or_create(&path())?;
            writer.set_length(0)?;
            writer.write(&bytes)
        });
        drop(written);
    }
}

/// What a run looks for, as it goes.
#[derive(Default)]
pub struct Draft {
    bytes: Vec<u8>,
}

impl Draft {
    /// Notes a unit.
    pub fn unit(&mut self, path: &TreePath, checks: &[Check<'_>]) {
        let unit = Unit { path: path.as_bytes(), checks: checks.len() as u32 };
        self.note(&unit);
        for check in checks {
            self.note(check);
        }
    }

    fn note(&mut self, value: &impl Serialize) {
        // Only memory could end.
        if let Ok(bytes) = postcard::to_extend(value, std::mem::take(&mut self.bytes)) {
            self.bytes = bytes;
        }
    }
}

/// What an earlier run looked for.
pub struct Sketch {
    bytes: Vec<u8>,
    begin: usize,
}

impl Sketch {
    /// Looks at every unit, and hands over whether it was as expected. `None` where the file makes no sense.
    pub fn look(&self, scanner: &Scanner<'_>, mut each: impl FnMut(&TreePath, bool)) -> Option<()> {
        let mut near = Near::new(scanner.root);
        let mut rest = self.bytes.get(self.begin..)?;
        while !rest.is_empty() {
            let (unit, behind) = postcard::take_from_bytes::<Unit<'_>>(rest).ok()?;
            rest = behind;
            let path = match unit.path {
                b"" => TreePath::root(),
                path => TreePath::new(path).ok()?,
            };
            let mut is_met = true;
            for _ in 0..unit.checks {
                let (check, behind) = postcard::take_from_bytes::<Check<'_>>(rest).ok()?;
                rest = behind;
                is_met = is_met && scanner.meets(&mut near, &path, &check);
            }
            each(&path, is_met);
        }
        Some(())
    }
}

fn path() -> TreePath {
    TreePath::root().child("sketch")
}
