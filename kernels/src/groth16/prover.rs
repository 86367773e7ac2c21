//! Proving and verifying.

mod device;
mod resident;

pub use device::ProofMemory;
pub(crate) use device::{parts_on, proof_memory};
pub(crate) use resident::DeviceKey;

use super::key::{ProvingKey, Section};
use super::setup::{random_scalar, shape};
use super::{Groth16Error, Progress};
use crate::msm::{self, msm, G1Point, G2Point, Point};
use crate::ntt::{self, Domain};
use crate::r1cs::{R1cs, R1csError, SparseMatrix};
use crate::secret::Secret;
use ark_bn254::{Bn254, Fr, G1Projective, G2Projective};
use ark_ec::short_weierstrass::{Projective, SWCurveConfig};
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{AdditiveGroup, BigInteger, FftField, One, PrimeField, Zero};
use ark_groth16::{prepare_verifying_key, Groth16, Proof, VerifyingKey};
use rayon::prelude::*;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Proves that `assignment` (`[1, public.., private..]`) satisfies `r1cs`, and verifies the proof.
///
/// What is derived from the assignment is wiped, after errors and panics too; the assignment is the caller's, who may keep it as a
/// [`Secret`]. Memory: [`host_bytes`], and the mapped key, which the system may drop.
///
/// # Errors
/// [`Groth16Error::Shape`] if the key is for another circuit, [`Groth16Error::Assignment`] if it is not satisfied,
/// [`Groth16Error::ProofRejected`], [`Groth16Error::Randomness`].
pub fn prove(
    key: &ProvingKey,
    r1cs: &R1cs,
    assignment: &[Fr],
    progress: Progress<'_>,
) -> Result<Proof<Bn254>, Groth16Error> {
    prove_on_cpu(key, r1cs, assignment, &blinding()?, progress)
}

/// The most memory that a proof on the CPU takes at a time beside key, circuit and assignment, in bytes, by the sizes in the key.
///
/// Two field elements a point of the domain while it transforms, then the quotient's values and the largest sum; the mapped key is
/// not counted.
pub fn host_bytes(key: &ProvingKey) -> u64 {
    let size = key.domain_size();
    let values = 32 * size;
    let sum_g1 = |section| msm::host_bytes::<G1Point>(key.g1(section).len());
    let sum_g2 = msm::host_bytes::<G2Point>(key.g2(Section::BG2).len());
    let sums = [sum_g1(Section::L), sum_g1(Section::A), sum_g2].into_iter().fold(0, u64::max);
    ntt::host_bytes(key.domain_size()) + (2 * values).max(values + sum_g1(Section::H)).max(sums)
}

/// The blinding scalars `r` and `s` of a proof; wiped when they are dropped.
pub(crate) type Blinding = [Zeroizing<Fr>; 2];

/// Fresh ones.
pub(crate) fn blinding() -> Result<Blinding, Groth16Error> {
    Ok([random_scalar()?, random_scalar()?])
}

/// [`prove`] with given blinding scalars: for comparisons. A proof with known or repeated `r`, `s` leaks the witness.
///
/// # Errors
/// As [`prove`].
pub fn prove_with(
    key: &ProvingKey,
    r1cs: &R1cs,
    assignment: &[Fr],
    r: Fr,
    s: Fr,
    progress: Progress<'_>,
) -> Result<Proof<Bn254>, Groth16Error> {
    prove_on_cpu(key, r1cs, assignment, &[r, s].map(Zeroizing::new), progress)
}

/// [`prove`] with given blinding scalars that are wiped by their owner.
pub(crate) fn prove_on_cpu(
    key: &ProvingKey,
    r1cs: &R1cs,
    assignment: &[Fr],
    blinding: &Blinding,
    progress: Progress<'_>,
) -> Result<Proof<Bn254>, Groth16Error> {
    let parts = || {
        let domain = Domain::new(domain_size(r1cs)?)?;
        Ok(parts(key, r1cs, &domain, assignment, progress))
    };
    prove_from(key, r1cs, assignment, blinding, progress, parts)
}

