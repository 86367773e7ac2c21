//! The stages that run in a child process: which job, over which files, and what must come back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use assay_lvm_core::VkHash;
use assay_worker::stages::{
    self as worker, ExecuteJob, FileRef, Groth16ProveJob, Groth16SetupJob, KeysJob, KeysOutcome,
    ProofOutcome, ProveFoldJob, ProveRunJob, WrapJob,
};
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{json, Value};

use super::session::Tell;
use super::{Fault, Request, Shell};
use crate::cache::{BlobRef, CacheError, Entry};
use crate::job::{self, Keys};
use crate::pipeline::Stage;

/// The keys of a request under the guest programs of this build.
pub(super) fn keys(request: &Request) -> Keys {
    let (block, fold) = crate::input::elf_hashes();
    Keys::new(&request.job, request.history.as_ref(), &block, &fold)
}

/// Whether a stage's outcome says that the worker had the result already.
pub(super) fn was_cached(entry: &Entry) -> bool {
    entry.outcome.get("cached").and_then(Value::as_bool).unwrap_or(false)
}

/// Guest cycles of a result, 0 where there are none.
pub(super) fn cycles(entry: &Entry) -> u64 {
    entry.outcome.get("cycles").and_then(Value::as_u64).unwrap_or(0)
}

/// Guest cycles that a stage is going to prove, 0 while unknown or where its time does not depend on them.
pub(super) fn cycles_of(shell: &Shell<'_>, stage: Stage) -> u64 {
    let (Stage::Core(run) | Stage::Compressed(run)) = stage else { return 0 };
    let executed = shell.result(Stage::Execute).ok();
    executed.and_then(|entry| entry.outcome["runs"][run as usize]["cycles"].as_u64()).unwrap_or(0)
}

