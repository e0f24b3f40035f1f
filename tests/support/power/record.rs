//! A session as it was on the wire: recorded both ways beside the trees, over a link as slow as a test likes.
//!
//! From the record follows what the mirror must hold after each batch, and which batches were acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mailtwin::id::{Digest, Position};
use mailtwin::maildir::change::{Change, Source};
use mailtwin::path::TreePath;
use mailtwin::wire::block::Block;
use mailtwin::wire::frame::{Frame, HEADER};
use mailtwin::wire::message::{Message, Welcome};

use crate::tree::*;

/// Runs a command and hands on to it what it reads, in portions with a rest after each, and records it; it ends when the
/// command does: `perl PUMP FILE COMMAND...`.
const PUMP: &str = r#"my ($file, @command) = @ARGV;
open(my $record, '>', $file) or die;
$SIG{CHLD} = sub { exit };
open(my $far, '|-', @command) or die;
binmode($_) for ($record, $far, *STDIN);
while (my $length = sysread(STDIN, my $bytes, $ENV{PORTION})) {
    syswrite($record, $bytes) == $length or die;
    for (my $at = 0; $at < $length;) { $at += syswrite($far, $bytes, $length - $at, $at) // die; }
    $gone += $length;
    next if !$ENV{REST} || $gone < $ENV{PORTION};
    $gone = 0;
    select(undef, undef, undef, $ENV{REST} / 1000);
}
$SIG{CHLD} = 'DEFAULT';
close($far);"#;

/// The far end behind such a pump: it may be traced, and struck by a fault of its own; its number is told.
const CONNECT: &str = r#"shift
unset MAILTWIN_FAULT MAILTWIN_FAULT_COUNT
perl "$PUMP" "$RECORD.sent" sh -c '
[ -z "$FAR_FAULT" ] || export MAILTWIN_FAULT="$FAR_FAULT"
[ -z "$FAR_COUNT" ] || export MAILTWIN_FAULT_COUNT="$FAR_COUNT"
echo $$ >"$RECORD.draft"; mv "$RECORD.draft" "$RECORD.process"
exec $TRACER "$@"' sh "$@" | tee "$RECORD.heard""#;

/// How fast what the master sends is handed on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes at a time.
    pub portion: usize,
    /// Milliseconds between two portions.
    pub rest: u64,
}

/// As fast as it goes.
pub const AT_ONCE: Pace = Pace { portion: 65_536, rest: 0 };

/// A pair whose sessions are recorded.
pub fn recorded_pair() -> Pair {
    let mut pair = Pair::new();
    script(&pair.path("pump.pl"), PUMP);
    pair.connect_by(CONNECT);
    pair
}

/// The command of a run whose session is recorded under a name.
pub fn recorded(pair: &Pair, name: &str, pace: Pace) -> Command {
    let record = pair.path(name);
    for part in ["sent", "heard", "process"] {
        let _ = fs::remove_file(record.with_extension(part));
    }
    let mut command = pair.command(&UNGUARDED);
    command.env("PUMP", pair.path("pump.pl")).env("RECORD", record);
    command.env("PORTION", pace.portion.to_string()).env("REST", pace.rest.to_string());
    command.env_remove("TRACER").env_remove("FAR_FAULT").env_remove("FAR_COUNT");
    command
}

/// The far end's process, once it has begun.
pub fn far_process(pair: &Pair, name: &str) -> Option<u32> {
    fs::read_to_string(pair.path(name).with_extension("process")).ok()?.trim().parse().ok()
}

/// A batch as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where it stands.
    pub position: Position,
    /// What it does.
    pub changes: Vec<Change>,
    /// The check of the frame that ends it, by which it is known in the log.
    pub check: [u8; 8],
}

impl Batch {
    /// The numbers of the contents that it refers to.
    pub fn contents(&self) -> impl Iterator<Item = u64> {
        self.changes.iter().filter_map(|change| match change {
            Change::Put { source: Source::Shipped(number) | Source::Delta(number), .. } => Some(*number),
            _ => None,
        })
    }
}

