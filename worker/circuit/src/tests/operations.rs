//! One test an operation.

use super::{build, exts, felts, holds, op, vars, verify, Op};
use crate::koala::P;
use crate::steps::Inputs;
use crate::{CircuitError, WrapCircuit};
use ark_bn254::Fr;
use ark_ff::Field as _;
use ark_ff::{BigInteger, PrimeField};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use slop_algebra::{AbstractExtensionField, AbstractField, Field, PrimeField32};
use slop_symmetric::Permutation;
use sp1_primitives::{SP1ExtensionField, SP1Field};
use sp1_recursion_compiler::constraints::Constraint;

fn element(value: [u32; 4]) -> SP1ExtensionField {
    SP1ExtensionField::from_base_fn(|i| SP1Field::from_canonical_u32(value[i]))
}

fn coefficients(value: SP1ExtensionField) -> [u32; 4] {
    let slice: &[SP1Field] = value.as_base_slice();
    std::array::from_fn(|i| slice[i].as_canonical_u32())
}

fn random(rng: &mut ChaCha8Rng) -> [u32; 4] {
    std::array::from_fn(|_| rng.gen_range(0..P))
}

const EDGES: [u32; 7] = [0, 1, 2, P - 1, P - 2, (1 << 24) - 2, 1 << 30];

/// `opcode(felt0, felt1) = felt2` for a plain function, on edges and random values; a wrong result is refused.
fn binary_felt(opcode: Op, plain: fn(SP1Field, SP1Field) -> SP1Field) {
    let operations = [
        op(Op::WitnessF, "felt0|0"),
        op(Op::WitnessF, "felt1|1"),
        op(Op::WitnessF, "felt2|2"),
        op(opcode, "felt3|felt0|felt1"),
        op(Op::AssertEqF, "felt3|felt2"),
    ];
    let result =
        |a, b| plain(SP1Field::from_canonical_u32(a), SP1Field::from_canonical_u32(b)).as_canonical_u32();
    for a in EDGES {
        for b in EDGES.into_iter().filter(|&b| b != 0) {
            assert!(holds(&operations, &felts(&[a, b, result(a, b)])), "{a} {b}");
            assert!(!holds(&operations, &felts(&[a, b, (result(a, b) + 1) % P])), "{a} {b}");
        }
    }
    let (a, b) = (1_234_567_890, 987_654_321);
    let r = result(a, b);
    verify(
        &operations,
        &felts(&[a, b, r]),
        &[felts(&[a, b, r ^ 1]), felts(&[a ^ 1, b, r]), felts(&[a, b ^ 2, r])],
    );
}

#[test]
fn felts_are_added_subtracted_multiplied_and_divided() {
    binary_felt(Op::AddF, |a, b| a + b);
    binary_felt(Op::SubF, |a, b| a - b);
    binary_felt(Op::MulF, |a, b| a * b);
    binary_felt(Op::DivF, |a, b| a / b);
}

#[test]
fn division_by_zero_is_never_satisfied() {
    let operations =
        [op(Op::WitnessF, "felt0|0"), op(Op::WitnessF, "felt1|1"), op(Op::DivF, "felt3|felt0|felt1")];
    assert!(holds(&operations, &felts(&[5, 7])));
    assert!(!holds(&operations, &felts(&[5, 0])));
    assert!(!holds(&operations, &felts(&[0, 0])));
    let ext = [op(Op::WitnessE, "ext0|0"), op(Op::WitnessE, "ext1|1"), op(Op::DivE, "ext2|ext0|ext1")];
    assert!(holds(&ext, &exts(&[[1, 2, 3, 4], [0, 0, 0, 9]])));
    assert!(!holds(&ext, &exts(&[[0; 4], [0; 4]])));
}

