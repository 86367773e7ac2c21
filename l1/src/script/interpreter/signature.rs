//! Opcodes that look at the transaction: Schnorr signatures (BIP340, BIP342) and relative time locks (BIP112).

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CHECKSIGADD};
use bitcoin::opcodes::Opcode;
use bitcoin::secp256k1::{schnorr, Message, XOnlyPublicKey};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};

use super::number::{boolean, encode, number};
use super::{Fault, Machine, Outcome, Spend};
use crate::consensus::secp;

/// Each signature check takes this much of the budget that the witness's size gives.
const CHECK_COST: i64 = 50;
const KEY_BYTES: usize = 32;
const LOCK_DISABLED: i64 = 1 << 31;
const LOCK_TIME: i64 = 1 << 22;
const LOCK_MASK: i64 = LOCK_TIME | 0xffff;

/// The input's budget for signature checks.
pub(super) fn budget(spend: &Spend<'_>) -> i64 {
    serialize(&spend.tx.input[spend.input].witness).len() as i64 + CHECK_COST
}

impl Machine<'_> {
    pub(super) fn signature(&mut self, opcode: Opcode) -> Outcome {
        let places = if opcode == OP_CHECKSIGADD { 2 } else { 1 };
        self.index(places)?;
        let key = self.pop()?;
        let count = if opcode == OP_CHECKSIGADD { Some(number(&self.pop()?, 4)?) } else { None };
        let signature = self.pop()?;
        let valid = self.check(&signature, &key)?;
        match (count, opcode) {
            (Some(count), _) => self.stack.push(encode(count + i64::from(valid))),
            (None, OP_CHECKSIG) => self.stack.push(boolean(valid)),
            (None, _) if valid => {}
            (None, _) => return Err(Fault::Verify),
        }
        Ok(())
    }

    /// False only for an empty signature: a wrong one ends the script.
    fn check(&mut self, signature: &[u8], key: &[u8]) -> Result<bool, Fault> {
        if !signature.is_empty() {
            self.budget -= CHECK_COST;
            if self.budget < 0 {
                return Err(Fault::Signature);
            }
        }
        match key.len() {
            0 => return Err(Fault::Signature),
            KEY_BYTES => {}
            // Keys of other sizes are for later soft forks: any signature fits.
            _ => return Ok(!signature.is_empty()),
        }
        if signature.is_empty() {
            return Ok(false);
        }
        let refused = |_| Fault::Signature;
        let (bytes, kind) = match signature {
            [bytes @ .., kind] if bytes.len() == 64 && *kind != 0 => (bytes, *kind),
            bytes if bytes.len() == 64 => (bytes, 0),
            _ => return Err(Fault::Signature),
        };
        let kind = TapSighashType::from_consensus_u8(kind).map_err(|_| Fault::Signature)?;
        let key = XOnlyPublicKey::from_slice(key).map_err(refused)?;
        let bytes = schnorr::Signature::from_slice(bytes).map_err(refused)?;
        let Spend { tx, input, spent, leaf } = self.spend;
        let hash = SighashCache::new(tx)
            .taproot_script_spend_signature_hash(input, &Prevouts::All(spent), leaf, kind)
            .map_err(|_| Fault::Signature)?;
        secp()
            .verify_schnorr(&bytes, &Message::from_digest(hash.to_byte_array()), &key)
            .map(|()| true)
            .map_err(refused)
    }

    pub(super) fn relative_lock(&mut self) -> Outcome {
        let wanted = number(self.stack.last().ok_or(Fault::StackShort)?, 5)?;
        if wanted < 0 {
            return Err(Fault::TimeLock);
        }
        if wanted & LOCK_DISABLED != 0 {
            return Ok(());
        }
        let sequence = i64::from(self.spend.tx.input[self.spend.input].sequence.to_consensus_u32());
        let (wanted, got) = (wanted & LOCK_MASK, sequence & LOCK_MASK);
        let met = self.spend.tx.version.0 >= 2
            && sequence & LOCK_DISABLED == 0
            && wanted & LOCK_TIME == got & LOCK_TIME
            && wanted <= got;
        if met {
            Ok(())
        } else {
            Err(Fault::TimeLock)
        }
    }
}
