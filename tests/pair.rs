//! Two hosts are paired by the command: with the right code, with wrong ones, with strangers around.

use mailtwin::config::file::{self, Configuration};
use mailtwin::config::peers;
use mailtwin::monitor::Quiet;
use mailtwin::peer::host_key;
use mailtwin::sync::receiver::serve_peer;
use mailtwin::transport::key::PeerKey;
use mailtwin::transport::tls::{Limits, Peers, Server};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[path = "support/tree.rs"]
mod tree;

use tree::{Pair, assert_mirrored, make_scenario};

/// A host: a directory with its key and its configuration.
struct Host {
    name: &'static str,
    home: TempDir,
}

impl Host {
    fn new(name: &'static str) -> Self {
        Self { name, home: tempfile::tempdir().expect("a directory") }
    }

    /// With a configuration file, in which something stands.
    fn configured(name: &'static str) -> Self {
        let host = Self::new(name);
        fs::write(host.config(), "# Ours.\n").expect("writes");
        host
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("mailtwin.toml")
    }

    fn key_file(&self) -> PathBuf {
        self.home.path().join("key")
    }

    fn key(&self) -> PeerKey {
        host_key::load(&self.key_file()).expect("reads").expect("was made").public()
    }

    /// A command of this host, which knows nothing but where the configuration is.
    fn mailtwin(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailtwin"));
        command.args(arguments).env_remove("MAILTWIN_STATE").env("MAILTWIN_CONFIG", self.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `pair`, with everything typed.
    fn command(&self, options: &[&str]) -> Command {
        let mut command = self.mailtwin(&["pair"]);
        command.args(options).args(["--name", self.name]).arg("--key").arg(self.key_file());
        command
    }

    fn listen(&self, options: &[&str]) -> Listening {
        Listening::start(&mut self.command(&[&["--listen", "127.0.0.1:0"], options].concat()))
    }

    fn ask(&self, place: &str, code: &str, options: &[&str]) -> Output {
        self.command(&[&[place, "--code", code], options].concat()).output().expect("runs")
    }
}

/// A host that shows a code.
struct Listening {
    child: Child,
    lines: BufReader<ChildStdout>,
    said: BufReader<std::process::ChildStderr>,
    place: String,
    code: String,
}

fn code(lines: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    line.trim().strip_prefix("code: ").unwrap_or_else(|| panic!("a code: {line}")).to_owned()
}

impl Listening {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let code = code(&mut lines);
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("says where it waits");
        let (_, rest) = line.split_once("waiting at ").unwrap_or_else(|| panic!("where it waits: {line}"));
        let place = rest.split(": on").next().expect("a place").to_owned();
        Self { child, lines, said, place, code }
    }

    fn next_code(&mut self) -> String {
        code(&mut self.lines)
    }

    /// Its exit code, what it still printed, and what it said.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut printed, mut said) = (String::new(), String::new());
        self.lines.read_to_string(&mut printed).expect("text");
        self.said.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("ends").code(), printed, said)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A code that is as like the right one as can be.
fn wrong(code: &str) -> String {
    let last = if code.ends_with('9') { '8' } else { '9' };
    format!("{}{last}", &code[..code.len() - 1])
}

#[track_caller]
fn ended_well(output: &Output) {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn each_host_gets_the_others_name_address_and_key_into_its_configuration() {
    let (mx1, mx2) = (Host::configured("mx1"), Host::configured("mx2"));
    let listening = mx2.listen(&["--address", "mx2.example.org"]);
    let asked = mx1.ask(&listening.place, &listening.code, &[]);
    ended_well(&asked);
    let (exit, printed, said) = listening.end();
    assert_eq!(exit, Some(0), "{printed}{said}");
    for (host, other, address) in [(&mx1, &mx2, "mx2.example.org:8946"), (&mx2, &mx1, "127.0.0.1:8946")] {
        let wanted = format!(
            "# Ours.\n\n[peer.{}]\ntransport = \"tls\"\naddress = \"{address}\"\nkey = \"{}\"\n",
            other.name,
            other.key()
        );
        assert_eq!(fs::read_to_string(host.config()).expect("reads"), wanted);
        assert_eq!(fs::metadata(host.key_file()).expect("is there").mode() & 0o7777, 0o600);
    }
    assert!(said.contains(&format!("paired with mx1, whose key is {}", mx1.key())), "{said}");
    let shown = mx1.command(&["--show"]).output().expect("runs");
    assert_eq!(text(&shown.stdout), format!("mx1 {}\n", mx1.key()));
}

#[test]
fn a_host_that_was_reinstalled_is_paired_again_and_keeps_its_address() {
    let (mx1, mx2) = (Host::configured("mx1"), Host::configured("mx2"));
    for _ in 0..2 {
        let _ = fs::remove_file(mx2.key_file());
        let listening = mx2.listen(&[]);
        ended_well(&mx1.ask(&listening.place, &listening.code, &["--address", "mx1.example.org:99"]));
        assert_eq!(listening.end().0, Some(0));
    }
    let config = fs::read_to_string(mx1.config()).expect("reads");
    assert_eq!(config.matches("[peer.mx2]").count(), 1, "{config}");
    assert!(config.contains(&mx2.key().to_string()), "{config}");
    assert!(fs::read_to_string(mx2.config()).expect("reads").contains("mx1.example.org:99"));
}

#[test]
fn without_a_configuration_the_lines_are_printed_and_one_that_is_none_is_left_alone() {
    let (mx1, mx2) = (Host::new("mx1"), Host::new("mx2"));
    fs::write(mx2.config(), "[[peer").expect("writes");
    let listening = mx2.listen(&[]);
    let asked = mx1.ask(&listening.place, &listening.code, &[]);
    ended_well(&asked);
    let lines = format!("[peer.mx2]\ntransport = \"tls\"\naddress = \"127.0.0.1:8946\"\nkey = \"{}\"\n", mx2.key());
    assert!(text(&asked.stdout).ends_with(&lines), "{}", text(&asked.stdout));
    assert!(!mx1.config().exists());
    let (exit, printed, _) = listening.end();
    assert_eq!(exit, Some(23), "it is paired, and not written down: {printed}");
    assert!(printed.contains("[peer.mx1]\n"), "{printed}");
    assert_eq!(fs::read(mx2.config()).expect("reads"), b"[[peer");
}

#[test]
fn a_wrong_code_is_said_on_both_hosts_and_cannot_be_followed_by_the_right_one() {
    let (mx1, mx2) = (Host::configured("mx1"), Host::configured("mx2"));
    let mut listening = mx2.listen(&[]);
    let first = listening.code.clone();
    let asked = mx1.ask(&listening.place, &wrong(&first), &[]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("the code is wrong"), "{}", text(&asked.stderr));
    let second = listening.next_code();
    assert_ne!(first, second);
    assert_eq!(mx1.ask(&listening.place, &first, &[]).status.code(), Some(1), "the first one is used up");
    let third = listening.next_code();
    ended_well(&mx1.ask(&listening.place, &third, &[]));
    let (exit, _, said) = listening.end();
    assert_eq!(exit, Some(0));
    assert_eq!(said.matches("127.0.0.1 gave a wrong code").count(), 2, "{said}");
}

#[test]
fn after_three_wrong_codes_the_waiting_ends_and_nobody_has_noted_anybody() {
    let (mx1, mx2) = (Host::configured("mx1"), Host::configured("mx2"));
    let mut listening = mx2.listen(&[]);
    let mut code = listening.code.clone();
    for left in (0..3).rev() {
        assert_eq!(mx1.ask(&listening.place, &wrong(&code), &[]).status.code(), Some(1));
        if left > 0 {
            code = listening.next_code();
        }
    }
    let place = listening.place.clone();
    let (exit, printed, said) = listening.end();
    assert_eq!((exit, printed.as_str()), (Some(1), ""));
    assert!(said.contains("this was the last one: not paired"), "{said}");
    let late = mx1.ask(&place, &code, &[]);
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("mailtwin pair --listen"), "{}", text(&late.stderr));
    for host in [&mx1, &mx2] {
        assert_eq!(fs::read(host.config()).expect("reads"), b"# Ours.\n");
    }
}

#[test]
fn the_code_comes_from_standard_input_and_nothing_is_asked_where_that_is_no_terminal() {
    let (mx1, mx2) = (Host::configured("mx1"), Host::configured("mx2"));
    let listening = mx2.listen(&[]);
    let none = mx1.command(&[&listening.place]).output().expect("runs");
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("--code"), "{}", text(&none.stderr));
    let mut asking = mx1.command(&[&listening.place]).stdin(Stdio::piped()).spawn().expect("starts");
    let typed = format!("{}\n", listening.code.replace('-', " "));
    asking.stdin.take().expect("piped").write_all(typed.as_bytes()).expect("types");
    let asked = asking.wait_with_output().expect("ends");
    ended_well(&asked);
    assert!(!text(&asked.stderr).contains("type the code"), "{}", text(&asked.stderr));
    assert_eq!(listening.end().0, Some(0));
}

