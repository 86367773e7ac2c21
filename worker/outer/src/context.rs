//! The outer context with a fast proof-of-work search.

use std::fmt;

use assay_kernels::poseidon2::{grind, GrindState};
use serde::{Deserialize, Serialize};
use slop_algebra::{AbstractField, PrimeField32};
use slop_challenger::{CanObserve, CanSample, CanSampleBits, FieldChallenger, GrindingChallenger, IopCtx};
use sp1_primitives::{SP1ExtensionField, SP1Field, SP1OuterGlobalContext};

use crate::{from_outer_field, OuterDigest};

type Inner = <SP1OuterGlobalContext as IopCtx>::Challenger;

/// The zkVM's outer context with [`OuterChallenger`] for its challenger. Transcripts, digests and proofs are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OuterContext;

impl IopCtx for OuterContext {
    type F = SP1Field;
    type EF = SP1ExtensionField;
    type Digest = OuterDigest;
    type Challenger = OuterChallenger;
    type Hasher = <SP1OuterGlobalContext as IopCtx>::Hasher;
    type Compressor = <SP1OuterGlobalContext as IopCtx>::Compressor;

    fn default_hasher_and_compressor() -> (Self::Hasher, Self::Compressor) {
        SP1OuterGlobalContext::default_hasher_and_compressor()
    }

    fn default_challenger() -> OuterChallenger {
        OuterChallenger(SP1OuterGlobalContext::default_challenger())
    }
}

/// The zkVM's outer challenger; only the search for a witness is ours.
#[derive(Clone)]
pub struct OuterChallenger(Inner);

impl fmt::Debug for OuterChallenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OuterChallenger")
            .field("sponge_state", &self.0.sponge_state)
            .field("input_buffer", &self.0.input_buffer)
            .field("output_buffer", &self.0.output_buffer)
            .finish_non_exhaustive()
    }
}

impl OuterChallenger {
    /// The zkVM's challenger in the same state.
    #[must_use]
    pub fn into_inner(self) -> Inner {
        self.0
    }
}

impl CanObserve<SP1Field> for OuterChallenger {
    fn observe(&mut self, value: SP1Field) {
        self.0.observe(value);
    }
}

impl CanObserve<OuterDigest> for OuterChallenger {
    fn observe(&mut self, value: OuterDigest) {
        self.0.observe(value);
    }
}

impl CanSample<SP1Field> for OuterChallenger {
    fn sample(&mut self) -> SP1Field {
        self.0.sample()
    }
}

impl CanSampleBits<usize> for OuterChallenger {
    fn sample_bits(&mut self, bits: usize) -> usize {
        self.0.sample_bits(bits)
    }
}

impl FieldChallenger<SP1Field> for OuterChallenger {}

impl GrindingChallenger for OuterChallenger {
    type Witness = SP1Field;

    /// The smallest witness, after which `bits` sampled bits are zero.
    ///
    /// Whatever the fill of the input buffer, a witness is followed by exactly one permutation, and the first element
    /// sampled after it is the top word of the second element of the state.
    fn grind(&mut self, bits: usize) -> SP1Field {
        let state = GrindState {
            sponge: self.0.sponge_state.map(from_outer_field),
            pending: self.0.input_buffer.iter().map(PrimeField32::as_canonical_u32).collect(),
        };
        let mask = (1u32 << bits) - 1;
        let accept = |word: u64| SP1Field::from_wrapped_u64(word).as_canonical_u32() & mask == 0;
        let witness = grind(&state, SP1Field::ORDER_U32, accept).expect("some witness has enough zero bits");
        let witness = SP1Field::from_canonical_u32(witness);
        assert!(self.check_witness(bits, witness), "the search and the challenger agree");
        witness
    }
}
