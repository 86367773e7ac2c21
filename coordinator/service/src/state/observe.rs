//! What a step of the schedule means for histories and metrics.

use std::collections::BTreeSet;

use assay_schedule::{
    Action, AttemptId, BatchId, Effect, EffectId, Event, Phase, Report, Stage, Time, Verdict, WorkerId,
};

use super::{Applied, AttemptState, Callback, Fact, Open, Span, State, What, SPANS_MAX};

/// Ended batches whose spans are kept; those of older ones are dropped.
const WITH_SPANS_MAX: usize = 64;

impl State {
    /// Notices what an event that the schedule has taken has changed.
    pub(super) fn observe(&mut self, event: &Event, effects: &[Effect], at: Time, applied: &mut Applied) {
        let mut touched: BTreeSet<BatchId> = effects.iter().map(|effect| effect.batch).collect();
        match event {
            Event::Submit { spec } => {
                self.begin_history(spec, at);
            }
            Event::Cancel { batch, .. } => {
                touched.insert(*batch);
            }
            Event::Result { attempt, report, .. } => {
                touched.extend(self.open.get(attempt).map(|open| open.batch));
                let state = match report {
                    Report::Finished { .. } => AttemptState::Reported,
                    _ => AttemptState::Failed,
                };
                self.mark(*attempt, state, at, applied);
            }
            Event::Verified { effect, verdict } => {
                touched.extend(self.judged(*effect, verdict, effects, at, applied));
            }
            // Settlements: the batch is not named.
            Event::Settled { .. } | Event::SettleFailed { .. } | Event::Tick => {
                touched.extend(self.histories.iter().filter(|(_, h)| h.ended.is_none()).map(|(id, _)| *id));
            }
            _ => {}
        }
        for effect in effects {
            self.issued(effect, at, applied);
        }
        for batch in touched {
            self.follow_phase(batch, at, applied);
        }
    }

    fn issued(&mut self, effect: &Effect, at: Time, applied: &mut Applied) {
        match &effect.action {
            Action::Dispatch { attempt, worker, session, stage, .. } if !self.open.contains_key(attempt) => {
                self.begin(effect.batch, *attempt, (*worker, *session), *stage, at);
            }
            Action::Revoke { attempt, .. } => self.mark(*attempt, AttemptState::Revoked, at, applied),
            Action::Verify { attempt, .. } => {
                self.verifying.insert(effect.id, *attempt);
            }
            _ => {}
        }
    }

    fn begin(&mut self, batch: BatchId, attempt: AttemptId, to: (WorkerId, u64), stage: Stage, at: Time) {
        let Some(history) = self.histories.get_mut(&batch) else { return };
        let (worker, session) = to;
        let span = history.spans.len() as u32;
        if history.spans.iter().any(|span| span.stage == stage) {
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
    fn judged(
        &mut self,
        effect: EffectId,
        verdict: &Verdict,
        effects: &[Effect],
        at: Time,
        applied: &mut Applied,
    ) -> Option<BatchId> {
        let attempt = self.verifying.remove(&effect)?;
        let batch = self.open.get(&attempt)?.batch;
        let is_refused = effects.iter().any(
            |effect| matches!(effect.action, Action::Revoke { attempt: revoked, .. } if revoked == attempt),
        );
        let state = match (is_refused, verdict) {
            (false, _) => AttemptState::Accepted,
            (true, Verdict::Read { .. }) => AttemptState::Rejected,
            (true, _) => AttemptState::Failed,
        };
        self.mark(attempt, state, at, applied);
        Some(batch)
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
                history.accepted += u32::from(state == AttemptState::Accepted);
            }
            history.note(at, What::Attempt { attempt, stage, worker, state });
        }
        if state.is_terminal() {
            self.open.remove(&attempt);
            let elapsed_ms = reported.unwrap_or(at).since(started);
            let device = format!("worker {worker}");
            applied.facts.push(Fact::Attempt { kind: stage.kind(), worker, device, state, elapsed_ms });
        }
    }

    /// Notices that a batch is in another phase, and its end.
    fn follow_phase(&mut self, batch: BatchId, at: Time, applied: &mut Applied) {
        let Some(phase) = self.machine.phase(batch).cloned() else { return };
        let Some(history) = self.histories.get_mut(&batch).filter(|history| history.phase != phase) else {
            return;
        };
        history.phase = phase.clone();
        history.note(at, What::Phase(phase.clone()));
        if !phase.is_terminal() {
            return;
        }
        history.ended = Some(at);
        let elapsed_ms = at.since(history.submitted);
        applied.facts.push(Fact::Ended { phase: phase_name(&phase), elapsed_ms });
        if let Some(url) = history.callback.clone() {
            let callback = Callback { url, tenant: history.spec.tenant, tries: 0, due: at };
            self.callbacks.insert(batch, callback);
        }
        self.with_spans.push_back(batch);
        if self.with_spans.len() > WITH_SPANS_MAX {
            let oldest = self.with_spans.pop_front();
            if let Some(history) = oldest.and_then(|id| self.histories.get_mut(&id)) {
                history.spans_dropped += history.spans.len() as u64;
                history.spans = Vec::new();
                history.notices.drain(..history.notices.len().saturating_sub(1));
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
