//! Turns tasks into proofs: zkVM engine, wrap, Groth16.
