//! The rows of `versus_backup`: `real` (fulls, differentials and restores of real mail), `attachment`, and `million` (what
//! depends on the number of messages alone).
//!
//! A `keeper` keeps a tree as it was: `restic` `borg` `mailtwin`; `turnover` is what happens to the tree meanwhile; `proof`
//! compares what was restored; `line` is a line of a table.

pub mod attachment;
pub mod borg;
pub mod keeper;
pub mod line;
pub mod mailtwin;
pub mod million;
pub mod proof;
pub mod real;
pub mod restic;
pub mod turnover;

use crate::support::Outcome;
use crate::support::options::{Arguments, Options};

pub const USAGE: &str = "\
cargo bench --bench versus_backup -- [FILTER]... [OPTIONS]

Needs restic, borg and GNU time; on Debian: apt-get install restic borgbackup time

FILTER       rows whose name contains it: full differential restore-all restore-one attachment find expire manifest memory
--quick      everything 20 times smaller, two runs: a smoke test, not a measurement
--scale N    everything N times smaller
--runs N     measured runs of each row (full and restore-all 3; attachment 1; the others 5;
             of restic and borg with a million messages 1)
--dir DIR    make the trees in DIR and leave them there for the next time (25 GB must be free)
--mailtwin-only
             leave restic and borg out
--small-peers
             leave restic and borg out with a million messages, where they take many minutes
--settle S   seconds to wait after a mass deletion where caches cannot be dropped (370)
--space GB   largest room to take on the disk (20)";

const ROWS: [&str; 9] =
    ["full", "differential", "restore-all", "restore-one", "attachment", "find", "expire", "manifest", "memory"];

/// What was asked for.
pub struct Wishes {
    pub options: Options,
    pub mailtwin_only: bool,
    pub small_peers: bool,
}

impl Wishes {
    pub fn parse(typed: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut arguments = Arguments::new(typed, USAGE);
        let mailtwin_only = arguments.flag("--mailtwin-only");
        let small_peers = arguments.flag("--small-peers");
        Ok(Self { options: arguments.options(&ROWS, 20)?, mailtwin_only, small_peers })
    }

    /// Whether any of these rows is wanted.
    pub fn any(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| self.options.wants(row))
    }
}
