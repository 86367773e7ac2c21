//! Which stages a batch needs, and what each of them reads.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One step of a batch's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Re-execution on the host and in the guest, without a proof: cycles, gas, public values.
    Execute,
    /// Core proof of a run of blocks (shard proofs, not aggregated); only for `--until core`.
    Core(u32),
    /// Compressed proof of a run of blocks.
    Compressed(u32),
    /// Verifying keys of the guest programs, and with them the code control group.
    Programs,
    /// Proof that the block proofs join with all history before them.
    Fold,
    /// Shrink and wrap: the fold proof as a STARK hashed over BN254.
    Wrap,
    /// Groth16 parameters of the wrap circuit.
    Setup,
    /// The Groth16 proof.
    Groth16,
    /// Verification of everything that will be published.
    Verify,
    /// The claim on Bitcoin.
    Settle,
    /// Writing the result folder.
    Publish,
}

impl Stage {
    /// Name without the run's number, as used for durations and file names.
    pub fn kind(self) -> &'static str {
        match self {
            Stage::Execute => "execute",
            Stage::Core(_) => "core",
            Stage::Compressed(_) => "compressed",
            Stage::Programs => "programs",
            Stage::Fold => "fold",
            Stage::Wrap => "wrap",
            Stage::Setup => "setup",
            Stage::Groth16 => "groth16",
            Stage::Verify => "verify",
            Stage::Settle => "settle",
            Stage::Publish => "publish",
        }
    }

    /// Whether the stage's result is kept in the content-addressed cache.
    ///
    /// Verification is always done again; settling is idempotent in the trunk, which is its own record; publishing
    /// writes to the output folder.
    pub fn is_cached(self) -> bool {
        !matches!(self, Stage::Verify | Stage::Settle | Stage::Publish)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Core(run) | Stage::Compressed(run) => {
                write!(f, "{} proof of run {}", self.kind(), run + 1)
            }
            Stage::Fold => write!(f, "fold proof"),
            Stage::Wrap => write!(f, "wrap proof"),
            Stage::Setup => write!(f, "Groth16 set-up"),
            Stage::Groth16 => write!(f, "Groth16 proof"),
            Stage::Programs => write!(f, "program keys"),
            other => write!(f, "{}", other.kind()),
        }
    }
}

/// The stage after which to stop.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Execute on the host and in the zkVM, count cycles, prove nothing.
    Execute,
    /// Core (shard) proofs of every run of blocks.
    Core,
    /// Compressed proofs of every run of blocks.
    Compressed,
    /// The fold proof: this batch and all history before it.
    Fold,
    /// The fold proof wrapped over BN254.
    Wrap,
    /// The Groth16 proof, verified and written.
    Groth16,
    /// The claim mined on Bitcoin.
    Settled,
}

/// A stage and the stages whose artifacts it reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The stage.
    pub stage: Stage,
    /// Its inputs; all of them stand before it in the plan.
    pub needs: Vec<Stage>,
}

/// The stages of one batch in an order in which they can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    nodes: Vec<Node>,
}

impl Plan {
    /// The plan of a batch of `runs` runs up to and including `until`.
    pub fn new(runs: u32, until: Until) -> Self {
        let mut nodes = vec![Node { stage: Stage::Execute, needs: vec![] }];
        let mut add = |stage, needs: Vec<Stage>| nodes.push(Node { stage, needs });
        if until == Until::Core {
            (0..runs).for_each(|run| add(Stage::Core(run), vec![Stage::Execute]));
        }
        if until >= Until::Compressed {
            (0..runs).for_each(|run| add(Stage::Compressed(run), vec![Stage::Execute]));
        }
        if until >= Until::Fold {
            add(Stage::Programs, vec![Stage::Execute]);
            let proofs = (0..runs).map(Stage::Compressed);
            add(Stage::Fold, [Stage::Programs].into_iter().chain(proofs).collect());
        }
        if until >= Until::Wrap {
            add(Stage::Wrap, vec![Stage::Fold]);
        }
        if until >= Until::Groth16 {
            add(Stage::Setup, vec![Stage::Wrap]);
            add(Stage::Groth16, vec![Stage::Programs, Stage::Fold, Stage::Wrap, Stage::Setup]);
            add(Stage::Verify, vec![Stage::Programs, Stage::Fold, Stage::Groth16]);
        }
        if until >= Until::Settled {
            add(Stage::Settle, vec![Stage::Programs, Stage::Fold, Stage::Groth16, Stage::Verify]);
        }
        let all = nodes.iter().map(|node| node.stage).collect();
        nodes.push(Node { stage: Stage::Publish, needs: all });
        Self { nodes }
    }

    /// The stages in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Index of `stage`.
    pub fn position(&self, stage: Stage) -> Option<usize> {
        self.nodes.iter().position(|node| node.stage == stage)
    }

    /// Every stage that reads `stage`, directly or through others.
    pub fn dependents(&self, stage: Stage) -> Vec<Stage> {
        let mut found = vec![stage];
        for node in &self.nodes {
            if node.needs.iter().any(|need| found.contains(need)) {
                found.push(node.stage);
            }
        }
        found.remove(0);
        found
    }
}
