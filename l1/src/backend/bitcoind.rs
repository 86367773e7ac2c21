//! A bitcoind over JSON-RPC: no wallet and no transaction index needed.

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{
    Amount, Block, BlockHash, FeeRate, Network, OutPoint, Script, ScriptBuf, Transaction, TxOut, Txid,
};
use serde::Deserialize;
use serde_json::json;

use super::rpc::RpcClient;
use super::{BackendError, BitcoinBackend, ChainTip, RegtestMiner, RpcAuth, TxRecord, TxState, Utxo};

/// Core: invalid address or key; here: no such block or transaction.
const RPC_NOT_FOUND: i64 = -5;
/// Core: a parameter is out of range; here: no such height.
const RPC_INVALID_PARAMETER: i64 = -8;
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
}

#[derive(Deserialize)]
struct RawTransaction {
    hex: String,
    blockhash: Option<BlockHash>,
}

#[derive(Deserialize)]
struct HeaderInfo {
    height: u32,
    confirmations: i64,
}

#[derive(Deserialize)]
struct BlockIds {
    tx: Vec<Txid>,
}

#[derive(Deserialize)]
struct Estimate {
    feerate: Option<f64>,
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

    fn raw(&self, txid: &Txid, block: Option<&BlockHash>) -> Result<Option<RawTransaction>, BackendError> {
        match self.rpc.call_as("getrawtransaction", json!([txid, 1, block])) {
            Ok(raw) => Ok(Some(raw)),
            Err(BackendError::Rpc { code: RPC_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl BitcoinBackend for Bitcoind {
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
        let header: HeaderInfo = self.rpc.call_as("getblockheader", json!([block_hash, true]))?;
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

    fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, BackendError> {
        let estimate: Estimate = self.rpc.call_as("estimatesmartfee", json!([target_blocks]))?;
        let Some(btc_per_kvb) = estimate.feerate else { return Ok(None) };
        let per_kvb = Amount::from_btc(btc_per_kvb).map_err(|error| BackendError::Malformed {
            method: "estimatesmartfee".to_owned(),
            detail: error.to_string(),
        })?;
        // 1000 vB are 4000 weight units.
        Ok(Some(FeeRate::from_sat_per_kwu(per_kvb.to_sat().div_ceil(4))))
    }

    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError> {
        let descriptor = format!("raw({})", script.to_hex_string());
        let scan: Scan = self.rpc.call_as("scantxoutset", json!(["start", [descriptor]]))?;
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
