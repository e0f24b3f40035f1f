//! As much of IMAP (RFC 3501, 6851) and LMTP (RFC 2033) as the tests speak. Whatever a server refuses ends the test.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than any lock that a server waits for before it gives an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(200);

/// One session of a mail client.
pub struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

/// What a command was answered: the untagged responses, and the tagged one without its tag.
pub struct Answer {
    pub untagged: Vec<Vec<u8>>,
    pub status: String,
}

/// A line of LIST or LSUB.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub name: String,
    pub attributes: BTreeSet<String>,
}

/// What SELECT or EXAMINE says about a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub uid_validity: u32,
    pub uid_next: u32,
    pub exists: u32,
}

/// All that a client can see of a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub uid: u32,
    /// Keywords too; without `\Recent`, which is a property of the session.
    pub flags: BTreeSet<String>,
    pub internal_date: String,
    pub size: u32,
    pub body: Vec<u8>,
}

impl Imap {
    pub fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        let mut session = Self { stream: BufReader::new(stream), tag: 0 };
        let greeting = session.response()?;
        if greeting.starts_with(b"* OK") { Ok(session) } else { Err(std::io::ErrorKind::ConnectionRefused.into()) }
    }

    pub fn login(&mut self, user: &str, password: &str) {
        self.run(&format!("LOGIN {} {}", quoted(user), quoted(password)));
    }

    pub fn create(&mut self, mailbox: &str) {
        self.run(&format!("CREATE {}", quoted(mailbox)));
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        self.run(&format!("RENAME {} {}", quoted(from), quoted(to)));
    }

    pub fn delete(&mut self, mailbox: &str) {
        self.run(&format!("DELETE {}", quoted(mailbox)));
    }

    pub fn subscribe(&mut self, mailbox: &str) {
        self.run(&format!("SUBSCRIBE {}", quoted(mailbox)));
    }

    pub fn unsubscribe(&mut self, mailbox: &str) {
        self.run(&format!("UNSUBSCRIBE {}", quoted(mailbox)));
    }

    pub fn list(&mut self) -> BTreeSet<Listed> {
        self.listing("LIST")
    }

    pub fn lsub(&mut self) -> BTreeSet<Listed> {
        self.listing("LSUB")
    }

    pub fn select(&mut self, mailbox: &str) -> Opened {
        opened(&self.run(&format!("SELECT {}", quoted(mailbox))))
    }

    /// Opens a mailbox without changing it: what is in `new/` stays there.
    pub fn examine(&mut self, mailbox: &str) -> Opened {
        opened(&self.run(&format!("EXAMINE {}", quoted(mailbox))))
    }

    /// Whether a mailbox that is listed is there.
    pub fn exists(&mut self, mailbox: &str) -> bool {
        let answer = self.ask(&format!("STATUS {} (MESSAGES)", quoted(mailbox)));
        let missing = answer.status.starts_with("NO") && answer.status.contains("doesn't exist");
        assert!(missing || answer.status.starts_with("OK"), "{mailbox}: {}", answer.status);
        !missing
    }

    /// MESSAGES, UIDNEXT, UIDVALIDITY and UNSEEN as the server words them.
    pub fn status(&mut self, mailbox: &str) -> String {
        let answer = self.run(&format!("STATUS {} (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)", quoted(mailbox)));
        let line = answer.untagged.iter().find(|line| line.starts_with(b"* STATUS")).expect("STATUS is answered");
        text(line)
    }

    pub fn noop(&mut self) {
        self.run("NOOP");
    }

    /// Every message of the open mailbox, in the order of its UIDs.
    pub fn messages(&mut self) -> Vec<Message> {
        let answer = self.run("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])");
        answer.untagged.iter().filter_map(|line| message(line)).collect()
    }

    /// The UIDs of the open mailbox.
    pub fn uids(&mut self) -> Vec<u32> {
        let answer = self.run("UID SEARCH ALL");
        let line = answer.untagged.iter().find(|line| line.starts_with(b"* SEARCH")).expect("SEARCH is answered");
        text(line).split(' ').skip(2).map(|uid| uid.parse().expect("a UID is a number")).collect()
    }

    /// STORE by UID; `how` is `+FLAGS`, `-FLAGS` or `FLAGS`.
    pub fn store(&mut self, uids: &str, how: &str, flags: &str) {
        self.run(&format!("UID STORE {uids} {how} ({flags})"));
    }

    pub fn copy(&mut self, uids: &str, to: &str) {
        self.run(&format!("UID COPY {uids} {}", quoted(to)));
    }

    pub fn move_to(&mut self, uids: &str, to: &str) {
        self.run(&format!("UID MOVE {uids} {}", quoted(to)));
    }

    pub fn expunge(&mut self) {
        self.run("EXPUNGE");
    }

    /// APPEND; `date` is an IMAP date-time such as `17-Jul-1996 02:44:25 -0700`.
    pub fn append(&mut self, mailbox: &str, flags: &str, date: Option<&str>, body: &[u8]) {
        let date = date.map(|date| format!(" \"{date}\"")).unwrap_or_default();
        let tag = self.begin(&format!("APPEND {} ({flags}){date} {{{}}}", quoted(mailbox), body.len()));
        let go_on = self.expected();
        assert!(go_on.starts_with(b"+"), "APPEND is not let go on: {}", text(&go_on));
        let stream = self.stream.get_mut();
        stream.write_all(body).and_then(|()| stream.write_all(b"\r\n")).expect("the server reads");
        granted("APPEND", self.answer(&tag));
    }

    /// Runs a command that the server must grant.
    pub fn run(&mut self, command: &str) -> Answer {
        granted(command, self.ask(command))
    }

    /// Runs a command, granted or not.
    pub fn ask(&mut self, command: &str) -> Answer {
        let tag = self.begin(command);
        self.answer(&tag)
    }

    fn listing(&mut self, command: &str) -> BTreeSet<Listed> {
        let answer = self.run(&format!("{command} \"\" \"*\""));
        let prefix = format!("* {command} ");
        answer.untagged.iter().filter(|line| line.starts_with(prefix.as_bytes())).map(|line| listed(line)).collect()
    }

    fn begin(&mut self, command: &str) -> String {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        let line = format!("{tag} {command}\r\n");
        self.stream.get_mut().write_all(line.as_bytes()).expect("the server reads");
        tag
    }

    fn answer(&mut self, tag: &str) -> Answer {
        let mut untagged = Vec::new();
        loop {
            let line = self.expected();
            if let Some(status) = text(&line).strip_prefix(&format!("{tag} ")) {
                return Answer { untagged, status: status.to_owned() };
            }
            untagged.push(line);
        }
    }

    fn expected(&mut self) -> Vec<u8> {
        self.response().unwrap_or_else(|error| panic!("the IMAP server gives no answer: {error}"))
    }

    /// One response with the literals in it, without the line end.
    fn response(&mut self) -> std::io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let begin = whole.len();
            self.stream.read_until(b'\n', &mut whole)?;
            if !whole[begin..].ends_with(b"\r\n") {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some(length) = literal_length(&whole[begin..]) else {
                whole.truncate(whole.len() - 2);
                return Ok(whole);
            };
            let begin = whole.len();
            whole.resize(begin + length, 0);
            self.stream.read_exact(&mut whole[begin..])?;
        }
    }
}

