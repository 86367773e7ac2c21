//! Runs jobs, sharing what is costly between them: one engine, one circuit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_lvm::{guests, Batch, RunLimits};
use assay_lvm_core::{
    fold, BlockPublicValues, CodeControlGroup, FoldInput, FoldPublicValues, History, RunClaim, VkHash,
    FOLD_LEAF, GENESIS_LEAF,
};

use super::parts::Broker;
use super::{
    check, CheckJob, CheckOutcome, ExecuteJob, ExecuteOutcome, Groth16AnyJob, Groth16CircuitOutcome,
    Groth16ProveJob, Groth16ProveOutcome, Groth16SetupOutcome, Job, KeysOutcome, Outcome, PartOutcome,
    ProgramInfo, ProofOutcome, ProveFoldJob, ProvePartJob, ProveRunJob, ReferenceJob, ReferenceOutcome,
    SplitJob, SplitOutcome, SplitRun, StageConfig, Until, WrapJob, WrapOutcome,
};
use crate::device::Device;
use crate::engine::{self, Engine, Proof, ProveInput, ProvedPart};
use crate::error::WorkerError;
use crate::files::{FileRef, Hex32, HexBytes};
use crate::groth16::{self, IfMissing};
use crate::phases::cycles_by_phase;
use crate::progress::{peak_rss_bytes, ProgressSink, Reporter};
use crate::proof::{CompressedProof, ProgramKey, ProofFile, WrapProof};
use crate::settings::{EngineConfig, ShardSize};
use crate::{tiny, verify};

/// What an engine was started for.
#[derive(Clone, Copy)]
struct EngineUse {
    size: ShardSize,
    delegated: u32,
}

impl EngineUse {
    /// Whether an engine on `device` that was started for this can be used for that: it makes shards no larger, and the same
    /// ones prove. On a GPU one size is right for everything.
    fn serves(self, wanted: Self, device: Device) -> bool {
        let larger = self.size == ShardSize::Small && wanted.size == ShardSize::Any;
        self.delegated == wanted.delegated && (device != Device::Cpu || !larger)
    }
}

/// Runs jobs one after the other.
pub struct Session {
    config: EngineConfig,
    sink: ProgressSink,
    parts: Option<Broker>,
    engine: Option<(Engine, EngineUse)>,
    /// The wrap circuit and its parameters: built, opened and checked once.
    groth16: Option<groth16::Prover>,
}

impl Session {
    /// A session that has started nothing yet.
    pub fn new(config: StageConfig, sink: ProgressSink) -> Self {
        let StageConfig { cache_dir, work_dir, cores, memory_bytes } = config;
        let config = EngineConfig { cache_dir, work_dir, cores, memory_bytes };
        Self { config, sink, parts: None, engine: None, groth16: None }
    }

    /// This session, with somebody to prove the parts of delegated jobs.
    pub(super) fn with_parts(self, parts: Broker) -> Self {
        Self { parts: Some(parts), ..self }
    }

    /// Runs one job to its end.
    ///
    /// # Errors
    /// [`WorkerError`]; nothing is written then.
    pub fn run(&mut self, job: &Job) -> Result<Outcome, WorkerError> {
        let reporter = Reporter::new(job.name(), self.sink.clone());
        match job {
            Job::Keys(_) => self.keys(&reporter).map(Outcome::Keys),
            Job::Split(job) => split(job, &reporter).map(Outcome::Split),
            Job::Execute(job) => self.execute(job, &reporter).map(Outcome::Execute),
            Job::ProveRun(job) => self.prove_run(job, &reporter).map(Outcome::ProveRun),
            Job::ProveFold(job) => self.prove_fold(job, &reporter).map(Outcome::ProveFold),
            Job::ProvePart(job) => self.prove_part(job, &reporter).map(Outcome::ProvePart),
            Job::Wrap(job) => self.wrap(job, &reporter).map(Outcome::Wrap),
            Job::Groth16Circuit(_) => self.groth16_circuit(&reporter).map(Outcome::Groth16Circuit),
            Job::Groth16Setup(_) => self.groth16_setup(&reporter).map(Outcome::Groth16Setup),
            Job::Groth16Prove(job) => self.groth16_prove(job, &reporter).map(Outcome::Groth16Prove),
            Job::Groth16Any(job) => self.groth16_any(job, &reporter).map(Outcome::Groth16Prove),
            Job::Check(job) => self.check(job, &reporter).map(Outcome::Check),
            Job::Reference(job) => reference(job, &reporter).map(Outcome::Reference),
        }
    }

