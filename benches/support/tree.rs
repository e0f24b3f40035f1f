//! Makes a tree as Dovecot keeps it: Maildir++ folders with `dovecot-uidlist`, `dovecot-keywords` and `subscriptions`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::mail::{Key, MailMaker};
use super::random::Random;
use super::{Doing, Outcome, say};

pub const SEED: u64 = 20_261_122;
/// The first message of a folder arrived then; an hour or so lies between two.
const FIRST_ARRIVAL: u64 = 1_690_000_000;
const HOST: &str = "imap-backend-03.example.org";
pub const FOLDERS: [&str; 10] =
    ["", ".Sent", ".Drafts", ".Trash", ".Junk", ".Invoices", ".Lists", ".Lists.Kernel", ".Projects", ".Projects.Alpha"];
pub const ARCHIVE: &str = ".Archive";
pub const KEYWORDS: &str = "0 $Forwarded\n1 NonJunk\n2 $Label1\n";

/// What messages look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Texture {
    /// A few hundred bytes: only their number counts.
    Small,
    /// Real sizes, real texts, attachments.
    Real,
}

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub users: u64,
    pub folders: u64,
    pub messages_in_folder: u64,
    /// One user more, who has everything in one folder.
    pub archive: u64,
    pub texture: Texture,
}

impl Shape {
    /// Small messages, 2,000 of each user.
    pub fn many(users: u64) -> Self {
        Self { users, folders: 10, messages_in_folder: 200, archive: 0, texture: Texture::Small }
    }

    pub fn messages(&self) -> u64 {
        self.users * self.folders * self.messages_in_folder + self.archive
    }

    /// About what the tree takes on a disk with blocks of 4 KiB.
    pub fn room(&self) -> u64 {
        let of_a_message = match self.texture {
            Texture::Small => 4_300,
            Texture::Real => 29_000,
        };
        self.messages() * of_a_message
    }

    pub fn folders(&self) -> u64 {
        self.users * self.folders + if self.archive > 0 { 2 } else { 0 }
    }
}

/// Where a user's INBOX is.
pub fn maildir(root: &Path, user: u64) -> PathBuf {
    root.join(format!("user{user:04}/Maildir"))
}

/// Makes the tree at `root`, or takes the one that an earlier run completed there.
pub fn ensure(root: &Path, shape: &Shape) -> Outcome<()> {
    let marker = root.with_extension("made");
    let description = format!("{shape:?} seed {SEED}\n");
    if fs::read_to_string(&marker).is_ok_and(|made| made == description) {
        return Ok(());
    }
    if root.exists() {
        return Err(format!("{} is not a finished tree of this shape: remove it", root.display()).into());
    }
    say(format_args!("making {} messages in {}", shape.messages(), root.display()));
    make(root, shape)?;
    fs::write(&marker, description).doing(marker.display())
}

fn make(root: &Path, shape: &Shape) -> Outcome<()> {
    let maker = MailMaker::new(SEED);
    let next_user = AtomicU64::new(0);
    let last = shape.users + u64::from(shape.archive > 0);
    let work = || -> Result<(), String> {
        loop {
            let user = next_user.fetch_add(1, Ordering::Relaxed);
            if user >= last {
                return Ok(());
            }
            make_user(root, shape, &maker, user).map_err(|error| error.to_string())?;
        }
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a tree maker does not panic"))
    })?;
    Ok(())
}

fn make_user(root: &Path, shape: &Shape, maker: &MailMaker, user: u64) -> Outcome<()> {
    let home = maildir(root, user);
    let folders: Vec<(&str, u64)> = if user < shape.users {
        FOLDERS[..shape.folders as usize].iter().map(|name| (*name, shape.messages_in_folder)).collect()
    } else {
        vec![("", 0), (ARCHIVE, shape.archive)]
    };
    for (number, (name, messages)) in folders.iter().enumerate() {
        let folder = NewFolder { path: home.join(name), user, number: number as u64, texture: shape.texture };
        folder.make(maker, *messages)?;
    }
    let validity = FIRST_ARRIVAL + folders.len() as u64;
    put(&home.join("dovecot-uidvalidity"), format!("{validity:08x}").as_bytes())?;
    put(&home.join(format!("dovecot-uidvalidity.{validity:08x}")), b"")?;
    let names =
        folders.iter().filter_map(|(name, _)| name.strip_prefix('.')).map(|name| name.replace('.', "\t") + "\n");
    put(&home.join("subscriptions"), format!("V\t2\n\n{}", names.collect::<String>()).as_bytes())
}

struct NewFolder {
    path: PathBuf,
    user: u64,
    number: u64,
    texture: Texture,
}

impl NewFolder {
    fn make(&self, maker: &MailMaker, messages: u64) -> Outcome<()> {
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir_all(self.path.join(sub)).doing(self.path.display())?;
        }
        let mut random = Random::of(&[SEED, 6, self.user, self.number]);
        let validity = FIRST_ARRIVAL + self.number;
        let mut uidlist = format!("3 V{validity} N{} G{:016x}{:016x}\n", messages + 1, random.next(), random.next());
        let mut bytes = Vec::new();
        for number in 0..messages {
            let base = self.message(maker, &mut random, number, &mut bytes)?;
            writeln!(uidlist, "{} :{base}", number + 1)?;
        }
        put(&self.path.join("dovecot-uidlist"), uidlist.as_bytes())?;
        put(&self.path.join("dovecot-keywords"), KEYWORDS.as_bytes())?;
        if self.number > 0 { put(&self.path.join("maildirfolder"), b"") } else { Ok(()) }
    }

    fn message(&self, maker: &MailMaker, random: &mut Random, number: u64, bytes: &mut Vec<u8>) -> Outcome<String> {
        let key = Key { user: self.user, folder: self.number, number };
        let arrival = FIRST_ARRIVAL + number * 3_491 + random.below(3_000) as u64;
        bytes.clear();
        match self.texture {
            Texture::Small => maker.small(key, bytes),
            Texture::Real => maker.real(key, arrival, bytes),
        }
        let microseconds = random.below(1_000_000) as u64;
        let base = base_name(arrival, microseconds, random.between(1_000, 60_000), bytes);
        let path = self.path.join(format!("cur/{base}:2,{}", flags(random)));
        let file = File::create_new(&path).doing(path.display())?;
        (&file).write_all(bytes).doing(path.display())?;
        let time = UNIX_EPOCH + Duration::from_micros(arrival * 1_000_000 + microseconds);
        file.set_modified(time).doing(path.display())?;
        Ok(base)
    }
}

/// The part of the name that stays; `W` is the size with CRLF.
pub fn base_name(seconds: u64, microseconds: u64, process: usize, bytes: &[u8]) -> String {
    let (size, lines) = (bytes.len(), bytes.iter().filter(|byte| **byte == b'\n').count());
    format!("{seconds}.M{microseconds}P{process}.{HOST},S={size},W={}", size + lines)
}

/// Flags in the order of ASCII, as Dovecot writes them; the letters a to c stand in KEYWORDS.
pub fn flags(random: &mut Random) -> String {
    let shares =
        [('D', 0.01), ('F', 0.06), ('R', 0.22), ('S', 0.85), ('T', 0.02), ('a', 0.05), ('b', 0.12), ('c', 0.03)];
    shares.iter().filter(|(_, share)| random.chance(*share)).map(|(letter, _)| letter).collect()
}

fn put(path: &Path, contents: &[u8]) -> Outcome<()> {
    fs::write(path, contents).doing(path.display())
}
