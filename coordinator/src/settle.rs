//! Posts claims on Bitcoin: the same code for `assay prove` and for the cluster.
//!
//! The trunk (`assay_l1::Trunk`) is its own record: settling the same claim twice, in whatever process, gives the same
//! receipt. Nothing is posted before the trunk has its plan on disk; [`SettleFailure::is_begun`] says whether there is one.

use std::path::{Path, PathBuf};

use assay_l1::{
    BackendError, BackendSpec, ClaimInput, ClaimReceipt, EpochParams, EpochReceipt, Network, Trunk,
    TrunkConfig, TrunkError,
};

use crate::config::Config;
use crate::l1_batches::HandOverError;
use crate::proved::Proved;
use crate::statement::{self, SettledTransaction, Settlement};

/// Where claims are posted.
#[derive(Clone, Debug)]
pub struct Venue {
    /// The chain.
    pub backend: BackendSpec,
    /// Folder of the trunk.
    pub trunk: PathBuf,
}

/// Why a claim is not settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// Only development settings exist.
    #[error(
        "settlement has only development settings (INSECURE keys, short time locks): the node is on {network}, expected \
         regtest or signet"
    )]
    Network {
        /// The node's.
        network: Network,
    },
    /// The claim does not continue the trunk.
    #[error(
        "the chain of claims in {folder} has settled state {settled}, this batch begins at {begins}: settle the batch before it \
         first, or use another --out"
    )]
    NotNext {
        /// The trunk's folder.
        folder: PathBuf,
        /// Its last state, hex.
        settled: String,
        /// Where the batch begins, hex.
        begins: String,
    },
    /// The trunk is of another history.
    #[error("the chain of claims in {folder} begins at another genesis: use another --out")]
    OtherGenesis {
        /// The trunk's folder.
        folder: PathBuf,
    },
    /// The batch is not the history's first, and the trunk holds nothing before it.
    #[error(
        "the chain of claims in {folder} is empty, but this batch is not the first of its rollup: all coordinators of a \
         deployment need the same --out; restore it from the backup"
    )]
    NoTrunk {
        /// The trunk's folder.
        folder: PathBuf,
    },
    /// The batch before is settled, but not in this trunk: it is an old one.
    #[error(
        "the chain of claims in {folder} is behind: it has settled state {settled}, and the batch that begins at {begins} is \
         next. All coordinators of a deployment need the same --out; restore the newest one"
    )]
    Stale {
        /// The trunk's folder.
        folder: PathBuf,
        /// Its last state, hex.
        settled: String,
        /// Where the batch begins, hex.
        begins: String,
    },
    /// The receipt names an epoch that the trunk does not have.
    #[error("the claim's epoch is unknown")]
    NoEpoch,
    /// The batch cannot be handed to the contract's operator.
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    /// The trunk.
    #[error(transparent)]
    Trunk(#[from] TrunkError),
    /// The chain.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl SettleError {
    /// Whether the same call may work later: because of time, or because a person has mended what is wrong on this machine
    /// (money, disk, node, folder). What is wrong with the claim itself stays wrong.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotNext { .. } | Self::OtherGenesis { .. } | Self::NoEpoch => false,
            Self::HandOver(error) => error.is_transient(),
            Self::Trunk(error) => !matches!(
                error,
                TrunkError::Discontinuity { .. }
                    | TrunkError::CodeRoot { .. }
                    | TrunkError::Digest { .. }
                    | TrunkError::Oversize { .. }
                    | TrunkError::Envelope(_)
            ),
            _ => true,
        }
    }
}

/// A claim that is not settled (yet).
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct SettleFailure {
    /// Why.
    #[source]
    pub error: SettleError,
    /// Whether a plan is on disk, whose transactions may be on their way: the same claim has to be tried again then.
    pub is_begun: bool,
}

impl From<SettleError> for SettleFailure {
    /// A failure before anything was planned.
    fn from(error: SettleError) -> Self {
        Self { error, is_begun: false }
    }
}

