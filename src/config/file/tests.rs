//! What a configuration means, what is wrong with it, and that nobody has to look for a key.

use super::*;
use std::collections::BTreeSet;

fn defaults() -> Defaults {
    Defaults { host: "mx1".to_owned(), state: "/var/lib/mailtwin".into(), timezone: TimeZone::UTC }
}

fn reading(text: &str) -> Reading {
    read(text, &defaults())
}

/// Of a text in which nothing is wrong.
#[track_caller]
fn good(text: &str) -> Configuration {
    let reading = reading(text);
    let errors: Vec<_> = reading.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    reading.configuration
}

/// What is wrong, as it is shown.
fn shown(text: &str) -> Vec<String> {
    reading(text).findings.iter().map(Finding::to_string).collect()
}

/// That something is wrong with a text, in these words.
#[track_caller]
fn wrong(text: &str, words: &str) {
    let shown = shown(text);
    assert!(shown.iter().any(|line| line.contains(words)), "\"{words}\" is not in {shown:#?}");
}

const PAIR: &str = "[peer.mx2]\ntransport = \"ssh\"\naddress = \"vmail@mx2\"\n[set.mail]\npath = \"/var/vmail\"\nrole = \"master\"\npeers = [\"mx2\"]\n";

/// The example with every example in it.
fn uncommented(role: Role) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    example(role).lines().map(line).collect()
}

/// `set.mail.schedule.full` and `schedule.full` are one key, `schedule.full`.
fn common(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    match parts.as_slice() {
        ["set", _, table @ ("schedule" | "policy" | "hooks"), rest @ ..] => {
            std::iter::once(*table).chain(rest.iter().copied()).collect::<Vec<_>>().join(".")
        }
        ["set" | "peer", _, rest @ ..] if !rest.is_empty() => format!("{}.NAME.{}", parts[0], rest.join(".")),
        _ => key.to_owned(),
    }
}

/// Every key that the code asks for, without tables and without what is in a window.
fn keys() -> BTreeSet<String> {
    let both = [reading(&uncommented(Role::Master)), reading(&uncommented(Role::Slave))];
    let tables = ["host", "peer", "set", "schedule", "policy", "hooks", "limits", "log", "metrics"];
    let keys = both.iter().flat_map(|reading| reading.keys.iter().map(|key| common(key)));
    let is_key =
        |key: &String| !tables.contains(&key.as_str()) && key.split('.').count() < 4 && !key.contains("quiet.");
    keys.filter(is_key).filter(|key| !key.contains("bandwidth.")).collect()
}

#[test]
fn every_key_is_in_what_init_writes_and_all_of_that_is_good() {
    let mut written = BTreeSet::new();
    for role in [Role::Master, Role::Slave] {
        let text = uncommented(role);
        // With `transport = "ssh"` a key is wrong, and with "tls" what is of ssh.
        let without = |keys: &[&str]| -> String {
            let is_other = |line: &&str| !keys.iter().any(|key| line.starts_with(key));
            text.lines().filter(is_other).map(|line| format!("{line}\n")).collect()
        };
        let by_ssh = without(&["key = \"sha256:"]);
        let by_tls = without(&["rsh", "remote_path", "transport", "address"]);
        let by_tls = by_tls.replace("[peer.mx2]", "[peer.mx2]\naddress = \"mx2\"");
        for text in [&by_ssh, &by_tls] {
            good(text);
            written.extend(reading(text).lines.keys().map(|key| common(key)));
        }
        // As it is written it is good, too.
        good(&example(role));
    }
    let missing: Vec<_> = keys().into_iter().filter(|key| !written.contains(key)).collect();
    assert!(missing.is_empty(), "init does not show {missing:?}");
}

#[test]
fn the_page_has_every_key_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/man/mailtwin.toml.5");
    let page = std::fs::read_to_string(path).expect("the page");
    let (mut table, mut named, mut is_term) = (None, BTreeSet::new(), false);
    for line in page.lines() {
        if let Some(section) = line.strip_prefix(".SH ") {
            table = section.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::to_owned);
        } else if line == ".TP" {
            is_term = true;
        } else if std::mem::take(&mut is_term) {
            let Some(table) = &table else { continue };
            let words = line.trim_start_matches(".BR").trim_start_matches(".B").split([' ', ',', '"']);
            named.extend(words.filter(|word| !word.is_empty()).map(|key| format!("{table}.{key}")));
        }
    }
    assert_eq!(named, keys());
}

