//! The kernels on this machine's GPU: `gpu check`, `gpu repeat N`, `gpu figures LOG_MIN LOG_MAX` or `gpu inputs LOG FILE`.
//! `bench/gpu.sh` calls all four.
//!
//! * `check`: every plan against the CPU at sizes around its blocks, and a proof; small, for compute-sanitizer.
//! * `repeat`: the same sums, transform and tree N times, bit-equal.
//! * `figures`: a Markdown table of times against arkworks in the same run, with energy where the driver tells the power.
//! * `inputs`: a sum in G1 with its time in a file, for a peer on the same GPU (`bench/peers/gpu`).
//!
//! Nothing falls back to the CPU here: an error ends the program with status 1.

mod energy;
mod peer;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ark_bn254::Fr;
use ark_ec::short_weierstrass::{Affine, Projective};
use ark_ec::{CurveGroup, PrimeGroup, VariableBaseMSM};
use ark_ff::{FftField, Field, UniformRand};
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use assay_kernels::backend::{Backend, Transform};
use assay_kernels::device::{
    building_bytes, encode, encode_points, layout_for, sum_bytes, table_bytes, Argument, Device, DeviceBases,
    DeviceDomain, DevicePoint, DeviceTree, Gpu, Launch, Layout, MsmPlan, SortedScalars,
};
use assay_kernels::groth16::{prove_with, setup, silent, synthetic, Check, ProvingKey, ToxicWaste};
use assay_kernels::merkle::{MerkleTree, Rows};
use assay_kernels::msm::{msm, G1Point, G2Point, Point};
use energy::Meter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["check"] => check(),
        ["repeat", times] => repeat(times.parse()?),
        ["figures", least, most] => figures(least.parse()?, most.parse()?),
        ["inputs", log, path] => peer::inputs(log.parse()?, path),
        _ => {
            Err("usage: gpu check | gpu repeat N | gpu figures LOG_MIN LOG_MAX | gpu inputs LOG FILE".into())
        }
    }
}

fn backend() -> Result<Arc<Backend>> {
    let backend = Arc::new(Backend::tried(Gpu::open()?)?.without_fallback());
    println!("device: {}", backend.describe());
    Ok(backend)
}

/// Uniform, or as a witness: an eighth zeros, a quarter ones, a quarter small, the rest uniform.
fn scalars(count: usize, witness: bool) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
    let scalar = |index: usize| match index % 8 {
        0 if witness => Fr::from(0u64),
        1 | 2 if witness => Fr::from(1u64),
        3 | 4 if witness => Fr::from(rng.gen::<u32>()),
        _ => Fr::rand(&mut rng),
    };
    (0..count).map(scalar).collect()
}

/// Multiples of the generator: different points, cheap to make.
fn points<P: Point>(count: usize) -> (Vec<P>, Vec<Affine<P::Curve>>) {
    let step = Projective::<P::Curve>::generator();
    let all: Vec<_> = std::iter::successors(Some(step), |point| Some(*point + step)).take(count).collect();
    let affine = Projective::normalize_batch(&all);
    (affine.iter().filter_map(P::from_affine).collect(), affine)
}

fn expect(equal: bool, what: &str) -> Result<()> {
    if !equal {
        return Err(format!("{what}: the GPU's result is not the CPU's").into());
    }
    println!("ok: {what}");
    Ok(())
}

struct Matrix(usize, Vec<u32>);

impl Rows for Matrix {
    fn height(&self) -> usize {
        self.1.len() / self.0
    }

    fn width(&self) -> usize {
        self.0
    }

    fn read(&self, index: usize, out: &mut [u32]) {
        out.copy_from_slice(&self.1[index * self.0..][..self.0]);
    }
}

