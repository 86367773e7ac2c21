//! A proposal's graph as a picture.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};

use crate::cli::{graph_of, read_proposal, Failure};
use crate::policy::Policy;
use crate::store::file;

/// `graph`: the transactions of an epoch, what they spend, and when they may.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The graph is built anew from the proposal, as every signer does before it signs. Boxes are transactions (v3: no fee, an anchor), arrows are
outputs with their value and the blocks that have to pass; red boxes slash the operator's collateral.

Examples:
  assay l1 graph --proposal epochs/0000.proposal --policy policy.toml > epoch-0.dot
  assay l1 graph --proposal epochs/0000.proposal --policy policy.toml --svg epoch-0.svg

Exit codes: 0 drawn; 1 the output cannot be written; 2 bad input.")]
pub struct GraphArgs {
    /// The epoch's proposal, as `signer propose` writes it.
    #[arg(long, value_name = "FILE")]
    pub proposal: PathBuf,
    /// Policy file: it says which verifier's leaves the contract has.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Write a drawing to this file instead of Graphviz's language to standard output.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Prints or draws the graph.
///
/// # Errors
/// What stopped it, for people.
pub fn run_graph(args: &GraphArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let policy = Policy::load(&args.policy)?;
    let (_, proposal) = read_proposal(&args.proposal)?;
    let dot = graph_of(&policy, &proposal)?.dot();
    match &args.svg {
        Some(path) => Ok(file::write(path, svg(&dot)?.as_bytes())?),
        None => Ok(out.write_all(dot.as_bytes())?),
    }
}

/// Draws a graph that is given in Graphviz's language.
///
/// # Errors
/// If it is not in that language.
pub fn svg(dot: &str) -> Result<String, Failure> {
    let graph = DotParser::new(dot).process().map_err(|error| format!("the picture: {error}"))?;
    let mut builder = GraphBuilder::new();
    builder.visit_graph(&graph);
    let mut writer = SVGWriter::new();
    builder.get().do_it(false, false, false, &mut writer);
    Ok(writer.finalize())
}
