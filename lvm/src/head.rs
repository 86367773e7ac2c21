//! Which transactions can execute together at the head of a block.

use alloy_consensus::{transaction::SignerRecoverable, Transaction as _};
use alloy_primitives::U256;
use assay_lvm_core::{BlockAttributes, StfError, Transaction};
use revm::context_interface::result::InvalidTransaction;

use crate::Chain;

/// The head of the next block of a chain, of transactions taken one after the other.
///
/// Whether one can be taken is found by executing the head with it. Candidates may be many and made by an enemy, so most that cannot be
/// taken are found without: by their sender's nonce and balance, by fee and gas limit, and by what is wrong with them alone. What is
/// left to an enemy is to pay for transactions that are taken.
#[derive(Debug)]
pub struct Head<'a> {
    chain: &'a Chain,
    attributes: BlockAttributes,
    taken: Vec<Transaction>,
    /// The chain with a block of the taken ones.
    with_taken: Chain,
    executed: usize,
}

impl<'a> Head<'a> {
    /// An empty head of the block after `chain`'s last.
    ///
    /// # Errors
    /// [`StfError`] if there can be no block with these attributes.
    pub fn new(chain: &'a Chain, attributes: BlockAttributes) -> Result<Self, StfError> {
        let mut with_taken = chain.clone();
        with_taken.append(&attributes, Vec::new())?;
        Ok(Self { chain, attributes, taken: Vec::new(), with_taken, executed: 0 })
    }

    /// Transactions in the head.
    pub fn taken(&self) -> &[Transaction] {
        &self.taken
    }

    /// How often a head was executed.
    pub fn executed(&self) -> usize {
        self.executed
    }

    /// Takes a transaction behind the others; false, and nothing changed, if it may not be included there.
    pub fn take(&mut self, transaction: &Transaction) -> bool {
        if !self.may_follow(transaction) || self.is_wrong_alone(transaction) {
            return false;
        }
        let head = self.taken.iter().chain([transaction]).cloned().collect();
        self.executed += 1;
        let Ok((sealed, made)) = self.chain.seal(&self.attributes, head) else { return false };
        self.with_taken.replace_tip(sealed, made);
        self.taken.push(transaction.clone());
        true
    }

    /// False if sender or block surely do not allow it. The balance may have grown by withdrawals at the end of the block, never fallen.
    fn may_follow(&self, transaction: &Transaction) -> bool {
        let Ok(sender) = transaction.recover_signer() else { return false };
        let Ok(account) = self.with_taken.account(sender) else { return true };
        let (nonce, balance) = account.map_or((0, U256::ZERO), |account| (account.nonce, account.balance));
        let price = U256::from(transaction.max_fee_per_gas());
        let cost =
            price.saturating_mul(U256::from(transaction.gas_limit())).saturating_add(transaction.value());
        let Some(header) = self.with_taken.header(self.with_taken.tip()) else { return true };
        let gas_left = header.gas_limit.saturating_sub(header.gas_used);
        let base_fee = u128::from(header.base_fee_per_gas.unwrap_or_default());
        nonce == transaction.nonce()
            && cost <= balance
            && transaction.gas_limit() <= gas_left
            && transaction.max_fee_per_gas() >= base_fee
    }

