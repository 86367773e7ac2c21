//! From the exported operations, whose arguments are strings, to [`Program`].

use super::{Ext, Inst, Program, Slot, Source, Var, OPCODES};
use crate::error::CircuitError;
use crate::koala::P;
use ark_bn254::Fr;
use ark_ff::Zero;
use sp1_recursion_compiler::constraints::{opcodes::ConstraintOpcode as Op, Constraint};
use std::collections::HashSet;

const UNDEFINED: u32 = u32::MAX;

/// The current value of every name of one kind; the two lists are the builder's names and the back end's.
struct Names<T> {
    lists: [Vec<Option<T>>; 2],
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { lists: [Vec::new(), Vec::new()] }
    }
}

impl<T: Copy> Names<T> {
    fn get(&self, name: &str) -> Result<T, CircuitError> {
        let (list, number) = split_name(name)?;
        let value = self.lists[list].get(number).copied().flatten();
        value.ok_or_else(|| CircuitError::UndefinedName { name: name.to_owned() })
    }

    fn set(&mut self, name: &str, value: T) -> Result<(), CircuitError> {
        let (list, number) = split_name(name)?;
        let list = &mut self.lists[list];
        if list.len() <= number {
            list.resize(number + 1, None);
        }
        list[number] = Some(value);
        Ok(())
    }
}

/// Which list a name is in, and its number: `felt12` is (0, 12), `backend3` is (1, 3).
fn split_name(name: &str) -> Result<(usize, usize), CircuitError> {
    const NUMBER_MAX: usize = 1 << 28;
    let digits = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let list = usize::from(name.starts_with("backend"));
    match digits.parse::<usize>() {
        Ok(number) if number < NUMBER_MAX && digits.len() < name.len() => Ok((list, number)),
        _ => Err(CircuitError::BadArgument { argument: name.to_owned() }),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, CircuitError> {
    text.parse().map_err(|_| CircuitError::BadArgument { argument: text.to_owned() })
}

fn koala(text: &str) -> Result<u32, CircuitError> {
    let value: u32 = number(text)?;
    if value >= P {
        return Err(CircuitError::BadArgument { argument: text.to_owned() });
    }
    Ok(value)
}

#[derive(Default)]
struct Parser {
    program: Program,
    vars: Names<Var>,
    felts: Names<Slot>,
    exts: Names<Ext>,
    zero_vars: Vec<bool>,
    constants: Vec<Option<u32>>,
    shared_zero: Option<Slot>,
    witnesses: HashSet<(char, u32)>,
    opcode: u8,
}

impl Program {
    /// Reads the exported operations.
    ///
    /// # Errors
    /// [`CircuitError`] if an operation is unknown or malformed, or uses a name before its definition.
    pub(crate) fn parse(constraints: &[Constraint]) -> Result<Self, CircuitError> {
        let mut parser = Parser::default();
        parser.program.counts = vec![0; OPCODES.len()];
        for (position, constraint) in constraints.iter().enumerate() {
            parser.opcode = index_of(&constraint.opcode).ok_or_else(|| CircuitError::UnknownOpcode {
                opcode: format!("{:?}", constraint.opcode),
                position,
            })?;
            parser.program.counts[parser.opcode as usize] += 1;
            let args = Args { args: &constraint.args, position };
            parser.operation(&constraint.opcode, &args)?;
        }
        let mut program = parser.program;
        program.remove_dead();
        program.merge_equality_chains();
        program.merge_power_chains();
        program.share_merkle_tops();
        program.remove_dead();
        Ok(program)
    }
}

fn index_of(opcode: &Op) -> Option<u8> {
    let name = match opcode {
        Op::PrintV | Op::PrintF | Op::PrintE => "Print".to_owned(),
        other => format!("{other:?}"),
    };
    OPCODES.iter().position(|known| *known == name).and_then(|index| u8::try_from(index).ok())
}

/// The arguments of one operation.
struct Args<'a> {
    args: &'a [Vec<String>],
    position: usize,
}

impl Args<'_> {
    fn list(&self, index: usize) -> Result<&[String], CircuitError> {
        self.args
            .get(index)
            .map(Vec::as_slice)
            .ok_or(CircuitError::MissingArgument { position: self.position, argument: index })
    }

    fn get(&self, index: usize) -> Result<&str, CircuitError> {
        let first = self.list(index)?.first();
        first
            .map(String::as_str)
            .ok_or(CircuitError::MissingArgument { position: self.position, argument: index })
    }
}

