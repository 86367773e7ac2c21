//! From instructions to rows.
//!
//! Values are kept unreduced as long as their bounds allow. A factor is reduced before a product if the product would not
//! fit, or if it is long and used in several products, because each of those would carry its length on (see [`Compiler::worth_reducing`]).

use crate::builder::Builder;
use crate::error::CircuitError;
use crate::ext::{product_bits, Ext};
use crate::interval::Interval;
use crate::ir::{self, Inst, Opening, Program, Slot, Source, Value, Var};
use crate::koala::{Felt, BITS, BITS_MAX, P};
use crate::lc::Lc;
use crate::merkle::{Path, Tops};
use crate::poseidon::Template;
use crate::stats::Kind;
use crate::steps::Step;
use ark_bn254::Fr;
use std::collections::HashMap;

/// Combinations of BN254 values longer than this become a variable.
const VAR_TERMS_MAX: usize = 64;
/// Factors of an equality polynomial that are looked up in one table.
const EQ_GROUP: usize = 4;
/// Factors of a power that are looked up in one table.
const POW_GROUP: usize = 4;
/// Uses of a value in products, from which on it counts as used very often.
const USES_MAX: u32 = 1 << 16;

/// Where a value is used.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    /// Last instruction that uses it.
    last: u32,
    /// Products it goes into, directly or through sums.
    products: u32,
    /// Whether it is itself a factor of some product.
    factor: bool,
}

/// What is added to a slot's value: `numerator / denominator`, the denominator not zero modulo the prime.
#[derive(Clone, Debug)]
struct Fraction {
    numerator: Felt,
    denominator: Felt,
}

pub(crate) struct Compiler<'a> {
    program: &'a Program,
    builder: Builder,
    template: Template,
    tops: Tops,
    vars: Vec<Option<Lc>>,
    slots: Vec<Option<Felt>>,
    var_last: Vec<u32>,
    slot_uses: Vec<Uses>,
    boolean: Vec<bool>,
    condition: Vec<bool>,
    selected: HashMap<(Var, Var, Var), Lc>,
    selected_slots: HashMap<(Var, Slot, Slot), [Lc; 3]>,
    eq_tables: HashMap<Vec<ir::Ext>, Vec<Ext>>,
    fractions: HashMap<Slot, Fraction>,
    inverses: HashMap<Slot, Felt>,
}

/// What the compiler makes.
pub(crate) struct Output {
    pub(crate) builder: Builder,
    pub(crate) tops: Tops,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(program: &'a Program) -> Self {
        let mut builder = Builder::new();
        let template = Template::new(&mut builder);
        let mut compiler = Self {
            program,
            builder,
            template,
            tops: Tops::default(),
            vars: vec![None; program.vars],
            slots: vec![None; program.slots],
            var_last: vec![0; program.vars],
            slot_uses: vec![Uses::default(); program.slots],
            boolean: vec![false; program.slots],
            condition: vec![false; program.vars],
            selected: HashMap::new(),
            selected_slots: HashMap::new(),
            eq_tables: HashMap::new(),
            fractions: HashMap::new(),
            inverses: HashMap::new(),
        };
        compiler.analyse();
        compiler
    }

    /// Last uses, uses in products, and slots that some instruction asserts to be 0 or 1.
    fn analyse(&mut self) {
        let mut constant = vec![false; self.program.slots];
        for (index, inst) in self.program.insts.iter().enumerate() {
            inst.uses(|value| match value {
                Value::V(var) => self.var_last[var as usize] = index as u32,
                Value::F(slot) => self.slot_uses[slot as usize].last = index as u32,
            });
            match inst {
                Inst::ImmF { out, .. } => constant[*out as usize] = true,
                Inst::EqChain { factors, .. } => {
                    factors.iter().for_each(|(bit, _)| self.boolean[*bit as usize] = true);
                }
                _ => {}
            }
        }
        for inst in self.program.insts.iter().rev() {
            self.count_products(inst, &constant);
        }
    }

