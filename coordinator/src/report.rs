//! `report.json`: what the proof cost, on which machine, with which versions.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::Machine;
use crate::pipeline::{Origin, Until};
use crate::statement::{BatchSummary, Statement};

/// Version of the zkVM crates; part of every cache key.
pub const ZKVM_VERSION: &str = "sp1 6.10.0";

/// One stage of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageReport {
    /// Name, with the run's number where there is one.
    pub stage: String,
    /// Wall-clock seconds of the computation (also when it was found in the cache).
    pub seconds: f64,
    /// Whether this run computed it.
    pub origin: Origin,
    /// Highest resident memory of the computing process in bytes, 0 if unknown.
    pub peak_memory_bytes: u64,
    /// What the stage reports of itself: cycles, shards, constraints, …
    pub details: Value,
}

/// Programs and versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// This program.
    pub assay: String,
    /// The zkVM.
    pub zkvm: String,
    /// SHA-256 of the block program's ELF, hex.
    pub block_elf_sha256: String,
    /// SHA-256 of the fold program's ELF, hex.
    pub fold_elf_sha256: String,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of this format.
    pub version: u32,
    /// The batch.
    pub batch: BatchSummary,
    /// The stage after which the pipeline stopped.
    pub until: Until,
    /// Set if the Groth16 parameters come from a development set-up.
    pub insecure: Option<String>,
    /// What was proved; absent if nothing was folded.
    pub statement: Option<Statement>,
    /// Seconds from start to end of this run of the program.
    pub wall_seconds: f64,
    /// Sum of the stages' seconds, those found in the cache included.
    pub compute_seconds: f64,
    /// Highest peak of all stages in bytes.
    pub peak_memory_bytes: u64,
    /// Guest cycles of the block programs.
    pub cycles: u64,
    /// Constraints of the wrap circuit; absent before Groth16.
    pub constraints: Option<u64>,
    /// The stages in order.
    pub stages: Vec<StageReport>,
    /// What Bitcoin enforces of the claim, and what it does not yet.
    pub enforcement: String,
    /// The machine.
    pub machine: Machine,
    /// Programs and versions.
    pub versions: Versions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zkvm_version_is_the_one_that_is_built() {
        let version = ZKVM_VERSION.strip_prefix("sp1 ").unwrap();
        // Tests run in their package's folder.
        let manifest = std::fs::read_to_string("../Cargo.toml").unwrap();
        assert!(manifest.contains(&format!("sp1-prover = \"={version}\"")));
    }
}
