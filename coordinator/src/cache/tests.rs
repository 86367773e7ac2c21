//! What the cache promises when files are damaged and writers meet.

use super::*;

fn entry(cache: &Cache, payload: &[u8]) -> Entry {
    let blob = cache.store_bytes(payload).unwrap();
    Entry {
        stage: "fold".into(),
        outcome: serde_json::json!({"cycles": 7}),
        blobs: BTreeMap::from([("proof".to_owned(), blob)]),
        millis: 1500,
        peak_bytes: 1 << 30,
    }
}

fn key() -> Key {
    Key::of("fold").with("program", [1; 32]).build()
}

fn load(cache: &Cache) -> (Option<Entry>, Vec<String>) {
    let mut warnings = Vec::new();
    let found = cache.load(key(), &mut |w| warnings.push(w)).unwrap();
    (found, warnings)
}

#[test]
fn what_was_stored_is_found_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    assert_eq!(load(&cache), (None, vec![]));
    let entry = entry(&cache, b"proof bytes");
    cache.store(key(), &entry).unwrap();
    assert_eq!(load(&cache), (Some(entry.clone()), vec![]));
    assert_eq!(cache.read_blob(&entry.blobs["proof"]).unwrap(), b"proof bytes");
    let other = Key::of("fold").with("program", [2; 32]).build();
    assert!(cache.load(other, &mut |_| ()).unwrap().is_none());
}

#[test]
fn keys_separate_names_values_and_order() {
    let keys = [
        Key::of("a").with("x", b"1").with("y", b"2").build(),
        Key::of("a").with("y", b"2").with("x", b"1").build(),
        Key::of("a").with("x", b"1y").with("", b"2").build(),
        Key::of("ax").with("", b"1").with("y", b"2").build(),
        Key::of("a").with("x", b"1").build(),
    ];
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn every_flipped_byte_of_a_blob_is_noticed_and_the_blob_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    for at in 0..11 {
        let entry = entry(&cache, b"proof bytes");
        cache.store(key(), &entry).unwrap();
        let path = cache.blob_path(&entry.blobs["proof"]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let (found, warnings) = load(&cache);
        assert!(found.is_none());
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("corrupt") && !path.exists());
    }
}

#[test]
fn every_cut_and_every_changed_digit_of_an_entry_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let entry = entry(&cache, b"proof bytes");
    cache.store(key(), &entry).unwrap();
    let path = cache.entry_path(key());
    let good = fs::read(&path).unwrap();
    let cuts = (0..good.len()).step_by(7).map(|end| good[..end].to_vec());
    let changes = good.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).map(|(at, byte)| {
        let mut bad = good.clone();
        bad[at] = if *byte == b'9' { b'8' } else { byte + 1 };
        bad
    });
    for bad in cuts.chain(changes) {
        fs::write(&path, bad).unwrap();
        let (found, warnings) = load(&cache);
        assert!(found.is_none() && warnings.len() == 1 && !path.exists());
    }
    fs::write(&path, good).unwrap();
    assert_eq!(load(&cache).0, Some(entry));
}

#[test]
fn an_entry_whose_blob_is_gone_counts_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let entry = entry(&cache, b"proof bytes");
    cache.store(key(), &entry).unwrap();
    fs::remove_file(cache.blob_path(&entry.blobs["proof"])).unwrap();
    let (found, warnings) = load(&cache);
    assert!(found.is_none() && warnings[0].contains("missing"));
}

#[test]
fn writers_of_the_same_entry_do_not_disturb_each_other_or_readers() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let first = entry(&cache, b"proof bytes");
    cache.store(key(), &first).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let entry = entry(&cache, b"proof bytes");
                    cache.store(key(), &entry).unwrap();
                    let (found, warnings) = load(&cache);
                    assert_eq!((found, warnings), (Some(entry), vec![]));
                }
            });
        }
    });
}

#[test]
fn a_stored_file_moves_in() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let path = cache.temporary("x");
    fs::write(&path, b"abc").unwrap();
    let blob = cache.store_file(&path).unwrap();
    assert!(!path.exists());
    assert_eq!(cache.read_blob(&blob).unwrap(), b"abc");
}

#[test]
fn pruning_removes_old_entries_and_unnamed_blobs_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let kept = entry(&cache, b"kept");
    let mut gone = entry(&cache, b"gone");
    gone.stage = "core".into();
    cache.store(key(), &kept).unwrap();
    cache.store(Key::of("core").build(), &gone).unwrap();
    cache.store_bytes(b"unnamed").unwrap();
    assert_eq!(cache.list().unwrap().len(), 2);
    let pruned = cache.prune(Duration::ZERO, |entry| entry.stage == "fold").unwrap();
    assert_eq!(pruned, Pruned { entries: 1, blobs: 2, bytes: 11 });
    assert_eq!(load(&cache).0, Some(kept));
    let pruned = cache.prune(Duration::from_secs(3600), |_| false).unwrap();
    assert_eq!(pruned, Pruned::default());
}

#[test]
fn folders_of_others_are_not_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("tmp/thesis.tex");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, b"x").unwrap();
    let refused =
        |cache: &Cache| matches!(cache.prune(Duration::ZERO, |_| false), Err(CacheError::NotACache { .. }));
    assert!(refused(&Cache::at(dir.path())));
    // Not even after it was used as a cache by mistake.
    assert!(refused(&Cache::open(dir.path()).unwrap()));
    assert!(theirs.exists());
}
