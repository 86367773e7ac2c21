//! Real headers, Core's own numbers, and arithmetic against the `bitcoin` crate.

use assay_l1_light::chain::{Accepted, BlockContext, HeaderError};
use assay_l1_light::header::{Header, HeaderLengthError};
use assay_l1_light::params::Network;
use assay_l1_light::pow::{Target, TargetError, U256};
use bitcoin::CompactTarget;
use proptest::prelude::*;

use super::support::{flip, mainnet, mainnet_client};

#[test]
fn genesis_blocks_have_the_hashes_that_core_asserts() {
    let expected = [
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
        "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
    ];
    for (network, expected) in Network::ALL.into_iter().zip(expected) {
        let genesis = network.genesis();
        assert_eq!(genesis.hash().to_string(), expected);
        assert!(Target::from_bits(genesis.bits).unwrap().is_met_by(&genesis.hash()));
        assert_eq!(Header::decode(&genesis.encode()), Ok(genesis));
    }
}

#[test]
fn real_headers_are_followed() {
    let client = mainnet_client(3);
    assert_eq!(client.tip().height, 3);
    assert_eq!(
        client.tip().hash.to_string(),
        "0000000082b5015589a3fdf2d4baff403e6f0be035a5d9742c1cae6295464449"
    );
    // Four blocks of difficulty 1: 2^32 and a bit each.
    assert_eq!(client.tip().work, U256::from(4 * 0x1_0001_0001u64));
    assert_eq!(client.final_block().height, 2);
}

#[test]
fn any_one_bit_of_a_real_header_counts() {
    let mut client = mainnet_client(1);
    let before = client.clone();
    let header = mainnet(1);
    for bit in 0..640 {
        let damaged = Header::decode(&flip(&header, bit)).unwrap();
        let error = client.accept(&damaged, None).unwrap_err();
        let fits = match bit / 8 {
            4..36 => matches!(error, HeaderError::UnknownParent { .. }),
            72..76 => matches!(error, HeaderError::Bits { .. }),
            _ => matches!(error, HeaderError::Work { .. }),
        };
        assert!(fits, "bit {bit}: {error}");
        assert_eq!(client, before, "nothing has changed");
    }
    assert_eq!(client.accept(&Header::decode(&header).unwrap(), None), Ok(Accepted::Extended));
    assert_eq!(client.accept(&Header::decode(&header).unwrap(), None), Ok(Accepted::Known));
}

#[test]
fn headers_of_other_lengths_are_refused() {
    for got in [0, 79, 81] {
        assert_eq!(Header::decode(&vec![0; got]), Err(HeaderLengthError { got }));
    }
}

/// Numbers of the chain itself, as Core's `pow_tests.cpp` and rust-bitcoin's tests have them.
#[test]
fn retargets_give_what_the_chain_had() {
    let mainnet: [(u32, u32, u32, u32, &str); 4] = [
        (0x1d00_ffff, 1_261_130_161, 1_262_152_739, 0x1d00_d86a, "32256"),
        (0x1d00_ffff, 1_231_006_505, 1_233_061_996, 0x1d00_ffff, "2016: the limit"),
        (0x1c05_a3f4, 1_279_008_237, 1_279_297_671, 0x1c01_68fd, "68544: a quarter at least"),
        (0x1c38_7f6f, 1_263_163_443, 1_269_211_443, 0x1d00_e1fd, "four times at most"),
    ];
    let signet: [(u32, u32, u32, u32, &str); 2] = [
        (503_543_726, 1_598_918_400, 1_599_332_177, 503_394_215, "2016"),
        (503_394_215, 1_599_332_844, 1_600_591_200, 503_397_348, "4032"),
    ];
    let cases = mainnet.iter().map(|case| (Network::Mainnet, case));
    for (network, (bits, first, last, expected, name)) in
        cases.chain(signet.iter().map(|case| (Network::Signet, case)))
    {
        let limit = Target::from_bits(network.params().limit_bits).unwrap();
        let target = Target::from_bits(*bits).unwrap();
        let actual_s = i64::from(*last) - i64::from(*first);
        let next = target.retarget(actual_s, network.params().period_s(), limit);
        assert_eq!(next.unwrap().to_bits(), *expected, "{network:?} {name}");
    }
}

#[test]
fn a_chain_starts_at_its_networks_rules() {
    for network in Network::ALL {
        let params = network.params();
        let genesis = BlockContext::genesis(&network.genesis()).unwrap();
        assert_eq!(genesis.next_bits(&params, network.genesis().time + 1), Ok(params.limit_bits));
        assert_eq!(params.period_s(), 1_209_600);
    }
    let mainnet = Network::Mainnet.params();
    let versions = [227_930, 227_931, 363_725, 388_381].map(|height| mainnet.version_min(height));
    assert_eq!(versions, [i32::MIN, 2, 3, 4]);
}

#[test]
fn compact_forms_that_core_refuses_are_no_targets() {
    for bits in [0x1d80_ffff, 0x01fe_dcba, 0x0492_3456] {
        assert_eq!(Target::from_bits(bits), Err(TargetError::Negative { bits }));
    }
    for bits in [0, 0x0100_3456, 0x0200_0056, 0x0300_0000, 0x0400_0000, 0x0080_0000] {
        assert_eq!(Target::from_bits(bits), Err(TargetError::Zero { bits }));
    }
    for bits in [0xff12_3456, 0x2300_0001, 0x2200_0100, 0x2101_0000] {
        assert_eq!(Target::from_bits(bits), Err(TargetError::Overflow { bits }));
    }
    for bits in [0x0112_0000, 0x0212_3400, 0x0312_3456, 0x0412_3456, 0x0500_9234, 0x2012_3456] {
        assert_eq!(Target::from_bits(bits).unwrap().to_bits(), bits);
    }
}

proptest! {
    #[test]
    fn targets_and_work_are_those_of_the_bitcoin_crate(size in 0u32..=0x20, word in 0u32..0x80_0000) {
        let bits = size << 24 | word;
        let theirs = bitcoin::Target::from_compact(CompactTarget::from_consensus(bits));
        match Target::from_bits(bits) {
            Ok(ours) => {
                prop_assert_eq!(ours.value().to_be_bytes::<32>(), theirs.to_be_bytes());
                prop_assert_eq!(ours.to_bits(), theirs.to_compact_lossy().to_consensus());
                // Of a target of 1, which no network has, theirs makes the largest number; Core half of 2^256.
                if ours.value() != U256::ONE {
                    prop_assert_eq!(ours.work().to_be_bytes::<32>(), theirs.to_work().to_be_bytes());
                }
            }
            Err(error) => {
                prop_assert_eq!(error, TargetError::Zero { bits });
                prop_assert_eq!(theirs, bitcoin::Target::ZERO);
            }
        }
    }

    #[test]
    fn retargets_are_those_of_the_bitcoin_crate(
        size in 3u32..=0x1d, word in 0x8000u32..0x80_0000, timespan in 0u64..10_000_000,
    ) {
        let bits = size << 24 | word;
        let params = &bitcoin::params::MAINNET;
        let limit = Target::from_bits(0x1d00_ffff).unwrap();
        let target = Target::from_bits(bits).unwrap().min(limit);
        let ours = target.retarget(timespan as i64, 1_209_600, limit).unwrap().to_bits();
        let last = CompactTarget::from_consensus(target.to_bits());
        let theirs = CompactTarget::from_next_work_required(last, timespan, params);
        prop_assert_eq!(ours, theirs.to_consensus());
    }
}
