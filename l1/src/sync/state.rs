//! What a reading remembers, on disk as in memory.

use std::collections::VecDeque;
use std::path::Path;

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, FindingKind};
use super::records::{Records, Source};
use super::SyncConfig;
use crate::envelope::message::ClaimValues;
use crate::graph::terms::EpochTerms;
use crate::store::StoreError;
use crate::window::BlockWindow;

const VERSION: u32 = 1;
/// Transactions that may be the trunk's first Reconfiguration.
const ROOTS_MAX: usize = 64;

/// 32 bytes as hexadecimal digits.
pub(super) mod hex32 {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(D::Error::custom)?;
        Ok(bytes)
    }
}

/// A transaction that may be the first Reconfiguration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    pub(super) txid: Txid,
    pub(super) height: u32,
    pub(super) connector_script: ScriptBuf,
    pub(super) author: Option<XOnlyPublicKey>,
}

/// Where the trunk stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrunkState {
    /// Terms of the current epoch, encoded, hexadecimal.
    pub(super) terms: String,
    /// The output that the next claim or epoch spends.
    pub(super) connector: OutPoint,
    pub(super) connector_script: ScriptBuf,
    /// The next claim.
    pub(super) claim: u32,
    /// Hash of the keys of each claim of the epoch so far, hexadecimal.
    pub(super) key_hashes: Vec<String>,
    /// The last signed new commitment, or the start.
    #[serde(with = "hex32")]
    pub(super) commitment: [u8; 32],
    /// The operator's envelopes' author, if known.
    pub(super) author: Option<XOnlyPublicKey>,
    /// False once a claim did not continue the one before it: nothing after it is worth anything.
    pub(super) is_linked: bool,
    /// True once the connector is gone.
    pub(super) has_ended: bool,
}

/// A claim whose data is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingClaim {
    pub(super) epoch: u32,
    pub(super) claim: u32,
    pub(super) txid: Txid,
    pub(super) height: u32,
    /// The five values, hexadecimal.
    pub(super) values: [String; 5],
    pub(super) is_linked: bool,
    pub(super) batches: Vec<Source>,
    pub(super) data: Vec<Source>,
}

impl PendingClaim {
    pub(super) fn values(&self) -> Option<ClaimValues> {
        let word = |at: usize| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(&self.values[at], &mut bytes).ok().map(|()| bytes)
        };
        Some(ClaimValues {
            prev_commitment: word(0)?,
            new_commitment: word(1)?,
            batch_hash: word(2)?,
            code_root: word(3)?,
            digest: word(4)?,
        })
    }
}

/// What a block brought, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Event {
    Finding(Finding),
    Epoch { terms: String, txid: Txid, height: u32 },
    Claim(Box<PendingClaim>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// Terms of the first epoch, encoded, hexadecimal.
    pub(super) first_terms: String,
    pub(super) root: Option<Txid>,
    start_height: u32,
    confirmations: u32,
    pub(super) window: BlockWindow,
    pub(super) roots: Vec<Root>,
    pub(super) trunk: Option<TrunkState>,
    pub(super) records: Records,
    pub(super) pending: VecDeque<Event>,
    /// True once it was said that records were forgotten.
    pub(super) said_forgetful: bool,
    /// True once a claim could not be executed.
    pub(super) is_stopped: bool,
}

impl State {
    pub(super) fn new(config: &SyncConfig) -> Self {
        Self {
            version: VERSION,
            first_terms: hex::encode(config.terms.encode()),
            root: config.root,
            start_height: config.start_height,
            confirmations: config.confirmations,
            window: BlockWindow::starting_at(config.start_height),
            roots: Vec::new(),
            trunk: None,
            records: Records::default(),
            pending: VecDeque::new(),
            said_forgetful: false,
            is_stopped: false,
        }
    }

