//! 256-bit integers as four little-endian limbs, with modular multiplication by the zkVM and without it.
#![allow(unsafe_code, reason = "calls the zkVM")]

/// Limbs, least significant first.
pub(crate) type U256 = [u64; 4];

pub(crate) const ZERO: U256 = [0; 4];
pub(crate) const ONE: U256 = [1, 0, 0, 0];

/// Reads 32 big-endian bytes.
pub(crate) fn from_be(bytes: &[u8; 32]) -> U256 {
    let mut limbs = ZERO;
    for (limb, chunk) in limbs.iter_mut().rev().zip(bytes.chunks_exact(8)) {
        *limb = chunk.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    }
    limbs
}

/// Writes 32 big-endian bytes.
pub(crate) fn to_be(value: &U256) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, limb) in bytes.chunks_exact_mut(8).zip(value.iter().rev()) {
        chunk.copy_from_slice(&limb.to_be_bytes());
    }
    bytes
}

pub(crate) fn is_zero(value: &U256) -> bool {
    value.iter().all(|limb| *limb == 0)
}

/// Whether `a < b`.
pub(crate) fn less(a: &U256, b: &U256) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

/// `x * y mod modulus`, below the modulus.
///
/// The modulus must not be zero (the call would take 2^256), and one of the factors must be below it, or the quotient
/// does not fit in the zkVM's table and there is no proof.
pub(crate) fn mul_mod(x: &U256, y: &U256, modulus: &U256) -> U256 {
    let mut result = *x;
    let factor_and_modulus: [u64; 8] =
        [y[0], y[1], y[2], y[3], modulus[0], modulus[1], modulus[2], modulus[3]];
    // SAFETY: the call reads and writes four aligned limbs at the first pointer and reads eight at the second.
    unsafe { sp1_lib::syscall_uint256_mulmod(&mut result, factor_and_modulus.as_ptr().cast::<[u64; 4]>()) };
    // The zkVM's table promises this already; it costs a few cycles not to depend on it.
    if !less(&result, modulus) {
        sp1_lib::halt_invalid_hint()
    }
    result
}

/// `x * y mod modulus`, below the modulus, without the zkVM's call, where `modulus = 2^256 - complement` and the
/// complement is below 2^130.
///
/// About 600 cycles. Any use of the call costs a program a shard of its own, tens of seconds of proving, so the few
/// products of a key recovery are cheaper here.
pub(crate) fn mul_mod_sparse<const LEN: usize>(
    x: &U256,
    y: &U256,
    modulus: &U256,
    complement: &[u64; LEN],
) -> U256 {
    let mut value = [0; 8];
    mul_add(&mut value, x, y);
    // 2^256 is the complement modulo the modulus. Each turn shortens the upper half, which ends as zero.
    while value[4..] != [0; 4] {
        let [l0, l1, l2, l3, h0, h1, h2, h3] = value;
        value = [l0, l1, l2, l3, 0, 0, 0, 0];
        mul_add(&mut value, &[h0, h1, h2, h3], complement);
    }
    let low = [value[0], value[1], value[2], value[3]];
    if less(&low, modulus) {
        low
    } else {
        wrapping_sub(&low, modulus)
    }
}

/// `sum += a * b`; the sum must fit in eight limbs.
fn mul_add<const LEN: usize>(sum: &mut [u64; 8], a: &U256, b: &[u64; LEN]) {
    for (i, digit) in a.iter().enumerate().filter(|(_, digit)| **digit != 0) {
        let mut carry = 0;
        for (j, other) in b.iter().enumerate() {
            let wide = u128::from(*digit) * u128::from(*other) + u128::from(sum[i + j]) + u128::from(carry);
            (sum[i + j], carry) = (wide as u64, (wide >> 64) as u64);
        }
        for limb in &mut sum[i + LEN..] {
            let (next, overflow) = limb.overflowing_add(carry);
            (*limb, carry) = (next, u64::from(overflow));
        }
    }
}

/// `a + b` and whether it overflowed.
pub(crate) fn add_carry(a: &U256, b: &U256) -> (U256, bool) {
    let mut sum = ZERO;
    let mut carry = false;
    for i in 0..4 {
        let (low, first) = a[i].overflowing_add(b[i]);
        let (limb, second) = low.overflowing_add(u64::from(carry));
        sum[i] = limb;
        carry = first | second;
    }
    (sum, carry)
}

/// `a - b`, wrapping.
pub(crate) fn wrapping_sub(a: &U256, b: &U256) -> U256 {
    let mut difference = ZERO;
    let mut borrow = false;
    for i in 0..4 {
        let (low, first) = a[i].overflowing_sub(b[i]);
        let (limb, second) = low.overflowing_sub(u64::from(borrow));
        difference[i] = limb;
        borrow = first | second;
    }
    difference
}

/// `a + b mod modulus`; both below the modulus.
pub(crate) fn add_mod(a: &U256, b: &U256, modulus: &U256) -> U256 {
    let (sum, carry) = add_carry(a, b);
    if carry || !less(&sum, modulus) {
        wrapping_sub(&sum, modulus)
    } else {
        sum
    }
}

/// `-a mod modulus`; `a` below the modulus.
pub(crate) fn neg_mod(a: &U256, modulus: &U256) -> U256 {
    if is_zero(a) {
        ZERO
    } else {
        wrapping_sub(modulus, a)
    }
}

/// The bits of `value`, most significant first.
pub(crate) fn bits(value: &U256) -> impl Iterator<Item = bool> + '_ {
    value.iter().rev().flat_map(|limb| (0..64).rev().map(move |bit| limb >> bit & 1 == 1))
}
