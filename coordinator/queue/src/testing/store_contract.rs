//! What every [`ArtifactStore`] does.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::{Artifact, ArtifactStore, Class, Freed, Hold, Holder, Stat, StoreError, StoreLimits};

/// A fresh store, and ways to do harm to it.
pub struct StoreFixture {
    /// One process's view.
    pub store: Arc<dyn ArtifactStore>,
    /// The other's.
    pub other: Arc<dyn ArtifactStore>,
    /// Changes one byte of an artifact behind the store's back.
    pub damage: Harm,
    /// Removes an artifact's bytes behind the store's back, where that is possible.
    pub lose: Harm,
    /// Publishes these bytes for `dead/1`, and dies between the blob and its holder.
    pub die_publishing: Box<dyn Fn(Vec<u8>) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Files or objects that hold bytes now.
    pub blobs: Box<dyn Fn() -> usize + Send + Sync>,
    /// What must live as long: a server, a folder.
    pub keep: Box<dyn Any + Send>,
}

/// Does something to an artifact; false if it cannot be done here.
pub type Harm = Box<dyn Fn(blake3::Hash) -> BoxFuture<'static, bool> + Send + Sync>;

/// Bounds that a test can reach.
pub fn small_limits() -> StoreLimits {
    StoreLimits {
        artifact_bytes_max: 20 << 20,
        bytes_max: 32 << 20,
        fences_max: 4,
        fence_time: Duration::from_secs(3600),
    }
}

/// Sizes of artifacts: nothing, little, more than a shared store keeps in Redis in tests.
const SIZES: [usize; 4] = [0, 1, 900, 200_000];
const SMALL: usize = 900;
const LARGE: usize = 200_000;

fn holder(name: &str) -> Holder {
    Holder::new(name).expect("a plain name")
}

/// Printable bytes that differ with `seed`.
fn content(seed: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| b' ' + ((at * 7 + at / 251 + usize::from(seed) * 31) % 90) as u8).collect()
}

async fn holders_of(store: &dyn ArtifactStore, hash: &blake3::Hash) -> u64 {
    store.stat(hash).await.unwrap().map_or(0, |stat| stat.holders)
}

/// What was put is got, by whichever process, as bytes and as a file.
pub async fn what_was_put_is_got(fixture: StoreFixture) {
    let folder = tempfile::tempdir().unwrap();
    for (seed, size) in SIZES.into_iter().chain([9 << 20]).enumerate() {
        let bytes = content(seed as u8, size);
        let artifact = fixture.store.put(&holder("a/1"), bytes.clone()).await.unwrap();
        assert_eq!(artifact, Artifact { hash: blake3::hash(&bytes), bytes: size as u64 });
        assert_eq!(fixture.other.get(&artifact.hash).await.unwrap(), bytes, "{size} bytes");
        let path = folder.path().join(size.to_string());
        assert_eq!(fixture.other.get_to_file(&artifact.hash, &path).await.unwrap(), size as u64);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        let stat = Stat { bytes: size as u64, holders: 1, is_damaged: false };
        assert_eq!(fixture.other.stat(&artifact.hash).await.unwrap(), Some(stat));

        let from_file = content(seed as u8 + 100, size.max(1));
        std::fs::write(&path, &from_file).unwrap();
        let artifact = fixture.other.put_file(&holder("a/2"), &path).await.unwrap();
        assert_eq!(artifact.hash, blake3::hash(&from_file));
        assert_eq!(fixture.store.get(&artifact.hash).await.unwrap(), from_file, "{size} bytes by file");
    }
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, SIZES.len() + 1, "no partial file is left");
    assert!(fixture.store.put_file(&holder("a/3"), &folder.path().join("missing")).await.is_err());
    assert_eq!(fixture.store.usage().await.unwrap().reserved_bytes, 0);
}

