//! The graph as a picture, in the language of Graphviz.

use std::collections::BTreeMap;
use std::fmt::Write;

use bitcoin::{OutPoint, Txid};

use super::build::{Graph, Input, TxRole};

/// Name of the node for a role; the slots of a claim share one, as do their timeouts.
fn group(role: TxRole) -> TxRole {
    match role {
        TxRole::AssertSlot(claim, _) => TxRole::AssertSlot(claim, 0),
        TxRole::SlotTimeout(claim, _) => TxRole::SlotTimeout(claim, 0),
        other => other,
    }
}

fn label(role: TxRole, slots: usize) -> String {
    match role {
        TxRole::AssertSlot(claim, _) => format!("AssertSlot {claim}, {slots} of them"),
        TxRole::SlotTimeout(claim, _) => format!("SlotTimeout {claim}, {slots} of them"),
        other => other.to_string().replace(['(', ')'], " ").trim_end().to_owned(),
    }
}

fn is_slash(role: TxRole) -> bool {
    matches!(
        role,
        TxRole::AssertTimeout(_) | TxRole::SlotTimeout(..) | TxRole::DisproveInput(_) | TxRole::Disprove(_)
    )
}

impl Graph {
    /// A directed graph: a node for each transaction with its value, an edge for each output spent with its value and
    /// the relative time lock in blocks. Slashes are red; slots are drawn once.
    #[must_use]
    pub fn dot(&self) -> String {
        let slots = self.spec().layout.slots().len();
        let roles: BTreeMap<Txid, TxRole> =
            self.nodes().iter().map(|(role, node)| (node.tx.compute_txid(), *role)).collect();
        let mut text = String::from("digraph contract {\n  rankdir=LR;\n  node [shape=box];\n");
        let mut edges = Vec::new();
        for (role, node) in self.nodes() {
            if group(*role) != *role {
                continue;
            }
            let colour = if is_slash(*role) { ", color=red" } else { "" };
            let name = label(*role, slots);
            let _ = writeln!(text, "  \"{role}\" [label=\"{name}\\nv{}\"{colour}];", node.tx.version.0);
            for (txin, input) in node.tx.input.iter().zip(&node.inputs) {
                let OutPoint { txid, vout } = txin.previous_output;
                let value = input.txout().value.to_sat();
                // Every lock of the contract counts blocks, in the low half of the sequence.
                let blocks = txin.sequence.to_consensus_u32() & 0xffff;
                let locked = txin.sequence.is_relative_lock_time();
                let lock = if locked { format!(", after {blocks} blocks") } else { String::new() };
                let from = match (roles.get(&txid), input) {
                    (Some(from), _) => group(*from).to_string(),
                    (None, Input::Funding(_)) => "operator's coin".to_owned(),
                    (None, Input::Contract { .. }) => "epoch before".to_owned(),
                };
                edges.push(format!("  \"{from}\" -> \"{role}\" [label=\"{vout}: {value} sat{lock}\"];\n"));
            }
        }
        edges.sort();
        edges.dedup();
        text.extend(edges);
        text.push_str("}\n");
        text
    }
}
