//! A session that stays looks at what it is told was touched: no more, and nothing is missed.

#[path = "support/mailbox.rs"]
mod mailbox;
#[path = "support/tree.rs"]
mod tree;

use mailbox::*;
use mailtwin::monitor::Quiet;
use mailtwin::path::TreePath;
use mailtwin::sync::cycle::Unit;
use mailtwin::sync::guard::Limit;
use mailtwin::sync::receiver;
use mailtwin::sync::sender::follow::{Feed, Standing, Turn, follow};
use mailtwin::sync::sender::{Report, Request};
use mailtwin::transport::pipe;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tree::*;

/// What is done to the tree before a turn, and the turn.
type Step<'a> = Box<dyn FnMut(&Standing<'_>) -> Turn + 'a>;

/// A feed that was written down before.
struct Script<'a> {
    steps: VecDeque<Step<'a>>,
    /// What [`Feed::touched`] says when it is asked.
    touched: Box<dyn FnMut() -> Option<Vec<Unit>> + 'a>,
}

impl Feed for Script<'_> {
    fn next(&mut self, standing: &Standing<'_>) -> Turn {
        self.steps.pop_front().map_or(Turn::End, |mut step| step(standing))
    }

    fn touched(&mut self) -> Option<Vec<Unit>> {
        (self.touched)()
    }
}

fn request(pair: &Pair) -> Request {
    Request {
        source: pair.source.clone(),
        destination: pair.mirror.as_os_str().as_bytes().to_vec(),
        pair: "the mirror".to_owned(),
        state: pair.path("state"),
        slave_state: None,
        kind: None,
        filters: Vec::new(),
        chown: None,
        limit: Limit::Percent(100),
        checksum: false,
        dry_run: false,
        itemize: false,
        level: 3,
    }
}

/// Runs a session that stays, over a pipe.
fn followed<'a>(pair: &Pair, steps: Vec<Step<'a>>, touched: impl FnMut() -> Option<Vec<Unit>> + 'a) -> Report {
    let mut script = Script { steps: steps.into(), touched: Box::new(touched) };
    let monitor = Quiet::default();
    let report = std::thread::scope(|scope| {
        follow(
            &request(pair),
            &monitor,
            || {
                let (near, far) = pipe::pair("the slave");
                scope.spawn(move || receiver::serve(far));
                Ok(near)
            },
            &mut script,
        )
    });
    let problems = monitor.take_problems();
    assert!(problems.is_empty(), "{problems:?}");
    report.expect("it goes through")
}

fn unit(pair: &Pair, path: &Path) -> Unit {
    let beneath = path.strip_prefix(&pair.source).expect("of the source");
    Unit { path: TreePath::new(beneath.as_os_str().as_bytes()).expect("a path"), below: false }
}

fn nothing_else() -> Option<Vec<Unit>> {
    Some(Vec::new())
}

#[test]
fn what_is_named_is_shipped_at_once_and_what_is_not_waits() {
    let pair = synced_mailbox();
    let (sent, archive) = (folder(&pair, ".Sent"), folder(&pair, ".Archive"));
    let before = messages_beneath(&pair.mirror);
    let on_the_mirror = || messages_beneath(&pair.mirror);
    let steps: Vec<Step<'_>> = vec![
        Box::new(|_| {
            sent.deliver(7001, b"Subject: named\n\n1\n");
            archive.deliver(7002, b"Subject: not named\n\n2\n");
            Turn::Some(vec![unit(&pair, &sent.0)])
        }),
        Box::new(|standing| {
            assert!(standing.owes_rest);
            Turn::Rest
        }),
        Box::new(|standing| {
            assert!(standing.report.in_sync && !standing.owes_rest);
            assert_eq!(on_the_mirror(), before + 1, "the named one is there, the other not yet");
            Turn::Everything
        }),
        Box::new(|_| Turn::Ping),
    ];
    let report = followed(&pair, steps, nothing_else);
    assert!(report.in_sync);
    assert_eq!(report.counters.messages_added, 2);
    assert_mirrored(&pair);
}

#[test]
fn a_message_on_its_way_to_another_mailbox_is_taken_in_before_it_goes() {
    let pair = Pair::new();
    let (anna, ben) = (Folder::create(&pair.source.join("anna")), Folder::create(&pair.source.join("ben")));
    let letter = anna.file(1, "S", b"Subject: on the way\n\nhello\n");
    ben.file(2, "S", b"Subject: another\n\nhello\n");
    pair.sync(&[]);
    let asked = std::cell::Cell::new(0);
    let steps: Vec<Step<'_>> = vec![Box::new(|_| {
        ben.move_in(&letter);
        // The watcher has told of the one, and not yet of the other.
        Turn::Some(vec![unit(&pair, &anna.0)])
    })];
    let report = followed(&pair, steps, || {
        asked.set(asked.get() + 1);
        Some(vec![unit(&pair, &ben.0)])
    });
    assert!(asked.get() > 0, "it asks before it removes");
    assert_eq!((report.counters.messages_added, report.counters.bytes_content), (0, 0), "it was moved, not sent again");
    assert_mirrored(&pair);
}

