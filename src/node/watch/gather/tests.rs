//! Gathering, held against a model that keeps every event.

use super::*;
use proptest::prelude::*;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a good path")
}

fn mail() -> Dirt {
    Dirt { new_mail: true, below: false, events: 1 }
}

fn flags(events: u32) -> Dirt {
    Dirt { new_mail: false, below: false, events }
}

fn after(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

fn folders(due: Option<Due>) -> Vec<Dirty> {
    match due {
        Some(Due::Folders(folders)) => folders,
        other => panic!("no folders: {other:?}"),
    }
}

#[test]
fn a_single_delivery_goes_out_within_fifty_milliseconds() {
    let (mut gather, start) = (Gather::default(), Instant::now());
    gather.dirty(path("u"), mail(), start);
    let due = gather.due().expect("something waits");
    assert!(due <= after(start, 50), "{:?}", due - start);
    assert_eq!(gather.take(due - Duration::from_nanos(1)), None);
    let taken = folders(gather.take(due));
    assert_eq!(taken, [Dirty { path: path("u"), since: start, new_mail: true, below: false }]);
    assert_eq!(gather.due(), None);
}

#[test]
fn two_hundred_deliveries_a_second_wait_fifty_milliseconds_at_most() {
    let (mut gather, start) = (Gather::default(), Instant::now());
    for number in 0..2000_u64 {
        let now = after(start, number * 5);
        gather.dirty(path(&format!("u{}", number % 37)), mail(), now);
        if let Some(Due::Folders(taken)) = gather.take(now) {
            assert!(taken.iter().all(|dirty| now - dirty.since <= Duration::from_millis(55)));
        }
    }
}

#[test]
fn ten_thousand_flag_changes_in_a_second_become_few_cycles() {
    let (mut gather, start) = (Gather::default(), Instant::now());
    let mut cycles = 0;
    for tenth in 0..10_000_u64 {
        let now = start + Duration::from_micros(tenth * 100);
        gather.dirty(path(&format!("u{}", tenth % 50)), flags(1), now);
        cycles += u32::from(gather.take(now).is_some());
    }
    let end = after(start, 2000);
    cycles += u32::from(gather.take(end).is_some());
    assert!(cycles <= 8, "{cycles}");
    assert_eq!(gather.due(), None, "all is out a second later");
}

#[test]
fn new_mail_goes_before_flags_and_waits_for_none() {
    let (mut gather, start) = (Gather::default(), Instant::now());
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        gather.dirty(path(name), flags(4000), after(start, number as u64));
    }
    gather.dirty(path("z"), mail(), after(start, 10));
    let due = gather.due().expect("something waits");
    assert!(due <= after(start, 10) + LONGEST_MAIL, "flags' long window is not that of mail");
    let taken = folders(gather.take(due));
    assert_eq!(taken.into_iter().map(|dirty| dirty.path).collect::<Vec<_>>(), [path("z")]);
    let taken = folders(gather.take(after(start, 1500)));
    assert_eq!(taken.into_iter().map(|dirty| dirty.path).collect::<Vec<_>>(), [path("a"), path("b"), path("c")]);
}

#[test]
fn what_is_below_a_new_directory_goes_with_it() {
    let (mut gather, start) = (Gather::default(), Instant::now());
    gather.dirty(path("u/.a/b"), mail(), start);
    gather.dirty(path("u/.a-z"), flags(1), after(start, 1));
    let deep = Dirt { new_mail: false, below: true, events: 1 };
    gather.dirty(path("u/.a"), deep, after(start, 2));
    gather.dirty(path("u/.a/c"), flags(1), after(start, 3));
    let taken = folders(gather.take(after(start, 500)));
    let [deep, other] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!(*deep, Dirty { path: path("u/.a"), since: start, new_mail: true, below: true });
    assert_eq!(other.path, path("u/.a-z"));
}

#[test]
fn everything_covers_what_waits_and_comes_no_more_often_than_each_second() {
    let (mut gather, start) = (Gather::default(), Instant::now());
    gather.dirty(path("u"), mail(), start);
    gather.everything(Cause::Overflow, after(start, 5));
    gather.dirty(path("v"), mail(), after(start, 6));
    assert_eq!(gather.take(after(start, 7)), Some(Due::Everything(Cause::Overflow, start)));
    gather.everything(Cause::Overflow, after(start, 8));
    assert_eq!(gather.take(after(start, 900)), None);
    assert!(gather.take(after(start, 1007)).is_some());
    assert_eq!(gather.due(), None);
}

