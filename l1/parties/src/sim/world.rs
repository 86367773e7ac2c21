//! Time, weather, and who hears what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use assay_l1::graph::contract::build::TxRole;
use bitcoin::{FeeRate, OutPoint, Transaction, Txid};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::chain::Chain;
use super::fixture::{
    open_script, Fixture, BACKUP, BACKUP_WATCH, CLAIMS, GRIEFER, LOCKS, OPERATOR, PUBLISHER,
};
use super::mempool::{Mempool, Owner};
use super::options::{Attack, Options, Weakness};
use super::shell::Actor;
use crate::contract::Contract;
use crate::event::{Alarm, Block, Effect, Event};
use crate::fees::Market;
use crate::party::Context;
use crate::types::{ClaimId, EpochIndex, Height};

/// The height before the first block of a simulation.
const START: Height = Height(150);
/// Blocks after which whatever is not settled counts as a deadlock.
const BLOCKS_MAX: u32 = 420;
/// Blocks until the weather clears.
const WEATHER_BLOCKS: u32 = 200;
/// Depth at which the machines take a block for final; reorganisations stay below.
pub(crate) const FINALITY: u32 = 4;
const REORG_MAX: u32 = 3;
/// Blocks of twelve that somebody may miss by being killed.
const AWAY_MAX: u32 = 4;
const MINIMUM: FeeRate = FeeRate::from_sat_per_kwu(250);

/// What came of a run in which everything held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Blocks until all was settled.
    pub blocks: u32,
    /// Steps of all machines.
    pub steps: u64,
    /// Blocks that were reorganised away.
    pub reorged: u32,
    /// Machines killed and started again.
    pub kills: u32,
    /// Transactions refused by the mempool.
    pub rejected: u32,
    /// Packages that the mempool took.
    pub sent: u32,
    /// Digest of the active chain: equal for equal options.
    pub trace: [u8; 32],
}

/// What did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, {attack:?} at claim {at}, height {height}: {what}")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The attack.
    pub attack: Attack,
    /// The claim attacked.
    pub at: u32,
    /// When it was noticed.
    pub height: Height,
    /// What.
    pub what: String,
}

/// A run.
pub struct World {
    pub(crate) options: Options,
    pub(crate) fixture: &'static Fixture,
    pub(crate) contract: Contract,
    pub(crate) chain: Chain,
    pub(crate) pool: Mempool,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) actors: Vec<Actor>,
    pub(crate) queue: VecDeque<(usize, Event)>,
    /// The announced epoch that was handed over, the first claim that did not count, and the epoch that follows.
    pub(crate) handed_over: BTreeMap<EpochIndex, (ClaimId, EpochIndex)>,
    /// Data transactions by batch hash.
    pub(crate) data: BTreeMap<[u8; 32], Arc<Transaction>>,
    pub(crate) data_coins: Vec<(OutPoint, bitcoin::Amount)>,
    /// The claim's other transaction, for DoubleClaim.
    pub(crate) double: Option<Arc<Transaction>>,
    /// The attack was seen to take place.
    pub(crate) struck: bool,
    /// When the operator's batches are proved.
    due: BTreeMap<u32, Height>,
    /// When a batch's data is ready to be sent: what it is committed to has to be in a block first.
    pub(crate) data_due: BTreeMap<u32, Height>,
    /// Kills of the operator while it answered a challenge of the claim.
    mid_assert: BTreeMap<ClaimId, u32>,
    pub(crate) owners: BTreeMap<Txid, Owner>,
    pub(crate) alarms: BTreeMap<usize, BTreeSet<Alarm>>,
    pub(crate) violation: Option<String>,
    pub(crate) summary: Summary,
    rate: u64,
    spike_until: Height,
    censored: Option<(Owner, Height)>,
    /// Until then the weather brings no other reorganisation.
    steady_until: Height,
}

/// Runs a simulation to its end.
///
/// # Errors
/// The first thing that did not hold.
pub fn run(options: &Options) -> Result<Summary, Failure> {
    let mut world = World::new(options.clone(), Fixture::shared());
    world.run()?;
    Ok(world.summary)
}

