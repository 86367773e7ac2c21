//! The work folder: what a worker keeps on disk, and what a restart makes of it.
//!
//! ```text
//! <work folder>/
//!   lock                     held by the running process
//!   session.json             the session, see `Folder::begin`
//!   attempts/<attempt>/
//!     task.json              the dispatch
//!     in/<n>                 its inputs, checked
//!     run/                   the runner's
//!     parts/<key>/<n>        results of parts
//!     made.json              once it has run: outputs and what it used
//!     report.json            once it is sealed: report and receipt
//!   logs/<attempt>.log       standard error of child processes
//! ```
//! Every JSON file appears whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use assay_schedule::{AttemptId, Dispatch, Report};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::receipt::{SignedReceipt, Usage};
use crate::runner::NewFile;

/// Largest JSON file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A work folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another worker has it.
    #[error("{path} is in use by another worker; give each its own --work-dir")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { action, path, source }
}

/// What a task has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Made {
    pub outputs: Vec<NewFile>,
    pub usage: Usage,
    pub device: String,
}

/// What is to be reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    pub report: Report,
    pub receipt: Option<Box<SignedReceipt>>,
}

/// An attempt that an earlier process has brought to an end but not reported, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub dispatch: Dispatch,
    pub made: Option<Made>,
    pub sealed: Option<Sealed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionFile {
    session: u64,
}

