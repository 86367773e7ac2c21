//! Butterflies of the transforms in [`crate::ntt`], written with the lazy operations of [`Lanes`].

use super::{Arch, LaneField, Lanes, Packed, LANES};

/// The factor of a butterfly, in the architecture's form.
#[derive(Clone, Copy, Debug)]
pub enum Twiddle<'a> {
    /// One.
    One,
    /// The same in every lane.
    Same(&'a Packed),
    /// One for each lane.
    Each([&'a Packed; LANES]),
}

impl Twiddle<'_> {
    #[inline(always)]
    fn load<F: LaneField, A: Arch>(self, arch: A) -> Option<A::Lanes<F>> {
        match self {
            Self::One => None,
            Self::Same(factor) => Some(arch.unpack_splat(factor)),
            Self::Each(factors) => Some(arch.unpack_words(factors.map(|factor| &factor.0))),
        }
    }
}

/// [`Arch::split`] for architectures with lazy sums: takes values below `32p`, carried or not; the bound grows by `2p`.
#[inline(always)]
pub(super) fn split<F: LaneField, A: Arch>(
    arch: A,
    left: &mut [A::Lanes<F>],
    right: &mut [A::Lanes<F>],
    twiddle: Twiddle<'_>,
    negated: bool,
) {
    let twiddle = twiddle.load(arch);
    for (x, y) in left.iter_mut().zip(right) {
        let product = match twiddle {
            Some(twiddle) => y.carry().mul_raw(twiddle),
            None => y.carry().shrink(),
        };
        let (sum, difference) = (x.add_raw(product), x.sub_raw(product));
        (*x, *y) = if negated { (difference, sum) } else { (sum, difference) };
    }
}

/// [`Arch::merge`] for architectures with lazy sums: takes and gives reduced values.
#[inline(always)]
pub(super) fn merge<F: LaneField, A: Arch>(
    arch: A,
    left: &mut [A::Lanes<F>],
    right: &mut [A::Lanes<F>],
    twiddle: Twiddle<'_>,
    negated: bool,
) {
    let twiddle = twiddle.load(arch);
    for (x, y) in left.iter_mut().zip(right) {
        let difference = if negated { y.sub_raw(*x) } else { x.sub_raw(*y) }.carry();
        *x = x.add_raw(*y).shrink();
        *y = match twiddle {
            Some(twiddle) => difference.mul(twiddle),
            None => difference.shrink(),
        };
    }
}
