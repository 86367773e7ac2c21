//! The streaming development set-up.
//!
//! Peak memory is about `32 * (points of the domain + 3 * variables)` bytes on top of the circuit: the Lagrange values and one
//! field element per variable and matrix. Points are made and written in blocks.

use super::fixed_base::{FixedBase, BLOCK};
use super::key::{Elements, Header, KeyWriter, Section, Shape};
use super::{Groth16Error, Origin, Progress, INSECURE_TEXT};
use crate::msm::{G1Point, G2Point, Point};
use crate::ntt::Domain;
use crate::r1cs::{R1cs, SparseMatrix};
use crate::secret::Secret;
use ark_bn254::{Bn254, Fr, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ff::{FftField, Field, One, Zero};
use ark_groth16::VerifyingKey;
use ark_serialize::CanonicalSerialize;
use rand::rngs::OsRng;
use rand::RngCore;
use rayon::prelude::*;
use std::path::Path;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Scalars whose points are made before they are written: 2^17 points are 8 or 16 MiB.
const WRITE_BLOCK: usize = 64 * BLOCK;

/// The secret exponents of a set-up. Whoever knows them can forge proofs.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ToxicWaste {
    alpha: Fr,
    beta: Fr,
    gamma: Fr,
    delta: Fr,
    tau: Fr,
}

impl std::fmt::Debug for ToxicWaste {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToxicWaste(secret)")
    }
}

impl ToxicWaste {
    /// Exponents from the operating system's generator.
    ///
    /// # Errors
    /// [`Groth16Error::Randomness`].
    pub fn random() -> Result<Self, Groth16Error> {
        Ok(Self {
            alpha: *random_scalar()?,
            beta: *random_scalar()?,
            gamma: *random_scalar()?,
            delta: *random_scalar()?,
            tau: *random_scalar()?,
        })
    }

    /// Given exponents, for comparisons with another implementation.
    pub fn from_parts(alpha: Fr, beta: Fr, gamma: Fr, delta: Fr, tau: Fr) -> Self {
        Self { alpha, beta, gamma, delta, tau }
    }
}

/// A scalar from 512 bits of the operating system's generator (bias below 2^-250).
pub(crate) fn random_scalar() -> Result<Zeroizing<Fr>, Groth16Error> {
    let mut bytes = Zeroizing::new([0; 64]);
    OsRng.try_fill_bytes(&mut *bytes).map_err(|error| Groth16Error::Randomness(error.to_string()))?;
    Ok(reduced(&bytes))
}

/// A little-endian number modulo the order. arkworks' `from_le_bytes_mod_order` leaves a copy of the bytes on the heap.
fn reduced(bytes: &[u8; 64]) -> Zeroizing<Fr> {
    let mut scalar = Zeroizing::new(Fr::zero());
    let base = Fr::from(1u128 << 64);
    for word in bytes.as_chunks().0.iter().rev() {
        *scalar *= base;
        *scalar += Fr::from(u64::from_le_bytes(*word));
    }
    scalar
}

/// The exponents of the key's points, one vector per section: `tau` follows from them.
struct Exponents {
    a: Secret,
    b: Secret,
    l: Secret,
    inputs: Secret,
}

/// Makes a development key for `r1cs` and writes it to `out`, over a key that may be there.
///
/// `circuit_digest` names the circuit and is asked for when the key is opened. `toxic` is wiped in the end. The key is marked
/// INSECURE ([`INSECURE_TEXT`]) and a warning is logged. It appears under its name only when it is complete.
///
/// # Errors
/// [`Groth16Error::EmptyCircuit`], [`Groth16Error::Domain`], [`Groth16Error::Trapdoor`], [`Groth16Error::Busy`],
/// [`Groth16Error::Io`].
pub fn setup(
    r1cs: &R1cs,
    circuit_digest: [u8; 32],
    out: &Path,
    toxic: ToxicWaste,
    progress: Progress<'_>,
) -> Result<VerifyingKey<Bn254>, Groth16Error> {
    if r1cs.num_constraints() == 0 || r1cs.num_instance == 0 {
        return Err(Groth16Error::EmptyCircuit);
    }
    tracing::warn!(path = %out.display(), INSECURE_TEXT);
    let mut writer = KeyWriter::create(out)?;
    let domain = Domain::at_least(r1cs.num_constraints() + r1cs.num_instance)?;
    let exponents = exponents(r1cs, &domain, &toxic, progress)?;

    let entries = exponents.a.len() + exponents.b.len() + exponents.l.len() + domain.size();
    let g1 = FixedBase::<G1Point>::new(G1Affine::generator(), entries);
    let elements = elements(&exponents, &toxic, &g1);
    let mut encoded = Vec::new();
    elements
        .serialize_uncompressed(&mut encoded)
        .map_err(|error| Groth16Error::Encoding { item: "elements", reason: error.to_string() })?;
    writer.begin(Section::Elements)?;
    writer.write(&encoded)?;

    let a = write_index(&mut writer, Section::AIndex, &exponents.a)?;
    write_points(&mut writer, Section::A, &g1, &a, &|at| exponents.a[at as usize], progress)?;
    let b = write_index(&mut writer, Section::BIndex, &exponents.b)?;
    write_points(&mut writer, Section::BG1, &g1, &b, &|at| exponents.b[at as usize], progress)?;
    let g2 = FixedBase::<G2Point>::new(G2Affine::generator(), b.len());
    write_points(&mut writer, Section::BG2, &g2, &b, &|at| exponents.b[at as usize], progress)?;
    drop((a, b, g2));
    let l = write_index(&mut writer, Section::LIndex, &exponents.l)?;
    write_points(&mut writer, Section::L, &g1, &l, &|at| exponents.l[at as usize], progress)?;
    drop((l, exponents));
    let h = quotient_exponents(&domain, &toxic)?;
    let all: Vec<u32> = (0..h.len() as u32).collect();
    write_points(&mut writer, Section::H, &g1, &all, &|at| h[at as usize], progress)?;
    drop(h);

    let shape = shape(r1cs, domain.size());
    writer.finish(|extents| Header {
        origin: Origin::Development,
        digest: circuit_digest,
        shape,
        extents,
    })?;
    Ok(elements.vk)
}

