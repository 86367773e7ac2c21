//! Eight elements in five AVX-512 registers, multiplied with the 52-bit fused multiply-add instructions (IFMA).
//!
//! Register `i` holds limb `i` (weight `2^(52 i)`) of all eight lanes.

#![allow(
    unsafe_code,
    reason = "vector intrinsics and unaligned loads; every value of `Ifma` proves the CPU has them"
)]

use std::{arch::x86_64::*, marker::PhantomData};

use super::{
    constants::{split, MASK_52},
    Arch, Kernel, LaneField, Lanes, Packed, Routine, LANES,
};

/// AVX-512 F and IFMA. Only [`Ifma::detect`] makes one, and only where the CPU has both.
#[derive(Clone, Copy, Debug)]
pub struct Ifma(());

/// Eight elements of `F` as 5 x 52-bit limbs, Montgomery form with `R = 2^260`, below `2p` unless a method says otherwise.
///
/// Only an [`Ifma`] makes one, so that whoever holds one runs on a CPU with the instructions.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct IfmaLanes<F>([__m512i; 5], PhantomData<F>);

impl Ifma {
    /// A token, if this CPU has AVX-512 F and IFMA. Cheap: the answer is cached.
    #[inline]
    #[must_use]
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")).then_some(Self(()))
    }

    /// Runs `kernel` compiled with the instructions enabled.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` exists, so the CPU has both features.
        unsafe { enter(self, kernel) }
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn enter<K: Kernel>(arch: Ifma, kernel: K) -> K::Output {
    kernel.run(arch)
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn call<R: Routine<Ifma>>(arch: Ifma, routine: R) -> R::Output {
    routine.run(arch)
}

impl Arch for Ifma {
    type Lanes<F: LaneField> = IfmaLanes<F>;

    const NAME: &'static str = "avx512-ifma";

    #[inline(always)]
    fn call<R: Routine<Self>>(self, routine: R) -> R::Output {
        // SAFETY: `self` exists, so the CPU has both features.
        unsafe { call(self, routine) }
    }

    #[inline(always)]
    fn load<F: LaneField>(self, elements: &[F; LANES]) -> IfmaLanes<F> {
        self.load_refs(elements.each_ref())
    }

    #[inline(always)]
    fn load_refs<F: LaneField>(self, elements: [&F; LANES]) -> IfmaLanes<F> {
        let words = elements.map(|element| element.montgomery_words());
        // SAFETY: `self` proves the features.
        unsafe { mul(load_words::<F>(words), splat_limbs(F::CONSTANTS.from_ark)) }
    }

    #[inline(always)]
    fn load_integers<F: LaneField>(self, integers: &[[u64; 4]; LANES]) -> IfmaLanes<F> {
        // SAFETY: `self` proves the features.
        unsafe { mul(load_words::<F>(integers.each_ref()), splat_limbs(F::CONSTANTS.from_integer)) }
    }

    #[inline(always)]
    fn unpack_words<F: LaneField>(self, words: [&[u64; 4]; LANES]) -> IfmaLanes<F> {
        // SAFETY: `self` proves the features.
        unsafe { load_words(words) }
    }

    #[inline(always)]
    fn unpack_splat<F: LaneField>(self, packed: &Packed) -> IfmaLanes<F> {
        // SAFETY: `self` proves the features.
        unsafe { splat_limbs(split(packed.0)) }
    }

    #[inline(always)]
    fn splat<F: LaneField>(self, element: F) -> IfmaLanes<F> {
        // SAFETY: `self` proves the features.
        unsafe { mul(splat_limbs(split(*element.montgomery_words())), splat_limbs(F::CONSTANTS.from_ark)) }
    }

    #[inline(always)]
    fn zero<F: LaneField>(self) -> IfmaLanes<F> {
        // SAFETY: `self` proves the features.
        unsafe { splat_limbs([0; 5]) }
    }

    #[inline(always)]
    fn one<F: LaneField>(self) -> IfmaLanes<F> {
        // SAFETY: `self` proves the features.
        unsafe { splat_limbs(F::CONSTANTS.one) }
    }
}

// SAFETY of every `unsafe` block in this implementation: an `IfmaLanes` exists, so an `Ifma` made it and the CPU has the
// features; no block touches memory other than through references to arrays of the right size.
impl<F: LaneField> Lanes<F> for IfmaLanes<F> {
    #[inline(always)]
    fn store(self) -> [F; LANES] {
        // SAFETY: see above.
        let words = unsafe { pack_words(subtract_once(mul(self, splat_limbs(F::CONSTANTS.to_ark)))) };
        words.map(|words| F::from_montgomery_words(words.0))
    }

    #[inline(always)]
    fn store_integers(self) -> [[u64; 4]; LANES] {
        // SAFETY: see above.
        let words = unsafe { pack_words(subtract_once(mul(self, splat_limbs([1, 0, 0, 0, 0])))) };
        words.map(|words| words.0)
    }

    #[inline(always)]
    fn pack(self) -> [Packed; LANES] {
        // SAFETY: see above.
        unsafe { pack_words(subtract_once(self)) }
    }

    #[inline(always)]
    fn add(self, rhs: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let doubled = splat_limbs::<F>(F::CONSTANTS.modulus_doubled);
            fold_negative(carry(minus(plus(self, rhs), doubled)))
        }
    }

    #[inline(always)]
    fn sub(self, rhs: Self) -> Self {
        // SAFETY: see above.
        unsafe { fold_negative(carry(minus(self, rhs))) }
    }

    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: see above.
        unsafe { fold_negative(carry(minus(splat_limbs([0; 5]), self))) }
    }

    #[inline(always)]
    fn mul(self, rhs: Self) -> Self {
        // SAFETY: see above.
        unsafe { mul(self, rhs) }
    }

    #[inline(always)]
    fn mul_raw(self, rhs: Self) -> Self {
        // SAFETY: see above.
        unsafe { mul_raw(self, rhs) }
    }

    #[inline(always)]
    fn square(self) -> Self {
        // SAFETY: see above.
        unsafe { square(self) }
    }

    #[inline(always)]
    fn zero_mask(self) -> u8 {
        // SAFETY: see above.
        unsafe { equals(self, [0; 5]) | equals(self, F::CONSTANTS.modulus) }
    }

    #[inline(always)]
    fn select(mask: u8, on: Self, off: Self) -> Self {
        // SAFETY: see above.
        unsafe { blend(mask, on, off) }
    }

    #[inline(always)]
    fn add_raw(self, rhs: Self) -> Self {
        // SAFETY: see above.
        unsafe { plus(self, rhs) }
    }

    #[inline(always)]
    fn sub_raw(self, rhs: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let doubled = splat_limbs::<F>(F::CONSTANTS.modulus_doubled);
            minus(plus(self, doubled), rhs)
        }
    }

    #[inline(always)]
    fn carry(self) -> Self {
        // SAFETY: see above.
        unsafe { carry(self) }
    }

    #[inline(always)]
    fn shrink(self) -> Self {
        // SAFETY: see above.
        unsafe { shrink(self) }
    }
}

