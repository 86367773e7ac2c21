//! What tests of several modules need.

use assay_schedule::{
    Artifact, AttemptId, BatchId, ChainId, Dispatch, Facts, Hash, Holder, Input, Role, Stage, WorkerId,
};

/// A dispatch for worker 5, session 100, with one input.
pub(crate) fn dispatch(attempt: u64, stage: Stage) -> Dispatch {
    let hash = Hash([attempt as u8; 32]);
    let artifact = Artifact { holder: Holder::Attempt(AttemptId(0), 0), hash, bytes: 1 };
    Dispatch {
        attempt: AttemptId(attempt),
        worker: WorkerId(5),
        session: 100,
        batch: BatchId(1),
        stage,
        key: hash,
        inputs: vec![Input { role: Role::Part, artifact }],
        units: 1,
        memory_bytes: 1,
        outputs_max: 1,
        facts: Facts {
            chain: ChainId(1),
            sequence: 0,
            genesis: hash,
            from: hash,
            to: hash,
            payload: hash,
            version: 1,
            deadline: None,
        },
    }
}
