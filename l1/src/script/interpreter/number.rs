//! Script's numbers: little endian, sign in the top bit of the last byte, zero empty.

use super::Fault;

/// The number in `bytes`; it need not be the shortest form (consensus lets it be longer).
pub(super) fn number(bytes: &[u8], bytes_max: usize) -> Result<i64, Fault> {
    if bytes.len() > bytes_max {
        return Err(Fault::Number);
    }
    let Some((last, rest)) = bytes.split_last() else { return Ok(0) };
    let low = rest.iter().rev().fold(i64::from(last & 0x7f), |value, byte| value << 8 | i64::from(*byte));
    Ok(if last & 0x80 == 0 { low } else { -low })
}

/// The shortest form of `value`.
pub(super) fn encode(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value.unsigned_abs();
    while rest > 0 {
        bytes.push(rest as u8);
        rest >>= 8;
    }
    let sign = if value < 0 { 0x80 } else { 0 };
    match bytes.last_mut() {
        Some(last) if *last & 0x80 == 0 => *last |= sign,
        Some(_) => bytes.push(sign),
        None => {}
    }
    bytes
}

pub(super) fn boolean(value: bool) -> Vec<u8> {
    encode(i64::from(value))
}

/// False are zeros of any length, also with a sign.
pub(super) fn truth(bytes: &[u8]) -> bool {
    match bytes.split_last() {
        Some((last, rest)) => rest.iter().any(|byte| *byte != 0) || last & 0x7f != 0,
        None => false,
    }
}