impl World {
    /// A world before its first block.
    #[must_use]
    pub fn new(options: Options, fixture: &'static Fixture) -> Self {
        let contract = fixture.contract();
        let scripts = options.scripts || options.attack == Attack::WrongCodeRoot;
        let coin = bitcoin::TxOut { value: fixture.faucet.value, script_pubkey: open_script() };
        let chain = Chain::new(START, (fixture.faucet.outpoint, coin), scripts);
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let due = due(&options, &mut rng);
        let mut actors = Actor::all(&options, START);
        actors.iter_mut().for_each(|actor| actor.weaken(&options));
        Self {
            fixture,
            contract,
            chain,
            pool: Mempool::default(),
            rng,
            actors,
            queue: VecDeque::new(),
            handed_over: BTreeMap::new(),
            data: BTreeMap::new(),
            data_coins: fixture.publisher_coins(),
            double: None,
            struck: false,
            due,
            data_due: BTreeMap::new(),
            mid_assert: BTreeMap::new(),
            owners: BTreeMap::new(),
            alarms: BTreeMap::new(),
            violation: None,
            summary: Summary::default(),
            rate: 500,
            spike_until: START,
            censored: None,
            steady_until: START,
            options,
        }
    }

    /// The chain as it came out.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The states of all parties as they are stored, by name.
    #[must_use]
    pub fn states(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.actors.iter().map(|actor| (actor.name, actor.stored())).collect()
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first thing that did not hold.
    pub fn run(&mut self) -> Result<(), Failure> {
        let funding = Arc::new(self.fixture.funding.clone());
        self.chain.connect(vec![funding]).map_err(|reason| self.failure(reason))?;
        while !self.settled() {
            if self.height() > START.plus(BLOCKS_MAX) {
                let open = self.open_ends();
                return Err(self.failure(format!("not settled: {open}")));
            }
            self.block()?;
            for epoch in [EpochIndex(0), EpochIndex(1)] {
                self.judge_slash(epoch).map_err(|what| self.failure(what))?;
                self.judge_claims(epoch).map_err(|what| self.failure(what))?;
            }
        }
        self.judge().map_err(|what| self.failure(what))?;
        self.summary.blocks = self.height().since(START);
        let mut hasher = blake3::Hasher::new();
        for tx in self.chain.blocks().iter().flat_map(|block| &block.txs) {
            hasher.update(tx.compute_wtxid().as_ref());
        }
        self.summary.trace = hasher.finalize().into();
        Ok(())
    }

    pub(crate) fn failure(&self, what: String) -> Failure {
        let Options { seed, attack, at, .. } = self.options;
        Failure { seed, attack, at, height: self.height(), what }
    }

    pub(crate) fn height(&self) -> Height {
        self.chain.tip()
    }

    fn weather(&self) -> bool {
        self.options.weather && self.height() < START.plus(WEATHER_BLOCKS)
    }

    /// True with this probability, in bad weather.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.weather() && self.rng.gen_bool(probability)
    }

    fn floor(&self) -> FeeRate {
        FeeRate::from_sat_per_kwu(self.rate)
    }

    /// One block's time.
    fn block(&mut self) -> Result<(), Failure> {
        self.change_weather();
        self.reorganise()?;
        self.forget();
        let censored = self.censored.filter(|(_, until)| self.height() < *until).map(|(owner, _)| owner);
        let txs = self.pool.template(self.floor(), censored);
        self.chain
            .connect(txs)
            .map_err(|reason| self.failure(format!("the mempool offered a bad block: {reason}")))?;
        self.pool.clean(&self.chain);
        self.publish_again();
        self.prove();
        self.try_early();
        let mut order: Vec<usize> = (0..self.actors.len()).collect();
        if self.options.weather {
            order.shuffle(&mut self.rng);
        }
        for actor in order {
            self.sync(actor);
            self.serve()?;
        }
        Ok(())
    }

