//! Which rules hold at which block: the chain specification, an input of the guest.

use alloy_eips::{eip6110::MAINNET_DEPOSIT_CONTRACT_ADDRESS, eip7840::BlobParams};
use alloy_evm::eth::spec::EthExecutorSpec;
use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::{Address, B256};

use crate::{
    codec::{Reader, Writer},
    error::DecodeError,
};

/// A fork that never comes.
pub const NEVER: u64 = u64::MAX;

/// Forks activated by block number, in order of activation.
pub const BLOCK_FORKS: [EthereumHardfork; 14] = [
    EthereumHardfork::Homestead,
    EthereumHardfork::Dao,
    EthereumHardfork::Tangerine,
    EthereumHardfork::SpuriousDragon,
    EthereumHardfork::Byzantium,
    EthereumHardfork::Constantinople,
    EthereumHardfork::Petersburg,
    EthereumHardfork::Istanbul,
    EthereumHardfork::MuirGlacier,
    EthereumHardfork::Berlin,
    EthereumHardfork::London,
    EthereumHardfork::ArrowGlacier,
    EthereumHardfork::GrayGlacier,
    EthereumHardfork::Paris,
];

/// Forks activated by timestamp, in order of activation.
pub const TIME_FORKS: [EthereumHardfork; 6] = [
    EthereumHardfork::Shanghai,
    EthereumHardfork::Cancun,
    EthereumHardfork::Prague,
    EthereumHardfork::Osaka,
    EthereumHardfork::Bpo1,
    EthereumHardfork::Bpo2,
];

/// Chain id and fork schedule.
///
/// The guest takes it as input; its hash is part of every state commitment, so a proof made under other rules does not
/// join. Forks not named here (Amsterdam and later) never activate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSpec {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Activation block of each of [`BLOCK_FORKS`], [`NEVER`] for none.
    pub block_forks: [u64; BLOCK_FORKS.len()],
    /// Activation time of each of [`TIME_FORKS`], seconds since 1970, [`NEVER`] for none.
    pub time_forks: [u64; TIME_FORKS.len()],
    /// Contract whose deposit events become requests (EIP-6110).
    pub deposit_contract: Address,
    /// Whether a beacon chain vouches for withdrawals, parent beacon block roots and blob data. Without one (a rollup)
    /// whoever makes blocks could choose them freely, so blocks must have none.
    pub beacon_chain: bool,
}

impl ChainSpec {
    /// Length of [`Self::encode`] in bytes.
    pub const ENCODED_LEN: usize = 8 + 8 * BLOCK_FORKS.len() + 8 * TIME_FORKS.len() + 20 + 1;

    /// Chain id of the Assay sample chain.
    pub const ASSAY_CHAIN_ID: u64 = 10_515;

    /// Ethereum mainnet up to the second blob-parameter fork (BPO2).
    pub const fn mainnet() -> Self {
        Self {
            chain_id: 1,
            block_forks: [
                1_150_000, 1_920_000, 2_463_000, 2_675_000, 4_370_000, 7_280_000, 7_280_000, 9_069_000,
                9_200_000, 12_244_000, 12_965_000, 13_773_000, 15_050_000, 15_537_394,
            ],
            time_forks: [
                1_681_338_455,
                1_710_338_135,
                1_746_612_311,
                1_764_798_551,
                1_765_290_071,
                1_767_747_671,
            ],
            deposit_contract: MAINNET_DEPOSIT_CONTRACT_ADDRESS,
            beacon_chain: true,
        }
    }

