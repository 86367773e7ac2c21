//! What differs between Bitcoin networks as far as headers go.
//!
//! Source: Bitcoin Core, `kernel/chainparams.cpp` and `pow.cpp`.

use crate::hash::Hash;
use crate::header::Header;

/// How far the first block of a period may lie before its parent, in seconds, where BIP94 is in force.
pub const TIMEWARP_S: u32 = 600;

/// How a network's difficulty changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difficulty {
    /// Every period (mainnet, signet).
    Retarget,
    /// Every period, and a late block may have the least difficulty (testnet3).
    RetargetOrLate,
    /// As before, but a period's first block keeps the real difficulty, and its time is bound to its parent's (testnet4, BIP94).
    RetargetOrLateBip94,
    /// Never (regtest).
    Constant,
}

impl Difficulty {
    /// Byte in encodings.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Retarget => 0,
            Self::RetargetOrLate => 1,
            Self::RetargetOrLateBip94 => 2,
            Self::Constant => 3,
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Retarget, Self::RetargetOrLate, Self::RetargetOrLateBip94, Self::Constant]
            .into_iter()
            .find(|rule| rule.byte() == byte)
    }

    /// True where a late block may have the least difficulty.
    #[must_use]
    pub const fn allows_late(self) -> bool {
        matches!(self, Self::RetargetOrLate | Self::RetargetOrLateBip94)
    }
}

/// A network's rules for headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Easiest target, in compact form.
    pub limit_bits: u32,
    /// How it changes.
    pub difficulty: Difficulty,
    /// Heights from which versions below 2, 3 and 4 are refused (BIP34, BIP66, BIP65).
    pub version_heights: [u32; 3],
    /// Blocks between two changes of the difficulty, at least 1.
    pub period_blocks: u32,
    /// Wanted time between two blocks, in seconds, at least 1.
    pub spacing_s: u32,
}

impl Params {
    /// Two weeks of a block every ten minutes.
    const COMMON: Self = Self {
        limit_bits: 0x1d00_ffff,
        difficulty: Difficulty::Retarget,
        version_heights: [1; 3],
        period_blocks: 2_016,
        spacing_s: 600,
    };
    /// The main network.
    pub const MAINNET: Self = Self {
        limit_bits: 0x1d00_ffff,
        difficulty: Difficulty::Retarget,
        version_heights: [227_931, 363_725, 388_381],
        ..Self::COMMON
    };
    /// Test network 3.
    pub const TESTNET3: Self = Self {
        limit_bits: 0x1d00_ffff,
        difficulty: Difficulty::RetargetOrLate,
        version_heights: [21_111, 330_776, 581_885],
        ..Self::COMMON
    };
    /// Test network 4.
    pub const TESTNET4: Self =
        Self { limit_bits: 0x1d00_ffff, difficulty: Difficulty::RetargetOrLateBip94, ..Self::COMMON };
    /// The default signet. Its block signatures (BIP325) are **not** checked: without them anyone with a little work can
    /// extend this chain, so nothing of value may depend on it.
    pub const SIGNET: Self =
        Self { limit_bits: 0x1e03_77ae, difficulty: Difficulty::Retarget, ..Self::COMMON };
    /// Regression tests: every second hash is a block.
    pub const REGTEST: Self =
        Self { limit_bits: 0x207f_ffff, difficulty: Difficulty::Constant, ..Self::COMMON };

    /// How long a period should take, in seconds. It is measured over one block less than it has: Core's off-by-one.
    #[must_use]
    pub const fn period_s(&self) -> u32 {
        self.period_blocks.saturating_mul(self.spacing_s)
    }

    /// Least version of the block at `height`.
    #[must_use]
    pub fn version_min(&self, height: u32) -> i32 {
        // Later heights demand higher versions.
        let reached = |index: usize| height >= self.version_heights[index];
        match (reached(2), reached(1), reached(0)) {
            (true, ..) => 4,
            (_, true, _) => 3,
            (_, _, true) => 2,
            _ => i32::MIN,
        }
    }
}

/// Root of the genesis block that all networks but testnet4 share, in the order of its bytes.
const GENESIS_ROOT: Hash = Hash([
    0x3b, 0xa3, 0xed, 0xfd, 0x7a, 0x7b, 0x12, 0xb2, 0x7a, 0xc7, 0x2c, 0x3e, 0x67, 0x76, 0x8f, 0x61, 0x7f,
    0xc8, 0x1b, 0xc3, 0x88, 0x8a, 0x51, 0x32, 0x3a, 0x9f, 0xb8, 0xaa, 0x4b, 0x1e, 0x5e, 0x4a,
]);
/// Testnet4's.
const TESTNET4_ROOT: Hash = Hash([
    0x4e, 0x7b, 0x2b, 0x91, 0x28, 0xfe, 0x02, 0x91, 0xdb, 0x06, 0x93, 0xaf, 0x2a, 0xe4, 0x18, 0xb7, 0x67,
    0xe6, 0x57, 0xcd, 0x40, 0x7e, 0x80, 0xcb, 0x14, 0x34, 0x22, 0x1e, 0xae, 0xa7, 0xa0, 0x7a,
]);

/// A network that this crate knows the genesis block of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The main network.
    Mainnet,
    /// Test network 3.
    Testnet3,
    /// Test network 4.
    Testnet4,
    /// The default signet.
    Signet,
    /// Regression tests.
    Regtest,
}

impl Network {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mainnet, Self::Testnet3, Self::Testnet4, Self::Signet, Self::Regtest];

    /// Its rules.
    #[must_use]
    pub const fn params(self) -> Params {
        match self {
            Self::Mainnet => Params::MAINNET,
            Self::Testnet3 => Params::TESTNET3,
            Self::Testnet4 => Params::TESTNET4,
            Self::Signet => Params::SIGNET,
            Self::Regtest => Params::REGTEST,
        }
    }

    /// Its first header.
    #[must_use]
    pub const fn genesis(self) -> Header {
        let (time, nonce, merkle_root) = match self {
            Self::Mainnet => (1_231_006_505, 2_083_236_893, GENESIS_ROOT),
            Self::Testnet3 => (1_296_688_602, 414_098_458, GENESIS_ROOT),
            Self::Testnet4 => (1_714_777_860, 393_743_547, TESTNET4_ROOT),
            Self::Signet => (1_598_918_400, 52_613_770, GENESIS_ROOT),
            Self::Regtest => (1_296_688_602, 2, GENESIS_ROOT),
        };
        Header { version: 1, parent: Hash::ZERO, merkle_root, time, bits: self.params().limit_bits, nonce }
    }
}
