//! `mailtwin export --mbox` and `--maildir`: what other programs read out of them is the mail of the moment, with its
//! flags, keywords and dates. Readers are Python's `mailbox` and Dovecot.

#[path = "support/export.rs"]
mod exported;
#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use exported::*;
use points::*;
use serde_json::Value;
use tree::*;

/// What Python reads out of an mbox file, or a Maildir folder: a list of objects.
const READER: &str = r#"
import json, mailbox, sys
kind, path = sys.argv[1:]
box = mailbox.mbox(path, create=False) if kind == "mbox" else mailbox.Maildir(path, create=False)
def one(message):
    known = {"flags": message.get_flags(), "text": message.as_bytes().decode("latin-1"), "subject": message["Subject"],
             "keywords": message["X-Keywords"], "base": message["X-IMAPbase"]}
    if kind == "mbox":
        known["from"] = message.get_from()
    else:
        known["from"], known["new"] = str(int(message.get_date())), message.get_subdir() == "new"
    return known
json.dump([one(message) for message in box], sys.stdout)
"#;

fn python(kind: &str, path: &Path) -> Vec<Value> {
    let printed = tool("python3", "python3", &["-c", READER, kind, typed(path)].map(OsStr::new));
    serde_json::from_slice(&printed).expect("a list")
}

fn subjects(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["subject"].as_str().expect("a subject")).collect()
}

/// A message with this subject and this body.
fn mail(subject: &str, body: &str) -> Vec<u8> {
    format!("Return-Path: <{subject}@example.org>\nFrom: X <x@example.org>\nSubject: {subject}\n\n{body}").into_bytes()
}

/// A mailbox with flags, keywords and awkward bodies in a folder, the words of its letters changed since the full.
fn marked() -> (Pair, String) {
    let pair = Pair::new();
    Folder::create(&pair.source);
    let work = Folder::create(&pair.source.join(".Work"));
    for (number, flags, body) in [
        (5, "", "From the first line\n>From the second\n>>From the third\n"),
        (3, "S", "\nFrom one empty line on\n\n\n"),
        (4, "FRSa", "crlf\r\n.\r\nFrom here\r\n"),
        (1, "DTbz", "no end"),
    ] {
        let path = work.file(number, flags, &mail(&format!("s{number}"), body));
        set_modified(&path, 1_700_000_000 + number, 5);
    }
    let new = work.deliver(2, &mail("s2", "Status: RO\nis text\n"));
    set_modified(&new, 1_700_000_002, 5);
    work.rewrite_uidlist();
    work.write_keywords(&["$Important", "work"]);
    pair.sync(&UNGUARDED);
    let label = backup(&pair, &[]);
    work.write_keywords(&["other", "$Important"]);
    pair.sync(&UNGUARDED);
    (pair, label)
}

/// What a body is in the file: lines that end in LF, quoted.
fn quoted(body: &str) -> String {
    let line = |line: &str| {
        let mark = if line.trim_start_matches('>').starts_with("From ") { ">" } else { "" };
        format!("{mark}{line}\n")
    };
    body.lines().map(line).collect()
}

// ---- mbox ----

#[test]
fn python_reads_messages_flags_and_keywords_in_the_order_of_delivery() {
    let (pair, label) = marked();
    let file = place(&pair, "work.mbox");
    let options = ["--point", &label, "--folder", "Work", "--json", "--mbox", typed(&file)];
    let run = export(&pair.mirror, &options).ended_with(0);
    let messages = python("mbox", &file);
    assert_eq!(run.report().count("exported"), 5);
    assert_eq!(subjects(&messages), ["s1", "s2", "s3", "s4", "s5"]);
    let column = |name: &str| -> Vec<String> {
        messages.iter().map(|message| message[name].as_str().unwrap_or("-").to_owned()).collect()
    };
    // R: read, O: not new; A, F, T, D: answered, flagged, draft, deleted.
    assert_eq!(column("flags"), ["OTD", "", "RO", "ROAF", "O"]);
    assert_eq!(column("keywords"), ["work", "-", "-", "$Important", "-"]);
    assert!(column("from")[0] == "s1@example.org Tue Nov 14 22:13:21 2023", "{:?}", column("from"));
    for (text, body) in column("text").iter().zip([
        "no end",
        "Status: RO\nis text\n",
        "\nFrom one empty line on\n\n\n",
        "crlf\r\n.\r\nFrom here\r\n",
        "From the first line\n>From the second\n>>From the third\n",
    ]) {
        let (_, actual) = text.split_once("\n\n").expect("a header");
        assert_eq!(actual, quoted(body));
    }
    export(&pair.mirror, &["--folder", "Work", "--force", "--mbox", typed(&file)]).ended_with(0);
    let keywords: Vec<Value> = python("mbox", &file).iter().map(|message| message["keywords"].clone()).collect();
    assert_eq!(
        keywords,
        [&Value::from("$Important"), &Value::Null, &Value::Null, &Value::from("other"), &Value::Null].map(Value::clone)
    );
}

