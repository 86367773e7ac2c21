//! The `fold` program, save for the zkVM's call that verifies a proof: what must join, and what must be verified.

use alloc::vec::Vec;

use alloy_primitives::B256;

use crate::{
    code_control::{
        block_leaf, fold_leaf, genesis_leaf, BlockProgram, MerkleProof, VkHash, DEPTH_MAX, FIRST_BLOCK_LEAF,
        FOLD_LEAF, GENESIS_LEAF,
    },
    codec::{Reader, Writer},
    error::{DecodeError, FoldError},
    public_values::{BlockPublicValues, FoldPublicValues},
};

const MAGIC: &[u8; 8] = b"ASSAYFLD";
const VERSION: u32 = 1;
/// Most runs in one batch.
pub const RUNS_MAX: u64 = 1 << 16;

/// One block proof of the batch: what it states and which program made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunClaim {
    /// The proof's public values.
    pub public_values: BlockPublicValues,
    /// The program and the blocks it may prove.
    pub program: BlockProgram,
    /// Path of the program's leaf in the code control group.
    pub proof: MerkleProof,
}

/// What the history before the batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// Nothing: the batch starts at genesis, whose commitment is leaf 0 of the code control group.
    Genesis {
        /// Commitment of the genesis state.
        commitment: [u8; 32],
        /// Path of leaf 0.
        proof: MerkleProof,
    },
    /// The fold proof of the batch before. A program cannot know its own key, so the key is an input, proved to be
    /// leaf 1 of the code control group.
    Fold {
        /// Public values of that proof.
        public_values: FoldPublicValues,
        /// Key of the fold program.
        vk: VkHash,
        /// Path of leaf 1.
        proof: MerkleProof,
    },
}

/// Input of the `fold` guest, the proofs themselves aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldInput {
    /// Root of the code control group.
    pub code_root: [u8; 32],
    /// The history before the batch.
    pub history: History,
    /// The batch's block proofs, in order.
    pub runs: Vec<RunClaim>,
}

/// A proof the guest must verify: this program made these public values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The program's key.
    pub vk: VkHash,
    /// Its public values as committed.
    pub public_values: Vec<u8>,
    /// Whether it is a fold proof (committed with BLAKE3) rather than a block proof.
    pub is_fold: bool,
}

/// What [`check`] found: the statement, valid if all the verifications succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldCheck {
    /// Public values of the fold proof.
    pub public_values: FoldPublicValues,
    /// Proofs to verify: the block proofs in order, then the previous fold proof if there is one.
    pub verifications: Vec<Verification>,
}

/// Checks that the batch's runs join each other and the history, and that every program is allowed for its blocks.
///
/// # Errors
/// [`FoldError`] naming the run and the rule it breaks.
pub fn check(input: &FoldInput) -> Result<FoldCheck, FoldError> {
    let (prev_commitment, history) = check_history(&input.history, &input.code_root)?;
    let mut state = prev_commitment;
    let mut acc = B256::ZERO;
    let mut next_block = None;
    let mut verifications = Vec::with_capacity(input.runs.len() + 1);
    for (run, claim) in input.runs.iter().enumerate() {
        check_program(run, claim, &input.code_root)?;
        let values = &claim.public_values;
        if !values.linked {
            return Err(FoldError::Unlinked { run });
        }
        if values.from_state != state {
            let (expected, got) = (B256::from(state), B256::from(values.from_state));
            return Err(FoldError::StateGap { run, expected, got });
        }
        if values.from_batch_acc != acc {
            return Err(FoldError::BatchGap { run, expected: acc, got: values.from_batch_acc });
        }
        if next_block.is_some_and(|expected| expected != values.first_block)
            || values.last_block < values.first_block
        {
            let (first, last) = (values.first_block, values.last_block);
            return Err(FoldError::BlockGap { run, expected: next_block.unwrap_or(first), first, last });
        }
        state = values.to_state;
        acc = values.to_batch_acc;
        next_block = Some(values.last_block.saturating_add(1));
        verifications.push(Verification {
            vk: claim.program.vk,
            public_values: values.encode().to_vec(),
            is_fold: false,
        });
    }
    if verifications.is_empty() {
        return Err(FoldError::NoRuns);
    }
    verifications.extend(history);
    let public_values = FoldPublicValues {
        prev_commitment,
        new_commitment: state,
        batch_hash: acc.0,
        code_root: input.code_root,
    };
    Ok(FoldCheck { public_values, verifications })
}

/// The commitment the batch starts from, and the proof that vouches for it unless it is genesis.
fn check_history(
    history: &History,
    code_root: &[u8; 32],
) -> Result<([u8; 32], Option<Verification>), FoldError> {
    match history {
        History::Genesis { commitment, proof } => {
            check_index(proof, GENESIS_LEAF, "genesis")?;
            proof.check(genesis_leaf(commitment), code_root, "genesis")?;
            Ok((*commitment, None))
        }
        History::Fold { public_values, vk, proof } => {
            check_index(proof, FOLD_LEAF, "fold program")?;
            proof.check(fold_leaf(*vk), code_root, "fold program")?;
            if public_values.code_root != *code_root {
                return Err(FoldError::CodeRoot {
                    expected: B256::from(*code_root),
                    got: B256::from(public_values.code_root),
                });
            }
            let verification = Verification { vk: *vk, public_values: public_values.to_vec(), is_fold: true };
            Ok((public_values.new_commitment, Some(verification)))
        }
    }
}

