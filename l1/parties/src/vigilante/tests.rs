//! Verdicts that are missing, and verdicts that a reorganisation makes doubtful.

use bitcoin::Transaction;

use super::*;
use crate::contract::Contract;
use crate::event::Block;
use crate::party::Keys;
use crate::sim::fixture::{honest, BACKUP, OPERATOR};
use crate::sim::{Fixture, LOCKS};
use crate::types::Values;

const EPOCH: EpochIndex = EpochIndex(0);
const START: Height = Height(100);

fn claim(claim: u32) -> ClaimId {
    ClaimId { epoch: EPOCH, claim }
}

/// A vigilante with a chain of its own.
struct Scene {
    contract: Contract,
    keys: Keys,
    machine: Vigilante,
    blocks: Vec<Vec<Arc<Transaction>>>,
}

impl Scene {
    /// The first epoch is open and the vigilante has coins.
    fn new() -> Self {
        let fixture = Fixture::shared();
        let mut scene = Self {
            contract: fixture.contract(),
            keys: Fixture::keys(1),
            machine: Vigilante::new(Fixture::wallet(1), 4, START, FeePolicy::REGTEST),
            blocks: Vec::new(),
        };
        let opening = scene.contract.epoch(EPOCH).unwrap().opening(&Fixture::keys(OPERATOR).operator, None);
        scene.block(vec![fixture.funding().clone(), opening.unwrap()]);
        scene
    }

    fn step(&mut self, event: &Event) -> Vec<Effect> {
        let context = Context { contract: &self.contract, keys: &self.keys };
        self.machine.step(context, event).unwrap()
    }

    fn connect(&mut self, txs: Vec<Arc<Transaction>>) -> Vec<Effect> {
        self.blocks.push(txs.clone());
        let height = self.machine.view().tip().plus(1);
        self.step(&Event::Connected(Block { height, txs }))
    }

    fn block(&mut self, txs: Vec<Transaction>) -> Vec<Effect> {
        self.connect(txs.into_iter().map(Arc::new).collect())
    }

    /// Empty blocks; what is done meanwhile.
    fn wait(&mut self, blocks: u32) -> Vec<Effect> {
        (0..blocks).flat_map(|_| self.connect(Vec::new())).collect()
    }

    fn undo(&mut self) -> Vec<Arc<Transaction>> {
        let height = self.machine.view().tip();
        assert!(self.step(&Event::Disconnected(height)).is_empty());
        self.blocks.pop().unwrap()
    }

    /// A claim of `party` in a block.
    fn claim(&mut self, party: usize, claim: ClaimId, values: &Values) -> Vec<Effect> {
        let epoch = self.contract.epoch(claim.epoch).unwrap();
        let number = epoch.spec().terms.epoch;
        let items = Fixture::shared().claim_items(party, number, claim.claim, values);
        let fill = Fill { leaf: leaf::CLAIM, items: items.as_ref().clone() };
        let role = TxRole::Claim(claim.claim);
        let tx = epoch.complete_as_operator(role, fill, &Fixture::keys(party).operator).unwrap();
        self.block(vec![tx])
    }

    fn honest(&mut self, number: u32) -> Vec<Effect> {
        let effects = self.claim(OPERATOR, claim(number), &honest(number));
        assert!(asks(&effects, claim(number)), "{effects:?}");
        effects
    }

    fn verdict(&mut self, number: u32, faults: &[Fault]) -> Vec<Effect> {
        let (claim, values) = (claim(number), honest(number));
        self.step(&Event::Verdict { claim, values, faults: faults.to_vec() })
    }

    /// True if the challenge of a claim is on its way.
    fn is_challenging(&self, claim: ClaimId) -> bool {
        self.machine.sender().has(claim.tx(TxRole::Challenge))
    }

    /// True if the challenge of a claim is sent.
    fn challenges(&self, effects: &[Effect], claim: ClaimId) -> bool {
        let id = claim.tx(TxRole::Challenge);
        effects.iter().any(|effect| match effect {
            Effect::Broadcast(package) => package.iter().any(|tx| self.contract.identify(tx).contains(&id)),
            _ => false,
        })
    }
}

