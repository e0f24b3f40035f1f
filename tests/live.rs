//! A mailbox that does not hold still: flags change a thousand times a second, messages move, arrive and go,
//! folders are renamed, while cycle follows cycle. At no moment is a message missing from the mirror, or there twice.
//!
//! How a sampler can be sure. A listing proves little: `readdir` may skip a file that is renamed while it runs, or
//! return it under both names. So the writers never use a name twice: a message goes through the places 0, 1, 2 ...,
//! and on the mirror, too, it can only go forward. Its places are then tried one by one, oldest first: it may slip away
//! ahead of the search but never behind it, and it cannot be beyond the newest place that the writer has announced.
//! What this search does not find is not there. Likewise a file that is at one place, at a later one, and still at the
//! first, is there twice.

#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tree::*;

/// A message, and the places it goes through.
struct Traveller {
    base: String,
    /// The newest place that it may be at; moved on before the rename is made.
    step: Arc<AtomicU32>,
    place: Box<dyn Fn(u32) -> PathBuf + Send + Sync>,
}

impl Traveller {
    /// Stays in one folder; its flags change.
    fn with_changing_flags(base: String) -> Self {
        let name = base.clone();
        Self {
            base,
            step: Arc::default(),
            place: Box::new(move |step| format!("cur/{name}:2,S{}", letters(step)).into()),
        }
    }

    /// Goes to and fro between two folders.
    fn between_folders(base: String) -> Self {
        let name = base.clone();
        Self {
            base,
            step: Arc::default(),
            place: Box::new(move |step| {
                let folder = ["cur", ".Archive/cur"][step as usize % 2];
                format!("{folder}/{name}:2,S{}", letters(step)).into()
            }),
        }
    }

    /// Stays in a folder that gets new names.
    fn in_a_renamed_folder(base: String, step: Arc<AtomicU32>) -> Self {
        let name = base.clone();
        Self { base, step, place: Box::new(move |step| format!(".Project {step}/cur/{name}:2,S").into()) }
    }

    fn goes_on(&self, source: &Path) {
        let step = self.step.fetch_add(1, Ordering::SeqCst);
        rename(&source.join((self.place)(step)), &source.join((self.place)(step + 1)));
    }

    /// The search that the header argues for.
    fn is_somewhere(&self, root: &Path) -> bool {
        let mut step = 0;
        loop {
            if exists(&root.join((self.place)(step))) {
                return true;
            }
            if step >= self.step.load(Ordering::SeqCst) {
                return false;
            }
            step += 1;
        }
    }

    /// Where it is when nothing moves.
    fn places_at_rest(&self, root: &Path) -> usize {
        (0..=self.step.load(Ordering::SeqCst)).filter(|step| exists(&root.join((self.place)(*step)))).count()
    }
}

/// Ends the writers when the test does, however it does: they would else go on for ever under a failed assertion.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Keyword letters that stand for a number: no two numbers below 2^26 have the same.
fn letters(number: u32) -> String {
    (0..26).filter(|bit| number & (1 << bit) != 0).map(|bit| char::from(b'a' + bit)).collect()
}

/// A mailbox with its travellers, mirrored once before anything moves.
struct Scene {
    pair: Pair,
    flagged: Vec<Traveller>,
    movers: Vec<Traveller>,
    project: Arc<AtomicU32>,
    in_project: Vec<Traveller>,
    over: AtomicBool,
    samples: AtomicUsize,
    wrongs: Mutex<Vec<String>>,
}

impl Scene {
    fn new(pair: Pair, flagged: u64, movers: u64) -> Self {
        let base = |kind: &str, number: u64| format!("17{number:08}.M{kind}.mx,S=99");
        let project = Arc::new(AtomicU32::new(0));
        let scene = Self {
            flagged: (0..flagged).map(|number| Traveller::with_changing_flags(base("flagged", number))).collect(),
            movers: (0..movers).map(|number| Traveller::between_folders(base("mover", number))).collect(),
            in_project: (0..5)
                .map(|number| Traveller::in_a_renamed_folder(base("project", number), Arc::clone(&project)))
                .collect(),
            project,
            pair,
            over: AtomicBool::new(false),
            samples: AtomicUsize::new(0),
            wrongs: Mutex::default(),
        };
        scene.make();
        scene
    }

