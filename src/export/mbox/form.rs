//! One message in mbox form: mboxrd, as qmail began it, with the line ends of RFC 4155.
//!
//! A line that begins with `From `, behind any number of `>`, gets one `>` more, so that a reader can take exactly that
//! away again. Lines end in LF, whatever they ended in; an empty line stands behind every message. What mail servers
//! keep in headers of mbox files is taken out of the message, as Dovecot does when it saves one: a sender must not set
//! flags, and an old `Content-Length` would mislead.

use crate::maildir::entry::Time;
use crate::moment;
use crate::repository::envelope;
use mail_parser::{HeaderName, HeaderValue, MessageParser};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::LazyLock;

/// What the message itself does not say.
pub struct Head<'a> {
    /// When it was delivered.
    pub delivered: Time,
    /// A program has seen that it is there.
    pub is_old: bool,
    /// The letters of its file name.
    pub letters: &'a [u8],
    /// Its keywords.
    pub keywords: Vec<&'a [u8]>,
    /// In the first message of a file: a moment, and the keywords of all messages.
    pub base: Option<(Time, BTreeSet<Vec<u8>>)>,
}

/// Headers that mail servers keep in mbox files, in small letters.
const SERVERS: [&[u8]; 7] =
    [b"content-length", b"status", b"x-imap", b"x-imapbase", b"x-keywords", b"x-status", b"x-uid"];

/// Who has sent what nobody has.
const NOBODY: &str = "MAILER-DAEMON";

/// Writes a message.
///
/// # Errors
/// Where the output does not take it.
pub fn write(message: &[u8], head: &Head<'_>, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "From {} {}", sender(message), moment::asctime(head.delivered))?;
    head.write(output)?;
    let mut lines = message.split_inclusive(|&byte| byte == b'\n').map(text);
    let mut is_left_out = false;
    let mut has_body = false;
    for line in lines.by_ref() {
        if line.is_empty() {
            has_body = true;
            break;
        }
        let is_continued = matches!(line.first(), Some(b' ' | b'\t'));
        is_left_out = if is_continued { is_left_out } else { is_servers(line) };
        if !is_left_out {
            quoted(line, output)?;
        }
    }
    if has_body {
        output.write_all(b"\n")?;
    }
    lines.try_for_each(|line| quoted(line, output))?;
    // Headers end with an empty line, too.
    output.write_all(if has_body { b"\n" } else { b"\n\n" })
}

/// A line without its end.
fn text(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

/// Whether a header's line is one that mail servers keep in mbox files.
fn is_servers(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else { return false };
    let name = line[..colon].trim_ascii_end();
    SERVERS.iter().any(|server| name.eq_ignore_ascii_case(server))
}

fn quoted(line: &[u8], output: &mut dyn Write) -> io::Result<()> {
    let marks = line.iter().take_while(|&&byte| byte == b'>').count();
    if line[marks..].starts_with(b"From ") {
        output.write_all(b">")?;
    }
    output.write_all(line)?;
    output.write_all(b"\n")
}

impl Head<'_> {
    /// The headers by which Dovecot, Python and others know flags and keywords.
    fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        if let Some((moment, keywords)) = &self.base {
            // Dovecot takes no keyword for one that is not announced here: UIDVALIDITY, the last UID, the words. No UIDs
            // are given away: whoever opens the file does that.
            let validity = u32::try_from(moment.seconds).unwrap_or(1).max(1);
            write!(output, "X-IMAPbase: {validity} 0000000000")?;
            words(keywords.iter().map(Vec::as_slice), output)?;
        }
        let chosen = |letters: &[(u8, char)]| -> String {
            let is_set = |(letter, _): &&(u8, char)| self.letters.contains(letter);
            letters.iter().filter(is_set).map(|(_, flag)| flag).collect()
        };
        let old = if self.is_old { "O" } else { "" };
        for (name, value) in [
            ("Status", chosen(&[(b'S', 'R')]) + old),
            ("X-Status", chosen(&[(b'R', 'A'), (b'F', 'F'), (b'D', 'T'), (b'T', 'D')])),
        ] {
            if !value.is_empty() {
                writeln!(output, "{name}: {value}")?;
            }
        }
        if !self.keywords.is_empty() {
            output.write_all(b"X-Keywords:")?;
            words(self.keywords.iter().copied(), output)?;
        }
        Ok(())
    }
}

