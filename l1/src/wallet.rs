//! A wallet of one taproot key: enough to pay fees, without a wallet in the node.

use std::collections::BTreeSet;

use bitcoin::constants::COINBASE_MATURITY;
use bitcoin::key::Keypair;
use bitcoin::{
    absolute, transaction, Address, Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Witness,
};

use crate::backend::{BackendError, BitcoinBackend, Utxo};
use crate::graph::transactions::{sign_key, wallet_script};

/// Smallest output that relay policy takes for the wallet's script.
pub(crate) const DUST: Amount = Amount::from_sat(330);

/// Why a payment could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// Not enough confirmed, mature coins.
    #[error("need {need} in confirmed coins, have {have}: send bitcoin to {address}")]
    InsufficientFunds {
        /// The wallet's address.
        address: String,
        /// Sum of outputs and fee.
        need: Amount,
        /// Sum of spendable coins.
        have: Amount,
    },
    /// The chain could not be asked.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The wallet's key and script.
pub struct Wallet {
    key: Keypair,
    script: ScriptBuf,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wallet").field("script", &self.script).finish_non_exhaustive()
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl Wallet {
    /// A wallet around `key`.
    #[must_use]
    pub fn new(key: Keypair) -> Self {
        Self { key, script: wallet_script(key.x_only_public_key().0) }
    }

    /// Its output script.
    #[must_use]
    pub fn script(&self) -> &ScriptBuf {
        &self.script
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &Keypair {
        &self.key
    }

    /// Its address on the back end's network.
    #[must_use]
    pub fn address(&self, backend: &dyn BitcoinBackend) -> String {
        Address::from_script(&self.script, backend.network())
            .map_or_else(|_| self.script.to_hex_string(), |address| address.to_string())
    }

    /// A signed transaction that pays `outputs` from confirmed coins, with change last if it is worth an output; and its fee. On
    /// regtest, blocks are mined to the wallet if it is short.
    ///
    /// # Errors
    /// `InsufficientFunds` with the address to fund; `Backend`.
    pub fn pay(
        &self,
        backend: &dyn BitcoinBackend,
        outputs: &[TxOut],
        rate: FeeRate,
    ) -> Result<(Transaction, Amount), WalletError> {
        self.pay_or_mine(backend, (outputs, rate), None)
    }

    /// As [`pay`](Self::pay), without the coins in `taken`, and always with change last: a child that spends it can raise the
    /// fee.
    ///
    /// # Errors
    /// As for [`pay`](Self::pay).
    pub fn pay_with_change(
        &self,
        backend: &dyn BitcoinBackend,
        outputs: &[TxOut],
        rate: FeeRate,
        taken: &BTreeSet<OutPoint>,
    ) -> Result<(Transaction, Amount), WalletError> {
        self.pay_or_mine(backend, (outputs, rate), Some(taken))
    }

    /// `with_change`: coins that are not to be spent, where there has to be change.
    fn pay_or_mine(
        &self,
        backend: &dyn BitcoinBackend,
        payment: (&[TxOut], FeeRate),
        with_change: Option<&BTreeSet<OutPoint>>,
    ) -> Result<(Transaction, Amount), WalletError> {
        match (self.try_pay(backend, payment, with_change), backend.miner()) {
            (Err(WalletError::InsufficientFunds { .. }), Some(miner)) => {
                miner.mine(COINBASE_MATURITY + 1, &self.script)?;
                self.try_pay(backend, payment, with_change)
            }
            (other, _) => other,
        }
    }

    /// Confirmed coins that the next block can spend, large ones first; among equals the oldest, which the fewest
    /// reorganisations take away.
    ///
    /// # Errors
    /// The node's.
    pub fn coins(&self, backend: &dyn BitcoinBackend) -> Result<Vec<Utxo>, BackendError> {
        let next = backend.tip()?.height + 1;
        let mature = |coin: &Utxo| !coin.coinbase || next.saturating_sub(coin.height) >= COINBASE_MATURITY;
        let mut coins = backend.utxos(&self.script)?;
        coins.retain(|coin| mature(coin));
        // The outpoint makes the order total.
        coins.sort_by_key(|coin| (std::cmp::Reverse(coin.txout.value), coin.height, coin.outpoint));
        Ok(coins)
    }

    fn try_pay(
        &self,
        backend: &dyn BitcoinBackend,
        (outputs, rate): (&[TxOut], FeeRate),
        with_change: Option<&BTreeSet<OutPoint>>,
    ) -> Result<(Transaction, Amount), WalletError> {
        // Large coins first: few inputs.
        let mut coins = self.coins(backend)?;
        coins.retain(|coin| with_change.is_none_or(|taken| !taken.contains(&coin.outpoint)));
        let paid: Amount = outputs.iter().map(|output| output.value).sum();
        let (mut chosen, mut have) = (Vec::new(), Amount::ZERO);
        let mut need = paid;
        for coin in coins {
            have += coin.txout.value;
            chosen.push(coin);
            let fee = |outputs: &[TxOut]| {
                rate.fee_vb(draft(&chosen, outputs, Some(&[0; 64])).vsize() as u64)
                    .unwrap_or(Amount::MAX_MONEY)
            };
            let change = TxOut { value: DUST, script_pubkey: self.script.clone() };
            let with = [outputs, &[change]].concat();
            need = paid + if with_change.is_some() { DUST + fee(&with) } else { fee(outputs) };
            if have < need {
                continue;
            }
            let left = have.checked_sub(paid + fee(&with)).filter(|left| *left >= DUST);
            let outputs = match left {
                Some(left) => {
                    let mut outputs = with;
                    outputs.last_mut().expect("change was added").value = left;
                    outputs
                }
                None => outputs.to_vec(),
            };
            let fee = have - outputs.iter().map(|output| output.value).sum::<Amount>();
            return Ok((self.spend(&chosen, &outputs), fee));
        }
        Err(WalletError::InsufficientFunds { address: self.address(backend), need, have })
    }

    /// A signed transaction of these outputs of the wallet's; what is left is its fee. It can be replaced (BIP125).
    #[must_use]
    pub fn spend(&self, coins: &[Utxo], outputs: &[TxOut]) -> Transaction {
        let mut tx = draft(coins, outputs, None);
        let spent: Vec<TxOut> = coins.iter().map(|coin| coin.txout.clone()).collect();
        for index in 0..tx.input.len() {
            let signature = sign_key(&tx, index, &spent, &self.key);
            tx.input[index].witness = Witness::from_slice(&[signature]);
        }
        tx
    }
}

/// The payment, with `signature` in each input if given.
fn draft(coins: &[Utxo], outputs: &[TxOut], signature: Option<&[u8; 64]>) -> Transaction {
    let input = |coin: &Utxo| TxIn {
        previous_output: coin.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: signature.map_or_else(Witness::new, |signature| Witness::from_slice(&[signature])),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: coins.iter().map(input).collect(),
        output: outputs.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;
    use crate::backend::InProcessRegtest;

    #[test]
    fn of_coins_of_one_value_the_oldest_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let chain = InProcessRegtest::open(dir.path()).unwrap();
        let key = SecretKey::from_slice(&[7; 32]).unwrap();
        let wallet = Wallet::new(Keypair::from_secret_key(&Secp256k1::new(), &key));
        chain.miner().unwrap().mine(COINBASE_MATURITY + 20, wallet.script()).unwrap();
        let heights: Vec<u32> = wallet.coins(&chain).unwrap().iter().map(|coin| coin.height).collect();
        assert_eq!(heights, (1..=21).collect::<Vec<u32>>());
    }
}
