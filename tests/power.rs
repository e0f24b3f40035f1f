//! Power cuts: what was promised is on the disk, whatever the disk had not been told to keep is lost.
//!
//! Three ways to the same question. Every call of a run is held against the rules of durable order; runs are killed, and
//! every byte that no sync covered is taken away; and, as root, real file systems lose their power at random moments.
//! `MAILTWIN_FULL_SWEEP=1` tries more of each; `MAILTWIN_SEED` repeats a run of cuts.

#[path = "support/power.rs"]
mod power;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use power::*;
use tree::*;

// ---- the order of the calls

/// A recorded pair whose far end is traced, and what is known of the durability of its home.
struct Traced {
    pair: Pair,
    places: Places,
    durability: Durability,
    options: Vec<String>,
}

impl Traced {
    fn new() -> Self {
        let pair = recorded_pair();
        let places = Places::within(&pair.mirror);
        let durability = Durability::before(names_beneath(pair.home()), Vec::new());
        Self { pair, places, durability, options: Vec::new() }
    }

    /// Back to the time before the first run.
    fn start_over(&mut self) {
        forget_the_mirror(&self.pair);
        self.durability = Durability::before(names_beneath(self.pair.home()), Vec::new());
    }

    /// Runs with a fault in the far end, if any, and holds its calls against the rules.
    fn run(&mut self, name: &str, pace: Pace, fault: Option<&str>) -> (Run, Session, Checked) {
        let trace = part(&self.pair, name, "trace");
        let mut command = recorded(&self.pair, name, pace);
        command.env("TRACER", tracer(&trace)).args(&self.options);
        if let Some(fault) = fault {
            command.env("FAR_FAULT", fault);
        }
        let run = finish(&mut command);
        let session = Session::of(&self.pair, name);
        let text = fs::read_to_string(&trace).unwrap_or_else(|error| {
            panic!("strace wrote nothing: {error}; is the package strace installed?\n{}", run.story())
        });
        let (checked, violations) = check(&read_trace(&text), &session, &self.places, &mut self.durability);
        self.durability.next_trace(text.lines().count());
        assert!(violations.is_empty(), "{name}, {fault:?}:\n{}\n{}", violations.join("\n"), run.story());
        (run, session, checked)
    }

    /// A run that ends well, and leaves nothing to a power cut.
    fn run_to_its_end(&mut self, name: &str, pace: Pace) -> Checked {
        let (run, _, checked) = self.run(name, pace, None);
        run.done();
        assert_mirrored(&self.pair);
        let left = unsynced_at_the_end(&self.places, &self.durability);
        assert!(left.is_empty(), "{name} ended well, and this is not synced: {left:?}");
        assert!(checked.ends > 0 && checked.acknowledgements > 0 && checked.batches > 0, "{checked:?}");
        assert!(checked.commits > 0 && checked.changes > 0 && checked.removals > 0, "{checked:?}");
        checked
    }
}

/// Everything that is there before a run.
fn names_beneath(home: &Path) -> BTreeSet<PathBuf> {
    walkdir::WalkDir::new(home).into_iter().map(|entry| entry.expect("readable").into_path()).collect()
}

/// A pace at which the contents of the scenario come in many groups.
const SLOW: Pace = Pace { portion: 1500, rest: 15 };

#[test]
fn a_first_copy_of_logged_contents_is_acknowledged_when_it_is_durable() {
    for pace in [AT_ONCE, SLOW] {
        let mut traced = Traced::new();
        make_scenario(&traced.pair.source);
        let checked = traced.run_to_its_end("first", pace);
        assert!(checked.logged > 10, "{checked:?}");
    }
}

#[test]
fn a_first_copy_of_contents_too_large_for_the_log_is_acknowledged_when_it_is_durable() {
    let mut traced = Traced::new();
    make_scenario(&traced.pair.source);
    make_large(&traced.pair.source, 9 << 20);
    let checked = traced.run_to_its_end("first", AT_ONCE);
    assert!(checked.staged > 0, "{checked:?}");
}

/// Some messages of this many bytes altogether.
fn make_large(root: &Path, bytes: usize) {
    let folder = Folder::create(&root.join(".Large"));
    for number in 0..6 {
        folder.file(9_000 + number, "S", &noise(number, bytes / 6));
    }
    folder.rewrite_uidlist();
}

