//! What all machines share: the view of the chain, the sender, and alarms that are raised once.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bitcoin::key::Keypair;
use bitcoin::ScriptBuf;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::event::{Alarm, Effect, Event};
use crate::fees::FeePolicy;
use crate::sender::{Draft, Sender, Want};
use crate::types::{ContractTx, Height};
use crate::view::{remembered_max, View};

/// What a machine is run with, and what never changes but by new epochs. Not part of its state.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The contract.
    pub contract: &'a Contract,
    /// The party's keys.
    pub keys: &'a Keys,
}

/// Keys of a party.
pub struct Keys {
    /// Signs claims, assertions and openings. A vigilante's is never used; a backup's only tells which epochs are its own.
    pub operator: Keypair,
    /// Holds the coins that pay fees. Not the operator's, whose coins pay for epochs and must not be spent on fees.
    pub wallet: Keypair,
}

/// An event that does not fit the state; nothing has changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepError {
    /// Blocks come one after the other.
    #[error("expected a block at height {expected}, got {got}")]
    Height {
        /// The height that was due.
        expected: Height,
        /// The block's.
        got: Height,
    },
}

/// A finality for which the state has forgotten too much; nothing has changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
#[error("a finality of {wanted} blocks is more than the state remembers, which allows {most}")]
pub struct FinalityError {
    /// What was asked for, in blocks.
    pub wanted: u32,
    /// What can be asked for. With a finality of as many blocks, one more with each that is connected, up to twice as many.
    pub most: u32,
}

/// A machine, as its shells see it: what they step and store.
pub trait Machine: Clone + PartialEq + Debug + Serialize + DeserializeOwned {
    /// Name in the state file: the states of different machines are not mixed up.
    const NAME: &'static str;

    /// Takes an event; what to do about it. The same events give the same states and effects.
    ///
    /// # Errors
    /// `Height`; then nothing has changed.
    fn step(&mut self, context: Context<'_>, event: &Event) -> Result<Vec<Effect>, StepError>;

    /// Goes on with this finality and this fee policy, which may be others than those it was made with. What it has spent stays counted.
    ///
    /// # Errors
    /// A finality that is higher than the one before, and than the blocks that the state remembers.
    fn set_terms(&mut self, finality: u32, policy: FeePolicy) -> Result<(), FinalityError>;

    /// What it has seen.
    #[must_use]
    fn view(&self) -> &View;

    /// What it sends.
    #[must_use]
    fn sender(&self) -> &Sender;
}

/// View, sender and alarms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Party {
    pub(crate) view: View,
    pub(crate) sender: Sender,
    /// Blocks below the tip of which nothing is forgotten: coins that they spent, bills that they paid.
    remembered: u32,
    raised: BTreeSet<Alarm>,
}

impl Party {
    pub(crate) fn new(wallet: ScriptBuf, finality: u32, tip: Height, policy: FeePolicy) -> Self {
        let view = View::new(wallet, finality, tip);
        let remembered = remembered_max(finality);
        Self { view, sender: Sender::new(policy), remembered, raised: BTreeSet::new() }
    }

    /// [`Machine::set_terms`].
    pub(crate) fn set_terms(&mut self, finality: u32, policy: FeePolicy) -> Result<(), FinalityError> {
        let most = self.remembered.max(self.view.finality());
        if finality > most {
            return Err(FinalityError { wanted: finality, most });
        }
        self.remembered = self.remembered.min(remembered_max(finality));
        self.view.set_finality(finality);
        self.sender.set_policy(policy);
        Ok(())
    }

