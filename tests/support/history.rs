//! Random histories of a mailbox: what a server and its users do, in any order.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::tree::*;

/// One thing that happens. The numbers choose among what there is at that moment, so that any part of a history
/// is a history: a failing one can be cut down to what matters.
#[derive(Clone, Debug)]
pub enum Event {
    Deliver {
        folder: u8,
        length: u16,
    },
    DeliverTheSameAgain {
        message: u16,
        to: u8,
    },
    SetFlags {
        message: u16,
        flags: u8,
    },
    Move {
        message: u16,
        to: u8,
    },
    Copy {
        message: u16,
        to: u8,
    },
    Expunge {
        message: u16,
    },
    CreateFolder {
        name: u8,
    },
    RenameFolder {
        folder: u8,
        name: u8,
    },
    DeleteFolder {
        folder: u8,
    },
    AppendUid {
        folder: u8,
    },
    RewriteUidlist {
        folder: u8,
    },
    WriteKeywords {
        folder: u8,
        count: u8,
    },
    Subscribe {
        name: u8,
    },
    TouchFolder {
        folder: u8,
        mode: bool,
    },
    Sync,
    /// The next event comes when all that happened is clearly past.
    SyncAndSettle,
}

/// Any of them, about as often as in life.
pub fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    prop_oneof![
        6 => (any::<u8>(), 0u16..6000).prop_map(|(folder, length)| Deliver { folder, length }),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(message, to)| DeliverTheSameAgain { message, to }),
        5 => (any::<u16>(), any::<u8>()).prop_map(|(message, flags)| SetFlags { message, flags }),
        4 => (any::<u16>(), any::<u8>()).prop_map(|(message, to)| Move { message, to }),
        3 => (any::<u16>(), any::<u8>()).prop_map(|(message, to)| Copy { message, to }),
        3 => any::<u16>().prop_map(|message| Expunge { message }),
        2 => (0u8..12).prop_map(|name| CreateFolder { name }),
        2 => (any::<u8>(), 0u8..12).prop_map(|(folder, name)| RenameFolder { folder, name }),
        1 => any::<u8>().prop_map(|folder| DeleteFolder { folder }),
        3 => any::<u8>().prop_map(|folder| AppendUid { folder }),
        1 => any::<u8>().prop_map(|folder| RewriteUidlist { folder }),
        1 => (any::<u8>(), 1u8..26).prop_map(|(folder, count)| WriteKeywords { folder, count }),
        1 => (0u8..12).prop_map(|name| Subscribe { name }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(folder, mode)| TouchFolder { folder, mode }),
        3 => Just(Event::Sync),
        1 => Just(Event::SyncAndSettle),
    ]
}

/// A mailbox that events happen to.
pub struct World {
    /// Its source, and the mirror.
    pub pair: Pair,
    /// Whether a cycle that brings more than what is new is a failure.
    pub is_thrifty: bool,
    nested: bool,
    /// Makes each message unlike any other.
    delivered: u64,
    /// Bytes that may have to travel since the last cycle: all else is on the mirror already.
    fresh: u64,
}

impl World {
    /// An inbox with nothing in it. Folders are directories in each other where `nested`.
    pub fn new(pair: Pair, nested: bool) -> Self {
        let inbox = Folder::create(&pair.source);
        inbox.rewrite_uidlist();
        Self { pair, is_thrifty: true, nested, delivered: 0, fresh: 200 }
    }

    fn folder_path(&self, name: u8) -> PathBuf {
        let (parent, child) = (name / 4, name % 4);
        let separator = if self.nested { "/" } else { "." };
        let lead = if self.nested { "" } else { "." };
        let text = match child {
            0 => format!("{lead}F{parent}"),
            _ => format!("{lead}F{parent}{separator}G{child}"),
        };
        self.pair.source.join(text)
    }

    fn folder(&self, which: u8) -> Folder {
        let all = folders_beneath(&self.pair.source);
        all[which as usize % all.len()].clone()
    }

    fn message(&self, which: u16) -> Option<PathBuf> {
        let all: Vec<PathBuf> = folders_beneath(&self.pair.source).iter().flat_map(Folder::messages).collect();
        (!all.is_empty()).then(|| all[which as usize % all.len()].clone())
    }

    fn control_written(&mut self, folder: &Folder, name: &str) {
        self.fresh += fs::metadata(folder.control(name)).map_or(0, |metadata| metadata.len());
    }

    /// Lets it happen.
    pub fn happen(&mut self, event: &Event) {
        match *event {
            Event::Deliver { folder, length } => self.deliver(folder, length),
            Event::DeliverTheSameAgain { message, to } => self.deliver_the_same_again(message, to),
            Event::SetFlags { message, flags } => self.set_flags(message, flags),
            Event::Move { message, to } => self.move_message(message, to),
            Event::Copy { message, to } => self.copy(message, to),
            Event::Expunge { message } => self.expunge(message),
            Event::CreateFolder { name } => self.create_folder(name),
            Event::RenameFolder { folder, name } => self.rename_folder(folder, name),
            Event::DeleteFolder { folder } => self.delete_folder(folder),
            Event::AppendUid { folder } => self.append_uid(folder),
            Event::RewriteUidlist { folder } => self.rewrite_uidlist(folder),
            Event::WriteKeywords { folder, count } => self.write_keywords(folder, count),
            Event::Subscribe { name } => self.subscribe(name),
            Event::TouchFolder { folder, mode } => self.touch(folder, mode),
            Event::Sync => self.sync(),
            Event::SyncAndSettle => self.sync_and_settle(),
        }
    }