    fn count_products(&mut self, inst: &Inst, constant: &[bool]) {
        let uses = &mut self.slot_uses;
        let through = |uses: &mut [Uses], slot: Slot, count: u32| {
            let entry = &mut uses[slot as usize];
            entry.products = entry.products.saturating_add(count).min(USES_MAX);
        };
        let factor = |uses: &mut [Uses], slot: Slot, count: u32| {
            through(uses, slot, count);
            uses[slot as usize].factor = true;
        };
        match inst {
            Inst::AddF { out, a, b } | Inst::SubF { out, a, b } | Inst::SelectF { out, a, b, .. } => {
                let count = uses[*out as usize].products;
                through(uses, *a, count);
                through(uses, *b, count);
            }
            Inst::MulF { out, a, b } => {
                let count = uses[*out as usize].products;
                for (x, y) in [(*a, *b), (*b, *a)] {
                    if constant[y as usize] {
                        through(uses, x, count);
                    } else {
                        factor(uses, x, 1);
                    }
                }
            }
            Inst::MulE { a, b, .. } => a.iter().chain(b).for_each(|&slot| factor(uses, slot, 1)),
            Inst::DivF { a, b, .. } => {
                factor(uses, *a, 1);
                factor(uses, *b, 1);
            }
            Inst::InvE { a, .. } => a.iter().for_each(|&slot| factor(uses, slot, 1)),
            Inst::EqEval { acc, x, .. } => {
                acc.iter().for_each(|&slot| factor(uses, slot, 1));
                x.iter().for_each(|&slot| factor(uses, slot, 2));
            }
            Inst::EqChain { acc, factors, .. } => {
                acc.iter().for_each(|&slot| factor(uses, slot, 1));
                factors.iter().flat_map(|(_, x)| x).for_each(|&slot| factor(uses, slot, 2));
            }
            Inst::ToVar { a, .. } | Inst::BitsF { a, .. } => factor(uses, *a, USES_MAX),
            Inst::PermuteF { state, .. } => state.iter().for_each(|&slot| factor(uses, slot, 2)),
            _ => {}
        }
    }

    /// Compiles every instruction.
    ///
    /// # Errors
    /// [`CircuitError::Unsupported`] for what the circuit does not offer.
    pub(crate) fn run(mut self) -> Result<Output, CircuitError> {
        let program = self.program;
        for (index, (inst, &origin)) in program.insts.iter().zip(&program.origin).enumerate() {
            self.builder.origin = origin;
            self.prepare_uses(inst)?;
            self.instruction(inst)?;
            inst.uses(|value| match value {
                Value::V(var) if self.var_last[var as usize] == index as u32 => {
                    self.vars[var as usize] = None
                }
                Value::F(slot) if self.slot_uses[slot as usize].last == index as u32 => {
                    self.slots[slot as usize] = None;
                    if !self.fractions.is_empty() {
                        self.fractions.remove(&slot);
                    }
                }
                _ => {}
            });
        }
        Ok(Output { builder: self.builder, tops: self.tops })
    }

    fn var(&self, var: Var) -> &Lc {
        self.vars[var as usize].as_ref().expect("values are defined before use and kept until the last")
    }

    /// A value that chooses: 0 or 1, by its definition or by a row of its own.
    fn condition(&mut self, var: Var) -> Lc {
        let value = self.var(var).clone();
        if !std::mem::replace(&mut self.condition[var as usize], true) {
            self.builder.boolean(Kind::Select, &value);
        }
        value
    }

    fn felt(&self, slot: Slot) -> &Felt {
        self.slots[slot as usize].as_ref().expect("values are defined before use and kept until the last")
    }

    fn ext(&self, slots: &ir::Ext) -> Ext {
        slots.map(|slot| self.felt(slot).clone())
    }

    fn set_var(&mut self, var: Var, value: Lc) {
        self.vars[var as usize] = Some(value);
    }

    fn set(&mut self, slot: Slot, value: Felt) {
        self.slots[slot as usize] = Some(value);
    }

    fn set_ext(&mut self, slots: &ir::Ext, value: Ext) {
        for (slot, value) in slots.iter().zip(value) {
            self.set(*slot, value);
        }
    }

