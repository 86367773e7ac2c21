//! Back ends for tests: the in-process chain always, bitcoind where `BITCOIND_EXE` names one.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_l1::{BackendSpec, BitcoinBackend};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    WScriptHash, Witness,
};

/// A chain that a test may open, close and open again.
pub(crate) trait Harness {
    fn backend(&self) -> Arc<dyn BitcoinBackend>;
    fn restart(&mut self);
}

/// Core's consensus code in this process.
pub(crate) struct InProcess {
    dir: tempfile::TempDir,
    backend: Option<Arc<dyn BitcoinBackend>>,
}

impl InProcess {
    pub(crate) fn new() -> Self {
        let mut harness = Self { dir: tempfile::tempdir().unwrap(), backend: None };
        harness.restart();
        harness
    }
}

impl Harness for InProcess {
    fn backend(&self) -> Arc<dyn BitcoinBackend> {
        Arc::clone(self.backend.as_ref().unwrap())
    }

    fn restart(&mut self) {
        self.backend = None;
        let spec = BackendSpec::InProcess { dir: self.dir.path().to_owned() };
        self.backend = Some(spec.open().unwrap());
    }
}

/// A bitcoind of its own on regtest.
pub(crate) struct Node {
    exe: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    backend: Option<Arc<dyn BitcoinBackend>>,
}

impl Node {
    /// `None`, with a message, where no bitcoind is given.
    pub(crate) fn start() -> Option<Self> {
        let Some(exe) = std::env::var_os("BITCOIND_EXE") else {
            eprintln!(
                "SKIPPED: BITCOIND_EXE is not set; set it to a bitcoind to run this test on a real node"
            );
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut node =
            Self { exe: exe.into(), dir: tempfile::tempdir().unwrap(), port, child: None, backend: None };
        node.restart();
        Some(node)
    }

    fn cookie(&self) -> PathBuf {
        self.dir.path().join("regtest/.cookie")
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGTERM lets the node write its chain state.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

impl Harness for Node {
    fn backend(&self) -> Arc<dyn BitcoinBackend> {
        Arc::clone(self.backend.as_ref().unwrap())
    }

    fn restart(&mut self) {
        self.stop();
        let child = Command::new(&self.exe)
            .arg(format!("-datadir={}", self.dir.path().display()))
            .arg(format!("-rpcport={}", self.port))
            .args(["-regtest", "-server", "-listen=0", "-printtoconsole=0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let url = format!("http://127.0.0.1:{}", self.port);
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let spec = BackendSpec::bitcoind(&url, Some(&self.cookie())).unwrap();
            match spec.open() {
                Ok(backend) => break self.backend = Some(backend),
                Err(error) => assert!(Instant::now() < deadline, "bitcoind does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
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
