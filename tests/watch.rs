//! The watcher against real files: what it calls dirty covers all that changed, whoever tells it.
//!
//! The oracle is a listing before and one after. Nothing here waits a fixed time to be right: a test waits for news, and
//! fails when they do not come in a generous time.

use mailtwin::catalogue::filter::Filter;
use mailtwin::catalogue::scan::is_racy;
use mailtwin::catalogue::{Catalogue, Edit};
use mailtwin::disk::Root;
use mailtwin::maildir::change::Change;
use mailtwin::maildir::entry::{Look, Meta};
use mailtwin::maildir::folder::SetKind;
use mailtwin::node::watch::fanotify::FileSystem;
use mailtwin::node::watch::inotify::Watches;
use mailtwin::node::watch::scope::Heard;
use mailtwin::node::watch::{self, Cause, Dirty, Known, News, Options, Scope, Source, Tally, WatchKind, Watcher};
use mailtwin::path::TreePath;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long news may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

fn scope() -> Scope {
    Scope { kind: SetKind::Maildir, filter: Filter::new(SetKind::Maildir, &[]).expect("the defaults compile") }
}

fn watching(root: &Path, kind: WatchKind, most_watches: Option<usize>) -> Watcher {
    let root = Root::open(root).expect("the root opens");
    let watcher = Watcher::start(root, scope(), Vec::new(), Options { kind, most_watches }).expect("it starts");
    await_standing(&watcher);
    watcher
}

/// Waits until all that happens from now on is noticed.
fn await_standing(watcher: &Watcher) {
    let begun = Instant::now();
    while watcher.status().standing.is_none() || watcher.status().waiting > 0 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", watcher.status());
        watcher.next(Some(Duration::from_millis(100)));
    }
    // What is left of the beginning.
    while watcher.next(Some(Duration::ZERO)) != News::Quiet {}
}

fn make_folder(at: &Path) {
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(at.join(part)).expect("a folder is made");
    }
}

