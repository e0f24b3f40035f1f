//! What a person knows a message by: who wrote it to whom, when, and what about.
//!
//! The words are for showing and for finding. They are what mail says of itself, and nothing is decided by them.

use mail_parser::{Addr, Address, HeaderName, HeaderValue, MessageParser, MessagePart};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Bytes of a message that are looked at: headers of one message in thousands are longer, and those are traces of its
/// way, which stand before the rest only where somebody fills them up.
pub const LOOKED_AT: usize = 64 << 10;

/// Longest text in an envelope, in bytes: a To of hundreds of addresses need not be kept to know a message.
pub const TEXT_MAX: usize = 1000;

/// The headers of a message that a restore point keeps. Empty or `None` where a message has none, or none that can be
/// read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Envelope {
    /// Message-ID, without its angle brackets.
    pub message_id: String,
    /// Authors, as `Name <address>`, with commas between them.
    pub from: String,
    /// Addressees, as authors are.
    pub to: String,
    /// Subject, decoded (RFC 2047).
    pub subject: String,
    /// Date, in seconds since 1970-01-01 UTC.
    pub date: Option<i64>,
}

/// Only what an envelope needs is parsed: anything else in a header is skipped.
static PARSER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .header_id(HeaderName::MessageId)
        .header_address(HeaderName::From)
        .header_address(HeaderName::To)
        .header_text(HeaderName::Subject)
        .header_date(HeaderName::Date)
        .default_header_ignore()
});

impl Envelope {
    /// Makes the envelope of a message out of its beginning. Whatever the bytes are, there is an envelope.
    pub fn parse(bytes: &[u8]) -> Self {
        // A field that the input ends in is given up by the parser: behind an empty line all are whole.
        let headers = [headers(bytes), b"\n\n"].concat();
        let message = PARSER.parse_headers(&headers);
        message.and_then(|message| message.parts.into_iter().next()).map(|part| Self::of(&part)).unwrap_or_default()
    }

    fn of(part: &MessagePart<'_>) -> Self {
        let mut envelope = Self::default();
        let mut seen = Vec::with_capacity(5);
        for header in &part.headers {
            // A second From is none (RFC 5322, 3.6), and the first is what mail programs show.
            if !seen.contains(&&header.name) {
                seen.push(&header.name);
                envelope.take(&header.name, &header.value);
            }
        }
        envelope
    }

    fn take(&mut self, name: &HeaderName<'_>, value: &HeaderValue<'_>) {
        match (name, value) {
            (HeaderName::MessageId, value) => self.message_id = first_text(value),
            (HeaderName::From, HeaderValue::Address(addresses)) => self.from = listed(addresses),
            (HeaderName::To, HeaderValue::Address(addresses)) => self.to = listed(addresses),
            (HeaderName::Subject, value) => self.subject = first_text(value),
            (HeaderName::Date, HeaderValue::DateTime(date)) if date.is_valid() => {
                self.date = Some(date.to_timestamp());
            }
            _ => {}
        }
    }
}

/// The bytes before the first empty line, as far as they are looked at.
pub fn headers(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let mut begin = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if matches!(line, b"\n" | b"\r\n") {
            break;
        }
        begin += line.len();
    }
    bytes.get(..begin).unwrap_or(bytes)
}

fn first_text(value: &HeaderValue<'_>) -> String {
    let text = match value {
        HeaderValue::Text(text) => text,
        HeaderValue::TextList(list) => list.first().map_or("", |text| text),
        _ => "",
    };
    clean(text)
}

fn listed(addresses: &Address<'_>) -> String {
    let mut list = String::new();
    for shown in addresses.iter().map(shown).filter(|shown| !shown.is_empty()) {
        if list.len() >= TEXT_MAX {
            break;
        }
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(&shown);
    }
    cut(list)
}

fn shown(address: &Addr<'_>) -> String {
    let (name, address) = (clean(address.name().unwrap_or_default()), clean(address.address().unwrap_or_default()));
    match (name.is_empty(), address.is_empty()) {
        (true, _) => address,
        (false, true) => name,
        (false, false) => format!("{name} <{address}>"),
    }
}