/// What is larger than its reader expects is refused, whatever it is said to be.
pub async fn what_is_too_large_for_its_reader_is_not_read(fixture: StoreFixture) {
    for (seed, size) in SIZES.into_iter().chain([9 << 20]).enumerate().filter(|(_, size)| *size > 0) {
        let bytes = content(seed as u8, size);
        let artifact = fixture.store.put(&holder("a/1"), bytes.clone()).await.unwrap();
        let refused = fixture.other.get_at_most(&artifact.hash, artifact.bytes - 1).await;
        let Err(StoreError::TooLarge { max, got }) = refused else {
            panic!("{:?}", refused.map(|b| b.len()))
        };
        assert_eq!((max, got), (artifact.bytes - 1, artifact.bytes));
        assert_eq!(fixture.other.get_at_most(&artifact.hash, artifact.bytes).await.unwrap(), bytes);
    }
}

/// Bytes are stored once and go with their last holder.
pub async fn equal_bytes_are_stored_once_and_go_with_the_last_holder(fixture: StoreFixture) {
    for size in SIZES {
        let bytes = content(1, size);
        let hash = blake3::hash(&bytes);
        let blobs = (fixture.blobs)();
        fixture.store.put(&holder("a/1"), bytes.clone()).await.unwrap();
        fixture.other.put(&holder("b/1"), bytes.clone()).await.unwrap();
        fixture.other.put(&holder("b/1"), bytes.clone()).await.unwrap();
        fixture.store.hold(&holder("c/1"), &hash).await.unwrap();
        assert_eq!(holders_of(&*fixture.store, &hash).await, 3);
        assert!((fixture.blobs)() <= blobs + 1);
        let usage = fixture.store.usage().await.unwrap();
        assert_eq!((usage.artifacts, usage.bytes, usage.holds, usage.reserved_bytes), (1, size as u64, 3, 0));
        for (name, left) in [("b/1", 2), ("b/1", 2), ("a", 1), ("nobody", 1), ("c/1", 0)] {
            let freed = fixture.other.release(&holder(name)).await.unwrap();
            assert_eq!(holders_of(&*fixture.store, &hash).await, left, "after {name}");
            let gone = Freed { holds: 1, artifacts: 1, bytes: size as u64 };
            assert!(left > 0 || freed == gone, "{freed:?}");
        }
        assert!(matches!(fixture.store.get(&hash).await, Err(StoreError::Missing { .. })));
        assert!(matches!(fixture.store.hold(&holder("d"), &hash).await, Err(StoreError::Missing { .. })));
        let usage = fixture.store.usage().await.unwrap();
        assert_eq!((usage.artifacts, usage.bytes, usage.holds), (0, 0, 0));
        assert_eq!((fixture.blobs)(), blobs, "its file is gone");
    }
}

/// A release covers what is below a name and nothing beside it, however much that is.
pub async fn a_release_covers_everything_below_and_nothing_beside(fixture: StoreFixture) {
    let store = &fixture.store;
    let hash = store.put(&holder("seed"), content(1, SMALL)).await.unwrap().hash;
    let kept = ["a/1-x/0", "a/1.x", "a/10", "a/10/0", "a/0", "a", "A/1"];
    for name in kept.iter().chain(&["a/1", "a/1/0", "a/1/0/deep"]) {
        store.hold(&holder(name), &hash).await.unwrap();
    }
    for many in 0..600 {
        store.hold(&holder(&format!("a/1/many/{many}")), &hash).await.unwrap();
    }
    let freed = fixture.other.release(&holder("a/1")).await.unwrap();
    assert_eq!((freed.holds, freed.artifacts), (603, 0));
    assert_eq!(holders_of(&**store, &hash).await, kept.len() as u64 + 1);
    let mut names: Vec<String> =
        store.holds(None, 100).await.unwrap().into_iter().map(|hold| hold.holder.to_string()).collect();
    let mut expected: Vec<String> = kept.iter().chain(&["seed"]).map(|name| (*name).to_owned()).collect();
    expected.sort();
    assert_eq!(names, expected, "in order");
    names.sort();
    assert_eq!(names, expected);
}

