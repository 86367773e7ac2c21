//! From what the user names to a validated [`Request`]: everything is checked here, before anything is written.

use std::path::Path;

use assay_lvm::vm::{Evm, Validated, VirtualMachine};
use assay_lvm::{guests, sample, Batch, RunLimits};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::config::Config;
use crate::error::Error;
use crate::job::{History, Job, Keys, Run};
use crate::pipeline::Until;
use crate::shell::Request;
use crate::statement::BatchSummary;

/// SHA-256 of the block and the fold program of this build.
pub fn elf_hashes() -> ([u8; 32], [u8; 32]) {
    (Sha256::digest(guests::BLOCK_ELF).into(), Sha256::digest(guests::FOLD_ELF).into())
}

/// Opens `name`: `sample`, `sample:N`, or a batch file.
///
/// # Errors
/// [`Error::UnknownBatch`], [`Error::Batch`].
pub fn open_batch(name: &str) -> Result<Batch, Error> {
    let error = |source| Error::Batch { name: name.to_owned(), source: Box::new(source) };
    let number = match name.strip_prefix("sample") {
        Some("") => Some(1),
        Some(rest) if rest.starts_with(':') => {
            let parsed = rest[1..].parse().ok().filter(|n| (1..=sample::INDEX_MAX).contains(n));
            Some(parsed.ok_or_else(|| Error::UnknownBatch { got: name.to_owned(), max: sample::INDEX_MAX })?)
        }
        _ => None,
    };
    match number {
        Some(number) => sample::batch(number).map_err(error),
        None => Batch::read(Path::new(name)).map_err(error),
    }
}

/// Validates a batch, executes it on the host and cuts it into runs; says too whether it is linked to a history.
///
/// # Errors
/// [`Error::Batch`].
pub fn prepare(name: &str, config: &Config) -> Result<(Job, bool), Error> {
    let batch = open_batch(name)?;
    let limits = config.run_limits();
    prepare_for(&Evm, &batch, limits)
        .map_err(|source| Error::Batch { name: name.to_owned(), source: Box::new(source) })
}

/// [`prepare`] for any virtual machine.
fn prepare_for<V: VirtualMachine>(
    machine: &V,
    batch: &V::Batch,
    limits: RunLimits,
) -> Result<(Job, bool), V::Error> {
    let validated = machine.validate(batch)?;
    let runs = machine.runs(batch, limits)?.into_iter();
    let summary = summary(&validated);
    let Validated { from, to, batch_hash, is_linked, data, .. } = validated;
    let job = Job {
        summary,
        parent_commitment: from.commitment(),
        parent_number: from.block_number,
        new_commitment: to.commitment(),
        batch_hash,
        runs: runs
            .map(|run| Run { input: run.input, public_values: run.public_values.encode().to_vec() })
            .collect(),
        data,
    };
    Ok((job, is_linked))
}

/// A batch's name, blocks and sums.
pub fn summary(validated: &Validated) -> BatchSummary {
    let (first_block, last_block) = (validated.from.block_number + 1, validated.to.block_number);
    BatchSummary {
        id: format!("{first_block}-{last_block}-{}", hex::encode(&validated.batch_hash[..4])),
        chain_id: validated.from.chain_id,
        first_block,
        last_block,
        transactions: validated.transactions,
        gas: validated.work,
        genesis_commitment: None,
    }
}

/// Finds the history that the batch continues.
///
/// # Errors
/// [`Error::MissingHistory`] naming the state for which no fold proof is known.
pub fn find_history(
    cache: &Cache,
    job: &Job,
    begin_here: bool,
    warn: &mut dyn FnMut(String),
) -> Result<History, Error> {
    let genesis = History { genesis_commitment: job.parent_commitment, previous: None };
    if begin_here || job.parent_number == 0 {
        return Ok(genesis);
    }
    let (block, fold) = elf_hashes();
    let head = cache.load(Keys::head(&block, &fold, &job.parent_commitment), warn)?;
    let found = head.and_then(|head| {
        let mut genesis_commitment = [0; 32];
        let text = head.outcome.get("genesis_commitment")?.as_str()?;
        hex::decode_to_slice(text, &mut genesis_commitment).ok()?;
        Some(History { genesis_commitment, previous: Some(head.blobs.get("proof")?.clone()) })
    });
    found.ok_or_else(|| Error::MissingHistory {
        commitment: hex::encode(job.parent_commitment),
        block: job.parent_number,
    })
}

/// Everything `assay prove` needs to know before it writes anything.
///
/// # Errors
/// Bad input of any kind.
pub fn request(
    name: &str,
    until: Until,
    begin_here: bool,
    config: &Config,
    warn: &mut dyn FnMut(String),
) -> Result<Request, Error> {
    crate::shell::check_backend(config)?;
    let (job, is_linked) = prepare(name, config)?;
    if until < Until::Fold {
        return Ok(Request { job, history: None, until });
    }
    if !is_linked {
        return Err(Error::NotLinked { name: name.to_owned() });
    }
    let history = find_history(&Cache::at(&config.cache), &job, begin_here, warn)?;
    Ok(Request { job, history: Some(history), until })
}
