//! What the API asks of the leader, as it travels through the leader's inbox.
//!
//! The inbox is open to workers too. A request therefore carries a keyed hash that only coordinators can make, and
//! everything else from the inbox is believed as a worker's word alone.

use assay_schedule::{BatchId, ChainId, Event, Hash, Spec, TenantId, Time};
use serde::{Deserialize, Serialize};

use crate::state::{About, Health};

/// Tells the answer to one request from all others; random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64, pub u64);

impl RequestId {
    /// A number that nobody else has.
    pub fn random() -> Self {
        Self(rand::random(), rand::random())
    }
}

/// A batch as the API has read and stored it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// Whose.
    pub tenant: TenantId,
    /// Idempotency key.
    pub key: String,
    /// The rollup.
    pub chain: ChainId,
    /// Commitment to the state before the batch; has to be the [`Submit::to`] of the batch before it.
    pub from: Hash,
    /// Commitment to the state after it.
    pub to: Hash,
    /// The batch's bytes, which the store holds.
    pub payload: Hash,
    /// Their number.
    pub payload_bytes: u64,
    /// Expected work, in gas.
    pub units: u64,
    /// Version of programs and keys.
    pub version: u32,
    /// Higher goes first.
    pub priority: u8,
    /// When the proof is wanted.
    pub deadline: Option<Time>,
    /// Whether the batch is worthless after the deadline.
    pub deadline_is_hard: bool,
    /// Who is told about the end.
    pub callback: Option<String>,
    /// What the tenant may have in work.
    pub quota: Quota,
    /// What sets this submission apart from its repetitions.
    pub submission: Submission,
    /// Whether the payload is in the store, held by this submission. If not, then because the key was known.
    pub is_stored: bool,
}

/// One submission: two numbers, drawn for it.
pub type Submission = (u64, u64);

/// What a tenant may have in work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Batches.
    pub batches_max: u32,
    /// Bytes of their payloads.
    pub bytes_max: u64,
}

impl Submit {
    /// Under what name the store holds the payload for this submission alone.
    pub fn intake(&self) -> Hash {
        let (high, low) = self.submission;
        Spec::intake_of(self.tenant, &self.key, u128::from(high) << 64 | u128::from(low))
    }

    /// The batch as the schedule takes it, at a place in its chain.
    pub fn spec(&self, sequence: u64) -> Spec {
        Spec {
            tenant: self.tenant,
            key: self.key.clone(),
            chain: self.chain,
            sequence,
            from: self.from,
            to: self.to,
            payload: self.payload,
            payload_bytes: self.payload_bytes,
            units: self.units,
            version: self.version,
            priority: self.priority,
            deadline: self.deadline,
            deadline_is_hard: self.deadline_is_hard,
            intake: self.intake(),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "a request is boxed as a whole")]
pub enum Command {
    /// Take a batch.
    Submit(Submit),
    /// End a batch.
    Cancel {
        /// Whose.
        tenant: TenantId,
        /// Which.
        batch: BatchId,
    },
}

/// A question that some coordinator waits for the answer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Which.
    pub id: RequestId,
    /// What.
    pub command: Command,
}

/// The key that coordinators of one deployment share.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey")
    }
}

/// What a coordinator posts for the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Post {
    /// An API call.
    Request(Box<Request>),
    /// A standby wants to hear of what is committed.
    Follow {
        /// Which; random.
        standby: u64,
        /// The last mail it has read.
        cursor: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    coordinator: String,
    mac: String,
}

/// An inbox message that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// It is neither an event nor a request.
    #[error("not a message: {0}")]
    Json(String),
    /// Its keyed hash is wrong.
    #[error("a coordinator's message with a wrong authenticator")]
    Mac,
    /// Workers may not say this.
    #[error("workers may not post this event")]
    Forbidden,
}

/// A message from the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbox {
    /// From a coordinator.
    Post(Box<Post>),
    /// From a worker, for the schedule.
    Worker(Box<Event>),
    /// From a worker, for people.
    Extra(Box<Extra>),
}

