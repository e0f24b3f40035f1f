//! Restoring to another host: what arrives there is what a restore into a directory of this host brings, whatever is cut,
//! killed, full or damaged on the way.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/points.rs"]
mod points;
#[path = "support/sshd.rs"]
mod sshd;
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mailtwin::id::{Digest, Position};
use mailtwin::maildir::change::{Change, Source};
use mailtwin::maildir::entry::{File, Meta};
use mailtwin::maildir::folder::SetKind;
use mailtwin::path::TreePath;
use mailtwin::sync::receiver;
use mailtwin::transport::{Connection, pipe};
use mailtwin::wire::block::{Block, Piece};
use mailtwin::wire::message::{Hello, Message, Refusal, Restoring, Welcome};

use points::*;
use sshd::Sshd;
use tree::*;

/// Points of a sweep on an everyday run.
const POINTS: u64 = 12;

/// A standby with restore points, and ways to hosts that are this one.
struct Scene {
    pair: Pair,
    /// What `--rsh` is given.
    rsh: String,
}

impl Scene {
    fn of(pair: Pair) -> Self {
        let path = pair.path("far.sh");
        script(&path, FAR_END_WITH_FAULTS);
        Self { rsh: rsh(&path), pair }
    }

    /// Mail with a full, two differentials over it, and changes that are in the log alone.
    fn of_mail() -> (Self, Vec<String>) {
        let scene = Self::of(Pair::new());
        make_scenario(&scene.pair.source);
        let mut labels = Vec::new();
        for round in 0..3 {
            scene.pair.sync(&UNGUARDED);
            labels.push(backup(&scene.pair, &[]));
            change_scenario(&scene.pair.source, round);
            append(&scene.pair.source.join(".Sent/dovecot-uidlist"), b"999 :x\n");
        }
        scene.pair.sync(&UNGUARDED);
        (scene, labels)
    }

    /// Three mailboxes with 300 letters each, in a full.
    fn of_mailboxes() -> Self {
        Self::of_mailboxes_with(150)
    }

    /// Three mailboxes of two folders with so many letters each, in a full.
    fn of_mailboxes_with(letters: u64) -> Self {
        let scene = Self::of(Pair::new());
        for user in 0..3 {
            let home = scene.pair.source.join(format!("example.org/user{user}/Maildir"));
            for (folder, first) in [(home.clone(), 0), (home.join(".Archive"), 1000)] {
                let folder = Folder::create(&folder);
                for number in first..first + letters {
                    folder.file(number, "S", &letter(user * 10_000 + number, 3000));
                }
                folder.rewrite_uidlist();
            }
        }
        scene.pair.sync(&UNGUARDED);
        backup(&scene.pair, &[]);
        scene
    }

    fn standby(&self) -> &Path {
        &self.pair.mirror
    }

    /// A way that does something to the stream on it: `body` runs with the far end's command in `"$@"`.
    fn by(&self, name: &str, body: &str) -> String {
        let path = self.pair.path(name);
        script(&path, &format!("shift\n{body}"));
        rsh(&path)
    }

    fn place(&self) -> PathBuf {
        fresh_place(self.pair.home())
    }

    fn command(&self, options: &[&str], place: &Path, rsh: &str) -> Command {
        let to = format!("{HOST}:{}", place.display());
        let way = ["--rsh", rsh, "--remote-path", BINARY, "--json", "--no-progress", "--to", &to];
        let words = [options, &way].concat();
        let words: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
        let mut command = command("restore", self.standby(), &words);
        command.env_remove("FAR_FAULT").env_remove("FAR_COUNT");
        command
    }

    fn restore_by(&self, options: &[&str], place: &Path, rsh: &str) -> Run {
        decent(finish(&mut self.command(options, place, rsh)))
    }

    fn restore(&self, options: &[&str], place: &Path) -> Run {
        self.restore_by(options, place, &self.rsh)
    }

    /// With a fault of the far end.
    fn struck(&self, options: &[&str], place: &Path, fault: &str) -> Run {
        decent(finish(self.command(options, place, &self.rsh).env("FAR_FAULT", fault)))
    }

    /// What a restore into a directory of this host brings.
    fn expected(&self, options: &[&str]) -> Tree {
        let (run, place) = try_restore(self.standby(), options);
        run.ended_with(0);
        let tree = self.tree(&place);
        fs::remove_dir_all(&place).expect("removed");
        tree
    }

    fn tree(&self, place: &Path) -> Tree {
        restored_tree(place, self.pair.mail)
    }

    /// Restores both ways, and compares. Gives what the remote one reported.
    fn assert_equal(&self, options: &[&str]) -> Report {
        let (expected, place) = (self.expected(options), self.place());
        let run = self.restore(options, &place).ended_with(0);
        assert_same(&run.story(), &expected, &self.tree(&place));
        fs::remove_dir_all(&place).expect("removed");
        run.report()
    }
}

