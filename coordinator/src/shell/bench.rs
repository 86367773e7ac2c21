//! `assay bench`: checks, then each part of a batch's way once, in the processes that `assay prove` uses, nothing taken from a cache; then
//! several batches in flight.

mod flight;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use assay_agent::runner::Device;
use assay_lvm::guests;
use assay_lvm_core::VkHash;
use assay_worker::stages::{
    self as worker, BlockProgram, CheckJob, CheckOutcome, FileRef, Groth16AnyJob, Groth16ProveJob,
    Groth16SetupJob, KeysJob, KeysOutcome, ProofOutcome, ProveFoldJob, ProveRunJob, ReferenceJob,
    ReferenceOutcome, WrapJob,
};

use super::session::{Session, Tell};
use super::setup::{ask, error};
use super::{Fault, Place};
use crate::bench::{visible_gpus, BatchFigures, Figures, InFlight, Sampler, VERSION};
use crate::error::Error;
use crate::fsio;
use crate::job::{fold_public_values, Job};
use crate::machine::Machine;
use crate::progress::{Board, Step, View};
use crate::report::ZKVM_VERSION;

/// What the view shows, in this order.
const STEPS: [&str; 8] =
    ["keys", "core", "compressed", "fold", "wrap", "groth16-setup", "groth16", "sp1-reference"];

/// How a check names the processor.
const CPU: &str = "CPU";

/// Checks that small proofs verify, and measures batches, each with whether it is linked to a history; proofs are verified as for
/// `assay prove`. Several batches in flight are measured where there is a GPU, and where `in_flight` asks for it. Files go
/// below the cache and are removed.
///
/// # Errors
/// [`Error::Stage`], [`Error::Interrupted`].
pub fn bench(place: &Place<'_>, jobs: &[(Job, bool)], in_flight: bool) -> Result<Figures, Error> {
    let gpus = gpus();
    let numbers: Vec<u32> = gpus.iter().map(|(number, _)| *number).collect();
    let check = check(place, !gpus.is_empty())?;
    require_gpu(&gpus, &check)?;
    let mut batches = Vec::new();
    for (job, is_linked) in jobs {
        let folder = tempfile::tempdir_in(place.cache.root())
            .map_err(|e| Error::Stage { stage: "start".to_owned(), reason: e.to_string() })?;
        // A prover has one GPU, the first.
        let mut run = Run::new(place, job, folder.path(), numbers.iter().copied().take(1).collect());
        let measured = run.measure(*is_linked);
        run.session.close();
        run.view.close();
        batches.push(measured.map_err(|fault| error("bench", fault))?);
    }
    let in_flight = if in_flight || !gpus.is_empty() { several(place, &numbers)? } else { Vec::new() };
    Ok(Figures {
        version: VERSION,
        unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        versions: [env!("CARGO_PKG_VERSION").to_owned(), ZKVM_VERSION.to_owned()],
        cuda: cfg!(feature = "cuda"),
        machine: Machine::here(),
        gpus: gpus.into_iter().map(|(_, name)| name).collect(),
        check,
        batches,
        in_flight,
    })
}

/// Numbers and names of the GPUs that this build and its children may use.
fn gpus() -> Vec<(u32, String)> {
    if !cfg!(feature = "cuda") {
        return Vec::new();
    }
    let listed = assay_agent::devices::gpus().into_iter().filter_map(|(device, name)| match device {
        Device::Gpu(number) => Some((number, name)),
        Device::Cpu => None,
    });
    visible_gpus(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), listed.collect())
}

/// Has small proofs made and verified; on a processor the zkVM's has no recursion, which would take minutes.
fn check(place: &Place<'_>, has_gpu: bool) -> Result<CheckOutcome, Error> {
    fsio::say!("checking that small proofs verify");
    let until = if has_gpu { worker::Until::Compressed } else { worker::Until::Core };
    match ask(place, "check", &worker::Job::Check(CheckJob { until }), &mut |_| ())? {
        worker::Outcome::Check(check) => Ok(check),
        _ => Err(error("check", unexpected())),
    }
}

/// Refuses to measure a processor under a GPU's name: the driver lists one, and the zkVM's provers have not taken it.
fn require_gpu(gpus: &[(u32, String)], check: &CheckOutcome) -> Result<(), Error> {
    match gpus.first() {
        Some((number, name)) if check.zkvm_device == CPU => {
            let reason = format!(
                "nvidia-smi lists GPU {number} ({name}), and proofs cannot be made on it: the log says why (the driver has to be 580 or \
                 later); with an empty CUDA_VISIBLE_DEVICES the processor is measured"
            );
            Err(error("check", Fault::Failed(reason)))
        }
        _ => Ok(()),
    }
}

