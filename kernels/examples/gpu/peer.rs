//! Inputs for a peer on the same GPU, with our result and our time: `bench/peers/gpu` reads them.

use std::fs::File;
use std::io::{BufWriter, Write};

use super::{best, encode, encode_points, points, scalars, Result};
use ark_ec::CurveGroup;
use assay_kernels::device::{Device, Gpu, MsmPlan, SortedScalars};
use assay_kernels::msm::{G1Point, Point};

/// Sums `2^log` points in G1 over uniform scalars, and writes to `path` what was summed, the time and the sum.
///
/// Little-endian: number of points (`u64`), milliseconds (`f64`), points (x, y: 32 bytes each, Montgomery form), scalars (32 bytes,
/// Montgomery form), the sum (x, y).
pub(crate) fn inputs(log: u32, path: &str) -> Result<()> {
    let device = Gpu::open()?;
    let (stored, _) = points::<G1Point>(1 << log);
    let z = scalars(1 << log, false);
    let (points, numbers) = (encode_points(&stored), encode(&z));
    let (bases, there) = (device.upload(&points)?, device.upload(&numbers)?);
    let sum = || -> Result<_> {
        let sorted = SortedScalars::new(&device, &there, z.len(), MsmPlan::default())?;
        Ok(sorted.sum::<_, G1Point>(&device, &bases)?)
    };
    let time = best(sum)?;
    let sum = G1Point::from_affine(&sum()?.into_affine()).ok_or("a sum at infinity")?;
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(1u64 << log).to_le_bytes())?;
    file.write_all(&(time.as_secs_f64() * 1e3).to_le_bytes())?;
    for part in [&points, &numbers, &encode_points(&[sum])] {
        file.write_all(part)?;
    }
    Ok(file.flush()?)
}
