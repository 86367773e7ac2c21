//! Chains for tests: the seam and the in-process one; `node.rs` has the real node.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use assay_l1::{BitcoinBackend, InProcessRegtest};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    WScriptHash, Witness,
};

/// How a chain's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is asked to, and saves its state.
    Clean,
    /// SIGKILL: only what is on disk stays.
    Kill,
}

/// A chain that a test may open, close and open again.
pub(crate) trait Harness {
    fn backend(&self) -> Arc<dyn BitcoinBackend>;
    /// Ends the chain's process and starts it again.
    fn restart(&mut self, stop: Stop);
    /// Replaces the last `lost` blocks by `lost + 1` blocks without transactions.
    fn reorganise(&mut self, lost: u32);
}

/// Core's consensus code in this process.
pub(crate) struct InProcess {
    dir: tempfile::TempDir,
    backend: Option<Arc<InProcessRegtest>>,
}

impl InProcess {
    pub(crate) fn new() -> Self {
        let mut harness = Self { dir: tempfile::tempdir().unwrap(), backend: None };
        harness.restart(Stop::Clean);
        harness
    }
}

impl Harness for InProcess {
    fn backend(&self) -> Arc<dyn BitcoinBackend> {
        Arc::clone(self.backend.as_ref().unwrap()) as Arc<dyn BitcoinBackend>
    }

    fn restart(&mut self, stop: Stop) {
        if stop == Stop::Kill {
            // What a kill would leave: the files as they are while the chain is open.
            let copy = tempfile::tempdir().unwrap();
            copy_folder(self.dir.path(), copy.path());
            self.backend = None;
            self.dir = copy;
        }
        self.backend = None;
        self.backend = Some(Arc::new(InProcessRegtest::open(self.dir.path()).unwrap()));
    }

    fn reorganise(&mut self, lost: u32) {
        reorganise(self.backend.as_ref().unwrap(), lost);
    }
}

/// As [`Harness::reorganise`].
pub(crate) fn reorganise(chain: &InProcessRegtest, lost: u32) {
    let fork = chain.tip().unwrap().height - lost;
    let mut parent = chain.block_hash(fork).unwrap();
    let time = chain.block(&parent).unwrap().header.time;
    for step in 1..=lost + 1 {
        let block = InProcessRegtest::assemble_block(parent, fork + step, time + step, &branch_script(), &[]);
        parent = block.block_hash();
        chain.submit_block(&block).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Takes the rewards of blocks that replace others, so that no test spends them by chance. Another one each time: a second
/// branch at the same place must not be the first one's blocks.
pub(crate) fn branch_script() -> ScriptBuf {
    static BRANCHES: AtomicU32 = AtomicU32::new(0);
    let number = BRANCHES.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&number)))
}

/// A script that anyone can spend with [`open_witness`], and that nodes relay.
pub(crate) fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x51])))
}

pub(crate) fn open_witness() -> Witness {
    Witness::from_slice(&[[0x51]])
}

/// Moves `coin` to [`open_script`] for a fee, with `sequence`.
pub(crate) fn spend(outpoint: OutPoint, value: Amount, sequence: Sequence) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence,
            witness: open_witness(),
        }],
        output: vec![TxOut { value: value - Amount::from_sat(10_000), script_pubkey: open_script() }],
    }
}

pub(crate) fn unknown_txid() -> Txid {
    Txid::from_byte_array([0xab; 32])
}

/// Files below `dir`, for messages.
pub(crate) fn exists(dir: &Path, name: &str) -> bool {
    dir.join(name).exists()
}