// ---- what arrives ----

#[test]
fn over_ssh_arrives_what_a_local_restore_brings() {
    let scene = Scene::of(Pair::of_files());
    make_everything(&scene.pair.source);
    scene.pair.sync(&UNGUARDED);
    let label = backup(&scene.pair, &[]);
    let below = scene.pair.source.join("below");
    fs::create_dir(&below).expect("a directory");
    make_everything(&below);
    scene.pair.sync(&UNGUARDED);
    let (sshd, attributed) = (Sshd::start(), attributes(&scene.pair.source));
    for options in [&["--point", &label][..], &[]] {
        let (expected, place) = (scene.expected(options), scene.place());
        let to = format!("{}@localhost:{}", sshd::own_user(), place.display());
        let rsh = sshd.rsh();
        let way = ["--rsh", &rsh, "--remote-path", BINARY, "--to", &to];
        run("restore", scene.standby(), &[options, &way].concat()).ended_with(0);
        assert_same("over ssh", &expected, &scene.tree(&place));
        if options.is_empty() {
            assert_eq!(attributes(&place), attributed);
        }
    }
}

#[test]
fn every_point_and_the_newest_moment_arrive_as_they_were() {
    let (scene, labels) = Scene::of_mail();
    for label in &labels {
        scene.assert_equal(&["--point", label]);
    }
    let report = scene.assert_equal(&[]);
    assert!(report.count("created") > 15, "{}", report.0);
    assert_eq!((report.count("failed"), report.count("skipped")), (0, 0), "{}", report.0);
}

#[test]
fn one_mailbox_one_folder_and_single_messages_arrive_alone() {
    let scene = Scene::of_mailboxes();
    for options in [
        &["--mailbox", "user1@example.org"][..],
        &["--mailbox", "example.org/user2/Maildir", "--folder", "Archive"],
        &["--subject", "letter 10007"],
        &["--subject", "there is no such letter"],
    ] {
        scene.assert_equal(options);
    }
    let report = scene.assert_equal(&["--mailbox", "user1@example.org"]);
    assert_eq!(report.count("created"), 302, "{}", report.0);
}

#[test]
fn large_contents_arrive_whole_and_blocks_of_them_go_once() {
    let scene = Scene::of(Pair::of_files());
    let mut bytes = 0;
    for (number, length) in (0..).zip([0, 1_048_576, 1_048_577, 2_097_153, 3_145_729, 9_000_000, 17_000_001]) {
        fs::write(scene.pair.source.join(format!("of {length}")), noise(number, length)).expect("a file");
        bytes += length as u64;
    }
    fs::write(scene.pair.source.join("of zeros"), vec![0; 12_000_000]).expect("a file");
    scene.pair.sync(&UNGUARDED);
    backup(&scene.pair, &[]);
    let report = scene.assert_equal(&[]);
    let sent = report.count("bytes_sent");
    assert!(sent > bytes && sent < bytes + bytes / 20, "{sent} bytes for {bytes} that do not compress");
}

#[test]
fn a_control_file_that_grew_by_differences_arrives_put_together() {
    let scene = Scene::of(Pair::new());
    let folder = Folder::create(&scene.pair.source);
    folder.file(1, "S", &letter(1, 500));
    let list = scene.pair.source.join("dovecot-uidlist");
    fs::write(&list, format!("3 V1 N900 G{}\n{}", "a".repeat(32), "1 :x\n".repeat(3000))).expect("a list");
    scene.pair.sync(&UNGUARDED);
    backup(&scene.pair, &[]);
    for round in 0..3 {
        append(&list, format!("{} :y\n", 5000 + round).as_bytes());
        let patched = scene.pair.sync(&UNGUARDED);
        assert_eq!(patched.count("files_patched"), 1, "{}", patched.0);
    }
    scene.assert_equal(&[]);
}

// ---- how it travels ----

#[test]
fn what_is_wanted_whole_travels_in_blocks_as_they_are_stored() {
    let scene = Scene::of_mailboxes();
    let stored = segments_of(scene.standby());
    let report = scene.assert_equal(&[]);
    assert!(report.count("blocks_as_stored") > 0, "{}", report.0);
    assert_eq!(report.count("blocks_repacked"), 0, "{}", report.0);
    let sent = report.count("bytes_sent");
    assert!(sent < stored + stored / 5, "{sent} bytes sent, {stored} stored: {}", report.0);
    assert!(sent < report.count("bytes") / 2, "{}", report.0);
}

