//! The state transition: one block on a state, and a run of blocks on a witness.

mod receipts;
mod seal;

use alloc::{borrow::Cow, string::ToString, vec::Vec};

use alloy_consensus::{transaction::Recovered, transaction::SignerRecoverable, Header, ReceiptEnvelope};
use alloy_evm::{
    block::{BlockExecutionError, BlockExecutionResult, BlockExecutor, BlockValidationError},
    eth::{EthBlockExecutionCtx, EthBlockExecutor, EthEvmFactory},
    EvmEnv, EvmFactory,
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{keccak256, Address, Bloom, B256};
use revm::database::{states::bundle_state::BundleRetention, BundleState, State};

use self::receipts::Receipts;
pub use self::seal::{seal_block, BlockAttributes, SealedBlock};
use crate::{
    block::{decode_all, Block, Transaction},
    consensus::{check_against_parent, check_header},
    database::StateDb,
    error::{Commitment, HeaderError, StfError},
    input::{Ancestry, RunInput},
    phase::{in_phase, Phase, PhaseSink},
    public_values::BlockPublicValues,
    spec::ChainSpec,
    state::ChainState,
    store::WitnessStore,
    trie::ordered_root,
};

/// Largest RLP of a block since Osaka, bytes (EIP-7934).
pub const BLOCK_SIZE_MAX: usize = 8 * 1024 * 1024;

/// What a block is checked against: the block before it.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its header; without it the rules that compare the two headers are not checked.
    pub header: Option<Header>,
}

/// What a block left behind, besides the state.
#[derive(Debug, Clone)]
pub struct BlockOutcome {
    /// One receipt per transaction.
    pub receipts: Vec<ReceiptEnvelope>,
    /// Gas used by the block.
    pub gas_used: u64,
    /// Root of the account trie after it.
    pub state_root: B256,
}

/// A run as it was executed.
#[derive(Debug, Clone)]
pub struct RunOutput {
    /// What the block proof states.
    pub public_values: BlockPublicValues,
    /// The state the run started from.
    pub from: ChainState,
    /// The state it led to.
    pub to: ChainState,
    /// Gas used by all blocks.
    pub gas_used: u64,
}

/// Executes one block on `db`, checking everything its header commits to, and moves `db` to the state after it.
///
/// Checked: the header by itself and against `parent`; the roots over transactions, ommers and withdrawals; every
/// signature; gas used, receipts root, logs bloom, blob gas, requests hash; the state root. Not checked: proof-of-work
/// seals, and ommers against their ancestors ([`crate::consensus::check_ommers`] is the caller's to use before Paris).
///
/// # Errors
/// [`StfError`] with the first rule broken. `db` is then unusable.
pub fn execute_block(
    spec: &ChainSpec,
    db: &mut StateDb<'_, '_>,
    parent: &Parent,
    block: &Block<'_>,
    sink: &mut dyn PhaseSink,
) -> Result<BlockOutcome, StfError> {
    let header = &block.header;
    let number = header.number;
    in_phase(sink, Phase::Header, || check_block(spec, parent, block))?;
    let senders = in_phase(sink, Phase::Senders, || recover_senders(spec, block))?;
    let (result, changes) = in_phase(sink, Phase::Execution, || transact(spec, db, block, &senders))?;
    if result.gas_used != header.gas_used {
        return Err(StfError::GasUsed { number, expected: header.gas_used, got: result.gas_used });
    }
    in_phase(sink, Phase::Receipts, || check_result(header, &result))?;
    let clear_empty = spec.is_spurious_dragon_active_at_block(number);
    let state_root = in_phase(sink, Phase::StateRoot, || db.apply(changes, clear_empty))
        .map_err(|source| StfError::Witness { number, source })?;
    expect(number, Commitment::StateRoot, header.state_root, state_root)?;
    db.push_block_hash(number, block.hash);
    Ok(BlockOutcome { receipts: result.receipts, gas_used: result.gas_used, state_root })
}

