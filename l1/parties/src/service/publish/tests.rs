//! Publications on Core's consensus code, under a mempool with rates and replacement and a miner that takes what pays.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use assay_l1::{
    BlockInfo, ChainTip, FeeEstimate, InProcessRegtest, Network, RegtestMiner, TxRecord, TxState,
};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{absolute, transaction, Block, BlockHash, Script, Sequence, TxIn, WScriptHash, Witness};

use super::plan::Child;
use super::*;
use crate::fees::{fee_at, Replaced};

const TAG: Tag = *b"assaytag";
const DATA_BYTES: usize = 3_000;

fn rate(sat_per_vb: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(sat_per_vb * 250)
}

fn policy() -> FeePolicy {
    FeePolicy { ceiling: rate(50), ..FeePolicy::REGTEST }
}

fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x51])))
}

#[derive(Debug, Clone)]
struct Entry {
    tx: Transaction,
    fee: Amount,
    vsize: u64,
}

/// What the node is like.
#[derive(Debug)]
struct Weather {
    estimate: FeeRate,
    /// Least rate of the mempool.
    minimum: FeeRate,
    /// Least rate of the miner.
    taken: FeeRate,
    /// Sends that still get through; then the node is gone.
    sends_left: u32,
}

/// A node whose mempool and miner are those of this test, on Core's consensus code.
struct Node {
    chain: InProcessRegtest,
    weather: Mutex<Weather>,
    pool: Mutex<Vec<Entry>>,
    /// Where the files of the publisher are: what is sent has to be in them.
    dir: PathBuf,
    replaced: AtomicU32,
}

fn rejected(tx: &Transaction, reason: &str) -> BackendError {
    BackendError::Rejected { txid: tx.compute_txid(), reason: reason.to_owned() }
}

