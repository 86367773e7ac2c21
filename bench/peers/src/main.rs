//! The kernels next to other implementations of BN254, in one process and turn by turn: `peers g1|ntt LOG_SIZE[,LOG_SIZE..] [rounds]`.
//!
//! | peer | what of it |
//! |---|---|
//! | arkworks 0.6 | `VariableBaseMSM`, `Radix2EvaluationDomain` |
//! | halo2curves 0.10 | `msm_best`, `best_fft` |
//! | sppark 0.1.16 | the CPU's `mult_pippenger` on blst's assembly (it has no NTT for the CPU) |
//!
//! Prints medians in milliseconds and their ratio to ours; every result is compared with ours first. Scalars are dense and random;
//! points are multiples of the generator. `ASSAY_CPU_ARCH=portable` takes our path without vector instructions.

mod halo2;
mod sppark;

use std::error::Error;
use std::time::Instant;

use ark_bn254::{Fr, G1Affine, G1Projective};
use ark_ec::{CurveGroup, PrimeGroup, VariableBaseMSM};
use ark_ff::UniformRand;
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use assay_kernels::field::arch_name;
use assay_kernels::msm::{msm, G1Point, Point};
use assay_kernels::ntt::Domain;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What one implementation did in one round.
struct Turn<T> {
    name: &'static str,
    milliseconds: f64,
    result: T,
}

/// Times `run` on its own copy of the input; `read` turns what it left into what is compared.
fn turn<I, O, T>(
    name: &'static str,
    input: I,
    run: impl FnOnce(I) -> Result<O>,
    read: impl FnOnce(O) -> Result<T>,
) -> Result<Turn<T>> {
    let start = Instant::now();
    let left = run(input)?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    Ok(Turn { name, milliseconds, result: read(left)? })
}

/// Runs rounds of turns, and prints each contender's median and its ratio to the first one's.
fn compare<T: PartialEq>(what: &str, rounds: usize, round: impl Fn() -> Result<Vec<Turn<T>>>) -> Result<()> {
    let mut times: Vec<(&'static str, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let turns = round()?;
        for (at, turn) in turns.iter().enumerate() {
            if turn.result != turns[0].result {
                return Err(
                    format!("{what}: the result of {} is not that of {}", turn.name, turns[0].name).into()
                );
            }
            match times.get_mut(at) {
                Some((_, times)) => times.push(turn.milliseconds),
                None => times.push((turn.name, vec![turn.milliseconds])),
            }
        }
    }
    let medians: Vec<(&str, f64)> = times.into_iter().map(|(name, times)| (name, median(times))).collect();
    let ours = medians.first().map_or(f64::NAN, |(_, median)| *median);
    for (name, median) in medians {
        println!("{what}: {name} {median:.2} ms, ratio {:.2}", median / ours);
    }
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (what, sizes, rounds) = match &arguments[..] {
        [what, sizes] => (what, sizes, 5),
        [what, sizes, rounds] => (what, sizes, rounds.parse()?),
        _ => return Err("usage: peers g1|ntt LOG_SIZE[,LOG_SIZE..] [rounds]".into()),
    };
    println!("{} threads, {}", rayon::current_num_threads(), arch_name());
    for size in sizes.split(',') {
        match what.as_str() {
            "g1" => sums(size.parse()?, rounds)?,
            "ntt" => transforms(size.parse()?, rounds)?,
            other => return Err(format!("{other} is neither g1 nor ntt").into()),
        }
    }
    Ok(())
}

fn random(count: usize) -> Vec<Fr> {
    let mut rng = ark_std::test_rng();
    (0..count).map(|_| Fr::rand(&mut rng)).collect()
}

fn sums(log: u32, rounds: usize) -> Result<()> {
    let scalars = random(1 << log);
    let generator = G1Projective::generator();
    let all: Vec<_> =
        std::iter::successors(Some(generator), |point| Some(*point + generator)).take(1 << log).collect();
    let points: Vec<G1Affine> = G1Projective::normalize_batch(&all);
    drop(all);
    let ours: Vec<G1Point> = points.iter().filter_map(G1Point::from_affine).collect();
    let halo2 = halo2::Sum::new(&points, &scalars)?;
    let sppark = sppark::Points::new(&points);
    compare(&format!("MSM G1 2^{log}"), rounds, || {
        Ok(vec![
            turn("ours", (), |()| Ok(msm(&ours, |at| scalars[at], &|_, _| ())), Ok)?,
            turn("arkworks", (), |()| Ok(G1Projective::msm_unchecked(&points, &scalars)), Ok)?,
            turn("halo2curves", (), |()| Ok(halo2.run()), halo2::point)?,
            turn("sppark", (), |()| Ok(sppark.sum(&scalars)), Ok)?,
        ])
    })
}

/// From coefficients to values in natural order: ours from permuted coefficients, arkworks and halo2curves from natural ones.
fn transforms(log: u32, rounds: usize) -> Result<()> {
    let size = 1usize << log;
    let natural = random(size);
    let domain = Domain::new(size)?;
    let permuted: Vec<Fr> = (0..size).map(|position| natural[domain.index_of(position)]).collect();
    let theirs = Radix2EvaluationDomain::<Fr>::new(size).ok_or("no such domain")?;
    let halo2 = halo2::Transform::new(&natural, domain.generator());
    let ours = |mut values: Vec<Fr>| {
        domain.evaluate_permuted(&mut values);
        Ok(values)
    };
    let arkworks = |mut values: Vec<Fr>| {
        theirs.fft_in_place(&mut values);
        Ok(values)
    };
    compare(&format!("NTT 2^{log}"), rounds, || {
        Ok(vec![
            turn("ours", permuted.clone(), ours, Ok)?,
            turn("arkworks", natural.clone(), arkworks, Ok)?,
            turn("halo2curves", halo2.input(), |values| Ok(halo2.run(values)), halo2::scalars)?,
        ])
    })
}
