//! Public key recovery on secp256k1 (SEC 1, 4.1.6), by the zkVM's curve calls and checked hints.
#![allow(unsafe_code, reason = "calls the zkVM")]

use crate::uint256::{add_mod, bits, from_be, is_zero, less, mul_mod_sparse, neg_mod, to_be, U256};

/// The field's modulus.
const P: U256 = [0xffff_fffe_ffff_fc2f, !0, !0, !0];
/// `2^256 - P`.
const P_COMPLEMENT: [u64; 1] = [0x1_0000_03d1];
/// The group's order.
const N: U256 = [0xbfd2_5e8c_d036_4141, 0xbaae_dce6_af48_a03b, 0xffff_ffff_ffff_fffe, !0];
/// `2^256 - N`.
const N_COMPLEMENT: [u64; 3] = [0x402d_a173_2fc9_bebf, 0x4551_2319_50b7_5fc4, 1];
/// The generator, x then y.
const G: [u64; 8] = [
    0x59f2_815b_16f8_1798,
    0x029b_fcdb_2dce_28d9,
    0x55a0_6295_ce87_0b07,
    0x79be_667e_f9dc_bbac,
    0x9c47_d08f_fb10_d4b8,
    0xfd17_b448_a685_5419,
    0x5da4_fbfc_0e11_08a8,
    0x483a_da77_26a3_c465,
];

/// Twice the generator.
const G_DOUBLED: [u64; 8] = [
    0xabac_09b9_5c70_9ee5,
    0x5c77_8e4b_8cef_3ca7,
    0x3045_406e_95c0_7cd8,
    0xc604_7f94_41ed_7d6d,
    0x2364_31a9_50cf_e52a,
    0xf7f6_3265_3266_d0e1,
    0xa3c5_8419_466c_eaee,
    0x1ae1_68fe_a63d_c339,
];
/// The generator, negated.
const G_NEGATED: [u64; 8] = [
    0x59f2_815b_16f8_1798,
    0x029b_fcdb_2dce_28d9,
    0x55a0_6295_ce87_0b07,
    0x79be_667e_f9dc_bbac,
    0x63b8_2f6f_04ef_2777,
    0x02e8_4bb7_597a_abe6,
    0xa25b_0403_f1ee_f757,
    0xb7c5_2588_d95c_3b9a,
];
/// Twice the generator, negated.
const G_DOUBLED_NEGATED: [u64; 8] = [
    0xabac_09b9_5c70_9ee5,
    0x5c77_8e4b_8cef_3ca7,
    0x3045_406e_95c0_7cd8,
    0xc604_7f94_41ed_7d6d,
    0xdc9b_ce55_af30_1705,
    0x0809_cd9a_cd99_2f1e,
    0x5c3a_7be6_b993_1511,
    0xe51e_9701_59c2_3cc6,
];

/// Where square roots and inverses come from. Nothing that it returns is trusted.
pub trait Hints {
    /// Announces the query: x, `x^3 + 7`, both big endian, and whether an odd root is wanted.
    fn ask(&mut self, x: &[u8; 32], alpha: &[u8; 32], odd: bool);
    /// The next answer. First `[1]` if alpha is a square, followed by its root of the wanted parity and the inverse of
    /// x modulo the group's order; or `[0]`, followed by a root of `3 * alpha`. Numbers have 32 bytes, big endian.
    fn answer(&mut self) -> Vec<u8>;
}

/// The zkVM's own hook.
#[derive(Debug, Clone, Copy)]
pub struct Hook;

impl Hints for Hook {
    fn ask(&mut self, x: &[u8; 32], alpha: &[u8; 32], odd: bool) {
        const SECP256K1: u8 = 1;
        let mut query = [0; 65];
        query[0] = SECP256K1 | u8::from(odd) << 7;
        query[1..33].copy_from_slice(x);
        query[33..].copy_from_slice(alpha);
        sp1_lib::io::write(sp1_lib::io::FD_ECRECOVER_HOOK, &query);
    }

    fn answer(&mut self) -> Vec<u8> {
        sp1_lib::io::read_vec()
    }
}

/// Recovers the public key, `x || y` big endian, from a signature `r || s`, the parity of R's y and the hash signed.
///
/// None if there is no such key. Parities 2 and 3 (r beyond the group's order) exist in neither transactions nor the
/// precompile, and are refused.
pub fn recover(
    hints: &mut impl Hints,
    signature: &[u8; 64],
    parity: u8,
    hash: &[u8; 32],
) -> Option<[u8; 64]> {
    let (r_bytes, s_bytes) = halves(signature);
    let (r, s) = (from_be(&r_bytes), from_be(&s_bytes));
    let in_range = |value: &U256| !is_zero(value) && less(value, &N);
    if parity > 1 || !in_range(&r) || !in_range(&s) {
        return None;
    }
    let (y, r_inverse) = lift(hints, &r, parity == 1)?;
    let z = from_be(hash);
    let u1 = neg_mod(&mul_n(&z, &r_inverse), &N);
    let u2 = mul_n(&s, &r_inverse);
    let point = [r[0], r[1], r[2], r[3], y[0], y[1], y[2], y[3]];
    double_scalar_mul(&u1, &u2, &point).map(|key| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&to_be(&[key[0], key[1], key[2], key[3]]));
        bytes[32..].copy_from_slice(&to_be(&[key[4], key[5], key[6], key[7]]));
        bytes
    })
}

fn halves(signature: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&signature[..32]);
    s.copy_from_slice(&signature[32..]);
    (r, s)
}

