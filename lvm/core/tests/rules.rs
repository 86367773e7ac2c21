//! The chain specification against alloy's, and header rules at their edges.

use alloy_consensus::Header;
use alloy_eips::eip7840::BlobParams;
use alloy_hardforks::{EthereumChainHardforks, EthereumHardfork, EthereumHardforks};
use alloy_primitives::{Bytes, B256, B64, U256};
use assay_lvm_core::{
    codec::{Reader, Writer},
    consensus::{check_against_parent, check_header, difficulty},
    ChainSpec, HeaderError, BLOCK_FORKS, TIME_FORKS,
};

#[test]
fn mainnet_is_as_alloy_has_it() {
    let (ours, theirs) = (ChainSpec::mainnet(), EthereumChainHardforks::mainnet());
    for (fork, at) in BLOCK_FORKS.into_iter().zip(ours.block_forks) {
        assert_eq!(theirs.ethereum_fork_activation(fork).block_number(), Some(at), "{fork}");
        assert!(ours.is_ethereum_fork_active_at_block(fork, at));
        assert!(!ours.is_ethereum_fork_active_at_block(fork, at - 1));
    }
    for (fork, at) in TIME_FORKS.into_iter().zip(ours.time_forks) {
        assert_eq!(theirs.ethereum_fork_activation(fork).as_timestamp(), Some(at), "{fork}");
    }
    let [_, cancun, prague, osaka, bpo1, bpo2] = ours.time_forks;
    assert_eq!(ours.blob_params(cancun - 1), None);
    assert_eq!(ours.blob_params(prague - 1), Some(BlobParams::cancun()));
    assert_eq!(ours.blob_params(osaka - 1), Some(BlobParams::prague()));
    assert_eq!(ours.blob_params(bpo1 - 1), Some(BlobParams::osaka()));
    assert_eq!(ours.blob_params(bpo2 - 1), Some(BlobParams::bpo1()));
    assert_eq!(ours.blob_params(bpo2), Some(BlobParams::bpo2()));
    // A fork that never comes does not come at the end of time either.
    assert_eq!(ChainSpec::assay().blob_params(u64::MAX), Some(BlobParams::prague()));
}

