//! Expiring, pinning and noting: on a full disk, and with the process killed or failed at every disk step. No point that
//! is kept is lost, none that is listed is damaged, and running it again ends as if nothing had been.
//! A dozen points of each sweep every day; `MAILTWIN_FULL_SWEEP=1` tries all.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use points::*;
use tree::*;

/// Points of a sweep on an everyday run.
const POINTS: u64 = 12;

/// What the sweeps expire by: of the points below a differential goes with its full, and one beyond `--keep-diff`; the
/// pinned differential stays with the full that it needs, and so does the full that was verified.
const POLICY: [&str; 6] = ["--keep-full", "1", "--keep-diff", "1", "--keep-log", "0s"];

/// A standby with points of every fate, and a moment that the log alone has.
struct Stock {
    pair: Pair,
    made: Vec<(String, Tree)>,
    last: Remembered,
}

impl Stock {
    fn new() -> Self {
        let pair = Pair::new();
        make_scenario(&pair.source);
        let mut stock = Self { last: sync_and_remember(&pair), pair, made: Vec::new() };
        for (round, kind) in (0..).zip(["--full", "--diff", "--full", "--diff", "--diff", "--full", "--full", "--diff"])
        {
            stock.made.push((backup(&stock.pair, &[kind]), stock.last.tree.clone()));
            change_scenario(&stock.pair.source, round);
            append(&stock.pair.source.join(".Sent/dovecot-uidlist"), b"999 :x\n");
            stock.last = sync_and_remember(&stock.pair);
        }
        run("pin", &stock.pair.mirror, &[stock.label(4)]).ended_with(0);
        run("verify", &stock.pair.mirror, &["--point", stock.label(5)]).ended_with(0);
        stock
    }

    fn label(&self, number: usize) -> &str {
        &self.made[number].0
    }

    /// The labels that the policy keeps.
    fn kept(&self) -> Vec<String> {
        [2, 4, 5, 6, 7].map(|number| self.label(number).to_owned()).to_vec()
    }

    /// Every point that is listed, and the moment behind the last, comes back; all that `verify` reads is whole.
    fn confirm(&self, standby: &Path) {
        let listed = labels(standby);
        for (label, tree) in self.made.iter().filter(|(label, _)| listed.contains(label)) {
            assert_point(standby, label, tree);
        }
        assert_moment(standby, &self.last);
        // What it notes would sway the next expire.
        let read = copy_of(standby, "read");
        run("verify", &read, &["--all"]).ended_with(0);
    }

    fn assert_kept(&self, standby: &Path) {
        let listed = labels(standby);
        let missing: Vec<String> = self.kept().into_iter().filter(|label| !listed.contains(label)).collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
    }
}

/// Everything of a repository that an expire leaves: each file with its length and its number of names.
fn repository(standby: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let below = [points_of(standby), log_of(standby)];
    let all = below.iter().flat_map(|root| walkdir::WalkDir::new(root).min_depth(1));
    let told = |entry: walkdir::DirEntry| {
        let metadata = entry.metadata().expect("it is there");
        let told = if metadata.is_file() { (metadata.len(), metadata.nlink()) } else { (0, 0) };
        (entry.path().strip_prefix(standby).expect("below").to_owned(), told)
    };
    all.map(|entry| told(entry.expect("the repository is readable"))).collect()
}

fn reserve_of(standby: &Path) -> PathBuf {
    standby.join(".mailtwin/reserve")
}

/// Room is held back, in blocks and not only by name.
fn assert_held_back(standby: &Path) {
    let metadata = fs::metadata(reserve_of(standby)).expect("the reserve");
    assert!(metadata.len() >= 1 << 20 && metadata.blocks() * 512 >= metadata.len(), "{metadata:?}");
}

/// Runs the checks; when one fails, says first after what.
fn say_if_wrong(story: &str, checks: impl FnOnce()) {
    if let Err(wrong) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(checks)) {
        say(&format!("after {story}"));
        std::panic::resume_unwind(wrong);
    }
}

/// The stock, what an undisturbed expire leaves of it, and how many steps that takes.
fn undisturbed(stock: &Stock) -> (BTreeMap<PathBuf, (u64, u64)>, u64) {
    let copy = copy_of(&stock.pair.mirror, "undisturbed");
    let steps = steps_taken("expire", &copy, &POLICY);
    assert_eq!(labels(&copy), stock.kept());
    let before = repository(&stock.pair.mirror);
    let after = repository(&copy);
    let in_log =
        |files: &BTreeMap<PathBuf, (u64, u64)>| files.keys().filter(|path| path.starts_with(".mailtwin/log")).count();
    assert!(in_log(&after) < in_log(&before), "the test means to see segments go");
    assert_held_back(&copy);
    stock.confirm(&copy);
    (after, steps)
}