/// The y of the point with this x and the wanted parity, and the inverse of x modulo N; None if there is no point.
///
/// `x` is below N, hence below P, and not zero.
fn lift(hints: &mut impl Hints, x: &U256, odd: bool) -> Option<(U256, U256)> {
    let cube = mul_p(&mul_p(x, x), x);
    // Never zero: the group's order is odd, so no point has y = 0.
    let alpha = add_mod(&cube, &[7, 0, 0, 0], &P);
    hints.ask(&to_be(x), &to_be(&alpha), odd);
    let root = match hints.answer().as_slice() {
        [1] => number(hints),
        [0] => {
            // 3 is not a square modulo P, so a root of 3 * alpha shows that alpha is none either.
            let root = number(hints);
            require(less(&root, &P));
            require(mul_p(&root, &root) == mul_p(&alpha, &[3, 0, 0, 0]));
            return None;
        }
        _ => sp1_lib::halt_invalid_hint(),
    };
    let inverse = number(hints);
    require(less(&root, &P));
    require(mul_p(&root, &root) == alpha);
    require((root[0] & 1 == 1) == odd);
    require(less(&inverse, &N));
    require(mul_n(&inverse, x) == [1, 0, 0, 0]);
    Some((root, inverse))
}

fn number(hints: &mut impl Hints) -> U256 {
    match <[u8; 32]>::try_from(hints.answer()) {
        Ok(bytes) => from_be(&bytes),
        Err(_) => sp1_lib::halt_invalid_hint(),
    }
}

fn mul_p(x: &U256, y: &U256) -> U256 {
    mul_mod_sparse(x, y, &P, &P_COMPLEMENT)
}

fn mul_n(x: &U256, y: &U256) -> U256 {
    mul_mod_sparse(x, y, &N, &N_COMPLEMENT)
}

/// Ends the program unless the hint passes.
fn require(passes: bool) {
    if !passes {
        sp1_lib::halt_invalid_hint()
    }
}

/// `u1 * G + u2 * point` by Shamir's trick; None if that is infinity.
///
/// Doublings are made of additions: `2 a + t` is `(a + t) + a`, and `2 a` is `(a + G) + (a - G)`. That is 128 more additions
/// for a key, but the zkVM's call for doubling stays unused, and with it a table that costs a shard and its recursion.
fn double_scalar_mul(u1: &U256, u2: &U256, point: &[u64; 8]) -> Option<[u64; 8]> {
    let mut both = Some(G);
    add(&mut both, point);
    let mut acc = None;
    for (first, second) in bits(u1).zip(bits(u2)) {
        let addend = match (first, second) {
            (false, false) => None,
            (true, false) => Some(&G),
            (false, true) => Some(point),
            (true, true) => both.as_ref(),
        };
        let Some(addend) = addend else {
            acc.iter_mut().for_each(double);
            continue;
        };
        let in_place = acc.as_mut().is_some_and(|acc| twice_plus(acc, addend));
        if !in_place {
            let before = acc;
            add(&mut acc, addend);
            before.iter().for_each(|before| add(&mut acc, before));
        }
    }
    acc
}

/// `acc = 2 acc + addend`, unless a sum on the way is of equal or opposite points: then nothing changes and the answer is
/// false. In place, because this is where the cycles go.
fn twice_plus(acc: &mut [u64; 8], addend: &[u64; 8]) -> bool {
    if same_x(acc, addend) {
        return false;
    }
    let before = *acc;
    // SAFETY: eight aligned limbs each, of points on the curve that differ in x.
    unsafe { sp1_lib::syscall_secp256k1_add(acc, addend) }
    if same_x(acc, &before) {
        *acc = before;
        return false;
    }
    // SAFETY: as above.
    unsafe { sp1_lib::syscall_secp256k1_add(acc, &before) }
    true
}

/// Complete addition; None is infinity. The call itself is only defined for different x.
fn add(acc: &mut Option<[u64; 8]>, point: &[u64; 8]) {
    match acc {
        None => *acc = Some(*point),
        Some(p) if !same_x(p, point) => {
            // SAFETY: both point to eight aligned limbs; the points lie on the curve and differ in x.
            unsafe { sp1_lib::syscall_secp256k1_add(p, point) }
        }
        Some(p) if p[4..] == point[4..] => double(p),
        Some(_) => *acc = None,
    }
}

/// Limb by limb: the first nearly always differs, and a comparison of slices is a call.
fn same_x(a: &[u64; 8], b: &[u64; 8]) -> bool {
    (0..4).all(|i| a[i] == b[i])
}

/// Doubles a point, whose y is never zero, as `(a + g) + (a - g)` for `g = G`, or `2 G` where `a` is `G` or `-G`.
///
/// The two sums are never equal or opposite: that would take `2 g = 0` or `2 a = 0`, and the group's order is odd.
fn double(point: &mut [u64; 8]) {
    let (base, negated) =
        if same_x(point, &G) { (&G_DOUBLED, &G_DOUBLED_NEGATED) } else { (&G, &G_NEGATED) };
    let mut difference = *point;
    // SAFETY: eight aligned limbs each, of points on the curve. `base` and `point` differ in x: neither is infinity, and
    // the x of `2 G` is not that of `G`. The sums differ in x by the above.
    unsafe {
        sp1_lib::syscall_secp256k1_add(point, base);
        sp1_lib::syscall_secp256k1_add(&mut difference, negated);
        sp1_lib::syscall_secp256k1_add(point, &difference);
    }
}
