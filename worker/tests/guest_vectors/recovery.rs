//! Public key recovery: against plain arithmetic, against Wycheproof, and with a host that lies.

use k256::{
    elliptic_curve::{
        ops::Reduce,
        point::{AffineCoordinates, DecompressPoint},
        sec1::ToEncodedPoint,
        subtle::Choice,
        PrimeField,
    },
    AffinePoint, FieldBytes, ProjectivePoint, Scalar, U256,
};
use sha2::{Digest, Sha256};

use crate::execute::{answers, run, shared_data, VECTORS_ELF};

const WITH_HOOK: u8 = 3;
const WITH_SUPPLIED_HINTS: u8 = 4;

/// A signature to recover from.
#[derive(Clone)]
struct Case {
    r: [u8; 32],
    s: [u8; 32],
    parity: u8,
    hash: [u8; 32],
}

impl Case {
    fn request(&self, operation: u8) -> Vec<u8> {
        [&[operation][..], &self.r, &self.s, &[self.parity], &self.hash].concat()
    }

    /// SEC 1, 4.1.6, in plain arithmetic.
    fn expected(&self) -> Option<[u8; 64]> {
        let scalar = |bytes: &[u8; 32]| Option::<Scalar>::from(Scalar::from_repr((*bytes).into()));
        let (r, s) = (scalar(&self.r)?, scalar(&self.s)?);
        let inverse = Option::<Scalar>::from(r.invert())?;
        if bool::from(s.is_zero()) {
            return None;
        }
        let z = <Scalar as Reduce<U256>>::reduce_bytes(&self.hash.into());
        let point = ProjectivePoint::from(self.point()?);
        let key = (point * s - ProjectivePoint::GENERATOR * z) * inverse;
        let key = key.to_affine().to_encoded_point(false);
        key.as_bytes().get(1..)?.try_into().ok()
    }

    fn point(&self) -> Option<AffinePoint> {
        AffinePoint::decompress(&FieldBytes::from(self.r), Choice::from(self.parity)).into()
    }

    /// Root and inverse, as an honest host supplies them.
    fn hints(&self) -> ([u8; 32], [u8; 32]) {
        let point = self.point().expect("r is the x of a point").to_encoded_point(false);
        let root = (*point.y().expect("uncompressed")).into();
        let r = Option::<Scalar>::from(Scalar::from_repr(self.r.into())).expect("r is below the order");
        (root, Option::<Scalar>::from(r.invert()).expect("r is not zero").to_bytes().into())
    }
}

/// A valid signature by the key 7.
fn signed() -> Case {
    let (secret, nonce) = (Scalar::from(7_u64), Scalar::from(1_234_567_u64));
    let hash: [u8; 32] = Sha256::digest(b"assay").into();
    let point = (ProjectivePoint::GENERATOR * nonce).to_affine();
    let r = <Scalar as Reduce<U256>>::reduce_bytes(&point.x());
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&hash.into());
    let s = Option::<Scalar>::from(nonce.invert()).expect("not zero") * (z + r * secret);
    let parity = u8::from(bool::from(point.y_is_odd()));
    Case { r: r.to_bytes().into(), s: s.to_bytes().into(), parity, hash }
}

fn small(value: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[31] = value;
    bytes
}

#[test]
fn a_signed_hash_gives_the_signers_key_at_a_bounded_cost() {
    let case = signed();
    let (answers, cycles) = answers(&[case.request(WITH_HOOK)]);
    let expected = (ProjectivePoint::GENERATOR * Scalar::from(7_u64)).to_affine().to_encoded_point(false);
    assert_eq!(answers[0].bytes, expected.as_bytes()[1..]);
    println!("public key recovery: {cycles} cycles");
    assert!(cycles < 30_000, "in software it takes over two million; took {cycles}");
}

