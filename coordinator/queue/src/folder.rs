//! The artifact store of one process: a folder of files.
//!
//! `blobs/<ab>/<hash>` are the bytes, `partial/` what is being written, `store.journal` the holds. A blob is renamed into
//! place before its hold is written and removed after its last hold was: a death in between leaves a blob that nobody
//! holds, which `sweep` removes, never a hold without a blob.

mod index;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::error::{BackendError, FileError, StoreError};
use crate::files::{copy_hashed, hash_file, read_hashed, temporary_in};
use crate::journal::{lock_folder, sync_folder, Durability, Journal};
use crate::limits::StoreLimits;
use crate::store::{Artifact, ArtifactStore, Freed, Hold, Stat, Swept, Usage};
use crate::types::Holder;
use index::{Change, Index};

const MAGIC: [u8; 8] = *b"assayst1";
/// The journal is written anew when it is larger than this and than twice its last size after that.
const COMPACT_BYTES_MIN: u64 = 16 << 20;

/// [`ArtifactStore`] of one process. Clones share it.
#[derive(Clone)]
pub struct FolderStore {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    limits: StoreLimits,
    durability: Durability,
    core: Mutex<Core>,
    /// Keeps other processes out of the folder.
    _lock: File,
}

struct Core {
    index: Index,
    journal: Journal,
    compact_at: u64,
}

impl FolderStore {
    /// Opens or creates the store in `folder`. Artifacts whose files are missing or cut count as damaged.
    ///
    /// # Errors
    /// [`BackendError::InUse`], [`BackendError::Journal`], [`BackendError::File`].
    pub fn open(folder: &Path, limits: StoreLimits, durability: Durability) -> Result<Self, BackendError> {
        let lock = lock_folder(folder)?;
        for part in ["blobs", "partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).map_err(FileError::of("create", &part))?;
        }
        let mut index = Index::default();
        let journal = Journal::open(&folder.join("store.journal"), MAGIC, durability, |payload| {
            let change = bincode::deserialize(payload).map_err(|_| "a change does not decode")?;
            index.apply(change);
            Ok(())
        })?;
        for artifact in index.artifacts() {
            let is_whole =
                fs::metadata(blob(folder, &artifact.hash)).is_ok_and(|m| m.len() == artifact.bytes);
            index.set_damaged(&artifact.hash, !is_whole);
        }
        let compact_at = COMPACT_BYTES_MIN.max(2 * journal.len());
        let core = Mutex::new(Core { index, journal, compact_at });
        let shared = Shared { folder: folder.to_owned(), limits, durability, core, _lock: lock };
        Ok(Self { shared: Arc::new(shared) })
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || work(&shared)).await.map_err(BackendError::internal)?
    }
}

impl Core {
    /// Stores a valid change, then makes it visible.
    fn record(&mut self, change: Change) -> Result<(Freed, Vec<blake3::Hash>), StoreError> {
        let payload = bincode::serialize(&change).map_err(BackendError::internal)?;
        self.journal.append(&payload)?;
        let done = self.index.apply(change);
        if self.journal.len() > self.compact_at {
            // Whatever fails here, the long journal is still good.
            match bincode::serialize(&Change::Snapshot(self.index.clone())) {
                Ok(payload) => {
                    if let Err(error) = self.journal.replace(&payload) {
                        tracing::warn!(%error, "store journal not compacted");
                    }
                }
                Err(error) => tracing::warn!(%error, "store index does not encode"),
            }
            self.compact_at = COMPACT_BYTES_MIN.max(2 * self.journal.len());
        }
        Ok(done)
    }

    fn hold(&mut self, holder: &Holder, artifact: Artifact) -> Result<(), StoreError> {
        if self.index.is_held_by(holder, &artifact.hash) {
            return Ok(());
        }
        let hash = *artifact.hash.as_bytes();
        self.record(Change::Hold { holder: holder.clone(), hash, bytes: artifact.bytes })?;
        Ok(())
    }
}

