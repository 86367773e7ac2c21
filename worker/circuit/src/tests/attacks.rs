//! Attacks on quotients and remainders, with bits recomputed as a cheating prover would.

use super::{build, exts, felts, holds, op, Op};
use crate::koala::{fr_from_integer, BITS, P};
use crate::steps::{signed, Step};
use crate::{CircuitError, WrapCircuit};
use ark_bn254::Fr;
use ark_ff::{One, Zero};
use assay_kernels::r1cs::SparseMatrix;
use num_bigint::BigInt;
use num_integer::Integer;

/// Sets `bits - 1` variables to the bits of `value mod 2^bits` from bit 1 on.
fn set_bits(assignment: &mut [Fr], var: u32, value: &BigInt, bits: u32) {
    let value = value.mod_floor(&(BigInt::from(1) << bits));
    for bit in 1..bits {
        assignment[(var + bit - 1) as usize] = if value.bit(u64::from(bit)) { Fr::one() } else { Fr::zero() };
    }
}

/// Replaces the quotient of a reduction by `quotient + shift` and the remainder to match; says whether the rows of the
/// reduction itself accept it.
fn shifted(circuit: &WrapCircuit, honest: &[Fr], step: Step, shift: i64) -> bool {
    let mut assignment = honest.to_vec();
    let (hints, table) = (circuit.hints(), circuit.r1cs().coefficients.values());
    let (first, count) = match step {
        Step::Reduce { hint, integer, var, bits } => {
            let x = signed(hints.evaluate_row(hint as usize, table, honest));
            let quotient = x.div_floor(&BigInt::from(P)) + shift;
            let remainder = x - &quotient * P;
            assignment[var as usize] = fr_from_integer(&remainder);
            set_bits(&mut assignment, var + 1, &remainder, BITS);
            set_bits(&mut assignment, var + BITS, &(quotient - &circuit.integers()[integer as usize]), bits);
            (var, BITS + bits.saturating_sub(1))
        }
        Step::Multiple { hint, integer, var, bits } => {
            let x = signed(hints.evaluate_row(hint as usize, table, honest));
            let quotient = x.div_floor(&BigInt::from(P)) + shift;
            set_bits(&mut assignment, var, &(quotient - &circuit.integers()[integer as usize]), bits);
            (var, bits.saturating_sub(1))
        }
        _ => return false,
    };
    // Only rows all of whose other variables are older belong to the reduction: the value is used after.
    let system = circuit.r1cs();
    let own = |row: usize| {
        let columns = |matrix: &SparseMatrix| matrix.row(row).map(|(column, _)| column).collect::<Vec<_>>();
        let all = [columns(&system.a), columns(&system.b), columns(&system.c)].concat();
        // A row with a public input is a commitment, which comes after.
        all.iter().any(|&column| (first..first + count).contains(&column))
            && all.iter().all(|&column| column < first + count && !(1..6).contains(&column))
    };
    (0..system.num_constraints()).filter(|&row| own(row)).all(|row| {
        let value = |matrix: &SparseMatrix| matrix.evaluate_row(row, table, &assignment);
        value(&system.a) * value(&system.b) == value(&system.c)
    })
}

fn reductions(circuit: &WrapCircuit) -> Vec<Step> {
    let steps = circuit.steps().iter().copied();
    steps.filter(|step| matches!(step, Step::Reduce { .. } | Step::Multiple { bits: 1.., .. })).collect()
}

#[test]
fn no_other_quotient_is_accepted() {
    let mut operations =
        vec![op(Op::WitnessE, "ext0|0"), op(Op::WitnessE, "ext1|1"), op(Op::MulE, "ext2|ext0|ext1")];
    for i in 2..12 {
        operations.push(op(Op::MulE, &format!("ext{}|ext{i}|ext1", i + 1)));
    }
    operations.push(op(Op::DivE, "ext20|ext12|ext0"));
    operations.push(op(Op::Ext2Felt, "felt0|felt1|felt2|felt3|ext20"));
    operations.push(op(Op::CircuitFelt2Var, "var0|felt1"));
    operations.push(op(Op::CommitVkeyHash, "var0"));
    let circuit = build(&operations);
    let assignment = circuit.assign_inputs(&exts(&[[P - 1; 4], [5, 1 << 30, P - 2, 0]])).unwrap();
    let steps = reductions(&circuit);
    assert!(steps.len() > 8);
    for step in steps {
        assert!(shifted(&circuit, &assignment, step, 0), "the honest quotient is accepted: {step:?}");
        for shift in [1i64, -1, 2, -2, 1 << 20, -(1 << 20)] {
            // One shift is harmless: r + p for a remainder that leaves it below 2^31. The next test pins it down.
            let small = match step {
                Step::Reduce { var, .. } => signed(assignment[var as usize]) < BigInt::from((1u32 << 24) - 1),
                _ => false,
            };
            // Bit 0 is no variable: an odd quotient less one, or an even one more one, is the same assignment.
            let same = matches!(step, Step::Multiple { .. }) && shift.abs() == 1;
            if (small && shift == -1) || same {
                continue;
            }
            assert!(!shifted(&circuit, &assignment, step, shift), "{step:?} shifted by {shift}");
        }
    }
}