#[test]
fn strangers_use_up_no_code_and_keep_nobody_out() {
    let (mx1, mx2) = (Host::configured("mx1"), Host::configured("mx2"));
    let listening = mx2.listen(&[]);
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&listening.place).expect("connects")).collect();
    for nonsense in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0; 100], &[0xff; 100]] {
        let mut stream = TcpStream::connect(&listening.place).expect("connects");
        let _ = stream.write_all(nonsense);
    }
    let began = Instant::now();
    ended_well(&mx1.ask(&listening.place, &listening.code, &[]));
    assert!(began.elapsed() < Duration::from_secs(9), "nobody waited for the idle ones: {:?}", began.elapsed());
    drop(idle);
    assert_eq!(listening.end().0, Some(0));
}

#[test]
fn namesakes_and_copies_are_told_apart_before_anything_is_written() {
    let (one, two) = (Host::configured("mx1"), Host::configured("mx1"));
    let listening = two.listen(&[]);
    let asked = one.ask(&listening.place, &listening.code, &[]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("both hosts are called mx1"), "{}", text(&asked.stderr));
    let (exit, _, said) = listening.end();
    assert!(exit == Some(1) && said.contains("both hosts are called mx1"), "{said}");
    let copy = Host::configured("mx2");
    fs::copy(one.key_file(), copy.key_file()).expect("copies");
    let listening = copy.listen(&[]);
    let asked = one.ask(&listening.place, &listening.code, &[]);
    assert!(text(&asked.stderr).contains("the same key"), "{}", text(&asked.stderr));
    assert_eq!(listening.end().0, Some(1));
    assert_eq!(fs::read(one.config()).expect("reads"), b"# Ours.\n");
}

