//! `assay l1`: what stands on Bitcoin, read and watched, and the parties of the contract.

pub(super) mod args;
mod parties;
mod sync;

use std::io::Stdout;
use std::path::Path;

use assay_l1::output::Output;
use assay_l1::sync::command::{run_inspect, CommandError};
use assay_l1_signer::picture::run_graph;
use assay_lvm::{sample, Chain};

use self::args::{L1Args, L1Command};
use crate::description;
use crate::error::Error;

pub(super) fn run(config: Option<&Path>, arguments: L1Args) -> Result<(), Error> {
    // Everything is told by arguments: whoever names a file expects more.
    if let Some(path) = config {
        return Err(Error::NoConfig { path: path.to_owned() });
    }
    match arguments.command {
        L1Command::Sync(flags) => sync::sync(*flags),
        L1Command::Inspect(flags) => run_inspect(&flags, &mut stdout()).map_err(failed),
        L1Command::Graph(flags) => run_graph(&flags, &mut stdout()).map_err(Error::Contract),
        L1Command::Signer(flags) => assay_l1_signer::cli::run(flags).map_err(Error::Contract),
        L1Command::Operator(flags) => parties::operator(&flags),
        L1Command::Vigilante(flags) => parties::vigilante(&flags),
        L1Command::Backup(flags) => parties::backup(&flags),
        L1Command::Watch(flags) => parties::watch(&flags),
        L1Command::Keys(flags) => parties::keys(&flags),
        L1Command::Fund(flags) => parties::fund(&flags),
    }
}

/// Standard output; a closed pipe there is not an error of ours.
fn stdout() -> Output<Stdout> {
    Output(std::io::stdout())
}

fn failed(error: CommandError) -> Error {
    Error::L1(Box::new(error))
}

fn genesis(name: &str) -> Result<Chain, Error> {
    if name == "sample" {
        let chain = sample::genesis_chain();
        return chain.map_err(|source| Error::Batch { name: name.to_owned(), source: Box::new(source) });
    }
    let text = description::read(name.as_ref())?;
    description::genesis_chain(&text)
        .map_err(|source| Error::Description { name: name.to_owned(), source: Box::new(source) })
}
