//! What stands in a block once, though it is in several messages: decoded attachments in parts, and each part here, or
//! in an earlier block of the same segment.
//!
//! What [`attachment`](super::attachment) decodes is cut where its contents say so, so that the same attachment gives the
//! same parts behind whatever text, in lines of whatever length. A part that does not compress stands apart from those
//! that do: it would crowd them out of the compressor's memory, and spoil its statistics.
//!
//! ```text
//! text   = count { tag, length [, from] }* folded text, decoded parts that compress
//! dense  = decoded parts that do not compress, as they are
//! ```
//!
//! Numbers are LEB128. Folded text is table and literals of a fold; it is `head` bytes long, which stands behind the
//! count. The extents, put together, are what the fold decoded. Tag 0: the next of `text`. Tag 1: the next of `dense`. A
//! greater one: 2 and twice the source, and 1 if `from` means the source's `dense`, not its text behind the extents.
//! Source 0 is this block; the others are earlier ones. A reference means bytes that stand where it says, never another
//! reference.

use super::attachment::{Folded, put_number, take_number};
use std::ops::Range;
use std::sync::Arc;

/// Most earlier blocks that a block refers to: as many are unpacked for one message, at most.
pub const SOURCES: usize = 8;

/// Shorter attachments are left to the compressor.
const RUN_MIN: usize = 4 << 10;

/// Bytes of a part: least, about, and most.
const PART: (usize, usize, usize) = (4 << 10, 16 << 10, 64 << 10);

/// Bytes that are looked at together, whether they compress.
const WINDOW: usize = 1 << 10;

/// Where a part stands in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// In `dense`, or in the text behind the extents.
    pub is_dense: bool,
    /// Bytes before it there.
    pub from: u32,
}

/// Says where a part stands already: in which source, and where there. Where it says nothing the part will stand at the
/// place that it is told.
pub type Known<'a> = dyn FnMut(&[u8], Spot) -> Option<(usize, Spot)> + 'a;

/// What stands in a block of its own: references mean this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Areas {
    bytes: Vec<u8>,
    /// Where the text begins, behind the extents.
    text: usize,
    /// Where `dense` begins.
    dense: usize,
}

impl Areas {
    fn get(&self, spot: Spot, length: usize) -> Option<&[u8]> {
        let area = if spot.is_dense { self.bytes.get(self.dense..) } else { self.bytes.get(self.text..self.dense) };
        let from = spot.from as usize;
        area?.get(from..from.checked_add(length)?)
    }
}

/// A stretch of what was decoded.
struct Extent {
    tag: usize,
    length: usize,
    from: usize,
}

const TEXT: usize = 0;
const DENSE: usize = 1;

impl Extent {
    /// A reference, if it is one: the source, and where there.
    fn reference(&self) -> Option<(usize, Spot)> {
        let source = self.tag.checked_sub(2)?;
        Some((source / 2, Spot { is_dense: source % 2 == 1, from: u32::try_from(self.from).ok()? }))
    }
}

/// A block's data, laid out: what is to be compressed, and what is not.
pub struct Laid {
    /// The extents and the text.
    pub text: Vec<u8>,
    /// What does not compress.
    pub dense: Vec<u8>,
}

/// Whether any attachment is long enough to be laid out.
pub fn is_worth(folded: &Folded) -> bool {
    folded.runs.iter().any(|run| *run >= RUN_MIN)
}

/// Lays out what was folded.
pub fn lay(folded: Folded, known: &mut Known<'_>) -> Laid {
    let (mut extents, mut text, mut dense): (Vec<Extent>, _, Vec<u8>) = (Vec::new(), folded.text, Vec::new());
    let head = text.len();
    for part in parts(&folded.decoded, &folded.runs) {
        let bytes = &folded.decoded[part.range];
        let area = if part.is_dense { &mut dense } else { &mut text };
        let here = Spot { is_dense: part.is_dense, from: area.len() as u32 };
        let found = if part.is_shared { known(bytes, here) } else { None };
        let extent = match found {
            Some((source, spot)) => {
                let tag = 2 + 2 * source + usize::from(spot.is_dense);
                Extent { tag, length: bytes.len(), from: spot.from as usize }
            }
            None => {
                area.extend_from_slice(bytes);
                Extent { tag: usize::from(part.is_dense), length: bytes.len(), from: 0 }
            }
        };
        match extents.last_mut().filter(|last| goes_on(last, &extent)) {
            Some(last) => last.length += extent.length,
            None => extents.push(extent),
        }
    }
    let mut whole = table(&extents, head);
    whole.append(&mut text);
    Laid { text: whole, dense }
}

fn goes_on(last: &Extent, next: &Extent) -> bool {
    last.tag == next.tag && (next.tag < 2 || last.from + last.length == next.from)
}

