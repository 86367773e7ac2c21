//! What a key is checked for when it is opened.

use super::{Check, Header, ProvingKey, Section, PAGE};
use crate::groth16::Groth16Error;
use crate::msm::Point;
use crate::ntt::Domain;
use rayon::prelude::*;

const G1_BYTES: u64 = 64;
const G2_BYTES: u64 = 128;

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
pub(super) fn contents(key: &ProvingKey, check: Check) -> Result<(), Groth16Error> {
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
    Section::ALL.into_par_iter().try_for_each(|section| {
        let hash = blake3::hash(key.section(section));
        let expected = key.header.extents[section as usize].hash;
        if hash == expected {
            return Ok(());
        }
        Err(Groth16Error::Corrupt { section: section.name() })
    })?;
    if check == Check::Hashes {
        return Ok(());
    }
    for section in [Section::A, Section::BG1, Section::L, Section::H] {
        points(section, key.g1(section))?;
    }
    points(Section::BG2, key.g2(Section::BG2))
}

/// Every index is a variable, and they ascend.
fn indices(key: &ProvingKey, section: Section, variables: u64) -> Result<(), Groth16Error> {
    let index = key.index(section);
    let bad = |at: usize| u64::from(index[at]) >= variables || at > 0 && index[at - 1] >= index[at];
    match (0..index.len()).into_par_iter().with_min_len(1 << 14).find_first(|&at| bad(at)) {
        Some(at) => Err(Groth16Error::InvalidEntry { section: section.name(), index: at }),
        None => Ok(()),
    }
}

fn points<P: Point>(section: Section, points: &[P]) -> Result<(), Groth16Error> {
    match points.par_iter().position_first(|point| !point.is_valid()) {
        Some(index) => Err(Groth16Error::InvalidEntry { section: section.name(), index }),
        None => Ok(()),
    }
}
