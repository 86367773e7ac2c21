//! The state and the header a chain starts from.

use std::collections::BTreeMap;

use alloy_consensus::{
    constants::{EMPTY_WITHDRAWALS, KECCAK_EMPTY},
    Header,
};
use alloy_eips::{
    eip1559::INITIAL_BASE_FEE, eip2935, eip4788, eip7002, eip7251, eip7685::EMPTY_REQUESTS_HASH,
};
use alloy_primitives::{keccak256, Address, Bytes, B256, U256};
use assay_lvm_core::{nibbles, Account, Trie, TrieError, EMPTY_ROOT};

use crate::state_db::{FullState, RecordingStore};

/// An account at genesis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenesisAccount {
    /// Balance, wei.
    pub balance: U256,
    /// Nonce.
    pub nonce: u64,
    /// Code; empty for none.
    pub code: Bytes,
    /// Storage slots; zero values are left out of the trie.
    pub storage: BTreeMap<U256, U256>,
}

/// The accounts of a genesis state.
pub type Alloc = BTreeMap<Address, GenesisAccount>;

/// Writes the tries of `alloc` into `state` and returns the state root.
///
/// # Errors
/// None in practice: a trie built from nothing reads no node. The type is kept so that nothing needs to panic.
pub fn write_alloc(alloc: &Alloc, state: &mut FullState) -> Result<B256, TrieError> {
    let empty = FullState::default();
    let mut store = RecordingStore::new(&empty);
    let mut accounts = Trie::new(EMPTY_ROOT);
    for (address, account) in alloc {
        let mut storage = Trie::new(EMPTY_ROOT);
        for (slot, value) in account.storage.iter().filter(|(_, value)| !value.is_zero()) {
            let key = nibbles(&keccak256(slot.to_be_bytes::<32>()));
            storage.insert(&key, alloy_rlp::encode(value), &mut store)?;
        }
        let code_hash = if account.code.is_empty() { KECCAK_EMPTY } else { state.add_code(&account.code) };
        let leaf = Account {
            nonce: account.nonce,
            balance: account.balance,
            storage_root: storage.root(&mut store),
            code_hash,
        };
        accounts.insert(&nibbles(&keccak256(address)), leaf.encode(), &mut store)?;
    }
    let root = accounts.root(&mut store);
    let (_, made) = store.finish();
    state.absorb(made);
    Ok(root)
}

/// The contracts that protocol calls need under Prague rules: EIP-4788, EIP-2935, EIP-7002, EIP-7251.
pub fn system_contracts() -> Alloc {
    let contracts: [(Address, &Bytes); 4] = [
        (eip4788::BEACON_ROOTS_ADDRESS, &eip4788::BEACON_ROOTS_CODE),
        (eip2935::HISTORY_STORAGE_ADDRESS, &eip2935::HISTORY_STORAGE_CODE),
        (eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE),
        (eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE),
    ];
    let account = |code: &Bytes| GenesisAccount { nonce: 1, code: code.clone(), ..Default::default() };
    contracts.into_iter().map(|(address, code)| (address, account(code))).collect()
}

/// The genesis header of an Assay chain: Prague fields, number 0, everything else empty or at its initial value.
pub fn header(state_root: B256, timestamp: u64, gas_limit: u64, extra_data: &'static [u8]) -> Header {
    Header {
        state_root,
        timestamp,
        gas_limit,
        extra_data: Bytes::from_static(extra_data),
        base_fee_per_gas: Some(INITIAL_BASE_FEE),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}