impl Node {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap()
    }

    /// A transaction in a block; the chain's own mempool, to which it gives what a reorganisation takes out, is not this node's.
    fn mined(&self, txid: &Txid) -> Option<TxRecord> {
        let found = self.chain.transaction(txid, 0).unwrap();
        found.filter(|record| matches!(record.state, TxState::Confirmed { .. }))
    }

    /// An output that can be spent.
    fn output(&self, pool: &[Entry], at: &OutPoint) -> Option<TxOut> {
        let pooled = pool.iter().find(|entry| entry.tx.compute_txid() == at.txid);
        if let Some(entry) = pooled {
            return entry.tx.output.get(at.vout as usize).cloned();
        }
        let made = self.mined(&at.txid)?;
        let output = made.tx.output.get(at.vout as usize)?.clone();
        let unspent = self.chain.utxos(&output.script_pubkey).unwrap();
        unspent.iter().any(|coin| coin.outpoint == *at).then_some(output)
    }

    fn entry(&self, pool: &[Entry], tx: &Transaction) -> Result<Entry, BackendError> {
        let spent = tx.input.iter().map(|input| self.output(pool, &input.previous_output));
        let spent: Option<Vec<TxOut>> = spent.collect();
        let spent = spent.ok_or_else(|| rejected(tx, "bad-txns-inputs-missingorspent"))?;
        assay_l1::verify_transaction(tx, &spent).unwrap();
        let into: Amount = spent.iter().map(|output| output.value).sum();
        let fee = into - tx.output.iter().map(|output| output.value).sum::<Amount>();
        assert!(tx.output.iter().all(|output| output.value >= DUST), "dust");
        assert!(tx.weight().to_wu() <= 400_000);
        Ok(Entry { tx: tx.clone(), fee, vsize: tx.vsize() as u64 })
    }

    /// Takes transactions together, parents first.
    fn take(&self, pool: &mut Vec<Entry>, txs: &[&Transaction]) -> Result<(), BackendError> {
        let is_known = |pool: &[Entry], tx: &Transaction| {
            let txid = tx.compute_txid();
            self.mined(&txid).is_some() || pool.iter().any(|entry| entry.tx.compute_txid() == txid)
        };
        let last = *txs.last().unwrap();
        let mut next = pool.clone();
        let (mut fee, mut vsize) = (Amount::ZERO, 0);
        for tx in txs.iter().filter(|tx| !is_known(pool, tx)) {
            let entry = self.entry(&next, tx)?;
            let clashes = |other: &Entry| {
                let mut inputs = other.tx.input.iter().map(|input| input.previous_output);
                inputs.any(|input| tx.input.iter().any(|own| own.previous_output == input))
            };
            if let Some(old) = next.iter().position(clashes) {
                let old = next.remove(old);
                let least =
                    Replaced { fee: old.fee, vsize: old.vsize }.least_fee(entry.vsize, rate(1)).unwrap();
                if entry.fee < least {
                    return Err(rejected(tx, "insufficient fee, rejecting replacement"));
                }
                self.replaced.fetch_add(1, Ordering::Relaxed);
            }
            (fee, vsize) = (fee + entry.fee, vsize + entry.vsize);
            next.push(entry);
        }
        if fee < fee_at(self.weather().minimum, vsize).unwrap() {
            return Err(rejected(last, "mempool min fee not met"));
        }
        *pool = next;
        Ok(())
    }

    /// What is sent is on disk, and within the policy.
    fn check(&self, package: &[&Transaction]) -> Result<(), BackendError> {
        let mut weather = self.weather();
        let endpoint = "a node that is gone".to_owned();
        weather.sends_left = weather
            .sends_left
            .checked_sub(1)
            .ok_or(BackendError::Unreachable { endpoint, detail: String::new() })?;
        let files = std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let plans = files.filter(|path| path.extension().is_some_and(|end| end == "data"));
        let mut known = BTreeSet::new();
        for path in plans {
            let plan: Plan = file::read(&path, Form::Publication).unwrap().unwrap();
            for part in Publication::of(&plan).unwrap().parts {
                known.insert(part.tx.compute_wtxid());
                known.extend(part.child.map(|child| child.tx.compute_wtxid()));
            }
        }
        assert!(
            package.iter().all(|tx| known.contains(&tx.compute_wtxid())),
            "it is sent before it is on disk"
        );
        Ok(())
    }

    /// A block of everything that pays, by itself or with its child.
    fn mine_paying(&self) {
        let mut pool = self.pool.lock().unwrap();
        let taken = self.weather().taken;
        let pays = |entries: &[&Entry]| {
            let fee: Amount = entries.iter().map(|entry| entry.fee).sum();
            fee >= fee_at(taken, entries.iter().map(|entry| entry.vsize).sum()).unwrap()
        };
        let child_of = |entry: &Entry| {
            let txid = entry.tx.compute_txid();
            pool.iter().find(|other| other.tx.input.iter().any(|input| input.previous_output.txid == txid))
        };
        let is_child = |entry: &Entry| {
            let mut inputs = entry.tx.input.iter().map(|input| input.previous_output.txid);
            inputs.any(|txid| pool.iter().any(|other| other.tx.compute_txid() == txid))
        };
        let mut txs = Vec::new();
        for entry in pool.iter().filter(|entry| !is_child(entry)) {
            let child = child_of(entry);
            if child.is_some_and(|child| pays(&[entry, child])) {
                txs.extend([entry.tx.clone(), child.unwrap().tx.clone()]);
            } else if pays(&[entry]) {
                txs.push(entry.tx.clone());
            }
        }
        pool.retain(|entry| !txs.contains(&entry.tx));
        self.chain.mine_exactly(&txs, &open_script()).unwrap();
    }
}

