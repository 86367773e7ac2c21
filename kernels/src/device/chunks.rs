//! Sums of any size: over points in host memory or on the device, as many at a time as fit, and the points of the next part on their
//! way while the kernels of one run.

use std::ops::Range;

use ark_ec::short_weierstrass::Projective;
use ark_ff::Zero;
use zeroize::Zeroizing;

use super::memory::{largest_cut, msm_bytes, points_bytes, sum_bytes, with_reserve};
use super::msm::Launched;
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

    /// The device memory of `count` points that are sent while something else runs, in bytes.
    pub(crate) fn ahead_bytes(&self, count: usize) -> u64 {
        match self {
            Self::Host(_) | Self::Encoded(_) => points_bytes::<P>(count),
            Self::Kept(_) => 0,
        }
    }

    /// Sends the points; `None` if they are there.
    fn send<D: Device<Buffer = B>>(&self, device: &D, range: Range<usize>) -> Result<Option<B>, DeviceError> {
        match self {
            Self::Host(points) => device.send(&encode_points(&points[range])).map(Some),
            Self::Encoded(bytes) => {
                device.send(&bytes[P::BYTES * range.start..P::BYTES * range.end]).map(Some)
            }
            Self::Kept(_) => Ok(None),
        }
    }
}

/// A sum, taken part by part.
#[derive(Debug)]
pub struct Sum<'a, B, P: DevicePoint> {
    bases: Bases<'a, B, P>,
    total: Projective<P::Curve>,
    /// Points that were sent before their part's turn.
    ahead: Option<(Range<usize>, B)>,
    /// The part whose kernels run, with its points.
    running: Option<(Launched<B>, Option<B>)>,
}

impl<'a, B, P: DevicePoint> Sum<'a, B, P> {
    /// A sum over no points of `bases` so far.
    #[must_use]
    pub fn new(bases: Bases<'a, B, P>) -> Self {
        Self { bases, total: Projective::zero(), ahead: None, running: None }
    }

    /// The sum of all parts that were summed.
    pub fn total(&self) -> Projective<P::Curve> {
        self.total
    }
}

/// A [`Sum`] in either group, as [`Job`] sees it. Ranges are of points.
pub trait Summand<D: Device> {
    /// As [`Bases::bytes`].
    fn bytes(&self, count: usize) -> u64;

    /// The device memory of the points of `count` in bytes, if they are sent before their turn.
    fn ahead_bytes(&self, count: usize) -> u64;

    /// What is sent and has not had its turn.
    fn ahead(&self) -> Option<Range<usize>>;

    /// Sends the points of `range` before their turn; none if memory is short.
    ///
    /// # Errors
    /// Those of the device, but for [`DeviceError::OutOfMemory`].
    fn send_ahead(&mut self, device: &D, range: Range<usize>) -> Result<(), DeviceError>;

    /// Gives back what was sent before its turn.
    fn forget_ahead(&mut self);

    /// Sorts the scalars, in Montgomery form, of the points `range`.
    ///
    /// # Errors
    /// Those of the device.
    fn sort(
        &self,
        device: &D,
        scalars: &D::Buffer,
        range: Range<usize>,
    ) -> Result<SortedScalars<D::Buffer>, DeviceError>;

    /// Launches the sum over the points `range`, for which the scalars were sorted.
    ///
    /// # Errors
    /// Those of the device.
    fn launch(
        &mut self,
        device: &D,
        sorted: &SortedScalars<D::Buffer>,
        range: Range<usize>,
    ) -> Result<(), DeviceError>;

    /// Waits for what was launched, and adds it.
    ///
    /// # Errors
    /// Those of the device.
    fn finish(&mut self, device: &D) -> Result<(), DeviceError>;
}

