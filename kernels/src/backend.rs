//! MSM, NTT and proofs on a GPU where there is one, else on the CPU: [`Backend::auto`].
//!
//! Memory is planned for a whole call before anything is allocated ([`DeviceError::TooLittleMemory`]). A call that fails on the
//! GPU is made once more there, unless the plan did not fit and no memory has been given back, and then on the CPU;
//! [`Backend::counts`] counts all of it. A GPU that is lost twice in a row is not asked again: CUDA needs a new process then
//! ([`Backend::is_lost`]). A proof is verified wherever it was made; a GPU whose first results are not the CPU's is not used at all.
//!
//! ```
//! use ark_bn254::Fr;
//! use assay_kernels::backend::{Backend, Transform};
//!
//! let backend = Backend::auto();
//! let mut values: Vec<Fr> = (1..=8u64).map(Fr::from).collect();
//! let before = values.clone();
//! backend.ntt(&mut values, Transform::Interpolate { shift: Fr::from(1u64) }).unwrap();
//! backend.ntt(&mut values, Transform::Evaluate).unwrap();
//! assert_eq!(values, before);
//! println!("{}: {:?}", backend.describe(), backend.counts());
//! ```

mod counts;
mod kept;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ark_bn254::{Bn254, Fr, G1Projective, G2Projective};
use ark_ec::short_weierstrass::Projective;
use ark_ff::{AdditiveGroup, FftField, Field};
use ark_groth16::Proof;
use thiserror::Error;
use zeroize::Zeroizing;

pub use counts::Counts;
pub use kept::KeptKey;
use kept::KeptPoints;

use crate::device::{
    decode, encode, ntt_bytes, sum_chunks, Bases, Class, Device, DeviceDomain, DeviceError, DevicePoint, Gpu,
    Job, Planned, Sum,
};
use crate::groth16::{self, Blinding, Groth16Error, Progress, ProvingKey};
use crate::msm::{msm, G1Point, G2Point, Point};
use crate::ntt::{Domain, NttError};
use crate::r1cs::R1cs;
use crate::secret::Secret;
use counts::Counters;

/// Points of the first MSM on a GPU, and of the first transform.
const TRIAL: usize = 1 << 11;

/// Where work is done: a device, with the CPU behind it, or the CPU alone.
#[derive(Debug)]
pub struct Backend<D: Device = Gpu> {
    device: Option<D>,
    lost: AtomicBool,
    fallback: bool,
    /// The tables of the last domain.
    domain: Mutex<Option<Arc<DeviceDomain<D::Buffer>>>>,
    counters: Counters,
}

/// A transform in place. Permuted order: see [`crate::ntt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// Values in natural order become coefficients in permuted order, coefficient `i` times `shift^i`.
    Interpolate {
        /// 1, or the shift of the coset on which the polynomial will be evaluated.
        shift: Fr,
    },
    /// Coefficients in permuted order become values in natural order.
    Evaluate,
}

/// Why there is no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Points and scalars do not pair.
    #[error("{points} points for {scalars} scalars")]
    Length {
        /// Points given.
        points: usize,
        /// Scalars given.
        scalars: usize,
    },
    /// There is no such domain.
    #[error(transparent)]
    Ntt(#[from] NttError),
    /// The device failed, and the CPU was not allowed to take over.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Backend<Gpu> {
    /// The first GPU if there is one and it computes what the CPU computes, else the CPU. Says in the log which, and why.
    #[must_use]
    pub fn auto() -> Self {
        Self::auto_within(u64::MAX)
    }

    /// [`Backend::auto`], with at most `memory_bytes` of the GPU's memory in use at a time ([`Gpu::open_within`]).
    #[must_use]
    pub fn auto_within(memory_bytes: u64) -> Self {
        match Gpu::open_within(memory_bytes).and_then(Self::tried) {
            Ok(backend) => {
                tracing::info!(device = backend.describe(), "proofs are made on a GPU");
                backend
            }
            Err(error) => Self::instead(&error),
        }
    }

    /// The CPU, because there is no GPU, or none that works, which counts as its failure.
    fn instead(error: &DeviceError) -> Self {
        let backend = Self::cpu();
        if let DeviceError::Absent { .. } = error {
            tracing::info!(%error, "proofs are made on the CPU");
        } else {
            tracing::warn!(%error, "the GPU fails its trial: proofs are made on the CPU");
            backend.counters.add(|counts| &mut counts.failures);
            backend.counters.add(|counts| &mut counts.fallbacks);
        }
        backend
    }

    /// The CPU alone.
    #[must_use]
    pub fn cpu() -> Self {
        Self::new(None)
    }

    /// Which device does the work.
    #[must_use]
    pub fn describe(&self) -> String {
        self.device.as_ref().map_or_else(|| "CPU".into(), Gpu::describe)
    }
}

