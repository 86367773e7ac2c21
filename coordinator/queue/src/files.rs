//! Files and their hashes, in pieces.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::FileError;

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A file that vanishes unless it is renamed. It gets ordinary permissions: what it becomes is for everybody whom the
/// umask allows.
pub(crate) fn temporary_in(folder: &Path) -> Result<tempfile::NamedTempFile, FileError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-").permissions(Permissions::from_mode(0o644));
    builder.tempfile_in(folder).map_err(FileError::of("write in", folder))
}

/// Copies to the end; returns the hash and the number of bytes.
pub(crate) fn copy_hashed(from: &mut impl Read, to: &mut impl Write) -> io::Result<(blake3::Hash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok((hasher.finalize(), bytes)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        bytes += read as u64;
    }
}

/// Reads to the end; returns the hash and the bytes.
pub(crate) fn read_hashed(from: &mut impl Read) -> io::Result<(blake3::Hash, Vec<u8>)> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    Ok((blake3::hash(&bytes), bytes))
}

/// Hash and size of a file; of its first `bytes_max + 1` bytes if it is longer.
pub(crate) fn hash_file(path: &Path, bytes_max: u64) -> Result<(blake3::Hash, u64), FileError> {
    let file = File::open(path).map_err(FileError::of("open", path))?;
    let mut file = file.take(bytes_max.saturating_add(1));
    copy_hashed(&mut file, &mut io::sink()).map_err(FileError::of("read", path))
}
