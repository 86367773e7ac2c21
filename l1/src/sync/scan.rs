//! One block's effect on a reading.

use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};

use super::claim::{connector_script, mark, read_spend, Spend};
use super::finding::FindingKind;
use super::records::Place;
use super::state::{Event, PendingClaim, Root, State, TrunkState};
use crate::envelope::message::ClaimValues;
use crate::envelope::scan::{scan_transaction, Found};
use crate::envelope::tag;
use crate::graph::connector::collateral;
use crate::graph::terms::{commit, ClaimKeys, EpochTerms};
use crate::graph::transactions::{connector_of, COLLATERAL_VOUT, CONNECTOR_VOUT};

/// Reads the next block: its events are pending then.
pub(super) fn scan_block(state: &mut State, block: &Block, (height, hash): (u32, BlockHash)) {
    let Some(first) = decode(&state.first_terms) else { return };
    let tag = tag(&first.trunk_id);
    for tx in block.txdata.iter().skip(1) {
        for found in scan_transaction(tx, &tag) {
            take_envelope(state, tx, found, (height, hash));
        }
        if state.trunk.is_none() {
            take_root(state, tx, height, &first);
        }
        follow(state, tx, height);
    }
    if let (true, false, Some(tx)) = (state.records.is_forgetful, state.said_forgetful, block.txdata.first())
    {
        state.said_forgetful = true;
        state.find(height, tx.compute_txid(), FindingKind::RecordsForgotten);
    }
}

fn decode(terms: &str) -> Option<EpochTerms> {
    EpochTerms::decode(&hex::decode(terms).ok()?).ok()
}

fn take_envelope(state: &mut State, tx: &Transaction, found: Found, (height, block): (u32, BlockHash)) {
    let (author, envelope) = match found.envelope {
        Ok(envelope) => envelope,
        Err(error) => {
            let detail = error.to_string();
            return state.find(height, found.txid, FindingKind::Envelope { detail });
        }
    };
    if envelope.kind.is_to_rollup() {
        return;
    }
    let expected = state.trunk.as_ref().and_then(|trunk| trunk.author);
    if expected.is_some_and(|expected| expected != author) {
        return state.find(height, found.txid, FindingKind::ForeignAuthor { author, envelopes: 1 });
    }
    let place = Place { height, block, txid: found.txid, vin: found.vin };
    let funded_by = tx.input[found.vin as usize].previous_output.txid;
    if let Err(error) = state.records.add((place, funded_by), author, &envelope) {
        state.find(height, found.txid, FindingKind::Envelope { detail: error.to_string() });
    }
}

/// Remembers `tx` if it may be the Reconfiguration of the first epoch.
fn take_root(state: &mut State, tx: &Transaction, height: u32, terms: &EpochTerms) {
    if mark(tx) != Some(terms.id()) {
        return;
    }
    let txid = tx.compute_txid();
    if state.root.is_some_and(|root| root != txid) {
        return;
    }
    let collateral_fits = tx.output.get(COLLATERAL_VOUT as usize) == Some(&collateral(terms).txout());
    let Some(connector_script) = connector_script(tx).filter(|_| collateral_fits) else { return };
    // The operator pays for both from one transaction.
    let funding = tx.input.last().map(|input| input.previous_output.txid);
    let author = funding.and_then(|funding| state.records.author_of(terms, &funding));
    state.add_root(Root { txid, height, connector_script, author });
}

/// Moves the trunk on if `tx` spends its connector, or that of a possible root.
fn follow(state: &mut State, tx: &Transaction, height: u32) {
    let spends = |outpoint: OutPoint| tx.input.iter().position(|input| input.previous_output == outpoint);
    if let Some(trunk) = &state.trunk {
        if let (false, Some(input)) = (trunk.has_ended, spends(trunk.connector)) {
            advance(state, tx, input, height);
        }
        return;
    }
    let roots = std::mem::take(&mut state.roots);
    let spent = roots.iter().find_map(|root| Some((root, spends(connector_of(root.txid))?)));
    let Some((root, input)) = spent else {
        state.roots = roots;
        return;
    };
    let Some(terms) = decode(&state.first_terms) else { return };
    // Only the operator's key makes a claim or an epoch of it; anyone may have made an output that looks like it.
    if let Err(detail) = read_spend(tx, input, (&terms, 0), &root.connector_script) {
        state.roots = roots.iter().filter(|other| *other != root).cloned().collect();
        let kind = FindingKind::RootLost { root: root.txid, detail: detail.to_owned() };
        return state.find(height, tx.compute_txid(), kind);
    }
    state.trunk = Some(TrunkState {
        terms: state.first_terms.clone(),
        connector: connector_of(root.txid),
        connector_script: root.connector_script.clone(),
        claim: 0,
        key_hashes: Vec::new(),
        commitment: terms.params.start_commitment,
        author: root.author,
        is_linked: true,
        has_ended: false,
    });
    let event = Event::Epoch { terms: state.first_terms.clone(), txid: root.txid, height: root.height };
    state.pending.push_back(event);
    match root.author {
        None => state.find(root.height, root.txid, FindingKind::AuthorUnknown),
        Some(author) => {
            for (author, envelopes) in state.records.keep_author(&author) {
                state.find(height, root.txid, FindingKind::ForeignAuthor { author, envelopes });
            }
        }
    }
    advance(state, tx, input, height);
}

