//! BN254 arithmetic: field, Poseidon2 and Merkle trees, NTT, MSM and the Groth16 set-up and prover.
//!
//! Layer: the lowest. arkworks types at the border, so that a proof is an `ark_groth16::Proof<Bn254>` for any verifier. The
//! CPU code is a full back end and the oracle of the kernels in `cuda/`, whose launch plans are in [`device`]; they run on
//! a CPU shim in tests, and with the feature `cuda` on a GPU. [`Backend`] takes a GPU where there is one, else the CPU.
//!
//! Non-goals: tasks, threads other than rayon's, constant time (the witness is wiped, [`secret`], not hidden from this machine's
//! clock).
//!
//! Invariants: every result is equal, bit for bit, to arkworks' (tests hold each against it); the widest instructions
//! there are (8 lanes of AVX-512 IFMA, else portable) are chosen at run time and change no result; a proof is verified before
//! it is returned.
//!
//! Reading order: [`field`], then [`ntt`] and [`msm`], then [`groth16`]; [`backend`] and [`device`] for GPUs.
//!
//! ```
//! use ark_bn254::Fr;
//! use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
//! use assay_kernels::ntt::Domain;
//!
//! let mut ours: Vec<Fr> = (1..=8u64).map(Fr::from).collect();
//! let theirs = Radix2EvaluationDomain::<Fr>::new(8).unwrap().fft(&ours);
//! Domain::new(8).unwrap().fft(&mut ours);
//! assert_eq!(ours, theirs);
//! ```

pub mod backend;
pub mod device;
pub mod field;
pub mod groth16;
pub mod merkle;
pub mod msm;
pub mod ntt;
pub mod poseidon2;
pub mod r1cs;
pub mod secret;

pub use backend::Backend;
