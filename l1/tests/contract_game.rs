//! The contract on Core's consensus code: every way through the game is mined, every way around it is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/chain.rs"]
mod chain;
#[path = "common/contract.rs"]
mod contract;

use assay_l1::graph::connector::LeafSpend;
use assay_l1::graph::contract::build::{leaf, Graph, Input, TxRole};
use assay_l1::graph::contract::keys::{AssertValue, EpochKeys};
use assay_l1::graph::contract::scripts::verifier_leaf;
use assay_l1::graph::contract::sign::{operator_item, sign_funding, witness};
use assay_l1::graph::contract::spec::ContractSpec;
use assay_l1::{BackendError, OperatorSecret, TimeLocks};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid};
use chain::{open_script, open_witness, spend, Harness, InProcess};
use contract::{
    asserted, backup_secret, claim_values, epoch, epoch_of, graph, items, items_of, named, named_in,
    operator, secret, signer, values_between, with_digest, EqualEnds, CODE, LOCKS,
};

const LATER: [u8; 32] = [0xaa; 32];

/// A chain with two epochs that are fixed, of which none is open.
struct World {
    harness: InProcess,
    epochs: [(EpochKeys, ContractSpec); 2],
    graphs: [Graph; 2],
    /// The operator of each epoch.
    secrets: [OperatorSecret; 2],
}

impl World {
    fn new() -> Self {
        let harness = InProcess::new();
        harness.backend().miner().unwrap().mine(140, &open_script()).unwrap();
        // The second epoch's coin is worth less by the connector that it takes over; values do not depend on the outpoint.
        let nowhere = |byte| OutPoint::new(Txid::from_byte_array([byte; 32]), 0);
        let later = epoch(1, nowhere(2));
        let sample = graph(&epoch(0, nowhere(1)), None, later.1.id()).unwrap();
        let coins = [contract::coin(&later.1, None), contract::coin(&later.1, Some(sample.end()))];
        let outpoints = coins.map(|coin| fund(&harness, coin));
        let second = epoch(1, outpoints[1]);
        let first = epoch(0, outpoints[0]);
        let opened = graph(&first, None, second.1.id()).unwrap();
        let next = graph(&second, Some(opened.end()), LATER).unwrap();
        Self { harness, epochs: [first, second], graphs: [opened, next], secrets: [secret(), secret()] }
    }

    /// The second epoch is not the announced one: another operator's, after `ClaimTimeout(claim)`, with `valid` claims that
    /// count. The timeout itself is not mined yet.
    fn taken_over(mut self, claim: u32, valid: u32) -> Self {
        let halted = self.graphs[0].halted(claim, valid).unwrap();
        let secret = backup_secret();
        let nowhere = OutPoint::new(Txid::from_byte_array([2; 32]), 0);
        let coin = contract::coin(&epoch_of(&secret, 1, nowhere).1, Some(&halted));
        let outpoint = fund(&self.harness, coin);
        self.epochs[1] = epoch_of(&secret, 1, outpoint);
        self.graphs[1] = graph(&self.epochs[1], Some(&halted), LATER).unwrap();
        self.secrets[1] = secret;
        self
    }

    /// The first epoch is open, and `claims` claims are made.
    fn with_claims(claims: u32) -> Self {
        let world = Self::new();
        world.open(0);
        for claim in 0..claims {
            world.claim(claim, &claim_values(claim));
        }
        world
    }

    fn mine(&self, tx: &Transaction) -> Result<bitcoin::BlockHash, BackendError> {
        self.harness.backend().miner().unwrap().mine_exactly(std::slice::from_ref(tx), &open_script())
    }

    fn pass(&self, blocks: u16) {
        if blocks > 0 {
            self.harness.backend().miner().unwrap().mine(u32::from(blocks), &open_script()).unwrap();
        }
    }

    fn accepted(&self, tx: &Transaction) {
        self.mine(tx).unwrap();
    }

    fn refused(&self, tx: &Transaction, part: &str) {
        match self.mine(tx) {
            Err(BackendError::BlockRejected { reason }) => assert!(reason.contains(part), "{reason}"),
            other => panic!("expected a refusal with {part}, got {other:?}"),
        }
    }

