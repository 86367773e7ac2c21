//! Every bound of the crate.

use std::time::Duration;

/// Signers of one trunk, at most.
pub const PARTIES_MAX: usize = 32;
/// Bytes of an encoded proposal, at most: about 180 claims with the chunked verifier's keys.
pub const PROPOSAL_BYTES_MAX: usize = 64 << 20;
/// Signatures of one graph, at most. Their encoding stays below a frame.
pub const REQUESTS_MAX: usize = 1 << 19;
/// Messages that are signed in one exchange: about half a second of work for a signer.
pub const CHUNK_REQUESTS: usize = 512;
/// Bytes of a frame between parties that know each other.
pub const FRAME_BYTES_MAX: usize = PROPOSAL_BYTES_MAX + (1 << 20);
/// Bytes of a frame before the peer has proved its identity.
pub const HANDSHAKE_BYTES_MAX: usize = 256;
/// Time for a whole handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a frame to be written, or for the next one to be there, before the connection ends.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(900);
/// Connections at once, known or not.
pub const CONNECTIONS_MAX: usize = 32;
/// Requests of one connection per second; more are read later.
pub const REQUESTS_PER_SECOND_MAX: u32 = 100;
/// Epoch keys that wait for their graph, at most.
pub const KEYS_MAX: usize = 8;
/// How far ahead of the newest graph keys are made.
pub const EPOCHS_AHEAD_MAX: u32 = 4;
/// Bytes of the text of a refusal on the wire.
pub const REASON_BYTES_MAX: usize = 512;
/// Sessions that a collector opens for one graph before it gives up.
pub const ATTEMPTS_MAX: u32 = 64;
/// Bytes of a policy or peers file, of a `handover.json` or a note of a hand-over.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