#[test]
fn a_key_that_others_may_read_is_refused_and_so_is_wrong_usage() {
    let host = Host::new("mx1");
    ended_well(&host.command(&["--show"]).output().expect("runs"));
    fs::set_permissions(host.key_file(), fs::Permissions::from_mode(0o644)).expect("chmod");
    let shown = host.command(&["--show"]).output().expect("runs");
    assert_eq!((shown.status.code(), shown.stdout.len()), (Some(1), 0));
    assert!(text(&shown.stderr).contains("chmod 600"), "{}", text(&shown.stderr));
    for options in [&[][..], &["mx2", "--listen"], &["mx2", "--code", "12"], &["mx2/x", "--code", "12345678"]] {
        let run = host.command(options).output().expect("runs");
        assert_eq!(run.status.code(), Some(2), "{options:?}: {}", text(&run.stderr));
    }
}

#[test]
fn nobody_comes() {
    let listening = Host::new("mx2").listen(&["--wait", "0"]);
    let (exit, _, said) = listening.end();
    assert_eq!(exit, Some(1));
    assert!(said.contains("nobody came"), "{said}");
}

/// A host as `init` makes it, which says in its file what it is called and where its key is.
fn initialised(name: &'static str, role: &str, state: &Path) -> Host {
    let host = Host::new(name);
    ended_well(&host.mailtwin(&["init", "--role", role]).output().expect("runs"));
    let text = fs::read_to_string(host.config()).expect("was written");
    let [name, key, state] = [format!("{name:?}"), format!("{:?}", host.key_file()), format!("{state:?}")];
    let text = text.replace("#name = \"mx1\"", &format!("name = {name}"));
    let text = text.replace("#key = \"/etc/mailtwin/key\"", &format!("key = {key}"));
    let text = text.replace("#state = \"/var/lib/mailtwin\"", &format!("state = {state}"));
    assert!([name, key, state].iter().all(|value| text.contains(value)), "{text}");
    fs::write(host.config(), text).expect("writes");
    host
}