impl<D: Device> Backend<D> {
    fn new(device: Option<D>) -> Self {
        Self {
            device,
            lost: AtomicBool::new(false),
            fallback: true,
            domain: Mutex::new(None),
            counters: Counters::default(),
        }
    }

    /// `device` with the CPU behind it, untried.
    pub fn on(device: D) -> Self {
        Self::new(Some(device))
    }

    /// `device` with the CPU behind it, after a small MSM and a small transform have come out as on the CPU.
    ///
    /// # Errors
    /// [`DeviceError::WrongResult`], and whatever else the device answers.
    pub fn tried(device: D) -> Result<Self, DeviceError> {
        let backend = Self { fallback: false, ..Self::on(device) };
        backend.try_out().map_err(|error| match error {
            BackendError::Device(error) => error,
            BackendError::Ntt(error) => error.into(),
            BackendError::Length { .. } => DeviceError::WrongResult { what: "number of points" },
        })?;
        backend.counters.reset();
        Ok(Self { fallback: true, ..backend })
    }

    /// Lets errors of the device through instead of going on on the CPU: for measurements.
    #[must_use]
    pub fn without_fallback(mut self) -> Self {
        self.fallback = false;
        self
    }

    /// What has been done so far, and where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// Whether the device was given up. Only a new process may get it back.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// `sum_i scalars[i] * points[i]` in G1; [`Point::INFINITY`] counts as infinity.
    ///
    /// # Errors
    /// [`BackendError::Length`]; [`BackendError::Device`] only [without fallback](Self::without_fallback).
    pub fn msm_g1(&self, points: &[G1Point], scalars: &[Fr]) -> Result<G1Projective, BackendError> {
        self.msm(points, scalars)
    }

    /// `sum_i scalars[i] * points[i]` in G2.
    ///
    /// # Errors
    /// As [`Backend::msm_g1`].
    pub fn msm_g2(&self, points: &[G2Point], scalars: &[Fr]) -> Result<G2Projective, BackendError> {
        self.msm(points, scalars)
    }

    /// Transforms `values`, whose number is the domain's: `2^k`, `3 * 2^k` or `9 * 2^k`.
    ///
    /// # Errors
    /// [`BackendError::Ntt`] for other sizes; [`BackendError::Device`] only [without fallback](Self::without_fallback).
    pub fn ntt(&self, values: &mut [Fr], transform: Transform) -> Result<(), BackendError> {
        let size = values.len();
        if Domain::smallest_size(size)? != size || size == 0 {
            return Err(NttError::Shape { size }.into());
        }
        let transformed = self.attempt("transform", |device| {
            self.plan(device, Planned::Transform(size as u64), ntt_bytes(size, 1))?;
            let domain = self.domain_on(device, size)?;
            let buffer = device.upload(&Zeroizing::new(encode(values)))?;
            match transform {
                Transform::Interpolate { shift } => {
                    let inverse = Fr::from(size as u64).inverse().unwrap_or(Fr::ZERO);
                    let scale = domain.scale(device, inverse, shift)?;
                    domain.interpolate(device, &buffer, Some(&scale))?;
                }
                Transform::Evaluate => domain.evaluate(device, &buffer, None)?,
            }
            let bytes = Zeroizing::new(device.download(&buffer, 0..32 * size)?);
            Ok::<_, BackendError>(Secret::from(decode(&bytes)))
        })?;
        match transformed {
            Some(transformed) => values.copy_from_slice(&transformed),
            None => on_cpu(values, transform)?,
        }
        Ok(())
    }

    /// Proves as [`groth16::prove`]: zero-knowledge, verified before it is returned.
    ///
    /// # Errors
    /// As [`groth16::prove`]; [`Groth16Error::Device`] only [without fallback](Self::without_fallback).
    pub fn prove(
        &self,
        key: &ProvingKey,
        r1cs: &R1cs,
        assignment: &[Fr],
        progress: Progress<'_>,
    ) -> Result<Proof<Bn254>, Groth16Error> {
        let blinding = groth16::blinding()?;
        self.prove_on((key, &KeptPoints::none()), r1cs, assignment, &blinding, progress)
    }

    /// [`Backend::prove`] with given blinding scalars: for comparisons. A proof with known or repeated `r`, `s` leaks the
    /// witness.
    ///
    /// # Errors
    /// As [`Backend::prove`].
    pub fn prove_with(
        &self,
        key: &ProvingKey,
        r1cs: &R1cs,
        assignment: &[Fr],
        r: Fr,
        s: Fr,
        progress: Progress<'_>,
    ) -> Result<Proof<Bn254>, Groth16Error> {
        let blinding = [r, s].map(Zeroizing::new);
        self.prove_on((key, &KeptPoints::none()), r1cs, assignment, &blinding, progress)
    }

