//! What a key is checked for when it is opened.

use super::{Check, Elements, Header, ProvingKey, Section, PAGE};
use crate::groth16::{Groth16Error, Progress};
use crate::msm::{first_outside, Point, PointFault};
use crate::ntt::Domain;
use ark_ec::AffineRepr;
use ark_serialize::CanonicalDeserialize;
use rand::rngs::OsRng;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

const G1_BYTES: u64 = 64;
const G2_BYTES: u64 = 128;
/// Bytes that are hashed between two reports.
const HASH_BLOCK: usize = 64 << 20;
/// Points that are checked between two reports: in G2 some seconds.
const POINT_BLOCK: usize = 1 << 20;
const HASHES: &str = "check hashes";

/// Offsets, lengths and counts agree with each other and with the file's length.
pub(super) fn layout(header: &Header, file_length: u64) -> Result<(), Groth16Error> {
    let extent = |section: Section| &header.extents[section as usize];
    let mut end = PAGE as u64;
    for section in Section::ALL {
        let expected = end.next_multiple_of(PAGE as u64);
        let found = extent(section);
        if found.offset != expected {
            return Err(Groth16Error::Length { section: section.name(), expected, got: found.offset });
        }
        end = found.offset.saturating_add(found.length);
        if end > file_length {
            return Err(Groth16Error::Length { section: section.name(), expected: end, got: file_length });
        }
    }
    if end != file_length {
        return Err(Groth16Error::Length { section: "file", expected: end, got: file_length });
    }
    let shape = header.shape;
    let domain = Domain::smallest_size(shape.constraints.saturating_add(shape.instance) as usize)?;
    let items = |section: Section| extent(section).length / 4;
    let expected = [
        (Section::A, items(Section::AIndex).saturating_mul(G1_BYTES)),
        (Section::BG1, items(Section::BIndex).saturating_mul(G1_BYTES)),
        (Section::BG2, items(Section::BIndex).saturating_mul(G2_BYTES)),
        (Section::L, items(Section::LIndex).saturating_mul(G1_BYTES)),
        (Section::H, shape.domain.saturating_mul(G1_BYTES)),
        (Section::AIndex, items(Section::AIndex) * 4),
        (Section::BIndex, items(Section::BIndex) * 4),
        (Section::LIndex, items(Section::LIndex) * 4),
        (Section::H, (domain as u64).saturating_mul(G1_BYTES)),
    ];
    for (section, expected) in expected {
        let got = extent(section).length;
        if got != expected {
            return Err(Groth16Error::Length { section: section.name(), expected, got });
        }
    }
    Ok(())
}

/// The sections' contents, as far as `check` says; indices are always checked, because proving relies on them.
pub(super) fn contents(key: &ProvingKey, check: Check, progress: Progress<'_>) -> Result<(), Groth16Error> {
    let shape = key.header.shape;
    let inputs = key.elements.vk.gamma_abc_g1.len() as u64;
    if inputs != shape.instance {
        return Err(Groth16Error::Shape { what: "public variables", expected: inputs, got: shape.instance });
    }
    let variables = shape.instance.saturating_add(shape.witness);
    for section in [Section::AIndex, Section::BIndex, Section::LIndex] {
        indices(key, section, variables)?;
    }
    if check == Check::Quick {
        return Ok(());
    }
    hashes(key, progress)?;
    if check == Check::Hashes {
        return Ok(());
    }
    for (section, stage) in [
        (Section::A, "check points of A"),
        (Section::BG1, "check points of B in G1"),
        (Section::L, "check points of L"),
        (Section::H, "check points of H"),
    ] {
        points(section, stage, key.g1(section), progress)?;
    }
    points(Section::BG2, "check points of B in G2", key.g2(Section::BG2), progress)
}

