//! Restore points as a file system: what a point was is read there by whatever reads files, while points come and go;
//! what is damaged is an error, and never a wrong byte.

#[path = "support/mount.rs"]
mod mount;
#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mount::*;
use points::*;
use tree::*;

/// A mailbox with a full, a differential and something in the log behind it; the labels, and what each was.
fn mailbox() -> (Pair, [String; 2], [Tree; 3]) {
    let pair = Pair::new();
    make_scenario(&pair.source);
    let first = sync_and_remember(&pair).tree;
    let full = backup(&pair, &["--full"]);
    change_scenario(&pair.source, 0);
    let second = sync_and_remember(&pair).tree;
    let differential = backup(&pair, &["--diff"]);
    change_scenario(&pair.source, 1);
    append(&pair.source.join("dovecot-uidlist"), b"999 :x\n");
    let third = sync_and_remember(&pair).tree;
    (pair, [full, differential], [first, second, third])
}

/// Any message of a folder.
fn a_message(folder: &Path) -> std::path::PathBuf {
    Folder(folder.to_owned()).messages().into_iter().next().unwrap_or_else(|| panic!("no message in {folder:?}"))
}

// ---- what is there ----

#[test]
fn every_point_is_a_directory_with_the_set_as_it_was_and_now_is_the_newest() {
    let (pair, labels, trees) = mailbox();
    let mount = Mount::new(&pair.mirror, &[]);
    assert_eq!(mount.labels(), labels);
    for (name, tree) in [&labels[0], &labels[1], "now"].into_iter().zip(&trees) {
        assert_same(name, &read_only(tree), &mount.tree(name, true));
    }
    let latest = fs::read_link(mount.path("latest")).expect("a link");
    assert_eq!(latest.to_str(), Some(labels[1].as_str()));
    assert_same("latest", &read_only(&trees[1]), &mount.tree("latest", true));
}

#[test]
fn what_is_mounted_is_what_a_restore_brings_whatever_the_names_and_attributes() {
    let pair = Pair::of_files();
    make_everything(&pair.source);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let below = pair.source.join("below");
    fs::create_dir(&below).expect("a directory");
    make_everything(&below);
    pair.sync(&UNGUARDED);
    backup(&pair, &["--diff"]);
    let mount = Mount::new(&pair.mirror, &[]);
    for label in labels(&pair.mirror) {
        let (run, place) = try_restore(&pair.mirror, &["--point", &label]);
        run.ended_with(0);
        assert_same(&label, &read_only(&read_tree(&place)), &mount.tree(&label, false));
        assert_eq!(attributes(&place), attributes(&mount.path(&label)));
        // Two names are one file there, too.
        let (large, linked) = (mount.path(&label).join("large"), mount.path(&label).join("a third name"));
        let numbers = [&large, &linked].map(|path| fs::metadata(path).map(|found| (found.ino(), found.nlink())));
        let [one, other] = numbers.map(|number| number.expect("it is there"));
        assert_eq!((one, one.1), (other, fs::metadata(place.join("large")).expect("restored").nlink()));
    }
}

#[test]
fn nothing_can_be_written_and_nothing_of_the_standby_changes() {
    let (pair, labels, _) = mailbox();
    let before = fingerprint(&pair.mirror);
    let mount = Mount::new(&pair.mirror, &[]);
    let message = a_message(&mount.path(&labels[0]));
    let errors = [
        fs::write(&message, "x").err(),
        fs::write(mount.path("x"), "x").err(),
        fs::remove_file(&message).err(),
        fs::rename(&message, mount.path("x")).err(),
        fs::set_permissions(&message, fs::Permissions::from_mode(0o777)).err(),
        fs::create_dir(mount.path("latest/x")).err(),
    ];
    for error in errors {
        let error = error.expect("it is refused");
        assert!(matches!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem), "{error}");
    }
    mount.tree(&labels[1], true);
    mount.unmount();
    assert!(before == fingerprint(&pair.mirror), "something was written");
}