fn asks(effects: &[Effect], claim: ClaimId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Check(asked, _) if *asked == claim))
}

fn alarms(effects: &[Effect], claim: ClaimId, fault: Fault) -> bool {
    effects.contains(&Effect::Alarm(Alarm::Faulty(claim, fault)))
}

fn undecided(effects: &[Effect], claim: ClaimId) -> bool {
    effects.contains(&Effect::Alarm(Alarm::Undecided(claim)))
}

fn period() -> u32 {
    u32::from(LOCKS.challenge_blocks)
}

#[test]
fn a_claim_after_one_whose_data_is_missing_is_challenged_from_half_of_its_period_on() {
    for (fault, is_lost) in [(Fault::DataMissing, true), (Fault::NewRoot, true), (Fault::Proof, false)] {
        let mut scene = Scene::new();
        scene.honest(0);
        scene.verdict(0, &[fault]);
        scene.honest(1);
        let early = scene.wait(period() / 2 - 1);
        assert!(!scene.challenges(&early, claim(1)) && !alarms(&early, claim(1), Fault::UnknownStart));
        let late = scene.wait(period() / 2);
        assert_eq!(scene.challenges(&late, claim(1)), is_lost, "{fault:?}");
        assert_eq!(alarms(&late, claim(1), Fault::UnknownStart), is_lost, "{fault:?}");
        assert_eq!(undecided(&late, claim(1)), !is_lost, "{fault:?}");
    }
}

#[test]
fn a_claim_without_a_proof_does_not_end_the_challenges_of_what_follows_withheld_data() {
    let mut scene = Scene::new();
    scene.honest(0);
    scene.verdict(0, &[Fault::DataMissing]);
    // It could not be executed, and is wrong all the same.
    scene.honest(1);
    scene.verdict(1, &[Fault::Proof]);
    scene.honest(2);
    let effects = scene.wait(period());
    assert!(scene.challenges(&effects, claim(2)) && !undecided(&effects, claim(2)), "{effects:?}");
}

#[test]
fn a_claim_whose_start_becomes_known_in_time_is_left_alone() {
    let mut scene = Scene::new();
    scene.honest(0);
    scene.verdict(0, &[Fault::DataMissing]);
    scene.honest(1);
    scene.honest(2);
    scene.wait(period() / 2 - 3);
    // The data came after all: too late for claim 0, but its state is known.
    let mut effects = scene.verdict(1, &[]);
    effects.extend(scene.wait(period()));
    assert!(!scene.challenges(&effects, claim(1)) && !undecided(&effects, claim(1)), "{effects:?}");
    assert!(!scene.challenges(&effects, claim(2)), "nor what follows, of which nothing is known yet");
    assert!(undecided(&effects, claim(2)));
}

#[test]
fn what_follows_a_slashed_claim_does_not_count_and_costs_no_challenge() {
    let mut scene = Scene::new();
    scene.honest(0);
    scene.verdict(0, &[Fault::DataMissing]);
    scene.honest(1);
    let epoch = scene.contract.epoch(EPOCH).unwrap();
    let fills = [Fill::bare(leaf::SLASH), Fill::bare(leaf::ASSERT_TIMEOUT)];
    let slash = epoch.complete(TxRole::AssertTimeout(0), &fills).unwrap();
    scene.block(vec![slash]);
    assert!(scene.machine.view().slash(EPOCH).is_some());
    let effects = scene.wait(period());
    assert!(!scene.challenges(&effects, claim(1)) && !alarms(&effects, claim(1), Fault::UnknownStart));
    // On a chain without the slash it does count.
    for _ in 0..=period() {
        scene.undo();
    }
    let effects = scene.wait(period());
    assert!(scene.challenges(&effects, claim(1)));
}

