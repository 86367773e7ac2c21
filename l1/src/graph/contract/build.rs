//! From the spec of an epoch to its transactions.

mod games;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::Builder;
use bitcoin::sighash::TapSighashType;
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};

use super::keys::EpochKeys;
use super::scripts::{self, VerifierLeaves};
use super::spec::{ContractSpec, CONTRACT_MARK};
use crate::graph::connector::{LeafSpend, ScriptOutput, CONNECTOR_VALUE};
use crate::graph::terms::TermsError;
use crate::graph::transactions::wallet_script;
use crate::script::tree::TreeSizeError;

/// Which transaction of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TxRole {
    /// Opens the epoch.
    Reconfiguration,
    /// Claim with this number.
    Claim(u32),
    /// Ends the trunk in place of the claim with this number; `claims_max` stands for the next epoch.
    ClaimTimeout(u32),
    /// Nobody challenged the claim.
    OptimisticAcceptance(u32),
    /// Somebody challenges the claim.
    Challenge(u32),
    /// Opens the assertion.
    Assert(u32),
    /// Fills a slot of the assertion: claim, slot.
    AssertSlot(u32, u16),
    /// Slash: challenged, and no assertion in time.
    AssertTimeout(u32),
    /// Slash: a slot not filled in time.
    SlotTimeout(u32, u16),
    /// Slash: the values of a claim are wrong in themselves; needs no assertion.
    DisproveInput(u32),
    /// Slash: the values of a claim or of its assertion are wrong.
    Disprove(u32),
    /// The assertion stood.
    Acceptance(u32),
    /// The operator gets its collateral back.
    PayOut,
}

impl std::fmt::Display for TxRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// An input of a transaction of the graph.
#[derive(Debug, Clone)]
pub enum Input {
    /// An output of the contract.
    Contract {
        /// The output.
        output: Arc<ScriptOutput>,
        /// The leaves that may be used, each signed by the attesters.
        leaves: Vec<usize>,
        /// What the attesters' signature commits to.
        sighash: TapSighashType,
    },
    /// The operator's coin, spent by its key.
    Funding(TxOut),
}

impl Input {
    /// The output spent.
    #[must_use]
    pub fn txout(&self) -> TxOut {
        match self {
            Self::Contract { output, .. } => output.txout(),
            Self::Funding(coin) => coin.clone(),
        }
    }
}

/// A transaction of the graph, without witnesses.
#[derive(Debug, Clone)]
pub struct Node {
    /// The transaction.
    pub tx: Transaction,
    /// What its inputs spend, in the same order.
    pub inputs: Vec<Input>,
}

impl Node {
    /// The outputs spent.
    #[must_use]
    pub fn spent(&self) -> Vec<TxOut> {
        self.inputs.iter().map(Input::txout).collect()
    }
}

/// Why there is no graph.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// The spec is out of range.
    #[error(transparent)]
    Spec(#[from] TermsError),
    /// The one-time keys are not those that the spec commits to.
    #[error("the one-time keys are not those that the spec commits to")]
    Keys,
    /// The verifier's leaves are not those that the spec names.
    #[error("the spec names another set of verifier leaves")]
    VerifierLeaves,
    /// Too many leaves for a script tree.
    #[error(transparent)]
    Leaves(#[from] TreeSizeError),
    /// The coin is not of the operator's key, or its value is not exactly what the epoch needs.
    #[error("the funding coin must have {expected} and the operator's script, got {got}")]
    Funding {
        /// Value needed.
        expected: Amount,
        /// Value of the coin.
        got: Amount,
    },
    /// The epoch before announced another spec: users would have had no time to leave.
    #[error("the epoch before announced another spec than this one")]
    NotAnnounced,
    /// Epoch 0 follows no other; every later one follows the one before.
    #[error("epoch {epoch} does not follow epoch {previous:?}")]
    Order {
        /// This epoch.
        epoch: u32,
        /// The one given as its predecessor.
        previous: Option<u32>,
    },
}

/// How an epoch ends, as the next one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochEnd {
    /// Number of the epoch.
    pub epoch: u32,
    /// Its last connector.
    pub connector: OutPoint,
    /// The connector's script and value.
    pub output: ScriptOutput,
    /// Id of the spec that it announced for the next epoch.
    pub announced: [u8; 32],
}

