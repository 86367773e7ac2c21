//! The outer verifier's operations in single-assignment form.
//!
//! The exported list names its values by strings, changes some of them in place and works on three kinds: elements of
//! BN254's scalar field (`V`), KoalaBear elements (`F`) and their degree-4 extension (`E`). Here every value has one
//! definition and a number: *variables* for `V`, *slots* for KoalaBear elements, and an extension element is four slots.
//! Conversions between `E` and `F`, copies (additions of zero) and `ReduceE` (a hint) leave no instruction at all.

mod chains;
mod merkle;
mod parse;

pub(crate) use merkle::{Opening, TOP_LEVELS};

use ark_bn254::Fr;

/// Number of a BN254 value.
pub(crate) type Var = u32;
/// Number of a KoalaBear value.
pub(crate) type Slot = u32;
/// An extension element: coefficients of 1, x, x^2, x^3 modulo x^4 - 3.
pub(crate) type Ext = [Slot; 4];

/// Where a witness slot gets its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Index into the witness's base-field elements.
    Felt(u32),
    /// Index into the witness's extension elements and the coefficient.
    Ext(u32, u8),
}

/// One instruction; `out` is defined, everything else is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inst {
    /// A constant.
    ImmV { out: Var, value: Fr },
    /// `a + b`.
    AddV { out: Var, a: Var, b: Var },
    /// `a - b`.
    SubV { out: Var, a: Var, b: Var },
    /// `a * b`.
    MulV { out: Var, a: Var, b: Var },
    /// `bit ? a : b`.
    SelectV { out: Var, bit: Var, a: Var, b: Var },
    /// The bits of `a`, least first; as many as there are outputs.
    BitsV { out: Vec<Var>, a: Var },
    /// Poseidon2 over BN254, width 3.
    Permute { out: [Var; 3], state: [Var; 3] },
    /// A value of the proof.
    WitnessV { out: Var, index: u32 },
    /// `a == b`.
    AssertEqV { a: Var, b: Var },
    /// `a` is public input `index` (0 is the verifying key's hash).
    Commit { index: u32, a: Var },
    /// A constant below the KoalaBear prime.
    ImmF { out: Slot, value: u32 },
    /// `a + b`.
    AddF { out: Slot, a: Slot, b: Slot },
    /// `a - b`.
    SubF { out: Slot, a: Slot, b: Slot },
    /// `a * b`.
    MulF { out: Slot, a: Slot, b: Slot },
    /// `a / b`; not satisfiable for `b` zero.
    DivF { out: Slot, a: Slot, b: Slot },
    /// `bit ? a : b`.
    SelectF { out: Slot, bit: Var, a: Slot, b: Slot },
    /// The 31 bits of the canonical representative of `a`, least first.
    BitsF { out: Vec<Var>, a: Slot },
    /// A representative of `a` below 2^31 as a BN254 value.
    ToVar { out: Var, a: Slot },
    /// Poseidon2 over KoalaBear, width 16.
    PermuteF { out: [Slot; 16], state: [Slot; 16] },
    /// A value of the proof.
    WitnessF { out: Slot, source: Source },
    /// `a == b`.
    AssertEqF { a: Slot, b: Slot },
    /// `a != b`.
    AssertNeF { a: Slot, b: Slot },
    /// `a * b`.
    MulE { out: Ext, a: Ext, b: Ext },
    /// `1 / a`; not satisfiable for zero.
    InvE { out: Ext, a: Ext },
    /// `acc * (bit ? x : 1 - x)`, and `bit` is 0 or 1.
    EqEval { out: Ext, acc: Ext, bit: Slot, x: Ext },
    /// `acc * product of (bit ? x : 1 - x)`, and every `bit` is 0 or 1: a run of [`Inst::EqEval`].
    EqChain { out: Ext, acc: Ext, factors: Vec<(Slot, Ext)> },
    /// `acc * product of (bit ? constant : 1)`: a power whose exponent is given in bits.
    PowChain { out: Slot, acc: Slot, factors: Vec<(Var, u32)> },
    /// Every opening's path leads to `root`; stands for the uppermost levels of Merkle paths.
    MerkleTop { root: Var, openings: Vec<Opening> },
}