/// Users with folders, two deep, and control files.
fn make_store(root: &Path, users: usize) {
    for user in 0..users {
        let user = root.join(format!("u{user}"));
        for folder in ["", ".a", ".b", "plain/.c"] {
            make_folder(&user.join(folder));
            fs::write(user.join(folder).join("dovecot-uidlist"), "3 V1 N1 G00\n").expect("written");
        }
        fs::write(user.join("subscriptions"), "a\n").expect("written");
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

fn deliver(folder: &Path) -> std::io::Result<()> {
    let name = format!("{}.M1P1.host", NUMBER.fetch_add(1, Ordering::Relaxed));
    fs::write(folder.join("tmp").join(&name), "Subject: x\n\nx\n")?;
    fs::rename(folder.join("tmp").join(&name), folder.join("new").join(&name))
}

/// A number generator whose seed is told where a test fails.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.roll(all.len())) }
    }
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn is_folder(path: &Path) -> bool {
    path.join("cur").is_dir() && path.join("new").is_dir()
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(root).into_iter().flatten();
    walk.filter(|entry| entry.file_type().is_dir())
        .map(|entry| entry.into_path())
        .filter(|path| is_folder(path))
        .collect()
}

/// One thing that a mail server or a person does. What another thread has just renamed away is not done.
fn do_something(root: &Path, dice: &mut Dice) -> std::io::Result<()> {
    let all = folders(root);
    let (Some(folder), Some(other)) = (dice.pick(&all).cloned(), dice.pick(&all).cloned()) else { return Ok(()) };
    let fresh = NUMBER.fetch_add(1, Ordering::Relaxed);
    let message = |dice: &mut Dice, part: &str| dice.pick(&names(&folder.join(part))).cloned();
    let base = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match dice.roll(14) {
        0..=3 => deliver(&folder),
        4 => match message(dice, "new") {
            Some(path) => fs::rename(&path, folder.join("cur").join(format!("{}:2,", base(&path)))),
            None => deliver(&folder),
        },
        5 | 6 => match message(dice, "cur") {
            Some(path) => {
                let flags = ["", "S", "FS", "RS"][dice.roll(4)];
                let name = base(&path);
                fs::rename(
                    &path,
                    folder.join("cur").join(format!("{}:2,{flags}", name.split(":2,").next().unwrap_or(""))),
                )
            }
            None => Ok(()),
        },
        7 => match message(dice, "cur") {
            Some(path) => fs::rename(&path, other.join("cur").join(base(&path))),
            None => Ok(()),
        },
        8 => message(dice, "cur").map_or(Ok(()), fs::remove_file),
        9 => {
            // A folder with messages at once.
            let made = folder.join(format!(".n{fresh}"));
            for part in ["tmp", "new", "cur"] {
                fs::create_dir_all(made.join(part))?;
            }
            deliver(&made)?;
            fs::write(made.join("dovecot-uidlist"), format!("3 V{fresh} N1 G00\n"))
        }
        10 => {
            // A folder with what is below it, to a place that may be deep.
            let target = if dice.roll(2) == 0 { root.to_owned() } else { other };
            if folder == root || target.starts_with(&folder) {
                Ok(())
            } else {
                fs::rename(&folder, target.join(format!("r{fresh}")))
            }
        }
        11 if all.len() > 12 => fs::remove_dir_all(&folder),
        12 => {
            use std::io::Write as _;
            let mut uidlist = fs::OpenOptions::new().append(true).create(true).open(folder.join("dovecot-uidlist"))?;
            writeln!(uidlist, "{fresh} :{fresh}.M1P1.host")
        }
        _ => {
            fs::write(folder.join("dovecot-keywords.lock"), format!("0 k{fresh}\n"))?;
            fs::rename(folder.join("dovecot-keywords.lock"), folder.join("dovecot-keywords"))
        }
    }
}

fn tree_path(root: &Path, path: &Path) -> TreePath {
    use std::os::unix::ffi::OsStrExt as _;
    TreePath::new(path.strip_prefix(root).expect("below the root").as_os_str().as_bytes()).expect("a good path")
}

/// Each unit of the scan with what it would see there.
fn listing(root: &Path) -> BTreeMap<TreePath, Vec<String>> {
    let filter = scope().filter;
    let mut units: BTreeMap<TreePath, Vec<String>> = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten() {
        let path = entry.path();
        let (at, meta) = (tree_path(root, path), entry.metadata().expect("nobody is at work"));
        if at.components().any(|name| name == b"tmp") || !filter.takes(&at, meta.is_dir()) {
            continue;
        }
        let in_part = |path: &Path| {
            let is_part = path.ends_with("cur") || path.ends_with("new");
            path.parent().filter(|above| is_part && is_folder(above)).map(Path::to_owned)
        };
        let above = path.parent().unwrap_or(root);
        if meta.is_dir() {
            let unit = in_part(path).unwrap_or_else(|| path.to_owned());
            units.entry(tree_path(root, &unit)).or_default().push(format!("{at} {}", meta.ino()));
        }
        if path != root {
            let unit = in_part(above).unwrap_or_else(|| above.to_owned());
            let content = if meta.is_file() { fs::read_to_string(path).expect("readable") } else { String::new() };
            let line = format!("{at} {} {}", meta.ino(), content);
            units.entry(tree_path(root, &unit)).or_default().push(line);
        }
    }
    units
}

fn covers(dirty: &BTreeSet<(TreePath, bool)>, unit: &TreePath) -> bool {
    dirty.iter().any(|(path, below)| path == unit || *below && unit.is_within(path))
}

/// The units that are there, changed, and not covered.
fn uncovered(
    before: &BTreeMap<TreePath, Vec<String>>,
    after: &BTreeMap<TreePath, Vec<String>>,
    dirty: &BTreeSet<(TreePath, bool)>,
) -> Vec<TreePath> {
    let changed = after.iter().filter(|(unit, now)| before.get(*unit) != Some(*now));
    changed.map(|(unit, _)| unit.clone()).filter(|unit| !covers(dirty, unit)).collect()
}

/// Takes news until all of this is covered.
fn await_covered(
    watcher: &Watcher,
    before: &BTreeMap<TreePath, Vec<String>>,
    after: &BTreeMap<TreePath, Vec<String>>,
    what: &str,
) -> BTreeSet<(TreePath, bool)> {
    let (begun, mut dirty) = (Instant::now(), BTreeSet::new());
    loop {
        let left = uncovered(before, after, &dirty);
        if left.is_empty() {
            return dirty;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: never told of {left:?}; {:?}", watcher.status());
        match watcher.next(Some(Duration::from_millis(500))) {
            News::Folders(folders) => dirty.extend(folders.into_iter().map(|Dirty { path, below, .. }| (path, below))),
            News::Quiet => {}
            other => panic!("{what}: {other:?}; {:?}", watcher.status()),
        }
    }
}

/// Several threads do 2,000 things, with quiet moments in between; at each all that changed has been told.
fn everything_is_told(kind: WatchKind, most_watches: Option<usize>, seed: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    make_store(root, 4);
    let watcher = watching(root, kind, most_watches);
    let rounds = if kind == WatchKind::Poll || most_watches.is_some() { 5 } else { 20 };
    let mut told = 0;
    for round in 0..rounds {
        let before = listing(root);
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let mut dice = Dice(seed + round * 4 + thread + 1);
                threads.spawn(move || {
                    for _ in 0..500 / rounds {
                        // What is gone by now is no failure.
                        let _ = do_something(root, &mut dice);
                    }
                });
            }
        });
        let after = listing(root);
        told += await_covered(&watcher, &before, &after, &format!("{kind:?}, seed {seed}, round {round}")).len();
    }
    assert!(told > rounds as usize, "the oracle saw changes");
    assert_eq!(watcher.status().overflows, 0);
    if watcher.status().kind != WatchKind::Fanotify {
        await_tally(&watcher, directories(root));
    }
}

