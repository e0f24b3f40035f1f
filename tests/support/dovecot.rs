//! A private Dovecot on a mail tree, started as root or as an ordinary user, and what its clients see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Daemon, holds_soon, own_identity};
use crate::imap::{Imap, Listed, Lmtp, Message, Opened};

const PROGRAM: &str = "/usr/sbin/dovecot";
const PASSWORD: &str = "secret";

/// Owns the mail where the test is root. It needs no entry in `/etc/passwd`, as on most hosts with virtual users.
const MAIL_OWNER: u32 = 20_001;

/// Another process may take the port that was found free before Dovecot has bound it.
const PORTS_TO_TRY: usize = 5;

/// How a user's folders lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `.A.B` beside INBOX's `cur`; the separator is a dot.
    MaildirPlusPlus,
    /// `A/B`; the separator is a slash.
    Fs,
}

/// A mail user; the mail is in `DOMAIN/NAME/Maildir` of the tree.
#[derive(Debug, Clone, Copy)]
pub struct User {
    pub address: &'static str,
    pub layout: Layout,
}

impl User {
    /// The user's Maildir in a mail tree.
    pub fn maildir(&self, mail: &Path) -> PathBuf {
        self.home(mail).join("Maildir")
    }

    fn home(&self, mail: &Path) -> PathBuf {
        let (name, domain) = self.address.split_once('@').expect("an address has a domain");
        mail.join(domain).join(name)
    }
}

/// A running Dovecot; dropping it stops it.
pub struct Dovecot {
    // Before the directory, so that the server has ended when its files go.
    _daemon: Daemon,
    runtime: TempDir,
    port: u16,
}

impl Dovecot {
    /// Starts a server whose users' mail is in `mail`, which is used where it is.
    pub fn start(mail: &Path, users: &[User]) -> Self {
        assert!(
            Path::new(PROGRAM).exists(),
            "{PROGRAM} is missing: install dovecot-core, dovecot-imapd, dovecot-lmtpd"
        );
        for _ in 0..PORTS_TO_TRY {
            if let Some(server) = Self::start_on(free_port(), mail, users) {
                return server;
            }
        }
        panic!("no free port for Dovecot in {PORTS_TO_TRY} attempts");
    }

    /// None if the port is taken by now.
    fn start_on(port: u16, mail: &Path, users: &[User]) -> Option<Self> {
        // Not in $TMPDIR, which may be too long for the address of a Unix socket (108 bytes).
        let runtime = tempfile::Builder::new().prefix("dovecot-").tempdir_in("/tmp").expect("/tmp can be written");
        // The login and mail processes are other users where the test is root.
        fs::set_permissions(runtime.path(), fs::Permissions::from_mode(0o755)).expect("its owner may change a mode");
        let configuration = runtime.path().join("dovecot.conf");
        fs::write(&configuration, configuration_text(runtime.path(), port)).expect("the configuration is written");
        fs::write(runtime.path().join("users"), users_text(mail, users)).expect("the users are written");
        let arguments = ["-F", "-c", configuration.to_str().expect("the path is ASCII")];
        let mut daemon = Daemon::start(Path::new(PROGRAM), &arguments, &runtime.path().join("output"));
        let mut ended = false;
        let up = holds_soon(|| {
            ended = daemon.ended().is_some();
            ended || Imap::connect(port).is_ok()
        });
        let server = Self { _daemon: daemon, runtime, port };
        if ended && server.everything_said().contains("Address already in use") {
            return None;
        }
        assert!(up && !ended, "Dovecot does not start:\n{}", server.everything_said());
        Some(server)
    }

    /// A new session of a client of `user`.
    pub fn imap(&self, user: &User) -> Imap {
        let mut session = Imap::connect(self.port).expect("Dovecot is running");
        session.login(user.address, PASSWORD);
        session
    }

    /// A new session that delivers.
    pub fn lmtp(&self) -> Lmtp {
        Lmtp::connect(&self.runtime.path().join("run/lmtp")).expect("Dovecot is running")
    }