impl Parser {
    fn push(&mut self, inst: Inst) {
        self.program.insts.push(inst);
        self.program.origin.push(self.opcode);
    }

    fn new_var(&mut self) -> Var {
        self.zero_vars.push(false);
        self.program.vars += 1;
        u32::try_from(self.program.vars - 1).expect("fewer than 2^32 values")
    }

    fn new_slot(&mut self) -> Slot {
        self.constants.push(None);
        self.program.slots += 1;
        u32::try_from(self.program.slots - 1).expect("fewer than 2^32 values")
    }

    fn imm_f(&mut self, value: u32) -> Slot {
        let out = self.new_slot();
        self.constants[out as usize] = Some(value);
        self.push(Inst::ImmF { out, value });
        out
    }

    fn zero(&mut self) -> Slot {
        if let Some(zero) = self.shared_zero {
            return zero;
        }
        let zero = self.imm_f(0);
        self.shared_zero = Some(zero);
        zero
    }

    /// The constant `op(a, b)` if both are constants.
    fn fold(&mut self, a: Slot, b: Slot, op: fn(u64, u64) -> u64) -> Option<Slot> {
        let (x, y) = (self.constants[a as usize]?, self.constants[b as usize]?);
        let value = op(u64::from(x), u64::from(y)) % u64::from(P);
        Some(self.imm_f(value as u32))
    }

    fn is_zero(&self, slot: Slot) -> bool {
        self.constants[slot as usize] == Some(0)
    }

    fn add_f(&mut self, a: Slot, b: Slot) -> Slot {
        if self.is_zero(b) {
            return a;
        }
        if self.is_zero(a) {
            return b;
        }
        if let Some(constant) = self.fold(a, b, |x, y| x + y) {
            return constant;
        }
        let out = self.new_slot();
        self.push(Inst::AddF { out, a, b });
        out
    }

    fn sub_f(&mut self, a: Slot, b: Slot) -> Slot {
        if self.is_zero(b) {
            return a;
        }
        if let Some(constant) = self.fold(a, b, |x, y| x + u64::from(P) - y) {
            return constant;
        }
        let out = self.new_slot();
        self.push(Inst::SubF { out, a, b });
        out
    }

    fn mul_f(&mut self, a: Slot, b: Slot) -> Slot {
        if self.is_zero(a) {
            return a;
        }
        if self.is_zero(b) {
            return b;
        }
        if let Some(constant) = self.fold(a, b, |x, y| x * y) {
            return constant;
        }
        let out = self.new_slot();
        self.push(Inst::MulF { out, a, b });
        out
    }

    fn div_f(&mut self, a: Slot, b: Slot) -> Slot {
        let out = self.new_slot();
        self.push(Inst::DivF { out, a, b });
        out
    }

    fn inv_e(&mut self, a: Ext) -> Ext {
        let out = [(); 4].map(|()| self.new_slot());
        self.push(Inst::InvE { out, a });
        out
    }

    fn mul_e(&mut self, a: Ext, b: Ext) -> Ext {
        let out = [(); 4].map(|()| self.new_slot());
        self.push(Inst::MulE { out, a, b });
        out
    }

    fn zip(&mut self, a: Ext, b: Ext, op: fn(&mut Self, Slot, Slot) -> Slot) -> Ext {
        std::array::from_fn(|i| op(self, a[i], b[i]))
    }