/// Directories that are to be followed: all but a folder's `tmp`.
fn directories(root: &Path) -> usize {
    let walk = walkdir::WalkDir::new(root).into_iter().flatten().filter(|entry| entry.file_type().is_dir());
    walk.filter(|entry| !(entry.path().ends_with("tmp") && entry.path().parent().is_some_and(is_folder))).count()
}

/// Waits until each directory is followed once, and none that is gone.
fn await_tally(watcher: &Watcher, wanted: usize) {
    let begun = Instant::now();
    loop {
        let tally = watcher.status().tally;
        if tally.watched + tally.polled == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{tally:?} of {wanted}");
        watcher.next(Some(Duration::from_millis(100)));
    }
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::from(now.subsec_nanos()) | 1
}

#[test]
fn inotify_tells_of_everything_that_several_threads_change() {
    everything_is_told(WatchKind::Inotify, None, seed());
}

#[test]
fn with_watches_exhausted_everything_is_told_all_the_same() {
    everything_is_told(WatchKind::Inotify, Some(12), seed());
}

#[test]
fn polling_finds_everything_that_several_threads_change() {
    everything_is_told(WatchKind::Poll, None, seed());
}

/// Whether this process may use fanotify, on the file system of temporary files.
fn may_use_fanotify() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    FileSystem::mark(Root::open(directory.path()).expect("opens"), Arc::new(scope())).is_ok()
}

#[test]
fn fanotify_tells_of_everything_or_inotify_takes_its_place() {
    everything_is_told(WatchKind::Fanotify, None, seed());
    let directory = tempfile::tempdir().expect("a directory");
    let status = watching(directory.path(), WatchKind::Fanotify, None).status();
    let auto = watching(directory.path(), WatchKind::Auto, None).status();
    match may_use_fanotify() {
        true => assert_eq!((status.kind, auto.kind), (WatchKind::Fanotify, WatchKind::Fanotify)),
        false => {
            assert_eq!((status.kind, auto.kind), (WatchKind::Inotify, WatchKind::Inotify));
            assert!(status.notices[0].contains("fanotify cannot be used here"), "{:?}", status.notices);
            assert!(auto.notices.is_empty(), "nobody asked for it: {:?}", auto.notices);
        }
    }
    // An ordinary user never may.
    assert!(rustix::process::geteuid().is_root() || !may_use_fanotify());
}

