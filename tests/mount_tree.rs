//! The tree of points without a kernel: what is opened when, for how long it is kept, and what numbers things have.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mailtwin::monitor::Quiet;
use mailtwin::mount::nodes::ROOT;
use mailtwin::mount::tree::{Attributes, Kind, Listing, Refusal, Tree as Mounted};
use mailtwin::mount::views::{Limits, Views};
use points::*;
use tree::{Pair, UNGUARDED, replace};

/// Nothing is taken for what it was.
const AT_ONCE: Limits = Limits { views: 4, refresh: Duration::ZERO, idle: Duration::from_secs(600) };

fn mounted(standby: &Path, limits: Limits) -> (Mounted, Arc<Quiet>) {
    let quiet = Arc::new(Quiet::default());
    let views = Views::open(standby.to_owned(), None, limits).expect("a repository");
    (Mounted::new(views, (7, 8), quiet.clone()), quiet)
}

/// Looks up a path, as a kernel does.
fn look_up(tree: &Mounted, path: &str) -> Result<Attributes, Refusal> {
    let mut at = tree.attributes(ROOT)?;
    for name in path.split('/') {
        at = tree.look_up(at.number, name.as_bytes())?;
    }
    Ok(at)
}

fn list(tree: &Mounted, path: &str) -> Listing {
    let number = if path.is_empty() { ROOT } else { look_up(tree, path).expect("it is there").number };
    tree.list(number).unwrap_or_else(|refusal| panic!("{path}: {refusal}"))
}

fn names(listing: &Listing) -> Vec<String> {
    listing.entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
}

fn read(tree: &Mounted, path: &str) -> Result<Vec<u8>, Refusal> {
    let found = look_up(tree, path)?;
    let (file, _) = tree.open(found.number)?;
    tree.read(&file, 0, found.size as usize + 1)
}

/// Files, and a point of each of so many versions.
fn files_with_points(count: usize) -> (Pair, Vec<String>) {
    let pair = Pair::of_files();
    fs::create_dir(pair.source.join("directory")).expect("a directory");
    let labels = (0..count).map(|number| {
        replace(&pair.source.join("directory/version"), number.to_string().as_bytes());
        pair.sync(&UNGUARDED);
        backup(&pair, &[if number == 0 { "--full" } else { "--diff" }])
    });
    let labels = labels.collect();
    (pair, labels)
}

#[test]
fn a_point_is_opened_when_something_in_it_is_asked_for_and_not_before() {
    let (pair, labels) = files_with_points(3);
    let (tree, _) = mounted(&pair.mirror, Limits::default());
    let top = list(&tree, "");
    assert_eq!(names(&top), [&labels[..], &["latest".to_owned(), "now".to_owned()]].concat());
    for label in &labels {
        assert_eq!(look_up(&tree, label).expect("it is there").kind, Kind::Directory);
    }
    tree.usage(ROOT);
    assert_eq!(tree.views().opened(), 0);
    assert_eq!(names(&list(&tree, &labels[1])), ["directory"]);
    assert_eq!(read(&tree, &format!("{}/directory/version", labels[1])).expect("reads"), b"1");
    assert_eq!(tree.views().opened(), 1);
}

#[test]
fn no_more_views_are_kept_than_the_limit_and_every_point_can_be_read() {
    let (pair, labels) = files_with_points(5);
    let (tree, _) = mounted(&pair.mirror, Limits { views: 2, ..Limits::default() });
    for _ in 0..2 {
        for (number, label) in labels.iter().enumerate() {
            let path = format!("{label}/directory/version");
            assert_eq!(read(&tree, &path).expect("reads"), number.to_string().as_bytes());
            assert!(tree.views().kept() <= 2);
        }
    }
    // What is open keeps its view; the others of the same point find it closed, and open it again.
    let first = look_up(&tree, &format!("{}/directory/version", labels[0])).expect("it is there");
    let (file, _) = tree.open(first.number).expect("opens");
    labels.iter().for_each(|label| drop(list(&tree, &format!("{label}/directory"))));
    assert_eq!(tree.read(&file, 0, 10).expect("reads"), b"0");
    assert!(tree.views().kept() <= 2);
}