#[test]
fn a_mail_reader_opens_a_folder_of_a_point() {
    let (pair, labels, _) = mailbox();
    let mount = Mount::new(&pair.mirror, &[]);
    let folder = mount.path(&labels[0]).join(".Archive");
    let piped = pair.path("piped");
    let script = format!(
        "exec mutt -n -F /dev/null -R -f '{}' -e 'set wait_key=no pipe_split=yes pipe_decode=no; \
         push <tag-pattern>~A<enter><tag-prefix><pipe-message>cat>>{}<enter><exit>'",
        folder.display(),
        piped.display()
    );
    // It would ask first whether to make it.
    fs::create_dir(pair.path("Mail")).expect("a directory");
    let mut mutt = Command::new("timeout");
    mutt.args(["60", "script", "-q", "-e", "-c", &script, "/dev/null"]).env("TERM", "xterm").env("LC_ALL", "C");
    mutt.env("HOME", pair.home()).env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut mutt = mutt.spawn().expect("timeout (package coreutils) starts");
    // The end of its input would be a key that is pressed.
    let _keyboard = mutt.stdin.take();
    assert!(mutt.wait().expect("it ends").success(), "script (package bsdutils), or mutt (package mutt), failed");
    let read = fs::read(&piped).unwrap_or_else(|error| panic!("mutt (package mutt) piped nothing: {error}"));
    let subjects = |bytes: &[u8]| {
        let mut lines: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
        lines.retain(|line| line.starts_with("Subject: ") || line.starts_with("Message-ID: "));
        lines.sort();
        lines
    };
    let messages = Folder(folder).messages();
    assert!(messages.len() > 3, "{messages:?}");
    let wanted: Vec<u8> = messages.iter().flat_map(|path| fs::read(path).expect("reads")).collect();
    assert!(!subjects(&wanted).is_empty());
    assert_eq!(subjects(&read), subjects(&wanted));
}

#[test]
fn df_tells_how_much_a_point_has() {
    let (pair, labels, _) = mailbox();
    let mount = Mount::new(&pair.mirror, &[]);
    let words = ["-f", "-c", "%c %b %S %f"].map(OsStr::new);
    let said = tool("coreutils", "stat", &[&words[..], &[mount.path(&labels[0]).as_os_str()]].concat());
    let figures: Vec<u64> =
        String::from_utf8_lossy(&said).split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let point = listed_as(&pair.mirror, &labels[0]);
    let [files, blocks, size, free] = figures[..] else { panic!("{figures:?}") };
    assert!(files >= point["files"].as_u64().expect("a number"), "{files}");
    assert_eq!((blocks, free), (point["bytes"].as_u64().expect("a number").div_ceil(size), 0));
}

// ---- points come and go ----

#[test]
fn a_point_made_meanwhile_appears_and_latest_and_now_go_with_the_time() {
    let (pair, labels, _) = mailbox();
    let mount = Mount::new(&pair.mirror, &[]);
    assert_eq!(mount.labels(), labels);
    change_scenario(&pair.source, 2);
    let tree = read_only(&sync_and_remember(&pair).tree);
    // Who walks through it while it changes may find a name gone.
    let now = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mount.tree("now", true)));
    eventually("now is what was synced", SOON, || now().is_ok_and(|now| now == tree));
    let label = backup(&pair, &["--diff"]);
    eventually("the link leads to the new point", SOON, || {
        fs::read_link(mount.path("latest")).is_ok_and(|latest| latest == Path::new(&label))
    });
    assert_same("the new point", &tree, &mount.tree(&label, true));
    assert!(mount.labels().contains(&label));
}

#[test]
fn a_repository_without_a_point_shows_its_first_one() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    let tree = read_only(&sync_and_remember(&pair).tree);
    let mount = Mount::new(&pair.mirror, &[]);
    assert_eq!(names_in(&mount.at), Vec::<std::ffi::OsString>::new());
    let label = backup(&pair, &[]);
    eventually("it is listed", SOON, || names_in(&mount.at).len() == 3);
    assert_same("the first", &tree, &mount.tree(&label, true));
    assert_same("now", &tree, &mount.tree("now", true));
}

