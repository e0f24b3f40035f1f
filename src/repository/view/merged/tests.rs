//! Tests of directories in a view: the same names as a walk through everything gives, and little of it is read.

use super::*;
use crate::disk::Root;
use crate::repository::contents::Contents;
use crate::repository::manifest::{Header, Manifest, Writer};
use crate::repository::view::View;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeSet, HashMap};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a good path")
}

fn directory() -> (Meta, What) {
    (Meta { mode: 0o755, ..Meta::default() }, What::Directory)
}

fn file() -> (Meta, What) {
    let what = What::File { size: 1, group: 0, check: [0; 8], place: None, envelope: None };
    (Meta { mode: 0o644, ..Meta::default() }, what)
}

/// A view of these records, with those over them.
fn view(base: &BTreeMap<TreePath, (Meta, What)>, over: &BTreeMap<TreePath, Option<(Meta, What)>>) -> View {
    let home = tempfile::tempdir().expect("a directory");
    let root = Root::open(home.path()).expect("opens");
    let mut writer = Writer::new(root.create(&path("manifest"), 0o600).expect("creates"));
    let sorted: BTreeMap<Vec<u8>, _> = base.iter().map(|(path, state)| (key(path), (path, state))).collect();
    for (path, state) in sorted.into_values() {
        writer.push(&Record { path: path.clone(), state: Some(state.clone()) }).expect("takes it");
    }
    writer.finish(Header::default()).expect("finishes");
    let over = over.iter().map(|(path, state)| (key(path), Record { path: path.clone(), state: state.clone() }));
    View {
        base: Some(Manifest::open(&root, &path("manifest")).expect("opens")),
        over: over.collect(),
        patched: HashMap::new(),
        contents: Contents::default(),
        segments: Vec::new(),
        origins: Vec::new(),
        label: None,
        set: Default::default(),
        epoch: Default::default(),
        position: Default::default(),
        moment: Default::default(),
        counts: Default::default(),
        reached: 0,
        problems: Vec::new(),
        watch: None,
    }
}

fn unpacked(view: &View) -> u64 {
    view.base.as_ref().map_or(0, Manifest::unpacked)
}

fn names(view: &View, directory: &str) -> Vec<String> {
    let children = view.children(&path(directory)).map(|record| record.expect("reads").path.to_string());
    children.collect()
}

/// Ten mailboxes of which each fills several ranges.
fn large() -> BTreeMap<TreePath, (Meta, What)> {
    let mut tree = BTreeMap::from([(TreePath::root(), directory())]);
    for mailbox in 0..10 {
        for part in ["", "/cur", "/new", "/tmp", "/.Sent", "/.Sent/cur"] {
            tree.insert(path(&format!("user{mailbox}{part}")), directory());
        }
        for message in 0..7_000 {
            tree.insert(path(&format!("user{mailbox}/cur/{message:05}.M1P1.mx:2,S")), file());
        }
    }
    tree
}

#[test]
fn listing_a_directory_reads_none_of_the_ranges_that_lie_beneath_its_children() {
    let view = view(&large(), &BTreeMap::new());
    let ranges = view.base.as_ref().map_or(0, Manifest::ranges);
    assert!(ranges > 30, "{ranges} ranges");
    assert_eq!(names(&view, ""), (0..10).map(|mailbox| format!("user{mailbox}")).collect::<Vec<_>>());
    // Where a mailbox ends the next one begins.
    let top = unpacked(&view);
    assert!(top <= 11, "{top} of {ranges} ranges were read for ten names");
    assert_eq!(names(&view, "user5"), ["cur", "new", "tmp", ".Sent"].map(|name| format!("user5/{name}")));
    assert!(unpacked(&view) - top <= 2, "{} ranges for a mailbox", unpacked(&view) - top);
    assert_eq!(view.children(&path("user5/cur")).count(), 7_000);
    assert!(unpacked(&view) - top <= 7, "{} ranges for a mailbox and a folder", unpacked(&view) - top);
}

#[test]
fn one_directory_after_the_other_reads_each_range_about_once() {
    let mut tree = BTreeMap::from([(TreePath::root(), directory())]);
    for mailbox in 0..2_000 {
        for part in ["", "/cur", "/new", "/tmp"] {
            tree.insert(path(&format!("user{mailbox:04}{part}")), directory());
        }
    }
    let view = view(&tree, &BTreeMap::new());
    let ranges = view.base.as_ref().map_or(0, Manifest::ranges);
    for mailbox in 0..2_000 {
        assert_eq!(names(&view, &format!("user{mailbox:04}")).len(), 3);
    }
    assert!(unpacked(&view) <= ranges + 1, "{} for {ranges}", unpacked(&view));
}

#[test]
fn a_directory_whose_own_record_is_missing_is_there_if_something_is_in_it() {
    let tree = BTreeMap::from([(TreePath::root(), directory()), (path("user/.Sent/cur/1"), file())]);
    let view = view(&tree, &BTreeMap::new());
    assert_eq!(names(&view, ""), ["user"]);
    assert_eq!(names(&view, "user/.Sent"), ["user/.Sent/cur"]);
    let found = view.children(&TreePath::root()).next().expect("one").expect("reads");
    assert_eq!(found.state, Some(implied()));
}

/// Paths of which many lie beneath each other.
fn paths() -> impl Strategy<Value = TreePath> {
    let name = select(vec!["cur", "new", "tmp", "a", "a\u{1}", "b", ".A", "ab"]);
    vec(name, 1..4).prop_map(|names| path(&names.join("/")))
}

/// With every directory above.
fn tree_of(files: BTreeMap<TreePath, bool>) -> BTreeMap<TreePath, (Meta, What)> {
    let mut tree = BTreeMap::new();
    for (path, is_file) in files {
        let mut above = path.parent();
        while !above.is_root() {
            tree.insert(above.clone(), directory());
            above = above.parent();
        }
        tree.entry(path).or_insert(if is_file { file() } else { directory() });
    }
    let inner: BTreeSet<TreePath> = tree.keys().map(TreePath::parent).collect();
    tree.into_iter()
        .map(|(path, state)| if inner.contains(&path) { (path, directory()) } else { (path, state) })
        .collect()
}

proptest! {
    #[test]
    fn a_directory_has_what_a_walk_finds_in_it(
        before in btree_map(paths(), any::<bool>(), 0..40),
        after in btree_map(paths(), any::<bool>(), 0..40),
    ) {
        let (before, after) = (tree_of(before), tree_of(after));
        let gone = before.keys().filter(|path| !after.contains_key(path)).map(|path| (path.clone(), None));
        let changed = after.iter().filter(|(path, state)| before.get(path) != Some(state));
        let over = gone.chain(changed.map(|(path, state)| (path.clone(), Some(state.clone())))).collect();
        let view = view(&before, &over);
        for directory in after.keys().map(TreePath::parent).chain(after.keys().cloned()).chain([TreePath::root()]) {
            let beneath = view.beneath(&directory).map(|record| record.expect("reads"));
            let wanted: Vec<Record> =
                beneath.filter(|record| record.path != directory && record.path.parent() == directory).collect();
            let listed: Vec<Record> = view.children(&directory).map(|record| record.expect("reads")).collect();
            let there = after.keys().filter(|path| !path.is_root() && path.parent() == directory).count();
            prop_assert_eq!(listed.len(), there);
            prop_assert_eq!(listed, wanted);
        }
    }
}
