//! `mailtwin status` and `mailtwin check`: what they say of a status file and of a standby, and how they end.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::process::Command;

use points::{backup, points_of, run as run_on};
use serde_json::{Value, json};
use tree::*;

/// A host with a configuration, and a status file that the test writes in the daemon's place.
struct Host {
    pair: Pair,
    role: &'static str,
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Host {
    /// A slave with a standby, or a master; `more` stands in the set's table.
    fn new(role: &'static str, more: &str) -> Self {
        let host = Self { pair: Pair::new(), role };
        make_scenario(&host.pair.source);
        host.pair.sync(&UNGUARDED);
        let path = if role == "slave" { &host.pair.mirror } else { &host.pair.source };
        let text = format!(
            "[host]\nname = \"mx1\"\nstate = {:?}\nstatus = {:?}\n[peer.mx2]\ntransport = \"ssh\"\naddress = {HOST:?}\n\
             [set.mail]\nrole = {role:?}\npath = {path:?}\npeers = [\"mx2\"]\n{more}\n",
            host.pair.state,
            host.pair.path("status.json"),
        );
        fs::write(host.pair.path("mailtwin.toml"), text).expect("a file");
        host
    }

    /// A daemon that is this very process writes this of its peer.
    fn daemon(&self, peer: &Value) -> &Self {
        self.write(&json!({ "version": 1, "host": "mx1", "pid": std::process::id(), "since": now() - 5000,
            "written": now(), "sets": { "mail": { "role": self.role, "path": "/x", "peers": { "mx2": peer } } } }))
    }

    fn write(&self, status: &Value) -> &Self {
        fs::write(self.pair.path("status.json"), status.to_string()).expect("a file");
        self
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(BINARY);
        command.args(arguments).env("MAILTWIN_CONFIG", self.pair.path("mailtwin.toml")).env_remove("MAILTWIN_STATE");
        finish(&mut command)
    }

    /// `check mail` gives one line with these words, and this exit code.
    #[track_caller]
    fn assert_checked(&self, arguments: &[&str], code: i32, words: &str) -> String {
        let run = self.run(&[&["check", "mail"], arguments].concat());
        assert_eq!(run.code(), Some(code), "{}", run.story());
        let printed = String::from_utf8(run.stdout.clone()).expect("text");
        let level = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][code as usize];
        assert!(printed.starts_with(&format!("MAILTWIN {level} - ")), "{}", run.story());
        assert!(printed.contains(words) && printed.trim_end().lines().count() == 1, "{words}\n{}", run.story());
        assert!(printed.matches('|').count() <= 1, "{}", run.story());
        printed
    }
}

fn following() -> Value {
    json!({ "state": "following", "since": now() - 50, "position": "1-42", "durable_at": now(), "in_sync_at": now() })
}

fn serving() -> Value {
    json!({ "state": "serving", "since": now() - 50 })
}

/// The disk of the machine that tests is nobody's business.
const ANY_DISK: [&str; 2] = ["--disk", "100%"];

#[test]
fn a_master_is_judged_by_its_peers() {
    let host = Host::new("master", "");
    let line = host.daemon(&following()).assert_checked(&[], 0, "mail: mx2 has everything");
    assert!(line.contains("| 'mail.mx2.lag'=0s;;60;0 'mail.mx2.folders'=0;;;0 'mail.mx2.failures'=0c;;;0"), "{line}");

    let mut behind = following();
    behind["folders_waiting"] = json!(3);
    behind["lag_seconds"] = json!(1000.0);
    host.daemon(&behind).assert_checked(&[], 2, "mail: mx2 is 3 folders behind, for 16 min");
    host.assert_checked(&["--lag", "5m,1h"], 1, "mail: mx2 is 3 folders behind, for 16 min");
    host.assert_checked(&["--lag", "1h"], 0, "'mail.mx2.folders'=3");

    let mut stopped = following();
    stopped["stopped"] = json!("stopped by the guard: 40 of 50 files\nwould go | all");
    host.daemon(&stopped).assert_checked(&[], 2, "mail: mx2: stopped by the guard: 40 of 50 files; would go / all");

    let waiting =
        json!({ "state": "waiting", "since": now(), "durable_at": now() - 900, "error": "connection refused" });
    host.daemon(&waiting).assert_checked(&[], 2, "mx2 (waiting) may lack the last 15 min: connection refused");
    let status = host.run(&["status", "mail"]).ended_with(0).printed();
    for words in ["mail: master of", "waiting", "connection refused", "lost if promoted  what changed since 20"] {
        assert!(status.contains(words), "{words}\n{status}");
    }
}