    fn change_weather(&mut self) {
        let height = self.height();
        let spiked = self.options.attack == Attack::FeeSpike;
        let drift: i64 = if self.weather() { self.rng.gen_range(-120..=120) } else { 0 };
        let calm = if height < self.spike_until { self.rate } else { self.rate.min(2_500) };
        self.rate = calm.saturating_add_signed(drift).max(300);
        let aimed = spiked && !self.struck && self.pool.has(&self.target_txid());
        self.struck |= aimed;
        if height >= self.spike_until && (aimed || self.happens(if spiked { 0.12 } else { 0.02 })) {
            let factor = if spiked { 20 } else { 4 };
            self.rate = (self.rate * factor).min(20_000);
            self.spike_until = height.plus(self.rng.gen_range(2..6));
        }
        let free = self.censored.is_none_or(|(_, until)| height >= until.plus(12));
        if free && self.happens(0.05) {
            let owner = self.rng.gen_range(0..self.actors.len());
            // For part of a time lock.
            self.censored = Some((owner, height.plus(self.rng.gen_range(2..5))));
        }
    }

    /// Proves batches whose time has come.
    fn prove(&mut self) {
        let height = self.height();
        let now: Vec<u32> =
            self.due.iter().filter(|(_, due)| **due <= height).map(|(batch, _)| *batch).collect();
        for batch in now {
            self.due.remove(&batch);
            self.actors[OPERATOR].prove(super::fixture::honest(batch));
        }
    }

    /// Lets mempools forget what they hold: a node that restarts, or has no room.
    fn forget(&mut self) {
        let since = self.height().since(START);
        let out = |(first, blocks): (u32, u32)| (first..first + blocks).contains(&since);
        if self.options.outage.is_some_and(out) {
            self.pool.evict(|| true);
        } else if self.happens(0.04) {
            let Self { pool, rng, .. } = self;
            pool.evict(|| rng.gen_bool(0.5));
        }
        self.pool.clean(&self.chain);
    }

    /// Takes blocks off the chain, now and then; their transactions may get lost.
    fn reorganise(&mut self) -> Result<(), Failure> {
        let often = if self.options.attack == Attack::Reorgs { 0.2 } else { 0.03 };
        let (double, across) = (self.double_due(), self.across_due());
        let depth = match double.or(across) {
            Some(depth) => depth,
            None if self.happens(often) && self.height() >= self.steady_until => {
                self.rng.gen_range(1..=REORG_MAX)
            }
            None => return Ok(()),
        };
        self.struck |= across.is_some();
        // The block of the funds stays.
        let depth = depth.min(self.chain.blocks().len() as u32 - 1);
        let mut gone = Vec::new();
        for _ in 0..depth {
            gone.extend(self.chain.disconnect());
        }
        self.summary.reorged += depth;
        if self.options.attack != Attack::Reorgs {
            // Two as deep as they get and censorship between them leave nothing of the time to answer.
            self.steady_until = self.height().plus(depth + u32::from(LOCKS.assert_blocks));
        }
        self.pool.clean(&self.chain);
        for block in gone.iter().rev() {
            for tx in &block.txs {
                let owner = self.owners.get(&tx.compute_txid()).copied().unwrap_or(PUBLISHER);
                let lost = match (double, across) {
                    (Some(_), _) => false,
                    (None, Some(_)) => self.rng.gen_bool(0.5),
                    (None, None) => self.happens(0.4),
                };
                if !lost {
                    self.pool.restore(&self.chain, tx, owner);
                }
            }
        }
        self.pool.clean(&self.chain);
        if let (Some(_), Some(tx)) = (double, self.double.clone()) {
            self.pool.swap(&tx);
        }
        // One block more than before follows: the heavier chain wins. The last one is mined by the caller.
        for _ in 0..depth {
            let txs = if double.is_some() { self.pool.template(MINIMUM, None) } else { Vec::new() };
            self.chain
                .connect(txs)
                .map_err(|reason| self.failure(format!("a reorganisation brought a bad block: {reason}")))?;
            self.pool.clean(&self.chain);
        }
        Ok(())
    }