fn words<'a>(words: impl Iterator<Item = &'a [u8]>, output: &mut dyn Write) -> io::Result<()> {
    for word in words {
        output.write_all(b" ")?;
        output.write_all(word)?;
    }
    output.write_all(b"\n")
}

static PARSER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new().header_address(HeaderName::ReturnPath).header_address(HeaderName::From).default_header_ignore()
});

/// The envelope's sender; where there is none, the author. One that would end the word is nobody.
fn sender(message: &[u8]) -> String {
    // A field that the input ends in is given up by the parser: behind an empty line all are whole.
    let headers = [envelope::headers(message), b"\n\n"].concat();
    let parsed = PARSER.parse_headers(&headers);
    let part = parsed.as_ref().and_then(|message| message.parts.first());
    let first = |name| part?.headers.iter().find(|header| header.name == name).map(|header| &header.value);
    // An empty Return-Path is that of a message of a server to a sender: the author is not asked then.
    let found = first(HeaderName::ReturnPath).or_else(|| first(HeaderName::From));
    let address = found.and_then(address).unwrap_or_default();
    match !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => address.to_owned(),
        false => NOBODY.to_owned(),
    }
}

fn address<'a>(value: &'a HeaderValue<'_>) -> Option<&'a str> {
    match value {
        HeaderValue::Address(addresses) => addresses.first().and_then(|one| one.address()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: Head<'static> = Head {
        delivered: Time { seconds: 1_795_337_998, nanos: 7 },
        is_old: true,
        letters: b"",
        keywords: Vec::new(),
        base: None,
    };

    fn written(message: &[u8], head: &Head<'_>) -> Vec<u8> {
        let mut written = Vec::new();
        write(message, head, &mut written).expect("memory takes it");
        written
    }

    fn shown(message: &str, head: &Head<'_>) -> String {
        String::from_utf8(written(message.as_bytes(), head)).expect("text")
    }

    #[test]
    fn a_message_has_a_line_before_it_and_an_empty_one_behind() {
        let text = "Return-Path: <a@example.org>\r\nSubject: s\r\n\r\nbody\r\n.\r\nno end";
        let wanted = "From a@example.org Sun Nov 22 08:59:58 2026\nStatus: O\n\
                      Return-Path: <a@example.org>\nSubject: s\n\nbody\n.\nno end\n\n";
        assert_eq!(shown(text, &HEAD), wanted);
    }

    #[test]
    fn the_sender_is_that_of_the_envelope_or_the_author_or_nobody() {
        for (headers, wanted) in [
            ("Return-Path: <a@example.org>\nFrom: b@example.org\n\n", "a@example.org"),
            ("From: Anna <b@example.org>, c@example.org\n\n", "b@example.org"),
            ("Return-Path: <>\nFrom: b@example.org\n\n", NOBODY),
            ("Return-Path: <\"a b\"@example.org>\n\n", NOBODY),
            ("From: j\u{f6}rg@example.org\n\n", NOBODY),
            ("Subject: s\n\nFrom: b@example.org\n", NOBODY),
            ("", NOBODY),
        ] {
            assert_eq!(sender(headers.as_bytes()), wanted, "{headers:?}");
        }
    }

    #[test]
    fn flags_and_keywords_are_headers_and_those_of_the_sender_are_not_believed() {
        let keywords = BTreeSet::from([b"$Junk".to_vec(), b"work".to_vec()]);
        let head = Head {
            letters: b"DFRSTa",
            keywords: vec![b"work"],
            base: Some((Time { seconds: 7, nanos: 0 }, keywords)),
            ..HEAD
        };
        let text = "From: x@example.org\nSTATUS : R\nX-Keywords: a\n b\n\tc\nContent-Length: 3\nX-UID: 7\nSubject: s\n t\n\n\
                    Status: said in the body\n";
        let wanted = "From x@example.org Sun Nov 22 08:59:58 2026\nX-IMAPbase: 7 0000000000 $Junk work\nStatus: RO\n\
                      X-Status: AFTD\nX-Keywords: work\nFrom: x@example.org\nSubject: s\n t\n\n\
                      Status: said in the body\n\n";
        assert_eq!(shown(text, &head), wanted);
        let new = Head { is_old: false, ..HEAD };
        assert!(shown("Subject: s\n\n", &new).starts_with("From MAILER-DAEMON Sun Nov 22 08:59:58 2026\nSubject: s\n"));
    }

    #[test]
    fn lines_like_the_one_between_messages_are_quoted_once_more() {
        let text = "Subject: s\n\nFrom a\n>From b\n>>From c\n From d\nFrom: e\nFromage\n> From f\n>";
        let wanted = "Subject: s\n\n>From a\n>>From b\n>>>From c\n From d\nFrom: e\nFromage\n> From f\n>\n\n";
        assert!(shown(text, &HEAD).ends_with(wanted));
        assert!(shown("From x Sun Nov 22 08:59:58 2026\nSubject: s\n\n", &HEAD).contains("\n>From x Sun"));
        assert!(shown("Subject: only a header", &HEAD).ends_with("Subject: only a header\n\n\n"));
    }

    /// A reader of mboxrd, as simple as the format allows.
    fn read(mbox: &[u8]) -> Vec<Vec<u8>> {
        let mut messages: Vec<Vec<u8>> = Vec::new();
        for line in mbox.split_inclusive(|&byte| byte == b'\n') {
            let marks = line.iter().take_while(|&&byte| byte == b'>').count();
            let is_from = line[marks..].starts_with(b"From ");
            match messages.last_mut() {
                _ if is_from && marks == 0 => messages.push(Vec::new()),
                Some(message) => message.extend_from_slice(if is_from { &line[1..] } else { line }),
                None => panic!("the file begins with a line of no message"),
            }
        }
        messages.iter_mut().for_each(|message| assert_eq!(message.pop(), Some(b'\n'), "an empty line ends a message"));
        messages
    }

    /// What a message is when it was read again: its own lines, each ended by LF.
    fn as_lines(message: &[u8]) -> Vec<u8> {
        let lines = message.split_inclusive(|&byte| byte == b'\n').map(text);
        lines.flat_map(|line| [line, b"\n"].concat()).collect()
    }

    /// Bytes of which many are of lines that matter.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let pieces =
            ["From ", ">", "\n", "\r\n", "\r", "From", " ", "x", ":", "\n\n", "From a b\n", "\n>>From ", "\u{0}", "é"];
        let piece = prop_oneof![
            4 => prop::sample::select(pieces.map(|piece| piece.as_bytes().to_vec()).to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..6),
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_quoted_is_read_again(bodies in prop::collection::vec(bytes(), 0..5)) {
            let new = Head { is_old: false, ..HEAD };
            let messages: Vec<Vec<u8>> = bodies.iter().map(|body| [b"Subject: s\r\n\r\n", body.as_slice()].concat()).collect();
            let mbox: Vec<u8> = messages.iter().flat_map(|message| written(message, &new)).collect();
            let wanted: Vec<Vec<u8>> = messages.iter().map(|message| as_lines(message)).collect();
            prop_assert_eq!(read(&mbox), wanted);
        }

        #[test]
        fn whatever_a_message_is_it_stays_one(message in bytes(), other in bytes()) {
            let mbox = [written(&message, &HEAD), written(&other, &HEAD)].concat();
            prop_assert_eq!(read(&mbox).len(), 2);
            prop_assert!(mbox.ends_with(b"\n\n"));
        }
    }
}
