//! rsync, which shares no code with us, is asked what it would still do after a cycle: nothing but the times
//! of `cur/` and `new/`. Each kind of tree is asked about after the first copy and after changes of every kind.

#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tree::*;

/// Mirrors a tree, changes it, mirrors it again; rsync and the test's own comparison agree each time.
fn rsync_agrees_before_and_after(pair: &Pair, change: impl Fn(&Path)) {
    for round in 0..2 {
        if round == 1 {
            change(&pair.source);
        }
        pair.sync_and_settle();
        assert_rsync_agrees(pair);
        assert_mirrored(pair);
    }
}

/// What a server does to a mailbox in a day.
fn a_day_in(mailbox: &Path) {
    let folders = folders_beneath(mailbox);
    let (first, last) = (&folders[0], &folders[folders.len() - 1]);
    let messages = first.messages();
    first.set_flags(&messages[0], "FS");
    last.move_in(&messages[1]);
    last.link_in(&messages[2]);
    fs::remove_file(&messages[3]).expect("expunged");
    let delivered = first.deliver(990, &letter(990, 2500));
    first.append_uid(990, &delivered);
    last.rewrite_uidlist();
    last.write_keywords(&["$Important", "work", "later"]);
    Folder::create(&mailbox.join(".Made today")).file(991, "S", &letter(991, 100));
}

#[test]
fn one_mailbox() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    rsync_agrees_before_and_after(&pair, a_day_in);
}

#[test]
fn many_mailboxes_beneath_one_directory() {
    let pair = Pair::new();
    make_vmail(&pair.source, 4);
    rsync_agrees_before_and_after(&pair, |root| {
        a_day_in(&root.join("example.org/user0/Maildir"));
        let gone = root.join("example.org/user3");
        fs::remove_dir_all(gone).expect("a user left");
        rename(&root.join("example.org/user1"), &root.join("example.org/renamed"));
    });
}

#[test]
fn the_nested_layout() {
    let pair = Pair::new();
    make_fs_layout(&pair.source, 1);
    rsync_agrees_before_and_after(&pair, |root| {
        rename(&root.join("Work/Offers"), &root.join("Lists/Offers"));
        a_day_in(root);
    });
}

#[test]
fn files_as_in_etc_postfix() {
    let pair = Pair::of_files();
    let names = ["main.cf", "master.cf", "sasl/passwd", "maps/virtual", "maps/virtual.db", "tmp/x", "empty"];
    for (index, name) in names.into_iter().enumerate() {
        let path = pair.source.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let length = if name == "empty" { 0 } else { 900 * (index + 1) };
        fs::write(path, letter(index as u64, length)).expect("a file");
    }
    fs::create_dir(pair.source.join("dynamicmaps.cf.d")).expect("a directory");
    set_mode(&pair.source.join("sasl/passwd"), 0o600);
    symlink("/usr/share/postfix/makedefs.out", pair.source.join("makedefs.out")).expect("a link");
    settle_times(&pair.source);
    rsync_agrees_before_and_after(&pair, |root| {
        append(&root.join("main.cf"), b"myhostname = mx.example.org\n");
        replace(&root.join("maps/virtual.db"), &noise(7, 8192));
        fs::remove_dir_all(root.join("sasl")).expect("removed");
        set_mode(&root.join("master.cf"), 0o600);
        rename(&root.join("maps"), &root.join("tables"));
    });
}

#[test]
fn a_tree_with_one_of_everything() {
    let pair = Pair::of_files();
    let at = |name: &str| pair.source.join(name);
    fs::write(at("plain"), "plain").expect("a file");
    fs::hard_link(at("plain"), at("hard link")).expect("a hard link");
    symlink("plain", at("soft link")).expect("a link");
    symlink("missing\nnewline", at("dangling")).expect("a link");
    fs::create_dir_all(at("deep/er/est")).expect("directories");
    fs::write(at("deep/er/est/-rf"), "dash").expect("a file");
    fs::File::create(at("sparse")).and_then(|made| made.set_len(5 << 20)).expect("a hole");
    for (program, package, words) in [
        ("setfattr", "attr", ["-n", "user.note", "-v", "value"]),
        ("setfacl", "acl", ["-m", "u:65534:r", "-m", "g:12:rw"]),
    ] {
        let mut words: Vec<_> = words.into_iter().map(str::as_ref).collect();
        let path = at("plain");
        words.push(path.as_ref());
        tool(package, program, &words);
    }
    settle_times(&pair.source);
    rsync_agrees_before_and_after(&pair, |root| {
        append(&root.join("hard link"), b", and more");
        fs::remove_file(root.join("soft link")).expect("removed");
        fs::create_dir(root.join("soft link")).expect("a directory");
        rename(&root.join("deep/er"), &root.join("er"));
        set_mode(&root.join("er"), 0o700);
    });
}

/// Real mail: the letters that come with the project, in folders of twenty.
#[test]
fn the_mail_of_the_fixtures() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let letters: Vec<_> = walkdir::WalkDir::new(&fixtures)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("the fixtures are readable"))
        .filter(|entry| entry.file_type().is_file())
        .collect();
    assert!(letters.len() > 40, "no mail in {}", fixtures.display());
    let pair = Pair::new();
    for (index, chunk) in letters.chunks(20).enumerate() {
        let folder = Folder::create(&pair.source.join(format!(".Folder {index:04}")));
        for (number, letter) in chunk.iter().enumerate() {
            let body = fs::read(letter.path()).expect("a letter");
            let number = (index * 20 + number) as u64;
            folder.file(number, ["", "S", "RS", "FS"][number as usize % 4], &body);
        }
        folder.rewrite_uidlist();
    }
    rsync_agrees_before_and_after(&pair, a_day_in);
}

#[test]
fn through_a_far_end_of_its_own() {
    let pair = Pair::through_a_pipe();
    make_mailbox(&pair.source, 1);
    rsync_agrees_before_and_after(&pair, a_day_in);
}

/// The oracle itself must be able to see a difference; a comparison that always agrees proves nothing.
#[test]
fn the_oracle_sees_what_is_not_equal() {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let mut from = pair.source.clone();
    from.push("");
    // With whole seconds alone, rsync leaves a link the time of its making.
    let options = ["-aHAX", "--modify-window=-1"].map(OsStr::new);
    let paths = [from.as_os_str(), pair.mirror.as_os_str()];
    tool("rsync", "rsync", &[options, paths].concat());
    assert_rsync_agrees(&pair);
    assert_mirrored(&pair);
    let mirrored = Folder(pair.mirror.clone());
    let damages: [&dyn Fn(); 4] = [
        &|| drop(mirrored.deliver(1, b"a message too many")),
        &|| set_mode(&pair.mirror.join("subscriptions"), 0o640),
        &|| set_modified(&pair.mirror.join("sieve"), 1, 1),
        &|| fs::remove_file(&mirrored.messages()[0]).expect("removed"),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        damage();
        assert!(rsync_would_still_do(&pair).len() > index);
        assert!(differences(&expected_mirror(&pair), &actual_mirror(&pair)).len() > index);
    }
}
