//! The simplest parts: for tests, load tests and chaos runs, where tasks are cheap stand-ins.
//!
//! A batch is `assay-simple 1`, then `chain from to units` as numbers, then anything, all in one line of text. A result is
//! right if it is a hash over kind and inputs, as [`output`] makes it.

use assay_schedule::{ChainId, Kind, Spec, Stage};
use async_trait::async_trait;

use super::{BatchFacts, BatchReader, BatchRefusal, NewFile, SettleError, Settlement, Settler, Verifier};

/// What a batch begins with.
pub const MAGIC: &str = "assay-simple 1";

/// A batch.
pub fn batch(chain: u64, from: u64, to: u64, units: u64, rest: &str) -> Vec<u8> {
    format!("{MAGIC} {chain} {from} {to} {units} {rest}").into_bytes()
}

/// The right output of a task.
pub fn output(kind: Kind, inputs: &[Vec<u8>], index: u32) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("assay-service 1 simple output");
    hasher.update(&[kind as u8]);
    hasher.update(&index.to_le_bytes());
    for input in inputs {
        hasher.update(blake3::hash(input).as_bytes());
    }
    hasher.finalize().as_bytes().to_vec()
}

/// Reads and checks what this module makes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Simple;

impl BatchReader for Simple {
    fn read(&self, bytes: &[u8]) -> Result<BatchFacts, BatchRefusal> {
        let refuse = |reason: &str| BatchRefusal { reason: reason.into() };
        let text = std::str::from_utf8(bytes).map_err(|_| refuse("not text"))?;
        let rest = text.strip_prefix(MAGIC).ok_or_else(|| refuse("not a batch of this kind"))?;
        let mut numbers = rest.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = |what| match numbers.next() {
            Some(Ok(number)) => Ok(number),
            _ => Err(refuse(what)),
        };
        let (chain, from) = (next("no chain")?, next("no state before")?);
        let (to, units) = (next("no state after")?, next("no units")?);
        Ok(BatchFacts { chain: ChainId(chain), from: wide(from), to: wide(to), units, version: 1 })
    }
}

fn wide(number: u64) -> [u8; 32] {
    let mut wide = [0; 32];
    wide[..8].copy_from_slice(&number.to_le_bytes());
    wide
}

impl Verifier for Simple {
    fn needs_inputs(&self, _: Stage) -> bool {
        true
    }

    fn verify(&self, stage: Stage, _: &Spec, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> bool {
        (0..).zip(outputs).all(|(index, bytes)| *bytes == output(stage.kind(), inputs, index))
    }

    fn check(&self, _: &Spec, payload: &[u8], proof: &[u8]) -> bool {
        payload.starts_with(MAGIC.as_bytes()) && proof.len() == 32
    }
}

#[async_trait]
impl Settler for Simple {
    async fn settle(&self, settlement: &Settlement) -> Result<Vec<NewFile>, SettleError> {
        let text = format!("batch {} of chain {}\n", settlement.spec.sequence, settlement.spec.chain);
        Ok(vec![NewFile { name: "claim.txt".into(), bytes: text.into_bytes() }])
    }
}