/// A revoked holder publishes and holds nothing any more, nor does anybody below it; the others go on.
pub async fn a_revoked_holder_is_refused_for_good(fixture: StoreFixture) {
    let (store, other) = (&fixture.store, &fixture.other);
    let seed = store.put(&holder("b/7"), content(1, SMALL)).await.unwrap();
    store.put(&holder("a/7/0"), content(2, SMALL)).await.unwrap();
    store.put(&holder("a/7/1"), content(3, LARGE)).await.unwrap();
    let freed = other.revoke(&holder("a/7")).await.unwrap();
    assert_eq!(freed, Freed { holds: 2, artifacts: 2, bytes: (SMALL + LARGE) as u64 });
    let folder = tempfile::tempdir().unwrap();
    for (seed_byte, size) in SIZES.into_iter().enumerate() {
        for name in ["a/7", "a/7/0", "a/7/9/9"] {
            let bytes = content(seed_byte as u8 + 10, size);
            let hash = blake3::hash(&bytes);
            let path = folder.path().join("file");
            std::fs::write(&path, &bytes).unwrap();
            for refused in [
                store.put(&holder(name), bytes).await,
                store.put_file(&holder(name), &path).await,
                store.hold(&holder(name), &seed.hash).await,
            ] {
                let error = refused.unwrap_err();
                assert!(
                    matches!(&error, StoreError::Revoked { holder } if holder.as_str() == name),
                    "{error}"
                );
                assert_eq!(error.class(), Class::Permanent);
            }
            assert_eq!(store.stat(&hash).await.unwrap(), None);
        }
        for name in ["a/70", "a/7-x", "a", "a/8/0"] {
            store.put(&holder(name), content(seed_byte as u8 + 10, size)).await.unwrap();
        }
    }
    assert_eq!(other.revoke(&holder("a/7")).await.unwrap(), Freed::default(), "again");
    assert_eq!(store.usage().await.unwrap().fences, 1);
    assert_eq!(store.get(&seed.hash).await.unwrap(), content(1, SMALL));
}

/// Publishing against a revocation: whichever comes first, nothing of the revoked holder stays.
pub async fn a_revocation_wins_over_a_publication_under_way(fixture: StoreFixture) {
    for round in 0..12_u8 {
        let (name, size) = (format!("a/{round}"), if round % 2 == 0 { SMALL } else { LARGE });
        let (store, put_holder) = (fixture.store.clone(), holder(&format!("{name}/0")));
        let put = tokio::spawn(async move { store.put(&put_holder, content(round, size)).await });
        tokio::time::sleep(Duration::from_micros(u64::from(round) * 150)).await;
        fixture.other.revoke(&holder(&name)).await.unwrap();
        let result = put.await.unwrap();
        assert!(matches!(&result, Ok(_) | Err(StoreError::Revoked { .. })), "{result:?}");
        let usage = fixture.store.usage().await.unwrap();
        assert_eq!(
            (usage.holds, usage.artifacts, usage.reserved_bytes),
            (0, 0, 0),
            "round {round}: {result:?}"
        );
        assert_eq!((fixture.blobs)(), 0);
    }
    assert_eq!(
        fixture.store.usage().await.unwrap().fences,
        small_limits().fences_max,
        "the oldest are dropped"
    );
}

/// A store that is full says so, takes what it has already, and takes more after a release.
pub async fn a_full_store_refuses_until_something_is_released(fixture: StoreFixture) {
    let (store, limits) = (&fixture.store, small_limits());
    let too_large = content(1, limits.artifact_bytes_max as usize + 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, &too_large).unwrap();
    // A file that says that it is empty and never ends.
    let endless = Path::new("/dev/zero");
    for refused in [
        store.put(&holder("a"), too_large).await,
        store.put_file(&holder("a"), &path).await,
        store.put_file(&holder("a"), endless).await,
    ] {
        assert!(matches!(refused, Err(StoreError::TooLarge { max, .. }) if max == limits.artifact_bytes_max));
    }
    let half = content(2, limits.bytes_max as usize / 2);
    store.put(&holder("a/1"), half.clone()).await.unwrap();
    let rest = limits.bytes_max as usize - half.len() - SMALL;
    store.put(&holder("a/2"), content(3, rest)).await.unwrap();
    std::fs::write(&path, content(4, LARGE)).unwrap();
    for refused in [
        store.put(&holder("b"), content(4, LARGE)).await,
        store.put_file(&holder("b"), &path).await,
        store.put(&holder("b"), content(5, SMALL + 1)).await,
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }) && error.class() == Class::Transient, "{error}");
    }
    store.put(&holder("b/2"), half).await.unwrap();
    store.put(&holder("b/3"), content(6, SMALL)).await.unwrap();
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.bytes, usage.bytes_max, usage.reserved_bytes), (limits.bytes_max, limits.bytes_max, 0));
    assert!(matches!(store.put(&holder("b"), content(7, 1)).await, Err(StoreError::Full { .. })));
    store.release(&holder("a/2")).await.unwrap();
    store.put(&holder("b"), content(4, LARGE)).await.unwrap();
    assert_eq!(store.usage().await.unwrap().reserved_bytes, 0);
}

