//! A whole coordinator: event loop, listener, and the file of keys.

use std::sync::Arc;
use std::time::Duration;

use assay_queue::{ArtifactStore, TaskQueue};
use assay_schedule::Limits;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::{router, ApiLimits, ApiParts};
use crate::keys::KeyRing;
use crate::leader::{Coordinator, LeaderConfig, LeaderError, Parts};
use crate::metrics::Metrics;
use crate::request::ClusterKey;
use crate::server::{serve, ServerLimits};
use crate::shared::Shared;
use crate::webhook::{CallbackPolicy, DeliveryError, Sender};
use crate::work::{BatchReader, Settler, Verifier, WorkLimits};

/// Time between looks at the key file.
const KEYS_TIME: Duration = Duration::from_secs(5);

/// What the binary supplies.
#[derive(Clone)]
pub struct Supplies {
    /// Log, inbox, mailboxes.
    pub queue: Arc<dyn TaskQueue>,
    /// Artifacts.
    pub store: Arc<dyn ArtifactStore>,
    /// Checks batches.
    pub reader: Arc<dyn BatchReader>,
    /// Checks results.
    pub verifier: Arc<dyn Verifier>,
    /// Posts proofs.
    pub settler: Arc<dyn Settler>,
    /// Who may ask.
    pub keys: Arc<KeyRing>,
    /// What coordinators authenticate their requests with; the same for all of a deployment.
    pub cluster: ClusterKey,
}

/// Bounds and times.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Of the schedule; for a deployment that has no state yet.
    pub limits: Limits,
    /// Of the coordinator's own work.
    pub work: WorkLimits,
    /// Of the event loop.
    pub leader: LeaderConfig,
    /// Of the API.
    pub api: ApiLimits,
    /// Of the listener.
    pub server: ServerLimits,
    /// Where callbacks may go.
    pub callbacks: CallbackPolicy,
}

/// Why a service ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The event loop cannot go on.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// TLS for webhooks cannot be set up.
    #[error(transparent)]
    Webhooks(#[from] DeliveryError),
}

/// A coordinator.
pub struct Service {
    supplies: Supplies,
    settings: Settings,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

impl Service {
    /// A coordinator that does nothing yet.
    pub fn new(supplies: Supplies, settings: Settings) -> Self {
        Self { supplies, settings, shared: Arc::default(), metrics: Arc::default() }
    }

    /// The state that it will follow.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its API, without a listener. Event streams end when `stop` holds `true`.
    pub fn router(&self, stop: watch::Receiver<bool>) -> Router {
        let supplies = self.supplies.clone();
        let parts = ApiParts {
            shared: Arc::clone(&self.shared),
            queue: supplies.queue,
            store: supplies.store,
            reader: supplies.reader,
            keys: supplies.keys,
            cluster: supplies.cluster,
            metrics: Arc::clone(&self.metrics),
            callbacks: self.settings.callbacks,
            stop,
        };
        router(parts, self.settings.api)
    }

    /// Runs until `stop` holds `true` or is dropped, or the event loop cannot go on; answers what is under way.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn run(
        self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ServiceError> {
        let (end, ending) = watch::channel(false);
        // The event loop ends after the server: requests that are under way need its answers.
        let (halt, halting) = watch::channel(false);
        let router = self.router(ending.clone());
        let server = async {
            serve(listener, router, self.settings.server, ended(ending.clone())).await;
            halt.send_replace(true);
        };
        let coordinator = self.coordinator()?;
        let lead = async {
            let done = coordinator.run(halting).await;
            // Without an event loop there is nothing to serve.
            end.send_replace(true);
            done
        };
        let watch = async {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = ended(ending.clone()) => {}
            }
            end.send_replace(true);
        };
        let keys = async {
            tokio::select! {
                () = refresh(&self.supplies.keys) => {}
                () = ended(ending.clone()) => {}
            }
        };
        let ((), done, (), ()) = tokio::join!(server, lead, watch, keys);
        Ok(done?)
    }

    fn coordinator(&self) -> Result<Coordinator, DeliveryError> {
        let (supplies, settings) = (self.supplies.clone(), &self.settings);
        let parts = Parts {
            queue: supplies.queue,
            store: supplies.store,
            verifier: supplies.verifier,
            settler: supplies.settler,
            webhooks: Sender::new(settings.callbacks)?,
            keys: supplies.keys,
            cluster: supplies.cluster,
            metrics: Arc::clone(&self.metrics),
        };
        let shared = Arc::clone(&self.shared);
        Ok(Coordinator::new(parts, settings.limits.clone(), settings.work, settings.leader, shared))
    }
}

async fn ended(mut end: watch::Receiver<bool>) {
    // An error says that the sender is gone, which means the same.
    let _ = end.wait_for(|end| *end).await;
}

/// Reads the key file again when it has changed.
async fn refresh(keys: &KeyRing) {
    loop {
        tokio::time::sleep(KEYS_TIME).await;
        match keys.refresh() {
            Ok(true) => tracing::info!(keys = keys.get().len(), "the key file was read again"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the key file cannot be used; the keys stay as they are"),
        }
    }
}
