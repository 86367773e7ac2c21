//! BN254 arithmetic: field, Poseidon2, NTT, MSM and the Groth16 prover, on the CPU and (feature `cuda`) on CUDA.

pub mod field;
pub mod r1cs;