    fn operation(&mut self, opcode: &Op, args: &Args<'_>) -> Result<(), CircuitError> {
        match opcode {
            Op::ImmV
            | Op::AddV
            | Op::SubV
            | Op::MulV
            | Op::SelectV
            | Op::Num2BitsV
            | Op::Permute
            | Op::WitnessV
            | Op::AssertEqV => self.var_operation(opcode, args),
            Op::CommitVkeyHash
            | Op::CommitCommitedValuesDigest
            | Op::CommitExitCode
            | Op::CommitVkRoot
            | Op::CommitProofNonce => self.commit(opcode, args),
            Op::ImmF
            | Op::AddF
            | Op::SubF
            | Op::MulF
            | Op::DivF
            | Op::SelectF
            | Op::Num2BitsF
            | Op::CircuitFelt2Var
            | Op::PermuteKoalaBear
            | Op::WitnessF
            | Op::AssertEqF
            | Op::AssertNeF => self.felt_operation(opcode, args),
            _ => self.ext_operation(opcode, args),
        }
    }

    /// The index of a witness value. Each is read once: two readings would be two variables, free to differ.
    fn witness(&mut self, kind: char, args: &Args<'_>) -> Result<u32, CircuitError> {
        let index = number(args.get(1)?)?;
        if self.witnesses.insert((kind, index)) {
            Ok(index)
        } else {
            Err(CircuitError::Unsupported { message: format!("witness value {kind}{index} is read twice") })
        }
    }

    fn commit(&mut self, opcode: &Op, args: &Args<'_>) -> Result<(), CircuitError> {
        let index = match opcode {
            Op::CommitVkeyHash => 0,
            Op::CommitCommitedValuesDigest => 1,
            Op::CommitExitCode => 2,
            Op::CommitVkRoot => 3,
            _ => 4,
        };
        let a = self.vars.get(args.get(0)?)?;
        self.push(Inst::Commit { index, a });
        Ok(())
    }

    fn var_operation(&mut self, opcode: &Op, args: &Args<'_>) -> Result<(), CircuitError> {
        match opcode {
            Op::ImmV => {
                let value: Fr = number(args.get(1)?)?;
                let out = self.new_var();
                self.zero_vars[out as usize] = value.is_zero();
                self.push(Inst::ImmV { out, value });
                self.vars.set(args.get(0)?, out)
            }
            Op::AddV | Op::SubV | Op::MulV => {
                let (a, b) = (self.vars.get(args.get(1)?)?, self.vars.get(args.get(2)?)?);
                let out = self.var_arithmetic(opcode, a, b);
                self.vars.set(args.get(0)?, out)
            }
            Op::SelectV => {
                let bit = self.vars.get(args.get(1)?)?;
                let (a, b) = (self.vars.get(args.get(2)?)?, self.vars.get(args.get(3)?)?);
                let out = self.new_var();
                self.push(Inst::SelectV { out, bit, a, b });
                self.vars.set(args.get(0)?, out)
            }
            Op::Num2BitsV => {
                let a = self.vars.get(args.get(1)?)?;
                let wanted: usize = number(args.get(2)?)?;
                if wanted < args.list(0)?.len() {
                    return Err(CircuitError::BadArgument { argument: args.get(2)?.to_owned() });
                }
                let out: Vec<Var> = (0..wanted).map(|_| self.new_var()).collect();
                for (name, &bit) in args.list(0)?.iter().zip(&out) {
                    self.vars.set(name, bit)?;
                }
                self.push(Inst::BitsV { out, a });
                Ok(())
            }
            Op::Permute => {
                let mut state = [UNDEFINED; 3];
                for (i, value) in state.iter_mut().enumerate() {
                    *value = self.vars.get(args.get(i)?)?;
                }
                let out = [(); 3].map(|()| self.new_var());
                self.push(Inst::Permute { out, state });
                (0..3).try_for_each(|i| self.vars.set(args.get(i)?, out[i]))
            }
            Op::WitnessV => {
                let out = self.new_var();
                let index = self.witness('v', args)?;
                self.push(Inst::WitnessV { out, index });
                self.vars.set(args.get(0)?, out)
            }
            _ => {
                let (a, b) = (self.vars.get(args.get(0)?)?, self.vars.get(args.get(1)?)?);
                self.push(Inst::AssertEqV { a, b });
                Ok(())
            }
        }
    }

