//! What one cycle does: what it mirrors, what it ships for it, and what it says.

#[path = "support/mailbox.rs"]
mod mailbox;
#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use mailbox::*;
use tree::*;

// ---- the first copy, and the run after it

#[test]
fn a_first_copy_is_equal_and_counted() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let report = pair.sync(&[]);
    assert_mirrored(&pair);
    assert_eq!(report.count("messages_added"), messages_beneath(&pair.source) as u64);
    let control_files = read_tree(&pair.source)
        .iter()
        .filter(|(path, entry)| matches!(entry.kind, Kind::File(..)) && !is_message(path))
        .count();
    assert_eq!(report.count("files_added"), control_files as u64);
    assert_eq!(report.count("messages_removed"), 0);
    assert!(report.count("bytes_content") > 0);
    assert!(report.count("directories_read") >= 10);
}

fn is_message(path: &[u8]) -> bool {
    let parent = path.rsplit(|byte| *byte == b'/').nth(1);
    matches!(parent, Some(b"cur" | b"new"))
}

#[test]
fn a_second_run_ships_nothing() {
    let pair = synced_mailbox();
    pair.sync(&[]).shipped_nothing();
    assert_mirrored(&pair);
}

#[test]
fn an_unchanged_tree_is_soon_settled_without_reading_a_folder() {
    let pair = synced_mailbox();
    // What was listed within the clock's grain of its last change is listed again, once the change is clearly past.
    eventually("no directory is read", Duration::from_secs(10), || {
        let report = pair.sync(&[]);
        report.shipped_nothing();
        report.count("directories_read") == 0
    });
    let report = pair.sync(&[]);
    assert_eq!(report.count("directories_read"), 0);
    report.shipped_nothing();
}

#[test]
fn only_the_folder_that_changed_is_read() {
    let pair = synced_mailbox();
    eventually("no directory is read", Duration::from_secs(10), || pair.sync(&[]).count("directories_read") == 0);
    let sent = folder(&pair, ".Sent");
    sent.set_flags(&read_message(&sent), "FS");
    let report = pair.sync(&[]);
    report.changed_only(&[("messages_renamed", 1)]);
    // cur/ itself; new/ may be looked at with it, and the folder, but no other folder.
    assert!((1..=3).contains(&report.count("directories_read")), "{}", report.0);
}

#[test]
fn the_position_moves_with_a_change_and_stays_without() {
    let pair = synced_mailbox();
    let position = |report: &Report| report.0["position"].as_str().map(str::to_owned);
    let before = position(&pair.sync(&[]));
    assert!(before.as_ref().is_some_and(|text| text.contains('-')), "{before:?}");
    assert_eq!(position(&pair.sync(&[])), before);
    inbox(&pair).deliver(900, &letter(900, 500));
    assert_ne!(position(&pair.sync(&[])), before);
}

#[test]
fn the_report_says_how_long_it_took() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let run = pair.try_sync(&[]);
    let elapsed = run.report().0["elapsed_seconds"].as_f64();
    let took = run.took.as_secs_f64();
    assert!(elapsed.is_some_and(|seconds| (0.0..=took).contains(&seconds)), "{elapsed:?} of {took}");
}

#[test]
fn a_tree_of_many_mailboxes_and_the_nested_layout_are_mirrored() {
    for make in [(|root: &Path| make_vmail(root, 3)) as fn(&Path), |root: &Path| make_fs_layout(root, 2)] {
        let pair = Pair::new();
        make(&pair.source);
        pair.sync(&[]);
        assert_mirrored(&pair);
        pair.sync(&[]).shipped_nothing();
    }
}

#[test]
fn an_empty_source_makes_an_empty_mirror() {
    let pair = Pair::of_files();
    let report = pair.sync(&[]);
    assert_mirrored(&pair);
    assert_eq!(report.count("bytes_content"), 0);
}

// ---- what ships no content

