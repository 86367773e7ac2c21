//! The artifact store that machines share: names, holds and small artifacts in Redis, large ones in an object store.
//!
//! An object's name holds a number that is drawn for each upload, so that deleting an object never hits another upload
//! of the same bytes. Before an upload its name is noted as an intent, and on the way out as trash: whatever a process
//! leaves when it dies is in one of these lists, and `sweep` finds it without asking the object store. It then asks the
//! object store too, for what an older state of Redis does not know of.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use redis::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::call::{self, array, number, Answer, Call, Script};
use super::link::Link;
use super::objects::{pieces_of, Objects, ObjectsConfig, Reading};
use super::queue::prefix;
use super::url::RedisConfig;
use crate::error::{BackendError, FileError, StoreError};
use crate::files::{hash_file, temporary_in};
use crate::limits::StoreLimits;
use crate::store::{Artifact, ArtifactStore, Freed, Hold, Stat, Swept, Usage};
use crate::types::Holder;

/// Holds released, or pieces of trash removed, in one step.
const PAGE: usize = 256;
/// Artifacts taken in one step, and their bytes; what goes beyond these is read by itself.
const TAKE_PAGE: usize = 256;
const TAKE_BYTES_MAX: u64 = 4 << 20;
/// How often a read looks for the object again because it was replaced meanwhile.
const READ_ATTEMPTS: usize = 3;

/// What goes to Redis and what to the object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLimits {
    /// Bounds that do not depend on the place.
    pub store: StoreLimits,
    /// Artifacts up to this size go to Redis.
    pub inline_bytes_max: u64,
    /// Bytes of all artifacts in Redis; past it small ones go to the object store too.
    pub inline_total_bytes_max: u64,
}

impl Default for SharedLimits {
    fn default() -> Self {
        Self { store: StoreLimits::default(), inline_bytes_max: 1 << 20, inline_total_bytes_max: 256 << 20 }
    }
}

/// [`ArtifactStore`] of a cluster. It has its own connection, so that artifacts do not hold up the queue's messages.
pub struct SharedStore {
    link: Link,
    objects: Objects,
    limits: SharedLimits,
    /// The keys that every script takes.
    keys: [String; 5],
    artifacts: String,
}

/// Where an artifact's bytes are.
enum Place {
    Inline(Vec<u8>),
    Object(String),
}

/// The bytes of a publication.
enum Source<'a> {
    Bytes(Bytes),
    File(&'a Path),
}

/// Where the bytes of an artifact go.
enum Sink<'a> {
    Memory(&'a mut Vec<u8>),
    File(&'a mut tokio::fs::File, &'a Path),
}

impl Sink<'_> {
    async fn take(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Memory(bytes) => bytes.extend_from_slice(piece),
            Self::File(file, path) => file.write_all(piece).await.map_err(FileError::of("write", path))?,
        }
        Ok(())
    }
}

impl SharedStore {
    /// Connects to both and checks the Redis server.
    ///
    /// # Errors
    /// [`BackendError::Refused`], [`BackendError::Config`], [`BackendError::Unavailable`]; [`BackendError::File`].
    pub async fn open(
        redis: RedisConfig,
        objects: &ObjectsConfig,
        limits: SharedLimits,
    ) -> Result<Self, BackendError> {
        let objects = Objects::open(objects, &redis.name)?;
        let prefix = format!("{}:store", prefix(&redis.name));
        let keys = ["head", "holds", "fences", "intents", "trash"].map(|key| format!("{prefix}:{key}"));
        let link = Link::open(redis).await?;
        Ok(Self { link, objects, limits, keys, artifacts: format!("{prefix}:a:") })
    }

    fn call<'a>(&'a self, script: &'a Script) -> Call<'a> {
        self.keys.iter().fold(Call::new(script), |call, key| call.key(key))
    }

    fn artifact_call<'a>(&'a self, script: &'a Script, hash: &blake3::Hash) -> Call<'a> {
        self.call(script).key(self.artifact(hash))
    }

    fn artifact(&self, hash: &blake3::Hash) -> String {
        format!("{}{}", self.artifacts, hash.to_hex())
    }

    async fn run(&self, call: Call<'_>) -> Result<Value, StoreError> {
        self.link.call(&call).await.map_err(|error| match error {
            BackendError::OutOfMemory { .. } => StoreError::Full { reason: error.to_string() },
            error => error.into(),
        })
    }