    /// What clients of `user` see.
    pub fn account(&self, user: &User) -> Account {
        let mut session = self.imap(user);
        let mut listed = session.list();
        // After a RENAME Dovecot 2.3 can list a folder under its old name too, on an untouched server as well.
        listed.retain(|entry| !is_selectable(entry) || session.exists(&entry.name));
        let selectable = listed.iter().filter(|entry| is_selectable(entry));
        let folders =
            selectable.map(|entry| (entry.name.clone(), Folder::seen_by(&mut session, &entry.name))).collect();
        Account { subscribed: session.lsub(), listed, folders }
    }

    /// What the server has complained of since it started, about mail: not about its own limits, nor about how long
    /// something took, which is as long as the disk stalls for everybody.
    pub fn complaints(&self) -> Vec<String> {
        let about_mail = |line: &&str| {
            ["imap(", "lmtp("].iter().any(|service| line.contains(service)) && !line.contains("Synchronization took")
        };
        let log = fs::read_to_string(self.runtime.path().join("errors.log")).unwrap_or_default();
        log.lines().filter(about_mail).map(str::to_owned).collect()
    }

    fn everything_said(&self) -> String {
        let files = ["output", "errors.log", "info.log"].map(|name| self.runtime.path().join(name));
        files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
    }
}

/// All that the clients of one user can see.
pub struct Account {
    listed: BTreeSet<Listed>,
    subscribed: BTreeSet<Listed>,
    pub folders: BTreeMap<String, Folder>,
}

/// What a client sees in one folder.
pub struct Folder {
    pub opened: Opened,
    status: String,
    pub messages: Vec<Message>,
}

impl Folder {
    /// Looks at a folder without changing it.
    pub fn seen_by(session: &mut Imap, name: &str) -> Self {
        let opened = session.examine(name);
        let messages = session.messages();
        Self { opened, status: session.status(name), messages }
    }
}

fn is_selectable(entry: &Listed) -> bool {
    !entry.attributes.contains("\\Noselect")
}

/// Every point in which two servers' answers about one user differ, in words.
pub fn differences(master: &Account, mirror: &Account) -> Vec<String> {
    let mut found = Vec::new();
    listing_differences("LIST", &master.listed, &mirror.listed, &mut found);
    listing_differences("LSUB", &master.subscribed, &mirror.subscribed, &mut found);
    for (name, on_master) in &master.folders {
        if let Some(on_mirror) = mirror.folders.get(name) {
            folder_differences(name, on_master, on_mirror, &mut found);
        }
    }
    found
}

fn listing_differences(command: &str, master: &BTreeSet<Listed>, mirror: &BTreeSet<Listed>, found: &mut Vec<String>) {
    let only = |these: &BTreeSet<Listed>, not_those: &BTreeSet<Listed>| -> Vec<Listed> {
        these.difference(not_those).cloned().collect()
    };
    differing(command, &only(master, mirror), &only(mirror, master), found);
}

fn folder_differences(name: &str, master: &Folder, mirror: &Folder, found: &mut Vec<String>) {
    differing(&format!("SELECT {name}"), &master.opened, &mirror.opened, found);
    differing(&format!("STATUS {name}"), &master.status, &mirror.status, found);
    let by_uid = |folder: &Folder| folder.messages.iter().map(|message| (message.uid, summary(message))).collect();
    let (master_messages, mirror_messages): (BTreeMap<_, _>, BTreeMap<_, _>) = (by_uid(master), by_uid(mirror));
    let uids: BTreeSet<u32> = master_messages.keys().chain(mirror_messages.keys()).copied().collect();
    for uid in uids {
        differing(&format!("{name} UID {uid}"), &master_messages.get(&uid), &mirror_messages.get(&uid), found);
    }
    let bodies = master.messages.iter().zip(&mirror.messages).filter(|(one, other)| one.uid == other.uid);
    found.extend(
        bodies
            .filter(|(one, other)| one.body != other.body)
            .map(|(one, _)| format!("{name} UID {}: other text", one.uid)),
    );
    differing(&format!("{name}: number of messages"), &master.messages.len(), &mirror.messages.len(), found);
}

