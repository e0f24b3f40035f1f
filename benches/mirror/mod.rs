//! The rows of `versus_rsync`: `first_copy` `changes` `live` `idle`; `pair` keeps two mirrors of one source, `rsync` runs
//! what mailtwin is compared with.

pub mod changes;
pub mod first_copy;
pub mod idle;
pub mod live;
pub mod pair;
pub mod rsync;

use crate::support::Outcome;
use crate::support::options::{Arguments, Options};

pub const USAGE: &str = "\
cargo bench --bench versus_rsync -- [FILTER]... [OPTIONS]

FILTER       rows whose name contains it: idle flags seen rename move link uidlist first-copy live
--quick      everything 20 times smaller, two runs: a smoke test, not a measurement
--scale N    everything N times smaller
--runs N     measured runs of each row (5; first-copy 3; live 20)
--dir DIR    make the trees in DIR and leave them there for the next time (14 GB must be free)
--rsync-only leave mailtwin out
--verify     also count, with strace, the messages that a flag change makes mailtwin open
--settle S   seconds to wait after a mass deletion where caches cannot be dropped (370)
--space GB   largest room to take on the disk (12)";

const ROWS: [&str; 9] = ["idle", "flags", "seen", "rename", "move", "link", "uidlist", "first-copy", "live"];

/// What was asked for.
pub struct Wishes {
    pub options: Options,
    pub rsync_only: bool,
    pub verify: bool,
}

impl Wishes {
    pub fn parse(typed: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut arguments = Arguments::new(typed, USAGE);
        let rsync_only = arguments.flag("--rsync-only");
        let verify = arguments.flag("--verify");
        Ok(Self { options: arguments.options(&ROWS, 12)?, rsync_only, verify })
    }
}
