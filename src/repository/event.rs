//! What happened to messages: a batch, or the way from one point to the next, as its net effect.
//!
//! Pure. A change of flags is a rename, a move between folders a rename or a link and a removal; what stood at each path
//! before and after tells which. A message is known by its folder and base name.

use super::record::{Record, What};
use crate::id::Position;
use crate::maildir::entry::{Meta, Time};
use crate::maildir::{folder, name};
use crate::path::TreePath;
use std::collections::{BTreeMap, HashMap};

/// What stands at a path, if anything does.
pub type State = Option<(Meta, What)>;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It came, from nowhere that is known.
    Delivered,
    /// It came as one more name of this message, or as a copy of it.
    Copied(TreePath),
    /// It was here before: other flags, `new/` to `cur/`, or another folder.
    Renamed {
        /// Where it was.
        from: TreePath,
        /// A directory above it was renamed.
        with_directory: bool,
    },
    /// Another content stands under its name.
    Replaced,
    /// It went, to nowhere that is known.
    Removed,
}

/// An event of one message, and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// What happened.
    pub event: Event,
    /// The message after it; of one that was removed, as it last was.
    pub record: Record,
    /// When the slave wrote the batch.
    pub moment: Time,
    /// The batch; `None` for what was found changed on the mirror itself.
    pub position: Option<Position>,
    /// The segment of the log: mostly, what one run brought.
    pub segment: u64,
}

/// Whether a message can be at this path.
pub fn can_be_message(path: &TreePath) -> bool {
    folder::holds_messages(path.parent().name())
}

/// The folder that a message is in.
pub fn folder_of(path: &TreePath) -> TreePath {
    path.parent().parent()
}

/// Length and the first bytes of the digest of a file's content.
pub fn content_of(state: &State) -> Option<(u64, [u8; 8])> {
    match state {
        Some((_, What::File { size, check, .. })) => Some((*size, *check)),
        _ => None,
    }
}

/// Where the names came from that changes of a batch gave: by rename or link, and whether with their directory.
pub type Sources = HashMap<TreePath, (TreePath, bool)>;

/// Renames of renames that are followed.
const LINKS: usize = 16;

/// The net effect on messages: of each path that was touched, what stood there before and what does after.
pub fn events(touched: Vec<(TreePath, State, State)>, sources: &Sources) -> Vec<(Event, Record)> {
    let mut gone = Gone::default();
    let (mut came, mut events) = (Vec::new(), Vec::new());
    for (path, before, after) in touched {
        match (content_of(&before), content_of(&after)) {
            (None, None) => {}
            (Some(_), None) => gone.add(path, before),
            (None, Some(_)) => came.push(Record { path, state: after }),
            (was, is) if was != is => events.push((Event::Replaced, Record { path, state: after })),
            _ => {}
        }
    }
    // The changes themselves know best; what they do not tell is guessed by the names.
    let mut unknown = Vec::new();
    for record in came {
        match source_of(&record, sources, &gone) {
            Some((from, with_directory)) if gone.take(&from) => {
                events.push((Event::Renamed { from, with_directory }, record));
            }
            source => unknown.push((record, source)),
        }
    }
    let mut strangers = Vec::new();
    for (record, source) in unknown {
        match gone.namesake(&record, true) {
            Some(from) => events.push((Event::Renamed { from, with_directory: false }, record)),
            None => strangers.push((record, source)),
        }
    }
    for (record, source) in strangers {
        let event = match (source, gone.namesake(&record, false)) {
            (_, Some(from)) => Event::Renamed { from, with_directory: false },
            (Some((from, _)), None) => Event::Copied(from),
            (None, None) => Event::Delivered,
        };
        events.push((event, record));
    }
    events.extend(gone.states.into_iter().map(|(path, state)| (Event::Removed, Record { path, state })));
    events
}

/// The name that a message had before the batch, as far as the changes tell.
fn source_of(record: &Record, sources: &Sources, gone: &Gone) -> Option<(TreePath, bool)> {
    let mut source = sources.get(&record.path)?.clone();
    for _ in 0..LINKS {
        if gone.states.contains_key(&source.0) {
            break;
        }
        match sources.get(&source.0) {
            Some((before, with_directory)) => source = (before.clone(), source.1 || *with_directory),
            None => break,
        }
    }
    Some(source)
}

/// Messages that are not where they were.
#[derive(Default)]
struct Gone {
    states: BTreeMap<TreePath, State>,
    by_base: HashMap<Vec<u8>, Vec<TreePath>>,
}

