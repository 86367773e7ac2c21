//! Data and proofs of batches on the chain: envelopes, one batch after the other, each until it is final.
//!
//! A batch's transactions (a commit, then a reveal for each envelope) are made once and on disk before the first is sent; a
//! later run sends the same ones. Reveals wait for the commit's block, so that nothing has unconfirmed relatives but the children that
//! [`raise`] a transaction's fee when it is stuck; these, too, are on disk before they are sent.

mod plan;
mod raise;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use assay_l1::envelope::message::{ClaimValues, Message};
use assay_l1::envelope::pack::pack;
use assay_l1::envelope::script::{commit_output, reveal_transaction};
use assay_l1::envelope::{Envelope, Tag, BODY_BYTES_MAX};
use assay_l1::graph::connector::LeafSpend;
use assay_l1::graph::transactions::{leaf_witness, sign_leaf};
use assay_l1::{BackendError, BitcoinBackend, StoreError, Utxo, Wallet, WalletError};
use bitcoin::key::Keypair;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};

use super::batches::ProvedBatch;
use super::error::ServiceError;
use super::file::{self, Form};
use super::node;
use crate::fees::{FeePolicy, Market, DUST};
use plan::{Part, Plan, Publication};
use raise::{is_stuck, Raise};

/// Blocks on top of a publication after which it is forgotten.
const DEEP_BLOCKS: u32 = 1_000;
/// Blocks in a row in which a commit is refused for its coins, after which others are taken.
const REFUSALS_MAX: u32 = 10;

/// What children of forgotten publications have cost; on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Spent {
    sat: u64,
}

/// A batch that waits, by its first state; and of which epoch and claim it will be the data, if that is known.
type Waiting = ([u8; 32], Option<(u32, u32)>);

/// Publishes batches.
pub(super) struct Publisher {
    dir: PathBuf,
    wallet: Wallet,
    author: Keypair,
    tag: Tag,
    policy: FeePolicy,
    queue: VecDeque<Waiting>,
    by_root: BTreeMap<[u8; 32], Publication>,
    /// Tip at which the next batch could not be begun, for want of money or of its file.
    waits: Option<u32>,
    /// What children of forgotten publications have cost.
    spent: Amount,
    /// Highest block that a reorganisation took out.
    disconnected_max: u32,
}

/// What became known of a batch's data: the state that it starts at, and whether all of it is in blocks.
pub(super) type News = ([u8; 32], bool);

