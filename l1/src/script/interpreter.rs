//! A small interpreter of tapscript that shows its work.
//!
//! Core's code gives the verdict everywhere; it does not say where a script of 170 kB stopped. This one does: [`run`] reports
//! the failing opcode and the deepest stack, and an observer sees every step. Tests hold it against Core's on random scripts.
//!
//! Not covered: `OP_CODESEPARATOR` and `OP_CHECKLOCKTIMEVERIFY`, which no script here uses, and `OP_SUCCESSx`; all three
//! are the error [`Fault::Unsupported`], never a verdict.

mod number;
mod signature;

use bitcoin::hashes::{hash160, ripemd160, sha1, sha256, sha256d, Hash};
use bitcoin::opcodes::all::*;
use bitcoin::opcodes::{Class, ClassifyContext, Opcode};
use bitcoin::script::Instruction;
use bitcoin::{Script, TapLeafHash, Transaction, TxOut};

use number::{boolean, encode, number, truth};

/// Values on both stacks together, at most (consensus).
pub const STACK_PLACES_MAX: usize = 1_000;
/// Bytes of a value, at most (consensus).
pub const ELEMENT_BYTES_MAX: usize = 520;

/// What signature and time lock opcodes look at.
#[derive(Debug, Clone, Copy)]
pub struct Spend<'a> {
    /// The transaction, with its witnesses.
    pub tx: &'a Transaction,
    /// The input whose script runs.
    pub input: usize,
    /// The outputs spent, one for each input.
    pub spent: &'a [TxOut],
    /// Hash of the leaf that runs.
    pub leaf: TapLeafHash,
}

/// Why a script failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes that are no instruction.
    #[error("the script cannot be parsed")]
    Parse,
    /// An opcode that this interpreter leaves to Core.
    #[error("the opcode is not supported here")]
    Unsupported,
    /// An opcode that tapscript forbids.
    #[error("the opcode is forbidden")]
    Forbidden,
    /// Fewer values than the opcode takes, or a depth that is not there.
    #[error("the stack is too short")]
    StackShort,
    /// More than [`STACK_PLACES_MAX`] values, or one of more than [`ELEMENT_BYTES_MAX`] bytes.
    #[error("the stack is over its limits")]
    StackLimit,
    /// A number of more than four bytes (five for a time lock).
    #[error("the value is no number")]
    Number,
    /// The condition of a branch is neither empty nor 1.
    #[error("the condition is not minimal")]
    Condition,
    /// A branch that is not closed, or closed without having been opened.
    #[error("the branches do not match")]
    Branch,
    /// A verifying opcode saw false.
    #[error("the check failed")]
    Verify,
    /// A signature or a key is wrong, or the witness is too small for another signature check.
    #[error("the signature is refused")]
    Signature,
    /// The relative time lock is not met by the input's sequence.
    #[error("the time lock is not met")]
    TimeLock,
    /// At the end there is not exactly one value, or it is false.
    #[error("the script does not end with one true value")]
    Result,
}

/// A failure, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position} of the script ({}): {fault}", opcode.map_or_else(|| "push or end".to_owned(), |opcode| opcode.to_string()))]
pub struct InterpretError {
    /// Offset of the instruction in the script; its length if the script came to its end.
    pub position: usize,
    /// The opcode, absent for a push and at the end.
    pub opcode: Option<Opcode>,
    /// What is wrong.
    pub fault: Fault,
}

/// One executed instruction.
#[derive(Debug)]
pub struct Step<'a> {
    /// Offset of the instruction in the script.
    pub position: usize,
    /// The opcode, absent for a push.
    pub opcode: Option<Opcode>,
    /// The stack after it, top last.
    pub stack: &'a [Vec<u8>],
    /// The alternative stack after it, top last.
    pub alternative: &'a [Vec<u8>],
}

/// What a successful run was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Executed instructions.
    pub steps: usize,
    /// Most values on both stacks together.
    pub places_max: usize,
}