    fn instruction(&mut self, inst: &Inst) -> Result<(), CircuitError> {
        match inst {
            Inst::ImmV { .. }
            | Inst::AddV { .. }
            | Inst::SubV { .. }
            | Inst::MulV { .. }
            | Inst::SelectV { .. }
            | Inst::BitsV { .. }
            | Inst::Permute { .. }
            | Inst::WitnessV { .. }
            | Inst::AssertEqV { .. }
            | Inst::Commit { .. } => self.var_instruction(inst),
            Inst::MulE { out, a, b } => self.mul_ext(out, a, b),
            Inst::InvE { out, a } => {
                let inverse = self.builder.inverse_ext(&self.ext(a))?;
                self.set_ext(out, inverse);
                Ok(())
            }
            Inst::EqEval { out, acc, bit, x } => self.eq_chain(out, acc, &[(*bit, *x)]),
            Inst::EqChain { out, acc, factors } => self.eq_chain(out, acc, factors),
            Inst::MerkleTop { root, openings } => {
                self.merkle_top(*root, openings);
                Ok(())
            }
            _ => self.felt_instruction(inst),
        }
    }

    fn var_instruction(&mut self, inst: &Inst) -> Result<(), CircuitError> {
        match inst {
            Inst::ImmV { out, value } => self.set_var(*out, Lc::constant(*value)),
            Inst::AddV { out, a, b } => self.set_var(*out, self.var(*a).add(self.var(*b))),
            Inst::SubV { out, a, b } => self.set_var(*out, self.var(*a).sub(self.var(*b))),
            Inst::MulV { out, a, b } => {
                let (x, y) = (self.var(*a).clone(), self.var(*b).clone());
                let product = match (x.as_constant(), y.as_constant()) {
                    (Some(factor), _) => y.scale(factor),
                    (_, Some(factor)) => x.scale(factor),
                    _ => Lc::var(self.builder.product(Kind::Product, &x, &y)),
                };
                self.set_var(*out, product);
            }
            Inst::SelectV { out, bit, a, b } => {
                let value = self.select_var(*bit, *a, *b);
                self.set_var(*out, value);
            }
            Inst::BitsV { out, a } => {
                let value = self.var(*a).clone();
                let bits = self.builder.bits_of(&value, out.len())?;
                for (&var, bit) in out.iter().zip(bits) {
                    self.set_var(var, bit);
                    self.condition[var as usize] = true;
                }
            }
            Inst::Permute { out, state } => {
                let state = state.map(|var| self.var(var).clone());
                let state = state.map(|lc| self.builder.compact(lc, VAR_TERMS_MAX));
                let result = self.template.apply(&mut self.builder, &state);
                for (&var, value) in out.iter().zip(result) {
                    self.set_var(var, value);
                }
            }
            Inst::WitnessV { out, index } => {
                let var = self.builder.alloc(1);
                self.builder.steps.push(Step::InputVar { var, index: *index });
                self.set_var(*out, Lc::var(var));
            }
            Inst::AssertEqV { a, b } => {
                let difference = self.var(*a).sub(self.var(*b));
                self.builder.linear(Kind::Linear, &difference);
            }
            Inst::Commit { index, a } => {
                let difference = self.var(*a).sub(&Lc::var(1 + index));
                self.builder.linear(Kind::Linear, &difference);
            }
            other => unreachable!("not an instruction on BN254 values: {other:?}"),
        }
        Ok(())
    }

    /// `bit ? a : b`; the mirror choice of one made before is `a + b` less that.
    fn select_var(&mut self, bit: Var, a: Var, b: Var) -> Lc {
        if let Some(mirror) = self.selected.get(&(bit, b, a)) {
            return self.var(a).add(self.var(b)).sub(mirror);
        }
        let condition = self.condition(bit);
        let (x, y) = (self.var(a).clone(), self.var(b).clone());
        let chosen = self.builder.select(&condition, &x, &y);
        self.selected.insert((bit, a, b), chosen.clone());
        chosen
    }