impl BitcoinBackend for Node {
    fn network(&self) -> Network {
        self.chain.network()
    }
    fn label(&self) -> String {
        self.chain.label()
    }
    fn tip(&self) -> Result<ChainTip, BackendError> {
        self.chain.tip()
    }
    fn block_hash(&self, height: u32) -> Result<BlockHash, BackendError> {
        self.chain.block_hash(height)
    }
    fn block(&self, hash: &BlockHash) -> Result<Block, BackendError> {
        self.chain.block(hash)
    }
    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError> {
        self.chain.block_info(hash)
    }
    fn transaction(&self, txid: &Txid, _: u32) -> Result<Option<TxRecord>, BackendError> {
        let pool = self.pool.lock().unwrap();
        let pooled = pool.iter().find(|entry| entry.tx.compute_txid() == *txid);
        match pooled {
            Some(entry) => Ok(Some(TxRecord { tx: entry.tx.clone(), state: TxState::Mempool })),
            None => Ok(self.mined(txid)),
        }
    }
    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError> {
        self.check(&[tx])?;
        self.take(&mut self.pool.lock().unwrap(), &[tx])
    }
    fn broadcast_package(&self, package: &[Transaction]) -> Result<(), BackendError> {
        let package: Vec<&Transaction> = package.iter().collect();
        self.check(&package)?;
        // Each alone if it can stand alone, else together.
        let mut pool = self.pool.lock().unwrap();
        let _ = self.take(&mut pool, &package[..1]);
        self.take(&mut pool, &package).map_err(|error| {
            let BackendError::Rejected { txid, reason } = error else { return error };
            let transactions = vec![(txid, reason)];
            BackendError::PackageRejected { reason: "transaction failed".to_owned(), transactions }
        })
    }
    fn fee_estimate(&self, target_blocks: u16) -> Result<FeeEstimate, BackendError> {
        let weather = self.weather();
        Ok(FeeEstimate { rate: Some(weather.estimate), target_blocks, floor: weather.minimum })
    }
    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError> {
        self.chain.utxos(script)
    }
    fn miner(&self) -> Option<&dyn RegtestMiner> {
        None
    }
}

/// A node, a wallet with coins, and the directory of a publisher.
struct World {
    root: tempfile::TempDir,
    node: Node,
    key: Keypair,
    /// Batches whose data is wanted.
    batches: Vec<ProvedBatch>,
    policy: RefCell<FeePolicy>,
}

