//! Between arkworks elements and the zkVM's types, and between proofs in our context and in the zkVM's.

use ark_bn254::Fr;
use ark_ff::{BigInt, PrimeField as _};
use slop_algebra::{AbstractField, PrimeField};
use slop_basefold::BasefoldProof;
use slop_bn254::{Bn254Fr, OUTER_DIGEST_SIZE};
use slop_jagged::JaggedPcsProof;
use slop_merkle_tree::MerkleTreeOpeningAndProof;
use slop_stacked::StackedBasefoldProof;
use slop_symmetric::Hash;
use sp1_hypercube::{MachineVerifyingKey, SP1PcsProof, ShardProof};
use sp1_primitives::{SP1Field, SP1OuterGlobalContext};

use crate::OuterContext;

/// A digest of the outer hash.
pub type OuterDigest = Hash<SP1Field, Bn254Fr, OUTER_DIGEST_SIZE>;

/// The same element in the zkVM's type.
#[must_use]
pub fn to_outer_field(element: Fr) -> Bn254Fr {
    let half = Bn254Fr::from_canonical_u64(1 << 32);
    let shift = half * half;
    element
        .into_bigint()
        .0
        .iter()
        .rev()
        .fold(Bn254Fr::zero(), |sum, word| sum * shift + Bn254Fr::from_canonical_u64(*word))
}

/// The same element in arkworks' type.
///
/// # Panics
/// Never: both types have the same modulus.
#[must_use]
pub fn from_outer_field(element: Bn254Fr) -> Fr {
    let mut words = [0; 4];
    for (word, digit) in words.iter_mut().zip(element.as_canonical_biguint().to_u64_digits()) {
        *word = digit;
    }
    Fr::from_bigint(BigInt(words)).expect("both types have the same modulus")
}

pub(crate) fn to_digest(element: Fr) -> OuterDigest {
    [to_outer_field(element)].into()
}

/// The zkVM's form of a key made in our context.
pub(crate) fn outer_key(
    key: MachineVerifyingKey<OuterContext>,
) -> MachineVerifyingKey<SP1OuterGlobalContext> {
    let MachineVerifyingKey {
        pc_start,
        initial_global_cumulative_sum,
        preprocessed_commit,
        untrusted_config,
    } = key;
    MachineVerifyingKey { pc_start, initial_global_cumulative_sum, preprocessed_commit, untrusted_config }
}

/// The zkVM's form of a proof made in our context: the same values, under the other type parameter.
pub(crate) fn outer_proof(
    proof: ShardProof<OuterContext, SP1PcsProof<OuterContext>>,
) -> ShardProof<SP1OuterGlobalContext, SP1PcsProof<SP1OuterGlobalContext>> {
    let evaluation = proof.evaluation_proof;
    ShardProof {
        public_values: proof.public_values,
        main_commitment: proof.main_commitment,
        logup_gkr_proof: proof.logup_gkr_proof,
        zerocheck_proof: proof.zerocheck_proof,
        opened_values: proof.opened_values,
        evaluation_proof: JaggedPcsProof {
            pcs_proof: outer_pcs_proof(evaluation.pcs_proof),
            sumcheck_proof: evaluation.sumcheck_proof,
            jagged_eval_proof: evaluation.jagged_eval_proof,
            row_counts_and_column_counts: evaluation.row_counts_and_column_counts,
            merkle_tree_commitments: evaluation.merkle_tree_commitments,
            expected_eval: evaluation.expected_eval,
            max_log_row_count: evaluation.max_log_row_count,
            log_m: evaluation.log_m,
        },
    }
}

/// The zkVM's form of an evaluation proof made in our context.
pub(crate) fn outer_pcs_proof(
    proof: StackedBasefoldProof<OuterContext>,
) -> StackedBasefoldProof<SP1OuterGlobalContext> {
    let StackedBasefoldProof { basefold_proof, batch_evaluations } = proof;
    StackedBasefoldProof { basefold_proof: outer_basefold(basefold_proof), batch_evaluations }
}

fn outer_basefold(proof: BasefoldProof<OuterContext>) -> BasefoldProof<SP1OuterGlobalContext> {
    let openings = |list: Vec<MerkleTreeOpeningAndProof<OuterContext>>| {
        list.into_iter()
            .map(|opening| MerkleTreeOpeningAndProof { values: opening.values, proof: opening.proof })
            .collect()
    };
    BasefoldProof {
        univariate_messages: proof.univariate_messages,
        fri_commitments: proof.fri_commitments,
        component_polynomials_query_openings_and_proofs: openings(
            proof.component_polynomials_query_openings_and_proofs,
        ),
        query_phase_openings_and_proofs: openings(proof.query_phase_openings_and_proofs),
        final_poly: proof.final_poly,
        pow_witness: proof.pow_witness,
        batch_grinding_witness: proof.batch_grinding_witness,
    }
}
