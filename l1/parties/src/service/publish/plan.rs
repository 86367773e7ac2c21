//! A publication: its transactions, the children that pay for them, and where they are.

use assay_l1::{BackendError, BitcoinBackend, TxState};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, BlockHash, Transaction, Txid};
use serde::{Deserialize, Serialize};

/// Blocks before a publication was made in which it is looked for after a restart.
const REORG_BLOCKS: u32 = 100;

/// Height and hash of a block.
pub(super) type Place = (u32, BlockHash);

/// A publication as it is on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Height of the tip when it was made.
    since: u32,
    /// Epoch and claim that its messages name.
    place: (u32, u32),
    /// Commit, then reveals.
    parts: Vec<PlannedPart>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PlannedPart {
    /// Consensus encoding.
    tx: Vec<u8>,
    fee_sat: u64,
    /// Where it is in the chain, as far as was known when this was written.
    confirmed: Option<Place>,
    child: Option<PlannedChild>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PlannedChild {
    /// Consensus encoding.
    tx: Vec<u8>,
    fee_sat: u64,
    raised: u32,
    stuck: u32,
}

/// A transaction of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) txid: Txid,
    pub(super) tx: Transaction,
    pub(super) fee: Amount,
    pub(super) confirmed: Option<Place>,
    pub(super) child: Option<Child>,
    /// Tip of the chain that a reorganisation took it out of; not on disk.
    pub(super) lost: u32,
}

impl Part {
    pub(super) fn new(tx: Transaction, fee: Amount) -> Self {
        Self { txid: tx.compute_txid(), tx, fee, confirmed: None, child: None, lost: 0 }
    }
}

/// A child that pays for a transaction that is stuck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) tx: Transaction,
    pub(super) fee: Amount,
    /// Tip when it was made.
    pub(super) raised: u32,
    /// How often the transaction had been found stuck by then.
    pub(super) stuck: u32,
}

/// A publication on its way, or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) since: u32,
    pub(super) place: (u32, u32),
    /// Commit, then reveals. Never empty.
    pub(super) parts: Vec<Part>,
    /// True if what is known of it is on disk.
    pub(super) is_noted: bool,
    /// When it was last sent.
    pub(super) sent: Option<u32>,
    /// How often the commit was refused for its coins.
    pub(super) refused: u32,
    /// What was last said of it.
    pub(super) said: Option<bool>,
}

impl Publication {
    /// One that is not on disk yet.
    pub(super) fn new(since: u32, place: (u32, u32), parts: Vec<Part>) -> Self {
        Self { since, place, parts, is_noted: false, sent: None, refused: 0, said: None }
    }

    /// From its plan, which is believed.
    pub(super) fn of(plan: &Plan) -> Result<Self, String> {
        let read = |bytes: &[u8]| deserialize::<Transaction>(bytes).map_err(|error| error.to_string());
        let amount = |sat: u64| {
            let amount = Amount::from_sat(sat);
            (amount <= Amount::MAX_MONEY).then_some(amount).ok_or("a fee above all money")
        };
        let child = |child: &PlannedChild| -> Result<Child, String> {
            let (raised, stuck) = (child.raised, child.stuck);
            Ok(Child { tx: read(&child.tx)?, fee: amount(child.fee_sat)?, raised, stuck })
        };
        let part = |part: &PlannedPart| -> Result<Part, String> {
            let mut read = Part::new(read(&part.tx)?, amount(part.fee_sat)?);
            read.confirmed = part.confirmed;
            read.child = part.child.as_ref().map(child).transpose()?;
            Ok(read)
        };
        let parts = plan.parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        if parts.is_empty() {
            return Err("no transactions".to_owned());
        }
        Ok(Self { is_noted: true, ..Self::new(plan.since, plan.place, parts) })
    }

    pub(super) fn plan(&self) -> Plan {
        let child = |child: &Child| PlannedChild {
            tx: serialize(&child.tx),
            fee_sat: child.fee.to_sat(),
            raised: child.raised,
            stuck: child.stuck,
        };
        let part = |part: &Part| PlannedPart {
            tx: serialize(&part.tx),
            fee_sat: part.fee.to_sat(),
            confirmed: part.confirmed,
            child: part.child.as_ref().map(child),
        };
        Plan { since: self.since, place: self.place, parts: self.parts.iter().map(part).collect() }
    }

    /// Asks the chain whether it still is where it was, and where what was not in a block is now.
    pub(super) fn look_up(&mut self, backend: &dyn BitcoinBackend) -> Result<(), BackendError> {
        // Another branch may have it in an earlier block.
        let since = self.since.saturating_sub(REORG_BLOCKS);
        for part in &mut self.parts {
            if let Some((height, hash)) = part.confirmed {
                match backend.block_hash(height) {
                    Ok(active) if active == hash => continue,
                    Ok(_) | Err(BackendError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            self.is_noted = false;
            part.confirmed = backend.transaction(&part.txid, since)?.and_then(|record| match record.state {
                TxState::Confirmed { height, block_hash, .. } => Some((height, block_hash)),
                TxState::Mempool => None,
            });
        }
        Ok(())
    }

    /// Height of the block that holds the commit.
    pub(super) fn begun(&self) -> Option<u32> {
        self.parts.first()?.confirmed.map(|(height, _)| height)
    }

    pub(super) fn is_done(&self) -> bool {
        self.parts.iter().all(|part| part.confirmed.is_some())
    }

    /// What has to get into a block now, by its place: the commit, or, once that is in one, the reveals.
    pub(super) fn due(&self) -> Vec<usize> {
        let is_begun = self.begun().is_some();
        let parts = self.parts.iter().enumerate();
        parts
            .filter(|(index, part)| part.confirmed.is_none() && (is_begun || *index == 0))
            .map(|(index, _)| index)
            .collect()
    }

    /// Since when a due transaction could have been mined.
    pub(super) fn waits_since(&self, index: usize) -> u32 {
        let due = if index == 0 { self.since } else { self.begun().unwrap_or(self.since) };
        self.parts.get(index).map_or(due, |part| due.max(part.lost))
    }

    pub(super) fn has_children(&self) -> bool {
        self.parts.iter().any(|part| part.child.is_some())
    }

    /// What its children cost.
    pub(super) fn raised(&self) -> Amount {
        self.parts.iter().filter_map(|part| part.child.as_ref()).map(|child| child.fee).sum()
    }
}
