//! The CUDA kernels on the CPU shim (`cuda/shim`), bit for bit against the CPU implementation; and the shim against planted
//! errors; the back end on the shim, with faults; and what nvcc makes of the kernels. Needs g++, and nvcc for its part: where they
//! are missing, the tests say SKIPPED and pass.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "`Backend::keep` takes an `Arc`, and the rig counts in cells"
)]

mod cuda_shim {
    mod ahead;
    mod backend;
    mod compiler;
    pub(crate) mod constants;
    #[cfg(feature = "cuda")]
    mod driver;
    mod faults;
    mod field_and_curve;
    mod merkle;
    mod msm;
    mod ntt;
    mod planted;
    pub(crate) mod process;
    pub(crate) mod rig;
    mod tables;
}