    fn make(&self) {
        let source = &self.pair.source;
        for name in ["", ".Archive", ".Project 0", ".Trash"] {
            Folder::create(&source.join(name));
        }
        for (index, traveller) in self.travellers().enumerate() {
            let path = source.join((traveller.place)(0));
            fs::write(path, letter(index as u64, 150)).expect("a message");
        }
        for folder in folders_beneath(source) {
            folder.rewrite_uidlist();
        }
        // Every mover has its line in both folders.
        for (uid, traveller) in self.movers.iter().enumerate() {
            let path = (traveller.place)(1);
            Folder(source.join(".Archive")).append_uid(uid as u64 + 1, &path);
        }
        self.pair.sync(&[]);
        assert_mirrored(&self.pair);
    }

    fn travellers(&self) -> impl Iterator<Item = &Traveller> {
        self.flagged.iter().chain(&self.movers).chain(&self.in_project)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Keeps the first ones; a sampler that complains all the time must not fill the memory.
    fn is_wrong(&self, what: String) {
        let mut wrongs = self.wrongs.lock().expect("no thread panicked");
        if wrongs.len() < 1000 {
            wrongs.push(what);
        }
    }

    /// Runs `act` so many times a second until the scene is over.
    fn keep_on(&self, per_second: u32, mut act: impl FnMut(u64)) {
        let began = Instant::now();
        for round in 0u32.. {
            if self.is_over() {
                return;
            }
            act(u64::from(round));
            let due = Duration::from_secs(1) / per_second * (round + 1);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }

    fn change_flags(&self, per_second: u32) {
        let mut numbers = Numbers::seeded(1);
        self.keep_on(per_second, |_| {
            self.flagged[numbers.below(self.flagged.len())].goes_on(&self.pair.source);
        });
    }

    fn move_messages(&self, per_second: u32) {
        let mut numbers = Numbers::seeded(2);
        self.keep_on(per_second, |_| {
            self.movers[numbers.below(self.movers.len())].goes_on(&self.pair.source);
        });
    }

    fn rename_a_folder(&self, per_second: u32) {
        let at = |step| self.pair.source.join(format!(".Project {step}"));
        self.keep_on(per_second, |_| {
            let step = self.project.fetch_add(1, Ordering::SeqCst);
            rename(&at(step), &at(step + 1));
        });
    }

    /// Deliveries that are read, and later expunged; now and then a whole folder comes and goes.
    fn deliver_and_expunge(&self, per_second: u32) {
        let inbox = Folder(self.pair.source.clone());
        let mut present = Vec::new();
        self.keep_on(per_second, |round| {
            let number = 500_000_000 + round;
            let delivered = inbox.deliver(number, &letter(number, 400));
            inbox.append_uid(number, &delivered);
            present.push(inbox.take_in(&delivered, "S"));
            if present.len() > 20 {
                fs::remove_file(present.remove(0)).expect("expunged");
            }
            let passing = self.pair.source.join(".Passing");
            match round % 10 {
                3 => drop(Folder::create(&passing).file(number, "S", b"passing\n")),
                7 => fs::remove_dir_all(&passing).expect("the folder is deleted"),
                _ => {}
            }
        });
    }

    /// Looks at a tree until the scene is over.
    fn watch(&self, root: &Path) {
        while !self.is_over() {
            self.look_at_the_flagged(root);
            for traveller in self.movers.iter().chain(&self.in_project) {
                self.must_be_somewhere(root, traveller);
            }
            self.samples.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A listing finds the suspects; each is then looked at by the places it can be at.
    fn look_at_the_flagged(&self, root: &Path) {
        let listed = names_by_base(&root.join("cur"));
        for traveller in &self.flagged {
            match listed.get(&OsString::from(&traveller.base)).map(Vec::as_slice) {
                None => self.must_be_somewhere(root, traveller),
                Some([_]) => {}
                Some(names) => self.must_not_be_twice(root, traveller, names),
            }
        }
    }

    fn must_be_somewhere(&self, root: &Path, traveller: &Traveller) {
        if !traveller.is_somewhere(root) {
            self.is_wrong(format!("missing: {}", traveller.base));
        }
    }

    fn must_not_be_twice(&self, root: &Path, traveller: &Traveller, names: &[OsString]) {
        let there = |name: &OsString| exists(&root.join("cur").join(name));
        for one in names {
            for other in names.iter().filter(|other| *other != one) {
                if there(one) && there(other) && there(one) {
                    self.is_wrong(format!("twice: {}: {one:?}, {other:?}", traveller.base));
                }
            }
        }
    }

    /// Between two cycles the mirror holds still: a listing is exact.
    fn confirm_at_rest(&self) {
        for traveller in self.flagged.iter().chain(&self.in_project) {
            let places = traveller.places_at_rest(&self.pair.mirror);
            if places != 1 {
                self.is_wrong(format!("at rest in {places} places: {}", traveller.base));
            }
        }
        for traveller in &self.movers {
            // Between the looks at two folders a message can be seen in both; it can not be in neither.
            if traveller.places_at_rest(&self.pair.mirror) == 0 {
                self.is_wrong(format!("at rest nowhere: {}", traveller.base));
            }
        }
        for name in ["", ".Archive"] {
            self.every_message_has_its_uid(&Folder(self.pair.mirror.join(name)));
        }
    }

    /// The writers give a message its line before anyone can have seen it, and never drop a line: a message of `cur/`
    /// that has none on the mirror came without the uidlist that belongs to it.
    fn every_message_has_its_uid(&self, folder: &Folder) {
        let list = fs::read_to_string(folder.control("dovecot-uidlist")).expect("a uidlist");
        let known: std::collections::HashSet<&str> =
            list.lines().filter_map(|line| line.split_once(" :").map(|(_, base)| base)).collect();
        for base in names_by_base(&folder.cur()).keys() {
            if !known.contains(base.to_str().expect("text")) {
                self.is_wrong(format!("without a uid: {base:?} in {}", folder.0.display()));
            }
        }
    }

    /// Some cycles in a row, looked at between them.
    fn run_cycles(&self, count: usize) {
        for _ in 0..count {
            let run = self.pair.try_sync(&UNGUARDED);
            if run.code() != Some(0) || !run.report().problems().is_empty() {
                self.is_wrong(run.story());
            }
            self.confirm_at_rest();
        }
    }

    /// When all is quiet again: nothing wrong was seen, the mirror is the source, and the source is what the writers made.
    fn confirm_the_end(&self) {
        let wrongs = self.wrongs.lock().expect("no thread panicked");
        let shown = &wrongs[..wrongs.len().min(20)];
        assert!(wrongs.is_empty(), "at least {} things went wrong:\n{}", wrongs.len(), shown.join("\n"));
        let samples = self.samples.load(Ordering::SeqCst);
        assert!(samples >= 20, "the mirror was looked at {samples} times only");
        for traveller in self.travellers() {
            assert_eq!(traveller.places_at_rest(&self.pair.source), 1, "{}", traveller.base);
        }
        self.pair.sync(&UNGUARDED);
        assert_mirrored(&self.pair);
        self.pair.sync(&UNGUARDED).shipped_nothing();
    }
}

fn names_by_base(directory: &Path) -> BTreeMap<OsString, Vec<OsString>> {
    let mut listed: BTreeMap<OsString, Vec<OsString>> = BTreeMap::new();
    for name in names_in(directory) {
        listed.entry(base_of(&name)).or_default().push(name);
    }
    listed
}

fn nothing_is_missing_or_twice(pair: Pair) {
    let scene = Scene::new(pair, 2000, 50);
    thread::scope(|scope| {
        scope.spawn(|| scene.change_flags(1000));
        scope.spawn(|| scene.move_messages(50));
        scope.spawn(|| scene.rename_a_folder(5));
        scope.spawn(|| scene.deliver_and_expunge(30));
        scope.spawn(|| scene.watch(&scene.pair.mirror));
        let _ending = Ending(&scene.over);
        scene.run_cycles(20);
    });
    scene.confirm_the_end();
}

#[test]
fn while_everything_moves_nothing_is_missing_or_twice_on_the_mirror() {
    nothing_is_missing_or_twice(Pair::new());
}

#[test]
fn while_everything_moves_nothing_is_missing_or_twice_behind_a_pipe() {
    nothing_is_missing_or_twice(Pair::through_a_pipe());
}

#[test]
fn a_folder_of_20000_messages_with_100_flag_changes_a_second_is_whole_at_every_moment() {
    let scene = Scene::new(Pair::new(), 20_000, 1);
    thread::scope(|scope| {
        scope.spawn(|| scene.change_flags(100));
        scope.spawn(|| scene.watch(&scene.pair.mirror));
        let _ending = Ending(&scene.over);
        scene.run_cycles(if full_sweep() { 20 } else { 6 });
        // On a slow machine the cycles may be over before the sampler has looked often enough.
        eventually("enough samples", Duration::from_secs(60), || scene.samples.load(Ordering::SeqCst) >= 20);
    });
    scene.confirm_the_end();
}

#[test]
fn a_removed_message_is_gone_after_the_next_cycle_although_others_move() {
    let scene = Scene::new(Pair::new(), 500, 1);
    let expunged = Folder(scene.pair.source.clone()).file(900_000_000, "S", b"short-lived\n");
    scene.pair.sync(&[]);
    let mirrored = scene.pair.mirror.join(expunged.strip_prefix(&scene.pair.source).expect("beneath"));
    assert!(mirrored.exists());
    thread::scope(|scope| {
        scope.spawn(|| scene.change_flags(300));
        let _ending = Ending(&scene.over);
        fs::remove_file(&expunged).expect("expunged");
        // A removal may wait for a quiet look; it may not wait for ever.
        eventually("the message is gone", Duration::from_secs(30), || {
            scene.pair.try_sync(&UNGUARDED).ended_with(0);
            !mirrored.exists()
        });
    });
}

// ---- files that change between stat, open and read

/// Every line of a version says which it is: a file of two versions shows.
fn version(number: u64) -> Vec<u8> {
    format!("this is version {number:06} of the file\n").repeat(6000).into_bytes()
}

fn is_one_version(content: &[u8]) -> bool {
    let mut lines = content.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next();
    lines.all(|line| Some(line) == first) && content.len() == version(0).len()
}

#[test]
fn a_file_that_is_replaced_all_the_time_arrives_whole_each_time() {
    let pair = Pair::of_files();
    let path = pair.source.join("replaced");
    fs::write(&path, version(0)).expect("the file");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let draft = pair.path("draft");
                fs::write(&draft, version(number)).expect("a draft");
                rename(&draft, &path);
            }
        });
        let _ending = Ending(&over);
        let wrong = (0..15).find_map(|_| {
            let run = pair.try_sync(&[]);
            let content = fs::read(pair.mirror.join("replaced")).unwrap_or_default();
            (run.code() != Some(0) || !is_one_version(&content)).then(|| run.story())
        });
        assert_eq!(wrong, None);
    });
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_file_that_grows_all_the_time_arrives_as_it_was_at_some_moment() {
    let pair = Pair::of_files();
    let path = pair.source.join("grows");
    fs::write(&path, "").expect("the file");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut numbers = Numbers::seeded(3);
            // 300 KB a second at most and 30 MB in all: it hits every cycle, and cannot fill a disk or
            // the memory, however long a cycle takes.
            for _ in 0..45_000 {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                append(&path, format!("{:016x}\n", numbers.draw()).repeat(40).as_bytes());
                thread::sleep(Duration::from_millis(2));
            }
        });
        let _ending = Ending(&over);
        let wrong = (0..15).find_map(|_| {
            let run = pair.try_sync(&[]);
            let there = fs::read(pair.mirror.join("grows")).unwrap_or_default();
            let now = fs::read(&path).expect("the file");
            (run.code() != Some(0) || !now.starts_with(&there)).then(|| run.story())
        });
        assert_eq!(wrong, None);
    });
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_message_does_not_arrive_without_the_control_file_that_is_written_all_the_time() {
    let pair = Pair::new();
    let folder = Folder::create(&pair.source.join("mailbox"));
    let mirrored = pair.mirror.join("mailbox");
    folder.write_keywords(&["$Old"]);
    pair.sync(&[]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for moment in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                set_modified(
                    &folder.control("dovecot-keywords"),
                    1_700_000_000 + moment / 1_000_000_000,
                    (moment % 1_000_000_000) as u32,
                );
            }
        });
        let _ending = Ending(&over);
        // The writer may be held up for as long as a look takes: then there is nothing to see, and the next round tells.
        let begin = Instant::now();
        for number in (0..).take_while(|_| begin.elapsed() < Duration::from_secs(120)) {
            let message = folder.file(number, "Sb", format!("message {number}").as_bytes());
            folder.write_keywords(&["$Old", &format!("$New{number}")]);
            let run = pair.try_sync(&[]);
            let has_message = mirrored.join("cur").join(message.file_name().expect("a name")).exists();
            let keywords = fs::read_to_string(mirrored.join("dovecot-keywords")).expect("the keywords");
            assert_eq!(has_message, keywords.contains(&format!("$New{number}\n")), "{}", run.story());
            if !has_message {
                assert_eq!(run.code(), Some(23), "{}", run.story());
                assert!(run.story().contains("dovecot-keywords"), "{}", run.story());
                return;
            }
        }
        panic!("the control file was never seen while it was written");
    });
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn a_control_file_that_is_written_all_the_time_on_the_mirror_stops_nothing() {
    let pair = Pair::new();
    let folder = Folder::create(&pair.source.join("mailbox"));
    folder.write_keywords(&["$Old"]);
    pair.sync(&[]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let keywords = pair.mirror.join("mailbox/dovecot-keywords");
            for moment in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                set_modified(&keywords, 1_700_000_000 + moment / 1_000_000_000, (moment % 1_000_000_000) as u32);
            }
        });
        let _ending = Ending(&over);
        let elsewhere = Folder::create(&pair.source.join("elsewhere"));
        for number in 0..10 {
            elsewhere.deliver(number, b"goes on");
            let run = pair.try_sync(&[]);
            assert_eq!(run.code(), Some(0), "{}", run.story());
            assert_eq!(messages_beneath(&pair.mirror), number as usize + 1);
        }
    });
}

