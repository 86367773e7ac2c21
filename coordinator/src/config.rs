//! Configuration of the binary: defaults < file < environment < flags, validated once.
//!
//! The file is `assay.toml` in the current folder, or the one that `--config` names. Unknown fields are errors. The
//! sample file `coordinator/assay.sample.toml` shows every field with its default.

mod coordinator;

use std::path::{Path, PathBuf};

use assay_lvm::RunLimits;
use assay_worker::settings::MEMORY_BYTES_MIN;
use serde::Deserialize;

pub use self::coordinator::{CoordinatorConfig, CoordinatorSettings, Place, QueueSettings, StoreSettings};
use crate::fsio::{self, FileError};

/// Name of the file that is read if it exists.
pub const FILE_NAME: &str = "assay.toml";
/// The environment variables that are read.
pub const VARIABLES: [&str; 23] = [
    "ASSAY_OUT",
    "ASSAY_CACHE",
    "ASSAY_KEYS",
    "ASSAY_BITCOIND",
    "ASSAY_BITCOIND_COOKIE",
    "ASSAY_L1_BATCHES",
    "ASSAY_CORES",
    "ASSAY_MEMORY_GIB",
    "ASSAY_RUN_GAS_MAX",
    "ASSAY_RUN_BLOCKS_MAX",
    "ASSAY_REDIS",
    "ASSAY_REDIS_PASSWORD_FILE",
    "ASSAY_REDIS_CA_FILE",
    "ASSAY_REDIS_REPLICAS_MIN",
    "ASSAY_START_WAIT_SECONDS",
    "ASSAY_DEPLOYMENT",
    "ASSAY_STORE",
    "ASSAY_COORDINATOR_DIR",
    "ASSAY_LISTEN",
    "ASSAY_TENANTS",
    "ASSAY_CLUSTER_SECRET",
    "ASSAY_VK_HASH",
    "ASSAY_LOCAL_WORKER",
];
const FILE_BYTES_MAX: u64 = 1 << 20;
// The message of `validate` says 14.
const _: () = assert!(MEMORY_BYTES_MIN == 14 << 30);

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no TOML, or has a field that does not exist or is of another type.
    #[error("{path}, line {line}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why. Never the line itself, which may hold a password.
        reason: String,
    },
    /// A value is outside its range or not a number.
    #[error("{name}: expected {expected}, got {got:?}")]
    Value {
        /// Field or variable.
        name: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// Neither `ASSAY_CACHE` nor `HOME` says where the cache may be.
    #[error("no place for the cache: set ASSAY_CACHE or HOME")]
    NoHome,
}

/// One source of settings; what is `None` is left to the source below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Result folder.
    pub out: Option<PathBuf>,
    /// Folder of finished stages.
    pub cache: Option<PathBuf>,
    /// Folder of proving keys.
    pub keys: Option<PathBuf>,
    /// Settings of the provers.
    #[serde(default)]
    pub prover: ProverSettings,
    /// Settings of the settlement.
    #[serde(default)]
    pub settle: SettleSettings,
    /// Settings of the contract on Bitcoin.
    #[serde(default)]
    pub l1: L1Settings,
    /// Where the cluster's queue is.
    #[serde(default)]
    pub queue: QueueSettings,
    /// Where the cluster's artifacts are.
    #[serde(default)]
    pub store: StoreSettings,
    /// Settings of `assay coordinator`.
    #[serde(default)]
    pub coordinator: CoordinatorSettings,
}

/// Settings of the provers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProverSettings {
    /// Cores to use, 0 = all.
    pub cores: Option<u32>,
    /// Memory the provers may plan with, in GiB, 0 = five sixths of the machine's.
    pub memory_gib: Option<u32>,
    /// Most gas in one run of blocks.
    pub run_gas_max: Option<u64>,
    /// Most blocks in one run.
    pub run_blocks_max: Option<u32>,
}

/// Settings of the settlement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleSettings {
    /// URL of a bitcoind; without it a regtest chain runs in process.
    pub bitcoind: Option<String>,
    /// File with the node's RPC cookie.
    pub bitcoind_cookie: Option<PathBuf>,
}

/// Settings of the contract on Bitcoin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L1Settings {
    /// Folder from which a running `assay l1 operator` takes proved batches.
    pub batches: Option<PathBuf>,
}

/// The validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Results go to `out/<batch>/`, the chain's state to `out/chain/`.
    pub out: PathBuf,
    /// The content-addressed cache of finished stages, with logs and durations.
    pub cache: PathBuf,
    /// What does not depend on any batch: keys of the zkVM and Groth16 parameters.
    pub keys: PathBuf,
    /// Cores to use, 0 = all.
    pub cores: usize,
    /// Memory the provers may plan with, in bytes, 0 = chosen from the machine.
    pub memory_bytes: u64,
    /// Most gas in one run of blocks.
    pub run_gas_max: u64,
    /// Most blocks in one run.
    pub run_blocks_max: u32,
    /// URL of a bitcoind.
    pub bitcoind: Option<String>,
    /// File with the node's RPC cookie.
    pub bitcoind_cookie: Option<PathBuf>,
    /// Folder into which proved batches are put for `assay l1 operator`: of `assay prove` itself, of a cluster a folder
    /// named after the chain in it.
    pub l1_batches: Option<PathBuf>,
    /// Settings of `assay coordinator`.
    pub coordinator: CoordinatorConfig,
}