fn add(host: &Host, text: &str) {
    let before = fs::read_to_string(host.config()).expect("reads");
    fs::write(host.config(), format!("{before}\n{text}")).expect("writes");
}

fn configuration(host: &Host) -> Configuration {
    file::load(&host.config()).and_then(|loaded| loaded.configuration()).expect("is fine")
}

#[test]
fn hosts_that_were_initialised_and_paired_have_configurations_that_are_fine_and_a_set_goes_between_them() {
    let pair = Pair::new();
    let (mx1, mx2) = (initialised("mx1", "master", &pair.state), initialised("mx2", "slave", &pair.path("unused")));
    let key = host_key::load_or_make(&mx2.key_file()).expect("makes");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (known, quiet) = (Peers::default(), Arc::new(Quiet::default()));
    let server = Server::start(runtime.handle(), "127.0.0.1:0", &key, known.clone(), Limits::default(), quiet);
    let mut server = server.expect("waits");
    let at = server.address().to_string();

    // Nothing is typed that the configurations say.
    let listening = Listening::start(&mut mx2.mailtwin(&["pair", "--listen", "127.0.0.1:0", "--address", &at]));
    ended_well(&mx1.mailtwin(&["pair", &listening.place, "--code", &listening.code]).output().expect("runs"));
    assert_eq!(listening.end().0, Some(0));
    make_scenario(&pair.source);
    add(&mx1, &format!("[set.mail]\npath = {:?}\nrole = \"master\"\npeers = [\"mx2\"]\n", pair.source));
    add(&mx2, &format!("[set.mail]\npath = {:?}\nrole = \"slave\"\npeers = [\"mx1\"]\n", pair.mirror));
    for host in [&mx1, &mx2] {
        let checked = host.mailtwin(&["check-config"]).output().expect("runs");
        ended_well(&checked);
        assert!(!text(&checked.stdout).contains("key"), "{}", text(&checked.stdout));
    }

    let sync = |options: &[&str]| {
        let run = mx1.mailtwin(&[&["sync", "mail"], options].concat()).output().expect("runs");
        (run.status.code(), format!("{}{}", text(&run.stdout), text(&run.stderr)))
    };
    let (code, said) = sync(&[]);
    assert!(
        code == Some(1) && said.contains("mx2 does not let this host in: it does not know this host's key"),
        "{code:?} {said}"
    );
    let slave = configuration(&mx2);
    known.replace(peers::known(&slave));
    let stranger = Configuration { sets: Default::default(), ..slave.clone() };
    let hosts = [stranger, slave.clone(), slave];
    // Where a run fails, nobody waits for this thread.
    std::thread::spawn(move || {
        for configuration in hosts {
            let mut link = server.next_link().expect("the server waits");
            let connection = link.connection.take().expect("a fresh link has its connection");
            let _ = serve_peer(connection, &peers::admission(&configuration, &link.peer));
            link.finish();
        }
    });
    let (code, said) = sync(&[]);
    assert!(code == Some(1) && said.contains("mx1 may not replicate into the set mail"), "{code:?} {said}");
    for _ in 0..2 {
        let (code, said) = sync(&["--json"]);
        assert!(code == Some(0) && said.contains("\"peer\":\"mx2\""), "{code:?} {said}");
        assert_mirrored(&pair);
        fs::write(pair.source.join("cur").join("1700000001.more"), "more").expect("writes");
    }
    for option in [&["--rsh", "ssh"][..], &["--remote-path", "x"], &["--state", "/x"]] {
        let (code, said) = sync(option);
        assert!(code == Some(2) && said.contains("reached by TLS"), "{option:?}: {code:?} {said}");
    }
    fs::remove_file(mx1.key_file()).expect("removes");
    let (code, said) = sync(&[]);
    assert!(code == Some(1) && said.contains("this host has no key"), "{code:?} {said}");
}
