//! The child processes of one pipeline: at most one at a time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_worker::progress::Progress;
use assay_worker::stages::{Event, Job, Outcome};

use super::Fault;
use crate::cache::Cache;
use crate::child::{Child, Heard};
use crate::config::Config;
use crate::machine;

/// How often the view is told the time and the memory.
const TICK: Duration = Duration::from_millis(250);
/// Transient failures are tried again this many times, in a fresh process.
const RETRIES_MAX: u32 = 2;

/// Which process does a job. Changing the kind ends the process before, which frees its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Holds a zkVM node.
    Zkvm,
    /// Set-up and Groth16.
    Groth16,
    /// Holds the zkVM's own prover.
    Reference,
}

impl Kind {
    fn of(job: &Job) -> Self {
        match job {
            Job::Groth16Circuit(_) | Job::Groth16Setup(_) | Job::Groth16Prove(_) => Kind::Groth16,
            Job::Reference(_) => Kind::Reference,
            _ => Kind::Zkvm,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Zkvm => "zkvm",
            Kind::Groth16 => "groth16",
            Kind::Reference => "reference",
        }
    }
}

/// What a running job tells.
pub(super) enum Tell {
    /// Progress of the stage.
    Progress(Progress),
    /// Resident memory of the child in bytes.
    Memory(u64),
}

/// A child that takes jobs.
struct Active {
    kind: Kind,
    child: Child,
    jobs: u64,
}

/// Starts, feeds and ends children.
pub(super) struct Session {
    program: PathBuf,
    arguments: Vec<String>,
    log_stem: PathBuf,
    active: Option<Active>,
}

impl Session {
    /// Children run `program` with the hidden subcommand `stage`.
    pub(super) fn new(program: &Path, config: &Config, cache: &Cache, name: &str) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let arguments = [
            "stage".to_owned(),
            "--cache-dir".to_owned(),
            config.keys.display().to_string(),
            "--work-dir".to_owned(),
            cache.root().join("work").display().to_string(),
            "--cores".to_owned(),
            config.cores.to_string(),
            "--memory-bytes".to_owned(),
            config.memory_bytes.to_string(),
        ];
        Self {
            program: program.to_owned(),
            arguments: arguments.into(),
            log_stem: cache.root().join("logs").join(format!("{seconds}-{name}")),
            active: None,
        }
    }

    /// Runs one job to its end.
    pub(super) fn run(
        &mut self,
        job: &Job,
        cancel: &AtomicBool,
        tell: &mut dyn FnMut(Tell),
    ) -> Result<Outcome, Fault> {
        let mut tries = 0;
        loop {
            match self.try_run(job, cancel, tell) {
                Err(JobFault::Transient(reason)) if tries < RETRIES_MAX => {
                    tracing::warn!(reason, "transient failure: trying again");
                    tries += 1;
                }
                Err(JobFault::Transient(reason)) => return Err(Fault::Failed(reason)),
                Err(JobFault::Final(fault)) => return Err(fault),
                Ok(outcome) => return Ok(outcome),
            }
        }
    }

    /// Ends the child, if there is one.
    pub(super) fn close(&mut self) {
        if let Some(active) = self.active.take() {
            active.child.end();
        }
    }

    fn try_run(
        &mut self,
        job: &Job,
        cancel: &AtomicBool,
        tell: &mut dyn FnMut(Tell),
    ) -> Result<Outcome, JobFault> {
        let number = self.send(job)?;
        loop {
            if cancel.load(Ordering::Relaxed) {
                self.close();
                return Err(JobFault::Final(Fault::Cancelled));
            }
            let Some(active) = &self.active else { return Err(failed("the stage's process is gone".into())) };
            tell(Tell::Memory(machine::resident_bytes(active.child.pid())));
            match active.child.listen(TICK) {
                Heard::Nothing => {}
                Heard::Ended => return Err(self.post_mortem()),
                Heard::Line(line) => match serde_json::from_str::<Event>(&line) {
                    Ok(Event::Progress(progress)) => tell(Tell::Progress(progress)),
                    Ok(Event::Done { job, outcome }) if job == number => return Ok(outcome),
                    Ok(Event::Failed { job, error }) if job == number => {
                        let log = active.child.log().display().to_string();
                        let reason = format!("{} (log: {log})", error.message.replace('\n', " "));
                        self.close();
                        return Err(if error.class.is_transient() {
                            JobFault::Transient(reason)
                        } else {
                            failed(reason)
                        });
                    }
                    // Something printed to standard output by a library, or an answer to no question.
                    _ => tracing::warn!(line, "unexpected line from the stage's process"),
                },
            }
        }
    }

    /// Sends the job to a child of the right kind and returns the job's number there.
    fn send(&mut self, job: &Job) -> Result<u64, JobFault> {
        let kind = Kind::of(job);
        if self.active.as_ref().is_some_and(|active| active.kind != kind) {
            self.close();
        }
        if self.active.is_none() {
            let log = self.log_path(kind);
            let child =
                Child::spawn(&self.program, &self.arguments, &log).map_err(|e| failed(e.to_string()))?;
            self.active = Some(Active { kind, child, jobs: 0 });
        }
        let line = serde_json::to_string(job).map_err(|e| failed(e.to_string()))?;
        let active = self.active.as_mut().expect("a child was started above");
        let number = active.jobs;
        active.jobs += 1;
        machine::forget_peak(active.child.pid());
        match active.child.send(&line) {
            Ok(()) => Ok(number),
            Err(_) => Err(self.post_mortem()),
        }
    }

    fn post_mortem(&mut self) -> JobFault {
        match self.active.take() {
            Some(active) => failed(active.child.post_mortem()),
            None => failed("the stage's process is gone".into()),
        }
    }

    fn log_path(&self, kind: Kind) -> PathBuf {
        PathBuf::from(format!("{}-{}.log", self.log_stem.display(), kind.name()))
    }
}

enum JobFault {
    Transient(String),
    Final(Fault),
}

fn failed(reason: String) -> JobFault {
    JobFault::Final(Fault::Failed(reason))
}
