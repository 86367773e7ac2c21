//! The state of a chain between two blocks and its commitment.

use alloy_primitives::B256;

/// Where a chain stands after a block: what a block proof leads from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainState {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// [`crate::ChainSpec::hash`].
    pub spec_hash: B256,
    /// Number of the last executed block.
    pub block_number: u64,
    /// Hash of its header.
    pub block_hash: B256,
    /// Root of the account trie after it.
    pub state_root: B256,
}

impl ChainState {
    /// Length of [`Self::encode`] in bytes.
    pub const ENCODED_LEN: usize = 112;

    /// Fixed-width encoding: chain id (8, little-endian), spec hash (32), block number (8, little-endian), block hash
    /// (32), state root (32).
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..8].copy_from_slice(&self.chain_id.to_le_bytes());
        out[8..40].copy_from_slice(self.spec_hash.as_slice());
        out[40..48].copy_from_slice(&self.block_number.to_le_bytes());
        out[48..80].copy_from_slice(self.block_hash.as_slice());
        out[80..].copy_from_slice(self.state_root.as_slice());
        out
    }

    /// BLAKE3 of the tag `assay.chain-state.v1` followed by [`Self::encode`].
    pub fn commitment(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"assay.chain-state.v1");
        hasher.update(&self.encode());
        *hasher.finalize().as_bytes()
    }
}