// ---- killed, or failed ----

/// Strikes an expire at the points of a sweep, each on a copy of the standby; then it is run again.
fn survives_strikes(kind: &str) {
    let stock = Stock::new();
    let (after, steps) = undisturbed(&stock);
    assert!(steps > 20, "an expire of {steps} steps");
    for step in tree::points(steps, POINTS) {
        let fault = kind.replace('@', &format!("@{step}"));
        let copy = copy_of(&stock.pair.mirror, "struck");
        let run_ = struck_at("expire", &copy, &POLICY, &fault);
        say_if_wrong(&format!("{fault} of {steps}: {}", run_.story()), || {
            stock.assert_kept(&copy);
            stock.confirm(&copy);
            match run_.code() {
                None => assert!(run_.was_killed()),
                Some(0) => assert_eq!(repository(&copy), after),
                _ => assert!(run_.said().contains(copy.to_str().expect("ours")), "no place is named"),
            }
            if step % 3 == 0 && run_.code() != Some(0) {
                // Once more in its middle.
                struck_at("expire", &copy, &POLICY, &kind.replace('@', &format!("@{}", step / 2 + 2)));
                stock.assert_kept(&copy);
            }
            run("expire", &copy, &POLICY).ended_with(0);
            assert_eq!(repository(&copy), after);
            assert_held_back(&copy);
            stock.confirm(&copy);
        });
    }
}

#[test]
fn an_expire_killed_anywhere_loses_no_point_that_is_kept_and_is_finished_by_the_next() {
    survives_strikes("kill@");
}

#[test]
fn an_input_output_error_at_any_step_of_an_expire_loses_no_point_that_is_kept() {
    survives_strikes("eio@");
}

#[test]
fn a_disk_full_from_any_step_of_an_expire_on_loses_no_point_that_is_kept() {
    survives_strikes("enospc@+");
}

/// No step is left that a full disk stops: each is done again with the room that was held back.
#[test]
fn an_expire_that_meets_a_full_disk_at_any_step_does_all_of_its_work() {
    let stock = Stock::new();
    let (after, steps) = undisturbed(&stock);
    for step in 1..=steps {
        let copy = copy_of(&stock.pair.mirror, "struck");
        let run_ = struck_at("expire", &copy, &POLICY, &format!("enospc@{step}"));
        say_if_wrong(&format!("enospc@{step} of {steps}: {}", run_.story()), || {
            assert_eq!(run_.code(), Some(0));
            assert_eq!(repository(&copy), after);
            // What was taken is held back again, or why not is said.
            match reserve_of(&copy).exists() {
                true => assert_held_back(&copy),
                false => run_.spoke_clearly("reserve"),
            }
        });
    }
}

#[test]
fn without_the_room_that_is_held_back_an_expire_on_a_full_disk_says_so() {
    let stock = Stock::new();
    let copy = copy_of(&stock.pair.mirror, "struck");
    fs::remove_file(reserve_of(&copy)).expect("the reserve");
    let run_ = struck_at("expire", &copy, &POLICY, "enospc@2");
    run_.refused(&[1], "No space left");
    stock.assert_kept(&copy);
}

/// A word about a point: what it changes of `points --json`.
struct Word {
    verb: &'static str,
    words: &'static [&'static str],
    field: &'static str,
}

const WORDS: [Word; 4] = [
    Word { verb: "pin", words: &[], field: "pinned" },
    Word { verb: "unpin", words: &[], field: "pinned" },
    Word { verb: "note", words: &["words"], field: "note" },
    Word { verb: "note", words: &[""], field: "note" },
];

fn survives_strikes_of_words(kind: &str) {
    let stock = Stock::new();
    let mirror = &stock.pair.mirror;
    run("note", mirror, &[stock.label(4), "noted before"]).ended_with(0);
    for word in WORDS {
        // A differential that is pinned for `unpin`, another for `pin`; notes where one is already.
        let label = stock.label(if word.verb == "pin" { 7 } else { 4 });
        let arguments = [&[label], word.words].concat();
        let done = copy_of(mirror, "done");
        let steps = steps_taken(word.verb, &done, &arguments);
        let (before, after) = (listed_as(mirror, label), listed_as(&done, label));
        assert_ne!(before[word.field], after[word.field], "{} changes nothing", word.verb);
        for step in tree::points(steps, POINTS) {
            let fault = kind.replace('@', &format!("@{step}"));
            let copy = copy_of(mirror, "struck");
            let run_ = struck_at(word.verb, &copy, &arguments, &fault);
            say_if_wrong(&format!("{fault} of {steps}: {}", run_.story()), || {
                let now = listed_as(&copy, label)[word.field].clone();
                match run_.code() {
                    Some(0) => assert_eq!(now, after[word.field]),
                    _ => assert!(now == before[word.field] || now == after[word.field], "{now}"),
                }
                assert_eq!(labels(&copy).len(), stock.made.len());
                run(word.verb, &copy, &arguments).ended_with(0);
                assert_eq!(listed_as(&copy, label), after);
                assert_eq!(repository(&copy), repository(&done));
                stock.confirm(&copy);
            });
        }
    }
}