    fn felt_instruction(&mut self, inst: &Inst) -> Result<(), CircuitError> {
        match inst {
            Inst::ImmF { out, value } => self.set(*out, Felt::constant(i64::from(*value))),
            Inst::AddF { out, a, b } => self.sum(*out, *a, *b, Felt::add)?,
            Inst::SubF { out, a, b } => self.sum(*out, *a, *b, Felt::sub)?,
            Inst::MulF { out, a, b } => self.mul(*out, *a, *b),
            Inst::DivF { out, a, b } => self.divide(*out, *a, *b)?,
            Inst::PowChain { out, acc, factors } => {
                let power = self.power(*acc, factors);
                self.set(*out, power);
            }
            Inst::SelectF { out, bit, a, b } => {
                let chosen = self.select_felt(*bit, *a, *b);
                self.set(*out, chosen);
            }
            Inst::BitsF { out, a } => {
                let value = self.felt(*a).clone();
                let (bits, reduced) = self.builder.canonical_bits(&value);
                self.set(*a, reduced);
                for (&var, bit) in out.iter().zip(bits) {
                    self.set_var(var, bit);
                    self.condition[var as usize] = true;
                }
            }
            Inst::ToVar { out, a } => {
                self.reduce(*a);
                let lc = self.felt(*a).lc.clone();
                self.set_var(*out, lc);
            }
            Inst::PermuteF { out, state } => {
                let state = state.map(|slot| self.felt(slot).clone());
                let result = self.builder.permute16(&state);
                for (&slot, value) in out.iter().zip(result) {
                    self.set(slot, value);
                }
            }
            Inst::WitnessF { out, source } => self.witness(*out, *source),
            Inst::AssertEqF { a, b } => self.assert_equal(*a, *b)?,
            Inst::AssertNeF { a, b } => {
                self.make_room_for_sum(*a, *b);
                let difference = self.felt(*a).sub(self.felt(*b));
                self.builder.assert_nonzero(&difference);
            }
            other => unreachable!("not an instruction on KoalaBear values: {other:?}"),
        }
        Ok(())
    }

    /// A value of the proof; one that is asserted to be a bit needs no other range.
    fn witness(&mut self, out: Slot, source: Source) {
        let bits = if self.boolean[out as usize] { 1 } else { BITS };
        let value = self.builder.witness_felt(source, bits);
        self.set(out, value);
    }

    /// `bit ? a : b`, with mirror choices as in [`Self::select_var`].
    fn select_felt(&mut self, bit: Var, a: Slot, b: Slot) -> Felt {
        let (x, y) = (self.felt(a).clone(), self.felt(b).clone());
        let range = x.range.hull(&y.range);
        // Only if neither value was reduced since: the mirror choice is exact as an integer, not only modulo the prime.
        if let Some([mirror, left, right]) = self.selected_slots.get(&(bit, b, a)) {
            if (left, right) == (&y.lc, &x.lc) {
                return Felt { lc: x.lc.add(&y.lc).sub(mirror), range };
            }
        }
        let condition = self.condition(bit);
        let mut lc = self.builder.select(&condition, &x.lc, &y.lc);
        if self.builder.is_nonzero(&x) && self.builder.is_nonzero(&y) {
            lc = self.builder.compact(lc, 1);
            if let [(var, _)] = lc.terms() {
                self.builder.nonzero.insert(*var);
            }
        }
        self.selected_slots.insert((bit, a, b), [lc.clone(), x.lc, y.lc]);
        Felt { lc, range }
    }

