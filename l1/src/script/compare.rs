//! Comparison of values that a Winternitz verifier left on the stack as digits.

use bitcoin::opcodes::all::{
    OP_2DROP, OP_ADD, OP_DROP, OP_FROMALTSTACK, OP_NUMEQUALVERIFY, OP_NUMNOTEQUAL, OP_ROLL, OP_TOALTSTACK,
    OP_VERIFY,
};
use bitcoin::script::Builder;

use crate::wots::DIGIT_BITS;

/// Digits of `value`, high half of each byte first.
fn digits(value: &[u8]) -> impl Iterator<Item = u8> + '_ {
    value.iter().flat_map(|byte| [byte >> DIGIT_BITS, byte & 0x0f])
}

/// Fails unless the digits on the stack are those of `value`, and removes them.
///
/// Stack: `[d_last .. d_0] -> []`, first digit on top. Size: 2 bytes per digit.
#[must_use]
pub fn equals_constant(builder: Builder, value: &[u8]) -> Builder {
    digits(value)
        .fold(builder, |builder, digit| builder.push_int(i64::from(digit)).push_opcode(OP_NUMEQUALVERIFY))
}

/// Fails unless two values of `count` digits each are equal, and removes both.
///
/// Stack: `[a_last .. a_0, b_last .. b_0] -> []`.
#[must_use]
pub fn equals(builder: Builder, count: usize) -> Builder {
    // With `left` digits of each value left, b's first is on top and a's first lies `left` deeper.
    (1..=count).rev().fold(builder, |builder, left| {
        builder.push_int(left as i64).push_opcode(OP_ROLL).push_opcode(OP_NUMEQUALVERIFY)
    })
}

/// Fails unless two values of `count` digits each differ, and removes both.
///
/// Stack: `[a_last .. a_0, b_last .. b_0] -> []`. Size: at most 5 bytes per digit.
#[must_use]
pub fn differ(builder: Builder, count: usize) -> Builder {
    // One flag for each digit, then their sum.
    let builder = (1..=count).rev().fold(builder, |builder, left| {
        builder
            .push_int(left as i64)
            .push_opcode(OP_ROLL)
            .push_opcode(OP_NUMNOTEQUAL)
            .push_opcode(OP_TOALTSTACK)
    });
    let builder = builder.push_int(0);
    (0..count)
        .fold(builder, |builder, _| builder.push_opcode(OP_FROMALTSTACK).push_opcode(OP_ADD))
        .push_opcode(OP_VERIFY)
}

/// Removes a value. Stack: `[d_last .. d_0] -> []`.
#[must_use]
pub fn drop_value(builder: Builder, count: usize) -> Builder {
    let builder = (0..count / 2).fold(builder, |builder, _| builder.push_opcode(OP_2DROP));
    (0..count % 2).fold(builder, |builder, _| builder.push_opcode(OP_DROP))
}

/// Puts a value aside, so that the witness below it can be reached. Stack: `[d_last .. d_0] -> []`, alternative stack the
/// reverse; [`restore`] brings it back in the same order.
#[must_use]
pub fn set_aside(builder: Builder, count: usize) -> Builder {
    (0..count).fold(builder, |builder, _| builder.push_opcode(OP_TOALTSTACK))
}

/// Brings back the value that [`set_aside`] put away last. Stack: `[] -> [d_last .. d_0]`.
#[must_use]
pub fn restore(builder: Builder, count: usize) -> Builder {
    (0..count).fold(builder, |builder, _| builder.push_opcode(OP_FROMALTSTACK))
}
