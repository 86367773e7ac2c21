//! The operator's side as a process: connections to all signers around the [`Collector`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_l1::StoreError;
use rand::rngs::OsRng;
use rand::RngCore;
use tokio::sync::mpsc;

use crate::channel::{Channel, ChannelError, Message};
use crate::collector::{CollectError, Collector, Effect, Event, Plan};
use crate::identity::{Identity, PartyId};
use crate::limits::IDLE_TIMEOUT;
use crate::peers::{Peer, Peers};
use crate::signatures::SignatureSet;
use crate::statement::{epoch_scope, Kind, Statement};
use crate::store::ChunkDir;
use crate::wire::message::{Reply, Request};

/// Between two attempts to reach a signer.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two lines about the progress.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Why a collection ended without signatures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectFailure {
    /// The protocol's reason.
    #[error(transparent)]
    Protocol(#[from] CollectError),
    /// The file or its chunks could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A signer could not be reached for too long; a later run goes on from here.
    #[error("signer {signer} cannot be reached: {reason}")]
    Unreachable {
        /// Name.
        signer: String,
        /// What was met last.
        reason: String,
    },
    /// Somebody else answers at a signer's address.
    #[error("signer {signer}: {source}")]
    WrongPeer {
        /// Name.
        signer: String,
        /// What was met.
        source: ChannelError,
    },
    /// A signer's answer is not its own or makes no sense.
    #[error("signer {signer}: {reason}")]
    Answer {
        /// Name.
        signer: String,
        /// What is wrong.
        reason: String,
    },
}

/// What came of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Signatures in the file.
    pub signatures: usize,
    /// Of these, made by this run.
    pub made: usize,
    /// Time of the run.
    pub elapsed: Duration,
}

/// How to reach the signers.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// The operator's identity.
    pub identity: Identity,
    /// The signers.
    pub peers: Peers,
    /// How long one signer may be away before the run ends.
    pub patience: Duration,
}

/// One request on a connection that is kept.
async fn ask(
    channel: &mut Option<Channel>,
    (dialer, peer): (&Dialer, &Peer),
    request: &Request,
) -> Result<Reply, ChannelError> {
    let open = match channel {
        Some(open) => open,
        None => channel.insert(Channel::connect(&peer.address, &dialer.identity, peer.key).await?),
    };
    let (round, session) = (request.round(), request.session());
    open.send(&Message { round, session, body: request.encode() }).await?;
    let answer = open.receive(IDLE_TIMEOUT).await?;
    if answer.round != round || answer.session != session {
        return Err(ChannelError::Message);
    }
    Reply::decode(&answer.body).map_err(|_| ChannelError::Protocol)
}

/// What a link reports: who, which request, and the reply or what went wrong.
type Report = (PartyId, u64, Result<Reply, ChannelError>);

/// Asks one signer what it is told to, in order; ends when nobody tells it anything any more.
async fn link(
    dialer: Arc<Dialer>,
    peer: Peer,
    mut work: mpsc::UnboundedReceiver<(u64, Arc<Request>)>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut channel = None;
    while let Some((id, request)) = work.recv().await {
        let result = ask(&mut channel, (&dialer, &peer), &request).await;
        if result.is_err() {
            channel = None;
            tokio::time::sleep(PAUSE).await;
        }
        if reports.send((peer.key, id, result)).is_err() {
            return;
        }
    }
}

/// Shell around a [`Collector`].
struct Run {
    dialer: Arc<Dialer>,
    collector: Collector,
    graph: [u8; 32],
    out: PathBuf,
    chunks: ChunkDir,
    links: BTreeMap<PartyId, mpsc::UnboundedSender<(u64, Arc<Request>)>>,
    /// Since when each signer owes the answer to this request.
    waiting: BTreeMap<PartyId, (u64, Instant)>,
    begun: Instant,
    before: usize,
    reported: Instant,
}

