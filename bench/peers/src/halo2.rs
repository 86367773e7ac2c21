//! halo2curves, whose elements are made from canonical integers.

use ark_bn254::{Fq, Fr};
use ark_ff::{BigInt, PrimeField};
use assay_kernels::msm::{G1Point, G2Point, Point};
use halo2curves::bn256;
use halo2curves::ff::PrimeField as _;
use halo2curves::fft::best_fft;
use halo2curves::group::Curve;
use halo2curves::msm::msm_best;
use halo2curves::CurveAffine;

/// A group of ours and halo2curves' of the same points.
pub(crate) trait Group: Point {
    type Theirs: CurveAffine<ScalarExt = bn256::Fr>;

    fn theirs(&self) -> Self::Theirs;

    /// Ours; [`Point::INFINITY`] for infinity, whose coordinates are zero there too.
    fn ours(theirs: Self::Theirs) -> Self;
}

impl Group for G1Point {
    type Theirs = bn256::G1Affine;

    fn theirs(&self) -> Self::Theirs {
        bn256::G1Affine { x: coordinate(&self.x), y: coordinate(&self.y) }
    }

    fn ours(theirs: Self::Theirs) -> Self {
        Self { x: words(theirs.x), y: words(theirs.y) }
    }
}

impl Group for G2Point {
    type Theirs = bn256::G2Affine;

    fn theirs(&self) -> Self::Theirs {
        let [x, y] = [self.x, self.y].map(|[c0, c1]| bn256::Fq2::new(coordinate(&c0), coordinate(&c1)));
        bn256::G2Affine { x, y }
    }

    fn ours(theirs: Self::Theirs) -> Self {
        let [x, y] = [theirs.x, theirs.y].map(|pair| [words(*pair.c0()), words(*pair.c1())]);
        Self { x, y }
    }
}

fn coordinate(words: &[u64; 4]) -> bn256::Fq {
    bn256::Fq::from_raw(Fq::new_unchecked(BigInt::new(*words)).into_bigint().0)
}

fn words(theirs: bn256::Fq) -> [u64; 4] {
    Fq::from_le_bytes_mod_order(theirs.to_repr().as_ref()).0 .0
}

fn scalar(ours: &Fr) -> bn256::Fr {
    bn256::Fr::from_raw(ours.into_bigint().0)
}

/// The inputs of one sum.
pub(crate) struct Sum<P: Group> {
    scalars: Vec<bn256::Fr>,
    points: Vec<P::Theirs>,
}

impl<P: Group> Sum<P> {
    pub(crate) fn new(points: &[P], scalars: &[Fr]) -> Self {
        Self {
            scalars: scalars.iter().map(scalar).collect(),
            points: points.iter().map(Group::theirs).collect(),
        }
    }

    pub(crate) fn run(&self) -> <P::Theirs as CurveAffine>::CurveExt {
        msm_best(&self.scalars, &self.points)
    }
}

/// What [`Sum::run`] found, as a point of ours.
pub(crate) fn point<P: Group>(theirs: &<P::Theirs as CurveAffine>::CurveExt) -> P {
    P::ours(theirs.to_affine())
}

/// One transform with our root.
pub(crate) struct Transform {
    pub(crate) values: Vec<bn256::Fr>,
    root: bn256::Fr,
}

impl Transform {
    pub(crate) fn new(values: &[Fr], root: Fr) -> Self {
        Self { values: values.iter().map(scalar).collect(), root: scalar(&root) }
    }

    /// From coefficients to values, both in natural order.
    pub(crate) fn run(&self, values: &mut [bn256::Fr]) {
        best_fft(values, self.root, values.len().trailing_zeros());
    }
}

/// Their scalars as arkworks'.
pub(crate) fn scalars(values: &[bn256::Fr]) -> Vec<Fr> {
    values.iter().map(|value| Fr::from_le_bytes_mod_order(value.to_repr().as_ref())).collect()
}
