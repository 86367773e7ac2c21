//! Every operation against a plain evaluation, and against corrupted values that must not satisfy.

mod attacks;
mod merkle;
mod operations;

use crate::steps::Inputs;
use crate::{CircuitError, WrapCircuit};
use ark_bn254::Fr;
use ark_ff::{One, Zero};
use assay_kernels::r1cs::SparseMatrix;
use sp1_recursion_compiler::constraints::{opcodes::ConstraintOpcode as Op, Constraint};

/// An operation; arguments are lists separated by `|`, list elements by spaces.
fn op(opcode: Op, args: &str) -> Constraint {
    let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    Constraint { opcode, args: args.split('|').map(list).collect() }
}

fn felts(values: &[u32]) -> Inputs {
    Inputs { felts: values.to_vec(), ..Inputs::default() }
}

fn exts(values: &[[u32; 4]]) -> Inputs {
    Inputs { exts: values.to_vec(), ..Inputs::default() }
}

fn vars(values: &[Fr]) -> Inputs {
    Inputs { vars: values.to_vec(), ..Inputs::default() }
}

fn build(operations: &[Constraint]) -> WrapCircuit {
    WrapCircuit::from_operations(operations).expect("the operations are well formed")
}

/// Whether the operations hold for the witness.
fn holds(operations: &[Constraint], inputs: &Inputs) -> bool {
    let circuit = build(operations);
    let assignment = circuit.assign_inputs(inputs).expect("the witness is long enough");
    match circuit.check(&assignment) {
        Ok(()) => true,
        Err(CircuitError::Unsatisfied { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

/// Variables whose change by some small amount breaks no row.
///
/// Left out: public inputs that no operation commits to, and quotients `t` of rows `0 * t = 0`, which are free by construction and go
/// nowhere else.
fn free_variables(circuit: &WrapCircuit, assignment: &[Fr]) -> Vec<usize> {
    let system = circuit.r1cs();
    let table = system.coefficients.values();
    let mut exempt = vec![false; assignment.len()];
    for row in 0..system.num_constraints() {
        let quotient: Vec<(u32, u32)> = system.b.row(row).collect();
        let zero = |matrix: &SparseMatrix| matrix.evaluate_row(row, table, assignment).is_zero();
        if let ([(column, 0)], true, true) = (quotient.as_slice(), zero(&system.a), zero(&system.c)) {
            exempt[*column as usize] = true;
        }
    }
    let mut rows_of: Vec<Vec<usize>> = vec![Vec::new(); assignment.len()];
    for row in 0..system.num_constraints() {
        for matrix in [&system.a, &system.b, &system.c] {
            matrix.row(row).for_each(|(column, _)| rows_of[column as usize].push(row));
        }
    }
    let mut free = Vec::new();
    let mut changed = assignment.to_vec();
    for column in 1..assignment.len() {
        if (column < 6 && rows_of[column].is_empty()) || (exempt[column] && rows_of[column].len() == 1) {
            continue;
        }
        for delta in [Fr::one(), -Fr::one(), Fr::from(crate::koala::P), -Fr::from(crate::koala::P)] {
            changed[column] = assignment[column] + delta;
            let value = |matrix: &SparseMatrix, row| matrix.evaluate_row(row, table, &changed);
            if rows_of[column]
                .iter()
                .all(|&row| value(&system.a, row) * value(&system.b, row) == value(&system.c, row))
            {
                free.push(column);
                break;
            }
        }
        changed[column] = assignment[column];
    }
    free
}

/// Asserts that the operations hold, that every variable is pinned, and that each of `wrong` does not hold.
fn verify(operations: &[Constraint], right: &Inputs, wrong: &[Inputs]) {
    let circuit = build(operations);
    let assignment = circuit.assign_inputs(right).expect("the witness is long enough");
    circuit.check(&assignment).expect("the plain evaluation satisfies the rows");
    assert_eq!(free_variables(&circuit, &assignment), Vec::<usize>::new());
    for (index, inputs) in wrong.iter().enumerate() {
        assert!(!holds(operations, inputs), "wrong witness {index} is accepted");
    }
}
