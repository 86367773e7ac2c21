//! The operator's side as a pure state machine: asks all signers the same thing, round by round, and checks every answer.
//!
//! ```text
//! Status ─┬─▶ Propose ▶ Open ▶ Commits ▶ for each chunk: Reveal ▶ Sign ─▶ (all signatures on disk) ─▶ Final ─▶ done
//!         └─ somebody is finished: Fetch ────────────────────────────────────┘
//! ```
//! A chunk's signatures are stored once they are verified: a later run, with other nonces, begins behind them. All signatures are
//! stored before the first `Final` leaves, so that no two signers are given different ones. A lost answer is asked for again; a
//! signer that has forgotten the session (it was killed) makes everyone begin a new one. A wrong answer ends the run and names
//! its signer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::PartyId;
use crate::limits::ATTEMPTS_MAX;
use crate::machine::session::{chunk_nonces, committed, nonces_hash, session_id};
use crate::musig::{ChunkNonces, MusigError, PARTIAL_BYTES};
use crate::review::Reviewed;
use crate::statement::{Kind, Statement};
use crate::wire::message::{Reply, Request};

/// What is collected.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The trunk.
    pub trunk_id: [u8; 32],
    /// Id of the proposal.
    pub graph: [u8; 32],
    /// The proposal's bytes.
    pub proposal: Vec<u8>,
    /// The collector's own review of it.
    pub reviewed: Reviewed,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// The run begins.
    Start,
    /// A signer answers.
    Reply {
        /// Who.
        from: PartyId,
        /// The request's id.
        id: u64,
        /// What.
        reply: Reply,
    },
    /// No answer to the request will come: the connection is lost, or it takes too long.
    Lost {
        /// Whose.
        from: PartyId,
        /// The request's id.
        id: u64,
    },
}

/// What the shell has to do, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Ask a signer.
    Send {
        /// Whom.
        to: PartyId,
        /// To tell answers apart.
        id: u64,
        /// What.
        request: Arc<Request>,
    },
    /// Write the signatures of a chunk durably.
    SaveChunk {
        /// The chunk.
        chunk: u32,
        /// Verified.
        signatures: Vec<[u8; 64]>,
    },
    /// Write all signatures durably.
    SaveAll {
        /// Verified, in the order of the graph's requests.
        signatures: Vec<[u8; 64]>,
    },
    /// So many signatures are there.
    Progress {
        /// Verified and stored.
        signed: usize,
        /// In the graph.
        total: usize,
    },
    /// A new session begins.
    Again {
        /// Who does not know the old one.
        signer: PartyId,
        /// What it said.
        reason: String,
    },
    /// All signers hold all signatures.
    Done,
}

/// Why there will be no signatures from this run.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectError {
    /// A signer refuses.
    #[error("signer {signer} refuses: {reason}")]
    Refused {
        /// Who.
        signer: PartyId,
        /// Its words.
        reason: String,
    },
    /// A signer's answer is wrong: it is faulty, or it lies.
    #[error("signer {signer} is at fault: {fault}")]
    Blame {
        /// Who.
        signer: PartyId,
        /// What is wrong.
        fault: &'static str,
    },
    /// The epoch is locked to another graph.
    #[error("signer {signer} is locked to another graph: {}", hex::encode(locked))]
    OtherGraph {
        /// Who.
        signer: PartyId,
        /// Its graph.
        locked: [u8; 32],
    },
    /// Too many sessions were begun.
    #[error("{ATTEMPTS_MAX} sessions were begun and none came to its end")]
    Attempts,
    /// Verified parts gave a wrong whole.
    #[error(transparent)]
    Musig(#[from] MusigError),
}

/// Where the run is.
#[derive(Debug)]
enum Phase {
    Idle,
    Status,
    Fetch,
    Propose,
    Open,
    Commits { hashes: BTreeMap<PartyId, Vec<[u8; 32]>>, session: [u8; 32] },
    Reveal { hashes: BTreeMap<PartyId, Vec<[u8; 32]>>, session: [u8; 32], chunk: u32 },
    Sign { hashes: BTreeMap<PartyId, Vec<[u8; 32]>>, session: [u8; 32], chunk: u32, nonces: ChunkNonces },
    Final,
    Over,
}

/// The collector.
#[derive(Debug)]
pub struct Collector {
    plan: Plan,
    phase: Phase,
    /// Signatures of the chunks from the first on.
    signed: Vec<[u8; 64]>,
    stored: bool,
    pending: BTreeMap<PartyId, (u64, Arc<Request>)>,
    answers: BTreeMap<PartyId, Reply>,
    next_id: u64,
    attempts: u32,
}

type Step = Result<Vec<Effect>, CollectError>;

