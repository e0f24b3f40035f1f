//! Disk full, I/O errors and short writes at every disk step of either end: no run says that all is well when it is not,
//! each names what it could not do, nothing that was there is lost, and once the fault is gone the next run converges.

#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use tree::*;

/// Points of a sweep on an everyday run.
const POINTS: u64 = 24;

/// A run under a fault, what must hold after it, and the run that mends it.
fn strike_and_mend(pair: &Pair, end: End, fault: &str) {
    let after = format!("{fault} in {end:?}");
    let witness = Witness::of(pair);
    let run = struck(pair, end, fault);
    witness.confirm(pair, &after);
    assert_no_boast(pair, &run, &after);
    assert!(!run.said().contains("panicked at"), "after {after}: {}", run.story());
    match run.code() {
        Some(0) => {}
        Some(1) => names_the_place(pair, &run, &after),
        Some(23) => assert!(!run.report().problems().is_empty(), "after {after}: {}", run.story()),
        _ => panic!("after {after}: {}", run.story()),
    }
    settle(pair, &after);
}

/// A failure names a path of ours or the host, so that a person knows where to look.
fn names_the_place(pair: &Pair, run: &Run, after: &str) {
    let said = run.said();
    let places = [&pair.source, &pair.mirror, &pair.state].map(|path| path.display().to_string());
    let named = said.contains(HOST) || places.iter().any(|place| said.contains(place));
    assert!(named, "after {after} no place is named: {}", run.story());
}

fn survives_faults_in_changes(end: End, fault: impl Fn(u64) -> String) {
    let pair = end.pair();
    make_scenario(&pair.source);
    settle(&pair, "the first copy");
    change_scenario(&pair.source, 0);
    let steps = steps_of(&pair, end);
    for (index, step) in points(steps, POINTS).into_iter().enumerate() {
        change_scenario(&pair.source, index as u64 + 1);
        strike_and_mend(&pair, end, &fault(step));
    }
}

fn survives_faults_in_a_first_copy(end: End, fault: impl Fn(u64) -> String) {
    let pair = end.pair();
    make_scenario(&pair.source);
    let steps = steps_of(&pair, end);
    for step in points(steps, POINTS) {
        forget_the_mirror(&pair);
        strike_and_mend(&pair, end, &fault(step));
    }
}

#[test]
fn an_input_output_error_at_any_step_of_changes_is_survived() {
    survives_faults_in_changes(End::Both, |step| format!("eio@{step}"));
}

#[test]
fn an_input_output_error_at_any_step_of_a_first_copy_is_survived() {
    survives_faults_in_a_first_copy(End::Both, |step| format!("eio@{step}"));
}

#[test]
fn an_input_output_error_at_any_step_of_the_far_end_is_survived() {
    survives_faults_in_changes(End::Far, |step| format!("eio@{step}"));
}

#[test]
fn an_input_output_error_at_any_step_of_the_near_end_is_survived() {
    survives_faults_in_changes(End::Near, |step| format!("eio@{step}"));
}

#[test]
fn a_disk_that_fails_from_any_step_on_is_survived() {
    survives_faults_in_changes(End::Both, |step| format!("eio@{step}+"));
}

#[test]
fn a_full_disk_at_any_step_of_changes_is_survived() {
    survives_faults_in_changes(End::Both, |step| format!("enospc@{step}"));
}

#[test]
fn a_disk_full_from_any_step_of_changes_on_is_survived() {
    survives_faults_in_changes(End::Both, |step| format!("enospc@{step}+"));
}

#[test]
fn a_disk_full_from_any_step_of_a_first_copy_on_is_survived() {
    survives_faults_in_a_first_copy(End::Both, |step| format!("enospc@{step}+"));
}

#[test]
fn a_far_disk_full_from_any_step_on_is_survived() {
    survives_faults_in_changes(End::Far, |step| format!("enospc@{step}+"));
}

#[test]
fn a_far_disk_full_from_any_step_of_a_first_copy_on_is_survived() {
    survives_faults_in_a_first_copy(End::Far, |step| format!("enospc@{step}+"));
}

#[test]
fn a_write_cut_short_at_any_step_of_changes_is_survived() {
    survives_faults_in_changes(End::Both, |step| format!("short@{step}"));
}

#[test]
fn a_write_cut_short_at_any_step_of_a_first_copy_is_survived() {
    survives_faults_in_a_first_copy(End::Both, |step| format!("short@{step}"));
}

