//! A real Dovecot works on the master's mail; another one is started on the mirror: its clients notice no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;
use walkdir::WalkDir;

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/imap.rs"]
mod imap;

use daemon::holds_soon;
use dovecot::{Account, Dovecot, Folder, Layout, User, differences, mail_owner};
use imap::{Imap, Lmtp};

const ALICE: User = User { address: "alice@example.org", layout: Layout::MaildirPlusPlus };
/// Gets mail and never logs in.
const BOB: User = User { address: "bob@example.org", layout: Layout::MaildirPlusPlus };
const CAROL: User = User { address: "carol@example.net", layout: Layout::Fs };
const USERS: [User; 3] = [ALICE, BOB, CAROL];

/// "Entwuerfe" with its umlaut, in modified UTF-7.
const DRAFTS: &str = "Entw&APw-rfe";

#[test]
fn a_server_on_the_mirror_shows_its_clients_what_the_master_shows() {
    let twin = Twin::new();
    let master = twin.start_master();
    let _session = fill(&master);
    let seen = accounts(&master);
    assert!(ALICE.maildir(&twin.master).join(".Archive/cur").is_dir());
    assert!(CAROL.maildir(&twin.master).join("A/B/C/cur").is_dir());
    let planted = plant_leftovers(&twin.master);

    let report = twin.sync();
    assert_eq!(report.count("messages_removed"), 0);
    assert_left_out(&twin.mirror, &planted);
    for path in planted {
        fs::remove_file(path).expect("what was planted is still there");
    }
    assert_eq!(hard_links(&twin.master), hard_links(&twin.mirror));
    assert!(!hard_links(&twin.master).is_empty(), "IMAP COPY makes hard links");

    let unchanged = twin.sync();
    for counter in ["messages_added", "messages_renamed", "messages_linked", "messages_removed", "bytes_content"] {
        assert_eq!(unchanged.count(counter), 0, "{counter} although nothing changed");
    }
    assert_equal(&seen, &accounts(&master), "the master before and after");
    twin.assert_mirror_shows(&seen);
}

#[test]
fn changes_made_in_an_open_session_ship_control_files_and_no_message() {
    let twin = Twin::new();
    let master = twin.start_master();
    let mut session = fill(&master);
    twin.sync();
    // A server's first look at the mirror leaves index files there, older than what the next run brings.
    twin.assert_mirror_shows(&accounts(&master));

    rearrange(&master, &mut session);
    let seen = accounts(&master);
    let report = twin.sync();
    assert_eq!(report.count("messages_added"), 0, "{report}");
    assert!(report.count("messages_renamed") > 0, "{report}");
    assert!(report.count("messages_linked") > 0, "{report}");
    assert!(report.count("directories_renamed") > 0, "{report}");
    assert!(report.count("bytes_content") <= size_of_control_files(&twin.master), "{report}");
    assert_eq!(hard_links(&twin.master), hard_links(&twin.mirror));
    twin.assert_mirror_shows(&seen);

    let new = receive_more(&master, &mut session);
    let seen = accounts(&master);
    let report = twin.sync();
    assert_eq!(report.count("messages_added"), new.len() as u64, "{report}");
    let stored: u64 = new.iter().map(|message| message.len() as u64 + LMTP_HEADERS).sum();
    assert!(report.count("bytes_content") <= size_of_control_files(&twin.master) + stored, "{report}");
    twin.assert_mirror_shows(&seen);
}

