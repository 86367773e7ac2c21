//! Verification and settlement.

use std::path::PathBuf;

use ark_bn254::{Bn254, Fr};
use ark_groth16::{Proof, VerifyingKey};
use ark_serialize::CanonicalDeserialize;
use assay_l1::{
    BackendError, BackendSpec, ClaimInput, ClaimReceipt, EpochParams, EpochReceipt, Network, Trunk,
    TrunkConfig, TrunkError,
};
use serde_json::json;

use super::{Fault, Shell};
use crate::cache::Entry;
use crate::config::Config;
use crate::pipeline::Stage;
use crate::statement::{self, Claim, ClaimFile, SettledTransaction, Settlement, Statement};
use crate::verify::{self, Files};

/// The back end that the configuration asks for.
///
/// # Errors
/// [`BackendError`] for a URL that is none.
pub(crate) fn backend_spec(config: &Config) -> Result<BackendSpec, BackendError> {
    match &config.bitcoind {
        Some(url) => BackendSpec::bitcoind(url, config.bitcoind_cookie.as_deref()),
        None => Ok(BackendSpec::InProcess { dir: chain_dir(config).join("bitcoin-regtest") }),
    }
}

fn chain_dir(config: &Config) -> PathBuf {
    config.out.join("chain")
}

/// The Groth16 result as values.
pub(super) struct Proved {
    pub(super) proof: Proof<Bn254>,
    pub(super) proof_bytes: Vec<u8>,
    pub(super) vk: VerifyingKey<Bn254>,
    pub(super) input: Fr,
    pub(super) statement: Statement,
    pub(super) insecure: bool,
}

