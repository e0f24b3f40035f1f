//! A master that lies: what a slave does with messages that no honest master sends.
//!
//! The peer speaks the real protocol through the in-process pipe, so every message passes the same door as one
//! from a wire. Whatever it says, nothing outside the mirror changes, nothing in it is lost, and the answer is a
//! sentence.

use mailtwin::id::{Digest, Epoch, Position, RandomId};
use mailtwin::maildir::change::{Change, Source};
use mailtwin::maildir::entry::{File, Mark, Meta};
use mailtwin::maildir::folder::SetKind;
use mailtwin::path::TreePath;
use mailtwin::sync::{SyncError, receiver};
use mailtwin::transport::{Connection, pipe};
use mailtwin::wire::block::{Block, Piece};
use mailtwin::wire::message::{Hello, Message};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A mirror with a message in it, a file beside it that must not change, and a lying master.
struct Scene {
    directory: tempfile::TempDir,
    near: Option<Connection>,
    slave: Option<std::thread::JoinHandle<Result<(), SyncError>>>,
    position: u64,
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a good path")
}

fn at(sequence: u64) -> Position {
    Position { epoch: 1, sequence }
}

fn content(number: u64, bytes: &[u8], digest: Digest) -> Message {
    let piece = Piece { number, offset: 0, length: bytes.len() as u32, last: Some(digest), sparse: false };
    let block = Block { pieces: vec![piece], data: bytes.to_vec() };
    Message::Block(block.encode(3).expect("packs"))
}

fn put(to: &str, number: u64, bytes: &[u8]) -> Change {
    let file = File { size: bytes.len() as u64, digest: Digest::of(bytes), group: 0 };
    Change::Put { path: path(to), meta: Meta { mode: 0o600, ..meta() }, file, source: Source::Shipped(number) }
}

fn meta() -> Meta {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    Meta { mode: 0o700, uid: user, gid: group, mtime: None, xattrs: Vec::new() }
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let make = |name: &str| std::fs::create_dir_all(directory.path().join(name)).expect("a directory");
        ["mirror/cur", "mirror/new", "mirror/tmp", "outside"].into_iter().for_each(make);
        std::fs::write(directory.path().join("mirror/cur/1.M1P1.mx:2,S"), "a message\n").expect("a message");
        std::fs::write(directory.path().join("outside/canary"), "sings").expect("a canary");
        std::os::unix::fs::symlink("../outside", directory.path().join("mirror/way-out")).expect("a link");
        Self { directory, near: None, slave: None, position: 0 }
    }

    fn mirror(&self) -> PathBuf {
        self.directory.path().join("mirror")
    }

    fn greeted(mut self) -> Self {
        let (near, far) = pipe::pair("the slave");
        self.slave = Some(std::thread::spawn(move || receiver::serve(far)));
        self.near = Some(near);
        self.send(&Message::Hello(hello(&self.mirror())));
        assert!(matches!(self.next(), Message::Welcome(_)));
        self
    }

    fn near(&mut self) -> &mut Connection {
        self.near.as_mut().expect("connected")
    }

    /// The slave may have ended already: that is an answer, too.
    fn send(&mut self, message: &Message) {
        let _ = self.near().sender.send(message);
    }

    fn batch(&mut self, changes: Vec<Change>) {
        self.position += 1;
        let (count, position) = (changes.len() as u64, at(self.position));
        self.send(&Message::Changes(changes));
        self.send(&Message::Commit(position, count));
    }

    fn next(&mut self) -> Message {
        self.near().receiver.recv().expect("an answer")
    }

    /// The sentence with which the slave refuses.
    fn refusal(mut self) -> String {
        self.send(&Message::Finish);
        let sentence = loop {
            match self.near().receiver.recv() {
                Ok(Message::Refuse(refusal)) => break refusal.sentence,
                Ok(Message::Ack(_)) => {}
                Ok(other) => panic!("not refused: {other:?}"),
                Err(error) => panic!("no sentence: {error}"),
            }
        };
        self.end();
        sentence
    }

    /// What the slave says when it has done what it could.
    fn problems(mut self) -> Vec<String> {
        self.send(&Message::Finish);
        let problems = loop {
            match self.next() {
                Message::Done(done) => break done.problems.into_iter().map(|problem| problem.subject).collect(),
                Message::Ack(_) => {}
                other => panic!("not done: {other:?}"),
            }
        };
        self.end();
        problems
    }

    /// The slave ends by itself, and nothing outside or beside has changed.
    fn end(mut self) {
        self.near = None;
        let _ = self.slave.take().expect("a slave").join().expect("it does not panic");
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).expect("is there");
        assert_eq!(read("outside/canary"), "sings");
        assert_eq!(read("mirror/cur/1.M1P1.mx:2,S"), "a message\n");
        let outside = std::fs::read_dir(self.directory.path().join("outside")).expect("lists").count();
        assert_eq!(outside, 1);
    }
}

fn hello(mirror: &Path) -> Hello {
    Hello {
        program: "a liar".into(),
        set: Some(RandomId([7; 16])),
        epoch: Epoch { counter: 1, id: RandomId([8; 16]) },
        position: Position::default(),
        root: Digest::default(),
        kind: SetKind::Maildir,
        destination: mirror.as_os_str().as_bytes().to_vec(),
        state: None,
        dry_run: false,
        checksum: false,
        filters: Vec::new(),
        boot: Digest::default(),
        ancestry: Vec::new(),
        restore: None,
    }
}

