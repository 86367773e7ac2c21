//! Why a run could not be made.

use std::path::{Path, PathBuf};

use crate::options::Weakness;

/// Why a run could not be made. What a run finds is in its report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChaosError {
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {source}; redis-server 7 or later has to be in PATH")]
    Start {
        /// Which.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Redis does not come up.
    #[error("redis-server does not answer: {reason}")]
    Redis {
        /// Its last words.
        reason: String,
    },
    /// The cluster does not come up without any fault.
    #[error("the cluster does not start within {seconds} s: {reason}; its logs are in {dir}")]
    Cluster {
        /// How long it was waited for.
        seconds: u64,
        /// What is missing.
        reason: String,
        /// Where the logs are.
        dir: PathBuf,
    },
    /// The moment at which a build with a defect is to be struck has not come.
    #[error("no moment to show {weakness:?} within {seconds} s; the run's logs are in {dir}")]
    Moment {
        /// The defect.
        weakness: Weakness,
        /// How long it was waited for.
        seconds: u64,
        /// Where the logs are.
        dir: PathBuf,
    },
    /// Queue or store cannot be looked at.
    #[error("cannot look at the cluster's {what}: {reason}")]
    Look {
        /// Queue or store.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The system does not give what the run needs.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Its reason.
        source: std::io::Error,
    },
    /// The folder has something in it.
    #[error("{path} is not empty; give --dir an empty folder, or none")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Ended by ctrl-c or SIGTERM; all processes are ended too.
    #[error("interrupted")]
    Interrupted,
}

impl ChaosError {
    /// For `map_err`.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    pub(crate) fn look(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Look { what, reason: reason.to_string() }
    }
}