#[test]
fn what_is_a_small_part_of_its_blocks_is_packed_anew() {
    let scene = Scene::of_mailboxes();
    let all = scene.assert_equal(&[]);
    let report = scene.assert_equal(&["--subject", "letter 1000"]);
    assert_eq!(report.count("created"), 11, "{}", report.0);
    assert_eq!((report.count("blocks_as_stored"), report.count("blocks_repacked")), (0, 1), "{}", report.0);
    assert!(report.count("bytes_sent") < all.count("bytes_sent") / 10, "{} of {}", report.0, all.0);
    let raw = scene.assert_equal(&["--subject", "letter 1000", "--compress-level", "0"]);
    assert!(raw.count("bytes_sent") > report.count("bytes_sent") * 2, "{} and {}", raw.0, report.0);
}

#[test]
fn a_limit_to_the_rate_is_kept() {
    let scene = Scene::of_mailboxes();
    let place = scene.place();
    let run = scene.restore(&["--bwlimit", "200"], &place).ended_with(0);
    let seconds = run.report().count("bytes_sent") as f64 / f64::from(200 << 10);
    // A tenth of a second may be sent ahead.
    assert!(run.took.as_secs_f64() > seconds - 0.2, "{seconds} seconds at that rate: {}", run.story());
}

#[test]
fn progress_is_shown_where_it_is_asked_for() {
    let scene = Scene::of_mailboxes();
    let place = scene.place();
    let run = scene.restore(&["--progress"], &place).ended_with(0);
    assert!(scene.tree(&place) == scene.expected(&[]), "{}", run.story());
}

/// Bytes of the segments of all points.
fn segments_of(standby: &Path) -> u64 {
    let files = walkdir::WalkDir::new(points_of(standby)).into_iter().map(|entry| entry.expect("an entry"));
    let segments = files.filter(|entry| entry.file_type().is_file() && !entry.path().ends_with("manifest"));
    segments.map(|entry| entry.metadata().expect("is there").len()).sum()
}

// ---- what is refused ----

/// What was said, without whose words they are.
fn sentence(run: &Run) -> String {
    let said = run.said();
    let own =
        said.lines().find_map(|line| line.strip_prefix("mailtwin: ")).unwrap_or_else(|| panic!("{}", run.story()));
    own.strip_prefix(&format!("{HOST}: ")).unwrap_or(own).to_owned()
}

/// Makes a directory one that is not restored into.
type Spoil = fn(&Path);

#[test]
fn a_directory_that_is_not_empty_is_refused_in_the_words_of_a_local_restore() {
    let (scene, labels) = Scene::of_mail();
    let make: [(&str, Spoil); 4] = [
        ("a file", |place| fs::write(place.join("x"), "mine").expect("a file")),
        ("a directory", |place| fs::create_dir(place.join("cur")).expect("a directory")),
        ("an empty state", |place| {
            fs::create_dir(place.join(".mailtwin")).expect("a directory");
            fs::write(place.join("letter"), "mine").expect("a file");
        }),
        ("a state alone", |place| {
            fs::create_dir_all(place.join(".mailtwin/points")).expect("directories");
        }),
    ];
    for (what, make) in make {
        let place = scene.pair.path(what);
        fs::create_dir(&place).expect("a directory");
        make(&place);
        let before = fingerprint(&place);
        let to = place.to_str().expect("ours");
        let local = run("restore", scene.standby(), &["--point", &labels[0], "--to", to]).ended_with(1);
        let remote = scene.restore(&["--point", &labels[0]], &place).ended_with(1);
        assert_eq!(sentence(&remote), sentence(&local), "{what}");
        assert!(remote.said().contains(HOST), "{}", remote.story());
        assert!(before == fingerprint(&place), "{what} was touched");
    }
}

#[test]
fn a_finished_restore_is_not_taken_for_one_to_go_on_with() {
    let (scene, _) = Scene::of_mail();
    let place = scene.place();
    scene.restore(&[], &place).ended_with(0);
    let before = fingerprint(&place);
    scene.restore(&[], &place).refused(&[1], "not empty");
    assert!(before == fingerprint(&place), "it was touched");
}

#[test]
fn places_in_the_standby_are_refused_by_the_far_end_too() {
    let (scene, _) = Scene::of_mail();
    let before = names_in(scene.standby());
    for place in [scene.standby().to_owned(), scene.standby().join("inside"), points_of(scene.standby()).join("inside")]
    {
        scene.restore(&[], &place).refused(&[1], "lies in the standby");
    }
    assert_eq!(names_in(scene.standby()), before);
}

#[test]
fn a_directory_that_another_run_writes_to_ends_with_10() {
    let (scene, _) = Scene::of_mail();
    let place = scene.place();
    fs::create_dir(&place).expect("a directory");
    let held = fs::File::open(&place).expect("opens");
    held.lock().expect("locks");
    scene.restore(&[], &place).ended_with(10).spoke_clearly("another run");
    drop(held);
    scene.restore(&[], &place).ended_with(0);
}

