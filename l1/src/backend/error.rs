//! Errors of back ends.

use std::path::PathBuf;

use bitcoin::Txid;

use crate::error::Class;

/// Why a back end could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The mempool refused a transaction.
    #[error("transaction {txid} was rejected: {reason}")]
    Rejected {
        /// The transaction.
        txid: Txid,
        /// Bitcoin Core's reason, such as `bad-txns-inputs-missingorspent` or `non-BIP68-final`.
        reason: String,
    },
    /// The mempool refused a package. Parents that are good without their child may have been taken.
    #[error("package was rejected: {reason}{}", list(transactions))]
    PackageRejected {
        /// Bitcoin Core's reason, such as `transaction failed` or `package topology disallowed`.
        reason: String,
        /// The transactions refused, each with its own reason; empty if the package as such was refused.
        transactions: Vec<(Txid, String)>,
    },
    /// Consensus refused a block.
    #[error("block was rejected by consensus: {reason}")]
    BlockRejected {
        /// Bitcoin Core's reason.
        reason: String,
    },
    /// The chain has no such thing.
    #[error("not found: {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The node did not answer.
    #[error("cannot reach bitcoind at {endpoint}: {detail}")]
    Unreachable {
        /// Host and port, without credentials.
        endpoint: String,
        /// What went wrong.
        detail: String,
    },
    /// The node refused the credentials.
    #[error("bitcoind at {endpoint} refused the credentials (user:password in the URL, or a cookie file)")]
    Unauthorised {
        /// Host and port.
        endpoint: String,
    },
    /// The node answered with an error.
    #[error("bitcoind answered `{method}` with error {code}: {message}")]
    Rpc {
        /// Method called.
        method: String,
        /// JSON-RPC error code.
        code: i64,
        /// The node's message.
        message: String,
    },
    /// The node's answer does not have the expected form.
    #[error("bitcoind's answer to `{method}` is not understood: {detail}")]
    Malformed {
        /// Method called.
        method: String,
        /// What was expected.
        detail: String,
    },
    /// The URL of a node is not one.
    #[error("not a bitcoind url: {detail} (expected http://user:password@host:port)")]
    Url {
        /// What is wrong; never the password.
        detail: String,
    },
    /// Another process has the in-process chain open.
    #[error("the in-process chain in {} is open in another process", dir.display())]
    Locked {
        /// Directory of the chain.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot access {}: {source}", path.display())]
    Storage {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Core's consensus library failed for a reason that is not a verdict.
    #[error("bitcoin kernel: {detail}")]
    Kernel {
        /// The library's message.
        detail: String,
    },
}

/// How Core's messages about itself begin (`CHECK_NONFATAL`).
const NODE_CHECK: &str = "Internal bug detected";

impl BackendError {
    /// What a caller may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::Locked { .. } => Class::Transient,
            // -28: the node is warming up.
            Self::Rpc { code: -28, .. } => Class::Transient,
            // A check of Core's own that it survives: `submitpackage` fails one if a block takes the package's transactions meanwhile.
            Self::Rpc { code: -1, message, .. } if message.starts_with(NODE_CHECK) => Class::Transient,
            Self::Kernel { .. } => Class::Bug,
            _ => Class::Permanent,
        }
    }

    pub(crate) fn storage(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Storage { path, source }
    }
}

fn list(transactions: &[(Txid, String)]) -> String {
    transactions.iter().map(|(txid, reason)| format!("; {txid}: {reason}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_own_bug_is_worth_another_try_and_a_wrong_call_is_not() {
        let error = |code, message: &str| BackendError::Rpc {
            method: "submitpackage".into(),
            code,
            message: message.into(),
        };
        // As Core 31 answers where a block was connected meanwhile.
        let race =
            "Internal bug detected: mempool.exists(tx->GetHash())\n./rpc/mempool.cpp:1440 (submitpackage)";
        assert_eq!(error(-1, race).class(), Class::Transient);
        assert_eq!(error(-1, "submitpackage [\"rawtx\",...]").class(), Class::Permanent);
        assert_eq!(error(-8, race).class(), Class::Permanent);
    }
}
