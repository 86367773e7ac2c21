//! A real small proof is accepted, and nothing that differs from it in one byte is.

use super::*;
use crate::statement::{BatchSummary, Claim, SettledTransaction, Settlement};
use crate::testing::small_proof;

fn files() -> Files {
    let small = small_proof();
    let statement = Statement::new(&small.public_values);
    let transaction = SettledTransaction {
        role: "claim".into(),
        txid: "aa".repeat(32),
        block_height: 103,
        block_hash: "bb".repeat(32),
        vsize_vb: 900,
        fee_sat: 1800,
    };
    let settlement = Settlement {
        network: "regtest".into(),
        backend: "in process".into(),
        epoch: 0,
        claim: 0,
        reconfiguration_txid: "cc".repeat(32),
        epoch_terms: Some("dd".repeat(213)),
        claim_txid: "aa".repeat(32),
        claim_height: 103,
        digest: statement.digest.clone(),
        transactions: vec![transaction],
        fee_total_sat: 1800,
        vsize_total_vb: 900,
    };
    let claim = Claim {
        version: ClaimFile::VERSION,
        insecure: Some(statement::INSECURE_NOTE.into()),
        statement,
        batch: BatchSummary {
            id: "1-2-00".into(),
            chain_id: 1,
            first_block: 1,
            last_block: 2,
            transactions: 3,
            gas: 63_000,
            genesis_commitment: Some("00".repeat(32)),
        },
        verifying_key_blake3: verifying_key_hash(&small.vk),
        settlement: Some(settlement),
        enforcement: "nothing".into(),
    };
    Files::render(&small.proof, &small.vk, &[small.input], &ClaimFile::new(claim)).unwrap()
}

fn rejected(files: &Files) -> Check {
    match verify_files(files, None) {
        Err(VerifyError::Rejected { check, .. }) => check,
        other => panic!("not rejected: {other:?}"),
    }
}

/// Changes every byte of one file in turn and returns the checks that failed.
fn change_every_byte(pick: impl Fn(&mut Files) -> &mut Vec<u8>) -> Vec<Check> {
    let good = files();
    let length = pick(&mut good.clone()).len();
    (0..length)
        .map(|at| {
            let mut bad = good.clone();
            pick(&mut bad)[at] ^= 1 << (at % 8);
            rejected(&bad)
        })
        .collect()
}

#[test]
fn a_good_folder_is_accepted_and_says_what_it_proves() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files().named() {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let accepted = verify_folder(dir.path(), None).unwrap();
    assert_eq!(accepted.statement, Statement::new(&small_proof().public_values));
    assert!(accepted.insecure.unwrap().contains("INSECURE"));
    std::fs::remove_file(dir.path().join("vk.json")).unwrap();
    assert!(matches!(verify_folder(dir.path(), None), Err(VerifyError::Unreadable(_))));
}

#[test]
fn every_changed_byte_of_the_proof_is_rejected() {
    let checks = change_every_byte(|files| &mut files.proof_bin);
    assert_eq!(checks.len() as u64, PROOF_BYTES);
}

#[test]
fn every_changed_byte_of_the_json_files_is_rejected() {
    assert!(change_every_byte(|files| &mut files.proof_json).iter().all(|check| *check == Check::ProofJson));
    assert!(change_every_byte(|files| &mut files.public_json)
        .iter()
        .all(|check| *check == Check::PublicInput));
    assert!(change_every_byte(|files| &mut files.vk_json).iter().all(|check| *check == Check::VerifyingKey));
    let claim = change_every_byte(|files| &mut files.claim_json);
    assert!(claim.contains(&Check::ClaimFile) && claim.contains(&Check::PublicValues));
}

/// Everything consistent with the changed bytes, except that nobody proved them: only the pairing can tell.
#[test]
fn every_changed_public_value_is_rejected_by_the_pairing_even_if_all_texts_agree() {
    let good = files();
    let small = small_proof();
    for at in (0..128).step_by(9) {
        let mut bytes = small.public_values;
        bytes[at] ^= 0x10;
        let mut claim: ClaimFile = serde_json::from_slice(&good.claim_json).unwrap();
        claim.claim.statement = Statement::new(&bytes);
        claim.claim.settlement = None;
        let input = statement::public_input(&statement::digest(&bytes));
        let bad = Files::render(&small.proof, &small.vk, &[input], &ClaimFile::new(claim.claim)).unwrap();
        assert_eq!(rejected(&bad), Check::Pairing);
    }
}

#[test]
fn a_well_formed_proof_of_something_else_is_rejected() {
    let mut bad = files();
    let small = small_proof();
    let mut proof = small.proof.clone();
    proof.c = -proof.c;
    bad.proof_bin.clear();
    proof.serialize_compressed(&mut bad.proof_bin).unwrap();
    assert_eq!(rejected(&bad), Check::ProofJson);
    bad.proof_json = json_text(&JsonProof::from(&proof)).into_bytes();
    assert_eq!(rejected(&bad), Check::Pairing);
    bad.proof_bin.push(0);
    assert_eq!(rejected(&bad), Check::ProofEncoding);
}

#[test]
fn a_claim_about_another_digest_or_key_is_rejected() {
    let small = small_proof();
    let render = |change: &dyn Fn(&mut Claim)| {
        let mut claim: ClaimFile = serde_json::from_slice(&files().claim_json).unwrap();
        change(&mut claim.claim);
        Files::render(&small.proof, &small.vk, &[small.input], &ClaimFile::new(claim.claim)).unwrap()
    };
    let digest = render(&|claim| claim.settlement.as_mut().unwrap().digest = "00".repeat(32));
    assert_eq!(rejected(&digest), Check::Settlement);
    let key = render(&|claim| claim.verifying_key_blake3 = "00".repeat(32));
    assert_eq!(rejected(&key), Check::ClaimFile);
    let root = render(&|claim| claim.statement.code_root = "00".repeat(32));
    assert_eq!(rejected(&root), Check::PublicValues);
    // What people are shown is what this program writes, whatever checksum stands beside it.
    let note = render(&|claim| claim.insecure = Some("audited and secure".into()));
    assert_eq!(rejected(&note), Check::ClaimFile);
    for txid in ["TRUSTED", &"g".repeat(64), &"0".repeat(63)] {
        let shown = render(&|claim| claim.settlement.as_mut().unwrap().claim_txid = txid.to_owned());
        assert_eq!(rejected(&shown), Check::ClaimFile);
    }
    let version = render(&|claim| claim.version = 2);
    assert_eq!(rejected(&version), Check::ClaimFile);
}

#[test]
fn pinned_values_are_compared() {
    let files = files();
    let unpinned = verify_files(&files, None).unwrap();
    assert!(!unpinned.trusted && !unpinned.checks.contains(&Check::Pinned));
    let good = Pins {
        verifying_key_blake3: verifying_key_hash(&small_proof().vk),
        code_root: unpinned.statement.code_root,
    };
    let accepted = verify_files(&files, Some(&good)).unwrap();
    assert!(accepted.trusted && accepted.checks.contains(&Check::Pinned));
    for bad in [
        Pins { verifying_key_blake3: "00".repeat(32), ..good.clone() },
        Pins { code_root: "00".repeat(32), ..good.clone() },
    ] {
        assert!(matches!(
            verify_files(&files, Some(&bad)),
            Err(VerifyError::Rejected { check: Check::Pinned, .. })
        ));
    }
}