impl Collector {
    /// A run that goes on where `chunks`, as stored, end. Whatever does not verify there is made anew. `first_id` should be random:
    /// answers to an earlier run are then told apart.
    #[must_use]
    pub fn new(plan: Plan, chunks: &[Vec<[u8; 64]>], first_id: u64) -> Self {
        let mut signed = Vec::new();
        for (index, signatures) in (0..).zip(chunks) {
            let Some(messages) = plan.reviewed.chunk(index) else { break };
            let attesters = &plan.reviewed.group_of(index).attesters;
            if attesters.first_wrong(messages, signatures).is_some() {
                break;
            }
            signed.extend_from_slice(signatures);
        }
        Self {
            plan,
            phase: Phase::Idle,
            signed,
            stored: false,
            pending: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_id: first_id,
            attempts: 0,
        }
    }

    /// Signatures that are verified.
    #[must_use]
    pub fn signed(&self) -> usize {
        self.signed.len()
    }

    /// True once every signer holds all signatures, or after an error.
    #[must_use]
    pub fn over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// One event. Answers that nobody waits for are ignored.
    ///
    /// # Errors
    /// The run is over, without signatures that were not there before.
    pub fn step(&mut self, event: Event) -> Step {
        let result = self.handle(event);
        if result.is_err() {
            self.phase = Phase::Over;
            self.pending.clear();
        }
        result
    }

    fn handle(&mut self, event: Event) -> Step {
        match event {
            Event::Start if matches!(self.phase, Phase::Idle) => Ok(self.begin()),
            Event::Start => Ok(Vec::new()),
            Event::Lost { from, id } => Ok(self.waiting(from, id).into_iter().collect()),
            Event::Reply { from, id, reply } => {
                if self.waiting(from, id).is_none() {
                    return Ok(Vec::new());
                }
                self.pending.remove(&from);
                if let Reply::Refused { again, reason } = reply {
                    return self.refused(from, again, reason);
                }
                self.check(from, &reply)?;
                self.answers.insert(from, reply);
                if self.pending.is_empty() {
                    return self.round_done();
                }
                Ok(Vec::new())
            }
        }
    }

    fn waiting(&self, from: PartyId, id: u64) -> Option<Effect> {
        let (expected, request) = self.pending.get(&from)?;
        let send = || Effect::Send { to: from, id, request: Arc::clone(request) };
        (*expected == id).then(send)
    }

    fn refused(&mut self, signer: PartyId, again: bool, reason: String) -> Step {
        if !again {
            return Err(CollectError::Refused { signer, reason });
        }
        self.attempts += 1;
        if self.attempts >= ATTEMPTS_MAX {
            return Err(CollectError::Attempts);
        }
        let mut effects = vec![Effect::Again { signer, reason }];
        effects.extend(self.begin());
        Ok(effects)
    }

    /// The same request to these signers.
    fn ask(&mut self, to: impl IntoIterator<Item = PartyId>, request: Request) -> Vec<Effect> {
        let request = Arc::new(request);
        self.pending.clear();
        self.answers.clear();
        let mut effects = Vec::new();
        for to in to {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            self.pending.insert(to, (id, Arc::clone(&request)));
            effects.push(Effect::Send { to, id, request: Arc::clone(&request) });
        }
        effects
    }

    fn ask_all(&mut self, request: Request) -> Vec<Effect> {
        let all: Vec<_> = self.plan.reviewed.group.members.keys().copied().collect();
        self.ask(all, request)
    }

    fn begin(&mut self) -> Vec<Effect> {
        self.phase = Phase::Status;
        let (trunk_id, epoch) = (self.plan.trunk_id, self.plan.reviewed.epoch);
        self.ask_all(Request::Status { trunk_id, epoch })
    }

