//! The wire form of a graph: everything that a signer needs to build it again, and every transaction to compare with.
//!
//! Layout, integers little endian; lists are a count (u32) and their items, byte strings a length (u32) and the bytes:
//! mark `ASGP`, version 2; spec (terms as a byte string, attesters (32), recovery (32), sink (32), the locks of [`GameLocks`]
//! (2 each), words (2), hashes (2), deposit (8), slashed part (8), commitment to the assert keys (32), verifier leaves (32),
//! funding outpoint (36)); announced id (32); statements of the attesters' keys; the epoch before (a byte string, empty for
//! none); statements of its attesters' keys; one-time keys; transactions in the order of their roles. Signature scripts and
//! witnesses are empty.

use std::collections::BTreeMap;

use assay_l1::graph::connector::{Leaf, ScriptOutput};
use assay_l1::graph::contract::build::{EndKind, EpochEnd, Start, TxRole};
use assay_l1::graph::contract::keys::{EpochKeys, GameKeys};
use assay_l1::graph::contract::review::{Proposal, ProposedTx};
use assay_l1::graph::contract::sign::SigningRequest;
use assay_l1::graph::contract::spec::{AssertLayout, ContractSpec, GameLocks, SLOTS_MAX, SLOT_HASHES_MAX};
use assay_l1::graph::terms::{ClaimKeys, EpochTerms, CLAIMS_MAX};
use assay_l1::wots::{PublicKey as OneTimeKey, ValueSize, HASH_BYTES};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::sighash::TapSighashType;
use bitcoin::taproot::TapNodeHash;
use bitcoin::{Amount, OutPoint, ScriptBuf, TapLeafHash, Transaction, TxOut, Txid};

use super::{put_bytes, put_count, Reader, WireError};
use crate::limits::{PARTIES_MAX, PROPOSAL_BYTES_MAX, REQUESTS_MAX};
use crate::statement::{Statement, STATEMENT_BYTES_MIN};

const MARK: [u8; 5] = *b"ASGP\x02";
/// Values of an assertion, at most, of either size.
const VALUES_MAX: usize = SLOTS_MAX * SLOT_HASHES_MAX as usize;
const TX_BYTES_MAX: usize = 100_000;
const INPUTS_MAX: usize = 1 + SLOTS_MAX;
const SCRIPT_BYTES_MAX: usize = 400_000;
const LEAVES_MAX: usize = 4_096;
const TRANSACTIONS_MAX: usize = REQUESTS_MAX;

/// A graph as the operator proposes it to the signers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphProposal {
    /// The epoch's spec.
    pub spec: ContractSpec,
    /// The attesters' keys for the epoch, each stated by its signer, in the order of the signers' identities.
    pub attesters: Vec<Statement>,
    /// The epoch before, as this one builds on it.
    pub previous: Option<EpochEnd>,
    /// The attesters' keys for the epoch before, which sign this one's opening; empty if there is none.
    pub before: Vec<Statement>,
    /// One-time keys, announcement and transactions.
    pub graph: Proposal,
}

/// Hash of an encoded proposal: what a signer locks an epoch to.
#[must_use]
pub fn graph_id(encoded: &[u8]) -> [u8; 32] {
    blake3::derive_key("assay l1 signer graph v1", encoded)
}