/// Batches in flight. What has been measured before is not lost if that fails.
fn several(place: &Place<'_>, gpus: &[u32]) -> Result<Vec<InFlight>, Error> {
    // A coordinator does not begin without.
    ask(place, "set-up", &worker::Job::Groth16Setup(Groth16SetupJob {}), &mut |_| ())?;
    match flight::measure(place, gpus) {
        Ok(figures) => Ok(figures),
        Err(Fault::Cancelled) => Err(Error::Interrupted),
        Err(fault) => {
            fsio::say!("warning: batches in flight are not measured: {}", error("bench", fault));
            Ok(Vec::new())
        }
    }
}

struct Run<'a> {
    job: &'a Job,
    folder: &'a Path,
    /// The GPU that it works on; none: the processor.
    gpus: Vec<u32>,
    cancel: &'a AtomicBool,
    session: Session,
    view: View,
    peak_bytes: u64,
    start_seconds: f64,
}

impl<'a> Run<'a> {
    fn new(place: &'a Place<'_>, job: &'a Job, folder: &'a Path, gpus: Vec<u32>) -> Self {
        let title = format!("bench of batch {}: {} run(s)", job.summary.id, job.runs.len());
        let board = Board::new(title, STEPS.map(|step| (step.to_owned(), None)));
        Self {
            job,
            folder,
            gpus,
            cancel: &place.cancel,
            session: Session::new(&place.program, place.config, place.cache, "bench"),
            view: View::new(board),
            peak_bytes: 0,
            start_seconds: 0.0,
        }
    }

    fn measure(&mut self, is_linked: bool) -> Result<BatchFigures, Fault> {
        let (outcome, _) = self.run(0, &worker::Job::Keys(KeysJob {}))?;
        let worker::Outcome::Keys(keys) = outcome else { return Err(unexpected()) };
        let runs = self.inputs()?;
        let sampler = Sampler::start(&self.gpus);
        let (core, core_seconds) = self.prove_runs(1, &runs, worker::Until::Core)?;
        let (compressed, compressed_seconds) = self.prove_runs(2, &runs, worker::Until::Compressed)?;
        let mut figures = BatchFigures {
            batch: self.job.summary.clone(),
            cycles: core.iter().map(|proof| proof.cycles).sum(),
            shards: core.iter().map(|proof| proof.shards).sum(),
            start_seconds: 0.0,
            core_seconds,
            compressed_seconds,
            fold_seconds: None,
            wrap_seconds: None,
            groth16_seconds: None,
            peak_memory_bytes: 0,
            gpu: None,
            reference: None,
        };
        match compressed.as_slice() {
            runs if is_linked => self.finish(&keys, runs, &mut figures)?,
            [run] => {
                self.view.note(
                    "this batch is not linked to a history: its own proof is wrapped, nothing is folded",
                );
                self.finish_alone(&keys, run, &mut figures)?;
            }
            _ => self
                .view
                .note("this batch is not linked to a history and has several runs: nothing is wrapped"),
        }
        figures.gpu = sampler.and_then(Sampler::stop);
        (figures.start_seconds, figures.peak_memory_bytes) = (self.start_seconds, self.peak_bytes);
        if !self.gpus.is_empty() {
            figures.reference = self.reference(&runs)?;
        }
        Ok(figures)
    }

    /// Folds at genesis, wraps, and makes the Groth16 proof.
    fn finish(
        &mut self,
        keys: &KeysOutcome,
        runs: &[ProofOutcome],
        figures: &mut BatchFigures,
    ) -> Result<(), Fault> {
        let genesis = self.job.parent_commitment;
        let (block, fold) = (VkHash(keys.block.vk_words), VkHash(keys.fold.vk_words));
        let job = worker::Job::ProveFold(ProveFoldJob {
            runs: runs.iter().map(|proof| proof.proof.clone()).collect(),
            previous: None,
            genesis_commitment: genesis.into(),
            block_programs: BlockProgram::all_of(&guests::code_control_group(genesis, block, fold)),
            until: worker::Until::Compressed,
            delegated: 0,
            output: self.folder.join("fold.proof"),
        });
        let (outcome, seconds) = self.run(3, &job)?;
        let worker::Outcome::ProveFold(folded) = outcome else { return Err(unexpected()) };
        figures.fold_seconds = Some(seconds);

        let wrap = self.wrap(folded.proof, figures)?;
        let job = worker::Job::Groth16Prove(Groth16ProveJob {
            wrap,
            fold_public_values: fold_public_values(self.job, genesis, block, fold).encode().to_vec().into(),
            fold_program: keys.fold.vk_words,
            output_dir: self.folder.join("groth16"),
        });
        self.groth16(&job, figures)
    }

    /// Wraps the proof of a batch that cannot be folded, and makes the Groth16 proof of that.
    fn finish_alone(
        &mut self,
        keys: &KeysOutcome,
        run: &ProofOutcome,
        figures: &mut BatchFigures,
    ) -> Result<(), Fault> {
        let wrap = self.wrap(run.proof.clone(), figures)?;
        let job = worker::Job::Groth16Any(Groth16AnyJob {
            wrap,
            public_values: run.public_values.clone(),
            program: keys.block.vk_words,
            output_dir: self.folder.join("groth16"),
        });
        self.groth16(&job, figures)
    }

