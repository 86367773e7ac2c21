//! `assay setup`: the Groth16 parameters without a proof.

use std::path::PathBuf;
use std::time::Instant;

use assay_worker::progress::Progress;
use assay_worker::stages::{Groth16SetupJob, Groth16SetupOutcome, Job, Outcome};

use super::session::{Session, Tell};
use super::{Fault, Place};
use crate::error::Error;
use crate::history::History as Durations;
use crate::pipeline::Stage;
use crate::progress::{Board, Step, View};

/// The Groth16 parameters that [`setup`] made or found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Made {
    /// The proving key.
    pub proving_key: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// The hash that names it, hex, as its pin does.
    pub hash: String,
    /// Digest of the circuit, hex.
    pub circuit_digest: String,
    /// Constraints of the circuit.
    pub constraints: u64,
    /// Set for a development set-up.
    pub insecure: bool,
    /// Whether they were there already.
    pub cached: bool,
}

/// Makes the Groth16 parameters, or finds them.
///
/// # Errors
/// [`Error::Stage`], [`Error::Interrupted`].
pub fn setup(place: &Place<'_>) -> Result<Made, Error> {
    let stage = Stage::Setup.to_string();
    match run(place, &Job::Groth16Setup(Groth16SetupJob {})) {
        Ok(Outcome::Groth16Setup(made)) => Ok(made.into()),
        Ok(_) => Err(error(&stage, Fault::Failed("the stage's process answered something else".to_owned()))),
        Err(fault) => Err(error(&stage, fault)),
    }
}

/// Runs one job in a child of its own, without a view; `hear` is told its progress.
///
/// # Errors
/// [`Error::Stage`] under the name `stage`, [`Error::Interrupted`].
pub fn ask(
    place: &Place<'_>,
    stage: &str,
    job: &Job,
    hear: &mut dyn FnMut(&Progress),
) -> Result<Outcome, Error> {
    let mut session = Session::new(&place.program, place.config, place.cache, stage);
    let result = session.run(job, &place.cancel, &mut |tell| {
        if let Tell::Progress(progress) = tell {
            hear(&progress);
        }
    });
    session.close();
    result.map_err(|fault| error(stage, fault))
}

pub(super) fn error(stage: &str, fault: Fault) -> Error {
    let reason = match fault {
        Fault::Cancelled => return Error::Interrupted,
        Fault::Lost(_) => "the stage asked for a result it does not need".to_owned(),
        Fault::Failed(reason) => reason,
    };
    Error::Stage { stage: stage.to_owned(), reason }
}

/// Runs the job with a view of one line.
fn run(place: &Place<'_>, job: &Job) -> Result<Outcome, Fault> {
    let durations = Durations::load(&place.cache.root().join("history.json"));
    let expected = durations.estimate(Stage::Setup.kind(), 0);
    let title = crate::statement::INSECURE_NOTE.to_owned();
    let mut view = View::new(Board::new(title, [(Stage::Setup.to_string(), expected)]));
    let mut session = Session::new(&place.program, place.config, place.cache, "setup");
    view.begin(0);
    let started = Instant::now();
    let mut peak_bytes = 0;
    let result = session.run(job, &place.cancel, &mut |tell| match tell {
        Tell::Progress(progress) => view.advance(0, &progress.phase, progress.done, progress.total),
        Tell::Memory(bytes) => {
            peak_bytes = peak_bytes.max(bytes);
            view.memory(bytes);
            view.tick_stage(0);
        }
    });
    session.close();
    let step = if result.is_ok() { Step::Done { took: started.elapsed(), peak_bytes } } else { Step::Failed };
    view.end(0, step);
    view.close();
    result
}

impl From<Groth16SetupOutcome> for Made {
    fn from(made: Groth16SetupOutcome) -> Self {
        Self {
            proving_key: made.proving_key,
            bytes: made.proving_key_bytes,
            hash: made.proving_key_hash.to_string(),
            circuit_digest: made.circuit_digest.to_string(),
            constraints: made.constraints,
            insecure: made.insecure,
            cached: made.cached,
        }
    }
}
