//! What stands around a machine: keys, the node, the prover, the attesters; and the liars' fingers.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_l1::graph::contract::build::{leaf, TxRole};
use bitcoin::script::PushBytesBuf;
use bitcoin::{absolute, transaction, Amount, FeeRate, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use rand::Rng;

use super::chain::lock;
use super::fixture::{
    batch_hash, honest, open_script, open_witness, state, with_digest, Fixture, BACKUP, BACKUP_WATCH, CLAIMS,
    GRIEFER, OPERATOR, PUBLISHER,
};
use super::options::{Attack, Options, Weakness};
use super::world::{weak_of, World, FINALITY, NAMES};
use crate::contract::Fill;
use crate::event::{Effect, Event, Fault, Reject};
use crate::fees::FeePolicy;
use crate::operator::{Operator, OperatorWeak};
use crate::party::{Context, Keys, Machine as _, StepError};
use crate::sender::{Sender, SenderWeak};
use crate::types::{ClaimId, EpochIndex, Height, Values, PREV_ROOT};
use crate::view::View;
use crate::vigilante::{Vigilante, VigilanteWeak, DATA_PATIENCE_BLOCKS};

/// Batches that are proved in all.
const BATCHES: u32 = 9;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Machine {
    Operator(Operator),
    Vigilante(Vigilante),
}

impl Machine {
    pub(crate) fn step(&mut self, context: Context<'_>, event: &Event) -> Result<Vec<Effect>, StepError> {
        match self {
            Self::Operator(machine) => machine.step(context, event),
            Self::Vigilante(machine) => machine.step(context, event),
        }
    }

    pub(crate) fn sender(&self) -> &Sender {
        match self {
            Self::Operator(machine) => machine.sender(),
            Self::Vigilante(machine) => machine.sender(),
        }
    }
}

pub(crate) struct Actor {
    pub(crate) name: &'static str,
    pub(crate) machine: Machine,
    pub(crate) keys: Keys,
    /// Ids of the blocks seen.
    pub(crate) seen: Vec<u64>,
    pub(crate) down_until: Height,
    /// When it was killed, and for how many blocks.
    pub(crate) away: Vec<(Height, u32)>,
    pub(crate) restarted: bool,
    /// Proved batches: no restart loses them.
    pub(crate) proved: Vec<Values>,
    /// Those that the machine is still to be told of: all of them, when its shell starts again.
    pub(crate) untold: Vec<Values>,
    /// The record of used keys: it survives everything.
    used: BTreeMap<ClaimId, Values>,
    /// Claims to look into.
    checks: Vec<(Height, ClaimId, Values)>,
    /// Data asked for, by the state that its batch starts at, and what was last said of it.
    published: BTreeMap<[u8; 32], Option<bool>>,
    /// What a liar keeps back, until when.
    withheld: Vec<(Height, Vec<Arc<Transaction>>)>,
}

impl Actor {
    pub(crate) fn all(options: &Options, start: Height) -> Vec<Self> {
        let budget = options.budget_sat.map_or(FeePolicy::REGTEST.budget, Amount::from_sat);
        let policy = FeePolicy { budget, ..FeePolicy::REGTEST };
        let actor = |(place, name): (usize, &'static str)| {
            let wallet = Fixture::wallet(place);
            let machine = match place {
                OPERATOR | BACKUP => Machine::Operator(Operator::new(wallet, FINALITY, start, policy)),
                BACKUP_WATCH => Machine::Vigilante(Vigilante::backup(wallet, FINALITY, start, policy)),
                _ => Machine::Vigilante(Vigilante::new(wallet, FINALITY, start, policy)),
            };
            Self {
                name,
                machine,
                keys: Fixture::keys(place),
                seen: Vec::new(),
                down_until: Height(0),
                away: Vec::new(),
                restarted: false,
                proved: Vec::new(),
                untold: Vec::new(),
                used: BTreeMap::new(),
                checks: Vec::new(),
                published: BTreeMap::new(),
                withheld: Vec::new(),
            }
        };
        let griefed = options.attack.griefed();
        NAMES.into_iter().filter(|(place, _)| *place != GRIEFER || griefed).map(actor).collect()
    }

    pub(crate) fn view(&self) -> &View {
        match &self.machine {
            Machine::Operator(machine) => machine.view(),
            Machine::Vigilante(machine) => machine.view(),
        }
    }

    /// Puts a proved batch where the shell finds it.
    pub(crate) fn prove(&mut self, values: Values) {
        self.proved.push(values);
        self.untold.push(values);
    }

    /// The machine's state as it is stored.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let stored = match &self.machine {
            Machine::Operator(machine) => bincode::serialize(machine),
            Machine::Vigilante(machine) => bincode::serialize(machine),
        };
        stored.expect("the state can be stored")
    }

    /// The machine as it comes back from its stored state.
    pub(crate) fn restart(&mut self) {
        let stored = self.stored();
        self.machine = match &self.machine {
            Machine::Operator(_) => {
                Machine::Operator(bincode::deserialize(&stored).expect("what was stored"))
            }
            Machine::Vigilante(_) => {
                Machine::Vigilante(bincode::deserialize(&stored).expect("what was stored"))
            }
        };
        self.untold.clone_from(&self.proved);
        self.checks.clear();
        self.published.values_mut().for_each(|said| *said = None);
    }

    /// Takes remedies away; a liar's operator signs what its shell says.
    pub(crate) fn weaken(&mut self, options: &Options) {
        let weak = |weakness| weak_of(options, weakness);
        let liar = !options.attack.honest() && self.name == "operator";
        let sender = SenderWeak {
            no_bump: weak(Weakness::NoBump),
            no_rebroadcast: weak(Weakness::NoRebroadcast),
            no_budget: weak(Weakness::NoBudget),
        };
        match &mut self.machine {
            Machine::Operator(machine) => {
                machine.weaken(OperatorWeak {
                    silent: weak(Weakness::Silent) || (liar && options.attack == Attack::NoAnswer),
                    forget_reorgs: weak(Weakness::ForgetReorgs),
                    forget_restarts: weak(Weakness::ForgetRestarts),
                    claim_first: weak(Weakness::ClaimFirst),
                    gullible: liar,
                    lazy: weak(Weakness::Lazy),
                });
                machine.sender_mut().weaken(sender);
            }
            Machine::Vigilante(machine) => {
                machine.weaken(VigilanteWeak {
                    no_digest: weak(Weakness::NoDigest),
                    no_link: weak(Weakness::NoLink),
                    no_check: weak(Weakness::NoCheck),
                    no_timeout: weak(Weakness::NoTimeout),
                    no_halt: weak(Weakness::NoHalt),
                    stale_verdict: weak(Weakness::StaleVerdict),
                    no_start: weak(Weakness::NoStart),
                    no_handover: weak(Weakness::NoHandover),
                    paranoid: self.name == "griefer",
                });
                machine.sender_mut().weaken(sender);
            }
        }
    }
}

