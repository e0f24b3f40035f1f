//! The columns of a range: sections of bytes, numbers, words, and words that come again.
//!
//! Each is written in the way that makes it shortest and says which way that was. A column that is random by nature
//! (the check of a content, the nanoseconds of a time) costs its entropy; one that hardly changes costs next to nothing.

use std::collections::HashMap;
use std::io;

/// Level of zstd: a manifest is written once and read for months; above this nothing more is won.
const LEVEL: i32 = 9;

/// Most bytes that the sections of a range have together, unpacked: what a range may weigh, and its numbers.
const RAW_MAX: usize = 8 << 20;

/// What is wrong with the bytes of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// Writes columns.
pub(super) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    /// # Errors
    /// When zstd fails, which means no memory.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(LEVEL)?, packed: Vec::new() })
    }

    /// What was packed.
    pub(super) fn finish(self) -> Vec<u8> {
        self.packed
    }

    pub(super) fn varint(&mut self, number: u64) {
        push_varint(&mut self.packed, number);
    }

    /// A section as it is: for what zstd would not make shorter.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        push_section(&mut self.packed, bytes, None);
    }

    /// A section, compressed where that is shorter.
    pub(super) fn section(&mut self, bytes: &[u8]) -> io::Result<()> {
        let section = self.squeezed(bytes)?;
        self.packed.extend_from_slice(&section);
        Ok(())
    }

    fn squeezed(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut section = Vec::new();
        let shorter = Some(self.zstd.compress(bytes)?).filter(|shorter| shorter.len() < bytes.len());
        push_section(&mut section, bytes, shorter.as_deref());
        Ok(section)
    }

    /// A column of numbers. `beside` are columns, of numbers as many, that these may follow.
    pub(super) fn numbers(&mut self, values: &[u64], beside: &[&[u64]]) -> io::Result<()> {
        let bases = (PLAIN..=PREVIOUS).chain(PREVIOUS + 1..).take(2 + beside.len());
        let differences = bases.map(|basis| (basis, subtract(values, basis, beside)));
        let (basis, differences) = differences.min_by_key(|(_, numbers)| cost(numbers)).unwrap_or_default();
        let mut varints = Vec::with_capacity(values.len());
        differences.iter().for_each(|&number| push_varint(&mut varints, number));
        let varints = self.squeezed(&varints)?;
        let (lengths, bits) = split(&differences);
        let mut split = self.squeezed(&lengths)?;
        push_section(&mut split, &bits, None);
        let (form, shorter) = if split.len() < varints.len() { (SPLIT, split) } else { (VARINTS, varints) };
        self.packed.extend_from_slice(&[basis, form]);
        self.packed.extend_from_slice(&shorter);
        Ok(())
    }

    /// A column of words: their lengths, and the words one after the other.
    pub(super) fn words(&mut self, words: &Words) -> io::Result<()> {
        self.numbers(&words.lengths, &[])?;
        self.section(&words.bytes)
    }

    /// The words of a dictionary, and how many there are. Who uses them has their numbers in columns of its own.
    pub(super) fn dictionary(&mut self, dictionary: &Dictionary) -> io::Result<()> {
        self.varint(dictionary.words.lengths.len() as u64);
        self.words(&dictionary.words)
    }
}

