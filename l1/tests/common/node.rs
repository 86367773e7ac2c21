//! A bitcoind for tests, ended with them. Include `chain.rs` beside it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_l1::{BitcoinBackend, Bitcoind, RegtestMiner, RpcAuth};
use serde_json::{json, Value};

use crate::chain::{branch_script, Harness, Stop};

/// Longest start and longest clean end of a node.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node of its own on regtest: default policy, no wallet, no peers, a free loopback port, a folder that goes with it.
pub(crate) struct Node {
    exe: PathBuf,
    args: &'static [&'static str],
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    backend: Option<Arc<Bitcoind>>,
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(args: &'static [&'static str]) -> Self {
        let (exe, dir) = (executable(), tempfile::tempdir().unwrap());
        let mut node = Self { exe, args, dir, port: free_port(), child: None, backend: None };
        node.restart(Stop::Clean);
        node
    }

    /// Calls a method of the node.
    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        self.rpc().call(method, params).unwrap()
    }

    pub(crate) fn rpc(&self) -> Arc<Bitcoind> {
        Arc::clone(self.backend.as_ref().unwrap())
    }

    /// How the programs of this project are told of it.
    pub(crate) fn words(&self) -> Vec<String> {
        let cookie = self.dir.path().join("regtest/.cookie").display().to_string();
        vec!["--bitcoind".into(), format!("http://127.0.0.1:{}", self.port), "--cookie".into(), cookie]
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// Ends the node and leaves it so.
    pub(crate) fn stop(&mut self, stop: Stop) {
        let Some(mut child) = self.child.take() else { return };
        if stop == Stop::Clean {
            // SIGTERM lets the node write its state.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        assert!(stop == Stop::Kill || std::thread::panicking(), "the node does not end; {}", self.log());
    }

    /// The end of the node's log, for messages.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("regtest/debug.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn spawn(&self) -> Child {
        // Ended by the kernel if the test's thread is gone without running destructors.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.exe)
            .arg(format!("-datadir={}", self.dir.path().display()))
            .arg(format!("-rpcport={}", self.port))
            .args(["-regtest", "-server", "-listen=0", "-connect=0", "-dnsseed=0", "-printtoconsole=0"])
            .args(self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv (util-linux) is in PATH")
    }
}

impl Harness for Node {
    fn backend(&self) -> Arc<dyn BitcoinBackend> {
        self.rpc()
    }

    fn restart(&mut self, stop: Stop) {
        self.stop(stop);
        let mut child = self.spawn();
        let endpoint = format!("127.0.0.1:{}", self.port);
        let auth = RpcAuth::Cookie(self.dir.path().join("regtest/.cookie"));
        let deadline = Instant::now() + PATIENCE;
        // The node answers a while after it starts: until then no cookie, no connection, or "warming up".
        self.backend = loop {
            match Bitcoind::connect(&endpoint, auth.clone()) {
                Ok(backend) => break Some(Arc::new(backend)),
                Err(error) => {
                    let ended = child.try_wait().unwrap();
                    if ended.is_some() || Instant::now() > deadline {
                        let _ = child.kill();
                        let _ = child.wait();
                        panic!("{}: {error}; ended: {ended:?}; {}", self.exe.display(), self.log());
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        self.child = Some(child);
    }

    fn reorganise(&mut self, lost: u32) {
        let rpc = self.rpc();
        let first_lost = rpc.block_hash(rpc.tip().unwrap().height + 1 - lost).unwrap();
        self.call("invalidateblock", json!([first_lost]));
        for _ in 0..=lost {
            rpc.mine_exactly(&[], &branch_script()).unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing of it is used again.
        self.stop(Stop::Kill);
    }
}

/// `BITCOIND_EXE`, else the one that `make bitcoind` builds.
fn executable() -> PathBuf {
    if let Some(exe) = std::env::var_os("BITCOIND_EXE") {
        return exe.into();
    }
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut scripts = folders.map(|folder| folder.join("scripts/bitcoind.sh"));
    let script = scripts.find(|script| script.exists()).expect("the repository has scripts/bitcoind.sh");
    let output = Command::new(script).arg("--path").output().unwrap();
    let exe = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    assert!(exe.exists(), "there is no {}: run `make bitcoind`, or set BITCOIND_EXE", exe.display());
    exe
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
