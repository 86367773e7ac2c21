//! BLAKE3 of short messages in tapscript.
//!
//! Script has no bitwise operations, so a 32-bit word is eight nibbles, each a stack item, and four tables do the work:
//! `xor` (256 entries, at `16 x + y`), `row` (`16 x`), and for sums below 48 the nibble and the carry. Rotations by 16, 12
//! and 8 only rename nibbles; rotation by 7 is one by 8 and a doubling.
//!
//! The message stays on the stack while it is hashed, which with tables and state bounds it to [`MESSAGE_BYTES_MAX`].
//! Source: O'Connor, Aumasson, Neves and Wilcox-O'Hearn, "BLAKE3", 2021, section 2; plain hash mode, one chunk.

use bitcoin::opcodes::all::{
    OP_ADD, OP_DUP, OP_ENDIF, OP_FROMALTSTACK, OP_GREATERTHAN, OP_GREATERTHANOREQUAL, OP_IF, OP_OVER,
    OP_PUSHNUM_15, OP_PUSHNUM_16, OP_PUSHNUM_2, OP_PUSHNUM_4, OP_PUSHNUM_7, OP_PUSHNUM_8, OP_SUB, OP_SWAP,
};
use bitcoin::script::Builder;

use super::assembler::{Assembler, Slot, Table};

/// Longest message.
pub const MESSAGE_BYTES_MAX: usize = 192;
/// Digits of the hash that [`hash`] leaves.
pub const HASH_DIGITS: usize = 64;

const NIBBLES: usize = 8;
const BLOCK_BYTES: usize = 64;
const ROUNDS: usize = 7;
const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
/// Words of the state that each call of the mixing function takes: columns, then diagonals.
const MIXES: [[usize; 4]; 8] = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
];
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const ROOT: u32 = 8;
/// Largest sum of three nibbles and a carry, plus one.
const SUMS: usize = 48;

/// The message is longer than the stack allows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message hashed in Script has at most {MESSAGE_BYTES_MAX} bytes, got {got}")]
pub struct MessageLengthError {
    /// Bytes asked for.
    pub got: usize,
}

/// A word: its nibbles, lowest first.
type Word = [Slot; NIBBLES];

struct Tables {
    xor: Table,
    row: Table,
    nibble: Table,
    carry: Table,
}

/// Replaces a message of `bytes` bytes with its BLAKE3 hash.
///
/// Stack: `[m_last .. m_0] -> [h_last .. h_0]`: digits of 4 bits, high half of each byte first, the first one on top, as a
/// Winternitz verifier leaves them. Digits must be in `0..=15` and minimally encoded; the caller sees to that. Size: about
/// 73 kB for each 64 bytes (pinned by a test). Needs at most 500 places beside the message.
///
/// # Errors
/// If `bytes` exceeds [`MESSAGE_BYTES_MAX`].
pub fn hash(builder: Builder, bytes: usize) -> Result<Builder, MessageLengthError> {
    Ok(hash_with_peak(builder, bytes)?.0)
}

/// [`hash`], and the stack places in use at the peak, the message among them.
fn hash_with_peak(builder: Builder, bytes: usize) -> Result<(Builder, usize), MessageLengthError> {
    if bytes > MESSAGE_BYTES_MAX {
        return Err(MessageLengthError { got: bytes });
    }
    let (mut asm, digits) = Assembler::new(builder, 2 * bytes);
    let tables = Tables {
        xor: asm.table((0..256).map(|index| (index >> 4) ^ (index & 15))),
        row: asm.table((0..16).map(|nibble| 16 * nibble)),
        nibble: asm.table((0..SUMS).map(|sum| sum % 16)),
        carry: asm.table((0..SUMS).map(|sum| sum / 16)),
    };
    let blocks = bytes.div_ceil(BLOCK_BYTES).max(1);
    let mut chaining: Option<[Word; 8]> = None;
    for block in 0..blocks {
        let length = (bytes - block * BLOCK_BYTES).min(BLOCK_BYTES);
        let flags =
            if block == 0 { CHUNK_START } else { 0 } | if block + 1 == blocks { CHUNK_END | ROOT } else { 0 };
        let words = message_words(&digits[2 * block * BLOCK_BYTES..], length);
        chaining = Some(compress(&mut asm, &tables, chaining, &words, (length as u32, flags)));
    }
    let hash = chaining.expect("there is at least one block");
    // The first digit goes to the alternative stack first: it comes back last, on top.
    for digit in 0..HASH_DIGITS {
        asm.roll(hash[digit / NIBBLES][(digit % NIBBLES) ^ 1]);
        asm.to_alternative();
    }
    while asm.len() > 0 {
        asm.drop_top();
    }
    let (builder, peak) = asm.finish();
    let builder = (0..HASH_DIGITS).fold(builder, |builder, _| builder.push_opcode(OP_FROMALTSTACK));
    Ok((builder, peak))
}

