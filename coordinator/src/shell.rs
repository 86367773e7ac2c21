//! Carries out the pipeline's effects: cache, child processes, settlement, result folder.
//!
//! The shell is the only place with side effects. For each effect it looks into the cache, checks the inputs, runs the
//! job in a child process, checks what came back, stores it, and only then answers the pipeline; the journal is written
//! after every answer, before the next effect is begun.

mod bench;
mod jobs;
mod publish;
mod session;
mod settle;
mod setup;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::{Cache, Entry};
use crate::config::Config;
use crate::error::Error;
use crate::history::{History as Durations, Sample};
use crate::job::{History, Job, Keys};
use crate::journal::Journal;
use crate::pipeline::{Effect, Event, Origin, Outcome, Phase, Plan, Stage, State, Until};
use crate::progress::{Board, Step, View};
pub use bench::bench;
use session::Session;
pub use setup::{ask, setup, Made};

/// What [`prove`] is asked to do.
#[derive(Clone, Debug)]
pub struct Request {
    /// The batch.
    pub job: Job,
    /// The history before it; only absent where nothing is folded.
    pub history: Option<History>,
    /// Where to stop.
    pub until: Until,
}

/// Where the shell works and with what.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The cache; the caller holds its lock.
    pub cache: &'a Cache,
    /// The program that runs heavy stages when called with `stage`: `assay` itself.
    pub program: PathBuf,
    /// Set to stop.
    pub cancel: Arc<AtomicBool>,
}

/// What [`prove`] achieved.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finished {
    /// The result folder.
    pub folder: PathBuf,
    /// The report that stands in it.
    pub report: crate::report::Report,
}

/// Why an effect has no result.
enum Fault {
    /// The artifact of an input stage is missing or corrupt.
    Lost(Stage),
    /// The user wants to stop.
    Cancelled,
    /// It failed for good.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::Failed(one_line(&error))
    }
}

/// Checks the configured Bitcoin back end's address, without connecting.
///
/// # Errors
/// [`Error::BitcoinSpec`].
pub fn check_backend(config: &Config) -> Result<(), Error> {
    crate::settle::backend_spec(config).map(drop).map_err(|error| Error::BitcoinSpec(Box::new(error)))
}

/// An error with its sources, on one line.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

struct Shell<'a> {
    config: &'a Config,
    cache: &'a Cache,
    request: &'a Request,
    keys: Keys,
    view: View,
    session: Session,
    durations: Durations,
    cancel: Arc<AtomicBool>,
    results: Vec<(Stage, Entry)>,
    origins: Vec<(Stage, Origin)>,
    started: Instant,
}

/// Proves a batch.
///
/// # Errors
/// [`Error::Stage`] for a failed stage, [`Error::Interrupted`], or what the cache and the journal say.
pub fn prove(place: &Place<'_>, request: &Request) -> Result<Finished, Error> {
    let Place { config, cache, program, cancel } = place;
    let keys = jobs::keys(request);
    let journal = Journal::new(&cache.root().join("journal"), keys.job(request.until));
    let runs = u32::try_from(request.job.runs.len()).unwrap_or(u32::MAX);
    let plan = Plan::new(runs, request.until);
    let resumed = journal.load().filter(|s| *s.state.phase() == Phase::Active && *s.state.plan() == plan);
    let durations = Durations::load(&cache.root().join("history.json"));
    let view = View::new(board(request, &plan, &durations));
    let mut shell = Shell {
        config,
        cache,
        request,
        keys,
        view,
        session: Session::new(program, config, cache, &request.job.summary.id),
        durations,
        cancel: cancel.clone(),
        results: Vec::new(),
        origins: Vec::new(),
        started: Instant::now(),
    };
    let mut state = match resumed {
        Some(snapshot) => shell.take_over(snapshot.state, snapshot.results),
        None => State::new(plan),
    };
    let result = shell.run(&mut state, &journal);
    shell.session.close();
    shell.view.close();
    result
}