// The functions below need AVX-512 F and IFMA. They are `inline(always)` without `target_feature` so that they become part
// of the kernel that `enter` compiles; the intrinsics are inlined there in turn.

/// Limb-wise sum.
#[inline(always)]
unsafe fn plus<F>(a: IfmaLanes<F>, b: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F.
    IfmaLanes(std::array::from_fn(|i| unsafe { _mm512_add_epi64(a.0[i], b.0[i]) }), PhantomData)
}

/// Limb-wise difference.
#[inline(always)]
unsafe fn minus<F>(a: IfmaLanes<F>, b: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F.
    IfmaLanes(std::array::from_fn(|i| unsafe { _mm512_sub_epi64(a.0[i], b.0[i]) }), PhantomData)
}

/// Limbs of `on` in the lanes of `mask`, else of `off`.
#[inline(always)]
unsafe fn blend<F>(mask: u8, on: IfmaLanes<F>, off: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F.
    IfmaLanes(std::array::from_fn(|i| unsafe { _mm512_mask_mov_epi64(off.0[i], mask, on.0[i]) }), PhantomData)
}

#[inline(always)]
unsafe fn splat_limbs<F>(limbs: [u64; 5]) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F.
    IfmaLanes(limbs.map(|limb| unsafe { _mm512_set1_epi64(limb.cast_signed()) }), PhantomData)
}

