//! The messages of a session, each validated as it is decoded.
//!
//! ```text
//! master                                slave
//!   Hello  ------------------------------>        who I am, where I stand, what I want
//!          <------------------------------ Welcome  where the slave stands
//!   Compare ----------------------------->        only where the digests differ
//!          <---------------- Digests ... Digests   each directory and its digest
//!   Fetch  ------------------------------>        the records of those that differ
//!          <---------------------- Row ... Row
//!   Block*, Changes*, Commit  ----------->        a batch: contents, what to do, its end
//!          <------------------------------ Ack      durable up to here
//!   Finish ------------------------------>
//!          <------------------------------ Done     applied; digest and problems
//! ```
//!
//! Either end may send `Ping` at any time (it means nothing but life) and `Refuse` instead of an answer.
//!
//! A restore into an empty directory speaks the same, from a restore point in the place of a master's tree: the Hello
//! says so, and after Done comes
//!
//! ```text
//!   Release ----------------------------->        nothing is missing: your state may go
//!          <------------------------------ Done     it has gone
//! ```

use super::frame::{Frame, FrameError};
use crate::id::{Digest, Epoch, Position, SetId};
use crate::maildir::change::Change;
use crate::maildir::entry::{Entry, Meta, Time};
use crate::maildir::folder::SetKind;
use crate::monitor::Problem;
use crate::path::TreePath;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The protocol that this program speaks.
pub const VERSION: u16 = 2;

/// The oldest protocol that it still understands.
pub const MINIMUM: u16 = 1;

/// The first protocol that has restores.
const RESTORES: u16 = 2;

/// Longest text that says what is restored.
const MAX_WHAT: usize = 65_536;

/// Kind byte of a block; its payload is [`super::block::Block`]'s.
pub const BLOCK: u8 = 3;

/// Kind byte of a sign of life.
pub const PING: u8 = 14;

/// Most directories in one list of digests or fetches.
pub const MAX_LIST: usize = 8192;

/// What the master says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the program, for messages to people.
    pub program: String,
    /// The set; `None` where the master has no record of it.
    pub set: Option<SetId>,
    /// The master's epoch.
    pub epoch: Epoch,
    /// The last batch that the slave acknowledged, by the master's record.
    pub position: Position,
    /// Root digest of the master's catalogue.
    pub root: Digest,
    /// Kind of tree.
    pub kind: SetKind,
    /// The directory that becomes the mirror, as the user wrote it.
    #[serde(with = "serde_bytes")]
    pub destination: Vec<u8>,
    /// Where the slave keeps its state; `None` for `.mailtwin` in the mirror.
    pub state: Option<serde_bytes::ByteBuf>,
    /// Write nothing.
    pub dry_run: bool,
    /// Read every content of the mirror again.
    pub checksum: bool,
    /// The filter lines, in order.
    pub filters: Vec<String>,
    /// Digest of the running kernel's boot id: whether both ends are on one host.
    pub boot: Digest,
    /// Device and inode numbers of the source and of the directories above it.
    pub ancestry: Vec<(u64, u64)>,
    /// This is no replication but a restore. It stands behind the rest, where protocol 1 has nothing.
    #[serde(skip)]
    pub restore: Option<Restoring>,
}

/// A restore into an empty directory, or into one that holds the beginning of the same restore. The source is the standby
/// that has the restore points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// What is restored: the same words mean the same restore.
    pub what: String,
    /// The time that the directory itself is to have in the end.
    pub mtime: Option<Time>,
}

/// What the slave answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name and version of the program.
    pub program: String,
    /// The set that the slave holds; `None` where it holds none yet.
    pub set: Option<SetId>,
    /// The epoch that it follows.
    pub epoch: Epoch,
    /// The last batch that it has.
    pub position: Position,
    /// Root digest of its catalogue, which was held against the mirror.
    pub root: Digest,
    /// Messages in the mirror.
    pub messages: u64,
    /// Directories that were listed to know the mirror.
    pub directories_read: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A directory's record, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which directory.
    pub path: TreePath,
    /// Its metadata.
    pub meta: Meta,
    /// What is in it, in order of name.
    pub entries: Vec<Entry>,
    /// More of the same directory follows.
    pub more: bool,
}