impl Matrix {
    fn random(height: usize, width: usize) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        Self(width, (0..height * width).map(|_| rng.gen::<u32>() >> 1).collect())
    }

    fn bytes(&self) -> Vec<u8> {
        self.1.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

fn check() -> Result<()> {
    let backend = backend()?;
    let (g1, _) = points::<G1Point>(5000);
    let (g2, _) = points::<G2Point>(600);
    for count in [0, 1, 31, 255, 257, 5000] {
        for witness in [false, true] {
            let z = scalars(count, witness);
            let sum = backend.msm_g1(&g1[..count], &z)?;
            expect(sum == msm(&g1[..count], |at| z[at], &|_, _| ()), &format!("G1 sum of {count}"))?;
            let count = count.min(600);
            let sum = backend.msm_g2(&g2[..count], &z[..count])?;
            expect(sum == msm(&g2[..count], |at| z[at], &|_, _| ()), &format!("G2 sum of {count}"))?;
        }
    }
    let equal = [Fr::from(77u64); 3000];
    let sum = backend.msm_g1(&g1[..3000], &equal)?;
    expect(sum == msm(&g1[..3000], |at| equal[at], &|_, _| ()), "G1 sum with one hot bucket")?;
    for size in [1, 2, 1024, 2048, 1 << 13, 1 << 17, 3, 3 << 9, 3 << 12] {
        for transform in [Transform::Interpolate { shift: Fr::GENERATOR }, Transform::Evaluate] {
            let (mut here, mut there) = (scalars(size, false), scalars(size, false));
            backend.ntt(&mut there, transform)?;
            Backend::cpu().ntt(&mut here, transform)?;
            expect(here == there, &format!("transform of {size}"))?;
        }
    }
    let device = Gpu::open()?;
    check_sending(&device)?;
    for tables in [1, 2, 4, u32::MAX] {
        check_tables(&device, &g1[..1000], tables, "G1")?;
        check_tables(&device, &g2[..200], tables, "G2")?;
    }
    for (height, width) in [(1, 1), (129, 33), (513, 8), (5000, 17)] {
        let matrix = Matrix::random(height, width);
        let tree = DeviceTree::build(&device, &device.upload(&matrix.bytes())?, height, width)?;
        let cpu = MerkleTree::build(&matrix);
        expect(tree.level(&device, cpu.log_height())? == [cpu.root()], &format!("tree of {height} rows"))?;
    }
    for constraints in [100, 3000] {
        let (key, system, z) = proving_key(constraints)?;
        let [r, s] = [scalars(2, false)[0], scalars(2, false)[1]];
        let there = backend.prove_with(&key.1, &system, &z, r, s, &silent)?;
        expect(
            there == prove_with(&key.1, &system, &z, r, s, &silent)?,
            &format!("proof of {constraints} rows"),
        )?;
        let kept = backend.keep(&key.1)?;
        let again = kept.prove_with(&system, &z, r, s, &silent)?;
        expect(there == again, &format!("proof of {constraints} rows, tables {:?}", kept.tables()))?;
    }
    println!("all checks passed; {:?}", backend.counts());
    Ok(())
}

/// Sums over at most `tables` tables, made in pieces, against the CPU.
fn check_tables<P: DevicePoint>(device: &Gpu, points: &[P], tables: u32, group: &str) -> Result<()> {
    let count = points.len();
    let layout = layout_for(count, count as u32, tables);
    let bases = DeviceBases::<_, P>::load_in_pieces(device, &encode_points(points), layout, 333)?;
    for witness in [false, true] {
        let z = scalars(count, witness);
        let sorted = bases.sort(device, &device.upload(&encode(&z))?, 0..count)?;
        let what = format!("{group} sum of {count} over {} tables", layout.tables());
        expect(bases.sum(device, &sorted)? == msm(points, |at| z[at], &|_, _| ()), &what)?;
    }
    Ok(())
}

/// More than the pinned memory holds, while a kernel runs on what was sent before.
fn check_sending(device: &Gpu) -> Result<()> {
    let z = scalars(650_001, false);
    let (domain, bytes) = (DeviceDomain::new(device, 1 << 17)?, encode(&z));
    let first = device.send(&bytes)?;
    domain.evaluate(device, &first, None)?;
    let second = device.send(&bytes)?;
    domain.evaluate(device, &second, None)?;
    let there = [&first, &second].map(|buffer| device.download(buffer, 0..bytes.len()));
    let mut here = z;
    Backend::cpu().ntt(&mut here[..1 << 17], Transform::Evaluate)?;
    for there in there {
        expect(there? == encode(&here), "20 MB sent beside a kernel")?;
    }
    Ok(())
}

type Circuit = ((tempfile::TempDir, Arc<ProvingKey>), assay_kernels::r1cs::R1cs, Vec<Fr>);

fn proving_key(constraints: usize) -> Result<Circuit> {
    let (system, z) = synthetic::circuit(constraints);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("key");
    setup(&system, [0; 32], &path, ToxicWaste::random()?, &silent)?;
    let key = Arc::new(ProvingKey::open(&path, &[0; 32], Check::Quick)?);
    Ok(((folder, key), system, z))
}

/// The order of atomic additions changes from run to run; results must not.
fn repeat(times: usize) -> Result<()> {
    let backend = backend()?;
    let device = Gpu::open()?;
    let (g1, _) = points::<G1Point>(1 << 14);
    let (g2, _) = points::<G2Point>(1 << 10);
    let z = scalars(1 << 14, true);
    let matrix = Matrix::random(1 << 12, 17);
    let rows = device.upload(&matrix.bytes())?;
    let run = || -> Result<_> {
        let mut values = z.clone();
        backend.ntt(&mut values, Transform::Evaluate)?;
        let tree = DeviceTree::build(&device, &rows, 1 << 12, 17)?.level(&device, 12)?;
        let sums =
            (backend.msm_g1(&g1, &z)?.into_affine(), backend.msm_g2(&g2, &z[..1 << 10])?.into_affine());
        Ok((values, tree, sums))
    };
    let first = run()?;
    for round in 1..times {
        if run()? != first {
            return Err(format!("run {round} differs from run 0").into());
        }
    }
    println!("ok: {times} runs are bit-equal");
    Ok(())
}

/// The best of some runs: the GPU has nothing else to do.
fn best<T>(mut run: impl FnMut() -> Result<T>) -> Result<Duration> {
    run()?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        std::hint::black_box(run()?);
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// What one row says of an operation on the GPU.
struct Cost {
    time: Duration,
    joules: Option<f64>,
}

/// Times an operation, then repeats it for its energy.
fn cost<T>(meter: Option<&Meter>, mut run: impl FnMut() -> Result<T>) -> Result<Cost> {
    let time = best(&mut run)?;
    let joules = match meter {
        Some(meter) => meter.joules(|| run().map(|done| drop(std::hint::black_box(done))))?,
        None => None,
    };
    Ok(Cost { time, joules })
}

fn row(what: &str, ours: &Cost, theirs: Option<Duration>, bound: Option<f64>) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let seconds = ours.time.as_secs_f64();
    let peer = theirs.map_or("not measured".into(), |time| format!("{:.1}", milliseconds(time)));
    let ratio = theirs.map_or(String::new(), |time| format!("{:.1}", time.as_secs_f64() / seconds));
    let share = bound.map_or(String::new(), |bound| format!("{:.0} %", 100.0 * bound / seconds));
    let joules = ours.joules.map_or("not told".into(), |joules| format!("{joules:.3}"));
    println!("| {what} | {:.3} | {peer} | {ratio} | {share} | {joules} |", milliseconds(ours.time));
}

/// Largest size at which arkworks is timed too: beyond, its minutes would be the run's.
const PEER_LOG: u32 = 20;

fn figures(least: u32, most: u32) -> Result<()> {
    let backend = backend()?;
    let device = Gpu::open()?;
    let meter = Meter::start();
    let meter = meter.as_ref();
    let (integers, products) =
        (rate(&device, "bench_integer_kernel", 8)?, rate(&device, "bench_product_kernel", 2)?);
    println!(
        "32-bit multiply-adds: {:.1} G/s; Montgomery products: {:.2} G/s\n",
        integers / 1e9,
        products / 1e9
    );
    println!(
        "| operation | GPU, ms | arkworks, this machine's CPU, ms | ratio | of the product rate | GPU, J |"
    );
    println!("|---|---|---|---|---|---|");
    for log in least..=most {
        for witness in [false, true] {
            msm_row::<G1Point>(&device, meter, log, witness, products, "G1", 10.0)?;
        }
        if log <= most.saturating_sub(2) {
            msm_row::<G2Point>(&device, meter, log, false, products, "G2", 28.0)?;
        }
        ntt_row(&device, meter, log, products)?;
    }
    for log in [16, 20].into_iter().filter(|log| *log <= most) {
        let ((_folder, key), system, z) = proving_key((1 << log) - 2)?;
        let [r, s] = [scalars(2, false)[0], scalars(2, false)[1]];
        let there = cost(meter, || Ok(backend.prove_with(&key, &system, &z, r, s, &silent)?))?;
        let start = Instant::now();
        prove_with(&key, &system, &z, r, s, &silent)?;
        row(
            &format!("Groth16 2^{log} from host memory (peer: our CPU path)"),
            &there,
            Some(start.elapsed()),
            None,
        );
        let kept = backend.keep(&key)?;
        let there = cost(meter, || Ok(kept.prove_with(&system, &z, r, s, &silent)?))?;
        let tables = kept.tables().map_or("nothing".into(), |tables| format!("{tables:?} tables"));
        row(&format!("Groth16 2^{log}, {tables} of H, L, A, B kept"), &there, None, None);
    }
    println!("\n{:?}", backend.counts());
    Ok(())
}

/// Operations a second with every multiprocessor busy.
fn rate(device: &Gpu, kernel: &'static str, per_round: u32) -> Result<f64> {
    const THREADS: u32 = 1 << 20;
    const ROUNDS: u32 = 1 << 10;
    let values = device.upload(&encode(&scalars(THREADS as usize, false)))?;
    let time = best(|| {
        let launch = Launch { kernel, grid: THREADS / 256, block: 256, shared: 0 };
        device.launch(launch, &[Argument::Buffer(&values), Argument::Number(ROUNDS)])?;
        device.download(&values, 0..4)?;
        Ok(())
    })?;
    Ok(f64::from(THREADS) * f64::from(ROUNDS) * f64::from(per_round) / time.as_secs_f64())
}

/// Scalars and points on the device; `products` a second bound it by the additions into buckets, `per_addition` each.
fn msm_row<P: DevicePoint>(
    device: &Gpu,
    meter: Option<&Meter>,
    log: u32,
    witness: bool,
    products: f64,
    group: &str,
    per_addition: f64,
) -> Result<()> {
    let (stored, affine) = points::<P>(1 << log);
    let z = scalars(1 << log, witness);
    let (bases, numbers) = (device.upload(&encode_points(&stored))?, device.upload(&encode(&z))?);
    let ours = cost(meter, || {
        let sorted = SortedScalars::new(device, &numbers, z.len(), MsmPlan::default())?;
        Ok(sorted.sum::<_, P>(device, &bases)?)
    })?;
    let peer = (log <= PEER_LOG).then(|| {
        let start = Instant::now();
        let _ = std::hint::black_box(Projective::<P::Curve>::msm_unchecked(&affine, &z));
        start.elapsed()
    });
    // Windows of about log + 1 bits less 4: 254 / (log - 3) additions a point at the least.
    let bound = f64::from(1u32 << log) * 254.0 / f64::from(log - 3) * per_addition / products;
    let kind = if witness { "witness-like" } else { "uniform" };
    row(&format!("MSM {group} 2^{log} {kind}"), &ours, peer, (!witness).then_some(bound));
    drop(bases);
    let encoded = encode_points(&stored);
    let large = if witness { z.len() as u32 * 3 / 8 } else { z.len() as u32 };
    let mut before = None;
    for tables in [1, 2, 4, u32::MAX] {
        let layout = layout_for(z.len(), large, tables);
        if before.replace(layout) != Some(layout) {
            let what = format!("MSM {group} 2^{log} {kind}");
            table_rows::<P>(device, meter, (&encoded, &numbers, z.len()), layout, &what)?;
        }
    }
    Ok(())
}

/// A sum over tables, and what it costs to make them.
fn table_rows<P: DevicePoint>(
    device: &Gpu,
    meter: Option<&Meter>,
    (points, scalars, count): (&[u8], &<Gpu as Device>::Buffer, usize),
    layout: Layout,
    what: &str,
) -> Result<()> {
    let (kept, free) = (table_bytes::<P>(count, layout), device.memory_free()?);
    let scratch =
        building_bytes::<P>(count, layout).max(sum_bytes::<P>(count, layout, MsmPlan::default().task));
    let what = format!("{what}, {} tables ({} MiB)", layout.tables(), kept >> 20);
    if kept + scratch > free - free / 16 {
        println!("| {what} | does not fit | | | | |");
        return Ok(());
    }
    let start = Instant::now();
    let bases = DeviceBases::<_, P>::load(device, points, layout)?;
    device.memory_free()?; // waits for the kernels
    let loading = Cost { time: start.elapsed(), joules: None };
    let ours = cost(meter, || {
        let sorted = bases.sort(device, scalars, 0..count)?;
        Ok(bases.sum(device, &sorted)?)
    })?;
    row(&what, &ours, None, None);
    row(&format!("{what}: upload and tables, once"), &loading, None, None);
    Ok(())
}

fn ntt_row(device: &Gpu, meter: Option<&Meter>, log: u32, products: f64) -> Result<()> {
    let values = scalars(1 << log, false);
    let domain = DeviceDomain::new(device, 1 << log)?;
    let scale = domain.scale(device, Fr::from(1u64 << log).inverse().ok_or("a size")?, Fr::from(1u64))?;
    let buffer = device.upload(&encode(&values))?;
    let ours = cost(meter, || {
        domain.interpolate(device, &buffer, Some(&scale))?;
        device.download(&buffer, 0..32)?;
        Ok(())
    })?;
    let peer = (log <= PEER_LOG).then(|| {
        let theirs = Radix2EvaluationDomain::<Fr>::new(1 << log).map(|domain| {
            let mut values = values.clone();
            let start = Instant::now();
            domain.ifft_in_place(&mut values);
            start.elapsed()
        });
        theirs.unwrap_or_default()
    });
    let bound = f64::from(1u32 << log) * f64::from(log) / 2.0 / products;
    row(&format!("NTT 2^{log}"), &ours, peer, Some(bound));
    Ok(())
}