    /// The leaf's script, also where the graph keeps only its hash.
    fn spend_of(&self, epoch: usize, role: TxRole, input: usize, index: usize) -> LeafSpend {
        let graph = &self.graphs[epoch];
        graph.leaf(role, input, index).unwrap_or_else(|| {
            let Input::Contract { output, .. } = &graph.node(role).unwrap().inputs[input] else {
                panic!("a contract input")
            };
            let TxRole::Disprove(claim) = role else { panic!("only disproofs are hidden") };
            let (keys, spec) = &self.epochs[epoch];
            let script = verifier_leaf(spec, &keys.0[claim as usize], &EqualEnds, 0);
            output.hidden_leaf(index, script).unwrap()
        })
    }

    /// The transaction with `attesters`' signatures; per input the leaf and the items under the signature.
    fn complete(&self, role: TxRole, inputs: &[(usize, Vec<Vec<u8>>)]) -> Transaction {
        self.complete_in(0, role, inputs)
    }

    fn complete_in(&self, epoch: usize, role: TxRole, inputs: &[(usize, Vec<Vec<u8>>)]) -> Transaction {
        let graph = &self.graphs[epoch];
        let mut tx = graph.node(role).unwrap().tx.clone();
        for (input, (index, items)) in inputs.iter().enumerate() {
            let request = graph.request(role, input, *index).unwrap();
            let signature = request.item(&request.sign(&signer(&request)));
            let spend = self.spend_of(epoch, role, input, *index);
            tx.input[input].witness = witness(items, signature, &spend);
        }
        tx
    }

    /// Items with the operator's signature on top.
    fn operated(&self, role: TxRole, index: usize, items: Vec<Vec<u8>>) -> Vec<(usize, Vec<Vec<u8>>)> {
        self.operated_in(0, role, index, items)
    }

    fn operated_in(
        &self,
        epoch: usize,
        role: TxRole,
        index: usize,
        mut items: Vec<Vec<u8>>,
    ) -> Vec<(usize, Vec<Vec<u8>>)> {
        let node = self.graphs[epoch].node(role).unwrap();
        let key = operator(&self.secrets[epoch]);
        items.push(operator_item(node, 0, &self.spend_of(epoch, role, 0, index), &key));
        vec![(index, items)]
    }

    /// A slash with a reward for its sender, who pays the fee of 50,000 sat.
    fn slash(&self, role: TxRole, index: usize, items: Vec<Vec<u8>>) -> Transaction {
        self.slash_in(0, role, index, items)
    }

    fn slash_in(&self, epoch: usize, role: TxRole, index: usize, items: Vec<Vec<u8>>) -> Transaction {
        let mut tx = self.complete_in(epoch, role, &[(leaf::SLASH, Vec::new()), (index, items)]);
        tx.output.push(TxOut { value: Amount::from_sat(550_000), script_pubkey: open_script() });
        tx
    }

    fn reconfiguration(&self, number: usize) -> Transaction {
        let graph = &self.graphs[number];
        let node = graph.node(TxRole::Reconfiguration).unwrap();
        let mut tx = node.tx.clone();
        if number > 0 {
            let request = graph.request(TxRole::Reconfiguration, 0, leaf::CLAIM).unwrap();
            let spend = graph.leaf(TxRole::Reconfiguration, 0, leaf::CLAIM).unwrap();
            // The operator of the epoch before has no say in a hand-over.
            let handed_over = self.epochs[0].1.terms.operator_key != self.epochs[1].1.terms.operator_key;
            let signed = operator_item(node, 0, &spend, &operator(&self.secrets[0]));
            let items = if handed_over { Vec::new() } else { vec![signed] };
            tx.input[0].witness = witness(&items, request.item(&request.sign(&signer(&request))), &spend);
        }
        sign_funding(&mut tx, &node.spent(), &operator(&self.secrets[number]));
        tx
    }

    fn open(&self, number: usize) {
        self.accepted(&self.reconfiguration(number));
    }

    fn claim_tx(&self, claim: u32, values: &[[u8; 32]; 5]) -> Transaction {
        self.claim_tx_in(0, claim, values)
    }

