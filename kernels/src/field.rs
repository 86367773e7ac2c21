//! BN254 arithmetic on eight lanes at once.
//!
//! One algorithm is written once, generic over an [`Arch`], and runs on whichever instruction set the machine has:
//! * [`Ifma`] keeps eight elements as 5 x 52-bit limbs across five AVX-512 registers, in Montgomery form with `R = 2^260`
//!   (Gueron and Krasnov 2016; the 6 spare bits of `R` make most conditional subtractions needless);
//! * [`Portable`] keeps eight elements in arkworks' form, one after another, and is the oracle of the first.
//!
//! [`dispatch`] picks at run time. Arkworks elements are the border: [`Arch::load`] and [`Lanes::store`] convert.
//!
//! Bounds. `p` is the modulus. Every element is *reduced* (below `2p`) unless a method says otherwise. The lazy methods
//! (`*_raw`, [`Lanes::carry`]) give *wide* values, whose bound the caller tracks: multiplication takes operands with
//! `a * b <= 64 p^2` (for instance both below `8p`) and returns a reduced element (in general one below
//! `p + a * b / 84 p`, for operands below `64p`); [`Lanes::shrink`] takes anything below
//! `64p` and returns a reduced element. The portable lanes are always reduced, so they satisfy all of this.
//!
//! ```
//! use ark_bn254::Fr;
//! use assay_kernels::field::{dispatch, Arch, Kernel, Lanes};
//!
//! struct Squares([Fr; 8]);
//! impl Kernel for Squares {
//!     type Output = [Fr; 8];
//!     #[inline(always)]
//!     fn run<A: Arch>(self, arch: A) -> [Fr; 8] {
//!         arch.load(&self.0).square().store()
//!     }
//! }
//! assert_eq!(dispatch(Squares([Fr::from(3); 8])), [Fr::from(9); 8]);
//! ```

mod butterfly;
mod constants;
#[cfg(target_arch = "x86_64")]
mod ifma;
pub(crate) mod invert;
mod portable;
#[cfg(test)]
mod tests;

pub use butterfly::Twiddle;
pub use constants::{Constants, LaneField};
#[cfg(target_arch = "x86_64")]
pub use ifma::{Ifma, IfmaLanes};
pub use portable::{Portable, PortableLanes};

/// Elements in one [`Lanes`] value.
pub const LANES: usize = 8;

/// An instruction set: makes lanes. A value of it proves that the machine has the instructions.
pub trait Arch: Copy + Send + Sync + 'static {
    /// Eight elements of `F`.
    type Lanes<F: LaneField>: Lanes<F>;

    /// A short name for logs and reports.
    const NAME: &'static str;

    /// Runs `routine` as a function of its own, compiled once for all its callers: what `#[inline(always)]` code calls to
    /// keep large inner parts (a permutation, a point addition) from being copied to every place they are used.
    fn call<R: Routine<Self>>(self, routine: R) -> R::Output;

    /// Loads eight elements that lie one after another. Cost on IFMA: one multiplication.
    fn load<F: LaneField>(self, elements: &[F; LANES]) -> Self::Lanes<F>;

    /// Loads eight elements from anywhere. Cost on IFMA: one multiplication.
    fn load_refs<F: LaneField>(self, elements: [&F; LANES]) -> Self::Lanes<F>;

    /// Loads eight canonical integers, four little-endian words each, which must be below the modulus.
    fn load_integers<F: LaneField>(self, integers: &[[u64; 4]; LANES]) -> Self::Lanes<F>;

    /// Loads what [`Lanes::pack`] made. Free of multiplications.
    #[inline(always)]
    fn unpack<F: LaneField>(self, packed: &[Packed; LANES]) -> Self::Lanes<F> {
        self.unpack_words(packed.each_ref().map(|element| &element.0))
    }

    /// [`Arch::unpack`] of words from anywhere, which must be below the modulus. Whatever form they are in, linear maps with
    /// coefficients of this architecture take them to results in the same form.
    fn unpack_words<F: LaneField>(self, words: [&[u64; 4]; LANES]) -> Self::Lanes<F>;

    /// [`Arch::unpack`] of the same element in every lane.
    fn unpack_splat<F: LaneField>(self, packed: &Packed) -> Self::Lanes<F>;

    /// The same element in every lane.
    fn splat<F: LaneField>(self, element: F) -> Self::Lanes<F>;

    /// Zero in every lane.
    fn zero<F: LaneField>(self) -> Self::Lanes<F>;

    /// One in every lane.
    fn one<F: LaneField>(self) -> Self::Lanes<F>;

    /// Takes each pair `(x, y)` of `left` and `right` to `(x + t y, x - t y)`, for `-t` if `negated`.
    ///
    /// The values are for other splits, at most fifteen from reduced ones, and then for [`Arch::finish_split`].
    #[inline(always)]
    fn split<F: LaneField>(
        self,
        left: &mut [Self::Lanes<F>],
        right: &mut [Self::Lanes<F>],
        twiddle: Twiddle<'_>,
        negated: bool,
    ) {
        butterfly::split(self, left, right, twiddle, negated);
    }

    /// [`Lanes::pack`] of what [`Arch::split`] gives.
    #[inline(always)]
    fn finish_split<F: LaneField>(self, lanes: Self::Lanes<F>) -> [Packed; LANES] {
        lanes.carry().shrink().pack()
    }

    /// Takes each pair `(x, y)` of `left` and `right` to `(x + y, t (x - y))`, the transpose of [`Arch::split`], for `-t` if
    /// `negated`. Takes and gives reduced values.
    #[inline(always)]
    fn merge<F: LaneField>(
        self,
        left: &mut [Self::Lanes<F>],
        right: &mut [Self::Lanes<F>],
        twiddle: Twiddle<'_>,
        negated: bool,
    ) {
        butterfly::merge(self, left, right, twiddle, negated);
    }
}