    /// [`Backend::prove_with`], with what is kept of the key.
    fn prove_on(
        &self,
        (key, kept): (&ProvingKey, &KeptPoints<D::Buffer>),
        r1cs: &R1cs,
        assignment: &[Fr],
        blinding: &Blinding,
        progress: Progress<'_>,
    ) -> Result<Proof<Bn254>, Groth16Error> {
        // Another attempt has the same r and s, and so the same proof: only one of them is ever good.
        let proof = self.attempt("proof", |device| {
            let points = kept.get();
            let parts = || {
                let memory = groth16::proof_memory(key, points.as_deref());
                self.plan(device, Planned::Proof(key.domain_size()), memory.least)?;
                let domain = self.domain_on(device, groth16::domain_size(r1cs)?)?;
                let key = (key, points.as_deref());
                Ok(groth16::parts_on(device, &domain, key, r1cs, assignment, progress)?)
            };
            let proof = groth16::prove_from(key, r1cs, assignment, blinding, progress, parts);
            if proof.as_ref().is_err_and(|error| error.class().is_some()) {
                kept.forget();
            }
            proof
        })?;
        match proof {
            Some(proof) => Ok(proof),
            None => groth16::prove_on_cpu(key, r1cs, assignment, blinding, progress),
        }
    }

    fn msm<P: DevicePoint>(
        &self,
        points: &[P],
        scalars: &[Fr],
    ) -> Result<Projective<P::Curve>, BackendError> {
        if points.len() != scalars.len() {
            return Err(BackendError::Length { points: points.len(), scalars: scalars.len() });
        }
        let sum = self.attempt("MSM", |device| {
            let encoded = |range: std::ops::Range<usize>| Zeroizing::new(encode(&scalars[range]));
            let mut sum = Sum::new(Bases::Host(points));
            sum_chunks(device, &mut Job::new(points.len(), vec![&mut sum]), &encoded, None)?;
            Ok::<_, BackendError>(sum.total())
        })?;
        Ok(sum.unwrap_or_else(|| msm_on_cpu(points, scalars)))
    }

    /// Calls `work` with the device, at most twice. `None`: it is the CPU's turn.
    ///
    /// # Errors
    /// Those of `work` that are not the device's fault, and without fallback all.
    fn attempt<T, E: Failure>(
        &self,
        what: &'static str,
        work: impl Fn(&D) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let Some(device) = &self.device else {
            self.counters.add(|counts| &mut counts.cpu);
            return Ok(None);
        };
        if self.is_lost() {
            if !self.fallback {
                return Err(DeviceError::Lost { reason: "it was lost before".into() }.into());
            }
            self.counters.add(|counts| &mut counts.cpu);
            return Ok(None);
        }
        for retry in [false, true] {
            let error = match work(device) {
                Ok(done) => {
                    self.counters.add(|counts| &mut counts.device);
                    return Ok(Some(done));
                }
                Err(error) => error,
            };
            let Some(class) = error.class() else { return Err(error) };
            self.counters.add(|counts| &mut counts.failures);
            self.forget_domain();
            tracing::warn!(%error, what, retry, "the GPU failed");
            // What did not fit as a whole is tried again only where there is more memory now, of this process or of others.
            let grown = |free| device.memory_free().is_ok_and(|now| now > free);
            if class == Class::Transient && !retry && error.too_little().is_none_or(grown) {
                self.counters.add(|counts| &mut counts.retries);
                continue;
            }
            if error.is_lost() {
                self.lost.store(true, Ordering::Relaxed);
            }
            if !self.fallback {
                return Err(error);
            }
            break;
        }
        self.counters.add(|counts| &mut counts.fallbacks);
        self.counters.add(|counts| &mut counts.cpu);
        Ok(None)
    }

