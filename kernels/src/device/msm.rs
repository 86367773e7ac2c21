//! Multi-scalar multiplication on a device: `cuda/msm.cu`.

use ark_bn254::{Fq, Fq2};
use ark_ec::short_weierstrass::{Affine, Projective};
use ark_ec::{AdditiveGroup, CurveConfig};
use ark_ff::{BigInt, Field, Zero};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{narrow, per_thread, read_word, words, Argument, Device, DeviceError, Launch, Layout, GRAIN};
use crate::msm::{G1Point, G2Point, Point};

/// Buckets that one thread weighs at most.
pub(super) const CHUNK: u32 = 64;

/// A stored point that kernels exist for.
pub trait DevicePoint: Point {
    /// The kernels: accumulate, gather, weigh, fold.
    const KERNELS: [&'static str; 4];
    /// The kernels that make tables: double, affine.
    const TABLE_KERNELS: [&'static str; 2];

    /// A coordinate from its Montgomery words.
    fn coordinate(words: &[u64]) -> <Self::Curve as CurveConfig>::BaseField;
}

fn fq(words: &[u64]) -> Fq {
    Fq::new_unchecked(BigInt::new([words[0], words[1], words[2], words[3]]))
}

impl DevicePoint for G1Point {
    const KERNELS: [&'static str; 4] =
        ["msm_accumulate_g1_kernel", "msm_gather_g1_kernel", "msm_weigh_g1_kernel", "msm_fold_g1_kernel"];
    const TABLE_KERNELS: [&'static str; 2] = ["msm_double_g1_kernel", "msm_affine_g1_kernel"];

    fn coordinate(words: &[u64]) -> Fq {
        fq(words)
    }
}

impl DevicePoint for G2Point {
    const KERNELS: [&'static str; 4] =
        ["msm_accumulate_g2_kernel", "msm_gather_g2_kernel", "msm_weigh_g2_kernel", "msm_fold_g2_kernel"];
    const TABLE_KERNELS: [&'static str; 2] = ["msm_double_g2_kernel", "msm_affine_g2_kernel"];

    fn coordinate(words: &[u64]) -> Fq2 {
        Fq2::new(fq(&words[..4]), fq(&words[4..]))
    }
}

/// The bytes of points as the kernels take them; [`Point::INFINITY`] stands for infinity.
#[must_use]
pub fn encode_points<P: Point>(points: &[P]) -> Vec<u8> {
    let mut bytes = vec![0; points.len() * P::BYTES];
    bytes.par_chunks_mut(P::BYTES * GRAIN).zip(points.par_chunks(GRAIN)).for_each(|(bytes, points)| {
        let words = points.iter().flat_map(|point| (0..2 * P::WIDTH).flat_map(|part| point.part(part)));
        bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
    });
    bytes
}

/// What may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsmPlan {
    /// Bits of a window, 2 to 22; by the number of large scalars if none is given.
    pub window: Option<u32>,
    /// Entries that one thread adds at most, at least 2.
    pub task: u32,
}

impl Default for MsmPlan {
    fn default() -> Self {
        Self { window: None, task: 64 }
    }
}

/// One round of sums: tasks of each bucket, scanned, and their number.
#[derive(Debug)]
struct Round<B> {
    tasks: B,
    total: usize,
}

/// Which points scalars belong to: of tables of `points` each, those from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) layout: Layout,
    pub(super) points: usize,
    pub(super) first: usize,
}

/// Scalars cut into digits and sorted by bucket; serves any number of point sets.
#[derive(Debug)]
pub struct SortedScalars<B> {
    count: usize,
    place: Place,
    task: u32,
    /// Scalars that are 0, 1 or -1, below 2^64 in absolute value, larger.
    classes: [u32; 4],
    entries: B,
    offsets: B,
    rounds: Vec<Round<B>>,
}

impl<B> SortedScalars<B> {
    /// Sorts `count` scalars in Montgomery form, for points without tables.
    ///
    /// Memory: 32 bytes a scalar (freed at the end), 4 bytes a digit that is not zero, 12 bytes and more a bucket. The
    /// scratch buffers are not wiped: that is the device's part.
    ///
    /// # Errors
    /// Those of the device; [`DeviceError::TooLarge`] from 2^31 scalars or 2^32 digits on.
    ///
    /// # Panics
    /// If the plan is out of its bounds.
    pub fn new<D: Device<Buffer = B>>(
        device: &D,
        scalars: &B,
        count: usize,
        plan: MsmPlan,
    ) -> Result<Self, DeviceError> {
        let place = |large| {
            let layout =
                plan.window.map_or_else(|| Layout::cheapest(large, 1), |window| Layout::new(window, 1));
            Place { layout, points: count, first: 0 }
        };
        Self::sort(device, scalars, count, plan.task, place)
    }

    /// Sorts `count` scalars for the points at `place`, which may depend on the number of large scalars.
    pub(super) fn sort<D: Device<Buffer = B>>(
        device: &D,
        scalars: &B,
        count: usize,
        task: u32,
        place: impl FnOnce(u32) -> Place,
    ) -> Result<Self, DeviceError> {
        assert!(task >= 2, "a plan within bounds");
        if count >= 1 << 31 {
            return Err(DeviceError::TooLarge { what: "scalars", limit: (1 << 31) - 1, got: count as u64 });
        }
        let (recoded, classes) = recode(device, scalars, count)?;
        let place = place(classes[3]);
        let layout = place.layout;
        narrow("digits", count * layout.windows() as usize)?;
        let keys = layout.keys();
        let offset: Vec<u8> = layout.offset().iter().flat_map(|word| word.to_le_bytes()).collect();
        let offset = device.upload(&offset)?;
        let offsets = device.alloc(4 * (keys + 1))?;
        let digits = || {
            [count as u32, layout.window(), layout.windows(), layout.sets()].map(Argument::Number).into_iter()
        };
        if count > 0 {
            let mut arguments = Vec::from([&recoded, &offset, &offsets].map(Argument::Buffer));
            arguments.extend(digits());
            device.launch(per_thread("msm_count_kernel", count, 256)?, &arguments)?;
        }
        scan(device, &offsets, keys + 1)?;
        let entries = device.alloc(4 * (read_word(device, &offsets, keys)? as usize).max(1))?;
        if count > 0 {
            let taken = device.alloc(4 * keys)?;
            let mut arguments =
                Vec::from([&recoded, &offset, &offsets, &taken, &entries].map(Argument::Buffer));
            arguments.extend(digits());
            arguments.extend([place.points as u32, place.first as u32].map(Argument::Number));
            device.launch(per_thread("msm_scatter_kernel", count, 256)?, &arguments)?;
        }
        drop(recoded);
        let rounds = rounds(device, &offsets, keys, task)?;
        Ok(Self { count, place, task, classes, entries, offsets, rounds })
    }

    /// How many scalars are 0, 1 or -1, below 2^64 in absolute value, and larger.
    #[must_use]
    pub fn classes(&self) -> [u32; 4] {
        self.classes
    }

    /// `sum_i scalar_i * points[i]`; `points` holds as many points as there are scalars, as [`encode_points`] lays them out.
    ///
    /// # Errors
    /// Those of the device.
    ///
    /// # Panics
    /// If the scalars were sorted for tables: [`DeviceBases::sum`] is theirs.
    ///
    /// [`DeviceBases::sum`]: super::DeviceBases::sum
    pub fn sum<D: Device<Buffer = B>, P: DevicePoint>(
        &self,
        device: &D,
        points: &B,
    ) -> Result<Projective<P::Curve>, DeviceError> {
        self.launch::<D, P>(device, points)?.finish::<D, P>(device)
    }

    /// Launches the kernels of [`SortedScalars::sum`].
    pub(super) fn launch<D: Device<Buffer = B>, P: DevicePoint>(
        &self,
        device: &D,
        points: &B,
    ) -> Result<Launched<B>, DeviceError> {
        assert!(self.place.layout.tables() == 1 && self.place.first == 0, "scalars sorted for these points");
        self.launch_over::<D, P>(device, points)
    }

    /// Where the points of these scalars are.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Launches the sum over the points at [`SortedScalars::place`] of `points`.
    pub(super) fn launch_over<D: Device<Buffer = B>, P: DevicePoint>(
        &self,
        device: &D,
        points: &B,
    ) -> Result<Launched<B>, DeviceError> {
        let layout = self.place.layout;
        if self.count == 0 || self.rounds.is_empty() {
            return Ok(Launched { layout, sums: None });
        }
        let (sums, offsets) = self.sum_buckets::<D, P>(device, points)?;
        let sets = self.sum_sets::<D, P>(device, &sums, offsets)?;
        Ok(Launched { layout, sums: Some([sums, sets]) })
    }

    /// Sums the points of every bucket, `task` at a time: first the points, then sums of sums.
    ///
    /// Returns the sums (two coordinates each), and where each bucket's begin.
    fn sum_buckets<'a, D: Device<Buffer = B>, P: DevicePoint>(
        &'a self,
        device: &D,
        points: &B,
    ) -> Result<(B, &'a B), DeviceError> {
        let [accumulate, gather, ..] = P::KERNELS;
        let keys = || Argument::Number(self.place.layout.keys() as u32);
        let task = || Argument::Number(self.task);
        let (first, more) = (&self.rounds[0], &self.rounds[1..]);
        let mut sums = device.alloc(2 * P::BYTES * first.total.max(1))?;
        if first.total > 0 {
            device.launch(
                per_thread(accumulate, first.total, 128)?,
                &[
                    Argument::Buffer(&self.entries),
                    Argument::Buffer(points),
                    Argument::Buffer(&self.offsets),
                    Argument::Buffer(&first.tasks),
                    Argument::Buffer(&sums),
                    keys(),
                    task(),
                ],
            )?;
        }
        let mut offsets = &first.tasks;
        for round in more {
            let next = device.alloc(2 * P::BYTES * round.total.max(1))?;
            device.launch(
                per_thread(gather, round.total, 128)?,
                &[
                    Argument::Buffer(&sums),
                    Argument::Buffer(offsets),
                    Argument::Buffer(&round.tasks),
                    Argument::Buffer(&next),
                    keys(),
                    task(),
                ],
            )?;
            (sums, offsets) = (next, &round.tasks);
        }
        Ok((sums, offsets))
    }

    /// Weighs each set's buckets by their number and adds them up: one sum per set.
    fn sum_sets<D: Device<Buffer = B>, P: DevicePoint>(
        &self,
        device: &D,
        sums: &B,
        offsets: &B,
    ) -> Result<B, DeviceError> {
        let [_, _, weigh, fold] = P::KERNELS;
        let bytes = 2 * P::BYTES;
        let (buckets, sets) = (self.place.layout.buckets(), self.place.layout.sets());
        let chunk = buckets.min(CHUNK);
        let mut before = buckets / chunk;
        let mut partial = device.alloc(bytes * (before * sets) as usize)?;
        device.launch(
            per_thread(weigh, (before * sets) as usize, 128)?,
            &[
                Argument::Buffer(sums),
                Argument::Buffer(offsets),
                Argument::Buffer(&partial),
                Argument::Number(buckets),
                Argument::Number(chunk),
                Argument::Number(before * sets),
            ],
        )?;
        while before > 1 {
            let after = before.div_ceil(128);
            let next = device.alloc(bytes * (after * sets) as usize)?;
            device.launch(
                Launch { kernel: fold, grid: after * sets, block: 64, shared: 64 * bytes as u32 },
                &[
                    Argument::Buffer(&partial),
                    Argument::Buffer(&next),
                    Argument::Number(before),
                    Argument::Number(after),
                ],
            )?;
            (partial, before) = (next, after);
        }
        Ok(partial)
    }
}

/// A sum whose kernels are launched.
#[derive(Debug)]
pub(super) struct Launched<B> {
    layout: Layout,
    /// Of buckets and of sets of them; `None` without scalars.
    sums: Option<[B; 2]>,
}

impl<B> Launched<B> {
    /// Waits for it.
    pub(super) fn finish<D: Device<Buffer = B>, P: DevicePoint>(
        self,
        device: &D,
    ) -> Result<Projective<P::Curve>, DeviceError> {
        let Some([_, sets]) = &self.sums else { return Ok(Projective::zero()) };
        let bytes = Zeroizing::new(device.download(sets, 0..2 * P::BYTES * self.layout.sets() as usize)?);
        Ok(combine::<P>(&Zeroizing::new(words(&bytes)), self.layout.window()))
    }
}

/// Absolute values with signs, and the number of scalars in each class.
fn recode<D: Device>(
    device: &D,
    scalars: &D::Buffer,
    count: usize,
) -> Result<(D::Buffer, [u32; 4]), DeviceError> {
    let recoded = device.alloc(32 * count.max(1))?;
    let classes = device.alloc(16)?;
    if count > 0 {
        device.launch(
            per_thread("msm_recode_kernel", count, 256)?,
            &[
                Argument::Buffer(scalars),
                Argument::Buffer(&recoded),
                Argument::Buffer(&classes),
                Argument::Number(count as u32),
            ],
        )?;
    }
    let pairs = words(&device.download(&classes, 0..16)?);
    let half = |word: u64| [word as u32, (word >> 32) as u32];
    let ([a, b], [c, d]) = (half(pairs[0]), half(pairs[1]));
    Ok((recoded, [a, b, c, d]))
}

/// Exclusive sums of `count` words in place.
fn scan<D: Device>(device: &D, values: &D::Buffer, count: usize) -> Result<(), DeviceError> {
    let tiles = count.div_ceil(1024);
    let sums = device.alloc(4 * tiles)?;
    let number = Argument::Number(narrow("words to scan", count)?);
    device.launch(
        Launch { kernel: "msm_scan_kernel", grid: tiles as u32, block: 256, shared: 0 },
        &[Argument::Buffer(values), Argument::Buffer(&sums), number],
    )?;
    if tiles > 1 {
        scan(device, &sums, tiles)?;
        let arguments = [Argument::Buffer(values), Argument::Buffer(&sums), Argument::Number(count as u32)];
        device.launch(per_thread("msm_scan_add_kernel", count, 256)?, &arguments)?;
    }
    Ok(())
}

/// Cuts buckets into tasks, and those sums into tasks again, until every bucket has one sum at most.
fn rounds<D: Device>(
    device: &D,
    offsets: &D::Buffer,
    keys: usize,
    task: u32,
) -> Result<Vec<Round<D::Buffer>>, DeviceError> {
    let mut rounds: Vec<Round<D::Buffer>> = Vec::new();
    loop {
        let tasks = device.alloc(4 * (keys + 1))?;
        let longest = device.alloc(4)?;
        let offsets = rounds.last().map_or(offsets, |round| &round.tasks);
        device.launch(
            per_thread("msm_tasks_kernel", keys + 1, 256)?,
            &[
                Argument::Buffer(offsets),
                Argument::Buffer(&tasks),
                Argument::Buffer(&longest),
                Argument::Number(keys as u32),
                Argument::Number(task),
            ],
        )?;
        scan(device, &tasks, keys + 1)?;
        let total = read_word(device, &tasks, keys)? as usize;
        rounds.push(Round { tasks, total });
        if read_word(device, &longest, 0)? <= task {
            return Ok(rounds);
        }
    }
}

/// `sum 2^(window i) * point_i` over the sets' XYZZ points.
fn combine<P: DevicePoint>(words: &[u64], window: u32) -> Projective<P::Curve> {
    let width = 4 * P::WIDTH;
    let mut sum = Projective::<P::Curve>::zero();
    for point in words.chunks_exact(4 * width).rev() {
        for _ in 0..window {
            sum.double_in_place();
        }
        let part = |index: usize| P::coordinate(&point[index * width..(index + 1) * width]);
        if let (Some(zz), Some(zzz)) = (part(2).inverse(), part(3).inverse()) {
            sum += Affine::<P::Curve>::new_unchecked(part(0) * zz, part(1) * zzz);
        }
    }
    sum
}
