//! API keys: who may ask, and for how much.
//!
//! The file is TOML; it holds hashes, never the keys themselves, and the secrets that webhooks are signed with, so it
//! should be readable by the service alone.
//! ```toml
//! [[tenant]]
//! id = 1
//! name = "acme"
//! batches_max = 16               # batches in work
//! bytes_max = 4294967296         # their payloads together
//! requests_per_second = 20
//! burst = 40
//! webhook_secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
//! # key=assay_$(openssl rand -hex 32); echo $key; printf %s $key | b3sum --no-names
//! keys = [{ name = "ci", blake3 = "…64 hex digits…" }]
//!
//! [[operator]]                   # sees the batches of all tenants, and changes nothing
//! name = "on call"
//! keys = [{ name = "anna", blake3 = "…" }]
//! ```
//! A key is 32 random bytes or more, so a plain hash of it cannot be searched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use assay_schedule::TenantId;
use base64::Engine as _;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// Largest key file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most keys in a file: each request is compared with all of them.
const KEYS_MAX: usize = 4096;
/// Longest key that is looked at, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// What a key starts with, so that scanners for leaked secrets find it.
const KEY_PREFIX: &str = "assay_";
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES_MIN: usize = 24;
const NAME: &str = "a name has 1 to 64 bytes";