impl Run {
    /// Carries out effects; true once all is done.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<bool, StoreError> {
        for effect in effects {
            match effect {
                Effect::Send { to, id, request } => {
                    if self.waiting.get(&to).is_none_or(|(waiting, _)| *waiting != id) {
                        self.waiting.insert(to, (id, Instant::now()));
                    }
                    // The link is there as long as the run.
                    if let Some(link) = self.links.get(&to) {
                        let _ = link.send((id, request));
                    }
                }
                Effect::SaveChunk { chunk, signatures } => {
                    self.chunks.save(chunk, &SignatureSet { graph: self.graph, signatures })?;
                }
                Effect::SaveAll { signatures } => {
                    SignatureSet { graph: self.graph, signatures }.save(&self.out)?;
                }
                Effect::Progress { signed, total } => self.report(signed, total),
                Effect::Again { signer, reason } => {
                    let name = self.dialer.peers.name(signer);
                    tracing::info!("signer {name}: {reason}; a new session begins");
                }
                Effect::Done => {
                    self.chunks.remove()?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn report(&mut self, signed: usize, total: usize) {
        if self.reported.elapsed() < REPORT_EVERY && signed < total {
            return;
        }
        self.reported = Instant::now();
        let rate = (signed - self.before) as f64 / self.begun.elapsed().as_secs_f64();
        let left = (total - signed) as f64 / rate.max(1e-9);
        tracing::info!("{signed} of {total} signatures, {rate:.0} per second, {left:.0} s to go");
    }

    /// What a link's report means to the collector.
    fn event(&self, (from, id, result): Report) -> Result<Event, CollectFailure> {
        let name = || self.dialer.peers.name(from);
        match result {
            Ok(reply) => Ok(Event::Reply { from, id, reply }),
            Err(source @ ChannelError::Peer { .. }) => {
                Err(CollectFailure::WrongPeer { signer: name(), source })
            }
            Err(error) => {
                let since = self.waiting.get(&from).filter(|(waiting, _)| *waiting == id);
                if since.is_some_and(|(_, since)| since.elapsed() > self.dialer.patience) {
                    return Err(CollectFailure::Unreachable { signer: name(), reason: error.to_string() });
                }
                Ok(Event::Lost { from, id })
            }
        }
    }
}

/// Collects all signatures of `plan` into the file `out`. What a run before got is used, and so is a whole file.
///
/// # Errors
/// Why there are none. What was verified stays beside `out` for the next run.
pub async fn collect(dialer: Dialer, plan: Plan, out: &Path) -> Result<Collected, CollectFailure> {
    let graph = plan.graph;
    let chunks = ChunkDir::beside(out);
    let stored = match SignatureSet::load(out)? {
        Some(set) if set.graph == graph => plan.reviewed.cut(&set.signatures),
        Some(_) => {
            let detail = "holds the signatures of another graph".to_owned();
            return Err(StoreError::Format { path: out.to_owned(), detail }.into());
        }
        None => chunks.load(&graph)?,
    };
    let collector = Collector::new(plan, &stored, OsRng.next_u64());
    let (reports, mut inbox) = mpsc::unbounded_channel();
    let dialer = Arc::new(dialer);
    let mut links = BTreeMap::new();
    for peer in &dialer.peers.signers {
        let (work, orders) = mpsc::unbounded_channel();
        tokio::spawn(link(Arc::clone(&dialer), peer.clone(), orders, reports.clone()));
        links.insert(peer.key, work);
    }
    let before = collector.signed();
    let (waiting, begun) = (BTreeMap::new(), Instant::now());
    let out = out.to_owned();
    let mut run =
        Run { dialer, collector, graph, out, chunks, links, waiting, begun, before, reported: begun };
    let mut event = Event::Start;
    loop {
        // Verifying a chunk takes a while; other tasks of this thread go elsewhere.
        let effects = tokio::task::block_in_place(|| run.collector.step(event))?;
        if run.carry_out(effects)? {
            let signatures = run.collector.signed();
            return Ok(Collected { signatures, made: signatures - before, elapsed: begun.elapsed() });
        }
        let report = inbox.recv().await.ok_or_else(|| CollectFailure::Answer {
            signer: String::new(),
            reason: "all connections are gone".to_owned(),
        })?;
        event = run.event(report)?;
    }
}

/// The statements of all signers' keys for an epoch, in the order of their identities; made where there are none yet.
///
/// # Errors
/// The first signer that is not reached in time, refuses or answers something else.
pub async fn keys(dialer: &Dialer, trunk_id: [u8; 32], epoch: u32) -> Result<Vec<Statement>, CollectFailure> {
    let scope = epoch_scope(&trunk_id, epoch);
    let mut statements = BTreeMap::new();
    for peer in &dialer.peers.signers {
        let signer = peer.name.clone();
        let since = Instant::now();
        let reply = loop {
            match ask(&mut None, (dialer, peer), &Request::Key { trunk_id, epoch }).await {
                Ok(reply) => break reply,
                Err(source @ ChannelError::Peer { .. }) => {
                    return Err(CollectFailure::WrongPeer { signer, source });
                }
                Err(error) if since.elapsed() > dialer.patience => {
                    return Err(CollectFailure::Unreachable { signer, reason: error.to_string() });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let statement = match reply {
            Reply::Key(statement) => statement,
            Reply::Refused { reason, .. } => return Err(CollectFailure::Answer { signer, reason }),
            _ => return Err(CollectFailure::Answer { signer, reason: "no key".to_owned() }),
        };
        let right = statement.sender == peer.key && statement.holds(Kind::EpochKey, &scope, 0);
        if !right || statement.epoch_keys().is_none() {
            return Err(CollectFailure::Answer { signer, reason: "not its own key".to_owned() });
        }
        statements.insert(peer.key, statement);
    }
    Ok(statements.into_values().collect())
}