#[test]
fn what_is_said_is_what_is_meant() {
    let text = "[host]\nname = \"mx1\"\nlisten = \"none\"\n\
        [peer.mx2]\naddress = \"mx2.example.org\"\nkey = \"sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\ntimeout = \"never\"\nlevel = 9\n\
        [set.mail]\npath = \"/var/vmail/\"\nrole = \"master\"\npeers = [\"mx2\"]\nkind = \"maildir\"\nexclude = [\"a\"]\ninclude = [\"b\"]\n\
        chown = \"5:6\"\nmax_delete = \"5%\"\n[set.mail.schedule]\nfull = \"never\"\ndifferential = \"never\"\n[set.mail.policy]\nkeep_full = \"all\"\n\
        [schedule]\ntimezone = \"Europe/Berlin\"\njitter = \"10m\"\nbandwidth = [{ from = \"22:00\", to = \"24:00\", days = [\"mon\"], rate = \"2M\" }]\n\
        [policy]\nkeep_full = 4\nkeep_log = \"2w\"\n[hooks]\npre_sync = \"exit 1\"\npost_sync = [\"a\", \"b c\"]\n\
        [limits]\nbandwidth = \"500\"\ngather = \"50ms\"\n[log]\nformat = \"json\"\nlevel = \"warn\"\n[metrics]\nlisten = \"[::1]:9411\"\n";
    let found = good(text);
    let peer = &found.peers["mx2"];
    let key = PeerKey(std::array::from_fn(|at| u8::try_from(at).expect("below 32")));
    let transport = Transport::Tls { address: Some(Address { host: "mx2.example.org".into(), port: 8946 }), key };
    assert_eq!((&peer.transport, peer.timeout, peer.level), (&transport, None, Some(9)));
    let set = &found.sets["mail"];
    assert_eq!(
        (set.path.as_os_str(), set.role, set.kind),
        ("/var/vmail".as_ref(), Role::Master, Some(SetKind::Maildir))
    );
    assert_eq!(
        (&set.filters[..], set.chown, set.max_delete),
        (&["a".into(), "!b".into()][..], Some((Some(5), Some(6))), Limit::Percent(5))
    );
    let jobs: Vec<Job> = set.schedule.jobs.keys().copied().collect();
    assert_eq!(jobs, [Job::Expire, Job::Verify, Job::Drill, Job::Compare], "never is never, the rest has its default");
    assert_eq!(
        (set.schedule.jitter, set.schedule.timezone.iana_name()),
        (Duration::from_secs(600), Some("Europe/Berlin"))
    );
    assert_eq!(set.schedule.bandwidth[0].rate, Some(2 << 20));
    assert_eq!((set.policy.keep_full, set.policy.keep_log), (None, Some(Duration::from_secs(14 * 86400))));
    assert_eq!(set.hooks.before[&Act::Sync], ["sh", "-c", "exit 1"]);
    assert_eq!(set.hooks.after[&Act::Sync], ["a", "b c"]);
    assert_eq!((found.limits.bandwidth, found.limits.gather), (Some(500 << 10), Duration::from_millis(50)));
    assert_eq!((found.log.format, found.log.level), (LogFormat::Json, LogLevel::Warn));
    assert_eq!((found.host.listen, found.metrics.listen.map(|address| address.port())), (None, Some(9411)));
}

#[test]
fn nothing_said_is_a_weekly_full_and_a_daily_differential() {
    let found = good(PAIR);
    let jobs = &found.sets["mail"].schedule.jobs;
    assert_eq!(
        (jobs[&Job::Full].to_string(), jobs[&Job::Differential].to_string()),
        ("0 3 * * 0".into(), "0 3 * * *".into())
    );
    assert_eq!(jobs.len(), Job::ALL.len());
}