    fn keys(&self, reporter: &Reporter) -> Result<KeysOutcome, WorkerError> {
        reporter.report("keys", 0, 2);
        let block = info(&self.key(guests::BLOCK_ELF)?);
        reporter.report("keys", 1, 2);
        let fold = info(&self.key(guests::FOLD_ELF)?);
        reporter.report("keys", 2, 2);
        Ok(KeysOutcome { block, fold })
    }

    fn execute(&self, job: &ExecuteJob, reporter: &Reporter) -> Result<ExecuteOutcome, WorkerError> {
        let input = ProveInput { stdin: vec![job.run.read()?], deferred: Vec::new() };
        reporter.report("execute", 0, 1);
        let summary = engine::execute(&self.config, guests::BLOCK_ELF, &input)?;
        reporter.report("count phases", 0, 1);
        let phases = cycles_by_phase(guests::BLOCK_ELF, &input.stdin[0])?;
        reporter.report("execute", 1, 1);
        Ok(ExecuteOutcome {
            cycles: summary.cycles,
            public_values: HexBytes(summary.public_values),
            syscalls: summary.syscalls,
            phases,
            elapsed_ms: reporter.elapsed_ms(),
        })
    }

    fn prove_run(&mut self, job: &ProveRunJob, reporter: &Reporter) -> Result<ProofOutcome, WorkerError> {
        let input = ProveInput { stdin: vec![job.run.read()?], deferred: Vec::new() };
        self.prove(guests::BLOCK_ELF, &input, (job.until, job.delegated), &job.output, reporter)
    }

    fn prove_fold(&mut self, job: &ProveFoldJob, reporter: &Reporter) -> Result<ProofOutcome, WorkerError> {
        reporter.report("check proofs", 0, 1);
        let fold_key = self.key(guests::FOLD_ELF)?;
        let input = fold_input(job, &fold_key)?;
        reporter.report("check proofs", 1, 1);
        self.prove(guests::FOLD_ELF, &input, (job.until, job.delegated), &job.output, reporter)
    }