    /// Names the first setting in which `config` differs.
    pub(super) fn check(&self, config: &SyncConfig) -> Result<(), &'static str> {
        let same = [
            ("version", self.version == VERSION),
            ("epoch's terms", self.first_terms == hex::encode(config.terms.encode())),
            ("root", self.root == config.root),
            ("first block", self.start_height == config.start_height),
            ("number of confirmations", self.confirmations == config.confirmations),
            ("window of blocks", self.window.is_valid(config.start_height)),
        ];
        same.into_iter().find(|(_, same)| !same).map_or(Ok(()), |(field, _)| Err(field))
    }

    pub(super) fn find(&mut self, height: u32, txid: Txid, kind: FindingKind) {
        self.pending.push_back(Event::Finding(Finding { height, txid, kind }));
    }

    /// Remembers a possible root.
    pub(super) fn add_root(&mut self, root: Root) {
        match self.roots.len() {
            ROOTS_MAX => self.find(root.height, root.txid, FindingKind::TooManyRoots),
            _ => self.roots.push(root),
        }
    }
}

/// Terms from their hexadecimal encoding in the state of `dir`.
pub(super) fn decode_terms(terms: &str, dir: &Path) -> Result<EpochTerms, StoreError> {
    let decoded = hex::decode(terms).ok().and_then(|bytes| EpochTerms::decode(&bytes).ok());
    decoded.ok_or_else(|| StoreError::Format {
        path: dir.join("sync.json"),
        detail: "epoch terms do not decode".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::BlockHash;

    use super::*;
    use crate::envelope::message::tests::values;
    use crate::envelope::message::Message;
    use crate::envelope::pack::pack;
    use crate::graph::terms::tests::terms;
    use crate::sync::records::Place;

    fn config() -> SyncConfig {
        let terms = terms();
        SyncConfig { dir: "a folder".into(), terms, root: None, start_height: 5, confirmations: 2 }
    }

    /// With something in every field.
    fn full() -> State {
        let (config, mut state) = (config(), State::new(&config()));
        let txid = Txid::all_zeros();
        let author = config.terms.operator_key;
        let terms = hex::encode(config.terms.encode());
        let hash = |byte| BlockHash::from_byte_array([byte; 32]);
        assert!(state.window.push(hash(1), hash(0)) && state.window.push(hash(2), hash(1)));
        let place = Place { height: 5, block: hash(1), txid, vin: 0 };
        let noise: Vec<u8> = (0..99u32).flat_map(|at| *blake3::hash(&at.to_le_bytes()).as_bytes()).collect();
        let batch = Message::Batch { epoch: 0, claim: 1, batch_hash: [5; 32], data: noise };
        for message in [batch, Message::Epoch(Box::new(config.terms.clone()))] {
            for envelope in pack(&message, 1_000).unwrap() {
                state.records.add((place, txid), author, &envelope).unwrap();
            }
        }
        let connector_script = ScriptBuf::from_bytes(vec![0x51, 0x20, 7]);
        state.add_root(Root {
            txid,
            height: 5,
            connector_script: connector_script.clone(),
            author: Some(author),
        });
        state.trunk = Some(TrunkState {
            terms: terms.clone(),
            connector: OutPoint::new(txid, 0),
            connector_script,
            claim: 1,
            key_hashes: vec![hex::encode([3; 32])],
            commitment: [4; 32],
            author: None,
            is_linked: true,
            has_ended: false,
        });
        state.find(6, txid, FindingKind::Envelope { detail: "malformed".to_owned() });
        state.pending.push_back(Event::Epoch { terms, txid, height: 6 });
        let (batches, data) = state.records.sources(0, 1);
        let values = values().fields().map(hex::encode);
        let pending =
            PendingClaim { epoch: 0, claim: 1, txid, height: 6, values, is_linked: true, batches, data };
        state.pending.push_back(Event::Claim(Box::new(pending)));
        state
    }

    #[test]
    fn a_changed_state_is_read_as_what_it_says_or_refused() {
        let corpus = [State::new(&config()), full()].map(|state| serde_json::to_vec_pretty(&state).unwrap());
        assay_l1_fuzz::Target::new("sync-state", &corpus).run(|bytes| {
            let Ok(state) = serde_json::from_slice::<State>(bytes) else { return false };
            let again: State = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
            assert_eq!(again, state);
            if state.check(&config()).is_err() {
                return false;
            }
            for event in &state.pending {
                if let Event::Claim(claim) = event {
                    let _ = claim.values();
                }
            }
            for terms in state.trunk.iter().map(|trunk| &trunk.terms) {
                let _ = decode_terms(terms, Path::new("a folder"));
            }
            let _ = state.records.terms(&config().terms.id());
            let _ = state.records.sources(0, 1);
            true
        });
    }
}