/// What the far end wrote that promises something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// All up to this batch is durable.
    Acknowledged(Position),
    /// All is applied, and durable in the mirror.
    Done,
}

/// What went over the wire, as far as it is whole.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The greeting's bytes.
    pub hello: Vec<u8>,
    /// What the far end answered it.
    pub welcome: Option<Welcome>,
    /// The batches.
    pub batches: Vec<Batch>,
    /// Each block's check and the contents of which it holds something.
    pub blocks: HashMap<[u8; 8], Vec<u64>>,
    /// Each promise, and how many bytes the far end had written with it.
    pub promises: Vec<(u64, Promise)>,
}

impl Session {
    /// Reads a record.
    pub fn of(pair: &Pair, name: &str) -> Self {
        let mut session = Self::default();
        let mut changes = Vec::new();
        for (_, frame, message) in messages(&pair.path(name).with_extension("sent")) {
            match message {
                Message::Hello(_) => session.hello = bytes_of(&frame),
                Message::Block(payload) => {
                    let block = Block::decode(&payload).expect("a block");
                    let numbers = block.pieces.iter().map(|piece| piece.number).collect();
                    session.blocks.insert(check_of(&frame), numbers);
                }
                Message::Changes(mut more) => changes.append(&mut more),
                Message::Commit(position, _) => session.batches.push(Batch {
                    position,
                    changes: std::mem::take(&mut changes),
                    check: check_of(&frame),
                }),
                _ => {}
            }
        }
        for (end, _, message) in messages(&pair.path(name).with_extension("heard")) {
            match message {
                Message::Welcome(welcome) => session.welcome = Some(welcome),
                Message::Ack(position) => session.promises.push((end, Promise::Acknowledged(position))),
                Message::Done(_) => session.promises.push((end, Promise::Done)),
                _ => {}
            }
        }
        session
    }

    /// The last batch that was acknowledged; the one before the first when none was.
    pub fn acknowledged(&self) -> Position {
        let acknowledged = self.promises.iter().filter_map(|(_, promise)| match promise {
            Promise::Acknowledged(position) => Some(*position),
            Promise::Done => None,
        });
        acknowledged.max().unwrap_or_default()
    }

    /// Whether the far end said that all is done.
    pub fn is_done(&self) -> bool {
        self.promises.iter().any(|(_, promise)| *promise == Promise::Done)
    }

    /// The files of contents that batches up to a position brought.
    pub fn shipped_up_to(&self, last: Position) -> Vec<(TreePath, Digest)> {
        let changes = self.batches.iter().filter(|batch| batch.position <= last).flat_map(|batch| &batch.changes);
        let shipped = changes.filter_map(|change| match change {
            Change::Put { path, file, source: Source::Shipped(_), .. } => Some((path.clone(), file.digest)),
            _ => None,
        });
        shipped.collect()
    }
}

/// The whole messages at the beginning of a record, each with its frame and where it ends.
fn messages(path: &Path) -> Vec<(u64, Frame, Message)> {
    let bytes = fs::read(path).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while let Ok(frame) = Frame::read(&mut rest) {
        let message = Message::parse(&frame).expect("a message");
        found.push(((bytes.len() - rest.len()) as u64, frame, message));
    }
    found
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let (header, payload) = frame.parts();
    [&header[..], payload].concat()
}

fn check_of(frame: &Frame) -> [u8; 8] {
    let (header, _) = frame.parts();
    header[HEADER - 8..].try_into().expect("eight bytes")
}

/// The regular files of a mirror and the digests of their contents.
pub type Files = BTreeMap<TreePath, Digest>;

