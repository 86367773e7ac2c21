//! A process that settles is killed, again and again; the next one goes on, and in the end there is each claim once.

#[path = "common/batch.rs"]
mod batch;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use assay_l1::{BackendSpec, Trunk, TrunkConfig, TxState};
use batch::{claim, params, state};

const DIR_VARIABLE: &str = "ASSAY_L1_KILL_TEST_DIR";
const CLAIMS: u32 = 3;

fn settle_all(dir: &Path) -> Trunk {
    let backend = BackendSpec::InProcess { dir: dir.join("chain") }.open().unwrap();
    let config = TrunkConfig { claims_per_epoch: 8, ..TrunkConfig::development(dir.join("trunk")) };
    let mut trunk = Trunk::open(config, backend).unwrap();
    trunk.open_epoch(&params()).unwrap();
    for index in 0..CLAIMS {
        trunk.settle(&claim(index, 20_000)).unwrap();
    }
    trunk
}

#[test]
#[ignore = "the child process of the test below"]
fn child() {
    // Without a parent (all ignored tests are run) there is nothing to do.
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    settle_all(Path::new(&dir));
}

#[test]
fn killed_at_any_moment_the_claims_are_made_once_each() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + 45 * round));
        // SIGKILL: nothing is flushed.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let trunk = settle_all(dir.path());
    assert_eq!((trunk.epochs().len(), trunk.claims().len()), (1, CLAIMS as usize));
    assert_eq!(trunk.settled_commitment(), Some(state(CLAIMS)));
    let mut txids: Vec<_> =
        trunk.claims().iter().flat_map(|claim| &claim.transactions).map(|tx| tx.txid).collect();
    let receipts = trunk.claims().to_vec();
    drop(trunk);
    let backend = BackendSpec::InProcess { dir: dir.path().join("chain") }.open().unwrap();
    for tx in receipts.iter().flat_map(|claim| &claim.transactions) {
        let record = backend.transaction(&tx.txid, 0).unwrap().expect("on the chain");
        let TxState::Confirmed { height, block_hash, .. } = record.state else {
            panic!("{} is not mined", tx.role)
        };
        assert_eq!((height, block_hash), (tx.block_height, tx.block_hash));
    }
    txids.sort();
    txids.dedup();
    assert_eq!(txids.len(), receipts.iter().map(|claim| claim.transactions.len()).sum::<usize>());
}