    fn claim_tx_in(&self, epoch: usize, claim: u32, values: &[[u8; 32]; 5]) -> Transaction {
        let role = TxRole::Claim(claim);
        let items = items_of(&self.secrets[epoch], &named_in(epoch as u32, claim, values));
        self.complete_in(epoch, role, &self.operated_in(epoch, role, leaf::CLAIM, items))
    }

    /// ClaimTimeout of epoch 0, before claim `claim`.
    fn halt(&self, claim: u32) {
        self.pass(LOCKS.claim_timeout_blocks - 1);
        let role = TxRole::ClaimTimeout(claim);
        self.accepted(&self.complete(role, &[(leaf::CLAIM_TIMEOUT, Vec::new())]));
    }

    /// The second epoch is open, and claim 0 of it is made.
    fn claim_later(&self, values: &[[u8; 32]; 5]) {
        self.pass(1);
        self.accepted(&self.claim_tx_in(1, 0, values));
    }

    /// Slash of the second epoch's claim 0 for not starting at the new root of epoch 0's claim `before`.
    fn link_slash(
        &self,
        role: TxRole,
        first: usize,
        values: &[[u8; 32]; 5],
        (before, signed): (u32, &[[u8; 32]; 5]),
    ) -> Transaction {
        let own = items_of(&self.secrets[1], &named_in(1, 0, values)[..1]);
        let other = items_of(&self.secrets[0], &named_in(0, before, signed)[1..2]);
        // The previous root's items are on top.
        self.slash_in(1, role, first + 1, [other, own].concat())
    }

    fn claim(&self, claim: u32, values: &[[u8; 32]; 5]) {
        self.pass(1);
        self.accepted(&self.claim_tx(claim, values));
    }

    fn optimistic(&self, claim: u32) -> Transaction {
        let leaves = [(leaf::UNCHALLENGED, Vec::new()), (leaf::OPTIMISTIC, Vec::new())];
        self.complete(TxRole::OptimisticAcceptance(claim), &leaves)
    }

    /// Somebody pays the deposit with a coin of its own and takes change.
    fn challenge(&self, claim: u32) -> Transaction {
        let mut tx = self.complete(TxRole::Challenge(claim), &[(leaf::CHALLENGE, Vec::new())]);
        let coin = self.open_coin();
        tx.input.push(TxIn {
            previous_output: coin.0,
            sequence: Sequence::MAX,
            witness: open_witness(),
            ..TxIn::default()
        });
        let change = coin.1 - Amount::from_sat(30_000);
        tx.output.push(TxOut { value: change, script_pubkey: open_script() });
        tx
    }

    fn open_coin(&self) -> (OutPoint, Amount) {
        open_coin(&self.harness)
    }

    fn assert(&self, claim: u32) {
        let role = TxRole::Assert(claim);
        self.accepted(&self.complete(role, &self.operated(role, leaf::ASSERT, Vec::new())));
    }

    /// The items of slot `slot` for an assertion all of whose hashes are `[0x11; 16]`, the last one `last`.
    fn slot_items(&self, claim: u32, slot: u16, last: u8) -> Vec<Vec<u8>> {
        let layout = &self.epochs[0].1.layout.slots()[usize::from(slot)];
        let words = layout.words.clone().map(|index| asserted(claim, AssertValue::Word(index), 0x22));
        let hashes = layout
            .hashes
            .clone()
            .map(|index| asserted(claim, AssertValue::Hash(index), if index == 12 { last } else { 0x11 }));
        items(&words.chain(hashes).collect::<Vec<_>>())
    }

    fn fill(&self, claim: u32, slot: u16, last: u8) {
        let role = TxRole::AssertSlot(claim, slot);
        let operated = self.operated(role, leaf::SLOT, self.slot_items(claim, slot, last));
        self.accepted(&self.complete(role, &operated));
    }

    /// Challenge of claim 0 and its whole assertion.
    fn disputed(last: u8) -> Self {
        let world = Self::with_claims(1);
        world.accepted(&world.challenge(0));
        world.assert(0);
        for slot in 0..3 {
            world.fill(0, slot, last);
        }
        world
    }

    fn acceptance(&self, claim: u32) -> Transaction {
        let leaves = vec![(leaf::ACCEPT, Vec::new()); 4];
        self.complete(TxRole::Acceptance(claim), &leaves)
    }

