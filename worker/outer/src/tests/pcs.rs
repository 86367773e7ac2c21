//! An evaluation proof made with all our parts, verified by the zkVM's verifier in the zkVM's context.

use rand::{rngs::StdRng, Rng, SeedableRng};
use slop_algebra::{extension::BinomialExtensionField, AbstractExtensionField, AbstractField, PrimeField32};
use slop_basefold::{BasefoldVerifier, FriConfig};
use slop_basefold_prover::BasefoldProver;
use slop_challenger::{CanObserve, IopCtx};
use slop_commit::{Message, Rounds};
use slop_multilinear::{Mle, MultilinearPcsProver, Point};
use slop_stacked::{StackedBasefoldProof, StackedPcsProver, StackedPcsVerifier};
use slop_tensor::Tensor;
use sp1_primitives::{SP1ExtensionField, SP1Field, SP1OuterGlobalContext};

use crate::{convert::outer_pcs_proof, OuterContext, OuterDigest, OuterTcs};

const LOG_STACKING_HEIGHT: u32 = 9;
/// Two rounds of multilinears, as the preprocessed and the main traces are: (columns, log2 of rows).
const ROUNDS: [&[(usize, u32)]; 2] = [&[(20, 9), (4, 10), (2, 9)], &[(2, 12), (18, 9)]];

fn fri_config() -> FriConfig<SP1Field> {
    FriConfig::new(2, 12, 10)
}

fn random_field(rng: &mut StdRng) -> SP1Field {
    SP1Field::from_canonical_u32(rng.gen_range(0..SP1Field::ORDER_U32))
}

fn random_extension(rng: &mut StdRng) -> SP1ExtensionField {
    BinomialExtensionField::from_base_fn(|_| random_field(rng))
}

struct Instance {
    rounds: Vec<Message<Mle<SP1Field>>>,
    point: Point<SP1ExtensionField>,
    claim: SP1ExtensionField,
}

/// Random multilinears of `2^15` entries in all, and their evaluation at a random point as one multilinear.
fn instance(rng: &mut StdRng) -> Instance {
    let mle = |rng: &mut StdRng, &(columns, log_rows): &(usize, u32)| {
        let values: Vec<SP1Field> = (0..columns << log_rows).map(|_| random_field(rng)).collect();
        Mle::new(Tensor::from(values).reshape([1 << log_rows, columns]))
    };
    let rounds: Vec<Message<Mle<SP1Field>>> =
        ROUNDS.iter().map(|shapes| shapes.iter().map(|shape| mle(rng, shape)).collect()).collect();
    let all: Vec<SP1Field> = rounds
        .iter()
        .flat_map(|round| round.iter())
        .flat_map(|mle| mle.guts().transpose().as_slice().to_vec())
        .collect();
    let variables = all.len().next_power_of_two().ilog2();
    let point: Point<SP1ExtensionField> = (0..variables).map(|_| random_extension(rng)).collect();
    assert!(all.len().is_power_of_two());
    let claim = Mle::new(Tensor::from(all).reshape([1 << variables, 1])).eval_at(&point)[0];
    Instance { rounds, point, claim }
}

/// Commitments and proof of the instance, by the zkVM's prover with our parts.
fn prove(instance: &Instance) -> (Vec<OuterDigest>, StackedBasefoldProof<SP1OuterGlobalContext>) {
    let verifier = BasefoldVerifier::<OuterContext>::new(fri_config(), ROUNDS.len());
    let basefold = BasefoldProver::<OuterContext, OuterTcs>::new(&verifier);
    let prover = StackedPcsProver::new(basefold, LOG_STACKING_HEIGHT, 10);
    let mut challenger = OuterContext::default_challenger();
    let mut commitments = Vec::new();
    let mut data = Rounds::new();
    for round in &instance.rounds {
        let (commitment, round_data, _) = prover.commit_multilinears(round.clone()).unwrap();
        challenger.observe(commitment);
        commitments.push(commitment);
        data.push(round_data);
    }
    let proof = prover
        .prove_trusted_evaluation(instance.point.clone(), instance.claim, data, &mut challenger)
        .unwrap();
    (commitments, outer_pcs_proof(proof))
}

fn verify(
    instance: &Instance,
    commitments: &[OuterDigest],
    proof: &StackedBasefoldProof<SP1OuterGlobalContext>,
) -> bool {
    let verifier = StackedPcsVerifier::new(
        BasefoldVerifier::<SP1OuterGlobalContext>::new(fri_config(), ROUNDS.len()),
        LOG_STACKING_HEIGHT,
    );
    let areas: Vec<usize> = ROUNDS
        .iter()
        .map(|shapes| shapes.iter().map(|&(columns, log_rows)| columns << log_rows).sum())
        .collect();
    let mut challenger = SP1OuterGlobalContext::default_challenger();
    for commitment in commitments {
        challenger.observe(*commitment);
    }
    verifier
        .verify_trusted_evaluation(
            commitments,
            &areas,
            &instance.point,
            proof,
            instance.claim,
            &mut challenger,
        )
        .is_ok()
}

#[test]
fn the_zkvms_verifier_accepts_our_evaluation_proof_and_no_changed_one() {
    let instance = instance(&mut StdRng::seed_from_u64(1));
    let (commitments, proof) = prove(&instance);
    assert!(verify(&instance, &commitments, &proof));

    let mut changed = proof.clone();
    changed.basefold_proof.pow_witness += SP1Field::one();
    assert!(!verify(&instance, &commitments, &changed), "proof-of-work witness");
    let mut changed = proof.clone();
    changed.basefold_proof.fri_commitments.swap(0, 1);
    assert!(!verify(&instance, &commitments, &changed), "commitments to the folded words");
    let mut changed = proof.clone();
    let opening = &mut changed.basefold_proof.component_polynomials_query_openings_and_proofs[0];
    opening.values.as_mut_slice()[3] += SP1Field::one();
    assert!(!verify(&instance, &commitments, &changed), "an opened value");
    let swapped = [commitments[1], commitments[0]];
    assert!(!verify(&instance, &swapped, &proof), "order of commitments");
}
