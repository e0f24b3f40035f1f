//! A private sshd, started as root or as an ordinary user, into which the test's own user may log in: on loopback, or in
//! a network namespace of the test's.

#![allow(dead_code, reason = "every test target takes the part that it needs")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Daemon, holds_soon, own_identity};

const PROGRAM: &str = "/usr/sbin/sshd";

const LOOPBACK: &str = "127.0.0.1";

/// The port in a namespace where nobody else is.
const OWN_PORT: u16 = 2222;

/// Where sshd shuts in its unprivileged child; it does not start as root without it.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// Another process may take the port that was found free before sshd has bound it.
const PORTS_TO_TRY: usize = 5;

/// A running sshd; dropping it stops it.
pub struct Sshd {
    // Before the directory, so that the server has ended when its files go.
    daemon: Daemon,
    runtime: TempDir,
    address: String,
    port: u16,
}

impl Sshd {
    pub fn start() -> Self {
        for _ in 0..PORTS_TO_TRY {
            if let Some(server) = Self::start_on(&[], LOOPBACK, free_port()) {
                return server;
            }
        }
        panic!("no free port for sshd in {PORTS_TO_TRY} attempts");
    }

    /// In a namespace, at an address that is there: `inside` are the words that run a command there.
    pub fn start_at(inside: &[String], address: &str) -> Self {
        Self::start_on(inside, address, OWN_PORT).expect("nobody else is there to take the port")
    }

    /// None if the port is taken by now.
    fn start_on(inside: &[String], address: &str, port: u16) -> Option<Self> {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: install openssh-server, openssh-client");
        if own_identity().0 == 0 {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(PRIVILEGE_SEPARATION);
            made.unwrap_or_else(|error| panic!("{PRIVILEGE_SEPARATION}: {error}"));
        }
        // Not in $TMPDIR: the paths become words of a command that is split at blanks.
        let runtime = tempfile::Builder::new().prefix("sshd-").tempdir_in("/tmp").expect("/tmp can be written");
        let at = |name: &str| runtime.path().join(name);
        make_key(&at("host_key"));
        make_key(&at("client_key"));
        fs::copy(at("client_key.pub"), at("authorized_keys")).expect("the key was made");
        fs::write(at("sshd_config"), configuration_text(runtime.path(), address, port))
            .expect("the configuration is written");
        let configuration = at("sshd_config");
        let sshd = [PROGRAM, "-D", "-e", "-f", configuration.to_str().expect("the path is ASCII")];
        let words: Vec<&str> = inside.iter().map(String::as_str).chain(sshd).collect();
        let daemon = Daemon::start(Path::new(words[0]), &words[1..], &at("output"));
        let mut server = Self { daemon, runtime, address: address.to_owned(), port };
        let mut ended = false;
        let up = holds_soon(|| {
            ended = server.daemon.ended().is_some();
            ended || server.said().contains("Server listening on")
        });
        if ended && server.said().contains("Address already in use") {
            return None;
        }
        assert!(up && !ended, "sshd does not start:\n{}", server.said());
        Some(server)
    }

    /// The command that logs in here, for `--rsh`.
    pub fn rsh(&self) -> String {
        self.rsh_to(self.port)
    }

    /// The same command for a port where nobody listens.
    pub fn rsh_to_nobody(&self) -> String {
        self.rsh_to(free_port())
    }

    /// What the server wrote; it says why a login was refused.
    pub fn said(&self) -> String {
        fs::read_to_string(self.runtime.path().join("output")).unwrap_or_default()
    }

    /// The same command for another place on the network, and whatever the host is called.
    pub fn rsh_from(&self, inside: &[String]) -> String {
        let address = &self.address;
        format!("{} {} -l {} -o HostName={address}", inside.join(" "), self.rsh(), own_user())
    }

    fn rsh_to(&self, port: u16) -> String {
        let runtime = self.runtime.path().to_str().expect("the path is ASCII");
        format!(
            "ssh -F none -p {port} -i {runtime}/client_key -o IdentitiesOnly=yes -o BatchMode=yes \
             -o UserKnownHostsFile={runtime}/known_hosts -o GlobalKnownHostsFile=/dev/null \
             -o StrictHostKeyChecking=no -o AddressFamily=inet -o LogLevel=ERROR"
        )
    }
}

/// The name that the test's user logs in by.
pub fn own_user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id starts");
    assert!(output.status.success(), "sshd lets in no user without a name");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn make_key(path: &PathBuf) {
    let output = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("ssh-keygen (package openssh-client) does not start: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((LOOPBACK, 0)).expect("loopback is up");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn configuration_text(runtime: &Path, address: &str, port: u16) -> String {
    let runtime = runtime.to_str().expect("the path is ASCII");
    format!(
        "ListenAddress {address}
Port {port}
HostKey {runtime}/host_key
PidFile {runtime}/pid
AuthorizedKeysFile {runtime}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
LogLevel VERBOSE
"
    )
}
