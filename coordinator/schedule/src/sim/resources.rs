//! What coordinators work on: the store, verification, settlement.

use super::oracle::{content_of, hash_of, proofs, right_outputs};
use super::world::{Msg, Outcome, World};
use super::{Fault, Weakness};
use crate::{Action, Artifact, BatchId, Effect, Event, Hash, Holder, Input, Kind, Verdict, Work};

impl World {
    /// Does a piece of work and answers. Fenced by nothing but its own idempotence: a deposed leader's work still happens.
    pub(super) fn carry(&mut self, by: usize, life: u64, effect: Effect) -> Outcome {
        let coordinator = &self.coordinators[by];
        if coordinator.life != life || coordinator.down_until > self.now {
            return Ok(());
        }
        if coordinator.paused_until > self.now || self.is_store_down() {
            let until = coordinator.paused_until.max(self.down_until).max(self.store_down_until);
            let wait = until - self.now + 1;
            self.send(wait, Msg::Carry { by, life, effect });
            return Ok(());
        }
        let id = effect.id;
        let Action::Work(work) = &effect.action else {
            return Err(format!("message {id} is taken for work"));
        };
        let event = match work {
            Work::Verify { stage, inputs, outputs, .. } => {
                Event::Verified { effect: id, verdict: self.verify(stage.kind(), inputs, outputs) }
            }
            Work::Audit { artifact, .. } => {
                let verdict = match self.read(&[*artifact]) {
                    Some(hashes) => Verdict::Read { hashes, valid: true },
                    None => Verdict::Missing,
                };
                Event::Verified { effect: id, verdict }
            }
            Work::Check { proof, .. } => {
                let expected = self.statement(by, effect.batch);
                let verdict = self.read(&[*proof]).map_or(Verdict::Missing, |hashes| Verdict::Read {
                    valid: expected.is_some_and(|expected| hashes[0] == hash_of(expected)),
                    hashes,
                });
                Event::Verified { effect: id, verdict }
            }
            Work::Settle { chain, sequence, proof } => {
                match self.settle(by, effect.batch, (chain.0, *sequence), *proof)? {
                    true => Event::Settled { effect: id },
                    false => {
                        Event::SettleFailed { effect: id, permanent: false, reason: "mempool full".into() }
                    }
                }
            }
            Work::Release { artifacts } => {
                for artifact in artifacts {
                    self.store.remove(&artifact.holder);
                }
                Event::Done { effects: vec![id] }
            }
            Work::Fence { attempts } => {
                self.fenced.extend(attempts);
                self.store
                    .retain(|holder, _| !matches!(holder, Holder::Attempt(of, _) if attempts.contains(of)));
                Event::Done { effects: vec![id] }
            }
        };
        let delay = self.latency();
        if self.fails(Fault::Twice, 20) {
            self.send(delay + 400, Msg::Answer { to: by, life, event: event.clone() });
        }
        self.send(delay, Msg::Answer { to: by, life, event });
        Ok(())
    }

    pub(super) fn read(&self, artifacts: &[Artifact]) -> Option<Vec<Hash>> {
        artifacts.iter().map(|artifact| self.store.get(&artifact.holder).map(|blob| blob.content)).collect()
    }

    /// Proofs are verified by what is read; a witness can only be compared with its name.
    fn verify(&self, kind: Kind, inputs: &[Input], outputs: &[Artifact]) -> Verdict {
        let Some(hashes) = self.read(outputs) else { return Verdict::Missing };
        let inputs: Vec<u64> = inputs.iter().map(|input| content_of(input.artifact.hash)).collect();
        let expected = right_outputs(kind, &inputs).into_iter().map(hash_of);
        let valid = match kind {
            Kind::Execute => expected.eq(outputs.iter().map(|output| output.hash)),
            _ => expected.eq(hashes.iter().copied()),
        };
        Verdict::Read { hashes, valid }
    }

    /// The only right proof of a batch.
    fn statement(&self, by: usize, batch: BatchId) -> Option<u64> {
        let spec = self.coordinators[by].machine.as_ref()?.status(batch)?.spec;
        let previous = match spec.sequence {
            0 => None,
            sequence => Some(self.right_fold(by, spec.chain.0, sequence - 1)?),
        };
        Some(proofs(content_of(spec.payload), previous).1)
    }

    fn right_fold(&self, by: usize, chain: u64, sequence: u64) -> Option<u64> {
        if let Some(fold) = self.folds.get(&chain).and_then(|folds| folds.get(sequence as usize)) {
            return Some(*fold);
        }
        // Not settled yet: its batch is in work.
        let machine = self.coordinators[by].machine.as_ref()?;
        let live = machine.batches().filter(|(_, phase)| !phase.is_terminal());
        let mut specs = live.filter_map(|(id, _)| machine.status(id)).map(|status| status.spec);
        let spec = specs.find(|spec| spec.chain.0 == chain && spec.sequence == sequence)?;
        let previous = match sequence {
            0 => None,
            sequence => Some(self.right_fold(by, chain, sequence - 1)?),
        };
        Some(proofs(content_of(spec.payload), previous).0)
    }

    fn settle(
        &mut self,
        by: usize,
        batch: BatchId,
        place: (u64, u64),
        proof: Artifact,
    ) -> Result<bool, String> {
        if self.settled.get(&place) == Some(&batch) && !self.lacks(Weakness::Settlement) {
            return Ok(true);
        }
        let is_damaged = self.read(&[proof]).is_none_or(|hashes| hashes[0] != proof.hash);
        if self.fails(Fault::Refused, 50) || (is_damaged && !self.lacks(Weakness::Checksum)) {
            return Ok(false);
        }
        if let Some(other) = self.settled.get(&place) {
            return Err(format!("{place:?} is settled by batch {other} and again by {batch}"));
        }
        let Some(expected) = self.statement(by, batch) else {
            return Err(format!("batch {batch} is settled without a past"));
        };
        if proof.hash != hash_of(expected) {
            return Err(format!("batch {batch} is settled with a wrong proof"));
        }
        let machine = self.coordinators[by].machine.as_ref().ok_or("a dead coordinator settles")?;
        let payload = machine.status(batch).ok_or("an unknown batch is settled")?.spec.payload;
        let folds = self.folds.entry(place.0).or_default();
        if folds.len() as u64 != place.1 {
            return Err(format!("{place:?} is settled out of order"));
        }
        folds.push(proofs(content_of(payload), folds.last().copied()).0);
        self.settled.insert(place, batch);
        Ok(true)
    }
}
