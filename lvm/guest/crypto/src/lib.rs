//! Cryptography for the guests, through the zkVM's precompiles.
//!
//! Layer: guest only; it links against system calls that exist nowhere else. [`install`] makes revm and
//! alloy-consensus use it; `native_keccak256` is what `alloy-primitives` calls under its feature `native-keccak`.
//!
//! Rule: whatever the host supplies (a hint) is checked, and a hint that does not pass ends the program with exit code
//! 3, for which no proof is accepted. So a dishonest host can stop a proof and never change a result.
//!
//! | operation | how |
//! |---|---|
//! | Keccak-256 | permutation call |
//! | SHA-256 | extend and compress calls |
//! | ecrecover, transaction senders | curve and modular calls; square root and inverse are hints, checked |
//! | BN254 add, mul | curve calls |
//! | BN254 pairing | `substrate-bn-succinct-rs`: field calls |
//! | modexp, modulus up to 32 bytes | modular multiplication call |
//! | modexp, larger; BLAKE2, RIPEMD-160, P-256, KZG, BLS12-381 | revm's own software |

mod bn254;
mod hash;
mod modexp;
mod provider;
pub mod secp256k1;
mod uint256;

pub use bn254::{g1_add, g1_mul, pairing_check};
pub use hash::sha256;
pub use modexp::modexp;
pub use provider::{install, SyscallCrypto};