#[test]
fn specs_survive_their_encoding_and_differ_in_their_hash() {
    let specs =
        [ChainSpec::mainnet(), ChainSpec::assay(), ChainSpec::from_genesis(1, EthereumHardfork::London)];
    for spec in &specs {
        let mut out = Writer::default();
        spec.encode(&mut out);
        let bytes = out.finish();
        assert_eq!(bytes.len(), ChainSpec::ENCODED_LEN);
        assert_eq!(ChainSpec::decode(&mut Reader::new(&bytes)).as_ref(), Ok(spec));
        for cut in 0..bytes.len() {
            assert!(ChainSpec::decode(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }
    assert_ne!(specs[0].hash(), specs[1].hash());
    let with_beacon_chain = ChainSpec { beacon_chain: true, ..ChainSpec::assay() };
    assert_ne!(with_beacon_chain.hash(), ChainSpec::assay().hash());
    let mut out = Writer::default();
    with_beacon_chain.encode(&mut out);
    let mut bytes = out.finish();
    *bytes.last_mut().expect("not empty") = 2;
    assert!(ChainSpec::decode(&mut Reader::new(&bytes)).is_err());
    let unordered = ChainSpec::mainnet().with_fork(EthereumHardfork::London, 1);
    let mut out = Writer::default();
    unordered.encode(&mut out);
    assert!(ChainSpec::decode(&mut Reader::new(&out.finish())).is_err());
}

fn spec() -> ChainSpec {
    ChainSpec::assay()
}

fn parent() -> Header {
    Header {
        number: 9,
        timestamp: 1_000,
        gas_limit: 30_000_000,
        gas_used: 15_000_000,
        base_fee_per_gas: Some(1_000_000_000),
        withdrawals_root: Some(B256::ZERO),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(B256::ZERO),
        ..Header::default()
    }
}

fn child() -> Header {
    Header { number: 10, timestamp: 1_001, gas_used: 0, ..parent() }
}

fn check(header: &Header) -> Result<(), HeaderError> {
    check_header(&spec(), header).and_then(|()| check_against_parent(&spec(), header, &parent()))
}

#[test]
fn headers_are_checked_field_by_field() {
    assert_eq!(check(&child()), Ok(()));
    let broken: [(&str, Header); 18] = [
        ("number", Header { number: 11, ..child() }),
        ("timestamp", Header { timestamp: 1_000, ..child() }),
        ("gas limit up", Header { gas_limit: 30_000_000 + 30_000_000 / 1024, ..child() }),
        ("gas limit down", Header { gas_limit: 30_000_000 - 30_000_000 / 1024, ..child() }),
        ("gas limit small", Header { gas_limit: 4_999, ..child() }),
        ("gas used", Header { gas_used: 30_000_001, ..child() }),
        ("extra data", Header { extra_data: Bytes::from_static(&[0; 33]), ..child() }),
        ("base fee", Header { base_fee_per_gas: Some(1_000_000_001), ..child() }),
        ("no base fee", Header { base_fee_per_gas: None, ..child() }),
        ("no withdrawals root", Header { withdrawals_root: None, ..child() }),
        ("excess blob gas", Header { excess_blob_gas: Some(131_072), ..child() }),
        ("blob gas used", Header { blob_gas_used: Some(1), ..child() }),
        ("blobs without a beacon chain", Header { blob_gas_used: Some(131_072), ..child() }),
        (
            "beacon root without a beacon chain",
            Header { parent_beacon_block_root: Some(B256::with_last_byte(1)), ..child() },
        ),
        ("no requests hash", Header { requests_hash: None, ..child() }),
        ("difficulty", Header { difficulty: U256::from(1), ..child() }),
        ("nonce", Header { nonce: B64::with_last_byte(1), ..child() }),
        ("slot number", Header { slot_number: Some(1), ..child() }),
    ];
    for (what, header) in broken {
        assert!(check(&header).is_err(), "{what}");
    }
    let edges = [30_000_000 + 30_000_000 / 1024 - 1, 30_000_000 - 30_000_000 / 1024 + 1];
    for gas_limit in edges {
        assert_eq!(check(&Header { gas_limit, ..child() }), Ok(()));
    }
}

#[test]
fn extreme_parents_give_errors_or_answers_but_no_panic() {
    let extremes = [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for value in extremes {
        for header in [child(), Header { number: value, timestamp: value, ..child() }] {
            let parents = [
                Header { gas_limit: value, gas_used: value, ..parent() },
                Header { base_fee_per_gas: Some(value), gas_used: 30_000_000, ..parent() },
                Header { excess_blob_gas: Some(value), blob_gas_used: Some(value), ..parent() },
                Header { number: value, timestamp: value, difficulty: U256::MAX, ..parent() },
            ];
            for parent in parents {
                let _ = check_against_parent(&spec(), &header, &parent);
                let early = ChainSpec::from_genesis(1, EthereumHardfork::Byzantium);
                let _ = check_against_parent(&early, &header, &parent);
            }
        }
    }
}

#[test]
fn difficulties_follow_the_formulas_of_their_forks() {
    let mainnet = ChainSpec::mainnet();
    let at = |difficulty: u64, timestamp: u64| Header {
        difficulty: U256::from(difficulty),
        timestamp,
        ..Header::default()
    };
    // Homestead: a block within 10 seconds raises by 1/2048, plus the bomb of period 15 - 2.
    let parent = at(2_048_000_000, 1_000);
    assert_eq!(difficulty(&mainnet, 1_500_000, 1_009, &parent), U256::from(2_049_000_000u64 + (1 << 13)));
    assert_eq!(difficulty(&mainnet, 1_500_000, 1_010, &parent), U256::from(2_048_000_000u64 + (1 << 13)));
    assert_eq!(
        difficulty(&mainnet, 1_500_000, 9_000, &parent),
        U256::from(2_048_000_000u64 - 99_000_000 + (1 << 13))
    );
    // Byzantium: nine-second steps, an ommer counts, the bomb is three million blocks late.
    let with_ommer = Header { ommers_hash: B256::ZERO, ..parent.clone() };
    assert_eq!(difficulty(&mainnet, 4_400_000, 1_008, &parent), U256::from(2_049_000_000u64 + (1 << 12)));
    assert_eq!(difficulty(&mainnet, 4_400_000, 1_008, &with_ommer), U256::from(2_050_000_000u64 + (1 << 12)));
}
