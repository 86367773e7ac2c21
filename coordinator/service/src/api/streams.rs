//! Places for event streams: bounded for all together and for each tenant, so that one key does not keep the others out.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_schedule::TenantId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module's page. Holds a semaphore for each tenant that has opened a stream; tenants come from the key file.
pub(super) struct Streams {
    all: Arc<Semaphore>,
    each: Mutex<BTreeMap<TenantId, Arc<Semaphore>>>,
    each_max: usize,
}

/// A place for one stream, until it is dropped.
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Streams {
    /// Places for `max` streams, of which one tenant has `each_max`.
    pub(super) fn new(max: usize, each_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(max)), each: Mutex::default(), each_max: each_max.min(max) }
    }

    /// A place, if there is one.
    pub(super) fn place(&self, tenant: TenantId) -> Option<Place> {
        let own = {
            let mut each = self.each.lock();
            Arc::clone(each.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.each_max))))
        };
        let _own = own.try_acquire_owned().ok()?;
        let _shared = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _own, _shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_share_and_all_together_have_no_more_than_there_is() {
        let streams = Streams::new(5, 2);
        let place = |tenant| streams.place(TenantId(tenant));
        let (first, second) = (place(1), place(1));
        assert!(first.is_some() && second.is_some() && place(1).is_none(), "its share is in use");
        let others = (place(2), place(2), place(3));
        assert!(others.0.is_some() && others.1.is_some() && others.2.is_some());
        assert!(place(3).is_none(), "everything is in use");
        drop(first);
        assert!(place(1).is_some());
    }
}