    /// Runs a script that may refuse.
    async fn ask(&self, call: Call<'_>, holder: &Holder, hash: &blake3::Hash) -> Result<Answer, StoreError> {
        let mut answer = Answer::new(self.run(call).await?)?;
        match answer.code() {
            "REVOKED" => Err(StoreError::Revoked { holder: holder.clone() }),
            "MISSING" => Err(StoreError::Missing { hash: *hash }),
            "SWEPT" => Err(StoreError::Swept { hash: *hash }),
            "FULL" => {
                let (used, max) = (answer.number()?, self.limits.store.bytes_max);
                Err(StoreError::Full { reason: format!("{used} of {max} bytes are used") })
            }
            _ => Ok(answer),
        }
    }

    fn check_size(&self, got: u64) -> Result<(), StoreError> {
        let max = self.limits.store.artifact_bytes_max;
        if got > max {
            return Err(StoreError::TooLarge { max, got });
        }
        Ok(())
    }

    /// Publishes in Redis; false if Redis holds as much as it may.
    async fn put_inline(
        &self,
        holder: &Holder,
        artifact: Artifact,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let hash = artifact.hash.to_hex();
        let call = self
            .artifact_call(&call::STORE_INLINE, &artifact.hash)
            .text(holder.as_str())
            .text(&hash)
            .number(artifact.bytes)
            .number(self.limits.store.bytes_max)
            .number(self.limits.inline_total_bytes_max)
            .arg(bytes);
        let answer = self.ask(with_lineage(call, holder), holder, &artifact.hash).await?;
        match answer.code() {
            "OK" => Ok(true),
            "OBJECT" => Ok(false),
            _ => Err(answer.unexpected().into()),
        }
    }

    /// Notes the intent to upload; `None` if the artifact was there and is held now.
    async fn begin(&self, holder: &Holder, artifact: Artifact) -> Result<Option<String>, StoreError> {
        let hash = artifact.hash.to_hex();
        let location = format!("{}/{hash}.{:016x}.{}", &hash[..2], rand::random::<u64>(), artifact.bytes);
        let call = self
            .artifact_call(&call::STORE_BEGIN, &artifact.hash)
            .text(holder.as_str())
            .text(&hash)
            .number(artifact.bytes)
            .number(self.limits.store.bytes_max)
            .text(&location);
        let answer = self.ask(with_lineage(call, holder), holder, &artifact.hash).await?;
        match answer.code() {
            "OK" => Ok(None),
            "UPLOAD" => Ok(Some(location)),
            _ => Err(answer.unexpected().into()),
        }
    }

    /// Publishes what was uploaded.
    async fn end(&self, holder: &Holder, artifact: Artifact, location: &str) -> Result<(), StoreError> {
        let hash = artifact.hash.to_hex();
        let call = self
            .artifact_call(&call::STORE_END, &artifact.hash)
            .text(holder.as_str())
            .text(&hash)
            .number(artifact.bytes)
            .text(location);
        let answer = self.ask(with_lineage(call, holder), holder, &artifact.hash).await;
        match answer {
            Ok(answer) if answer.code() == "OK" => Ok(()),
            Ok(answer) if answer.code() == "SPARE" => {
                self.remove_trash(vec![location.to_owned()]).await;
                Ok(())
            }
            Ok(answer) => Err(answer.unexpected().into()),
            Err(error) => {
                if matches!(error, StoreError::Revoked { .. } | StoreError::Swept { .. }) {
                    self.remove_trash(vec![location.to_owned()]).await;
                }
                Err(error)
            }
        }
    }

    async fn upload(&self, location: &str, artifact: Artifact, source: Source<'_>) -> Result<(), StoreError> {
        let path = match source {
            Source::Bytes(bytes) => return self.objects.put(location, bytes).await,
            Source::File(path) => path,
        };
        let file = tokio::fs::File::open(path).await.map_err(FileError::of("open", path))?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        // One byte more tells a file that has grown.
        let file = file.take(artifact.bytes.saturating_add(1));
        let pieces = pieces_of(file, path.to_owned()).inspect_ok(|piece| {
            hasher.update(piece);
            bytes += piece.len() as u64;
        });
        self.objects.put_stream(location, pieces).await?;
        if (hasher.finalize(), bytes) != (artifact.hash, artifact.bytes) {
            let changed = std::io::Error::other("it changed while it was published");
            return Err(FileError::of("publish", path)(changed).into());
        }
        Ok(())
    }

