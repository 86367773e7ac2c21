//! The state file, with the states that simulated parties end in; and blocks that are read again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use assay_l1::{BlockInfo, ChainTip, FeeEstimate, InProcessRegtest, RegtestMiner, TxRecord, Utxo};
use assay_l1_fuzz::Target;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, Script, ScriptBuf, Transaction, Txid};

use super::*;
use crate::fees::FeePolicy;
use crate::operator::Operator;
use crate::sim::{Attack, Fixture, Options, World as Simulated};
use crate::vigilante::Vigilante;

/// States of the parties after attacks that leave much in them.
fn states(parties: &[&str]) -> Vec<Vec<u8>> {
    let run = |attack| {
        let mut world = Simulated::new(Options::new(attack, 77), Fixture::shared());
        world.run().unwrap();
        world.states()
    };
    let all = [Attack::KilledMidAssert, Attack::Stopped].map(run).concat();
    let found = all.into_iter().filter(|(name, _)| parties.contains(name)).map(|(_, state)| state);
    found.collect()
}

fn file_of<M: Machine>(state: &[u8]) -> Vec<u8> {
    let hash = |byte| BlockHash::from_byte_array([byte; 32]);
    let follower = (9u32, VecDeque::from([hash(1), hash(2)]));
    let follower = bincode::deserialize(&bincode::serialize(&follower).unwrap()).unwrap();
    let machine: M = file::decode(state).unwrap();
    let stored = Stored {
        name: M::NAME.to_owned(),
        trunk_id: [7; 32],
        graphs: vec![[1; 32], [2; 32]],
        follower,
        machine,
    };
    bincode::serialize(&stored).unwrap()
}

/// Whatever is read of changed files is written as what is read again, and is a place in a chain or refused.
fn change<M: Machine>(name: &str, parties: &[&str]) {
    let corpus: Vec<Vec<u8>> = states(parties).iter().map(|state| file_of::<M>(state)).collect();
    assert!(corpus.len() >= 2);
    // A list begins with room for what it announces, 1 MiB at most; maps cost several times their bytes.
    Target::new(name, &corpus).cases(500).memory(8 << 20, 48).run(|bytes| {
        let Ok(stored) = file::decode::<Stored<M>>(bytes) else { return false };
        let written = bincode::serialize(&stored).unwrap();
        let again = bincode::serialize(&file::decode::<Stored<M>>(&written).unwrap()).unwrap();
        assert_eq!(again, written);
        if !stored.follower.is_valid() {
            return false;
        }
        let _ = stored.follower.depth();
        let _ = (stored.machine.view().tip(), stored.machine.sender());
        true
    });
}

#[test]
fn a_changed_state_of_an_operator_is_read_as_what_it_says_or_refused() {
    change::<Operator>("state-operator", &["operator", "backup"]);
}

#[test]
fn a_changed_state_of_a_vigilante_is_read_as_what_it_says_or_refused() {
    change::<Vigilante>("state-vigilante", &["vigilante 1", "backup's watch"]);
}

#[test]
fn a_place_in_the_chain_without_a_block_is_none() {
    let hashes = |count: usize| VecDeque::from(vec![BlockHash::all_zeros(); count]);
    let follower = |height: u32, count: usize| -> Follower {
        bincode::deserialize(&bincode::serialize(&(height, hashes(count))).unwrap()).unwrap()
    };
    assert!(follower(9, 1).is_valid() && follower(9, 10).is_valid());
    assert!(!follower(9, 0).is_valid(), "it stands on no block");
    assert!(!follower(9, 11).is_valid(), "more blocks than there are");
}

/// A chain that tells a number of hashes before it does not answer any more.
struct Faltering {
    chain: InProcessRegtest,
    hashes_left: AtomicU32,
}

impl BitcoinBackend for Faltering {
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
        let left =
            self.hashes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let gone =
            |_| BackendError::Unreachable { endpoint: "node".to_owned(), detail: "it is gone".to_owned() };
        left.map_err(gone).and_then(|_| self.chain.block_hash(height))
    }
    fn block(&self, hash: &BlockHash) -> Result<bitcoin::Block, BackendError> {
        self.chain.block(hash)
    }
    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError> {
        self.chain.block_info(hash)
    }
    fn transaction(&self, txid: &Txid, since: u32) -> Result<Option<TxRecord>, BackendError> {
        self.chain.transaction(txid, since)
    }
    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError> {
        self.chain.broadcast(tx)
    }
    fn broadcast_package(&self, package: &[Transaction]) -> Result<(), BackendError> {
        self.chain.broadcast_package(package)
    }
    fn fee_estimate(&self, target_blocks: u16) -> Result<FeeEstimate, BackendError> {
        self.chain.fee_estimate(target_blocks)
    }
    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError> {
        self.chain.utxos(script)
    }
    fn miner(&self) -> Option<&dyn RegtestMiner> {
        self.chain.miner()
    }
}

