//! Names that were made to hurt, as folders and as messages: each comes to the mirror as it is, none stops its
//! neighbours, and none gets to speak on the terminal or in the JSON.

#[path = "support/tree.rs"]
mod tree;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use tree::*;

/// Changes the title of a terminal that believes it.
const TITLE: &[u8] = b"\x1b]0;owned\x07";

/// Parts of names; each is put into the name of a folder and into that of a message.
fn hostile() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b"a\nb"[..],
        b"line\nerror: FORGED the disk is full",
        b"carriage\rreturn",
        b"tab\tand\x0bfeed\x0c",
        b"bell\x07back\x08delete\x7f",
        b"\x1b[2J\x1b[31mred",
        TITLE,
        // C1: alone (not UTF-8), and as U+009B, a control sequence introducer of one character.
        b"c1 \x9b31m \x90 \x84",
        "c1 \u{9b}31m \u{85}".as_bytes(),
        // Turns the text that follows around, and a line end that is no ASCII.
        "\u{202e}txt.exe \u{2028}".as_bytes(),
        b"invalid \xff\xfe \xc3\x28 \xed\xa0\x80",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b"-rf",
        b"--delete",
        b"-e sh",
        b" blank ",
        b"*?[a-z]{x,y}",
        b"quote\"'`$(id)",
        b"back\\slash\\n",
        b"%s%n%00",
        b"semi;colon|&<>",
        b"{\"problems\":[]}",
        b"...",
        b"..b",
        b"~",
        b"#x#",
        b"!important",
        b"CON",
        b".mailtwin",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    all.extend((1..=0x1f).map(|byte| vec![b'x', byte, b'y']));
    all
}

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// A Maildir++ mailbox whose folders and messages have these names.
fn make_hostile_mailbox(root: &Path) {
    let inbox = Folder::create(root);
    for (index, name) in hostile().into_iter().enumerate() {
        let number = index as u64 * 10;
        let with = |lead: &[u8], tail: &[u8]| os(&[lead, &name, tail].concat());
        inbox.deliver_as(&with(b"17.M1P1.", b""), &letter(number, 300));
        let seen = inbox.deliver_as(&with(b"18.M1P1.", b",S=300"), &letter(number + 1, 300));
        inbox.take_in(&seen, "S");
        let folder = Folder::create(&root.join(with(b".F ", b"")));
        folder.file(number + 2, "FS", &letter(number + 2, 300));
        fs::write(folder.0.join(with(b"", b"")), &name).expect("a control file");
    }
    inbox.rewrite_uidlist();
}

/// Everything a cycle can be asked to do, once more for each of the names.
fn change_hostile_mailbox(root: &Path) {
    let inbox = Folder(root.to_owned());
    let archive = Folder::create(&root.join(".Archive"));
    for (index, message) in inbox.messages().into_iter().enumerate() {
        match index % 4 {
            0 => drop(inbox.set_flags(&message, "RS")),
            1 => drop(archive.move_in(&message)),
            2 => drop(archive.link_in(&message)),
            _ => fs::remove_file(&message).expect("expunged"),
        }
    }
    for name in names_in(root) {
        if name.as_bytes().starts_with(b".F ") {
            let renamed = os(&[b".R", &name.as_bytes()[2..]].concat());
            rename(&root.join(&name), &root.join(renamed));
        }
    }
}

#[test]
fn hostile_names_come_to_the_mirror_as_they_are() {
    for pair in [Pair::new(), Pair::through_a_pipe()] {
        make_hostile_mailbox(&pair.source);
        pair.sync_and_settle();
        assert_mirrored(&pair);
        change_hostile_mailbox(&pair.source);
        let report = pair.sync(&UNGUARDED);
        assert_eq!(report.count("bytes_content"), 0, "{}", report.0);
        assert_mirrored(&pair);
        pair.sync(&[]).shipped_nothing();
        assert_rsync_agrees(&pair);
    }
}

#[test]
fn hostile_names_of_files_and_links_come_to_the_mirror_as_they_are() {
    let pair = Pair::of_files();
    for name in hostile() {
        if name == b".mailtwin" {
            continue;
        }
        let directory = pair.source.join("d").join(os(&name));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(os(&name)), &name).expect("a file");
        std::os::unix::fs::symlink(os(&name), pair.source.join(os(&name))).expect("a link");
    }
    pair.sync(&[]);
    assert_mirrored(&pair);
    assert_rsync_agrees(&pair);
}