/// One element in an architecture's own Montgomery form, fully reduced, four little-endian words.
///
/// The form depends on the [`Arch`] that packed it: it is for scratch memory within one process, never for a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Packed(pub [u64; 4]);

/// Eight elements of `F`, worked on together. Lane masks have bit `i` for lane `i`.
pub trait Lanes<F: LaneField>: Copy + Send + Sync + 'static {
    /// The elements, in lane order, fully reduced.
    fn store(self) -> [F; LANES];

    /// The elements as canonical integers, in lane order, four little-endian words each.
    fn store_integers(self) -> [[u64; 4]; LANES];

    /// The elements as compact scratch memory, to be read by [`Arch::unpack`]. Free of multiplications.
    fn pack(self) -> [Packed; LANES];

    /// `self + rhs`.
    #[must_use]
    fn add(self, rhs: Self) -> Self;

    /// `self - rhs`.
    #[must_use]
    fn sub(self, rhs: Self) -> Self;

    /// `-self`.
    #[must_use]
    fn neg(self) -> Self;

    /// `-self` in the lanes of `mask`, `self` in the others.
    #[inline(always)]
    #[must_use]
    fn negate_where(self, mask: u8) -> Self {
        Self::select(mask, self.neg(), self)
    }

    /// `2 * self`.
    #[inline(always)]
    #[must_use]
    fn double(self) -> Self {
        self.add(self)
    }

    /// `self * rhs`. Takes wide operands with `self * rhs <= 64 p^2`; the result is reduced.
    #[must_use]
    fn mul(self, rhs: Self) -> Self;

    /// `self * rhs`, bounds as for [`Lanes::mul`], but limbs not carried: to be used as a raw sum of 32 terms.
    #[must_use]
    fn mul_raw(self, rhs: Self) -> Self;

    /// `self * self`. Takes a wide operand below `8p`; the result is reduced.
    #[must_use]
    fn square(self) -> Self;

    /// Which lanes are zero.
    fn zero_mask(self) -> u8;

    /// Which lanes hold the same element in `self` and `rhs`.
    #[inline(always)]
    fn eq_mask(self, rhs: Self) -> u8 {
        self.sub(rhs).zero_mask()
    }

    /// Takes lane `i` from `on` where bit `i` of `mask` is set, else from `off`.
    #[must_use]
    fn select(mask: u8, on: Self, off: Self) -> Self;

    /// Limb-wise sum without carries: the bounds add up. Pass the result through [`Lanes::carry`] before any other use
    /// than `add_raw` and `sub_raw`; at most 2^10 terms may be summed so.
    #[must_use]
    fn add_raw(self, rhs: Self) -> Self;

    /// Limb-wise `self + 2p - rhs` without carries, `rhs` reduced: the bound is that of `self` plus `2p`. See `add_raw`.
    #[must_use]
    fn sub_raw(self, rhs: Self) -> Self;

    /// Carries the limbs of a raw sum: the same value, wide, with limbs as multiplication needs them.
    #[must_use]
    fn carry(self) -> Self;

    /// Reduces a wide value below `64p` to below `2p`. Takes raw sums made by [`Lanes::add_raw`] alone as they are; sums
    /// with a [`Lanes::sub_raw`] in them must be carried first.
    #[must_use]
    fn shrink(self) -> Self;
}

