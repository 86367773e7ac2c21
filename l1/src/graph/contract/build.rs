//! From the spec of an epoch to its transactions.

mod games;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::Builder;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::sighash::TapSighashType;
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use serde::{Deserialize, Serialize};

use super::keys::EpochKeys;
use super::scripts::{self, VerifierLeaves};
use super::spec::{ContractSpec, CONTRACT_MARK};
use crate::graph::connector::{LeafSpend, ScriptOutput, CONNECTOR_VALUE};
use crate::graph::terms::{ClaimValue, TermsError};
use crate::graph::transactions::wallet_script;
use crate::script::tree::TreeSizeError;
use crate::wots::PublicKey;

/// Which transaction of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// Slash: neither accepted nor an assertion in time. Consensus does not ask for a challenge: an unchallenged claim whose
    /// OptimisticAcceptance is left out can be slashed, too.
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
        /// The key of that signature: the epoch's attesters, but of the epoch before for what it left.
        signer: XOnlyPublicKey,
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
    /// The coin is not of the operator's key, or its value is not exactly what the epoch needs, or that would be dust.
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
    /// An epoch follows one of its own trunk.
    #[error("the epoch before is of another trunk")]
    Trunk,
    /// Epoch 0 follows no other; every later one follows the one before.
    #[error("epoch {epoch} does not follow epoch {previous:?}")]
    Order {
        /// This epoch.
        epoch: u32,
        /// The one given as its predecessor.
        previous: Option<u32>,
    },
}

/// Where a claim starts: what its signed previous root has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// This state, a constant of the claim's script: the first claim of a trunk.
    Commitment([u8; 32]),
    /// The new root that the claim before signs under this one-time key, which is known long before the root is.
    Signed(PublicKey),
}

impl Start {
    /// The state, if it is a constant.
    #[must_use]
    pub fn commitment(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Commitment(state) => Some(state),
            Self::Signed(_) => None,
        }
    }

    /// The key that signs the state, if it is not.
    #[must_use]
    pub fn signed(&self) -> Option<&PublicKey> {
        match self {
            Self::Commitment(_) => None,
            Self::Signed(key) => Some(key),
        }
    }
}

/// How an epoch ends, as the next one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochEnd {
    /// Number of the epoch.
    pub epoch: u32,
    /// The trunk.
    pub trunk_id: [u8; 32],
    /// What it leaves to the next epoch: its last connector, or the output of a ClaimTimeout.
    pub connector: OutPoint,
    /// The connector's script and value.
    pub output: ScriptOutput,
    /// Where the next epoch's claim 0 starts.
    pub start: Start,
    /// Blocks before the next epoch may open.
    pub lock: u16,
    /// Who signs the opening: the ending epoch's attesters, or its recovery key.
    pub signer: XOnlyPublicKey,
    /// How it ends.
    pub kind: EndKind,
}

/// How an epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// All claims were made. The next epoch has the spec with this id; the operator of this one signs its opening, too.
    Announced([u8; 32]),
    /// By a ClaimTimeout. Any operator goes on whose Reconfiguration the holders of the recovery key sign.
    Halted,
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
    /// Where each claim starts; the last one is where the next epoch does.
    starts: Vec<Start>,
    /// What each ClaimTimeout leaves.
    halts: Vec<Placed>,
    announced: [u8; 32],
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
    /// Output of a ClaimTimeout: the hand-over to another operator.
    pub const HANDOVER: usize = 0;
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
    /// Game connector: first of the disproofs. The input's, then the link's, except where the claim starts at a constant.
    pub const GAME_DISPROOFS: usize = 3;
    /// Slot: its values.
    pub const SLOT: usize = 0;
    /// Slot: not filled in time.
    pub const SLOT_TIMEOUT: usize = 1;
    /// Dispute connector and filled slots: the assertion stood.
    pub const ACCEPT: usize = 0;
    /// Dispute connector: first of the disproofs. The input's, the link's (as above), then the verifier's.
    pub const DISPUTE_DISPROOFS: usize = 1;
    /// Collateral: slash.
    pub const SLASH: usize = 0;
    /// Collateral: back to the operator.
    pub const PAY_OUT: usize = 1;
}