/// What a mail server does when a client reads mail.
fn read_mail(folder: &Path) {
    for name in ["dovecot-uidlist.lock", "dovecot.index.log", "dovecot.index.cache", "dovecot.list.index.log"] {
        fs::write(folder.join(name), "x").expect("written");
        fs::OpenOptions::new().append(true).open(folder.join(name)).expect("opens");
    }
    fs::rename(folder.join("dovecot.index.log"), folder.join("dovecot.index.log.2")).expect("renamed");
    fs::remove_file(folder.join("dovecot-uidlist.lock")).expect("removed");
    fs::write(folder.join("tmp/1.M1P1.host"), "half a message").expect("written");
    fs::remove_file(folder.join("tmp/1.M1P1.host")).expect("removed");
    for message in names(&folder.join("cur")).iter().chain(&names(&folder.join("new"))) {
        fs::read(message).expect("read");
    }
    fs::read(folder.join("dovecot-uidlist")).expect("read");
}

#[test]
fn reading_mail_makes_no_folder_dirty() {
    for kind in [WatchKind::Inotify, WatchKind::Auto] {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        make_store(root, 2);
        deliver(&root.join("u0/.a")).expect("delivered");
        let watcher = watching(root, kind, None);
        for folder in ["u0", "u0/.a", "u0/.b"] {
            read_mail(&root.join(folder));
        }
        deliver(&root.join("u1/.b")).expect("delivered");
        let mut told = BTreeSet::new();
        let begun = Instant::now();
        // Events come in their order: with the last of them all before it are told.
        while !told.contains("u1/.b") || watcher.status().waiting > 0 {
            assert!(begun.elapsed() < PATIENCE, "{kind:?}: {told:?}");
            if let News::Folders(folders) = watcher.next(Some(Duration::from_secs(1))) {
                told.extend(folders.into_iter().map(|dirty| dirty.path.to_string()));
            }
        }
        assert_eq!(told, ["u1/.b".to_owned()].into(), "{kind:?}");
    }
}

fn next_folders(watcher: &Watcher) -> Vec<Dirty> {
    match watcher.next(Some(PATIENCE)) {
        News::Folders(folders) => folders,
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_mail_is_known_from_new_flags_and_told_as_its_folder() {
    for kind in [WatchKind::Inotify, WatchKind::Auto] {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("u/.a");
        make_folder(&folder);
        let watcher = watching(directory.path(), kind, None);
        let begun = Instant::now();
        deliver(&folder).expect("delivered");
        let [dirty] = &next_folders(&watcher)[..] else { panic!("one folder") };
        assert_eq!((dirty.path.as_bytes(), dirty.new_mail, dirty.below), (&b"u/.a"[..], true, false), "{kind:?}");
        assert!(dirty.since >= begun && dirty.since <= Instant::now());
        let message = names(&folder.join("new")).remove(0);
        let seen = folder.join("cur").join("1.M1P1.host:2,S");
        fs::rename(&message, &seen).expect("renamed");
        fs::rename(&seen, folder.join("cur/1.M1P1.host:2,FS")).expect("renamed");
        let [dirty] = &next_folders(&watcher)[..] else { panic!("one folder") };
        assert_eq!((dirty.path.as_bytes(), dirty.new_mail), (&b"u/.a"[..], false), "{kind:?}");
        // Its mode is the standby's, too.
        fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o750)).expect("changed");
        assert_eq!(next_folders(&watcher)[0].path.as_bytes(), b"u/.a", "{kind:?}");
        // Newer servers deliver right into `cur`.
        fs::write(folder.join("tmp/2.M1P1.host"), "x").expect("written");
        fs::rename(folder.join("tmp/2.M1P1.host"), folder.join("cur/2.M1P1.host:2,a")).expect("renamed");
        assert!(next_folders(&watcher)[0].new_mail, "{kind:?}");
    }
}

fn is_readable(source: &dyn Source) -> bool {
    let fd = source.descriptor().expect("it has one");
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec::default())).expect("polls") > 0
}