fn check_program(run: usize, claim: &RunClaim, code_root: &[u8; 32]) -> Result<(), FoldError> {
    let BlockProgram { first_block, last_block, .. } = claim.program;
    let values = &claim.public_values;
    if values.first_block < first_block || values.last_block > last_block {
        return Err(FoldError::ProgramRange { run, first_block, last_block });
    }
    if claim.proof.index < FIRST_BLOCK_LEAF {
        return Err(FoldError::BadPath { item: "block program", index: claim.proof.index });
    }
    claim.proof.check(block_leaf(&claim.program), code_root, "block program")
}

fn check_index(proof: &MerkleProof, expected: u64, item: &'static str) -> Result<(), FoldError> {
    if proof.index != expected {
        return Err(FoldError::BadPath { item, index: proof.index });
    }
    Ok(())
}

impl FoldInput {
    /// Encodes the input: magic `ASSAYFLD`, version (4), history kind (4: 0 genesis, 1 fold), code root (32), the
    /// history, the number of runs (8) and the runs. A path is index (8), length (8), siblings (32 each); integers are
    /// little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(MAGIC);
        out.u32(VERSION);
        out.u32(u32::from(matches!(self.history, History::Fold { .. })));
        out.bytes(&self.code_root);
        match &self.history {
            History::Genesis { commitment, proof } => {
                out.bytes(commitment);
                encode_path(proof, &mut out);
            }
            History::Fold { public_values, vk, proof } => {
                out.bytes(&public_values.encode());
                out.bytes(&vk.to_bytes());
                encode_path(proof, &mut out);
            }
        }
        out.u64(self.runs.len() as u64);
        for claim in &self.runs {
            out.bytes(&claim.public_values.encode());
            out.u64(claim.program.first_block);
            out.u64(claim.program.last_block);
            out.bytes(&claim.program.vk.to_bytes());
            encode_path(&claim.proof, &mut out);
        }
        out.finish()
    }

    /// Decodes what [`Self::encode`] writes.
    ///
    /// # Errors
    /// [`DecodeError`] naming the item at which the bytes go wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        if input.take(8, "fold input")? != MAGIC {
            return Err(DecodeError::Magic { item: "fold input" });
        }
        let version = input.u32("fold input version")?;
        if version != VERSION {
            return Err(DecodeError::Version { item: "fold input", expected: VERSION, got: version });
        }
        let kind = input.u32("history kind")?;
        let code_root = input.array("code root")?;
        let history = decode_history(kind, &mut input)?;
        let count = input.u64("runs")?;
        if count > RUNS_MAX {
            return Err(DecodeError::Oversize { item: "runs", limit: RUNS_MAX, got: count });
        }
        let runs = (0..count).map(|_| decode_claim(&mut input)).collect::<Result<_, _>>()?;
        input.finish("fold input")?;
        Ok(Self { code_root, history, runs })
    }
}

fn encode_path(proof: &MerkleProof, out: &mut Writer) {
    out.u64(proof.index);
    out.u64(proof.siblings.len() as u64);
    proof.siblings.iter().for_each(|sibling| out.bytes(sibling));
}

fn decode_path(input: &mut Reader<'_>) -> Result<MerkleProof, DecodeError> {
    const ITEM: &str = "merkle path";
    let index = input.u64(ITEM)?;
    let len = input.u64(ITEM)?;
    if len > DEPTH_MAX as u64 {
        return Err(DecodeError::Oversize { item: ITEM, limit: DEPTH_MAX as u64, got: len });
    }
    let siblings = (0..len).map(|_| input.array(ITEM)).collect::<Result<_, _>>()?;
    Ok(MerkleProof { index, siblings })
}

fn decode_history(kind: u32, input: &mut Reader<'_>) -> Result<History, DecodeError> {
    match kind {
        0 => Ok(History::Genesis {
            commitment: input.array("genesis commitment")?,
            proof: decode_path(input)?,
        }),
        1 => Ok(History::Fold {
            public_values: FoldPublicValues::decode(
                input.take(FoldPublicValues::ENCODED_LEN as u64, "fold public values")?,
            )?,
            vk: VkHash::from_bytes(input.array("fold program")?),
            proof: decode_path(input)?,
        }),
        _ => Err(DecodeError::Invalid { item: "history kind", reason: "neither 0 nor 1" }),
    }
}

fn decode_claim(input: &mut Reader<'_>) -> Result<RunClaim, DecodeError> {
    let values = input.take(BlockPublicValues::ENCODED_LEN as u64, "block public values")?;
    Ok(RunClaim {
        public_values: BlockPublicValues::decode(values)?,
        program: BlockProgram {
            first_block: input.u64("block program")?,
            last_block: input.u64("block program")?,
            vk: VkHash::from_bytes(input.array("block program")?),
        },
        proof: decode_path(input)?,
    })
}
