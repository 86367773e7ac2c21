//! The sums of a proof on a device: transforms and MSMs there, sparse products on the CPU.

use std::ops::Range;

use ark_bn254::Fr;
use ark_ff::{AdditiveGroup, FftField, Field};
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{product, product_a, DeviceKey, Parts};
use crate::device::{
    encode, least_cut, ntt_bytes, sum_at_once, sum_chunks, with_reserve, Bases, Device, DeviceBases,
    DeviceDomain, DeviceError, DevicePoint, Job, Sum,
};
use crate::groth16::key::{ProvingKey, Section};
use crate::groth16::Progress;
use crate::r1cs::R1cs;
use crate::secret::Secret;

/// The sums on `device`; `domain` is the circuit's, `kept` what stays there of this key. MSMs are cut until they fit; that they can
/// be is for the caller to see first: [`proof_memory`]. While one runs, the points of the next are uploaded.
///
/// B1 and B2 share a sort, A has its own. In the wrap circuit A has 8,229,902 points, B 6,237,364, of which A has 6,207,517: one sort
/// over all 8,259,749 would save 199 MB of scalars and no product; 2.0 M points at infinity in each of B1 and B2 would cost 390 MB
/// of points and, as threads of a warp wait for each other, up to a third more time in these sums. It does not pay.
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
    let beside_transforms = device.memory_free()?.saturating_sub(ntt_bytes(domain.size(), 2));
    let [l_index, a_index, b_index] =
        [Section::LIndex, Section::AIndex, Section::BIndex].map(|index| key.index(index));
    let mut h = sum_of(key, Section::H, kept.map(|kept| &kept.h));
    let mut l = sum_of(key, Section::L, kept.map(|kept| &kept.l));
    let mut a = sum_of(key, Section::A, kept.map(|kept| &kept.a));
    let mut b1 = sum_of(key, Section::BG1, kept.map(|kept| &kept.b1));
    let mut b2 = sum_of(key, Section::BG2, kept.map(|kept| &kept.b2));
    let mut jobs = [
        Job::new(domain.size(), vec![&mut h]),
        Job::new(l_index.len(), vec![&mut l]),
        Job::new(a_index.len(), vec![&mut a]),
        Job::new(b_index.len(), vec![&mut b1, &mut b2]),
    ];

    let products = quotient_values(device, domain, r1cs, assignment, progress)?;
    let (job, next) = jobs.split_at_mut(1);
    // The transforms run: what is free is what was, but for them.
    job[0].send_ahead(device, beside_transforms, beside_transforms)?;
    sum_of_products(device, &mut job[0], products, domain.size(), next.first_mut(), progress)?;
    for (at, (stage, index)) in
        [("prove: msm L", l_index), ("prove: msm A", a_index), ("prove: msm B", b_index)]
            .into_iter()
            .enumerate()
    {
        let (job, next) = jobs[1 + at..].split_at_mut(1);
        let count = index.len() as u64;
        progress(stage, 0, count);
        sum_chunks(device, &mut job[0], &gathered(assignment, index), next.first_mut())?;
        progress(stage, count, count);
    }
    Ok(Parts { h: h.total(), l: l.total(), a: a.total(), b1: b1.total(), b2: b2.total() })
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
        cuts(&bases_of(key, Section::H, kept.map(|kept| &kept.h)), size),
        cuts(&bases_of(key, Section::L, kept.map(|kept| &kept.l)), count(Section::LIndex)),
        cuts(&bases_of(key, Section::A, kept.map(|kept| &kept.a)), count(Section::AIndex)),
        cuts(&bases_of(key, Section::BG2, kept.map(|kept| &kept.b2)), count(Section::BIndex)),
    ];
    let [least, most, ahead] =
        sums.into_iter().fold([0; 3], |most, sum| [0, 1, 2].map(|at| most[at].max(sum[at])));
    // First two arrays of values, then sums beside the domain's tables; beside both the points of the next sum, if there is room.
    let (transforms, tables) = (ntt_bytes(size, 2), ntt_bytes(size, 0));
    ProofMemory { least: transforms.max(tables + least), most: transforms.max(tables + most) + ahead }
}

/// What a sum over `count` points takes, cut as far as it goes, with the reserve that cutting leaves; whole; and its points alone, sent
/// before their turn.
fn cuts<B, P: DevicePoint>(bases: &Bases<'_, B, P>, count: usize) -> [u64; 3] {
    [with_reserve(bases.bytes(least_cut(count))), bases.bytes(count), bases.ahead_bytes(count)]
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
    job: &mut Job<'_, D>,
    products: D::Buffer,
    size: usize,
    next: Option<&mut Job<'_, D>>,
    progress: Progress<'_>,
) -> Result<(), DeviceError> {
    let stage = "prove: msm H";
    progress(stage, 0, size as u64);
    let mut next = next;
    if let Some(products) = sum_at_once(device, job, products, next.as_deref_mut())? {
        let scalars = Zeroizing::new(device.download(&products, 0..32 * size)?);
        drop(products);
        let scalars =
            |range: Range<usize>| Zeroizing::new(scalars[32 * range.start..32 * range.end].to_vec());
        sum_chunks(device, job, &scalars, next)?;
    }
    progress(stage, size as u64, size as u64);
    Ok(())
}

/// A sum over the points of a section: those that are kept, or else those of the key.
fn sum_of<'a, B, P: DevicePoint>(
    key: &'a ProvingKey,
    section: Section,
    kept: Option<&'a DeviceBases<B, P>>,
) -> Sum<'a, B, P> {
    Sum::new(bases_of(key, section, kept))
}

fn bases_of<'a, B, P>(
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
