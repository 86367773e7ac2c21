//! What the reader found missing or contradictory.

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::Txid;
use serde::{Deserialize, Serialize};

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Height of the block in which it showed.
    pub height: u32,
    /// The transaction in which it showed.
    pub txid: Txid,
    /// What it is.
    pub kind: FindingKind,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "height {}, transaction {}: {}", self.height, self.txid, self.kind)
    }
}

/// What can be wrong. 32-byte values are hexadecimal. Nothing that a finding is about has been taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum FindingKind {
    /// An envelope with the trunk's tag is malformed.
    #[error("malformed envelope: {detail}")]
    Envelope {
        /// How.
        detail: String,
    },
    /// Someone else than the operator published under the trunk's tag.
    #[error("{envelopes} envelopes of a foreign author {author}")]
    ForeignAuthor {
        /// The author.
        author: XOnlyPublicKey,
        /// How many.
        envelopes: u32,
    },
    /// Nothing tells which author is the operator: content alone decides.
    #[error("the Reconfiguration's funds and the epoch's terms have different sources: any author's data is looked at")]
    AuthorUnknown,
    /// More envelopes wait than the reader keeps places of: the oldest were forgotten.
    #[error("too many envelopes wait: the oldest were forgotten")]
    RecordsForgotten,
    /// More transactions look like the trunk's first Reconfiguration than the reader follows.
    #[error("too many transactions look like the first Reconfiguration: give its id")]
    TooManyRoots,
    /// The connector of what looked like the first Reconfiguration was spent by something that the operator did not sign as a
    /// claim or epoch.
    #[error("{root} looked like the first Reconfiguration, but its connector was spent by something else ({detail})")]
    RootLost {
        /// What looked like it.
        root: Txid,
        /// What does not fit.
        detail: String,
    },
    /// An output of a Reconfiguration or Claim is not what the terms demand.
    #[error("output {vout} is not the {expected} that the terms demand")]
    Output {
        /// Which output.
        vout: u32,
        /// What it should be.
        expected: String,
    },
    /// The connector was spent by neither a claim nor a Reconfiguration: the trunk has ended here.
    #[error("the connector was spent by something else: the trunk ends here ({detail})")]
    ConnectorLost {
        /// What does not fit.
        detail: String,
    },
    /// A Reconfiguration names terms that were not published before it.
    #[error("the terms {terms_id} of epoch {epoch} were not published: the trunk cannot be read on")]
    TermsMissing {
        /// The epoch.
        epoch: u32,
        /// Their id.
        terms_id: String,
    },
    /// A Reconfiguration's terms are not those of the next epoch of this trunk.
    #[error("the new epoch's {field} is {got}, expected {expected}")]
    Terms {
        /// Which field.
        field: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The one-time keys of an epoch's claims are not those that its terms commit to.
    #[error("the claims of epoch {epoch} used other one-time keys than its terms commit to")]
    Keys {
        /// The epoch.
        epoch: u32,
    },
    /// A claim does not start where the one before ended.
    #[error("claim {claim} of epoch {epoch} starts at {got}, the one before ended at {expected}")]
    Discontinuity {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
        /// Where the one before ended.
        expected: String,
        /// Where it starts.
        got: String,
    },
    /// A claim's digest is not the hash of its values.
    #[error("claim {claim} of epoch {epoch} signs digest {got}, its values have {expected}")]
    Digest {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
        /// What its values have.
        expected: String,
        /// What it signs.
        got: String,
    },
    /// A claim's code root is not the epoch's.
    #[error("claim {claim} of epoch {epoch} signs code root {got}, the epoch's is {expected}")]
    CodeRoot {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
        /// The epoch's.
        expected: String,
        /// What it signs.
        got: String,
    },
    /// Data published for a claim is not the batch that the claim signs.
    #[error("data for claim {claim} of epoch {epoch} is not its batch: hash {got}, signed {expected}")]
    BatchHash {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
        /// The signed hash.
        expected: String,
        /// What the data has, or why it has none.
        got: String,
    },
    /// Chunks of a message are missing.
    #[error("{missing} of {count} chunks of a message are missing, the first one {first}")]
    ChunksMissing {
        /// How many are missing.
        missing: u32,
        /// Chunks of the message.
        count: u32,
        /// Hash of the first missing one.
        first: String,
    },
    /// Chunks do not give the message that their list announces.
    #[error("a message in chunks is damaged: {detail}")]
    Chunks {
        /// How.
        detail: String,
    },
    /// No data with the signed hash was published for a claim.
    #[error("the batch of claim {claim} of epoch {epoch} (hash {batch_hash}) was not published")]
    BatchMissing {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
        /// The signed hash.
        batch_hash: String,
    },
    /// No proof of the signed values was published for a claim.
    #[error("no proof of the values of claim {claim} of epoch {epoch} was published")]
    ProofMissing {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
    },
    /// A proof was published with values that the claim does not sign.
    #[error("claim data for claim {claim} of epoch {epoch} states other values than the claim signs")]
    ClaimData {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
    },
    /// The batch cannot be executed.
    #[error("the batch of claim {claim} of epoch {epoch} cannot be executed: {detail}")]
    Execution {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
        /// Why.
        detail: String,
    },
    /// Executing the batch gives another state than the claim signs.
    #[error(
        "claim {claim} of epoch {epoch} signs the new state {expected}, executing its batch gives {got}"
    )]
    State {
        /// The epoch.
        epoch: u32,
        /// The claim.
        claim: u32,
        /// What it signs.
        expected: String,
        /// What execution gives.
        got: String,
    },
}
