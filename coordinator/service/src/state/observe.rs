//! What a step of the schedule means for histories and metrics.

use assay_schedule::{
    Action, AttemptId, BatchId, Dispatch, Effect, EffectId, Event, Message, Phase, Report, Time, Verdict,
    Work,
};

use super::{Applied, AttemptState, Callback, Fact, History, Open, Span, State, What, SPANS_MAX};

/// Ended batches whose attempts are kept; those of older ones are dropped.
const WITH_SPANS_MAX: usize = 64;

impl State {
    /// Notices what an event that the schedule has taken has changed.
    pub(super) fn observe(&mut self, event: &Event, effects: &[Effect], at: Time, applied: &mut Applied) {
        match event {
            Event::Submit { spec } => {
                if let Some(batch) = self.machine.batch_by_key(spec.tenant, &spec.key) {
                    self.histories.entry(batch).or_insert_with(|| History::new(spec.clone(), at));
                }
            }
            Event::Result { attempt, report, .. } => {
                let state = match report {
                    Report::Finished { .. } => AttemptState::Reported,
                    _ => AttemptState::Failed,
                };
                self.mark(*attempt, state, at, applied);
            }
            Event::Verified { effect, verdict } => self.judged(*effect, verdict, at, applied),
            _ => {}
        }
        for effect in effects {
            self.issued(effect, at, applied);
        }
    }

    fn issued(&mut self, effect: &Effect, at: Time, applied: &mut Applied) {
        match &effect.action {
            Action::Message(Message::Dispatch(dispatch)) => self.begin(dispatch, at),
            Action::Message(Message::Revoke { attempt, .. }) => {
                self.mark(*attempt, AttemptState::Revoked, at, applied);
            }
            Action::Message(Message::Notify { phase }) => self.enter(effect.batch, phase, at, applied),
            Action::Work(Work::Verify { attempt, .. }) => {
                self.verifying.insert(effect.id, *attempt);
            }
            Action::Work(Work::Fence { attempts }) => {
                for attempt in attempts {
                    self.mark(*attempt, AttemptState::Revoked, at, applied);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, dispatch: &Dispatch, at: Time) {
        let Dispatch { attempt, worker, session, batch, stage, .. } = *dispatch;
        let Some(history) = self.histories.get_mut(&batch) else { return };
        let span = history.spans.len() as u32;
        if !history.tried.insert(stage) {
            history.retries = history.retries.saturating_add(1);
        }
        if history.spans.len() < SPANS_MAX {
            let state = AttemptState::Running;
            history.spans.push(Span {
                attempt,
                stage,
                worker,
                started: at,
                reported: None,
                ended: None,
                state,
            });
        } else {
            history.spans_dropped += 1;
        }
        history.running += 1;
        history.note(at, What::Attempt { attempt, stage, worker, state: AttemptState::Running });
        self.open.insert(attempt, Open { batch, span, worker, session, stage, started: at });
    }

    /// The coordinator's verdict on an attempt's result; a verdict on something else names no attempt.
    fn judged(&mut self, effect: EffectId, verdict: &Verdict, at: Time, applied: &mut Applied) {
        let Some(attempt) = self.verifying.remove(&effect) else { return };
        // As the coordinator's own work answers it: what does not hash to its name is never valid.
        let state = match verdict {
            Verdict::Read { valid: true, .. } => AttemptState::Accepted,
            Verdict::Read { .. } => AttemptState::Rejected,
            Verdict::Missing | Verdict::Incomparable { .. } => AttemptState::Failed,
        };
        self.mark(attempt, state, at, applied);
    }

    /// Puts an attempt into a state. One that has ended stays as it is.
    fn mark(&mut self, attempt: AttemptId, state: AttemptState, at: Time, applied: &mut Applied) {
        let Some(open) = self.open.get(&attempt).copied() else { return };
        let Open { batch, span, worker, stage, started, .. } = open;
        let mut reported = None;
        if let Some(history) = self.histories.get_mut(&batch) {
            if let Some(span) = history.spans.get_mut(span as usize).filter(|span| span.attempt == attempt) {
                if state == AttemptState::Reported {
                    span.reported = Some(at);
                }
                reported = span.reported;
                span.state = state;
                span.ended = state.is_terminal().then_some(at);
            }
            if state.is_terminal() {
                history.running = history.running.saturating_sub(1);
                if state == AttemptState::Accepted {
                    history.accepted += 1;
                    history.taken.insert(attempt);
                }
            }
            history.note(at, What::Attempt { attempt, stage, worker, state });
        }
        if state.is_terminal() {
            self.open.remove(&attempt);
            if state == AttemptState::Revoked {
                // A verdict, which all other ends of a verification are, has taken its entry away.
                self.verifying.retain(|_, other| *other != attempt);
            }
            let elapsed_ms = reported.unwrap_or(at).since(started);
            let device = self.device(worker);
            applied.facts.push(Fact::Attempt { kind: stage.kind(), worker, device, state, elapsed_ms });
        }
    }

    /// A batch is in another phase.
    fn enter(&mut self, batch: BatchId, phase: &Phase, at: Time, applied: &mut Applied) {
        let Some(history) = self.histories.get_mut(&batch) else { return };
        history.phase = phase.clone();
        history.note(at, What::Phase(phase.clone()));
        if !phase.is_terminal() {
            return;
        }
        history.ended = Some(at);
        history.tried.clear();
        let elapsed_ms = at.since(history.submitted);
        applied.facts.push(Fact::Ended { phase: phase_name(phase), elapsed_ms });
        if let Some(url) = history.callback.clone() {
            let callback = Callback { url, tenant: history.spec.tenant, tries: 0, due: at };
            self.callbacks.insert(batch, callback);
        }
        self.with_spans.push_back(batch);
        if self.with_spans.len() > WITH_SPANS_MAX {
            let oldest = self.with_spans.pop_front();
            if let Some(history) = oldest.and_then(|id| self.histories.get_mut(&id)) {
                history.shorten();
            }
        }
    }
}

/// Names of all phases.
pub const PHASES: [&str; 8] =
    ["proving", "checking", "proved", "settling", "refolding", "settled", "failed", "cancelled"];

/// Name of a phase in JSON and metrics.
pub fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Proving => "proving",
        Phase::Checking => "checking",
        Phase::Proved => "proved",
        Phase::Settling => "settling",
        Phase::Refolding => "refolding",
        Phase::Settled => "settled",
        Phase::Failed(_) => "failed",
        Phase::Cancelled => "cancelled",
    }
}
