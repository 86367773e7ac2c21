//! Bitcoin Core's script interpreter as a function: the oracle for every script of this crate.

use std::sync::OnceLock;

use bitcoin::consensus::encode::serialize;
use bitcoin::{Transaction, TxOut};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    KernelError, PrecomputedTransactionData, ScriptPubkey, ScriptVerifyError, TxCheckResult,
};

/// Why Core's interpreter did not accept an input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsensusError {
    /// The script ran and refused, or the witness does not fit the output.
    #[error("input {input} is refused by consensus")]
    Script {
        /// Index of the input.
        input: usize,
    },
    /// The transaction breaks a rule that needs no context (sizes, values, duplicate inputs).
    #[error("the transaction is malformed: {detail}")]
    Structure {
        /// Core's class of the failure.
        detail: String,
    },
    /// There must be one spent output for each input.
    #[error("expected {expected} spent outputs, got {got}")]
    SpentOutputs {
        /// Number of inputs.
        expected: usize,
        /// Number of outputs given.
        got: usize,
    },
    /// The library failed for a reason that is not a verdict.
    #[error("bitcoin kernel: {detail}")]
    Kernel {
        /// The library's message.
        detail: String,
    },
}

fn kernel(error: &KernelError) -> ConsensusError {
    ConsensusError::Kernel { detail: error.to_string() }
}

/// Checks the structure of `tx` and runs every input's script against `spent`, the outputs spent, in the order of the
/// inputs, with all consensus flags (taproot included). Time locks against the chain are not looked at; `OP_CSV` is, as
/// a comparison with the input's sequence.
///
/// # Errors
/// `Script` names the first input that is refused.
pub fn verify_transaction(tx: &Transaction, spent: &[TxOut]) -> Result<(), ConsensusError> {
    if spent.len() != tx.input.len() {
        return Err(ConsensusError::SpentOutputs { expected: tx.input.len(), got: spent.len() });
    }
    let kernel_tx = bitcoinkernel::Transaction::new(&serialize(tx)).map_err(|error| kernel(&error))?;
    if let TxCheckResult::Invalid(result) = kernel_tx.check() {
        return Err(ConsensusError::Structure { detail: format!("{result:?}") });
    }
    let outputs = spent.iter().map(kernel_output).collect::<Result<Vec<_>, _>>()?;
    let data = PrecomputedTransactionData::new(&kernel_tx, &outputs).map_err(|error| kernel(&error))?;
    for (input, output) in outputs.iter().enumerate() {
        let script = output.script_pubkey();
        match bitcoinkernel::verify(&script, Some(output.value()), &kernel_tx, input, None, &data) {
            Ok(()) => {}
            Err(KernelError::ScriptVerify(ScriptVerifyError::Invalid)) => {
                return Err(ConsensusError::Script { input })
            }
            Err(error) => return Err(kernel(&error)),
        }
    }
    Ok(())
}

fn kernel_output(output: &TxOut) -> Result<bitcoinkernel::TxOut, ConsensusError> {
    let script = ScriptPubkey::new(output.script_pubkey.as_bytes()).map_err(|error| kernel(&error))?;
    let sats = i64::try_from(output.value.to_sat())
        .map_err(|_| ConsensusError::Structure { detail: "output value above 2^63".to_owned() })?;
    Ok(bitcoinkernel::TxOut::new(&script, sats))
}

/// The process-wide secp256k1 context.
pub(crate) fn secp() -> &'static bitcoin::secp256k1::Secp256k1<bitcoin::secp256k1::All> {
    static SECP: OnceLock<bitcoin::secp256k1::Secp256k1<bitcoin::secp256k1::All>> = OnceLock::new();
    SECP.get_or_init(bitcoin::secp256k1::Secp256k1::new)
}
