//! The kernels next to other implementations of BN254 on the CPU, in one process and turn by turn: `peers G1 G2 NTT ROUNDS`.
//!
//! `G1`, `G2`, `NTT`: sizes as logarithms, `16,18,20`, or `-` for none. `bench/peers.sh` builds this and calls it.
//!
//! | peer | what of it |
//! |---|---|
//! | arkworks 0.6 | `VariableBaseMSM`, `Radix2EvaluationDomain` |
//! | halo2curves 0.10 | `msm_best`, `best_fft` |
//! | sppark 0.1.16 | `mult_pippenger` on blst's assembly (it has no transform for the CPU) |
//!
//! Prints Markdown: medians in milliseconds, of the wall's clock and of the processor over all threads. First all contenders have to
//! agree on a small input of each kind, then on every timed one. All use as many threads as rayon (`RAYON_NUM_THREADS`). Points are
//! multiples of the generator. `ASSAY_CPU_ARCH=portable` takes our path without vector instructions.

mod halo2;
mod measure;
mod sppark;

use ark_bn254::Fr;
use ark_ec::short_weierstrass::{Affine, Projective};
use ark_ec::{CurveGroup, PrimeGroup, VariableBaseMSM};
use ark_ff::UniformRand;
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use assay_kernels::field::arch_name;
use assay_kernels::msm::{msm, G1Point, G2Point, Point};
use assay_kernels::ntt::Domain;
use measure::{compare, head, turn, Row, Turn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use std::error::Error;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SUMS: [&str; 4] = ["ours", "arkworks 0.6", "halo2curves 0.10", "sppark 0.1.16"];
const TRANSFORMS: [&str; 4] =
    ["ours, natural order", "ours, permuted coefficients", "arkworks 0.6", "halo2curves 0.10"];
/// Size of the inputs that all have to agree on before anything is timed.
const CHECK_LOG: u32 = 11;
/// From this size on, half as many rounds.
const LARGE_LOG: u32 = 20;

/// How scalars are distributed.
#[derive(Clone, Copy)]
enum Kind {
    Uniform,
    /// As a witness, and as in `kernels/examples/gpu`: an eighth zeros, a quarter ones, a quarter of 32 bits, the rest uniform.
    Witness,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Uniform, Self::Witness];

    fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Witness => "witness-like",
        }
    }

    fn scalars(self, count: usize) -> Vec<Fr> {
        let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
        let scalar = |index: usize| match (self, index % 8) {
            (Self::Witness, 0) => Fr::from(0u64),
            (Self::Witness, 1 | 2) => Fr::from(1u64),
            (Self::Witness, 3 | 4) => Fr::from(rng.gen::<u32>()),
            _ => Fr::rand(&mut rng),
        };
        (0..count).map(scalar).collect()
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [g1, g2, ntt, rounds] = &arguments[..] else {
        return Err("usage: peers G1 G2 NTT ROUNDS, the first three as 16,18,20 or -".into());
    };
    let (g1, g2, ntt, rounds) = (sizes(g1)?, sizes(g2)?, sizes(ntt)?, rounds.parse()?);
    sums::<G1Point>("G1", &[CHECK_LOG], 1, |_| ())?;
    sums::<G2Point>("G2", &[CHECK_LOG], 1, |_| ())?;
    transforms(&[CHECK_LOG], 1, |_| ())?;

    println!(
        "{} threads; ours with {}. Medians; milliseconds by the wall's clock / of processor time, all threads together; ratios \
         to the first likewise. Every result was compared.\n",
        rayon::current_num_threads(),
        arch_name()
    );
    println!("{}", head(&SUMS));
    sums::<G1Point>("G1", &g1, rounds, |row| println!("{row}"))?;
    sums::<G2Point>("G2", &g2, rounds, |row| println!("{row}"))?;
    println!("\n{}", head(&TRANSFORMS));
    transforms(&ntt, rounds, |row| println!("{row}"))
}

fn sizes(text: &str) -> Result<Vec<u32>> {
    if text == "-" {
        return Ok(Vec::new());
    }
    let size = |text: &str| match text.parse() {
        Ok(log @ 10..=26) => Ok(log),
        _ => Err(format!("sizes are 10 to 26, not {text}").into()),
    };
    text.split(',').map(size).collect()
}

fn rounds_at(log: u32, rounds: usize) -> usize {
    if log < LARGE_LOG {
        rounds
    } else {
        rounds.div_ceil(2)
    }
}

/// Rows of sums, each with every kind of scalars.
fn sums<P: halo2::Group + sppark::Group>(
    group: &str,
    logs: &[u32],
    rounds: usize,
    show: impl Fn(Row),
) -> Result<()> {
    let generator = Projective::<P::Curve>::generator();
    for log in logs {
        let all: Vec<_> =
            std::iter::successors(Some(generator), |point| Some(*point + generator)).take(1 << log).collect();
        let affine = Projective::normalize_batch(&all);
        drop(all);
        let points: Vec<P> = affine.iter().filter_map(P::from_affine).collect();
        for kind in Kind::ALL {
            let what = format!("MSM {group} 2^{log} {}", kind.name());
            show(sum(what, &points, &affine, &kind.scalars(1 << log), rounds_at(*log, rounds))?);
        }
    }
    Ok(())
}

/// `points` and `affine` are the same.
fn sum<P: halo2::Group + sppark::Group>(
    what: String,
    points: &[P],
    affine: &[Affine<P::Curve>],
    scalars: &[Fr],
    rounds: usize,
) -> Result<Row> {
    let halo2 = halo2::Sum::new(points, scalars);
    let sppark = sppark::Sum::new(points, scalars);
    compare(what, &SUMS, rounds, || {
        vec![
            turn(|| msm(points, |at| scalars[at], &|_, _| ()), |sum| sum.into_affine()),
            turn(|| Projective::<P::Curve>::msm_unchecked(affine, scalars), |sum| sum.into_affine()),
            turn(|| halo2.run(), |sum| halo2::point::<P>(&sum).affine_or_infinity()),
            turn(|| sppark.run::<P>(), |sum| sum.affine_or_infinity()),
        ]
    })
}

/// Rows of transforms from coefficients to values in natural order.
fn transforms(logs: &[u32], rounds: usize, show: impl Fn(Row)) -> Result<()> {
    for log in logs {
        let size = 1usize << log;
        let natural = Kind::Uniform.scalars(size);
        let domain = Domain::new(size)?;
        let permuted: Vec<Fr> = (0..size).map(|position| natural[domain.index_of(position)]).collect();
        let arkworks = Radix2EvaluationDomain::<Fr>::new(size).ok_or("no such domain")?;
        let halo2 = halo2::Transform::new(&natural, domain.generator());
        show(compare(format!("NTT 2^{log}"), &TRANSFORMS, rounds_at(*log, rounds), || {
            vec![
                transform(natural.clone(), |values| domain.fft(values), |values| values),
                transform(permuted.clone(), |values| domain.evaluate_permuted(values), |values| values),
                transform(natural.clone(), |values| arkworks.fft_in_place(values), |values| values),
                transform(halo2.values.clone(), |values| halo2.run(values), |values| halo2::scalars(&values)),
            ]
        })?);
    }
    Ok(())
}

/// A turn in place, on a copy that was made before the clock runs.
fn transform<V>(
    mut values: Vec<V>,
    run: impl FnOnce(&mut Vec<V>),
    read: impl FnOnce(Vec<V>) -> Vec<Fr>,
) -> Turn<Vec<Fr>> {
    let run = || {
        run(&mut values);
        values
    };
    turn(run, read)
}