#[test]
fn numbers_stay_whatever_is_forgotten_and_are_those_of_the_listing() {
    let (pair, labels) = files_with_points(3);
    let (tree, _) = mounted(&pair.mirror, Limits { views: 1, ..Limits::default() });
    let path = |label: &str| format!("{label}/directory/version");
    let before: Vec<u64> =
        labels.iter().map(|label| look_up(&tree, &path(label)).expect("it is there").number).collect();
    let mut different = before.clone();
    different.dedup();
    assert_eq!(different.len(), before.len(), "two points have one number");
    // Each path was looked up in three steps.
    before.iter().for_each(|number| tree.nodes().forget(*number, 1));
    assert_eq!(tree.attributes(before[0]), Err(Refusal::Stale));
    for (label, number) in labels.iter().zip(&before) {
        assert_eq!(list(&tree, &format!("{label}/directory")).entries[0].attributes.number, *number);
        assert_eq!(look_up(&tree, &path(label)).expect("it is there").number, *number);
        assert_eq!(tree.attributes(*number).expect("it is known").size, 1);
    }
}

#[test]
fn all_that_the_kernel_forgets_is_forgotten() {
    let (pair, labels) = files_with_points(1);
    let (tree, _) = mounted(&pair.mirror, Limits::default());
    let path = format!("{}/directory/version", labels[0]);
    let mut known = Vec::new();
    let mut at = ROOT;
    for name in path.split('/') {
        at = tree.look_up(at, name.as_bytes()).expect("it is there").number;
        known.push(at);
    }
    // A listing with attributes is a look up of each name.
    let listing = tree.list(known[1]).expect("lists");
    listing.entries.iter().for_each(|entry| known.push(tree.enter(&listing, entry).number));
    assert_eq!(tree.nodes().len(), 3);
    known.iter().for_each(|number| tree.nodes().forget(*number, 1));
    assert!(tree.nodes().is_empty());
}

#[test]
fn now_is_what_the_log_has_and_what_is_open_stays_what_it_was() {
    let (pair, labels) = files_with_points(2);
    let (tree, _) = mounted(&pair.mirror, AT_ONCE);
    assert_eq!(read(&tree, "now/directory/version").expect("reads"), b"1");
    let opened = tree.views().opened();
    assert_eq!(read(&tree, "now/directory/version").expect("reads"), b"1");
    assert_eq!(tree.views().opened(), opened, "nothing happened, and it was opened again");
    let number = look_up(&tree, "now/directory/version").expect("it is there").number;
    let (file, _) = tree.open(number).expect("opens");
    for version in ["the next", "the one after"] {
        replace(&pair.source.join("directory/version"), version.as_bytes());
        pair.sync(&UNGUARDED);
        assert_eq!(read(&tree, "now/directory/version").expect("reads"), version.as_bytes());
        assert_eq!(look_up(&tree, "now/directory/version").expect("it is there").number, number);
    }
    assert_eq!(tree.read(&file, 0, 10).expect("reads"), b"1");
    assert_eq!(read(&tree, &format!("{}/directory/version", labels[1])).expect("reads"), b"1");
    fs::remove_file(pair.source.join("directory/version")).expect("removed");
    pair.sync(&UNGUARDED);
    assert_eq!(look_up(&tree, "now/directory/version"), Err(Refusal::Missing));
    assert_eq!(tree.attributes(number), Err(Refusal::Missing));
}

/// Files of the standby that this process has open though they were removed.
fn removed_and_open(standby: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").expect("/proc is there").filter_map(Result::ok);
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.starts_with(standby) && target.to_string_lossy().ends_with(" (deleted)")).count()
}

#[test]
fn what_has_expired_or_is_not_used_is_let_go() {
    let (pair, labels) = files_with_points(2);
    let (tree, quiet) = mounted(&pair.mirror, AT_ONCE);
    let number = look_up(&tree, &format!("{}/directory/version", labels[0])).expect("it is there").number;
    read(&tree, &format!("{}/directory/version", labels[1])).expect("reads");
    assert_eq!(tree.views().kept(), 2);
    let next = backup(&pair, &["--full"]);
    run("verify", &pair.mirror, &[]).ended_with(0);
    run("expire", &pair.mirror, &["--keep-full", "1"]).ended_with(0);
    assert!(removed_and_open(&pair.mirror) > 0, "nothing that is tried here would show");
    tree.views().tidy();
    assert_eq!((tree.views().kept(), removed_and_open(&pair.mirror)), (0, 0));
    assert_eq!(tree.attributes(number), Err(Refusal::Stale));
    assert_eq!(look_up(&tree, &labels[0]), Err(Refusal::Missing));
    assert_eq!(names(&list(&tree, "")), [next.as_str(), "latest", "now"]);
    assert!(quiet.take_problems().is_empty());
    let (tree, _) = mounted(&pair.mirror, Limits { idle: Duration::ZERO, ..AT_ONCE });
    list(&tree, &next);
    assert_eq!(tree.views().kept(), 1);
    tree.views().tidy();
    assert_eq!(tree.views().kept(), 0);
    assert_eq!(names(&list(&tree, &next)), ["directory"]);
}