impl Config {
    /// Joins the sources. `file` is the content and path of the configuration file, `env` looks variables up.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        file: Option<(&Path, &str)>,
        env: impl Fn(&str) -> Option<String>,
        flags: Settings,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some((path, text)) => toml::from_str(text).map_err(|source: toml::de::Error| {
                let before = source.span().map_or(0, |span| span.start.min(text.len()));
                let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
                ConfigError::Syntax { path: path.to_owned(), line, reason: source.message().to_owned() }
            })?,
            None => Settings::default(),
        };
        let s = flags.or(Settings::from_env(&env)?).or(file);
        let home = env("HOME").map(|home| PathBuf::from(home).join(".cache/assay"));
        let cache = s.cache.or_else(|| home.as_ref().map(|home| home.join("artifacts")));
        let cache = cache.ok_or(ConfigError::NoHome)?;
        let keys = s.keys.or_else(|| home.map(|home| home.join("keys")));
        let out = s.out.unwrap_or_else(|| PathBuf::from("out"));
        let config = Self {
            coordinator: CoordinatorConfig::new(s.queue, s.store, s.coordinator, &out)?,
            out,
            keys: keys.unwrap_or_else(|| cache.join("keys")),
            cache,
            cores: s.prover.cores.unwrap_or(0) as usize,
            memory_bytes: u64::from(s.prover.memory_gib.unwrap_or(0)) << 30,
            run_gas_max: s.prover.run_gas_max.unwrap_or(30_000_000),
            run_blocks_max: s.prover.run_blocks_max.unwrap_or(64),
            bitcoind: s.settle.bitcoind,
            bitcoind_cookie: s.settle.bitcoind_cookie,
            l1_batches: s.l1.batches,
        };
        config.validate()?;
        Ok(config)
    }

    /// How batches are cut into runs.
    pub fn run_limits(&self) -> RunLimits {
        RunLimits { gas_max: self.run_gas_max, blocks_max: self.run_blocks_max as usize }
    }

    /// Reads the file (`explicit`, or [`FILE_NAME`] if it exists) and the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(explicit: Option<&Path>, flags: Settings) -> Result<Self, ConfigError> {
        let default = Path::new(FILE_NAME);
        let path = explicit.or_else(|| default.is_file().then_some(default));
        let text = match path {
            Some(path) => {
                let bytes = fsio::read_limited(path, FILE_BYTES_MAX)?;
                Some((path, String::from_utf8_lossy(&bytes).into_owned()))
            }
            None => None,
        };
        let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        for name in VARIABLES {
            if let Some(value) = std::env::var_os(name).filter(|value| value.to_str().is_none()) {
                let got = value.to_string_lossy().into_owned();
                return Err(ConfigError::Value { name, expected: "UTF-8 text", got });
            }
        }
        Self::new(file, |name| std::env::var(name).ok().filter(|value| !value.is_empty()), flags)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |name, expected, got: String| Err(ConfigError::Value { name, expected, got });
        if self.cores > 4096 {
            return wrong("prover.cores", "0 to 4096", self.cores.to_string());
        }
        if self.memory_bytes != 0 && self.memory_bytes < MEMORY_BYTES_MIN {
            return wrong("prover.memory_gib", "0, or at least 14", (self.memory_bytes >> 30).to_string());
        }
        if self.run_gas_max < 21_000 {
            return wrong("prover.run_gas_max", "at least 21000", self.run_gas_max.to_string());
        }
        let paths = [("out", &self.out), ("cache", &self.cache), ("keys", &self.keys)];
        if let Some((name, path)) = paths.into_iter().find(|(_, path)| path.to_str().is_none()) {
            return wrong(name, "a path in UTF-8", path.to_string_lossy().into_owned());
        }
        if self.run_blocks_max == 0 {
            return wrong("prover.run_blocks_max", "at least 1", "0".into());
        }
        if self.bitcoind.as_ref().is_some_and(|url| !url.starts_with("http://")) {
            return wrong("settle.bitcoind", "a URL that begins with http://", "another one".into());
        }
        if self.bitcoind_cookie.is_some() && self.bitcoind.is_none() {
            return wrong("settle.bitcoind_cookie", "settle.bitcoind beside it", "only the cookie".into());
        }
        Ok(())
    }
}