struct Machine<'a> {
    stack: Vec<Vec<u8>>,
    alternative: Vec<Vec<u8>>,
    branches: Vec<bool>,
    spend: Spend<'a>,
    budget: i64,
}

/// Runs `script` on `items` (bottom first).
///
/// # Errors
/// Where and why it fails.
pub fn run(script: &Script, items: Vec<Vec<u8>>, spend: Spend<'_>) -> Result<Summary, InterpretError> {
    run_observed(script, items, spend, |_| {})
}

/// [`run`], with a look at every step.
///
/// # Errors
/// As [`run`].
pub fn run_observed(
    script: &Script,
    items: Vec<Vec<u8>>,
    spend: Spend<'_>,
    mut observe: impl FnMut(&Step<'_>),
) -> Result<Summary, InterpretError> {
    let at = |position, opcode, fault| InterpretError { position, opcode, fault };
    scan(script)?;
    if items.len() > STACK_PLACES_MAX || items.iter().any(|item| item.len() > ELEMENT_BYTES_MAX) {
        return Err(at(0, None, Fault::StackLimit));
    }
    let budget = signature::budget(&spend);
    let mut summary = Summary { steps: 0, places_max: items.len() };
    let mut machine = Machine { stack: items, alternative: Vec::new(), branches: Vec::new(), spend, budget };
    for instruction in script.instruction_indices() {
        let (position, instruction) = instruction.map_err(|_| at(0, None, Fault::Parse))?;
        let opcode = instruction.opcode();
        machine.step(instruction).map_err(|fault| at(position, opcode, fault))?;
        let places = machine.stack.len() + machine.alternative.len();
        if places > STACK_PLACES_MAX {
            return Err(at(position, opcode, Fault::StackLimit));
        }
        summary.steps += 1;
        summary.places_max = summary.places_max.max(places);
        observe(&Step { position, opcode, stack: &machine.stack, alternative: &machine.alternative });
    }
    let end = |fault| at(script.len(), None, fault);
    if !machine.branches.is_empty() {
        return Err(end(Fault::Branch));
    }
    match machine.stack.as_slice() {
        [value] if truth(value) => Ok(summary),
        _ => Err(end(Fault::Result)),
    }
}

/// Refuses what must not be there even where it does not run.
fn scan(script: &Script) -> Result<(), InterpretError> {
    for instruction in script.instruction_indices() {
        let at = |position, opcode, fault| InterpretError { position, opcode, fault };
        let (position, instruction) = instruction.map_err(|_| at(0, None, Fault::Parse))?;
        let Some(opcode) = instruction.opcode() else { continue };
        if opcode.classify(ClassifyContext::TapScript) == Class::SuccessOp {
            return Err(at(position, Some(opcode), Fault::Unsupported));
        }
    }
    Ok(())
}

type Outcome = Result<(), Fault>;

impl Machine<'_> {
    fn step(&mut self, instruction: Instruction<'_>) -> Outcome {
        let running = self.branches.iter().all(|taken| *taken);
        match instruction {
            Instruction::PushBytes(bytes) => {
                if bytes.len() > ELEMENT_BYTES_MAX {
                    return Err(Fault::StackLimit);
                }
                if running {
                    self.stack.push(bytes.as_bytes().to_vec());
                }
                Ok(())
            }
            Instruction::Op(OP_VERIF | OP_VERNOTIF) => Err(Fault::Forbidden),
            Instruction::Op(opcode @ (OP_IF | OP_NOTIF | OP_ELSE | OP_ENDIF)) => self.branch(opcode, running),
            Instruction::Op(_) if !running => Ok(()),
            Instruction::Op(opcode) => self.execute(opcode),
        }
    }

    fn branch(&mut self, opcode: Opcode, running: bool) -> Outcome {
        match opcode {
            OP_ELSE => {
                let taken = self.branches.last_mut().ok_or(Fault::Branch)?;
                *taken = !*taken;
            }
            OP_ENDIF => {
                self.branches.pop().ok_or(Fault::Branch)?;
            }
            _ if running => {
                let taken = match self.pop()?.as_slice() {
                    [] => false,
                    [1] => true,
                    _ => return Err(Fault::Condition),
                };
                self.branches.push(taken == (opcode == OP_IF));
            }
            _ => self.branches.push(false),
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Vec<u8>, Fault> {
        self.stack.pop().ok_or(Fault::StackShort)
    }

    /// Index of the value at `depth`.
    fn index(&self, depth: usize) -> Result<usize, Fault> {
        self.stack.len().checked_sub(depth + 1).ok_or(Fault::StackShort)
    }

    fn copy(&mut self, depth: usize) -> Outcome {
        let value = self.stack[self.index(depth)?].clone();
        self.stack.push(value);
        Ok(())
    }

    /// Moves `count` values, the deepest of them at `depth`, to the top.
    fn lift(&mut self, depth: usize, count: usize) -> Outcome {
        let at = self.index(depth)?;
        let moved: Vec<_> = self.stack.drain(at..at + count).collect();
        self.stack.extend(moved);
        Ok(())
    }

    fn verify(&mut self) -> Outcome {
        if truth(&self.pop()?) {
            Ok(())
        } else {
            Err(Fault::Verify)
        }
    }

    fn execute(&mut self, opcode: Opcode) -> Outcome {
        match opcode {
            OP_PUSHNUM_NEG1 => self.stack.push(encode(-1)),
            _ if (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8()).contains(&opcode.to_u8()) => {
                self.stack.push(encode(i64::from(opcode.to_u8() - OP_PUSHNUM_1.to_u8() + 1)));
            }
            OP_NOP | OP_NOP1 | OP_NOP4 | OP_NOP5 | OP_NOP6 | OP_NOP7 | OP_NOP8 | OP_NOP9 | OP_NOP10 => {}
            OP_VERIFY => self.verify()?,
            OP_RETURN => return Err(Fault::Verify),
            OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY => return Err(Fault::Forbidden),
            OP_CODESEPARATOR | OP_CLTV => return Err(Fault::Unsupported),
            OP_CSV => self.relative_lock()?,
            OP_CHECKSIG | OP_CHECKSIGVERIFY | OP_CHECKSIGADD => self.signature(opcode)?,
            OP_RIPEMD160 | OP_SHA1 | OP_SHA256 | OP_HASH160 | OP_HASH256 => self.hash(opcode)?,
            OP_EQUAL | OP_EQUALVERIFY => {
                let equal = self.pop()? == self.pop()?;
                self.stack.push(boolean(equal));
                if opcode == OP_EQUALVERIFY {
                    self.verify()?;
                }
            }
            OP_1ADD | OP_1SUB | OP_NEGATE | OP_ABS | OP_NOT | OP_0NOTEQUAL => self.unary(opcode)?,
            _ if (OP_ADD.to_u8()..=OP_WITHIN.to_u8()).contains(&opcode.to_u8()) => self.arithmetic(opcode)?,
            _ => self.shuffle(opcode)?,
        }
        Ok(())
    }

    fn shuffle(&mut self, opcode: Opcode) -> Outcome {
        match opcode {
            OP_TOALTSTACK => {
                let value = self.pop()?;
                self.alternative.push(value);
            }
            OP_FROMALTSTACK => {
                let value = self.alternative.pop().ok_or(Fault::StackShort)?;
                self.stack.push(value);
            }
            OP_DROP => drop(self.pop()?),
            OP_2DROP => {
                self.index(1)?;
                self.stack.truncate(self.stack.len() - 2);
            }
            OP_DUP => self.copy(0)?,
            OP_2DUP => (0..2).try_for_each(|_| self.copy(1))?,
            OP_3DUP => (0..3).try_for_each(|_| self.copy(2))?,
            OP_OVER => self.copy(1)?,
            OP_2OVER => (0..2).try_for_each(|_| self.copy(3))?,
            OP_SWAP => self.lift(1, 1)?,
            OP_ROT => self.lift(2, 1)?,
            OP_2SWAP => self.lift(3, 2)?,
            OP_2ROT => self.lift(5, 2)?,
            OP_NIP => {
                let at = self.index(1)?;
                self.stack.remove(at);
            }
            OP_TUCK => {
                self.lift(1, 1)?;
                self.copy(1)?;
            }
            OP_IFDUP => {
                if truth(self.stack.last().ok_or(Fault::StackShort)?) {
                    self.copy(0)?;
                }
            }
            OP_DEPTH => self.stack.push(encode(self.stack.len() as i64)),
            OP_SIZE => {
                let bytes = self.stack.last().ok_or(Fault::StackShort)?.len();
                self.stack.push(encode(bytes as i64));
            }
            OP_PICK | OP_ROLL => {
                self.index(1)?;
                let depth = usize::try_from(number(&self.pop()?, 4)?).map_err(|_| Fault::StackShort)?;
                if opcode == OP_PICK {
                    self.copy(depth)?;
                } else {
                    self.lift(depth, 1)?;
                }
            }
            _ => return Err(Fault::Forbidden),
        }
        Ok(())
    }

    fn unary(&mut self, opcode: Opcode) -> Outcome {
        let value = number(&self.pop()?, 4)?;
        self.stack.push(encode(match opcode {
            OP_1ADD => value + 1,
            OP_1SUB => value - 1,
            OP_NEGATE => -value,
            OP_ABS => value.abs(),
            OP_NOT => i64::from(value == 0),
            _ => i64::from(value != 0),
        }));
        Ok(())
    }

    fn arithmetic(&mut self, opcode: Opcode) -> Outcome {
        self.index(if opcode == OP_WITHIN { 2 } else { 1 })?;
        let (right, left) = (self.pop()?, self.pop()?);
        if opcode == OP_WITHIN {
            let value = number(&self.pop()?, 4)?;
            let within = (number(&left, 4)?..number(&right, 4)?).contains(&value);
            self.stack.push(boolean(within));
            return Ok(());
        }
        let (left, right) = (number(&left, 4)?, number(&right, 4)?);
        self.stack.push(encode(match opcode {
            OP_ADD => left + right,
            OP_SUB => left - right,
            OP_BOOLAND => i64::from(left != 0 && right != 0),
            OP_BOOLOR => i64::from(left != 0 || right != 0),
            OP_NUMEQUAL | OP_NUMEQUALVERIFY => i64::from(left == right),
            OP_NUMNOTEQUAL => i64::from(left != right),
            OP_LESSTHAN => i64::from(left < right),
            OP_GREATERTHAN => i64::from(left > right),
            OP_LESSTHANOREQUAL => i64::from(left <= right),
            OP_GREATERTHANOREQUAL => i64::from(left >= right),
            OP_MIN => left.min(right),
            OP_MAX => left.max(right),
            _ => return Err(Fault::Forbidden),
        }));
        if opcode == OP_NUMEQUALVERIFY {
            self.verify()?;
        }
        Ok(())
    }

    fn hash(&mut self, opcode: Opcode) -> Outcome {
        let value = self.pop()?;
        self.stack.push(match opcode {
            OP_RIPEMD160 => ripemd160::Hash::hash(&value).to_byte_array().to_vec(),
            OP_SHA1 => sha1::Hash::hash(&value).to_byte_array().to_vec(),
            OP_SHA256 => sha256::Hash::hash(&value).to_byte_array().to_vec(),
            OP_HASH160 => hash160::Hash::hash(&value).to_byte_array().to_vec(),
            _ => sha256d::Hash::hash(&value).to_byte_array().to_vec(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