/// One session of a mail transfer agent that delivers.
pub struct Lmtp {
    stream: BufReader<UnixStream>,
}

impl Lmtp {
    pub fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut session = Self { stream: BufReader::new(stream) };
        session.expect("220");
        session.say("LHLO localhost", "250");
        Ok(session)
    }

    pub fn deliver(&mut self, to: &str, body: &[u8]) {
        self.say("MAIL FROM:<sender@example.com>", "250");
        self.say(&format!("RCPT TO:<{to}>"), "250");
        self.say("DATA", "354");
        let mut data = Vec::with_capacity(body.len() + 8);
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                data.push(b'.');
            }
            data.extend_from_slice(line);
        }
        data.extend_from_slice(b".\r\n");
        self.stream.get_mut().write_all(&data).expect("the server reads");
        self.expect("250");
    }

    fn say(&mut self, line: &str, code: &str) {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("the server reads");
        self.expect(code);
    }

    fn expect(&mut self, code: &str) {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("the LMTP server answers");
            assert!(line.starts_with(code), "LMTP: {code} expected, answered: {line}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return;
            }
        }
    }
}

/// A response's words; a list is one of them.
#[derive(Debug)]
enum Word {
    Text(Vec<u8>),
    List(Vec<Word>),
}

impl Word {
    fn text(&self) -> String {
        match self {
            Word::Text(bytes) => text(bytes),
            Word::List(_) => panic!("a word was expected, not {self:?}"),
        }
    }