impl From<TrunkError> for SettleFailure {
    fn from(error: TrunkError) -> Self {
        SettleError::from(error).into()
    }
}

impl From<BackendError> for SettleFailure {
    fn from(error: BackendError) -> Self {
        SettleError::from(error).into()
    }
}

/// How a claim stands on its trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing of it was posted.
    Absent,
    /// There is a plan, of this claim or of what comes before it, whose transactions may be on their way.
    Begun,
    /// It is settled.
    Settled,
}

/// What is claimed.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest<'a> {
    /// The verified proof.
    pub proved: &'a Proved,
    /// Commitment to the state where the rollup's history begins; `None`: where the trunk begins, which then must not be
    /// empty.
    pub genesis: Option<[u8; 32]>,
    /// What a reader needs to rebuild the state.
    pub data: &'a [u8],
}

/// A settled claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// As `claim.json` has it.
    pub settlement: Settlement,
    /// Commitment to the state where the history begins.
    pub genesis: [u8; 32],
}

/// The back end that the configuration asks for.
///
/// # Errors
/// [`BackendError`] for a URL that is none.
pub fn backend_spec(config: &Config) -> Result<BackendSpec, BackendError> {
    match &config.bitcoind {
        Some(url) => BackendSpec::bitcoind(url, config.bitcoind_cookie.as_deref()),
        None => Ok(BackendSpec::InProcess { dir: config.out.join("chain/bitcoin-regtest") }),
    }
}

impl Venue {
    /// Where `assay prove` posts: one history in the result folder.
    ///
    /// # Errors
    /// As [`backend_spec`].
    pub fn of_one_machine(config: &Config) -> Result<Self, BackendError> {
        Ok(Self { backend: backend_spec(config)?, trunk: config.out.join("chain/trunk") })
    }

    /// Where the cluster posts: a trunk for each rollup, on one chain.
    ///
    /// # Errors
    /// As [`backend_spec`].
    pub fn of_rollup(config: &Config, chain_id: u64) -> Result<Self, BackendError> {
        let trunk = config.out.join("rollups").join(chain_id.to_string()).join("trunk");
        Ok(Self { backend: backend_spec(config)?, trunk })
    }

    /// Posts a claim and waits until it is confirmed. Blocks; `note` hears what a person should know.
    ///
    /// # Errors
    /// [`SettleFailure`].
    pub fn settle(
        &self,
        request: &ClaimRequest<'_>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Settled, SettleFailure> {
        let backend = self.backend.open()?;
        let network = backend.network();
        if !matches!(network, Network::Regtest | Network::Signet) {
            return Err(SettleError::Network { network }.into());
        }
        let mut trunk = Trunk::open(TrunkConfig::development(&self.trunk), backend)?;
        post(&mut trunk, &self.trunk, request, note)
            .map_err(|error| SettleFailure { error, is_begun: trunk.has_pending() })
    }

    /// How a claim stands. Makes no trunk where there is none.
    ///
    /// # Errors
    /// [`SettleError`] if the trunk cannot be looked at: it may have been posted then.
    pub fn standing(&self, is_it: impl Fn(&ClaimReceipt) -> bool) -> Result<Standing, SettleError> {
        self.look(is_it, |_| Ok(()))
    }

    /// Carries out what an earlier process has begun, if anything, whatever became of the claim's request: it is all in the plan. Then as
    /// [`Venue::standing`].
    ///
    /// # Errors
    /// As [`Venue::standing`]; also if it is not confirmed yet.
    pub fn finish(&self, is_it: impl Fn(&ClaimReceipt) -> bool) -> Result<Standing, SettleError> {
        self.look(is_it, Trunk::finish)
    }