/// `opcode(ext0, ext1) = ext2` for a plain function.
fn binary_ext(opcode: Op, plain: fn(SP1ExtensionField, SP1ExtensionField) -> SP1ExtensionField) {
    let operations = [
        op(Op::WitnessE, "ext0|0"),
        op(Op::WitnessE, "ext1|1"),
        op(Op::WitnessE, "ext2|2"),
        op(opcode, "ext3|ext0|ext1"),
        op(Op::AssertEqE, "ext3|ext2"),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let edges = [[0, 1, 0, 0], [1, 0, 0, 0], [P - 1; 4], [0, 0, 0, P - 1]];
    let pairs = edges
        .into_iter()
        .map(|edge| (edge, edge))
        .chain((0..4).map(|_| (random(&mut rng), random(&mut rng))));
    for (a, b) in pairs.collect::<Vec<_>>() {
        let right = coefficients(plain(element(a), element(b)));
        assert!(holds(&operations, &exts(&[a, b, right])));
        for i in 0..4 {
            let mut wrong = right;
            wrong[i] = (wrong[i] + 1) % P;
            assert!(!holds(&operations, &exts(&[a, b, wrong])));
        }
    }
    let (a, b) = (random(&mut rng), random(&mut rng));
    verify(&operations, &exts(&[a, b, coefficients(plain(element(a), element(b)))]), &[]);
}

#[test]
fn extension_elements_are_added_subtracted_multiplied_and_divided() {
    binary_ext(Op::AddE, |a, b| a + b);
    binary_ext(Op::SubE, |a, b| a - b);
    binary_ext(Op::MulE, |a, b| a * b);
    binary_ext(Op::DivE, |a, b| a / b);
}

#[test]
fn extension_and_base_elements_mix() {
    type Plain = fn(SP1ExtensionField, SP1Field) -> SP1ExtensionField;
    let cases: [(Op, Plain); 4] = [
        (Op::AddEF, |a, b| a + SP1ExtensionField::from_base(b)),
        (Op::SubEF, |a, b| a - SP1ExtensionField::from_base(b)),
        (Op::MulEF, |a, b| a * SP1ExtensionField::from_base(b)),
        (Op::DivEF, |a, b| a * SP1ExtensionField::from_base(b.inverse())),
    ];
    let (a, b) = ([7, P - 1, 1 << 30, 12_345], 1_999_999_999);
    for (opcode, plain) in cases {
        let operations = [
            op(Op::WitnessE, "ext0|0"),
            op(Op::WitnessF, "felt0|0"),
            op(Op::WitnessE, "ext1|1"),
            op(opcode, "ext2|ext0|felt0"),
            op(Op::AssertEqE, "ext1|ext2"),
        ];
        let right = coefficients(plain(element(a), SP1Field::from_canonical_u32(b)));
        let inputs = |result: [u32; 4]| Inputs { felts: vec![b], exts: vec![a, result], ..Inputs::default() };
        let wrong: Vec<Inputs> = (0..4)
            .map(|i| {
                let mut result = right;
                result[i] = (result[i] + P - 1) % P;
                inputs(result)
            })
            .collect();
        verify(&operations, &inputs(right), &wrong);
    }
}

#[test]
fn long_chains_are_reduced_before_they_overflow() {
    let mut operations =
        vec![op(Op::WitnessE, "ext0|0"), op(Op::WitnessE, "ext1|1"), op(Op::AddE, "ext2|ext0|ext0")];
    let a = [P - 1, P - 2, 5, 1 << 30];
    let mut value = element(a) + element(a);
    for i in 2..14 {
        operations.push(op(Op::MulE, &format!("ext{}|ext{i}|ext0", i + 1)));
        operations.push(op(Op::NegE, &format!("ext{}|ext{}", 100 + i, i + 1)));
        operations.push(op(Op::SubE, &format!("ext{}|ext{}|ext0", i + 1, 100 + i)));
        value = -(value * element(a)) - element(a);
    }
    operations.push(op(Op::AssertEqE, "ext14|ext1"));
    let right = coefficients(value);
    let wrong = [right[0], right[1], right[2] ^ 1, right[3]];
    verify(&operations, &exts(&[a, right]), &[exts(&[a, wrong])]);
}

#[test]
fn constants_need_no_rows() {
    let operations = [
        op(Op::ImmE, "ext0|3 0 5 2130706432"),
        op(Op::ImmF, "felt0|2130706430"),
        op(Op::MulEF, "ext1|ext0|felt0"),
        op(Op::MulE, "ext2|ext1|ext0"),
        op(Op::WitnessE, "ext3|0"),
        op(Op::AssertEqE, "ext2|ext3"),
    ];
    let constant = element([3, 0, 5, P - 1]);
    let right = coefficients(constant * constant * SP1ExtensionField::from_canonical_u32(P - 3));
    assert!(holds(&operations, &exts(&[right])));
    assert!(!holds(&operations, &exts(&[[right[0], right[1], right[2], right[3] ^ 1]])));
    assert_eq!(build(&operations).r1cs().num_constraints(), 4 * 31 + 4);
}

#[test]
fn selections_follow_the_bit() {
    let operations = [
        op(Op::WitnessF, "felt9|0"),
        op(
            Op::Num2BitsF,
            &format!("{}|felt9", (0..31).map(|i| format!("var{i}")).collect::<Vec<_>>().join(" ")),
        ),
        op(Op::WitnessF, "felt0|1"),
        op(Op::WitnessF, "felt1|2"),
        op(Op::SelectF, "felt2|var0|felt0|felt1"),
        op(Op::SelectF, "felt3|var0|felt1|felt0"),
        op(Op::WitnessF, "felt4|3"),
        op(Op::AssertEqF, "felt2|felt4"),
        op(Op::WitnessF, "felt5|4"),
        op(Op::AssertEqF, "felt3|felt5"),
        op(Op::WitnessE, "ext0|0"),
        op(Op::WitnessE, "ext1|1"),
        // A value that is not chosen is bound by nothing else.
        op(Op::ImmE, "ext8|1 2 3 4"),
        op(Op::AssertEqE, "ext0|ext8"),
        op(Op::ImmE, "ext9|5 6 7 2130706432"),
        op(Op::AssertEqE, "ext1|ext9"),
        op(Op::SelectE, "ext2|var1|ext0|ext1"),
        op(Op::WitnessE, "ext3|2"),
        op(Op::AssertEqE, "ext2|ext3"),
    ];
    let (a, b) = ([1, 2, 3, 4], [5, 6, 7, P - 1]);
    let inputs = |felts: [u32; 5], chosen| Inputs {
        felts: felts.to_vec(),
        exts: vec![a, b, chosen],
        ..Inputs::default()
    };
    verify(
        &operations,
        &inputs([1, 10, 20, 10, 20], b),
        &[inputs([1, 10, 20, 20, 10], b), inputs([1, 10, 20, 10, 20], a)],
    );
    verify(
        &operations,
        &inputs([2, 10, 20, 20, 10], a),
        &[inputs([2, 10, 20, 20, 10], b), inputs([2, 10, 20, 10, 10], a)],
    );
}

#[test]
fn bn254_values_are_combined() {
    let operations = [
        op(Op::WitnessV, "var0|0"),
        op(Op::WitnessV, "var1|1"),
        op(Op::ImmV, "var2|21888242871839275222246405745257275088548364400416034343698204186575808495616"),
        op(Op::MulV, "var3|var0|var1"),
        op(Op::AddV, "var4|var3|var2"),
        op(Op::SubV, "var5|var4|var0"),
        op(Op::WitnessV, "var6|2"),
        op(Op::AssertEqV, "var5|var6"),
        op(Op::CommitVkeyHash, "var0"),
        op(Op::CommitCommitedValuesDigest, "var1"),
        op(Op::CommitExitCode, "var3"),
        op(Op::CommitVkRoot, "var4"),
        op(Op::CommitProofNonce, "var5"),
    ];
    let (a, b) = (-Fr::from(5u64), Fr::from(1u64 << 60));
    let right = a * b - Fr::from(1u64) - a;
    let public = [a, b, a * b, a * b - Fr::from(1u64), right];
    let inputs = |values: [Fr; 3], public| Inputs { vars: values.to_vec(), public, ..Inputs::default() };
    let mut wrong = vec![inputs([a, b, right + Fr::from(1u64)], public)];
    for i in 0..5 {
        let mut other = public;
        other[i] += Fr::from(1u64);
        wrong.push(inputs([a, b, right], other));
    }
    verify(&operations, &inputs([a, b, right], public), &wrong);
}

#[test]
fn bits_are_those_of_the_canonical_value() {
    let names = |count: usize| (0..count).map(|i| format!("var{}", 100 + i)).collect::<Vec<_>>().join(" ");
    for value in [Fr::from(0u64), Fr::from(6u64), -Fr::from(1u64 << 40), Fr::from(u64::MAX)] {
        let mut operations =
            vec![op(Op::WitnessV, "var0|0"), op(Op::Num2BitsV, &format!("{}|var0|256", names(256)))];
        let bits = value.into_bigint().to_bits_le();
        for (i, bit) in bits.iter().enumerate() {
            operations.push(op(Op::ImmV, &format!("var{}|{}", 1000 + i, u8::from(*bit))));
            operations.push(op(Op::AssertEqV, &format!("var{}|var{}", 100 + i, 1000 + i)));
        }
        let accepted = holds(&operations, &vars(&[value]));
        // The few values that agree with the modulus in its first 64 bits are refused: see `bits`.
        assert_eq!(accepted, value != -Fr::from(1u64 << 40));
        assert!(!holds(&operations, &vars(&[value + Fr::from(1u64)])));
    }
    let operations = [op(Op::WitnessV, "var0|0"), op(Op::Num2BitsV, &format!("{}|var0|256", names(256)))];
    let keep =
        [op(Op::CommitVkeyHash, "var100"), op(Op::CommitExitCode, "var353"), op(Op::CommitVkRoot, "var354")];
    let operations: Vec<Constraint> = operations.into_iter().chain(keep).collect();
    let value = Fr::from(3u64).pow([1000u64]);
    let bits = value.into_bigint().to_bits_le();
    let public = [bits[0], false, bits[253], false, false].map(Fr::from);
    let right = Inputs { vars: vec![value], public, ..Inputs::default() };
    verify(&operations, &right, &[]);
}

#[test]
fn felt_bits_are_canonical_and_repack() {
    let names = (0..31).map(|i| format!("var{i}")).collect::<Vec<_>>().join(" ");
    let operations = [
        op(Op::WitnessF, "felt0|0"),
        op(Op::WitnessF, "felt1|1"),
        op(Op::MulF, "felt2|felt0|felt1"),
        op(Op::Num2BitsF, &format!("{names}|felt2")),
        op(Op::CommitVkeyHash, "var0"),
        op(Op::CommitExitCode, "var30"),
        op(Op::CircuitFelt2Var, "var40|felt2"),
        op(Op::CommitProofNonce, "var40"),
    ];
    for (a, b) in [(3, 5), (P - 1, P - 1), (P - 1, 1), (1 << 30, 1 << 30), (1, 77)] {
        let product = (u64::from(a) * u64::from(b) % u64::from(P)) as u32;
        let public = [product & 1, 0, product >> 30 & 1, 0, product].map(Fr::from);
        let inputs = Inputs { felts: vec![a, b], public, ..Inputs::default() };
        verify(&operations, &inputs, &[]);
        let mut other = inputs.clone();
        other.public[2] += Fr::from(1u64);
        assert!(!holds(&operations, &other));
    }
}

#[test]
fn inequality_is_that_of_classes() {
    let operations = [
        op(Op::WitnessF, "felt0|0"),
        op(Op::WitnessF, "felt1|1"),
        op(Op::MulF, "felt2|felt0|felt0"),
        op(Op::AssertNeF, "felt2|felt1"),
    ];
    verify(&operations, &felts(&[P - 1, 2]), &[felts(&[P - 1, 1]), felts(&[0, 0]), felts(&[2, 4])]);
}

#[test]
fn equality_polynomials_multiply_up() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let count = 9;
    let mut operations = vec![op(Op::ImmE, "ext0|1 0 0 0")];
    let points: Vec<[u32; 4]> = (0..count).map(|_| random(&mut rng)).collect();
    let bits: Vec<u32> = (0..count).map(|_| rng.gen_range(0..2)).collect();
    let mut right = SP1ExtensionField::one();
    for i in 0..count {
        operations.push(op(Op::WitnessE, &format!("ext{}|{i}", i + 1)));
        operations.push(op(Op::WitnessF, &format!("felt{i}|{i}")));
        let x = element(points[i]);
        right *= if bits[i] == 1 { x } else { SP1ExtensionField::one() - x };
    }
    for i in 0..count {
        operations.push(op(Op::EqEval, &format!("ext0|felt{i}|ext{}", i + 1)));
    }
    operations.push(op(Op::WitnessE, &format!("ext99|{count}")));
    operations.push(op(Op::AssertEqE, "ext0|ext99"));
    let inputs = |bits: &[u32], result: SP1ExtensionField| {
        let mut exts = points.clone();
        exts.push(coefficients(result));
        Inputs { felts: bits.to_vec(), exts, ..Inputs::default() }
    };
    let mut wrong = vec![inputs(&bits, right + SP1ExtensionField::one())];
    for i in 0..count {
        for value in [1 - bits[i], 2, P - 1] {
            let mut other = bits.clone();
            other[i] = value;
            wrong.push(inputs(&other, right));
        }
    }
    verify(&operations, &inputs(&bits, right), &wrong);
}

