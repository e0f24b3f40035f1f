//! Two daemons, master and slave, that were paired: what is touched on the one is on the other, whatever happens between.

#[path = "support/tree.rs"]
mod tree;

use mailtwin::peer::host_key;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tree::*;

/// How long something may take that takes milliseconds, on a machine that is busy.
const SOON: Duration = Duration::from_secs(120);

/// Two hosts in one directory: `a` is the master of the set `mail`, `b` its slave.
struct Hosts {
    /// The master's tree and the slave's mirror.
    pair: Pair,
    port: u16,
}

impl Hosts {
    /// Hosts with keys and configurations; `slave` goes into that of the slave.
    fn new(slave: &str) -> Self {
        let mut pair = Pair::new();
        let (source, mirror) = (pair.path("a/vmail"), pair.path("b/vmail"));
        (pair.source, pair.mirror) = (source, mirror);
        // A port that was free a moment ago.
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let hosts = Self { pair, port };
        for host in ["a", "b"] {
            fs::create_dir_all(hosts.at(host, "vmail")).expect("made");
            fs::create_dir_all(hosts.at(host, "state")).expect("made");
        }
        let key = |host: &str| host_key::load_or_make(&hosts.at(host, "key")).expect("a key").public().to_string();
        let (a, b) = (key("a"), key("b"));
        hosts.configure("a", "b", &format!("address = \"127.0.0.1:{port}\"\nkey = \"{b}\""), "master", "");
        hosts.configure("b", "a", &format!("key = \"{a}\""), "slave", slave);
        hosts
    }

    fn at(&self, host: &str, name: &str) -> PathBuf {
        self.pair.home().join(host).join(name)
    }

    fn configure(&self, host: &str, peer: &str, how: &str, role: &str, more: &str) {
        let at = |name: &str| self.at(host, name).display().to_string();
        let listen = if role == "slave" { format!("listen = \"127.0.0.1:{}\"\n", self.port) } else { String::new() };
        let text = format!(
            "[host]\nname = \"{host}\"\nstate = \"{}\"\nkey = \"{}\"\nstatus = \"{}\"\n{listen}\n[peer.{peer}]\ntransport = \"tls\"\n{how}\n\n\
             [set.mail]\npath = \"{}\"\nrole = \"{role}\"\npeers = [\"{peer}\"]\n\n{more}\n",
            at("state"),
            at("key"),
            at("status.json"),
            at("vmail")
        );
        fs::write(self.at(host, "mailtwin.toml"), text).expect("written");
        fs::set_permissions(self.at(host, "mailtwin.toml"), fs::Permissions::from_mode(0o640)).expect("set");
    }

    fn mail(&self) -> PathBuf {
        self.at("a", "vmail")
    }

    fn command(&self, host: &str, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(self.at(host, "mailtwin.toml")).args(words);
        command.env("MAILTWIN_STATE", self.at(host, "state")).stdin(Stdio::null());
        command
    }

