//! From what is to be published to signed transactions: commit, reveals, and the contract's transaction last.
//!
//! All transactions of a step are signed before the first is broadcast. Their ids do not change afterwards, so a plan that
//! is on disk can be carried out by any later run.

use bitcoin::key::Keypair;
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};

use super::TrunkError;
use crate::backend::BitcoinBackend;
use crate::envelope::message::Message;
use crate::envelope::pack::pack;
use crate::envelope::script::{commit_output, reveal_transaction};
use crate::envelope::{Envelope, Kind, Tag};
use crate::graph::connector::{LeafSpend, ScriptOutput};
use crate::graph::transactions::{leaf_witness, sign_leaf, Unfunded};
use crate::wallet::{Wallet, DUST};

/// A signed transaction of a plan; its bytes are in a file of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlannedTx {
    /// What it is, for reports: `commit`, `reveal batch 0`, `claim`.
    pub(super) role: String,
    pub(super) txid: Txid,
    pub(super) fee_sat: u64,
    pub(super) vsize_vb: u64,
    pub(super) weight_wu: u64,
}

impl PlannedTx {
    fn new(role: String, tx: &Transaction, fee: Amount) -> Self {
        Self {
            role,
            txid: tx.compute_txid(),
            fee_sat: fee.to_sat(),
            vsize_vb: tx.vsize() as u64,
            weight_wu: tx.weight().to_wu(),
        }
    }
}

/// Transactions in stages: a stage is broadcast when the one before it is confirmed, so that each transaction stands
/// alone in the mempool, whatever its limits on related transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedPlan {
    pub(super) stages: Vec<Vec<PlannedTx>>,
    pub(super) transactions: Vec<Transaction>,
}

/// Keys and settings that planning needs.
pub(super) struct Planner<'a> {
    pub(super) backend: &'a dyn BitcoinBackend,
    pub(super) wallet: &'a Wallet,
    pub(super) operator: Keypair,
    pub(super) author: Keypair,
    pub(super) tag: Tag,
    pub(super) envelope_limit: usize,
    pub(super) rate: FeeRate,
}

impl Drop for Planner<'_> {
    fn drop(&mut self) {
        self.operator.non_secure_erase();
        self.author.non_secure_erase();
    }
}

struct Reveal {
    role: String,
    spend: LeafSpend,
    fee: Amount,
}

impl Planner<'_> {
    /// The plan that publishes `messages` and then `main`, called `role`.
    pub(super) fn plan(
        &self,
        messages: &[Message],
        role: &str,
        main: &Unfunded,
    ) -> Result<SignedPlan, TrunkError> {
        let mut reveals = Vec::new();
        for message in messages {
            for (index, envelope) in pack(message, self.envelope_limit)?.iter().enumerate() {
                reveals.push(self.reveal(reveal_role(message.kind(), envelope, index), envelope));
            }
        }
        let mut outputs: Vec<TxOut> = reveals.iter().map(|reveal| reveal.spend.txout.clone()).collect();
        let funding = main.funding(self.rate).max(DUST);
        let funding = TxOut { value: funding, script_pubkey: self.wallet.script().clone() };
        outputs.push(funding.clone());
        let (commit, commit_fee) = self.wallet.pay(self.backend, &outputs, self.rate)?;
        let commit_txid = commit.compute_txid();
        let output = |index: usize| OutPoint::new(commit_txid, index as u32);

        let mut transactions = vec![commit];
        let mut stages =
            vec![vec![PlannedTx::new("commit".to_owned(), &transactions[0], commit_fee)], Vec::new()];
        for (index, reveal) in reveals.iter().enumerate() {
            let tx = self.signed_reveal(output(index), &reveal.spend);
            stages[1].push(PlannedTx::new(reveal.role.clone(), &tx, reveal.fee));
            transactions.push(tx);
        }
        let tx = main.sign((output(reveals.len()), &funding), &self.operator, self.wallet.key());
        let fee = main.fee(&funding);
        stages.push(vec![PlannedTx::new(role.to_owned(), &tx, fee)]);
        transactions.push(tx);
        stages.retain(|stage| !stage.is_empty());
        Ok(SignedPlan { stages, transactions })
    }

    /// A commit output whose value pays for its own reveal.
    fn reveal(&self, role: String, envelope: &Envelope) -> Reveal {
        let author = self.author.x_only_public_key().0;
        let leaf = |output: &ScriptOutput| output.leaf(0).expect("the output has one leaf");
        let draft = leaf(&commit_output(&author, &self.tag, envelope, Amount::ZERO));
        let mut tx = self.reveal_transaction(OutPoint::null());
        tx.input[0].witness = leaf_witness(&[0; 64], &draft);
        let fee = self.rate.fee_vb(tx.vsize() as u64).unwrap_or(Amount::MAX_MONEY);
        let spend = leaf(&commit_output(&author, &self.tag, envelope, fee + DUST));
        Reveal { role, spend, fee }
    }

    fn reveal_transaction(&self, commit: OutPoint) -> Transaction {
        reveal_transaction(commit, TxOut { value: DUST, script_pubkey: self.wallet.script().clone() })
    }

    fn signed_reveal(&self, commit: OutPoint, spend: &LeafSpend) -> Transaction {
        let mut tx = self.reveal_transaction(commit);
        let signature = sign_leaf(&tx, 0, std::slice::from_ref(&spend.txout), spend, &self.author);
        tx.input[0].witness = leaf_witness(&signature, spend);
        tx
    }
}

fn reveal_role(message: Kind, envelope: &Envelope, index: usize) -> String {
    let name = match message {
        Kind::Batch => "batch",
        Kind::ClaimData => "claim data",
        Kind::Epoch => "epoch terms",
        Kind::Forced => "forced transaction",
        Kind::Deposit => "deposit",
        Kind::Chunk | Kind::Aggregate => "data",
    };
    match envelope.kind {
        Kind::Chunk => format!("reveal {name} chunk {index}"),
        Kind::Aggregate => format!("reveal {name} aggregate"),
        _ => format!("reveal {name}"),
    }
}
