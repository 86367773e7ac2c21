//! The sums of a proof on a device: transforms and MSMs there, sparse products on the CPU.

use std::ops::Range;

use ark_bn254::{Fr, G1Projective, G2Projective};
use ark_ff::{AdditiveGroup, FftField, Field};
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{product, product_a, DeviceKey, Parts};
use crate::device::{
    encode, least_cut, ntt_bytes, sum_chunks, with_reserve, Bases, Device, DeviceBases, DeviceDomain,
    DeviceError, DevicePoint,
};
use crate::groth16::key::{ProvingKey, Section};
use crate::groth16::Progress;
use crate::msm::G1Point;
use crate::r1cs::R1cs;
use crate::secret::Secret;

/// The sums on `device`; `domain` is the circuit's, `kept` what stays there of this key. MSMs are cut until they fit; that they can
/// be is for the caller to see first: [`proof_memory`].
///
/// # Errors
/// Those of the device.
pub(crate) fn parts_on<D: Device>(
    device: &D,
    domain: &DeviceDomain<D::Buffer>,
    (key, kept): (&ProvingKey, Option<&DeviceKey<D::Buffer>>),
    r1cs: &R1cs,
    assignment: &[Fr],
    progress: Progress<'_>,
) -> Result<Parts, DeviceError> {
    let products = quotient_values(device, domain, r1cs, assignment, progress)?;
    let bases = bases(key, Section::H, kept.map(|kept| &kept.h));
    let h = sum_of_products(device, &bases, products, domain.size(), progress)?;

    let (mut l, mut a) = (G1Projective::ZERO, G1Projective::ZERO);
    for (sum, stage, index, bases) in [
        (&mut l, "prove: msm L", Section::LIndex, self::bases(key, Section::L, kept.map(|kept| &kept.l))),
        (&mut a, "prove: msm A", Section::AIndex, self::bases(key, Section::A, kept.map(|kept| &kept.a))),
    ] {
        let index = key.index(index);
        let count = index.len() as u64;
        progress(stage, 0, count);
        sum_chunks(device, index.len(), &bases, &gathered(assignment, index), |sorted, range| {
            *sum += bases.sum(device, sorted, range)?;
            Ok(())
        })?;
        progress(stage, count, count);
    }
    let (b1, b2) = sums_of_b(device, key, kept, assignment, progress)?;
    Ok(Parts { h, l, a, b1, b2 })
}

/// Device memory of a Groth16 proof in bytes, the domain's tables included, points that stay there for many proofs not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofMemory {
    /// With every sum cut as far as it goes. With less free memory there is no proof.
    pub least: u64,
    /// With no sum cut: more is never taken.
    pub most: u64,
}

/// The plan of a whole proof, from the sizes in the key; `kept` are its points that are on the device already.
pub(crate) fn proof_memory<B>(key: &ProvingKey, kept: Option<&DeviceKey<B>>) -> ProofMemory {
    let size = key.domain_size() as usize;
    let count = |index| key.index(index).len();
    // B in G1 takes less than in G2.
    let sums = [
        cuts(&bases(key, Section::H, kept.map(|kept| &kept.h)), size),
        cuts(&bases(key, Section::L, kept.map(|kept| &kept.l)), count(Section::LIndex)),
        cuts(&bases(key, Section::A, kept.map(|kept| &kept.a)), count(Section::AIndex)),
        cuts(&bases(key, Section::BG2, kept.map(|kept| &kept.b2)), count(Section::BIndex)),
    ];
    let [least, most] = sums.into_iter().fold([0; 2], |most, sum| [0, 1].map(|at| most[at].max(sum[at])));
    // First two arrays of values, then sums beside the domain's tables.
    let (transforms, tables) = (ntt_bytes(size, 2), ntt_bytes(size, 0));
    ProofMemory { least: transforms.max(tables + least), most: transforms.max(tables + most) }
}

/// What a sum over `count` points takes, cut as far as it goes, with the reserve that cutting leaves; and whole.
fn cuts<B, P: DevicePoint>(bases: &Bases<'_, B, P>, count: usize) -> [u64; 2] {
    [with_reserve(bases.bytes(least_cut(count))), bases.bytes(count)]
}