/// Decodes the single elements; arkworks checks their curves and subgroups.
pub(super) fn elements(section: &[u8]) -> Result<Elements, Groth16Error> {
    let wrong = |reason: String| Groth16Error::Encoding { item: "elements", reason };
    let mut rest = section;
    let elements = Elements::deserialize_uncompressed(&mut rest).map_err(|error| wrong(error.to_string()))?;
    if !rest.is_empty() {
        return Err(wrong(format!("{} bytes too many", rest.len())));
    }
    let vk = &elements.vk;
    let infinite = [
        ("alpha in G1", vk.alpha_g1.is_zero()),
        ("beta in G1", elements.beta_g1.is_zero()),
        ("beta in G2", vk.beta_g2.is_zero()),
        ("gamma in G2", vk.gamma_g2.is_zero()),
        ("delta in G1", elements.delta_g1.is_zero()),
        ("delta in G2", vk.delta_g2.is_zero()),
    ];
    match infinite.into_iter().find(|(_, is_infinite)| *is_infinite) {
        Some((element, _)) => Err(Groth16Error::InvalidElement { element }),
        None => Ok(elements),
    }
}

/// Every byte of the file is the header's, that of a section with the right hash, or zero.
fn hashes(key: &ProvingKey, progress: Progress<'_>) -> Result<(), Groth16Error> {
    let (done, total) = (AtomicU64::new(0), key.file_bytes());
    progress(HASHES, 0, total);
    Section::ALL.into_par_iter().try_for_each(|section| {
        let bytes = key.section(section);
        let mut hasher = blake3::Hasher::new();
        for block in bytes.chunks(HASH_BLOCK) {
            hasher.update(block);
            let block = block.len() as u64;
            progress(HASHES, done.fetch_add(block, Ordering::Relaxed) + block, total);
        }
        let (got, expected) = (hasher.finalize(), key.header.extents[section as usize].hash);
        if got == expected {
            return Ok(());
        }
        let expected = blake3::Hash::from_bytes(expected).to_hex().to_string();
        Err(Groth16Error::Corrupt { section: section.name(), expected, got: got.to_hex().to_string() })
    })?;
    // Sections begin at pages, behind one another.
    for extent in &key.header.extents {
        let end = (extent.offset + extent.length) as usize;
        let padding = &key.bytes()[end..end.next_multiple_of(PAGE).min(key.bytes().len())];
        if let Some(at) = padding.iter().position(|byte| *byte != 0) {
            return Err(Groth16Error::Padding { offset: end + at });
        }
    }
    progress(HASHES, total, total);
    Ok(())
}

/// Every index is a variable, and they ascend.
fn indices(key: &ProvingKey, section: Section, variables: u64) -> Result<(), Groth16Error> {
    let index = key.index(section);
    let bad = |at: usize| u64::from(index[at]) >= variables || at > 0 && index[at - 1] >= index[at];
    match (0..index.len()).into_par_iter().with_min_len(1 << 14).find_first(|&at| bad(at)) {
        Some(at) => Err(Groth16Error::InvalidIndex { section: section.name(), index: at }),
        None => Ok(()),
    }
}

fn points<P: Point>(
    section: Section,
    stage: &'static str,
    points: &[P],
    progress: Progress<'_>,
) -> Result<(), Groth16Error> {
    let total = points.len() as u64;
    progress(stage, 0, total);
    let mut rng = ChaCha20Rng::from_seed(seed()?);
    for (number, block) in points.chunks(POINT_BLOCK).enumerate() {
        let before = number * POINT_BLOCK;
        let invalid =
            |(at, fault)| Groth16Error::InvalidPoint { section: section.name(), index: before + at, fault };
        let off_curve =
            block.par_iter().enumerate().find_map_first(|(at, point)| Some((at, point.curve_fault()?)));
        let outside = || Some((first_outside(block, &mut rng)?, PointFault::OutsideSubgroup));
        if let Some(found) = off_curve.or_else(outside) {
            return Err(invalid(found));
        }
        progress(stage, (before + block.len()) as u64, total);
    }
    Ok(())
}

/// Coefficients that whoever has made the key could not foresee.
fn seed() -> Result<[u8; 32], Groth16Error> {
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).map_err(|error| Groth16Error::Randomness(error.to_string()))?;
    Ok(seed)
}