    /// Before an instruction: reduces operands that are worth it, and computes quotients where they cannot stay fractions.
    fn prepare_uses(&mut self, inst: &Inst) -> Result<(), CircuitError> {
        if !self.fractions.is_empty()
            && !matches!(
                inst,
                Inst::AddF { .. } | Inst::SubF { .. } | Inst::MulE { .. } | Inst::AssertEqF { .. }
            )
        {
            let mut slots = Vec::new();
            inst.uses(|value| match value {
                Value::F(slot) if self.fractions.contains_key(&slot) => slots.push(slot),
                _ => {}
            });
            slots.into_iter().try_for_each(|slot| self.resolve(slot))?;
        }
        let mut long = Vec::new();
        inst.uses(|value| {
            if let Value::F(slot) = value {
                let uses = &self.slot_uses[slot as usize];
                let value = self.felt(slot);
                if uses.factor
                    && value.as_constant().is_none()
                    && Self::worth_reducing(value.bits(), uses.products)
                {
                    long.push(slot);
                }
            }
        });
        long.into_iter().for_each(|slot| self.reduce(slot));
        Ok(())
    }

    /// Replaces a slot's fraction by the quotient.
    fn resolve(&mut self, slot: Slot) -> Result<(), CircuitError> {
        let Some(Fraction { numerator, denominator }) = self.fractions.remove(&slot) else { return Ok(()) };
        let inverse = self.builder.inverse(&denominator)?;
        let quotient = self.mul_felts(&numerator, &inverse);
        let sum = self.felt(slot).add(&quotient);
        self.set(slot, sum);
        Ok(())
    }

    /// `a / b`. If `b` is known not to be zero, the quotient stays a fraction, so that an equality can be multiplied by the denominator:
    /// `w + n / d = 0` exactly if `w d + n = 0`. Else `b` gets an inverse, which proves that it is not zero.
    fn divide(&mut self, out: Slot, a: Slot, b: Slot) -> Result<(), CircuitError> {
        let (numerator, denominator) = (self.felt(a).clone(), self.felt(b).clone());
        if denominator.as_constant().is_none() && self.builder.is_nonzero(&denominator) {
            self.set(out, Felt::constant(0));
            self.fractions.insert(out, Fraction { numerator, denominator });
            return Ok(());
        }
        let inverse = match self.inverses.get(&b) {
            Some(inverse) => inverse.clone(),
            None => {
                let inverse = self.builder.inverse(&denominator)?;
                self.inverses.insert(b, inverse.clone());
                inverse
            }
        };
        let quotient = self.mul_felts(&numerator, &inverse);
        self.set(out, quotient);
        Ok(())
    }

    /// `a * b`, reducing what is necessary.
    fn mul_felts(&mut self, a: &Felt, b: &Felt) -> Felt {
        let (mut a, mut b) = (a.clone(), b.clone());
        while a.bits() + b.bits() > BITS_MAX {
            let target = if a.bits() >= b.bits() { &mut a } else { &mut b };
            *target = self.builder.reduce(target);
        }
        self.builder.mul(&a, &b)
    }

    fn assert_equal(&mut self, a: Slot, b: Slot) -> Result<(), CircuitError> {
        self.combine_fractions(a, b)?;
        self.make_room_for_sum(a, b);
        let whole = self.felt(a).sub(self.felt(b));
        let fraction = match (self.fractions.get(&a).cloned(), self.fractions.get(&b).cloned()) {
            (None, None) => None,
            (Some(x), None) => Some(x),
            (None, Some(y)) => {
                Some(Fraction { numerator: y.numerator.scale(-1), denominator: y.denominator })
            }
            (Some(x), Some(y)) => {
                Some(Fraction { numerator: x.numerator.sub(&y.numerator), denominator: x.denominator })
            }
        };
        let difference = match fraction {
            None => whole,
            Some(Fraction { numerator, denominator }) => {
                let scaled = self.mul_felts(&whole, &denominator);
                let numerator = if numerator.bits() >= BITS_MAX - 1 {
                    self.builder.reduce(&numerator)
                } else {
                    numerator
                };
                let scaled =
                    if scaled.bits() >= BITS_MAX - 1 { self.builder.reduce(&scaled) } else { scaled };
                scaled.add(&numerator)
            }
        };
        self.builder.assert_zero(&difference)
    }

    /// Leaves fractions with one denominator only, so that they can be added.
    fn combine_fractions(&mut self, a: Slot, b: Slot) -> Result<(), CircuitError> {
        let differ = match (self.fractions.get(&a), self.fractions.get(&b)) {
            (Some(x), Some(y)) => x.denominator.lc != y.denominator.lc,
            _ => false,
        };
        if differ {
            self.resolve(a)?;
            self.resolve(b)?;
        }
        Ok(())
    }

