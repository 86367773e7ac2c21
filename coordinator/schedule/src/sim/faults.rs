//! What breaks.

use super::world::{Msg, World};
use crate::{Artifact, AttemptId, Event, Hash, Holder, Kind, Part, Report, WorkerId};

impl World {
    /// Breaks something, as long as it is time for it.
    pub(super) fn fault(&mut self) {
        if !self.is_faulty() {
            return;
        }
        let wait = 300 + self.rng.below(3_000);
        self.send(wait, Msg::Fault);
        self.summary.faults += 1;
        let which = self.rng.below(self.workers.len() as u64) as usize;
        let length = 500 + self.rng.below(10_000);
        let until = self.now + length;
        match self.rng.below(11) {
            0 | 1 => {
                // Some processes find their unreported results on disk and go on in their session.
                let is_clean = self.rng.permille(700);
                self.workers[which].die(is_clean, until);
            }
            2 => self.workers[which].paused_until = until,
            3 => self.workers[which].cut_until = until,
            4 => {
                let coordinator = self.rng.below(2) as usize;
                self.crash(coordinator);
            }
            5 | 6 => {
                let coordinator = self.rng.below(2) as usize;
                self.coordinators[coordinator].paused_until = until;
            }
            7 => self.down_until = self.now + length / 3,
            8 => self.store_full_until = until,
            9 => self.rot(),
            _ => self.molest(),
        }
    }

    /// Corrupts an artifact at rest. Not a fold proof: the settled one is all that is left of the history, and losing it
    /// is a failure that the machine reports and nobody can repair.
    fn rot(&mut self) {
        let candidates =
            self.store.iter().filter(|(_, blob)| blob.kind.is_some_and(|kind| kind != Kind::Fold));
        let candidates: Vec<Holder> = candidates.map(|(holder, _)| *holder).collect();
        if candidates.is_empty() {
            return;
        }
        let holder = candidates[self.rng.below(candidates.len() as u64) as usize];
        let blob = self.store.get_mut(&holder).expect("one of the candidates");
        blob.content.0[31] ^= 1;
        if let Some(batch) = blob.batch {
            self.lossy.insert(batch);
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
