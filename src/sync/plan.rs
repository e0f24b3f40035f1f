//! From what was seen to what is to be done, in the order in which it must be done.
//!
//! Pure. Within a folder (DOVECOT.md 8.4): keywords, then the uidlist, then messages in, then renames, then
//! messages out; so that at no step a name uses a keyword that is not defined, or a message has no UID.

use crate::catalogue::scan::{Diff, Found};
use crate::maildir::change::Change;
use crate::maildir::entry::{Kind, Known, Local, Look};
use crate::path::TreePath;
use std::collections::HashSet;

/// One step of a shipment. What a content becomes is known when it has been read.
#[derive(Debug)]
pub enum Step {
    /// Settled already.
    Change(Change),
    /// A file to be read and sent, patched, or found to be there already.
    Content(Found),
    /// A file whose inode is recorded under another name: a link or a move.
    Linked(Found),
    /// A name that is gone.
    Gone(TreePath, Known),
}

/// What is done of one or more units in one batch, and what is noted when it is done.
#[derive(Debug, Default)]
pub struct Shipment {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Observations of directories.
    pub looks: Vec<(TreePath, Look)>,
    /// Observations of files.
    pub learned: Vec<(TreePath, Local)>,
    /// Bytes of content that are to be read.
    pub bytes: u64,
}

impl Shipment {
    /// Whether there is nothing to do and nothing to note.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.looks.is_empty() && self.learned.is_empty()
    }

    /// Adds a unit. `is_linked` tells whether an inode is recorded under another name.
    pub fn add(&mut self, diff: Diff, mut is_linked: impl FnMut(&Found) -> bool) {
        let mut step = |step| self.steps.push(step);
        // Where something else has the name of a directory now, the directory goes first.
        let arriving: HashSet<&TreePath> = diff.files.iter().map(|found| &found.path).collect();
        let (first, vanished): (Vec<_>, Vec<_>) =
            diff.vanished.into_iter().partition(|(path, _)| arriving.contains(path));
        for (path, known) in first {
            step(Step::Gone(path, known));
        }
        for (path, meta) in diff.directories {
            step(Step::Change(Change::MakeDirectory { path, meta }));
        }
        let mut files = diff.files;
        files.sort_by_key(|found| rank(&found.path));
        for found in files.into_iter().chain(diff.messages) {
            self.bytes += found.stat.size;
            let linked = is_linked(&found);
            step(if linked { Step::Linked(found) } else { Step::Content(found) });
        }
        for (from, known, to) in diff.renamed {
            let mark = known.entry.mark();
            self.learned.push((to.clone(), known.local));
            step(Step::Change(Change::Rename { from, to, mark }));
        }
        for (path, meta, group) in diff.metadata {
            step(Step::Change(Change::SetMeta { path, meta, group }));
        }
        for path in diff.forgotten {
            step(Step::Change(Change::Forget { path }));
        }
        for (path, known) in vanished {
            step(Step::Gone(path, known));
        }
        self.looks.extend(diff.looks);
        self.learned.extend(diff.learned);
    }
}

/// Keywords first, the uidlist next, then the rest.
fn rank(path: &TreePath) -> u8 {
    match path.name() {
        b"dovecot-keywords" => 0,
        b"dovecot-uidlist" => 1,
        _ => 2,
    }
}

/// The removal of a name.
pub fn removal(path: TreePath, known: &Known) -> Change {
    match known.entry.kind {
        Kind::Directory => Change::RemoveDirectory { path },
        _ => Change::Remove { path, mark: known.entry.mark() },
    }
}

/// The order in which units that lost messages are done: one that received a message comes before the one
/// that lost it, so that every message is always somewhere. `receives(a, b)` says that `a` received from `b`.
///
/// Units of one group are done together: in a ring of moves nobody can be first.
pub fn order<T>(mut units: Vec<T>, receives: impl Fn(&T, &T) -> bool) -> Vec<Vec<T>> {
    let mut ordered = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let is_free = |at: usize| {
            let waits_for = |other: usize| other != at && receives(&units[other], &units[at]);
            !(0..units.len()).any(waits_for)
        };
        match (0..units.len()).find(|&at| is_free(at)) {
            Some(next) => ordered.push(vec![units.remove(next)]),
            None => ordered.push(std::mem::take(&mut units)),
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::entry::{Entry, Mark, Meta};
    use crate::path::Name;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a good path")
    }

    fn link(name: &str) -> Known {
        let name = Name::new(name.as_bytes()).expect("a name");
        let entry = Entry { name, meta: Meta::default(), kind: Kind::Symlink(b"x".to_vec()) };
        Known { entry, local: Local::default() }
    }

    #[test]
    fn removals_come_last() {
        let diff = Diff {
            directories: vec![(path("u"), Meta::default())],
            vanished: vec![(path("u/gone"), link("gone"))],
            renamed: vec![(path("u/a"), link("a"), path("u/b"))],
            ..Diff::default()
        };
        let mut shipment = Shipment::default();
        shipment.add(diff, |_| false);
        assert!(matches!(shipment.steps[0], Step::Change(Change::MakeDirectory { .. })));
        assert!(matches!(shipment.steps[1], Step::Change(Change::Rename { .. })));
        assert!(matches!(shipment.steps[2], Step::Gone(..)));
        let removed = removal(path("u/gone"), &link("gone"));
        assert_eq!(removed, Change::Remove { path: path("u/gone"), mark: Mark::default() });
    }

    #[test]
    fn the_keywords_file_comes_before_the_uidlist_and_both_before_the_rest() {
        let mut names = ["u/subscriptions", "u/dovecot-uidlist", "u/dovecot-keywords"].map(path);
        names.sort_by_key(rank);
        assert_eq!(names.map(|name| rank(&name)), [0, 1, 2]);
    }

    #[test]
    fn who_received_comes_before_who_lost() {
        let receives = |a: &char, b: &char| matches!((a, b), ('c', 'a') | ('b', 'c'));
        assert_eq!(order(vec!['a', 'b', 'c'], receives), [['b'], ['c'], ['a']]);
        let ring = |a: &char, b: &char| a != b;
        assert_eq!(order(vec!['a', 'b'], ring), [['a', 'b']]);
    }
}
