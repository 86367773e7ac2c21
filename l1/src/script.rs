//! Pieces of tapscript. Every piece states its stack effect, top of the stack last.

mod assembler;
pub mod blake3;
pub mod compare;
pub mod interpreter;
#[cfg(test)]
pub(crate) mod testing;
pub mod tree;
pub mod winternitz;

use bitcoin::secp256k1::XOnlyPublicKey;

/// The point of BIP341 whose discrete logarithm nobody knows: the internal key of every output here, so that no output
/// can be spent by a key alone.
#[must_use]
pub fn unspendable_key() -> XOnlyPublicKey {
    const H: [u8; 32] = [
        0x50, 0x92, 0x9b, 0x74, 0xc1, 0xa0, 0x49, 0x54, 0xb7, 0x8b, 0x4b, 0x60, 0x35, 0xe9, 0x7a, 0x5e, 0x07,
        0x8a, 0x5a, 0x0f, 0x28, 0xec, 0x96, 0xd5, 0x47, 0xbf, 0xee, 0x9a, 0xce, 0x80, 0x3a, 0xc0,
    ];
    XOnlyPublicKey::from_slice(&H).expect("BIP341's H is a point")
}
