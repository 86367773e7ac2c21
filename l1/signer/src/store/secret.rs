//! Files with 32 secret bytes: 64 hexadecimal digits, mode 0600.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use assay_l1::StoreError;
use zeroize::Zeroizing;

use super::file::{replace, sync_parent};

fn storage(path: &Path) -> impl Fn(std::io::Error) -> StoreError + '_ {
    |source| StoreError::Storage { path: path.to_owned(), source }
}

/// Reads a secret, `None` if there is no file or an overwritten one.
///
/// # Errors
/// `Format` if others may read the file or it holds something else; `Storage`.
pub fn read(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
    let format = |detail: String| StoreError::Format { path: path.to_owned(), detail };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(storage(path)(error)),
    };
    let mode = file.metadata().map_err(storage(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format(format!("mode {mode:o}, expected 600: run chmod 600")));
    }
    // One byte more than allowed tells an oversize file.
    let mut text = Zeroizing::new(Vec::with_capacity(80));
    file.take(80).read_to_end(&mut text).map_err(storage(path))?;
    if !text.is_empty() && text.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), bytes.as_mut_slice())
        .map_err(|_| format("not 64 hexadecimal digits".to_owned()))?;
    Ok(Some(bytes))
}

/// Writes a secret durably; its directory is made if need be.
///
/// # Errors
/// `Storage`.
pub fn write(path: &Path, secret: &Zeroizing<[u8; 32]>) -> Result<(), StoreError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(storage(parent))?;
    }
    let mut text = Zeroizing::new([0; 64]);
    hex::encode_to_slice(secret.as_slice(), text.as_mut_slice())
        .map_err(|error| StoreError::Format { path: path.to_owned(), detail: error.to_string() })?;
    replace(path, text.as_slice(), OpenOptions::new().write(true).create(true).truncate(true).mode(0o600))
}

/// Overwrites a secret and removes its file; nothing to do if there is none.
///
/// The overwriting is as good as the file system: one that copies on write, or a flash drive, may keep the old bytes. Then the
/// directory belongs on memory or on an encrypted volume whose key is thrown away.
///
/// # Errors
/// `Storage`.
pub fn delete(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => {
            let length = file.metadata().map_err(storage(path))?.len().clamp(64, 4_096);
            let zeros = vec![0; length as usize];
            file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(storage(path))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(storage(path)(error)),
    }
    std::fs::remove_file(path).map_err(storage(path))?;
    sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_private_and_gone_after_its_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/epoch-3.key");
        assert!(read(&path).unwrap().is_none());
        write(&path, &Zeroizing::new([7; 32])).unwrap();
        assert_eq!(*read(&path).unwrap().unwrap(), [7; 32]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A second name shows what happens to the bytes.
        let other = dir.path().join("other");
        std::fs::hard_link(&path, &other).unwrap();
        delete(&path).unwrap();
        delete(&path).unwrap();
        assert!(read(&path).unwrap().is_none());
        assert_eq!(std::fs::read(&other).unwrap(), [0; 64], "the bytes are overwritten, not only unlinked");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, &Zeroizing::new([7; 32])).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(StoreError::Format { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "07".repeat(33)).unwrap();
        assert!(matches!(read(&path), Err(StoreError::Format { .. })));
    }
}
