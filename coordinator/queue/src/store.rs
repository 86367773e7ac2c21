//! The store's interface.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Class, StoreError};
use crate::types::Holder;

/// An immutable piece of data in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its address: BLAKE3 of its bytes.
    pub hash: blake3::Hash,
    /// Its size.
    pub bytes: u64,
}

/// What the store knows of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its size.
    pub bytes: u64,
    /// How many hold it.
    pub holders: u64,
    /// Whether a reader found it damaged; the next `put` of the right bytes repairs it.
    pub is_damaged: bool,
}

/// One holder's hold on one artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// Who.
    pub holder: Holder,
    /// What; its address in hex, so that holds have an order.
    pub hash: String,
}

/// What a release or a revocation deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Holds that ended.
    pub holds: u64,
    /// Artifacts that nobody holds any more.
    pub artifacts: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Freed {
    pub(crate) fn add(&mut self, more: Freed) {
        self.holds += more.holds;
        self.artifacts += more.artifacts;
        self.bytes += more.bytes;
    }
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files or objects.
    pub blobs: u64,
    /// Their bytes, as far as known.
    pub bytes: u64,
}

/// How full the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Artifacts, each counted once.
    pub artifacts: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that are being published.
    pub reserved_bytes: u64,
    /// The bound on both together.
    pub bytes_max: u64,
    /// Holds.
    pub holds: u64,
    /// Holders that are fenced.
    pub fences: u64,
}

/// Immutable blobs, addressed by BLAKE3, kept as long as somebody holds them.
///
/// A holder is a name that its owner chooses, one for each thing it wants to let go of by itself. The same holder may
/// hold many artifacts; holding one twice is holding it once. Equal bytes of many holders are stored once.
///
/// After an error nothing is held that was not held before; bytes may be left over, which [`sweep`](Self::sweep) finds.
#[async_trait]
pub trait ArtifactStore: Send + Sync + 'static {
    /// Publishes bytes: stores them if they are not there and makes `holder` hold them.
    ///
    /// # Errors
    /// [`StoreError::Revoked`] if the holder or one above it was revoked, also while this call ran;
    /// [`StoreError::TooLarge`], [`StoreError::Full`]; [`StoreError::Backend`].
    async fn put(&self, holder: &Holder, bytes: Vec<u8>) -> Result<Artifact, StoreError>;

    /// Publishes a copy of a file, without loading it as a whole. The file must not change meanwhile.
    ///
    /// # Errors
    /// See [`put`](Self::put).
    async fn put_file(&self, holder: &Holder, path: &Path) -> Result<Artifact, StoreError>;

    /// Makes `holder` hold an artifact that is there.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Revoked`]; [`StoreError::Backend`].
    async fn hold(&self, holder: &Holder, hash: &blake3::Hash) -> Result<Artifact, StoreError>;

    /// Reads an artifact and checks it.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Corrupt`]; [`StoreError::Backend`].
    async fn get(&self, hash: &blake3::Hash) -> Result<Vec<u8>, StoreError> {
        self.get_at_most(hash, u64::MAX).await
    }

    /// Reads an artifact of at most `bytes_max` bytes and checks it. One that is larger is not read.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`]; see [`get`](Self::get).
    async fn get_at_most(&self, hash: &blake3::Hash, bytes_max: u64) -> Result<Vec<u8>, StoreError>;

    /// Copies an artifact to `path`, which appears whole and checked or not at all; returns its size.
    ///
    /// # Errors
    /// See [`get`](Self::get).
    async fn get_to_file(&self, hash: &blake3::Hash, path: &Path) -> Result<u64, StoreError>;

    /// Ends the holds of `holder` and of all below it, and deletes what nobody holds any more. An unknown holder is no
    /// error.
    ///
    /// # Errors
    /// [`StoreError::Backend`]; what was released till then stays released, and the call may be repeated.
    async fn release(&self, holder: &Holder) -> Result<Freed, StoreError>;

    /// Refuses from now on whatever `holder` and all below it publish or want to hold, then releases them.
    ///
    /// # Errors
    /// See [`release`](Self::release).
    async fn revoke(&self, holder: &Holder) -> Result<Freed, StoreError>;

    /// [`hold`](Self::hold) and then [`get_at_most`](Self::get_at_most) as many bytes as claimed, for each claim, in
    /// order; for many small artifacts. What was held stays held if it cannot be read.
    ///
    /// # Errors
    /// Those of the two, each for its claim; [`StoreError::Backend`] for all of them. The call may be repeated.
    async fn take_all(
        &self,
        claims: &[(Holder, Artifact)],
    ) -> Result<Vec<Result<Vec<u8>, StoreError>>, StoreError> {
        let mut taken = Vec::with_capacity(claims.len());
        for (holder, artifact) in claims {
            taken.push(match self.hold(holder, &artifact.hash).await {
                Ok(_) => self.get_at_most(&artifact.hash, artifact.bytes).await,
                Err(error) => Err(error),
            });
        }
        Ok(taken)
    }

    /// [`release`](Self::release), or [`revoke`](Self::revoke), of each.
    ///
    /// # Errors
    /// See there; one that concerns some does not keep the others from being let go, and one that may pass is told before
    /// others.
    async fn let_go_all(&self, holders: &[Holder], with_fence: bool) -> Result<Freed, StoreError> {
        let (mut freed, mut failure) = (Freed::default(), None);
        for holder in holders {
            let done = match with_fence {
                true => self.revoke(holder).await,
                false => self.release(holder).await,
            };
            match done {
                Ok(more) => freed.add(more),
                Err(error) if error.class() == Class::Transient => failure = Some(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(freed), Err)
    }

    /// What is known of an artifact; does not read it.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    async fn stat(&self, hash: &blake3::Hash) -> Result<Option<Stat>, StoreError>;

    /// Up to `max` holds after `after`, in order: for finding holds that nobody knows of any more.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    async fn holds(&self, after: Option<&Hold>, max: usize) -> Result<Vec<Hold>, StoreError>;

    /// How full it is.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    async fn usage(&self) -> Result<Usage, StoreError>;

    /// Removes what processes that died have left: bytes without a holder, and publications begun before `older_than`.
    /// A publication that is still under way by then ends in [`StoreError::Swept`].
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    async fn sweep(&self, older_than: Duration) -> Result<Swept, StoreError>;
}