/// Executes a run of blocks on its witness: the whole of the `block` guest program.
///
/// # Errors
/// [`StfError`] with the first thing wrong; `Unsupported` for blocks before Paris, whose ommers and seals a witness
/// cannot vouch for.
pub fn execute_run(input: &RunInput<'_>, sink: &mut dyn PhaseSink) -> Result<RunOutput, StfError> {
    let spec = &input.spec;
    let spec_hash = spec.hash();
    let (mut parent, state_root, hashes) = anchor(&input.ancestry)?;
    let state = |number: u64, block_hash: B256, state_root: B256| ChainState {
        chain_id: spec.chain_id,
        spec_hash,
        block_number: number,
        block_hash,
        state_root,
    };
    let from = state(parent.number, parent.hash, state_root);
    let mut store = in_phase(sink, Phase::Witness, || WitnessStore::new(&input.nodes, &input.codes));
    let mut db = StateDb::new(&mut store, state_root, parent.number, hashes);
    let mut batch_acc = input.from_batch_acc;
    let mut gas_used: u64 = 0;
    let mut to = None;
    for raw in &input.blocks {
        let block = in_phase(sink, Phase::Header, || Block::decode(raw))?;
        let number = block.header.number;
        if !spec.is_paris_active_at_block(number) {
            return Err(StfError::Unsupported { number, reason: "runs before paris cannot be proved" });
        }
        let outcome = execute_block(spec, &mut db, &parent, &block, sink)?;
        batch_acc = accumulate(&batch_acc, &block.hash);
        gas_used = gas_used.saturating_add(outcome.gas_used);
        to = Some(state(number, block.hash, outcome.state_root));
        parent = Parent { number, hash: block.hash, header: Some(block.header) };
    }
    let to = to.ok_or(StfError::EmptyRun)?;
    let public_values = BlockPublicValues {
        linked: matches!(input.ancestry, Ancestry::Headers(_)),
        first_block: from.block_number.saturating_add(1),
        last_block: to.block_number,
        from_state: from.commitment(),
        to_state: to.commitment(),
        from_batch_acc: input.from_batch_acc,
        to_batch_acc: batch_acc,
    };
    Ok(RunOutput { public_values, from, to, gas_used })
}

/// The next value of a batch's accumulator: `keccak256(acc || block hash)`, from zero at the start of a batch.
pub fn accumulate(acc: &B256, block_hash: &B256) -> B256 {
    let mut both = [0; 64];
    both[..32].copy_from_slice(acc.as_slice());
    both[32..].copy_from_slice(block_hash.as_slice());
    keccak256(both)
}

/// The parent, its state root, and the hashes of known ancestors, newest first.
fn anchor(ancestry: &Ancestry<'_>) -> Result<(Parent, B256, Vec<B256>), StfError> {
    match ancestry {
        Ancestry::Headers(raws) => link_headers(raws),
        Ancestry::Assumed { number, state_root, hashes } => {
            let hash = *hashes.first().ok_or(StfError::Ancestor { index: 0, reason: "no parent hash" })?;
            Ok((Parent { number: *number, hash, header: None }, *state_root, hashes.clone()))
        }
    }
}

/// Checks that each header is the parent of the one before and yields their hashes, and that of the last one's parent.
fn link_headers(raws: &[&[u8]]) -> Result<(Parent, B256, Vec<B256>), StfError> {
    let first = raws.first().ok_or(StfError::Ancestor { index: 0, reason: "no parent header" })?;
    let header: Header = decode_all(first, "parent header")?;
    let number = header.number;
    let parent = Parent { number, hash: keccak256(first), header: Some(header.clone()) };
    let mut hashes = alloc::vec![parent.hash, header.parent_hash];
    let mut child = header.clone();
    for (index, raw) in raws.iter().enumerate().skip(1) {
        if keccak256(raw) != child.parent_hash {
            return Err(StfError::Ancestor { index, reason: "not the parent of the header before" });
        }
        let ancestor: Header = decode_all(raw, "ancestor header")?;
        if ancestor.number.checked_add(1) != Some(child.number) {
            return Err(StfError::Ancestor { index, reason: "number does not descend by one" });
        }
        hashes.push(ancestor.parent_hash);
        child = ancestor;
    }
    Ok((parent, header.state_root, hashes))
}

