//! Multi-scalar multiplication over BN254's groups, on points as they lie in a memory-mapped key.

mod point;

pub use point::{G1Point, G2Point, Point};

use ark_bn254::Fr;
use ark_ec::short_weierstrass::Projective;
use ark_ec::VariableBaseMSM;
use ark_ff::Zero;
use rayon::prelude::*;

/// Points decoded at a time.
const BLOCK: usize = 1 << 20;

/// `sum_i scalar(i) * points[i]`.
///
/// `progress` gets (points done, points in all).
pub fn msm<P: Point>(
    points: &[P],
    scalar: impl Fn(usize) -> Fr + Sync,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Projective<P::Curve> {
    let mut sum = Projective::<P::Curve>::zero();
    for (block, chunk) in points.chunks(BLOCK).enumerate() {
        let affine: Vec<_> = chunk.par_iter().map(Point::affine).collect();
        let start = block * BLOCK;
        let scalars: Vec<Fr> = (0..chunk.len()).into_par_iter().map(|index| scalar(start + index)).collect();
        sum += Projective::<P::Curve>::msm_unchecked(&affine, &scalars);
        progress((start + chunk.len()) as u64, points.len() as u64);
    }
    sum
}
