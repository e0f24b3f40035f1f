//! Tests of manifests: what was written comes back, in whole or in part; what was damaged is found.

use super::*;
use crate::disk::Root;
use crate::maildir::entry::{Meta, Xattr};
use crate::path::{Name, TreePath};
use crate::repository::envelope::Envelope;
use crate::repository::record::{Place, Record, What};
use crate::wire::frame::Frame;
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
#[allow(clippy::print_stdout, reason = "the figure is what one wants to see")]
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
#[allow(clippy::print_stdout, reason = "the figures are what one wants to see")]
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

// ---- any tree at all ----

/// Names as they are in mail, and names as nobody would choose them.
fn any_name() -> impl Strategy<Value = Name> {
    let bytes = prop_oneof![
        4 => select(vec!["cur", "new", "tmp", "a", "ab", ".Sent", "dovecot-uidlist"]).prop_map(|name| name.as_bytes().to_vec()),
        4 => "[1-9][0-9]{0,25}\\.M[0-9]{1,7}P0?[0-9]{1,3}\\.mx[0-9],S=[0-9]{1,4}:2,[A-Za-z]{0,3}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 1..40),
        1 => vec(select(vec![b'1', 0xff, b':']), 255..=255),
    ];
    bytes.prop_filter_map("no name", |bytes| Name::new(&bytes).ok())
}

fn any_path() -> impl Strategy<Value = TreePath> {
    let deep = prop_oneof![20 => vec(any_name(), 0..5), 1 => vec(any_name(), 40..60)];
    deep.prop_filter_map("reserved", |names| {
        let path = names.iter().fold(TreePath::root(), |path, name| path.join(name));
        TreePath::new(path.as_bytes()).ok()
    })
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let time = (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Time { seconds, nanos });
    let xattr = (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..300)).prop_map(|(name, value)| Xattr { name, value });
    let owner = prop_oneof![Just((0o600, 5000, 5000)), (any::<u16>(), any::<u32>(), any::<u32>())];
    let xattrs = prop_oneof![4 => Just(Vec::new()), 1 => vec(xattr, 0..3)];
    (owner, prop::option::of(time), xattrs).prop_map(|((mode, uid, gid), mtime, xattrs)| Meta {
        mode,
        uid,
        gid,
        mtime,
        xattrs,
    })
}

fn any_envelope() -> impl Strategy<Value = Envelope> {
    let id = prop_oneof!["[0-9a-f]{16}@mx[0-9]\\.example", any::<String>()];
    let address = prop_oneof!["[a-c]@example\\.org", any::<String>()];
    (id, address.clone(), address, any::<String>(), any::<Option<i64>>())
        .prop_map(|(message_id, from, to, subject, date)| Envelope { message_id, from, to, subject, date })
}

fn any_what() -> impl Strategy<Value = What> {
    let place = prop_oneof![Just((0, 16)), (0..4_u32, any::<u64>())];
    let place = (place, prop_oneof![0..9_u32, any::<u32>()]).prop_map(|((segment, offset), piece)| Place {
        segment,
        offset,
        piece,
    });
    let file = (any::<u64>(), prop_oneof![Just(0), any::<u64>()], any::<[u8; 8]>())
        .prop_flat_map(move |file| (Just(file), prop::option::of(place.clone()), prop::option::of(any_envelope())))
        .prop_map(|((size, group, check), place, envelope)| What::File {
            size,
            group,
            check,
            place,
            envelope: envelope.map(Box::new),
        });
    prop_oneof![1 => Just(What::Directory), 1 => vec(any::<u8>(), 0..300).prop_map(What::Symlink), 6 => file]
}

/// A tree: its records by their keys.
fn any_tree(most: usize) -> impl Strategy<Value = BTreeMap<Vec<u8>, Record>> {
    let state = prop_oneof![1 => Just(None), 9 => (any_meta(), any_what()).prop_map(Some)];
    let record = (any_path(), state).prop_map(|(path, state)| Record { path, state });
    vec(record, 0..most).prop_map(|records| records.into_iter().map(|record| (key(&record.path), record)).collect())
}

