//! Who waits for what: readers sleep until something is written, without polling.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Sleepers by the name of what they wait for. Clones share them.
#[derive(Clone)]
pub(crate) struct Bells {
    bells: Arc<Mutex<HashMap<String, Bell>>>,
    /// Whether a name stays when its last listener has gone, until [`Bells::drop_idle`].
    is_sticky: bool,
}

#[derive(Default)]
struct Bell {
    notify: Arc<Notify>,
    /// What the owner of the bells keeps beside each, see [`Ear::state`].
    state: Arc<tokio::sync::Mutex<u64>>,
    ears: usize,
    idle_since: Option<Instant>,
    rings: u64,
    quiet: Option<Quiet>,
}

/// Up to where somebody has looked, and found nothing after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quiet {
    /// The place.
    pub upto: u64,
    /// Rings before the look.
    pub rings: u64,
    /// The connection over which rings came already then.
    pub generation: u64,
}

impl Bell {
    fn ring(&mut self) {
        self.rings += 1;
        self.notify.notify_waiters();
    }
}

impl Bells {
    pub(crate) fn new(is_sticky: bool) -> Self {
        Self { bells: Arc::default(), is_sticky }
    }

    /// Begins to listen; rings from now on are heard through [`Ear::ring`].
    pub(crate) fn listen(&self, name: &str) -> Ear {
        let mut bells = self.lock();
        let bell = match bells.get_mut(name) {
            Some(bell) => bell,
            None => bells.entry(name.to_owned()).or_default(),
        };
        bell.ears += 1;
        bell.idle_since = None;
        Ear {
            bells: self.clone(),
            name: name.to_owned(),
            notify: bell.notify.clone(),
            state: bell.state.clone(),
        }
    }

    /// Wakes those who wait for `name`.
    pub(crate) fn ring(&self, name: &str) {
        if let Some(bell) = self.lock().get_mut(name) {
            bell.ring();
        }
    }

    /// Wakes everybody.
    #[allow(clippy::iter_over_hash_type, reason = "waking has no order")]
    pub(crate) fn ring_all(&self) {
        for bell in self.lock().values_mut() {
            bell.ring();
        }
    }

    /// Up to `max` names that nobody has listened to for `idle`, with their state.
    pub(crate) fn idle(&self, idle: Duration, max: usize) -> Vec<(String, Arc<tokio::sync::Mutex<u64>>)> {
        let now = Instant::now();
        let is_idle = |bell: &Bell| bell.idle_since.is_some_and(|since| now.duration_since(since) >= idle);
        let bells = self.lock();
        let idle = bells.iter().filter(|(_, bell)| is_idle(bell)).take(max);
        idle.map(|(name, bell)| (name.clone(), bell.state.clone())).collect()
    }

    /// Forgets a name if nobody listens to it.
    pub(crate) fn drop_idle(&self, name: &str) {
        let mut bells = self.lock();
        if bells.get(name).is_some_and(|bell| bell.ears == 0) {
            bells.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Bell>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One listener.
pub(crate) struct Ear {
    bells: Bells,
    name: String,
    notify: Arc<Notify>,
    state: Arc<tokio::sync::Mutex<u64>>,
}

impl Ear {
    /// Ends with the next ring after it was enabled or first polled.
    pub(crate) fn ring(&self) -> Notified<'_> {
        self.notify.notified()
    }

    /// Rings so far, and the last look that found nothing more.
    pub(crate) fn rings(&self) -> (u64, Option<Quiet>) {
        self.bells.lock().get(&self.name).map_or((0, None), |bell| (bell.rings, bell.quiet))
    }

    /// Notes that a look has found nothing after a place, or that what was noted does not hold any more.
    pub(crate) fn set_quiet(&self, quiet: Option<Quiet>) {
        if let Some(bell) = self.bells.lock().get_mut(&self.name) {
            bell.quiet = quiet;
        }
    }

    /// A number that the owner of the bells keeps for this name; 0 at first.
    pub(crate) fn state(&self) -> &tokio::sync::Mutex<u64> {
        &self.state
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut bells = self.bells.lock();
        let Some(bell) = bells.get_mut(&self.name) else { return };
        bell.ears -= 1;
        if bell.ears == 0 {
            bell.idle_since = Some(Instant::now());
            if !self.bells.is_sticky {
                bells.remove(&self.name);
            }
        }
    }
}