#[test]
fn where_nobody_knows_what_was_touched_everything_is_looked_at_before_something_goes() {
    let pair = Pair::new();
    let (anna, ben) = (Folder::create(&pair.source.join("anna")), Folder::create(&pair.source.join("ben")));
    let letter = anna.file(1, "S", b"Subject: on the way\n\nhello\n");
    pair.sync(&[]);
    let steps: Vec<Step<'_>> = vec![Box::new(|_| {
        ben.move_in(&letter);
        Turn::Some(vec![unit(&pair, &anna.0)])
    })];
    let report = followed(&pair, steps, || None);
    assert_eq!(report.counters.bytes_content, 0);
    assert_mirrored(&pair);
}

#[test]
fn folders_made_renamed_and_removed_beneath_what_is_named_follow() {
    let pair = synced_mailbox();
    let steps: Vec<Step<'_>> = vec![
        Box::new(|_| {
            // Named is only what is deep inside something new.
            let made = Folder::create(&pair.source.join("new.example/dora/.Lists"));
            made.deliver(8001, b"Subject: deep\n\n1\n");
            Turn::Some(vec![unit(&pair, &made.0)])
        }),
        Box::new(|_| {
            rename(&pair.source.join(".Sent"), &pair.source.join(".Sent2"));
            fs::remove_dir_all(pair.source.join(".Archive.2024")).expect("removed");
            Turn::Some(vec![unit(&pair, &pair.source)])
        }),
    ];
    let report = followed(&pair, steps, nothing_else);
    assert_eq!(report.counters.directories_renamed, 1);
    assert!(report.in_sync);
    assert_mirrored(&pair);
    pair.sync(&["--max-delete", "100%"]).shipped_nothing();
}

#[test]
fn a_folder_that_goes_goes_though_a_watcher_names_it_and_more() {
    let pair = Pair::new();
    make_mailbox(&pair.source.join("anna"), 1);
    pair.sync_and_settle();
    let steps: Vec<Step<'_>> = vec![Box::new(|_| {
        let anna = pair.source.join("anna");
        let ben = Folder::create(&pair.source.join("ben"));
        ben.deliver(5002, b"Subject: first\n\nmail\n");
        rename(&anna.join(".Sent"), &anna.join(".Was-Sent"));
        fs::remove_dir_all(anna.join(".Archive.2024")).expect("removed");
        let below = |path: &str| Unit { below: true, ..unit(&pair, &pair.source.join(path)) };
        let named = [below("anna/.Was-Sent"), below("ben"), unit(&pair, &pair.source), unit(&pair, &anna)];
        Turn::Some([&named[..], &[below("anna/.Archive.2024")]].concat())
    })];
    let report = followed(&pair, steps, || None);
    assert!(report.in_sync);
    assert_eq!(report.counters.directories_renamed, 1);
    assert_mirrored(&pair);
}

#[test]
fn what_was_acknowledged_stays_where_the_session_breaks_before_its_rest() {
    let pair = synced_mailbox();
    let inbox = inbox(&pair);
    let steps: Vec<Step<'_>> = vec![
        Box::new(|_| {
            inbox.deliver(9001, b"Subject: acknowledged\n\n1\n");
            Turn::Some(vec![unit(&pair, &inbox.0)])
        }),
        Box::new(|_| panic!("the master dies")),
    ];
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| followed(&pair, steps, nothing_else)));
    assert!(broken.is_err());
    // The slave has it, the master's record does not say so: comparing tells, and nothing is sent again.
    let report = pair.sync(&[]);
    assert_eq!(report.count("bytes_content"), 0, "{report:?}");
    assert_mirrored(&pair);
}

#[test]
fn many_turns_ship_what_one_run_would() {
    let pair = synced_mailbox();
    let mut numbers = Numbers::seeded(5);
    let steps: Vec<Step<'_>> = (0..60)
        .map(|turn| {
            let draw = numbers.draw();
            let pair = &pair;
            Box::new(move |_: &Standing<'_>| {
                let folders = folders_beneath(&pair.source);
                let at = &folders[(draw % folders.len() as u64) as usize];
                let other = &folders[(draw / 7 % folders.len() as u64) as usize];
                match (draw >> 32) % 6 {
                    0 => drop(at.deliver(10_000 + turn, b"Subject: new\n\nmail\n")),
                    1 => drop(at.messages().first().map(|message| at.set_flags(message, "FS"))),
                    2 => drop(at.messages().first().map(|message| other.move_in(message))),
                    3 => drop(at.messages().first().map(fs::remove_file)),
                    4 => at.rewrite_uidlist(),
                    _ => return Turn::Rest,
                }
                Turn::Some(vec![unit(pair, &at.0), unit(pair, &other.0)])
            }) as Step<'_>
        })
        .collect();
    let report = followed(&pair, steps, nothing_else);
    assert!(report.in_sync);
    assert_mirrored(&pair);
}
