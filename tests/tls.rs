//! Two hosts that know each other's key, a whole session over TLS on this machine, and everything that can go wrong
//! between them: cut, silent, slow and damaging ways, wrong and swapped keys, strangers of all kinds.

use mailtwin::monitor::{Event, Monitor, Quiet};
use mailtwin::peer::role::Role;
use mailtwin::sync::receiver::admission::{Admission, Admitted, destination_of};
use mailtwin::sync::receiver::serve_peer;
use mailtwin::sync::sender::{self, Request};
use mailtwin::sync::{SyncError, guard::Limit};
use mailtwin::transport::key::{HostKey, PeerKey};
use mailtwin::transport::tls::{self, Dial, Limits, Link, Peers, Server};
use mailtwin::transport::{LinkError, TransportError};
use mailtwin::wire::message::Message;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/tree.rs"]
mod tree;

use proxy::{Proxy, Trouble};
use tree::{Pair, am_root, assert_mirrored, eventually, full_sweep, make_scenario, noise, points, say};

const LIMITS: Limits = Limits {
    handshakes: 128,
    per_peer: 3,
    handshake: Duration::from_secs(2),
    first_message: Duration::from_secs(3),
    silence: SILENCE,
};

/// Longer than the pause between two signs of life, and shorter than it takes a large message over the slow way.
const SILENCE: Duration = Duration::from_secs(6);

/// How long the test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a host writes into its log.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Monitor for Log {
    fn event(&self, event: Event) {
        if let Event::Warning(line) = event {
            self.0.lock().expect("whole").push(line);
        }
    }
}

impl Log {
    fn has(&self, words: &[&str]) -> bool {
        let lines = self.0.lock().expect("whole");
        lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    #[track_caller]
    fn tells(&self, words: &[&str]) {
        eventually(&format!("the log tells of {words:?}"), PATIENCE, || self.has(words));
    }
}

fn fresh() -> HostKey {
    HostKey::fresh().expect("a key")
}

/// A slave that waits for its master, and the trees of both.
struct Hosts {
    pair: Pair,
    runtime: Arc<Runtime>,
    master: HostKey,
    slave: PeerKey,
    /// Whom the slave knows.
    known: Peers,
    address: SocketAddr,
    log: Arc<Log>,
    /// Why sessions ended early on the slave.
    ended: Arc<Log>,
}

impl Hosts {
    fn new() -> Self {
        Self::with(fresh(), fresh(), Role::Master)
    }

    fn with(master: HostKey, slave: HostKey, role: Role) -> Self {
        let pair = Pair::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        let known = Peers::new([(master.public(), "mx1".to_owned())]);
        let (log, ended) = (Arc::new(Log::default()), Arc::new(Log::default()));
        let server = Server::start(runtime.handle(), "127.0.0.1:0", &slave, known.clone(), LIMITS, log.clone());
        let server = server.expect("waits");
        let address = server.address();
        let set = Admitted { role, mirror: pair.mirror.clone(), state: None, restores_to: None };
        let sets = BTreeMap::from([("mail".to_owned(), set)]);
        let (words, keeps) = (ended.clone(), runtime.clone());
        std::thread::spawn(move || {
            serve_all(server, &Admission { peer: "mx1".to_owned(), sets }, &words);
            drop(keeps);
        });
        Self { pair, runtime, master, slave: slave.public(), known, address, log, ended }
    }

    fn request(&self) -> Request {
        Request {
            source: self.pair.source.clone(),
            destination: destination_of("mail"),
            pair: "mx2:set:mail".to_owned(),
            state: self.pair.state.clone(),
            slave_state: None,
            kind: None,
            filters: vec![],
            chown: None,
            limit: Limit::parse("100%").expect("a limit"),
            checksum: false,
            dry_run: false,
            itemize: false,
            level: 3,
        }
    }

    fn connect_as(&self, key: &HostKey, expected: PeerKey, at: SocketAddr) -> Result<Link, TransportError> {
        let host = at.ip().to_string();
        let dial = Dial {
            peer: "mx2",
            host: &host,
            port: at.port(),
            key,
            expected,
            patience: Duration::from_secs(5),
            silence: Some(SILENCE),
        };
        tls::connect(self.runtime.handle(), &dial)
    }

