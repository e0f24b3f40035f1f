//! The same attachment in many messages takes its room once, and every message comes back bit by bit: from points whose
//! full is gone, out of segments that were rewritten, and where a disk has damaged what others refer to.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use points::*;
use serde_json::Value;
use tree::*;

/// Bytes of the attachment that everybody got: more than a block holds.
const ATTACHED: usize = 3_000_000;

/// Messages that have it.
const COPIES: u64 = 8;

/// What is attached, in lines of a length.
fn encoded(bytes: &[u8], line: usize) -> Vec<u8> {
    let mut input = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut input, bytes).expect("written");
    tool("coreutils", "base64", &["-w".as_ref(), line.to_string().as_ref(), input.path().as_ref()])
}

/// A message with an attachment behind a text of its own.
fn mail(number: u64, attached: &[u8], line: usize) -> Vec<u8> {
    let text = letter(number, 700 + number as usize * 531);
    [&text[..], b"\n--b\nContent-Transfer-Encoding: base64\n\n", &encoded(attached, line), b"--b--\n"].concat()
}

/// A mailbox in which one attachment is in many messages, in one of them in part, and another is in one.
fn make_circular(root: &Path) {
    make_mailbox(root, 1);
    let circular = noise(77, ATTACHED);
    for number in 0..COPIES {
        let folder = Folder(root.join([".Sent", ".Archive", ".Archive.2024"][number as usize % 3]));
        let attached = if number == 5 { &circular[700_000..] } else { &circular[..] };
        folder.file(50_000 + number, "S", &mail(number, attached, [76, 64, 72][number as usize % 3]));
        folder.rewrite_uidlist();
    }
    Folder(root.join(".Sent")).file(60_000, "S", &mail(9, &noise(78, 200_000), 76));
    settle_times(root);
}

fn circular() -> (Pair, String, Tree) {
    let pair = Pair::new();
    make_circular(&pair.source);
    let remembered = sync_and_remember(&pair);
    let label = backup(&pair, &[]);
    (pair, label, remembered.tree)
}

fn segments_of(standby: &Path, label: &str) -> Vec<PathBuf> {
    let directory = points_of(standby).join(label);
    names_in(&directory).into_iter().filter(|name| name.len() == 16).map(|name| directory.join(name)).collect()
}

fn room_of(standby: &Path, label: &str) -> u64 {
    segments_of(standby, label).iter().map(|path| path.metadata().expect("is there").len()).sum()
}

fn verify(standby: &Path, options: &[&str], code: i32) -> Value {
    let run = run("verify", standby, &[&["--json"], options].concat()).ended_with(code);
    serde_json::from_slice::<Value>(&run.stdout).unwrap_or_else(|_| panic!("{}", run.story()))[0].clone()
}

#[test]
fn an_attachment_in_many_messages_takes_its_room_once() {
    let (pair, label, tree) = circular();
    let room = room_of(&pair.mirror, &label);
    assert!(room < ATTACHED as u64 * 13 / 10, "{room} bytes");
    assert_point(&pair.mirror, &label, &tree);
    verify(&pair.mirror, &["--no-mend"], 0);
}

#[test]
fn it_goes_to_another_host_packed_anew() {
    let (pair, label, tree) = circular();
    let way = pair.path("far.sh");
    script(&way, "shift\nexec \"$@\"");
    let place = fresh_place(pair.home());
    let to = format!("far.example.org:{}", place.display());
    let words = ["--point", &label, "--rsh", &rsh(&way), "--remote-path", BINARY, "--to", &to];
    let run = run("restore", &pair.mirror, &words).ended_with(0);
    let differing = differences(&tree, &restored_tree(&place, true));
    assert!(differing.is_empty(), "{}\n{}", run.story(), differing.join("\n"));
}

#[test]
fn each_point_needs_no_other_whatever_is_expired() {
    let (pair, first, _) = circular();
    let sent = Folder(pair.source.join(".Sent"));
    sent.file(61_000, "S", &mail(11, &noise(77, ATTACHED), 76));
    sent.rewrite_uidlist();
    let now = sync_and_remember(&pair);
    let differential = backup(&pair, &["--diff"]);
    let fresh = backup(&pair, &["--full", "--fresh"]);
    let linked = backup(&pair, &["--full"]);
    for label in [&differential, &fresh, &linked] {
        assert_point(&pair.mirror, label, &now.tree);
    }
    fs::remove_dir_all(points_of(&pair.mirror).join(&differential)).expect("is removed");
    fs::remove_dir_all(points_of(&pair.mirror).join(&first)).expect("is removed");
    assert_point(&pair.mirror, &fresh, &now.tree);
    assert_point(&pair.mirror, &linked, &now.tree);
    run("expire", &pair.mirror, &["--keep-full", "1"]).ended_with(0);
    assert_eq!(labels(&pair.mirror), [linked.as_str()]);
    assert_point(&pair.mirror, &linked, &now.tree);
}