#[test]
fn changes_of_every_kind_are_acknowledged_when_they_are_durable() {
    for pace in [AT_ONCE, SLOW] {
        let mut traced = Traced::new();
        make_scenario(&traced.pair.source);
        traced.run_to_its_end("first", AT_ONCE);
        traced.pair.wait_until_changes_are_past();
        let replaced = traced.durability.replaced;
        change_scenario(&traced.pair.source, 0);
        let checked = traced.run_to_its_end("changes", pace);
        assert!(checked.logged > 0, "{checked:?}");
        assert!(traced.durability.replaced > replaced, "no file took the place of another");
    }
}

/// One good run; how many steps the far end took.
fn steps_of_the_far_end(pair: &Pair, pace: Pace) -> u64 {
    let counted = pair.path("steps");
    finish(recorded(pair, "count", pace).env("FAR_COUNT", &counted)).done();
    fs::read_to_string(&counted).expect("counted").trim().parse().expect("a number")
}

/// A run is killed before some step, and the next one, which recovers, is held against the rules as well: what the first
/// left unsynced is still unsynced then.
#[test]
fn what_a_killed_run_left_unsynced_is_synced_before_it_is_promised() {
    for (pace, fill) in [(AT_ONCE, false), (SLOW, false), (AT_ONCE, true)] {
        let mut traced = Traced::new();
        make_scenario(&traced.pair.source);
        if fill {
            make_large(&traced.pair.source, 6 << 20);
        }
        let steps = steps_of_the_far_end(&traced.pair, pace);
        let mut recoveries = 0;
        for step in points(steps, 10) {
            traced.start_over();
            let (run, ..) = traced.run("killed", pace, Some(&format!("kill@{step}")));
            assert!(matches!(run.code(), Some(0 | 1)), "{}", run.story());
            let has_log = traced.pair.mirror.join(".mailtwin/segment").exists();
            let (run, _, checked) = traced.run("recovery", AT_ONCE, None);
            run.done();
            assert_mirrored(&traced.pair);
            let left = unsynced_at_the_end(&traced.places, &traced.durability);
            assert!(left.is_empty(), "a kill before step {step} of {steps}, a recovery, and not synced: {left:?}");
            recoveries += usize::from(has_log && checked.removals > 0);
        }
        assert!(recoveries > 0);
    }
}

/// The state is on another file system than the mirror: each has to be synced by itself.
#[test]
fn a_state_on_another_file_system_is_synced_as_well_as_the_mirror() {
    let elsewhere = tempfile::Builder::new().prefix("mailtwin-").tempdir_in("/dev/shm").expect("/dev/shm");
    let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).expect("it is there"));
    let mut traced = Traced::new();
    if device(elsewhere.path()) == device(traced.pair.home()) {
        tell("NOT TRIED, /dev/shm and the temporary directory are one file system: a state on another one");
        return;
    }
    let state = elsewhere.path().join("state");
    traced.options = vec!["--state".into(), state.display().to_string()];
    traced.places.state = state;
    traced.durability = Durability::before(names_beneath(traced.pair.home()), vec![PathBuf::from("/dev/shm")]);
    make_scenario(&traced.pair.source);
    make_large(&traced.pair.source, 6 << 20);
    let checked = traced.run_to_its_end("first", AT_ONCE);
    assert!(checked.staged > 0, "{checked:?}");
}

/// Both ends in one process: nothing is promised on the way, and all is kept at its end.
#[test]
fn a_run_in_one_process_leaves_nothing_unsynced_when_it_ends_well() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    let places = Places::within(&pair.mirror);
    let mut durability = Durability::before(names_beneath(pair.home()), Vec::new());
    for round in 0..3 {
        let trace = pair.path("run.trace");
        let tracer = tracer(&trace);
        let mut words = tracer.split(' ');
        let run = pair.command(&UNGUARDED);
        let mut command = std::process::Command::new(words.next().expect("strace"));
        command.args(words).arg(run.get_program()).args(run.get_args()).env("MAILTWIN_STATE", &pair.state);
        finish(&mut command).done();
        let text = fs::read_to_string(&trace).expect("a trace");
        let (checked, violations) = check(&read_trace(&text), &Session::default(), &places, &mut durability);
        durability.next_trace(text.lines().count());
        assert!(violations.is_empty(), "round {round}: {}", violations.join("\n"));
        assert!(checked.commits > 0 && checked.changes > 0 && checked.removals > 0, "{checked:?}");
        let left = unsynced_at_the_end(&places, &durability);
        assert!(left.is_empty(), "round {round} ended well, and this is not synced: {left:?}");
        assert_mirrored(&pair);
        change_scenario(&pair.source, round);
    }
}