#[test]
fn powers_by_bits_and_quotients_of_powers() {
    // As the verifier does it: x = g^bits, then (e1 - e0) / (x1 - x0) with x0, x1 = x, -x in the order of a bit.
    let names = (0..31).map(|i| format!("var{i}")).collect::<Vec<_>>().join(" ");
    let mut operations = vec![op(Op::WitnessF, "felt0|0"), op(Op::Num2BitsF, &format!("{names}|felt0"))];
    operations.push(op(Op::ImmF, "felt1|1"));
    operations.push(op(Op::ImmF, "felt2|3"));
    let (index, mut power, mut x) = (0b1011_0101_1101u32, SP1Field::from_canonical_u32(3), SP1Field::one());
    for i in 0..12 {
        operations.push(op(Op::MulF, "felt3|felt1|felt2"));
        operations.push(op(Op::SelectF, &format!("felt1|var{i}|felt3|felt1")));
        operations.push(op(Op::MulF, "felt2|felt2|felt2"));
        x = if index >> i & 1 == 1 { x * power } else { x };
        power *= power;
    }
    operations.extend([
        op(Op::ImmF, "felt4|2130706432"),
        op(Op::MulF, "felt5|felt1|felt4"),
        op(Op::SelectF, "felt6|var12|felt5|felt1"),
        op(Op::SelectF, "felt7|var12|felt1|felt5"),
        op(Op::SubF, "felt8|felt7|felt6"),
        op(Op::WitnessE, "ext0|0"),
        op(Op::WitnessE, "ext1|1"),
        op(Op::WitnessE, "ext2|2"),
        op(Op::WitnessE, "ext3|3"),
        op(Op::SubE, "ext4|ext1|ext0"),
        op(Op::DivEF, "ext5|ext4|felt8"),
        op(Op::SubEF, "ext6|ext2|felt6"),
        op(Op::MulE, "ext7|ext6|ext5"),
        op(Op::AddE, "ext8|ext0|ext7"),
        op(Op::AssertEqE, "ext3|ext8"),
    ]);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let given: Vec<[u32; 4]> = (0..3).map(|_| random(&mut rng)).collect();
    let [e0, e1, beta] = [0, 1, 2].map(|i| element(given[i]));
    for swap in [0, 1] {
        let x0 = if swap == 1 { -x } else { x };
        let slope = (e1 - e0) * (-x0 - x0).inverse();
        let right = e0 + (beta - SP1ExtensionField::from_base(x0)) * slope;
        let inputs = |index: u32, result: SP1ExtensionField| {
            let mut exts = given.clone();
            exts.push(coefficients(result));
            Inputs { felts: vec![index], exts, ..Inputs::default() }
        };
        let index = index | swap << 12;
        let wrong: Vec<Inputs> = (0..13)
            .map(|bit| inputs(index ^ 1 << bit, right))
            .chain([inputs(index, right + SP1ExtensionField::one())])
            .collect();
        verify(&operations, &inputs(index, right), &wrong);
    }
}

