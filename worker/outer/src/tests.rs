//! Everything against the zkVM's own code.

mod hash;
mod pcs;
