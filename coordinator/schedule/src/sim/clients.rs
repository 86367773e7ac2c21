//! Clients: they submit batches, ask again when no answer comes, and change their minds.

use super::oracle::{content_of, hash_of};
use super::rng::mix;
use super::world::{Blob, Msg, Outcome, World};
use super::Fault;
use crate::{BatchId, ChainId, Class, Error, Event, Hash, Spec, TenantId, Time};

/// A batch that a client has sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub chain: u64,
    pub batch: Option<BatchId>,
    pub is_bad: bool,
    pub is_urgent: bool,
    pub cancelled: bool,
}

pub(super) struct Client {
    chain: u64,
    /// Batches still to be sent.
    pub left: u32,
    /// The one being sent, until it is answered.
    pub draft: Option<(Spec, Sent)>,
    /// Those that were taken.
    pub sent: Vec<Sent>,
    /// The state before the batch of each number.
    states: Vec<Hash>,
    next_sequence: u64,
    next_key: u64,
}

impl Client {
    pub(super) fn new(chain: u64, left: u32) -> Self {
        let states = vec![hash_of(mix(chain))];
        Self { chain, left, draft: None, sent: Vec::new(), states, next_sequence: 0, next_key: 0 }
    }

    /// The batch being sent was taken, whether or not the client hears of it.
    pub(super) fn learn(&mut self, batch: Option<BatchId>) {
        if let Some((_, sent)) = self.draft.as_mut().filter(|(_, sent)| sent.batch != batch) {
            sent.batch = batch;
            self.sent.push(sent.clone());
        }
    }
}

/// Payloads of this kind can never be executed.
pub(super) fn is_bad_payload(content: u64) -> bool {
    content % 16 == 5
}

impl World {
    pub(super) fn client_turn(&mut self, which: usize) -> Outcome {
        let wait = 200 + self.rng.below(800);
        self.send(wait, Msg::Client(which));
        if self.is_down() {
            return Ok(());
        }
        if self.is_faulty() && self.rng.permille(10) {
            self.cancel_something(which)?;
        }
        if self.clients[which].draft.is_none() && self.clients[which].left > 0 {
            self.draft(which);
        }
        let Some((spec, _)) = self.clients[which].draft.clone() else { return Ok(()) };
        let Some(leader) = self.leader() else { return Ok(()) };
        let Some(answer) = self.deliver(leader, Event::Submit { spec: spec.clone() })? else { return Ok(()) };
        match answer {
            // The answer is lost: the same submission comes again.
            Ok(()) if self.fails(Fault::Lost, 50) => {}
            Ok(()) => self.taken(which, &spec),
            Err(Error::Sequence { expected, .. }) => {
                if expected as usize >= self.clients[which].states.len() {
                    return Err("the chain has a batch that its client has not been told of".into());
                }
                self.clients[which].next_sequence = expected;
                self.give_back(which, &spec);
            }
            Err(Error::State { .. }) => {
                return Err("the client and the chain disagree about the state".into())
            }
            Err(Error::HistoryLost { .. }) if self.may_lose_history.contains(&spec.chain.0) => {
                self.give_back(which, &spec);
                self.clients[which].left = 0;
            }
            Err(error) if error.class() == Class::Permanent => self.give_back(which, &spec),
            Err(_) => {}
        }
        Ok(())
    }

    fn draft(&mut self, which: usize) {
        let content = self.rng.draw();
        let is_urgent = self.rng.permille(40);
        let is_patient = self.rng.permille(300);
        let client = &mut self.clients[which];
        let key = format!("{}/{}", client.chain, client.next_key);
        client.next_key += 1;
        let deadline = self.now + if is_urgent { 8_000 } else { 120_000 };
        let from = client.states[client.next_sequence as usize];
        let intake = Spec::intake_of(TenantId(client.chain), &key, 0);
        let spec = Spec {
            tenant: TenantId(client.chain),
            key,
            chain: ChainId(client.chain),
            sequence: client.next_sequence,
            from,
            to: hash_of(mix(content_of(from) ^ content)),
            payload: hash_of(content),
            payload_bytes: 1,
            units: 1,
            version: 1,
            priority: (content % 3) as u8,
            deadline: (is_urgent || is_patient).then_some(Time(deadline)),
            deadline_is_hard: is_urgent,
            intake,
        };
        let sent = Sent {
            chain: client.chain,
            batch: None,
            is_bad: is_bad_payload(content),
            is_urgent,
            cancelled: false,
        };
        let blob = Blob { content: spec.payload, kind: None, batch: None };
        self.store.insert(spec.holder(), blob);
        client.draft = Some((spec, sent));
    }

    /// The batch was refused, or has been taken, has ended and is forgotten.
    fn give_back(&mut self, which: usize, spec: &Spec) {
        self.store.remove(&spec.holder());
        let client = &mut self.clients[which];
        if client.draft.take().is_some_and(|(_, sent)| sent.batch.is_some()) {
            client.left -= 1;
        }
    }

    fn taken(&mut self, which: usize, spec: &Spec) {
        let client = &mut self.clients[which];
        client.draft = None;
        client.left -= 1;
        client.next_sequence = spec.sequence + 1;
        client.states.truncate(spec.sequence as usize + 1);
        client.states.push(spec.to);
    }

    fn cancel_something(&mut self, which: usize) -> Outcome {
        let Some(leader) = self.leader() else { return Ok(()) };
        let tenant = TenantId(self.clients[which].chain);
        let Some(sent) = self.clients[which].sent.last_mut() else { return Ok(()) };
        let Some(batch) = sent.batch else { return Ok(()) };
        sent.cancelled = true;
        self.deliver(leader, Event::Cancel { tenant, batch })?;
        Ok(())
    }
}