/// The files that a mirror holds, without its own state and what a crash may leave of drafts and locks.
pub fn files_of(mirror: &Path) -> Files {
    let mut files = Files::new();
    if !mirror.is_dir() {
        return files;
    }
    for entry in walkdir::WalkDir::new(mirror) {
        let entry = entry.expect("the mirror is readable");
        let below = entry.path().strip_prefix(mirror).expect("below");
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(below.as_os_str());
        if entry.file_type().is_file() && !bytes.starts_with(b".mailtwin") && !is_left_out(bytes) {
            let content = fs::read(entry.path()).expect("a readable file");
            files.insert(TreePath::new(bytes).expect("a path"), Digest::of(&content));
        }
    }
    files
}

/// What the mirror holds when one more batch has been applied.
pub fn apply(files: &mut Files, batch: &Batch) {
    for change in &batch.changes {
        match change {
            Change::Put { path, file, .. } => drop(files.insert(path.clone(), file.digest)),
            Change::Link { path, existing, .. } => {
                let digest = files[existing];
                files.insert(path.clone(), digest);
            }
            Change::Rename { from, to, .. } => {
                let digest = files.remove(from).expect("what is renamed is there");
                files.insert(to.clone(), digest);
            }
            Change::Remove { path, .. } => drop(files.remove(path)),
            Change::RemoveDirectory { path } => files.retain(|file, _| !file.is_within(path)),
            Change::RenameDirectory { from, to } => {
                let moved = |(file, digest): (TreePath, Digest)| match file.is_within(from) {
                    true => (file.moved(from, to), digest),
                    false => (file, digest),
                };
                *files = std::mem::take(files).into_iter().map(moved).collect();
            }
            Change::MakeDirectory { .. } | Change::Symlink { .. } | Change::SetMeta { .. } | Change::Forget { .. } => {}
        }
    }
}

/// Lets the slave recover without any master: the recorded greeting, and then nothing more. Where it stands then.
pub fn recover_alone(session: &Session, after: &str) -> Position {
    let mut child = Command::new(BINARY)
        .args(["serve", "--stdio"])
        .env_remove("MAILTWIN_FAULT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("serve starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), &session.hello).expect("it listens");
    let output = child.wait_with_output().expect("it ends");
    let mut said = output.stdout.as_slice();
    let frame = Frame::read(&mut said).unwrap_or_else(|error| panic!("after {after}: no answer: {error}"));
    match Message::parse(&frame).expect("a message") {
        Message::Welcome(welcome) => welcome.position,
        other => panic!("after {after} the slave does not recover: {other:?}"),
    }
}

/// Lets the slave recover alone, and asserts that everything acknowledged is on the mirror and that it stands between
/// two batches. `before` is the mirror as the session found it. The number of batches of the session that it has.
pub fn assert_nothing_acknowledged_is_lost(session: &Session, before: &Files, mirror: &Path, after: &str) -> usize {
    let stands = recover_alone(session, after);
    let acknowledged = session.acknowledged();
    assert!(
        stands >= acknowledged,
        "after {after}: {acknowledged:?} was acknowledged, and the slave stands at {stands:?}"
    );
    let mut expected = before.clone();
    let has = session.batches.iter().take_while(|batch| batch.position <= stands);
    let count = has.inspect(|batch| apply(&mut expected, batch)).count();
    let actual = files_of(mirror);
    let wrong: Vec<String> = expected
        .keys()
        .chain(actual.keys())
        .filter(|path| expected.get(*path) != actual.get(*path))
        .map(|path| {
            let is = |files: &Files| files.get(path).map_or("nothing".to_owned(), |digest| format!("{digest:?}"));
            format!("{path}: {} expected, {} there", is(&expected), is(&actual))
        })
        .collect();
    assert!(wrong.is_empty(), "after {after}, at {stands:?} of {acknowledged:?}:\n{}", wrong.join("\n"));
    count
}

/// A directory for the records of a pair is its home; this names the file of a part.
pub fn part(pair: &Pair, name: &str, extension: &str) -> PathBuf {
    pair.path(name).with_extension(extension)
}