/// Dovecot's `doveadm fetch` of what lies in a directory of ours, by message.
fn dovecot(form: &str, directory: &Path, folder: &str) -> Vec<BTreeMap<String, String>> {
    let home = directory.with_extension("dovecot");
    fs::create_dir_all(&home).expect("a home");
    let version = Command::new("/usr/sbin/dovecot").arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("dovecot: {error}; install the package dovecot-core"));
    let location = match version.stdout.starts_with(b"2.3") {
        true => format!("mail_location = {form}:{}\n", directory.display()),
        false => format!(
            "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\nmail_driver = {form}\nmail_path = {}\n",
            directory.display()
        ),
    };
    // As root Dovecot wants another user for mail.
    let user = if am_root() { "mail_uid = 20001\nmail_gid = 20001\n" } else { "" };
    let home_text = home.display();
    let text = format!(
        "{location}{user}base_dir = {home_text}/run\nlog_path = /dev/stderr\nssl = no\nfirst_valid_uid = 0\n\
         first_valid_gid = 0\nstats_writer_socket_path =\n"
    );
    fs::write(home.join("dovecot.conf"), text).expect("the configuration");
    if am_root() {
        tool("coreutils", "chown", &["-R", "20001:20001", typed(directory), typed(&home)].map(OsStr::new));
        set_mode(home.parent().expect("a parent"), 0o755);
    }
    let fields = "uid flags date.received hdr.subject body";
    let output = Command::new("doveadm")
        .args(["-f", "json", "-c", typed(&home.join("dovecot.conf")), "fetch", fields, "mailbox", folder, "all"])
        .env("HOME", &home)
        .env("USER", "nobody")
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("doveadm: {error}; install the package dovecot-core"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Error"), "doveadm: {}\n{said}", output.status);
    let list: Vec<BTreeMap<String, Value>> = serde_json::from_slice(&output.stdout).expect("a list");
    let text = |(name, value): (String, Value)| (name, value.as_str().unwrap_or_default().to_owned());
    list.into_iter().map(|message| message.into_iter().map(text).collect()).collect()
}

/// The flags that Dovecot shows, sorted, without \Recent.
fn flags_shown(message: &BTreeMap<String, String>) -> String {
    let words: BTreeSet<&str> = message["flags"].split(' ').filter(|word| *word != "\\Recent").collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn dovecot_reads_a_directory_of_mbox_files() {
    let (pair, label) = marked();
    let directory = place(&pair, "mail");
    let run = export(&pair.mirror, &["--point", &label, "--json", "--mbox", &format!("{}/", directory.display())]);
    assert_eq!(run.ended_with(0).report().count("exported"), 5);
    assert_eq!(names_in(&directory), ["Work", "inbox"]);
    assert!(dovecot("mbox", &directory, "INBOX").is_empty());
    let messages = dovecot("mbox", &directory, "Work");
    let flags: Vec<String> = messages.iter().map(flags_shown).collect();
    assert_eq!(flags, ["\\Deleted \\Draft work", "", "\\Seen", "$Important \\Answered \\Flagged \\Seen", ""]);
    let dates: Vec<&str> = messages.iter().map(|message| &message["date.received"][..]).collect();
    assert_eq!(dates[0], "2023-11-14 22:13:21");
    assert!(dates.is_sorted() && dates.len() == 5, "{dates:?}");
    assert_eq!(messages[3]["body"].replace('\r', ""), "crlf\n.\n>From here\n");
}

#[test]
fn every_folder_of_every_mailbox_has_a_file() {
    let (pair, _) = vmail();
    let directory = place(&pair, "all");
    export(&pair.mirror, &["--mbox", &format!("{}/", directory.display())]).ended_with(0);
    let mut files = BTreeSet::new();
    for folder in folders_beneath(&pair.source) {
        let below = folder.0.strip_prefix(&pair.source).expect("below").to_str().expect("text");
        let file = match below.rsplit_once("/.") {
            Some((mailbox, name)) => format!("{mailbox}/{name}"),
            None => format!("{below}/inbox"),
        };
        let read = python("mbox", &directory.join(&file));
        let wanted: BTreeSet<String> = folder.messages().iter().map(|path| subject_of(path)).collect();
        assert_eq!(subjects(&read).into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), wanted, "{file}");
        assert_eq!(read.len(), wanted.len());
        files.insert(file);
    }
    assert!(files.contains("example.org/user1/Maildir/Archive.2024"), "{files:?}");
    let there = walkdir::WalkDir::new(&directory).into_iter().filter_map(Result::ok);
    let there = there.filter(|entry| entry.file_type().is_file()).count();
    assert_eq!(there, files.len());
}