#[test]
fn a_word_about_a_point_killed_anywhere_was_said_or_not_and_is_said_by_the_next_run() {
    survives_strikes_of_words("kill@");
}

#[test]
fn a_word_about_a_point_with_an_error_anywhere_was_said_or_not_and_is_said_by_the_next_run() {
    for kind in ["eio@", "enospc@+", "short@"] {
        survives_strikes_of_words(kind);
    }
}

#[test]
fn a_point_that_is_pinned_by_half_never_expires_for_it() {
    let stock = Stock::new();
    let label = stock.label(3);
    let steps = steps_taken("pin", &copy_of(&stock.pair.mirror, "counted"), &[label]);
    for step in 1..=steps {
        let copy = copy_of(&stock.pair.mirror, "struck");
        struck_at("pin", &copy, &[label], &format!("kill@{step}"));
        let is_pinned = listed_as(&copy, label)["pinned"] == true;
        run("expire", &copy, &POLICY).ended_with(0);
        assert_eq!(labels(&copy).iter().any(|one| one == label), is_pinned, "kill@{step} of {steps}");
        stock.assert_kept(&copy);
        stock.confirm(&copy);
    }
}

// ---- on a disk that is full ----

#[test]
fn room_is_held_back_from_the_first_point_on() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    assert!(!reserve_of(&pair.mirror).exists(), "a standby without history holds nothing back");
    backup(&pair, &[]);
    assert_held_back(&pair.mirror);
    for verb in ["backup", "expire"] {
        fs::remove_file(reserve_of(&pair.mirror)).expect("the reserve");
        run(verb, &pair.mirror, &[]).ended_with(0);
        assert_held_back(&pair.mirror);
    }
    fs::remove_file(reserve_of(&pair.mirror)).expect("the reserve");
    run("expire", &pair.mirror, &["--dry-run"]).ended_with(0);
    assert!(!reserve_of(&pair.mirror).exists(), "a dry run wrote something");
}

/// Fills a file system to the last block, and the directory of points to its last byte: a point cannot be renamed then
/// without one more block.
const FUNCTIONS: &str = r#"set -u
fill() {
  for size in 1M 64k 1k 1M 64k 1k; do
    dd if=/dev/zero of="$DISK/ballast.$size" bs="$size" oflag=append conv=notrunc 2>"$OUT/dd"
    sync -f "$DISK"
  done
}
fill_directory() {
  touch "$DISK/name" 2>"$OUT/touch"
  number=0
  while ln "$DISK/name" "$DEST/.mailtwin/points/$(printf %04d "$number")" 2>"$OUT/ln"; do number=$((number + 1)); done
}
empty() { rm -f "$DISK"/ballast.* "$DEST"/.mailtwin/points/[0-9][0-9][0-9][0-9]; sync -f "$DISK"; }
mailtwin() { "$BINARY" "$@" >"$OUT/printed" 2>"$OUT/said"; }
sync_to_dest() { mailtwin sync --json --max-delete 100% "$SRC" "$DEST"; }
"#;

