//! Where large artifacts are: a folder that all machines see, or S3.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, WriteMultipart};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::link::install_tls;
use crate::error::{BackendError, FileError, StoreError};
use crate::store::Swept;

/// Objects of this size and larger are uploaded in parts of it.
const PART_BYTES: usize = 8 << 20;
/// Parts of one object under way at the same time.
const PARTS_MAX: usize = 4;

/// Where a deployment keeps its large artifacts.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectsConfig {
    /// `file:///folder`, a folder that all machines see under this path, or `s3://bucket[/prefix]`.
    pub url: String,
    /// Options of the object store by their names there: `region`, `endpoint`, `access_key_id`, `allow_http`, …
    pub options: Vec<(String, String)>,
    /// File with the secret access key.
    pub secret_file: Option<PathBuf>,
}

impl ObjectsConfig {
    /// The store at `url`, without options.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), options: Vec::new(), secret_file: None }
    }
}

impl fmt::Debug for ObjectsConfig {
    /// Without the options' values: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&String> = self.options.iter().map(|(name, _)| name).collect();
        f.debug_struct("ObjectsConfig")
            .field("url", &self.url)
            .field("options", &options)
            .field("secret_file", &self.secret_file)
            .finish()
    }
}

/// The object store, below the deployment's own prefix.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// The deployment's folder, if the objects are files.
    folder: Option<PathBuf>,
}

/// An object that is being read.
pub(super) struct Reading {
    pub(super) bytes: u64,
    pub(super) pieces: futures::stream::BoxStream<'static, object_store::Result<Bytes>>,
}

impl Objects {
    pub(super) fn open(config: &ObjectsConfig, deployment: &str) -> Result<Self, BackendError> {
        let bad = |reason: String| BackendError::Config { reason: format!("object store: {reason}") };
        if let Some(folder) = config.url.strip_prefix("file://") {
            let folder = PathBuf::from(folder);
            if !folder.is_absolute() || !config.options.is_empty() {
                return Err(bad("file:// takes an absolute path and no options".to_owned()));
            }
            std::fs::create_dir_all(&folder).map_err(FileError::of("create", &folder))?;
            let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| bad(error.to_string()))?;
            // Redis remembers an artifact whose upload has ended: it has to survive what Redis survives.
            let store = store.with_fsync(true);
            let prefix = ObjectPath::from(deployment);
            return Ok(Self { store: Arc::new(store), prefix, folder: Some(folder.join(deployment)) });
        }
        let Some(place) = config.url.strip_prefix("s3://") else {
            return Err(bad("the URL begins with neither file:// nor s3://".to_owned()));
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
        for (name, value) in &config.options {
            let key: AmazonS3ConfigKey =
                name.parse().map_err(|_| bad(format!("{name} is not an option of S3")))?;
            builder = builder.with_config(key, value);
        }
        if let Some(path) = &config.secret_file {
            let secret = std::fs::read_to_string(path)
                .map_err(BackendError::configured("read the secret in", path))?;
            builder = builder.with_secret_access_key(secret.trim_end_matches(['\n', '\r']));
        }
        install_tls();
        let store = builder.build().map_err(|error| bad(error.to_string()))?;
        let prefix =
            ObjectPath::from_iter(prefix.split('/').filter(|part| !part.is_empty()).chain([deployment]));
        Ok(Self { store: Arc::new(store), prefix, folder: None })
    }

    pub(super) async fn put(&self, location: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(location);
        if bytes.len() < PART_BYTES {
            let put = self.store.put(&path, PutPayload::from_bytes(bytes)).await;
            return put.map(drop).map_err(|error| failed("write", location, &error));
        }
        let part = futures::stream::once(async { Ok::<_, StoreError>(bytes) });
        self.put_stream(location, part).await
    }