impl Shell<'_> {
    /// Adopts what an interrupted run left, and says so.
    fn take_over(&mut self, state: State, results: Vec<(Stage, Entry)>) -> State {
        for (at, (stage, _)) in state.stages().enumerate() {
            let Some((_, entry)) = results.iter().find(|(done, _)| *done == stage) else { continue };
            if state.outcome(stage).is_some() {
                self.view.end(at, Step::Resumed { took: Duration::from_millis(entry.millis) });
                self.view.note(&format!("resumed: {stage} from cache"));
                self.origins.push((stage, Origin::Cache));
                self.results.push((stage, entry.clone()));
            }
        }
        state
    }

    fn run(&mut self, state: &mut State, journal: &Journal) -> Result<Finished, Error> {
        let first = if *state.phase() == Phase::Idle { Event::Start } else { Event::Resume };
        let mut effects = state.step(first).expect("a loaded state is idle or active");
        let mut finished = None;
        while let Some(effect) = effects.pop() {
            journal.save(state, &self.results).map_err(Error::Journal)?;
            let event = self.carry_out(state, &effect, &mut finished);
            effects = state.step(event).expect("the shell answers each effect once");
        }
        match state.phase() {
            Phase::Failed { stage, reason } => {
                let error = Error::Stage { stage: stage.to_string(), reason: reason.clone() };
                journal.remove().map_err(Error::Journal)?;
                Err(error)
            }
            Phase::Cancelled => {
                journal.remove().map_err(Error::Journal)?;
                Err(Error::Interrupted)
            }
            _ => {
                journal.remove().map_err(Error::Journal)?;
                Ok(finished.expect("publishing is the last stage of every plan"))
            }
        }
    }

    fn carry_out(&mut self, state: &State, effect: &Effect, finished: &mut Option<Finished>) -> Event {
        let at = state.plan().position(effect.stage).expect("effects name stages of the plan");
        if self.cancel.load(Ordering::Relaxed) {
            return Event::Cancel;
        }
        match self.produce(at, effect.stage, finished) {
            Ok((entry, origin)) => {
                let took = Duration::from_millis(entry.millis);
                let step = match origin {
                    Origin::Cache => Step::Resumed { took },
                    Origin::Computed => Step::Done { took, peak_bytes: entry.peak_bytes },
                };
                if origin == Origin::Cache {
                    self.view.note(&format!("resumed: {} from cache", effect.stage));
                }
                self.view.end(at, step);
                let key = effect.stage.is_cached().then(|| self.keys.stage(effect.stage).to_hex());
                let artifact = blake3::hash(entry.outcome.to_string().as_bytes()).to_hex().to_string();
                let outcome =
                    Outcome { artifact, key, origin, millis: entry.millis, peak_bytes: entry.peak_bytes };
                self.results.retain(|(stage, _)| *stage != effect.stage);
                self.origins.retain(|(stage, _)| *stage != effect.stage);
                self.results.push((effect.stage, entry));
                self.origins.push((effect.stage, origin));
                Event::Done { effect: effect.id, outcome }
            }
            Err(Fault::Lost(stage)) => {
                self.view.note(&format!("warning: the result of {stage} is lost or corrupt: doing it again"));
                self.view.end(at, Step::Waiting);
                Event::Lost { effect: effect.id, stage }
            }
            Err(Fault::Cancelled) => Event::Cancel,
            Err(Fault::Failed(reason)) => {
                self.view.end(at, Step::Failed);
                Event::Failed { effect: effect.id, reason }
            }
        }
    }

    fn produce(
        &mut self,
        at: usize,
        stage: Stage,
        finished: &mut Option<Finished>,
    ) -> Result<(Entry, Origin), Fault> {
        if stage.is_cached() {
            if let Some(entry) = self.find(stage)? {
                if stage == Stage::Fold {
                    // The next batch asks for it under another name, which may have been lost.
                    self.keep_for_the_next_batch(&entry)?;
                }
                return Ok((entry, Origin::Cache));
            }
        }
        self.view.memory(0);
        self.view.begin(at);
        let started = Instant::now();
        let mut entry = match stage {
            Stage::Verify => self.verify()?,
            Stage::Settle => self.settle()?,
            Stage::Publish => {
                let (entry, done) = self.publish()?;
                *finished = Some(done);
                entry
            }
            _ => self.compute(at, stage)?,
        };
        entry.millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if stage.is_cached() {
            self.cache.store(self.keys.stage(stage), &entry)?;
        }
        self.remember_duration(stage, &entry);
        Ok((entry, Origin::Computed))
    }

    /// Looks a stage's result up.
    fn find(&mut self, stage: Stage) -> Result<Option<Entry>, Fault> {
        let view = &self.view;
        let mut warn = |text: String| view.note(&format!("warning: {text}"));
        // Parameters are only made for a proof that is not there yet.
        if stage == Stage::Setup && self.cache.load(self.keys.stage(Stage::Groth16), &mut warn)?.is_none() {
            return Ok(None);
        }
        Ok(self.cache.load(self.keys.stage(stage), &mut warn)?)
    }

    fn result(&self, stage: Stage) -> Result<&Entry, Fault> {
        self.results
            .iter()
            .find(|(done, _)| *done == stage)
            .map(|(_, entry)| entry)
            .ok_or_else(|| Fault::Failed(format!("{stage} has no result although it is done")))
    }

    fn remember_duration(&mut self, stage: Stage, entry: &Entry) {
        if matches!(stage, Stage::Verify | Stage::Settle | Stage::Publish) || jobs::was_cached(entry) {
            return;
        }
        let sample = Sample { millis: entry.millis, cycles: jobs::cycles(entry) };
        self.durations.record(stage.kind(), sample);
        if let Err(error) = self.durations.save(&self.cache.root().join("history.json")) {
            self.view.note(&format!("warning: durations are not remembered: {error}"));
        }
        let remaining: Vec<_> = self.request_plan().into_iter().enumerate().collect();
        for (at, later) in remaining {
            let expected = self.durations.estimate(later.kind(), jobs::cycles_of(self, later));
            self.view.expect(at, expected);
        }
    }

    fn request_plan(&self) -> Vec<Stage> {
        let runs = u32::try_from(self.request.job.runs.len()).unwrap_or(u32::MAX);
        Plan::new(runs, self.request.until).nodes().iter().map(|node| node.stage).collect()
    }
}

fn board(request: &Request, plan: &Plan, durations: &Durations) -> Board {
    let summary = &request.job.summary;
    let title = format!(
        "batch {}: chain {}, blocks {} to {}, {} transactions, {} gas, {} run(s)",
        summary.id,
        summary.chain_id,
        summary.first_block,
        summary.last_block,
        summary.transactions,
        summary.gas,
        request.job.runs.len()
    );
    let stages = plan.nodes().iter().map(|node| {
        let name = node.stage.to_string();
        (name, durations.estimate(node.stage.kind(), 0))
    });
    Board::new(title, stages.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
