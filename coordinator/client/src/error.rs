//! What can go wrong on the way to a coordinator and back, and what to do about it.

use std::path::PathBuf;

use serde::Deserialize;

/// Exit code of a success.
pub const EXIT_OK: u8 = 0;
/// Exit code of a batch that failed or was cancelled, or a result that is not what it should be.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a request that cannot be granted as it is.
pub const EXIT_BAD_INPUT: u8 = 2;
/// Exit code of a request that may be granted later: nobody answers, or the service is full.
pub const EXIT_TRY_AGAIN: u8 = 3;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL cannot be used.
    #[error("the coordinator's URL {reason}")]
    Url {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No key was given.
    #[error("no API key")]
    NoKey,
    /// The key cannot be sent.
    #[error("the API key is not 1 to 256 visible ASCII characters")]
    Key,
    /// A file of this machine cannot be used.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("{path} holds no certificates: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be set up: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
    /// Nobody answers.
    #[error("{url} does not answer: {reason}")]
    Unreachable {
        /// Without any credentials.
        url: String,
        /// Why.
        reason: String,
    },
    /// The coordinator says no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Whatever answers, it is not the API.
    #[error("{url} answers, but not as a coordinator does: {reason}")]
    NotOurs {
        /// Without any credentials.
        url: String,
        /// What is odd.
        reason: String,
    },
    /// A request that makes no sense.
    #[error("{name}: expected {expected}, got {got:?}")]
    Value {
        /// Flag.
        name: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// There is no result yet, or there will be none.
    #[error("batch {id} is {phase}: it has no complete result")]
    NotSettled {
        /// The batch.
        id: u64,
        /// Its phase.
        phase: String,
    },
    /// The folder for a result is there already.
    #[error("{path} is there already")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A downloaded file is not what the coordinator said.
    #[error("{name}: {reason}")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(std::io::Error),
}

/// An error as the API sends it (RFC 9457).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Names the case; does not change between versions.
    pub code: String,
    /// One line that does not depend on the request.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// The batch it is about.
    pub batch: Option<u64>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", crate::story::shown(&self.title))?;
        if !self.detail.is_empty() {
            write!(f, ": {}", crate::story::shown(&self.detail))?;
        }
        write!(f, " ({})", crate::story::shown(&self.code))
    }
}

impl Problem {
    fn advice(&self) -> String {
        let batch = self.batch.map_or_else(|| "ID".to_owned(), |batch| batch.to_string());
        let again = self.retry_after.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds} s"));
        match self.code.as_str() {
            "unauthorized" => "give a key with --key-file, ASSAY_KEY or --key; the coordinator's operator hands them out, and \
                               a coordinator that starts in an empty folder prints its first one"
                .into(),
            "not_found" => "`assay status` lists your batches; those of other tenants do not show".into(),
            "idempotency_key_reused" => {
                format!("`assay status {batch}` shows the batch that has this key; give this one its own --idempotency-key")
            }
            "out_of_sequence" => "submit the batch first that begins in the state where the last one ends".into(),
            "forbidden" => "this is an operator's key: use one of the tenant whose batch it is".into(),
            "chain_unavailable" => "use a key of the tenant whose rollup it is".into(),
            "not_cancellable" => format!("`assay status {batch}` says how far it is or how it ended"),
            "no_result" => format!("`assay watch {batch}` waits for the end"),
            "deadline_passed" => "give a later --deadline, or leave out --hard".into(),
            "invalid_callback" => "callbacks are https URLs of public addresses, for tenants with a webhook secret".into(),
            "invalid_batch" => "`assay batch show FILE` says what is wrong with a batch file".into(),
            "too_large" => "cut the batch into smaller ones".into(),
            "quota_exceeded" => format!("wait until batches have ended (`assay status`) and try again {again}"),
            "rate_limited" | "timeout" | "overloaded" | "unavailable" => {
                format!("nothing is lost: run the same command again {again}; a submission counts once")
            }
            "internal" => "a bug of the coordinator: its log has more".into(),
            _ => "the coordinator's README explains its codes".into(),
        }
    }
}

impl ClientError {
    /// What to do about it; one line, no full stop.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Problem(problem) => problem.advice(),
            Self::NoKey => "give it with --key-file, ASSAY_KEY or --key".into(),
            Self::Url { .. } => "expected https://host, or http://host:port within a closed network".into(),
            Self::Unreachable { .. } => {
                "is the coordinator running, and is this its URL (--url, ASSAY_URL)? nothing was changed by half".into()
            }
            Self::NotOurs { .. } => "is this the coordinator's URL, or a proxy in front of something else?".into(),
            Self::NotSettled { id, phase } if !crate::wire::is_terminal(phase) => {
                format!("`assay watch {id}` waits for the end")
            }
            Self::NotSettled { id, .. } => format!("`assay status {id}` says why"),
            Self::Occupied { .. } => "remove it or choose another place with --output".into(),
            Self::Damaged { .. } => "fetch again; if that does not help, the coordinator's store is damaged".into(),
            _ => return None,
        })
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => EXIT_TRY_AGAIN,
            Self::Problem(problem) => match problem.status {
                408 | 429 | 503 => EXIT_TRY_AGAIN,
                400..=499 if problem.code != "no_result" => EXIT_BAD_INPUT,
                _ => EXIT_FAILED,
            },
            Self::NotOurs { .. } | Self::NotSettled { .. } | Self::Damaged { .. } | Self::Output(_) => {
                EXIT_FAILED
            }
            _ => EXIT_BAD_INPUT,
        }
    }

    /// Whether the same call may work later.
    pub fn is_transient(&self) -> bool {
        self.exit_code() == EXIT_TRY_AGAIN
    }
}

#[cfg(test)]
mod tests {
    use assay_service::problem::Code;

    use super::*;

    #[test]
    fn every_code_of_the_api_has_advice_of_its_own_and_an_exit_code() {
        for code in Code::ALL {
            let problem = assay_service::problem::Problem::with(*code, "detail").about(7).retry_after(3);
            let json = serde_json::to_vec(&problem).unwrap();
            let problem: Problem = serde_json::from_slice(&json).unwrap();
            let error = ClientError::Problem(Box::new(problem));
            let is_general = matches!(code, Code::InvalidRequest | Code::MethodNotAllowed);
            assert_eq!(error.advice().unwrap().contains("README"), is_general, "{code:?}");
            let try_again = matches!(
                code,
                Code::Timeout
                    | Code::QuotaExceeded
                    | Code::RateLimited
                    | Code::Overloaded
                    | Code::Unavailable
            );
            assert_eq!(error.is_transient(), try_again, "{code:?}");
            assert!(error.to_string().contains(code.as_str()));
        }
    }

    #[test]
    fn text_of_a_server_cannot_steer_the_terminal() {
        let problem = Problem { detail: "\x1b[2J\nfake".into(), ..Problem::default() };
        let text = ClientError::Problem(Box::new(problem)).to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
