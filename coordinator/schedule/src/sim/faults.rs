//! What breaks.

use super::world::{Msg, World};
use super::{Fault, Weakness};
use crate::{Artifact, AttemptId, Event, Hash, Holder, Kind, Part, Report, WorkerId};

/// What strikes now and then, as often as it stands here; the other faults strike where the thing happens.
const STRIKES: [Fault; 13] = [
    Fault::WorkerKilled,
    Fault::WorkerKilled,
    Fault::WorkerPaused,
    Fault::WorkerCut,
    Fault::CoordinatorKilled,
    Fault::CoordinatorPaused,
    Fault::CoordinatorPaused,
    Fault::Outage,
    Fault::StoreDown,
    Fault::StoreFull,
    Fault::Rot,
    Fault::Nonsense,
    Fault::Skew,
];

impl World {
    /// Breaks something, as long as it is time for it.
    pub(super) fn fault(&mut self) {
        let strikes: Vec<Fault> =
            STRIKES.into_iter().filter(|fault| self.options.faults.has(*fault)).collect();
        if !self.is_faulty() || strikes.is_empty() {
            return;
        }
        // Some seeds are storms.
        let wait = if self.options.seed.is_multiple_of(3) {
            100 + self.rng.below(600)
        } else {
            300 + self.rng.below(3_000)
        };
        self.send(wait, Msg::Fault);
        self.summary.faults += 1;
        let strike = strikes[self.rng.below(strikes.len() as u64) as usize];
        self.strike(strike);
    }

    fn strike(&mut self, fault: Fault) {
        let which = self.rng.below(self.workers.len() as u64) as usize;
        let coordinator = self.rng.below(2) as usize;
        let length = 500 + self.rng.below(10_000);
        let until = self.now + length;
        match fault {
            Fault::WorkerKilled => self.kill(which, until),
            Fault::WorkerPaused => self.workers[which].paused_until = until,
            Fault::WorkerCut => self.workers[which].cut_until = until,
            Fault::CoordinatorKilled => self.crash(coordinator),
            Fault::CoordinatorPaused => self.coordinators[coordinator].paused_until = until,
            Fault::Skew if self.rng.permille(100) => {
                // Somebody has set a clock wrong, or right again.
                let skews = [0, 6_000, 3_600_000];
                self.coordinators[coordinator].skew_ms = skews[self.rng.below(3) as usize];
            }
            Fault::Outage => {
                self.down_until = self.now + length / 3;
                if self.lacks(Weakness::Durability) {
                    let kept = self.queue.log.len().saturating_sub(1 + self.rng.below(3) as usize);
                    self.queue.log.truncate(kept);
                }
            }
            Fault::StoreDown => self.store_down_until = self.now + length / 2,
            Fault::StoreFull => self.store_full_until = until,
            Fault::Rot => self.rot(),
            Fault::Nonsense => self.molest(),
            _ => {}
        }
    }

    /// Some processes find their unreported results on disk and go on in their session; some say that they leave.
    fn kill(&mut self, which: usize, until: u64) {
        let (is_clean, says_so) = (self.rng.permille(700), self.rng.permille(300));
        if is_clean && says_so {
            let (worker, session) = (WorkerId(which as u64), self.workers[which].session);
            let delay = self.latency();
            self.send(delay, Msg::Post(Event::Leave { worker, session }));
        }
        self.workers[which].die(is_clean, until);
    }

    /// Corrupts an artifact at rest. Seldom a fold proof: the settled one is all that is left of the history, and losing
    /// it is a failure that the machine reports and nobody can repair.
    fn rot(&mut self) {
        let is_fold = self.rng.permille(100);
        let candidates = self
            .store
            .iter()
            .filter(|(_, blob)| blob.kind.is_some_and(|kind| (kind == Kind::Fold) == is_fold));
        let candidates: Vec<Holder> = candidates.map(|(holder, _)| *holder).collect();
        if candidates.is_empty() {
            return;
        }
        let holder = candidates[self.rng.below(candidates.len() as u64) as usize];
        let blob = self.store.get_mut(&holder).expect("one of the candidates");
        blob.content.0[31] ^= 1;
        let batch = blob.batch;
        self.lossy.extend(batch);
        if is_fold {
            let mut sent = self.clients.iter().flat_map(|client| &client.sent);
            self.may_lose_history.extend(sent.find(|sent| sent.batch == batch).map(|sent| sent.chain));
        }
    }

    /// The bad worker says things that make no sense.
    fn molest(&mut self) {
        let Some(id) = self.bad_worker else { return };
        let session = self.workers[id as usize].session;
        let worker = WorkerId(id);
        let own = self.workers[id as usize].running.keys().next().copied();
        let newest =
            self.newest().and_then(|machine| machine.artifacts().last()).map(|artifact| artifact.holder);
        let attempt = match (own, newest) {
            (Some(own), _) if self.rng.permille(700) => own,
            (_, Some(Holder::Attempt(attempt, _))) => attempt,
            _ => AttemptId(self.rng.below(100)),
        };
        let key = Hash([self.rng.below(4) as u8; 32]);
        let number = self.rng.below(4) as u32;
        let holder = if self.rng.permille(500) {
            Holder::Attempt(attempt, number)
        } else {
            Holder::Attempt(AttemptId(self.rng.below(1 + attempt.0)), number)
        };
        let input = Artifact { holder, hash: key, bytes: self.rng.below(3) };
        let kind = Kind::ALL[self.rng.below(7) as usize];
        let inputs = vec![input; self.rng.below(8) as usize];
        let part = Part { kind, key, inputs, units: self.rng.draw() };
        let event = match self.rng.below(5) {
            0 => Event::PartLost { worker, session, attempt, key, output: number },
            1 => Event::Result { worker, session, attempt, report: Report::InputLost { input: number } },
            2 => Event::Result { worker, session, attempt, report: Report::Finished { outputs: Vec::new() } },
            _ => Event::Spawn { worker, session, attempt, parts: vec![part; self.rng.below(6) as usize] },
        };
        self.send(1, Msg::Post(event));
    }
}
