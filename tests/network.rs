//! The network between two hosts fails in the middle of a run: packets vanish in both directions or in one, or the
//! connection is reset. The run gives up by itself and names the host, the standby frees its lock, nothing is lost or
//! doubled, and when the network is back the next run catches up. A real ssh, over a cable of the test's own.

use std::process::Command;
use std::time::Duration;

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/network.rs"]
mod network;
#[path = "support/sshd.rs"]
mod sshd;
#[path = "support/tree.rs"]
mod tree;

use network::{Network, STANDBY, Trouble};
use sshd::Sshd;
use tree::*;

/// `--timeout` of the runs that are struck, in seconds: shorter than the silence between two signs of life.
const TIMEOUT: &str = "1";

/// How long a run may go on after its timeout: it sees whether the program that connects ends by itself.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(25);

/// How long a standby waits for a master that says nothing, and then some.
const STANDBY_GIVES_UP_WITHIN: Duration = Duration::from_secs(120 + 30);

/// Messages to bring across, of how many bytes: a run that is struck is struck while they travel.
const DELIVERED: u64 = 40;
const LENGTH: usize = 50_000;

/// What ssh itself sends before the session begins is less than this, in either direction.
const GREETINGS: u64 = 8_000;

/// A master and a standby. What is to end first stands first.
struct Hosts {
    sshd: Sshd,
    network: Network,
    pair: Pair,
}

impl Hosts {
    fn new() -> Self {
        let network = Network::new();
        let sshd = Sshd::start_at(&network.at_standby(), STANDBY);
        let mut hosts = Self { sshd, network, pair: Pair::new() };
        hosts.connect();
        hosts
    }

    fn connect(&mut self) {
        self.pair.rsh = Some(self.sshd.rsh_from(&self.network.at_master()));
    }

    /// A mailbox in sync, and then changes and mail that a run would have to bring across.
    fn with_something_to_do() -> Self {
        let hosts = Self::new();
        make_scenario(&hosts.pair.source);
        settle(&hosts.pair, "the first copy");
        change_scenario(&hosts.pair.source, 0);
        hosts.deliver(".Lists", LENGTH);
        hosts
    }

    /// Incompressible mail in a new folder.
    fn deliver(&self, folder: &str, length: usize) {
        let folder = Folder::create(&self.pair.source.join(folder));
        for number in 10_000..10_000 + DELIVERED {
            folder.deliver(number, &noise(number, length));
        }
        folder.rewrite_uidlist();
    }

    /// A run in trouble, which must give up and say with whom.
    fn struck(&self, bytes: u64, trouble: Trouble) {
        let after = format!("{trouble:?} after {bytes} bytes");
        self.network.break_after(bytes, trouble);
        let mut started = Started::new(&mut self.pair.command(&[&UNGUARDED[..], &["--timeout", TIMEOUT]].concat()));
        eventually(&format!("the run has given up after {after}"), GIVES_UP_WITHIN, || !started.is_running());
        let run = started.end();
        assert_eq!(run.code(), Some(1), "{after}: {}", run.story());
        run.spoke_clearly(HOST);
    }

    /// Whether a standby's end of a session is still there.
    fn is_locked(&self) -> bool {
        let locks = Command::new("flock").arg("--nonblock").arg(&self.pair.mirror).arg("true").status();
        !locks.expect("flock (package util-linux) starts").success()
    }

    /// Trouble in the middle of a run, and its end.
    fn strike_and_heal(&self, bytes: u64, trouble: Trouble) {
        let after = format!("{trouble:?} after {bytes} bytes");
        let witness = Witness::of(&self.pair);
        self.struck(bytes, trouble);
        self.network.heal();
        eventually(&format!("the lock is free after {after}"), Duration::from_secs(60), || !self.is_locked());
        witness.confirm(&self.pair, &after);
        settle(&self.pair, &after);
        self.pair.sync(&UNGUARDED).shipped_nothing();
    }
}

/// Trouble of each kind at each point of a session with changes and some 2 MB of mail, between hosts of their own. All at
/// once, because most of it is waiting.
fn survives(troubles: &[(Trouble, u64)]) {
    std::thread::scope(|scope| {
        for (trouble, bytes) in troubles {
            scope.spawn(|| Hosts::with_something_to_do().strike_and_heal(*bytes, *trouble));
        }
    });
}

#[test]
fn packets_lost_in_both_directions_or_in_one_are_given_up_and_caught_up() {
    survives(&[
        (Trouble::Silence, 0),
        (Trouble::Silence, GREETINGS + 500_000),
        (Trouble::Silence, GREETINGS + 1_500_000),
        (Trouble::AnswersLost, GREETINGS + 500_000),
        (Trouble::AnswersLost, GREETINGS + 1_500_000),
        (Trouble::QuestionsLost, GREETINGS + 1_000_000),
    ]);
}

#[test]
fn a_connection_that_is_reset_is_a_failure_and_caught_up() {
    survives(&[(Trouble::Reset, 2_000), (Trouble::Reset, GREETINGS + 1_000_000)]);
}

/// The master's host is gone: no packet will ever tell the standby so. Its lock ends with its patience, or when somebody
/// ends its sessions.
#[test]
fn a_standby_whose_master_vanished_does_not_keep_its_lock_for_ever() {
    let Hosts { sshd, network, mut pair } = {
        let hosts = Hosts::with_something_to_do();
        hosts.struck(GREETINGS + 1_000_000, Trouble::Silence);
        assert!(hosts.is_locked(), "the standby has given up already: it need not be ended by hand");
        hosts
    };
    let over_the_network = pair.rsh.take();
    pair.try_sync(&UNGUARDED).refused(&[10], &pair.mirror.display().to_string());
    pair.rsh = over_the_network;
    let sshd = if full_sweep() {
        sshd
    } else {
        say("the sessions of sshd are ended by hand; MAILTWIN_FULL_SWEEP=1 waits until they end by themselves");
        drop(sshd);
        network.heal();
        Sshd::start_at(&network.at_standby(), STANDBY)
    };
    let mut hosts = Hosts { sshd, network, pair };
    eventually("the lock is free", STANDBY_GIVES_UP_WITHIN, || !hosts.is_locked());
    hosts.network.heal();
    hosts.connect();
    settle(&hosts.pair, "the master vanished");
}

/// More than what waits between the two ends can take: the sending end cannot go on, and must give up all the same.
#[test]
fn a_link_that_goes_silent_with_much_still_to_send_is_given_up_and_caught_up() {
    let hosts = Hosts::new();
    hosts.deliver(".Large", 600_000);
    hosts.strike_and_heal(GREETINGS + 2_000_000, Trouble::Silence);
}
