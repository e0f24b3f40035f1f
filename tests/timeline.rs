//! The life of a message: what restore points have of it, and between them every event by itself, as the log tells it.

#[path = "support/history.rs"]
mod history;
#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use history::{Event, World, event};
use points::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use tree::*;

fn timeline(standby: &Path, id: &str) -> Vec<Value> {
    let run = run("timeline", standby, &["--json", id]).ended_with(0);
    serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("no list: {}", run.story()))
}

fn id_of(letter: &[u8]) -> String {
    let text = String::from_utf8_lossy(letter);
    let line = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("an id");
    line.trim_matches(['<', '>']).to_owned()
}

fn below(pair: &Pair, path: &Path) -> String {
    path.strip_prefix(&pair.source).expect("below the source").to_str().expect("a path of ours").to_owned()
}

fn moment(one: &Value) -> jiff::Timestamp {
    one["moment"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no moment: {one}"))
}

/// The number of the batch.
fn batch(one: &Value) -> u64 {
    let position = one["position"].as_str().and_then(|text| text.split_once('-')?.1.parse().ok());
    position.unwrap_or_else(|| panic!("no position: {one}"))
}

/// A mailbox with a full, a folder, and a message that is to come.
fn stage() -> (Pair, Folder, Folder) {
    let pair = Pair::new();
    make_scenario(&pair.source);
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let (inbox, archive) = (Folder(pair.source.clone()), Folder(pair.source.join(".Archive")));
    (pair, inbox, archive)
}

#[test]
fn every_event_is_told_with_its_moment_and_its_batch_among_the_points() {
    let (pair, inbox, archive) = stage();
    let body = letter(70_000, 500);
    let mut expected: Vec<Value> = Vec::new();
    let mut events = Vec::new();
    let synced = |event: Value, events: &mut Vec<(Value, jiff::Timestamp, jiff::Timestamp, u64)>| {
        let before = jiff::Timestamp::now();
        let report = pair.sync(&UNGUARDED);
        events.push((event, before, jiff::Timestamp::now(), batch(&report.0)));
    };
    let point = |paths: &[&String], expected: &mut Vec<Value>, options: &[&str]| {
        let label = backup(&pair, options);
        expected.push(json!({ "point": label, "paths": paths }));
    };
    let told = |event: &str, path: &String, from: Option<&String>, flags: Value| json!({ "event": event, "path": path, "from": from, "flags": flags });
    expected.push(json!({ "point": labels(&pair.mirror)[0], "paths": [] }));

    let path = inbox.deliver(70_000, &body);
    let new = below(&pair, &path);
    synced(told("delivered", &new, None, Value::Null), &mut events);
    let path = inbox.take_in(&path, "");
    let seen = below(&pair, &path);
    synced(told("flags", &seen, Some(&new), Value::Null), &mut events);
    expected.extend(events.iter().map(|(event, ..)| event.clone()));
    point(&[&seen], &mut expected, &["--diff"]);

    let from = events.len();
    let path = inbox.set_flags(&path, "S");
    let read = below(&pair, &path);
    synced(told("flags", &read, Some(&seen), json!(["", "S"])), &mut events);
    let path = archive.move_in(&path);
    let moved = below(&pair, &path);
    synced(told("moved", &moved, Some(&read), Value::Null), &mut events);
    let copy = Folder(pair.source.join(".Sent")).link_in(&path);
    let copied = below(&pair, &copy);
    synced(told("copied", &copied, Some(&moved), Value::Null), &mut events);
    expected.extend(events[from..].iter().map(|(event, ..)| event.clone()));
    point(&[&moved, &copied], &mut expected, &["--full"]);

    let from = events.len();
    fs::remove_file(&path).expect("expunged");
    synced(told("removed", &moved, None, Value::Null), &mut events);
    fs::remove_file(&copy).expect("expunged");
    synced(told("removed", &copied, None, Value::Null), &mut events);
    expected.extend(events[from..].iter().map(|(event, ..)| event.clone()));
    expected.push(json!({ "point": "now", "paths": [] }));

    let id = id_of(&body);
    let mut found = timeline(&pair.mirror, &id);
    assert!(found.windows(2).all(|pair| moment(&pair[0]) <= moment(&pair[1])), "{found:#?}");
    let of_events = found.iter().filter(|one| one.get("event").is_some());
    let mut last = 0;
    for (one, (_, before, after, until)) in of_events.zip(&events) {
        assert!((*before..=*after).contains(&moment(one)), "{before} {one} {after}");
        // A run may have had several batches.
        assert!((last + 1..=*until).contains(&batch(one)), "{last} {one} {until}");
        last = *until;
    }
    let first = batch(found.iter().find(|one| one.get("event").is_some()).expect("an event"));
    for one in &mut found {
        one.as_object_mut().expect("an object").retain(|name, _| name != "moment" && name != "position");
    }
    assert_eq!(found, expected, "{found:#?}");

    let printed = run("timeline", &pair.mirror, &[&format!("<{id}>")]).ended_with(0).printed();
    for words in ["delivered", "taken from new to cur", "flags none to S", "moved from cur/", "copied from", "removed"]
    {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    assert!(printed.contains(&format!("batch 1-{first}: delivered")), "{printed}");
}

#[test]
fn a_message_that_no_point_ever_had_has_a_life_in_the_log() {
    let (pair, inbox, _) = stage();
    let body = letter(71_000, 500);
    let path = inbox.deliver(71_000, &body);
    pair.sync(&UNGUARDED);
    fs::remove_file(&path).expect("expunged");
    pair.sync(&UNGUARDED);
    backup(&pair, &[]);
    let found = timeline(&pair.mirror, &id_of(&body));
    let events: Vec<&Value> = found.iter().filter_map(|one| one.get("event")).collect();
    assert_eq!(events, ["delivered", "removed"]);
    run("timeline", &pair.mirror, &["nobody@example.org"]).refused(&[1], "nobody@example.org");
}

#[test]
fn where_the_log_is_not_kept_it_goes_point_by_point_and_says_so() {
    let (pair, inbox, archive) = stage();
    let body = letter(72_000, 500);
    let path = inbox.file(72_000, "S", &body);
    pair.sync(&UNGUARDED);
    backup(&pair, &["--diff"]);
    let path = archive.move_in(&path);
    pair.sync(&UNGUARDED);
    backup(&pair, &["--full"]);
    run("expire", &pair.mirror, &["--keep-log", "0s"]).ended_with(0);
    archive.set_flags(&path, "FS");
    pair.sync(&UNGUARDED);
    let found = timeline(&pair.mirror, &id_of(&body));
    let labels = labels(&pair.mirror);
    let gaps: Vec<&Value> = found.iter().filter_map(|one| one.get("gap")).collect();
    assert!(gaps.contains(&&json!([labels[0], labels[1]])), "{found:#?}");
    let events: Vec<&Value> = found.iter().filter_map(|one| one.get("event")).collect();
    assert_eq!(events.last(), Some(&&json!("flags")));
    let seen = |label: &str| found.iter().find(|one| one["point"] == label).expect("the point")["paths"].clone();
    assert_eq!(seen(&labels[0]), json!([]));
    assert!(seen(&labels[1])[0].as_str().expect("a path").starts_with("cur/"));
    assert!(seen(&labels[2])[0].as_str().expect("a path").starts_with(".Archive/cur/"));
    let printed = run("timeline", &pair.mirror, &[&id_of(&body)]).ended_with(0).printed();
    assert!(printed.contains("is not kept"), "{printed}");
}

// ---- any history ----

/// Goes through a life from event to event: at each point it must be where the point says.
fn confirm(standby: &Path, id: &str) {
    let life = timeline(standby, id);
    let mut there: Option<BTreeSet<String>> = None;
    for one in &life {
        let text = |name: &str| one[name].as_str().unwrap_or_else(|| panic!("no {name}: {one}")).to_owned();
        if let Some(paths) = one["paths"].as_array() {
            let paths = paths.iter().map(|path| path.as_str().expect("a path").to_owned()).collect();
            match &there {
                Some(there) => assert_eq!(*there, paths, "{id}: {one}\n{life:#?}"),
                None => there = Some(paths),
            }
            continue;
        }
        let there = there.as_mut().expect("a point comes first");
        match text("event").as_str() {
            "delivered" | "copied" => assert!(there.insert(text("path")), "{id}: {one}\n{life:#?}"),
            "removed" => assert!(there.remove(&text("path")), "{id}: {one}\n{life:#?}"),
            "flags" | "moved" | "renamed" => {
                assert!(there.remove(&text("from")), "{id}: {one}\n{life:#?}");
                there.insert(text("path"));
            }
            other => panic!("{other} happened: {life:#?}"),
        }
    }
}

fn live_and_tell(mut world: World, history: &[(Event, bool)]) {
    world.is_thrifty = false;
    world.sync();
    backup(&world.pair, &[]);
    let mut ids = BTreeSet::new();
    for (event, makes_a_point) in history {
        world.happen(event);
        world.sync();
        for path in folders_beneath(&world.pair.source).iter().flat_map(Folder::messages) {
            ids.insert(id_of(&fs::read(path).expect("a message")));
        }
        if *makes_a_point {
            backup(&world.pair, &[]);
        }
    }
    ids.iter().take(if full_sweep() { 100 } else { 6 }).for_each(|id| confirm(&world.pair.mirror, id));
}

/// `PROPTEST_CASES` and `MAILTWIN_FULL_SWEEP` ask for more.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if asked { default.cases } else { cases * if full_sweep() { 20 } else { 1 } },
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..default
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn after_any_history_the_events_lead_from_point_to_point(
        history in prop::collection::vec((event(), prop::bool::weighted(0.15)), 1..40),
        nested in any::<bool>(),
    ) {
        live_and_tell(World::new(Pair::new(), nested), &history);
    }
}
