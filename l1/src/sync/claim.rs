//! What the transaction that spends a connector is, read from its witness.
//!
//! Consensus has run the script that the witness shows. So this module only has to find out which script that is: rebuilt
//! from the epoch's terms it must give the same bytes.

use bitcoin::script::Instruction;
use bitcoin::{Script, ScriptBuf, Transaction, TxOut, Witness};

use crate::envelope::message::ClaimValues;
use crate::envelope::scan::tapscript;
use crate::graph::connector::{claim_connector, claim_script, CONNECTOR_VALUE, NEXT_EPOCH_LEAF};
use crate::graph::terms::{ClaimKeys, ClaimValue, EpochTerms};
use crate::graph::transactions::RECONFIGURATION_MARK;
use crate::wots::{PublicKey, ValueSize, DIGIT_MAX, HASH_BYTES};

/// Output of a Reconfiguration that names its terms.
const MARK_VOUT: usize = 2;
/// Longest number that consensus lets a script compute with, in bytes.
const NUMBER_BYTES_MAX: usize = 4;

/// What a spend of a connector is.
pub(super) enum Spend {
    Claim { values: ClaimValues, keys: Box<ClaimKeys> },
    Reconfiguration { terms_id: [u8; 32] },
}

/// Reads the spend by `input` of the connector that claim `claim` of the epoch would spend, whose output script is
/// `connector_script`.
///
/// # Errors
/// In words, why it is neither a claim nor a Reconfiguration.
pub(super) fn read_spend(
    tx: &Transaction,
    input: usize,
    (terms, claim): (&EpochTerms, u32),
    connector_script: &Script,
) -> Result<Spend, &'static str> {
    let witness = &tx.input[input].witness;
    let script = tapscript(witness).ok_or("it was not spent by a script")?;
    let next_epoch = claim_connector(terms, claim, None).leaf(NEXT_EPOCH_LEAF).map(|leaf| leaf.script);
    if next_epoch.is_some_and(|leaf| leaf.as_script() == script) {
        let terms_id =
            mark(tx).ok_or("the operator spent it by the next epoch's leaf without naming an epoch")?;
        return Ok(Spend::Reconfiguration { terms_id });
    }
    if claim >= terms.claims_max {
        return Err("the epoch has no more claims");
    }
    let keys = claim_keys(script).ok_or("its script is no claim's")?;
    if claim_script(terms, claim, &keys).as_script() != script {
        return Err("its script is not this claim's");
    }
    if claim_connector(terms, claim, Some(&keys)).txout().script_pubkey.as_script() != connector_script {
        return Err("its script is not in the connector as the terms demand");
    }
    let values = signed_values(witness).ok_or("its one-time signatures cannot be read")?;
    Ok(Spend::Claim { values, keys: Box::new(keys) })
}

/// True if `output` can be a connector: its scripts show when it is spent.
pub(super) fn may_be_connector(output: &TxOut) -> bool {
    output.value == CONNECTOR_VALUE && output.script_pubkey.is_p2tr()
}

/// The id in the output that a Reconfiguration names its terms with.
pub(super) fn mark(tx: &Transaction) -> Option<[u8; 32]> {
    // OP_RETURN and a push of 37 bytes.
    let push = tx.output.get(MARK_VOUT)?.script_pubkey.as_bytes().strip_prefix(&[0x6a, 37])?;
    push.strip_prefix(&RECONFIGURATION_MARK)?.try_into().ok()
}

/// The public hashes of the five keys: all pushes of 20 bytes, in order. Whether the rest fits shows when the script is rebuilt.
fn claim_keys(script: &Script) -> Option<ClaimKeys> {
    let mut hashes: Vec<[u8; HASH_BYTES]> = Vec::new();
    for instruction in script.instructions() {
        if let Instruction::PushBytes(bytes) = instruction.ok()? {
            hashes.extend(<[u8; HASH_BYTES]>::try_from(bytes.as_bytes()).ok());
        }
    }
    let size = ValueSize::Bytes32;
    if hashes.len() != ClaimValue::ALL.len() * size.digits() {
        return None;
    }
    let keys: Option<Vec<PublicKey>> =
        hashes.chunks(size.digits()).map(|hashes| PublicKey::from_hashes(size, hashes.to_vec())).collect();
    Some(ClaimKeys(keys?.try_into().ok()?))
}