    /// Witness of the verifier's leaf for an assertion that ends with `last`.
    fn step_items(&self, claim: u32, last: u8) -> Vec<Vec<u8>> {
        items(&[asserted(claim, AssertValue::Hash(0), 0x11), asserted(claim, AssertValue::Hash(12), last)])
    }
}

fn open_coin(harness: &InProcess) -> (OutPoint, Amount) {
    let backend = harness.backend();
    let next = backend.tip().unwrap().height + 1;
    let coins = backend.utxos(&open_script()).unwrap();
    let coin = coins.iter().find(|coin| coin.coinbase && next - coin.height >= 100).unwrap();
    (coin.outpoint, coin.txout.value)
}

fn fund(harness: &InProcess, coin: TxOut) -> OutPoint {
    let (from, value) = open_coin(harness);
    let mut tx = spend(from, value, Sequence::MAX);
    tx.output = vec![coin];
    harness.backend().miner().unwrap().mine_exactly(&[tx.clone()], &open_script()).unwrap();
    OutPoint::new(tx.compute_txid(), 0)
}

#[test]
fn two_epochs_without_a_dispute_pay_everything_back() {
    let world = World::with_claims(3);
    world.pass(LOCKS.challenge_blocks);
    for claim in 0..3 {
        world.accepted(&world.optimistic(claim));
    }
    // The next epoch takes the last connector over, and the state.
    world.open(1);
    let values = values_between(3, 4);
    world.claim_later(&values);
    let input = world.slash_in(
        1,
        TxRole::DisproveInput(0),
        leaf::GAME_DISPROOFS,
        items_of(&secret(), &named_in(1, 0, &values)),
    );
    world.refused(&input, "OP_VERIFY");
    let end = (2, &claim_values(2));
    let link = world.link_slash(TxRole::DisproveInput(0), leaf::GAME_DISPROOFS, &values, end);
    world.refused(&link, "OP_VERIFY");
    let TimeLocks { collateral_blocks, .. } = world.epochs[0].1.terms.locks;
    let pay_out = world.complete(TxRole::PayOut, &[(leaf::PAY_OUT, Vec::new())]);
    world.refused(&pay_out, "nonfinal");
    world.pass(collateral_blocks);
    world.accepted(&pay_out);
    assert_eq!(pay_out.output[0].value, contract::COLLATERAL);
}

#[test]
fn a_claim_needs_the_attesters_the_operator_its_time_and_its_values() {
    let world = World::with_claims(0);
    let good = world.claim_tx(0, &claim_values(0));
    world.refused(&good, "nonfinal");
    world.pass(1);
    let items = |tx: &Transaction| tx.input[0].witness.iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
    // From the top: control block, script, attesters, operator, the values.
    let count = items(&good).len();
    for below_top in [2, 3] {
        let mut tx = good.clone();
        let mut witness = items(&good);
        witness[count - 1 - below_top][5] ^= 1;
        tx.input[0].witness = bitcoin::Witness::from_slice(&witness);
        world.refused(&tx, "Invalid Schnorr signature");
    }
    let mut stolen = good.clone();
    stolen.output[2].script_pubkey = open_script();
    world.refused(&stolen, "Invalid Schnorr signature");
    for index in [0, 3] {
        let mut values = claim_values(0);
        values[index][9] ^= 1;
        world.refused(&world.claim_tx(0, &values), "OP_NUMEQUALVERIFY");
    }
    world.accepted(&good);
}

#[test]
fn a_claim_is_not_accepted_before_its_time_nor_after_a_challenge() {
    let world = World::with_claims(1);
    let optimistic = world.optimistic(0);
    world.pass(LOCKS.challenge_blocks - 2);
    world.refused(&optimistic, "nonfinal");
    let challenge = world.challenge(0);
    let mut cheap = challenge.clone();
    cheap.output[0].value -= Amount::from_sat(1);
    world.refused(&cheap, "Invalid Schnorr signature");
    world.accepted(&challenge);
    world.refused(&optimistic, "missingorspent");
}

