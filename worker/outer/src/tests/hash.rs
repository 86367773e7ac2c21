//! Permutation, sponge, trees and challenger against the crates' own.

use std::sync::Arc;

use ark_bn254::Fr;
use ark_ff::PrimeField as _;
use assay_kernels::{
    merkle::{MerkleTree, Rows},
    poseidon2::{permute_one, round_constants, Sponge},
};
use rand::{rngs::StdRng, Rng, SeedableRng};
use slop_algebra::{AbstractField, PrimeField32};
use slop_bn254::{bn254_poseidon2_rc3, outer_perm};
use slop_challenger::{CanObserve, CanSample, CanSampleBits, GrindingChallenger, IopCtx};
use slop_commit::Message;
use slop_merkle_tree::{BnProver, ComputeTcsOpenings, MerkleTreeTcs, TensorCsProver};
use slop_symmetric::{CryptographicHasher, Permutation, PseudoCompressionFunction};
use slop_tensor::Tensor;
use sp1_primitives::{SP1ExtensionField, SP1Field, SP1OuterGlobalContext};

use crate::{from_outer_field, to_outer_field, OuterContext, OuterDigest, OuterTcs, TreeCache};

type Crate = BnProver<SP1Field, SP1ExtensionField>;

fn random_field(rng: &mut StdRng) -> SP1Field {
    SP1Field::from_canonical_u32(rng.gen_range(0..SP1Field::ORDER_U32))
}

fn random_fr(rng: &mut StdRng) -> Fr {
    Fr::from_be_bytes_mod_order(&rng.gen::<[u8; 32]>())
}

#[test]
fn conversions_keep_the_value() {
    let mut rng = StdRng::seed_from_u64(1);
    for value in [Fr::from(0u64), Fr::from(1u64), -Fr::from(1u64)]
        .into_iter()
        .chain((0..50).map(|_| random_fr(&mut rng)))
    {
        assert_eq!(from_outer_field(to_outer_field(value)), value);
    }
    assert_eq!(to_outer_field(Fr::from(77u64)), AbstractField::from_canonical_u64(77));
    assert_eq!(to_outer_field(-Fr::from(1u64)), AbstractField::neg_one());
}

#[test]
fn round_constants_are_those_of_the_crate() {
    let theirs = bn254_poseidon2_rc3();
    let ours = round_constants();
    let full = theirs[..4].iter().chain(&theirs[60..]);
    assert_eq!(ours.full.map(|row| row.map(to_outer_field)).to_vec(), full.copied().collect::<Vec<_>>());
    let partial: Vec<_> = theirs[4..60].iter().map(|row| row[0]).collect();
    assert_eq!(ours.partial.map(to_outer_field).to_vec(), partial);
}

#[test]
fn permutation_sponge_and_compression_are_those_of_the_crate() {
    let mut rng = StdRng::seed_from_u64(2);
    let permutation = outer_perm();
    for _ in 0..10 {
        let mut ours: [Fr; 3] = std::array::from_fn(|_| random_fr(&mut rng));
        let mut theirs = ours.map(to_outer_field);
        permute_one(&mut ours);
        permutation.permute_mut(&mut theirs);
        assert_eq!(ours.map(to_outer_field), theirs);
    }
    let (hasher, compressor) = SP1OuterGlobalContext::default_hasher_and_compressor();
    for width in (0..50).chain([64, 100]) {
        let row: Vec<SP1Field> = (0..width).map(|_| random_field(&mut rng)).collect();
        let canonical: Vec<u32> = row.iter().map(PrimeField32::as_canonical_u32).collect();
        let theirs: OuterDigest = hasher.hash_iter(row);
        assert_eq!(
            OuterDigest::from([to_outer_field(Sponge::hash_one(&canonical))]),
            theirs,
            "width {width}"
        );
    }
    let (left, right) = (random_fr(&mut rng), random_fr(&mut rng));
    let theirs: OuterDigest =
        compressor.compress([[to_outer_field(left)].into(), [to_outer_field(right)].into()]);
    assert_eq!(OuterDigest::from([to_outer_field(Sponge::compress_one(left, right))]), theirs);
}

fn tensors(rng: &mut StdRng, height: usize, widths: &[usize]) -> Message<Tensor<SP1Field>> {
    widths
        .iter()
        .map(|&width| {
            let values: Vec<SP1Field> = (0..height * width).map(|_| random_field(rng)).collect();
            Tensor::from(values).reshape([height, width])
        })
        .collect()
}

const SHAPES: [(usize, &[usize]); 9] = [
    (1, &[1]),
    (2, &[7, 2]),
    (4, &[16]),
    (8, &[17]),
    (64, &[3, 30, 1]),
    (128, &[8]),
    (512, &[32]),
    (1024, &[32, 9]),
    (2048, &[8]),
];