    /// `acc * product of (bit ? constant : 1)`.
    ///
    /// For [`POW_GROUP`] bits at a time the product of constants is one of `2^g` known numbers below the prime: a combination of the
    /// products of those bits. It is not zero if no constant is.
    fn power(&mut self, acc: Slot, factors: &[(Var, u32)]) -> Felt {
        let mut power = self.felt(acc).clone();
        for group in factors.chunks(POW_GROUP) {
            // For each set of bits: their product, and the product of the constants.
            let mut sets = vec![(Builder::one(), 1u64)];
            for &(bit, constant) in group {
                let bit = self.condition(bit);
                let bit = self.builder.compact(bit, 1);
                for i in 0..sets.len() {
                    let (monomial, value) = sets[i].clone();
                    let monomial = match monomial.as_constant() {
                        Some(_) => bit.clone(),
                        None => Lc::var(self.builder.product(Kind::Select, &monomial, &bit)),
                    };
                    sets.push((monomial, value * u64::from(constant) % u64::from(P)));
                }
            }
            // The coefficient of a set's monomial is the alternating sum of the values of its subsets.
            let mut coefficients: Vec<i64> = sets.iter().map(|(_, value)| *value as i64).collect();
            for bit in 0..group.len() {
                for set in 0..coefficients.len() {
                    if set >> bit & 1 == 1 {
                        coefficients[set] -= coefficients[set ^ (1 << bit)];
                    }
                }
            }
            let terms = sets.iter().zip(&coefficients);
            let lc =
                terms.fold(Lc::default(), |sum, ((monomial, _), &c)| sum.add_scaled(monomial, Fr::from(c)));
            let nonzero = sets.iter().all(|(_, value)| *value != 0);
            let value = self.table_value(lc, nonzero);
            power = self.mul_felts(&power, &value);
        }
        power
    }

    /// A value that is one of some numbers below the prime, as one variable.
    fn table_value(&mut self, lc: Lc, nonzero: bool) -> Felt {
        let lc = self.builder.compact(lc, 1);
        if let (true, [(var, _)]) = (nonzero, lc.terms()) {
            self.builder.nonzero.insert(*var);
        }
        Felt { lc, range: Interval::new(0.into(), (P - 1).into()) }
    }

    /// Replaces a value by a representative in `0 .. 2^31`.
    fn reduce(&mut self, slot: Slot) {
        let value = self.felt(slot).clone();
        let reduced = self.builder.reduce(&value);
        self.set(slot, reduced);
    }

    fn make_room_for_sum(&mut self, a: Slot, b: Slot) {
        for slot in [a, b] {
            if self.felt(slot).bits() >= BITS_MAX - 1 {
                self.reduce(slot);
            }
        }
    }

    fn sum(&mut self, out: Slot, a: Slot, b: Slot, op: fn(&Felt, &Felt) -> Felt) -> Result<(), CircuitError> {
        self.combine_fractions(a, b)?;
        self.make_room_for_sum(a, b);
        let zero = Felt::constant(0);
        let fraction = match (self.fractions.get(&a), self.fractions.get(&b)) {
            (None, None) => None,
            (x, y) => {
                let numerator =
                    |fraction: Option<&Fraction>| fraction.map_or(zero.clone(), |f| f.numerator.clone());
                let denominator = x.or(y).map(|f| f.denominator.clone());
                denominator
                    .map(|denominator| Fraction { numerator: op(&numerator(x), &numerator(y)), denominator })
            }
        };
        if let Some(fraction) = fraction {
            self.fractions.insert(out, fraction);
        }
        let sum = op(self.felt(a), self.felt(b));
        self.set(out, sum);
        Ok(())
    }

