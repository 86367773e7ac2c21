//! Modular exponentiation: by the zkVM for moduli up to 32 bytes, in software beyond.

use revm::precompile::{Crypto, DefaultCrypto, PrecompileHalt};

use crate::uint256::{add_mod, from_be, is_zero, mul_mod, to_be, ONE, U256, ZERO};

/// `base ^ exponent mod modulus`; big-endian numbers of any length, the result as long as the modulus.
///
/// # Errors
/// None; the type is that of the interface.
pub fn modexp(base: &[u8], exponent: &[u8], modulus: &[u8]) -> Result<Vec<u8>, PrecompileHalt> {
    let significant = trim(modulus);
    if significant.len() > 32 {
        return DefaultCrypto.modexp(base, exponent, modulus);
    }
    let mut result = vec![0; modulus.len()];
    let m = pad(significant);
    // Modulo nothing or one the result is zero; the call would take a modulus of zero for 2^256.
    if is_zero(&m) || m == ONE {
        return Ok(result);
    }
    let value = to_be(&power(&reduce(trim(base), &m), trim(exponent), &m));
    let len = result.len().min(32);
    let start = result.len() - len;
    result[start..].copy_from_slice(&value[32 - len..]);
    Ok(result)
}

fn trim(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// Reads up to 32 bytes.
fn pad(bytes: &[u8]) -> U256 {
    let mut padded = [0; 32];
    padded[32 - bytes.len()..].copy_from_slice(bytes);
    from_be(&padded)
}

/// `bytes mod m`, for `m` above 1, by Horner's rule in digits of 256 bits.
fn reduce(bytes: &[u8], m: &U256) -> U256 {
    let half = mul_mod(&[0, 0, 0, 1 << 63], &ONE, m);
    let radix = add_mod(&half, &half, m);
    bytes
        .rchunks(32)
        .rev()
        .fold(ZERO, |value, digit| add_mod(&mul_mod(&value, &radix, m), &mul_mod(&pad(digit), &ONE, m), m))
}

/// `base ^ exponent mod m` by squaring; `base` below `m`, `exponent` without leading zeros, 0^0 = 1.
fn power(base: &U256, exponent: &[u8], m: &U256) -> U256 {
    let Some(first) = exponent.first() else { return ONE };
    let mut result = *base;
    let skipped = first.leading_zeros() as usize + 1;
    let bits = exponent.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    for bit in bits.skip(skipped) {
        result = mul_mod(&result, &result, m);
        if bit {
            result = mul_mod(&result, base, m);
        }
    }
    result
}
