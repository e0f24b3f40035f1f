//! Tests of changes of a catalogue.

use super::super::store::Catalogue;
use super::*;
use crate::maildir::change::Source;
use crate::maildir::entry::{File, Mark};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a good path")
}

fn put(at: &str, content: &str) -> Change {
    let file = File { size: content.len() as u64, digest: Digest::of(content.as_bytes()), group: 0 };
    Change::Put { path: path(at), meta: Meta::default(), file, source: Source::Shipped(1) }
}

fn rename(from: &str, to: &str) -> Change {
    Change::Rename { from: path(from), to: path(to), mark: Mark::default() }
}

fn mkdir(at: &str) -> Change {
    Change::MakeDirectory { path: path(at), meta: Meta::default() }
}

/// Applies batches, each flushed, and gives the root digest and what `look` sees.
fn after<T>(batches: &[&[Change]], look: impl Fn(&mut Edit<'_>) -> T) -> (Digest, T) {
    let catalogue = Catalogue::open_dry(None).expect("opens");
    let transaction = catalogue.begin().expect("begins");
    let mut edit = Edit::new(&transaction).expect("opens");
    for batch in batches {
        for change in *batch {
            edit.apply(change).expect("fits");
        }
        edit.flush().expect("flushes");
    }
    (edit.root_digest(), look(&mut edit))
}

fn folder() -> Vec<Change> {
    let mut changes: Vec<Change> = ["", "u", "u/cur", "u/new", "u/.A", "u/.A/cur"].map(mkdir).into();
    changes.push(put("u/new/1.a", "one"));
    changes.push(put("u/cur/2.b:2,", "two"));
    changes.push(put("u/dovecot-uidlist", "3 V1 N1 G1\n"));
    changes
}

#[test]
fn equal_ends_of_different_ways_have_equal_digests() {
    let long = [rename("u/new/1.a", "u/cur/1.a:2,"), rename("u/cur/1.a:2,", "u/.A/cur/1.a:2,S")];
    let short = [rename("u/new/1.a", "u/.A/cur/1.a:2,S")];
    let (one, messages) = after(&[&folder(), &long[..1], &long[1..]], |edit| edit.head.messages);
    let (two, _) = after(&[&[folder(), short.to_vec()].concat()], |_| ());
    assert_eq!(one, two);
    assert_eq!(messages, 2);
    assert_ne!(one, after(&[&folder()], |_| ()).0);
}

#[test]
fn a_content_is_found_after_its_flags_changed_and_its_folder_was_renamed() {
    let changes =
        [rename("u/cur/2.b:2,", "u/cur/2.b:2,FS"), Change::RenameDirectory { from: path("u"), to: path("v") }];
    let (_, found) = after(&[&folder(), &changes], |edit| {
        edit.find_content(&Digest::of(b"two"), &TreePath::root()).expect("reads").expect("is there").0
    });
    assert_eq!(found, path("v/cur/2.b:2,FS"));
}

#[test]
fn a_removed_directory_leaves_nothing_behind() {
    let gone = [Change::RemoveDirectory { path: path("u") }];
    let (digest, left) = after(&[&folder(), &gone], |edit| {
        assert!(edit.find_content(&Digest::of(b"two"), &TreePath::root()).expect("reads").is_none());
        (edit.head.messages, edit.head.files, edit.rows_from(&[], 10).expect("reads").len())
    });
    assert_eq!(left, (0, 0, 1));
    assert_eq!(digest, after(&[&[mkdir("")]], |_| ()).0);
}

#[test]
fn a_renamed_directory_keeps_its_digest_sum_consistent() {
    let renamed = [Change::RenameDirectory { from: path("u/.A"), to: path("u/.B") }];
    let mut fresh = folder();
    for change in &mut fresh {
        if let Change::MakeDirectory { path: at, .. } = change
            && at.is_within(&path("u/.A"))
        {
            *at = at.moved(&path("u/.A"), &path("u/.B"));
        }
    }
    assert_eq!(after(&[&folder(), &renamed], |_| ()).0, after(&[&fresh], |_| ()).0);
}

#[test]
fn an_inode_leads_to_the_file_under_its_present_name() {
    let (_, found) = after(&[&folder()], |edit| {
        let local = Local { ino: 42, ..Local::default() };
        edit.note(&path("u/new/1.a"), local).expect("notes");
        edit.apply(&rename("u/new/1.a", "u/cur/1.a:2,S")).expect("fits");
        edit.find_inode(42, Mark { size: 3, mtime: Time::default() }, &TreePath::root())
            .expect("reads")
            .expect("is there")
            .0
    });
    assert_eq!(found, path("u/cur/1.a:2,S"));
}

#[test]
fn adopting_a_record_gives_its_digest_and_asks_for_a_new_look() {
    let (wanted, rows) = after(&[&folder()], |edit| {
        let rows = edit.rows_from(&[], 100).expect("reads");
        let mut all = Vec::new();
        for (key, row) in rows {
            let path = path_of(&key).expect("a path");
            let directory = edit.directory(&path).expect("reads").expect("is there");
            let entries: Vec<Entry> = directory.entries.values().map(|known| known.entry.clone()).collect();
            all.push((path, row.meta, entries));
        }
        all
    });
    let other = [put("u/cur/3.c:2,", "three"), rename("u/new/1.a", "u/new/1.z")];
    let (digest, ()) = after(&[&folder(), &other], |edit| {
        for (path, meta, entries) in &rows {
            edit.adopt(path, meta.clone(), entries.clone()).expect("adopts");
        }
        edit.flush().expect("flushes");
        assert_eq!(edit.root_digest(), wanted);
        let look = edit.directory(&path("u/cur")).expect("reads").expect("is there").look;
        assert!(look.is_none_or(|look| look.racy));
    });
    assert_ne!(digest, Digest::default());
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_, ()) = after(&[&folder()], |edit| {
        assert!(edit.apply(&rename("u/cur/nothing", "u/cur/x")).is_err());
        assert!(edit.apply(&put("u/.A", "a directory's name")).is_err());
        assert!(edit.apply(&put("nowhere/x", "no such directory")).is_err());
        let over = Change::RenameDirectory { from: path("u/.A"), to: path("u/cur") };
        assert!(edit.apply(&over).is_err());
    });
}