#[test]
fn a_point_that_expires_is_not_there_any_more_and_what_is_open_of_it_can_be_read() {
    let (pair, labels, _) = mailbox();
    let mount = Mount::new(&pair.mirror, &[]);
    let in_mirror = |path: &Path| fs::read(path).expect("reads");
    let (run, restored) = try_restore(&pair.mirror, &["--point", &labels[0]]);
    run.ended_with(0);
    let wanted = in_mirror(&a_message(&restored));
    let mut open = File::open(a_message(&mount.path(&labels[0]))).expect("opens");
    let inside = File::open(mount.path(&labels[0])).expect("opens");
    let next = backup(&pair, &["--full"]);
    run_expire(&pair);
    eventually("the points have gone", SOON, || mount.labels() == [next.clone()]);
    eventually("its path leads nowhere", SOON, || !mount.path(&labels[0]).exists());
    let mut read = Vec::new();
    open.read_to_end(&mut read).expect("it is read, though its point has gone");
    assert_eq!(read, wanted);
    // Who stands in it is told, and nothing else happens.
    let beneath = format!("/proc/self/fd/{}/.Archive/cur", std::os::fd::AsRawFd::as_raw_fd(&inside));
    if let Err(error) = fs::read_dir(beneath).and_then(|names| names.collect::<Result<Vec<_>, _>>()) {
        assert!(matches!(error.raw_os_error(), Some(2 | 116)), "{error}");
    }
    assert!(!mount.tree(&next, true).is_empty());
}

/// Lets go all but the newest full.
fn run_expire(pair: &Pair) {
    run("verify", &pair.mirror, &[]).ended_with(0);
    run("expire", &pair.mirror, &["--keep-full", "1"]).ended_with(0);
}

// ---- damage ----

/// The segments of a point, by the bytes in them.
fn largest_segment(standby: &Path, label: &str) -> std::path::PathBuf {
    let directory = points_of(standby).join(label);
    let names = names_in(&directory).into_iter().filter(|name| name != "manifest" && name != "about");
    let length = |path: &std::path::PathBuf| fs::metadata(path).expect("it is there").len();
    names.map(|name| directory.join(name)).max_by_key(length).expect("a segment")
}

#[test]
fn a_damaged_content_is_an_error_that_is_said_once_and_all_else_is_read() {
    let pair = Pair::of_files();
    // Each fills blocks of its own.
    for name in ["one", "two", "three"] {
        fs::write(pair.source.join(name), noise(name.len() as u64, 6 << 20)).expect("a file");
    }
    fs::write(pair.source.join("small"), "small").expect("a file");
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    let segment = largest_segment(&pair.mirror, &label);
    let length = fs::metadata(&segment).expect("it is there").len();
    let spoiled = File::options().write(true).open(&segment).expect("opens");
    spoiled.write_all_at(&[0x55; 64], length / 2).expect("spoils");
    let mut mount = Mount::in_the_foreground(&pair.mirror, &[]);
    let mut hit = Vec::new();
    for name in ["one", "two", "three", "small"] {
        let path = mount.path(&label).join(name);
        for _ in 0..2 {
            match fs::read(&path) {
                Ok(bytes) => {
                    assert!(bytes == fs::read(pair.source.join(name)).expect("reads"), "{name} is not what it was")
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(5), "{error}");
                    hit.push(name);
                }
            }
        }
    }
    assert_eq!(hit.len(), 2, "one content is damaged: {hit:?}");
    mount.unmount();
    let run = mount.end().ended_with(0);
    let said = run.said();
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let named = |line: &&str| line.contains(&format!("{label}/{}", hit[0])) && line.contains("damaged");
    assert!(lines.len() == 1 && lines.iter().all(named), "{}", run.story());
}