#[test]
fn a_listing_of_which_part_is_damaged_says_so_and_has_the_rest() {
    let pair = Pair::of_files();
    for directory in ["a", "b"] {
        fs::create_dir(pair.source.join(directory)).expect("a directory");
        for number in 0..3000 {
            fs::write(pair.source.join(format!("{directory}/{number:04}")), directory).expect("a file");
        }
    }
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    let manifest = points_of(&pair.mirror).join(&label).join("manifest");
    let mut bytes = fs::read(&manifest).expect("reads");
    bytes[100] ^= 1;
    fs::write(&manifest, bytes).expect("spoils");
    let (tree, quiet) = mounted(&pair.mirror, Limits::default());
    for _ in 0..2 {
        let root = list(&tree, &label);
        assert!(root.is_damaged);
        assert_eq!(names(&root), ["a", "b"]);
        let (a, b) = (list(&tree, &format!("{label}/a")), list(&tree, &format!("{label}/b")));
        assert!(a.is_damaged && a.entries.len() > 500 && a.entries.len() < 3000, "{}", a.entries.len());
        assert!(!b.is_damaged);
        assert_eq!(b.entries.len(), 3000);
        assert_eq!(look_up(&tree, &format!("{label}/a/0000")), Err(Refusal::Damaged));
        assert_eq!(read(&tree, &format!("{label}/a/2999")).expect("reads"), b"a");
    }
    let problems = quiet.take_problems();
    assert!(!problems.is_empty() && problems.len() <= 5, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.reason.contains("manifest")), "{problems:?}");
    // Nobody may look into a set of which it is not known who might.
    let top = look_up(&tree, &label).expect("it is there");
    assert_eq!((top.mode, top.uid, top.gid), (0o500, 7, 8));
}

#[test]
fn names_that_mean_nothing_are_missing_and_kinds_are_told_apart() {
    let (pair, labels) = files_with_points(1);
    std::os::unix::fs::symlink("version", pair.source.join("directory/link")).expect("a link");
    pair.sync(&UNGUARDED);
    let (tree, _) = mounted(&pair.mirror, AT_ONCE);
    let label = &labels[0];
    for wrong in ["nonsense", "20010101-000000F", "NOW", "latest ", ".mailtwin"] {
        assert_eq!(look_up(&tree, wrong), Err(Refusal::Missing), "{wrong}");
    }
    for wrong in ["nonsense", ".mailtwin", "directory/version/x"] {
        assert_eq!(look_up(&tree, &format!("{label}/{wrong}")), Err(Refusal::Missing), "{wrong}");
    }
    let file = look_up(&tree, "now/directory/version").expect("it is there").number;
    let link = look_up(&tree, "now/directory/link").expect("it is there").number;
    let latest = look_up(&tree, "latest").expect("it is there").number;
    assert_eq!(tree.list(file).err(), Some(Refusal::NotADirectory));
    assert_eq!(tree.list(latest).err(), Some(Refusal::NotADirectory));
    assert_eq!(tree.look_up(latest, b"x"), Err(Refusal::NotADirectory));
    assert_eq!(tree.open(ROOT).err(), Some(Refusal::IsADirectory));
    assert_eq!(tree.read_link(file), Err(Refusal::NotALink));
    assert_eq!(tree.read_link(link).expect("a link"), b"version");
    assert_eq!(tree.read_link(latest).expect("a link"), label.as_bytes());
    assert_eq!(tree.xattr(file, b"user.none"), Err(Refusal::NoAttribute));
    assert_eq!(tree.xattrs(ROOT).expect("none"), b"");
}
