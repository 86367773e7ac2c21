//! The proving key's file: a header page and page-aligned sections that are used in place.
//!
//! All numbers are little-endian. Header (one page of 4,096 bytes):
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | magic `ASSAYG16` |
//! | 8..12 | version |
//! | 12..16 | origin: 1 development (INSECURE), 2 ceremony |
//! | 16..112 | origin in words, padded with zeros |
//! | 112..144 | circuit digest |
//! | 144..176 | public variables (the constant one included), private variables, constraints, points of the domain |
//! | 176.. | per section: offset, length in bytes, BLAKE3 |
//! | 4064..4096 | BLAKE3 of the bytes before |
//!
//! Sections in order: `elements` (verifying key and beta, delta in G1, arkworks uncompressed), `a-index`, `a` (G1), `b-index`,
//! `b-g1`, `b-g2`, `l-index`, `l` (G1), `h` (G1). An index is the u32 number of the variable whose point it is, ascending:
//! points at infinity are left out. Points are Montgomery limbs ([`crate::msm::G1Point`], [`crate::msm::G2Point`]). `h` has one
//! point per point of the domain.

mod check;
mod map;
mod pin;
mod writer;

pub(super) use writer::KeyWriter;

use super::prover::{proof_memory, ProofMemory};
use super::{silent, Groth16Error, Progress};
use crate::msm::{G1Point, G2Point};
use ark_bn254::{Bn254, G1Affine};
use ark_groth16::VerifyingKey;
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use map::Map;
use std::path::{Path, PathBuf};

/// The words in the header of a development key; reports and logs repeat them.
pub const INSECURE_TEXT: &str = "INSECURE development key: whoever ran the set-up can forge proofs";

pub(super) const MAGIC: [u8; 8] = *b"ASSAYG16";
/// Version of the format, and of the way in which sections are computed.
pub(super) const VERSION: u32 = 1;
/// Length of the header, alignment of the sections.
pub(super) const PAGE: usize = 4096;
const TEXT: std::ops::Range<usize> = 16..112;
const DIGEST: std::ops::Range<usize> = 112..144;
const SIZES: usize = 144;
const TABLE: usize = 176;
const TABLE_ENTRY: usize = 48;
const HEADER_HASH: usize = PAGE - 32;

/// Who made a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// One process drew the trapdoor: INSECURE, for development.
    Development,
    /// Many parties made it. Recognised, not supported yet.
    Ceremony,
}

/// How much of a key is checked when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Header, its hash, lengths, indices and the verifying key. Tenths of a second for 10^7 constraints.
    Quick,
    /// Also the hash of every section, and that nothing is written between them: no byte of the file can have changed.
    Hashes,
    /// Also that every point is canonical, finite, on its curve and in its subgroup. Once for a [`ProvingKey::hash`] is enough.
    Points,
}

/// What a key is opened for, and with how much distrust.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// The circuit that it has to be for.
    pub circuit_digest: [u8; 32],
    /// See there.
    pub check: Check,
    /// The only [`ProvingKey::hash`] that will do; `None`: any.
    pub pinned: Option<[u8; 32]>,
    /// Gets what is checked now, in bytes or points.
    pub progress: Progress<'a>,
}

impl Opening<'_> {
    /// Any key for the circuit, reporting to nobody.
    pub fn of(circuit_digest: [u8; 32], check: Check) -> Self {
        Self { circuit_digest, check, pinned: None, progress: &silent }
    }
}

/// The parts of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Elements,
    AIndex,
    A,
    BIndex,
    BG1,
    BG2,
    LIndex,
    L,
    H,
}

impl Section {
    pub(super) const ALL: [Self; 9] = [
        Self::Elements,
        Self::AIndex,
        Self::A,
        Self::BIndex,
        Self::BG1,
        Self::BG2,
        Self::LIndex,
        Self::L,
        Self::H,
    ];

    pub(super) fn name(self) -> &'static str {
        ["elements", "a-index", "a", "b-index", "b-g1", "b-g2", "l-index", "l", "h"][self as usize]
    }
}

/// Where a section lies and what it hashes to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) hash: [u8; 32],
}

/// The numbers of a circuit that a key depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) instance: u64,
    pub(super) witness: u64,
    pub(super) constraints: u64,
    pub(super) domain: u64,
}

