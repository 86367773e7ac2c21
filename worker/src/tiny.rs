//! The smallest useful guest, assembled by hand: for checks of a machine and for the engine's tests, which so need no guest toolchain.
//!
//! It counts down `loops`, writes `public_values` to the zkVM's public value stream, commits to their BLAKE3 hash and to
//! no deferred proofs, and halts with `exit_code`.

/// Where code may begin: the zkVM's stack ends below.
const BASE: u64 = 0x7810_0000;

const HALT: i32 = 0x00;
const WRITE: i32 = 0x02;
const COMMIT: i32 = 0x10;
const COMMIT_DEFERRED_PROOFS: i32 = 0x1a;
/// File descriptor of the public value stream.
const PUBLIC_VALUES: i32 = 13;

const X0: u32 = 0;
const T0: u32 = 5;
const T1: u32 = 6;
const A0: u32 = 10;
const A1: u32 = 11;
const A2: u32 = 12;

#[derive(Default)]
struct Assembler(Vec<u32>);

impl Assembler {
    fn addi(&mut self, rd: u32, rs1: u32, imm: i32) {
        self.0.push(((imm as u32) << 20) | (rs1 << 15) | (rd << 7) | 0x13);
    }

    fn slli(&mut self, rd: u32, rs1: u32, shift: u32) {
        self.0.push((shift << 20) | (rs1 << 15) | (1 << 12) | (rd << 7) | 0x13);
    }

    fn or(&mut self, rd: u32, rs1: u32, rs2: u32) {
        self.0.push((rs2 << 20) | (rs1 << 15) | (6 << 12) | (rd << 7) | 0x33);
    }

    /// Loads a number of at most 33 bits in three steps of 11 bits.
    fn load(&mut self, rd: u32, value: u64) {
        assert!(value < 1 << 33);
        self.addi(rd, X0, (value >> 22) as i32);
        for shift in [11, 0] {
            self.slli(rd, rd, 11);
            self.addi(T1, X0, ((value >> shift) & 0x7ff) as i32);
            self.or(rd, rd, T1);
        }
    }

    fn ecall(&mut self, code: i32) {
        self.addi(T0, X0, code);
        self.0.push(0x73);
    }

    /// Branches `instructions` back (negative) if `rs1 != 0`.
    fn bnez(&mut self, rs1: u32, instructions: i32) {
        let offset = (instructions * 4) as u32;
        let imm = ((offset >> 12 & 1) << 31) | ((offset >> 5 & 0x3f) << 25);
        let imm = imm | ((offset >> 1 & 0xf) << 8) | ((offset >> 11 & 1) << 7);
        self.0.push(imm | (rs1 << 15) | (1 << 12) | 0x63);
    }
}

/// Builds the guest: the bytes of an ELF. Each of `loops` costs two cycles, the rest a few hundred.
///
/// # Panics
/// If `loops` is 0 or not below 2^31, or there are more than 2,047 bytes of `public_values`.
pub fn elf(public_values: &[u8], loops: u32, exit_code: u8) -> Vec<u8> {
    assert!(loops > 0 && loops < 1 << 31 && public_values.len() < 1 << 11);
    let mut code = Assembler::default();
    code.load(A0, u64::from(loops));
    code.addi(A0, A0, -1);
    code.bnez(A0, -1);
    // WRITE(fd, pointer, length); the data follow the code, which has a fixed length after this point.
    let data = |instructions: usize| BASE + 4 * instructions as u64;
    let tail = 7 + 2 + 8 * (1 + 7 + 2) + 8 * (1 + 1 + 2) + 1 + 2 + 2;
    let data_at = (code.0.len() + 1 + tail + 1) & !1;
    code.addi(A0, X0, PUBLIC_VALUES);
    code.load(A1, data(data_at));
    code.addi(A2, X0, public_values.len() as i32);
    code.ecall(WRITE);
    let digest = blake3::hash(public_values);
    for (index, word) in digest.as_bytes().chunks_exact(4).enumerate() {
        code.addi(A0, X0, index as i32);
        code.load(A1, u64::from(u32::from_le_bytes(word.try_into().expect("four bytes"))));
        code.ecall(COMMIT);
    }
    for index in 0..8 {
        code.addi(A0, X0, index);
        code.addi(A1, X0, 0);
        code.ecall(COMMIT_DEFERRED_PROOFS);
    }
    code.addi(A0, X0, i32::from(exit_code));
    code.ecall(HALT);
    assert!(code.0.len() <= data_at, "{} instructions, data at {data_at}", code.0.len());
    while code.0.len() < data_at {
        code.addi(X0, X0, 0);
    }
    let text: Vec<u8> = code.0.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut data = public_values.to_vec();
    data.resize(data.len().next_multiple_of(8).max(8), 0);
    link(&text, &data)
}

/// An ELF64 with two segments: code (read, execute), then data (read, write).
fn link(text: &[u8], data: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&2u16.to_le_bytes());
    elf.extend_from_slice(&243u16.to_le_bytes());
    elf.extend_from_slice(&1u32.to_le_bytes());
    for word in [BASE, 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    let segments = [(5u32, 0u64, text.len()), (6, text.len() as u64, data.len())];
    for (flags, at, len) in segments {
        elf.extend_from_slice(&1u32.to_le_bytes());
        elf.extend_from_slice(&flags.to_le_bytes());
        for word in [HEADERS + at, BASE + at, BASE + at, len as u64, len as u64, 8] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
    }
    elf.extend_from_slice(text);
    elf.extend_from_slice(data);
    elf
}