#[test]
fn a_whole_assertion_is_accepted_after_its_period() {
    let world = World::disputed(0x11);
    let acceptance = world.acceptance(0);
    world.pass(LOCKS.disprove_blocks - 2);
    world.refused(&acceptance, "nonfinal");
    world.pass(1);
    world.accepted(&acceptance);
}

#[test]
fn the_operator_alone_opens_and_fills_an_assertion() {
    let world = World::with_claims(1);
    world.accepted(&world.challenge(0));
    let stranger = world.complete(TxRole::Assert(0), &[(leaf::ASSERT, vec![Vec::new()])]);
    world.refused(&stranger, "Script");
    world.assert(0);
    let mut wrong = world.slot_items(0, 1, 0x11);
    wrong[0][3] ^= 1;
    let role = TxRole::AssertSlot(0, 1);
    let tx = world.complete(role, &world.operated(role, leaf::SLOT, wrong));
    world.refused(&tx, "OP_EQUALVERIFY");
}

#[test]
fn a_step_that_is_wrong_costs_the_collateral_and_a_right_one_does_not() {
    let index = leaf::DISPUTE_DISPROOFS + 1;
    let world = World::disputed(0x12);
    let slash = world.slash(TxRole::Disprove(0), index, world.step_items(0, 0x12));
    // Sending it without the collateral, or for another sink, would save the operator's money.
    let mut alone = slash.clone();
    alone.input.remove(0);
    alone.output = vec![TxOut { value: Amount::from_sat(300), script_pubkey: open_script() }];
    world.refused(&alone, "Invalid Schnorr signature");
    let mut diverted = slash.clone();
    diverted.output[0].script_pubkey = open_script();
    world.refused(&diverted, "Invalid Schnorr signature");
    world.accepted(&slash);
    world.pass(LOCKS.disprove_blocks);
    world.refused(&world.acceptance(0), "missingorspent");

    let honest = World::disputed(0x11);
    let slash = honest.slash(TxRole::Disprove(0), index, honest.step_items(0, 0x11));
    honest.refused(&slash, "OP_VERIFY");
}

#[test]
fn a_claim_whose_digest_is_not_of_its_values_is_disproved_at_once() {
    for (wrong, refusal) in [(None, Some("OP_VERIFY")), (Some((0, 31)), None), (Some((0, 0)), None)] {
        let world = World::with_claims(0);
        let mut values = claim_values(0);
        if let Some((_, byte)) = wrong {
            // In the first byte a bit that the digest must not have.
            values[4][byte] ^= 0x80;
        }
        world.claim(0, &values);
        let slash = world.slash(TxRole::DisproveInput(0), leaf::GAME_DISPROOFS, items(&named(0, &values)));
        match refusal {
            Some(part) => world.refused(&slash, part),
            None => world.accepted(&slash),
        }
    }
}

#[test]
fn opening_an_assertion_does_not_save_a_wrong_digest() {
    let mut values = claim_values(0);
    values[4][7] ^= 1;
    let world = World::with_claims(0);
    world.claim(0, &values);
    world.assert(0);
    let evidence = items(&named(0, &values));
    let early = world.slash(TxRole::DisproveInput(0), leaf::GAME_DISPROOFS, evidence.clone());
    world.refused(&early, "missingorspent");
    world.accepted(&world.slash(TxRole::Disprove(0), leaf::DISPUTE_DISPROOFS, evidence));
}

#[test]
fn a_claim_that_does_not_follow_the_one_before_is_disproved() {
    for honest in [true, false] {
        let world = World::with_claims(1);
        let mut values = claim_values(1);
        if !honest {
            // Skips a batch: the digest is right for these values.
            values = with_digest([contract::state(2), values[1], values[2], CODE, [0; 32]]);
        }
        world.claim(1, &values);
        let before = named(0, &claim_values(0));
        let evidence = items(&[named(1, &values)[0].clone(), before[1].clone()]);
        let input = world.slash(TxRole::DisproveInput(1), leaf::GAME_DISPROOFS, items(&named(1, &values)));
        world.refused(&input, "OP_VERIFY");
        let link = world.slash(TxRole::DisproveInput(1), leaf::GAME_DISPROOFS + 1, evidence);
        if honest {
            world.refused(&link, "OP_VERIFY");
        } else {
            world.accepted(&link);
        }
    }
}