#[test]
fn a_directory_above_which_nothing_is_there_is_named() {
    let (scene, _) = Scene::of_mail();
    let place = scene.pair.path("not there/either");
    scene.restore(&[], &place).refused(&[1], "not there");
    assert!(!scene.pair.path("not there").exists());
}

#[test]
fn wrong_usage_ends_with_2_and_nobody_is_called() {
    let (scene, _) = Scene::of_mail();
    let called = scene.pair.path("called");
    let rsh = scene.by("call.sh", &format!("touch {}; exec \"$@\"", called.display()));
    let place = scene.place();
    for options in [&["--bwlimit", "fast"][..], &["--compress-level", "20"], &["--at", "sometime"]] {
        scene.restore_by(options, &place, &rsh).ended_with(2);
    }
    let standby = scene.standby();
    run("restore", standby, &["--to", ":/srv/x"]).refused(&[2], "names no host");
    run("restore", standby, &["--to", "mx1:/srv/x", "--rsh", ""]).refused(&[2], "--rsh");
    let dry = scene.restore_by(&["--dry-run"], &place, &rsh).ended_with(0).report();
    assert!(!called.exists() && !place.exists());
    assert_eq!(dry.count("created"), scene.restore(&[], &place).ended_with(0).report().count("created"));
}

#[test]
fn a_path_with_a_colon_in_it_is_this_hosts_behind_a_slash() {
    let (scene, _) = Scene::of_mail();
    let place = scene.pair.path("mx1:mail");
    run("restore", scene.standby(), &["--to", place.to_str().expect("ours")]).ended_with(0);
    assert_same("local", &scene.expected(&[]), &scene.tree(&place));
}

// ---- the other host ----

#[test]
fn a_host_that_cannot_be_reached_is_named() {
    let (scene, _) = Scene::of_mail();
    let place = scene.place();
    let unreachable = scene.by("unreachable.sh", "exit 255");
    scene.restore_by(&[], &place, &unreachable).ended_with(1).spoke_clearly("cannot reach standby.example.org");
    let without = scene.by("without.sh", "exit 127");
    scene.restore_by(&[], &place, &without).ended_with(1).spoke_clearly("--remote-path");
    assert!(!place.exists());
    let chatty = scene.by("chatty.sh", "echo Welcome to this host, dear user; exec \"$@\"");
    scene.restore_by(&[], &place, &chatty).ended_with(1).spoke_clearly(HOST);
    scene.restore(&[], &place).ended_with(0);
}

#[test]
fn a_host_that_says_nothing_is_given_up_after_the_timeout() {
    let (scene, _) = Scene::of_mail();
    let silent = scene.by("silent.sh", "exec sleep 1000");
    let run = scene.restore_by(&["--timeout", "1"], &scene.place(), &silent).ended_with(1);
    run.spoke_clearly("said nothing for 1 seconds");
}

/// A host whose mailtwin says this, whatever it is told.
fn host_that_says(scene: &Scene, message: &Message, version: Option<u8>) -> String {
    let (header, payload) = {
        let frame = message.frame().expect("packs");
        let mut payload = frame.parts().1.to_vec();
        if let Some(version) = version {
            payload[..4].copy_from_slice(&[version, 0, version, 0]);
        }
        let frame = mailtwin::wire::frame::Frame::plain(frame.kind, payload);
        (frame.parts().0.to_vec(), frame.parts().1.to_vec())
    };
    let said = scene.pair.path("said");
    fs::write(&said, [header, payload].concat()).expect("written");
    scene.by("says.sh", &format!("cat {}; cat > /dev/null", said.display()))
}

#[test]
fn an_older_mailtwin_there_is_told_by_its_number() {
    let (scene, _) = Scene::of_mail();
    // What one of protocol 1 answers to a greeting that asks for 2.
    let words = "on the slave: the other end speaks protocol 2 (at least 2), this one 1: install the same mailtwin on both hosts";
    let older = host_that_says(&scene, &Message::Refuse(Refusal { code: 1, sentence: words.to_owned() }), None);
    let run = scene.restore_by(&[], &scene.place(), &older).ended_with(1);
    run.spoke_clearly(&format!("{HOST}: {words}"));
    assert_eq!(run.said().lines().count(), 1, "{}", run.story());
}

#[test]
fn a_later_mailtwin_there_is_told_by_its_number() {
    let (scene, _) = Scene::of_mail();
    let welcome = Welcome {
        program: "mailtwin 9".to_owned(),
        set: None,
        epoch: Default::default(),
        position: Position::default(),
        root: Digest::default(),
        messages: 0,
        directories_read: 0,
        warnings: Vec::new(),
    };
    let later = host_that_says(&scene, &Message::Welcome(welcome), Some(9));
    let run = scene.restore_by(&[], &scene.place(), &later).ended_with(1);
    run.spoke_clearly("speaks protocol 9 (at least 9)");
}

