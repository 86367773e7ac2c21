//! Hashes of blocks and transactions.

use core::fmt;

use sha2::{Digest, Sha256};

/// A double SHA-256 hash in the order of its bytes in headers and transactions; printed reversed, as Bitcoin does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of nothing: parent of a genesis block, previous output of a coinbase.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of SHA-256 of the parts, one after the other.
#[must_use]
pub fn double_sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Hash(Sha256::digest(hasher.finalize()).into())
}
