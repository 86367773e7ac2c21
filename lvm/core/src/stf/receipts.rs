//! Receipts for transactions as blocks hold them.

use alloy_consensus::{Eip658Value, Receipt, ReceiptEnvelope, TxReceipt, TxType};
use alloy_evm::{
    eth::receipt_builder::{ReceiptBuilder, ReceiptBuilderCtx},
    Evm,
};

use crate::block::Transaction;

/// Builds receipts with a status code (EIP-658, Byzantium) and their bloom filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Receipts;

impl ReceiptBuilder for Receipts {
    type Transaction = Transaction;
    type Receipt = ReceiptEnvelope;

    fn build_receipt<E: Evm>(&self, context: ReceiptBuilderCtx<'_, TxType, E>) -> ReceiptEnvelope {
        let receipt = Receipt {
            status: Eip658Value::Eip658(context.result.is_success()),
            cumulative_gas_used: context.cumulative_gas_used,
            logs: context.result.into_logs(),
        };
        let receipt = receipt.into_with_bloom();
        match context.tx_type {
            TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
            TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
            TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
            TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
            TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
        }
    }
}
