//! Both ends of a session with faults in them, and the points of a sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use super::{
    Pair, Run, Tree, actual_mirror, assert_mirrored, differences, expected_mirror, finish, messages_by_content,
    read_tree, shown,
};

/// Hands the far end faults of its own, and keeps the near end's from it.
pub const FAR_END_WITH_FAULTS: &str = r#"shift
unset MAILTWIN_FAULT MAILTWIN_FAULT_COUNT
[ -z "$FAR_FAULT" ] || export MAILTWIN_FAULT="$FAR_FAULT"
[ -z "$FAR_COUNT" ] || export MAILTWIN_FAULT_COUNT="$FAR_COUNT"
exec "$@""#;

/// Which process a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// One process that holds both ends.
    Both,
    /// The master's.
    Near,
    /// The slave's.
    Far,
}

impl End {
    /// A pair whose end can be struck.
    pub fn pair(self) -> Pair {
        let mut pair = Pair::new();
        if self != Self::Both {
            pair.connect_by(FAR_END_WITH_FAULTS);
        }
        pair
    }

    fn fault_variable(self) -> &'static str {
        match self {
            Self::Far => "FAR_FAULT",
            Self::Both | Self::Near => "MAILTWIN_FAULT",
        }
    }

    fn count_variable(self) -> &'static str {
        match self {
            Self::Far => "FAR_COUNT",
            Self::Both | Self::Near => "MAILTWIN_FAULT_COUNT",
        }
    }
}

/// How a sweep lets a plan pass that removes much of a small tree: the guard is another test's business.
pub const UNGUARDED: [&str; 2] = ["--max-delete", "100%"];

fn unguarded(pair: &Pair) -> Command {
    let mut command = pair.command(&UNGUARDED);
    command.env_remove("FAR_FAULT").env_remove("FAR_COUNT");
    command
}

/// One run with a fault.
pub fn struck(pair: &Pair, end: End, fault: &str) -> Run {
    finish(unguarded(pair).env(end.fault_variable(), fault))
}

/// One run without a fault; the number of disk steps that the end took.
pub fn steps_of(pair: &Pair, end: End) -> u64 {
    let counted = pair.path("steps");
    let _ = fs::remove_file(&counted);
    finish(unguarded(pair).env(end.count_variable(), &counted)).done();
    let text =
        fs::read_to_string(&counted).unwrap_or_else(|error| panic!("MAILTWIN_FAULT_COUNT wrote nothing: {error}"));
    text.lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or_else(|| panic!("not a count of steps: {text:?}"))
}

/// Takes a pair back to the time before its first run.
pub fn forget_the_mirror(pair: &Pair) {
    for path in [&pair.mirror, &pair.state] {
        if path.exists() {
            fs::remove_dir_all(path).unwrap_or_else(|error| panic!("cannot remove {}: {error}", path.display()));
        }
    }
}

/// Runs without a fault until nothing is left to do, and asserts that this is one run.
pub fn settle(pair: &Pair, after: &str) {
    let run = finish(&mut unguarded(pair));
    assert_eq!(run.code(), Some(0), "after {after}: {}", run.story());
    assert!(run.report().in_sync(), "after {after}: {}", run.story());
    let differing = differences(&expected_mirror(pair), &actual_mirror(pair));
    assert!(
        differing.is_empty(),
        "after {after}, and a run that ended well, the mirror is not the source:\n{}",
        differing.join("\n")
    );
}

/// Whether the environment asks for every point of every sweep.
pub fn full_sweep() -> bool {
    std::env::var_os("MAILTWIN_FULL_SWEEP").is_some_and(|value| value == "1")
}

/// The points to try of `1..=total`: all of them in a full sweep; else about `most`, the first few and the last few
/// among them, where files are made and where the end is declared.
pub fn points(total: u64, most: u64) -> Vec<u64> {
    if full_sweep() || total <= most {
        return (1..=total).collect();
    }
    let ends = most / 5;
    let stride = (total / (most - 2 * ends)).max(1) as usize;
    let spread = (1..=total).step_by(stride);
    let all: BTreeSet<u64> = spread.chain(1..=ends).chain(total - ends + 1..=total).collect();
    all.into_iter().collect()
}

/// What must hold whatever happens between one sync and the next.
pub struct Witness {
    source: Tree,
    kept: BTreeSet<(u64, u64)>,
}

impl Witness {
    /// Notes the source, and which messages are both in it and on the mirror: these may not be missing for a moment.
    pub fn of(pair: &Pair) -> Self {
        let source = read_tree(&pair.source);
        let kept = if pair.mirror.is_dir() {
            let here = messages_by_content(&actual_mirror(pair));
            messages_by_content(&source).into_keys().filter(|content| here.contains_key(content)).collect()
        } else {
            BTreeSet::new()
        };
        Self { source, kept }
    }

    /// Asserts that none of these messages is missing or doubled, and that the source was not written to.
    pub fn confirm(&self, pair: &Pair, after: &str) {
        let wrongs = self.wrongs(pair);
        assert!(wrongs.is_empty(), "after {after}:\n{}", wrongs.join("\n"));
    }

    /// What `confirm` would complain about.
    pub fn wrongs(&self, pair: &Pair) -> Vec<String> {
        let mut wrongs = differences(&self.source, &read_tree(&pair.source));
        if pair.mirror.is_dir() {
            let there = messages_by_content(&actual_mirror(pair));
            wrongs.extend(self.missing(&there));
            wrongs.extend(doubled(&there));
        } else if !self.kept.is_empty() {
            wrongs.push("the mirror is gone".to_owned());
        }
        wrongs
    }

    fn missing(&self, there: &Messages) -> Vec<String> {
        let here = messages_by_content(&self.source);
        self.kept
            .iter()
            .filter(|content| !there.contains_key(content))
            .map(|content| format!("no longer on the mirror: {}", all_shown(&here[content])))
            .collect()
    }
}

type Messages = BTreeMap<(u64, u64), Vec<Vec<u8>>>;

/// Messages that one folder holds under two names.
fn doubled(there: &Messages) -> Vec<String> {
    let is_doubled = |paths: &Vec<Vec<u8>>| {
        let unique: BTreeSet<_> = paths.iter().map(|path| folder_and_base(path)).collect();
        unique.len() < paths.len()
    };
    let found = there.values().filter(|paths| is_doubled(paths));
    found.map(|paths| format!("twice on the mirror: {}", all_shown(paths))).collect()
}

fn all_shown(paths: &[Vec<u8>]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| shown(path)).collect();
    shown.join(", ")
}

/// The folder's path and the message's base name: a message may have one file by this key.
fn folder_and_base(path: &[u8]) -> Vec<u8> {
    let name_at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let folder = &path[..name_at.saturating_sub(4)];
    let name = &path[name_at..];
    let end = name.iter().position(|byte| *byte == b':');
    [folder, &name[..end.unwrap_or(name.len())]].concat()
}

/// Asserts that a run which says that all is well tells the truth.
pub fn assert_no_boast(pair: &Pair, run: &Run, after: &str) {
    if run.code() == Some(0) {
        assert!(run.report().in_sync(), "after {after}: {}", run.story());
        assert_mirrored(pair);
    }
}
