//! What collector and signers say to each other.

use super::{put_bytes, put_count, Reader, WireError};
use crate::limits::{PARTIES_MAX, PROPOSAL_BYTES_MAX, REASON_BYTES_MAX, REQUESTS_MAX};
use crate::statement::{Statement, STATEMENT_BYTES_MIN};

/// What the collector asks. The number on the wire is the round that is signed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The epoch's public key; made if there is none yet.
    Key {
        /// The trunk.
        trunk_id: [u8; 32],
        /// The epoch.
        epoch: u32,
    },
    /// How far the epoch is.
    Status {
        /// The trunk.
        trunk_id: [u8; 32],
        /// The epoch.
        epoch: u32,
    },
    /// A graph to review; the epoch is locked to it if it is as specified.
    Propose {
        /// An encoded [`GraphProposal`](super::proposal::GraphProposal).
        proposal: Vec<u8>,
    },
    /// New nonces from this chunk on; ends the session before.
    Open {
        /// The graph.
        graph: [u8; 32],
        /// First chunk whose signatures are wanted.
        first_chunk: u32,
    },
    /// The commits of all signers.
    Commits {
        /// One of each signer.
        commits: Vec<Statement>,
    },
    /// The nonces of a chunk.
    Reveal {
        /// The session.
        session: [u8; 32],
        /// The chunk.
        chunk: u32,
    },
    /// The partial signatures of a chunk.
    Sign {
        /// The session.
        session: [u8; 32],
        /// The chunk.
        chunk: u32,
        /// The nonces of each signer.
        nonces: Vec<Statement>,
    },
    /// All signatures of the graph.
    Final {
        /// The epoch.
        epoch: u32,
        /// The graph.
        graph: [u8; 32],
        /// In the order of the graph's requests.
        signatures: Vec<[u8; 64]>,
    },
    /// All signatures of an epoch that is finished.
    Fetch {
        /// The epoch.
        epoch: u32,
    },
}

/// What a signer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To `Key`.
    Key(Statement),
    /// To `Status`.
    Status {
        /// The graph that the epoch is locked to.
        graph: Option<[u8; 32]>,
        /// True once all signatures are there and the key is deleted.
        finished: bool,
    },
    /// To `Propose`.
    Accepted {
        /// The graph.
        graph: [u8; 32],
        /// How many signatures it takes.
        requests: u32,
    },
    /// To `Open`: a commit.
    Opened(Statement),
    /// To `Commits`.
    Committed {
        /// The session.
        session: [u8; 32],
    },
    /// To `Reveal`.
    Nonces(Statement),
    /// To `Sign`.
    Partials(Statement),
    /// To `Final`.
    Finished {
        /// The graph.
        graph: [u8; 32],
    },
    /// To `Fetch`.
    Signatures {
        /// The graph.
        graph: [u8; 32],
        /// In the order of the graph's requests.
        signatures: Vec<[u8; 64]>,
    },
    /// The request was refused, and nothing changed.
    Refused {
        /// True if a new session may cure it.
        again: bool,
        /// Why, for people. Cut to [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
}

fn put_statements(out: &mut Vec<u8>, statements: &[Statement]) {
    put_count(out, statements.len());
    statements.iter().for_each(|statement| statement.put(out));
}

fn read_statements(reader: &mut Reader<'_>) -> Result<Vec<Statement>, WireError> {
    let count = reader.count("statements", PARTIES_MAX, STATEMENT_BYTES_MIN)?;
    (0..count).map(|_| Statement::read(reader)).collect()
}

fn put_signatures(out: &mut Vec<u8>, signatures: &[[u8; 64]]) {
    put_count(out, signatures.len());
    signatures.iter().for_each(|signature| out.extend(signature));
}

fn read_signatures(reader: &mut Reader<'_>) -> Result<Vec<[u8; 64]>, WireError> {
    let count = reader.count("signatures", REQUESTS_MAX, 64)?;
    (0..count).map(|_| reader.array("signature")).collect()
}

impl Request {
    /// The request's number on the wire.
    #[must_use]
    pub fn round(&self) -> u8 {
        match self {
            Self::Key { .. } => 1,
            Self::Status { .. } => 2,
            Self::Propose { .. } => 3,
            Self::Open { .. } => 4,
            Self::Commits { .. } => 5,
            Self::Reveal { .. } => 6,
            Self::Sign { .. } => 7,
            Self::Final { .. } => 8,
            Self::Fetch { .. } => 9,
        }
    }

