//! What is noticed when a key is opened: files that have changed, keys that others have made, points that are none.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;
use std::sync::Mutex;

use ark_bn254::{Fq2, G2Affine};
use assay_kernels::groth16::{
    setup, silent, synthetic, Check, Groth16Error, Opening, ProvingKey, ToxicWaste,
};
use assay_kernels::msm::{G2Point, Point, PointFault};
use tempfile::TempDir;

const DIGEST: [u8; 32] = [7; 32];
const PAGE: usize = 4096;

/// Sections in the header's order, with the bytes of an entry.
const SECTIONS: [(&str, usize); 9] = [
    ("elements", 1),
    ("a-index", 4),
    ("a", 64),
    ("b-index", 4),
    ("b-g1", 64),
    ("b-g2", 128),
    ("l-index", 4),
    ("l", 64),
    ("h", 64),
];

/// A good key's bytes, and a place for bad ones.
struct Keys {
    _folder: TempDir,
    path: PathBuf,
    good: Vec<u8>,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (system, _) = synthetic::circuit(20);
        setup(&system, DIGEST, &path, ToxicWaste::random().unwrap(), &silent).unwrap();
        let good = std::fs::read(&path).unwrap();
        Self { _folder: folder, path, good }
    }

    fn open(&self, bytes: &[u8], opening: &Opening<'_>) -> Result<ProvingKey, Groth16Error> {
        std::fs::write(&self.path, bytes).unwrap();
        ProvingKey::open_as(&self.path, opening)
    }

    fn checked(&self, bytes: &[u8], check: Check) -> Result<ProvingKey, Groth16Error> {
        self.open(bytes, &Opening::of(DIGEST, check))
    }
}

/// Where a section lies in a key.
fn extent(key: &[u8], section: usize) -> std::ops::Range<usize> {
    let number = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().unwrap()) as usize;
    let entry = 176 + 48 * section;
    number(entry)..number(entry) + number(entry + 8)
}

/// Where the last entry of a section lies, and its number.
fn last_entry(key: &[u8], section: usize) -> (std::ops::Range<usize>, usize) {
    let (range, bytes) = (extent(key, section), SECTIONS[section].1);
    (range.end - bytes..range.end, range.len() / bytes - 1)
}

/// Makes the hashes right, as somebody would who has made the key like that.
fn seal(key: &mut [u8]) {
    for section in 0..SECTIONS.len() {
        let hash = blake3::hash(&key[extent(key, section)]);
        key[176 + 48 * section + 16..][..32].copy_from_slice(hash.as_bytes());
    }
    let hash = blake3::hash(&key[..PAGE - 32]);
    key[PAGE - 32..PAGE].copy_from_slice(hash.as_bytes());
}

#[test]
fn every_changed_byte_of_the_key_is_noticed() {
    let keys = Keys::new();
    let good = &keys.good;
    keys.checked(good, Check::Hashes).unwrap();
    // All of the header's fields, then others here and there, between the sections too.
    let step = (good.len() / 800).max(1) | 1;
    for at in (0..700).chain((700..good.len()).step_by(step)) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(keys.checked(&bytes, Check::Hashes).is_err(), "byte {at}");
    }
    let mut between = good.clone();
    let end = extent(good, 1).end;
    between[end] = 1;
    let error = keys.checked(&between, Check::Hashes).unwrap_err();
    assert!(matches!(error, Groth16Error::Padding { offset } if offset == end), "{error}");
    let mut section = good.clone();
    section[extent(good, 5).start] ^= 1;
    let error = keys.checked(&section, Check::Hashes).unwrap_err();
    let said = blake3::hash(&good[extent(good, 5)]).to_hex().to_string();
    assert!(
        matches!(&error, Groth16Error::Corrupt { section: "b-g2", expected, got } if *expected == said && *got != said),
        "{error}"
    );
    let mut version = good.clone();
    version[8] += 1;
    let error = keys.checked(&version, Check::Hashes).unwrap_err();
    assert!(matches!(error, Groth16Error::NotAKey { reason: "other version", .. }), "{error}");
}