#[test]
fn an_overflow_is_a_look_at_everything_and_what_was_missed_is_watched() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    make_store(root, 1);
    let mut source = Watches::inotify(Root::open(root).expect("opens"), Arc::new(scope()), None).expect("a queue");
    let mut heard = Heard::default();
    source.begin(Vec::new(), &mut heard).expect("begins");
    assert_eq!(heard.everything, Some(Cause::Start));
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("readable");
    let limit: usize = limit.trim().parse().expect("a number");
    let message = root.join("u0/cur/1.M1P1.host:2,");
    fs::write(&message, "x").expect("written");
    for _ in 0..limit / 4 + 100 {
        fs::rename(&message, root.join("u0/cur/1.M1P1.host:2,S")).expect("renamed");
        fs::rename(root.join("u0/cur/1.M1P1.host:2,S"), &message).expect("renamed");
    }
    // Of these the kernel tells nothing any more.
    make_folder(&root.join("u0/.late"));
    fs::rename(root.join("u0/.a"), root.join("u0/.elsewhere")).expect("renamed");
    let until_quiet = |source: &mut Watches| {
        let mut heard = Heard::default();
        while is_readable(source) {
            source.listen(Instant::now(), &mut heard).expect("listens");
        }
        heard
    };
    assert_eq!(until_quiet(&mut source).everything, Some(Cause::Overflow));
    for folder in ["u0/.late", "u0/.elsewhere"] {
        deliver(&root.join(folder)).expect("delivered");
        let heard = until_quiet(&mut source);
        assert_eq!(heard.everything, None);
        let told: Vec<_> = heard.dirty.iter().map(|(path, dirt)| (path.to_string(), dirt.new_mail)).collect();
        assert_eq!(told, [(folder.to_owned(), true)]);
    }
}

#[test]
fn exhausted_watches_are_said_once_with_what_to_raise() {
    let directory = tempfile::tempdir().expect("a directory");
    make_store(directory.path(), 3);
    let watcher = watching(directory.path(), WatchKind::Inotify, Some(10));
    let status = watcher.status();
    assert_eq!((status.tally.watched, status.notices.len()), (10, 1), "{status:?}");
    assert!(status.tally.polled > 10, "{status:?}");
    assert!(status.notices[0].contains("sysctl fs.inotify.max_user_watches="), "{:?}", status.notices);
    let before = listing(directory.path());
    make_folder(&directory.path().join("u9/.late"));
    await_covered(&watcher, &before, &listing(directory.path()), "a folder made where watches are exhausted");
    assert_eq!(watcher.status().notices.len(), 1);
}

#[test]
fn nothing_happening_wakes_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    make_store(directory.path(), 3);
    let watcher = watching(directory.path(), WatchKind::Inotify, None);
    let wakes = || {
        let before = watcher.status().wakeups;
        assert_eq!(watcher.next(Some(Duration::from_secs(2))), News::Quiet);
        watcher.status().wakeups - before
    };
    // Somebody else on this machine may mount a file system, which does.
    assert!((0..10).any(|_| wakes() == 0));
}

#[test]
fn another_thread_interrupts_the_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let watcher = watching(directory.path(), WatchKind::Inotify, None);
    let waker = watcher.waker();
    std::thread::scope(|threads| {
        threads.spawn(|| waker.wake());
        assert_eq!(watcher.next(None), News::Woken);
    });
    assert_eq!(watcher.next(Some(Duration::ZERO)), News::Quiet, "once woken is once told");
}

#[test]
fn a_root_that_was_renamed_or_removed_ends_the_watching() {
    let kinds = [WatchKind::Inotify, WatchKind::Auto, WatchKind::Poll];
    for (kind, is_removed) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("vmail");
        make_store(&root, 1);
        let watcher = watching(&root, kind, None);
        match is_removed {
            true => fs::remove_dir_all(&root).expect("removed"),
            false => fs::rename(&root, directory.path().join("other")).expect("renamed"),
        }
        let begun = Instant::now();
        loop {
            match watcher.next(Some(Duration::from_secs(1))) {
                News::Ended(reason) => break assert!(reason.contains("the root"), "{reason}"),
                _ => assert!(begun.elapsed() < PATIENCE, "{kind:?}: {:?}", watcher.status()),
            }
        }
    }
}

/// A source that fails when it is first listened to, as one does of which the file system goes away.
struct Broken(std::fs::File);

impl Source for Broken {
    fn kind(&self) -> WatchKind {
        WatchKind::Inotify
    }

    fn begin(&mut self, _: Vec<Known>, heard: &mut Heard) -> Result<(), String> {
        heard.everything = Some(Cause::Start);
        Ok(())
    }

    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.0))
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn listen(&mut self, _: Instant, _: &mut Heard) -> Result<(), String> {
        Err("the source broke".to_owned())
    }

    fn tally(&self) -> Tally {
        Default::default()
    }
}