#[test]
fn everything_is_found_and_not_only_the_first() {
    let text = "[host]\nnmae = \"x\"\nlisten = 8946\n[set.a]\nrole = \"king\"\npath = \"srv\"\npeers = \"mx2\"\n[schedule]\nfull = \"0 3 * *\"\n[lmits]\n";
    let shown = shown(text);
    let wanted = [
        "2: host.nmae: there is no such key: did you mean name?",
        "3: host.listen: it is a number: write a text, in quotes",
        "5: set.a.role: there is no role \"king\": write \"master\" or \"slave\"",
        "6: set.a.path: \"srv\" is not absolute: begin it with /",
        "7: set.a.peers: it is a text: write a list of texts, as [\"one\", \"two\"]",
        "10: lmits: there is no such key: did you mean limits?",
    ];
    for line in wanted {
        assert!(shown.contains(&line.to_owned()), "\"{line}\" is not in {shown:#?}");
    }
    assert!(
        shown.iter().any(|line| line.starts_with("9: schedule.full: \"0 3 * *\" is no cron expression")),
        "{shown:#?}"
    );
}

#[test]
fn slips_of_toml_are_named_by_their_lines() {
    let shown = shown("[host]\nname = \"mx1\nstate = \"/x\"\n\n[set.a\n");
    assert!(shown.iter().any(|line| line.starts_with("2: it is no TOML")), "{shown:#?}");
    assert!(shown.iter().any(|line| line.starts_with("5: it is no TOML")), "{shown:#?}");
    wrong("[host]\nname = \"a\"\nname = \"b\"\n", "3: it is no TOML: duplicate key");
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (line, words) in [
        ("[schedule]\nfull = \"0 0 31 2 *\"", "2: schedule.full: \"0 0 31 2 *\" never comes"),
        ("[schedule]\njitter = \"13h\"", "13h is too long: write at most 12h"),
        ("[schedule]\njitter = \"soon\"", "\"soon\" is no length of time"),
        ("[schedule]\nfull = \"never\"", "a differential needs a full"),
        ("[schedule]\nquiet = [{ from = \"00:00\", to = \"24:00\" }]", "it is quiet all the time"),
        ("[schedule]\nquiet = [{ from = \"25:00\" }]", "\"25:00\" is no time of day"),
        ("[schedule]\nquiet = [{ from = \"22:00\" }]", "schedule.quiet.to: it is missing"),
        (
            "[schedule]\nquiet = [{ from = \"22:00\", to = \"23:00\", rate = \"1\" }]",
            "schedule.quiet.rate: there is no such key",
        ),
        ("[schedule]\nbandwidth = [{ from = \"22:00\", to = \"23:00\", rate = \"fast\" }]", "\"fast\" is no rate"),
        ("[policy]\nkeep_full = 0", "0 is out of range: write a whole number from 1, without quotes, or \"all\""),
        ("[policy]\nkeep_full = -1", "-1 is out of range"),
        ("[policy]\nkeep_full = \"4\"", "it is a text: write a whole number"),
        ("[limits]\ngather = \"2h\"", "2h is too long: write at most 1h"),
        ("[hooks]\nuser = \"no such user\"", "there is no user \"no such user\""),
        ("[hooks]\npre_sync = []", "the list is empty"),
        ("[hooks]\npre_sync = \"\"", "it is empty"),
        ("[peer.mx2]\naddress = \"mx2:0\"", "\"mx2:0\" is no host and port"),
        ("[peer.mx2]\nkey = \"abc=\"", "\"abc=\" is no public key"),
        ("[peer.mx2]\naddress = \"mx2\"", "peer.mx2.key: it is missing, and with TLS"),
        ("[peer.mx2]\nrsh = \"ssh\"", "it is of no use with TLS"),
        ("[peer.mx2]\ntransport = \"ssh\"\naddress = \"-oProxyCommand=x\"", "names no host"),
        ("[peer.mx2]\ntransport = \"ssh\"\naddress = \"mx2:/srv\"", "names no host"),
        ("[peer.mx2]\ntransport = \"ssh\"\naddress = \"mx2:22\"", "names no host"),
        ("[peer.mx2]\ntransport = \"smtp\"", "there is no transport \"smtp\""),
        ("[set.\"a/b\"]", "\"a/b\" is no name"),
        ("[set]\npath = \"/srv\"", "set.path: it is a text: each has a table of its own: [set.NAME]"),
        ("[set.a]\npath = \"/srv/../etc\"", "has .. in it"),
        ("set = 1", "set: it is a number: write [set] and its keys below"),
    ] {
        // What only a set tells needs one.
        let set = if line.starts_with("[schedule]") { PAIR } else { "" };
        wrong(&format!("{line}\n{set}"), words);
    }
}

