//! Where Redis is: one server, a group watched by Sentinels, or a Cluster.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::ConnectionAddr;

use crate::error::BackendError;

/// How to reach the Redis of a deployment.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// * `redis://[user:password@]host[:port][/db]`
    /// * `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/db][?sentinel_user=…&sentinel_password=…]`
    /// * `redis+cluster://[user:password@]host[:port][,host[:port]…]`
    ///
    /// and the same with `rediss` for TLS. `memory=unlimited` in the query accepts a server without `maxmemory`. User and password are percent-encoded.
    pub url: String,
    /// Name of the deployment, 1 to 32 lower-case letters, digits and `-`; several can share a server.
    pub name: String,
    /// File with the password, instead of one in the URL.
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files with this client's certificate and key.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// Longest wait for a connection or an answer.
    pub response_timeout: Duration,
    /// How long a call is tried again before it ends in [`BackendError::Unavailable`].
    pub retry_for: Duration,
    /// Replicas that must have a change before the call that made it succeeds. With 0, a failover can lose changes that
    /// were acknowledged.
    pub replicas_min: u32,
}

impl RedisConfig {
    /// The server at `url`, everything else by default.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            password_file: None,
            ca_file: None,
            client_files: None,
            response_timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(30),
            replicas_min: 0,
        }
    }
}

impl fmt::Debug for RedisConfig {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = Target::parse(self).map(|target| target.to_string());
        f.debug_struct("RedisConfig")
            .field("name", &self.name)
            .field("target", &target)
            .field("password_file", &self.password_file)
            .field("ca_file", &self.ca_file)
            .field("client_files", &self.client_files)
            .field("response_timeout", &self.response_timeout)
            .field("retry_for", &self.retry_for)
            .field("replicas_min", &self.replicas_min)
            .finish()
    }
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) has_tls: bool,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: i64,
    /// Whether a server without a memory limit will do.
    pub(crate) may_be_unlimited: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Server,
    Sentinel { master: String, user: Option<String>, password: Option<String> },
    Cluster,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        match &self.kind {
            TargetKind::Server => write!(f, "{}", hosts.join(",")),
            TargetKind::Sentinel { master, .. } => {
                write!(f, "{master} (by the sentinels {})", hosts.join(","))
            }
            TargetKind::Cluster => write!(f, "the cluster of {}", hosts.join(",")),
        }
    }
}

impl Target {
    /// Parses the URL and reads the password file.
    ///
    /// # Errors
    /// [`BackendError::Config`] without any secret in it, also for a password file that is not there; [`BackendError::File`].
    pub(crate) fn read(config: &RedisConfig) -> Result<Self, BackendError> {
        check_deployment(&config.name)?;
        let mut target = Self::parse(config)?;
        if let Some(path) = &config.password_file {
            let password = std::fs::read_to_string(path)
                .map_err(BackendError::configured("read the password in", path))?;
            target.password = Some(password.trim_end_matches(['\n', '\r']).to_owned());
        }
        Ok(target)
    }

    fn parse(config: &RedisConfig) -> Result<Self, BackendError> {
        let (scheme, rest) = config.url.split_once("://").ok_or_else(|| bad("has no scheme"))?;
        let (scheme, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let has_tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(bad("begins with neither redis:// nor rediss://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (query, may_be_unlimited) = memory(query)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => (None, None),
        };
        let default_port = if kind == "sentinel" { 26_379 } else { 6_379 };
        let hosts =
            hosts.split(',').map(|host| address(host, default_port)).collect::<Result<Vec<_>, _>>()?;
        let (kind, db) = match kind {
            "" if hosts.len() > 1 => {
                return Err(bad("names several hosts: redis+sentinel or redis+cluster?"))
            }
            "" => (TargetKind::Server, path),
            "cluster" if !path.is_empty() => return Err(bad("has a path; a cluster has no databases")),
            "cluster" => (TargetKind::Cluster, ""),
            "sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                let master = decoded(master)?.ok_or_else(|| bad("does not name the master: …/master"))?;
                let (user, password) = sentinel_login(&query)?;
                (TargetKind::Sentinel { master, user, password }, db)
            }
            _ => return Err(bad("is of an unknown kind: only +sentinel and +cluster are known")),
        };
        if !matches!(kind, TargetKind::Sentinel { .. }) && !query.is_empty() {
            return Err(bad("has a query other than memory=unlimited, which only redis+sentinel takes"));
        }
        let db = match db {
            "" => 0,
            number => {
                let number = number.parse::<u32>();
                number.map(i64::from).map_err(|_| bad("has a database that is not a number"))?
            }
        };
        Ok(Self { kind, has_tls, hosts, user, password, db, may_be_unlimited })
    }

    pub(crate) fn addresses(&self) -> Vec<ConnectionAddr> {
        let address = |(host, port): &(String, u16)| match self.has_tls {
            true => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            false => ConnectionAddr::Tcp(host.clone(), *port),
        };
        self.hosts.iter().map(address).collect()
    }
}

fn bad(reason: &str) -> BackendError {
    BackendError::Config { reason: format!("the Redis URL {reason}") }
}

fn check_deployment(name: &str) -> Result<(), BackendError> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    let reason = "a deployment's name is 1 to 32 lower-case letters, digits and '-'".to_owned();
    Err(BackendError::Config { reason })
}