proptest! {
    #[test]
    fn what_is_written_comes_back(tree in any_tree(60)) {
        let (_directory, root) = repository();
        let length = write(&root, tree.values());
        prop_assert_eq!(root.stat(&file()).expect("is there").size, length);
        let manifest = Manifest::open(&root, &file()).expect("opens");
        prop_assert_eq!(manifest.header(), &Header { version: VERSION, minimum_reader: VERSION, ..header() });
        prop_assert_eq!(manifest.len(), tree.len() as u64);
        prop_assert_eq!(manifest.is_empty(), tree.is_empty());
        prop_assert_eq!(all(&manifest), tree.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_part_is_what_a_model_says(tree in any_tree(60), strange in any_path(), at in any::<Index>()) {
        let (_directory, root) = repository();
        write(&root, tree.values());
        let manifest = Manifest::open(&root, &file()).expect("opens");
        let mut wanted = vec![TreePath::root(), strange];
        if !tree.is_empty() {
            let known = &tree.values().nth(at.index(tree.len())).expect("is there").path;
            wanted.extend([known.clone(), known.parent()]);
        }
        for path in wanted {
            let within = |record: &&Record| record.path.is_within(&path);
            let model: Vec<Record> = tree.values().filter(within).cloned().collect();
            let beneath: Vec<Record> = manifest.beneath(&path).map(|record| record.expect("reads")).collect();
            prop_assert_eq!(&beneath, &model);
            let model: Vec<Record> = tree.range(key(&path)..).map(|(_, record)| record.clone()).collect();
            let from: Vec<Record> = manifest.records(&key(&path)).map(|record| record.expect("reads")).collect();
            prop_assert_eq!(&from, &model);
            prop_assert_eq!(manifest.get(&path).expect("reads"), tree.get(&key(&path)).cloned());
        }
    }

    #[test]
    fn a_range_of_any_bytes_is_refused_or_comes_back(tree in any_tree(20), at in any::<Index>(), with in any::<u8>()) {
        prop_assume!(!tree.is_empty());
        let records: Vec<Record> = tree.into_values().collect();
        let mut payload = range::encode(&records).expect("packs");
        prop_assert_eq!(range::decode(&payload), Ok(records));
        let at = at.index(payload.len());
        payload[at] = with;
        if let Ok(read) = range::decode(&payload) {
            prop_assert_eq!(range::decode(&range::encode(&read).expect("packs")), Ok(read));
        }
    }
}

// ---- order, limits ----

#[test]
fn the_order_is_part_of_the_format() {
    let paths = ["", "u", "u/cur", "u/cur/1", "u/new", "u/tmp", "u/.A", "u/.A/cur", "u/cur2", "u0", "v/cur"];
    assert_eq!(key(&path("u/.A/cur/1:2,S")), b"\x02u\0\x02.A\0\x01cur\0\x021:2,S\0");
    assert!(paths.map(|at| key(&path(at))).is_sorted());
}

#[test]
fn a_record_out_of_order_is_refused_and_the_rest_is_written() {
    let (_directory, root) = repository();
    let mut writer = Writer::new(root.create(&file(), 0o600).expect("creates"));
    writer.push(&folder("b")).expect("takes it");
    for wrong in ["a", "b"] {
        let error = writer.push(&folder(wrong)).expect_err("not in order").to_string();
        assert!(error.ends_with(&format!("manifest: {wrong} is not in order")), "{error}");
    }
    writer.push(&folder("c")).expect("takes it");
    writer.finish(header()).expect("finishes");
    assert_eq!(all(&Manifest::open(&root, &file()).expect("opens")), [folder("b"), folder("c")]);
}

#[test]
fn what_cannot_be_read_again_is_not_written() {
    let (_directory, root) = repository();
    let mut writer = Writer::new(root.create(&file(), 0o600).expect("creates"));
    let with = |meta: Meta| Record { path: path("a"), state: Some((meta, What::Directory)) };
    let xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![0; range::RECORD_MAX] }];
    let time = Some(Time { seconds: 0, nanos: 1_000_000_000 });
    for meta in [Meta { xattrs, ..Meta::default() }, Meta { mtime: time, ..Meta::default() }] {
        assert!(matches!(writer.push(&with(meta)), Err(ManifestError::Record { .. })));
    }
    let place = Some(Place { segment: 4, offset: 0, piece: 0 });
    let what = What::File { size: 1, group: 0, check: [1; 8], place, envelope: None };
    writer.push(&Record { path: path("a"), state: Some((Meta::default(), what)) }).expect("takes it");
    let error = writer.finish(header()).expect_err("there are four segments").to_string();
    assert!(error.ends_with("manifest: a record lies in a segment that the header does not name"), "{error}");
}

