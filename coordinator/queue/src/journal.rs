//! A file of checksummed frames that only grows: what the embedded implementations remember with.
//!
//! Frame: length (u32, little endian), its complement, first 8 bytes of the payload's BLAKE3, payload. The complement
//! tells a damaged length from the torn end of a file: a death in the middle of a write leaves a beginning of a frame,
//! which is cut off when the file is opened; anything else is reported.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{BackendError, FileError};

/// What a stored change outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process, not that of the machine.
    #[default]
    Process,
    /// That of the machine too: every change waits for the disk.
    Disk,
}

const MAGIC_BYTES: usize = 8;
const HEADER_BYTES: usize = 16;

/// The file, open at its end. One process at a time.
pub(crate) struct Journal {
    path: PathBuf,
    magic: [u8; MAGIC_BYTES],
    file: File,
    len: u64,
    durability: Durability,
    /// A frame could neither be written nor taken back: nothing may follow it.
    is_broken: bool,
}

impl Journal {
    /// Opens or creates the file and hands every payload in it to `apply`, in order.
    ///
    /// # Errors
    /// [`BackendError::Journal`] for damage, and for a payload that `apply` does not take; [`BackendError::File`].
    pub(crate) fn open(
        path: &Path,
        magic: [u8; MAGIC_BYTES],
        durability: Durability,
        mut apply: impl FnMut(&[u8]) -> Result<(), &'static str>,
    ) -> Result<Self, BackendError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(FileError::of("open", path))?;
        let size = file.metadata().map_err(FileError::of("read", path))?.len();
        let mut journal = Self { path: path.to_owned(), magic, file, len: 0, durability, is_broken: false };
        if size < MAGIC_BYTES as u64 {
            journal.begin()?;
            return Ok(journal);
        }
        let mut reader = BufReader::new(&journal.file);
        let mut start = [0; MAGIC_BYTES];
        reader.read_exact(&mut start).map_err(FileError::of("read", path))?;
        if start != magic {
            return Err(journal.damaged(0, "it is not a file of this kind and version"));
        }
        let mut offset = MAGIC_BYTES as u64;
        while let Some(payload) = journal.next_frame(&mut reader, offset, size)? {
            apply(&payload).map_err(|reason| journal.damaged(offset, reason))?;
            offset += (HEADER_BYTES + payload.len()) as u64;
        }
        drop(reader);
        if offset < size {
            tracing::warn!(path = %path.display(), bytes = size - offset, "torn end of the journal cut off");
            journal.file.set_len(offset).map_err(FileError::of("truncate", path))?;
        }
        journal.len = offset;
        journal.file.seek(SeekFrom::Start(offset)).map_err(FileError::of("seek in", path))?;
        Ok(journal)
    }

    /// Bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends a frame, wholly or not at all.
    ///
    /// # Errors
    /// [`FileError`]; the frame is then not in the file.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<(), FileError> {
        if self.is_broken {
            let reason = std::io::Error::other("an earlier write failed half-way: restart the process");
            return Err(FileError::of("write", &self.path)(reason));
        }
        let written = frame(payload).and_then(|frame| {
            self.file.write_all(&frame)?;
            if self.durability == Durability::Disk {
                self.file.sync_data()?;
            }
            Ok(frame.len() as u64)
        });
        match written {
            Ok(bytes) => {
                self.len += bytes;
                Ok(())
            }
            Err(error) => {
                let taken_back =
                    self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
                self.is_broken = taken_back.is_err();
                Err(FileError::of("write", &self.path)(error))
            }
        }
    }

    /// Puts one frame in the place of all others, at one moment.
    ///
    /// # Errors
    /// [`FileError`]; the journal is then as before.
    pub(crate) fn replace(&mut self, payload: &[u8]) -> Result<(), FileError> {
        let fresh = self.path.with_extension("new");
        let written = (|| {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&fresh)?;
            file.write_all(&self.magic)?;
            let frame = frame(payload)?;
            file.write_all(&frame)?;
            file.sync_all()?;
            Ok((file, (MAGIC_BYTES + frame.len()) as u64))
        })();
        let (file, len) = written.map_err(FileError::of("write", &fresh))?;
        std::fs::rename(&fresh, &self.path).map_err(FileError::of("rename", &fresh))?;
        (self.file, self.len, self.is_broken) = (file, len, false);
        sync_folder(&self.path);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), FileError> {
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all(&self.magic))
            .and_then(|()| self.file.sync_all());
        written.map_err(FileError::of("write", &self.path))?;
        self.len = MAGIC_BYTES as u64;
        sync_folder(&self.path);
        Ok(())
    }

    /// The payload at `offset`; `None` at the end of the file, torn or not.
    fn next_frame(
        &self,
        reader: &mut impl Read,
        offset: u64,
        size: u64,
    ) -> Result<Option<Vec<u8>>, BackendError> {
        let left = size - offset;
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let io = || FileError::of("read", &self.path);
        let mut header = [0; HEADER_BYTES];
        reader.read_exact(&mut header).map_err(io())?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = u64::from(word(0));
        if word(4) != !word(0) {
            return match only_zeros(&header, reader).map_err(io())? {
                true => Ok(None),
                false => Err(self.damaged(offset, "the length of a frame is not what was written")),
            };
        }
        let end = HEADER_BYTES as u64 + len;
        if end > left {
            return Ok(None);
        }
        let mut payload = Vec::new();
        reader.take(len).read_to_end(&mut payload).map_err(io())?;
        if header[8..] != checksum(&payload) {
            return match end == left {
                true => Ok(None),
                false => Err(self.damaged(offset, "a frame is not what was written")),
            };
        }
        Ok(Some(payload))
    }

    fn damaged(&self, offset: u64, reason: &'static str) -> BackendError {
        BackendError::Journal { path: self.path.clone(), offset, reason }
    }
}