#[test]
fn a_far_end_that_is_another_program_is_named() {
    let (scene, _) = Scene::of_mail();
    for program in ["exec cat", "exec true", "exec yes"] {
        let another = scene.by("another.sh", program);
        scene.restore_by(&[], &scene.place(), &another).ended_with(1).spoke_clearly(HOST);
    }
}

// ---- what is cut ----

/// Runs it again until it ends with 0, which the first run must do; then what is there is right.
fn assert_finished(scene: &Scene, options: &[&str], place: &Path, expected: &Tree, story: &str) -> Report {
    let run = scene.restore(options, place);
    assert_eq!(run.code(), Some(0), "after {story}: {}", run.story());
    assert_same(&format!("after {story}"), expected, &scene.tree(place));
    run.report()
}

/// Whether it came to its end, in spite of all.
fn is_finished(place: &Path) -> bool {
    let is_state = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b".mailtwin");
    place.is_dir() && !names_in(place).is_empty() && !names_in(place).iter().any(is_state)
}

/// The disk steps of the far end in a whole restore.
fn steps_there(scene: &Scene, options: &[&str]) -> u64 {
    let (counted, place) = (scene.pair.path("steps"), scene.place());
    finish(scene.command(options, &place, &scene.rsh).env("FAR_COUNT", &counted)).ended_with(0);
    fs::remove_dir_all(&place).expect("removed");
    let text = fs::read_to_string(&counted).expect("FAR_COUNT wrote it");
    fs::remove_file(&counted).expect("removed");
    text.trim().parse().unwrap_or_else(|_| panic!("not a count of steps: {text:?}"))
}

#[test]
fn a_far_end_killed_anywhere_is_gone_on_with() {
    let (scene, labels) = Scene::of_mail();
    let options = ["--point", &labels[2]];
    let (expected, steps) = (scene.expected(&options), steps_there(&scene, &options));
    // The last two are the time of the directory itself and its sync: then nothing tells it from somebody's.
    let some = tree::points(steps, POINTS).into_iter().chain(steps - 9..steps - 1);
    for step in some.filter(|step| *step < steps - 1) {
        let place = scene.place();
        let run = scene.struck(&options, &place, &format!("kill@{step}"));
        let story = format!("kill@{step} of {steps}: {}", run.story());
        assert_eq!(run.code(), Some(1), "{story}");
        run.spoke_clearly(HOST);
        assert_finished(&scene, &options, &place, &expected, &story);
        fs::remove_dir_all(&place).expect("removed");
    }
}

#[test]
fn a_far_end_killed_twice_is_gone_on_with() {
    let (scene, labels) = Scene::of_mail();
    let options = ["--point", &labels[2]];
    let (expected, steps) = (scene.expected(&options), steps_there(&scene, &options));
    for (first, second) in [(steps / 3, steps / 4), (steps - 5, 3), (steps / 2, steps / 2), (steps - 4, steps - 4)] {
        let place = scene.place();
        let story = format!("kill@{first} and kill@{second} of {steps}");
        scene.struck(&options, &place, &format!("kill@{first}")).ended_with(1);
        let again = scene.struck(&options, &place, &format!("kill@{second}"));
        if !is_finished(&place) {
            assert_eq!(again.code(), Some(1), "{story}: {}", again.story());
            assert_finished(&scene, &options, &place, &expected, &story);
        }
        assert_same(&story, &expected, &scene.tree(&place));
        fs::remove_dir_all(&place).expect("removed");
    }
}

/// What the near end sends in a whole restore.
fn bytes_sent(scene: &Scene, options: &[&str]) -> u64 {
    let place = scene.place();
    let sent = scene.restore(options, &place).ended_with(0).report().count("bytes_sent");
    fs::remove_dir_all(&place).expect("removed");
    sent
}

/// Lets so many bytes through to the far end, as they come, and then does something.
fn after(bytes: u64, then: &str) -> String {
    format!("{{ dd bs=4096 count={bytes} iflag=count_bytes status=none; {then}; }} | \"$@\"")
}

#[test]
fn a_near_end_killed_anywhere_is_gone_on_with() {
    let (scene, labels) = Scene::of_mail();
    let options = ["--point", &labels[2]];
    let (expected, sent) = (scene.expected(&options), bytes_sent(&scene, &options));
    // The last frame of all is the release: with that the far end goes to its end alone.
    let last = sent - mailtwin::wire::frame::HEADER as u64;
    for bytes in spread(last, 10).into_iter().chain([1, 16, 17, last - 17, last - 16, last - 1, last]) {
        let place = scene.place();
        let killer = scene.by("killer.sh", &after(bytes, "kill -KILL $PPID"));
        let run = scene.restore_by(&options, &place, &killer);
        let story = format!("killed after {bytes} bytes of {sent}: {}", run.story());
        assert!(run.was_killed(), "{story}");
        assert_finished(&scene, &options, &place, &expected, &story);
        fs::remove_dir_all(&place).expect("removed");
    }
}