/// B in both groups: the scalars are sorted once.
fn sums_of_b<D: Device>(
    device: &D,
    key: &ProvingKey,
    kept: Option<&DeviceKey<D::Buffer>>,
    assignment: &[Fr],
    progress: Progress<'_>,
) -> Result<(G1Projective, G2Projective), DeviceError> {
    let index = key.index(Section::BIndex);
    let first = bases(key, Section::BG1, kept.map(|kept| &kept.b1));
    let second = bases(key, Section::BG2, kept.map(|kept| &kept.b2));
    let count = index.len() as u64;
    let (mut b1, mut b2) = (G1Projective::ZERO, G2Projective::ZERO);
    progress("prove: msm B", 0, count);
    sum_chunks(device, index.len(), &second, &gathered(assignment, index), |sorted, range| {
        b1 += first.sum(device, sorted, range.clone())?;
        b2 += second.sum(device, sorted, range)?;
        Ok(())
    })?;
    progress("prove: msm B", count, count);
    Ok((b1, b2))
}

/// The values of `a(x) b(x)` on the coset, in natural order, on the device.
fn quotient_values<D: Device>(
    device: &D,
    domain: &DeviceDomain<D::Buffer>,
    r1cs: &R1cs,
    assignment: &[Fr],
    progress: Progress<'_>,
) -> Result<D::Buffer, DeviceError> {
    let (stage, size) = ("prove: quotient", domain.size());
    progress(stage, 0, 3);
    let inverse = Fr::from(size as u64).inverse().unwrap_or(Fr::ZERO);
    let scale = domain.scale(device, inverse, Fr::GENERATOR)?;
    let on_coset = |values: Secret| {
        let bytes = Zeroizing::new(encode(&values));
        drop(values);
        let buffer = device.upload(&bytes)?;
        domain.interpolate(device, &buffer, Some(&scale))?;
        domain.evaluate(device, &buffer, None)?;
        Ok::<_, DeviceError>(buffer)
    };
    let a = on_coset(product_a(r1cs, assignment, size))?;
    progress(stage, 1, 3);
    let b = on_coset(product(&r1cs.b, r1cs, assignment, size))?;
    progress(stage, 2, 3);
    domain.multiply(device, &a, &b)?;
    progress(stage, 3, 3);
    Ok(a)
}

/// The sum over the H section, whose scalars are on the device already.
fn sum_of_products<D: Device>(
    device: &D,
    bases: &Bases<'_, D::Buffer, G1Point>,
    products: D::Buffer,
    size: usize,
    progress: Progress<'_>,
) -> Result<G1Projective, DeviceError> {
    let stage = "prove: msm H";
    progress(stage, 0, size as u64);
    let mut sum = G1Projective::ZERO;
    if bases.bytes(size) <= device.memory_free()? {
        let sorted = bases.sort(device, &products, 0..size)?;
        drop(products);
        sum = bases.sum(device, &sorted, 0..size)?;
    } else {
        let scalars = Zeroizing::new(device.download(&products, 0..32 * size)?);
        drop(products);
        let scalars =
            |range: Range<usize>| Zeroizing::new(scalars[32 * range.start..32 * range.end].to_vec());
        sum_chunks(device, size, bases, &scalars, |sorted, range| {
            sum += bases.sum(device, sorted, range)?;
            Ok(())
        })?;
    }
    progress(stage, size as u64, size as u64);
    Ok(sum)
}

/// The points of a section: those that are kept, or else those of the key.
fn bases<'a, B, P>(
    key: &'a ProvingKey,
    section: Section,
    kept: Option<&'a DeviceBases<B, P>>,
) -> Bases<'a, B, P> {
    kept.map_or_else(|| Bases::Encoded(key.section(section)), Bases::Kept)
}

/// The encoded variables of an index, by range.
fn gathered<'a>(assignment: &'a [Fr], index: &'a [u32]) -> impl Fn(Range<usize>) -> Zeroizing<Vec<u8>> + 'a {
    move |range| {
        let values = Secret::collect(Fr::ZERO, index[range].par_iter().map(|at| assignment[*at as usize]));
        Zeroizing::new(encode(&values))
    }
}
