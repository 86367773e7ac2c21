//! Submissions: quotas, the place in the chain, and what becomes of the stored payload.

use assay_schedule::{Error, Event, TenantId, Time};

use super::{Applied, Fact, Outcome, Refusal, Reply, StaleHold, State};
use crate::request::{Quota, Submit};

impl State {
    pub(super) fn submit(&mut self, submit: &Submit, read: Time, applied: &mut Applied) -> Outcome {
        let outcome = self.try_submit(submit, read, applied);
        if !self.needs_payload(submit) {
            // Refused or a repetition: the submission's own hold on the payload is left over.
            applied.stale.push(StaleHold::Payload(submit.spec(0).holder()));
        }
        outcome
    }

    fn try_submit(&mut self, submit: &Submit, read: Time, applied: &mut Applied) -> Outcome {
        if let Some(batch) = self.machine.batch_by_key(submit.tenant, &submit.key) {
            // The schedule compares the repetition with the original, which has its number already.
            let same = self.histories.get(&batch).filter(|history| history.callback == submit.callback);
            let sequence = same.ok_or(Error::KeyReused { batch })?.spec.sequence;
            self.event(&Event::Submit { spec: submit.spec(sequence) }, read, applied)?;
            return Ok(Reply::Submitted { batch, is_repeated: true });
        }
        if !submit.is_stored {
            return Err(Refusal::NotStored);
        }
        self.check_quota(submit.tenant, &submit.quota, submit.payload_bytes)?;
        let sequence = self.machine.chain(submit.chain).map_or(0, |chain| chain.next);
        self.event(&Event::Submit { spec: submit.spec(sequence) }, read, applied)?;
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

    /// Whether a tenant may have one more batch in work, of this size.
    pub(crate) fn check_quota(&self, tenant: TenantId, quota: &Quota, bytes: u64) -> Result<(), Refusal> {
        let live = || self.histories.values().filter(|h| h.spec.tenant == tenant && h.ended.is_none());
        if live().count() as u64 >= u64::from(quota.batches_max) {
            return Err(Refusal::Quota { what: "batches", max: quota.batches_max.into() });
        }
        let bytes = live().map(|history| history.spec.payload_bytes).fold(bytes, u64::saturating_add);
        if bytes > quota.bytes_max {
            return Err(Refusal::Quota { what: "bytes", max: quota.bytes_max });
        }
        Ok(())
    }

    /// Whether a batch in work needs the payload as this submission has stored it: it has become that batch, now or when it
    /// arrived for the first time.
    fn needs_payload(&self, submit: &Submit) -> bool {
        let Some(batch) = self.machine.batch_by_key(submit.tenant, &submit.key) else { return false };
        let is_its = self.histories.get(&batch).is_some_and(|history| history.spec.intake == submit.intake());
        is_its && self.machine.phase(batch).is_some_and(|phase| !phase.is_terminal())
    }
}
