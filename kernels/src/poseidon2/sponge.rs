//! Hashing rows of 31-bit elements.

use ark_bn254::Fr;
use ark_ff::AdditiveGroup;

use super::{permute, permute_one, LaneConstants, WIDTH};
use crate::field::{Arch, LANES};

/// 31-bit elements packed in one field element: `sum x_i 2^(31 i)`.
pub const PER_ELEMENT: usize = 8;
/// 31-bit elements absorbed by one permutation.
pub const BLOCK: usize = 2 * PER_ELEMENT;

/// Packs at most [`PER_ELEMENT`] values below `2^31`.
#[inline(always)]
pub(super) fn pack_31(values: &[u32]) -> [u64; 4] {
    debug_assert!(values.len() <= PER_ELEMENT && values.iter().all(|value| value >> 31 == 0));
    if let Ok(full) = values.try_into() {
        return pack_full(full);
    }
    let mut full = [0; PER_ELEMENT];
    full[..values.len()].copy_from_slice(values);
    pack_full(&full)
}

/// Straight-line code: this runs twice for every permutation of the leaves.
#[inline(always)]
fn pack_full(values: &[u32; PER_ELEMENT]) -> [u64; 4] {
    let v = values.map(u64::from);
    [
        v[0] | v[1] << 31 | v[2] << 62,
        v[2] >> 2 | v[3] << 29 | v[4] << 60,
        v[4] >> 4 | v[5] << 27 | v[6] << 58,
        v[6] >> 6 | v[7] << 25,
    ]
}

/// The row hash: a sponge in overwrite mode over a state of three elements, two of them the rate, no padding.
///
/// The digest is the first element of the last state; that of an empty row is zero.
pub struct Sponge;

impl Sponge {
    /// Hashes one row of values below `2^31`.
    #[must_use]
    pub fn hash_one(row: &[u32]) -> Fr {
        let mut state = [Fr::ZERO; WIDTH];
        for block in row.chunks(BLOCK) {
            for (x, values) in state.iter_mut().zip(block.chunks(PER_ELEMENT)) {
                *x = Fr::from(ark_ff::BigInt(pack_31(values)));
            }
            permute_one(&mut state);
        }
        state[0]
    }

    /// Compresses two digests to one: the first element of the permutation of `(left, right, 0)`.
    #[must_use]
    pub fn compress_one(left: Fr, right: Fr) -> Fr {
        let mut state = [left, right, Fr::ZERO];
        permute_one(&mut state);
        state[0]
    }

    /// Hashes `8 N` rows of `width` values: `rows` holds them one after another, and row `8 n + i` goes to lane `i` of
    /// digest `n`.
    #[inline(always)]
    pub fn hash_lanes<A: Arch, const N: usize>(
        arch: A,
        constants: &LaneConstants<A>,
        rows: &[u32],
        width: usize,
    ) -> [A::Lanes<Fr>; N] {
        debug_assert_eq!(rows.len(), N * LANES * width);
        let mut states = [[arch.zero::<Fr>(); WIDTH]; N];
        for start in (0..width).step_by(BLOCK) {
            let end = width.min(start + BLOCK);
            for (n, state) in states.iter_mut().enumerate() {
                for (x, from) in state.iter_mut().zip((start..end).step_by(PER_ELEMENT)) {
                    let to = end.min(from + PER_ELEMENT);
                    let words = std::array::from_fn(|lane| {
                        let row = (n * LANES + lane) * width;
                        pack_31(&rows[row + from..row + to])
                    });
                    *x = arch.load_integers(&words);
                }
            }
            permute::<A, N>(arch, constants, &mut states);
        }
        states.map(|state| state[0])
    }

    /// Compresses `8 N` pairs of digests.
    #[inline(always)]
    pub fn compress_lanes<A: Arch, const N: usize>(
        arch: A,
        constants: &LaneConstants<A>,
        pairs: [[A::Lanes<Fr>; 2]; N],
    ) -> [A::Lanes<Fr>; N] {
        let mut states = pairs.map(|[left, right]| [left, right, arch.zero::<Fr>()]);
        permute::<A, N>(arch, constants, &mut states);
        states.map(|state| state[0])
    }
}
