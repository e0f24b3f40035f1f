//! Tests of the rolling-hash deltas, against fast_rsync and against mutations.

use std::cell::Cell;
use std::error::Error;
use std::{iter, slice};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Bytes without any pattern, the same in each run.
fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `bytes` cut at the given sizes; what is left is the last piece.
fn pieces<'b>(mut bytes: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes {
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

fn signature_of(base: &[u8], block_size: u32) -> Signature {
    let mut builder = SignatureBuilder::new(block_size);
    builder.update(base);
    Signature::parse(builder.finish()).expect("our own signature")
}

fn delta_of(signature: &Signature, windows: &[&[u8]]) -> Vec<u8> {
    let index = signature.index();
    let mut differ = Differ::new(&index);
    let mut delta = Vec::new();
    for window in windows {
        differ.window(window, &mut delta).expect("a parsed signature");
    }
    differ.finish(&mut delta);
    delta
}

fn delta_at_once(signature: &Signature, new: &[u8]) -> Vec<u8> {
    let mut delta = Vec::new();
    fast_rsync::diff(&signature.index().inner, new, &mut delta).expect("a parsed signature");
    delta
}

/// What `apply` says, and what it wrote.
fn applied(base: &[u8], mut delta: &[u8], limit: u64) -> (Result<u64, DeltaError>, Vec<u8>) {
    let mut out = Vec::new();
    (apply(&base, &mut delta, &mut out, limit), out)
}

fn result_of(base: &[u8], delta: &[u8]) -> Vec<u8> {
    let (length, out) = applied(base, delta, u64::MAX);
    assert_eq!(length.expect("a valid delta"), out.len() as u64);
    out
}

fn refusal_of(delta: &[u8]) -> DeltaError {
    let with_magic = [&DELTA_MAGIC, delta].concat();
    applied(b"0123456789", &with_magic, 100).0.expect_err("a malformed delta")
}

/// A command with its bytes; LITERALs in a row are one.
#[derive(Debug, PartialEq)]
enum Step {
    Literal(Vec<u8>),
    Copy(Span),
}

fn steps(mut delta: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    read_magic(&mut delta).expect("a delta");
    loop {
        match (read_command(&mut delta).expect("a valid command"), steps.last_mut()) {
            (Command::End, _) => return steps,
            (Command::Copy(span), _) => steps.push(Step::Copy(span)),
            (Command::Literal(length), last) => {
                let (literal, rest) = delta.split_at(length as usize);
                delta = rest;
                match last {
                    Some(Step::Literal(bytes)) => bytes.extend_from_slice(literal),
                    _ => steps.push(Step::Literal(literal.to_vec())),
                }
            }
        }
    }
}

/// A base that never ends and is made of zeros.
struct Endless;

impl ReadAt for Endless {
    fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<usize> {
        buffer.fill(0);
        Ok(buffer.len())
    }
}

/// A delta of one command, repeated without end.
struct Over<I>(I);

impl<'c> Over<iter::Chain<slice::Iter<'c, u8>, iter::Cycle<slice::Iter<'c, u8>>>> {
    fn and_over(command: &'c [u8]) -> Self {
        Self(DELTA_MAGIC.iter().chain(command.iter().cycle()))
    }
}

impl<'c, I: Iterator<Item = &'c u8>> Read for Over<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill_with(|| *self.0.next().expect("no end"));
        Ok(buffer.len())
    }
}

/// Gives one byte at a time and is interrupted before each.
struct Trickle<'b> {
    bytes: &'b [u8],
    interrupted: Cell<bool>,
}

impl<'b> Trickle<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, interrupted: Cell::new(false) }
    }

    fn interrupt(&self) -> io::Result<()> {
        let interrupted = !self.interrupted.get();
        self.interrupted.set(interrupted);
        if interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl ReadAt for Trickle<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.interrupt()?;
        let size = buffer.len().min(1);
        self.bytes.read_at(&mut buffer[..size], offset)
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        let size = buffer.len().min(1);
        self.bytes.read(&mut buffer[..size])
    }
}

