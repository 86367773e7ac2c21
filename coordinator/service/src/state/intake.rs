//! Submissions: quotas, the place in the chain, and what becomes of the stored payload.

use assay_schedule::{Error, Event, Time};

use super::{Applied, Fact, Outcome, Refusal, Reply, StaleHold, State};
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
        let sequence = self.machine.chain(submit.chain).map_or(0, |chain| chain.next);
        self.event(&Event::Submit { spec: submit.spec(sequence) }, at, applied)?;
        let batch = self
            .machine
            .batch_by_key(submit.tenant, &submit.key)
            .expect("the schedule has just taken a batch under this key");
        if let Some(history) = self.histories.get_mut(&batch) {
            history.callback.clone_from(&submit.callback);
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

    /// Whether a batch in work needs the payload that this submission has stored.
    fn needs_payload(&self, submit: &Submit) -> bool {
        let batch = self.machine.batch_by_key(submit.tenant, &submit.key);
        let phase = batch.and_then(|batch| self.machine.phase(batch));
        phase.is_some_and(|phase| !phase.is_terminal())
    }
}