/// Reads columns, in the order in which they were packed.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    allowed: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(packed: &'a [u8]) -> Self {
        Self { rest: packed, allowed: RAW_MAX }
    }

    /// The input must end here.
    pub(super) fn finish(self) -> Result<()> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Malformed("something stands behind its last column")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed("a column is cut"))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.bytes(1)?.first().copied().ok_or(Malformed("a column is cut"))
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("a number is too long"))
    }

    /// A number that counts something in memory.
    pub(super) fn count(&mut self) -> Result<usize> {
        let number = self.varint()?;
        usize::try_from(number).ok().filter(|&number| number <= RAW_MAX).ok_or(Malformed("a column is too long"))
    }

    pub(super) fn section(&mut self) -> Result<Vec<u8>> {
        let (raw, stored) = (self.count()?, self.count()?);
        self.allowed = self.allowed.checked_sub(raw).ok_or(Malformed("its columns are too long"))?;
        let stored = self.bytes(stored)?;
        if stored.len() == raw {
            return Ok(stored.to_vec());
        }
        let unpacked = zstd::bulk::decompress(stored, raw).ok().filter(|bytes| bytes.len() == raw);
        unpacked.ok_or(Malformed("a column does not decompress"))
    }

    /// A column of `count` numbers.
    pub(super) fn numbers(&mut self, count: usize, beside: &[&[u64]]) -> Result<Vec<u64>> {
        let (basis, form) = (self.byte()?, self.byte()?);
        let mut numbers = match form {
            VARINTS => varints(&self.section()?, count)?,
            SPLIT => joined(&self.section()?, &self.section()?, count)?,
            _ => return Err(Malformed("a column of numbers has an unknown form")),
        };
        add(&mut numbers, basis, beside)?;
        Ok(numbers)
    }

    /// A column of `count` words.
    pub(super) fn words(&mut self, count: usize) -> Result<Words> {
        let lengths = self.numbers(count, &[])?;
        let bytes = self.section()?;
        let sum = lengths.iter().try_fold(0_u64, |sum, &length| sum.checked_add(length));
        match sum == Some(bytes.len() as u64) {
            true => Ok(Words { lengths, bytes }),
            false => Err(Malformed("the lengths of words do not match them")),
        }
    }

    /// A dictionary of at most `most` words.
    pub(super) fn dictionary(&mut self, most: usize) -> Result<Vocabulary> {
        let count = self.count()?;
        if count > most {
            return Err(Malformed("a dictionary has more words than are used"));
        }
        let words = self.words(count)?;
        Ok(Vocabulary { ends: words.ends(), bytes: words.bytes })
    }
}

// ---- numbers ----

/// Numbers as they are.
const PLAIN: u8 = 0;

/// Each number as the difference to the one before it; 2 and above: to the number in a column beside.
const PREVIOUS: u8 = 1;

/// Each number as a varint.
const VARINTS: u8 = 0;

/// The lengths of the numbers in bits, a byte each, and apart from them the bits behind the first.
const SPLIT: u8 = 1;

/// The numbers of `beside` that a basis means.
fn basis_column<'a>(basis: u8, beside: &[&'a [u64]]) -> Option<&'a [u64]> {
    beside.get(usize::from(basis).checked_sub(2)?).copied()
}

fn subtract(values: &[u64], basis: u8, beside: &[&[u64]]) -> Vec<u64> {
    let difference = |(&value, &base): (&u64, &u64)| zigzag(value.wrapping_sub(base));
    match basis_column(basis, beside) {
        Some(column) => values.iter().zip(column).map(difference).collect(),
        None if basis == PREVIOUS => values.iter().zip(std::iter::once(&0).chain(values)).map(difference).collect(),
        None => values.to_vec(),
    }
}

fn add(numbers: &mut [u64], basis: u8, beside: &[&[u64]]) -> Result<()> {
    match basis_column(basis, beside) {
        Some(column) if column.len() == numbers.len() => {
            numbers.iter_mut().zip(column).for_each(|(number, base)| *number = zagzig(*number).wrapping_add(*base));
        }
        None if basis == PREVIOUS => {
            let mut previous = 0_u64;
            for number in numbers {
                previous = previous.wrapping_add(zagzig(*number));
                *number = previous;
            }
        }
        None if basis == PLAIN => {}
        _ => return Err(Malformed("a column of numbers has an unknown basis")),
    }
    Ok(())
}

/// Small numbers for small differences of either sign: 0, -1, 1, -2 ...
pub(super) fn zigzag(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    (signed << 1 ^ signed >> 63).cast_unsigned()
}

/// What [`zigzag`] was made of.
pub(super) fn zagzig(number: u64) -> u64 {
    number >> 1 ^ (number & 1).wrapping_neg()
}