#[test]
fn extreme_values_give_what_plain_arithmetic_gives() {
    let order_less_one = (-Scalar::ONE).to_bytes().into();
    let order = {
        let mut bytes: [u8; 32] = order_less_one;
        bytes[31] += 1;
        bytes
    };
    let values = [small(0), small(1), small(2), small(5), order_less_one, order, [0xff; 32]];
    let mut cases = Vec::new();
    for r in values {
        for s in values {
            for hash in [small(0), small(1), order_less_one, order, [0xff; 32]] {
                cases.extend((0..2).map(|parity| Case { r, s, parity, hash }));
            }
        }
    }
    // u1 * G + u2 * R is infinity: R = G, s = z.
    let g = ProjectivePoint::GENERATOR.to_affine();
    let parity = u8::from(bool::from(g.y_is_odd()));
    cases.push(Case { r: g.x().into(), s: small(9), parity, hash: small(9) });
    // R = -G: the sum of Shamir's trick is infinity.
    cases.push(Case { r: g.x().into(), s: small(9), parity: 1 - parity, hash: small(9) });
    cases.push(Case { r: g.x().into(), s: small(9), parity, hash: small(8) });
    // R is a small multiple of G and so are the sums on the way: equal and opposite points are added, and doubled.
    for multiple in 1..=3_u64 {
        let point = (ProjectivePoint::GENERATOR * Scalar::from(multiple)).to_affine();
        let r = <Scalar as Reduce<U256>>::reduce_bytes(&point.x());
        for (a, b) in (1..=6_u64).flat_map(|a| (0..=6_u64).map(move |b| (a, b))) {
            let s = (r * Scalar::from(a)).to_bytes().into();
            for b in [Scalar::from(b), -Scalar::from(b)] {
                let hash = (r * b).to_bytes().into();
                cases.extend((0..2).map(|parity| Case { r: point.x().into(), s, parity, hash }));
            }
        }
    }
    check(&cases);
    let found = cases.iter().filter(|case| case.expected().is_some()).count();
    assert!(found > 20 && found < cases.len() - 20, "both outcomes are covered: {found} of {}", cases.len());
}

fn check(cases: &[Case]) {
    let (answers, _) = answers(&cases.iter().map(|case| case.request(WITH_HOOK)).collect::<Vec<_>>());
    for (case, answer) in cases.iter().zip(&answers) {
        let expected = case.expected();
        assert_eq!(answer.success, expected.is_some(), "r {} s {}", hex::encode(case.r), hex::encode(case.s));
        assert_eq!(answer.bytes, expected.map_or(vec![], |key| key.to_vec()));
    }
}

#[test]
fn parities_beyond_one_are_refused() {
    let requests: Vec<_> =
        [2, 3, 4, 27, 255].map(|parity| Case { parity, ..signed() }.request(WITH_HOOK)).into();
    assert!(answers(&requests).0.iter().all(|answer| !answer.success));
}

#[test]
fn wycheproof_signatures_give_the_key_if_and_only_if_they_are_valid() {
    let Some(path) = shared_data("evm-precompiles/wycheproof_ecdsa_secp256k1_sha256_p1363.json") else {
        return;
    };
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
    let mut cases = Vec::new();
    let mut facts = Vec::new();
    for group in file["testGroups"].as_array().expect("groups") {
        let key = hex::decode(group["publicKey"]["uncompressed"].as_str().expect("key")).expect("hex");
        for test in group["tests"].as_array().expect("tests") {
            let bytes = |field: &str| hex::decode(test[field].as_str().expect("text")).expect("hex");
            let hash: [u8; 32] = Sha256::digest(bytes("msg")).into();
            let signature = bytes("sig");
            // Other lengths cannot even be put to the precompile.
            if signature.len() == 64 {
                let r = signature[..32].try_into().expect("32 bytes");
                let s = signature[32..].try_into().expect("32 bytes");
                cases.extend((0..2).map(|parity| Case { r, s, parity, hash }));
                facts.push((test["tcId"].clone(), test["result"] == "valid", key[1..].to_vec()));
            }
        }
    }
    check(&cases);
    assert!(facts.len() > 150, "only {} usable tests", facts.len());
    for ((id, valid, key), pair) in facts.iter().zip(cases.chunks_exact(2)) {
        let recovered = pair.iter().any(|case| case.expected().is_some_and(|found| found[..] == key[..]));
        // r was reduced by the order: only parities 2 and 3 would find the point, which Ethereum does not have.
        let beyond = pair[0].point().is_none() || is_small(&pair[0].r);
        assert!(recovered == *valid || (*valid && beyond), "test {id}: valid {valid}, recovered {recovered}");
    }
    println!("wycheproof: {} signatures, both parities each", facts.len());
}

/// Whether r plus the group's order is still below the field's modulus.
fn is_small(r: &[u8; 32]) -> bool {
    r[..15].iter().all(|byte| *byte == 0)
}

