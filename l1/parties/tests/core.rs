//! Each attack once on Bitcoin Core's consensus code: every block that the simulator made, stale ones too, in the order in which
//! they were made. Core must follow to the same tip.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use assay_l1::{BitcoinBackend, InProcessRegtest};
use assay_l1_parties::sim::{Attack, Chain, Faucet, Fixture, Options, World};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, WScriptHash};

fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x51])))
}

/// A chain of Core's with a mature coin; the coin is the same each time.
fn core() -> (tempfile::TempDir, InProcessRegtest, Faucet) {
    let dir = tempfile::tempdir().unwrap();
    let core = InProcessRegtest::open(dir.path()).unwrap();
    core.miner().unwrap().mine(120, &open_script()).unwrap();
    let coins = core.utxos(&open_script()).unwrap();
    let first = coins.iter().min_by_key(|coin| coin.height).unwrap();
    let faucet = Faucet { outpoint: first.outpoint, value: first.txout.value };
    (dir, core, faucet)
}

/// Hands all blocks to Core.
fn replay(core: &InProcessRegtest, chain: &Chain) -> usize {
    let tip = core.tip().unwrap();
    let history = chain.history();
    let base = history[0].height.0 - 1;
    let start = core.block(&tip.hash).unwrap().header.time;
    let mut hashes: BTreeMap<u64, BlockHash> = BTreeMap::from([(0, tip.hash)]);
    for (index, block) in history.iter().enumerate() {
        let txs: Vec<Transaction> = block.txs.iter().map(|tx| tx.as_ref().clone()).collect();
        let height = tip.height + block.height.0 - base;
        let time = start + 1 + index as u32;
        let made =
            InProcessRegtest::assemble_block(hashes[&block.parent], height, time, &open_script(), &txs);
        core.submit_block(&made).unwrap_or_else(|error| panic!("block at height {height}: {error}"));
        hashes.insert(block.id, made.block_hash());
    }
    let last = chain.blocks().last().unwrap();
    assert_eq!(core.tip().unwrap().hash, hashes[&last.id], "Core follows");
    history.len()
}

fn on_core(attacks: &[Attack]) {
    let mut fixture: Option<(OutPoint, &'static Fixture)> = None;
    for attack in attacks {
        let (_dir, core, faucet) = core();
        let known = fixture.filter(|(outpoint, _)| *outpoint == faucet.outpoint);
        let (_, parts) = known.unwrap_or_else(|| {
            let made: &'static Fixture = Box::leak(Box::new(Fixture::new(faucet.clone())));
            (faucet.outpoint, made)
        });
        fixture = Some((faucet.outpoint, parts));
        let mut world = World::new(Options::new(*attack, 1), parts);
        world.run().unwrap();
        let blocks = replay(&core, world.chain());
        assert!(blocks > 40, "{attack:?}");
    }
}

#[test]
fn honest_runs_are_valid_blocks() {
    on_core(&[Attack::None, Attack::Griefer, Attack::ClaimEarly, Attack::Reorgs]);
    on_core(&[Attack::FeeSpike, Attack::KilledMidAssert]);
}

#[test]
fn runs_with_lies_that_the_chain_judges_are_valid_blocks() {
    on_core(&[Attack::SkippedBatch, Attack::WrongInput, Attack::WrongCodeRoot, Attack::DoubleClaim]);
}

#[test]
fn runs_with_lies_that_the_verifier_judges_are_valid_blocks() {
    on_core(&[
        Attack::ForgedRoot,
        Attack::BadProof,
        Attack::PerfectLie,
        Attack::NoData,
        Attack::Withheld,
        Attack::DroppedForced,
    ]);
}

#[test]
fn runs_without_answers_are_valid_blocks() {
    on_core(&[Attack::NoAnswer, Attack::HalfAnswer, Attack::LateAnswer, Attack::Stopped]);
}