/// Value that the funding coin must have. There is no graph if it would be dust: the epoch before left more than is needed.
#[must_use]
pub fn funding_value(spec: &ContractSpec, previous: Option<&EpochEnd>) -> Amount {
    let needed = spec.connector_value(0) + spec.terms.collateral;
    let left = previous.map_or(Amount::ZERO, |end| end.output.txout().value);
    needed.checked_sub(left).unwrap_or(Amount::ZERO)
}

struct Drafts<'a> {
    spec: &'a ContractSpec,
    keys: &'a EpochKeys,
    verifier: &'a dyn VerifierLeaves,
    starts: Vec<Start>,
    nodes: BTreeMap<TxRole, Node>,
}

/// An output of the contract where it lies.
#[derive(Debug, Clone)]
struct Placed {
    outpoint: OutPoint,
    output: Arc<ScriptOutput>,
    signer: XOnlyPublicKey,
}

impl Placed {
    fn input(&self, leaves: Vec<usize>, sighash: TapSighashType, lock: Option<u16>) -> (TxIn, Input) {
        let sequence = lock.map_or(Sequence::ENABLE_RBF_NO_LOCKTIME, Sequence::from_height);
        let input =
            Input::Contract { output: Arc::clone(&self.output), leaves, sighash, signer: self.signer };
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
    ///
    /// # Panics
    /// If an epoch starts nowhere, which the checks rule out.
    pub fn build(spec: &ContractSpec, around: Surroundings<'_>) -> Result<Self, GraphError> {
        check(spec, &around)?;
        let starts = starts(spec, &around);
        let last = starts.last().expect("an epoch starts somewhere").clone();
        let mut drafts =
            Drafts { spec, keys: around.keys, verifier: around.verifier, starts, nodes: BTreeMap::new() };
        let (mut connector, collateral) = drafts.reconfiguration(&around);
        drafts.pay_out(&collateral);
        let mut halts = Vec::new();
        for claim in 0..spec.terms.claims_max {
            halts.push(drafts.claim_timeout(claim, &connector));
            connector = drafts.claim(claim, &connector, &collateral)?;
        }
        halts.push(drafts.claim_timeout(spec.terms.claims_max, &connector));
        let kind = EndKind::Announced(around.announce);
        let end = EpochEnd {
            epoch: spec.terms.epoch,
            trunk_id: spec.terms.trunk_id,
            connector: connector.outpoint,
            output: connector.output.as_ref().clone(),
            start: last,
            lock: spec.terms.locks.cadence_blocks,
            signer: spec.attesters,
            kind,
        };
        let Drafts { starts, nodes, .. } = drafts;
        Ok(Self { spec: spec.clone(), nodes, end, starts, halts, announced: around.announce })
    }

    /// Where claim `claim` starts; with `claims_max`, where the next epoch does. `None` above that.
    #[must_use]
    pub fn start(&self, claim: u32) -> Option<&Start> {
        self.starts.get(claim as usize)
    }

    /// Id of the spec that it announces for the next epoch.
    #[must_use]
    pub fn announced(&self) -> [u8; 32] {
        self.announced
    }

    /// How the epoch ends if `ClaimTimeout(claim)` ends it and the claims before `valid` count: all that were made, or those
    /// before the first one that was slashed. None at all (`valid` 0) leads back to where the epoch itself started.
    /// `None` if there is no such timeout, or `valid` is a claim after it.
    #[must_use]
    pub fn halted(&self, claim: u32, valid: u32) -> Option<EpochEnd> {
        let start = self.starts.get(valid as usize).filter(|_| valid <= claim)?;
        self.halted_at(claim, start.clone())
    }

    /// The same if claims of an earlier epoch do not count either: `start` is where the first of them started.
    #[must_use]
    pub fn halted_at(&self, claim: u32, start: Start) -> Option<EpochEnd> {
        let halt = self.halts.get(claim as usize)?;
        Some(EpochEnd {
            epoch: self.spec.terms.epoch,
            trunk_id: self.spec.terms.trunk_id,
            connector: halt.outpoint,
            output: halt.output.as_ref().clone(),
            start,
            lock: self.spec.locks.handover_blocks,
            signer: self.spec.recovery,
            kind: EndKind::Halted,
        })
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

/// Where each claim starts, and at the end where the next epoch does.
fn starts(spec: &ContractSpec, around: &Surroundings<'_>) -> Vec<Start> {
    let first = match around.previous {
        None => Start::Commitment(spec.terms.params.start_commitment),
        Some(end) => end.start.clone(),
    };
    let signed =
        around.keys.0.iter().map(|keys| Start::Signed(keys.claim.0[ClaimValue::NewRoot as usize].clone()));
    [first].into_iter().chain(signed).collect()
}

fn check(spec: &ContractSpec, around: &Surroundings<'_>) -> Result<(), GraphError> {
    spec.validate()?;
    let previous = around.previous.map(|end| end.epoch);
    if spec.terms.epoch.checked_sub(1) != previous {
        return Err(GraphError::Order { epoch: spec.terms.epoch, previous });
    }
    if let Some(end) = around.previous {
        if end.trunk_id != spec.terms.trunk_id {
            return Err(GraphError::Trunk);
        }
        if matches!(end.kind, EndKind::Announced(id) if id != spec.id()) {
            return Err(GraphError::NotAnnounced);
        }
    }
    if around.verifier.id() != spec.verifier_leaves {
        return Err(GraphError::VerifierLeaves);
    }
    if !around.keys.belong_to(spec) {
        return Err(GraphError::Keys);
    }
    let expected = funding_value(spec, around.previous);
    let coin = around.coin;
    if expected < CONNECTOR_VALUE
        || coin.value != expected
        || coin.script_pubkey != wallet_script(spec.terms.operator_key)
    {
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

    fn place(&self, txid: Txid, vout: u32, output: Arc<ScriptOutput>) -> Placed {
        Placed { outpoint: OutPoint::new(txid, vout), output, signer: self.spec.attesters }
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
            Some(keys) => scripts::claim(self.spec, &self.starts[claim as usize], keys),
            None => scripts::next_epoch(self.spec),
        };
        let leaves = vec![forward, self.signed_after(self.spec.locks.claim_timeout_blocks)];
        self.output(leaves, self.spec.connector_value(claim))
    }

    /// Connector 0 and the collateral.
    fn reconfiguration(&mut self, around: &Surroundings<'_>) -> (Placed, Placed) {
        let spec = self.spec;
        let previous = around.previous.map(|end| {
            let output = Arc::new(end.output.clone());
            let placed = Placed { outpoint: end.connector, output, signer: end.signer };
            // The same index for a hand-over.
            placed.whole(leaf::CLAIM, Some(end.lock))
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
        (self.place(txid, 0, connector), self.place(txid, 1, collateral))
    }

    fn pay_out(&mut self, collateral: &Placed) {
        let input = collateral.whole(leaf::PAY_OUT, Some(self.spec.terms.locks.collateral_blocks));
        self.anchored(TxRole::PayOut, [input], vec![self.operator(self.spec.terms.collateral)]);
    }

    /// Leaves the connector's value where the recovery key can hand it to another operator, or the sink gets it.
    fn claim_timeout(&mut self, claim: u32, connector: &Placed) -> Placed {
        let input = connector.whole(leaf::CLAIM_TIMEOUT, Some(self.spec.locks.claim_timeout_blocks));
        let value = self.spec.connector_value(claim);
        let handover = scripts::signed_after(&self.spec.recovery, self.spec.locks.handover_blocks);
        let output = self.output(vec![handover], value);
        let txid = self.anchored(TxRole::ClaimTimeout(claim), [input], vec![output.txout()]);
        Placed { outpoint: OutPoint::new(txid, 0), output, signer: self.spec.recovery }
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
        let (challenge, game) = (self.place(txid, 1, challenge), self.place(txid, 2, game));
        self.play(claim, &challenge, &game, collateral)?;
        Ok(self.place(txid, 0, next))
    }
}