fn table(extents: &[Extent], head: usize) -> Vec<u8> {
    let mut table = Vec::new();
    put_number(&mut table, extents.len());
    put_number(&mut table, head);
    for extent in extents {
        put_number(&mut table, extent.tag);
        put_number(&mut table, extent.length);
        if extent.tag >= 2 {
            put_number(&mut table, extent.from);
        }
    }
    table
}

/// What stands in a laid out block itself. `None` where its extents do not decode.
pub fn areas(text: Vec<u8>, dense: &[u8]) -> Option<Areas> {
    read(text, dense).map(|(areas, ..)| areas)
}

fn read(mut text: Vec<u8>, dense: &[u8]) -> Option<(Areas, Vec<Extent>, usize)> {
    let mut rest = text.as_slice();
    let (count, head) = (take_number(&mut rest)?, take_number(&mut rest)?);
    let mut extents = Vec::new();
    for _ in 0..count {
        let (tag, length) = (take_number(&mut rest)?, take_number(&mut rest)?);
        let from = if tag < 2 { 0 } else { take_number(&mut rest)? };
        extents.push(Extent { tag, length, from });
    }
    let (begin, end) = (text.len() - rest.len(), text.len());
    text.extend_from_slice(dense);
    Some((Areas { bytes: text, text: begin, dense: end }, extents, head))
}

/// What stands in a source; `None` where it cannot be had.
pub type Source = Option<Arc<Areas>>;

/// What [`lay`] was given, put together again: at most `most` bytes. `None` where something does not fit. Zeros are in the
/// place of what stands in a source that cannot be had: contents that have none of it are right, by their digests.
pub fn gather(text: Vec<u8>, dense: &[u8], sources: &[Source], most: usize) -> Option<Vec<u8>> {
    let (own, extents, head) = read(text, dense)?;
    let (mut text, mut dense) = own.bytes[own.text..].split_at_checked(own.dense - own.text)?;
    let mut folded = text.split_off(..head)?.to_vec();
    for extent in extents {
        let bytes = match (extent.tag, extent.reference()) {
            (TEXT, _) => text.split_off(..extent.length)?,
            (DENSE, _) => dense.split_off(..extent.length)?,
            (_, Some((0, spot))) => own.get(spot, extent.length)?,
            (_, Some((source, spot))) => match sources.get(source - 1)? {
                Some(source) => source.get(spot, extent.length)?,
                None => &[],
            },
            (_, None) => return None,
        };
        let end = folded.len().checked_add(extent.length).filter(|end| *end <= most)?;
        folded.extend_from_slice(bytes);
        folded.resize(end, 0);
    }
    (text.is_empty() && dense.is_empty()).then_some(folded)
}

/// A part of what was decoded.
struct Part {
    range: Range<usize>,
    is_dense: bool,
    /// It is long enough to be looked for.
    is_shared: bool,
}

/// Cuts what was decoded: all of it, in order.
fn parts(decoded: &[u8], runs: &[usize]) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 0);
    for &run in runs {
        let end = at + run;
        if run < RUN_MIN {
            parts.push(Part { range: at..end, is_dense: false, is_shared: false });
        } else {
            let (least, about, most) = PART;
            for chunk in fastcdc::v2020::FastCDC::new(&decoded[at..end], least, about, most) {
                let begin = at + chunk.offset;
                by_density(decoded, begin..begin + chunk.length, &mut parts);
            }
        }
        at = end;
    }
    parts
}

/// Cuts a chunk where what compresses meets what does not. Windows begin with the chunk, so that the same chunk is cut
/// alike.
fn by_density(decoded: &[u8], chunk: Range<usize>, parts: &mut Vec<Part>) {
    let mut at = chunk.start;
    let first = parts.len();
    while at < chunk.end {
        let rest = chunk.end - at;
        let end = at + if rest < WINDOW + WINDOW / 2 { rest } else { WINDOW };
        let is_dense = is_dense(&decoded[at..end]);
        match parts[first..].last_mut().filter(|last| last.is_dense == is_dense) {
            Some(last) => last.range.end = end,
            None => parts.push(Part { range: at..end, is_dense, is_shared: true }),
        }
        at = end;
    }
}