    fn deliver(&mut self, folder: u8, length: u16) {
        self.delivered += 1;
        let body = letter(self.delivered, length as usize);
        self.fresh += body.len() as u64;
        self.folder(folder).deliver(self.delivered, &body);
    }

    fn deliver_the_same_again(&mut self, message: u16, to: u8) {
        let Some(path) = self.message(message) else {
            return;
        };
        self.delivered += 1;
        let body = fs::read(path).expect("a message");
        // Fresh all the same: what it equals may itself not have travelled yet, or go before it arrives.
        self.fresh += body.len() as u64;
        self.folder(to).deliver(self.delivered, &body);
    }

    fn set_flags(&self, message: u16, flags: u8) {
        let letters = ["", "S", "FS", "RS", "ST", "D", "Sab", "PRS", "FRSTz"];
        let Some(path) = self.message(message) else {
            return;
        };
        let folder = Folder(path.ancestors().nth(2).expect("a folder").to_owned());
        folder.set_flags(&path, letters[flags as usize % letters.len()]);
    }

    fn move_message(&self, message: u16, to: u8) {
        if let Some(path) = self.message(message) {
            let folder = self.folder(to);
            if !has_base(&folder, &path) {
                folder.move_in(&path);
            }
        }
    }

    fn copy(&self, message: u16, to: u8) {
        if let Some(path) = self.message(message) {
            let folder = self.folder(to);
            if !has_base(&folder, &path) {
                folder.link_in(&path);
            }
        }
    }

    fn expunge(&self, message: u16) {
        if let Some(path) = self.message(message) {
            fs::remove_file(path).expect("expunged");
        }
    }

    fn create_folder(&mut self, name: u8) {
        let path = self.folder_path(name);
        if !path.join("cur").exists() {
            let folder = Folder::create(&path);
            folder.rewrite_uidlist();
            self.control_written(&folder, "dovecot-uidlist");
        }
    }

    fn rename_folder(&self, which: u8, name: u8) {
        let (from, to) = (self.folder(which), self.folder_path(name));
        let inside_itself = to.starts_with(&from.0);
        if from.0 != self.pair.source && !to.exists() && !inside_itself {
            fs::create_dir_all(to.parent().expect("a parent")).expect("the parent");
            rename(&from.0, &to);
        }
    }

    fn delete_folder(&self, which: u8) {
        let folder = self.folder(which);
        if folder.0 != self.pair.source {
            fs::remove_dir_all(&folder.0).expect("the folder is deleted");
        }
    }

    fn append_uid(&mut self, folder: u8) {
        let folder = self.folder(folder);
        if folder.control("dovecot-uidlist").exists() {
            self.delivered += 1;
            folder.append_uid(self.delivered, &folder.new_dir().join("1.M1P1.mx"));
            self.control_written(&folder, "dovecot-uidlist");
        }
    }

    fn rewrite_uidlist(&mut self, folder: u8) {
        let folder = self.folder(folder);
        folder.rewrite_uidlist();
        self.control_written(&folder, "dovecot-uidlist");
    }

    fn write_keywords(&mut self, folder: u8, count: u8) {
        let keywords: Vec<String> = (0..count).map(|number| format!("keyword{number}")).collect();
        let borrowed: Vec<&str> = keywords.iter().map(String::as_str).collect();
        let folder = self.folder(folder);
        folder.write_keywords(&borrowed);
        self.control_written(&folder, "dovecot-keywords");
    }

    fn subscribe(&mut self, name: u8) {
        let path = self.pair.source.join("subscriptions");
        let before = fs::read_to_string(&path).unwrap_or_default();
        let text = format!("{before}F{name}\n");
        self.fresh += text.len() as u64;
        replace(&path, text.as_bytes());
    }

    fn touch(&self, which: u8, mode: bool) {
        let folder = self.folder(which);
        if mode {
            set_mode(&folder.cur(), 0o750);
        } else {
            set_modified(&folder.0, 1_500_000_000, 42);
        }
    }

    /// A cycle, which must bring no more than what is new.
    pub fn sync(&mut self) {
        let report = self.pair.sync(&UNGUARDED);
        self.confirm(&report);
    }

    fn sync_and_settle(&mut self) {
        let report = self.pair.sync_and_settle();
        self.confirm(&report);
    }

    fn confirm(&mut self, report: &Report) {
        assert_mirrored(&self.pair);
        let brought = report.count("bytes_content");
        assert!(!self.is_thrifty || brought <= self.fresh, "{} bytes at most were new: {}", self.fresh, report.0);
        self.fresh = 0;
    }
}

/// Whether the folder has a message of that name; a server would then choose another.
fn has_base(folder: &Folder, message: &Path) -> bool {
    let base = base_of(message.file_name().expect("a name"));
    folder.messages().iter().any(|there| base_of(there.file_name().expect("a name")) == base)
}