    /// Uploads the pieces as one object, in parts.
    pub(super) async fn put_stream(
        &self,
        location: &str,
        pieces: impl Stream<Item = Result<Bytes, StoreError>> + Send,
    ) -> Result<(), StoreError> {
        let failed = |error: object_store::Error| failed("write", location, &error);
        let upload = self.store.put_multipart(&self.path(location)).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let written: Result<(), StoreError> = async {
            let mut pieces = std::pin::pin!(pieces);
            while let Some(piece) = pieces.try_next().await? {
                upload.wait_for_capacity(PARTS_MAX).await.map_err(failed)?;
                upload.put(piece);
            }
            Ok(())
        }
        .await;
        if let Err(error) = written {
            if let Err(abort) = upload.abort().await {
                tracing::warn!(location, error = %abort, "upload not aborted");
            }
            return Err(error);
        }
        upload.finish().await.map(drop).map_err(failed)
    }

    /// `None` if there is no such object.
    pub(super) async fn get(&self, location: &str) -> Result<Option<Reading>, StoreError> {
        match self.store.get(&self.path(location)).await {
            Ok(found) => Ok(Some(Reading { bytes: found.meta.size, pieces: found.into_stream() })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", location, &error)),
        }
    }

    /// Deletes an object that may be absent.
    pub(super) async fn delete(&self, location: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(location)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", location, &error)),
        }
    }

    /// Locations and sizes of the objects that are older than `age`, in pieces of at most `page`.
    pub(super) fn older_than(
        &self,
        age: Duration,
        page: usize,
    ) -> impl Stream<Item = Result<Vec<(String, u64)>, StoreError>> + Send + '_ {
        let limit = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let prefix = self.prefix.clone();
        let objects = self.store.list(Some(&self.prefix)).try_filter_map(move |object| {
            let is_old = SystemTime::from(object.last_modified) <= limit;
            let parts = object.location.prefix_match(&prefix).filter(|_| is_old);
            let location =
                parts.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
            futures::future::ok(location.map(|location| (location, object.size)))
        });
        objects.try_chunks(page).map_err(|error| failed("list", "", &error.1))
    }

    /// Removes files of uploads that a process left when it died; an object store hides them. Those of S3 are the
    /// bucket's business (`AbortIncompleteMultipartUpload`).
    pub(super) async fn sweep_partial(&self, older_than: Duration) -> Result<Swept, StoreError> {
        let Some(folder) = self.folder.clone() else { return Ok(Swept::default()) };
        let sweep = tokio::task::spawn_blocking(move || sweep_partial(&folder, older_than));
        Ok(sweep.await.map_err(BackendError::internal)??)
    }

    /// Where the object is, for tests that damage it.
    #[cfg(feature = "testing")]
    pub(super) fn file(&self, location: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(location))
    }

    fn path(&self, location: &str) -> ObjectPath {
        ObjectPath::from_iter(self.prefix.parts().chain(ObjectPath::from(location).parts()))
    }
}

fn sweep_partial(folder: &Path, older_than: Duration) -> Result<Swept, FileError> {
    let mut swept = Swept::default();
    let list = |folder: &Path| match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect).map_err(FileError::of("list", folder)),
    };
    for part in list(folder)? {
        if !part.path().is_dir() {
            continue;
        }
        for file in list(&part.path())? {
            let name = file.file_name();
            let Ok(metadata) = file.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let is_partial = name.to_str().is_some_and(|name| name.contains('#'));
            if is_partial
                && age.unwrap_or_default() >= older_than
                && std::fs::remove_file(file.path()).is_ok()
            {
                swept.blobs += 1;
                swept.bytes += metadata.len();
            }
        }
    }
    Ok(swept)
}

/// The file in pieces of a part.
pub(super) fn pieces_of(
    file: impl AsyncRead + Unpin + Send,
    path: PathBuf,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    futures::stream::try_unfold((file, path), |(mut file, path)| async move {
        let mut piece = BytesMut::with_capacity(PART_BYTES);
        while piece.len() < PART_BYTES {
            let read = file.read_buf(&mut piece).await.map_err(FileError::of("read", &path))?;
            if read == 0 {
                break;
            }
        }
        Ok((!piece.is_empty()).then(|| (piece.freeze(), (file, path))))
    })
}

/// A full disk is [`StoreError::Full`].
pub(super) fn failed(what: &str, location: &str, error: &object_store::Error) -> StoreError {
    let reason = format!("cannot {what} {location}: {error}");
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
            return StoreError::Full { reason };
        }
        source = error.source();
    }
    StoreError::Objects { reason }
}