/// The nibbles of a block's words; `None` is padding. Word `w`, nibble `i` from below, is digit `8 w + (i ^ 1)`: bytes are little
/// endian, digits high half first.
fn message_words(digits: &[Slot], length: usize) -> [[Option<Slot>; NIBBLES]; 16] {
    std::array::from_fn(|word| {
        std::array::from_fn(|nibble| {
            let digit = word * NIBBLES + (nibble ^ 1);
            (digit < 2 * length).then(|| digits[digit])
        })
    })
}

fn constant_word(asm: &mut Assembler, value: u32) -> Word {
    std::array::from_fn(|nibble| asm.constant((value >> (4 * nibble)) as usize & 15))
}

/// One block; leaves the next chaining value, and nothing else above the tables.
fn compress(
    asm: &mut Assembler,
    tables: &Tables,
    chaining: Option<[Word; 8]>,
    message: &[[Option<Slot>; NIBBLES]; 16],
    (length, flags): (u32, u32),
) -> [Word; 8] {
    let chaining = chaining.unwrap_or_else(|| IV.map(|word| constant_word(asm, word)));
    let tail = [IV[0], IV[1], IV[2], IV[3], 0, 0, length, flags].map(|word| constant_word(asm, word));
    let mut state: [Word; 16] =
        std::array::from_fn(|word| if word < 8 { chaining[word] } else { tail[word - 8] });
    let mut order: [usize; 16] = std::array::from_fn(|word| word);
    for _ in 0..ROUNDS {
        for (mix, [a, b, c, d]) in MIXES.into_iter().enumerate() {
            let words = [&message[order[2 * mix]], &message[order[2 * mix + 1]]];
            for (word, turn) in words.into_iter().zip([16, 8]) {
                add_then_xor(asm, tables, &mut state, [a, b, d], (Some(word), turn));
                // The last rotation is by 7: by 8, then a doubling.
                add_then_xor(asm, tables, &mut state, [c, d, b], (None, if turn == 16 { 12 } else { 8 }));
            }
            double(asm, &mut state[b]);
        }
        order = PERMUTATION.map(|from| order[from]);
    }
    std::array::from_fn(|word| {
        std::array::from_fn(|nibble| {
            asm.roll(state[word][nibble]);
            asm.look_up(tables.row);
            xor_with(asm, tables, state[word + 8][nibble])
        })
    })
}

/// `state[x] += state[y] + message; state[z] = (state[z] ^ state[x]) >>> turn`, for a turn by whole nibbles.
fn add_then_xor(
    asm: &mut Assembler,
    tables: &Tables,
    state: &mut [Word; 16],
    [x, y, z]: [usize; 3],
    (message, turn): (Option<&[Option<Slot>; NIBBLES]>, usize),
) {
    let old = state[z];
    for nibble in 0..NIBBLES {
        // Stack from here on: [.. carry], the carry absent for the lowest nibble.
        asm.roll(state[x][nibble]);
        asm.pick(state[y][nibble]);
        asm.op(OP_ADD, 2);
        if let Some(part) = message.and_then(|word| word[nibble]) {
            asm.pick(part);
            asm.op(OP_ADD, 2);
        }
        if nibble > 0 {
            asm.op(OP_ADD, 2);
        }
        let keep_carry = nibble + 1 < NIBBLES;
        let carry = keep_carry.then(|| {
            if message.is_some() {
                let sum = asm.top();
                asm.pick(sum);
                asm.look_up(tables.carry);
                // [sum, carry] -> [carry, sum]
                asm.ops(&[OP_SWAP], 2, 2, 0)[0]
            } else {
                split_carry(asm)
            }
        });
        // Two addends leave a reduced sum already, where the carry was split off.
        state[x][nibble] =
            if message.is_none() && keep_carry { asm.top() } else { asm.look_up(tables.nibble) };
        let sum = state[x][nibble];
        asm.pick(sum);
        asm.look_up(tables.row);
        state[z][(nibble + NIBBLES - turn / 4) % NIBBLES] = xor_with(asm, tables, old[nibble]);
        if let Some(carry) = carry {
            asm.roll(carry);
        }
    }
}

/// `[sum] -> [carry, nibble]` for a sum below 32; returns the carry.
fn split_carry(asm: &mut Assembler) -> Slot {
    let opcodes =
        [OP_DUP, OP_PUSHNUM_15, OP_GREATERTHAN, OP_SWAP, OP_OVER, OP_IF, OP_PUSHNUM_16, OP_SUB, OP_ENDIF];
    asm.ops(&opcodes, 1, 2, 2)[0]
}

/// `[row] -> [nibble]`: xor with `other`, which is used up.
fn xor_with(asm: &mut Assembler, tables: &Tables, other: Slot) -> Slot {
    asm.roll(other);
    asm.op(OP_ADD, 2);
    asm.look_up(tables.xor)
}