#[test]
fn where_a_source_fails_polling_takes_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    make_store(directory.path(), 1);
    let root = Root::open(directory.path()).expect("opens");
    let always_readable = fs::File::open("/dev/zero").expect("opens");
    let watcher = Watcher::with_source(root, scope(), Box::new(Broken(always_readable))).expect("starts");
    let begun = Instant::now();
    while !matches!(watcher.next(Some(Duration::from_secs(1))), News::Everything(Cause::Seen, _)) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", watcher.status());
    }
    assert_eq!(watcher.status().kind, WatchKind::Poll);
    assert_eq!(watcher.status().notices, ["the source broke"]);
    let before = listing(directory.path());
    deliver(&directory.path().join("u0/.a")).expect("delivered");
    await_covered(&watcher, &before, &listing(directory.path()), "after the source broke");
}

/// A catalogue's rows of the directories that are there, each as a scan leaves it.
fn catalogued(root: &Path) -> Vec<Known> {
    let (opened, catalogue) = (Root::open(root).expect("opens"), Catalogue::open_dry(None).expect("opens"));
    let transaction = catalogue.begin().expect("begins");
    let mut edit = Edit::new(&transaction).expect("opens");
    for entry in walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten() {
        if entry.file_type().is_dir() {
            let path = tree_path(root, entry.path());
            edit.apply(&Change::MakeDirectory { path: path.clone(), meta: Meta::default() }).expect("fits");
            let stat = opened.stat(&path).expect("is there");
            edit.looked(&path, Some(Look { racy: is_racy(&stat), ..stat.look() })).expect("fits");
        }
    }
    edit.flush().expect("flushes");
    watch::known(&edit).expect("read")
}

#[test]
fn what_the_catalogue_knows_is_followed_and_what_it_does_not_know_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    // More rows than are read at once.
    make_store(root, 100);
    let begun = Instant::now();
    let known = loop {
        let known = catalogued(root);
        if known.iter().all(|known| known.look.is_some_and(|look| !look.racy)) {
            break known;
        }
        assert!(begun.elapsed() < PATIENCE, "the clock stands still");
    };
    assert_eq!(
        known.len(),
        walkdir::WalkDir::new(root).into_iter().flatten().filter(|e| e.file_type().is_dir()).count()
    );
    make_folder(&root.join("u7/.a/sub/.late"));
    fs::rename(root.join("u8/.b"), root.join("u8/.renamed")).expect("renamed");
    fs::remove_dir_all(root.join("u9/plain")).expect("removed");
    make_folder(&root.join("newcomer"));
    let options = Options { kind: WatchKind::Inotify, most_watches: None };
    let watcher = Watcher::start(Root::open(root).expect("opens"), scope(), known, options).expect("it starts");
    await_standing(&watcher);
    assert_eq!(watcher.status().tally.watched, directories(root));
    let before = listing(root);
    folders(root).iter().for_each(|folder| deliver(folder).expect("delivered"));
    await_covered(&watcher, &before, &listing(root), "each folder gets a message");
}

#[test]
fn a_file_that_is_written_in_place_is_told() {
    for kind in [WatchKind::Inotify, WatchKind::Auto, WatchKind::Poll] {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("etc/cur")).expect("made");
        fs::create_dir_all(directory.path().join("etc/new")).expect("made");
        fs::write(directory.path().join("etc/cur/main.cf"), "one").expect("written");
        let files = Scope { kind: SetKind::Files, filter: Filter::new(SetKind::Files, &[]).expect("compiles") };
        let root = Root::open(directory.path()).expect("opens");
        let options = Options { kind, most_watches: None };
        let watcher = Watcher::start(root, files, Vec::new(), options).expect("it starts");
        await_standing(&watcher);
        while kind == WatchKind::Poll && watcher.next(Some(Duration::from_secs(3))) != News::Quiet {}
        fs::write(directory.path().join("etc/cur/main.cf"), "two").expect("written");
        // In a set of files no directory is a part of a folder.
        assert!(next_folders(&watcher).iter().all(|dirty| dirty.path.as_bytes() == b"etc/cur"), "{kind:?}");
    }
}