    fn texts(&self) -> impl Iterator<Item = String> + '_ {
        match self {
            Word::List(words) => words.iter().map(Word::text),
            Word::Text(_) => panic!("a list was expected, not {self:?}"),
        }
    }
}

fn listed(line: &[u8]) -> Listed {
    let words = words(&mut &line[..]);
    // Whether new mail was seen in a mailbox lately is a guess of the server's, and no part of its state.
    let attributes = words[2].texts().filter(|name| name != "\\Marked" && name != "\\UnMarked").collect();
    Listed { name: words[4].text(), attributes }
}

fn opened(answer: &Answer) -> Opened {
    let exists = answer.untagged.iter().map(|line| text(line));
    let exists = exists.filter_map(|line| line.strip_prefix("* ")?.strip_suffix(" EXISTS")?.parse().ok()).next();
    Opened {
        uid_validity: response_code(answer, "UIDVALIDITY"),
        uid_next: response_code(answer, "UIDNEXT"),
        exists: exists.expect("EXISTS is told"),
    }
}

fn response_code(answer: &Answer, name: &str) -> u32 {
    let prefix = format!("* OK [{name} ");
    let lines = answer.untagged.iter().map(|line| text(line));
    let value = lines.filter_map(|line| line.strip_prefix(&prefix)?.split(']').next()?.parse().ok()).next();
    value.unwrap_or_else(|| panic!("{name} is not told"))
}

/// A FETCH response with everything in it; None for anything else, such as news about another client's flags.
fn message(line: &[u8]) -> Option<Message> {
    let words = words(&mut &line[..]);
    let [_, _, Word::Text(kind), Word::List(items)] = words.as_slice() else {
        return None;
    };
    let item = |name: &str| {
        let at = items.iter().position(|item| matches!(item, Word::Text(text) if text == name.as_bytes()))?;
        items.get(at + 1)
    };
    let Word::Text(body) = item("BODY[]")? else {
        return None;
    };
    (kind == b"FETCH").then_some(())?;
    Some(Message {
        uid: item("UID")?.text().parse().ok()?,
        flags: item("FLAGS")?.texts().filter(|flag| flag != "\\Recent").collect(),
        internal_date: item("INTERNALDATE")?.text(),
        size: item("RFC822.SIZE")?.text().parse().ok()?,
        body: body.clone(),
    })
}

/// The words up to the end of the input or of the list that it is in. Status lines are not made of words.
fn words(input: &mut &[u8]) -> Vec<Word> {
    let mut found = Vec::new();
    if [&b"* OK"[..], b"* NO", b"* BAD", b"* BYE"].iter().any(|status| input.starts_with(status)) {
        return found;
    }
    while let Some((first, rest)) = input.split_first() {
        match first {
            b' ' => *input = rest,
            b')' => {
                *input = rest;
                return found;
            }
            b'(' => {
                *input = rest;
                found.push(Word::List(words(input)));
            }
            b'"' => {
                *input = rest;
                found.push(Word::Text(quoted_word(input)));
            }
            b'{' => found.push(Word::Text(literal(input))),
            _ => found.push(Word::Text(atom(input))),
        }
    }
    found
}

fn quoted_word(input: &mut &[u8]) -> Vec<u8> {
    let mut word = Vec::new();
    while let Some((first, rest)) = input.split_first() {
        *input = rest;
        match first {
            b'"' => break,
            b'\\' => {
                word.extend(rest.first());
                *input = rest.get(1..).unwrap_or_default();
            }
            other => word.push(*other),
        }
    }
    word
}

fn literal(input: &mut &[u8]) -> Vec<u8> {
    let line_end = input.iter().position(|byte| *byte == b'\n').expect("a literal's length ends its line") + 1;
    let length = literal_length(&input[..line_end]).expect("a literal has a length");
    let (word, rest) = input[line_end..].split_at(length);
    *input = rest;
    word.to_vec()
}

fn atom(input: &mut &[u8]) -> Vec<u8> {
    let end = input.iter().position(|byte| b" ()".contains(byte)).unwrap_or(input.len());
    let (word, rest) = input.split_at(end);
    *input = rest;
    word.to_vec()
}

/// The N of a line that ends with `{N}`.
fn literal_length(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}\r\n")?;
    let begin = line.iter().rposition(|byte| *byte == b'{')? + 1;
    std::str::from_utf8(&line[begin..]).ok()?.parse().ok()
}

fn granted(command: &str, answer: Answer) -> Answer {
    assert!(answer.status.starts_with("OK"), "{command}: {}", answer.status);
    answer
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