    fn look(
        &self,
        is_it: impl Fn(&ClaimReceipt) -> bool,
        first: impl FnOnce(&mut Trunk) -> Result<(), TrunkError>,
    ) -> Result<Standing, SettleError> {
        if !self.trunk.exists() {
            return Ok(Standing::Absent);
        }
        let mut trunk = Trunk::open(TrunkConfig::development(&self.trunk), self.backend.open()?)?;
        first(&mut trunk)?;
        Ok(match trunk.claims().iter().any(is_it) {
            true => Standing::Settled,
            false if trunk.has_pending() => Standing::Begun,
            false => Standing::Absent,
        })
    }
}

fn post(
    trunk: &mut Trunk,
    folder: &Path,
    request: &ClaimRequest<'_>,
    note: &mut dyn FnMut(&str),
) -> Result<Settled, SettleError> {
    let proved = request.proved;
    let first = trunk.epochs().first().map(|epoch| epoch.start_commitment);
    let genesis =
        request.genesis.or(first).ok_or_else(|| SettleError::NoTrunk { folder: folder.to_owned() })?;
    let input = claim_input(request);
    if trunk.find_claim(&input.digest).is_none() {
        let params = EpochParams {
            start_commitment: genesis,
            code_root: input.code_root,
            verifier_commitment: proved.verifying_key_hash(),
        };
        open_epoch(trunk, folder, &params, &input, request.genesis.is_none(), note)?;
    }
    let receipt = trunk.settle(&input)?;
    let epoch = trunk.epochs().iter().find(|epoch| epoch.epoch == receipt.epoch);
    let settlement = settlement(epoch.ok_or(SettleError::NoEpoch)?, &receipt);
    Ok(Settled { settlement, genesis })
}

fn claim_input(request: &ClaimRequest<'_>) -> ClaimInput {
    let values = &request.proved.public_values;
    let part = |at: usize| {
        let mut part = [0; 32];
        part.copy_from_slice(&values[at * 32..][..32]);
        part
    };
    ClaimInput {
        prev_commitment: part(0),
        new_commitment: part(1),
        batch_hash: part(2),
        code_root: part(3),
        digest: statement::digest(values),
        proof: request.proved.proof_bytes.clone(),
        batch_data: request.data.to_vec(),
    }
}

/// Opens the epoch; other programs or another verifying key than the open epoch's need a new one. `is_continued`: the batch
/// before is known to be settled.
fn open_epoch(
    trunk: &mut Trunk,
    folder: &Path,
    params: &EpochParams,
    claim: &ClaimInput,
    is_continued: bool,
    note: &mut dyn FnMut(&str),
) -> Result<(), SettleError> {
    if let Some(settled) = trunk.settled_commitment().filter(|settled| *settled != claim.prev_commitment) {
        let folder = folder.to_owned();
        let (settled, begins) = (hex::encode(settled), hex::encode(claim.prev_commitment));
        return Err(if is_continued {
            SettleError::Stale { folder, settled, begins }
        } else {
            SettleError::NotNext { folder, settled, begins }
        });
    }
    let begins_elsewhere = |epoch: &EpochReceipt| epoch.start_commitment != params.start_commitment;
    if trunk.epochs().first().is_some_and(begins_elsewhere) {
        return Err(SettleError::OtherGenesis { folder: folder.to_owned() });
    }
    match trunk.open_epoch(params) {
        Err(TrunkError::EpochMismatch { field, .. }) => {
            note(&format!("the {field} has changed: closing the epoch on Bitcoin and opening a new one"));
            trunk.close_epoch()?;
            trunk.open_epoch(params)?;
        }
        other => drop(other?),
    }
    Ok(())
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
        epoch_terms: Some(hex::encode(&epoch.terms)),
        claim_txid: claim.claim_txid.to_string(),
        claim_height,
        digest: hex::encode(claim.digest),
        transactions: epoch.transactions.iter().chain(&claim.transactions).map(transaction).collect(),
        fee_total_sat: claim.fee_total_sat,
        vsize_total_vb: claim.vsize_total_vb,
    }
}