impl Publisher {
    /// With what was begun before, in `dir`.
    pub(super) fn open(
        dir: PathBuf,
        (wallet, author): (Wallet, Keypair),
        tag: Tag,
        policy: FeePolicy,
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
            let plan: Plan = file::read(&path, Form::Publication)?.ok_or_else(|| format("it vanished"))?;
            let mut publication = Publication::of(&plan).map_err(|detail| format(&detail))?;
            publication.look_up(backend)?;
            by_root.insert(root, publication);
        }
        let spent = file::read::<Spent>(&dir.join("spent"), Form::Publication)?.unwrap_or_default();
        let spent = Amount::from_sat(spent.sat).min(Amount::MAX_MONEY);
        let queue = VecDeque::new();
        Ok(Self { dir, wallet, author, tag, policy, queue, by_root, waits: None, spent, disconnected_max: 0 })
    }

    /// Script of the coins that pay for data.
    pub(super) fn script(&self) -> &ScriptBuf {
        self.wallet.script()
    }

    /// Wants the batch that starts at `root` published, as data of this epoch and claim; or hears of it again.
    pub(super) fn want(&mut self, root: [u8; 32], place: Option<(u32, u32)>) {
        if let Some(known) = self.by_root.get_mut(&root) {
            known.said = None;
        } else if !self.queue.iter().any(|(other, _)| *other == root) {
            self.queue.push_back((root, place));
        }
    }

    /// True if it is not known of all that wait of which epoch and claim they will be the data.
    pub(super) fn lacks_places(&self) -> bool {
        self.queue.iter().any(|(_, place)| place.is_none())
    }

    /// Fills in epochs and claims that were not known yet: after a start batches are wanted before they are read.
    pub(super) fn find_places(&mut self, places: &BTreeMap<[u8; 32], (u32, u32)>) {
        for (root, known) in self.queue.iter_mut().filter(|(_, known)| known.is_none()) {
            *known = places.get(root).copied();
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
            for part in publication.parts.iter_mut().filter(|part| ids.contains(&part.txid)) {
                part.confirmed = Some((height, hash));
                publication.is_noted = false;
            }
        }
    }

    /// Takes note of a block that left the chain.
    pub(super) fn disconnected(&mut self, height: u32) {
        // The first one was the tip: from there on what is lost can be mined again.
        self.disconnected_max = self.disconnected_max.max(height);
        for publication in self.by_root.values_mut() {
            let lost = |part: &&mut Part| part.confirmed.is_some_and(|(at, _)| at >= height);
            for part in publication.parts.iter_mut().filter(lost) {
                part.confirmed = None;
                part.lost = self.disconnected_max;
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
        let open = |one: &Publication| !one.is_done() && one.sent != Some(height);
        if self.by_root.values().any(open) {
            self.raise(backend, &node::market(backend, height)?)?;
        }
        for (root, publication) in &mut self.by_root {
            // What is to be sent is on disk; where a transaction is can be found out again.
            if !publication.is_noted && publication.is_done() {
                note(&self.dir, root, publication)?;
            }
            if open(publication) {
                send(publication, backend)?;
                publication.sent = Some(height);
            }
        }
        Ok(())
    }

    /// Has children pay for what is stuck, and writes them down.
    fn raise(&mut self, backend: &dyn BitcoinBackend, market: &Market) -> Result<(), ServiceError> {
        let mut due: Vec<([u8; 32], usize)> = Vec::new();
        for (root, publication) in self.by_root.iter().filter(|(_, one)| one.sent != Some(market.at.0)) {
            let stuck = |index: &usize| {
                let part = &publication.parts[*index];
                is_stuck(part, publication.waits_since(*index), &self.policy, market)
            };
            due.extend(publication.due().into_iter().filter(stuck).map(|index| (*root, index)));
        }
        if due.is_empty() {
            return Ok(());
        }
        let coins = self.wallet.coins(backend)?;
        for (root, index) in due {
            let taken = self.taken((backend, market.at.0), &coins, Some((&root, index)))?;
            let Some(publication) = self.by_root.get(&root) else { continue };
            let part = &publication.parts[index];
            let own = part.child.as_ref().map_or(Amount::ZERO, |child| child.fee);
            let committed = self.committed().checked_sub(own).unwrap_or(Amount::ZERO);
            let (policy, wallet) = (&self.policy, &self.wallet);
            let raise = Raise { policy, market, wallet, coins: &coins, taken: &taken, committed };
            match raise.child(part) {
                Ok(None) => {}
                Ok(Some(child)) => {
                    let (txid, fee) = (part.txid, child.fee);
                    tracing::warn!("data {txid} is stuck: a child pays {fee} for it");
                    let Some(publication) = self.by_root.get_mut(&root) else { continue };
                    publication.parts[index].child = Some(child);
                    note(&self.dir, &root, publication)?;
                }
                Err(error) => tracing::error!("data {} is stuck, and stays so: {error}", part.txid),
            }
        }
        Ok(())
    }

    /// What all children cost, those of forgotten publications included.
    fn committed(&self) -> Amount {
        self.spent + self.by_root.values().map(Publication::raised).sum::<Amount>()
    }

    /// Those of `coins` that children spend, `but` one's.
    fn taken(
        &self,
        (backend, tip): (&dyn BitcoinBackend, u32),
        coins: &[Utxo],
        but: Option<(&[u8; 32], usize)>,
    ) -> Result<BTreeSet<OutPoint>, BackendError> {
        let confirmed: BTreeSet<OutPoint> = coins.iter().map(|coin| coin.outpoint).collect();
        let mut taken = BTreeSet::new();
        for (root, publication) in &self.by_root {
            for (index, part) in publication.parts.iter().enumerate() {
                let Some(child) = part.child.as_ref().filter(|_| but != Some((root, index))) else {
                    continue;
                };
                let mut inputs = child.tx.input.iter().map(|input| input.previous_output);
                if !inputs.any(|input| confirmed.contains(&input)) {
                    continue;
                }
                // A transaction that was mined without its child needs none any more, but a mempool may have it still.
                let is_live =
                    part.confirmed.is_none() || backend.transaction(&child.tx.compute_txid(), tip)?.is_some();
                if is_live {
                    taken.extend(child.tx.input.iter().map(|input| input.previous_output));
                }
            }
        }
        Ok(taken)
    }

    /// Begins the one of the queue whose claim comes first: a claim must not wait for the data of those after it. What is wrong with one
    /// batch, or no money, keeps nobody from answering challenges.
    fn begin_next(
        &mut self,
        (backend, height): (&dyn BitcoinBackend, u32),
        load: impl FnOnce(&[u8; 32]) -> Result<Option<ProvedBatch>, StoreError>,
    ) -> Result<(), ServiceError> {
        let claimed = |at: &usize| self.queue[*at].1.unwrap_or((u32::MAX, u32::MAX));
        let Some(first) = (0..self.queue.len()).min_by_key(claimed) else { return Ok(()) };
        let (root, place) = self.queue[first];
        let batch = match load(&root) {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                tracing::error!("batch {} is not there any more and cannot be published", hex::encode(root));
                self.queue.remove(first);
                return Ok(());
            }
            // It may be mended, and its claim comes before the others'.
            Err(error) => {
                self.put_off((&root, height), &error);
                return Ok(());
            }
        };
        match self.begin(&batch, place.unwrap_or_default(), (backend, height)) {
            Ok(publication) => {
                self.by_root.insert(root, publication);
                self.queue.remove(first);
            }
            Err(ServiceError::Wallet(error @ WalletError::InsufficientFunds { .. })) => {
                self.put_off((&root, height), &error);
            }
            Err(error @ ServiceError::Batch { .. }) => {
                tracing::error!("{error}");
                self.queue.remove(first);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says why the next batch is not begun, once for each tip.
    fn put_off(&mut self, (root, height): (&[u8; 32], u32), error: &dyn std::error::Error) {
        if self.waits != Some(height) {
            tracing::error!("batch {} waits: {error}", hex::encode(root));
        }
        self.waits = Some(height);
    }

    fn forget_deep(&mut self, height: u32) -> Result<(), ServiceError> {
        let deep = |one: &Publication| {
            let is_deep = |(at, _)| height.saturating_sub(at) > DEEP_BLOCKS;
            one.parts.iter().all(|part| part.confirmed.is_some_and(is_deep))
        };
        let old = self.by_root.iter().filter(|(_, one)| deep(one));
        let old: Vec<_> = old.map(|(root, one)| (*root, one.raised())).collect();
        for (root, raised) in old {
            if raised > Amount::ZERO {
                // First: what a kill lets it count twice is not spent twice.
                self.spent += raised;
                file::write(&self.dir.join("spent"), Form::Publication, &Spent { sat: self.spent.to_sat() })?;
            }
            self.forget(&root)?;
        }
        Ok(())
    }

    /// Publications whose coins are spent by others are made anew.
    fn forget_spent(&mut self) -> Result<(), ServiceError> {
        let spent = |one: &Publication| one.begun().is_none() && one.refused >= REFUSALS_MAX;
        let spent: Vec<[u8; 32]> =
            self.by_root.iter().filter(|(_, one)| spent(one)).map(|(root, _)| *root).collect();
        for root in spent {
            tracing::warn!(
                "the coins for the data of batch {} are spent: others are taken",
                hex::encode(root)
            );
            if let Some(publication) = self.forget(&root)? {
                self.queue.push_front((root, Some(publication.place)));
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
        let rate = node::market(backend, since)?.estimate.min(self.policy.ceiling);
        let mut spends = Vec::new();
        for message in &messages {
            let envelopes = pack(message, BODY_BYTES_MAX).map_err(|error| unfit(error.to_string()))?;
            for envelope in &envelopes {
                spends
                    .push(self.commit(envelope, rate).ok_or_else(|| unfit("the fee overflows".to_owned()))?);
            }
        }
        let outputs: Vec<TxOut> = spends.iter().map(|spend| spend.txout.clone()).collect();
        let taken = match self.by_root.values().any(Publication::has_children) {
            true => self.taken((backend, since), &self.wallet.coins(backend)?, None)?,
            false => BTreeSet::new(),
        };
        let (commit, fee) = self.wallet.pay_with_change(backend, &outputs, rate, &taken)?;
        let commit = Part::new(commit, fee);
        let commit_txid = commit.txid;
        let reveal = |(vout, spend): (usize, &LeafSpend)| {
            let mut tx = self.reveal(OutPoint::new(commit_txid, vout as u32));
            let signature = sign_leaf(&tx, 0, std::slice::from_ref(&spend.txout), spend, &self.author);
            tx.input[0].witness = leaf_witness(&signature, spend);
            Part::new(tx, spend.txout.value.checked_sub(DUST).unwrap_or(Amount::ZERO))
        };
        let reveals = spends.iter().enumerate().map(reveal);
        let parts = [commit].into_iter().chain(reveals).collect();
        let mut publication = Publication::new(since, (epoch, claim), parts);
        note(&self.dir, &prev_commitment, &mut publication)?;
        Ok(publication)
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

/// Writes a publication down as it is.
fn note(dir: &Path, root: &[u8; 32], publication: &mut Publication) -> Result<(), StoreError> {
    file::write(&path(dir, root), Form::Publication, &publication.plan())?;
    publication.is_noted = true;
    Ok(())
}

/// Sends the commit, or, once that is in a block, the reveals; each with its child.
fn send(publication: &mut Publication, backend: &dyn BitcoinBackend) -> Result<(), BackendError> {
    let mut refused = false;
    for index in publication.due() {
        let Part { txid, tx, child, .. } = &publication.parts[index];
        let sent = match child {
            None => backend.broadcast(tx),
            Some(child) => backend.broadcast_package(&[tx.clone(), child.tx.clone()]),
        };
        // The mempool may be full now, or the commit's block gone; the next block brings another try.
        let reason = match sent {
            Ok(()) => continue,
            Err(BackendError::Rejected { reason, .. }) => reason,
            Err(BackendError::PackageRejected { reason, transactions }) => {
                // Without its parent a child misses an input, too.
                let own = transactions.into_iter().find(|(refused, _)| refused == txid);
                own.map_or_else(|| format!("with its child: {reason}"), |(_, reason)| reason)
            }
            Err(error) => return Err(error),
        };
        refused |= reason.contains("missing");
        tracing::warn!("data {txid} is not taken: {reason}");
    }
    publication.refused = if refused && publication.begun().is_none() { publication.refused + 1 } else { 0 };
    Ok(())
}