#[test]
fn files_and_directories_that_come_and_go_stop_nothing() {
    let pair = Pair::of_files();
    fs::write(pair.source.join("stays"), "stays").expect("a file");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for part in 0..3 {
            let (over, source) = (&over, &pair.source);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    come_and_go(&source.join(format!("part{part}")));
                }
            });
        }
        let _ending = Ending(&over);
        let wrong = (0..15).find_map(|_| {
            let run = pair.try_sync(&UNGUARDED);
            (run.code() != Some(0)).then(|| run.story())
        });
        assert_eq!(wrong, None);
    });
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
}

fn come_and_go(directory: &Path) {
    fs::create_dir_all(directory.join("a/b")).expect("directories");
    for number in 0..20 {
        fs::write(directory.join(format!("a/{number}")), noise(number, 2000)).expect("a file");
    }
    rename(&directory.join("a/1"), &directory.join("a/b/1"));
    fs::remove_dir_all(directory).expect("removed");
    // The name is a file for a while.
    fs::write(directory, "a file now").expect("a file");
    fs::remove_file(directory).expect("removed");
}

/// The sampler itself: it sees a message that is gone, and one that is there twice.
#[test]
fn the_sampler_sees_what_is_missing_and_what_is_twice() {
    let scene = Scene::new(Pair::new(), 10, 2);
    let mirror = |traveller: &Traveller, step| scene.pair.mirror.join((traveller.place)(step));
    scene.flagged[3].goes_on(&scene.pair.source);
    fs::copy(mirror(&scene.flagged[3], 0), mirror(&scene.flagged[3], 1)).expect("a copy");
    fs::remove_file(mirror(&scene.flagged[5], 0)).expect("removed");
    fs::remove_file(mirror(&scene.movers[1], 0)).expect("removed");
    scene.look_at_the_flagged(&scene.pair.mirror);
    for traveller in &scene.movers {
        scene.must_be_somewhere(&scene.pair.mirror, traveller);
    }
    let wrongs = scene.wrongs.lock().expect("no thread panicked");
    let seen = |what: &str| wrongs.iter().filter(|wrong| wrong.starts_with(what)).count();
    // A pair of names is reported from either side.
    assert_eq!((seen("missing"), seen("twice")), (2, 2), "{wrongs:?}");
}

/// The sampler itself: of the source, where nothing is ever missing, it complains at no moment. A listing alone would.
#[test]
fn the_sampler_finds_nothing_wrong_with_the_source() {
    let scene = Scene::new(Pair::new(), 2000, 50);
    let source = &scene.pair.source;
    let mut suspects = 0;
    thread::scope(|scope| {
        scope.spawn(|| scene.change_flags(2000));
        scope.spawn(|| scene.move_messages(200));
        scope.spawn(|| scene.rename_a_folder(50));
        scope.spawn(|| scene.watch(source));
        let _ending = Ending(&scene.over);
        while scene.samples.load(Ordering::SeqCst) < 200 {
            let listed = names_by_base(&source.join("cur"));
            let is_suspect =
                |traveller: &&Traveller| listed.get(&OsString::from(&traveller.base)).map(Vec::len) != Some(1);
            suspects += scene.flagged.iter().filter(is_suspect).count();
        }
    });
    let wrongs = scene.wrongs.lock().expect("no thread panicked");
    assert!(wrongs.is_empty(), "{suspects} suspects in listings, yet: {wrongs:?}");
}