/// What workers say that the schedule does not need. Unknown fields are passed over: workers may be newer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extra {
    /// What an attempt took, signed.
    Receipt(serde_json::Value),
    /// Who a worker is.
    About(About),
    /// Which of its devices are out of service.
    Health(Health),
}

impl ClusterKey {
    /// Derives the key from a secret of any length.
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key("assay-service 1 inbox", secret))
    }

    /// A key that no other process has: for a coordinator without standbys.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// A message for the inbox.
    pub fn seal(&self, post: &Post) -> Vec<u8> {
        let coordinator = String::from_utf8(crate::wire::json(post)).unwrap_or_default();
        let mac = blake3::keyed_hash(&self.0, coordinator.as_bytes()).to_hex().to_string();
        crate::wire::json(&Envelope { coordinator, mac })
    }

    /// Reads a message from the inbox.
    ///
    /// # Errors
    /// [`PostError`]; nothing of the message counts then.
    pub fn open(&self, bytes: &[u8]) -> Result<Inbox, PostError> {
        let json = |error: serde_json::Error| PostError::Json(error.to_string());
        if bytes.starts_with(b"{\"coordinator\":") {
            let envelope: Envelope = serde_json::from_slice(bytes).map_err(json)?;
            let mac = blake3::Hash::from_hex(&envelope.mac).map_err(|_| PostError::Mac)?;
            // blake3's comparison takes constant time.
            if blake3::keyed_hash(&self.0, envelope.coordinator.as_bytes()) != mac {
                return Err(PostError::Mac);
            }
            return Ok(Inbox::Post(serde_json::from_str(&envelope.coordinator).map_err(json)?));
        }
        // One after the other: the names of an untagged enum's variants would only be looked at after a copy of everything.
        match serde_json::from_slice::<Event>(bytes) {
            Ok(event) if event.worker().is_none() => Err(PostError::Forbidden),
            Ok(event) => Ok(Inbox::Worker(Box::new(event))),
            Err(error) => match serde_json::from_slice(bytes) {
                Ok(extra) => Ok(Inbox::Extra(extra)),
                Err(_) => Err(json(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_schedule::{EffectId, Epoch, WorkerId};

    use super::*;

    fn cancel() -> Post {
        Post::Request(Box::new(Request {
            id: RequestId(1, 2),
            command: Command::Cancel { tenant: TenantId(1), batch: BatchId(3) },
        }))
    }

    #[test]
    fn a_request_passes_with_the_key_and_with_no_other() {
        let key = ClusterKey::new(b"one");
        let bytes = key.seal(&cancel());
        assert_eq!(key.open(&bytes), Ok(Inbox::Post(Box::new(cancel()))));
        assert_eq!(ClusterKey::new(b"two").open(&bytes), Err(PostError::Mac));
        let text = String::from_utf8(bytes).unwrap();
        let forged = text.replace(r#"\"batch\":3"#, r#"\"batch\":4"#);
        assert_ne!(forged, text);
        assert_eq!(key.open(forged.as_bytes()), Err(PostError::Mac));
    }

    #[test]
    fn workers_say_only_what_is_theirs_to_say() {
        let key = ClusterKey::random();
        let post = |event: &Event| key.open(&serde_json::to_vec(event).unwrap());
        let leave = Event::Leave { worker: WorkerId(1), session: 2 };
        assert_eq!(post(&leave), Ok(Inbox::Worker(Box::new(leave))));
        for event in [
            Event::TakeOver { epoch: Epoch(9) },
            Event::Settled { effect: EffectId(1) },
            Event::Done { effects: vec![EffectId(1)] },
            Event::Cancel { tenant: TenantId(1), batch: BatchId(1) },
            Event::Tick,
        ] {
            assert_eq!(post(&event), Err(PostError::Forbidden));
        }
        for junk in [&b""[..], b"null", b"{}", b"{\"coordinator\":1}", b"{\"coordinator\":", b"\xff\xff"] {
            assert!(key.open(junk).is_err());
        }
    }
}
