//! Which records of a view are wanted, as steps in an order in which they can be done: a directory before what is in it.

use super::Wanted;
use crate::maildir::change::Change;
use crate::maildir::entry::{File, Mark, Meta};
use crate::maildir::folder;
use crate::path::TreePath;
use crate::repository::record::{Place, Record, What};
use std::collections::{HashMap, HashSet};

/// One thing to do.
pub(super) enum Step {
    /// It needs no content.
    Do(Change),
    /// A file, whose content is in the repository.
    Bring(Wish),
}

/// A file that is wanted.
pub(super) struct Wish {
    /// Its record.
    pub record: Record,
    /// Its metadata.
    pub meta: Meta,
    /// Its length.
    pub size: u64,
    /// See [`What::File`].
    pub group: u64,
    /// See [`What::File`].
    pub check: [u8; 8],
    /// See [`What::File`].
    pub place: Option<Place>,
}

impl Wish {
    /// What it will look like.
    pub fn mark(&self) -> Mark {
        Mark { size: self.size, mtime: self.meta.mtime.unwrap_or_default() }
    }

    /// Whether what is recorded as being there is it.
    pub fn is(&self, mark: Mark, file: Option<&File>) -> bool {
        mark == self.mark() && file.is_some_and(|file| file.digest.0[..8] == self.check)
    }
}

/// The walk through a view.
pub(super) struct Walk<'a> {
    wanted: Wanted<'a>,
    /// Directories above what is wanted, not made yet.
    above: Vec<(TreePath, Meta)>,
    /// Directories that are there.
    made: HashSet<TreePath>,
    /// The first file of each group of hard links that is there.
    groups: HashMap<u64, (TreePath, Mark)>,
}

impl<'a> Walk<'a> {
    pub fn new(wanted: Wanted<'a>) -> Self {
        Self { wanted, above: Vec::new(), made: HashSet::new(), groups: HashMap::new() }
    }

    /// What is to be done for a record.
    pub fn steps(&mut self, record: Record) -> Vec<Step> {
        let Some((meta, what)) = &record.state else { return Vec::new() };
        self.above.retain(|(directory, _)| record.path.is_within(directory));
        let is_wanted = (self.wanted)(&record);
        if !is_wanted {
            if *what == What::Directory {
                self.above.push((record.path.clone(), meta.clone()));
            }
            return Vec::new();
        }
        let mut steps = Vec::new();
        for (path, meta) in std::mem::take(&mut self.above) {
            steps.push(self.make(path, meta));
        }
        self.make_above(&record.path, &mut steps);
        let (path, meta) = (record.path.clone(), meta.clone());
        steps.push(match what {
            What::Directory => self.make(path, meta),
            What::Symlink(target) => Step::Do(Change::Symlink { path, meta, target: target.clone() }),
            What::File { size, group, check, place, .. } => {
                let (size, group, check, place) = (*size, *group, *check, *place);
                Step::Bring(Wish { record, meta, size, group, check, place })
            }
        });
        steps
    }

    fn make(&mut self, path: TreePath, meta: Meta) -> Step {
        self.made.insert(path.clone());
        Step::Do(Change::MakeDirectory { path, meta })
    }

    /// Where the record of a directory is damaged, what is in it still finds its place.
    fn make_above(&mut self, path: &TreePath, steps: &mut Vec<Step>) {
        let parent = path.parent();
        if path.is_root() || self.made.contains(&parent) {
            return;
        }
        self.make_above(&parent, steps);
        steps.push(self.make(parent, Meta { mode: 0o700, ..Meta::default() }));
    }

    /// A mail server wants all three directories of a folder, though the records of some may be damaged.
    pub fn complete_folders(&mut self) -> Vec<Step> {
        let folders = self.made.iter().filter(|path| folder::holds_messages(path.name())).map(TreePath::parent);
        let parts: HashSet<TreePath> =
            folders.flat_map(|folder| folder::PARTS.map(|part| folder.child(part))).collect();
        let missing: Vec<TreePath> = parts.difference(&self.made).cloned().collect();
        missing.into_iter().map(|part| self.make(part, Meta { mode: 0o700, ..Meta::default() })).collect()
    }

    /// The link that a file becomes, where another name of it is there.
    pub fn link(&self, wish: &Wish) -> Option<Change> {
        let (existing, mark) = self.groups.get(&wish.group).filter(|_| wish.group != 0)?;
        let (path, existing, mark) = (wish.record.path.clone(), existing.clone(), *mark);
        Some(Change::Link { path, existing, group: wish.group, mark })
    }

    /// A file is there, or is about to be: other names of it become links.
    pub fn is_there(&mut self, wish: &Wish) {
        if wish.group != 0 {
            self.groups.insert(wish.group, (wish.record.path.clone(), wish.mark()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str, what: What) -> Record {
        let path = TreePath::new(path.as_bytes()).expect("a path");
        Record { path, state: Some((Meta { mode: 0o755, ..Meta::default() }, what)) }
    }

    fn file(path: &str, group: u64) -> Record {
        record(path, What::File { size: 1, group, check: [0; 8], place: None, envelope: None })
    }

    fn shown(steps: &[Step]) -> Vec<String> {
        let show = |step: &Step| match step {
            Step::Do(Change::MakeDirectory { path, meta }) => format!("{path}/ {:o}", meta.mode),
            Step::Do(other) => other.path().to_string(),
            Step::Bring(wish) => wish.record.path.to_string(),
        };
        steps.iter().map(show).collect()
    }

    #[test]
    fn directories_are_made_when_something_in_them_is_wanted() {
        let wanted = |record: &Record| record.path.name() == b"letter";
        let mut walk = Walk::new(&wanted);
        for path in ["", "a", "a/b"] {
            assert!(walk.steps(record(path, What::Directory)).is_empty());
        }
        assert!(walk.steps(record("c", What::Directory)).is_empty());
        assert_eq!(shown(&walk.steps(file("c/letter", 0))), ["./ 755", "c/ 755", "c/letter"]);
        assert_eq!(shown(&walk.steps(file("c/letter", 0))), ["c/letter"]);
    }

    #[test]
    fn what_lies_in_a_directory_whose_record_is_lost_finds_its_place() {
        let mut walk = Walk::new(&|_| true);
        walk.steps(record("", What::Directory));
        assert_eq!(shown(&walk.steps(file("x/cur/1", 0))), ["x/ 700", "x/cur/ 700", "x/cur/1"]);
        let mut rest = shown(&walk.complete_folders());
        rest.sort();
        assert_eq!(rest, ["x/new/ 700", "x/tmp/ 700"]);
        assert!(walk.complete_folders().is_empty());
    }

    #[test]
    fn the_second_name_of_a_file_that_is_there_is_a_link() {
        let mut walk = Walk::new(&|_| true);
        let mut wish = |path| match walk.steps(file(path, 7)).pop() {
            Some(Step::Bring(wish)) => wish,
            _ => panic!("no file"),
        };
        let (one, two) = (wish("one"), wish("two"));
        assert!(walk.link(&two).is_none());
        walk.is_there(&one);
        assert!(matches!(walk.link(&two), Some(Change::Link { existing, .. }) if existing == one.record.path));
    }
}