#[test]
fn a_master_that_is_never_idle_is_mirrored_without_a_lost_or_doubled_message() {
    let twin = Twin::new();
    let master = twin.start_master();
    let mut session = master.imap(&ALICE);
    for folder in ["Work", "Archive", "Copies"] {
        session.create(folder);
    }
    let load = Load::new(master.lmtp());
    for _ in 0..WITNESSES_BEFORE {
        load.deliver();
    }
    let mut moving = Witnesses::of(&ALICE, &twin, &["", ".Work", ".Archive", ".Copies"]);
    let mut staying = Witnesses::of(&BOB, &twin, &[""]);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&load.stop);
        let load = &load;
        for seed in 1..=MOVERS {
            let session = master.imap(&ALICE);
            scope.spawn(move || shuffle(load, session, seed));
        }
        let session = master.imap(&BOB);
        scope.spawn(move || change_flags(load, session));
        for round in 0..SYNCS_UNDER_LOAD {
            let (changes, delivered) = (load.changes.load(Ordering::SeqCst), load.delivered());
            let went_on = holds_soon(|| load.changes.load(Ordering::SeqCst) > changes);
            assert!(went_on, "the load stands still in round {round}");
            twin.sync();
            // A message that is moved again and again may be met a run later; one that stays may not.
            moving.look(round);
            staying.look(round);
            staying.assert_all_there(delivered, round);
        }
    });

    let seen = accounts_of(&master, &[ALICE, BOB]);
    twin.sync();
    for witnesses in [&mut moving, &mut staying] {
        witnesses.look(SYNCS_UNDER_LOAD);
        witnesses.assert_all_there(load.delivered(), SYNCS_UNDER_LOAD);
    }
    twin.assert_mirror_shows(&seen);
}

#[test]
fn a_client_that_reads_on_the_mirror_sees_every_change_and_nothing_twice() {
    follow_on_a_running_mirror("EXAMINE");
}

#[test]
fn a_client_that_has_opened_the_mirror_for_writing_sees_every_change_and_nothing_twice() {
    follow_on_a_running_mirror("SELECT");
}

/// Clients stay logged in on the mirror's server, with INBOX opened by `command`, while the master changes.
#[test]
fn what_a_user_deleted_comes_back_in_place_while_the_user_is_logged_in() {
    let twin = Twin::new();
    let master = twin.start_master();
    let mut session = fill(&master);
    twin.sync();
    twin.run(&["backup"], &[]);
    let before = master.account(&ALICE);
    let kept = {
        session.select("INBOX");
        let uids = session.uids();
        let gone: Vec<String> = uids.iter().step_by(2).map(u32::to_string).collect();
        session.store(&gone.join(","), "+FLAGS", "\\Deleted");
        session.expunge();
        session.delete("Archive");
        session.messages()
    };
    let old = &before.folders["INBOX"];
    assert!(kept.len() < old.messages.len() && !kept.is_empty());

    let in_place = PathBuf::from(format!("--in-place={}", twin.master.display()));
    let restore = || twin.run(&["restore", "--json"], &[&in_place]);
    let report = restore();
    assert_eq!(report.count("failed"), 0, "{report}");
    session.noop();
    let mut other = master.imap(&ALICE);
    for name in ["INBOX", "Archive"] {
        let (was, is) = (&before.folders[name], Folder::seen_by(&mut other, name));
        let texts = |messages: &[imap::Message]| {
            let mut texts: Vec<_> = messages
                .iter()
                .map(|message| (message.body.clone(), message.flags.clone(), message.internal_date.clone()))
                .collect();
            texts.sort();
            texts
        };
        assert!(
            texts(&was.messages) == texts(&is.messages),
            "{name}: {} then, {} now",
            was.messages.len(),
            is.messages.len()
        );
    }
    let now = Folder::seen_by(&mut other, "INBOX");
    assert_eq!(now.opened.uid_validity, old.opened.uid_validity);
    for message in &kept {
        assert!(now.messages.iter().any(|other| other == message), "UID {} is not as it was", message.uid);
    }
    for message in now.messages.iter().filter(|message| kept.iter().all(|kept| kept.uid != message.uid)) {
        assert!(message.uid >= old.opened.uid_next, "UID {} came back, and meant another message", message.uid);
    }

    // Into a folder of its own, for the user to sort.
    let into = || {
        let what = ["--mailbox", "alice@example.org", "--folder", "INBOX", "--into", "Restored.Today"];
        twin.run(&[&["restore", "--json"], &what[..]].concat(), &[&in_place])
    };
    assert_eq!(into().count("created"), old.messages.len() as u64);
    let filed = Folder::seen_by(&mut other, "Restored.Today");
    assert_eq!(filed.messages.len(), old.messages.len());
    assert!(other.lsub().iter().any(|listed| listed.name == "Restored.Today"), "{:?}", other.lsub());
    assert_eq!(into().count("created"), 0);

    let again = restore();
    assert_eq!((again.count("created"), again.count("failed")), (0, 0), "{again}");
    let after = Folder::seen_by(&mut other, "INBOX");
    assert!(after.messages == now.messages, "a second restore changed something");
    drop(other);
    assert_eq!(master.complaints(), Vec::<String>::new());
}

