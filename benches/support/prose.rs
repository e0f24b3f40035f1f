//! Text that compresses as people's writing does: words of a made-up language, drawn by Zipf's law, with
//! turns of phrase that come back.

use super::random::{Random, Zipf};

const WORDS: u16 = 24_000;
const PHRASES: u16 = 8_000;
/// Share of the draws that yield a turn of phrase that everybody uses: what many messages have in common.
const PHRASE_SHARE: f64 = 0.22;
/// A text keeps coming back to the terms of its topic: what makes one message compressible by itself.
const TOPIC_SHARE: f64 = 0.15;
const TOPIC_TERMS: usize = 24;
const LINE: usize = 72;

const ONSETS: [&str; 24] = [
    "", "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "pr", "th", "ch", "sh",
    "gr", "pl",
];
const NUCLEI: [&str; 12] = ["a", "e", "i", "o", "u", "e", "a", "i", "ea", "ou", "io", "ai"];
const CODAS: [&str; 14] = ["", "", "", "n", "r", "s", "t", "l", "d", "m", "ng", "nt", "st", "ck"];

/// The language, made once for a tree.
pub struct Prose {
    words: Vec<String>,
    word_ranks: Zipf,
    phrases: Vec<String>,
    phrase_ranks: Zipf,
}

impl Prose {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::of(&[seed, 1]);
        let words: Vec<String> = (0..WORDS).map(|rank| word(&mut random, rank)).collect();
        let word_ranks = Zipf::new(WORDS, 1.08);
        let phrases = (0..PHRASES).map(|_| phrase(&mut random, &words, &word_ranks)).collect();
        Self { words, word_ranks, phrases, phrase_ranks: Zipf::new(PHRASES, 0.95) }
    }

    pub fn word(&self, random: &mut Random) -> &str {
        &self.words[self.word_ranks.pick(random)]
    }

    /// A word that names something: not one of the commonest.
    pub fn name(&self, random: &mut Random) -> &str {
        &self.words[random.between(200, 4_000)]
    }

    /// At least `bytes` of sentences about `topic`, in lines of mail's usual width, each line beginning with `prefix`.
    pub fn paragraph(&self, random: &mut Random, topic: u64, prefix: &str, bytes: usize, out: &mut Vec<u8>) {
        let end = out.len() + bytes;
        let mut line_start = out.len();
        out.extend_from_slice(prefix.as_bytes());
        let mut left_in_sentence = random.between(5, 22);
        let mut capital = true;
        while out.len() < end {
            let draw = self.draw(random, topic);
            if out.len() - line_start + draw.len() > LINE {
                end_line(out);
                line_start = out.len();
                out.extend_from_slice(prefix.as_bytes());
            }
            push(out, draw, capital);
            left_in_sentence -= 1;
            capital = left_in_sentence == 0;
            if capital {
                out.extend_from_slice(if random.chance(0.85) { b"." } else { b"?" });
                left_in_sentence = random.between(5, 22);
            } else if random.chance(0.07) {
                out.push(b',');
            }
            out.push(b' ');
        }
        end_line(out);
    }

    fn draw(&self, random: &mut Random, topic: u64) -> &str {
        match random.unit() {
            share if share < TOPIC_SHARE => {
                let term = random.below(TOPIC_TERMS) as u64;
                &self.phrases[Random::of(&[topic, term]).below(self.phrases.len())]
            }
            share if share < TOPIC_SHARE + PHRASE_SHARE => &self.phrases[self.phrase_ranks.pick(random)],
            _ => self.word(random),
        }
    }
}

fn end_line(out: &mut Vec<u8>) {
    while out.last() == Some(&b' ') {
        out.pop();
    }
    out.push(b'\n');
}

fn push(out: &mut Vec<u8>, text: &str, capital: bool) {
    let at = out.len();
    out.extend_from_slice(text.as_bytes());
    if capital {
        out[at].make_ascii_uppercase();
    }
}

/// Common words are short, as in any language.
fn word(random: &mut Random, rank: u16) -> String {
    let syllables = match rank {
        0..120 => 1,
        120..2_000 => random.between(1, 2),
        2_000..12_000 => 2,
        _ => random.between(2, 3),
    };
    let mut word = String::new();
    for _ in 0..syllables {
        word.push_str(random.pick::<&str>(&ONSETS));
        word.push_str(random.pick::<&str>(&NUCLEI));
        word.push_str(random.pick::<&str>(&CODAS));
    }
    word
}

fn phrase(random: &mut Random, words: &[String], ranks: &Zipf) -> String {
    let count = random.between(2, 5);
    let chosen: Vec<&str> = (0..count).map(|_| words[ranks.pick(random)].as_str()).collect();
    chosen.join(" ")
}
