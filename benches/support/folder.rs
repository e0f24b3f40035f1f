//! Changes folders as a mail server does: flags, `new/` to `cur/`, moves, copies, lines of `dovecot-uidlist`.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::random::Random;
use super::tree;
use super::{Doing, Outcome};

/// One directory with `cur/`, `new/` and `tmp/`.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Names in `cur` or `new`, sorted, so that a choice among them can be repeated.
    pub fn names(&self, sub: &str) -> Outcome<Vec<String>> {
        let directory = self.path.join(sub);
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).doing(directory.display())? {
            let name = entry.doing(directory.display())?.file_name();
            names.push(name.into_string().map_err(|name| format!("{}: not UTF-8", name.display()))?);
        }
        names.sort_unstable();
        Ok(names)
    }

    pub fn rename(&self, from: &str, to: &str) -> Outcome<()> {
        rename(&self.path.join(from), &self.path.join(to))
    }

    /// A client reads, answers or marks the message: only the letters after `:2,` change.
    pub fn change_flags(&self, name: &str, random: &mut Random) -> Outcome<String> {
        loop {
            let changed = format!("{}:2,{}", base(name), tree::flags(random));
            if changed != name {
                self.rename(&format!("cur/{name}"), &format!("cur/{changed}"))?;
                return Ok(changed);
            }
        }
    }

    /// As if `count` messages had been delivered and not been seen yet.
    pub fn unsee(&self, count: usize, random: &mut Random) -> Outcome<()> {
        for name in random.sample(&mut self.names("cur")?, count) {
            self.rename(&format!("cur/{name}"), &format!("new/{}", base(name)))?;
        }
        Ok(())
    }

    /// A client selects the folder: everything in `new/` goes to `cur/`.
    pub fn see(&self) -> Outcome<()> {
        self.names("new")?.iter().try_for_each(|name| self.rename(&format!("new/{name}"), &format!("cur/{name}:2,S")))
    }

    /// IMAP MOVE of `count` messages; both uidlists follow.
    pub fn move_to(&self, other: &Self, count: usize, random: &mut Random) -> Outcome<()> {
        let mut names = self.names("cur")?;
        let moved = random.sample(&mut names, count);
        for name in moved.iter() {
            rename(&self.path.join("cur").join(name), &other.path.join("cur").join(name))?;
        }
        other.edit_uidlist(&[], moved)?;
        self.edit_uidlist(moved, &[])
    }

    /// IMAP COPY of `count` messages: hard links under the same base name.
    pub fn copy_to(&self, other: &Self, count: usize, random: &mut Random) -> Outcome<()> {
        let mut names = self.names("cur")?;
        let copied = random.sample(&mut names, count);
        for name in copied.iter() {
            let (from, to) = (self.path.join("cur").join(name), other.path.join("cur").join(name));
            fs::hard_link(&from, &to).doing(to.display())?;
        }
        other.edit_uidlist(&[], copied)
    }

    /// Expunges every message that has a second link.
    pub fn expunge_copies(&self) -> Outcome<()> {
        let mut expunged = Vec::new();
        for name in self.names("cur")? {
            let path = self.path.join("cur").join(&name);
            if fs::symlink_metadata(&path).doing(path.display())?.nlink() > 1 {
                fs::remove_file(&path).doing(path.display())?;
                expunged.push(name);
            }
        }
        self.edit_uidlist(&expunged, &[])
    }

    /// The line of a message that came and was expunged again: such lines stay until the next rewrite.
    pub fn append_to_uidlist(&self, random: &mut Random) -> Outcome<()> {
        let path = self.path.join("dovecot-uidlist");
        let list = fs::read_to_string(&path).doing(path.display())?;
        let seconds = 1_795_000_000 + random.below(300_000) as u64;
        let name = tree::base_name(seconds, random.below(1_000_000) as u64, random.between(1_000, 60_000), &[0; 7_000]);
        let line = format!("{} :{name}\n", next_uid(&list));
        let mut file = OpenOptions::new().append(true).open(&path).doing(path.display())?;
        file.write_all(line.as_bytes()).doing(path.display())
    }

    /// Rewrites the list by rename, as Dovecot does, without the lines of `gone` and with new ones for `come`.
    pub fn edit_uidlist(&self, gone: &[String], come: &[String]) -> Outcome<()> {
        let path = self.path.join("dovecot-uidlist");
        let list = fs::read_to_string(&path).doing(path.display())?;
        let gone: HashSet<&str> = gone.iter().map(|name| base(name)).collect();
        let first_uid = next_uid(&list);
        let mut lines = list.lines();
        let mut edited = header(lines.next().unwrap_or_default(), first_uid + come.len() as u64);
        let kept = lines.filter(|line| line.split_once(" :").is_none_or(|(_, base)| !gone.contains(base)));
        kept.for_each(|line| edited.extend([line, "\n"]));
        for (uid, name) in (first_uid..).zip(come) {
            edited.push_str(&format!("{uid} :{}\n", base(name)));
        }
        let new = self.path.join("dovecot-uidlist.tmp");
        fs::write(&new, edited).doing(new.display())?;
        rename(&new, &path)
    }
}

/// The part of a message's name before `:2,`.
pub fn base(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

pub fn rename(from: &Path, to: &Path) -> Outcome<()> {
    fs::rename(from, to).doing(format_args!("{} -> {}", from.display(), to.display()))
}

/// The header with another `N`.
fn header(old: &str, next_uid: u64) -> String {
    let fields = old.split(' ').map(|field| match field.strip_prefix('N') {
        Some(_) => format!("N{next_uid}"),
        None => field.to_owned(),
    });
    fields.collect::<Vec<_>>().join(" ") + "\n"
}

/// UIDs only grow: one more than the header and the last line promise.
pub fn next_uid(list: &str) -> u64 {
    let header = list.lines().next().unwrap_or_default();
    let promised = header.split(' ').find_map(|field| field.strip_prefix('N')?.parse().ok()).unwrap_or(1);
    let last = list.lines().skip(1).last().and_then(|line| line.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    promised.max(last + 1)
}