/// Heights that a shell was told of since they were last taken out.
#[derive(Default)]
struct Told {
    connected: BTreeSet<u32>,
    disconnected: BTreeSet<u32>,
}

impl Shell for Told {
    fn connected(&mut self, height: u32, _: &bitcoin::Block) -> Vec<Event> {
        self.connected.insert(height);
        Vec::new()
    }
    fn disconnected(&mut self, height: u32) -> Vec<Event> {
        self.disconnected.insert(height);
        Vec::new()
    }
    fn carry_out(&mut self, _: World<'_>, _: Effect) -> Result<Vec<Event>, ServiceError> {
        Ok(Vec::new())
    }
    fn poll(&mut self, _: World<'_>) -> Result<Vec<Event>, ServiceError> {
        Ok(Vec::new())
    }
}

const TIP: u32 = 20;

/// A vigilante that has read [`TIP`] blocks and then learnt of an epoch.
fn learnt() -> (tempfile::TempDir, Arc<Faltering>, Runner<Vigilante, Told>) {
    let root = tempfile::tempdir().unwrap();
    let chain = InProcessRegtest::open(&root.path().join("chain")).unwrap();
    chain.miner().unwrap().mine(TIP, &ScriptBuf::from_bytes(vec![0x51])).unwrap();
    let backend = Arc::new(Faltering { chain, hashes_left: AtomicU32::new(u32::MAX) });
    let (dir, follower) = (root.path().join("service"), Follower::at(backend.as_ref(), 0).unwrap());
    let stored = Stored {
        name: Vigilante::NAME.to_owned(),
        trunk_id: [7; 32],
        graphs: Vec::new(),
        follower,
        machine: Vigilante::new(Fixture::wallet(1), 4, Height(0), FeePolicy::REGTEST),
    };
    let mut runner = Runner {
        backend: Arc::clone(&backend) as Arc<dyn BitcoinBackend>,
        dir: Dir::take(&dir).unwrap(),
        epochs: EpochDir { dir, policies: Vec::new(), signers: BTreeSet::new() },
        contract: Fixture::shared().contract(),
        keys: Fixture::keys(1),
        stored,
        shell: Told::default(),
        is_restarted: true,
        rewind_left: 0,
        is_dirty: true,
        priced: None,
        done: None,
        complaint: String::new(),
    };
    runner.pass(&Stop::default()).unwrap();
    assert_eq!(runner.stored.follower.height(), TIP);
    runner.shell = Told::default();
    runner.rewind_left = REWIND_BLOCKS;
    (root, backend, runner)
}

#[test]
fn a_node_that_falters_does_not_cut_short_what_is_read_again() {
    let (_root, backend, mut runner) = learnt();
    backend.hashes_left.store(5, Ordering::Relaxed);
    runner.try_pass(&Stop::default()).unwrap();
    assert!(runner.shell.connected.is_empty());
    backend.hashes_left.store(u32::MAX, Ordering::Relaxed);
    runner.try_pass(&Stop::default()).unwrap();
    assert_eq!(runner.shell.connected, (1..=TIP).collect());
    assert!(runner.shell.disconnected.is_empty());
}

#[test]
fn a_reorganisation_that_is_met_while_going_back_is_told_to_the_shell() {
    let (_root, backend, mut runner) = learnt();
    let mut parent = backend.block_hash(TIP - 1).unwrap();
    let time = backend.block(&parent).unwrap().header.time;
    for step in 0..2 {
        let script = ScriptBuf::from_bytes(vec![0x52]);
        let block = InProcessRegtest::assemble_block(parent, TIP + step, time + 1 + step, &script, &[]);
        parent = block.block_hash();
        backend.chain.submit_block(&block).unwrap();
    }
    runner.try_pass(&Stop::default()).unwrap();
    assert_eq!(runner.shell.disconnected, [TIP].into());
    assert_eq!(runner.shell.connected, (1..=TIP + 1).collect());
}
