//! Proof-of-work search for a challenger that absorbs 31-bit elements and squeezes 64-bit words.

use std::ops::Range;

use ark_bn254::Fr;
use rayon::prelude::*;

use super::{permute, sponge::pack_31, LaneConstants, BLOCK, PER_ELEMENT, WIDTH};
use crate::field::{dispatch, Arch, Kernel, Lanes, LANES};

/// Candidates tried by one call into the vector code.
const CHUNK: u32 = 1 << 10;
/// Candidates tried between two looks at the result; the smallest witness of the first batch that has one is returned.
const BATCH: u32 = 1 << 17;

/// The challenger before it observes the witness.
#[derive(Clone, Debug)]
pub struct GrindState {
    /// The sponge state.
    pub sponge: [Fr; WIDTH],
    /// Elements observed and not yet absorbed, each below `2^31`; fewer than [`BLOCK`].
    pub pending: Vec<u32>,
}

/// The smallest witness in `0..limit` that is accepted once it has been observed after `state.pending` and the sponge has
/// been permuted. `accept` sees the most significant word of the second element of the new state: what this challenger
/// squeezes first.
///
/// Cost: one permutation a candidate, on all threads of the current pool.
///
/// # Panics
/// If `state.pending` fills a block by itself, or `limit` exceeds `2^31`.
pub fn grind(state: &GrindState, limit: u32, accept: impl Fn(u64) -> bool + Sync) -> Option<u32> {
    assert!(state.pending.len() < BLOCK, "a full block would have been absorbed");
    assert!(limit <= 1 << 31, "witnesses are below 2^31");
    (0..limit).step_by(BATCH as usize).find_map(|start| {
        let end = limit.min(start + BATCH);
        (start..end).into_par_iter().step_by(CHUNK as usize).find_map_first(|from| {
            dispatch(Search { state, range: from..end.min(from + CHUNK), accept: &accept })
        })
    })
}

struct Search<'a, P> {
    state: &'a GrindState,
    range: Range<u32>,
    accept: &'a P,
}

impl<P: Fn(u64) -> bool> Kernel for Search<'_, P> {
    type Output = Option<u32>;

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> Option<u32> {
        const GROUPS: usize = 2;
        let constants = LaneConstants::new(arch);
        let mut base = self.state.sponge.map(|element| arch.splat(element));
        for (slot, values) in base.iter_mut().zip(self.state.pending.chunks(PER_ELEMENT)) {
            *slot = arch.load_integers(&[pack_31(values); LANES]);
        }
        // The witness goes behind the pending elements, in the element that they leave open.
        let position = self.state.pending.len();
        let (slot, offset) = (position / PER_ELEMENT, position % PER_ELEMENT);
        let mut open = self.state.pending[slot * PER_ELEMENT..].to_vec();
        open.resize(offset + 1, 0);
        for start in self.range.clone().step_by(GROUPS * LANES) {
            let mut states = [base; GROUPS];
            for (state, first) in states.iter_mut().zip((start..).step_by(LANES)) {
                state[slot] = arch.load_integers(&std::array::from_fn(|lane| {
                    open[offset] = first + lane as u32;
                    pack_31(&open)
                }));
            }
            permute::<A, GROUPS>(arch, &constants, &mut states);
            for (state, first) in states.iter().zip((start..).step_by(LANES)) {
                for (words, witness) in state[1].store_integers().iter().zip(first..) {
                    if witness < self.range.end && (self.accept)(words[3]) {
                        return Some(witness);
                    }
                }
            }
        }
        None
    }
}