#[test]
fn a_content_that_is_not_what_its_digest_says_is_refused() {
    let mut scene = Scene::new().greeted();
    scene.send(&content(1, b"bytes", Digest::of(b"others")));
    scene.batch(vec![put("cur/2.M2P1.mx:2,", 1, b"others")]);
    assert!(scene.refusal().contains("digest"));
}

#[test]
fn a_message_whose_content_never_came_is_said_and_not_made_up() {
    let mut scene = Scene::new().greeted();
    scene.batch(vec![put("cur/2.M2P1.mx:2,", 99, b"never sent")]);
    let mirror = scene.mirror();
    let problems = scene.problems();
    assert!(problems.iter().any(|subject| subject.ends_with("cur/2.M2P1.mx:2,")), "{problems:?}");
    assert!(!mirror.join("cur/2.M2P1.mx:2,").exists());
}

#[test]
fn nothing_is_put_through_a_link_that_leads_out() {
    let mut scene = Scene::new().greeted();
    scene.send(&content(1, b"evil", Digest::of(b"evil")));
    // The catalogue knows a link by this name; a master that calls it a directory does not fit it.
    scene.batch(vec![put("way-out/canary", 1, b"evil")]);
    assert!(scene.refusal().contains("does not fit"));
}

#[test]
fn a_link_that_the_master_plants_is_not_followed_by_what_comes_after() {
    let mut scene = Scene::new().greeted();
    let target = scene.directory.path().join("outside").as_os_str().as_bytes().to_vec();
    scene.batch(vec![Change::Symlink { path: path("trap"), meta: meta(), target }]);
    scene.send(&content(1, b"evil", Digest::of(b"evil")));
    scene.batch(vec![put("trap/canary", 1, b"evil")]);
    assert!(scene.refusal().contains("does not fit"));
}

#[test]
fn what_is_not_as_the_master_says_is_not_removed() {
    let mut scene = Scene::new().greeted();
    let wrong = Mark { size: 1, ..Mark::default() };
    scene.batch(vec![Change::Remove { path: path("cur/1.M1P1.mx:2,S"), mark: wrong }]);
    assert_eq!(scene.problems().len(), 1);
}

#[test]
fn a_batch_that_comes_again_is_refused() {
    let mut scene = Scene::new().greeted();
    scene.batch(vec![Change::MakeDirectory { path: path(".A"), meta: meta() }]);
    scene.position -= 1;
    scene.batch(vec![Change::MakeDirectory { path: path(".B"), meta: meta() }]);
    assert!(scene.refusal().contains("again"));
}

#[test]
fn a_batch_that_is_not_whole_is_refused() {
    let mut scene = Scene::new().greeted();
    scene.send(&Message::Changes(vec![Change::MakeDirectory { path: path(".A"), meta: meta() }]));
    scene.send(&Message::Commit(at(1), 2));
    assert!(scene.refusal().contains("not whole"));
}

#[test]
fn pieces_out_of_order_are_refused() {
    let mut scene = Scene::new().greeted();
    let piece = Piece { number: 1, offset: 10, length: 2, last: None, sparse: false };
    let block = Block { pieces: vec![piece], data: b"xx".to_vec() };
    scene.send(&Message::Block(block.encode(0).expect("packs")));
    assert!(scene.refusal().contains("out of order"));
}

#[test]
fn a_message_that_only_a_slave_sends_is_refused() {
    let mut scene = Scene::new().greeted();
    scene.send(&Message::Ack(at(5)));
    assert!(scene.refusal().contains("protocol"));
}

#[test]
fn a_directory_that_is_not_there_is_not_handed_out() {
    let mut scene = Scene::new().greeted();
    scene.send(&Message::Fetch(vec![path("etc")]));
    assert!(scene.refusal().contains("not there"));
}

#[test]
fn a_master_of_another_set_or_of_an_older_epoch_is_refused_by_name() {
    let mut scene = Scene::new().greeted();
    scene.batch(vec![Change::MakeDirectory { path: path(".A"), meta: meta() }]);
    scene.send(&Message::Finish);
    while !matches!(scene.next(), Message::Done(_)) {}
    let mirror = scene.mirror();
    scene.near = None;
    let _ = scene.slave.take().expect("a slave").join();
    for (hello, word) in [
        (Hello { set: Some(RandomId([1; 16])), ..hello(&mirror) }, "another set"),
        (Hello { epoch: Epoch { counter: 1, id: RandomId([9; 16]) }, ..hello(&mirror) }, "stale"),
    ] {
        let (mut near, far) = pipe::pair("the slave");
        let slave = std::thread::spawn(move || receiver::serve(far));
        near.sender.send(&Message::Hello(hello)).expect("sends");
        let Ok(Message::Refuse(refusal)) = near.receiver.recv() else { panic!("not refused: {word}") };
        assert!(refusal.sentence.contains(word), "{}", refusal.sentence);
        assert_eq!(refusal.code == 20, word == "stale");
        drop(near);
        let _ = slave.join();
    }
}

#[test]
fn who_does_not_greet_is_refused() {
    let (mut near, far) = pipe::pair("the slave");
    let slave = std::thread::spawn(move || receiver::serve(far));
    near.sender.send(&Message::Finish).expect("sends");
    assert!(matches!(near.receiver.recv(), Ok(Message::Refuse(_))));
    drop(near);
    let _ = slave.join();
}
