//! Whether a part's proof is of the part that was asked for, and not of another.
//!
//! A part's files ([`crate::part`]) say what it is about, and so do the public values of its proof:
//!
//! | part | what its proof has to state |
//! |---|---|
//! | shard of an execution | the clock at which its record begins and ends, the proofs that the guest has asked to verify |
//! | shard of memory | the clock at the end, the addresses in its record, those proofs |
//! | shard of a precompile | the place before everything else |
//! | proof that a guest asked to verify | its place among them, the digests before and after it |
//! | reduction | all that follows from the proofs that it reduces, of which nothing is left open |
//!
//! Two shards of precompiles of one execution state the same but for their sums, which only whoever proves them can compute:
//! that one stands for the other is found when all are reduced.
//!
//! A request is another worker's word too: one that cannot be read, is about another program, or goes on after the program has
//! halted says nothing about its result ([`CheckError::Request`]).

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::Deserialize;
use sp1_core_executor::HALT_PC;
use sp1_hypercube::air::ShardRange;
use sp1_hypercube::{HashableKey, SP1RecursionProof};
use sp1_primitives::SP1Field;
use sp1_prover::worker::{
    hash_deferred_proofs, CommonProverInput, GlobalMemoryShard, SP1DeferredData, TraceData,
};
use sp1_prover::SP1_CIRCUIT_VERSION;
use sp1_recursion_executor::RecursionPublicValues;

use super::CheckError;
use crate::error::WorkerError;
use crate::part::PartKind;
use crate::proof::{recursion_values, InnerProof};

/// As the headers of parts have it.
pub(super) const PART_VERSION: u32 = 1;
/// Files that the check of a shard reads: its header, program, common input and record. What comes after them are events of
/// precompiles, which are large.
pub const SHARD_FILES: usize = 4;
/// Proofs that one part reduces; the zkVM's releases reduce four.
const REDUCED_MAX: usize = 64;

/// Public values of a recursion proof.
pub(crate) type Values = RecursionPublicValues<SP1Field>;
/// A digest of proofs that a guest asked to verify.
type Digest = [SP1Field; 8];

/// What a part's header says, as far as its result depends on it.
#[derive(Debug, Deserialize)]
struct Header {
    version: u32,
    circuit: String,
    kind: PartKind,
    inputs: Vec<Input>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Input {
    Literal(String),
    Artifact { piece: Piece },
    Marker,
}

#[derive(Debug, Deserialize)]
struct Piece {
    blake3: String,
}

/// What the proof of a part has to state.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// A stretch of an execution.
    Stretch {
        /// Which.
        range: ShardRange,
        /// Digest of the proofs that the guest asked to verify, before and after it.
        digests: [Digest; 2],
        /// Whether it is of the program's own cycles, which end at the latest where the program does.
        is_core: bool,
    },
    /// Everything.
    Whole(Box<Values>),
}

impl Expected {
    /// Reads the request: a part's files, of which those of a shard may end after [`SHARD_FILES`].
    ///
    /// # Errors
    /// One that [`CheckError::Request`] carries; [`WorkerError::Io`].
    pub(crate) fn of(files: &[PathBuf], program: &[u32; 8]) -> Result<Self, WorkerError> {
        let (first, pieces) = files.split_first().ok_or_else(|| bad("it has no header"))?;
        let header: Header = serde_json::from_slice(&load(first)?).map_err(bad)?;
        let circuit = SP1_CIRCUIT_VERSION.trim();
        if header.version != PART_VERSION || header.circuit != circuit {
            let (expected, got) =
                (format!("{PART_VERSION} of {circuit}"), format!("{} of {}", header.version, header.circuit));
            return Err(WorkerError::Version { what: "part", expected, got });
        }
        let pieces = Pieces::of(pieces)?;
        match header.kind {
            PartKind::Shard => shard(&header.inputs, &pieces, program),
            PartKind::Deferred => deferred(&header.inputs, &pieces, program),
            PartKind::Reduce => reduction(&header.inputs, &pieces, program),
        }
    }

