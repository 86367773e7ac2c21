//! Envelopes as leaf scripts.

use bitcoin::opcodes::all::{OP_CHECKSIG, OP_ENDIF, OP_IF};
use bitcoin::opcodes::OP_0;
use bitcoin::script::{Builder, Instruction, PushBytes};
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{
    absolute, transaction, Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
};

use super::{Codec, Envelope, EnvelopeError, Kind, Tag, BODY_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::graph::connector::ScriptOutput;

/// Bytes of the header push: tag (8), version, type, codec, plain length (4), stored length (4).
pub const HEADER_BYTES: usize = 19;
/// Version in the header.
const VERSION: u8 = 1;
/// Longest push that consensus allows.
const PUSH_BYTES: usize = 520;

fn push(bytes: &[u8]) -> &PushBytes {
    <&PushBytes>::try_from(bytes).expect("pushes here are at most 520 bytes")
}

fn header(tag: &Tag, envelope: &Envelope) -> [u8; HEADER_BYTES] {
    let stored_len = envelope.stored.len() as u32;
    let fields: [&[u8]; 4] = [
        tag,
        &[VERSION, envelope.kind.byte(), envelope.codec.byte()],
        &envelope.plain_len.to_le_bytes(),
        &stored_len.to_le_bytes(),
    ];
    fields.concat().try_into().expect("8 + 3 + 4 + 4 bytes")
}

/// The leaf script of `envelope`.
#[must_use]
pub fn encode(author: &XOnlyPublicKey, tag: &Tag, envelope: &Envelope) -> ScriptBuf {
    let start = Builder::new()
        .push_x_only_key(author)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_0)
        .push_opcode(OP_IF)
        .push_slice(header(tag, envelope));
    let body =
        envelope.stored.chunks(PUSH_BYTES).fold(start, |builder, chunk| builder.push_slice(push(chunk)));
    body.push_opcode(OP_ENDIF).into_script()
}

/// The commit output for `envelope`. Its one leaf is spent by the author's signature alone.
#[must_use]
pub fn commit_output(author: &XOnlyPublicKey, tag: &Tag, envelope: &Envelope, value: Amount) -> ScriptOutput {
    ScriptOutput::new(vec![encode(author, tag, envelope)], value)
}

/// The transaction that spends a commit output, which shows its envelope, unsigned; what is left goes to `change`.
#[must_use]
pub fn reveal_transaction(commit: OutPoint, change: TxOut) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: commit,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        }],
        output: vec![change],
    }
}

/// Reads a leaf script. `None` if it is no envelope with this tag; an error if it is one and malformed.
///
/// # Errors
/// `Script`, `Kind`, `Limit`, `Length`. Only the exact bytes that [`encode`] writes are accepted.
#[must_use]
pub fn decode(script: &Script, tag: &Tag) -> Option<Result<(XOnlyPublicKey, Envelope), EnvelopeError>> {
    let mut instructions = script.instructions();
    let mut next = || instructions.next()?.ok();
    let author = XOnlyPublicKey::from_slice(next()?.push_bytes()?.as_bytes()).ok()?;
    let frame =
        [next()?.opcode()? == OP_CHECKSIG, next()?.push_bytes()?.is_empty(), next()?.opcode()? == OP_IF];
    if frame.contains(&false) {
        return None;
    }
    let first = next()?;
    let header = first.push_bytes()?.as_bytes();
    if header.get(..tag.len()) != Some(tag.as_slice()) {
        return None;
    }
    let rest = script.instructions().skip(5);
    Some(body(header, rest, script.len()).and_then(|envelope| {
        let canonical = encode(&author, tag, &envelope);
        if canonical.as_script() == script {
            Ok((author, envelope))
        } else {
            Err(EnvelopeError::Script { detail: "it is not in its one canonical form" })
        }
    }))
}

/// Reads a leaf script, whatever its tag: for an envelope that was found by its tag before.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_any_tag(script: &Script) -> Option<Result<(XOnlyPublicKey, Envelope), EnvelopeError>> {
    let header = script.instructions().nth(4)?.ok()?;
    let tag = *header.push_bytes()?.as_bytes().first_chunk()?;
    decode(script, &tag)
}

