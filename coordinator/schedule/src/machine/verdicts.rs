//! What the coordinator's own checks say about results and about inputs that are called lost.

use super::results::{shorten, Setback};
use super::Machine;
use crate::batch::{Failure, Need};
use crate::mark::mark;
use crate::worker::AttemptPhase;
use crate::{Action, Artifact, AttemptId, BatchId, EffectId, Error, Hash, Phase, Stage, Verdict, Work};

impl Machine {
    pub(super) fn verified(&mut self, effect: EffectId, verdict: Verdict) -> Result<(), Error> {
        let pending = self.pending.get(&effect).ok_or(Error::UnknownEffect { effect })?;
        let id = pending.batch;
        match &pending.action {
            Action::Work(Work::Verify { attempt, outputs, .. }) => {
                let (attempt, outputs) = (*attempt, outputs.clone());
                self.judge(attempt, &outputs, &verdict, effect)
            }
            Action::Work(Work::Audit { artifact, attempt }) => {
                let (artifact, attempt) = (*artifact, *attempt);
                let is_intact =
                    matches!(&verdict, Verdict::Read { hashes, .. } if self.is_intact(&[artifact], hashes));
                match self.audits.remove(&effect) {
                    Some((batch, part)) => {
                        self.drop_effect(effect);
                        self.part_audited(batch, part, is_intact);
                        Ok(())
                    }
                    None => self.audited(attempt, artifact, is_intact, effect),
                }
            }
            Action::Work(Work::Check { proof, .. }) => {
                let proof = *proof;
                self.checked(id, proof, &verdict, effect);
                Ok(())
            }
            _ => Err(Error::WrongAnswer { effect }),
        }
    }

    /// Whether what was read is what was claimed.
    fn is_intact(&self, artifacts: &[Artifact], hashes: &[Hash]) -> bool {
        #[cfg(feature = "simulate")]
        if self.weak.checksum {
            return true;
        }
        artifacts.iter().map(|artifact| artifact.hash).eq(hashes.iter().copied())
    }

    fn judge(
        &mut self,
        id: AttemptId,
        claimed: &[Artifact],
        verdict: &Verdict,
        effect: EffectId,
    ) -> Result<(), Error> {
        let (batch, node, worker) = self.place(id);
        let attempt = self.attempts.get_mut(&id).expect("a verification is dropped with its attempt");
        let AttemptPhase::Verifying { outputs, elapsed_ms, .. } = &mut attempt.phase else {
            return Err(Error::WrongAnswer { effect });
        };
        let (outputs, elapsed_ms) = (std::mem::take(outputs), *elapsed_ms);
        self.drop_effect(effect);
        match verdict {
            Verdict::Read { hashes, .. } if !self.is_intact(claimed, hashes) => {
                self.retry(id, Setback::Failure("an output does not hash to its name".into()));
            }
            Verdict::Read { valid: true, .. } => self.accept(id, &outputs, elapsed_ms),
            Verdict::Read { .. } => {
                self.retry(id, Setback::Wrong);
                let is_live = self.batches.get(&batch).is_some_and(|batch| batch.nodes.contains_key(&node));
                if is_live && self.node(batch, node).controller.is_some() {
                    self.distrust(batch, node, worker);
                }
                self.strike(worker);
            }
            Verdict::Missing => self.retry(id, Setback::Failure("an output was not published".into())),
            Verdict::Incomparable { reason } => {
                mark("result not comparable");
                // Who made it may have done what was asked of it: no strike.
                let reason = shorten(format!("the result cannot be checked: {reason}"));
                if self.is_anothers_fault(batch, node) {
                    // Or lie: one alone proves nothing against who asked for it.
                    self.condemn(id, reason);
                } else {
                    self.retry(id, Setback::Failure(reason));
                }
            }
        }
        Ok(())
    }

    fn audited(
        &mut self,
        id: AttemptId,
        artifact: Artifact,
        is_intact: bool,
        effect: EffectId,
    ) -> Result<(), Error> {
        let AttemptPhase::Auditing { input, .. } = self.attempts[&id].phase else {
            return Err(Error::WrongAnswer { effect });
        };
        self.drop_effect(effect);
        let (batch, node, _) = self.place(id);
        if is_intact {
            self.retry(id, Setback::Failure("could not read an input that is intact".into()));
            return Ok(());
        }
        match self.node(batch, node).needs[input as usize] {
            Need::Given(_) => self.lose_input(batch, node, artifact),
            Need::Output { node: producer, .. } => {
                mark("output lost");
                self.lose(batch, producer);
            }
            Need::Payload => self.reject(batch, node, "the payload is lost".into()),
            Need::PreviousFold => {
                let spec = &self.batch(batch).spec;
                let before = self.chains[&spec.chain].live.get(&(spec.sequence - 1)).copied();
                match before.and_then(|before| Some((before, self.batch(before).fold?))) {
                    Some((before, fold)) => {
                        mark("fold proof lost");
                        self.lose(before, fold);
                    }
                    None => self.lose_history(batch),
                }
            }
        }
        Ok(())
    }

    /// A finished task's output is lost.
    fn lose(&mut self, id: BatchId, node: u32) {
        self.lose_once(id, node);
        // One that is being settled does not end for it, but whoever reads the output has to know that it is gone.
        if !self.batch(id).phase.is_terminal() {
            self.redo(id, node);
            self.release_successor(id);
        }
    }

    /// After a fold proof was lost: the next batch's fold waits again, unless it is done.
    fn release_successor(&mut self, id: BatchId) {
        let Some((next, fold)) = self.successor_fold(id) else { return };
        if self.batch(id).fold_proof().is_none() {
            self.interrupt(next, fold);
        }
        self.refresh(next, fold);
    }

    /// The fold of the batch after this one.
    pub(super) fn successor_fold(&self, id: BatchId) -> Option<(BatchId, u32)> {
        let spec = &self.batch(id).spec;
        let next = self.chains.get(&spec.chain)?.live.get(&(spec.sequence + 1)).copied()?;
        Some((next, self.batch(next).fold?))
    }

    fn checked(&mut self, id: BatchId, proof: Artifact, verdict: &Verdict, effect: EffectId) {
        self.drop_effect(effect);
        self.batch_mut(id).own = None;
        match verdict {
            Verdict::Read { hashes, valid: true } if self.is_intact(&[proof], hashes) => {
                self.enter(id, Phase::Proved);
                self.settle_next(id);
            }
            Verdict::Read { hashes, valid: false } if self.is_intact(&[proof], hashes) => {
                self.end(id, Phase::Failed(Failure::Statement));
            }
            Verdict::Incomparable { reason } => {
                mark("proof not comparable");
                let reason = shorten(format!("the proof cannot be checked: {reason}"));
                self.end(id, Phase::Failed(Failure::Rejected { stage: Stage::Groth16, reason }));
            }
            _ if self.batch(id).gave_up => {
                let reason = "the proof was lost before it was settled".into();
                self.end(id, Phase::Failed(Failure::Settlement { reason }));
            }
            _ => {
                mark("proof lost");
                if let Some(last) = self.batch(id).groth16 {
                    self.lose(id, last);
                }
            }
        }
    }
}