impl Gone {
    fn add(&mut self, path: TreePath, state: State) {
        self.by_base.entry(name::base(path.name()).to_vec()).or_default().push(path.clone());
        self.states.insert(path, state);
    }

    fn take(&mut self, path: &TreePath) -> bool {
        self.states.remove(path).is_some()
    }

    /// One with the base name of a message that came, out of the same folder, or with the same content out of any.
    fn namesake(&mut self, record: &Record, in_its_folder: bool) -> Option<TreePath> {
        let content = content_of(&record.state);
        let folder = folder_of(&record.path);
        let is_it = |path: &&TreePath| match self.states.get(*path) {
            Some(_) if in_its_folder => folder_of(path) == folder,
            Some(state) => content_of(state) == content,
            None => false,
        };
        let found = self.by_base.get(name::base(record.path.name()))?.iter().find(is_it).cloned()?;
        self.states.remove(&found);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a path")
    }

    fn message(content: u8) -> State {
        let what = What::File { size: 1, group: 0, check: [content; 8], place: None, envelope: None };
        Some((Meta::default(), what))
    }

    fn told(touched: &[(&str, State, State)], sources: &[(&str, &str)]) -> Vec<(Event, String)> {
        let touched = touched.iter().map(|(at, before, after)| (path(at), before.clone(), after.clone())).collect();
        let sources = sources.iter().map(|(to, from)| (path(to), (path(from), false))).collect();
        let mut told: Vec<(Event, String)> =
            events(touched, &sources).into_iter().map(|(event, record)| (event, record.path.to_string())).collect();
        told.sort_by(|one, other| one.1.cmp(&other.1));
        told
    }

    fn renamed(from: &str, to: &str) -> (Event, String) {
        (Event::Renamed { from: path(from), with_directory: false }, to.to_owned())
    }

    #[test]
    fn flags_and_moves_are_renames_whatever_changes_brought_them() {
        let flags = [("cur/1.x:2,", message(1), None), ("cur/1.x:2,S", None, message(1))];
        let wanted = [renamed("cur/1.x:2,", "cur/1.x:2,S")];
        assert_eq!(told(&flags, &[("cur/1.x:2,S", "cur/1.x:2,")]), wanted);
        assert_eq!(told(&flags, &[]), wanted);
        let moved = [("new/1.x", message(1), None), (".A/cur/1.x:2,S", None, message(1))];
        assert_eq!(told(&moved, &[]), [renamed("new/1.x", ".A/cur/1.x:2,S")]);
        // By way of a third name.
        let chain = [(".A/cur/1.x:2,S", "cur/1.x:2,S"), ("cur/1.x:2,S", "new/1.x")];
        assert_eq!(told(&moved, &chain), [renamed("new/1.x", ".A/cur/1.x:2,S")]);
    }

    #[test]
    fn what_has_another_content_did_not_come_from_another_folder() {
        let touched = [("cur/1:2,", message(1), None), (".A/cur/1:2,", None, message(2))];
        let wanted = [(Event::Delivered, ".A/cur/1:2,".to_owned()), (Event::Removed, "cur/1:2,".to_owned())];
        assert_eq!(told(&touched, &[]), wanted);
        let replaced = [("cur/1:2,", message(1), message(2))];
        assert_eq!(told(&replaced, &[]), [(Event::Replaced, "cur/1:2,".to_owned())]);
    }

    #[test]
    fn a_copy_leaves_what_it_is_of() {
        let touched = [(".A/cur/1:2,", None, message(1))];
        let wanted = [(Event::Copied(path("cur/1:2,")), ".A/cur/1:2,".to_owned())];
        assert_eq!(told(&touched, &[(".A/cur/1:2,", "cur/1:2,")]), wanted);
        // Linked and removed in one batch: moved, though under another base name.
        let touched = [(".A/cur/2:2,", None, message(1)), ("cur/1:2,", message(1), None)];
        assert_eq!(told(&touched, &[(".A/cur/2:2,", "cur/1:2,")]), [renamed("cur/1:2,", ".A/cur/2:2,")]);
    }

    #[test]
    fn one_that_stayed_in_its_folder_is_preferred_to_one_that_left() {
        let touched = [
            ("cur/1:2,", message(1), None),
            (".A/cur/1:2,", message(1), None),
            (".A/cur/1:2,S", None, message(1)),
            (".B/cur/1:2,", None, message(1)),
        ];
        let wanted = [renamed(".A/cur/1:2,", ".A/cur/1:2,S"), renamed("cur/1:2,", ".B/cur/1:2,")];
        assert_eq!(told(&touched, &[]), wanted);
    }
}
