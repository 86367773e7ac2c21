//! Proofs, verifying keys and public inputs as the JSON of snarkjs and circom: decimal strings, projective points.

use super::Groth16Error;
use ark_bn254::{Bn254, Fq, Fq2, Fr, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ff::{BigInteger, PrimeField};
use ark_groth16::{Proof, VerifyingKey};
use serde::{Deserialize, Serialize};

const PROTOCOL: &str = "groth16";
const CURVE: &str = "bn128";

/// A point of G1: `[x, y, "1"]`.
type JsonG1 = [String; 3];
/// A point of G2: `[[x0, x1], [y0, y1], ["1", "0"]]`.
type JsonG2 = [[String; 2]; 3];

/// `proof.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonProof {
    /// A.
    pub pi_a: JsonG1,
    /// B.
    pub pi_b: JsonG2,
    /// C.
    pub pi_c: JsonG1,
    /// `groth16`.
    pub protocol: String,
    /// `bn128`, snarkjs' name of BN254.
    pub curve: String,
}

/// `vk.json`. The pairing `vk_alphabeta_12`, which snarkjs writes too, is not needed to verify; it is ignored when read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(non_snake_case, reason = "snarkjs' field names")]
pub struct JsonVerifyingKey {
    /// `groth16`.
    pub protocol: String,
    /// `bn128`.
    pub curve: String,
    /// Public inputs, the constant one not counted.
    pub nPublic: usize,
    /// Alpha in G1.
    pub vk_alpha_1: JsonG1,
    /// Beta in G2.
    pub vk_beta_2: JsonG2,
    /// Gamma in G2.
    pub vk_gamma_2: JsonG2,
    /// Delta in G2.
    pub vk_delta_2: JsonG2,
    /// The public inputs' points, the constant one's first.
    pub IC: Vec<JsonG1>,
}

impl From<&Proof<Bn254>> for JsonProof {
    fn from(proof: &Proof<Bn254>) -> Self {
        Self {
            pi_a: from_g1(&proof.a),
            pi_b: from_g2(&proof.b),
            pi_c: from_g1(&proof.c),
            protocol: PROTOCOL.into(),
            curve: CURVE.into(),
        }
    }
}

impl TryFrom<&JsonProof> for Proof<Bn254> {
    type Error = Groth16Error;

    fn try_from(json: &JsonProof) -> Result<Self, Groth16Error> {
        check_names(&json.protocol, &json.curve)?;
        Ok(Self {
            a: to_g1("pi_a", &json.pi_a)?,
            b: to_g2("pi_b", &json.pi_b)?,
            c: to_g1("pi_c", &json.pi_c)?,
        })
    }
}

impl From<&VerifyingKey<Bn254>> for JsonVerifyingKey {
    fn from(vk: &VerifyingKey<Bn254>) -> Self {
        Self {
            protocol: PROTOCOL.into(),
            curve: CURVE.into(),
            nPublic: vk.gamma_abc_g1.len().saturating_sub(1),
            vk_alpha_1: from_g1(&vk.alpha_g1),
            vk_beta_2: from_g2(&vk.beta_g2),
            vk_gamma_2: from_g2(&vk.gamma_g2),
            vk_delta_2: from_g2(&vk.delta_g2),
            IC: vk.gamma_abc_g1.iter().map(from_g1).collect(),
        }
    }
}

impl TryFrom<&JsonVerifyingKey> for VerifyingKey<Bn254> {
    type Error = Groth16Error;

    fn try_from(json: &JsonVerifyingKey) -> Result<Self, Groth16Error> {
        check_names(&json.protocol, &json.curve)?;
        if json.IC.len() != json.nPublic.saturating_add(1) {
            return Err(Groth16Error::PublicInputs {
                expected: json.nPublic,
                got: json.IC.len().saturating_sub(1),
            });
        }
        Ok(Self {
            alpha_g1: to_g1("vk_alpha_1", &json.vk_alpha_1)?,
            beta_g2: to_g2("vk_beta_2", &json.vk_beta_2)?,
            gamma_g2: to_g2("vk_gamma_2", &json.vk_gamma_2)?,
            delta_g2: to_g2("vk_delta_2", &json.vk_delta_2)?,
            gamma_abc_g1: json.IC.iter().map(|point| to_g1("IC", point)).collect::<Result<_, _>>()?,
        })
    }
}

/// `public.json`: the public inputs as decimal strings.
pub fn public_to_json(inputs: &[Fr]) -> Vec<String> {
    inputs.iter().map(decimal).collect()
}

