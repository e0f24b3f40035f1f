//! What mail servers and clients do all day: flags, reading, filing. Bodies never change, so none should travel.

use std::fs;
use std::path::PathBuf;

use super::Wishes;
use super::pair::{self, Measured, Pair, RSYNC};
use crate::support::folder::{self, Folder};
use crate::support::ground::Ground;
use crate::support::options::Options;
use crate::support::random::Random;
use crate::support::table::{Report, Table, grouped};
use crate::support::tools::{Run, Tools};
use crate::support::tree::{self, ARCHIVE, FOLDERS, Shape, Texture};
use crate::support::{Doing, Outcome, say};

const SEEN_IN_FOLDER: usize = 30;
const FILED_BY_USER: usize = 100;
const FILING_USERS: u64 = 10;
const UIDLISTS_ONLY: [&str; 8] = [
    "-aHz",
    "--delete",
    "--exclude=cur/",
    "--exclude=new/",
    "--exclude=tmp/",
    "--include=*/",
    "--include=dovecot-uidlist",
    "--exclude=*",
];
const FILED: &str = ".Archive.Filed";

/// The tree on which flags change and which is copied for the first time.
pub fn shape(options: &Options) -> Shape {
    let (users, archive) = (options.scaled(20), options.scaled(20_000));
    Shape { users, folders: 10, messages_in_folder: 200, archive, texture: Texture::Real }
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Flags,
    Seen,
    Rename,
    Move,
    Copy,
    Uidlist,
}

const ALL: [Work; 6] = [Work::Flags, Work::Seen, Work::Rename, Work::Move, Work::Copy, Work::Uidlist];

pub fn run(wishes: &Wishes, ground: &mut Ground, tools: &mut Tools, report: &mut Report) -> Outcome<()> {
    let options = &wishes.options;
    let wanted: Vec<Work> = ALL.into_iter().filter(|work| options.wants(work.name())).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let shape = shape(options);
    let source = ground.tree("real", &shape)?;
    let mut pair = Pair::new(ground, source, shape.room(), !wishes.rsync_only)?;
    say("making the mirrors of the tree that will change");
    pair.settle(tools)?;
    let mut table = Table::new("Changes that touch no body", &pair::HEAD);
    for work in wanted {
        pair.flags = work.rsync_flags();
        let mut row = Row { work, site: Site { root: pair.source.clone(), shape }, pair: &pair };
        row.measure(wishes, tools, report, &mut table)?;
    }
    report.tables.push(table);
    pair.retire(ground);
    Ok(())
}

struct Row<'a> {
    work: Work,
    site: Site,
    pair: &'a Pair,
}

impl Row<'_> {
    fn measure(&mut self, wishes: &Wishes, tools: &mut Tools, report: &mut Report, table: &mut Table) -> Outcome<()> {
        let options = &wishes.options;
        let title = self.work.title(&self.site.shape);
        let mut measured = Measured::new(title.clone());
        for round in 0..options.runs(5) {
            self.change(round, tools)?;
            if let Some(run) = self.pair.measure(tools, round, &mut measured)? {
                self.judge(&run, &title, report);
            }
            self.pair.check(&title, report);
        }
        if wishes.verify && self.work == Work::Flags && self.pair.mailtwin.is_some() {
            self.count_opened(options.runs(5), tools, report)?;
        }
        if self.work == Work::Copy {
            self.site.prepare(self.work, &mut Random::of(&[0]))?;
            self.pair.settle(tools)?;
        }
        measured.tabulate(self.work.goals(), table);
        Ok(())
    }

    fn change(&self, round: usize, tools: &Tools) -> Outcome<()> {
        let mut random = Random::of(&[7, self.work as u64, round as u64]);
        if self.site.prepare(self.work, &mut random)? {
            self.pair.settle(tools)?;
        }
        self.site.act(self.work, &mut random)
    }

    /// mailtwin's own account must say that no body travelled.
    fn judge(&self, run: &Run, title: &str, report: &mut Report) {
        let no_content = matches!(self.work, Work::Flags | Work::Seen | Work::Rename);
        for (name, limit) in [("messages_added", true), ("bytes_content", no_content)] {
            if limit && run.count(name) != 0 {
                report.complain(title, format_args!("mailtwin says {name} {}", run.count(name)));
            }
        }
        let problems = &run.account["problems"];
        if problems.as_array().is_none_or(|list| !list.is_empty()) {
            report.complain(title, format_args!("mailtwin had problems: {problems}"));
        }
    }

    /// One round more, under strace: which messages does mailtwin open, at either end?
    fn count_opened(&self, round: usize, tools: &mut Tools, report: &mut Report) -> Outcome<()> {
        self.change(round, tools)?;
        let calls = tools.work().join("strace");
        let strace = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2", "-o"];
        tools.under = strace.iter().map(|word| (*word).to_owned()).chain([calls.display().to_string()]).collect();
        let run = self.pair.run_mailtwin(tools);
        tools.under.clear();
        run?;
        let calls = fs::read_to_string(&calls).doing(calls.display())?;
        let of_message = |line: &&str| line.contains(",S=") && !line.contains("= -1 ") && !line.contains("O_PATH");
        let opened = calls.lines().filter(of_message).count();
        report.notes.push(format!("strace: mailtwin opened {opened} messages while it carried the flag changes."));
        if opened > 0 {
            report.complain("flags", format_args!("{opened} messages were opened"));
        }
        self.pair.settle(tools)
    }
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Flags => "flags",
            Self::Seen => "seen",
            Self::Rename => "rename",
            Self::Move => "move",
            Self::Copy => "link",
            Self::Uidlist => "uidlist",
        }
    }

    fn title(self, shape: &Shape) -> String {
        let (messages, small) = (shape.messages(), shape.users * shape.folders);
        match self {
            Self::Flags => format!("flags of 10 % of {} messages changed", grouped(messages)),
            Self::Seen => format!("`new/` to `cur/` of {}", grouped(small * SEEN_IN_FOLDER as u64)),
            Self::Rename => format!("a folder with {} messages renamed", grouped(shape.archive)),
            Self::Move => format!("{} messages moved between folders", grouped(filed(shape))),
            Self::Copy => format!("{} messages copied (hard links)", grouped(filed(shape))),
            Self::Uidlist => {
                format!(
                    "one line appended to each of {small} `dovecot-uidlist` (rsync with -z and told to look at nothing else)"
                )
            }
        }
    }

    /// rsync lists the whole tree before it sends a byte. That is measured elsewhere: for the deltas of control files alone
    /// it is told to look at nothing else and to compress, which is the best that it can do.
    fn rsync_flags(self) -> &'static [&'static str] {
        match self {
            Self::Uidlist => &UIDLISTS_ONLY,
            _ => &RSYNC,
        }
    }

    fn goals(self) -> [&'static str; 2] {
        match self {
            Self::Flags => ["5 times faster", "under 1 MB, no body"],
            Self::Uidlist => ["", "no more than rsync"],
            _ => ["", "no body"],
        }
    }
}