/// Everything that was asked for has been applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The last batch applied.
    pub position: Position,
    /// Root digest of the slave's catalogue.
    pub root: Digest,
    /// What could not be done in the mirror.
    pub problems: Vec<Problem>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Why an end does not go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The exit code that the program should end with.
    pub code: u8,
    /// One sentence for a person.
    pub sentence: String,
}

/// A message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the drawing above and the types inside say it")]
pub enum Message {
    Hello(Hello),
    Welcome(Welcome),
    /// A block's payload, see [`super::block::Block`].
    Block(Vec<u8>),
    Changes(Vec<Change>),
    /// The batch is complete: its position, and how many changes it has.
    Commit(Position, u64),
    Ack(Position),
    Finish,
    Done(Done),
    Compare,
    /// Directories with their digests, in catalogue order, and whether these were the last.
    Digests(Vec<(TreePath, Digest)>, bool),
    Fetch(Vec<TreePath>),
    Row(Row),
    Refuse(Refusal),
    Ping,
    /// Everything that is restored is there, and the far end's state goes.
    Release,
}

/// Why a frame is not a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The frame itself.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A kind that this version does not know.
    #[error("a message of the unknown kind {0}")]
    Kind(u8),
    /// The payload does not decode, or breaks a rule.
    #[error("a malformed message of kind {0}: {1}")]
    Malformed(u8, String),
    /// The other end speaks a protocol that this one does not.
    #[error(
        "the other end speaks protocol {theirs} (at least {minimum}), this one {VERSION}: install the same mailtwin on both hosts"
    )]
    Version {
        /// Theirs.
        theirs: u16,
        /// The oldest that they understand.
        minimum: u16,
    },
}

impl Message {
    /// Packs the message.
    ///
    /// # Errors
    /// Only when memory ends.
    pub fn frame(&self) -> Result<Frame, MessageError> {
        Ok(match self {
            Self::Hello(hello) => Frame::plain(1, greeting(hello)?),
            Self::Welcome(welcome) => Frame::plain(2, with_version(MINIMUM, welcome)?),
            Self::Block(payload) => Frame::plain(BLOCK, payload.clone()),
            Self::Changes(changes) => Frame::compressed(4, encode(4, changes)?),
            Self::Commit(position, count) => Frame::plain(5, encode(5, &(position, count))?),
            Self::Ack(position) => Frame::plain(6, encode(6, position)?),
            Self::Finish => Frame::plain(7, Vec::new()),
            Self::Done(done) => Frame::compressed(8, encode(8, done)?),
            Self::Compare => Frame::plain(9, Vec::new()),
            Self::Digests(rows, last) => Frame::compressed(10, encode(10, &(rows, last))?),
            Self::Fetch(paths) => Frame::compressed(11, encode(11, paths)?),
            Self::Row(row) => Frame::compressed(12, encode(12, row)?),
            Self::Refuse(refusal) => Frame::plain(13, encode(13, refusal)?),
            Self::Ping => Frame::plain(PING, Vec::new()),
            Self::Release => Frame::plain(15, Vec::new()),
        })
    }

    /// Unpacks and validates a frame.
    ///
    /// # Errors
    /// [`MessageError`]; nothing of a malformed message is used.
    pub fn parse(frame: &Frame) -> Result<Self, MessageError> {
        let payload = frame.payload()?;
        let kind = frame.kind;
        Ok(match kind {
            1 => Self::Hello(greeted(check_version(&payload)?)?),
            2 => Self::Welcome(decode(kind, check_version(&payload)?)?),
            BLOCK => Self::Block(payload.into_owned()),
            4 => Self::Changes(valid_changes(decode(kind, &payload)?)?),
            5 => decode(kind, &payload).map(|(position, count)| Self::Commit(position, count))?,
            6 => Self::Ack(decode(kind, &payload)?),
            7 => Self::Finish,
            8 => Self::Done(decode(kind, &payload)?),
            9 => Self::Compare,
            10 => {
                let (rows, last): (Vec<_>, bool) = decode(kind, &payload)?;
                Self::Digests(limited(kind, rows)?, last)
            }
            11 => Self::Fetch(limited(kind, decode(kind, &payload)?)?),
            12 => Self::Row(decode(kind, &payload)?),
            13 => Self::Refuse(decode(kind, &payload)?),
            PING => Self::Ping,
            15 => Self::Release,
            kind => return Err(MessageError::Kind(kind)),
        })
    }
}

