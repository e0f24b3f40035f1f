//! What must hold for any bytes at all: one function for each fuzz target.
//!
//! The targets in `targets/` run these for hours on bytes that the fuzzer makes up. `tests/corpus.rs` runs them on every
//! change, on the seeds in `corpus/`. A crash that the fuzzer finds becomes a seed, and stays one.

#![allow(dead_code, reason = "each target takes the one that it is named after")]

use mailtwin::catalogue::digest::Sum;
use mailtwin::catalogue::directory::{Row, key, pack, path_of, unpack};
use mailtwin::catalogue::filter::Filter;
use mailtwin::catalogue::store::Head;
use mailtwin::config::file::{Defaults, read};
use mailtwin::delta::{self, Differ, Signature, SignatureBuilder};
use mailtwin::disk::Root;
use mailtwin::log::segment::{Replay, SegmentError};
use mailtwin::maildir::entry::Known;
use mailtwin::maildir::folder::SetKind;
use mailtwin::maildir::{control, name};
use mailtwin::path::{Name, PathError, RESERVED, TreePath, escape};
use mailtwin::repository::envelope::{Envelope, TEXT_MAX};
use mailtwin::repository::manifest::{Manifest, ManifestError, range};
use mailtwin::wire::block::{self, Block};
use mailtwin::wire::frame::{self, Frame};
use mailtwin::wire::message::{Message, MessageError};
use mailtwin::wire::pairing::{self, Pairing};
use mailtwin::wire::share;
use std::fmt::Debug;
use std::sync::Arc;

/// A check, by the name of its target and of its corpus.
pub type Check = (&'static str, fn(&[u8]));

/// Every check.
pub const ALL: [Check; 13] = [
    ("block", block),
    ("catalogue", catalogue),
    ("configuration", configuration),
    ("delta", delta),
    ("envelope", envelope),
    ("filter", filter),
    ("frame", frame),
    ("manifest", manifest),
    ("message", message),
    ("name", name),
    ("pairing", pairing),
    ("segment", segment),
    ("uidlist", uidlist),
];

/// Whatever a file says, everything wrong with it has a place in it and words; what nothing is wrong with is the same when
/// it is read again.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let timezone = jiff::tz::TimeZone::UTC;
    let defaults = Defaults { host: "mx1".to_owned(), state: "/var/lib/mailtwin".into(), timezone };
    let reading = read(text, &defaults);
    let lines = text.split('\n').count();
    for finding in &reading.findings {
        assert!(!finding.what.is_empty() && finding.line.is_none_or(|line| (1..=lines).contains(&line)));
    }
    assert_eq!(read(text, &defaults).configuration, reading.configuration);
}

/// A frame is refused, or comes back as the bytes that it was read from.
pub fn frame(data: &[u8]) {
    if let Ok(read) = Frame::read(&mut &data[..]) {
        let (header, payload) = read.parts();
        let length = header.len() + payload.len();
        assert_eq!([&header[..], payload].concat(), data[..length]);
        opens_within_its_limit(&read);
    }
    // The fuzzer will not guess a checksum, so that what is behind it gets one that is right.
    if let Some((head, payload)) = data.split_first_chunk::<2>()
        && let Ok(sealed) = Frame::read(&mut &sealed(head[0], head[1], payload)[..])
    {
        opens_within_its_limit(&sealed);
    }
}

fn opens_within_its_limit(frame: &Frame) {
    if let Ok(payload) = frame.payload() {
        assert!(payload.len() <= frame::MAX_RAW);
    }
}