// ---- every byte that no sync covered, taken away

/// Takes from every file what was not synced when the slave was killed: a power cut may do that, and a kill does not.
/// Names stay, as on a file system whose journal was written and whose data was not.
fn take_what_is_not_synced(traced: &Traced) -> usize {
    let mut taken = 0;
    let mirror = traced.durability.unsynced_beneath(&traced.pair.mirror);
    for change in mirror.filter(|change| change.what == What::Content) {
        let is_file = fs::symlink_metadata(&change.path).is_ok_and(|metadata| metadata.is_file());
        // A database's pages are written in place: those of before would still be there.
        if is_file && change.path.file_name().is_some_and(|name| name != "catalogue") {
            let kept = traced.durability.synced_length(&change.path);
            let file = fs::File::options().write(true).open(&change.path).expect("it opens");
            file.set_len(kept).expect("it is cut");
            taken += 1;
        }
    }
    taken
}

/// Kills the far end before each of its steps, takes what was not synced, and asks the slave alone.
fn survives_cuts_of_a_first_copy(pace: Pace, fill: impl Fn(&Path)) {
    let mut traced = Traced::new();
    fill(&traced.pair.source);
    let steps = steps_of_the_far_end(&traced.pair, pace);
    let (mut taken, mut acknowledged) = (0, 0);
    for step in points(steps, 16) {
        traced.start_over();
        let after = format!("a cut before step {step} of {steps}, {pace:?}");
        let (run, session, _) = traced.run("cut", pace, Some(&format!("kill@{step}")));
        assert!(matches!(run.code(), Some(0 | 1)), "{}", run.story());
        taken += take_what_is_not_synced(&traced);
        if !session.hello.is_empty() && traced.pair.mirror.is_dir() {
            assert_nothing_acknowledged_is_lost(&session, &Files::new(), &traced.pair.mirror, &after);
            acknowledged += session.shipped_up_to(session.acknowledged()).len();
        }
        settle_recorded(&traced.pair, &after);
    }
    assert!(taken > 0 && acknowledged > 0, "{taken} files cut, {acknowledged} contents acknowledged");
}

/// One run puts all right, and the next finds nothing to do.
fn settle_recorded(pair: &Pair, after: &str) {
    let run = finish(&mut recorded(pair, "settle", AT_ONCE));
    assert_eq!(run.code(), Some(0), "after {after}: {}", run.story());
    assert_mirrored(pair);
    finish(&mut recorded(pair, "again", AT_ONCE)).done().shipped_nothing();
}

#[test]
fn a_first_copy_cut_anywhere_loses_nothing_that_was_acknowledged() {
    survives_cuts_of_a_first_copy(AT_ONCE, make_scenario);
}

#[test]
fn a_first_copy_over_a_slow_link_cut_anywhere_loses_nothing_that_was_acknowledged() {
    survives_cuts_of_a_first_copy(SLOW, make_scenario);
}

#[test]
fn a_first_copy_of_large_contents_cut_anywhere_loses_nothing_that_was_acknowledged() {
    survives_cuts_of_a_first_copy(Pace { portion: 700_000, rest: 15 }, |source| {
        make_scenario(source);
        make_large(source, 9 << 20);
    });
}

/// Contents of several blocks that still fit into the log, and whose blocks come in several groups.
#[test]
fn a_first_copy_of_contents_in_many_blocks_cut_anywhere_loses_nothing_that_was_acknowledged() {
    survives_cuts_of_a_first_copy(Pace { portion: 500_000, rest: 15 }, |source| {
        make_scenario(source);
        Folder::create(&source.join(".Large")).file(9_000, "S", &noise(1, 3 << 20));
    });
}

