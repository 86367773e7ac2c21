//! Folding constant public inputs into a verifying key.

use super::Groth16Error;
use ark_bn254::{Bn254, Fr};
use ark_ec::{AffineRepr, CurveGroup};
use ark_groth16::VerifyingKey;

/// A verifying key that takes the constants for granted.
///
/// `constants` are (index among the public inputs, the constant one not counted; value). The inputs that are left keep their
/// order. A proof is valid under the new key with the remaining inputs exactly if it is valid under `vk` with all of them.
///
/// # Errors
/// [`Groth16Error::Constant`] for an index out of range or given twice.
pub fn specialise(
    vk: &VerifyingKey<Bn254>,
    constants: &[(usize, Fr)],
) -> Result<VerifyingKey<Bn254>, Groth16Error> {
    let mut kept = vec![true; vk.gamma_abc_g1.len()];
    let mut base = vk.gamma_abc_g1.first().copied().ok_or(Groth16Error::Constant { index: 0 })?.into_group();
    for &(index, value) in constants {
        let refused = Groth16Error::Constant { index };
        let slot = index.checked_add(1).filter(|&slot| kept.get(slot) == Some(&true)).ok_or(refused)?;
        kept[slot] = false;
        base += vk.gamma_abc_g1[slot] * value;
    }
    let rest = vk.gamma_abc_g1.iter().zip(&kept).skip(1).filter(|(_, &kept)| kept).map(|(point, _)| *point);
    let gamma_abc_g1 = std::iter::once(base.into_affine()).chain(rest).collect();
    Ok(VerifyingKey { gamma_abc_g1, ..vk.clone() })
}
