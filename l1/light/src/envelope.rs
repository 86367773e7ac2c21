//! Data envelopes in taproot witnesses, as `l1/README.md` has them byte by byte.
//!
//! Leaf script: `<author key (32)> CHECKSIG 0 IF <header (19)> <pushes> ENDIF`; all pushes but the last have 520 bytes, and
//! each uses the shortest push. Header: tag (8), version 1, type, codec, length before compression (u32 LE), stored length
//! (u32 LE). `assay-l1` writes and reads the same with the `bitcoin` crate; a test holds the two against each other.
//!
//! The author is what the leaf says. That the author signed follows only if the output spent was a taproot output, which
//! a witness does not show; messages of this crate need no author.

use alloc::vec::Vec;

use crate::bytes::Reader;

/// Marks the envelopes of one trunk.
pub type Tag = [u8; 8];

/// Longest stored body, in bytes.
pub const BODY_BYTES_MAX: usize = 397_000;
/// Longest message before compression, in bytes.
pub const PLAIN_BYTES_MAX: usize = 64 << 20;
const HEADER_BYTES: usize = 19;
const PUSH_BYTES: usize = 520;
const VERSION: u8 = 1;

const CHECKSIG: u8 = 0xac;
const IF: u8 = 0x63;
const ENDIF: u8 = 0x68;
const PUSHDATA1: u8 = 0x4c;
const PUSHDATA2: u8 = 0x4d;
/// First byte of an annex.
const ANNEX: u8 = 0x50;
/// Leaf version of tapscript: consensus runs scripts of no other.
const TAPSCRIPT: u8 = 0xc0;

/// An envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The x-only key in the leaf.
    pub author: [u8; 32],
    /// Type byte.
    pub kind: u8,
    /// Codec byte: 0 plain, 1 zstd.
    pub codec: u8,
    /// Length before compression.
    pub plain_len: u32,
    /// The stored bytes.
    pub stored: Vec<u8>,
}

/// Why a leaf with the tag is no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The header has another length or version, or an unknown codec.
    #[error("malformed envelope header")]
    Header,
    /// A length is beyond the limit.
    #[error("{what} is {got}, the limit is {limit}")]
    Limit {
        /// What was measured.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// The body is not the announced one in its one canonical form.
    #[error("malformed envelope body")]
    Body,
}

/// The script of a script-path spend under tapscript; `None` for any other witness.
#[must_use]
pub fn tapscript<'a>(witness: &[&'a [u8]]) -> Option<&'a [u8]> {
    let witness = match witness {
        [rest @ .., annex] if !rest.is_empty() && annex.first() == Some(&ANNEX) => rest,
        all => all,
    };
    let [.., script, control] = witness else { return None };
    let whole = control.len() >= 33 && (control.len() - 33).is_multiple_of(32);
    (whole && control[0] & 0xfe == TAPSCRIPT).then_some(*script)
}

/// Reads a leaf script. `None` if it is no envelope with this tag; an error if it is one and malformed.
#[must_use]
pub fn decode(script: &[u8], tag: &Tag) -> Option<Result<Envelope, EnvelopeError>> {
    let mut reader = Reader(script);
    let author = push(&mut reader)?.try_into().ok()?;
    if reader.array::<3>()? != [CHECKSIG, 0, IF] {
        return None;
    }
    let before = reader.0;
    let header = push(&mut reader)?;
    if header.get(..tag.len()) != Some(tag.as_slice()) {
        return None;
    }
    // The shortest form of a push of 19 bytes begins with its length.
    if before.first() != Some(&(HEADER_BYTES as u8)) || script.first() != Some(&32) {
        return Some(Err(EnvelopeError::Header));
    }
    Some(body(author, header, reader))
}

fn body(author: [u8; 32], header: &[u8], mut reader: Reader<'_>) -> Result<Envelope, EnvelopeError> {
    let mut fields = Reader(header.get(8..).unwrap_or_default());
    let mut read = || Some((fields.array::<3>()?, fields.u32()?, fields.u32()?));
    let ([version, kind, codec], plain_len, stored_len) = read().ok_or(EnvelopeError::Header)?;
    if !fields.0.is_empty() || version != VERSION || codec > 1 {
        return Err(EnvelopeError::Header);
    }
    let limits = [
        ("stored body", stored_len as usize, BODY_BYTES_MAX),
        ("message", plain_len as usize, PLAIN_BYTES_MAX),
    ];
    for (what, got, limit) in limits {
        if got > limit {
            return Err(EnvelopeError::Limit { what, got, limit });
        }
    }
    if codec == 0 && plain_len != stored_len {
        return Err(EnvelopeError::Header);
    }
    // The script holds every byte of the body: allocation is bounded by the input.
    let mut stored = Vec::with_capacity((stored_len as usize).min(reader.0.len()));
    while stored.len() < stored_len as usize {
        let expected = (stored_len as usize - stored.len()).min(PUSH_BYTES);
        stored.extend_from_slice(canonical_push(&mut reader, expected).ok_or(EnvelopeError::Body)?);
    }
    if reader.0 != [ENDIF] {
        return Err(EnvelopeError::Body);
    }
    Ok(Envelope { author, kind, codec, plain_len, stored })
}

/// A push in any of the three forms that occur here.
fn push<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = match reader.u8()? {
        len @ 1..=75 => usize::from(len),
        PUSHDATA1 => usize::from(reader.u8()?),
        PUSHDATA2 => usize::from(u16::from_le_bytes(reader.array()?)),
        _ => return None,
    };
    reader.take(len)
}

/// A push of exactly `len` bytes (1 to 520) in the shortest form.
fn canonical_push<'a>(reader: &mut Reader<'a>, len: usize) -> Option<&'a [u8]> {
    let announced = match len {
        1..=75 => usize::from(reader.u8()?),
        76..=255 => match reader.array()? {
            [PUSHDATA1, len] => usize::from(len),
            _ => return None,
        },
        _ => match reader.array()? {
            [PUSHDATA2, low, high] => usize::from(u16::from_le_bytes([low, high])),
            _ => return None,
        },
    };
    if announced != len {
        return None;
    }
    reader.take(len)
}