/// The numbers that a key and a circuit must share.
pub(super) fn shape(r1cs: &R1cs, domain_size: usize) -> Shape {
    Shape {
        instance: r1cs.num_instance as u64,
        witness: r1cs.num_witness as u64,
        constraints: r1cs.num_constraints() as u64,
        domain: domain_size as u64,
    }
}

fn exponents(
    r1cs: &R1cs,
    domain: &Domain,
    toxic: &ToxicWaste,
    progress: Progress<'_>,
) -> Result<Exponents, Groth16Error> {
    let unusable = |reason| Groth16Error::Trapdoor { reason };
    let zero = [toxic.alpha, toxic.beta, toxic.gamma, toxic.delta, toxic.tau].iter().any(Zero::is_zero);
    let (gamma_inverse, delta_inverse) = match (toxic.gamma.inverse(), toxic.delta.inverse()) {
        (Some(gamma), Some(delta)) if !zero => (gamma, delta),
        _ => return Err(unusable("an exponent is zero")),
    };
    progress("setup: matrices", 0, 3);
    let weights =
        domain.lagrange_at(toxic.tau, Fr::one()).ok_or_else(|| unusable("tau lies on the domain"))?;
    let weights = Secret::from(weights);
    let variables = r1cs.num_variables();
    let table = r1cs.coefficients.values();
    let mut a = transpose_product(&r1cs.a, table, &weights, variables);
    let own_rows = &weights[r1cs.num_constraints()..][..r1cs.num_instance];
    a.iter_mut().zip(own_rows).for_each(|(value, weight)| *value += weight);
    progress("setup: matrices", 1, 3);
    let b = transpose_product(&r1cs.b, table, &weights, variables);
    progress("setup: matrices", 2, 3);
    let mut l = transpose_product(&r1cs.c, table, &weights, variables);
    progress("setup: matrices", 3, 3);
    drop(weights);

    // l = (beta a + alpha b + c) / delta - c (tau^n - 1) / ((k - 1) delta) for private variables, the second term alone for
    // public ones; the first term over gamma makes the verifying key.
    let (alpha, beta) = (toxic.alpha, toxic.beta);
    let instance = r1cs.num_instance;
    let abc = |at: usize, c: &Fr| a[at] * beta + b[at] * alpha + c;
    let inputs = (0..instance).into_par_iter().map(|at| abc(at, &l[at]) * gamma_inverse);
    let inputs = Secret::collect(Fr::zero(), inputs);
    let quotient = quotient_factor(domain, toxic) * delta_inverse;
    l.par_iter_mut().enumerate().with_min_len(1 << 10).for_each(|(at, c)| {
        let folded = *c * quotient;
        let plain = if at < instance { Fr::zero() } else { abc(at, c) * delta_inverse };
        *c = plain - folded;
    });
    Ok(Exponents { a, b, l, inputs })
}

/// `(tau^n - 1) / (g^n - 1)`.
fn quotient_factor(domain: &Domain, toxic: &ToxicWaste) -> Fr {
    let on_coset = domain.vanishing(Fr::GENERATOR);
    domain.vanishing(toxic.tau) * on_coset.inverse().expect("the field's generator is not on the domain")
}

/// The exponents of the H section: Lagrange values of the coset at `tau`, times `(tau^n - 1) / ((g^n - 1) delta)`.
fn quotient_exponents(domain: &Domain, toxic: &ToxicWaste) -> Result<Secret, Groth16Error> {
    let on_coset = || Groth16Error::Trapdoor { reason: "tau lies on the coset" };
    let delta_inverse = toxic.delta.inverse().ok_or_else(on_coset)?;
    let factor = quotient_factor(domain, toxic) * delta_inverse;
    let mut values = Secret::from(domain.lagrange_at(toxic.tau, Fr::GENERATOR).ok_or_else(on_coset)?);
    values.par_iter_mut().with_min_len(1 << 10).for_each(|value| *value *= factor);
    Ok(values)
}

