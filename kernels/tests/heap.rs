//! What proofs, sums and transforms leave in memory that they give back: an allocator looks at every block.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "cuda_shim/process.rs"]
#[allow(dead_code, reason = "the tests on the shim use the rest")]
mod process;
#[path = "heap/watched.rs"]
mod watched;

use std::panic::{catch_unwind, AssertUnwindSafe};

use ark_bn254::Fr;
use ark_ff::{FftField, PrimeField, UniformRand};
use assay_kernels::backend::{Backend, Transform};
use assay_kernels::groth16::{
    host_bytes, prove_with, setup, silent, synthetic, Check, Groth16Error, ProvingKey, ToxicWaste,
};
use assay_kernels::msm::{msm, G1Point, G2Point, Point};
use assay_kernels::ntt::Domain;
use assay_kernels::r1cs::{R1cs, SparseMatrix};
use assay_kernels::secret::Secret;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;
use watched::{peak, turn, Seen, Watch};

fn random(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
    (0..count).map(|_| Fr::rand(&mut rng)).collect()
}

/// A circuit, its key, and everything that may not be left behind.
struct Case {
    _folder: tempfile::TempDir,
    key: ProvingKey,
    system: R1cs,
    z: Vec<Fr>,
    blinding: [Fr; 2],
    /// Montgomery and canonical words of the private variables, of the products with them, of the quotient's values, of `r`, `s`.
    words: Vec<u64>,
}

impl Case {
    fn new(constraints: usize) -> Self {
        let (system, z) = synthetic::circuit(constraints);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        setup(&system, [0; 32], &path, ToxicWaste::random().unwrap(), &silent).unwrap();
        let key = ProvingKey::open(&path, &[0; 32], Check::Points).unwrap();
        let blinding = [random(2)[0], random(2)[1]];
        let domain = Domain::at_least(system.num_constraints() + system.num_instance).unwrap();
        let [a, b] = [&system.a, &system.b].map(|matrix| product(&system, matrix, &z, domain.size()));
        let on_coset = [&a, &b].map(|values| {
            let mut values = values.clone();
            domain.interpolate_unscaled(&mut values);
            domain.scale_permuted(&mut values, Fr::GENERATOR);
            domain.evaluate_permuted(&mut values);
            values
        });
        let quotient: Vec<Fr> = on_coset[0].iter().zip(&on_coset[1]).map(|(a, b)| *a * b).collect();
        let blinds = [blinding[0], blinding[1], blinding[0] * blinding[1]];
        let all = [&z[system.num_instance..], &a, &b, &on_coset[1], &quotient, &blinds].concat();
        // Small values and the public ones say nothing.
        let public = &z[..system.num_instance];
        let large = |value: &&Fr| value.into_bigint().0[3] >> 32 != 0 && !public.contains(value);
        let words = |value: &Fr| [value.0 .0, value.into_bigint().0].concat();
        // -1 and its like share words with the modulus.
        let telling = |word: &u64| word >> 32 != 0 && !Fr::MODULUS.0.contains(word);
        let words = all.iter().filter(large).flat_map(words).filter(telling).collect();
        Self { _folder: folder, key, system, z, blinding, words }
    }
}

/// `matrix * z` with the rows of the public inputs behind those of A.
fn product(system: &R1cs, matrix: &SparseMatrix, z: &[Fr], size: usize) -> Vec<Fr> {
    let table = system.coefficients.values();
    let mut rows: Vec<Fr> = (0..matrix.rows()).map(|row| matrix.evaluate_row(row, table, z)).collect();
    if std::ptr::eq(matrix, &system.a) {
        rows.extend_from_slice(&z[..system.num_instance]);
    }
    rows.resize(size, Fr::from(0u64));
    rows
}

/// What `work` gave back, which may end in an error or a panic.
fn seen(words: &[u64], work: impl FnOnce()) -> Seen {
    let watch = Watch::start(words);
    let _ = catch_unwind(AssertUnwindSafe(work));
    watch.end()
}

#[test]
fn the_allocator_sees_a_value_that_is_left_behind() {
    let _turn = turn();
    let values = random(600);
    let words = values[7].0 .0;
    assert!(seen(&words, || drop(values.clone())).words >= 4);
    let left = seen(&words, || drop(Secret::from(values.clone())));
    assert_eq!((left.words, left.dirty), (0, 0));
    assert!(seen(&words, || drop(values.clone())).dirty >= 1);
}

#[test]
fn secrets_are_wiped_while_a_panic_unwinds() {
    let _turn = turn();
    let values = random(1 << 14);
    let part = |at: usize| if at == 12_345 { panic!("planted") } else { values[at] };
    let left = seen(&[], || {
        let all = Secret::collect(Fr::from(0u64), (0..values.len()).into_par_iter().map(part));
        unreachable!("{all:?}");
    });
    assert!(left.blocks >= 1);
    assert_eq!(left.dirty, 0);
    // And large ones, by several threads.
    let left = seen(&[], || drop(Secret::over(vec![7u32; 5 << 20], 0)));
    assert_eq!((left.blocks, left.dirty), (1, 0));
}