#[test]
fn a_write_cut_short_at_any_step_of_the_far_end_is_survived() {
    survives_faults_in_changes(End::Far, |step| format!("short@{step}"));
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named_and_nothing_is_claimed() {
    for end in [End::Both, End::Far] {
        let pair = end.pair();
        make_scenario(&pair.source);
        let run = struck(&pair, end, "enospc@1+").ended_with(1);
        names_the_place(&pair, &run, "a disk that is full from the start");
        let says_why = ["space", "full"].iter().any(|word| run.said().contains(word));
        assert!(says_why, "{}", run.story());
        settle(&pair, "a disk that was full from the start");
    }
}

/// Where a script mounts a disk for the mirror: the disk's place, messages that arrive while it runs, and what it
/// writes down.
struct Stage {
    disk: PathBuf,
    more: PathBuf,
    out: PathBuf,
}

impl Stage {
    /// Makes the places; messages with these numbers, each so long, are to arrive.
    fn set(pair: &mut Pair, arriving: Range<u64>, length: usize) -> Self {
        let stage = Self { disk: pair.path("disk"), more: pair.path("more"), out: pair.path("out") };
        pair.mirror = stage.disk.join("mirror");
        for directory in [&stage.more, &stage.out] {
            fs::create_dir(directory).expect("a directory");
        }
        for number in arriving {
            let name = format!("{}.M1P1.mx", 1_700_000_000 + number);
            fs::write(stage.more.join(name), noise(number, length)).expect("a message");
        }
        stage
    }

    /// Runs a script that finds these places, and its `own` settings, in its environment.
    fn play(&self, script: &str, pair: &Pair, own: &[(&str, &OsStr)]) -> Run {
        let places: [(&str, &OsStr); 7] = [
            ("SRC", pair.source.as_os_str()),
            ("DISK", self.disk.as_os_str()),
            ("DEST", pair.mirror.as_os_str()),
            ("MORE", self.more.as_os_str()),
            ("OUT", self.out.as_os_str()),
            ("BINARY", OsStr::new(BINARY)),
            ("MAILTWIN_STATE", pair.state.as_os_str()),
        ];
        in_a_namespace(script, &[&places, own].concat())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.out.join(name)).expect("it was written")
    }
}

/// A file system of its own that is really too small, until something else on it is removed. What it holds can only be
/// seen in that namespace: the comparisons are made there, by rsync and cmp.
const FILL_A_REAL_DISK: &str = r#"set -u
mkdir "$DISK"
mount -t tmpfs -o "$ROOM" none "$DISK" || exit 90
mkdir "$DISK/ballast"
(cd "$DISK/ballast" && eval "$BALLAST") || exit 92
sync_to_dest() { "$BINARY" sync --json "$SRC" "$DEST" >"$OUT/report" 2>"$OUT/said"; }
sync_to_dest || exit 91
cp -a "$DEST" "$OUT/before"
mv "$MORE"/* "$SRC/new/"
sync_to_dest; echo "$?" >"$OUT/code-full"; cp "$OUT/said" "$OUT/said-full"
for name in "$OUT/before/new"/*; do
  cmp -s "$name" "$DEST/new/${name##*/}" || echo "lost: $name"
done
sync_to_dest; echo "$?" >"$OUT/code-still-full"
rm -r "$DISK/ballast"
sync_to_dest || { cat "$OUT/said"; exit 93; }
rsync -rlpgoHn --checksum --delete --itemize-changes --exclude=/.mailtwin "$SRC/" "$DEST/"
"#;

/// Twenty messages on a file system that has no room for 300 more, until its ballast is removed.
fn survives_a_disk_that_is_really_full(room: &str, ballast: &str, length: usize) {
    let mut pair = Pair::new();
    let folder = Folder::create(&pair.source);
    for number in 0..20 {
        folder.deliver(number, &noise(number, length));
    }
    let stage = Stage::set(&mut pair, 100..400, length);
    let run = stage.play(FILL_A_REAL_DISK, &pair, &[("ROOM", OsStr::new(room)), ("BALLAST", OsStr::new(ballast))]);
    assert_ne!(run.code(), Some(90), "a mount namespace is needed: {}", run.story());
    let run = run.ended_with(0);
    assert!(run.stdout.is_empty(), "lost, or not equal in the end: {}", run.story());
    assert_eq!((stage.read("code-full").trim(), stage.read("code-still-full").trim()), ("1", "1"));
    let said = stage.read("said-full");
    assert!(said.contains(&pair.mirror.display().to_string()) && said.contains("full"), "{said}");
}

#[test]
fn a_disk_that_is_really_full_loses_nothing_and_is_caught_up_once_there_is_room() {
    survives_a_disk_that_is_really_full("size=100m", "head -c 84m /dev/zero >zeros", 100_000);
}