fn bit_length(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

/// Bits that numbers have: which basis is best.
fn cost(numbers: &[u64]) -> u64 {
    numbers.iter().map(|&number| u64::from(bit_length(number))).sum()
}

pub(super) fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A column has as many numbers as there are records that have them.
const LENGTH: Malformed = Malformed("a column has another length than its records");

fn varints(bytes: &[u8], count: usize) -> Result<Vec<u64>> {
    let mut input = Input::new(bytes);
    let numbers = (0..count).map(|_| input.varint()).collect::<Result<_>>()?;
    input.finish().map_err(|_| LENGTH)?;
    Ok(numbers)
}

/// The length of each number in bits, and the bits behind the first, which is always 1.
fn split(numbers: &[u64]) -> (Vec<u8>, Vec<u8>) {
    let (mut bits, mut waiting, mut filled) = (Vec::new(), 0_u128, 0);
    for &number in numbers {
        let behind = bit_length(number).saturating_sub(1);
        waiting |= u128::from(number & !(u64::MAX << behind)) << filled;
        filled += behind;
        while filled >= 8 {
            bits.push(waiting as u8);
            waiting >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        bits.push(waiting as u8);
    }
    (numbers.iter().map(|&number| bit_length(number) as u8).collect(), bits)
}

fn joined(lengths: &[u8], bits: &[u8], count: usize) -> Result<Vec<u64>> {
    if lengths.len() != count {
        return Err(LENGTH);
    }
    let sum: usize = lengths.iter().map(|&length| usize::from(length.saturating_sub(1))).sum();
    if lengths.iter().any(|&length| u32::from(length) > u64::BITS) || bits.len() != sum.div_ceil(8) {
        return Err(Malformed("the bits of numbers do not match their lengths"));
    }
    let mut bits = bits.iter();
    let (mut waiting, mut filled) = (0_u128, 0);
    let mut number = |&length: &u8| {
        let behind = u32::from(length.saturating_sub(1));
        while filled < behind {
            waiting |= u128::from(*bits.next().unwrap_or(&0)) << filled;
            filled += 8;
        }
        let low = waiting as u64 & !(u64::MAX << behind);
        waiting >>= behind;
        filled -= behind;
        u64::from(length > 0) << behind | low
    };
    Ok(lengths.iter().map(&mut number).collect())
}

// ---- sections ----

fn push_section(packed: &mut Vec<u8>, bytes: &[u8], shorter: Option<&[u8]>) {
    let stored = shorter.unwrap_or(bytes);
    push_varint(packed, bytes.len() as u64);
    push_varint(packed, stored.len() as u64);
    packed.extend_from_slice(stored);
}

// ---- words ----

/// Words one after the other.
#[derive(Default)]
pub(super) struct Words {
    lengths: Vec<u64>,
    bytes: Vec<u8>,
}

impl Words {
    pub(super) fn push(&mut self, word: &[u8]) {
        self.lengths.push(word.len() as u64);
        self.bytes.extend_from_slice(word);
    }

    /// Where each word ends. The sum of the lengths is known to be that of the bytes.
    fn ends(&self) -> Vec<usize> {
        let mut end = 0;
        self.lengths
            .iter()
            .map(|&length| {
                end += length as usize;
                end
            })
            .collect()
    }

    /// Each word.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        self.lengths.iter().map(move |&length| {
            let (word, behind) = rest.split_at_checked(length as usize).unwrap_or_default();
            rest = behind;
            word
        })
    }
}

/// Words that come again, numbered in the order in which they first came.
#[derive(Default)]
pub(super) struct Dictionary {
    known: HashMap<Box<[u8]>, u64>,
    words: Words,
}

impl Dictionary {
    /// The number of a word, which is a new one where it was not there.
    pub(super) fn number(&mut self, word: &[u8]) -> u64 {
        if let Some(&number) = self.known.get(word) {
            return number;
        }
        let number = self.known.len() as u64;
        self.known.insert(word.into(), number);
        self.words.push(word);
        number
    }
}

