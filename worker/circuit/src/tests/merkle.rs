//! Shared Merkle tops against single paths.

use super::{build, free_variables, holds, op, Op};
use crate::poseidon::{permute, ROWS};
use crate::steps::Inputs;
use ark_bn254::Fr;
use ark_ff::{Field, Zero};
use sp1_recursion_compiler::constraints::Constraint;

fn hash(left: Fr, right: Fr) -> Fr {
    let mut state = [left, right, Fr::zero()];
    permute(&mut state, &mut vec![Fr::zero(); ROWS as usize]);
    state[0]
}

/// A tree of `2^height` leaves; layers from the leaves up.
fn tree(height: u32) -> Vec<Vec<Fr>> {
    let leaves = (0..1u64 << height).map(|i| Fr::from(3u64).pow([1000 + i])).collect();
    let mut layers: Vec<Vec<Fr>> = vec![leaves];
    for _ in 0..height {
        let last = layers.last().unwrap();
        layers.push(last.chunks_exact(2).map(|pair| hash(pair[0], pair[1])).collect());
    }
    layers
}

/// Openings of `indices` as the verifier exports them: root is value 0, then leaf and siblings of each opening.
fn openings(height: u32, indices: &[u32]) -> (Vec<Constraint>, Inputs) {
    openings_by(height, indices, false)
}

/// As [`openings`]; `complemented`: the felts hold the indices' complements, and the bits used are one less theirs.
fn openings_by(height: u32, indices: &[u32], complemented: bool) -> (Vec<Constraint>, Inputs) {
    let layers = tree(height);
    let mut operations = vec![op(Op::WitnessV, "var0|0"), op(Op::ImmV, "var1|0"), op(Op::ImmV, "var2|1")];
    let mut inputs = Inputs { vars: vec![layers[height as usize][0]], ..Inputs::default() };
    let mut next = 10;
    let mut fresh = || {
        next += 1;
        format!("var{next}")
    };
    for (query, &index) in indices.iter().enumerate() {
        let bits: Vec<String> = (0..31).map(|_| fresh()).collect();
        operations.push(op(Op::WitnessF, &format!("felt{query}|{query}")));
        operations.push(op(Op::Num2BitsF, &format!("{}|felt{query}", bits.join(" "))));
        inputs.felts.push(if complemented { index ^ ((1 << height) - 1) } else { index });
        let mut node = fresh();
        operations.push(op(Op::WitnessV, &format!("{node}|{}", inputs.vars.len())));
        inputs.vars.push(layers[0][index as usize]);
        for level in 0..height {
            let [sibling, left, right, zero] = [(); 4].map(|()| fresh());
            operations.push(op(Op::WitnessV, &format!("{sibling}|{}", inputs.vars.len())));
            inputs.vars.push(layers[level as usize][(index >> level ^ 1) as usize]);
            let mut bit = bits[level as usize].clone();
            if complemented {
                let other = fresh();
                operations.push(op(Op::SubV, &format!("{other}|var2|{bit}")));
                bit = other;
            }
            operations.push(op(Op::SelectV, &format!("{left}|{bit}|{sibling}|{node}")));
            operations.push(op(Op::SelectV, &format!("{right}|{bit}|{node}|{sibling}")));
            operations.push(op(Op::AddV, &format!("{zero}|var1|var1")));
            operations.push(op(Op::Permute, &format!("{left}|{right}|{zero}")));
            node = left;
        }
        operations.push(op(Op::AssertEqV, &format!("{node}|var0")));
    }
    (operations, inputs)
}

fn indices(count: u32, height: u32) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7 + 3 * i + 1) % (1 << height)).collect()
}

#[test]
fn a_shared_top_accepts_the_same_openings_and_is_smaller() {
    for height in [3, 6, 8] {
        let (operations, inputs) = openings(height, &indices(20, height));
        assert!(holds(&operations, &inputs));
        let alone = openings(height, &indices(1, height)).0;
        let (shared, alone) = (build(&operations), build(&alone));
        assert!(shared.r1cs().num_constraints() < 20 * alone.r1cs().num_constraints());
    }
}

#[test]
fn every_value_of_an_opening_is_bound_to_the_root() {
    every_value_is_bound(false);
}

#[test]
fn openings_by_complemented_bits_are_told_apart() {
    every_value_is_bound(true);
}

fn every_value_is_bound(complemented: bool) {
    let height = 8;
    let (operations, inputs) = openings_by(height, &indices(17, height), complemented);
    let circuit = build(&operations);
    let accepts = |inputs: &Inputs| circuit.check(&circuit.assign_inputs(inputs).unwrap()).is_ok();
    assert!(accepts(&inputs));
    for value in 0..inputs.vars.len() {
        let mut wrong = inputs.clone();
        wrong.vars[value] += Fr::from(1u64);
        // A sibling near the root is computed where it lies on another opening's path: then the value given is not read.
        let at = (value + height as usize) % (height as usize + 1);
        let in_top = value > 0 && at > 2;
        assert!(in_top || !accepts(&wrong), "value {value}");
    }
    for query in 0..17 {
        for bit in 0..height {
            let mut wrong = inputs.clone();
            wrong.felts[query] ^= 1 << bit;
            assert!(!accepts(&wrong), "query {query} bit {bit}");
        }
    }
}

#[test]
fn nodes_on_a_path_and_beside_it_are_pinned() {
    let height = 7;
    // All openings in the left half: the right half's inner nodes are unknown, and only they are free.
    let (operations, inputs) = openings(height, &(0..16).map(|i| i * 3 % 64).collect::<Vec<_>>());
    let circuit = build(&operations);
    let assignment = circuit.assign_inputs(&inputs).unwrap();
    circuit.check(&assignment).unwrap();
    let system = circuit.r1cs();
    let table = system.coefficients.values();
    // Rows of pairs that no opening goes through: their count, the second factor, is zero.
    let unvisited = (0..system.num_constraints())
        .filter(|&row| system.c.row(row).next().is_none())
        .filter(|&row| system.b.row(row).count() == 1 && system.a.row(row).count() == 2)
        .filter(|&row| system.b.evaluate_row(row, table, &assignment).is_zero())
        .count();
    // 31 inner nodes under the right child and itself, and those of the left half that are not on a path.
    assert!((31..63).contains(&unvisited), "{unvisited}");
    // Changing a node alone never goes unnoticed: its hash is computed even where nobody asks for it, unless it is compared only.
    let free = free_variables(&circuit, &assignment);
    assert!(free.len() <= unvisited, "{} free of {unvisited}", free.len());
}