    /// An answer must be of the kind that was asked for, and true in itself.
    fn check(&self, signer: PartyId, reply: &Reply) -> Result<(), CollectError> {
        let blame = |fault| Err(CollectError::Blame { signer, fault });
        let graph = self.plan.graph;
        let from = |statement: &Statement| statement.sender == signer;
        match (&self.phase, reply) {
            (Phase::Status, Reply::Status { graph: Some(locked), .. }) if *locked != graph => {
                Err(CollectError::OtherGraph { signer, locked: *locked })
            }
            (Phase::Status, Reply::Status { .. }) => Ok(()),
            (Phase::Fetch, Reply::Signatures { graph: of, signatures }) => {
                if *of != graph || !self.whole(signatures) {
                    return blame("it says it is finished, and its signatures are wrong");
                }
                Ok(())
            }
            (Phase::Propose, Reply::Accepted { graph: of, requests }) => {
                if *of != graph || *requests as usize != self.plan.reviewed.messages.len() {
                    return blame("it accepted another graph");
                }
                Ok(())
            }
            (Phase::Open, Reply::Opened(commit)) => {
                let right = from(commit) && commit.holds(Kind::Commit, &graph, self.next_chunk());
                let chunks = self.plan.reviewed.chunks() - self.next_chunk();
                if !right || committed(commit, chunks).is_none() {
                    return blame("its commit is wrong");
                }
                Ok(())
            }
            (Phase::Commits { session, .. }, Reply::Committed { session: of }) => {
                if session == of {
                    Ok(())
                } else {
                    blame("it has another session")
                }
            }
            (Phase::Reveal { hashes, session, chunk }, Reply::Nonces(nonces)) => {
                let right = from(nonces) && nonces.holds(Kind::Nonces, session, *chunk);
                let index = (chunk - self.first_chunk(hashes)) as usize;
                let hash = hashes.get(&signer).and_then(|hashes| hashes.get(index));
                if !right || hash != Some(&nonces_hash(&nonces.body)) {
                    return blame("its nonces are not those that it committed to");
                }
                Ok(())
            }
            (Phase::Sign { session, chunk, nonces, .. }, Reply::Partials(partials)) => {
                if !from(partials) || !partials.holds(Kind::Partials, session, *chunk) {
                    return blame("its partial signatures are not under its name");
                }
                if self.partials_hold(signer, *chunk, nonces, partials) {
                    return Ok(());
                }
                blame("its partial signatures are wrong")
            }
            (Phase::Final, Reply::Finished { graph: of }) if *of == graph => Ok(()),
            _ => blame("it answers something else than it was asked"),
        }
    }

    fn partials_hold(&self, signer: PartyId, chunk: u32, nonces: &ChunkNonces, said: &Statement) -> bool {
        let reviewed = &self.plan.reviewed;
        let Some(messages) = reviewed.chunk(chunk) else { return false };
        let group = reviewed.group_of(chunk);
        let Some(place) = group.place(signer) else { return false };
        let Some(partials) = said.pieces::<PARTIAL_BYTES>(messages.len()) else { return false };
        group.attesters.verify_partials(place, messages, nonces, &partials).is_ok()
    }

    fn whole(&self, signatures: &[[u8; 64]]) -> bool {
        self.plan.reviewed.first_wrong(signatures).is_none()
    }

    fn next_chunk(&self) -> u32 {
        self.plan.reviewed.chunk_at(self.signed.len())
    }

    /// First chunk of the session whose commits these are: each has a hash for every chunk from there to the end.
    fn first_chunk(&self, hashes: &BTreeMap<PartyId, Vec<[u8; 32]>>) -> u32 {
        let count = hashes.values().next().map_or(0, Vec::len);
        self.plan.reviewed.chunks() - count as u32
    }

