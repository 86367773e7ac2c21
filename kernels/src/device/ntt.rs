//! Transforms on a device: `cuda/ntt.cu`. Domains of `2^k`, `3 * 2^k` and `9 * 2^k` points.

use ark_bn254::Fr;
use ark_ff::{FftField, Field, One};

use rayon::prelude::*;

use super::{encode, narrow, per_thread, Argument, Device, DeviceError, Launch, GRAIN};
use crate::ntt::NttError;

/// Levels of one pass at most.
const DEPTH: u32 = 8;
/// `log2` of the elements in a tile: 32 KiB.
const LOG_TILE: u32 = 10;
/// For the kernels: no scaling.
const NO_SCALE: u32 = 32;

/// Factors `start * shift^i` of coefficients in permuted order, as two tables of about the square root of their number.
#[derive(Debug)]
pub struct Scale<B> {
    low: B,
    high: B,
    bits: u32,
}

/// The powers that one radix-3 pass multiplies by.
#[derive(Debug)]
struct Radix3<B> {
    powers: B,
    low_bits: u32,
    third: usize,
}

/// A domain with its tables on a device.
#[derive(Debug)]
pub struct DeviceDomain<B> {
    size: usize,
    radix: usize,
    log_part: u32,
    twiddles: B,
    /// Of the forward transform and of the inverse one, outer pass first.
    radix3: [Vec<Radix3<B>>; 2],
}

impl<B> DeviceDomain<B> {
    /// The domain of exactly `size` points, and its tables on `device` (16 bytes a point).
    ///
    /// # Errors
    /// [`NttError`] for sizes that are not `2^k`, `3 * 2^k` or `9 * 2^k` or above the field's limit; those of the device.
    pub fn new<D: Device<Buffer = B>>(device: &D, size: usize) -> Result<Self, DeviceError> {
        let radix = [9, 3].into_iter().find(|radix| size.is_multiple_of(*radix)).unwrap_or(1);
        let part = size / radix;
        if !part.is_power_of_two() {
            return Err(NttError::Shape { size }.into());
        }
        narrow("points of a domain", size)?;
        let generator = Fr::get_root_of_unity(size as u64)
            .filter(|_| part <= 1 << 28)
            .ok_or(NttError::TooLarge { size })?;
        let inverse = generator.inverse().ok_or(NttError::TooLarge { size })?;
        let twiddles = device.upload(&encode(&twiddles(part, generator.pow([radix as u64]))))?;
        let passes = |root: Fr| -> Result<Vec<Radix3<B>>, DeviceError> {
            let (mut passes, mut block, mut root) = (Vec::new(), size, root);
            while block > part {
                passes.push(Radix3::new(device, block / 3, root)?);
                (block, root) = (block / 3, root.pow([3]));
            }
            Ok(passes)
        };
        let radix3 = [passes(generator)?, passes(inverse)?];
        Ok(Self { size, radix, log_part: part.trailing_zeros(), twiddles, radix3 })
    }

