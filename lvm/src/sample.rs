//! Sample batches: real signed transactions on the documented Assay genesis.
//!
//! Batch `n` (from 1 on) is the blocks `2n - 1` and `2n` of one deterministic chain, so each batch continues the one
//! before. Each has eight transactions of three types: two plain transfers, a contract creation and a call to what it
//! created, an ERC-20 transfer, approval and delegated transfer, and an ERC-20 transfer that reverts.

mod contracts;
mod wallet;

use std::collections::BTreeMap;

use alloy_consensus::{TxEip1559, TxEip2930, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{address, Address, Bytes, TxKind, B256, U256};
use assay_lvm_core::{BlockAttributes, ChainSpec, ChainState, Transaction};

pub(crate) use self::wallet::Wallet;
use crate::{
    batch::Batch,
    chain::Chain,
    error::BatchError,
    genesis::{self, Alloc, GenesisAccount},
};

/// Blocks per sample batch.
pub const BLOCKS_PER_BATCH: u64 = 2;
/// Largest sample index; building batch `n` executes all `n` of them.
pub const INDEX_MAX: u64 = 10_000;
/// Time of the genesis block, seconds since 1970.
pub const GENESIS_TIMESTAMP: u64 = 1_760_000_000;
/// Gas limit of every block.
pub const GAS_LIMIT: u64 = 30_000_000;
/// Extra data of the genesis block.
pub const GENESIS_EXTRA_DATA: &[u8] = b"assay sample genesis";
/// Seconds between blocks.
const BLOCK_TIME: u64 = 12;
/// Receiver of the fees.
const BENEFICIARY: Address = address!("00000000000000000000000000000000000fee00");
/// The ERC-20 token, in place from genesis on.
pub const TOKEN: Address = address!("00000000000000000000000000000000000e4c20");
/// Wei per gas offered by every transaction.
const GAS_PRICE: u128 = 2_000_000_000;
/// Transactions each account sends per batch.
const NONCES_PER_BATCH: u64 = 2;

/// One ether, in wei.
fn ether(count: u64) -> U256 {
    U256::from(count) * U256::from(1_000_000_000_000_000_000u64)
}

/// The accounts at genesis: the four system contracts of Prague, four accounts with 1000 ether each, and the token, whose
/// whole supply of a million (18 decimals) belongs to the first account.
pub fn alloc() -> Alloc {
    let mut alloc = genesis::system_contracts();
    for wallet in Wallet::all() {
        let account = GenesisAccount { balance: ether(1_000), ..Default::default() };
        alloc.insert(wallet.address(), account);
    }
    let supply = ether(1_000_000);
    let holder = Wallet::new(0).address();
    let storage =
        BTreeMap::from([(contracts::balance_slot(holder), supply), (contracts::TOTAL_SUPPLY_SLOT, supply)]);
    let token = GenesisAccount { nonce: 1, code: contracts::erc20(), storage, ..Default::default() };
    alloc.insert(TOKEN, token);
    alloc
}

/// The sample chain at genesis.
///
/// # Errors
/// None in practice; see [`Chain::new`].
pub fn genesis_chain() -> Result<Chain, BatchError> {
    Chain::new(ChainSpec::assay(), &alloc(), |root| {
        genesis::header(root, GENESIS_TIMESTAMP, GAS_LIMIT, GENESIS_EXTRA_DATA)
    })
}

/// The state at genesis, whose commitment is leaf 0 of the code control group.
///
/// # Errors
/// None in practice; see [`Chain::new`].
pub fn genesis_state() -> Result<ChainState, BatchError> {
    genesis_chain()?.state_after(0).ok_or(BatchError::NoBlocks)
}

/// Sample batch `index`, from 1 on. Deterministic: the same bytes everywhere.
///
/// # Errors
/// `NoBlocks` for index 0, `Oversize` beyond [`INDEX_MAX`].
pub fn batch(index: u64) -> Result<Batch, BatchError> {
    chain(index)?.batch(BLOCKS_PER_BATCH * (index - 1) + 1, BLOCKS_PER_BATCH * index)
}

/// The sample chain up to and including batch `batches`.
///
/// # Errors
/// `NoBlocks` for 0, `Oversize` beyond [`INDEX_MAX`].
pub fn chain(batches: u64) -> Result<Chain, BatchError> {
    if batches == 0 {
        return Err(BatchError::NoBlocks);
    }
    if batches > INDEX_MAX {
        return Err(BatchError::Oversize { item: "sample index", limit: INDEX_MAX, got: batches });
    }
    let mut chain = genesis_chain()?;
    for index in 1..=batches {
        for transactions in transactions(index) {
            let attributes = attributes(chain.tip() + 1);
            chain.append(&attributes, transactions)?;
        }
    }
    Ok(chain)
}

fn attributes(number: u64) -> BlockAttributes {
    BlockAttributes {
        timestamp: GENESIS_TIMESTAMP + BLOCK_TIME * number,
        beneficiary: BENEFICIARY,
        gas_limit: GAS_LIMIT,
        prev_randao: B256::with_last_byte(number as u8),
        extra_data: Bytes::from_static(b"assay sample"),
        ..Default::default()
    }
}

/// The transactions of a batch, block by block.
fn transactions(index: u64) -> [Vec<Transaction>; BLOCKS_PER_BATCH as usize] {
    let [alice, bob, carol, dave] = Wallet::all();
    let first = NONCES_PER_BATCH * (index - 1);
    let counter = carol.address().create(first);
    let coins = |count: u64| ether(count);
    let transfer = |to: &Wallet, count| contracts::transfer_call(to.address(), coins(count));
    [
        vec![
            alice.sign(legacy(first, bob.address(), ether(1))),
            bob.sign(eip1559(first, TxKind::Call(carol.address()), ether(1), Bytes::new())),
            carol.sign(eip1559(first, TxKind::Create, U256::ZERO, contracts::counter_init(index))),
            alice.sign(eip1559(first + 1, TxKind::Call(TOKEN), U256::ZERO, transfer(&bob, 25))),
        ],
        vec![
            bob.sign(eip2930(first + 1, contracts::approve_call(carol.address(), coins(10)), &carol, &bob)),
            carol.sign(eip1559(
                first + 1,
                TxKind::Call(TOKEN),
                U256::ZERO,
                contracts::transfer_from_call(bob.address(), dave.address(), coins(10)),
            )),
            // More than Dave ever has: reverts, and pays for its gas all the same.
            dave.sign(eip1559(first, TxKind::Call(TOKEN), U256::ZERO, transfer(&alice, 2_000_000))),
            dave.sign(eip1559(first + 1, TxKind::Call(counter), U256::ZERO, Bytes::new())),
        ],
    ]
}

fn legacy(nonce: u64, to: Address, value: U256) -> TxLegacy {
    TxLegacy {
        chain_id: Some(ChainSpec::ASSAY_CHAIN_ID),
        nonce,
        gas_price: GAS_PRICE,
        gas_limit: 21_000,
        to: TxKind::Call(to),
        value,
        input: Bytes::new(),
    }
}

fn eip1559(nonce: u64, to: TxKind, value: U256, input: Bytes) -> TxEip1559 {
    TxEip1559 {
        chain_id: ChainSpec::ASSAY_CHAIN_ID,
        nonce,
        gas_limit: 120_000,
        max_fee_per_gas: GAS_PRICE,
        max_priority_fee_per_gas: 1_000_000_000,
        to,
        value,
        access_list: AccessList::default(),
        input,
    }
}

/// An approval that names the slot it writes in its access list.
fn eip2930(nonce: u64, input: Bytes, spender: &Wallet, owner: &Wallet) -> TxEip2930 {
    let slot = contracts::allowance_slot(owner.address(), spender.address());
    let item = AccessListItem { address: TOKEN, storage_keys: vec![B256::from(slot)] };
    TxEip2930 {
        chain_id: ChainSpec::ASSAY_CHAIN_ID,
        nonce,
        gas_price: GAS_PRICE,
        gas_limit: 120_000,
        to: TxKind::Call(TOKEN),
        value: U256::ZERO,
        access_list: AccessList(vec![item]),
        input,
    }
}
