//! Sums of any size: over points in host memory or on the device, as many at a time as fit.

use std::ops::Range;

use ark_ec::short_weierstrass::Projective;
use zeroize::Zeroizing;

use super::memory::{largest_cut, msm_bytes, sum_bytes, with_reserve};
use super::{encode_points, Device, DeviceBases, DeviceError, DevicePoint, MsmPlan, SortedScalars};

/// Where the points of a sum are.
#[derive(Debug)]
pub enum Bases<'a, B, P> {
    /// In host memory, uploaded for each sum.
    Host(&'a [P]),
    /// In host memory as [`encode_points`] lays them out, uploaded for each sum.
    Encoded(&'a [u8]),
    /// On the device, perhaps with tables.
    Kept(&'a DeviceBases<B, P>),
}

impl<B, P: DevicePoint> Bases<'_, B, P> {
    /// The most device memory that a sum over `count` of the points takes, in bytes; points that are there already do not count.
    #[must_use]
    pub fn bytes(&self, count: usize) -> u64 {
        let plan = MsmPlan::default();
        match self {
            Self::Host(_) | Self::Encoded(_) => msm_bytes::<P>(count, plan),
            Self::Kept(bases) => sum_bytes::<P>(count, bases.layout(), plan.task),
        }
    }

    /// Sorts the scalars, in Montgomery form, of the points `range`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn sort<D: Device<Buffer = B>>(
        &self,
        device: &D,
        scalars: &B,
        range: Range<usize>,
    ) -> Result<SortedScalars<B>, DeviceError> {
        match self {
            Self::Host(_) | Self::Encoded(_) => {
                SortedScalars::new(device, scalars, range.len(), MsmPlan::default())
            }
            Self::Kept(bases) => bases.sort(device, scalars, range),
        }
    }

    /// `sum_i scalar_i * point_i` over `range`, for which the scalars were sorted.
    ///
    /// # Errors
    /// Those of the device.
    pub fn sum<D: Device<Buffer = B>>(
        &self,
        device: &D,
        sorted: &SortedScalars<B>,
        range: Range<usize>,
    ) -> Result<Projective<P::Curve>, DeviceError> {
        match self {
            Self::Host(points) => sorted.sum::<D, P>(device, &device.upload(&encode_points(&points[range]))?),
            Self::Encoded(bytes) => {
                let bytes = &bytes[P::BYTES * range.start..P::BYTES * range.end];
                sorted.sum::<D, P>(device, &device.upload(bytes)?)
            }
            Self::Kept(bases) => bases.sum(device, sorted),
        }
    }
}

/// Sorts `count` scalars, as many at a time as fit with points of `bases`, and hands each part with its range to `sum`.
///
/// `scalars` encodes a range of them; its bytes are wiped.
///
/// # Errors
/// Those of the device and of `sum`; [`DeviceError::TooLittleMemory`] if not even a small part fits.
pub fn sum_chunks<D: Device, P: DevicePoint>(
    device: &D,
    count: usize,
    bases: &Bases<'_, D::Buffer, P>,
    scalars: &dyn Fn(Range<usize>) -> Zeroizing<Vec<u8>>,
    mut sum: impl FnMut(&SortedScalars<D::Buffer>, Range<usize>) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let chunk = largest_cut(count, device.memory_free()?, |chunk| with_reserve(bases.bytes(chunk)))?;
    for from in (0..count).step_by(chunk.max(1)) {
        let range = from..count.min(from + chunk);
        let buffer = device.upload(&scalars(range.clone()))?;
        let sorted = bases.sort(device, &buffer, range.clone())?;
        drop(buffer);
        sum(&sorted, range)?;
    }
    Ok(())
}
