//! Data and proofs of batches on the chain: envelopes, one batch after the other, each until it is final.
//!
//! A batch's transactions (a commit, then a reveal for each envelope) are made once and on disk before the first is sent; a
//! later run sends the same ones. Reveals wait for the commit's block, so that nothing has unconfirmed relatives.
//!
//! Limit: a publication is paid at the rate of the moment it is made, and not raised.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use assay_l1::envelope::message::{ClaimValues, Message};
use assay_l1::envelope::pack::pack;
use assay_l1::envelope::script::{commit_output, reveal_transaction};
use assay_l1::envelope::{Envelope, Tag, BODY_BYTES_MAX};
use assay_l1::graph::connector::LeafSpend;
use assay_l1::graph::transactions::{leaf_witness, sign_leaf};
use assay_l1::{BackendError, BitcoinBackend, StoreError, TxState, Wallet, WalletError};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::key::Keypair;
use bitcoin::{Amount, BlockHash, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};

use super::batches::ProvedBatch;
use super::error::ServiceError;
use super::file;
use crate::fees::DUST;

/// Blocks on top of a publication after which it is forgotten.
const DEEP_BLOCKS: u32 = 1_000;
/// Blocks in a row in which a commit is refused for its coins, after which others are taken.
const REFUSALS_MAX: u32 = 10;
/// Blocks before a publication was made in which it is looked for after a restart.
const REORG_BLOCKS: u32 = 100;

/// A publication as it is on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// Height of the tip when it was made.
    since: u32,
    /// Epoch and claim that its messages name.
    place: (u32, u32),
    /// Commit, then reveals; consensus encoding.
    txs: Vec<Vec<u8>>,
    /// Where each is in the chain, as far as was known when this was written.
    confirmed: Vec<Option<Place>>,
}

/// Height and hash of a block.
type Place = (u32, BlockHash);

/// A publication on its way, or done.
#[derive(Debug)]
struct Publication {
    since: u32,
    place: (u32, u32),
    txs: Vec<(Txid, Transaction)>,
    confirmed: Vec<Option<Place>>,
    /// True if what is confirmed is on disk.
    is_noted: bool,
    /// When it was last sent.
    sent: Option<u32>,
    /// How often the commit was refused for its coins.
    refused: u32,
    /// What was last said of it.
    said: Option<bool>,
}

impl Publication {
    /// From its plan, which is believed.
    fn of(plan: &Plan) -> Result<Self, String> {
        let read = |bytes: &Vec<u8>| deserialize::<Transaction>(bytes).map(|tx| (tx.compute_txid(), tx));
        let txs = plan.txs.iter().map(read).collect::<Result<Vec<_>, _>>();
        let txs = txs.map_err(|error| error.to_string())?;
        if plan.confirmed.len() != txs.len() {
            return Err("as many places as transactions".to_owned());
        }
        let (since, place, confirmed) = (plan.since, plan.place, plan.confirmed.clone());
        Ok(Self { since, place, txs, confirmed, is_noted: true, sent: None, refused: 0, said: None })
    }

    fn plan(&self) -> Plan {
        let txs = self.txs.iter().map(|(_, tx)| serialize(tx)).collect();
        Plan { since: self.since, place: self.place, txs, confirmed: self.confirmed.clone() }
    }