/// An algorithm that runs on any [`Arch`].
///
/// Mark `run` (and the generic helpers it calls in its inner loop) `#[inline(always)]`: the instruction set is enabled in
/// the caller, so only what is inlined is compiled for it. Start threads outside, around [`dispatch`], not within.
pub trait Kernel {
    /// What the algorithm returns.
    type Output;

    /// Runs the algorithm.
    fn run<A: Arch>(self, arch: A) -> Self::Output;
}

/// A part of a [`Kernel`] on a known [`Arch`], for [`Arch::call`].
pub trait Routine<A: Arch> {
    /// What the part returns.
    type Output;

    /// Runs the part. Mark it `#[inline(always)]`, as for [`Kernel::run`].
    fn run(self, arch: A) -> Self::Output;
}

/// Set to `portable`, this variable keeps [`dispatch`] from the vector instructions: for tests and benches.
pub const ARCH_VARIABLE: &str = "ASSAY_CPU_ARCH";

/// The vector instructions that [`dispatch`] uses, decided at its first call.
#[cfg(target_arch = "x86_64")]
#[inline]
fn vectors() -> Option<Ifma> {
    static CHOICE: std::sync::OnceLock<Option<Ifma>> = std::sync::OnceLock::new();
    *CHOICE.get_or_init(|| {
        Ifma::detect().filter(|_| std::env::var_os(ARCH_VARIABLE).is_none_or(|name| name != Portable::NAME))
    })
}

/// Runs `kernel` on the best instruction set this machine has.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(arch) = vectors() {
        return arch.enter(kernel);
    }
    kernel.run(Portable)
}

/// The name of the instruction set that [`dispatch`] picks.
#[must_use]
pub fn arch_name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if vectors().is_some() {
        return Ifma::NAME;
    }
    Portable::NAME
}

/// Inverts every lane of every value in place; zeros stay zero.
///
/// Cost: three multiplications a value, plus one inversion in all (Montgomery's trick, one chain per lane).
/// `scratch` is overwritten and must be as long as `values`.
///
/// # Panics
/// If `scratch` is shorter than `values`.
#[inline(always)]
pub fn batch_invert<F: LaneField, A: Arch>(arch: A, values: &mut [A::Lanes<F>], scratch: &mut [A::Lanes<F>]) {
    assert!(scratch.len() >= values.len(), "scratch must be as long as values");
    let one = arch.one::<F>();
    let mut product = one;
    for (value, before) in values.iter_mut().zip(scratch.iter_mut()) {
        *before = product;
        let zeros = value.zero_mask();
        if zeros != 0 {
            product = product.mul(A::Lanes::<F>::select(zeros, one, *value));
        } else {
            product = product.mul(*value);
        }
    }
    let mut totals = product.store();
    invert::invert_all(&mut totals);
    let mut inverse = arch.load(&totals);
    for (value, before) in values.iter_mut().zip(scratch.iter()).rev() {
        let zeros = value.zero_mask();
        let factor = if zeros != 0 { A::Lanes::<F>::select(zeros, one, *value) } else { *value };
        let inverted = before.mul(inverse);
        inverse = inverse.mul(factor);
        *value = if zeros != 0 { A::Lanes::<F>::select(zeros, arch.zero(), inverted) } else { inverted };
    }
}
