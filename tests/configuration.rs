//! The configuration as people meet it: written by init, looked at by check-config, and meant by a set's name.

#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tree::*;

/// Where hosts keep what a test needs.
struct Hosts {
    pair: Pair,
    /// The master's configuration, and the slave's.
    master: PathBuf,
    slave: PathBuf,
}

/// Nothing of this process's environment sways it.
fn mailtwin(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_remove("MAILTWIN_CONFIG").env_remove("MAILTWIN_STATE");
    command
}

fn run(arguments: &[&str]) -> Run {
    finish(&mut mailtwin(arguments))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

impl Hosts {
    /// A master whose set `mail` goes by a script in ssh's place to a slave, which has a configuration of its own.
    fn new(more: &str) -> Self {
        let pair = Pair::new();
        let (master, slave) = (pair.path("master.toml"), pair.path("slave.toml"));
        let connect = pair.path("connect.sh");
        // The far end has its own environment.
        script(&connect, &format!("shift; MAILTWIN_CONFIG={} exec \"$@\"", slave.display()));
        let [source, mirror, state, master_state] =
            ["source", "mirror", "slave-state", "state"].map(|name| pair.path(name));
        let text = format!(
            "[host]\nstate = {master_state:?}\n[peer.mx2]\ntransport = \"ssh\"\naddress = {HOST:?}\nrsh = {:?}\n\
             remote_path = {BINARY:?}\n[set.mail]\nrole = \"master\"\npath = {source:?}\npeers = [\"mx2\"]\n{more}\n",
            rsh(&connect)
        );
        fs::write(&master, text).expect("a file");
        let text =
            format!("[set.mail]\nrole = \"slave\"\npath = {mirror:?}\nstate = {state:?}\n[policy]\nkeep_full = 2\n");
        fs::write(&slave, text).expect("a file");
        Self { pair, master, slave }
    }

    fn sync(&self, options: &[&str]) -> Run {
        run(&[&["sync", "--config", path(&self.master), "mail"], options].concat())
    }

    /// A command of the slave.
    fn on_slave(&self, arguments: &[&str]) -> Run {
        finish(mailtwin(arguments).env("MAILTWIN_CONFIG", &self.slave).current_dir(self.pair.home()))
    }
}

fn said(run: &Run) -> String {
    format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
}

// ---- init and check-config

#[test]
fn what_init_writes_is_fine_and_is_never_overwritten() {
    for role in ["master", "slave"] {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("etc/mailtwin.toml");
        run(&["init", "--role", role, "--output", path(&file)]).ended_with(0);
        assert_eq!(fs::metadata(&file).expect("is there").mode() & 0o7777, 0o640);
        let checked = run(&["check-config", path(&file)]).ended_with(0);
        assert!(said(&checked).contains(": fine"), "{}", said(&checked));

        fs::write(&file, "# mine").expect("a file");
        let again = run(&["init", "--output", path(&file)]).ended_with(1);
        assert!(said(&again).contains("is there already") && said(&again).contains(path(&file)), "{}", said(&again));
        assert_eq!(fs::read_to_string(&file).expect("is there"), "# mine");
        assert_eq!(run(&["init", "--role", role, "--output", "-", "--config", path(&file)]).ended_with(0).stderr, b"");
    }
}

#[test]
fn init_writes_where_the_configuration_is_looked_for() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("mine.toml");
    run(&["init", "--config", path(&file)]).ended_with(0);
    run(&["check-config", "--config", path(&file)]).ended_with(0);
    finish(mailtwin(&["check-config"]).env("MAILTWIN_CONFIG", &file)).ended_with(0);
}

