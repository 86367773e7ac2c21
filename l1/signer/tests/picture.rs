//! The picture of a proposal, as `assay l1 graph` makes it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/epoch.rs"]
mod epoch;

use assay_l1_signer::picture::{run_graph, svg, GraphArgs};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use epoch::{policy, valid};

#[test]
fn a_proposal_is_drawn_with_all_its_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let policy = policy(2);
    let (proposal, graph) = valid(&policy, OutPoint::new(Txid::from_byte_array([5; 32]), 1));
    std::fs::write(path("0.proposal"), proposal.encode().unwrap()).unwrap();
    std::fs::write(path("policy.toml"), toml::to_string(&policy).unwrap()).unwrap();
    let mut args = GraphArgs { proposal: path("0.proposal"), policy: path("policy.toml"), svg: None };
    let mut text = Vec::new();
    run_graph(&args, &mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), graph.dot());

    args.svg = Some(path("0.svg"));
    let mut nothing = Vec::new();
    run_graph(&args, &mut nothing).unwrap();
    assert!(nothing.is_empty());
    let drawing = std::fs::read_to_string(path("0.svg")).unwrap();
    assert!(drawing.contains("<svg") && drawing.trim_end().ends_with("</svg>"));
    for word in ["Reconfiguration", "ClaimTimeout", "OptimisticAcceptance", "DisproveInput", "#ff0000"] {
        assert!(drawing.contains(word), "the drawing has no {word}");
    }
    std::fs::write(path("0.proposal"), b"no proposal").unwrap();
    assert!(run_graph(&args, &mut nothing).is_err());
    assert!(svg("digraph {").is_err());
}