    fn var_arithmetic(&mut self, opcode: &Op, a: Var, b: Var) -> Var {
        let (a_zero, b_zero) = (self.zero_vars[a as usize], self.zero_vars[b as usize]);
        match opcode {
            Op::AddV | Op::SubV if b_zero => return a,
            Op::AddV if a_zero => return b,
            _ => {}
        }
        let out = self.new_var();
        self.push(match opcode {
            Op::AddV => Inst::AddV { out, a, b },
            Op::SubV => Inst::SubV { out, a, b },
            _ => Inst::MulV { out, a, b },
        });
        out
    }

    fn felt_operation(&mut self, opcode: &Op, args: &Args<'_>) -> Result<(), CircuitError> {
        let out = match opcode {
            Op::ImmF => {
                let value = koala(args.get(1)?)?;
                self.imm_f(value)
            }
            Op::AddF | Op::SubF | Op::MulF | Op::DivF => {
                let (a, b) = (self.felts.get(args.get(1)?)?, self.felts.get(args.get(2)?)?);
                match opcode {
                    Op::AddF => self.add_f(a, b),
                    Op::SubF => self.sub_f(a, b),
                    Op::MulF => self.mul_f(a, b),
                    _ => self.div_f(a, b),
                }
            }
            Op::SelectF => {
                let bit = self.vars.get(args.get(1)?)?;
                let (a, b) = (self.felts.get(args.get(2)?)?, self.felts.get(args.get(3)?)?);
                let out = self.new_slot();
                self.push(Inst::SelectF { out, bit, a, b });
                out
            }
            Op::WitnessF => {
                let out = self.new_slot();
                let index = self.witness('f', args)?;
                self.push(Inst::WitnessF { out, source: Source::Felt(index) });
                out
            }
            _ => return self.felt_effect(opcode, args),
        };
        self.felts.set(args.get(0)?, out)
    }

    fn felt_effect(&mut self, opcode: &Op, args: &Args<'_>) -> Result<(), CircuitError> {
        match opcode {
            Op::Num2BitsF => {
                let a = self.felts.get(args.get(1)?)?;
                let out: Vec<Var> = (0..31).map(|_| self.new_var()).collect();
                if args.list(0)?.len() > out.len() {
                    return Err(CircuitError::MissingArgument { position: args.position, argument: 0 });
                }
                for (name, &bit) in args.list(0)?.iter().zip(&out) {
                    self.vars.set(name, bit)?;
                }
                self.push(Inst::BitsF { out, a });
                Ok(())
            }
            Op::CircuitFelt2Var => {
                let a = self.felts.get(args.get(1)?)?;
                let out = self.new_var();
                self.push(Inst::ToVar { out, a });
                self.vars.set(args.get(0)?, out)
            }
            Op::PermuteKoalaBear => {
                let mut state = [UNDEFINED; 16];
                for (i, value) in state.iter_mut().enumerate() {
                    *value = self.felts.get(args.get(i)?)?;
                }
                let out = [(); 16].map(|()| self.new_slot());
                self.push(Inst::PermuteF { out, state });
                (0..16).try_for_each(|i| self.felts.set(args.get(i)?, out[i]))
            }
            _ => {
                let (a, b) = (self.felts.get(args.get(0)?)?, self.felts.get(args.get(1)?)?);
                self.push(match opcode {
                    Op::AssertEqF => Inst::AssertEqF { a, b },
                    _ => Inst::AssertNeF { a, b },
                });
                Ok(())
            }
        }
    }

