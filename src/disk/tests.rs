//! Tests of the door to files.

use super::*;
use crate::maildir::entry::{Meta, Time, Xattr};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a good path")
}

fn root() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = Root::open(directory.path()).expect("opens");
    (directory, root)
}

#[test]
fn a_planted_link_leads_nowhere() {
    let (directory, root) = root();
    std::os::unix::fs::symlink("/etc", directory.path().join("out")).expect("links");
    assert!(root.open_file(&path("out/passwd")).is_err());
    assert!(root.create(&path("out/new"), 0o600).is_err());
    assert!(root.list(&path("out"), 10).is_err());
    assert!(root.make_directory(&path("out")).is_err());
    assert!(root.open_own("out").is_err());
    assert!(root.remove_directory(&path("out")).is_err(), "a link is not a directory");
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_directory_is_removed_with_the_links_in_it_and_not_what_they_point_to() {
    let (directory, root) = root();
    let kept = directory.path().join("kept");
    std::fs::write(&kept, b"x").expect("writes");
    std::fs::create_dir_all(directory.path().join("a/b")).expect("makes");
    std::os::unix::fs::symlink(&kept, directory.path().join("a/b/link")).expect("links");
    root.remove_directory(&path("a")).expect("removes");
    root.remove_directory(&path("a")).expect("again does no harm");
    assert!(kept.exists() && !directory.path().join("a").exists());
}

#[test]
fn a_listing_in_one_call_says_so() {
    let (directory, root) = root();
    for number in 0..500 {
        std::fs::write(directory.path().join(format!("{number:0100}")), b"").expect("writes");
    }
    let (few, _) = root.list(&TreePath::root(), 500).expect("lists");
    assert!(few.at_once && few.entries.len() == 500);
    let (many, _) = root.list(&TreePath::root(), 1).expect("lists");
    assert!(!many.at_once && many.entries == few.entries);
}

#[test]
fn metadata_comes_back_as_it_was_set() {
    let (_directory, root) = root();
    let mut file = root.create(&path("f"), 0o600).expect("creates");
    file.write(b"hello").expect("writes");
    let stat = root.stat(&path("f")).expect("is there");
    let xattr = Xattr { name: b"user.test".to_vec(), value: b"v".to_vec() };
    let meta = Meta {
        mode: 0o640,
        uid: stat.uid,
        gid: stat.gid,
        mtime: Some(Time { seconds: 12, nanos: 345 }),
        xattrs: vec![xattr],
    };
    assert!(root.set_meta(&path("f"), &meta).expect("sets"));
    let now = root.stat(&path("f")).expect("is there");
    assert_eq!((now.mode, Some(now.mtime)), (0o640, meta.mtime));
    assert_eq!(root.xattrs(&path("f")).expect("reads"), meta.xattrs);
    let bare = Meta { xattrs: vec![], ..meta };
    root.set_meta(&path("f"), &bare).expect("sets");
    assert!(root.xattrs(&path("f")).expect("reads").is_empty());
}

#[test]
fn a_path_longer_than_one_call_takes_is_reached() {
    let (_directory, root) = root();
    let name = Name::new(&[b'd'; 200]).expect("a name");
    let mut at = TreePath::root();
    for _ in 0..30 {
        at = at.join(&name);
        assert!(root.make_directory(&at).expect("makes"));
    }
    assert!(at.as_bytes().len() > 5000);
    let file = at.child("file");
    root.create(&file, 0o600).expect("creates").write(b"deep").expect("writes");
    assert_eq!(root.stat(&file).expect("is there").size, 4);
    root.remove_directory(&TreePath::root().join(&name)).expect("removes");
}

#[test]
fn a_lock_is_held_by_one() {
    let (directory, root) = root();
    let held = root.lock("lock").expect("makes").expect("is free");
    let other = Root::open(directory.path()).expect("opens");
    assert!(other.lock("lock").expect("opens").is_none());
    drop(held);
    assert!(other.lock("lock").expect("opens").is_some());
}

#[test]
fn a_directory_that_took_a_files_name_is_not_that_file() {
    let (directory, root) = root();
    std::fs::create_dir(directory.path().join("was-a-file")).expect("makes");
    let error = root.open_file(&path("was-a-file")).expect_err("no file");
    assert!(error.is_not_found());
    assert!(root.xattrs(&path("was-a-file")).expect("reads").is_empty());
}