/// First 8 bytes of BLAKE3.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut checksum = [0; 8];
    checksum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    checksum
}

fn frame(payload: &[u8]) -> std::io::Result<Vec<u8>> {
    let len = u32::try_from(payload.len()).map_err(|_| std::io::Error::other("frame of over 4 GiB"))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&(!len).to_le_bytes());
    frame.extend_from_slice(&checksum(payload));
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// What a machine that lost power can leave of a write.
fn only_zeros(header: &[u8], reader: &mut impl Read) -> std::io::Result<bool> {
    if header.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    let mut buffer = [0; 8192];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(true);
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
}

/// Makes the name of a new or renamed file durable, as far as the file system can.
pub(crate) fn sync_folder(path: &Path) {
    let folder = path.parent().unwrap_or(Path::new("."));
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::warn!(folder = %folder.display(), %error, "folder not synced");
    }
}

/// Takes the folder for this process until the file is dropped.
///
/// # Errors
/// [`BackendError::InUse`]; [`BackendError::File`].
pub(crate) fn lock_folder(folder: &Path) -> Result<File, BackendError> {
    std::fs::create_dir_all(folder).map_err(FileError::of("create", folder))?;
    let path = folder.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(FileError::of("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(BackendError::InUse { path: folder.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(FileError::of("lock", &path)(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"testing1";

    fn read(path: &Path) -> Result<Vec<Vec<u8>>, BackendError> {
        let mut found = Vec::new();
        Journal::open(path, MAGIC, Durability::Process, |payload| {
            found.push(payload.to_vec());
            Ok(())
        })?;
        Ok(found)
    }

    fn three_frames(folder: &Path) -> (PathBuf, Vec<u8>) {
        let path = folder.join("journal");
        let mut journal = Journal::open(&path, MAGIC, Durability::Disk, |_| Ok(())).unwrap();
        for payload in [&b"one"[..], b"two", b"three"] {
            journal.append(payload).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, journal.len());
        (path, bytes)
    }

    #[test]
    fn a_file_cut_anywhere_yields_the_whole_frames_before_the_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = three_frames(folder.path());
        let ends = [8, 8 + 19, 8 + 38, 8 + 59];
        assert_eq!(bytes.len(), ends[3]);
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends[1..].iter().filter(|end| **end <= cut).count();
            assert_eq!(read(&path).unwrap().len(), whole, "cut at {cut}");
            // The torn end is gone: what is appended now is found again.
            let mut journal = Journal::open(&path, MAGIC, Durability::Process, |_| Ok(())).unwrap();
            journal.append(b"after").unwrap();
            let found = read(&path).unwrap();
            assert_eq!((found.len(), found.last().unwrap().as_slice()), (whole + 1, &b"after"[..]));
        }
    }

    #[test]
    fn zeros_after_the_last_frame_are_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut bytes) = three_frames(folder.path());
        bytes.extend_from_slice(&[0; 100]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().len(), 3);
    }

    #[test]
    fn a_flipped_bit_before_the_last_frame_is_reported_and_nothing_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = three_frames(folder.path());
        for at in 0..8 + 38 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(matches!(read(&path), Err(BackendError::Journal { .. })), "byte {at}");
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_replaced_journal_holds_one_frame_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = three_frames(folder.path());
        let mut journal = Journal::open(&path, MAGIC, Durability::Process, |_| Ok(())).unwrap();
        journal.replace(b"all").unwrap();
        journal.append(b"four").unwrap();
        drop(journal);
        assert_eq!(read(&path).unwrap(), [b"all".to_vec(), b"four".to_vec()]);
    }

    #[test]
    fn a_folder_belongs_to_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock_folder(folder.path()).unwrap();
        assert!(matches!(lock_folder(folder.path()), Err(BackendError::InUse { .. })));
        drop(held);
        lock_folder(folder.path()).unwrap();
    }
}
