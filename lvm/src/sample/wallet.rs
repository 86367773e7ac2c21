//! Accounts of the sample chain. Their keys are public: the chain is worth nothing.

use alloy_consensus::{SignableTransaction, Signed};
use alloy_primitives::{keccak256, Address, Signature};
use assay_lvm_core::Transaction;
use k256::ecdsa::SigningKey;

/// An account with its key, `keccak256("assay sample key <index>")`.
#[derive(Debug, Clone)]
pub(crate) struct Wallet {
    key: SigningKey,
}

impl Wallet {
    /// The account with this index.
    pub(crate) fn new(index: u8) -> Self {
        let secret = keccak256(format!("assay sample key {index}"));
        let key = SigningKey::from_slice(secret.as_slice())
            .expect("a hash is a valid key but for a chance of 2^-127");
        Self { key }
    }

    /// The four accounts of the sample.
    pub(crate) fn all() -> [Self; 4] {
        [0, 1, 2, 3].map(Self::new)
    }

    /// Its address.
    pub(crate) fn address(&self) -> Address {
        Address::from_public_key(self.key.verifying_key())
    }

    /// Signs deterministically (RFC 6979).
    pub(crate) fn sign<T>(&self, transaction: T) -> Transaction
    where
        T: SignableTransaction<Signature>,
        Transaction: From<Signed<T>>,
    {
        let hash = transaction.signature_hash();
        let (signature, recovery) =
            self.key.sign_prehash_recoverable(hash.as_slice()).expect("a 32-byte hash can be signed");
        let (r, s) = signature.split_bytes();
        let signature = Signature::from_scalars_and_parity(
            alloy_primitives::B256::from_slice(&r),
            alloy_primitives::B256::from_slice(&s),
            recovery.is_y_odd(),
        );
        transaction.into_signed(signature).into()
    }
}