    /// True if it can be nowhere in the block, whatever comes before it. Looked into only where executing what comes before costs something.
    fn is_wrong_alone(&self, transaction: &Transaction) -> bool {
        use InvalidTransaction::{LackOfFundForMaxFee, NonceTooHigh, NonceTooLow, RejectCallerWithCode};
        if self.taken.is_empty() {
            return false;
        }
        match self.chain.seal(&self.attributes, vec![transaction.clone()]) {
            Err(StfError::Transaction { reason, .. }) => !matches!(
                reason,
                LackOfFundForMaxFee { .. } | NonceTooHigh { .. } | NonceTooLow { .. } | RejectCallerWithCode
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, Wallet};
    use alloy_consensus::{SignableTransaction, TxEip1559};
    use alloy_primitives::{Signature, TxKind};
    use assay_lvm_core::Block;

    /// The transactions of the first sample block and what its maker chose.
    fn block() -> (BlockAttributes, Vec<Transaction>) {
        let batch = sample::batch(1).unwrap();
        let block = Block::decode(&batch.blocks[0]).unwrap();
        let attributes = BlockAttributes {
            timestamp: block.header.timestamp,
            gas_limit: block.header.gas_limit,
            ..BlockAttributes::default()
        };
        (attributes, block.transactions.clone())
    }

    /// Signed by nobody: whoever the signature recovers to has no money.
    fn of_a_stranger(number: u64) -> Transaction {
        let transaction = TxEip1559 {
            chain_id: sample::genesis_state().unwrap().chain_id,
            gas_limit: 21_000,
            max_fee_per_gas: 10_000_000_000,
            ..TxEip1559::default()
        };
        let signature = Signature::new(U256::from(number + 1), U256::from(7), false);
        transaction.into_signed(signature).into()
    }

    #[test]
    fn what_executes_together_is_taken_in_any_order_that_the_nonces_allow() {
        let (attributes, transactions) = block();
        let chain = sample::genesis_chain().unwrap();
        let mut head = Head::new(&chain, attributes.clone()).unwrap();
        let (first, later): (Vec<_>, Vec<_>) = transactions.iter().cloned().partition(|one| one.nonce() == 0);
        assert!(first.iter().rev().chain(&later).all(|one| head.take(one)));
        assert_eq!(head.taken().len(), transactions.len());
        let mut whole = chain.clone();
        whole.append(&attributes, head.taken().to_vec()).unwrap();
        assert_eq!(whole.state_after(1), head.with_taken.state_after(1));
        assert!(!transactions.iter().any(|one| head.take(one)), "each once");
    }

    #[test]
    fn candidates_that_cannot_be_taken_do_not_have_the_head_executed() {
        let (attributes, transactions) = block();
        let chain = sample::genesis_chain().unwrap();
        let mut head = Head::new(&chain, attributes).unwrap();
        assert!(head.take(&transactions[0]) && head.take(&transactions[1]));
        for number in 0..500 {
            assert!(!head.take(&of_a_stranger(number)));
            assert!(!head.take(&transactions[number as usize % 2]));
        }
        assert_eq!((head.taken().len(), head.executed()), (2, 2));
        assert!(head.take(&transactions[2]), "those after them are looked at all the same");
    }

    #[test]
    fn what_is_wrong_by_itself_does_not_have_the_head_executed() {
        let (attributes, transactions) = block();
        let gas_limit = attributes.gas_limit;
        let chain = sample::genesis_chain().unwrap();
        let mut head = Head::new(&chain, attributes).unwrap();
        assert!(head.take(&transactions[0]) && head.take(&transactions[1]));
        let dave = Wallet::new(3);
        let right = TxEip1559 {
            chain_id: sample::genesis_state().unwrap().chain_id,
            gas_limit: 21_000,
            to: TxKind::Call(dave.address()),
            max_fee_per_gas: 10_000_000_000,
            ..TxEip1559::default()
        };
        let wrong = [
            TxEip1559 { gas_limit, ..right.clone() },
            TxEip1559 { gas_limit: 20_999, ..right.clone() },
            TxEip1559 { max_fee_per_gas: 1, ..right.clone() },
            TxEip1559 { max_priority_fee_per_gas: u128::MAX, ..right.clone() },
            TxEip1559 { chain_id: 1, ..right.clone() },
            TxEip1559 { value: U256::MAX, ..right.clone() },
            TxEip1559 { nonce: 1, ..right.clone() },
        ];
        for (at, one) in wrong.into_iter().enumerate() {
            assert!(!head.take(&dave.sign(one)), "{at}");
            assert_eq!(head.executed(), 2, "{at}");
        }
        assert!(head.take(&dave.sign(right)));
    }
}