fn subject_of(message: &Path) -> String {
    let bytes = fs::read(message).expect("a message");
    let text = String::from_utf8_lossy(&bytes);
    text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject").to_owned()
}

#[test]
fn whole_folders_do_not_become_one_file_but_what_is_picked_does() {
    let (pair, _) = vmail();
    let file = place(&pair, "user.mbox");
    let user = ["--mailbox", "user0@example.org", "--mbox", typed(&file)];
    for options in [&[&user[..], &["-n"]].concat()[..], &user, &["--mailbox", "user0@example.org", "--mbox", "-"]] {
        let run = export(&pair.mirror, options).ended_with(2);
        run.spoke_clearly("4 folders");
        run.spoke_clearly("end the path with a slash");
        assert!(run.stdout.is_empty() && !file.exists());
    }
    export(&pair.mirror, &[&user[..], &["--from", "sender"]].concat()).ended_with(0);
    let read = python("mbox", &file);
    // Mailbox by mailbox, folder by folder, in each by delivery.
    let folders = ["", ".Archive", ".Archive.2024", ".Sent"];
    let mut wanted = Vec::new();
    for folder in folders {
        let folder = Folder(pair.source.join("example.org/user0/Maildir").join(folder));
        let mut messages = folder.messages();
        messages.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).expect("a time"));
        wanted.extend(messages.iter().map(|path| subject_of(path)));
    }
    assert_eq!(subjects(&read), wanted);
    assert!(read.iter().skip(1).all(|message| message["base"].is_null()), "one announcement, before all");
    assert!(read[0]["base"].as_str().is_some_and(|base| base.ends_with(" 0000000000 $Important")), "{:?}", read[0]);
}

#[test]
fn one_folder_goes_to_a_file_or_through_a_pipe() {
    let (pair, _) = vmail();
    let file = place(&pair, "sent.mbox");
    let options = ["--mailbox", "user0@example.org", "--folder", "Sent"];
    export(&pair.mirror, &[&options[..], &["--mbox", typed(&file)]].concat()).ended_with(0);
    let run = export(&pair.mirror, &[&options[..], &["--mbox", "-"]].concat()).ended_with(0);
    assert!(run.stdout == fs::read(&file).expect("the file"));
    assert!(run.said().contains("exported 5 messages"), "{}", run.story());
    assert_eq!(python("mbox", &file).len(), 5);
}

#[test]
fn a_dry_run_counts_messages_and_writes_nothing() {
    let (pair, _) = vmail();
    let directory = place(&pair, "all");
    let options = ["--json", "--mbox", &format!("{}/", directory.display())];
    let dry = export(&pair.mirror, &[&options[..], &["-n"]].concat()).ended_with(0).report();
    assert!(!directory.exists());
    let wet = export(&pair.mirror, &options).ended_with(0).report();
    assert_eq!(dry.0, wet.0);
    assert_eq!(wet.count("exported"), messages_beneath(&pair.source) as u64);
}

#[test]
fn a_file_of_a_folder_that_is_there_is_replaced_with_force_only() {
    let (pair, _) = vmail();
    let directory = place(&pair, "some");
    let named = format!("{}/", directory.display());
    let options = ["--mailbox", "user0@example.org", "--mbox", &named];
    export(&pair.mirror, &options).ended_with(0);
    let sent = directory.join("example.org/user0/Maildir/Sent");
    let before = fingerprint(&directory);
    fs::remove_file(directory.join("example.org/user0/Maildir/Archive")).expect("removed");
    export(&pair.mirror, &options).refused(&[1], "/inbox");
    assert!(!directory.join("example.org/user0/Maildir/Archive").exists(), "something was written");
    fs::write(&sent, "mine").expect("written");
    export(&pair.mirror, &[&options[..], &["--force"]].concat()).ended_with(0);
    assert_eq!(python("mbox", &sent).len(), 5);
    assert_eq!(before.len(), fingerprint(&directory).len());
    // A directory that is there need not be named with a slash.
    export(&pair.mirror, &["--mailbox", "user1@example.org", "--mbox", typed(&directory)]).ended_with(0);
    assert!(directory.join("example.org/user1/Maildir/inbox").is_file());
}