#[test]
fn heavy_records_make_short_ranges_and_come_back() {
    let (_directory, root) = repository();
    let value = |number: u32| (0..200_000).map(|at| blake3::hash(&[at as u8, number as u8]).as_bytes()[7]).collect();
    let heavy = |number: u32| {
        let xattrs = (0..4).map(|xattr| Xattr { name: vec![b'x'; 9], value: value(4 * number + xattr) }).collect();
        Record {
            path: path(&format!("f{number:02}")),
            state: Some((Meta { xattrs, ..Meta::default() }, What::Directory)),
        }
    };
    let records: Vec<Record> = (0..8).map(heavy).collect();
    write(&root, &records);
    assert_eq!(all(&Manifest::open(&root, &file()).expect("opens")), records);
}

// ---- work ----

#[test]
fn a_mailbox_is_read_without_the_others() {
    let (directory, root) = repository();
    let records: Vec<Record> = mail(30_000).collect();
    write(&root, &records);
    let manifest = Manifest::open(&root, &file()).expect("opens");
    // Whatever else the file has: if it were looked at, it would be an error.
    let mut bytes = std::fs::read(directory.path().join("manifest")).expect("reads");
    bytes[..100_000].fill(0);
    std::fs::write(directory.path().join("manifest"), &bytes).expect("writes");
    let user = path("example.org/user00002");
    let found: Vec<Record> = manifest.beneath(&user).map(|record| record.expect("is not damaged")).collect();
    let model: Vec<Record> = records.into_iter().filter(|record| record.path.is_within(&user)).collect();
    assert_eq!(found.len(), 10_010);
    assert_eq!(found, model);
}

// ---- damage ----

fn small() -> Vec<Record> {
    mail(12).collect()
}

#[test]
fn every_flipped_bit_is_found() {
    let (directory, root) = repository();
    let records = small();
    write(&root, &records);
    let on_disk = directory.path().join("manifest");
    let good = std::fs::read(&on_disk).expect("reads");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&on_disk, &bad).expect("writes");
        let Ok(manifest) = Manifest::open(&root, &file()) else { continue };
        assert!(manifest.records(&[]).any(|record| record.is_err()), "bit {bit}");
    }
}

#[test]
fn a_manifest_that_was_cut_or_made_longer_is_refused() {
    let (directory, root) = repository();
    write(&root, &small());
    let on_disk = directory.path().join("manifest");
    let good = std::fs::read(&on_disk).expect("reads");
    for cut in 0..good.len() {
        std::fs::write(&on_disk, &good[..cut]).expect("writes");
        assert!(matches!(Manifest::open(&root, &file()), Err(ManifestError::Foreign { .. })), "cut at {cut}");
    }
    for begin in 1..good.len() {
        std::fs::write(&on_disk, &good[begin..]).expect("writes");
        assert!(Manifest::open(&root, &file()).is_err(), "without the first {begin}");
    }
    std::fs::write(&on_disk, [&good[..], b"x"].concat()).expect("writes");
    assert!(Manifest::open(&root, &file()).is_err());
}

