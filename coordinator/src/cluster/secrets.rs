//! Who may ask: the file of tenants, and the secret that coordinators share. Both are made at the first start.

use std::io::{self, Write};
use std::path::Path;

use assay_service::keys::{new_key, KeyRing};
use assay_service::request::ClusterKey;

use super::ClusterError;
use crate::fsio::{self, io_error, FileError};

const SECRET_BYTES_MIN: usize = 32;
const SECRET_BYTES_MAX: u64 = 4096;

const TENANTS: &str = "\
# Who may ask, and for how much. Read again whenever it changes. Keys stand here as BLAKE3 hashes only:
#   key=assay_$(openssl rand -hex 32); echo $key; printf %s $key | b3sum --no-names
# webhook_secret = \"whsec_…\" (base64 of 24 bytes or more: openssl rand -base64 32) lets a tenant ask for callbacks.
# A key of [[operator]] (name = \"on call\", keys as below) lists the batches of all tenants, and changes nothing.

[[tenant]]
id = 1
name = \"development\"
batches_max = 16               # batches in work
bytes_max = 4294967296         # their payloads together
requests_per_second = 20
burst = 40
keys = [{ name = \"first\", blake3 = \"HASH\" }]
";

/// Opens the file of tenants. Where there is none it is made, with one key, which is returned: it is written nowhere.
///
/// # Errors
/// [`ClusterError::Keys`] for a file that cannot be used, [`ClusterError::File`].
pub fn tenants(path: &Path) -> Result<(KeyRing, Option<String>), ClusterError> {
    let (key, hash) = new_key();
    let is_new = create(path, TENANTS.replace("HASH", &hash).as_bytes())?;
    let keys = KeyRing::open(path)?;
    if keys.get().is_empty() {
        tracing::warn!(path = %path.display(), "no tenant: every request will be refused; remove the file to have one made");
    }
    Ok((keys, is_new.then_some(key)))
}

/// Reads the coordinators' shared secret; makes one where there is none.
///
/// # Errors
/// [`ClusterError::Secret`], [`ClusterError::File`].
pub fn cluster_key(path: &Path) -> Result<ClusterKey, ClusterError> {
    // 32 random bytes in hex, from the same source as API keys.
    let (secret, _) = new_key();
    create(path, format!("{secret}\n").as_bytes())?;
    let bytes = fsio::read_limited(path, SECRET_BYTES_MAX)?;
    let secret = bytes.trim_ascii();
    if secret.len() < SECRET_BYTES_MIN {
        return Err(ClusterError::Secret { path: path.to_owned() });
    }
    Ok(ClusterKey::new(secret))
}

/// Makes a file that only its owner may read, unless it is there; says whether it was made. It is there whole or not at
/// all, whenever the process is killed, and one that another process makes at the same time wins.
fn create(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    let write = || {
        // Made for its owner alone.
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        let is_new = match file.persist_noclobber(path) {
            Ok(_) => true,
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(refused) => return Err(refused.error),
        };
        std::fs::File::open(parent)?.sync_all()?;
        Ok(is_new)
    };
    if path.exists() {
        return Ok(false);
    }
    write().map_err(io_error("create", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_one_key_that_works_and_is_written_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/tenants.toml");
        let (ring, key) = tenants(&path).unwrap();
        let key = key.unwrap();
        assert_eq!(ring.get().tenant_of(&key).unwrap().name, "development");
        assert_eq!(mode(&path), 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&key));
        let (ring, again) = tenants(&path).unwrap();
        assert!(again.is_none() && ring.get().tenant_of(&key).is_some(), "the second start changes nothing");
        std::fs::write(&path, "[[tenant]]").unwrap();
        assert!(matches!(tenants(&path), Err(ClusterError::Keys(_))));
    }

    #[test]
    fn coordinators_with_the_same_file_understand_each_other() {
        use assay_schedule::{BatchId, TenantId};
        use assay_service::request::{Command, Post, Request, RequestId};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.secret");
        let one = cluster_key(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let command = Command::Cancel { tenant: TenantId(1), batch: BatchId(2) };
        let post = one.seal(&Post::Request(Box::new(Request { id: RequestId::random(), command })));
        assert!(cluster_key(&path).unwrap().open(&post).is_ok());
        assert!(cluster_key(&dir.path().join("other")).unwrap().open(&post).is_err());
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(cluster_key(&path), Err(ClusterError::Secret { .. })));
    }
}
