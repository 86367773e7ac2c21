//! The state as the EVM sees it: accounts, storage, codes and block hashes over sparse tries.

use alloc::{borrow::ToOwned, vec::Vec};

use alloy_primitives::{keccak256, map::AddressMap, map::B256Map, Address, Bytes, B256, U256};
use alloy_rlp::{Decodable, Encodable, Header};
use revm::{
    bytecode::Bytecode,
    database::{BundleAccount, BundleState},
    primitives::KECCAK_EMPTY,
    state::AccountInfo,
    Database,
};

use crate::{
    error::WitnessError,
    store::NodeStore,
    trie::{nibbles, Nibbles, Trie, EMPTY_ROOT},
};

/// An account as the account trie holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Transactions sent or contracts created.
    pub nonce: u64,
    /// Balance, wei.
    pub balance: U256,
    /// Root of the storage trie.
    pub storage_root: B256,
    /// Keccak-256 of the code.
    pub code_hash: B256,
}

impl Account {
    /// RLP of `[nonce, balance, storage root, code hash]`.
    pub fn encode(&self) -> Vec<u8> {
        let payload_length = self.nonce.length() + self.balance.length() + 66;
        let mut out = Vec::with_capacity(payload_length + 3);
        Header { list: true, payload_length }.encode(&mut out);
        self.nonce.encode(&mut out);
        self.balance.encode(&mut out);
        self.storage_root.encode(&mut out);
        self.code_hash.encode(&mut out);
        out
    }

    /// Decodes what [`Self::encode`] writes.
    ///
    /// # Errors
    /// `IllFormedAccount` for anything else.
    pub fn decode(raw: &[u8]) -> Result<Self, WitnessError> {
        Self::decode_rlp(raw).map_err(|_| WitnessError::IllFormedAccount)
    }

    fn decode_rlp(mut raw: &[u8]) -> alloy_rlp::Result<Self> {
        let header = Header::decode(&mut raw)?;
        if !header.list || raw.len() != header.payload_length {
            return Err(alloy_rlp::Error::UnexpectedLength);
        }
        let account = Self {
            nonce: u64::decode(&mut raw)?,
            balance: U256::decode(&mut raw)?,
            storage_root: B256::decode(&mut raw)?,
            code_hash: B256::decode(&mut raw)?,
        };
        if !raw.is_empty() {
            return Err(alloy_rlp::Error::UnexpectedLength);
        }
        Ok(account)
    }
}

/// What is known of an address.
#[derive(Debug)]
struct Entry<'a> {
    key: Nibbles,
    account: Option<Account>,
    /// Opened at the first access to storage.
    storage: Option<Trie<'a>>,
}

/// Hashes of recent blocks, oldest first.
#[derive(Debug, Clone, Default)]
struct RecentHashes {
    hashes: Vec<B256>,
    newest: u64,
}

impl RecentHashes {
    fn get(&self, number: u64) -> Option<B256> {
        let back = usize::try_from(self.newest.checked_sub(number)?).ok()?;
        let index = self.hashes.len().checked_sub(1)?.checked_sub(back)?;
        self.hashes.get(index).copied()
    }
}

/// State after the last executed block, read through a [`NodeStore`].
///
/// The store is a trait object, not a type parameter: so the EVM, which is generic over this type, is compiled once.
#[derive(Debug)]
pub struct StateDb<'s, 'a> {
    store: &'s mut (dyn NodeStore<'a> + 's),
    accounts: Trie<'a>,
    entries: AddressMap<Entry<'a>>,
    codes: B256Map<Bytecode>,
    recent: RecentHashes,
    oldest_read: Option<u64>,
    fault: Option<WitnessError>,
}

impl<'s, 'a> StateDb<'s, 'a> {
    /// The state with this root after block `number`. `hashes` are those of that block and its ancestors, newest
    /// first, as far as they are known.
    pub fn new(
        store: &'s mut (dyn NodeStore<'a> + 's),
        state_root: B256,
        number: u64,
        mut hashes: Vec<B256>,
    ) -> Self {
        hashes.reverse();
        Self {
            store,
            accounts: Trie::new(state_root),
            entries: AddressMap::default(),
            codes: B256Map::default(),
            recent: RecentHashes { hashes, newest: number },
            oldest_read: None,
            fault: None,
        }
    }

    /// Lowest block number whose hash was asked for so far.
    pub const fn oldest_block_hash_read(&self) -> Option<u64> {
        self.oldest_read
    }

    /// The account at `address`, if there is one.
    ///
    /// # Errors
    /// [`WitnessError`] if its path in the account trie is not known.
    pub fn account(&mut self, address: Address) -> Result<Option<Account>, WitnessError> {
        Ok(self.entry(address)?.0.account)
    }

    /// The value of a storage slot; zero if it was never set.
    ///
    /// # Errors
    /// [`WitnessError`] if a node on the way to it is not known.
    pub fn slot(&mut self, address: Address, slot: U256) -> Result<U256, WitnessError> {
        let (entry, store) = self.entry(address)?;
        let root = entry.account.map_or(EMPTY_ROOT, |account| account.storage_root);
        let trie = entry.storage.get_or_insert_with(|| Trie::new(root));
        match trie.get(&slot_key(slot), store)? {
            Some(mut raw) => {
                let value = U256::decode(&mut raw).map_err(|_| WitnessError::IllFormedSlot)?;
                if raw.is_empty() {
                    Ok(value)
                } else {
                    Err(WitnessError::IllFormedSlot)
                }
            }
            None => Ok(U256::ZERO),
        }
    }

