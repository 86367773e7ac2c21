//! A proving key whose points stay on the device.

use std::sync::{Arc, Mutex, PoisonError};

use ark_bn254::{Bn254, Fr};
use ark_groth16::Proof;
use zeroize::Zeroizing;

use super::Backend;
use crate::device::{Device, DeviceError, Gpu};
use crate::groth16::{self, DeviceKey, Groth16Error, Progress, ProofMemory, ProvingKey};
use crate::r1cs::R1cs;

/// A key for many proofs: [`Backend::keep`].
#[derive(Debug)]
pub struct KeptKey<D: Device = Gpu> {
    backend: Arc<Backend<D>>,
    key: Arc<ProvingKey>,
    points: KeptPoints<D::Buffer>,
}

/// The points of a key on the device, if they are kept and may still be right.
#[derive(Debug)]
pub(super) struct KeptPoints<B>(Mutex<Option<Arc<DeviceKey<B>>>>);

impl<B> KeptPoints<B> {
    pub(super) fn none() -> Self {
        Self(Mutex::new(None))
    }

    pub(super) fn get(&self) -> Option<Arc<DeviceKey<B>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a failure they may be wrong, or what another attempt lacks memory for.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<D: Device> KeptKey<D> {
    /// Tables of the sections H, L, A and B, 1 for points alone; `None` if nothing is kept, or no longer.
    #[must_use]
    pub fn tables(&self) -> Option<[u32; 4]> {
        self.points.get().map(|points| points.tables())
    }

    /// Device memory of a proof with this key, beside the points that are kept.
    #[must_use]
    pub fn memory(&self) -> ProofMemory {
        groth16::proof_memory(&self.key, self.points.get().as_deref())
    }

    /// [`Backend::prove`] with this key. After a failure of the device the points are not used any more.
    ///
    /// # Errors
    /// As [`Backend::prove`].
    pub fn prove(
        &self,
        r1cs: &R1cs,
        assignment: &[Fr],
        progress: Progress<'_>,
    ) -> Result<Proof<Bn254>, Groth16Error> {
        self.backend.prove_on((&self.key, &self.points), r1cs, assignment, &groth16::blinding()?, progress)
    }

    /// [`KeptKey::prove`] with given blinding scalars: for comparisons. A proof with known or repeated `r`, `s` leaks the witness.
    ///
    /// # Errors
    /// As [`Backend::prove`].
    pub fn prove_with(
        &self,
        r1cs: &R1cs,
        assignment: &[Fr],
        r: Fr,
        s: Fr,
        progress: Progress<'_>,
    ) -> Result<Proof<Bn254>, Groth16Error> {
        let blinding = [r, s].map(Zeroizing::new);
        self.backend.prove_on((&self.key, &self.points), r1cs, assignment, &blinding, progress)
    }
}

impl<D: Device> Backend<D> {
    /// Uploads the points of `key` once for many proofs, with tables of their multiples where memory allows.
    ///
    /// The tables pay from about eighty proofs on (by counts of products, not measured), the points from the second. Where the
    /// device is lost or has no room, nothing is kept and proofs are made as without.
    ///
    /// # Errors
    /// [`DeviceError`] only [without fallback](Self::without_fallback), and never for want of memory.
    pub fn keep(self: &Arc<Self>, key: &Arc<ProvingKey>) -> Result<KeptKey<D>, DeviceError> {
        let kept = |points| KeptKey { backend: Arc::clone(self), key: Arc::clone(key), points };
        let Some(device) = self.device.as_ref().filter(|_| !self.is_lost()) else {
            return Ok(kept(KeptPoints::none()));
        };
        match DeviceKey::load(device, key) {
            Ok(points) => {
                let kept = kept(KeptPoints(Mutex::new(points.map(Arc::new))));
                tracing::info!(tables = ?kept.tables(), "points of a key are kept on the GPU");
                Ok(kept)
            }
            Err(error) => {
                self.counters.add(|counts| &mut counts.failures);
                tracing::warn!(%error, "the GPU failed to keep the points of a key");
                if self.fallback {
                    Ok(kept(KeptPoints::none()))
                } else {
                    Err(error)
                }
            }
        }
    }
}
