//! Settings of `assay coordinator`: where queue and artifacts are, who may ask, which verifying key counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_queue::{ObjectsConfig, RedisConfig};
use serde::Deserialize;

use super::{number, ConfigError};

const LISTEN: &str = "127.0.0.1:8080";
const DEPLOYMENT: &str = "default";
/// A Redis that restarts reads its file for minutes.
const START_WAIT_SECONDS: u64 = 600;
const START_WAIT_SECONDS_MAX: u64 = 86_400;

/// Where the queue is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// URL of the Redis; without it the queue is kept in the coordinator's folder.
    pub redis: Option<String>,
    /// Name of the deployment on it.
    pub deployment: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Replicas that must have a change before it counts.
    pub replicas_min: Option<u32>,
    /// How long a start waits for Redis and the artifact store.
    pub start_wait_seconds: Option<u64>,
}

/// Where artifacts are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// URL of a folder or an S3 bucket.
    pub url: Option<String>,
    /// Options of the object store.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// File with the secret access key.
    pub secret_file: Option<PathBuf>,
}

/// The coordinator itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorSettings {
    /// Its folder.
    pub dir: Option<PathBuf>,
    /// Where it listens.
    pub listen: Option<String>,
    /// File of tenants and their keys.
    pub tenants: Option<PathBuf>,
    /// File with the secret that the coordinators of a deployment share.
    pub cluster_secret: Option<PathBuf>,
    /// BLAKE3 of the verifying key that proofs are checked with, hex.
    pub vk_hash: Option<String>,
    /// Whether a worker runs in this process: `auto`, `always`, `never`.
    pub worker: Option<String>,
    /// Whether callbacks may go to addresses that are not public.
    pub private_callbacks: Option<bool>,
}

/// Where queue and artifacts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the coordinator's folder: one process.
    Embedded,
    /// On servers: any number of coordinators and workers.
    Shared {
        /// The queue, and small artifacts.
        redis: Box<RedisConfig>,
        /// Large artifacts.
        objects: Box<ObjectsConfig>,
    },
}

/// The validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// Queue and artifacts.
    pub place: Place,
    /// Folder for what is this coordinator's own, and for an embedded queue.
    pub dir: PathBuf,
    /// How long a start waits for queue and artifacts.
    pub start_wait: Duration,
    /// Where it listens.
    pub listen: SocketAddr,
    /// File of tenants and their keys.
    pub tenants: PathBuf,
    /// File with the secret that the coordinators of a deployment share.
    pub cluster_secret: PathBuf,
    /// BLAKE3 of the verifying key; `None`: that of this machine's parameters.
    pub vk_hash: Option<[u8; 32]>,
    /// Whether a worker runs in this process.
    pub has_worker: bool,
    /// Whether callbacks may go to addresses that are not public.
    pub private_callbacks: bool,
}

impl CoordinatorConfig {
    /// Validates; `out` is the result folder.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn new(
        queue: QueueSettings,
        store: StoreSettings,
        own: CoordinatorSettings,
        out: &Path,
    ) -> Result<Self, ConfigError> {
        let start_wait_seconds = queue.start_wait_seconds.unwrap_or(START_WAIT_SECONDS);
        let place = place(queue, store)?;
        let dir = own.dir.unwrap_or_else(|| out.join("coordinator"));
        let listen = own.listen.unwrap_or_else(|| LISTEN.to_owned());
        let wrong = |name, expected, got: &str| ConfigError::Value { name, expected, got: got.to_owned() };
        let address: SocketAddr = listen.parse().map_err(|_| {
            wrong("coordinator.listen", "an address with a port, such as 127.0.0.1:8080", &listen)
        })?;
        let vk_hash = match &own.vk_hash {
            None => None,
            Some(text) => {
                let mut hash = [0; 32];
                let expected = "64 hex digits, as `assay verify` prints them";
                hex::decode_to_slice(text, &mut hash)
                    .map_err(|_| wrong("coordinator.vk_hash", expected, text))?;
                Some(hash)
            }
        };
        let has_worker = match own.worker.as_deref().unwrap_or("auto") {
            // Nobody else could take a task from a queue of one process.
            "auto" => place == Place::Embedded,
            "always" => true,
            "never" => false,
            other => return Err(wrong("coordinator.worker", "auto, always or never", other)),
        };
        if !(1..=START_WAIT_SECONDS_MAX).contains(&start_wait_seconds) {
            let got = start_wait_seconds.to_string();
            return Err(wrong("queue.start_wait_seconds", "1 to 86400", &got));
        }
        Ok(Self {
            start_wait: Duration::from_secs(start_wait_seconds),
            listen: address,
            tenants: own.tenants.unwrap_or_else(|| dir.join("tenants.toml")),
            cluster_secret: own.cluster_secret.unwrap_or_else(|| dir.join("cluster.secret")),
            vk_hash,
            has_worker,
            private_callbacks: own.private_callbacks.unwrap_or(false),
            place,
            dir,
        })
    }
}