impl GraphProposal {
    /// The canonical encoding.
    ///
    /// # Errors
    /// `Field` for a transaction whose kind has no number here; `TooLong` if nobody would read it.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut out = MARK.to_vec();
        put_spec(&mut out, &self.spec);
        out.extend(self.graph.announce);
        put_statements(&mut out, &self.attesters);
        put_bytes(&mut out, &self.previous.as_ref().map(encode_end).unwrap_or_default());
        put_statements(&mut out, &self.before);
        put_count(&mut out, self.graph.keys.0.len());
        self.graph.keys.0.iter().for_each(|keys| put_keys(&mut out, keys));
        put_count(&mut out, self.graph.transactions.len());
        for (role, proposed) in &self.graph.transactions {
            put_role(&mut out, *role)?;
            put_transaction(&mut out, proposed)?;
        }
        if out.len() > PROPOSAL_BYTES_MAX {
            return Err(WireError::TooLong { field: "proposal", got: out.len(), most: PROPOSAL_BYTES_MAX });
        }
        Ok(out)
    }

    /// Reads [`encode`](Self::encode)'s bytes, and no others.
    ///
    /// # Errors
    /// Where the bytes are not the canonical encoding of a proposal.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > PROPOSAL_BYTES_MAX {
            let got = bytes.len();
            return Err(WireError::TooLong { field: "proposal", got, most: PROPOSAL_BYTES_MAX });
        }
        let mut reader = Reader::new(bytes);
        if reader.array("mark")? != MARK {
            return Err(WireError::Field { field: "mark or version" });
        }
        let proposal = read(&mut reader)?;
        reader.finish()?;
        if proposal.encode()? != bytes {
            return Err(WireError::NotCanonical);
        }
        Ok(proposal)
    }
}

fn read(reader: &mut Reader<'_>) -> Result<GraphProposal, WireError> {
    let spec = read_spec(reader)?;
    let announce = reader.array("announcement")?;
    let attesters = read_statements(reader, "attesters")?;
    let previous = reader.bytes("epoch before", LEAVES_MAX * (5 + SCRIPT_BYTES_MAX))?;
    let previous = if previous.is_empty() { None } else { Some(decode_end(previous)?) };
    let before = read_statements(reader, "attesters before")?;
    let claims = reader.count("one-time keys", CLAIMS_MAX as usize, 5 * 67 * HASH_BYTES)?;
    let keys = (0..claims).map(|_| read_keys(reader)).collect::<Result<_, _>>()?;
    let count = reader.count("transactions", TRANSACTIONS_MAX, 7)?;
    let mut transactions = BTreeMap::new();
    for _ in 0..count {
        let role = read_role(reader)?;
        transactions.insert(role, read_transaction(reader)?);
    }
    let graph = Proposal { spec_id: spec.id(), announce, keys: EpochKeys(keys), transactions };
    Ok(GraphProposal { spec, attesters, previous, before, graph })
}

fn put_statements(out: &mut Vec<u8>, statements: &[Statement]) {
    put_count(out, statements.len());
    statements.iter().for_each(|statement| statement.put(out));
}