/// Everything beside the spec that goes into a graph.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The one-time keys.
    pub keys: &'a EpochKeys,
    /// The verifier.
    pub verifier: &'a dyn VerifierLeaves,
    /// The funding coin's output.
    pub coin: &'a TxOut,
    /// The epoch before; `None` for epoch 0.
    pub previous: Option<&'a EpochEnd>,
    /// Id of the next epoch's spec, which this epoch's Reconfiguration announces: the exit window. Epoch N + 2 is
    /// fixed when epoch N + 1 opens, and users have all of N + 1 to leave.
    pub announce: [u8; 32],
}

/// The transactions of an epoch.
#[derive(Debug, Clone)]
pub struct Graph {
    spec: ContractSpec,
    nodes: BTreeMap<TxRole, Node>,
    end: EpochEnd,
}

/// Pays to anyone: carries the fee of a version 3 transaction in a child.
#[must_use]
pub fn anchor() -> TxOut {
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73]) }
}

/// Where a leaf lies in a connector.
pub mod leaf {
    /// Claim connector: the claim, or the next epoch after the last claim.
    pub const CLAIM: usize = 0;
    /// Claim connector: timeout.
    pub const CLAIM_TIMEOUT: usize = 1;
    /// Challenge connector: nobody challenged.
    pub const UNCHALLENGED: usize = 0;
    /// Challenge connector: challenge.
    pub const CHALLENGE: usize = 1;
    /// Game connector: nobody challenged.
    pub const OPTIMISTIC: usize = 0;
    /// Game connector: open the assertion.
    pub const ASSERT: usize = 1;
    /// Game connector: no assertion in time.
    pub const ASSERT_TIMEOUT: usize = 2;
    /// Game connector: first of the disproofs. The input's, then, except in claim 0, the link's.
    pub const GAME_DISPROOFS: usize = 3;
    /// Slot: its values.
    pub const SLOT: usize = 0;
    /// Slot: not filled in time.
    pub const SLOT_TIMEOUT: usize = 1;
    /// Dispute connector and filled slots: the assertion stood.
    pub const ACCEPT: usize = 0;
    /// Dispute connector: first of the disproofs. The input's, the link's (not in claim 0), then the verifier's.
    pub const DISPUTE_DISPROOFS: usize = 1;
    /// Collateral: slash.
    pub const SLASH: usize = 0;
    /// Collateral: back to the operator.
    pub const PAY_OUT: usize = 1;
}

/// Value that the funding coin must have.
#[must_use]
pub fn funding_value(spec: &ContractSpec, previous: Option<&EpochEnd>) -> Amount {
    let needed = spec.connector_value(0) + spec.terms.collateral;
    needed - previous.map_or(Amount::ZERO, |end| end.output.txout().value)
}

struct Drafts<'a> {
    spec: &'a ContractSpec,
    keys: &'a EpochKeys,
    verifier: &'a dyn VerifierLeaves,
    nodes: BTreeMap<TxRole, Node>,
}

/// An output of the contract where it lies.
#[derive(Clone)]
struct Placed {
    outpoint: OutPoint,
    output: Arc<ScriptOutput>,
}

impl Placed {
    fn input(&self, leaves: Vec<usize>, sighash: TapSighashType, lock: Option<u16>) -> (TxIn, Input) {
        let sequence = lock.map_or(Sequence::ENABLE_RBF_NO_LOCKTIME, Sequence::from_height);
        let input = Input::Contract { output: Arc::clone(&self.output), leaves, sighash };
        (unsigned(self.outpoint, sequence), input)
    }

    /// One leaf, signed over the whole transaction.
    fn whole(&self, leaf: usize, lock: Option<u16>) -> (TxIn, Input) {
        self.input(vec![leaf], TapSighashType::Default, lock)
    }
}

fn unsigned(previous_output: OutPoint, sequence: Sequence) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() }
}