fn follow_on_a_running_mirror(command: &str) {
    let twin = Twin::new();
    let master = twin.start_master();
    let mut session = fill(&master);
    twin.sync();
    let standby = Dovecot::start(&twin.mirror, &USERS);
    let client = || {
        let mut client = standby.imap(&ALICE);
        client.run(&format!("{command} INBOX"));
        client
    };
    let mut reader = client();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        // They look at the folder at every moment of a run, so that a half-applied one is seen, and acted upon.
        for _ in 0..RESTLESS_CLIENTS {
            let (client, stop) = (client(), &stop);
            scope.spawn(move || look_restlessly(client, stop));
        }
        for round in 0..RUNNING_ROUNDS {
            change_inbox(&master, &mut session, round);
            let seen = accounts(&master);
            twin.sync();
            assert_arrives(&mut reader, &seen[ALICE.address].folders["INBOX"], round);
            assert_equal(&seen, &accounts(&standby), &format!("round {round}"));
        }
    });
    assert_eq!(standby.complaints(), Vec::<String>::new());
}

const RUNNING_ROUNDS: usize = 8;
const RESTLESS_CLIENTS: usize = 2;

fn look_restlessly(mut client: Imap, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        client.noop();
        client.uids();
    }
}

/// The session sees in its open folder what the master's clients see there, soon.
fn assert_arrives(session: &mut Imap, wanted: &Folder, round: usize) {
    let mut messages = Vec::new();
    let arrived = holds_soon(|| {
        session.noop();
        messages = session.messages();
        messages == wanted.messages
    });
    let uids = |messages: &[imap::Message]| -> Vec<u32> { messages.iter().map(|message| message.uid).collect() };
    let (seen, wanted) = (uids(&messages), uids(&wanted.messages));
    assert!(arrived, "round {round}: the client sees UIDs {seen:?}, the master has {wanted:?}");
}

// ---- the pair ----

/// A master's tree and its mirror.
struct Twin {
    root: TempDir,
    master: PathBuf,
    mirror: PathBuf,
}

impl Twin {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        // The mail's owner is another user where the test is root.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("its owner may change a mode");
        let (master, mirror) = (root.path().join("master/mail"), root.path().join("slave/mail"));
        for directory in [&master, &mirror] {
            fs::create_dir_all(directory).expect("directories can be made");
        }
        let (uid, gid) = mail_owner();
        chown(&master, Some(uid), Some(gid)).expect("the mail's owner is the test's own, or the test is root");
        Self { root, master, mirror }
    }

    fn start_master(&self) -> Dovecot {
        Dovecot::start(&self.master, &USERS)
    }

    /// Runs `mailtwin sync`, which must say that it did all of it.
    fn sync(&self) -> Report {
        let output = Command::new(env!("CARGO_BIN_EXE_mailtwin"))
            .args(["sync", "--json"])
            .args([&self.master, &self.mirror])
            .env("MAILTWIN_STATE", self.root.path().join("state"))
            .output()
            .expect("mailtwin starts");
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{said}\n{complained}");
        let report = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"));
        let report = Report(report);
        assert_eq!(report.0["in_sync"], Value::Bool(true), "{report}");
        assert_eq!(report.0["problems"], Value::Array(Vec::new()), "{report}");
        report
    }

    /// Runs a command about the standby, which must succeed; what it printed, where that is JSON.
    fn run(&self, command: &[&str], more: &[&Path]) -> Report {
        let (name, flags) = command.split_first().expect("a command");
        let output = Command::new(env!("CARGO_BIN_EXE_mailtwin"))
            .arg(name)
            .arg(&self.mirror)
            .args(flags)
            .args(more)
            .env("MAILTWIN_STATE", self.root.path().join("state"))
            .output()
            .expect("mailtwin starts");
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{said}\n{complained}");
        Report(serde_json::from_str(&said).unwrap_or_default())
    }

    /// Starts a server on the mirror as it lies there and compares its answers with what was `seen` on the master.
    fn assert_mirror_shows(&self, seen: &BTreeMap<&'static str, Account>) {
        let users: Vec<User> = USERS.into_iter().filter(|user| seen.contains_key(user.address)).collect();
        let standby = Dovecot::start(&self.mirror, &users);
        assert_equal(seen, &accounts_of(&standby, &users), "the mirror");
        assert_eq!(standby.complaints(), Vec::<String>::new());
    }
}

