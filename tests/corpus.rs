//! Bytes that are kept: the seeds of the fuzz targets, and a file of every format that was ever released.
//!
//! With `MAILTWIN_BLESS=1` the seeds are made anew out of `fixtures/`; what the fuzzer found beside them stays.

#[path = "../fuzz/checks.rs"]
mod checks;

use base64::Engine;
use mailtwin::catalogue::directory::{Row, key, pack};
use mailtwin::catalogue::store::Head;
use mailtwin::config::file::{Role, example};
use mailtwin::delta::{self, Differ, Signature, SignatureBuilder};
use mailtwin::disk::Root;
use mailtwin::id::Digest;
use mailtwin::maildir::entry::{Entry, File, Kind, Known, Local, Look, Meta, Time, Xattr};
use mailtwin::path::{Name, TreePath};
use mailtwin::repository::envelope::Envelope;
use mailtwin::repository::manifest::{Header, SegmentRef, Writer};
use mailtwin::repository::record::{Place, Record, What};
use mailtwin::wire::block::{Block, Piece};
use mailtwin::wire::frame::Frame;
use mailtwin::wire::message::Message;
use mailtwin::wire::pairing::{ELEMENT, Pairing, Proof};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let listing = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    listing.map(|entry| entry.expect("an entry").file_name().into_string().expect("an ASCII name")).collect()
}

// ---- seeds ----

#[test]
fn every_seed_passes_the_check_of_its_target() {
    for (target, check) in checks::ALL {
        let directory = corpus().join(target);
        let seeds = names_in(&directory);
        assert!(!seeds.is_empty(), "no seeds in {}", directory.display());
        for seed in seeds {
            // A panic has only the seed's bytes; its name is what a person needs.
            let bytes = read(&directory.join(&seed));
            let passed = std::panic::catch_unwind(|| check(&bytes)).is_ok();
            assert!(passed, "the seed {target}/{seed} fails");
        }
    }
}

#[test]
fn every_target_has_a_check_seeds_and_an_entry_in_the_manifest() {
    let named: BTreeSet<String> = checks::ALL.iter().map(|(target, _)| (*target).to_owned()).collect();
    let targets =
        names_in(&project("fuzz/targets")).iter().map(|name| name.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(named, targets);
    assert_eq!(named, names_in(&corpus()));
    let manifest = String::from_utf8(read(&project("fuzz/Cargo.toml"))).expect("text");
    for target in &named {
        assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target} is not in fuzz/Cargo.toml");
    }
}

fn corpus() -> PathBuf {
    static BLESSED: Once = Once::new();
    if std::env::var_os("MAILTWIN_BLESS").is_some() {
        BLESSED.call_once(bless);
    }
    project("fuzz/corpus")
}

/// Writes the seeds that are made of fixtures; their names begin with `made-`.
fn bless() {
    for (target, name, bytes) in seeds() {
        let directory = project("fuzz/corpus").join(target);
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(format!("made-{name}")), bytes).expect("writes");
    }
}