#[test]
fn a_damaged_range_takes_no_record_of_another() {
    let (directory, root) = repository();
    let records: Vec<Record> = mail(6000).collect();
    write(&root, &records);
    let on_disk = directory.path().join("manifest");
    let mut bytes = std::fs::read(&on_disk).expect("reads");
    let third = bytes.len() / 2;
    bytes[third] ^= 1;
    std::fs::write(&on_disk, &bytes).expect("writes");
    let manifest = Manifest::open(&root, &file()).expect("opens");
    let (read, damaged): (Vec<_>, Vec<_>) = manifest.records(&[]).partition(Result::is_ok);
    let read: Vec<Record> = read.into_iter().flatten().collect();
    let left: Vec<&Record> = records[..range::MOST].iter().chain(&records[2 * range::MOST..]).collect();
    assert_eq!(read.iter().collect::<Vec<_>>(), left);
    let said: Vec<String> = damaged.into_iter().flat_map(Result::err).map(|error| error.to_string()).collect();
    let first = &records[range::MOST].path;
    assert!(
        matches!(&said[..], [one] if one.contains(&format!("2048 records from {first} on cannot be read"))),
        "{said:?}"
    );
    assert!(manifest.get(first).is_err());
    assert_eq!(manifest.get(&records[7].path).expect("reads").as_ref(), Some(&records[7]));
    // Who asks for what is not in the damaged range never hears of it.
    assert!(manifest.beneath(&records[5000].path).all(|record| record.is_ok()));
}

/// The bytes of frames, one behind the other.
fn frames(frames: &[Frame]) -> Vec<u8> {
    let bytes = |frame: &Frame| {
        let (header, payload) = frame.parts();
        [&header[..], payload].concat()
    };
    frames.iter().flat_map(bytes).collect()
}

#[test]
fn an_index_of_more_than_there_is_costs_no_memory() {
    let (directory, root) = repository();
    let ranges = |count: u32| {
        let range = |number: u32| trailer::RangeRef { first: path(&number.to_string()), offset: 0, count: 1 };
        Frame::compressed(INDEX, postcard::to_stdvec(&(0..count).map(range).collect::<Vec<_>>()).expect("packs"))
    };
    for (index, what) in [(ranges(200_000), "its index is too long"), (ranges(9), "more ranges than there is room for")]
    {
        let header = Header { version: VERSION, minimum_reader: VERSION, ..header() };
        let header = Frame::plain(HEADER, postcard::to_stdvec(&header).expect("packs"));
        let trailer = trailer::Trailer::new(0, index.length());
        std::fs::write(directory.path().join("manifest"), frames(&[index, header, trailer.frame()])).expect("writes");
        let error = Manifest::open(&root, &file()).map(|_| ()).expect_err("is refused").to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_long_index_has_several_parts() {
    let (_directory, root) = repository();
    let name = "n".repeat(200);
    let deep = |number: u32| vec![format!("{number:04}{name}"); 300].join("/");
    // So long a path that a range has a few of them, and the index a part for each few ranges.
    let records: Vec<Record> = (0..700).map(|number| folder(&deep(number))).collect();
    write(&root, &records);
    let manifest = Manifest::open(&root, &file()).expect("opens");
    assert_eq!(manifest.get(&records[699].path).expect("reads").as_ref(), Some(&records[699]));
    assert_eq!(all(&manifest), records);
}

/// Replaces the trailer of a manifest.
fn with_end(root: &Root, directory: &std::path::Path, trailer: trailer::Trailer) {
    let mut bytes = std::fs::read(directory.join("manifest")).expect("reads");
    bytes.truncate(bytes.len() - trailer::LENGTH);
    bytes.extend(frames(&[trailer.frame()]));
    root.remove(&file()).expect("removes");
    std::fs::write(directory.join("manifest"), bytes).expect("writes");
}

#[test]
fn a_later_format_is_refused_by_number() {
    let (directory, root) = repository();
    let length = write(&root, &small());
    let later = trailer::Trailer { version: 9, minimum_reader: 7, index: 0, header: length - 200 };
    with_end(&root, directory.path(), later);
    let error = Manifest::open(&root, &file()).map(|_| ()).expect_err("is refused").to_string();
    assert!(
        error.ends_with("manifest has format 7, and this mailtwin reads up to 1: install a newer mailtwin"),
        "{error}"
    );
}

#[test]
fn a_trailer_that_means_other_places_is_refused() {
    let (directory, root) = repository();
    let length = write(&root, &small());
    for (index, header) in [(0, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, 0), (length - 64, length - 64)] {
        with_end(&root, directory.path(), trailer::Trailer::new(index, header));
        assert!(matches!(Manifest::open(&root, &file()), Err(ManifestError::Damaged { .. })), "{index} {header}");
    }
}
