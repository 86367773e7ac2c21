//! Parts: tasks that running controllers ask for.
//!
//! ```text
//! asked for ─▶ Ready ─▶ Running ─▶ Done ─▶ delivered to whoever asked last, and kept until the parent is done
//!                ▲          │        │
//!                └─ Waiting ◀────────┘ an input, or an output, is lost: the parent publishes the inputs again
//! ```
//! A part outlives the attempt that asked for it. What that attempt has published for its parts stays until they are done;
//! only then is it fenced. The next attempt publishes the inputs again, because it cannot know which parts are there:
//! they replace those of a part that does not run, are a spare for one that does, and are let go for one that is done.

use std::collections::{BTreeMap, BTreeSet};

use super::results::{shorten, Setback};
use super::Machine;
use crate::batch::{Controller, Item, Need, NodeState, PartOf};
use crate::mark::mark;
use crate::{Action, Artifact, AttemptId, BatchId, Error, Hash, Holder, Kind, Message, Part, Work, WorkerId};

impl Controller {
    /// Whether an attempt has published inputs that parts still read.
    pub(crate) fn publishes(&self, attempt: AttemptId) -> bool {
        self.shelf.range((attempt, 0)..=(attempt, u32::MAX)).any(|(_, item)| item.output_of.is_none())
    }
}

impl Item {
    fn is(&self, artifact: &Artifact) -> bool {
        (self.hash, self.bytes) == (artifact.hash, artifact.bytes)
    }
}