impl<D: Device, P: DevicePoint> Summand<D> for Sum<'_, D::Buffer, P> {
    fn bytes(&self, count: usize) -> u64 {
        self.bases.bytes(count)
    }

    fn ahead_bytes(&self, count: usize) -> u64 {
        self.bases.ahead_bytes(count)
    }

    fn ahead(&self) -> Option<Range<usize>> {
        self.ahead.as_ref().map(|(range, _)| range.clone())
    }

    fn send_ahead(&mut self, device: &D, range: Range<usize>) -> Result<(), DeviceError> {
        match self.bases.send(device, range.clone()) {
            Ok(points) => self.ahead = points.map(|points| (range, points)),
            // Others use the device too.
            Err(error @ DeviceError::OutOfMemory { .. }) => {
                tracing::debug!(%error, "points are not sent ahead")
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn forget_ahead(&mut self) {
        self.ahead = None;
    }

    fn sort(
        &self,
        device: &D,
        scalars: &D::Buffer,
        range: Range<usize>,
    ) -> Result<SortedScalars<D::Buffer>, DeviceError> {
        match &self.bases {
            Bases::Host(_) | Bases::Encoded(_) => {
                SortedScalars::new(device, scalars, range.len(), MsmPlan::default())
            }
            Bases::Kept(bases) => bases.sort(device, scalars, range),
        }
    }

    fn launch(
        &mut self,
        device: &D,
        sorted: &SortedScalars<D::Buffer>,
        range: Range<usize>,
    ) -> Result<(), DeviceError> {
        let points = match self.ahead.take() {
            Some((ahead, points)) if ahead == range => Some(points),
            _ => self.bases.send(device, range)?,
        };
        let launched = match (&self.bases, &points) {
            (Bases::Kept(bases), _) => bases.launch(device, sorted)?,
            (_, Some(points)) => sorted.launch::<D, P>(device, points)?,
            (_, None) => return Ok(()),
        };
        self.running = Some((launched, points));
        Ok(())
    }

    fn finish(&mut self, device: &D) -> Result<(), DeviceError> {
        if let Some((launched, _points)) = self.running.take() {
            self.total += launched.finish::<D, P>(device)?;
        }
        Ok(())
    }
}

/// Sums over the same scalars, which are sorted once for all of them.
pub struct Job<'a, D: Device> {
    count: usize,
    sums: Vec<&'a mut dyn Summand<D>>,
}

/// How a job is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// Points of a part at most.
    chunk: usize,
    /// Whether there is room for points that are sent before their turn.
    ahead: bool,
}

impl<D: Device> std::fmt::Debug for Job<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("count", &self.count).field("sums", &self.sums.len()).finish()
    }
}

impl<'a, D: Device> Job<'a, D> {
    /// Sums over `count` scalars, in this order.
    #[must_use]
    pub fn new(count: usize, sums: Vec<&'a mut dyn Summand<D>>) -> Self {
        Self { count, sums }
    }

    /// The most device memory that a part of `chunk` points takes, in bytes, without and with points sent before their turn; and a
    /// reserve for the driver and for fragments.
    fn bytes(&self, chunk: usize) -> [u64; 2] {
        let most = |bytes: &dyn Fn(&dyn Summand<D>) -> u64| {
            self.sums.iter().map(|sum| bytes(&**sum)).max().unwrap_or(0)
        };
        let alone = most(&|sum| sum.bytes(chunk));
        [alone, alone + most(&|sum| sum.ahead_bytes(chunk))].map(with_reserve)
    }

    /// All at once if that fits, else parts that leave room for the points of the next, else parts that do not.
    fn cut(&self, free: u64) -> Result<Cut, DeviceError> {
        let [alone, ahead] = self.bytes(self.count);
        if alone <= free {
            return Ok(Cut { chunk: self.count, ahead: ahead <= free });
        }
        match largest_cut(self.count, free, |chunk| self.bytes(chunk)[1]) {
            Ok(chunk) => Ok(Cut { chunk, ahead: true }),
            Err(_) => {
                let chunk = largest_cut(self.count, free, |chunk| self.bytes(chunk)[0])?;
                Ok(Cut { chunk, ahead: false })
            }
        }
    }

    /// Sends the first points before their turn, if `room` bytes hold them and `free` bytes the job with them.
    ///
    /// # Errors
    /// Those of the device.
    pub fn send_ahead(&mut self, device: &D, room: u64, free: u64) -> Result<(), DeviceError> {
        // What does not fit is found again when it is the job's turn.
        let Ok(Cut { chunk, ahead: true }) = self.cut(free) else { return Ok(()) };
        match self.sums.first_mut() {
            Some(first) if first.ahead_bytes(chunk) <= room => first.send_ahead(device, 0..chunk),
            _ => Ok(()),
        }
    }

