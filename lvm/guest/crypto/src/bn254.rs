//! The precompiles of EIP-196 and EIP-197: BN254 addition, multiplication and pairing check.
#![allow(unsafe_code, reason = "calls the zkVM")]

use revm::precompile::PrecompileHalt;
use substrate_bn_succinct_rs as bn;

use crate::uint256::{add_mod, bits, from_be, is_zero, less, to_be, U256};

/// The base field's modulus.
const P: U256 = [0x3c20_8c16_d87c_fd47, 0x9781_6a91_6871_ca8d, 0xb850_45b6_8181_585d, 0x3064_4e72_e131_a029];

/// A point of G1, x then y; None is infinity.
type G1 = Option<[u64; 8]>;

/// Adds two points of G1, each `x || y` big endian, infinity being zeros.
///
/// # Errors
/// `Bn254FieldPointNotAMember` for a coordinate beyond the modulus, `Bn254AffineGFailedToCreate` off the curve.
pub fn g1_add(p: &[u8], q: &[u8]) -> Result<[u8; 64], PrecompileHalt> {
    let mut sum = read_g1(p)?;
    if let Some(q) = read_g1(q)? {
        add(&mut sum, &q);
    }
    Ok(write_g1(&sum))
}

/// Multiplies a point of G1 by a scalar of 32 bytes, big endian, not necessarily reduced.
///
/// # Errors
/// As [`g1_add`].
pub fn g1_mul(point: &[u8], scalar: &[u8]) -> Result<[u8; 64], PrecompileHalt> {
    let point = read_g1(point)?;
    let scalar = from_be(&word(scalar)?);
    let mut acc = None;
    if let Some(point) = &point {
        for bit in bits(&scalar) {
            if let Some(acc) = &mut acc {
                double(acc);
            }
            if bit {
                add(&mut acc, point);
            }
        }
    }
    Ok(write_g1(&acc))
}

/// Whether the product of the pairings is one. Pairs are a point of G1 and one of G2 (imaginary parts first).
///
/// # Errors
/// As [`g1_add`]; also `Bn254AffineGFailedToCreate` for a point of the twist outside the group.
pub fn pairing_check(pairs: &[(&[u8], &[u8])]) -> Result<bool, PrecompileHalt> {
    let mut finite = Vec::with_capacity(pairs.len());
    for (first, second) in pairs {
        let (g1, g2) = (read_g1(first)?, read_g2(second)?);
        if let (Some(_), Some(g2)) = (g1, g2) {
            let affine = bn::AffineG1::new(read_fq(&first[..32])?, read_fq(&first[32..])?)
                .map_err(|_| PrecompileHalt::Bn254AffineGFailedToCreate)?;
            let g1: bn::G1 = affine.into();
            finite.push((g1, g2));
        }
    }
    Ok(finite.is_empty() || bn::pairing_batch(&finite) == bn::Gt::one())
}

fn word(bytes: &[u8]) -> Result<[u8; 32], PrecompileHalt> {
    bytes.try_into().map_err(|_| PrecompileHalt::Bn254PairLength)
}

fn coordinate(bytes: &[u8]) -> Result<U256, PrecompileHalt> {
    let value = from_be(&word(bytes)?);
    if less(&value, &P) {
        Ok(value)
    } else {
        Err(PrecompileHalt::Bn254FieldPointNotAMember)
    }
}

fn read_g1(bytes: &[u8]) -> Result<G1, PrecompileHalt> {
    let (x, y) = bytes.split_at_checked(32).ok_or(PrecompileHalt::Bn254PairLength)?;
    let (x, y) = (coordinate(x)?, coordinate(y)?);
    if is_zero(&x) && is_zero(&y) {
        return Ok(None);
    }
    let right = add_mod(&mul(&mul(&x, &x), &x), &[3, 0, 0, 0], &P);
    if mul(&y, &y) != right {
        return Err(PrecompileHalt::Bn254AffineGFailedToCreate);
    }
    Ok(Some([x[0], x[1], x[2], x[3], y[0], y[1], y[2], y[3]]))
}

/// `x * y mod P`; both below P. The field's own call costs no shard of its own, as the general one would.
fn mul(x: &U256, y: &U256) -> U256 {
    let mut product = *x;
    // SAFETY: four aligned limbs each; the call reduces modulo the field's modulus.
    unsafe { sp1_lib::syscall_bn254_fp_mulmod(product.as_mut_ptr(), y.as_ptr()) };
    // The zkVM's table promises this already; it costs a few cycles not to depend on it.
    if !less(&product, &P) {
        sp1_lib::halt_invalid_hint()
    }
    product
}

fn write_g1(point: &G1) -> [u8; 64] {
    let mut bytes = [0; 64];
    if let Some(p) = point {
        bytes[..32].copy_from_slice(&to_be(&[p[0], p[1], p[2], p[3]]));
        bytes[32..].copy_from_slice(&to_be(&[p[4], p[5], p[6], p[7]]));
    }
    bytes
}

fn read_fq(bytes: &[u8]) -> Result<bn::Fq, PrecompileHalt> {
    // The bound is ours, so that nothing depends on what the library does with larger numbers.
    coordinate(bytes)?;
    bn::Fq::from_slice(bytes).map_err(|_| PrecompileHalt::Bn254FieldPointNotAMember)
}

fn read_g2(bytes: &[u8]) -> Result<Option<bn::G2>, PrecompileHalt> {
    if bytes.len() != 128 {
        return Err(PrecompileHalt::Bn254PairLength);
    }
    let x = bn::Fq2::new(read_fq(&bytes[32..64])?, read_fq(&bytes[..32])?);
    let y = bn::Fq2::new(read_fq(&bytes[96..])?, read_fq(&bytes[64..96])?);
    if x.is_zero() && y.is_zero() {
        return Ok(None);
    }
    let affine = bn::AffineG2::new(x, y).map_err(|_| PrecompileHalt::Bn254AffineGFailedToCreate)?;
    Ok(Some(affine.into()))
}

/// Complete addition. The call itself is only defined for different x.
fn add(acc: &mut G1, point: &[u64; 8]) {
    match acc {
        None => *acc = Some(*point),
        Some(p) if p[..4] != point[..4] => {
            // SAFETY: both point to eight aligned limbs; the points lie on the curve and differ in x.
            unsafe { sp1_lib::syscall_bn254_add(p, point) }
        }
        Some(p) if p[4..] == point[4..] => double(p),
        Some(_) => *acc = None,
    }
}

/// Doubles a point. Its y is never zero: the group's order is an odd prime.
fn double(point: &mut [u64; 8]) {
    // SAFETY: eight aligned limbs.
    unsafe { sp1_lib::syscall_bn254_double(point) }
}
