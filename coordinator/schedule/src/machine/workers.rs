//! Workers register, live, fail and are quarantined.

use super::results::Setback;
use super::Machine;
use crate::batch::NodeState;
use crate::mark::mark;
use crate::worker::{Attempt, AttemptPhase, Worker};
use crate::{AttemptId, Error, Kind, Profile, Time, WorkerId};

/// Accepted results after which a strike is forgotten.
const GOOD_PER_STRIKE: u32 = 64;
/// How often losses of a task double what it may take.
const DOUBLINGS_MAX: u32 = 6;
/// Ticks that are further apart than this, and than half a lease, mean that the coordinator was away, not its workers.
const ABSENCE_MS: u64 = 5_000;

impl Machine {
    pub(super) fn join(&mut self, id: WorkerId, session: u64, mut profile: Profile) -> Result<(), Error> {
        profile.kinds.sort_unstable();
        profile.kinds.dedup();
        if !profile.kinds.iter().any(|kind| profile.serves(*kind)) {
            return Err(Error::Profile { worker: id, what: "no kind of work that it has a place for" });
        }
        let known = self.workers.get(&id).and_then(|worker| worker.session);
        if known.is_some_and(|known| known > session) {
            mark("late session");
            return Err(Error::StaleSession { worker: id });
        }
        let lease_until = self.now.plus(self.limits.worker_lease_ms);
        if !self.workers.contains_key(&id) {
            self.make_room()?;
            self.workers.insert(id, Worker::new(profile.clone(), lease_until));
        }
        let known = &self.workers[&id];
        // The same process does not change, but for the devices that it loses and gets back: whatever else it says of itself
        // is another one's word.
        let is_like_before = Profile { slots: profile.slots, ..known.profile.clone() } == profile;
        if known.session.is_some_and(|known| known != session) || !is_like_before {
            self.lose_worker(id);
        }
        self.unseat(id);
        let worker = self.workers.get_mut(&id).expect("inserted above");
        worker.session = Some(session);
        worker.profile = profile;
        worker.lease_until = lease_until;
        self.reseat(id);
        Ok(())
    }

    /// Forgets a worker that is gone and not in quarantine, if the table is full.
    fn make_room(&mut self) -> Result<(), Error> {
        let max = self.limits.workers_max;
        if (self.workers.len() as u64) < u64::from(max) {
            return Ok(());
        }
        let gone =
            self.workers.iter().find(|(_, worker)| worker.session.is_none() && worker.is_trusted(self.now));
        let gone = *gone.ok_or(Error::Limit { what: "number of workers", max: max.into() })?.0;
        self.workers.remove(&gone);
        Ok(())
    }

    fn known(&self, id: WorkerId, session: u64) -> Result<&Worker, Error> {
        let worker = self.workers.get(&id).filter(|worker| worker.session == Some(session));
        worker.ok_or(Error::UnknownWorker { worker: id })
    }

    pub(super) fn heartbeat(
        &mut self,
        id: WorkerId,
        session: u64,
        running: &[AttemptId],
    ) -> Result<(), Error> {
        let worker = self.known(id, session)?;
        let grace = self.limits.dispatch_grace_ms;
        let lost: Vec<AttemptId> = worker
            .running
            .iter()
            .filter(|attempt| {
                !running.contains(attempt) && self.now.since(self.attempts[attempt].started) > grace
            })
            .copied()
            .collect();
        let lease_until = self.now.plus(self.limits.worker_lease_ms);
        self.workers.get_mut(&id).expect("known above").lease_until = lease_until;
        self.lose_attempts(lost);
        Ok(())
    }

    pub(super) fn leave(&mut self, id: WorkerId, session: u64) -> Result<(), Error> {
        self.known(id, session)?;
        self.lose_worker(id);
        Ok(())
    }

