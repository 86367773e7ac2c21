//! A bitcoind over JSON-RPC: no wallet and no transaction index needed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, FeeRate, Network, OutPoint, Script, ScriptBuf, Transaction,
    TxMerkleNode, TxOut, Txid, Wtxid,
};
use serde::Deserialize;
use serde_json::{json, Value};

use super::rpc::RpcClient;
use super::{
    BackendError, BitcoinBackend, BlockInfo, ChainTip, FeeEstimate, RegtestMiner, RpcAuth, TxRecord, TxState,
    Utxo, FEE_TARGET_BLOCKS_MAX, PACKAGE_TRANSACTIONS_MAX,
};

/// Core: invalid address or key; here: no such block or transaction.
const RPC_NOT_FOUND: i64 = -5;
/// Core: a parameter is out of range; here: no such height.
const RPC_INVALID_PARAMETER: i64 = -8;
/// How long the scan of somebody else at the same node is waited for; on mainnet one takes minutes.
const SCAN_PATIENCE: Duration = Duration::from_secs(900);
/// Between two attempts at a scan.
const SCAN_POLL: Duration = Duration::from_millis(50);
/// Core: the transaction's inputs are missing or spent.
const RPC_MISSING_INPUTS: i64 = -25;
/// Core: rejected by consensus or policy.
const RPC_REJECTED: i64 = -26;
/// Core: the transaction's outputs are already in the coins.
const RPC_ALREADY_IN_CHAIN: i64 = -27;

/// The node back end.
#[derive(Debug)]
pub struct Bitcoind {
    rpc: RpcClient,
    network: Network,
}

#[derive(Deserialize)]
struct ChainInfo {
    chain: String,
    blocks: u32,
    bestblockhash: BlockHash,
    pruned: bool,
}

#[derive(Deserialize)]
struct RawTransaction {
    hex: String,
    blockhash: Option<BlockHash>,
}

#[derive(Deserialize)]
struct HeaderInfo {
    height: u32,
    /// -1 outside of the active chain.
    confirmations: i64,
    version: i32,
    merkleroot: TxMerkleNode,
    time: u32,
    nonce: u32,
    bits: String,
    /// None for the genesis block.
    previousblockhash: Option<BlockHash>,
}

impl HeaderInfo {
    fn header(&self) -> Option<Header> {
        Some(Header {
            version: Version::from_consensus(self.version),
            prev_blockhash: self.previousblockhash.unwrap_or_else(BlockHash::all_zeros),
            merkle_root: self.merkleroot,
            time: self.time,
            bits: CompactTarget::from_unprefixed_hex(&self.bits).ok()?,
            nonce: self.nonce,
        })
    }
}

#[derive(Deserialize)]
struct BlockIds {
    tx: Vec<Txid>,
}

#[derive(Deserialize)]
struct Estimate {
    feerate: Option<f64>,
    blocks: u16,
}

#[derive(Deserialize)]
struct MempoolInfo {
    /// The larger one of the relay minimum and the minimum of a full mempool, BTC/kvB.
    mempoolminfee: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PackageAnswer {
    #[serde(rename = "package_msg")]
    message: String,
    tx_results: BTreeMap<Wtxid, PackageResult>,
}

#[derive(Deserialize)]
struct PackageResult {
    error: Option<String>,
}

#[derive(Deserialize)]
struct Scan {
    success: bool,
    unspents: Vec<Unspent>,
}

#[derive(Deserialize)]
struct Unspent {
    txid: Txid,
    vout: u32,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: ScriptBuf,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    amount: Amount,
    height: u32,
    #[serde(default)]
    coinbase: bool,
}

impl Bitcoind {
    /// Connects to the node at `endpoint` (`host:port`) and asks for its network.
    ///
    /// # Errors
    /// `Unreachable`, `Unauthorised`, `Rpc`, `Malformed`.
    pub fn connect(endpoint: &str, auth: RpcAuth) -> Result<Self, BackendError> {
        let rpc = RpcClient::new(endpoint, auth);
        let info: ChainInfo = rpc.call_as("getblockchaininfo", json!([]))?;
        let network = Network::from_core_arg(&info.chain).map_err(|error| BackendError::Malformed {
            method: "getblockchaininfo".to_owned(),
            detail: error.to_string(),
        })?;
        Ok(Self { rpc, network })
    }

    /// Calls a method that has no function here, for operators' tools and tests; the result is what the node put under
    /// `result`.
    ///
    /// # Errors
    /// `Unreachable`, `Unauthorised`, `Rpc`, `Malformed`.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, BackendError> {
        self.rpc.call(method, params)
    }

    fn header_info(&self, hash: &BlockHash) -> Result<HeaderInfo, BackendError> {
        self.rpc.call_as("getblockheader", json!([hash, true])).map_err(|error| match error {
            BackendError::Rpc { code: RPC_NOT_FOUND, .. } => {
                BackendError::NotFound { what: format!("block {hash}") }
            }
            other => other,
        })
    }