// ---- real file systems that lose their power

/// How many cuts of each kind, on each file system.
fn cuts() -> usize {
    if full_sweep() { 200 } else { 10 }
}

/// Says what was not tried, past the harness that keeps the output of a good test to itself.
fn tell(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether file systems can be mounted here; as root a failure to do so is a failure of the test.
fn can_mount(what: &str) -> bool {
    if !am_root() {
        tell(&format!("NOT TRIED, only root may mount file systems: {what}"));
    }
    am_root()
}

/// The seed of the moments at which power is cut; a test that fails shows it.
#[expect(clippy::print_stdout, reason = "the harness keeps it for a test that fails")]
fn seed() -> u64 {
    let given = std::env::var("MAILTWIN_SEED").ok().map(|text| text.parse().expect("MAILTWIN_SEED is a number"));
    let from_the_clock = || {
        let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        since.expect("after 1970").as_micros() as u64
    };
    let seed = given.unwrap_or_else(from_the_clock);
    println!("MAILTWIN_SEED={seed}");
    seed
}

/// Which process loses its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The slave, with its mirror.
    Slave,
    /// The master, with its state.
    Master,
}

/// A run during which the power fails at a moment that the numbers choose. Whether it was still under way then.
fn run_into_a_cut(pair: &Pair, disk: &Disk, cut: Cut, numbers: &mut Numbers, typical: Duration) -> bool {
    let moment = typical.mul_f64(numbers.below(1000) as f64 / 1000.0);
    let pace = Pace { portion: 400 + numbers.below(4000), rest: 11 + numbers.below(8) as u64 };
    let mut run = Started::new(&mut recorded(pair, "cut", pace));
    std::thread::sleep(moment);
    let process = match cut {
        Cut::Master => Some(run.id()),
        Cut::Slave => {
            let mut process = None;
            eventually("the far end has begun", Duration::from_secs(10), || {
                process = far_process(pair, "cut");
                process.is_some() || !run.is_running()
            });
            process
        }
    };
    let was_running = process.is_some_and(hold);
    disk.cut();
    process.into_iter().for_each(end);
    drop(run.end());
    disk.restart();
    was_running
}

/// A run as fast as it goes, and the power fails right before one of the slave's steps.
fn run_into_a_cut_at_a_step(pair: &Pair, disk: &Disk, numbers: &mut Numbers) -> bool {
    let fault = format!("kill@{}", 1 + numbers.below(200));
    let run = finish(recorded(pair, "cut", AT_ONCE).env("FAR_FAULT", fault));
    disk.cut();
    disk.restart();
    run.code() != Some(0)
}

/// A pair, and beside it a disk for a part of it; `None` where nothing can be mounted.
fn pair_beside_a_disk(what: &str, kind: FileSystem, make: fn() -> Pair) -> Option<(Pair, Disk)> {
    can_mount(&format!("{what} on {kind:?}")).then(|| {
        let pair = make();
        let disk = Disk::new(&pair, kind);
        (pair, disk)
    })
}

/// What a run that is to be cut has to do: a first copy, and a round of changes, in turn. What was there is durable.
fn give_work(pair: &Pair, disk: &Disk, number: u64) {
    if number.is_multiple_of(2) {
        forget_the_mirror(pair);
    } else {
        change_scenario(&pair.source, number / 2);
    }
    disk.sync();
}

/// Cuts the slave's power again and again, in first copies and in rounds of changes.
fn slave_survives_power_cuts(kind: FileSystem) {
    let Some((mut pair, disk)) = pair_beside_a_disk("power cuts of a slave", kind, recorded_pair) else { return };
    pair.mirror = disk.place.join("mirror");
    make_scenario(&pair.source);
    let seed = seed();
    let mut numbers = Numbers::seeded(seed);
    let (mut interrupted, mut acknowledged) = (0, 0);
    for number in 0..cuts() as u64 {
        give_work(&pair, &disk, number);
        let before = files_of(&pair.mirror);
        let after = format!("power cut {number} of {kind:?}, MAILTWIN_SEED={seed}");
        let typical = Duration::from_millis(if number % 2 == 0 { 250 } else { 120 });
        let was_interrupted = match number / 2 % 2 == 0 {
            true => run_into_a_cut_at_a_step(&pair, &disk, &mut numbers),
            false => run_into_a_cut(&pair, &disk, Cut::Slave, &mut numbers, typical),
        };
        interrupted += usize::from(was_interrupted);
        let session = Session::of(&pair, "cut");
        acknowledged += session.promises.len();
        if !session.hello.is_empty() && pair.mirror.is_dir() {
            assert_nothing_acknowledged_is_lost(&session, &before, &pair.mirror, &after);
        }
        settle_recorded(&pair, &after);
    }
    assert!(interrupted > 0 && acknowledged > 0, "{interrupted} interrupted, {acknowledged} promises");
}