/// The bytes of a frame whose check is right.
pub fn sealed(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[kind, flags, 0, 0]);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes).update(payload);
    bytes.extend_from_slice(&hasher.finalize().as_bytes()[..8]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A message (its kind, then its payload) is refused, or packs and unpacks to itself.
pub fn message(data: &[u8]) {
    let Some((&kind, payload)) = data.split_first() else { return };
    let Ok(message) = Message::parse(&Frame::plain(kind, payload.to_vec())) else { return };
    let packed = message.frame().expect("what was unpacked packs");
    assert_eq!(Message::parse(&packed).expect("what was packed unpacks"), message);
    if let Message::Changes(changes) = &message {
        changes.iter().for_each(|change| is_beneath_the_root(change.path()));
    }
}

/// The payload of a block is refused, or its pieces cover its data and it packs and unpacks to itself, for the wire and
/// for a segment. Where it refers to others, it is its own source: what comes out of that is bounded, and no more.
pub fn block(data: &[u8]) {
    if let (Ok(sources), Ok(areas)) = (Block::sources(data), Block::areas(data)) {
        let sources = vec![Some(Arc::new(areas)); sources.len()];
        let length = Block::decode_with(data, &sources).map(|block| block.data.len());
        assert!(length.unwrap_or_default() <= block::MAX_RAW);
    }
    let Ok(block) = Block::decode(data) else { return };
    let covered: usize = block.contents().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(covered, block.data.len());
    for level in [0, 1] {
        let packed = block.encode(level).expect("what was unpacked packs");
        assert_eq!(Block::decode(&packed).expect("what was packed unpacks"), block);
    }
    let laid_out = laid_out(&block, &[], &mut |_, _| None);
    assert_eq!(Block::decode(&laid_out).expect("what was laid out unpacks"), block);
}

/// A block as a segment has it.
pub fn laid_out(block: &Block, sources: &[u64], known: &mut share::Known<'_>) -> Vec<u8> {
    let packed = block.prepare(known).compress(1).expect("compresses");
    packed.payload(sources).expect("has a table")
}

/// A log is read to its last whole batch, or refused; it is made of kinds, lengths and payloads, and its end may be cut.
pub fn segment(data: &[u8]) {
    let Some((&cut, rest)) = data.split_first() else { return };
    let mut log = sealed_frames(rest);
    log.truncate(log.len().saturating_sub(usize::from(cut)));
    replay(&log);
}

/// Frames whose checks are right, of kinds, flags, lengths and payloads; what is no whole one stands behind them.
fn sealed_frames(mut rest: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let Some(([kind, flags, low, high], after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        frames.append(&mut sealed(*kind, *flags, &after[..length]));
        rest = &after[length..];
    }
    frames.extend_from_slice(rest);
    frames
}

/// Reads a log to its end and gives the number of changes in each batch.
pub fn replay(log: &[u8]) -> Vec<usize> {
    thread_local! {
        static STATE: tempfile::TempDir = tempfile::tempdir().expect("a directory");
    }
    STATE.with(|directory| {
        std::fs::write(directory.path().join("segment"), log).expect("writes");
        let state = Root::open(directory.path()).expect("opens");
        match Replay::open(&state) {
            Ok(Some(mut replay)) => {
                let mut lengths = Vec::new();
                while let Some(batch) = whole(replay.next_batch()) {
                    batch.blocks.iter().for_each(|&at| block(&replay.block(at).expect("was whole when it was passed")));
                    batch.changes.iter().for_each(|change| is_beneath_the_root(change.path()));
                    lengths.push(batch.changes.len());
                }
                lengths
            }
            Ok(None) | Err(SegmentError::Version(_)) => Vec::new(),
            Err(error) => panic!("the disk is well: {error}"),
        }
    })
}

fn whole<T>(read: Result<Option<T>, SegmentError>) -> Option<T> {
    match read {
        Ok(batch) => batch,
        Err(SegmentError::Message(MessageError::Frame(frame::FrameError::Io(error)))) => {
            panic!("the disk is well: {error}")
        }
        Err(_) => None,
    }
}

/// The payload of a range (behind a zero) is refused, or packs and unpacks to itself; a manifest (made of kinds, flags,
/// lengths and payloads) is refused, or says the same whichever way it is asked.
pub fn manifest(data: &[u8]) {
    match data.split_first() {
        Some((0, payload)) => {
            let Ok(records) = range::decode(payload) else { return };
            records.iter().for_each(|record| is_beneath_the_root(&record.path));
            let packed = range::encode(&records).expect("what was unpacked packs");
            assert_eq!(range::decode(&packed).expect("what was packed unpacks"), records);
        }
        Some((_, frames)) => opens(&sealed_frames(frames)),
        None => {}
    }
}

fn opens(manifest: &[u8]) {
    thread_local! {
        static REPOSITORY: tempfile::TempDir = tempfile::tempdir().expect("a directory");
    }
    REPOSITORY.with(|directory| {
        std::fs::write(directory.path().join("manifest"), manifest).expect("writes");
        let root = Root::open(directory.path()).expect("opens");
        let manifest = match Manifest::open(&root, &TreePath::root().child("manifest")) {
            Ok(manifest) => manifest,
            Err(ManifestError::Disk(error)) => panic!("the disk is well: {error}"),
            Err(_) => return,
        };
        let known: Vec<_> = manifest.records(&[]).flatten().collect();
        assert!(known.len() as u64 <= manifest.len());
        assert!(manifest.beneath(&TreePath::root()).flatten().eq(known.iter().cloned()));
        for record in known.iter().take(9) {
            assert_eq!(manifest.get(&record.path).expect("was read before").as_ref(), Some(record));
        }
    });
}

/// The beginning of a message gives an envelope, and what is in it can be shown.
pub fn envelope(data: &[u8]) {
    let envelope = Envelope::parse(data);
    for text in [envelope.message_id, envelope.from, envelope.to, envelope.subject] {
        assert!(text.len() <= TEXT_MAX && !text.contains(char::is_control));
    }
}

/// What a stranger may send who was not let in by any key: a message of pairing (its kind, then its payload) is refused, or
/// packs and unpacks to itself, and nothing in it can do harm in a file or on a terminal.
pub fn pairing(data: &[u8]) {
    if let Some(header) = data.first_chunk::<{ frame::HEADER }>()
        && let Ok(length) = pairing::payload_length(header)
    {
        assert!(length <= pairing::MAX_PAYLOAD);
    }
    let Some((&kind, payload)) = data.split_first() else { return };
    for frame in [Frame::plain(kind, payload.to_vec()), Frame::compressed(kind, payload.to_vec())] {
        let Ok(message) = Pairing::parse(&frame) else { continue };
        assert_eq!(Pairing::parse(&message.frame().expect("packs")).expect("its own frame"), message);
        match message {
            Pairing::Proof(proof) => {
                let harms = |letter: char| !letter.is_ascii_graphic() || "\"'/\\".contains(letter);
                assert!(!proof.name.contains(harms) && !proof.address.unwrap_or_default().contains(harms));
            }
            Pairing::Refused(sentence) => assert!(!sentence.contains(char::is_control)),
            Pairing::Offer(_) | Pairing::Agreed => {}
        }
    }
}

/// Rows, pages, heads and keys of a catalogue (the first byte says which) are refused, or pack and unpack to themselves.
pub fn catalogue(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    match which {
        b'r' => unpacks::<Row>(data),
        b'p' => unpacks::<Vec<Known>>(data),
        b'h' => unpacks::<Head>(data),
        b's' => {
            if let Some(sum) = Sum::from_bytes(data) {
                assert_eq!(sum.to_bytes(), data);
            }
        }
        _ => {
            if let Ok(path) = path_of(data) {
                is_beneath_the_root(&path);
                assert_eq!(path_of(&key(&path)).expect("its own key"), path);
            }
        }
    }
}

fn unpacks<T>(data: &[u8])
where
    T: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + Debug,
{
    if let Ok(value) = unpack::<T>(data) {
        let packed = pack(&value).expect("what was unpacked packs");
        assert_eq!(unpack::<T>(&packed).expect("what was packed unpacks"), value);
    }
}

/// Signatures and deltas are refused or used within their limit, and two versions of a file (of the bytes, the first part
/// and the rest) give a delta that makes one of the other.
pub fn delta(data: &[u8]) {
    const LIMIT: u64 = 1 << 20;
    if let Ok(signature) = Signature::parse(data.to_vec()) {
        let index = signature.index();
        let mut made = Vec::new();
        let mut differ = Differ::new(&index);
        if differ.window(data, &mut made).is_ok() {
            differ.finish(&mut made);
            assert!(made.len() <= 2 * data.len() + 64);
        }
    }
    let mut result = Vec::new();
    let applied = delta::apply(&data, &mut &data[..], &mut result, LIMIT);
    assert!(result.len() as u64 <= LIMIT);
    assert!(applied.is_err() || applied.is_ok_and(|length| length == result.len() as u64));
    if let Some(([low, high], rest)) = data.split_first_chunk::<2>() {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % (rest.len() + 1);
        goes_there_and_back(&rest[..at], &rest[at..]);
    }
}

fn goes_there_and_back(old: &[u8], new: &[u8]) {
    let mut signer = SignatureBuilder::new(16);
    signer.update(old);
    let signature = Signature::parse(signer.finish()).expect("our own signature");
    let index = signature.index();
    let (mut differ, mut made, mut result) = (Differ::new(&index), Vec::new(), Vec::new());
    for window in new.chunks(100) {
        differ.window(window, &mut made).expect("a parsed signature compares");
    }
    differ.finish(&mut made);
    delta::apply(&old, &mut &made[..], &mut result, new.len() as u64).expect("our own delta applies");
    assert_eq!(result, new);
}

/// Patterns (a line each, before the first NUL) are refused, or decide about a path (what follows).
pub fn filter(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let lines: Vec<String> =
        String::from_utf8_lossy(parts.next().unwrap_or_default()).lines().map(str::to_owned).collect();
    let path = parts.next().and_then(|bytes| TreePath::new(bytes).ok()).filter(|path| !path.is_root());
    let path = path.unwrap_or_else(|| TreePath::root().child("u"));
    for kind in [SetKind::Maildir, SetKind::Files] {
        let Ok(filter) = Filter::new(kind, &lines) else { continue };
        let taken = filter.takes(&path, false);
        assert_eq!(filter.takes(&path, false), taken);
        filter.takes(&path, true);
        filter.takes_from_tmp(&path.child("tmp"));
    }
}

/// A uidlist is refused, or stays one when it is cut behind any of its lines.
pub fn uidlist(data: &[u8]) {
    control::defined_keywords(data);
    let Ok(folder) = control::check_uidlist(data) else { return };
    let ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    for (end, _) in ends {
        assert_eq!(control::check_uidlist(&data[..=end]), Ok(folder.clone()));
    }
}

/// Names and paths are refused or harmless, and are shown without a control character.
pub fn name(data: &[u8]) {
    assert!(!escape(data).contains(char::is_control));
    assert!(data.starts_with(name::base(data)) && !name::base(data).contains(&b':'));
    assert!(name::keywords(data).all(|letter| letter.is_ascii_lowercase()));
    if let Ok(one) = Name::new(data) {
        assert!(!data.contains(&b'/'));
        assert_eq!(TreePath::root().child("a").join(&one).name(), data);
    }
    match TreePath::new(data) {
        Ok(path) => is_beneath_the_root(&path),
        Err(PathError::Reserved) => assert!(data.starts_with(RESERVED)),
        Err(_) => {}
    }
}

/// No path from outside leads out of the set, or into the tool's own directory (I5).
fn is_beneath_the_root(path: &TreePath) {
    let harmless = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    if !path.is_root() {
        assert!(path.as_bytes().split(|&byte| byte == b'/').all(harmless), "{path}");
        assert!(path.components().next() != Some(RESERVED), "{path}");
        let (parent, name) = path.split().expect("not the root");
        assert_eq!(parent.join(&name), *path);
    }
    assert_eq!(path_of(&key(path)).expect("its own key"), *path);
}
