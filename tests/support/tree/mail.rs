//! Trees of mail, and what a mail server does to them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Numbers that look random and are the same on every run (splitmix64).
#[derive(Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence that belongs to `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit.max(1) as u64) as usize
    }
}

/// Bytes that no compression makes smaller, so that what travels can be measured.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Numbers::seeded(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| numbers.draw().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

const WORDS: [&str; 16] = [
    "the", "meeting", "is", "moved", "to", "Tuesday", "please", "find", "attached", "our", "offer", "of", "last",
    "week", "regards", "and",
];

/// A message of about `length` bytes, like no other and as compressible as mail is.
pub fn letter(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Numbers::seeded(seed ^ 0x6d61_696c);
    let mut text = format!(
        "Return-Path: <sender{seed}@example.org>\nFrom: Sender <sender{seed}@example.org>\n\
         To: reader@example.org\nSubject: letter {seed}\nMessage-ID: <{seed}.{}@example.org>\n\n",
        numbers.draw()
    );
    while text.len() < length {
        text.push_str(WORDS[numbers.below(WORDS.len())]);
        text.push(if numbers.below(12) == 0 { '\n' } else { ' ' });
    }
    text.push('\n');
    text.into_bytes()
}

/// Sets the modification time to a moment of `nanoseconds` after `seconds` of 1970.
pub fn set_modified(path: &Path, seconds: u64, nanoseconds: u32) {
    let moment = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    let opened = File::open(path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    opened
        .set_times(FileTimes::new().set_modified(moment))
        .unwrap_or_else(|error| panic!("cannot set the time of {}: {error}", path.display()));
}

/// Sets the permission bits.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("chmod {}: {error}", path.display()));
}

/// Appends in place, as Dovecot does to a uidlist.
pub fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    File::options()
        .append(true)
        .open(path)
        .and_then(|mut opened| opened.write_all(bytes))
        .unwrap_or_else(|error| panic!("cannot append to {}: {error}", path.display()));
}

/// Replaces by a rename, as Dovecot does when it rewrites a control file.
pub fn replace(path: &Path, bytes: &[u8]) {
    let draft = path.with_extension("tmp");
    fs::write(&draft, bytes).unwrap_or_else(|error| panic!("cannot write {}: {error}", draft.display()));
    rename(&draft, path);
}

/// Renames, or says which name could not be.
pub fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap_or_else(|error| panic!("{from:?} -> {to:?}: {error}"));
}

/// The names in a directory, sorted.
pub fn names_in(directory: &Path) -> Vec<OsString> {
    let listing =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
    let names: BTreeSet<OsString> = listing.map(|entry| entry.expect("an entry").file_name()).collect();
    names.into_iter().collect()
}

/// The part of a message's name that never changes.
pub fn base_of(name: &OsStr) -> OsString {
    let bytes = name.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
    OsString::from_vec(bytes[..end].to_vec())
}

/// One folder: a directory with `cur/`, `new/` and `tmp/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// Makes the directories.
    pub fn create(path: &Path) -> Self {
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(path.join(part))
                .unwrap_or_else(|error| panic!("cannot make {}/{part}: {error}", path.display()));
        }
        Self(path.to_owned())
    }

    /// `cur/`.
    pub fn cur(&self) -> PathBuf {
        self.0.join("cur")
    }

    /// `new/`.
    pub fn new_dir(&self) -> PathBuf {
        self.0.join("new")
    }

    /// A file of the folder that is no message.
    pub fn control(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Delivers as Maildir asks: written in `tmp/`, renamed into `new/`.
    pub fn deliver(&self, number: u64, body: &[u8]) -> PathBuf {
        let base = format!(
            "{}.M{}P{}.mx,S={},W={}",
            1_700_000_000 + number,
            number % 999_983,
            1000 + number % 7,
            body.len(),
            body.len() + body.iter().filter(|byte| **byte == b'\n').count()
        );
        self.deliver_as(OsStr::new(&base), body)
    }

    /// Delivers under a given name.
    pub fn deliver_as(&self, name: &OsStr, body: &[u8]) -> PathBuf {
        // A name of 255 bytes leaves no room for a prefix: the draft has a name of its own.
        let draft = self.0.join("tmp/draft");
        fs::write(&draft, body).unwrap_or_else(|error| panic!("cannot write {}: {error}", draft.display()));
        set_mode(&draft, 0o600);
        let path = self.new_dir().join(name);
        rename(&draft, &path);
        path
    }

    /// Delivers, and the reader has seen it: in `cur/` with flags.
    pub fn file(&self, number: u64, flags: &str, body: &[u8]) -> PathBuf {
        self.take_in(&self.deliver(number, body), flags)
    }

    /// `new/` to `cur/`.
    pub fn take_in(&self, message: &Path, flags: &str) -> PathBuf {
        self.set_flags(message, flags)
    }

    /// Renames to other flags; a message of `new/` comes to `cur/` by that.
    pub fn set_flags(&self, message: &Path, flags: &str) -> PathBuf {
        let path = self.cur().join(flagged(message, flags));
        rename(message, &path);
        path
    }

    /// Moves a message of another folder here, under its name.
    pub fn move_in(&self, message: &Path) -> PathBuf {
        let path = self.cur().join(message.file_name().expect("a message has a name"));
        rename(message, &path);
        path
    }

    /// IMAP COPY: a hard link of the same name, by way of `tmp/`.
    pub fn link_in(&self, message: &Path) -> PathBuf {
        let name = message.file_name().expect("a message has a name");
        let draft = self.0.join("tmp/copied");
        fs::hard_link(message, &draft).unwrap_or_else(|error| panic!("cannot link {}: {error}", message.display()));
        let path = self.cur().join(name);
        rename(&draft, &path);
        path
    }

    /// The messages of `cur/` and `new/`, sorted by name.
    pub fn messages(&self) -> Vec<PathBuf> {
        let listed = |part: PathBuf| names_in(&part).into_iter().map(move |name| part.join(name)).collect::<Vec<_>>();
        let mut all = listed(self.cur());
        all.extend(listed(self.new_dir()));
        all
    }

    /// Writes a whole uidlist for what is in the folder, as a rewrite does.
    pub fn rewrite_uidlist(&self) {
        let mut text = format!("3 V1700000000 N{} G{:032x}\n", self.messages().len() + 1, guid(&self.0));
        for (index, message) in self.messages().iter().enumerate() {
            text.push_str(&uid_line(index as u64 + 1, message));
        }
        replace(&self.control("dovecot-uidlist"), text.as_bytes());
    }

    /// Appends one line to the uidlist, in place.
    pub fn append_uid(&self, uid: u64, message: &Path) {
        append(&self.control("dovecot-uidlist"), uid_line(uid, message).as_bytes());
    }

    /// Writes the keywords, as Dovecot does: a new file renamed into place.
    pub fn write_keywords(&self, keywords: &[&str]) {
        let text: String = keywords.iter().enumerate().map(|(index, keyword)| format!("{index} {keyword}\n")).collect();
        replace(&self.control("dovecot-keywords"), text.as_bytes());
    }
}

