//! The digest of a guest's public values: the one public input of a settled proof.

/// BLAKE3 of the public values with the top three bits cleared, big endian: a BN254 scalar.
///
/// Source: the zkVM masks the committed digest to 253 bits where it becomes a scalar (`koalabear_bytes_to_bn254`).
pub fn public_value_digest(public_values: &[u8]) -> [u8; 32] {
    mask(public_value_digest_unmasked(public_values))
}

/// BLAKE3 of the public values, as the guest commits to it.
pub(crate) fn public_value_digest_unmasked(public_values: &[u8]) -> [u8; 32] {
    *blake3::hash(public_values).as_bytes()
}

/// Clears the top three bits.
pub(crate) fn mask(mut digest: [u8; 32]) -> [u8; 32] {
    digest[0] &= 0x1f;
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_bits_are_cleared_and_no_more() {
        assert_eq!(mask([0xff; 32])[0], 0x1f);
        assert_eq!(mask([0xff; 32])[1..], [0xff; 31]);
        let digest = public_value_digest(b"assay");
        assert_eq!(digest[0], blake3::hash(b"assay").as_bytes()[0] & 0x1f);
        assert_eq!(digest[1..], blake3::hash(b"assay").as_bytes()[1..]);
    }
}
