//! Memory for bodies that are being read: bounded for all together, and for each tenant to half of that, so that one
//! with many slow bodies does not keep the others out.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_schedule::TenantId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const MEBIBYTE: u64 = 1 << 20;

/// See the module's page. Holds a semaphore for each tenant that has sent a body; tenants come from the key file.
pub(super) struct Uploads {
    all: Arc<Semaphore>,
    each: Mutex<BTreeMap<TenantId, Arc<Semaphore>>>,
    all_max: u32,
    each_max: u32,
}

/// Room for one body, until it is dropped.
pub(super) struct Room {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Uploads {
    /// Room for `bytes_max` bytes, of which the largest body has `body_bytes_max`.
    pub(super) fn new(bytes_max: u64, body_bytes_max: u64) -> Self {
        let all_max = mebibytes(bytes_max);
        let each_max = (all_max / 2).max(mebibytes(body_bytes_max)).min(all_max);
        let all = Arc::new(Semaphore::new(all_max as usize));
        Self { all, each: Mutex::default(), all_max, each_max }
    }

    /// Waits for room for a body; one that is larger than all room there is gets all of it.
    pub(super) async fn room(&self, tenant: TenantId, bytes: u64) -> Option<Room> {
        let own = {
            let mut each = self.each.lock();
            let new = || Arc::new(Semaphore::new(self.each_max as usize));
            Arc::clone(each.entry(tenant).or_insert_with(new))
        };
        let share = mebibytes(bytes).min(self.each_max).min(self.all_max);
        // The own part first: who waits for it takes nothing from others. Neither semaphore is ever closed.
        let _own = own.acquire_many_owned(share).await.ok()?;
        let _shared = Arc::clone(&self.all).acquire_many_owned(share).await.ok()?;
        Some(Room { _own, _shared })
    }
}

fn mebibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MEBIBYTE)).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ONE: TenantId = TenantId(1);
    const TWO: TenantId = TenantId(2);

    #[test]
    fn a_tenant_has_half_of_the_room_and_leaves_the_other_half_to_others() {
        let uploads = Uploads::new(8 * MEBIBYTE, 2 * MEBIBYTE);
        let room = |tenant, mebibytes| uploads.room(tenant, mebibytes * MEBIBYTE).now_or_never().flatten();
        let (first, second) = (room(ONE, 2), room(ONE, 2));
        assert!(first.is_some() && second.is_some());
        assert!(room(ONE, 1).is_none(), "its half is in use");
        let others = (room(TWO, 2), room(TWO, 2));
        assert!(others.0.is_some() && others.1.is_some());
        assert!(room(TenantId(3), 1).is_none(), "everything is in use");
        drop(first);
        assert!(room(ONE, 2).is_some());
    }

    #[test]
    fn the_largest_body_always_fits_alone() {
        for (all, body) in [(4, 4), (4, 3), (1, 1), (2, 9)] {
            let uploads = Uploads::new(all * MEBIBYTE, body * MEBIBYTE);
            let room = uploads.room(ONE, body * MEBIBYTE).now_or_never().flatten();
            assert!(room.is_some(), "{body} of {all}");
            let next = uploads.room(TWO, body * MEBIBYTE).now_or_never().flatten();
            assert!(next.is_none(), "{body} of {all}, twice");
        }
    }
}