#[test]
fn a_disk_without_a_free_inode_loses_nothing_and_is_caught_up_once_there_are_some() {
    survives_a_disk_that_is_really_full("size=100m,nr_inodes=500", "touch $(seq 300)", 1_000);
}

/// What keeps a file from growing: `LIMIT` bytes, which a write beyond finds out by an error.
const WITH_SMALL_FILES: &str = r#"[ -z "$LIMIT" ] || { trap '' XFSZ; exec prlimit --fsize="$LIMIT" "$@"; }; exec "$@""#;

/// The same run within the limit.
fn limited(command: &std::process::Command, bytes: u64) -> std::process::Command {
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", WITH_SMALL_FILES, "sh"]).arg(command.get_program()).args(command.get_args());
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    limited.envs(set).env("LIMIT", bytes.to_string());
    limited
}

/// Contents, log and catalogue each grow beyond one of these.
#[test]
fn a_limit_on_the_length_of_files_is_named_and_caught_up_once_it_is_gone() {
    for end in [End::Both, End::Far] {
        let mut pair = Pair::new();
        if end == End::Far {
            pair.connect_by(&format!("shift; {WITH_SMALL_FILES}"));
        }
        make_scenario(&pair.source);
        settle(&pair, "the first copy");
        let folder = Folder(pair.source.clone());
        for (round, limit) in [1_000, 30_000, 300_000, 1_500_000, 3_000_000].into_iter().enumerate() {
            change_scenario(&pair.source, round as u64);
            let number = 5_000 + round as u64;
            folder.deliver(number, &noise(number, 3_500_000));
            let after = format!("a limit of {limit} bytes in {end:?}");
            let witness = Witness::of(&pair);
            let run = match end {
                End::Far => finish(pair.command(&UNGUARDED).env("LIMIT", limit.to_string())),
                End::Both | End::Near => finish(&mut limited(&pair.command(&UNGUARDED), limit)),
            };
            witness.confirm(&pair, &after);
            let run = run.ended_with(1);
            names_the_place(&pair, &run, &after);
            assert!(run.said().contains("File too large"), "after {after}: {}", run.story());
            settle(&pair, &after);
        }
    }
}

/// The calls by which a process learns whether what it wrote is on the disk.
const SYNCS: [&str; 3] = ["fdatasync", "fsync", "syncfs"];

/// The far end under strace: its calls of `CALL` are written down, or the one with the number `WHEN` fails, once.
const FAR_END_WHOSE_SYNCS_FAIL: &str = r#"shift
[ -n "$CALL" ] || exec "$@"
trace() { exec strace -f -qq --seccomp-bpf -o "$TRACE" -e trace="$CALL",unlinkat "$@"; }
[ -n "$WHEN" ] || trace "$@"
trace -e inject="$CALL:error=EIO:when=$WHEN" "$@""#;

fn pair_whose_syncs_fail() -> Pair {
    let mut pair = Pair::new();
    pair.connect_by(FAR_END_WHOSE_SYNCS_FAIL);
    make_scenario(&pair.source);
    settle(&pair, "the first copy");
    pair
}

fn traced(pair: &Pair, call: &str, when: Option<u64>) -> (Run, String) {
    let trace = pair.path("trace");
    let mut command = pair.command(&UNGUARDED);
    command.env("CALL", call).env("TRACE", &trace);
    if let Some(when) = when {
        command.env("WHEN", when.to_string());
    }
    let run = finish(&mut command);
    (run, fs::read_to_string(trace).expect("strace (package strace) wrote a trace"))
}

/// How often the thread that calls it most often does so: strace counts for each thread.
fn calls_of_one_thread(trace: &str, call: &str) -> u64 {
    let called = trace.lines().filter_map(|line| line.split_once(&format!(" {call}(")));
    let threads: Vec<&str> = called.map(|(thread, _)| thread).collect();
    let count = |thread| threads.iter().filter(|other| *other == thread).count() as u64;
    threads.iter().map(count).max().unwrap_or(0)
}

/// Whether a sync failed while the log was still there, with all that could be done again.
fn failed_before_the_log_was_removed(trace: &str) -> bool {
    let until = trace.lines().take_while(|line| !(line.contains("\"segment\"") && line.ends_with(" = 0")));
    until.into_iter().any(|line| line.contains("INJECTED"))
}