    /// Asks the chain whether it still is where it was, and where what was not in a block is now.
    fn look_up(&mut self, backend: &dyn BitcoinBackend) -> Result<(), BackendError> {
        // Another branch may have it in an earlier block.
        let since = self.since.saturating_sub(REORG_BLOCKS);
        for ((txid, _), confirmed) in self.txs.iter().zip(&mut self.confirmed) {
            if let Some((height, hash)) = confirmed {
                match backend.block_hash(*height) {
                    Ok(active) if active == *hash => continue,
                    Ok(_) | Err(BackendError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            self.is_noted = false;
            *confirmed = backend.transaction(txid, since)?.and_then(|record| match record.state {
                TxState::Confirmed { height, block_hash, .. } => Some((height, block_hash)),
                TxState::Mempool => None,
            });
        }
        Ok(())
    }

    /// True if the commit is in a block.
    fn is_begun(&self) -> bool {
        self.confirmed.first().is_some_and(Option::is_some)
    }

    fn is_done(&self) -> bool {
        self.confirmed.iter().all(Option::is_some)
    }
}

/// Publishes batches.
pub(super) struct Publisher {
    dir: PathBuf,
    wallet: Wallet,
    author: Keypair,
    tag: Tag,
    rate_max: FeeRate,
    queue: VecDeque<([u8; 32], (u32, u32))>,
    by_root: BTreeMap<[u8; 32], Publication>,
    /// Tip at which there was no money.
    unpaid: Option<u32>,
}

/// What became known of a batch's data: the state that it starts at, and whether all of it is in blocks.
pub(super) type News = ([u8; 32], bool);

impl Publisher {
    /// With what was begun before, in `dir`.
    pub(super) fn open(
        dir: PathBuf,
        (wallet, author): (Wallet, Keypair),
        tag: Tag,
        rate_max: FeeRate,
        backend: &dyn BitcoinBackend,
    ) -> Result<Self, ServiceError> {
        let storage = |source| StoreError::Storage { path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(storage)?;
        let mut by_root = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).map_err(storage)? {
            let path = entry.map_err(storage)?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".data"));
            let mut root = [0; 32];
            if name.is_none_or(|name| hex::decode_to_slice(name, &mut root).is_err()) {
                continue;
            }
            let format = |detail: &str| StoreError::Format { path: path.clone(), detail: detail.to_owned() };
            let plan: Plan = file::read(&path)?.ok_or_else(|| format("it vanished"))?;
            let mut publication = Publication::of(&plan).map_err(|detail| format(&detail))?;
            publication.look_up(backend)?;
            by_root.insert(root, publication);
        }
        Ok(Self { dir, wallet, author, tag, rate_max, queue: VecDeque::new(), by_root, unpaid: None })
    }

    /// Script of the coins that pay for data.
    pub(super) fn script(&self) -> &ScriptBuf {
        self.wallet.script()
    }

    /// Wants the batch that starts at `root` published, as data of this epoch and claim; or hears of it again.
    pub(super) fn want(&mut self, root: [u8; 32], place: (u32, u32)) {
        match self.by_root.get_mut(&root) {
            Some(known) => known.said = None,
            None if self.queue.iter().any(|(other, _)| *other == root) => {}
            None => self.queue.push_back((root, place)),
        }
    }

    /// Says everything again.
    pub(super) fn repeat(&mut self) {
        self.by_root.values_mut().for_each(|publication| publication.said = None);
    }

    /// Takes note of a block.
    pub(super) fn connected(&mut self, height: u32, block: &bitcoin::Block) {
        let open: Vec<&mut Publication> = self.by_root.values_mut().filter(|one| !one.is_done()).collect();
        if open.is_empty() {
            return;
        }
        let hash = block.block_hash();
        let ids: BTreeSet<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        for publication in open {
            for ((txid, _), confirmed) in publication.txs.iter().zip(&mut publication.confirmed) {
                if ids.contains(txid) {
                    *confirmed = Some((height, hash));
                    publication.is_noted = false;
                }
            }
        }
    }

    /// Takes note of a block that left the chain.
    pub(super) fn disconnected(&mut self, height: u32) {
        for publication in self.by_root.values_mut() {
            for confirmed in
                publication.confirmed.iter_mut().filter(|one| one.is_some_and(|(at, _)| at >= height))
            {
                *confirmed = None;
                publication.is_noted = false;
            }
        }
    }

    /// What changed since it was last said.
    pub(super) fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for (root, publication) in &mut self.by_root {
            let done = publication.is_done();
            if publication.said != Some(done) {
                publication.said = Some(done);
                news.push((*root, done));
            }
        }
        news
    }

