//! Makes the EVM and the transaction types use this crate.

use std::sync::Arc;

use alloy_consensus::crypto::{
    backend::{install_default_provider, CryptoProvider},
    RecoveryError,
};
use alloy_primitives::{keccak256, Address};
use revm::precompile::{install_crypto, Crypto, PrecompileHalt};

use crate::{bn254, hash, modexp, secp256k1};

/// Precompiles through the zkVM. What is not overridden is revm's own software.
#[derive(Debug, Clone, Copy)]
pub struct SyscallCrypto;

impl Crypto for SyscallCrypto {
    fn sha256(&self, input: &[u8]) -> [u8; 32] {
        hash::sha256(input)
    }

    fn bn254_g1_add(&self, p1: &[u8], p2: &[u8]) -> Result<[u8; 64], PrecompileHalt> {
        bn254::g1_add(p1, p2)
    }

    fn bn254_g1_mul(&self, point: &[u8], scalar: &[u8]) -> Result<[u8; 64], PrecompileHalt> {
        bn254::g1_mul(point, scalar)
    }

    fn bn254_pairing_check(&self, pairs: &[(&[u8], &[u8])]) -> Result<bool, PrecompileHalt> {
        bn254::pairing_check(pairs)
    }

    fn secp256k1_ecrecover(
        &self,
        sig: &[u8; 64],
        recid: u8,
        msg: &[u8; 32],
    ) -> Result<[u8; 32], PrecompileHalt> {
        let key = secp256k1::recover(&mut secp256k1::Hook, sig, recid, msg)
            .ok_or(PrecompileHalt::Secp256k1RecoverFailed)?;
        let mut hash = keccak256(key).0;
        hash[..12].fill(0);
        Ok(hash)
    }

    fn modexp(&self, base: &[u8], exp: &[u8], modulus: &[u8]) -> Result<Vec<u8>, PrecompileHalt> {
        modexp::modexp(base, exp, modulus)
    }
}

/// Senders of transactions.
struct Senders;

impl Senders {
    fn key(signature: &[u8; 65], hash: &[u8; 32]) -> Result<[u8; 64], RecoveryError> {
        let mut r_and_s = [0; 64];
        r_and_s.copy_from_slice(&signature[..64]);
        secp256k1::recover(&mut secp256k1::Hook, &r_and_s, signature[64], hash).ok_or_else(RecoveryError::new)
    }
}

impl CryptoProvider for Senders {
    fn recover_signer_unchecked(&self, sig: &[u8; 65], msg: &[u8; 32]) -> Result<Address, RecoveryError> {
        Self::key(sig, msg).map(|key| Address::from_slice(&keccak256(key)[12..]))
    }

    fn verify_and_compute_signer_unchecked(
        &self,
        pubkey: &[u8; 65],
        sig: &[u8; 64],
        msg: &[u8; 32],
    ) -> Result<Address, RecoveryError> {
        for parity in 0..2 {
            let key = secp256k1::recover(&mut secp256k1::Hook, sig, parity, msg);
            if key.is_some_and(|key| pubkey[0] == 4 && key == pubkey[1..]) {
                return Ok(Address::from_slice(&keccak256(&pubkey[1..])[12..]));
            }
        }
        Err(RecoveryError::new())
    }
}

/// Makes revm's precompiles and alloy-consensus' sender recovery use the zkVM. To be called first thing in a guest.
///
/// # Panics
/// If others were installed before: the program's cost and its proof's meaning must not depend on the order of calls.
pub fn install() {
    assert!(install_crypto(SyscallCrypto), "no other precompiles are installed");
    assert!(install_default_provider(Arc::new(Senders)).is_ok(), "no other provider is installed");
}