/// Transposes eight numbers of four words into limbs.
#[inline(always)]
unsafe fn load_words<F>(words: [&[u64; 4]; LANES]) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F; each pointer is to 32 readable bytes, and the loads need no alignment.
    unsafe {
        let half = |i: usize| _mm256_loadu_si256(words[i].as_ptr().cast());
        let pair = |i: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(2 * i)), half(2 * i + 1));
        let low = _mm512_setr_epi64(0, 4, 8, 12, 1, 5, 9, 13);
        let high = _mm512_setr_epi64(2, 6, 10, 14, 3, 7, 11, 15);
        let rows = [pair(0), pair(1), pair(2), pair(3)];
        let low_a = _mm512_permutex2var_epi64(rows[0], low, rows[1]);
        let low_b = _mm512_permutex2var_epi64(rows[2], low, rows[3]);
        let high_a = _mm512_permutex2var_epi64(rows[0], high, rows[1]);
        let high_b = _mm512_permutex2var_epi64(rows[2], high, rows[3]);
        let w = [
            _mm512_shuffle_i64x2::<0x44>(low_a, low_b),
            _mm512_shuffle_i64x2::<0xee>(low_a, low_b),
            _mm512_shuffle_i64x2::<0x44>(high_a, high_b),
            _mm512_shuffle_i64x2::<0xee>(high_a, high_b),
        ];
        let mask = _mm512_set1_epi64(MASK_52.cast_signed());
        let limbs = [
            _mm512_and_si512(w[0], mask),
            _mm512_and_si512(
                _mm512_or_si512(_mm512_srli_epi64::<52>(w[0]), _mm512_slli_epi64::<12>(w[1])),
                mask,
            ),
            _mm512_and_si512(
                _mm512_or_si512(_mm512_srli_epi64::<40>(w[1]), _mm512_slli_epi64::<24>(w[2])),
                mask,
            ),
            _mm512_and_si512(
                _mm512_or_si512(_mm512_srli_epi64::<28>(w[2]), _mm512_slli_epi64::<36>(w[3])),
                mask,
            ),
            _mm512_srli_epi64::<16>(w[3]),
        ];
        IfmaLanes(limbs, PhantomData)
    }
}

/// The reverse of [`load_words`], for values below `2^256` with carried limbs.
#[inline(always)]
unsafe fn pack_words<F>(a: IfmaLanes<F>) -> [Packed; LANES] {
    let l = a.0;
    let mut out = [Packed::default(); LANES];
    // SAFETY: the caller has AVX-512 F; `out` is 256 bytes, and the stores need no alignment.
    unsafe {
        let w = [
            _mm512_or_si512(l[0], _mm512_slli_epi64::<52>(l[1])),
            _mm512_or_si512(_mm512_srli_epi64::<12>(l[1]), _mm512_slli_epi64::<40>(l[2])),
            _mm512_or_si512(_mm512_srli_epi64::<24>(l[2]), _mm512_slli_epi64::<28>(l[3])),
            _mm512_or_si512(_mm512_srli_epi64::<36>(l[3]), _mm512_slli_epi64::<16>(l[4])),
        ];
        // Pairs of words per lane, then whole elements, two to a register.
        let near = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let far = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        let low = [_mm512_permutex2var_epi64(w[0], near, w[1]), _mm512_permutex2var_epi64(w[0], far, w[1])];
        let high = [_mm512_permutex2var_epi64(w[2], near, w[3]), _mm512_permutex2var_epi64(w[2], far, w[3])];
        let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        let to = out.as_mut_ptr().cast::<__m512i>();
        for half in 0..2 {
            _mm512_storeu_si512(to.add(2 * half), _mm512_permutex2var_epi64(low[half], first, high[half]));
            _mm512_storeu_si512(
                to.add(2 * half + 1),
                _mm512_permutex2var_epi64(low[half], second, high[half]),
            );
        }
    }
    out
}

