//! Golden values, lanes against the scalar permutation, and the search against a plain loop.

use ark_ff::{BigInteger, PrimeField, UniformRand};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::field::{dispatch, Kernel, Portable, LANES};

fn from_hex(hex: &str) -> Fr {
    Fr::from_be_bytes_mod_order(&hex::decode(hex).unwrap())
}

#[test]
fn generated_round_constants_are_the_published_ones() {
    let constants = round_constants();
    assert_eq!(
        constants.full[0][0],
        from_hex("1d066a255517b7fd8bddd3a93f7804ef7f8fcde48bb4c37a59a09a1a97052816")
    );
    assert_eq!(
        constants.partial[55],
        from_hex("268076b0054fb73f67cee9ea0e51e3ad50f27a6434b5dceb5bdde2299910a4c9")
    );
    assert_eq!(
        constants.full[7][2],
        from_hex("0fc1bbceba0590f5abbdffa6d3b35e3297c021a3a409926d0e2d54dc1c84fda6")
    );
}

#[test]
fn permutation_has_the_published_test_vector() {
    // Permutation of (0, 1, 2), from the Poseidon2 reference implementation for this field and width.
    let mut state = [0u64, 1, 2].map(Fr::from);
    permute_one(&mut state);
    assert_eq!(
        state,
        [
            "0bb61d24daca55eebcb1929a82650f328134334da98ea4f847f760054f4a3033",
            "303b6f7c86d043bfcbcc80214f26a30277a15d3f74ca654992defe7ff8d03570",
            "1ed25194542b12eef8617361c3ba7c52e660b145994427cc86296242cf766ec8",
        ]
        .map(from_hex)
    );
}

struct Permute<const N: usize>([[[Fr; LANES]; WIDTH]; N]);

impl<const N: usize> Kernel for Permute<N> {
    type Output = [[[Fr; LANES]; WIDTH]; N];

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> Self::Output {
        let mut states = self.0.map(|state| state.map(|x| arch.load(&x)));
        permute::<A, N>(arch, &LaneConstants::new(arch), &mut states);
        states.map(|state| state.map(|x| x.store()))
    }
}

#[test]
fn lanes_permute_as_the_scalar_code_does() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for _ in 0..50 {
        let mut input: [[[Fr; LANES]; WIDTH]; 3] =
            std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| Fr::rand(&mut rng))));
        input[0][0][1] = -Fr::from(1u64);
        input[0][1][1] = -Fr::from(1u64);
        input[0][2][1] = -Fr::from(1u64);
        input[2][1] = [Fr::from(0u64); LANES];
        let vector = dispatch(Permute(input));
        assert_eq!(vector, Permute(input).run(Portable));
        for n in 0..3 {
            for lane in 0..LANES {
                let mut state = std::array::from_fn(|i| input[n][i][lane]);
                permute_one(&mut state);
                assert_eq!(std::array::from_fn(|i| vector[n][i][lane]), state);
            }
        }
    }
}

#[test]
fn packing_is_a_sum_of_shifted_values() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for length in 0..=PER_ELEMENT {
        for _ in 0..20 {
            let values: Vec<u32> = (0..length).map(|_| rng.gen::<u32>() >> 1).collect();
            let expected = values
                .iter()
                .rev()
                .fold(Fr::from(0u64), |sum, value| sum * Fr::from(1u64 << 31) + Fr::from(*value));
            assert_eq!(ark_ff::BigInt(sponge::pack_31(&values)), expected.into_bigint());
        }
        let largest = vec![(1 << 31) - 1; length];
        assert_eq!(ark_ff::BigInt(sponge::pack_31(&largest)).num_bits() as usize, 31 * length);
    }
}

/// The plain search: one scalar permutation a candidate.
fn plain_grind(state: &GrindState, accept: impl Fn(u64) -> bool) -> u32 {
    (0..)
        .find(|&witness| {
            let mut elements = state.pending.clone();
            elements.push(witness);
            let mut sponge = state.sponge;
            for (x, values) in sponge.iter_mut().zip(elements.chunks(PER_ELEMENT)) {
                *x = Fr::from(ark_ff::BigInt(sponge::pack_31(values)));
            }
            permute_one(&mut sponge);
            accept(sponge[1].into_bigint().0[3])
        })
        .unwrap()
}

#[test]
fn grinding_finds_the_smallest_witness_at_every_fill_of_the_block() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for pending in 0..BLOCK {
        let state = GrindState {
            sponge: std::array::from_fn(|_| Fr::rand(&mut rng)),
            pending: (0..pending).map(|_| rng.gen::<u32>() >> 1).collect(),
        };
        let accept = |word: u64| (word % 2_130_706_433) & 0x3f == 0;
        let expected = plain_grind(&state, accept);
        assert_eq!(grind(&state, 1 << 20, accept), Some(expected));
        assert_eq!(grind(&state, expected, accept), None);
    }
}