    /// Depth of the reorganisation that takes the attacked claim out of its block, when it is time.
    fn across_due(&self) -> Option<u32> {
        if self.options.attack != Attack::Reorgs || self.struck {
            return None;
        }
        let made = self.chain.height_of(&self.target_txid())?;
        let wanted = 1 + (self.options.seed / 7 % u64::from(REORG_MAX)) as u32;
        let depth = self.height().plus(1).since(made);
        (depth >= wanted).then_some(depth.min(REORG_MAX))
    }

    /// Depth of the reorganisation that brings the claim's other values, when it is time: whenever the right ones are in a
    /// block, be it after another reorganisation.
    fn double_due(&self) -> Option<u32> {
        let double = self.double.as_ref()?;
        let made = self.chain.height_of(&double.compute_txid())?;
        let depth = self.height().plus(1).since(made);
        let block = self.chain.blocks().iter().find(|block| block.height == made)?;
        let same = block.txs.iter().any(|tx| tx.compute_wtxid() == double.compute_wtxid());
        (depth == 2 && !same).then_some(depth)
    }

    /// The claim that the attack is about.
    pub(crate) fn target(&self) -> ClaimId {
        ClaimId { epoch: EpochIndex(self.options.at / CLAIMS), claim: self.options.at % CLAIMS }
    }

    /// Id of its transaction, which the contract fixes.
    pub(crate) fn target_txid(&self) -> Txid {
        let claim = self.contract.node(self.target().tx(TxRole::Claim));
        claim.expect("the attacked claim is one of an announced epoch").tx.compute_txid()
    }

    /// Tells an actor about blocks, fees and what its shell has to say.
    fn sync(&mut self, index: usize) {
        let height = self.height();
        let actor = &mut self.actors[index];
        if actor.down_until > height || self.queue.iter().any(|(to, _)| *to == index) {
            return;
        }
        let blocks = self.chain.blocks();
        let common = actor.seen.iter().zip(blocks).take_while(|(seen, block)| **seen == block.id).count();
        let mut events = Vec::new();
        for at in (common..actor.seen.len()).rev() {
            events.push(Event::Disconnected(START.plus(at as u32 + 1)));
        }
        for block in &blocks[common..] {
            events.push(Event::Connected(Block { height: block.height, txs: block.txs.clone() }));
        }
        if std::mem::take(&mut actor.restarted) {
            events.push(Event::Restarted);
        }
        events.extend(std::mem::take(&mut actor.untold).into_iter().map(Event::BatchProved));
        let estimate = FeeRate::from_sat_per_kwu(self.rate + 100);
        events.insert(0, Event::Market(Market { estimate, minimum: MINIMUM, at: height }));
        // The shell learns of a reorganisation first: it speaks of data that is gone before the machine sees the blocks.
        self.report(index);
        self.queue.extend(events.into_iter().map(|event| (index, event)));
    }

    /// Everything that is waiting.
    fn serve(&mut self) -> Result<(), Failure> {
        while let Some((index, event)) = self.queue.pop_front() {
            if self.actors[index].down_until > self.height() {
                continue;
            }
            let Actor { machine, keys, .. } = &mut self.actors[index];
            let effects = machine.step(Context { contract: &self.contract, keys }, &event);
            let effects = effects.map_err(|error| self.failure(error.to_string()))?;
            self.summary.steps += 1;
            self.seen(index, &event);
            let name = self.actors[index].name;
            let checked = self.actors[index].machine.sender().check();
            checked.map_err(|what| self.failure(format!("{name}: {what}")))?;
            if self.killed(index, &effects) {
                // Before the effects, or after some of them.
                let done = self.rng.gen_range(0..=effects.len());
                for effect in effects.into_iter().take(done) {
                    self.carry_out(index, effect);
                }
                self.kill(index);
                continue;
            }
            for effect in effects {
                self.carry_out(index, effect);
            }
            if let Some(what) = self.violation.take() {
                return Err(self.failure(what));
            }
        }
        Ok(())
    }

    fn killed(&mut self, index: usize, effects: &[Effect]) -> bool {
        let often = self.options.attack == Attack::KilledMidAssert;
        self.killed_mid_assert(index, effects)
            || self.options.kill_at == Some(self.summary.steps)
            || self.happens(if often { 0.03 } else { 0.001 })
    }