    /// The domain's tables, kept from the last call where the size is the same.
    fn domain_on(&self, device: &D, size: usize) -> Result<Arc<DeviceDomain<D::Buffer>>, DeviceError> {
        let lock = || self.domain.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = lock();
            if let Some(domain) = kept.as_ref().filter(|domain| domain.size() == size) {
                return Ok(Arc::clone(domain));
            }
            *kept = None;
        }
        // Not under the lock: a thread that waits for others to work tables out may take up a call that wants it.
        let domain = Arc::new(DeviceDomain::new(device, size)?);
        *lock() = Some(Arc::clone(&domain));
        Ok(domain)
    }

    /// Fails before anything is allocated if `needed` bytes are not free, the tables of the last domain counted as free: they are
    /// used again or given back.
    fn plan(&self, device: &D, what: Planned, needed: u64) -> Result<(), DeviceError> {
        let kept = self.domain.lock().unwrap_or_else(PoisonError::into_inner);
        let free = device.memory_free()? + kept.as_ref().map_or(0, |domain| domain.bytes());
        if needed > free {
            return Err(DeviceError::TooLittleMemory { what, needed, free });
        }
        Ok(())
    }

    /// After a failure its tables may be wrong.
    fn forget_domain(&self) {
        *self.domain.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A small MSM in each group and a small transform, against the CPU.
    fn try_out(&self) -> Result<(), BackendError> {
        // Squares: all sizes of scalars, and no structure.
        let squares =
            std::iter::successors(Some(Fr::from(3u64)), |value| Some(value.square() + Fr::from(1u64)));
        let scalars: Vec<Fr> = squares.take(TRIAL).collect();
        self.try_msm::<G1Point>(&scalars, "sum in G1")?;
        self.try_msm::<G2Point>(&scalars[..TRIAL / 8], "sum in G2")?;
        for transform in [Transform::Interpolate { shift: Fr::GENERATOR }, Transform::Evaluate] {
            let (mut here, mut there) = (scalars.clone(), scalars.clone());
            on_cpu(&mut here, transform)?;
            self.ntt(&mut there, transform)?;
            if here != there {
                return Err(DeviceError::WrongResult { what: "transform" }.into());
            }
        }
        Ok(())
    }

    fn try_msm<P: DevicePoint>(&self, scalars: &[Fr], what: &'static str) -> Result<(), BackendError> {
        let points = multiples::<P>(scalars.len());
        if self.msm(&points, scalars)? != msm_on_cpu(&points, scalars) {
            return Err(DeviceError::WrongResult { what }.into());
        }
        Ok(())
    }
}

/// The first `count` multiples of the generator.
fn multiples<P: Point>(count: usize) -> Vec<P> {
    use ark_ec::{CurveGroup, PrimeGroup};
    let generator = Projective::<P::Curve>::generator();
    let sums: Vec<_> =
        std::iter::successors(Some(generator), |sum| Some(*sum + generator)).take(count).collect();
    let points = Projective::normalize_batch(&sums);
    points.iter().map(|point| P::from_affine(point).unwrap_or(P::INFINITY)).collect()
}

/// The CPU's MSM wants no points at infinity: their scalars become zero.
fn msm_on_cpu<P: Point>(points: &[P], scalars: &[Fr]) -> Projective<P::Curve> {
    msm(points, |at| if points[at].is_infinity() { Fr::ZERO } else { scalars[at] }, &|_, _| ())
}

fn on_cpu(values: &mut [Fr], transform: Transform) -> Result<(), NttError> {
    let domain = Domain::new(values.len())?;
    match transform {
        Transform::Interpolate { shift } => {
            domain.interpolate_unscaled(values);
            domain.scale_permuted(values, shift);
        }
        Transform::Evaluate => domain.evaluate_permuted(values),
    }
    Ok(())
}

/// Errors that tell the device's fault from the caller's.
trait Failure: From<DeviceError> + std::fmt::Display {
    /// `None` if the device is not to blame.
    fn class(&self) -> Option<Class>;
    /// Whether the device is gone.
    fn is_lost(&self) -> bool;
    /// The memory that was free for what did not fit as a whole; `None` for other errors.
    fn too_little(&self) -> Option<u64>;
}

fn too_little(error: &DeviceError) -> Option<u64> {
    match error {
        DeviceError::TooLittleMemory { free, .. } => Some(*free),
        _ => None,
    }
}

impl Failure for BackendError {
    fn class(&self) -> Option<Class> {
        match self {
            Self::Device(error) => Some(error.class()),
            _ => None,
        }
    }

    fn is_lost(&self) -> bool {
        matches!(self, Self::Device(DeviceError::Lost { .. }))
    }

    fn too_little(&self) -> Option<u64> {
        match self {
            Self::Device(error) => too_little(error),
            _ => None,
        }
    }
}

impl Failure for Groth16Error {
    fn class(&self) -> Option<Class> {
        match self {
            Self::Device(error) => Some(error.class()),
            // The assignment was checked: a sum was wrong.
            Self::ProofRejected => Some(Class::Transient),
            _ => None,
        }
    }

    fn is_lost(&self) -> bool {
        matches!(self, Self::Device(DeviceError::Lost { .. }))
    }

    fn too_little(&self) -> Option<u64> {
        match self {
            Self::Device(error) => too_little(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_fails_its_trial_is_counted_and_a_missing_one_is_not() {
        let none = DeviceError::Absent { reason: "no driver".into() };
        assert_eq!(Backend::instead(&none).counts(), Counts::default());
        let broken = DeviceError::WrongResult { what: "transform" };
        let failed = Counts { failures: 1, fallbacks: 1, ..Counts::default() };
        assert_eq!(Backend::instead(&broken).counts(), failed);
    }
}