/// What `--json` printed.
struct Report(Value);

impl Report {
    fn count(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {self}"))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:#}", self.0)
    }
}

fn accounts(server: &Dovecot) -> BTreeMap<&'static str, Account> {
    accounts_of(server, &USERS)
}

fn accounts_of(server: &Dovecot, users: &[User]) -> BTreeMap<&'static str, Account> {
    users.iter().map(|user| (user.address, server.account(user))).collect()
}

fn assert_equal(master: &BTreeMap<&'static str, Account>, mirror: &BTreeMap<&'static str, Account>, when: &str) {
    let mut found = Vec::new();
    for (address, account) in master {
        found.extend(differences(account, &mirror[address]).into_iter().map(|what| format!("{address} {what}")));
    }
    assert!(found.is_empty(), "{when}: {} differences\n{}", found.len(), found.join("\n"));
}

// ---- what happens on the master ----

/// Headers that LMTP puts before a message, at most.
const LMTP_HEADERS: u64 = 1024;

/// Fills all mailboxes; the session of ALICE's client that did it stays open, with INBOX selected.
fn fill(master: &Dovecot) -> Imap {
    let mut lmtp = master.lmtp();
    for number in 0..8 {
        lmtp.deliver(ALICE.address, &text(number));
    }
    for number in 0..3 {
        lmtp.deliver(BOB.address, &text(number));
        lmtp.deliver(CAROL.address, &text(number + 3));
    }
    let mut alice = master.imap(&ALICE);
    make_folders(&mut alice);
    flag_and_file(&mut alice);
    // A gap in the UIDs, and a message after it; what arrives now stays in new/.
    lmtp.deliver(ALICE.address, &text(8));
    alice.select("INBOX");
    alice.store("7:8", "+FLAGS", "\\Deleted");
    alice.expunge();
    lmtp.deliver(ALICE.address, &text(9));
    lmtp.deliver(ALICE.address, &text(10));
    fill_nested_directories(&mut master.imap(&CAROL));
    alice
}

fn make_folders(alice: &mut Imap) {
    for folder in ["Archive", "Archive.2025", "Archive.2025.Q1", "Projects.Deep.Nested", "Empty", "Gone", DRAFTS] {
        alice.create(folder);
    }
    for folder in ["INBOX", "Archive", DRAFTS, "Archive.2025", "Gone", "Empty"] {
        alice.subscribe(folder);
    }
    alice.unsubscribe("Archive");
    // A folder deleted and made again has another UIDVALIDITY, and a renamed one keeps its own.
    alice.delete("Gone");
    alice.create("Gone");
    alice.create("Deleted");
    alice.delete("Deleted");
    alice.rename("Archive.2025", "Records.2025");
}

fn flag_and_file(alice: &mut Imap) {
    alice.append(DRAFTS, "\\Seen \\Flagged Old", Some("17-Jul-1996 02:44:25 -0700"), &text(11));
    alice.append(DRAFTS, "\\Draft", Some("28-Feb-2004 23:59:59 +0000"), &text(12));
    alice.select("INBOX");
    alice.store("1", "+FLAGS", "\\Seen Alpha Beta");
    alice.store("2", "+FLAGS", "\\Answered \\Flagged Gamma");
    alice.store("3,4", "+FLAGS", "\\Draft Beta");
    alice.store("1", "-FLAGS", "Alpha");
    alice.copy("4,1,3", "Archive");
    alice.copy("1", "Archive");
    alice.copy("2", "INBOX");
    alice.move_to("5", "Projects.Deep.Nested");
    alice.move_to("6", "Records.2025");
    // The same keywords get other letters here than in INBOX.
    alice.select("Archive");
    alice.store("1:*", "+FLAGS", "Gamma");
    alice.store("2", "+FLAGS", "Delta Alpha");
    // There and back again: the message has a new UID under its old name.
    alice.select("Projects.Deep.Nested");
    alice.move_to("1", "Records.2025.Q1");
    alice.select("Records.2025.Q1");
    alice.store("1", "+FLAGS", "Epsilon \\Seen");
    alice.move_to("1", "Projects.Deep.Nested");
}