/// Which lanes are, limb for limb, the constant `limbs`.
#[inline(always)]
unsafe fn equals<F>(a: IfmaLanes<F>, limbs: [u64; 5]) -> u8 {
    // SAFETY: the caller has AVX-512 F.
    (0..5).fold(0xff, |mask, i| unsafe {
        _mm512_mask_cmpeq_epi64_mask(mask, a.0[i], _mm512_set1_epi64(limbs[i].cast_signed()))
    })
}

/// Carries signed limbs; the top limb keeps the sign of the value.
#[inline(always)]
unsafe fn carry<F>(a: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F.
    unsafe {
        let mask = _mm512_set1_epi64(MASK_52.cast_signed());
        let mut limbs = a.0;
        for i in 0..4 {
            let over = _mm512_srai_epi64::<52>(limbs[i]);
            limbs[i] = _mm512_and_si512(limbs[i], mask);
            limbs[i + 1] = _mm512_add_epi64(limbs[i + 1], over);
        }
        IfmaLanes(limbs, PhantomData)
    }
}

/// Adds `2p` to the lanes that are negative.
#[inline(always)]
unsafe fn fold_negative<F: LaneField>(a: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F.
    unsafe {
        let doubled = splat_limbs::<F>(F::CONSTANTS.modulus_doubled);
        let negative = _mm512_cmplt_epi64_mask(a.0[4], _mm512_setzero_si512());
        carry(blend(negative, plus(a, doubled), a))
    }
}

/// Takes a value below `2p` to below `p`.
#[inline(always)]
unsafe fn subtract_once<F: LaneField>(a: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F.
    unsafe {
        let less = carry(minus(a, splat_limbs(F::CONSTANTS.modulus)));
        let negative = _mm512_cmplt_epi64_mask(less.0[4], _mm512_setzero_si512());
        blend(negative, a, less)
    }
}

/// Takes a value `v < 64p`, limbs not negative, to `v - q p < 2p`, with `q` estimated from the top limb.
///
/// With `c = floor(2^260 / p)` and `t` the top limb, `q = floor(t c / 2^52)` is at most `v / p`. `t` is short of
/// `v / 2^208` by less than 2^12 (what 2^10 raw terms leave in the limb below, and its fraction), so `q` is short of `v / p`
/// by less than `v / 2^260 + 2^12 c / 2^52 + 1 < 2`.
#[inline(always)]
unsafe fn shrink<F: LaneField>(a: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F and IFMA.
    unsafe {
        let factor = _mm512_set1_epi64(F::CONSTANTS.quotient_factor.cast_signed());
        let q = _mm512_madd52hi_epu64(_mm512_setzero_si512(), a.0[4], factor);
        // v + q (2^260 - p), modulo 2^260: all terms positive.
        let negated = splat_limbs::<F>(F::CONSTANTS.modulus_negated).0;
        let mut limbs = a.0;
        for i in 0..5 {
            limbs[i] = _mm512_madd52lo_epu64(limbs[i], q, negated[i]);
        }
        for i in 0..4 {
            limbs[i + 1] = _mm512_madd52hi_epu64(limbs[i + 1], q, negated[i]);
        }
        let mut out = carry::<F>(IfmaLanes(limbs, PhantomData));
        out.0[4] = _mm512_and_si512(out.0[4], _mm512_set1_epi64(MASK_52.cast_signed()));
        out
    }
}

