//! Writes a key section by section under a temporary name; only a finished key gets its name.

use super::{Extent, Header, Section, PAGE};
use crate::groth16::Groth16Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A key under construction, as `<name>.partial` next to its place, locked against other writers.
///
/// Dropped before [`KeyWriter::finish`], it removes the file; a killed process leaves a `.partial` that the next writer
/// overwrites.
pub(in crate::groth16) struct KeyWriter {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    position: u64,
    open: Option<(Section, u64, blake3::Hasher)>,
    extents: [Extent; 9],
    finished: bool,
}

impl KeyWriter {
    pub(in crate::groth16) fn create(target: &Path) -> Result<Self, Groth16Error> {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        let partial = target.with_file_name(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&partial)
            .map_err(Groth16Error::io("create", &partial))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Groth16Error::Busy { path: partial.clone() },
            TryLockError::Error(source) => Groth16Error::io("lock", &partial)(source),
        })?;
        let mut writer = Self {
            file,
            partial,
            target: target.to_path_buf(),
            position: 0,
            open: None,
            extents: [Extent::default(); 9],
            finished: false,
        };
        writer.file.set_len(0).map_err(Groth16Error::io("truncate", &writer.partial))?;
        writer.put(&[0; PAGE])?;
        Ok(writer)
    }

    /// Starts `section`, which must follow the one before.
    pub(in crate::groth16) fn begin(&mut self, section: Section) -> Result<(), Groth16Error> {
        self.end();
        let padding = self.position.next_multiple_of(PAGE as u64) - self.position;
        self.put(&[0; PAGE][..padding as usize])?;
        self.open = Some((section, self.position, blake3::Hasher::new()));
        Ok(())
    }

    /// Appends to the open section.
    pub(in crate::groth16) fn write(&mut self, bytes: &[u8]) -> Result<(), Groth16Error> {
        if let Some((_, _, hasher)) = &mut self.open {
            hasher.update(bytes);
        }
        self.put(bytes)
    }

    /// Writes the header, makes the file durable and gives it its name.
    pub(in crate::groth16) fn finish(
        mut self,
        header: impl FnOnce([Extent; 9]) -> Header,
    ) -> Result<(), Groth16Error> {
        self.end();
        let page = header(self.extents).encode();
        let seek = self.file.seek(SeekFrom::Start(0)).map(|_| ());
        seek.and_then(|()| self.file.write_all(&page))
            .and_then(|()| self.file.sync_all())
            .map_err(Groth16Error::io("write", &self.partial))?;
        std::fs::rename(&self.partial, &self.target).map_err(Groth16Error::io("rename", &self.partial))?;
        self.finished = true;
        let folder = match self.target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Groth16Error::io("sync", folder))
    }

    fn end(&mut self) {
        if let Some((section, offset, hasher)) = self.open.take() {
            let hash = *hasher.finalize().as_bytes();
            self.extents[section as usize] = Extent { offset, length: self.position - offset, hash };
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Groth16Error> {
        self.file.write_all(bytes).map_err(Groth16Error::io("write", &self.partial))?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for KeyWriter {
    fn drop(&mut self) {
        if !self.finished {
            // A file that cannot be removed is overwritten by the next writer.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