#[test]
fn what_only_the_whole_tells_is_found() {
    let with = |more: &str| format!("{PAIR}{more}");
    wrong(&with("[peer.mx3]\ntransport = \"ssh\"\naddress = \"mx3\""), "warning: peer.mx3: no set names this peer");
    wrong(&PAIR.replace("[\"mx2\"]", "[\"mx3\"]"), "7: set.mail.peers: there is no peer \"mx3\": did you mean mx2?");
    wrong(&PAIR.replace("[\"mx2\"]", "[]"), "a master without peers has nobody to send to");
    wrong(&PAIR.replace("[\"mx2\"]", "[\"mx2\", \"mx2\"]"), "mx2 is named twice");
    let other = "[set.sub]\npath = \"/var/vmail/sub\"\nrole = \"slave\"\n[policy]\nkeep_full = 1\n";
    wrong(&with(other), "9: set.sub.path: /var/vmail/sub lies inside that of set.mail");
    wrong(&with("[host]\nstate = \"/var/vmail/state\"\n"), "9: host.state: /var/vmail/state lies inside set.mail");
    let etc = "[set.etc]\npath = \"/etc/postfix\"\nrole = \"slave\"\n[policy]\nkeep_full = 1\n";
    wrong(etc, "2: set.etc.path: the mirror /etc/postfix lies where the slave's own system is");
    good(&etc.replace("[policy]", "over_live = true\n[policy]"));
    wrong(&PAIR.replace("peers", "mirror = \"/etc\"\npeers"), "set.mail.mirror: the mirror /etc lies where");
    good(&PAIR.replace("/var/vmail", "/etc/postfix"));
    let tls = "[peer.mx2]\nkey = \"sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n[set.mail]\npath = \"/a\"\nrole = \"ROLE\"\npeers = [\"mx2\"]\n";
    wrong(&tls.replace("ROLE", "master"), "a master calls its slaves, and mx2 has no address");
    wrong(
        &format!("{}[host]\nlisten = \"none\"", tls.replace("ROLE", "slave")),
        "mx2 calls here by TLS, and this host does not listen",
    );
    wrong(&tls.replace("ROLE", "slave"), "warning: set.mail: no restore point ever goes, and the disk fills");
    let twice = tls.replace(
        "[set.mail]",
        &format!("address = \"mx2\"\n{}[set.mail]", &tls[..tls.find("[set").expect("a set")].replace("mx2", "mx3")),
    );
    wrong(&twice.replace("ROLE", "master"), "5: peer.mx3.key: it is the key of mx2, too");
    let mirror = tls.replace("ROLE", "master").replace("path", "mirror = \"/srv\"\npath");
    wrong(&mirror, "warning: set.mail.mirror: it is of no use with mx2, which is reached by TLS");
    wrong("", "warning: there is no set");
}

#[test]
fn what_changed_is_told_set_by_set() {
    let before = good(PAIR);
    assert!(difference(&before, &before).is_empty());
    let text = PAIR.replace("vmail@mx2", "root@mx2")
        + "max_delete = \"5%\"\n[set.new]\npath = \"/srv/new\"\nrole = \"slave\"\n[log]\nlevel = \"debug\"\n";
    let after = good(&text);
    let found = difference(&before, &after);
    assert_eq!(found.changed, [("mail".to_owned(), BTreeSet::from(["max_delete", "peers"]))]);
    assert_eq!((found.added, found.removed), (BTreeSet::from(["new".to_owned()]), BTreeSet::new()));
    assert_eq!(found.tables, BTreeSet::from(["log"]));
    assert_eq!(difference(&after, &before).removed, BTreeSet::from(["new".to_owned()]));
    // A common table is each set's.
    let found = difference(&before, &good(&format!("{PAIR}[policy]\nkeep_full = 2\n")));
    assert_eq!(found.changed, [("mail".to_owned(), BTreeSet::from(["policy"]))]);
}