impl World {
    /// With confirmed coins of these values, satoshi.
    fn new(coins: &[u64]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let chain = InProcessRegtest::open(&root.path().join("chain")).unwrap();
        let key = SecretKey::from_slice(&[9; 32]).unwrap();
        let key = Keypair::from_secret_key(&Secp256k1::new(), &key);
        chain.mine(101, &open_script()).unwrap();
        let rich = chain.utxos(&open_script()).unwrap().into_iter().find(|coin| coin.height == 1).unwrap();
        let script = Wallet::new(key).script().clone();
        let pay = |sat: &u64| TxOut { value: Amount::from_sat(*sat), script_pubkey: script.clone() };
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: rich.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[0x51]]),
            }],
            output: coins.iter().map(pay).collect(),
        };
        chain.mine_exactly(&[tx], &open_script()).unwrap();
        let weather = Weather { estimate: rate(2), minimum: rate(1), taken: rate(2), sends_left: u32::MAX };
        let node = Node {
            chain,
            weather: Mutex::new(weather),
            pool: Mutex::default(),
            dir: root.path().join("data"),
            replaced: AtomicU32::new(0),
        };
        let noise = |byte: u32| {
            let words = (0..DATA_BYTES as u32 / 32).map(|at| blake3::hash(&(at * 256 + byte).to_le_bytes()));
            words.flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>()
        };
        let batch = |byte: u8| ProvedBatch {
            verifying_key: Some([9; 32]),
            values: [[byte; 32], [byte + 1; 32], [3; 32], [4; 32], [5; 32]],
            proof: vec![6; 128],
            data: noise(u32::from(byte)),
        };
        let batches = vec![batch(1), batch(2)];
        Self { root, node, key, batches, policy: RefCell::new(policy()) }
    }

    fn publisher(&self) -> Publisher {
        let dir = self.root.path().join("data");
        let policy = *self.policy.borrow();
        Publisher::open(dir, (Wallet::new(self.key), self.key), TAG, policy, &self.node).unwrap()
    }

    fn drive(&self, publisher: &mut Publisher) -> Result<(), ServiceError> {
        let find = |root: &[u8; 32]| self.batches.iter().find(|batch| batch.values[0] == *root).cloned();
        publisher.drive(&self.node, self.node.tip().unwrap().height, |root| Ok(find(root)))
    }

    /// A block, and what the publisher does about it.
    fn step(&self, publisher: &mut Publisher) -> Result<(), ServiceError> {
        self.node.mine_paying();
        let ChainTip { height, hash } = self.node.tip().unwrap();
        publisher.connected(height, &self.node.block(&hash).unwrap());
        self.drive(publisher)
    }

    /// The first batch's publication, begun.
    fn begun(&self) -> (Publisher, [u8; 32]) {
        let mut publisher = self.publisher();
        let root = self.batches[0].values[0];
        publisher.want(root, Some((0, 0)));
        self.drive(&mut publisher).unwrap();
        assert_eq!(self.node.pool.lock().unwrap().len(), 1, "the commit");
        (publisher, root)
    }

    /// Blocks until all is in blocks.
    fn finish(&self, publisher: &mut Publisher, root: &[u8; 32], blocks_max: u32) -> u32 {
        for block in 0..blocks_max {
            if publisher.by_root[root].is_done() {
                return block;
            }
            self.step(publisher).unwrap();
        }
        panic!("after {blocks_max} blocks: {:?}", publisher.by_root[root]);
    }

    /// Takes the last blocks back and puts as many and one more in their place, with nothing in them; the mempool forgets.
    fn reorganise(&self, publisher: &mut Publisher, lost: u32) {
        let tip = self.node.tip().unwrap().height;
        let fork = self.node.block_hash(tip - lost).unwrap();
        let time = self.node.block(&fork).unwrap().header.time;
        (0..lost).for_each(|back| publisher.disconnected(tip - back));
        let mut parent = fork;
        for step in 1..=lost + 1 {
            let height = tip - lost + step;
            let script = ScriptBuf::from_bytes(vec![0x52]);
            let block = InProcessRegtest::assemble_block(parent, height, time + step, &script, &[]);
            parent = block.block_hash();
            self.node.chain.submit_block(&block).unwrap();
            publisher.connected(height, &block);
        }
        assert_eq!(self.node.tip().unwrap().hash, parent);
        self.node.pool.lock().unwrap().clear();
    }
}

fn ids(publisher: &Publisher, root: &[u8; 32]) -> Vec<Txid> {
    publisher.by_root[root].parts.iter().map(|part| part.txid).collect()
}

/// Whether a transaction and its child reach a rate.
fn reaches(part: &Part, wanted: FeeRate) -> bool {
    let child = part.child.as_ref();
    let vsize = part.tx.vsize() + child.map_or(0, |child| child.tx.vsize());
    part.fee + child.map_or(Amount::ZERO, |child| child.fee) >= fee_at(wanted, vsize as u64).unwrap()
}

const COINS: [u64; 4] = [400_000, 300_000, 300_000, 200_000];

#[test]
fn a_publication_that_pays_enough_gets_no_children() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    // The commit's block, then the reveals'.
    assert_eq!(world.finish(&mut publisher, &root, 5), 2);
    assert!(publisher.by_root[&root].parts.iter().all(|part| part.child.is_none()));
    assert!(publisher.by_root[&root].parts.len() > 2, "a commit and a reveal for each envelope");
    assert_eq!(publisher.committed(), Amount::ZERO);
}

#[test]
fn what_is_stuck_when_rates_leap_is_raised_and_mined_under_the_same_ids() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    let before = ids(&publisher, &root);
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.taken) = (rate(20), rate(20));
    }
    // Two blocks of patience for the commit, and two for the reveals, which were made at the old rate as well.
    assert_eq!(world.finish(&mut publisher, &root, 12), 6);
    assert_eq!(ids(&publisher, &root), before);
    for part in &publisher.by_root[&root].parts {
        assert!(part.child.is_some() && reaches(part, rate(40)) && !reaches(part, rate(51)), "{part:?}");
    }
    assert!(publisher.committed() > Amount::ZERO && publisher.committed() <= world.policy.borrow().budget);
}