impl Graph {
    /// The graph of an epoch: a pure function of its arguments.
    ///
    /// # Errors
    /// Where the arguments do not fit each other or the contract's rules.
    pub fn build(spec: &ContractSpec, around: Surroundings<'_>) -> Result<Self, GraphError> {
        check(spec, &around)?;
        let mut drafts =
            Drafts { spec, keys: around.keys, verifier: around.verifier, nodes: BTreeMap::new() };
        let (mut connector, collateral) = drafts.reconfiguration(&around);
        drafts.pay_out(&collateral);
        for claim in 0..spec.terms.claims_max {
            drafts.claim_timeout(claim, &connector);
            connector = drafts.claim(claim, &connector, &collateral)?;
        }
        drafts.claim_timeout(spec.terms.claims_max, &connector);
        let end = EpochEnd {
            epoch: spec.terms.epoch,
            connector: connector.outpoint,
            output: connector.output.as_ref().clone(),
            announced: around.announce,
        };
        Ok(Self { spec: spec.clone(), nodes: drafts.nodes, end })
    }

    /// The spec.
    #[must_use]
    pub fn spec(&self) -> &ContractSpec {
        &self.spec
    }

    /// All transactions, in the order of their roles.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<TxRole, Node> {
        &self.nodes
    }

    /// One transaction.
    #[must_use]
    pub fn node(&self, role: TxRole) -> Option<&Node> {
        self.nodes.get(&role)
    }

    /// What the next epoch is built on.
    #[must_use]
    pub fn end(&self) -> &EpochEnd {
        &self.end
    }

    /// How to spend `leaf` in input `input` of a transaction; `None` if it is not one of those that may be used there, or a
    /// verifier leaf, whose script is not kept (see [`ScriptOutput::hidden_leaf`]).
    #[must_use]
    pub fn leaf(&self, role: TxRole, input: usize, leaf: usize) -> Option<LeafSpend> {
        match self.node(role)?.inputs.get(input)? {
            Input::Contract { output, leaves, .. } if leaves.contains(&leaf) => output.leaf(leaf),
            _ => None,
        }
    }
}

fn check(spec: &ContractSpec, around: &Surroundings<'_>) -> Result<(), GraphError> {
    spec.validate()?;
    let previous = around.previous.map(|end| end.epoch);
    if spec.terms.epoch.checked_sub(1) != previous {
        return Err(GraphError::Order { epoch: spec.terms.epoch, previous });
    }
    if around.previous.is_some_and(|end| end.announced != spec.id()) {
        return Err(GraphError::NotAnnounced);
    }
    if around.verifier.id() != spec.verifier_leaves {
        return Err(GraphError::VerifierLeaves);
    }
    if !around.keys.belong_to(spec) {
        return Err(GraphError::Keys);
    }
    let expected = funding_value(spec, around.previous);
    let coin = around.coin;
    if coin.value != expected || coin.script_pubkey != wallet_script(spec.terms.operator_key) {
        return Err(GraphError::Funding { expected, got: coin.value });
    }
    Ok(())
}