fn place(queue: QueueSettings, store: StoreSettings) -> Result<Place, ConfigError> {
    let wrong = |name, expected, got: &str| ConfigError::Value { name, expected, got: got.to_owned() };
    let Some(url) = queue.redis else {
        return match store.url {
            None => Ok(Place::Embedded),
            Some(_) => Err(wrong("queue.redis", "a URL, because store.url is set", "none")),
        };
    };
    if !url.starts_with("redis") || !url.contains("://") {
        let expected = "a URL that begins with redis://, rediss://, redis+sentinel:// or redis+cluster://";
        return Err(wrong("queue.redis", expected, "another one"));
    }
    let expected = "a URL that begins with file:/// or s3://, because queue.redis is set";
    let objects_url = store.url.ok_or_else(|| wrong("store.url", expected, "none"))?;
    if !objects_url.starts_with("file:///") && !objects_url.starts_with("s3://") {
        return Err(wrong("store.url", expected, &objects_url));
    }
    let mut redis = RedisConfig::new(url, queue.deployment.unwrap_or_else(|| DEPLOYMENT.to_owned()));
    redis.password_file = queue.password_file;
    redis.ca_file = queue.ca_file;
    redis.replicas_min = queue.replicas_min.unwrap_or(0);
    let mut objects = ObjectsConfig::new(objects_url);
    objects.options = store.options.into_iter().collect();
    objects.secret_file = store.secret_file;
    Ok(Place::Shared { redis: Box::new(redis), objects: Box::new(objects) })
}

impl QueueSettings {
    pub(super) fn from_env(env: &impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Ok(Self {
            redis: env("ASSAY_REDIS"),
            deployment: env("ASSAY_DEPLOYMENT"),
            password_file: env("ASSAY_REDIS_PASSWORD_FILE").map(PathBuf::from),
            ca_file: env("ASSAY_REDIS_CA_FILE").map(PathBuf::from),
            replicas_min: number(env, "ASSAY_REDIS_REPLICAS_MIN")?,
            start_wait_seconds: number(env, "ASSAY_START_WAIT_SECONDS")?,
        })
    }

    pub(super) fn or(self, below: Self) -> Self {
        Self {
            redis: self.redis.or(below.redis),
            deployment: self.deployment.or(below.deployment),
            password_file: self.password_file.or(below.password_file),
            ca_file: self.ca_file.or(below.ca_file),
            replicas_min: self.replicas_min.or(below.replicas_min),
            start_wait_seconds: self.start_wait_seconds.or(below.start_wait_seconds),
        }
    }
}

impl StoreSettings {
    pub(super) fn from_env(env: &impl Fn(&str) -> Option<String>) -> Self {
        Self { url: env("ASSAY_STORE"), ..Self::default() }
    }

    pub(super) fn or(self, below: Self) -> Self {
        Self {
            url: self.url.or(below.url),
            options: if self.options.is_empty() { below.options } else { self.options },
            secret_file: self.secret_file.or(below.secret_file),
        }
    }
}

impl CoordinatorSettings {
    pub(super) fn from_env(env: &impl Fn(&str) -> Option<String>) -> Self {
        Self {
            dir: env("ASSAY_COORDINATOR_DIR").map(PathBuf::from),
            listen: env("ASSAY_LISTEN"),
            tenants: env("ASSAY_TENANTS").map(PathBuf::from),
            cluster_secret: env("ASSAY_CLUSTER_SECRET").map(PathBuf::from),
            vk_hash: env("ASSAY_VK_HASH"),
            worker: env("ASSAY_LOCAL_WORKER"),
            private_callbacks: None,
        }
    }

    pub(super) fn or(self, below: Self) -> Self {
        Self {
            dir: self.dir.or(below.dir),
            listen: self.listen.or(below.listen),
            tenants: self.tenants.or(below.tenants),
            cluster_secret: self.cluster_secret.or(below.cluster_secret),
            vk_hash: self.vk_hash.or(below.vk_hash),
            worker: self.worker.or(below.worker),
            private_callbacks: self.private_callbacks.or(below.private_callbacks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(
        redis: Option<&str>,
        store: Option<&str>,
        own: CoordinatorSettings,
    ) -> Result<CoordinatorConfig, ConfigError> {
        let queue = QueueSettings { redis: redis.map(ToOwned::to_owned), ..Default::default() };
        let store = StoreSettings { url: store.map(ToOwned::to_owned), ..Default::default() };
        CoordinatorConfig::new(queue, store, own, Path::new("out"))
    }

    #[test]
    fn without_a_redis_everything_is_in_a_folder_with_a_worker_of_its_own() {
        let config = config(None, None, CoordinatorSettings::default()).unwrap();
        assert!(config.place == Place::Embedded && config.has_worker && !config.private_callbacks);
        assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.tenants, Path::new("out/coordinator/tenants.toml"));
    }

    #[test]
    fn with_one_the_artifacts_need_a_place_too() {
        let shared = config(Some("redis://h"), Some("s3://b"), CoordinatorSettings::default()).unwrap();
        assert!(matches!(shared.place, Place::Shared { .. }) && !shared.has_worker);
        let settings = CoordinatorSettings { worker: Some("always".into()), ..Default::default() };
        assert!(config(Some("redis://h"), Some("file:///x"), settings).unwrap().has_worker);
        for (redis, store) in [
            (Some("redis://h"), None),
            (None, Some("s3://b")),
            (Some("http://h"), Some("s3://b")),
            (Some("redis://h"), Some("/folder")),
        ] {
            assert!(config(redis, store, CoordinatorSettings::default()).is_err(), "{redis:?} {store:?}");
        }
    }

    #[test]
    fn impossible_values_are_named() {
        let cases = [
            (CoordinatorSettings { listen: Some("8080".into()), ..Default::default() }, "listen"),
            (CoordinatorSettings { vk_hash: Some("00".into()), ..Default::default() }, "vk_hash"),
            (CoordinatorSettings { worker: Some("yes".into()), ..Default::default() }, "worker"),
        ];
        for (settings, word) in cases {
            let error = config(None, None, settings).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let secret = config(Some("me:secret@h"), None, CoordinatorSettings::default()).unwrap_err();
        assert!(!secret.to_string().contains("secret"), "{secret}");
    }
}
