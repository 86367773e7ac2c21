//! Stand-ins for the zkVM and Bitcoin: results are hashes over their inputs, which anybody can make and check.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use assay_schedule::{ChainId, Facts, Hash, Kind};
use assay_service::work::{
    BatchFacts, BatchReader, BatchRefusal, Claim, Judgement, Ledger, NewFile, SettleError, Settlement,
    Settler, Verifier,
};
use async_trait::async_trait;

const MAGIC: &str = "simple";

/// What a batch is and how it falls into tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub chain: u64,
    pub from: u64,
    pub to: u64,
    pub runs: u32,
    pub shards: u32,
}

impl Shape {
    pub(crate) fn new(chain: u64) -> Self {
        Self { chain, from: 0, to: 1, runs: 2, shards: 3 }
    }

    /// The batch after this one.
    pub(crate) fn next(self) -> Self {
        Self { from: self.to, to: self.to + 1, ..self }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let Self { chain, from, to, runs, shards } = self;
        format!("{MAGIC} {chain} {from} {to} {runs} {shards}").into_bytes()
    }

    /// Reads a batch, or the tail of an artifact, which repeats it.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let rest = text.split_once(MAGIC)?.1;
        let mut numbers = rest.split_ascii_whitespace().map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (chain, from, to) = (next()?, next()?, next()?);
        Some(Self { chain, from, to, runs: next()?.try_into().ok()?, shards: next()?.try_into().ok()? })
    }
}

/// The right output of a task.
pub(crate) fn output(kind: Kind, inputs: &[Vec<u8>], index: u32) -> Option<Vec<u8>> {
    let shape = Shape::read(inputs.first()?)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{kind} {index}").as_bytes());
    for input in inputs {
        hasher.update(blake3::hash(input).as_bytes());
    }
    let mut made = format!("{} ", hasher.finalize().to_hex()).into_bytes();
    made.extend(shape.bytes());
    Some(made)
}

/// What a controller publishes for its part `index`.
pub(crate) fn part_input(input: &[u8], index: u32) -> Vec<u8> {
    let mut made = format!("part {index} of {} ", blake3::hash(input).to_hex()).into_bytes();
    made.extend(Shape::read(input).expect("an artifact of ours").bytes());
    made
}

/// Where proofs are settled.
#[derive(Default)]
pub(crate) struct Bitcoin {
    /// Whether settlements begun now never end.
    pub is_stuck: AtomicBool,
    /// Settlements begun.
    pub settlements: AtomicUsize,
}

/// A build, and where it settles.
#[derive(Clone, Default)]
pub(crate) struct Simple {
    /// The settler's ledger, if it keeps one.
    pub ledger: Option<Ledger>,
    pub bitcoin: Arc<Bitcoin>,
    /// Rollups whose history it lacks.
    pub lacks: Vec<ChainId>,
    /// The version that it checks and settles, if not all.
    pub version: Option<u32>,
}

impl BatchReader for Simple {
    fn read(&self, bytes: &[u8]) -> Result<BatchFacts, BatchRefusal> {
        let refuse = || BatchRefusal { reason: "not a simple batch".into() };
        if !bytes.starts_with(MAGIC.as_bytes()) {
            return Err(refuse());
        }
        let shape = Shape::read(bytes).ok_or_else(refuse)?;
        let wide = |number: u64| {
            let mut wide = [0; 32];
            wide[..8].copy_from_slice(&number.to_le_bytes());
            wide
        };
        let chain = ChainId(shape.chain);
        Ok(BatchFacts { chain, from: wide(shape.from), to: wide(shape.to), units: 1000, version: 1 })
    }
}

impl Verifier for Simple {
    fn inputs_read(&self, _: &Claim) -> usize {
        usize::MAX
    }

    fn other_version(&self, version: u32) -> Option<String> {
        let ours = self.version.filter(|ours| *ours != version)?;
        Some(format!("version {version} is not {ours}"))
    }

    fn verify(&self, claim: &Claim, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Judgement {
        let is_right = (0..)
            .zip(outputs)
            .all(|(index, bytes)| output(claim.stage.kind(), inputs, index).as_ref() == Some(bytes));
        Judgement::right_if(is_right, "another output is right")
    }

    fn check(&self, facts: &Facts, payload: &[u8], proof: &[u8]) -> Judgement {
        let is_right =
            facts.payload == Hash(*blake3::hash(payload).as_bytes()) && Shape::read(proof).is_some();
        Judgement::right_if(is_right, "not this batch's")
    }
}

#[async_trait]
impl Settler for Simple {
    fn ledger(&self) -> Option<Ledger> {
        self.ledger.clone()
    }

    fn has_trunk(&self, chain: ChainId) -> bool {
        !self.lacks.contains(&chain)
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Vec<NewFile>, SettleError> {
        self.bitcoin.settlements.fetch_add(1, Ordering::SeqCst);
        if self.bitcoin.is_stuck.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        let text = format!("batch {} of chain {}\n", settlement.spec.sequence, settlement.spec.chain);
        Ok(vec![NewFile { name: "claim.txt".into(), bytes: text.into_bytes() }])
    }
}