/// One wrong byte is found by whoever reads, named, and repaired by the next publication, for all holders.
pub async fn a_damaged_artifact_is_found_and_repaired(fixture: StoreFixture) {
    let folder = tempfile::tempdir().unwrap();
    for size in [1, SMALL, LARGE] {
        let bytes = content(1, size);
        let hash = fixture.store.put(&holder("a"), bytes.clone()).await.unwrap().hash;
        fixture.store.hold(&holder("b"), &hash).await.unwrap();
        assert!((fixture.damage)(hash).await);
        let path = folder.path().join("copy");
        let error = fixture.other.get_to_file(&hash, &path).await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { hash: named, .. } if *named == hash), "{error}");
        assert_eq!(error.class(), Class::Permanent);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing wrong is left lying about");
        assert!(matches!(fixture.store.get(&hash).await, Err(StoreError::Corrupt { .. })));
        let stat = Stat { bytes: size as u64, holders: 2, is_damaged: true };
        assert_eq!(fixture.store.stat(&hash).await.unwrap(), Some(stat));

        fixture.store.put(&holder("c"), bytes.clone()).await.unwrap();
        assert_eq!(fixture.other.get(&hash).await.unwrap(), bytes);
        let stat = Stat { bytes: size as u64, holders: 3, is_damaged: false };
        assert_eq!(fixture.other.stat(&hash).await.unwrap(), Some(stat));
        let usage = fixture.store.usage().await.unwrap();
        assert_eq!((usage.artifacts, usage.bytes), (1, size as u64));
        for name in ["a", "b", "c"] {
            fixture.store.release(&holder(name)).await.unwrap();
        }
        fixture.store.sweep(Duration::ZERO).await.unwrap();
        assert_eq!((fixture.blobs)(), 0);
    }
}

/// Bytes that vanished are missed, and can be put back.
pub async fn a_lost_artifact_is_missed_and_replaced(fixture: StoreFixture) {
    let bytes = content(1, LARGE);
    let hash = fixture.store.put(&holder("a"), bytes.clone()).await.unwrap().hash;
    assert!((fixture.lose)(hash).await);
    assert!(matches!(fixture.other.get(&hash).await, Err(StoreError::Missing { .. })));
    assert!(fixture.store.stat(&hash).await.unwrap().is_some_and(|stat| stat.is_damaged));
    fixture.store.put(&holder("a"), bytes.clone()).await.unwrap();
    assert_eq!(fixture.other.get(&hash).await.unwrap(), bytes);
}