/// The text on one line, without a control character, and not too long.
fn clean(text: &str) -> String {
    let plain: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    cut(plain.trim().to_owned())
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Envelope {
        Envelope::parse(text.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn an_ordinary_header_is_read() {
        let envelope = parse(
            "Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0100\nMessage-ID: <1.2@example.org>\n\
             From: Anna Berg <anna@example.org>\nTo: bob@example.org, \"Carl, C.\" <carl@example.org>\n\
             Subject: Minutes\nDate: Sun, 22 Nov 2026 09:59:58 +0100\n\nSubject: not this\n",
        );
        let wanted = Envelope {
            message_id: "1.2@example.org".to_owned(),
            from: "Anna Berg <anna@example.org>".to_owned(),
            to: "bob@example.org, Carl, C. <carl@example.org>".to_owned(),
            subject: "Minutes".to_owned(),
            date: Some(1_795_337_998),
        };
        assert_eq!(envelope, wanted);
    }

    #[test]
    fn encoded_words_are_decoded_in_any_charset() {
        for (encoded, wanted) in [
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?iso-8859-1?Q?Gr=FC=DFe?= =?iso-8859-1?Q?_an_alle?=", "Grüße an alle"),
            ("=?koi8-r?B?8NLJ18XU?=", "Привет"),
            ("=?iso-2022-jp?B?GyRCJDMkcyRLJEEkTxsoQg==?=", "こんにちは"),
            ("=?gb2312?B?xOO6ww==?=", "你好"),
            ("=?utf-8?Q?a=0D=0Ab?=", "a  b"),
        ] {
            assert_eq!(parse(&format!("Subject: {encoded}\n\n")).subject, wanted);
        }
        assert_eq!(parse("From: =?utf-8?Q?J=C3=B6rg?= <j@example.org>\n\n").from, "Jörg <j@example.org>");
    }

    #[test]
    fn folded_headers_are_one_line() {
        let envelope = parse("Subject: one\n two\n\tthree\nTo: a@example.org,\n b@example.org\n\n");
        assert_eq!((&envelope.subject[..], &envelope.to[..]), ("one two three", "a@example.org, b@example.org"));
    }

    #[test]
    fn what_is_missing_is_empty_and_a_group_is_its_members() {
        for nothing in ["", "\n", "\nSubject: in the body\n", "no header at all", "X-Other: x\n\n", "Date: soon\n\n"] {
            assert_eq!(parse(nothing), Envelope::default(), "{nothing:?}");
        }
        assert_eq!(parse("To: friends: a@example.org, B <b@example.org>;\n\n").to, "a@example.org, B <b@example.org>");
        assert_eq!(parse("Subject: no end").subject, "no end");
        assert_eq!(parse("Message-ID: without@brackets\nSubject: one\nSubject: two\n").message_id, "without@brackets");
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let envelope = parse(&format!("Subject: x{}\nTo: {}\n\n", "ü".repeat(2000), "anna@example.org, ".repeat(1000)));
        assert_eq!(envelope.subject.len(), TEXT_MAX - 1);
        assert!(envelope.to.len() <= TEXT_MAX && envelope.to.starts_with("anna@example.org, anna@"));
        let late = format!("X-Long: {}\nSubject: beyond\n\n", "x".repeat(LOOKED_AT));
        assert_eq!(parse(&late), Envelope::default());
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        let envelope = Envelope::parse(b"Subject: caf\xe9 \x00\x1b[2J\nFrom: \xff\xfe <x@\xffy>\n\n");
        assert!(envelope.subject.starts_with("caf\u{fffd}"), "{envelope:?}");
        assert!(!envelope.subject.contains(char::is_control));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_bad(begin in "(Subject|From|To|Date|Message-ID): ", bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let envelope = Envelope::parse(&[begin.as_bytes(), &bytes].concat());
            for text in [&envelope.message_id, &envelope.from, &envelope.to, &envelope.subject] {
                prop_assert!(text.len() <= TEXT_MAX && !text.contains(char::is_control));
            }
        }

        #[test]
        fn no_date_is_too_bad(text in "Date: [A-Z][a-z]{2}, [0-9]{0,12} [A-Z][a-z]{2} [0-9]{0,30} [0-9:]{0,12} [+-][0-9]{0,20}\n\n") {
            Envelope::parse(text.as_bytes());
        }
    }
}