const A_FULL_DISK_WITH_POINTS: &str = r#"mkdir "$DISK"
truncate -s 48m "$OUT/disk"
mkfs.ext4 -q -b 1024 -m 0 -E lazy_itable_init=0,nodiscard "$OUT/disk" || exit 94
mount -o loop "$OUT/disk" "$DISK" || exit 95
touch "$DISK/name"
sync_to_dest || exit 91
mailtwin backup --full "$DEST" || exit 92
mailtwin backup --full "$DEST" || exit 92
rm "$DEST/.mailtwin/reserve"
fill; fill_directory
mailtwin expire --keep-full 1 "$DEST"; echo "$?" >"$OUT/code-without"; cp "$OUT/said" "$OUT/said-without"
empty
mailtwin expire "$DEST" || exit 96
[ -s "$DEST/.mailtwin/reserve" ] || exit 97
fill; fill_directory
mv "$MORE"/* "$SRC/new/"
sync_to_dest; echo "$?" >"$OUT/code-sync"; cp "$OUT/said" "$OUT/said-sync"
mailtwin expire --keep-full 1 "$DEST"; echo "$?" >"$OUT/code-with"; cp "$OUT/said" "$OUT/said-with"
ls "$DEST/.mailtwin/points" | grep -c 'F$' >"$OUT/points"
[ -s "$DEST/.mailtwin/reserve" ] && echo held >"$OUT/reserve" || cp "$OUT/said-with" "$OUT/reserve"
mailtwin verify --all "$DEST" || exit 98
empty
sync_to_dest || exit 99
rsync -rlpgoHn --checksum --delete --itemize-changes --exclude=/.mailtwin "$SRC/" "$DEST/"
"#;

/// A place for a disk of its own, and messages that arrive when it is full.
fn stage(arriving: u64) -> (Pair, PathBuf) {
    let mut pair = Pair::new();
    let (more, out) = (pair.path("more"), pair.path("out"));
    pair.mirror = pair.path("disk").join("mirror");
    for directory in [&more, &out] {
        fs::create_dir(directory).expect("a directory");
    }
    for number in 0..arriving {
        fs::write(more.join(format!("{}.M1P1.mx", 1_800_000_000 + number)), noise(number, 20_000)).expect("a message");
    }
    (pair, out)
}

fn play(script: &str, pair: &Pair) -> Run {
    let (disk, more, out) = (pair.path("disk"), pair.path("more"), pair.path("out"));
    let places: [(&str, &OsStr); 7] = [
        ("SRC", pair.source.as_os_str()),
        ("DISK", disk.as_os_str()),
        ("DEST", pair.mirror.as_os_str()),
        ("MORE", more.as_os_str()),
        ("OUT", out.as_os_str()),
        ("BINARY", OsStr::new(BINARY)),
        ("MAILTWIN_STATE", pair.state.as_os_str()),
    ];
    in_a_namespace(&[FUNCTIONS, script].concat(), &places)
}

#[test]
fn points_can_be_removed_from_a_disk_without_a_free_block() {
    if !am_root() {
        say("not tried: only root may mount a disk of its own (a file as a block device)");
        return;
    }
    let (pair, out) = stage(30);
    make_scenario(&pair.source);
    let run = play(A_FULL_DISK_WITH_POINTS, &pair).ended_with(0);
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default();
    assert_eq!(read("code-without").trim(), "1", "the test means to see a disk that is too full: {}", run.story());
    assert!(read("said-without").contains("No space left"), "{}", read("said-without"));
    assert_eq!(read("code-sync").trim(), "1", "{}", read("said-sync"));
    assert!(read("said-sync").contains("mailtwin expire"), "{}", read("said-sync"));
    assert_eq!((read("code-with").trim(), read("points").trim()), ("0", "1"), "{}", read("said-with"));
    let reserve = read("reserve");
    assert!(reserve.trim() == "held" || reserve.contains("reserve"), "{reserve}");
    assert!(run.stdout.is_empty(), "not equal in the end: {}", run.story());
}

/// What is full here is made so by the messages of points alone: there is no ballast that somebody could remove.
const A_DISK_FULL_OF_POINTS: &str = r#"mkdir "$DISK"
mount -t tmpfs -o size=60m none "$DISK" || exit 90
sync_to_dest || exit 91
mailtwin backup --full "$DEST" || exit 92
rm "$SRC"/new/*
sync_to_dest || exit 91
mailtwin backup --full "$DEST" || exit 92
dd if=/dev/zero of="$DISK/others" bs=64k 2>"$OUT/dd"
mv "$MORE"/* "$SRC/new/"
sync_to_dest; echo "$?" >"$OUT/code-sync"; cp "$OUT/said" "$OUT/said-sync"
mailtwin backup --full "$DEST"; echo "$?" >"$OUT/code-backup"; cp "$OUT/said" "$OUT/said-backup"
mailtwin expire --keep-full 1 "$DEST" || exit 96
[ -s "$DEST/.mailtwin/reserve" ] || exit 97
sync_to_dest || { cat "$OUT/said"; exit 99; }
mailtwin backup "$DEST" && mailtwin verify --all "$DEST" || { cat "$OUT/said"; exit 98; }
rsync -rlpgoHn --checksum --delete --itemize-changes --exclude=/.mailtwin "$SRC/" "$DEST/"
"#;

#[test]
fn a_disk_full_of_points_takes_mail_again_once_some_have_expired() {
    let (pair, out) = stage(200);
    let inbox = Folder::create(&pair.source);
    for number in 0..200 {
        inbox.deliver(number, &noise(number + 1000, 100_000));
    }
    let run = play(A_DISK_FULL_OF_POINTS, &pair);
    assert_ne!(run.code(), Some(90), "a mount namespace is needed: {}", run.story());
    let run = run.ended_with(0);
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default();
    for what in ["sync", "backup"] {
        let said = read(&format!("said-{what}"));
        assert_eq!(read(&format!("code-{what}")).trim(), "1", "{said}");
        assert!(said.contains("mailtwin expire") && said.contains(pair.mirror.to_str().expect("ours")), "{said}");
    }
    assert!(run.stdout.is_empty(), "not equal in the end: {}", run.story());
}
