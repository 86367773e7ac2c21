//! Batches come in and are cancelled.

use super::{Chain, Machine};
use crate::batch::Batch;
use crate::spec::TEXT_BYTES_MAX;
use crate::{Action, BatchId, Error, Message, Phase, Spec, TenantId};

impl Machine {
    pub(super) fn submit(&mut self, spec: Spec) -> Result<(), Error> {
        if spec.key.len() > TEXT_BYTES_MAX {
            return Err(Error::Limit { what: "length of an idempotency key", max: TEXT_BYTES_MAX as u64 });
        }
        let known = self.keys.get(&(spec.tenant, spec.key.clone()));
        #[cfg(feature = "simulate")]
        let known = known.filter(|_| !self.weak.idempotency);
        if let Some(id) = known {
            return if self.batch(*id).spec.is_same_batch(&spec) {
                Ok(())
            } else {
                Err(Error::KeyReused { batch: *id })
            };
        }
        self.admit(&spec)?;
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        let tenant = spec.tenant;
        let chain = self.chains.entry(spec.chain).or_insert_with(|| Chain {
            tenant,
            genesis: spec.from,
            head: spec.from,
            next: 0,
            settled: 0,
            tip: None,
            live: Default::default(),
        });
        chain.next += 1;
        chain.head = spec.to;
        let genesis = chain.genesis;
        chain.live.insert(spec.sequence, id);
        self.tenants.entry(tenant).or_default().live += 1;
        self.keys.insert((tenant, spec.key.clone()), id);
        self.held_bytes = self.held_bytes.saturating_add(spec.payload_bytes);
        self.batches.insert(id, Batch::new(spec, genesis, self.now));
        self.issue(id, Action::Message(Message::Notify { phase: Phase::Proving }));
        self.refresh(id, 0);
        Ok(())
    }

    fn admit(&self, spec: &Spec) -> Result<(), Error> {
        let limits = &self.limits;
        let limit = |what, max: u32| Err(Error::Limit { what, max: max.into() });
        if spec.payload_bytes > limits.artifact_bytes_max {
            return Err(Error::Limit { what: "size of a payload", max: limits.artifact_bytes_max });
        }
        if let Some(deadline) =
            spec.deadline.filter(|deadline| spec.deadline_is_hard && *deadline <= self.now)
        {
            return Err(Error::DeadlinePassed { deadline });
        }
        let expected = match self.chains.get(&spec.chain) {
            Some(chain) if chain.tenant != spec.tenant => {
                return Err(Error::ForeignChain { chain: spec.chain })
            }
            Some(chain) => chain.next,
            None if self.chains.len() as u64 >= u64::from(limits.chains_max) => {
                return limit("number of chains", limits.chains_max);
            }
            None => 0,
        };
        if spec.sequence != expected {
            return Err(Error::Sequence { chain: spec.chain, expected, got: spec.sequence });
        }
        if let Some(chain) = self.chains.get(&spec.chain).filter(|chain| chain.head != spec.from) {
            return Err(Error::State { chain: spec.chain, expected: chain.head, got: spec.from });
        }
        if self.chains.get(&spec.chain).is_some_and(|c| c.live.is_empty() && c.tip.is_none() && c.next > 0) {
            return Err(Error::HistoryLost { chain: spec.chain });
        }
        // Ended batches whose effects nobody answers cannot be forgotten.
        let kept_max = limits.batches_max.saturating_mul(2).saturating_add(limits.retained_max);
        if self.batches.len() >= kept_max as usize {
            return limit("number of batches kept", kept_max);
        }
        if self.live_batches() >= limits.batches_max as usize {
            return limit("number of batches in work", limits.batches_max);
        }
        if self.tenants.get(&spec.tenant).is_some_and(|usage| usage.live >= limits.tenant_batches_max) {
            return limit("number of a tenant's batches in work", limits.tenant_batches_max);
        }
        Ok(())
    }

    pub(super) fn cancel(&mut self, tenant: TenantId, id: BatchId) -> Result<(), Error> {
        let batch = self.batches.get(&id).filter(|batch| batch.spec.tenant == tenant);
        match &batch.ok_or(Error::UnknownBatch { batch: id })?.phase {
            Phase::Settling | Phase::Refolding => Err(Error::Settling { batch: id }),
            phase if phase.is_terminal() => Err(Error::Ended { batch: id }),
            _ => {
                self.end(id, Phase::Cancelled);
                Ok(())
            }
        }
    }
}