fn advance(state: &mut State, tx: &Transaction, input: usize, height: u32) {
    let txid = tx.compute_txid();
    let Some(mut trunk) = state.trunk.take() else { return };
    let Some(terms) = decode(&trunk.terms) else { return };
    match read_spend(tx, input, (&terms, trunk.claim), &trunk.connector_script) {
        Err(detail) => {
            trunk.has_ended = true;
            state.find(height, txid, FindingKind::ConnectorLost { detail: detail.to_owned() });
        }
        Ok(Spend::Claim { values, keys }) => {
            take_claim(state, &mut trunk, &terms, (txid, height), &values, &keys);
            take_connector(state, &mut trunk, tx, (txid, height));
        }
        Ok(Spend::Reconfiguration { terms_id }) => {
            check_keys(state, &trunk, &terms, (txid, height));
            take_epoch(state, &mut trunk, &terms, (tx, txid, height), terms_id);
            take_connector(state, &mut trunk, tx, (txid, height));
        }
    }
    state.trunk = Some(trunk);
}

/// The new connector; a claim or epoch without one ends the trunk.
fn take_connector(state: &mut State, trunk: &mut TrunkState, tx: &Transaction, (txid, height): (Txid, u32)) {
    trunk.connector = connector_of(txid);
    match connector_script(tx) {
        Some(script) => trunk.connector_script = script,
        None => {
            trunk.has_ended = true;
            let expected = "connector".to_owned();
            state.find(height, txid, FindingKind::Output { vout: CONNECTOR_VOUT, expected });
        }
    }
}

fn take_claim(
    state: &mut State,
    trunk: &mut TrunkState,
    terms: &EpochTerms,
    (txid, height): (Txid, u32),
    values: &ClaimValues,
    keys: &ClaimKeys,
) {
    let (epoch, claim) = (terms.epoch, trunk.claim);
    let digest = values.expected_digest();
    let checks = [
        (trunk.commitment, values.prev_commitment, 0),
        (digest, values.digest, 1),
        (terms.params.code_root, values.code_root, 2),
    ];
    for (expected, got, kind) in checks.into_iter().filter(|(expected, got, _)| expected != got) {
        trunk.is_linked = false;
        let (expected, got) = (hex::encode(expected), hex::encode(got));
        let kind = match kind {
            0 => FindingKind::Discontinuity { epoch, claim, expected, got },
            1 => FindingKind::Digest { epoch, claim, expected, got },
            _ => FindingKind::CodeRoot { epoch, claim, expected, got },
        };
        state.find(height, txid, kind);
    }
    let (batches, data) = state.records.sources(epoch, claim);
    state.pending.push_back(Event::Claim(Box::new(PendingClaim {
        epoch,
        claim,
        txid,
        height,
        values: values.fields().map(hex::encode),
        is_linked: trunk.is_linked,
        batches,
        data,
    })));
    trunk.commitment = values.new_commitment;
    trunk.key_hashes.push(hex::encode(keys.hash()));
    trunk.claim += 1;
    // With the last claim all keys are known.
    check_keys(state, trunk, terms, (txid, height));
}

/// Holds the keys that the claims showed against the terms. Only when all have been shown there is something to compare.
fn check_keys(state: &mut State, trunk: &TrunkState, terms: &EpochTerms, (txid, height): (Txid, u32)) {
    if trunk.key_hashes.len() != terms.claims_max as usize {
        return;
    }
    let hashes = trunk.key_hashes.iter().map(|hash| {
        let mut bytes = [0; 32];
        // What is not hexadecimal gives zeros, which are no key's hash.
        let _ = hex::decode_to_slice(hash, &mut bytes);
        bytes
    });
    if commit(hashes) != terms.key_commitment {
        state.find(height, txid, FindingKind::Keys { epoch: terms.epoch });
    }
}

fn take_epoch(
    state: &mut State,
    trunk: &mut TrunkState,
    before: &EpochTerms,
    (tx, txid, height): (&Transaction, Txid, u32),
    terms_id: [u8; 32],
) {
    let epoch = before.epoch.saturating_add(1);
    let Some(terms) = state.records.terms(&terms_id) else {
        trunk.has_ended = true;
        return state.find(
            height,
            txid,
            FindingKind::TermsMissing { epoch, terms_id: hex::encode(terms_id) },
        );
    };
    let fields = [
        ("trunk", hex::encode(before.trunk_id), hex::encode(terms.trunk_id)),
        ("number", epoch.to_string(), terms.epoch.to_string()),
        ("operator key", before.operator_key.to_string(), terms.operator_key.to_string()),
        ("start", hex::encode(trunk.commitment), hex::encode(terms.params.start_commitment)),
    ];
    for (field, expected, got) in fields.into_iter().filter(|(_, expected, got)| expected != got) {
        trunk.is_linked = false;
        state.find(height, txid, FindingKind::Terms { field: field.to_owned(), expected, got });
    }
    if tx.output.get(COLLATERAL_VOUT as usize) != Some(&collateral(&terms).txout()) {
        let expected = "collateral".to_owned();
        state.find(height, txid, FindingKind::Output { vout: COLLATERAL_VOUT, expected });
    }
    let encoded = hex::encode(terms.encode());
    state.pending.push_back(Event::Epoch { terms: encoded.clone(), txid, height });
    trunk.terms = encoded;
    trunk.claim = 0;
    trunk.key_hashes.clear();
    trunk.commitment = terms.params.start_commitment;
}