#[test]
fn what_was_committed_is_there_again_and_what_was_not_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = crate::disk::Root::open(directory.path()).expect("opens");
    let run = |changes: &[Change], commit: bool| {
        let (catalogue, _) = Catalogue::open(&state).expect("opens");
        let transaction = catalogue.begin().expect("begins");
        let mut edit = Edit::new(&transaction).expect("opens");
        changes.iter().for_each(|change| edit.apply(change).expect("fits"));
        edit.flush().expect("flushes");
        let digest = edit.root_digest();
        assert_eq!(edit.finish().expect("finishes"), !changes.is_empty());
        if commit {
            transaction.commit().expect("commits");
        }
        digest
    };
    let wanted = run(&folder(), true);
    run(&[rename("u/new/1.a", "u/cur/1.a:2,")], false);
    assert_eq!(run(&[], true), wanted);
}

#[test]
fn a_catalogue_that_cannot_be_read_is_made_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = crate::disk::Root::open(directory.path()).expect("opens");
    std::fs::write(directory.path().join("catalogue"), vec![7; 9000]).expect("writes");
    let (catalogue, anew) = Catalogue::open(&state).expect("opens");
    assert!(anew);
    assert_eq!(catalogue.head().expect("reads").messages, 0);
}

#[test]
fn an_inode_with_several_names_is_found_as_long_as_one_is_left() {
    let (_, found) = after(&[&folder()], |edit| {
        edit.note(&path("u/new/1.a"), Local { ino: 42, ..Local::default() }).expect("notes");
        let link =
            |to: &str| Change::Link { path: path(to), existing: path("u/new/1.a"), group: 7, mark: Mark::default() };
        edit.apply(&link("u/cur/1.a:2,")).expect("fits");
        edit.apply(&link("u/.A/cur/1.a:2,")).expect("fits");
        for gone in ["u/new/1.a", "u/cur/1.a:2,"] {
            edit.apply(&Change::Remove { path: path(gone), mark: Mark::default() }).expect("fits");
        }
        edit.find_inode(42, Mark { size: 3, mtime: Time::default() }, &TreePath::root())
            .expect("reads")
            .expect("is there")
            .0
    });
    assert_eq!(found, path("u/.A/cur/1.a:2,"));
}