/// Runs one recovery with these hints; the exit code, and the answer if it is 0.
fn with_hints(case: &Case, hints: &[&[u8]]) -> (u32, Vec<u8>) {
    let request = case.request(WITH_SUPPLIED_HINTS);
    let items: Vec<&[u8]> = std::iter::once(request.as_slice()).chain(hints.iter().copied()).collect();
    let outcome = run(VECTORS_ELF, &items);
    (outcome.exit_code, outcome.public_values)
}

#[test]
fn a_lying_host_stops_the_program_and_never_changes_the_key() {
    const INVALID_HINT: u32 = 3;
    let case = signed();
    let (root, inverse) = case.hints();
    let expected = case.expected().expect("signed");
    let honest = with_hints(&case, &[&[1], &root, &inverse]);
    assert_eq!((honest.0, &honest.1[13..]), (0, &expected[..]), "honest hints pass");

    let (other_root, _) = Case { parity: 1 - case.parity, ..case.clone() }.hints();
    let mut off_by_one = inverse;
    off_by_one[31] ^= 1;
    let longer = [&root[..], &[0]].concat();
    let lies: [&[&[u8]]; 16] = [
        &[&[1], &other_root, &inverse],
        &[&[1], &case.r, &inverse],
        &[&[1], &small(0), &inverse],
        &[&[1], &[0xff; 32], &inverse],
        &[&[1], &root, &off_by_one],
        &[&[1], &root, &small(0)],
        &[&[1], &root, &[0xff; 32]],
        &[&[1], &root, &root],
        &[&[1], &root[1..], &inverse],
        &[&[1], &longer, &inverse],
        &[&[1], &root, &inverse[..31]],
        &[&[0], &root, &inverse],
        &[&[0], &small(0), &inverse],
        &[&[2], &root, &inverse],
        &[&[], &root, &inverse],
        &[&[1, 1], &root, &inverse],
    ];
    for (index, lie) in lies.iter().enumerate() {
        let (exit_code, public_values) = with_hints(&case, lie);
        assert_eq!((exit_code, public_values), (INVALID_HINT, vec![]), "lie {index}");
    }
}

#[test]
fn hints_beyond_the_modulus_are_refused() {
    // x with y = 1: the root 1 + p still fits in 32 bytes.
    let r = hex::decode("1fe1e5ef3fceb5c135ab7741333ce5a6e80d68167653f6b2b24bcbcfaaaff507").expect("hex");
    let case = Case { r: r.try_into().expect("32 bytes"), s: small(3), parity: 1, hash: small(4) };
    let (root, inverse) = case.hints();
    assert_eq!(root, small(1));
    assert_eq!(with_hints(&case, &[&[1], &root, &inverse]).0, 0);
    let beyond =
        hex::decode("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30").expect("hex");
    assert_eq!(with_hints(&case, &[&[1], &beyond, &inverse]).0, 3);

    // r = 1 is its own inverse; 1 + n still fits in 32 bytes.
    let case = Case { r: small(1), s: small(3), parity: 0, hash: small(4) };
    let (root, inverse) = case.hints();
    assert_eq!(with_hints(&case, &[&[1], &root, &inverse]).0, 0);
    let beyond =
        hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364142").expect("hex");
    assert_eq!(with_hints(&case, &[&[1], &root, &beyond]).0, 3);
}

#[test]
fn a_lying_host_cannot_turn_a_point_into_none_or_none_into_a_point() {
    // x = 5 is on no point of the curve: 132 is no square, 3 * 132 is.
    let none = Case { r: small(5), s: small(3), parity: 0, hash: small(4) };
    let root = hex::decode("d40c4df1527f889f1f1881caa2e6fe06776e25fc1452c4d10d95054cde963a48").expect("hex");
    let honest = with_hints(&none, &[&[0], &root]);
    assert_eq!((honest.0, honest.1[0]), (0, 1), "honest hints give no key");
    assert_eq!(with_hints(&none, &[&[1], &root, &small(1)]).0, 3);
    assert_eq!(with_hints(&none, &[&[0], &small(1)]).0, 3);
    let point = signed();
    let (root, _) = point.hints();
    for lie in [&root[..], &point.r, &small(0), &[0xff; 32], &root[..31]] {
        assert_eq!(with_hints(&point, &[&[0], lie]).0, 3);
    }
}
