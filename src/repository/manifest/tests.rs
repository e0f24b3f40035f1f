//! Tests of manifests: what was written comes back, in whole or in part; what was damaged is found.

use super::*;
use crate::disk::Root;
use crate::maildir::entry::{Meta, Xattr};
use crate::path::{Name, TreePath};
use crate::repository::envelope::Envelope;
use crate::repository::record::{Place, Record, What};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeMap;
use std::time::Instant;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a good path")
}

fn file() -> TreePath {
    path("manifest")
}

/// A directory, and the root that it is.
fn repository() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = Root::open(directory.path()).expect("opens");
    (directory, root)
}

fn header() -> Header {
    let segment = |number| SegmentRef { number, length: 9 * number, chain: Digest::of(&[number as u8]) };
    Header {
        label: "20261122-030000F_20261123-030000D".to_owned(),
        full: Some("20261122-030000F".to_owned()),
        set: crate::id::RandomId([7; 16]),
        position: Position { epoch: 1, sequence: 42 },
        messages: 3,
        segments: (0..4).map(segment).collect(),
        ..Header::default()
    }
}

/// Writes a manifest of records that are in order; gives its length.
fn write<'a>(root: &Root, records: impl IntoIterator<Item = &'a Record>) -> u64 {
    let mut writer = Writer::new(root.create(&file(), 0o600).expect("creates"));
    records.into_iter().for_each(|record| writer.push(record).expect("takes it"));
    writer.finish(header()).expect("finishes")
}

fn all(manifest: &Manifest) -> Vec<Record> {
    manifest.records(&[]).map(|record| record.expect("reads")).collect()
}

// ---- mail as it is ----

/// Numbers that look random and are the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

const WORDS: [&str; 64] = [
    "offer", "meeting", "invoice", "Monday", "project", "draft", "review", "contract", "minutes", "holiday", "server",
    "update", "report", "question", "order", "delivery", "budget", "printer", "password", "reset", "new", "old",
    "final", "version", "please", "for", "the", "of", "about", "with", "plan", "call", "team", "office", "travel",
    "ticket", "summary", "weekly", "news", "release", "testing", "customer", "feedback", "reminder", "lunch",
    "tomorrow", "notes", "agenda", "visit", "training", "account", "change", "request", "approved", "signed", "copy",
    "list", "photos", "sample", "quote", "price", "shipping", "backup", "restore",
];

/// A message as Dovecot delivers it into a folder: later than the one before, in the order of the blocks.
fn message(dice: &mut Dice, folder: &str, seconds: &mut u64, place: &mut Place) -> Record {
    *seconds += 1 + dice.below(4000);
    let size = 1500 + (1 << dice.below(12)) + dice.below(3000);
    let lines = 30 + dice.below(size / 40);
    let (micros, process) = (dice.below(1_000_000), 300 + dice.below(30_000));
    let flags = dice.one(&["S", "S", "S", "S", "RS", "", "FS"]);
    let name = format!("{seconds}.M{micros}P{process}.mx1,S={size},W={}:2,{flags}", size + lines);
    let mtime = Time { seconds: *seconds as i64, nanos: dice.below(1_000_000_000) as u32 };
    place.piece += 1;
    if place.piece == 200 {
        *place = Place { segment: place.segment, offset: place.offset + 300_000 + dice.below(200_000), piece: 0 };
    }
    let what = What::File {
        size,
        group: 0,
        check: dice.next().to_le_bytes(),
        place: Some(*place),
        envelope: Some(Box::new(envelope(dice, *seconds as i64))),
    };
    let meta = Meta { mode: 0o600, uid: 5000, gid: 5000, mtime: Some(mtime), xattrs: Vec::new() };
    Record { path: path(&format!("{folder}/{name}")), state: Some((meta, what)) }
}

fn envelope(dice: &mut Dice, seconds: i64) -> Envelope {
    let person = |number: u64| format!("Person Number{number} <person{number}@example{}.org>", number % 7);
    let words: Vec<&str> = (0..2 + dice.below(5)).map(|_| dice.one(&WORDS)).collect();
    let id = dice.next();
    Envelope {
        message_id: format!("{id:016x}@mail{}.example.org", dice.below(20)),
        from: person(dice.below(200)),
        to: person(200 + dice.below(4)),
        subject: format!("{}{}", dice.one(&["", "", "Re: "]), words.join(" ")),
        date: Some(seconds - dice.below(30) as i64),
    }
}

fn folder(at: &str) -> Record {
    let meta = Meta { mode: 0o700, uid: 5000, gid: 5000, mtime: None, xattrs: Vec::new() };
    Record { path: path(at), state: Some((meta, What::Directory)) }
}

/// A mail server's tree, in order, in which every mailbox has some thousand messages in a few folders.
fn mail(messages: u64) -> impl Iterator<Item = Record> {
    const FOLDER: u64 = 2500;
    let (mut dice, mut place) = (Dice(1), Place::default());
    (0..messages.div_ceil(FOLDER)).flat_map(move |number| {
        let at = format!("example.org/user{:05}/Maildir/.Folder{}", number / 4, number % 4);
        let cur = format!("{at}/cur");
        let mut records = vec![folder(&at), folder(&cur)];
        if number % 4 == 0 {
            let above =
                ["example.org", &format!("example.org/user{:05}", number / 4)[..], &at[..at.len() - 9]].map(folder);
            records.splice(0..0, above.into_iter().skip(usize::from(number > 0)));
        }
        let mut seconds = 1_600_000_000 + dice.below(100_000_000);
        let count = FOLDER.min(messages - number * FOLDER);
        records.extend((0..count).map(|_| message(&mut dice, &cur, &mut seconds, &mut place)));
        records
    })
}

#[test]
fn a_hundred_thousand_messages_take_less_than_fifty_bytes_each() {
    let (_directory, root) = repository();
    let mut writer = Writer::new(root.create(&file(), 0o600).expect("creates"));
    let mut count = 0;
    for record in mail(100_000) {
        writer.push(&record).expect("takes it");
        count += 1;
    }
    let length = writer.finish(header()).expect("finishes");
    println!("{count} records, {length} bytes: {:.2} each", length as f64 / count as f64);
    assert!(length < 50 * count);
}

#[test]
#[ignore = "a measurement"]
fn a_million_messages_are_written_and_read() {
    let (_directory, root) = repository();
    let mut writer = Writer::new(root.create(&file(), 0o600).expect("creates"));
    let (mut spent, mut count) = (std::time::Duration::ZERO, 0_u64);
    for record in mail(1_000_000) {
        let begun = Instant::now();
        writer.push(&record).expect("takes it");
        spent += begun.elapsed();
        count += 1;
    }
    let begun = Instant::now();
    let length = writer.finish(header()).expect("finishes");
    spent += begun.elapsed();
    println!("{count} records, {length} bytes: {:.2} each; written in {spent:?}", length as f64 / count as f64);
    let begun = Instant::now();
    let manifest = Manifest::open(&root, &file()).expect("opens");
    println!("opened in {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(manifest.records(&[]).filter(Result::is_ok).count() as u64, count);
    println!("read in {:?}", begun.elapsed());
    let begun = Instant::now();
    let user = manifest.beneath(&path("example.org/user00050")).count();
    println!("{user} records of a mailbox read in {:?}", begun.elapsed());
}
