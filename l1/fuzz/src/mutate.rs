//! Changes to valid encodings.

/// SplitMix64 (Steele, Lea and Flood 2014): every seed is good.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end.max(1) as u64) as usize
    }

    /// A length below `end`, short ones more often.
    fn length(&mut self, end: usize) -> usize {
        let most = match self.below(4) {
            0 => end,
            1 => end.min(64),
            _ => end.min(8),
        };
        self.below(most + 1)
    }
}

/// Numbers at which lengths, counts and signs go wrong.
const BOUNDS: [u64; 20] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xfc,
    0xfd,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Pieces of text formats.
const PIECES: [&[u8]; 16] = [
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"4294967296",
    b"18446744073709551616",
    b"\"\"",
    b"[]",
    b"{}",
    b",",
    b":",
    b"\"",
    b"\\u0000",
    b"[[[[",
    b"\n",
];

/// Changes inputs, in an order that the seed gives.
#[derive(Debug, Clone)]
pub struct Mutator {
    rng: Rng,
    length_max: usize,
}

impl Mutator {
    /// Results have at most `length_max` bytes.
    #[must_use]
    pub fn new(seed: u64, length_max: usize) -> Self {
        Self { rng: Rng::new(seed), length_max }
    }

    /// Its source of randomness.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// One change, or several; `others` lend pieces.
    pub fn mutate(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        loop {
            self.change(input, others);
            if self.rng.below(5) < 3 {
                break;
            }
        }
        input.truncate(self.length_max);
    }

    fn change(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.rng.below(input.len());
        match self.rng.below(12) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << self.rng.below(8),
            2 if !input.is_empty() => input[at] = BOUNDS[self.rng.below(BOUNDS.len())] as u8,
            3 | 4 => self.number(input),
            5 => input.truncate(at),
            6 => {
                let put: Vec<u8> = (0..=self.rng.below(8)).map(|_| self.rng.next_u64() as u8).collect();
                input.splice(at..at, put);
            }
            7 => drop(input.drain(self.range(input.len()))),
            8 => {
                // The same again.
                let piece = input[self.range(input.len())].to_vec();
                let times = if self.rng.below(8) == 0 { 64 } else { 1 };
                input.splice(at..at, piece.repeat(times));
            }
            9 if !others.is_empty() => {
                let other = &others[self.rng.below(others.len())];
                let piece = &other[self.range(other.len())];
                let gone = at..(at + self.rng.length(piece.len())).min(input.len());
                input.splice(gone, piece.iter().copied());
            }
            10 if input.len() > 1 => {
                // Two places change their contents.
                let len = self.rng.length(input.len() / 2);
                let other = self.rng.below(input.len());
                for step in 0..len.min(input.len() - at.max(other)) {
                    input.swap(at + step, other + step);
                }
            }
            _ => {
                let piece = PIECES[self.rng.below(PIECES.len())];
                let end = (at + self.rng.length(piece.len())).min(input.len());
                input.splice(at..end, piece.iter().copied());
            }
        }
    }

    /// Part of something with this length.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.rng.below(len);
        start..start + self.rng.length(len - start)
    }

    /// Writes a number over what is there: one of [`BOUNDS`], the input's own length or what is left of it, or a neighbour of the
    /// number there.
    fn number(&mut self, input: &mut [u8]) {
        let width = 1 << self.rng.below(4);
        let Some(places) = (input.len() + 1).checked_sub(width).filter(|places| *places > 0) else { return };
        let at = self.rng.below(places);
        let left = input.len() - at - width;
        let is_big = self.rng.below(4) == 0;
        let field = &mut input[at..at + width];
        if is_big {
            field.reverse();
        }
        let mut word = [0; 8];
        word[..width].copy_from_slice(field);
        let near = self.rng.below(5) as u64;
        let value = match self.rng.below(8) {
            0 => left as u64,
            1 => (left as u64 + near).wrapping_sub(2),
            2 | 3 => (u64::from_le_bytes(word).wrapping_add(near)).wrapping_sub(2),
            _ => BOUNDS[self.rng.below(BOUNDS.len())],
        };
        field.copy_from_slice(&value.to_le_bytes()[..width]);
        if is_big {
            field.reverse();
        }
    }
}