#[test]
fn bits_of_a_second_representative_are_refused() {
    let names = (0..31).map(|i| format!("var{i}")).collect::<Vec<_>>().join(" ");
    let loose = [
        op(Op::WitnessF, "felt0|0"),
        op(Op::MulF, "felt1|felt0|felt0"),
        op(Op::CircuitFelt2Var, "var0|felt1"),
        op(Op::CommitVkeyHash, "var0"),
    ];
    let strict = [
        op(Op::WitnessF, "felt0|0"),
        op(Op::MulF, "felt1|felt0|felt0"),
        op(Op::Num2BitsF, &format!("{names}|felt1")),
        op(Op::CommitVkeyHash, "var0"),
    ];
    // 2^62 mod p is small enough that adding p stays below 2^31 for some inputs; find one.
    let input = (P - 3000..P).find(|&x| {
        let square = u64::from(x) * u64::from(x) % u64::from(P);
        square < (1 << 24) - 1 && u64::from(x) * u64::from(x) > u64::from(P)
    });
    let input = input.expect("squares of numbers close to the prime are small");
    for (operations, accepted) in [(&loose, true), (&strict, false)] {
        let circuit = build(operations);
        let square = u64::from(input) * u64::from(input) % u64::from(P);
        let mut inputs = felts(&[input]);
        inputs.public[0] = Fr::from(if accepted { square } else { square & 1 });
        let assignment = circuit.assign_inputs(&inputs).unwrap();
        circuit.check(&assignment).unwrap();
        // The strict one is the last: the value is reduced loosely before it is decomposed.
        let step = *reductions(&circuit).last().unwrap();
        assert!(shifted(&circuit, &assignment, step, 0));
        let Step::Reduce { var, bits, .. } = step else { panic!("a reduction") };
        if accepted {
            assert!(shifted(&circuit, &assignment, step, -1), "packing needs 31 bits only");
        } else {
            // The row (s - 7) t = l comes after: no t satisfies it.
            let system = circuit.r1cs();
            let t = var + BITS + bits.saturating_sub(1);
            let row = (0..system.num_constraints())
                .find(|&row| system.b.row(row).map(|(column, _)| column).eq([t]))
                .expect("the canonical check");
            let mut assignment = assignment;
            let second = signed(assignment[var as usize]) + P;
            assignment[var as usize] = fr_from_integer(&second);
            set_bits(&mut assignment, var + 1, &second, BITS);
            let table = system.coefficients.values();
            assert!(system.a.evaluate_row(row, table, &assignment).is_zero());
            assert!(!system.c.evaluate_row(row, table, &assignment).is_zero());
        }
    }
}

#[test]
fn a_witness_value_is_read_once() {
    for opcode in [Op::WitnessV, Op::WitnessF, Op::WitnessE] {
        let name = match opcode {
            Op::WitnessV => "var",
            Op::WitnessF => "felt",
            _ => "ext",
        };
        let operations = [op(opcode.clone(), &format!("{name}0|0")), op(opcode, &format!("{name}1|0"))];
        let error = WrapCircuit::from_operations(&operations).err();
        assert!(matches!(error, Some(CircuitError::Unsupported { .. })), "{name}");
    }
}

#[test]
fn terms_that_cancel_do_not_hide_a_false_equality() {
    let equals = |constant: u32| {
        [
            op(Op::WitnessF, "felt0|0"),
            op(Op::ImmF, "felt1|5"),
            op(Op::AddF, "felt2|felt0|felt1"),
            op(Op::SubF, "felt3|felt2|felt0"),
            op(Op::ImmF, &format!("felt4|{constant}")),
            op(Op::AssertEqF, "felt3|felt4"),
        ]
    };
    assert!(holds(&equals(5), &felts(&[7])));
    let error = WrapCircuit::from_operations(&equals(0)).err();
    assert!(matches!(error, Some(CircuitError::Unsupported { .. })));
}
