//! What the attesters sign, and complete transactions.

use bitcoin::hashes::Hash;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{Message, XOnlyPublicKey};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{Transaction, TxOut, Witness};

use super::build::{Graph, Input, Node, TxRole};
use crate::consensus::secp;
use crate::graph::connector::LeafSpend;
use crate::graph::transactions::sign_key;
use bitcoin::taproot::TapLeafHash;

/// One signature that the attesters give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigningRequest {
    /// The transaction.
    pub role: TxRole,
    /// Its input.
    pub input: usize,
    /// Index of the leaf in the output spent.
    pub leaf: usize,
    /// Hash of the leaf.
    pub leaf_hash: TapLeafHash,
    /// What the signature commits to.
    pub sighash: TapSighashType,
    /// The key that signs. For what the epoch before left it is that epoch's; so that one must sign before it is deleted.
    pub signer: XOnlyPublicKey,
    /// The 32 bytes to be signed (BIP341).
    pub message: [u8; 32],
}

impl SigningRequest {
    /// The signature as a witness item: 64 bytes, and the type unless it is the default.
    #[must_use]
    pub fn item(&self, signature: &[u8; 64]) -> Vec<u8> {
        let mut item = signature.to_vec();
        if self.sighash != TapSighashType::Default {
            item.push(self.sighash as u8);
        }
        item
    }

    /// Signs with a key that is at hand in one piece.
    #[must_use]
    pub fn sign(&self, key: &Keypair) -> [u8; 64] {
        *secp().sign_schnorr_no_aux_rand(&Message::from_digest(self.message), key).as_ref()
    }
}

/// The requests of one transaction.
pub(super) fn requests_of(role: TxRole, node: &Node) -> Vec<SigningRequest> {
    let spent = node.spent();
    let mut cache = SighashCache::new(&node.tx);
    let mut requests = Vec::new();
    for (index, input) in node.inputs.iter().enumerate() {
        let Input::Contract { output, leaves, sighash, signer } = input else { continue };
        for leaf in leaves {
            let leaf_hash = output.leaf_hash(*leaf).expect("the graph names leaves that are there");
            let message = cache
                .taproot_script_spend_signature_hash(index, &Prevouts::All(&spent), leaf_hash, *sighash)
                .expect("every spent output is given, and SINGLE is used for input 0 only")
                .to_byte_array();
            requests.push(SigningRequest {
                role,
                input: index,
                leaf: *leaf,
                leaf_hash,
                sighash: *sighash,
                signer: *signer,
                message,
            });
        }
    }
    requests
}

impl Graph {
    /// Everything that the attesters sign, in the order of the roles.
    pub fn requests(&self) -> impl Iterator<Item = SigningRequest> + '_ {
        self.nodes().iter().flat_map(|(role, node)| requests_of(*role, node))
    }

    /// One of them.
    #[must_use]
    pub fn request(&self, role: TxRole, input: usize, leaf: usize) -> Option<SigningRequest> {
        let requests = requests_of(role, self.node(role)?);
        requests.into_iter().find(|request| request.input == input && request.leaf == leaf)
    }
}

/// Witness of a leaf: `items` (bottom first), the attesters' signature, script and control block.
#[must_use]
pub fn witness(items: &[Vec<u8>], attesters: Vec<u8>, spend: &LeafSpend) -> Witness {
    let mut witness = Witness::from_slice(items);
    witness.push(attesters);
    witness.push(spend.script.as_bytes());
    witness.push(spend.control.serialize());
    witness
}

/// The operator's signature of an input, over the whole transaction, for leaves that want it under the attesters'.
#[must_use]
pub fn operator_item(node: &Node, input: usize, spend: &LeafSpend, operator: &Keypair) -> Vec<u8> {
    crate::graph::transactions::sign_leaf(&node.tx, input, &node.spent(), spend, operator).to_vec()
}

/// Signs the operator's coin in a Reconfiguration; the last input.
pub fn sign_funding(tx: &mut Transaction, spent: &[TxOut], operator: &Keypair) {
    let index = spent.len() - 1;
    let signature = sign_key(tx, index, spent, operator);
    tx.input[index].witness = Witness::from_slice(&[signature]);
}