fn encode<T: Serialize>(kind: u8, value: &T) -> Result<Vec<u8>, MessageError> {
    postcard::to_stdvec(value).map_err(|error| MessageError::Malformed(kind, error.to_string()))
}

fn decode<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, MessageError> {
    let malformed = |reason: String| MessageError::Malformed(kind, reason);
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(malformed(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(malformed(error.to_string())),
    }
}

fn limited<T>(kind: u8, list: Vec<T>) -> Result<Vec<T>, MessageError> {
    match list.len() <= MAX_LIST {
        true => Ok(list),
        false => Err(MessageError::Malformed(kind, format!("a list of {} directories", list.len()))),
    }
}

/// The first four bytes of a greeting never change their meaning: version and minimum.
fn with_version<T: Serialize>(minimum: u16, value: &T) -> Result<Vec<u8>, MessageError> {
    let mut payload = Vec::from(VERSION.to_le_bytes());
    payload.extend_from_slice(&minimum.to_le_bytes());
    payload.extend_from_slice(&encode(1, value)?);
    Ok(payload)
}

/// An end that knows no restores refuses one by the number.
fn greeting(hello: &Hello) -> Result<Vec<u8>, MessageError> {
    let Some(restore) = &hello.restore else { return with_version(MINIMUM, hello) };
    let mut payload = with_version(RESTORES, hello)?;
    payload.extend_from_slice(&encode(1, restore)?);
    Ok(payload)
}

fn greeted(payload: &[u8]) -> Result<Hello, MessageError> {
    let malformed = |reason: String| MessageError::Malformed(1, reason);
    let (hello, rest): (Hello, _) = postcard::take_from_bytes(payload).map_err(|error| malformed(error.to_string()))?;
    if rest.is_empty() {
        return Ok(hello);
    }
    let restore: Restoring = decode(1, rest)?;
    match restore.what.len() <= MAX_WHAT && restore.mtime.is_none_or(|mtime| mtime.is_valid()) {
        true => Ok(Hello { restore: Some(restore), ..hello }),
        false => Err(malformed("a restore that cannot be".to_owned())),
    }
}

fn check_version(payload: &[u8]) -> Result<&[u8], MessageError> {
    let [a, b, c, d, rest @ ..] = payload else {
        return Err(MessageError::Malformed(1, "no version".into()));
    };
    let (theirs, minimum) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
    match theirs >= MINIMUM && minimum <= VERSION {
        true => Ok(rest),
        false => Err(MessageError::Version { theirs, minimum }),
    }
}

/// What the types cannot say: times, modes, self-references.
fn valid_changes(changes: Vec<Change>) -> Result<Vec<Change>, MessageError> {
    match changes.iter().all(is_valid) {
        true => Ok(changes),
        false => Err(MessageError::Malformed(4, "a change that cannot be".into())),
    }
}

fn is_valid(change: &Change) -> bool {
    use Change::*;
    let below_root = !change.path().is_root();
    match change {
        MakeDirectory { meta, .. } => is_valid_meta(meta),
        Put { meta, .. } | SetMeta { meta, .. } => below_root && is_valid_meta(meta),
        Symlink { meta, target, .. } => {
            let length_is_possible = !target.is_empty() && target.len() < 4096;
            below_root && is_valid_meta(meta) && length_is_possible && !target.contains(&0)
        }
        Link { path, existing, mark, .. } => {
            below_root && path != existing && !existing.is_root() && mark.mtime.is_valid()
        }
        Rename { from, to, mark } => below_root && from != to && !from.is_root() && mark.mtime.is_valid(),
        RenameDirectory { from, to } => below_root && !from.is_root() && !to.is_within(from) && !from.is_within(to),
        RemoveDirectory { .. } | Forget { .. } => below_root,
        Remove { mark, .. } => below_root && mark.mtime.is_valid(),
    }
}

fn is_valid_meta(meta: &Meta) -> bool {
    let no_nul = |name: &[u8]| !name.is_empty() && name.len() <= 255 && !name.contains(&0);
    meta.mode & !0o7777 == 0
        && meta.mtime.is_none_or(|mtime| mtime.is_valid())
        && meta.xattrs.iter().all(|xattr| no_nul(&xattr.name) && xattr.value.len() <= 65_536)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::entry::{Mark, Time};

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a good path")
    }

    fn back(message: &Message) -> Result<Message, MessageError> {
        Message::parse(&message.frame().expect("packs"))
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let rename = Change::Rename { from: path("new/1"), to: path("cur/1:2,S"), mark: Mark::default() };
        for message in [
            Message::Changes(vec![rename.clone(); 500]),
            Message::Commit(Position { epoch: 1, sequence: 2 }, 7),
            Message::Digests(vec![(path("a"), Digest::of(b"a"))], true),
            Message::Finish,
            Message::Ping,
        ] {
            assert_eq!(back(&message).expect("parses"), message);
        }
    }

    #[test]
    fn changes_that_cannot_be_are_refused() {
        let bad_time = Mark { size: 0, mtime: Time { seconds: 0, nanos: 2_000_000_000 } };
        for change in [
            Change::Rename { from: path("a"), to: path("a"), mark: Mark::default() },
            Change::Remove { path: TreePath::root(), mark: Mark::default() },
            Change::Remove { path: path("a"), mark: bad_time },
            Change::RenameDirectory { from: path("a"), to: path("a/b") },
            Change::SetMeta { path: path("a"), meta: Meta { mode: 0o100_644, ..Meta::default() }, group: 0 },
            Change::Symlink { path: path("a"), meta: Meta::default(), target: b"x\0".to_vec() },
        ] {
            assert!(back(&Message::Changes(vec![change.clone()])).is_err(), "{change:?}");
        }
    }

    #[test]
    fn another_version_is_said_by_number() {
        let frame = Frame::plain(2, vec![9, 0, 8, 0, 1, 2, 3]);
        let error = Message::parse(&frame).expect_err("too new").to_string();
        assert!(error.contains("protocol 9 (at least 8)"), "{error}");
    }

    fn hello() -> Hello {
        Hello {
            program: "mailtwin".into(),
            set: None,
            epoch: Epoch::default(),
            position: Position::default(),
            root: Digest::default(),
            kind: SetKind::Maildir,
            destination: b"/srv".to_vec(),
            state: None,
            dry_run: false,
            checksum: false,
            filters: vec!["*.bak".into()],
            boot: Digest::default(),
            ancestry: vec![(1, 2)],
            restore: None,
        }
    }

    #[test]
    fn a_greeting_of_replication_is_that_of_protocol_1_and_one_of_a_restore_asks_for_2() {
        let payload = Message::Hello(hello()).frame().expect("packs").parts().1.to_vec();
        assert_eq!(payload[..4], [2, 0, 1, 0]);
        assert_eq!(payload[4..], postcard::to_stdvec(&hello()).expect("encodes"));
        let restore = Some(Restoring { what: "everything".into(), mtime: Some(Time::default()) });
        let message = Message::Hello(Hello { restore, ..hello() });
        assert_eq!(message.frame().expect("packs").parts().1[..4], [2, 0, 2, 0]);
        assert_eq!(back(&message).expect("parses"), message);
        assert_eq!(back(&Message::Hello(hello())).expect("parses"), Message::Hello(hello()));
    }

    #[test]
    fn a_restore_that_cannot_be_is_refused() {
        let bad_time = Some(Time { seconds: 0, nanos: 2_000_000_000 });
        for restore in [
            Restoring { what: "x".repeat(MAX_WHAT + 1), mtime: None },
            Restoring { what: String::new(), mtime: bad_time },
        ] {
            assert!(back(&Message::Hello(Hello { restore: Some(restore), ..hello() })).is_err());
        }
    }

    #[test]
    fn bytes_after_a_message_are_refused() {
        let mut payload = postcard::to_stdvec(&Position::default()).expect("encodes");
        payload.push(0);
        assert!(Message::parse(&Frame::plain(6, payload)).is_err());
    }
}
