//! The outer hash: BN254 Poseidon2 and its Merkle trees, ours next to the zkVM's own in the same run.
//!
//! Groups: one permutation, a commitment to rows as wide as those of the wrap proof, and proof-of-work search (reported as
//! candidates a second). The crate's code uses all cores in commitments and search, as ours does.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use ark_bn254::Fr;
use assay_kernels::field::arch_name;
use assay_kernels::poseidon2::{grind, permute_one, GrindState};
use assay_worker_outer::{to_outer_field, OuterContext, OuterTcs};
use criterion::{criterion_group, criterion_main, BatchSize, BenchmarkId, Criterion, Throughput};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use slop_algebra::{AbstractField, PrimeField32};
use slop_bn254::outer_perm;
use slop_challenger::{CanObserve, GrindingChallenger, IopCtx};
use slop_commit::Message;
use slop_merkle_tree::{BnProver, TensorCsProver};
use slop_symmetric::Permutation;
use slop_tensor::Tensor;
use sp1_primitives::{SP1ExtensionField, SP1Field, SP1OuterGlobalContext};

const LOG_HEIGHT: u32 = 13;

fn permutation(c: &mut Criterion) {
    let mut group = c.benchmark_group("outer_permutation");
    let ours: [Fr; 3] = [1u64, 2, 3].map(Fr::from);
    group.bench_function("ours, one state on arkworks", |b| {
        b.iter_batched_ref(|| ours, permute_one, BatchSize::SmallInput);
    });
    let (theirs, permutation) = (ours.map(to_outer_field), outer_perm());
    group.bench_function("crate", |b| {
        b.iter_batched_ref(|| theirs, |state| permutation.permute_mut(state), BatchSize::SmallInput);
    });
    group.finish();
}

fn tensor(width: usize) -> Message<Tensor<SP1Field>> {
    let mut rng = ChaCha20Rng::seed_from_u64(width as u64);
    let count = width << LOG_HEIGHT;
    let values: Vec<SP1Field> =
        (0..count).map(|_| SP1Field::from_canonical_u32(rng.gen_range(0..SP1Field::ORDER_U32))).collect();
    Message::from(Tensor::from(values).reshape([1 << LOG_HEIGHT, width]))
}

fn commitment(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("outer_commitment/{}", arch_name()));
    group.sample_size(10);
    let (ours, theirs) = (OuterTcs::default(), BnProver::<SP1Field, SP1ExtensionField>::default());
    for width in [8, 32] {
        let message = tensor(width);
        // Per row: a permutation for every 16 elements begun, and one compression.
        group.throughput(Throughput::Elements(((width as u64).div_ceil(16) + 1) << LOG_HEIGHT));
        group.bench_with_input(BenchmarkId::new("ours", width), &message, |b, message| {
            b.iter(|| TensorCsProver::<OuterContext, _>::commit_tensors(&ours, message.clone()));
        });
        group.bench_with_input(BenchmarkId::new("crate", width), &message, |b, message| {
            b.iter(|| theirs.commit_tensors(message.clone()));
        });
    }
    group.finish();
}

fn search(c: &mut Criterion) {
    const CANDIDATES: u32 = 1 << 14;
    let mut group = c.benchmark_group("outer_proof_of_work");
    group.sample_size(10);
    group.throughput(Throughput::Elements(u64::from(CANDIDATES)));
    let state = GrindState { sponge: [1u64, 2, 3].map(Fr::from), pending: vec![4, 5, 6] };
    group.bench_function("ours", |b| b.iter(|| grind(&state, CANDIDATES, |_| false)));
    // The crate offers no search of a fixed length: time its check, which every candidate costs, on one core.
    let mut challenger = SP1OuterGlobalContext::default_challenger();
    challenger.observe(SP1Field::from_canonical_u32(4));
    group.throughput(Throughput::Elements(64));
    group.bench_function("crate, one core", |b| {
        b.iter(|| {
            (0..64).filter(|i| challenger.clone().check_witness(22, SP1Field::from_canonical_u32(*i))).count()
        });
    });
    group.finish();
}

criterion_group!(benches, permutation, commitment, search);
criterion_main!(benches);
