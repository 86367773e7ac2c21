//! Runs of [`Inst::EqEval`] on one accumulator become one [`Inst::EqChain`].

use super::{Inst, Program, Value};

impl Program {
    /// Merges every `EqEval` into the one that alone uses its result.
    pub(crate) fn merge_equality_chains(&mut self) {
        let mut uses = vec![0u32; self.slots];
        for inst in &self.insts {
            inst.uses(|value| {
                if let Value::F(slot) = value {
                    uses[slot as usize] += 1;
                }
            });
        }
        // The chain that ends in a slot: index of its last instruction.
        let mut ends = vec![None; self.slots];
        let mut dead = vec![false; self.insts.len()];
        for index in 0..self.insts.len() {
            let Inst::EqEval { out, acc, bit, x } = self.insts[index] else { continue };
            let (mut start, mut factors) = (acc, Vec::new());
            let only_use = acc.iter().all(|&slot| uses[slot as usize] == 1);
            if let (true, Some(previous)) = (only_use, ends[acc[0] as usize]) {
                if let Inst::EqChain { acc, factors: earlier, .. } = &mut self.insts[previous] {
                    start = *acc;
                    factors = std::mem::take(earlier);
                    dead[previous] = true;
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
