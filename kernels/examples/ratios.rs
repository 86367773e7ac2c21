//! Transforms and MSMs next to arkworks' in one process, turn by turn: `ratios ntt|g1|g2 LOG_SIZE[,LOG_SIZE..] [rounds]`.
//!
//! Prints medians in milliseconds and their ratio. Turns alternate, so that a busy machine slows both alike. Scalars are dense
//! and random; `ASSAY_CPU_ARCH=portable` measures the path without vector instructions.

use ark_bn254::Fr;
use ark_ec::short_weierstrass::{Affine, Projective};
use ark_ec::{AffineRepr, CurveGroup, PrimeGroup, VariableBaseMSM};
use ark_ff::UniformRand;
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use assay_kernels::field::arch_name;
use assay_kernels::msm::{msm, G1Point, G2Point, Point};
use assay_kernels::ntt::Domain;
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(sizes)) = (arguments.next(), arguments.next()) else {
        return Err("usage: ratios ntt|g1|g2 LOG_SIZE[,LOG_SIZE..] [rounds]".into());
    };
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    println!("{} threads, {}", rayon::current_num_threads(), arch_name());
    for size in sizes.split(',') {
        let log = size.parse()?;
        match what.as_str() {
            "ntt" => transforms(log, rounds)?,
            "g1" => sums::<G1Point>("MSM G1", log, rounds)?,
            "g2" => sums::<G2Point>("MSM G2", log, rounds)?,
            other => return Err(format!("{other} is not ntt, g1 or g2").into()),
        }
    }
    Ok(())
}

/// Natural order in, permuted out, against arkworks' natural order on both sides; and back.
fn transforms(log: u32, rounds: usize) -> Result<(), Box<dyn Error>> {
    let mut rng = ark_std::test_rng();
    let input: Vec<Fr> = (0..1usize << log).map(|_| Fr::rand(&mut rng)).collect();
    let ours = Domain::new(1 << log)?;
    let theirs = Radix2EvaluationDomain::<Fr>::new(1 << log).ok_or("no such domain")?;
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let (mut here, mut there) = (input.clone(), input.clone());
        times[0].push(milliseconds(|| ours.interpolate_unscaled(&mut here)));
        times[1].push(milliseconds(|| theirs.ifft_in_place(&mut there)));
        times[2].push(milliseconds(|| ours.evaluate_permuted(&mut here)));
        times[3].push(milliseconds(|| theirs.fft_in_place(&mut there)));
    }
    let [inverse, inverse_theirs, forward, forward_theirs] = times.map(median);
    report("NTT inverse", log, inverse, inverse_theirs);
    report("NTT forward", log, forward, forward_theirs);
    Ok(())
}

/// Multiples of the generator, each once.
fn sums<P: Point>(name: &str, log: u32, rounds: usize) -> Result<(), Box<dyn Error>> {
    let mut rng = ark_std::test_rng();
    let scalars: Vec<Fr> = (0..1usize << log).map(|_| Fr::rand(&mut rng)).collect();
    let generator = Projective::<P::Curve>::generator();
    let all: Vec<_> =
        std::iter::successors(Some(generator), |point| Some(*point + generator)).take(1 << log).collect();
    let theirs: Vec<Affine<P::Curve>> = Projective::normalize_batch(&all);
    drop(all);
    let ours: Vec<P> = theirs.iter().filter_map(P::from_affine).collect();
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..rounds {
        let (mut here, mut there) = (Affine::zero().into_group(), Affine::zero().into_group());
        times[0].push(milliseconds(|| here = msm(&ours, |at| scalars[at], &|_, _| ())));
        times[1].push(milliseconds(|| there = Projective::<P::Curve>::msm_unchecked(&theirs, &scalars)));
        if here != there {
            return Err("the sums differ".into());
        }
    }
    let [here, there] = times.map(median);
    report(name, log, here, there);
    Ok(())
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(name: &str, log: u32, ours: f64, theirs: f64) {
    println!("{name} 2^{log}: ours {ours:.2} ms, arkworks {theirs:.2} ms, ratio {:.2}", theirs / ours);
}