fn differing<T: PartialEq + std::fmt::Debug>(what: &str, master: &T, mirror: &T, found: &mut Vec<String>) {
    if master != mirror {
        found.push(format!("{what}:\n    master {master:?}\n    mirror {mirror:?}"));
    }
}

/// All of a message but its text, and enough of that to know it by.
fn summary(message: &Message) -> String {
    let subject = message.body.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"Subject:"));
    let subject = String::from_utf8_lossy(subject.unwrap_or_default()).trim_end().to_owned();
    let flags: Vec<&str> = message.flags.iter().map(String::as_str).collect();
    format!("{} octets, {}, ({}), {subject}", message.size, message.internal_date, flags.join(" "))
}

/// The user and group that own the mail on disk.
pub fn mail_owner() -> (u32, u32) {
    match own_identity() {
        (0, _) => (MAIL_OWNER, MAIL_OWNER),
        own => own,
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is up");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn users_text(mail: &Path, users: &[User]) -> String {
    let (uid, gid) = mail_owner();
    let version = Version::installed();
    let line = |user: &User| {
        let home = user.home(mail);
        let home = home.to_str().expect("the path is ASCII");
        assert!(!home.contains(':'), "a colon in {home} would end a field");
        let layout = match (user.layout, version) {
            (Layout::MaildirPlusPlus, _) => "",
            (Layout::Fs, Version::V2_3) => "userdb_mail=maildir:~/Maildir:LAYOUT=fs",
            (Layout::Fs, Version::V2_4) => "userdb_mailbox_list_layout=fs",
        };
        format!("{}:{PASSWORD}:{uid}:{gid}::{home}::{layout}\n", user.address)
    };
    users.iter().map(line).collect()
}

/// The releases whose configuration the tests know; Dovecot 2.4 does not read that of 2.3.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V2_3,
    V2_4,
}

impl Version {
    fn installed() -> Self {
        let version = output_of(PROGRAM, "--version");
        match version.get(..4) {
            Some("2.3.") => Self::V2_3,
            Some("2.4.") => Self::V2_4,
            _ => panic!("the tests can configure Dovecot 2.3 and 2.4, not {version}"),
        }
    }
}

fn configuration_text(runtime: &Path, port: u16) -> String {
    let runtime = runtime.to_str().expect("the path is ASCII");
    let (begin, end) = match Version::installed() {
        Version::V2_3 => ("", with_2_3(runtime)),
        Version::V2_4 => ("dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n", with_2_4(runtime)),
    };
    // Without fsync, which is for power cuts only: a test must not wait for a busy disk.
    format!(
        "{begin}base_dir = {runtime}/run
state_dir = {runtime}/state
log_path = {runtime}/errors.log
info_log_path = {runtime}/info.log
debug_log_path = {runtime}/info.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 100
mail_fsync = never
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
{end}{}",
        without_root()
    )
}

fn with_2_3(runtime: &str) -> String {
    format!(
        "disable_plaintext_auth = no
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = scheme=plain username_format=%u {runtime}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {runtime}/users
}}
"
    )
}

fn with_2_4(runtime: &str) -> String {
    format!(
        "auth_allow_cleartext = yes
mail_driver = maildir
mail_path = ~/Maildir
passdb passwd-file {{
  passwd_file_path = {runtime}/users
  default_password_scheme = plain
}}
userdb passwd-file {{
  passwd_file_path = {runtime}/users
}}
"
    )
}

/// An ordinary user can neither change the user of a process nor its root directory.
fn without_root() -> String {
    if own_identity().0 == 0 {
        return String::new();
    }
    let (user, group) = (own_name("-un"), own_name("-gn"));
    let chroots = ["imap-login", "imap-urlauth-login", "anvil", "stats"];
    let chroots: String = chroots.iter().map(|service| format!("service {service} {{\n  chroot =\n}}\n")).collect();
    format!("default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n{chroots}")
}

fn own_name(which: &str) -> String {
    output_of("id", which)
}

fn output_of(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