#[test]
fn whatever_is_damaged_of_a_point_no_wrong_byte_is_read_and_the_other_points_are_whole() {
    let (pair, labels, trees) = mailbox();
    let (trees, full) = (trees.map(|tree| read_only(&tree)), labels[0].clone());
    let manifest = fs::read(points_of(&pair.mirror).join(&full).join("manifest")).expect("reads");
    for at in (0..manifest.len()).step_by(manifest.len() / 12) {
        let copy = copy_of(&pair.mirror, "spoiled");
        let mut bytes = manifest.clone();
        bytes[at] ^= 0x10;
        fs::write(points_of(&copy).join(&full).join("manifest"), bytes).expect("spoils");
        let mut mount = Mount::in_the_foreground(&copy, &[]);
        let mut wrongs = 0;
        for path in trees[0].keys().filter(|path| !path.is_empty()) {
            let place = mount.path(&full).join(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
            match (fs::symlink_metadata(&place), &trees[0][path].kind) {
                (Ok(found), Kind::File(length, _)) => {
                    assert_eq!(found.len(), *length);
                    assert_eq!(fs::read(&place).map_or(*length, |bytes| bytes.len() as u64), *length);
                }
                (Ok(_), _) => {}
                (Err(error), _) => {
                    assert_eq!(error.raw_os_error(), Some(5), "{}: {error}", place.display());
                    wrongs += 1;
                }
            }
        }
        mount.unmount();
        let run = mount.end().ended_with(0);
        assert!(wrongs == 0 || run.said().contains("manifest"), "byte {at}: {}", run.story());
        fs::remove_dir(&mount.at).expect("it is empty");
    }
}

// ---- large files ----

/// Bytes that a process has read so far.
fn bytes_read(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/io")).expect("its figures");
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("bytes read");
    line.trim().parse().expect("a number")
}

#[test]
fn a_large_file_is_read_at_any_place_without_reading_what_is_before_it() {
    const LENGTH: usize = 48 << 20;
    const READS: u64 = 100;
    let pair = Pair::of_files();
    let content = noise(3, LENGTH);
    fs::write(pair.source.join("large"), &content).expect("a file");
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    let mount = Mount::in_the_foreground(&pair.mirror, &[]);
    let process = mount.process.as_ref().expect("it is there").id();
    let file = File::open(mount.path(&label).join("large")).expect("opens");
    let mut numbers = Numbers::seeded(5);
    for _ in 0..READS {
        let at = numbers.below(LENGTH - 1);
        let mut bytes = vec![0; (1 + numbers.below(5000)).min(LENGTH - at)];
        file.read_exact_at(&mut bytes, at as u64).expect("reads");
        assert!(bytes == content[at..at + bytes.len()], "wrong bytes at {at}");
    }
    // Once all of it, to know that it is right; then a block or two for each read.
    let (read, most) = (bytes_read(process), LENGTH as u64 * 5 / 4 + READS * 2 * (4 << 20));
    assert!(read < most, "{read} bytes were read for {READS} reads, more than {most}");
    assert!(fs::read(mount.path(&label).join("large")).expect("reads") == content);
    assert_eq!(file.read_at(&mut [0; 10], LENGTH as u64).expect("reads"), 0);
}

// ---- beginning and end ----

#[test]
fn it_is_mounted_when_the_command_returns_and_ends_with_the_mount() {
    let (pair, labels, _) = mailbox();
    let mount = Mount::new(&pair.mirror, &[]);
    // No waiting: the first look must find it.
    assert_eq!(mount.labels(), labels);
    let process = process_of(&mount.at).expect("a process stays");
    let own = fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let fields: Vec<&str> = own.rsplit(')').next().expect("fields").split_whitespace().collect();
    assert_eq!(fields[3], process.to_string(), "it has a session of its own");
    assert_eq!(fs::read_link(format!("/proc/{process}/cwd")).expect("a directory"), Path::new("/"));
    mount.unmount();
    eventually("it ends", SOON, || process_of(&mount.at).is_none());
    assert!(!is_mounted(&mount.at));
}

#[test]
fn paths_may_be_relative_to_where_the_command_was_given() {
    let (pair, labels, _) = mailbox();
    let at = pair.path("here");
    fs::create_dir(&at).expect("a directory");
    let name = pair.mirror.file_name().expect("a name");
    let mut command = command("mount", Path::new(name), &[OsStr::new("here")]);
    finish(command.current_dir(pair.home())).ended_with(0);
    let _guard = Unmounted(&at);
    assert!(at.join(&labels[0]).join("cur").is_dir());
    let now = fs::read_dir(at.join("now")).expect("the log is found from anywhere");
    assert!(now.count() > 3);
}

/// Unmounts at the end of the test.
struct Unmounted<'a>(&'a Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let program = if am_root() { ["umount", "-l"] } else { ["fusermount3", "-uz"] };
        let _ = Command::new(program[0]).arg(program[1]).arg(self.0).status();
    }
}

#[test]
fn a_signal_unmounts_and_ends_it_well_though_a_file_is_open() {
    let (pair, labels, _) = mailbox();
    for name in ["INT", "TERM", "HUP"] {
        let mut mount = Mount::in_the_foreground(&pair.mirror, &[]);
        let _open = File::open(a_message(&mount.path(&labels[0]))).expect("opens");
        signal(mount.process.as_ref().expect("it is there").id(), name);
        let run = mount.end().ended_with(0);
        assert!(run.stderr.is_empty(), "SIG{name}: {}", run.story());
        assert!(!is_mounted(&mount.at), "SIG{name}");
        assert_eq!(names_in(&mount.at).len(), 0);
    }
}