    fn ext_operation(&mut self, opcode: &Op, args: &Args<'_>) -> Result<(), CircuitError> {
        let out = match opcode {
            Op::PrintV | Op::PrintF | Op::PrintE | Op::ReduceE => return Ok(()),
            Op::AssertEqE => {
                let (a, b) = (self.exts.get(args.get(0)?)?, self.exts.get(args.get(1)?)?);
                for i in 0..4 {
                    self.push(Inst::AssertEqF { a: a[i], b: b[i] });
                }
                return Ok(());
            }
            Op::Ext2Felt => {
                let slots = self.exts.get(args.get(4)?)?;
                return (0..4).try_for_each(|i| self.felts.set(args.get(i)?, slots[i]));
            }
            Op::CircuitFelts2Ext => {
                let mut out = [UNDEFINED; 4];
                for (i, slot) in out.iter_mut().enumerate() {
                    *slot = self.felts.get(args.get(i + 1)?)?;
                }
                out
            }
            Op::ImmE => {
                let list = args.list(1)?;
                if list.len() != 4 {
                    return Err(CircuitError::MissingArgument { position: args.position, argument: 1 });
                }
                let mut out = [UNDEFINED; 4];
                for (slot, text) in out.iter_mut().zip(list) {
                    *slot = match koala(text)? {
                        0 => self.zero(),
                        value => self.imm_f(value),
                    };
                }
                out
            }
            Op::WitnessE => {
                let index = self.witness('e', args)?;
                std::array::from_fn(|i| {
                    let out = self.new_slot();
                    self.push(Inst::WitnessF { out, source: Source::Ext(index, i as u8) });
                    out
                })
            }
            Op::SelectE => {
                let bit = self.vars.get(args.get(1)?)?;
                let (a, b) = (self.exts.get(args.get(2)?)?, self.exts.get(args.get(3)?)?);
                std::array::from_fn(|i| {
                    let out = self.new_slot();
                    self.push(Inst::SelectF { out, bit, a: a[i], b: b[i] });
                    out
                })
            }
            Op::EqEval => {
                let acc = self.exts.get(args.get(0)?)?;
                let (bit, x) = (self.felts.get(args.get(1)?)?, self.exts.get(args.get(2)?)?);
                let out = [(); 4].map(|()| self.new_slot());
                self.push(Inst::EqEval { out, acc, bit, x });
                out
            }
            _ => self.ext_arithmetic(opcode, args)?,
        };
        self.exts.set(args.get(0)?, out)
    }

    fn ext_arithmetic(&mut self, opcode: &Op, args: &Args<'_>) -> Result<Ext, CircuitError> {
        let a = self.exts.get(args.get(1)?)?;
        Ok(match opcode {
            Op::NegE => {
                let zero = self.zero();
                self.zip([zero; 4], a, Self::sub_f)
            }
            Op::InvE => self.inv_e(a),
            Op::AddE | Op::SubE | Op::MulE | Op::DivE => {
                let b = self.exts.get(args.get(2)?)?;
                match opcode {
                    Op::AddE => self.zip(a, b, Self::add_f),
                    Op::SubE => self.zip(a, b, Self::sub_f),
                    Op::MulE => self.mul_e(a, b),
                    _ => {
                        let inverse = self.inv_e(b);
                        self.mul_e(a, inverse)
                    }
                }
            }
            Op::AddEF | Op::SubEF | Op::MulEF | Op::DivEF => {
                let b = self.felts.get(args.get(2)?)?;
                match opcode {
                    Op::AddEF => [self.add_f(a[0], b), a[1], a[2], a[3]],
                    Op::SubEF => [self.sub_f(a[0], b), a[1], a[2], a[3]],
                    Op::MulEF => self.zip(a, [b; 4], Self::mul_f),
                    _ => self.zip(a, [b; 4], Self::div_f),
                }
            }
            other => {
                return Err(CircuitError::UnknownOpcode {
                    opcode: format!("{other:?}"),
                    position: args.position,
                })
            }
        })
    }
}