#[test]
fn what_is_left_of_a_segment_is_whole_when_it_is_written_again() {
    let pair = Pair::new();
    make_circular(&pair.source);
    // So much beside it goes that the rest is worth moving.
    for number in 0..10 {
        Folder(pair.source.join(".Archive")).file(70_000 + number, "S", &noise(200 + number, 4_000_000));
    }
    settle_times(&pair.source);
    pair.sync(&UNGUARDED);
    let before = backup(&pair, &[]);
    for message in Folder(pair.source.join(".Archive")).messages() {
        fs::remove_file(message).expect("is removed");
    }
    for message in Folder(pair.source.join(".Sent")).messages() {
        fs::remove_file(message).expect("is removed");
    }
    let now = sync_and_remember(&pair);
    let after = backup(&pair, &["--full"]);
    let numbers = |label: &str| -> BTreeSet<_> {
        segments_of(&pair.mirror, label).iter().map(|path| path.file_name().expect("a name").to_owned()).collect()
    };
    assert!(numbers(&before).is_disjoint(&numbers(&after)), "nothing was written again");
    assert_point(&pair.mirror, &after, &now.tree);
}

/// Where the frames of a segment begin.
fn frames(segment: &[u8]) -> Vec<usize> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while at < segment.len() {
        frames.push(at);
        at += 16 + u32::from_le_bytes(segment[at..at + 4].try_into().expect("four")) as usize;
    }
    frames
}

#[test]
fn damage_of_what_others_refer_to_is_named_for_all_of_them_and_mended() {
    let (pair, label, tree) = circular();
    let segment = segments_of(&pair.mirror, &label).remove(0);
    let bytes = fs::read(&segment).expect("the segment");
    let frames = frames(&bytes);
    // The largest block is one that has much of the attachment.
    let ends = frames.iter().copied().skip(1).chain([bytes.len()]);
    let (length, at) = frames.iter().zip(ends).map(|(begin, end)| (end - begin, *begin)).max().expect("a block");
    let spoil = |standby: &Path| {
        let mut bytes = bytes.clone();
        bytes[at + length / 2] ^= 0x10;
        fs::write(points_of(standby).join(&label).join(segment.file_name().expect("a name")), bytes).expect("written");
    };
    let copy = copy_of(&pair.mirror, "looked-at");
    spoil(&copy);
    let found = verify(&copy, &["--no-mend"], 23);
    let hit: BTreeSet<&str> =
        found["hit"].as_array().expect("a list").iter().map(|path| path.as_str().expect("text")).collect();
    assert!(hit.len() >= COPIES as usize - 1, "{hit:?}");
    let (run, place) = try_restore(&copy, &["--point", &label]);
    let run = run.ended_with(23);
    let restored = restored_tree(&place, true);
    let wrong: Vec<String> = differences(&tree, &restored);
    let mut left_out = 0;
    for (path, entry) in &tree {
        let path = String::from_utf8_lossy(path).into_owned();
        if hit.contains(path.as_str()) {
            left_out += 1;
            assert!(!restored.contains_key(path.as_bytes()), "{path} came back: {}", run.story());
        } else if path.contains(".M") {
            assert_eq!(restored.get(path.as_bytes()), Some(entry), "{}\n{}", run.story(), wrong.join("\n"));
        }
    }
    assert_eq!(left_out, hit.len(), "{hit:?}");
    spoil(&pair.mirror);
    let mended = verify(&pair.mirror, &[], 0);
    assert!(mended["mended"].as_u64() >= Some(COPIES - 1), "{mended}");
    assert_point(&pair.mirror, &label, &tree);
    verify(&pair.mirror, &["--no-mend"], 0);
}

#[test]
fn no_damage_of_a_segment_with_references_brings_a_wrong_byte() {
    let (pair, label, tree) = circular();
    let length = segments_of(&pair.mirror, &label)[0].metadata().expect("is there").len();
    for percent in [1, 20, 45, 70, 90, 99] {
        let copy = copy_of(&pair.mirror, "damaged");
        let segment = segments_of(&copy, &label).remove(0);
        let mut bytes = fs::read(&segment).expect("the segment");
        bytes[(length * percent / 100) as usize] ^= 1;
        fs::write(&segment, bytes).expect("written");
        let (run, place) = try_restore(&copy, &["--point", &label]);
        assert!(matches!(run.code(), Some(0 | 23)), "{}", run.story());
        for (path, entry) in restored_tree(&place, true) {
            if path.windows(2).any(|pair| pair == b".M") {
                assert_eq!(tree.get(&path), Some(&entry), "at {percent} %: {}", run.story());
            }
        }
        fs::remove_dir_all(&place).expect("is removed");
    }
}