    fn run(&self, host: &str) -> Daemon {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.at(host, "log")).expect("a log");
        let child = self.command(host, &["run"]).stdout(Stdio::null()).stderr(log).spawn().expect("runs");
        Daemon(Some(child))
    }

    fn log(&self, host: &str) -> String {
        fs::read_to_string(self.at(host, "log")).unwrap_or_default()
    }

    fn status(&self, host: &str) -> serde_json::Value {
        let text = fs::read_to_string(self.at(host, "status.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Whether the slave's mirror is the master's tree, to the last byte. A tree that changes while it is read is not.
    fn is_mirrored(&self) -> bool {
        std::panic::catch_unwind(|| is_mirrored(&self.pair)).unwrap_or(false)
    }

    fn eventually(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            if begin.elapsed() > SOON {
                let differing = differences(&expected_mirror(&self.pair), &actual_mirror(&self.pair));
                panic!(
                    "not so in time: {what}\n{differing:#?}\n--- a\n{}--- b\n{}{:#}",
                    self.log("a"),
                    self.log("b"),
                    self.status("a")
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_there(&self, message: &Path) -> bool {
        self.at("b", "vmail").join(message.strip_prefix(self.mail()).expect("of the master")).exists()
    }
}

/// A daemon; killed where nobody ended it.
struct Daemon(Option<Child>);

impl Daemon {
    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.0.as_ref().expect("it runs");
        let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process");
        rustix::process::kill_process(pid, signal).expect("told");
    }

    fn end(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.0.take().expect("it runs").wait().expect("ends").code()
    }

    fn kill(mut self) {
        let mut child = self.0.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("ends");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn what_is_touched_on_the_master_is_on_the_slave() {
    let hosts = Hosts::new("");
    make_mailbox(&hosts.mail().join("anna"), 1);
    let (slave, master) = (hosts.run("b"), hosts.run("a"));
    hosts.eventually("the first copy is there", || hosts.is_mirrored());
    let inbox = Folder(hosts.mail().join("anna"));
    let letter = inbox.deliver(5001, b"Subject: new\n\nmail\n");
    hosts.eventually("a message that was delivered", || hosts.is_there(&letter));
    let read = inbox.take_in(&letter, "S");
    hosts.eventually("it was read", || hosts.is_there(&read) && !hosts.is_there(&letter));
    // A mailbox is made, with a message in it at once; a folder gets another name; one goes.
    let ben = Folder::create(&hosts.mail().join("ben"));
    let first = ben.deliver(5002, b"Subject: first\n\nmail\n");
    rename(&hosts.mail().join("anna/.Sent"), &hosts.mail().join("anna/.Was-Sent"));
    fs::remove_dir_all(hosts.mail().join("anna/.Archive.2024")).expect("removed");
    hosts.eventually("folders are as they are", || hosts.is_there(&first) && hosts.is_mirrored());
    // From one mailbox to the other.
    let moved = ben.move_in(&read);
    hosts.eventually("it was moved", || hosts.is_there(&moved) && !hosts.is_there(&read));
    hosts.eventually("both say that they are equal", || {
        let peer = hosts.status("a")["sets"]["mail"]["peers"]["b"].clone();
        peer["state"] == "following" && peer["in_sync_at"].is_i64() && peer["error"].is_null()
    });
    assert_eq!(hosts.status("b")["sets"]["mail"]["peers"]["a"]["state"], "serving");
    assert_eq!((master.end(), slave.end()), (Some(0), Some(0)), "{}{}", hosts.log("a"), hosts.log("b"));
    assert!(hosts.is_mirrored());
}

#[test]
fn daemons_that_are_killed_go_on_where_they_were() {
    let hosts = Hosts::new("");
    make_mailbox(&hosts.mail().join("anna"), 2);
    let (mut slave, mut master) = (hosts.run("b"), hosts.run("a"));
    let inbox = Folder(hosts.mail().join("anna"));
    hosts.eventually("the first copy is there", || hosts.is_mirrored());
    for round in 0..4 {
        for number in 0..20 {
            inbox.deliver(6000 + round * 100 + number, b"Subject: under way\n\nmail\n");
            if number == 10 {
                match round % 2 {
                    0 => std::mem::replace(&mut slave, hosts.run("b")).kill(),
                    _ => std::mem::replace(&mut master, hosts.run("a")).kill(),
                }
            }
        }
        // The one that was begun while the other still had lock or port has ended: it is begun again.
        hosts.eventually("all of it is there", || {
            for (host, daemon) in [("a", &mut master), ("b", &mut slave)] {
                if daemon.0.as_mut().is_some_and(|child| child.try_wait().expect("is asked").is_some()) {
                    *daemon = hosts.run(host);
                }
            }
            hosts.is_mirrored()
        });
    }
    assert_eq!(messages_beneath(&hosts.mail()), messages_beneath(&hosts.at("b", "vmail")));
}

#[test]
fn restore_points_are_made_by_the_clock_while_mail_goes_on() {
    let hosts = Hosts::new(
        "[schedule]\ndifferential = \"* * * * *\"\nfull = \"0 0 1 1 *\"\nverify = \"never\"\ndrill = \"never\"\nexpire = \"never\"\njitter = \"0s\"\n\n[policy]\nkeep_full = \"all\"\n",
    );
    make_mailbox(&hosts.mail().join("anna"), 3);
    let (slave, master) = (hosts.run("b"), hosts.run("a"));
    hosts.eventually("the first copy is there", || hosts.is_mirrored());
    let points = || {
        let output = hosts.command("b", &["points", "--json", "mail"]).output().expect("runs");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default()
    };
    hosts.eventually("the first point, which is a full", || points().to_string().contains("F\""));
    let inbox = Folder(hosts.mail().join("anna"));
    let letter = inbox.deliver(7001, b"Subject: after the point\n\nmail\n");
    hosts.eventually("the master has come again", || hosts.is_there(&letter));
    hosts.eventually("a differential of it, beside the session", || points().to_string().contains("D\""));
    assert_eq!(hosts.status("b")["sets"]["mail"]["jobs"]["differential"]["code"], 0, "{}", hosts.log("b"));
    assert_eq!((master.end(), slave.end()), (Some(0), Some(0)), "{}{}", hosts.log("a"), hosts.log("b"));
}

#[test]
fn a_configuration_is_read_again_and_a_wrong_one_changes_nothing() {
    let hosts = Hosts::new("");
    let slave = hosts.run("b");
    hosts.eventually("it runs", || hosts.log("b").contains("process"));
    let file = hosts.at("b", "mailtwin.toml");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, format!("{text}\n[nonsense]\n")).expect("written");
    slave.signal(rustix::process::Signal::HUP);
    hosts.eventually("it says that it is wrong", || hosts.log("b").contains("stays as it was"));
    fs::write(&file, text).expect("written");
    slave.signal(rustix::process::Signal::HUP);
    hosts.eventually("it was read", || hosts.log("b").contains("was read again"));
    assert_eq!(slave.end(), Some(0));
}

#[test]
fn what_cannot_begin_says_why() {
    let hosts = Hosts::new("");
    fs::write(hosts.at("b", "mailtwin.toml"), "[host]\nnam = \"b\"\n").expect("written");
    let output = hosts.command("b", &["run"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("name"), "{output:?}");
    let other = Hosts::new("");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", other.port)).expect("taken");
    let output = other.command("b", &["run"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&other.port.to_string()), "{output:?}");
}

#[test]
fn a_slave_that_is_away_is_said_once_and_tried_again() {
    let hosts = Hosts::new("");
    make_mailbox(&hosts.mail().join("anna"), 4);
    let master = hosts.run("a");
    hosts.eventually("it waits", || hosts.status("a")["sets"]["mail"]["peers"]["b"]["state"] == "waiting");
    hosts.eventually("it has tried again", || {
        hosts.status("a")["sets"]["mail"]["peers"]["b"]["failures"].as_u64().is_some_and(|failures| failures > 1)
    });
    assert_eq!(hosts.log("a").matches("cannot reach").count().max(1), 1, "{}", hosts.log("a"));
    let slave = hosts.run("b");
    hosts.eventually("everything is there", || hosts.is_mirrored());
    assert_eq!((master.end(), slave.end()), (Some(0), Some(0)));
}