/// Percent-decodes; `None` for an empty text.
fn decoded(text: &str) -> Result<Option<String>, BackendError> {
    if text.is_empty() {
        return Ok(None);
    }
    let text = percent_encoding::percent_decode_str(text).decode_utf8();
    text.map(|text| Some(text.into_owned())).map_err(|_| bad("is not UTF-8"))
}

fn address(host: &str, default_port: u16) -> Result<(String, u16), BackendError> {
    // An IPv6 address is in brackets.
    let (host, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, port))) => (host, port.strip_prefix(':').unwrap_or(port)),
        Some(None) => return Err(bad("has an unclosed bracket")),
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    if host.is_empty() {
        return Err(bad("has an empty host"));
    }
    let port = match port {
        "" => default_port,
        port => port.parse().map_err(|_| bad("has a port that is not a number"))?,
    };
    Ok((host.to_owned(), port))
}

/// Takes `memory=unlimited` out of a query, if it is there.
fn memory(query: &str) -> Result<(String, bool), BackendError> {
    let (mut rest, mut may_be_unlimited) = (Vec::new(), false);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("memory", "unlimited")) => may_be_unlimited = true,
            Some(("memory", _)) => return Err(bad("has a query memory= other than memory=unlimited")),
            _ => rest.push(pair),
        }
    }
    Ok((rest.join("&"), may_be_unlimited))
}

fn sentinel_login(query: &str) -> Result<(Option<String>, Option<String>), BackendError> {
    let (mut user, mut password) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", value)) => user = decoded(value)?,
            Some(("sentinel_password", value)) => password = decoded(value)?,
            _ => return Err(bad("has a query other than sentinel_user and sentinel_password")),
        }
    }
    Ok((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    fn parse(url: &str) -> Result<Target, BackendError> {
        Target::read(&RedisConfig::new(url, "test"))
    }

    #[test]
    fn a_url_names_a_server_sentinels_or_a_cluster() {
        let plain = parse("redis://localhost").unwrap();
        assert_eq!((plain.kind, plain.hosts), (TargetKind::Server, vec![("localhost".to_owned(), 6379)]));
        let login = parse("rediss://me:p%40ss%2Fword@[::1]:7000/3").unwrap();
        assert!(login.has_tls);
        assert_eq!(login.hosts, [("::1".to_owned(), 7000)]);
        assert_eq!(
            (login.user.unwrap(), login.password.unwrap(), login.db),
            ("me".into(), "p@ss/word".into(), 3)
        );
        let only_password = parse("redis://:secret@h").unwrap();
        assert_eq!((only_password.user, only_password.password), (None, Some("secret".to_owned())));
        let group = parse("redis+sentinel://u:p@a,b:1/mymaster/2?sentinel_password=q").unwrap();
        assert_eq!(group.hosts, [("a".to_owned(), 26379), ("b".to_owned(), 1)]);
        let master =
            TargetKind::Sentinel { master: "mymaster".into(), user: None, password: Some("q".into()) };
        assert_eq!((group.kind, group.db), (master, 2));
        let cluster = parse("rediss+cluster://a:1,b:2").unwrap();
        assert_eq!((cluster.kind, cluster.hosts.len()), (TargetKind::Cluster, 2));
    }

    #[test]
    fn a_bad_url_is_refused_without_telling_its_password() {
        for url in [
            "",
            "localhost",
            "http://h",
            "redis://",
            "redis://a,b",
            "redis://:secret@h:port",
            "redis://:secret@h/x",
            "redis://:secret@h/0?x=y",
            "redis+sentinel://:secret@h",
            "redis+sentinel://h/m?x=secret",
            "redis+cluster://:secret@h/1",
            "redis+other://:secret@h",
            "redis://:secret@[::1",
            "redis://:%ff@h",
        ] {
            let error = parse(url).unwrap_err();
            assert!(matches!(error, BackendError::Config { .. }), "{url}");
            assert!(!error.to_string().contains("secret"), "{url}: {error}");
        }
        for name in ["", "A", "a{b}", &"x".repeat(33)] {
            assert!(Target::read(&RedisConfig::new("redis://h", name)).is_err(), "{name}");
        }
        let shown = format!("{:?}", RedisConfig::new("redis://me:secret@h", "test"));
        assert!(shown.contains("h:6379") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn the_password_file_wins_and_its_line_end_is_no_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "from file\n").unwrap();
        let config =
            RedisConfig { password_file: Some(path), ..RedisConfig::new("redis://me:secret@h", "test") };
        assert_eq!(Target::read(&config).unwrap().password.unwrap(), "from file");
    }
    #[test]
    fn a_password_file_that_is_not_there_is_a_fault_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: PathBuf| {
            let config = RedisConfig { password_file: Some(path), ..RedisConfig::new("redis://h", "test") };
            Target::read(&config).unwrap_err()
        };
        let error = at(folder.path().join("password"));
        assert!(matches!(error, BackendError::Config { .. }), "{error}");
        assert_eq!(error.class(), Class::Permanent, "nothing to wait for");
        assert!(error.to_string().contains("password in") && error.to_string().contains("password: No such"));
        // One that is there and cannot be read may be read later.
        assert_eq!(at(folder.path().to_owned()).class(), Class::Transient);
    }
}
