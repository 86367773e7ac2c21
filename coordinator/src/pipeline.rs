//! The way of one batch, as a pure state machine.
//!
//! [`State::step`] takes an [`Event`] and returns the [`Effect`]s to carry out. It reads no clock, file or environment,
//! so the same events always give the same states and effects. A state holds the effects that were issued and not yet
//! answered: storing the state before carrying them out ("write ahead") is all a shell has to do to survive being
//! killed at any moment, because every effect is idempotent (it first looks into the cache).
//!
//! ```text
//!            Start                     Done (last stage)
//!   Idle ───────────▶ Active ────────────────────────────▶ Complete
//!                     │  ▲ │ Failed, or a stage lost too often
//!          Resume,    │  │ ├──────────────────────────────▶ Failed
//!          Done, Lost └──┘ │ Cancel
//!                          └──────────────────────────────▶ Cancelled
//! ```
//! Reading order: [`Plan`], [`State`], [`State::step`].

mod plan;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use plan::{Node, Plan, Stage, Until};

/// How often one stage's artifact may get lost before the pipeline gives up (a broken disk must not loop for ever).
pub const LOSSES_MAX: u8 = 3;

/// Where the result of a stage came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Computed by this run of the pipeline.
    Computed,
    /// Found in the cache.
    Cache,
}

/// What a finished stage left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// BLAKE3 of the artifact's payload, in hex.
    pub artifact: String,
    /// Cache key of the artifact, in hex; `None` for a stage whose result is not cached.
    pub key: Option<String>,
    /// Whether it was computed or found.
    pub origin: Origin,
    /// Wall-clock time of the computation (also when found: the time it took then).
    pub millis: u64,
    /// Highest resident memory of the process that computed it, 0 if unknown.
    pub peak_bytes: u64,
}

/// One request to the shell. Carrying it out twice does the work at most once, because results are kept by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Identifies the effect within this pipeline; the answer carries it.
    pub id: u64,
    /// The stage to produce.
    pub stage: Stage,
    /// The finished stages it reads, in the plan's order, with their artifact hashes.
    pub inputs: Vec<(Stage, String)>,
}

/// What the shell reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Begin.
    Start,
    /// The process was started again: issue the unanswered effects once more.
    Resume,
    /// An effect was carried out.
    Done {
        /// The effect that is answered.
        effect: u64,
        /// Its result.
        outcome: Outcome,
    },
    /// An effect failed for good.
    Failed {
        /// The effect that is answered.
        effect: u64,
        /// One line for the user.
        reason: String,
    },
    /// While `effect` was carried out, the artifact of the finished `stage` turned out missing or corrupt.
    Lost {
        /// The effect that is answered; it will be issued again once its inputs are back.
        effect: u64,
        /// The stage to be done again.
        stage: Stage,
    },
    /// The user wants to stop.
    Cancel,
}

/// Where the pipeline stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not started.
    Idle,
    /// Effects are outstanding.
    Active,
    /// Every stage is done. Terminal.
    Complete,
    /// A stage failed. Terminal.
    Failed {
        /// The stage.
        stage: Stage,
        /// One line for the user.
        reason: String,
    },
    /// Stopped by the user. Terminal.
    Cancelled,
}

impl Phase {
    /// Whether no event is accepted any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Phase::Complete | Phase::Failed { .. } | Phase::Cancelled)
    }
}

/// Where one stage stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its inputs are not there yet, or another stage has the machine.
    Waiting,
    /// Its effect is outstanding.
    Running,
    /// Finished.
    Done(Outcome),
}

/// A stage's status and how often its artifact was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where the stage stands.
    pub status: Status,
    /// How often its finished artifact was lost.
    pub losses: u8,
}

/// The whole pipeline: plan, progress and outstanding effects, stored together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    plan: Plan,
    records: Vec<Record>,
    phase: Phase,
    next_effect: u64,
    pending: Vec<Effect>,
}

/// An event that the pipeline does not accept; the state is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The pipeline has ended.
    #[error("the pipeline has ended and accepts no event")]
    Terminal,
    /// `Start` came twice, or another event came before it.
    #[error("the pipeline is not in the phase that this event needs")]
    WrongPhase,
    /// No such effect is outstanding.
    #[error("effect {id} is not outstanding")]
    UnknownEffect {
        /// The id of the answer.
        id: u64,
    },
    /// `Lost` names a stage that the effect does not read, or that is not finished.
    #[error("stage {stage} is no finished input of effect {effect}")]
    NotAnInput {
        /// The stage that was named.
        stage: Stage,
        /// The effect that was named.
        effect: u64,
    },
}

impl State {
    /// A pipeline that has not begun.
    pub fn new(plan: Plan) -> Self {
        let records = plan.nodes().iter().map(|_| Record { status: Status::Waiting, losses: 0 }).collect();
        Self { plan, records, phase: Phase::Idle, next_effect: 0, pending: Vec::new() }
    }