/// Room set aside for a publication.
struct Reservation<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.shared.lock().index.unreserve(self.bytes);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what `write` writes, which has to be `artifact`.
    fn publish(
        &self,
        holder: &Holder,
        artifact: Artifact,
        write: impl FnOnce(&mut File) -> Result<(), StoreError>,
    ) -> Result<Artifact, StoreError> {
        let reservation = {
            let mut core = self.lock();
            core.index.check_fence(holder)?;
            if let Some(known) = core.index.find(&artifact.hash) {
                core.hold(holder, known)?;
                return Ok(known);
            }
            core.index.reserve(&self.limits, &artifact.hash, artifact.bytes)?;
            Reservation { shared: self, bytes: artifact.bytes }
        };
        let partial = self.folder.join("partial");
        let mut temporary = temporary_in(&partial)?;
        write(temporary.as_file_mut())?;
        if self.durability == Durability::Disk {
            temporary.as_file().sync_all().map_err(FileError::of("write", temporary.path()))?;
        }
        let path = blob(&self.folder, &artifact.hash);
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(FileError::of("create", parent))?;

        let mut core = self.lock();
        core.index.check_fence(holder)?;
        // Somebody else may have published it meanwhile; replacing equal bytes does no harm.
        temporary.persist(&path).map_err(|error| match error.error.kind() {
            io::ErrorKind::NotFound => StoreError::Swept { hash: artifact.hash },
            _ => FileError::of("rename to", &path)(error.error).into(),
        })?;
        if self.durability == Durability::Disk {
            // The name of the file, and that of its folder, which may be new.
            sync_folder(&path);
            sync_folder(parent);
        }
        core.index.set_damaged(&artifact.hash, false);
        let held = core.hold(holder, artifact);
        if held.is_err() && !core.index.contains(&artifact.hash) {
            remove_blob(&path);
        }
        drop(core);
        drop(reservation);
        held.map(|()| artifact)
    }

    fn check_size(&self, got: u64) -> Result<(), StoreError> {
        let max = self.limits.artifact_bytes_max;
        if got > max {
            return Err(StoreError::TooLarge { max, got });
        }
        Ok(())
    }

    fn put(&self, holder: &Holder, bytes: &[u8]) -> Result<Artifact, StoreError> {
        self.check_size(bytes.len() as u64)?;
        let artifact = Artifact { hash: blake3::hash(bytes), bytes: bytes.len() as u64 };
        let partial = self.folder.join("partial");
        self.publish(holder, artifact, |file| {
            file.write_all(bytes).map_err(|error| FileError::of("write in", &partial)(error).into())
        })
    }

    fn put_file(&self, holder: &Holder, path: &Path) -> Result<Artifact, StoreError> {
        let metadata = fs::metadata(path).map_err(FileError::of("read", path))?;
        self.check_size(metadata.len())?;
        let (hash, bytes) = hash_file(path, self.limits.artifact_bytes_max)?;
        // It may have grown, or be of a kind that does not tell its size.
        self.check_size(bytes)?;
        let artifact = Artifact { hash, bytes };
        self.publish(holder, artifact, |file| {
            let mut source = File::open(path).map_err(FileError::of("open", path))?.take(bytes);
            if copy_hashed(&mut source, file).map_err(FileError::of("copy", path))? != (hash, bytes) {
                let changed = io::Error::other("it changed while it was published");
                return Err(FileError::of("publish", path)(changed).into());
            }
            Ok(())
        })
    }

    /// Opens an artifact's file and reads it with `read`, which returns what it found the bytes to be.
    fn read<T>(
        &self,
        hash: &blake3::Hash,
        read: impl FnOnce(io::Take<File>) -> Result<((blake3::Hash, u64), T), StoreError>,
    ) -> Result<T, StoreError> {
        let missing = || StoreError::Missing { hash: *hash };
        let stat = self.lock().index.stat(hash).ok_or_else(missing)?;
        let path = blob(&self.folder, hash);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lock().index.set_damaged(hash, true);
                return Err(missing());
            }
            file => file.map_err(FileError::of("open", &path))?,
        };
        // One byte more tells a file that is too long.
        let ((got, bytes), value) = read(file.take(stat.bytes + 1))?;
        if got == *hash && bytes == stat.bytes {
            return Ok(value);
        }
        self.lock().index.set_damaged(hash, true);
        let reason = format!("its file {} holds {bytes} bytes that hash to {got}", path.display());
        Err(StoreError::Corrupt { hash: *hash, reason })
    }

    fn get_to_file(&self, hash: &blake3::Hash, path: &Path) -> Result<u64, StoreError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut temporary = temporary_in(parent.unwrap_or(Path::new(".")))?;
        let bytes = self.read(hash, |mut blob| {
            let found = copy_hashed(&mut blob, temporary.as_file_mut());
            let found = found.map_err(FileError::of("copy to", path))?;
            Ok((found, found.1))
        })?;
        temporary.persist(path).map_err(|error| FileError::of("rename to", path)(error.error))?;
        Ok(bytes)
    }

    /// Records a release or a revocation and deletes the files of what is gone.
    fn let_go(&self, change: Change) -> Result<Freed, StoreError> {
        let mut core = self.lock();
        let (freed, gone) = core.record(change)?;
        // Under the lock: a publication of the same bytes waits.
        gone.iter().for_each(|hash| remove_blob(&blob(&self.folder, hash)));
        Ok(freed)
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept, StoreError> {
        let blobs = self.folder.join("blobs");
        let mut folders = vec![self.folder.join("partial")];
        for entry in fs::read_dir(&blobs).map_err(FileError::of("list", &blobs))? {
            folders.push(entry.map_err(FileError::of("list", &blobs))?.path());
        }
        let mut swept = Swept::default();
        for folder in folders {
            for entry in fs::read_dir(&folder).map_err(FileError::of("list", &folder))? {
                let path = entry.map_err(FileError::of("list", &folder))?.path();
                let Ok(metadata) = fs::metadata(&path) else { continue };
                let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
                if age.unwrap_or_default() < older_than {
                    continue;
                }
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let core = self.lock();
                let is_held = blake3::Hash::from_hex(name).is_ok_and(|hash| core.index.contains(&hash));
                if !is_held {
                    remove_blob(&path);
                    swept.blobs += 1;
                    swept.bytes += metadata.len();
                }
            }
        }
        Ok(swept)
    }
}

