//! Points that stay on a device, with tables of their multiples where memory allows.
//!
//! With tables, windows share sets of buckets: fewer buckets are weighed, so that wider and fewer windows are best. Making all
//! tables costs a point as many products as about 14 sums and saves a sixth of each sum over 2^20 points (counted, not
//! measured): they are for points that serve a hundred sums, as those of a circuit's key.

use std::marker::PhantomData;
use std::ops::Range;

use ark_ec::short_weierstrass::Projective;

use super::memory::PIECE;
use super::msm::{Launched, Place};
use super::{per_thread, Argument, Device, DeviceError, DevicePoint, Layout, MsmPlan, SortedScalars};

/// Points that share one inversion.
const BATCH: usize = 32;
/// Above this many points more than [`TABLES_OF_MANY`] tables are not worth their memory (predicted, not measured).
const MANY: usize = 1 << 22;
/// Tables of more than [`MANY`] points at most.
const TABLES_OF_MANY: u32 = 4;
/// The numbers of tables that are tried, in this order: one set of buckets, then fewer tables until they fit.
pub const LADDER: [u32; 5] = [u32::MAX, 8, 4, 2, 1];

/// Points of one group on a device, `tables` times: see [`Layout`].
#[derive(Debug)]
pub struct DeviceBases<B, P> {
    points: B,
    count: usize,
    layout: Layout,
    group: PhantomData<P>,
}

/// The layout for `count` points and `large` large scalars with at most `tables` tables.
#[must_use]
pub fn layout_for(count: usize, large: u32, tables: u32) -> Layout {
    Layout::cheapest(large, if count > MANY { tables.min(TABLES_OF_MANY) } else { tables })
}

impl<B, P: DevicePoint> DeviceBases<B, P> {
    /// Uploads points, as [`super::encode_points`] lays them out, and makes their tables.
    ///
    /// Memory: [`super::table_bytes`], and [`super::building_bytes`] until it returns. Cost: `254 - window` doublings a point
    /// for all tables, and an inversion for 32 points of each.
    ///
    /// # Errors
    /// Those of the device; [`DeviceError::TooLarge`] from 2^31 points of all tables on.
    ///
    /// # Panics
    /// If `points` ends within a point.
    pub fn load<D: Device<Buffer = B>>(
        device: &D,
        points: &[u8],
        layout: Layout,
    ) -> Result<Self, DeviceError> {
        Self::load_in_pieces(device, points, layout, PIECE)
    }

    /// [`DeviceBases::load`] with tables made `piece` points at a time.
    ///
    /// # Errors
    /// As [`DeviceBases::load`].
    ///
    /// # Panics
    /// As [`DeviceBases::load`], and without a piece.
    pub fn load_in_pieces<D: Device<Buffer = B>>(
        device: &D,
        points: &[u8],
        layout: Layout,
        piece: usize,
    ) -> Result<Self, DeviceError> {
        assert!(points.len().is_multiple_of(P::BYTES), "whole points");
        let count = points.len() / P::BYTES;
        let all = count * layout.tables() as usize;
        if all >= 1 << 31 {
            return Err(DeviceError::TooLarge {
                what: "points of tables",
                limit: (1 << 31) - 1,
                got: all as u64,
            });
        }
        let buffer = device.alloc(all * P::BYTES)?;
        device.write(&buffer, 0, points)?;
        let bases = Self { points: buffer, count, layout, group: PhantomData };
        if count > 0 && layout.tables() > 1 {
            bases.make_tables(device, piece.min(count))?;
        }
        Ok(bases)
    }

    /// How many points there are, those of the tables not counted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How they are laid out.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Sorts the scalars, in Montgomery form, of the points `range`; serves all bases of the same number and layout.
    ///
    /// # Errors
    /// Those of the device; [`DeviceError::TooLarge`] from 2^32 digits on.
    ///
    /// # Panics
    /// If there are no such points.
    pub fn sort<D: Device<Buffer = B>>(
        &self,
        device: &D,
        scalars: &B,
        range: Range<usize>,
    ) -> Result<SortedScalars<B>, DeviceError> {
        assert!(range.start <= range.end && range.end <= self.count, "a range of the points");
        let place = Place { layout: self.layout, points: self.count, first: range.start };
        SortedScalars::sort(device, scalars, range.len(), MsmPlan::default().task, |_| place)
    }

    /// `sum_i scalar_i * point_i` over the range that the scalars were sorted for.
    ///
    /// # Errors
    /// Those of the device.
    ///
    /// # Panics
    /// If the scalars were sorted for other bases.
    pub fn sum<D: Device<Buffer = B>>(
        &self,
        device: &D,
        sorted: &SortedScalars<B>,
    ) -> Result<Projective<P::Curve>, DeviceError> {
        self.launch(device, sorted)?.finish::<D, P>(device)
    }

    /// Launches the kernels of [`DeviceBases::sum`].
    pub(super) fn launch<D: Device<Buffer = B>>(
        &self,
        device: &D,
        sorted: &SortedScalars<B>,
    ) -> Result<Launched<B>, DeviceError> {
        let place = sorted.place();
        assert!(
            (place.layout, place.points) == (self.layout, self.count),
            "scalars sorted for bases like these"
        );
        sorted.launch_over::<D, P>(device, &self.points)
    }

    /// Each table from the one before, a piece at a time.
    fn make_tables<D: Device<Buffer = B>>(&self, device: &D, piece: usize) -> Result<(), DeviceError> {
        let [double, affine] = P::TABLE_KERNELS;
        let sums = device.alloc(2 * P::BYTES * piece)?;
        let products = device.alloc(P::BYTES / 2 * piece)?;
        for from in 0..self.layout.tables() as usize - 1 {
            for at in (0..self.count).step_by(piece) {
                let count = piece.min(self.count - at);
                let threads = count.div_ceil(BATCH);
                // All of them are below 2^31: see load.
                let number = |value: usize| Argument::Number(value as u32);
                let (first, next) = (from * self.count + at, (from + 1) * self.count + at);
                device.launch(
                    per_thread(double, count, 128)?,
                    &[
                        Argument::Buffer(&self.points),
                        Argument::Buffer(&sums),
                        number(first),
                        number(count),
                        Argument::Number(self.layout.doublings()),
                    ],
                )?;
                device.launch(
                    per_thread(affine, threads, 128)?,
                    &[
                        Argument::Buffer(&sums),
                        Argument::Buffer(&products),
                        Argument::Buffer(&self.points),
                        number(next),
                        number(count),
                        number(threads),
                    ],
                )?;
            }
        }
        Ok(())
    }
}