#[test]
fn an_epoch_that_does_not_start_where_the_last_one_ended_is_disproved() {
    let end = claim_values(2);
    // At the first epoch's own start, one claim too early, at a state of its own: the digest is right.
    for from in [0, 2, 77] {
        let world = World::with_claims(3);
        world.pass(1);
        world.open(1);
        let values = values_between(from, 4);
        world.claim_later(&values);
        let other = claim_values(1);
        let beside = world.link_slash(TxRole::DisproveInput(0), leaf::GAME_DISPROOFS, &values, (1, &other));
        world.refused(&beside, "OP_EQUALVERIFY");
        let link = world.link_slash(TxRole::DisproveInput(0), leaf::GAME_DISPROOFS, &values, (2, &end));
        if from != 77 {
            world.accepted(&link);
            continue;
        }
        // Opening an assertion does not help.
        let role = TxRole::Assert(0);
        world.accepted(&world.complete_in(1, role, &world.operated_in(1, role, leaf::ASSERT, Vec::new())));
        world.refused(&link, "missingorspent");
        world.accepted(&world.link_slash(TxRole::Disprove(0), leaf::DISPUTE_DISPROOFS, &values, (2, &end)));
    }
}

#[test]
fn another_operator_takes_a_stopped_trunk_over_where_it_stopped() {
    for honest in [true, false] {
        let world = World::with_claims(2).taken_over(2, 2);
        world.halt(2);
        let opening = world.reconfiguration(1);
        world.pass(LOCKS.handover_blocks - 2);
        world.refused(&opening, "nonfinal");
        world.pass(1);
        let mut stolen = opening.clone();
        stolen.output[1].script_pubkey = open_script();
        world.refused(&stolen, "Invalid Schnorr signature");
        world.accepted(&opening);
        let values = if honest { values_between(2, 3) } else { values_between(1, 3) };
        world.claim_later(&values);
        let end = claim_values(1);
        let link = world.link_slash(TxRole::DisproveInput(0), leaf::GAME_DISPROOFS, &values, (1, &end));
        if honest {
            world.refused(&link, "OP_VERIFY");
        } else {
            world.accepted(&link);
        }
    }
}

#[test]
fn a_trunk_taken_over_before_any_claim_starts_at_its_own_start() {
    let world = World::with_claims(0).taken_over(0, 0);
    world.halt(0);
    world.pass(LOCKS.handover_blocks - 1);
    world.open(1);
    world.pass(1);
    world.refused(&world.claim_tx_in(1, 0, &values_between(1, 2)), "OP_NUMEQUALVERIFY");
    world.accepted(&world.claim_tx_in(1, 0, &values_between(0, 1)));
}

#[test]
fn after_a_slash_the_next_operator_goes_on_where_the_last_good_claim_ended() {
    let world = World::with_claims(1).taken_over(2, 1);
    let values = with_digest([contract::state(7), contract::state(8), [9; 32], CODE, [0; 32]]);
    world.claim(1, &values);
    let evidence = items(&[named(1, &values)[0].clone(), named(0, &claim_values(0))[1].clone()]);
    world.accepted(&world.slash(TxRole::DisproveInput(1), leaf::GAME_DISPROOFS + 1, evidence));
    world.halt(2);
    world.pass(LOCKS.handover_blocks - 1);
    world.open(1);
    // The same transactions with the forged claim's end: it is not what the graph links to.
    let forged = values_between(8, 9);
    world.claim_later(&forged);
    let end = claim_values(0);
    let link = world.link_slash(TxRole::DisproveInput(0), leaf::GAME_DISPROOFS, &forged, (0, &end));
    world.accepted(&link);
}

#[test]
fn no_assertion_in_time_costs_the_collateral() {
    let world = World::with_claims(1);
    world.accepted(&world.challenge(0));
    let slash = world.slash(TxRole::AssertTimeout(0), leaf::ASSERT_TIMEOUT, Vec::new());
    // The challenge took one block of the period.
    world.pass(LOCKS.challenge_blocks + LOCKS.assert_blocks - 3);
    world.refused(&slash, "nonfinal");
    world.pass(1);
    world.accepted(&slash);
}

