//! Attachments in base64: photographs and archives, which do not compress, and documents and tables, which do.

use super::prose::Prose;
use super::random::Random;

/// Encoded sizes: few are large.
const SMALLEST: f64 = 50_000.0;
const LARGEST: f64 = 1_000_000.0;
const SHAPE: f64 = 2.35;
/// Share of the stretches that are already compressed (photographs, zip, the streams of a PDF).
const DENSE: f64 = 0.53;
/// RFC 2045 allows 76 characters a line: 57 bytes.
const LINE: usize = 57;

/// Appends one attachment, encoded.
pub fn write(random: &mut Random, prose: &Prose, out: &mut Vec<u8>) {
    let encoded = random.pareto(SMALLEST, LARGEST, SHAPE);
    let bytes = (encoded * 57.0 / 77.0) as usize;
    encode(&contents(random, prose, bytes), out);
}

/// An attachment of that length, not yet encoded.
pub fn contents(random: &mut Random, prose: &Prose, bytes: usize) -> Vec<u8> {
    let mut contents = Vec::with_capacity(bytes + 4_096);
    let kind = random.unit();
    while contents.len() < bytes {
        let stretch = random.between(4_000, 24_000).min(bytes - contents.len());
        if random.chance(share_of_dense(kind)) {
            random.fill(&mut contents, stretch);
        } else if kind < 0.5 {
            table(random, prose, stretch, &mut contents);
        } else {
            prose.paragraph(random, 0, "", stretch, &mut contents);
        }
    }
    contents.truncate(bytes);
    contents
}

/// A third is dense throughout, a third is hardly dense, the rest is mixed; DENSE on the whole.
fn share_of_dense(kind: f64) -> f64 {
    match kind {
        k if k < 0.33 => 0.1,
        k if k < 0.67 => DENSE,
        _ => (2.0 * DENSE - 0.1).min(1.0),
    }
}

fn table(random: &mut Random, prose: &Prose, bytes: usize, out: &mut Vec<u8>) {
    let end = out.len() + bytes;
    let mut row = random.below(90_000);
    while out.len() < end {
        row += 1;
        let (cents, day) = (random.below(2_000_000), random.between(1, 28));
        let line = format!(
            "{row:06};2026-0{}-{day:02};{};{}.{:02}\r\n",
            day % 9 + 1,
            prose.name(random),
            cents / 100,
            cents % 100
        );
        out.extend_from_slice(line.as_bytes());
    }
}

/// Appends an attachment in lines of base64.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for line in bytes.chunks(LINE) {
        line.chunks(3).for_each(|three| out.extend_from_slice(&quartet(three)));
        out.push(b'\n');
    }
}

fn quartet(bytes: &[u8]) -> [u8; 4] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let at = |index: usize| u32::from(bytes.get(index).copied().unwrap_or(0));
    let word = at(0) << 16 | at(1) << 8 | at(2);
    let digit = |shift: u32| ALPHABET[(word >> shift & 63) as usize];
    let padded = |present: bool, digit: u8| if present { digit } else { b'=' };
    [digit(18), digit(12), padded(bytes.len() > 1, digit(6)), padded(bytes.len() > 2, digit(0))]
}