    /// Where the pipeline stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What is to be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Effects that were issued and not answered.
    pub fn pending(&self) -> &[Effect] {
        &self.pending
    }

    /// Where `stage` stands; `None` if the plan does not hold it.
    pub fn status(&self, stage: Stage) -> Option<&Status> {
        self.plan.position(stage).map(|at| &self.records[at].status)
    }

    /// The result of `stage`, if it is finished.
    pub fn outcome(&self, stage: Stage) -> Option<&Outcome> {
        match self.status(stage) {
            Some(Status::Done(outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// Stages and their status, in the plan's order.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, &Status)> {
        self.plan.nodes().iter().zip(&self.records).map(|(node, record)| (node.stage, &record.status))
    }

    /// Takes one event and returns the effects to carry out now.
    ///
    /// # Errors
    /// [`StepError`]; the state is then unchanged.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, StepError> {
        if self.phase.is_terminal() {
            return Err(StepError::Terminal);
        }
        if (self.phase == Phase::Idle) != (event == Event::Start) && event != Event::Cancel {
            return Err(StepError::WrongPhase);
        }
        match event {
            Event::Start => {
                self.phase = Phase::Active;
                Ok(self.advance())
            }
            Event::Resume => Ok(self.pending.clone()),
            Event::Done { effect, outcome } => {
                let effect = self.take_pending(effect)?;
                self.record_mut(effect.stage).status = Status::Done(outcome);
                Ok(self.advance())
            }
            Event::Failed { effect, reason } => {
                let effect = self.take_pending(effect)?;
                self.end(Phase::Failed { stage: effect.stage, reason });
                Ok(Vec::new())
            }
            Event::Lost { effect, stage } => self.lose(effect, stage),
            Event::Cancel => {
                self.end(Phase::Cancelled);
                Ok(Vec::new())
            }
        }
    }

    /// Puts a lost stage and everything built on it back to waiting.
    fn lose(&mut self, effect: u64, stage: Stage) -> Result<Vec<Effect>, StepError> {
        let at = self
            .pending
            .iter()
            .position(|e| e.id == effect)
            .ok_or(StepError::UnknownEffect { id: effect })?;
        let is_input = self.pending[at].inputs.iter().any(|(input, _)| *input == stage);
        if !is_input || self.outcome(stage).is_none() {
            return Err(StepError::NotAnInput { stage, effect });
        }
        let losses = self.record_mut(stage).losses.saturating_add(1);
        self.record_mut(stage).losses = losses;
        if losses > LOSSES_MAX {
            self.end(Phase::Failed {
                stage,
                reason: format!("its artifact was lost {losses} times: check the disk"),
            });
            return Ok(Vec::new());
        }
        for back in self.plan.dependents(stage) {
            self.record_mut(back).status = Status::Waiting;
            self.pending.retain(|e| e.stage != back);
        }
        self.record_mut(stage).status = Status::Waiting;
        Ok(self.advance())
    }

    /// Issues what can be done now, or ends the pipeline if nothing is left.
    ///
    /// One stage at a time has the machine: each of them fills the memory it is given.
    fn advance(&mut self) -> Vec<Effect> {
        if !self.pending.is_empty() {
            return Vec::new();
        }
        let ready = self.plan.nodes().iter().enumerate().find_map(|(at, node)| {
            if !matches!(self.records[at].status, Status::Waiting) {
                return None;
            }
            let inputs: Option<Vec<_>> = node
                .needs
                .iter()
                .map(|need| self.outcome(*need).map(|outcome| (*need, outcome.artifact.clone())))
                .collect();
            inputs.map(|inputs| (at, node.stage, inputs))
        });
        let Some((at, stage, inputs)) = ready else {
            // A plan has no cycles, so with nothing ready and nothing pending everything is done.
            self.end(Phase::Complete);
            return Vec::new();
        };
        let effect = Effect { id: self.next_effect, stage, inputs };
        self.next_effect += 1;
        self.records[at].status = Status::Running;
        self.pending.push(effect.clone());
        vec![effect]
    }

    fn end(&mut self, phase: Phase) {
        for record in &mut self.records {
            if record.status == Status::Running {
                record.status = Status::Waiting;
            }
        }
        self.pending.clear();
        self.phase = phase;
    }

    fn take_pending(&mut self, id: u64) -> Result<Effect, StepError> {
        let at = self.pending.iter().position(|e| e.id == id).ok_or(StepError::UnknownEffect { id })?;
        Ok(self.pending.remove(at))
    }

    fn record_mut(&mut self, stage: Stage) -> &mut Record {
        let at = self.plan.position(stage).expect("effects and dependents name stages of the plan");
        &mut self.records[at]
    }
}