/// The first page.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) origin: Origin,
    pub(super) digest: [u8; 32],
    pub(super) shape: Shape,
    pub(super) extents: [Extent; 9],
}

/// The hash in a header page, of the bytes before.
fn header_hash(page: &[u8; PAGE]) -> [u8; 32] {
    *page.last_chunk().expect("a page is longer")
}

impl Header {
    pub(super) fn encode(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let (code, text) = match self.origin {
            Origin::Development => (1u32, INSECURE_TEXT),
            Origin::Ceremony => (2, "key from a ceremony"),
        };
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&code.to_le_bytes());
        page[TEXT][..text.len()].copy_from_slice(text.as_bytes());
        page[DIGEST].copy_from_slice(&self.digest);
        let shape = [self.shape.instance, self.shape.witness, self.shape.constraints, self.shape.domain];
        for (index, number) in shape.into_iter().enumerate() {
            page[SIZES + 8 * index..][..8].copy_from_slice(&number.to_le_bytes());
        }
        for (index, extent) in self.extents.iter().enumerate() {
            let entry = &mut page[TABLE + TABLE_ENTRY * index..][..TABLE_ENTRY];
            entry[..8].copy_from_slice(&extent.offset.to_le_bytes());
            entry[8..16].copy_from_slice(&extent.length.to_le_bytes());
            entry[16..].copy_from_slice(&extent.hash);
        }
        let hash = blake3::hash(&page[..HEADER_HASH]);
        page[HEADER_HASH..].copy_from_slice(hash.as_bytes());
        page
    }

    fn decode(page: &[u8; PAGE]) -> Result<Self, &'static str> {
        let number = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
        if page[..8] != MAGIC {
            return Err("wrong magic");
        }
        if page[8..12] != VERSION.to_le_bytes() {
            return Err("other version");
        }
        if blake3::hash(&page[..HEADER_HASH]) != header_hash(page) {
            return Err("header does not match its hash");
        }
        let origin = match page[12..16] {
            [1, 0, 0, 0] => Origin::Development,
            [2, 0, 0, 0] => Origin::Ceremony,
            _ => return Err("unknown origin"),
        };
        let mut extents = [Extent::default(); 9];
        for (index, extent) in extents.iter_mut().enumerate() {
            let at = TABLE + TABLE_ENTRY * index;
            let hash = page[at + 16..at + TABLE_ENTRY].try_into().expect("32 bytes");
            *extent = Extent { offset: number(at), length: number(at + 8), hash };
        }
        Ok(Self {
            origin,
            digest: page[DIGEST].try_into().expect("32 bytes"),
            shape: Shape {
                instance: number(SIZES),
                witness: number(SIZES + 8),
                constraints: number(SIZES + 16),
                domain: number(SIZES + 24),
            },
            extents,
        })
    }
}

/// The group elements that are not sections of their own.
#[derive(Debug, Clone, CanonicalSerialize, CanonicalDeserialize)]
pub(super) struct Elements {
    pub(super) vk: VerifyingKey<Bn254>,
    pub(super) beta_g1: G1Affine,
    pub(super) delta_g1: G1Affine,
}

/// A proving key, mapped from its file.
#[derive(Debug)]
pub struct ProvingKey {
    pub(super) header: Header,
    hash: [u8; 32],
    pub(super) elements: Elements,
    map: Map,
}

impl ProvingKey {
    /// Maps the key at `path` and checks it.
    ///
    /// # Errors
    /// As [`ProvingKey::open_as`].
    pub fn open(path: &Path, circuit_digest: &[u8; 32], check: Check) -> Result<Self, Groth16Error> {
        Self::open_as(path, &Opening::of(*circuit_digest, check))
    }