/// Whether all byte values are about equally frequent: random bytes come to 256 of what is compared with 512 here, the
/// 64 characters of base64 to 1024, and prose to four times that.
fn is_dense(bytes: &[u8]) -> bool {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let sum: u64 = counts.iter().map(|count| u64::from(*count) * u64::from(*count)).sum();
    bytes.len() >= WINDOW / 2 && sum * 128 < (bytes.len() as u64).pow(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn folded(attachments: &[Vec<u8>]) -> Folded {
        let runs = attachments.iter().map(Vec::len).collect();
        Folded { text: b"the text of a message".repeat(9), decoded: attachments.concat(), runs }
    }

    fn whole(folded: &Folded) -> Vec<u8> {
        [folded.text.as_slice(), &folded.decoded].concat()
    }

    /// Blocks as a segment has them: each with all before it as sources.
    #[derive(Default)]
    struct Blocks {
        known: HashMap<Vec<u8>, (usize, Spot)>,
        areas: Vec<Source>,
    }

    impl Blocks {
        fn lay(&mut self, folded: Folded) -> Laid {
            let (known, number) = (&mut self.known, self.areas.len() + 1);
            let laid = lay(folded, &mut |bytes, here| match known.get(bytes) {
                Some((block, spot)) => Some((if *block == number { 0 } else { *block }, *spot)),
                None => {
                    known.insert(bytes.to_vec(), (number, here));
                    None
                }
            });
            self.areas.push(areas(laid.text.clone(), &laid.dense).map(Arc::new));
            laid
        }
    }

    #[test]
    fn an_attachment_that_stood_before_takes_a_few_bytes() {
        let (mut blocks, attachment) = (Blocks::default(), noise(1, 200_000));
        blocks.lay(folded(std::slice::from_ref(&attachment)));
        let again = folded(&[noise(2, 5_000), attachment.clone(), attachment[50_000..].to_vec()]);
        let expected = whole(&again);
        let laid = blocks.lay(again);
        assert!(laid.text.len() + laid.dense.len() < 45_000, "{} and {}", laid.text.len(), laid.dense.len());
        assert_eq!(gather(laid.text, &laid.dense, &blocks.areas, expected.len()), Some(expected));
    }

    #[test]
    fn what_compresses_is_told_from_what_does_not() {
        let prose = b"Whatever people write to each other, it has words, and words come back. ".repeat(200);
        let mut blocks = Blocks::default();
        let laid = blocks.lay(folded(&[[noise(1, 30_000), prose, noise(2, 30_000)].concat()]));
        assert!((58_000..64_000).contains(&laid.dense.len()), "{}", laid.dense.len());
    }

    #[test]
    fn references_that_lead_nowhere_are_refused() {
        let source = areas([&table(&[], 0)[..], b"0123456789"].concat(), b"dense").map(Arc::new);
        let gathered = |tag, length, from| {
            let text = table(&[Extent { tag, length, from }], 0);
            gather(text, &[], std::slice::from_ref(&source), 100)
        };
        assert_eq!(gathered(4, 4, 3).as_deref(), Some(&b"3456"[..]));
        assert_eq!(gathered(5, 2, 3).as_deref(), Some(&b"se"[..]));
        for (tag, length, from) in [
            (4, 4, 7),
            (5, 3, 3),
            (6, 1, 0),
            (2, 1, 0),
            (3, 1, 0),
            (4, 1 << 34, 0),
            (4, 1, 1 << 34),
            (0, 1, 0),
            (1, 1, 0),
        ] {
            assert_eq!(gathered(tag, length, from), None, "{tag} {length} {from}");
        }
    }

    #[test]
    fn what_a_lost_source_has_is_zeros_and_the_rest_is_right() {
        let (mut blocks, attachment) = (Blocks::default(), noise(1, 100_000));
        blocks.lay(folded(std::slice::from_ref(&attachment)));
        let both = folded(&[noise(2, 5_000), attachment]);
        let (expected, begin) = (whole(&both), both.text.len());
        let laid = blocks.lay(both);
        let gathered = gather(laid.text, &laid.dense, &[None], expected.len()).expect("has its length");
        assert_eq!(gathered[..begin + 5_000], expected[..begin + 5_000]);
        assert!(gathered[begin + 5_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn no_more_comes_out_than_is_allowed() {
        let source = areas([&table(&[], 0)[..], &[7; 1000]].concat(), &[]).map(Arc::new);
        let bomb: Vec<Extent> = (0..1000).map(|from| Extent { tag: 4, length: 1000 - from, from }).collect();
        assert_eq!(gather(table(&bomb, 0), &[], std::slice::from_ref(&source), 300_000), None);
    }

    proptest! {
        #[test]
        fn whatever_is_laid_out_is_gathered(
            mails in prop::collection::vec(
                prop::collection::vec((0_u64..4, 0_usize..20_000, 0_usize..60_000, any::<bool>()), 0..4), 1..5),
        ) {
            let mut blocks = Blocks::default();
            for mail in mails {
                let attachments: Vec<Vec<u8>> = mail.iter().map(|(seed, from, length, is_text)| {
                    let all = if *is_text { format!("{seed} and words ").repeat(9_000).into_bytes() } else { noise(*seed, 80_000) };
                    all[*from..from + length].to_vec()
                }).collect();
                let folded = folded(&attachments);
                let expected = whole(&folded);
                let laid = blocks.lay(folded);
                prop_assert_eq!(gather(laid.text, &laid.dense, &blocks.areas, expected.len()), Some(expected));
            }
        }

        #[test]
        fn nonsense_is_never_longer_than_it_may_be(text in prop::collection::vec(any::<u8>(), 0..300), dense in prop::collection::vec(any::<u8>(), 0..50)) {
            if let Some(bytes) = gather(text, &dense, &[], 500) {
                prop_assert!(bytes.len() <= 500);
            }
        }
    }
}