    /// The Assay chain: every fork up to and including Prague from genesis on, no beacon chain.
    pub const fn assay() -> Self {
        Self {
            chain_id: Self::ASSAY_CHAIN_ID,
            block_forks: [0, NEVER, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            time_forks: [0, 0, 0, NEVER, NEVER, NEVER],
            deposit_contract: MAINNET_DEPOSIT_CONTRACT_ADDRESS,
            beacon_chain: false,
        }
    }

    /// A chain with `chain_id` and a beacon chain on which every fork up to and including `last` is active from genesis on (the DAO fork
    /// is left out, being an event of one chain). Forks after `last` never come.
    pub fn from_genesis(chain_id: u64, last: EthereumHardfork) -> Self {
        let at = |fork: EthereumHardfork| if fork <= last { 0 } else { NEVER };
        let mut spec = Self {
            chain_id,
            block_forks: BLOCK_FORKS.map(at),
            time_forks: TIME_FORKS.map(at),
            deposit_contract: MAINNET_DEPOSIT_CONTRACT_ADDRESS,
            beacon_chain: true,
        };
        spec.block_forks[1] = NEVER;
        spec
    }

    /// Sets when `fork` comes: a block number or a timestamp, whichever the fork goes by. Forks this type does not
    /// know are ignored.
    #[must_use]
    pub fn with_fork(mut self, fork: EthereumHardfork, at: u64) -> Self {
        if let Some(i) = BLOCK_FORKS.iter().position(|f| *f == fork) {
            self.block_forks[i] = at;
        }
        if let Some(i) = TIME_FORKS.iter().position(|f| *f == fork) {
            self.time_forks[i] = at;
        }
        self
    }

    /// Blob parameters at `timestamp`, or none before Cancun.
    pub fn blob_params(&self, timestamp: u64) -> Option<BlobParams> {
        let last = (1..TIME_FORKS.len()).rev().find(|i| {
            let at = self.time_forks[*i];
            at != NEVER && timestamp >= at
        })?;
        Some(match last {
            1 => BlobParams::cancun(),
            2 => BlobParams::prague(),
            3 => BlobParams::osaka(),
            4 => BlobParams::bpo1(),
            _ => BlobParams::bpo2(),
        })
    }

    /// Fixed-width little-endian encoding: chain id, block forks, time forks, deposit contract, beacon chain (0 or 1).
    pub fn encode(&self, out: &mut Writer) {
        out.u64(self.chain_id);
        self.block_forks.iter().chain(&self.time_forks).for_each(|at| out.u64(*at));
        out.bytes(self.deposit_contract.as_slice());
        out.u8(u8::from(self.beacon_chain));
    }

    /// Reads what [`Self::encode`] writes.
    ///
    /// # Errors
    /// `Truncated`, or `Invalid` if a fork comes before its predecessor or the last byte is neither 0 nor 1.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let chain_id = input.u64("chain id")?;
        let mut block_forks = [0; BLOCK_FORKS.len()];
        for at in &mut block_forks {
            *at = input.u64("fork block")?;
        }
        let mut time_forks = [0; TIME_FORKS.len()];
        for at in &mut time_forks {
            *at = input.u64("fork time")?;
        }
        let deposit_contract = Address::from(input.array::<20>("deposit contract")?);
        let beacon_chain = match input.u8("beacon chain")? {
            0 => false,
            1 => true,
            _ => {
                return Err(DecodeError::Invalid {
                    item: "chain spec",
                    reason: "beacon chain is neither 0 nor 1",
                })
            }
        };
        let spec = Self { chain_id, block_forks, time_forks, deposit_contract, beacon_chain };
        if !spec.is_ordered() {
            return Err(DecodeError::Invalid {
                item: "chain spec",
                reason: "a fork precedes the one before it",
            });
        }
        Ok(spec)
    }

    /// BLAKE3 of [`Self::encode`] after a domain tag.
    pub fn hash(&self) -> B256 {
        let mut out = Writer::default();
        out.bytes(b"assay.chain-spec.v1");
        self.encode(&mut out);
        B256::from(*blake3::hash(&out.finish()).as_bytes())
    }

    /// Every fork comes no earlier than its predecessor (the DAO fork aside, which a chain may skip).
    fn is_ordered(&self) -> bool {
        let blocks = self.block_forks.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, at)| *at);
        is_sorted(blocks) && is_sorted(self.time_forks.iter().copied())
    }
}

fn is_sorted(values: impl Iterator<Item = u64>) -> bool {
    let mut last = 0;
    for value in values {
        if value < last {
            return false;
        }
        last = value;
    }
    true
}

impl EthereumHardforks for ChainSpec {
    fn ethereum_fork_activation(&self, fork: EthereumHardfork) -> ForkCondition {
        let (at, by_time) = match fork {
            EthereumHardfork::Frontier => return ForkCondition::Block(0),
            EthereumHardfork::Homestead => (self.block_forks[0], false),
            EthereumHardfork::Dao => (self.block_forks[1], false),
            EthereumHardfork::Tangerine => (self.block_forks[2], false),
            EthereumHardfork::SpuriousDragon => (self.block_forks[3], false),
            EthereumHardfork::Byzantium => (self.block_forks[4], false),
            EthereumHardfork::Constantinople => (self.block_forks[5], false),
            EthereumHardfork::Petersburg => (self.block_forks[6], false),
            EthereumHardfork::Istanbul => (self.block_forks[7], false),
            EthereumHardfork::MuirGlacier => (self.block_forks[8], false),
            EthereumHardfork::Berlin => (self.block_forks[9], false),
            EthereumHardfork::London => (self.block_forks[10], false),
            EthereumHardfork::ArrowGlacier => (self.block_forks[11], false),
            EthereumHardfork::GrayGlacier => (self.block_forks[12], false),
            EthereumHardfork::Paris => (self.block_forks[13], false),
            EthereumHardfork::Shanghai => (self.time_forks[0], true),
            EthereumHardfork::Cancun => (self.time_forks[1], true),
            EthereumHardfork::Prague => (self.time_forks[2], true),
            EthereumHardfork::Osaka => (self.time_forks[3], true),
            EthereumHardfork::Bpo1 => (self.time_forks[4], true),
            EthereumHardfork::Bpo2 => (self.time_forks[5], true),
            _ => return ForkCondition::Never,
        };
        match (at, by_time) {
            (NEVER, _) => ForkCondition::Never,
            (at, true) => ForkCondition::Timestamp(at),
            (at, false) => ForkCondition::Block(at),
        }
    }
}

impl EthExecutorSpec for ChainSpec {
    fn deposit_contract_address(&self) -> Option<Address> {
        Some(self.deposit_contract)
    }
}
