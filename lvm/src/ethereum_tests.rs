//! Runs the block tests of the `ethereum/tests` repository (folder `BlockchainTests`).
//!
//! Every block of a case is accepted or rejected as the file says; the tip and the state after it are compared with the
//! file's. Each accepted block since Paris is executed a second time on its recorded witness alone, through the same
//! entry point as the guest.

mod fork;

use std::{collections::BTreeMap, path::Path};

use alloy_consensus::Header;
use alloy_primitives::{B256, U256};
use assay_lvm_core::{
    consensus::{check_ommers, KnownAncestor},
    execute_block, execute_run, Ancestry, Block, ChainSpec, Parent, RunInput, StateDb, StfError,
};

use self::fork::{network, Network};
use crate::{
    error::BatchError,
    genesis::{write_alloc, Alloc, GenesisAccount},
    json::{self, Json},
    record::Trim,
    state_db::{FullState, RecordingStore, Touched},
};

/// BLOCKHASH reaches this far, and so do the headers given to a witness.
const ANCESTORS: usize = 256;

/// What running cases found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Cases run.
    pub cases: usize,
    /// Blocks accepted, as the files say.
    pub accepted: usize,
    /// Blocks rejected, as the files say.
    pub rejected: usize,
    /// Accepted blocks that were executed again on their witness alone.
    pub stateless: usize,
    /// Cases of networks this code has no rules for, with the network's name.
    pub skipped: BTreeMap<String, usize>,
    /// What went otherwise than a file says: case name and what happened.
    pub failures: Vec<(String, String)>,
}

impl Report {
    /// Adds another report to this one.
    pub fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.stateless += other.stateless;
        for (network, count) in other.skipped {
            *self.skipped.entry(network).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

/// Runs all cases of a file.
///
/// # Errors
/// `Io` or `Json` if the file is not a block test; what a case finds is in the report.
pub fn run_file(path: &Path) -> Result<Report, BatchError> {
    let value = json::read(path)?;
    let mut report = Report::default();
    for (name, case) in Json::new(&value, &path.display().to_string()).fields()? {
        if name.starts_with("_info") {
            continue;
        }
        let name_of_network = case.get(&["network"])?.text()?;
        let Some(network) = network(name_of_network) else {
            *report.skipped.entry(name_of_network.to_owned()).or_default() += 1;
            continue;
        };
        report.cases += 1;
        if let Err(failure) = run_case(&case, network, &mut report) {
            report.failures.push((name.to_owned(), failure));
        }
    }
    Ok(report)
}

/// A block that was accepted.
#[derive(Debug, Clone)]
struct Node {
    header: Header,
    raw: Vec<u8>,
    hash: B256,
    total_difficulty: U256,
    ommers: Vec<B256>,
}

/// The tree of accepted blocks of one case and all their states.
#[derive(Debug)]
struct Tree {
    network: Network,
    state: FullState,
    nodes: BTreeMap<B256, Node>,
}

/// Why a block was not added.
#[derive(Debug)]
enum Failure {
    /// The block breaks a rule.
    Rejected(BatchError),
    /// The block was accepted, but its witness does not do.
    Witness(String),
}

impl<E: Into<BatchError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Rejected(error.into())
    }
}

fn run_case(case: &Json<'_>, network: Network, report: &mut Report) -> Result<(), String> {
    let text = |error: BatchError| error.to_string();
    let mut tree = Tree::open(case, network).map_err(text)?;
    for (index, block) in case.get(&["blocks"]).map_err(text)?.items().map_err(text)?.iter().enumerate() {
        let expected = match block.maybe(&["expectException"]) {
            Some(exception) => Some(exception.text().map_err(text)?),
            None => None,
        };
        let outcome = match block.get(&["rlp"]).map_err(text)?.bytes() {
            Ok(raw) => tree.add(&raw),
            Err(error) => Err(Failure::Rejected(error)),
        };
        match (outcome, expected) {
            (Ok(stateless), None) => {
                report.accepted += 1;
                report.stateless += usize::from(stateless);
            }
            (Err(Failure::Rejected(_)), Some(_)) => report.rejected += 1,
            (Ok(_), Some(expected)) => return Err(format!("block {index}: accepted, expected {expected}")),
            (Err(Failure::Rejected(error)), None) => return Err(format!("block {index}: rejected: {error}")),
            (Err(Failure::Witness(what)), _) => return Err(format!("block {index}: witness: {what}")),
        }
    }
    tree.check_end(case)
}

impl Tree {
    /// The genesis of a case.
    fn open(case: &Json<'_>, network: Network) -> Result<Self, BatchError> {
        let mut state = FullState::default();
        let root = write_alloc(&alloc(&case.get(&["pre"])?)?, &mut state)
            .map_err(|error| StfError::Witness { number: 0, source: error.into() })?;
        let genesis = case.get(&["genesisRLP"])?;
        let raw = genesis.bytes()?;
        let header = Block::decode(&raw).map_err(StfError::from)?.header;
        let hash = case.get(&["genesisBlockHeader"])?.get(&["hash"])?.b256()?;
        if header.state_root != root || header.hash_slow() != hash {
            return Err(genesis.fail("does not match the accounts or the hash"));
        }
        let total_difficulty = header.difficulty;
        let node =
            Node { raw: alloy_rlp::encode(&header), header, hash, total_difficulty, ommers: Vec::new() };
        Ok(Self { network, state, nodes: BTreeMap::from([(hash, node)]) })
    }

