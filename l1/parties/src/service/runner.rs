//! One machine with its files, its node and its shell.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use assay_l1::{BackendError, BitcoinBackend, Class, StoreError};
use bitcoin::{Amount, BlockHash};
use serde::{Deserialize, Serialize};

use super::epochs::{EpochDir, EpochError};
use super::error::ServiceError;
use super::file::{self, Dir, Form};
use super::follow::{Change, Follower};
use super::node;
use super::stop::Stop;
use crate::contract::Contract;
use crate::event::{Alarm, Block, Effect, Event};
use crate::party::{Context, Keys, Machine};
use crate::types::Height;
use crate::view::View;

/// Blocks that are read again for an epoch of which a running service learns.
pub(super) const REWIND_BLOCKS: usize = 100;
/// Events of one pass, at most; for what is left the machine and its shell repeat everything, as after a restart.
const EVENTS_MAX: usize = 10_000;

/// What a shell sees of the world.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) backend: &'a dyn BitcoinBackend,
    pub(super) contract: &'a Contract,
    pub(super) view: &'a View,
}

/// What a machine's effects need beside the node. All of it may be repeated after a restart.
pub(super) trait Shell {
    /// A block was connected.
    fn connected(&mut self, _: u32, _: &bitcoin::Block) -> Vec<Event> {
        Vec::new()
    }

    /// A block is about to be disconnected.
    fn disconnected(&mut self, _: u32) -> Vec<Event> {
        Vec::new()
    }

    /// The machine forgets what it has asked for, and asks again.
    fn restarted(&mut self) {}

