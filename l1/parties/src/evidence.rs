//! What a confirmed witness says: the values that the operator signed, and their signatures as evidence.

use assay_l1::wots::{ValueSize, CHECKSUM_DIGITS, DIGIT_MAX};
use bitcoin::Witness;

use crate::types::Values;

/// Items of one 32-byte value in a witness: a digit and a chain element for each digit.
const ITEMS: usize = 2 * (64 + CHECKSUM_DIGITS);
/// Items above the values in the witness of an operator's leaf: operator, attesters, script, control block.
const ABOVE: usize = 4;

/// The number on the stack, as Script reads it, at most [`DIGIT_MAX`]: the verifier takes the lesser of both. `None` for a
/// number below 0 or of more than 4 bytes: the verifier fails on it.
fn digit(item: &[u8]) -> Option<u8> {
    let (last, low) = match item {
        [] => return Some(0),
        [low @ .., last] if item.len() <= 4 => (*last, low),
        _ => return None,
    };
    let magnitude = [low, &[last & 0x7f]].concat();
    let value = magnitude.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    if last & 0x80 != 0 && value != 0 {
        return None;
    }
    Some(value.min(u64::from(DIGIT_MAX)) as u8)
}

/// One signed value: its bytes, and its items with numbers in their shortest form.
fn value(items: &[&[u8]], size: ValueSize) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    // From the bottom: element and digit of the last digit, ..., of the first.
    let mut digits = Vec::with_capacity(size.digits());
    let mut clean = Vec::with_capacity(items.len());
    for pair in items.chunks_exact(2) {
        let value = digit(pair[1])?;
        digits.push(value);
        clean.push(pair[0].to_vec());
        clean.push(if value == 0 { Vec::new() } else { vec![value] });
    }
    digits.reverse();
    let bytes = digits[..size.message_digits()].chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Some((bytes, clean))
}

/// The values of a claim with their signatures' witness items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedClaim {
    /// The values.
    pub values: Values,
    items: [Vec<Vec<u8>>; 5],
}

impl SignedClaim {
    /// Reads the witness of a claim's first input. Consensus has run the script, so the signatures are good.
    #[must_use]
    pub fn read(witness: &Witness) -> Option<Self> {
        let all: Vec<&[u8]> = witness.iter().collect();
        if all.len() != 5 * ITEMS + ABOVE {
            return None;
        }
        let mut claim = Self { values: [[0; 32]; 5], items: Default::default() };
        for (place, items) in all[..5 * ITEMS].chunks_exact(ITEMS).rev().enumerate() {
            let (bytes, clean) = value(items, ValueSize::Bytes32)?;
            claim.values[place] = bytes.try_into().ok()?;
            claim.items[place] = clean;
        }
        Some(claim)
    }

    /// Items of the values at `places`, for a leaf that wants the first one on top.
    #[must_use]
    pub fn items(&self, places: &[usize]) -> Vec<Vec<u8>> {
        places.iter().rev().flat_map(|place| self.items[*place].iter().cloned()).collect()
    }
}

/// A value of an assertion slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedValue {
    /// The value.
    pub bytes: Vec<u8>,
    /// Its signature's witness items.
    pub items: Vec<Vec<u8>>,
}

/// Reads the witness of an assertion slot with values of these sizes, the first one on top.
#[must_use]
pub fn read_slot(witness: &Witness, sizes: &[ValueSize]) -> Option<Vec<SignedValue>> {
    let all: Vec<&[u8]> = witness.iter().collect();
    let mut end = all.len().checked_sub(ABOVE)?;
    let mut values = Vec::with_capacity(sizes.len());
    for size in sizes {
        let start = end.checked_sub(2 * size.digits())?;
        let (bytes, items) = value(&all[start..end], *size)?;
        values.push(SignedValue { bytes, items });
        end = start;
    }
    (end == 0).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_script_reads_them() {
        let cases: [(&[u8], Option<u8>); 10] = [
            (&[], Some(0)),
            (&[0], Some(0)),
            (&[0x80], Some(0)),
            (&[7], Some(7)),
            (&[7, 0], Some(7)),
            (&[15], Some(15)),
            (&[0x7f], Some(15)),
            (&[0, 1], Some(15)),
            (&[0x87], None),
            (&[1, 0, 0, 0, 0], None),
        ];
        for (item, expected) in cases {
            assert_eq!(digit(item), expected, "{item:?}");
        }
    }

    /// A witness with `values` of these sizes, the first one on top, and all that lies above.
    fn witness(values: &[(ValueSize, u8)]) -> Witness {
        let mut items = Vec::new();
        for (size, fill) in values.iter().rev() {
            for digit in (0..size.digits() as u8).rev() {
                let value = (digit ^ fill) % 16;
                items.push(vec![*fill; 20]);
                items.push(if value == 0 { Vec::new() } else { vec![value] });
            }
        }
        items.extend([vec![1; 64], vec![2; 64], vec![3; 100], vec![4; 33]]);
        Witness::from_slice(&items)
    }

    #[test]
    fn a_changed_witness_is_read_as_what_its_evidence_says_or_not_at_all() {
        use bitcoin::consensus::encode::{deserialize, serialize};
        let sizes = [ValueSize::Bytes16, ValueSize::Bytes32];
        let claim = [1, 2, 3, 4, 5].map(|fill| (ValueSize::Bytes32, fill));
        let corpus = [witness(&claim), witness(&[(sizes[0], 6), (sizes[1], 7)])].map(|one| serialize(&one));
        let above = |items: Vec<Vec<u8>>| {
            Witness::from_slice(&[items, vec![vec![1], vec![2], vec![3], vec![4]]].concat())
        };
        // The `bitcoin` crate begins a witness with up to 16 MB; an item has 24 bytes beside its own, in three lists.
        assay_l1_fuzz::Target::new("evidence", &corpus).memory(20 << 20, 64).run(|bytes| {
            let Ok(witness) = deserialize::<Witness>(bytes) else { return false };
            if let Some(claim) = SignedClaim::read(&witness) {
                assert_eq!(SignedClaim::read(&above(claim.items(&[0, 1, 2, 3, 4]))), Some(claim));
                return true;
            }
            let Some(slot) = read_slot(&witness, &sizes) else { return false };
            let items = slot.iter().rev().flat_map(|value| value.items.clone()).collect();
            assert_eq!(read_slot(&above(items), &sizes), Some(slot));
            true
        });
    }
}
