//! Device memory, planned before anything is allocated: upper bounds, and how far a sum must be cut to fit.

use super::msm::CHUNK;
use super::{DeviceError, DevicePoint, Layout, MsmPlan, Planned};

/// Allocations are rounded up to this.
const GRANULE: u64 = 512;
/// Below this many points a sum is not cut any further.
const LEAST_CHUNK: usize = 1 << 10;
/// Points whose next table is made at a time.
pub(super) const PIECE: usize = 1 << 20;

/// Bytes that one allocation takes at most.
fn room(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(GRANULE)
}

/// Bytes of the buffers of an exclusive sum over `words` words, beside the words.
fn scan_bytes(words: u64) -> u64 {
    let tiles = words.div_ceil(1024);
    room(4 * tiles) + if tiles > 1 { scan_bytes(tiles) } else { 0 }
}

/// The most device memory that sorting `count` scalars and summing as many points takes at a time, in bytes: the scalars' and
/// the points' own buffers included, which are not needed at the same time.
#[must_use]
pub fn msm_bytes<P: DevicePoint>(count: usize, plan: MsmPlan) -> u64 {
    let all = u32::try_from(count).unwrap_or(u32::MAX);
    let points = points_bytes::<P>(count);
    let bytes = |large, layout| scratch::<P>(count as u64, large, layout, plan.task, points);
    if let Some(window) = plan.window {
        return bytes(all, Layout::new(window, 1));
    }
    // The window follows from the number of large scalars, which is not known yet: the worst of all.
    (4..=window_for(all))
        .filter_map(|window| Some(bytes(most_large(window, all)?, Layout::new(window, 1))))
        .max()
        .unwrap_or(0)
}

/// The device memory of `count` points, in bytes: what comes to [`msm_bytes`] for points that are sent before their turn.
#[must_use]
pub fn points_bytes<P: DevicePoint>(count: usize) -> u64 {
    room(P::BYTES as u64 * count as u64)
}

/// The device memory of the tables of `layout` for `count` points, in bytes: what [`super::DeviceBases`] keep.
#[must_use]
pub fn table_bytes<P: DevicePoint>(count: usize, layout: Layout) -> u64 {
    room(P::BYTES as u64 * count as u64 * u64::from(layout.tables()))
}

/// The most device memory that [`super::DeviceBases::load`] takes beside the tables, for the time of the call.
#[must_use]
pub fn building_bytes<P: DevicePoint>(count: usize, layout: Layout) -> u64 {
    if layout.tables() == 1 {
        return 0;
    }
    // A sum and a coordinate a point.
    let piece = count.min(PIECE) as u64;
    room(2 * P::BYTES as u64 * piece) + room(P::BYTES as u64 / 2 * piece)
}

/// The most device memory that sorting `count` scalars and summing over kept tables takes at a time, in bytes: the scalars
/// included, the tables not.
#[must_use]
pub fn sum_bytes<P: DevicePoint>(count: usize, layout: Layout, task: u32) -> u64 {
    scratch::<P>(count as u64, u32::try_from(count).unwrap_or(u32::MAX), layout, task, 0)
}

/// The window for `large` scalars without tables.
fn window_for(large: u32) -> u32 {
    Layout::cheapest(large, 1).window()
}

