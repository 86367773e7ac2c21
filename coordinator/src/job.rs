//! What is to be proved, validated and cut into runs; everything the stages derive from the batch.

use assay_lvm::guests;
use assay_lvm_core::{FoldPublicValues, VkHash};

use crate::cache::{BlobRef, Key, KeyBuilder};
use crate::pipeline::{Stage, Until};
use crate::report::ZKVM_VERSION;
use crate::statement::BatchSummary;

/// One run of consecutive blocks.
#[derive(Clone, Debug)]
pub struct Run {
    /// Encoded input of the block program.
    pub input: Vec<u8>,
    /// The public values it must commit, computed on the host by the same code.
    pub public_values: Vec<u8>,
}

/// A validated batch.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name, blocks, sums.
    pub summary: BatchSummary,
    /// Commitment to the state before the batch.
    pub parent_commitment: [u8; 32],
    /// Number of the block before the batch.
    pub parent_number: u64,
    /// Commitment to the state after the batch.
    pub new_commitment: [u8; 32],
    /// Accumulated block hashes.
    pub batch_hash: [u8; 32],
    /// The runs in order.
    pub runs: Vec<Run>,
    /// What is posted on Bitcoin.
    pub data: Vec<u8>,
}

/// The history before the batch.
#[derive(Clone, Debug)]
pub struct History {
    /// Commitment of the state where all history begins.
    pub genesis_commitment: [u8; 32],
    /// The previous batch's fold proof; `None` if the batch begins at genesis.
    pub previous: Option<BlobRef>,
}

/// The job with all that its cache keys depend on.
#[derive(Clone, Debug)]
pub struct Keys {
    programs: Key,
    runs: Vec<[u8; 32]>,
    parent_commitment: [u8; 32],
    genesis_commitment: Option<[u8; 32]>,
}

impl Keys {
    /// Keys of a job under the given guest programs (SHA-256 of their ELFs).
    pub fn new(job: &Job, history: Option<&History>, block_elf: &[u8; 32], fold_elf: &[u8; 32]) -> Self {
        Self {
            programs: base("programs").with("block", block_elf).with("fold", fold_elf).build(),
            runs: job.runs.iter().map(|run| *blake3::hash(&run.input).as_bytes()).collect(),
            parent_commitment: job.parent_commitment,
            genesis_commitment: history.map(|history| history.genesis_commitment),
        }
    }

    /// Identity of the whole job, up to `until`.
    pub fn job(&self, until: Until) -> Key {
        self.history(base("job").with("until", format!("{until:?}"))).build()
    }

    /// Cache key of a stage.
    pub fn stage(&self, stage: Stage) -> Key {
        let builder = base(stage.kind()).with("programs", self.programs.to_hex());
        match stage {
            Stage::Programs => builder.build(),
            Stage::Core(run) | Stage::Compressed(run) => builder.with("run", self.runs[run as usize]).build(),
            Stage::Execute => self.runs(builder).build(),
            Stage::Fold
            | Stage::Wrap
            | Stage::Setup
            | Stage::Groth16
            | Stage::Verify
            | Stage::Settle
            | Stage::Publish => self.history(builder).build(),
        }
    }

    /// Under which key the fold proof that ends in the state `commitment` is kept for the next batch.
    pub fn head(block_elf: &[u8; 32], fold_elf: &[u8; 32], commitment: &[u8; 32]) -> Key {
        base(HEAD_STAGE)
            .with("block", block_elf)
            .with("fold", fold_elf)
            .with("commitment", commitment)
            .build()
    }

    fn runs(&self, builder: KeyBuilder) -> KeyBuilder {
        self.runs.iter().fold(builder, |builder, run| builder.with("run", run))
    }

    fn history(&self, builder: KeyBuilder) -> KeyBuilder {
        let genesis = self.genesis_commitment.map(hex::encode).unwrap_or_default();
        self.runs(builder.with("from", self.parent_commitment).with("genesis", genesis))
    }
}

/// Name of the entries that hold the fold proofs for following batches; pruning keeps them.
pub const HEAD_STAGE: &str = "history";

fn base(stage: &str) -> KeyBuilder {
    Key::of(stage).with("zkvm", ZKVM_VERSION).with("assay", env!("CARGO_PKG_VERSION"))
}

/// The public values that the fold program must commit for `job`.
pub fn fold_public_values(
    job: &Job,
    genesis_commitment: [u8; 32],
    block_program: VkHash,
    fold_program: VkHash,
) -> FoldPublicValues {
    let group = guests::code_control_group(genesis_commitment, block_program, fold_program);
    FoldPublicValues {
        prev_commitment: job.parent_commitment,
        new_commitment: job.new_commitment,
        batch_hash: job.batch_hash,
        code_root: group.root(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn job() -> Job {
        Job {
            summary: BatchSummary {
                id: "1-1-00".into(),
                chain_id: 1,
                first_block: 1,
                last_block: 1,
                transactions: 1,
                gas: 21_000,
                genesis_commitment: None,
            },
            parent_commitment: [1; 32],
            parent_number: 0,
            new_commitment: [2; 32],
            batch_hash: [3; 32],
            runs: vec![Run { input: vec![1, 2, 3], public_values: vec![] }; 2],
            data: vec![],
        }
    }

    #[test]
    fn every_key_depends_on_what_its_stage_depends_on() {
        let (job, history) = (job(), History { genesis_commitment: [1; 32], previous: None });
        let keys = |job: &Job, history: Option<&History>, elf: u8| {
            let keys = Keys::new(job, history, &[elf; 32], &[9; 32]);
            [
                Stage::Programs,
                Stage::Compressed(1),
                Stage::Core(1),
                Stage::Execute,
                Stage::Fold,
                Stage::Groth16,
            ]
            .map(|stage| keys.stage(stage))
        };
        let first = keys(&job, Some(&history), 1);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "stages never share keys");
        assert_eq!(first, keys(&job, Some(&history), 1));

        let changed = |other: [Key; 6]| std::array::from_fn::<bool, 6, _>(|at| first[at] != other[at]);
        assert_eq!(changed(keys(&job, Some(&history), 2)), [true; 6]);
        let mut input = job.clone();
        input.runs[1].input.push(0);
        assert_eq!(changed(keys(&input, Some(&history), 1)), [false, true, true, true, true, true]);
        let genesis = History { genesis_commitment: [7; 32], previous: None };
        assert_eq!(changed(keys(&job, Some(&genesis), 1)), [false, false, false, false, true, true]);
    }
}
