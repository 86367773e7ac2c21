//! The contract as a party holds it: epochs with all signatures of the attesters. It never changes but by new epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_l1::graph::connector::LeafSpend;
use assay_l1::graph::contract::build::{Graph, Input, Node, TxRole};
use assay_l1::graph::contract::keys::EpochKeys;
use assay_l1::graph::contract::scripts::{verifier_leaf, VerifierLeaves};
use assay_l1::graph::contract::sign::{operator_item, sign_funding, witness, SigningRequest};
use assay_l1::graph::contract::spec::ContractSpec;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{schnorr, Message, Secp256k1};
use bitcoin::taproot::LeafVersion;
use bitcoin::{OutPoint, ScriptBuf, TapLeafHash, Transaction, Txid};

use crate::evidence::SignedValue;
use crate::types::{epoch_name, ClaimId, ContractTx, EpochIndex};

/// Where claim 0 of an epoch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// At this state.
    State([u8; 32]),
    /// At the new root that this claim signed.
    Claim(ClaimId),
}

/// Finds, in an assertion, a step that is wrong.
///
/// The seam for the chunked verifier: its leaves come with a finder that runs the steps off chain.
pub trait Verifier: VerifierLeaves + Send + Sync {
    /// The leaf that succeeds against these values, and its items under the attesters' signature; `None` if all are right.
    /// `values`: the assertion's, words first.
    fn wrong_step(&self, values: &[SignedValue]) -> Option<(usize, Vec<Vec<u8>>)>;
}

impl Verifier for assay_l1::graph::contract::scripts::NoVerifier {
    fn wrong_step(&self, _: &[SignedValue]) -> Option<(usize, Vec<Vec<u8>>)> {
        None
    }
}

/// Why an epoch is not taken, or a transaction not completed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContractError {
    /// A signature of the attesters is missing or wrong.
    #[error("the attesters' signature of {role}, input {input}, leaf {leaf}, is missing or wrong")]
    Signature {
        /// The transaction.
        role: TxRole,
        /// Its input.
        input: usize,
        /// The leaf.
        leaf: usize,
    },
    /// Claim 0 does not start where the graph says.
    #[error("the epoch does not start where its graph says")]
    Origin,
    /// The contract has no such transaction, input or leaf.
    #[error("the contract has no {0}")]
    Unknown(TxRole),
}

/// How one input of a transaction is satisfied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The leaf.
    pub leaf: usize,
    /// Items under the attesters' signature.
    pub items: Vec<Vec<u8>>,
}

impl Fill {
    /// A leaf that wants the attesters' signature only.
    #[must_use]
    pub fn bare(leaf: usize) -> Self {
        Self { leaf, items: Vec::new() }
    }
}

/// An epoch with its signatures.
pub struct Epoch {
    graph: Graph,
    keys: EpochKeys,
    verifier: Arc<dyn Verifier>,
    origin: Origin,
    signatures: BTreeMap<(TxRole, usize, usize), Vec<u8>>,
}

impl std::fmt::Debug for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoch").field("number", &self.graph.spec().terms.epoch).finish_non_exhaustive()
    }
}

impl Epoch {
    /// An epoch whose signatures, in the order of [`Graph::requests`], are checked one by one.
    ///
    /// # Errors
    /// `Signature`, `Origin`.
    pub fn new(
        graph: Graph,
        keys: EpochKeys,
        verifier: Arc<dyn Verifier>,
        origin: Origin,
        signatures: &[[u8; 64]],
    ) -> Result<Self, ContractError> {
        let stated = graph.start(0).and_then(|start| start.commitment().copied());
        let fits = match origin {
            Origin::State(state) => stated == Some(state),
            Origin::Claim(_) => stated.is_none(),
        };
        if !fits {
            return Err(ContractError::Origin);
        }
        let secp = Secp256k1::verification_only();
        let mut checked = BTreeMap::new();
        let mut given = signatures.iter();
        for request in graph.requests() {
            let SigningRequest { role, input, leaf, .. } = request;
            let refused = ContractError::Signature { role, input, leaf };
            let Some(signature) = given.next() else { return Err(refused) };
            let parsed = schnorr::Signature::from_slice(signature);
            let message = Message::from_digest(request.message);
            let good =
                parsed.is_ok_and(|parsed| secp.verify_schnorr(&parsed, &message, &request.signer).is_ok());
            if !good {
                return Err(refused);
            }
            checked.insert((role, input, leaf), request.item(signature));
        }
        Ok(Self { graph, keys, verifier, origin, signatures: checked })
    }

    /// The graph.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the epoch is about.
    #[must_use]
    pub fn spec(&self) -> &ContractSpec {
        self.graph.spec()
    }

    /// The one-time public keys.
    #[must_use]
    pub fn keys(&self) -> &EpochKeys {
        &self.keys
    }