#[test]
fn everything_wrong_is_named_with_its_line_and_what_to_do() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("mailtwin.toml");
    let text = "[set.mail]\npth = \"/srv\"\nrole = \"master\"\npeers = [\"mx3\"]\n\n[peer.mx2]\ntransport = \"ssh\"\naddress = \"mx2\"\n\n\
                [schedule]\nfull = \"0 0 31 2 *\"\ntimezone = \"Europe/Berlln\"\n";
    fs::write(&file, text).expect("a file");
    let checked = run(&["check-config", path(&file)]).ended_with(1);
    let lines = String::from_utf8(checked.stdout.clone()).expect("text");
    for wanted in [
        ":2: set.mail.pth: there is no such key: did you mean path?",
        ":11: schedule.full: \"0 0 31 2 *\" never comes",
        ":12: schedule.timezone: there is no time zone \"Europe/Berlln\": did you mean Europe/Berlin?",
    ] {
        assert!(lines.contains(&format!("{}{wanted}", file.display())), "{wanted} is not in\n{lines}");
    }
    let checked = run(&["check-config", "--json", path(&file)]).ended_with(1);
    let object: Value = serde_json::from_slice(&checked.stdout).expect("an object");
    assert_eq!(object["fine"], false);
    let findings = object["findings"].as_array().expect("a list");
    assert!(findings.iter().any(|finding| finding["line"] == 2 && finding["key"] == "set.mail.pth"), "{object}");
    assert!(findings.iter().all(|finding| finding["severity"].is_string() && finding["what"].is_string()));
}

#[test]
fn a_file_that_is_not_there_is_said_and_wrong_usage_is_2() {
    let missing = run(&["check-config", "/nowhere/mailtwin.toml"]).ended_with(1);
    assert!(said(&missing).contains("/nowhere/mailtwin.toml") && said(&missing).contains("mailtwin init"));
    run(&["check-config", "--no-such-option"]).ended_with(2);
    run(&["init", "--role", "king"]).ended_with(2);
}

#[test]
fn a_secret_key_that_others_can_read_and_paths_that_are_not_there_are_found() {
    let home = tempfile::tempdir().expect("a directory");
    let (file, key) = (home.path().join("mailtwin.toml"), home.path().join("key"));
    fs::write(&key, "secret").expect("a file");
    let text = |role: &str, set: &Path| {
        format!(
            "[host]\nkey = {key:?}\n[peer.mx2]\ntransport = \"ssh\"\naddress = \"mx2\"\n[policy]\nkeep_full = 1\n\
             [set.mail]\nrole = {role:?}\npath = {set:?}\npeers = [\"mx2\"]\n"
        )
    };
    let check = |code| said(&run(&["check-config", path(&file)]).ended_with(code));
    set_mode(&key, 0o644);
    fs::write(&file, text("master", home.path())).expect("a file");
    assert!(check(1).contains(":2: host.key: others than its owner may read or change"));
    set_mode(&key, 0o600);
    check(0);
    fs::write(&file, text("master", &home.path().join("gone"))).expect("a file");
    assert!(check(1).contains("is not there"));
    fs::write(&file, text("slave", &home.path().join("gone"))).expect("a file");
    assert!(check(0).contains("warning: set.mail.path"));
    set_mode(&file, 0o666);
    assert!(check(1).contains("anybody on this host may write this file"));
}

// ---- sets by their names

#[test]
fn sync_takes_the_name_of_a_set_and_the_slave_knows_where_it_is() {
    let hosts = Hosts::new("exclude = [\"*.bak\"]");
    fs::create_dir_all(hosts.pair.source.join("cur")).expect("a directory");
    fs::write(hosts.pair.source.join("letter"), "dear").expect("a file");
    fs::write(hosts.pair.source.join("letter.bak"), "dear").expect("a file");
    let synced = hosts.sync(&["--json"]).ended_with(0);
    let object: Value = serde_json::from_slice(&synced.stdout).expect("an object");
    assert_eq!((&object["set"], &object["peer"], &object["in_sync"]), (&"mail".into(), &"mx2".into(), &true.into()));
    assert_eq!(fs::read(hosts.pair.mirror.join("letter")).expect("it came"), b"dear");
    assert!(!hosts.pair.mirror.join("letter.bak").exists(), "the set's filters count");
    assert!(!hosts.pair.mirror.join(".mailtwin").exists() && hosts.pair.path("slave-state").is_dir());
    assert!(hosts.pair.state.is_dir(), "the master's state is where its configuration says");

    // Commands of the slave take the name, too, and find the state.
    hosts.on_slave(&["backup", "mail"]).ended_with(0);
    let points = hosts.on_slave(&["points", "--json", "mail"]).ended_with(0);
    let points: Value = serde_json::from_slice(&points.stdout).expect("a list");
    assert_eq!(points.as_array().map(Vec::len), Some(1));
    hosts.on_slave(&["verify", "mail"]).ended_with(0);
    let listed = hosts.on_slave(&["ls", "mail"]).ended_with(0);
    assert!(said(&listed).contains("letter"), "{}", said(&listed));
}