/// A value of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    V(Var),
    F(Slot),
}

impl Inst {
    /// Calls `visit` for every value used.
    pub(crate) fn uses(&self, mut visit: impl FnMut(Value)) {
        use Value::{F, V};
        let mut all = |values: &[Value]| values.iter().for_each(|&value| visit(value));
        match self {
            Self::ImmV { .. } | Self::ImmF { .. } | Self::WitnessV { .. } | Self::WitnessF { .. } => {}
            Self::AddV { a, b, .. } | Self::SubV { a, b, .. } | Self::MulV { a, b, .. } => {
                all(&[V(*a), V(*b)])
            }
            Self::SelectV { bit, a, b, .. } => all(&[V(*bit), V(*a), V(*b)]),
            Self::BitsV { a, .. } | Self::Commit { a, .. } => all(&[V(*a)]),
            Self::Permute { state, .. } => all(&state.map(V)),
            Self::AssertEqV { a, b } => all(&[V(*a), V(*b)]),
            Self::AddF { a, b, .. }
            | Self::SubF { a, b, .. }
            | Self::MulF { a, b, .. }
            | Self::DivF { a, b, .. } => all(&[F(*a), F(*b)]),
            Self::BitsF { a, .. } | Self::ToVar { a, .. } => all(&[F(*a)]),
            Self::SelectF { bit, a, b, .. } => all(&[V(*bit), F(*a), F(*b)]),
            Self::PermuteF { state, .. } => all(&state.map(F)),
            Self::AssertEqF { a, b } | Self::AssertNeF { a, b } => all(&[F(*a), F(*b)]),
            Self::MulE { a, b, .. } => {
                all(&a.map(F));
                all(&b.map(F));
            }
            Self::InvE { a, .. } => all(&a.map(F)),
            Self::EqEval { acc, bit, x, .. } => {
                all(&acc.map(F));
                all(&[F(*bit)]);
                all(&x.map(F));
            }
            Self::EqChain { acc, factors, .. } => {
                all(&acc.map(F));
                for (bit, x) in factors {
                    all(&[F(*bit)]);
                    all(&x.map(F));
                }
            }
            Self::PowChain { acc, factors, .. } => {
                all(&[F(*acc)]);
                factors.iter().for_each(|(bit, _)| all(&[V(*bit)]));
            }
            Self::MerkleTop { root, openings } => {
                all(&[V(*root)]);
                for opening in openings {
                    all(&[V(opening.node)]);
                    opening.levels.iter().for_each(|level| all(&[V(level.bit)]));
                }
            }
        }
    }

    /// Calls `visit` for every value defined.
    pub(crate) fn defines(&self, mut visit: impl FnMut(Value)) {
        use Value::{F, V};
        match self {
            Self::ImmV { out, .. }
            | Self::AddV { out, .. }
            | Self::SubV { out, .. }
            | Self::MulV { out, .. }
            | Self::SelectV { out, .. }
            | Self::WitnessV { out, .. }
            | Self::ToVar { out, .. } => visit(V(*out)),
            Self::BitsV { out, .. } | Self::BitsF { out, .. } => out.iter().for_each(|&bit| visit(V(bit))),
            Self::Permute { out, .. } => out.iter().for_each(|&value| visit(V(value))),
            Self::ImmF { out, .. }
            | Self::AddF { out, .. }
            | Self::SubF { out, .. }
            | Self::MulF { out, .. }
            | Self::DivF { out, .. }
            | Self::SelectF { out, .. }
            | Self::PowChain { out, .. }
            | Self::WitnessF { out, .. } => visit(F(*out)),
            Self::PermuteF { out, .. } => out.iter().for_each(|&value| visit(F(value))),
            Self::MulE { out, .. }
            | Self::InvE { out, .. }
            | Self::EqEval { out, .. }
            | Self::EqChain { out, .. } => {
                out.iter().for_each(|&value| visit(F(value)));
            }
            Self::AssertEqV { .. }
            | Self::Commit { .. }
            | Self::AssertEqF { .. }
            | Self::AssertNeF { .. }
            | Self::MerkleTop { .. } => {}
        }
    }

