//! Difficulty rules, fork choice, finality and state on chains mined here, against slow oracles over all headers.

use assay_l1_light::chain::{
    Accepted, BlockContext, Depths, DepthsError, HeaderError, LightClient, StateError,
};
use assay_l1_light::header::Header;
use assay_l1_light::params::{Difficulty, Network, Params};
use assay_l1_light::Hash;
use bitcoin::{CompactTarget, Target, Work};
use proptest::prelude::*;

use super::support::{flip, mainnet_client, mine, quick, quick_client, quick_genesis};

const RULES: [Difficulty; 4] =
    [Difficulty::Retarget, Difficulty::RetargetOrLate, Difficulty::RetargetOrLateBip94, Difficulty::Constant];
const DEEP: Depths = Depths { finality: 3, keep: 1_000 };

/// The next target as Core computes it: by walking back over the chain.
fn oracle(chain: &[Header], params: &Params, time: u32) -> u32 {
    let period = params.period_blocks as usize;
    let last = chain.last().unwrap();
    if params.difficulty == Difficulty::Constant {
        return last.bits;
    }
    let late_rule = matches!(params.difficulty, Difficulty::RetargetOrLate | Difficulty::RetargetOrLateBip94);
    if !chain.len().is_multiple_of(period) {
        if !late_rule {
            return last.bits;
        }
        if time > last.time + 2 * params.spacing_s {
            return params.limit_bits;
        }
        let mut at = chain.len() - 1;
        while at > 0 && !at.is_multiple_of(period) && chain[at].bits == params.limit_bits {
            at -= 1;
        }
        return chain[at].bits;
    }
    let first = &chain[chain.len() - period];
    let base = if params.difficulty == Difficulty::RetargetOrLateBip94 { first.bits } else { last.bits };
    let mut theirs = bitcoin::params::MAINNET.clone();
    theirs.pow_target_timespan = u64::from(params.period_s());
    theirs.max_attainable_target = Target::from_compact(CompactTarget::from_consensus(params.limit_bits));
    // Their time span is unsigned; a negative one is cut to the least anyway.
    let timespan = u64::from(last.time.saturating_sub(first.time));
    CompactTarget::from_next_work_required(CompactTarget::from_consensus(base), timespan, &theirs)
        .to_consensus()
}

