//! Random histories of a mailbox with restore points in them: every point, and every moment after a cycle, comes back
//! as it was.

#[path = "support/history.rs"]
mod history;
#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use history::{Event, World, event};
use points::*;
use proptest::prelude::*;
use tree::*;

/// What happens to a standby.
#[derive(Clone, Debug)]
enum Step {
    Source(Event),
    Backup(Option<bool>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => event().prop_map(Step::Source),
        1 => any::<Option<bool>>().prop_map(Step::Backup),
        1 => Just(Step::Source(Event::Sync)),
    ]
}

/// Whether a point was made in the second of a remembered moment, and after it: what comes back for that moment is
/// the fault that `moments_within_the_second_of_a_point_are_told_apart` (points.rs) has, and would hide all others here.
fn is_blurred(remembered: &Remembered, backups: &[String]) -> bool {
    let second = |moment: &str| moment.get(..19).expect("whole seconds").to_owned();
    backups.iter().any(|backup| second(backup) == second(&remembered.moment) && *backup > remembered.moment)
}

fn live_and_look_back(mut world: World, history: &[Step]) {
    // What a cycle may cost is the business of histories.rs.
    world.is_thrifty = false;
    world.sync();
    let mut made = vec![(backup(&world.pair, &[]), expected_mirror(&world.pair))];
    let mut moments = vec![remember(&world.pair)];
    let mut backups = Vec::new();
    for step in history {
        match step {
            Step::Source(event) => {
                world.happen(event);
                if matches!(event, Event::Sync | Event::SyncAndSettle) {
                    moments.push(remember(&world.pair));
                }
            }
            Step::Backup(kind) => {
                let options: &[&str] = kind.map_or(&[], |full| if full { &["--full"] } else { &["--diff"] });
                let label = backup(&world.pair, options);
                backups.push(now());
                made.push((label, moments.last().expect("a moment").tree.clone()));
            }
        }
    }
    let mirror = &world.pair.mirror;
    for (label, tree) in &made {
        assert_point(mirror, label, tree);
    }
    for remembered in moments.iter().filter(|moment| !is_blurred(moment, &backups)) {
        assert_moment(mirror, remembered);
    }
    assert_restores(mirror, &[], &moments.last().expect("a moment").tree, true);
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
    #![proptest_config(config(16))]

    #[test]
    fn after_any_history_every_point_and_moment_comes_back(history in prop::collection::vec(step(), 1..50)) {
        live_and_look_back(World::new(Pair::new(), false), &history);
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn after_any_history_of_nested_folders_every_point_and_moment_comes_back(
        history in prop::collection::vec(step(), 1..50),
    ) {
        live_and_look_back(World::new(Pair::new(), true), &history);
    }
}