impl Drafts<'_> {
    fn add(
        &mut self,
        role: TxRole,
        version: i32,
        inputs: impl IntoIterator<Item = (TxIn, Input)>,
        output: Vec<TxOut>,
    ) -> Txid {
        let (input, inputs) = inputs.into_iter().unzip();
        let version = transaction::Version(version);
        let tx = Transaction { version, lock_time: absolute::LockTime::ZERO, input, output };
        let txid = tx.compute_txid();
        let before = self.nodes.insert(role, Node { tx, inputs });
        debug_assert!(before.is_none(), "{role} is drafted once");
        txid
    }

    /// A version 3 transaction without a fee; the anchor is its last output.
    fn anchored(
        &mut self,
        role: TxRole,
        inputs: impl IntoIterator<Item = (TxIn, Input)>,
        mut outputs: Vec<TxOut>,
    ) -> Txid {
        outputs.push(anchor());
        self.add(role, 3, inputs, outputs)
    }

    /// Collateral and the connector that proves a fault; anyone adds outputs for itself.
    fn slash(&mut self, role: TxRole, collateral: &Placed, proof: (TxIn, Input)) {
        let slashed = collateral.input(vec![leaf::SLASH], TapSighashType::Single, None);
        let sink = TxOut { value: self.spec.slashed_to_sink, script_pubkey: wallet_script(self.spec.sink) };
        self.add(role, 2, [slashed, proof], vec![sink]);
    }

    fn operator(&self, value: Amount) -> TxOut {
        TxOut { value, script_pubkey: wallet_script(self.spec.terms.operator_key) }
    }

    /// An output with these leaves, and the sink's as the last one.
    fn output(&self, mut leaves: Vec<ScriptBuf>, value: Amount) -> Arc<ScriptOutput> {
        leaves.push(self.sink_leaf());
        Arc::new(ScriptOutput::new(leaves, value))
    }

    fn sink_leaf(&self) -> ScriptBuf {
        scripts::signed_after(&self.spec.sink, self.spec.locks.sink_blocks)
    }

    fn signed_after(&self, blocks: u16) -> ScriptBuf {
        scripts::signed_after(&self.spec.attesters, blocks)
    }

    /// The connector that claim `claim` spends.
    fn connector(&self, claim: u32) -> Arc<ScriptOutput> {
        let forward = match self.keys.0.get(claim as usize) {
            Some(keys) => scripts::claim(self.spec, claim, keys),
            None => scripts::next_epoch(self.spec),
        };
        let leaves = vec![forward, self.signed_after(self.spec.locks.claim_timeout_blocks)];
        self.output(leaves, self.spec.connector_value(claim))
    }

    /// Connector 0 and the collateral.
    fn reconfiguration(&mut self, around: &Surroundings<'_>) -> (Placed, Placed) {
        let spec = self.spec;
        let cadence = spec.terms.locks.cadence_blocks;
        let previous = around.previous.map(|end| {
            let placed = Placed { outpoint: end.connector, output: Arc::new(end.output.clone()) };
            placed.whole(leaf::CLAIM, Some(cadence))
        });
        let coin = unsigned(spec.funding, Sequence::ENABLE_RBF_NO_LOCKTIME);
        let coin = (coin, Input::Funding(around.coin.clone()));
        let mark = [CONTRACT_MARK.as_slice(), &spec.id(), &around.announce].concat();
        let mark = <[u8; 69]>::try_from(mark).expect("5 + 32 + 32 bytes");
        let mark = Builder::new().push_opcode(OP_RETURN).push_slice(mark).into_script();
        let connector = self.connector(0);
        let collateral = self.output(
            vec![scripts::signed(&spec.attesters), self.signed_after(spec.terms.locks.collateral_blocks)],
            spec.terms.collateral,
        );
        let outputs =
            vec![connector.txout(), collateral.txout(), TxOut { value: Amount::ZERO, script_pubkey: mark }];
        let txid = self.anchored(TxRole::Reconfiguration, previous.into_iter().chain([coin]), outputs);
        let place = |vout, output| Placed { outpoint: OutPoint::new(txid, vout), output };
        (place(0, connector), place(1, collateral))
    }

    fn pay_out(&mut self, collateral: &Placed) {
        let input = collateral.whole(leaf::PAY_OUT, Some(self.spec.terms.locks.collateral_blocks));
        self.anchored(TxRole::PayOut, [input], vec![self.operator(self.spec.terms.collateral)]);
    }

    /// Leaves the connector's value where the attesters can hand it to another operator, or the sink gets it.
    fn claim_timeout(&mut self, claim: u32, connector: &Placed) {
        let input = connector.whole(leaf::CLAIM_TIMEOUT, Some(self.spec.locks.claim_timeout_blocks));
        let value = self.spec.connector_value(claim);
        let halted = self.output(vec![scripts::signed(&self.spec.attesters)], value).txout();
        self.anchored(TxRole::ClaimTimeout(claim), [input], vec![halted]);
    }

    /// Claim `claim` and its game; the next connector.
    fn claim(
        &mut self,
        claim: u32,
        connector: &Placed,
        collateral: &Placed,
    ) -> Result<Placed, TreeSizeError> {
        let spec = self.spec;
        let input = connector.whole(leaf::CLAIM, Some(spec.terms.locks.cadence_blocks));
        let next = self.connector(claim + 1);
        let challenge = self.output(
            vec![self.signed_after(spec.locks.challenge_blocks), scripts::signed(&spec.attesters)],
            CONNECTOR_VALUE,
        );
        let game = self.game(claim);
        let outputs = vec![next.txout(), challenge.txout(), game.txout()];
        let txid = self.anchored(TxRole::Claim(claim), [input], outputs);
        let place = |vout, output| Placed { outpoint: OutPoint::new(txid, vout), output };
        self.play(claim, &place(1, challenge), &place(2, game), collateral)?;
        Ok(place(0, next))
    }
}