#[test]
fn the_first_claim_after_a_hand_over_is_not_challenged_for_what_was_withheld_before_it() {
    let mut scene = Scene::new();
    scene.honest(0);
    scene.verdict(0, &[Fault::DataMissing]);
    scene.honest(1);
    let end = claim(2);
    let next = Fixture::shared().handover(end, end).unwrap();
    let index = scene.contract.push(Arc::clone(&next));
    assert_eq!(scene.contract.origin(ClaimId { epoch: index, claim: 0 }), Some(Origin::Claim(claim(1))));
    let timeout = collected(scene.contract.epoch(EPOCH).unwrap(), TxRole::ClaimTimeout(2)).unwrap();
    scene.block(vec![timeout]);
    scene.block(vec![next.opening(&Fixture::keys(BACKUP).operator, None).unwrap()]);
    let first = ClaimId { epoch: index, claim: 0 };
    scene.claim(BACKUP, first, &honest(2));
    let effects = scene.wait(period());
    assert!(scene.challenges(&effects, claim(1)), "what came before it is");
    assert!(!scene.challenges(&effects, first) && undecided(&effects, first), "{effects:?}");
}

#[test]
fn a_verdict_is_asked_for_again_when_a_reorganisation_moves_the_claim_or_where_its_data_may_be() {
    let deep = DATA_PATIENCE_BLOCKS + 1;
    // Blocks that leave the chain, of those above the claim's; with the claim's own it moves one block up.
    for (undone, is_doubtful) in [(1, false), (2, true), (deep, true), (deep + 1, true)] {
        let mut scene = Scene::new();
        scene.honest(0);
        scene.wait(deep);
        scene.verdict(0, &[]);
        let moved = (0..undone).map(|_| scene.undo()).last().unwrap();
        let mut effects = Vec::new();
        if undone > deep {
            effects.extend(scene.wait(1));
            effects.extend(scene.connect(moved));
        }
        effects.extend(scene.wait(1));
        assert_eq!(asks(&effects, claim(0)), is_doubtful, "{undone} blocks");
        // The answer may be another one now, and counts.
        let effects = scene.verdict(0, &[Fault::DataMissing]);
        assert_eq!(scene.challenges(&effects, claim(0)), is_doubtful, "{undone} blocks");
    }
}

#[test]
fn blocks_that_are_read_again_leave_a_verdict_as_it_is() {
    let mut scene = Scene::new();
    scene.honest(0);
    scene.verdict(0, &[]);
    scene.wait(period() - 1);
    let mut blocks = Vec::new();
    for _ in 0..period() {
        let height = scene.machine.view().tip();
        assert!(scene.step(&Event::Rewound(height)).is_empty());
        blocks.push(scene.blocks.pop().unwrap());
    }
    assert!(scene.machine.view().values(claim(0)).is_none(), "the claim's block, too");
    for block in blocks.into_iter().rev() {
        let effects = scene.connect(block);
        assert!(!asks(&effects, claim(0)) && !undecided(&effects, claim(0)));
    }
}

#[test]
fn a_question_that_a_reorganisation_took_away_is_asked_again() {
    let mut scene = Scene::new();
    scene.honest(0);
    let block = scene.undo();
    scene.wait(1);
    let effects = scene.connect(block);
    assert!(asks(&effects, claim(0)), "{effects:?}");
}

#[test]
fn a_challenge_that_is_needed_is_not_lost_while_a_verdict_is_looked_into_again() {
    // The claim stays where it was: at once.
    let mut scene = Scene::new();
    scene.honest(0);
    scene.verdict(0, &[Fault::DataMissing]);
    scene.wait(1);
    scene.undo();
    let effects = scene.wait(1);
    assert!(asks(&effects, claim(0)) && scene.is_challenging(claim(0)), "{effects:?}");
    // It has moved, perhaps behind its data: its period begins anew, and the answer has half of it.
    let mut scene = Scene::new();
    scene.honest(0);
    scene.verdict(0, &[Fault::DataMissing]);
    let block = scene.undo();
    scene.wait(1);
    let effects = scene.connect(block);
    assert!(asks(&effects, claim(0)) && !scene.is_challenging(claim(0)), "{effects:?}");
    scene.wait(period() / 2 - 1);
    assert!(!scene.is_challenging(claim(0)));
    scene.wait(1);
    assert!(scene.is_challenging(claim(0)));
    // And what is right now is left alone.
    scene.verdict(0, &[]);
    assert!(!scene.is_challenging(claim(0)));
}
