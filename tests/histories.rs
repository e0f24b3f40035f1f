//! Random histories of a mailbox: whatever a server and its users do between two cycles, and in whatever order,
//! the mirror equals the source after each cycle, and nothing travels that the mirror has already.

#[path = "support/history.rs"]
mod history;
#[path = "support/tree.rs"]
mod tree;

use history::{Event, World, event};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tree::*;

fn live_through(mut world: World, history: &[Event]) {
    for event in history {
        world.happen(event);
    }
    world.sync();
    world.pair.sync(&UNGUARDED).shipped_nothing();
    assert_mirrored(&world.pair);
}

/// Every case is a dozen processes; `PROPTEST_CASES` asks for more.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases },
        max_shrink_iters: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..default
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn after_any_history_the_mirror_equals_the_source(
        history in prop::collection::vec(event(), 1..40),
    ) {
        live_through(World::new(Pair::new(), false), &history);
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn after_any_history_of_nested_folders_the_mirror_equals_the_source(
        history in prop::collection::vec(event(), 1..40),
    ) {
        live_through(World::new(Pair::new(), true), &history);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn after_any_history_the_mirror_behind_a_pipe_equals_the_source(
        history in prop::collection::vec(event(), 1..40),
    ) {
        live_through(World::new(Pair::through_a_pipe(), false), &history);
    }
}