#[test]
fn what_is_mounted_beneath_it_stays_when_it_is_unmounted() {
    if !am_root() {
        return say("not tried: only root can mount something else beneath it");
    }
    let (pair, ..) = mailbox();
    let mut mount = Mount::in_the_foreground(&pair.mirror, &[]);
    signal(mount.process.as_ref().expect("it is there").id(), "TERM");
    mount.end().ended_with(0);
    tool(
        "mount",
        "mount",
        &["-t", "tmpfs", "none"].map(OsStr::new).into_iter().chain([mount.at.as_os_str()]).collect::<Vec<_>>(),
    );
    let _guard = Unmounted(&mount.at);
    for ending in ["umount", "TERM"] {
        let mut process = Started::new(&mut command("mount", &pair.mirror, &["-f".as_ref(), mount.at.as_os_str()]));
        eventually("it is mounted", SOON, || is_mounted(&mount.at) || !process.is_running());
        assert_eq!(mounts_at(&mount.at), ["tmpfs", "fuse.mailtwin"]);
        match ending {
            "umount" => mount.unmount(),
            signal_name => signal(process.id(), signal_name),
        }
        decent(process.end()).ended_with(0);
        assert_eq!(mounts_at(&mount.at), ["tmpfs"], "after {ending}");
    }
}

#[test]
fn what_is_in_the_way_is_said_by_both_processes_alike() {
    let (pair, ..) = mailbox();
    let (missing, file, inside) = (pair.path("missing"), pair.path("file"), pair.mirror.join("cur"));
    let above = pair.home().to_owned();
    fs::write(&file, "mine").expect("a file");
    let mount = Mount::new(&pair.mirror, &[]);
    let cases = [
        (&missing, "make the directory"),
        (&file, "not a directory"),
        (&inside, "lies in the standby"),
        (&above, "has the standby in it"),
        (&mount.at, "already"),
    ];
    for (place, words) in cases {
        for options in [&["--foreground"][..], &[]] {
            let arguments: Vec<&OsStr> = options.iter().map(OsStr::new).chain([place.as_os_str()]).collect();
            let run = decent(finish(&mut command("mount", &pair.mirror, &arguments)));
            run.spoke_clearly(place.to_str().expect("ours"));
            run.refused(&[1], words);
        }
    }
    assert_eq!(mounts_at(&mount.at).len(), 1);
    let elsewhere = pair.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    for options in [&["--foreground"][..], &[]] {
        let arguments: Vec<&OsStr> = options.iter().map(OsStr::new).chain([elsewhere.as_os_str()]).collect();
        decent(finish(&mut command("mount", &pair.source, &arguments))).refused(&[1], "not a standby");
    }
    assert!(!is_mounted(&elsewhere));
}

