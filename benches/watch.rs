//! What watching costs: setting up over a large tree, memory, how soon a delivery is told.
//!
//! `cargo bench --bench watch [-- FOLDERS [DIRECTORY]]` (5,000 folders of a few messages: 15,000 directories and more).

#![allow(clippy::print_stdout, reason = "a benchmark is a program: its table goes to standard output")]

use mailtwin::catalogue::filter::Filter;
use mailtwin::disk::Root;
use mailtwin::maildir::folder::SetKind;
use mailtwin::node::watch::{Known, News, Options, Scope, WatchKind, Watcher};
use mailtwin::path::TreePath;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let folders: usize = arguments.first().map_or(5000, |number| number.parse().expect("a number of folders"));
    let above = arguments.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(above).expect("a directory");
    let all = make(directory.path(), folders);
    for kind in [WatchKind::Inotify, WatchKind::Fanotify, WatchKind::Poll] {
        measure(directory.path(), &all, kind);
    }
}

fn make(root: &Path, folders: usize) -> Vec<PathBuf> {
    let all: Vec<PathBuf> = (0..folders).map(|n| root.join(format!("user{}/.Folder{}", n / 10, n % 10))).collect();
    for folder in &all {
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(folder.join(part)).expect("made");
        }
        fs::write(folder.join("dovecot-uidlist"), "3 V1 N1 G00\n").expect("written");
        fs::write(folder.join("cur/1.M1P1.host:2,"), "x").expect("written");
    }
    all
}

/// The directories as a catalogue knows them.
fn known(root: &Path) -> Vec<Known> {
    let opened = Root::open(root).expect("opens");
    let walk = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten();
    let paths = walk.filter(|entry| entry.file_type().is_dir()).map(|entry| entry.into_path());
    let known = paths.map(|path| {
        let path = TreePath::new(path.strip_prefix(root).expect("below").as_os_str().as_bytes()).expect("good");
        Known { look: opened.stat(&path).ok().map(|stat| stat.look()), path }
    });
    known.collect()
}

/// Kilobytes of memory in use by this process.
fn memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it tells");
    line.split_whitespace().nth(1).expect("a figure").parse().expect("a number")
}

/// Milliseconds of processor time of this process.
fn processor() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("readable");
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or("").split(' ').filter_map(|field| field.parse().ok()).collect();
    // utime and stime in ticks of 10 ms; the letter of the state is no number.
    (fields[10] + fields[11]) * 10
}

fn start(root: &Path, known: Vec<Known>, kind: WatchKind) -> (Watcher, Duration) {
    let scope = Scope { kind: SetKind::Maildir, filter: Filter::new(SetKind::Maildir, &[]).expect("compiles") };
    let begun = Instant::now();
    let options = Options { kind, most_watches: None };
    let watcher = Watcher::start(Root::open(root).expect("opens"), scope, known, options).expect("starts");
    while !matches!(watcher.next(None), News::Everything(..)) {}
    (watcher, begun.elapsed())
}

fn measure(root: &Path, folders: &[PathBuf], kind: WatchKind) {
    let directories = known(root);
    let count = directories.len();
    drop(start(root, directories.clone(), kind));
    let before = memory();
    let (watcher, listed) = start(root, Vec::new(), kind);
    drop(watcher);
    let (watcher, took) = start(root, directories, kind);
    while watcher.status().standing.is_none() {
        watcher.next(Some(Duration::from_millis(20)));
    }
    println!(
        "{}: {count} directories: the first scan may begin after {took:?} (without a catalogue {listed:?}); {:?}; {} KB more",
        watcher.status().kind.name(),
        watcher.status().tally,
        memory() - before,
    );
    while watcher.next(Some(Duration::from_secs(2))) != News::Quiet {}
    let (wakeups, used) = (watcher.status().wakeups, processor());
    watcher.next(Some(Duration::from_secs(10)));
    println!("  10 s idle: {} wakeups, {} ms", watcher.status().wakeups - wakeups, processor() - used);
    if kind != WatchKind::Poll {
        deliveries(&watcher, folders);
        flags(&watcher, &folders[0]);
    }
}

/// 200 deliveries a second for five seconds: from the rename to `next` returning.
fn deliveries(watcher: &Watcher, folders: &[PathBuf]) {
    let mut waits: Vec<Duration> = Vec::new();
    std::thread::scope(|threads| {
        let sender = threads.spawn(|| {
            let begun = Instant::now();
            for number in 0..1000_u32 {
                let folder = &folders[(number as usize * 7919) % folders.len()];
                let name = format!("{}{number}.M1P1.host", std::process::id());
                fs::write(folder.join("tmp").join(&name), "x").expect("written");
                fs::rename(folder.join("tmp").join(&name), folder.join("new").join(&name)).expect("delivered");
                let next = Duration::from_millis(5) * (number + 1);
                std::thread::sleep(next.saturating_sub(begun.elapsed()));
            }
        });
        while !sender.is_finished() || watcher.status().waiting > 0 {
            if let News::Folders(dirty) = watcher.next(Some(Duration::from_millis(200))) {
                waits.extend(dirty.iter().filter(|dirty| dirty.new_mail).map(|dirty| dirty.since.elapsed()));
            }
        }
    });
    waits.sort();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    println!("  200 deliveries/s, seen until given: {} of 1000, median {:?}, 99 % {:?}", waits.len(), at(50), at(99));
}

/// 10,000 flag changes as fast as they go.
fn flags(watcher: &Watcher, folder: &Path) {
    while watcher.next(Some(Duration::from_secs(2))) != News::Quiet {}
    let (seen, flagged) = (folder.join("cur/1.M1P1.host:2,"), folder.join("cur/1.M1P1.host:2,S"));
    let (begun, used) = (Instant::now(), processor());
    let mut given = 0;
    std::thread::scope(|threads| {
        let renamer = threads.spawn(|| {
            for _ in 0..5000 {
                fs::rename(&seen, &flagged).expect("renamed");
                fs::rename(&flagged, &seen).expect("renamed");
            }
        });
        while !renamer.is_finished() || watcher.status().waiting > 0 {
            given += u32::from(matches!(watcher.next(Some(Duration::from_millis(50))), News::Folders(_)));
        }
    });
    println!(
        "  10,000 flag changes: told {given} times, the last after {:?}, {} ms",
        begun.elapsed(),
        processor() - used
    );
}
