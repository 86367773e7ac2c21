//! The test suites of the `ethereum/tests` repository, and mainnet blocks, from `../shared/data`.

#[path = "data_folder/mod.rs"]
mod data_folder;

use std::path::Path;

use alloy_primitives::{hex, keccak256};
use assay_lvm::{
    core::{Trie, WitnessStore, EMPTY_ROOT},
    ethereum_tests::{run_file, Report},
    mainnet, RunLimits,
};
use data_folder::{data, json_files};
use rayon::prelude::*;
use serde_json::Value;

#[test]
fn every_block_is_accepted_or_rejected_as_its_file_says() {
    let Some(folder) = data("ethereum-tests/BlockchainTests") else { return };
    let files = json_files(&folder);
    assert!(!files.is_empty(), "{} holds no test", folder.display());
    let reports: Vec<Report> =
        files.par_iter().map(|file| run_file(file).expect("file is a block test")).collect();
    let mut total = Report::default();
    reports.into_iter().for_each(|report| total.merge(report));
    println!(
        "{} cases in {} files: {} blocks accepted ({} again on their witness), {} rejected; skipped {:?}",
        total.cases,
        files.len(),
        total.accepted,
        total.stateless,
        total.rejected,
        total.skipped
    );
    assert!(total.failures.is_empty(), "{} failures: {:#?}", total.failures.len(), total.failures);
    assert!(total.accepted > 0 && total.rejected > 0);
}

#[test]
fn mainnet_blocks_execute_with_all_roots_equal_to_their_headers() {
    let Some(folder) = data("mainnet") else { return };
    let files = json_files(&folder);
    assert!(!files.is_empty(), "{} holds no block", folder.display());
    for file in files {
        let batch = mainnet::load(&file).expect("block executes");
        let summary = batch.validate().expect("its smallest witness is enough");
        let runs = batch.split_runs(RunLimits::default()).expect("it is a run");
        let block = &summary.blocks[0];
        println!(
            "block {}: {} transactions, {} gas, {} nodes, {} codes, input of {} bytes",
            block.number,
            block.transactions,
            block.gas_used,
            batch.nodes.len(),
            batch.codes.len(),
            runs[0].input.len()
        );
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].output.to, summary.to);
        // No ancestor header: the proof has to say that the parent was taken on trust.
        assert!(!runs[0].output.public_values.linked);
    }
}

#[test]
fn tries_have_the_roots_the_suite_says() {
    let Some(folder) = data("ethereum-tests/TrieTests") else { return };
    let mut cases = 0;
    for file in json_files(&folder) {
        let name = file.file_name().expect("a file has a name").to_string_lossy().to_lowercase();
        let text = std::fs::read(&file).expect("file can be read");
        let Value::Object(tests) = serde_json::from_slice(&text).expect("file is JSON") else {
            panic!("{name} is no object");
        };
        for (case, test) in tests {
            if test.get("tests").is_some() {
                check_neighbours(&case, &test);
            } else {
                let expected = test["root"].as_str().expect("case has a root");
                let root = root_of(&test["in"], name.contains("secure"));
                assert_eq!(root.to_string(), expected, "{name}: {case}");
            }
            cases += 1;
        }
    }
    println!("{cases} trie cases");
    assert!(cases > 0);
}

/// Applies the entries in order; null removes.
fn root_of(input: &Value, secure: bool) -> alloy_primitives::B256 {
    let entries: Vec<(&str, &Value)> = match input {
        Value::Array(pairs) => {
            pairs.iter().map(|pair| (pair[0].as_str().expect("key is text"), &pair[1])).collect()
        }
        Value::Object(map) => map.iter().map(|(key, value)| (key.as_str(), value)).collect(),
        _ => panic!("entries are neither pairs nor an object"),
    };
    let mut store = WitnessStore::default();
    let mut trie = Trie::new(EMPTY_ROOT);
    for (key, value) in entries {
        let key = path(&bytes(key), secure);
        match value.as_str().map(bytes).filter(|value| !value.is_empty()) {
            Some(value) => trie.insert(&key, value, &mut store).expect("nothing is missing"),
            None => {
                trie.remove(&key, &mut store).expect("nothing is missing");
            }
        }
    }
    trie.root(&mut store)
}

/// The entries come in the order of their keys, so the next and the previous of any text follow.
fn check_neighbours(case: &str, test: &Value) {
    let mut store = WitnessStore::default();
    let mut trie = Trie::new(EMPTY_ROOT);
    for key in test["in"].as_array().expect("keys are a list") {
        let key = key.as_str().expect("key is text").as_bytes();
        trie.insert(&path(key, false), key.to_vec(), &mut store).expect("nothing is missing");
    }
    let entries = trie.entries(&mut store).expect("nothing is missing");
    let text = |entry: Option<&(Vec<u8>, Vec<u8>)>| {
        entry.map_or(String::new(), |(_, value)| String::from_utf8(value.clone()).expect("text"))
    };
    for triple in test["tests"].as_array().expect("tests are a list") {
        let [at, previous, next] = [0, 1, 2].map(|i| triple[i].as_str().expect("text"));
        let key = path(at.as_bytes(), false);
        assert_eq!(text(entries.iter().rev().find(|(k, _)| *k < key)), previous, "{case}: before {at}");
        assert_eq!(text(entries.iter().find(|(k, _)| *k > key)), next, "{case}: after {at}");
    }
}

fn bytes(text: &str) -> Vec<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => hex::decode(digits).expect("hex"),
        None => text.as_bytes().to_vec(),
    }
}

fn path(key: &[u8], secure: bool) -> Vec<u8> {
    let hashed;
    let key = if secure {
        hashed = keccak256(key);
        hashed.as_slice()
    } else {
        key
    };
    key.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect()
}

#[test]
fn a_file_that_is_no_block_test_gets_a_typed_error() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("x.json");
    std::fs::write(&file, r#"{"case": {"network": "Cancun"}}"#).expect("file can be written");
    let report = run_file(&file).expect("the case fails, not the file");
    assert_eq!(report.failures.len(), 1);
    assert!(run_file(Path::new("absent.json")).is_err());
}