#[test]
fn a_slot_left_empty_costs_the_collateral() {
    let world = World::with_claims(1);
    world.accepted(&world.challenge(0));
    world.assert(0);
    world.fill(0, 0, 0x11);
    let slash = |slot| world.slash(TxRole::SlotTimeout(0, slot), leaf::SLOT_TIMEOUT, Vec::new());
    world.pass(LOCKS.assert_blocks - 3);
    world.refused(&slash(1), "nonfinal");
    world.pass(1);
    world.refused(&slash(0), "missingorspent");
    world.accepted(&slash(1));
    world.refused(&slash(2), "missingorspent");
}

#[test]
fn a_trunk_whose_operator_stopped_is_ended_by_anyone() {
    let world = World::with_claims(1);
    let timeout = world.complete(TxRole::ClaimTimeout(1), &[(leaf::CLAIM_TIMEOUT, Vec::new())]);
    world.pass(LOCKS.claim_timeout_blocks - 2);
    world.refused(&timeout, "nonfinal");
    world.pass(1);
    world.accepted(&timeout);
    world.pass(1);
    world.refused(&world.claim_tx(1, &claim_values(1)), "missingorspent");
}

#[test]
fn what_nobody_spends_belongs_to_the_sink_after_its_lock() {
    use assay_l1::graph::transactions::reclaim;
    let world = World::with_claims(1);
    let node = world.graphs[0].node(TxRole::Claim(0)).unwrap();
    let accepted = world.graphs[0].node(TxRole::OptimisticAcceptance(0)).unwrap();
    let Input::Contract { output, .. } = &accepted.inputs[1] else { panic!("a contract input") };
    let spend = output.leaf(contract::last_leaf(output)).unwrap();
    let outpoint = OutPoint::new(node.tx.compute_txid(), 2);
    let rate = bitcoin::FeeRate::BROADCAST_MIN;
    let tx = reclaim((outpoint, &spend), LOCKS.sink_blocks, open_script(), rate, &contract::sink()).unwrap();
    world.pass(LOCKS.sink_blocks - 2);
    world.refused(&tx, "nonfinal");
    world.pass(1);
    world.accepted(&tx);
}

#[test]
fn every_presigned_transaction_keeps_its_value_and_its_policy() {
    let world = World::new();
    for graph in &world.graphs {
        for (role, node) in graph.nodes() {
            let into: Amount = node.spent().iter().map(|output| output.value).sum();
            let out: Amount = node.tx.output.iter().map(|output| output.value).sum();
            let slash = matches!(
                role,
                TxRole::AssertTimeout(_)
                    | TxRole::SlotTimeout(..)
                    | TxRole::DisproveInput(_)
                    | TxRole::Disprove(_)
            );
            match (node.tx.version.0, role) {
                (3, _) => assert_eq!(into, out, "{role} pays no fee: its anchor's child does"),
                (2, TxRole::Challenge(_)) => assert!(out > into, "{role} needs a deposit"),
                (2, _) => assert!(slash && out < into, "{role} leaves a reward"),
                other => panic!("{other:?}"),
            }
            let dust = node.tx.output.iter().filter(|output| {
                !output.script_pubkey.is_op_return() && output.value < Amount::from_sat(330)
            });
            assert!(dust.count() <= 1, "{role} has one dust output at most");
        }
    }
}