    fn lose_worker(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).expect("the caller found it");
        worker.session = None;
        let lost = worker.running.iter().copied().collect();
        self.reseat(id);
        self.lose_attempts(lost);
    }

    fn lose_attempts(&mut self, lost: Vec<AttemptId>) {
        for attempt in lost {
            // Losing one may end its batch, and with it others of the list.
            if self.attempts.contains_key(&attempt) {
                self.retry(attempt, Setback::Loss);
            }
        }
    }

    /// Gives every worker a fresh lease: it may have found nobody to renew it with.
    pub(super) fn renew_leases(&mut self) {
        let lease_until = self.now.plus(self.limits.worker_lease_ms);
        for worker in self.workers.values_mut().filter(|worker| worker.session.is_some()) {
            worker.lease_until = worker.lease_until.max(lease_until);
        }
    }

    /// After the coordinator was away (paused, cut off, replaced late, or its clock was set) nobody is late because of
    /// that: what has not been heard meanwhile may be in the inbox.
    pub(super) fn notice_absence(&mut self) {
        let away_ms = self.now.since(self.ticked);
        let before = std::mem::replace(&mut self.ticked, self.now);
        if before == Time(0) || away_ms < ABSENCE_MS.max(self.limits.worker_lease_ms / 2) {
            return;
        }
        mark("coordinator was away");
        self.renew_leases();
        self.excuse(before);
    }

    /// The time since `since` does not count against the attempts that run.
    fn excuse(&mut self, since: Time) {
        for attempt in self.attempts.values_mut() {
            attempt.started = attempt.started.plus(self.now.since(attempt.started.max(since)));
            attempt.active = attempt.active.plus(self.now.since(attempt.active.max(since)));
        }
    }

    pub(super) fn store_changed(&mut self, available: bool, full: bool) {
        self.store_full = full;
        match self.store_away_since {
            Some(since) if available => {
                self.store_away_since = None;
                self.excuse(since);
            }
            None if !available => self.store_away_since = Some(self.now),
            _ => {}
        }
    }

    pub(super) fn expire_workers(&mut self) {
        let expired: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.session.is_some() && worker.lease_until <= self.now)
            .map(|(id, _)| *id)
            .collect();
        expired.into_iter().for_each(|id| self.lose_worker(id));
    }

    /// Workers whose quarantine is over get work again.
    pub(super) fn end_quarantines(&mut self) {
        let free = |(_, worker): &(&WorkerId, &Worker)| {
            worker.quarantines > 0 && worker.session.is_some() && worker.is_trusted(self.now)
        };
        let free: Vec<WorkerId> = self.workers.iter().filter(free).map(|(id, _)| *id).collect();
        free.into_iter().for_each(|id| self.reseat(id));
    }

    /// Takes back attempts that last far too long; of a controller only the time counts in which it waits for nobody.
    /// While the store is away nobody can report. Each loss of a task doubles what it may take, up to a point: else a wrong
    /// estimate would never let it end.
    pub(super) fn expire_attempts(&mut self) {
        if self.store_away_since.is_some() {
            return;
        }
        let percent = self.limits.timeout_percent;
        let late = self.attempts.iter().filter(|(id, attempt)| {
            let losses = self.node(attempt.batch, attempt.node).losses.min(DOUBLINGS_MAX);
            let (since, min) = match attempt.kind.is_controller() {
                true => (attempt.active, self.limits.idle_ms_min),
                false => (attempt.started, self.limits.timeout_ms_min),
            };
            let limit =
                (attempt.expected_ms.saturating_mul(percent) / 100).max(min).saturating_mul(1 << losses);
            attempt.is_running() && self.now.since(since) > limit && !self.waits_for_parts(**id, attempt)
        });
        let late: Vec<AttemptId> = late.map(|(id, _)| *id).collect();
        for id in &late {
            let is_controller = self.attempts[id].kind.is_controller();
            mark(if is_controller { "idle controller taken back" } else { "late attempt taken back" });
        }
        self.lose_attempts(late);
    }

    /// Whether others work, or will, on what a controller has asked for. A part without inputs waits for the controller.
    fn waits_for_parts(&self, id: AttemptId, attempt: &Attempt) -> bool {
        #[cfg(feature = "simulate")]
        if self.weak.idleness && attempt.kind.is_controller() {
            return true;
        }
        self.node(attempt.batch, attempt.node).parts().any(|at| {
            let entry = self.node(attempt.batch, at);
            let is_asked = entry.part.as_ref().is_some_and(|part| part.asked_by == id);
            is_asked && matches!(entry.state, NodeState::Ready { .. } | NodeState::Running)
        })
    }

    pub(super) fn praise(&mut self, id: WorkerId, kind: Kind, elapsed_ms: u64, units: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.speeds[kind].measure(elapsed_ms, units);
        worker.good += 1;
        if worker.good >= GOOD_PER_STRIKE {
            worker.good = 0;
            worker.strikes = worker.strikes.saturating_sub(1);
        }
        self.reseat(id);
    }

    /// A result of this worker did not verify. At the limit it gets no work for a while, and what it has returned and
    /// is still to return is not looked at.
    pub(super) fn strike(&mut self, id: WorkerId) {
        let limits = &self.limits;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.strikes += 1;
        worker.good = 0;
        if worker.strikes < limits.strikes_max {
            return;
        }
        mark("worker quarantined");
        // On probation afterwards: one more strike is enough.
        worker.strikes = limits.strikes_max - 1;
        let length = limits.quarantine_ms.saturating_mul(1 << worker.quarantines.min(20));
        worker.quarantined_until = self.now.plus(length.min(limits.quarantine_ms_max));
        worker.quarantines = worker.quarantines.saturating_add(1);
        self.reseat(id);
        let suspect = self.attempts.iter().filter(|(_, attempt)| {
            attempt.worker == id && !matches!(attempt.phase, AttemptPhase::Auditing { .. })
        });
        let suspect = suspect.map(|(attempt, _)| *attempt).collect();
        self.lose_attempts(suspect);
    }
}