    /// Number of points.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of its tables on the device.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let powers: usize = self.radix3.iter().flatten().map(Radix3::count).sum();
        32 * ((1u64 << self.log_part >> 1).max(1) + powers as u64)
    }

    /// The coefficient that position `position` of the permuted order holds.
    #[must_use]
    pub fn index_of(&self, position: usize) -> usize {
        let (part, place) = (position >> self.log_part, position & ((1 << self.log_part) - 1));
        let reversed =
            if self.log_part == 0 { 0 } else { place.reverse_bits() >> (usize::BITS - self.log_part) };
        self.radix * reversed + self.part_index(part)
    }

    /// The lowest coefficient of a part.
    fn part_index(&self, part: usize) -> usize {
        if self.radix == 9 {
            3 * (part % 3) + part / 3
        } else {
            part
        }
    }

    /// The factors `start * shift^i`: `1 / size` and `1 / g` after an inverse transform from the coset of `g`, 1 and `g`
    /// before a forward one to it.
    ///
    /// # Errors
    /// Those of the device.
    pub fn scale<D: Device<Buffer = B>>(
        &self,
        device: &D,
        start: Fr,
        shift: Fr,
    ) -> Result<Scale<B>, DeviceError> {
        let bits = self.log_part / 2;
        let step = shift.pow([self.radix as u64]);
        let low = reversed_powers(step.pow([1 << (self.log_part - bits)]), bits);
        let within = reversed_powers(step, self.log_part - bits);
        let high: Vec<Fr> = (0..self.radix)
            .flat_map(|part| {
                let first = start * shift.pow([self.part_index(part) as u64]);
                within.iter().map(move |power| first * power)
            })
            .collect();
        Ok(Scale { low: device.upload(&encode(&low))?, high: device.upload(&encode(&high))?, bits })
    }

    /// Interpolates in place: values in natural order become coefficients in permuted order, times the domain's size unless
    /// `scale` takes it off.
    ///
    /// # Errors
    /// Those of the device.
    pub fn interpolate<D: Device<Buffer = B>>(
        &self,
        device: &D,
        values: &B,
        scale: Option<&Scale<B>>,
    ) -> Result<(), DeviceError> {
        for pass in &self.radix3[1] {
            self.launch_radix3(device, values, pass, false)?;
        }
        let passes = passes(self.log_part);
        for (index, pass) in passes.iter().enumerate() {
            let scale = scale.filter(|_| index + 1 == passes.len());
            self.launch_pass(device, "ntt_split_kernel", values, scale, *pass, true)?;
        }
        Ok(())
    }

    /// Evaluates in place: coefficients in permuted order, each first multiplied by its factor in `scale`, become values in
    /// natural order.
    ///
    /// # Errors
    /// Those of the device.
    pub fn evaluate<D: Device<Buffer = B>>(
        &self,
        device: &D,
        values: &B,
        scale: Option<&Scale<B>>,
    ) -> Result<(), DeviceError> {
        for (index, pass) in passes(self.log_part).iter().rev().enumerate() {
            let scale = scale.filter(|_| index == 0);
            self.launch_pass(device, "ntt_merge_kernel", values, scale, *pass, false)?;
        }
        for pass in self.radix3[0].iter().rev() {
            self.launch_radix3(device, values, pass, true)?;
        }
        Ok(())
    }

    /// `values[i] *= factors[i]` over the domain: the product of two polynomials by their values.
    ///
    /// # Errors
    /// Those of the device.
    pub fn multiply<D: Device<Buffer = B>>(
        &self,
        device: &D,
        values: &B,
        factors: &B,
    ) -> Result<(), DeviceError> {
        let count = Argument::Number(narrow("points of a domain", self.size)?);
        let launch = per_thread("ntt_multiply_kernel", self.size, 256)?;
        device.launch(launch, &[Argument::Buffer(values), Argument::Buffer(factors), count])
    }

    fn launch_pass<D: Device<Buffer = B>>(
        &self,
        device: &D,
        kernel: &'static str,
        values: &B,
        scale: Option<&Scale<B>>,
        (level, depth): (u32, u32),
        inverse: bool,
    ) -> Result<(), DeviceError> {
        let log_tile = self.log_part.min(LOG_TILE);
        let block = (1u32 << log_tile >> 1).clamp(32, 512);
        let grid = (self.size >> log_tile) as u32;
        let (low, high, bits) =
            scale.map_or((values, values, NO_SCALE), |scale| (&scale.low, &scale.high, scale.bits));
        device.launch(
            Launch { kernel, grid, block, shared: 32 << log_tile },
            &[
                Argument::Buffer(values),
                Argument::Buffer(&self.twiddles),
                Argument::Buffer(low),
                Argument::Buffer(high),
                Argument::Number(bits),
                Argument::Number(self.log_part),
                Argument::Number(level),
                Argument::Number(depth),
                Argument::Number(log_tile),
                Argument::Number(u32::from(inverse)),
            ],
        )
    }

    fn launch_radix3<D: Device<Buffer = B>>(
        &self,
        device: &D,
        values: &B,
        pass: &Radix3<B>,
        twiddle_first: bool,
    ) -> Result<(), DeviceError> {
        device.launch(
            per_thread("ntt_radix3_kernel", self.size / 3, 128)?,
            &[
                Argument::Buffer(values),
                Argument::Buffer(&pass.powers),
                Argument::Number(pass.low_bits),
                Argument::Number(pass.third as u32),
                Argument::Number((self.size / 3) as u32),
                Argument::Number(u32::from(twiddle_first)),
            ],
        )
    }
}

impl<B> Radix3<B> {
    /// For blocks of `3 * third` points with a root of that order.
    fn new<D: Device<Buffer = B>>(device: &D, third: usize, root: Fr) -> Result<Self, DeviceError> {
        let low_bits = third.ilog2() / 2;
        let mut powers = vec![root.pow([third as u64])];
        powers.extend(successive_powers(root).take(1 << low_bits));
        powers.extend(successive_powers(root.pow([1 << low_bits])).take(third.div_ceil(1 << low_bits)));
        Ok(Self { powers: device.upload(&encode(&powers))?, low_bits, third })
    }

    /// How many powers there are.
    fn count(&self) -> usize {
        1 + (1 << self.low_bits) + self.third.div_ceil(1 << self.low_bits)
    }
}

/// `1, base, base^2, ...`
fn successive_powers(base: Fr) -> impl Iterator<Item = Fr> {
    std::iter::successors(Some(Fr::one()), move |power| Some(*power * base))
}

/// `base^rev(i)` for `i < 2^bits`, `rev` on `bits` bits.
fn reversed_powers(base: Fr, bits: u32) -> Vec<Fr> {
    let mut table = vec![Fr::one()];
    for level in 0..bits {
        let factor = base.pow([1u64 << (bits - 1 - level)]);
        table.extend_from_within(..);
        let half = table.len() / 2;
        table[half..].par_iter_mut().with_min_len(GRAIN).for_each(|power| *power *= factor);
    }
    table
}

/// `root^rev(b)` for `b < part / 2`: the twiddle of block `b` on every level.
fn twiddles(part: usize, root: Fr) -> Vec<Fr> {
    // Reversed on log2(part) - 1 bits: the powers are those below part / 2.
    reversed_powers(root, part.trailing_zeros().saturating_sub(1))
}

/// (level, depth) of each pass, from the top: as few as possible, and of about equal depth.
fn passes(log_part: u32) -> Vec<(u32, u32)> {
    let count = log_part.div_ceil(DEPTH).max(1);
    (0..count)
        .map(|pass| {
            let level = log_part * pass / count;
            (level, log_part * (pass + 1) / count - level)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_every_level_once() {
        for log_part in 0..=28 {
            let passes = passes(log_part);
            assert_eq!(passes.iter().map(|pass| pass.1).sum::<u32>(), log_part);
            assert!(passes.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0));
            assert!(passes.iter().all(|pass| pass.1 <= DEPTH.min(log_part)));
        }
        assert_eq!(passes(24), [(0, 8), (8, 8), (16, 8)]);
    }
}