    fn prove(
        &mut self,
        elf: &[u8],
        input: &ProveInput,
        (until, delegated): (Until, u32),
        output: &std::path::Path,
        reporter: &Reporter,
    ) -> Result<ProofOutcome, WorkerError> {
        let key = self.key(elf)?;
        let size = if delegated == 0 && Device::of_process()? != Device::Cpu {
            // One size is right for everything, and there the seconds of another execution count.
            ShardSize::Any
        } else {
            // Seconds, and a guest that rejects its input is not proved for minutes.
            reporter.report("execute", 0, 1);
            let size = engine::execute(&self.config, elf, input)?.shard_size();
            reporter.report("execute", 1, 1);
            size
        };
        let engine = self.engine(EngineUse { size, delegated }, reporter)?;
        let (bytes, public_values, cycles, shards) = match engine.prove(elf, &key, input, until, reporter)? {
            Proof::Core(proof) => {
                let shards = u32::try_from(proof.proof.0.len()).unwrap_or(u32::MAX);
                (proof.encode()?, proof.public_values, proof.cycles, shards)
            }
            Proof::Compressed(proof) => (proof.encode()?, proof.public_values, proof.cycles, proof.shards),
        };
        Ok(ProofOutcome {
            proof: FileRef::write(output, &bytes)?,
            program: info(&key),
            public_values: HexBytes(public_values),
            cycles,
            shards,
            elapsed_ms: reporter.elapsed_ms(),
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    fn prove_part(&mut self, job: &ProvePartJob, reporter: &Reporter) -> Result<PartOutcome, WorkerError> {
        let files: Vec<PathBuf> = job.files.iter().map(|file| file.path.clone()).collect();
        let engine = self.engine(EngineUse { size: ShardSize::Any, delegated: 0 }, reporter)?;
        let ProvedPart { key, kind, files } = engine.prove_part(&files, &job.output_dir, reporter)?;
        let files = files.into_iter().map(FileRef::of).collect::<Result<_, _>>()?;
        let elapsed_ms = reporter.elapsed_ms();
        Ok(PartOutcome { key, kind, files, elapsed_ms, peak_rss_bytes: peak_rss_bytes() })
    }

    fn wrap(&mut self, job: &WrapJob, reporter: &Reporter) -> Result<WrapOutcome, WorkerError> {
        let fold = CompressedProof::decode(&job.fold.read()?)?;
        let wrapped = self
            .engine(EngineUse { size: ShardSize::Small, delegated: 0 }, reporter)?
            .wrap(&fold, reporter)?;
        let inputs = groth16::wrap_inputs(&wrapped)?;
        Ok(WrapOutcome {
            proof: FileRef::write(&job.output, &wrapped.encode()?)?,
            inputs,
            elapsed_ms: reporter.elapsed_ms(),
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    fn groth16_circuit(&mut self, reporter: &Reporter) -> Result<Groth16CircuitOutcome, WorkerError> {
        let digest = match &self.groth16 {
            Some(prover) => prover.circuit().digest(),
            None => circuit(reporter)?.digest(),
        };
        Ok(Groth16CircuitOutcome { circuit_digest: Hex32(digest) })
    }

    fn groth16_setup(&mut self, reporter: &Reporter) -> Result<Groth16SetupOutcome, WorkerError> {
        let prover = self.groth16(IfMissing::Draw, reporter)?;
        let (circuit, parameters) = (prover.circuit(), prover.parameters());
        Ok(Groth16SetupOutcome {
            circuit_digest: Hex32(circuit.digest()),
            proving_key_bytes: parameters.proving_key_bytes(),
            proving_key_hash: parameters.proving_key_hash(),
            proving_key: parameters.proving_key.clone(),
            verifying_key: parameters.verifying_key.clone(),
            insecure: parameters.insecure,
            cached: parameters.cached,
            constraints: circuit.constraints(),
            elapsed_ms: reporter.elapsed_ms(),
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    fn groth16_prove(
        &mut self,
        job: &Groth16ProveJob,
        reporter: &Reporter,
    ) -> Result<Groth16ProveOutcome, WorkerError> {
        let values = FoldPublicValues::decode(&job.fold_public_values.0)
            .map_err(|e| WorkerError::BadJob { reason: format!("fold_public_values: {e}") })?;
        let statement = groth16::Statement { program: job.fold_program, public_values: values.to_vec() };
        self.groth16_of(&job.wrap, &statement, &job.output_dir, reporter)
    }

    fn groth16_any(
        &mut self,
        job: &Groth16AnyJob,
        reporter: &Reporter,
    ) -> Result<Groth16ProveOutcome, WorkerError> {
        let public_values = job.public_values.0.clone();
        let statement = groth16::Statement { program: job.program, public_values };
        self.groth16_of(&job.wrap, &statement, &job.output_dir, reporter)
    }

    fn groth16_of(
        &mut self,
        wrap: &FileRef,
        statement: &groth16::Statement,
        output_dir: &Path,
        reporter: &Reporter,
    ) -> Result<Groth16ProveOutcome, WorkerError> {
        let wrap = WrapProof::decode(&wrap.read()?)?;
        statement.check(&groth16::wrap_inputs(&wrap)?)?;
        // Whoever wants new parameters asks for a set-up.
        let prover = self.groth16(IfMissing::Refuse, reporter)?;
        let proved = prover.prove(&wrap, statement, reporter)?;
        Ok(Groth16ProveOutcome {
            proof: FileRef::write(&output_dir.join("proof.bin"), &proved.proof)?,
            verifying_key: FileRef::write(&output_dir.join("vk.bin"), &proved.verifying_key)?,
            public_input: Hex32(proved.public_input),
            insecure: proved.insecure,
            constraints: prover.circuit().constraints(),
            elapsed_ms: reporter.elapsed_ms(),
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    fn check(&mut self, job: &CheckJob, reporter: &Reporter) -> Result<CheckOutcome, WorkerError> {
        reporter.report("check Groth16", 0, 1);
        let (groth16_device, constraints) = check::groth16(&self.config.work_dir)?;
        reporter.report("check Groth16", 1, 1);
        let elf = tiny::elf(check::PUBLIC_VALUES, check::LOOPS, 0);
        let key = self.key(&elf)?;
        let engine = self.engine(EngineUse { size: ShardSize::Small, delegated: 0 }, reporter)?;
        let zkvm_device = match engine.device() {
            Device::Cpu => "CPU".to_owned(),
            Device::Gpu { .. } if groth16_device == "CPU" => {
                let reason = "the kernels cannot use it, or it computes wrongly: the log says why".to_owned();
                return Err(WorkerError::Gpu { reason });
            }
            Device::Gpu { memory_bytes } => format!("GPU, {} GiB", memory_bytes >> 30),
        };
        let proof = engine.prove(&elf, &key, &ProveInput::default(), job.until, reporter)?;
        let (public_values, cycles) = match proof {
            Proof::Core(proof) => (proof.public_values, proof.cycles),
            Proof::Compressed(proof) => (proof.public_values, proof.cycles),
        };
        if public_values != check::PUBLIC_VALUES {
            return Err(WorkerError::PublicInput {
                name: "public_values",
                expected: hex::encode(check::PUBLIC_VALUES),
                got: hex::encode(public_values),
            });
        }
        let elapsed_ms = reporter.elapsed_ms();
        Ok(CheckOutcome { zkvm_device, cycles, groth16_device, constraints, elapsed_ms })
    }

    fn key(&self, elf: &[u8]) -> Result<ProgramKey, WorkerError> {
        match &self.engine {
            Some((engine, _)) => engine.setup(elf),
            None => engine::program_key(&self.config, elf),
        }
    }

    /// The engine, started anew where the one there is for another use.
    fn engine(&mut self, wanted: EngineUse, reporter: &Reporter) -> Result<&Engine, WorkerError> {
        if self.engine.as_ref().is_none_or(|(engine, have)| !have.serves(wanted, engine.device())) {
            // The old one's memory is free before the new one takes its own.
            self.engine = None;
            let engine = match usize::try_from(wanted.delegated) {
                Ok(0) | Err(_) => Engine::start_sized(&self.config, wanted.size, reporter)?,
                Ok(width) => {
                    let parts = self.parts.clone().ok_or_else(|| WorkerError::BadJob {
                        reason: "a delegated job needs a parent that has its parts proved".to_owned(),
                    })?;
                    let parts = Arc::new(parts);
                    Engine::start_controller(&self.config, wanted.size, parts, width, reporter)?
                }
            };
            self.engine = Some((engine, wanted));
        }
        self.engine
            .as_ref()
            .map(|(engine, _)| engine)
            .ok_or_else(|| WorkerError::internal("the engine is gone"))
    }

    fn groth16(
        &mut self,
        if_missing: IfMissing,
        reporter: &Reporter,
    ) -> Result<&mut groth16::Prover, WorkerError> {
        if self.groth16.is_none() {
            let circuit = circuit(reporter)?;
            let parameters = groth16::parameters(&circuit, &self.config.cache_dir, if_missing, reporter)?;
            self.groth16 = Some(groth16::Prover::new(circuit, parameters));
        }
        self.groth16.as_mut().ok_or_else(|| WorkerError::internal("the circuit is gone"))
    }
}

fn reference(job: &ReferenceJob, reporter: &Reporter) -> Result<ReferenceOutcome, WorkerError> {
    let read = |run: &FileRef| Ok(ProveInput { stdin: vec![run.read()?], deferred: Vec::new() });
    let inputs: Vec<ProveInput> = job.runs.iter().map(read).collect::<Result<_, WorkerError>>()?;
    reporter.report("the zkVM's own prover", 0, 1);
    let times = engine::reference(guests::BLOCK_ELF, &inputs)?;
    reporter.report("the zkVM's own prover", 1, 1);
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(ReferenceOutcome {
        start_ms: ms(times.start),
        core_ms: ms(times.core),
        compressed_ms: ms(times.compressed),
    })
}

fn circuit(reporter: &Reporter) -> Result<groth16::Circuit, WorkerError> {
    reporter.report(groth16::phase::BUILD_CIRCUIT, 0, 1);
    let circuit = groth16::Circuit::build()?;
    reporter.report(groth16::phase::BUILD_CIRCUIT, 1, 1);
    Ok(circuit)
}

fn split(job: &SplitJob, reporter: &Reporter) -> Result<SplitOutcome, WorkerError> {
    let refused = |error: assay_lvm::BatchError| WorkerError::BadJob { reason: error.to_string() };
    reporter.report("execute", 0, 1);
    let batch = Batch::decode(&job.batch.read()?).map_err(refused)?;
    batch.validate().map_err(refused)?;
    let limits = RunLimits { gas_max: job.run_gas_max, blocks_max: job.run_blocks_max as usize };
    let runs = batch.split_runs(limits).map_err(refused)?;
    let store = |(number, run): (usize, assay_lvm::Run)| {
        let file = FileRef::write(&job.output_dir.join(format!("run-{number}")), &run.input)?;
        Ok(SplitRun { file, gas: run.output.gas_used })
    };
    let runs = runs.into_iter().enumerate().map(store).collect::<Result<_, WorkerError>>()?;
    reporter.report("execute", 1, 1);
    Ok(SplitOutcome { runs, elapsed_ms: reporter.elapsed_ms() })
}

fn info(key: &ProgramKey) -> ProgramInfo {
    ProgramInfo { elf_sha256: Hex32(key.elf_sha256), vk_words: key.words(), vk_bn254: Hex32(key.bn254()) }
}

/// Assembles what the fold guest reads and the proofs it verifies: the runs' in order, then the previous fold proof.
///
/// Everything the guest checks is checked here first, the proofs included.
fn fold_input(job: &ProveFoldJob, fold_key: &ProgramKey) -> Result<ProveInput, WorkerError> {
    let bad = |what: String| WorkerError::BadJob { reason: what };
    let group = CodeControlGroup {
        genesis_commitment: job.genesis_commitment.0,
        fold_program: VkHash(fold_key.words()),
        block_programs: job
            .block_programs
            .iter()
            .map(|p| assay_lvm_core::BlockProgram {
                first_block: p.first_block,
                last_block: p.last_block,
                vk: VkHash(p.vk_words),
            })
            .collect(),
    };
    let path = |leaf| {
        group.prove(leaf).ok_or_else(|| WorkerError::internal("the code control group has no such leaf"))
    };
    let mut deferred = Vec::with_capacity(job.runs.len() + 1);
    let mut runs = Vec::with_capacity(job.runs.len());
    for (number, file) in job.runs.iter().enumerate() {
        let proof = CompressedProof::decode(&file.read()?)?;
        let public_values = BlockPublicValues::decode(&proof.public_values)
            .map_err(|e| bad(format!("run {number}: public values: {e}")))?;
        let (first, last) = (public_values.first_block, public_values.last_block);
        let (program, path) = group
            .program_for(first, last)
            .ok_or_else(|| bad(format!("run {number}: no program may prove the blocks {first}..={last}")))?;
        verify::compressed_proof(&proof, &program.vk.0)?;
        runs.push(RunClaim { public_values, program, proof: path });
        deferred.push(proof);
    }
    let history = match &job.previous {
        None => History::Genesis { commitment: job.genesis_commitment.0, proof: path(GENESIS_LEAF)? },
        Some(file) => {
            let proof = CompressedProof::decode(&file.read()?)?;
            verify::compressed_proof(&proof, &fold_key.words())?;
            let public_values = FoldPublicValues::decode(&proof.public_values)
                .map_err(|e| bad(format!("previous fold proof: public values: {e}")))?;
            deferred.push(proof);
            History::Fold { public_values, vk: VkHash(fold_key.words()), proof: path(FOLD_LEAF)? }
        }
    };
    let input = FoldInput { code_root: group.root(), history, runs };
    fold::check(&input).map_err(|e| bad(format!("the runs do not fold: {e}")))?;
    Ok(ProveInput { stdin: vec![input.encode()], deferred })
}
