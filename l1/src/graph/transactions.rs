//! `Reconfiguration` and `Claim`: built without funds, then funded and signed.
//!
//! Both have the same shape: first the connector they spend (a Reconfiguration that opens a trunk has none), last one
//! confirmed coin of the wallet that pays for everything. There is no change: the coin is made to measure.

use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Message, XOnlyPublicKey};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    absolute, opcodes, transaction, Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, Witness,
};

use super::connector::{
    claim_connector, collateral, LeafSpend, CLAIM_LEAF, CONNECTOR_VALUE, NEXT_EPOCH_LEAF,
};
use super::terms::{ClaimKeys, EpochTerms};
use crate::consensus::secp;
use crate::script::winternitz;
use crate::wots::Signature;

/// First bytes of the Reconfiguration's OP_RETURN: "ASSY" and the version.
pub const RECONFIGURATION_MARK: [u8; 5] = *b"ASSY\x01";
/// Output of Reconfiguration and Claim that the next claim spends.
pub const CONNECTOR_VOUT: u32 = 0;
/// Output of the Reconfiguration that holds the collateral.
pub const COLLATERAL_VOUT: u32 = 1;

/// A connector to be spent: the output, the leaf, and the leaf's witness items under the operator's signature.
#[derive(Debug, Clone)]
struct ConnectorInput {
    outpoint: OutPoint,
    spend: LeafSpend,
    sequence: Sequence,
    items: Vec<Vec<u8>>,
}

/// A transaction that lacks its funds and signatures.
#[derive(Debug, Clone)]
pub struct Unfunded {
    connector: Option<ConnectorInput>,
    outputs: Vec<TxOut>,
}

/// Opens an epoch. `previous` is the connector that the epoch before left, with the terms it was built from: its next
/// claim would have been `previous.claim`.
///
/// # Panics
/// Never: the mark and an id are 37 bytes, and every connector has the leaf of the next epoch.
#[must_use]
pub fn reconfiguration(
    terms: &EpochTerms,
    first: &ClaimKeys,
    previous: Option<&PreviousEpoch<'_>>,
) -> Unfunded {
    let mark = [RECONFIGURATION_MARK.as_slice(), &terms.id()].concat();
    let mark = <[u8; 37]>::try_from(mark).expect("5 + 32 bytes");
    let op_return = Builder::new().push_opcode(opcodes::all::OP_RETURN).push_slice(mark).into_script();
    let connector = previous.map(|previous| ConnectorInput {
        outpoint: previous.connector,
        spend: claim_connector(previous.terms, previous.claim, previous.keys)
            .leaf(NEXT_EPOCH_LEAF)
            .expect("every connector has this leaf"),
        sequence: Sequence::from_height(previous.terms.locks.cadence_blocks),
        items: Vec::new(),
    });
    let outputs = vec![
        claim_connector(terms, 0, Some(first)).txout(),
        collateral(terms).txout(),
        TxOut { value: Amount::ZERO, script_pubkey: op_return },
    ];
    Unfunded { connector, outputs }
}

/// Where the epoch before stopped.
#[derive(Debug, Clone, Copy)]
pub struct PreviousEpoch<'a> {
    /// Its terms.
    pub terms: &'a EpochTerms,
    /// The claim that was next.
    pub claim: u32,
    /// That claim's keys, absent if all claims were made.
    pub keys: Option<&'a ClaimKeys>,
    /// The unspent connector.
    pub connector: OutPoint,
}

/// Claim `claim`: spends `connector`, shows `signatures` of its values (order of
/// [`ClaimValue::ALL`](super::terms::ClaimValue::ALL)), and makes the connector of the next claim, whose keys are
/// `next`, absent after the last.
///
/// # Panics
/// Never: a connector built with keys has the leaf of a claim.
#[must_use]
pub fn claim(
    terms: &EpochTerms,
    claim: u32,
    connector: OutPoint,
    (keys, next): (&ClaimKeys, Option<&ClaimKeys>),
    signatures: &[Signature],
) -> Unfunded {
    let spend = claim_connector(terms, claim, Some(keys)).leaf(CLAIM_LEAF).expect("keys are given");
    // The first value's items are on top: they come last.
    let items = signatures.iter().rev().flat_map(winternitz::witness).collect();
    let sequence = Sequence::from_height(terms.locks.cadence_blocks);
    Unfunded {
        connector: Some(ConnectorInput { outpoint: connector, spend, sequence, items }),
        outputs: vec![claim_connector(terms, claim + 1, next).txout()],
    }
}

impl Unfunded {
    /// Value that the funding coin must have at `rate`: outputs and fee, less the connector.
    #[must_use]
    pub fn funding(&self, rate: FeeRate) -> Amount {
        let outputs: Amount = self.outputs.iter().map(|output| output.value).sum();
        let connector = self.connector.as_ref().map_or(Amount::ZERO, |connector| connector.spend.txout.value);
        let mut draft = self.transaction(OutPoint::null());
        let last = draft.input.len() - 1;
        draft.input[last].witness = Witness::from_slice(&[[0; 64]]);
        if let Some(connector) = &self.connector {
            draft.input[0].witness = connector.witness(&[0; 64]);
        }
        let fee = rate.fee_vb(draft.vsize() as u64).unwrap_or(Amount::MAX_MONEY);
        (outputs + fee).checked_sub(connector).unwrap_or(Amount::ZERO)
    }