impl Shell<'_> {
    /// Computes a stage in a child process.
    pub(super) fn compute(&mut self, at: usize, stage: Stage) -> Result<Entry, Fault> {
        match stage {
            Stage::Execute => self.execute(at),
            Stage::Core(run) => self.prove_run(at, run, worker::Until::Core),
            Stage::Compressed(run) => self.prove_run(at, run, worker::Until::Compressed),
            Stage::Programs => {
                let (outcome, peak) = self.job(at, &worker::Job::Keys(KeysJob {}))?;
                let worker::Outcome::Keys(keys) = outcome else { return Err(unexpected("keys")) };
                entry(stage, &keys, [], peak)
            }
            Stage::Fold => self.fold(at),
            Stage::Wrap => {
                let output = self.cache.temporary("wrap.proof");
                let fold = self.input(Stage::Fold, "proof")?;
                let job = worker::Job::Wrap(WrapJob { fold, output: output.clone() });
                let (outcome, peak) = self.job(at, &job)?;
                let worker::Outcome::Wrap(wrap) = outcome else { return Err(unexpected("wrap")) };
                entry(stage, &wrap, [("proof", self.cache.store_file(&output)?)], peak)
            }
            Stage::Setup => {
                let job = worker::Job::Groth16Setup(Groth16SetupJob {});
                let (outcome, peak) = self.job(at, &job)?;
                let worker::Outcome::Groth16Setup(setup) = outcome else { return Err(unexpected("set-up")) };
                entry(stage, &setup, [], peak)
            }
            Stage::Groth16 => self.groth16(at),
            Stage::Verify | Stage::Settle | Stage::Publish => {
                Err(Fault::Failed(format!("{stage} is no job for a child process")))
            }
        }
    }

    fn execute(&mut self, at: usize) -> Result<Entry, Fault> {
        let count = self.request.job.runs.len();
        let (mut runs, mut cycles, mut peak) = (Vec::new(), 0u64, 0);
        for run in 0..count {
            self.view.advance(at, "run", run as u64, count as u64);
            let job = worker::Job::Execute(ExecuteJob { run: self.run_file(run)? });
            let (outcome, job_peak) = self.job(at, &job)?;
            let worker::Outcome::Execute(executed) = outcome else { return Err(unexpected("execution")) };
            self.check_run_values(run, executed.public_values.as_ref())?;
            cycles = cycles.saturating_add(executed.cycles);
            peak = peak.max(job_peak);
            runs.push(to_value(&executed)?);
        }
        entry(Stage::Execute, &json!({ "cycles": cycles, "runs": runs }), [], peak)
    }

    fn prove_run(&mut self, at: usize, run: u32, until: worker::Until) -> Result<Entry, Fault> {
        let output = self.cache.temporary(&format!("run-{run}.proof"));
        let input = self.run_file(run as usize)?;
        let job = worker::Job::ProveRun(ProveRunJob { run: input, until, output: output.clone() });
        let (outcome, peak) = self.job(at, &job)?;
        let worker::Outcome::ProveRun(proof) = outcome else { return Err(unexpected("block proof")) };
        self.check_run_values(run as usize, proof.public_values.as_ref())?;
        let stage = match until {
            worker::Until::Core => Stage::Core(run),
            worker::Until::Compressed => Stage::Compressed(run),
        };
        self.proof_entry(stage, &proof, output, peak)
    }

    fn fold(&mut self, at: usize) -> Result<Entry, Fault> {
        let history =
            self.request.history.clone().ok_or_else(|| Fault::Failed("no history to fold".into()))?;
        let runs = (0..self.request.job.runs.len() as u32)
            .map(|run| self.input(Stage::Compressed(run), "proof"))
            .collect::<Result<_, _>>()?;
        let keys: KeysOutcome = self.outcome(Stage::Programs)?;
        let previous = match &history.previous {
            Some(blob) => Some(self.file(blob).map_err(|e| {
                Fault::Failed(format!("the previous batch's fold proof: {e}; prove that batch again"))
            })?),
            None => None,
        };
        let block_programs = job::block_programs(VkHash(keys.block.vk_words))
            .into_iter()
            .map(|program| worker::BlockProgram {
                first_block: program.first_block,
                last_block: program.last_block,
                vk_words: program.vk.0,
            })
            .collect();
        let output = self.cache.temporary("fold.proof");
        let job = worker::Job::ProveFold(ProveFoldJob {
            runs,
            previous,
            genesis_commitment: history.genesis_commitment.into(),
            block_programs,
            until: worker::Until::Compressed,
            output: output.clone(),
        });
        let (outcome, peak) = self.job(at, &job)?;
        let worker::Outcome::ProveFold(proof) = outcome else { return Err(unexpected("fold proof")) };
        let expected = self.public_values()?;
        let got: &[u8] = proof.public_values.as_ref();
        if got != expected {
            let (expected, got) = (hex::encode(expected), hex::encode(got));
            return Err(Fault::Failed(format!("fold proof's public values: expected {expected}, got {got}")));
        }
        let entry = self.proof_entry(Stage::Fold, &proof, output, peak)?;
        self.keep_for_the_next_batch(&entry)?;
        Ok(entry)
    }

    /// Files the fold proof under the state it ends in.
    pub(super) fn keep_for_the_next_batch(&self, fold: &Entry) -> Result<(), Fault> {
        let genesis = self.request.history.as_ref().map(|history| hex::encode(history.genesis_commitment));
        let head = Entry {
            stage: job::HEAD_STAGE.to_owned(),
            outcome: json!({ "genesis_commitment": genesis, "batch": self.request.job.summary.id }),
            ..fold.clone()
        };
        let (block, fold) = crate::input::elf_hashes();
        Ok(self.cache.store(Keys::head(&block, &fold, &self.request.job.new_commitment), &head)?)
    }

    fn groth16(&mut self, at: usize) -> Result<Entry, Fault> {
        let output_dir = self.cache.temporary("groth16");
        let keys: KeysOutcome = self.outcome(Stage::Programs)?;
        let job = worker::Job::Groth16Prove(Groth16ProveJob {
            wrap: self.input(Stage::Wrap, "proof")?,
            fold_public_values: self.public_values()?.to_vec().into(),
            fold_program: keys.fold.vk_words,
            output_dir,
        });
        let (outcome, peak) = self.job(at, &job)?;
        let worker::Outcome::Groth16Prove(proved) = outcome else { return Err(unexpected("Groth16 proof")) };
        let proof = self.cache.store_file(&proved.proof.path)?;
        let vk = self.cache.store_file(&proved.verifying_key.path)?;
        entry(Stage::Groth16, &proved, [("proof", proof), ("vk", vk)], peak)
    }

    /// The 128 bytes that the fold program must commit.
    pub(super) fn public_values(&self) -> Result<[u8; crate::statement::PUBLIC_VALUES_BYTES], Fault> {
        let history =
            self.request.history.as_ref().ok_or_else(|| Fault::Failed("no history to fold".into()))?;
        let keys: KeysOutcome = self.outcome(Stage::Programs)?;
        let (block, fold) = (VkHash(keys.block.vk_words), VkHash(keys.fold.vk_words));
        Ok(job::fold_public_values(&self.request.job, history.genesis_commitment, block, fold).encode())
    }

    /// Runs a job, showing its progress; also returns the child's peak memory.
    fn job(&mut self, at: usize, job: &worker::Job) -> Result<(worker::Outcome, u64), Fault> {
        let mut peak = 0;
        let view = &mut self.view;
        let outcome = self.session.run(job, &self.cancel, &mut |tell| match tell {
            Tell::Progress(progress) => {
                peak = peak.max(progress.peak_rss_bytes);
                view.advance(at, &progress.phase, progress.done, progress.total);
            }
            Tell::Memory(bytes) => {
                peak = peak.max(bytes);
                view.memory(bytes);
                view.tick_stage(at);
            }
        })?;
        Ok((outcome, peak))
    }

    fn proof_entry(
        &self,
        stage: Stage,
        proof: &ProofOutcome,
        output: PathBuf,
        peak: u64,
    ) -> Result<Entry, Fault> {
        let blob = self.cache.store_file(&output)?;
        entry(stage, proof, [("proof", blob)], peak.max(proof.peak_rss_bytes))
    }

    fn check_run_values(&self, run: usize, got: &[u8]) -> Result<(), Fault> {
        let expected = &self.request.job.runs[run].public_values;
        if got == expected {
            return Ok(());
        }
        let (expected, got) = (hex::encode(expected), hex::encode(got));
        Err(Fault::Failed(format!(
            "run {}: the guest and the host disagree on the public values: host {expected}, guest {got}",
            run + 1
        )))
    }

    /// The input of a run as a file.
    fn run_file(&self, run: usize) -> Result<FileRef, Fault> {
        let blob = self.cache.store_bytes(&self.request.job.runs[run].input)?;
        Ok(self.file(&blob)?)
    }

    /// A checked blob of a finished stage; a damaged one sends that stage back.
    pub(super) fn input(&self, stage: Stage, name: &str) -> Result<FileRef, Fault> {
        let entry = self.result(stage)?;
        let blob = entry.blobs.get(name).ok_or_else(|| Fault::Failed(format!("{stage} left no {name}")))?;
        self.file(blob).map_err(|fault| match fault {
            CacheError::Blob { .. } => Fault::Lost(stage),
            other => other.into(),
        })
    }

    fn file(&self, blob: &BlobRef) -> Result<FileRef, CacheError> {
        let path = self.cache.check_blob(blob)?;
        Ok(FileRef { path, blake3: blob.blake3.clone(), bytes: blob.bytes })
    }

    /// What a finished stage reported.
    pub(super) fn outcome<T: DeserializeOwned>(&self, stage: Stage) -> Result<T, Fault> {
        Ok(serde_json::from_value(self.result(stage)?.outcome.clone())?)
    }
}

fn entry<const N: usize>(
    stage: Stage,
    outcome: &impl Serialize,
    blobs: [(&str, BlobRef); N],
    peak_bytes: u64,
) -> Result<Entry, Fault> {
    let blobs: BTreeMap<_, _> = blobs.into_iter().map(|(name, blob)| (name.to_owned(), blob)).collect();
    Ok(Entry { stage: stage.kind().to_owned(), outcome: to_value(outcome)?, blobs, millis: 0, peak_bytes })
}

fn to_value(outcome: &impl Serialize) -> Result<Value, Fault> {
    Ok(serde_json::to_value(outcome)?)
}

fn unexpected(what: &str) -> Fault {
    Fault::Failed(format!("the stage's process answered something else than a {what}"))
}