    /// Compares a verified proof's public values.
    ///
    /// # Errors
    /// [`CheckError::Result`] with [`WorkerError::PublicInput`] if it is another part's; [`CheckError::Request`] if nobody could prove
    /// what was asked for.
    pub(crate) fn check(&self, values: &Values) -> Result<(), CheckError> {
        match self {
            Self::Stretch { range, digests, is_core } => {
                let digests_got =
                    [values.start_reconstruct_deferred_digest, values.end_reconstruct_deferred_digest];
                same("digests of deferred proofs", digests, &digests_got)?;
                let got = values.range();
                if *is_core && is_cut_short(range, &got) && has_halted(values) {
                    let (asked, end) = (range.timestamp_range.1, got.timestamp_range.1);
                    let reason =
                        format!("its record ends at clock {asked}, and the program has halted at {end}");
                    return Err(CheckError::Request(bad(reason)));
                }
                Ok(same("range of the part", range, &got)?)
            }
            Self::Whole(expected) => {
                // Both have been checked on their own: the digest is one of all others, the root is the release's.
                let expected = Values { digest: values.digest, vk_root: values.vk_root, ..**expected };
                if expected.as_array() == values.as_array() {
                    return Ok(());
                }
                let (expected, got) = (expected.range().to_string(), values.range().to_string());
                Err(WorkerError::PublicInput { name: "statement of the reduction", expected, got }.into())
            }
        }
    }
}

/// Whether two stretches differ in their ends alone.
fn is_cut_short(asked: &ShardRange, got: &ShardRange) -> bool {
    let end = asked.timestamp_range.1;
    asked != got && *asked == ShardRange { timestamp_range: (got.timestamp_range.0, end), ..*got }
}

/// Whether a stretch ends where the program does: whoever proves it stops there, whatever the request says.
fn has_halted(values: &Values) -> bool {
    use slop_algebra::AbstractField;

    values.next_pc == [SP1Field::from_canonical_u64(HALT_PC), field(0), field(0)]
}

/// The part's files, by what is in them.
struct Pieces<'a>(Vec<(String, &'a Path)>);

impl<'a> Pieces<'a> {
    fn of(files: &'a [PathBuf]) -> Result<Self, WorkerError> {
        let hash = |path: &'a PathBuf| -> Result<(String, &'a Path), WorkerError> {
            Ok((blake3::hash(&load(path)?).to_hex().to_string(), path.as_path()))
        };
        files.iter().map(hash).collect::<Result<_, _>>().map(Self)
    }

    fn read<T: DeserializeOwned>(&self, input: Option<&Input>) -> Result<T, WorkerError> {
        let Some(Input::Artifact { piece }) = input else { return Err(bad("an input is missing")) };
        let found = self.0.iter().find(|(hash, _)| *hash == piece.blake3);
        let (_, path) =
            found.ok_or_else(|| bad(format!("the file with BLAKE3 {} is missing", piece.blake3)))?;
        bincode::deserialize(&load(path)?).map_err(bad)
    }

    /// What is common to all parts of a proof.
    fn common(&self, input: Option<&Input>, program: &[u32; 8]) -> Result<CommonProverInput, WorkerError> {
        let common: CommonProverInput = self.read(input)?;
        about(&common.vk.hash_u32(), program).map(|()| common)
    }
}

/// Records are some hundred megabytes at most; whoever has fetched them has bounded them.
fn load(path: &Path) -> Result<Vec<u8>, WorkerError> {
    std::fs::read(path).map_err(WorkerError::io("read", path))
}