/// Turns a word left by one bit.
fn double(asm: &mut Assembler, word: &mut Word) {
    // The top bit comes in at the bottom.
    asm.pick(word[NIBBLES - 1]);
    asm.ops(&[OP_PUSHNUM_7, OP_GREATERTHAN], 1, 1, 1);
    for nibble in 0..NIBBLES {
        // [bit, nibble] -> [2 nibble + bit] -> [carry, reduced]
        let last = nibble + 1 == NIBBLES;
        asm.roll(word[nibble]);
        asm.ops(&[OP_DUP, OP_ADD, OP_ADD], 2, 1, 1);
        let carry = split_carry(asm);
        word[nibble] = asm.top();
        asm.roll(carry);
        if last {
            asm.drop_top();
        }
    }
}

/// Clears the three high bits of a hash, as the claim's digest has them. Stack: `[h_last .. h_0] -> [h_last .. h_0 & 1]`.
#[must_use]
pub fn clear_top_bits(builder: Builder) -> Builder {
    // Takes each bit away where it is set, from the highest down.
    [OP_PUSHNUM_8, OP_PUSHNUM_4, OP_PUSHNUM_2].into_iter().fold(builder, |builder, bit| {
        let opcodes = [OP_DUP, bit, OP_GREATERTHANOREQUAL, OP_IF, bit, OP_SUB, OP_ENDIF];
        opcodes.into_iter().fold(builder, Builder::push_opcode)
    })
}

#[cfg(test)]
mod tests {
    use bitcoin::opcodes::all::OP_2DROP;
    use bitcoin::ScriptBuf;

    use super::super::compare::equals_constant;
    use super::super::testing::accepts;
    use super::*;

    /// Digits as witness items, last one first.
    fn items(message: &[u8]) -> Vec<Vec<u8>> {
        let number = |digit: u8| if digit == 0 { Vec::new() } else { vec![digit] };
        message.iter().flat_map(|byte| [number(byte >> 4), number(byte & 15)]).rev().collect()
    }

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0; bytes];
        ::blake3::Hasher::new().update(&[bytes as u8]).finalize_xof().fill(&mut message);
        message
    }

    fn script(bytes: usize, expected: &[u8; 32]) -> ScriptBuf {
        equals_constant(hash(Builder::new(), bytes).unwrap(), expected).push_int(1).into_script()
    }

    #[test]
    fn core_computes_the_hash_of_messages_of_every_kind_of_length() {
        for bytes in [0, 1, 3, 4, 63, 64, 65, 100, 128, 129, 192] {
            let message = message(bytes);
            let expected: [u8; 32] = ::blake3::hash(&message).into();
            assert!(accepts(&script(bytes, &expected), items(&message)), "{bytes} bytes");
        }
        for message in [[0; 128], [0xff; 128]] {
            assert!(accepts(&script(128, ::blake3::hash(&message).as_bytes()), items(&message)));
        }
    }

    #[test]
    fn core_finds_another_hash_for_another_message_or_another_expectation() {
        let good = message(128);
        let expected: [u8; 32] = ::blake3::hash(&good).into();
        let script_good = script(128, &expected);
        for at in [0, 31, 32, 63, 64, 127] {
            let mut other = good.clone();
            other[at] ^= 1;
            assert!(!accepts(&script_good, items(&other)), "message byte {at}");
        }
        for at in [0, 15, 31] {
            let mut other = expected;
            other[at] ^= 0x80;
            assert!(!accepts(&script(128, &other), items(&good)), "hash byte {at}");
        }
    }

    #[test]
    fn top_bits_are_cleared_for_every_digit() {
        for digit in 0..16u8 {
            let script = clear_top_bits(Builder::new())
                .push_int(i64::from(digit & 1))
                .push_opcode(bitcoin::opcodes::all::OP_NUMEQUAL)
                .into_script();
            assert!(accepts(&script, vec![if digit == 0 { Vec::new() } else { vec![digit] }]), "{digit}");
        }
    }

    #[test]
    fn the_stack_below_is_left_alone() {
        let message = message(64);
        let expected: [u8; 32] = ::blake3::hash(&message).into();
        let builder = equals_constant(hash(Builder::new(), 64).unwrap(), &expected);
        let script = builder.push_opcode(OP_2DROP).push_int(1).into_script();
        assert!(accepts(&script, [vec![vec![9], vec![8]], items(&message)].concat()));
    }

    #[test]
    fn a_message_that_the_stack_cannot_hold_is_refused() {
        let got = MESSAGE_BYTES_MAX + 1;
        assert_eq!(hash(Builder::new(), got).unwrap_err(), MessageLengthError { got });
    }

    #[test]
    fn sizes_and_stack_places_are_pinned() {
        let measured = [64, 128, 192].map(|bytes| {
            let (builder, peak) = hash_with_peak(Builder::new(), bytes).unwrap();
            (builder.into_script().len(), peak)
        });
        assert_eq!(measured, [(73_355, 627), (145_592, 755), (217_829, 883)]);
    }
}