/// `weights * matrix`: for every column the sum of its entries, each times its row's weight.
///
/// Every task owns a range of columns and reads the whole matrix, so nothing is shared and nothing is copied.
fn transpose_product(matrix: &SparseMatrix, table: &[Fr], weights: &[Fr], variables: usize) -> Secret {
    let mut out = Secret::filled(Fr::zero(), variables);
    let range = variables.div_ceil(rayon::current_num_threads()).max(1);
    out.par_chunks_mut(range).enumerate().for_each(|(task, out)| {
        let first = (task * range) as u32;
        let mut start = 0;
        for (&end, weight) in matrix.row_ends.iter().zip(weights) {
            let entries = start..end as usize;
            start = end as usize;
            let columns = matrix.columns[entries.clone()].iter();
            for (&column, &coefficient) in columns.zip(&matrix.coefficients[entries]) {
                let Some(value) = column.checked_sub(first).and_then(|at| out.get_mut(at as usize)) else {
                    continue;
                };
                match coefficient {
                    0 => *value += weight,
                    1 => *value -= weight,
                    other => *value += table[other as usize] * weight,
                }
            }
        }
    });
    out
}

fn elements(exponents: &Exponents, toxic: &ToxicWaste, g1: &FixedBase<G1Point>) -> Elements {
    let in_g1 = |scalars: &[Fr]| -> Vec<G1Affine> {
        g1.multiply(scalars).iter().map(Point::affine_or_infinity).collect()
    };
    let fixed = in_g1(&[toxic.alpha, toxic.beta, toxic.delta]);
    let g2 = FixedBase::<G2Point>::new(G2Affine::generator(), 3);
    let fixed2: Vec<G2Affine> =
        g2.multiply(&[toxic.beta, toxic.gamma, toxic.delta]).iter().map(Point::affine_or_infinity).collect();
    let vk = VerifyingKey {
        alpha_g1: fixed[0],
        beta_g2: fixed2[0],
        gamma_g2: fixed2[1],
        delta_g2: fixed2[2],
        gamma_abc_g1: in_g1(&exponents.inputs),
    };
    Elements { vk, beta_g1: fixed[1], delta_g1: fixed[2] }
}

/// Writes the variables whose exponent is not zero.
fn write_index(writer: &mut KeyWriter, section: Section, exponents: &[Fr]) -> Result<Vec<u32>, Groth16Error> {
    let index: Vec<u32> =
        (0..exponents.len() as u32).into_par_iter().filter(|&at| !exponents[at as usize].is_zero()).collect();
    writer.begin(section)?;
    for block in index.chunks(1 << 16) {
        let bytes: Vec<u8> = block.iter().flat_map(|at| at.to_le_bytes()).collect();
        writer.write(&bytes)?;
    }
    Ok(index)
}

/// Writes the points of `index`, whose exponents are not zero.
fn write_points<P: Point>(
    writer: &mut KeyWriter,
    section: Section,
    base: &FixedBase<P>,
    index: &[u32],
    exponent: &(dyn Fn(u32) -> Fr + Sync),
    progress: Progress<'_>,
) -> Result<(), Groth16Error> {
    let stage = match section {
        Section::A => "setup: points of A",
        Section::BG1 => "setup: points of B in G1",
        Section::BG2 => "setup: points of B in G2",
        Section::L => "setup: points of L",
        _ => "setup: points of H",
    };
    writer.begin(section)?;
    let mut done = 0;
    for block in index.chunks(WRITE_BLOCK) {
        let scalars = Secret::collect(Fr::zero(), block.par_iter().map(|&at| exponent(at)));
        let points = base.multiply(&scalars);
        drop(scalars);
        let mut bytes = Vec::with_capacity(points.len() * P::BYTES);
        for point in &points {
            if point.is_infinity() {
                return Err(Groth16Error::Trapdoor { reason: "an exponent of the quotient is zero" });
            }
            point.write(&mut bytes);
        }
        writer.write(&bytes)?;
        done += block.len() as u64;
        progress(stage, done, index.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_ff::PrimeField;

    #[test]
    fn a_number_is_reduced_as_arkworks_reduces_it() {
        let mut bytes = [0u8; 64];
        for round in 0..50u8 {
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = byte.wrapping_mul(31).wrapping_add(round ^ at as u8);
            }
            assert_eq!(*reduced(&bytes), Fr::from_le_bytes_mod_order(&bytes));
        }
        assert_eq!(*reduced(&[255; 64]), Fr::from_le_bytes_mod_order(&[255; 64]));
    }
}