    /// The session that the request belongs to; zeros where it belongs to none.
    #[must_use]
    pub fn session(&self) -> [u8; 32] {
        match self {
            Self::Reveal { session, .. } | Self::Sign { session, .. } => *session,
            _ => [0; 32],
        }
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.round()];
        match self {
            Self::Key { trunk_id, epoch } | Self::Status { trunk_id, epoch } => {
                out.extend(trunk_id);
                out.extend(epoch.to_le_bytes());
            }
            Self::Propose { proposal } => put_bytes(&mut out, proposal),
            Self::Open { graph, first_chunk } => {
                out.extend(graph);
                out.extend(first_chunk.to_le_bytes());
            }
            Self::Commits { commits } => put_statements(&mut out, commits),
            Self::Reveal { session, chunk } => {
                out.extend(session);
                out.extend(chunk.to_le_bytes());
            }
            Self::Sign { session, chunk, nonces } => {
                out.extend(session);
                out.extend(chunk.to_le_bytes());
                put_statements(&mut out, nonces);
            }
            Self::Final { epoch, graph, signatures } => {
                out.extend(epoch.to_le_bytes());
                out.extend(graph);
                put_signatures(&mut out, signatures);
            }
            Self::Fetch { epoch } => out.extend(epoch.to_le_bytes()),
        }
        out
    }

    /// Reads [`encode`](Self::encode)'s bytes.
    ///
    /// # Errors
    /// Where the bytes are no request.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let request = match reader.u8("request")? {
            1 => Self::Key { trunk_id: reader.array("trunk")?, epoch: reader.u32("epoch")? },
            2 => Self::Status { trunk_id: reader.array("trunk")?, epoch: reader.u32("epoch")? },
            3 => Self::Propose { proposal: reader.bytes("proposal", PROPOSAL_BYTES_MAX)?.to_vec() },
            4 => Self::Open { graph: reader.array("graph")?, first_chunk: reader.u32("chunk")? },
            5 => Self::Commits { commits: read_statements(&mut reader)? },
            6 => Self::Reveal { session: reader.array("session")?, chunk: reader.u32("chunk")? },
            7 => Self::Sign {
                session: reader.array("session")?,
                chunk: reader.u32("chunk")?,
                nonces: read_statements(&mut reader)?,
            },
            8 => Self::Final {
                epoch: reader.u32("epoch")?,
                graph: reader.array("graph")?,
                signatures: read_signatures(&mut reader)?,
            },
            9 => Self::Fetch { epoch: reader.u32("epoch")? },
            _ => return Err(WireError::Field { field: "request" }),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl Reply {
    /// A refusal, its text cut to the bound.
    #[must_use]
    pub fn refused(again: bool, reason: &impl ToString) -> Self {
        let mut reason = reason.to_string();
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        Self::Refused { again, reason }
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Key(statement) => {
                out.push(1);
                statement.put(&mut out);
            }
            Self::Status { graph, finished } => {
                out.push(2);
                // Three states: free, locked, finished.
                out.push(u8::from(graph.is_some()) + u8::from(*finished));
                out.extend(graph.unwrap_or_default());
            }
            Self::Accepted { graph, requests } => {
                out.push(3);
                out.extend(graph);
                out.extend(requests.to_le_bytes());
            }
            Self::Opened(statement) => {
                out.push(4);
                statement.put(&mut out);
            }
            Self::Committed { session } => {
                out.push(5);
                out.extend(session);
            }
            Self::Nonces(statement) => {
                out.push(6);
                statement.put(&mut out);
            }
            Self::Partials(statement) => {
                out.push(7);
                statement.put(&mut out);
            }
            Self::Finished { graph } => {
                out.push(8);
                out.extend(graph);
            }
            Self::Signatures { graph, signatures } => {
                out.push(9);
                out.extend(graph);
                put_signatures(&mut out, signatures);
            }
            Self::Refused { again, reason } => {
                out.push(10);
                out.push(u8::from(*again));
                put_bytes(&mut out, reason.as_bytes());
            }
        }
        out
    }

    /// Reads [`encode`](Self::encode)'s bytes.
    ///
    /// # Errors
    /// Where the bytes are no reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let reply = match reader.u8("reply")? {
            1 => Self::Key(Statement::read(&mut reader)?),
            2 => {
                let state = reader.u8("status")?;
                let graph: [u8; 32] = reader.array("graph")?;
                if state > 2 || (state == 0 && graph != [0; 32]) {
                    return Err(WireError::Field { field: "status" });
                }
                Self::Status { graph: (state > 0).then_some(graph), finished: state == 2 }
            }
            3 => Self::Accepted { graph: reader.array("graph")?, requests: reader.u32("requests")? },
            4 => Self::Opened(Statement::read(&mut reader)?),
            5 => Self::Committed { session: reader.array("session")? },
            6 => Self::Nonces(Statement::read(&mut reader)?),
            7 => Self::Partials(Statement::read(&mut reader)?),
            8 => Self::Finished { graph: reader.array("graph")? },
            9 => {
                Self::Signatures { graph: reader.array("graph")?, signatures: read_signatures(&mut reader)? }
            }
            10 => {
                let again = reader.u8("refusal")?;
                let reason = reader.bytes("reason", REASON_BYTES_MAX)?;
                let reason = std::str::from_utf8(reason).map_err(|_| WireError::Field { field: "reason" })?;
                if again > 1 {
                    return Err(WireError::Field { field: "refusal" });
                }
                Self::Refused { again: again == 1, reason: reason.to_owned() }
            }
            _ => return Err(WireError::Field { field: "reply" }),
        };
        reader.finish()?;
        Ok(reply)
    }
}