#[test]
fn a_connection_cut_anywhere_is_named_and_gone_on_with() {
    let (scene, labels) = Scene::of_mail();
    let options = ["--point", &labels[2]];
    let (expected, sent) = (scene.expected(&options), bytes_sent(&scene, &options));
    let last = sent - mailtwin::wire::frame::HEADER as u64;
    for bytes in spread(last, 10) {
        let place = scene.place();
        let cutter = scene.by("cutter.sh", &after(bytes, "exec <&- >&-"));
        let run = scene.restore_by(&options, &place, &cutter);
        let story = format!("cut after {bytes} bytes of {sent}: {}", run.story());
        assert_eq!(run.code(), Some(1), "{story}");
        run.spoke_clearly(HOST);
        assert_finished(&scene, &options, &place, &expected, &story);
        fs::remove_dir_all(&place).expect("removed");
    }
}

/// So many numbers up to a last one.
fn spread(last: u64, count: u64) -> Vec<u64> {
    let count = if full_sweep() { count * 20 } else { count };
    (1..=count).map(|part| last * part / count).collect()
}

#[test]
fn what_has_come_before_a_cut_is_not_sent_again() {
    let scene = Scene::of_mailboxes_with(600);
    let (expected, sent) = (scene.expected(&[]), bytes_sent(&scene, &[]));
    let place = scene.place();
    let cutter = scene.by("cutter.sh", &after(sent * 3 / 4, "exec <&- >&-"));
    scene.restore_by(&[], &place, &cutter).ended_with(1);
    let report = assert_finished(&scene, &[], &place, &expected, "a cut");
    let (created, skipped) = (report.count("created"), report.count("skipped"));
    assert!(skipped > 0 && created + skipped == 3606, "{}", report.0);
    assert!(report.count("bytes_sent") < sent, "{sent} at first, and then {}", report.0);
}

#[test]
fn what_was_made_durable_on_the_way_is_not_sent_again_after_a_kill_there() {
    let scene = Scene::of(Pair::of_files());
    fs::write(scene.pair.source.join("a"), "first").expect("a file");
    // Zeros cost nothing but count: after 256 MiB the far end makes durable what it has.
    let zeros = fs::File::create(scene.pair.source.join("b")).expect("a file");
    zeros.set_len(300 << 20).expect("a length");
    for number in 0..300 {
        fs::write(scene.pair.source.join(format!("c{number}")), noise(number, 1000)).expect("a file");
    }
    scene.pair.sync(&UNGUARDED);
    backup(&scene.pair, &[]);
    let (expected, steps, place) = (scene.expected(&[]), steps_there(&scene, &[]), scene.place());
    scene.struck(&[], &place, &format!("kill@{}", steps - 400)).ended_with(1);
    let report = assert_finished(&scene, &[], &place, &expected, "a kill");
    assert_eq!((report.count("skipped"), report.count("created")), (2, 300), "{}", report.0);
}

#[test]
fn another_restore_does_not_go_on_with_an_unfinished_one() {
    let (scene, labels) = Scene::of_mail();
    let (options, other) = (["--point", &labels[2]], ["--point", &labels[1]]);
    let place = scene.place();
    let steps = steps_there(&scene, &options);
    scene.struck(&options, &place, &format!("kill@{}", steps / 2)).ended_with(1);
    scene.restore(&other, &place).refused(&[1], "the beginning of another restore");
    assert_finished(&scene, &options, &place, &scene.expected(&options), "a refusal");
}

// ---- a disk that refuses ----

/// Fails the far end at the points of a sweep: it is said, and what came is right. Where it stopped, the same command goes on.
fn survives_errors_there(kind: &str) {
    let (scene, labels) = Scene::of_mail();
    let options = ["--point", &labels[2]];
    let (expected, steps) = (scene.expected(&options), steps_there(&scene, &options));
    for step in tree::points(steps, POINTS) {
        let (fault, place) = (kind.replace('@', &format!("@{step}")), scene.place());
        let run = scene.struck(&options, &place, &fault);
        let story = format!("{fault} of {steps}: {}", run.story());
        match run.code() {
            Some(0) => assert_same(&story, &expected, &scene.tree(&place)),
            Some(23) => {
                let (there, said) = (scene.tree(&place), run.said());
                for (path, entry) in &there {
                    assert_eq!(expected.get(path).map(|right| &right.kind), Some(&entry.kind), "{story}");
                }
                for path in expected.keys().filter(|path| !there.contains_key(*path)) {
                    assert!(said.contains(&shown(path)), "{} is missing: {story}", shown(path));
                }
            }
            Some(1) => {
                run.spoke_clearly(HOST);
                assert!(run.said().contains(place.to_str().expect("ours")), "no place is named: {story}");
                assert_finished(&scene, &options, &place, &expected, &story);
            }
            _ => panic!("{story}"),
        }
        let _ = fs::remove_dir_all(&place);
    }
}

