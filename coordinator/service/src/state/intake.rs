//! Submissions: quotas, the place in the chain, and what becomes of the stored payload.

use assay_schedule::{ChainId, Error, Event, Hash, Spec, Time};

use super::{Applied, Fact, History, Outcome, Refusal, Reply, StaleHold, State, LINKS_MAX};
use crate::request::Submit;

impl State {
    pub(super) fn submit(&mut self, submit: &Submit, at: Time, applied: &mut Applied) -> Outcome {
        let outcome = self.try_submit(submit, at, applied);
        if !self.needs_payload(submit) {
            // Refused, or a repetition after the batch's end: the submission's own hold on the payload is left over.
            applied.stale.push(StaleHold::Payload(submit.spec(0).holder()));
        }
        outcome
    }

    fn try_submit(&mut self, submit: &Submit, at: Time, applied: &mut Applied) -> Outcome {
        if let Some(batch) = self.machine.batch_by_key(submit.tenant, &submit.key) {
            // The schedule compares the repetition with the original, which has its number already.
            let same = self.histories.get(&batch).filter(|history| history.callback == submit.callback);
            let sequence = same.ok_or(Error::KeyReused { batch })?.spec.sequence;
            self.event(&Event::Submit { spec: submit.spec(sequence) }, at, applied)?;
            return Ok(Reply::Submitted { batch, is_repeated: true });
        }
        self.check_quota(submit)?;
        let sequence = self.next_sequence(submit, at)?;
        self.check_link(submit, sequence)?;
        self.event(&Event::Submit { spec: submit.spec(sequence) }, at, applied)?;
        let batch = self
            .machine
            .batch_by_key(submit.tenant, &submit.key)
            .expect("the schedule has just taken a batch under this key");
        if let Some(history) = self.histories.get_mut(&batch) {
            history.callback.clone_from(&submit.callback);
        }
        let links = self.links.entry(submit.chain).or_default();
        // Batches after this one are there only from before a failure.
        links.split_off(&sequence);
        links.insert(sequence, submit.to);
        while links.len() > LINKS_MAX {
            links.pop_first();
        }
        applied.facts.push(Fact::Submitted);
        Ok(Reply::Submitted { batch, is_repeated: false })
    }

    fn check_quota(&self, submit: &Submit) -> Result<(), Refusal> {
        let live = || self.histories.values().filter(|h| h.spec.tenant == submit.tenant && h.ended.is_none());
        if live().count() as u64 >= u64::from(submit.quota.batches_max) {
            return Err(Refusal::Quota { what: "batches", max: submit.quota.batches_max.into() });
        }
        let bytes =
            live().map(|history| history.spec.payload_bytes).fold(submit.payload_bytes, u64::saturating_add);
        if bytes > submit.quota.bytes_max {
            return Err(Refusal::Quota { what: "bytes", max: submit.quota.bytes_max });
        }
        Ok(())
    }

    /// Asks the schedule for the number that comes next, with one that cannot come next.
    fn next_sequence(&mut self, submit: &Submit, at: Time) -> Result<u64, Refusal> {
        match self.machine.step(Event::Submit { spec: submit.spec(u64::MAX) }, at) {
            Err(Error::Sequence { expected, .. }) => Ok(expected),
            Err(error) => Err(error.into()),
            Ok(_) => unreachable!("no chain has 2^64 batches"),
        }
    }

    fn check_link(&self, submit: &Submit, sequence: u64) -> Result<(), Refusal> {
        let before = sequence.checked_sub(1).and_then(|before| self.link(submit.chain, before));
        match before {
            Some(before) if before != submit.from => Err(Refusal::Link { chain: submit.chain, sequence }),
            _ => Ok(()),
        }
    }

    fn link(&self, chain: ChainId, sequence: u64) -> Option<Hash> {
        self.links.get(&chain)?.get(&sequence).copied()
    }

    /// Whether a batch in work needs the payload that this submission has stored.
    fn needs_payload(&self, submit: &Submit) -> bool {
        let batch = self.machine.batch_by_key(submit.tenant, &submit.key);
        let phase = batch.and_then(|batch| self.machine.phase(batch));
        phase.is_some_and(|phase| !phase.is_terminal())
    }

    pub(super) fn begin_history(&mut self, spec: &Spec, at: Time) {
        let Some(batch) = self.machine.batch_by_key(spec.tenant, &spec.key) else { return };
        self.histories.entry(batch).or_insert_with(|| History::new(spec.clone(), at));
    }
}