impl Machine {
    /// A controller asks for parts. A request that makes no sense fails the attempt: it would be repeated for ever.
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        session: u64,
        id: AttemptId,
        parts: Vec<Part>,
    ) -> Result<(), Error> {
        let (batch, parent) = self.controller(worker, session, id)?;
        if parts.len() > self.limits.spawn_max as usize {
            return Err(Error::Limit {
                what: "number of parts in a request",
                max: self.limits.spawn_max.into(),
            });
        }
        let checked = self.check_parts(batch, parent, id, &parts);
        #[cfg(feature = "simulate")]
        let checked = if self.weak.requests { Ok(()) } else { checked };
        if let Err(reason) = checked {
            mark("request for parts refused");
            self.retry(id, Setback::Failure(reason));
            return Ok(());
        }
        for part in parts {
            self.ask(batch, parent, id, worker, part);
        }
        Ok(())
    }

    /// The task of a running controller.
    fn controller(&self, worker: WorkerId, session: u64, id: AttemptId) -> Result<(BatchId, u32), Error> {
        let attempt = self.attempts.get(&id).filter(|a| a.worker == worker && a.session == session);
        let attempt = attempt.filter(|attempt| attempt.is_running());
        let attempt = attempt.ok_or(Error::StaleAttempt { attempt: id, worker })?;
        if !attempt.kind.is_controller() {
            return Err(Error::NotController { attempt: id });
        }
        Ok((attempt.batch, attempt.node))
    }

    fn check_parts(&self, batch: BatchId, parent: u32, id: AttemptId, parts: &[Part]) -> Result<(), String> {
        let limits = &self.limits;
        let controller = self.node(batch, parent).controller.as_ref().expect("of a controller's task");
        let mut fresh: BTreeMap<Holder, Artifact> = BTreeMap::new();
        let mut new: BTreeMap<Hash, Kind> = BTreeMap::new();
        for part in parts {
            if !part.kind.is_part() {
                return Err(format!("asks for a part of kind {}", part.kind));
            }
            if part.inputs.is_empty() || part.inputs.len() > limits.part_inputs_max as usize {
                let (got, max) = (part.inputs.len(), limits.part_inputs_max);
                return Err(format!("asks for a part with {got} inputs; it may have 1 to {max}"));
            }
            let kind = match controller.parts.get(&part.key) {
                Some(known) => self.node(batch, *known).kind(),
                None => *new.entry(part.key).or_insert(part.kind),
            };
            if kind != part.kind {
                return Err(format!("asks for part {} as another kind", part.key));
            }
            check_inputs(&part.inputs, limits.artifact_bytes_max)?;
            for input in &part.inputs {
                let Holder::Attempt(holder, number) = input.holder else {
                    return Err("names the payload as a part's input".into());
                };
                let item = controller.shelf.get(&(holder, number));
                let is_known = item.is_some_and(|item| item.is(input));
                let is_own = holder == id && number >= Holder::INPUTS;
                let is_possible = match item {
                    Some(item) => is_known && (is_own || item.output_of.is_some()),
                    None => is_own && *fresh.entry(input.holder).or_insert(*input) == *input,
                };
                if !is_possible {
                    return Err(format!("names {} as a part's input, which it is not", input.holder));
                }
            }
        }
        if controller.parts.len() + new.len() > limits.parts_max as usize {
            return Err(format!("asks for more than {} parts", limits.parts_max));
        }
        Ok(())
    }

    fn ask(&mut self, batch: BatchId, parent: u32, id: AttemptId, worker: WorkerId, part: Part) {
        let controller = self.node(batch, parent).controller.as_ref().expect("of a controller's task");
        let Some(at) = controller.parts.get(&part.key).copied() else {
            let of = PartOf {
                parent,
                key: part.key,
                spare: Vec::new(),
                asked_by: id,
                published_by: worker,
                audit: None,
            };
            let now = self.now;
            let at = self.batch_mut(batch).add_part(part.kind, part.units, of, now);
            self.supply(batch, at, worker, part.inputs);
            self.keep_active(id);
            return;
        };
        let entry = self.node_mut(batch, at);
        let state = entry.state;
        let is_same = entry.given().eq(part.inputs.iter().copied());
        let of = entry.part_mut();
        let is_repeated = std::mem::replace(&mut of.asked_by, id) == id;
        let is_same = is_same || of.spare == part.inputs;
        // Whoever asks for the same again and again does nothing.
        if !is_repeated || state == NodeState::Waiting {
            self.keep_active(id);
        }
        match state {
            NodeState::Done => {
                mark("part found done");
                self.deliver(batch, at);
                self.let_go_unused(batch, parent, id, &part.inputs);
            }
            _ if is_same => {}
            NodeState::Waiting => {
                mark("parked part supplied");
                self.supply(batch, at, worker, part.inputs);
                if !is_repeated {
                    self.acquit(batch, at);
                }
            }
            NodeState::Ready { .. } => {
                mark("inputs of a ready part replaced");
                self.claim(batch, parent, &part.inputs);
                let entry = self.node_mut(batch, at);
                let mut before: Vec<Artifact> = entry.given().collect();
                // Spare inputs are those of an attempt before this one.
                before.append(&mut entry.part_mut().spare);
                entry.needs = part.inputs.into_iter().map(Need::Given).collect();
                entry.part_mut().published_by = worker;
                self.unclaim(batch, parent, &before);
                // Of the same attempt they count: else it would ask for it for ever.
                if !is_repeated {
                    self.acquit(batch, at);
                }
            }
            NodeState::Running => {
                mark("spare inputs kept");
                self.claim(batch, parent, &part.inputs);
                let before = std::mem::replace(&mut self.node_mut(batch, at).part_mut().spare, part.inputs);
                self.unclaim(batch, parent, &before);
            }
        }
    }

    /// Gives a part without inputs its inputs, and makes it ready.
    fn supply(&mut self, batch: BatchId, at: u32, worker: WorkerId, inputs: Vec<Artifact>) {
        let parent = self.node_mut(batch, at).part_mut().parent;
        self.claim(batch, parent, &inputs);
        let now = self.now;
        let entry = self.node_mut(batch, at);
        entry.needs = inputs.into_iter().map(Need::Given).collect();
        entry.since = now;
        entry.part_mut().published_by = worker;
        self.make_ready(batch, at, now);
    }

    /// Puts a part's inputs on the shelf, or counts one more reader of what is there.
    fn claim(&mut self, batch: BatchId, parent: u32, inputs: &[Artifact]) {
        for input in inputs {
            let Holder::Attempt(holder, number) = input.holder else { continue };
            let mut is_new = false;
            let shelf = &mut self.node_mut(batch, parent).controller_mut().shelf;
            let item = shelf.entry((holder, number)).or_insert_with(|| {
                is_new = true;
                Item { hash: input.hash, bytes: input.bytes, readers: 0, output_of: None }
            });
            item.readers += 1;
            if is_new {
                self.held_bytes = self.held_bytes.saturating_add(input.bytes);
            }
        }
    }

    /// Counts one reader less of each; an input that is left without is let go.
    fn unclaim(&mut self, batch: BatchId, parent: u32, inputs: &[Artifact]) {
        for input in inputs {
            let Holder::Attempt(holder, number) = input.holder else { continue };
            let controller = self.node_mut(batch, parent).controller_mut();
            let Some(item) = controller.shelf.get_mut(&(holder, number)) else { continue };
            item.readers -= 1;
            if item.readers > 0 || item.output_of.is_some() {
                continue;
            }
            controller.shelf.remove(&(holder, number));
            let is_last = controller.dead.contains(&holder) && !controller.publishes(holder);
            if is_last {
                mark("dead controller fenced");
                controller.dead.remove(&holder);
            }
            self.release(batch, *input, is_last);
        }
    }

    /// Lets go of inputs that were published for a part that is done.
    fn let_go_unused(&mut self, batch: BatchId, parent: u32, id: AttemptId, inputs: &[Artifact]) {
        for input in inputs {
            let Holder::Attempt(holder, number) = input.holder else { continue };
            let controller = self.node_mut(batch, parent).controller_mut();
            if holder == id && !controller.shelf.contains_key(&(holder, number)) {
                self.issued.releases.push((batch, *input));
            }
        }
    }

    /// Sends a finished part's outputs to the attempt that asked last, if it still runs.
    fn deliver(&mut self, batch: BatchId, at: u32) {
        let entry = self.node(batch, at);
        let part = entry.part.as_ref().expect("of a part");
        let outputs = entry.outputs.iter().map(|held| held.artifact).collect();
        let Some(attempt) = self.attempts.get(&part.asked_by).filter(|attempt| attempt.is_running()) else {
            return;
        };
        let (worker, session, attempt, key) = (attempt.worker, attempt.session, part.asked_by, part.key);
        let message = Message::Deliver { worker, session, attempt, key, outputs };
        self.issue(batch, Action::Message(message));
    }

    fn ask_again(&mut self, batch: BatchId, at: u32) {
        let part = self.node(batch, at).part.as_ref().expect("of a part");
        let Some(attempt) = self.attempts.get(&part.asked_by).filter(|attempt| attempt.is_running()) else {
            return;
        };
        let (worker, session, attempt, key) = (attempt.worker, attempt.session, part.asked_by, part.key);
        mark("controller asked to publish again");
        self.issue(batch, Action::Message(Message::Respawn { worker, session, attempt, key }));
        self.keep_active(attempt);
    }

    /// A controller's time begins anew.
    fn keep_active(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.active = self.now;
        }
    }

    /// A part's result has been accepted: its outputs are there for other parts, its inputs are let go.
    pub(super) fn part_done(&mut self, batch: BatchId, at: u32) {
        let entry = self.node_mut(batch, at);
        let mut inputs: Vec<Artifact> = entry.given().collect();
        entry.needs.clear();
        let outputs: Vec<Artifact> = entry.outputs.iter().map(|held| held.artifact).collect();
        inputs.append(&mut entry.part_mut().spare);
        let parent = entry.part_mut().parent;
        let controller = self.node_mut(batch, parent).controller_mut();
        controller.done += 1;
        for output in outputs {
            if let Holder::Attempt(holder, number) = output.holder {
                let item = Item { hash: output.hash, bytes: output.bytes, readers: 0, output_of: Some(at) };
                controller.shelf.insert((holder, number), item);
            }
        }
        self.unclaim(batch, parent, &inputs);
        self.deliver(batch, at);
        let reader = self.node_mut(batch, at).part_mut().asked_by;
        self.keep_active(reader);
    }

    /// A controller cannot read an output of a part: the coordinator looks for itself.
    pub(super) fn part_lost(
        &mut self,
        worker: WorkerId,
        session: u64,
        id: AttemptId,
        key: Hash,
        output: u32,
    ) -> Result<(), Error> {
        let (batch, parent) = self.controller(worker, session, id)?;
        let controller = self.node(batch, parent).controller.as_ref().expect("of a controller's task");
        let unknown = Error::UnknownPart { attempt: id, key, output };
        let Some(at) = controller.parts.get(&key).copied() else { return Err(unknown) };
        let entry = self.node(batch, at);
        match entry.state {
            NodeState::Done => {
                let held = entry.outputs.get(output as usize).ok_or(unknown)?;
                let artifact = held.artifact;
                if entry.part.as_ref().is_some_and(|part| part.audit.is_none()) {
                    mark("output of a part audited");
                    let effect = self.issue(batch, Action::Work(Work::Audit { artifact, attempt: id }));
                    self.node_mut(batch, at).part_mut().audit = Some(effect);
                    self.audits.insert(effect, (batch, at));
                }
                self.node_mut(batch, at).part_mut().asked_by = id;
            }
            NodeState::Waiting => {
                mark("lost part complained of");
                self.node_mut(batch, at).part_mut().asked_by = id;
                self.ask_again(batch, at);
            }
            // It is being proved again and will be delivered.
            NodeState::Ready { .. } | NodeState::Running => {
                self.node_mut(batch, at).part_mut().asked_by = id;
            }
        }
        Ok(())
    }

    /// What the coordinator has found about a part's output that its reader calls lost.
    pub(super) fn part_audited(&mut self, batch: BatchId, at: u32, is_intact: bool) {
        let part = self.node_mut(batch, at).part_mut();
        part.audit = None;
        let reader = part.asked_by;
        if !is_intact {
            self.lose_part(batch, at);
            return;
        }
        let failures_max = self.limits.failures_max;
        let Some(attempt) = self.attempts.get_mut(&reader) else { return };
        attempt.complaints += 1;
        mark("complaint about an intact output");
        if attempt.complaints >= failures_max {
            mark("too many complaints");
            self.retry(reader, Setback::Failure("cannot read results of its parts that are intact".into()));
        } else {
            self.deliver(batch, at);
        }
    }

    /// Forgets what a worker has been found to lie about: parts of a controller whose inputs it has published, and parts
    /// that read their outputs. What a running attempt has asked for since stays: it may have been delivered.
    pub(super) fn distrust(&mut self, batch: BatchId, parent: u32, worker: WorkerId) {
        #[cfg(feature = "simulate")]
        if self.weak.trust {
            return;
        }
        let running = self.node(batch, parent).attempts.first();
        let of_worker = |at: &u32| {
            let part = self.node(batch, *at).part.as_ref().expect("of a part");
            part.published_by == worker && running != Some(&part.asked_by)
        };
        let published: Vec<u32> = self.node(batch, parent).parts().filter(of_worker).collect();
        if !published.is_empty() {
            mark("liar's part forgotten");
        }
        self.forget_parts(batch, published);
    }

    /// Forgets parts, and those that read their outputs.
    fn forget_parts(&mut self, batch: BatchId, mut stack: Vec<u32>) {
        while let Some(at) = stack.pop() {
            if self.batch(batch).nodes.contains_key(&at) {
                stack.extend(self.readers(batch, at));
                self.drop_part(batch, at);
            }
        }
    }

    /// A part cannot be done as it was asked for. Its batch goes on: the attempt that has published its inputs has failed, if it
    /// still runs, else its task, and what its worker wants besides is forgotten unless it is done. What is done stays: others
    /// may have been asked for it by honest workers. But if it `is_proven` that this could never be done, what comes from
    /// that worker is not believed either.
    pub(super) fn blame(&mut self, batch: BatchId, at: u32, reason: &str, is_proven: bool) {
        let entry = self.node(batch, at);
        let of = entry.part.as_ref().expect("of a part");
        let (parent, publisher, stage) = (of.parent, of.published_by, entry.stage);
        let reason = shorten(format!("{stage:?} cannot be done: {reason}"));
        // There is one at most.
        let attempt = self.node(batch, parent).attempts.first().copied();
        let runs = |id: &AttemptId| self.attempts[id].is_running() && self.is_as_asked(batch, at, *id);
        let guilty = attempt.filter(runs);
        let is_others = |other: &u32| {
            let entry = self.node(batch, *other);
            let is_publishers = entry.part.as_ref().is_some_and(|part| part.published_by == publisher);
            let is_wanted = guilty.is_none() && attempt.is_some_and(|id| self.is_as_asked(batch, *other, id));
            *other == at || is_publishers && !entry.is_done() && !is_wanted
        };
        let disowned: Vec<u32> = self.node(batch, parent).parts().filter(is_others).collect();
        disowned.into_iter().for_each(|part| self.disown(batch, part));
        match (guilty, attempt) {
            (Some(id), _) => {
                mark("controller blamed for a part");
                self.retry(id, Setback::Failure(reason));
            }
            (None, Some(_)) => {
                mark("part given up that an earlier controller wanted");
                // Else it would be proved, judged and forgotten for ever.
                if self.count_loss(batch, parent, reason) {
                    return;
                }
            }
            (None, None) => {
                mark("task blamed for a part");
                let failures_max = self.limits.failures_max;
                let entry = self.node_mut(batch, parent);
                entry.fail(publisher);
                if entry.failures >= failures_max {
                    return self.set_aside(batch, parent, reason);
                }
                self.suspect(batch, parent);
            }
        }
        if is_proven {
            self.distrust(batch, parent, publisher);
        }
    }

    /// Whether a part is what this attempt of its parent has asked for, and not what one before it has.
    fn is_as_asked(&self, batch: BatchId, at: u32, attempt: AttemptId) -> bool {
        let entry = self.node(batch, at);
        let Some(part) = &entry.part else { return false };
        let controller = self.node(batch, part.parent).controller.as_ref().expect("of a controller's task");
        let is_anothers = |input: Artifact| match input.holder {
            Holder::Attempt(holder, number) if holder != attempt => {
                controller.shelf.get(&(holder, number)).is_some_and(|item| item.output_of.is_none())
            }
            _ => false,
        };
        part.asked_by == attempt && !entry.given().any(is_anothers)
    }

    /// Forgets a part that is not done, unless another attempt has asked for it with inputs of its own: it begins anew with these.
    fn disown(&mut self, batch: BatchId, at: u32) {
        let part = self.node(batch, at).part.as_ref().expect("of a part");
        if part.spare.is_empty() || self.is_as_asked(batch, at, part.asked_by) {
            self.drop_part(batch, at);
            return;
        }
        mark("part begun anew with another controller's inputs");
        let entry = self.node_mut(batch, at);
        entry.acquit();
        entry.losses = 0;
        self.park(batch, at);
    }

    /// A part gets the inputs of another attempt: failures with those before do not count. So often only, or a part that
    /// nobody can do, and whose controllers make room for it, would be tried for ever.
    fn acquit(&mut self, batch: BatchId, at: u32) {
        let acquittals_max = self.limits.losses_max / 2;
        let entry = self.node_mut(batch, at);
        if entry.failures > 0 && entry.losses < acquittals_max {
            entry.losses += 1;
            entry.acquit();
        }
    }

    /// Parts that are not done and read an output of this one.
    fn readers(&self, batch: BatchId, at: u32) -> Vec<u32> {
        let Some(part) = &self.node(batch, at).part else { return Vec::new() };
        let outputs: BTreeSet<Artifact> =
            self.node(batch, at).outputs.iter().map(|held| held.artifact).collect();
        let reads = |other: &u32| {
            let entry = self.node(batch, *other);
            let spare = entry.part.iter().flat_map(|part| part.spare.iter().copied());
            entry.given().chain(spare).any(|input| outputs.contains(&input))
        };
        self.node(batch, part.parent).parts().filter(reads).collect()
    }

    /// An input of a part, or its output, is lost.
    pub(super) fn lose_input(&mut self, batch: BatchId, at: u32, artifact: Artifact) {
        let Holder::Attempt(holder, number) = artifact.holder else { return };
        let Some(part) = &self.node(batch, at).part else { return };
        let controller = self.node(batch, part.parent).controller.as_ref().expect("of a controller's task");
        match controller.shelf.get(&(holder, number)).map(|item| item.output_of) {
            Some(Some(producer)) => {
                mark("part lost an output of another");
                self.lose_part(batch, producer);
            }
            _ if self.is_lost_too_often(batch, at) && self.is_anothers_fault(batch, at) => {
                self.blame(batch, at, "its inputs are not there", false);
            }
            _ if self.lose_once(batch, at) => {}
            _ => self.park(batch, at),
        }
    }

    /// A finished part's output is lost: it waits until somebody wants it again, and so do those that read it.
    fn lose_part(&mut self, batch: BatchId, at: u32) {
        if self.lose_once(batch, at) {
            return;
        }
        for reader in self.readers(batch, at) {
            let outputs: Vec<Artifact> =
                self.node(batch, at).outputs.iter().map(|held| held.artifact).collect();
            let entry = self.node_mut(batch, reader);
            let reads_it = entry.given().any(|input| outputs.contains(&input));
            let of = entry.part_mut();
            let parent = of.parent;
            if of.spare.iter().any(|input| outputs.contains(input)) {
                mark("spare inputs lost");
                let spare = std::mem::take(&mut of.spare);
                self.unclaim(batch, parent, &spare);
            }
            if reads_it {
                self.park(batch, reader);
            }
        }
        self.unshelve(batch, at);
        self.node_mut(batch, at).state = NodeState::Waiting;
        self.ask_again(batch, at);
    }

    /// Counts a loss; true if it was one too many, and the task was set aside.
    pub(super) fn lose_once(&mut self, batch: BatchId, at: u32) -> bool {
        self.count_loss(batch, at, "what it reads or yields was lost too often".into())
    }

    fn count_loss(&mut self, batch: BatchId, at: u32, reason: String) -> bool {
        let is_over = self.is_lost_too_often(batch, at);
        self.node_mut(batch, at).losses += 1;
        if is_over {
            self.set_aside(batch, at, reason);
        }
        is_over
    }

    /// Whether one more loss is one too many.
    fn is_lost_too_often(&self, batch: BatchId, at: u32) -> bool {
        self.node(batch, at).losses + 1 >= self.limits.losses_max
    }

    /// Takes a part that has lost an input back: it goes on with its spare inputs, or waits for new ones.
    fn park(&mut self, batch: BatchId, at: u32) {
        self.interrupt(batch, at);
        let entry = self.node_mut(batch, at);
        let inputs: Vec<Artifact> = entry.given().collect();
        let part = entry.part_mut();
        let (spare, parent, asked_by) = (std::mem::take(&mut part.spare), part.parent, part.asked_by);
        entry.needs = spare.iter().copied().map(Need::Given).collect();
        self.unclaim(batch, parent, &inputs);
        if spare.is_empty() {
            mark("part parked");
            self.ask_again(batch, at);
        } else {
            mark("part goes on with its spare inputs");
            if let Some(attempt) = self.attempts.get(&asked_by) {
                let worker = attempt.worker;
                self.node_mut(batch, at).part_mut().published_by = worker;
            }
            let now = self.now;
            self.make_ready(batch, at, now);
        }
    }

    /// Lets go of a part's outputs, and of the check of one that is under way.
    fn unshelve(&mut self, batch: BatchId, at: u32) {
        let entry = self.node_mut(batch, at);
        let outputs: Vec<Artifact> = entry.outputs.iter().map(|held| held.artifact).collect();
        let (parent, audit) = (entry.part_mut().parent, entry.part_mut().audit.take());
        let was_done = entry.is_done();
        let controller = self.node_mut(batch, parent).controller_mut();
        controller.done -= u32::from(was_done);
        for output in outputs {
            if let Holder::Attempt(holder, number) = output.holder {
                controller.shelf.remove(&(holder, number));
            }
        }
        if let Some(effect) = audit {
            mark("audit of a part dropped");
            self.audits.remove(&effect);
            self.drop_effect(effect);
        }
        self.release_outputs(batch, at);
        self.node_mut(batch, at).outputs.clear();
    }

    /// Forgets a part altogether.
    fn drop_part(&mut self, batch: BatchId, at: u32) {
        self.interrupt(batch, at);
        let entry = self.node_mut(batch, at);
        let mut inputs: Vec<Artifact> = entry.given().collect();
        inputs.append(&mut entry.part_mut().spare);
        let (parent, key) = (entry.part_mut().parent, entry.part_mut().key);
        entry.needs.clear();
        self.unclaim(batch, parent, &inputs);
        self.unshelve(batch, at);
        self.node_mut(batch, parent).controller_mut().parts.remove(&key);
        self.batch_mut(batch).nodes.remove(&at);
    }

    /// Forgets all parts of a controller's task: it is done, or will never be, or begins anew.
    pub(super) fn drop_parts(&mut self, batch: BatchId, parent: u32) {
        // Those that read others' outputs come later than these; nothing may read what is gone.
        let parts: Vec<u32> = self.node(batch, parent).parts().collect();
        for part in parts {
            self.drop_part(batch, part);
        }
    }
}

/// A part reads each artifact once, and no more bytes than one artifact may have: they are in one place when it is proved.
fn check_inputs(inputs: &[Artifact], bytes_max: u64) -> Result<(), String> {
    let mut holders = BTreeSet::new();
    if let Some(twice) = inputs.iter().find(|input| !holders.insert(input.holder)) {
        return Err(format!("names {} twice as a part's input", twice.holder));
    }
    let bytes = inputs.iter().map(|input| input.bytes).fold(0, u64::saturating_add);
    if bytes > bytes_max {
        return Err(format!("asks for a part with {bytes} bytes of inputs; it may have {bytes_max}"));
    }
    Ok(())
}