#[test]
fn the_mirror_of_the_masters_file_needs_no_file_on_the_slave() {
    let pair = Pair::new();
    let hosts = Hosts::new(&format!("mirror = {:?}", pair.mirror));
    fs::remove_file(&hosts.slave).expect("the slave's file");
    fs::write(hosts.pair.source.join("letter"), "dear").expect("a file");
    hosts.sync(&[]).ended_with(0);
    assert!(pair.mirror.join("letter").exists() && pair.mirror.join(".mailtwin").is_dir());
}

#[test]
fn what_is_typed_counts_more_than_the_file() {
    let hosts = Hosts::new("max_delete = \"100%\"");
    for number in 0..40 {
        fs::write(hosts.pair.source.join(format!("letter-{number}")), "dear").expect("a file");
    }
    hosts.sync(&[]).ended_with(0);
    for number in 0..39 {
        fs::remove_file(hosts.pair.source.join(format!("letter-{number}"))).expect("it goes");
    }
    hosts.sync(&["--max-delete", "5"]).ended_with(26);
    hosts.sync(&[]).ended_with(0);
    assert!(!hosts.pair.mirror.join("letter-3").exists(), "the file's limit lets them go");
}

#[test]
fn a_directory_of_that_name_wins_and_this_is_said() {
    let hosts = Hosts::new("");
    fs::write(hosts.pair.source.join("letter"), "dear").expect("a file");
    hosts.sync(&[]).ended_with(0);
    hosts.on_slave(&["backup", "mail"]).ended_with(0);
    fs::create_dir(hosts.pair.path("mail")).expect("a directory");
    let taken = hosts.on_slave(&["points", "mail"]).ended_with(1);
    assert!(said(&taken).contains("taken for the directory ./mail, not for the set of this name"), "{}", said(&taken));
}

#[test]
fn a_name_that_is_none_is_refused_with_those_that_are() {
    let hosts = Hosts::new("");
    let refused = hosts.on_slave(&["points", "mial"]).ended_with(2);
    assert!(
        said(&refused).contains("there is no set mial") && said(&refused).contains("sets: mail"),
        "{}",
        said(&refused)
    );
    let refused = hosts.on_slave(&["sync", "mail"]).ended_with(2);
    assert!(said(&refused).contains("this host is a slave"), "{}", said(&refused));
    let refused = run(&["points", "--config", path(&hosts.master), "mail"]).ended_with(2);
    assert!(said(&refused).contains("its restore points are on mx2"), "{}", said(&refused));
    let refused = run(&["sync", "/srv/vmail"]).ended_with(2);
    assert!(said(&refused).contains("DEST is missing"), "{}", said(&refused));
    // The slave's file knows the set by another name.
    fs::write(&hosts.slave, "[policy]\nkeep_full = 1\n").expect("a file");
    let refused = hosts.sync(&[]).ended_with(1);
    assert!(said(&refused).contains("the configuration there has no set mail"), "{}", said(&refused));
}

#[test]
fn a_configuration_is_read_only_where_a_name_needs_it() {
    let hosts = Hosts::new("");
    fs::write(&hosts.slave, "this is no TOML").expect("a file");
    fs::create_dir(hosts.pair.path("there")).expect("a directory");
    let by_path = hosts.on_slave(&["points", "./there"]).ended_with(1);
    assert!(said(&by_path).contains("is not a standby"), "{}", said(&by_path));
    let by_name = hosts.on_slave(&["points", "mail"]).ended_with(1);
    assert!(said(&by_name).contains("slave.toml:1:"), "{}", said(&by_name));
    let missing = run(&["points", "--config", "/nowhere.toml", "mail"]).ended_with(1);
    assert!(said(&missing).contains("there is no configuration /nowhere.toml"), "{}", said(&missing));
}