#[test]
fn damaged_messages_are_named_and_the_others_are_read() {
    let (pair, label) = damaged();
    let file = place(&pair, "inbox.mbox");
    let run = export(&pair.mirror, &["--point", &label, "--json", "--mbox", typed(&file)]).ended_with(23);
    let report = run.report();
    let named: Vec<String> = report.problems().into_iter().map(|(subject, _)| subject).collect();
    assert!((1..24).contains(&named.len()), "{}", run.story());
    let messages = Folder(pair.source.clone()).messages();
    let is_named = |path: &PathBuf| named.iter().any(|subject| path.ends_with(subject));
    let wanted: BTreeSet<String> =
        messages.iter().filter(|path| !is_named(path)).map(|path| subject_of(path)).collect();
    assert_eq!(wanted.len() + named.len(), 24);
    let read = python("mbox", &file);
    assert_eq!(subjects(&read).into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), wanted);
    assert_eq!(report.count("exported"), wanted.len() as u64);
}

// ---- Maildir ----

/// What lies in an exported Maildir is what a restore brings, without what is a mail server's.
fn plain(mut tree: Tree) -> Tree {
    let servers = ["subscriptions", "dovecot-uidlist", "dovecot-uidvalidity", "sieve", ".dovecot.sieve"];
    tree.retain(|path, _| {
        let text = String::from_utf8_lossy(path).into_owned();
        !servers.iter().any(|server| text.split('/').any(|part| part.starts_with(server)))
    });
    tree
}

#[test]
fn a_plain_maildir_has_the_messages_and_what_their_letters_mean() {
    let (pair, full) = vmail();
    let directory = place(&pair, "plain");
    let run = export(&pair.mirror, &["--point", &full, "--json", "--maildir", typed(&directory)]).ended_with(0);
    let (restored, whole) = try_restore(&pair.mirror, &["--point", &full]);
    restored.ended_with(0);
    let expected = plain(restored_tree(&whole, true));
    assert!(expected.keys().any(|path| path.ends_with(b"Maildir/.Empty/new")), "an empty folder is a folder");
    assert_same("a plain Maildir", &expected, &restored_tree(&directory, true));
    let files = expected.values().filter(|entry| matches!(entry.kind, Kind::File(..))).count();
    assert_eq!(run.report().count("exported"), files as u64);
}

#[test]
fn dovecot_and_python_open_a_plain_maildir() {
    let (pair, label) = marked();
    let directory = place(&pair, "plain");
    export(&pair.mirror, &["--point", &label, "--maildir", typed(&directory)]).ended_with(0);
    let work = directory.join(".Work");
    let mut read = python("maildir", &work);
    read.sort_by_key(|message| message["subject"].as_str().map(str::to_owned));
    let flags: Vec<&str> = read.iter().map(|message| message["flags"].as_str().expect("flags")).collect();
    assert_eq!(flags, ["DTbz", "", "S", "FRSa", ""]);
    assert_eq!(read.iter().filter(|message| message["new"] == true).count(), 1);
    let mut messages = dovecot("maildir", &directory, "Work");
    messages.sort_by(|one, other| one["hdr.subject"].cmp(&other["hdr.subject"]));
    let flags: Vec<String> = messages.iter().map(flags_shown).collect();
    assert_eq!(flags[2..], ["\\Seen", "$Important \\Answered \\Flagged \\Seen", ""]);
    assert!(flags[0].contains("work") && flags[0].contains("\\Draft"), "{flags:?}");
    assert_eq!(messages[4]["date.received"], "2023-11-14 22:13:25");
}

#[test]
fn messages_that_are_picked_lie_in_whole_folders() {
    let (pair, _) = vmail();
    let directory = place(&pair, "picked");
    let options = ["--subject", "letter 1101", "--maildir", typed(&directory)];
    let counted = |options: &[&str]| export(&pair.mirror, options).ended_with(0).report().count("exported");
    let dry = counted(&[&options[..], &["--dry-run", "--json"]].concat());
    assert!(!directory.exists());
    assert_eq!(counted(&[&options[..], &["--json"]].concat()), dry);
    let folders = folders_beneath(&directory);
    assert_eq!(folders, [Folder(directory.join("example.org/user0/Maildir/.Sent"))]);
    assert_eq!(names_in(&folders[0].0), ["cur", "dovecot-keywords", "maildirfolder", "new", "tmp"]);
    assert_eq!(folders[0].messages().len(), 1);
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_what_is_damaged_is_named() {
    let (pair, label) = damaged();
    let directory = place(&pair, "plain");
    fs::create_dir(&directory).expect("a directory");
    fs::write(directory.join("x"), "mine").expect("a file");
    let options = ["--point", &label, "--json", "--maildir", typed(&directory)];
    export(&pair.mirror, &options).refused(&[1], "plain");
    assert_eq!(names_in(&directory), ["x"]);
    fs::remove_file(directory.join("x")).expect("removed");
    let run = export(&pair.mirror, &options).ended_with(23);
    let failed = run.report().count("failed");
    assert_eq!(Folder(directory).messages().len() as u64 + failed, 24);
    assert!(failed > 0, "{}", run.story());
}
