//! Groth16 and its parts on the CPU, each next to arkworks in the same run.
//!
//! Sizes are 2^16, which takes minutes, and up to 2^n with `ASSAY_BENCH_LOG_MAX=n`: sums and transforms of 2^16, 2^18, .. 2^24,
//! Groth16 of 2^16 and 2^20 constraints and from n = 23 on of as many as the wrap circuit has (8,321,600, of the synthetic circuit: the
//! wrap circuit itself is in `examples/wrap_proof.rs`). n = 24 takes hours and 16 GiB. arkworks stands beside sizes up to
//! 2^20, of Groth16 up to 2^16.
//!
//! Scalars of the MSMs are dense and random, which is the worst case, or as a witness's; the circuits' witnesses are a third bits.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use ark_bn254::{Bn254, Fr, G1Affine, G2Affine};
use ark_ec::short_weierstrass::{Affine, Projective};
use ark_ec::{AffineRepr, CurveGroup, PrimeGroup, VariableBaseMSM};
use ark_ff::UniformRand;
use ark_groth16::Groth16;
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use ark_relations::gr1cs::{
    ConstraintSynthesizer, ConstraintSystemRef, LinearCombination, SynthesisError, Variable,
};
use assay_kernels::groth16::{prove_with, setup, silent, synthetic, Check, ProvingKey, ToxicWaste};
use assay_kernels::msm::{msm, G1Point, G2Point, Point};
use assay_kernels::ntt::Domain;
use assay_kernels::r1cs::{R1cs, SparseMatrix};
use criterion::{criterion_group, criterion_main, BatchSize, Criterion, SamplingMode};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// Sums and transforms above this are not given to arkworks.
const PEER_LOG_MAX: u32 = 20;
/// Constraints of the wrap circuit.
const WRAP: usize = 8_321_600;

fn log_max() -> u32 {
    let asked = std::env::var("ASSAY_BENCH_LOG_MAX");
    asked.map_or(16, |text| text.parse().expect("ASSAY_BENCH_LOG_MAX: expected a number"))
}

/// The sizes of sums and transforms that are asked for.
fn logs() -> impl Iterator<Item = u32> {
    let most = log_max();
    (16..=24).step_by(2).filter(move |log| *log <= most)
}

fn scalars(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    (0..count).map(|_| Fr::rand(&mut rng)).collect()
}

/// As a witness, and as in `kernels/examples/gpu`: an eighth zeros, a quarter ones, a quarter of 32 bits, the rest dense.
fn witness_like(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let scalar = |at| match at % 8 {
        0 => Fr::from(0u64),
        1 | 2 => Fr::from(1u64),
        3 | 4 => Fr::from(rng.gen::<u32>()),
        _ => Fr::rand(&mut rng),
    };
    (0..count).map(scalar).collect()
}

/// Multiples of a generator: different points, cheap to make.
fn points<P: Point>(count: usize) -> (Vec<P>, Vec<Affine<P::Curve>>) {
    let step = Projective::<P::Curve>::generator();
    let all: Vec<_> = std::iter::successors(Some(step), |point| Some(*point + step)).take(count).collect();
    let affine = Projective::normalize_batch(&all);
    let stored = affine.iter().filter_map(P::from_affine).collect();
    (stored, affine)
}