/// A key file that cannot be used. Never holds a key or a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is too large.
    #[error("{path} is limited to {max} bytes, got {got}")]
    Oversize {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: u64,
        /// Its size.
        got: u64,
    },
    /// No TOML of the described form.
    #[error("key file, line {line}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Why; never the line itself.
        reason: String,
    },
    /// A value that cannot be used.
    #[error("tenant {tenant}: {reason}")]
    Value {
        /// Whose.
        tenant: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A value of an operator that cannot be used.
    #[error("operator: {reason}")]
    Operator {
        /// What is wrong.
        reason: &'static str,
    },
    /// Too many keys.
    #[error("a key file is limited to {max} keys")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenant: Vec<TenantEntry>,
    #[serde(default)]
    operator: Vec<OperatorEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorEntry {
    name: String,
    keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantEntry {
    id: u64,
    name: String,
    #[serde(default = "batches_max")]
    batches_max: u32,
    #[serde(default = "bytes_max")]
    bytes_max: u64,
    #[serde(default = "requests_per_second")]
    requests_per_second: f64,
    #[serde(default = "burst")]
    burst: u32,
    webhook_secret: Option<String>,
    #[serde(default)]
    keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    blake3: String,
}

fn batches_max() -> u32 {
    16
}

fn bytes_max() -> u64 {
    4 << 30
}

fn requests_per_second() -> f64 {
    20.0
}

fn burst() -> u32 {
    40
}

/// A customer.
#[derive(Clone, PartialEq)]
pub struct Tenant {
    /// Who.
    pub id: TenantId,
    /// For logs and people.
    pub name: String,
    /// Batches in work.
    pub batches_max: u32,
    /// Payloads of these, in bytes.
    pub bytes_max: u64,
    /// Refill of the token bucket.
    pub requests_per_second: f64,
    /// Size of the token bucket.
    pub burst: u32,
    /// What its webhooks are signed with; without one they are not sent.
    pub webhook_secret: Option<Vec<u8>>,
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tenant({}, {:?})", self.id, self.name)
    }
}

/// Operators, in messages and limits; no tenant has this number.
pub const OPERATOR: TenantId = TenantId(u64::MAX);

/// Whose a key is.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// A tenant's.
    Tenant(&'a Tenant),
    /// An operator's: of the deployment, not of any tenant. What it may ask is limited as a tenant's is.
    Operator(&'a Tenant),
}

/// Tenants, operators and their keys.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// With [`OPERATOR`], if there is one.
    tenants: BTreeMap<TenantId, Tenant>,
    hashes: Vec<([u8; 32], TenantId)>,
}

impl Keys {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let got = std::fs::metadata(path).map_err(io)?.len();
        if got > FILE_BYTES_MAX {
            return Err(KeyError::Oversize { path: path.to_owned(), max: FILE_BYTES_MAX, got });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(io)?)
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let file: File = toml::from_str(text).map_err(|error| KeyError::Syntax {
            line: error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
            // The message of a TOML error may quote the line; only its first line is the reason.
            reason: error.message().lines().next().unwrap_or_default().to_owned(),
        })?;
        let mut keys = Self::default();
        for entry in file.tenant {
            keys.add(entry)?;
        }
        for entry in file.operator {
            keys.add_operator(entry)?;
        }
        Ok(keys)
    }

    fn add_operator(&mut self, entry: OperatorEntry) -> Result<(), KeyError> {
        if entry.name.is_empty() || entry.name.len() > 64 {
            return Err(KeyError::Operator { reason: NAME });
        }
        self.add_keys(OPERATOR, &entry.keys).map_err(|error| match error {
            KeyError::Value { reason, .. } => KeyError::Operator { reason },
            other => other,
        })?;
        // All of them together have one bucket.
        let operators = Tenant {
            id: OPERATOR,
            name: "operators".to_owned(),
            batches_max: 0,
            bytes_max: 0,
            requests_per_second: requests_per_second(),
            burst: burst(),
            webhook_secret: None,
        };
        self.tenants.insert(OPERATOR, operators);
        Ok(())
    }

    fn add_keys(&mut self, of: TenantId, keys: &[KeyEntry]) -> Result<(), KeyError> {
        let wrong = |reason| KeyError::Value { tenant: of.0, reason };
        for key in keys {
            let mut hash = [0; 32];
            hex::decode_to_slice(&key.blake3, &mut hash)
                .map_err(|_| wrong("blake3 must be 64 hex digits"))?;
            if key.name.len() > 64 {
                return Err(wrong(NAME));
            }
            if self.hashes.iter().any(|(known, _)| *known == hash) {
                return Err(wrong("a key is there twice"));
            }
            self.hashes.push((hash, of));
        }
        if self.hashes.len() > KEYS_MAX {
            return Err(KeyError::TooMany { max: KEYS_MAX });
        }
        Ok(())
    }

    fn add(&mut self, entry: TenantEntry) -> Result<(), KeyError> {
        let wrong = |reason| KeyError::Value { tenant: entry.id, reason };
        if !entry.requests_per_second.is_finite() || entry.requests_per_second <= 0.0 || entry.burst == 0 {
            return Err(wrong("requests_per_second and burst must be more than 0"));
        }
        if entry.name.is_empty() || entry.name.len() > 64 {
            return Err(wrong(NAME));
        }
        if entry.id == OPERATOR.0 {
            return Err(wrong("has the operators' number"));
        }
        let webhook_secret = match &entry.webhook_secret {
            None => None,
            Some(text) => Some(
                secret(text)
                    .ok_or_else(|| wrong("webhook_secret must be whsec_ and at least 24 bytes in base64"))?,
            ),
        };
        let id = TenantId(entry.id);
        self.add_keys(id, &entry.keys)?;
        let tenant = Tenant {
            id,
            name: entry.name,
            batches_max: entry.batches_max,
            bytes_max: entry.bytes_max,
            requests_per_second: entry.requests_per_second,
            burst: entry.burst,
            webhook_secret,
        };
        if self.tenants.insert(id, tenant).is_some() {
            return Err(KeyError::Value { tenant: id.0, reason: "is there twice" });
        }
        Ok(())
    }

    /// The tenant whose key this is; `None` for an operator's too.
    pub fn tenant_of(&self, key: &str) -> Option<&Tenant> {
        match self.caller_of(key)? {
            Caller::Tenant(tenant) => Some(tenant),
            Caller::Operator(_) => None,
        }
    }

    /// Whose key this is. Takes the same time for every key of the same length, whether or not it is one.
    pub fn caller_of(&self, key: &str) -> Option<Caller<'_>> {
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        let hash = blake3::hash(key.as_bytes());
        let mut found: u64 = 0;
        for (at, (known, _)) in (1u64..).zip(&self.hashes) {
            // At most one is equal: hashes are distinct.
            let is_equal = known.ct_eq(hash.as_bytes()).unwrap_u8();
            found |= at & (u64::from(is_equal)).wrapping_neg();
        }
        let (_, id) = self.hashes.get(usize::try_from(found.checked_sub(1)?).ok()?)?;
        let caller = self.tenants.get(id)?;
        Some(if *id == OPERATOR { Caller::Operator(caller) } else { Caller::Tenant(caller) })
    }

    /// A tenant.
    pub fn tenant(&self, id: TenantId) -> Option<&Tenant> {
        self.tenants.get(&id)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether nobody has a key.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// The keys as they are now: the file may change while the service runs.
#[derive(Default)]
pub struct KeyRing {
    keys: RwLock<Arc<Keys>>,
    file: Option<(PathBuf, Mutex<Option<SystemTime>>)>,
}

impl KeyRing {
    /// Keys that do not change.
    pub fn fixed(keys: Keys) -> Self {
        Self { keys: RwLock::new(Arc::new(keys)), file: None }
    }

    /// Keys from a file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let modified = modified(path);
        let keys = RwLock::new(Arc::new(Keys::read(path)?));
        Ok(Self { keys, file: Some((path.to_owned(), Mutex::new(modified))) })
    }

    /// The keys.
    pub fn get(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read())
    }

    /// Reads the file again if it has changed; a file that cannot be used changes nothing. Returns whether it did.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn refresh(&self) -> Result<bool, KeyError> {
        let Some((path, known)) = &self.file else { return Ok(false) };
        let modified = modified(path);
        if *known.lock() == modified {
            return Ok(false);
        }
        let keys = Keys::read(path)?;
        *self.keys.write() = Arc::new(keys);
        *known.lock() = modified;
        Ok(true)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn secret(text: &str) -> Option<Vec<u8>> {
    let encoded = text.strip_prefix(SECRET_PREFIX)?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    (bytes.len() >= SECRET_BYTES_MIN).then_some(bytes)
}