type Seed = (&'static str, String, Vec<u8>);

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| seeds.push((target, name.to_owned(), bytes));
    for file in ["session-1.master", "session-1.slave", "segment-1.day"] {
        for (name, frame) in one_of_each_kind(file) {
            let (header, payload) = frame.parts();
            let raw = frame.payload().expect("a good frame").into_owned();
            add("frame", &name, [&header[..], payload].concat());
            add("message", &name, [&[frame.kind][..], &raw].concat());
            if frame.kind == mailtwin::wire::message::BLOCK {
                add("block", &name, raw);
            }
        }
    }
    for (name, bytes) in attachment_seeds() {
        add("block", name, bytes);
    }
    add("segment", "day", records(0, frames("segment-1.day")));
    add("segment", "day-cut", records(30, frames("segment-1.day")));
    let manifest = manifest_frames();
    let range = manifest[0].payload().expect("a good frame").into_owned();
    add("manifest", "range", [&[0][..], &range].concat());
    add("manifest", "file", records(1, manifest));
    add("envelope", "encoded", ENVELOPE.into());
    for (name, bytes) in catalogue_seeds() {
        add("catalogue", name, bytes);
    }
    for role in [Role::Master, Role::Slave] {
        let text = example(role);
        // With the examples in it, and without.
        let whole: String = text.lines().map(|line| format!("{}\n", line.trim_start_matches('#'))).collect();
        let keys: Vec<&str> = whole.lines().filter(|line| !line.starts_with(' ')).collect();
        add("configuration", &format!("{role:?}").to_lowercase(), keys.join("\n").into_bytes());
    }
    add(
        "configuration",
        "slips",
        b"[set.a]\npth = 1\npath = \"x\n[peer]\nb = 2\n[schedule]\nfull = \"61 * * * *\"".to_vec(),
    );
    add("configuration", "none", b"".to_vec());
    for (name, bytes) in delta_seeds() {
        add("delta", name, bytes);
    }
    for (name, message) in pairing_seeds() {
        let frame = message.frame().expect("packs");
        add("pairing", name, [&[frame.kind][..], frame.parts().1].concat());
    }
    let patterns = "dovecot.index*\n!dovecot.index.log\n/top/**/[a-z]?.tmp\n\\#odd\nname/\0u/.A/dovecot.index.log";
    add("filter", "patterns", patterns.into());
    add("filter", "unclosed", "[a-\0x".into());
    for name in
        ["1778768000.M442564P4235.mx1,S=2707,W=2761:2,FSa", "u/.Entw&APw-rfe/cur/1.x:2,", "../x", ".mailtwin/log"]
    {
        add("name", &name.replace(['/', ':'], "_"), name.into());
    }
    let inbox = project("fixtures/vmail/example.org/anna/Maildir");
    add("uidlist", "inbox", read(&inbox.join("dovecot-uidlist")));
    add("uidlist", "keywords", read(&inbox.join("dovecot-keywords")));
    seeds
}

/// Blocks of a point's own segment: one with an attachment, and one that has it from there.
fn attachment_seeds() -> [(&'static str, Vec<u8>); 2] {
    let table: String = (0..900_u32).map(|row| format!("{row};{:x}\n", row.wrapping_mul(2_654_435_761))).collect();
    let mut dense = vec![0; 6_000];
    blake3::Hasher::new().finalize_xof().fill(&mut dense);
    let attachment = [table.as_bytes(), &dense].concat();
    let mail = |line: usize| {
        let mut data = b"Subject: a table\n\n".to_vec();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&attachment);
        encoded.as_bytes().chunks(line).for_each(|line| data.extend_from_slice(&[line, b"\n"].concat()));
        let last = Some(Digest::of(&data));
        Block { pieces: vec![Piece { number: 1, offset: 0, length: data.len() as u32, last, sparse: false }], data }
    };
    let mut stands = BTreeMap::new();
    let first = checks::laid_out(&mail(76), &[], &mut |bytes, here| {
        stands.insert(bytes.to_vec(), here);
        None
    });
    let second = checks::laid_out(&mail(64), &[9_000], &mut |bytes, _| stands.get(bytes).map(|spot| (1, *spot)));
    [("laid-out", first), ("refers", second)]
}

/// The first frame of each kind in a file, by the file's name and the kind.
fn one_of_each_kind(file: &str) -> BTreeMap<String, Frame> {
    let mut found = BTreeMap::new();
    for frame in frames(file) {
        found.entry(format!("{file}.{}", frame.kind)).or_insert(frame);
    }
    found
}

