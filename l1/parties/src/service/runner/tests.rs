//! The state file, with the states that simulated parties end in.

use assay_l1_fuzz::Target;
use bitcoin::hashes::Hash;
use bitcoin::BlockHash;

use super::*;
use crate::operator::Operator;
use crate::sim::{Attack, Fixture, Options, World as Simulated};
use crate::vigilante::Vigilante;

/// States of the parties after attacks that leave much in them.
fn states(parties: &[&str]) -> Vec<Vec<u8>> {
    let run = |attack| {
        let mut world = Simulated::new(Options::new(attack, 77), Fixture::shared());
        world.run().unwrap();
        world.states()
    };
    let all = [Attack::KilledMidAssert, Attack::Stopped].map(run).concat();
    let found = all.into_iter().filter(|(name, _)| parties.contains(name)).map(|(_, state)| state);
    found.collect()
}

fn file_of<M: Machine>(state: &[u8]) -> Vec<u8> {
    let hash = |byte| BlockHash::from_byte_array([byte; 32]);
    let follower = (9u32, VecDeque::from([hash(1), hash(2)]));
    let follower = bincode::deserialize(&bincode::serialize(&follower).unwrap()).unwrap();
    let machine: M = file::decode(state).unwrap();
    let stored = Stored {
        name: M::NAME.to_owned(),
        trunk_id: [7; 32],
        graphs: vec![[1; 32], [2; 32]],
        follower,
        machine,
    };
    bincode::serialize(&stored).unwrap()
}

/// Whatever is read of changed files is written as what is read again, and is a place in a chain or refused.
fn change<M: Machine>(name: &str, parties: &[&str]) {
    let corpus: Vec<Vec<u8>> = states(parties).iter().map(|state| file_of::<M>(state)).collect();
    assert!(corpus.len() >= 2);
    // A list begins with room for what it announces, 1 MiB at most; maps cost several times their bytes.
    Target::new(name, &corpus).cases(500).memory(8 << 20, 48).run(|bytes| {
        let Ok(stored) = file::decode::<Stored<M>>(bytes) else { return false };
        let written = bincode::serialize(&stored).unwrap();
        let again = bincode::serialize(&file::decode::<Stored<M>>(&written).unwrap()).unwrap();
        assert_eq!(again, written);
        if !stored.follower.is_valid() {
            return false;
        }
        let _ = stored.follower.depth();
        let _ = (stored.machine.view().tip(), stored.machine.sender());
        true
    });
}

#[test]
fn a_changed_state_of_an_operator_is_read_as_what_it_says_or_refused() {
    change::<Operator>("state-operator", &["operator", "backup"]);
}

#[test]
fn a_changed_state_of_a_vigilante_is_read_as_what_it_says_or_refused() {
    change::<Vigilante>("state-vigilante", &["vigilante 1", "backup's watch"]);
}

#[test]
fn a_place_in_the_chain_without_a_block_is_none() {
    let hashes = |count: usize| VecDeque::from(vec![BlockHash::all_zeros(); count]);
    let follower = |height: u32, count: usize| -> Follower {
        bincode::deserialize(&bincode::serialize(&(height, hashes(count))).unwrap()).unwrap()
    };
    assert!(follower(9, 1).is_valid() && follower(9, 10).is_valid());
    assert!(!follower(9, 0).is_valid(), "it stands on no block");
    assert!(!follower(9, 11).is_valid(), "more blocks than there are");
}
