//! Which back end a user asked for, as a value that configuration and command lines can hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BackendError, BitcoinBackend, Bitcoind, InProcessRegtest, RpcAuth};

/// A back end that is not open yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendSpec {
    /// Core's consensus code in this process, on a directory.
    InProcess {
        /// Directory of the chain; created when absent.
        dir: PathBuf,
    },
    /// A bitcoind.
    Bitcoind {
        /// `host:port`.
        endpoint: String,
        /// Credentials.
        auth: RpcAuth,
    },
}

impl BackendSpec {
    /// Reads `http://[user:password@]host:port`; `cookie` is the path of the node's `.cookie` file, if that is to be used.
    ///
    /// # Errors
    /// `Url` if it is not such a URL, or if neither or both kinds of credentials are given.
    pub fn bitcoind(url: &str, cookie: Option<&Path>) -> Result<Self, BackendError> {
        let fail = |detail: &str| BackendError::Url { detail: detail.to_owned() };
        let rest = url.strip_prefix("http://").ok_or_else(|| fail("it does not start with http://"))?;
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, rest),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        let (name, port) = host.rsplit_once(':').ok_or_else(|| fail("it has no port"))?;
        if name.is_empty() || name.contains('/') || port.parse::<u16>().is_err() {
            return Err(fail("host and port are not host:port"));
        }
        let auth = match (credentials, cookie) {
            (Some(_), Some(_)) => {
                return Err(fail("it holds credentials and a cookie file is given as well"))
            }
            (None, None) => return Err(fail("it holds no user:password and no cookie file is given")),
            (None, Some(path)) => RpcAuth::Cookie(path.to_owned()),
            (Some(credentials), None) => {
                let (user, password) =
                    credentials.split_once(':').ok_or_else(|| fail("credentials are not user:password"))?;
                RpcAuth::user(user, password)
            }
        };
        Ok(Self::Bitcoind { endpoint: host.to_owned(), auth })
    }

    /// Opens the back end; for a node this makes the first call.
    ///
    /// # Errors
    /// Those of [`InProcessRegtest::open`] and [`Bitcoind::connect`].
    pub fn open(&self) -> Result<Arc<dyn BitcoinBackend>, BackendError> {
        Ok(match self {
            Self::InProcess { dir } => Arc::new(InProcessRegtest::open(dir)?),
            Self::Bitcoind { endpoint, auth } => Arc::new(Bitcoind::connect(endpoint, auth.clone())?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_url_with_one_kind_of_credentials() {
        let spec = BackendSpec::bitcoind("http://u:p:w@127.0.0.1:18443/", None).unwrap();
        assert_eq!(
            spec,
            BackendSpec::Bitcoind { endpoint: "127.0.0.1:18443".into(), auth: RpcAuth::user("u", "p:w") }
        );
        assert!(!format!("{spec:?}").contains("p:w"), "the password is not printed");
        let cookie = Path::new("/n/.cookie");
        assert_eq!(
            BackendSpec::bitcoind("http://localhost:8332", Some(cookie)).unwrap(),
            BackendSpec::Bitcoind { endpoint: "localhost:8332".into(), auth: RpcAuth::Cookie(cookie.into()) }
        );
        for bad in [
            "localhost:8332",
            "https://u:p@h:1",
            "http://u:p@h",
            "http://u@h:1",
            "http://h:1",
            "http://u:p@:1",
        ] {
            assert!(BackendSpec::bitcoind(bad, None).is_err(), "{bad}");
        }
        assert!(BackendSpec::bitcoind("http://u:p@h:1", Some(cookie)).is_err());
    }
}