/// A new key and the hash that belongs into the file.
pub fn new_key() -> (String, String) {
    let key = format!("{KEY_PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
    let hash = blake3::hash(key.as_bytes()).to_hex().to_string();
    (key, hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(key: &str) -> String {
        let hash = blake3::hash(key.as_bytes()).to_hex();
        format!("[[tenant]]\nid = 7\nname = \"acme\"\nkeys = [{{ name = \"ci\", blake3 = \"{hash}\" }}]\n")
    }

    #[test]
    fn a_key_finds_its_tenant_and_nothing_else_does() {
        let (key, hash) = new_key();
        assert_eq!(blake3::hash(key.as_bytes()).to_hex().to_string(), hash);
        let mut text = file("first");
        text.push_str(&file(&key).replace("id = 7", "id = 8"));
        let keys = Keys::parse(&text).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.tenant_of(&key).unwrap().id, TenantId(8));
        assert_eq!(keys.tenant_of("first").unwrap().id, TenantId(7));
        for wrong in ["", "firs", "first ", &hash, &key[1..], &"x".repeat(100_000)] {
            assert!(keys.tenant_of(wrong).is_none(), "{wrong:.20}");
        }
    }

    #[test]
    fn an_operators_key_is_no_tenants() {
        let hash = |key: &str| blake3::hash(key.as_bytes()).to_hex().to_string();
        let operator = |key: &str| {
            format!(
                "[[operator]]\nname = \"on call\"\nkeys = [{{ name = \"a\", blake3 = \"{}\" }}]\n",
                hash(key)
            )
        };
        let text = format!("{}{}{}", file("mine"), operator("one"), operator("two"));
        let keys = Keys::parse(&text).unwrap();
        for key in ["one", "two"] {
            assert!(keys.tenant_of(key).is_none(), "{key}");
            assert!(matches!(keys.caller_of(key), Some(Caller::Operator(_))), "{key}");
        }
        assert!(matches!(keys.caller_of("mine"), Some(Caller::Tenant(_))));
        assert!(keys.caller_of("three").is_none());
        for wrong in [
            format!("{}{}", file("mine"), operator("mine")),
            operator("one").replace("on call", ""),
            operator("one").replace("blake3 = \"", "blake3 = \"zz"),
            operator("one").replace("keys", "locks"),
            file("mine").replace("id = 7", &format!("id = {}", u64::MAX)),
        ] {
            Keys::parse(&wrong).unwrap_err();
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let touch = |text: &str, age: u64| {
            std::fs::write(&path, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        touch(&file("one"), 1);
        let ring = KeyRing::open(&path).unwrap();
        assert!(!ring.refresh().unwrap());
        touch(&file("two"), 2);
        assert!(ring.refresh().unwrap());
        assert!(ring.get().tenant_of("two").is_some() && ring.get().tenant_of("one").is_none());
        touch("[[tenant]]", 3);
        assert!(ring.refresh().is_err());
        assert!(ring.get().tenant_of("two").is_some());
    }

    #[test]
    fn bad_files_are_refused_with_a_reason_that_shows_no_secret() {
        let good = file("k");
        assert!(Keys::parse(&good).is_ok());
        let bad = [
            format!("{good}{good}"),
            format!("{good}{}", good.replace("id = 7", "id = 8")),
            good.replace("name = \"acme\"", "name = \"\""),
            good.replace("blake3 = \"", "blake3 = \"zz"),
            good.replace("id = 7", "id = 7\nburst = 0"),
            good.replace("id = 7", "id = 7\nrequests_per_second = inf"),
            good.replace("id = 7", "id = 7\nunknown = 1"),
            good.replace("id = 7", "id = 7\nwebhook_secret = \"whsec_c2hvcnQ=\""),
            good.replace("id = 7", "id = 7\nwebhook_secret = \"s3cr3t-s3cr3t-s3cr3t-s3cr3t\""),
            good.replace("id = 7", "id = 7\nwebhook_secret = s3cr3t"),
        ];
        for text in bad {
            let error = Keys::parse(&text).unwrap_err().to_string();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
