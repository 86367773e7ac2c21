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
use crate::view::View;

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

/// A machine, as its shells see it: what they step and store.
pub trait Machine: Clone + PartialEq + Debug + Serialize + DeserializeOwned {
    /// Name in the state file: the states of different machines are not mixed up.
    const NAME: &'static str;

    /// Takes an event; what to do about it. The same events give the same states and effects.
    ///
    /// # Errors
    /// `Height`; then nothing has changed.
    fn step(&mut self, context: Context<'_>, event: &Event) -> Result<Vec<Effect>, StepError>;

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
    finality: u32,
    raised: BTreeSet<Alarm>,
}

impl Party {
    pub(crate) fn new(wallet: ScriptBuf, finality: u32, tip: Height, policy: FeePolicy) -> Self {
        let view = View::new(wallet, finality, tip);
        Self { view, sender: Sender::new(policy), finality, raised: BTreeSet::new() }
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
                self.sender.connect(block, self.finality);
            }
            Event::Disconnected(height) | Event::Rewound(height) if *height != self.view.tip() => {
                return Err(StepError::Height { expected: self.view.tip(), got: *height });
            }
            Event::Disconnected(height) | Event::Rewound(height) => {
                self.view.disconnect(*height);
                self.sender.disconnect(*height);
            }
            Event::Market(market) => self.sender.market(*market),
            Event::Rejected { txid, reason } => self.sender.rejected(*txid, reason, effects),
            Event::Restarted => {
                effects.extend(self.raised.iter().copied().map(Effect::Alarm));
                self.sender.resend(effects);
            }
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
        let raised = &mut self.raised;
        // Fee trouble comes and goes; it is reported while it lasts.
        effects.retain(|effect| match effect {
            Effect::Alarm(Alarm::Fee(..)) => true,
            Effect::Alarm(alarm) => raised.insert(*alarm) || again,
            _ => true,
        });
    }
}