    fn wrap(&mut self, proof: FileRef, figures: &mut BatchFigures) -> Result<FileRef, Fault> {
        let job = WrapJob { fold: proof, output: self.folder.join("wrap.proof") };
        let (outcome, seconds) = self.run(4, &worker::Job::Wrap(job))?;
        let worker::Outcome::Wrap(wrapped) = outcome else { return Err(unexpected()) };
        figures.wrap_seconds = Some(seconds);
        Ok(wrapped.proof)
    }

    fn groth16(&mut self, job: &worker::Job, figures: &mut BatchFigures) -> Result<(), Fault> {
        // Made once for all batches, and read and checked by a process once.
        self.run(5, &worker::Job::Groth16Setup(Groth16SetupJob {}))?;
        let (_, seconds) = self.run(6, job)?;
        figures.groth16_seconds = Some(seconds);
        Ok(())
    }

    /// The zkVM's own prover on the same runs, in a process of its own. That it fails is no failure of ours.
    fn reference(&mut self, runs: &[FileRef]) -> Result<Option<ReferenceOutcome>, Fault> {
        let job = worker::Job::Reference(ReferenceJob { runs: runs.to_vec() });
        match self.run(7, &job) {
            Ok((worker::Outcome::Reference(theirs), _)) => Ok(Some(theirs)),
            Ok(_) => Err(unexpected()),
            Err(Fault::Failed(reason)) => {
                self.view.note(&format!("warning: the zkVM's own prover is not measured: {reason}"));
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    fn inputs(&self) -> Result<Vec<FileRef>, Fault> {
        let write = |(number, run): (usize, &crate::job::Run)| {
            Ok(FileRef::write(&self.folder.join(format!("run-{number}.input")), &run.input)?)
        };
        self.job.runs.iter().enumerate().map(write).collect()
    }

    /// Proves all runs; returns the proofs and the seconds of all together.
    fn prove_runs(
        &mut self,
        at: usize,
        runs: &[FileRef],
        until: worker::Until,
    ) -> Result<(Vec<ProofOutcome>, f64), Fault> {
        let (mut proofs, mut sum) = (Vec::new(), 0.0);
        for (number, run) in runs.iter().enumerate() {
            let output: PathBuf = self.folder.join(format!("run-{number}-{at}.proof"));
            let job = ProveRunJob { run: run.clone(), until, delegated: 0, output };
            let (outcome, seconds) = self.run(at, &worker::Job::ProveRun(job))?;
            let worker::Outcome::ProveRun(proof) = outcome else { return Err(unexpected()) };
            proofs.push(proof);
            sum += seconds;
        }
        Ok((proofs, sum))
    }

    /// Runs a job as step `at` of the view; returns its seconds, the start of an engine left out, too.
    fn run(&mut self, at: usize, job: &worker::Job) -> Result<(worker::Outcome, f64), Fault> {
        self.view.begin(at);
        let (view, peak_bytes) = (&mut self.view, &mut self.peak_bytes);
        let (mut start_ms, mut begun_ms) = (0, 0);
        let began = view.now();
        let outcome = self.session.run(job, self.cancel, &mut |tell| match tell {
            Tell::Progress(progress) => {
                match (progress.phase.as_str(), progress.done) {
                    ("start node", 0) => begun_ms = progress.elapsed_ms,
                    ("start node", _) => start_ms += progress.elapsed_ms.saturating_sub(begun_ms),
                    _ => {}
                }
                *peak_bytes = (*peak_bytes).max(progress.peak_rss_bytes);
                view.advance(at, &progress.phase, progress.done, progress.total);
            }
            Tell::Memory(bytes) => {
                *peak_bytes = (*peak_bytes).max(bytes);
                view.memory(bytes);
                view.tick_stage(at);
            }
        });
        let took = view.now().saturating_sub(began);
        let step = match &outcome {
            Ok(_) => Step::Done { took, peak_bytes: *peak_bytes },
            Err(_) => Step::Failed,
        };
        view.end(at, step);
        let start_seconds = start_ms as f64 / 1e3;
        self.start_seconds += start_seconds;
        Ok((outcome?, took.as_secs_f64() - start_seconds))
    }
}

fn unexpected() -> Fault {
    Fault::Failed("the stage's process answered something else than was asked for".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_not_measured_in_the_place_of_a_gpu() {
        let check = |device: &str| CheckOutcome {
            zkvm_device: device.to_owned(),
            cycles: 20_000,
            groth16_device: "CPU".to_owned(),
            constraints: 4094,
            elapsed_ms: 1,
        };
        let gpus = [(3, "NVIDIA H200".to_owned())];
        let refused = require_gpu(&gpus, &check("CPU")).unwrap_err().to_string();
        assert!(refused.contains("GPU 3 (NVIDIA H200)"), "{refused}");
        require_gpu(&gpus, &check("GPU, 140 GiB")).unwrap();
        require_gpu(&[], &check("CPU")).unwrap();
    }
}