#[test]
fn a_child_that_is_not_enough_is_replaced_and_nothing_goes_above_the_ceiling() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.taken) = (rate(10), rate(60));
    }
    for _ in 0..12 {
        world.step(&mut publisher).unwrap();
    }
    // 10 sat/vB, doubled once, then twice, then as far as the ceiling lets it: the child stays there.
    let commit = publisher.by_root[&root].parts[0].clone();
    assert!(
        commit.confirmed.is_none() && reaches(&commit, rate(49)) && !reaches(&commit, rate(51)),
        "{commit:?}"
    );
    assert_eq!(world.node.replaced.load(Ordering::Relaxed), 2);
    let paid = publisher.committed();
    assert_eq!(paid, commit.child.unwrap().fee, "what was replaced costs nothing");
    world.node.weather().taken = rate(45);
    world.finish(&mut publisher, &root, 20);
    assert!(publisher.by_root[&root].parts.iter().all(|part| !reaches(part, rate(51))));
}

#[test]
fn a_mempool_that_has_become_too_dear_takes_the_commit_with_its_child() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    // The node has forgotten the commit, and does not take it any more by itself.
    world.node.pool.lock().unwrap().clear();
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.minimum, weather.taken) = (rate(8), rate(5), rate(8));
    }
    // It is raised at once: nobody has it who could mine it.
    world.step(&mut publisher).unwrap();
    assert_eq!(world.node.pool.lock().unwrap().len(), 2);
    world.finish(&mut publisher, &root, 12);
}

#[test]
fn whatever_the_publisher_is_killed_before_it_goes_on_with_what_is_on_disk() {
    let run = |kills: &[u32]| {
        let world = World::new(&COINS);
        let (mut publisher, root) = world.begun();
        let before = ids(&publisher, &root);
        {
            let mut weather = world.node.weather();
            (weather.estimate, weather.taken) = (rate(20), rate(20));
        }
        let mut kills = kills.iter();
        let mut killed = 0;
        for block in 0.. {
            assert!(block < 40, "{:?}", publisher.by_root[&root]);
            world.node.weather().sends_left = kills.next().copied().unwrap_or(u32::MAX);
            // Killed before a send; opened again with nothing but the files.
            if world.step(&mut publisher).is_err() {
                killed += 1;
                drop(publisher);
                publisher = world.publisher();
                world.node.weather().sends_left = u32::MAX;
                world.drive(&mut publisher).unwrap();
            }
            if publisher.by_root.get(&root).is_some_and(Publication::is_done) {
                break;
            }
        }
        assert_eq!(ids(&publisher, &root), before);
        let children: Vec<Option<Child>> =
            publisher.by_root[&root].parts.iter().map(|part| part.child.clone()).collect();
        (children, killed)
    };
    let (whole, _) = run(&[]);
    let mut killed = 0;
    // Before the first, second or third send of each block.
    for block in 0..6 {
        for send in 0..3 {
            let mut kills = vec![u32::MAX; block];
            kills.push(send);
            let (children, count) = run(&kills);
            assert_eq!(children, whole, "killed in block {block} before send {send}");
            killed += count;
        }
    }
    assert!(killed >= 8, "{killed} kills took place");
    assert_eq!(run(&[0; 8]).0, whole, "killed in every block");
}

#[test]
fn what_a_reorganisation_takes_out_is_sent_again_with_its_children() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.taken) = (rate(20), rate(20));
    }
    let blocks = world.finish(&mut publisher, &root, 12);
    let before = publisher.by_root[&root].clone();
    for (lost, opened) in [(1, false), (blocks, false), (3, true)] {
        world.reorganise(&mut publisher, lost);
        assert!(!publisher.by_root[&root].is_done());
        if opened {
            publisher = world.publisher();
            assert!(!publisher.by_root[&root].is_done(), "the file knew better than the chain");
        }
        world.drive(&mut publisher).unwrap();
        world.finish(&mut publisher, &root, 12);
        let now = &publisher.by_root[&root];
        assert_eq!(ids(&publisher, &root), before.parts.iter().map(|part| part.txid).collect::<Vec<_>>());
        assert!(now.parts.iter().all(|part| !reaches(part, rate(51))));
        // A publisher that saw it happen waits as long as for a new one; one that is opened only sees that nothing moves.
        let same = now.parts.iter().zip(&before.parts).all(|(now, before)| now.child == before.child);
        assert!(same || opened, "{now:?}");
    }
}