    /// Maps the key at `path` and checks it, the cheap things first.
    ///
    /// The file must not be changed while the key is in use (see `Map`): [`super::setup`] never does, it replaces files.
    ///
    /// # Errors
    /// [`Groth16Error::Io`], [`Groth16Error::NotAKey`], [`Groth16Error::WrongCircuit`] if the key is not for the circuit,
    /// [`Groth16Error::WrongKey`] if it is not the pinned one, [`Groth16Error::CeremonyUnsupported`], [`Groth16Error::Length`],
    /// [`Groth16Error::Encoding`], [`Groth16Error::InvalidElement`], [`Groth16Error::InvalidIndex`], and by [`Opening::check`]
    /// [`Groth16Error::Corrupt`], [`Groth16Error::InvalidPoint`].
    ///
    /// # Panics
    /// Never: the page that was read is there.
    pub fn open_as(path: &Path, opening: &Opening<'_>) -> Result<Self, Groth16Error> {
        let refuse = |reason| Groth16Error::NotAKey { path: path.to_path_buf(), expected: VERSION, reason };
        let hexadecimal = |hash: &[u8; 32]| blake3::Hash::from_bytes(*hash).to_hex().to_string();
        let map = Map::open(path)?;
        let page = map.bytes().first_chunk::<PAGE>().ok_or_else(|| refuse("shorter than its header"))?;
        let header = Header::decode(page).map_err(refuse)?;
        if header.digest != opening.circuit_digest {
            return Err(Groth16Error::WrongCircuit {
                expected: hexadecimal(&opening.circuit_digest),
                got: hexadecimal(&header.digest),
            });
        }
        let hash = header_hash(page);
        if let Some(pinned) = opening.pinned.filter(|pinned| *pinned != hash) {
            let path = path.to_path_buf();
            let (expected, got) = (hexadecimal(&pinned), hexadecimal(&hash));
            return Err(Groth16Error::WrongKey { path, expected, got });
        }
        if header.origin == Origin::Ceremony {
            return Err(Groth16Error::CeremonyUnsupported);
        }
        check::layout(&header, map.bytes().len() as u64)?;
        let elements = check::elements(map.section(&header.extents[Section::Elements as usize]))?;
        let key = Self { header, hash, elements, map };
        check::contents(&key, opening.check, opening.progress)?;
        Ok(key)
    }

    /// Opens the key at `path` if it is the one that the file beside it with the ending `.pin` names.
    ///
    /// Every section's hash is checked, every time; every point, the first time that this file is opened. That it was done is noted in a file with the ending `.checked`, which another file under this
    /// name, or a copy on another machine, does not fit. Where there is no pin the key becomes the pinned one.
    ///
    /// # Errors
    /// As [`ProvingKey::open_as`] with [`Check::Points`]; [`Groth16Error::Pin`].
    pub fn open_pinned(
        path: &Path,
        circuit_digest: &[u8; 32],
        progress: Progress<'_>,
    ) -> Result<Self, Groth16Error> {
        pin::open(path, circuit_digest, progress)
    }

    /// The pin of the key at `path`, if there is one: another key there would not be opened.
    pub fn pin_of(path: &Path) -> Option<PathBuf> {
        Some(pin::pin_path(path)).filter(|pin| pin.exists())
    }

    /// BLAKE3 of the header but for its last 32 bytes, which are this hash. The header holds the hash of every section, so it names
    /// the whole key: two keys with one hash are the same, byte for byte. That the sections are what the header says is only
    /// known from [`Check::Hashes`] on.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The verifying key.
    pub fn verifying_key(&self) -> &VerifyingKey<Bn254> {
        &self.elements.vk
    }

    /// Who made the key.
    pub fn origin(&self) -> Origin {
        self.header.origin
    }

    /// Whether somebody may know the trapdoor: reports must say so ([`INSECURE_TEXT`]).
    pub fn is_insecure(&self) -> bool {
        self.header.origin == Origin::Development
    }

    /// Points of the evaluation domain.
    pub fn domain_size(&self) -> u64 {
        self.header.shape.domain
    }

    /// Device memory of a proof with this key, whose points are uploaded as they are needed.
    pub fn device_memory(&self) -> ProofMemory {
        proof_memory::<()>(self, None)
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.map.bytes().len() as u64
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    pub(super) fn section(&self, section: Section) -> &[u8] {
        self.map.section(&self.header.extents[section as usize])
    }

    pub(super) fn index(&self, section: Section) -> &[u32] {
        map::cast(self.section(section))
    }

    pub(super) fn g1(&self, section: Section) -> &[G1Point] {
        map::cast(self.section(section))
    }

    pub(super) fn g2(&self, section: Section) -> &[G2Point] {
        map::cast(self.section(section))
    }
}