/// The sums that a proof consists of, before blinding: a guess of the assignment could be checked with them.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Parts {
    h: G1Projective,
    l: G1Projective,
    a: G1Projective,
    b1: G1Projective,
    b2: G2Projective,
}

/// Points of the domain for `r1cs`.
pub(crate) fn domain_size(r1cs: &R1cs) -> Result<usize, Groth16Error> {
    Ok(Domain::smallest_size(r1cs.num_constraints() + r1cs.num_instance)?)
}

/// Checks the inputs, takes the sums from `parts`, blinds them, and verifies the proof.
pub(crate) fn prove_from(
    key: &ProvingKey,
    r1cs: &R1cs,
    assignment: &[Fr],
    blinding: &Blinding,
    progress: Progress<'_>,
    parts: impl FnOnce() -> Result<Parts, Groth16Error>,
) -> Result<Proof<Bn254>, Groth16Error> {
    check_inputs(key, r1cs, assignment)?;
    let proof = blinded(key, &parts()?, blinding);
    progress("prove: verify", 0, 1);
    if !verify(&key.elements.vk, &assignment[1..r1cs.num_instance], &proof)? {
        r1cs.check(assignment)?;
        return Err(Groth16Error::ProofRejected);
    }
    progress("prove: verify", 1, 1);
    Ok(proof)
}

/// The proof that blinded sums are.
fn blinded(key: &ProvingKey, parts: &Parts, [r, s]: &Blinding) -> Proof<Bn254> {
    let elements = &key.elements;
    let (r, s) = (&**r, &**s);
    // Nothing that is worked out on the way outlives this.
    let product = Zeroizing::new(*r * s);
    let (delta_g1, delta_g2) = (elements.delta_g1.into_group(), elements.vk.delta_g2.into_group());
    let a = Zeroizing::new(parts.a + elements.vk.alpha_g1 + times(&delta_g1, r));
    let b1 = Zeroizing::new(parts.b1 + elements.beta_g1 + times(&delta_g1, s));
    let b2 = Zeroizing::new(parts.b2 + elements.vk.beta_g2 + times(&delta_g2, s));
    let c = times(&a, s) + times(&b1, r) - times(&delta_g1, &product) + parts.l + parts.h;
    let c = Zeroizing::new(c);
    Proof { a: a.into_affine(), b: b2.into_affine(), c: c.into_affine() }
}

/// `scalar * point`, bit by bit: arkworks cuts a scalar in two by integers on the heap, which stay there.
fn times<C: SWCurveConfig<ScalarField = Fr>>(point: &Projective<C>, scalar: &Fr) -> Projective<C> {
    let bits = Zeroizing::new(scalar.into_bigint());
    let mut product = Projective::zero();
    for bit in (0..Fr::MODULUS_BIT_SIZE as usize).rev() {
        product.double_in_place();
        if bits.get_bit(bit) {
            product += point;
        }
    }
    product
}

/// The sums on the CPU.
fn parts(key: &ProvingKey, r1cs: &R1cs, domain: &Domain, assignment: &[Fr], progress: Progress<'_>) -> Parts {
    let products = quotient_values(r1cs, domain, assignment, progress);
    let h = msm(key.g1(Section::H), |at| products[at], &report(progress, "prove: msm H"));
    drop(products);
    Parts {
        h,
        l: assigned(key, Section::LIndex, key.g1(Section::L), assignment, progress, "prove: msm L"),
        a: assigned(key, Section::AIndex, key.g1(Section::A), assignment, progress, "prove: msm A"),
        b1: assigned(key, Section::BIndex, key.g1(Section::BG1), assignment, progress, "prove: msm B1"),
        b2: assigned(key, Section::BIndex, key.g2(Section::BG2), assignment, progress, "prove: msm B2"),
    }
}

