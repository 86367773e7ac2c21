//! The game about one claim.

use std::sync::Arc;

use bitcoin::sighash::TapSighashType;
use bitcoin::ScriptBuf;

use super::{leaf, Drafts, Placed, TxRole};
use crate::graph::connector::{Leaf, ScriptOutput, CONNECTOR_VALUE};
use crate::graph::contract::scripts;
use crate::script::tree::{leaf_node, TreeSizeError};

impl Drafts<'_> {
    /// The disproofs that need the claim's own values only: of its input, and of its link to the claim before.
    fn value_disproofs(&self, claim: u32) -> Vec<ScriptBuf> {
        let keys = &self.keys.0[claim as usize];
        let before = self.starts[claim as usize].signed();
        let link = before.map(|before| scripts::disprove_link(self.spec, before, keys));
        [scripts::disprove_input(self.spec, keys)].into_iter().chain(link).collect()
    }

    pub(super) fn game(&self, claim: u32) -> Arc<ScriptOutput> {
        let locks = &self.spec.locks;
        let mut leaves = vec![
            scripts::signed(&self.spec.attesters),
            scripts::both(self.spec),
            self.signed_after(locks.challenge_blocks + locks.assert_blocks),
        ];
        leaves.extend(self.value_disproofs(claim));
        self.output(leaves, self.spec.game_value())
    }

    fn dispute(&self, claim: u32) -> Result<Arc<ScriptOutput>, TreeSizeError> {
        let keys = &self.keys.0[claim as usize];
        let mut leaves = vec![Leaf::Script(self.signed_after(self.spec.locks.disprove_blocks))];
        leaves.extend(self.value_disproofs(claim).into_iter().map(Leaf::Script));
        leaves.extend((0..self.verifier.count()).map(|index| {
            Leaf::Hidden(leaf_node(&scripts::verifier_leaf(self.spec, keys, self.verifier, index)))
        }));
        leaves.push(Leaf::Script(self.sink_leaf()));
        Ok(Arc::new(ScriptOutput::from_leaves(leaves, CONNECTOR_VALUE)?))
    }

    /// All transactions of the game about a claim.
    pub(super) fn play(
        &mut self,
        claim: u32,
        challenge: &Placed,
        game: &Placed,
        collateral: &Placed,
    ) -> Result<(), TreeSizeError> {
        let spec = self.spec;
        let locks = spec.locks;
        let optimistic = [
            challenge.whole(leaf::UNCHALLENGED, Some(locks.challenge_blocks)),
            game.whole(leaf::OPTIMISTIC, None),
        ];
        let back = vec![self.operator(spec.game_value() + CONNECTOR_VALUE)];
        self.anchored(TxRole::OptimisticAcceptance(claim), optimistic, back);

        let open = challenge.input(vec![leaf::CHALLENGE], TapSighashType::SinglePlusAnyoneCanPay, None);
        let deposit = vec![self.operator(spec.challenge_deposit)];
        self.add(TxRole::Challenge(claim), 2, [open], deposit);

        let timeout = locks.challenge_blocks + locks.assert_blocks;
        let late = game.input(vec![leaf::ASSERT_TIMEOUT], TapSighashType::None, Some(timeout));
        self.slash(TxRole::AssertTimeout(claim), collateral, late);

        let disproofs = leaf::GAME_DISPROOFS..game.output.leaves().len() - 1;
        let wrong = game.input(disproofs.collect(), TapSighashType::None, None);
        self.slash(TxRole::DisproveInput(claim), collateral, wrong);
        self.assertion(claim, game, collateral)
    }

    fn assertion(&mut self, claim: u32, game: &Placed, collateral: &Placed) -> Result<(), TreeSizeError> {
        let spec = self.spec;
        let keys = &self.keys.0[claim as usize];
        let slots: Vec<_> = spec.layout.slots();
        let slots: Vec<_> = slots
            .iter()
            .map(|slot| {
                let leaves =
                    vec![scripts::slot(spec, keys, slot), self.signed_after(spec.locks.assert_blocks)];
                self.output(leaves, CONNECTOR_VALUE)
            })
            .collect();
        let dispute = self.dispute(claim)?;
        let outputs = slots.iter().chain([&dispute]).map(|output| output.txout()).collect();
        let txid = self.anchored(TxRole::Assert(claim), [game.whole(leaf::ASSERT, None)], outputs);
        let dispute = self.place(txid, slots.len() as u32, dispute);

        let disprove = Some(spec.locks.disprove_blocks);
        let mut accepted = vec![dispute.whole(leaf::ACCEPT, disprove)];
        for (index, slot) in slots.into_iter().enumerate() {
            let slot = self.place(txid, index as u32, slot);
            let number = index as u16;
            let late =
                slot.input(vec![leaf::SLOT_TIMEOUT], TapSighashType::None, Some(spec.locks.assert_blocks));
            self.slash(TxRole::SlotTimeout(claim, number), collateral, late);
            let done = self.output(vec![self.signed_after(spec.locks.disprove_blocks)], CONNECTOR_VALUE);
            let filled = [slot.whole(leaf::SLOT, None)];
            let filled_txid = self.anchored(TxRole::AssertSlot(claim, number), filled, vec![done.txout()]);
            // The lock counts from each slot's own confirmation: the last one leaves a whole period.
            let done = self.place(filled_txid, 0, done);
            accepted.push(done.whole(leaf::ACCEPT, disprove));
        }
        let back = vec![self.operator(CONNECTOR_VALUE * accepted.len() as u64)];
        self.anchored(TxRole::Acceptance(claim), accepted, back);

        let disproofs = leaf::DISPUTE_DISPROOFS..dispute.output.leaves().len() - 1;
        let wrong = dispute.input(disproofs.collect(), TapSighashType::None, None);
        self.slash(TxRole::Disprove(claim), collateral, wrong);
        Ok(())
    }
}