impl Settings {
    fn from_env(env: &impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Ok(Self {
            out: env("ASSAY_OUT").map(PathBuf::from),
            cache: env("ASSAY_CACHE").map(PathBuf::from),
            keys: env("ASSAY_KEYS").map(PathBuf::from),
            prover: ProverSettings {
                cores: number(env, "ASSAY_CORES")?,
                memory_gib: number(env, "ASSAY_MEMORY_GIB")?,
                run_gas_max: number(env, "ASSAY_RUN_GAS_MAX")?,
                run_blocks_max: number(env, "ASSAY_RUN_BLOCKS_MAX")?,
            },
            settle: SettleSettings {
                bitcoind: env("ASSAY_BITCOIND"),
                bitcoind_cookie: env("ASSAY_BITCOIND_COOKIE").map(PathBuf::from),
            },
            l1: L1Settings { batches: env("ASSAY_L1_BATCHES").map(PathBuf::from) },
            queue: QueueSettings::from_env(env)?,
            store: StoreSettings::from_env(env),
            coordinator: CoordinatorSettings::from_env(env),
        })
    }

    /// `self` where it says something, else `below`.
    fn or(self, below: Self) -> Self {
        Self {
            out: self.out.or(below.out),
            cache: self.cache.or(below.cache),
            keys: self.keys.or(below.keys),
            prover: ProverSettings {
                cores: self.prover.cores.or(below.prover.cores),
                memory_gib: self.prover.memory_gib.or(below.prover.memory_gib),
                run_gas_max: self.prover.run_gas_max.or(below.prover.run_gas_max),
                run_blocks_max: self.prover.run_blocks_max.or(below.prover.run_blocks_max),
            },
            settle: SettleSettings {
                bitcoind: self.settle.bitcoind.or(below.settle.bitcoind),
                bitcoind_cookie: self.settle.bitcoind_cookie.or(below.settle.bitcoind_cookie),
            },
            l1: L1Settings { batches: self.l1.batches.or(below.l1.batches) },
            queue: self.queue.or(below.queue),
            store: self.store.or(below.store),
            coordinator: self.coordinator.or(below.coordinator),
        }
    }
}

fn number<T: std::str::FromStr>(
    env: &impl Fn(&str) -> Option<String>,
    name: &'static str,
) -> Result<Option<T>, ConfigError> {
    env(name)
        .map(|text| {
            text.parse().map_err(|_| ConfigError::Value { name, expected: "a whole number", got: text })
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../assay.sample.toml");

    fn config(file: &str, env: &[(&str, &str)], flags: Settings) -> Result<Config, ConfigError> {
        let lookup = |name: &str| {
            let all = [("HOME", "/home/me")].into_iter().chain(env.iter().copied());
            all.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
        };
        Config::new(Some((Path::new("assay.toml"), file)), lookup, flags)
    }

    #[test]
    fn the_sample_file_says_the_defaults() {
        let sample = config(SAMPLE, &[], Settings::default()).unwrap();
        assert_eq!(sample, config("", &[], Settings::default()).unwrap());
        assert_eq!(sample.cache, Path::new("/home/me/.cache/assay/artifacts"));
        assert_eq!(sample.keys, Path::new("/home/me/.cache/assay/keys"));
    }

    #[test]
    fn the_commented_lines_of_the_sample_file_are_valid_too() {
        let all: String =
            SAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
        let config = config(&all, &[], Settings::default()).unwrap();
        assert!(config.bitcoind.is_some() && config.bitcoind_cookie.is_some() && config.l1_batches.is_some());
        assert_eq!(config.run_limits(), RunLimits::default(), "workers have the same defaults");
        assert!(
            matches!(config.coordinator.place, Place::Shared { .. }) && config.coordinator.vk_hash.is_some()
        );
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file = "out = \"f\"\n[prover]\ncores = 3\nmemory_gib = 15\n";
        let env = [("ASSAY_OUT", "e"), ("ASSAY_CORES", "5")];
        let flags = Settings { out: Some("flag".into()), ..Settings::default() };
        let config = config(file, &env, flags).unwrap();
        assert_eq!((config.out.as_path(), config.cores), (Path::new("flag"), 5));
        assert_eq!(config.memory_bytes, 15 << 30);
        assert_eq!(config.run_blocks_max, 64);
    }

    #[test]
    fn unknown_fields_and_impossible_values_are_named() {
        for (file, env, word) in [
            ("colour = 1", None, "colour"),
            ("[prover]\nspeed = 1", None, "speed"),
            ("[prover]\nmemory_gib = 2", None, "memory_gib"),
            ("[prover]\nrun_blocks_max = 0", None, "run_blocks_max"),
            ("[settle]\nbitcoind = \"ftp://x\"", None, "settle.bitcoind"),
            ("[settle]\nbitcoind_cookie = \"x\"", None, "cookie"),
            ("[coordinator]\nport = 1", None, "port"),
            ("[queue]\nredis = \"redis://h\"", None, "store.url"),
            ("[queue]\nstart_wait_seconds = 0", None, "start_wait_seconds"),
            ("", Some(("ASSAY_LISTEN", "8080")), "listen"),
            ("", Some(("ASSAY_CORES", "many")), "ASSAY_CORES"),
        ] {
            let env: Vec<_> = env.into_iter().collect();
            let error = config(file, &env, Settings::default()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
