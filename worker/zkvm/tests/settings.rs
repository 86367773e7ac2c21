//! Settings chosen from cores and memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use assay_worker_zkvm::error::WorkerError;
use assay_worker_zkvm::settings::{machine_memory_bytes, Settings, ShardSize};

const GIB: u64 = 1 << 30;

#[test]
fn two_cores_and_24_gib_give_one_frugal_prover() {
    let settings = Settings::choose(2, 20 * GIB).unwrap();
    assert_eq!((settings.provers, settings.shards_ahead, settings.keys_cached), (1, 2, 3));
    assert_eq!(settings.element_threshold, 1 << 27);
}

#[test]
fn only_executions_that_fill_no_table_get_larger_shards() {
    let frugal = Settings::choose(2, 20 * GIB).unwrap();
    assert_eq!(
        ShardSize::of(1_300_000, [("KECCAK_PERMUTE", 230), ("SECP256K1_ADD", 5_000)]),
        ShardSize::Small
    );
    assert_eq!(frugal.clone().sized(ShardSize::Small).element_threshold, 3 << 26);
    for (cycles, calls) in
        [(2_000_001, vec![]), (1, vec![("KECCAK_PERMUTE", 2_001)]), (1, vec![("SHA_COMPRESS", 50_001)])]
    {
        assert_eq!(ShardSize::of(cycles, calls), ShardSize::Any);
    }
    assert_eq!(frugal.clone().sized(ShardSize::Any), frugal);
    let roomy = Settings::choose(64, 256 * GIB).unwrap();
    assert_eq!(roomy.clone().sized(ShardSize::Small), roomy);
}

#[test]
fn a_large_machine_gets_several_provers_with_full_shards() {
    let settings = Settings::choose(64, 256 * GIB).unwrap();
    assert_eq!(settings.provers, 4);
    assert_eq!(settings.element_threshold, sp1_core_executor::ELEMENT_THRESHOLD);
}

#[test]
fn too_little_memory_is_refused() {
    let error = Settings::choose(2, 8 * GIB).unwrap_err();
    assert!(matches!(error, WorkerError::TooLittleMemory { got_bytes, .. } if got_bytes == 8 * GIB));
}

#[test]
fn memory_of_this_machine_is_known() {
    assert!(machine_memory_bytes() > GIB);
}