#[test]
fn commitments_and_openings_are_those_of_the_crate() {
    let mut rng = StdRng::seed_from_u64(3);
    let (ours, theirs) = (OuterTcs::default(), Crate::default());
    for (height, widths) in SHAPES {
        let message = tensors(&mut rng, height, widths);
        let (commitment, data) =
            TensorCsProver::<SP1OuterGlobalContext, _>::commit_tensors(&ours, message.clone()).unwrap();
        let (expected, expected_data) = theirs.commit_tensors(message.clone()).unwrap();
        assert_eq!(commitment, expected, "{height} x {widths:?}");

        let indices: Vec<usize> = (0..13).map(|_| rng.gen_range(0..height)).chain([0, height - 1]).collect();
        let values = ComputeTcsOpenings::<SP1OuterGlobalContext, _>::compute_openings_at_indices(
            &ours,
            message.clone(),
            &indices,
        );
        assert_eq!(values, theirs.compute_openings_at_indices(message, &indices));
        let proof =
            TensorCsProver::<SP1OuterGlobalContext, _>::prove_openings_at_indices(&ours, data, &indices)
                .unwrap();
        let expected_proof = theirs.prove_openings_at_indices(expected_data, &indices).unwrap();
        assert_eq!(bincode::serialize(&proof).unwrap(), bincode::serialize(&expected_proof).unwrap());
        let width = widths.iter().sum();
        MerkleTreeTcs::<SP1OuterGlobalContext>::default()
            .verify_tensor_openings(
                &commitment,
                &indices,
                &values,
                width,
                height.trailing_zeros() as usize,
                &proof,
            )
            .unwrap();
    }
}

#[test]
fn heights_that_are_no_power_of_two_commit_as_in_the_crate() {
    let mut rng = StdRng::seed_from_u64(4);
    for (height, widths) in [(3, [5, 1].as_slice()), (65, &[17]), (100, &[8]), (777, &[2, 2])] {
        let message = tensors(&mut rng, height, widths);
        let (commitment, _) =
            TensorCsProver::<SP1OuterGlobalContext, _>::commit_tensors(&OuterTcs::default(), message.clone())
                .unwrap();
        assert_eq!(commitment, Crate::default().commit_tensors(message).unwrap().0, "{height} x {widths:?}");
    }
}

#[test]
fn challenger_transcripts_and_witnesses_satisfy_the_crates_challenger() {
    let mut rng = StdRng::seed_from_u64(5);
    for observed in 0..20 {
        let mut ours = OuterContext::default_challenger();
        let mut theirs = SP1OuterGlobalContext::default_challenger();
        for _ in 0..observed {
            let value = random_field(&mut rng);
            ours.observe(value);
            theirs.observe(value);
        }
        if observed % 3 == 0 {
            let digest = OuterDigest::from([to_outer_field(random_fr(&mut rng))]);
            ours.observe(digest);
            theirs.observe(digest);
        }
        if observed % 4 == 1 {
            let (ours, theirs): (SP1Field, SP1Field) = (ours.sample(), theirs.sample());
            assert_eq!(ours, theirs);
        }
        let witness = ours.grind(7);
        assert!(theirs.check_witness(7, witness), "{observed} observed");
        assert_eq!(ours.sample_bits(20), theirs.sample_bits(20));
    }
}

struct Ramp(usize, usize, u32);

impl Rows for Ramp {
    fn height(&self) -> usize {
        self.0
    }

    fn width(&self) -> usize {
        self.1
    }

    fn read(&self, index: usize, out: &mut [u32]) {
        for (i, value) in out.iter_mut().enumerate() {
            *value = (index * self.1 + i) as u32 ^ self.2;
        }
    }
}

#[test]
fn a_confirmed_tree_is_kept_and_a_wrong_file_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let rows = Ramp(4096, 5, 0);
    let tree = MerkleTree::build(&rows);
    let cache = TreeCache::named(folder.path(), b"test");
    assert_eq!(*cache.load_or_build(&rows), tree);
    assert!(!cache.path().exists(), "not before it is confirmed");
    cache.confirm();
    assert_eq!(cache.load(&rows).unwrap(), tree);

    // Other rows of the same shape: the sample finds out.
    assert!(cache.load(&Ramp(4096, 5, 1)).is_err());
    // Another shape.
    assert!(cache.load(&Ramp(2048, 10, 0)).is_err());
    // Any changed byte, and a cut file.
    let good = std::fs::read(cache.path()).unwrap();
    for at in [0, 9, 20, 30, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(cache.path(), &bad).unwrap();
        assert!(cache.load(&rows).is_err(), "byte {at}");
    }
    std::fs::write(cache.path(), &good[..40]).unwrap();
    assert!(cache.load(&rows).is_err());
    assert_eq!(*cache.load_or_build(&rows), tree);
    cache.confirm();
    assert_eq!(std::fs::read(cache.path()).unwrap(), good);
}

#[test]
fn a_rejected_tree_is_removed_if_it_was_from_the_file_and_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(TreeCache::named(folder.path(), b"test"));
    let mut rng = StdRng::seed_from_u64(6);
    let message = tensors(&mut rng, 64, &[4]);
    let tcs = OuterTcs::with_cache(cache.clone());
    let commit =
        || TensorCsProver::<SP1OuterGlobalContext, _>::commit_tensors(&tcs, message.clone()).unwrap().0;
    let expected = Crate::default().commit_tensors(message.clone()).unwrap().0;
    assert_eq!(commit(), expected);
    assert!(!cache.reject());
    cache.confirm();
    assert!(!cache.path().exists());

    assert_eq!(commit(), expected);
    cache.confirm();
    assert!(cache.path().exists());
    assert_eq!(commit(), expected);
    assert!(cache.reject());
    assert!(!cache.path().exists());
}