/// `script_len`: the script holds every byte of the body, so that allocation is bounded by it, not by what the header announces.
fn body<'a>(
    header: &[u8],
    pushes: impl Iterator<Item = Result<Instruction<'a>, bitcoin::script::Error>>,
    script_len: usize,
) -> Result<Envelope, EnvelopeError> {
    let header: &[u8; HEADER_BYTES] = header.try_into().map_err(|_| EnvelopeError::Length {
        what: "envelope header",
        expected: HEADER_BYTES,
        got: header.len(),
    })?;
    if header[8] != VERSION {
        return Err(EnvelopeError::Script { detail: "unknown version" });
    }
    let kind = Kind::of(header[9]).ok_or(EnvelopeError::Kind { got: header[9] })?;
    let codec = Codec::of(header[10]).ok_or(EnvelopeError::Script { detail: "unknown codec" })?;
    let length = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let (plain_len, stored_len) = (length(11), length(15));
    check_limit("stored body", stored_len as usize, BODY_BYTES_MAX)?;
    check_limit("message", plain_len as usize, MESSAGE_BYTES_MAX)?;
    if codec == Codec::Plain && plain_len != stored_len {
        return Err(EnvelopeError::Script { detail: "plain body with two lengths" });
    }
    let mut stored = Vec::with_capacity((stored_len as usize).min(script_len));
    for item in pushes {
        match item.map_err(|_| EnvelopeError::Script { detail: "script is cut short" })? {
            Instruction::PushBytes(bytes) => stored.extend_from_slice(bytes.as_bytes()),
            Instruction::Op(OP_ENDIF) => break,
            Instruction::Op(_) => return Err(EnvelopeError::Script { detail: "opcode among the data" }),
        }
        check_limit("stored body", stored.len(), BODY_BYTES_MAX)?;
    }
    if stored.len() != stored_len as usize {
        return Err(EnvelopeError::Length {
            what: "stored body",
            expected: stored_len as usize,
            got: stored.len(),
        });
    }
    Ok(Envelope { kind, codec, plain_len, stored })
}

fn check_limit(what: &'static str, got: usize, limit: usize) -> Result<(), EnvelopeError> {
    if got > limit {
        return Err(EnvelopeError::Limit { what, got, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::script::unspendable_key;

    const TAG: Tag = *b"assaytag";

    fn envelope(stored: Vec<u8>) -> Envelope {
        Envelope { kind: Kind::Batch, codec: Codec::Plain, plain_len: stored.len() as u32, stored }
    }

    #[test]
    fn envelopes_of_every_size_are_read_back() {
        let author = unspendable_key();
        for size in [0, 1, 2, 75, 76, 255, 256, 519, 520, 521, 1_040, 1_041, BODY_BYTES_MAX] {
            // Bodies of one small byte are where a builder could write OP_1 instead of a push.
            let envelope = envelope(vec![1; size]);
            let script = encode(&author, &TAG, &envelope);
            assert_eq!(decode(&script, &TAG), Some(Ok((author, envelope))), "{size}");
            assert_eq!(decode(&script, b"othertag"), None);
        }
    }

    #[test]
    fn a_body_over_the_limit_or_in_another_form_is_refused() {
        let author = unspendable_key();
        let large = encode(&author, &TAG, &envelope(vec![0; BODY_BYTES_MAX + 1]));
        assert!(matches!(decode(&large, &TAG), Some(Err(EnvelopeError::Limit { .. }))));
        let script = encode(&author, &TAG, &envelope(vec![9; 30]));
        let mut trailing = script.to_bytes();
        trailing.push(0x51);
        assert!(matches!(
            decode(Script::from_bytes(&trailing), &TAG),
            Some(Err(EnvelopeError::Script { .. }))
        ));
        let cut = &script.as_bytes()[..script.len() - 5];
        assert!(matches!(decode(Script::from_bytes(cut), &TAG), Some(Err(_))));
    }

    proptest! {
        #[test]
        fn damaged_envelopes_never_panic_and_never_read_as_the_original(
            body in proptest::collection::vec(any::<u8>(), 0..1_200), at: prop::sample::Index, flip in 1u8..,
        ) {
            let author = unspendable_key();
            let envelope = envelope(body);
            let mut bytes = encode(&author, &TAG, &envelope).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_ne!(decode(Script::from_bytes(&bytes), &TAG), Some(Ok((author, envelope))));
        }

        #[test]
        fn any_script_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Script::from_bytes(&bytes), &TAG);
            let author = unspendable_key();
            let head = encode(&author, &TAG, &envelope(Vec::new())).to_bytes();
            let _ = decode(Script::from_bytes(&[&head[..head.len() - 1], &bytes].concat()), &TAG);
        }
    }
}