#[test]
fn names_of_255_bytes_are_delivered_flagged_and_moved() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    let archive = Folder::create(&pair.source.join(".Archive"));
    let long = |length: usize| os(&[b"17.M1P1.", "x".repeat(length - 8).as_bytes()].concat());
    let delivered = inbox.deliver_as(&long(255), &letter(1, 500));
    // A base that leaves room for just these flags.
    let flagged = inbox.take_in(&inbox.deliver_as(&long(255 - 5), &letter(2, 500)), "RS");
    assert_eq!(flagged.file_name().map(OsStr::len), Some(255));
    fs::write(inbox.control(&"c".repeat(255)), "control").expect("a control file");
    Folder::create(&pair.source.join(format!(".{}", "f".repeat(254)))).deliver(3, b"body\n");
    pair.sync(&[]);
    assert_mirrored(&pair);
    let refiled = archive.move_in(&flagged);
    archive.set_flags(&refiled, "FS");
    archive.move_in(&delivered);
    append(&inbox.control(&"c".repeat(255)), b", appended");
    let report = pair.sync(&UNGUARDED);
    assert_eq!(report.count("messages_added"), 0);
    assert_mirrored(&pair);
}

#[test]
fn composed_and_decomposed_twins_stay_two() {
    let pair = Pair::new();
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    for (number, name) in [(1, composed), (2, decomposed)] {
        let folder = Folder::create(&pair.source.join(format!(".{name}")));
        folder.deliver_as(OsStr::new(name), &letter(number, 300));
    }
    pair.sync(&[]);
    assert_mirrored(&pair);
    rename(&pair.source.join(format!(".{composed}")), &pair.source.join(".cafe"));
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0);
    assert_mirrored(&pair);
}

/// Puts `count` directories of names of 200 bytes into each other. Made in short chains that are then renamed
/// into each other's end, because no single path may be longer than 4,096 bytes.
fn make_deep(root: &Path, count: usize) {
    const CHAIN: usize = 10;
    let name = |level: usize| format!("{level:03}-{}", "d".repeat(196));
    let mut below: Option<std::path::PathBuf> = None;
    for start in (0..count).step_by(CHAIN).rev() {
        let top = root.join(format!("part{start}"));
        let levels = start + 1..(start + CHAIN).min(count);
        let bottom = levels.fold(top.clone(), |path, level| path.join(name(level)));
        fs::create_dir_all(&bottom).expect("a chain of directories");
        match below.take() {
            Some(chain) => rename(&chain, &bottom.join(name(start + CHAIN))),
            None => drop(Folder::create(&bottom).deliver(1, b"down here\n")),
        }
        below = Some(top);
    }
    rename(&below.expect("at least one chain"), &root.join(name(0)));
}

#[test]
fn a_tree_5000_bytes_deep_comes_to_the_mirror_whole() {
    for pair in [Pair::new(), Pair::through_a_pipe()] {
        make_mailbox(&pair.source, 1);
        make_deep(&pair.source, 26);
        let deepest = read_tree(&pair.source).keys().map(Vec::len).max();
        assert!(deepest > Some(5000), "{deepest:?}");
        pair.sync(&[]);
        assert_mirrored(&pair);
        pair.sync(&[]).shipped_nothing();
        let name = format!("000-{}", "d".repeat(196));
        rename(&pair.source.join(name), &pair.source.join("renamed"));
        let report = pair.sync(&UNGUARDED);
        assert_eq!(report.count("bytes_content"), 0);
        assert_mirrored(&pair);
        fs::remove_dir_all(pair.source.join("renamed")).expect("removed");
        pair.sync(&UNGUARDED);
        assert_mirrored(&pair);
    }
}

#[test]
fn a_wrong_size_in_a_name_changes_nothing() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    for (number, claim) in
        ["S=1", "S=99999999", "S=-5", "S=", "S=18446744073709551616", "W=0", "S=5,S=6", "U=7"].into_iter().enumerate()
    {
        let name = format!("17.M{number}P1.mx,{claim}");
        inbox.deliver_as(OsStr::new(&name), &letter(number as u64, 400));
    }
    pair.sync(&[]);
    assert_mirrored(&pair);
    for message in inbox.messages() {
        inbox.take_in(&message, "S");
    }
    let report = pair.sync(&[]);
    report.changed_only(&[("messages_renamed", 8)]);
    assert_mirrored(&pair);
}