/// Checks a block as far as that is possible without executing it.
fn check_block(spec: &ChainSpec, parent: &Parent, block: &Block<'_>) -> Result<(), StfError> {
    let header = &block.header;
    let number = header.number;
    check_links(spec, parent, header).map_err(|source| StfError::Header { number, source })?;
    check_body(spec, block).map_err(|source| StfError::Header { number, source })?;
    if !spec.is_byzantium_active_at_block(number) {
        // Receipts held a state root per transaction then.
        return Err(StfError::Unsupported { number, reason: "rules before byzantium" });
    }
    let expected = header.transactions_root;
    expect(number, Commitment::TransactionsRoot, expected, ordered_root(&block.transactions_raw))?;
    expect(number, Commitment::OmmersHash, header.ommers_hash, keccak256(block.ommers_raw))?;
    if let Some(expected) = header.withdrawals_root {
        expect(number, Commitment::WithdrawalsRoot, expected, ordered_root(&block.withdrawals_raw))?;
    }
    Ok(())
}

fn check_links(spec: &ChainSpec, parent: &Parent, header: &Header) -> Result<(), HeaderError> {
    if header.parent_hash != parent.hash {
        return Err(HeaderError::ParentHash { expected: parent.hash, got: header.parent_hash });
    }
    let expected = parent.number.checked_add(1).ok_or(HeaderError::Parent { reason: "number overflows" })?;
    if header.number != expected {
        return Err(HeaderError::Number { expected, got: header.number });
    }
    check_header(spec, header)?;
    match &parent.header {
        Some(parent) => check_against_parent(spec, header, parent),
        None => Ok(()),
    }
}

fn check_body(spec: &ChainSpec, block: &Block<'_>) -> Result<(), HeaderError> {
    let header = &block.header;
    let required = spec.is_shanghai_active_at_timestamp(header.timestamp);
    if block.withdrawals.is_some() != required {
        return Err(HeaderError::Presence { field: "withdrawals", required });
    }
    if !spec.beacon_chain && block.withdrawals.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(HeaderError::NoBeaconChain { field: "withdrawals" });
    }
    if block.ommers.len() > 2 {
        return Err(HeaderError::Ommers { reason: "more than two" });
    }
    if block.size > BLOCK_SIZE_MAX && spec.is_osaka_active_at_timestamp(header.timestamp) {
        return Err(HeaderError::Size { max: BLOCK_SIZE_MAX, got: block.size });
    }
    Ok(())
}

/// Recovers the sender of every transaction from its signature.
fn recover_senders(spec: &ChainSpec, block: &Block<'_>) -> Result<Vec<Address>, StfError> {
    let number = block.header.number;
    let homestead = spec.is_homestead_active_at_block(number);
    let recover = |(index, transaction): (usize, &Transaction)| {
        let sender =
            if homestead { transaction.recover_signer() } else { transaction.recover_signer_unchecked() };
        sender.map_err(|_| StfError::Signature { number, index })
    };
    block.transactions.iter().enumerate().map(recover).collect()
}

/// Runs the system calls, the transactions and the withdrawals, and returns what they changed.
fn transact(
    spec: &ChainSpec,
    db: &mut StateDb<'_, '_>,
    block: &Block<'_>,
    senders: &[Address],
) -> Result<(BlockExecutionResult<ReceiptEnvelope>, BundleState), StfError> {
    let number = block.header.number;
    let mut state = State::builder().with_database(&mut *db).with_bundle_update().build();
    let result = run_transactions(spec, &mut state, block, senders);
    state.merge_transitions(BundleRetention::PlainState);
    let changes = state.take_bundle();
    drop(state);
    // An error of the database may have become text, or even have been swallowed, on its way through the EVM.
    match db.take_fault() {
        Some(source) => Err(StfError::Witness { number, source }),
        None => Ok((result?, changes)),
    }
}