    /// All have answered.
    fn round_done(&mut self) -> Step {
        let answers = std::mem::take(&mut self.answers);
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Status => Ok(self.after_status(&answers)),
            Phase::Fetch => {
                let signatures = answers.into_values().find_map(|reply| match reply {
                    Reply::Signatures { signatures, .. } => Some(signatures),
                    _ => None,
                });
                self.signed = signatures.unwrap_or_default();
                self.stored = true;
                let mut effects = vec![Effect::SaveAll { signatures: self.signed.clone() }];
                effects.extend(self.begin());
                Ok(effects)
            }
            Phase::Propose if self.complete() => Ok(self.distribute()),
            Phase::Propose => {
                self.phase = Phase::Open;
                let (graph, first_chunk) = (self.plan.graph, self.next_chunk());
                Ok(self.ask_all(Request::Open { graph, first_chunk }))
            }
            Phase::Open => Ok(self.after_open(answers)),
            Phase::Commits { hashes, session } => {
                let chunk = self.next_chunk();
                Ok(self.reveal(hashes, session, chunk))
            }
            Phase::Reveal { hashes, session, chunk } => self.after_reveal(hashes, session, chunk, answers),
            Phase::Sign { hashes, session, chunk, nonces } => {
                self.after_sign((hashes, session, chunk), &nonces, &answers)
            }
            Phase::Final => Ok(vec![Effect::Done]),
            Phase::Idle | Phase::Over => Ok(Vec::new()),
        }
    }

    fn complete(&self) -> bool {
        self.signed.len() == self.plan.reviewed.messages.len()
    }

    fn after_status(&mut self, answers: &BTreeMap<PartyId, Reply>) -> Vec<Effect> {
        let is_finished = |reply: &Reply| matches!(reply, Reply::Status { finished: true, .. });
        let finished = answers.iter().find(|(_, reply)| is_finished(reply)).map(|(signer, _)| *signer);
        if let (Some(signer), false) = (finished, self.complete()) {
            // What one signer has finished with is what everyone gets.
            self.phase = Phase::Fetch;
            let epoch = self.plan.reviewed.epoch;
            return self.ask([signer], Request::Fetch { epoch });
        }
        let busy = answers.iter().filter(|(_, reply)| !is_finished(reply));
        let busy: Vec<_> = busy.map(|(signer, _)| *signer).collect();
        if busy.is_empty() {
            return self.distribute();
        }
        // Also for `Final`: a signer that was restarted needs the graph to verify its signatures.
        self.phase = Phase::Propose;
        let proposal = self.plan.proposal.clone();
        self.ask(busy, Request::Propose { proposal })
    }

    fn after_open(&mut self, answers: BTreeMap<PartyId, Reply>) -> Vec<Effect> {
        let chunks = self.plan.reviewed.chunks() - self.next_chunk();
        let commits: Vec<Statement> = answers.into_values().filter_map(statement_of).collect();
        let hashes =
            commits.iter().filter_map(|commit| Some((commit.sender, committed(commit, chunks)?))).collect();
        // Each was checked when it came, so all are there.
        let session = match self.plan.reviewed.group.in_order(&commits, |_| true) {
            Ok(ordered) => session_id(&ordered),
            Err(_) => return self.begin(),
        };
        self.phase = Phase::Commits { hashes, session };
        self.ask_all(Request::Commits { commits })
    }

    fn reveal(
        &mut self,
        hashes: BTreeMap<PartyId, Vec<[u8; 32]>>,
        session: [u8; 32],
        chunk: u32,
    ) -> Vec<Effect> {
        self.phase = Phase::Reveal { hashes, session, chunk };
        self.ask_all(Request::Reveal { session, chunk })
    }

    fn after_reveal(
        &mut self,
        hashes: BTreeMap<PartyId, Vec<[u8; 32]>>,
        session: [u8; 32],
        chunk: u32,
        answers: BTreeMap<PartyId, Reply>,
    ) -> Step {
        let said: Vec<Statement> = answers.into_values().filter_map(statement_of).collect();
        let messages = self.plan.reviewed.chunk(chunk).map_or(0, <[_]>::len);
        let group = self.plan.reviewed.group_of(chunk);
        let ordered = group.in_order(&said, |_| true);
        let ordered =
            ordered.map_err(|signer| CollectError::Blame { signer, fault: "its nonces are missing" })?;
        let nonces = chunk_nonces(&ordered, messages).map_err(|(error, place)| {
            match place.and_then(|place| group.signer_at(place)) {
                Some(signer) => CollectError::Blame { signer, fault: "its nonces are no points" },
                None => CollectError::Musig(error),
            }
        })?;
        self.phase = Phase::Sign { hashes, session, chunk, nonces };
        Ok(self.ask_all(Request::Sign { session, chunk, nonces: said }))
    }

    fn after_sign(
        &mut self,
        (hashes, session, chunk): (BTreeMap<PartyId, Vec<[u8; 32]>>, [u8; 32], u32),
        nonces: &ChunkNonces,
        answers: &BTreeMap<PartyId, Reply>,
    ) -> Step {
        let reviewed = &self.plan.reviewed;
        let messages = reviewed.chunk(chunk).unwrap_or_default();
        let group = reviewed.group_of(chunk);
        let mut partials = vec![Vec::new(); group.members.len()];
        for (signer, reply) in answers {
            let (Some(place), Reply::Partials(said)) = (group.place(*signer), reply) else { continue };
            partials[place] = said.pieces::<PARTIAL_BYTES>(messages.len()).unwrap_or_default();
        }
        let signatures = group.attesters.aggregate(messages, nonces, &partials)?;
        self.signed.extend_from_slice(&signatures);
        let total = reviewed.messages.len();
        let mut effects = vec![
            Effect::SaveChunk { chunk, signatures },
            Effect::Progress { signed: self.signed.len(), total },
        ];
        effects.extend(if self.complete() {
            self.distribute()
        } else {
            self.reveal(hashes, session, chunk + 1)
        });
        Ok(effects)
    }

    fn distribute(&mut self) -> Vec<Effect> {
        let signatures = self.signed.clone();
        let (epoch, graph) = (self.plan.reviewed.epoch, self.plan.graph);
        let mut effects = Vec::new();
        if !self.stored {
            effects.push(Effect::SaveAll { signatures: signatures.clone() });
            self.stored = true;
        }
        self.phase = Phase::Final;
        effects.extend(self.ask_all(Request::Final { epoch, graph, signatures }));
        effects
    }
}

fn statement_of(reply: Reply) -> Option<Statement> {
    match reply {
        Reply::Opened(statement) | Reply::Nonces(statement) => Some(statement),
        _ => None,
    }
}