#[test]
fn a_child_whose_coin_is_spent_elsewhere_is_made_anew() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.taken) = (rate(20), rate(60));
    }
    (0..2).for_each(|_| world.step(&mut publisher).unwrap());
    // The hook of the commit is its change, which is large enough: of the reveals only coins help.
    world.node.weather().taken = rate(20);
    world.step(&mut publisher).unwrap();
    assert!(publisher.by_root[&root].begun().is_some());
    world.node.weather().taken = rate(60);
    (0..2).for_each(|_| world.step(&mut publisher).unwrap());
    let reveal = publisher.by_root[&root].parts[1].clone();
    let child = reveal.child.unwrap();
    assert_eq!(child.tx.input.len(), 2);
    let wallet = Wallet::new(world.key);
    let coin = wallet.coins(&world.node).unwrap();
    let coin = coin.into_iter().find(|coin| coin.outpoint == child.tx.input[1].previous_output).unwrap();
    let away = TxOut { value: coin.txout.value - Amount::from_sat(1_000), script_pubkey: open_script() };
    world.node.chain.mine_exactly(&[wallet.spend(&[coin], &[away])], &open_script()).unwrap();
    world.node.pool.lock().unwrap().retain(|entry| entry.tx != child.tx);
    world.node.weather().taken = rate(20);
    world.drive(&mut publisher).unwrap();
    world.finish(&mut publisher, &root, 12);
    let other = publisher.by_root[&root].parts[1].child.clone().unwrap();
    assert_ne!(other.tx.input[1], child.tx.input[1]);
}

#[test]
fn the_budget_holds() {
    let world = World::new(&COINS);
    world.policy.borrow_mut().budget = Amount::from_sat(500);
    let (mut publisher, root) = world.begun();
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.taken) = (rate(20), rate(20));
    }
    for _ in 0..8 {
        world.step(&mut publisher).unwrap();
        assert!(publisher.committed() <= Amount::from_sat(500));
    }
    assert!(publisher.by_root[&root].parts.iter().all(|part| part.child.is_none()));
    // With more it goes on.
    world.policy.borrow_mut().budget = Amount::from_sat(1_000_000);
    let mut publisher = world.publisher();
    world.drive(&mut publisher).unwrap();
    world.finish(&mut publisher, &root, 12);
    let paid = publisher.committed();
    assert!(paid > Amount::ZERO);
    // It is remembered when the publication is forgotten.
    for publication in publisher.by_root.values_mut() {
        publication
            .parts
            .iter_mut()
            .for_each(|part| part.confirmed = part.confirmed.map(|(_, hash)| (1, hash)));
    }
    publisher.forget_deep(2 + DEEP_BLOCKS).unwrap();
    assert!(publisher.by_root.is_empty());
    assert_eq!((publisher.committed(), world.publisher().committed()), (paid, paid));
}