fn filed(shape: &Shape) -> u64 {
    shape.users.min(FILING_USERS) * FILED_BY_USER as u64
}

/// The source, and what is done to it.
struct Site {
    root: PathBuf,
    shape: Shape,
}

impl Site {
    fn folder(&self, user: u64, name: &str) -> Folder {
        Folder::new(tree::maildir(&self.root, user).join(name))
    }

    /// The folders of the users who have ten.
    fn small(&self) -> impl Iterator<Item = Folder> + '_ {
        (0..self.shape.users).flat_map(move |user| FOLDERS.iter().map(move |name| self.folder(user, name)))
    }

    fn filing_users(&self) -> std::ops::Range<u64> {
        0..self.shape.users.min(FILING_USERS)
    }

    /// Brings about what the work starts from; says whether anything was to do.
    fn prepare(&self, work: Work, random: &mut Random) -> Outcome<bool> {
        match work {
            Work::Seen => self.small().try_for_each(|folder| folder.unsee(SEEN_IN_FOLDER, random))?,
            Work::Copy => self.filing_users().try_for_each(|user| self.folder(user, ".Projects").expunge_copies())?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn act(&self, work: Work, random: &mut Random) -> Outcome<()> {
        match work {
            Work::Flags => self.change_flags(random),
            Work::Seen => self.small().try_for_each(|folder| folder.see()),
            Work::Rename => self.rename_archive(),
            Work::Move => self.filing_users().try_for_each(|user| self.move_messages(user, random)),
            Work::Copy => self.filing_users().try_for_each(|user| {
                self.folder(user, ".Invoices").copy_to(&self.folder(user, ".Projects"), FILED_BY_USER, random)
            }),
            Work::Uidlist => self.small().try_for_each(|folder| folder.append_to_uidlist(random)),
        }
    }

    fn change_flags(&self, random: &mut Random) -> Outcome<()> {
        let mut messages = Vec::new();
        for folder in self.small().chain([self.archive()]).map(std::rc::Rc::new) {
            let names = folder.names("cur")?;
            messages.extend(names.into_iter().map(|name| (folder.clone(), name)));
        }
        let share = messages.len() / 10;
        for (folder, name) in random.sample(&mut messages, share) {
            folder.change_flags(name, random)?;
        }
        Ok(())
    }

    /// The large folder, under the name that it has just now.
    fn archive(&self) -> Folder {
        let folder = self.folder(self.shape.users, ARCHIVE);
        if folder.path.exists() { folder } else { self.folder(self.shape.users, FILED) }
    }

    fn rename_archive(&self) -> Outcome<()> {
        let folder = self.archive();
        let other = if folder.path.ends_with(ARCHIVE) { FILED } else { ARCHIVE };
        folder::rename(&folder.path, &self.folder(self.shape.users, other).path)
    }

    /// From the fuller of two folders to the other one.
    fn move_messages(&self, user: u64, random: &mut Random) -> Outcome<()> {
        let (one, other) = (self.folder(user, ".Lists"), self.folder(user, ".Lists.Kernel"));
        if one.names("cur")?.len() >= other.names("cur")?.len() {
            one.move_to(&other, FILED_BY_USER, random)
        } else {
            other.move_to(&one, FILED_BY_USER, random)
        }
    }
}
