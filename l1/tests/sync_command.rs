//! `assay l1 sync` and `assay l1 inspect` on the directory of an in-process chain.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/batch.rs"]
mod batch;

use assay_l1::envelope::tag;
use assay_l1::sync::command::{run_inspect, run_sync, CommandError, InspectArgs, SyncArgs};
use assay_l1::sync::{Execute, SyncedClaim};
use assay_l1::{BackendSpec, Trunk, TrunkConfig};
use batch::{claim, params, state};
use clap::Parser;

#[derive(Debug, Parser)]
enum Command {
    Sync {
        #[command(flatten)]
        args: SyncArgs,
        #[arg(long)]
        terms: String,
    },
    Inspect(InspectArgs),
}

/// Executes batches of `common/batch.rs`: each moves the state by one.
struct Counter(u32);

impl Execute for Counter {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        Ok(blake3::hash(data).into())
    }

    fn execute(&mut self, _: &SyncedClaim, _: &[u8]) -> Result<[u8; 32], String> {
        self.0 += 1;
        Ok(state(self.0))
    }
}

fn shown(args: &InspectArgs) -> Result<String, CommandError> {
    let mut out = Vec::new();
    run_inspect(args, &mut out).map(|()| String::from_utf8(out).unwrap())
}

#[test]
fn a_trunk_is_read_and_shown_by_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    let chain_dir = dir.path().join("chain");
    let backend = BackendSpec::InProcess { dir: chain_dir.clone() }.open().unwrap();
    let config = TrunkConfig { envelope_limit: 2_000, ..TrunkConfig::development(dir.path().join("trunk")) };
    let mut trunk = Trunk::open(config, backend).unwrap();
    let epoch = trunk.open_epoch(&params()).unwrap();
    trunk.settle(&claim(0, 100)).unwrap();
    let receipt = trunk.settle(&claim(1, 5_000)).unwrap();
    // One process at a time may open the chain.
    drop(trunk);
    let terms = hex::encode(&epoch.terms);
    let sync_dir = dir.path().join("sync");
    let words = |words: &[&str]| {
        let all =
            [&["assay"], words, &["--regtest-dir", chain_dir.to_str().unwrap(), "--terms", &terms]].concat();
        Command::try_parse_from(all)
    };
    let root = epoch.reconfiguration_txid.to_string();
    let parsed = words(&[
        "sync",
        "--dir",
        sync_dir.to_str().unwrap(),
        "--from-genesis",
        "--confirmations",
        "1",
        "--root",
        &root,
    ]);
    let Command::Sync { args, terms } = parsed.unwrap() else { panic!() };
    for _ in 0..2 {
        // From the start both times.
        let mut out = Vec::new();
        let report = run_sync(&args, &terms, &mut Counter(0), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!((report.executed, text.lines().count()), (2, 4), "{text}");
        assert!(text.starts_with("epoch 0 opened by "), "{text}");
        let end = format!(
            "2 executed, 0 findings; state {}; next block {}\n",
            hex::encode(state(2)),
            report.next_height
        );
        assert!(text.ends_with(&end), "{text}");
    }

    let reveal = receipt.transactions.iter().find(|tx| tx.role == "reveal claim data").unwrap();
    let txid = reveal.txid.to_string();
    let Command::Inspect(args) = words(&["inspect", "--txid", &txid]).unwrap() else { panic!() };
    let text = shown(&args).unwrap();
    assert!(
        text.starts_with(&format!("{txid} input 0: data of claim 0.1: state {} to", hex::encode(state(1)))),
        "{text}"
    );
    let trunk_id = epoch.terms().unwrap().trunk_id;
    let tag = Some(hex::encode(tag(&trunk_id)));
    let height = Some(reveal.block_height);
    let args = InspectArgs { terms: None, tag, txid: None, height, ..args };
    let text = shown(&args).unwrap();
    let by_id = InspectArgs { tag: None, trunk_id: Some(hex::encode(trunk_id)), ..args.clone() };
    assert_eq!(shown(&by_id).unwrap(), text);
    let other = InspectArgs { tag: None, trunk_id: Some("00".repeat(32)), ..args.clone() };
    assert_ne!(shown(&other).unwrap(), text);
    let short = InspectArgs { tag: None, trunk_id: Some("00".to_owned()), ..args.clone() };
    let refused = shown(&short).unwrap_err();
    assert!(refused.is_bad_input() && refused.to_string().starts_with("--trunk-id"), "{refused}");
    for expected in ["chunk ", "list of 3 chunks of a Batch message", "data of claim 0.1"] {
        assert!(text.contains(expected), "{text}");
    }
    let bad = InspectArgs { tag: Some("00".to_owned()), ..args };
    assert!(matches!(shown(&bad), Err(CommandError::Argument { name: "--tag", .. })));
    assert!(words(&["inspect"]).is_err(), "a transaction or a block is needed");
    assert!(words(&["inspect", "--txid", &txid, "--height", "1"]).is_err(), "not both");
}