/// Inputs: program, common input, record, marker.
fn shard(inputs: &[Input], pieces: &Pieces<'_>, program: &[u32; 8]) -> Result<Expected, WorkerError> {
    let common = pieces.common(inputs.get(1), program)?;
    let deferred = common.num_deferred_proofs as u64;
    let end = common.deferred_digest.map(field);
    let record: TraceData = pieces.read(inputs.get(2))?;
    let is_core = matches!(record, TraceData::Core(_));
    let range = match record {
        // They come before the proofs that the guest has asked to verify.
        TraceData::Precompile(..) => {
            let (range, digests) = (ShardRange::precompile(), [none(), none()]);
            return Ok(Expected::Stretch { range, digests, is_core: false });
        }
        TraceData::Core(bytes) => {
            // The head of a chunk: registers, program counter, clock at its beginning and end. Its reads of memory follow.
            type Head = ([u64; 32], u64, u64, u64);
            let (_, _, begin, end) = bincode::deserialize::<Head>(&bytes).map_err(bad)?;
            ShardRange {
                timestamp_range: (begin, end),
                deferred_proof_range: (deferred, deferred),
                ..ShardRange::default()
            }
        }
        TraceData::Memory(shard) => memory(&shard, deferred),
    };
    Ok(Expected::Stretch { range, digests: [end, end], is_core })
}

/// A shard of memory stands at the end of the execution.
fn memory(shard: &GlobalMemoryShard, deferred: u64) -> ShardRange {
    let clock = shard.final_state.timestamp;
    ShardRange {
        timestamp_range: (clock, clock),
        initialized_address_range: (shard.previous_init_addr, shard.last_init_addr),
        finalized_address_range: (shard.previous_finalize_addr, shard.last_finalize_addr),
        initialized_page_index_range: (shard.previous_init_page_idx, shard.last_init_page_idx),
        finalized_page_index_range: (shard.previous_finalize_page_idx, shard.last_finalize_page_idx),
        deferred_proof_range: (deferred, deferred),
    }
}

/// Inputs: common input, the proof to verify.
fn deferred(inputs: &[Input], pieces: &Pieces<'_>, program: &[u32; 8]) -> Result<Expected, WorkerError> {
    use slop_algebra::PrimeField32;

    pieces.common(inputs.first(), program)?;
    let data: SP1DeferredData = pieces.read(inputs.get(1))?;
    let proofs = data.input.vks_and_proofs;
    if proofs.len() != data.vk_merkle_proofs.len() || proofs.len() > REDUCED_MAX {
        return Err(bad(format!(
            "{} proofs to verify, {} of their keys",
            proofs.len(),
            data.vk_merkle_proofs.len()
        )));
    }
    let with_key = |((vk, proof), vk_merkle_proof)| SP1RecursionProof { vk, proof, vk_merkle_proof };
    let proofs: Vec<InnerProof> = proofs.into_iter().zip(data.vk_merkle_proofs).map(with_key).collect();
    for proof in &proofs {
        recursion_values(&proof.proof.public_values)?;
    }
    let before = u64::from(data.deferred_proof_index.as_canonical_u32());
    let range = ShardRange::deferred(before, before + proofs.len() as u64);
    let start = data.start_reconstruct_deferred_digest;
    let digests = [start, hash_deferred_proofs(start, &proofs)];
    Ok(Expected::Stretch { range, digests, is_core: false })
}

/// Inputs: whether that is all, and then, between ranges as text, the proofs in order.
fn reduction(inputs: &[Input], pieces: &Pieces<'_>, program: &[u32; 8]) -> Result<Expected, WorkerError> {
    let is_complete = match inputs.first() {
        Some(Input::Literal(text)) => text.parse::<bool>().map_err(bad)?,
        _ => return Err(bad("it does not say whether it is the last")),
    };
    let proofs: Vec<&Input> = inputs.iter().filter(|input| matches!(input, Input::Artifact { .. })).collect();
    if proofs.len() > REDUCED_MAX {
        return Err(bad(format!("it reduces {} proofs", proofs.len())));
    }
    let mut reduced = Vec::with_capacity(proofs.len());
    for input in proofs {
        let proof: InnerProof = pieces.read(Some(input))?;
        let values = *recursion_values(&proof.proof.public_values)?;
        about(&words(&values.sp1_vk_digest), program)?;
        reduced.push(values);
    }
    reduced_values(&reduced, is_complete).map(|values| Expected::Whole(Box::new(values)))
}