#[test]
fn two_files_of_one_base_and_different_flags_are_both_kept() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    let write = |place: &str, body: &[u8]| fs::write(pair.source.join(place), body).expect("a file");
    write("cur/17.M1P1.mx:2,S", b"one\n");
    write("cur/17.M1P1.mx:2,RS", b"another\n");
    write("cur/17.M1P1.mx", b"a third without flags\n");
    write("new/17.M1P1.mx", b"a fourth in new\n");
    // And two links of one message under both names, as a torn rename leaves them.
    write("cur/18.M1P1.mx:2,", b"linked\n");
    fs::hard_link(pair.source.join("cur/18.M1P1.mx:2,"), pair.source.join("cur/18.M1P1.mx:2,S")).expect("a link");
    inbox.file(19, "S", &letter(19, 300));
    pair.sync_and_settle();
    assert_mirrored(&pair);
    let at = |place: &str| pair.source.join(place);
    rename(&at("cur/17.M1P1.mx:2,S"), &at("cur/17.M1P1.mx:2,FS"));
    rename(&at("cur/17.M1P1.mx:2,RS"), &at("cur/17.M1P1.mx:2,S"));
    fs::remove_file(at("cur/18.M1P1.mx:2,")).expect("removed");
    let report = pair.sync(&UNGUARDED);
    assert_eq!(report.count("bytes_content"), 0, "{}", report.0);
    assert_mirrored(&pair);
    fs::remove_file(at("cur/17.M1P1.mx:2,S")).expect("removed");
    rename(&at("new/17.M1P1.mx"), &at("cur/17.M1P1.mx:2,S"));
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
}

#[test]
fn two_messages_that_swap_their_names_are_told_apart() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    let (one, other) = (inbox.file(1, "S", b"one\n"), inbox.file(2, "S", b"other\n"));
    pair.sync_and_settle();
    rename(&one, &inbox.0.join("tmp/between"));
    rename(&other, &one);
    rename(&inbox.0.join("tmp/between"), &other);
    pair.sync(&UNGUARDED);
    assert_mirrored(&pair);
}

#[test]
fn a_name_that_comes_back_with_other_content_is_the_new_message() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    let message = inbox.file(1, "S", b"the first body\n");
    pair.sync(&[]);
    fs::remove_file(&message).expect("expunged");
    fs::write(&message, b"quite another body of other length\n").expect("a message");
    // A message is immutable, and no name comes twice: what breaks both rules, and gets the old inode
    // number again, is seen when every file is read.
    pair.sync(&[&UNGUARDED[..], &["--checksum"]].concat());
    assert_mirrored(&pair);
}

#[test]
fn a_state_that_lies_in_the_source_is_no_part_of_the_set() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    // This host was a slave once.
    fs::create_dir(pair.source.join(".mailtwin")).expect("a directory");
    fs::write(pair.source.join(".mailtwin/catalogue"), "of another time").expect("a file");
    pair.sync(&[]);
    let there = fs::read(pair.mirror.join(".mailtwin/catalogue")).unwrap_or_default();
    assert_ne!(there, b"of another time");
    pair.sync(&[]).shipped_nothing();
    fs::remove_dir_all(pair.source.join(".mailtwin")).expect("removed");
    pair.sync(&[]);
    assert_mirrored(&pair);
}

/// No message may be lost for its name: the patterns of locks and drafts are about other files.
#[test]
fn a_message_named_like_a_lock_or_a_draft_is_still_a_message() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    for (number, name) in
        ["17.M1P1.host.lock", "temp.host.17", "17.M2P1.host.tmp", "dovecot.index", "x.newlock", "mailboxes.lock"]
            .into_iter()
            .enumerate()
    {
        let message = inbox.deliver_as(OsStr::new(name), &letter(number as u64, 300));
        if number % 2 == 1 {
            // In cur/ without flags, as some agents leave them.
            rename(&message, &inbox.cur().join(name));
        }
    }
    let report = pair.sync(&[]);
    assert_eq!(report.count("messages_added"), 6);
    assert_mirrored(&pair);
}

#[test]
fn messages_need_no_particular_form_of_name() {
    let pair = Pair::new();
    let inbox = Folder::create(&pair.source);
    let names = [
        "1",
        "a",
        ".hidden",
        ":2,S",
        "x:1,experimental",
        "x:2,S,more",
        "17.host:2,unknown",
        "y:",
        "z::2,S",
        "w:2,S:2,T",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let body = letter(number as u64, 300);
        fs::write(inbox.cur().join(name), body).expect("a message");
    }
    fs::create_dir(inbox.cur().join("a directory among the messages")).expect("a directory");
    fs::write(inbox.cur().join("a directory among the messages/inner"), "x").expect("a file");
    pair.sync(&[]);
    assert_mirrored(&pair);
}