    /// True if the operator dies while it opens an assertion or fills it: at least once with slots of the attacked claim, at
    /// most twice for a claim, so that there is time left to answer.
    fn killed_mid_assert(&mut self, index: usize, effects: &[Effect]) -> bool {
        if self.options.attack != Attack::KilledMidAssert || index != OPERATOR {
            return false;
        }
        let answers = effects.iter().filter_map(|effect| match effect {
            Effect::Assert(claim) => Some((*claim, false)),
            Effect::Broadcast(package) => {
                let id = self.contract.by_txid(&package.first()?.compute_txid())?;
                let claim = |claim| ClaimId { epoch: id.epoch, claim };
                match id.role {
                    TxRole::Assert(number) => Some((claim(number), false)),
                    TxRole::AssertSlot(number, _) => Some((claim(number), true)),
                    _ => None,
                }
            }
            _ => None,
        });
        let answers: Vec<(ClaimId, bool)> = answers.collect();
        let target = (self.target(), true);
        let first = answers.contains(&target) && !self.struck;
        let any = answers.first().map(|(claim, _)| *claim);
        let Some(claim) = any.map(|claim| if first { target.0 } else { claim }) else { return false };
        self.struck |= first;
        let before = self.mid_assert.get(&claim).copied().unwrap_or(0);
        let dies = first || (before < 1 && self.rng.gen_bool(0.5));
        if dies {
            self.mid_assert.insert(claim, before + 1);
        }
        dies
    }

    /// Ends a machine and starts it again from its stored state, after a while.
    fn kill(&mut self, index: usize) {
        self.summary.kills += 1;
        let height = self.height();
        let away = self.rng.gen_range(0..3);
        let actor = &mut self.actors[index];
        // It may die again and again, but is not away for longer than censorship lasts.
        let lately: u32 =
            actor.away.iter().filter(|(since, _)| height.since(*since) < 12).map(|(_, blocks)| blocks).sum();
        let away = away.min(AWAY_MAX.saturating_sub(lately));
        actor.away.push((height, away));
        let before = actor.machine.clone();
        actor.restart();
        actor.weaken(&self.options);
        if actor.machine != before {
            self.violation = Some(format!("{} does not come back as it was stored", actor.name));
        }
        actor.down_until = height.plus(away);
        actor.restarted = true;
        // Answers on their way are lost; blocks come again, and so do proved batches.
        self.queue.retain(|(to, _)| *to != index);
        self.sync(index);
    }

    /// Takes note of the blocks that an actor has seen.
    fn seen(&mut self, index: usize, event: &Event) {
        let actor = &mut self.actors[index];
        match event {
            Event::Disconnected(_) => drop(actor.seen.pop()),
            Event::Connected(block) => {
                let at = block.height.since(START) as usize - 1;
                actor.seen.extend(self.chain.blocks().get(at).map(|block| block.id));
            }
            _ => {}
        }
    }
}

/// When the operator's batches are proved: all at the start, or, in bad weather, now before the trunk has come that far, now after
/// it waits already.
fn due(options: &Options, rng: &mut ChaCha8Rng) -> BTreeMap<u32, Height> {
    let mut at = START.plus(1);
    let mut due = BTreeMap::new();
    for batch in 0..2 * CLAIMS {
        due.insert(batch, at);
        if options.weather {
            at = at.plus(rng.gen_range(0..=3));
        }
    }
    due
}

/// Takes the machines' remedies away.
pub(crate) fn weak_of(options: &Options, weakness: Weakness) -> bool {
    options.weakness == Some(weakness)
}

/// The actors' places are those of their keys; names for messages.
pub(crate) const NAMES: [(usize, &str); 6] = [
    (OPERATOR, "operator"),
    (1, "vigilante 1"),
    (2, "vigilante 2"),
    (BACKUP_WATCH, "backup's watch"),
    (BACKUP, "backup"),
    (GRIEFER, "griefer"),
];