#[test]
fn what_could_not_be_dealt_with_is_as_old_as_it_was() {
    let (mut gather, start) = (Gather::default(), Instant::now());
    gather.dirty(path("u"), flags(1), start);
    let taken = folders(gather.take(after(start, 100)));
    gather.put_back(taken.clone());
    gather.dirty(path("u"), mail(), after(start, 200));
    let again = folders(gather.take(after(start, 300)));
    assert_eq!((again[0].since, again[0].new_mail), (taken[0].since, true));
}

/// One step of a history: what becomes dirty, and how long nothing happens then.
#[derive(Clone, Debug)]
struct Happens {
    folder: usize,
    new_mail: bool,
    below: bool,
    pause: u64,
}

fn happens() -> impl Strategy<Value = Happens> {
    let pause = prop_oneof![8 => 0..3_u64, 2 => 3..80_u64, 1 => 80..1500_u64];
    (0..600_usize, any::<bool>(), prop::bool::weighted(0.05), pause)
        .prop_map(|(folder, new_mail, below, pause)| Happens { folder, new_mail, below, pause })
}

fn named(folder: usize) -> TreePath {
    match folder % 4 {
        0 => path(&format!("u{}", folder % 40)),
        _ => path(&format!("u{}/.f{folder}", folder % 40)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every event comes out: in its folder, or one above it that is dirty with all below, within a bound; nothing comes
    /// out that had no event since it came out before; and a folder that is dirty all the time delays nobody.
    #[test]
    fn all_comes_out_in_time_and_nothing_twice(history in prop::collection::vec(happens(), 1..1500), busy in 1..4_u64) {
        let (mut gather, start) = (Gather::default(), Instant::now());
        let mut now = start;
        // Events that have not come out, as the model has them.
        let mut open: Vec<(TreePath, Instant, bool)> = Vec::new();
        let take = |gather: &mut Gather, open: &mut Vec<(TreePath, Instant, bool)>, now: Instant| {
            while let Some(due) = gather.take(now) {
                let taken = folders(Some(due));
                prop_assert!(taken.len() <= MOST);
                for dirty in taken {
                    let covers = |at: &TreePath| at == &dirty.path || dirty.below && at.is_within(&dirty.path);
                    let (covered, rest): (Vec<_>, Vec<_>) = open.drain(..).partition(|(at, _, _)| covers(at));
                    *open = rest;
                    prop_assert!(!covered.is_empty(), "{dirty:?} had no event");
                    prop_assert_eq!(dirty.since, covered.iter().map(|(_, since, _)| *since).min().expect("some"));
                    prop_assert_eq!(dirty.new_mail, covered.iter().any(|(_, _, mail)| *mail));
                }
            }
            Ok(())
        };
        for (number, step) in history.into_iter().enumerate() {
            let at = named(step.folder);
            let dirt = Dirt { new_mail: step.new_mail, below: step.below, events: 1 };
            gather.dirty(at.clone(), dirt, now);
            open.push((at, now, step.new_mail));
            if (number as u64).is_multiple_of(busy) {
                gather.dirty(path("busy"), mail(), now);
                open.push((path("busy"), now, true));
            }
            for _ in 0..=step.pause {
                take(&mut gather, &mut open, now)?;
                let bound = LONGEST + Duration::from_millis(1);
                prop_assert!(open.iter().all(|(_, since, _)| now - *since <= bound), "{open:?}");
                now += Duration::from_millis(1);
            }
        }
        take(&mut gather, &mut open, now + LONGEST)?;
        prop_assert!(open.is_empty() && gather.due().is_none());
    }

    /// Where a cycle takes long, and new mail fills every batch, the others get their turn when they have aged.
    #[test]
    fn a_flood_of_mail_starves_no_folder(cycle in 100..900_u64) {
        let (mut gather, start) = (Gather::default(), Instant::now());
        gather.dirty(path("flags"), flags(1), start);
        let mut now = start;
        for number in 0.. {
            for folder in 0..MOST * 2 {
                gather.dirty(path(&format!("m{folder}")), mail(), now);
            }
            now += Duration::from_millis(cycle);
            if folders(gather.take(now)).iter().any(|dirty| dirty.path == path("flags")) {
                break;
            }
            prop_assert!(now - start <= AGED + Duration::from_millis(cycle * 2), "{number}");
        }
    }
}