    /// Whether a factor of `bits` bits that goes into `products` products should be reduced first. A reduction costs `bits` rows and
    /// makes later reductions cheaper by `bits - 31`: one for each product, or fewer where products are added before. Half of
    /// them is what served the exported operations best.
    fn worth_reducing(bits: u32, products: u32) -> bool {
        bits > BITS + 1 && u64::from(products) * u64::from(bits - BITS) > 2 * u64::from(bits)
    }

    fn prepare_factor(&mut self, slots: &[Slot]) -> u32 {
        for &slot in slots {
            let value = self.felt(slot);
            if value.as_constant().is_none()
                && Self::worth_reducing(value.bits(), self.slot_uses[slot as usize].products)
            {
                self.reduce(slot);
            }
        }
        self.longest(slots)
    }

    fn longest(&self, slots: &[Slot]) -> u32 {
        slots.iter().map(|&slot| self.felt(slot).bits()).max().unwrap_or(0)
    }

    /// Reduces what is necessary for products of `a` and `b` to fit.
    fn prepare_factors(&mut self, a: &[Slot], b: &[Slot], product: fn(u32, u32) -> u32) {
        let (mut x, mut y) = (self.prepare_factor(a), self.prepare_factor(b));
        while product(x, y) > BITS_MAX {
            let (longer, target) = if x >= y { (a, &mut x) } else { (b, &mut y) };
            for &slot in longer {
                if self.slots[slot as usize].as_ref().is_some_and(|value| value.bits() > BITS) {
                    self.reduce(slot);
                }
            }
            *target = BITS;
        }
    }

    fn mul(&mut self, out: Slot, a: Slot, b: Slot) {
        let constant = self.felt(a).as_constant().is_some() || self.felt(b).as_constant().is_some();
        if !constant {
            self.prepare_factors(&[a], &[b], |x, y| x + y);
        } else if self.felt(a).bits() + self.felt(b).bits() > BITS_MAX {
            let longer = if self.felt(a).bits() > self.felt(b).bits() { a } else { b };
            self.reduce(longer);
        }
        let (x, y) = (self.felt(a).clone(), self.felt(b).clone());
        let product = self.builder.mul(&x, &y);
        self.set(out, product);
    }

    /// If `x` is a fraction of one denominator and nothing else: numerators and denominator.
    fn pure_fraction(&self, x: &ir::Ext) -> Option<(Ext, Felt)> {
        let fractions: Vec<&Fraction> = x.iter().filter_map(|slot| self.fractions.get(slot)).collect();
        let first = fractions.first()?;
        let same = fractions.len() == 4 && fractions.iter().all(|f| f.denominator.lc == first.denominator.lc);
        let pure = same && x.iter().all(|&slot| self.felt(slot).is_zero());
        pure.then(|| (std::array::from_fn(|i| fractions[i].numerator.clone()), first.denominator.clone()))
    }

    fn mul_ext(&mut self, out: &ir::Ext, a: &ir::Ext, b: &ir::Ext) -> Result<(), CircuitError> {
        if !self.fractions.is_empty() {
            let is_plain = |x: &ir::Ext| x.iter().all(|slot| !self.fractions.contains_key(slot));
            let pure = match (is_plain(a), is_plain(b)) {
                (false, true) => self.pure_fraction(a).map(|fraction| (fraction, b)),
                (true, false) => self.pure_fraction(b).map(|fraction| (fraction, a)),
                _ => None,
            };
            if let Some(((numerators, denominator), other)) = pure {
                let product = self.mul_values(&numerators, &self.ext(other));
                for (slot, numerator) in out.iter().zip(product) {
                    self.set(*slot, Felt::constant(0));
                    self.fractions.insert(*slot, Fraction { numerator, denominator: denominator.clone() });
                }
                return Ok(());
            }
            a.iter().chain(b).try_for_each(|&slot| self.resolve(slot))?;
        }
        self.prepare_factors(a, b, product_bits);
        let product = self.builder.mul_ext(&self.ext(a), &self.ext(b));
        self.set_ext(out, product);
        Ok(())
    }

