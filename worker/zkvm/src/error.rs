//! Errors of the worker, one enum for the whole family of proving operations.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The same call may succeed later: disk full, file busy, a killed executor.
    Transient,
    /// The input is at fault; the same call fails again.
    Permanent,
    /// The program is at fault: a panic, a broken invariant, a proof that does not verify.
    Bug,
    /// An allocation on the GPU failed, which is otherwise sound: the same call may succeed with more of its memory.
    GpuMemory,
    /// The GPU's context of this process is broken: another process may do better.
    GpuContext,
    /// The GPU does not answer.
    GpuLost,
    /// What the GPU has computed is wrong: another one may do better.
    GpuWrong,
}

impl ErrorClass {
    /// Whether the same call may succeed in a new process.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Transient | Self::GpuMemory | Self::GpuContext | Self::GpuLost | Self::GpuWrong => true,
            Self::Permanent | Self::Bug => false,
        }
    }
}

/// Errors of the proving engine and of its stages.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A file operation failed after its retries.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, as a verb ("read", "write", "rename").
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file's content is not what its reference says.
    #[error("content of {path} changed: expected blake3 {expected}, got {got}")]
    ContentMismatch {
        /// The file concerned.
        path: PathBuf,
        /// Hash in the reference, hex.
        expected: String,
        /// Hash of the bytes found, hex.
        got: String,
    },
    /// An artifact that a task needs is not in the store.
    #[error("artifact {id} is not in the store")]
    ArtifactMissing {
        /// The artifact's id.
        id: String,
    },
    /// Bytes that should hold a proof or a key do not.
    #[error("{what} does not decode: {reason}")]
    Decode {
        /// What was being read.
        what: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// A proof file was written by another version of the format or of the zkVM.
    #[error("{what} has version {got}, expected {expected}")]
    Version {
        /// What was being read.
        what: &'static str,
        /// The version this program writes.
        expected: String,
        /// The version found.
        got: String,
    },
    /// The ELF is not a program of the zkVM.
    #[error("program does not load: {reason}")]
    Program {
        /// Why it failed.
        reason: String,
    },
    /// The guest stopped with an error, or broke a limit.
    #[error("guest execution failed: {reason}")]
    Execution {
        /// Why it failed.
        reason: String,
    },
    /// The guest ended with an exit code other than zero: it rejected its input.
    #[error("guest rejected its input with exit code {code}")]
    GuestExit {
        /// The exit code.
        code: u32,
    },
    /// A proving task failed for good.
    #[error("proving task failed: {reason}")]
    Task {
        /// The first failure of the proof's tasks.
        reason: String,
    },
    /// A task panicked.
    #[error("task panicked: {reason}")]
    Panicked {
        /// The panic's message.
        reason: String,
    },
    /// The proof was cancelled by its owner.
    #[error("proof cancelled")]
    Cancelled,
    /// A proof does not verify.
    #[error("{what} does not verify: {reason}")]
    Verify {
        /// Which proof.
        what: &'static str,
        /// The verifier's answer.
        reason: String,
    },
    /// A public input of a proof is not the epoch's constant.
    #[error("public input {name} is {got}, expected {expected}")]
    PublicInput {
        /// Name of the input.
        name: &'static str,
        /// The constant, hex.
        expected: String,
        /// The value found, hex.
        got: String,
    },
    /// A job's fields do not fit together.
    #[error("bad job: {reason}")]
    BadJob {
        /// Which field, and why.
        reason: String,
    },
    /// The wrap circuit rejected a proof or could not be built.
    #[error("wrap circuit: {reason}")]
    Circuit {
        /// Why it failed.
        reason: String,
    },
    /// Groth16 setup, proving or key handling failed.
    #[error("groth16: {reason}")]
    Groth16 {
        /// Why it failed.
        reason: String,
    },
    /// The machine cannot hold the smallest configuration.
    #[error(
        "this machine has {got_bytes} bytes of memory for proving, at least {expected_bytes} are needed"
    )]
    TooLittleMemory {
        /// Bytes needed.
        expected_bytes: u64,
        /// Bytes offered.
        got_bytes: u64,
    },
    /// Others hold the memory that a step needs: it may be there later.
    #[error(
        "{what} needs {} MiB of memory, {} MiB are available: {} MiB are missing",
        needed_bytes >> 20,
        available_bytes >> 20,
        needed_bytes.saturating_sub(*available_bytes).div_ceil(1 << 20)
    )]
    MemoryMissing {
        /// The step.
        what: &'static str,
        /// Bytes that it takes at most.
        needed_bytes: u64,
        /// Bytes that the system could give.
        available_bytes: u64,
    },
    /// The GPU that this process was given cannot be used.
    #[error("GPU: {reason}")]
    Gpu {
        /// What it or its driver says.
        reason: String,
    },
    /// The GPU has failed while it was used; every call of this process fails from now on.
    #[error("the GPU has failed: {reason}")]
    GpuContext {
        /// What its driver says, and the failure of the task.
        reason: String,
    },
    /// The GPU's memory does not hold a task.
    #[error("out of GPU memory: {reason}")]
    GpuMemory {
        /// The failure of the task.
        reason: String,
    },
    /// A proof that was made on a GPU does not verify.
    #[error("the GPU computes wrongly: {what} does not verify: {reason}")]
    GpuWrong {
        /// Which proof.
        what: &'static str,
        /// The verifier's answer.
        reason: String,
    },
    /// An invariant of the engine does not hold.
    #[error("internal error: {reason}")]
    Internal {
        /// Which one.
        reason: String,
    },
}

impl WorkerError {
    /// Tells retry from rejection; retry logic reads this and nothing else.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. } | Self::Cancelled | Self::MemoryMissing { .. } => ErrorClass::Transient,
            Self::Gpu { .. } => ErrorClass::GpuLost,
            Self::GpuContext { .. } => ErrorClass::GpuContext,
            Self::GpuMemory { .. } => ErrorClass::GpuMemory,
            Self::GpuWrong { .. } => ErrorClass::GpuWrong,
            Self::ContentMismatch { .. }
            | Self::Decode { .. }
            | Self::Version { .. }
            | Self::Program { .. }
            | Self::Execution { .. }
            | Self::GuestExit { .. }
            | Self::PublicInput { .. }
            | Self::TooLittleMemory { .. }
            | Self::BadJob { .. } => ErrorClass::Permanent,
            Self::ArtifactMissing { .. }
            | Self::Task { .. }
            | Self::Panicked { .. }
            | Self::Verify { .. }
            | Self::Circuit { .. }
            | Self::Groth16 { .. }
            | Self::Internal { .. } => ErrorClass::Bug,
        }
    }

    /// Makes an [`WorkerError::Io`] of an I/O error: for `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Makes an [`WorkerError::Internal`] of anything printable: for `map_err`.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        Self::Internal { reason: reason.to_string() }
    }
}
