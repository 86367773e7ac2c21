//! `cuda/field.cuh` and `cuda/curve.cuh` against arkworks.

use ark_bn254::{Fq, Fq2, Fr, G1Affine, G2Affine};
use ark_ec::short_weierstrass::Affine;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{BigInt, BigInteger, Field, PrimeField};
use assay_kernels::device::{encode_points, Argument, Device, DevicePoint};
use assay_kernels::msm::{G1Point, G2Point};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::process::{threads, Shim};

fn words_of(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Montgomery forms of edge values: 0, 1, p - 1, single words full, and such.
fn edges<F: PrimeField<BigInt = BigInt<4>>>(from_montgomery: fn([u64; 4]) -> F) -> Vec<F> {
    let p = F::MODULUS;
    let mut all: Vec<BigInt<4>> = vec![BigInt::zero(), BigInt::one(), F::MODULUS_MINUS_ONE_DIV_TWO];
    for subtrahend in [1u64, 2, 1 << 32, u64::MAX] {
        let mut value = p;
        value.sub_with_borrow(&BigInt::from(subtrahend));
        all.push(value);
    }
    for half in 0..8 {
        let mut words = [0u64; 4];
        words[half / 2] = 0xffff_ffff << (32 * (half % 2));
        all.push(BigInt::new(words));
        words = [u64::MAX; 4];
        words[3] = p.0[3] - 1;
        words[half / 2] &= !(0xffff_ffff << (32 * (half % 2)));
        all.push(BigInt::new(words));
    }
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let edges = all.into_iter().filter(|value| *value < p).map(|value| from_montgomery(value.0));
    edges.chain((0..6).map(|_| F::rand(&mut rng))).collect()
}

fn field_agrees<F: PrimeField<BigInt = BigInt<4>>>(
    kernel: &'static str,
    from_montgomery: fn([u64; 4]) -> F,
    montgomery: fn(&F) -> [u64; 4],
) {
    let Some(shim) = Shim::start(3) else { return };
    let edges = edges(from_montgomery);
    let pairs: Vec<(F, F)> = edges.iter().flat_map(|a| edges.iter().map(|b| (*a, *b))).collect();
    let bytes = |side: fn(&(F, F)) -> F| -> Vec<u8> {
        pairs.iter().flat_map(|pair| montgomery(&side(pair))).flat_map(u64::to_le_bytes).collect()
    };
    let (a, b) = (shim.upload(&bytes(|pair| pair.0)).unwrap(), shim.upload(&bytes(|pair| pair.1)).unwrap());
    let out = shim.alloc(6 * 32 * pairs.len()).unwrap();
    let arguments = [
        Argument::Buffer(&a),
        Argument::Buffer(&b),
        Argument::Buffer(&out),
        Argument::Number(pairs.len() as u32),
    ];
    shim.launch(threads(kernel, pairs.len()), &arguments).unwrap();
    let out = words_of(&shim.download(&out, 0..6 * 32 * pairs.len()).unwrap());
    for ((a, b), seen) in pairs.iter().zip(out.chunks(24)) {
        let expected = [*a + b, *a - b, -*a, *a * b, from_montgomery(a.into_bigint().0), a.double()]
            .map(|x| montgomery(&x));
        assert_eq!(seen, expected.as_flattened(), "{a} and {b}");
    }
}

#[test]
fn field_operations_are_those_of_arkworks() {
    field_agrees::<Fr>("probe_fr_kernel", |w| Fr::new_unchecked(BigInt::new(w)), |x| x.0 .0);
    field_agrees::<Fq>("probe_fq_kernel", |w| Fq::new_unchecked(BigInt::new(w)), |x| x.0 .0);
}

#[test]
fn operations_in_the_quadratic_extension_are_those_of_arkworks() {
    let Some(shim) = Shim::start(3) else { return };
    let parts = edges::<Fq>(|w| Fq::new_unchecked(BigInt::new(w)));
    let elements: Vec<Fq2> =
        (0..24).map(|i| Fq2::new(parts[i % parts.len()], parts[(5 * i + 3) % parts.len()])).collect();
    let pairs: Vec<(Fq2, Fq2)> = elements.iter().flat_map(|a| elements.iter().map(|b| (*a, *b))).collect();
    let words = |x: &Fq2| [x.c0.0 .0, x.c1.0 .0];
    let bytes = |side: fn(&(Fq2, Fq2)) -> Fq2| -> Vec<u8> {
        pairs.iter().flat_map(|pair| words(&side(pair))).flatten().flat_map(u64::to_le_bytes).collect()
    };
    let (a, b) = (shim.upload(&bytes(|pair| pair.0)).unwrap(), shim.upload(&bytes(|pair| pair.1)).unwrap());
    let out = shim.alloc(5 * 64 * pairs.len()).unwrap();
    let arguments = [
        Argument::Buffer(&a),
        Argument::Buffer(&b),
        Argument::Buffer(&out),
        Argument::Number(pairs.len() as u32),
    ];
    shim.launch(threads("probe_fq2_kernel", pairs.len()), &arguments).unwrap();
    let out = words_of(&shim.download(&out, 0..5 * 64 * pairs.len()).unwrap());
    for ((a, b), seen) in pairs.iter().zip(out.chunks(40)) {
        let expected = [*a * b, a.square(), *a + b, *a - b, -*a].map(|x| words(&x));
        assert_eq!(seen, expected.as_flattened().as_flattened(), "{a} and {b}");
    }
}

/// All pairs of infinity, a point, its double, its negative and two others.
fn curve_agrees<P: DevicePoint>(kernel: &'static str) {
    let Some(shim) = Shim::start(5) else { return };
    let g = Affine::<P::Curve>::generator();
    let multiples = [0i64, 1, 2, -1, -2, 3, 1_000_003].map(|by| {
        let point = g * ark_bn254::Fr::from(by);
        point.into_affine()
    });
    let stored = |point: &Affine<P::Curve>| P::from_affine(point).unwrap_or(P::INFINITY);
    let pairs: Vec<_> = multiples.iter().flat_map(|a| multiples.iter().map(|b| (*a, *b))).collect();
    let left: Vec<P> = pairs.iter().map(|pair| stored(&pair.0)).collect();
    let right: Vec<P> = pairs.iter().map(|pair| stored(&pair.1)).collect();
    let (a, b) = (shim.upload(&encode_points(&left)).unwrap(), shim.upload(&encode_points(&right)).unwrap());
    let bytes = 5 * 2 * P::BYTES;
    for multiplier in [0u32, 1, 5, 0x8000_0001] {
        let out = shim.alloc(bytes * pairs.len()).unwrap();
        let arguments = [
            Argument::Buffer(&a),
            Argument::Buffer(&b),
            Argument::Buffer(&out),
            Argument::Number(pairs.len() as u32),
            Argument::Number(multiplier),
        ];
        shim.launch(threads(kernel, pairs.len()), &arguments).unwrap();
        let out = words_of(&shim.download(&out, 0..bytes * pairs.len()).unwrap());
        let width = 4 * P::WIDTH;
        for ((a, b), seen) in pairs.iter().zip(out.chunks(5 * 4 * width)) {
            let (a, b) = (a.into_group(), b.into_group());
            let sum = a + b;
            let expected = [sum, sum, b - a, a + a, a * ark_bn254::Fr::from(multiplier)];
            for (index, (expected, seen)) in expected.iter().zip(seen.chunks(4 * width)).enumerate() {
                let part = |i: usize| P::coordinate(&seen[i * width..(i + 1) * width]);
                let (zz, zzz) = (part(2), part(3));
                let seen = zz.inverse().map(|inverse| {
                    assert!(zz.square() * zz == zzz.square(), "denominators belong together");
                    Affine::<P::Curve>::new_unchecked(part(0) * inverse, part(1) * zzz.inverse().unwrap())
                });
                assert!(
                    seen.unwrap_or_default() == expected.into_affine(),
                    "operation {index} on {a} and {b}"
                );
            }
        }
    }
}

#[test]
fn sums_in_g1_are_those_of_arkworks_in_every_case() {
    assert!(!G1Affine::generator().is_zero());
    curve_agrees::<G1Point>("probe_g1_kernel");
}

#[test]
fn sums_in_g2_are_those_of_arkworks_in_every_case() {
    assert!(!G2Affine::generator().is_zero());
    curve_agrees::<G2Point>("probe_g2_kernel");
}