/// A dictionary that was read.
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Vocabulary {
    /// The word of a number.
    pub(super) fn word(&self, number: u64) -> Result<&[u8]> {
        let word = usize::try_from(number).ok().and_then(|number| self.get(number));
        word.ok_or(Malformed("a word is not in its dictionary"))
    }

    fn get(&self, number: usize) -> Option<&[u8]> {
        let begin = match number.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(begin..*self.ends.get(number)?)
    }

    /// Every word, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).filter_map(|number| self.get(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn packed(pack: impl FnOnce(&mut Packer) -> io::Result<()>) -> Vec<u8> {
        let mut packer = Packer::new().expect("begins");
        pack(&mut packer).expect("packs");
        packer.finish()
    }

    /// Bytes that a column of a thousand numbers takes.
    fn size(number: impl Fn(u64) -> u64, beside: &[&[u64]]) -> usize {
        let numbers: Vec<u64> = (0..1000).map(number).collect();
        packed(|packer| packer.numbers(&numbers, beside)).len()
    }

    #[test]
    fn a_column_costs_what_is_new_in_it() {
        let random = |number: u64| {
            u64::from_le_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().expect("32"))
        };
        let beside: Vec<u64> = (0..1000).map(random).collect();
        assert!(size(|_| 7, &[]) < 40);
        assert!(size(|number| 1_763_800_000 + 60 * number, &[]) < 60);
        assert!(size(|number| random(number) + 5, &[&beside]) < 40);
        // Twenty bits of chance are two and a half bytes, and the lengths have their own table of codes.
        assert!(size(|number| random(number) >> 44, &[]) < 2700);
        assert!(size(random, &[]) < 8200);
    }

    proptest! {
        #[test]
        fn numbers_come_back(pairs in vec((any::<u64>(), prop_oneof![any::<u64>(), 0..100_u64], 0..64), 0..200)) {
            let beside: Vec<u64> = pairs.iter().map(|(beside, ..)| *beside).collect();
            for near in [false, true] {
                let number = |&(beside, number, shift): &(u64, u64, i32)| match near {
                    true => beside.wrapping_add(number >> shift),
                    false => number >> shift,
                };
                let numbers: Vec<u64> = pairs.iter().map(number).collect();
                let bytes = packed(|packer| packer.numbers(&numbers, &[&beside]));
                let mut input = Input::new(&bytes);
                prop_assert_eq!(input.numbers(numbers.len(), &[&beside]), Ok(numbers));
                prop_assert_eq!(input.finish(), Ok(()));
            }
        }

        #[test]
        fn bits_come_back(numbers in vec((any::<u64>(), 0..64), 0..100)) {
            let numbers: Vec<u64> = numbers.into_iter().map(|(number, shift)| number >> shift).collect();
            let (lengths, bits) = split(&numbers);
            prop_assert_eq!(joined(&lengths, &bits, numbers.len()), Ok(numbers));
        }

        #[test]
        fn no_bytes_are_too_bad(bytes in vec(any::<u8>(), 0..100), count in 0..20_usize) {
            let _ = Input::new(&bytes).numbers(count, &[]);
            let _ = Input::new(&bytes).words(count).map(|words| words.iter().count());
            let _ = Input::new(&bytes).dictionary(count).map(|words| words.iter().count());
        }
    }

    #[test]
    fn zigzag_makes_small_numbers_of_small_differences() {
        let differences = [0, 1_u64.wrapping_neg(), 1, 2_u64.wrapping_neg(), u64::MAX / 2, u64::MAX / 2 + 1];
        assert_eq!(differences.map(zigzag), [0, 1, 2, 3, u64::MAX - 1, u64::MAX]);
        assert_eq!(differences.map(zigzag).map(zagzig), differences);
    }

    #[test]
    fn a_column_that_unpacks_to_too_much_is_refused() {
        let bytes = packed(|packer| packer.section(&vec![0; RAW_MAX + 1]));
        assert!(Input::new(&bytes).section().is_err());
        let twice = packed(|packer| (0..2).try_for_each(|_| packer.section(&vec![0; RAW_MAX / 2 + 1])));
        let mut input = Input::new(&twice);
        assert!(input.section().is_ok() && input.section().is_err());
    }
}
