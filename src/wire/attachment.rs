//! Base64 bodies, decoded before compressing: a quarter of them is redundant, and what is beneath compresses
//! as what it is. Reversible: a run of lines is folded only where encoding it again gives the same bytes.
//!
//! ```text
//! folded = { literal length, line length, decoded length }* literals decoded
//! ```
//!
//! Lengths are LEB128 numbers. A line length of 0 says that no run follows this literal: the end of the table. Each
//! run is lines of equal length (RFC 2045: at most 76) and a last one that is no longer, each ended by a line feed.
//! What is text stands together, and what was decoded behind it: neither crowds the other out of the compressor's memory.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Shorter runs are not worth their description.
const MIN_LINES: usize = 4;

/// Lengths of full lines: mail uses 76, some programs 60, 64 or 72.
const LINE: std::ops::RangeInclusive<usize> = 56..=124;

/// What [`fold`] makes, in its parts.
pub struct Folded {
    /// The table and the literals.
    pub text: Vec<u8>,
    /// What the runs decode to, one after the other.
    pub decoded: Vec<u8>,
    /// How long each of them is.
    pub runs: Vec<usize>,
}

/// Folds the base64 runs of `data`. `None` where there is nothing to gain.
pub fn fold(data: &[u8]) -> Option<Vec<u8>> {
    parts(data).map(|folded| [folded.text, folded.decoded].concat())
}

/// As [`fold`], with what was decoded apart from the rest.
pub fn parts(data: &[u8]) -> Option<Folded> {
    let (mut table, mut literals, mut decoded, mut runs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut literal, mut at) = (0, 0);
    while let Some(length) = data[at..].iter().position(|&byte| byte == b'\n') {
        let Some((end, bytes)) = LINE.contains(&length).then(|| run(data, at, length)).flatten() else {
            at += length + 1;
            continue;
        };
        put_number(&mut table, at - literal);
        put_number(&mut table, length);
        put_number(&mut table, bytes.len());
        literals.extend_from_slice(&data[literal..at]);
        decoded.extend_from_slice(&bytes);
        runs.push(bytes.len());
        (literal, at) = (end, end);
    }
    if literal == 0 {
        return None;
    }
    put_number(&mut table, data.len() - literal);
    put_number(&mut table, 0);
    literals.extend_from_slice(&data[literal..]);
    table.append(&mut literals);
    (table.len() + decoded.len() < data.len()).then_some(Folded { text: table, decoded, runs })
}

/// The run of base64 lines of `length` characters that begins at `begin`: where it ends, and what it decodes to.
fn run(data: &[u8], begin: usize, length: usize) -> Option<(usize, Vec<u8>)> {
    let is_base64 = |line: &[u8]| line.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/');
    if !length.is_multiple_of(4) || !is_base64(&data[begin..begin + length]) {
        return None;
    }
    let mut characters = Vec::new();
    let mut at = begin;
    while data.get(at + length) == Some(&b'\n') && is_base64(&data[at..at + length]) {
        characters.extend_from_slice(&data[at..at + length]);
        at += length + 1;
    }
    if (at - begin) / (length + 1) < MIN_LINES {
        return None;
    }
    let full = STANDARD.decode(&characters).ok()?;
    match last_line(data, at, length) {
        Some((end, rest)) => Some((end, [full, rest].concat())),
        None => Some((at, full)),
    }
}

/// A shorter line that ends a run. Padding must be as an encoder writes it, or it stays literal.
fn last_line(data: &[u8], at: usize, length: usize) -> Option<(usize, Vec<u8>)> {
    let window = &data[at..data.len().min(at + length + 1)];
    let end = window.iter().position(|&byte| byte == b'\n').filter(|&end| end > 0)?;
    let decoded = STANDARD.decode(&window[..end]).ok()?;
    (STANDARD.encode(&decoded).as_bytes() == &window[..end]).then_some((at + end + 1, decoded))
}

/// Undoes [`fold`]. `None` where the bytes are not what it makes, or the result is not `length` bytes long.
pub fn unfold(folded: &[u8], length: usize) -> Option<Vec<u8>> {
    let (parts, rest) = read_table(folded)?;
    let text = parts.iter().map(|part| part.literal).sum();
    let (mut literals, mut decoded) = rest.split_at_checked(text)?;
    let mut data = Vec::with_capacity(length);
    for part in parts {
        data.extend_from_slice(literals.split_off(..part.literal)?);
        let run = decoded.split_off(..part.decoded)?;
        if data.len() + run.len() > length {
            return None;
        }
        for line in STANDARD.encode(run).as_bytes().chunks(part.line.max(1)) {
            data.extend_from_slice(line);
            data.push(b'\n');
        }
    }
    (decoded.is_empty() && data.len() == length).then_some(data)
}

/// An entry of the table: so much text, and the run behind it.
struct Part {
    literal: usize,
    /// 0 in the last one, behind which there is no run.
    line: usize,
    decoded: usize,
}

/// The table, and what stands behind it.
fn read_table(mut folded: &[u8]) -> Option<(Vec<Part>, &[u8])> {
    let mut parts = Vec::new();
    loop {
        let (literal, line) = (take_number(&mut folded)?, take_number(&mut folded)?);
        if line == 0 {
            parts.push(Part { literal, line, decoded: 0 });
            return Some((parts, folded));
        }
        if !LINE.contains(&line) || !line.is_multiple_of(4) {
            return None;
        }
        parts.push(Part { literal, line, decoded: take_number(&mut folded)? });
    }
}

pub(super) fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(super) fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(bytes: &[u8], length: usize) -> Vec<u8> {
        STANDARD.encode(bytes).as_bytes().chunks(length).flat_map(|line| [line, b"\n"].concat()).collect()
    }

    #[test]
    fn an_attachment_shrinks_by_a_quarter_and_comes_back() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for length in [60, 64, 76] {
            let mail = [b"Subject: x\n\n", lines(&bytes, length).as_slice(), b"--boundary--\n"].concat();
            let folded = fold(&mail).expect("has base64");
            assert!(folded.len() < mail.len() * 77 / 100, "{} of {}", folded.len(), mail.len());
            assert_eq!(unfold(&folded, mail.len()).expect("unfolds"), mail);
            assert!(unfold(&folded, mail.len() - 1).is_none());
        }
    }

    #[test]
    fn text_is_left_as_it_is() {
        assert_eq!(fold(b"Subject: x\n\nhello\n"), None);
        assert_eq!(fold(b""), None);
    }

    proptest! {
        #[test]
        fn whatever_is_folded_unfolds_to_itself(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..900), 56_usize..80, ".{0,80}"), 0..6),
            damage in any::<prop::sample::Index>(),
        ) {
            let mut data = Vec::new();
            for (bytes, length, text) in parts {
                data.extend_from_slice(text.as_bytes());
                data.push(b'\n');
                data.extend(lines(&bytes, length));
            }
            // A line that is almost base64, with bits that no encoder sets.
            if !data.is_empty() {
                let at = damage.index(data.len());
                data[at] = b'B';
            }
            if let Some(folded) = fold(&data) {
                prop_assert_eq!(unfold(&folded, data.len()), Some(data));
            }
        }

        #[test]
        fn nonsense_never_unfolds_beyond_its_length(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(data) = unfold(&bytes, 1000) {
                prop_assert_eq!(data.len(), 1000);
            }
        }
    }
}