    /// The verifier.
    #[must_use]
    pub fn verifier(&self) -> &dyn Verifier {
        self.verifier.as_ref()
    }

    /// Where claim 0 starts.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    fn node(&self, role: TxRole) -> Result<&Node, ContractError> {
        self.graph.node(role).ok_or(ContractError::Unknown(role))
    }

    /// The leaf, a verifier's too, whose script is made on the spot.
    fn spend(&self, role: TxRole, input: usize, leaf: usize) -> Result<LeafSpend, ContractError> {
        let unknown = || ContractError::Unknown(role);
        if let Some(spend) = self.graph.leaf(role, input, leaf) {
            return Ok(spend);
        }
        let Some(Input::Contract { output, .. }) = self.node(role)?.inputs.get(input) else {
            return Err(unknown());
        };
        let TxRole::Disprove(claim) = role else { return Err(unknown()) };
        let first = self.first_verifier_leaf(claim);
        let index =
            leaf.checked_sub(first).filter(|index| *index < self.verifier.count()).ok_or_else(unknown)?;
        let keys = self.keys.0.get(claim as usize).ok_or_else(unknown)?;
        let script = verifier_leaf(self.spec(), keys, self.verifier.as_ref(), index);
        output.hidden_leaf(leaf, script).ok_or_else(unknown)
    }

    /// Where the verifier's leaves begin in the dispute connector of a claim.
    #[must_use]
    pub fn first_verifier_leaf(&self, claim: u32) -> usize {
        let linked = self.graph.start(claim).is_some_and(|start| start.signed().is_some());
        assay_l1::graph::contract::build::leaf::DISPUTE_DISPROOFS + 1 + usize::from(linked)
    }

    /// The transaction with these inputs satisfied; an input without a fill is left alone (the operator's coin).
    ///
    /// # Errors
    /// `Unknown`, `Signature`.
    pub fn complete(&self, role: TxRole, fills: &[Fill]) -> Result<Transaction, ContractError> {
        let mut tx = self.node(role)?.tx.clone();
        for (input, fill) in fills.iter().enumerate() {
            let refused = ContractError::Signature { role, input, leaf: fill.leaf };
            let signature = self.signatures.get(&(role, input, fill.leaf)).ok_or(refused)?;
            let spend = self.spend(role, input, fill.leaf)?;
            tx.input[input].witness = witness(&fill.items, signature.clone(), &spend);
        }
        Ok(tx)
    }

    /// The same for a transaction whose first input wants the operator's signature, too.
    ///
    /// # Errors
    /// `Unknown`, `Signature`.
    pub fn complete_as_operator(
        &self,
        role: TxRole,
        mut fill: Fill,
        operator: &Keypair,
    ) -> Result<Transaction, ContractError> {
        let spend = self.spend(role, 0, fill.leaf)?;
        fill.items.push(operator_item(self.node(role)?, 0, &spend, operator));
        self.complete(role, &[fill])
    }

    /// The opening of the epoch, signed by its operator; `before` is the operator of the epoch before, absent if there is none
    /// or it has no say (a hand-over).
    ///
    /// # Errors
    /// `Unknown`, `Signature`.
    pub fn opening(
        &self,
        operator: &Keypair,
        before: Option<&Keypair>,
    ) -> Result<Transaction, ContractError> {
        let role = TxRole::Reconfiguration;
        let node = self.node(role)?;
        let leaf = assay_l1::graph::contract::build::leaf::CLAIM;
        let mut tx = match (node.inputs.len(), before) {
            (1, _) => node.tx.clone(),
            (_, Some(before)) => self.complete_as_operator(role, Fill::bare(leaf), before)?,
            (_, None) => self.complete(role, &[Fill::bare(leaf)])?,
        };
        sign_funding(&mut tx, &node.spent(), operator);
        Ok(tx)
    }

    /// Which leaf of input `input` a witness uses: by its script's hash.
    fn leaf_used(&self, role: TxRole, input: usize, tx: &Transaction, at: usize) -> Option<usize> {
        let Input::Contract { output, leaves, .. } = self.graph.node(role)?.inputs.get(input)? else {
            return None;
        };
        let witness = &tx.input[at].witness;
        let script = witness.nth(witness.len().checked_sub(2)?)?;
        let script = ScriptBuf::from_bytes(script.to_vec());
        let hash = TapLeafHash::from_script(&script, LeafVersion::TapScript);
        leaves.iter().copied().find(|leaf| output.leaf_hash(*leaf) == Some(hash))
    }
}

/// All epochs of a trunk that a party knows, by their places.
#[derive(Debug, Default)]
pub struct Contract {
    epochs: BTreeMap<EpochIndex, Arc<Epoch>>,
    by_txid: BTreeMap<Txid, ContractTx>,
    spenders: BTreeMap<OutPoint, Vec<ContractTx>>,
}