#[test]
fn a_daemon_that_does_not_run_is_told_of() {
    let host = Host::new("master", "");
    let gone = |pid: u32, written: i64| {
        json!({ "version": 1, "host": "mx1", "pid": pid, "since": 1, "written": written,
        "sets": { "mail": { "role": "master", "peers": { "mx2": following() } } } })
    };
    let mut child = Command::new("true").spawn().expect("coreutils");
    let pid = child.id();
    child.wait().expect("it ends");
    let rows = [
        (None, "mailtwin run is not running: there is no "),
        (Some(json!("nonsense")), "is no status file"),
        (Some(gone(pid, now())), &format!("its process {pid} is gone")),
        (Some(gone(std::process::id(), now() - 300)), "has written no status for 5 min"),
    ];
    for (status, words) in rows {
        if let Some(status) = status {
            host.write(&status);
        }
        host.assert_checked(&[], 2, words);
        let run = host.run(&["status"]).ended_with(1);
        assert!(run.printed().contains("NOT running") && run.printed().contains("mail: master of"), "{}", run.story());
        let run = host.run(&["status", "--json"]).ended_with(1);
        assert_eq!(run.report().0["running"], false, "{}", run.story());
    }
}

#[test]
fn a_slave_is_judged_by_its_restore_points_too() {
    let host = Host::new("slave", "");
    host.daemon(&serving()).assert_checked(&ANY_DISK, 1, "mail: there is no restore point yet");
    let label = backup(&host.pair, &[]);
    let line = host.assert_checked(&ANY_DISK, 0, "mail: a master is connected, the newest restore point is ");
    assert!(line.contains("'mail.points'=1;;;0") && line.contains("s;;93600;0 "), "{line}");
    // No file system that holds a mirror is this empty.
    host.assert_checked(&["--disk", "0%"], 2, "mail: the disk is ");

    run_on("verify", &host.pair.mirror, &[]).ended_with(0);
    host.assert_checked(&ANY_DISK, 0, "restore points were verified ");
    let status = host.run(&["status", "mail"]).ended_with(0).printed();
    for words in
        [&format!("1; the newest {label}"), "last verified", "last drill        never", "a master has not sent"]
    {
        assert!(status.contains(words), "{words}\n{status}");
    }
    let object = host.run(&["status", "--json", "mail"]).ended_with(0).report().0;
    let points = &object["sets"]["mail"]["points"];
    assert_eq!((&points["last_label"], &points["count"]), (&json!(label), &json!(1)), "{object}");
    assert!(points["verified"].as_i64().is_some_and(|time| time > now() - 500), "{object}");
    assert_eq!(object["sets"]["mail"]["peers"]["mx2"]["state"], "serving", "{object}");

    let gone = json!({ "state": "gone", "since": now() - 600 });
    host.daemon(&gone).assert_checked(&ANY_DISK, 2, "mail: no master has been connected for 10 min");
    fs::write(points_of(&host.pair.mirror).join(&label).join("manifest"), "torn").expect("it is damaged");
    host.daemon(&serving()).assert_checked(&ANY_DISK, 2, "mail: 1 restore points cannot be read: ");
}

#[test]
fn a_set_without_jobs_needs_no_restore_point() {
    let never =
        ["full", "differential", "expire", "verify", "drill", "compare"].map(|job| format!("{job} = \"never\"\n"));
    let host = Host::new("slave", &format!("[set.mail.schedule]\n{}", never.concat()));
    host.daemon(&serving()).assert_checked(&ANY_DISK, 0, "mail: a master is connected");
}

#[test]
fn a_standby_that_is_not_there_is_unknown() {
    let host = Host::new("slave", "");
    fs::rename(&host.pair.mirror, host.pair.path("elsewhere")).expect("it is moved");
    fs::create_dir(&host.pair.mirror).expect("a directory");
    host.daemon(&serving()).assert_checked(&ANY_DISK, 3, "is not a standby");
}

#[test]
fn what_cannot_be_meant_is_unknown_to_check_and_wrong_usage_of_status() {
    let host = Host::new("master", "");
    host.daemon(&following());
    for arguments in [&["--lag", "soon"][..], &["--disk", "101%"], &["--lag", "2h,1h"]] {
        host.assert_checked(arguments, 3, arguments[1]);
    }
    host.run(&["check", "--nonsense"]).ended_with(3);
    host.run(&["--config", "x", "check", "--nonsense"]).ended_with(3);
    host.run(&["points", "check", "--nonsense"]).ended_with(2);
    let unknown = host.run(&["check", "other"]).ended_with(3);
    assert!(unknown.printed().contains("UNKNOWN - there is no set other in "), "{}", unknown.story());
    let unknown = host.run(&["status", "other"]).ended_with(2);
    assert!(unknown.said().contains("(sets: mail)"), "{}", unknown.story());
    let absent = host.pair.path("absent.toml");
    let absent = absent.to_str().expect("a path of ours");
    let run = host.run(&["check", "--config", absent]).ended_with(3);
    assert!(run.printed().contains("there is no configuration"), "{}", run.story());
    host.run(&["status", "--config", absent]).ended_with(2);
}

#[test]
fn watching_without_a_terminal_tells_once() {
    let host = Host::new("master", "");
    let run = host.daemon(&following()).run(&["status", "--watch"]).ended_with(0);
    assert!(run.printed().contains("nothing that was heard of") && !run.stdout.contains(&0x1b), "{}", run.story());
}