fn flagged(message: &Path, flags: &str) -> OsString {
    let mut name = base_of(message.file_name().expect("a message has a name"));
    name.push(":2,");
    name.push(flags);
    name
}

fn uid_line(uid: u64, message: &Path) -> String {
    let base = base_of(message.file_name().expect("a message has a name"));
    format!("{uid} :{}\n", base.to_string_lossy())
}

fn guid(path: &Path) -> u64 {
    path.as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Every folder beneath `root`, itself included, in the order of their paths.
pub fn folders_beneath(root: &Path) -> Vec<Folder> {
    let mut found: Vec<Folder> = walkdir::WalkDir::new(root)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_dir() && entry.path().join("cur").is_dir())
        .map(|entry| Folder(entry.into_path()))
        .collect();
    found.sort();
    found
}

/// How many messages the folders beneath `root` hold.
pub fn messages_beneath(root: &Path) -> usize {
    folders_beneath(root).iter().map(|folder| folder.messages().len()).sum()
}

/// A mailbox as Dovecot leaves it (Maildir++): an INBOX, some folders, an empty one, control files, a sieve script.
pub fn make_mailbox(root: &Path, seed: u64) {
    let folders = [("", 12), (".Sent", 5), (".Archive", 10), (".Archive.2024", 4), (".Empty", 0)];
    for (index, (name, count)) in folders.into_iter().enumerate() {
        let folder = Folder::create(&root.join(name));
        fill(&folder, seed * 1000 + index as u64 * 100, count);
    }
    fs::write(root.join("subscriptions"), "V\t2\n\nSent\nArchive\n").expect("subscriptions");
    fs::write(root.join("dovecot-uidvalidity"), "6553f100").expect("dovecot-uidvalidity");
    fs::write(root.join("dovecot-uidvalidity.6553f100"), "").expect("dovecot-uidvalidity.*");
    fs::create_dir(root.join("sieve")).expect("sieve/");
    fs::write(root.join("sieve/main.sieve"), "require \"fileinto\";\nkeep;\n").expect("sieve");
    std::os::unix::fs::symlink("sieve/main.sieve", root.join(".dovecot.sieve")).expect("link");
    settle_times(root);
}

fn fill(folder: &Folder, first: u64, count: u64) {
    for number in first..first + count {
        let body = letter(number, 300 + (number as usize * 137) % 4000);
        match number % 4 {
            0 => folder.deliver(number, &body),
            1 => folder.file(number, "", &body),
            2 => folder.file(number, "S", &body),
            _ => folder.file(number, "RSa", &body),
        };
    }
    folder.rewrite_uidlist();
    folder.write_keywords(&["$Important", "work"]);
    if folder.0.file_name().is_some_and(|name| name.as_bytes().starts_with(b".")) {
        fs::write(folder.control("maildirfolder"), "").expect("maildirfolder");
    }
}

/// Gives every file and directory a time of its own, in nanoseconds and well in the past,
/// so that a time which was not carried over cannot be equal by chance.
pub fn settle_times(root: &Path) {
    let mut seconds = 1_600_000_000;
    for entry in walkdir::WalkDir::new(root).contents_first(true).sort_by_file_name() {
        let entry = entry.expect("the tree is readable");
        seconds += 61;
        if entry.file_type().is_dir() || entry.file_type().is_file() {
            set_modified(entry.path(), seconds, (seconds % 999_999_937) as u32);
        }
    }
}

/// Several mailboxes beneath one directory, as `/var/vmail` has them.
pub fn make_vmail(root: &Path, users: u64) {
    for user in 0..users {
        let home = root.join(format!("example.org/user{user}/Maildir"));
        fs::create_dir_all(&home).expect("a home");
        make_mailbox(&home, user + 1);
    }
    settle_times(root);
}

/// A mailbox in Dovecot's `fs` layout: folders are nested directories.
pub fn make_fs_layout(root: &Path, seed: u64) {
    for (index, name) in ["", "Work", "Work/Offers", "Work/Offers/2024", "Lists"].into_iter().enumerate() {
        let folder = Folder::create(&root.join(name));
        fill(&folder, seed * 1000 + index as u64 * 100, 6);
    }
    fs::create_dir_all(root.join("NoSelect/Below")).expect("an empty directory");
    settle_times(root);
}