#[test]
fn a_flag_change_is_a_rename() {
    let pair = synced_mailbox();
    inbox(&pair).set_flags(&read_message(&inbox(&pair)), "FRS");
    let report = pair.sync(&[]);
    report.changed_only(&[("messages_renamed", 1)]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_flag_change_keeps_the_mirrors_inode() {
    let pair = synced_mailbox();
    let message = read_message(&inbox(&pair));
    let mirrored = |path: &Path| {
        let beneath = path.strip_prefix(&pair.source).expect("beneath the source");
        fs::metadata(pair.mirror.join(beneath)).expect("it is on the mirror").ino()
    };
    let before = mirrored(&message);
    let renamed = inbox(&pair).set_flags(&message, "FRS");
    pair.sync(&[]);
    assert_eq!(mirrored(&renamed), before);
}

#[test]
fn a_message_that_goes_from_new_to_cur_is_a_rename() {
    let pair = synced_mailbox();
    inbox(&pair).take_in(&new_message(&inbox(&pair)), "S");
    let report = pair.sync(&[]);
    report.changed_only(&[("messages_renamed", 1)]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_move_between_folders_ships_no_content() {
    let pair = synced_mailbox();
    folder(&pair, ".Archive").move_in(&read_message(&inbox(&pair)));
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_eq!(report.count("messages_added"), 0);
    assert_eq!(report.count("messages_renamed") + report.count("messages_linked"), 1, "{}", report.0);
    assert_mirrored(&pair);
}

#[test]
fn a_move_with_other_flags_at_once_ships_no_content() {
    let pair = synced_mailbox();
    let message = read_message(&inbox(&pair));
    let moved = folder(&pair, ".Archive").move_in(&message);
    folder(&pair, ".Archive").set_flags(&moved, "FT");
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_eq!(report.count("messages_added"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_renamed_folder_ships_no_content() {
    let pair = synced_mailbox();
    rename(&pair.source.join(".Sent"), &pair.source.join(".Sent Items"));
    let report = pair.sync(&[]);
    report.changed_only(&[("directories_renamed", 1)]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_renamed_folder_and_its_child_ship_no_content() {
    let pair = synced_mailbox();
    rename(&pair.source.join(".Archive"), &pair.source.join(".Old"));
    rename(&pair.source.join(".Archive.2024"), &pair.source.join(".Old.2024"));
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_eq!(report.count("messages_added"), 0);
    assert_eq!(report.count("messages_removed"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_renamed_folder_of_the_nested_layout_takes_its_children_along() {
    let pair = Pair::new();
    make_fs_layout(&pair.source, 3);
    pair.sync(&[]);
    rename(&pair.source.join("Work"), &pair.source.join("Projects"));
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_eq!(report.count("messages_added"), 0);
    assert_eq!(report.count("messages_removed"), 0);
    assert_mirrored(&pair);
}

#[test]
fn two_folders_that_swap_their_names_ship_no_content() {
    let pair = synced_mailbox();
    rename(&pair.source.join(".Sent"), &pair.source.join(".between"));
    rename(&pair.source.join(".Archive"), &pair.source.join(".Sent"));
    rename(&pair.source.join(".between"), &pair.source.join(".Archive"));
    let report = pair.sync(&UNGUARDED);
    // No message; of the control files that changed places a few hundred bytes.
    assert!(report.count("bytes_content") < 1000, "{}", report.0);
    assert_eq!(report.count("messages_added"), 0, "{}", report.0);
    assert_mirrored(&pair);
}

#[test]
fn a_folder_renamed_while_its_flags_changed_ships_no_content() {
    let pair = synced_mailbox();
    let sent = folder(&pair, ".Sent");
    sent.set_flags(&read_message(&sent), "DFS");
    rename(&sent.0, &pair.source.join(".Sent Items"));
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_eq!(report.count("messages_added"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_copy_is_a_hard_link_and_stays_one() {
    let pair = synced_mailbox();
    folder(&pair, ".Archive").link_in(&read_message(&inbox(&pair)));
    let report = pair.sync(&[]);
    report.changed_only(&[("messages_linked", 1)]);
    assert_eq!(report.count("bytes_content"), 0);
    // The trees' entries know which names share an inode.
    assert_mirrored(&pair);
    assert!(actual_mirror(&pair).values().any(|entry| entry.link_of.is_some()));
}

#[test]
fn a_copy_made_before_the_first_run_is_a_hard_link_on_the_mirror() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    folder(&pair, ".Archive").link_in(&read_message(&inbox(&pair)));
    pair.sync(&[]);
    assert_mirrored(&pair);
    assert!(actual_mirror(&pair).values().any(|entry| entry.link_of.is_some()));
}

#[test]
fn a_content_the_mirror_has_is_not_sent_again_under_another_name() {
    let pair = synced_mailbox();
    let body = fs::read(read_message(&inbox(&pair))).expect("a message");
    folder(&pair, ".Archive").file(901, "S", &body);
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_eq!(report.count("messages_added"), 1);
    assert_mirrored(&pair);
    let mirrored = read_tree(&pair.mirror);
    assert!(
        mirrored.values().all(|entry| entry.link_of.is_none()),
        "equal contents that were two files on the master are one on the mirror"
    );
}

#[test]
fn a_changed_mode_or_time_of_a_message_ships_no_content() {
    let pair = synced_mailbox();
    let message = read_message(&inbox(&pair));
    set_mode(&message, 0o640);
    set_modified(&read_message(&folder(&pair, ".Sent")), 1_234_567_890, 5);
    let report = pair.sync(&["--checksum"]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_folder_with_a_copy_keeps_the_link_when_it_is_renamed() {
    let pair = synced_mailbox();
    let archive = folder(&pair, ".Archive");
    archive.link_in(&read_message(&inbox(&pair)));
    inbox(&pair).link_in(&read_message(&folder(&pair, ".Sent")));
    pair.sync(&[]);
    rename(&archive.0, &pair.source.join(".A first name"));
    rename(&pair.source.join(".Sent"), &pair.source.join(".Z last name"));
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
}

#[test]
fn a_copys_folder_that_goes_while_another_comes_is_not_taken_for_renamed() {
    let pair = synced_mailbox();
    let copies = Folder::create(&pair.source.join(".Copies"));
    copies.link_in(&read_message(&inbox(&pair)));
    copies.link_in(&new_message(&inbox(&pair)));
    pair.sync(&[]);
    fs::remove_dir_all(&copies.0).expect("removed");
    Folder::create(&pair.source.join(".Fresh"));
    inbox(&pair).deliver(905, &letter(905, 300));
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
}

#[test]
fn a_message_whose_only_other_link_goes_stays_where_it_is() {
    let pair = synced_mailbox();
    let message = read_message(&inbox(&pair));
    let copy = folder(&pair, ".Archive").link_in(&message);
    pair.sync(&[]);
    fs::remove_file(&copy).expect("removed");
    let report = pair.sync(&[]);
    report.changed_only(&[("messages_removed", 1)]);
    assert_mirrored(&pair);
}

// ---- what ships little

#[test]
fn a_tiny_file_that_changed_costs_no_more_than_itself() {
    let pair = synced_mailbox();
    let content = b"V\t2\n\nSent\n";
    replace(&pair.source.join("subscriptions"), content);
    let report = pair.sync(&[]);
    assert!(report.count("bytes_content") <= content.len() as u64, "{}", report.0);
    assert_mirrored(&pair);
}

#[test]
fn an_appended_uidlist_line_costs_about_that_line() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let list = inbox(&pair).control("dovecot-uidlist");
    let lines: String =
        (1..=6000).map(|uid| format!("{uid} :{}.M{}P77.mx,S=4711,W=4800\n", 1_700_000_000 + uid, uid * 7919)).collect();
    append(&list, lines.as_bytes());
    pair.sync(&[]);
    append(&list, b"6001 :1800000000.M1P77.mx,S=4711,W=4800\n");
    let report = pair.sync(&[]);
    report.changed_only(&[("files_patched", 1)]);
    assert!(report.count("bytes_content") < 4096, "{}", report.0);
    assert!(report.wire() < 8192, "{}", report.0);
    assert_mirrored(&pair);
}

#[test]
fn lines_appended_to_many_uidlists_cost_no_more_than_rsync_needs() {
    const FOLDERS: u64 = 40;
    let pair = Pair::new();
    for number in 0..FOLDERS {
        let folder = Folder::create(&pair.source.join(format!(".F{number}")));
        let lines: String = (1..=300).map(|uid| format!("{uid} :17{number:08}.M{uid}P77.mx,S=4711,W=4800\n")).collect();
        fs::write(
            folder.control("dovecot-uidlist"),
            format!("3 V1700000000 N1 Gd89da52fb9ba026b1576000083ecc3{number:02x}\n{lines}"),
        )
        .expect("a uidlist");
    }
    pair.sync(&[]);
    for folder in folders_beneath(&pair.source) {
        append(&folder.control("dovecot-uidlist"), b"301 :1800000000.M1P77.mx,S=4711,W=4800\n");
    }
    let report = pair.sync(&[]);
    report.changed_only(&[("files_patched", FOLDERS)]);
    // rsync spends 78 KB on 200 such files.
    assert!(report.wire() < FOLDERS * 78_000 / 200, "{}", report.0);
    assert_mirrored(&pair);
}

#[test]
fn a_large_file_changed_in_place_travels_as_a_delta() {
    let content = noise(50, 50 << 20);
    let pair = synced_files(&[("disk.img", &content)]);
    edit(&pair.source.join("disk.img"), &[(5 << 20, b"first"), (31 << 20, b"second")]);
    append(&pair.source.join("disk.img"), b"and a tail");
    let report = pair.sync(&[]);
    report.changed_only(&[("files_patched", 1)]);
    assert!(report.wire() < 1 << 20, "{}", report.0);
    assert_mirrored(&pair);
}

#[test]
fn bytes_put_in_near_the_front_of_a_file_do_not_send_what_follows() {
    let content = noise(51, 4 << 20);
    let pair = synced_files(&[("list", &content)]);
    let mut shifted = content[..1000].to_vec();
    shifted.extend_from_slice(b"a few bytes more");
    shifted.extend_from_slice(&content[1000..]);
    fs::write(pair.source.join("list"), shifted).expect("the file");
    let report = pair.sync(&[]);
    report.changed_only(&[("files_patched", 1)]);
    assert!(report.wire() < 400_000, "{}", report.0);
    assert_mirrored(&pair);
}

#[test]
fn a_renamed_file_of_a_files_set_ships_no_content() {
    let content = noise(52, 1 << 20);
    let pair = synced_files(&[("a", &content), ("b", b"small")]);
    rename(&pair.source.join("a"), &pair.source.join("c"));
    let report = pair.sync(&UNGUARDED);
    assert_eq!(report.count("bytes_content"), 0, "{}", report.0);
    assert_mirrored(&pair);
}

fn edit(path: &Path, edits: &[(u64, &[u8])]) {
    use std::os::unix::fs::FileExt;
    let opened = fs::File::options().write(true).open(path).expect("the file opens");
    for (at, bytes) in edits {
        opened.write_all_at(bytes, *at).expect("the edit is written");
    }
}

#[test]
fn a_file_that_shrinks_grows_or_is_emptied_is_mirrored() {
    let content = noise(53, 300_000);
    let pair = synced_files(&[("shrinks", &content), ("grows", &content), ("emptied", &content)]);
    fs::write(pair.source.join("shrinks"), &content[..1234]).expect("the file");
    fs::write(pair.source.join("grows"), [&content[..], &content[..]].concat()).expect("the file");
    fs::write(pair.source.join("emptied"), "").expect("the file");
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn compressible_mail_travels_compressed_and_level_0_does_not() {
    let bytes_sent = |level: &str| {
        let pair = Pair::new();
        let folder = Folder::create(&pair.source);
        for number in 0..40 {
            folder.deliver(number, &letter(number, 20_000));
        }
        let report = pair.sync(&["--compress-level", level]);
        assert_mirrored(&pair);
        (report.count("bytes_sent"), report.count("bytes_content"))
    };
    let (plain, content) = bytes_sent("0");
    assert!(plain >= content, "level 0: {plain} for {content}");
    for level in ["1", "19"] {
        let (packed, content) = bytes_sent(level);
        assert!(packed * 2 < content, "level {level}: {packed} for {content}");
    }
}

// ---- what rsync -aHAX keeps

#[test]
fn modes_are_kept_and_follow() {
    let pair = synced_files(&[("secret", b"s"), ("tool", b"t"), ("d/inner", b"i")]);
    for (name, mode) in [("secret", 0o600), ("tool", 0o4755), ("d/inner", 0o444), ("d", 0o2750)] {
        set_mode(&pair.source.join(name), mode);
    }
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
    set_mode(&pair.source.join("secret"), 0o000);
    set_mode(&pair.source.join("d"), 0o700);
    if am_root() {
        pair.sync(&[]);
        assert_mirrored(&pair);
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_mirrored_with_what_is_in_it() {
    let pair = Pair::of_files();
    fs::create_dir(pair.source.join("d")).expect("d");
    fs::write(pair.source.join("d/f"), "x").expect("f");
    set_mode(&pair.source.join("d"), 0o555);
    pair.sync(&[]);
    assert_mirrored(&pair);
    set_mode(&pair.source.join("d"), 0o755);
    fs::write(pair.source.join("d/g"), "y").expect("g");
    set_mode(&pair.source.join("d"), 0o555);
    pair.sync(&[]);
    assert_mirrored(&pair);
    // Lets the temporary directory be removed by an ordinary user.
    set_mode(&pair.source.join("d"), 0o755);
    set_mode(&pair.mirror.join("d"), 0o755);
}

#[test]
fn times_are_kept_to_the_nanosecond_of_files_links_and_directories() {
    let pair = synced_files(&[("d/e/f", b"x")]);
    set_modified(&pair.source.join("d/e/f"), 981_173_106, 123_456_789);
    set_modified(&pair.source.join("d/e"), 981_173_107, 987_654_321);
    symlink("f", pair.source.join("d/e/link")).expect("a link");
    set_modified(&pair.source.join("d/e"), 981_173_108, 1);
    let touch = |path: &Path| {
        let options = ["-h", "-d", "2001-02-03 04:05:06.700000001"].map(OsStr::new);
        tool("coreutils", "touch", &[&options[..], &[path.as_ref()]].concat());
    };
    touch(&pair.source.join("d/e/link"));
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
}

#[test]
fn times_before_1970_and_far_ahead_are_kept() {
    let pair = synced_files(&[("old", b"o"), ("ahead", b"a")]);
    for (name, date) in [("old", "1963-11-22 12:30:00.5 UTC"), ("ahead", "2200-01-01 00:00:00 UTC")] {
        let path = pair.source.join(name);
        tool("coreutils", "touch", &["-d".as_ref(), date.as_ref(), path.as_ref()]);
    }
    pair.sync(&[]);
    assert_mirrored(&pair);
}

#[test]
fn the_times_of_cur_and_new_are_the_mirrors_own() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    pair.sync(&[]);
    // A mail server that trusts its index while these are equal would show empty messages.
    for part in ["cur", "new"] {
        let modified = |root: &Path| fs::metadata(root.join(part)).expect(part).modified().expect(part);
        assert_ne!(modified(&pair.source), modified(&pair.mirror), "{part}");
    }
}

#[test]
fn in_a_files_set_no_name_is_special() {
    let pair = Pair::of_files();
    for name in ["cur/a", "new/b", "tmp/c", "x.lock", "y.tmp", "temp.z", "dovecot.index"] {
        let path = pair.source.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, name).expect("a file");
    }
    settle_times(&pair.source);
    pair.sync(&["--kind", "files"]);
    assert_mirrored(&pair);
    assert_rsync_agrees(&pair);
}

fn set_xattr(path: &Path, name: &str, value: &str) {
    let words = ["-n", name, "-v", value].map(OsStr::new);
    tool("attr", "setfattr", &[&words[..], &[path.as_ref()]].concat());
}

fn xattrs(path: &Path) -> String {
    let words = ["-d", "--absolute-names", "-m", "^user\\.", "-e", "hex"].map(OsStr::new);
    let printed = tool("attr", "getfattr", &[&words[..], &[path.as_ref()]].concat());
    without_first_line(&printed)
}

fn acl(path: &Path) -> String {
    let words = ["--absolute-names", "--numeric", "--omit-header"].map(OsStr::new);
    String::from_utf8(tool("acl", "getfacl", &[&words[..], &[path.as_ref()]].concat())).expect("text")
}

/// Without the line that names the file.
fn without_first_line(printed: &[u8]) -> String {
    let text = String::from_utf8(printed.to_vec()).expect("text");
    text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned())
}

#[test]
fn extended_attributes_are_kept_changed_and_removed() {
    let pair = synced_files(&[("f", b"x"), ("d/g", b"y")]);
    let (file, directory) = (pair.source.join("f"), pair.source.join("d"));
    set_xattr(&file, "user.colour", "blue");
    set_xattr(&file, "user.empty", "");
    set_xattr(&directory, "user.note", "0x00ff0a");
    let same = || {
        for name in ["f", "d"] {
            assert_eq!(xattrs(&pair.source.join(name)), xattrs(&pair.mirror.join(name)), "{name}");
        }
    };
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert!(xattrs(&pair.mirror.join("f")).contains("user.colour"));
    same();
    set_xattr(&file, "user.colour", "red");
    let words = ["-x", "user.empty"].map(OsStr::new);
    tool("attr", "setfattr", &[&words[..], &[file.as_ref()]].concat());
    pair.sync(&[]);
    same();
    assert_rsync_agrees(&pair);
}

#[test]
fn attributes_of_a_message_come_with_it_and_stay_through_a_flag_change() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let message = read_message(&inbox(&pair));
    set_xattr(&message, "user.seen-by", "filter");
    pair.sync(&[]);
    inbox(&pair).set_flags(&message, "FS");
    pair.sync(&[]);
    assert_rsync_agrees(&pair);
}

#[test]
fn access_lists_and_default_access_lists_are_kept() {
    let pair = synced_files(&[("f", b"x"), ("d/g", b"y")]);
    let set = |entry: &str, name: &str| {
        let path = pair.source.join(name);
        tool("acl", "setfacl", &["-m".as_ref(), entry.as_ref(), path.as_ref()]);
    };
    set("u:65534:r--,g:12:rw-", "f");
    set("u:65534:r-x", "d");
    set("d:u:65534:rwx,d:g:12:r-x", "d");
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    for name in ["f", "d", "d/g"] {
        assert_eq!(acl(&pair.source.join(name)), acl(&pair.mirror.join(name)), "{name}");
    }
    // What is made later in a directory with a default list must not inherit it on the mirror.
    fs::write(pair.source.join("d/later"), "z").expect("later");
    let words = ["-b".as_ref(), OsStr::new("--")];
    let later = pair.source.join("d/later");
    tool("acl", "setfacl", &[&words[..], &[later.as_ref()]].concat());
    pair.sync(&[]);
    assert_eq!(acl(&later), acl(&pair.mirror.join("d/later")));
    assert_rsync_agrees(&pair);
}

#[test]
fn owners_are_kept_as_numbers() {
    let pair = synced_files(&[("f", b"x"), ("d/g", b"y")]);
    if am_root() {
        chown(pair.source.join("f"), Some(12345), Some(23456)).expect("chown");
        chown(pair.source.join("d"), Some(12345), Some(0)).expect("chown");
        std::os::unix::fs::lchown(link_in(&pair), Some(777), Some(778)).expect("lchown");
    }
    pair.sync(&[]);
    assert_mirrored(&pair);
}

fn link_in(pair: &Pair) -> std::path::PathBuf {
    let path = pair.source.join("link");
    symlink("nowhere", &path).expect("a link");
    path
}

#[test]
fn chown_gives_the_whole_mirror_one_owner() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let myself = fs::metadata(&pair.source).expect("the source");
    let (user, group) = if am_root() { (8, 12) } else { (myself.uid(), myself.gid()) };
    let option = format!("{user}:{group}");
    pair.sync(&["--chown", &option]);
    let mut expected = expected_mirror(&pair);
    for entry in expected.values_mut() {
        entry.owner = (user, group);
    }
    assert_same("mirror", &expected, &actual_mirror(&pair));
    pair.sync(&["--chown", &option]).shipped_nothing();
}

#[test]
fn chown_understands_names() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let name_of_me = || {
        let ask = |what: &str| {
            let printed = tool("coreutils", "id", &[OsStr::new(what)]);
            String::from_utf8(printed).expect("text").trim().to_owned()
        };
        format!("{}:{}", ask("-un"), ask("-gn"))
    };
    // Debian's base-passwd gives these two the same numbers everywhere.
    let (option, number) = if am_root() { ("mail:mail".to_owned(), 8) } else { (name_of_me(), 0) };
    pair.sync(&["--chown", &option]);
    if am_root() {
        assert!(actual_mirror(&pair).values().all(|entry| entry.owner == (number, number)));
    }
}

#[test]
fn without_root_it_says_once_that_owners_are_not_kept_and_goes_on() {
    let mut pair = Pair::of_files();
    // A part of Debian's base system that belongs to root wherever this runs.
    pair.source = "/usr/share/base-files".into();
    let run = finish(&mut pair.command_without_rights(&[])).ended_with(0);
    let told = run.said().lines().filter(|line| line.contains("owner")).count();
    assert_eq!(told, 1, "{}", run.story());
    let (mut source, mut mirror) = (expected_mirror(&pair), actual_mirror(&pair));
    for entry in source.values_mut().chain(mirror.values_mut()) {
        entry.owner = (0, 0);
    }
    assert_same("mirror but for owners", &source, &mirror);
    finish(&mut pair.command_without_rights(&[])).done().shipped_nothing();
}

#[test]
fn symbolic_links_are_mirrored_as_links_and_never_followed() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let outside = pair.path("outside");
    fs::create_dir(&outside).expect("outside");
    fs::write(outside.join("private"), "not to be mirrored").expect("private");
    let link = |target: &Path, name: &str| symlink(target, pair.source.join(name)).expect("a link");
    link(Path::new("no/such/thing"), "dangling");
    link(&outside, "absolute");
    link(Path::new("../outside"), "upward");
    link(Path::new(".Sent"), "to-a-folder");
    link(Path::new("."), "to-itself");
    link(&outside.join("private"), ".Sent/cur/1700000001.M1P1.mx:2,S");
    pair.sync(&[]);
    assert_mirrored(&pair);
    assert_rsync_agrees(&pair);
    fs::remove_file(pair.source.join("dangling")).expect("removed");
    link(Path::new("elsewhere"), "dangling");
    pair.sync(&[]);
    assert_mirrored(&pair);
    let told = read_tree(&outside);
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_name_may_become_another_kind_of_thing() {
    let pair = synced_files(&[
        ("file-to-link", b"1"),
        ("file-to-directory", b"2"),
        ("directory-to-file/x", b"3"),
        ("directory-to-link/y", b"4"),
    ]);
    symlink("x", pair.source.join("link-to-file")).expect("a link");
    pair.sync_and_settle();
    let at = |name: &str| pair.source.join(name);
    for name in ["file-to-link", "file-to-directory", "link-to-file"] {
        fs::remove_file(at(name)).expect(name);
    }
    for name in ["directory-to-file", "directory-to-link"] {
        fs::remove_dir_all(at(name)).expect(name);
    }
    symlink("target", at("file-to-link")).expect("a link");
    symlink("target", at("directory-to-link")).expect("a link");
    fs::create_dir(at("file-to-directory")).expect("a directory");
    fs::write(at("file-to-directory/inner"), "5").expect("a file");
    fs::write(at("directory-to-file"), "6").expect("a file");
    fs::write(at("link-to-file"), "7").expect("a file");
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
}

#[test]
fn hard_links_between_files_are_kept_made_and_broken() {
    let pair = Pair::of_files();
    fs::write(pair.source.join("a"), noise(1, 10_000)).expect("a");
    fs::write(pair.source.join("single"), noise(2, 10_000)).expect("single");
    fs::create_dir(pair.source.join("d")).expect("d");
    let link = |from: &str, to: &str| {
        fs::hard_link(pair.source.join(from), pair.source.join(to)).expect("a hard link");
    };
    link("a", "b");
    link("a", "d/c");
    pair.sync(&[]);
    assert_mirrored(&pair);
    link("single", "d/second");
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
    // b becomes a file of its own with the same content.
    replace(&pair.source.join("b"), &noise(1, 10_000));
    pair.sync(&[]);
    assert_mirrored(&pair);
    append(&pair.source.join("d/c"), b"seen under both names");
    pair.sync(&[]);
    assert_mirrored(&pair);
    assert_rsync_agrees(&pair);
}

#[test]
fn holes_stay_holes() {
    let pair = Pair::of_files();
    let path = pair.source.join("sparse");
    fs::File::create(&path).and_then(|made| made.set_len(64 << 20)).expect("a hole");
    edit(&path, &[(0, b"head"), (40 << 20, b"middle")]);
    pair.sync(&[]);
    assert_mirrored(&pair);
    let taken = || fs::metadata(pair.mirror.join("sparse")).expect("the file").blocks() * 512;
    assert!(taken() < 1 << 20, "{} bytes on disk", taken());
    edit(&path, &[(20 << 20, b"more")]);
    pair.sync(&[]);
    assert_mirrored(&pair);
    assert!(taken() < 1 << 20, "{} bytes on disk after a patch", taken());
}

#[test]
fn empty_directories_carry_meaning_and_are_kept() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    fs::create_dir_all(pair.source.join("NoSelect/a/b")).expect("directories");
    pair.sync(&[]);
    assert_mirrored(&pair);
    fs::remove_dir_all(pair.source.join("NoSelect/a")).expect("removed");
    let report = pair.sync(&[]);
    assert_eq!(report.count("directories_removed"), 2);
    assert_mirrored(&pair);
}

#[test]
fn a_control_file_made_again_where_a_folder_was_moved_away_is_a_file_of_its_own() {
    let pair = Pair::new();
    let inner = pair.source.join("F2/G2");
    let list = |folder: &Path| folder.join("dovecot-uidlist");
    let make = |at: &Path| {
        let made = Folder::create(at);
        fs::write(list(&made.0), "3 V1 N1 G0123\n").expect("written");
    };
    fs::create_dir_all(inner.parent().expect("it has one")).expect("made");
    make(&inner);
    pair.sync(&[]);
    fs::create_dir(pair.source.join("F0")).expect("made");
    let moved = pair.source.join("F0/G1");
    rename(&inner, &moved);
    make(&inner);
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
    // What is written into one of them on the mirror's side must not be in the other.
    let inode = |folder: &str| fs::metadata(list(&pair.mirror.join(folder))).expect("it is there").ino();
    assert_ne!(inode("F0/G1"), inode("F2/G2"), "the mirror has one file under both names");
    pair.sync(&UNGUARDED).shipped_nothing();
}

#[test]
fn a_removed_message_file_and_folder_go_from_the_mirror() {
    let pair = synced_mailbox();
    let archive = folder(&pair, ".Archive");
    fs::remove_file(read_message(&inbox(&pair))).expect("removed");
    fs::remove_file(pair.source.join("subscriptions")).expect("removed");
    let gone = folder(&pair, ".Archive.2024");
    let messages = gone.messages().len() as u64;
    fs::remove_dir_all(&gone.0).expect("removed");
    fs::remove_file(read_message(&archive)).expect("removed");
    let report = pair.sync(&UNGUARDED);
    assert_eq!(report.count("messages_removed"), messages + 2);
    assert_eq!(report.count("directories_removed"), 4);
    assert_eq!(report.count("messages_added"), 0);
    assert_mirrored(&pair);
}

#[test]
fn sockets_and_pipes_are_left_out_counted_and_said() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let fifo = pair.source.join("a-fifo");
    tool("coreutils", "mkfifo", &[fifo.as_ref()]);
    let _listener = UnixListener::bind(pair.source.join("a-socket")).expect("a socket");
    let run = pair.sync_plainly(&[]).ended_with(0);
    assert!(run.said().contains('2'), "two were left out: {}", run.story());
    assert!(["socket", "FIFO", "fifo", "special"].iter().any(|word| run.said().contains(word)), "{}", run.story());
    assert_mirrored(&pair);
    assert!(!pair.mirror.join("a-fifo").exists());
}

#[test]
fn a_folder_made_under_the_name_of_one_that_was_renamed_arrives() {
    let pair = synced_mailbox();
    let sent = folder(&pair, ".Sent");
    rename(&sent.0, &pair.source.join(".Was-Sent"));
    for name in [".Another", ".Sent"] {
        let made = Folder::create(&pair.source.join(name));
        made.file(950, "S", format!("Subject: {name}\n\nnew\n").as_bytes());
        made.rewrite_uidlist();
    }
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
    pair.sync(&UNGUARDED).shipped_nothing();
}