    async fn put_object(
        &self,
        holder: &Holder,
        artifact: Artifact,
        source: Source<'_>,
    ) -> Result<(), StoreError> {
        let Some(location) = self.begin(holder, artifact).await? else { return Ok(()) };
        if let Err(error) = self.upload(&location, artifact, source).await {
            // The first failure is the one to report; what stays is found by `sweep`.
            match self.run(self.call(&call::STORE_ABORT).text(&location)).await {
                Ok(_) => drop(self.remove_trash(vec![location]).await),
                Err(abort) => tracing::warn!(error = %abort, "publication not given up"),
            }
            return Err(error);
        }
        self.end(holder, artifact, &location).await
    }

    /// Deletes objects that are trash; those that stay are found by `sweep`. Returns how many are gone.
    async fn remove_trash(&self, locations: Vec<String>) -> Swept {
        let mut gone = Vec::new();
        for location in locations {
            match self.objects.delete(&location).await {
                Ok(()) => gone.push(location),
                Err(error) => tracing::warn!(%error, "object not deleted"),
            }
        }
        let swept = Swept { blobs: gone.len() as u64, bytes: gone.iter().map(|l| size_of(l)).sum() };
        if gone.is_empty() {
            return swept;
        }
        let clean = self.call(&call::STORE_CLEAN);
        let clean = gone.iter().fold(clean, |call, location| call.text(location));
        if let Err(error) = self.run(clean).await {
            tracing::warn!(%error, "trash not forgotten");
        }
        swept
    }

    async fn locate(&self, hash: &blake3::Hash) -> Result<(u64, Place), StoreError> {
        let mut fields = redis::pipe();
        fields.cmd("HMGET").arg(self.artifact(hash)).arg(&["n", "l", "d"]);
        let answer = self.link.pipeline(&fields).await?.into_iter().next().unwrap_or(Value::Nil);
        let mut fields = array(answer)?.into_iter().map(|value| Some(value).filter(|v| *v != Value::Nil));
        let (bytes, location, inline) =
            (fields.next().flatten(), fields.next().flatten(), fields.next().flatten());
        if bytes.is_none() {
            return Err(StoreError::Missing { hash: *hash });
        }
        let place = match (location, inline) {
            (Some(location), _) => Place::Object(call::text(Some(location))?),
            (None, inline) => Place::Inline(call::bytes(inline)?),
        };
        Ok((number(bytes)?, place))
    }

    /// Notes that the bytes at `location` ('' for Redis) are damaged.
    async fn damaged(&self, hash: &blake3::Hash, location: &str) -> Result<(), StoreError> {
        self.run(self.artifact_call(&call::STORE_DAMAGE, hash).text(location)).await.map(drop)
    }

    async fn corrupt(&self, hash: &blake3::Hash, location: &str, reason: String) -> StoreError {
        match self.damaged(hash, location).await {
            Ok(()) => StoreError::Corrupt { hash: *hash, reason },
            Err(error) => error,
        }
    }

    /// The artifact's bytes, not checked, with their place.
    async fn open_artifact(&self, hash: &blake3::Hash) -> Result<(String, Reading), StoreError> {
        let mut last = None;
        for _ in 0..READ_ATTEMPTS {
            let (bytes, place) = self.locate(hash).await?;
            let location = match place {
                Place::Inline(inline) => {
                    if inline.len() as u64 != bytes {
                        let reason = format!("{} bytes in redis, expected {bytes}", inline.len());
                        return Err(self.corrupt(hash, "", reason).await);
                    }
                    let pieces = Box::pin(futures::stream::once(async { Ok(Bytes::from(inline)) }));
                    return Ok((String::new(), Reading { bytes, pieces }));
                }
                Place::Object(location) => location,
            };
            match self.objects.get(&location).await? {
                Some(reading) if reading.bytes == bytes => return Ok((location, reading)),
                Some(reading) => {
                    let reason = format!("object {location} has {} bytes, expected {bytes}", reading.bytes);
                    return Err(self.corrupt(hash, &location, reason).await);
                }
                None if last.as_ref() == Some(&location) => {
                    self.damaged(hash, &location).await?;
                    break;
                }
                // It may have been replaced: look again.
                None => last = Some(location),
            }
        }
        Err(StoreError::Missing { hash: *hash })
    }