fn read_statements(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<Statement>, WireError> {
    let count = reader.count(field, PARTIES_MAX, STATEMENT_BYTES_MIN)?;
    (0..count).map(|_| Statement::read(reader)).collect()
}

fn put_spec(out: &mut Vec<u8>, spec: &ContractSpec) {
    let locks = &spec.locks;
    put_bytes(out, &spec.terms.encode());
    out.extend(spec.attesters.serialize());
    out.extend(spec.recovery.serialize());
    out.extend(spec.sink.serialize());
    for blocks in [
        locks.challenge_blocks,
        locks.assert_blocks,
        locks.disprove_blocks,
        locks.claim_timeout_blocks,
        locks.sink_blocks,
        locks.handover_blocks,
        spec.layout.words,
        spec.layout.hashes,
    ] {
        out.extend(blocks.to_le_bytes());
    }
    out.extend(spec.challenge_deposit.to_sat().to_le_bytes());
    out.extend(spec.slashed_to_sink.to_sat().to_le_bytes());
    out.extend(spec.assert_key_commitment);
    out.extend(spec.verifier_leaves);
    put_outpoint(out, spec.funding);
}

fn read_spec(reader: &mut Reader<'_>) -> Result<ContractSpec, WireError> {
    let terms = EpochTerms::decode(reader.bytes("terms", 1_024)?);
    let terms = terms.map_err(|_| WireError::Field { field: "terms" })?;
    let attesters = read_key(reader, "attesters' key")?;
    let recovery = read_key(reader, "recovery key")?;
    let sink = read_key(reader, "sink")?;
    let locks = GameLocks {
        challenge_blocks: reader.u16("challenge lock")?,
        assert_blocks: reader.u16("assert lock")?,
        disprove_blocks: reader.u16("disprove lock")?,
        claim_timeout_blocks: reader.u16("claim timeout")?,
        sink_blocks: reader.u16("sink lock")?,
        handover_blocks: reader.u16("hand-over lock")?,
    };
    let layout = AssertLayout { words: reader.u16("words")?, hashes: reader.u16("hashes")? };
    if usize::from(layout.words.max(layout.hashes)) > VALUES_MAX {
        return Err(WireError::Field { field: "assert layout" });
    }
    Ok(ContractSpec {
        terms,
        attesters,
        recovery,
        sink,
        locks,
        challenge_deposit: Amount::from_sat(reader.u64("challenge deposit")?),
        slashed_to_sink: Amount::from_sat(reader.u64("slashed part")?),
        layout,
        assert_key_commitment: reader.array("commitment to the assert keys")?,
        verifier_leaves: reader.array("verifier leaves")?,
        funding: read_outpoint(reader)?,
    })
}

fn read_key(reader: &mut Reader<'_>, field: &'static str) -> Result<XOnlyPublicKey, WireError> {
    let bytes: [u8; 32] = reader.array(field)?;
    XOnlyPublicKey::from_slice(&bytes).map_err(|_| WireError::Field { field })
}

fn put_outpoint(out: &mut Vec<u8>, outpoint: OutPoint) {
    out.extend(outpoint.txid.to_byte_array());
    out.extend(outpoint.vout.to_le_bytes());
}

fn read_outpoint(reader: &mut Reader<'_>) -> Result<OutPoint, WireError> {
    let txid = Txid::from_byte_array(reader.array("outpoint")?);
    Ok(OutPoint::new(txid, reader.u32("outpoint")?))
}

/// Bytes of an epoch's end: number (4), trunk (32), connector (36), lock (2), signer (32), how it ends: 0 and the announced id
/// (32), or 1; where the next one starts: 0 and the state (32), or 1 and the 67 hashes of the one-time key; value (8), leaves:
/// kind (1), script or hash.
#[must_use]
pub fn encode_end(end: &EpochEnd) -> Vec<u8> {
    let mut out = end.epoch.to_le_bytes().to_vec();
    out.extend(end.trunk_id);
    put_outpoint(&mut out, end.connector);
    out.extend(end.lock.to_le_bytes());
    out.extend(end.signer.serialize());
    match &end.kind {
        EndKind::Announced(id) => {
            out.push(0);
            out.extend(id);
        }
        EndKind::Halted => out.push(1),
    }
    match &end.start {
        Start::Commitment(state) => {
            out.push(0);
            out.extend(state);
        }
        Start::Signed(key) => {
            out.push(1);
            put_key(&mut out, key);
        }
    }
    out.extend(end.output.txout().value.to_sat().to_le_bytes());
    put_count(&mut out, end.output.leaves().len());
    for leaf in end.output.leaves() {
        match leaf {
            Leaf::Script(script) => {
                out.push(0);
                put_bytes(&mut out, script.as_bytes());
            }
            Leaf::Hidden(hash) => {
                out.push(1);
                out.extend(hash.to_byte_array());
            }
        }
    }
    out
}

/// Reads [`encode_end`]'s bytes.
///
/// # Errors
/// Where the bytes are no epoch's end.
pub fn decode_end(bytes: &[u8]) -> Result<EpochEnd, WireError> {
    let mut reader = Reader::new(bytes);
    let epoch = reader.u32("epoch before")?;
    let trunk_id = reader.array("trunk before")?;
    let connector = read_outpoint(&mut reader)?;
    let lock = reader.u16("lock before")?;
    let signer = read_key(&mut reader, "signer before")?;
    let kind = match reader.u8("kind of end")? {
        0 => EndKind::Announced(reader.array("announcement before")?),
        1 => EndKind::Halted,
        _ => return Err(WireError::Field { field: "kind of end" }),
    };
    let start = match reader.u8("kind of start")? {
        0 => Start::Commitment(reader.array("start")?),
        1 => Start::Signed(read_one_time_key(&mut reader, ValueSize::Bytes32)?),
        _ => return Err(WireError::Field { field: "kind of start" }),
    };
    let output = read_output(&mut reader)?;
    reader.finish()?;
    Ok(EpochEnd { epoch, trunk_id, connector, output, start, lock, signer, kind })
}

fn read_output(reader: &mut Reader<'_>) -> Result<ScriptOutput, WireError> {
    let value = Amount::from_sat(reader.u64("connector before")?);
    let count = reader.count("leaves before", LEAVES_MAX, 5)?;
    let mut leaves = Vec::with_capacity(count);
    for _ in 0..count {
        leaves.push(match reader.u8("leaf before")? {
            0 => Leaf::Script(ScriptBuf::from_bytes(reader.bytes("leaf before", SCRIPT_BYTES_MAX)?.to_vec())),
            1 => Leaf::Hidden(TapNodeHash::from_byte_array(reader.array("leaf before")?)),
            _ => return Err(WireError::Field { field: "leaf before" }),
        });
    }
    ScriptOutput::from_leaves(leaves, value).map_err(|_| WireError::Field { field: "leaves before" })
}

fn put_key(out: &mut Vec<u8>, key: &OneTimeKey) {
    key.hashes().iter().for_each(|hash| out.extend(hash));
}

fn read_one_time_key(reader: &mut Reader<'_>, size: ValueSize) -> Result<OneTimeKey, WireError> {
    let field = "one-time key";
    let hashes = (0..size.digits()).map(|_| reader.array(field)).collect::<Result<_, _>>()?;
    OneTimeKey::from_hashes(size, hashes).ok_or(WireError::Field { field })
}

fn put_keys(out: &mut Vec<u8>, keys: &GameKeys) {
    keys.claim.0.iter().for_each(|key| put_key(out, key));
    for list in [&keys.words, &keys.hashes] {
        put_count(out, list.len());
        list.iter().for_each(|key| put_key(out, key));
    }
}

fn read_keys(reader: &mut Reader<'_>) -> Result<GameKeys, WireError> {
    fn list(reader: &mut Reader<'_>, size: ValueSize) -> Result<Vec<OneTimeKey>, WireError> {
        let count = reader.count("assert keys", VALUES_MAX, size.digits() * HASH_BYTES)?;
        (0..count).map(|_| read_one_time_key(reader, size)).collect()
    }
    let mut claim = Vec::with_capacity(5);
    for _ in 0..5 {
        claim.push(read_one_time_key(reader, ValueSize::Bytes32)?);
    }
    let claim = <[OneTimeKey; 5]>::try_from(claim).map_err(|_| WireError::Field { field: "claim keys" })?;
    let words = list(reader, ValueSize::Bytes32)?;
    Ok(GameKeys { claim: ClaimKeys(claim), words, hashes: list(reader, ValueSize::Bytes16)? })
}

/// Kind (1), claim (4), slot (2); what a role does not have is zero.
fn put_role(out: &mut Vec<u8>, role: TxRole) -> Result<(), WireError> {
    let (kind, claim, slot) = match role {
        TxRole::Reconfiguration => (0, 0, 0),
        TxRole::Claim(claim) => (1, claim, 0),
        TxRole::ClaimTimeout(claim) => (2, claim, 0),
        TxRole::OptimisticAcceptance(claim) => (3, claim, 0),
        TxRole::Challenge(claim) => (4, claim, 0),
        TxRole::Assert(claim) => (5, claim, 0),
        TxRole::AssertSlot(claim, slot) => (6, claim, slot),
        TxRole::AssertTimeout(claim) => (7, claim, 0),
        TxRole::SlotTimeout(claim, slot) => (8, claim, slot),
        TxRole::DisproveInput(claim) => (9, claim, 0),
        TxRole::Disprove(claim) => (10, claim, 0),
        TxRole::Acceptance(claim) => (11, claim, 0),
        TxRole::PayOut => (12, 0, 0),
        _ => return Err(WireError::Field { field: "role" }),
    };
    out.push(kind);
    out.extend(u32::to_le_bytes(claim));
    out.extend(u16::to_le_bytes(slot));
    Ok(())
}

fn read_role(reader: &mut Reader<'_>) -> Result<TxRole, WireError> {
    let kind = reader.u8("role")?;
    let claim = reader.u32("role")?;
    let slot = reader.u16("role")?;
    Ok(match kind {
        0 => TxRole::Reconfiguration,
        1 => TxRole::Claim(claim),
        2 => TxRole::ClaimTimeout(claim),
        3 => TxRole::OptimisticAcceptance(claim),
        4 => TxRole::Challenge(claim),
        5 => TxRole::Assert(claim),
        6 => TxRole::AssertSlot(claim, slot),
        7 => TxRole::AssertTimeout(claim),
        8 => TxRole::SlotTimeout(claim, slot),
        9 => TxRole::DisproveInput(claim),
        10 => TxRole::Disprove(claim),
        11 => TxRole::Acceptance(claim),
        12 => TxRole::PayOut,
        _ => return Err(WireError::Field { field: "role" }),
    })
}

fn put_transaction(out: &mut Vec<u8>, proposed: &ProposedTx) -> Result<(), WireError> {
    put_bytes(out, &serialize(&proposed.tx));
    put_count(out, proposed.spent.len());
    for spent in &proposed.spent {
        put_bytes(out, &serialize(spent));
    }
    put_count(out, proposed.requests.len());
    let small =
        |number: usize| u16::try_from(number).map_err(|_| WireError::Field { field: "signing request" });
    for request in &proposed.requests {
        put_role(out, request.role)?;
        out.extend(small(request.input)?.to_le_bytes());
        out.extend(small(request.leaf)?.to_le_bytes());
        out.extend(request.leaf_hash.to_byte_array());
        out.push(request.sighash as u8);
        out.extend(request.signer.serialize());
        out.extend(request.message);
    }
    Ok(())
}

fn read_transaction(reader: &mut Reader<'_>) -> Result<ProposedTx, WireError> {
    let tx = reader.bytes("transaction", TX_BYTES_MAX)?;
    let tx: Transaction = deserialize(tx).map_err(|_| WireError::Field { field: "transaction" })?;
    let count = reader.count("spent outputs", INPUTS_MAX, 4)?;
    let spent = |reader: &mut Reader<'_>| {
        let bytes = reader.bytes("spent output", TX_BYTES_MAX)?;
        deserialize::<TxOut>(bytes).map_err(|_| WireError::Field { field: "spent output" })
    };
    let spent = (0..count).map(|_| spent(reader)).collect::<Result<_, _>>()?;
    let count = reader.count("signing requests", INPUTS_MAX + LEAVES_MAX, 108)?;
    let requests = (0..count).map(|_| read_request(reader)).collect::<Result<_, _>>()?;
    Ok(ProposedTx { tx, spent, requests })
}

fn read_request(reader: &mut Reader<'_>) -> Result<SigningRequest, WireError> {
    let field = "signing request";
    Ok(SigningRequest {
        role: read_role(reader)?,
        input: usize::from(reader.u16(field)?),
        leaf: usize::from(reader.u16(field)?),
        leaf_hash: TapLeafHash::from_byte_array(reader.array(field)?),
        sighash: TapSighashType::from_consensus_u8(reader.u8(field)?)
            .map_err(|_| WireError::Field { field: "signature type" })?,
        signer: read_key(reader, "signer")?,
        message: reader.array(field)?,
    })
}