// ---- what is printed of them

/// The first character of an output that a name must not get onto a terminal: any control but the end of a line.
fn first_control(output: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(output) else {
        return Some("bytes that are not UTF-8".to_owned());
    };
    text.chars().find(|letter| letter.is_control() && *letter != '\n').map(|letter| letter.escape_unicode().to_string())
}

fn assert_harmless(run: &Run) {
    for output in [&run.stdout, &run.stderr] {
        assert_eq!(first_control(output), None, "{}", run.story());
        let text = String::from_utf8_lossy(output);
        let forged = text.lines().find(|line| line.starts_with("error: FORGED"));
        assert_eq!(forged, None, "a name made a line of its own: {}", run.story());
    }
}

#[test]
fn no_control_byte_of_a_name_is_printed_for_a_person() {
    let options: [&[&str]; 4] = [
        &["-v", "-v", "--no-progress"],
        &["-i", "--no-progress"],
        &["--dry-run", "-v", "--no-progress"],
        &["--stats", "--no-progress"],
    ];
    for words in options {
        let pair = Pair::new();
        make_hostile_mailbox(&pair.source);
        assert_harmless(&pair.sync_plainly(words).ended_with(0));
        change_hostile_mailbox(&pair.source);
        let run = pair.sync_plainly(&[words, &UNGUARDED].concat()).ended_with(0);
        assert_harmless(&run);
    }
}

/// Problems are where names get into messages and into the JSON: unreadable messages and folders of these names.
#[test]
fn no_control_byte_of_a_name_is_printed_in_a_problem() {
    let pair = Pair::new();
    make_hostile_mailbox(&pair.source);
    let inbox = Folder(pair.source.clone());
    let folders: Vec<_> = folders_beneath(&pair.source).into_iter().skip(1).collect();
    let closed: Vec<_> = inbox.messages().into_iter().chain(folders.iter().map(Folder::cur)).collect();
    for path in &closed {
        set_mode(path, 0o000);
    }
    for path in [&pair.source, &inbox.cur(), &inbox.new_dir()] {
        set_mode(path, 0o755);
    }
    let run = finish(&mut pair.command_without_rights(&[])).ended_with(23);
    assert_harmless(&run);
    assert!(run.report().problems().len() >= closed.len(), "{}", run.story());
    for path in closed {
        set_mode(&path, 0o700);
    }
}

#[test]
fn no_control_byte_of_a_path_on_the_command_line_is_printed() {
    let home = tempfile::tempdir().expect("a directory");
    for name in hostile() {
        let source = home.path().join(os(&[b"missing ", &name[..]].concat()));
        let mut command = Command::new(BINARY);
        command
            .args(["sync", "--json", "--"])
            .arg(source)
            .arg(home.path().join("mirror"))
            .env("MAILTWIN_STATE", home.path().join("state"));
        assert_harmless(&finish(&mut command).ended_with(1));
    }
}

#[test]
fn a_source_and_a_mirror_of_hostile_names_are_mirrored() {
    for name in hostile() {
        let mut pair = Pair::new();
        pair.source = pair.path("home-s").join(os(&name));
        pair.mirror = pair.path("home-m").join(os(&name));
        fs::create_dir_all(&pair.source).expect("the source");
        fs::create_dir_all(pair.path("home-m")).expect("its parent");
        make_mailbox(&pair.source, 1);
        let mut command = Command::new(BINARY);
        command.args(["sync", "--json", "--"]).args([&pair.source, &pair.mirror]).env("MAILTWIN_STATE", &pair.state);
        let run = finish(&mut command);
        assert_harmless(&run);
        run.done();
        assert_mirrored(&pair);
    }
}

#[test]
fn on_a_terminal_no_name_speaks_for_itself() {
    let pair = Pair::new();
    make_hostile_mailbox(&pair.source);
    let (source, mirror) = (pair.source.display(), pair.mirror.display());
    let mut command = Command::new("script");
    command
        .args(["-qec", &format!("{BINARY} sync -v -i --progress {source} {mirror}"), "/dev/null"])
        .env("TERM", "xterm")
        .env("MAILTWIN_STATE", &pair.state);
    let run = finish(&mut command).ended_with(0);
    for sequence in [TITLE, b"\x1b[31mred", b"\x07", b"\x9b31m", b"\xc2\x9b"] {
        assert!(
            !run.stdout.windows(sequence.len()).any(|part| part == sequence),
            "{} is on the terminal",
            sequence.escape_ascii()
        );
    }
}