/// CAROL's folders are directories in directories; `A/Only` is one that holds no mail itself.
fn fill_nested_directories(carol: &mut Imap) {
    for folder in ["A/B/C", "A/Only/Leaf", "Plain"] {
        carol.create(folder);
    }
    carol.append("A/B/C", "\\Seen One", Some("01-Jan-2000 00:00:00 +0000"), &text(13));
    carol.select("INBOX");
    carol.store("1:*", "+FLAGS", "Two One");
    carol.copy("1:2", "A/B/C");
    carol.move_to("3", "Plain");
    carol.delete("A/Only/Leaf");
    carol.subscribe("A/B/C");
}

/// Changes of every kind that bring no new content.
fn rearrange(master: &Dovecot, alice: &mut Imap) {
    // The session sees what was delivered last: from new/ to cur/.
    alice.noop();
    alice.store("1", "FLAGS", "\\Seen Zeta");
    alice.store("2:3", "+FLAGS", "\\Seen \\Answered Beta");
    alice.move_to("4", "Empty");
    alice.copy("1:2", "Records.2025");
    alice.store("3", "+FLAGS", "\\Deleted");
    alice.expunge();
    alice.rename("Projects", "Work");
    alice.rename("Records.2025", "Archive.Records");
    alice.delete("Gone");
    alice.create("Made.Later");
    alice.unsubscribe("Empty");
    alice.subscribe("Made.Later");
    let mut carol = master.imap(&CAROL);
    carol.rename("A/B", "Z");
    carol.select("Z/C");
    carol.store("1", "-FLAGS", "\\Seen");
    carol.move_to("2", "Plain");
    // What was in new/ since the delivery is looked at for the first time.
    master.imap(&BOB).select("INBOX");
}

/// New mail, between changes of the old; what came.
fn receive_more(master: &Dovecot, alice: &mut Imap) -> Vec<Vec<u8>> {
    let new = vec![text(14), text(15), text(16)];
    let mut lmtp = master.lmtp();
    // Delivered, seen and expunged between two runs: leaves nothing but a higher UIDNEXT.
    lmtp.deliver(ALICE.address, &text(17));
    alice.select("INBOX");
    alice.store("*", "+FLAGS", "\\Deleted");
    alice.expunge();
    lmtp.deliver(ALICE.address, &new[0]);
    lmtp.deliver(BOB.address, &new[1]);
    alice.append("Made.Later", "\\Flagged Alpha Zeta", Some("29-Feb-2024 12:00:00 +0530"), &new[2]);
    alice.noop();
    alice.store("1:*", "+FLAGS", "Eta");
    new
}

/// One round of changes to INBOX, and a move out of it and back.
fn change_inbox(master: &Dovecot, session: &mut Imap, round: usize) {
    let mut lmtp = master.lmtp();
    for number in 0..3 {
        lmtp.deliver(ALICE.address, &text(20 + 3 * round + number));
    }
    session.select("INBOX");
    let uids = session.uids();
    let [first, second, .., last] = uids.as_slice() else { panic!("INBOX has messages") };
    session.store(&first.to_string(), "+FLAGS", &format!("\\Flagged Round{round}"));
    session.store(&last.to_string(), "+FLAGS", "\\Answered");
    session.move_to(&second.to_string(), "Archive");
    session.copy(&last.to_string(), "Archive");
    if round % 2 == 1 {
        // More than a quarter of the folder goes: Dovecot writes its list of UIDs anew.
        let gone: Vec<String> = uids.iter().skip(2).step_by(2).map(u32::to_string).collect();
        session.store(&gone.join(","), "+FLAGS", "\\Deleted");
        session.expunge();
    }
    // The last of them stays in new/.
    lmtp.deliver(ALICE.address, &text(50 + round));
}