/// Fails whatever is asked of it.
struct Broken(io::ErrorKind);

impl ReadAt for Broken {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::Error::new(self.0, "broken"))
    }
}

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0, "broken"))
    }
}

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0, "broken"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what is written and remembers the largest piece.
#[derive(Default)]
struct Measure {
    written: u64,
    largest: usize,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len() as u64;
        self.largest = self.largest.max(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn blocks_grow_as_the_square_root_and_divide_the_window() {
    let sizes = [
        (0, 512),
        (15 << 10, 512),
        (256 << 10, 512),
        ((1 << 20) - 1, 512),
        (1 << 20, 1 << 10),
        (100_000_000, 8 << 10),
        ((1 << 30) - 1, 16 << 10),
        (1 << 30, 32 << 10),
        (u64::MAX, 32 << 10),
    ];
    for (length, block_size) in sizes {
        assert_eq!(block_size_for(length), block_size, "{length}");
        assert!(WINDOW.is_multiple_of(block_size as usize), "{length}");
    }
}

#[test]
fn a_builder_uses_and_states_the_nearest_possible_block_size() {
    for (asked, used) in [(0, 1), (1, 1), (BLOCK_LIMIT, BLOCK_LIMIT), (u32::MAX, BLOCK_LIMIT)] {
        assert_eq!(signature_of(b"some bytes", asked).block_size, used as usize);
    }
}

#[test]
fn a_signature_is_refused_for_what_its_header_states() {
    let signature = |magic: u32, block_size: u32, hash_length: u32, entries: usize| {
        let header = [magic, block_size, hash_length].map(u32::to_be_bytes).concat();
        Signature::parse([header, vec![0; entries]].concat())
    };
    for (block_size, hash_length) in [(1, 1), (BLOCK_LIMIT, 16)] {
        let entries = 3 * (4 + hash_length as usize);
        assert!(signature(SIGNATURE_MAGIC, block_size, hash_length, 0).is_ok());
        assert!(signature(SIGNATURE_MAGIC, block_size, hash_length, entries).is_ok());
    }
    let refused = [
        // BLAKE2, which fast_rsync parses but cannot diff against.
        (signature(0x7273_0137, 512, 8, 12), "not an MD4 signature: it begins with 0x72730137"),
        (signature(SIGNATURE_MAGIC, 0, 8, 12), "a signature with blocks of 0 bytes (1 to 1048576 can be used)"),
        (
            signature(SIGNATURE_MAGIC, BLOCK_LIMIT + 1, 8, 12),
            "a signature with blocks of 1048577 bytes (1 to 1048576 can be used)",
        ),
        (signature(SIGNATURE_MAGIC, 512, 0, 12), "a signature with hashes of 0 bytes (1 to 16 can be used)"),
        (
            signature(SIGNATURE_MAGIC, 512, u32::MAX, 12),
            "a signature with hashes of 4294967295 bytes (1 to 16 can be used)",
        ),
        (signature(SIGNATURE_MAGIC, 512, 8, 13), "a signature of 25 bytes is cut off"),
        (Signature::parse(vec![0x72, 0x73, 0x01]), "a signature of 3 bytes is cut off"),
        (Signature::parse(Vec::new()), "a signature of 0 bytes is cut off"),
    ];
    for (refused, wording) in refused {
        assert_eq!(refused.expect_err(wording).to_string(), wording);
    }
}

#[test]
fn copies_that_join_across_windows_are_one_command() {
    let file = noise("unchanged", 3 * WINDOW);
    let signature = signature_of(&file, 4096);
    let delta = delta_of(&signature, &pieces(&file, &[WINDOW, 100_000, 1, 0, 4095]));
    assert_eq!(delta, append(file.len() as u64, b""));
}

#[test]
fn a_window_larger_than_the_limit_is_taken_in_parts() {
    let base = noise("base", 2 * WINDOW);
    let new = [b"inserted", &base[..], &noise("tail", 10_000)].concat();
    let signature = signature_of(&base, 4096);
    let index = signature.index();
    let mut differ = Differ::new(&index);
    let mut delta = Vec::new();
    differ.window(&new, &mut delta).expect("no signature is odd");
    assert_eq!(differ.undecided.len(), 4095);
    assert!(differ.undecided.capacity() < WINDOW + 4096);
    differ.finish(&mut delta);
    assert_eq!(steps(&delta), steps(&delta_at_once(&signature, &new)));
    assert_eq!(result_of(&base, &delta), new);
}

#[test]
fn a_differ_is_as_new_after_finish() {
    let signature = signature_of(&noise("base", 5000), 512);
    let index = signature.index();
    let mut differ = Differ::new(&index);
    let mut deltas = [Vec::new(), Vec::new()];
    for delta in &mut deltas {
        differ.window(&noise("base", 4321), delta).expect("no signature is odd");
        differ.finish(delta);
    }
    assert_eq!(deltas[0], deltas[1]);
}

#[test]
fn an_empty_file_has_a_delta_of_five_bytes() {
    let signature = signature_of(b"old", 512);
    let empty = [&DELTA_MAGIC[..], &[END]].concat();
    assert_eq!(delta_of(&signature, &[]), empty);
    assert_eq!(append(0, b""), empty);
    assert_eq!(result_of(b"old", &empty), b"");
}

#[test]
fn an_appended_line_costs_itself_and_ten_bytes() {
    let old = noise("dovecot-uidlist", 15_000);
    let line = b"4711 :1763800000.M1P2.mail,S=1234,W=1260\n";
    let delta = append(old.len() as u64, line);
    assert_eq!(delta.len(), line.len() + 10);
    assert_eq!(result_of(&old, &delta), [&old[..], line].concat());
}

#[test]
fn lengths_at_the_edge_of_each_width_come_back() {
    for length in [1, 64, 65, 255, 256, 65_535, 65_536] {
        let (old, new) = (noise("old", length), noise("new", length));
        let delta = append(length as u64, &new);
        assert_eq!(result_of(&old, &delta), [&old[..], &new].concat(), "{length}");
        let all_literal = delta_at_once(&signature_of(&old, 512), &new);
        assert_eq!(append(0, &new), all_literal, "{length}");
    }
    let mut delta = Vec::new();
    for offset in [0, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
        let span = Span { offset, length: offset.max(1) };
        delta.clear();
        put_copy(span.offset, span.length, &mut delta);
        let Ok(Command::Copy(read)) = read_command(&mut &delta[..]) else {
            panic!("{offset} did not come back as a COPY");
        };
        assert_eq!(read, span);
    }
}

#[test]
fn every_form_of_every_command_is_understood() {
    let base = noise("base", 300);
    let number = |value: u64, class: u8| value.to_be_bytes()[8 - (1 << class)..].to_vec();
    let mut delta = DELTA_MAGIC.to_vec();
    for code in LITERAL_1..=LITERAL_64 {
        delta.push(code);
        delta.extend(noise("literal", code.into()));
    }
    for class in 0..4 {
        delta.push(LITERAL_N1 + class);
        delta.extend(number(200, class));
        delta.extend(noise("literal", 200));
    }
    for (offset_class, length_class) in (0..16).map(|form| (form / 4, form % 4)) {
        delta.push(COPY_N1_N1 + 4 * offset_class + length_class);
        delta.extend(number(77, offset_class));
        delta.extend(number(222, length_class));
    }
    delta.push(END);
    let mut expected = Vec::new();
    fast_rsync::apply_limited(&base, &delta, &mut expected, usize::MAX).expect("applies");
    assert_eq!(expected.len(), (1..=64).sum::<usize>() + 4 * 200 + 16 * 222);
    assert_eq!(result_of(&base, &delta), expected);
}

#[test]
fn a_malformed_delta_is_refused_for_what_is_wrong() {
    let refused: [(&[u8], &str); 17] = [
        (&[], "the delta is cut off"),
        (&[0x05, b'a'], "the delta is cut off"),
        (&[0x01, b'a'], "the delta is cut off"),
        (&[0x42, 0], "the delta is cut off"),
        (&[0x45, 0], "the delta is cut off"),
        (&[0x54, 0, 0, 0, 0], "the delta is cut off"),
        (&[0x55], "the delta has an unknown command 0x55"),
        (&[0xff, 0], "the delta has an unknown command 0xff"),
        (&[0x41, 0, 0], "the delta has an empty command"),
        (&[0x45, 0, 0, 0], "the delta has an empty command"),
        (&[0, 0], "the delta goes on after its end"),
        (&[0x41, 101], "the delta makes more than 100 bytes"),
        (&[0x44, 255, 255, 255, 255, 255, 255, 255, 255], "the delta makes more than 100 bytes"),
        (&[0x45, 0, 11, 0], "the delta copies 11 bytes at 0, beyond the end of the old version"),
        (&[0x45, 11, 1, 0], "the delta copies 1 bytes at 11, beyond the end of the old version"),
        (
            &[0x51, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            "the delta copies 1 bytes at 18446744073709551615, beyond the end of the old version",
        ),
        (
            &[0x51, 127, 255, 255, 255, 255, 255, 255, 255, 1],
            "the delta copies 1 bytes at 9223372036854775807, beyond the end of the old version",
        ),
    ];
    for (delta, wording) in refused {
        assert_eq!(refusal_of(delta).to_string(), wording, "{delta:?}");
    }
    for (delta, wording) in
        [(&b"rs\x026"[..3], "the delta is cut off"), (b"From", "not a delta: it begins with 0x46726f6d")]
    {
        assert_eq!(applied(b"", delta, 100).0.expect_err(wording).to_string(), wording);
    }
}

#[test]
fn an_endless_delta_ends_at_the_limit_or_at_the_first_empty_command() {
    for (command, limit) in [(&[0x01, b'x'][..], 100_000), (&[0x45, 0, 200], 1_000_000)] {
        let mut out = Measure::default();
        let refused = apply(&Endless, &mut Over::and_over(command), &mut out, limit);
        assert!(matches!(refused, Err(DeltaError::TooLong { .. })), "{refused:?}");
        assert_eq!(out.written, limit);
    }
    let refused = apply(&Endless, &mut Over::and_over(&[0x41, 0]), &mut io::sink(), 1);
    assert!(matches!(refused, Err(DeltaError::EmptyCommand)), "{refused:?}");
}

#[test]
fn a_result_may_be_as_long_as_the_limit_and_a_command_too_long_writes_nothing() {
    let delta = append(10, b"abc");
    let (length, out) = applied(b"0123456789", &delta, 13);
    assert_eq!((length.expect("applies"), &out[..]), (13, &b"0123456789abc"[..]));
    for (limit, written) in [(12, "0123456789"), (10, "0123456789"), (9, ""), (0, "")] {
        let (refused, out) = applied(b"0123456789", &delta, limit);
        assert_eq!(refused.unwrap_err().to_string(), format!("the delta makes more than {limit} bytes"));
        assert_eq!(out, written.as_bytes());
    }
}

#[test]
fn a_short_delta_for_a_huge_result_is_refused_before_a_byte_of_it() {
    let mut out = Measure::default();
    let refused = apply(&Endless, &mut &append(1 << 40, b"")[..], &mut out, (1 << 40) - 1);
    assert!(matches!(refused, Err(DeltaError::TooLong { .. })), "{refused:?}");
    assert_eq!(out.written, 0);
}

#[test]
fn no_piece_is_larger_than_64_kib() {
    let mut out = Measure::default();
    let tail = noise("tail", 1_000_001);
    let length = apply(&Endless, &mut &append(10_000_001, &tail)[..], &mut out, u64::MAX);
    assert_eq!(length.expect("applies"), 11_000_002);
    assert_eq!((out.written, out.largest), (11_000_002, 64 << 10));
}

#[test]
fn short_and_interrupted_reads_are_no_errors() {
    let (old, tail) = (noise("old", 3000), noise("tail", 500));
    let delta = append(3000, &tail);
    let mut out = Vec::new();
    apply(&Trickle::new(&old), &mut Trickle::new(&delta), &mut out, 3500).expect("applies");
    assert_eq!(out, [old, tail].concat());
}

#[test]
fn a_file_can_be_the_old_version_and_may_have_shrunk() {
    let old = noise("old", 200_000);
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&old).expect("writes");
    let delta = append(200_000, b"tail");
    let mut out = Vec::new();
    apply(&file, &mut &delta[..], &mut out, u64::MAX).expect("applies");
    assert_eq!(out, [&old, &b"tail"[..]].concat());

    file.set_len(199_999).expect("cuts");
    // The second offset is more than the system call takes.
    let far_away = [&DELTA_MAGIC[..], &[0x51], &[0xff; 7], &[0, 1, END]].concat();
    for delta in [delta, far_away] {
        let refused = apply(&file, &mut &delta[..], &mut io::sink(), u64::MAX);
        assert!(matches!(refused, Err(DeltaError::BeyondBase { .. })), "{refused:?}");
    }
}

#[test]
fn a_failing_stream_is_named_and_its_error_kept() {
    let delta = append(1, b"tail");
    let broken = || Broken(io::ErrorKind::Other);
    // As a decompressor says it whose own input is cut off after our END.
    let mut broken_behind = delta.chain(Broken(io::ErrorKind::UnexpectedEof));
    let nowhere = &mut io::sink();
    let old_version = apply(&broken(), &mut &delta[..], nowhere, 9);
    let the_delta = apply(&Endless, &mut broken(), nowhere, 9);
    let behind_its_end = apply(&Endless, &mut broken_behind, nowhere, 9);
    let new_version = apply(&Endless, &mut &delta[..], &mut broken(), 9);
    for (failed, wording) in [
        (old_version, "reading the old version failed"),
        (the_delta, "reading the delta failed"),
        (behind_its_end, "reading the delta failed"),
        (new_version, "writing the new version failed"),
    ] {
        let failed = failed.expect_err(wording);
        assert_eq!(failed.to_string(), wording);
        let source = failed.source().expect("the stream's own error");
        assert_eq!(source.to_string(), "broken");
    }
}

#[test]
fn a_damaged_delta_may_apply_and_only_its_digest_tells() {
    let old = noise("old", 1000);
    let mut delta = append(1000, b"tail");
    let promised = blake3::hash(&result_of(&old, &delta));
    let last = delta.len() - 2;
    delta[last] ^= 1;
    assert_ne!(blake3::hash(&result_of(&old, &delta)), promised);
}

prop_compose! {
    /// Bytes with repetitions, so that blocks match in more than one place.
    fn file()(
        words in vec(vec(0_u8..4, 1..40), 1..8),
        order in vec(any::<Index>(), 0..120),
    ) -> Vec<u8> {
        order.iter().flat_map(|index| index.get(&words).iter().copied()).collect()
    }
}

prop_compose! {
    /// An old version, and a new one made of parts of it, some of its own, and some of both.
    fn versions()(
        old in file(),
        other in file(),
        cuts in vec(any::<(Index, u8, bool)>(), 0..12),
    ) -> (Vec<u8>, Vec<u8>) {
        let mut new = Vec::new();
        for (from, length, ours) in cuts {
            let source = if ours { &other } else { &old };
            let from = from.index(source.len() + 1);
            new.extend(source[from..].iter().take(4 * usize::from(length)));
        }
        (old, new)
    }
}

prop_compose! {
    fn cuts()(sizes in vec(prop_oneof![0_usize..5, 0_usize..400], 0..12)) -> Vec<usize> {
        sizes
    }
}

/// A delta with bytes changed, inserted and removed; the first four are the magic and mostly
/// stay.
fn mutated(mut delta: Vec<u8>, changes: &[(Index, u8, u8)]) -> Vec<u8> {
    for (place, kind, value) in changes {
        let place = place.index(delta.len().max(1)).max(4).min(delta.len());
        match kind % 5 {
            0 | 1 if place < delta.len() => delta[place] = *value,
            2 => delta.insert(place, *value),
            3 if place < delta.len() => drop(delta.remove(place)),
            4 if value % 8 == 0 => delta.truncate(place),
            _ => {}
        }
    }
    delta
}

proptest! {
    #[test]
    fn a_signature_is_that_of_the_whole_file_however_it_is_cut(
        file in file(), block_size in 1_u32..600, cuts in cuts(),
    ) {
        let mut builder = SignatureBuilder::new(block_size);
        for piece in pieces(&file, &cuts) {
            builder.update(piece);
        }
        let whole = fast_rsync::Signature::calculate(&file, fast_rsync::SignatureOptions {
            block_size,
            crypto_hash_size: HASH_LENGTH,
        });
        prop_assert_eq!(builder.finish(), whole.into_serialized());
    }

    #[test]
    fn a_delta_is_that_of_the_whole_file_however_it_is_cut(
        (old, new) in versions(), block_size in 1_u32..100, cuts in cuts(),
    ) {
        let signature = signature_of(&old, block_size);
        let delta = delta_of(&signature, &pieces(&new, &cuts));
        prop_assert_eq!(steps(&delta), steps(&delta_at_once(&signature, &new)));
    }

    #[test]
    fn a_valid_delta_makes_the_new_version_here_and_in_fast_rsync(
        (old, new) in versions(), block_size in 1_u32..100, cuts in cuts(),
    ) {
        let signature = signature_of(&old, block_size);
        let limit = new.len();
        let in_windows = delta_of(&signature, &pieces(&new, &cuts));
        for delta in [in_windows, delta_at_once(&signature, &new)] {
            let (length, ours) = applied(&old, &delta, limit as u64);
            prop_assert_eq!(length.expect("applies"), limit as u64);
            prop_assert_eq!(&ours, &new);
            let mut theirs = Vec::new();
            fast_rsync::apply_limited(&old, &delta, &mut theirs, limit).expect("applies");
            prop_assert_eq!(&theirs, &new);
        }
    }

    #[test]
    fn any_signature_is_refused_or_can_be_compared_with(
        magic in prop_oneof![9 => Just(SIGNATURE_MAGIC), 1 => any::<u32>()],
        block_size in prop_oneof![0_u32..20, any::<u32>()],
        hash_length in 0_u32..20,
        entries in vec(any::<u8>(), 0..200),
        new in file(),
    ) {
        let header = [magic, block_size, hash_length].map(u32::to_be_bytes).concat();
        if let Ok(signature) = Signature::parse([header, entries].concat()) {
            let delta = delta_of(&signature, &[&new]);
            let _ = applied(b"", &delta, 10_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_mutated_delta_is_judged_as_fast_rsync_judges_it_and_keeps_the_limit(
        (old, new) in versions(),
        block_size in 1_u32..100,
        changes in vec(any::<(Index, u8, u8)>(), 1..6),
        spare in 0_usize..100,
    ) {
        let delta = delta_of(&signature_of(&old, block_size), &[&new]);
        let delta = mutated(delta, &changes);
        let limit = new.len() + spare;
        let (ours, our_bytes) = applied(&old, &delta, limit as u64);
        let mut their_bytes = Vec::new();
        let theirs = fast_rsync::apply_limited(&old, &delta, &mut their_bytes, limit);
        prop_assert!(our_bytes.len() <= limit);
        match (ours, theirs) {
            (Ok(length), Ok(())) => {
                prop_assert_eq!(length, our_bytes.len() as u64);
                prop_assert_eq!(our_bytes, their_bytes);
            }
            // fast_rsync lets an empty LITERAL pass.
            (Err(DeltaError::EmptyCommand), _) | (Err(_), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "we say {ours:?}, fast_rsync {theirs:?}"),
        }
    }

    #[test]
    fn any_bytes_after_the_magic_are_applied_or_refused_within_the_limit(
        old in file(),
        commands in vec(prop_oneof![0_u8..0x60, any::<u8>()], 0..60),
        limit in 0_u64..1000,
    ) {
        let (_, out) = applied(&old, &[&DELTA_MAGIC, &commands[..]].concat(), limit);
        prop_assert!(out.len() as u64 <= limit);
    }
}