    /// Sends what is due at this tip; begins the next publication when all others are in blocks.
    pub(super) fn drive(
        &mut self,
        backend: &dyn BitcoinBackend,
        height: u32,
        load: impl FnOnce(&[u8; 32]) -> Result<Option<ProvedBatch>, StoreError>,
    ) -> Result<(), ServiceError> {
        self.forget_deep(height)?;
        self.forget_spent()?;
        if self.by_root.values().all(Publication::is_done) {
            self.begin_next((backend, height), load)?;
        }
        for (root, publication) in &mut self.by_root {
            if publication.is_done() {
                if !publication.is_noted {
                    file::write(&path(&self.dir, root), &publication.plan())?;
                    publication.is_noted = true;
                }
            } else if publication.sent != Some(height) {
                send(publication, backend)?;
                publication.sent = Some(height);
            }
        }
        Ok(())
    }

    /// Begins the first of the queue. What is wrong with one batch, or no money, keeps nobody from answering challenges.
    fn begin_next(
        &mut self,
        (backend, height): (&dyn BitcoinBackend, u32),
        load: impl FnOnce(&[u8; 32]) -> Result<Option<ProvedBatch>, StoreError>,
    ) -> Result<(), ServiceError> {
        let Some((root, place)) = self.queue.front().copied() else { return Ok(()) };
        let Some(batch) = load(&root)? else {
            tracing::error!("batch {} is not there any more and cannot be published", hex::encode(root));
            self.queue.pop_front();
            return Ok(());
        };
        match self.begin(&batch, place, (backend, height)) {
            Ok(publication) => {
                self.by_root.insert(root, publication);
                self.queue.pop_front();
            }
            Err(ServiceError::Wallet(error @ WalletError::InsufficientFunds { .. })) => {
                if self.unpaid != Some(height) {
                    tracing::error!("batch {} waits: {error}", hex::encode(root));
                }
                self.unpaid = Some(height);
            }
            Err(error @ ServiceError::Batch { .. }) => {
                tracing::error!("{error}");
                self.queue.pop_front();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn forget_deep(&mut self, height: u32) -> Result<(), ServiceError> {
        let deep = |one: &Publication| {
            one.confirmed.iter().all(|at| at.is_some_and(|(at, _)| height.saturating_sub(at) > DEEP_BLOCKS))
        };
        let old: Vec<[u8; 32]> =
            self.by_root.iter().filter(|(_, one)| deep(one)).map(|(root, _)| *root).collect();
        old.iter().try_for_each(|root| self.forget(root).map(drop))
    }

    /// Publications whose coins are spent by others are made anew.
    fn forget_spent(&mut self) -> Result<(), ServiceError> {
        let spent = |one: &Publication| !one.is_begun() && one.refused >= REFUSALS_MAX;
        let spent: Vec<[u8; 32]> =
            self.by_root.iter().filter(|(_, one)| spent(one)).map(|(root, _)| *root).collect();
        for root in spent {
            tracing::warn!(
                "the coins for the data of batch {} are spent: others are taken",
                hex::encode(root)
            );
            if let Some(publication) = self.forget(&root)? {
                self.queue.push_front((root, publication.place));
            }
        }
        Ok(())
    }

    fn forget(&mut self, root: &[u8; 32]) -> Result<Option<Publication>, ServiceError> {
        let path = path(&self.dir, root);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Storage { path, source }.into())
            }
            _ => Ok(self.by_root.remove(root)),
        }
    }