    /// Fee once `coin` funds it.
    #[must_use]
    pub fn fee(&self, coin: &TxOut) -> Amount {
        let outputs: Amount = self.outputs.iter().map(|output| output.value).sum();
        let connector = self.connector.as_ref().map_or(Amount::ZERO, |connector| connector.spend.txout.value);
        (coin.value + connector).checked_sub(outputs).unwrap_or(Amount::ZERO)
    }

    fn transaction(&self, funding: OutPoint) -> Transaction {
        let input = |previous_output, sequence| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::new(),
        };
        let connector = self.connector.iter().map(|connector| input(connector.outpoint, connector.sequence));
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: connector.chain([input(funding, Sequence::ENABLE_RBF_NO_LOCKTIME)]).collect(),
            output: self.outputs.clone(),
        }
    }

    /// The whole transaction, funded by `coin` (which belongs to `wallet`) and signed. Signatures are deterministic.
    #[must_use]
    pub fn sign(
        &self,
        (outpoint, coin): (OutPoint, &TxOut),
        operator: &Keypair,
        wallet: &Keypair,
    ) -> Transaction {
        let mut tx = self.transaction(outpoint);
        let mut spent: Vec<TxOut> =
            self.connector.iter().map(|connector| connector.spend.txout.clone()).collect();
        spent.push(coin.clone());
        if let Some(connector) = &self.connector {
            let signature = sign_leaf(&tx, 0, &spent, &connector.spend, operator);
            tx.input[0].witness = connector.witness(&signature);
        }
        let last = tx.input.len() - 1;
        let signature = sign_key(&tx, last, &spent, wallet);
        tx.input[last].witness = Witness::from_slice(&[signature]);
        tx
    }
}

impl ConnectorInput {
    fn witness(&self, signature: &[u8; 64]) -> Witness {
        let mut witness = Witness::from_slice(&self.items);
        witness.push(signature);
        witness.push(self.spend.script.as_bytes());
        witness.push(self.spend.control.serialize());
        witness
    }
}

/// Signature of input `index` for a script path, over the whole transaction.
///
/// # Panics
/// If `index` is no input of `tx`, or `spent` has not one output for each.
#[must_use]
pub fn sign_leaf(
    tx: &Transaction,
    index: usize,
    spent: &[TxOut],
    spend: &LeafSpend,
    key: &Keypair,
) -> [u8; 64] {
    let hash = SighashCache::new(tx)
        .taproot_script_spend_signature_hash(
            index,
            &Prevouts::All(spent),
            spend.leaf_hash(),
            TapSighashType::Default,
        )
        .expect("the index is an input and every spent output is given");
    *secp().sign_schnorr_no_aux_rand(&Message::from_digest(hash.to_byte_array()), key).as_ref()
}

/// Signature of input `index` for the key path of the wallet's output.
///
/// # Panics
/// If `index` is no input of `tx`, or `spent` has not one output for each.
#[must_use]
pub fn sign_key(tx: &Transaction, index: usize, spent: &[TxOut], key: &Keypair) -> [u8; 64] {
    let hash = SighashCache::new(tx)
        .taproot_key_spend_signature_hash(index, &Prevouts::All(spent), TapSighashType::Default)
        .expect("the index is an input and every spent output is given");
    let tweaked = key.tap_tweak(secp(), None).to_keypair();
    *secp().sign_schnorr_no_aux_rand(&Message::from_digest(hash.to_byte_array()), &tweaked).as_ref()
}

/// The wallet's output script: taproot with no scripts (BIP86).
#[must_use]
pub fn wallet_script(key: XOnlyPublicKey) -> ScriptBuf {
    ScriptBuf::new_p2tr(secp(), key, None)
}

/// The connector that a Reconfiguration or Claim leaves.
#[must_use]
pub fn connector_of(txid: Txid) -> OutPoint {
    OutPoint::new(txid, CONNECTOR_VOUT)
}

/// Takes an output back that only a time lock and the operator's key hold, such as the collateral; `None` if the fee would
/// eat it. `blocks` is its lock.
#[must_use]
pub fn reclaim(
    (outpoint, spend): (OutPoint, &LeafSpend),
    blocks: u16,
    to: ScriptBuf,
    rate: FeeRate,
    operator: &Keypair,
) -> Option<Transaction> {
    let mut tx = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::from_height(blocks),
            witness: leaf_witness(&[0; 64], spend),
        }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: to }],
    };
    let fee = rate.fee_wu(tx.weight())?;
    tx.output[0].value = spend.txout.value.checked_sub(fee).filter(|left| *left >= CONNECTOR_VALUE)?;
    let signature = sign_leaf(&tx, 0, std::slice::from_ref(&spend.txout), spend, operator);
    tx.input[0].witness = leaf_witness(&signature, spend);
    Some(tx)
}

/// Witness of a leaf that wants one signature.
#[must_use]
pub fn leaf_witness(signature: &[u8; 64], spend: &LeafSpend) -> Witness {
    let mut witness = Witness::new();
    witness.push(signature);
    witness.push(spend.script.as_bytes());
    witness.push(spend.control.serialize());
    witness
}