    /// What every machine does with an event before it thinks about it.
    pub(crate) fn take(
        &mut self,
        context: Context<'_>,
        event: &Event,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StepError> {
        let next = self.view.tip().plus(1);
        match event {
            Event::Connected(block) if block.height != next => {
                return Err(StepError::Height { expected: next, got: block.height });
            }
            Event::Connected(block) => {
                self.view.connect(context.contract, block);
                let finality = self.view.finality();
                self.sender.connect(block, finality);
                self.remembered = self.remembered.saturating_add(1).min(remembered_max(finality));
            }
            Event::Disconnected(height) | Event::Rewound(height) if *height != self.view.tip() => {
                return Err(StepError::Height { expected: self.view.tip(), got: *height });
            }
            Event::Disconnected(height) | Event::Rewound(height) => {
                self.view.disconnect(*height);
                self.sender.disconnect(*height);
                self.remembered = self.remembered.saturating_sub(1);
            }
            Event::Market(market) => self.sender.market(*market),
            Event::Rejected { txid, reason } => self.sender.rejected(*txid, reason, effects),
            Event::Restarted => self.sender.resend(effects),
            _ => {}
        }
        Ok(())
    }

    /// Sends what is wanted, and lets alarms through that are new.
    pub(crate) fn finish(
        &mut self,
        context: Context<'_>,
        wants: &[Want],
        draft: impl FnMut(&View, ContractTx) -> Option<Draft>,
        effects: &mut Vec<Effect>,
        event: &Event,
    ) {
        let (again, block) = (matches!(event, Event::Restarted), matches!(event, Event::Connected(_)));
        let mut draft = draft;
        let view = &self.view;
        self.sender.reconcile((view, &context.keys.wallet), wants, |id| draft(view, id), effects);
        if block {
            self.sender.refill((view, &context.keys.wallet), effects);
        }
        self.forget_alarms(effects, again);
        let raised = &mut self.raised;
        // Fee trouble comes and goes; it is reported while it lasts.
        effects.retain(|effect| match effect {
            Effect::Alarm(Alarm::Fee(..)) => true,
            Effect::Alarm(alarm) => raised.insert(*alarm) && !again,
            _ => true,
        });
        if again {
            effects.extend(raised.iter().copied().map(Effect::Alarm));
        }
    }

    /// Forgets alarms whose cause is gone, so that they are not repeated, and raised anew if it comes back. What has happened for good
    /// stays.
    fn forget_alarms(&mut self, effects: &[Effect], again: bool) {
        let told: BTreeSet<&Alarm> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Alarm(alarm) => Some(alarm),
                _ => None,
            })
            .collect();
        let sender = &self.sender;
        self.raised.retain(|alarm| match alarm {
            // Told at each step while it lasts.
            Alarm::Undecided(_) | Alarm::Broken(_) | Alarm::Programs(_) => told.contains(alarm),
            Alarm::Refused(id) => sender.has(*id),
            // The shell offers all batches again.
            Alarm::Batch(_) => !again,
            _ => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Block;
    use crate::fees::Market;
    use crate::operator::Operator;
    use crate::sim::Fixture;

    struct Scene {
        contract: Contract,
        keys: Keys,
        operator: Operator,
    }

    impl Scene {
        fn new(finality: u32) -> Self {
            let operator = Operator::new(Fixture::wallet(0), finality, Height(100), FeePolicy::REGTEST);
            Self { contract: Fixture::shared().contract(), keys: Fixture::keys(0), operator }
        }

        fn step(&mut self, event: &Event) {
            let context = Context { contract: &self.contract, keys: &self.keys };
            self.operator.step(context, event).unwrap();
        }

        fn blocks(&mut self, blocks: u32) {
            for _ in 0..blocks {
                let height = self.operator.view().tip().plus(1);
                self.step(&Event::Connected(Block { height, txs: Vec::new() }));
            }
        }

        fn set(&mut self, finality: u32) -> Result<(), u32> {
            self.operator.set_terms(finality, FeePolicy::REGTEST).map_err(|error| error.most)
        }
    }

    #[test]
    fn a_finality_is_raised_as_far_as_nothing_is_forgotten_that_it_needs() {
        let mut scene = Scene::new(3);
        scene.blocks(20);
        assert_eq!(scene.set(7), Err(6));
        assert_eq!(scene.set(6), Ok(()));
        assert_eq!(scene.set(7), Err(6), "no block has come since");
        scene.blocks(1);
        assert_eq!((scene.set(8), scene.set(7)), (Err(7), Ok(())));
        scene.blocks(20);
        assert_eq!((scene.set(15), scene.set(14)), (Err(14), Ok(())));
        // A lower one forgets at once what a higher one would need.
        assert_eq!((scene.set(1), scene.set(3), scene.set(2)), (Ok(()), Err(2), Ok(())));
    }

    #[test]
    fn the_finality_of_before_is_never_refused_however_deep_a_reorganisation_was() {
        let mut scene = Scene::new(2);
        scene.blocks(9);
        for _ in 0..9 {
            let tip = scene.operator.view().tip();
            scene.step(&Event::Disconnected(tip));
        }
        assert_eq!((scene.set(3), scene.set(2)), (Err(2), Ok(())));
    }

    #[test]
    fn new_terms_hold_for_what_is_sent_from_then_on_and_what_was_promised_stays_counted() {
        let mut scene = Scene::new(3);
        scene.step(&Event::Market(Market { at: Height(100), ..Market::default() }));
        // Its coins are large: it cuts one up, which costs a fee.
        let txs = vec![std::sync::Arc::new(Fixture::shared().funding().clone())];
        scene.step(&Event::Connected(Block { height: Height(101), txs }));
        let promised = scene.operator.sender().committed();
        assert!(promised > bitcoin::Amount::ZERO);
        let poor = FeePolicy { budget: promised - bitcoin::Amount::from_sat(1), ..FeePolicy::REGTEST };
        scene.operator.set_terms(2, poor).unwrap();
        assert_eq!(scene.operator.sender().committed(), promised);
        let error = scene.operator.sender().check().unwrap_err();
        assert!(error.contains(&format!("the budget is {}", poor.budget)), "{error}");
        scene.blocks(1);
        let height = scene.operator.view().tip();
        let is_final = |operator: &Operator| operator.view().is_final(Height(height.0 - 1));
        assert!(is_final(&scene.operator), "two blocks");
        scene.set(3).unwrap();
        assert!(!is_final(&scene.operator), "three");
    }
}
