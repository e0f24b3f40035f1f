//! The directories that are followed, as a tree: renaming one is one step, however much is below it.

use super::poll::Seen;
use crate::disk::WatchId;
use crate::path::{Name, TreePath};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A directory's place in the tree; it stays through renames.
pub type Id = u32;

/// The root's.
pub const ROOT: Id = 0;

/// How a directory is followed.
#[derive(Debug)]
pub enum Eye {
    /// By the kernel's events.
    Watched(WatchId),
    /// By looking; `None` before the first look.
    Polled(Option<Box<Seen>>),
}

/// A directory.
#[derive(Debug)]
pub struct Node {
    /// What it is in; `None` of the root, and of one whose place is not known at the moment.
    pub parent: Option<Id>,
    /// Its name there.
    pub name: Option<Name>,
    /// How it is followed.
    pub eye: Eye,
    /// Its inode number and device.
    pub inode: (u64, u64),
    /// The directories in it that are followed.
    pub children: BTreeMap<Name, Id>,
}

impl Node {
    /// The bytes of its name; none of the root.
    pub fn name(&self) -> &[u8] {
        self.name.as_ref().map_or(&[], Name::as_bytes)
    }
}

/// The tree.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<Id>,
    by_watch: HashMap<WatchId, Id>,
    polled: BTreeSet<Id>,
}

impl Tree {
    /// A directory, where there is one of this number.
    pub fn get(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id as usize)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Node> {
        self.nodes.get_mut(id as usize)?.as_mut()
    }

    /// The directory that a watch is of.
    pub fn watched(&self, watch: WatchId) -> Option<Id> {
        self.by_watch.get(&watch).copied()
    }

    /// The next polled directory after one.
    pub fn next_polled(&self, after: Option<Id>) -> Option<Id> {
        self.polled.range(after.map_or(0, |id| id + 1)..).next().copied()
    }

    /// How many are watched, and how many polled.
    pub fn counts(&self) -> (usize, usize) {
        (self.by_watch.len(), self.polled.len())
    }

    /// A directory in another.
    pub fn child(&self, parent: Id, name: &[u8]) -> Option<Id> {
        self.get(parent)?.children.get(name).copied()
    }

    /// The directory with a path.
    pub fn find(&self, path: &TreePath) -> Option<Id> {
        path.components().try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// Where a directory is; `None` where that is not known.
    pub fn path(&self, id: Id) -> Option<TreePath> {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let node = self.get(at)?;
            names.push(node.name());
            at = node.parent?;
        }
        self.get(ROOT)?;
        names.reverse();
        TreePath::new(&names.join(&b'/')).ok()
    }

    /// Adds a directory.
    pub fn add(&mut self, parent: Option<Id>, name: Option<Name>, eye: Eye, inode: (u64, u64)) -> Id {
        let id = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            (self.nodes.len() - 1) as Id
        });
        match &eye {
            Eye::Watched(watch) => drop(self.by_watch.insert(*watch, id)),
            Eye::Polled(_) => drop(self.polled.insert(id)),
        }
        self.nodes[id as usize] = Some(Node { parent: None, name: None, eye, inode, children: BTreeMap::new() });
        if let (Some(parent), Some(name)) = (parent, name) {
            self.attach(id, parent, name);
        }
        id
    }

    /// Puts a directory into another, from wherever it was. Gives the one that had its name, which is nowhere now.
    pub fn attach(&mut self, id: Id, parent: Id, name: Name) -> Option<Id> {
        if self.child(parent, name.as_bytes()) == Some(id) {
            return None;
        }
        self.detach(id);
        let before = self.get_mut(parent)?.children.insert(name.clone(), id);
        if let Some(node) = self.get_mut(id) {
            (node.parent, node.name) = (Some(parent), Some(name));
        }
        if let Some(node) = before.and_then(|before| self.get_mut(before)) {
            node.parent = None;
        }
        before
    }

    /// Takes a directory from its place; all below it goes along.
    pub fn detach(&mut self, id: Id) {
        let Some(node) = self.get_mut(id) else { return };
        if let (Some(parent), Some(name)) = (node.parent.take(), node.name.clone())
            && let Some(above) = self.get_mut(parent)
            && above.children.get(&name) == Some(&id)
        {
            above.children.remove(&name);
        }
    }

    /// Forgets a directory and all below it; gives their watches.
    pub fn remove(&mut self, id: Id) -> Vec<WatchId> {
        self.detach(id);
        let mut watches = Vec::new();
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let Some(node) = self.nodes.get_mut(id as usize).and_then(Option::take) else { continue };
            match node.eye {
                Eye::Watched(watch) => {
                    self.by_watch.remove(&watch);
                    watches.push(watch);
                }
                Eye::Polled(_) => drop(self.polled.remove(&id)),
            }
            stack.extend(node.children.into_values());
            self.free.push(id);
        }
        watches
    }

    /// Whether a directory has one of its own below it, or is it.
    pub fn is_below(&self, id: Id, above: Id) -> bool {
        let mut at = Some(id);
        while let Some(id) = at {
            if id == above {
                return true;
            }
            at = self.get(id).and_then(|node| node.parent);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a good name")
    }

    fn polled() -> Eye {
        Eye::Polled(None)
    }

    #[test]
    fn renaming_a_directory_renames_all_below_it() {
        let mut tree = Tree::default();
        let root = tree.add(None, None, polled(), (1, 1));
        let user = tree.add(Some(root), Some(name("u")), polled(), (2, 1));
        let folder = tree.add(Some(user), Some(name(".a")), polled(), (3, 1));
        let cur = tree.add(Some(folder), Some(name("cur")), polled(), (4, 1));
        assert_eq!(tree.path(cur).expect("known").as_bytes(), b"u/.a/cur");
        assert_eq!(tree.attach(folder, root, name("b")), None);
        assert_eq!(tree.path(cur).expect("known").as_bytes(), b"b/cur");
        assert_eq!(tree.find(&TreePath::new(b"b/cur").expect("good")), Some(cur));
        tree.detach(folder);
        assert_eq!(tree.path(cur), None);
        tree.remove(folder);
        assert_eq!((tree.counts(), tree.get(cur).is_some()), ((0, 2), false));
    }

    #[test]
    fn who_takes_a_name_drives_out_who_had_it() {
        let mut tree = Tree::default();
        let root = tree.add(None, None, polled(), (1, 1));
        let old = tree.add(Some(root), Some(name("a")), polled(), (2, 1));
        let new = tree.add(Some(root), Some(name("b")), polled(), (3, 1));
        assert_eq!(tree.attach(new, root, name("a")), Some(old));
        assert_eq!((tree.path(old), tree.child(root, b"b")), (None, None));
        tree.remove(old);
        assert_eq!(tree.child(root, b"a"), Some(new));
    }
}