fn msm_of<P: Point>(c: &mut Criterion, name: &str, log: u32) {
    let (stored, affine) = points::<P>(1 << log);
    for (kind, scalars) in [("", scalars(1 << log)), (" witness-like", witness_like(1 << log))] {
        let mut group = c.benchmark_group(format!("{name}/2^{log}{kind}"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.bench_function("ours", |b| b.iter(|| msm(&stored, |at| scalars[at], &|_, _| ())));
        if log <= PEER_LOG_MAX {
            group.bench_function("arkworks", |b| {
                b.iter(|| Projective::<P::Curve>::msm_unchecked(&affine, &scalars));
            });
        }
        group.finish();
    }
}

fn msms(c: &mut Criterion) {
    for log in logs() {
        msm_of::<G1Point>(c, "msm g1", log);
        msm_of::<G2Point>(c, "msm g2", log);
    }
}

fn ntts(c: &mut Criterion) {
    logs().for_each(|log| ntt_of(c, log));
}

fn ntt_of(c: &mut Criterion, log: u32) {
    let input = scalars(1 << log);
    let ours = Domain::new(1 << log).expect("a power of two");
    let mut group = c.benchmark_group(format!("ntt/2^{log}"));
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.bench_function("ours", |b| {
        b.iter_batched_ref(
            || input.clone(),
            |values| ours.interpolate_unscaled(values),
            BatchSize::LargeInput,
        );
    });
    if log <= PEER_LOG_MAX {
        let theirs = Radix2EvaluationDomain::<Fr>::new(1 << log).expect("a power of two");
        group.bench_function("arkworks", |b| {
            b.iter_batched_ref(
                || input.clone(),
                |values| theirs.ifft_in_place(values),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A circuit of ours for arkworks.
#[derive(Clone)]
struct ForArk<'a>(&'a R1cs, &'a [Fr]);

impl ConstraintSynthesizer<Fr> for ForArk<'_> {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        let Self(system, z) = self;
        let mut variables = vec![Variable::One];
        for (at, value) in z.iter().enumerate().skip(1) {
            variables.push(if at < system.num_instance {
                cs.new_input_variable(|| Ok(*value))?
            } else {
                cs.new_witness_variable(|| Ok(*value))?
            });
        }
        let table = system.coefficients.values();
        let combination = |matrix: &SparseMatrix, row: usize| {
            let term =
                |(column, coefficient): (u32, u32)| (table[coefficient as usize], variables[column as usize]);
            LinearCombination::from_sum_coeff_vars(&matrix.row(row).map(term).collect::<Vec<_>>())
        };
        for row in 0..system.num_constraints() {
            cs.enforce_r1cs_constraint(
                || combination(&system.a, row),
                || combination(&system.b, row),
                || combination(&system.c, row),
            )?;
        }
        Ok(())
    }
}

fn groth16(c: &mut Criterion) {
    let most = log_max();
    beside_arkworks(c);
    if most >= 20 {
        ours_alone(c, "2^20", (1 << 20) - 2);
    }
    if most >= 23 {
        ours_alone(c, "wrap circuit's size", WRAP);
    }
}

/// A proof of a large circuit; its key is made once.
fn ours_alone(c: &mut Criterion, name: &str, constraints: usize) {
    let (system, z) = synthetic::circuit(constraints);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    setup(&system, [0; 32], &path, ToxicWaste::random().expect("randomness"), &silent).expect("set-up");
    let key = ProvingKey::open(&path, &[0; 32], Check::Quick).expect("a key");
    let [r, s] = [scalars(2)[0], scalars(2)[1]];
    let mut group = c.benchmark_group(format!("groth16/{name}"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("prove, ours", |b| {
        b.iter(|| prove_with(&key, &system, &z, r, s, &silent).expect("a proof"));
    });
    group.finish();
}

/// Set-up and proof of 2^16 constraints.
fn beside_arkworks(c: &mut Criterion) {
    let (system, z) = synthetic::circuit((1 << 16) - 2);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    let [alpha, beta, gamma, delta, tau, r, s] = [0, 1, 2, 3, 4, 5, 6].map(|at| scalars(7)[at]);
    let ours = || {
        let toxic = ToxicWaste::from_parts(alpha, beta, gamma, delta, tau);
        setup(&system, [0; 32], &path, toxic, &silent).expect("set-up")
    };
    let theirs = || {
        let (g1, g2) = (G1Affine::generator().into_group(), G2Affine::generator().into_group());
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let circuit = ForArk(&system, &z);
        Groth16::<Bn254>::generate_parameters_with_qap(circuit, alpha, beta, gamma, delta, g1, g2, &mut rng)
            .expect("set-up")
    };
    ours();
    let key = ProvingKey::open(&path, &[0; 32], Check::Quick).expect("a key");
    let theirs_key = theirs();

    let mut group = c.benchmark_group("groth16/2^16");
    group.sample_size(10);
    group.bench_function("set-up, ours", |b| b.iter(ours));
    group.bench_function("set-up, arkworks", |b| b.iter(theirs));
    group.bench_function("prove, ours", |b| {
        b.iter(|| prove_with(&key, &system, &z, r, s, &silent).expect("a proof"));
    });
    group.bench_function("prove, arkworks", |b| {
        b.iter(|| {
            Groth16::<Bn254>::create_proof_with_reduction(ForArk(&system, &z), &theirs_key, r, s)
                .expect("a proof")
        });
    });
    group.finish();
}

criterion_group!(benches, ntts, msms, groth16);
criterion_main!(benches);