/// The values under the signatures. Witness, top first: control block, script, the operator's signature; for each value, for
/// each digit from the first on: digit, chain element.
fn signed_values(witness: &Witness) -> Option<ClaimValues> {
    let mut items: Vec<&[u8]> = witness.iter().collect();
    // An annex would lie on top.
    if items.last()?.first() == Some(&0x50) {
        items.pop();
    }
    let mut stack = items.into_iter().rev().skip(3);
    let mut word = || {
        let size = ValueSize::Bytes32;
        let mut digits = Vec::with_capacity(size.digits());
        for _ in 0..size.digits() {
            digits.push(digit(stack.next()?)?);
            stack.next()?;
        }
        let bytes = digits[..size.message_digits()].chunks(2).map(|pair| pair[0] << 4 | pair[1]);
        <[u8; 32]>::try_from(bytes.collect::<Vec<u8>>()).ok()
    };
    let values = ClaimValues {
        prev_commitment: word()?,
        new_commitment: word()?,
        batch_hash: word()?,
        code_root: word()?,
        digest: word()?,
    };
    stack.next().is_none().then_some(values)
}

/// A digit as the script computes with it: any number of at most 4 bytes, cut to 15.
fn digit(item: &[u8]) -> Option<u8> {
    if item.len() > NUMBER_BYTES_MAX {
        return None;
    }
    let (last, rest) = match item.split_last() {
        None => return Some(0),
        Some((last, rest)) => (*last, rest),
    };
    if last & 0x80 != 0 {
        // Minus zero is zero; other negative numbers pick nothing.
        return (last == 0x80 && rest.iter().all(|byte| *byte == 0)).then_some(0);
    }
    let value = item.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    Some(value.min(u64::from(DIGIT_MAX)) as u8)
}