    /// Reads an artifact piece by piece and checks it; what the sink was given is to be thrown away after an error.
    async fn read(&self, hash: &blake3::Hash, bytes_max: u64, mut sink: Sink<'_>) -> Result<u64, StoreError> {
        let (location, mut reading) = self.open_artifact(hash).await?;
        if reading.bytes > bytes_max {
            return Err(StoreError::TooLarge { max: bytes_max, got: reading.bytes });
        }
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        loop {
            let piece = reading.pieces.try_next().await;
            let Some(piece) = piece.map_err(|e| super::objects::failed("read", &location, &e))? else {
                break;
            };
            hasher.update(&piece);
            bytes += piece.len() as u64;
            if bytes > reading.bytes {
                break;
            }
            sink.take(&piece).await?;
        }
        let got = hasher.finalize();
        if got != *hash || bytes != reading.bytes {
            let place = if location.is_empty() { "redis" } else { location.as_str() };
            let reason = format!("{bytes} bytes in {place} hash to {got}");
            return Err(self.corrupt(hash, &location, reason).await);
        }
        Ok(bytes)
    }

    /// Lets go of up to a page of holders.
    async fn let_go(&self, holders: &[Holder], with_fence: bool) -> Result<Freed, StoreError> {
        let mut freed = Freed::default();
        loop {
            let call = self
                .call(&call::STORE_RELEASE)
                .text(&self.artifacts)
                .number((PAGE + holders.len()) as u64)
                .number(u64::from(with_fence))
                .number(self.limits.store.fences_max)
                .number(self.limits.store.fence_time.as_secs());
            let call = holders.iter().fold(call, |call, holder| call.text(holder.as_str()));
            let mut answer = Answer::new(self.run(call).await?)?;
            freed.holds += answer.number()?;
            freed.artifacts += answer.number()?;
            freed.bytes += answer.number()?;
            let has_more = answer.number()? == 1;
            let trash = answer.texts()?;
            if !trash.is_empty() {
                self.remove_trash(trash).await;
            }
            if !has_more {
                return Ok(freed);
            }
        }
    }

    /// Holds up to a page of artifacts; yields the bytes of those that are in Redis and sound.
    async fn take_page(
        &self,
        claims: &[(Holder, Artifact)],
    ) -> Result<Vec<Result<Option<Vec<u8>>, StoreError>>, StoreError> {
        let texts: Vec<_> = claims.iter().map(|(_, artifact)| artifact.hash.to_hex()).collect();
        let mut call = self.call(&call::STORE_TAKE).number(TAKE_BYTES_MAX);
        for ((holder, artifact), text) in claims.iter().zip(&texts) {
            call = call.key(self.artifact(&artifact.hash)).text(holder.as_str()).text(text.as_str());
            call = call.number(artifact.bytes).number(holder.lineage().count() as u64);
            call = with_lineage(call, holder);
        }
        let answers = array(self.run(call).await?)?;
        if answers.len() != claims.len() {
            return Err(BackendError::protocol("a script leaves artifacts out").into());
        }
        let mut taken = Vec::with_capacity(claims.len());
        for ((holder, Artifact { hash, bytes: max }), answer) in claims.iter().zip(answers) {
            let mut answer = array(answer)?.into_iter();
            taken.push(match call::text(answer.next())?.as_str() {
                "REVOKED" => Err(StoreError::Revoked { holder: holder.clone() }),
                "MISSING" => Err(StoreError::Missing { hash: *hash }),
                "LARGE" => Err(StoreError::TooLarge { max: *max, got: number(answer.next())? }),
                _ => {
                    let bytes = number(answer.next())?;
                    let inline = answer.next().filter(|inline| *inline != Value::Nil);
                    let inline = inline.map(|inline| call::bytes(Some(inline))).transpose()?;
                    let is_sound =
                        |inline: &Vec<u8>| inline.len() as u64 == bytes && blake3::hash(inline) == *hash;
                    Ok(inline.filter(is_sound))
                }
            });
        }
        Ok(taken)
    }

    async fn sweep_trash(&self, older_than: Duration) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let call = self.call(&call::STORE_SWEEP).number(older_than.as_secs()).number(PAGE as u64);
            let trash = array(self.run(call).await?)?;
            let trash =
                trash.into_iter().map(|value| call::text(Some(value))).collect::<Result<Vec<_>, _>>()?;
            let found = trash.len() as u64;
            let removed = self.remove_trash(trash).await;
            swept.blobs += removed.blobs;
            swept.bytes += removed.bytes;
            // What cannot be deleted now stays listed.
            if found < PAGE as u64 || removed.blobs < found {
                return Ok(swept);
            }
        }
    }

    async fn sweep_unknown(&self, older_than: Duration) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut pages = std::pin::pin!(self.objects.older_than(older_than, PAGE));
        while let Some(page) = pages.try_next().await? {
            let call = self.call(&call::STORE_UNKNOWN).text(&self.artifacts);
            let call = page.iter().fold(call, |call, (location, _)| call.text(location));
            for location in array(self.run(call).await?)? {
                let location = call::text(Some(location))?;
                self.objects.delete(&location).await?;
                swept.blobs += 1;
                swept.bytes += page.iter().find(|(known, _)| *known == location).map_or(0, |(_, size)| *size);
            }
        }
        Ok(swept)
    }
}

