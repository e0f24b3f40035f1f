//! What another reading of the file changed: for a daemon that is told to read it again.

use super::{Configuration, Set};
use std::collections::BTreeSet;

/// What changed between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Sets that are new.
    pub added: BTreeSet<String>,
    /// Sets that are gone.
    pub removed: BTreeSet<String>,
    /// Sets of which something changed: what, by the keys of the file. `peers` is also named where a peer's own table
    /// changed.
    pub changed: Vec<(String, BTreeSet<&'static str>)>,
    /// Tables that are of no set: `host`, `limits`, `log`, `metrics`.
    pub tables: BTreeSet<&'static str>,
}

impl Difference {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What changed, set by set.
pub fn difference(before: &Configuration, after: &Configuration) -> Difference {
    let names = |one: &Configuration, other: &Configuration| {
        one.sets.keys().filter(|name| !other.sets.contains_key(*name)).cloned().collect()
    };
    let both = after.sets.iter().filter_map(|(name, set)| Some((name, before.sets.get(name)?, set)));
    let changed = both.map(|(name, old, new)| {
        let mut keys = keys(old, new);
        if new.peers.iter().any(|peer| before.peers.get(peer) != after.peers.get(peer)) {
            keys.insert("peers");
        }
        (name.clone(), keys)
    });
    let tables = [
        ("host", before.host != after.host),
        ("limits", before.limits != after.limits),
        ("log", before.log != after.log),
        ("metrics", before.metrics != after.metrics),
    ];
    Difference {
        added: names(after, before),
        removed: names(before, after),
        changed: changed.filter(|(_, keys)| !keys.is_empty()).collect(),
        tables: tables.into_iter().filter(|(_, differs)| *differs).map(|(table, _)| table).collect(),
    }
}

/// The keys of two sets of one name that differ. Taken apart, so that no field is forgotten.
fn keys(old: &Set, new: &Set) -> BTreeSet<&'static str> {
    #[rustfmt::skip]
    let Set {
        name: _, path, kind, role, peers, mirror, state, filters, chown, max_delete, over_live, schedule, policy, hooks,
    } = old;
    let differs = [
        ("path", *path != new.path),
        ("kind", *kind != new.kind),
        ("role", *role != new.role),
        ("peers", *peers != new.peers),
        ("mirror", *mirror != new.mirror),
        ("state", *state != new.state),
        ("filters", *filters != new.filters),
        ("chown", *chown != new.chown),
        ("max_delete", *max_delete != new.max_delete),
        ("over_live", *over_live != new.over_live),
        ("schedule", *schedule != new.schedule),
        ("policy", *policy != new.policy),
        ("hooks", *hooks != new.hooks),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