/// Frames as the checks of the targets `segment` and `manifest` take them apart, behind a byte of theirs.
fn records(first: u8, frames: Vec<Frame>) -> Vec<u8> {
    let mut bytes = vec![first];
    for frame in frames {
        let (header, payload) = frame.parts();
        bytes.extend_from_slice(&[frame.kind, header[5]]);
        bytes.extend_from_slice(&u16::try_from(payload.len()).expect("a short frame").to_le_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

fn catalogue_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let time = Time { seconds: 1_778_768_000, nanos: 5 };
    let xattr = Xattr { name: b"user.note".to_vec(), value: b"value".to_vec() };
    let meta = Meta { mode: 0o600, uid: 5000, gid: 5000, mtime: Some(time), xattrs: vec![xattr] };
    let file = File { size: 2707, digest: Digest::of(b"a"), group: 7 };
    let known = |name: &str, kind| Known {
        entry: Entry { name: Name::new(name.as_bytes()).expect("a name"), meta: meta.clone(), kind },
        local: Local { ino: 42, ctime: time, racy: true },
    };
    let entries = vec![
        known("cur", Kind::Directory),
        known("dovecot-uidlist", Kind::File(file)),
        known("x.sieve", Kind::Symlink(b"sieve/x.sieve".to_vec())),
    ];
    let look = Some(Look { ino: 41, born: time, mtime: time, ctime: time, racy: false });
    let row = Row { id: 3, meta: meta.clone(), look, digest: Digest::of(b"row"), count: 3, entries: entries.clone() };
    let mut head = Head::default();
    (head.minimum_reader, head.messages, head.filters) = (1, 9, vec!["*.bak".to_owned()]);
    let path = TreePath::new(b"example.org/anna/Maildir/.Later/cur").expect("a path");
    let packed = |which: u8, bytes: Vec<u8>| [&[which][..], &bytes].concat();
    vec![
        ("row", packed(b'r', pack(&row).expect("packs"))),
        ("page", packed(b'p', pack(&entries).expect("packs"))),
        ("head", packed(b'h', pack(&head).expect("packs"))),
        ("sum", packed(b's', vec![7; mailtwin::catalogue::digest::LENGTH])),
        ("key", packed(b'k', key(&path))),
    ]
}

fn pairing_seeds() -> [(&'static str, Pairing); 4] {
    let address = Some("[2001:db8::1]:8946".to_owned());
    let proof = Proof { name: "mx1.example.org".to_owned(), address, key: [1; 32], mac: [2; 32] };
    [
        ("offer", Pairing::Offer([b'A'; ELEMENT])),
        ("proof", Pairing::Proof(proof)),
        ("agreed", Pairing::Agreed),
        ("refused", Pairing::Refused("the code is wrong".to_owned())),
    ]
}

const ENVELOPE: &str = "Message-ID: <1.2@example.org>\r\nFrom: =?utf-8?Q?J=C3=B6rg?= <j@example.org>,\r\n \"B, C\" <b@x>\r\n\
To: friends: a@example.org;\r\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?= =?gb2312?B?xOO6ww==?=\r\n\tthere\r\n\
Date: Sun, 22 Nov 2026 09:59:58 +0100\r\n\r\nbody";

/// A manifest that has a record of each form.
fn manifest_frames() -> Vec<Frame> {
    let meta = |mode| Meta {
        mode,
        uid: 5000,
        gid: 5000,
        mtime: Some(Time { seconds: 1_778_768_000, nanos: 5 }),
        xattrs: vec![],
    };
    let xattrs = vec![Xattr { name: b"user.note".to_vec(), value: b"value".to_vec() }];
    let message = |group, place| What::File {
        size: 2707,
        group,
        check: *b"8 bytes!",
        place,
        envelope: Some(Box::new(Envelope::parse(ENVELOPE.as_bytes()))),
    };
    let place = |piece| Some(Place { segment: 0, offset: 300, piece });
    let file = What::File { size: 0, group: 0, check: [7; 8], place: None, envelope: None };
    let record = |path: &str, state| Record { path: TreePath::new(path.as_bytes()).expect("a path"), state };
    let records = [
        record("", Some((meta(0o755), What::Directory))),
        record("u/cur", Some((Meta { mtime: None, xattrs, ..meta(0o700) }, What::Directory))),
        record("u/cur/1778768000.M442564P4235.mx1,S=2707,W=2761:2,FSa", Some((meta(0o600), message(0, place(0))))),
        record("u/cur/1778768001.M442565P4235.mx1,S=2707,W=2761:2,", Some((meta(0o600), message(3, place(1))))),
        record("u/cur/1778768002.M442566P4235.mx1:2,T", None),
        record("u/dovecot-uidlist", Some((meta(0o600), file))),
        record("u/x.sieve", Some((meta(0o777), What::Symlink(b"sieve/x.sieve".to_vec())))),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    let root = Root::open(directory.path()).expect("opens");
    let mut writer = Writer::new(root.create(&TreePath::root().child("m"), 0o600).expect("creates"));
    records.iter().for_each(|record| writer.push(record).expect("takes it"));
    let segments = vec![SegmentRef { number: 1, length: 900, chain: Digest::of(b"chain") }];
    writer.finish(Header { label: "20261122-030000F".to_owned(), segments, ..Header::default() }).expect("finishes");
    frames_of("m", &read(&directory.path().join("m")))
}

fn delta_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let old = read(&project("fixtures/vmail/example.org/anna/Maildir/dovecot-uidlist"));
    let new = [&old[..], b"12 :1778930000.M1P1.mx1\n"].concat();
    let mut signer = SignatureBuilder::new(64);
    signer.update(&old);
    let signature = signer.finish();
    let parsed = Signature::parse(signature.clone()).expect("our own signature");
    let index = parsed.index();
    let (mut differ, mut made) = (Differ::new(&index), Vec::new());
    differ.window(&new, &mut made).expect("compares");
    differ.finish(&mut made);
    let versions = [&(old.len() as u16).to_le_bytes()[..], &old, &new].concat();
    vec![
        ("signature", signature),
        ("delta", made),
        ("append", delta::append(10, b"12 :1778930000.M1P1.mx1\n")),
        ("versions", versions),
    ]
}

// ---- formats ----

/// A file in `fixtures/formats`: its name, what it is, and what must be read from it.
fn list() -> Vec<[String; 3]> {
    let text = String::from_utf8(read(&project("fixtures/formats/LIST"))).expect("text");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut columns = line.splitn(3, '\t').map(str::to_owned);
            let mut column = || columns.next().unwrap_or_else(|| panic!("LIST: three columns are wanted: {line}"));
            [column(), column(), column()]
        })
        .collect()
}

fn frames(file: &str) -> Vec<Frame> {
    frames_of(file, &read(&project("fixtures/formats").join(file)))
}

fn frames_of(file: &str, mut input: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !input.is_empty() {
        frames.push(Frame::read(&mut input).unwrap_or_else(|error| panic!("{file}: {error}")));
    }
    frames
}

#[test]
fn the_list_of_formats_names_every_file_and_no_other() {
    let mut listed: BTreeSet<String> = list().into_iter().map(|[file, _, _]| file).collect();
    listed.extend(["LIST".to_owned(), "make".to_owned()]);
    assert_eq!(listed, names_in(&project("fixtures/formats")));
}

#[test]
fn every_format_that_was_released_can_still_be_read() {
    for [file, format, wanted] in list() {
        let found = match format.as_str() {
            "segment" => {
                let batches = checks::replay(&read(&project("fixtures/formats").join(&file)));
                batches.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
            }
            "session" => {
                let messages = frames(&file);
                messages.iter().map(|frame| message_name(&file, frame)).collect::<Vec<_>>().join(" ")
            }
            "repository" => restored(&project("fixtures/formats").join(&file)),
            other => panic!("LIST: the format \"{other}\" of {file} is not known"),
        };
        assert_eq!(found, wanted, "{file}");
    }
}

/// What each point of a repository, and the newest moment of its log, restores: how many files, and a digest of their paths
/// and contents.
fn restored(repository: &Path) -> String {
    let home = tempfile::tempdir().expect("a directory");
    let standby = home.path().join("standby");
    std::fs::create_dir(&standby).expect("a standby");
    copy(repository, &standby.join(".mailtwin"));
    run("verify", &standby, &["--all"]);
    let mut labels: Vec<String> = names_in(&standby.join(".mailtwin/points")).into_iter().collect();
    labels.sort();
    let options = labels.iter().map(|label| vec!["--point", label.as_str()]).chain([vec![]]);
    let told = options.enumerate().map(|(number, options)| {
        let place = home.path().join(number.to_string());
        run("restore", &standby, &[options.as_slice(), &["--to", place.to_str().expect("text")]].concat());
        let mut files: Vec<std::path::PathBuf> = Vec::new();
        files_beneath(&place, &mut files);
        files.sort();
        let mut hasher = blake3::Hasher::new();
        for file in &files {
            hasher.update(file.strip_prefix(&place).expect("beneath").as_os_str().as_encoded_bytes());
            hasher.update(&[0]).update(&read(file));
        }
        format!("{}:{}", files.len(), &hasher.finalize().to_hex()[..16])
    });
    told.collect::<Vec<_>>().join(" ")
}

fn run(verb: &str, standby: &Path, options: &[&str]) {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_mailtwin")).arg(verb).arg(standby).args(options).output();
    let output = output.expect("mailtwin starts");
    assert!(output.status.success(), "{verb} {options:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for name in names_in(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(std::fs::copy(&from, &to).expect("is copied")),
        }
    }
}

fn files_beneath(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for name in names_in(directory) {
        let path = directory.join(name);
        match path.symlink_metadata().expect("is there").is_dir() {
            true => files_beneath(&path, files),
            false if path.is_file() => files.push(path),
            false => {}
        }
    }
}

/// The first word of how a message shows itself.
fn message_name(file: &str, frame: &Frame) -> String {
    let message = Message::parse(frame).unwrap_or_else(|error| panic!("{file}: {error}"));
    let shown = format!("{message:?}");
    shown.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