    /// Does what the machine wants, but for broadcasts and alarms; what there is to say to it at once.
    fn carry_out(&mut self, world: World<'_>, effect: Effect) -> Result<Vec<Event>, ServiceError>;

    /// Work of its own between blocks; what there is to say.
    fn poll(&mut self, world: World<'_>) -> Result<Vec<Event>, ServiceError>;
}

/// What is on disk.
#[derive(Serialize, Deserialize)]
struct Stored<M> {
    name: String,
    trunk_id: [u8; 32],
    /// Graphs of the epochs, in their order.
    graphs: Vec<[u8; 32]>,
    follower: Follower,
    machine: M,
}

/// A machine at work.
pub(super) struct Runner<M, S> {
    backend: Arc<dyn BitcoinBackend>,
    dir: Dir,
    epochs: EpochDir,
    contract: Contract,
    keys: Keys,
    stored: Stored<M>,
    shell: S,
    /// True if the machine has to be told that it runs again: at the start, after an error in between, and with a new epoch.
    is_restarted: bool,
    /// Blocks that are still to be taken back, so that they are read again for a new epoch.
    rewind_left: usize,
    is_dirty: bool,
    /// Tip at which fees were last asked for.
    priced: Option<u32>,
    /// Block up to which everything was last said to be done.
    done: Option<BlockHash>,
    /// What was last said of an epoch that is not taken.
    complaint: String,
}

/// Loads all epochs that are there.
pub(super) fn load_contract(epochs: &EpochDir) -> Result<(Contract, Vec<[u8; 32]>), ServiceError> {
    let (mut contract, mut graphs) = (Contract::new(), Vec::new());
    loop {
        let index = graphs.len() as u32;
        match epochs.load(&contract).map_err(|source| ServiceError::Epoch { index, source })? {
            Some((id, epoch)) => {
                contract.push(Arc::new(epoch));
                graphs.push(id);
            }
            None if graphs.is_empty() => return Err(ServiceError::NoEpoch { dir: epochs.dir.clone() }),
            None => return Ok((contract, graphs)),
        }
    }
}

impl<M: Machine, S: Shell> Runner<M, S> {
    /// Takes the state in `dir` up, or begins with `fresh`, a machine that stands below block `start_height`.
    pub(super) fn open(
        backend: Arc<dyn BitcoinBackend>,
        dir: Dir,
        epochs: EpochDir,
        (contract, graphs): (Contract, Vec<[u8; 32]>),
        keys: Keys,
        shell: S,
        (start_height, fresh): (u32, impl FnOnce(Height) -> M),
    ) -> Result<Self, ServiceError> {
        let first = contract.epochs().next();
        let trunk_id = first.map(|(_, epoch)| epoch.spec().terms.trunk_id);
        let trunk_id = trunk_id.ok_or_else(|| ServiceError::NoEpoch { dir: epochs.dir.clone() })?;
        let stored = match file::read::<Stored<M>>(&dir.file("state"), Form::State)? {
            Some(stored) => {
                let foreign = |field| ServiceError::Foreign { dir: dir.path().to_owned(), field };
                if stored.name != M::NAME {
                    return Err(foreign("service"));
                }
                if stored.trunk_id != trunk_id {
                    return Err(foreign("trunk"));
                }
                if !stored.follower.is_valid() {
                    let detail = "its place in the chain cannot be".to_owned();
                    return Err(StoreError::Format { path: dir.file("state"), detail }.into());
                }
                check_graphs(&stored.graphs, &graphs)?;
                stored
            }
            None => {
                let below = start_height.saturating_sub(1);
                let follower = Follower::at(backend.as_ref(), below)?;
                let (name, machine) = (M::NAME.to_owned(), fresh(Height(below)));
                Stored { name, trunk_id, graphs: graphs.clone(), follower, machine }
            }
        };
        let mut runner = Self {
            backend,
            dir,
            epochs,
            contract,
            keys,
            stored,
            shell,
            is_restarted: true,
            rewind_left: 0,
            is_dirty: true,
            priced: None,
            done: None,
            complaint: String::new(),
        };
        if runner.stored.graphs.len() < graphs.len() {
            runner.stored.graphs = graphs;
            runner.rewind_left = REWIND_BLOCKS;
            runner.rewind()?;
        }
        runner.save()?;
        Ok(runner)
    }

    /// Runs until it is to end.
    pub(super) fn run(&mut self, stop: &Stop, poll: Duration) -> Result<(), ServiceError> {
        while !stop.is_stopped() {
            self.try_pass(stop)?;
            stop.sleep(poll);
        }
        Ok(())
    }

    /// One pass; a node that does not answer is no error, but a reason to begin again.
    pub(super) fn try_pass(&mut self, stop: &Stop) -> Result<(), ServiceError> {
        match self.pass(stop) {
            // A reorganisation between two questions: the block or the height asked for is gone.
            Err(error) if error.class() == Class::Transient || is_gone(&error) => {
                tracing::warn!("{error}; trying again");
                // Effects may be lost.
                self.is_restarted = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Everything that there is to do now.
    pub(super) fn pass(&mut self, stop: &Stop) -> Result<(), ServiceError> {
        self.learn_epochs();
        self.rewind()?;
        self.price()?;
        if !self.is_restarted {
            // Data that a reorganisation took away is spoken of before the machine sees the blocks.
            self.work()?;
        }
        while !stop.is_stopped() {
            let Some(change) = self.stored.follower.next(self.backend.as_ref())? else { break };
            self.follow(change)?;
        }
        if self.is_restarted {
            self.shell.restarted();
            // Not after: there may be more than one pass takes.
            self.is_restarted = false;
            self.events([Event::Restarted], true)?;
        }
        self.work()?;
        self.save()?;
        let last = self.stored.follower.hash();
        if self.done != last {
            let height = self.stored.follower.height();
            last.inspect(|hash| tracing::debug!("done with block {hash} at height {height}"));
            self.done = last;
        }
        Ok(())
    }

    fn work(&mut self) -> Result<(), ServiceError> {
        let view = self.stored.machine.view();
        let world = World { backend: self.backend.as_ref(), contract: &self.contract, view };
        let events = self.shell.poll(world)?;
        self.events(events, true)
    }

    /// Asks what fees cost, once for each tip.
    fn price(&mut self) -> Result<(), ServiceError> {
        let tip = self.backend.tip()?.height;
        if self.priced == Some(tip) {
            return Ok(());
        }
        let market = node::market(self.backend.as_ref(), tip)?;
        // After a restart the machine does not know the tip yet.
        self.events([Event::Market(market)], !self.is_restarted)?;
        self.priced = Some(tip);
        Ok(())
    }

    fn follow(&mut self, change: Change) -> Result<(), ServiceError> {
        match change {
            Change::Disconnected => {
                let height = self.stored.follower.height();
                let said = self.shell.disconnected(height);
                self.events(said, false)?;
                self.take_back(Event::Disconnected(Height(height)))
            }
            Change::Connected { hash, block, is_tip } => {
                // Both go into the same file.
                self.stored.follower.push(hash);
                let height = self.stored.follower.height();
                let said = self.shell.connected(height, &block);
                let txs = block.txdata.into_iter().map(Arc::new).collect();
                let connected = Event::Connected(Block { height: Height(height), txs });
                self.events([connected].into_iter().chain(said), is_tip)
            }
        }
    }

    fn take_back(&mut self, event: Event) -> Result<(), ServiceError> {
        self.stored.follower.pop();
        self.events([event], false)
    }

    /// Goes back to where blocks are read again from. A node that fails in between is asked on by the next call: what was not read again
    /// might hold what is new.
    fn rewind(&mut self) -> Result<(), ServiceError> {
        while self.rewind_left > 0 && self.stored.follower.depth() > 0 {
            let height = self.stored.follower.height();
            // A reorganisation may have come first, of which nothing has been heard yet.
            let is_on_chain = match self.backend.block_hash(height) {
                Ok(hash) => Some(hash) == self.stored.follower.hash(),
                Err(BackendError::NotFound { .. }) => false,
                Err(error) => return Err(error.into()),
            };
            if is_on_chain {
                self.take_back(Event::Rewound(Height(height)))?;
            } else {
                self.follow(Change::Disconnected)?;
            }
            self.rewind_left -= 1;
        }
        self.rewind_left = 0;
        Ok(())
    }

    /// Takes epochs up that are new in the directory. One that is not right is no reason to stop watching the others.
    fn learn_epochs(&mut self) {
        let mut learnt = false;
        loop {
            match self.epochs.load(&self.contract) {
                Ok(Some((id, epoch))) => {
                    let index = self.contract.push(Arc::new(epoch));
                    self.stored.graphs.push(id);
                    tracing::info!("{} is known", self.contract.name(index));
                    learnt = true;
                }
                Ok(None) => break,
                Err(error) => {
                    let complaint = error.to_string();
                    if complaint != self.complaint {
                        tracing::error!(
                            "epoch file {:04} is not taken: {complaint}",
                            self.stored.graphs.len()
                        );
                        self.complaint = complaint;
                    }
                    break;
                }
            }
        }
        if learnt {
            self.rewind_left = REWIND_BLOCKS;
            // What was asked for goes by another contract now; and nothing is asked for in view of old blocks.
            self.is_restarted = true;
            self.is_dirty = true;
        }
    }

    /// Steps the machine through events and their consequences. Nothing is sent of what is wanted below the tip.
    fn events(&mut self, events: impl IntoIterator<Item = Event>, is_tip: bool) -> Result<(), ServiceError> {
        let mut queue: VecDeque<Event> = events.into_iter().collect();
        let mut left = EVENTS_MAX;
        while let Some(event) = queue.pop_front() {
            if left == 0 {
                tracing::error!("{} events are put off: too many at once", queue.len() + 1);
                self.is_restarted = true;
                break;
            }
            left -= 1;
            let context = Context { contract: &self.contract, keys: &self.keys };
            let mut effects = self.stored.machine.step(context, &event)?;
            self.is_dirty = true;
            // Below the block that paid the wallet it lacks money. That is told again while it lasts, other alarms are not.
            effects.retain(|effect| {
                is_tip || !matches!(effect, Effect::Broadcast(_) | Effect::Alarm(Alarm::Fee(..)))
            });
            if effects.is_empty() {
                continue;
            }
            self.save()?;
            for effect in effects {
                queue.extend(self.carry_out(effect)?);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<Vec<Event>, ServiceError> {
        match effect {
            Effect::Broadcast(package) => {
                let Some(txid) = package.last().map(|tx| tx.compute_txid()) else { return Ok(Vec::new()) };
                let fee = self.stored.machine.sender().fee(&txid).unwrap_or(Amount::ZERO);
                let refused = node::broadcast(self.backend.as_ref(), &package, fee)?;
                Ok(refused
                    .map(|reason| {
                        tracing::warn!("{txid} is not taken: {reason}");
                        Event::Rejected { txid, reason }
                    })
                    .into_iter()
                    .collect())
            }
            Effect::Alarm(alarm) => {
                tracing::error!("ALARM {}", alarm.text(|epoch| self.contract.name(epoch)));
                Ok(Vec::new())
            }
            other => {
                let view = self.stored.machine.view();
                let world = World { backend: self.backend.as_ref(), contract: &self.contract, view };
                self.shell.carry_out(world, other)
            }
        }
    }

    fn save(&mut self) -> Result<(), ServiceError> {
        if self.is_dirty {
            file::write(&self.dir.file("state"), Form::State, &self.stored)?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

fn is_gone(error: &ServiceError) -> bool {
    matches!(error, ServiceError::Backend(BackendError::NotFound { .. }))
}

/// The epochs on disk are those that the state was made with, and perhaps more.
fn check_graphs(stored: &[[u8; 32]], found: &[[u8; 32]]) -> Result<(), ServiceError> {
    let differs = (0..stored.len()).find(|index| found.get(*index) != Some(&stored[*index]));
    match differs {
        None => Ok(()),
        Some(index) => {
            let source = if index < found.len() { EpochError::Other } else { EpochError::Missing };
            Err(ServiceError::Epoch { index: index as u32, source })
        }
    }
}