fn median(chain: &[Header]) -> u32 {
    let mut times: Vec<u32> = chain.iter().rev().take(11).map(|header| header.time).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// A time that the rules take, near `wanted` after the last one.
fn allowed_time(chain: &[Header], params: &Params, wanted: i64) -> u32 {
    let last = chain.last().unwrap().time;
    let bound = params.difficulty == Difficulty::RetargetOrLateBip94;
    let floor = if bound { last - 500 } else { 0 };
    u32::try_from(i64::from(last) + wanted).unwrap().max(median(chain) + 1).max(floor)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_target_is_the_one_that_walking_back_gives(
        rule in 0usize..4, steps in proptest::collection::vec(-3i64..14, 20..40),
    ) {
        let params = quick(RULES[rule]);
        let mut client = quick_client(RULES[rule], DEEP);
        let mut chain = vec![quick_genesis()];
        for step in steps {
            let time = allowed_time(&chain, &params, step);
            let bits = oracle(&chain, &params, time);
            let parent = chain.last().unwrap().hash();
            prop_assert_eq!(client.tip().median_time(), median(&chain));
            // One below the last place: as hard, and still wrong.
            let wrong = mine(parent, time, bits - 1, 0);
            prop_assert_eq!(
                client.accept(&wrong, None),
                Err(HeaderError::Bits { hash: wrong.hash(), expected: bits, got: bits - 1 })
            );
            let header = mine(parent, time, bits, 0);
            prop_assert_eq!(client.accept(&header, None), Ok(Accepted::Extended));
            chain.push(header);
        }
        prop_assert_eq!(client.tip().height as usize, chain.len() - 1);
    }

    /// Blocks in any order of parents: the tip is the first accepted of those with most work, whatever their heights.
    #[test]
    fn the_tip_has_most_work_after_any_blocks(
        rule in 0usize..4, picks in proptest::collection::vec((any::<prop::sample::Index>(), -3i64..14), 1..40),
    ) {
        let params = quick(RULES[rule]);
        let mut client = quick_client(RULES[rule], DEEP);
        let mut chains = vec![vec![quick_genesis()]];
        let mut best = 0;
        for (salt, (pick, step)) in picks.into_iter().enumerate() {
            let mut chain = pick.get(&chains).clone();
            let time = allowed_time(&chain, &params, step);
            let header = mine(chain.last().unwrap().hash(), time, oracle(&chain, &params, time), salt as u8 + 1);
            chain.push(header);
            chains.push(chain);
            let new = chains.len() - 1;
            let accepted = client.accept(&header, None).unwrap();
            if work(&chains[new]) > work(&chains[best]) {
                let (old, common) = (&chains[best], common(&chains[best], &chains[new]));
                let undone = (old.len() - common) as u32;
                let broke_finality = common < old.len().saturating_sub(2);
                let expected = match undone {
                    0 => Accepted::Extended,
                    _ => Accepted::Reorganised { common: common as u32 - 1, undone, broke_finality },
                };
                prop_assert_eq!(accepted, expected);
                best = new;
            } else {
                prop_assert_eq!(accepted, Accepted::Side);
            }
            let chain = &chains[best];
            prop_assert_eq!(client.tip().hash, chain.last().unwrap().hash());
            let final_height = chain.len().saturating_sub(3);
            prop_assert_eq!(client.final_block().hash, chain[final_height].hash());
            for (height, header) in chain.iter().enumerate() {
                prop_assert_eq!(client.block_at(height as u32).map(|block| block.hash), Some(header.hash()));
                let is_final = client.final_block_with(&header.hash()).is_some();
                prop_assert_eq!(is_final, height <= final_height);
            }
            prop_assert_eq!(&LightClient::decode(&client.encode()).unwrap(), &client);
        }
    }

    #[test]
    fn what_lies_below_the_anchor_is_forgotten(
        picks in proptest::collection::vec((0usize..4, 1i64..6), 30..60), keep in 3u32..8,
    ) {
        let params = quick(Difficulty::Retarget);
        let mut client = quick_client(Difficulty::Retarget, Depths { finality: 2, keep });
        let mut chain = vec![quick_genesis()];
        for (salt, (back, step)) in picks.into_iter().enumerate() {
            let prefix = &chain[..chain.len() - back.min(chain.len() - 1)];
            let time = allowed_time(prefix, &params, step);
            let header = mine(prefix.last().unwrap().hash(), time, oracle(prefix, &params, time), salt as u8);
            let below = (prefix.len() - 1) < client.anchor().height as usize;
            match client.accept(&header, None) {
                Ok(Accepted::Extended) => chain.push(header),
                Ok(Accepted::Reorganised { common, .. }) => {
                    chain.truncate(common as usize + 1);
                    chain.push(header);
                }
                Ok(_) => prop_assert!(!below),
                Err(error) => prop_assert!(below && matches!(error, HeaderError::UnknownParent { .. }), "{}", error),
            }
            prop_assert!(client.tip().height - client.anchor().height <= keep);
            prop_assert_eq!(&LightClient::decode(&client.encode()).unwrap(), &client);
        }
    }
}

fn work(chain: &[Header]) -> Work {
    let of = |header: &Header| Target::from_compact(CompactTarget::from_consensus(header.bits)).to_work();
    chain.iter().map(of).reduce(|sum, work| sum + work).unwrap()
}

/// Number of leading headers that both have.
fn common(left: &[Header], right: &[Header]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

#[test]
fn a_short_branch_with_more_work_wins_over_a_long_one() {
    // The first period is fast, so the second is harder than the limit; late blocks have the limit again.
    let params = quick(Difficulty::RetargetOrLate);
    let mut client = quick_client(Difficulty::RetargetOrLate, DEEP);
    let mut chain = vec![quick_genesis()];
    for _ in 0..8 {
        let time = chain.last().unwrap().time + 1;
        let header = mine(chain.last().unwrap().hash(), time, oracle(&chain, &params, time), 0);
        client.accept(&header, None).unwrap();
        chain.push(header);
    }
    let real = chain.last().unwrap().bits;
    assert_ne!(real, params.limit_bits);
    let fork = chain.last().unwrap().hash();
    let (mut parent, mut time) = (fork, chain.last().unwrap().time);
    for _ in 0..3 {
        time += 9;
        let late = mine(parent, time, params.limit_bits, 1);
        assert_eq!(client.accept(&late, None), Ok(Accepted::Extended));
        parent = late.hash();
    }
    let heavy = mine(fork, chain.last().unwrap().time + 1, real, 2);
    let expected = Accepted::Reorganised { common: 8, undone: 3, broke_finality: true };
    assert_eq!(client.accept(&heavy, None), Ok(expected));
    assert_eq!((client.tip().hash, client.tip().height), (heavy.hash(), 9));
}

#[test]
fn times_and_versions_are_bound() {
    let params = quick(Difficulty::RetargetOrLateBip94);
    let mut client = quick_client(Difficulty::RetargetOrLateBip94, DEEP);
    let mut chain = vec![quick_genesis()];
    // Up to the last block of the period, whose time is far ahead of the median.
    for step in [1, 1, 1, 1, 1, 1, 2_000] {
        let time = chain.last().unwrap().time + step;
        let header = mine(chain.last().unwrap().hash(), time, oracle(&chain, &params, time), 0);
        client.accept(&header, None).unwrap();
        chain.push(header);
    }
    let (parent, last) = (chain[7].hash(), chain[7].time);
    let header = |time| mine(parent, time, oracle(&chain, &params, time), 0);
    let median = median(&chain);
    let old = header(median);
    let error = client.accept(&old, None).unwrap_err();
    assert_eq!(error, HeaderError::TimeTooOld { hash: old.hash(), time: median, median });
    let warp = header(last - 601);
    let error = client.accept(&warp, None).unwrap_err();
    assert_eq!(error, HeaderError::TimeWarp { hash: warp.hash(), time: last - 601, parent_time: last });
    let new = header(last + 5);
    let error = client.accept(&new, Some(last + 4)).unwrap_err();
    assert_eq!(error, HeaderError::TimeTooNew { hash: new.hash(), time: last + 5, time_max: last + 4 });
    let mut version = header(last);
    version.version = 3;
    version.nonce = 0;
    let target = assay_l1_light::pow::Target::from_bits(version.bits).unwrap();
    while !target.is_met_by(&version.hash()) {
        version.nonce += 1;
    }
    let error = client.accept(&version, None).unwrap_err();
    assert_eq!(error, HeaderError::Version { hash: version.hash(), version: 3, version_min: 4 });
    client.accept(&header(last - 600), None).unwrap();
    // Without BIP94 the same time is fine.
    let mut free = quick_client(Difficulty::RetargetOrLate, DEEP);
    for header in &chain[1..] {
        free.accept(header, None).unwrap();
    }
    free.accept(&warp, None).unwrap();
}

#[test]
fn damaged_states_are_refused_or_say_what_they_are() {
    let client = mainnet_client(3);
    let bytes = client.encode();
    let headers = bytes.len() - 3 * 84 - 4;
    for bit in 0..bytes.len() * 8 {
        let damaged = flip(&bytes, bit);
        match LightClient::decode(&damaged) {
            // Rules, depths and the anchor are believed: whoever hands a state out commits to all of it.
            Ok(other) => {
                assert!(bit / 8 < headers, "bit {bit} of the headers");
                assert_eq!(other.encode(), damaged, "bit {bit}");
                assert_ne!(other.commitment(), client.commitment());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    for len in 0..bytes.len() {
        assert!(LightClient::decode(&bytes[..len]).is_err());
    }
    assert_eq!(LightClient::decode(&[bytes.as_slice(), &[0]].concat()), Err(StateError::Length));
    let last = bytes[bytes.len() - 84..].to_vec();
    let mut twice = [bytes.as_slice(), &last].concat();
    twice[headers..headers + 4].copy_from_slice(&4u32.to_le_bytes());
    assert_eq!(LightClient::decode(&twice), Err(StateError::Field { field: "order of headers" }));
}

#[test]
fn depths_must_fit() {
    let genesis = BlockContext::genesis(&Network::Regtest.genesis()).unwrap();
    for (finality, keep) in [(0, 1), (7, 6), (6, 5_000)] {
        let got = LightClient::from_checkpoint(Params::REGTEST, Depths { finality, keep }, genesis);
        assert_eq!(got, Err(DepthsError { finality, keep }));
    }
}

#[test]
fn a_foreign_parent_is_unknown() {
    let mut client = mainnet_client(0);
    let header = mine(Hash([1; 32]), 5, 0x207f_ffff, 0);
    let expected = HeaderError::UnknownParent { hash: header.hash(), parent: Hash([1; 32]) };
    assert_eq!(client.accept(&header, None), Err(expected));
    // Its own target is met, but the network demands another.
    let easy = mine(client.tip().hash, 1_231_006_506, 0x207f_ffff, 0);
    assert!(matches!(client.accept(&easy, None), Err(HeaderError::Bits { .. })));
}
