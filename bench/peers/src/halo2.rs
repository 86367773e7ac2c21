//! halo2curves, whose elements are made from canonical integers.

use ark_bn254::{Fq, Fr, G1Affine, G1Projective};
use ark_ec::AffineRepr;
use ark_ff::PrimeField;
use halo2curves::bn256;
use halo2curves::ff::PrimeField as _;
use halo2curves::fft::best_fft;
use halo2curves::group::Curve;
use halo2curves::msm::msm_best;

use crate::Result;

/// The inputs of one sum.
pub(crate) struct Sum {
    scalars: Vec<bn256::Fr>,
    points: Vec<bn256::G1Affine>,
}

impl Sum {
    pub(crate) fn new(points: &[G1Affine], scalars: &[Fr]) -> Result<Self> {
        let point = |point: &G1Affine| {
            let (x, y) = point.xy().ok_or("a point at infinity")?;
            let [x, y] = [x, y].map(|coordinate| bn256::Fq::from_raw(coordinate.into_bigint().0));
            Ok(bn256::G1Affine { x, y })
        };
        let points = points.iter().map(point).collect::<Result<_>>()?;
        Ok(Self { scalars: scalars.iter().map(theirs).collect(), points })
    }

    pub(crate) fn run(&self) -> bn256::G1 {
        msm_best(&self.scalars, &self.points)
    }
}

/// Their point as arkworks'.
pub(crate) fn point(point: bn256::G1) -> Result<G1Projective> {
    let point = point.to_affine();
    let [x, y] =
        [point.x, point.y].map(|coordinate| Fq::from_le_bytes_mod_order(coordinate.to_repr().as_ref()));
    let point = G1Affine::new_unchecked(x, y);
    if !point.is_on_curve() {
        return Err("halo2curves gave no point of the curve".into());
    }
    Ok(point.into())
}

/// One transform with our root.
pub(crate) struct Transform {
    values: Vec<bn256::Fr>,
    root: bn256::Fr,
}

impl Transform {
    pub(crate) fn new(values: &[Fr], root: Fr) -> Self {
        Self { values: values.iter().map(theirs).collect(), root: theirs(&root) }
    }

    pub(crate) fn input(&self) -> Vec<bn256::Fr> {
        self.values.clone()
    }

    pub(crate) fn run(&self, mut values: Vec<bn256::Fr>) -> Vec<bn256::Fr> {
        let log = values.len().trailing_zeros();
        best_fft(&mut values, self.root, log);
        values
    }
}

/// Their scalars as arkworks'.
pub(crate) fn scalars(values: Vec<bn256::Fr>) -> Result<Vec<Fr>> {
    Ok(values.iter().map(|value| Fr::from_le_bytes_mod_order(value.to_repr().as_ref())).collect())
}

fn theirs(scalar: &Fr) -> bn256::Fr {
    bn256::Fr::from_raw(scalar.into_bigint().0)
}
