//! Messages of real sizes and real texture: transport headers, quoted replies, signatures, attachments.
//!
//! The figures below are calibrated on list mail (each message alone with zstd level 3: 2.3:1; packed into blocks of
//! 256 KiB: about 3.2:1) and on the sizes of office mailboxes (most bytes sit in the attachments of a few messages).

use std::io::Write;

use super::attachment;
use super::prose::Prose;
use super::random::Random;

const TEXT_MEDIAN: f64 = 6_200.0;
const TEXT_SIGMA: f64 = 0.75;
const TEXT_LIMITS: (f64, f64) = (300.0, 200_000.0);
const ATTACHMENT_SHARE: f64 = 0.19;
/// Share of the text of a message that is quoted from the one it answers.
const QUOTED: f64 = 0.22;
const MESSAGES_IN_THREAD: u64 = 5;
const CORRESPONDENTS: usize = 30;
const PARAGRAPH: usize = 700;

/// Which message: the same three numbers always give the same bytes.
#[derive(Clone, Copy)]
pub struct Key {
    pub user: u64,
    pub folder: u64,
    pub number: u64,
}

impl Key {
    fn thread(self) -> u64 {
        self.number / MESSAGES_IN_THREAD
    }

    fn topic(self) -> u64 {
        Random::of(&[5, self.user, self.folder, self.thread()]).next()
    }
}

/// Writes the mail of one tree.
pub struct MailMaker {
    seed: u64,
    prose: Prose,
}

struct Person {
    name: String,
    address: String,
    host: String,
    signature: Vec<u8>,
}

impl MailMaker {
    pub fn new(seed: u64) -> Self {
        Self { seed, prose: Prose::new(seed) }
    }

    /// A message as mailboxes hold them, about one in five with an attachment.
    pub fn real(&self, key: Key, sent: u64, out: &mut Vec<u8>) {
        self.message(key, sent, None, out);
    }

