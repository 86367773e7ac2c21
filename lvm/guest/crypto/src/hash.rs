//! Keccak-256 and SHA-256 around the zkVM's permutation and compression.
#![allow(unsafe_code, reason = "calls the zkVM, and is called through a C interface")]

/// Bytes absorbed per permutation of Keccak-256.
const RATE: usize = 136;
/// The same in 64-bit lanes.
const RATE_LANES: usize = RATE / 8;

/// Keccak-256, as `alloy-primitives` calls it under its feature `native-keccak`.
///
/// # Safety
/// `bytes` must be readable for `len` bytes and `output` writable for 32.
#[no_mangle]
pub(crate) unsafe extern "C" fn native_keccak256(bytes: *const u8, len: usize, output: *mut u8) {
    let input = if len == 0 {
        &[][..]
    } else {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts(bytes, len) }
    };
    let digest = keccak256(input);
    // SAFETY: the caller's promise; the regions are distinct, one being ours.
    unsafe { core::ptr::copy_nonoverlapping(digest.as_ptr().cast::<u8>(), output, 32) };
}

fn keccak256(input: &[u8]) -> [u64; 4] {
    let mut state = [0_u64; 25];
    let mut blocks = input.chunks_exact(RATE);
    for block in &mut blocks {
        absorb(&mut state, block);
        permute(&mut state);
    }
    let rest = blocks.remainder();
    let mut last = [0_u64; RATE_LANES];
    // SAFETY: `last` has 136 bytes and `rest` is shorter; any bytes make a `u64`, and the target is little-endian.
    unsafe { core::ptr::copy_nonoverlapping(rest.as_ptr(), last.as_mut_ptr().cast::<u8>(), rest.len()) };
    last[rest.len() / 8] ^= 1 << (8 * (rest.len() % 8));
    last[RATE_LANES - 1] ^= 1 << 63;
    for (lane, word) in state.iter_mut().zip(&last) {
        *lane ^= word;
    }
    permute(&mut state);
    [state[0], state[1], state[2], state[3]]
}

/// Adds a block of [`RATE`] bytes to the state; quick where the block is aligned to eight bytes.
fn absorb(state: &mut [u64; 25], block: &[u8]) {
    debug_assert_eq!(block.len(), RATE);
    let words = block.as_ptr().cast::<u64>();
    for (i, lane) in state.iter_mut().enumerate().take(RATE_LANES) {
        *lane ^= if words.is_aligned() {
            // SAFETY: word `i` lies in the block, and the pointer is aligned.
            unsafe { words.add(i).read() }
        } else {
            // SAFETY: word `i` lies in the block.
            unsafe { words.add(i).read_unaligned() }
        };
    }
}

fn permute(state: &mut [u64; 25]) {
    // SAFETY: the call reads and writes 25 aligned lanes.
    unsafe { sp1_lib::syscall_keccak_permute(state) };
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(input: &[u8]) -> [u8; 32] {
    let mut state: [u64; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    let mut blocks = input.chunks_exact(64);
    for block in &mut blocks {
        compress(&mut state, block);
    }
    let rest = blocks.remainder();
    let mut last = [0_u8; 128];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    let end = if rest.len() < 56 { 64 } else { 128 };
    last[end - 8..end].copy_from_slice(&(8 * input.len() as u64).to_be_bytes());
    for block in last[..end].chunks_exact(64) {
        compress(&mut state, block);
    }
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(&state) {
        bytes.copy_from_slice(&(*word as u32).to_be_bytes());
    }
    digest
}

/// The zkVM keeps each 32-bit word of SHA-256 in the lower half of a 64-bit one.
fn compress(state: &mut [u64; 8], block: &[u8]) {
    let mut schedule = [0_u64; 64];
    for (word, bytes) in schedule.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    }
    // SAFETY: the calls read and write the 64 words of the schedule and the 8 of the state, all aligned.
    unsafe {
        sp1_lib::syscall_sha256_extend(&mut schedule);
        sp1_lib::syscall_sha256_compress(&mut schedule, state);
    }
}
