//! `assay batch`.

use std::path::Path;

use assay_lvm::{mainnet, Batch, BatchError};
use serde::Serialize;

use super::args::{BatchArgs, BatchCommand};
use super::print;
use crate::description;
use crate::error::Error;
use crate::input;
use crate::progress::bytes_text;
use crate::statement::json_text;

/// A batch as `assay batch show --json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    chain_id: u64,
    parent_number: u64,
    parent_hash: String,
    state_before: String,
    state_after: String,
    batch_hash: String,
    can_be_folded: bool,
    gas: u64,
    data_bytes: usize,
    witness_nodes: usize,
    witness_bytes: usize,
    codes: usize,
    blocks: Vec<ShownBlock>,
}

#[derive(Debug, Serialize)]
struct ShownBlock {
    number: u64,
    hash: String,
    timestamp: u64,
    transactions: usize,
    failed: usize,
    gas: u64,
}

pub(super) fn run(arguments: BatchArgs) -> Result<(), Error> {
    match arguments.command {
        BatchCommand::Build { from, output } => {
            let name = from.display().to_string();
            let text = description::read(&from)?;
            let batch = if description::is_description(&text) {
                description::build(&text)
                    .map_err(|source| Error::Description { name: name.clone(), source: Box::new(source) })?
            } else {
                mainnet::load(&from).map_err(|source| batch_error(&name, source))?
            };
            write(&name, &batch, &output)
        }
        BatchCommand::Sample { index, output } => {
            let name = format!("sample:{index}");
            write(&name, &input::open_batch(&name)?, &output)
        }
        BatchCommand::Show { batch: name, json } => {
            let batch = input::open_batch(&name)?;
            let shown = shown(&name, &batch)?;
            print(if json { json_text(&shown) } else { text(&name, &shown) }.trim_end())?;
            Ok(())
        }
    }
}

fn batch_error(name: &str, source: BatchError) -> Error {
    Error::Batch { name: name.to_owned(), source: Box::new(source) }
}

/// Writes a batch after validating it.
fn write(name: &str, batch: &Batch, output: &Path) -> Result<(), Error> {
    let error = |source| batch_error(name, source);
    let summary = batch.validate().map_err(error)?;
    batch.write(output).map_err(error)?;
    print(&format!(
        "{}: {} blocks, {} gas, batch hash {}",
        output.display(),
        summary.blocks.len(),
        summary.gas_used,
        hex::encode(summary.batch_hash)
    ))?;
    Ok(())
}

fn shown(name: &str, batch: &Batch) -> Result<Shown, Error> {
    let summary = batch.validate().map_err(|source| batch_error(name, source))?;
    let bytes = |items: &[Vec<u8>]| items.iter().map(Vec::len).sum::<usize>();
    Ok(Shown {
        chain_id: summary.from.chain_id,
        parent_number: summary.from.block_number,
        parent_hash: summary.from.block_hash.to_string(),
        state_before: hex::encode(summary.from.commitment()),
        state_after: hex::encode(summary.to.commitment()),
        batch_hash: hex::encode(summary.batch_hash),
        can_be_folded: batch.is_linked(),
        gas: summary.gas_used,
        data_bytes: batch.data().len(),
        witness_nodes: batch.nodes.len(),
        witness_bytes: bytes(&batch.nodes) + bytes(&batch.codes),
        codes: batch.codes.len(),
        blocks: summary
            .blocks
            .iter()
            .map(|block| ShownBlock {
                number: block.number,
                hash: block.hash.to_string(),
                timestamp: block.timestamp,
                transactions: block.transactions,
                failed: block.failed,
                gas: block.gas_used,
            })
            .collect(),
    })
}

fn text(name: &str, shown: &Shown) -> String {
    let mut text = format!(
        "{name}: chain {}, {} block(s) on top of block {}\n  parent        {}\n  state before  {}\n  state after   {}\n  \
         batch hash    {}\n  gas           {}\n  data          {} for Bitcoin\n  witness       {} nodes, {} codes, {}\n",
        shown.chain_id,
        shown.blocks.len(),
        shown.parent_number,
        shown.parent_hash,
        shown.state_before,
        shown.state_after,
        shown.batch_hash,
        shown.gas,
        size(shown.data_bytes),
        shown.witness_nodes,
        shown.codes,
        size(shown.witness_bytes)
    );
    if !shown.can_be_folded {
        text += "  its parent is assumed: it can be proved up to `compressed`, not folded or settled\n";
    }
    for block in &shown.blocks {
        text += &format!(
            "  block {:<9} {}  {} transactions ({} failed), {} gas\n",
            block.number, block.hash, block.transactions, block.failed, block.gas
        );
    }
    text
}

fn size(bytes: usize) -> String {
    if bytes < 1 << 20 {
        format!("{bytes} bytes")
    } else {
        bytes_text(bytes as u64)
    }
}