/// The work folder of this process.
pub(crate) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, and keeps other processes out of it.
    pub(crate) fn open(root: &Path) -> Result<Self, FolderError> {
        let attempts = root.join("attempts");
        fs::create_dir_all(&attempts).map_err(io_error("create", &attempts))?;
        // Children get absolute paths, whatever folder they work in.
        let root = root.canonicalize().map_err(io_error("find", root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(io_error("create", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse { path: root }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    /// The session of this process, and what is left of the one before.
    ///
    /// If there are ends to report, the session goes on: under a new one they would count for nothing. That is safe
    /// because the lock says that the process before is dead. Everything else of it is removed. A new session has a higher
    /// number than all before, also if the clock was set back.
    pub(crate) fn begin(&self, unix_ms: u64) -> Result<(u64, Vec<Kept>), FolderError> {
        let path = self.root.join("session.json");
        let before = read_json::<SessionFile>(&path).map(|file| file.session);
        let mut kept = Vec::new();
        let attempts = self.root.join("attempts");
        for entry in fs::read_dir(&attempts).map_err(io_error("read", &attempts))?.flatten() {
            match load(&entry.path()).filter(|found| Some(found.dispatch.session) == before) {
                Some(found) => kept.push(found),
                None => remove(&entry.path())?,
            }
        }
        kept.sort_by_key(|found| found.dispatch.attempt);
        let session = match before {
            Some(before) if !kept.is_empty() => before,
            before => unix_ms.max(before.map_or(0, |before| before + 1)),
        };
        self.set_session(session)?;
        Ok((session, kept))
    }

    /// Remembers the session, so that later ones have higher numbers.
    pub(crate) fn set_session(&self, session: u64) -> Result<(), FolderError> {
        write_json(&self.root.join("session.json"), &SessionFile { session })
    }

    /// Where an attempt's files are.
    pub(crate) fn attempt(&self, attempt: AttemptId) -> PathBuf {
        self.root.join("attempts").join(attempt.to_string())
    }

    /// Removes all that is kept of an attempt.
    pub(crate) fn remove(&self, attempt: AttemptId) -> Result<(), FolderError> {
        remove(&self.attempt(attempt))
    }
}

/// An attempt that has ended: sealed, or all its outputs are there.
fn load(dir: &Path) -> Option<Kept> {
    let dispatch: Dispatch = read_json(&dir.join("task.json"))?;
    if dir.file_name()?.to_str()? != dispatch.attempt.to_string() {
        return None;
    }
    let made: Option<Made> = read_json(&dir.join("made.json"));
    let sealed: Option<Sealed> = read_json(&dir.join("report.json"));
    let is_whole = made.as_ref().is_some_and(|made| made.outputs.iter().all(|file| file.path.is_file()));
    (sealed.is_some() || is_whole).then_some(Kept { dispatch, made, sealed })
}

fn remove(path: &Path) -> Result<(), FolderError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Reads a JSON file; one that is missing or damaged is as good as none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file of this worker is damaged");
            None
        }
    }
}

/// Writes a JSON file, through to the disk.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FolderError> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| io_error("encode", path)(io::Error::other(error)))?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename", &temporary))?;
    if let Some(parent) = path.parent() {
        let folder = File::open(parent).map_err(io_error("open", parent))?;
        folder.sync_all().map_err(io_error("sync", parent))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use assay_schedule::Stage;

    use super::*;

    fn attempt(folder: &Folder, number: u64, session: u64) -> PathBuf {
        let dir = folder.attempt(AttemptId(number));
        fs::create_dir_all(&dir).unwrap();
        let mut dispatch = crate::testing::dispatch(number, Stage::Wrap);
        dispatch.session = session;
        write_json(&dir.join("task.json"), &dispatch).unwrap();
        dir
    }

    fn made(dir: &Path) -> Made {
        let path = dir.join("output");
        Made { outputs: vec![NewFile { path, units: 1 }], usage: Usage::default(), device: "cpu".into() }
    }

    #[test]
    fn a_second_process_is_kept_out_and_the_next_one_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        assert!(matches!(Folder::open(dir.path()), Err(FolderError::InUse { .. })));
        drop(first);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn sessions_grow_even_when_the_clock_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(folder.begin(1_000).unwrap(), (1_000, vec![]));
        assert_eq!(folder.begin(5).unwrap().0, 1_001);
        folder.set_session(2_000).unwrap();
        assert_eq!(folder.begin(1_500).unwrap().0, 2_001);
        fs::write(dir.path().join("session.json"), "{").unwrap();
        assert_eq!(folder.begin(3_000).unwrap().0, 3_000);
    }

    #[test]
    fn ends_that_were_not_reported_are_kept_and_everything_else_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.begin(1_000).unwrap();
        let sealed = Sealed { report: Report::OutOfMemory, receipt: None };
        let (one, two) = (attempt(&folder, 1, 1_000), attempt(&folder, 2, 1_000));
        write_json(&one.join("report.json"), &sealed).unwrap();
        write_json(&two.join("made.json"), &made(&two)).unwrap();
        fs::write(two.join("output"), "x").unwrap();
        // Still running, outputs gone, of another session, without a task, of another number, no folder at all.
        attempt(&folder, 3, 1_000);
        let four = attempt(&folder, 4, 1_000);
        write_json(&four.join("made.json"), &made(&four)).unwrap();
        let five = attempt(&folder, 5, 999);
        write_json(&five.join("report.json"), &sealed).unwrap();
        let six = folder.attempt(AttemptId(6));
        fs::create_dir_all(six.join("in")).unwrap();
        fs::rename(attempt(&folder, 7, 1_000), folder.attempt(AttemptId(8))).unwrap();
        write_json(&folder.attempt(AttemptId(8)).join("report.json"), &sealed).unwrap();
        fs::write(dir.path().join("attempts/junk"), "x").unwrap();
        let (session, kept) = folder.begin(2_000).unwrap();
        assert_eq!(session, 1_000, "the session goes on");
        let found: Vec<_> = kept
            .iter()
            .map(|kept| (kept.dispatch.attempt.0, kept.made.is_some(), kept.sealed.clone()))
            .collect();
        assert_eq!(found, [(1, false, Some(sealed)), (2, true, None)]);
        assert_eq!(fs::read_dir(dir.path().join("attempts")).unwrap().count(), 2);
        folder.remove(AttemptId(1)).unwrap();
        folder.remove(AttemptId(2)).unwrap();
        folder.remove(AttemptId(2)).unwrap();
        assert_eq!(folder.begin(2_000).unwrap(), (2_000, vec![]));
    }
}