fn blob(folder: &Path, hash: &blake3::Hash) -> PathBuf {
    let name = hash.to_hex();
    folder.join("blobs").join(&name[..2]).join(name.as_str())
}

/// A file that stays is found by the next sweep.
fn remove_blob(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "blob not removed");
        }
    }
}

#[async_trait]
impl ArtifactStore for FolderStore {
    async fn put(&self, holder: &Holder, bytes: Vec<u8>) -> Result<Artifact, StoreError> {
        let holder = holder.clone();
        self.with(move |shared| shared.put(&holder, &bytes)).await
    }

    async fn put_file(&self, holder: &Holder, path: &Path) -> Result<Artifact, StoreError> {
        let (holder, path) = (holder.clone(), path.to_owned());
        self.with(move |shared| shared.put_file(&holder, &path)).await
    }

    async fn hold(&self, holder: &Holder, hash: &blake3::Hash) -> Result<Artifact, StoreError> {
        let (holder, hash) = (holder.clone(), *hash);
        self.with(move |shared| {
            let mut core = shared.lock();
            core.index.check_fence(&holder)?;
            let bytes = core.index.stat(&hash).ok_or(StoreError::Missing { hash })?.bytes;
            let artifact = Artifact { hash, bytes };
            core.hold(&holder, artifact)?;
            Ok(artifact)
        })
        .await
    }

    async fn get_at_most(&self, hash: &blake3::Hash, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let hash = *hash;
        self.with(move |shared| {
            let stat = shared.lock().index.stat(&hash);
            if let Some(stat) = stat.filter(|stat| stat.bytes > bytes_max) {
                return Err(StoreError::TooLarge { max: bytes_max, got: stat.bytes });
            }
            shared.read(&hash, |mut blob| {
                let path = &shared.folder;
                let (found, bytes) = read_hashed(&mut blob).map_err(FileError::of("read from", path))?;
                Ok(((found, bytes.len() as u64), bytes))
            })
        })
        .await
    }

    async fn get_to_file(&self, hash: &blake3::Hash, path: &Path) -> Result<u64, StoreError> {
        let (hash, path) = (*hash, path.to_owned());
        self.with(move |shared| shared.get_to_file(&hash, &path)).await
    }

    async fn release(&self, holder: &Holder) -> Result<Freed, StoreError> {
        let holder = holder.clone();
        self.with(move |shared| {
            if !shared.lock().index.holds_anything(&holder) {
                return Ok(Freed::default());
            }
            shared.let_go(Change::Release { holder })
        })
        .await
    }

    async fn revoke(&self, holder: &Holder) -> Result<Freed, StoreError> {
        let holder = holder.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.with(move |shared| shared.let_go(Change::revoke(&holder, now, &shared.limits))).await
    }

    async fn stat(&self, hash: &blake3::Hash) -> Result<Option<Stat>, StoreError> {
        let hash = *hash;
        self.with(move |shared| Ok(shared.lock().index.stat(&hash))).await
    }

    async fn holds(&self, after: Option<&Hold>, max: usize) -> Result<Vec<Hold>, StoreError> {
        let after = after.cloned();
        self.with(move |shared| Ok(shared.lock().index.holds(after.as_ref(), max))).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.with(|shared| Ok(shared.lock().index.usage(&shared.limits))).await
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, StoreError> {
        self.with(move |shared| shared.sweep(older_than)).await
    }
}