/// The largest number of large scalars up to `all` for which no window above `window` is chosen.
fn most_large(window: u32, all: u32) -> Option<u32> {
    if window_for(0) > window {
        return None;
    }
    let (mut low, mut high) = (0, all);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if window_for(middle) <= window {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Some(low)
}

/// Of sorting and summing, with points that take `points` bytes.
fn scratch<P: DevicePoint>(count: u64, large: u32, layout: Layout, task: u32, points: u64) -> u64 {
    let (large, task) = (u64::from(large), u64::from(task));
    let (windows, keys) = (u64::from(layout.windows()), layout.keys() as u64);
    let digits = large * windows + (count - large) * windows.min(64 / u64::from(layout.window()) + 2);
    let sum = 2 * P::BYTES as u64;

    let mut rounds = 1;
    // All scalars may be equal: a digit of each table in one bucket.
    let mut longest = count * u64::from(layout.tables());
    while longest > task {
        (rounds, longest) = (rounds + 1, longest.div_ceil(task));
    }
    let kept = room(4 * digits) + (1 + rounds) * room(4 * (keys + 1)) + rounds * room(4);
    let sorting = 2 * room(32 * count) + 3 * room(32) + kept + room(4 * keys) + scan_bytes(keys + 1);

    let first = digits.min(keys) + digits / task;
    let second = if rounds > 1 { digits.min(keys) + first / task } else { 0 };
    let partial = u64::from(layout.sets()) * u64::from(layout.buckets().div_ceil(CHUNK));
    let summing = points + kept + room(sum * first) + room(sum * second) + 2 * room(sum * partial);
    sorting.max(summing)
}

/// How many of `count` points can be summed at a time in `free` bytes: all of them, or the largest half of a half that fits.
///
/// # Errors
/// [`DeviceError::TooLittleMemory`] with what the smallest cut needs.
pub fn msm_chunk<P: DevicePoint>(count: usize, plan: MsmPlan, free: u64) -> Result<usize, DeviceError> {
    largest_cut(count, free, |chunk| msm_bytes::<P>(chunk, plan))
}

/// The largest half of a half of `count` for which `bytes` are free.
pub(super) fn largest_cut(
    count: usize,
    free: u64,
    bytes: impl Fn(usize) -> u64,
) -> Result<usize, DeviceError> {
    let mut chunk = count;
    loop {
        let needed = bytes(chunk);
        if needed <= free {
            return Ok(chunk);
        }
        if chunk <= LEAST_CHUNK {
            return Err(DeviceError::TooLittleMemory { what: Planned::Sum(count as u64), needed, free });
        }
        chunk = chunk.div_ceil(2);
    }
}

/// How many of `count` points are summed at a time where memory is shortest.
pub(crate) fn least_cut(count: usize) -> usize {
    std::iter::successors(Some(count), |chunk| Some(chunk.div_ceil(2)))
        .find(|chunk| *chunk <= LEAST_CHUNK)
        .unwrap_or(count)
}

/// `bytes`, and a sixteenth of the whole for the driver and for fragments.
pub(crate) fn with_reserve(bytes: u64) -> u64 {
    bytes.saturating_mul(16).div_ceil(15)
}

/// The device memory of transforms over `size` points: `arrays` arrays of values, the domain's tables and one coset's.
#[must_use]
pub fn ntt_bytes(size: usize, arrays: u64) -> u64 {
    let size = size as u64;
    // Two tables of powers of about the square root for each radix-3 pass and direction, and for the coset.
    let root = 1u64 << (size.max(1).ilog2() / 2 + 2);
    arrays * room(32 * size) + room(16 * size.max(2)) + 16 * room(32 * 9 * root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msm::{G1Point, G2Point};

    #[test]
    fn windows_widen_with_the_number_of_large_scalars() {
        let windows: Vec<u32> = (0..32).map(|log| window_for(1 << log)).collect();
        assert!(windows.is_sorted(), "{windows:?}");
        for window in windows {
            let most = most_large(window, u32::MAX).unwrap();
            assert!(window_for(most) <= window);
            assert!(most == u32::MAX || window_for(most + 1) > window);
        }
    }

    #[test]
    fn sums_are_cut_until_they_fit() {
        let plan = MsmPlan::default();
        let whole = msm_bytes::<G1Point>(1 << 20, plan);
        assert_eq!(msm_chunk::<G1Point>(1 << 20, plan, whole).unwrap(), 1 << 20);
        let chunk = msm_chunk::<G1Point>(1 << 20, plan, whole - 1).unwrap();
        assert_eq!(chunk, 1 << 19);
        assert!(msm_bytes::<G1Point>(chunk, plan) < whole);
        let Err(DeviceError::TooLittleMemory { needed, free: 1000, .. }) =
            msm_chunk::<G2Point>(1 << 20, plan, 1000)
        else {
            panic!("1000 bytes are not enough");
        };
        assert!(needed > 1000 && needed < msm_bytes::<G2Point>(1 << 11, plan));
        assert_eq!(needed, msm_bytes::<G2Point>(least_cut(1 << 20), plan));
        assert_eq!([0, 1, 1024, 1025, 3 << 20].map(least_cut), [0, 1, 1024, 513, 768]);
    }

    #[test]
    fn the_wrap_circuit_fits_a_large_gpu_whole() {
        let plan = MsmPlan::default();
        let whole = msm_bytes::<G1Point>(3 << 22, plan) + ntt_bytes(3 << 22, 2);
        assert!(whole < 24 << 30, "{whole} bytes");
    }
}