#[test]
fn an_input_output_error_there_is_named() {
    survives_errors_there("eio@");
}

#[test]
fn a_full_disk_there_is_named_and_gone_on_with() {
    survives_errors_there("enospc@+");
    let (scene, _) = Scene::of_mail();
    let run = scene.struck(&[], &scene.place(), "enospc@20+").ended_with(1);
    run.spoke_clearly("the disk is full");
    assert!(run.said().contains("give the same command again"), "{}", run.story());
    assert_eq!(run.said().lines().count(), 1, "{}", run.story());
}

#[test]
fn a_short_write_there_is_named_or_mended() {
    survives_errors_there("short@");
}

// ---- damage ----

/// Names of what is missing, as a report has them: paths relative to the place.
fn lost(report: &Report, place: &Path) -> Vec<String> {
    let prefix = format!("{}/", place.display());
    let short = |(subject, reason): (String, String)| {
        format!("{}: {reason}", subject.strip_prefix(&prefix).unwrap_or(&subject))
    };
    let mut lost: Vec<String> = report.problems().into_iter().map(short).collect();
    lost.sort();
    lost
}

/// Directories whose records are lost are made anew, for their owner alone.
fn without_lost_times(mut tree: Tree) -> Tree {
    for entry in tree.values_mut().filter(|entry| entry.kind == Kind::Directory && entry.mode == 0o700) {
        entry.modified = None;
    }
    tree
}

/// Damages a standby, restores both ways, and compares what came and what is told.
fn assert_damage_is_told_alike(scene: &Scene, damage: impl Fn(&Path)) {
    let copy = copy_of(scene.standby(), "damaged");
    damage(&copy);
    let (local, here) = try_restore(&copy, &["--json"]);
    let there = scene.place();
    let to = format!("{HOST}:{}", there.display());
    let remote = run("restore", &copy, &["--json", "--rsh", &scene.rsh, "--remote-path", BINARY, "--to", &to]);
    let (local, remote) = (local.ended_with(23), remote.ended_with(23));
    assert_same(&remote.story(), &without_lost_times(scene.tree(&here)), &without_lost_times(scene.tree(&there)));
    let told = lost(&remote.report(), &there);
    assert_eq!(told, lost(&local.report(), &here), "{}", remote.story());
    assert!(!told.is_empty(), "{}", remote.story());
    for name in ["created", "failed", "bytes"] {
        assert_eq!(remote.report().count(name), local.report().count(name), "{name}: {}", remote.story());
    }
    for place in [here, there] {
        fs::remove_dir_all(&place).expect("removed");
    }
}

fn flip(path: &Path, share: u64) {
    let mut bytes = fs::read(path).expect("the file");
    let at = bytes.len() as u64 * share / 100;
    bytes[at as usize] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

/// The files of all points whose names satisfy this.
fn files_of_points(standby: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(points_of(standby)).sort_by_file_name().into_iter();
    let files = all.map(|entry| entry.expect("an entry")).filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.into_path()).filter(|path| wanted(path)).collect()
}

#[test]
fn damaged_contents_are_named_and_the_rest_arrives() {
    let scene = Scene::of_mailboxes();
    let segments = |standby: &Path| files_of_points(standby, |path| !path.ends_with("manifest"));
    for share in [5, 40, 70, 95] {
        assert_damage_is_told_alike(&scene, |standby| segments(standby).iter().for_each(|path| flip(path, share)));
    }
    assert_damage_is_told_alike(&scene, |standby| fs::remove_file(&segments(standby)[0]).expect("removed"));
}

#[test]
fn a_damaged_manifest_is_named_and_the_rest_arrives() {
    // Some ranges of 2,048 records at most.
    let scene = Scene::of_mailboxes_with(800);
    let manifests = |standby: &Path| files_of_points(standby, |path| path.ends_with("manifest"));
    for share in [15, 50, 80] {
        assert_damage_is_told_alike(&scene, |standby| flip(&manifests(standby)[0], share));
    }
}

#[test]
fn a_large_content_that_is_damaged_in_its_middle_is_named_and_nothing_of_it_stays() {
    let scene = Scene::of(Pair::of_files());
    fs::write(scene.pair.source.join("large"), noise(1, 12_000_000)).expect("a file");
    fs::write(scene.pair.source.join("linked"), noise(2, 5_000_000)).expect("a file");
    fs::hard_link(scene.pair.source.join("linked"), scene.pair.source.join("other name")).expect("a link");
    for name in ["a", "z"] {
        fs::write(scene.pair.source.join(name), name).expect("a file");
    }
    scene.pair.sync(&UNGUARDED);
    backup(&scene.pair, &[]);
    let segments = |standby: &Path| files_of_points(standby, |path| !path.ends_with("manifest"));
    for share in [30, 60, 90] {
        assert_damage_is_told_alike(&scene, |standby| segments(standby).iter().for_each(|path| flip(path, share)));
    }
}