/// The hook in `disk.rs` stands before each sync; here the kernel itself says no, so that a call past the hook shows.
#[test]
fn a_sync_that_fails_once_on_the_standby_is_never_taken_for_done() {
    let pair = pair_whose_syncs_fail();
    let (mut round, mut failures) = (0, 0);
    for call in SYNCS {
        change_scenario(&pair.source, round);
        round += 1;
        let (run, trace) = traced(&pair, call, None);
        run.done();
        let calls = calls_of_one_thread(&trace, call);
        assert!(calls > 0 || call == "fsync", "a round of changes without a {call}");
        for when in 1..=calls {
            change_scenario(&pair.source, round);
            round += 1;
            let after = format!("{call} number {when} of {calls} failed once");
            let witness = Witness::of(&pair);
            let (run, trace) = traced(&pair, call, Some(when));
            failures += u64::from(trace.contains("INJECTED"));
            witness.confirm(&pair, &after);
            assert_no_boast(&pair, &run, &after);
            match run.code() {
                // The database is closed last; what it then writes says only that it was closed well.
                // Or a run had less to sync than the one that was counted.
                Some(0) => assert!(!failed_before_the_log_was_removed(&trace), "after {after}: {trace}"),
                _ => names_the_place(&pair, &run.ended_with(1), &after),
            }
            settle(&pair, &after);
        }
    }
    assert!(failures >= 6, "{failures} syncs failed of {round} runs");
}

/// A disk whose store has no room for what was written to it, as behind thin provisioning: it says so at the sync, once,
/// and the kernel goes on to show from its memory what the disk never took. What is on it shows when it is mounted anew.
const A_DISK_THAT_FORGETS: &str = r#"set -u
mkdir "$DISK" "$STORE"
mount -t tmpfs -o size=160m none "$STORE" || exit 90
truncate -s 300m "$STORE/disk"
mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=0,nodiscard "$STORE/disk" || exit 94
mount -o loop "$STORE/disk" "$DISK" || exit 95
sync_to_dest() { "$BINARY" sync --json "$SRC" "$DEST" >"$OUT/report" 2>"$OUT/said"; }
sync_to_dest || exit 91
mv "$MORE"/* "$SRC/new/"
room=$(df --output=avail -B1024 "$STORE" | tail -n 1)
head -c "$(((room - 3000) * 1024))" /dev/zero >"$STORE/ballast"
sync_to_dest; echo "$?" >"$OUT/code-full"; cp "$OUT/said" "$OUT/said-full"
rm "$STORE/ballast"
sync_to_dest || sync_to_dest || { cat "$OUT/said"; exit 93; }
umount "$DISK" && mount -o loop "$STORE/disk" "$DISK" || exit 96
for name in "$SRC/new"/*; do
  cmp -s "$name" "$DEST/new/${name##*/}" || echo "said to be in sync, and not on the disk: $name"
done
"#;

#[test]
fn contents_whose_sync_failed_are_written_anew_before_they_are_acknowledged() {
    if !am_root() {
        say("not tried: only root may mount a disk of its own (a file as a block device)");
        return;
    }
    let mut pair = Pair::new();
    let folder = Folder::create(&pair.source);
    folder.deliver(0, &noise(0, 100_000));
    let stage = Stage::set(&mut pair, 100..300, 100_000);
    let run = stage.play(A_DISK_THAT_FORGETS, &pair, &[("STORE", pair.path("store").as_os_str())]);
    assert!(!matches!(run.code(), Some(90..=96)), "a mount namespace and a loop device are needed: {}", run.story());
    let run = run.ended_with(0);
    assert_eq!(stage.read("code-full").trim(), "1", "{}", stage.read("said-full"));
    let lost = run.printed();
    let lost: Vec<&str> = lost.lines().filter(|line| !line.is_empty()).collect();
    assert!(lost.is_empty(), "{} of 201 messages lost, such as\n{}", lost.len(), lost[0]);
}

/// Without a handler the signal that comes with the error ends a program before it can say anything.
#[test]
fn a_limit_on_the_length_of_files_does_not_end_a_run_without_a_word() {
    for end in [End::Both, End::Far] {
        let mut pair = Pair::new();
        if end == End::Far {
            pair.connect_by("shift; exec prlimit --fsize=\"${LIMIT:-unlimited}\" \"$@\"");
        }
        Folder::create(&pair.source).deliver(1, &noise(1, 3_500_000));
        let run = match end {
            End::Far => finish(pair.command(&UNGUARDED).env("LIMIT", "3000000")),
            End::Both | End::Near => {
                let command = pair.command(&UNGUARDED);
                let mut limited = std::process::Command::new("prlimit");
                limited.arg("--fsize=3000000").arg(command.get_program()).args(command.get_args());
                finish(limited.env("MAILTWIN_STATE", &pair.state))
            }
        };
        let run = run.ended_with(1);
        assert!(run.said().contains("File too large"), "{end:?}: {}", run.story());
        settle(&pair, "a limit on the length of files");
    }
}