    /// Whether the instruction restricts its operands, so that it stays even if nothing uses what it defines.
    fn asserts(&self) -> bool {
        match self {
            Self::AssertEqV { .. }
            | Self::Commit { .. }
            | Self::AssertEqF { .. }
            | Self::AssertNeF { .. }
            | Self::DivF { .. }
            | Self::InvE { .. }
            | Self::EqEval { .. }
            | Self::EqChain { .. }
            | Self::MerkleTop { .. } => true,
            Self::BitsV { out, .. } => out.len() < 254,
            _ => false,
        }
    }
}

/// The operations in single-assignment form, without those that nothing depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// Instructions in order.
    pub(crate) insts: Vec<Inst>,
    /// The exported operation that each instruction comes from (index into [`OPCODES`]).
    pub(crate) origin: Vec<u8>,
    /// BN254 values are numbered `0 .. vars`.
    pub(crate) vars: usize,
    /// KoalaBear values are numbered `0 .. slots`.
    pub(crate) slots: usize,
    /// How often each exported operation occurs, by index into [`OPCODES`].
    pub(crate) counts: Vec<usize>,
}

/// Names of the exported operations that this crate knows.
pub(crate) const OPCODES: [&str; 46] = [
    "ImmV",
    "ImmF",
    "ImmE",
    "AddV",
    "AddF",
    "AddE",
    "AddEF",
    "SubV",
    "SubF",
    "SubE",
    "SubEF",
    "MulV",
    "MulF",
    "MulE",
    "MulEF",
    "DivF",
    "DivE",
    "DivEF",
    "NegE",
    "InvE",
    "AssertEqV",
    "AssertEqF",
    "AssertEqE",
    "AssertNeF",
    "Permute",
    "Num2BitsV",
    "Num2BitsF",
    "SelectV",
    "SelectF",
    "SelectE",
    "Ext2Felt",
    "Print",
    "WitnessV",
    "WitnessF",
    "WitnessE",
    "CommitVkeyHash",
    "CommitCommitedValuesDigest",
    "CommitExitCode",
    "CommitVkRoot",
    "CommitProofNonce",
    "CircuitFelts2Ext",
    "CircuitFelt2Var",
    "PermuteKoalaBear",
    "ReduceE",
    "EqEval",
    "Merkle tops",
];

impl Program {
    /// Removes the instructions whose results nothing uses.
    fn remove_dead(&mut self) {
        let mut live_vars = vec![false; self.vars];
        let mut live_slots = vec![false; self.slots];
        let mut keep = vec![false; self.insts.len()];
        for (inst, keep) in self.insts.iter().zip(keep.iter_mut()).rev() {
            *keep = inst.asserts();
            inst.defines(|value| {
                *keep |= match value {
                    Value::V(var) => live_vars[var as usize],
                    Value::F(slot) => live_slots[slot as usize],
                }
            });
            if *keep {
                inst.uses(|value| match value {
                    Value::V(var) => live_vars[var as usize] = true,
                    Value::F(slot) => live_slots[slot as usize] = true,
                });
            }
        }
        let mut flags = keep.iter();
        self.insts.retain(|_| *flags.next().expect("one flag an instruction"));
        let mut flags = keep.iter();
        self.origin.retain(|_| *flags.next().expect("one flag an instruction"));
    }
}
