//! Who may ask: the file of tenants, and the secret that coordinators share. Both are made at the first start.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    Ok((KeyRing::open(path)?, is_new.then_some(key)))
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

/// Makes a file that only its owner may read, unless it is there; says whether it was made.
fn create(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    }
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(io_error("create", path)(error)),
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a file would be taken for a whole one at the next start.
        let _ = std::fs::remove_file(path);
        return Err(io_error("write", path)(error));
    }
    Ok(true)
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
