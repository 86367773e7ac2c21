//! The Winternitz verifier in tapscript, and the witness for it.
//!
//! Per digit, with the element and the digit on the stack: the digit is cut to at most 15 (`OP_MIN`, which also brings it
//! to its one minimal encoding), 15 hashes of the element are laid on the stack, and the one that the digit picks
//! must be the public hash. A negative digit makes `OP_PICK` fail. Digits wait on the alternative stack; at the end their
//! sum and the three checksum digits must give `15 * digits`.

use bitcoin::opcodes::all::{
    OP_2DROP, OP_ADD, OP_DUP, OP_EQUALVERIFY, OP_FROMALTSTACK, OP_HASH160, OP_MIN, OP_NUMEQUALVERIFY,
    OP_PICK, OP_TOALTSTACK, OP_TUCK,
};
use bitcoin::script::Builder;

use crate::wots::{PublicKey, Signature, CHECKSUM_DIGITS, DIGIT_BITS, DIGIT_MAX, HASH_BYTES};

/// Fails unless the stack holds a signature under `key`; leaves the value's digits.
///
/// Stack: `[witness] -> [d_last .. d_0]`, the high half of the value's first byte on top; see [`witness`]. Needs 16 more
/// stack places. Size: 2,466 bytes for a value of 16 bytes, 4,706 for one of 32 (pinned by a test).
#[must_use]
pub fn verify(builder: Builder, key: &PublicKey) -> Builder {
    let builder = key.hashes().iter().fold(builder, verify_digit);
    checksum(builder, key.size().message_digits())
}

/// Stack: `[element, digit] -> []`, alternative stack: `[] -> [digit]`. Size: 67 bytes.
fn verify_digit(builder: Builder, hash: &[u8; HASH_BYTES]) -> Builder {
    let builder = builder
        .push_int(i64::from(DIGIT_MAX))
        .push_opcode(OP_MIN)
        .push_opcode(OP_DUP)
        .push_opcode(OP_TOALTSTACK)
        .push_opcode(OP_TOALTSTACK);
    let builder =
        (0..DIGIT_MAX).fold(builder, |builder, _| builder.push_opcode(OP_DUP).push_opcode(OP_HASH160));
    // At depth k lies the element hashed 15 - k times: depth `digit` must hold the public hash.
    let builder = builder
        .push_opcode(OP_FROMALTSTACK)
        .push_opcode(OP_PICK)
        .push_slice(hash)
        .push_opcode(OP_EQUALVERIFY);
    (0..=DIGIT_MAX / 2).fold(builder, |builder, _| builder.push_opcode(OP_2DROP))
}

/// Alternative stack: `[d_0 .. d_last, c_high, c_mid, c_low] -> []`, stack: `[] -> [d_last .. d_0]`.
fn checksum(builder: Builder, message_digits: usize) -> Builder {
    let builder = (0..CHECKSUM_DIGITS).fold(builder, |builder, _| builder.push_opcode(OP_FROMALTSTACK));
    // The high digit is on top: times 16 by four doublings, plus the next one.
    let builder = (1..CHECKSUM_DIGITS).fold(builder, |builder, _| {
        (0..DIGIT_BITS)
            .fold(builder, |builder, _| builder.push_opcode(OP_DUP).push_opcode(OP_ADD))
            .push_opcode(OP_ADD)
    });
    let builder = (0..message_digits).fold(builder, |builder, _| {
        builder.push_opcode(OP_FROMALTSTACK).push_opcode(OP_TUCK).push_opcode(OP_ADD)
    });
    builder.push_int(message_digits as i64 * i64::from(DIGIT_MAX)).push_opcode(OP_NUMEQUALVERIFY)
}

/// Witness items for [`verify`], bottom of the stack first: element and digit of the last digit, ..., of the first.
#[must_use]
pub fn witness(signature: &Signature) -> Vec<Vec<u8>> {
    let number = |digit: u8| if digit == 0 { Vec::new() } else { vec![digit] };
    signature.pairs().rev().flat_map(|(digit, element)| [element.to_vec(), number(digit)]).collect()
}

#[cfg(test)]
mod tests {
    use bitcoin::script::Builder;
    use bitcoin::ScriptBuf;

    use super::super::compare::{differ, drop_value, equals, equals_constant, restore, set_aside};
    use super::super::testing::accepts;
    use super::*;
    use crate::keys::OperatorSecret;
    use crate::wots::guard::UseGuard;
    use crate::wots::{public_key, KeyId, ValueSize};

    fn secret() -> OperatorSecret {
        OperatorSecret::from_bytes([0x42; 32])
    }

    fn id(claim: u32) -> KeyId {
        KeyId { trunk_id: [1; 32], epoch: 0, claim, value: "test".into() }
    }