impl Contract {
    /// No epochs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an epoch behind all others.
    pub fn push(&mut self, epoch: Arc<Epoch>) -> EpochIndex {
        let index = self.epochs.last_key_value().map_or(EpochIndex(0), |(last, _)| EpochIndex(last.0 + 1));
        self.insert(index, epoch);
        index
    }

    /// Adds an epoch in a place that is free.
    pub(crate) fn insert(&mut self, index: EpochIndex, epoch: Arc<Epoch>) {
        for (role, node) in epoch.graph.nodes() {
            let id = ContractTx { epoch: index, role: *role };
            self.by_txid.insert(node.tx.compute_txid(), id);
            for (input, kind) in node.tx.input.iter().zip(&node.inputs) {
                if matches!(kind, Input::Contract { .. }) {
                    self.spenders.entry(input.previous_output).or_default().push(id);
                }
            }
        }
        self.epochs.insert(index, epoch);
    }

    /// The epochs, in the order of their places.
    pub fn epochs(&self) -> impl Iterator<Item = (EpochIndex, &Epoch)> {
        self.epochs.iter().map(|(index, epoch)| (*index, epoch.as_ref()))
    }

    /// One epoch.
    #[must_use]
    pub fn epoch(&self, index: EpochIndex) -> Option<&Epoch> {
        self.epochs.get(&index).map(Arc::as_ref)
    }

    /// How people are told of an epoch.
    #[must_use]
    pub fn name(&self, index: EpochIndex) -> String {
        let number = self.epoch(index).map(|epoch| epoch.spec().terms.epoch);
        number.map_or_else(|| index.to_string(), |number| epoch_name(number, index))
    }

    /// How people are told of a claim.
    #[must_use]
    pub fn claim_name(&self, claim: ClaimId) -> String {
        claim.text(&self.name(claim.epoch))
    }

    /// The draft of a transaction.
    #[must_use]
    pub fn node(&self, id: ContractTx) -> Option<&Node> {
        self.epoch(id.epoch)?.graph.node(id.role)
    }

    /// Which transaction of the contract has this id. Those with outputs or inputs from outside have none of their own.
    #[must_use]
    pub fn by_txid(&self, txid: &Txid) -> Option<ContractTx> {
        self.by_txid.get(txid).copied()
    }

    /// True for an output that a transaction of the contract spends.
    #[must_use]
    pub fn watches(&self, outpoint: &OutPoint) -> bool {
        self.spenders.contains_key(outpoint)
    }

    /// What `tx` is in the contract: by its id, or, where a sender adds to it, by what it spends and the leaf that it uses. It can
    /// be several: whoever challenges may put the challenges of many claims into one transaction.
    #[must_use]
    pub fn identify(&self, tx: &Transaction) -> Vec<ContractTx> {
        if let Some(id) = self.by_txid.get(&tx.compute_txid()) {
            return vec![*id];
        }
        let spent = tx.input.iter().enumerate().flat_map(|(at, input)| {
            let ids = self.spenders.get(&input.previous_output).into_iter().flatten();
            ids.map(move |id| (at, *id))
        });
        spent.filter_map(|(at, id)| self.is_open(id, tx, at).then_some(id)).collect()
    }

    /// Whether `tx`, to which its sender may have added inputs and outputs, is this one by its input `at`.
    fn is_open(&self, id: ContractTx, tx: &Transaction, at: usize) -> bool {
        let (Some(epoch), Some(node)) = (self.epoch(id.epoch), self.node(id)) else { return false };
        let proof = node.inputs.len() - 1;
        let is_open = match id.role {
            TxRole::Challenge(_) => true,
            TxRole::AssertTimeout(_)
            | TxRole::SlotTimeout(..)
            | TxRole::DisproveInput(_)
            | TxRole::Disprove(_) => {
                at == proof && tx.input[0].previous_output == node.tx.input[0].previous_output
            }
            _ => false,
        };
        is_open && epoch.leaf_used(id.role, proof, tx, at).is_some()
    }

    /// True if an epoch goes on where another was ended by a timeout: the attesters have signed from which claim on.
    #[must_use]
    pub fn is_handover(&self, epoch: EpochIndex) -> bool {
        let opening = self.node(ContractTx { epoch, role: TxRole::Reconfiguration });
        let spent = opening.and_then(|node| self.by_txid(&node.tx.input.first()?.previous_output.txid));
        spent.is_some_and(|id| matches!(id.role, TxRole::ClaimTimeout(_)))
    }

    /// Where `claim` starts: the claim that its previous root is linked to, or a state.
    #[must_use]
    pub fn origin(&self, claim: ClaimId) -> Option<Origin> {
        match claim.claim.checked_sub(1) {
            Some(before) => Some(Origin::Claim(ClaimId { epoch: claim.epoch, claim: before })),
            None => Some(self.epoch(claim.epoch)?.origin),
        }
    }
}