    fn connect(&self) -> Result<Link, TransportError> {
        self.connect_as(&self.master, self.slave, self.address)
    }

    fn run(&self, request: &Request, at: SocketAddr) -> Result<sender::Report, SyncError> {
        let mut opened = None;
        let ran = sender::run(request, &Quiet::default(), || {
            let mut link = self.connect_as(&self.master, self.slave, at).map_err(LinkError::from)?;
            let connection = link.connection.take().expect("a fresh link has its connection");
            opened = Some(link);
            Ok(connection)
        });
        if let Some(link) = opened {
            link.finish();
        }
        ran
    }

    fn sync(&self, at: SocketAddr) -> Result<sender::Report, SyncError> {
        self.run(&self.request(), at)
    }

    /// A run that must go well, as soon as the slave has noticed that the one before is over.
    #[track_caller]
    fn settle(&self, after: &str) -> sender::Report {
        let began = Instant::now();
        loop {
            match self.sync(self.address) {
                Ok(report) => {
                    assert!(report.in_sync && report.problems.is_empty(), "{after}: {report:?}");
                    assert_mirrored(&self.pair);
                    return report;
                }
                Err(SyncError::Refused(refusal)) if refusal.code == 10 && began.elapsed() < PATIENCE => {}
                Err(SyncError::Link(LinkError::Transport(TransportError::Unwelcome { .. })))
                    if began.elapsed() < PATIENCE => {}
                Err(error) => panic!("{after}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn forget_everything(&self) {
        for directory in [&self.pair.mirror, &self.pair.state] {
            if directory.exists() {
                std::fs::remove_dir_all(directory).expect("removes");
            }
        }
    }
}

fn serve_all(mut server: Server, admission: &Admission, ended: &Arc<Log>) {
    while let Some(mut link) = server.next_link() {
        let (admission, ended) = (admission.clone(), ended.clone());
        std::thread::spawn(move || {
            let connection = link.connection.take().expect("a fresh link has its connection");
            if let Err(error) = serve_peer(connection, &admission) {
                ended.event(Event::Warning(error.to_string()));
            }
            link.finish();
        });
    }
}

/// A certificate around this key whose dates are over.
fn expired(key: &HostKey) -> HostKey {
    let pem = key.pem().expect("writes");
    let pair = rcgen::KeyPair::from_pem(&pem).expect("a key");
    let mut parameters = rcgen::CertificateParams::new(vec!["somebody.else.example".to_owned()]).expect("a name");
    parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let certificate = parameters.self_signed(&pair).expect("signs").der().to_vec();
    HostKey::with_certificate(&pem, certificate).expect("its certificate")
}

// ---- a session ----

#[test]
fn a_first_copy_a_second_run_and_a_change_go_over_tls() {
    let hosts = Hosts::new();
    make_scenario(&hosts.pair.source);
    let first = hosts.sync(hosts.address).expect("syncs");
    assert!(first.in_sync && first.counters.messages_added > 0);
    assert_mirrored(&hosts.pair);
    let second = hosts.sync(hosts.address).expect("syncs");
    assert_eq!((second.in_sync, second.counters.bytes_content), (true, 0));
    tree::change_scenario(&hosts.pair.source, 0);
    hosts.settle("a change");
    assert!(hosts.log.0.lock().expect("whole").is_empty(), "nothing to complain of");
}

#[test]
fn dates_and_names_in_a_certificate_decide_nothing() {
    let hosts = Hosts::with(expired(&fresh()), expired(&fresh()), Role::Master);
    make_scenario(&hosts.pair.source);
    hosts.settle("expired certificates on both ends");
}

// ---- the way between ----

/// The first copy is cut at many places, each time on a new mirror; the next run ends it.
#[test]
fn cut_anywhere_the_next_run_converges() {
    let hosts = Hosts::new();
    make_scenario(&hosts.pair.source);
    let proxy = Proxy::to(hosts.address);
    hosts.sync(proxy.address()).expect("syncs");
    let total = proxy.carried();
    for at in points(total, if full_sweep() { 400 } else { 24 }) {
        hosts.forget_everything();
        proxy.make(Trouble::Cut(at.min(total - 100)));
        let error = hosts.sync(proxy.address()).expect_err("the way was cut");
        assert!(error.to_string().contains("mx2"), "after {at} bytes: {error}");
        hosts.settle(&format!("a cut after {at} bytes"));
    }
}

#[test]
fn a_byte_that_is_damaged_on_the_way_ends_the_session_and_nothing_wrong_is_applied() {
    let hosts = Hosts::new();
    make_scenario(&hosts.pair.source);
    tree::Folder::create(&hosts.pair.source).deliver(1, &noise(1, 100_000));
    let proxy = Proxy::to(hosts.address);
    hosts.connect_as(&hosts.master, hosts.slave, proxy.address()).expect("connects").finish();
    // In the handshake some bytes mean nothing, such as the version of a record.
    let handshake = proxy.carried();
    hosts.sync(proxy.address()).expect("syncs");
    let total = proxy.carried();
    for at in points(total - handshake - 200, 12) {
        hosts.forget_everything();
        proxy.make(Trouble::Flip(handshake + at));
        hosts.sync(proxy.address()).expect_err("a byte was flipped");
        hosts.settle(&format!("byte {at} was flipped"));
    }
    hosts.ended.tells(&["damaged or forged"]);
}

#[test]
fn a_partition_is_noticed_on_both_ends_and_the_next_run_catches_up() {
    let hosts = Hosts::new();
    make_scenario(&hosts.pair.source);
    std::fs::write(hosts.pair.source.join("cur").join("1700000000.big"), noise(1, 3_000_000)).expect("writes");
    let proxy = Proxy::to(hosts.address);
    proxy.make(Trouble::Silence(200_000));
    let began = Instant::now();
    let error = hosts.sync(proxy.address()).expect_err("nothing goes through").to_string();
    assert!(error.contains("mx2 said nothing for 6 seconds"), "{error}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    hosts.settle("a partition");
}

/// One message takes longer than an end may be silent; as long as it moves nobody gives up.
#[test]
fn a_slow_way_that_moves_is_not_given_up() {
    let hosts = Hosts::new();
    tree::Folder::create(&hosts.pair.source).deliver(1, &noise(1, 400_000));
    let proxy = Proxy::to(hosts.address);
    proxy.make(Trouble::Slow(4_000));
    let began = Instant::now();
    let report = hosts.sync(proxy.address()).expect("it is slow, not dead");
    assert!(report.in_sync);
    assert!(began.elapsed() > SILENCE, "the message was to take longer than {SILENCE:?}: {:?}", began.elapsed());
    assert_mirrored(&hosts.pair);
}

#[test]
fn an_end_that_was_meant_is_told_from_a_cut() {
    let hosts = Hosts::new();
    let reason = |link: &mut Link| {
        let connection = link.connection.as_mut().expect("a fresh link has its connection");
        connection.receiver.recv().expect_err("it ends").to_string()
    };
    let mut meant = hosts.connect().expect("connects");
    let connection = meant.connection.as_ref().expect("a fresh link has its connection");
    connection.sender.send(&Message::Finish).expect("sends");
    let mut words = String::new();
    let link = &mut meant;
    let connection = link.connection.as_mut().expect("a fresh link has its connection");
    while words.is_empty() {
        match connection.receiver.recv() {
            Ok(Message::Refuse(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => words = error.to_string(),
        }
    }
    assert!(words.contains("it ended the session"), "{words}");
    let proxy = Proxy::to(hosts.address);
    proxy.make(Trouble::Cut(4_000));
    let mut cut = hosts.connect_as(&hosts.master, hosts.slave, proxy.address()).expect("connects");
    let connection = cut.connection.as_ref().expect("a fresh link has its connection");
    connection.sender.send_block(vec![0; 8_000]).expect("sends");
    let words = reason(&mut cut);
    assert!(words.contains("cut") || words.contains("reset"), "{words}");
}

// ---- keys ----

#[test]
fn a_host_whose_key_is_not_known_is_not_let_in_and_both_ends_say_which_key() {
    let hosts = Hosts::new();
    let stranger = fresh();
    let error = hosts.connect_as(&stranger, hosts.slave, hosts.address).err().expect("refused").to_string();
    let key = stranger.public().to_string();
    for word in ["mx2", "does not know this host's key", &key, "mailtwin pair"] {
        assert!(error.contains(word), "{error}");
    }
    hosts.log.tells(&["127.0.0.1:", "was not let in", &key, "mailtwin pair"]);
    assert!(!hosts.pair.mirror.exists());
}

#[test]
fn a_host_that_is_taken_off_the_list_gets_no_further_connection() {
    let hosts = Hosts::new();
    hosts.connect().expect("connects").finish();
    hosts.known.replace([]);
    assert!(matches!(hosts.connect().err(), Some(TransportError::Unwelcome { .. })));
    hosts.known.replace([(hosts.master.public(), "mx1".to_owned())]);
    hosts.connect().expect("connects again").finish();
}

/// Two standbys whose keys were exchanged: neither is taken for the other.
#[test]
fn swapped_keys_are_told_with_both_keys_and_what_to_do() {
    let (one, two) = (Hosts::new(), Hosts::new());
    two.known.replace([(one.master.public(), "mx1".to_owned())]);
    for (expected, address) in [(one.slave, two.address), (two.slave, one.address)] {
        let error = one.connect_as(&one.master, expected, address).err().expect("refused").to_string();
        let shown = if expected == one.slave { two.slave } else { one.slave };
        let port = address.port().to_string();
        for word in ["mx2", &port, &format!("its key is {shown}, expected {expected}"), "pair again"] {
            assert!(error.contains(word), "{error}");
        }
    }
    for hosts in [&one, &two] {
        hosts.log.tells(&["does not know this host's key"]);
    }
}

#[test]
fn an_address_where_nobody_is_is_named_with_its_port() {
    let hosts = Hosts::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let error = hosts.connect_as(&hosts.master, hosts.slave, free).err().expect("refused").to_string();
    for word in ["cannot reach mx2", "127.0.0.1", &free.port().to_string(), "refused"] {
        assert!(error.contains(word), "{error}");
    }
}

// ---- what a peer may ----

#[test]
fn a_peer_gets_no_set_but_its_own_and_no_path_at_all() {
    let hosts = Hosts::new();
    let elsewhere = hosts.pair.path("elsewhere");
    let paths = [destination_of("other"), elsewhere.as_os_str().as_encoded_bytes().to_vec()];
    for destination in paths {
        let error = hosts.run(&Request { destination, ..hosts.request() }, hosts.address).expect_err("refused");
        assert!(matches!(error, SyncError::Refused(_)), "{error}");
    }
    let request = Request { slave_state: Some(elsewhere.as_os_str().as_encoded_bytes().to_vec()), ..hosts.request() };
    assert!(hosts.run(&request, hosts.address).expect("syncs").in_sync);
    assert!(!elsewhere.exists(), "the state is where the slave wants it");
    let slave = Hosts::with(fresh(), fresh(), Role::Slave);
    let error = slave.sync(slave.address).expect_err("refused").to_string();
    assert!(error.contains("mx1 may not replicate into the set mail"), "{error}");
    assert!(!slave.pair.mirror.exists());
}

#[test]
fn a_peer_has_so_many_connections_and_one_more_is_told_why_not() {
    let hosts = Hosts::new();
    let mut links: Vec<Link> = (0..LIMITS.per_peer).map(|_| hosts.connect().expect("connects")).collect();
    let error = hosts.connect().err().expect("refused").to_string();
    assert!(error.contains("3 connections already"), "{error}");
    links.pop().expect("there are some").finish();
    eventually("there is a place again", PATIENCE, || hosts.connect().is_ok());
}

#[test]
fn who_connects_and_says_nothing_is_given_up() {
    let hosts = Hosts::new();
    let mut link = hosts.connect().expect("connects");
    let connection = link.connection.as_mut().expect("a fresh link has its connection");
    let began = Instant::now();
    assert!(connection.receiver.recv().is_err());
    assert!(began.elapsed() < PATIENCE);
    hosts.ended.tells(&["mx1 said nothing for 3 seconds"]);
}

// ---- strangers ----

/// A client of another make; what it was shown and told.
fn openssl(address: SocketAddr, options: &[&str]) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-brief"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("openssl: {error}; install the package openssl"));
    // It goes on until it is let go, or the other end has hung up.
    let output = client.stdin.take();
    let said = client.wait_with_output().expect("ends");
    drop(output);
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

#[test]
fn a_client_of_tls_1_2_is_refused_and_so_is_one_without_a_key() {
    let hosts = Hosts::new();
    let said = openssl(hosts.address, &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    hosts.log.tells(&["does not speak TLS 1.3"]);
    openssl(hosts.address, &["-tls1_3", "-alpn", "mailtwin/1"]);
    hosts.log.tells(&["it shows no key"]);
    let said = openssl(hosts.address, &["-tls1_3", "-alpn", "h2"]);
    assert!(said.contains("no application protocol"), "{said}");
}

/// The key of a peer who agrees on no protocol inside is not enough; and our key is what openssl finds out of our
/// certificate.
#[test]
fn a_client_of_another_make_sees_the_key_that_we_show() {
    let hosts = Hosts::new();
    let pem = hosts.master.pem().expect("writes");
    let pair = rcgen::KeyPair::from_pem(&pem).expect("a key");
    let parameters = rcgen::CertificateParams::new(vec![]).expect("no name");
    let certificate = parameters.self_signed(&pair).expect("signs").pem();
    let files = [("master.key", pem), ("master.pem", certificate)].map(|(name, text)| {
        std::fs::write(hosts.pair.path(name), text).expect("writes");
        hosts.pair.path(name).display().to_string()
    });
    let with_key = ["-tls1_3", "-key", &files[0], "-cert", &files[1]];
    openssl(hosts.address, &with_key);
    hosts.log.tells(&["mx1 speaks another protocol"]);
    let shell = format!(
        "openssl s_client -connect {} -tls1_3 -alpn mailtwin/1 </dev/null 2>/dev/null | openssl x509 -noout -pubkey \
         | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
        hosts.address
    );
    let shown = Command::new("sh").args(["-c", &shell]).output().expect("sh").stdout;
    let shown: PeerKey = format!("sha256:{}", String::from_utf8_lossy(&shown)).parse().expect("a key");
    assert_eq!(shown, hosts.slave);
}

#[test]
fn a_client_that_does_not_speak_tls_is_refused_with_a_clear_line() {
    let hosts = Hosts::new();
    for hello in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"EHLO mx1\r\n", &[0; 64], &[0xff; 64]] {
        let mut stream = TcpStream::connect(hosts.address).expect("connects");
        stream.write_all(hello).expect("sends");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 16, "an alert, and nothing else: {answer:?}");
        let from = stream.local_addr().expect("its address").to_string();
        hosts.log.tells(&[&from, "does not speak TLS"]);
    }
}

/// A thousand who connect and say nothing: the peer is served as if nobody were there, and they are given up.
#[test]
fn a_thousand_idle_connections_keep_nobody_out() {
    let hosts = Hosts::new();
    make_scenario(&hosts.pair.source);
    let count = allow_open_files(1000);
    let idle: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(hosts.address).expect("connects")).collect();
    hosts.settle("idle connections all around");
    hosts.log.tells(&["whose handshake does not end"]);
    for mut stream in idle {
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "nothing was said to it");
    }
    assert!(hosts.log.0.lock().expect("whole").len() <= 21, "the log is not flooded");
    hosts.settle("all of them are gone");
}

/// Lets this process have so many connections, with what else it needs; fewer, and says so, where it may not.
fn allow_open_files(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(wanted + 4096);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = wanted.min(now.saturating_sub(700));
    if count < wanted {
        say(&format!("only {count} idle connections: this user may open {now} files (root: {})", am_root()));
    }
    count
}