    fn sign(claim: u32, value: &[u8]) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = UseGuard::open(&dir.path().join("wots.json")).unwrap();
        witness(&guard.sign(&secret(), &[(id(claim), value)]).unwrap()[0])
    }

    fn key(claim: u32, size: ValueSize) -> PublicKey {
        public_key(&secret(), &id(claim), size)
    }

    fn end(builder: Builder) -> ScriptBuf {
        builder.push_int(1).into_script()
    }

    /// The verifier, then a comparison with `value`.
    fn bound_to(value: &[u8], size: ValueSize) -> ScriptBuf {
        end(equals_constant(verify(Builder::new(), &key(0, size)), value))
    }

    #[test]
    fn core_accepts_a_signature_of_the_value_left_on_the_stack_and_no_other() {
        for size in [ValueSize::Bytes16, ValueSize::Bytes32] {
            let value: Vec<u8> = (0..size.bytes() as u8).map(|index| index.wrapping_mul(37) ^ 0xf0).collect();
            let zeros = vec![0; size.bytes()];
            let ones = vec![0xff; size.bytes()];
            for value in [&value, &zeros, &ones] {
                assert!(accepts(&bound_to(value, size), sign(0, value)));
                let mut other = value.clone();
                other[size.bytes() / 2] ^= 0x10;
                assert!(!accepts(&bound_to(&other, size), sign(0, value)), "another value on the stack");
                assert!(!accepts(&bound_to(value, size), sign(1, value)), "another key");
            }
        }
    }

    #[test]
    fn core_rejects_every_kind_of_forged_signature() {
        let size = ValueSize::Bytes16;
        let value = [0x5a; 16];
        let script = end(drop_value(verify(Builder::new(), &key(0, size)), size.message_digits()));
        let good = sign(0, &value);
        assert!(accepts(&script, good.clone()));
        // Items come in pairs from the last digit down; the last pair is the first digit (5).
        let last = good.len() - 1;
        let mutate = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut items = good.clone();
            change(&mut items);
            accepts(&script, items)
        };
        assert!(!mutate(&|items| items[last] = vec![6]), "digit without its element");
        assert!(!mutate(&|items| items[last - 1][0] ^= 1), "element damaged");
        let raise = |items: &mut Vec<Vec<u8>>| {
            use bitcoin::hashes::{hash160, Hash};
            items[last - 1] = hash160::Hash::hash(&items[last - 1]).to_byte_array().to_vec();
            items[last] = vec![6];
        };
        assert!(!mutate(&|items| raise(items)), "digit raised by hashing on: the checksum must notice");
        assert!(!mutate(&|items| items[last] = vec![0x85]), "negative digit");
        assert!(!mutate(&|items| items[last] = vec![16]), "digit above 15 is cut to 15, which is not signed");
        assert!(!mutate(&|items| items[last] = vec![5, 0, 0, 0, 0]), "number of five bytes");
        assert!(!mutate(&|items| items.truncate(last)), "item missing");
        assert!(!mutate(&|items| items.insert(0, vec![1])), "item too many");
        assert!(!mutate(&|items| items.swap(last, last - 2)), "digits swapped");
    }

    #[test]
    fn a_digit_in_a_longer_encoding_is_brought_to_the_minimal_one() {
        // Consensus lets numbers be padded; the verifier must not leave a padded one for byte-wise comparisons.
        let size = ValueSize::Bytes16;
        let value = [0x5a; 16];
        let mut items = sign(0, &value);
        let last = items.len() - 1;
        items[last] = vec![5, 0];
        let builder = verify(Builder::new(), &key(0, size));
        let builder = builder.push_slice([5u8]).push_opcode(OP_EQUALVERIFY);
        let script = end(drop_value(builder, size.message_digits() - 1));
        assert!(accepts(&script, items));
    }

    #[test]
    fn two_signed_values_compare_equal_only_if_they_are() {
        let size = ValueSize::Bytes16;
        let first = set_aside(verify(Builder::new(), &key(0, size)), size.message_digits());
        let both = restore(verify(first, &key(1, size)), size.message_digits());
        let script = end(equals(both, size.message_digits()));
        let value = [0xc3; 16];
        let mut other = value;
        other[15] ^= 1;
        // Key 0 is verified first: its items lie on top.
        assert!(accepts(&script, [sign(1, &value), sign(0, &value)].concat()));
        assert!(!accepts(&script, [sign(1, &other), sign(0, &value)].concat()));
    }

    #[test]
    fn two_signed_values_differ_only_if_some_digit_does() {
        let size = ValueSize::Bytes16;
        let first = set_aside(verify(Builder::new(), &key(0, size)), size.message_digits());
        let both = restore(verify(first, &key(1, size)), size.message_digits());
        let script = end(differ(both, size.message_digits()));
        let value = [0xc3; 16];
        assert!(!accepts(&script, [sign(1, &value), sign(0, &value)].concat()));
        for bit in 0..128 {
            let mut other = value;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(accepts(&script, [sign(1, &other), sign(0, &value)].concat()), "bit {bit}");
        }
    }

    #[test]
    fn sizes_are_pinned() {
        let sizes = [ValueSize::Bytes16, ValueSize::Bytes32].map(|size| {
            let script = verify(Builder::new(), &key(0, size)).into_script().len();
            let items = sign(0, &vec![0x77; size.bytes()]);
            (script, items.len(), items.iter().map(|item| item.len() + 1).sum::<usize>())
        });
        assert_eq!(sizes, [(2_466, 70, 803), (4_706, 134, 1_539)]);
    }
}
