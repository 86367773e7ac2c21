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
