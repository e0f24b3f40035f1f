//! Numbers that look random and are the same on every machine: a tree is made again from its seed.

/// SplitMix64: tiny, fast, and good enough to imitate mail.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each combination of `parts`, so that a message can be made without its neighbours.
    pub fn of(parts: &[u64]) -> Self {
        let mut random = Self(0x6d61_696c_7477_696e);
        for part in parts {
            random.0 = random.next() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias is of no account at these sizes.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// In (0, 1].
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() <= share
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Log-normal by Box and Muller: how sizes of texts are spread.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }

    /// Pareto cut off at `high`: how sizes of attachments are spread.
    pub fn pareto(&mut self, low: f64, high: f64, shape: f64) -> f64 {
        let kept = 1.0 - (low / high).powf(shape);
        low / (1.0 - self.unit() * kept).powf(1.0 / shape)
    }

    pub fn fill(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let end = out.len() + bytes;
        while out.len() < end {
            let word = self.next().to_le_bytes();
            out.extend_from_slice(&word[..word.len().min(end - out.len())]);
        }
    }

    /// Moves `count` of `items`, chosen evenly, to the front and returns them.
    pub fn sample<'a, T>(&mut self, items: &'a mut [T], count: usize) -> &'a mut [T] {
        for at in 0..count {
            let other = at + self.below(items.len() - at);
            items.swap(at, other);
        }
        &mut items[..count]
    }
}

/// Picks ranks as words of a language are picked: the n-th about n times more seldom than the first.
pub struct Zipf {
    table: Vec<u16>,
}

impl Zipf {
    const SLOTS: usize = 1 << 18;

    pub fn new(ranks: u16, exponent: f64) -> Self {
        let weight = |rank: u16| (f64::from(rank) + 2.7).powf(-exponent);
        let total: f64 = (0..ranks).map(weight).sum();
        let mut table = Vec::with_capacity(Self::SLOTS);
        let mut reached = 0.0;
        for rank in 0..ranks {
            reached += weight(rank) / total;
            table.resize((reached * Self::SLOTS as f64) as usize, rank);
        }
        table.resize(Self::SLOTS, 0);
        Self { table }
    }

    pub fn pick(&self, random: &mut Random) -> usize {
        usize::from(self.table[random.below(Self::SLOTS)])
    }
}