/// What a reduction of proofs states: it begins where the first one does and ends where the last one does.
///
/// # Errors
/// [`WorkerError::Decode`] for proofs that nobody can reduce.
fn reduced_values(proofs: &[Values], is_complete: bool) -> Result<Values, WorkerError> {
    use slop_algebra::AbstractField;

    let (first, rest) = proofs.split_first().ok_or_else(|| bad("it reduces nothing"))?;
    let last = rest.last().unwrap_or(first);
    let (mut sum, mut shards, mut firsts) =
        (first.global_cumulative_sum, first.num_included_shard, first.contains_first_shard);
    for values in rest {
        sum = sum.checked_add(values.global_cumulative_sum).ok_or_else(|| bad("its sums cannot be added"))?;
        shards += values.num_included_shard;
        firsts += values.contains_first_shard;
    }
    Ok(Values {
        committed_value_digest: last.committed_value_digest,
        deferred_proofs_digest: last.deferred_proofs_digest,
        deferred_proof: last.deferred_proof,
        next_pc: last.next_pc,
        last_timestamp: last.last_timestamp,
        last_init_addr: last.last_init_addr,
        last_finalize_addr: last.last_finalize_addr,
        last_init_page_idx: last.last_init_page_idx,
        last_finalize_page_idx: last.last_finalize_page_idx,
        end_reconstruct_deferred_digest: last.end_reconstruct_deferred_digest,
        exit_code: last.exit_code,
        commit_syscall: last.commit_syscall,
        commit_deferred_syscall: last.commit_deferred_syscall,
        global_cumulative_sum: sum,
        num_included_shard: shards,
        contains_first_shard: firsts,
        is_complete: SP1Field::from_bool(is_complete),
        ..*first
    })
}

/// Whether a request is about the program that its task is about: its prover need not know.
fn about(got: &[u32; 8], program: &[u32; 8]) -> Result<(), WorkerError> {
    if got == program {
        return Ok(());
    }
    Err(bad(format!("it is about the program {got:08x?}, its task about {program:08x?}")))
}

fn words(digest: &[SP1Field; 8]) -> [u32; 8] {
    use slop_algebra::PrimeField32;

    digest.map(|felt| felt.as_canonical_u32())
}

/// As provers read a digest.
fn field(word: u32) -> SP1Field {
    use slop_algebra::AbstractField;

    // Canonical where it is of an honest worker; another one's must not end this process.
    SP1Field::from_wrapped_u32(word)
}

/// The digest of no proofs.
fn none() -> Digest {
    [0; 8].map(field)
}

fn same<T: PartialEq + std::fmt::Debug>(
    name: &'static str,
    expected: &T,
    got: &T,
) -> Result<(), WorkerError> {
    if expected == got {
        return Ok(());
    }
    Err(WorkerError::PublicInput { name, expected: format!("{expected:?}"), got: format!("{got:?}") })
}

fn bad(reason: impl std::fmt::Display) -> WorkerError {
    WorkerError::Decode { what: "part", reason: reason.to_string() }
}

/// Checks a verified proof against the request that it answers.
///
/// # Errors
/// [`CheckError`].
pub(super) fn check(files: &[PathBuf], program: &[u32; 8], values: &Values) -> Result<(), CheckError> {
    let expected = Expected::of(files, program).map_err(|error| match error {
        WorkerError::Io { .. } => CheckError::Result(error),
        _ => CheckError::Request(error),
    })?;
    let got = words(&values.sp1_vk_digest);
    if got != *program {
        let (expected, got) = (format!("{program:08x?}"), format!("{got:08x?}"));
        return Err(WorkerError::PublicInput { name: "program", expected, got }.into());
    }
    expected.check(values)
}

#[cfg(test)]
mod tests;
