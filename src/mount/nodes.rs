//! Inode numbers, and what those mean that the kernel knows.
//!
//! A number is made of what it stands for, so that it stays the same for as long as the mount lives, whatever the kernel
//! forgets meanwhile. The table has what the kernel has looked up and not forgotten, and nothing else.

use super::views::Which;
use crate::id::Digest;
use crate::path::{Name, TreePath};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The directory that is mounted.
pub const ROOT: u64 = 1;

/// The link to the newest point.
pub const LATEST: u64 = 2;

/// Numbers below this are not made of anything.
const OWN: u64 = 16;

/// What an inode stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// In which moment.
    pub which: Which,
    /// Where.
    pub path: TreePath,
    /// Files of one group are one inode; 0 stands alone.
    pub group: u64,
}

/// A node as it is kept: files of one directory share its path.
struct Kept {
    which: Which,
    directory: Arc<TreePath>,
    /// `None` for the root of a set.
    name: Option<Name>,
    group: u64,
    lookups: u64,
}

impl Kept {
    fn node(&self) -> Node {
        let path = self.name.as_ref().map_or_else(TreePath::root, |name| self.directory.join(name));
        Node { which: self.which, path, group: self.group }
    }

    fn is(&self, node: &Node) -> bool {
        let mine = self.node();
        mine.which == node.which && mine.group == node.group && (node.group != 0 || mine.path == node.path)
    }
}

impl Node {
    /// The root of the set in a moment.
    pub fn top(which: Which) -> Self {
        Self { which, path: TreePath::root(), group: 0 }
    }

    /// The number that it has, unless another one has it already.
    pub fn number(&self) -> u64 {
        let which = self.which.to_string();
        let own = match self.group {
            0 => [b"/", self.path.as_bytes()].concat(),
            // No path has a zero in it.
            group => [&[0][..], &group.to_le_bytes()].concat(),
        };
        let digest = Digest::of(&[which.as_bytes(), &own].concat());
        let mut number = [0; 8];
        number.copy_from_slice(&digest.0[..8]);
        (u64::from_le_bytes(number) >> 1).max(OWN)
    }
}

/// What the kernel knows.
#[derive(Default)]
pub struct Nodes {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    kept: HashMap<u64, Kept>,
    /// The directory in which something was looked up last.
    last: Arc<TreePath>,
}

impl Nodes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Notes that the kernel is told of a node; gives its number.
    pub fn enter(&self, node: Node) -> u64 {
        let mut table = self.table();
        let mut number = node.number();
        // Two in a hundred million files may have the same; the second one gets the next.
        while table.kept.get(&number).is_some_and(|kept| !kept.is(&node)) {
            number += 1;
        }
        let (directory, name) = node.path.split().map_or_else(Default::default, |(parent, name)| (parent, Some(name)));
        if *table.last != directory {
            table.last = Arc::new(directory);
        }
        let directory = table.last.clone();
        let lookups = table.kept.get(&number).map_or(0, |kept| kept.lookups) + 1;
        // Of several names the last one is certainly there.
        table.kept.insert(number, Kept { which: node.which, directory, name, group: node.group, lookups });
        number
    }

    /// What a number stands for; `None` where the kernel should not know it.
    pub fn get(&self, number: u64) -> Option<Node> {
        self.table().kept.get(&number).map(Kept::node)
    }

    /// The kernel has forgotten so many lookups.
    pub fn forget(&self, number: u64, lookups: u64) {
        let mut table = self.table();
        if let Some(kept) = table.kept.get_mut(&number) {
            kept.lookups = kept.lookups.saturating_sub(lookups);
            if kept.lookups == 0 {
                table.kept.remove(&number);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table().kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, group: u64) -> Node {
        Node { which: Which::Now, path: TreePath::new(path.as_bytes()).expect("a good path"), group }
    }

    #[test]
    fn a_number_is_forgotten_with_its_last_lookup_and_comes_back_the_same() {
        let nodes = Nodes::default();
        let number = nodes.enter(node("cur/1", 0));
        assert_eq!(nodes.enter(node("cur/1", 0)), number);
        nodes.forget(number, 1);
        assert_eq!(nodes.get(number), Some(node("cur/1", 0)));
        nodes.forget(number, 1);
        assert_eq!(nodes.get(number), None);
        assert!(nodes.is_empty());
        assert_eq!(nodes.enter(node("cur/1", 0)), number);
    }

    #[test]
    fn files_of_a_group_are_one_inode_and_others_are_not() {
        let nodes = Nodes::default();
        let first = nodes.enter(node("cur/1", 7));
        assert_eq!(nodes.enter(node(".Sent/cur/2", 7)), first);
        assert_eq!(nodes.get(first), Some(node(".Sent/cur/2", 7)));
        assert_ne!(nodes.enter(node("cur/3", 8)), first);
        assert_ne!(nodes.enter(node("cur/1", 0)), first);
        let label = "20261122-030000F".parse().expect("a label");
        assert_ne!(nodes.enter(Node { which: Which::Point(label), ..node("cur/1", 7) }), first);
    }

    #[test]
    fn one_whose_number_is_taken_gets_another() {
        let nodes = Nodes::default();
        let taken = node("cur/1", 0).number();
        let stranger = Kept { which: Which::Now, directory: Arc::default(), name: None, group: 0, lookups: 1 };
        nodes.table().kept.insert(taken, stranger);
        assert_eq!(nodes.enter(node("cur/1", 0)), taken + 1);
        assert_eq!(nodes.get(taken), Some(node("", 0)));
        assert_eq!(nodes.get(taken + 1), Some(node("cur/1", 0)));
    }
}
