//! Round constants from the Grain generator, as the Poseidon2 reference parameters are made.

use ark_bn254::Fr;
use ark_ff::{BigInt, PrimeField};

use super::{RoundConstants, HALF_FULL_ROUNDS, PARTIAL_ROUNDS, WIDTH};

/// The 80-bit shift register of Grain in self-shrinking mode (Grassi et al. 2019, appendix E).
struct Grain(u128);

impl Grain {
    /// Seeded with: prime field (1, 2 bits), power map (0, 4 bits), field size (254, 12 bits), width (3, 12 bits), full
    /// rounds (8, 10 bits), partial rounds (56, 10 bits), thirty ones. The first bit of the register is bit 0.
    fn new() -> Self {
        let mut register = 0u128;
        let mut length = 0;
        for (value, bits) in [(1u32, 2), (0, 4), (254, 12), (3, 12), (8, 10), (56, 10), ((1 << 30) - 1, 30)] {
            for i in (0..bits).rev() {
                register |= u128::from(value >> i & 1) << length;
                length += 1;
            }
        }
        let mut grain = Self(register);
        for _ in 0..160 {
            grain.step();
        }
        grain
    }

    /// One clock of the register.
    fn step(&mut self) -> u64 {
        let taps = [62, 51, 38, 23, 13, 0];
        let new = taps.iter().fold(0, |bit, tap| bit ^ (self.0 >> tap & 1));
        self.0 = self.0 >> 1 | new << 79;
        u64::from(new == 1)
    }

    /// One output bit: of each pair of clocks the second, if the first is one.
    fn bit(&mut self) -> u64 {
        loop {
            let keep = self.step() == 1;
            let bit = self.step();
            if keep {
                return bit;
            }
        }
    }

    /// 254 bits, most significant first, drawn again until they are below the modulus.
    fn element(&mut self) -> Fr {
        loop {
            let mut words = [0; 4];
            for i in (0..254).rev() {
                words[i / 64] |= self.bit() << (i % 64);
            }
            if let Some(element) = Fr::from_bigint(BigInt(words)) {
                return element;
            }
        }
    }
}

pub(super) fn generate() -> RoundConstants {
    let mut grain = Grain::new();
    let mut full = [[Fr::from(0u64); WIDTH]; 2 * HALF_FULL_ROUNDS];
    let mut partial = [Fr::from(0u64); PARTIAL_ROUNDS];
    full[..HALF_FULL_ROUNDS].iter_mut().flatten().for_each(|constant| *constant = grain.element());
    partial.iter_mut().for_each(|constant| *constant = grain.element());
    full[HALF_FULL_ROUNDS..].iter_mut().flatten().for_each(|constant| *constant = grain.element());
    RoundConstants { full, partial }
}