    /// Executes a block on its parent's state and adds it; says whether it was executed on its witness as well.
    fn add(&mut self, raw: &[u8]) -> Result<bool, Failure> {
        let block = Block::decode(raw).map_err(StfError::from)?;
        let ancestors = self.ancestors(block.header.parent_hash);
        let Some(parent) = ancestors.first() else {
            let (expected, got) = (B256::ZERO, block.header.parent_hash);
            return Err(BatchError::WrongParent { expected, got }.into());
        };
        let number = block.header.number;
        let spec = self.network.spec(number, parent.total_difficulty);
        let paris = spec.block_forks[spec.block_forks.len() - 1] <= number;
        if !paris {
            let known = |node: &&Node| KnownAncestor {
                hash: node.hash,
                header: node.header.clone(),
                ommers: node.ommers.clone(),
            };
            let known: Vec<_> = ancestors.iter().take(8).map(known).collect();
            check_ommers(&spec, &block.ommers, &known)
                .map_err(|source| StfError::Header { number, source })?;
        }
        let hashes = ancestors.iter().map(|node| node.hash).collect();
        let header = parent.header.clone();
        let link = Parent { number: header.number, hash: parent.hash, header: Some(header) };
        let mut store = RecordingStore::new(&self.state);
        let mut db = StateDb::new(&mut store, parent.header.state_root, parent.header.number, hashes);
        execute_block(&spec, &mut db, &link, &block, &mut ())?;
        let oldest = db.oldest_block_hash_read();
        let (touched, made) = store.finish();
        if paris {
            check_stateless(&spec, raw, &block, &ancestors, oldest, touched).map_err(Failure::Witness)?;
        }
        let total_difficulty = parent.total_difficulty.saturating_add(block.header.difficulty);
        let node = Node {
            raw: alloy_rlp::encode(&block.header),
            hash: block.hash,
            total_difficulty,
            ommers: block.ommers.iter().map(Header::hash_slow).collect(),
            header: block.header,
        };
        self.state.absorb(made);
        self.nodes.insert(node.hash, node);
        Ok(paris)
    }

    /// The block with this hash and its ancestors, as many as matter.
    fn ancestors(&self, hash: B256) -> Vec<&Node> {
        let next = |node: &&Node| self.nodes.get(&node.header.parent_hash);
        std::iter::successors(self.nodes.get(&hash), next).take(ANCESTORS).collect()
    }

    /// Compares the tip and its state with the file's.
    fn check_end(&self, case: &Json<'_>) -> Result<(), String> {
        let text = |error: BatchError| error.to_string();
        let hash = case.get(&["lastblockhash"]).map_err(text)?.b256().map_err(text)?;
        let tip = self.nodes.get(&hash).ok_or(format!("last block {hash} was not accepted"))?;
        let expected = match case.maybe(&["postState"]) {
            Some(accounts) => {
                let alloc = alloc(&accounts).map_err(text)?;
                write_alloc(&alloc, &mut FullState::default()).map_err(|error| error.to_string())?
            }
            None => case.get(&["postStateHash"]).map_err(text)?.b256().map_err(text)?,
        };
        if tip.header.state_root != expected {
            return Err(format!("post state: expected {expected}, got {}", tip.header.state_root));
        }
        Ok(())
    }
}

/// Executes the block as a run of one, from nothing but its witness, through the bytes the guest gets.
fn check_stateless(
    spec: &ChainSpec,
    raw: &[u8],
    block: &Block<'_>,
    ancestors: &[&Node],
    oldest: Option<u64>,
    touched: Touched<'_>,
) -> Result<(), String> {
    let headers = Ancestry::Headers(ancestors.iter().map(|node| node.raw.as_slice()).collect());
    let ancestry = headers.trimmed(oldest).map_err(|error| error.to_string())?;
    let input = RunInput {
        spec: spec.clone(),
        ancestry: ancestry.as_ref(),
        from_batch_acc: B256::ZERO,
        blocks: vec![raw],
        nodes: touched.nodes.into_values().collect(),
        codes: touched.codes.into_values().collect(),
    }
    .encode();
    let input = RunInput::decode(&input).map_err(|error| error.to_string())?;
    let output = execute_run(&input, &mut ()).map_err(|error| error.to_string())?;
    if output.to.block_hash != block.hash || output.to.state_root != block.header.state_root {
        return Err("led to another state".to_owned());
    }
    Ok(())
}

fn alloc(accounts: &Json<'_>) -> Result<Alloc, BatchError> {
    let mut alloc = Alloc::new();
    for (address, account) in accounts.fields()? {
        let address = address.parse().map_err(|_| account.fail("key is no address"))?;
        let mut storage = BTreeMap::new();
        for (slot, value) in account.get(&["storage"])?.fields()? {
            let slot = if slot == "0x" { "0x0" } else { slot };
            storage.insert(slot.parse().map_err(|_| value.fail("key is no slot"))?, value.u256()?);
        }
        let genesis = GenesisAccount {
            balance: account.get(&["balance"])?.u256()?,
            nonce: account.get(&["nonce"])?.u64()?,
            code: account.get(&["code"])?.bytes()?,
            storage,
        };
        alloc.insert(address, genesis);
    }
    Ok(alloc)
}