#[test]
fn both_permutations_are_the_zkvms() {
    let operations = [
        op(Op::WitnessV, "var0|0"),
        op(Op::WitnessV, "var1|1"),
        op(Op::WitnessV, "var2|2"),
        op(Op::Permute, "var0|var1|var2"),
        op(Op::CommitVkeyHash, "var0"),
        op(Op::CommitExitCode, "var1"),
        op(Op::CommitVkRoot, "var2"),
    ];
    let state = [5u64, 1 << 50, 77].map(slop_bn254::Bn254Fr::from_canonical_u64);
    let out = slop_bn254::outer_perm().permute(state).map(|value| crate::poseidon::fr_from_zkvm(&value));
    let zero = Fr::from(0u64);
    let right = Inputs {
        vars: state.iter().map(crate::poseidon::fr_from_zkvm).collect(),
        public: [out[0], zero, out[1], out[2], zero],
        ..Inputs::default()
    };
    verify(&operations, &right, &[]);

    let mut operations: Vec<Constraint> =
        (0..16).map(|i| op(Op::WitnessF, &format!("felt{i}|{i}"))).collect();
    operations
        .push(op(Op::PermuteKoalaBear, &(0..16).map(|i| format!("felt{i}")).collect::<Vec<_>>().join("|")));
    for i in 0..16 {
        operations.push(op(Op::WitnessF, &format!("felt{}|{}", 20 + i, 16 + i)));
        operations.push(op(Op::AssertEqF, &format!("felt{i}|felt{}", 20 + i)));
    }
    for first in [0, P - 1, 1 << 29] {
        let state: [SP1Field; 16] =
            std::array::from_fn(|i| SP1Field::from_canonical_u32((first + i as u32) % P));
        let out = sp1_hypercube::inner_perm().permute(state);
        let all = |out: [SP1Field; 16]| {
            felts(&state.iter().chain(&out).map(|x| x.as_canonical_u32()).collect::<Vec<_>>())
        };
        assert!(holds(&operations, &all(out)));
        for i in 0..16 {
            let mut wrong = out;
            wrong[i] += SP1Field::one();
            assert!(!holds(&operations, &all(wrong)));
        }
    }
}

#[test]
fn malformed_operations_are_refused() {
    let refused =
        |operations: &[Constraint]| WrapCircuit::from_operations(operations).expect_err("malformed");
    assert!(matches!(refused(&[op(Op::AddF, "felt0|felt1|felt2")]), CircuitError::UndefinedName { .. }));
    assert!(matches!(refused(&[op(Op::ImmF, "felt0|2130706433")]), CircuitError::BadArgument { .. }));
    assert!(matches!(refused(&[op(Op::ImmF, "felt0")]), CircuitError::MissingArgument { .. }));
    assert!(matches!(refused(&[op(Op::ImmF, "|1")]), CircuitError::MissingArgument { .. }));
    assert!(matches!(refused(&[op(Op::InvV, "var0|var1")]), CircuitError::UnknownOpcode { .. }));
    let short =
        build(&[op(Op::WitnessF, "felt0|3"), op(Op::ImmF, "felt1|4"), op(Op::AssertEqF, "felt0|felt1")]);
    assert!(matches!(
        short.assign_inputs(&felts(&[1])),
        Err(CircuitError::WitnessTooShort { index: 3, got: 1, .. })
    ));
}