    /// Memory for this job, in bytes, and its cut. Points that were sent for another cut are given back.
    fn plan(&mut self, device: &D) -> Result<(u64, Cut), DeviceError> {
        let Some(first) = self.sums.first_mut() else {
            return Ok((0, Cut { chunk: self.count, ahead: false }));
        };
        let ahead = first.ahead();
        let held = ahead.as_ref().map_or(0, |range| first.ahead_bytes(range.len()));
        let free = device.memory_free()? + held;
        let cut = self.cut(free);
        if ahead.is_some_and(|range| !matches!(cut, Ok(Cut { chunk, ahead: true }) if range == (0..chunk))) {
            self.sums[0].forget_ahead();
        }
        Ok((free, cut?))
    }

    /// All sums over a part; while the kernels of one run, the points of the next are sent, if need be those of `next`.
    fn sum_part(
        &mut self,
        device: &D,
        sorted: &SortedScalars<D::Buffer>,
        range: Range<usize>,
        (free, cut): (u64, Cut),
        next: Option<&mut Job<'_, D>>,
    ) -> Result<(), DeviceError> {
        let mut next = next;
        for at in 0..self.sums.len() {
            self.sums[at].launch(device, sorted, range.clone())?;
            let (later, end) = (range.end, self.count.min(range.end + cut.chunk));
            if at + 1 < self.sums.len() {
                if cut.ahead {
                    self.sums[at + 1].send_ahead(device, range.clone())?;
                }
            } else if later < self.count {
                if cut.ahead {
                    self.sums[0].send_ahead(device, later..end)?;
                }
            } else if let Some(next) = next.take() {
                next.send_ahead(device, free.saturating_sub(self.bytes(cut.chunk)[0]), free)?;
            }
            self.sums[at].finish(device)?;
        }
        Ok(())
    }
}

/// Sorts the scalars of `job`, as many at a time as fit with points of its sums, and adds up each part. The first points of `next`
/// are sent while the last kernels run, if there is room.
///
/// `scalars` encodes a range of them; its bytes are wiped.
///
/// # Errors
/// Those of the device; [`DeviceError::TooLittleMemory`] if not even a small part fits.
///
/// # Panics
/// If the job has scalars and no sum.
pub fn sum_chunks<D: Device>(
    device: &D,
    job: &mut Job<'_, D>,
    scalars: &dyn Fn(Range<usize>) -> Zeroizing<Vec<u8>>,
    mut next: Option<&mut Job<'_, D>>,
) -> Result<(), DeviceError> {
    let plan = job.plan(device)?;
    for from in (0..job.count).step_by(plan.1.chunk.max(1)) {
        let range = from..job.count.min(from + plan.1.chunk);
        let buffer = device.upload(&scalars(range.clone()))?;
        let sorted = job.sums[0].sort(device, &buffer, range.clone())?;
        drop(buffer);
        job.sum_part(device, &sorted, range, plan, next.as_deref_mut())?;
    }
    Ok(())
}

/// [`sum_chunks`] over `scalars` on the device, in Montgomery form, if all fit at once; else they are returned, and nothing is summed.
///
/// # Errors
/// Those of the device.
pub fn sum_at_once<D: Device>(
    device: &D,
    job: &mut Job<'_, D>,
    scalars: D::Buffer,
    next: Option<&mut Job<'_, D>>,
) -> Result<Option<D::Buffer>, DeviceError> {
    let plan = match job.plan(device) {
        Ok(plan) if plan.1.chunk == job.count => plan,
        // Without them there may be room.
        Ok(_) | Err(DeviceError::TooLittleMemory { .. }) => return Ok(Some(scalars)),
        Err(error) => return Err(error),
    };
    let sorted = job.sums[0].sort(device, &scalars, 0..job.count)?;
    drop(scalars);
    job.sum_part(device, &sorted, 0..job.count, plan, next)?;
    Ok(None)
}
