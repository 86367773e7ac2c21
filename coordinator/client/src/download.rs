//! A result on its way to its folder: beside it first, then renamed.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::client::{Client, FILE_BYTES_MAX};
use crate::error::ClientError;
use crate::wire::{Detail, File, SETTLED};

/// Most files of a result.
const FILES_MAX: usize = 128;

/// A downloaded result that is not in its place yet. Dropping it removes it.
#[derive(Debug)]
pub struct Download {
    partial: TempDir,
    target: PathBuf,
    files: Vec<File>,
}

impl Download {
    /// Downloads all files of a settled batch, and checks their hashes.
    ///
    /// # Errors
    /// [`ClientError::NotSettled`], [`ClientError::Occupied`], [`ClientError::Damaged`], those of the transfer and of files.
    pub async fn fetch(client: &Client, detail: &Detail, target: &Path) -> Result<Self, ClientError> {
        let id = detail.batch.id;
        if detail.batch.phase != SETTLED {
            return Err(ClientError::NotSettled { id, phase: crate::story::shown(&detail.batch.phase) });
        }
        let files = plan(&detail.files)?;
        let parent =
            target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| ClientError::File { what, path, source }
        };
        std::fs::create_dir_all(parent).map_err(io("create", parent))?;
        if target.exists() {
            return Err(ClientError::Occupied { path: target.to_owned() });
        }
        let partial = tempfile::Builder::new()
            .prefix(".partial-")
            .permissions(permissions())
            .tempdir_in(parent)
            .map_err(io("create a folder in", parent))?;
        for file in &files {
            let bytes = client.file(id, file).await?;
            let path = partial.path().join(&file.name);
            std::fs::write(&path, bytes).map_err(io("write", &path))?;
        }
        Ok(Self { partial, target: target.to_owned(), files })
    }

    /// Where the files are, for checks before they are kept.
    pub fn path(&self) -> &Path {
        self.partial.path()
    }

    /// The files.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Moves the folder to its place and returns that.
    ///
    /// # Errors
    /// [`ClientError::File`].
    pub fn keep(self) -> Result<PathBuf, ClientError> {
        let io = |source| ClientError::File { what: "write", path: self.target.clone(), source };
        // What is there now came between; `rename` refuses a folder that is not empty.
        std::fs::rename(self.partial.path(), &self.target).map_err(io)?;
        // It has moved: there is nothing to remove.
        let _ = self.partial.keep();
        Ok(self.target)
    }
}

/// The files to download. A name that could lead out of the folder, or that is there with two contents, is refused.
fn plan(listed: &[File]) -> Result<Vec<File>, ClientError> {
    let damaged = |name: &str, reason: &str| ClientError::Damaged {
        name: crate::story::shown(name),
        reason: reason.into(),
    };
    let mut files: Vec<File> = Vec::new();
    for file in listed {
        if !is_file_name(&file.name) {
            return Err(damaged(&file.name, "not a name for a file"));
        }
        if file.bytes > FILE_BYTES_MAX {
            return Err(damaged(&file.name, "too large"));
        }
        match files.iter().find(|known| known.name == file.name) {
            Some(known) if known != file => return Err(damaged(&file.name, "listed with two contents")),
            Some(_) => {}
            None => files.push(file.clone()),
        }
    }
    if files.len() > FILES_MAX {
        return Err(damaged("result", "too many files"));
    }
    Ok(files)
}

fn is_file_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed)
}

fn permissions() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o755)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, blake3: &str) -> File {
        File { name: name.into(), bytes: 1, blake3: blake3.into() }
    }

    #[test]
    fn names_that_lead_elsewhere_and_contradictions_are_refused() {
        let good = [file("proof.bin", "1"), file("vk.json", "2"), file("proof.bin", "1")];
        assert_eq!(plan(&good).unwrap(), good[..2]);
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0", "ä", &"x".repeat(65)] {
            assert!(matches!(plan(&[file(name, "1")]), Err(ClientError::Damaged { .. })), "{name:?}");
        }
        assert!(plan(&[file("a", "1"), file("a", "2")]).is_err());
        let many: Vec<File> = (0..=FILES_MAX).map(|number| file(&number.to_string(), "1")).collect();
        assert!(plan(&many).is_err());
        assert!(plan(&[File { bytes: FILE_BYTES_MAX + 1, ..file("a", "1") }]).is_err());
    }
}
