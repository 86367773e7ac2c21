//! A batch's last output, as the Groth16 task makes it.

use assay_worker::cluster::Groth16Output;
use bincode::Options as _;

use crate::proved::{Proved, ProvedError};

/// Far more than a proof and its key take.
const BYTES_MAX: u64 = 1 << 20;

/// All parameters that this release can make or use have a trapdoor that one process drew. What a worker says about them does
/// not count.
const IS_INSECURE: bool = true;

/// Why an output is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error("the output does not decode: {0}")]
    Decode(String),
    #[error("{0} bytes of public values, expected 128")]
    PublicValues(usize),
    #[error("the verifying key is {got}, expected {expected}")]
    VerifyingKey { expected: String, got: String },
    #[error(transparent)]
    Proved(#[from] ProvedError),
}

/// Decodes an output; a proof under any other than the pinned key is none.
pub(super) fn read(bytes: &[u8], verifying_key: &[u8; 32]) -> Result<(Groth16Output, Proved), OutputError> {
    // Rejects trailing bytes, and lengths beyond the limit.
    let options = bincode::options().with_fixint_encoding().with_limit(BYTES_MAX);
    let output: Groth16Output =
        options.deserialize(bytes).map_err(|error| OutputError::Decode(error.to_string()))?;
    let public_values = output.public_values.as_slice().try_into();
    let public_values = public_values.map_err(|_| OutputError::PublicValues(output.public_values.len()))?;
    let got = blake3::hash(&output.verifying_key);
    if got.as_bytes() != verifying_key {
        let (expected, got) = (hex::encode(verifying_key), got.to_hex().to_string());
        return Err(OutputError::VerifyingKey { expected, got });
    }
    let proved = Proved::new(&output.proof, &output.verifying_key, public_values, IS_INSECURE)?;
    Ok((output, proved))
}