/// Message texts with what tends to break: 8-bit text, long lines, lone dots, attachments. Each is larger than all
/// control files together, so that one that is shipped shows in the counters.
fn text(number: usize) -> Vec<u8> {
    let header = format!(
        "From: sender{number}@example.com\r\nTo: someone@example.org\r\nSubject: number {number}\r\n\
         Message-ID: <{number}@example.com>\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    );
    let mut message = header.into_bytes();
    let filler = format!("Line of message {number}, one of many that are alike.\r\n").repeat(600);
    match number % 5 {
        0 => message.extend_from_slice(b"Content-Type: text/plain\r\n\r\n.\r\n..\r\n.hidden\r\nFrom here\r\n"),
        1 => message.extend_from_slice(
            "Content-Type: text/plain; charset=utf-8\r\n\r\nGr\u{fc}\u{df}e \u{1f4ec}\r\n".as_bytes(),
        ),
        2 => {
            message.extend_from_slice(b"Content-Type: text/plain; charset=latin1\r\n\r\nGr\xfc\xdfe, \xa3\x80\xff\r\n")
        }
        3 => message.extend_from_slice(&long_line()),
        _ => message.extend_from_slice(&attachment(number)),
    }
    message.extend_from_slice(filler.as_bytes());
    message
}

fn long_line() -> Vec<u8> {
    let mut body = b"Content-Type: text/plain\r\n\r\n".to_vec();
    body.extend((0..9000).map(|at| b'a' + (at % 26) as u8));
    body.extend_from_slice(b"\r\n\r\n\r\n");
    body
}

fn attachment(number: usize) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body =
        b"Content-Type: application/octet-stream; name=data.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_vec();
    let mut random = Random(number as u64 + 1);
    for _ in 0..1500 {
        body.extend((0..76).map(|_| DIGITS[random.below(64)]));
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// xorshift64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

// ---- what lies on the disks ----

/// Files that a killed process or a delivery in progress leaves; they must not travel.
fn plant_leftovers(mail: &Path) -> Vec<PathBuf> {
    let root = ALICE.maildir(mail);
    let names = [
        "tmp/1795340985.M1P1.host",
        "dovecot-uidlist.lock",
        "dovecot-keywords.lock",
        "dovecot.index.log.newlock",
        "dovecot-uidlist.tmp",
        "subscriptions.lock",
        "mailboxes.lock",
        "temp.1795340985.P1Q1M1.host",
        ".Archive/tmp/1795340985.M2P1.host",
        ".Archive/dovecot-uidlist.lock",
    ];
    let planted: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
    for path in &planted {
        fs::write(path, "1:host").expect("the master's mail can be written");
    }
    planted
}

fn assert_left_out(mirror: &Path, planted: &[PathBuf]) {
    let names: BTreeSet<_> = planted.iter().filter_map(|path| path.file_name()).collect();
    let mut empty_tmp = 0;
    for entry in entries(mirror) {
        let (name, path) = (entry.file_name().to_string_lossy(), entry.path());
        let rebuilt =
            ["dovecot.index", "dovecot.list.index", "dovecot.mailbox.log"].iter().any(|it| name.starts_with(it));
        let lock = name.ends_with(".lock") || name.ends_with(".newlock");
        assert!(!rebuilt && !lock && !names.contains(entry.file_name()), "{} was copied", path.display());
        assert!(path.parent().is_none_or(|parent| !parent.ends_with("tmp")), "{} was copied", path.display());
        empty_tmp += usize::from(name == "tmp");
    }
    assert!(empty_tmp >= USERS.len(), "each folder on the mirror has its tmp/, however empty");
}

/// Each set of names that one file has.
fn hard_links(mail: &Path) -> BTreeSet<BTreeSet<PathBuf>> {
    let mut names: BTreeMap<(u64, u64), BTreeSet<PathBuf>> = BTreeMap::new();
    for entry in entries(mail).filter(|entry| entry.file_type().is_file()) {
        let metadata = entry.metadata().expect("nothing changes now");
        if metadata.nlink() > 1 {
            let name = entry.path().strip_prefix(mail).expect("it is in the tree").to_owned();
            names.entry((metadata.dev(), metadata.ino())).or_default().insert(name);
        }
    }
    names.into_values().collect()
}

fn size_of_control_files(mail: &Path) -> u64 {
    let files = entries(mail).filter(|entry| entry.file_type().is_file());
    let control =
        files.filter(|entry| !is_message(entry.path()) && !entry.file_name().to_string_lossy().contains("index"));
    control.map(|entry| entry.metadata().expect("nothing changes now").len()).sum()
}

fn is_message(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("cur") || folder.ends_with("new"))
}

/// Everything in a tree but mailtwin's own state.
fn entries(tree: &Path) -> impl Iterator<Item = walkdir::DirEntry> {
    let walk = WalkDir::new(tree).into_iter().filter_entry(|entry| entry.file_name() != ".mailtwin");
    walk.map(|entry| entry.expect("the tree can be read"))
}

// ---- load ----

/// So many that one of them moves a few times a second, no more.
const WITNESSES_BEFORE: usize = 300;
/// Keeps the tree small however slow the runs are.
const WITNESSES_AT_MOST: usize = 1500;
const MOVERS: u64 = 2;
const SYNCS_UNDER_LOAD: usize = 20;
/// Where witnesses are moved to and fro.
const PLACES: [&str; 3] = ["INBOX", "Work", "Archive"];

/// What the busy threads share.
struct Load {
    stop: AtomicBool,
    changes: AtomicUsize,
    /// The session that delivers, and how many witnesses it delivered to each user. They are numbered from 0; none
    /// of them is ever expunged: they are moved, or stay.
    deliveries: Mutex<(Lmtp, usize)>,
}

impl Load {
    fn new(lmtp: Lmtp) -> Self {
        Self { stop: AtomicBool::new(false), changes: AtomicUsize::new(0), deliveries: Mutex::new((lmtp, 0)) }
    }

    fn deliver(&self) {
        let mut deliveries = self.deliveries.lock().expect("no delivery failed");
        let (lmtp, delivered) = &mut *deliveries;
        if *delivered < WITNESSES_AT_MOST {
            for user in [ALICE, BOB] {
                lmtp.deliver(user.address, &witness(*delivered));
            }
            *delivered += 1;
        }
    }

    fn delivered(&self) -> usize {
        self.deliveries.lock().expect("no delivery failed").1
    }
}

/// Ends what other threads do even if an assertion fails: their scope waits for them.
struct StopOnDrop<'flag>(&'flag AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn witness(number: usize) -> Vec<u8> {
    let header = format!("From: sender@example.com\r\nX-Witness: {number}\r\nSubject: witness {number}\r\n\r\n");
    (header + &"A line.\r\n".repeat(number % 50)).into_bytes()
}

/// Delivers, flags, moves, copies, and expunges copies, until told to stop.
fn shuffle(load: &Load, mut session: Imap, seed: u64) {
    let mut random = Random(seed);
    while !load.stop.load(Ordering::SeqCst) {
        let from = random.below(PLACES.len());
        session.select(PLACES[from]);
        let uids = session.uids();
        for _ in 0..uids.len().min(10) {
            let to = PLACES[(from + 1 + random.below(PLACES.len() - 1)) % PLACES.len()];
            // Another session may have moved it away meanwhile: granted or not, it is a try.
            session.ask(&any_change(&mut random, &uids, to));
            load.changes.fetch_add(1, Ordering::SeqCst);
        }
        load.deliver();
        if random.below(8) == 0 {
            session.select("Copies");
            session.store("1:*", "+FLAGS", "\\Deleted");
            session.expunge();
        }
    }
}

fn any_change(random: &mut Random, uids: &[u32], to: &str) -> String {
    let uid = uids[random.below(uids.len())];
    match random.below(10) {
        0..=4 => format!("UID MOVE {uid} {to}"),
        5 => format!("UID COPY {uid} Copies"),
        6 => format!("UID STORE {uid} +FLAGS (Key{})", random.below(9)),
        7 => format!("UID STORE {uid} +FLAGS (\\Seen \\Flagged)"),
        _ => format!("UID STORE {uid} FLAGS (\\Answered)"),
    }
}

/// Changes flags in one folder until told to stop: its messages are renamed all the time and never leave it.
fn change_flags(load: &Load, mut session: Imap) {
    let mut random = Random(7);
    session.select("INBOX");
    while !load.stop.load(Ordering::SeqCst) {
        session.noop();
        let uids = session.uids();
        for how in ["+FLAGS", "-FLAGS", "+FLAGS", "-FLAGS"] {
            let uid = uids[random.below(uids.len())].to_string();
            session.store(&uid, how, &format!("\\Seen Key{}", random.below(9)));
        }
    }
}

/// The witnesses of one user on the mirror, as every run so far left them.
struct Witnesses {
    maildir: PathBuf,
    folders: &'static [&'static str],
    present: BTreeSet<usize>,
    /// By folder, UIDVALIDITY and UID: a client that has seen a message under these keeps it.
    known: BTreeMap<(&'static str, String, u32), usize>,
}

impl Witnesses {
    fn of(user: &User, twin: &Twin, folders: &'static [&'static str]) -> Self {
        let maildir = user.maildir(&twin.mirror);
        Self { maildir, folders, present: BTreeSet::new(), known: BTreeMap::new() }
    }

    /// Whatever was there stays there, whole, once in its folder, and under its UID.
    fn look(&mut self, round: usize) {
        let mut present = BTreeSet::new();
        for folder in self.folders {
            let directory = self.maildir.join(folder);
            let uids = UidList::read(&directory.join("dovecot-uidlist"));
            for (base, text) in messages_by_base_name(&directory, round) {
                let witness = witness_in(&text).unwrap_or_else(|| panic!("round {round}: {folder}/{base} is torn"));
                present.insert(witness);
                // A delivery is visible before its line in the list; no client has seen it then.
                let Some(uid) = uids.of.get(&base) else {
                    continue;
                };
                let known = self.known.entry((folder, uids.validity.clone(), *uid)).or_insert(witness);
                assert_eq!(*known, witness, "round {round}: UID {uid} of {folder} is another message than before");
            }
        }
        let lost: Vec<usize> = self.present.difference(&present).copied().collect();
        assert!(lost.is_empty(), "round {round}: no more in any folder of {}: {lost:?}", self.maildir.display());
        self.present = present;
    }

    fn assert_all_there(&self, delivered: usize, round: usize) {
        let missing: Vec<usize> = (0..delivered).filter(|number| !self.present.contains(number)).collect();
        assert!(missing.is_empty(), "round {round}: not in any folder of {}: {missing:?}", self.maildir.display());
    }
}