/// Whether `proof` is valid for the public inputs (without the constant one).
///
/// # Errors
/// [`Groth16Error::PublicInputs`] if there are too many or too few of them.
pub fn verify(vk: &VerifyingKey<Bn254>, inputs: &[Fr], proof: &Proof<Bn254>) -> Result<bool, Groth16Error> {
    let expected = vk.gamma_abc_g1.len().saturating_sub(1);
    if inputs.len() != expected {
        return Err(Groth16Error::PublicInputs { expected, got: inputs.len() });
    }
    Groth16::<Bn254>::verify_proof(&prepare_verifying_key(vk), proof, inputs)
        .map_err(|error| Groth16Error::Encoding { item: "verifying key", reason: error.to_string() })
}

fn check_inputs(key: &ProvingKey, r1cs: &R1cs, assignment: &[Fr]) -> Result<(), Groth16Error> {
    let (ours, theirs) = (key.header.shape, shape(r1cs, domain_size(r1cs)?));
    for (what, expected, got) in [
        ("public variables", ours.instance, theirs.instance),
        ("private variables", ours.witness, theirs.witness),
        ("constraints", ours.constraints, theirs.constraints),
        ("points of the domain", ours.domain, theirs.domain),
    ] {
        if expected != got {
            return Err(Groth16Error::Shape { what, expected, got });
        }
    }
    if assignment.len() != r1cs.num_variables() {
        return Err(
            R1csError::AssignmentLength { expected: r1cs.num_variables(), got: assignment.len() }.into()
        );
    }
    if !assignment[0].is_one() {
        return Err(R1csError::ConstantOne.into());
    }
    Ok(())
}

/// The values of `a(x) b(x)` on the coset, in natural order.
fn quotient_values(r1cs: &R1cs, domain: &Domain, assignment: &[Fr], progress: Progress<'_>) -> Secret {
    let stage = "prove: quotient";
    let to_coset = |values: &mut [Fr]| {
        domain.interpolate_unscaled(values);
        domain.scale_permuted(values, Fr::GENERATOR);
        domain.evaluate_permuted(values);
    };
    progress(stage, 0, 4);
    let mut a = product_a(r1cs, assignment, domain.size());
    progress(stage, 1, 4);
    to_coset(&mut a);
    progress(stage, 2, 4);
    let mut b = product(&r1cs.b, r1cs, assignment, domain.size());
    progress(stage, 3, 4);
    to_coset(&mut b);
    a.par_iter_mut().zip(&**b).with_min_len(1 << 10).for_each(|(a, b)| *a *= b);
    progress(stage, 4, 4);
    a
}

/// `A * assignment` and the rows of the public inputs, padded with zeros to `size`.
fn product_a(r1cs: &R1cs, assignment: &[Fr], size: usize) -> Secret {
    let mut a = product(&r1cs.a, r1cs, assignment, size);
    a[r1cs.num_constraints()..][..r1cs.num_instance].copy_from_slice(&assignment[..r1cs.num_instance]);
    a
}

/// `matrix * assignment`, padded with zeros to `size`.
fn product(matrix: &SparseMatrix, r1cs: &R1cs, assignment: &[Fr], size: usize) -> Secret {
    let table = r1cs.coefficients.values();
    let rows = matrix.rows();
    let value = |row| if row < rows { matrix.evaluate_row(row, table, assignment) } else { Fr::zero() };
    Secret::collect(Fr::zero(), (0..size).into_par_iter().with_min_len(1 << 10).map(value))
}

/// The sum of a section's points, each times its variable.
fn assigned<P: Point>(
    key: &ProvingKey,
    index: Section,
    points: &[P],
    assignment: &[Fr],
    progress: Progress<'_>,
    stage: &'static str,
) -> Projective<P::Curve> {
    let index = key.index(index);
    msm(points, |at| assignment[index[at] as usize], &report(progress, stage))
}

fn report<'a>(progress: Progress<'a>, stage: &'static str) -> impl Fn(u64, u64) + Sync + 'a {
    move |done, total| progress(stage, done, total)
}