/// The inputs of a `public.json`.
///
/// # Errors
/// [`Groth16Error::Encoding`] for anything but a canonical decimal number below the modulus.
pub fn public_from_json(inputs: &[String]) -> Result<Vec<Fr>, Groth16Error> {
    inputs.iter().map(|text| parse("public input", text)).collect()
}

fn refuse(item: &'static str, reason: impl Into<String>) -> Groth16Error {
    Groth16Error::Encoding { item, reason: reason.into() }
}

fn check_names(protocol: &str, curve: &str) -> Result<(), Groth16Error> {
    if protocol != PROTOCOL || curve != CURVE {
        return Err(refuse("json", format!("expected {PROTOCOL} over {CURVE}, got {protocol} over {curve}")));
    }
    Ok(())
}

fn decimal<F: PrimeField>(value: &F) -> String {
    value.into_bigint().to_string()
}

fn parse<F: PrimeField>(item: &'static str, text: &str) -> Result<F, Groth16Error> {
    let canonical = !text.is_empty()
        && text.len() <= 78
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(refuse(item, format!("not a canonical decimal number: {text:?}")));
    }
    let mut value = F::BigInt::default();
    for byte in text.bytes() {
        // value * 10 + digit, with room for an overflow check: 78 digits fit in 260 bits, so watch the carries.
        let overflow = push_digit(&mut value, u64::from(byte - b'0'));
        if overflow {
            return Err(refuse(item, "not below the modulus"));
        }
    }
    F::from_bigint(value).ok_or_else(|| refuse(item, "not below the modulus"))
}

/// `value = 10 value + digit`; whether it overflowed.
fn push_digit<B: BigInteger>(value: &mut B, digit: u64) -> bool {
    let mut carry = u128::from(digit);
    for limb in value.as_mut() {
        let wide = u128::from(*limb) * 10 + carry;
        *limb = wide as u64;
        carry = wide >> 64;
    }
    carry != 0
}

fn from_g1(point: &G1Affine) -> JsonG1 {
    if point.is_zero() {
        return ["0", "1", "0"].map(String::from);
    }
    [decimal(&point.x), decimal(&point.y), "1".into()]
}

fn from_g2(point: &G2Affine) -> JsonG2 {
    if point.is_zero() {
        return [["0", "0"], ["1", "0"], ["0", "0"]].map(|pair| pair.map(String::from));
    }
    let pair = |value: &Fq2| [decimal(&value.c0), decimal(&value.c1)];
    [pair(&point.x), pair(&point.y), ["1".into(), "0".into()]]
}

fn to_g1(item: &'static str, json: &JsonG1) -> Result<G1Affine, Groth16Error> {
    if json == &from_g1(&G1Affine::zero()) {
        return Ok(G1Affine::zero());
    }
    let [x, y, z] = json;
    let point = G1Affine::new_unchecked(parse::<Fq>(item, x)?, parse::<Fq>(item, y)?);
    if z != "1" || point.is_zero() || !point.is_on_curve() {
        return Err(refuse(item, "not a point of the curve"));
    }
    Ok(point)
}

fn to_g2(item: &'static str, json: &JsonG2) -> Result<G2Affine, Groth16Error> {
    if json == &from_g2(&G2Affine::zero()) {
        return Ok(G2Affine::zero());
    }
    let [x, y, z] = json;
    let pair = |[c0, c1]: &[String; 2]| {
        Ok::<_, Groth16Error>(Fq2::new(parse::<Fq>(item, c0)?, parse::<Fq>(item, c1)?))
    };
    let point = G2Affine::new_unchecked(pair(x)?, pair(y)?);
    let on_curve = !point.is_zero() && point.is_on_curve();
    if z != &["1", "0"] || !on_curve || !point.is_in_correct_subgroup_assuming_on_curve() {
        return Err(refuse(item, "not a point of the subgroup"));
    }
    Ok(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_strictly() {
        assert_eq!(
            parse::<Fr>("n", "12345678901234567890123").unwrap(),
            "12345678901234567890123".parse().unwrap()
        );
        assert_eq!(parse::<Fr>("n", "0").unwrap(), Fr::from(0u64));
        let modulus = Fr::MODULUS.to_string();
        let over = "9".repeat(78);
        for text in ["", "00", "01", "-1", "+1", " 1", "1 ", "0x1", "1a", &modulus, &over] {
            assert!(parse::<Fr>("n", text).is_err(), "{text:?}");
        }
        let largest = decimal(&-Fr::from(1u64));
        assert_eq!(parse::<Fr>("n", &largest).unwrap(), -Fr::from(1u64));
    }
}