#[test]
fn a_slave_on_ext4_loses_nothing_acknowledged_when_its_power_is_cut() {
    slave_survives_power_cuts(FileSystem::Ext4);
}

#[test]
fn a_slave_on_xfs_loses_nothing_acknowledged_when_its_power_is_cut() {
    slave_survives_power_cuts(FileSystem::Xfs);
}

/// Exit code 0, and the power goes at once: `cp`, `rsync` and the like lose everything here.
fn loses_nothing_after_a_good_end(kind: FileSystem) {
    let Some((mut pair, disk)) = pair_beside_a_disk("power cuts right after a good end", kind, Pair::new) else {
        return;
    };
    pair.mirror = disk.place.join("mirror");
    make_scenario(&pair.source);
    for round in 0..4 {
        match round {
            1 => make_large(&pair.source, 9 << 20),
            _ => change_scenario(&pair.source, [0, 0, 1, 2][round]),
        }
        pair.sync(&UNGUARDED);
        disk.cut();
        disk.restart();
        assert_mirrored(&pair);
        pair.sync(&UNGUARDED).shipped_nothing();
    }
}

#[test]
fn no_message_of_a_good_run_is_lost_when_the_power_of_ext4_goes_at_once() {
    loses_nothing_after_a_good_end(FileSystem::Ext4);
}

#[test]
fn no_message_of_a_good_run_is_lost_when_the_power_of_xfs_goes_at_once() {
    loses_nothing_after_a_good_end(FileSystem::Xfs);
}

/// Cuts the master's power: its state is on the disk. What was acknowledged is not sent again.
fn master_survives_power_cuts(kind: FileSystem) {
    let Some((mut pair, disk)) = pair_beside_a_disk("power cuts of a master", kind, recorded_pair) else { return };
    pair.state = disk.place.join("state");
    make_scenario(&pair.source);
    let seed = seed();
    let mut numbers = Numbers::seeded(seed);
    let (mut interrupted, mut acknowledged) = (0, 0);
    for number in 0..cuts() as u64 * 4 {
        if number >= cuts() as u64 / 2 && interrupted > 0 {
            break;
        }
        give_work(&pair, &disk, number);
        let after = format!("power cut {number} of a master on {kind:?}, MAILTWIN_SEED={seed}");
        let typical = Duration::from_millis(150);
        interrupted += usize::from(run_into_a_cut(&pair, &disk, Cut::Master, &mut numbers, typical));
        let cut = Session::of(&pair, "cut");
        let kept = cut.shipped_up_to(cut.acknowledged());
        acknowledged += kept.len();
        settle_recorded(&pair, &after);
        let sent = Session::of(&pair, "settle");
        let last = sent.batches.last().map(|batch| batch.position).unwrap_or_default();
        let twice: Vec<_> = sent.shipped_up_to(last).into_iter().filter(|content| kept.contains(content)).collect();
        assert!(twice.is_empty(), "after {after} these were sent again: {twice:?}");
    }
    assert!(interrupted > 0 && acknowledged > 0, "{interrupted} interrupted, {acknowledged} contents acknowledged");
}

#[test]
fn a_master_on_ext4_sends_nothing_again_that_was_acknowledged_before_its_power_was_cut() {
    master_survives_power_cuts(FileSystem::Ext4);
}

#[test]
fn a_master_on_xfs_sends_nothing_again_that_was_acknowledged_before_its_power_was_cut() {
    master_survives_power_cuts(FileSystem::Xfs);
}
