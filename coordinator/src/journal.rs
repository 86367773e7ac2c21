//! The pipeline's state on disk, with the results of its finished stages: written before effects are carried out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::{Entry, Key};
use crate::fsio::{self, FileError};
use crate::pipeline::{Stage, State};

const FORMAT: u32 = 1;
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// What survives the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    format: u32,
    /// Key of the job; a snapshot of another job is of no use.
    job: String,
    /// Pipeline and outstanding effects.
    pub state: State,
    /// What the finished stages produced.
    pub results: Vec<(Stage, Entry)>,
}

/// The file of one job.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    job: Key,
}

impl Journal {
    /// The journal of `job` in `folder`.
    pub fn new(folder: &Path, job: Key) -> Self {
        Self { path: folder.join(format!("{}.json", &job.to_hex()[..16])), job }
    }

    /// Writes the state.
    ///
    /// # Errors
    /// [`FileError`].
    ///
    /// # Panics
    /// Never: a snapshot has string keys only.
    pub fn save(&self, state: &State, results: &[(Stage, Entry)]) -> Result<(), FileError> {
        let snapshot = Snapshot {
            format: FORMAT,
            job: self.job.to_hex(),
            state: state.clone(),
            results: results.to_vec(),
        };
        let bytes = serde_json::to_vec(&snapshot).expect("a snapshot has string keys only");
        let hash = blake3::hash(&bytes).to_hex();
        fsio::write_atomic(&self.path, &[hash.as_bytes(), b"\n", &bytes].concat())
    }

    /// Reads the state; `None` if there is none, or it is damaged (the cache still has the results) or of another job.
    pub fn load(&self) -> Option<Snapshot> {
        let bytes = fsio::read_limited(&self.path, JOURNAL_BYTES_MAX).ok()?;
        let (hash, body) = bytes.split_at_checked(64)?;
        let body = body.strip_prefix(b"\n")?;
        if blake3::hash(body).to_hex().as_bytes() != hash {
            return None;
        }
        let snapshot: Snapshot = serde_json::from_slice(body).ok()?;
        (snapshot.format == FORMAT && snapshot.job == self.job.to_hex()).then_some(snapshot)
    }

    /// Forgets the state, once the job has ended.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn remove(&self) -> Result<(), FileError> {
        fsio::remove_if_present(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Event, Plan, Until};

    #[test]
    fn a_snapshot_comes_back_and_a_damaged_or_foreign_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path(), Key::of("job").with("a", b"1").build());
        assert_eq!(journal.load(), None);
        let mut state = State::new(Plan::new(2, Until::Settled));
        state.step(Event::Start).unwrap();
        let entry = Entry {
            stage: "execute".into(),
            outcome: serde_json::json!({"cycles": 3}),
            blobs: Default::default(),
            millis: 1,
            peak_bytes: 2,
        };
        let results = vec![(Stage::Execute, entry)];
        journal.save(&state, &results).unwrap();
        let snapshot = journal.load().unwrap();
        assert_eq!((&snapshot.state, &snapshot.results), (&state, &results));

        let foreign = Journal { job: Key::of("job").with("a", b"2").build(), ..journal.clone() };
        assert_eq!(foreign.load(), None);
        let good = std::fs::read(&journal.path).unwrap();
        for at in (0..good.len()).step_by(5) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&journal.path, bad).unwrap();
            assert_eq!(journal.load(), None);
        }
        journal.remove().unwrap();
        journal.remove().unwrap();
        assert_eq!(journal.load(), None);
    }
}