/// The script of a transaction's first output, if it can be a connector.
pub(super) fn connector_script(tx: &Transaction) -> Option<ScriptBuf> {
    tx.output.first().filter(|output| may_be_connector(output)).map(|output| output.script_pubkey.clone())
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::key::Keypair;
    use bitcoin::{Amount, OutPoint, Txid};

    use super::*;
    use crate::envelope::message::tests::values;
    use crate::graph::terms::tests::{secret, terms};
    use crate::graph::transactions::{claim, connector_of, reconfiguration, wallet_script, PreviousEpoch};
    use crate::keys::KeyRole;
    use crate::wots::guard::UseGuard;

    fn keys(number: u32) -> ClaimKeys {
        ClaimKeys::derive(&secret(), &terms().trunk_id, 0, number)
    }

    fn fund(unfunded: &crate::graph::transactions::Unfunded) -> Transaction {
        let terms = terms();
        let wallet: Keypair = secret().keypair(&terms.trunk_id, KeyRole::Wallet);
        let operator = secret().keypair(&terms.trunk_id, KeyRole::Operator);
        let coin = TxOut {
            value: Amount::from_sat(1_000_000),
            script_pubkey: wallet_script(wallet.x_only_public_key().0),
        };
        unfunded.sign((OutPoint::new(Txid::all_zeros(), 0), &coin), &operator, &wallet)
    }

    fn claim_tx(number: u32, values: &ClaimValues) -> Transaction {
        let terms = terms();
        let dir = tempfile::tempdir().unwrap();
        let mut guard = UseGuard::open(&dir.path().join("wots.json")).unwrap();
        let named: Vec<_> = ClaimValue::ALL
            .iter()
            .zip(values.fields())
            .map(|(value, bytes)| (value.key_id(terms.trunk_id, 0, number), bytes.as_slice()))
            .collect();
        let signatures = guard.sign(&secret(), &named).unwrap();
        let connector = connector_of(Txid::all_zeros());
        fund(&claim(&terms, number, connector, (&keys(number), Some(&keys(number + 1))), &signatures))
    }

    #[test]
    fn a_claim_gives_its_values_and_keys() {
        let terms = terms();
        let mut odd = values();
        odd.new_commitment = std::array::from_fn(|at| (at * 37) as u8);
        for values in [values(), odd] {
            let tx = claim_tx(0, &values);
            let script = claim_connector(&terms, 0, Some(&keys(0))).txout().script_pubkey;
            let Ok(Spend::Claim { values: got, keys: read }) = read_spend(&tx, 0, (&terms, 0), &script)
            else {
                panic!("no claim")
            };
            assert_eq!((got, *read), (values, keys(0)));
            assert_eq!(
                connector_script(&tx),
                Some(claim_connector(&terms, 1, Some(&keys(1))).txout().script_pubkey)
            );
        }
    }

    #[test]
    fn a_claim_of_another_number_epoch_or_connector_is_none() {
        let terms = terms();
        let tx = claim_tx(1, &values());
        let script = claim_connector(&terms, 1, Some(&keys(1))).txout().script_pubkey;
        assert!(read_spend(&tx, 0, (&terms, 1), &script).is_ok());
        assert!(read_spend(&tx, 0, (&terms, 0), &script).is_err(), "claim 0 has its start in the script");
        assert!(read_spend(&tx, 0, (&terms, 2), &script).is_err(), "the epoch has two claims");
        let mut other = terms.clone();
        other.params.code_root[0] ^= 1;
        assert!(read_spend(&tx, 0, (&other, 1), &script).is_err());
        let other_script = claim_connector(&terms, 1, Some(&keys(0))).txout().script_pubkey;
        assert!(read_spend(&tx, 0, (&terms, 1), &other_script).is_err());
        // Without its witness it is nothing.
        let mut bare = tx.clone();
        bare.input[0].witness.clear();
        assert!(read_spend(&bare, 0, (&terms, 1), &script).is_err());
    }

    #[test]
    fn a_reconfiguration_names_its_terms() {
        let terms = terms();
        let unused = keys(1);
        let previous = PreviousEpoch {
            terms: &terms,
            claim: 1,
            keys: Some(&unused),
            connector: connector_of(Txid::all_zeros()),
        };
        let next = EpochTerms { epoch: 1, ..terms.clone() };
        let mut tx = fund(&reconfiguration(&next, &keys(0), Some(&previous)));
        let script = claim_connector(&terms, 1, Some(&keys(1))).txout().script_pubkey;
        let Ok(Spend::Reconfiguration { terms_id }) = read_spend(&tx, 0, (&terms, 1), &script) else {
            panic!("no reconfiguration")
        };
        assert_eq!(terms_id, next.id());
        tx.output.truncate(2);
        assert!(read_spend(&tx, 0, (&terms, 1), &script).is_err());
    }

    #[test]
    fn digits_are_what_the_script_computes_with() {
        let cases: [(&[u8], Option<u8>); 9] = [
            (&[], Some(0)),
            (&[5], Some(5)),
            (&[5, 0], Some(5)),
            (&[0x80], Some(0)),
            (&[0, 0x80], Some(0)),
            (&[16], Some(15)),
            (&[0, 1], Some(15)),
            (&[0x85], None),
            (&[1, 0, 0, 0, 0], None),
        ];
        for (item, expected) in cases {
            assert_eq!(digit(item), expected, "{item:?}");
        }
    }

    #[test]
    fn a_changed_spend_is_a_claim_only_with_the_keys_of_its_connector() {
        use bitcoin::consensus::encode::{deserialize, serialize};
        let terms = terms();
        let script = claim_connector(&terms, 1, Some(&keys(1))).txout().script_pubkey;
        let corpus = [serialize(&claim_tx(1, &values()))];
        // The `bitcoin` crate begins a witness with up to 16 MB.
        let target = assay_l1_fuzz::Target::new("claim", &corpus).cases(1_500).memory(20 << 20, 24);
        target.run(|bytes| {
            let Ok(tx) = deserialize::<Transaction>(bytes) else { return false };
            let _ = connector_script(&tx);
            let _ = mark(&tx);
            let mut is_claim = false;
            for input in 0..tx.input.len() {
                match read_spend(&tx, input, (&terms, 1), &script) {
                    Ok(Spend::Claim { keys: read, .. }) => {
                        assert_eq!(*read, keys(1));
                        is_claim = true;
                    }
                    Ok(Spend::Reconfiguration { .. }) => {
                        panic!("the leaf of the next epoch is not in the corpus")
                    }
                    Err(_) => {}
                }
            }
            is_claim
        });
    }
}