/// Montgomery product. For `a * b <= 64 p^2` the result is below `64 p^2 / 2^260 + p < 2p`.
#[inline(always)]
unsafe fn mul<F: LaneField>(a: IfmaLanes<F>, b: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F and IFMA.
    unsafe { carry(mul_raw(a, b)) }
}

/// The product before the last carries, one limb of `a` at a time. A limb is a sum of at most 20 halves of products.
#[inline(always)]
unsafe fn mul_raw<F: LaneField>(a: IfmaLanes<F>, b: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F and IFMA.
    unsafe {
        let zero = _mm512_setzero_si512();
        let p = splat_limbs::<F>(F::CONSTANTS.modulus).0;
        let inverse = _mm512_set1_epi64(F::CONSTANTS.inverse_negated.cast_signed());
        let mut low = [zero; 5];
        for i in 0..5 {
            // High halves go to sums of their own: two short chains of additions instead of a long one.
            let mut high = [zero; 5];
            for j in 0..5 {
                low[j] = _mm512_madd52lo_epu64(low[j], a.0[i], b.0[j]);
                high[j] = _mm512_madd52hi_epu64(high[j], a.0[i], b.0[j]);
            }
            let m = _mm512_madd52lo_epu64(zero, low[0], inverse);
            for j in 0..5 {
                low[j] = _mm512_madd52lo_epu64(low[j], m, p[j]);
                high[j] = _mm512_madd52hi_epu64(high[j], m, p[j]);
            }
            let over = _mm512_srli_epi64::<52>(low[0]);
            low[0] = _mm512_add_epi64(_mm512_add_epi64(low[1], over), high[0]);
            low[1] = _mm512_add_epi64(low[2], high[1]);
            low[2] = _mm512_add_epi64(low[3], high[2]);
            low[3] = _mm512_add_epi64(low[4], high[3]);
            low[4] = high[4];
        }
        IfmaLanes(low, PhantomData)
    }
}

/// Montgomery square: the ten mixed products once, doubled; then the reduction alone. Bounds as for [`mul`].
#[inline(always)]
unsafe fn square<F: LaneField>(a: IfmaLanes<F>) -> IfmaLanes<F> {
    // SAFETY: the caller has AVX-512 F and IFMA.
    unsafe {
        let zero = _mm512_setzero_si512();
        let p = splat_limbs::<F>(F::CONSTANTS.modulus).0;
        let inverse = _mm512_set1_epi64(F::CONSTANTS.inverse_negated.cast_signed());
        let a = a.0;
        let mut t = [zero; 10];
        for i in 0..5 {
            for j in i + 1..5 {
                t[i + j] = _mm512_madd52lo_epu64(t[i + j], a[i], a[j]);
                t[i + j + 1] = _mm512_madd52hi_epu64(t[i + j + 1], a[i], a[j]);
            }
        }
        for limb in &mut t[1..9] {
            *limb = _mm512_add_epi64(*limb, *limb);
        }
        for i in 0..5 {
            t[2 * i] = _mm512_madd52lo_epu64(t[2 * i], a[i], a[i]);
            t[2 * i + 1] = _mm512_madd52hi_epu64(t[2 * i + 1], a[i], a[i]);
        }
        for i in 0..5 {
            let m = _mm512_madd52lo_epu64(zero, t[i], inverse);
            for j in 1..5 {
                t[i + j] = _mm512_madd52lo_epu64(t[i + j], m, p[j]);
            }
            for j in 0..5 {
                t[i + j + 1] = _mm512_madd52hi_epu64(t[i + j + 1], m, p[j]);
            }
            // The carry of the limb that vanishes comes last: it is the longest way.
            let over = _mm512_srli_epi64::<52>(_mm512_madd52lo_epu64(t[i], m, p[0]));
            t[i + 1] = _mm512_add_epi64(t[i + 1], over);
        }
        carry(IfmaLanes([t[5], t[6], t[7], t[8], t[9]], PhantomData))
    }
}