// ---- a near end that lies ----

/// A far end in this process, and the near end of the way to it.
struct Liar {
    near: Option<Connection>,
    far: Option<std::thread::JoinHandle<()>>,
    place: PathBuf,
    _home: tempfile::TempDir,
}

impl Liar {
    fn greeted() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let place = home.path().join("place");
        let (near, far) = pipe::pair("the far end");
        let far = std::thread::spawn(move || drop(receiver::serve(far)));
        let mut liar = Self { near: Some(near), far: Some(far), place, _home: home };
        let hello = Hello {
            program: "a liar".into(),
            set: None,
            epoch: Default::default(),
            position: Position::default(),
            root: Digest::default(),
            kind: SetKind::Maildir,
            destination: liar.place.as_os_str().as_encoded_bytes().to_vec(),
            state: None,
            dry_run: false,
            checksum: false,
            filters: Vec::new(),
            boot: Digest::default(),
            ancestry: Vec::new(),
            restore: Some(Restoring { what: "lies".into(), mtime: None }),
        };
        liar.say(Message::Hello(hello));
        assert!(matches!(liar.near().receiver.recv(), Ok(Message::Welcome(_))));
        liar
    }

    fn near(&mut self) -> &mut Connection {
        self.near.as_mut().expect("it is not over")
    }

    fn say(&mut self, message: Message) {
        self.near().sender.send(&message).expect("the far end listens");
    }

    fn batch(&mut self, sequence: u64, change: Change) {
        self.say(Message::Changes(vec![change]));
        self.say(Message::Commit(Position { epoch: 1, sequence }, 1));
    }

    /// The far end's refusal. It ends by itself, and keeps its state: nothing is finished.
    fn refusal(&mut self) -> String {
        let sentence = loop {
            match self.near().receiver.recv() {
                Ok(Message::Refuse(refusal)) => break refusal.sentence,
                Ok(Message::Ack(_) | Message::Done(_)) => {}
                other => panic!("not refused: {other:?}"),
            }
        };
        self.near = None;
        self.far.take().expect("it is not over").join().expect("it does not panic");
        assert!(self.place.join(".mailtwin/restoring").exists());
        sentence
    }
}

fn path_of(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a good path")
}

fn directory(path: &str) -> Change {
    let path = if path.is_empty() { TreePath::root() } else { path_of(path) };
    Change::MakeDirectory { path, meta: Meta { mode: 0o700, ..Meta::default() } }
}

fn content(number: u64, bytes: &[u8], digest: Digest) -> Message {
    let piece = Piece { number, offset: 0, length: bytes.len() as u32, last: Some(digest), sparse: false };
    Message::Block(Block { pieces: vec![piece], data: bytes.to_vec() }.encode(0).expect("packs"))
}

#[test]
fn a_restore_that_does_more_than_to_make_things_is_refused() {
    let changes = [
        Change::Remove { path: path_of("x"), mark: Default::default() },
        Change::RemoveDirectory { path: path_of("x") },
        Change::Rename { from: path_of("x"), to: path_of("y"), mark: Default::default() },
        Change::Put {
            path: path_of("x"),
            meta: Meta::default(),
            file: File { size: 1, digest: Digest::of(b"x"), group: 0 },
            source: Source::Copied(path_of("y")),
        },
    ];
    for change in changes {
        let mut liar = Liar::greeted();
        liar.batch(1, directory(""));
        liar.batch(2, change);
        assert!(liar.refusal().contains("a change that a restore does not make"));
    }
}

#[test]
fn a_restore_that_is_released_before_its_end_or_goes_on_behind_it_is_refused() {
    let mut early = Liar::greeted();
    early.batch(1, directory(""));
    early.say(Message::Release);
    assert!(early.refusal().contains("not finished"));
    let mut late = Liar::greeted();
    late.batch(1, directory(""));
    late.say(Message::Finish);
    late.batch(2, directory("more"));
    assert!(late.refusal().contains("after the end"));
    let mut again = Liar::greeted();
    again.batch(1, directory(""));
    again.batch(1, directory("again"));
    assert!(again.refusal().contains("comes again"));
}

#[test]
fn a_content_that_is_not_what_its_digest_says_is_not_put_in_place() {
    let mut liar = Liar::greeted();
    liar.batch(1, directory(""));
    liar.say(content(1, b"bytes", Digest::of(b"others")));
    assert!(liar.refusal().contains("digest"));
    assert_eq!(names_in(&liar.place), [".mailtwin"]);
}