impl Shell<'_> {
    /// Checks the proof exactly as `assay verify` will, before anything is written or settled.
    pub(super) fn verify(&mut self) -> Result<Entry, Fault> {
        let proved = self.proved()?;
        let files = self.files(&proved, None)?;
        let accepted = verify::verify_files(&files, None)?;
        let outcome =
            json!({ "checks": accepted.checks, "verifying_key_blake3": accepted.verifying_key_blake3 });
        Ok(Entry { stage: "verify".into(), outcome, blobs: Default::default(), millis: 0, peak_bytes: 0 })
    }

    /// Posts the claim. The trunk is its own record: settling the same claim twice gives the same receipt.
    pub(super) fn settle(&mut self) -> Result<Entry, Fault> {
        let proved = self.proved()?;
        let folder = chain_dir(self.config);
        let backend = backend_spec(self.config)?.open()?;
        let network = backend.network();
        if !matches!(network, Network::Regtest | Network::Signet) {
            return Err(Fault::Failed(format!(
                "settlement has only development settings (INSECURE keys, short time locks): the node is on {network}, \
                 expected regtest or signet"
            )));
        }
        let mut trunk = Trunk::open(TrunkConfig::development(folder.join("trunk")), backend)?;
        let history =
            self.request.history.as_ref().ok_or_else(|| Fault::Failed("no history to settle".into()))?;
        let public_values = self.public_values()?;
        let part = |at: usize| <[u8; 32]>::try_from(&public_values[at * 32..][..32]);
        let mut verifier_commitment = [0; 32];
        hex::decode_to_slice(verify::verifying_key_hash(&proved.vk), &mut verifier_commitment)?;
        let input = ClaimInput {
            prev_commitment: part(0)?,
            new_commitment: part(1)?,
            batch_hash: part(2)?,
            code_root: part(3)?,
            digest: statement::digest(&public_values),
            proof: proved.proof_bytes,
            batch_data: self.request.job.data.clone(),
        };
        if trunk.find_claim(&input.digest).is_none() {
            let start_commitment = history.genesis_commitment;
            let code_root = input.code_root;
            let params = EpochParams { start_commitment, code_root, verifier_commitment };
            self.open_epoch(&mut trunk, &params, &input)?;
        }
        let receipt = trunk.settle(&input)?;
        let epoch = trunk.epochs().iter().find(|epoch| epoch.epoch == receipt.epoch);
        let epoch = epoch.ok_or_else(|| Fault::Failed("the claim's epoch is unknown".into()))?;
        let outcome = serde_json::to_value(settlement(epoch, &receipt))?;
        Ok(Entry { stage: "settle".into(), outcome, blobs: Default::default(), millis: 0, peak_bytes: 0 })
    }

    /// Opens the epoch; other programs or another verifying key than the open epoch's need a new one.
    fn open_epoch(
        &mut self,
        trunk: &mut Trunk,
        params: &EpochParams,
        claim: &ClaimInput,
    ) -> Result<(), Fault> {
        let folder = chain_dir(self.config).display().to_string();
        if let Some(settled) = trunk.settled_commitment().filter(|settled| *settled != claim.prev_commitment)
        {
            return Err(Fault::Failed(format!(
                "the chain of claims in {folder} has settled state {}, this batch begins at {}: settle the batch before \
                 it first, or use another --out",
                hex::encode(settled),
                hex::encode(claim.prev_commitment)
            )));
        }
        let begins_elsewhere = |epoch: &EpochReceipt| epoch.start_commitment != params.start_commitment;
        if trunk.epochs().first().is_some_and(begins_elsewhere) {
            let reason =
                format!("the chain of claims in {folder} begins at another genesis: use another --out");
            return Err(Fault::Failed(reason));
        }
        match trunk.open_epoch(params) {
            Err(TrunkError::EpochMismatch { field, .. }) => {
                self.view.note(&format!(
                    "the {field} has changed: closing the epoch on Bitcoin and opening a new one"
                ));
                trunk.close_epoch()?;
                trunk.open_epoch(params)?;
            }
            other => drop(other?),
        }
        Ok(())
    }

    /// Reads the Groth16 result back from the cache.
    pub(super) fn proved(&self) -> Result<Proved, Fault> {
        let read =
            |name| -> Result<Vec<u8>, Fault> { Ok(std::fs::read(self.input(Stage::Groth16, name)?.path)?) };
        let (proof_bytes, vk_bytes) = (read("proof")?, read("vk")?);
        let public_values = self.public_values()?;
        let insecure = self.result(Stage::Groth16)?.outcome["insecure"].as_bool().unwrap_or(true);
        Ok(Proved {
            proof: Proof::deserialize_compressed(proof_bytes.as_slice())?,
            vk: VerifyingKey::deserialize_compressed(vk_bytes.as_slice())?,
            input: statement::public_input(&statement::digest(&public_values)),
            statement: Statement::new(&public_values),
            proof_bytes,
            insecure,
        })
    }

    /// Renders the files of the result folder.
    pub(super) fn files(&self, proved: &Proved, settlement: Option<Settlement>) -> Result<Files, Fault> {
        let claim = Claim {
            version: ClaimFile::VERSION,
            insecure: proved.insecure.then(|| statement::INSECURE_NOTE.to_owned()),
            statement: proved.statement.clone(),
            batch: self.summary(),
            verifying_key_blake3: verify::verifying_key_hash(&proved.vk),
            settlement,
            enforcement: assay_l1::enforcement_summary().to_owned(),
        };
        Ok(Files::render(&proved.proof, &proved.vk, &[proved.input], &ClaimFile::new(claim))?)
    }
}

/// The receipts in the form of `claim.json`.
fn settlement(epoch: &EpochReceipt, claim: &ClaimReceipt) -> Settlement {
    let transaction = |tx: &assay_l1::TxReceipt| SettledTransaction {
        role: tx.role.clone(),
        txid: tx.txid.to_string(),
        block_height: tx.block_height,
        block_hash: tx.block_hash.to_string(),
        vsize_vb: tx.vsize_vb,
        fee_sat: tx.fee_sat,
    };
    let claim_height =
        claim.transactions.iter().find(|tx| tx.txid == claim.claim_txid).map_or(0, |tx| tx.block_height);
    Settlement {
        network: claim.network.clone(),
        backend: claim.backend.clone(),
        epoch: claim.epoch,
        claim: claim.claim,
        reconfiguration_txid: epoch.reconfiguration_txid.to_string(),
        claim_txid: claim.claim_txid.to_string(),
        claim_height,
        digest: hex::encode(claim.digest),
        transactions: epoch.transactions.iter().chain(&claim.transactions).map(transaction).collect(),
        fee_total_sat: claim.fee_total_sat,
        vsize_total_vb: claim.vsize_total_vb,
    }
}
