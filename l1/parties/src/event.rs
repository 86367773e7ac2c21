//! What goes into the machines and what comes out.

mod text;

use std::sync::Arc;

use bitcoin::{Amount, Transaction, Txid};
use serde::{Deserialize, Serialize};

use crate::fees::{FeeError, Market};
use crate::types::{ClaimId, ContractTx, EpochIndex, Height, Values};

/// A block as a party sees it: the transactions that touch the contract or the party's wallet; others may be there, too.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its height: one above the last one connected.
    pub height: Height,
    /// Transactions in order.
    pub txs: Vec<Arc<Transaction>>,
}

/// Why a node did not take a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reject {
    /// It has to pay more: than the mempool's minimum, or than the sender's own transaction that it replaces.
    Fee {
        /// What the child, or the transaction that pays for itself, has to pay at least.
        #[serde(with = "bitcoin::amount::serde::as_sat")]
        at_least: Amount,
    },
    /// A transaction of somebody else in the mempool spends the same, and this one does not pay enough to replace it.
    Conflict {
        /// What it takes.
        #[serde(with = "bitcoin::amount::serde::as_sat")]
        at_least: Amount,
    },
    /// An input is not there, or spent by a confirmed transaction.
    Inputs,
    /// Anything else, such as a time lock or a script: in the node's words.
    Other(String),
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A block was connected.
    Connected(Block),
    /// The last block was disconnected; it had this height.
    Disconnected(Height),
    /// The last block, which had this height and is on the chain still, will be read again.
    Rewound(Height),
    /// What fees cost now.
    Market(Market),
    /// The node refused a transaction that the machine had asked to broadcast: the last one of the package.
    Rejected {
        /// Its id.
        txid: Txid,
        /// Why.
        reason: Reject,
    },
    /// Operator: a batch is proved, and its data and proof are ready to be published.
    BatchProved(Values),
    /// Operator: the batch that starts at this state has its data and its proof in blocks (all of it), or not (any more).
    Data {
        /// The state it starts at.
        prev_root: [u8; 32],
        /// True if all is in blocks.
        on_chain: bool,
    },
    /// Operator: one-time signatures of a claim, as witness items. The shell made them through the record of used keys.
    Signed {
        /// The claim.
        claim: ClaimId,
        /// The values signed.
        values: Values,
        /// Items, bottom first.
        items: Vec<Vec<u8>>,
    },
    /// Operator: the record of used keys refuses: a key of this claim has signed another value.
    KeyUsed(ClaimId),
    /// Operator: one-time signatures of an assertion, as witness items per slot.
    Asserted {
        /// The claim.
        claim: ClaimId,
        /// Items of each slot, bottom first.
        slots: Vec<Vec<Vec<u8>>>,
    },
    /// Vigilante: what looking into a claim gave. The claim is named by the values that it signed, because a claim that was
    /// reorganised away may come back with others.
    Verdict {
        /// The claim.
        claim: ClaimId,
        /// Its values.
        values: Values,
        /// What is wrong; empty if nothing is.
        faults: Vec<Fault>,
    },
    /// The machine runs again, from its stored state.
    Restarted,
}

/// What can be wrong with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The digest is not of the four values. The chain can judge this one.
    Digest,
    /// The previous root is not the new root of the claim before. The chain can judge this one.
    Link,
    /// The code root is not the epoch's: consensus should have refused it.
    CodeRoot,
    /// The batch's data is not on the chain.
    DataMissing,
    /// The data on the chain has another hash.
    BatchHash,
    /// Executing the batch gives another state.
    NewRoot,
    /// The proof does not verify, or is not there.
    Proof,
    /// A forced transaction was left out.
    ForcedDropped,
    /// It starts at a state that nobody can know, because of a claim before it ([`hides_state`](Self::hides_state)).
    UnknownStart,
}

impl Fault {
    /// True if a disproof by the claim's own values exists.
    #[must_use]
    pub fn on_chain(self) -> bool {
        matches!(self, Self::Digest | Self::Link)
    }

    /// True if nobody who follows the chain can have the state after such a claim.
    #[must_use]
    pub fn hides_state(self) -> bool {
        matches!(self, Self::DataMissing | Self::BatchHash | Self::NewRoot)
    }
}

/// Something that people should know. Its text says what happened and what to do: [`Alarm::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Alarm {
    /// A claim is wrong.
    Faulty(ClaimId, Fault),
    /// A wrong claim was accepted.
    Accepted(ClaimId),
    /// A claim's period to challenge is nearly over, and nobody knows whether it is right.
    Undecided(ClaimId),
    /// The collateral of an epoch was slashed.
    Slashed(EpochIndex),
    /// A trunk was ended by a timeout.
    Halted(EpochIndex),
    /// A batch starts at the same state as another one, with other values, and is not taken. The first bytes of that state.
    Batch([u8; 8]),
    /// A one-time key of the claim has signed another value already: the epoch cannot go on.
    KeyUsed(ClaimId),
    /// A transaction cannot be paid for.
    Fee(ContractTx, FeeTrouble),
    /// A transaction is refused by the node, for a reason that more fees do not mend.
    Refused(ContractTx),
    /// The contract does not give a transaction that it should.
    Broken(ContractTx),
    /// A batch was proved with other programs than the epoch's in which it would be claimed, or than any epoch's: it is not claimed
    /// there. The first bytes of the state that it starts at.
    Programs([u8; 8]),
}

/// Why a transaction cannot be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FeeTrouble {
    /// The budget is used up.
    Budget,
    /// No confirmed coin is large enough.
    Coin,
    /// The reward is too small.
    Reward,
    /// The numbers overflow.
    Overflow,
}

impl From<FeeError> for FeeTrouble {
    fn from(error: FeeError) -> Self {
        match error {
            FeeError::Budget { .. } => Self::Budget,
            FeeError::NoCoin { .. } => Self::Coin,
            FeeError::Reward { .. } => Self::Reward,
            FeeError::Overflow => Self::Overflow,
        }
    }
}

/// What to do. All of it is idempotent: doing it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Hand these to the node as one package, parent first.
    Broadcast(Vec<Arc<Transaction>>),
    /// Operator: publish data and proof of the batch that starts at this state, and keep at it; answer with `Data`.
    Publish([u8; 32]),
    /// Operator: there is no room for the batch that starts at this state. Offer it again after the next block.
    Later([u8; 32]),
    /// Operator: sign these values through the record of used keys; answer with `Signed`.
    Sign(ClaimId, Values),
    /// Operator: sign the assertion of this claim through the record of used keys; answer with `Asserted`.
    Assert(ClaimId),
    /// Vigilante: look into a claim with the data on the chain: data, batch hash, execution, proof, forced
    /// transactions; answer with `Verdict`.
    Check(ClaimId, Values),
    /// Backup: have the attesters sign an epoch of one's own, on `Graph::halted_at` of this claim with the start of the first
    /// claim that does not count; add it to the contract.
    HandOver {
        /// The epoch that stopped.
        epoch: EpochIndex,
        /// The claim that never came.
        claim: u32,
        /// The first claim that does not count; the one that never came if all do.
        first_void: ClaimId,
    },
    /// Tell people.
    Alarm(Alarm),
}
