//! A signer as a process: the machine, its directory, and connections from the operator's collector.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_l1::StoreError;
use rand::rngs::OsRng;
use rand::RngCore;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
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
    /// A request before this one failed on the way: memory may be ahead of the disk, and what it says could use a nonce twice.
    #[error("an earlier request failed, and nothing is answered since: start the signer again")]
    Dead,
}

/// The machine with its directory.
///
/// Once a request has failed on the way, or panicked, it is dead: the machine in memory may be ahead of the disk, and no answer of
/// it is worth anything. A new engine begins from the disk.
pub struct Engine<R> {
    machine: SignerMachine<R>,
    store: Store,
    dead: bool,
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
        Ok(Self { machine, store, dead: false })
    }

    /// The answer to a message, after everything that must be on disk before it. What is no request is refused.
    ///
    /// # Errors
    /// `Store` if the directory failed; the engine is dead then. `Dead` if it was before: nobody gets any answer any more.
    pub fn answer(&mut self, message: &Message) -> Result<Message, ServeError> {
        if self.dead {
            return Err(ServeError::Dead);
        }
        // Until the end is reached: neither an error nor a panic on the way leaves an engine that answers.
        self.dead = true;
        let reply = match Request::decode(&message.body) {
            Ok(request) if (request.round(), request.session()) == (message.round, message.session) => {
                self.handle(&request)?
            }
            Ok(_) => Reply::refused(false, &"round or session is not the request's"),
            Err(error) => Reply::refused(false, &error),
        };
        self.dead = false;
        Ok(Message { round: message.round, session: message.session, body: reply.encode() })
    }

    fn handle(&mut self, request: &Request) -> Result<Reply, StoreError> {
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

/// Serves the operator until a request fails; connections that are not the operator's are closed.
///
/// All connections end with it, and from the failure on no request is answered on any of them.
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
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (fatal, mut failed) = mpsc::channel::<ServeError>(1);
    // Dropped on the way out, which ends them.
    let mut connections = JoinSet::new();
    loop {
        let (stream, permit) = tokio::select! {
            biased;
            error = failed.recv() => return Err(error.unwrap_or(ServeError::Dead)),
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        let (identity, engine, fatal) = (identity.clone(), Arc::clone(&engine), fatal.clone());
        connections.spawn(async move {
            let _permit = permit;
            match connection(stream, &identity, operator, &engine).await {
                Ok(()) => {}
                Err(End::Channel(ChannelError::Closed)) => {}
                Err(End::Channel(error)) => tracing::warn!("connection: {error}"),
                // Whose request failed says why.
                Err(End::Fatal(ServeError::Dead)) => tracing::warn!("connection: {}", ServeError::Dead),
                Err(End::Fatal(error)) => drop(fatal.send(error).await),
            }
        });
    }
}

/// The next connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // Nobody closes the semaphore.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // Out of files, or the peer is gone already: others may still come.
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
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
        let reply = answer(engine, message).await.map_err(End::Fatal)?;
        channel.send(&reply).await.map_err(End::Channel)?;
        sleep_until(earliest_next).await;
    }
}

/// Reviews and signatures take seconds: off the event loop, one at a time.
async fn answer<R: Reviewer + Send + 'static>(
    engine: &Arc<Mutex<Engine<R>>>,
    message: Message,
) -> Result<Message, ServeError> {
    let engine = Arc::clone(engine);
    let answered = tokio::task::spawn_blocking(move || {
        // Poisoned by a panic: then the engine is dead, and says so.
        engine.lock().unwrap_or_else(PoisonError::into_inner).answer(&message)
    });
    answered.await.map_err(|error| ServeError::Panic(error.to_string()))?
}
