//! Runs of one operation on one accumulator become one instruction: [`Inst::EqEval`] an [`Inst::EqChain`], and
//! `acc = bit ? acc * constant : acc` an [`Inst::PowChain`].

use super::{Inst, Program, Slot, Value};

impl Program {
    fn slot_use_counts(&self) -> Vec<u32> {
        let mut uses = vec![0u32; self.slots];
        for inst in &self.insts {
            inst.uses(|value| {
                if let Value::F(slot) = value {
                    uses[slot as usize] += 1;
                }
            });
        }
        uses
    }

    /// Merges selections between a value and a constant multiple of it.
    pub(crate) fn merge_power_chains(&mut self) {
        let uses = self.slot_use_counts();
        let mut constants = vec![None; self.slots];
        // For a product by a constant: index of the instruction, the other factor, the constant.
        let mut multiples: Vec<Option<(usize, Slot, u32)>> = vec![None; self.slots];
        let mut ends = vec![None; self.slots];
        let mut dead = vec![false; self.insts.len()];
        for index in 0..self.insts.len() {
            match self.insts[index] {
                Inst::ImmF { out, value } => constants[out as usize] = Some(value),
                Inst::MulF { out, a, b } => {
                    let multiple = match (constants[a as usize], constants[b as usize]) {
                        (_, Some(constant)) => Some((index, a, constant)),
                        (Some(constant), _) => Some((index, b, constant)),
                        _ => None,
                    };
                    multiples[out as usize] = multiple;
                }
                Inst::SelectF { out, bit, a, b } => {
                    let Some((product, base, constant)) = multiples[a as usize] else { continue };
                    if base != b || uses[a as usize] != 1 {
                        continue;
                    }
                    dead[product] = true;
                    let (mut start, mut factors) = (b, Vec::new());
                    if let (2, Some(previous)) = (uses[b as usize], ends[b as usize]) {
                        if let Inst::PowChain { acc, factors: earlier, .. } = &mut self.insts[previous] {
                            start = *acc;
                            factors = std::mem::take(earlier);
                            dead[previous] = true;
                        }
                    }
                    factors.push((bit, constant));
                    self.insts[index] = Inst::PowChain { out, acc: start, factors };
                    ends[out as usize] = Some(index);
                }
                _ => {}
            }
        }
        self.drop_marked(&dead);
    }

    /// Merges every `EqEval` into the one that alone uses its result.
    pub(crate) fn merge_equality_chains(&mut self) {
        let uses = self.slot_use_counts();
        // The chain that ends in a slot: index of its last instruction.
        let mut ends = vec![None; self.slots];
        let mut dead = vec![false; self.insts.len()];
        for index in 0..self.insts.len() {
            let Inst::EqEval { out, acc, bit, x } = self.insts[index] else { continue };
            let (mut start, mut factors) = (acc, Vec::new());
            let only_use = acc.iter().all(|&slot| uses[slot as usize] == 1);
            if let (true, Some(previous)) = (only_use, ends[acc[0] as usize]) {
                match &mut self.insts[previous] {
                    Inst::EqChain { out: before, acc: first, factors: earlier } if *before == acc => {
                        start = *first;
                        factors = std::mem::take(earlier);
                        dead[previous] = true;
                    }
                    _ => {}
                }
            }
            factors.push((bit, x));
            self.insts[index] = Inst::EqChain { out, acc: start, factors };
            ends[out[0] as usize] = Some(index);
        }
        self.drop_marked(&dead);
    }

    /// Removes the instructions that are marked.
    pub(crate) fn drop_marked(&mut self, dead: &[bool]) {
        let mut flags = dead.iter();
        self.insts.retain(|_| !*flags.next().expect("one flag an instruction"));
        let mut flags = dead.iter();
        self.origin.retain(|_| !*flags.next().expect("one flag an instruction"));
    }
}
