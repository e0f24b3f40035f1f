//! What a peer may ask of this host: a table of verb by role, and nothing else.
//!
//! A peer's role is one *for a set*, by this host's own configuration; what the peer says of itself counts for nothing.
//! Whoever has stolen a master's key can do what a master can: send bad mail, which the guard and the restore points are
//! for. It cannot touch a restore point, change what is kept, or make this host a master: no peer can, whatever its role.

/// What a host is to this one, for one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It is the master of the set, and this host its slave.
    Master,
    /// It is a slave of the set, and this host the master.
    Slave,
    /// It has nothing to do with the set.
    Stranger,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Master, Self::Slave, Self::Stranger];
}

/// What can be asked of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Take batches of the set into its mirror.
    Replicate,
    /// Say what the mirror has: a dry run.
    Compare,
    /// Take a restore of the set, into the directory that is configured for that.
    Restore,
    /// Say how the set is.
    Status,
    /// Make a restore point.
    Backup,
    /// Remove restore points, or what they need; change how long they are kept.
    Expire,
    /// Become the set's master.
    Promote,
    /// Change what is configured here, the list of peers before all.
    Configure,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 8] = [
        Self::Replicate,
        Self::Compare,
        Self::Restore,
        Self::Status,
        Self::Backup,
        Self::Expire,
        Self::Promote,
        Self::Configure,
    ];

    /// As in "may not ...".
    pub fn words(self) -> &'static str {
        match self {
            Self::Replicate => "replicate into",
            Self::Compare => "compare with",
            Self::Restore => "restore to",
            Self::Status => "ask for the status of",
            Self::Backup => "make a restore point of",
            Self::Expire => "remove restore points of",
            Self::Promote => "promote the standby of",
            Self::Configure => "configure",
        }
    }

    /// The table.
    pub fn is_allowed(self, role: Role) -> bool {
        match (self, role) {
            (_, Role::Stranger) => false,
            (Self::Replicate | Self::Compare, Role::Master) => true,
            (Self::Replicate | Self::Compare, Role::Slave) => false,
            // What the standby has kept goes back to the host that lost it.
            (Self::Restore, Role::Slave) => true,
            (Self::Restore, Role::Master) => false,
            (Self::Status, Role::Master | Role::Slave) => true,
            // Somebody who is logged in here decides these, never another host.
            (Self::Backup | Self::Expire | Self::Promote | Self::Configure, Role::Master | Role::Slave) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as a person would draw it: master, slave, stranger.
    #[test]
    fn every_verb_is_allowed_to_whom_it_is_and_to_nobody_else() {
        let table = [
            (Verb::Replicate, [true, false, false]),
            (Verb::Compare, [true, false, false]),
            (Verb::Restore, [false, true, false]),
            (Verb::Status, [true, true, false]),
            (Verb::Backup, [false, false, false]),
            (Verb::Expire, [false, false, false]),
            (Verb::Promote, [false, false, false]),
            (Verb::Configure, [false, false, false]),
        ];
        assert_eq!(table.map(|(verb, _)| verb), Verb::ALL, "the table is whole");
        for (verb, expected) in table {
            assert_eq!(Role::ALL.map(|role| verb.is_allowed(role)), expected, "{verb:?}");
        }
    }
}