fn run_transactions(
    spec: &ChainSpec,
    state: &mut State<&mut StateDb<'_, '_>>,
    block: &Block<'_>,
    senders: &[Address],
) -> Result<BlockExecutionResult<ReceiptEnvelope>, StfError> {
    let header = &block.header;
    let number = header.number;
    let env = EvmEnv::for_eth_block(header, spec, spec.chain_id, spec.blob_params(header.timestamp));
    let context = EthBlockExecutionCtx {
        parent_hash: header.parent_hash,
        parent_beacon_block_root: header.parent_beacon_block_root,
        ommers: &block.ommers,
        withdrawals: block.withdrawals.as_deref().map(Cow::Borrowed),
        extra_data: header.extra_data.clone(),
        tx_count_hint: Some(senders.len()),
        slot_number: None,
    };
    let evm = EthEvmFactory::default().create_evm(state, env);
    let mut executor = EthBlockExecutor::new(evm, context, spec, Receipts);
    executor.apply_pre_execution_changes().map_err(|error| system_error(number, &error))?;
    for (index, (transaction, sender)) in block.transactions.iter().zip(senders).enumerate() {
        executor
            .execute_transaction(Recovered::new_unchecked(transaction, *sender))
            .map_err(|error| transaction_error(number, index, error))?;
    }
    let (_, result) = executor.finish().map_err(|error| system_error(number, &error))?;
    Ok(result)
}

fn system_error(number: u64, error: &BlockExecutionError) -> StfError {
    StfError::System { number, detail: error.to_string() }
}

fn transaction_error(number: u64, index: usize, error: BlockExecutionError) -> StfError {
    match error {
        BlockExecutionError::Validation(BlockValidationError::InvalidTx { error, .. }) => {
            match error.as_invalid_tx_err() {
                Some(reason) => StfError::Transaction { number, index, reason: reason.clone() },
                None => StfError::System { number, detail: error.to_string() },
            }
        }
        BlockExecutionError::Validation(
            BlockValidationError::TransactionGasLimitMoreThanAvailableBlockGas {
                transaction_gas_limit: got,
                block_available_gas: available,
            },
        ) => StfError::BlockGas { number, index, available, got },
        other => system_error(number, &other),
    }
}

/// Checks what the header says about the outcome, the state aside.
fn check_result(header: &Header, result: &BlockExecutionResult<ReceiptEnvelope>) -> Result<(), StfError> {
    let number = header.number;
    let mut bloom = Bloom::ZERO;
    result.receipts.iter().for_each(|receipt| bloom |= *receipt.logs_bloom());
    if bloom != header.logs_bloom {
        let (expected, got) = (keccak256(header.logs_bloom), keccak256(bloom));
        return Err(StfError::Mismatch { number, what: Commitment::LogsBloom, expected, got });
    }
    let root = alloy_consensus::proofs::calculate_receipt_root(&result.receipts);
    expect(number, Commitment::ReceiptsRoot, header.receipts_root, root)?;
    match header.blob_gas_used {
        Some(expected) if expected != result.blob_gas_used => {
            return Err(StfError::BlobGasUsed { number, expected, got: result.blob_gas_used });
        }
        _ => {}
    }
    match header.requests_hash {
        Some(expected) => expect(number, Commitment::RequestsHash, expected, result.requests.requests_hash()),
        None => Ok(()),
    }
}

fn expect(number: u64, what: Commitment, expected: B256, got: B256) -> Result<(), StfError> {
    if expected == got {
        return Ok(());
    }
    Err(StfError::Mismatch { number, what, expected, got })
}
