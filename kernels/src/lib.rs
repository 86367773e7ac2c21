//! BN254 arithmetic: field, Poseidon2, NTT, MSM and the Groth16 prover, on the CPU and (feature `cuda`) on CUDA.

pub mod device;
pub mod field;
pub mod groth16;
pub mod merkle;
pub mod msm;
pub mod ntt;
pub mod poseidon2;
pub mod r1cs;
