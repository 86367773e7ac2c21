//! Names that coordinators and workers agree on.
//!
//! | name | what |
//! |---|---|
//! | mailbox `worker/<worker>/<session>` | messages to one session of a worker; closed when the session is over |
//! | mailbox `log` | what has been committed, for standbys |
//! | holder `intake/<hash>` | the payload of a submission; a repetition of it has another |
//! | holder `attempt/<attempt>/<index>` | an output of an attempt |
//! | holder `result/<batch>` | files of a result |

use assay_queue::{Holder, Mailbox};
use assay_schedule::{self as schedule, AttemptId, BatchId, WorkerId};

fn name<N>(made: Result<N, assay_queue::NameError>) -> N {
    made.expect("numbers, hex and fixed words make a name")
}

/// Where a session of a worker gets its messages.
pub fn worker(worker: WorkerId, session: u64) -> Mailbox {
    name(Mailbox::new(format!("worker/{worker}/{session}")))
}

/// Where standbys read what has been committed.
pub fn log() -> Mailbox {
    name(Mailbox::new("log"))
}

/// Who holds an artifact, in the store's words.
pub fn holder(holder: schedule::Holder) -> Holder {
    name(Holder::new(holder.to_string()))
}

/// What holders of payloads begin with.
pub const INTAKE: &str = "intake/";

/// What holders of files of results begin with.
pub const RESULT: &str = "result/";

/// Who holds everything that an attempt has published.
pub fn attempt(attempt: AttemptId) -> Holder {
    name(Holder::new(format!("attempt/{attempt}")))
}

/// Who holds the files of a result.
pub fn result(batch: BatchId) -> Holder {
    name(Holder::new(format!("result/{batch}")))
}
