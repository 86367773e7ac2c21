//! A signer as a process: the machine, its directory, and connections from the operator's collector.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_l1::StoreError;
use rand::rngs::OsRng;
use rand::RngCore;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, Semaphore};
use tokio::time::{sleep_until, Instant};
use zeroize::Zeroizing;

use crate::channel::{Channel, ChannelError, Message};
use crate::identity::{Identity, PartyId};
use crate::limits::{CONNECTIONS_MAX, IDLE_TIMEOUT, REQUESTS_PER_SECOND_MAX};
use crate::machine::SignerMachine;
use crate::review::Reviewer;
use crate::store::Store;
use crate::wire::message::{Reply, Request};

/// Why a signer stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The directory failed: memory and disk may differ, so the process ends. A new one begins from the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener failed.
    #[error("cannot listen: {0}")]
    Listen(std::io::Error),
    /// A request made the machine panic.
    #[error("a request ended the machine: {0}")]
    Panic(String),
}

/// The machine with its directory.
pub struct Engine<R> {
    machine: SignerMachine<R>,
    store: Store,
}

impl<R: Reviewer> Engine<R> {
    /// Loads the machine from its open directory and finishes what a kill interrupted.
    ///
    /// # Errors
    /// The directory's.
    pub fn start(
        (machine, effects): (SignerMachine<R>, Vec<crate::machine::Effect>),
        store: Store,
    ) -> Result<Self, StoreError> {
        for effect in effects {
            store.carry_out(effect)?;
        }
        Ok(Self { machine, store })
    }

    /// One request: the answer, after everything that must be on disk before it.
    ///
    /// # Errors
    /// The directory's; the engine must not be used again then.
    pub fn handle(&mut self, request: &Request) -> Result<Reply, StoreError> {
        let mut randomness = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(randomness.as_mut_slice());
        let effects = match self.machine.step(request, randomness) {
            Ok(effects) => effects,
            Err(refused) => {
                tracing::warn!(round = request.round(), "refused: {refused}");
                return Ok(Reply::refused(refused.again(), &refused));
            }
        };
        let mut reply = None;
        for effect in effects {
            reply = self.store.carry_out(effect)?.or(reply);
        }
        // Every list of effects ends in an answer.
        Ok(reply.unwrap_or_else(|| Reply::refused(false, &"there is no answer")))
    }
}

/// Serves the operator until the directory fails; connections that are not the operator's are closed.
///
/// # Errors
/// Why it stopped.
pub async fn serve<R: Reviewer + Send + 'static>(
    listener: TcpListener,
    identity: Identity,
    operator: PartyId,
    engine: Engine<R>,
) -> Result<(), ServeError> {
    let engine = Arc::new(Mutex::new(engine));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (fatal, mut failed) = mpsc::channel::<ServeError>(1);
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await;
        let stream = tokio::select! {
            error = failed.recv() => return Err(error.unwrap_or(ServeError::Panic(String::new()))),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of files, or the peer is gone already: others may still come.
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (identity, engine, fatal) = (identity.clone(), Arc::clone(&engine), fatal.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match connection(stream, &identity, operator, &engine).await {
                Ok(()) => {}
                Err(End::Channel(ChannelError::Closed)) => {}
                Err(End::Channel(error)) => tracing::warn!("connection: {error}"),
                Err(End::Fatal(error)) => drop(fatal.send(error).await),
            }
        });
    }
}

enum End {
    Channel(ChannelError),
    Fatal(ServeError),
}

async fn connection<R: Reviewer + Send + 'static>(
    stream: TcpStream,
    identity: &Identity,
    operator: PartyId,
    engine: &Arc<Mutex<Engine<R>>>,
) -> Result<(), End> {
    let mut channel =
        Channel::accept(stream, identity, |peer| peer == operator).await.map_err(End::Channel)?;
    let pause = Duration::from_secs(1) / REQUESTS_PER_SECOND_MAX;
    loop {
        let earliest_next = Instant::now() + pause;
        let message = channel.receive(IDLE_TIMEOUT).await.map_err(End::Channel)?;
        let request = Request::decode(&message.body);
        let reply = match request {
            Ok(request) if request.round() == message.round && request.session() == message.session => {
                answer(engine, request).await.map_err(End::Fatal)?
            }
            Ok(_) => Reply::refused(false, &"round or session is not the request's"),
            Err(error) => Reply::refused(false, &error),
        };
        let reply = Message { round: message.round, session: message.session, body: reply.encode() };
        channel.send(&reply).await.map_err(End::Channel)?;
        sleep_until(earliest_next).await;
    }
}

/// Reviews and signatures take seconds: off the event loop, one at a time.
async fn answer<R: Reviewer + Send + 'static>(
    engine: &Arc<Mutex<Engine<R>>>,
    request: Request,
) -> Result<Reply, ServeError> {
    let engine = Arc::clone(engine);
    let handled = tokio::task::spawn_blocking(move || {
        let mut engine = engine.lock().map_err(|error| ServeError::Panic(error.to_string()))?;
        Ok::<Reply, ServeError>(engine.handle(&request)?)
    });
    handled.await.map_err(|error| ServeError::Panic(error.to_string()))?
}