    fn decode<T: bitcoin::consensus::Decodable>(method: &str, hex: &str) -> Result<T, BackendError> {
        deserialize_hex(hex)
            .map_err(|error| BackendError::Malformed { method: method.to_owned(), detail: error.to_string() })
    }

    /// Walks the blocks from the tip down to `since`: the way without a transaction index.
    fn find_in_blocks(&self, txid: &Txid, since: u32) -> Result<Option<BlockHash>, BackendError> {
        let tip = self.tip()?.height;
        for height in (since..=tip).rev() {
            let hash = match self.block_hash(height) {
                Err(BackendError::NotFound { .. }) => continue,
                other => other?,
            };
            let ids: BlockIds = self.rpc.call_as("getblock", json!([hash, 1]))?;
            if ids.tx.contains(txid) {
                return Ok(Some(hash));
            }
        }
        Ok(None)
    }

    /// True if the transaction is in a block and has an unspent output.
    fn is_mined(&self, tx: &Transaction) -> Result<bool, BackendError> {
        let txid = tx.compute_txid();
        for vout in 0..tx.output.len() {
            // False: without the mempool.
            if !self.rpc.call("gettxout", json!([txid, vout, false]))?.is_null() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn raw(&self, txid: &Txid, block: Option<&BlockHash>) -> Result<Option<RawTransaction>, BackendError> {
        match self.rpc.call_as("getrawtransaction", json!([txid, 1, block])) {
            Ok(raw) => Ok(Some(raw)),
            Err(BackendError::Rpc { code: RPC_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Scans the coins. A node makes one scan at a time.
    fn scan(&self, descriptor: &str) -> Result<Scan, BackendError> {
        let deadline = Instant::now() + SCAN_PATIENCE;
        loop {
            match self.rpc.call_as("scantxoutset", json!(["start", [descriptor]])) {
                Err(BackendError::Rpc { code: RPC_INVALID_PARAMETER, message, .. })
                    if message.starts_with("Scan already in progress") && Instant::now() < deadline =>
                {
                    std::thread::sleep(SCAN_POLL);
                }
                answer => return answer,
            }
        }
    }
}

impl BitcoinBackend for Bitcoind {
    fn is_pruned(&self) -> Result<bool, BackendError> {
        let info: ChainInfo = self.rpc.call_as("getblockchaininfo", json!([]))?;
        Ok(info.pruned)
    }

    fn network(&self) -> Network {
        self.network
    }

    fn label(&self) -> String {
        format!("bitcoind at {} ({})", self.rpc.endpoint(), self.network)
    }

    fn tip(&self) -> Result<ChainTip, BackendError> {
        let info: ChainInfo = self.rpc.call_as("getblockchaininfo", json!([]))?;
        Ok(ChainTip { height: info.blocks, hash: info.bestblockhash })
    }

    fn block_hash(&self, height: u32) -> Result<BlockHash, BackendError> {
        self.rpc.call_as("getblockhash", json!([height])).map_err(|error| match error {
            BackendError::Rpc { code: RPC_INVALID_PARAMETER, .. } => {
                BackendError::NotFound { what: format!("block at height {height}") }
            }
            other => other,
        })
    }

    fn block(&self, hash: &BlockHash) -> Result<Block, BackendError> {
        let hex: String = self.rpc.call_as("getblock", json!([hash, 0])).map_err(|error| match error {
            BackendError::Rpc { code: RPC_NOT_FOUND, .. } => {
                BackendError::NotFound { what: format!("block {hash}") }
            }
            other => other,
        })?;
        Self::decode("getblock", &hex)
    }

    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError> {
        let info = self.header_info(hash)?;
        let header = info.header().filter(|header| header.block_hash() == *hash).ok_or_else(|| {
            let detail = format!("the header is not that of {hash}");
            BackendError::Malformed { method: "getblockheader".to_owned(), detail }
        })?;
        Ok(BlockInfo { header, height: info.height, active: info.confirmations >= 0 })
    }

    fn transaction(&self, txid: &Txid, since: u32) -> Result<Option<TxRecord>, BackendError> {
        let found = match self.raw(txid, None)? {
            Some(raw) => Some(raw),
            None => match self.find_in_blocks(txid, since)? {
                Some(hash) => {
                    self.raw(txid, Some(&hash))?.map(|raw| RawTransaction { blockhash: Some(hash), ..raw })
                }
                None => None,
            },
        };
        let Some(raw) = found else { return Ok(None) };
        let tx: Transaction = Self::decode("getrawtransaction", &raw.hex)?;
        let Some(block_hash) = raw.blockhash else {
            return Ok(Some(TxRecord { tx, state: TxState::Mempool }));
        };
        let header = self.header_info(&block_hash)?;
        // Negative: a block that a reorganisation took out of the active chain meanwhile.
        let Ok(confirmations) = u32::try_from(header.confirmations) else { return Ok(None) };
        let state = TxState::Confirmed { height: header.height, block_hash, confirmations };
        Ok(Some(TxRecord { tx, state }))
    }

    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError> {
        let txid = tx.compute_txid();
        // 0: no upper bound on the fee rate here; the caller has its own, in its own units.
        match self.rpc.call("sendrawtransaction", json!([serialize_hex(tx), 0])) {
            Ok(_) | Err(BackendError::Rpc { code: RPC_ALREADY_IN_CHAIN, .. }) => Ok(()),
            Err(BackendError::Rpc { code: RPC_REJECTED | RPC_MISSING_INPUTS, message, .. }) => {
                Err(BackendError::Rejected { txid, reason: message })
            }
            Err(error) => Err(error),
        }
    }

    fn broadcast_package(&self, package: &[Transaction]) -> Result<(), BackendError> {
        let refused = |reason: String| BackendError::PackageRejected { reason, transactions: Vec::new() };
        let Some(child) = package.last() else { return Err(refused("package is empty".to_owned())) };
        if package.len() > PACKAGE_TRANSACTIONS_MAX {
            return Err(refused("package-too-many-transactions".to_owned()));
        }
        let hexes: Vec<String> = package.iter().map(serialize_hex).collect();
        let answer: PackageAnswer =
            self.rpc.call_as("submitpackage", json!([hexes, 0])).map_err(|error| match error {
                // Core reports a package whose form is wrong as a transaction's error.
                BackendError::Rpc { code: RPC_MISSING_INPUTS | RPC_REJECTED, message, .. } => {
                    refused(message)
                }
                other => other,
            })?;
        let result = |tx: &Transaction| answer.tx_results.get(&tx.compute_wtxid());
        // All others are parents of the child: where it is, they are. Of one that is mined the node says the same as of one
        // whose inputs are spent.
        if result(child).is_some_and(|result| result.error.is_none()) || self.is_mined(child)? {
            return Ok(());
        }
        let refusal = |tx: &Transaction| Some((tx.compute_txid(), result(tx)?.error.clone()?));
        let transactions = package.iter().filter_map(refusal).collect();
        Err(BackendError::PackageRejected { reason: answer.message, transactions })
    }

    fn fee_estimate(&self, target_blocks: u16) -> Result<FeeEstimate, BackendError> {
        let target = target_blocks.clamp(1, FEE_TARGET_BLOCKS_MAX);
        let estimate: Estimate = self.rpc.call_as("estimatesmartfee", json!([target]))?;
        let info: MempoolInfo = self.rpc.call_as("getmempoolinfo", json!([]))?;
        Ok(FeeEstimate {
            rate: estimate.feerate.map(|rate| fee_rate("estimatesmartfee", rate)).transpose()?,
            target_blocks: estimate.blocks,
            floor: fee_rate("getmempoolinfo", info.mempoolminfee)?,
        })
    }

    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError> {
        let scan = self.scan(&format!("raw({})", script.to_hex_string()))?;
        if !scan.success {
            let detail = "the scan was aborted".to_owned();
            return Err(BackendError::Malformed { method: "scantxoutset".to_owned(), detail });
        }
        let mut utxos: Vec<Utxo> = scan
            .unspents
            .into_iter()
            .map(|unspent| Utxo {
                outpoint: OutPoint::new(unspent.txid, unspent.vout),
                txout: TxOut { value: unspent.amount, script_pubkey: unspent.script_pubkey },
                height: unspent.height,
                coinbase: unspent.coinbase,
            })
            .collect();
        utxos.sort_by_key(|utxo| utxo.outpoint);
        Ok(utxos)
    }

    fn miner(&self) -> Option<&dyn RegtestMiner> {
        (self.network == Network::Regtest).then_some(self as &dyn RegtestMiner)
    }
}

/// A rate in the node's unit, rounded up.
fn fee_rate(method: &str, btc_per_kvb: f64) -> Result<FeeRate, BackendError> {
    let per_kvb = Amount::from_btc(btc_per_kvb)
        .map_err(|error| BackendError::Malformed { method: method.to_owned(), detail: error.to_string() })?;
    // 1000 vB are 4000 weight units.
    Ok(FeeRate::from_sat_per_kwu(per_kvb.to_sat().div_ceil(4)))
}

#[derive(Deserialize)]
struct Generated {
    hash: BlockHash,
}

impl RegtestMiner for Bitcoind {
    fn mine(&self, count: u32, reward_to: &Script) -> Result<Vec<BlockHash>, BackendError> {
        let descriptor = format!("raw({})", reward_to.to_hex_string());
        self.rpc.call_as("generatetodescriptor", json!([count, descriptor]))
    }

    fn mine_exactly(&self, txs: &[Transaction], reward_to: &Script) -> Result<BlockHash, BackendError> {
        let descriptor = format!("raw({})", reward_to.to_hex_string());
        let hexes: Vec<String> = txs.iter().map(serialize_hex).collect();
        match self.rpc.call_as::<Generated>("generateblock", json!([descriptor, hexes])) {
            Ok(generated) => Ok(generated.hash),
            // -25: TestBlockValidity failed; -26: a transaction was refused.
            Err(BackendError::Rpc { code: -25 | RPC_REJECTED, message, .. }) => {
                Err(BackendError::BlockRejected { reason: message })
            }
            Err(error) => Err(error),
        }
    }
}