/// For tests that play a process which dies, or a disk that fails.
#[cfg(feature = "testing")]
impl SharedStore {
    /// Begins to publish and dies between the blob and its holder.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_and_die(&self, holder: &Holder, bytes: Vec<u8>) -> Result<(), StoreError> {
        let artifact = Artifact { hash: blake3::hash(&bytes), bytes: bytes.len() as u64 };
        match self.begin(holder, artifact).await? {
            Some(location) => self.upload(&location, artifact, Source::Bytes(bytes.into())).await,
            None => Ok(()),
        }
    }

    /// The file with an artifact's bytes, if it is in a folder and not in Redis.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn file_of(&self, hash: &blake3::Hash) -> Result<Option<std::path::PathBuf>, StoreError> {
        match self.locate(hash).await?.1 {
            Place::Object(location) => Ok(self.objects.file(&location)),
            Place::Inline(_) => Ok(None),
        }
    }
}

/// The beginning of a file.
async fn read_at_most(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let file = tokio::fs::File::open(path).await.map_err(FileError::of("open", path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).await.map_err(FileError::of("read", path))?;
    Ok(bytes)
}

fn with_lineage<'a>(call: Call<'a>, holder: &'a Holder) -> Call<'a> {
    holder.lineage().fold(call, |call, name| call.text(name))
}

/// The size at the end of a location.
fn size_of(location: &str) -> u64 {
    location.rsplit_once('.').and_then(|(_, size)| size.parse().ok()).unwrap_or(0)
}

#[async_trait]
impl ArtifactStore for SharedStore {
    async fn put(&self, holder: &Holder, bytes: Vec<u8>) -> Result<Artifact, StoreError> {
        self.check_size(bytes.len() as u64)?;
        let artifact = Artifact { hash: blake3::hash(&bytes), bytes: bytes.len() as u64 };
        if artifact.bytes <= self.limits.inline_bytes_max && self.put_inline(holder, artifact, &bytes).await?
        {
            return Ok(artifact);
        }
        self.put_object(holder, artifact, Source::Bytes(bytes.into())).await?;
        Ok(artifact)
    }

    async fn put_file(&self, holder: &Holder, path: &Path) -> Result<Artifact, StoreError> {
        let size = tokio::fs::metadata(path).await.map_err(FileError::of("read", path))?.len();
        self.check_size(size)?;
        if size <= self.limits.inline_bytes_max {
            // It may have grown, or be of a kind that does not tell its size: then it takes the other way.
            let bytes = read_at_most(path, self.limits.inline_bytes_max.saturating_add(1)).await?;
            if bytes.len() as u64 <= self.limits.inline_bytes_max {
                return self.put(holder, bytes).await;
            }
        }
        let (file, bytes_max) = (path.to_owned(), self.limits.store.artifact_bytes_max);
        let hashed = tokio::task::spawn_blocking(move || hash_file(&file, bytes_max));
        let (hash, bytes) = hashed.await.map_err(BackendError::internal)??;
        self.check_size(bytes)?;
        let artifact = Artifact { hash, bytes };
        self.put_object(holder, artifact, Source::File(path)).await?;
        Ok(artifact)
    }

    async fn hold(&self, holder: &Holder, hash: &blake3::Hash) -> Result<Artifact, StoreError> {
        let hex = hash.to_hex();
        let call = self.artifact_call(&call::STORE_HOLD, hash).text(holder.as_str()).text(&hex);
        let mut answer = self.ask(with_lineage(call, holder), holder, hash).await?;
        match answer.code() {
            "OK" => Ok(Artifact { hash: *hash, bytes: answer.number()? }),
            _ => Err(answer.unexpected().into()),
        }
    }

    async fn get_at_most(&self, hash: &blake3::Hash, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.read(hash, bytes_max, Sink::Memory(&mut bytes)).await?;
        Ok(bytes)
    }

    async fn get_to_file(&self, hash: &blake3::Hash, path: &Path) -> Result<u64, StoreError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let (file, temporary) = temporary_in(parent.unwrap_or(Path::new(".")))?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let bytes = self.read(hash, u64::MAX, Sink::File(&mut file, path)).await?;
        file.flush().await.map_err(FileError::of("write", path))?;
        temporary.persist(path).map_err(|error| FileError::of("rename to", path)(error.error))?;
        Ok(bytes)
    }

    async fn release(&self, holder: &Holder) -> Result<Freed, StoreError> {
        self.let_go(std::slice::from_ref(holder), false).await
    }

    async fn revoke(&self, holder: &Holder) -> Result<Freed, StoreError> {
        self.let_go(std::slice::from_ref(holder), true).await
    }

    async fn take_all(
        &self,
        claims: &[(Holder, Artifact)],
    ) -> Result<Vec<Result<Vec<u8>, StoreError>>, StoreError> {
        let mut all = Vec::with_capacity(claims.len());
        for page in claims.chunks(TAKE_PAGE) {
            for (taken, (_, artifact)) in self.take_page(page).await?.into_iter().zip(page) {
                all.push(match taken {
                    Ok(Some(bytes)) => Ok(bytes),
                    // Somewhere else, or damaged, which is noted there.
                    Ok(None) => self.get_at_most(&artifact.hash, artifact.bytes).await,
                    Err(error) => Err(error),
                });
            }
        }
        Ok(all)
    }

    async fn let_go_all(&self, holders: &[Holder], with_fence: bool) -> Result<Freed, StoreError> {
        let mut freed = Freed::default();
        for page in holders.chunks(PAGE) {
            freed.add(self.let_go(page, with_fence).await?);
        }
        Ok(freed)
    }

    async fn stat(&self, hash: &blake3::Hash) -> Result<Option<Stat>, StoreError> {
        let mut fields = redis::pipe();
        fields.cmd("HMGET").arg(self.artifact(hash)).arg(&["n", "r", "x"]);
        let answer = self.link.pipeline(&fields).await?.into_iter().next().unwrap_or(Value::Nil);
        let mut fields = array(answer)?.into_iter();
        let Some(bytes) = fields.next().filter(|bytes| *bytes != Value::Nil) else { return Ok(None) };
        let (bytes, holders) = (number(Some(bytes))?, number(fields.next())?);
        Ok(Some(Stat { bytes, holders, is_damaged: number(fields.next())? == 1 }))
    }

    async fn holds(&self, after: Option<&Hold>, max: usize) -> Result<Vec<Hold>, StoreError> {
        let start = after.map_or("-".to_owned(), |after| format!("({} {}", after.holder, after.hash));
        let mut range = redis::pipe();
        range.cmd("ZRANGEBYLEX").arg(&self.keys[1]).arg(start).arg("+").arg("LIMIT").arg(0).arg(max);
        let answer = self.link.pipeline(&range).await?.into_iter().next().unwrap_or(Value::Nil);
        let mut holds = Vec::new();
        for member in array(answer)? {
            let member = call::text(Some(member))?;
            let parts =
                member.split_once(' ').and_then(|(holder, hash)| Some((Holder::new(holder).ok()?, hash)));
            let (holder, hash) =
                parts.ok_or_else(|| BackendError::protocol(format!("a hold named {member}")))?;
            holds.push(Hold { holder, hash: hash.to_owned() });
        }
        Ok(holds)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let mut counters = redis::pipe();
        counters.cmd("HMGET").arg(&self.keys[0]).arg(&["artifacts", "bytes", "reserved"]);
        counters.cmd("ZCARD").arg(&self.keys[1]).cmd("ZCARD").arg(&self.keys[2]);
        let mut answers = self.link.pipeline(&counters).await?.into_iter();
        let mut head = array(answers.next().unwrap_or(Value::Nil))?.into_iter();
        Ok(Usage {
            artifacts: number(head.next())?,
            bytes: number(head.next())?,
            reserved_bytes: number(head.next())?,
            bytes_max: self.limits.store.bytes_max,
            holds: number(answers.next())?,
            fences: number(answers.next())?,
        })
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, StoreError> {
        let parts = [
            self.sweep_trash(older_than).await?,
            self.objects.sweep_partial(older_than).await?,
            self.sweep_unknown(older_than).await?,
        ];
        let mut swept = Swept::default();
        for part in parts {
            swept.blobs += part.blobs;
            swept.bytes += part.bytes;
        }
        Ok(swept)
    }
}
