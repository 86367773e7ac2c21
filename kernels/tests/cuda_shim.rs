//! The CUDA kernels on the CPU shim (`cuda/shim`), bit for bit against the CPU implementation; and the shim against planted
//! errors. Needs g++; where there is none, every test but the one of the constants says SKIPPED and passes.

mod cuda_shim {
    pub(crate) mod constants;
    mod field_and_curve;
    mod merkle;
    mod msm;
    mod ntt;
    mod nvcc;
    mod planted;
    pub(crate) mod process;
}