#[test]
fn sizes_are_pinned() {
    let world = World::with_claims(2);
    let none = Vec::new;
    let of = |role, index, items| world.complete(role, &world.operated(role, index, items)).vsize();
    let wrong = items(&named(1, &claim_values(1)));
    let link = items(&[named(1, &claim_values(1))[0].clone(), named(0, &claim_values(0))[1].clone()]);
    let slash = |role, index, items| world.slash(role, index, items).vsize();
    let table = [
        ("Claim", of(TxRole::Claim(1), leaf::CLAIM, items(&named(1, &claim_values(1))))),
        ("OptimisticAcceptance", world.optimistic(1).vsize()),
        ("Challenge", world.challenge(1).vsize()),
        ("ClaimTimeout", world.complete(TxRole::ClaimTimeout(1), &[(leaf::CLAIM_TIMEOUT, none())]).vsize()),
        ("Assert, 3 slots", of(TxRole::Assert(1), leaf::ASSERT, none())),
        ("AssertSlot, 1 word", of(TxRole::AssertSlot(1, 0), leaf::SLOT, world.slot_items(1, 0, 0x11))),
        ("AssertSlot, 11 hashes", of(TxRole::AssertSlot(1, 1), leaf::SLOT, world.slot_items(1, 1, 0x11))),
        ("AssertTimeout", slash(TxRole::AssertTimeout(1), leaf::ASSERT_TIMEOUT, none())),
        ("SlotTimeout", slash(TxRole::SlotTimeout(1, 1), leaf::SLOT_TIMEOUT, none())),
        ("DisproveInput, digest", slash(TxRole::DisproveInput(1), leaf::GAME_DISPROOFS, wrong)),
        ("DisproveInput, link", slash(TxRole::DisproveInput(1), leaf::GAME_DISPROOFS + 1, link)),
        ("Acceptance, 3 slots", world.acceptance(1).vsize()),
        ("PayOut", world.complete(TxRole::PayOut, &[(leaf::PAY_OUT, none())]).vsize()),
    ];
    let pinned = [8_132, 257, 230, 158, 319, 1_753, 9_220, 280, 280, 44_758, 3_583, 417, 159];
    assert_eq!(table.map(|(_, vsize)| vsize), pinned, "{table:?}");
    assert_eq!([0, 1].map(|number| world.reconfiguration(number).vsize()), [247, 364]);
    // Standard sizes: version 3 below 10,000 vB, all below 100,000 vB (400,000 weight units).
    assert!(table.iter().all(|(_, vsize)| *vsize < 100_000));
}

#[test]
fn the_largest_leaf_stays_within_the_stack_and_our_interpreter_follows_it() {
    use assay_l1::script::interpreter::{run, Fault, Spend};
    let world = World::with_claims(1);
    for (flip, expected) in [(0u8, None), (1, Some(()))] {
        let mut values = claim_values(0);
        values[4][20] ^= flip;
        let role = TxRole::DisproveInput(0);
        let tx = world.slash(role, leaf::GAME_DISPROOFS, items(&named(0, &values)));
        let spend = world.spend_of(0, role, 1, leaf::GAME_DISPROOFS);
        let spent = world.graphs[0].node(role).unwrap().spent();
        let mut stack: Vec<Vec<u8>> = tx.input[1].witness.iter().map(<[u8]>::to_vec).collect();
        stack.truncate(stack.len() - 2);
        let at = Spend { tx: &tx, input: 1, spent: &spent, leaf: spend.leaf_hash() };
        let outcome = run(&spend.script, stack, at);
        assert_eq!(assay_l1::verify_transaction(&tx, &spent).is_ok(), expected.is_some());
        match (outcome, expected) {
            (Ok(summary), Some(())) => assert_eq!((summary.places_max, spend.script.len()), (819, 170_252)),
            // A right digest: stopped at the very last check.
            (Err(error), None) => assert_eq!(error.fault, Fault::Verify),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_picture_names_every_kind_of_transaction_and_its_edges() {
    let world = World::new();
    let picture = world.graphs[1].dot();
    for part in [
        "digraph contract {",
        "\"epoch before\" -> \"Reconfiguration\"",
        "\"operator's coin\" -> \"Reconfiguration\"",
        "\"Reconfiguration\" -> \"Claim(0)\" [label=\"0: ",
        "\"Claim(0)\" -> \"Claim(1)\"",
        "\"Claim(2)\" -> \"ClaimTimeout(3)\"",
        "\"Claim(1)\" -> \"Challenge(1)\"",
        "\"Assert(1)\" -> \"AssertSlot(1, 0)\"",
        "AssertSlot 1, 3 of them",
        "\"AssertSlot(1, 0)\" -> \"Acceptance(1)\"",
        "\"Reconfiguration\" -> \"Disprove(2)\"",
        "\"Reconfiguration\" -> \"PayOut\"",
        "after 10 blocks",
    ] {
        assert!(picture.contains(part), "{part} in\n{picture}");
    }
    assert_eq!(picture.matches('{').count(), picture.matches('}').count());
    assert_eq!(picture, world.graphs[1].dot(), "the same bytes each time");
}