    /// Makes a batch's transactions and writes them down.
    fn begin(
        &self,
        batch: &ProvedBatch,
        (epoch, claim): (u32, u32),
        (backend, since): (&dyn BitcoinBackend, u32),
    ) -> Result<Publication, ServiceError> {
        let [prev_commitment, new_commitment, batch_hash, code_root, digest] = batch.values;
        let values = ClaimValues { prev_commitment, new_commitment, batch_hash, code_root, digest };
        let messages = [
            Message::Batch { epoch, claim, batch_hash, data: batch.data.clone() },
            Message::ClaimData { epoch, claim, values, proof: batch.proof.clone() },
        ];
        let unfit = |detail: String| ServiceError::Batch { batch: hex::encode(prev_commitment), detail };
        let estimate = super::node::market(backend, since)?.estimate;
        let rate = estimate.min(self.rate_max);
        let mut spends = Vec::new();
        for message in &messages {
            let envelopes = pack(message, BODY_BYTES_MAX).map_err(|error| unfit(error.to_string()))?;
            for envelope in &envelopes {
                spends
                    .push(self.commit(envelope, rate).ok_or_else(|| unfit("the fee overflows".to_owned()))?);
            }
        }
        let outputs: Vec<TxOut> = spends.iter().map(|spend| spend.txout.clone()).collect();
        let (commit, _) = self.wallet.pay(backend, &outputs, rate)?;
        let commit_txid = commit.compute_txid();
        let reveal = |(vout, spend): (usize, &LeafSpend)| {
            let mut tx = self.reveal(OutPoint::new(commit_txid, vout as u32));
            let signature = sign_leaf(&tx, 0, std::slice::from_ref(&spend.txout), spend, &self.author);
            tx.input[0].witness = leaf_witness(&signature, spend);
            tx
        };
        let reveals = spends.iter().enumerate().map(reveal);
        let txs: Vec<Transaction> = [commit].into_iter().chain(reveals).collect();
        let confirmed = vec![None; txs.len()];
        let plan = Plan { since, place: (epoch, claim), txs: txs.iter().map(serialize).collect(), confirmed };
        file::write(&path(&self.dir, &prev_commitment), &plan)?;
        Publication::of(&plan).map_err(unfit)
    }

    /// The output of the commit for an envelope, worth its own reveal.
    fn commit(&self, envelope: &Envelope, rate: FeeRate) -> Option<LeafSpend> {
        let author = self.author.x_only_public_key().0;
        let draft = commit_output(&author, &self.tag, envelope, Amount::ZERO).leaf(0)?;
        let mut tx = self.reveal(OutPoint::null());
        tx.input[0].witness = leaf_witness(&[0; 64], &draft);
        let fee = rate.fee_vb(tx.vsize() as u64)?;
        commit_output(&author, &self.tag, envelope, fee.checked_add(DUST)?).leaf(0)
    }

    fn reveal(&self, commit: OutPoint) -> Transaction {
        reveal_transaction(commit, TxOut { value: DUST, script_pubkey: self.wallet.script().clone() })
    }
}

fn path(dir: &Path, root: &[u8; 32]) -> PathBuf {
    dir.join(format!("{}.data", hex::encode(root)))
}

/// Sends the commit, or, once that is in a block, the reveals.
fn send(publication: &mut Publication, backend: &dyn BitcoinBackend) -> Result<(), BackendError> {
    let is_begun = publication.is_begun();
    let due = publication.txs.iter().zip(&publication.confirmed).enumerate();
    let due = due.filter(|(index, (_, confirmed))| confirmed.is_none() && (is_begun || *index == 0));
    let mut refused = false;
    for (_, ((txid, tx), _)) in due {
        match backend.broadcast(tx) {
            Ok(()) => {}
            // The mempool may be full now, or the commit's block gone; the next block brings another try.
            Err(BackendError::Rejected { reason, .. }) => {
                refused |= reason.contains("missing");
                tracing::warn!("data {txid} is not taken: {reason}");
            }
            Err(error) => return Err(error),
        }
    }
    publication.refused = if refused && !is_begun { publication.refused + 1 } else { 0 };
    Ok(())
}