    /// Appends a block to the ones BLOCKHASH can see.
    pub(crate) fn push_block_hash(&mut self, number: u64, hash: B256) {
        self.recent.hashes.push(hash);
        self.recent.newest = number;
    }

    /// The first error a read met since the last call. The EVM turns errors of its database into text at some places;
    /// this keeps the type.
    pub(crate) fn take_fault(&mut self) -> Option<WitnessError> {
        self.fault.take()
    }

    /// Applies a block's changes and returns the new state root.
    ///
    /// Insertions come before removals in every trie, so that which siblings a collapse touches does not depend on the
    /// order of the changes. `clear_empty`: EIP-161 is active, so empty accounts do not exist.
    pub(crate) fn apply(&mut self, changes: BundleState, clear_empty: bool) -> Result<B256, WitnessError> {
        #[allow(clippy::iter_over_hash_type, reason = "each code goes to its own place")]
        for (hash, code) in changes.contracts {
            self.store.put_code(hash, &code.original_bytes());
            self.codes.insert(hash, code);
        }
        let mut removed = Vec::new();
        #[allow(clippy::iter_over_hash_type, reason = "the result does not depend on the order, see above")]
        for (address, change) in changes.state {
            match change.info.as_ref().filter(|info| !(clear_empty && info.is_empty())) {
                Some(info) => {
                    let account = self.apply_account(address, info, &change)?;
                    let entry = self.entries.get_mut(&address).ok_or(WitnessError::IllFormedAccount)?;
                    entry.account = Some(account);
                    self.accounts.insert(&entry.key, account.encode(), &mut *self.store)?;
                }
                None => removed.push(address),
            }
        }
        for address in removed {
            let (entry, _) = self.entry(address)?;
            entry.account = None;
            entry.storage = None;
            let key = entry.key;
            self.accounts.remove(&key, &mut *self.store)?;
        }
        Ok(self.accounts.root(&mut *self.store))
    }

    /// Applies the storage changes of an account that stays; returns its new leaf.
    fn apply_account(
        &mut self,
        address: Address,
        info: &AccountInfo,
        change: &BundleAccount,
    ) -> Result<Account, WitnessError> {
        let destroyed = change.was_destroyed();
        let (entry, store) = self.entry(address)?;
        let mut storage_root = entry.account.map_or(EMPTY_ROOT, |account| account.storage_root);
        if destroyed {
            storage_root = EMPTY_ROOT;
            entry.storage = Some(Trie::new(EMPTY_ROOT));
        }
        if destroyed || change.storage.values().any(|slot| slot.is_changed()) {
            let trie = entry.storage.get_or_insert_with(|| Trie::new(storage_root));
            let mut cleared = Vec::new();
            #[allow(
                clippy::iter_over_hash_type,
                reason = "the result does not depend on the order, see `apply`"
            )]
            for (slot, value) in &change.storage {
                if !destroyed && !value.is_changed() {
                    continue;
                }
                let key = slot_key(*slot);
                if value.present_value.is_zero() {
                    cleared.push(key);
                } else {
                    trie.insert(&key, alloy_rlp::encode(value.present_value), store)?;
                }
            }
            for key in cleared {
                trie.remove(&key, store)?;
            }
            storage_root = trie.root(store);
        }
        Ok(Account { nonce: info.nonce, balance: info.balance, storage_root, code_hash: info.code_hash })
    }

    /// What is known of `address`, read from the account trie at first.
    fn entry(
        &mut self,
        address: Address,
    ) -> Result<(&mut Entry<'a>, &mut (dyn NodeStore<'a> + 's)), WitnessError> {
        use alloy_primitives::map::Entry::{Occupied, Vacant};
        let entry = match self.entries.entry(address) {
            Occupied(entry) => entry.into_mut(),
            Vacant(place) => {
                let key = nibbles(&keccak256(address));
                let account = self.accounts.get(&key, &mut *self.store)?.map(Account::decode).transpose()?;
                place.insert(Entry { key, account, storage: None })
            }
        };
        Ok((entry, &mut *self.store))
    }

    fn load_code(&mut self, hash: B256) -> Result<Bytecode, WitnessError> {
        if hash == KECCAK_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.codes.get(&hash) {
            return Ok(code.clone());
        }
        let raw = self.store.code(&hash).ok_or(WitnessError::MissingCode { hash })?;
        let code = Bytecode::new_raw_checked(Bytes::from(raw.to_owned()))
            .map_err(|_| WitnessError::IllFormedCode { hash })?;
        self.codes.insert(hash, code.clone());
        Ok(code)
    }

    /// Keeps the first error for [`Self::take_fault`].
    fn noting<T>(&mut self, result: Result<T, WitnessError>) -> Result<T, WitnessError> {
        if let Err(error) = &result {
            self.fault.get_or_insert_with(|| error.clone());
        }
        result
    }
}

/// Key of a slot in the storage trie.
fn slot_key(slot: U256) -> Nibbles {
    nibbles(&keccak256(slot.to_be_bytes::<32>()))
}

impl Database for StateDb<'_, '_> {
    type Error = WitnessError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        let account = self.account(address);
        // `code: None` makes the EVM ask for the code by its hash; the default would say that there is none.
        Ok(self.noting(account)?.map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            code: None,
            ..Default::default()
        }))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Self::Error> {
        let code = self.load_code(hash);
        self.noting(code)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        let value = self.slot(address, slot);
        self.noting(value)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        let oldest = self.oldest_read.map_or(number, |oldest| oldest.min(number));
        self.oldest_read = Some(oldest);
        let hash = self.recent.get(number).ok_or(WitnessError::MissingAncestor { number });
        self.noting(hash)
    }
}
