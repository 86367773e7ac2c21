//! How long things take.

use std::cmp::Reverse;

use super::{Machine, Rank};
use crate::worker::millis;
use crate::{BatchId, Failure, Kind, Parent, Phase, Stage, Time, WorkerId};

/// What comes after a task in its batch.
fn rest(stage: Stage) -> &'static [Kind] {
    use Kind::{Block, Fold, Groth16, Reduce, Wrap};
    match stage {
        Stage::Execute => &[Block, Fold, Wrap, Groth16],
        Stage::Block { .. } => &[Fold, Wrap, Groth16],
        Stage::Shard { of: Parent::Block { .. }, .. } => &[Reduce, Fold, Wrap, Groth16],
        Stage::Reduce { of: Parent::Block { .. }, .. } => &[Fold, Wrap, Groth16],
        Stage::Shard { of: Parent::Fold, .. } => &[Reduce, Wrap, Groth16],
        Stage::Reduce { of: Parent::Fold, .. } | Stage::Fold => &[Wrap, Groth16],
        Stage::Wrap => &[Groth16],
        Stage::Groth16 => &[],
    }
}

impl Machine {
    pub(super) fn rank(&self, id: BatchId, node: u32) -> Rank {
        let batch = self.batch(id);
        let deadline = batch.spec.deadline.unwrap_or(batch.submitted.plus(self.limits.horizon_ms));
        Rank {
            priority: Reverse(batch.spec.priority),
            start_by: deadline.0.saturating_sub(self.path_ms(id, node)),
            batch: id,
            node,
        }
    }

    /// Time per unit that is expected of a kind on some worker.
    pub(super) fn ns_per_unit(&self, kind: Kind) -> u64 {
        let speed = self.estimates[kind];
        if speed.samples == 0 {
            self.limits.ns_per_unit[kind]
        } else {
            speed.ns_per_unit
        }
    }

    /// Expected milliseconds from the start of a task to the end of its batch, on idle workers. What comes after it
    /// counts with one unit each.
    pub(super) fn path_ms(&self, id: BatchId, node: u32) -> u64 {
        let entry = self.node(id, node);
        let own = millis(entry.units, self.ns_per_unit(entry.kind()));
        let rest = rest(entry.stage).iter().map(|kind| millis(1, self.ns_per_unit(*kind)));
        rest.fold(own, u64::saturating_add)
    }

    pub(super) fn memory_needed(&self, id: BatchId, node: u32) -> u64 {
        let entry = self.node(id, node);
        entry.memory_bytes.max(self.limits.memory_bytes[entry.kind()])
    }

    /// Expected milliseconds of a task on a worker.
    pub(super) fn expected_ms(&self, worker: WorkerId, kind: Kind, units: u64) -> u64 {
        let speed = self.workers[&worker].speeds[kind];
        millis(units, if speed.samples == 0 { self.ns_per_unit(kind) } else { speed.ns_per_unit })
    }

    /// When a batch's proof is expected: the longer of its critical path and its share of the workers' time.
    ///
    /// `None` if it has ended or is proved, or if no worker is here.
    pub fn eta(&self, id: BatchId) -> Option<Time> {
        let batch = self.batches.get(&id).filter(|batch| batch.phase == Phase::Proving)?;
        let workers =
            self.workers.values().filter(|worker| worker.session.is_some() && worker.is_trusted(self.now));
        let workers = workers.count() as u64;
        if workers == 0 {
            return None;
        }
        let undone = batch.nodes.iter().filter(|(_, node)| !node.is_done());
        let path = undone.map(|(at, _)| self.path_ms(id, *at)).max().unwrap_or(0);
        let mut work = self.work_ms(id);
        // Batches before it in the queue share the workers.
        for (other, ahead) in self.live() {
            if (Reverse(ahead.spec.priority), other) < (Reverse(batch.spec.priority), id) {
                work = work.saturating_add(self.work_ms(other));
            }
        }
        Some(self.now.plus(path.max(work / workers)))
    }

    /// Time that workers still have to spend on a batch, as far as its tasks are known. A controller that has asked for
    /// parts waits for them and does little else.
    fn work_ms(&self, id: BatchId) -> u64 {
        let undone = self.batch(id).nodes.values().filter(|node| !node.is_done());
        let works = undone.filter(|node| node.parts().next().is_none());
        works.map(|node| millis(node.units, self.ns_per_unit(node.kind()))).fold(0, u64::saturating_add)
    }

    /// Ends batches whose hard deadline can certainly not be met: passed, or nearer than the critical path at the best
    /// speed measured.
    pub(super) fn fail_hopeless(&mut self) {
        let hopeless: Vec<(BatchId, Time)> = self
            .live()
            .filter(|(_, batch)| batch.spec.deadline_is_hard && batch.phase == Phase::Proving)
            .filter_map(|(id, batch)| {
                let deadline = batch.spec.deadline?;
                let earliest = self.now.plus(self.best_case_ms(id));
                (earliest > deadline).then_some((id, earliest))
            })
            .collect();
        for (id, earliest) in hopeless {
            if !self.batch(id).phase.is_terminal() {
                self.end(id, Phase::Failed(Failure::Deadline { earliest }));
            }
        }
    }

    /// The least time a batch still needs: what no worker has been measured at counts nothing.
    fn best_case_ms(&self, id: BatchId) -> u64 {
        let best = |kind: Kind| {
            let speeds = self.workers.values().filter(|worker| worker.session.is_some());
            let speeds = speeds.map(|worker| worker.speeds[kind]).filter(|speed| speed.samples >= 3);
            // Half of the mean: a single task may well be quicker than the mean.
            speeds.map(|speed| speed.ns_per_unit / 2).min().unwrap_or(0)
        };
        let batch = self.batch(id);
        let is_done = |kind| batch.nodes.values().any(|node| node.kind() == kind && node.is_done());
        let rest = [(Kind::Execute, batch.spec.units), (Kind::Wrap, 1), (Kind::Groth16, 1)];
        rest.into_iter()
            .filter(|(kind, _)| !is_done(*kind))
            .map(|(kind, units)| millis(units, best(kind)))
            .sum()
    }
}