#[test]
fn a_sum_gives_no_memory_back_that_follows_from_its_scalars() {
    let _turn = turn();
    fn of<P: Point>(count: usize) {
        let generator = P::from_affine(&<_ as ark_ec::AffineRepr>::generator()).unwrap();
        let points = vec![generator; count];
        // Equal ones, so that buckets have more than one task; and random ones.
        let mut scalars = random(count);
        scalars[..count / 4].fill(Fr::from(77u64));
        let left = seen(&[], || {
            let _ = msm(&points, |at| scalars[at], &|_, _| ());
        });
        assert!(left.blocks > 20, "{left:?}");
        assert_eq!(left.dirty, 0, "{left:?}");
    }
    of::<G1Point>(1 << 13);
    of::<G2Point>(1 << 12);
}

#[test]
fn a_transform_gives_no_memory_back_that_follows_from_its_values() {
    let _turn = turn();
    for size in [1 << 12, 9 << 9] {
        let (domain, mut values) = (Domain::new(size).unwrap(), random(size));
        let left = seen(&[], || {
            domain.interpolate_unscaled(&mut values);
            domain.evaluate_permuted(&mut values);
        });
        assert!(left.blocks >= 1, "{left:?}");
        assert_eq!(left.dirty, 0, "{left:?}");
    }
}

/// Stages of a proof, at whose begin a panic is planted.
const STAGES: [&str; 7] = [
    "prove: quotient",
    "prove: msm H",
    "prove: msm L",
    "prove: msm A",
    "prove: msm B2",
    "prove: msm B",
    "prove: verify",
];

#[test]
fn a_proof_gives_no_memory_back_that_holds_the_witness_or_what_follows_from_it() {
    let _turn = turn();
    let Case { key, system, z, blinding: [r, s], words, .. } = &Case::new(1000);
    let mut wrong = z.clone();
    *wrong.last_mut().unwrap() += Fr::from(1u64);
    let done = seen(words, || _ = prove_with(key, system, z, *r, *s, &silent).unwrap());
    assert!(done.blocks > 20, "{done:?}");
    assert_eq!(done.words, 0, "{done:?}");
    let refused = seen(words, || {
        let refused = prove_with(key, system, &wrong, *r, *s, &silent).unwrap_err();
        assert!(matches!(refused, Groth16Error::Assignment(_)));
    });
    assert_eq!(refused.words, 0, "{refused:?}");
    for stage in STAGES {
        for at in 0..4 {
            let planted =
                |now: &'static str, done: u64, _: u64| assert!(now != stage || done < at, "planted");
            let left = seen(words, || drop(prove_with(key, system, z, *r, *s, &planted)));
            assert_eq!(left.words, 0, "{stage}, {at}: {left:?}");
        }
    }
}

#[test]
fn a_proof_on_a_device_gives_no_memory_of_the_host_back_that_holds_the_witness() {
    let _turn = turn();
    let Some(shim) = process::Shim::start(3) else { return };
    let Case { key, system, z, blinding: [r, s], words, .. } = &Case::new(1000);
    let backend = Backend::on(shim).without_fallback();
    let done = seen(words, || _ = backend.prove_with(key, system, z, *r, *s, &silent).unwrap());
    assert_eq!(done.words, 0, "{done:?}");
    for stage in STAGES {
        let planted = |now: &'static str, done: u64, _: u64| assert!(now != stage || done == 0, "planted");
        let left = seen(words, || drop(backend.prove_with(key, system, z, *r, *s, &planted)));
        assert_eq!(left.words, 0, "{stage}: {left:?}");
    }
    // The values of a transform, which the caller keeps.
    let mut values = random(1 << 10);
    let secret: Vec<u64> = values.iter().flat_map(|value| value.0 .0).collect();
    let left = seen(&secret, || {
        backend.ntt(&mut values, Transform::Evaluate).unwrap();
    });
    assert_eq!(left.words, 0, "{left:?}");
}

#[test]
fn a_proof_on_the_cpu_takes_no_more_memory_than_is_said() {
    let _turn = turn();
    for constraints in [1000, 12_000, 32_000] {
        let Case { key, system, z, blinding: [r, s], .. } = &Case::new(constraints);
        let taken = peak(|| _ = prove_with(key, system, z, *r, *s, &silent).unwrap());
        let said = host_bytes(key);
        println!("{constraints} constraints: {taken} bytes taken, {said} said");
        assert!(taken <= said, "{constraints}: {taken} bytes taken, {said} said");
        // Scratch of threads is most of it for small ones; copies of points are partly not on the heap.
        let scratch = (rayon::current_num_threads() as u64 + 1) * (6 << 20);
        assert!(said <= 4 * taken + scratch, "{constraints}: {taken} bytes taken, {said} said");
    }
}