#[test]
fn the_next_commit_leaves_coins_alone_that_a_child_in_the_mempool_spends() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.taken) = (rate(20), rate(60));
    }
    (0..2).for_each(|_| world.step(&mut publisher).unwrap());
    // A miner takes the commit and the reveals without their children.
    let txs: Vec<Transaction> = publisher.by_root[&root].parts.iter().map(|part| part.tx.clone()).collect();
    let child = publisher.by_root[&root].parts[0].child.clone().unwrap();
    world.node.chain.mine_exactly(&txs, &open_script()).unwrap();
    world.node.pool.lock().unwrap().retain(|entry| !txs.contains(&entry.tx));
    let ChainTip { height, hash } = world.node.tip().unwrap();
    publisher.connected(height, &world.node.block(&hash).unwrap());
    let next = world.batches[1].values[0];
    publisher.want(next, Some((0, 1)));
    world.drive(&mut publisher).unwrap();
    let inputs = |tx: &Transaction| -> BTreeSet<OutPoint> {
        tx.input.iter().map(|input| input.previous_output).collect()
    };
    let commit = &publisher.by_root[&next].parts[0].tx;
    assert!(inputs(commit).is_disjoint(&inputs(&child.tx)));
    // Once no mempool has the child any more, its coins are free.
    let coins = Wallet::new(world.key).coins(&world.node).unwrap();
    let taken = |publisher: &Publisher| publisher.taken((&world.node, height), &coins, None).unwrap();
    assert!(!taken(&publisher).is_disjoint(&inputs(&child.tx)));
    world.node.pool.lock().unwrap().clear();
    assert!(taken(&publisher).is_empty());
}

#[test]
fn a_changed_file_is_read_as_what_it_says_or_refused() {
    let world = World::new(&COINS);
    let (mut publisher, root) = world.begun();
    let plans = |publisher: &Publisher| bincode::serialize(&publisher.by_root[&root].plan()).unwrap();
    let mut corpus = vec![plans(&publisher)];
    {
        let mut weather = world.node.weather();
        (weather.estimate, weather.taken) = (rate(20), rate(20));
    }
    world.finish(&mut publisher, &root, 12);
    corpus.push(plans(&publisher));
    // A list begins with room for what it announces, 1 MiB at most.
    assay_l1_fuzz::Target::new("publication", &corpus).memory(4 << 20, 24).run(|bytes| {
        let Ok(plan) = file::decode::<Plan>(bytes) else { return false };
        let Ok(publication) = Publication::of(&plan) else { return false };
        assert_eq!(bincode::serialize(&publication.plan()).unwrap(), bytes);
        // What is asked of it before anything is sent.
        let market = Market { estimate: rate(2), minimum: rate(1), at: crate::types::Height(1) };
        for index in publication.due() {
            let _ = is_stuck(&publication.parts[index], publication.waits_since(index), &policy(), &market);
        }
        true
    });
}

#[test]
fn of_the_batches_that_wait_the_one_whose_claim_comes_first_is_published() {
    let world = World::new(&COINS);
    let mut publisher = world.publisher();
    let [first, second] = [0, 1].map(|batch| world.batches[batch].values[0]);
    // One of which nobody knows where it belongs, one whose claim comes later, the next one.
    publisher.want([77; 32], None);
    publisher.want(second, Some((1, 0)));
    publisher.want(first, Some((0, 3)));
    // What becomes known later counts.
    assert!(publisher.lacks_places());
    publisher.find_places(&BTreeMap::from([([77; 32], (0, 9)), (second, (0, 0))]));
    assert_eq!(publisher.queue[0], ([77; 32], Some((0, 9))));
    assert_eq!(publisher.queue[1], (second, Some((1, 0))));
    assert!(!publisher.lacks_places());
    publisher.queue[0].1 = None;
    for (root, other) in [(first, second), (second, [77; 32])] {
        world.drive(&mut publisher).unwrap();
        assert!(publisher.by_root.contains_key(&root) && !publisher.by_root.contains_key(&other));
        world.finish(&mut publisher, &root, 10);
    }
}

#[test]
fn a_batch_whose_file_is_damaged_stops_nothing_else_and_is_published_once_it_is_mended() {
    let world = World::new(&COINS);
    let mut publisher = world.publisher();
    let root = world.batches[0].values[0];
    publisher.want(root, Some((0, 0)));
    let height = world.node.tip().unwrap().height;
    let damaged = |root: &[u8; 32]| {
        Err(StoreError::Format {
            path: path(&world.root.path().join("data"), root),
            detail: "no batch".to_owned(),
        })
    };
    publisher.drive(&world.node, height, damaged).unwrap();
    assert!(publisher.by_root.is_empty());
    world.drive(&mut publisher).unwrap();
    assert!(publisher.by_root.contains_key(&root));
}