fn messages_by_base_name(folder: &Path, round: usize) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for directory in ["cur", "new"] {
        for entry in fs::read_dir(folder.join(directory)).expect("the folder is on the mirror") {
            let entry = entry.expect("the mirror can be read");
            let name = entry.file_name().into_string().expect("Dovecot's names are ASCII");
            let base = name.split(':').next().unwrap_or_default().to_owned();
            let text = fs::read_to_string(entry.path()).expect("a witness is ASCII");
            let before = found.insert(base, text);
            assert!(before.is_none(), "round {round}: {name} is there twice in {}", folder.display());
        }
    }
    found
}

/// The number of a witness, if it is whole.
fn witness_in(text: &str) -> Option<usize> {
    let number = text.lines().find_map(|line| line.strip_prefix("X-Witness: "))?.parse().ok()?;
    let whole = text.lines().filter(|line| *line == "A line.").count() == number % 50;
    whole.then_some(number)
}

/// Dovecot's list of the UIDs of a folder.
struct UidList {
    validity: String,
    of: BTreeMap<String, u32>,
}

impl UidList {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let validity =
            header.split(' ').find_map(|field| field.strip_prefix('V')).expect("UIDVALIDITY is in the header");
        let entry = |line: &str| {
            let (fields, name) = line.split_once(" :").or_else(|| line.split_once(':'))?;
            Some((name.to_owned(), fields.split(' ').next()?.parse().ok()?))
        };
        let of = lines.map(|line| entry(line).unwrap_or_else(|| panic!("{line} in {}", path.display()))).collect();
        Self { validity: validity.to_owned(), of }
    }
}