    /// As `real`, with this attachment where one is given.
    pub fn message(&self, key: Key, sent: u64, attachment: Option<&[u8]>, out: &mut Vec<u8>) {
        let mut random = self.random(key);
        let bytes = random.log_normal(TEXT_MEDIAN, TEXT_SIGMA).clamp(TEXT_LIMITS.0, TEXT_LIMITS.1) as usize;
        let thread = key.thread();
        let sender = self.person(key, key.number * 7 % MESSAGES_IN_THREAD + thread);
        self.transport_headers(&mut random, key, &sender, sent, out);
        self.subject(key, thread, out);
        if random.chance(ATTACHMENT_SHARE) || attachment.is_some() {
            self.with_attachment(&mut random, key, &sender, bytes, attachment, out);
        } else {
            out.extend_from_slice(b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n");
            self.text(&mut random, key, &sender, bytes, out);
        }
    }

    /// A message of a few hundred bytes, for trees in which only the number counts.
    pub fn small(&self, key: Key, out: &mut Vec<u8>) {
        let mut random = self.random(key);
        let (from, to) = (self.prose.name(&mut random), self.prose.name(&mut random));
        put(out, format_args!("From: {from}@example.net\nTo: {to}@example.org\n"));
        put(out, format_args!("Message-ID: <{:016x}@example.net>\n", random.next()));
        put(out, format_args!("Subject: {}\n\n", self.prose.word(&mut random)));
        let bytes = random.between(60, 420);
        self.prose.paragraph(&mut random, 0, "", bytes, out);
    }

    fn random(&self, key: Key) -> Random {
        Random::of(&[self.seed, key.user, key.folder, key.number])
    }

    fn person(&self, key: Key, which: u64) -> Person {
        let mut random = Random::of(&[self.seed, 2, key.user, which % CORRESPONDENTS as u64]);
        let (first, last) = (self.prose.name(&mut random), self.prose.name(&mut random));
        let host = format!("{}.example.net", self.prose.name(&mut random));
        let mut signature = format!("\n-- \n{first} {last}\n").into_bytes();
        let bytes = random.between(30, 240);
        self.prose.paragraph(&mut random, 0, "", bytes, &mut signature);
        Person { name: format!("{first} {last}"), address: format!("{first}.{last}@{host}"), host, signature }
    }

    fn transport_headers(&self, random: &mut Random, key: Key, sender: &Person, sent: u64, out: &mut Vec<u8>) {
        let (host, user) = (&sender.host, key.user);
        let when = format!("{} +0000", date(sent));
        put(out, format_args!("Return-Path: <{}>\nDelivered-To: user{user:04}@example.org\n", sender.address));
        put(
            out,
            format_args!(
                "Received: from mx1.example.org ([192.0.2.{}])\n\tby imap-backend-03.example.org with LMTP\n\tid {}\n\t(envelope-from <{}>)\n\tfor <user{user:04}@example.org>; {when}\n",
                random.between(2, 9),
                token(random, 22),
                sender.address
            ),
        );
        put(
            out,
            format_args!(
                "Received: from mail.{host} (mail.{host} [198.51.100.{}])\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\n\t key-exchange X25519 server-signature RSA-PSS (2048 bits))\n\tby mx1.example.org (Postfix) with ESMTPS id {}\n\tfor <user{user:04}@example.org>; {when}\n",
                random.between(2, 250),
                token(random, 12)
            ),
        );
        put(
            out,
            format_args!(
                "Authentication-Results: mx1.example.org;\n\tdkim=pass (2048-bit key; unprotected) header.d={host} header.i=@{host} header.a=rsa-sha256 header.s=mail;\n\tspf=pass smtp.mailfrom={}; dmarc=pass header.from={host}\n",
                sender.address
            ),
        );
        put(
            out,
            format_args!(
                "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={host}; s=mail;\n\tt={sent}; h=from:from:reply-to:subject:subject:date:date:message-id:message-id:\n\t to:to:cc:mime-version:mime-version:content-type:content-type;\n\tbh={}=;\n\tb={}\n\t {}\n\t {}\n\t {}\n\t {}==\n",
                token(random, 43),
                token(random, 70),
                token(random, 72),
                token(random, 72),
                token(random, 72),
                token(random, 56)
            ),
        );
        put(
            out,
            format_args!(
                "Received: from [10.{}.{}.{}] (client.{host} [203.0.113.{}])\n\tby mail.{host} (Postfix) with ESMTPSA id {};\n\t{when}\n",
                random.below(200),
                random.below(250),
                random.below(250),
                random.between(2, 250),
                token(random, 12)
            ),
        );
        put(
            out,
            format_args!(
                "Message-ID: <{}@{host}>\nDate: {when}\nFrom: {} <{}>\nTo: user{user:04}@example.org\n",
                token(random, 28),
                sender.name,
                sender.address
            ),
        );
        put(
            out,
            format_args!(
                "User-Agent: Mozilla Thunderbird\nContent-Language: en-US\nX-Spam-Status: No, score=-{}.{}\n",
                random.below(6),
                random.below(10)
            ),
        );
    }

    fn subject(&self, key: Key, thread: u64, out: &mut Vec<u8>) {
        let mut random = Random::of(&[self.seed, 3, key.user, key.folder, thread]);
        let answer = if key.number.is_multiple_of(MESSAGES_IN_THREAD) { "" } else { "Re: " };
        put(out, format_args!("Subject: {answer}"));
        for _ in 0..random.between(2, 7) {
            put(out, format_args!("{} ", self.prose.word(&mut random)));
        }
        put(out, format_args!("({})\n", self.prose.name(&mut random)));
    }

    fn text(&self, random: &mut Random, key: Key, sender: &Person, bytes: usize, out: &mut Vec<u8>) {
        let end = out.len() + bytes;
        if !key.number.is_multiple_of(MESSAGES_IN_THREAD) {
            self.quote(key, (bytes as f64 * QUOTED) as usize, out);
        }
        let mut own = self.own_words(key);
        while out.len() < end {
            let wanted = random.between(PARAGRAPH / 3, PARAGRAPH).min(end - out.len());
            self.prose.paragraph(&mut own, key.topic(), "", wanted, out);
            out.push(b'\n');
        }
        out.extend_from_slice(&sender.signature);
    }

    /// What its author wrote in this message; the answer quotes the beginning of the same stream.
    fn own_words(&self, key: Key) -> Random {
        Random::of(&[self.seed, 4, key.user, key.folder, key.number])
    }

    fn quote(&self, key: Key, bytes: usize, out: &mut Vec<u8>) {
        let mut answered = self.own_words(Key { number: key.number - 1, ..key });
        self.prose.paragraph(&mut answered, key.topic(), "> ", bytes, out);
        out.push(b'\n');
    }

    fn with_attachment(
        &self,
        random: &mut Random,
        key: Key,
        sender: &Person,
        bytes: usize,
        attachment: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        let boundary = format!("------------{}", token(random, 24));
        put(
            out,
            format_args!(
                "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\n\nThis is a multi-part message in MIME format.\n--{boundary}\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\n"
            ),
        );
        self.text(random, key, sender, bytes, out);
        let (kind, extension) = random.pick(&[("application/pdf", "pdf"), ("image/jpeg", "jpg"), ("text/csv", "csv")]);
        let name = self.prose.name(random);
        put(
            out,
            format_args!(
                "--{boundary}\nContent-Type: {kind}; name=\"{name}.{extension}\"\nContent-Disposition: attachment; filename=\"{name}.{extension}\"\nContent-Transfer-Encoding: base64\n\n"
            ),
        );
        match attachment {
            Some(contents) => attachment::encode(contents, out),
            None => attachment::write(random, &self.prose, out),
        }
        put(out, format_args!("--{boundary}--\n"));
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes what is written");
}

/// `length` characters that do not compress beyond their alphabet, as queue ids, keys and signatures have.
fn token(random: &mut Random, length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789Zz";
    (0..length).map(|_| char::from(*random.pick(ALPHABET))).collect()
}

/// Days since 1970 to a civil date, after Howard Hinnant's `civil_from_days`; the weekday as RFC 5322 wants it.
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 2 } else { shifted - 10 };
    let year = year_of_era + z / 146_097 * 400 + u64::from(month < 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02}")
}