/// What a dead process left is found, and nothing else is touched.
pub async fn leftovers_are_swept_and_nothing_else(fixture: StoreFixture) {
    let (store, bytes) = (&fixture.store, content(1, LARGE));
    let kept = store.put(&holder("a"), content(2, LARGE)).await.unwrap().hash;
    let small = store.put(&holder("a"), content(3, SMALL)).await.unwrap().hash;
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap().blobs, 0);
    let before = (fixture.blobs)();
    (fixture.die_publishing)(bytes.clone()).await;
    assert_eq!((fixture.blobs)(), before + 1, "the blob is there");
    assert_eq!(store.stat(&blake3::hash(&bytes)).await.unwrap(), None, "nobody holds it");
    assert!(matches!(store.get(&blake3::hash(&bytes)).await, Err(StoreError::Missing { .. })));
    assert_eq!(fixture.other.sweep(Duration::from_secs(3600)).await.unwrap().blobs, 0, "too young");
    assert_eq!((fixture.blobs)(), before + 1);
    let swept = fixture.other.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.blobs, swept.bytes), (1, LARGE as u64));
    assert_eq!((fixture.blobs)(), before);
    assert_eq!(store.usage().await.unwrap().reserved_bytes, 0);
    assert_eq!(store.get(&kept).await.unwrap(), content(2, LARGE));
    assert_eq!(store.get(&small).await.unwrap(), content(3, SMALL));

    // The same bytes, published after a death and before a sweep.
    (fixture.die_publishing)(bytes.clone()).await;
    let hash = store.put(&holder("b"), bytes.clone()).await.unwrap().hash;
    store.sweep(Duration::ZERO).await.unwrap();
    assert_eq!(fixture.other.get(&hash).await.unwrap(), bytes);
    assert_eq!((fixture.blobs)(), before + 1);
}

