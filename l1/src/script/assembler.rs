//! Writes tapscript while keeping track of where every value lies on the stack.
//!
//! `OP_PICK` and `OP_ROLL` take a depth, which changes with every push. Here a value has a [`Slot`], and the depth is worked
//! out when the script is written. The largest number of places in use is recorded: consensus allows 1,000.

use bitcoin::opcodes::all::{OP_ADD, OP_DROP, OP_DUP, OP_OVER, OP_PICK, OP_ROLL, OP_ROT, OP_SWAP};
use bitcoin::opcodes::Opcode;
use bitcoin::script::Builder;

/// A value on the stack, for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// A row of constants on the stack; entry 0 on top.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Places below entry 0, counted from the bottom of what the assembler knows.
    position: usize,
}

/// The script so far, and the stack that it leaves.
pub(crate) struct Assembler {
    builder: Builder,
    stack: Vec<Slot>,
    next: u32,
    peak: usize,
}

impl Assembler {
    /// Goes on with `builder`, of whose stack the upper `places` are known; returns their slots, top first.
    pub(crate) fn new(builder: Builder, places: usize) -> (Self, Vec<Slot>) {
        let mut assembler = Self { builder, stack: Vec::new(), next: 0, peak: 0 };
        let mut slots: Vec<Slot> = (0..places).map(|_| assembler.pushed()).collect();
        slots.reverse();
        (assembler, slots)
    }

    /// The script, and the largest number of stack places in use at once.
    pub(crate) fn finish(self) -> (Builder, usize) {
        (self.builder, self.peak)
    }

    fn emit(&mut self, opcode: Opcode) {
        self.builder = std::mem::take(&mut self.builder).push_opcode(opcode);
    }

    fn emit_int(&mut self, number: usize) {
        self.builder = std::mem::take(&mut self.builder).push_int(number as i64);
        self.peak = self.peak.max(self.stack.len() + 1);
    }

    fn pushed(&mut self) -> Slot {
        let slot = Slot(self.next);
        self.next += 1;
        self.stack.push(slot);
        self.peak = self.peak.max(self.stack.len());
        slot
    }

    fn depth(&self, slot: Slot) -> usize {
        let from_top = self.stack.iter().rev().position(|other| *other == slot);
        from_top.expect("a slot is used only while its value is on the stack")
    }

    /// The value on top.
    pub(crate) fn top(&self) -> Slot {
        *self.stack.last().expect("there is a value on the stack")
    }

    /// Pushes a constant.
    pub(crate) fn constant(&mut self, value: usize) -> Slot {
        self.emit_int(value);
        self.pushed()
    }

    /// Copies a value to the top.
    pub(crate) fn pick(&mut self, slot: Slot) -> Slot {
        match self.depth(slot) {
            0 => self.emit(OP_DUP),
            1 => self.emit(OP_OVER),
            depth => {
                self.emit_int(depth);
                self.emit(OP_PICK);
            }
        }
        self.pushed()
    }

    /// Moves a value to the top.
    pub(crate) fn roll(&mut self, slot: Slot) {
        let depth = self.depth(slot);
        match depth {
            0 => {}
            1 => self.emit(OP_SWAP),
            2 => self.emit(OP_ROT),
            depth => {
                self.emit_int(depth);
                self.emit(OP_ROLL);
            }
        }
        let at = self.stack.len() - 1 - depth;
        let slot = self.stack.remove(at);
        self.stack.push(slot);
    }

    /// Runs `opcode`, which takes `takes` values and leaves one.
    pub(crate) fn op(&mut self, opcode: Opcode, takes: usize) -> Slot {
        self.emit(opcode);
        self.stack.truncate(self.stack.len() - takes);
        self.pushed()
    }

    /// Runs `opcodes`, which take the upper `takes` values, leave `leaves`, and need no more places meanwhile than `extra`.
    pub(crate) fn ops(&mut self, opcodes: &[Opcode], takes: usize, leaves: usize, extra: usize) -> Vec<Slot> {
        self.peak = self.peak.max(self.stack.len() + extra);
        opcodes.iter().for_each(|opcode| self.emit(*opcode));
        self.stack.truncate(self.stack.len() - takes);
        (0..leaves).map(|_| self.pushed()).collect()
    }

    /// Pushes a table of constants.
    pub(crate) fn table(&mut self, entries: impl DoubleEndedIterator<Item = usize>) -> Table {
        for entry in entries.rev() {
            self.constant(entry);
        }
        Table { position: self.stack.len() - 1 }
    }

    /// Replaces the index on top with the table's entry.
    pub(crate) fn look_up(&mut self, table: Table) -> Slot {
        // Once the depth has been popped, the values above entry 0 are those after its position, less the index.
        let above = self.stack.len() - 2 - table.position;
        if above > 0 {
            self.emit_int(above);
            self.emit(OP_ADD);
        }
        self.op(OP_PICK, 1)
    }

    /// Removes the value on top.
    pub(crate) fn drop_top(&mut self) {
        self.emit(OP_DROP);
        self.stack.pop();
    }

    /// Moves the value on top to the alternative stack, where the assembler forgets it.
    pub(crate) fn to_alternative(&mut self) {
        self.emit(bitcoin::opcodes::all::OP_TOALTSTACK);
        self.stack.pop();
    }

    /// Number of known places in use.
    pub(crate) fn len(&self) -> usize {
        self.stack.len()
    }
}