    /// `a * b`, reducing what is necessary.
    fn mul_values(&mut self, a: &Ext, b: &Ext) -> Ext {
        let longest = |x: &Ext| x.iter().map(Felt::bits).max().unwrap_or(0);
        let (mut a, mut b) = (a.clone(), b.clone());
        while product_bits(longest(&a), longest(&b)) > BITS_MAX {
            let target = if longest(&a) >= longest(&b) { &mut a } else { &mut b };
            *target = std::array::from_fn(|i| self.builder.reduce(&target[i]));
        }
        self.builder.mul_ext(&a, &b)
    }

    /// The table of `product over i of (bit i of index ? x_i : 1 - x_i)`, index by index.
    fn eq_table(&mut self, points: &[ir::Ext]) -> Vec<Ext> {
        if let Some(table) = self.eq_tables.get(points) {
            return table.clone();
        }
        let mut table = vec![std::array::from_fn(|i| Felt::constant(i64::from(i == 0)))];
        for point in points {
            for &slot in point {
                if self.felt(slot).bits() > BITS + 1 {
                    self.reduce(slot);
                }
            }
            let x = self.ext(point);
            // The entries add up to one, so the products with x add up to x: the first needs no product.
            let mut high: Vec<Ext> = vec![x.clone()];
            for entry in &table[1..] {
                let product = self.mul_values(entry, &x);
                let product: Ext = std::array::from_fn(|i| self.builder.reduce(&product[i]));
                high[0] = std::array::from_fn(|i| high[0][i].sub(&product[i]));
                high.push(product);
            }
            let low: Vec<Ext> = table
                .iter()
                .zip(&high)
                .map(|(entry, high)| std::array::from_fn(|i| entry[i].sub(&high[i])))
                .collect();
            table = low.into_iter().chain(high).collect();
        }
        self.eq_tables.insert(points.to_vec(), table.clone());
        table
    }

    /// Multiplies an accumulator by factors of an equality polynomial, [`EQ_GROUP`] of them by one look-up.
    fn eq_chain(
        &mut self,
        out: &ir::Ext,
        acc: &ir::Ext,
        factors: &[(Slot, ir::Ext)],
    ) -> Result<(), CircuitError> {
        let mut product = self.ext(acc);
        for group in factors.chunks(EQ_GROUP) {
            let mut bits = Vec::with_capacity(group.len());
            for &(bit, _) in group {
                bits.push(self.checked_bit(bit));
            }
            let points: Vec<ir::Ext> = group.iter().map(|&(_, x)| x).collect();
            let mut layer = self.eq_table(&points);
            // Bit i of the index belongs to factor i: halve by the last factor first.
            for bit in bits.iter().rev() {
                let (low, high) = layer.split_at(layer.len() / 2);
                layer = low.iter().zip(high).map(|(low, high)| self.choose(bit, high, low)).collect();
            }
            product = self.mul_values(&product, &layer[0]);
        }
        self.set_ext(out, product);
        Ok(())
    }

    fn choose(&mut self, bit: &Lc, a: &Ext, b: &Ext) -> Ext {
        std::array::from_fn(|i| Felt {
            lc: self.builder.select(bit, &a[i].lc, &b[i].lc),
            range: a[i].range.hull(&b[i].range),
        })
    }

    /// The value of a slot that has to be 0 or 1.
    fn checked_bit(&mut self, slot: Slot) -> Lc {
        let bit = self.felt(slot).clone();
        if bit.range != Interval::unsigned(1) {
            self.reduce(slot);
            let reduced = self.felt(slot).lc.clone();
            self.builder.boolean(Kind::Select, &reduced);
            self.set(slot, Felt { lc: reduced, range: Interval::unsigned(1) });
        }
        self.felt(slot).lc.clone()
    }

    fn merkle_top(&mut self, root: Var, openings: &[Opening]) {
        let mut paths = Vec::with_capacity(openings.len());
        for opening in openings {
            let levels =
                opening.levels.iter().map(|level| (self.condition(level.bit), level.sibling)).collect();
            paths.push(Path { node: self.var(opening.node).clone(), levels });
        }
        let root = self.var(root).clone();
        self.tops.apply(&mut self.builder, &self.template, &root, &paths);
    }
}