impl World {
    /// Does what a machine asks for.
    pub(crate) fn carry_out(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Broadcast(package) => self.broadcast(index, package),
            Effect::Publish(root) => drop(self.actors[index].published.insert(root, None)),
            Effect::Later(root) => {
                let actor = &mut self.actors[index];
                actor.untold.extend(actor.proved.iter().filter(|values| values[PREV_ROOT] == root));
            }
            Effect::Sign(claim, values) => self.sign(index, claim, values),
            Effect::Assert(claim) => self.assert(index, claim),
            Effect::Check(claim, values) => {
                let due = self.height().plus(1);
                self.actors[index].checks.push((due, claim, values));
            }
            Effect::HandOver { epoch, claim, first_void } => {
                self.hand_over(ClaimId { epoch, claim }, first_void)
            }
            Effect::Alarm(alarm) => drop(self.alarms.entry(index).or_default().insert(alarm)),
        }
    }

    fn broadcast(&mut self, index: usize, package: Vec<Arc<Transaction>>) {
        let height = self.height();
        if self.griefs(index, &package).is_some_and(|from| height < from) {
            // Its machine offers it again in the next block.
            return;
        }
        if let Some(until) = self.withholds(index, &package) {
            if height < until {
                self.actors[index].withheld.push((until, package));
                return;
            }
            self.struck |= self.options.attack == Attack::LateAnswer;
        }
        self.check_order(index, &package);
        let Some(last) = package.last().map(|tx| tx.compute_txid()) else { return };
        let (minimum, incremental) = (FeeRate::from_sat_per_kwu(250), FeeRate::from_sat_per_kwu(250));
        let scripts = self.options.scripts || self.options.attack == Attack::WrongCodeRoot;
        let fresh = !self.pool.has(&last) && !self.chain.has(&last);
        match self.pool.accept(&self.chain, &package, (index, minimum, incremental), scripts) {
            Ok(()) => {
                self.summary.sent += u32::from(fresh);
                self.owners.extend(package.iter().map(|tx| (tx.compute_txid(), index)));
            }
            Err(reason) => {
                self.summary.rejected += 1;
                let target = package[0].compute_txid() == self.target_txid();
                let refused = target && matches!(reason, Reject::Other(_));
                self.struck |= refused && self.options.attack == Attack::WrongCodeRoot;
                self.queue.push_back((index, Event::Rejected { txid: last, reason }));
            }
        }
    }

    /// An honest claim is not sent for the first time before its data is in a block.
    fn check_order(&mut self, index: usize, package: &[Arc<Transaction>]) {
        let Some(txid) = package.first().map(|tx| tx.compute_txid()) else { return };
        let Some(id) = self.contract.by_txid(&txid) else { return };
        let TxRole::Claim(claim) = id.role else { return };
        let values = self.actors[index].used.get(&ClaimId { epoch: id.epoch, claim }).copied();
        let early =
            values.is_some_and(|values| !self.has_data(&values[2])) && !self.owners.contains_key(&txid);
        if early && (index != OPERATOR || self.options.attack.honest()) {
            self.violation = Some(format!("{id} is sent before its data"));
        }
    }

    /// When the griefer sends its challenge.
    fn griefs(&mut self, index: usize, package: &[Arc<Transaction>]) -> Option<Height> {
        if index != GRIEFER {
            return None;
        }
        let id = *self.contract.identify(package.last()?).first()?;
        let TxRole::Challenge(claim) = id.role else { return None };
        let claim = ClaimId { epoch: id.epoch, claim };
        let made = self.actors[index].view().confirmed(claim.tx(TxRole::Claim))?.height;
        let from = made.plus(self.options.grief_after);
        let sent = claim == self.target() && from <= self.height();
        self.struck |= sent && self.options.attack == Attack::Griefer;
        Some(from)
    }

    /// Until when a liar keeps a package back.
    fn withholds(&self, index: usize, package: &[Arc<Transaction>]) -> Option<Height> {
        let id = self.contract.by_txid(&package.first()?.compute_txid())?;
        let never = Height(u32::MAX);
        let made =
            |claim| self.actors[index].view().confirmed(ClaimId { epoch: id.epoch, claim }.tx(TxRole::Claim));
        match (self.options.attack, id.role) {
            _ if index != OPERATOR => None,
            (Attack::HalfAnswer, TxRole::AssertSlot(_, 1)) => Some(never),
            (Attack::LateAnswer, TxRole::Assert(claim)) => {
                let locks = super::fixture::LOCKS;
                let answer = u32::from(locks.challenge_blocks + locks.assert_blocks);
                // From the block in which the slash becomes possible on.
                Some(made(claim)?.height.plus(answer + (self.options.seed % 4) as u32))
            }
            _ => None,
        }
    }

    /// The values that the operator signs in place of the right ones.
    fn lie(&self, values: Values) -> Values {
        let at = self.options.at;
        match self.options.attack {
            Attack::SkippedBatch => {
                with_digest([state(at + 1), state(at + 2), batch_hash(at + 1), values[3], [0; 32]])
            }
            Attack::ForgedRoot => with_digest([values[0], state(1_000), values[2], values[3], [0; 32]]),
            Attack::WrongCodeRoot => with_digest([values[0], values[1], values[2], [0x66; 32], [0; 32]]),
            Attack::WrongInput => {
                let mut values = values;
                values[4][7] ^= 1;
                values
            }
            _ => values,
        }
    }

    fn sign(&mut self, index: usize, claim: ClaimId, values: Values) {
        let Some(number) = self.contract.epoch(claim.epoch).map(|epoch| epoch.spec().terms.epoch) else {
            return;
        };
        let target = index == OPERATOR && claim == self.target();
        let lying = target && !self.options.attack.honest();
        if target && self.options.attack == Attack::Stopped {
            self.struck = true;
            return;
        }
        let values = if lying { self.lie(values) } else { values };
        let before = *self.actors[index].used.entry(claim).or_insert(values);
        if before != values {
            if !lying {
                let name = self.actors[index].name;
                self.violation = Some(format!("{name} signs two values for {claim}"));
            }
            self.queue.push_back((index, Event::KeyUsed(claim)));
            return;
        }
        let items = self.fixture.claim_items(index, number, claim.claim, &values);
        if target && self.options.attack == Attack::DoubleClaim {
            // No batch has this hash.
            let other = with_digest([values[0], values[1], [0x77; 32], values[3], [0; 32]]);
            let items = self.fixture.claim_items(index, number, claim.claim, &other);
            self.double = self.claim_tx(index, claim, items.as_ref().clone());
        }
        self.queue.push_back((index, Event::Signed { claim, values, items: items.as_ref().clone() }));
    }

    fn claim_tx(&self, index: usize, claim: ClaimId, items: Vec<Vec<u8>>) -> Option<Arc<Transaction>> {
        let epoch = self.contract.epoch(claim.epoch)?;
        let fill = Fill { leaf: leaf::CLAIM, items };
        let key = &self.actors[index].keys.operator;
        epoch.complete_as_operator(TxRole::Claim(claim.claim), fill, key).ok().map(Arc::new)
    }

    /// The claim before its time: neither a mempool nor a miner in league may get it in.
    pub(crate) fn try_early(&mut self) {
        if self.options.attack != Attack::ClaimEarly || self.struck {
            return;
        }
        let claim = self.target();
        let Some(node) = self.contract.node(claim.tx(TxRole::Claim)) else { return };
        let Some(before) = self.chain.height_of(&node.tx.input[0].previous_output.txid) else { return };
        if self.height().plus(1) >= before.plus(lock(&node.tx, 0)) {
            return;
        }
        let Some(number) = self.contract.epoch(claim.epoch).map(|epoch| epoch.spec().terms.epoch) else {
            return;
        };
        // What its operator will say in time, too: the one-time keys sign nothing else.
        let items = self.fixture.claim_items(OPERATOR, number, claim.claim, &honest(self.options.at));
        let Some(tx) = self.claim_tx(OPERATOR, claim, items.as_ref().clone()) else { return };
        let rate = FeeRate::from_sat_per_kwu(250);
        let pooled = self.pool.accept(&self.chain, std::slice::from_ref(&tx), (OPERATOR, rate, rate), false);
        let mined = self.chain.clone().connect(vec![tx]);
        let early = Reject::Other("non-BIP68-final".to_owned());
        if pooled != Err(early) || mined != Err("bad-txns-nonfinal".to_owned()) {
            self.violation = Some(format!("{claim} before its time: {pooled:?}, {mined:?}"));
        }
        self.struck = true;
    }

    fn assert(&mut self, index: usize, claim: ClaimId) {
        let Some(number) = self.contract.epoch(claim.epoch).map(|epoch| epoch.spec().terms.epoch) else {
            return;
        };
        let wrong = index == OPERATOR
            && claim == self.target()
            && !self.options.attack.honest()
            && !self.options.attack.unpunished();
        let last = if wrong { 0x12 } else { 0x11 };
        let slots = self.fixture.slot_items(index, number, claim.claim, last).as_ref().clone();
        self.queue.push_back((index, Event::Asserted { claim, slots }));
    }

    /// The attesters sign the backup's epoch, if there is anything left to claim.
    fn hand_over(&mut self, end: ClaimId, first_void: ClaimId) {
        let over = self.options.attack.honest() || self.options.attack.unpunished();
        let complete = first_void == ClaimId { epoch: EpochIndex(1), claim: CLAIMS };
        if over || complete || self.handed_over.contains_key(&end.epoch) {
            return;
        }
        let Some(next) = self.fixture.handover(end, first_void) else { return };
        let index = self.contract.push(next);
        self.handed_over.insert(end.epoch, (first_void, index));
        for batch in first_void.epoch.0 * CLAIMS + first_void.claim..BATCHES {
            self.actors[BACKUP].prove(honest(batch));
        }
    }

    /// What the shell of an actor has to say by itself: data, verdicts, what was kept back.
    pub(crate) fn report(&mut self, index: usize) {
        let height = self.height();
        let actor = &mut self.actors[index];
        let (late, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut actor.withheld).into_iter().partition(|(until, _)| *until <= height);
        actor.withheld = rest;
        for (_, package) in late {
            self.broadcast(index, package);
        }
        self.report_data(index);
        for (due, claim, values) in std::mem::take(&mut self.actors[index].checks) {
            // A claim that a reorganisation took away is asked for again when it is back.
            let made = self.actors[index].view().confirmed(claim.tx(TxRole::Claim));
            let made = made.filter(|made| made.values == Some(values)).map(|made| made.height);
            let Some(until) = made.map(|made| made.plus(DATA_PATIENCE_BLOCKS)) else { continue };
            let faults = self
                .faults(claim, &values, until)
                .filter(|faults| height >= due && (height >= until || !faults.contains(&Fault::DataMissing)));
            match faults {
                Some(faults) => self.queue.push_back((index, Event::Verdict { claim, values, faults })),
                None => self.actors[index].checks.push((due, claim, values)),
            }
        }
    }

    fn report_data(&mut self, index: usize) {
        let hidden = (self.options.attack.withholds() && index == OPERATOR).then(|| state(self.options.at));
        let roots: Vec<_> = self.actors[index].published.iter().map(|(root, said)| (*root, *said)).collect();
        for (root, said) in roots {
            let batch = (0..BATCHES).find(|batch| state(*batch) == root);
            let Some(batch) = batch else { continue };
            let lied = hidden == Some(root);
            let on_chain = lied || self.has_data(&batch_hash(batch));
            let is_due = if lied { self.withheld_long_enough() } else { self.data_ready(batch) };
            if is_due {
                self.publish(batch);
            }
            if said != Some(on_chain) {
                self.actors[index].published.insert(root, Some(on_chain));
                self.queue.push_back((index, Event::Data { prev_root: root, on_chain }));
            }
        }
    }

    /// True if the attacked claim's data, which was to be there before it, is published now.
    fn withheld_long_enough(&self) -> bool {
        let made = self.chain.height_of(&self.target_txid());
        made.zip(self.options.data_after).is_some_and(|(made, after)| self.height() >= made.plus(after))
    }

    /// True if a batch's data can be sent: it takes some blocks in bad weather.
    fn data_ready(&mut self, batch: u32) -> bool {
        let height = self.height();
        if let Some(due) = self.data_due.get(&batch) {
            return *due <= height;
        }
        let late = if self.options.weather { self.rng.gen_range(0..=4) } else { 0 };
        self.data_due.insert(batch, height.plus(late));
        late == 0
    }

    fn has_data(&self, hash: &[u8; 32]) -> bool {
        self.data_height(hash).is_some()
    }

    /// The block of a batch's data.
    pub(crate) fn data_height(&self, hash: &[u8; 32]) -> Option<Height> {
        self.chain.height_of(&self.data.get(hash)?.compute_txid())
    }

    /// True if whoever executes what is on the chain knows the state.
    fn is_known(&self, root: &[u8; 32]) -> bool {
        let before = (0..=BATCHES).find(|batch| state(*batch) == *root);
        before.is_some_and(|before| (0..before).all(|batch| self.has_data(&batch_hash(batch))))
    }

    /// Stands for the envelopes: a transaction with the batch's hash.
    fn publish(&mut self, batch: u32) {
        let hash = batch_hash(batch);
        if self.data.contains_key(&hash) {
            return;
        }
        let Some((outpoint, value)) = self.data_coins.pop() else { return };
        let mark = PushBytesBuf::try_from([b"data".as_slice(), &hash].concat()).expect("36 bytes");
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: open_witness(),
            }],
            output: vec![
                TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(mark) },
                TxOut { value: value - Amount::from_sat(30_000), script_pubkey: open_script() },
            ],
        };
        self.data.insert(hash, Arc::new(tx));
        self.publish_again();
    }

    /// Offers data again that is in no block.
    pub(crate) fn publish_again(&mut self) {
        let rate = FeeRate::from_sat_per_kwu(250);
        for tx in self.data.values().cloned().collect::<Vec<_>>() {
            // Conflicts are impossible, so what is refused is there already.
            let _known = self.pool.accept(&self.chain, &[tx], (PUBLISHER, rate, rate), false);
        }
    }

    /// What looking into a claim gives, whose data counts up to block `until`; `None` while it cannot be executed.
    fn faults(&self, claim: ClaimId, values: &Values, until: Height) -> Option<Vec<Fault>> {
        let mut faults = Vec::new();
        let target = claim == self.target();
        let batch = (0..BATCHES).find(|batch| batch_hash(*batch) == values[2]);
        if self.data_height(&values[2]).is_none_or(|height| height > until) {
            faults.push(if batch.is_some() { Fault::DataMissing } else { Fault::BatchHash });
        } else if !self.is_known(&values[0]) {
            return None;
        }
        let right = batch.map(honest);
        if right.is_some_and(|right| right[1] != values[1]) {
            faults.extend([Fault::NewRoot, Fault::Proof]);
        }
        let attack = self.options.attack;
        let bad_proof =
            [Attack::BadProof, Attack::PerfectLie, Attack::NoAnswer, Attack::HalfAnswer, Attack::LateAnswer];
        if target && bad_proof.contains(&attack) {
            faults.push(Fault::Proof);
        }
        if target && attack == Attack::DroppedForced {
            faults.push(Fault::ForcedDropped);
        }
        Some(faults)
    }
}