/// All holds can be listed, piece by piece.
pub async fn holds_are_listed_in_order(fixture: StoreFixture) {
    let store = &fixture.store;
    let mut expected = Vec::new();
    for (at, name) in ["b/1", "a", "a/1", "b/0", "a-b"].into_iter().enumerate() {
        for seed in [at as u8, 50] {
            let hash = store.put(&holder(name), content(seed, SMALL)).await.unwrap().hash;
            expected.push(Hold { holder: holder(name), hash: hash.to_hex().to_string() });
        }
    }
    expected.sort();
    assert_eq!(store.holds(None, 100).await.unwrap(), expected);
    let mut found: Vec<Hold> = Vec::new();
    loop {
        let page = fixture.other.holds(found.last(), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found, expected);
}

/// Taking many, and letting go of many, is what it is to do so with each; what is wrong with one concerns no other.
pub async fn many_are_taken_and_let_go_of_as_each_by_itself(fixture: StoreFixture) {
    let store = &fixture.store;
    let mut claims = Vec::new();
    for (at, size) in SIZES.into_iter().enumerate() {
        let name = holder(&format!("made/{at}"));
        let artifact = store.put(&name, content(at as u8, size)).await.unwrap();
        claims.push((holder(&format!("taken/{at}")), artifact));
    }
    store.revoke(&holder("fenced")).await.unwrap();
    claims.insert(1, (holder("fenced/0"), claims[1].1));
    claims.insert(3, (holder("taken/lost"), Artifact { hash: blake3::hash(b"nobody has this"), bytes: 15 }));
    let taken = fixture.other.take_all(&claims).await.unwrap();
    assert!(matches!(&taken[1], Err(StoreError::Revoked { holder }) if holder.as_str() == "fenced/0"));
    assert!(matches!(&taken[3], Err(StoreError::Missing { .. })));
    for (seed, at) in [0, 2, 4, 5].into_iter().enumerate() {
        assert_eq!(taken[at].as_ref().unwrap(), &content(seed as u8, SIZES[seed]));
        assert_eq!(holders_of(&**store, &claims[at].1.hash).await, 2);
    }
    assert_eq!(taken.len(), claims.len());
    // What is larger than claimed is held and not read; what is smaller is for the caller to judge.
    for (seed, at) in [(2, 4), (3, 5)] {
        let artifact = claims[at].1;
        let of = |bytes| (holder("taken/other"), Artifact { bytes, ..artifact });
        let taken = fixture.other.take_all(&[of(artifact.bytes - 1), of(artifact.bytes + 1)]).await.unwrap();
        let Err(StoreError::TooLarge { max, got }) = &taken[0] else { panic!("it was read") };
        assert_eq!((*max, *got), (artifact.bytes - 1, artifact.bytes));
        assert_eq!(taken[1].as_ref().unwrap(), &content(seed, SIZES[usize::from(seed)]));
        assert_eq!(holders_of(&**store, &artifact.hash).await, 3);
    }
    assert!((fixture.damage)(claims[4].1.hash).await);
    let taken = store.take_all(&claims[4..]).await.unwrap();
    assert!(matches!(&taken[0], Err(StoreError::Corrupt { .. })), "{taken:?}");
    assert!(taken[1].is_ok());

    let freed = fixture.other.let_go_all(&[holder("made/0"), holder("nobody"), holder("taken")], false).await;
    assert_eq!(freed.unwrap(), Freed { holds: 7, artifacts: 1, bytes: 0 });
    let rest: Vec<Holder> = (1..4).map(|at| holder(&format!("made/{at}"))).collect();
    let freed = store.let_go_all(&rest, true).await.unwrap();
    assert_eq!((freed.holds, freed.artifacts), (3, 3));
    for name in &rest {
        assert!(matches!(store.put(name, Vec::new()).await, Err(StoreError::Revoked { .. })));
    }
    let artifact = store.put(&holder("seed"), content(1, SMALL)).await.unwrap();
    // More than go into one step.
    let crowd: Vec<Holder> = (0..600).map(|at| holder(&format!("crowd/{at}"))).collect();
    let claims: Vec<_> = crowd.iter().map(|name| (name.clone(), artifact)).collect();
    assert!(store.take_all(&claims).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(holders_of(&**store, &artifact.hash).await, 601);
    let freed = store.let_go_all(&crowd, false).await.unwrap();
    assert_eq!((freed.holds, freed.artifacts), (600, 0));
    assert_eq!(store.usage().await.unwrap().holds, 1);
}

/// Many publish, hold and release the same few artifacts at once; in the end the counts are right.
pub async fn counts_are_right_after_a_crowd(fixture: StoreFixture) {
    let mut crowd = Vec::new();
    for who in 0..8_u8 {
        let store = if who % 2 == 0 { fixture.store.clone() } else { fixture.other.clone() };
        crowd.push(tokio::spawn(async move {
            for round in 0..10_u8 {
                let size = if round % 2 == 0 { SMALL } else { LARGE };
                let name = holder(&format!("crowd/{who}/{round}"));
                let hash = store.put(&name, content(round % 4, size)).await.unwrap().hash;
                assert_eq!(blake3::hash(&store.get(&hash).await.unwrap()), hash, "held, so there");
                if round >= 2 {
                    let earlier = holder(&format!("crowd/{who}/{}", round - 2));
                    assert_eq!(store.release(&earlier).await.unwrap().holds, 1);
                }
            }
        }));
    }
    for task in crowd {
        task.await.unwrap();
    }
    let usage = fixture.store.usage().await.unwrap();
    assert_eq!((usage.holds, usage.artifacts, usage.reserved_bytes), (16, 2, 0), "{usage:?}");
    let freed = fixture.store.release(&holder("crowd")).await.unwrap();
    assert_eq!((freed.holds, freed.artifacts), (16, 2));
    fixture.store.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((fixture.blobs)(), 0);
}

/// Expands to a test for each rule of this module; `$fixture` is an async function that makes a [`StoreFixture`] with
/// [`small_limits`].
#[macro_export]
macro_rules! store_contract {
    ($fixture:path) => {
        $crate::store_contract!(@tests $fixture:
            what_was_put_is_got,
            what_is_too_large_for_its_reader_is_not_read,
            equal_bytes_are_stored_once_and_go_with_the_last_holder,
            a_release_covers_everything_below_and_nothing_beside,
            a_revoked_holder_is_refused_for_good,
            a_revocation_wins_over_a_publication_under_way,
            a_full_store_refuses_until_something_is_released,
            a_damaged_artifact_is_found_and_repaired,
            a_lost_artifact_is_missed_and_replaced,
            leftovers_are_swept_and_nothing_else,
            holds_are_listed_in_order,
            many_are_taken_and_let_go_of_as_each_by_itself,
            counts_are_right_after_a_crowd,
        );
    };
    (@tests $fixture:path: $($rule:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            $crate::testing::store_contract::$rule($fixture().await).await;
        })*
    };
}