#[test]
fn a_truncated_key_and_a_longer_one_are_refused_without_reading_them() {
    let keys = Keys::new();
    let good = &keys.good;
    for length in [0, 100, PAGE - 1] {
        let error = keys.checked(&good[..length], Check::Quick).unwrap_err();
        assert!(matches!(error, Groth16Error::Io { .. } | Groth16Error::NotAKey { .. }), "{length}: {error}");
    }
    for length in [PAGE, good.len() / 2, good.len() - 1] {
        let error = keys.checked(&good[..length], Check::Quick).unwrap_err();
        assert!(matches!(error, Groth16Error::Length { .. }), "{length}: {error}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    let error = keys.checked(&longer, Check::Quick).unwrap_err();
    assert!(matches!(error, Groth16Error::Length { section: "file", .. }), "{error}");
}

#[test]
fn a_point_that_is_none_is_found_wherever_it_is_planted() {
    let keys = Keys::new();
    let outside = (1u64..).find_map(|x| G2Affine::get_point_from_x_unchecked(Fq2::from(x), false)).unwrap();
    let mut stray = Vec::new();
    G2Point::from_affine(&outside).unwrap().write(&mut stray);
    for (section, (name, bytes)) in SECTIONS.into_iter().enumerate().filter(|(_, (_, bytes))| *bytes >= 64) {
        let (place, number) = last_entry(&keys.good, section);
        let mut moved = keys.good[place.clone()].to_vec();
        // The lowest bit of y.
        moved[bytes / 2] ^= 1;
        let mut planted = vec![
            (moved, PointFault::OffCurve),
            (vec![0; bytes], PointFault::Infinity),
            (vec![0xff; bytes], PointFault::NotCanonical),
        ];
        if name == "b-g2" {
            planted.push((stray.clone(), PointFault::OutsideSubgroup));
        }
        for (point, expected) in planted {
            let mut key = keys.good.clone();
            key[place.clone()].copy_from_slice(&point);
            seal(&mut key);
            keys.checked(&key, Check::Hashes).unwrap();
            let error = keys.checked(&key, Check::Points).unwrap_err();
            let Groth16Error::InvalidPoint { section, index, fault } = &error else { panic!("{error}") };
            assert_eq!((*section, *index, *fault), (name, number, expected));
        }
    }
    keys.checked(&keys.good, Check::Points).unwrap();
}

#[test]
fn single_elements_and_indices_are_always_checked() {
    let keys = Keys::new();
    let elements = extent(&keys.good, 0);
    let changed = |change: &dyn Fn(&mut [u8])| {
        let mut key = keys.good.clone();
        change(&mut key);
        seal(&mut key);
        keys.checked(&key, Check::Quick).unwrap_err()
    };
    // The first element is alpha in G1, arkworks uncompressed: x, y, and a flag in the last byte.
    let infinite = changed(&|key| {
        key[elements.start..][..64].fill(0);
        key[elements.start + 63] = 0x40;
    });
    assert!(matches!(infinite, Groth16Error::InvalidElement { element: "alpha in G1" }), "{infinite}");
    for at in [0, 32, 64, 128] {
        let moved = changed(&|key| key[elements.start + at] ^= 1);
        assert!(matches!(moved, Groth16Error::Encoding { item: "elements", .. }), "byte {at}: {moved}");
    }
    for section in [1, 3, 6] {
        let (place, number) = last_entry(&keys.good, section);
        for value in [0, u32::MAX] {
            let error = changed(&|key| key[place.clone()].copy_from_slice(&value.to_le_bytes()));
            let Groth16Error::InvalidIndex { section: name, index } = &error else { panic!("{error}") };
            assert_eq!((*name, *index), (SECTIONS[section].0, number));
        }
    }
}

#[test]
fn only_the_pinned_key_is_opened() {
    let (ours, theirs) = (Keys::new(), Keys::new());
    let pinned = ours.checked(&ours.good, Check::Points).unwrap().hash();
    let other = theirs.checked(&theirs.good, Check::Points).unwrap().hash();
    for check in [Check::Quick, Check::Hashes, Check::Points] {
        let opening = Opening { pinned: Some(pinned), ..Opening::of(DIGEST, check) };
        assert_eq!(ours.open(&ours.good, &opening).unwrap().hash(), pinned);
        // A sound key of the same circuit, by another set-up.
        let error = ours.open(&theirs.good, &opening).unwrap_err();
        let Groth16Error::WrongKey { path, expected, got } = &error else { panic!("{error}") };
        assert_eq!(*path, ours.path);
        assert_eq!((expected.as_str(), got.as_str()), (&*hex::encode(pinned), &*hex::encode(other)));
    }
    // Two valid points change places, and all hashes in the file are made right.
    let mut forged = ours.good.clone();
    let place = extent(&forged, 8);
    let (first, second) = forged[place][..128].split_at_mut(64);
    first.swap_with_slice(second);
    seal(&mut forged);
    ours.checked(&forged, Check::Points).unwrap();
    let opening = Opening { pinned: Some(pinned), ..Opening::of(DIGEST, Check::Quick) };
    assert!(matches!(ours.open(&forged, &opening), Err(Groth16Error::WrongKey { .. })));
}

#[test]
fn a_long_check_says_how_far_it_is() {
    let keys = Keys::new();
    let told = Mutex::new(Vec::new());
    let progress = |stage: &'static str, done: u64, total: u64| {
        assert!(done <= total, "{stage}: {done} of {total}");
        told.lock().unwrap().push((stage, done == total));
    };
    keys.open(&keys.good, &Opening { progress: &progress, ..Opening::of(DIGEST, Check::Points) }).unwrap();
    let finished: Vec<&str> =
        told.into_inner().unwrap().into_iter().filter(|(_, done)| *done).map(|(stage, _)| stage).collect();
    let groups = ["A", "B in G1", "L", "H", "B in G2"].map(|name| format!("check points of {name}"));
    assert_eq!(finished[0], "check hashes");
    assert_eq!(finished[finished.len() - groups.len()..], groups);
}

/// Opens as whoever proves does. Returns whether the points were checked, which takes long.
fn prover(keys: &Keys) -> Result<bool, Groth16Error> {
    let points = Mutex::new(false);
    let progress =
        |stage: &'static str, _: u64, _: u64| *points.lock().unwrap() |= stage.starts_with("check points");
    ProvingKey::open_pinned(&keys.path, &DIGEST, &progress)?;
    Ok(points.into_inner().unwrap())
}

#[test]
fn points_are_checked_once_for_each_file_and_hashes_every_time() {
    let keys = Keys::new();
    assert!(prover(&keys).unwrap(), "the first time");
    assert!(!prover(&keys).unwrap(), "the second time");
    assert_eq!(ProvingKey::pin_of(&keys.path), Some(keys.path.with_extension("pin")));
    // A change that leaves length and time alone is found all the same.
    let data = std::fs::metadata(&keys.path).unwrap();
    let mut bytes = keys.good.clone();
    bytes[extent(&keys.good, 8).start] ^= 1;
    std::fs::write(&keys.path, &bytes).unwrap();
    let file = std::fs::File::options().write(true).open(&keys.path).unwrap();
    file.set_modified(data.modified().unwrap()).unwrap();
    assert!(matches!(prover(&keys), Err(Groth16Error::Corrupt { section: "h", .. })));
    // The same key, copied again.
    std::fs::write(&keys.path, &keys.good).unwrap();
    file.set_modified(data.modified().unwrap() + std::time::Duration::from_secs(1)).unwrap();
    assert!(prover(&keys).unwrap(), "another file");
    std::fs::write(keys.path.with_extension("checked"), "{}").unwrap();
    assert!(prover(&keys).unwrap(), "without a mark");
    assert!(!prover(&keys).unwrap());
}

#[test]
fn a_key_with_a_bad_point_is_never_marked_nor_pinned() {
    let keys = Keys::new();
    let mut key = keys.good.clone();
    let (place, _) = last_entry(&key, 5);
    key[place].fill(0);
    seal(&mut key);
    std::fs::write(&keys.path, &key).unwrap();
    for _ in 0..2 {
        assert!(matches!(prover(&keys), Err(Groth16Error::InvalidPoint { section: "b-g2", .. })));
    }
    let left: Vec<_> = std::fs::read_dir(keys.path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn another_set_up_does_not_take_the_pinned_ones_place() {
    let (ours, theirs) = (Keys::new(), Keys::new());
    prover(&ours).unwrap();
    std::fs::write(&ours.path, &theirs.good).unwrap();
    let error = prover(&ours).unwrap_err();
    assert!(matches!(error, Groth16Error::WrongKey { .. }), "{error}");
    // Neither does a pin that a person has written, or miswritten.
    let pin = ours.path.with_extension("pin");
    let hash = |keys: &Keys| ProvingKey::open(&keys.path, &DIGEST, Check::Quick).unwrap().hash();
    std::fs::write(&pin, hex::encode(hash(&theirs)).to_uppercase()).unwrap();
    assert!(prover(&ours).unwrap(), "another file, now the pinned one");
    for text in ["", "00", &"g".repeat(64)] {
        std::fs::write(&pin, text).unwrap();
        assert!(matches!(prover(&ours), Err(Groth16Error::Pin { .. })), "{text:?}");
    }
}
