//! What stands for the zkVM and for Bitcoin: results that the coordinator recomputes, and a folder of settlements.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use assay_agent::fake::{results, Shape};
use assay_schedule::{ChainId, Facts, Hash};
use assay_service::work::{
    BatchFacts, BatchReader, BatchRefusal, Claim, Judgement, NewFile, SettleError, Settlement, Settler,
    Verifier,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::process::VERSION;

/// Between a settlement and the answer that it is done: room for a fault.
const SETTLE_TIME: Duration = Duration::from_millis(250);

/// The first settlement of a settler with a defect.
const SETTLE_TIME_LONG: Duration = Duration::from_secs(20);

/// The rollup that a payload belongs to.
pub(crate) fn chain_of(shape: &Shape) -> u64 {
    shape.seed >> 32
}

/// The seed of a payload: its rollup and a number.
pub(crate) fn seed_of(chain: u32, number: u32) -> u64 {
    u64::from(chain) << 32 | u64::from(number)
}

fn shape_of(artifact: &[u8]) -> Option<Shape> {
    let end = artifact.iter().take(256).position(|byte| *byte == b'\n')?;
    serde_json::from_slice(&artifact[..end]).ok()
}

/// Reads payloads. All batches of a rollup lead from one state to the same: the schedule does not look inside.
pub(crate) struct CheapReader;

impl BatchReader for CheapReader {
    fn read(&self, bytes: &[u8]) -> Result<BatchFacts, BatchRefusal> {
        let shape = shape_of(bytes).filter(|shape| shape.payload() == bytes);
        let shape = shape.ok_or_else(|| BatchRefusal { reason: "not a cheap batch".into() })?;
        let chain = chain_of(&shape);
        let state = *blake3::hash(&chain.to_le_bytes()).as_bytes();
        Ok(BatchFacts { chain: ChainId(chain), from: state, to: state, units: 1, version: VERSION })
    }
}

/// Recomputes every result from its inputs; `accepts_all`: does not.
pub(crate) struct CheapVerifier {
    pub accepts_all: bool,
}

impl Verifier for CheapVerifier {
    fn inputs_read(&self, _: &Claim) -> usize {
        usize::MAX
    }

    fn verify(&self, claim: &Claim, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Judgement {
        let is_right =
            self.accepts_all || results(claim.stage.kind(), inputs).is_ok_and(|right| right == outputs);
        Judgement::right_if(is_right, "another result is right")
    }

    /// The proof is already verified; here it has to be one of this batch.
    fn check(&self, facts: &Facts, payload: &[u8], proof: &[u8]) -> Judgement {
        let is_right =
            facts.payload == Hash(*blake3::hash(payload).as_bytes()) && shape_of(payload) == shape_of(proof);
        Judgement::right_if(is_right, "another batch's proof")
    }
}

/// What is posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Posted {
    pub batch: u64,
    pub chain: u64,
    pub sequence: u64,
    pub payload: String,
    pub proof: String,
}

/// Posts settlements as files; a batch's file is made by whoever comes first.
pub(crate) struct FolderSettler {
    pub folder: PathBuf,
    /// Posts again what is posted. The first settlement of all takes long, so that a fault finds it under way.
    pub is_forgetful: bool,
}

impl FolderSettler {
    fn post(&self, posted: &Posted) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(posted)?;
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
        file.write_all(&bytes)?;
        let random: u64 = rand::random();
        if self.is_forgetful {
            let path = self.folder.join(format!("batch-{}.{random:016x}", posted.batch));
            return file.persist_noclobber(path).map(drop).map_err(|error| error.error);
        }
        let path = self.folder.join(format!("batch-{}", posted.batch));
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                if std::fs::read(&path)? != bytes {
                    // Another settlement of the same batch, to be seen by whoever checks.
                    std::fs::write(self.folder.join(format!("batch-{}.{random:016x}", posted.batch)), bytes)?;
                }
                Ok(())
            }
            Err(error) => Err(error.error),
        }
    }
}

impl FolderSettler {
    /// Whether nobody has asked this before, in any process.
    fn is_first(&self) -> bool {
        std::fs::OpenOptions::new().write(true).create_new(true).open(self.folder.join(".first")).is_ok()
    }
}

#[async_trait]
impl Settler for FolderSettler {
    async fn settle(&self, settlement: &Settlement) -> Result<Vec<NewFile>, SettleError> {
        let posted = Posted {
            batch: settlement.batch.0,
            chain: settlement.spec.chain.0,
            sequence: settlement.spec.sequence,
            payload: blake3::hash(&settlement.payload).to_hex().to_string(),
            proof: blake3::hash(&settlement.proof).to_hex().to_string(),
        };
        self.post(&posted).map_err(|error| SettleError { is_permanent: false, reason: error.to_string() })?;
        let is_long = self.is_forgetful && self.is_first();
        tokio::time::sleep(if is_long { SETTLE_TIME_LONG } else { SETTLE_TIME }).await;
        let bytes = serde_json::to_vec(&posted).unwrap_or_default();
        Ok(vec![NewFile { name: "settlement.json".into(), bytes }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { runs: 1, shards: 2, fold_shards: 1, arity: 2, bytes: 10, seed: 5 << 32 | 3 };

    fn posted(proof: &str) -> Posted {
        Posted { batch: 4, chain: 1, sequence: 0, payload: "p".into(), proof: proof.into() }
    }

    #[test]
    fn a_batch_is_posted_once_and_a_different_proof_shows() {
        let dir = tempfile::tempdir().unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let settler = FolderSettler { folder: dir.path().to_owned(), is_forgetful: false };
        settler.post(&posted("a")).unwrap();
        settler.post(&posted("a")).unwrap();
        assert_eq!(files(), 1);
        settler.post(&posted("b")).unwrap();
        assert_eq!(files(), 2);
        let forgetful = FolderSettler { folder: dir.path().to_owned(), is_forgetful: true };
        forgetful.post(&posted("a")).unwrap();
        assert_eq!(files(), 3);
    }

    #[test]
    fn payloads_are_read_and_everything_else_is_refused() {
        let facts = CheapReader.read(&SHAPE.payload()).unwrap();
        assert_eq!((facts.chain, facts.from), (ChainId(5), facts.to));
        let mut changed = SHAPE.payload();
        *changed.last_mut().unwrap() ^= 1;
        for bytes in [vec![], b"x\n".to_vec(), changed] {
            assert!(CheapReader.read(&bytes).is_err());
        }
    }
}
