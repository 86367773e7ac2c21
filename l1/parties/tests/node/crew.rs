//! Parties that run beside each other. Now and then one is killed over a block, and stays away for some.

use std::sync::Arc;

use assay_l1::BitcoinBackend;

use crate::chain::{open_script, Harness};
use crate::dice::Dice;
use crate::files::Files;
use crate::node::Node;
use crate::process::Party;

struct Member {
    name: &'static str,
    party: Party,
    /// Blocks until it starts again.
    away: u64,
}

/// The parties on a node.
pub(crate) struct Crew<'a> {
    files: &'a Files,
    node: &'a Node,
    members: Vec<Member>,
}

impl<'a> Crew<'a> {
    /// Starts them. Whoever is neither operator nor backup is a vigilante.
    pub(crate) fn start(files: &'a Files, node: &'a Node, names: &[&'static str]) -> Self {
        let mut crew = Self { files, node, members: Vec::new() };
        crew.members = names
            .iter()
            .map(|&name| Member { name, party: Party::start(name, crew.words(name, &[])), away: 0 })
            .collect();
        crew
    }

    fn words(&self, name: &str, more: &[String]) -> Vec<String> {
        let role = if ["operator", "backup"].contains(&name) { name } else { "vigilante" };
        [vec![role.to_owned()], self.node.words(), self.files.words(name), more.to_vec()].concat()
    }

    pub(crate) fn backend(&self) -> Arc<dyn BitcoinBackend> {
        self.node.backend()
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.name == name).unwrap()
    }

    pub(crate) fn party(&mut self, name: &str) -> &mut Party {
        &mut self.member(name).party
    }

    pub(crate) fn parties(&self) -> impl Iterator<Item = &Party> {
        self.members.iter().map(|member| &member.party)
    }

    /// Mines a block, and waits until everyone who runs has done all that there is to do. Of twelve numbers one comes up: whose it is,
    /// in the order of their names, is killed over the block.
    pub(crate) fn step(&mut self, dice: &mut Dice) -> usize {
        self.mine_unseen();
        let victim = dice.roll(12) as usize;
        if let Some(Member { party, away, .. }) = self.members.get_mut(victim) {
            dice.moment(40);
            party.kill();
            *away = (*away).max(dice.roll(3));
        }
        for Member { party, away, .. } in &mut self.members {
            if !party.is_running() && *away == 0 {
                party.restart();
            }
            *away = away.saturating_sub(1);
        }
        self.settle();
        victim
    }

    /// Mines a block and waits for nobody.
    pub(crate) fn mine_unseen(&self) {
        self.backend().miner().unwrap().mine(1, &open_script()).unwrap();
    }

    /// Waits until everyone who runs has done all that there is to do.
    pub(crate) fn settle(&mut self) {
        let tip = self.backend().tip().unwrap();
        for party in self.members.iter_mut().map(|member| &mut member.party) {
            if party.is_running() {
                party.wait_for_block(&tip.hash);
            }
        }
    }

    /// Kills one that does not come back by itself.
    pub(crate) fn dismiss(&mut self, name: &str) {
        let member = self.member(name);
        member.party.kill();
        member.away = u64::MAX;
    }

    /// Starts one again, whether it runs or not, with further arguments.
    pub(crate) fn recall(&mut self, name: &str, more: &[String]) {
        let words = self.words(name, more);
        let Member { party, away, .. } = self.member(name);
        party.kill();
        party.set_words(words);
        party.restart();
        *away = 0;
    }
}
