//! Two hosts of the test's own: network namespaces joined by a cable, on which packets can be lost or refused.
//!
//! Only the connection is theirs; files and processes are those of the machine. Root is not needed: as an ordinary user
//! the namespaces belong to one in which that user is root.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::daemon::own_identity;

/// The standby's address on the cable.
pub const STANDBY: &str = "10.77.0.2";

/// Ends when its standard input does, so that nothing outlives the test. The outer shell is in the standby's namespace,
/// the inner one in the master's.
const LAY_THE_CABLE: &str = r#"ip link set lo up && unshare --net sh -euc '
ip link set lo up
ip link add eth0 type veth peer name eth0 netns "$1"
ip address add 10.77.0.1/24 dev eth0
ip link set eth0 up
far="nsenter --target $1 --net"
$far ip address add 10.77.0.2/24 dev eth0
$far ip link set eth0 up
echo "$$ $1"
exec cat' sh $$
exit"#;

/// What happens to packets on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What the master sends is lost without a trace, and so is what the standby sends.
    Silence,
    /// What the standby sends is lost: its answers, and all acknowledgements.
    AnswersLost,
    /// What the master sends is lost; it hears the standby, which waits.
    QuestionsLost,
    /// The master is told that there is no such connection; the standby is told nothing.
    Reset,
}

/// The two hosts; they end when this is dropped.
pub struct Network {
    holder: Child,
    master: String,
    standby: String,
}

impl Network {
    pub fn new() -> Self {
        let separate: &[&str] = if is_root() { &["--net"] } else { &["--net", "--user", "--map-root-user"] };
        let mut holder = Command::new("unshare")
            .args(separate)
            .args(["sh", "-c", LAY_THE_CABLE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("unshare (package util-linux) does not start: {error}"));
        let mut line = String::new();
        let output = holder.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the namespaces answer");
        let (master, standby) = line.trim().split_once(' ').unwrap_or_else(|| {
            panic!("no network namespaces here; ip (package iproute2) and unshare must be allowed to make them")
        });
        Self { master: master.to_owned(), standby: standby.to_owned(), holder }
    }

    /// The words that run a command on the master's side.
    pub fn at_master(&self) -> Vec<String> {
        entering(&self.master)
    }

    /// The words that run a command on the standby's side, as the test's own user.
    pub fn at_standby(&self) -> Vec<String> {
        let mut words = entering(&self.standby);
        if !is_root() {
            // sshd takes who seems to be root for root.
            let (user, group) = own_identity();
            words.extend(["unshare", "--user"].map(str::to_owned));
            words.extend([format!("--map-user={user}"), format!("--map-group={group}")]);
        }
        words
    }

    /// A connection is in trouble from the moment on at which the master has sent so many more bytes.
    pub fn break_after(&self, bytes: u64, trouble: Trouble) {
        let (to_standby, from_standby) = match trouble {
            Trouble::Silence => ("drop", "drop"),
            Trouble::AnswersLost => ("accept", "drop"),
            Trouble::QuestionsLost => ("drop", "accept"),
            Trouble::Reset => ("reject with tcp reset", "accept"),
        };
        self.filter(&format!(
            "flush ruleset
table inet trouble {{
    chain in {{
        type filter hook input priority 0
        meta l4proto tcp quota over {bytes} bytes ct mark set 1
        meta l4proto tcp ct mark 1 {to_standby}
    }}
    chain out {{
        type filter hook output priority 0
        meta l4proto tcp ct mark 1 {from_standby}
    }}
}}
"
        ));
    }

    /// From now on every packet arrives.
    pub fn heal(&self) {
        self.filter("flush ruleset\n");
    }

    fn filter(&self, rules: &str) {
        let words = entering(&self.standby);
        let mut nft = Command::new(&words[0])
            .args(&words[1..])
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsenter (package util-linux) starts");
        nft.stdin.take().expect("it is piped").write_all(rules.as_bytes()).expect("nft (package nftables) reads");
        assert!(nft.wait().expect("nft ends").success(), "nft (package nftables) refused:\n{rules}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _already_gone = self.holder.wait();
    }
}

fn is_root() -> bool {
    own_identity().0 == 0
}

fn entering(process: &str) -> Vec<String> {
    let separate: &[&str] = if is_root() { &["--net"] } else { &["--net", "--user", "--preserve-credentials"] };
    ["nsenter", "--target", process].iter().chain(separate).map(|word| (*word).to_owned()).collect()
}