#[test]
fn options_of_mount_are_taken_or_refused_by_name() {
    let (pair, ..) = mailbox();
    let mount = Mount::new(&pair.mirror, &["-o", "ro,noexec,fsname=a name"]);
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the table");
    let line = table.lines().find(|line| line.split(' ').nth(4) == mount.at.to_str()).expect("it is there");
    for word in ["ro,", "nosuid", "nodev", "noexec", "a\\040name"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    for wrong in ["rw", "suid", "nonsense"] {
        let arguments = ["-o", wrong].map(OsStr::new).into_iter().chain([mount.at.as_os_str()]).collect::<Vec<_>>();
        decent(finish(&mut command("mount", &pair.mirror, &arguments))).refused(&[2], wrong);
    }
}

#[test]
fn without_the_device_it_says_what_to_load() {
    let (pair, ..) = mailbox();
    let at = pair.path("at");
    fs::create_dir(&at).expect("a directory");
    let line = "mount -t tmpfs none /dev && : > /dev/null && exec \"$BINARY\" mount \"$STANDBY\" \"$AT\"";
    let environment = [("BINARY", OsStr::new(BINARY)), ("STANDBY", pair.mirror.as_os_str()), ("AT", at.as_os_str())];
    decent(in_a_namespace(line, &environment)).refused(&[1], "modprobe fuse");
}

// ---- other users ----

#[test]
fn an_ordinary_user_mounts_by_the_helper_and_keeps_it_to_himself() {
    let (pair, labels, trees) = mailbox();
    let at = give_away(&pair);
    let ends = [
        ("the user unmounts", "user fusermount3 -u \"$AT\""),
        ("a signal ends it", "user kill $(pgrep -f -- \"--detached $STANDBY $AT\")"),
    ];
    for (story, end) in ends {
        let line = format!(
            "user \"$mailtwin\" mount \"$STANDBY\" \"$AT\"\n\
             echo messages $(user ls \"$AT/{}/cur\" | wc -l)\n\
             ls \"$AT\" > /dev/null 2>&1 && echo seen by all || echo closed\n\
             {end}\n\
             while grep -q \" $AT \" /proc/self/mountinfo || pgrep -f -- \"--detached $STANDBY $AT\"; do sleep 0.02; done\n\
             echo ended",
            labels[0]
        );
        let run = as_a_user(&pair, &at, &line);
        if !device_is_open() {
            run.refused(&[1], "chmod 666 /dev/fuse");
            return say("not tried: /dev/fuse is not open to users");
        }
        let run = run.ended_with(0);
        let messages = trees[0].keys().filter(|path| path.starts_with(b"cur/")).count();
        let others = if am_root() { "closed" } else { "seen by all" };
        let wanted = format!("messages {messages}\n{others}\nended\n");
        assert!(run.printed().ends_with(&wanted), "{story}: {}", run.story());
    }
}

#[test]
fn an_ordinary_user_without_the_helper_is_told_what_to_install() {
    let (pair, ..) = mailbox();
    let at = give_away(&pair);
    let line = "user env PATH=/nowhere \"$mailtwin\" mount \"$STANDBY\" \"$AT\"";
    decent(as_a_user(&pair, &at, line)).refused(&[1], "fuse3");
}

#[test]
fn an_ordinary_user_hears_what_the_helper_refuses() {
    let (pair, ..) = mailbox();
    let at = give_away(&pair);
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        return say("not tried: /etc/fuse.conf lets users let others in");
    }
    let run = decent(as_a_user(&pair, &at, "user \"$mailtwin\" mount --allow-other \"$STANDBY\" \"$AT\""));
    run.refused(&[1], if device_is_open() { "user_allow_other" } else { "chmod 666" });
}

#[test]
fn a_device_that_users_may_not_open_is_named() {
    if !am_root() {
        return say("not tried: only root can close the device");
    }
    let (pair, ..) = mailbox();
    let at = give_away(&pair);
    let line = "chmod 600 /dev/fuse\nuser \"$mailtwin\" mount \"$STANDBY\" \"$AT\"";
    decent(as_a_user(&pair, &at, line)).refused(&[1], "chmod 666 /dev/fuse");
}

#[test]
fn others_see_what_they_might_have_seen_then_and_no_more() {
    if !am_root() {
        return say("not tried: only root can give files to others and let others in without asking");
    }
    let pair = Pair::of_files();
    for (name, mode) in [("public", 0o644), ("private", 0o600), ("listed", 0o640), ("masked", 0o640)] {
        fs::write(pair.source.join(name), name).expect("a file");
        set_mode(&pair.source.join(name), mode);
    }
    fs::create_dir(pair.source.join("closed")).expect("a directory");
    fs::write(pair.source.join("closed/public"), "closed").expect("a file");
    set_mode(&pair.source.join("closed"), 0o700);
    // One more may read this one, by a list; and of this one the group may not, though its bits say so.
    let acl = |entries: &str, name: &str| {
        tool("acl", "setfacl", &["-m".as_ref(), entries.as_ref(), pair.source.join(name).as_os_str()])
    };
    acl(&format!("u:{NOBODY}:r"), "listed");
    acl(&format!("g::-,g:{NOBODY}:-,u:1:r,m::r"), "masked");
    set_mode(&pair.source, 0o755);
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    set_mode(pair.home(), 0o755);
    let as_nobody = |place: &Path| {
        let mut cat = Command::new("cat");
        cat.arg(place).uid(NOBODY).gid(NOBODY).current_dir("/").env("LC_ALL", "C");
        finish(&mut cat)
    };
    let mount = Mount::new(&pair.mirror, &["--allow-other"]);
    let inside = mount.path(&label);
    for name in ["public", "listed"] {
        assert_eq!(as_nobody(&inside.join(name)).ended_with(0).printed(), name);
    }
    for name in ["private", "masked", "closed/public"] {
        as_nobody(&inside.join(name)).refused(&[1], "Permission denied");
        assert!(fs::read(inside.join(name)).is_ok(), "root reads {name}");
    }
    let alone = Mount::new(&pair.mirror, &[]);
    as_nobody(&alone.path(&label).join("public")).refused(&[1], "Permission denied");
}
