//! A reader of a trunk is killed, again and again; the next one goes on, and in the end there is every batch.
//!
//! In a binary of its own: a process that is being started holds the files of the one that starts it, and their locks, for a moment.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/batch.rs"]
mod batch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use assay_l1::graph::terms::EpochTerms;
use assay_l1::sync::{rebuild, Execute, Report, SyncConfig, SyncedClaim, TrunkReader};
use assay_l1::{BackendSpec, Trunk, TrunkConfig};
use batch::{claim, params, state};

const KILL_DIR: &str = "ASSAY_L1_SYNC_KILL_DIR";
const KILL_TERMS: &str = "ASSAY_L1_SYNC_KILL_TERMS";

/// Writes batches to files, each whole or not at all.
struct Files(PathBuf);

impl Execute for Files {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        Ok(blake3::hash(data).into())
    }

    fn execute(&mut self, claim: &SyncedClaim, data: &[u8]) -> Result<[u8; 32], String> {
        let new = self.0.join("new");
        let path = self.0.join(format!("batch-{}-{}", claim.epoch, claim.claim));
        std::fs::File::create(&new).and_then(|mut file| file.write_all(data)).unwrap();
        std::fs::rename(new, path).unwrap();
        let count = std::fs::read_dir(&self.0).unwrap().count() as u32;
        Ok(state(count))
    }
}

fn read_to_files(dir: &Path, terms: &EpochTerms) -> Report {
    let backend = BackendSpec::InProcess { dir: dir.join("chain") }.open().unwrap();
    let config = SyncConfig {
        dir: dir.join("sync"),
        terms: terms.clone(),
        root: None,
        start_height: 0,
        confirmations: 1,
    };
    let mut sync = TrunkReader::open(config).unwrap();
    std::fs::create_dir_all(dir.join("batches")).unwrap();
    rebuild(&mut sync, backend.as_ref(), &mut Files(dir.join("batches")), &mut |_| {}).unwrap()
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    // Without a parent (all ignored tests are run) there is nothing to do.
    let (Some(dir), Ok(terms)) = (std::env::var_os(KILL_DIR), std::env::var(KILL_TERMS)) else { return };
    let terms = EpochTerms::decode(&hex::decode(terms).unwrap()).unwrap();
    read_to_files(Path::new(&dir), &terms);
}

#[test]
fn killed_at_any_moment_a_reader_has_every_batch_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let backend = BackendSpec::InProcess { dir: dir.path().join("chain") }.open().unwrap();
    let config = TrunkConfig {
        claims_per_epoch: 4,
        envelope_limit: 2_000,
        ..TrunkConfig::development(dir.path().join("trunk"))
    };
    let mut trunk = Trunk::open(config, backend).unwrap();
    let inputs: Vec<_> = (0..6).map(|index| claim(index, 1_000 + 1_500 * index as usize)).collect();
    for (index, input) in inputs.iter().enumerate() {
        if index % 4 == 0 {
            trunk.open_epoch(&params()).unwrap();
        }
        trunk.settle(input).unwrap();
    }
    let terms = trunk.epochs()[0].terms().unwrap();
    drop(trunk);
    for round in 0..10u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored"])
            .env(KILL_DIR, dir.path())
            .env(KILL_TERMS, hex::encode(terms.encode()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(10 + 20 * round));
        // SIGKILL: nothing is flushed.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let report = read_to_files(dir.path(), &terms);
    assert_eq!((report.findings_count, report.is_stopped), (0, false), "{:?}", report.findings);
    for (index, input) in inputs.iter().enumerate() {
        let name = format!("batch-{}-{}", index / 4, index % 4);
        assert_eq!(std::fs::read(dir.path().join("batches").join(name)).unwrap(), input.batch_data);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("batches")).unwrap().count(), 6);
}
