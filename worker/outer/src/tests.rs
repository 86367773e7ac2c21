//! Everything bit for bit against the zkVM's own code.
mod hash;
