//! A verified result counts.

use super::results::artifacts;
use super::Machine;
use crate::batch::{Held, Need, NodeState};
use crate::{AttemptId, BatchId, Output, Phase};

impl Machine {
    /// The other attempts of the task are taken back, inputs without readers let go, what can begin begins.
    pub(super) fn accept(&mut self, id: AttemptId, outputs: &[Output], elapsed_ms: u64) {
        let (batch, node, worker) = self.place(id);
        self.attempts.remove(&id);
        let entry = self.node_mut(batch, node);
        entry.attempts.retain(|other| *other != id);
        let (others, kind, units) = (std::mem::take(&mut entry.attempts), entry.kind(), entry.units);
        entry.state = NodeState::Done;
        let held = artifacts(id, outputs).into_iter().zip(outputs);
        entry.outputs =
            held.map(|(artifact, output)| Held { artifact, units: output.units, gone: false }).collect();
        let (is_part, is_controller) = (entry.part.is_some(), entry.controller.is_some());
        others.into_iter().for_each(|other| self.revoke(other));
        for output in outputs {
            self.held_bytes = self.held_bytes.saturating_add(output.bytes);
        }
        self.estimates[kind].measure(elapsed_ms, units);
        self.praise(worker, kind, elapsed_ms, units);
        if is_part {
            self.part_done(batch, node);
            return;
        }
        if is_controller {
            self.drop_parts(batch, node);
        }
        let now = self.now;
        self.batch_mut(batch).grow(node, now);
        self.let_go_read(batch, node);
        for reader in self.node(batch, node).consumers.clone() {
            self.refresh(batch, reader);
        }
        if self.batch(batch).fold == Some(node) {
            self.folded(batch);
        }
        if self.batch(batch).phase == Phase::Proving && self.batch(batch).proof().is_some() {
            self.check_proof(batch);
        }
    }

    /// Lets go of what a finished task has read, and of what it has made again after a loss and nobody reads any more.
    fn let_go_read(&mut self, batch: BatchId, node: u32) {
        for need in self.node(batch, node).needs.clone() {
            if let Need::Output { node: producer, index } = need {
                if self.batch(batch).is_consumed(producer, index) {
                    self.release_output(batch, producer, index as usize);
                }
            }
        }
        for index in 0..self.node(batch, node).outputs.len() {
            if self.batch(batch).is_consumed(node, index as u32) {
                self.release_output(batch, node, index);
            }
        }
    }

    /// The fold proof is there: the next batch's fold can begin.
    fn folded(&mut self, batch: BatchId) {
        if let Some((next, fold)) = self.successor_fold(batch) {
            self.refresh(next, fold);
        }
        if self.batch(batch).phase == Phase::Refolding {
            self.end(batch, Phase::Settled);
        }
    }
}
